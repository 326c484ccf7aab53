"""Tables for a paper: any labelled table as LaTeX, labels drawn as given."""

import numbers
from typing import Any

import numpy as np

from dynmech._checks import checked, whole
from dynmech.errors import InvalidArgument, describe, shown

_WRITTEN = str.maketrans(
    {x: f"\\{x}" for x in "&%$#_{}"}
    | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}
)


@checked(digits=whole(1))
def to_latex(table: Any, *, digits: int = 4) -> str:
    r"""Write a table as a LaTeX `tabular` with the rules of the package `booktabs`.

    Signs that LaTeX reads as commands are escaped, in labels and in cells; numbers have `digits`
    digits and are set on the right; what does not exist is a dash. Labels that are not in Latin
    letters need a compiler that reads them, such as `lualatex`.

    **Arguments:** `table`: a pandas frame or series, or anything that has one by `to_frame()`: a
    policy, an audit, a comparison, a ledger, a fit, a log.

    **Raises:** `InvalidArgument` for anything else.

    ```python
    >>> import pandas as pd, dynmech as dm
    >>> print(dm.to_latex(pd.DataFrame({"share [%]": [12.3456]}, index=["A_1"])))
    \begin{tabular}{lr}
    \toprule
     & share [\%] \\
    \midrule
    A\_1 & 12.35 \\
    \bottomrule
    \end{tabular}

    ```
    """
    frame = getattr(table, "to_frame", lambda: table)()
    if any(getattr(frame, name, None) is None for name in ("columns", "index", "iloc")):
        must = "be a pandas frame, or have one by to_frame(), as policies and audits do"
        raise InvalidArgument(
            describe("to_latex(table=...)", must, shown(table), "pass audit.to_frame()")
        )
    labels = _labels(frame.index)
    columns = [*labels, *((_words(name), list(frame.iloc[:, k])) for k, name in enumerate(frame))]
    right = [all(_is_number(x) for x in cells) for _, cells in columns]
    rows = zip(*([_cell(x, digits) for x in cells] for _, cells in columns), strict=True)
    lines = [" & ".join(row) + r" \\" for row in rows]
    return "\n".join([
        rf"\begin{{tabular}}{{{''.join('r' if x else 'l' for x in right)}}}",
        r"\toprule",
        " & ".join(_cell(name, digits) for name, _ in columns) + r" \\",
        r"\midrule",
        *lines,
        r"\bottomrule",
        r"\end{tabular}",
    ])  # fmt: skip


def _labels(index: Any) -> list[tuple[str, list[Any]]]:
    """The row labels, a column each level; none where rows are merely counted."""
    if index.nlevels == 1 and index.name is None and list(index) == list(range(len(index))):
        return []
    names = ["" if name is None else str(name) for name in index.names]
    return [(name, list(index.get_level_values(k))) for k, name in enumerate(names)]


def _words(name: Any) -> str:
    """A column's label; one of several levels is joined."""
    return ", ".join(str(part) for part in name) if isinstance(name, tuple) else str(name)


def _is_number(x: Any) -> bool:
    return isinstance(x, numbers.Real | np.number) and not isinstance(x, bool | np.bool_)


def _cell(x: Any, digits: int) -> str:
    if x is None or (_is_number(x) and np.isnan(float(x))):
        return "--"
    if not _is_number(x):
        return " ".join(str(x).split()).translate(_WRITTEN)
    if isinstance(x, numbers.Integral):
        return f"{int(x)}"
    mantissa, _, power = f"{float(x) + 0.0:.{digits}g}".partition("e")
    mantissa = mantissa.replace("inf", r"$\infty$").replace("-", "$-$")
    return mantissa + (rf" $\cdot 10^{{{int(power)}}}$" if power else "")
