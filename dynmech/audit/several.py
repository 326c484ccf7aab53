"""One mechanism where each of several markets is the truth: a row each, and what most say."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from dynmech._html import as_html, portrait
from dynmech._types import Record
from dynmech.audit import cards
from dynmech.audit.record import Audit
from dynmech.errors import import_extra


class AuditsUnder(Record):
    """The audits of a mechanism under D markets, in their order; iterable.

    Over markets drawn from an estimate, quantiles are approximate: the gain is never negative and
    is zero where the fit itself is true.
    """

    audits: tuple[Audit, ...]

    def __repr__(self) -> str:
        return portrait(self, cards.several)

    def _repr_html_(self) -> str:
        return portrait(self, cards.several, as_html)

    def __len__(self) -> int:
        return len(self.audits)

    def __iter__(self) -> Iterator[Audit]:
        return iter(self.audits)

    def __getitem__(self, index: int) -> Audit:
        return self.audits[index]

    @property
    def incentive_gain(self) -> Float[np.ndarray, "D n"]:
        """Largest gain of each advertiser under each market, (D, n), money."""
        return np.array([audit.incentive_gain for audit in self.audits])

    def quantile(self, level: float) -> float:
        """The largest gain of anybody that a share `level` of the markets does not exceed, money.

        The least such number, an order statistic: nothing is interpolated.
        """
        largest = self.incentive_gain.max(axis=1)
        return float(np.quantile(largest, level, method="inverted_cdf"))

    def to_frame(self):
        """Labelled pandas table: one row a market and advertiser; money, worst over profiles.

        With the bias of estimates, and what policy and market are worth, means over profiles.
        """
        pandas = import_extra("pandas", "experiments", "AuditsUnder.to_frame")
        frames = [audit.to_frame() for audit in self.audits]
        for audit, frame in zip(self.audits, frames, strict=True):
            frame["bias"] = audit.bias
            frame["mean_value"] = np.nanmean(audit.value.value)
            frame["mean_best"] = np.nanmean(audit.best.value)
        return pandas.concat(frames, keys=range(len(frames)), names=["market", "row"]).reset_index(
            level="market"
        )

    def summary(self) -> str:
        """Gains over the markets, and the worst participation and subsidy."""
        least = min(float(np.nanmin(audit.participation)) for audit in self.audits)
        money = min(float(np.nanmin(audit.no_subsidy)) for audit in self.audits)
        worst = float(self.incentive_gain.max())
        head = f"Under {len(self)} markets (where they are draws, approximate): largest gain "
        head += f"{self.quantile(0.5):.2g} at the median draw, below {self.quantile(0.95):.2g} in "
        head += f"95% of draws, at most {worst:.2g}"
        lost = max(float(np.nanmax(audit.best.value - audit.value.value)) for audit in self.audits)
        bound = max(float(audit.incentive_bound.max()) for audit in self.audits)
        bias = max(audit.bias for audit in self.audits)
        lines = [head, f"  surplus        at most {lost:.4g} below what is best in the market"]
        lines.append(f"    certified: no report gains more than {bound:.4g} (bias {bias:.2g})")
        lines = [*lines, f"  participation  worst slack {least:.4g}"]
        return "\n".join([*lines, f"  no subsidy     worst slack {money:.4g}"])
