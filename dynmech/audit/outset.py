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
from dynmech.audit.shared import shared
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


class Reports(Record):
    """What reports of period 1 can bring, whatever settles.

    A *row* is an advertiser with a profile of the others; a *case* a pair and a control that a
    report of its root can bring. In a list of the payoffs of all cases to every advertiser under
    every signal, `lie` and `honest` say where those of the rows' own advertisers are.

    - `own` (N, K, Z): the pairs of each row, of own values and signals, -1 beyond the alphabet;
      `who` (N,): whose they are; `known` (N, Z): what is in her alphabet.
    - `pair`, `control` (c,): the cases, in the order of both.
    - `lie` (L, K): of what some report of a row can bring, one after another, the payoff under each
      true value and the first signal; `first` (N + 1,): where those of each row begin.
    - `honest` (N, K, Z): the payoff of truth. `mass` (N, K, Z): of its root, 0 where there is none.
    - `believed` (P, n, Z): the root under each signal that an advertiser may truly have, where a
      pair is told by her; none where all roots are one.
    - `count`: misreports.
    """

    own: Int[np.ndarray, "N K Z"]
    who: Int[np.ndarray, " N"]
    known: Bool[np.ndarray, "N Z"]
    pair: Int[np.ndarray, " c"]
    control: Int[np.ndarray, " c"]
    lie: Int[np.ndarray, "L K"]
    first: Int[np.ndarray, " _N1"]
    honest: Int[np.ndarray, "N K Z"]
    mass: Float[np.ndarray, "N K Z"]
    believed: Int[np.ndarray, "_P n Z"]
    count: int = eqx.field(static=True)


