"""What has to be solved for a batch of profiles: pairs, tasks, and where each answer belongs.

A *pair* is a profile of initial signals (a root belief) with a profile of values. For each
profile asked for, pivots, windows and audits need every advertiser's own alternatives: the
pairs in which she alone has another value or another signal. W is solved at all pairs; W^{-i}
and Wd^{-i} only where i's own signal varies, and once for all of i's own values.
"""

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int

from dynmech._types import Numbers, Record
from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles
from dynmech.market.values import MarkovValues, joint_kernel, profile_grid
from dynmech.problem.compile import distinct_integers
from solvers import Tasks
from solvers.kept import require_indices

_FEW, _MANY = 4, 16  # economies of one root worked on one by one, up to so many; else so many


class Pairs(Record):
    """Pairs of root and values, and how profiles refer to them.

    - `signals` (R, 1+n): the signals of each root. `root`, `theta` (P,), (P, n): each pair.
    - `base` (B,): the pair of each profile asked for.
    - `own` (B, n, K, Z): the pair in which i alone has value index and signal index, -1 beyond
      her alphabet; Z is the largest advertiser alphabet.
    """

    signals: Int[np.ndarray, "R n1"]
    root: Int[np.ndarray, " P"]
    theta: Int[np.ndarray, "P n"]
    base: Int[np.ndarray, " B"]
    own: Int[np.ndarray, "B n K Z"]

    def check_kept(self) -> None:
        """Raise `ValueError` for indices that point at nothing."""
        count = len(self.root)
        require_indices("root", self.root, len(self.signals))
        require_indices("base", self.base, count, -1)
        require_indices("own", self.own, count, -1)

    def sibling(self, markov: bool) -> Int[np.ndarray, "P V"]:
        """Pairs of the same root with each value profile that can follow."""
        if not markov:
            return np.arange(len(self.root))[:, None]
        values = len(self.root) // len(self.signals)
        return self.root[:, None] * values + np.arange(values)

    def alone(self, markov: bool) -> "Pairs":
        """The pairs that W at the profiles needs, without anyone's own alternatives."""
        own = np.full_like(self.own, -1)
        if markov:
            return eqx.tree_at(lambda p: p.own, self, own)
        used, base = np.unique(self.base, return_inverse=True)
        roots, root = np.unique(self.root[used], return_inverse=True)
        return Pairs(self.signals[roots], root.reshape(-1), self.theta[used], base.reshape(-1), own)


def make_pairs(env: RecommendationMDP, profiles: Profiles) -> Pairs:
    """List the pairs that a batch of profiles needs."""
    n, size = env.values.support.shape
    alphabet = np.array(env.initial_alphabet[1:])
    batch, widest = len(profiles), int(alphabet.max())
    theta = np.broadcast_to(profiles.theta[:, None, None, None], (batch, n, size, widest, n)).copy()
    signals = np.broadcast_to(
        profiles.signals[:, None, None, None], (batch, n, size, widest, n + 1)
    ).copy()
    for i in range(n):
        theta[:, i, :, :, i] = np.arange(size)[None, :, None]
        signals[:, i, :, :, i + 1] = np.minimum(np.arange(widest), alphabet[i] - 1)
    roots, root = distinct_integers(signals.reshape(-1, n + 1))
    if isinstance(env.values, MarkovValues) and size > 1:
        values = profile_grid(n, size)
        code = root * len(values) + theta.reshape(-1, n) @ (size ** np.arange(n)[::-1])
        pair_root = np.repeat(np.arange(len(roots)), len(values))
        pair_theta, number = np.tile(values, (len(roots), 1)), code
    else:
        rows = np.concatenate([root[:, None], theta.reshape(-1, n)], axis=1)
        unique, number = distinct_integers(rows)
        pair_root, pair_theta = unique[:, 0], unique[:, 1:]
    own = number.reshape(batch, n, size, widest)
    own = np.where(np.arange(widest) < alphabet[:, None, None], own, -1)
    base = own[np.arange(batch), 0, profiles.theta[:, 0], profiles.signals[:, 1]]
    return Pairs(roots, pair_root, pair_theta, base, own)


class Assignment(Record):
    """Groups of tasks for the solver, and where the answers are in their concatenation.

    Answers are flattened group by group. `pair` (P,): W of each pair; `marginal`,
    `displayable` (B, n, Z): W^{-i} and Wd^{-i} along i's own signals, -1 beyond her alphabet.
    `group_pair`: per group (R_g, keep), the pair whose policy is kept.
    """

    groups: tuple[Tasks, ...]
    pair: Int[np.ndarray, " P"]
    marginal: Int[np.ndarray, "B n Z"]
    displayable: Int[np.ndarray, "B n Z"]
    group_pair: tuple[Int[np.ndarray, "_R _K"], ...]


