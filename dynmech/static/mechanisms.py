"""Direct mechanisms and the data-driven VCG transfers (paper D, Definitions 2, 3, 5 and 11).

A direct mechanism is an allocation for every profile of reports and, for each agent, a transfer
for every profile and outcome of the data she is settled on. Transfers are paid *by* the agent, as
everywhere here: -t_i of the paper. One audit serves all of them.

**References**

Bergemann, Bojko, Duetting, Paes Leme, Xu and Zuo, "Data-driven mechanism design: jointly eliciting
preferences and information", 2025.
"""

from collections.abc import Sequence

import equinox as eqx
import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

from dynmech._checks import (
    arrays,
    as_doubles,
    chances,
    checked,
    flag,
    indices,
    instance,
    member,
    optional,
)
from dynmech.errors import InvalidArgument, OutsideSupport, describe, require_finite, shown
from dynmech.payments.groves import AbstractGroves, OwnTables, Zero, check_total, require_own
from dynmech.static.audit import StaticAudit, run_static_audit
from dynmech.static.environment import ENVIRONMENT, StaticEnvironment
from dynmech.static.estimators import AbstractData, IdealData

LABEL = instance(str, "a label for tables")
_NOTHING = Zero()


class DirectMechanism(eqx.Module):
    """An allocation rule and transfers contingent on data (Definition 3).

    **Arguments**

    - `env`: the environment. `name`: for tables.
    - `allocation`: (E_1, ..., E_n), index of the allocation at each profile of reports.
    - `transfer`: n arrays (E_1, ..., E_n, R_i), money paid by agent i at each profile of reports
      and outcome of her data.
    - `law`: n arrays (A, m, R_i), the law of those outcomes given allocation and state.

    A message-driven mechanism (Definition 2) has one outcome, R_i = 1.

    **Raises**

    `InvalidArgument`, `NotFinite`, `OutsideSupport`.
    """

    env: StaticEnvironment
    allocation: Int[np.ndarray, "..."]
    transfer: tuple[Float[np.ndarray, "..."], ...]
    law: tuple[Float[np.ndarray, "A m R"], ...]
    name: str = eqx.field(static=True)

    @checked(env=ENVIRONMENT, transfer=arrays, law=optional(arrays), name=LABEL)
    def __init__(
        self,
        env: StaticEnvironment,
        allocation: npt.ArrayLike,
        transfer: Sequence[npt.ArrayLike],
        law: Sequence[npt.ArrayLike] | None = None,
        name: str = "direct mechanism",
    ):
        n, size = env.agents, (len(env.allocations), env.states.size)
        self.env, self.name = env, name
        self.allocation = indices(*env.shape)("DirectMechanism(allocation=...)", allocation)
        if self.allocation.min() < 0 or self.allocation.max() >= size[0]:
            must, got = f"be in 0..{size[0] - 1}", self.allocation.max()
            raise OutsideSupport(describe("DirectMechanism(allocation=...)", must, got))
        laws = [np.ones((*size, 1))] * n if law is None else law
        if len(transfer) != n or len(laws) != n:
            must, got = f"hold one array for each of {n} agents", len(transfer)
            raise InvalidArgument(describe("DirectMechanism(transfer=..., law=...)", must, got))
        tables = [np.asarray(table, np.float64) for table in transfer]
        held = []
        for i, table in enumerate(tables):
            law_call, of = f"DirectMechanism(law[{i}]=...)", np.shape(laws[i])
            if len(of) != 3 or of[:2] != size:
                must = f"have shape ({size[0]}, {size[1]}, R)"
                raise InvalidArgument(describe(law_call, must, of))
            held.append(np.asarray(chances(law_call, laws[i]), np.float64))
            wanted = (*env.shape, of[-1])
            call = f"DirectMechanism(transfer[{i}]=...)"
            if table.ndim != len(wanted) or any(
                a not in (1, b) for a, b in zip(table.shape, wanted, strict=True)
            ):
                raise InvalidArgument(describe(call, f"broadcast to {wanted}", table.shape))
            require_finite(call, table)
        self.law = tuple(held)
        self.transfer = tuple(
            np.broadcast_to(table, (*env.shape, self.law[i].shape[-1]))
            for i, table in enumerate(tables)
        )

    def expected_transfer(self, agent: int) -> Float[np.ndarray, "..."]:
        """Compute what an agent pays on average given omega: (E_1, ..., E_n, m), by reports."""
        agent = member("expected_transfer(agent=...)", agent, self.env.agents)
        table = np.zeros((*self.env.shape, self.env.states.size))
        for index in np.unique(self.allocation):
            here = self.allocation == index
            table[here] = self.transfer[agent][here] @ self.law[agent][index].T
        return table

    def audit(
        self,
        theta_prior: npt.ArrayLike | None = None,
        structure_prior: Sequence[npt.ArrayLike] | None = None,
    ) -> StaticAudit:
        """Check incentives, participation and no subsidy at every type profile, exactly.

        See `StaticAudit`. Definition 4 holds iff no gain exceeds the tolerance; the largest gain
        is the least epsilon of Definition 6.

        **Arguments**

        - `theta_prior`: (n, K), the law of each agent's value, independent of all else (section
          2.1); only the ex-ante rows use it. None: uniform.
        - `structure_prior`: n laws (Q_i,) of the signal structures, likewise. None: uniform.
          Private priors (Definition 7), where there are several, weigh the same.

        **Raises:** `InvalidArgument`, `NotFinite`, `InvalidProbability`.
        """
        transfers = tuple(self.expected_transfer(i) for i in range(self.env.agents))
        return run_static_audit(
            self.env, self.allocation, transfers, self.name, theta_prior, structure_prior
        )


