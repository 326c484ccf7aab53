"""Decoders of a finite post-purchase channel: unbiased where possible, least biased elsewhere.

After product j is bought a symbol z arrives with probability L(omega, z); the mechanism settles
with v(z). Theorem 1 of paper C asks for E[v(z) | omega] = u_j(omega) wherever j is bought with
positive probability, that is for

    L v = u_j   on the rows of the support.                                               (D)

Solvable or not is linear algebra (the Fredholm alternative): (D) fails exactly when two mixtures
p, q of tastes in the support give the same law of symbols, p'L = q'L, and different mean
utilities. By linear-programming duality the least possible worst bias is half of the widest such
gap,

    min_v max |L v - u| = 1/2 max { (p - q)'u : p'L = q'L },

and the p, q that attain it are returned with the decoder, as the proof that no better one exists.
"""

from __future__ import annotations

import equinox as eqx
import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float, Int

from dynmech._checks import choice, number
from dynmech._types import Record, as_floats
from dynmech.errors import (
    InvalidArgument,
    describe,
    import_extra,
    require_finite,
    require_probabilities,
)
from dynmech.estimators.least_bias import decode_one
from dynmech.market.tastes import TasteGrid

_FALLBACKS = ("minimax", "least squares")


class Decoder(Record):
    """What each symbol is settled at, and what that does to the settlement of each product.

    n products (or k coordinates of omega), m tastes, Z symbols; money unless said otherwise.
    Tables over tastes are NaN off the support.

    - `values` (n, Z): v, the amount each symbol stands for; 0 for symbols that never occur.
    - `channel` (n, m, Z), `target` (n, m): what was decoded, u_j(omega).
    - `chance` (n, m): the support, how likely a purchase is at most. `weights` (n, m): of
      the tastes when j is bought, each row summing to 1 over the support (0 if it is empty).
    - `unbiased` (n,): whether `values` solve (D), with the least variance of all that do.
    - `rank` (n,): of the channel on the support. `tolerance` (n,): of |L v - u_j|, see
      `decode_utilities`.
    - `lost` (n, m): the part of u_j that no decoder can express: u_j less its least-squares
      projection on the columns of L, by `weights`; 0 where (D) has a solution.
    - `mixtures` (n, 2, m): two mixtures of tastes with the same law of symbols and a gap in
      mean utility, the lower first; NaN where (D) has a solution, or rounding hides them.
    """

    values: Float[np.ndarray, "n Z"]
    channel: Float[np.ndarray, "n m Z"]
    target: Float[np.ndarray, "n m"]
    chance: Float[np.ndarray, "n m"]
    weights: Float[np.ndarray, "n m"]
    unbiased: Bool[np.ndarray, " n"]
    rank: Int[np.ndarray, " n"]
    tolerance: Float[np.ndarray, " n"]
    lost: Float[np.ndarray, "n m"]
    mixtures: Float[np.ndarray, "n 2 m"]
    fallback: str = eqx.field(static=True)

    @property
    def mean(self) -> Float[np.ndarray, "n m"]:
        """E[v(z) | omega], on and off the support."""
        return np.einsum("nmz,nz->nm", self.channel, self.values)

    @property
    def bias(self) -> Float[np.ndarray, "n m"]:
        """E[v(z) | omega] - u_j(omega)."""
        return np.where(self.chance > 0, self.mean - self.target, np.nan)

    @property
    def largest_bias(self) -> Float[np.ndarray, " n"]:
        """Largest |bias| over the support."""
        return np.abs(np.nan_to_num(self.bias)).max(axis=1)

    @property
    def variance(self) -> Float[np.ndarray, "n m"]:
        """Var(v(z) | omega), money squared, on and off the support."""
        centred = self.values[:, None, :] - self.mean[:, :, None]
        return (self.channel * centred**2).sum(axis=2)

    @property
    def expected_variance(self) -> Float[np.ndarray, " n"]:
        """Mean of the variance by `weights`, money squared: what was minimised."""
        return (self.weights * self.variance).sum(axis=1)

    @property
    def lost_norm(self) -> Float[np.ndarray, " n"]:
        """Root mean square of `lost` by `weights`; no decoder has a smaller one of its bias."""
        return np.sqrt((self.weights * np.nan_to_num(self.lost) ** 2).sum(axis=1))

    @property
    def least_bias(self) -> Float[np.ndarray, " n"]:
        """A lower bound on max over the support of chance * |bias|, proved by `mixtures`.

        |c'u| / sum_omega |c| / chance with c = p - q of `mixtures`, since c'(L v - u) = -c'u: of
        any decoder in the span that the fallback uses, see `decode_utilities`.
        """
        c = np.nan_to_num(self.mixtures[:, 1] - self.mixtures[:, 0])
        # Off the support, and beside rounding, c is zero.
        cost = np.where(c != 0, np.abs(c) / np.where(self.chance > 0, self.chance, 1), 0)
        gap = np.abs((c * self.target).sum(axis=1))
        return gap / np.maximum(cost.sum(axis=1), np.finfo(float).tiny)

    @property
    def incentive_bound(self) -> float:
        """The most that misreporting can gain when purchases are settled with `values`, money.

            gain <= max beta+ + max beta-                          over j and omega, and
            gain <= max_omega (s'beta+) + max_omega (s'beta-),     s'x = sum_j s_j(omega) x_j(omega)

        whichever is less; beta is the bias on the support, s = `chance`, x+ = max(x, 0), x- =
        max(-x, 0). At most 2 max |beta|. It holds for the efficient policy (add the gap of an
        approximate one), a truthful own past, any Groves term fixed given the others' reports,
        and any strategy of reports from that node on, gains conditional on the node, with
        `chance` no less than that of `purchase_support`; targets must be utilities.

        *Proof.* Settled with means u + beta, a strategy that makes the platform follow plan x
        yields, up to the Groves term, S(x) + b(x): the surplus of x and the expected bias at
        the purchase. Truth yields S(x*) + b(x*), and S(x*) >= S(x) as x* is efficient, so the
        gain is at most b(x) - b(x*). A conversation has at most one purchase. Given omega, b(x)
        is the mean over the situations e in which it may end, by the probability that it does,
        of sum_j beta_j P(j bought | it ends at e, omega); these probabilities sum to at most 1
        over j, and each is at most s_j. So -max beta- <= b(x) <= max beta+, and b(x) is at
        most s'beta+ and at least -s'beta-; averaging over omega keeps both.
        """
        up, down = (np.maximum(sign * np.nan_to_num(self.bias), 0) for sign in (1, -1))
        by_taste = sum((self.chance * side).sum(axis=0).max() for side in (up, down))
        return float(min(up.max() + down.max(), by_taste))

    def confused(self, product: int, most: int = 10) -> Int[np.ndarray, "pairs 2"]:
        """Pairs of tastes of the support with one law of symbols and different targets.

        The widest gaps first, at most `most`, lower target first. There may be none although
        (D) fails: then only mixtures are confused, see `mixtures`.
        """
        rows = np.flatnonzero(self.chance[product] > 0)
        law, target = self.channel[product][rows], self.target[product][rows]
        close = 8 * _epsilon(self.channel)
        pairs, gaps = [np.zeros((0, 2), np.int64)], [np.zeros(0)]
        for i, row in enumerate(law):
            same = np.flatnonzero(np.abs(law - row).max(axis=1) <= close)
            same = same[target[same] > target[i] + self.tolerance[product]]
            pairs.append(np.stack([np.full(len(same), rows[i]), rows[same]], axis=1))
            gaps.append(target[same] - target[i])
        order = np.argsort(-np.concatenate(gaps), kind="stable")[:most]
        return np.concatenate(pairs)[order]

    def to_frame(self, names: tuple[str, ...] | None = None):
        """Labelled pandas table: one row a product."""
        pandas = import_extra("pandas", "experiments", "Decoder.to_frame")
        gap = ((self.mixtures[:, 1] - self.mixtures[:, 0]) * self.target).sum(axis=1)
        return pandas.DataFrame(
            {
                "product": list(names or range(len(self.values))),
                "unbiased": self.unbiased,
                "rank": self.rank,
                "largest_bias": self.largest_bias,
                "lost_rms": self.lost_norm,
                "confused_gap": gap,
                "deviation": np.sqrt(self.expected_variance),
                "tolerance": self.tolerance,
            }
        )


