"""What follows the last round listed, where one more is to come and is not listed.

Where no histories merge, nearly all nodes of a tree are in its last round, and nothing need be
known of them but W: so it is worked out from the round before. At a node of belief b, after one
control and symbol z, with h_z the column of both and e(a) the edge of control a in the last round,

    W_q(b h_z) = max_a <b, h_z f_qa>  over a allowed,    f_qa = sum_s stop[e(a), s] (x_q + reward).

One product of beliefs with h_z f serves all nodes of a memory class and all symbols: no belief is
written. Controls after which nothing can come are passed over. Tasks of a root that differ in one
control at most, from the first task, need one number more, or none if it is forbidden, since the
others' best is their best, or their second best.

Amounts (`solvers.ties`) are at least those of `take`: sizes of terms are the largest of any task.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from solvers.devices import at_hand
from solvers.problem import Numbers, Structure, Tables, Tasks

_CACHED = 1.6e6  # bytes of products at once
_VALUES = 1.6e7  # bytes of what follows the controls, of the nodes worked on at once
_FEWEST, _MOST = 16, 4096  # nodes at once


class Split(NamedTuple):
    """Tasks of R roots in K classes of the last round.

    - `own` (S,): the control in which a task differs from the first, or A. `feature` (S,): its
      place among `task`, else F, which yields -inf. `task`, `control` (F,): such, and theirs.
    - `apart` (P,): tasks that differ in more controls. `order` (Q,): where each task is among S+P.
    """

    own: Int[Numbers, "*KR S"]
    feature: Int[Numbers, "*KR S"]
    task: Int[Numbers, "*KR F"]
    control: Int[Numbers, "*KR F"]
    apart: Int[Numbers, "*KR P"]
    order: Int[Numbers, "*KR Q"]


class Coming(NamedTuple):
    """What follows the controls of one memory class.

    - `seen` (K, Z), `edges` (K, A), `split`: columns, edges of the last round, and how tasks differ
      there, after each of K controls. `place` (A,): which of them a control is, K where nothing
      follows. `error`: share of amounts that the last round's values can be off by.
    """

    seen: Int[Numbers, "K Z"]
    edges: Int[Numbers, "K A"]
    split: Split
    place: Int[Numbers, " A"]
    error: Float[Numbers, ""]


class Ahead:
    """The last round of a structure, for one group of tasks; see the module."""

    def __init__(self, structure: Structure, tasks: Tasks, error: float, wide: bool):
        self.structure, self.tasks, self.error, self.wide = structure, tasks, error, wide
        self.allowed = np.asarray(tasks.allowed, bool).swapaxes(1, 2)  # (R, A, Q)
        self.differ = [_differ(structure, tasks, r) for r in range(len(tasks.root))]
        sizes = []
        for differ, allowed in zip(self.differ, self.allowed, strict=True):
            count = differ.sum(axis=1)  # (M, Q)
            own = (count == 1) & (differ & allowed).any(axis=1)
            sizes.append([x.sum(axis=1).max() for x in (count <= 1, own, count > 1)])
        single, own, apart = np.max(sizes, axis=0).tolist()
        self.sizes: tuple[int, int, int] = single, own, apart
        self.follow = self._follow(structure.horizon - 2)  # (M, A)
        self.leading = int(self.follow.sum(axis=1).max(initial=1))

    def _follow(self, t: int) -> Bool[np.ndarray, "M A"]:
        """After which controls of each class of round t something can come."""
        structure = self.structure
        seen = structure.columns[structure.edge[t]]
        return ((seen >= 0) & (seen != structure.dead)).any(axis=2)

    @property
    def features(self) -> int:
        """Numbers that a belief is contracted to after each control and symbol."""
        _, own, apart = self.sizes
        return (1 + self.wide + apart) * self.structure.controls + own

    @property
    def nodes(self) -> int:
        """How many nodes are worked on at once."""
        each = 8 * self.features * self.structure.symbols
        roots, variants = self.tasks.coefficient.shape[:2]
        values = 8 * self.structure.controls * roots * variants
        fits = max(int(min(at_hand(_CACHED) / each, at_hand(_VALUES) / values)), _FEWEST)
        return min(1 << fits.bit_length() - 1, _MOST)

    def split(self, root: int, memory: int) -> Split:
        """How the tasks of a root differ in a class of the last round."""
        single, most, apart = self.sizes
        differ, allowed = self.differ[root][memory], self.allowed[root]
        controls, tasks = differ.shape
        count, own = differ.sum(axis=0), differ.argmax(axis=0)
        used = (count == 1) & allowed[own, np.arange(tasks)]
        one, task, more = (np.flatnonzero(x) for x in (count <= 1, used, count > 1))
        feature = np.full(tasks, most)
        feature[task] = np.arange(len(task))
        order = np.empty(tasks, np.int64)
        order[one], order[more] = np.arange(len(one)), single + np.arange(len(more))
        parts = (
            (np.where(count == 1, own, controls)[one], single, controls),
            (feature[one], single, most), (task, most, 0), (own[task], most, 0),
            (more, apart, 0), (order, tasks, 0),
        )  # fmt: skip
        return Split(*(_padded(*part) for part in parts))

    def coming(self, memory: int, kind: Any) -> Coming:
        """What follows a memory class of the last round that is listed; numbers are of `kind`."""
        structure, before = self.structure, self.structure.horizon - 2
        leads = np.flatnonzero(self.follow[memory])
        places = np.full(structure.controls, self.leading, np.int32)
        places[leads] = np.arange(len(leads))
        controls = _padded(leads, self.leading, structure.controls - 1)
        follows = structure.successor[before][memory, controls]
        splits = [[self.split(r, k) for r in range(len(self.differ))] for k in follows.tolist()]
        joined = (
            np.array([[getattr(one, name) for one in row] for row in splits])
            for name in Split._fields
        )
        return Coming(
            structure.columns[structure.edge[before][memory, controls]],
            structure.edge[before + 1][follows],
            Split(*joined),
            places,
            np.asarray(self.error, kind),
        )


def _padded(given: np.ndarray, length: int, filler: int) -> Int[np.ndarray, " length"]:
    return np.append(given, np.full(length - len(given), filler)).astype(np.int32)


def _differ(structure: Structure, tasks: Tasks, root: int) -> Bool[np.ndarray, "M A Q"]:
    """In which controls of each class of the last round each task differs from the first.

    In none where its controls never lead: what it is worth there is never asked for.
    """
    x, counted = (np.asarray(y)[root] for y in (tasks.coefficient, tasks.counted))
    allowed = np.asarray(tasks.allowed, bool)[root].T
    worth = (x != x[:1]) | (counted != counted[:1])  # (Q, n)
    outcome = structure.outcome[structure.edge[-1]].astype(np.int64)
    used = np.zeros((*outcome.shape[:2], worth.shape[1] + 1), np.float32)  # the last: of none
    np.put_along_axis(used, outcome % (worth.shape[1] + 1), 1.0, axis=2)
    differs = used[:, :, :-1] @ worth.T.astype(np.float32) > 0
    differs = (differs & allowed) | (allowed != allowed[:, :1])
    comes = np.ones((1, len(x)), bool)
    for after, classes in zip(structure.successor[:-1], structure.edge[1:], strict=True):
        there = np.zeros((len(classes), len(x)), bool)
        for control, usable in enumerate(allowed):
            np.logical_or.at(there, after[:, control], comes & usable)
        comes = there
    return differs & comes[:, None]


def look_ahead(
    belief: Float[Array, "C m"], coming: Coming, column: Float[Numbers, "C1 m"], tables: Tables,
    outcomes: Int[Numbers, "E J"], tasks: Tasks, wide: bool,
) -> tuple[Float[Array, "CA R Q"], Float[Array, "CA R Q"] | None]:  # fmt: skip
    """W of every task after every control, summed over symbols, and its amount; node by node."""
    leading, roots = len(coming.seen), len(tasks.root)
    every = jnp.repeat(jnp.arange(leading), roots), jnp.tile(jnp.arange(roots), leading)

    def one(at: tuple[Array, Array]):
        control, root = at
        split = Split(*(jnp.asarray(part)[control, root] for part in coming.split))
        here = jnp.asarray(coming.seen)[control], jnp.asarray(coming.edges)[control], split
        return _after(belief, *here, column, tables, outcomes, tasks, root, coming.error, wide)

    found = jax.lax.map(one, every)

    def joined(part: Float[Array, "KR Q C"]) -> Float[Array, "CA R Q"]:
        part = part.reshape(leading, roots, *part.shape[1:])
        part = jnp.concatenate([part, jnp.zeros_like(part[:1])])[coming.place]
        return jnp.moveaxis(part, 3, 0).reshape(-1, roots, part.shape[2])

    return joined(found[0]), None if found[1] is None else joined(found[1])


def _after(
    belief: Float[Array, "C m"], seen: Int[Numbers, " Z"], edges: Int[Numbers, " A"], split: Split,
    column: Float[Numbers, "C1 m"], tables: Tables, outcomes: Int[Numbers, "E J"], tasks: Tasks,
    root: Int[Numbers, ""], error: Float[Numbers, ""], wide: bool,
) -> tuple[Float[Array, "Q C"], Float[Array, "Q C"] | None]:  # fmt: skip
    """W of every task after one control, summed over symbols, and its amount."""
    stop, outcome = jnp.asarray(tables.stop)[edges], jnp.asarray(outcomes)[edges]
    reward, allowed = jnp.asarray(tables.reward), jnp.asarray(tasks.allowed, bool)[root]
    x, counted = jnp.asarray(tasks.coefficient)[root], jnp.asarray(tasks.counted)[root]
    controls, symbols, apart = len(edges), len(seen), len(split.apart)

    def yields(task: Numbers, control: Numbers):
        which = outcome[control]
        weight = x[task[:, None], which][..., None], counted[task[:, None], which][..., None]
        return (stop[control] * (weight[0] + weight[1] * reward[which])).sum(axis=1)

    every = jnp.arange(controls)
    rows = [yields(jnp.zeros_like(every), every)]
    if wide:
        weight = (jnp.abs(y).max(axis=0)[outcome][..., None] for y in (x, counted))
        most = next(weight) + next(weight) * jnp.abs(reward[outcome])
        rows.append((stop * most).sum(axis=1))
    rows.append(yields(jnp.asarray(split.task), jnp.asarray(split.control)))
    rows.append(yields(jnp.tile(split.apart, controls), jnp.repeat(every, apart)))
    features = jnp.concatenate(rows).astype(belief.dtype)
    heard = jnp.asarray(column)[seen] * jnp.asarray(tasks.root)[root]
    if len(belief) < len(features):  # what is formed is the smaller of the two
        product = features @ (heard[:, None] * belief).reshape(-1, heard.shape[1]).T
    else:
        product = (features[:, None] * heard).reshape(-1, heard.shape[1]) @ belief.T
    product = product.reshape(len(features), symbols, len(belief))
    ends = np.cumsum([len(x) for x in rows])[:-1]
    total, *parts = jnp.split(product, ends)
    size = parts[0] if wide else None
    many = parts[-1].reshape(controls, apart, *product.shape[1:])
    single = _single(total, size, parts[-2], split, allowed[0], error)
    several = _several(many, size, allowed[split.apart].T, error)
    best = jnp.concatenate([single[0], several[0]])[split.order]
    if single[1] is None or several[1] is None:
        return best, None
    return best, jnp.concatenate([single[1], several[1]])[split.order]


class _Leading(eqx.Module):
    """Of numbers (A, ...) of controls: the largest, the largest of the others, and whose."""

    first: Array
    second: Array
    which: Array

    @staticmethod
    def of(number: Array) -> "_Leading":
        first, rows = number.max(axis=0), jnp.arange(len(number), dtype=jnp.int32)
        rows = rows.reshape(-1, *[1] * first.ndim)
        which = jnp.where(number == first, rows, len(number)).min(axis=0)
        return _Leading(first, jnp.where(rows == which, -jnp.inf, number).max(axis=0), which)

    def without(self, own: Array) -> Array:
        """The largest number of the controls but `own`."""
        return jnp.where(own == self.which, self.second, self.first)


def _single(
    total: Float[Array, "A Z C"], size: Float[Array, "A Z C"] | None, own: Float[Array, "F Z C"],
    split: Split, allowed: Bool[Array, " A"], error: Numbers,
):  # fmt: skip
    """W and its amount, summed over symbols, of tasks with one other control at most, (S, C)."""
    number = jnp.asarray(split.own)[:, None, None]
    mine = jnp.concatenate([own, jnp.full_like(total[:1], -jnp.inf)])[split.feature]
    usable = jnp.where(allowed[:, None, None], total, -jnp.inf)
    value = jnp.maximum(_Leading.of(usable).without(number), mine)
    if size is None:
        return value.sum(axis=1), None
    floor = _Leading.of(usable - error * size)
    above, there = usable + error * size, usable > -jnp.inf
    rest = there & (above >= floor.second)
    rest &= jnp.arange(len(total))[:, None, None] != floor.which
    most, rest = (
        jnp.where(tied, size, 0.0).max(axis=0) for tied in (there & (above >= floor.first), rest)
    )
    others = jnp.where(number == floor.which, rest, most)
    terms = size[jnp.minimum(number[:, 0, 0], len(total) - 1)]
    passes = (mine > -jnp.inf) & (mine + error * terms >= floor.without(number))
    amount = jnp.where(passes, jnp.maximum(others, terms), others)
    return value.sum(axis=1), amount.sum(axis=1)


def _several(
    total: Float[Array, "A K Z C"], size: Float[Array, "A Z C"] | None,
    allowed: Bool[Array, "A K"], error: Numbers,
):  # fmt: skip
    """W and its amount, summed over symbols, of tasks compared control by control, (K, C)."""
    usable = jnp.where(allowed[:, :, None, None], total, -jnp.inf)
    best = usable.max(axis=0).sum(axis=1)
    if size is None:
        return best, None
    each = size[:, None]
    tied = usable + error * each >= (usable - error * each).max(axis=0)
    return best, jnp.where(tied, each, 0.0).max(axis=0).sum(axis=1)