def search_outset(
    policy: AbstractPricedPolicy,
    settlement: AbstractSettlement,
    settled: Settled,
    work: Work = _HERE,
) -> tuple[tuple[Lie | None, ...], int]:
    """Compare every misreport of period 1 with truth: the best of each advertiser, and how many.

    None where no report of an advertiser gains.
    """
    at = shared(policy, "reports", lambda: _reports(policy))
    paid = _payoffs(policy, settlement, settled, at, work).ravel()
    (rows, size, signals), width = at.own.shape, policy.plan.width
    best: list[Lie | None] = [None] * policy.pairs.theta.shape[1]
    step = max(1, _CELLS // (size * signals**2 * width))
    for low in range(0, rows, step):
        mass, ends = at.mass[low : low + step], at.first[low : low + step + 1]
        lie, starts = at.lie[ends[0] : ends[-1]], ends[:-1] - ends[0]
        gain = paid.take(at.honest[low : low + step])
        # Of every profile of the others and own value, over what reports bring and signals told.
        for z in range(signals):
            worth = np.maximum.reduceat(paid[z:].take(lie), starts)
            np.subtract(worth, gain[:, :, z], out=gain[:, :, z])
        alive = mass > 0
        if alive.all():
            gain /= mass
        else:
            gain /= np.where(alive, mass, 1.0)
            gain[~alive] = -np.inf
        if (gain > 0).any():
            _keep_best(policy, at, paid, low, gain, best)
    return tuple(best), at.count


def _keep_best(
    policy: AbstractPricedPolicy,
    at: Reports,
    paid: Float[np.ndarray, " _p"],
    low: int,
    gain: Float[np.ndarray, "_N K Z"],
    best: list[Lie | None],
) -> None:
    """Put what gains most in rows from `low` on in the place of what gains less."""
    taken, width, signals = policy.plan.actions[0][:, 0], policy.plan.width, gain.shape[2]
    agent, most = at.who[low : low + len(gain)], gain.max(axis=(1, 2))
    each, code = len(paid) // len(at.pair), at.pair * width + at.control
    for i in np.unique(agent[most > 0]).tolist():
        u = int(np.argmax(np.where(agent == i, most, -np.inf)))
        held = best[i]
        if not np.isfinite(most[u]) or (held is not None and most[u] <= held.gain):
            continue
        k, z = (int(x) for x in np.unravel_index(int(np.argmax(gain[u])), gain.shape[1:]))
        own, mass = at.own[low + u], float(at.mass[low + u, k, z])
        action = taken[own]
        spot = np.searchsorted(code, own[k] * width + action) * each + i * signals + z
        more = (paid[spot] - paid[at.honest[low + u, k, z]]) / mass
        more = np.where(at.known[low + u], more, -np.inf)
        value, signal = (int(x) for x in np.unravel_index(int(np.argmax(more)), more.shape))
        best[i] = Lie(
            int(own[k, z]), value, signal, int(action[value, signal]), float(most[u]), mass
        )


def _reports(policy: AbstractPricedPolicy) -> Reports:
    """See `Reports`."""
    pairs, plan = policy.pairs, policy.plan
    taken, width, n = plan.actions[0][:, 0], plan.width, pairs.theta.shape[1]
    own, who = _alternatives(pairs)
    known = own[:, 0] >= 0
    _, size, signals = own.shape
    # Which controls reports of each symbol bring: told of (row, symbol), taken apart below.
    told, spot = np.zeros(known.size * width, bool), np.arange(known.size).reshape(known.shape)
    told[spot[:, None] * width + taken[own]] = True
    told &= np.repeat(known.ravel(), width)
    spot, control = np.divmod(np.flatnonzero(told), width)
    row = spot // signals
    # Later truth follows the pair of her true value and reported signal.
    lies = np.moveaxis(own, 2, 1).reshape(-1, size)[spot] * width + control[:, None]
    case = np.zeros(len(pairs.root) * width, bool)
    case[lies] = True
    place, hers = (np.cumsum(case) - 1) * (n * signals), who * signals
    honest = place.take(own * width + taken[own]) + hers[:, None, None] + np.arange(signals)
    mass = np.where(known[:, None], plan.root.sum(axis=1)[pairs.root][own], 0.0)
    count = ((mass > 0) * (size * known.sum(axis=1) - 1)[:, None, None]).sum()
    believed = np.zeros((len(pairs.root) if len(plan.root) > 1 else 0, n, signals), np.int64)
    if len(believed):
        of, symbol = np.nonzero(known)
        believed[own[of, :, symbol], who[of, None]] = pairs.root[own[of]]
    return Reports(
        own,
        who,
        known,
        *np.divmod(np.flatnonzero(case), width),
        lie=place.take(lies) + hers[row, None],
        first=np.append(np.flatnonzero(firsts(row)), len(row)),
        honest=honest,
        mass=mass,
        believed=believed,
        count=int(count),
    )


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
    at: Reports,
    work: Work,
) -> Float[np.ndarray, "_c n Z"]:
    """Payoff of every case to each advertiser under each signal that she may truly have.

    Unnormalised; anything beyond her alphabet.
    """
    plan, root, (pair, control) = policy.plan, policy.plan.root, (at.pair, at.control)
    n, signals = policy.pairs.theta.shape[1], at.own.shape[2]
    later = policy.env.heard.count ** (plan.horizon - 1) if plan.horizon > 1 else 1
    step = min(_POINTS // (later * root.shape[1] * work.devices), -(-len(pair) // work.devices))
    step, empty = max(1, step), np.zeros(0, np.int64)
    name = "cases" if step >= len(pair) else None

    def one(piece: tuple[int, int]) -> np.ndarray:
        part = slice(*piece)
        wanted = [(pair[part], np.zeros_like(pair[part]), control[part])]
        wanted += [(empty, empty, empty)] * (plan.horizon - 1)
        values, places = alpha_vectors(policy, settlement, settled, wanted, name)
        alpha, here = values[0], pair[part]
        if len(alpha) > len(here):  # controls of laws besides
            alpha = alpha[places[0]]
        if len(root) == 1:
            worth = (alpha.reshape(-1, root.shape[1]) @ root[0]).reshape(len(here), -1, 1)
            return np.broadcast_to(worth, (len(here), n, signals))
        believed, whose = at.believed[here], np.arange(n) * (alpha.shape[1] > 1)
        if len(root) <= _FEW * n * signals:
            every = alpha @ root.T
            return every[np.arange(len(here))[:, None, None], whose[:, None], believed]
        found = np.zeros(believed.shape)
        for i in range(n):
            for z in range(signals):
                found[:, i, z] = np.einsum("cm,cm->c", alpha[:, whose[i]], root[believed[:, i, z]])
        return found

    pieces = [(low, min(low + step, len(pair))) for low in range(0, len(pair), step)]
    return np.concatenate(work.each(one, pieces, lambda piece: ("cases", *piece)))
