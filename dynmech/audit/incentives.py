"""Exact search over single-period misreports at every on-path node with a truthful past.

At a node with true belief b and true values theta, advertiser i may report any (theta_i', s_i').
The mechanism then believes it is at node n', recommends r' = pi(theta_i', theta_-i, n'), and
from the next period on hears the truth again; a misreported signal stays in its belief. The
payoff of the lie is <b, Q(n', r', theta)> with the *true* values in both flow and kernel, where
Q is the payoff given omega of r' at n' and the plan after it. Gains are conditional on the node.
"""

import numpy as np
from jaxtyping import Float, Int

from dynmech._devices import Work
from dynmech._types import Record
from dynmech.audit.outset import Lie, search_outset
from dynmech.audit.payoffs import alpha_vectors
from dynmech.audit.payoffs import situation as situation
from dynmech.audit.payoffs import yield_given_taste as yield_given_taste
from dynmech.audit.witness import Witness, no_witness
from dynmech.market.displays import words
from dynmech.payments.settlement import AbstractSettlement
from dynmech.policy.base import AbstractPricedPolicy
from dynmech.problem.settled import Settled
from solvers.tree.plan import Plan, Visits, visit

_CELLS = 30_000_000
_BATCH = 4_000_000
_HERE = Work("audit")


class _Lies(Record):
    """Misreports of one period: who, at which true pair and node, believed where, doing what.

    `key_pair` is the pair whose plan follows: the reported root with the true values. `visit` is
    the visit of the period before, `symbol` the joint symbol that truly came after it.
    """

    agent: Int[np.ndarray, " k"]
    pair: Int[np.ndarray, " k"]
    node: Int[np.ndarray, " k"]
    key_pair: Int[np.ndarray, " k"]
    key_node: Int[np.ndarray, " k"]
    control: Int[np.ndarray, " k"]
    report_theta: Int[np.ndarray, " k"]
    report_signal: Int[np.ndarray, " k"]
    visit: Int[np.ndarray, " k"]
    symbol: Int[np.ndarray, " k"]


class Found(Record):
    """Largest gain (n,), its witness, the largest of each period, and how many were compared."""

    gain: Float[np.ndarray, " n"]
    witness: tuple[Witness, ...]
    by_period: Float[np.ndarray, "n T"]
    deviations: int


def search_misreports(
    policy: AbstractPricedPolicy,
    settlement: AbstractSettlement,
    settled: Settled,
    work: Work = _HERE,
) -> Found:
    """Find each advertiser's most profitable misreport.

    **Arguments:** `work`: where runs of true roots are searched, and kept.

    **Returns:** `gain` (n,), never below 0; its `witness`; `by_period` (n, T): the same of each
    period; `deviations`: how many misreports were compared with truth. Of equals the earliest
    misreport counts.
    """
    n = policy.env.products
    best = [(0.0, no_witness(policy.env.names[i])) for i in range(n)]
    by_period = np.zeros((n, policy.plan.horizon))
    outset, count = search_outset(policy, settlement, settled, work)
    for i, lie in enumerate(outset):
        if lie is not None and lie.gain > 0:
            by_period[i, 0] = lie.gain
            best[i] = (lie.gain, _witness(policy, [], 0, _told(i, lie), 0, lie.gain, lie.mass))

    def search(piece: tuple[int, int]) -> _Piece:
        return _search_piece(policy, settlement, settled, piece)

    pieces = _pieces(policy, work.devices)
    found = work.each(search, pieces, lambda piece: ("roots", *piece))
    for t in range(1, policy.plan.horizon):
        for piece in found:
            by_period[:, t] = np.maximum(by_period[:, t], piece.gain[:, t])
            for i in np.flatnonzero(piece.gain[:, t] > [gain for gain, _ in best]).tolist():
                best[i] = (float(piece.gain[i, t]), piece.witness[i][t])
    count += sum(piece.count for piece in found)
    return Found(np.array([g for g, _ in best]), tuple(w for _, w in best), by_period, count)


class _Piece(Record):
    """Largest gains (n, T) at some true roots, 0 where nothing gains, witnesses, and how many."""

    gain: Float[np.ndarray, "n T"]
    witness: tuple[tuple[Witness, ...], ...]
    count: int


