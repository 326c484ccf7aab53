"""A market as a folder of tables: products and tastes in CSV, everything else in TOML.

- `products.csv`: `name`, one column a characteristic, and `theta`, or `theta_1..K` with
  `chance_1..K`, money and probabilities.
- `tastes.csv`: `weight` and the same characteristics, in any order; or a section `[tastes]` of
  `market.toml` with `kind` "normal", "lognormal" or "mixed_logit" and that constructor's arguments.
- `market.toml`: `horizon` and sections `[behaviour]` (`rule`, its arguments, `choice` and its
  arguments, `query`: a chance, one for each product, or `{kind = "FallingQuery", ...}`;
  `trembling`: the chance of `Trembling`),
  `[signals]`, `[feedback]`, `[settlement]`, `[values]` (`kind`, and the constructor's arguments;
  `chance` and `given` of a settlement: a rating that need not come, as in `MissingRatings`),
  `[displays]` (`size`, `ordered`, `of`) and `[money]` (`unit`, `round_cost`, `exit_value`).

Classes are those of this package; a rule of one's own is code, and cannot be written.
"""

from __future__ import annotations

import csv
import math
import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dynmech import _checks as checks
from dynmech.errors import DynmechError, InvalidArgument, OutsideSupport, describe
from dynmech.market import choices, feedback, rules, signals
from dynmech.market.displays import Displays
from dynmech.market.environment import RecommendationMDP
from dynmech.market.missing import MissingRatings, RatingLaw
from dynmech.market.tables import CHOOSE, DISPLAYS, KINDS, LAW, MONEY
from dynmech.market.tastes import TasteGrid
from dynmech.market.trembling import Trembling

_FILES = ("products.csv", "tastes.csv", "market.toml")
_TASTES = {
    "normal": "from_normal",
    "lognormal": "from_lognormal",
    "mixed_logit": "from_mixed_logit",
}
_SECTIONS = (
    "behaviour",
    "signals",
    "feedback",
    "settlement",
    "values",
    "displays",
    "money",
    "tastes",
)


def read_market(path: str | os.PathLike[str]) -> RecommendationMDP:
    """Read a market from a folder of `products.csv`, `tastes.csv` and `market.toml`.

    **Arguments:** `path`: the folder; the module's page lists what the files hold.

    **Returns:** the market, products in the order of `products.csv`.

    **Raises:** a `DynmechError` naming the file and the line, and the column or key at fault.
    """
    folder = checks.path("read_market(path=...)", path)
    if not folder.is_dir():
        must = f"be a folder with {', '.join(_FILES)}"
        raise InvalidArgument(describe("read_market(path=...)", must, repr(str(path))))
    settings = _toml(folder / "market.toml")
    products = _Table(folder / "products.csv")
    support = _support(products)
    names, features = products.texts("name"), products.others("name", r"(theta|chance)(_\d+)?$")
    gamma = products.numbers(features)
    if (folder / "tastes.csv").exists():
        if "tastes" in settings.sections:
            must = "give tastes once: in tastes.csv, or in [tastes]"
            raise InvalidArgument(describe(settings.where("tastes"), must, "both"))
        tastes = _points(_Table(folder / "tastes.csv"), features)
    else:
        tastes = _drawn(settings)
    with settings.blame("horizon"):
        horizon = settings.top("horizon")
    section = settings.section
    return settings.build(
        "market",
        RecommendationMDP,
        gamma=gamma,
        tastes=tastes,
        horizon=horizon,
        action_rule=_behaviour(settings),
        signals=signals.SignalStructure(
            _part(settings, "signals", section("signals"), signals.GaussianSignals)
            if section("signals")
            else signals.NoSignals(),
            _part(settings, "feedback", section("feedback"), feedback.RatingFeedback)
            if section("feedback")
            else feedback.NoFeedback(),
            _settlement(settings),
        ),
        values=_values(settings, products, support),
        names=names,
        displays=_displays(settings),
        **_money(settings),
    )


