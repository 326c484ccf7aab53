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
from dynmech.bounded import Bounded
from dynmech.errors import ImpossibleProfile, TooLarge, describe
from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles
from dynmech.policy.base import EfficientPolicy, Figures, with_actions
from dynmech.policy.nodes import recommendations
from dynmech.policy.own_bounds import list_alternatives
from dynmech.policy.playable import Playable, beliefs_after, money_of
from dynmech.policy.played import PlayEvaluator
from dynmech.policy.player import Player, simulate_outcomes
from dynmech.policy.solved import solve_remembered
from dynmech.problem.process import market_process
from dynmech.problem.tasks import make_pairs
from dynmech.solve.ceilings import make_ceilings
from dynmech.solve.certificates import make_case
from dynmech.solve.outcome import missed
from dynmech.solve.prepare import wanted_profiles
from dynmech.solve.running import our_errors
from dynmech.solve.training import check_long, read_critic, require_few
from solvers import (
    REACH,
    AbstractLearner,
    Bounds,
    Certificate,
    Estimate,
    Exact,
    Limits,
    Root,
    Status,
    certify,
    close_enough,
    learning_mark,
    margin,
    simplify,
)

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
    env = in_doubles(env)
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
    played = _train(env, solver, certificate, profiles, limits, progress)
    gap, wide = float(played.bounds.gap.max()), _widest(played, limits)
    note = f"{played.solver}; gap of W {gap:.3g} at {certificate.confidence:.0%}"
    asked_for = max(limits.tolerance, limits.relative) > 0
    if asked_for:
        note += f", {'not within' if wide > 0 else 'within'} the tolerance"
    policy = played_policy(played, asked, batch, note, time.monotonic() - began)
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
    for bounds in (played.bounds, played.marginal, played.displayable):
        enough = close_enough(limits.tolerance, limits.relative, np.ones(1), bounds.upper)
        worst = max(worst, float(np.nanmax(bounds.gap - enough, initial=-np.inf)))
    return worst


def played_policy(
    played: PlayEvaluator, asked: Profiles, batch: bool, note: str, seconds: float
) -> EfficientPolicy:
    """The policy that an evaluator by simulation stands for; its tree walked where that is small.

    **Arguments:** `asked`: the profiles asked for, of which the evaluator has the possible ones.
    """
    found, env = _walked(played, asked, batch), played.env
    if found is not None:
        note = f"{note}; its tree was walked"
        return dataclasses.replace(found, solver=note, seconds=seconds)
    shape = (len(asked),) if batch else env.profile_shape
    cells = np.flatnonzero(beliefs_after(env, asked.signals).sum(axis=1) > 0)

    def laid(numbers: np.ndarray) -> np.ndarray:
        *lead, _ = numbers.shape
        found = np.full((*lead, len(asked)), np.nan)
        found[..., cells] = numbers
        return found.reshape(*lead, *shape)

    sure, bounds = played.bounds.confidence, played.bounds
    above = np.maximum(bounds.upper, bounds.value)  # the policy is worth no more than the best
    value = Bounded(*map(laid, (bounds.value, bounds.lower, above, bounds.error)), confidence=sure)
    upper, seen = laid(np.maximum(bounds.upper, bounds.lower)), played.outcomes

    def simulated(
        mean: np.ndarray, error: np.ndarray, most: np.ndarray, reach: float = REACH
    ) -> Bounded:
        # A conversation adds up to REACH times what one purchase can be at most.
        unseen = 2 * reach * most / (seen.runs - 1)
        step = margin(error, unseen, sure, seen.runs, 2)
        parts = (mean, np.maximum(mean - step, -most), np.minimum(mean + step, most), error)
        return Bounded(*map(laid, parts), confidence=sure)

    def economy(one: Bounds) -> Bounded:
        parts = (one.value, one.lower, np.maximum(one.upper, one.lower), one.error)
        return Bounded(*map(laid, parts), confidence=one.confidence)

    support, n = np.asarray(env.values.support, float), env.products
    theta = np.abs(support[np.arange(n)[:, None], played.play.profiles.theta.T])
    utility = np.abs(np.asarray(env.gains, float)).max(axis=1, keepdims=True) + 0 * theta
    figures = Figures(
        value=value,
        lower=laid(bounds.lower),
        upper=upper,
        marginal=economy(played.marginal),
        displayable=economy(played.displayable),
        earned=simulated(seen.earned, seen.earned_error, theta),
        utility=simulated(seen.utility, seen.utility_error, utility),
        purchase=simulated(seen.purchase, seen.purchase_error, np.ones_like(theta)),
        costs=simulated(seen.costs, seen.costs_error, np.full(len(seen.costs), seen.spent), 0.5),
    )
    return EfficientPolicy(
        evaluator=played,
        figures=figures,
        profiles=asked,
        batch=batch,
        exact=False,
        confidence=sure,
        solver=note,
        work=Estimate(0, 0.0, seconds),
        seconds=seconds,
        status=Status.STALLED,
    )


