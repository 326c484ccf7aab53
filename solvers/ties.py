"""Which controls are tied, and how far off a computed value can be: the one place for both.

Let u = eps / 2 and g(k) = k u / (1 - k u). A sum or product of k factors, terms or roundings of
the data, in whatever order, is off by at most g(k) times the sum of its terms' sizes (Higham,
Accuracy and Stability of Numerical Algorithms, 2002, section 3.1). So with every computed value

    Q_a = sum_omega b stop (x + reward) + sum_z E[W'_z]

goes its *amount* A_a, the sum of the sizes of all terms added to get it, those of the following
rounds included, and Q_a is off by at most e_a = c_t A_a. In round t = 0, 1, ... what is yielded
is made of t columns, stop, reward, root and x, each rounded once as data, their products, an
inner product of length m, sums over J slots and a division by a mass of m terms; what follows is
a sum of Z terms, each times a ratio of beliefs and averaged over V coefficient vectors:

    now_t = g(2 m + 2 t + 2 J + 12) + t drift,   next = g(Z + V + 8),
    c_t = max(now_t, c_{t+1} (1 + next) + next),   c_{T-1} = now_{T-1},

with `drift` what beliefs taken for proportional can differ by in a round. Only terms of Q_a count:
a control that nobody would take, however large its loss, makes no other value less certain.

Control a *can be the best* if Q_a + e_a >= max_s (Q_s - e_s); every exact maximiser can. It is
*tied* if besides Q_a >= max Q - 1e-9 |max Q|. The first tied control is taken, the last one where
the belief has no mass. W = max Q, whatever is taken, and its amount is the largest of those that
can be the best: it bounds the error of W and of the control taken alike. Where the second test
keeps out a control that passes the first, the numbers are *ill conditioned*.

Where amounts are not carried, `solvers.gains` bounds those of any that can be the best by one
number B a belief: the first test is then Q_a >= max Q - 2 c_t B.
"""

import dataclasses
import math
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from solvers.host import Record
from solvers.problem import Numbers, Structure, Tables, Tasks

RELATIVE = 1e-9
_APART = 4e-15
_MOST_PATHS = 1000  # binary digits of their number, as a float64 may have
DType = np.dtype | type[np.floating]


class Taken(Record):
    """What is taken among A controls, shapes (...) of one of them.

    `best`: W. `value`: of the control taken, computed as `kept` is. `choice`: the control.
    `amount`: what errors of both are in proportion to, None where it is not carried; `ill`: whether
    the numbers are ill conditioned, None where they never are.
    """

    best: Numbers
    value: Numbers
    choice: Int[Numbers, "..."]
    amount: Numbers | None
    ill: Numbers | None


def take(
    total: Float[Numbers, "A ..."],
    amount: Float[Numbers, "A ..."] | None,
    error: Any,
    live: Any,
    *,
    kept: Float[Numbers, "A ..."] | None = None,
    room: Numbers | None = None,
    whole: bool = False,
    arrays: ModuleType = np,
) -> Taken:
    """Take the first tied control; the last one where nothing is live.

    **Arguments:** `total`: Q, -inf where a control may not be used; `amount`: A, None where it is
    not carried; `error`: c_t; `live`: where the belief has mass; `kept`: what the controls are
    worth under the plans in use, Q by default; `room`: what any that can be the best is off by at
    most, None where no term is negative, so that it is c_t Q; `whole`: of JAX's totals, that they
    are there and need not be added up.
    """
    kept = total if kept is None else kept
    error = arrays.minimum(error, 0.01)
    close = arrays.maximum(RELATIVE, 8 * error)
    with np.errstate(invalid="ignore"):
        given = total, amount, kept, error, close, live, room
        if arrays is np and amount is None:
            best, value, choice, most, ill = _in_turn(total, kept, error, close, live, room)
        elif whole or arrays is np:
            best, value, choice, most, ill = _in_rows(*given, arrays)
        else:
            best, value, choice, most, ill = _row_by_row(*given)
    if amount is not None:
        most = arrays.where(live, most, amount[-1])
    ill = None if ill is None else ill & live
    return Taken(arrays.where(live, best, total[-1]), value, choice, most, ill)


