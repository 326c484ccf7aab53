"""Efficient recommendation policies: W, the marginal economies, and the plan that attains W."""

import contextlib
import math
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Self, overload

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, Int

from dynmech import files
from dynmech._types import Numbers, in_doubles, precision
from dynmech.errors import (
    DynmechError,
    InvalidArgument,
    describe,
    import_extra,
)
from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles
from dynmech.market.values import MarkovValues, joint_kernel, prior_probability
from dynmech.policy.conversation import Conversation, start_conversation
from dynmech.policy.given_actions import with_actions
from dynmech.policy.invariants import check_tables
from dynmech.policy.outcomes import expected_outcomes
from dynmech.policy.revalue import Revaluation, revalue
from dynmech.problem.compile import Compiled
from dynmech.problem.tasks import Assignment, Pairs, assign, make_pairs
from dynmech.solve.endless import compile_endless, solve_endless
from dynmech.solve.prepare import (
    check_solver,
    check_tolerance,
    check_values,
    root_beliefs,
    wanted_profiles,
)
from dynmech.solve.running import Solved, refuse_options, run_solver
from dynmech.solve.unfolded import compile_or_search, search_market
from solvers import (
    BranchAndBound,
    Estimate,
    Exact,
    Neural,
    Plan,
    PointBased,
    Stationary,
    deferred,
)

if TYPE_CHECKING:
    from dynmech.policy.long_horizon import LongPolicy

_VERB = "solve_efficient_policy"