class _Table:
    """A CSV file with a head; cells are read by column, and blamed by line and column."""

    def __init__(self, path: Path):
        self.path = path
        if not path.exists():
            must = f"hold {path.name}"
            raise InvalidArgument(describe("read_market(path=...)", must, str(path.parent)))
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [row for row in csv.reader(file) if any(cell.strip() for cell in row)]
        if len(lines) < 2:
            raise InvalidArgument(
                describe(path.name, "hold a head and rows", f"{len(lines)} lines")
            )
        self.head = [cell.strip() for cell in lines[0]]
        if len(set(self.head)) < len(self.head) or "" in self.head:
            raise InvalidArgument(
                describe(f"{path.name}, line 1", "name each column once", self.head)
            )
        self.rows = lines[1:]
        for line, row in enumerate(self.rows, 2):
            if len(row) != len(self.head):
                must = f"hold {len(self.head)} cells, as its head"
                raise InvalidArgument(describe(f"{path.name}, line {line}", must, len(row)))

    def others(self, first: str, pattern: str) -> list[str]:
        """Columns that are neither `first` nor match."""
        found = [x for x in self.head if x != first and not re.match(pattern, x)]
        if not found:
            raise InvalidArgument(
                describe(f"{self.path.name}, line 1", "name characteristics", self.head)
            )
        return found

    def column(self, name: str) -> list[str]:
        if name not in self.head:
            must = f"have a column {name}"
            raise OutsideSupport(describe(f"{self.path.name}, line 1", must, ", ".join(self.head)))
        at = self.head.index(name)
        return [row[at].strip() for row in self.rows]

    def texts(self, name: str) -> list[str]:
        cells = self.column(name)
        for line, cell in enumerate(cells, 2):
            if not cell or cell in cells[: line - 2]:
                call = f"{self.path.name}, line {line}, column {name}"
                raise InvalidArgument(describe(call, "hold a name of its own", repr(cell)))
        return cells

    def numbers(self, names: list[str]) -> np.ndarray:
        """Columns as numbers, shape (rows, columns)."""
        out = np.empty((len(self.rows), len(names)))
        for j, name in enumerate(names):
            for line, cell in enumerate(self.column(name), 2):
                try:
                    number = float(cell)
                except ValueError:
                    number = math.nan
                if not math.isfinite(number):
                    call = f"{self.path.name}, line {line}, column {name}"
                    raise InvalidArgument(describe(call, "be a finite number", repr(cell)))
                out[line - 2, j] = number
        return out


class _Blame:
    """Put the file, the line and the key before a message from a constructor."""

    def __init__(self, place: str):
        self.place = place

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if isinstance(error, DynmechError):
            raise type(error)(f"{self.place}: {error}") from error
        if isinstance(error, TypeError):
            raise InvalidArgument(f"{self.place}: {error}") from error
        return False


