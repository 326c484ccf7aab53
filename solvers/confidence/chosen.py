"""What a chooser is worth, by runs: bounds from both sides, whatever it does.

A chooser may do worse than any fixed plan and need not repeat itself, so that nothing is known of
it but that an ending yields at most R. Runs are those of `solvers.tree.misled`: every round counts
at its expectation under the belief, and all that a run adds up to is within REACH times R, and
what tolls can come to.
"""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from solvers.chooser import AbstractChooser
from solvers.confidence.betting import betting_lower, betting_upper
from solvers.confidence.sample import AbstractSample, repeated
from solvers.problem import Numbers
from solvers.process import AbstractCeiling, AbstractProcess, Case
from solvers.programs import as_program
from solvers.tree.misled import REACH, Told, follow

_PART = 512


class ChosenRuns(AbstractSample):
    """Runs: `gain` (N,), each with the chooser's value as its mean, within [`floor`, `most`].

    `fixed`: whether nothing was drawn, so that the mean is the value.
    """

    gain: Float[np.ndarray, " N"]
    floor: float
    most: float
    fixed: bool

    def lower(self, alpha: Float[np.ndarray, "*l"] | float) -> Float[np.ndarray, "*l"]:
        """Bound the value from below, with confidence 1 - `alpha`, each by itself."""
        if self.fixed:
            return np.full(np.shape(alpha), self.mean)
        return betting_lower(repeated(self.gain, alpha), self.floor, alpha)

    def upper(self, alpha: Float[np.ndarray, "*l"] | float) -> Float[np.ndarray, "*l"]:
        """Bound the value from above, with confidence 1 - `alpha`, each by itself."""
        if self.fixed:
            return np.full(np.shape(alpha), self.mean)
        return betting_upper(repeated(self.gain, alpha), self.most, alpha)

    def width(self, alpha: Float[np.ndarray, "*l"] | float) -> Float[np.ndarray, "*l"]:
        """How far bounds at that level are from the mean, on either side."""
        apart = self.mean - self.lower(alpha), self.upper(alpha) - self.mean
        return np.asarray(np.maximum(*apart))


def chosen_runs(
    process: AbstractProcess,
    case: Case,
    ceiling: AbstractCeiling,
    chooser: AbstractChooser,
    belief: Float[np.ndarray, " m"],
    runs: int,
    rng: np.random.Generator,
    memory: np.ndarray | None = None,
    period: int = 0,
    chunk: int = 16,
    told: Told | None = None,
) -> ChosenRuns:
    """Draw runs of a chooser from one belief, per unit of its mass; call it with float64 enabled.

    **Arguments:** `told`: what it is told, where that is not the truth.
    """
    worth, n = np.asarray(case.worth(process.reward), float), len(process.reward) - process.tolls
    met = worth[:, np.asarray(belief) > 0]
    most = float(np.abs(met[:n]).max(initial=0.0))
    spent = float(np.abs(met[n:]).max(initial=0.0)) * (process.horizon - period)

    def observe(
        t: int, memories: np.ndarray, control: np.ndarray, true: np.ndarray, held: np.ndarray
    ):
        passing = np.zeros((len(control), 1))
        for low in range(0, len(control), _PART):
            part = slice(low, low + _PART)
            size = len(control[part])
            pad = np.minimum(np.arange(_PART), size - 1)
            given = memories[part][pad], control[part][pad], true[part][pad]
            passing[part, 0] = np.asarray(_tolls(process, case, *given))[:size]
        return np.zeros((len(control), 0)), passing

    noise = rng.random((process.horizon - period, runs, 4))
    found = follow(
        process, case, ceiling, None, belief, noise, told, observe if process.tolls else None, 0,
        chunk, np.array([most]), chooser, memory, period,
    )  # fmt: skip
    reach = REACH * most + spent
    return ChosenRuns(found.gain, -reach, reach, found.going == 0)


@as_program
def _tolls(
    process: AbstractProcess, case: Case, memories: Numbers, control: Numbers, beliefs: Numbers
):
    """What tolls yield in a round, expected, (C,)."""
    worth = case.worth(process.reward)
    n = len(worth) - process.tolls

    def one(memory: Numbers, control: Numbers, belief: Numbers):
        ends = process.ends(process.step(memory, control), control)
        return ((ends[n:-1] * worth[n:]) @ belief).sum()

    return eqx.filter_vmap(one)(jnp.asarray(memories), jnp.asarray(control), jnp.asarray(beliefs))
