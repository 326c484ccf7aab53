"""A log of conversations: one row a round, validated and labelled, whoever recommended.

The form is the same for what was observed and for what is simulated. A log knows no market:
products are the labels found in it, and are matched with a market's names by `Log.on`.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any, Self

import equinox as eqx
import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

from dynmech import files
from dynmech._checks import checked
from dynmech._checks import whole as integer
from dynmech._types import Record
from dynmech.errors import (
    InvalidArgument,
    OutsideSupport,
    UnseenPurchase,
    describe,
    import_extra,
)
from dynmech.logs.kept import check_log
from dynmech.logs.reading import (
    BUY,
    EXIT,
    QUERY,
    Rows,
    actions,
    chosen,
    column,
    counted,
    labels,
    missing,
    money,
    numbered,
    read_scale,
    real,
    reporter,
    several_columns,
    symbols,
    vocabulary,
)

_WORDS = ("buy", "exit", "query")


class Log(files.Kept, Record):
    """N conversations of R rounds in all, in the order of their rows.

    Built by `Log.from_frame`, or by `Simulation.to_log`.

    - `conversations` (N,): identifiers. `offsets` (N+1,): first row of each, R last.
    - `products`: labels of the products met, names or indices.
    - `shown` (R, K): indices into `products`, -1 for an empty place.
    - `kind` (R,): 0 bought, 1 left, 2 asked again. `bought` (R,): index into `products`, or -1.
    - `rating` (R,): as the user gave it, NaN where none came. `signal` (R,): the platform's
      symbol, -1 where none.
    - `first` (N, F): symbols of period 1 in the columns `first_columns`, None if not logged.
    - `reports` (R, P): reported values, money, of the products `reporters`, None if not logged.
    - `scale`: None, or (a, b) with rating = a + b u + noise, u in money.
    """

    conversations: np.ndarray
    offsets: Int[np.ndarray, " N1"]
    products: tuple[str | int, ...] = eqx.field(static=True)
    shown: Int[np.ndarray, "R K"]
    kind: Int[np.ndarray, " R"]
    bought: Int[np.ndarray, " R"]
    rating: Float[np.ndarray, " R"]
    signal: Int[np.ndarray, " R"]
    first: Int[np.ndarray, "N F"] | None
    reports: Float[np.ndarray, "R P"] | None
    first_columns: tuple[str, ...] = eqx.field(static=True)
    reporters: tuple[str, ...] = eqx.field(static=True)
    scale: tuple[float, float] | None = eqx.field(static=True)
    columns: tuple[tuple[str, str], ...] = eqx.field(static=True)

    @classmethod
    def from_frame(
        cls,
        frame: Any,
        conversation: str,
        round: str,
        shown: str,
        action: str,
        bought: str | None = None,
        rating: str | None = None,
        signal: str | None = None,
        first: Sequence[str] | str | None = None,
        reports: Sequence[str] | str | None = None,
        scale: tuple[float, float] | None = None,
    ) -> Self:
        """Read a long table, one row a round, rows of a conversation in the order of its rounds.

        **Arguments:** names of columns, but for `frame` and `scale`.

        - `frame`: a pandas DataFrame.
        - `conversation`: its identifier. `round`: 1, 2, ... without holes.
        - `shown`: a product's name or index, empty for none, several names joined by `|`.
        - `action`: `buy`, `exit`, `query`, a product's name (she bought it), or action codes.
        - `bought`: the product bought where it is not the one shown.
        - `rating`: a number, empty where none came. `signal`: the platform's symbol after a query
          that brought no rating.
        - `first`: symbols of period 1, the platform's first; left out, they are summed over.
        - `reports`: columns `theta_NAME`, money; left out, the log is for fitting only.
        - `scale`: (a, b), b not 0: rating = a + b u + noise, u in money.

        A last row with `query` is a conversation without an end: kept, and counted in `censored`.

        **Returns:** the `Log`.

        **Raises:** a `DynmechError` naming the argument, the conversation and the round.
        """
        pandas = import_extra("pandas", "logs", "Log.from_frame")
        if not isinstance(frame, pandas.DataFrame):
            must = "be a pandas DataFrame"
            raise InvalidArgument(describe("Log.from_frame(frame=...)", must, type(frame)))
        if len(frame) == 0:
            raise InvalidArgument(describe("Log.from_frame(frame=...)", "hold rows", "none"))
        ids = column(frame, "conversation", conversation)
        if missing(ids).any():
            must, where = "identify every row", int(np.flatnonzero(missing(ids))[0])
            got = f"nothing in row {where} of the frame"
            raise InvalidArgument(describe("Log.from_frame(conversation=...)", must, got))
        codes, unique = numbered(pandas, ids)
        order = np.argsort(codes, kind="stable")  # conversations may be interleaved
        table = frame.iloc[order]
        rows = counted(ids[order], codes[order], column(table, "round", round))
        seen = labels(column(table, "shown", shown), "shown", rows)
        named = None if bought is None else labels(column(table, "bought", bought), "bought", rows)
        kind, product = actions(column(table, "action", action), named, seen, rows)
        products = vocabulary(seen, product)
        found = {label: k for k, label in enumerate(products)}
        width = max(1, max(len(x) for x in seen))
        places = np.full((len(seen), width), -1)
        for row, names in enumerate(seen):
            places[row, : len(names)] = [found[x] for x in names]
        taken = np.array([-1 if x is None else found[x] for x in product])
        blank, none = np.full(len(seen), np.nan), np.full(len(seen), -1)
        counts = np.bincount(codes)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        firsts, heard = several_columns("first", first), several_columns("reports", reports)
        reporters = tuple(reporter(x) for x in heard)
        starts = offsets[:-1]
        log = cls(
            conversations=np.asarray(unique),
            offsets=offsets,
            products=products,
            shown=places,
            kind=kind,
            bought=taken,
            rating=blank
            if rating is None
            else real("rating", column(table, "rating", rating), rows),
            signal=none
            if signal is None
            else symbols("signal", column(table, "signal", signal), rows),
            first=None
            if not firsts
            else np.stack(
                [symbols("first", column(table, "first", x), rows)[starts] for x in firsts], axis=1
            ),
            reports=None if not heard else np.stack([money(table, x, rows) for x in heard], axis=1),
            first_columns=tuple(map(str, firsts)),
            reporters=reporters,
            scale=read_scale(scale),
            columns=tuple(
                (key, str(name))
                for key, name in (
                    ("conversation", conversation),
                    ("round", round),
                    ("shown", shown),
                    ("action", action),
                    ("bought", bought or "bought"),
                    ("rating", rating or "rating"),
                    ("signal", signal or "signal"),
                )
            ),
        )
        log.check(rows)
        return log

    def __len__(self) -> int:
        return len(self.conversations)

    @property
    def rows(self) -> int:
        """Number of rounds in all, R."""
        return len(self.kind)

    @property
    def owner(self) -> Int[np.ndarray, " R"]:
        """The conversation of each row."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))

    @property
    def round(self) -> Int[np.ndarray, " R"]:
        """The round of each row, from 1."""
        return np.arange(self.rows) - self.offsets[self.owner] + 1

    @property
    def censored(self) -> int:
        """Conversations that the log leaves after a query: their end was not seen."""
        return int((self.kind[self.offsets[1:] - 1] == QUERY).sum())

    def check_kept(self) -> None:
        """Raise unless indices point at something and rounds follow each other."""
        check_log(self)
        self.check()

    def check(self, rows: Rows | None = None) -> None:
        """Raise unless rounds follow each other and only products shown so far are bought.

        **Raises:** `InvalidArgument`, `UnseenPurchase`.
        """
        rows = Rows(self.conversations[self.owner], self.round) if rows is None else rows
        words = np.array(_WORDS, object)[self.kind]
        last = np.zeros(self.rows, bool)
        last[self.offsets[1:] - 1] = True
        must = "go on only after a query"
        rows.refuse("action", must, ~last & (self.kind != QUERY), words)
        owner, bought = self.owner, np.flatnonzero(self.kind == BUY)
        seen = {(int(c), int(p)) for c, line in zip(owner, self.shown) for p in line if p >= 0}
        unseen = np.zeros(self.rows, bool)
        unseen[bought] = [(int(owner[r]), int(self.bought[r])) not in seen for r in bought]
        cells = np.array([self._label(k) for k in self.bought.tolist()], object)
        must = "be of a product shown to her so far"
        do = "write buy, exit, query, or the name of what she bought"
        rows.refuse("action", must, unseen, cells, do, kind=UnseenPurchase)

    def _label(self, index: int) -> str:
        return "" if index < 0 else str(self.products[index])

    def on(self, names: Sequence[str]) -> tuple[Int[np.ndarray, "R K"], Int[np.ndarray, " R"]]:
        """Products as a market knows them.

        **Arguments:** `names`: its n product names.

        **Returns:** what was shown (R, K), n for an empty place, and action codes (R,): 0..n-1
        bought, n left, n+1 asked again.

        **Raises:** `OutsideSupport`, listing the products that the market does not have.
        """
        n, place = len(names), {name: k for k, name in enumerate(names)}
        index = np.array(
            [p if isinstance(p, int) and p < n else place.get(str(p), -1) for p in self.products]
        )
        strange = [str(p) for p, k in zip(self.products, index) if k < 0]
        if strange:
            must = f"name products of the market ({', '.join(names[:20])})"
            do = "rename them, or leave out the conversations in which they were shown"
            raise OutsideSupport(describe("log", must, ", ".join(strange[:20]), do))
        index = np.append(index, n)  # the last entry answers for -1
        action = np.where(self.kind == BUY, index[self.bought], n + self.kind - 1)
        return index[self.shown], action

    def keep(self, which: npt.ArrayLike) -> Self:
        """The conversations `which` (indices or a mask, (M,)), repetitions allowed, as a log.

        A mask labelled by conversation is matched with theirs.
        """
        index = chosen(which, self.conversations)
        counts = np.diff(self.offsets)[index]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        rows = np.repeat(self.offsets[index] - offsets[:-1], counts) + np.arange(offsets[-1])
        parts = {name: getattr(self, name)[rows] for name in ("shown", "kind", "bought")}
        parts |= {name: getattr(self, name)[rows] for name in ("rating", "signal")}
        return type(self)(
            conversations=self.conversations[index],
            offsets=offsets,
            products=self.products,
            first=None if self.first is None else self.first[index],
            reports=None if self.reports is None else self.reports[rows],
            first_columns=self.first_columns,
            reporters=self.reporters,
            scale=self.scale,
            columns=self.columns,
            **parts,
        )

    def to_frame(self) -> Any:
        """One row a round, in the columns it was read from: `from_frame` reads it back.

        **Returns:** a pandas DataFrame; an empty cell where nothing was shown, bought or rated.
        """
        pandas = import_extra("pandas", "logs", "Log.to_frame")
        owner, names = self.owner, dict(self.columns)
        shown = ["|".join(self._label(k) for k in line if k >= 0) for line in self.shown.tolist()]
        if all(isinstance(p, int) for p in self.products) and self.shown.shape[1] == 1:
            label = np.array([*self.products, -1], int)
            table: dict[str, Any] = {names["shown"]: label[self.shown[:, 0]]}
            bought: Any = label[self.bought]
        else:
            table, bought = {names["shown"]: shown}, [self._label(k) for k in self.bought.tolist()]
        frame = {
            names["conversation"]: self.conversations[owner],
            names["round"]: self.round,
            **table,
            names["action"]: np.array(_WORDS, object)[self.kind],
            names["bought"]: bought,
        }
        if np.isfinite(self.rating).any() or names["rating"] != "rating":
            frame[names["rating"]] = self.rating
        if (self.signal >= 0).any():
            frame[names["signal"]] = self.signal
        for k, name in enumerate(self.first_columns if self.first is not None else ()):
            frame[name] = np.asarray(self.first)[owner, k]
        for k, name in enumerate(self.reporters if self.reports is not None else ()):
            frame[f"theta_{name}"] = np.asarray(self.reports)[:, k]
        return pandas.DataFrame(frame)

    def funnel(self) -> Any:
        """What happened by round: a pandas DataFrame, one row a round.

        `at_risk`: conversations that reached it; `bought`, `left`, `asked`: shares of them;
        `rated`: share with a rating; `mean_rating` of those.
        """
        pandas = import_extra("pandas", "logs", "Log.funnel")
        return self._shares(pandas, self.round, "round")

    def by_product(self) -> Any:
        """What happened when a product was shown: a pandas DataFrame, one row a product.

        Columns as in `funnel`; a row in which several were shown counts for each; `bought` is
        the share in which that product was bought.
        """
        pandas = import_extra("pandas", "logs", "Log.by_product")
        row, place = np.nonzero(self.shown >= 0)
        index = self.shown[row, place]
        frame = self._shares(pandas, index, "product", row)
        own = np.bincount(index, self.bought[row] == index, len(self.products))
        frame["bought"] = own[frame.index] / frame["at_risk"]
        frame.index = pandas.Index([self._label(int(k)) for k in frame.index], name="product")
        return frame

    @checked(groups=integer(1))
    def by_answer(self, groups: int = 5) -> Any:
        """What happened after an answer: a pandas DataFrame, one row an answer of the round before.

        Columns as in `funnel`. Answers are the platform's symbols, or, where the log has none,
        ratings in at most `groups` groups of as many each, a row named by its least and most.
        """
        pandas = import_extra("pandas", "logs", "Log.by_answer")
        later = np.flatnonzero(self.round > 1)
        if (self.signal[later - 1] >= 0).any():
            row = later[self.signal[later - 1] >= 0]
            return self._shares(pandas, self.signal[row - 1], "answer", row)
        row = later[np.isfinite(self.rating[later - 1])]
        rating = self.rating[row - 1]
        edges = np.unique(np.quantile(rating, np.linspace(0, 1, groups + 1)[1:-1]))
        group = np.searchsorted(edges, rating, side="left")
        found = self._shares(pandas, group, "answer", row)
        ends = [(rating[group == g].min(), rating[group == g].max()) for g in found.index]
        found.index = pandas.Index([f"{a:g} to {b:g}" for a, b in ends], name="answer")
        return found

    def _shares(
        self, pandas: ModuleType, key: np.ndarray, name: str, row: np.ndarray | None = None
    ):
        row = np.arange(self.rows) if row is None else row
        kind, rating = self.kind[row], self.rating[row]
        table = pandas.DataFrame(
            {
                name: key,
                "bought": kind == BUY,
                "left": kind == EXIT,
                "asked": kind == QUERY,
                "rated": np.isfinite(rating),
                "mean_rating": rating,
            }
        )
        groups = table.groupby(name)
        found = groups.mean()
        found.insert(0, "at_risk", groups.size())
        return found

    def summary(self) -> str:
        """A few lines: how many conversations, how they ended, how often ratings came."""
        last = self.kind[self.offsets[1:] - 1]
        ends = [int((last == k).sum()) for k in (BUY, EXIT, QUERY)]
        rated = int(np.isfinite(self.rating).sum())
        return "\n".join(
            [
                f"{len(self)} conversations of {self.rows} rounds, {len(self.products)} products",
                f"{ends[0]} bought, {ends[1]} left, {ends[2]} without an end in the log",
                f"{rated} rounds rated, {self.rows - rated} without a rating",
            ]
        )
