"""Advertiser i's side of the game: what is true and what the mechanism holds, step by step.

A state is the true pair and node, and what the mechanism would hold under each of her options;
a move is an option with a recommendation that some report of her value leads to, or the law of one
that is drawn: what is shown is then known to her before she reports again. Values reported are
those of the support, or any of a declared interval: then every recommendation that some report
attains is an option beside them (see `_intervals`).
"""

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from dynmech._types import Record
from dynmech.audit.incentives import situation, value_alternatives, yield_given_taste
from dynmech.audit.intervals import ReportPieces, sweep_reports
from dynmech.errors import InvalidArgument, TooLarge, describe
from dynmech.payments.settlement import AbstractSettlement
from dynmech.policy.base import AbstractPricedPolicy
from dynmech.problem.settled import Settled
from solvers.tree.plan import Plan
from solvers.tree.tree import ratios

_MOST_STATES = 3_000_000
_CELLS = 4_000_000


class States(Record):
    """Where advertiser i may stand when she reports in one period.

    - `pair`, `node` (k,): the truth. `told_pair`, `told_node` (k, O): what the mechanism holds
      under each of her O options, with the true values; `truth` (k,): the truthful option.
    - `before` (k,): what of the period before leads here, a row of `Moves.following`; `symbol`
      (k,): after what.
    """

    pair: Int[np.ndarray, " k"]
    node: Int[np.ndarray, " k"]
    told_pair: Int[np.ndarray, "k O"]
    told_node: Int[np.ndarray, "k O"]
    truth: Int[np.ndarray, " k"]
    before: Int[np.ndarray, " k"]
    symbol: Int[np.ndarray, " k"]


class Moves(Record):
    """Distinct (state, option, recommendation) and where each leads.

    - `state`, `option`, `said` (j,): `said` is a control, or beyond them a law of the plan's.
    - `owner`, `control`, `chance` (d,): what may be shown by each move, one row where nothing is
      drawn. `following` (d, Z, V): the next period's state, -1 where values have no mass there.
    - `move` (k, O, X): the move that each option and reported value makes. The K values of the
      support come first, then, with an interval, one for each recommendation it attains.
    """

    state: Int[np.ndarray, " j"]
    option: Int[np.ndarray, " j"]
    said: Int[np.ndarray, " j"]
    owner: Int[np.ndarray, " d"]
    control: Int[np.ndarray, " d"]
    chance: Float[np.ndarray, " d"]
    following: Int[np.ndarray, "d Z V"]
    move: Int[np.ndarray, "k O X"]

    def led(self, moves: Int[np.ndarray, " k"]) -> Int[np.ndarray, " l"]:
        """Every state of the next period that some of these moves leads to."""
        some = np.zeros(len(self.state), bool)
        some[moves] = True
        led = self.following[some[self.owner]]
        return led[led >= 0]

    def expected(self, worth: Float[np.ndarray, " d"]) -> Float[np.ndarray, " j"]:
        """The mean over what is drawn."""
        return np.bincount(self.owner, self.chance * worth, len(self.state))


class Game(Record):
    """Advertiser i's game from given true pairs: states and moves of every period."""

    advertiser: int = eqx.field(static=True)
    states: tuple[States, ...]
    moves: tuple[Moves, ...]
    pieces: ReportPieces | None


