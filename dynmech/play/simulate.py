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
from dynmech._types import NONE
from dynmech.errors import InvalidArgument, OutsideSupport, describe, import_extra, shown
from dynmech.logs.log import Log
from dynmech.logs.reading import BUY, EXIT, QUERY
from dynmech.market.displays import places
from dynmech.market.settlements import AbstractSettlementSignal
from dynmech.market.values import MarkovValues
from dynmech.policy.priced import profile_index
from dynmech.policy.under import Elsewhere, check_totals, play_under, settling_signal

if TYPE_CHECKING:
    from dynmech.market.environment import RecommendationMDP
    from dynmech.play.terms import AbstractTerms
    from dynmech.policy.base import AbstractPricedPolicy

Strategy = Callable[[int, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
_CHUNK = 100_000


class Simulation(eqx.Module):
    """Records of N simulated conversations; money unless said otherwise.

    - `profile` (N,): index into the policy's profiles; `omega` (N,): taste point drawn.
    - `recommendation`, `action`, `symbol` (N, T): -1 for none shown; action codes, -1 after
      the end; what was heard after a query, numbered by `env.heard`, -1 where nothing was. Where
      several products are shown at once `recommendation` is (N, T, K), -1 in empty places.
    - `heard` (N, T): the platform's part of `symbol`, -1 where none came or there is but one.
    - `first` (N, 1+n), `reported` (N, T, n): symbols of period 1, and values, money, as reported;
      the platform's own symbol first; NaN after the end.
    - `rating` (N,): the settlement signal as it came, NaN where none did; `estimate` (N,): what it
      counts as utility of the product bought, NaN where nothing was.
    - `core`, `groves` (N, n): transfers paid. `earned` (N, n): values from purchases.
    - `user_utility` (N,): utility of the product bought, relative to leaving; `round_costs` (N,):
      what her queries cost.
    - `settled_at_mean`: True where the settlement's noise is not known to the market.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    profile: Int[np.ndarray, " N"]
    omega: Int[np.ndarray, " N"]
    recommendation: Int[np.ndarray, "N T ..."]
    action: Int[np.ndarray, "N T"]
    symbol: Int[np.ndarray, "N T"]
    heard: Int[np.ndarray, "N T"]
    first: Int[np.ndarray, "N n1"]
    reported: Float[np.ndarray, "N T n"]
    rating: Float[np.ndarray, " N"]
    estimate: Float[np.ndarray, " N"]
    core: Float[np.ndarray, "N n"]
    groves: Float[np.ndarray, "N n"]
    earned: Float[np.ndarray, "N n"]
    user_utility: Float[np.ndarray, " N"]
    round_costs: Float[np.ndarray, " N"]
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
        """Values earned plus the user's utility, less what her queries cost."""
        return self.earned.sum(axis=1) + self.user_utility - self.round_costs

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

    def to_log(self) -> Log:
        """What a platform would have logged: recommendations, actions, ratings that came, reports.

        Ratings after purchases are in money, `scale=(0, 1)`; after a query the platform's symbol
        is logged. First signals are in columns `signal_platform`, `signal_NAME`, reported values
        in `theta_NAME`. A conversation that ends with a query has no end in the log.

        **Returns:** a `Log`, which `Log.from_frame(log.to_frame(), ...)` reads back.
        """
        live = self.action >= 0
        row, turn = np.nonzero(live)
        last = turn == self.length[row] - 1
        n, action = len(self.names), self.action[row, turn]
        kind = np.where(action < n, BUY, np.where(action == n, EXIT, QUERY))
        parties = ("platform", *self.names)
        held = [k for k in range(n + 1) if self.first[:, k].any()]
        columns = ("conversation", "round", "shown", "action", "bought", "rating", "signal")
        return Log(
            conversations=np.arange(len(self.profile)),
            offsets=np.concatenate([[0], np.cumsum(self.length)]),
            products=self.names,
            shown=self.recommendation[row, turn].reshape(len(row), -1),
            kind=kind,
            bought=np.where(kind == BUY, action, -1),
            rating=np.where(last, self.rating[row], np.nan),
            signal=self.heard[row, turn],
            first=self.first if held else None,
            reports=self.reported[row, turn],
            first_columns=tuple(f"signal_{x}" for x in parties) if held else (),
            reporters=self.names,
            scale=(0.0, 1.0),
            columns=tuple((name, name) for name in columns),
        )

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
                "round_costs": np.repeat(self.round_costs, n),
            }
        )


