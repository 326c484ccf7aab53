"""Whole misreporting strategies: best responses, and single lies after own past lies.

Advertiser i's side of the game: the truth (true belief, true values) and what the mechanism
holds evolve separately. In each period she sees the true symbols and picks what the mechanism is
to hold, and a value to report:

- incremental reporting: she reports this period's symbol; past reports stand;
- cumulative reporting: she restates her whole signal history.

Values are unnormalised (inner products with the true belief), so next period's values are
summed over symbols and nothing is divided by a probability. She is taken to know the others'
reports (periodic ex post): a gain of 0 here is a gain of 0 for any less informed advertiser.
"""

from collections.abc import Iterator

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from dynmech._devices import Work
from dynmech._types import Record
from dynmech.audit.game import Game, expect, flows, follow_truth, truthful_move, unroll
from dynmech.audit.incentives import Found, value_alternatives
from dynmech.audit.intervals import report_of
from dynmech.audit.witness import Witness, no_witness
from dynmech.errors import TooLarge
from dynmech.market.displays import words
from dynmech.payments.settlement import AbstractSettlement
from dynmech.policy.base import AbstractPricedPolicy
from dynmech.problem.settled import Settled

_HERE = Work("audit")


class BestResponse(Record):
    """What each advertiser can gain at the outset by any misreporting strategy.

    - `gain` (n, B): over truth, money, conditional on the profile; NaN where not asked for or
      of probability zero. `payoff` (n, B): the best payoff, Groves term excluded.
    - `states`: how many (truth, told) states were searched. `reports`: the convention.
    """

    gain: Float[np.ndarray, "n B"]
    payoff: Float[np.ndarray, "n B"]
    states: int = eqx.field(static=True)
    reports: str = eqx.field(static=True)


def best_responses(
    policy: AbstractPricedPolicy,
    settlement: AbstractSettlement,
    settled: Settled,
    reports: str,
    profiles: Int[np.ndarray, " B"],
    interval: bool = False,
) -> BestResponse:
    """Solve every advertiser's game at the given profiles, exactly on the grid of reports.

    **Arguments:** `interval`: any value of the declared interval may be reported in any period.
    """
    n, count = policy.env.products, len(policy.profiles)
    gain, payoff, states = np.full((n, count), np.nan), np.full((n, count), np.nan), 0
    for i in range(n):
        truth = policy.pairs.base[profiles]
        unique, index = np.unique(truth, return_inverse=True)
        game = unroll(policy, i, unique, reports, interval)
        states += sum(len(s.pair) for s in game.states)
        values = _solve(policy, settlement, settled, game)
        honest = follow_truth(policy, settlement, settled, game)[0][truthful_move(policy, game, 0)]
        mass = policy.plan.root.sum(axis=1)[policy.pairs.root[unique]]
        scale = np.where(mass > 0, 1 / np.where(mass > 0, mass, 1), np.nan)
        payoff[i, profiles] = (values * scale)[index.reshape(-1)]
        gain[i, profiles] = (np.maximum(values - honest, 0) * scale)[index.reshape(-1)]
    return BestResponse(gain, payoff, states, reports)


def search_histories(
    policy: AbstractPricedPolicy,
    settlement: AbstractSettlement,
    settled: Settled,
    reports: str,
    truthful: bool,
    interval: bool = False,
    work: Work = _HERE,
) -> Found:
    """Search single misreports, truth after, at histories with own past lies or without.

    **Arguments:** `truthful`: only histories with a truthful own past that the policy reaches,
    of every own type; else every history that own lies can lead to. `interval`: any value of
    the declared interval may be reported; `work`: where advertisers are searched, and kept.

    **Returns:** the largest gains, conditional on the node, and their witnesses.
    """
    horizon = policy.plan.horizon

    def search(i: int) -> tuple[np.ndarray, Witness, int]:
        best, by_period, count = no_witness(policy.env.names[i]), np.zeros(horizon), 0
        starts = _starts(policy, i, reports) if truthful else np.unique(policy.pairs.base)
        for game in _games(policy, i, starts, reports, interval, truthful):
            reached = np.ones(len(game.states[0].pair), bool)
            for t, worth in enumerate(follow_truth(policy, settlement, settled, game)):
                here, moves = game.states[t], game.moves[t]
                honest = truthful_move(policy, game, t)
                mass = policy.plan.belief(t, here.pair, here.node).sum(axis=1)
                live = (mass > 0) & reached
                gain = worth[moves.move] - worth[honest][:, None, None]
                gain = np.where(live[:, None, None], gain, -np.inf)
                gain /= np.where(live, mass, 1)[:, None, None]
                count += _compared(game, t, live)
                top = np.unravel_index(int(np.argmax(gain)), gain.shape)
                by_period[t] = max(by_period[t], gain[top])
                if gain[top] > best.gain:
                    place = tuple(int(x) for x in top)
                    best = _witness(policy, game, t, place, float(gain[top]), float(mass[top[0]]))
                if t < len(game.states) - 1:
                    made = honest[live] if truthful else np.arange(len(moves.state))
                    reached = np.zeros(len(game.states[t + 1].pair), bool)
                    reached[moves.led(made)] = True
        return by_period, best, count

    found = work.each(search, range(policy.env.products), lambda i: ("advertiser", i))
    by_period, best, count = zip(*found, strict=True)
    return Found(np.array([w.gain for w in best]), best, np.stack(by_period), sum(count))