def decode_utilities(
    channel: npt.ArrayLike,
    utilities: npt.ArrayLike,
    support: npt.ArrayLike | None = None,
    prior: npt.ArrayLike | None = None,
    *,
    fallback: str = "minimax",
    slack: float = 1e-3,
    allow: float = 0.0,
) -> Decoder:
    """Find what to settle each symbol at, so that purchases are settled at u_j on average.

    Where (D) has a solution, the one that minimises the expected variance: with N a basis of
    the null space of L on the support and D = diag(weights' L), v = v0 - N (N'DN)^+ N'D v0, v0
    any solution (variance is v'Dv less a constant). Otherwise the least biased decoder.

    Exact up to rounding: (D) counts as solved when max |L v - u_j| over the support is at most

        tolerance = max(support size, Z) * 8 eps * max(|u|, |v|),  never above sqrt(eps) max |u|,

    eps being the machine epsilon of the channel's type: a row of L sums to 1, so that evaluating
    (L v)(omega) alone may cost Z eps max |v|. Singular values of L below max(support size, Z) eps
    times the largest count as zero; the fallback also leaves out those below eps^(1/4) times the
    largest, along which amounts pass |u| / eps^(1/4), about 8,000 times the utilities in float64.

    Where a channel hardly tells tastes apart, amounts and variance are large all the same: see
    `expected_variance`. Then `slack` and `allow` buy calm: on the 1990 cars, rated in 20 symbols,
    a tenth more than the least bias brings a standard deviation of 100,000 down to 10.

    **Arguments**

    - `channel`: L, shape (m, Z), or (n, m, Z) if it depends on the product; rows sum to 1.
    - `utilities`: (n, m), money.
    - `support`: (n, m), boolean: where buying j has positive probability; or that probability,
      as `purchase_support` gives it: then the positive entries are the support, and the fallback
      minimises the bias times it. Everywhere by default. A taste of prior weight 0 never counts.
    - `prior`: weights of the tastes when j is bought, (m,) or (n, m); even by default.
    - `fallback`: "minimax": minimise max over the support of chance * |bias|, a linear
      program; "least squares": minimise the mean square bias by `prior`.
    - `slack`, `allow` (money): with "minimax", chance * |bias| may be as large as (1 + slack)
      times the least, or `allow` if that is more (then even where (D) has a solution), and
      among those v the mean square error E[(v - u_j)^2] by `prior`, variance and bias
      together, is minimised: a quadratic program.

    **Returns:** `Decoder`.

    **Raises:** `InvalidArgument` (shapes, ranges), `InvalidProbability`, `NotFinite`.

    **References:** paper C, Assumption 3 and Theorem 1; Bergemann et al. (2025), paper D,
    section 3 for unbiased estimators in static settings.

    ```python
    >>> channel = [[0.9, 0.1], [0.2, 0.8]]  # "happy" or "unhappy" after the purchase
    >>> decoder = decode_utilities(channel, [[1.0, -1.0]])
    >>> decoder.unbiased.tolist(), decoder.values.round(6).tolist()
    ([True], [[1.285714, -1.571429]])

    ```
    """
    return _decode(
        "decode_utilities", "utilities", channel, utilities, support, prior, fallback, slack, allow
    )