def assign(
    env: RecommendationMDP,
    pairs: Pairs,
    root: Float[Numbers, "R m"],
    support: np.ndarray,
    nothing: float = 0,
) -> Assignment:
    """Turn pairs into the solver's tasks.

    **Arguments:** `root`: unnormalised beliefs of the roots; `support` (n, K): coefficients of
    values; `nothing`: the coefficient 0, of tolls, in the units of `support`.
    """
    n, size = env.values.support.shape
    first_own = pairs.own[:, :, 0, :]
    live = first_own >= 0
    owner = np.broadcast_to(np.arange(n)[None, :, None], first_own.shape)[live]
    at = first_own[live]
    if isinstance(env.values, MarkovValues) and size > 1:
        values = profile_grid(n, size)
        variants = 2 * n + 1 if live.any() else 1
        variant = np.repeat(np.arange(variants), len(values))
        task_root = np.repeat(np.arange(len(pairs.signals)), len(variant))
        task_variant = np.tile(variant, len(pairs.signals))
        task_theta = np.tile(np.tile(values, (variants, 1)), (len(pairs.signals), 1))
        stride, span = len(variant), len(values)
        pair = pairs.root * stride + np.arange(len(pairs.root)) % span
        code = at % span
        marginal = pairs.root[at] * stride + (1 + owner) * span + code
        displayable = marginal + n * span
        kernel = joint_kernel(env.values)
        counts = np.full(len(pairs.signals), stride)
    else:
        rows = np.concatenate([pairs.root[:, None], 0 * pairs.root[:, None], pairs.theta], axis=1)
        blank = pairs.theta[at].copy()
        blank[np.arange(len(at)), owner] = 0
        others = [
            np.concatenate([pairs.root[at][:, None], (1 + owner + k * n)[:, None], blank], axis=1)
            for k in range(2)
        ]
        unique, number = distinct_integers(np.concatenate([rows, *others]))
        pair, marginal, displayable = np.split(number, [len(rows), len(rows) + len(at)])
        task_root, task_variant, task_theta = unique[:, 0], unique[:, 1], unique[:, 2:]
        kernel = None
        counts = np.bincount(task_root, minlength=len(pairs.signals))
    place = np.full(len(task_root), -1)
    groups, group_pair, offset = [], [], 0
    task_pair = np.full(len(task_root), -1)
    task_pair[pair] = np.arange(len(pair))
    policies = np.bincount(task_root[task_variant == 0], minlength=len(pairs.signals))
    if live.any() and len(np.unique(np.stack([policies, counts]), axis=1).T) > 1:
        # What one signal of one advertiser asks for, W at each of her values and two economies, is
        # a row: the same whichever profiles were drawn, so that programs compiled for one draw
        # serve all; and its tasks differ in what is paid by her alone.
        hers = pair[np.moveaxis(pairs.own, 2, 3)[live]]
        named = np.concatenate([hers, marginal[:, None], displayable[:, None]], axis=1)
        rows = [(size, np.unique(named, axis=0))]
    else:
        rows = _by_root(policies, counts)
    for kept, index in rows:
        place[index] = offset + np.arange(index.size).reshape(index.shape)
        offset += index.size
        theta = np.take_along_axis(support.T, task_theta[index].reshape(-1, n), axis=0)
        counted, allowed = _variants(task_variant[index], env.members)
        coefficient = theta.reshape(*index.shape, n) * counted
        if env.toll is not None:
            free = np.ones((*index.shape, 1))
            counted = np.concatenate([counted, free], axis=2)
            coefficient = np.concatenate([coefficient, nothing * free], axis=2)
        members = task_root[index[:, 0]]
        groups.append(Tasks(root[members], coefficient, counted, allowed, kept, kernel))
        group_pair.append(task_pair[index[:, :kept]])
    fill = np.full(first_own.shape, -1)
    tables = {"marginal": fill.copy(), "displayable": fill.copy()}
    tables["marginal"][live], tables["displayable"][live] = place[marginal], place[displayable]
    return Assignment(
        groups=tuple(groups), pair=place[pair], group_pair=tuple(group_pair), **tables
    )


def _by_root(policies: Int[np.ndarray, " R"], counts: Int[np.ndarray, " R"]):
    """Rows of tasks of each root, in groups of equally many: how many are W, and which they are.

    All of a root, where roots have equally many; else, of W alone, one or many at once.
    """
    starts = np.cumsum(counts) - counts
    if len(np.unique(counts)) == 1:
        yield int(policies[0]), starts[:, None] + np.arange(counts[0])
        return
    for width, mine in ((1, policies <= _FEW), (_MANY, policies > _FEW)):
        rows = -(-policies[mine] // width)
        start, most = np.repeat(starts[mine], rows), np.repeat(policies[mine], rows)
        part = np.arange(rows.sum()) - np.repeat(np.cumsum(rows) - rows, rows)
        # What a row is short of is its last task once more.
        at = np.minimum(part[:, None] * width + np.arange(width), most[:, None] - 1)
        if len(at):
            yield width, start[:, None] + at


def _variants(
    variant: np.ndarray, members: Bool[np.ndarray, "C n"]
) -> tuple[np.ndarray, Bool[np.ndarray, "..."]]:
    """Outcomes that count and controls that are allowed in W (0), W^{-i} (1+i), Wd^{-i}."""
    n = members.shape[1]
    owner = np.where(variant > 0, (variant - 1) % n, -1)
    counted = (owner[..., None] != np.arange(n)).astype(float)
    withdrawn = (variant > 0) & (variant <= n)
    forbidden = withdrawn[..., None] & members.T[owner]
    return counted, ~forbidden