def unroll(
    policy: AbstractPricedPolicy,
    i: int,
    starts: Int[np.ndarray, " B"],
    reports: str,
    interval: bool,
    single: bool = False,
) -> Game:
    """Enumerate every state that some strategy of advertiser i can lead to.

    With `single`, lies are only made where truth leads, one in a conversation; and in period 1
    only from starts whose own alternatives were all solved.
    """
    plan, pairs, env = policy.plan, policy.pairs, policy.env
    if policy.partial:
        call = "best_response(...) and audit(histories='all')"
        must = "search lies under a policy solved exactly, which follows all histories"
        do = "solve with Exact(listed=True), a market without a last round with some `horizon`"
        raise InvalidArgument(describe(call, must, policy.solver, do))
    other = value_alternatives(policy)[:, i]
    symbols = env.initial_alphabet[i + 1]
    own, listed = _own_symbols(policy, i)
    told = own[starts][:, :symbols]
    pieces = sweep_reports(policy, i, told.ravel()) if interval else None
    zero = np.zeros(len(starts), np.int64)
    here = States(
        np.asarray(starts), zero, told, np.zeros_like(told),
        pairs.signals[pairs.root[starts], i + 1], zero - 1, zero - 1,
    )  # fmt: skip
    states, moves = [], []
    reached, free = np.ones(len(starts), bool), listed[starts]
    for t in range(plan.horizon):
        size = len(here.pair) * here.told_pair.shape[1] * other.shape[1]
        if size > _MOST_STATES:
            must = f"search at most {_MOST_STATES} reports in a period"
            do = "pass fewer profiles, or shorten the horizon"
            raise TooLarge(describe("best_response(profiles=...)", must, size, do))
        states.append(here)
        asked = other[here.told_pair]
        control = plan.actions[t][asked, here.told_node[:, :, None]].astype(np.int64)
        if pieces is not None:
            attained = pieces.controls(t, here.told_pair, here.told_node, control[:, :, 0])
            control = np.concatenate([control, attained], axis=2)
        shape = control.shape
        state = np.broadcast_to(np.arange(shape[0])[:, None, None], shape)
        option = np.broadcast_to(np.arange(shape[1])[None, :, None], shape)
        code = (state * shape[1] + option) * plan.width + control
        honest = code[np.arange(shape[0]), here.truth, pairs.theta[here.pair, i]]
        code = np.where(free[:, None, None], code, honest[:, None, None])
        unique, move = np.unique(code, return_inverse=True)
        rest, said = np.divmod(unique, plan.width)
        state, option = np.divmod(rest, shape[1])
        owner, control, chance = _draws(plan, said)
        if t == plan.horizon - 1:
            following = np.zeros((len(owner), 0, 1), np.int64)
        else:
            given = state[owner], option[owner], control, t, reports
            here, following = _advance(policy, i, here, *given)
        moves.append(
            Moves(state, option, said, owner, control, chance, following, move.reshape(shape))
        )
        made = np.searchsorted(unique, honest[reached]) if single else np.arange(len(unique))
        reached = np.zeros(len(here.pair), bool)
        reached[moves[-1].led(made)] = True
        free = reached
    return Game(i, tuple(states), tuple(moves), pieces)


def _draws(plan: Plan, said: Int[np.ndarray, " j"]):
    """What may be shown by each move: whose, which control, and its chance."""
    controls = plan.tree.structure.controls
    if plan.laws is None:
        return np.arange(len(said)), said, np.ones(len(said))
    law = np.concatenate([np.eye(controls), plan.laws])[said]
    owner, control = np.nonzero(law > 0)
    return owner, control, law[owner, control]


def _own_symbols(policy: AbstractPricedPolicy, i: int):
    """The pairs in which i alone has another symbol, (P, Z), and where they were solved, (P,).

    Elsewhere the pair itself.
    """
    own, count = policy.pairs.own[:, i], len(policy.pairs.root)
    table = np.repeat(np.arange(count)[:, None], own.shape[2], axis=1)
    batch, value, symbol = np.nonzero(own >= 0)
    listed = np.zeros(count, bool)
    table[own[batch, value, symbol]] = own[batch, value]
    listed[own[batch, value, symbol]] = True
    return table, listed