class EfficientPolicy(eqx.Module):
    """The efficient policy of a market, with the values it needs for payments and audits.

    P = (K,)*n + (Zp, Z1, ..., Zn) when every initial profile was solved, or (B,) for a batch.
    Everything is conditional on the profile, in money; NaN where the profile's signals have
    probability zero. Exact up to rounding for the exact solver, where `lower` and `upper`
    equal `value`; else `value` and everything else is what the policy itself, which can be
    executed at every belief, attains: `lower` <= W_1 <= `upper`. With an infinite horizon `env`
    is the market of the T rounds that `solver` names, none is recommended after them, `value` and
    what is under truth count these rounds, and all bounds hold for the market without an end.

    - `value` P: W_1. `marginal_value`, `displayable_marginal_value` (n, *P): W^{-i}, Wd^{-i}.
    - `marginal_upper`, `displayable_marginal_upper` (n, *P): certified upper bounds of both.
    - `optimal`: the plan that attains W where `plan` need not (see `with_actions`), else None.
    - `gap`: per round (pairs, nodes), certified loss at each node, money, None when exact.
    - `advertiser_value`, `user_utility` (n, *P): expected theta earned by, and user utility
      from, each product under truth. `purchase` (n, *P): probability that it is bought.
    """

    env: RecommendationMDP
    profiles: Profiles
    pairs: Pairs
    plan: Plan
    compiled: Compiled
    batch: bool = eqx.field(static=True)
    value: Float[np.ndarray, "..."]
    lower: Float[np.ndarray, "..."]
    upper: Float[np.ndarray, "..."]
    marginal_value: Float[np.ndarray, "n ..."]
    displayable_marginal_value: Float[np.ndarray, "n ..."]
    marginal_upper: Float[np.ndarray, "n ..."]
    displayable_marginal_upper: Float[np.ndarray, "n ..."]
    advertiser_value: Float[np.ndarray, "n ..."]
    user_utility: Float[np.ndarray, "n ..."]
    purchase: Float[np.ndarray, "n ..."]
    pair_value: Float[np.ndarray, " P"]
    own_marginal: Float[np.ndarray, "B n Z"]
    own_displayable: Float[np.ndarray, "B n Z"]
    optimal: Plan | None
    gap: tuple[Float[np.ndarray, "P _N"], ...] | None
    solver: str = eqx.field(static=True)
    work: Estimate
    seconds: float = eqx.field(static=True)

    def __check_init__(self):
        check_tables(self)

    @property
    def partial(self) -> bool:
        """Whether some recommendations or rounds were left out: its gap is more than rounding."""
        return self.gap is not None and not self.solver.startswith("Exact")

    @property
    def mass(self) -> Float[np.ndarray, " B"]:
        """Probability of each profile's signals, shape (B,)."""
        return self.plan.root.sum(axis=1)[self.pairs.root[self.pairs.base]]

    @property
    def ex_ante_value(self) -> float:
        """E[W_1] over all initial profiles, money."""
        return float(np.nansum(self.value * self._weights("ex_ante_value")))

    @property
    def ex_ante_marginal_value(self) -> Float[np.ndarray, " n"]:
        """E[W_1^{-i}] over all initial profiles, shape (n,), money."""
        weights = self._weights("ex_ante_marginal_value")
        axes = tuple(range(1, self.marginal_value.ndim))
        return np.nansum(self.marginal_value * weights, axis=axes)

    def probability(self) -> Float[np.ndarray, "..."]:
        """Prior probability of each profile, shape P."""
        theta = prior_probability(self.env.values, self.profiles.theta)
        return (theta * self.mass).reshape(self.value.shape)

    def _weights(self, verb: str) -> np.ndarray:
        if self.batch:
            raise DynmechError(
                describe(
                    f"EfficientPolicy.{verb}",
                    "have every initial profile",
                    f"a batch of {len(self.profiles)}",
                    "solve without `initial`, or average over profiles drawn with "
                    "env.sample_profiles and state the standard error",
                )
            )
        return self.probability()

    def start(
        self, theta: Any = None, signals: Any = None, *, profile: int | None = None
    ) -> Conversation:
        """Start a conversation from an initial profile.

        **Arguments:** `theta`, `signals`: indices into supports (n,) and alphabets (1+n,), or
        mappings from labels ("platform" for the platform's signal) to indices or, for theta,
        money; or `profile`: the index of a solved profile.

        **Returns:** a `Conversation` with `.recommendation`, `.belief`, `.value`, `.step`.

        **Raises:** `OutsideSupport`, `ImpossibleProfile`, `InvalidArgument`.
        """
        return start_conversation(self, theta, signals, profile)

    def revalue(
        self,
        theta_support: Numbers | None = None,
        gamma: Numbers | None = None,
        prior: Numbers | None = None,
        marginals: bool = False,
    ) -> Revaluation:
        """Solve the same tree with other numbers; a pure function for grad, jit and vmap.

        The policy is optimised afresh. With `gamma`, behaviour and feedback are recomputed (cut
        points stay), on a tree that merges nothing that other numbers could tell apart. Tables
        given to `from_tables` do not depend on gamma; only utilities do. The gradient of W in
        theta_i is the expected number of purchases of i under the plan.

        **Arguments:** `theta_support` (..., n, K), money: axes before the last two are supports
        solved together, faster than by vmap; `gamma` (n, k); `prior` (m,), weights of the tastes;
        `marginals`: also W^{-i} and Wd^{-i}.

        **Returns:** a `Revaluation`: `.value` of shape (..., *P) and the marginals (n, ..., *P);
        it stands for `.value` in JAX functions.
        """
        return revalue(self, theta_support, gamma, prior, marginals)

    def to_frame(self):
        """Labelled pandas table: one row a profile and product, money."""
        pandas = import_extra("pandas", "experiments", "EfficientPolicy.to_frame")
        env, n = self.env, self.env.products
        theta = env.values.support[np.arange(n), self.profiles.theta]
        count = len(self.profiles)
        columns = {
            "profile": np.repeat(np.arange(count), n),
            "product": np.tile(np.array(env.names, dtype=object), count),
            "theta": theta.ravel(),
            "signal": self.profiles.signals[:, 1:].ravel(),
            "platform_signal": np.repeat(self.profiles.signals[:, 0], n),
            "W": np.repeat(self.value.ravel(), n),
            "first_recommendation": np.repeat(
                [self._label(int(a)) for a in self.plan.actions[0][self.pairs.base, 0]], n
            ),
        }
        for name in (
            "marginal_value",
            "displayable_marginal_value",
            "advertiser_value",
            "user_utility",
            "purchase",
        ):
            columns[name] = getattr(self, name).reshape(n, -1).T.ravel()
        return pandas.DataFrame(columns)

    def with_actions(self, actions: Sequence[Int[np.ndarray, "P _N"]]) -> "EfficientPolicy":
        """Use other recommendations on the same tree: a policy that need not be efficient.

        `value` and everything under truth become those of the recommendations in use, `upper`
        stays W; marginal economies stay. Audits then bound what reports can gain.

        **Arguments:** `actions`: per round, shape (pairs, nodes), 0..n (n for none), as
        `policy.plan.actions`.

        **Raises:** `InvalidArgument` (shape), `OutsideSupport`.
        """
        return with_actions(self, actions)

    def _label(self, action: int) -> str:
        return self.env.names[action] if action < self.env.products else "none"

    def save(self, path: str | os.PathLike) -> None:
        """Write the policy to one sealed file, in one step; see `dynmech.files`."""
        files.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike, parts: tuple[type, ...] = ()) -> Self:
        """Read a policy written by `save`; `parts` lists your own classes that it holds, if any.

        **Raises:** `InvalidArgument` for a file that is changed, torn, or of another format.
        """
        return files.load(path, cls, parts)


