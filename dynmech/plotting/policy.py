"""The policy as a tree: rounds left to right, a box for what is recommended."""

from typing import TYPE_CHECKING

import numpy as np

from dynmech._checks import checked, optional, probability
from dynmech._types import NONE
from dynmech.plotting.style import (
    GREY,
    NOTHING,
    TITLE,
    bare,
    new_figure,
    plain,
    product_colours,
    wrapped,
)
from dynmech.plotting.tree import (
    PRICED,
    Branch,
    policy_tree,
    product_label,
    signal_label,
    signal_word,
)
from dynmech.policy.base import AbstractPricedPolicy
from dynmech.policy.priced import AbstractPriced

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_MOST_ROWS = 18
_BOX, _GAP = 1.0, 1.0


@checked(policy=PRICED, least=optional(probability), title=TITLE)
def plot_policy_tree(
    policy: AbstractPricedPolicy, profile: int = 0, *, least: float | None = None, title: str = ""
) -> "Figure":
    """Draw what the policy recommends from an initial profile, round by round.

    A box is what is recommended after the signals on the lines that lead to it, with the
    probability that the conversation gets there; lines are as thick as that probability.
    Siblings that recommend the same product are drawn together.

    **Arguments:** `profile`: index of a solved profile; `least`: branches rarer than this are
    left out; by default the smallest of 0, 0.1%, 0.2%, 0.5%, 1%, ... that leaves 18 rows.
    """
    whole = policy_tree(policy, profile)
    levels = (least,) if least is not None else (0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1)
    root, level = whole, 0.0
    for level in levels:
        root = whole.prune(level)
        if root.leaves <= _MOST_ROWS:
            break
    rounds = max(branch.round for branch in root.walk())
    height = 2.0 + 0.42 * max(root.leaves, 5)
    figure, axes = new_figure("plot_policy_tree", 3.0 + 2.5 * rounds, height)
    colours = product_colours(policy.env.products)
    rows = iter(range(root.leaves))
    place: dict[int, float] = {}

    def settle(branch: Branch) -> float:
        if branch.children:
            ys = [settle(child) for child in branch.children]
            place[id(branch)] = (ys[0] + ys[-1]) / 2
        else:
            place[id(branch)] = float(next(rows))
        return place[id(branch)]

    settle(root)
    for branch in root.walk():
        y = place[id(branch)]
        for child in branch.children:
            _line(axes, y, place[id(child)], child, root.probability)
        _box(axes, policy, branch, y, colours)
    word = signal_word(policy)
    for t in range(rounds):
        x = t * (_BOX + _GAP) + _BOX / 2
        axes.text(x, -1.0, f"round {t + 1}", ha="center", va="center", fontsize=11, color=GREY)
    axes.set_xlim(-0.05, rounds * (_BOX + _GAP) - _GAP + 0.05)
    axes.set_ylim(root.leaves - 0.3, -1.4)
    axes.set_xticks([])
    axes.set_yticks([])
    bare(axes)
    names = plain(title) or "What is recommended after what was heard"
    figure.suptitle(names, x=0.01, ha="left", fontsize=14, weight="bold")
    axes.set_title(_caption(policy, root, word, level), loc="left", fontsize=9.5, color=GREY)
    return figure


def _caption(policy: AbstractPriced, root: Branch, word: str, least: float) -> str:
    symbols = policy.env.feedback_alphabet[0]
    scale = f" (1 lowest, {symbols} highest)" if word == "rating" else ""
    parts = [f"On the lines: the {word} of what was just shown{scale}."]
    parts.append("In the boxes: the probability of getting there.")
    labels = [c.symbols for b in root.walk() for c in b.children]
    crossing = sum(len(x) for x in labels) > sum(
        len({z for c in b.children for z in c.symbols}) for b in root.walk()
    )
    if crossing:
        parts.append(f"\nA {word} that leads to several boxes: earlier ones decide which.")
    missing = sum(branch.left_out for branch in root.walk())
    if missing > 0:
        parts.append(f"Branches below {100 * least:g}% are left out ({100 * missing:.1f}% in all).")
    return " ".join(parts)


def _line(axes: "Axes", y: float, to: float, child: Branch, total: float) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    start = (child.round - 2) * (_BOX + _GAP) + _BOX
    end = start + _GAP
    bend = start + 0.35 * _GAP
    points = [(start, y), (bend, y), (bend - 0.1 * _GAP, to), (bend + 0.25 * _GAP, to), (end, to)]
    codes = [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4, Path.LINETO]
    width = 0.6 + 9.0 * child.probability / total
    curve = Path(points, codes)
    axes.add_patch(
        PathPatch(curve, fill=False, lw=width, color="#BBBBBB", capstyle="butt", zorder=1)
    )
    axes.text(
        end - 0.03 * _GAP, to, signal_label(child.symbols), ha="right", va="center", fontsize=9,
        bbox={"boxstyle": "round,pad=0.12", "fc": "white", "ec": "none", "alpha": 0.9}, zorder=3,
    )  # fmt: skip


def _box(
    axes: "Axes", policy: AbstractPriced, branch: Branch, y: float, colours: list[str]
) -> None:
    from matplotlib.patches import FancyBboxPatch

    x = (branch.round - 1) * (_BOX + _GAP)
    first = [*np.atleast_1d(np.asarray(branch.recommendation, int)).tolist(), NONE][0]
    colour = NOTHING if first == NONE else colours[first]
    style = "round,pad=0,rounding_size=0.06"
    axes.add_patch(
        FancyBboxPatch(
            (x, y - 0.4), _BOX, 0.8, boxstyle=style, fc=colour, ec=colour, alpha=0.35, zorder=2
        )
    )
    label = wrapped([product_label(policy, branch.recommendation)], 20, 4)[0]
    share = f"{100 * branch.probability:.0f}%" if branch.probability >= 0.095 else None
    share = share or f"{100 * branch.probability:.1f}%"
    size = 9 if "\n" not in label else 7.5
    axes.text(x + 0.04, y, label, ha="left", va="center", fontsize=size, zorder=4)
    axes.text(x + _BOX - 0.04, y, share, ha="right", va="center", fontsize=8, color=GREY, zorder=4)
