"""Groves totals at first reports that were not solved for: bids inside a declared interval, say.

A total is a function of the others' reports and the platform's context, wherever these lie: the
market is solved once more, or somebody's own recommender asked or played, with these reports
beside the support, and the term reduces the same own types as everywhere, those of the support
and of the interval.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, cast

import numpy as np
from jaxtyping import Float

from dynmech._beside import Beside
from dynmech.errors import OutsideSupport, TooLarge, describe
from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles
from dynmech.mechanism.under import over_markets
from dynmech.payments.groves import check_total
from dynmech.play.terms import AbstractTerms
from dynmech.policy.base import EfficientPolicy
from dynmech.policy.certified import walk_play
from dynmech.policy.efficient import solve_efficient_policy
from dynmech.policy.own_values import with_values
from dynmech.policy.playable import beliefs_after
from dynmech.policy.played import PlayEvaluator

_SHARE = 1e-3  # of the upper bound, where the market is not solved exactly
_KEPT = 4096
_TOTALS = Beside()


def totals_at(
    terms: AbstractTerms, opening: tuple[tuple[float, ...], tuple[int, ...]]
) -> Float[np.ndarray, " n"]:
    """Totals (n,), money, at first reports that are no profile asked for: see `Conversation`.

    **Raises:** `OutsideSupport` under policies whose totals there are not known.
    """
    kept = _TOTALS(terms, dict)
    if opening not in kept:
        if len(kept) >= _KEPT:
            kept.clear()
        kept[opening] = _totals(terms, *opening)
    return kept[opening]


def _totals(
    terms: AbstractTerms, theta: tuple[float, ...], signals: tuple[int, ...]
) -> Float[np.ndarray, " n"]:
    policy, groves = terms.policy, terms.groves
    if not groves.reads_own and not groves.robust:
        return np.asarray(groves.total(terms.own), float)[0]
    size = policy.env.values.support.shape[1]
    env, index = _with_bids(policy.env, np.asarray(theta))
    start = Profiles(index[None], np.asarray(signals, np.int64)[None])
    asked = terms.estimator, groves.side, groves.reads_own
    if not policy.evaluator.walked and not groves.robust:
        played = _played(cast(PlayEvaluator, policy.evaluator), env, start)
        own = played.own_tables(*asked)
    else:
        there = _there(terms, env, start)
        own = there.evaluator.own_tables(*asked)
        if groves.robust:
            markets = [_with_bids(m, np.asarray(theta))[0] for m in cast(Any, groves).markets]
            sent = terms.estimator is policy.env.signals.settlement
            signal = there.env.signals.settlement if sent else terms.estimator
            own = over_markets(there, own, signal, markets)
    # The bid, of the support there, is nobody's own value.
    payoff, left, pair = (
        x if env is policy.env else np.delete(x, size, axis=2)
        for x in (own.payoff, own.contribution, own.own_pair)
    )
    own = dataclasses.replace(
        own,
        payoff=payoff,
        contribution=left,
        own_pair=pair,
        ex_ante=terms.own.ex_ante,
        batch_mean=terms.own.batch_mean,
    )
    return check_total(groves, own)[0]


def _with_bids(env: RecommendationMDP, theta: np.ndarray) -> tuple[RecommendationMDP, np.ndarray]:
    """The market with bids, money, as one more value of each advertiser's, never drawn."""
    if theta.dtype.kind != "f":
        return env, theta
    return with_values(env, theta[:, None]), np.full(len(theta), env.values.support.shape[1])


def _there(terms: AbstractTerms, env: RecommendationMDP, start: Profiles) -> EfficientPolicy:
    """The policy at one profile: W's plan, or what is recommended by whoever can be asked."""
    policy, asked = terms.policy, terms.policy.evaluator.asked
    if policy.evaluator.walked and policy.evaluator.optimal is None:
        return _solved(env, start, policy.exact)
    if not policy.evaluator.walked or asked is None:
        must = f"start from a profile asked for in initial=, for {type(terms.groves).__name__}"
        do = "solve for it, settle with another Groves term, or pass a policy whose tree was walked"
        got = f"first reports that {policy.solver} was not made for"
        raise OutsideSupport(describe("settle(conversation=...)", must, got, do))
    root = beliefs_after(env, start.signals)
    play = dataclasses.replace(asked, env=env, profiles=start, root=root)
    return walk_play(play, start, True, policy.solver)


def _played(evaluator: PlayEvaluator, env: RecommendationMDP, start: Profiles) -> PlayEvaluator:
    """Who is played, at one profile: bounded as at those that were asked for."""
    root = beliefs_after(env, start.signals)
    play = dataclasses.replace(evaluator.play, env=env, profiles=start, root=root)
    return dataclasses.replace(evaluator, play=play, solved_own=None)


def _solved(env: RecommendationMDP, start: Profiles, exact: bool) -> EfficientPolicy:
    """The efficient policy at one profile, exactly where it was and fits, else with bounds."""
    solve = functools.partial(solve_efficient_policy, env, initial=start, progress=False)
    if exact:
        try:
            return solve()
        except TooLarge:
            pass
    return solve(relative=_SHARE)