@overload
def solve_efficient_policy(
    env: RecommendationMDP,
    solver: Exact | BranchAndBound | PointBased | Stationary | None = None,
    *,
    initial: Profiles | None = None,
    tolerance: float = 0.0,
    checkpoint: str | os.PathLike | None = None,
    mesh: jax.sharding.Mesh | None = None,
    progress: bool = True,
) -> EfficientPolicy: ...


@overload
def solve_efficient_policy(
    env: RecommendationMDP,
    solver: Neural,
    *,
    initial: Profiles | None = None,
    tolerance: float = 0.0,
    checkpoint: str | os.PathLike | None = None,
    mesh: None = None,
    progress: bool = True,
) -> "LongPolicy": ...


def solve_efficient_policy(
    env: RecommendationMDP,
    solver: Exact | BranchAndBound | PointBased | Stationary | Neural | None = None,
    *,
    initial: Profiles | None = None,
    tolerance: float = 0.0,
    checkpoint: str | os.PathLike | None = None,
    mesh: jax.sharding.Mesh | None = None,
    progress: bool = True,
) -> "EfficientPolicy | LongPolicy":
    """Solve for the policy that maximises expected total surplus (paper C, section 3.2).

        W_t(theta, h, b) = max_r sum_omega b(omega) sum_j (theta_j + u_j(omega)) y_j(h, r, omega)
                           + sum_z E[W_{t+1}(theta', (h, r), b y_q(h, r, .) L(z | (h, r), .))]

    Ties: values within 1e-12 * (mass of b) * max |theta + u| of the best are tied; the lowest
    index is taken, none last.

    **Arguments**

    - `env`: the market. `solver`: `Exact()`, `BranchAndBound()`, `PointBased()` (where learning
      is the point), `Stationary()` (an infinite horizon), `Neural()` (a long horizon, and a
      `LongPolicy` with bounds that hold at 95%: `solve_long_horizon` with own alternatives);
      None picks one and says which and why in `policy.solver`: exact if it fits, else branch and
      bound if a tolerance is given.
    - `initial`: the profiles to solve, from `env.sample_profiles` or `Profiles`; every
      advertiser's own alternatives are solved along. All profiles by default.
    - `tolerance`: money; bounds closer than this are close enough, at every profile and
      marginal economy. The exact solver is exact for any; an infinite horizon needs one; a
      network says in `policy.solver` whether W's bounds are.
    - `checkpoint`: a folder where finished parts are kept; the same call resumes from it.
    - `mesh`: `jax.sharding.Mesh` over whose first axis the roots are split.
    - `progress`: show a bar when the solve takes more than two seconds.

    **Returns:** `EfficientPolicy`; exact up to rounding, or with certified bounds. A `LongPolicy`
    from `Neural()`.

    **Raises:** `TooLarge` when it will not fit, before work starts, with what to reduce;
    `InvalidArgument`; `UnseenPurchase`, `InvalidProbability` from the market's rules.
    """
    began = time.monotonic()
    if not isinstance(env, RecommendationMDP):
        must = "be a RecommendationMDP"
        raise InvalidArgument(describe(f"{_VERB}(env=...)", must, type(env)))
    check_tolerance(_VERB, tolerance)
    if isinstance(solver, Neural):
        from dynmech.policy.long_solve import solve_by_network

        if mesh is not None:
            must = "be None with Neural(), which works on one device"
            raise InvalidArgument(describe(f"{_VERB}(mesh=...)", must, mesh))
        return solve_by_network(env, solver, initial, tolerance, checkpoint, progress)
    check_solver(env, solver)
    single, env = env.gamma.dtype == np.float32, in_doubles(env)
    profiles = wanted_profiles(env, initial)
    check_values(env)
    with precision(env.gamma):
        limit = 2 * (solver or Exact()).memory
        endless = compile_endless(env, limit) if env.horizon == math.inf else None
        compiled = None if endless is None else endless.compiled
        if endless is None:
            compiled, why = compile_or_search(env, solver, tolerance, limit)
        pairs = make_pairs(env, profiles)
        root = root_beliefs(env, pairs)
        assignment = assign(env, pairs, root, env.values.support)
        options = {"checkpoint": checkpoint, "mesh": mesh, "progress": progress, "single": single}
        asked = solver if isinstance(solver, Stationary) else None
        if endless is not None:
            env, compiled, found = solve_endless(
                env, endless, assignment, asked, tolerance=tolerance, **options
            )
        elif compiled is None:
            asked = solver if isinstance(solver, BranchAndBound) else BranchAndBound()
            refuse_options(asked, checkpoint, mesh)
            compiled, found = search_market(
                env, assignment, asked, tolerance=tolerance, progress=progress, why=why
            )
        elif not isinstance(solver, Stationary):
            found = run_solver(env, compiled, assignment, solver, tolerance=tolerance, **options)
    seconds = time.monotonic() - began
    batch = initial is not None
    # An interrupt that comes now would throw away bounds that are there.
    with contextlib.nullcontext() if found.upper is None else deferred():
        return _finish(env, profiles, pairs, root, compiled, assignment, found, batch, seconds)


