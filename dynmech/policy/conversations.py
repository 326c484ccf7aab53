"""Many given conversations at once: started, stepped and settled in batches."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from dynmech._checks import as_floats, indices
from dynmech._devices import Work, read_mesh
from dynmech._types import Record
from dynmech.errors import InvalidArgument, OutsideSupport, describe
from dynmech.market.displays import control_of, displays_named, places
from dynmech.market.environment import RecommendationMDP
from dynmech.market.values import MarkovValues
from dynmech.policy.conversation import Conversation, start_conversation
from dynmech.policy.opened import openings
from dynmech.policy.playable import money_of, padded
from dynmech.policy.questions import AbstractCursor
from dynmech.policy.said import next_values, symbols_of
from dynmech.policy.spread import SpreadCursor
from dynmech.problem.compile import next_memories
from dynmech.problem.settled import predictions

if TYPE_CHECKING:
    from dynmech.policy.priced import AbstractPriced


class Conversations(Record):
    """N conversations in step with each other; `step` returns new ones.

    Rows on the plan are followed together; a row that leaves it goes on as a `Conversation`.

    - `profile` (N,): the profile that each started from, -1 where that is none asked for.
      `opening` (N, 1+n): initial symbols; `bid` (N, n): initial values, money, where they are not
      of the market's support, else NaN. `ended` (N,).
    - `control` (N,): recommended now; `advised`, `displayed` (N, t): recommended and displayed so
      far; rows of `env.controls`, -1 where a conversation had ended. `recommendation` and `shown`
      name the products.
    - `off_model` (N,): whether something happened that the model thought impossible.
    - `values` (N, t + 1, n): indices of the values in force in each round, the coming one's last.
    - `action` (N, t), `signals` (N, t, 1+n): what happened in the t rounds so far; -1 where a
      conversation had ended, and for what was not said.
    - `predicted` (N,): E[u_j | reports, history, purchase] of what was bought, NaN elsewhere.
    """

    policy: AbstractPriced
    profile: Int[np.ndarray, " N"]
    opening: Int[np.ndarray, "N n1"]
    bid: Float[np.ndarray, "N n"]
    ended: Bool[np.ndarray, " N"]
    off_model: Bool[np.ndarray, " N"]
    control: Int[np.ndarray, " N"]
    advised: Int[np.ndarray, "N t"]
    displayed: Int[np.ndarray, "N t"]
    values: Int[np.ndarray, "N t1 n"]
    action: Int[np.ndarray, "N t"]
    signals: Int[np.ndarray, "N t n1"]
    predicted: Float[np.ndarray, " N"]
    cursor: AbstractCursor = eqx.field(static=True)
    rows: Int[np.ndarray, " _L"]
    apart: Mapping[int, Conversation]

    def __len__(self) -> int:
        return len(self.profile)

    @property
    def period(self) -> int:
        """The round, counted from 1."""
        return self.action.shape[1] + 1

    @property
    def recommendation(self) -> Int[np.ndarray, "N ..."]:
        """Shown now, (N,), -1 for none and where it has ended.

        (N, K), -1 in empty places, where several products are shown at once.
        """
        return places(self.policy.env, self.control)

    @property
    def shown(self) -> Int[np.ndarray, "N t ..."]:
        """What was displayed, (N, t), or (N, t, K); -1 where nothing was."""
        return places(self.policy.env, self.displayed)

    @property
    def bought(self) -> Int[np.ndarray, " N"]:
        """Product bought, -1 where none was."""
        product = np.where(self.action < self.policy.env.products, self.action, -1)
        return product.max(axis=1, initial=-1)

    def step(
        self, actions: Any, signals: Any = None, shown: Any = None, theta: Any = None
    ) -> Conversations:
        """Go on with what the users did.

        **Arguments**

        - `actions` (N,): codes (0..n-1 buy, n exit, n+1 query); whatever stands where a
          conversation has ended is left alone.
        - `signals`: after queries, the platform's symbols (N,) or every party's (N, 1+n), -1 where
          nothing was said; floats (N,) are ratings, money, NaN where none came. None: nothing said.
        - `shown` (N,), or (N, K): what was displayed, -1 for none; the recommendations by default.
        - `theta` (N, n): with Markov values, indices of the next values, where a row goes on.

        **Returns:** the conversations one round later. **Raises:** as `Conversation.step`.
        """
        env, live = self.policy.env, ~self.ended
        n, count = env.products, len(self)
        code = _codes("actions", actions, count, live, 0, n + 2)
        display = self.control if shown is None else _displays(env, shown, live)
        again = live & (code == n + 1)
        lasts = env.action_rule.lasts() is not None
        going, last = again & (lasts or self.period < env.horizon), self.period >= env.horizon
        symbols = _symbols(self, signals, display, going)
        after = _next_values(self, theta, going)
        odd, predicted = self._met(code, display, symbols, going)
        silent = (symbols < 0).any(axis=1) & (not last)
        planned = np.isin(np.arange(count), self.rows)
        away = live & ~(planned & (display == self.control) & ~(going & (silent | odd)))
        apart = {
            row: self._moved_apart(row, code, display, symbols, after)
            for row in np.flatnonzero(away).tolist()
        }
        for row, chat in apart.items():
            odd[row], predicted[row] = chat.off_model, chat.predicted
        stay = np.array([row not in apart for row in self.rows.tolist()], bool)
        cursor, rows = copy.copy(self.cursor), self.rows
        ahead = stay & going[rows]
        kept = rows[ahead]
        control = np.full(count, len(env.controls) - 1)
        if len(kept):
            cursor.symbols(ahead, np.zeros(len(kept), np.int64))
            if not last:  # else the last round goes on
                cursor.advance(env.heard.join(symbols[kept].T, display[kept]))
            control[kept] = _choose(cursor, after[kept])
        for row, chat in apart.items():
            control[row] = -1 if chat.ended else chat.evaluator.control(chat.place)
        return Conversations(
            policy=self.policy,
            profile=self.profile,
            opening=self.opening,
            bid=self.bid,
            ended=self.ended | (live & ~going),
            off_model=self.off_model | odd,
            control=control,
            advised=_grown(self.advised, np.where(live, self.control, -1)),
            displayed=_grown(self.displayed, np.where(live, display, -1)),
            values=np.concatenate([self.values, after[:, None]], axis=1),
            action=_grown(self.action, np.where(live, code, -1)),
            signals=np.concatenate(
                [self.signals, np.where(going[:, None], symbols, -1)[:, None]], axis=1
            ),
            predicted=predicted,
            cursor=cursor,
            rows=kept,
            apart={row: chat for row, chat in apart.items() if not chat.ended},
        )

    @property
    def last_shown(self) -> Int[np.ndarray, " N"]:
        """The control that was displayed last."""
        rounds = (self.action >= 0).sum(axis=1)
        return self.displayed[np.arange(len(self)), np.maximum(rounds - 1, 0)]

    def memories(self, rows: Int[np.ndarray, " k"]) -> Int[np.ndarray, "k d"]:
        """What the action rule remembers in these conversations, after what was shown last."""
        env = self.policy.env
        paths, index = np.unique(self.displayed[rows], axis=0, return_inverse=True)
        memory = np.tile(env.unaware, (len(paths), 1))
        for t in range(paths.shape[1]):
            live = np.flatnonzero(paths[:, t] >= 0)
            if not len(live):  # others went on
                break
            pad = live[np.minimum(np.arange(padded(len(live))), len(live) - 1)]
            given = env.action_rule, memory[pad], env.controls, env.products
            grown = np.asarray(next_memories(*given))
            memory[live] = grown[np.arange(len(live)), paths[live, t]]
        return memory[index.reshape(-1)]

    def _met(
        self, code: np.ndarray, display: np.ndarray, symbols: np.ndarray, going: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Of rows that follow the plan: where the model thinks what happened impossible (N,), and
        `predicted` with that of those that buy now."""
        odd, found = np.zeros(len(self), bool), self.predicted.copy()
        env, cursor = self.policy.env, self.cursor
        at = np.flatnonzero(display[self.rows] == self.control[self.rows])
        rows = self.rows[at]
        if not len(rows):
            return odd, found
        belief = cursor.beliefs(at)
        weight = belief * cursor.acted(at, code[rows])
        again = going[rows] & (self.period >= env.horizon)  # the last round goes on
        weight[again] = belief[again]
        buys = code[rows] < env.products
        found[rows[buys]] = predictions(weight[buys], cursor.gains[code[rows[buys]]])
        said = np.flatnonzero(going[rows] & ~again & (symbols[rows] >= 0).all(axis=1))
        if len(said):
            joint = env.heard.join(symbols[rows[said]].T, display[rows[said]])
            weight[said] = belief[said] * cursor.heard(at[said], joint)
        odd[rows] = weight.sum(axis=1) <= 0
        return odd, found

    def one(self, row: int) -> Conversation:
        """The conversation of one row, by itself."""
        chat = start_conversation(self.policy, *self.opened(row), None)
        for t in range(self.action.shape[1]):
            if self.action[row, t] < 0:
                break
            given = self.action[row, t], self.displayed[row, t], self.signals[row, t]
            chat = _step_one(chat, *given, self.values[row, t + 1])
        return chat

    def opened(self, row: int) -> tuple[tuple[float, ...], tuple[int, ...]]:
        """What one row started from, as `Conversation.opening`."""
        told = self.values[row, 0] if np.isnan(self.bid[row, 0]) else self.bid[row]
        return tuple(told.tolist()), tuple(self.opening[row].tolist())

    @property
    def reported(self) -> Float[np.ndarray, "N n"]:
        """Values in force in the last round of each, money."""
        rounds = np.maximum((self.action >= 0).sum(axis=1) - 1, 0)
        theta = self.values[np.arange(len(self)), rounds]
        return np.where(np.isnan(self.bid), money_of(self.policy.env, theta), self.bid)

    def _moved_apart(
        self,
        row: int,
        code: np.ndarray,
        display: np.ndarray,
        symbols: np.ndarray,
        after: np.ndarray,
    ) -> Conversation:
        chat = self.apart[row] if row in self.apart else self.one(row)
        return _step_one(chat, code[row], display[row], symbols[row], after[row])


