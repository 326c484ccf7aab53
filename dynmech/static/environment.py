"""The static environment with finite allocations (paper D, section 2).

The object is an instance (N, X, Omega, pi_0, Xi, U): agents with payoffs u_i(x, omega, theta_i)
in money, a state nobody knows, and types xi_i = (theta_i, prior_i, S_i, s_i) that hold a
preference, a prior (common unless priors are private, Definition 7), a signal structure and what
was seen. Profiles of types are cells of a table with one axis per agent, of length E_i.

Posteriors are those of the reported structures and realisations; a profile that no state can
produce has posterior zero, is reported as NaN, and is left out of every maximum.
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from dynmech._checks import (
    as_doubles,
    checked,
    distinct,
    finite,
    flag,
    function,
    indices,
    instance,
    member,
    optional,
)
from dynmech._types import Numbers, as_floats, precision
from dynmech.errors import (
    InvalidArgument,
    InvalidProbability,
    OutsideSupport,
    TooLarge,
    describe,
    require_finite,
    require_probabilities,
    shown,
)
from dynmech.market.tastes import TasteGrid
from dynmech.static.signals import SIGNALS, PrivateSignals
from solvers.ties import shares, take

_CELLS = 50_000_000
GRID = instance(TasteGrid, "a `TasteGrid` of states, as TasteGrid(points, weights)")


class Types(eqx.Module):
    """The types one agent may have, as indices: each (E,).

    `theta` into her values, `prior` into her priors, `structure` and `signal` into her signals.
    """

    theta: Int[np.ndarray, " E"]
    prior: Int[np.ndarray, " E"]
    structure: Int[np.ndarray, " E"]
    signal: Int[np.ndarray, " E"]

    @property
    def size(self) -> int:
        """Return E, the number of types."""
        return len(self.theta)


class StaticEnvironment(eqx.Module):
    """Describe payoffs, states, values and private signals.

    **Arguments**

    - `payoff`: traceable `payoff(agent, x, omega, theta)`, money, a scalar: u_i at the allocation
      x (d,), state omega (k,) and own value theta (a scalar, or (v,)). `agent` is an integer.
      With `interdependent=True`, theta is the profile of all values, (n,) or (n, v).
    - `allocations`: (A, d), one feasible allocation a row; the state of the world it describes is
      the user's affair (a winner's one-hot vector, a position, a share).
    - `states`: `TasteGrid`: points (m, k) and the common prior.
    - `theta`: (n, K) or (n, K, v): values each agent may have, private.
    - `signals`: `PrivateSignals`; None: nobody sees anything.
    - `priors`: (n, P, m), strictly positive: priors each agent may have, private (Definition 7).
      None: the common prior of `states`.
    - `names`, `allocation_names`: labels.

    **Raises**

    `InvalidArgument`, `NotFinite`, `InvalidProbability`, `TooLarge`.

    ```python
    >>> auction = StaticEnvironment(
    ...     lambda i, x, omega, theta: theta * omega[0] * x[i],
    ...     allocations=[[1.0, 0.0], [0.0, 1.0]],
    ...     states=TasteGrid([[0.1], [0.5]], [0.5, 0.5]),
    ...     theta=[[1.0, 3.0], [2.0, 4.0]],
    ... )
    >>> auction.shape, auction.efficient_allocation().tolist()
    ((2, 2), [[1, 1], [0, 1]])

    ```
    """

    payoff: Callable[..., Any] = eqx.field(static=True)
    allocations: Float[Numbers, "A d"]
    states: TasteGrid
    theta: Float[Numbers, "n K ..."]
    signals: PrivateSignals
    priors: Float[np.ndarray, "n P m"]
    types: tuple[Types, ...]
    tables: tuple[Float[Array, "..."], ...]
    interdependent: bool = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)
    allocation_names: tuple[str, ...] = eqx.field(static=True)

    @checked(
        payoff=function(4, "of agent, x, omega, theta"),
        states=GRID,
        signals=SIGNALS,
        interdependent=flag,
    )
    def __init__(
        self,
        payoff: Callable[..., Any],
        allocations: npt.ArrayLike,
        states: TasteGrid,
        theta: npt.ArrayLike | Array,
        signals: PrivateSignals | None = None,
        priors: npt.ArrayLike | None = None,
        *,
        interdependent: bool = False,
        names: Sequence[str] | None = None,
        allocation_names: Sequence[str] | None = None,
    ):
        self.payoff, self.states, self.interdependent = payoff, states, interdependent
        self.allocations = as_floats(allocations, "StaticEnvironment(allocations=...)")
        self.theta = as_floats(theta, "StaticEnvironment(theta=...)")
        if self.allocations.ndim != 2 or 0 in self.allocations.shape:
            must, got = "have shape (A, d)", self.allocations.shape
            raise InvalidArgument(describe("StaticEnvironment(allocations=...)", must, got))
        if self.theta.ndim not in (2, 3) or 0 in self.theta.shape:
            must, got = "have shape (n, K) or (n, K, v)", self.theta.shape
            raise InvalidArgument(describe("StaticEnvironment(theta=...)", must, got))
        for name, array in (("allocations", self.allocations), ("theta", self.theta)):
            if isinstance(array, np.ndarray):
                require_finite(f"StaticEnvironment({name}=...)", array)
        n, m = self.theta.shape[0], states.size
        self.signals = PrivateSignals.none(m, n) if signals is None else signals
        if self.signals.agents != n or self.signals.table.shape[0] != m:
            must = f"be over {m} states and {n} agents"
            got = f"{self.signals.table.shape[0]} states and {self.signals.agents} agents"
            raise InvalidArgument(describe("StaticEnvironment(signals=...)", must, got))
        self.priors = _priors(states, priors, n)
        self.names = _labels("names", names, n, "agent")
        self.allocation_names = _labels(
            "allocation_names", allocation_names, len(self.allocations), "allocation"
        )
        self.types = tuple(self._own_types(i) for i in range(n))
        cells = np.prod([float(size) for size in self.shape]) * max(m, len(self.allocations))
        if cells > _CELLS:
            must = f"have at most {_CELLS:.0e} type profiles times states or allocations"
            do = "use fewer values, structures, symbols or agents"
            raise TooLarge(describe("StaticEnvironment(theta=..., signals=...)", must, cells, do))
        self.tables = tuple(self._tabulate(i, self.states.points) for i in range(n))
        for table in self.tables:
            if not isinstance(table, Tracer):
                require_finite("StaticEnvironment(payoff=...)", np.asarray(table))

    @property
    def agents(self) -> int:
        """Return n, the number of agents."""
        return self.theta.shape[0]

    @property
    def shape(self) -> tuple[int, ...]:
        """Return (E_1, ..., E_n), the shape of tables over type profiles."""
        return tuple(own.size for own in self.types)

    @property
    def money_scale(self) -> float:
        """Return the largest sum over agents of |u_i|, the scale of tolerances; money."""
        tops = [np.abs(np.asarray(self.payoff_table(i))).max() for i in range(self.agents)]
        return float(max(sum(tops), np.finfo(float).tiny))

    @checked(points=optional(finite))
    def payoff_table(
        self, agent: int, points: Float[Numbers, "R k"] | None = None
    ) -> Float[Array, "..."]:
        """Tabulate u_i; traceable in theta and in what the payoff closes over.

        **Arguments:** `agent`: i. `points`: (R, k) where to evaluate it; default the m states.

        **Returns:** shape (K_1, ..., K_n, A, R), where K_j is 1 for every other agent unless
        preferences are interdependent.
        """
        i = self._agent("payoff_table(agent=...)", agent)
        if points is None:
            return self.tables[i]
        if points.ndim != 2 or points.shape[1] != self.states.dimension:
            must = f"have shape (R, {self.states.dimension}), the coordinates of the states"
            raise InvalidArgument(describe("payoff_table(points=...)", must, points.shape))
        return self._tabulate(i, points)

    def payoff_by_type(
        self, agent: int, points: Float[Numbers, "R k"] | None = None
    ) -> Float[np.ndarray, "..."]:
        """Tabulate u_i by type profile: shape (E_1, ..., E_n, A, R), E_j = 1 as K_j above."""
        table = np.asarray(self.payoff_table(agent, points), np.float64)
        n = self.agents
        index = [
            (own.theta if table.shape[j] > 1 else np.zeros(own.size if j == agent else 1, int))
            for j, own in enumerate(self.types)
        ]
        return table[np.ix_(*index)] if n > 1 else table[index[0]]

    def posterior(self, agent: int, without: int | None = None) -> Float[np.ndarray, "..."]:
        """Compute what `agent` believes given everybody's structures and realisations.

        psi(omega) proportional to pi_i(omega) L(s | omega, S).

        **Arguments:** `without`: leave out the information of this agent (her axis has length 1).

        **Returns:** shape (E_1, ..., E_n, m); zero where no state can produce the profile.
        """
        agent, without = self._agents("posterior", agent, without)
        if without == agent:
            must = "leave out another agent than the one who believes"
            raise InvalidArgument(describe("posterior(without=...)", must, without))
        belief = self.likelihood(agent, without)
        mass = belief.sum(axis=-1, keepdims=True)
        return belief / np.where(mass > 0, mass, 1)

    def likelihood(self, agent: int, without: int | None = None) -> Float[np.ndarray, "..."]:
        """Compute pi_i(omega) L(s | omega, S): the posterior of `agent` before it is normalised.

        Summed over states: the probability of the realisations s under structures S.

        **Arguments, Returns:** as `posterior`.
        """
        n, table = self.agents, self.signals.table
        agent, without = self._agents("likelihood", agent, without)
        if without is not None:
            table = table.sum(axis=1 + n + without, keepdims=True)
        zero = np.zeros(1, np.int64)
        structure, signal = [], []
        for j, own in enumerate(self.types):
            place = [-1 if axis == j else 1 for axis in range(n)]
            structure.append((zero if j == without else own.structure).reshape(place))
            signal.append((zero if j == without else own.signal).reshape(place))
        likelihood = np.moveaxis(table[(slice(None), *structure, *signal)], 0, -1)
        own = self.types[agent].prior
        shape = [1] * n + [-1]
        shape[agent] = own.size
        return likelihood * self.priors[agent][own].reshape(shape)

    def possible(self) -> Bool[np.ndarray, "..."]:
        """Say which type profiles can occur: shape (E_1, ..., E_n)."""
        return self.posterior(0).sum(axis=-1) > 0

    def expected_payoff(self, agent: int, without: int | None = None) -> Float[np.ndarray, "..."]:
        """Compute v_i(x, theta_i, s, S) for every allocation: shape (E_1, ..., E_n, A)."""
        belief = self.posterior(agent, without)
        table = self.payoff_by_type(agent)
        return np.matmul(table, belief[..., None])[..., 0]

    def efficient_allocation(self, without: int | None = None) -> Int[np.ndarray, "..."]:
        """Choose the allocation of highest expected surplus, (1), or (15) with private priors.

        Allocations whose surplus cannot be told apart, by what the terms of their own sums can
        lose in rounding, are tied; the lowest index wins, at a profile no state can produce too.

        **Arguments:** `without`: leave out this agent's payoff and information, x*(xi_-i); her
        axis then has length 1. Not defined for interdependent preferences.

        **Returns:** index of the allocation, shape (E_1, ..., E_n).
        """
        _, without = self._agents("efficient_allocation", 0, without)
        if without is not None and self.interdependent:
            must = "be None where payoffs depend on the values of all"
            raise InvalidArgument(describe("efficient_allocation(without=...)", must, without))
        counted = [j for j in range(self.agents) if j != without]
        each = [self.expected_payoff(j, without) for j in counted]
        sizes = [self._expected_size(j, without) for j in counted]
        if not counted:
            shape = [1 if j == without else size for j, size in enumerate(self.shape)]
            return np.zeros(shape, np.int64)
        surplus, amount = (np.moveaxis(sum(x, np.zeros(1)), -1, 0) for x in (each, sizes))
        kind = np.asarray(self.theta).dtype
        error = shares(self.states.size, 1, self.agents, 1, dtype=kind).now
        # The none that `take` falls back on is no allocation here: it may not be used.
        total = np.append(surplus, np.full_like(surplus[:1], -np.inf), axis=0)
        size = np.append(amount, np.zeros_like(amount[:1]), axis=0)
        taken = take(total, size, error, np.ones(surplus.shape[1:], bool))
        return np.asarray(taken.choice, np.int64)

    def _expected_size(self, agent: int, without: int | None) -> Float[np.ndarray, "..."]:
        """E|u_i| by type profile and allocation: what rounding errors are in proportion to."""
        size = np.abs(self.payoff_by_type(agent))
        return np.matmul(size, self.posterior(agent, without)[..., None])[..., 0]

    def cell(self, call: str, profile: Sequence[int]) -> tuple[int, ...]:
        """Return n indices into `types`, one an agent, or raise `OutsideSupport`."""
        given = indices(None)(call, profile).tolist()
        known = len(given) == self.agents
        if not known or not all(0 <= e < size for e, size in zip(given, self.shape, strict=True)):
            must = f"hold one index into each of {self.shape}"
            raise OutsideSupport(describe(call, must, shown(profile)))
        return tuple(given)

    def _agent(self, call: str, agent: int) -> int:
        return member(call, agent, self.agents)

    def _agents(self, verb: str, agent: int, without: int | None) -> tuple[int, int | None]:
        left = None if without is None else self._agent(f"{verb}(without=...)", without)
        return self._agent(f"{verb}(agent=...)", agent), left

    def _tabulate(self, agent: int, points: Float[Numbers, "R k"]) -> Float[Array, "..."]:
        n, values = self.theta.shape[:2]
        call = "StaticEnvironment(payoff=...)"

        def single(x: Array, omega: Array, theta: Array):
            worth = self.payoff(agent, x, omega, theta)
            array = worth if isinstance(worth, Tracer) else as_floats(worth, call)
            if array.shape != ():
                raise InvalidArgument(describe(call, "return a scalar", f"shape {array.shape}"))
            return jnp.asarray(array)

        each = jax.vmap(
            jax.vmap(jax.vmap(single, (None, 0, None)), (0, None, None)), (None, None, 0)
        )
        with precision(self.theta):
            if self.interdependent:
                index = np.indices((values,) * n).reshape(n, -1)
                own = jnp.asarray(self.theta)[np.arange(n)[:, None], index].swapaxes(0, 1)
                shape = (values,) * n
            else:
                own = jnp.asarray(self.theta)[agent]
                shape = tuple(values if j == agent else 1 for j in range(n))
            table = each(jnp.asarray(self.allocations), jnp.asarray(points), own)
            return table.reshape(*shape, *table.shape[1:])

    def _own_types(self, agent: int) -> Types:
        n, table = self.agents, self.signals.table
        others = tuple(1 + n + j for j in range(n) if j != agent)
        seen = table.sum(axis=others)
        for j in range(n - 1, -1, -1):
            if j != agent:
                seen = seen.take(0, axis=1 + j)
        mass = np.einsum("pm,mqz->pqz", self.priors[agent], seen)
        prior, structure, signal = np.nonzero(mass > 0)
        values = self.theta.shape[1]
        return Types(
            np.repeat(np.arange(values), len(prior)),
            *(np.tile(index, values) for index in (prior, structure, signal)),
        )


def _priors(states: TasteGrid, priors: npt.ArrayLike | None, n: int) -> Float[np.ndarray, "n P m"]:
    call = "StaticEnvironment(priors=...)"
    if priors is None:
        weights = np.asarray(states.weights, np.float64)
        return np.broadcast_to(weights, (n, 1, states.size)).copy()
    table = as_doubles("StaticEnvironment(priors=...)", priors)
    if table.ndim != 3 or table.shape[0] != n or table.shape[2] != states.size or not table.size:
        must = f"have shape ({n}, P, {states.size})"
        raise InvalidArgument(describe(call, must, table.shape))
    require_probabilities(call, table)
    if (table <= 0).any():
        got = f"{table.min()} at index {tuple(int(k) for k in np.argwhere(table <= 0)[0])}"
        do = "give every state some weight: priors have full support (section 4.4)"
        raise InvalidProbability(describe(call, "be strictly positive", got, do))
    return table


def _labels(name: str, given: Sequence[str] | None, count: int, word: str) -> tuple[str, ...]:
    if given is None:
        return tuple(f"{word} {i}" for i in range(count))
    return distinct(f"StaticEnvironment({name}=...)", given, count)


ENVIRONMENT = instance(StaticEnvironment, "a `StaticEnvironment`")
