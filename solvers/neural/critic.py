"""What values the beliefs that may follow, for who plans one round ahead: any function of them.

A policy is greedy for a critic V: it maximises what a round yields plus the expected V after it.
Bounds hold whatever the critic says (`solvers.neural.rollout`, `solvers.confidence.runs`); a good
one makes the policy good and runs vary little.
"""

import abc

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from solvers.problem import Numbers
from solvers.process import AbstractProcess, Case


class AbstractCritic(eqx.Module):
    """Values of beliefs; its fields are arrays, so that it is saved with the policy."""

    @abc.abstractmethod
    def summaries(self, view: Float[Numbers, "n m V"]) -> Float[Array, "m S"]:
        """What beliefs are multiplied by, traced: S numbers at every grid point.

        **Arguments:** `view`: what is known about each control at each grid point, see `view`.
        """

    @abc.abstractmethod
    def __call__(
        self,
        summary: Float[Numbers, " S"],
        fixed: Float[Numbers, " F"],
        remaining: Numbers | int,
        case: Case,
        scale: Float[Numbers, ""],
    ) -> Float[Array, ""]:
        """Value of one belief p of mass 1, in the case's money; traced.

        **Arguments:** `summary`: p times `summaries`; `fixed` (n+3,): p times the `reserve` rows
        of `Laws` and U, and (n+4,) L where it is known, n counting tolls here; `remaining`: rounds
        left, this one included; `scale`: of the case's money, see `case_scale`.
        """


def case_scale(case: Case, reward: Float[Numbers, "n m"]) -> Float[Array, ""]:
    """Unit of money of a case: what the best outcome that counts yields, averaged over the grid.

    Not the largest of all: a few grid points with huge rewards would make every error look small.
    """
    worth = jnp.abs(case.worth(reward)).max(axis=0)
    best = jnp.maximum(case.worth(reward).max(axis=0), 0.0)
    return jnp.maximum(best.mean(), jnp.maximum(0.01 * worth.mean(), 1e-12))


def view(process: AbstractProcess, case: Case) -> Float[Array, "n m V"]:
    """See each outcome at each grid point, traced.

    Its worth, alone and less the best; its reward; and if its control came first: the expected
    yield at once, alone and less the best, and the chance of going on.
    """
    worth, scale = case.worth(process.reward), case_scale(case, process.reward)
    start = jnp.asarray(process.start())
    n = process.controls - 1
    ends = jax.vmap(lambda a: process.ends(process.step(start, a), a))(jnp.arange(n))
    pay = (ends[:, :-1] * worth).sum(axis=1)
    worth, reward = worth[:n], jnp.asarray(process.reward)[:n]
    usable = (jnp.asarray(case.counted)[:n] & jnp.asarray(case.allowed)[:-1])[:, None]

    def behind(value: Numbers):
        best = jnp.where(usable, value, -jnp.inf).max(axis=0)
        return value - jnp.maximum(best, 0.0)

    money = [worth, behind(worth), reward, pay, behind(pay)]
    # Of the order of one on both sides of zero, however far the worst outcomes lie.
    return jnp.stack([*(jnp.arcsinh(x / scale) for x in money), ends[:, -1]], axis=-1)
