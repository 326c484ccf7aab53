"""A value network that knows the symmetries of the problem.

For a belief b with mass |b|, p = b / |b|, memory h and case (x, counted, allowed),

    V(t, h, b) = |b| ( <p, U_t(h, .)> - s softplus(f(t, h, p, case)) ),

or, where it is cheap to know what the best single control L_t(b) yields if kept to the end,

    V(t, h, b) = <b, U_t> - (<b, U_t> - L_t(b)) sigmoid(f(t, h, p, case)),

so V is homogeneous in b and never above the told-omega bound U (nor below L); V_{T+1} = 0 is not
learned but never asked for. The second has little to learn once beliefs are concentrated. The
network f sees the outcomes as a set: relabelling them together with the
case permutes nothing else. Each outcome j brings a posterior summary sum_omega p(omega)
g(view_j(omega)) with g learned, and its chance if nothing more were done. The view of an outcome
is what is known about it at a grid point: `view`. Control j is taken to belong to outcome j; tolls
are seen in what controls yield. No parameter depends on the number of outcomes n, of grid points m,
or of rounds T. All money enters in units of s, the case's own scale.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from solvers.problem import Numbers
from solvers.process import AbstractProcess, Case

_CLOCK = (1.0, 4.0, 16.0)
_VIEW = 6


class ValueNetwork(eqx.Module):
    """The learned part: g (`taste`), two layers over the set of outcomes, and the head.

    **Arguments:** `key`; `width` of the hidden layers; `summary`: length of the image of g.
    """

    taste: eqx.nn.MLP
    lift: eqx.nn.Linear
    mix: eqx.nn.Linear
    head: eqx.nn.MLP
    summary: int = eqx.field(static=True)

    def __init__(self, key: jax.Array, width: int = 32, summary: int = 8):
        keys = jax.random.split(key, 4)
        everything = 3 + len(_CLOCK)
        self.summary = summary
        self.taste = eqx.nn.MLP(_VIEW, summary, 16, 1, jax.nn.gelu, key=keys[0])
        self.lift = eqx.nn.Linear(summary + 4 + everything, width, key=keys[1])
        self.mix = eqx.nn.Linear(3 * width, width, key=keys[2])
        self.head = eqx.nn.MLP(2 * width + everything, "scalar", width, 1, jax.nn.gelu, key=keys[3])

    def summaries(self, view: Float[Numbers, "n m V"]) -> Float[Array, "m nF"]:
        """g at every outcome and grid point: what beliefs are multiplied by."""
        image = jax.vmap(jax.vmap(self.taste))(jnp.asarray(view))
        return jnp.moveaxis(image, 1, 0).reshape(image.shape[1], -1)

    def __call__(
        self,
        summary: Float[Numbers, " nF"],
        fixed: Float[Numbers, " F"],
        remaining: Numbers | int,
        case: Case,
        scale: Float[Numbers, ""],
    ) -> Float[Array, ""]:
        """Value of one belief of mass 1.

        **Arguments:** `summary`: p times `summaries`; `fixed` (n+3,): p times the `reserve` rows
        of `Laws` and U, and (n+4,) L where it is known, n counting tolls here; `remaining`: rounds
        left, this one included.
        """
        n, every = len(case.allowed) - 1, len(case.coefficient)
        chance, (going, idle, told) = fixed[:n], fixed[every : every + 3]
        left = jnp.asarray(remaining, summary.dtype)
        clock = [left / (left + c) for c in _CLOCK]
        whole = jnp.stack([going, idle / scale, told / scale, *clock])
        own = jnp.stack(
            [
                jnp.asarray(case.coefficient)[:n] / scale,
                chance,
                jnp.asarray(case.counted, summary.dtype)[:n],
                jnp.asarray(case.allowed[:-1], summary.dtype),
            ],
            axis=1,
        )
        each = jnp.concatenate([summary.reshape(n, -1), own], axis=1)
        inputs = jnp.concatenate([each, jnp.broadcast_to(whole, (n, len(whole)))], axis=1)
        hidden = jax.nn.gelu(jax.vmap(self.lift)(inputs))
        pooled = jnp.concatenate([hidden.mean(axis=0), hidden.max(axis=0)])
        beside = jnp.broadcast_to(pooled, (n, len(pooled)))
        mixed = jax.nn.gelu(jax.vmap(self.mix)(jnp.concatenate([hidden, beside], axis=1)))
        ending = jnp.concatenate([mixed.mean(axis=0), mixed.max(axis=0), whole])
        if len(fixed) == every + 3:
            return told - scale * jax.nn.softplus(self.head(ending) - 3.0)
        return told - jnp.maximum(told - fixed[every + 3], 0.0) * jax.nn.sigmoid(self.head(ending))


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

    def behind(value):
        best = jnp.where(usable, value, -jnp.inf).max(axis=0)
        return value - jnp.maximum(best, 0.0)

    money = [worth, behind(worth), reward, pay, behind(pay)]
    # Of the order of one on both sides of zero, however far the worst outcomes lie.
    return jnp.stack([*(jnp.arcsinh(x / scale) for x in money), ends[:, -1]], axis=-1)
