"""What the page and the widget say of a mechanism: words as HTML, and numbers as data."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files as resources
from typing import Any

import numpy as np

from dynmech._html import Card, as_html
from dynmech.audit import Audit
from dynmech.audit.cards import audit as audit_card
from dynmech.explorer.bills import ratings
from dynmech.explorer.play import plays
from dynmech.market.cards import market as market_card
from dynmech.mechanism.team import DynamicTeamMechanism
from dynmech.policy.cards import policy as policy_card

_STEPS = (
    ("earns", "value"),
    ("team transfer", "pay"),
    ("Groves term", "charge"),
    ("keeps", "keep"),
)


@dataclass(frozen=True)
class Content:
    """`title`, the words of each section as HTML, and `data` for the script."""

    title: str
    words: Mapping[str, str]
    data: dict[str, Any]

    def body(self, prefix: str) -> str:
        """The sections, their ids after a prefix of their own."""
        return filled(resource("body.html"), {"id": prefix, **self.words})


def content(
    mechanism: DynamicTeamMechanism, audit: Audit, profile: int, unit: str, points: int
) -> Content:
    """See `report`."""
    policy = mechanism.policy
    env = policy.env
    money = _money(mechanism)
    words = {
        "market": as_html(market_card(env)),
        "solved": as_html(policy_card(policy)),
        "verdicts": _verdicts(audit),
        "payments": _payments(env.names, money, unit),
    }
    data = {
        "names": list(env.names),
        "unit": unit,
        "horizon": None if env.horizon == np.inf else int(env.horizon),
        "ratings": ratings(env),
        "spoken": env.feedback_alphabet[0],
        "signals": list(env.initial_alphabet[1:]),
        "payments": [
            [
                {"words": words, "amount": amount, "kind": kind}
                for (words, kind), amount in zip(_STEPS, row)
            ]
            for row in money.tolist()
        ],
        **plays(mechanism, profile, points),
    }
    title = f"{type(mechanism.groves).__name__}: {', '.join(env.names[:4])}"
    return Content(title, words, data)


def resource(name: str) -> str:
    """A file of this folder."""
    return (resources("dynmech.explorer") / name).read_text(encoding="utf-8")


def filled(template: str, parts: Mapping[str, str]) -> str:
    """A template with its parts in place, each once and whatever the others say."""
    return re.sub(r"<!--([a-z]+)-->", lambda found: parts[found[1]], template)


def _verdicts(audit: Audit) -> str:
    """The audit's card, and each advertiser's witness in words."""
    lies = [w.sentence() for w in audit.witness if w.gain > audit.tolerance]
    told = "".join(f"<li>{html.escape(x)}</li>" for x in lies)
    return as_html(audit_card(audit)) + (f"<ul>{told}</ul>" if lies else "")


def _money(mechanism: DynamicTeamMechanism) -> np.ndarray:
    """From values to what is kept (n, 4): sales, team transfers, Groves term, the rest."""
    policy = mechanism.policy
    tables = policy.advertiser_value, mechanism.agent_payoff, mechanism.groves_total
    earned, payoff, charged = (
        np.nanmean(np.asarray(table).reshape(policy.env.products, -1), axis=1) for table in tables
    )
    money = np.stack([earned, payoff - earned, -charged, payoff - charged], axis=1)
    return np.where(np.abs(money) <= 1e-12 * policy.env.money_scale, 0.0, money)


def _payments(names: tuple[str, ...], money: np.ndarray, unit: str) -> str:
    rows = tuple((name, *row) for name, row in zip(names, money.tolist()))
    columns = ("advertiser", *(words for words, _ in _STEPS))
    return as_html(Card(f"Means over profiles, {unit}", columns=columns, rows=rows))
