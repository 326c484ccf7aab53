"""The Gaussian shopping assistant: environment and beliefs (paper D, section 5.2).

The user's values omega ~ N(mu, Sigma) for n products, the outside option's is 0. Advertiser i sees
S_i = omega + noise of covariance Sigma_i, the platform C_0 = omega + noise. In each of T rounds the
platform recommends one product or none; recommending i is worth theta_i + omega_i *in that round*,
and the user's reaction C_tau = omega + noise reveals more, with a precision that depends on what
has been recommended so far. All signals are independent given omega and the recommendations.

Beliefs are Gaussian. With precisions Lambda, the posterior precision is the sum of the prior's and
the signals', and its mean the precision-weighted mean: the covariance is a function of what was
recommended, only the mean is random.

**References**

Bergemann, Bojko, Duetting, Paes Leme, Xu and Zuo, "Data-driven mechanism design: jointly eliciting
preferences and information", 2025; Athey and Segal, "An efficient dynamic mechanism", Econometrica
2013.
"""

from collections.abc import Callable, Sequence

import equinox as eqx
import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from dynmech._checks import distinct, indices, instance, member, optional, takes, whole
from dynmech._types import NONE, as_floats
from dynmech.errors import InvalidArgument, OutsideSupport, describe, require_finite, shown

Feedback = Callable[[tuple[int, ...]], npt.ArrayLike]
_SINGULAR = 1e-13


class GaussianBelief(eqx.Module):
    """A normal belief about omega: `mean` (n,), money; `covariance` (n, n), money squared."""

    mean: Float[np.ndarray, " n"]
    covariance: Float[np.ndarray, "n n"]


class AssistantProfile(eqx.Module):
    """What everybody reports or knows at the outset, xi and c_0; built by `profile`.

    `theta` (n,): value of a recommendation, money. `signals` (n, n): row i is s_i, what advertiser
    i saw about every product. `signal_noise` (n, n, n): covariance of the noise in S_i. `context`
    (n,): the platform's signal c_0.
    """

    theta: Float[np.ndarray, " n"]
    signals: Float[np.ndarray, "n n"]
    signal_noise: Float[np.ndarray, "n n n"]
    context: Float[np.ndarray, " n"]

    def __check_init__(self):
        call = "AssistantProfile({}=...)".format
        n = np.size(_numbers(call("theta"), self.theta))
        shapes = {"theta": (n,), "signals": (n, n), "signal_noise": (n, n, n), "context": (n,)}
        for name, shape in shapes.items():
            _numbers(call(name), getattr(self, name), shape)
        for noise in self.signal_noise:
            require_covariance(call("signal_noise"), noise)

    def replace(
        self,
        agent: int,
        theta: float | None = None,
        signal: npt.ArrayLike | None = None,
        noise: npt.ArrayLike | None = None,
    ) -> "AssistantProfile":
        """Return the profile with the report of one advertiser changed; None keeps a part."""
        values, signals = self.theta.copy(), self.signals.copy()
        noises = self.signal_noise.copy()
        i = member("AssistantProfile.replace(agent=...)", agent, len(values))
        for name, table, part in (
            ("theta", values, theta),
            ("signal", signals, signal),
            ("noise", noises, noise),
        ):
            if part is not None:
                call = f"AssistantProfile.replace({name}=...)"
                table[i] = _numbers(call, part, table.shape[1:])
        return AssistantProfile(values, signals, noises, self.context)


class AssistantHistory(eqx.Module):
    """A public history after the context: `recommendations`, -1 for none; `feedback` (t, n)."""

    recommendations: tuple[int, ...] = eqx.field(static=True)
    feedback: Float[np.ndarray, "t n"]

    def __check_init__(self):
        call = "AssistantHistory({}=...)".format
        past = indices(None)(call("recommendations"), self.recommendations)
        table = _numbers(call("feedback"), self.feedback)
        if table.ndim != 2 or len(table) != len(past):
            must = f"have shape ({len(past)}, n), a row for each recommendation"
            raise InvalidArgument(describe(call("feedback"), must, table.shape))