def decode_tastes(
    channel: npt.ArrayLike,
    tastes: TasteGrid | npt.ArrayLike,
    support: npt.ArrayLike | None = None,
    prior: npt.ArrayLike | None = None,
    *,
    fallback: str = "minimax",
    slack: float = 1e-3,
    allow: float = 0.0,
) -> Decoder:
    """Find an estimate of all of omega: E[v(z) | omega] = omega on the support.

    Sufficient for every product, and more than payments need. Where it exists, gamma @ values
    are the decoders of least variance of all utilities, as least variance is linear in the target.

    **Arguments:** as `decode_utilities`, with `tastes` a `TasteGrid` (its weights are the
    default `prior`) or points (m, k); `channel` (m, Z); `support` (m,).

    **Returns:** `Decoder` whose rows are the k coordinates of omega, in their own units;
    `values` (k, Z). Settle with `ChannelSettlement(channel, gamma @ decoder.values)`.

    **Raises:** as `decode_utilities`.
    """
    call = "decode_tastes"
    held = tastes.points if isinstance(tastes, TasteGrid) else tastes
    points, channel = (
        as_floats(held, f"{call}(tastes=...)"),
        as_floats(channel, f"{call}(channel=...)"),
    )
    if isinstance(tastes, TasteGrid) and prior is None:
        prior = tastes.weights
    if np.ndim(points) != 2 or np.ndim(channel) != 2:
        must = "come with points (m, k) and a channel (m, Z)"
        got = f"shapes {np.shape(points)} and {np.shape(channel)}"
        raise InvalidArgument(describe(f"{call}(tastes=...)", must, got))
    if support is not None:
        support = as_floats(support, f"{call}(support=...)")
        if np.shape(support) != np.shape(points)[:1]:
            must = f"have shape {np.shape(points)[:1]}"
            raise InvalidArgument(describe(f"{call}(support=...)", must, np.shape(support)))
        support = np.broadcast_to(support, np.shape(points)[::-1])
    target = np.asarray(points).T
    return _decode(call, "tastes", channel, target, support, prior, fallback, slack, allow)


