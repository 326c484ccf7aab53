"""Upper bounds by simulation, for a platform that is told what comes next and charged for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import equinox as eqx
import jax
import numpy as np

from dynmech._checks import whole
from dynmech._types import Record
from solvers.certify import simplify
from solvers.told.relaxation import relaxation

if TYPE_CHECKING:
    from dynmech.policy.priced import AbstractPriced


class Relaxation(Record):
    """An upper bound on W by simulation, money.

    `value`, `error`: mean and standard error of draws whose mean is at least W; `upper`: above W
    with `confidence`; `rounds`: looked ahead; `cut`: share of the draws that the beam made larger,
    infinite where there is no network to bound them, and then `value` and `error` are.
    """

    value: float
    error: float
    upper: float
    cut: float
    confidence: float = eqx.field(static=True)
    rounds: int = eqx.field(static=True)


def relax(
    policy: AbstractPriced,
    conversations: int,
    rounds: int,
    beam: int,
    profile: int,
    seed: int,
) -> Relaxation:
    """See `EfficientPolicy.relax`."""
    for name, number, least in (
        ("conversations", conversations, 30),
        ("rounds", rounds, 1),
        ("beam", beam, 1),
        ("seed", seed, 0),
    ):
        whole(least)(f"relax({name}=...)", number)
    play, (index, signals) = policy.player, policy.profile_at("relax", profile)
    case, ceiling = play.cased(index)
    root = play.beliefs(signals[None])[0]
    with jax.enable_x64(True):
        process, (ceiling,), _ = simplify(play.process, [ceiling])
        options = (conversations, np.random.default_rng([seed, profile]), rounds, beam)
        found = relaxation(process, case, ceiling, play.critic, root, *options, chunk=play.chunk)
    confidence = play.certificate.confidence
    upper = found.upper(1 - confidence)
    rounds = min(rounds, play.process.horizon)
    return Relaxation(found.mean, found.error, upper, found.cut, confidence, rounds)
