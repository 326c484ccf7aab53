"""Certify who is played: bounds on the policy, on W and on every economy, and a policy of them."""

import dataclasses

import numpy as np

from dynmech._devices import Work
from dynmech.bounded import Bounded
from dynmech.errors import TooLarge, describe
from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles
from dynmech.policy.base import EfficientPolicy, Figures, with_actions
from dynmech.policy.nodes import recommendations
from dynmech.policy.own_values import asked_at_ends
from dynmech.policy.playable import Playable, beliefs_after, money_of
from dynmech.policy.played import PlayEvaluator
from dynmech.policy.player import Player, simulate_outcomes
from dynmech.policy.recommender import Numbered, Repeated
from dynmech.policy.solved import solve_remembered
from dynmech.policy.walked import keep_asked
from dynmech.problem.tasks import make_pairs
from dynmech.solve.certificates import make_case
from solvers import AbstractCeiling, AbstractProcess, Case, Exact, Status, stack
from solvers.certify import Worth, bound_above, certify
from solvers.tree.estimate import Estimate

_MOST_CALLS = 2_000_000
_SEED = 6  # of the simulation by product


def list_economies(env: RecommendationMDP, profiles: Profiles, marginal: bool) -> list[list[Case]]:
    """W of each profile, then, with `marginal`, every W^{-i} and every Wd^{-i}."""
    found = []
    for index in profiles.theta:
        theta, n = money_of(env, index), env.products
        others = [make_case(env, theta, i, shown) for shown in (False, True) for i in range(n)]
        found.append([make_case(env, theta), *(others if marginal else [])])
    return found


def certified_play(
    play: Playable,
    quick: AbstractProcess,
    economies: list[list[Case]],
    bounds_of: list[list[AbstractCeiling]],
    history: np.ndarray,
    note: str,
    work: Work,
) -> PlayEvaluator:
    """Bound every economy of every profile, and simulate what is bought and earned.

    **Arguments:** `quick`: the market's rules, as tables where that may be; `bounds_of`: of each of
    `economies`; `history`: of the training, if any; `work`: where it is done, and kept.
    """
    env, certificate, count = play.env, play.certificate, len(play.profiles)
    n, marginal = env.products, certificate.marginal_runs > 0
    first, rest = slice(0, 1), slice(1, None)
    runs_of = (first, certificate.runs), (rest, certificate.marginal_runs)
    groups = runs_of[: 1 + marginal]

    def bound_economies(b: int) -> tuple[np.ndarray, int]:
        cases = [economies[b][which] for which, _ in groups]
        ceilings = [bounds_of[b][which] for which, _ in groups]
        start = None if play.chooser is None else play.process.outset(play.theta(b))
        return bound_above(quick, cases, ceilings, play.root[b], certificate, start)

    above = work.each(bound_economies, range(count), lambda b: ("above", b))

    def bound(part: tuple[int, int]) -> Worth:
        b, others = part
        which, runs = runs_of[others]
        given = economies[b][which], bounds_of[b][which], play.critic, play.root[b]
        upper = above[b][0][which], above[b][1]
        if others or play.chooser is None:
            return certify(quick, *given, runs, certificate, play.chunk, above=upper)
        how = runs, certificate, play.chunk, play.process.outset(play.theta(b)), 0
        return certify(quick, *given, *how, play.chooser, play.told(b), upper)

    every = [(b, k) for k in range(1 + marginal) for b in range(count)]
    certified = work.each(bound, every, lambda part: ("bounds", *part))
    first, others = certified[:count], certified[count:]
    blank = np.full((n, count), np.nan)
    nothing = Bounded(blank, unseen=blank, confidence=certificate.confidence)
    runs = certificate.marginal_runs or certificate.runs
    seed = [certificate.seed, _SEED]
    player = Player(env, play.process, play.critic, play.chunk, runs, seed, play.chooser)
    return PlayEvaluator(
        play=play,
        bounds=Worth(
            stack([one.attained[0] for one in first]),
            stack([one.best[0] for one in first]),
            first[0].rounds,
        ),
        marginal=stack([one.both[:n] for one in others], 1) if marginal else nothing,
        displayable=stack([one.both[n:] for one in others], 1) if marginal else nothing,
        solved_own=None,
        outcomes=simulate_outcomes(player, play.profiles, certificate.confidence, work.mesh),
        history=history,
        solver=note,
    )