def simulate(
    terms: AbstractTerms,
    key: jax.Array,
    conversations: int,
    strategies: Mapping[int | str, Strategy] | None,
    profile: int | None,
    under: RecommendationMDP | None = None,
) -> Simulation:
    """See `AbstractTerms.simulate`."""
    policy = terms.policy
    conversations = whole(1)("simulate(conversations=...)", conversations)
    names = policy.env.names
    lies = by_advertiser(names, strategies)
    rng = generator("simulate(key=...)", key)
    charged, signal, stage = _Totals(terms, lies), terms.estimator, policy
    if under is not None:
        check_totals("simulate(under=...)", terms.groves)
        stage = play_under("simulate(under=...)", policy, under)
        signal = settling_signal(policy, stage.env, signal)
        charged.table = np.nan_to_num(charged.table, nan=0.0)
    parts = []
    for start in range(0, conversations, _CHUNK):
        count = min(_CHUNK, conversations - start)
        drawn = _profiles(policy, stage, rng, count, profile)
        part, reports = draw_conversations(stage, signal, lies, rng, drawn)
        part["groves"] = charged(drawn, reports, part["omega"])
        parts.append(part)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    at_mean = signal.rating_noise(stage.env.gains) is None
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


def _profiles(policy, stage, rng: np.random.Generator, count: int, profile: int | None):
    if profile is not None:
        return np.full(count, profile_index(policy, "simulate", profile))
    weights = stage.weights
    return rng.choice(len(weights), count, p=weights / weights.sum())


def draw_conversations(
    policy: AbstractPricedPolicy | Elsewhere,
    signal: AbstractSettlementSignal,
    lies: Mapping[int, Strategy],
    rng: np.random.Generator,
    profile: Int[np.ndarray, " N"],
) -> tuple[dict[str, np.ndarray], Int[np.ndarray, "N _r"]]:
    """Draw one conversation for each entry of `profile`; no Groves term is charged.

    **Returns:** records, and the initial reports (N, 2n+1): value indices, then symbols.
    """
    env, n, count = policy.env, policy.env.products, len(profile)
    cursor, horizon = policy.cursor(signal), int(env.horizon)
    truth = policy.profiles.theta[profile].copy()
    seen = policy.profiles.signals[profile]
    omega = draw(rng, policy.roots[profile])
    told, said = ask_reports(env, lies, 0, truth, seen[:, 1:])
    heard = np.concatenate([seen[:, :1], said], axis=1)
    reports = np.concatenate([told, heard], axis=1)
    cursor.begin(heard)
    record = blank_record(profile, omega, np.zeros((count, n)), horizon)
    record["first"][:] = heard
    support = np.asarray(env.values.support, float)
    record["recommendation"] = places(env, np.full((count, horizon), -1))
    alive = np.arange(count)
    for t in range(horizon):
        control = cursor.choose(told[alive], rng)
        record["reported"][alive, t] = support[np.arange(n), told[alive]]
        laws, law = cursor.laws(control, omega[alive])
        action = draw(rng, law)
        record["recommendation"][alive, t] = places(env, control)
        record["action"][alive, t] = action
        bought = np.flatnonzero(action < n)
        who, product = alive[bought], action[bought]
        predicted = cursor.predict(bought, product) if signal.counts_missing() else 0.0 * bought
        given = laws[..., bought, product], predicted
        record_purchases(record, env, signal, rng, who, product, given, truth, told)
        again = action == n + 1
        cost = env.costs[control, omega[alive]] * again
        record["round_costs"][alive] += cost
        record["core"][alive] += cost[:, None]
        if t == horizon - 1 or not again.any():
            break
        alive, control = alive[again], control[again]
        joint = draw(rng, cursor.symbols(again, omega[alive]))
        record["symbol"][alive, t] = joint
        symbols = env.heard.split(joint, control)
        if env.feedback_alphabet[0] > 1:
            record["heard"][alive, t] = symbols[0]
        truth[alive] = _next_values(env, rng, truth[alive], control)
        told[alive], said = ask_reports(env, lies, t + 1, truth[alive], symbols[1:].T)
        cursor.advance(env.heard.join(np.concatenate([symbols[:1], said.T]), control))
    return record, reports


