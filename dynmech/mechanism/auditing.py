"""Audits and best responses of a mechanism: where it is the truth, and where another market is."""

from collections.abc import Sequence

import jax
import numpy as np

from dynmech._checks import (
    choice,
    flag,
    indices,
    instance,
    number,
    optional,
    whole,
)
from dynmech._types import Numbers
from dynmech.audit import (
    Audit,
    AuditsUnder,
    BestResponse,
    best_responses,
    run_audit,
    run_long_audit,
    wants_interval,
)
from dynmech.errors import (
    OutsideSupport,
    describe,
)
from dynmech.market.beside import read_markets
from dynmech.market.environment import RecommendationMDP
from dynmech.mechanism.under import Scene, priced_scene, scene_of, stand_in
from dynmech.payments.groves import (
    OwnTables,
)
from dynmech.payments.settlement import AbstractSettlement, Estimator
from dynmech.play.terms import AbstractTerms


def audit_mechanism(
    terms: AbstractTerms,
    settlement: AbstractSettlement | None,
    histories: str,
    under: RecommendationMDP | Sequence[RecommendationMDP] | None,
    interval: bool | None,
    key: jax.Array | None,
    conversations: int,
    nodes: int,
    confidence: float,
    tolerance: float | None,
) -> Audit | AuditsUnder:
    """See `DynamicTeamMechanism.audit`."""
    choice("on-path", "all")("audit(histories=...)", histories)
    interval = optional(flag)("audit(interval=...)", interval)
    conversations = whole(1)("audit(conversations=...)", conversations)
    nodes = whole(0)("audit(nodes=...)", nodes)
    optional(number(least=0))("audit(tolerance=...)", tolerance)
    number(above=0, below=1)("audit(confidence=...)", confidence)
    settlement = _settlement("audit", settlement)
    if settlement.own:
        priced_scene(terms, "audit")
    if under is not None:
        scenes = (
            stand_in("audit(under=...)", terms, truth, settlement)
            for truth in read_markets("audit(under=...)", under)
        )
        audits = [
            _audit_scene(terms, x, settlement, histories, interval, tolerance) for x in scenes
        ]
        return audits[0] if isinstance(under, RecommendationMDP) else AuditsUnder(tuple(audits))
    if not terms.policy.evaluator.walked:
        return run_long_audit(
            terms.policy,
            _own_at(terms, confidence),
            terms.policy.flat(terms.groves_total),
            settlement,
            terms.estimator,
            type(terms.groves).__name__,
            terms.reports,
            histories,
            interval,
            conversations,
            nodes,
            confidence,
            tolerance,
            key,
        )
    return _audit_scene(terms, scene_of(terms), settlement, histories, interval, tolerance)


def respond_best(
    terms: AbstractTerms,
    settlement: AbstractSettlement | None,
    profiles: Numbers | None,
    interval: bool | None,
    under: RecommendationMDP | None,
) -> BestResponse:
    """See `DynamicTeamMechanism.best_response`."""
    settlement = _settlement("best_response", settlement)
    scene = priced_scene(terms, "best_response") if settlement.own else scene_of(terms)
    if under is not None:
        scene = stand_in("best_response(under=...)", terms, under, settlement)
    policy = scene.policy
    optional(flag)("best_response(interval=...)", interval)
    every = np.arange(len(policy.profiles)) if profiles is None else profiles
    asked = indices(None)("best_response(profiles=...)", every)
    if not asked.size or (asked < 0).any() or (asked >= len(policy.profiles)).any():
        must = f"be indices in 0..{len(policy.profiles) - 1}"
        raise OutsideSupport(describe("best_response(profiles=...)", must, profiles))
    interval = wants_interval(policy, "best_response", interval)
    means = scene.settlement_means()
    return best_responses(policy, settlement, means, terms.reports, asked, interval)


def _own_at(terms: AbstractTerms, confidence: float) -> OwnTables:
    """Tables along own alternatives whose bounds hold with another confidence."""
    if confidence == terms.policy.confidence or not terms.groves.reads_own:
        return terms.own
    return terms.policy.own_tables(terms.estimator, terms.groves.side, True, confidence)


def _audit_scene(
    terms: AbstractTerms, scene: Scene, settlement, histories, interval, tolerance
) -> Audit:
    """Audit exactly, in this market or in another."""
    return run_audit(
        scene.policy,
        scene.own,
        scene.groves_total,
        settlement,
        scene.settlement_means(),
        type(terms.groves).__name__,
        terms.reports,
        histories,
        wants_interval(scene.policy, "audit", interval),
        tolerance,
    )


def _settlement(verb: str, settlement: AbstractSettlement | None) -> AbstractSettlement:
    if settlement is None:
        return Estimator()
    kind = instance(AbstractSettlement, "one of dynmech.settlement, as settlement.Estimator()")
    return kind(f"{verb}(settlement=...)", settlement)
