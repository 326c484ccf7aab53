"""What all pictures share: colours, figures, wrapped labels; no global settings."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from dynmech._checks import Convert, instance
from dynmech.errors import InvalidArgument, describe, import_extra, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Distinct to colour-blind readers as well (Okabe and Ito, 2008), then lighter.
PALETTE = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#B8A500", "#D55E00", "#56B4E9", "#8C564B",
    "#66AAD7", "#F5CE80", "#80CFB9", "#E6BCD3",
)  # fmt: skip
NOTHING = "#D9D9D9"
PAYS, RECEIVES = "#0072B2", "#D55E00"
GREY = "#555555"


UNIT = instance(str, "the unit of money, as 'dollars'")
TITLE = instance(str, "a title")


def labelled(kind: type, example: str) -> Convert:
    """A mapping from labels to at least one of a kind, all of the same products."""

    def convert(call: str, value: Any) -> dict[str, Any]:
        fits = isinstance(value, Mapping) and bool(value)
        if not fits or not all(
            isinstance(k, str) and isinstance(v, kind) for k, v in value.items()
        ):
            must = f"hold at least one {kind.__name__} by its label, as {example}"
            raise InvalidArgument(describe(call, must, shown(value)))
        return dict(value)

    return convert


def require_same(call: str, names: Sequence[tuple[str, ...]]) -> None:
    """Raise unless all that is in one picture is of the same products."""
    for other in names:
        if other != names[0]:
            got = f"{', '.join(names[0])} beside {', '.join(other)}"
            raise InvalidArgument(describe(call, "be of the same products", got))


def new_figure(verb: str, width: float, height: float, **subplots: Any) -> tuple["Figure", Any]:
    """Make a figure and its axes, closed in pyplot so that nothing keeps or shows it twice."""
    pyplot = import_extra("matplotlib.pyplot", "experiments", f"plotting.{verb}")
    figure, axes = pyplot.subplots(figsize=(width, height), layout="constrained", **subplots)
    pyplot.close(figure)
    return figure, axes


def product_colours(count: int) -> list[str]:
    """One colour a product; the palette repeats after twelve."""
    return [PALETTE[i % len(PALETTE)] for i in range(count)]


def plain(label: str) -> str:
    """A label that is drawn as given: dollar signs open no mathematics, "_" keeps it in legends."""
    hidden = str(label).startswith("_")  # matplotlib leaves such labels out
    return ("\u200b" if hidden else "") + str(label).replace("$", r"\$")


def shortened(label: str, most: int = 40) -> str:
    """A long label without its middle, drawn as given: the end may tell it from another."""
    end = most // 4
    return plain(label if len(label) <= most else f"{label[: most - end - 1]}…{label[-end:]}")


def wrapped(labels: Sequence[str], width: int = 18, lines: int = 2) -> list[str]:
    """Break long labels into lines, each drawn as given; what needs more loses its middle."""
    found = []
    for label in labels:
        parts = textwrap.wrap(label, width)
        if len(parts) > lines:
            end = parts[-1][-width // 3 :]
            parts = [*parts[: lines - 1], f"{parts[lines - 1][: width - len(end) - 1]}…{end}"]
        found.append(plain("\n".join(parts)))
    return found


def bare(axes: "Axes", *keep: str) -> None:
    """Hide the frame but for the sides kept."""
    for side in ("left", "right", "top", "bottom"):
        axes.spines[side].set_visible(side in keep)
