"""Rounds in which the tasks of a root differ in one control: the others are worked out once.

With o_r the control of root r in which its tasks differ, others yield at once

    <row * root_r, f_ra>,  f_ra = sum_s stop[e(a), s] (x_r[j] + reward[j]),

to every task: one product of beliefs with f instead of two, of chances and of rewards. With
nothing that follows they are compared once as well, one number a control and node for a root,

    Q_q = max( max_{a != o_r} <row * root_r, f_ra>, <row * root_r, g_rq> ).
"""

import dataclasses
import functools
import operator
from types import ModuleType
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from solvers.problem import Numbers, Structure, Tables, Tasks
from solvers.ties import DType, Taken, either, take


class Apart(NamedTuple):
    """Of every root, the control in which its tasks differ, and those that are compared once.

    `others` (K, R): in order, without the last where that never yields anything.
    """

    control: Int[Numbers, " R"]
    others: Int[Numbers, "K R"]


def one_control(structure: Structure, tasks: Tasks, t: int) -> Apart | None:
    """In what the tasks of every root differ in round t; None where that is more."""
    if tasks.kernel is not None or tasks.coefficient.shape[1] == 1:
        return None
    given = (np.asarray(x) for x in (tasks.coefficient, tasks.counted))
    differ = np.any([(x != x[:, :1]).any(axis=1) for x in given], axis=0)
    outcome = structure.outcome[structure.edge[t]]
    used = np.zeros((structure.controls, differ.shape[1] + 1), bool)
    used[np.arange(structure.controls)[:, None], outcome] = True  # the last column: of no outcome
    allowed = np.asarray(tasks.allowed, bool)
    own = (allowed != allowed[:, :1]).any(axis=1) | (differ @ used[:, :-1].T)
    if own.sum(axis=1).max() > 1:
        return None
    control = own.argmax(axis=1).astype(np.int32)
    last = structure.controls - 1
    idle = bool((outcome[:, last] < 0).all() and (control < last).all())
    each = np.arange(last - idle, dtype=np.int32)[:, None]
    return Apart(control, each + (each >= control))


def shared_features(
    edges: Numbers, tables: Tables, outcomes: Numbers, tasks: Tasks, own: Apart, kind: DType,
    wide: bool, weight: Numbers, arrays: ModuleType,
) -> Float[Numbers, "F R m"]:  # fmt: skip
    """What beliefs are contracted with: yields of other controls to the first task (and sizes).

    Then of the control in which tasks differ chances, rewards (and sizes) of every slot; and
    `weight` (R, m).
    """
    stop = arrays.asarray(tables.stop)[edges]
    reward = arrays.asarray(tables.reward)[arrays.asarray(outcomes)[edges]]
    each = arrays.asarray(own.others), arrays.arange(len(own.control))
    rows = [y[:, 0][each] for y in yields(edges, tables, outcomes, tasks, wide, 1, arrays)]
    apart = [stop, stop * reward] + ([stop * abs(reward)] if wide else [])
    rows += [y[own.control].swapaxes(0, 1) for y in apart] + [arrays.asarray(weight)[None]]
    return (arrays.concatenate(rows) * arrays.asarray(tasks.root)).astype(kind)


def yields_apart(
    product: Float[Numbers, "F C R"], outcome: Int[np.ndarray, "A J"], tasks: Tasks, own: Apart
) -> Float[np.ndarray, "A C R Q"]:
    """What controls yield to each task, of what beliefs are contracted with but for the weight.

    -inf where a control may not be used. In NumPy.
    """
    mine, others = np.asarray(own.control), np.asarray(own.others)
    count, roots, allowed = len(others), np.arange(len(mine)), np.asarray(tasks.allowed, bool)
    found = np.zeros((len(outcome), *product.shape[1:], allowed.shape[1]), product.dtype)
    usable = allowed[roots, 0, others][:, :, None]
    each = np.where(usable, product[:count].swapaxes(1, 2), -np.inf)
    found[others, :, roots] = each[..., None]
    x, counted = (
        np.asarray(y)[roots[:, None], :, outcome[mine]].swapaxes(0, 1)[:, :, None]
        for y in (tasks.coefficient, tasks.counted)
    )
    parts = product[count:, ..., None].swapaxes(1, 2)
    paid = [chance * one for chance, one in zip(parts[: len(x)], x, strict=True)]
    paid += [reward * one for reward, one in zip(parts[len(x) :], counted, strict=True)]
    total = functools.reduce(operator.add, paid)
    found[mine, :, roots] = np.where(allowed[roots, :, mine][:, None], total, -np.inf)
    return found


