"""Decision problems with a static hidden parameter.

The object: a parameter omega, one of m grid points, is drawn once and never moves. In round
t = 1..T a controller with memory class c picks a control a. With probability
``stop[e, s, omega]`` the process ends in the outcome ``outcome[e, s]`` = j and yields
``x_j + reward[j, omega]``; with probability ``column[c, omega]`` it goes on and a symbol z is
observed, ``c = columns[e, z]``; with what probability is left it ends and yields nothing.
Everything depends on the round, the memory class and the control only through the *edge* e.
The coefficients x are known to the controller; they are constant, or move by a Markov kernel
that is independent of omega.

The operator: with an unnormalised belief b (each round multiplies b by a column)

    W_t(x, c, b) = max_a  sum_omega b(omega) sum_s stop[e, s, omega] (x_j + reward[j, omega])
                          + sum_z E_{x'}[ W_{t+1}(x', c', b * column[columns[e, z]]) ],

with W_{T+1} = 0. W is positively homogeneous in b, so nothing is divided by a probability.

An outcome may also be a *toll*: it ends nothing, and ``stop`` is how much of it a round yields
whatever comes after. Tolls are the last outcomes. They are never worth more than nothing, so that
the most that any outcome yields, or 0, bounds from above what is still to come.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, overload

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from solvers.host import Record
from solvers.kept import require_chances, require_indices, require_numbers

Numbers = Array | np.ndarray
T = TypeVar("T")


class Structure(Record):
    """What can follow what: host-side integers, the same whatever the numbers are.

    **Arguments:**

    - `edge`: per round, shape (M_t, A): the edge that control a is in memory class c.
    - `successor`: per round, shape (M_t, A): the memory class of the next round.
    - `columns`: shape (E, Z): the likelihood column that symbol z multiplies the belief by;
      -1 in edges of the last round, which nothing follows.
    - `outcome`: shape (E, J): the outcome of each slot, -1 where the slot is empty.
    - `controls`, `outcomes`, `column_count`: A, the number of outcomes, number of columns.
    - `dead`: the column that is zero for every parameter, -1 if there is none. The last control
      is taken after it, so histories through it are merged.
    - `digits` (C, g), `offset` (C,): multisets of columns with equal sums of digits have beliefs
      in proportion, in the ratio exp of the difference of their summed offsets (`relations`);
      None: every column counts for itself. `drift`: what that can be off by, as a share, a round.
    """

    edge: tuple[Int[np.ndarray, "_M A"], ...]
    successor: tuple[Int[np.ndarray, "_M A"], ...]
    columns: Int[np.ndarray, "E Z"]
    outcome: Int[np.ndarray, "E J"]
    controls: int = eqx.field(static=True)
    outcomes: int = eqx.field(static=True)
    column_count: int = eqx.field(static=True)
    dead: int = eqx.field(static=True, default=-1)
    digits: Int[np.ndarray, "C g"] | None = None
    offset: Float[np.ndarray, " C"] | None = None
    drift: float = eqx.field(static=True, default=0.0)

    @property
    def horizon(self) -> int:
        return len(self.edge)

    @property
    def symbols(self) -> int:
        return self.columns.shape[1]

    def check_kept(self) -> None:
        """Raise `ValueError` for indices that point at nothing."""
        classes = [len(part) for part in self.edge]
        for t, (edge, after) in enumerate(zip(self.edge, self.successor, strict=True)):
            require_indices(f"edge[{t}]", edge, len(self.columns), -1)
            last = t == self.horizon - 1
            require_indices(f"successor[{t}]", after, max(classes) if last else classes[t + 1], -1)
        require_indices("columns", self.columns, self.column_count, -1)
        require_indices("outcome", self.outcome, self.outcomes, -1)
        if self.offset is not None:
            require_numbers("offset", self.offset)


class Tables(Record):
    """The numbers of a problem; may be traced.

    **Arguments:**

    - `stop`: shape (E, J, m): probability that the process ends in the slot's outcome; the rate
      of a toll, in [0, 1].
    - `column`: shape (C, m): probability of going on and observing a symbol of that column.
    - `reward`: shape (outcomes, m): what an outcome yields beside its coefficient.
    """

    stop: Float[Numbers, "E J m"]
    column: Float[Numbers, "C m"]
    reward: Float[Numbers, "n m"]

    def check_kept(self) -> None:
        """Raise `ValueError` for chances that are none, and yields that are not finite."""
        require_chances("stop", np.asarray(self.stop))
        require_chances("column", np.asarray(self.column))
        require_numbers("reward", np.asarray(self.reward))


class Tasks(Record):
    """Roots, and the maximisations asked for at each of them.

    A task is a coefficient vector, a set of controls allowed, and a set of outcomes that
    count. Tasks of one root share every contraction of beliefs by rewards.

    **Arguments:**

    - `root`: shape (R, m): unnormalised beliefs at the start.
    - `coefficient`: shape (R, Q, n): x, already zero for outcomes that do not count.
    - `counted`: shape (R, Q, n): 1 where an outcome counts, else 0.
    - `allowed`: shape (R, Q, A): whether a control may be used. The last always may.
    - `keep`: the policies of the first `keep` tasks of every root are returned.
    - `kernel`: None when coefficients are constant; else shape (A, V, V), rows summing to 1:
      the law of the next coefficient vector after each control. Tasks are then laid out as
      (variants, V).
    """

    root: Float[Numbers, "R m"]
    coefficient: Float[Numbers, "R Q n"]
    counted: Float[Numbers, "R Q n"]
    allowed: Numbers
    keep: int = eqx.field(static=True)
    kernel: Float[Numbers, "A V V"] | None = None


class Task(Record):
    """One maximisation, as a solver of one's own meets it.

    - `root` (m,): unnormalised belief at the start. `allowed` (A,): controls that may be used.
    - `weights` (F,): of the rewards (F, m) that a `Problem` gives by memory and control.
    - `following` (V,), `law` (A, V): tasks whose weights may hold in the next round, and their
      chances after each control; the task itself, surely, where coefficients are constant.
    """

    root: Float[np.ndarray, " m"]
    weights: Float[np.ndarray, " F"]
    allowed: Bool[np.ndarray, " A"]
    following: Int[np.ndarray, " V"]
    law: Float[np.ndarray, "A V"]


class TaskList(Sequence[Task]):
    """Every task of a solve, one after the other; `groups` holds them as arrays.

    The order is that of the groups: roots one after the other, and the tasks of each root.
    """

    def __init__(self, groups: Sequence[Tasks]):
        self.groups = tuple(groups)
        sizes = [part.coefficient.shape[0] * part.coefficient.shape[1] for part in self.groups]
        self.starts = np.cumsum([0, *sizes])

    def __len__(self) -> int:
        return int(self.starts[-1])

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | Sequence[Task]:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        at = range(len(self))[index]
        group = int(np.searchsorted(self.starts, at, side="right")) - 1
        part, first = self.groups[group], int(self.starts[group])
        root, task = divmod(at - first, part.coefficient.shape[1])
        weights = np.concatenate([part.coefficient[root, task], part.counted[root, task]])
        allowed = np.asarray(part.allowed[root, task], bool)
        following, law = np.array([at]), np.ones((len(allowed), 1))
        if part.kernel is not None:
            size = part.kernel.shape[1]
            following = at - task % size + np.arange(size)
            law = np.asarray(part.kernel)[:, task % size]
        return Task(np.asarray(part.root[root]), weights, allowed, following, law)

    def __iter__(self) -> Iterator[Task]:
        return (self[k] for k in range(len(self)))

    @property
    def mass(self) -> Float[np.ndarray, " N"]:
        """Mass of every task's root, (N,)."""
        parts = (
            np.repeat(np.asarray(part.root).sum(axis=1), part.coefficient.shape[1])
            for part in self.groups
        )
        return np.concatenate([np.zeros(0), *parts])

    @property
    def kept(self) -> Bool[np.ndarray, " N"]:
        """Tasks whose plans are asked for, (N,); of the others, bounds are enough."""
        parts = [np.zeros(0, bool)]
        for part in self.groups:
            roots, width = part.coefficient.shape[:2]
            parts.append(np.tile(np.arange(width) < part.keep, roots))
        return np.concatenate(parts)

    def split(self, flat: Float[np.ndarray, " N"]) -> list[Float[np.ndarray, "_R _Q"]]:
        """What belongs to each group of numbers (N,), one a task."""
        pieces = np.split(np.asarray(flat), self.starts[1:-1])
        shapes = (part.coefficient.shape[:2] for part in self.groups)
        return [piece.reshape(shape) for piece, shape in zip(pieces, shapes, strict=True)]


def cast(tree: T, dtype: type[np.floating]) -> T:
    """Tables or tasks with every number of float64 rounded to `dtype`."""

    def one(leaf: Any):
        real = isinstance(leaf, np.ndarray | jax.Array) and leaf.dtype == np.float64
        return np.asarray(leaf).astype(dtype) if real else leaf

    return jax.tree.map(one, tree)