class _Settings:
    """`market.toml`, with the line of each key."""

    def __init__(self, path: Path):
        self.path = path
        if not path.exists():
            must = f"hold {path.name}"
            raise InvalidArgument(describe("read_market(path=...)", must, str(path.parent)))
        self.text = path.read_text(encoding="utf-8")
        try:
            self.sections: dict[str, Any] = tomllib.loads(self.text)
        except tomllib.TOMLDecodeError as error:
            raise InvalidArgument(describe(path.name, "be TOML", str(error))) from error
        for name in self.sections:
            if name not in (*_SECTIONS, "horizon"):
                must = f"hold horizon and the sections {', '.join(_SECTIONS)}"
                raise OutsideSupport(describe(self.where(name), must, name))

    def where(self, *keys: str) -> str:
        """File and line of a key, the section first."""
        line, inside = 0, len(keys) == 1
        for number, text in enumerate(self.text.splitlines(), 1):
            head = re.match(r"\s*\[\s*([\w.]+)\s*\]", text)
            if head:
                inside = head.group(1) == keys[0]
                line = number if inside else line
                continue
            if inside and re.match(rf"\s*{re.escape(keys[-1])}\s*=", text):
                return f"{self.path.name}, line {number}, {'.'.join(keys)}"
        place = f"{self.path.name}, line {line}" if line else self.path.name
        return f"{place}, {'.'.join(keys)}"

    def blame(self, *keys: str) -> _Blame:
        return _Blame(self.where(*keys))

    def top(self, name: str) -> Any:
        if name not in self.sections:
            raise InvalidArgument(describe(self.path.name, f"give {name}", "nothing"))
        return self.sections[name]

    def section(self, name: str) -> dict[str, Any]:
        found = self.sections.get(name, {})
        if not isinstance(found, dict):
            raise InvalidArgument(describe(self.where(name), f"be a section [{name}]", repr(found)))
        return dict(found)

    def build(self, section: str, kind: Any, **arguments: Any) -> Any:
        """Call a constructor; what it refuses is blamed on the section."""
        with self.blame(section):
            return kind(**arguments)


def _toml(path: Path) -> _Settings:
    return _Settings(path)


def _class(settings: _Settings, section: str, key: str, part: str, name: object) -> type:
    found = {kind.__name__: kind for kind in KINDS[part]}
    if name not in found:
        must = f"be one of {', '.join(found)}"
        do = "a class of your own is code: build the market in Python"
        raise OutsideSupport(describe(settings.where(section, key), must, repr(name), do))
    return found[str(name)]


def _part(settings: _Settings, section: str, given: dict[str, Any], default: type) -> Any:
    """One part from its section: `kind` and the constructor's arguments."""
    kind = _class(settings, section, "kind", section, given.pop("kind", default.__name__))
    if isinstance(given.get("structures"), list):
        parts = [_part(settings, section, dict(one), default) for one in given.pop("structures")]
        rest = _known(settings, section, given, KINDS[section][kind])
        return settings.build(section, kind, structures=parts, **rest)
    return settings.build(section, kind, **_known(settings, section, given, KINDS[section][kind]))


def _settlement(settings: _Settings) -> signals.AbstractSettlementSignal:
    """The rating, and the chance that it comes where one is given."""
    given = settings.section("settlement")
    chance, how = given.pop("chance", None), given.pop("given", "constant")
    rating = _part(settings, "settlement", given, signals.RatingSettlement)
    if chance is None:
        return rating
    if isinstance(chance, dict):
        held = _known(settings, "settlement", chance, LAW)
        chance = settings.build("settlement", RatingLaw, **held)
    return settings.build("settlement", MissingRatings, rating=rating, chance=chance, given=how)


def _known(settings: _Settings, section: str, given: Mapping[str, Any], names) -> dict[str, Any]:
    for key in given:
        if key not in names:
            must = f"hold {', '.join(names) or 'nothing else'}"
            raise OutsideSupport(describe(settings.where(section, key), must, key))
    return {
        key: np.array(x) if isinstance(x, list) and key != "labels" else x
        for key, x in given.items()
    }


def _behaviour(settings: _Settings) -> rules.AbstractActionRule:
    given = settings.section("behaviour")
    if not given:
        must = "hold a section [behaviour] with rule, choice and query"
        raise InvalidArgument(describe(settings.path.name, must, "nothing"))
    rule = _class(settings, "behaviour", "rule", "rule", given.pop("rule", None))
    chance = given.pop("trembling", None)
    if chance is not None:
        return settings.build(
            "behaviour", Trembling, rule=_rule(settings, rule, given), chance=chance
        )
    return _rule(settings, rule, given)


