"""Joint prediction with private biases, in closed form (paper D, Examples 1, 3 and 5).

u_i(x, omega, theta_i) = -(x - theta_i - omega)^2 with x, theta_i, omega on the line,
omega ~ N(0, tau^2) and signals s = omega + e, e ~ N(0, C). With q = 1/tau^2 + 1' C^-1 1 the
posterior is N(1' C^-1 s / q, 1/q), and x* = mean theta + E[omega | s].

What the pivot charges in expectation is (n-1) [(mean theta - mean theta_-i)^2 - (E[omega|s] -
E[omega|s_-i])^2]: the formula printed in Example 3 is wrong (its footnote 9 and its n = 2 case
are right, per other agent).
"""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Float

from dynmech._checks import checked, finite, member, number, whole
from dynmech._checks import key as one_key
from dynmech._types import Numbers, as_floats, precision
from dynmech.bounded import Bounded
from dynmech.errors import InvalidArgument, describe, require_finite


class JointPrediction(eqx.Module):
    """Describe the Gaussian environment; everything is a closed form.

    **Arguments**

    - `theta`: (n,), the bias each agent would bring in, units of the state.
    - `noise`: (n,), noise variances of independent signals, or (n, n), their covariance.
    - `prior_variance`: tau^2.

    **Raises**

    `InvalidArgument` (shape; variances or covariance not positive definite), `NotFinite`.

    ```python
    >>> game = JointPrediction(theta=[0.0, 1.0], noise=[1.0, 1.0])
    >>> round(float(game.allocation([0.3, 0.6])), 12)
    0.8

    ```
    """

    theta: Float[Numbers, " n"]
    noise: Float[Numbers, "n n"]
    prior_variance: Float[Numbers, ""]

    def __init__(
        self,
        theta: npt.ArrayLike | Array,
        noise: npt.ArrayLike | Array,
        prior_variance: npt.ArrayLike | Array = 1.0,
    ):
        call = "JointPrediction({}=...)".format
        self.theta, spread = as_floats(theta, call("theta")), as_floats(noise, call("noise"))
        self.prior_variance = as_floats(prior_variance, call("prior_variance"))
        n = self.theta.size
        if self.theta.ndim != 1 or n < 2:
            must, got = "have shape (n,) with n >= 2", self.theta.shape
            raise InvalidArgument(describe("JointPrediction(theta=...)", must, got))
        if spread.shape not in ((n,), (n, n)):
            must = f"have shape ({n},) or ({n}, {n})"
            raise InvalidArgument(describe("JointPrediction(noise=...)", must, spread.shape))
        if self.prior_variance.shape != ():
            must, got = "be a number", f"shape {self.prior_variance.shape}"
            raise InvalidArgument(describe("JointPrediction(prior_variance=...)", must, got))
        if isinstance(spread, np.ndarray):
            _require_covariance(spread)
        for name, array in (("theta", self.theta), ("prior_variance", self.prior_variance)):
            if isinstance(array, np.ndarray):
                require_finite(f"JointPrediction({name}=...)", array)
        if isinstance(self.prior_variance, np.ndarray) and self.prior_variance <= 0:
            must = "be positive"
            call = "JointPrediction(prior_variance=...)"
            raise InvalidArgument(describe(call, must, float(self.prior_variance)))
        with precision(spread):
            self.noise = spread if spread.ndim == 2 else jnp.diag(jnp.asarray(spread))

    @property
    def agents(self) -> int:
        """Return n."""
        return self.theta.shape[0]

    def posterior_precision(self, without: int | None = None) -> Float[Array, ""]:
        """Return 1/tau^2 + 1' C^-1 1, with C without the row and column of `without`."""
        with precision(self.theta):
            return 1 / jnp.asarray(self.prior_variance) + self._weights(without).sum()

    def posterior_mean(
        self, signals: npt.ArrayLike | Mapping[str, int], without: int | None = None
    ) -> Float[Array, "..."]:
        """Return E[omega | s], or E[omega | s_-i]; signals (..., n) give (...)."""
        with precision(self.theta):
            return self._known(signals) @ self._weights(without) / self.posterior_precision(without)

    def allocation(
        self, signals: npt.ArrayLike | Mapping[str, int], without: int | None = None
    ) -> Float[Array, "..."]:
        """Return x* = mean theta + E[omega | s], Example 1; without agent i, x*(xi_-i)."""
        with precision(self.theta):
            return self._bias(without) + self.posterior_mean(signals, without)

    def pivot_transfers(
        self, signals: npt.ArrayLike | Mapping[str, int], estimate: npt.ArrayLike
    ) -> Float[Array, "... n"]:
        """Settle the data-driven pivot at an estimate: (3) and (4), paid by each agent.

        **Arguments:** `signals`: (..., n), as reported. `estimate`: (...), of omega.
        """
        with precision(self.theta):
            near = finite("JointPrediction.pivot_transfers(estimate=...)", estimate)
            near, theta = jnp.asarray(near)[..., None], jnp.asarray(self.theta)
            miss = (self.allocation(signals)[..., None] - theta - near) ** 2
            paid = []
            for i in range(self.agents):
                alone = (self.allocation(signals, without=i)[..., None] - theta - near) ** 2
                paid.append(jnp.delete(miss - alone, i, axis=-1).sum(axis=-1))
            return jnp.stack(paid, axis=-1)

    def expected_pivot_transfers(
        self, signals: npt.ArrayLike | Mapping[str, int]
    ) -> Float[Array, "... n"]:
        """Return (n-1) [(mean theta - mean theta_-i)^2 - (E[omega|s] - E[omega|s_-i])^2].

        The expectation of `pivot_transfers` given the signals, for an unbiased estimate.
        """
        with precision(self.theta):
            mean = self.posterior_mean(signals)
            news = [mean - self.posterior_mean(signals, without=i) for i in range(self.agents)]
            return (self.agents - 1) * (self._steering() - jnp.stack(news, axis=-1) ** 2)

    def ex_ante_pivot_transfers(self) -> Float[Array, " n"]:
        """Return (n-1) [(mean theta - mean theta_-i)^2 - Var(omega | s_-i) + Var(omega | s)].

        With equal theta and independent noise the bracket is minus the ratio of footnote 9.
        """
        with precision(self.theta):
            alone = jnp.stack([1 / self.posterior_precision(i) for i in range(self.agents)])
            return (self.agents - 1) * (self._steering() - alone + 1 / self.posterior_precision())

    def loss_from_lying(
        self, signals: npt.ArrayLike | Mapping[str, int], allocation: float
    ) -> Float[Array, "..."]:
        """Return n (x - x*)^2: what an agent loses by moving the decision to x = `allocation`.

        Under any data-driven VCG with an unbiased estimate of a law that x does not change.
        """
        with precision(self.theta):
            moved = finite("JointPrediction.loss_from_lying(allocation=...)", allocation)
            return self.agents * (jnp.asarray(moved) - self.allocation(signals)) ** 2

    def bias_epsilon(self, bias: float) -> Float[Array, ""]:
        """Return epsilon of Definition 6 for an estimator of bias E[omega_hat | omega] - omega = b.

        (n-1)^2 b^2 / n: an agent steers to x* + (n-1) b / n. Zero without bias: the payoff is
        affine in omega up to a term that x does not enter.
        """
        with precision(self.theta):
            n = self.agents
            wrong = finite("JointPrediction.bias_epsilon(bias=...)", bias)
            return (n - 1) ** 2 * jnp.asarray(wrong) ** 2 / n

    def message_lie(
        self, agent: int, signals: npt.ArrayLike | Mapping[str, int]
    ) -> tuple[Array, Array, Array]:
        """Find the best lie under generalised VCG on messages, p_i = -E[sum_{j != i} u_j | s'].

        She reports theta_i' = mean theta_-i, so that the bias of the decision costs the others
        least, and the s_i' that moves the decision to her own ideal point theta_i + E[omega | s].

        **Returns:** (theta_i', s_i', gain): gain (n-1)/n (theta_i - mean theta_-i)^2, which proves
        Claim 1 for these transfers.

        **Raises:** `OutsideSupport`.
        """
        agent = member("message_lie(agent=...)", agent, self.agents)
        with precision(self.theta):
            own, rest = jnp.asarray(self.theta)[agent], self._bias(agent)
            weight = self._weights(None)[agent] / self.posterior_precision()
            told = self._known(signals)[..., agent] + (own - rest) / weight
            return rest, told, (self.agents - 1) / self.agents * (own - rest) ** 2

    @checked(key=one_key, draws=whole(2), deviation=number(least=0))
    def simulate(self, key: jax.Array, draws: int, deviation: float = 0.0) -> Bounded:
        """Average the realised pivot transfers over draws of omega, signals and the estimate.

        **Arguments:** `key`: consumed. `draws`: at least 2. `deviation`: of an estimate that is
        omega plus normal noise; 0: omega itself.

        **Returns:** means (n,) with standard errors, money; normal draws have no sure bounds.
        """
        state_key, noise_key, estimate_key = jax.random.split(key, 3)
        with precision(self.theta):
            kind = jnp.asarray(self.theta).dtype
            scale = jnp.sqrt(jnp.asarray(self.prior_variance))
            omega = scale * jax.random.normal(state_key, (draws,), kind)
            shocks = jax.random.normal(noise_key, (draws, self.agents), kind)
            signals = omega[:, None] + shocks @ jnp.linalg.cholesky(jnp.asarray(self.noise)).T
            estimate = omega + deviation * jax.random.normal(estimate_key, (draws,), kind)
            paid = self.pivot_transfers(signals, estimate)
            error = paid.std(axis=0, ddof=1) / jnp.sqrt(draws)
            return Bounded(paid.mean(axis=0), -np.inf, np.inf, error)

    def _weights(self, without: int | None) -> Float[Array, " n"]:
        """C^-1 1 of the agents who report, zero for the one left out."""
        without = self._left_out(without)
        kept = jnp.array([j for j in range(self.agents) if j != without])
        block = jnp.asarray(self.noise)[kept[:, None], kept]
        return jnp.zeros(self.agents).at[kept].set(jnp.linalg.solve(block, jnp.ones(len(kept))))

    def _bias(self, without: int | None) -> Float[Array, ""]:
        theta, without = jnp.asarray(self.theta), self._left_out(without)
        return (theta if without is None else jnp.delete(theta, without)).mean()

    def _left_out(self, without: int | None) -> int | None:
        call = "JointPrediction(without=...)"
        return None if without is None else member(call, without, self.agents)

    def _steering(self) -> Float[Array, " n"]:
        """(mean theta - mean theta_-i)^2."""
        rest = jnp.stack([self._bias(i) for i in range(self.agents)])
        return (self._bias(None) - rest) ** 2

    def _known(self, signals: npt.ArrayLike | Mapping[str, int]) -> Float[Array, "... n"]:
        seen = jnp.asarray(finite("JointPrediction(signals=...)", signals))
        if seen.ndim == 0 or seen.shape[-1] != self.agents:
            must = f"have a last axis of length {self.agents}"
            raise InvalidArgument(describe("JointPrediction(signals=...)", must, seen.shape))
        return seen


def _require_covariance(noise: np.ndarray) -> None:
    call = "JointPrediction(noise=...)"
    require_finite(call, noise)
    if noise.ndim == 1:
        if (noise <= 0).any():
            do = "drop the agent without noise, or give her a small variance"
            raise InvalidArgument(describe(call, "hold positive variances", noise.min(), do))
        return
    low = np.linalg.eigvalsh((noise + noise.T) / 2)[0]
    if not np.allclose(noise, noise.T, rtol=1e-9, atol=0) or low <= 1e-12 * np.abs(noise).max():
        must = "be a symmetric, positive definite covariance"
        do = "drop signals that copy others, or add noise of their own"
        raise InvalidArgument(describe(call, must, f"a smallest eigenvalue of {low:.3g}", do))