class ShoppingAssistant(eqx.Module):
    """Describe the environment.

    **Arguments**

    - `prior_mean`: mu, (n,), money. `prior_covariance`: Sigma, (n, n), positive definite.
    - `signal_noise`: (n, n, n), covariance of the noise in S_i; or (n,) variances, noise then
      being independent across products.
    - `context_noise`: (n, n) covariance of the noise in C_0, or a variance for all products.
    - `feedback`: precision (inverse noise covariance) of the reaction to a recommendation: (n+1, n)
      positive numbers, row r after recommending r (row n: none), column j about product j; or a
      function of the recommendations so far, the present one last and -1 for none, to (n,) or
      (n, n), positive definite. Precisions are positive since the estimator averages reactions.
    - `rounds`: T, at least 1. `names`: labels of the products.

    **Raises**

    `InvalidArgument` (shapes; a singular or asymmetric covariance; a precision that is not
    positive), `NotFinite`.

    ```python
    >>> shown = [[4.0, 0.1], [0.1, 4.0], [0.1, 0.1]]
    >>> env = ShoppingAssistant([0.0, 0.0], [[1.0, 0.3], [0.3, 1.0]], [2.0, 2.0], 1.0, shown, 2)
    >>> env.belief(env.profile([0.5, 0.4], np.zeros((2, 2)), [0.3, 0.3])).mean.round(3)
    array([0.108, 0.108])

    ```
    """

    prior_mean: Float[np.ndarray, " n"]
    prior_covariance: Float[np.ndarray, "n n"]
    signal_noise: Float[np.ndarray, "n n n"]
    context_noise: Float[np.ndarray, "n n"]
    feedback: Feedback = eqx.field(static=True)
    rounds: int = eqx.field(static=True)
    names: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        prior_mean: npt.ArrayLike,
        prior_covariance: npt.ArrayLike,
        signal_noise: npt.ArrayLike,
        context_noise: npt.ArrayLike,
        feedback: npt.ArrayLike | Feedback,
        rounds: int,
        names: Sequence[str] | None = None,
    ):
        call = "ShoppingAssistant({}=...)".format
        self.prior_mean = _numbers(call("prior_mean"), prior_mean)
        n = self.prior_mean.size
        if self.prior_mean.ndim != 1 or n < 1:
            must, got = "have shape (n,) with n >= 1", self.prior_mean.shape
            raise InvalidArgument(describe(call("prior_mean"), must, got))
        self.prior_covariance = _numbers(call("prior_covariance"), prior_covariance, (n, n))
        require_covariance(call("prior_covariance"), self.prior_covariance)
        noise = _numbers(call("signal_noise"), signal_noise)
        if noise.shape == (n,):
            noise = noise[:, None, None] * np.eye(n)
        if noise.shape != (n, n, n):
            must = f"have shape ({n},) or ({n}, {n}, {n})"
            raise InvalidArgument(describe(call("signal_noise"), must, noise.shape))
        for i in range(n):
            require_covariance(f"ShoppingAssistant(signal_noise[{i}]=...)", noise[i])
        self.signal_noise = noise
        context = _numbers(call("context_noise"), context_noise)
        context = context * np.eye(n) if context.shape == () else context
        if context.shape != (n, n):
            must = f"be a number or have shape ({n}, {n})"
            raise InvalidArgument(describe(call("context_noise"), must, context.shape))
        require_covariance(call("context_noise"), context)
        self.context_noise = context
        self.rounds = whole(1)(call("rounds"), rounds)
        self.names = tuple(f"{j + 1}" for j in range(n))
        if names is not None:
            self.names = distinct(call("names"), names, n)
        self.feedback = _feedback(call("feedback"), feedback, n)
        for r in (*range(n), NONE):
            self.precision((r,))

    @property
    def products(self) -> int:
        """Return n, which is also the number of advertisers."""
        return self.prior_mean.size

    def precision(self, recommendations: tuple[int, ...]) -> Float[np.ndarray, "n n"]:
        """Return the precision of the reaction C_tau to the last of these recommendations.

        **Raises:** `InvalidArgument`, `NotFinite` for what the feedback function may not return.
        """
        past, n = self._past("precision(recommendations=...)", recommendations), self.products
        if not past:
            must = "hold one recommendation at least"
            raise InvalidArgument(describe("precision(recommendations=...)", must, "none"))
        call, recommendations = f"ShoppingAssistant(feedback({past})=...)", past
        table = _numbers(call, self.feedback(recommendations))
        if table.shape not in ((n,), (n, n)):
            must = f"have shape ({n},) or ({n}, {n})"
            raise InvalidArgument(describe(call, must, table.shape))
        full = np.diag(table) if table.ndim == 1 else table
        low = np.linalg.eigvalsh((full + full.T) / 2)[0]
        if low <= 0 or not np.allclose(full, full.T, rtol=1e-9, atol=0):
            must = "be a symmetric precision, positive definite"
            do = "give products that are not revealed a small positive precision"
            raise InvalidArgument(describe(call, must, f"a smallest eigenvalue of {low:.3g}", do))
        return full

    def profile(
        self,
        theta: npt.ArrayLike,
        signals: npt.ArrayLike,
        context: npt.ArrayLike,
        signal_noise: npt.ArrayLike | None = None,
    ) -> AssistantProfile:
        """Check and hold reports; `signal_noise` is the environment's unless given.

        **Raises:** `InvalidArgument` (shapes, negative theta, singular covariance), `NotFinite`.
        """
        call, n = "profile({}=...)".format, self.products
        values = _numbers(call("theta"), theta, (n,))
        if (values < 0).any():
            raise InvalidArgument(describe(call("theta"), "be nonnegative", values.min()))
        noise = self.signal_noise
        if signal_noise is not None:
            noise = _numbers(call("signal_noise"), signal_noise, (n, n, n))
            for i in range(n):
                require_covariance(f"profile(signal_noise[{i}]=...)", noise[i])
        return AssistantProfile(
            theta=values,
            signals=_numbers(call("signals"), signals, (n, n)),
            signal_noise=noise,
            context=_numbers(call("context"), context, (n,)),
        )

    def history(
        self, recommendations: Sequence[int] = (), feedback: npt.ArrayLike = ()
    ) -> AssistantHistory:
        """Check and hold what was recommended and how the user reacted, (t, n); t < T.

        **Raises:** `InvalidArgument`, `OutsideSupport`, `NotFinite`.
        """
        past, n = self._past("history(recommendations=...)", recommendations), self.products
        if len(past) >= self.rounds:
            must = f"hold fewer than {self.rounds} recommendations"
            raise InvalidArgument(describe("history(recommendations=...)", must, len(past)))
        table = as_floats(feedback, "history(feedback=...)")
        table = table if past or table.size else np.zeros((0, n))
        return AssistantHistory(past, _numbers("history(feedback=...)", table, (len(past), n)))

    def belief(
        self, profile: AssistantProfile, history: AssistantHistory | None = None
    ) -> GaussianBelief:
        """Compute the law of omega given S = s, C_0 = c_0 and the history: N(m, P).

        P^-1 = Sigma^-1 + sum of the signals' precisions; m = P times the sum of precision times
        observation.
        """
        PROFILE("belief(profile=...)", profile)
        HISTORY("belief(history=...)", history)
        for name, given in (
            ("profile", profile.signals),
            ("history", history and history.feedback),
        ):
            if given is not None and given.shape[-1] != self.products:
                must = f"be of {self.products} products"
                raise InvalidArgument(describe(f"belief({name}=...)", must, given.shape[-1]))
        weight = np.linalg.inv(self.prior_covariance)
        pull = weight @ self.prior_mean
        seen = [*zip(profile.signal_noise, profile.signals, strict=True)]
        for noise, signal in [*seen, (self.context_noise, profile.context)]:
            precision = np.linalg.inv(noise)
            weight, pull = weight + precision, pull + precision @ signal
        if history is not None:
            for t, reaction in enumerate(history.feedback):
                precision = self.precision(history.recommendations[: t + 1])
                weight, pull = weight + precision, pull + precision @ reaction
        covariance = np.linalg.inv((weight + weight.T) / 2)
        return GaussianBelief(covariance @ pull, (covariance + covariance.T) / 2)

    def _past(self, call: str, recommendations: Sequence[int]) -> tuple[int, ...]:
        past = tuple(indices(None)(call, recommendations).tolist())
        n = self.products
        if any(r not in (*range(n), NONE) for r in past):
            raise OutsideSupport(describe(call, f"be in 0..{n - 1}, or -1 for none", past))
        return past