def _rule(settings: _Settings, rule: type, given: dict[str, Any]) -> rules.AbstractActionRule:
    """A rule of its own arguments, and of a choice and a query where it takes them."""
    if rule not in CHOOSE:
        rest = _known(settings, "behaviour", given, KINDS["rule"][rule])
        return settings.build("behaviour", rule, **rest)
    choice = _class(settings, "behaviour", "choice", "choice", given.pop("choice", "Logit"))
    mine = {key: given.pop(key) for key in KINDS["choice"][choice] if key in given}
    query = given.pop("query", None)
    names = KINDS["rule"][rule]
    rest = _known(settings, "behaviour", given, (*names, *KINDS["choice"][choice], "query"))
    mine = {key: np.array(x) if isinstance(x, list) else x for key, x in mine.items()}
    built = settings.build("behaviour", choice, **mine)
    asked = _query(settings, query)
    return settings.build("behaviour", rule, choice=built, query=asked, **rest)


def _query(settings: _Settings, query: Any) -> Any:
    if isinstance(query, dict):
        given = dict(query)
        kind = _class(settings, "behaviour", "query", "query", given.pop("kind", "ConstantQuery"))
        names = KINDS["query"][kind]
        with settings.blame("behaviour", "query"):
            return kind(**_known(settings, "behaviour", given, names))
    with settings.blame("behaviour", "query"):
        if isinstance(query, list):
            return choices.ProductQuery(np.array(query, float))
        return choices.ConstantQuery(query)


def _many(products: _Table) -> list[str]:
    return sorted((x for x in products.head if re.match(r"theta_\d+$", x)), key=_number)


def _support(products: _Table) -> np.ndarray:
    """Values that each advertiser may have, shape (n, K)."""
    return products.numbers(_many(products) or ["theta"])


def _values(settings: _Settings, products: _Table, support: np.ndarray) -> Any:
    many = _many(products)
    chances = [f"chance_{_number(x)}" for x in many]
    given = settings.section("values")
    if any(x in products.head for x in chances):
        given["prior"] = products.numbers(chances)
    kind = _class(settings, "values", "kind", "values", given.pop("kind", "ConstantValues"))
    rest = _known(settings, "values", given, KINDS["values"][kind])
    return settings.build("values", kind, support=support, **rest)


def _displays(settings: _Settings) -> Displays | None:
    """What can be shown at once, where the file says so."""
    given = settings.section("displays")
    if not given:
        return None
    for key in given:
        if key not in DISPLAYS:
            must = f"hold {', '.join(DISPLAYS)}"
            raise OutsideSupport(describe(settings.where("displays", key), must, key))
    return settings.build("displays", Displays, **given)


def _money(settings: _Settings) -> dict[str, Any]:
    """What queries cost and what leaving is worth, where the file says so."""
    given = _known(settings, "money", settings.section("money"), ("unit", *MONEY))
    return {name: given[name] for name in MONEY if name in given}


def _number(name: str) -> int:
    return int(name.rsplit("_", 1)[1])


def _points(table: _Table, features: list[str]) -> TasteGrid:
    strange = [x for x in table.head if x not in (*features, "weight")]
    if strange:
        must = f"have the columns weight, {', '.join(features)}"
        raise OutsideSupport(describe(f"{table.path.name}, line 1", must, ", ".join(strange)))
    points, weights = table.numbers(features), table.numbers(["weight"])[:, 0]
    with _Blame(table.path.name):
        return TasteGrid(points, weights)


def _drawn(settings: _Settings) -> TasteGrid:
    given = settings.section("tastes")
    kind = given.pop("kind", None)
    if kind not in _TASTES:
        must = f"be one of {', '.join(_TASTES)} where there is no tastes.csv"
        raise OutsideSupport(describe(settings.where("tastes", "kind"), must, repr(kind)))
    with settings.blame("tastes"):
        arrays = {key: np.array(x) if key in ("mean", "cov") else x for key, x in given.items()}
        return getattr(TasteGrid, _TASTES[kind])(**arrays)