def first_tied(
    total: Float[np.ndarray, "A n U"], size: Float[np.ndarray, "n U"]
) -> Int[np.ndarray, "n U"]:
    """The first control of those that may be the best, where plans are summed without c_t.

    **Arguments:** `total`: what each control is worth, in money, -inf where it may not be used;
    `size`: what any plan comes to at most in size, of which rounding puts ties a share apart.
    """
    return np.asarray(take(total, None, 0.0, True, room=_APART * size).choice, np.int64)


def either(
    first: Taken, total: Numbers, amount: Numbers | None, control: Any, last: int, error: Any,
    live: Any, room: Numbers | None = None,
) -> Taken:  # fmt: skip
    """Take among controls compared already and one more; all yield 0 where nothing is live.

    Of those compared already the one taken stands for all: where a chain of them is tied, another
    that is tied may be taken than the first. Amounts are at least those of `take`.

    **Arguments:** `first`: what was taken among the others; `total`, `amount`: of one more, -inf
    where it may not be used; `control`: which it is; `last`: of all; `error`, `live`, `room` as in
    `take`.
    """
    error = jnp.minimum(error, 0.01)
    close = jnp.maximum(RELATIVE, 8 * error)
    best = jnp.maximum(first.best, total)
    least = best - close * abs(best)
    most = ill = None
    if amount is None or first.amount is None:
        floor = _floor(best, error, room)
        passes, others = total >= floor, first.best >= floor
    else:
        off, more = error * first.amount, error * amount
        floor = jnp.maximum(first.best - off, total - more)
        passes, others = total + more >= floor, first.best + off >= floor
        sizes = jnp.where(passes, amount, 0.0), jnp.where(others, first.amount, 0.0)
        most = jnp.where(live, jnp.maximum(*sizes), 0.0)
    if first.ill is not None:
        far = (passes & (total < least)) | (others & (first.ill | (first.best < least)))
        ill = far & live
    ahead = ~(passes & (total >= least)) | (first.choice < control)
    same = others & (first.value >= least) & ahead
    choice = jnp.where(live, jnp.where(same, first.choice, control), last)
    best, value = (jnp.where(live, x, 0.0) for x in (best, jnp.where(same, first.value, total)))
    return Taken(best, value, choice.astype(_kind(last)), most, ill)


def _floor(best: Numbers, error: Any, room: Numbers | None) -> Any:
    """The least that one that can be the best can come to, where amounts are not given."""
    return best * ((1 - error) / (1 + error)) if room is None else best - 2 * room


def _in_turn(
    total: Numbers, kept: Numbers, error: Any, close: Any, live: Any, room: Numbers | None
) -> tuple[Numbers, Numbers, Numbers, None, Numbers | None]:
    """The same in NumPy, where amounts are not given: few passes over all numbers."""
    best, last, kind = total.max(axis=0), len(total) - 1, _kind(len(total) - 1)
    floor, least = _floor(best, error, room), best - close * abs(best)
    bar, sure = floor, room is None or bool((floor >= least).all())
    if not sure:
        bar = np.maximum(floor, least)
    choice, tied, passed = np.full(best.shape, last, kind), 0, 0
    for control in reversed(range(last + 1)):
        here = total[control] >= bar
        tied += np.count_nonzero(here)
        passed += 0 if sure else np.count_nonzero(total[control] >= floor)
        np.copyto(choice, kind(control), where=here)
    value, alone = best, tied == best.size
    if not np.all(live):
        choice, alone = np.where(live, choice, kind(last)), False
    if kept is not total or not alone:
        value = np.take_along_axis(kept, choice[None].astype(np.intp), axis=0)[0]
    if room is None:
        return best, value, choice, None, None
    ill = np.zeros(best.shape, bool)
    if passed > tied:
        ill = ((total >= floor) & (total < least)).any(axis=0)
    return best, value, choice, None, ill


def _in_rows(
    total: Numbers, amount: Numbers | None, kept: Numbers, error: Any, close: Any, live: Any,
    room: Numbers | None, arrays: ModuleType,
) -> tuple[Numbers, Numbers, Numbers, Numbers | None, Numbers | None]:  # fmt: skip
    """W, value, control, amount, and whether ill conditioned: all controls at once."""
    # The gradient of a maximum over an axis looks for what equals it, which XLA may have worked out
    # in two roundings: that of W is of the control taken, summed out of zeros.
    best = (total if arrays is np else jax.lax.stop_gradient(total)).max(axis=0)
    last, most, ill = len(total) - 1, None, None
    kind = _kind(last)
    if amount is None:
        above, floor = total, _floor(best, error, room)
    else:
        above, floor = total + error * amount, (total - error * amount).max(axis=0)
    passes, near = above >= floor, total >= best - close * abs(best)
    rows = arrays.arange(last + 1, dtype=kind).reshape(-1, *[1] * best.ndim)
    choice = arrays.where(passes & near & live, rows, kind(last)).min(axis=0)
    value = arrays.where(rows == choice, kept, 0.0).sum(axis=0)
    if amount is not None:
        most = arrays.where(passes, amount, 0.0).max(axis=0)
    if amount is not None or room is not None:
        ill = (passes & ~near).any(axis=0)
    return best, value, choice, most, ill