def played_policy(
    played: PlayEvaluator, asked: Profiles, batch: bool, note: str, seconds: float
) -> EfficientPolicy:
    """The policy that an evaluator by simulation stands for.

    **Arguments:** `asked`: the profiles asked for, of which the evaluator has the possible ones.
    """
    env = played.env
    shape = (len(asked),) if batch else env.profile_shape
    cells = np.flatnonzero(beliefs_after(env, asked.signals).sum(axis=1) > 0)

    def laid(numbers: np.ndarray) -> np.ndarray:
        *lead, _ = numbers.shape
        found = np.full((*lead, len(asked)), np.nan)
        found[..., cells] = numbers
        return found.reshape(*lead, *shape)

    attained, best = played.bounds.attained, played.bounds.best
    sure, seen = attained.confidence, played.outcomes

    def kept(one: Bounded, least: np.ndarray | float = -np.inf) -> Bounded:
        parts = one.value, one.lower, np.maximum(one.upper, least), one.error
        return Bounded(*map(laid, parts), confidence=sure)

    marginal, displayable = played.marginal, played.displayable
    figures = Figures(
        # The policy is worth no more than the best one.
        value=kept(attained, attained.value),
        lower=laid(best.lower),
        upper=laid(np.maximum(best.upper, best.lower)),
        marginal=kept(marginal, marginal.lower),
        displayable=kept(displayable, displayable.lower),
        earned=kept(seen.earned),
        utility=kept(seen.utility),
        purchase=kept(seen.purchase),
        costs=kept(seen.costs),
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


def walk_play(
    play: Playable, profiles: Profiles, batch: bool, label: str, limit: int | None = None
) -> EfficientPolicy:
    """What is recommended over the whole tree, W beside it.

    **Arguments:** `limit`: cells, profiles with own alternatives times beliefs of a round; None: as
    many as the memory of `Exact()` holds, of which each is asked for.

    **Raises:** `TooLarge`; `InvalidArgument` for two answers to one question.
    """
    env = play.env
    must = f"have at most {_MOST_CALLS if limit is None else limit} cells in its tree"
    if limit is None:
        best, memories = solve_remembered(env, profiles, batch, single=play.single)
        cells = sum(taken.size for taken in best.actions)
        if cells > _MOST_CALLS:
            raise TooLarge(describe("GivenPolicy(recommend=...)", must, cells))
    else:
        cells = len(make_pairs(env, profiles).root) * len(env.controls) * env.heard.count
        if cells > limit:
            raise TooLarge(describe("Certificate(walk=...)", must, cells))
        settings = Exact(memory=64.0 * limit)
        best, memories = solve_remembered(env, profiles, batch, settings, limit, play.single)
    repeated = Repeated(play.laws, 0 if play.chooser is None else 64)
    numbered = Numbered(repeated)
    actions = recommendations(best.plan, best.pairs, memories, numbered)
    repeated.again()
    found = with_actions(best, actions, label, numbered.table)
    if play.chooser is None:
        evaluator = dataclasses.replace(found.evaluator, behind=play)
    else:  # a function is not saved: what it says at the ends of an interval is
        ends = asked_at_ends(env, found.pairs, found.plan, play.laws_at)
        evaluator = dataclasses.replace(found.evaluator, ends=ends)
        keep_asked(evaluator, play)
    return dataclasses.replace(found, evaluator=evaluator)
