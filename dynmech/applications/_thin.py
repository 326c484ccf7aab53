"""Fewer tastes for the same market: weighted k-means, without randomness."""

import numpy as np

from dynmech.market.tastes import TasteGrid


def thin(
    gamma: np.ndarray, points: np.ndarray, scale: np.ndarray, weights: np.ndarray, size: int
) -> tuple[TasteGrid, np.ndarray, dict[str, float]]:
    """Merge like-minded tastes until `size` are left.

    Weighted k-means (Lloyd's algorithm from a greedy farthest-point start) on what matters for
    play: the utility of each product in utils and the log scale. A merged taste is the weighted
    mean of its members, so the prior mean of every utility in money is unchanged.

    **Arguments**

    - `gamma`: (n, k); `points`: (M, k); `scale`: (M,), positive; `weights`: (M,), sum to one.
    - `size`: number of tastes wanted, 1 to M; at M nothing is merged.

    **Returns**

    The grid, its scales (size,), and `{"grid_error": e}` with e the largest change of
    E[1 / (1 + exp(-u_i / scale))], the chance of buying product i when it alone is on screen.
    """
    utils = gamma @ points.T / scale
    if size == len(points):
        return TasteGrid(points=points, weights=weights), scale, {"grid_error": 0.0}
    features = np.vstack([utils, np.log(scale)]).T
    spread = features.std(axis=0)
    groups = cluster(features / np.where(spread > 0, spread, 1.0), weights, size)
    member = np.eye(size)[:, groups] * weights
    mass = member.sum(axis=1)
    merged = member @ points / mass[:, None]
    merged_scale = member @ scale / mass
    after = _logistic(gamma @ merged.T / merged_scale) @ mass
    error = float(np.abs(after - _logistic(utils) @ weights).max())
    grid = TasteGrid(points=merged, weights=mass / mass.sum())
    return grid, merged_scale, {"grid_error": error}


def cluster(features: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """Group rows by weighted k-means: (M,) group of each row, none empty, no randomness.

    Starts from the heaviest row, then repeatedly the row with most weight times squared distance
    to those taken. A group that empties restarts at the row that is worst served.

    **Arguments**

    - `features`: (M, f), at least `size` of them different; `weights`: (M,), positive.
    - `size`: number of groups.
    """
    start = [int(np.argmax(weights))]
    nearest = np.full(len(features), np.inf)
    while len(start) < size:
        nearest = np.minimum(nearest, ((features - features[start[-1]]) ** 2).sum(axis=1))
        start.append(int(np.argmax(nearest * weights)))
    centres = features[start]
    groups = np.full(len(features), -1)
    for _ in range(100):
        squares = (centres**2).sum(axis=1) - 2 * features @ centres.T
        previous, groups = groups, np.argmin(squares, axis=1)
        gaps = np.take_along_axis(squares, groups[:, None], axis=1)[:, 0]
        gaps = weights * (gaps + (features**2).sum(axis=1))
        for empty in np.setdiff1d(np.arange(size), groups):
            alone = np.bincount(groups, minlength=size)[groups] == 1
            worst = int(np.argmax(np.where(alone, -np.inf, gaps)))
            groups[worst], gaps[worst] = empty, 0.0
        if (groups == previous).all():
            break
        member = np.eye(size)[:, groups] * weights
        centres = member @ features / member.sum(axis=1, keepdims=True)
    return groups


def _logistic(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -700, 700)))