def _walked(played: PlayEvaluator, asked: Profiles, batch: bool) -> EfficientPolicy | None:
    """What the network recommends over the whole tree, W beside it; None where it is too large."""
    env, play = played.env, played.play
    count, limit = len(make_pairs(env, asked).root), play.certificate.walk
    width = len(env.controls) * env.heard.count
    if count * width > limit:
        return None
    try:
        best, memories = solve_remembered(env, asked, batch, Exact(memory=64.0 * limit), limit)
    except TooLarge:
        return None
    actions = recommendations(best.plan, best.pairs, memories, play.choose)
    found = with_actions(best, actions)
    evaluator = dataclasses.replace(found.evaluator, behind=played)
    return dataclasses.replace(found, evaluator=evaluator)


def _train(
    env: RecommendationMDP,
    solver: AbstractLearner,
    certificate: Certificate,
    profiles: Profiles,
    limits: Limits,
    progress: bool,
) -> PlayEvaluator:
    process, n = market_process(env), env.products
    root = np.asarray(beliefs_after(env, profiles.signals), float)
    marginal, listed = certificate.marginal_runs > 0, None
    with contextlib.suppress(TooLarge):
        listed = list_alternatives(env, process, profiles) if marginal else None
    along = listed is not None and len(listed.pairs.root) <= _TRAINED_ALONG
    economies = []
    for index in profiles.theta:
        theta = money_of(env, index)
        others = [make_case(env, theta, i, shown) for shown in (False, True) for i in range(n)]
        economies.append([make_case(env, theta), *(others if marginal else [])])
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
    runs_of = (slice(0, 1), certificate.runs), (slice(1, None), certificate.marginal_runs)

    def bound(part: tuple[int, int]) -> Bounds:
        b, others = part
        which, runs = runs_of[others]
        given = economies[b][which], bounds_of[b][which], network, root[b]
        return certify(quick, *given, runs, certificate, solver.chunk)

    kept = None
    if limits.checkpoint is not None:
        arrays = tuple(np.asarray(x) for x in jax.tree.leaves(eqx.filter(network, eqx.is_array)))
        facts = learning_mark(quick, roots, solver), repr(certificate), arrays
        kept = files.Parts(Path(limits.checkpoint) / "certificates", facts, _VERB)
    every = [(b, k) for k in range(1 + marginal) for b in range(len(profiles))]
    certified = Work(_VERB, limits.mesh, kept).each(bound, every, lambda part: ("bounds", *part))
    first, others = certified[: len(profiles)], certified[len(profiles) :]
    blank = np.full((n, len(profiles)), np.nan)
    nothing = Bounds(blank, blank, blank, blank, blank, certificate.confidence, 0)
    runs = certificate.marginal_runs or certificate.runs
    player = Player(env, process, network, solver.chunk, runs, [certificate.seed, _SEED])
    return PlayEvaluator(
        play=Playable(
            env=env,
            profiles=profiles,
            root=root,
            critic=network,
            certificate=certificate,
            chunk=solver.chunk,
        ),
        bounds=_stack(first, [0], squeeze=True),
        marginal=_stack(others, list(range(n))) if marginal else nothing,
        displayable=_stack(others, list(range(n, 2 * n))) if marginal else nothing,
        solved_own=None,
        outcomes=simulate_outcomes(player, profiles, limits.mesh),
        history=np.asarray(learned.history, float),
        solver=f"{name}: {learned.note}",
    )


def _stack(parts: list[Bounds], rows: list[int], squeeze: bool = False) -> Bounds:
    """Join the profiles' bounds: (rows, B), or (B,)."""
    arrays = [
        np.stack([getattr(part, name)[rows] for part in parts], axis=1)
        for name in ("value", "error", "unseen", "lower", "upper")
    ]
    arrays = [x[0] if squeeze else x for x in arrays]
    return Bounds(*arrays, confidence=parts[0].confidence, rounds=parts[0].rounds)
