"""Batches of beliefs: each once, and programs run over them in few shapes, on any devices."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from solvers.devices import here, spread_runs

FEW, MANY = 64, 512


def padded_length(count: int) -> int:
    """The next of few lengths, so that few programs are compiled."""
    return 16 * 4 ** max(0, int(np.ceil(np.log2(count / 16) / 2)))


def padded_plans(
    alpha: Float[np.ndarray, "P U m"], control: Int[np.ndarray, "P U"]
) -> tuple[Array, Array]:
    """Plans and their ranks, for `best_plan`: by what they do first; the remainder by P is which.

    The first again and again fills them up.
    """
    rank = control * len(alpha) + np.arange(len(alpha))[:, None]
    fill = np.zeros(padded_length(len(alpha)) - len(alpha), np.int64)
    padded, ranks = (jnp.asarray(np.concatenate([x, x[fill]])) for x in (alpha, rank))
    return padded, ranks


def in_chunks(
    work: Callable[..., Any],
    query: Float[np.ndarray, "N m"],
    arguments: tuple[Any, ...],
    mesh: jax.sharding.Mesh | None,
    heavy: bool = False,
) -> list[np.ndarray]:
    """Run `work` over queries in chunks of one of two sizes, spread over a mesh.

    **Arguments:** `heavy`: whether a chunk is to be small however many there are.
    """
    size = FEW if heavy or len(query) <= FEW else MANY

    def run(starts: list[int]) -> list[list[np.ndarray]]:
        given, found = here(arguments), []
        for start in starts:
            part = query[start : start + size]
            padded = np.pad(part, [(0, size - len(part)), (0, 0)])
            out = work(padded, *given)
            out = out if isinstance(out, tuple) else (out,)
            found.append([np.asarray(x)[: len(part)] for x in out])
        return found

    found = spread_runs(mesh, run, range(0, len(query), size))
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def words(belief: Float[np.ndarray, "N m"]) -> Int[np.ndarray, "N m"]:
    """Equal where beliefs of mass one are one up to rounding."""
    return np.round(belief * 2.0**44).astype(np.int64)


def distinct(beliefs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Beliefs without repetition (up to rounding), and where each is among them."""
    mix = np.random.default_rng(0).uniform(0.5, 1.5, beliefs.shape[1])
    key = np.round(beliefs @ mix * 2.0**44)
    _, first, index = np.unique(key, return_index=True, return_inverse=True)
    index = index.reshape(-1)
    if np.abs(beliefs - beliefs[first[index]]).max(initial=0.0) > 1e-13:
        return beliefs, np.arange(len(beliefs))
    return beliefs[first], index
