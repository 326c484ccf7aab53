"""Information about the state that arrives after the allocation (paper D, sections 3.2, 4 and B.4).

Data are a signal r in 0..R-1 whose law given the state and the allocation is commonly known and
independent of the agents' signals given both (Assumptions 1 and 3): a kernel (A, m, R). Data say
which payoff each agent is credited with once r is known: u_j at the estimate omega_hat_r
(Definition 5), or the posterior mean of u_j given r (Definition 11). Kernels are finite, so every
expectation below is a sum, exact up to rounding.
"""

import abc
from collections.abc import Sequence

import equinox as eqx
import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from dynmech._checks import as_doubles, checked, instance, number, several, whole
from dynmech.errors import (
    InvalidArgument,
    OutsideSupport,
    TooLarge,
    describe,
    require_finite,
    require_probabilities,
)
from dynmech.market.tastes import TasteGrid
from dynmech.static.environment import ENVIRONMENT, GRID, StaticEnvironment

_CELLS = 20_000_000
_MOST_NODES = 180  # beyond, weights of Gauss-Hermite rules underflow


class AbstractData(eqx.Module):
    """What is known about the state when transfers are settled."""

    @abc.abstractmethod
    def law(self, env: StaticEnvironment) -> Float[np.ndarray, "A m R"]:
        """Probability of each outcome r given the allocation implemented and the state."""

    @abc.abstractmethod
    def credit(self, env: StaticEnvironment, agent: int) -> Float[np.ndarray, "..."]:
        """Payoff credited to `agent` by type profile, allocation and outcome, (..., A, R)."""

    @abc.abstractmethod
    def distance(self, env: StaticEnvironment) -> Float[np.ndarray, "A m"]:
        """E d(omega_hat, omega) given allocation and state; for a posterior, E W_1 to delta."""

    @abc.abstractmethod
    def support(self, env: StaticEnvironment) -> Float[np.ndarray, "R k"]:
        """The points at which payoffs are evaluated."""


class IdealData(AbstractData):
    """The state itself is observed after the allocation (section 4.1)."""

    @checked(env=ENVIRONMENT)
    def law(self, env: StaticEnvironment):
        shape = (len(env.allocations), env.states.size, env.states.size)
        return np.broadcast_to(np.eye(env.states.size), shape).copy()

    @checked(env=ENVIRONMENT)
    def credit(self, env: StaticEnvironment, agent: int):
        return env.payoff_by_type(agent)

    @checked(env=ENVIRONMENT)
    def distance(self, env: StaticEnvironment):
        return np.zeros((len(env.allocations), env.states.size))

    @checked(env=ENVIRONMENT)
    def support(self, env: StaticEnvironment):
        return np.asarray(env.states.points, np.float64)