def start_many(
    policy: AbstractPriced,
    profiles: Any,
    mesh: jax.sharding.Mesh | None,
    theta: Any,
    signals: Any,
) -> Conversations:
    """See `EfficientPolicy.start_many`."""
    found = openings(policy, profiles, theta, signals)
    n, count, apart = policy.env.products, len(found.profile), dict(found.apart)
    read_mesh("start_many", mesh, policy.env, count, "conversations")

    def make() -> AbstractCursor:
        return policy.evaluator.cursor(policy.env.signals.settlement)

    cursor = make() if mesh is None else SpreadCursor(Work("start_many", mesh), make)
    rows = np.flatnonzero(~np.isin(np.arange(count), list(apart)))
    control = np.full(count, len(policy.env.controls) - 1)
    if len(rows):
        cursor.begin(found.signals[rows])
        control[rows] = _choose(cursor, found.values[rows])
    for row, chat in apart.items():
        control[row] = chat.evaluator.control(chat.place)
    return Conversations(
        policy=policy,
        profile=found.profile,
        opening=found.signals,
        bid=found.bid,
        ended=np.zeros(count, bool),
        off_model=np.zeros(count, bool),
        control=control,
        advised=np.zeros((count, 0), np.int64),
        displayed=np.zeros((count, 0), np.int64),
        values=found.values[:, None],
        action=np.zeros((count, 0), np.int64),
        signals=np.zeros((count, 0, n + 1), np.int64),
        predicted=np.full(count, np.nan),
        cursor=cursor,
        rows=rows,
        apart=apart,
    )