def _row_by_row(
    total: Numbers, amount: Numbers | None, kept: Numbers, error: Any, close: Any, live: Any,
    room: Numbers | None,
) -> tuple[Numbers, Numbers, Numbers, Numbers | None, Numbers | None]:  # fmt: skip
    """The same in JAX: two loops over the controls.

    All at once, or unrolled, XLA adds everything up anew for each of the results.
    """
    last, kind = len(total) - 1, _kind(len(total) - 1)

    def largest(found: tuple[Array, Array], row: tuple[Numbers, Numbers | None]):
        low = row[0] if row[1] is None else row[0] - error * row[1]
        return (jnp.maximum(found[0], row[0]), jnp.maximum(found[1], low)), None

    least = jnp.full_like(total[0], -jnp.inf)
    (best, floor), _ = jax.lax.scan(largest, (least, least), (total, amount))
    if amount is None:
        floor = _floor(best, error, room)
    least = best - close * abs(best)
    sure = amount is None and room is None

    def tied(
        found: tuple[Array, Array, Any, Any], row: tuple[Array, Numbers, Numbers | None, Numbers]
    ):
        value, choice, most, lowest = found
        control, whole, size, worth = row
        passes = (whole if size is None else whole + error * size) >= floor
        if size is not None:
            most = jnp.where(passes, jnp.maximum(most, size), most)
        if not sure:
            lowest = jnp.where(passes, jnp.minimum(lowest, whole), lowest)
        first = passes & (whole >= least) & live
        return (
            jnp.where(first, worth, value), jnp.where(first, control, choice), most, lowest,
        ), None  # fmt: skip

    start = kept[-1], jnp.full(best.shape, last, kind), None, None
    if not sure:
        start = *start[:2], None if amount is None else jnp.zeros_like(best), best
    rows = jnp.arange(last + 1, dtype=kind), total, amount, kept
    (value, choice, most, lowest), _ = jax.lax.scan(tied, start, rows, reverse=True)
    return best, value, choice, most, None if sure else lowest < least


def _kind(last: int) -> type[np.signedinteger]:
    return np.int8 if last < 128 else np.int16


class Rounding(Record):
    """Errors of one solve as shares of amounts: c_t (T,) of values; `now`, `later` of one round.

    `lost`: money that products below the smallest normal number can lose in all, at any root.
    """

    each: tuple[float, ...] = eqx.field(static=True)
    now: float = eqx.field(static=True)
    later: float = eqx.field(static=True)
    lost: float = eqx.field(static=True, default=0.0)


def shares(
    points: int,
    rounds: int,
    slots: int,
    symbols: int,
    *,
    regimes: int = 0,
    drift: float = 0.0,
    dtype: DType = np.float64,
) -> Rounding:
    """Count the roundings behind a value; shares are infinite where sums are too long."""
    unit = float(np.finfo(dtype).eps) / 2
    later = _gamma(max(symbols, 1) + regimes + 8, unit)
    each: list[float] = []
    for t in reversed(range(rounds)):
        now = _gamma(2 * points + 2 * t + 2 * slots + 12, unit) + t * drift
        each.append(max(now, each[-1] * (1 + later) + later) if each else now)
    now = _gamma(2 * points + 2 * rounds + 2 * slots + 14, unit) + rounds * drift
    return Rounding(tuple(each[::-1]), now, later)


def rounding(structure: Structure, tables: Tables, tasks: Tasks, dtype: DType) -> Rounding:
    """What a sweep in `dtype` can be off by; `lost` is 0 when traced."""
    counts = tables.column.shape[1], structure.horizon, structure.outcome.shape[1]
    regimes = 0 if tasks.kernel is None else tasks.kernel.shape[1]
    symbols, drift = structure.symbols, structure.drift
    found = shares(*counts, symbols, regimes=regimes, drift=drift, dtype=dtype)
    return dataclasses.replace(found, lost=_lost(structure, tables, tasks, dtype))


