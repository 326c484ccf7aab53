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

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from dynmech._efficient import EfficientPolicy
from dynmech._errors import TooLarge, describe
from dynmech._settlement import AbstractSettlement
from dynmech._types import join_symbols, split_symbol
from dynmech.audit._incentives import (
    Found,
    no_witness,
    situation,
    value_alternatives,
    yield_given_taste,
)
from dynmech.audit._witness import Witness

_MOST_STATES = 3_000_000
_CELLS = 4_000_000


class _States(eqx.Module):
    """Where advertiser i may stand when she reports in one period.

    - `pair`, `node` (k,): the truth. `told_pair`, `told_node` (k, O): what the mechanism holds
      under each of her O options, with the true values; `truth` (k,): the truthful option.
    - `before` (k,): a move of the period before that leads here; `symbol` (k,): after what.
    """

    pair: Int[np.ndarray, " k"]
    node: Int[np.ndarray, " k"]
    told_pair: Int[np.ndarray, "k O"]
    told_node: Int[np.ndarray, "k O"]
    truth: Int[np.ndarray, " k"]
    before: Int[np.ndarray, " k"]
    symbol: Int[np.ndarray, " k"]


class _Moves(eqx.Module):
    """Distinct (state, option, recommendation) and where each leads.

    `following` (moves, Z, V): the next period's state, -1 where values have no mass there.
    `move` (k, O, K): the move that each option and reported value makes.
    """

    state: Int[np.ndarray, " j"]
    option: Int[np.ndarray, " j"]
    control: Int[np.ndarray, " j"]
    following: Int[np.ndarray, "j Z V"]
    move: Int[np.ndarray, "k O K"]


class _Game(eqx.Module):
    """Advertiser i's game from given true pairs: states and moves of every period."""

    advertiser: int = eqx.field(static=True)
    states: tuple[_States, ...]
    moves: tuple[_Moves, ...]


class BestResponse(eqx.Module):
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
    policy: EfficientPolicy,
    settlement: AbstractSettlement,
    means: Float[np.ndarray, "E n m"],
    reports: str,
    profiles: Int[np.ndarray, " B"],
) -> BestResponse:
    """Solve every advertiser's game at the given profiles, exactly on the grid of reports."""
    n, count = policy.env.products, len(policy.profiles)
    gain, payoff, states = np.full((n, count), np.nan), np.full((n, count), np.nan), 0
    for i in range(n):
        truth = policy.pairs.base[profiles]
        unique, index = np.unique(truth, return_inverse=True)
        game = _unroll(policy, i, unique, reports)
        states += sum(len(s.pair) for s in game.states)
        values = _solve(policy, settlement, means, game)
        honest = _follow_truth(policy, settlement, means, game)[0][_truthful(policy, game, 0)]
        mass = policy.plan.root.sum(axis=1)[policy.pairs.root[unique]]
        scale = np.where(mass > 0, 1 / np.where(mass > 0, mass, 1), np.nan)
        payoff[i, profiles] = (values * scale)[index.reshape(-1)]
        gain[i, profiles] = (np.maximum(values - honest, 0) * scale)[index.reshape(-1)]
    return BestResponse(gain, payoff, states, reports)


def search_histories(
    policy: EfficientPolicy,
    settlement: AbstractSettlement,
    means: Float[np.ndarray, "E n m"],
    reports: str,
    truthful: bool,
) -> Found:
    """Search single misreports, truth after, at histories with own past lies or without.

    **Arguments:** `truthful`: only histories with a truthful own past that the policy reaches;
    else every history that own lies can lead to.

    **Returns:** the largest gains, conditional on the node, and their witnesses.
    """
    n = policy.env.products
    best, first = [no_witness(policy, i) for i in range(n)], np.zeros(n)
    count = 0
    starts = np.unique(policy.pairs.base)
    for i in range(n):
        game = _unroll(policy, i, starts, reports)
        reached = np.ones(len(starts), bool)
        for t, worth in enumerate(_follow_truth(policy, settlement, means, game)):
            here, moves = game.states[t], game.moves[t]
            honest = _truthful(policy, game, t)
            mass = policy.plan.belief(t, here.pair, here.node).sum(axis=1)
            live = (mass > 0) & reached
            gain = worth[moves.move] - worth[honest][:, None, None]
            gain = np.where(live[:, None, None], gain, -np.inf)
            gain /= np.where(live, mass, 1)[:, None, None]
            count += int(live.sum()) * (gain[0].size - 1)
            top = np.unravel_index(int(np.argmax(gain)), gain.shape)
            if t == 0:
                first[i] = max(0.0, gain[top])
            if gain[top] > best[i].gain:
                place = tuple(int(x) for x in top)
                best[i] = _witness(policy, game, t, place, float(gain[top]), float(mass[top[0]]))
            if t < len(game.states) - 1:
                arrived = np.zeros(len(game.states[t + 1].pair), bool)
                following = moves.following[honest[live]] if truthful else moves.following
                arrived[following[following >= 0]] = True
                reached = arrived
    return Found(np.array([w.gain for w in best]), tuple(best), first, count)


