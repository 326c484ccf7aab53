"""Upper bounds without sampling error where the order of what happened does not matter.

Where laws depend neither on the memory nor on the round, a belief is the start times one column
going_a law_a(z) for every control and symbol met, in any order: states are multisets. From the
start, the search follows the controls that look best under the bounds it has,

    Q(b, a) = <b, pay_a> + sum_z V(b going_a law_a(z)),      V(b) = max_a Q(b, a),

where a pair (b, a) that was never opened counts as V^2 of `lookahead` does: one more exact round
and one more symbol, then told omega. That is one matrix product for all controls, symbols and
controls after. In turns, the multisets that the best controls lead to, those first that leave most
open, are bounded with omega hidden (`solvers.told.informed`), then the best pair of each is opened,
and all bounds are backed up. What was found so holds at every belief with as many rounds to go, and
caps each multiset that is met later. Every Q is an upper bound at any time, so the search may stop
whenever it likes; it is exact once nothing reached is open. It prunes as it goes: a control is
followed only while its bound is the largest.

Economies of one market meet the same multisets. One that may do no more than another begins with
all of the other's bounds, with what it can earn beyond it added (`solvers.search.case_tables`), and
backs them up with what it earns itself; a multiset that is met then is valued once more.
Float64; rounding is of the order of T machine epsilons times the value.
"""

from collections.abc import Sequence

import equinox as eqx
import numpy as np
from jaxtyping import Float

from solvers.host import Record
from solvers.process import AbstractCeiling, Case
from solvers.search.case_tables import CaseTables, above_each
from solvers.search.multisets import MultisetSearch
from solvers.tabular import Tabular

_TAKEN = 2e4  # multiplications that taking over a multiset stands for
_ALONE = 1 / 3  # of the work: what an economy is given before it takes over another's multisets


class Searched(Record):
    """An upper bound `upper`, the multisets valued, and the largest of them."""

    upper: float
    states: int = eqx.field(static=True)
    depth: int = eqx.field(static=True)


def merged_search(
    process: Tabular,
    cases: Sequence[Case],
    ceilings: Sequence[AbstractCeiling],
    belief: Float[np.ndarray, " m"],
    work: float | Sequence[float],
    period: int = 0,
    tolerance: float = 1e-5,
) -> list[Searched]:
    """Bound the value of every case from above at one belief (unnormalised).

    A case that may do no more than another takes over all that was found for the other, unless it
    comes below it by itself with a share of its work.

    **Arguments:** `ceilings`: those of `process`; `work`: multiplications allowed for each;
    `period`: rounds gone by, from 0; `tolerance`: a search ends when the bound is within this
    share of a value that some plan reaches.
    """
    belief, allowed = np.asarray(belief, float), np.broadcast_to(np.asarray(work), len(cases))
    told = [float(one.value(period, process.start()[None])[0] @ belief) for one in ceilings]

    def tables(k: int) -> CaseTables:
        return CaseTables(process, cases[k], ceilings[k], period)

    above, found = above_each(tables, np.array(told), belief), {}

    def search(k: int, other: MultisetSearch | None) -> None:
        here = tables(k)
        one, most = MultisetSearch(process, here, belief, period), np.inf
        if other is not None:
            most = other.upper + float(other.tables.excess(here)[0] @ belief)
            open_ = one.go(_ALONE * allowed[k], tolerance)
            spent = one.spent + _TAKEN * other.count
            if open_ and spent < allowed[k] and one.upper >= most:
                one = MultisetSearch(process, here, belief, period, other, spent)
        one.go(allowed[k], tolerance)
        depth = int(one.depth[: one.count].max())
        found[k] = Searched(min(one.upper, most), one.count, depth)
        for after in np.flatnonzero(above == k):
            search(int(after), one)

    for first in np.flatnonzero(above < 0):
        search(int(first), None)
    return [found[k] for k in range(len(cases))]
