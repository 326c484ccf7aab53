"""What is known of one round and memory class: beliefs visited, bounds there, and plans."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from solvers.points.batches import in_chunks, padded_length, padded_plans, words
from solvers.told.interpolate import NEAR, best_plan, upper_between, weights_between

_CELLS = 3_072
_ROUNDED = 1e-15
_FOUND = ("belief", "upper", "lower", "best", "ceiling", "alpha", "plan", "control", "after")


class Points:
    """Visited beliefs and plans of one round and memory class.

    - `belief` (K, m), `upper` (K, U), `lower` (K, U): visited beliefs, of mass one, and bounds.
    - `alpha` (P, U, m), `plan` (P,): plans in use and their numbers; `control` (all plans, U),
      `after` (all plans, U, Z, V): what every plan ever made does, per task.
    - `best` (K, U): the plan number that attains each lower bound. `ceiling` (K, A, U): upper
      bounds on what every control is worth there.
    """

    def __init__(
        self, told: np.ndarray, least: np.ndarray, kept: np.ndarray, keeps: np.ndarray,
        controls: np.ndarray, symbols: int, regimes: int, mesh: jax.sharding.Mesh | None,
    ):  # fmt: skip
        tasks, points = told.shape
        self.mesh, self.told, self.least = mesh, told, least
        self.belief, self.upper = np.zeros((0, points)), np.zeros((0, tasks))
        self.lower, self.best = np.zeros((0, tasks)), np.zeros((0, tasks), np.int64)
        self.ceiling = np.zeros((0, len(controls), tasks))
        self.controls = controls
        self.alpha, self.plan, self.control = kept, np.arange(len(kept)), keeps
        self.none = len(kept) - 1  # the number of the first plan that shows nothing
        again = np.broadcast_to(self.plan[:, None, None, None], (*keeps.shape, symbols, regimes))
        self.after = again.copy()
        self.place: dict[bytes, int] = {}
        self._cache: dict[str, tuple[Array, ...]] = {}

    def state(self) -> dict[str, np.ndarray]:
        """What was found, for a checkpoint."""
        return {name: getattr(self, name) for name in _FOUND}

    def restore(self, kept: dict[str, np.ndarray]) -> None:
        """Become what was kept."""
        for name in _FOUND:
            setattr(self, name, kept[name].copy())
        self.place = {row.tobytes(): k for k, row in enumerate(words(self.belief))}
        self._cache.clear()

    def bytes(self) -> int:
        arrays = (self.belief, self.upper, self.lower, self.alpha, self.after)
        return sum(array.nbytes for array in arrays)

    def visit(self, belief: np.ndarray) -> Int[np.ndarray, " n"]:
        """Where beliefs of mass one are among those visited; new ones are added."""
        index = np.empty(len(belief), np.int64)
        fresh = []
        for n, row in enumerate(words(belief)):
            known = self.place.setdefault(row.tobytes(), len(self.place))
            index[n] = known
            if known == len(self.belief) + len(fresh):
                fresh.append(n)
        if fresh:
            more = belief[fresh]
            upper, lower, best = self.upper_at(more), *self.lower_at(more)
            self.belief = np.concatenate([self.belief, more])
            self.upper = np.concatenate([self.upper, upper])
            self.lower = np.concatenate([self.lower, lower])
            self.best = np.concatenate([self.best, best])
            ceiling = np.einsum("nm,aum->nau", more, self.controls, optimize=True)
            self.ceiling = np.concatenate([self.ceiling, ceiling])
            self._cache.clear()
        return index

    def upper_at(self, query: np.ndarray) -> Float[np.ndarray, "N U"]:
        """Upper bounds at unnormalised beliefs."""
        return in_chunks(upper_between, query, self._known(), self.mesh)[0]

    def made_of(self, query: np.ndarray) -> list[np.ndarray]:
        """They, and what they are made of, as `weights_between` says."""
        return in_chunks(weights_between, query, self._known(), self.mesh)

    def _known(self) -> tuple[Array, ...]:
        if "upper" not in self._cache:
            length = padded_length(max(len(self.belief), NEAR))
            pad = [(0, length - len(self.belief)), (0, 0)]
            arrays = (np.pad(self.belief, pad), np.pad(self.upper, pad), self.told, self.least)
            self._cache["upper"] = tuple(map(jnp.asarray, arrays))
        return self._cache["upper"]

    def lower_at(self, query: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Lower bounds at unnormalised beliefs, and the plans that attain them, (N, U) each."""
        if "alpha" not in self._cache:
            self._cache["alpha"] = padded_plans(self.alpha, self.control[self.plan])
        cells = self.alpha.shape[0] * self.alpha.shape[1]
        value, rank = in_chunks(best_plan, query, self._cache["alpha"], self.mesh, cells > _CELLS)
        return value, self.plan[rank % len(self.plan)]

    def improve(
        self,
        index: np.ndarray,
        upper: np.ndarray,
        alpha: np.ndarray,
        control: np.ndarray,
        after: np.ndarray,
    ) -> None:
        """Take in backups at visited beliefs: upper bounds (n, U), and one plan each.

        A plan goes on with itself after a symbol where `after` is -1.
        """
        np.minimum.at(self.upper, index, np.maximum(upper, self.lower[index]))
        self._cache.pop("upper", None)
        own = np.einsum("num,nm->nu", alpha, self.belief[index])
        new = self._better(own, control, index).any(axis=1)
        if not new.any():
            return
        alpha, control, after = alpha[new], control[new], after[new]
        numbers = len(self.control) + np.arange(len(alpha))
        after = np.where(after < 0, numbers[:, None, None, None], after)
        self.control = np.concatenate([self.control, control])
        self.after = np.concatenate([self.after, after])
        value, rank = in_chunks(best_plan, self.belief, padded_plans(alpha, control), self.mesh)
        at, every = rank % len(alpha), np.arange(len(self.belief))
        better = self._better(value, np.take_along_axis(control, at, axis=0), every)
        self.lower = np.where(better, value, self.lower)
        self.best = np.where(better, numbers[at], self.best)
        self.upper = np.maximum(self.upper, self.lower)
        self.alpha = np.concatenate([self.alpha, alpha])
        self.plan = np.concatenate([self.plan, numbers])
        self.prune()

    def size(self, belief: Float[np.ndarray, "n m"]) -> Float[np.ndarray, "n U"]:
        """What any plan comes to at most in size."""
        return belief @ np.maximum(abs(self.told), abs(self.least)).T

    def _better(
        self,
        value: Float[np.ndarray, "n U"],
        control: Int[np.ndarray, "n U"],
        index: Int[np.ndarray, " n"],
    ) -> Bool[np.ndarray, "n U"]:
        """Where plans are worth more than those known, or no less with a lower control."""
        lower = self.lower[index]
        known = np.take_along_axis(self.control, self.best[index], axis=0)
        return (value > lower + _ROUNDED * abs(lower)) | ((value >= lower) & (control < known))

    def settle(self, open_: np.ndarray, upper: np.ndarray, ceiling: np.ndarray) -> None:
        """Take in upper bounds (K, U) and ceilings (K, A, U) of the tasks that are open."""
        self.upper[:, open_], self.ceiling[..., open_] = upper, ceiling
        self._cache.pop("upper", None)

    def prune(self) -> None:
        """Set plans aside that are best at no visited belief: no bound there is lost."""
        used = np.isin(self.plan, self.best) | (self.plan == self.none)
        self.alpha, self.plan = self.alpha[used], self.plan[used]
        self._cache.clear()