def _pieces(policy: AbstractPricedPolicy, devices: int) -> list[tuple[int, int]]:
    """Runs of true roots whose misreports after the first period fit in memory side by side."""
    if policy.plan.horizon == 1:
        return []
    pairs = policy.pairs
    roots = len(pairs.signals)
    width = policy.env.heard.count ** (policy.plan.horizon - 1)
    per_pair = int(width) * policy.env.tastes.size * policy.plan.sibling.shape[1]
    step = int(_CELLS // max(devices * per_pair * (len(pairs.root) // roots), 1))
    step = max(1, min(step, -(-roots // devices)))
    return [(low, min(low + step, roots)) for low in range(0, roots, step)]


def _search_piece(
    policy: AbstractPricedPolicy,
    settlement: AbstractSettlement,
    settled: Settled,
    piece: tuple[int, int],
) -> _Piece:
    """Compare the misreports at a run of true roots, in every period after the first."""
    n, horizon, count = policy.env.products, policy.plan.horizon, 0
    gain = np.zeros((n, horizon))
    witness = [[no_witness(policy.env.names[i])] * horizon for i in range(n)]
    order = np.argsort(policy.pairs.root, kind="stable")
    start, stop = np.searchsorted(policy.pairs.root[order], piece)
    path = visit(policy.plan, order[start:stop], by_origin=False)
    lies = [_no_lies(), *(_later_lies(policy, path, t) for t in range(1, len(path)))]
    gains, masses = _gains(policy, settlement, settled, lies)
    for t, (here, found) in enumerate(zip(lies, gains, strict=True)):
        count += len(found)
        for i in range(n):
            mine = np.flatnonzero(here.agent == i)
            top = int(mine[np.argmax(found[mine])]) if len(mine) else -1
            if top >= 0 and found[top] > 0:
                gain[i, t] = found[top]
                witness[i][t] = _witness(policy, path, t, here, top, found[top], masses[t][top])
    return _Piece(gain, tuple(map(tuple, witness)), count)


def _later_lies(policy: AbstractPricedPolicy, path: list[Visits], t: int) -> _Lies:
    """Misreports in period t+1 at every node that truth reaches."""
    plan, env = policy.plan, policy.env
    before = path[t - 1]
    child = plan.tree.layers[t - 1].child[before.node, before.control]
    sibling = plan.sibling[before.pair]
    shape = (len(before.pair), child.shape[1], sibling.shape[1])
    law = np.ones((shape[0], shape[2]))
    if plan.kernel is not None:
        law = plan.kernel[before.control, plan.regime[before.pair]]
    live = np.broadcast_to((law > 0)[:, None, :], shape)
    source, symbol, _ = np.nonzero(live)
    pair = np.broadcast_to(sibling[:, None, :], shape)[live].astype(np.int64)
    node = np.broadcast_to(child[:, :, None], shape)[live].astype(np.int64)
    alternatives = value_alternatives(policy)
    size = env.values.support.shape[1]
    parts = []
    for i in range(env.products):
        known = (alternatives[pair, i] >= 0).all(axis=1)
        at = np.flatnonzero(known)
        shown = before.control[source[at]]
        count = env.feedback_alphabet[i + 1]
        told = np.broadcast_to(np.arange(count)[None, :, None], (len(at), count, size))
        value = np.broadcast_to(np.arange(size), (len(at), count, size))
        reported = env.heard.lies(i, len(env.controls))[1][shown, symbol[at]]
        key_node = child[source[at][:, None], reported][:, :, None].astype(np.int64)
        key_node = np.broadcast_to(key_node, told.shape)
        asked = np.broadcast_to(alternatives[pair[at], i][:, None, :], told.shape)
        control = plan.actions[t][asked, key_node].astype(np.int64)
        truth = plan.actions[t][pair[at], node[at]][:, None, None]
        differs = (control != truth) | (key_node != node[at][:, None, None])
        row = np.broadcast_to(at[:, None, None], told.shape)[differs]
        parts.append(
            _Lies(
                np.full(len(row), i), pair[row], node[row], pair[row], key_node[differs],
                control[differs], value[differs], told[differs], source[row], symbol[row],
            )
        )  # fmt: skip
    return _stack(parts)


def value_alternatives(policy: AbstractPricedPolicy) -> Int[np.ndarray, "P n K"]:
    """The pair of the same root in which i alone has another value; -1 where not solved."""
    pairs = policy.pairs
    n, size = policy.env.values.support.shape
    weight = np.random.default_rng(0).integers(1, 2**62, n + 1).astype(np.uint64)
    known = np.concatenate([pairs.root[:, None], pairs.theta], axis=1)
    code = (known.astype(np.uint64) * weight).sum(axis=1)
    order = np.argsort(code)
    found = np.full((len(known), n, size), -1, np.int64)
    for i in range(n):
        for value in range(size):
            asked = known.copy()
            asked[:, i + 1] = value
            wanted = (asked.astype(np.uint64) * weight).sum(axis=1)
            place = np.minimum(np.searchsorted(code[order], wanted), len(order) - 1)
            match = order[place]
            same = (known[match] == asked).all(axis=1)
            found[same, i, value] = match[same]
    return found


def _gains(
    policy: AbstractPricedPolicy,
    settlement: AbstractSettlement,
    settled: Settled,
    lies: list[_Lies],
):
    """Gain over truth of each misreport, conditional on its node; and the node's mass."""
    plan = policy.plan
    horizon = plan.horizon
    wanted = []
    for t in range(horizon):
        if t >= len(lies):
            wanted.append((np.zeros(0, np.int64),) * 3)
            continue
        here = lies[t]
        truth = plan.actions[t][here.pair, here.node].astype(np.int64)
        wanted.append(
            tuple(
                np.concatenate(pair)
                for pair in (
                    (here.key_pair, here.pair), (here.key_node, here.node), (here.control, truth)
                )
            )
        )  # fmt: skip
    values, places = alpha_vectors(policy, settlement, settled, wanted)
    found = [
        _compare(plan, t, here, values[t], *np.split(places[t], 2)) for t, here in enumerate(lies)
    ]
    return [gain for gain, _ in found], [mass for _, mass in found]


def _compare(
    plan: Plan, t: int, lies: _Lies, table: np.ndarray, lie: np.ndarray, truth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Gain of each misreport, and the mass of its node.

    Many misreports end in the same place: each distinct (node, lie, truth) is worked out once.
    """
    who = lies.agent if table.shape[1] > 1 else np.zeros_like(lies.agent)
    _, first, index = _distinct(lies.pair * plan.tree.layers[t].nodes + lies.node)
    belief = plan.belief(t, lies.pair[first], lies.node[first])
    mass = belief.sum(axis=1)
    code = (index * len(table) + lie) * table.shape[1] + who
    _, case, inverse = _distinct(code)
    gain = np.zeros(len(case))
    step = max(1, _BATCH // max(plan.root.shape[1], 1))
    for low in range(0, len(case), step):
        part = case[low : low + step]
        extra = table[lie[part], who[part]] - table[truth[part], who[part]]
        gain[low : low + step] = np.einsum("km,km->k", belief[index[part]], extra)
    at = mass[index[case]]
    gain = np.where(at > 0, gain / np.where(at > 0, at, 1), -np.inf)
    return gain[inverse], mass[index]


def _distinct(code: np.ndarray):
    values, first, inverse = np.unique(code, return_index=True, return_inverse=True)
    return values, first, inverse.reshape(-1)


def _told(i: int, lie: Lie) -> _Lies:
    """The one misreport of period 1 that a witness describes."""
    one = (i, lie.pair, 0, lie.pair, 0, lie.control, lie.report_theta, lie.report_signal, -1, -1)
    return _Lies(*(np.array([x]) for x in one))


def _no_lies() -> _Lies:
    return _Lies(*(np.zeros(0, np.int64),) * 10)


def _stack(parts: list[_Lies]) -> _Lies:
    fields = [np.concatenate(x) for x in zip(*(list(vars(p).values()) for p in parts), strict=True)]
    return _Lies(*fields)


def _witness(
    policy: AbstractPricedPolicy,
    path: list[Visits],
    t: int,
    lies: _Lies,
    k: int,
    gain: float,
    mass: float,
) -> Witness:
    env, plan, pairs = policy.env, policy.plan, policy.pairs
    labels = (*words(env), *("a draw",) * (plan.width - len(env.controls)))
    pair, i = int(lies.pair[k]), int(lies.agent[k])
    history, symbols, at = [], pairs.signals[pairs.root[pair]], int(lies.visit[k])
    seen = int(lies.symbol[k])
    for before in range(t - 1, -1, -1):
        here = path[before]
        joint = env.heard.split(seen, here.control[at])
        history.append((labels[int(here.control[at])], tuple(int(z) for z in joint)))
        seen, at = int(here.symbol[at]), int(here.before[at])
    own = history[0][1][i + 1] if history else int(symbols[i + 1])
    support = env.values.support[i]
    root_mass = plan.root[pairs.root[pair]].sum()
    truth = int(plan.actions[t][pair, lies.node[k]])
    return Witness(
        advertiser=env.names[i],
        period=t + 1,
        gain=float(gain),
        theta=tuple(env.values.support[np.arange(env.products), pairs.theta[pair]].tolist()),
        signals=tuple(symbols.tolist()),
        history=tuple(history[::-1]),
        truth=(float(support[pairs.theta[pair, i]]), own),
        report=(float(support[lies.report_theta[k]]), int(lies.report_signal[k])),
        honest=labels[truth],
        deviant=labels[int(lies.control[k])],
        probability=float(mass / root_mass),
    )
