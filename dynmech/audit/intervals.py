"""Reports of any value in a declared interval, exactly: what they can make the platform do.

With constant values a report enters the efficient policy only through W(theta', theta_-i, h, b),
convex and piecewise linear in theta', so the recommendation is piecewise constant in theta'. Truth
is reported afterwards, so a misreport is worth what its recommendation is worth: the supremum over
the interval is a maximum over the finitely many recommendations attained on it, each with the
reports that attain it. A report at a breakpoint counts and follows the declared tie rule.
"""

import numpy as np
from jaxtyping import Int

from dynmech._types import Record
from dynmech.errors import InvalidArgument, TooLarge, describe
from dynmech.market.values import ConstantValues, reportable
from dynmech.policy.base import AbstractPricedPolicy
from solvers.tree.parametric import Sweep, sweep_coefficient

_MOST_CELLS = 60_000_000


class ReportPieces(Record):
    """Recommendations that some report of advertiser i attains, at every node.

    `task` (P,): which sweep each pair belongs to, -1 if none; `sweeps`: one a round, (G, N, A).
    """

    task: Int[np.ndarray, " P"]
    sweeps: tuple[Sweep, ...]

    def controls(
        self, t: int, pair: Int[np.ndarray, "*S"], node: Int[np.ndarray, "*S"], other: np.ndarray
    ) -> Int[np.ndarray, "*S A"]:
        """Every recommendation attained at (pair, node); `other` in place of those that are not."""
        taken = self.sweeps[t].taken[self.task[pair], node]
        return np.where(taken, np.arange(taken.shape[-1]), other[..., None])

    def stretch(self, t: int, pair: int, node: int, control: int) -> tuple[float, float]:
        """The widest stretch of reports that attain a recommendation, money."""
        sweep, at = self.sweeps[t], (self.task[pair], node, control)
        return float(sweep.low[at]), float(sweep.high[at])


def wants_interval(policy: AbstractPricedPolicy, call: str, interval: bool | None) -> bool:
    """Whether reports of the whole interval are to be searched; None: where one is declared.

    Only the efficient policy says what it does off the support: under others the support is
    searched, and the bound on gains holds for every report of the interval.

    **Raises:** `InvalidArgument` where they cannot be.
    """
    values = policy.env.values
    declared = isinstance(values, ConstantValues) and values.interval is not None
    if interval is None:
        interval = declared
    if interval and not declared:
        must = "be False or None unless values are ConstantValues with an interval of reports"
        do = "declare ConstantValues(support, prior, interval=(low, high))"
        raise InvalidArgument(describe(f"{call}(interval=...)", must, True, do))
    return interval and policy.exact


def sweep_reports(
    policy: AbstractPricedPolicy, i: int, pairs: Int[np.ndarray, " k"]
) -> ReportPieces:
    """Find what every report of advertiser i in her interval attains, whatever she told before.

    **Arguments:** `pairs`: those whose root and others' values are wanted.

    **Raises:** `TooLarge` when the pieces will not fit.
    """
    plan, env = policy.plan, policy.env
    pairs = np.unique(pairs)
    theta = policy.pairs.theta[pairs].copy()
    theta[:, i] = 0
    rows = np.concatenate([policy.pairs.root[pairs][:, None], theta], axis=1)
    unique, index = np.unique(rows, axis=0, return_inverse=True)
    size = len(unique) * plan.tree.nodes * len(env.controls)
    if size > _MOST_CELLS:
        raise _too_large(f"{size:.3g} (profiles of the others, nodes, recommendations)")
    task = np.full(len(policy.pairs.root), -1)
    task[pairs] = index.reshape(-1)
    money = env.values.support[np.arange(env.products), unique[:, 1:]]
    money = np.pad(money, ((0, 0), (0, plan.tree.structure.outcomes - env.products)))
    low, high = reportable(env.values)[i, -2:].tolist()
    try:
        swept = sweep_coefficient(
            plan.tree, plan.tables, plan.root[unique[:, 0]], money, i, (low, high)
        )
    except MemoryError as error:
        raise _too_large(str(error)) from error
    return ReportPieces(task, swept.rounds)


def _too_large(got: str) -> TooLarge:
    must = f"hold at most {_MOST_CELLS:.3g} pieces of the interval of reports"
    do = "pass interval=False (reports of the support), fewer profiles, or a shorter horizon"
    return TooLarge(describe("audit(interval=...)", must, got, do))


def report_of(
    pieces: ReportPieces | None, t: int, pair: int, node: int, control: int, told: float | None
) -> tuple[float, tuple[float, ...]]:
    """A report that attains a recommendation, and the interval of those that do.

    `told`: the value of the support that does, if it was one; else the middle is taken.
    """
    if pieces is None:
        return float(told or 0.0), ()
    low, high = pieces.stretch(t, pair, node, control)
    if told is None:
        return (low + high) / 2, (low, high)
    return told, (low, high) if low <= told <= high else (told, told)
