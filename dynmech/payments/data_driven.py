"""Groves totals that depend on the estimate of the taste: wider than any fixed window.

A total f(omega_hat), charged after every ending and decoded without bias, has an expectation
E[f | s_i, s_-i] that advertiser i cannot move by reports: what she knows moves it, what she says
does not. Both constraints hold at the outset iff some function f has

    max_theta_i D_i(theta_i, s_i) <= E[f | s_i, s_-i] <= min_theta_i W_1(theta_i, s_i)

for each of her signals s_i: a linear program in f, whose rows are posteriors. With linearly
independent posteriors the signals decouple and it solves itself.
"""

from typing import ClassVar

import equinox as eqx
import numpy as np
from jaxtyping import Float

from dynmech.errors import InvalidArgument, describe
from dynmech.payments.groves import AbstractGroves, OwnTables


class WindowComparison(eqx.Module):
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
      participation allows where both can hold, and does as "slack" elsewhere.
    - `functions`: shape (m, F): f must be a combination of these functions of the taste, those
      that the signal after an ending can decode without bias; every function by default.
    """

    side: ClassVar[str | None] = "both"
    decoded: ClassVar[bool] = True

    objective: str = eqx.field(static=True, default="slack")
    functions: Float[np.ndarray, "m F"] | None = None

    def __check_init__(self):
        if self.objective not in ("slack", "revenue"):
            must = "be 'slack' or 'revenue'"
            raise InvalidArgument(
                describe("groves.DataDriven(objective=...)", must, self.objective)
            )

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


def _program(span, low, high, chance, objective) -> tuple[np.ndarray, float]:
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
