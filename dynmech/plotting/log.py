"""What a person looks at first in a log: how conversations go, round by round and by product."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from dynmech._checks import checked, instance
from dynmech.logs.log import Log
from dynmech.plotting.style import GREY, NOTHING, PALETTE, TITLE, bare, new_figure, plain, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_KINDS = (("bought", PALETTE[2]), ("left", NOTHING), ("asked", PALETTE[0]))


@checked(log=instance(Log, "a `Log`, as Log.from_frame(...)"), title=TITLE)
def plot_log(log: Log, *, title: str = "") -> "Figure":
    """Draw what happened in each round, for each product, and after each answer.

    Bars are shares of those at risk, bought, left and asked again, with how many were; a dot is
    the share with a rating. Of a product, what is missing to 1 bought another one, seen before. The
    third picture is left out where nothing was answered.

    **Arguments:** `log`: a `Log`; `title`: above all.
    """
    tables = [("round", log.funnel()), ("product shown", log.by_product())]
    if log.censored < len(log) and (log.round > 1).any():
        after = log.by_answer()
        if len(after):
            tables.append(("answer in the round before", after))
    width = sum(1.2 + 0.75 * len(table) for _, table in tables)
    ratios = [1.2 + 0.75 * len(table) for _, table in tables]
    figure, axes = new_figure(
        "plot_log", max(width, 6.0), 3.6, ncols=len(tables), sharey=True, width_ratios=ratios
    )
    for place, (name, table) in zip(np.atleast_1d(axes), tables, strict=True):
        _bars(place, name, table)
    first = np.atleast_1d(axes)[0]
    first.set_ylabel("share")
    first.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=4)
    if title:
        figure.suptitle(plain(title))
    return figure


def _bars(axes: "Axes", name: str, table: pd.DataFrame) -> None:
    """Stacked shares of one table, and the share rated."""
    place, base = np.arange(len(table)), np.zeros(len(table))
    for kind, colour in _KINDS:
        share = table[kind].to_numpy(float)
        axes.bar(place, share, 0.7, base, color=colour, label=kind)
        base += share
    axes.plot(place, table["rated"], "o", color=PALETTE[5], markersize=5, label="rated")
    for x, (count, top) in enumerate(zip(table["at_risk"], base, strict=True)):
        axes.text(x, top + 0.01, f"{int(count):,}", ha="center", fontsize=7, color=GREY)
    axes.set_xticks(place, wrapped([str(x) for x in table.index], 12, 3), fontsize=8)
    axes.set_xlabel(name, fontsize=9)
    bare(axes, "bottom")