class Estimator(AbstractData):
    """An estimator omega_hat(omega, r, x) of the state with finitely many values (Assumption 1).

    **Arguments**

    - `points`: (R, k), the values it can take; they need not be states.
    - `kernel`: (m, R), or (A, m, R) where its law depends on the allocation: probability of each
      value given the state. Rows sum to 1.

    **Raises**

    `InvalidArgument` (shapes), `NotFinite`, `InvalidProbability`.

    ```python
    >>> coin = Estimator([[0.0], [1.0]], [[0.75, 0.25], [0.5, 0.5]])   # one click, rates 1/4, 1/2
    >>> coin.points.shape, coin.kernel.shape
    ((2, 1), (2, 2))

    ```
    """

    points: Float[np.ndarray, "R k"]
    kernel: Float[np.ndarray, "... m R"]

    def __init__(self, points: npt.ArrayLike, kernel: npt.ArrayLike):
        self.points = as_doubles("Estimator(points=...)", points)
        self.kernel = as_doubles("Estimator(kernel=...)", kernel)
        if self.points.ndim != 2 or 0 in self.points.shape:
            must = "have shape (R, k)"
            raise InvalidArgument(describe("Estimator(points=...)", must, self.points.shape))
        require_finite("Estimator(points=...)", self.points)
        if self.kernel.ndim not in (2, 3) or self.kernel.shape[-1] != len(self.points):
            must = f"have shape (m, {len(self.points)}) or (A, m, {len(self.points)})"
            do = "give one probability for each row of points"
            raise InvalidArgument(describe("Estimator(kernel=...)", must, self.kernel.shape, do))
        self.kernel = require_probabilities("Estimator(kernel=...)", self.kernel)

    @checked(env=ENVIRONMENT)
    def law(self, env: StaticEnvironment):
        points = np.asarray(env.states.points)
        if self.points.shape[1] != points.shape[1]:
            must = f"have {points.shape[1]} coordinates, as the states have"
            raise InvalidArgument(
                describe("Estimator(points=...)", must, f"{self.points.shape[1]} of them")
            )
        return _kernel("Estimator(kernel=...)", self.kernel, env)

    @checked(env=ENVIRONMENT)
    def credit(self, env: StaticEnvironment, agent: int):
        return env.payoff_by_type(agent, self.points)

    @checked(env=ENVIRONMENT)
    def distance(self, env: StaticEnvironment):
        return np.einsum("amr,rm->am", self.law(env), distances_to_states(self.points, env))

    @checked(env=ENVIRONMENT)
    def support(self, env: StaticEnvironment):
        return self.points

    @checked(env=ENVIRONMENT)
    def bias(self, env: StaticEnvironment) -> Float[np.ndarray, "A m k"]:
        """Return E[omega_hat | omega, x] - omega, zero where Theorem 1 asks it to be."""
        return self.law(env) @ self.points - np.asarray(env.states.points)

    @staticmethod
    @checked(rates=GRID, samples=whole(1))
    def frequency(rates: TasteGrid, samples: int) -> "Estimator":
        """Build the share of successes in `samples` draws of probability omega, k = 1.

        Unbiased; E|omega_hat - omega| falls as samples^(-1/2).

        **Raises:** `OutsideSupport` (a rate outside [0, 1]), `InvalidArgument`.
        """
        from scipy.special import gammaln, xlog1py, xlogy

        points = np.asarray(rates.points, np.float64)
        if points.shape[1] != 1:
            must, got = "hold states of one coordinate", points.shape
            raise InvalidArgument(describe("Estimator.frequency(rates=...)", must, got))
        if (points < 0).any() or (points > 1).any():
            got = points[(points < 0) | (points > 1)][0]
            raise OutsideSupport(describe("Estimator.frequency(rates=...)", "be in [0, 1]", got))
        hits = np.arange(samples + 1)
        choose = gammaln(samples + 1) - gammaln(hits + 1) - gammaln(samples - hits + 1)
        mass = np.exp(choose + xlogy(hits, points) + xlog1py(samples - hits, -points))
        return Estimator(hits[:, None] / samples, mass / mass.sum(axis=1, keepdims=True))

    @staticmethod
    @checked(states=GRID, deviation=number(above=0), nodes=whole(1, _MOST_NODES))
    def gaussian(states: TasteGrid, deviation: float, nodes: int = 9) -> "Estimator":
        """Build omega + deviation * Z with Z standard normal, by Gauss-Hermite points.

        Exact where payoffs are polynomials in omega of degree below 2 `nodes`; else the
        quadrature is the estimator. k = 1. `deviation`: in units of the state, positive.

        **Raises:** `InvalidArgument`.
        """
        points = np.asarray(states.points, np.float64)
        if points.shape[1] != 1 or not 0 < deviation < np.inf:
            must = "be positive and finite, with states of one coordinate"
            raise InvalidArgument(describe("Estimator.gaussian(deviation=...)", must, deviation))
        shocks, mass = np.polynomial.hermite_e.hermegauss(nodes)
        values = (points + deviation * shocks).reshape(-1, 1)
        kernel = np.kron(np.eye(len(points)), mass / mass.sum())
        return Estimator(values, kernel)

    @staticmethod
    @checked(states=GRID)
    def posterior_mean(states: TasteGrid, channel: npt.ArrayLike) -> "Estimator":
        """Build omega_hat = E[omega | y] from a further signal y (Lemma 5, Corollary 2).

        **Arguments:** `channel`: (m, Y), the law of y given the state. Outcomes without
        probability are dropped.

        **Raises:** `InvalidArgument`, `NotFinite`, `InvalidProbability`.
        """
        posterior, kernel = _bayes("Estimator.posterior_mean(channel=...)", states, channel)
        return Estimator(posterior @ np.asarray(states.points), kernel)

    @staticmethod
    def average(estimators: Sequence["Estimator"]) -> "Estimator":
        """Build the mean of estimators that are independent given the state.

        **Raises:** `InvalidArgument` (none given, or states, coordinates that differ),
        `TooLarge`.
        """
        call = "Estimator.average(estimators=...)"
        estimators = several(Estimator, "at least one estimator")(call, estimators)
        shapes = [(e.points.shape[1], e.kernel.shape[-2]) for e in estimators]
        if not shapes or len(set(shapes)) > 1:
            must = "hold at least one estimator, all of the same states"
            raise InvalidArgument(describe(call, must, f"(coordinates, states) {shapes}"))
        size = float(np.prod([float(len(e.points)) for e in estimators])) * shapes[0][1]
        if size > _CELLS:
            must, do = f"have a law of at most {_CELLS:.0e} cells", "average fewer of them"
            raise TooLarge(describe(call, must, size, do))
        points, kernel = estimators[0].points, estimators[0].kernel
        for other in estimators[1:]:
            points = (points[:, None] + other.points[None]).reshape(-1, points.shape[1])
            kernel = (kernel[..., :, None] * other.kernel[..., None, :]).reshape(
                *np.broadcast_shapes(kernel.shape[:-1], other.kernel.shape[:-1]), -1
            )
        return Estimator(points / len(estimators), kernel)

    @staticmethod
    def leave_one_out(estimators: Sequence["Estimator"]) -> tuple["Estimator", ...]:
        """Build, for each agent, the mean of the *other* agents' estimators, (14).

        **Arguments:** `estimators`: n >= 2, what each agent learns of the state after the
        allocation and reports, independent given the state.

        **Returns:** n estimators, the i-th free of agent i's report.

        **Raises:** `InvalidArgument`, `TooLarge`.
        """
        call = "Estimator.leave_one_out(estimators=...)"
        estimators = several(Estimator, "at least one estimator")(call, estimators)
        if len(estimators) < 2:
            must, got = "hold one estimator for each of at least two agents", len(estimators)
            raise InvalidArgument(describe(call, must, got))
        return tuple(
            Estimator.average([e for j, e in enumerate(estimators) if j != i])
            for i in range(len(estimators))
        )