@checked(env=ENVIRONMENT, name=optional(LABEL))
def data_driven_vcg(
    env: StaticEnvironment,
    data: AbstractData | Sequence[AbstractData] | None = None,
    groves: AbstractGroves | str | Sequence[npt.ArrayLike] = _NOTHING,
    name: str | None = None,
) -> DirectMechanism:
    """Build a data-driven VCG mechanism.

    p_i = phi_i(xi_-i, data) - sum_{j != i} credited payoff of j at x*(xi), (3); the pivot has
    phi_i = sum_{j != i} credited payoff of j at x*(xi_-i), (4); p = -t, phi = -h of the paper.
    With an estimator the credited payoff is u_j(., omega_hat, theta_j); with `BayesianData`,
    E[u_j | y] (Definition 11); with one estimator per agent, (14).

    Exactly incentive compatible with ideal data (Proposition 1), and with an unbiased estimator
    where payoffs are affine in the state (Theorem 1), provided that the expectation of phi_i does
    not depend on the allocation; with private priors (Definition 7) it need not be.

    **Arguments**

    - `data`: `IdealData()` (default), an `Estimator`, `BayesianData`, or n of them, one per agent.
    - `groves`: a term of `dynmech.groves`, charged whatever the data say; W^{-i} is the most that
      the others get at everybody's information, withdrawn and displayable alike. Or "pivot"; or n
      arrays, the i-th of shape (E_1, ..., 1, ..., E_n, R_i): phi_i by the others' types and the
      outcome of i's data; axis i has length 1.

    **Returns**

    A `DirectMechanism`.

    **Raises**

    `InvalidArgument`.

    ```python
    >>> from dynmech import TasteGrid
    >>> from dynmech.static import Estimator
    >>> auction = StaticEnvironment(
    ...     lambda i, x, omega, theta: theta * omega[0] * x[i],
    ...     allocations=[[1.0, 0.0], [0.0, 1.0]],
    ...     states=TasteGrid([[0.1], [0.5]], [0.5, 0.5]),
    ...     theta=[[1.0, 3.0], [2.0, 4.0]],
    ... )
    >>> clicks = Estimator.frequency(auction.states, 10)
    >>> audit = data_driven_vcg(auction, clicks, groves="pivot").audit()
    >>> audit.epsilon <= audit.tolerance, float(audit.participation.min()) >= 0
    (True, True)

    ```
    """
    n = env.agents
    if data is None:
        data = IdealData()
    each = [data] * n if isinstance(data, AbstractData) else data
    fits = isinstance(each, list | tuple) and all(isinstance(one, AbstractData) for one in each)
    if not fits or len(each) != n:
        must = f"be data, as `IdealData()` or an `Estimator`, or one for each of {n} agents"
        raise InvalidArgument(describe("data_driven_vcg(data=...)", must, shown(data)))
    call = "data_driven_vcg(groves=...)"
    must = "be a Groves term, 'pivot' or a table for each agent"
    if isinstance(groves, str) and groves != "pivot":
        raise InvalidArgument(describe(call, must, shown(groves)))
    fixed = isinstance(groves, AbstractGroves)
    tables = [] if fixed or isinstance(groves, str) else arrays(call, groves)
    allocation = env.efficient_allocation()
    transfers = []
    for i in range(n):
        worths = [each[i].credit(env, j) for j in range(n) if j != i]
        total = -sum((_at(worth, allocation, env.shape) for worth in worths), np.zeros(1))
        if not fixed and not isinstance(groves, str):
            own, size = _groves_table(env, tables, i), each[i].law(env).shape[-1]
            wanted = (*(1 if j == i else e for j, e in enumerate(env.shape)), size)
            if any(a not in (1, b) for a, b in zip(own.shape, wanted, strict=True)):
                call = f"data_driven_vcg(groves[{i}]=...)"
                raise InvalidArgument(describe(call, f"broadcast to {wanted}", own.shape))
            total = total + own
        elif not fixed:
            without = env.efficient_allocation(without=i)
            shape = without.shape
            total = total + sum((_at(worth, without, shape) for worth in worths), np.zeros(1))
        size = each[i].law(env).shape[-1]
        transfers.append(np.broadcast_to(total, (*env.shape, size)))
    if name is None:
        kinds = sorted({type(one).__name__ for one in each})
        label = groves if isinstance(groves, str) else type(groves).__name__ if fixed else "given"
        name = f"data-driven VCG ({', '.join(kinds)}, {label})"
    found = DirectMechanism(env, allocation, transfers, [one.law(env) for one in each], name)
    return charge(found, groves, "data_driven_vcg") if fixed else found


