"""What a platform that is told the taste could get from a user who recalls what she was shown.

Two bounds that need no list of memories. With perfect recall and a choice of the best product
known, only that product matters once omega is known. For any recall, the platform may be given
every product that it likes in the user's memory at once: loose where showing products takes long.
"""

import abc
from typing import TYPE_CHECKING, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from dynmech._types import Record
from dynmech.market.choices import AbstractChoice, AbstractQuery
from dynmech.market.shown import asks


class ToldTaste(Record):
    """What a rule is asked to bound: C maximisations of a platform that is told omega, money.

    - `utilities` (n, m): what behaviour follows from. `shown` (A, K): the controls, n for an empty
      place. `costs` (A, m): what a query costs after each. `rounds`: T.
    - `worth` (C, n, m): what a purchase yields. `allowed` (C, A): controls that may be used.
    """

    utilities: Float[np.ndarray, "n m"]
    shown: Int[np.ndarray, "A K"]
    costs: Float[np.ndarray, "A m"]
    rounds: int
    worth: Float[np.ndarray, "C n m"]
    allowed: Bool[np.ndarray, "C A"]


class AbstractToldBound(Record):
    """Upper bound on one of the maximisations.

    `exact`: whether no plan that is told omega gets less. Consistent: one exact round with the
    bound of the round after inside never exceeds the bound.
    """

    if TYPE_CHECKING:
        exact: ClassVar[bool]
    else:
        exact: eqx.AbstractClassVar[bool]

    @abc.abstractmethod
    def value(self, period: int, memories: Int[np.ndarray, "U d"]) -> Float[np.ndarray, "U m"]:
        """U_t(memory, omega) before round `period`, from 0; zero at `period` = T."""


class BestMatch(AbstractToldBound):
    """The best product seen is all that matters.

    `rank` (n, m): of each product by utility, ties to the lowest index. `table` (T+1, n+1, m):
    the value when the best product seen has that rank, n for none.
    """

    exact: ClassVar[bool] = True
    rank: np.ndarray
    table: Float[np.ndarray, "T1 n1 m"]

    def value(self, period: int, memories: Int[np.ndarray, "U d"]):
        n = len(self.rank)
        seen = (np.asarray(memories)[:, :, None] == np.arange(n)).any(axis=1)
        best = np.where(seen[:, :, None], self.rank, self.rank.dtype.type(n)).min(axis=1)
        return np.take_along_axis(self.table[period], best.astype(np.int64), axis=0)


class FreeRecall(AbstractToldBound):
    """The best set of products comes to mind at once. `table` (T+1, m)."""

    exact: ClassVar[bool] = False
    table: Float[np.ndarray, "T1 m"]

    def value(self, period: int, memories: Int[np.ndarray, "U d"]):
        return np.broadcast_to(self.table[period], (len(memories), self.table.shape[1]))


def queries(query: AbstractQuery, told: ToldTaste) -> Float[np.ndarray, "A n1 m"]:
    """Chance of asking again after each control if this product, or none, is the best known."""
    n = len(told.utilities)
    one = np.concatenate([np.eye(n, dtype=bool), np.zeros((1, n), bool)])
    utilities = jnp.asarray(told.utilities)
    each = jax.vmap(lambda shown, kept: asks(query, shown, utilities, kept), (None, 0))
    return np.asarray(jax.vmap(each, (0, None))(jnp.asarray(told.shown), jnp.asarray(one)))


def best_matches(told: ToldTaste, chance: Float[np.ndarray, "A n1 m"]) -> list[BestMatch]:
    """Bounds for perfect recall and a choice of the best product if its utility is not negative.

    **Arguments:** `chance`: that of `queries`.
    """
    n, points = told.utilities.shape
    order = np.argsort(-told.utilities, axis=0, kind="stable")
    rank = np.argsort(order, axis=0, kind="stable").astype(np.uint16)
    place = np.concatenate([rank.astype(int), np.full((1, points), n)])
    top = place[told.shown].min(axis=1)  # rank of the best product of each display
    best_of = np.take_along_axis(np.argsort(place, axis=0), top, axis=0)
    found = []
    for worth, allowed in zip(told.worth, told.allowed, strict=True):
        bought = np.where(told.utilities >= 0, worth, 0.0)
        bought = np.concatenate([bought, np.zeros((1, points))])
        value, tables = np.zeros((n + 1, points)), []
        for _ in range(told.rounds + 1):
            tables.append(np.zeros((n + 1, points)))
            np.put_along_axis(tables[-1], place, value, axis=0)
            best = np.full((n + 1, points), -np.inf)
            for control in np.flatnonzero(allowed):
                asked = chance[control]
                stay = (1 - asked) * bought + asked * (value - told.costs[control])
                fresh = np.take_along_axis(stay, best_of[control][None], axis=0)
                np.maximum(best, np.where(place <= top[control], stay, fresh), out=best)
            value = best
        found.append(BestMatch(rank, np.stack(tables[::-1])))
    return found


def free_recalls(
    choice: AbstractChoice, told: ToldTaste, chance: Float[np.ndarray, "A n1 m"]
) -> list[FreeRecall]:
    """Bounds for any recall: whatever is allowed comes to mind from the first round on.

    **Arguments:** `choice`: whose `most` bounds one choice; `chance`: that of `queries`.
    """
    lowest, n = chance.min(axis=(0, 1)), len(told.utilities)
    found = []
    for worth, allowed in zip(told.worth, told.allowed, strict=True):
        held = (told.shown[allowed][:, :, None] == np.arange(n)).any(axis=(0, 1))
        most = choice.most(told.utilities, worth, held)
        assert most is not None
        most = np.maximum(most, 0.0)
        tables = [np.zeros_like(most)]
        for _ in range(told.rounds):
            tables.append((1 - lowest) * most + lowest * tables[-1])
        found.append(FreeRecall(np.stack(tables[::-1])))
    return found