def yields(
    edges: Numbers, tables: Tables, outcomes: Numbers, tasks: Tasks, wide: bool, count: int,
    arrays: ModuleType,
) -> list[Float[Numbers, "A Q R m"]]:  # fmt: skip
    """What controls yield to the first `count` tasks of every root, given omega (and sizes)."""
    outcome, stop = arrays.asarray(outcomes)[edges], arrays.asarray(tables.stop)[edges]
    reward = arrays.asarray(tables.reward)[outcome]
    x, counted = (
        arrays.moveaxis(arrays.asarray(y)[:, :count][..., outcome, None], 2, 0).swapaxes(1, 2)
        for y in (tasks.coefficient, tasks.counted)
    )

    def added(coefficient: Numbers, reward: Numbers):
        """Slot by slot, so that no array holds all of them."""
        total = arrays.zeros((), stop.dtype)
        for s in range(stop.shape[1]):
            paid = coefficient[..., s, :] + counted[..., s, :] * reward[:, None, None, s]
            total = total + stop[:, None, None, s] * paid
        return total

    found = [added(x, reward)]
    return [*found, added(abs(x), abs(reward))] if wide else found


def take_shared(
    belief: Float[Array, "C m"], features: Float[Numbers, "F R m"], edges: Numbers,
    outcomes: Numbers, tasks: Tasks, own: Apart, error: Numbers, wide: bool,
    scale: Numbers | None,
) -> Taken:  # fmt: skip
    """What is taken at beliefs, (R, Q, C), of what they are contracted with (`shared_features`).

    Nodes are last, as there are more of them than of roots or tasks. `scale` (R,): of the weights,
    where they bound amounts.
    """
    product = jnp.einsum("frm,cm->frc", features, belief, precision=jax.lax.Precision.HIGHEST)
    controls, outcome = len(edges), jnp.asarray(outcomes)[edges]
    slots, live = outcome.shape[1], product[-1] > 0
    mine, others = jnp.asarray(own.control), jnp.asarray(own.others)
    count, roots = len(others), jnp.arange(len(mine))
    kinds = jnp.split(product[:-1], np.cumsum([count] * (1 + wide) + [slots] * (1 + wide)))
    allowed = jnp.asarray(tasks.allowed, bool)
    total = jnp.where(allowed[roots, 0, others][:, :, None], kinds[0], -jnp.inf)
    room = None if scale is None else error * scale[:, None] * product[-1]
    sizes = kinds[1] if wide else None
    if count < controls - 1:  # the last control
        nothing = jnp.zeros_like(kinds[0][:1])
        total = jnp.concatenate([total, nothing])
        sizes = None if sizes is None else jnp.concatenate([sizes, nothing])
    first = take(total, sizes, error, True, room=room, whole=True, arrays=jnp)
    choice = first.choice.astype(jnp.int16)  # among the others
    first = dataclasses.replace(first, choice=choice + (choice >= mine[:, None]))
    first = jax.tree.map(lambda y: y[:, None], first)
    x, counted = (
        jnp.moveaxis(jnp.asarray(y)[roots[:, None], :, outcome[mine]], 1, 0)[..., None]
        for y in (tasks.coefficient, tasks.counted)
    )
    chance, *yields = (y[:, :, None] for y in kinds[1 + wide :])
    total = (chance * x + yields[0] * counted).sum(axis=0)
    total = jnp.where(allowed[roots, :, mine][..., None], total, -jnp.inf)
    amount = (chance * abs(x) + yields[1] * counted).sum(axis=0) if wide else None
    room = None if room is None else room[:, None]
    one = mine[:, None, None]
    return either(first, total, amount, one, controls - 1, error, live[:, None], room)
