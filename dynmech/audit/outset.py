"""Every misreport of period 1 at once.

In period 1 advertiser i of type (theta_i, s_i) may report any (theta_i', s_i'). What follows is
known from the pair of her true value and reported signal, and from the recommendation that the
report brings: far fewer cases than misreports. Each case is evaluated once, its payoff is taken
under every signal she may truly have, and compared with truth wherever some report brings it.
"""

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int

from dynmech._devices import Work
from dynmech._types import Record
from dynmech.audit.payoffs import alpha_vectors
from dynmech.payments.settlement import AbstractSettlement
from dynmech.policy.base import AbstractPricedPolicy
from dynmech.problem.settled import Settled
from dynmech.problem.tasks import Pairs
from solvers.search.arrays import firsts

_CELLS = 8_000_000
_POINTS = 120_000_000
_FEW = 8  # roots for each belief wanted, up to which all are multiplied at once
_HERE = Work("audit")


class Lie(Record):
    """The most profitable misreport of period 1: pair, own report, what it brings, gain, mass."""

    pair: int = eqx.field(static=True)
    report_theta: int = eqx.field(static=True)
    report_signal: int = eqx.field(static=True)
    control: int = eqx.field(static=True)
    gain: float = eqx.field(static=True)
    mass: float = eqx.field(static=True)