def _starts(policy: AbstractPricedPolicy, i: int, reports: str) -> Int[np.ndarray, " k"]:
    """Where a search of single lies starts: every pair at which i's alternatives were solved.

    Those of her values are enough for lies after period 1, unless all her symbols are restated.
    """
    if reports == "incremental":
        return np.flatnonzero((value_alternatives(policy)[:, i] >= 0).all(axis=1))
    own = np.unique(policy.pairs.own[:, i])
    return own[own >= 0]


def _games(
    policy: AbstractPricedPolicy,
    i: int,
    starts: np.ndarray,
    reports: str,
    interval: bool,
    single: bool,
) -> Iterator[Game]:
    """Games from parts of the starts, halved until each fits."""
    try:
        yield unroll(policy, i, starts, reports, interval, single)
    except TooLarge:
        if len(starts) == 1:
            raise
        for half in np.array_split(starts, 2):
            yield from _games(policy, i, half, reports, interval, single)


def _compared(game: Game, t: int, live: np.ndarray) -> int:
    """How many misreports of a period were compared with truth: distinct ones on an interval."""
    moves = game.moves[t]
    if game.pieces is None:
        return int(live.sum()) * (moves.move[0].size - 1)
    return int(live[moves.state].sum() - live.sum())


def _witness(
    policy: AbstractPricedPolicy,
    game: Game,
    t: int,
    place: tuple[int, ...],
    gain: float,
    mass: float,
) -> Witness:
    """Describe a lie, and what was seen and told before it."""
    env, plan, i = policy.env, policy.plan, game.advertiser
    labels = (*words(env), *("a draw",) * (plan.width - len(env.controls)))
    state, option, value = place
    here, moves = game.states[t], game.moves[t]
    move, honest = int(moves.move[place]), int(truthful_move(policy, game, t)[state])
    past, told, own = [], [], []
    at, period = state, t
    while period > 0:
        row, before = int(game.states[period].before[at]), game.moves[period - 1]
        shown, move_before = int(before.control[row]), int(before.owner[row])
        joint = env.heard.split(int(game.states[period].symbol[at]), shown)
        past.append((labels[shown], tuple(int(z) for z in joint)))
        own.append(int(joint[i + 1]))
        at, period = int(before.state[move_before]), period - 1
        told.append(int(before.option[move_before]))
    pair = int(here.pair[state])
    signals = policy.pairs.signals[policy.pairs.root[int(game.states[0].pair[at])]]
    own.append(int(signals[i + 1]))
    radix = [env.initial_alphabet[i + 1], *[env.feedback_alphabet[i + 1]] * t]
    if here.told_pair.shape[1] == int(np.prod(radix)) and t:
        report = tuple(int(z) for z in np.unravel_index(option, radix))
        told_before = report[:-1]
    else:
        report, told_before = (option,), tuple(told[::-1])
    support = env.values.support
    theta = support[np.arange(env.products), policy.pairs.theta[pair]]
    control = int(moves.said[move])
    where = int(here.told_pair[state, option]), int(here.told_node[state, option])
    told_value = float(support[i, value]) if value < support.shape[1] else None
    said, between = report_of(game.pieces, t, *where, control, told_value)
    root_mass = plan.root[policy.pairs.root[pair]].sum()
    return Witness(
        advertiser=env.names[i],
        period=t + 1,
        gain=gain,
        theta=tuple(theta.tolist()),
        signals=tuple(int(z) for z in signals),
        history=tuple(past[::-1]),
        truth=(float(theta[i]), own[0]),
        report=(said, report[-1]),
        honest=labels[int(moves.said[honest])],
        deviant=labels[control],
        probability=mass / float(root_mass),
        own_signals=tuple(own[::-1][:-1]),
        told_signals=told_before,
        report_interval=between,
    )


def _solve(
    policy: AbstractPricedPolicy, settlement: AbstractSettlement, settled: Settled, game: Game
) -> Float[np.ndarray, " B"]:
    """Best payoff at each starting state, unnormalised."""
    later = np.zeros(0)
    for t in reversed(range(len(game.states))):
        worth = flows(policy, settlement, settled, game, t)
        if t < len(game.states) - 1:
            worth = worth + expect(policy, game, t, later)
        later = worth[game.moves[t].move].max(axis=(1, 2))
    return later