def _decode(
    call: str,
    name: str,
    channel: npt.ArrayLike,
    target: npt.ArrayLike,
    support: npt.ArrayLike | None,
    prior: npt.ArrayLike | None,
    fallback: str,
    slack: float,
    allow: float,
) -> Decoder:
    law = np.asarray(as_floats(channel, f"{call}(channel=...)"))
    eps = _epsilon(law)
    target = np.asarray(as_floats(target, f"{call}({name}=...)"), np.float64)
    if target.ndim != 2 or 0 in target.shape:
        raise InvalidArgument(describe(f"{call}({name}=...)", "have shape (n, m)", target.shape))
    require_finite(f"{call}({name}=...)", target)
    n, m = target.shape
    if law.ndim not in (2, 3) or law.shape[:-1] not in ((m,), (n, m)) or law.shape[-1] == 0:
        must = f"have shape ({m}, Z) or ({n}, {m}, Z), a row for each taste of `{name}`"
        raise InvalidArgument(describe(f"{call}(channel=...)", must, f"shape {law.shape}"))
    law = require_probabilities(f"{call}(channel=...)", law)
    choice(*_FALLBACKS)(f"{call}(fallback=...)", fallback)
    for word, value in (("slack", slack), ("allow", allow)):
        number(least=0)(f"{call}({word}=...)", value)
    if allow > 0 and fallback != "minimax":
        must = 'be 0 unless fallback="minimax"'
        raise InvalidArgument(describe(f"{call}(allow=...)", must, allow))
    law = np.broadcast_to(law.astype(np.float64), (n, m, law.shape[-1]))
    weights = _table(f"{call}(prior=...)", np.ones(m) if prior is None else prior, (n, m))
    chance = _table(f"{call}(support=...)", np.ones((n, m)) if support is None else support, (n, m))
    if (chance > 1 + 1e-9).any():
        must = "be boolean or probabilities"
        raise InvalidArgument(describe(f"{call}(support=...)", must, float(chance.max())))
    chance = np.where(weights > 0, chance, 0.0)
    weights = np.where(chance > 0, weights, 0.0)
    total = weights.sum(axis=1, keepdims=True)
    weights = weights / np.where(total > 0, total, 1)
    options = (eps, fallback, slack, allow)
    parts = [decode_one(law[j], target[j], chance[j], weights[j], *options) for j in range(n)]
    values, unbiased, rank, tolerance, lost, mixtures = (np.array(x) for x in zip(*parts))
    return Decoder(
        values,
        law,
        target,
        chance,
        weights,
        unbiased,
        rank,
        tolerance,
        lost,
        mixtures,
        str(fallback),
    )


def _table(call: str, given: npt.ArrayLike, shape: tuple[int, int]) -> Float[np.ndarray, "n m"]:
    array = np.asarray(as_floats(given, call), np.float64)
    if array.shape not in (shape, shape[1:]):
        must = f"have shape {shape[1:]} or {shape}"
        raise InvalidArgument(describe(call, must, f"shape {array.shape}"))
    require_finite(call, array)
    if (array < 0).any() or not (array > 0).any():
        must = "be nonnegative and somewhere positive"
        raise InvalidArgument(describe(call, must, f"from {array.min()} to {array.max()}"))
    return np.broadcast_to(array, shape)


def _epsilon(array: np.ndarray) -> float:
    """Machine epsilon of the type in which a channel was given."""
    return float(np.finfo(array.dtype).eps)
