"""Write a mechanism as one HTML page that explains itself and can be played."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import os
from importlib.resources import files as resources

import numpy as np

from dynmech import files
from dynmech._checks import instance
from dynmech._html import amount, as_html
from dynmech.audit import Audit
from dynmech.audit.cards import audit as audit_card
from dynmech.errors import InvalidArgument, describe, require_whole
from dynmech.explorer.play import plays, ratings
from dynmech.market.cards import market as market_card
from dynmech.mechanism.team import DynamicTeamMechanism
from dynmech.policy.cards import policy as policy_card

_MOST = 400


def report(
    mechanism: DynamicTeamMechanism,
    path: str | os.PathLike,
    *,
    audit: Audit | None = None,
    profile: int = 0,
    unit: str = "money",
    points: int = _MOST,
) -> None:
    """Write one self-contained page about a mechanism: read it, play it, send it.

    Overview of market and policy; the audit's verdicts with their witnesses; what each advertiser
    earns, is paid and is charged; and a conversation that the reader plays: what the shopper does
    and says, what is shown next, what comes second, every transfer, and what if one advertiser had
    reported otherwise. No network, no server; the page allows itself nothing but its own script
    and style. Every number is the library's: the page adds a rating times a slope, no more.

    **Arguments**

    - `path`: of the file, written whole or not at all.
    - `audit`: of this mechanism; made by default.
    - `profile`: index of the solved profile that is played as the truth; `unit`: of money.
    - `points`: points of conversations that are written, at most; those beyond are named as such.

    **Raises:** `InvalidArgument`, `OutsideSupport`; `DynmechError` for a policy that is simulated,
    whose conversations have no exact numbers to play.
    """
    call = "report({}=...)".format
    instance(DynamicTeamMechanism, "a DynamicTeamMechanism")(call("mechanism"), mechanism)
    instance(Audit | None, "an Audit of the mechanism")(call("audit"), audit)
    instance(str, "the unit of money, as 'dollars'")(call("unit"), unit)
    require_whole(call("points"), points, 1)
    policy = mechanism.policy
    policy.profile_at("report", profile)
    if audit is None:
        audit = mechanism.audit()
    elif audit.names != policy.env.names:
        must, got = "be of this mechanism", f"one of {', '.join(audit.names)}"
        raise InvalidArgument(describe(call("audit"), must, got))
    text = _page(mechanism, audit, int(profile), unit, points)
    files.write(path, text, call="report(path=...)")


def _page(
    mechanism: DynamicTeamMechanism, audit: Audit, profile: int, unit: str, points: int
) -> str:
    policy = mechanism.policy
    env = policy.env
    data = {
        "names": list(env.names),
        "unit": unit,
        "horizon": None if env.horizon == np.inf else int(env.horizon),
        "ratings": ratings(env),
        "spoken": env.feedback_alphabet[0],
        **plays(mechanism, profile, points),
    }
    style, script = _resource("page.css"), _resource("page.js")
    rules = {
        "default-src": "'none'",
        "style-src": _digest(style),
        "script-src": _digest(script),
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    parts = {
        "policy": "; ".join(f"{name} {allowed}" for name, allowed in rules.items()),
        "title": html.escape(f"{type(mechanism.groves).__name__}: {', '.join(env.names[:4])}"),
        "style": style,
        "script": script,
        "market": as_html(market_card(env)),
        "solved": as_html(policy_card(policy)),
        "verdicts": _verdicts(audit),
        "payments": _payments(mechanism, unit),
        # Within a script no tag may be closed, whatever a product is called.
        "data": json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c"),
    }
    page = _resource("page.html")
    for name, part in parts.items():
        page = page.replace(f"<!--{name}-->", part)
    return page


def _resource(name: str) -> str:
    return (resources("dynmech.explorer") / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    found = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{found}'"


def _verdicts(audit: Audit) -> str:
    """The audit's card, and each advertiser's witness in words."""
    lies = [w.sentence() for w in audit.witness if w.gain > audit.tolerance]
    told = "".join(f"<li>{html.escape(x)}</li>" for x in lies)
    return as_html(audit_card(audit)) + (f"<ul>{told}</ul>" if lies else "")


def _payments(mechanism: DynamicTeamMechanism, unit: str) -> str:
    """A waterfall for each advertiser: sales, what she is paid, what is charged, what is left."""
    policy, rows = mechanism.policy, []
    earned, payoff, charged = (
        np.array([np.nanmean(table[i]) for i in range(policy.env.products)])
        for table in (policy.advertiser_value, mechanism.agent_payoff, mechanism.groves_total)
    )
    paid = payoff - earned
    every = np.stack([0 * payoff, earned, payoff, payoff - charged])
    low, wide = float(every.min()), max(float(np.ptp(every)), 1e-300)
    for i, name in enumerate(policy.env.names):
        steps = [
            ("earns on her sales", 0.0, earned[i], "value"),
            ("is paid by the platform", earned[i], payoff[i], "pay"),
            ("is charged, the Groves term", payoff[i], payoff[i] - charged[i], "charge"),
            ("keeps", 0.0, payoff[i] - charged[i], "keep"),
        ]
        sums = (earned[i], paid[i], -charged[i], payoff[i] - charged[i])
        bars = "".join(
            _bar(
                k,
                f"{name} {words}: {amount(x)} {unit}",
                words,
                (a - low) / wide,
                (b - low) / wide,
                kind,
                x,
            )
            for k, ((words, a, b, kind), x) in enumerate(zip(steps, sums))
        )
        rows.append(f"<h3>{html.escape(name)}</h3>{_SVG.format(html.escape(name), bars)}")
    return "".join(rows)


_SVG = '<svg role="img" aria-label="{}" viewBox="0 0 640 88" width="640" height="88">{}</svg>'


def _bar(
    row: int, title: str, words: str, start: float, end: float, kind: str, value: float
) -> str:
    """One step; from 0 to 1 is the middle part of the width."""
    left, wide = 205 + 350 * min(start, end), max(350 * abs(end - start), 1.0)
    y = 4 + 21 * row
    return (
        f"<g><title>{html.escape(title)}</title>"
        f'<text x="190" y="{y + 12}" class="word">{html.escape(words)}</text>'
        f'<rect x="{left:.1f}" y="{y}" width="{wide:.1f}" height="15" class="{kind}"/>'
        f'<text x="636" y="{y + 12}" class="word">{amount(value)}</text></g>'
    )
