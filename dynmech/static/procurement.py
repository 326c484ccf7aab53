"""Procurement auctions settled on cost estimates from a consumer market (paper D, section 5.3).

A buyer values one unit from seller i at b_i; it costs her c_i(theta_i, omega), omega a shock that
all costs share and sellers have signals of. The pivot pays the winner b_i - b_j + c_hat_j, j being
the best of the others *by the others' information*. A loser is paid (b_w - c_hat_w) - (b_j -
c_hat_j), w being the winner: zero with two sellers, but not where her signal changes which of the
others is best. The section prints the winner's transfer only; leaving losers unpaid is not
incentive compatible with three sellers (see the tests).

Sellers are agents of a `StaticEnvironment` with u_i = x_i (b_i - c_i): as if the winner handed the
good over at its value. What she pays the mechanism is then b_i less what the buyer pays; audits
are unchanged, and `no_subsidy` reads "the buyer pays no more than the good is worth to her".

**References**

Bergemann, Bojko, Duetting, Paes Leme, Xu and Zuo, "Data-driven mechanism design", 2025;
Berry, Levinsohn and Pakes, "Automobile prices in market equilibrium", Econometrica 1995.
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import numpy as np
import numpy.typing as npt
from jax.core import Tracer
from jaxtyping import Array, Float

from dynmech._checks import as_doubles, as_floats, checked, distinct, function
from dynmech.errors import InvalidArgument, OutsideSupport, describe, require_finite
from dynmech.market.tastes import TasteGrid
from dynmech.static.audit import EpsilonBounds, bound_errors
from dynmech.static.environment import StaticEnvironment
from dynmech.static.signals import PrivateSignals


class Procurement(eqx.Module):
    """Describe a procurement auction; `env` is its static environment.

    **Arguments**

    - `cost`: traceable `cost(seller, theta, omega)`, money, a scalar: c_i(theta_i, omega), omega
      (k,). `seller` is an integer.
    - `benefits`: (n,), b_i >= 0, money, commonly known.
    - `states`, `theta`, `signals`, `names`: as in `StaticEnvironment`.

    **Raises**

    `InvalidArgument`, `OutsideSupport` (a negative benefit), `NotFinite`, `InvalidProbability`,
    `TooLarge`.

    ```python
    >>> auction = Procurement(
    ...     lambda i, theta, omega: theta + omega[0],
    ...     benefits=[10.0, 9.0],
    ...     states=TasteGrid([[0.0], [2.0]], [0.5, 0.5]),
    ...     theta=[[3.0, 5.0], [3.0, 4.0]],
    ... )
    >>> auction.transfers((0, 0), cost_estimates=[4.1, 4.2]).tolist()   # 10 - 9 + 4.2
    [-5.2, 0.0]

    ```
    """

    benefits: Float[np.ndarray, " n"]
    env: StaticEnvironment

    @checked(cost=function(3, "of seller, theta, omega"))
    def __init__(
        self,
        cost: Callable[..., Any],
        benefits: npt.ArrayLike,
        states: TasteGrid,
        theta: npt.ArrayLike | Array,
        signals: PrivateSignals | None = None,
        names: Sequence[str] | None = None,
    ):
        worth = as_doubles("Procurement(benefits=...)", benefits)
        own = np.shape(as_floats(theta, "Procurement(theta=...)"))
        if worth.ndim != 1 or len(worth) < 2 or own[:1] != worth.shape:
            must = "have shape (n,), one for each seller in theta, at least two"
            got = f"{worth.shape} for theta of shape {own}"
            raise InvalidArgument(describe("Procurement(benefits=...)", must, got))
        require_finite("Procurement(benefits=...)", worth)
        if (worth < 0).any():
            got = float(worth.min())
            raise OutsideSupport(describe("Procurement(benefits=...)", "be nonnegative", got))
        labels = [f"seller {i}" for i in range(len(worth))]
        if names is not None:
            labels = list(distinct("Procurement(names=...)", names, len(worth)))
        self.benefits = worth
        self.env = StaticEnvironment(
            lambda i, x, omega, own: x[i] * (worth[i] - _amount(cost(i, own, omega))),
            np.eye(len(worth)),
            states,
            theta,
            signals,
            names=labels,
            allocation_names=[f"{label} wins" for label in labels],
        )

    def costs(self) -> Float[np.ndarray, "..."]:
        """Tabulate true costs at every profile of values and state: (K_1, ..., K_n, m, n)."""
        n, values = self.env.theta.shape[:2]
        shape = (*(values,) * n, self.env.states.size)
        return np.stack(
            [
                np.broadcast_to(
                    self.benefits[i] - np.asarray(self.env.payoff_table(i))[..., i, :], shape
                )
                for i in range(n)
            ],
            axis=-1,
        )

    def transfers(
        self, profile: Sequence[int], cost_estimates: npt.ArrayLike
    ) -> Float[np.ndarray, "... n"]:
        """Settle the pivot: what each seller pays, less than 0 where the buyer pays her.

        -(b_i - b_j + c_hat_j) by the winner; (b_j - c_hat_j) - (b_w - c_hat_w) by a loser.

        **Arguments:** `profile`: n indices into `env.types`, as reported. `cost_estimates`:
        (..., n), c_hat, money.

        **Returns:** (..., n), money.

        **Raises:** `InvalidArgument`, `OutsideSupport`, `NotFinite`.
        """
        cell, n = self.env.cell("transfers(profile=...)", profile), self.env.agents
        near = as_doubles("transfers(cost_estimates=...)", cost_estimates)
        if near.ndim == 0 or near.shape[-1] != n:
            must = f"have a last axis of length {n}, one estimate a seller"
            raise InvalidArgument(describe("transfers(cost_estimates=...)", must, near.shape))
        require_finite("transfers(cost_estimates=...)", near)
        net = self.benefits - near
        winner = int(self.env.efficient_allocation()[cell])
        paid = np.zeros(near.shape)
        for i in range(n):
            rest = tuple(0 if j == i else e for j, e in enumerate(cell))
            best = int(self.env.efficient_allocation(without=i)[rest])
            paid[..., i] = net[..., best] - (self.benefits[i] if i == winner else net[..., winner])
        return paid

    def epsilon_bounds(
        self, errors: npt.ArrayLike, distances: npt.ArrayLike | None = None
    ) -> EpsilonBounds:
        """Compute epsilon of Definition 6, and its bounds, for the pivot settled on cost estimates.

        Corollary 1 with numbers. The estimates' law may depend on all true costs, as equilibrium
        prices do, but not on who wins, as the corollary asks: then what i is charged for being
        there moves with nobody's report but the others', and the pivot is covered.

        **Arguments**

        - `errors`: (K_1, ..., K_n, m, n), E[c_hat_j - c_j] at each profile of values and state,
          axes as in `costs`; anything that broadcasts to it.
        - `distances`: the same of E|c_hat_j - c_j|; None: the absolute errors.

        **Returns**

        `EpsilonBounds`; in Lemma 2, u_j = -x_j c_hat_j has slope 1 where j wins.

        **Raises**

        `InvalidArgument`, `NotFinite`.
        """
        wanted = self.costs().shape
        tables = []
        for name, given in (("errors", errors), ("distances", distances)):
            call = f"Procurement.epsilon_bounds({name}=...)"
            if name == "distances" and given is None:
                tables.append(np.abs(tables[0]))
                continue
            table = as_doubles(call, given)
            if table.ndim > len(wanted) or any(
                a not in (1, b) for a, b in zip(table.shape[::-1], wanted[::-1], strict=False)
            ):
                raise InvalidArgument(describe(call, f"broadcast to {wanted}", table.shape))
            require_finite(call, table)
            tables.append(self._by_type(np.broadcast_to(table, wanted)))
        wrong, far = tables
        if (far < np.abs(wrong) - 1e-12 * max(1.0, float(np.abs(wrong).max()))).any():
            must = "be at least the size of the errors: E|c_hat - c| >= |E[c_hat - c]|"
            call = "Procurement.epsilon_bounds(distances=...)"
            got = f"{float((np.abs(wrong) - far).max()):.3g} less"
            raise InvalidArgument(describe(call, must, got))
        n = self.env.agents
        wins = np.eye(n)[:, :, None]
        credited = [-wins[j] * wrong[..., None, :, j] for j in range(n)]
        found = bound_errors(self.env, credited)
        belief, possible = self.env.posterior(0), self.env.possible()
        seen = (belief[..., None] * far).sum(axis=-2)[possible].max(axis=0)
        worst = far.reshape(-1, n).max(axis=0)
        rivals = [np.delete(np.arange(n), i) for i in range(n)]
        return EpsilonBounds(
            reports=found["reports"],
            any_allocation=found["any"],
            lemma1=found["lemma1"],
            lemma2_posterior=2 * np.array([seen[rest].max() for rest in rivals]),
            lemma2_state=2 * np.array([worst[rest].max() for rest in rivals]),
            lipschitz=np.ones(n),
        )

    def _by_type(self, table: np.ndarray) -> np.ndarray:
        """Lay a table over value profiles out over type profiles."""
        return table[np.ix_(*(own.theta for own in self.env.types))]


def _amount(cost: Any) -> Any:
    """A cost that is a number, traced or not."""
    return cost if isinstance(cost, Tracer) else as_floats(cost, "Procurement(cost=...)")
