"""The weights of a mixture that maximise its likelihood, the components known: a convex problem.

    maximise over w >= 0   sum_c a_c log (P w)_c - A sum_k w_k,    A = sum_c a_c,

whose solution adds up to one by itself (Lindsay 1983). With r_c = a_c / (A (P w)_c) the slope is
1 - P' r, and the maximum is where no component has one below zero. Newton steps on the components
that matter, those with weight or a slope below zero, each a nonnegative least-squares problem
(Kim, Carbonetto, Stephens, Anitescu 2020, JCGS 29): a handful of products with P, whatever the
number of components.
"""

import numpy as np
from jaxtyping import Float

_SLOPE = 1e-9  # of a component that should have more weight
_STEPS = 200
_FEW = 10
_WIDEST = 64  # components that come in at once
_RIDGE = 1e-10  # of the largest curvature
_HALVINGS = 40
_LEAST = 1e-14  # weights below are none


def mixture_weights(
    likelihood: Float[np.ndarray, "N m"],
    often: Float[np.ndarray, " N"],
    weights: Float[np.ndarray, " m"],
) -> Float[np.ndarray, " m"]:
    """Weights of most likelihood, mass 1.

    **Arguments:** `likelihood`: of N records under m components, each row up to a factor; `often`:
    how often each record counts; `weights`: where to start.
    """
    from scipy.optimize import nnls

    kind, share = likelihood.dtype, np.asarray(often, float) / np.sum(often)
    w = np.maximum(np.asarray(weights, float), 0.0)
    w, total = w / w.sum(), np.zeros(0)
    if (w > 0).sum() > 4 * _WIDEST:
        w = _thinned(likelihood, share, w)
    for _ in range(_STEPS):
        total = _mixed(likelihood, w)
        ratio = share / total
        slope = 1.0 - np.asarray(ratio.astype(kind) @ likelihood, float)
        if slope.min() > -_SLOPE and np.abs(slope[w > 0]).max() < _SLOPE:
            break
        rising = np.argsort(slope)[:_WIDEST]
        active = np.union1d(np.flatnonzero(w > 0), rising[slope[rising] < -_SLOPE])
        part = likelihood[:, active].astype(float) * (np.sqrt(share) / total)[:, None]
        curve = part.T @ part
        curve[np.diag_indices(len(active))] += _RIDGE * curve.diagonal().max()
        root = np.linalg.cholesky(curve)
        # The step goes to y >= 0 that minimises y'Hy / 2 - (Hw - slope)'y.
        goal = np.linalg.solve(root, curve @ w[active] - slope[active])
        step = np.zeros_like(w)
        step[active] = nnls(root.T, goal, maxiter=30 * len(active))[0] - w[active]
        w, gained = _searched(likelihood, share, w, step, total, float(slope @ step))
        if not gained:
            break
    return w / w.sum()


def _thinned(likelihood: np.ndarray, share: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The components that a few steps of expectation and maximisation leave with some weight."""
    for _ in range(_FEW):
        ratio = share / _mixed(likelihood, w)
        w = w * np.asarray(ratio.astype(likelihood.dtype) @ likelihood, float)
    kept = np.where(w >= np.sort(w)[-2 * _WIDEST :][0], w, 0.0)
    every = (likelihood[:, kept > 0] > 0).any(axis=1).all()
    return kept / kept.sum() if every else w / w.sum()


def _mixed(likelihood: np.ndarray, w: np.ndarray) -> Float[np.ndarray, " N"]:
    on = np.flatnonzero(w > 0)
    some = likelihood[:, on] if 4 * len(on) < len(w) else likelihood
    mine = w[on] if 4 * len(on) < len(w) else w
    return np.maximum(np.asarray(some @ mine.astype(likelihood.dtype), float), 1e-300)


def _searched(
    likelihood: np.ndarray,
    share: np.ndarray,
    w: np.ndarray,
    step: np.ndarray,
    total: np.ndarray,
    slope: float,
):
    """As far along a step as the likelihood gains what its slope promises; whether it gains."""
    along = np.asarray(likelihood @ step.astype(likelihood.dtype), float)
    mass, size = step.sum(), 1.0
    for _ in range(_HALVINGS):
        moved = total + size * along
        if (moved > 0).all():
            change = size * mass - share @ np.log(moved / total)
            if change <= 1e-4 * size * slope:
                found = np.maximum(w + size * step, 0.0)
                return np.where(found < _LEAST, 0.0, found), True
        size /= 2
    return w, False
