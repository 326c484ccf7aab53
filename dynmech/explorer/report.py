"""Write a mechanism as one HTML page that explains itself and can be played."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os

from dynmech import files
from dynmech._checks import instance, whole
from dynmech.audit import Audit
from dynmech.errors import InvalidArgument, describe
from dynmech.explorer.content import Content, content, filled, resource
from dynmech.mechanism.team import DynamicTeamMechanism

MOST = 1024  # points of conversations


def report(
    mechanism: DynamicTeamMechanism,
    path: str | os.PathLike[str],
    *,
    audit: Audit | None = None,
    profile: int = 0,
    unit: str = "money",
    points: int = MOST,
) -> None:
    """Write one self-contained page about a mechanism: read it, play it, send it.

    Overview of market and policy; the audit's verdicts with their witnesses; what each advertiser
    earns, is paid, is charged and keeps; and a conversation that the reader plays: what the
    shopper does and says, what is believed, what is shown next and what comes second, what
    learning is worth, every transfer, and what if one advertiser had reported otherwise. The
    address names the place, so that it can be sent. No network, no server; the page allows itself
    nothing but its own script and style. Every number is the library's: the page adds up a core
    transfer, a rating times a slope and a Groves total, no more. `explore` is the same in Jupyter.

    **Arguments**

    - `path`: of the file, written whole or not at all.
    - `audit`: of this mechanism; made by default.
    - `profile`: index of the solved profile that is played as the truth; `unit`: of money.
    - `points`: points of conversations that are written, at most, the likeliest first, half of them
      for the truth; the page says which share of the conversations stays on them.

    **Raises:** `InvalidArgument`, `OutsideSupport`; `DynmechError` for a policy that is simulated,
    whose conversations have no exact numbers to play.
    """
    audit = checked("report", mechanism, audit, profile, unit, points)
    text = _page(content(mechanism, audit, int(profile), unit, points))
    files.write(path, text, call="report(path=...)")


def checked(
    verb: str,
    mechanism: DynamicTeamMechanism,
    audit: Audit | None,
    profile: int,
    unit: str,
    points: int,
) -> Audit:
    """Raise unless a page can be made of this; its audit."""
    call = f"{verb}({{}}=...)".format
    instance(DynamicTeamMechanism, "a DynamicTeamMechanism")(call("mechanism"), mechanism)
    instance(Audit | None, "an Audit of the mechanism")(call("audit"), audit)
    instance(str, "the unit of money, as 'dollars'")(call("unit"), unit)
    whole(1)(call("points"), points)
    mechanism.policy.profile_at(verb, profile)
    if audit is None:
        return mechanism.audit()
    if audit.names != mechanism.policy.env.names:
        must, got = "be of this mechanism", f"one of {', '.join(audit.names)}"
        raise InvalidArgument(describe(call("audit"), must, got))
    return audit


def _page(made: Content) -> str:
    style, script = resource("page.css"), resource("explorer.js")
    rules = {
        "default-src": "'none'",
        "style-src": _digest(style),
        "script-src": _digest(script),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    parts = {
        "policy": "; ".join(f"{name} {allowed}" for name, allowed in rules.items()),
        "title": html.escape(made.title),
        "style": style,
        "body": made.body(""),
        # Within a script no tag may be closed, whatever a product is called.
        "data": json.dumps(made.data, allow_nan=False, separators=(",", ":")).replace(
            "<", "\\u003c"
        ),
        "script": script,
    }
    return filled(resource("page.html"), parts)


def _digest(text: str) -> str:
    found = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{found}'"
