"""Learn a policy for a horizon that no tree fits, certify it, and walk its tree where one does."""

import contextlib
import dataclasses
import time
from pathlib import Path

import equinox as eqx
import jax
import numpy as np

from dynmech import files
from dynmech._devices import Work, read_mesh
from dynmech._types import in_doubles
from dynmech.errors import ImpossibleProfile, TooLarge, describe
from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles
from dynmech.policy.base import EfficientPolicy
from dynmech.policy.certified import certified_play, list_economies, played_policy, walk_play
from dynmech.policy.own_bounds import list_alternatives
from dynmech.policy.playable import Playable, beliefs_after
from dynmech.policy.played import PlayEvaluator
from dynmech.problem.process import market_process
from dynmech.solve.ceilings import make_ceilings
from dynmech.solve.outcome import missed
from dynmech.solve.prepare import wanted_profiles
from dynmech.solve.running import our_errors
from dynmech.solve.training import check_long, read_critic, require_few
from solvers import AbstractLearner, Certificate, Limits, Root, Status
from solvers.certify import simplify
from solvers.neural.learner import learning_mark
from solvers.solution import close_enough

_VERB = "solve_efficient_policy"
_SEED = 6  # of the simulation by product
_TRAINED_ALONG = 256  # own alternatives that the network is trained for, at most


def solve_by_learning(
    env: RecommendationMDP,
    solver: AbstractLearner,
    initial: Profiles | None,
    limits: Limits,
    progress: bool,
    throw: bool,
) -> EfficientPolicy:
    """Learn, and bound the distance from the efficient policy; see `solve_efficient_policy`.

    Below, the policy simulated on fresh conversations (a confidence bound); above, a platform
    that plans exactly for some rounds and is then told the taste (no sampling error). Both for W
    and for every W^{-i} and Wd^{-i}. Action rules are used as they are; their memories are never
    enumerated, so that perfect recall over many products is no obstacle. Where the learner fails
    no critic is used: the best fixed sequence of recommendations, or better round by round.
    """
    began = time.monotonic()
    certificate = Certificate() if solver.certificate is None else solver.certificate
    check_long(env, solver)
    single, env = env.gamma.dtype == np.float32, in_doubles(env)
    asked, batch = wanted_profiles(env, initial)
    mass = beliefs_after(env, asked.signals).sum(axis=1)
    if initial is not None and (mass <= 0).any():
        must = "have signals of positive probability"
        got = asked.signals[int(np.argmin(mass))].tolist()
        raise ImpossibleProfile(describe("solve_efficient_policy(initial=...)", must, got))
    cells = np.flatnonzero(mass > 0)
    profiles = Profiles(asked.theta[cells], asked.signals[cells])
    require_few(len(profiles))
    parts = len(profiles) * (1 + (certificate.marginal_runs > 0))
    read_mesh(_VERB, limits.mesh, env, parts, "parts")
    played = _train(env, single, solver, certificate, profiles, limits, progress)
    gap, wide = float(played.bounds.gap.max()), _widest(played, limits)
    note = f"{played.solver}; gap of W {gap:.3g} at {certificate.confidence:.0%}"
    asked_for = max(limits.tolerance, limits.relative) > 0
    if asked_for:
        note += f", {'not within' if wide > 0 else 'within'} the tolerance"
    spent = time.monotonic() - began
    try:
        walked = f"{note}; its tree was walked"
        policy = walk_play(played.play, asked, batch, walked, certificate.walk)
        policy = dataclasses.replace(policy, seconds=spent)
    except TooLarge:
        policy = played_policy(played, asked, batch, note, spent)
    status = Status.STALLED if wide > 0 else Status.WITHIN_TOLERANCE
    if played.play.critic is None:
        status = Status.TRAINING_FAILED
    policy = dataclasses.replace(policy, status=status)
    if status.met or (status is Status.STALLED and not asked_for):
        return policy
    return missed(policy, status, gap, limits, throw)


def _widest(played: PlayEvaluator, limits: Limits) -> float:
    """By how much the bounds on W and the marginal economies miss the tolerance, money."""
    worst = -np.inf
    for bounds in (played.bounds.both, played.marginal, played.displayable):
        enough = close_enough(limits.tolerance, limits.relative, np.ones(1), bounds.upper)
        worst = max(worst, float(np.nanmax(bounds.gap - enough, initial=-np.inf)))
    return worst


def _train(
    env: RecommendationMDP,
    single: bool,
    solver: AbstractLearner,
    certificate: Certificate,
    profiles: Profiles,
    limits: Limits,
    progress: bool,
) -> PlayEvaluator:
    process = market_process(env, single)
    root = np.asarray(beliefs_after(env, profiles.signals), float)
    marginal, listed = certificate.marginal_runs > 0, None
    with contextlib.suppress(TooLarge):
        listed = list_alternatives(env, process, profiles) if marginal else None
    along = listed is not None and len(listed.pairs.root) <= _TRAINED_ALONG
    economies = list_economies(env, profiles, marginal)
    with jax.enable_x64(True):
        ceilings = [make_ceilings(env, process, cases) for cases in economies]
        more = listed.training_roots() if listed is not None and along else []
        size, count = len(economies[0]), len(economies) * len(economies[0])
        flat = [bound for bounds in ceilings for bound in bounds]
        quick, flat, _ = simplify(process, [*flat, *(one.ceiling for one in more)])
        bounds_of = [flat[k : k + size] for k in range(0, count, size)]
    roots = [
        Root((belief / belief.sum()).astype(np.float32), case, ceiling, k == 0)
        for belief, cases, bounds in zip(root, economies, bounds_of, strict=True)
        for k, (case, ceiling) in enumerate(zip(cases, bounds, strict=True))
        if k == 0 or not along
    ]
    for one, ceiling in zip(more, flat[count:], strict=True):
        roots.append(Root(one.belief, one.case, ceiling, one.first))
    name = type(solver).__name__
    with our_errors(name, limits):
        learned = solver.learn(quick, roots, limits, progress)
    network = read_critic(name, learned)
    play = Playable(env, profiles, root, network, certificate, solver.chunk, single=single)
    kept = None
    if limits.checkpoint is not None:
        arrays = tuple(np.asarray(x) for x in jax.tree.leaves(eqx.filter(network, eqx.is_array)))
        facts = learning_mark(quick, roots, solver), repr(certificate), arrays
        kept = files.Parts(Path(limits.checkpoint) / "certificates", facts, _VERB)
    work = Work(_VERB, limits.mesh, kept)
    history, note = np.asarray(learned.history, float), f"{name}: {learned.note}"
    return certified_play(play, quick, economies, bounds_of, history, note, work)
