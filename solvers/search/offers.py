"""What each control does after a memory, computed when a search first asks for it.

A process (`solvers.process`) is given by its rules; here the laws of all controls after one
memory are an *offer*, kept while the memory setting allows and computed again if it is needed
again. A round's distinct memories are *places*. Upper bounds need no enumeration either: told
omega, nothing that follows can yield more than

    M_v(omega) = max(0, max_j (x_vj + counted_vj reward[j, omega])),

because the chances of all outcomes together never exceed 1 (tolls, which are beside them, are never
worth more than nothing), and where a place has been met,

    U_v(place, omega) = max_a sum_s stop[a, s, omega] worth_v[j, omega]
                              + going[a, omega] U_v(place after a, omega),

with M_v in place of U_v where the next place has not been met. Both hold at every belief.
"""

from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from solvers.host import Record
from solvers.problem import Numbers
from solvers.process import AbstractProcess
from solvers.programs import as_program


class Offer(Record):
    """Laws of all controls after one memory.

    - `stop` (A, J, m): chance that the process ends in each slot's outcome; `outcome` (A, J), -1
      where a slot is empty. `going` (A, m): chance that it goes on. `after` (A, d): next memory.
    """

    stop: Float[np.ndarray, "A J m"]
    outcome: Int[np.ndarray, "A J"]
    going: Float[np.ndarray, "A m"]
    after: Int[np.ndarray, "A d"]

    @property
    def size(self) -> int:
        """Bytes."""
        return self.stop.nbytes + self.going.nbytes


@as_program
def _every_law(process: AbstractProcess, memory: Int[Numbers, " d"]):
    """Chances (A, n+1, m) after every control, and the next memories (A, d)."""

    def one(control: Array):
        after = process.step(jnp.asarray(memory), control)
        return process.ends(after, control), after

    return jax.vmap(one)(jnp.arange(process.controls))


@as_program
def _symbol_law(process: AbstractProcess, memory: Numbers, control: Numbers, period: Numbers):
    return process.symbols(jnp.asarray(memory), control, period)


class Place:
    """One memory met in one round: what is after it, its columns and its bounds."""

    def __init__(self, number: int, memory: np.ndarray, after: np.ndarray):
        self.number, self.memory = number, memory
        self.next = [row.tobytes() for row in after]
        self.after = after
        self.columns: dict[int, np.ndarray] = {}
        self.bound: dict[int, np.ndarray] = {}
        self.changed = 0
        self.checked = 0


