"""The traced Bellman recursion over a tree.

One step, in a memory class with edges e(a), for likelihood rows l, roots r and tasks q:

    Q[a, l, r, q] = sum_s <row_l * root_r, stop[e(a), s]> x_rq[j] + <row_l * root_r, stop * reward>
                    + sum_z E_x' W'[child[l, a, z], r, q],        W = max_a Q.

The inner products do not depend on the task, so that every coefficient vector and every variant
(a control forbidden, an outcome not counted) shares one matrix product of beliefs by rewards.

Ties: see `solvers.ties`. Beside W go its amount A, where a term may be negative (else A is W), and
what the controls taken are worth, from the round on where that is not W to the last digit. When
traced, W is returned with the gradient of the plan in use.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from solvers.devices import here, on_processors, shares, spread_runs
from solvers.gains import Gains, gains
from solvers.host import Record
from solvers.problem import Numbers, Structure, Tables, Tasks
from solvers.ties import rounding, signed
from solvers.tree.ahead import Ahead
from solvers.tree.bellman import Found, Later, bellman_step, step_on_host
from solvers.tree.hosted import host_seconds
from solvers.tree.shapes import (
    BLOCK_SIZES,
    blocks,
    few_shapes,
    joined_uncopied,
    padded_length,
    shared_out,
)  # fmt: skip
from solvers.tree.shared import Apart, one_control
from solvers.tree.tree import Layer, Tree, ratios

HOST_SECONDS = 0.2  # of rounds that are worked on without compiling a program
_CELLS = (
    1e5  # numbers of a round in NumPy from which to see what the tasks of a root have in common
)
_IN_CHUNKS = 4  # axes of what is found in chunks of nodes: these, nodes, roots, tasks
_BEYOND = 0.25  # of what NumPy takes, how much a program on processors saves before the last round


def likelihood_rows(tree: Tree, column: Numbers, rounds: int) -> list[Numbers]:
    """Multiply out the likelihood rows (L, m) of the first `rounds` rounds."""
    rows = [column[-1:]]
    for layer in tree.layers[1:rounds]:
        rows.append(rows[-1][layer.parent] * column[layer.column])
    return rows


def backward(
    tree: Tree,
    tables: Tables,
    tasks: Tasks,
    *,
    block: int,
    tick: Callable[[int], None] = lambda nodes: None,
    host: float = HOST_SECONDS,
) -> tuple[Float[Array, "R Q"], list[Int[np.ndarray, "_N _R _K"]]]:
    """Solve every task at every node: the values at the roots and the policies kept.

    Exact up to rounding. Pure when traced (policies are then not returned).

    **Arguments:** `tree`, `tables`, `tasks`; `block`: the most nodes handled at once;
    `tick`: called with the number of nodes done; `host` as in `sweep`.

    **Returns:** W at the roots, shape (R, Q); per round the control taken, shape
    (N_t, R, keep), empty when traced.
    """
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((tables, tasks)))
    value, actions = jnp.zeros((1, *tasks.coefficient.shape[:2])), []
    for layer in sweep(tree, tables, tasks, block=block, tick=tick, host=host, carry=False):
        value = layer.best
        if not traced:
            actions.append(layer.action)
    return jnp.asarray(value)[0], actions[::-1]


class Swept(Record):
    """One round solved: what the controls taken yield (N, R, Q), and the controls.

    - `best`: W among controls that are followed. `amount`: of both, or what bounds it at
      all nodes; `share`, `lost`: what they can be off by is `share` of it, and `lost` besides
      (`solvers.ties`).
    - `upper`: a bound on W, rounded outward, and `hopeful`, the controls that attain it; None
      without bounds on what is not followed.
    - `ill`: whether numbers were ill conditioned here or later; False when traced.
    """

    value: Float[Numbers, "N R Q"]
    best: Float[Numbers, "N R Q"]
    amount: Float[Numbers, "N R Q"]
    action: Int[Numbers, "N R K"]
    upper: Float[Numbers, "N R Q"] | None
    hopeful: Int[Numbers, "N R Q"] | None
    ill: bool = eqx.field(static=True)
    share: float = eqx.field(static=True)
    lost: float = eqx.field(static=True)

    @property
    def error(self) -> Float[np.ndarray, "N R Q"]:
        """What values can be off by, unnormalised."""
        return self.share * np.asarray(self.amount, float) + self.lost

    @property
    def lower(self) -> Float[np.ndarray, "N R Q"]:
        """What the controls taken yield at least."""
        return np.asarray(self.value, float) - self.error

    @property
    def loss(self) -> Float[np.ndarray, "N R Q"]:
        """What the controls taken can lack of W."""
        short = np.asarray(self.best, float) - np.asarray(self.value, float)
        return short + 2 * self.error


def sweep(
    tree: Tree,
    tables: Tables,
    tasks: Tasks,
    *,
    block: int,
    bounds: Callable[[int, int], Float[np.ndarray, "A _R _Q m"]] | None = None,
    caps: Sequence[Float[np.ndarray, "_N _R _Q"]] | None = None,
    share: Callable[[int, Int[np.ndarray, " k"]], Numbers | None] | None = None,
    tick: Callable[[int], None] = lambda nodes: None,
    host: float = HOST_SECONDS,
    mesh: jax.sharding.Mesh | None = None,
    carry: bool = True,
) -> Iterator[Swept]:
    """Solve the rounds of a tree, the last one first.

    Where the tree lacks the structure's last round, that is worked out from the round before
    (`solvers.tree.ahead`). Controls that are not followed are not taken. With `bounds(t, memory)`,
    which bound what follows every control given the parameter, an upper bound on W is propagated as
    well: such a control counts there at what it yields at once and the bound after it. `caps`, with
    bounds: other upper bounds on W at nodes of every round but the last. `share(t, nodes)`: belief
    after each control and symbol over that of the child, (k, A, Z, R), where trees merge beliefs
    that are not in proportion. `host`: seconds that rounds worked on in NumPy may take in
    all beyond what programs take, the least first: a program takes longer to compile. `mesh`:
    devices over which the nodes of every other round are spread, in blocks whose sums keep their
    order. `carry`: False bounds amounts instead of carrying them.
    """
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((tables, tasks)))
    arrays: ModuleType = jnp if traced else np
    column = arrays.asarray(tables.column)
    # A column of ones, which index -1 (no column seen yet) picks.
    column = arrays.concatenate([column, arrays.ones((1, column.shape[1]), column.dtype)])
    rows = likelihood_rows(tree, column, len(tree.layers) - 1)
    numbers = column, tables, tasks
    room = rounding(tree.structure, tables, tasks, column.dtype)
    carried, ill = signed(tables, tasks), False
    gained = gains(tree.structure, tables, tasks, arrays) if carried and not carry else None
    carried = carried and carry
    plain = bounds is None and share is None and mesh is None
    counts = [layer.nodes for layer in tree.layers]
    classes = [1 + int(np.count_nonzero(np.diff(layer.memory))) for layer in tree.layers]
    takes = rounds_on_host(tree.structure, counts, classes, tasks, tasks.root.shape[0], plain)
    ahead = None
    if len(tree.layers) < tree.structure.horizon:
        ahead = Ahead(tree.structure, tasks, room.each[len(tree.layers)], carried)
        takes[-1] = math.inf
    quick = on_host(takes, 0.0 if traced else host)
    given = numbers
    if traced:
        given = jax.tree.map(jnp.asarray, numbers)
    elif not all(quick):
        given = jax.device_put(numbers)
    shapes = few_shapes(tree, rows, tasks, block, traced)
    shared = None
    if shapes.shared and not all(quick):
        ends = np.cumsum([len(row) for row in rows])
        table = joined_uncopied(rows, padded_length(int(ends[-1])))
        rows, shared = np.split(table[: ends[-1]], ends[:-1]), jax.device_put(table)
    nothing = arrays.zeros((BLOCK_SIZES[0], *tasks.coefficient.shape[:2]), column.dtype)
    bounded = None if bounds is None else nothing
    following = Later(nothing, None, nothing if carried else None, bounded)
    alike = not traced and bounds is None and ahead is None
    for t in reversed(range(len(tree.layers))):
        layer = tree.layers[t]
        last = t == len(tree.layers) - 1
        before = max(t - 1, 0)
        if shared is None or quick[t]:
            start, previous = 0, rows[before]
            if not (traced or quick[t]):
                previous = jax.device_put(joined_uncopied([previous], padded_length(len(previous))))
        else:
            start, previous = sum(map(len, rows[:before])), shared
        off = np.asarray([room.each[t], room.now, room.later], column.dtype)
        apart = functools.partial(ratios, tree) if share is None else share
        weights = functools.partial(apart, t)
        after = None if bounds is None or last else functools.partial(bounds, t)
        cells = layer.nodes * tree.structure.controls * tasks.coefficient[..., 0].size
        once = not carried and cells > _CELLS if quick[t] else last
        own = one_control(tree.structure, tasks, t) if alike and once else None
        one = _Blocks(
            tree.structure, layer, t, tasks, tables, numbers if quick[t] else given, previous,
            start, following, off, weights, after, tick, quick[t], traced, own,
            None if gained is None else gained[t], ahead if last else None,
        )  # fmt: skip
        least = 1 if last else shapes.block
        most = shapes.last if last and ahead is None else shapes.most
        if mesh is not None and not quick[t]:
            most = shared_out(layer, most, shares(mesh), tree.structure, tasks)
        listed = list(blocks(layer, most, min(least, most), exact=traced or quick[t]))
        parts = spread_runs(None if quick[t] else mesh, one.solve, listed)
        if any(part.value is not None for part in parts):
            worth = (part.best if part.value is None else part.value for part in parts)
            parts = [dataclasses.replace(x, value=y) for x, y in zip(parts, worth, strict=True)]
        compiled = not traced and t > 0 and not quick[t - 1]
        length = max(shapes.following, padded_length(layer.nodes)) if compiled else layer.nodes
        sizes = [size for _, size, _ in listed]
        together = functools.partial(_together, length, sizes)
        together = arrays.concatenate if traced else together
        whole = jax.tree.map(lambda *x, one=together: one(x), *parts)
        joined = jax.tree.map(lambda x, count=layer.nodes: x[:count], whole)
        if not traced and joined.ill is not None:
            ill = ill or bool(joined.ill.any())
        best, amount = joined.best, joined.amount
        value = best if joined.value is None else joined.value
        amount = best if amount is None else amount
        if gained is not None:
            amount = arrays.broadcast_to(gained[t].amount(tasks.root), best.shape)
        upper = joined.upper
        if upper is not None and caps is not None and not last:
            cap = caps[t] + room.each[t] * (abs(caps[t]) + amount)
            least = value + room.each[t] * amount  # W may be that, however a cap was rounded
            upper[...] = np.maximum(least, np.minimum(upper, cap))
        if traced:  # W, with the gradient of the plan in use
            best = value = value + jax.lax.stop_gradient(best - value)
        later = None if traced else whole.value
        following = Later(
            best if traced else whole.best, later, whole.amount if carried else None, whole.upper
        )
        if compiled:
            following = jax.device_put(following)
        action = joined.action[:, :, : tasks.keep]
        end = room.each[t], room.lost
        yield Swept(value, best, amount, action, upper, joined.hopeful, ill, *end)


def _together(length: int, sizes: list[int], parts: Sequence[Numbers]) -> np.ndarray:
    """What was found at each block, one after the other."""
    return joined_uncopied(parts, length, sizes if parts[0].ndim == _IN_CHUNKS else None)


class _Blocks(NamedTuple):
    """A round's nodes, to be solved block by block on any device.

    `given`: columns, tables and tasks as the round reads them; `previous`: likelihoods that
    those of this round follow from, from row `start` on; the rest as in `sweep`, of this round.
    """

    structure: Structure
    layer: Layer
    t: int
    tasks: Tasks
    tables: Tables
    given: tuple[Any, ...]
    previous: Numbers
    start: int
    following: Later
    off: Numbers
    ratios: Callable[[Int[np.ndarray, " k"]], Numbers | None]
    bounds: Callable[[int], Float[np.ndarray, "A _R _Q m"]] | None
    tick: Callable[[int], None]
    quick: bool
    traced: bool
    own: Apart | None
    gained: Gains | None
    ahead: Ahead | None

    def solve(self, run: list[tuple[int, int, Int[np.ndarray, " C"]]]) -> list[Found]:
        """What is found at the nodes of each block (`blocks`) that count."""
        layer, structure, outcome = self.layer, self.structure, self.structure.outcome
        previous, following, given = self.previous, self.following, self.given
        if not self.quick and not self.traced:
            previous, following, given = here((previous, following, given))
        column = given[0]
        arrays: ModuleType = np if self.quick else jnp
        partial = bool((layer.child[:, :, :1] < 0).any())
        valued = self.traced or following.value is not None
        found, bound, coming, at = [], None, None, -1
        for first, size, nodes in run:
            memory = int(layer.memory[first])
            if memory != at:
                if self.bounds is not None:
                    bound = arrays.asarray(self.bounds(memory), column.dtype)
                if self.ahead is not None:
                    coming = self.ahead.coming(memory, column.dtype)
                at = memory
            picked = nodes[:size] if self.quick else nodes
            likelihood, child = layer.likelihood[picked], layer.child[picked]
            parent, seen = layer.parent[likelihood] + self.start, layer.column[likelihood]
            followed = child[:, :, 0] >= 0 if partial else None
            ratio = self.ratios(nodes[:size])
            if ratio is not None and len(picked) > size:
                ratio = ratio[np.minimum(np.arange(len(picked)), size - 1)]
            part = (
                previous, parent, seen, structure.edge[self.t][memory], child, followed, ratio,
                following, bound,
            )  # fmt: skip
            if self.quick:
                numbers = column, self.tables, outcome, self.tasks, self.off, self.gained
                one = step_on_host(*part, *numbers, self.own)
            else:
                numbers = given[0], given[1], outcome, given[2], self.off, self.gained
                counted = None if self.traced else np.asarray(size, np.int32)
                most = None if self.ahead is None else self.ahead.nodes
                asked = *part, *numbers, counted, self.own, coming, most
                one = bellman_step(*asked, valued)
                if not valued and bool(np.asarray(one.apart).any()):
                    valued = True
                    one = bellman_step(*asked, valued)
            found.append(self._counted(one, size))
            self.tick(size)
        return found

    def _counted(self, one: Found, size: int) -> Found:
        """What is found at the nodes that count, without what nobody asks for.

        In the chunks of the program, and not yet in the order of memory, where tasks share most.
        """
        if self.traced:
            return jax.tree.map(lambda x: x[:size], one)
        ill = None if one.ill is None else np.full(size, np.asarray(one.ill).any())
        value = one.value if np.asarray(one.apart).any() else None
        one = dataclasses.replace(one, value=value, apart=np.zeros(size, bool), ill=ill)
        if self.own is None or self.quick:
            return jax.tree.map(lambda x: np.asarray(x)[:size], one)

        def first(x: Numbers) -> np.ndarray:
            """Nodes before roots, in chunks."""
            return np.asarray(x) if x.ndim == 1 else np.moveaxis(np.asarray(x), -1, 1)

        action = np.asarray(one.action)[:, :, : self.tasks.keep].copy()  # the rest is not held
        return jax.tree.map(first, dataclasses.replace(one, action=action))


def rounds_on_host(
    structure: Structure,
    counts: Sequence[int],
    classes: Sequence[int],
    tasks: Tasks,
    roots: int,
    plain: bool = True,
) -> list[float]:
    """Seconds that each round takes in NumPy beyond what a program takes, roughly.

    **Arguments:** `counts`, `classes`: nodes of every round listed, and classes of memory there;
    `roots`: how many are worked on; `plain`: whether no bounds are propagated, and no devices share
    a round.
    """
    controls, symbols = structure.controls, structure.symbols
    slots, last = structure.outcome.shape[1], len(counts) - 1
    alike = plain and tasks.kernel is None and on_processors()
    return [
        (_BEYOND if alike and t < last else 1.0)
        * host_seconds(
            nodes,
            memories,
            controls,
            0 if t == last else symbols,
            slots,
            tasks,
            roots,
        )
        for t, (nodes, memories) in enumerate(zip(counts, classes, strict=True))
    ]


def on_host(takes: list[float], seconds: float) -> list[bool]:
    """Which rounds NumPy works on: the quickest, as many as take `seconds` in all."""
    order = np.argsort(takes, kind="stable")
    fits = np.cumsum(np.asarray(takes)[order]) <= seconds
    return (np.argsort(order)[None] < fits.sum())[0].tolist()
