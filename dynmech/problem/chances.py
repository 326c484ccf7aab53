"""Whether what a market's rules answer are chances, and of what may happen."""

import numpy as np

from dynmech.errors import (
    InvalidArgument,
    InvalidProbability,
    NotFinite,
    UnseenPurchase,
    describe,
)
from dynmech.market.environment import RecommendationMDP

_RULE = "RecommendationMDP(action_rule=...)"
_FEEDBACK = "RecommendationMDP(signals=SignalStructure(feedback=...))"


def check_actions(env: RecommendationMDP, action: np.ndarray, always: np.ndarray) -> None:
    """Raise unless these are laws of actions (S, n+2, m), and only what was shown is bought."""
    n = env.products
    if action.shape[1:] != (n + 2, env.tastes.size):
        must = f"return probabilities of shape {(n + 2, env.tastes.size)}"
        raise InvalidArgument(describe(f"{_RULE}.probabilities", must, action.shape[1:]))
    if not np.isfinite(action).all():
        raise NotFinite(describe(f"{_RULE}.probabilities", "be finite", "NaN or infinity"))
    gap = np.abs(action.sum(axis=1) - 1)
    if (action < -1e-12).any() or (gap > _tolerance(action)).any():
        must = "be nonnegative and sum to 1 over buying, leaving, asking again"
        got = f"smallest {action.min():.3g}, largest error of a sum {gap.max():.3g}"
        raise InvalidProbability(describe(f"{_RULE}.probabilities", must, got))
    bad = (action[:, :n] > 0).any(axis=2) & ~always
    if bad.any():
        product = env.names[int(np.argwhere(bad)[0, 1])]
        must = "let the user buy only what has been recommended (Assumption 1)"
        got = f"a positive probability of buying {product!r} before it was shown"
        raise UnseenPurchase(describe(_RULE, must, got, "make it zero until it is shown"))


def check_laws(law: np.ndarray) -> None:
    """Raise unless these are laws of symbols, (S, m, Z)."""
    gap = np.abs(law.sum(axis=2) - 1)
    if not np.isfinite(law).all():
        raise NotFinite(describe(f"{_FEEDBACK}.likelihood", "be finite", "NaN or infinity"))
    if (law < -1e-12).any() or (gap > _tolerance(law)).any():
        got = f"smallest {law.min():.3g}, largest error of a sum {gap.max():.3g}"
        must = "be nonnegative and sum to 1 over symbols"
        raise InvalidProbability(describe(f"{_FEEDBACK}.likelihood", must, got))


def _tolerance(array: np.ndarray) -> float:
    return max(1e-9, 64 * float(np.finfo(array.dtype).eps))
