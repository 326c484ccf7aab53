"""Conversations by the hundred million: drawn batch by batch, of which only moments are kept."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import jax

from dynmech import files
from dynmech._checks import flag, whole
from dynmech._devices import Work, read_mesh
from dynmech.play.simulate import BATCH, Drawing, Strategy, batches
from dynmech.play.summary import (
    Moments,
    SimulationSummary,
    moments_of,
    record_scales,
    record_table,
)
from solvers.devices import shares
from solvers.progress import Bar

if TYPE_CHECKING:
    from dynmech.market.environment import RecommendationMDP
    from dynmech.play.terms import AbstractTerms

_VERB = "simulate_summary"
_WAVE = 8  # batches of a device between two states that are kept


def simulate_summary(
    terms: AbstractTerms,
    key: jax.Array,
    conversations: int,
    strategies: Mapping[int | str, Strategy] | None,
    profile: int | None,
    under: RecommendationMDP | None,
    mesh: jax.sharding.Mesh | None,
    checkpoint: str | os.PathLike[str] | None,
    progress: bool,
) -> SimulationSummary:
    """See `DynamicTeamMechanism.simulate_summary`."""
    count = whole(1)(f"{_VERB}(conversations=...)", conversations)
    flag(f"{_VERB}(progress=...)", progress)
    listed, env = batches(count), terms.policy.env
    read_mesh(_VERB, mesh, env, len(listed), f"batches of {BATCH} conversations")
    drawing = Drawing(_VERB, terms, key, strategies, profile, under)
    scales = record_scales(env.products, env.money_scale)

    def work(batch: tuple[int, int]) -> Moments:
        return moments_of(record_table(drawing.records(batch)), scales)

    kept = None if checkpoint is None else _kept(checkpoint, drawing, terms, under)
    done, moments = (0, None) if kept is None else kept.last("moments", count // BATCH)
    with Bar("simulating", "conversation", progress, count) as bar:
        bar(done * BATCH)
        while done < len(listed):
            wave = listed[done : done + _WAVE * shares(mesh)]
            for part in Work(_VERB, mesh).each(work, wave):
                moments = part if moments is None else moments.joined(part)
            done += len(wave)
            if kept is not None and done * BATCH <= count:
                kept.save(moments, "moments", done)
                kept.forget("moments")
            bar(sum(size for _, size in wave))
    assert moments is not None
    given = env.names, count, env.money_scale, moments, drawing.settled_at_mean
    return SimulationSummary(*given)


def _kept(
    folder: str | os.PathLike[str],
    drawing: Drawing,
    terms: AbstractTerms,
    under: RecommendationMDP | None,
) -> files.Parts:
    """Where states after whole batches are kept, of this simulation alone."""
    lies = [[i, files.mark_of(one)] for i, one in sorted(drawing.lies.items())]
    policy = terms.policy.fingerprint
    facts = policy, under, terms.estimator, drawing.charged.table, drawing.words, drawing.profile
    return files.Parts(folder, (*facts, lies, BATCH), _VERB)
