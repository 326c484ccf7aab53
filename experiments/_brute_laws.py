"""How users of random markets act: two rules of behaviour, and every rule's chances in NumPy.

The chances are written from the rules' definitions over whole histories of displays, and share no
code with the rules themselves, so that each can be held against the other.
"""

import itertools
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

import dynmech as dm

Array = np.ndarray[Any, Any]
History = tuple[tuple[int, ...], ...]
"""Displays so far, each the products shown in order."""


class Places(dm.AbstractActionRule):
    """Buy a product on the screen; a product's place says how likely it is looked at."""

    choice: dm.AbstractChoice
    query: dm.AbstractQuery
    looked: Array  # (K,)

    def start(self, products: int, horizon: int | float):
        return np.full(len(self.looked), products)

    def step(self, memory: Any, shown: Any, products: int):
        return jnp.asarray(shown)

    def probabilities(self, memory: Any, shown: Any, utilities: Any):
        n, looked = len(utilities), jnp.asarray(self.looked, utilities.dtype)
        weight = jnp.zeros(n + 1, looked.dtype).at[jnp.asarray(memory)].max(looked)[:n]
        return _acts(self.choice, self.query, shown, utilities, weight)


class Once(dm.AbstractActionRule):
    """Buy a product that is shown for the first time; leave if nothing on the screen is new."""

    choice: dm.AbstractChoice
    query: dm.AbstractQuery

    def start(self, products: int, horizon: int | float):
        return np.zeros(2 * products, int)

    def step(self, memory: Any, shown: Any, products: int):
        memory = jnp.asarray(memory)
        now = (jnp.asarray(shown)[:, None] == jnp.arange(products)).any(axis=0)
        return jnp.concatenate([memory[:products] | memory[products:], now.astype(memory.dtype)])

    def probabilities(self, memory: Any, shown: Any, utilities: Any):
        n, memory = len(utilities), jnp.asarray(memory)
        new = (memory[n:] > memory[:n]).astype(utilities.dtype)
        law = _acts(self.choice, self.query, shown, utilities, new)
        gone = (jnp.arange(n + 2) == n).astype(law.dtype)[:, None]
        return jnp.where((new > 0).any(), law, gone)


def _acts(
    choice: dm.AbstractChoice, query: dm.AbstractQuery, shown: Any, utilities: Any, weight: Any
):
    again = query.probability(shown, utilities, weight > 0)
    shares = (1 - again) * choice.shares(utilities, weight)
    leave = jnp.clip(1 - again - shares.sum(axis=0), 0.0, 1.0)
    return jnp.concatenate([shares, leave[None], again[None]])


@dataclass(frozen=True)
class Behaviour:
    """A user: what she remembers, how she chooses among it, how likely she asks again.

    `recall`: "last", "stays", "imperfect", "perfect", "places", "once"; `decay`: of imperfect
    recall; `looked` (K,): of places. `scale`: of logit choice, None for the best product.
    `level` (n+1, m): chance of a query after each product, the last row after none; `falling`:
    level, location and slope of one that falls in the best match instead, None where there is
    none. `tremble`: chance of any action.
    """

    utilities: Array
    recall: str
    decay: float
    looked: Array
    scale: float | None
    level: Array
    falling: tuple[float, float, float] | None
    tremble: float

    def rule(self) -> dm.AbstractActionRule:
        """The same user as a part of a market."""
        choice = dm.Threshold() if self.scale is None else dm.Logit(self.scale)
        query = dm.ProductQuery(self.level[:-1], self.level[-1, 0])
        if self.falling is not None:
            level, location, slope = self.falling
            query = dm.FallingQuery(level, location, slope, nothing=self.level[-1, 0])
        elif (self.level == self.level[0, 0]).all():
            query = dm.ConstantQuery(self.level[0, 0])
        rules: dict[str, Any] = {
            "last": lambda: dm.LastShownOnly(choice, query),
            "stays": lambda: dm.LastShownOnly(choice, query, stays=True),
            "imperfect": lambda: dm.ImperfectRecall(choice, query, self.decay),
            "perfect": lambda: dm.PerfectRecall(choice, query),
            "places": lambda: Places(choice, query, self.looked),
            "once": lambda: Once(choice, query),
        }
        rule = rules[self.recall]()
        return dm.Trembling(rule, self.tremble) if self.tremble else rule

    def acts(self, history: History) -> Array:
        """Chances of buying 0..n-1, leaving and asking again after these displays, (n+2, m)."""
        n, m = self.utilities.shape
        weight = self.weights(history)
        again, law = self._again(history[-1], weight), np.zeros((n + 2, m))
        law[:n] = (1 - again) * self._shares(weight)
        law[n], law[n + 1] = 1 - again - law[:n].sum(axis=0), again
        if self.recall == "once" and not weight.any():
            law[:] = 0.0
            law[n] = 1.0
        if self.tremble:
            seen = [any(j in display for display in history) for j in range(n)]
            open_ = np.array([*seen, True, True], float)[:, None]
            law = (1 - self.tremble) * law + self.tremble * open_ / open_.sum()
        return law

    def weights(self, history: History) -> Array:
        """How well each product is remembered after these displays, (n,)."""
        found = np.zeros(len(self.utilities))
        now, before = history[-1], history[:-1]
        if self.recall == "places":
            for place, product in enumerate(now):
                found[product] = self.looked[place]
        elif self.recall in ("last", "once"):
            found[list(now)] = 1.0
        elif self.recall == "stays":
            found[list(next((x for x in reversed(history) if x), ()))] = 1.0
        else:
            age, decay = 0, 1.0 if self.recall == "perfect" else self.decay
            seen: set[int] = set()
            for display in reversed(history):
                fresh = [j for j in display if j not in seen]
                found[fresh] = decay**age
                seen.update(fresh)
                age += bool(fresh)
        if self.recall == "once":
            found[[j for display in before for j in display]] = 0.0
        return found

    def alike(self, history: History) -> History:
        """What is the same for histories from which on everything is the same."""
        shown = [j for display in history for j in display]
        seen = tuple(sorted(set(shown)))
        if self.recall in ("last", "places"):
            kept: History = ()
        elif self.recall == "stays":
            kept = (next((x for x in reversed(history) if x), ()),)
        elif self.recall == "imperfect":
            parts: list[tuple[int, ...]] = []
            for display in reversed(history):
                fresh = tuple(j for j in display if all(j not in part for part in parts))
                parts += [fresh] if fresh else []
            kept = tuple(parts)
        else:
            kept = (seen,)
        return (*kept, seen) if self.tremble else kept

    def _again(self, now: tuple[int, ...], weight: Array) -> Array:
        m = self.utilities.shape[1]
        if self.falling is None:
            return self.level[list(now)].mean(axis=0) if now else self.level[-1]
        if not weight.any():
            return np.full(m, self.level[-1, 0])
        level, location, slope = self.falling
        best = self.utilities[weight > 0].max(axis=0)
        return np.minimum(level / (1 + np.exp((best - location) / slope)), 1.0)

    def _shares(self, weight: Array) -> Array:
        u = self.utilities
        if self.scale is not None:
            parts = weight[:, None] * np.exp(u / self.scale)
            return parts / (1 + parts.sum(axis=0))
        found = np.zeros(u.shape)
        for held in itertools.product([False, True], repeat=len(u)):
            chance = np.where(held, weight, 1 - weight).prod()
            known = np.where(np.array(held)[:, None], u, -1.0)
            best = known.argmax(axis=0)
            bought = known.max(axis=0) >= 0
            found[best[bought], np.flatnonzero(bought)] += chance
        return found
