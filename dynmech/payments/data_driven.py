"""Groves totals that depend on the estimate of the taste: wider than any fixed window.

A total f(omega_hat), charged after every ending and decoded without bias, has an expectation
E[f | s_i, s_-i] that advertiser i cannot move by reports: what she knows moves it, what she says
does not. Both constraints hold at the outset iff some function f has

    max_theta_i D_i(theta_i, s_i) <= E[f | s_i, s_-i] <= min_theta_i W_1(theta_i, s_i)

for each of her signals s_i: a linear program in f, whose rows are posteriors. With linearly
independent posteriors the signals decouple and it solves itself. Among the functions that do, one
leaves the least variance of what she pays, f(omega) less her core receipts X,

    min over f of  sum over own types xi of w(xi) Var_xi(f(omega) - X),

a convex quadratic program: Var is a positive semidefinite quadratic form in f.
"""

from typing import ClassVar

import equinox as eqx
import numpy as np
from jaxtyping import Float

from dynmech._checks import choice, optional, shaped
from dynmech._types import Record
from dynmech.errors import InvalidArgument, describe, import_extra
from dynmech.payments.groves import AbstractGroves, OwnTables

_RIDGE = 1e-9  # of the mean eigenvalue: picks one of several functions of least variance
_MARGIN = 1e-9  # room that the quadratic program is left in each constraint


class WindowComparison(Record):
    """How much room participation and no subsidy leave, (B, n), money.

    - `fixed`: largest slack that a total fixed given the others' reports leaves in both
      constraints, (ceiling - floor) / 2; `data_driven`: with a total that reads the estimate.
      Negative: both cannot hold at once. NaN where the profile is impossible.
    """

    fixed: Float[np.ndarray, "B n"]
    data_driven: Float[np.ndarray, "B n"]

    def shares(self) -> tuple[float, float]:
        """Share of advertisers and profiles where both constraints can hold: fixed, data-driven."""
        known = np.isfinite(self.fixed)
        return float((self.fixed[known] >= 0).mean()), float((self.data_driven[known] >= 0).mean())


class DataDriven(AbstractGroves):
    """Charge f(omega_hat) after every ending, f from a linear program (see the module).

    Guarantee: both constraints hold at the outset wherever any f satisfies both; elsewhere the
    largest violation is as small as it can be.

    **Arguments**

    - `objective`: "slack" leaves the largest smallest slack; "revenue" charges the most that
      participation allows where both can hold, and does as "slack" elsewhere; "variance" leaves
      what is paid the least variance (weights: the chance of each own type, the others' reports
      given) subject to both, or to the smallest violation. It needs `clarabel`, extra `qp`.
    - `functions`: shape (m, F): f must be a combination of these functions of the taste, those
      that the signal after an ending can decode without bias; every function by default.
    """

    side: ClassVar[str | None] = "both"
    decoded: ClassVar[bool] = True

    objective: str = eqx.field(static=True, default="slack")
    functions: Float[np.ndarray, "m F"] | None = None

    def __check_init__(self):
        choice("slack", "revenue", "variance")("groves.DataDriven(objective=...)", self.objective)
        optional(shaped("m", "F"))("groves.DataDriven(functions=...)", self.functions)

    def reads_spread(self):
        return self.objective == "variance"

    def total(self, own: OwnTables) -> Float[np.ndarray, "B n"]:
        return np.einsum("bnm,bnm->bn", self.function(own), own.posterior())

    def function(self, own: OwnTables) -> Float[np.ndarray, "B n m"]:
        """f of each profile and advertiser at each taste, money; of least norm among solutions."""
        return self._solve(own)[0]

    def compare(self, own: OwnTables) -> WindowComparison:
        """Compare with totals that are fixed given the others' reports."""
        ceiling = np.fmin.reduce(own.payoff.reshape(*own.payoff.shape[:2], -1), axis=2)
        floor = np.fmax.reduce(own.contribution.reshape(*own.payoff.shape[:2], -1), axis=2)
        return WindowComparison((ceiling - floor) / 2, self._solve(own)[1])

    def _solve(self, own: OwnTables):
        batch, n, _, _ = own.payoff.shape
        points = own.root.shape[1]
        basis = np.eye(points) if self.functions is None else np.asarray(self.functions, float)
        if basis.ndim != 2 or basis.shape[0] != points:
            must = f"have shape ({points}, F)"
            raise InvalidArgument(describe("groves.DataDriven(functions=...)", must, basis.shape))
        found: dict[tuple[int, bytes], tuple[np.ndarray, float]] = {}
        function, slack = np.full((batch, n, points), np.nan), np.full((batch, n), np.nan)
        for b in range(batch):
            for i in range(n):
                key = (i, own.own_pair[b, i].tobytes())
                if key not in found:
                    found[key] = self._one(own, b, i, basis)
                function[b, i], slack[b, i] = found[key]
        return function, slack

    def _one(self, own: OwnTables, b: int, i: int, basis: np.ndarray) -> tuple[np.ndarray, float]:
        """Solve for one advertiser at one profile of the others."""
        live = np.isfinite(own.payoff[b, i]).all(axis=0) & (own.own_root[b, i] >= 0)
        if not live.any():
            return np.full(basis.shape[0], np.nan), np.nan
        belief = own.root[own.own_root[b, i, live]]
        chance = belief.sum(axis=1) / belief.sum()
        low = own.contribution[b, i][:, live].max(axis=0)
        high = own.payoff[b, i][:, live].min(axis=0)
        reach = belief / belief.sum(axis=1, keepdims=True) @ basis
        if self.objective == "variance":
            slack = _slack(reach, low, high)
            form = _variance(own, i, own.own_pair[b, i][:, live], belief, basis)
            room = max(0.0, -slack) + _MARGIN * (1 + np.abs(low).max() + np.abs(high).max())
            return basis @ _quadratic(*form, reach, low - room, high + room), slack
        left, size, right = np.linalg.svd(reach, full_matrices=False)
        rank = int((size > 1e-10 * size[0]).sum())
        if rank == len(low):
            slack = float(((high - low) / 2).min())
            revenue = self.objective == "revenue" and slack >= 0
            target = high if revenue else (low + high) / 2
        else:
            target, slack = _program(left[:, :rank], low, high, chance, self.objective)
        weights = right[:rank].T @ ((left[:, :rank].T @ target) / size[:rank])
        return basis @ weights, slack