def _choose(cursor: AbstractCursor, theta: Int[np.ndarray, "k n"]) -> np.ndarray:
    """Recommendations of a cursor's rows, and its laws made ready for what is heard next."""
    control = np.asarray(cursor.choose(theta))
    cursor.laws(control, np.zeros(len(control), np.int64))
    return control


def _next_values(chats: Conversations, theta: Any, going: np.ndarray) -> Int[np.ndarray, "N n"]:
    """Value indices of the next round, those in force where values are constant."""
    env, held = chats.policy.env, chats.values[:, -1]
    if theta is None:
        if going.any():
            next_values(env, held[0], None, True)
        return held
    call, size = "Conversations.step(theta=...)", env.values.support.shape[1]
    index = indices(*held.shape)(call, theta)
    if (going[:, None] & ((index < 0) | (index >= size))).any():
        raise OutsideSupport(describe(call, f"be indices in 0..{size - 1}", "another"))
    still = not isinstance(env.values, MarkovValues)
    if still and (going[:, None] & (index != held)).any():
        raise InvalidArgument(describe(call, "stay the same: values are constant", "others"))
    return np.where(going[:, None], index, held)


def _step_one(
    chat: Conversation,
    code: int | np.integer,
    display: int | np.integer,
    symbols: np.ndarray,
    after: np.ndarray,
) -> Conversation:
    shown = displays_named(chat.policy.env, np.array([display]))[0]
    said = None if (symbols < 0).any() else symbols
    query = int(code) == chat.policy.env.products + 1
    other = None if shown == chat.recommendation else shown
    moves = isinstance(chat.policy.env.values, MarkovValues)
    env = chat.policy.env
    goes_on = query and (chat.period < env.horizon or env.action_rule.lasts() is not None)
    theta = after if moves and goes_on else None
    return chat.step(int(code), said if query else None, theta, shown=other)


