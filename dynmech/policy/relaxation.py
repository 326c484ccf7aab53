"""Upper bounds by simulation, for a platform that is told what comes next and charged for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import equinox as eqx
import jax
import numpy as np

from dynmech.errors import require_whole
from dynmech.solve.certificates import make_case, simplify
from solvers import relaxation

if TYPE_CHECKING:
    from dynmech.policy.long_horizon import LongPolicy


class Relaxation(eqx.Module):
    """An upper bound on W by simulation, money.

    `value`, `error`: mean and standard error of draws whose mean is at least W; `upper`: above W
    with `confidence`; `rounds`: looked ahead; `cut`: share of the draws that the beam made larger.
    """

    value: float
    error: float
    upper: float
    cut: float
    confidence: float = eqx.field(static=True)
    rounds: int = eqx.field(static=True)


def relax(
    policy: LongPolicy, conversations: int, rounds: int, beam: int, profile: int, seed: int
) -> Relaxation:
    """See `LongPolicy.relax`."""
    from scipy.special import stdtrit

    for name, number, least in (
        ("conversations", conversations, 30),
        ("rounds", rounds, 1),
        ("beam", beam, 1),
        ("seed", seed, 0),
    ):
        require_whole(f"relax({name}=...)", number, least)
    with jax.enable_x64(True):
        process, (ceiling,), _ = simplify(policy.process, [policy.ceilings[profile]])
        case, rng = make_case(policy.theta(profile)), np.random.default_rng([seed, profile])
        options = (conversations, rng, rounds, beam)
        root = policy.root[profile]
        found = relaxation(
            process, case, ceiling, policy.network, root, *options, chunk=policy.chunk
        )
    confidence = policy.certificate.confidence
    upper = found.mean + float(stdtrit(conversations - 1, confidence)) * found.error
    rounds = min(rounds, policy.process.horizon)
    return Relaxation(found.mean, found.error, upper, found.cut, confidence, rounds)
