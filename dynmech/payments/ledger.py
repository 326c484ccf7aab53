"""What one conversation settled at, period by period."""

from __future__ import annotations

import equinox as eqx
import numpy as np
from jaxtyping import Float

from dynmech import files
from dynmech._html import Card, amount, as_html, portrait, span
from dynmech._types import Record
from dynmech.errors import import_extra
from dynmech.market.displays import named
from solvers.kept import require_indices, require_numbers


class Ledger(files.Kept, Record):
    """What one conversation settled at, period by period, money paid by the advertisers.

    - `period` (rows,), counted from 1; `recommendation`, `shown`: what was recommended and what
      was displayed (-1 for none; (rows, K) places where several products are shown at once);
      `action` codes. `off_model`: whether something happened that the model thought impossible.
    - `conversation` (rows,): which one, where many were settled at once; None for one.
    - `estimate` (rows,): estimated utility of the product bought, NaN where none was.
    - `cost` (rows,): what a query cost the user, as it was charged to every advertiser.
    - `core`, `groves`, `transfer` (rows, n): the team transfer, the Groves term (by
      installments), and their sum. `revenue` (rows,): what the platform receives.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    period: np.ndarray
    recommendation: np.ndarray
    shown: np.ndarray
    action: np.ndarray
    estimate: Float[np.ndarray, " rows"]
    cost: Float[np.ndarray, " rows"]
    core: Float[np.ndarray, "rows n"]
    groves: Float[np.ndarray, "rows n"]
    off_model: bool = eqx.field(static=True, default=False)
    conversation: np.ndarray | None = None

    def check_kept(self) -> None:
        """Raise `ValueError` for codes that nothing has, and money that is not finite."""
        n = len(self.names)
        require_indices("period", self.period, 1 << 62, 1)
        require_indices("recommendation", self.recommendation, n, -1)
        require_indices("shown", self.shown, n, -1)
        require_indices("action", self.action, n + 2, -1)
        require_numbers("estimate", self.estimate, blank=True)
        for name, money in (("cost", self.cost), ("core", self.core), ("groves", self.groves)):
            require_numbers(name, money)
        if self.conversation is not None:
            require_indices("conversation", self.conversation, 1 << 62)

    @property
    def transfer(self) -> Float[np.ndarray, "rows n"]:
        return self.core + self.groves

    @property
    def revenue(self) -> Float[np.ndarray, " rows"]:
        return self.transfer.sum(axis=1)

    def __repr__(self) -> str:
        return portrait(self, _card)

    def _repr_html_(self) -> str:
        return portrait(self, _card, as_html)

    def to_frame(self):
        """Labelled pandas table: one row a period and advertiser."""
        pandas = import_extra("pandas", "experiments", "Ledger.to_frame")
        rows, n = self.core.shape
        words = {**dict(enumerate(self.names)), n: "exit", n + 1: "query"}
        both = self.recommendation, self.shown
        said, seen = ([named(self.names, row) for row in x.tolist()] for x in both)
        one = {} if self.conversation is None else {"conversation": np.repeat(self.conversation, n)}
        return pandas.DataFrame(
            {
                **one,
                "period": np.repeat(self.period, n),
                "recommendation": np.repeat(said, n),
                "shown": np.repeat(seen, n),
                "action": np.repeat(
                    [f"buy {words[a]}" if a < n else words[a] for a in self.action.tolist()], n
                ),
                "estimate": np.repeat(self.estimate, n),
                "cost": np.repeat(self.cost, n),
                "advertiser": np.tile(np.array(self.names, dtype=object), rows),
                "core_transfer": self.core.ravel(),
                "groves_term": self.groves.ravel(),
                "transfer": self.transfer.ravel(),
            }
        )


def _card(it: Ledger) -> Card:
    """What each advertiser paid in all, and of it the Groves term."""
    count = 1 if it.conversation is None else len(np.unique(it.conversation))
    bought = np.isfinite(it.estimate)
    core, groves = it.core.sum(axis=0).tolist(), it.groves.sum(axis=0).tolist()
    settled = f", settled at {span(it.estimate)}" if bought.any() else ""
    return Card(
        f"Ledger: {count} conversation{'' if count == 1 else 's'}, {len(it.core)} rounds",
        (
            ("purchases", f"{int(bought.sum())}{settled}"),
            ("revenue", amount(it.revenue.sum())),
        ),
        ("advertiser", "team transfer", "Groves term", "paid"),
        tuple((x, a, b, a + b) for x, a, b in zip(it.names, core, groves)),
        "Something happened that the model excludes." if it.off_model else "",
    )
