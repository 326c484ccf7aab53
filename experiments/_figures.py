"""Figures of the experiments: one look, nothing left open in pyplot, no global settings."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Distinct to colour-blind readers as well (Okabe and Ito, 2008).
BLUE, ORANGE, GREEN, RED, PINK, SKY = (
    "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9",
)  # fmt: skip
COLOURS = (BLUE, RED, GREEN, ORANGE, PINK, SKY)
GREY = "#555555"
RESULTS = Path("results")


def new_figure(width: float, height: float, **subplots: Any) -> tuple[Figure, Any]:
    """Make a figure and its axes, closed in pyplot."""
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained", **subplots)
    plt.close(figure)
    return figure, axes


def tidy(axes: Axes, title: str, across: str, up: str, zero: bool = False) -> None:
    """Label both axes with their units, hide the frame, draw a line at zero if asked."""
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    for side in ("right", "top"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="y", color="#E5E5E5", linewidth=0.8)
    axes.set_axisbelow(True)
    if zero:
        axes.axhline(0, color=GREY, linewidth=0.8)
