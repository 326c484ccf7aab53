"""Compare two kept runs of the benchmarks, and fail where the second is slower beyond a threshold.

Seconds of a row are taken over those of a fixed piece of work that was timed in the same run, so
that another machine, or a busier one, is not mistaken for a loss; what is left is rough all the
same. A row of the first run that the second lacks is a loss too: nothing shows that it is not.
"""

import json
import sys
from pathlib import Path
from typing import Any

import tyro
from rich.console import Console
from rich.table import Table


def compare(
    old: dict[str, Any], new: dict[str, Any], threshold: float = 1.3, least: float = 0.01
) -> list[dict[str, Any]]:
    """Ratios of the seconds of rows by name, the first run's order, then what only the second has.

    **Arguments:** `threshold`: ratio from which on a row is a loss; `least`: seconds below which
    no difference is.

    **Returns:** of each row "what", "old", "new" (NaN where it is missing), "ratio" and "loss".
    """
    here, there = ({row["what"]: row["seconds"] for row in run["rows"]} for run in (old, new))
    pace, found = new["reference"] / old["reference"], []
    for what in [*here, *(name for name in there if name not in here)]:
        before, after = (side.get(what, float("nan")) for side in (here, there))
        ratio = after / before / pace if before else float("nan")
        slower = ratio > threshold and after / pace - before > least
        loss = what not in there or slower
        found.append({"what": what, "old": before, "new": after, "ratio": ratio, "loss": loss})
    return found


def main(
    old: tyro.conf.Positional[Path],
    new: tyro.conf.Positional[Path],
    threshold: float = 1.3,
    least: float = 0.01,
) -> None:
    """Print the ratios of two runs, and exit with 1 where something was lost.

    Args:
        old: What was measured before, as JSON.
        new: What is measured now.
        threshold: Ratio from which on a row is a loss.
        least: Seconds that a row has to lose at least.
    """
    before, now = (json.loads(path.read_text(encoding="utf-8")) for path in (old, new))
    found = compare(before, now, threshold, least)
    title = f"{now['commit']} over {before['commit']}, at the pace of one machine"
    table = Table("what", "seconds before", "now", "ratio", "", title=title)
    for row in found:
        numbers = [f"{row[name]:.3g}" for name in ("old", "new", "ratio")]
        table.add_row(row["what"], *numbers, "LOSS" if row["loss"] else "")
    Console().print(table)
    lost = sum(row["loss"] for row in found)
    print(f"{lost} of {len(found)} rows slower than {threshold:g} times, or missing.")
    sys.exit(lost > 0)


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
