"""Endless plans in closed form: one control for ever below, being told the parameter above.

In a stationary problem memory classes move without chance: control a leads from class c to
succ(c, a). Given the parameter, keeping one rule of action pi(c) for ever is worth

    F(c) = r(c) + y(c) F(s(c)),    r: what a round yields, y: chance of going on, s = succ(., pi),

a sum along one path. It is summed by doubling, (r, y, s) <- (r + y r(s), y y(s), s(s)): k steps add
2^k rounds, so that chances of going on of .999 cost no more than .9 (four doublings more). One
control for ever is such a rule, whose value *per parameter* is known: below W at every belief. The
best rule of each parameter, by policy iteration, is what a controller told the parameter gets:
above W at every belief, since nothing is left to learn. Both are exact sums; no horizon is cut.
"""

import numpy as np
from jaxtyping import Bool, Float, Int

from solvers.problem import Structure, Tables

_DOUBLINGS = 64
_POLICIES = 200
_SAME, _EXACT, _REFINED = 2e-15, 2.3e-16, 4


def round_yields(
    structure: Structure,
    tables: Tables,
    coefficient: Float[np.ndarray, " n"],
    counted: Float[np.ndarray, " n"],
) -> Float[np.ndarray, "E m"]:
    """What one round at each edge yields given the parameter, unconditional on its ending."""
    worth = coefficient[:, None] + counted[:, None] * np.asarray(tables.reward, float)
    live = (structure.outcome >= 0)[:, :, None]
    chance = np.where(live, np.asarray(tables.stop, float), 0.0)
    return (chance * worth[np.maximum(structure.outcome, 0)]).sum(axis=1)


def going_on(structure: Structure, tables: Tables) -> Float[np.ndarray, "E m"]:
    """Chance that the process goes on after each edge given the parameter."""
    return np.asarray(tables.column, float)[structure.columns].sum(axis=1)


def summed(
    value: Float[np.ndarray, "... M m"],
    going: Float[np.ndarray, "... M m"],
    after: Int[np.ndarray, "... M m"],
) -> Float[np.ndarray, "... M m"]:
    """F = value + going F(after), for ever; classes on the axis before the last."""
    value, going = value.copy(), going.copy()
    if value.shape[-2] == 1:
        return np.divide(value, 1 - going, out=np.zeros_like(value), where=value != 0)
    for _ in range(_DOUBLINGS):
        step = going * np.take_along_axis(value, after, axis=-2)
        value += step
        going = going * np.take_along_axis(going, after, axis=-2)
        if not (np.abs(going) > 1e-300).any() or not (np.abs(step) > 0).any():
            break
        after = np.take_along_axis(after, after, axis=-2)
    return value


def one_for_ever(
    structure: Structure, yields: Float[np.ndarray, "E m"], going: Float[np.ndarray, "E m"]
) -> Float[np.ndarray, "A M m"]:
    """Worth of each control kept for ever, from each memory class, given the parameter."""
    edge = structure.edge[0].T
    after = np.broadcast_to(structure.successor[0].T[:, :, None], (*edge.shape, yields.shape[1]))
    return summed(yields[edge], going[edge], after)


def told_for_ever(
    structure: Structure,
    yields: Float[np.ndarray, "E m"],
    going: Float[np.ndarray, "E m"],
    kept: Float[np.ndarray, "A M m"],
    allowed: Bool[np.ndarray, " A"],
) -> Float[np.ndarray, "M m"]:
    """Worth of the best rule of action given the parameter, from each memory class.

    Policy iteration from the best of the controls `kept` for ever; it ends when no control is
    better by more than rounding of its own terms. What one is better by, e at most from any class,
    is then added for ever: if a round more makes no value of a table larger by more than e, values
    exceed it by e / (1 - g) at most, g the largest chance of going on.
    """
    controls = np.flatnonzero(allowed)
    best = kept[controls].max(axis=0)
    if len(best) == 1:  # one class: the best control of a parameter stays the best
        return best
    edge, successor = structure.edge[0][:, controls], structure.successor[0][:, controls]
    value, chance = yields[edge], going[edge]
    rule = np.zeros(best.shape, np.int64)
    for step in range(_POLICIES):
        later = chance * best[successor]
        option = value + later
        taken = option.argmax(axis=1)[:, None]
        top, now, rest = (np.take_along_axis(x, taken, 1)[:, 0] for x in (option, value, later))
        better = top > best + _SAME * (np.abs(now) + np.abs(rest) + np.abs(best))
        if step and not better.any():
            further, more = chance.max(axis=(0, 1)), np.maximum(top - best, 0.0).max(axis=0)
            rounds = np.divide(1.0, 1.0 - further, out=np.ones_like(further), where=further < 1)
            return np.maximum(top, best + more * rounds)
        rule = np.where(better | (step == 0), taken[:, 0], rule)
        pick = rule[:, None]
        after = np.take_along_axis(np.broadcast_to(successor[..., None], option.shape), pick, 1)
        worth = np.take_along_axis(value, pick, 1)[:, 0]
        going_on = np.take_along_axis(chance, pick, 1)[:, 0]
        best = _refined(worth, going_on, after[:, 0])
    raise ArithmeticError("policy iteration does not end: is every chance of going on below 1?")


def _refined(
    value: Float[np.ndarray, "M m"], going: Float[np.ndarray, "M m"], after: Int[np.ndarray, "M m"]
) -> Float[np.ndarray, "M m"]:
    """`summed`, so that a round more changes it by no more than rounding of that round's terms.

    A sum of 1 / (1 - g) rounds is off by as many roundings, by other ones in other classes.
    """
    found = summed(value, going, after)
    for _ in range(_REFINED):
        later = going * np.take_along_axis(found, after, axis=0)
        left = value + later - found
        if (np.abs(left) <= _EXACT * (np.abs(value) + np.abs(later) + np.abs(found))).all():
            break
        found = found + summed(left, going, after)
    return found
