"""Economies of one market whose laws are tables, and which of them bound which from above.

An economy that may do no more than another, and earns no more by it, is worth no more at any
belief: every upper bound of the other's is one of its own. Where it earns little more, told omega,
that much is added.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Int

from solvers.process import AbstractCeiling, Case
from solvers.tabular import Tabular

_ABOVE = 3  # economies that may be above others


class CaseTables:
    """One case of A controls, Z symbols and m parameters, in arrays.

    `controls` (A,): their numbers in the process; `pay` (A, m): what each yields in a round, money;
    `going` (A, m): chance of another round; `law` (A, Z, m): of symbols given one; `told`: T + 1
    arrays (m,), what remains to be earned told omega, from `period` on and after the last round.
    """

    def __init__(self, process: Tabular, case: Case, ceiling: AbstractCeiling, period: int):
        self.controls = np.flatnonzero(case.allowed)
        worth = np.asarray(case.worth(process.reward))
        ends = np.asarray(process.chance)[self.controls]
        self.going = ends[:, -1]
        self.pay = np.einsum("ajm,jm->am", ends[:, :-1], worth)
        self.law = np.moveaxis(np.asarray(process.law)[self.controls], -1, 1)
        rounds, memory = range(period, process.horizon + 1), process.start()[None]
        self.told = [ceiling.value(t, memory)[0] for t in rounds]

    def places(self, other: "CaseTables") -> Int[np.ndarray, " A"] | None:
        """Where the other's controls are among these; None where some are not."""
        places = np.minimum(np.searchsorted(self.controls, other.controls), len(self.controls) - 1)
        return places if np.array_equal(self.controls[places], other.controls) else None

    def beyond(self, other: "CaseTables") -> Float[np.ndarray, "A m"]:
        """What the other's controls yield in one round beyond what they do here, money."""
        return np.maximum(other.pay - self.pay[self.places(other)], 0.0)

    def excess(self, other: "CaseTables") -> Float[np.ndarray, "T1 m"]:
        """What another, which may do no more, can earn beyond this from each round on, told omega.

        Whatever it does may be done here, and yields less by so much at most, so that before round
        t, for every belief b, of any mass,

            V_other(b) <= V(b) + <b, excess_t>,
            excess_t = max_a beyond_a + going_a excess_{t+1},     excess_{T+1} = 0;  money.
        """
        beyond = self.beyond(other)
        found = [np.zeros(beyond.shape[1])]
        for _ in self.told[1:]:
            found.append((beyond + other.going * found[-1]).max(axis=0))
        return np.stack(found[::-1])


def above_each(
    tables: Callable[[int], CaseTables],
    told: Float[np.ndarray, " K"],
    belief: Float[np.ndarray, " m"],
) -> Int[np.ndarray, " K"]:
    """For every economy the number of one whose bounds are its own with least added; -1: none.

    Of such, the closest. Only those few are looked at that are worth most told omega, and none is
    above one worth more, so that there are no circles.

    **Arguments:** `tables(k)`: made when it is asked for, as many would fill the memory; `told`:
    what each is worth told omega.
    """
    above = np.full(len(told), -1)
    if len(told) == 1:
        return above
    order = np.argsort(-told, kind="stable").tolist()
    few = [(j, tables(j)) for j in order[:_ABOVE]]
    for place, k in enumerate(order):
        other = few[place][1] if place < len(few) else tables(k)
        near = [
            (float(belief @ one.beyond(other).max(axis=0)), float(told[j]), j)
            for j, one in few[:place]
            if one.places(other) is not None
        ]
        above[k] = min(near, default=(0.0, 0.0, -1))[2]
    return above