def _witness(policy, game: _Game, t: int, place, gain: float, mass: float) -> Witness:
    """Describe a lie, and what was seen and told before it."""
    env, plan, i = policy.env, policy.plan, game.advertiser
    labels = (*env.names, "none")
    state, option, value = place
    here, moves = game.states[t], game.moves[t]
    move, honest = int(moves.move[place]), int(_truthful(policy, game, t)[state])
    past, told, own = [], [], []
    at, period = state, t
    while period > 0:
        here_before, before = int(game.states[period].before[at]), game.moves[period - 1]
        joint = split_symbol(int(game.states[period].symbol[at]), env.feedback_alphabet)
        past.append((labels[int(before.control[here_before])], tuple(int(z) for z in joint)))
        own.append(int(joint[i + 1]))
        at, period = int(before.state[here_before]), period - 1
        told.append(int(before.option[here_before]))
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
    root_mass = plan.root[policy.pairs.root[pair]].sum()
    return Witness(
        advertiser=env.names[i],
        period=t + 1,
        gain=gain,
        theta=tuple(theta.tolist()),
        signals=tuple(int(z) for z in signals),
        history=tuple(past[::-1]),
        truth=(float(theta[i]), own[0]),
        report=(float(support[i, value]), report[-1]),
        honest=labels[int(moves.control[honest])],
        deviant=labels[int(moves.control[move])],
        probability=mass / float(root_mass),
        own_signals=tuple(own[::-1][:-1]),
        told_signals=told_before,
    )


def _unroll(policy: EfficientPolicy, i: int, starts: Int[np.ndarray, " B"], reports: str) -> _Game:
    """Enumerate every state that some strategy of advertiser i can lead to."""
    plan, pairs, env = policy.plan, policy.pairs, policy.env
    other = value_alternatives(policy)[:, i]
    own = {int(p): o for b, p in enumerate(pairs.base) for o in [pairs.own[b, i]]}
    symbols = env.initial_alphabet[i + 1]
    told = np.array([own[int(p)][pairs.theta[p, i], :symbols] for p in starts])
    zero = np.zeros(len(starts), np.int64)
    here = _States(
        np.asarray(starts), zero, told, np.zeros_like(told),
        pairs.signals[pairs.root[starts], i + 1], zero - 1, zero - 1,
    )  # fmt: skip
    states, moves = [], []
    for t in range(plan.horizon):
        size = len(here.pair) * here.told_pair.shape[1] * other.shape[1]
        if size > _MOST_STATES:
            must = f"search at most {_MOST_STATES} reports in a period"
            do = "pass fewer profiles, or shorten the horizon"
            raise TooLarge(describe("best_response(profiles=...)", must, size, do))
        states.append(here)
        asked = other[here.told_pair]
        control = plan.actions[t][asked, here.told_node[:, :, None]].astype(np.int64)
        shape = control.shape
        state = np.broadcast_to(np.arange(shape[0])[:, None, None], shape)
        option = np.broadcast_to(np.arange(shape[1])[None, :, None], shape)
        code = (state * shape[1] + option) * plan.tree.structure.controls + control
        unique, move = np.unique(code, return_inverse=True)
        rest, control = np.divmod(unique, plan.tree.structure.controls)
        state, option = np.divmod(rest, shape[1])
        if t == plan.horizon - 1:
            none = np.zeros((len(unique), 0, 1), np.int64)
            moves.append(_Moves(state, option, control, none, move.reshape(shape)))
            break
        here, following = _advance(policy, i, here, state, option, control, t, reports)
        moves.append(_Moves(state, option, control, following, move.reshape(shape)))
    return _Game(i, tuple(states), tuple(moves))