def signed(tables: Tables, tasks: Tasks) -> bool:
    """Whether a term that is added may be negative; True when traced."""
    given = tables.reward, tasks.coefficient
    if any(isinstance(x, Tracer) for x in given):
        return True
    return any(bool((np.asarray(x) < 0).any()) for x in given)


def _gamma(count: float, unit: float) -> float:
    return count * unit / (1 - count * unit) if count * unit < 0.01 else math.inf


def flushes(
    structure: Structure,
    tables: Tables,
    tasks: Tasks,
    dtype: DType,
) -> bool:
    """Whether a product of data that are not zero can be below the smallest normal number."""
    rounds = structure.horizon
    logs = sum(np.log2(_least(x)) for x in (tables.stop, tables.reward))
    logs += (rounds - 1) * np.log2(_least(tables.column))
    logs += sum(np.log2(_least(x)) for x in (tasks.root, tasks.coefficient))
    if tasks.kernel is not None:
        logs += (rounds - 1) * np.log2(_least(tasks.kernel))
    info = np.finfo(dtype)
    return bool(logs < np.log2(float(info.tiny)) - np.log2(float(info.eps)) + 2)


def fits(tables: Tables, tasks: Tasks, dtype: type[np.floating]) -> bool:
    """Whether sums of the money are far from the largest number of `dtype`."""
    most = max(float(np.abs(x).max(initial=0.0)) for x in (tables.reward, tasks.coefficient))
    return most < float(np.finfo(dtype).max) ** 0.75


def foreseen(structure: Structure, tables: Tables, tasks: Tasks, dtype: type[np.floating]) -> float:
    """What values at roots of mass one may be off by, before any is known."""
    room = rounding(structure, tables, tasks, dtype)
    return room.each[0] * most_amount(tables, tasks) + room.lost


def most_amount(tables: Tables, tasks: Tasks) -> float:
    """What terms add up to in size at roots of mass one, about, before any value is known.

    Outcomes that never yield more than nothing are left out: no amount that counts has them.
    """
    root, reward = np.asarray(tasks.root, float), np.asarray(tables.reward, float)
    mass = root.sum(axis=1)
    unit = root / np.where(mass > 0, mass, 1.0)[:, None]
    most = 0.0
    for r, each in enumerate(unit):
        x, counted = (
            np.asarray(y, float)[r, ..., None] for y in (tasks.coefficient, tasks.counted)
        )
        gains = (x + counted * reward > 0).any(axis=2, keepdims=True)
        if tasks.kernel is not None:
            gains = gains.any(axis=0, keepdims=True)
        size = np.where(gains, np.abs(x) + counted * np.abs(reward), 0.0).max(axis=1)
        size = size.max(axis=0) if tasks.kernel is not None else size
        most = max(most, float((size @ each).max()))
    return most


def most_gained(tables: Tables, tasks: Sequence[Tasks]) -> float:
    """The most that any outcome yields to any task, at least 0."""
    most = 0.0
    for part in tasks:
        counted = np.asarray(part.counted, float)[..., None]
        worth = np.asarray(part.coefficient, float)[..., None] + counted * tables.reward
        most = max(most, float(np.asarray(worth).max(initial=0.0)))
    return most


def _lost(structure: Structure, tables: Tables, tasks: Tasks, dtype: DType) -> float:
    leaves = jax.tree.leaves((tables, tasks))
    if any(isinstance(x, Tracer) for x in leaves):
        return 0.0
    if not flushes(structure, tables, tasks, dtype):
        return 0.0
    rounds, slots = structure.horizon, structure.outcome.shape[1]
    symbols, points = max(structure.symbols, 1), tables.column.shape[1]
    size = max(1.0, *(float(np.abs(x).max(initial=0)) for x in (tables.reward, tasks.coefficient)))
    few = rounds * math.log2(symbols) < _MOST_PATHS
    paths = sum(symbols**t for t in range(rounds)) if few else math.inf
    return 16.0 * (rounds + slots) * float(np.finfo(dtype).tiny) * points * size * paths


def _least(array: Numbers) -> float:
    """The smallest size of what is not zero, at most one."""
    found = np.abs(np.asarray(array, float))
    return min(float(found[found > 0].min(initial=1.0)), 1.0)
