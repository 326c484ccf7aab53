"""The policy beside simpler ones, on the same draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from dynmech._checks import choice, several, whole
from dynmech._types import Record
from solvers.neural.rollout import Play, rollout

if TYPE_CHECKING:
    from dynmech.policy.priced import AbstractPriced

SIMPLER = tuple(play.value for play in Play if play is not Play.GREEDY)


class PolicyComparison(Record):
    """Simulated values of policies, money; `name[0]` is "this policy", the policy itself.

    `value`, `error` (K,): mean and standard error, 0 for what is exact; `difference`,
    `difference_error` (K,): of the policy's value less the other's, conversation by conversation
    on common random numbers.
    """

    name: tuple[str, ...] = eqx.field(static=True)
    value: Float[np.ndarray, " K"]
    error: Float[np.ndarray, " K"]
    difference: Float[np.ndarray, " K"]
    difference_error: Float[np.ndarray, " K"]


def compare_policies(
    policy: AbstractPriced, names: Sequence[str], conversations: int, profile: int, seed: int
) -> PolicyComparison:
    """See `EfficientPolicy.compare`."""
    whole(2)("compare(conversations=...)", conversations)
    whole(0)("compare(seed=...)", seed)
    known = ["this policy", *SIMPLER]
    for name in several(str, f"names among {', '.join(known)}")("compare(names=...)", names):
        choice(*known)("compare(names=...)", name)
    every = ("this policy", *(name for name in names if name != "this policy"))
    play, (index, signals) = policy.player, policy.profile_at("compare", profile)
    case, ceiling = play.cased(index)
    belief = play.beliefs(signals[None])[0]
    with jax.enable_x64(True):
        process, ceiling = play.quick(ceiling)

        def run(way: Play) -> np.ndarray:
            rng = np.random.default_rng([seed, profile])
            options = (conversations, rng, way)
            chooser = play.chooser if way is Play.GREEDY else None
            return rollout(
                process, case, ceiling, play.critic, belief, *options, chunk=play.chunk,
                chooser=chooser,
            ).gain  # fmt: skip

        exact = policy.evaluator.walked
        own = np.full(conversations, policy.value.ravel()[profile]) if exact else run(Play.GREEDY)
        gains = np.stack([own, *(run(Play(name)) for name in every[1:])])
    less = gains[0] - gains
    root = np.sqrt(conversations)
    return PolicyComparison(
        every,
        gains.mean(axis=1),
        gains.std(axis=1, ddof=1) / root,
        less.mean(axis=1),
        less.std(axis=1, ddof=1) / root,
    )
