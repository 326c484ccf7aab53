"""The maximisations that certificates are about: W, and the economies without an advertiser."""

import numpy as np

from dynmech.market.environment import RecommendationMDP
from solvers import Case


def make_case(
    env: RecommendationMDP,
    theta: np.ndarray,
    owner: int | None = None,
    displayable: bool = False,
) -> Case:
    """W at values theta (n,), money; or without `owner`: withdrawn, or shown but not counted."""
    counted = np.arange(len(theta)) != (-1 if owner is None else owner)
    shows = np.zeros(len(env.controls), bool) if owner is None else env.members[:, owner]
    allowed = ~shows | displayable
    tolls = np.ones(int(env.toll is not None), bool)
    coefficient = np.append(np.where(counted, theta, 0.0), 0.0 * tolls)
    return Case(coefficient, np.append(counted, tolls), allowed)