def charge(mechanism: DirectMechanism, groves: AbstractGroves, verb: str) -> DirectMechanism:
    """Add a Groves term to what is paid.

    **Raises:** `InvalidArgument` where it reads the own report, or more than own alternatives.
    """
    require_own(f"{verb}(groves=...)", groves)
    if not groves.reads_own:
        return mechanism
    totals = [_total(mechanism, groves, i, verb) for i in range(mechanism.env.agents)]
    paid = [x + total[..., None] for x, total in zip(mechanism.transfer, totals, strict=True)]
    return DirectMechanism(mechanism.env, mechanism.allocation, paid, mechanism.law, mechanism.name)


@checked(env=ENVIRONMENT, pivot=flag)
def realised_transfers(
    env: StaticEnvironment,
    profile: Sequence[int],
    estimate: npt.ArrayLike,
    pivot: bool = True,
) -> Float[np.ndarray, "... n"]:
    """Settle one profile of reports at one realised estimate, (3) with (4) or phi = 0.

    **Arguments:** `profile`: n indices into `env.types`. `estimate`: (k,), any point, or (L, k),
    several.

    **Returns:** (n,), money paid by each agent; or (L, n).

    **Raises:** `InvalidArgument`, `OutsideSupport`, `NotFinite`.
    """
    points = as_doubles("realised_transfers(estimate=...)", estimate)
    if points.ndim not in (1, 2) or points.shape[-1] != env.states.dimension:
        must = f"have shape ({env.states.dimension},) or (L, {env.states.dimension})"
        raise InvalidArgument(describe("realised_transfers(estimate=...)", must, points.shape))
    require_finite("realised_transfers(estimate=...)", points)
    near, n = np.atleast_2d(points), env.agents
    cell = env.cell("realised_transfers(profile=...)", profile)
    worth = [_whole(env.payoff_by_type(j, near), env.shape)[cell] for j in range(n)]
    chosen = int(env.efficient_allocation()[cell])
    paid = np.zeros((len(near), n))
    for i in range(n):
        others = sum((worth[j] for j in range(n) if j != i), np.zeros(1))
        paid[:, i] = -others[chosen]
        if pivot:
            rest = tuple(0 if j == i else e for j, e in enumerate(cell))
            paid[:, i] += others[int(env.efficient_allocation(without=i)[rest])]
    return paid.reshape(*points.shape[:-1], n)


