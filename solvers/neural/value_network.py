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
import numpy as np
from jaxtyping import Array, Float

from solvers.errors import InvalidArgument, describe
from solvers.kept import require_numbers
from solvers.neural.critic import AbstractCritic
from solvers.problem import Numbers
from solvers.process import Case

_CLOCK = (1.0, 4.0, 16.0)
_VIEW = 6


class Layer(eqx.Module):
    """x -> weight x + bias."""

    weight: Float[Array, "O I"]
    bias: Float[Array, " O"]

    def __init__(self, key: jax.Array, inputs: int, outputs: int):
        keys, most = jax.random.split(key), inputs**-0.5
        self.weight = jax.random.uniform(keys[0], (outputs, inputs), minval=-most, maxval=most)
        self.bias = jax.random.uniform(keys[1], (outputs,), minval=-most, maxval=most)

    def __call__(self, x: Float[Numbers, " I"]) -> Float[Array, " O"]:
        """Apply it to one input, traced."""
        # In this order: the axes of a batch come first, and nothing is turned.
        return jnp.matmul(x, self.weight.T) + self.bias


class ValueNetwork(AbstractCritic):
    """The learned part: g (`taste`), two layers over the set of outcomes, and the head.

    **Arguments:** `key`; `width` of the hidden layers; `summary`: length of the image of g.
    """

    taste: tuple[Layer, Layer]
    lift: Layer
    mix: Layer
    head: tuple[Layer, Layer]

    def __init__(self, key: jax.Array, width: int = 32, summary: int = 8):
        taste, lift, mix, head = jax.random.split(key, 4)
        everything = 3 + len(_CLOCK)
        first, second = jax.random.split(taste)
        self.taste = Layer(first, _VIEW, 16), Layer(second, 16, summary)
        self.lift = Layer(lift, summary + 4 + everything, width)
        self.mix = Layer(mix, 3 * width, width)
        first, second = jax.random.split(head)
        self.head = Layer(first, 2 * width + everything, width), Layer(second, width, 1)

    def __check_init__(self):
        shapes = [
            [np.shape(x) for x in (layer.weight, layer.bias)]
            for layer in (*self.taste, self.lift, self.mix, *self.head)
        ]
        width, summary = shapes[2][0][0], shapes[1][0][0]
        everything = 3 + len(_CLOCK)
        wanted = [
            (16, _VIEW), (summary, 16), (width, summary + 4 + everything), (width, 3 * width),
            (width, 2 * width + everything), (1, width),
        ]  # fmt: skip
        if shapes != [[weight, weight[:1]] for weight in wanted]:
            must, do = "hold a network of this version", "solve again"
            raise InvalidArgument(describe("ValueNetwork(...)", must, f"shapes {shapes}", do))

    def check_kept(self) -> None:
        """Raise `ValueError` for parameters that are not finite."""
        for k, layer in enumerate((*self.taste, self.lift, self.mix, *self.head)):
            require_numbers(f"weight of layer {k}", np.asarray(layer.weight))
            require_numbers(f"bias of layer {k}", np.asarray(layer.bias))

    def summaries(self, view: Float[Numbers, "n m V"]):
        """g at every outcome and grid point."""
        image = jax.vmap(jax.vmap(lambda seen: _two(self.taste, seen)))(jnp.asarray(view))
        return jnp.moveaxis(image, 1, 0).reshape(image.shape[1], -1)

    def __call__(
        self,
        summary: Float[Numbers, " S"],
        fixed: Float[Numbers, " F"],
        remaining: Numbers | int,
        case: Case,
        scale: Float[Numbers, ""],
    ):
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
        pooled = jnp.concatenate([hidden.mean(axis=0), _largest(hidden)])
        beside = jnp.broadcast_to(pooled, (n, len(pooled)))
        mixed = jax.nn.gelu(jax.vmap(self.mix)(jnp.concatenate([hidden, beside], axis=1)))
        ending = jnp.concatenate([mixed.mean(axis=0), _largest(mixed), whole])
        if len(fixed) == every + 3:
            return told - scale * jax.nn.softplus(_two(self.head, ending)[0] - 3.0)
        return told - jnp.maximum(told - fixed[every + 3], 0.0) * jax.nn.sigmoid(
            _two(self.head, ending)[0]
        )


def _two(layers: tuple[Layer, Layer], x: Float[Numbers, " I"]) -> Float[Array, " O"]:
    """A hidden layer, and what is read off it."""
    return layers[1](jax.nn.gelu(layers[0](x)))


def _largest(x: Float[Array, "n W"]) -> Float[Array, " W"]:
    """The largest of each column, gathered.

    The gradient of a maximum looks for the entry that equals it. An accelerator may work that entry
    out twice, rounded in two ways: then none does, and the gradient is 0 / 0.
    """
    return jnp.take_along_axis(x, jnp.argmax(x, axis=0)[None], axis=0)[0]
