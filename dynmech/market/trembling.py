"""A user who now and then does anything that she can do, so that no log of hers is impossible."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from dynmech._checks import check_fields, instance
from dynmech._types import Index, Numbers
from dynmech.market.choices import Memory, levels
from dynmech.market.rules import AbstractActionRule
from dynmech.market.shown import acts, stepped

_BITS = 30  # products that one integer of the memory holds


class Trembling(AbstractActionRule):
    """With a small chance any action that is open to her: buy what she has seen, leave, ask again.

        y~(h, r, omega) = (1 - chance) y(h, r, omega) + chance * uniform over those actions

    Beliefs after what the rule thinks impossible are then what they were before.

    **Arguments:** `rule`: how she behaves otherwise; `chance`: in [0, 1].

    ```python
    >>> import dynmech as dm, numpy as np
    >>> rule = dm.Trembling(dm.LastShownOnly(dm.Threshold(), query=0.5), 0.1)
    >>> memory = rule.start(2, 3)
    >>> for shown in (0, 1):
    ...     memory = rule.step(memory, np.array([shown]), 2)
    >>> law = rule.probabilities(memory, np.array([1]), np.array([[1.0], [-1.0]]))
    >>> np.asarray(law, float).round(6)[:, 0].tolist()
    [0.025, 0.025, 0.475, 0.475]

    ```
    """

    rule: AbstractActionRule
    chance: Float[Numbers, ""] = eqx.field(
        converter=lambda x: levels("Trembling(chance=...)", x, ())
    )

    def __check_init__(self):
        check_fields(self, rule=instance(AbstractActionRule, "an AbstractActionRule"))

    def check(self, products: int, points: int, horizon: int | float):
        self.rule.check(products, points, horizon)

    def restrict(self, keep: Int[np.ndarray, " K"]):
        return Trembling(self.rule.restrict(keep), self.chance)

    def shown_before(self, products: int):
        return self.rule.shown_before(products)

    def start(self, products: int, horizon: int | float):
        return self.begin(products, horizon, 1)

    def begin(self, products: int, horizon: int | float, size: int):
        seen = np.pad(self.rule.shown_before(products), (0, -products % _BITS))
        words = seen.reshape(-1, _BITS) @ (1 << np.arange(_BITS))
        return np.concatenate([self.rule.begin(products, horizon, size), words])

    def step(self, memory: Memory, shown: Index, products: int):
        kept, words = self._parted(memory, products)
        held = (jnp.asarray(shown)[:, None] == jnp.arange(products)).any(axis=0)
        held = jnp.pad(held, (0, -products % _BITS)).reshape(-1, _BITS)
        new = (held * (1 << jnp.arange(_BITS))).sum(axis=1).astype(words.dtype)
        own = jnp.asarray(stepped(self.rule, kept, shown, products))
        return jnp.concatenate([own.astype(words.dtype), words | new])

    def probabilities(self, memory: Memory, shown: Index, utilities: Float[Numbers, "n m"]):
        n = utilities.shape[0]
        kept, words = self._parted(memory, n)
        seen = (words[:, None] >> jnp.arange(_BITS)) & 1
        open_ = jnp.append(seen.reshape(-1)[:n], jnp.ones(2, words.dtype))
        law = acts(self.rule, kept, shown, utilities)
        return (1 - self.chance) * law + self.chance * (open_ / open_.sum())[:, None]

    def _parted(
        self, memory: Int[Numbers, " d"], products: int
    ) -> tuple[Int[Numbers, " c"], Int[Numbers, " w"]]:
        """The rule's own memory, and which products were seen, 30 to an integer."""
        memory, words = jnp.asarray(memory), -(-products // _BITS)
        return memory[:-words], memory[-words:]