def _total(mechanism: DirectMechanism, groves: AbstractGroves, agent: int, verb: str) -> np.ndarray:
    """What a term charges an agent at each profile of the others: (E_1, ..., 1, ..., E_n)."""
    env, allocation = mechanism.env, mechanism.allocation[..., None]
    belief, possible = env.posterior(agent), env.possible()
    worth = np.broadcast_to(env.expected_payoff(agent), (*env.shape, len(env.allocations)))
    own = np.take_along_axis(worth, allocation, axis=-1)[..., 0]
    rest = [env.payoff_by_type(j) for j in range(env.agents) if j != agent]
    others = sum((np.matmul(x, belief[..., None])[..., 0] for x in rest), np.zeros(1)).max(axis=-1)
    left = -(belief * mechanism.expected_transfer(agent)).sum(axis=-1)

    def lines(table: np.ndarray) -> np.ndarray:
        known = np.where(possible, np.broadcast_to(table, env.shape), np.nan)
        return np.moveaxis(known, agent, -1).reshape(-1, 1, env.shape[agent])

    wide, root = [lines(table)[:, :, None] for table in (own + left, left)], lines(own)
    places = np.where(np.isnan(root), -1, np.arange(root.size).reshape(root.shape))
    tables = OwnTables(
        *wide,
        marginal=lines(others),
        displayable=lines(others),
        root=belief.reshape(-1, belief.shape[-1]),
        own_root=places,
        own_pair=places[:, :, None],
        signal=np.zeros((len(root), 1), int),
    )
    total = check_total(groves, tables, verb).reshape(np.delete(env.shape, agent))
    return np.nan_to_num(np.expand_dims(total, agent))


def _whole(table: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(table, (*shape, *table.shape[-2:]))


def _at(credit: np.ndarray, allocation: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Pick the credited payoff at the allocation of each profile: (*shape, R)."""
    found = np.take_along_axis(_whole(credit, shape), allocation[..., None, None], axis=-2)
    return found[..., 0, :]


def _groves_table(env: StaticEnvironment, groves: list[np.ndarray], agent: int):
    """Return phi_i, or complain that it depends on the agent's own report."""
    call = f"data_driven_vcg(groves[{agent}]=...)"
    if len(groves) != env.agents:
        must, got = f"hold one table for each of {env.agents} agents", len(groves)
        raise InvalidArgument(describe("data_driven_vcg(groves=...)", must, got))
    table = groves[agent]
    if table.ndim != env.agents + 1 or table.shape[agent] != 1:
        must = f"have {env.agents + 1} axes, of length 1 along axis {agent}, the agent's own"
        do = "phi_i may depend on the others' reports and the data only"
        raise InvalidArgument(describe(call, must, table.shape, do))
    require_finite(call, table)
    return table


MECHANISM = instance(DirectMechanism, "a `DirectMechanism`, as click_pivot(auction)")
