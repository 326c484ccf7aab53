"""Whole conversations at once: users drawn, policy followed, every transfer recorded.

Advertisers report the truth, or follow strategies given by the caller; the mechanism only ever
sees reports, the user only ever acts on her taste.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Int

from dynmech._checks import indices, instance, key_words, whole
from dynmech._devices import Work, read_mesh
from dynmech._types import NONE
from dynmech.errors import InvalidArgument, OutsideSupport, describe, shown
from dynmech.market.displays import places
from dynmech.market.heard import Heard
from dynmech.market.settlements import AbstractSettlementSignal
from dynmech.market.values import MarkovValues
from dynmech.play.records import Simulation
from dynmech.policy.priced import profile_index
from dynmech.policy.under import Elsewhere, check_totals, play_under, settling_signal
from dynmech.problem.compile import distinct_integers

if TYPE_CHECKING:
    from dynmech.market.environment import RecommendationMDP
    from dynmech.play.terms import AbstractTerms
    from dynmech.policy.base import AbstractPricedPolicy

Strategy = Callable[[int, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]
BATCH = 65_536  # conversations drawn by one generator


class Drawing:
    """Conversations of a mechanism in batches of `BATCH`, each drawn by a generator of its own.

    Batch k is the same whatever else is drawn, wherever, and in whatever order.
    """

    def __init__(
        self,
        verb: str,
        terms: AbstractTerms,
        key: jax.Array,
        strategies: Mapping[int | str, Strategy] | None,
        profile: int | None,
        under: RecommendationMDP | None,
    ):
        policy = terms.policy
        self.verb, self.policy, self.stage, self.signal = verb, policy, policy, terms.estimator
        self.words = key_words(f"{verb}(key=...)", key)
        self.lies = by_advertiser(verb, policy.env.names, strategies)
        self.charged = _Totals(terms, self.lies)
        if under is not None:
            check_totals(f"{verb}(under=...)", terms.groves)
            self.stage = play_under(f"{verb}(under=...)", policy, under)
            self.signal = settling_signal(policy, self.stage.env, self.signal)
            self.charged.table = np.nan_to_num(self.charged.table, nan=0.0)
        self.profile = None if profile is None else profile_index(policy, verb, profile)

    @property
    def settled_at_mean(self) -> bool:
        """Whether the noise of what settles is not known."""
        return self.signal.rating_noise(self.stage.env.gains) is None

    def records(self, batch: tuple[int, int]) -> dict[str, np.ndarray]:
        """The records of batch number k, or of as many of it as are wanted."""
        k, count = batch
        rng = np.random.default_rng([*self.words, k])
        if self.profile is None:
            weights = self.stage.weights
            drawn = rng.choice(len(weights), count, p=weights / weights.sum())
        else:
            drawn = np.full(count, self.profile)
        given = self.stage, self.signal, self.lies, rng, drawn, self.policy.env.heard
        part, reports = draw_conversations(*given)
        part["groves"] = self.charged(drawn, reports, part["omega"])
        return part


def batches(conversations: int) -> list[tuple[int, int]]:
    """Batches of so many conversations: the number of each, and how many it has."""
    starts = range(0, conversations, BATCH)
    return [(k, min(BATCH, conversations - start)) for k, start in enumerate(starts)]


def simulate(
    terms: AbstractTerms,
    key: jax.Array,
    conversations: int,
    strategies: Mapping[int | str, Strategy] | None,
    profile: int | None,
    under: RecommendationMDP | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> Simulation:
    """See `DynamicTeamMechanism.simulate`."""
    listed = batches(whole(1)("simulate(conversations=...)", conversations))
    read_mesh("simulate", mesh, terms.policy.env, len(listed), f"batches of {BATCH} conversations")
    drawing = Drawing("simulate", terms, key, strategies, profile, under)
    parts = Work("simulate", mesh).each(drawing.records, listed)
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    names, at_mean = terms.policy.env.names, drawing.settled_at_mean
    return Simulation(names=names, settled_at_mean=at_mean, **joined)


def by_advertiser(
    verb: str, names: tuple[str, ...], strategies: Mapping[int | str, Strategy] | None
) -> dict[int, Strategy]:
    """Strategies by index; `OutsideSupport` for advertisers that are not there."""
    call = f"{verb}(strategies=...)"
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


def draw_conversations(
    policy: AbstractPricedPolicy | Elsewhere,
    signal: AbstractSettlementSignal,
    lies: Mapping[int, Strategy],
    rng: np.random.Generator,
    profile: Int[np.ndarray, " N"],
    told_as: Heard | None = None,
) -> tuple[dict[str, np.ndarray], Int[np.ndarray, "N _r"]]:
    """Draw one conversation for each entry of `profile`; no Groves term is charged.

    **Arguments:** `told_as`: how the mechanism numbers what is reported to it, as the
    market by default.

    **Returns:** records, and the initial reports (N, 2n+1): value indices, then symbols.
    """
    env, n, count = policy.env, policy.env.products, len(profile)
    cursor, horizon = policy.cursor(signal), int(env.horizon)
    told_as = env.heard if told_as is None else told_as
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
        cursor.advance(told_as.join(np.concatenate([symbols[:1], said.T]), control))
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

    def __call__(self, profile: np.ndarray, reports: np.ndarray, omega: np.ndarray) -> np.ndarray:
        taste = omega if self.table.shape[2] > 1 else 0
        if not self.lies:
            return self.table[profile, :, taste]
        unique, inverse = distinct_integers(reports)
        found = np.array([self.known.get(tuple(row), -1) for row in unique.tolist()])[inverse]
        charged = np.where((found >= 0)[:, None], self.table[found, :, taste], np.nan)
        if len(self.lies) == 1:
            (liar,) = self.lies
            charged[:, liar] = self.table[profile, liar, taste]
        return charged


def _next_values(
    env: RecommendationMDP, rng: np.random.Generator, theta: np.ndarray, control: np.ndarray
) -> np.ndarray:
    values = env.values
    if not isinstance(values, MarkovValues):
        return theta
    law = values.kernel[control[:, None], np.arange(theta.shape[1]), theta]
    return draw(rng, law)


def blank_record(
    profile: np.ndarray, omega: np.ndarray, groves: np.ndarray, horizon: int
) -> dict[str, np.ndarray]:
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


def record_purchases(
    record: dict[str, np.ndarray],
    env: RecommendationMDP,
    signal: AbstractSettlementSignal,
    rng: np.random.Generator,
    who: np.ndarray,
    product: np.ndarray,
    given: tuple[np.ndarray, np.ndarray],
    truth: np.ndarray,
    told: np.ndarray,
) -> None:
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


def ask_reports(
    env: RecommendationMDP,
    lies: Mapping[int, Strategy],
    t: int,
    theta: np.ndarray,
    signals: np.ndarray,
):
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
