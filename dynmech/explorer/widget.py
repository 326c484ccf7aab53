"""The page of a mechanism inside a notebook."""

from __future__ import annotations

import itertools
from typing import Any

from dynmech.audit import Audit
from dynmech.errors import import_extra
from dynmech.explorer.content import content, resource
from dynmech.explorer.report import MOST, checked
from dynmech.mechanism.team import DynamicTeamMechanism

_COUNT = itertools.count()  # ids of two widgets of one notebook differ


def explore(
    mechanism: DynamicTeamMechanism,
    *,
    audit: Audit | None = None,
    profile: int = 0,
    unit: str = "money",
    points: int = MOST,
) -> Any:
    """Make a Jupyter widget of what `report` writes: overview, verdicts, payments, a conversation.

    The same script and style run in the notebook, in Lab, and in what else shows widgets.

    **Arguments:** as those of `report`.

    **Returns:** an `anywidget.AnyWidget` (extra `notebook`), which shows itself as the last
    expression of a cell.

    **Raises:** as `report`; `MissingExtra` without the extra.
    """
    anywidget = import_extra("anywidget", "notebook", "explore")
    traitlets = import_extra("traitlets", "notebook", "explore")
    audit = checked("explore", mechanism, audit, profile, unit, points)
    made = content(mechanism, audit, int(profile), unit, points)
    body = made.body(f"dynmech-{next(_COUNT)}-")

    class Explorer(anywidget.AnyWidget):
        _esm = resource("explorer.js")
        _css = resource("page.css")
        body = traitlets.Unicode().tag(sync=True)
        data = traitlets.Dict().tag(sync=True)

    return Explorer(body=body, data=made.data)
