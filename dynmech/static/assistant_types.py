"""What an advertiser of the shopping assistant may be, and may report."""

import equinox as eqx
import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from dynmech._checks import as_doubles, checked, instance, member, number, whole
from dynmech.errors import InvalidArgument, TooLarge, describe, require_finite
from dynmech.static.assistant import ASSISTANT, ShoppingAssistant, require_covariance

_MOST_SIGNALS = 1_000_000


class AssistantTypes(eqx.Module):
    """What one advertiser may be: all combinations of theta, structure and signal.

    `theta` (K,), money, nonnegative; `signals` (L, n), s_i; `noise` (Q, n, n), covariances.

    **Raises:** `InvalidArgument`, `NotFinite`.
    """

    theta: Float[np.ndarray, " K"]
    signals: Float[np.ndarray, "L n"]
    noise: Float[np.ndarray, "Q n n"]

    def __init__(self, theta: npt.ArrayLike, signals: npt.ArrayLike, noise: npt.ArrayLike):
        self.theta, self.signals = (
            as_doubles("AssistantTypes(theta=...)", theta),
            as_doubles("AssistantTypes(signals=...)", signals),
        )
        noises = as_doubles("AssistantTypes(noise=...)", noise)
        self.noise = noises[None] if noises.ndim == 2 else noises
        shapes = self.theta.shape, self.signals.shape, self.noise.shape
        n = shapes[1][-1] if shapes[1] else 0
        if [len(s) for s in shapes] != [1, 2, 3] or shapes[2][1:] != (n, n) or 0 in sum(shapes, ()):
            must = "have shapes (K,), (L, n) and (Q, n, n), none empty"
            raise InvalidArgument(
                describe("AssistantTypes(theta=..., signals=..., noise=...)", must, shapes)
            )
        require_finite("AssistantTypes(theta=...)", self.theta)
        require_finite("AssistantTypes(signals=...)", self.signals)
        if (self.theta < 0).any():
            raise InvalidArgument(
                describe("AssistantTypes(theta=...)", "be nonnegative", self.theta.min())
            )
        for q, table in enumerate(self.noise):
            require_covariance(f"AssistantTypes(noise[{q}]=...)", table)

    @staticmethod
    @checked(env=ASSISTANT, radius=number(least=0), points=whole(1))
    def box(
        env: ShoppingAssistant,
        agent: int,
        theta: npt.ArrayLike,
        radius: float = 1.0,
        points: int = 3,
    ) -> "AssistantTypes":
        """Build a grid of signals around the prior mean, `radius` standard deviations of S_i wide.

        `points` a product; the structure is the environment's.

        **Raises:** `InvalidArgument`, `OutsideSupport`, `TooLarge`.
        """
        agent = member("AssistantTypes.box(agent=...)", agent, env.products)
        if float(points) ** env.products > _MOST_SIGNALS:
            must, do = f"give at most {_MOST_SIGNALS:.0e} signals", "take fewer points a product"
            got = f"{points} ** {env.products}"
            raise TooLarge(describe("AssistantTypes.box(points=...)", must, got, do))
        noise = env.signal_noise[agent]
        spread = radius * np.sqrt(np.diagonal(env.prior_covariance + noise))
        line = np.linspace(-1, 1, points) if points > 1 else np.zeros(1)
        grid = line[np.indices((points,) * env.products).reshape(env.products, -1)].T
        return AssistantTypes(theta, env.prior_mean + grid * spread, noise)


TYPES = instance(AssistantTypes, "`AssistantTypes` of the advertiser")
