"""A log of impressions and clicks, and what it says of click rates: posteriors and estimates."""

from collections.abc import Sequence
from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Float

from dynmech.applications._market import require_between, require_choice
from dynmech.errors import InvalidArgument, OutsideSupport, TooLarge, describe, require_finite
from dynmech.market.tastes import TasteGrid

POLICIES = ("bts", "random")
POSITIONS = 3
COUNTS = ("impressions", "clicks", "inverse_propensity", "weighted_clicks", "weighted_squares")
_STATES = 20_000


class ClickRates(NamedTuple):
    """Estimated clicks per impression of each item, (I,), and their standard errors, (I,)."""

    rate: np.ndarray
    error: np.ndarray


class ClickLog(eqx.Module):
    """Hold what was shown and clicked, by policy, item and position.

    **Arguments**

    - `campaign`: of the shop. `items`: I labels.
    - `impressions`, `clicks`: (2, I, 3), counts by policy ("bts", "random"), item and position.
    - `inverse_propensity`: (2, I, 3), sums over impressions of one over the chance with which that
      item was shown there; `weighted_clicks`, `weighted_squares`: sums over clicks of that, and of
      its square.
    - `alpha`, `beta`: (I,), the shop's Beta law of each click rate before these impressions.
    - `source`, `assumptions`: where it is from, and what it does not say.

    **Raises**

    `InvalidArgument` (shapes), `NotFinite`, `OutsideSupport` (negative counts; more clicks than
    impressions, a rate above 1; a Beta parameter that is not positive).
    """

    campaign: str = eqx.field(static=True)
    items: tuple[str, ...] = eqx.field(static=True)
    impressions: Float[np.ndarray, "_p _i _k"]
    clicks: Float[np.ndarray, "_p _i _k"]
    inverse_propensity: Float[np.ndarray, "_p _i _k"]
    weighted_clicks: Float[np.ndarray, "_p _i _k"]
    weighted_squares: Float[np.ndarray, "_p _i _k"]
    alpha: Float[np.ndarray, " _i"]
    beta: Float[np.ndarray, " _i"]
    source: str = eqx.field(static=True)
    assumptions: tuple[str, ...] = eqx.field(static=True)

    def __check_init__(self):
        shape = (len(POLICIES), len(self.items), POSITIONS)
        for name in COUNTS:
            table = getattr(self, name)
            if table.shape != shape:
                must = f"have shape {shape}: policy, item, position"
                raise InvalidArgument(describe(f"ClickLog({name}=...)", must, table.shape))
            require_finite(f"ClickLog({name}=...)", table)
            if (table < 0).any():
                must = "be nonnegative"
                raise OutsideSupport(describe(f"ClickLog({name}=...)", must, table.min()))
        if (self.clicks > self.impressions).any():
            where = tuple(int(k) for k in np.argwhere(self.clicks > self.impressions)[0])
            must = "be at most the impressions: a click rate is in [0, 1]"
            got = f"{self.clicks[where]:g} of {self.impressions[where]:g} at {where}"
            raise OutsideSupport(describe("ClickLog(clicks=...)", must, got))
        for name in ("alpha", "beta"):
            table = getattr(self, name)
            if table.shape != shape[1:2]:
                must = f"have shape {shape[1:2]}"
                raise InvalidArgument(describe(f"ClickLog({name}=...)", must, table.shape))
            require_finite(f"ClickLog({name}=...)", table)
            if (table <= 0).any():
                raise OutsideSupport(describe(f"ClickLog({name}=...)", "be positive", table.min()))

    def posterior(self) -> tuple[Float[np.ndarray, " I"], Float[np.ndarray, " I"]]:
        """Update the shop's Beta law by all impressions logged: parameters (I,), (I,).

        Exact if an item has one click rate, whoever sees it and wherever it is shown.
        """
        clicks, shown = self.clicks.sum(axis=(0, 2)), self.impressions.sum(axis=(0, 2))
        return self.alpha + clicks, self.beta + shown - clicks

    def posterior_rate(self) -> ClickRates:
        """Mean and standard deviation of the posterior of each click rate: biased to the prior."""
        a, b = self.posterior()
        mean = a / (a + b)
        return ClickRates(mean, np.sqrt(mean * (1 - mean) / (a + b + 1)))

    def click_frequency(self, policy: str = "random") -> ClickRates:
        """Share of each item's impressions that was clicked.

        Unbiased where items are shown at random. Standard errors are taken at the posterior mean,
        for an item without a click has a rate above zero too; NaN for an item never shown.
        """
        k = self._policy("click_frequency(policy=...)", policy)
        clicks, shown = self.clicks[k].sum(axis=1), self.impressions[k].sum(axis=1)
        mean = self.posterior_rate().rate
        count = np.where(shown > 0, shown, np.nan)
        return ClickRates(clicks / count, np.sqrt(mean * (1 - mean) / count))

    def inverse_propensity_rate(self, policy: str = "bts") -> ClickRates:
        """Estimate each rate by clicks over the chance of being shown, per impression of the log.

        (1/N) sum over impressions of 1{item shown, clicked} / chance. Unbiased for the audience of
        the whole log, whatever the policy looked at, if the chances are right. An item without a
        click has the estimate 0 and no standard error (NaN).
        """
        k = self._policy("inverse_propensity_rate(policy=...)", policy)
        total = self.impressions[k].sum()
        rate = self.weighted_clicks[k].sum(axis=1) / total
        square = self.weighted_squares[k].sum(axis=1) / total
        error = np.sqrt(np.maximum(square - rate**2, 0) / total)
        return ClickRates(rate, np.where(rate > 0, error, np.nan))

    def select(self, count: int, by: str = "rate") -> list[int]:
        """Choose items: the highest posterior "rate", or the most "uncertain" one.

        **Returns:** indices into `items`, best first. **Raises:** `InvalidArgument`.
        """
        require_between("select(count=...)", count, 1, len(self.items), whole=True)
        require_choice("select(by=...)", by, ("rate", "uncertain"))
        found = self.posterior_rate()
        key = found.rate if by == "rate" else found.error
        return np.argsort(-key, kind="stable")[:count].tolist()

    def rates(self, items: Sequence[int], points: int = 3) -> TasteGrid:
        """Discretise the posterior of some items' click rates, independent across items.

        Each Beta law is cut into cells of equal probability, and each cell replaced by its mean:
        means are kept, spreads understated. Every combination is a state.

        **Arguments:** `items`: n indices. `points`: cells of each item.

        **Returns:** `TasteGrid` with points (points^n, n), clicks per impression.

        **Raises:** `InvalidArgument`, `OutsideSupport`, `TooLarge`.
        """
        chosen = list(items)
        if not chosen or any(not 0 <= i < len(self.items) for i in chosen):
            must = f"hold indices in 0..{len(self.items) - 1}"
            raise OutsideSupport(describe("rates(items=...)", must, chosen))
        require_between("rates(points=...)", points, 1, _STATES, whole=True)
        if points ** len(chosen) > _STATES:
            must, got = f"make at most {_STATES} states", points ** len(chosen)
            raise TooLarge(describe("rates(points=...)", must, got, "use fewer points or items"))
        a, b = self.posterior()
        axes = [beta_cells(a[i], b[i], points) for i in chosen]
        grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(chosen))
        return TasteGrid(grid, np.full(len(grid), 1 / len(grid)))

    def slot_rates(self, decay: Sequence[float], points: int = 3) -> TasteGrid:
        """Discretise the click rate of a slot, the same for all items: a pooled level times decay.

        The level has the posterior Beta(1/2 + clicks, 1/2 + impressions - clicks) of the whole
        log. The data show no position effect (`position_counts`): the decay is an assumption.

        **Arguments:** `decay`: K factors in [0, 1], not increasing. `points`: states.

        **Raises:** `InvalidArgument`, `OutsideSupport`.
        """
        factors = np.asarray(decay, np.float64)
        call = "slot_rates(decay=...)"
        if factors.ndim != 1 or not factors.size:
            raise InvalidArgument(describe(call, "hold K factors", factors.shape))
        require_finite(call, factors)
        if (factors < 0).any() or (factors > 1).any() or (np.diff(factors) > 0).any():
            raise OutsideSupport(describe(call, "be in [0, 1], not increasing", factors.tolist()))
        require_between("slot_rates(points=...)", points, 1, _STATES, whole=True)
        clicks, shown = self.clicks.sum(), self.impressions.sum()
        level = beta_cells(0.5 + clicks, 0.5 + shown - clicks, points)
        return TasteGrid(level[:, None] * factors, np.full(points, 1 / points))

    def position_counts(self) -> tuple[Float[np.ndarray, " 3"], Float[np.ndarray, " 3"], float]:
        """Count impressions and clicks by position: (3,), (3,), and the p-value of equal rates."""
        from scipy.stats import chi2_contingency

        shown, clicks = self.impressions.sum(axis=(0, 1)), self.clicks.sum(axis=(0, 1))
        tested = chi2_contingency(np.stack([clicks, shown - clicks]), correction=False)
        return shown, clicks, float(np.asarray(tested[1]))

    def diagnostics(self, policy: str) -> dict[str, float]:
        """Check a policy's log: clicks that the shop's Beta laws predict, chances that add up.

        `predicted` and `seen` clicks, and the `p_value` of so far a count, both tails, under a
        Poisson law of that mean; `propensity_sum`: sum of 1/chance over its expectation, N times
        the number of items, which is 1 for chances that are right.
        """
        from scipy.stats import poisson

        k = self._policy("diagnostics(policy=...)", policy)
        shown = self.impressions[k].sum(axis=1)
        predicted = float((shown * self.alpha / (self.alpha + self.beta)).sum())
        seen = float(self.clicks[k].sum())
        tail = min(poisson.cdf(seen, predicted), poisson.sf(seen - 1, predicted))
        expected = shown.sum() * len(self.items)
        return {
            "predicted": predicted,
            "seen": seen,
            "p_value": float(min(1.0, 2 * tail)),
            "propensity_sum": float(self.inverse_propensity[k].sum() / expected),
        }

    def _policy(self, call: str, policy: str) -> int:
        require_choice(call, policy, POLICIES)
        return POLICIES.index(policy)


def beta_cells(a: float, b: float, points: int) -> Float[np.ndarray, " points"]:
    """Mean of a Beta(a, b) law in each of `points` cells of equal probability, increasing."""
    from scipy.special import betainc, betaincinv

    edges = betaincinv(a, b, np.linspace(0, 1, points + 1))
    return points * a / (a + b) * np.diff(betainc(a + 1, b, edges))
