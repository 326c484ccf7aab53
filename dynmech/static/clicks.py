"""Click-through auctions of K slots (paper D, Example 2 and section 5.1).

Slot k is clicked with chance omega_k by whoever sees it, whatever advertiser holds it; agent i
earns theta_i a click. Gross payoffs are u_i = M theta_i sum_k x_ik omega_k over M impressions
(Definition 9 sums over impressions twice). The ranking omega_1 >= ... >= omega_K is known, so the
efficient rule sorts agents by theta, whatever anybody knows about omega.

**References**

Edelman, Ostrovsky and Schwarz, "Internet advertising and the generalized second-price auction",
American Economic Review 2007; Varian, "Position auctions", International Journal of Industrial
Organization 2007.
"""

import itertools
import math
from collections.abc import Sequence

import equinox as eqx
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Bool, Float, Int

from dynmech._checks import as_doubles, checked, choice, distinct, instance, member, whole
from dynmech.errors import InvalidArgument, TooLarge, describe, require_finite
from dynmech.market.tastes import TasteGrid
from dynmech.static.click_data import require_rates
from dynmech.static.environment import StaticEnvironment
from dynmech.static.signals import SIGNALS, PrivateSignals

_SAME = 1e-12
_ALLOCATIONS = 5_000


class ClickAuction(eqx.Module):
    """Describe an auction of K slots whose click rates nobody knows for sure.

    **Arguments**

    - `rates`: `TasteGrid`: points (m, K), clicks per impression of each slot, in [0, 1] and not
      increasing along a row; the common prior.
    - `theta`: (n, V), n >= K: values per click each agent may have, money, nonnegative.
    - `impressions`: M of each slot.
    - `signals`: what agents know of the rates (`sampled_clicks`); None: nothing.
    - `names`: n labels.

    `env` is the finite environment of all n!/(n-K)! assignments; `seats` (A, K) says which agent
    holds each slot in each of them.

    **Raises**

    `InvalidArgument`, `NotFinite`, `OutsideSupport` (a rate outside [0, 1]), `TooLarge`.

    ```python
    >>> rates = TasteGrid([[0.2, 0.1], [0.4, 0.3]], [0.5, 0.5])
    >>> auction = ClickAuction(rates, [[1.0, 5.0], [2.0, 4.0], [3.0, 3.0]], impressions=10)
    >>> auction.env.shape, auction.env.allocation_names[auction.assortative()[1, 0, 0]]
    ((2, 2, 2), 'agent 0 > agent 2')

    ```
    """

    rates: TasteGrid
    impressions: int = eqx.field(static=True)
    env: StaticEnvironment
    seats: Int[np.ndarray, "A K"]

    @checked(impressions=whole(1), signals=SIGNALS)
    def __init__(
        self,
        rates: TasteGrid,
        theta: npt.ArrayLike,
        impressions: int = 1,
        signals: PrivateSignals | None = None,
        names: Sequence[str] | None = None,
    ):
        points = require_rates("ClickAuction(rates=...)", rates)
        if (np.diff(points, axis=1) > 0).any():
            must = "not increase from one slot to the next, in any state"
            got = points[(np.diff(points, axis=1) > 0).any(axis=1)][0].tolist()
            do = "order slots by click rate: their ranking must be known (Example 2)"
            raise InvalidArgument(describe("ClickAuction(rates=...)", must, got, do))
        values = require_values("ClickAuction(theta=...)", theta)
        n, slots = len(values), points.shape[1]
        if n < slots:
            must, got = f"have a row for each of n >= K = {slots} agents", n
            raise InvalidArgument(describe("ClickAuction(theta=...)", must, got))
        if math.perm(n, slots) > _ALLOCATIONS:
            must = f"leave at most {_ALLOCATIONS} assignments of agents to slots"
            do = "take fewer agents or slots; `click_prices` needs no such list"
            raise TooLarge(
                describe("ClickAuction(theta=...)", must, f"{n} agents, {slots} slots", do)
            )
        self.rates, self.impressions = rates, int(impressions)
        self.seats = np.array(list(itertools.permutations(range(n), slots)))
        held = np.zeros((len(self.seats), n, slots))
        held[np.arange(len(held))[:, None], self.seats, np.arange(slots)] = 1.0
        labels = [f"agent {i}" for i in range(n)]
        if names is not None:
            labels = list(distinct("ClickAuction(names=...)", names, n))
        count = float(impressions)

        def payoff(agent: int, x: Array, omega: Array, theta: Array):
            return count * theta * (x.reshape(n, slots)[agent] @ omega)

        self.env = StaticEnvironment(
            payoff,
            held.reshape(len(held), -1),
            rates,
            values,
            signals,
            names=labels,
            allocation_names=[" > ".join(labels[i] for i in row) for row in self.seats],
        )

    @property
    def slots(self) -> int:
        """Return K."""
        return self.seats.shape[1]

    def values(self) -> Float[np.ndarray, "..."]:
        """Return theta by type profile: shape (E_1, ..., E_n, n), money a click."""
        return profile_values(self.env)

    def assortative(self) -> Int[np.ndarray, "..."]:
        """Choose the efficient assignment: the k-th highest theta holds slot k.

        Equal values: the lowest index first. Efficient at every belief, so that reports about
        the rates move nothing. **Returns:** index of the assignment, shape (E_1, ..., E_n).
        """
        order = np.argsort(-self.values(), axis=-1, kind="stable")[..., : self.slots]
        code = np.full((self.env.agents,) * self.slots, -1)
        code[tuple(self.seats.T)] = np.arange(len(self.seats))
        return code[tuple(np.moveaxis(order, -1, 0))]

    def expected_rates(self, without: int | None = None) -> Float[np.ndarray, "..."]:
        """Compute E[omega_k | S = s] by type profile: shape (E_1, ..., E_n, K).

        **Arguments:** `without`: given the others' signals only (that axis has length 1).
        """
        return expected_states(self.env, without)

    def informational_richness(self) -> Bool[np.ndarray, " n"]:
        """Say for which agents Assumption 2 holds: a signal that lowers every E[omega_k | s].

        Strictly so for slot K, given some signals of the others.
        """
        mean, possible = self.expected_rates(), self.env.possible()
        found = np.zeros(self.env.agents, bool)
        for i in range(self.env.agents):
            own = np.moveaxis(mean, i, 0)
            can = np.moveaxis(possible, i, 0)
            for high in range(len(own)):
                drop = own[high] - own
                lower = (drop >= -_SAME).all(axis=-1) & (drop[..., -1] > _SAME)
                found[i] |= bool((lower & can & can[high]).any())
        return found