class Offers:
    """The places met in each round, their offers, columns and bounds.

    **Arguments:** `process`; `worth` (V, n, m), `allowed` (V, A): of each variant that bounds are
    kept for; the first must bound all others. `room`: bytes for offers kept.
    """

    def __init__(self, process: AbstractProcess, room: float):
        self.process, self.room = process, room
        self.places: list[dict[bytes, Place]] = [{} for _ in range(process.horizon)]
        self.listed: list[list[Place]] = [[] for _ in range(process.horizon)]
        self.kept: OrderedDict[tuple[int, int], Offer] = OrderedDict()
        self.used = 0
        self.clock = 0
        self.worth: dict[int, np.ndarray] = {}
        self.allowed: dict[int, np.ndarray] = {}
        self.most: dict[int, np.ndarray] = {}
        self.column: list[np.ndarray] = []
        self.number_of: dict[bytes, int] = {}
        start = np.asarray(process.start(), np.int64)
        self.meet(0, start[None])

    def variant(
        self, number: int, worth: Float[np.ndarray, "n m"], allowed: Bool[np.ndarray, " A"]
    ):
        """Keep bounds for one more variant."""
        self.worth[number], self.allowed[number] = worth, allowed
        self.most[number] = np.maximum(worth.max(axis=0), 0.0)

    def forget(self, numbers: list[int]) -> None:
        """Drop the bounds of some variants."""
        for number in numbers:
            for table in (self.worth, self.allowed, self.most):
                table.pop(number, None)
        for part in self.listed:
            for place in part:
                for number in numbers:
                    place.bound.pop(number, None)

    @property
    def count(self) -> int:
        return sum(len(part) for part in self.listed)

    def meet(self, t: int, memories: Int[np.ndarray, "k d"]) -> None:
        """Compute the offers of memories that have not been met in round t."""
        for memory in np.unique(memories, axis=0):
            key = memory.tobytes()
            if key in self.places[t]:
                continue
            offer = self._compute(memory)
            place = Place(len(self.listed[t]), memory, offer.after)
            self.places[t][key] = place
            self.listed[t].append(place)
            self._keep((t, place.number), offer)
            self.clock += 1
            place.changed = self.clock

    def offer(self, t: int, place: Place) -> Offer:
        key = (t, place.number)
        if key in self.kept:
            self.kept.move_to_end(key)
            return self.kept[key]
        offer = self._compute(place.memory)
        self._keep(key, offer)
        return offer

    def _keep(self, key: tuple[int, int], offer: Offer) -> None:
        self.kept[key] = offer
        self.used += offer.size
        while self.used > self.room and len(self.kept) > 1:
            self.used -= self.kept.popitem(last=False)[1].size

    def _compute(self, memory: np.ndarray) -> Offer:
        ends, after = (np.asarray(x) for x in _every_law(self.process, memory))
        n, slack = ends.shape[1] - 1, max(1e-9, 64 * float(np.finfo(ends.dtype).eps))
        law = np.delete(ends, np.arange(n - self.process.tolls, n), axis=1)
        low, high = float(ends.min()), float(law.sum(axis=1).max())
        if not np.isfinite([low, high]).all() or low < -slack or high > 1 + slack:
            got = f"from {low:.3g}, sums up to {high:.3g}"
            raise ArithmeticError(f"chances of outcomes and of going on are not a law: {got}")
        possible = (ends[:, :n] != 0).any(axis=2)
        width = max(int(possible.sum(axis=1).max()), 1)
        order = np.argsort(~possible, axis=1, kind="stable")[:, :width]
        outcome = np.where(np.take_along_axis(possible, order, axis=1), order, -1)
        stop = np.take_along_axis(ends[:, :n], order[:, :, None], axis=1)
        return Offer(stop, outcome, ends[:, n].copy(), after.astype(np.int64))

    def columns(self, t: int, place: Place, control: int) -> Int[np.ndarray, " Z"]:
        """Numbers of the columns of one control's symbols; equal columns have one number."""
        if control not in place.columns:
            where = np.asarray(control), np.asarray(t)
            law = np.asarray(_symbol_law(self.process, place.after[control], *where))
            if not np.isfinite(law).all() or law.min() < -1e-9:
                raise ArithmeticError("chances of symbols are not a law")
            going = self.offer(t, place).going[control]
            rows = np.ascontiguousarray((law * going[:, None]).T) + 0.0
            numbers = []
            for row in rows:
                number = self.number_of.setdefault(row.tobytes(), len(self.column))
                if number == len(self.column):
                    self.column.append(row)
                numbers.append(number)
            place.columns[control] = np.array(numbers)
        return place.columns[control]

    def after(self, t: int, place: Place, control: int) -> Place | None:
        """The place that follows, None if it has not been met."""
        return self.places[t + 1].get(place.next[control])

    def told(self, t: int, key: bytes, variant: int) -> Float[np.ndarray, " m"]:
        """Bound what is still to come before round t, given omega, after the memory of that key."""
        if t >= self.process.horizon:
            return np.zeros_like(self.most[variant])
        place = self.places[t].get(key)
        if place is None:
            return self.most[variant]
        if variant not in place.bound:
            place.bound[variant] = self._bound(t, place, variant)
        return place.bound[variant]

    def _bound(self, t: int, place: Place, variant: int) -> np.ndarray:
        offer, worth = self.offer(t, place), self.worth[variant]
        total = np.zeros_like(offer.going)
        for slot in range(offer.outcome.shape[1]):
            total += offer.stop[:, slot] * worth[offer.outcome[:, slot]]
        if t < self.process.horizon - 1:
            later = {key: self.told(t + 1, key, variant) for key in set(place.next)}
            for control, key in enumerate(place.next):
                total[control] += offer.going[control] * later[key]
        return np.minimum(total[self.allowed[variant]].max(axis=0), self.most[variant])

    def refresh(self) -> None:
        """Tighten bounds of earlier rounds by what has been met since, last rounds first."""
        for t in reversed(range(self.process.horizon - 1)):
            for place in self.listed[t]:
                newest = max(
                    (p.changed for p in map(self.places[t + 1].get, set(place.next)) if p),
                    default=0,
                )
                if newest <= place.checked:
                    continue
                place.checked = self.clock
                for variant, old in place.bound.items():
                    new = np.minimum(self._bound(t, place, variant), old)
                    if (new < old).any():
                        place.bound[variant] = new
                        self.clock += 1
                        place.changed = self.clock