class BayesianData(AbstractData):
    """A further signal Y whose posterior values payoffs (Definition 11).

    Credits E[u_j | y] under the prior of the states, in place of u_j at an estimate.
    **Arguments:** `states`: with the designer's prior. `channel`: (m, Y), the law of y given the
    state; outcomes without probability are dropped.

    **Raises:** `InvalidArgument`, `NotFinite`, `InvalidProbability`.
    """

    posterior: Float[np.ndarray, "Y m"]
    kernel: Float[np.ndarray, "m Y"]

    @checked(states=GRID)
    def __init__(self, states: TasteGrid, channel: npt.ArrayLike):
        self.posterior, self.kernel = _bayes("BayesianData(channel=...)", states, channel)

    @checked(env=ENVIRONMENT)
    def law(self, env: StaticEnvironment):
        return _kernel("BayesianData(channel=...)", self.kernel, env)

    @checked(env=ENVIRONMENT)
    def credit(self, env: StaticEnvironment, agent: int):
        return env.payoff_by_type(agent) @ self.posterior.T

    @checked(env=ENVIRONMENT)
    def distance(self, env: StaticEnvironment):
        to_state = self.posterior @ distances_to_states(np.asarray(env.states.points), env)
        return np.einsum("amy,ym->am", self.law(env), to_state)

    @checked(env=ENVIRONMENT)
    def support(self, env: StaticEnvironment):
        return np.asarray(env.states.points, np.float64)


def _kernel(call: str, kernel: np.ndarray, env: StaticEnvironment) -> Float[np.ndarray, "A m R"]:
    """Repeat a kernel over allocations, or complain that it is of another environment."""
    wanted = (len(env.allocations), env.states.size, kernel.shape[-1])
    if kernel.shape not in (wanted, wanted[1:]):
        must = f"have shape {wanted[1:]} or {wanted}, for these states and allocations"
        raise InvalidArgument(describe(call, must, kernel.shape))
    return np.broadcast_to(kernel, wanted)


def distances_to_states(points: np.ndarray, env: StaticEnvironment) -> Float[np.ndarray, "R m"]:
    """Euclidean distance of each point to each state."""
    states = np.asarray(env.states.points, np.float64)
    return np.linalg.norm(points[:, None] - states[None], axis=2)


def _bayes(call: str, states: TasteGrid, channel: npt.ArrayLike):
    """Return the posterior (Y, m) of each outcome and the channel, impossible outcomes dropped."""
    kernel = as_doubles(call, channel)
    if kernel.ndim != 2 or len(kernel) != states.size:
        raise InvalidArgument(describe(call, f"have shape ({states.size}, Y)", kernel.shape))
    kernel = require_probabilities(call, kernel)
    joint = kernel.T * np.asarray(states.weights, np.float64)
    seen = joint.sum(axis=1) > 0
    return joint[seen] / joint[seen].sum(axis=1, keepdims=True), kernel[:, seen]


DATA = instance(AbstractData, "data, as `IdealData()` or an `Estimator`")
ESTIMATOR = instance(Estimator, "an `Estimator`, as click_frequency(rates, impressions)")