def _variance(
    own: OwnTables, i: int, pair: np.ndarray, belief: np.ndarray, basis: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The variance of what i pays, w'Pw/2 + q'w + constant in f = basis w; pairs (K, Z)."""
    spread = own.spread
    if spread is None:
        raise InvalidArgument(describe("DataDriven(objective=...)", "be given own.spread", None))
    size = basis.shape[1]
    form, slope, total = np.zeros((size, size)), np.zeros(size), 0.0
    for k, z in np.ndindex(pair.shape):
        mass = belief[z].sum()
        weight = spread.weight[pair[k, z]] * mass
        mu, receipts = belief[z] / mass, spread.receipts[i, pair[k, z]] / mass
        mean = mu @ basis
        form += weight * (basis.T @ (mu[:, None] * basis) - np.outer(mean, mean))
        slope += weight * (basis.T @ receipts - mean * receipts.sum())
        total += weight
    total = total if total > 0 else 1.0
    return 2 * form / total, -2 * slope / total


def _slack(reach: np.ndarray, low: np.ndarray, high: np.ndarray) -> float:
    """The largest smallest slack in both constraints."""
    left, size, _ = np.linalg.svd(reach, full_matrices=False)
    rank = int((size > 1e-10 * size[0]).sum())
    if rank == len(low):
        return float(((high - low) / 2).min())
    return _program(left[:, :rank], low, high, np.ones(len(low)), "slack")[1]


def _quadratic(
    form: np.ndarray, slope: np.ndarray, reach: np.ndarray, low: np.ndarray, high: np.ndarray
) -> Float[np.ndarray, " F"]:
    """argmin w'Pw/2 + q'w over low <= reach w <= high, by an interior point method."""
    clarabel = import_extra("clarabel", "qp", "groves.DataDriven")
    from scipy.sparse import csc_matrix

    size = len(slope)
    ridge = _RIDGE * max(float(np.trace(form)) / size, 1e-12)
    settings = clarabel.DefaultSettings()
    settings.verbose = False
    settings.tol_gap_abs = settings.tol_gap_rel = settings.tol_feas = 1e-11
    rows, limits = np.vstack([reach, -reach]), np.concatenate([high, -low])
    solver = clarabel.DefaultSolver(
        csc_matrix(np.triu(form + ridge * np.eye(size))),
        slope,
        csc_matrix(rows),
        limits,
        [clarabel.NonnegativeConeT(len(limits))],
        settings,
    )
    found = solver.solve()
    if str(found.status) not in ("Solved", "AlmostSolved"):
        raise RuntimeError(f"the quadratic program of DataDriven failed: {found.status}")
    return np.asarray(found.x)


def _program(
    span: np.ndarray, low: np.ndarray, high: np.ndarray, chance: np.ndarray, objective: str
) -> tuple[np.ndarray, float]:
    """Largest smallest slack of low <= g <= high over g in the span; then revenue if asked."""
    from scipy.optimize import linprog

    rank = span.shape[1]
    ones = np.ones((len(low), 1))
    rows = np.block([[-span, ones], [span, ones]])
    free = [(None, None)] * (rank + 1)
    cost = np.append(np.zeros(rank), -1.0)
    best = linprog(cost, rows, np.concatenate([-low, high]), bounds=free)
    if best.status != 0:
        raise RuntimeError(f"the linear program of DataDriven failed: {best.message}")
    slack = float(best.x[-1])
    weights = best.x[:-1]
    if objective == "revenue" and slack >= 0:
        rows, limits = np.vstack([-span, span]), np.concatenate([-low, high])
        most = linprog(-(chance @ span), rows, limits, bounds=free[:-1])
        weights = most.x if most.status == 0 else weights
    return span @ weights, slack