class _Totals:
    """Groves totals at the reported profile; NaN where that profile was not solved for.

    A total is constant in her own report, so a single liar is charged as if she told truth. A
    data-driven total reads the taste, decoded without noise.
    """

    def __init__(self, terms: AbstractTerms, lies: Mapping[int, Strategy]):
        self.table, self.lies = terms.totals_by_taste(), tuple(lies)
        known = terms.policy.profiles
        rows = np.concatenate([known.theta, known.signals], axis=1).tolist()
        self.known = {tuple(row): b for b, row in enumerate(rows)}

    def __call__(self, profile, reports, omega) -> np.ndarray:
        omega = omega if self.table.shape[2] > 1 else 0
        if not self.lies:
            return self.table[profile, :, omega]
        unique, inverse = np.unique(reports, axis=0, return_inverse=True)
        found = np.array([self.known.get(tuple(row), -1) for row in unique.tolist()])
        found = found[inverse.reshape(-1)]
        charged = np.where((found >= 0)[:, None], self.table[found, :, omega], np.nan)
        if len(self.lies) == 1:
            (liar,) = self.lies
            charged[:, liar] = self.table[profile, liar, omega]
        return charged


def _next_values(env, rng, theta: np.ndarray, control: np.ndarray) -> np.ndarray:
    values = env.values
    if not isinstance(values, MarkovValues):
        return theta
    law = values.kernel[control[:, None], np.arange(theta.shape[1]), theta]
    return draw(rng, law)


def blank_record(profile, omega, groves, horizon: int) -> dict[str, np.ndarray]:
    """What `Simulation` holds of N conversations before anything has happened."""
    count, n = groves.shape
    return {
        "profile": profile,
        "omega": omega,
        "recommendation": np.full((count, horizon), NONE),
        "action": np.full((count, horizon), -1),
        "symbol": np.full((count, horizon), -1),
        "heard": np.full((count, horizon), -1),
        "first": np.zeros((count, n + 1), np.int64),
        "reported": np.full((count, horizon, n), np.nan),
        "rating": np.full(count, np.nan),
        "estimate": np.full(count, np.nan),
        "core": np.zeros((count, n)),
        "groves": groves,
        "earned": np.zeros((count, n)),
        "user_utility": np.zeros(count),
        "round_costs": np.zeros(count),
    }


def record_purchases(record, env, signal, rng, who, product, given, truth, told) -> None:
    """Enter what the conversations `who` (K,) bought, with ratings drawn and what they count.

    **Arguments:** `given`: what `signal.laws` holds of each (*L, K), and what the mechanism
    predicts (K,); `truth`, `told` (N, n): indices of values.
    """
    support, omega = np.asarray(env.values.support, float), record["omega"]
    gains = np.asarray(env.gains, float)
    rating = signal.draw(rng, gains, product, omega[who], given[0])
    estimate = signal.estimate(product, rating, *given)
    record["rating"][who], record["estimate"][who] = rating, estimate
    record["earned"][who, product] = support[product, truth[who, product]]
    record["user_utility"][who] = gains[product, omega[who]]
    charged = support[product, told[who, product]]
    core = np.repeat(-(charged + estimate)[:, None], support.shape[0], axis=1)
    core[np.arange(len(who)), product] = -estimate
    record["core"][who] += core


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