ASSISTANT = instance(ShoppingAssistant, "a `ShoppingAssistant`")
PROFILE = instance(AssistantProfile, "reports, as env.profile(theta, signals, context)")
HISTORY = optional(instance(AssistantHistory, "a history, as env.history(...)"))


def require_covariance(call: str, table: np.ndarray) -> None:
    """Raise unless the matrix is a symmetric, positive definite covariance."""
    require_finite(call, table)
    low = np.linalg.eigvalsh((table + table.T) / 2)[0]
    alike = np.allclose(table, table.T, rtol=1e-9, atol=1e-12 * np.abs(table).max())
    if not alike or low <= _SINGULAR * np.abs(table).max():
        must = "be a symmetric, positive definite covariance"
        do = "drop products that copy others, or add noise of their own"
        raise InvalidArgument(describe(call, must, f"a smallest eigenvalue of {low:.3g}", do))


def _numbers(call: str, value: npt.ArrayLike, shape: tuple[int, ...] | None = None) -> np.ndarray:
    array = np.asarray(as_floats(value, call), np.float64)
    if shape is not None and array.shape != shape:
        raise InvalidArgument(describe(call, f"have shape {shape}", array.shape))
    require_finite(call, array)
    return array


def _feedback(call: str, feedback: npt.ArrayLike | Feedback, n: int) -> Feedback:
    if callable(feedback):
        if not takes(feedback, 1):
            must = "be a table, or a function of the recommendations so far"
            raise InvalidArgument(describe(call, must, shown(feedback)))
        return feedback
    table = _numbers(call, feedback, (n + 1, n))
    if (table <= 0).any():
        row, column = (int(x) for x in np.argwhere(table <= 0)[0])
        must = "hold positive precisions"
        do = "give products that are not revealed a small positive precision"
        got = f"{table[row, column]} at index ({row}, {column})"
        raise InvalidArgument(describe(call, must, got, do))
    return lambda recommendations: table[recommendations[-1]]  # -1, none, is the last row
