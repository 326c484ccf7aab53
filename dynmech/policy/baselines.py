"""The policy beside simpler ones, on the same draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from dynmech.errors import InvalidArgument, describe, require_whole
from dynmech.solve.certificates import make_case, simplify
from solvers import Play, rollout

if TYPE_CHECKING:
    from dynmech.policy.long_horizon import LongPolicy

SIMPLER = tuple(play.value for play in Play if play is not Play.GREEDY)


class PolicyComparison(eqx.Module):
    """Simulated values of policies, money; `name[0]` is "neural", the policy itself.

    `value`, `error` (K,): mean and standard error; `difference`, `difference_error` (K,): of the
    policy's value less the other's, conversation by conversation on common random numbers.
    """

    name: tuple[str, ...] = eqx.field(static=True)
    value: Float[np.ndarray, " K"]
    error: Float[np.ndarray, " K"]
    difference: Float[np.ndarray, " K"]
    difference_error: Float[np.ndarray, " K"]


def compare_policies(
    policy: LongPolicy, names: Sequence[str], conversations: int, profile: int, seed: int
) -> PolicyComparison:
    """See `LongPolicy.compare`."""
    require_whole("compare(conversations=...)", conversations, 2)
    require_whole("compare(seed=...)", seed, 0)
    known = [play.value for play in Play]
    for name in names:
        if name not in known:
            raise InvalidArgument(describe("compare(names=...)", f"be among {known}", name))
    every = ("neural", *(name for name in names if name != "neural"))
    with jax.enable_x64(True):
        process, (ceiling,), _ = simplify(policy.process, [policy.ceilings[profile]])
        gains = np.stack([
            rollout(
                process, make_case(policy.theta(profile)), ceiling, policy.network,
                policy.root[profile], conversations, np.random.default_rng([seed, profile]),
                Play(name), chunk=policy.chunk,
            ).gain
            for name in every
        ])  # fmt: skip
    less = gains[0] - gains
    root = np.sqrt(conversations)
    return PolicyComparison(
        every,
        gains.mean(axis=1),
        gains.std(axis=1, ddof=1) / root,
        less.mean(axis=1),
        less.std(axis=1, ddof=1) / root,
    )