def _advance(policy, i: int, here: _States, state, option, control, t: int, reports: str):
    """Distinct states after every move, true symbol and next value."""
    plan, env = policy.plan, policy.env
    alphabet = env.feedback_alphabet
    joint = split_symbol(np.arange(int(np.prod(alphabet))), alphabet)
    changed = np.repeat(joint[:, :, None], alphabet[i + 1], axis=2)
    changed[i + 1] = np.arange(alphabet[i + 1])
    reported = join_symbols(changed, alphabet)
    child = plan.tree.layers[t].child
    node = child[here.node[state], control].astype(np.int64)
    if reports == "incremental":
        kept = here.told_node[state, option][:, None]
        root_pair = here.told_pair[state, option][:, None]
        truth = np.broadcast_to(joint[i + 1], node.shape)
    else:
        kept, root_pair = here.told_node[state], here.told_pair[state]
        truth = here.truth[state][:, None] * alphabet[i + 1] + joint[i + 1]
    told = child[kept[:, :, None, None], control[:, None, None, None], reported]
    told = np.moveaxis(told, 2, 1).reshape(*node.shape, -1).astype(np.int64)
    root_pair = np.repeat(root_pair, alphabet[i + 1], axis=1)
    law = np.ones((len(state), 1))
    if plan.kernel is not None:
        law = plan.kernel[control, plan.regime[here.pair[state]]]
    shape = (*node.shape, law.shape[1])
    live = np.broadcast_to((law > 0)[:, None, :], shape)
    source, symbol, value = np.nonzero(live)
    pair = plan.sibling[here.pair[state]][source, value]
    told_pair = plan.sibling[root_pair[source], value[:, None]]
    columns = [pair, node[source, symbol], truth[source, symbol]]
    rows = np.concatenate([np.stack(columns, 1), told_pair, told[source, symbol]], axis=1)
    if len(rows) > _MOST_STATES:
        must = f"search at most {_MOST_STATES} histories in a period"
        do = "pass fewer profiles, or shorten the horizon"
        raise TooLarge(describe("best_response(profiles=...)", must, len(rows), do))
    unique, first, index = np.unique(rows, axis=0, return_index=True, return_inverse=True)
    following = np.full(shape, -1, np.int64)
    following[live] = index.reshape(-1)
    options = told_pair.shape[1]
    after = _States(
        unique[:, 0], unique[:, 1], unique[:, 3 : 3 + options], unique[:, 3 + options :],
        unique[:, 2], source[first], symbol[first],
    )  # fmt: skip
    return after, following


def _flows(policy, settlement, means, game: _Game, t: int) -> Float[np.ndarray, " j"]:
    """<true belief, payoff of this period> of every move, settled at what is told."""
    here, moves = game.states[t], game.moves[t]
    told_pair = here.told_pair[moves.state, moves.option]
    told_node = here.told_node[moves.state, moves.option]
    total = np.zeros(len(moves.state))
    step = max(1, _CELLS // (policy.plan.root.shape[1] * means.shape[1]))
    for low in range(0, len(total), step):
        part = slice(low, low + step)
        at = situation(policy, means, t, told_pair[part], told_node[part], moves.control[part])
        worth = yield_given_taste(settlement, at)
        mine = worth[:, game.advertiser if worth.shape[1] > 1 else 0]
        state = moves.state[part]
        belief = policy.plan.belief(t, here.pair[state], here.node[state])
        total[part] = (mine * belief).sum(axis=1)
    return total


def _expect(policy, game: _Game, t: int, later: Float[np.ndarray, " k"]) -> np.ndarray:
    """Sum of next period's values over symbols and values, per move."""
    moves, here = game.moves[t], game.states[t]
    law = np.ones((len(moves.state), 1))
    if policy.plan.kernel is not None:
        law = policy.plan.kernel[moves.control, policy.plan.regime[here.pair[moves.state]]]
    padded = np.append(later, 0.0)
    return np.einsum("jzv,jv->j", padded[moves.following], law)


def _solve(policy, settlement, means, game: _Game) -> Float[np.ndarray, " B"]:
    """Best payoff at each starting state, unnormalised."""
    later = np.zeros(0)
    for t in reversed(range(len(game.states))):
        worth = _flows(policy, settlement, means, game, t)
        if t < len(game.states) - 1:
            worth = worth + _expect(policy, game, t, later)
        later = worth[game.moves[t].move].max(axis=(1, 2))
    return later


def _truthful(policy, game: _Game, t: int) -> Int[np.ndarray, " k"]:
    """The move of the truthful report in each state."""
    here = game.states[t]
    value = policy.pairs.theta[here.pair, game.advertiser]
    return game.moves[t].move[np.arange(len(here.pair)), here.truth, value]


def _follow_truth(policy, settlement, means, game: _Game) -> list[np.ndarray]:
    """Payoff of every move followed by truthful reports, unnormalised.

    Truth later means: this period's symbols only (incremental), or the whole true history
    restated (cumulative). Either way it is a move of the next period's state.
    """
    values: list[np.ndarray] = []
    later = np.zeros(0)
    for t in reversed(range(len(game.states))):
        worth = _flows(policy, settlement, means, game, t)
        if t < len(game.states) - 1:
            worth = worth + _expect(policy, game, t, later)
        values.append(worth)
        later = worth[_truthful(policy, game, t)]
    return values[::-1]