def _by_pair(assignment: Assignment, count: int, rounds, kind) -> tuple[np.ndarray, ...]:
    """Lay per-group tables (N_t, R, keep) of every round out as (pairs, N_t)."""
    laid = []
    for parts in zip(*rounds, strict=True):
        table = np.zeros((count, len(parts[0])), kind)
        for pair, part in zip(assignment.group_pair, parts, strict=True):
            table[pair.ravel()] = np.moveaxis(part, 0, -1).reshape(-1, len(part))
        laid.append(table)
    return tuple(laid)


def _plan(env, pairs: Pairs, root, assignment: Assignment, found: Solved) -> Plan:
    markov = isinstance(env.values, MarkovValues)
    kind = np.int8 if env.products < 128 else np.int16
    taken = [answer.actions for answer in found.answers]
    actions = _by_pair(assignment, len(pairs.root), taken, kind)
    values = len(pairs.root) // len(pairs.signals) if markov else 1
    regime = np.arange(len(pairs.root)) % values
    kernel = joint_kernel(env.values) if markov else None
    sibling = pairs.sibling(markov)
    return Plan(found.tree, found.tables, root, pairs.root, actions, sibling, regime, kernel)


def _finish(
    env, profiles, pairs, root, compiled, assignment: Assignment, found: Solved, batch, seconds
) -> EfficientPolicy:
    shape = (len(profiles),) if batch else env.profile_shape
    n = env.products
    plan = _plan(env, pairs, root, assignment, found)
    mass = plan.root.sum(axis=1)
    attained = np.concatenate([answer.value.ravel() for answer in found.answers])
    lower = attained if found.lower is None else np.concatenate([x.ravel() for x in found.lower])
    upper = attained if found.upper is None else np.concatenate([x.ravel() for x in found.upper])

    def along(flat: np.ndarray, index: Int[np.ndarray, "B n Z"]) -> np.ndarray:
        total = mass[pairs.root[np.maximum(pairs.own[:, :, 0, :], 0)]]
        known = (index >= 0) & (total > 0)
        return np.where(known, flat[np.maximum(index, 0)] / np.where(known, total, 1), np.nan)

    own, displayable = (along(lower, x) for x in (assignment.marginal, assignment.displayable))
    pair_mass = mass[pairs.root]

    def per_pair(flat: np.ndarray) -> np.ndarray:
        known = pair_mass > 0
        return np.where(known, flat[assignment.pair] / np.where(known, pair_mass, 1), np.nan)

    pair_value = per_pair(attained)
    outcomes = expected_outcomes(plan, env.values.support, pairs, pairs.base)
    here = profiles.signals[:, 1:][:, :, None]

    def at(table: np.ndarray) -> np.ndarray:
        return np.take_along_axis(table, here, axis=2)[:, :, 0].T.reshape(n, *shape)

    value = pair_value[pairs.base].reshape(shape)
    gap = None if found.gap is None else _by_pair(assignment, len(pairs.root), found.gap, float)
    return EfficientPolicy(
        env=env,
        profiles=profiles,
        pairs=pairs,
        plan=plan,
        compiled=compiled,
        batch=batch,
        value=value,
        lower=value if found.lower is None else per_pair(lower)[pairs.base].reshape(shape),
        upper=per_pair(upper)[pairs.base].reshape(shape),
        marginal_value=at(own),
        displayable_marginal_value=at(displayable),
        marginal_upper=at(along(upper, assignment.marginal)),
        displayable_marginal_upper=at(along(upper, assignment.displayable)),
        advertiser_value=outcomes.earned.T.reshape(n, *shape),
        user_utility=outcomes.utility.T.reshape(n, *shape),
        purchase=outcomes.purchase.T.reshape(n, *shape),
        pair_value=pair_value,
        own_marginal=own,
        own_displayable=displayable,
        optimal=None,
        gap=gap,
        solver=found.note,
        work=found.work,
        seconds=seconds,
    )
