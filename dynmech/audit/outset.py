"""Every misreport of period 1 at once.

In period 1 advertiser i of type (theta_i, s_i) may report any (theta_i', s_i'). What follows is
known from the pair of her true value and reported signal, and from the recommendation that the
report brings: far fewer cases than misreports. Each case is evaluated once, its payoff is taken
under every signal she may truly have, and the gains of all misreports are read off by index.
"""

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from dynmech._devices import Work
from dynmech._types import Record
from dynmech.audit.payoffs import alpha_vectors
from dynmech.payments.settlement import AbstractSettlement
from dynmech.policy.base import AbstractPricedPolicy
from dynmech.problem.settled import Settled

_CELLS = 8_000_000
_POINTS = 120_000_000
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

    None where no report of an advertiser changes anything that can happen.
    """
    pairs, taken = policy.pairs, policy.plan.actions[0][:, 0]
    controls = policy.plan.width
    own = [_alternatives(pairs.own[:, i]) for i in range(pairs.own.shape[1])]
    cases = np.zeros((len(pairs.root), controls), bool)
    for mine in own:
        # Later truth follows the pair of her true value and reported signal.
        known = (mine >= 0).all(axis=(0, 1))
        told = mine[:, :, known]
        cases[told[:, :, None], taken[told][:, None]] = True
    payoff = _payoffs(policy, settlement, settled, own, cases, work)
    place = np.cumsum(cases.ravel()).reshape(cases.shape) - 1
    mass = policy.plan.root.sum(axis=1)[pairs.root]
    found = [_best(mine, place, payoff[i], taken, mass) for i, mine in enumerate(own)]
    return tuple(lie for lie, _ in found), sum(count for _, count in found)


def _alternatives(own: Int[np.ndarray, "B K Z"]) -> Int[np.ndarray, "U K Z"]:
    """Her own types' pairs, once for every profile of the others."""
    _, first = np.unique(own[:, 0, 0], return_index=True)
    return own[first]


def _payoffs(
    policy: AbstractPricedPolicy,
    settlement: AbstractSettlement,
    settled: Settled,
    own: list[np.ndarray],
    cases: np.ndarray,
    work: Work,
) -> list[Float[np.ndarray, "_c Z"]]:
    """Payoff of every case under each signal that advertiser i may truly have, unnormalised."""
    pairs, root = policy.pairs, policy.plan.root
    pair, control = np.nonzero(cases)
    believed = []
    for mine in own:
        at = np.full((len(pairs.root), mine.shape[2]), -1)
        known = mine >= 0
        true = np.where(known, pairs.root[np.maximum(mine, 0)], -1)
        at[mine[known]] = np.broadcast_to(true[:, :, None], (*mine.shape, mine.shape[2]))[known]
        believed.append(at[pair])
    later = policy.env.heard.count ** (policy.plan.horizon - 1)
    step = min(_POINTS // (later * root.shape[1] * work.devices), -(-len(pair) // work.devices))
    empty = np.zeros(0, np.int64)

    def one(piece: tuple[int, int]) -> tuple[np.ndarray, ...]:
        part = slice(*piece)
        wanted = [(pair[part], np.zeros_like(pair[part]), control[part])]
        wanted += [(empty, empty, empty)] * (policy.plan.horizon - 1)
        values, places = alpha_vectors(policy, settlement, settled, wanted)
        alpha, found = values[0][places[0]], []
        for i, at in enumerate(believed):
            mine = alpha[:, i if alpha.shape[1] > 1 else 0]
            belief = [root[np.maximum(at[part, z], 0)] for z in range(at.shape[1])]
            found.append(np.stack([np.einsum("cm,cm->c", mine, b) for b in belief], axis=1))
        return tuple(found)

    step = max(1, step)
    pieces = [(low, min(low + step, len(pair))) for low in range(0, len(pair), step)]
    found = work.each(one, pieces, lambda piece: ("cases", *piece))
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def _best(
    mine: np.ndarray, place: np.ndarray, payoff: np.ndarray, taken: np.ndarray, mass: np.ndarray
) -> tuple[Lie | None, int]:
    """Gains of one advertiser's misreports by index, in pieces."""
    size, widest = mine.shape[1:]
    known = mine >= 0
    told = np.maximum(mine, 0)
    report = taken[told]
    best, count = None, 0
    step = max(1, _CELLS // (size * widest) ** 2)
    signal = np.arange(widest)[:, None, None]
    for low in range(0, len(mine), step):
        here, action, live = (
            told[low : low + step],
            report[low : low + step],
            known[low : low + step],
        )
        # Axes: others, true value, true signal, reported value, reported signal.
        lie = place[here[:, :, None, None, :], action[:, None, None]]
        worth = payoff[lie, signal]
        truth = payoff[place[here, action], signal[:, 0, 0]]
        weight = mass[here]
        alive = live & (weight > 0)
        gain = worth - truth[..., None, None]
        gain /= np.where(alive, weight, 1.0)[..., None, None]
        gain[~alive] = -np.inf
        gain[np.broadcast_to(~live[:, None, None], gain.shape)] = -np.inf
        reports = live.sum(axis=(1, 2))
        count += int((alive.sum(axis=(1, 2)) * (reports - 1)).sum())
        top = np.unravel_index(int(np.argmax(gain)), gain.shape)
        if np.isfinite(gain[top]) and (best is None or gain[top] > best.gain):
            u, k, z, told_k, told_z = (int(x) for x in top)
            best = Lie(
                int(here[u, k, z]), told_k, told_z, int(action[u, told_k, told_z]),
                float(gain[top]), float(weight[u, k, z]),
            )  # fmt: skip
    return best, count