def _displays(env: RecommendationMDP, given: Any, live: np.ndarray) -> Int[np.ndarray, " N"]:
    """The control displayed in each row that is live."""
    call, found = "Conversations.step(shown=...)", np.full(len(live), len(env.controls) - 1)
    size, array = env.controls.shape[1], np.asarray(given)
    if array.shape != (len(live), size)[: 1 if size == 1 else 2] or array.dtype.kind not in "iu":
        must = f"hold integers, shape (N,) = ({len(live)},)"
        must += "" if size == 1 else f" and K = {size} places, -1 where empty"
        raise InvalidArgument(describe(call, must, f"{array.dtype} of shape {array.shape}"))
    rows = indices(*array.shape)(call, given).reshape(len(live), size)[live]
    unique, index = np.unique(rows, axis=0, return_inverse=True)
    controls = [control_of(call, env, row) for row in unique.tolist()]
    found[live] = np.array(controls, np.int64)[index.reshape(-1)]
    return found


def _codes(name: str, given: Any, count: int, live: np.ndarray, low: int, high: int) -> np.ndarray:
    call = f"Conversations.step({name}=...)"
    codes = indices(None)(call, given)
    if codes.shape != (count,):
        raise InvalidArgument(describe(call, f"have shape (N,) = ({count},)", codes.shape))
    bad = live & ((codes < low) | (codes >= high))
    if bad.any():
        row = int(np.flatnonzero(bad)[0])
        must = f"be in {low}..{high - 1}"
        raise OutsideSupport(describe(call, must, f"{codes[row]} in row {row}"))
    return codes


def _symbols(
    chats: Conversations, given: Any, display: np.ndarray, going: np.ndarray
) -> Int[np.ndarray, "N n1"]:
    """Every party's symbol after a query, -1 where nothing was said."""
    env, count = chats.policy.env, len(chats)
    alphabet, call = np.array(env.feedback_alphabet), "Conversations.step(signals=...)"
    found = np.where(alphabet == 1, 0, -1) * np.ones((count, 1), np.int64)
    if given is None:
        return found
    array = np.asarray(given)
    if array.dtype.kind == "f":
        ratings = np.asarray(as_floats(given, call), float)
        if ratings.shape != (count,) or (alphabet[1:] > 1).any():
            must = f"be ratings (N,) = ({count},), nobody else reading them"
            raise InvalidArgument(describe(call, must, ratings.shape))
        first, heard = env.controls[display, 0], going & np.isfinite(ratings)
        for product in np.unique(first[heard]).tolist():
            rows = np.flatnonzero(heard & (first == product))
            found[rows, 0] = symbols_of(env, product, ratings[rows])
        return found
    said = indices(*(None,) * max(array.ndim, 1))(call, given)
    if said.shape == (count,):
        found[:, 0] = said
    elif said.shape == (count, len(alphabet)):
        found = said.copy()
    else:
        must = f"have shape (N,) or (N, 1+n) = {(count, len(alphabet))}"
        raise InvalidArgument(describe(call, must, said.shape))
    if (going[:, None] & ((found < -1) | (found >= alphabet))).any():
        raise OutsideSupport(describe(call, f"be below {tuple(alphabet.tolist())}", "another"))
    return found


def _grown(table: Int[np.ndarray, "N t"], column: np.ndarray) -> np.ndarray:
    return np.concatenate([table, column[:, None]], axis=1)