def _advance(
    policy: AbstractPricedPolicy,
    i: int,
    here: States,
    state: np.ndarray,
    option: np.ndarray,
    control: np.ndarray,
    t: int,
    reports: str,
):
    """Distinct states after every move, true symbol and next value."""
    plan, env = policy.plan, policy.env
    own, reported = env.heard.lies(i, len(env.controls))
    symbols = reported.shape[2]
    child = plan.tree.layers[t].child
    node = child[here.node[state], control].astype(np.int64)
    if reports == "incremental":
        kept = here.told_node[state, option][:, None]
        root_pair = here.told_pair[state, option][:, None]
        truth = own[control]
    else:
        kept, root_pair = here.told_node[state], here.told_pair[state]
        truth = here.truth[state][:, None] * symbols + own[control]
    told = child[kept[:, :, None, None], control[:, None, None, None], reported[control][:, None]]
    told = np.moveaxis(told, 2, 1).reshape(*node.shape, -1).astype(np.int64)
    root_pair = np.repeat(root_pair, symbols, axis=1)
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
    after = States(
        unique[:, 0], unique[:, 1], unique[:, 3 : 3 + options], unique[:, 3 + options :],
        unique[:, 2], source[first], symbol[first],
    )  # fmt: skip
    return after, following


def flows(
    policy: AbstractPricedPolicy,
    settlement: AbstractSettlement,
    settled: Settled,
    game: Game,
    t: int,
) -> Float[np.ndarray, " j"]:
    """<true belief, payoff of this period> of every move, settled at what is told."""
    here, moves = game.states[t], game.moves[t]
    states, options = moves.state[moves.owner], moves.option[moves.owner]
    told_pair, told_node = here.told_pair[states, options], here.told_node[states, options]
    total = np.zeros(len(states))
    step = max(1, _CELLS // (policy.plan.root.shape[1] * settled.mean.shape[1]))
    for low in range(0, len(total), step):
        part = slice(low, low + step)
        at = situation(policy, settled, t, told_pair[part], told_node[part], moves.control[part])
        worth = yield_given_taste(settlement, at)
        mine = worth[:, game.advertiser if worth.shape[1] > 1 else 0]
        state = states[part]
        belief = policy.plan.belief(t, here.pair[state], here.node[state])
        total[part] = (mine * belief).sum(axis=1)
    return moves.expected(total)


def expect(
    policy: AbstractPricedPolicy, game: Game, t: int, later: Float[np.ndarray, " k"]
) -> np.ndarray:
    """Sum of next period's values over symbols and values, per move."""
    moves, here = game.moves[t], game.states[t]
    state = moves.state[moves.owner]
    law = np.ones((len(state), 1))
    if policy.plan.kernel is not None:
        law = policy.plan.kernel[moves.control, policy.plan.regime[here.pair[state]]]
    # Values are unnormalised at each node's own belief, which a merged node shares in proportion.
    share = ratios(policy.plan.tree, t, here.node)
    worth = np.append(later, 0.0)[moves.following]
    if share is not None:
        worth = worth * share[state, moves.control][:, :, None]
    return moves.expected(np.einsum("dzv,dv->d", worth, law))


def truthful_move(policy: AbstractPricedPolicy, game: Game, t: int) -> Int[np.ndarray, " k"]:
    """The move of the truthful report in each state."""
    here = game.states[t]
    value = policy.pairs.theta[here.pair, game.advertiser]
    return game.moves[t].move[np.arange(len(here.pair)), here.truth, value]


def follow_truth(
    policy: AbstractPricedPolicy, settlement: AbstractSettlement, settled: Settled, game: Game
) -> list[np.ndarray]:
    """Payoff of every move followed by truthful reports, unnormalised.

    Truth later means: this period's symbols only (incremental), or the whole true history
    restated (cumulative). Either way it is a move of the next period's state.
    """
    values: list[np.ndarray] = []
    later = np.zeros(0)
    for t in reversed(range(len(game.states))):
        worth = flows(policy, settlement, settled, game, t)
        if t < len(game.states) - 1:
            worth = worth + expect(policy, game, t, later)
        values.append(worth)
        later = worth[truthful_move(policy, game, t)]
    return values[::-1]