@checked(slots=whole(1), rule=choice("pivot", "generalised second price"))
def click_prices(
    theta: npt.ArrayLike, slots: int, rule: str = "pivot"
) -> Float[np.ndarray, "... n K"]:
    """Price the clicks on each slot, for each agent; agents hold slots in order of theta.

    With theta in descending order, (16) collects

        theta_{i+1} a click on i's own slot   -   (theta_k - theta_{k+1}) a click on each slot k > i

    from the agent in slot i: the per-click pivot. The generalised second price leaves the credits
    for lower slots out; with one slot both are the per-click second price.

    **Arguments**

    - `theta`: (..., n), reported values per click, n >= K. `slots`: K.
    - `rule`: "pivot" or "generalised second price".

    **Returns**

    (..., n, K): money that agent i pays for each click on slot k.

    **Raises**

    `InvalidArgument`, `NotFinite`.

    ```python
    >>> click_prices([10.0, 4.0, 2.0], 2).tolist()
    [[4.0, -2.0], [0.0, 2.0], [0.0, 0.0]]
    >>> click_prices([10.0, 4.0, 2.0], 2, "generalised second price").tolist()
    [[4.0, 0.0], [0.0, 2.0], [0.0, 0.0]]

    ```
    """
    values = require_values("click_prices(theta=...)", theta, dimensions=None)
    n = values.shape[-1]
    if n < slots:
        must = f"hold values of n >= K = {slots} agents on the last axis"
        raise InvalidArgument(describe("click_prices(theta=...)", must, values.shape))
    order = np.argsort(-values, axis=-1, kind="stable")
    ranked = np.take_along_axis(values, order, axis=-1)
    ranked = np.concatenate([ranked, np.zeros((*ranked.shape[:-1], 1))], axis=-1)
    following = ranked[..., 1 : slots + 1]
    by_rank = np.zeros((*values.shape, slots))
    by_rank[..., :slots, :] = np.eye(slots) * following[..., None, :]
    if rule == "pivot":
        credit = ranked[..., None, :slots] - following[..., None, :]
        by_rank[..., :slots, :] -= np.triu(np.ones((slots, slots)), 1) * credit
    prices = np.zeros_like(by_rank)
    np.put_along_axis(prices, order[..., None], by_rank, axis=-2)
    return prices


def require_values(
    call: str, theta: npt.ArrayLike, dimensions: int | None = 2
) -> Float[np.ndarray, "..."]:
    """Return values per click in float64, or raise unless (n, V), finite and nonnegative."""
    values = as_doubles(call, theta)
    wrong = values.ndim == 0 if dimensions is None else values.ndim != dimensions
    if wrong or 0 in values.shape:
        must = "have shape (..., n)" if dimensions is None else "have shape (n, V)"
        raise InvalidArgument(describe(call, must, values.shape))
    require_finite(call, values)
    if (values < 0).any():
        raise InvalidArgument(describe(call, "be nonnegative", values.min()))
    return values


def profile_values(env: StaticEnvironment) -> Float[np.ndarray, "..."]:
    """Lay each agent's own theta over type profiles: shape (E_1, ..., E_n, n)."""
    table = np.asarray(env.theta, np.float64)
    own = [table[i][types.theta] for i, types in enumerate(env.types)]
    return np.stack(np.meshgrid(*own, indexing="ij"), axis=-1)


def expected_states(env: StaticEnvironment, without: int | None = None) -> Float[np.ndarray, "..."]:
    """Compute E[omega | S = s] by type profile under the common prior: (E_1, ..., E_n, k)."""
    points = np.asarray(env.states.points, np.float64)
    if without is not None:
        without = member("expected_rates(without=...)", without, env.agents)
    if without is not None and env.agents == 1:
        return (np.asarray(env.states.weights, np.float64) @ points)[None]
    return env.posterior(1 if without == 0 else 0, without) @ points


AUCTION = instance(ClickAuction, "a `ClickAuction`")
