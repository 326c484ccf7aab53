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
"""

from typing import TypeVar

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Int

Numbers = Array | np.ndarray
T = TypeVar("T")


class Structure(eqx.Module):
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
      None: every column counts for itself.
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

    @property
    def horizon(self) -> int:
        return len(self.edge)

    @property
    def symbols(self) -> int:
        return self.columns.shape[1]


class Tables(eqx.Module):
    """The numbers of a problem; may be traced.

    **Arguments:**

    - `stop`: shape (E, J, m): probability that the process ends in the slot's outcome.
    - `column`: shape (C, m): probability of going on and observing a symbol of that column.
    - `reward`: shape (outcomes, m): what an outcome yields beside its coefficient.
    - `scale`: shape (): money scale of the tie rule, the largest |x_j + reward[j, omega]|.
    """

    stop: Float[Numbers, "E J m"]
    column: Float[Numbers, "C m"]
    reward: Float[Numbers, "n m"]
    scale: Float[Numbers, ""]


class Tasks(eqx.Module):
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


def cast(tree: T, dtype: type[np.floating]) -> T:
    """Tables or tasks with every number of float64 rounded to `dtype`."""

    def one(leaf):
        real = isinstance(leaf, np.ndarray | jax.Array) and leaf.dtype == np.float64
        return np.asarray(leaf).astype(dtype) if real else leaf

    return jax.tree.map(one, tree)
