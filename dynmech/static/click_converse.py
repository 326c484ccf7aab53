"""How far the converse of Proposition 2 holds: every transfer that keeps its conditions (paper D).

On finite types the transfers of an agent that implement the assortative rule in posterior
equilibrium, pay her in no state (Definition 8) and leave her nothing to lose in any state
(Definition 9) form a polytope, given the types of the others. Linear programs over it find

- how far E[p_i | S = s] can be from the pivot's: not at all, up to the grid of values. At
  theta_i = 0 both conditions leave p_i = 0, and payoff equivalence gives the rest, with
  Assumption 2 or without it;
- how far p_i can be from (17) in one state, which is what (18) speaks of. Assumption 2 does not
  bring that to zero. An agent who wins with value to spare has slack in every state, so p_i may
  hold a small bet on the state that is fair under each of her posteriors; the proof drops the
  dependence of f_k on theta_i, which is where such a bet hides. What does bring it to zero is a
  type of hers that knows the state: she would take any side of a bet that pays in that state.

**References**

Holmstrom, "Groves' scheme on restricted domains", Econometrica 1979; Moulin, "Characterizations
of the pivotal mechanism", Journal of Public Economics 1986.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from dynmech._checks import checked, finite, flag, indices, member
from dynmech.errors import InvalidArgument, TooLarge, describe
from dynmech.static.click_mechanisms import click_pivot
from dynmech.static.clicks import AUCTION, ClickAuction
from dynmech.static.mechanisms import DirectMechanism

_ENTRIES = 4_000_000
_CALL = "replace_transfers(transfers=...)"


class TransferRange(eqx.Module):
    """Transfers of one agent that keep the conditions of Proposition 2, given the others' types.

    Money, by own type: `pivot` (E_i, m), (17); `lower`, `upper` (E_i, m): extremes of p_i in each
    state, each alone; `mean_lower`, `mean_upper` (E_i,): extremes of E[p_i - (17) | S = s]. NaN at
    types that cannot occur with the others' signals and in states that they rule out.
    `widest` (E_i, m): the transfers of the polytope farthest from (17) in one state.
    """

    agent: int = eqx.field(static=True)
    pivot: Float[np.ndarray, "E m"]
    lower: Float[np.ndarray, "E m"]
    upper: Float[np.ndarray, "E m"]
    mean_lower: Float[np.ndarray, " E"]
    mean_upper: Float[np.ndarray, " E"]
    widest: Float[np.ndarray, "E m"]

    @property
    def state_width(self) -> float:
        """Return the largest |p_i - (17)| in any state; zero iff (18) holds here."""
        return float(max(np.nanmax(self.upper - self.pivot), np.nanmax(self.pivot - self.lower)))

    @property
    def mean_width(self) -> float:
        """Return the largest |E[p_i - (17) | S = s]|."""
        return float(max(np.nanmax(self.mean_upper), -np.nanmin(self.mean_lower)))


@checked(auction=AUCTION, informed=flag)
def transfer_range(
    auction: ClickAuction, agent: int, others: Sequence[int], *, informed: bool = True
) -> TransferRange:
    """Find the extremes of the transfers that keep the conditions of Proposition 2.

    Linear programs, by HiGHS, within its tolerance of 1e-7.

    **Arguments**

    - `agent`: i. `others`: n indices into `auction.env.types`; the i-th is ignored.
    - `informed`: whether p_i may depend on the agent's report about the state; if not, on her
      value and the state alone, as in Definitions 8 and 9.

    **Raises:** `OutsideSupport`, `TooLarge`, `InvalidArgument` if the others' signals cannot
    occur together.
    """
    env, cell = auction.env, _cell("transfer_range", auction, agent, others)
    belief, can = env.posterior(agent)[cell], env.possible()[cell]
    if not can.any():
        must = "be types whose signals can occur together"
        raise InvalidArgument(describe("transfer_range(others=...)", must, tuple(others)))
    size, states = belief.shape
    if float(size) ** 2 * states * 4 > _ENTRIES:
        must, do = "have few enough own types for linear programs", "use fewer values"
        raise TooLarge(describe("transfer_range(auction=...)", must, size, do))
    group = np.arange(size) if informed else env.types[agent].theta
    slots = auction.seats[auction.assortative()[cell]] == agent
    earned = auction.impressions * slots @ np.asarray(auction.rates.points, np.float64).T
    value = auction.values()[cell][:, agent]
    floor = np.full((group.max() + 1, states), -np.inf)
    np.maximum.at(floor, group, -value[:, None] * earned)
    program = _program(belief, can, earned, value, group, floor)
    pivot = -click_pivot(auction).transfer[agent][cell]  # t = -p, as the program has it
    tables = np.full((2, size, states), np.nan)
    means = np.full((2, size), np.nan)
    widest, best = np.array(pivot), -1.0
    for e in np.flatnonzero(can):
        for way in (0, 1):
            cost = np.zeros_like(floor)
            cost[group[e]] = (1 - 2 * way) * belief[e]
            means[way, e] = (program.least(cost)[group[e]] - pivot[e]) @ belief[e]
            for k in np.flatnonzero(belief[e]):
                cost = np.zeros_like(floor)
                cost[group[e], k] = 1 - 2 * way
                found = program.least(cost)
                tables[way, e, k] = found[group[e], k]
                if abs(tables[way, e, k] - pivot[e, k]) > best:
                    widest, best = found[group], abs(tables[way, e, k] - pivot[e, k])
    lower, upper = -tables[::-1]
    mean_lower, mean_upper = -means[::-1]
    return TransferRange(agent, -pivot, lower, upper, mean_lower, mean_upper, -widest)


@checked(auction=AUCTION)
def replace_transfers(
    auction: ClickAuction, agent: int, others: Sequence[int], transfers: npt.ArrayLike
) -> DirectMechanism:
    """Put other transfers of one agent into the pivot with ideal data, given the others' types.

    **Arguments:** `agent`, `others`: as in `transfer_range`. `transfers`: (E_i, m), money paid by
    the agent, by own report and state.

    **Returns:** a `DirectMechanism`, whose audit says what the change breaks.

    **Raises:** `InvalidArgument`, `NotFinite`, `OutsideSupport`.
    """
    pivot, cell = click_pivot(auction), _cell("replace_transfers", auction, agent, others)
    table, given = np.array(pivot.transfer[agent]), finite(_CALL, transfers)
    if given.shape != table[cell].shape:
        must = f"have shape {table[cell].shape}"
        raise InvalidArgument(describe(_CALL, must, given.shape))
    table[cell] = np.asarray(given)
    paid = [table if j == agent else old for j, old in enumerate(pivot.transfer)]
    name = f"pivot with other transfers of {auction.env.names[agent]}"
    return DirectMechanism(auction.env, pivot.allocation, paid, pivot.law, name)


class _Program(eqx.Module):
    """A linear program in t (G, m) with floor <= t <= 0 and rows t <= slack."""

    rows: object
    slack: Float[np.ndarray, " C"]
    floor: Float[np.ndarray, "G m"]

    def least(self, cost: Float[np.ndarray, "G m"]) -> Float[np.ndarray, "G m"]:
        """Return a t of least cost."""
        from scipy.optimize import linprog

        bounds = np.stack([self.floor.ravel(), np.zeros(self.floor.size)], axis=1)
        done = linprog(cost.ravel(), self.rows, self.slack, bounds=bounds, method="highs")
        if not done.success:
            raise RuntimeError(f"HiGHS failed on a feasible program: {done.message}")
        return done.x.reshape(cost.shape)


def _program(
    belief: np.ndarray,
    can: np.ndarray,
    earned: np.ndarray,
    value: np.ndarray,
    group: np.ndarray,
    floor: np.ndarray,
) -> _Program:
    """Constrain every true type that can occur not to gain from any report."""
    from scipy.sparse import csr_array

    size, states = belief.shape
    told, true = np.meshgrid(np.arange(size), np.arange(size))
    keep = (told != true) & can[true]
    told, true = told[keep], true[keep]
    clicks = belief @ earned.T  # (true type, report)
    slack = value[true] * (clicks[true, true] - clicks[true, told])
    place = group[:, None] * states + np.arange(states)
    row = np.repeat(np.arange(len(true)), 2 * states)
    column = np.concatenate([place[told], place[true]], axis=1)
    entry = np.concatenate([belief[true], -belief[true]], axis=1)
    rows = csr_array((entry.ravel(), (row, column.ravel())), shape=(len(true), floor.size))
    return _Program(rows, slack, floor)


def _cell(verb: str, auction: ClickAuction, agent: int, others: Sequence[int]) -> tuple[Any, ...]:
    """Index all own types of an agent at one profile of the others."""
    agent = member(f"{verb}(agent=...)", agent, auction.env.agents)
    call = f"{verb}(others=...)"
    rest = indices(None)(call, others).tolist()
    rest[agent : agent + 1] = [0] * len(rest[agent : agent + 1])
    cell = auction.env.cell(call, rest)
    return tuple(slice(None) if j == agent else e for j, e in enumerate(cell))