def search_outset(
    policy: AbstractPricedPolicy,
    settlement: AbstractSettlement,
    settled: Settled,
    work: Work = _HERE,
) -> tuple[tuple[Lie | None, ...], int]:
    """Compare every misreport of period 1 with truth: the best of each advertiser, and how many.

    None where no report of an advertiser gains.
    """
    pairs, taken = policy.pairs, policy.plan.actions[0][:, 0]
    mine, who = _alternatives(pairs)
    known = mine[:, 0] >= 0
    count, (size, signals), width = 0, mine.shape[1:], policy.plan.width
    # Which controls reports of each symbol bring: told of (row, symbol), taken apart below.
    told, spot = np.zeros(known.size * width, bool), np.arange(known.size).reshape(known.shape)
    told[spot[:, None] * width + taken[mine]] = True
    told &= np.repeat(known.ravel(), width)
    spot, control = np.divmod(np.flatnonzero(told), width)
    row = spot // signals
    # Later truth follows the pair of her true value and reported signal.
    lies = np.moveaxis(mine, 2, 1).reshape(-1, size)[spot] * width + control[:, None]
    case = np.zeros(len(pairs.root) * width, bool)
    case[lies] = True
    cases = np.divmod(np.flatnonzero(case), width)
    payoff = _payoffs(policy, settlement, settled, (mine, who, known), cases, work)
    paid, each = payoff.ravel(), payoff[0].size
    place, first = (np.cumsum(case) - 1) * each, np.append(np.flatnonzero(firsts(row)), len(row))
    mass = policy.plan.root.sum(axis=1)[pairs.root]
    best: list[Lie | None] = [None] * pairs.theta.shape[1]
    step = max(1, _CELLS // (size * signals**2 * width))
    for low in range(0, len(mine), step):
        part = slice(low, low + step)
        here, agent, live = mine[part], who[part], known[part]
        weight, ends = mass[here], first[low : low + step + 1]
        alive = (weight > 0) & live[:, None]
        whole = bool(alive.all())
        ways = slice(ends[0], ends[-1])
        lie, theirs = place.take(lies[ways]), who[row[ways], None] * signals
        # Of every profile of the others and own value, over what reports bring and signals told.
        worth = [
            np.maximum.reduceat(paid.take(lie + (theirs + z)), ends[:-1] - ends[0])
            for z in range(signals)
        ]
        honest = place.take(here * width + taken[here])
        truth = paid.take(honest + (agent[:, None, None] * signals + np.arange(signals)))
        gain = np.stack(worth, axis=2) - truth
        gain /= weight if whole else np.where(alive, weight, 1.0)
        if not whole:
            gain[~alive] = -np.inf
        count += int((alive * (size * live.sum(axis=1) - 1)[:, None, None]).sum())
        if not (gain > 0).any():
            continue
        most = gain.max(axis=(1, 2))
        for i in np.unique(agent[most > 0]).tolist():
            u = int(np.argmax(np.where(agent == i, most, -np.inf)))
            held = best[i]
            if not np.isfinite(most[u]) or (held is not None and most[u] <= held.gain):
                continue
            k, z = (int(x) for x in np.unravel_index(int(np.argmax(gain[u])), gain.shape[1:]))
            action = taken[here[u]]
            spot = place[here[u, k] * width + action] + i * signals + z
            more = paid[spot] - truth[u, k, z]
            more = np.where(live[u], more / weight[u, k, z], -np.inf)
            value, signal = (int(x) for x in np.unravel_index(int(np.argmax(more)), more.shape))
            best[i] = Lie(
                int(here[u, k, z]), value, signal, int(action[value, signal]),
                float(most[u]), float(weight[u, k, z]),
            )  # fmt: skip
    return tuple(best), count


def _alternatives(pairs: Pairs) -> tuple[Int[np.ndarray, "N K Z"], Int[np.ndarray, " N"]]:
    """An advertiser's own types' pairs, once for every profile of the others, and whose they are.

    -1 beyond her alphabet.
    """
    batch, n = pairs.own.shape[:2]
    code = (pairs.own[:, :, 0, 0].T + np.arange(n)[:, None] * len(pairs.root)).ravel()
    first = np.full(n * len(pairs.root), -1)
    first[code[::-1]] = np.arange(len(code))[::-1]
    who, at = np.divmod(first[first >= 0], batch)
    return pairs.own[at, who], who


def _payoffs(
    policy: AbstractPricedPolicy,
    settlement: AbstractSettlement,
    settled: Settled,
    own: tuple[Int[np.ndarray, "N K Z"], Int[np.ndarray, " N"], Bool[np.ndarray, "N Z"]],
    cases: tuple[Int[np.ndarray, " _c"], Int[np.ndarray, " _c"]],
    work: Work,
) -> Float[np.ndarray, "_c n Z"]:
    """Payoff of every case to each advertiser under each signal that she may truly have.

    Unnormalised; anything beyond her alphabet.

    **Arguments:** `own`: as of `_alternatives`, and what is in each alphabet; `cases`: pairs and
    controls.
    """
    pairs, root, (mine, who, known) = policy.pairs, policy.plan.root, own
    n, signals, (pair, control) = pairs.theta.shape[1], mine.shape[2], cases
    believed = np.zeros((len(pairs.root) if len(root) > 1 else 0, n, signals), np.int64)
    if len(root) > 1:
        row, symbol = np.nonzero(known)
        believed[mine[row, :, symbol], who[row, None]] = pairs.root[mine[row]]
    later = policy.env.heard.count ** (policy.plan.horizon - 1) if policy.plan.horizon > 1 else 1
    step = min(_POINTS // (later * root.shape[1] * work.devices), -(-len(pair) // work.devices))
    empty = np.zeros(0, np.int64)

    def one(piece: tuple[int, int]) -> np.ndarray:
        part = slice(*piece)
        wanted = [(pair[part], np.zeros_like(pair[part]), control[part])]
        wanted += [(empty, empty, empty)] * (policy.plan.horizon - 1)
        values, places = alpha_vectors(policy, settlement, settled, wanted)
        alpha, here = values[0], pair[part]
        if len(alpha) > len(here):  # controls of laws besides
            alpha = alpha[places[0]]
        if len(root) == 1:
            worth = (alpha.reshape(-1, root.shape[1]) @ root[0]).reshape(len(here), -1, 1)
            return np.broadcast_to(worth, (len(here), n, signals))
        at, whose = believed[here], np.arange(n) if alpha.shape[1] > 1 else np.zeros(n, np.int64)
        if len(root) <= _FEW * n * signals:
            every = alpha @ root.T
            return every[np.arange(len(at))[:, None, None], whose[:, None], at]
        found = np.zeros(at.shape)
        for i in range(n):
            for z in range(signals):
                found[:, i, z] = np.einsum("cm,cm->c", alpha[:, whose[i]], root[at[:, i, z]])
        return found

    step = max(1, step)
    pieces = [(low, min(low + step, len(pair))) for low in range(0, len(pair), step)]
    return np.concatenate(work.each(one, pieces, lambda piece: ("cases", *piece)))
