"""Audits and best responses of a mechanism: where it is the truth, and where another market is."""

import dataclasses
import os
from collections.abc import Sequence

import jax
import numpy as np

from dynmech import files
from dynmech._checks import (
    choice,
    flag,
    indices,
    instance,
    key_words,
    number,
    optional,
    whole,
)
from dynmech._devices import Work, read_mesh
from dynmech._types import Numbers
from dynmech.audit import Audit, AuditsUnder, BestResponse
from dynmech.audit.intervals import wants_interval
from dynmech.audit.long import run_long_audit
from dynmech.audit.report import run_audit
from dynmech.audit.strategies import best_responses
from dynmech.errors import OutsideSupport, describe
from dynmech.market.beside import read_markets
from dynmech.market.environment import RecommendationMDP
from dynmech.mechanism.under import Scene, priced_scene, scene_of, stand_in
from dynmech.payments.groves import (
    OwnTables,
)
from dynmech.payments.settlement import AbstractSettlement, Estimator
from dynmech.play.terms import AbstractTerms
from dynmech.policy.under import play_under
from solvers import Certificate

_LEAST_RUNS = 30
_LEAST, _SURE = number(least=0), number(above=0, below=1)


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
    mesh: jax.sharding.Mesh | None,
    checkpoint: str | os.PathLike[str] | None,
) -> Audit | AuditsUnder:
    """See `DynamicTeamMechanism.audit`."""
    choice("on-path", "all")("audit(histories=...)", histories)
    interval = optional(flag)("audit(interval=...)", interval)
    conversations = whole(1)("audit(conversations=...)", conversations)
    nodes = whole(0)("audit(nodes=...)", nodes)
    optional(_LEAST)("audit(tolerance=...)", tolerance)
    _SURE("audit(confidence=...)", confidence)
    settlement = _settlement("audit", settlement)
    if settlement.own:
        priced_scene(terms, "audit")
    read_mesh("audit", mesh, terms.policy.env, None, "parts")
    asked = settlement, histories, interval, tolerance
    markets = [] if under is None else list(read_markets("audit(under=...)", under))
    kept = None
    if checkpoint is not None:
        seed = None if key is None else key_words("audit(key=...)", key)
        own = terms.policy.fingerprint, terms.groves_total, terms.estimator, terms.reports
        drawn = seed, conversations, nodes, confidence
        kept = files.Parts(checkpoint, (*own, *asked, markets, *drawn), "audit")
    work = Work("audit", mesh, kept)
    sampled = key, conversations, nodes, confidence
    if isinstance(under, RecommendationMDP):
        return _audit_under(terms, markets[0], *asked, *sampled, work)
    if under is not None:
        spread = len(markets) >= work.devices
        inner = Work("audit", None if spread else mesh)

        def one(k: int) -> Audit:
            return _audit_under(terms, markets[k], *asked, *sampled, inner)

        outer = dataclasses.replace(work, mesh=mesh if spread else None)
        return AuditsUnder(tuple(outer.each(one, range(len(markets)), lambda k: ("market", k))))
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
            work,
        )
    return _audit_scene(terms, scene_of(terms), *asked, work)


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
    terms: AbstractTerms,
    scene: Scene,
    settlement: AbstractSettlement,
    histories: str,
    interval: bool | None,
    tolerance: float | None,
    work: Work,
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
        work,
    )


def _audit_under(
    terms: AbstractTerms,
    truth: RecommendationMDP,
    settlement: AbstractSettlement,
    histories: str,
    interval: bool | None,
    tolerance: float | None,
    key: jax.Array | None,
    conversations: int,
    nodes: int,
    confidence: float,
    work: Work,
) -> Audit:
    """Audit where another market is the truth: on the tree of both, or by simulation."""
    runs = max(conversations, _LEAST_RUNS)
    certificate = Certificate(runs=runs, marginal_runs=0, confidence=confidence)
    scene = stand_in("audit(under=...)", terms, truth, settlement, certificate)
    policy = scene.policy
    if policy.evaluator.walked:
        return _audit_scene(terms, scene, settlement, histories, interval, tolerance, work)
    return run_long_audit(
        policy,
        scene.own,
        policy.flat(scene.groves_total),
        settlement,
        scene.estimator,
        type(terms.groves).__name__,
        terms.reports,
        histories,
        interval,
        conversations,
        nodes,
        confidence,
        tolerance,
        key,
        work,
        play_under("audit(under=...)", terms.policy, truth),
    )


def _settlement(verb: str, settlement: AbstractSettlement | None) -> AbstractSettlement:
    if settlement is None:
        return Estimator()
    kind = instance(AbstractSettlement, "one of dynmech.settlement, as settlement.Estimator()")
    return kind(f"{verb}(settlement=...)", settlement)
