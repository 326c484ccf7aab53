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
    told = np.zeros((policy.plan.width, *known.shape), bool)
    told[taken[mine], np.arange(len(mine))[:, None, None], np.arange(known.shape[1])] = True
    told &= known
    cases = np.zeros((len(pairs.root), len(told)), bool)
    # Later truth follows the pair of her true value and reported signal.
    control, row, symbol = np.nonzero(told)
    cases[mine[row, :, symbol], control[:, None]] = True
    payoff = _payoffs(policy, settlement, settled, (mine, who, known), cases, work)
    place = (np.cumsum(cases.ravel()) - 1).reshape(cases.shape)
    mass = policy.plan.root.sum(axis=1)[pairs.root]
    best: list[Lie | None] = [None] * pairs.theta.shape[1]
    count, (size, signals) = 0, mine.shape[1:]
    step = max(1, _CELLS // (size * signals**2 * len(told)))
    for low in range(0, len(mine), step):
        part = slice(low, low + step)
        here, agent, live = mine[part], who[part], known[part]
        action, weight = taken[here], mass[here]
        alive = (weight > 0) & live[:, None]
        lie, paid = place.T[:, here], told[:, part, None]
        # Of every profile of the others and own value, over what reports bring and signals told.
        worth = [
            np.where(paid, payoff[lie, agent[:, None, None], z], -np.inf).max(axis=0).max(axis=2)
            for z in range(signals)
        ]
        truth = payoff[place[here, action], agent[:, None, None], np.arange(signals)]
        gain = (np.stack(worth, axis=2) - truth) / np.where(alive, weight, 1.0)
        gain[~alive] = -np.inf
        count += int((alive.sum(axis=(1, 2)) * (size * live.sum(axis=1) - 1)).sum())
        most = gain.max(axis=(1, 2))
        for i in np.unique(agent[most > 0]).tolist():
            u = int(np.argmax(np.where(agent == i, most, -np.inf)))
            held = best[i]
            if not np.isfinite(most[u]) or (held is not None and most[u] <= held.gain):
                continue
            k, z = (int(x) for x in np.unravel_index(int(np.argmax(gain[u])), gain.shape[1:]))
            each = payoff[place[here[u, k], action[u]], i, z] - truth[u, k, z]
            each = np.where(live[u], each / weight[u, k, z], -np.inf)
            value, signal = (int(x) for x in np.unravel_index(int(np.argmax(each)), each.shape))
            best[i] = Lie(
                int(here[u, k, z]), value, signal, int(action[u, value, signal]),
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
    cases: Bool[np.ndarray, "P width"],
    work: Work,
) -> Float[np.ndarray, "_c n Z"]:
    """Payoff of every case to each advertiser under each signal that she may truly have.

    Unnormalised; anything beyond her alphabet.
    """
    pairs, root, (mine, who, known) = policy.pairs, policy.plan.root, own
    pair, control = np.nonzero(cases)
    n, signals = pairs.theta.shape[1], mine.shape[2]
    believed = np.zeros((len(pairs.root), n, signals), np.int64)
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
            return np.broadcast_to(alpha @ root.T, (len(here), n, signals))
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
