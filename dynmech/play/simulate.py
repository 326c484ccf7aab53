"""Whole conversations at once: users drawn, policy followed, every transfer recorded.

Advertisers report the truth, or follow strategies given by the caller; the mechanism only ever
sees reports, the user only ever acts on her taste.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Self

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, Int

from dynmech import files
from dynmech._checks import generator, indices, instance, whole
from dynmech._types import NONE, join_symbols, split_symbol
from dynmech.errors import InvalidArgument, OutsideSupport, describe, import_extra, shown
from dynmech.market.values import MarkovValues
from dynmech.payments.data_driven import DataDriven
from dynmech.policy.conversation import profile_index

if TYPE_CHECKING:
    from dynmech.mechanism.team import DynamicTeamMechanism

Strategy = Callable[[int, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
_CHUNK = 100_000


class Simulation(eqx.Module):
    """Records of N simulated conversations; money unless said otherwise.

    - `profile` (N,): index into the policy's profiles; `omega` (N,): taste point drawn.
    - `recommendation`, `action`, `symbol` (N, T): -1 for none shown; action codes, -1 after
      the end; joint symbol seen after a query, -1 where none came.
    - `estimate` (N,): settlement signal, estimated utility of the product bought; NaN if none.
    - `core`, `groves` (N, n): transfers paid. `earned` (N, n): values from purchases.
    - `user_utility` (N,): utility of the product bought.
    - `settled_at_mean`: True where the settlement's noise is not known to the market.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    profile: Int[np.ndarray, " N"]
    omega: Int[np.ndarray, " N"]
    recommendation: Int[np.ndarray, "N T"]
    action: Int[np.ndarray, "N T"]
    symbol: Int[np.ndarray, "N T"]
    estimate: Float[np.ndarray, " N"]
    core: Float[np.ndarray, "N n"]
    groves: Float[np.ndarray, "N n"]
    earned: Float[np.ndarray, "N n"]
    user_utility: Float[np.ndarray, " N"]
    settled_at_mean: bool = eqx.field(static=True)

    @property
    def payment(self) -> Float[np.ndarray, "N n"]:
        """Everything each advertiser pays."""
        return self.core + self.groves

    @property
    def payoff(self) -> Float[np.ndarray, "N n"]:
        """What each advertiser earns less what she pays."""
        return self.earned - self.payment

    @property
    def surplus(self) -> Float[np.ndarray, " N"]:
        """Values earned plus the user's utility."""
        return self.earned.sum(axis=1) + self.user_utility

    @property
    def length(self) -> Int[np.ndarray, " N"]:
        """Rounds that took place."""
        return (self.action >= 0).sum(axis=1)

    def mean(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard error of a record: "payment", "surplus", "payoff", ..."""
        values = np.asarray(getattr(self, name), float)
        error = values.std(axis=0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else np.nan
        return np.asarray(values.mean(axis=0)), np.broadcast_to(error, values.shape[1:])

    def save(self, path: str | os.PathLike) -> None:
        """Write the records to one sealed file, in one step; see `dynmech.files`."""
        files.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike, parts: tuple[type, ...] = ()) -> Self:
        """Read what `save` wrote; `parts` lists your own classes that it holds, if any.

        **Raises:** `InvalidArgument` for a file that is changed, torn, or of another format.
        """
        return files.load(path, cls, parts)

    def to_frame(self):
        """Labelled pandas table: one row a conversation and advertiser."""
        pandas = import_extra("pandas", "experiments", "Simulation.to_frame")
        count, n = self.core.shape
        words = np.array([*self.names, "exit", "query", ""], dtype=object)
        last = self.action[np.arange(count), self.length - 1]
        return pandas.DataFrame(
            {
                "conversation": np.repeat(np.arange(count), n),
                "profile": np.repeat(self.profile, n),
                "rounds": np.repeat(self.length, n),
                "ended_by": np.repeat(words[last], n),
                "estimate": np.repeat(self.estimate, n),
                "advertiser": np.tile(np.array(self.names, dtype=object), count),
                "earned": self.earned.ravel(),
                "core_transfer": self.core.ravel(),
                "groves_term": self.groves.ravel(),
                "payment": self.payment.ravel(),
                "user_utility": np.repeat(self.user_utility, n),
            }
        )


def simulate(
    mechanism: DynamicTeamMechanism,
    key: jax.Array,
    conversations: int,
    strategies: Mapping[int | str, Strategy] | None,
    profile: int | None,
) -> Simulation:
    """See `DynamicTeamMechanism.simulate`."""
    policy = mechanism.policy
    conversations = whole(1)("simulate(conversations=...)", conversations)
    names = policy.env.names
    lies = by_advertiser(names, strategies)
    rng = generator("simulate(key=...)", key)
    run = _Run(mechanism, lies, rng)
    parts = []
    for start in range(0, conversations, _CHUNK):
        count = min(_CHUNK, conversations - start)
        parts.append(run.conversations(run.profiles(count, profile)))
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    at_mean = mechanism.estimator.noise(policy.env.utilities) is None
    return Simulation(names=names, settled_at_mean=at_mean, **joined)


def by_advertiser(names: tuple[str, ...], strategies) -> dict[int, Strategy]:
    """Strategies by index; `OutsideSupport` for advertisers that are not there."""
    call = "simulate(strategies=...)"
    given = instance(Mapping, "a mapping from advertisers to functions")(
        call, {} if strategies is None else strategies
    )
    lies: dict[int, Any] = {}
    for who, strategy in given.items():
        known = who in names if isinstance(who, str) else who in range(len(names))
        if not known:
            must = f"be keyed by {', '.join(names)} or their indices"
            raise OutsideSupport(describe(call, must, shown(who)))
        if not callable(strategy):
            must = "hold functions (period, values, symbols) -> (values, symbols)"
            raise InvalidArgument(describe(call, must, shown(strategy)))
        lies[names.index(who) if isinstance(who, str) else int(who)] = strategy
    return lies


class _Run:
    """Tables shared by all chunks of one simulation."""

    def __init__(self, mechanism: DynamicTeamMechanism, lies: dict[int, Strategy], rng):
        self.mechanism, self.lies, self.rng = mechanism, lies, rng
        policy = mechanism.policy
        self.policy, self.env, self.plan = policy, policy.env, policy.plan
        self.means = mechanism.settlement_means()
        pairs = policy.pairs
        self.index = {
            (int(r), *row): k
            for k, (r, row) in enumerate(zip(pairs.root, pairs.theta.tolist(), strict=True))
        }
        self.signal_root = {tuple(row): r for r, row in enumerate(pairs.signals.tolist())}

    def profiles(self, count: int, profile: int | None) -> np.ndarray:
        policy = self.policy
        if profile is not None:
            return np.full(count, profile_index(policy, "simulate", profile))
        if policy.batch:
            return self.rng.integers(len(policy.profiles), size=count)
        weights = policy.probability().ravel()
        return self.rng.choice(len(weights), count, p=weights / weights.sum())

    def conversations(self, profile: np.ndarray) -> dict[str, np.ndarray]:
        policy, plan, env, n = self.policy, self.plan, self.env, self.env.products
        count, horizon = len(profile), plan.horizon
        pairs = policy.pairs
        truth = pairs.theta[pairs.base[profile]].copy()
        seen = pairs.signals[pairs.root[pairs.base[profile]]].copy()
        omega = draw(self.rng, plan.root[pairs.root[pairs.base[profile]]])
        told_theta, told = ask_reports(env, self.lies, 0, truth, seen[:, 1:])
        root = self._root(np.concatenate([seen[:, :1], told], axis=1))
        groves = self._totals(profile, told_theta, root, omega)
        record = blank_record(profile, omega, groves, horizon)
        node, alive = np.zeros(count, np.int64), np.arange(count)
        alphabet = env.feedback_alphabet
        for t in range(horizon):
            pair = self._pair(root[alive], told_theta[alive])
            control = plan.actions[t][pair, node[alive]].astype(np.int64)
            edge = plan.edge(t, node[alive], control)
            law = policy.compiled.action[edge, :, omega[alive]]
            action = draw(self.rng, law)
            record["recommendation"][alive, t] = np.where(control == n, NONE, control)
            record["action"][alive, t] = action
            bought = np.flatnonzero(action < n)
            who, product = alive[bought], action[bought]
            mean = self.means[edge[bought], product, omega[who]]
            signal = self.mechanism.estimator
            record_purchases(record, env, signal, self.rng, who, product, mean, truth, told_theta)
            again = action == n + 1
            if t == horizon - 1 or not again.any():
                break
            alive, control, edge = alive[again], control[again], edge[again]
            column = np.asarray(plan.tables.column)
            chance = column[plan.tree.structure.columns[edge], omega[alive][:, None]]
            joint = draw(self.rng, chance)
            record["symbol"][alive, t] = joint
            symbols = split_symbol(joint, alphabet).T
            truth[alive] = self._next_values(truth[alive], control)
            told_theta_now, told = ask_reports(env, self.lies, t + 1, truth[alive], symbols[:, 1:])
            told_theta[alive] = told_theta_now
            reported = np.concatenate([symbols[:, :1], told], axis=1)
            heard = join_symbols(reported.T, alphabet)
            node[alive] = plan.tree.layers[t].child[node[alive], control, heard]
        return record

    def _root(self, signals: np.ndarray) -> np.ndarray:
        return self._look_up(self.signal_root, signals)

    def _pair(self, root: np.ndarray, theta: np.ndarray) -> np.ndarray:
        return self._look_up(self.index, np.concatenate([root[:, None], theta], axis=1))

    def _look_up(self, table: dict, rows: np.ndarray) -> np.ndarray:
        unique, inverse = np.unique(rows, axis=0, return_inverse=True)
        found = [table.get(tuple(row), -1) for row in unique.tolist()]
        if min(found) < 0:
            must = "report only what was solved: one advertiser's own alternatives in a batch"
            got = unique[int(np.argmin(found))].tolist()
            raise OutsideSupport(describe("simulate(strategies=...)", must, got))
        return np.array(found)[inverse.reshape(-1)]

    def _totals(self, profile, told_theta, root, omega) -> np.ndarray:
        """Groves totals at the reported profile; NaN where that profile was not solved for.

        A total is constant in her own report, so a single liar is charged as if she told truth.
        A data-driven total reads the taste, decoded without noise.
        """
        if isinstance(self.mechanism.groves, DataDriven):
            table = self.mechanism.groves.function(self.mechanism.own)
        else:
            fixed = self.mechanism.groves_total.reshape(self.env.products, -1).T
            table, omega = fixed[:, :, None], 0
        if not self.lies:
            return table[profile, :, omega]
        known = {int(pair): b for b, pair in enumerate(self.policy.pairs.base)}
        reported = self._pair(root, told_theta).tolist()
        found = np.array([known.get(pair, -1) for pair in reported])
        charged = np.where((found >= 0)[:, None], table[found, :, omega], np.nan)
        if len(self.lies) == 1:
            (liar,) = self.lies
            charged[:, liar] = table[profile, liar, omega]
        return charged

    def _next_values(self, theta: np.ndarray, control: np.ndarray) -> np.ndarray:
        values = self.env.values
        if not isinstance(values, MarkovValues):
            return theta
        law = values.kernel[control[:, None], np.arange(theta.shape[1]), theta]
        return draw(self.rng, law)


def blank_record(profile, omega, groves, horizon: int) -> dict[str, np.ndarray]:
    """What `Simulation` holds of N conversations before anything has happened."""
    count, n = groves.shape
    return {
        "profile": profile,
        "omega": omega,
        "recommendation": np.full((count, horizon), NONE),
        "action": np.full((count, horizon), -1),
        "symbol": np.full((count, horizon), -1),
        "estimate": np.full(count, np.nan),
        "core": np.zeros((count, n)),
        "groves": groves,
        "earned": np.zeros((count, n)),
        "user_utility": np.zeros(count),
    }


def record_purchases(record, env, signal, rng, who, product, mean, truth, told) -> None:
    """Enter what the conversations `who` (K,) bought, with estimates drawn around `mean` (K,).

    **Arguments:** `truth`, `told` (N, n): indices of values.
    """
    support, omega = np.asarray(env.values.support, float), record["omega"]
    utilities = np.asarray(env.utilities, float)
    estimate = signal.draw(rng, utilities, product, omega[who], mean)
    record["estimate"][who] = estimate
    record["earned"][who, product] = support[product, truth[who, product]]
    record["user_utility"][who] = utilities[product, omega[who]]
    charged = support[product, told[who, product]]
    core = np.repeat(-(charged + estimate)[:, None], support.shape[0], axis=1)
    core[np.arange(len(who)), product] = -estimate
    record["core"][who] = core


def ask_reports(env, lies: Mapping[int, Strategy], t: int, theta, signals):
    """Value indices (N, n) and own symbols (N, n) that are reported in round t, from 0.

    **Raises:** `OutsideSupport` for reports that do not exist.
    """
    told_theta, told = theta.copy(), signals.copy()
    alphabet = (env.initial_alphabet, env.feedback_alphabet)[t > 0]
    for i, strategy in lies.items():
        answer = strategy(t + 1, theta[:, i].copy(), signals[:, i].copy())
        if not isinstance(answer, tuple) or len(answer) != 2:
            must = "return two arrays, reported value indices and symbols"
            raise InvalidArgument(describe("simulate(strategies=...)", must, shown(answer)))
        value, symbol = answer
        tops = (env.values.support.shape[1], alphabet[i + 1])
        for name, given, top in zip(("theta", "signal"), (value, symbol), tops, strict=True):
            given = indices(None)("simulate(strategies=...)", given)
            if given.shape != (len(theta),) or (given < 0).any() or (given >= top).any():
                must = f"return {name} indices of shape ({len(theta)},) in 0..{top - 1}"
                raise OutsideSupport(describe("simulate(strategies=...)", must, given))
        told_theta[:, i], told[:, i] = value, symbol
    return told_theta, told


def draw(rng: np.random.Generator, weights: np.ndarray) -> np.ndarray:
    """Draw an index along the last axis with the given unnormalised weights."""
    ladder = np.cumsum(weights, axis=-1)
    point = rng.random(ladder.shape[:-1])[..., None] * ladder[..., -1:]
    return (ladder <= point).sum(axis=-1).clip(max=weights.shape[-1] - 1)
