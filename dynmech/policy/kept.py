"""Profiles, pairs and beliefs that come from a file: whether they are of the market."""

import numpy as np
from jaxtyping import Float

from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles
from dynmech.problem.tasks import Pairs
from solvers.kept import ROOM, refuse, require_indices


def check_profiles(env: RecommendationMDP, profiles: Profiles) -> None:
    """Raise `ValueError` for values and signals that the market does not have."""
    require_indices("profiles.theta", profiles.theta, env.values.support.shape[1])
    for party, size in enumerate(env.initial_alphabet):
        require_indices(f"profiles.signals[:, {party}]", profiles.signals[:, party], size)


def check_pairs(env: RecommendationMDP, profiles: Profiles, pairs: Pairs) -> None:
    """Raise `ValueError` unless pairs are those of the profiles and of their own alternatives."""
    check_profiles(env, profiles)
    check_profiles(env, Profiles(pairs.theta, pairs.signals[pairs.root]))
    require_indices("base", pairs.base, len(pairs.root))
    same = (pairs.theta[pairs.base] == profiles.theta).all()
    if not same or (pairs.signals[pairs.root[pairs.base]] != profiles.signals).any():
        refuse("pairs", "be those of the profiles", "others")
    symbols, alphabet = np.arange(pairs.own.shape[3]), np.array(env.initial_alphabet[1:])
    there = np.broadcast_to((symbols < alphabet[:, None])[:, None], pairs.own.shape[1:])
    if (pairs.own >= 0).any() and ((pairs.own >= 0) != there).any():
        refuse("pairs.own", "have a pair for every own alternative", "others")
    for i in range(env.products):
        batch, value, symbol = np.nonzero(pairs.own[:, i] >= 0)
        pair = pairs.own[batch, i, value, symbol]
        theta, signals = profiles.theta[batch].copy(), profiles.signals[batch].copy()
        theta[:, i], signals[:, i + 1] = value, symbol
        same = (pairs.theta[pair] == theta).all()
        if not same or (pairs.signals[pairs.root[pair]] != signals).any():
            refuse("pairs.own", "be the pairs of own alternatives", "others")


def require_beliefs(env: RecommendationMDP, root: Float[np.ndarray, "R m"]) -> None:
    """Raise `ValueError` for beliefs at the start that are above the prior, or below 0."""
    prior = np.asarray(env.tastes.weights, float)
    if root.shape[1:] != prior.shape or not ((root >= 0) & (root <= (1 + ROOM) * prior)).all():
        refuse("root", "be beliefs: at least 0, at most the prior", "others")
