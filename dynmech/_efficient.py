"""Efficient recommendation policies: W, the marginal economies, and the plan that attains W."""

import os
import time
from collections.abc import Sequence
from typing import Any, Self

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, Int

from dynmech._artefacts import load_module, save_module
from dynmech._compile import Compiled, compile_market, tables
from dynmech._conversation import Conversation, start_conversation
from dynmech._environment import RecommendationMDP
from dynmech._errors import (
    DynmechError,
    InvalidArgument,
    describe,
    import_extra,
)
from dynmech._given_actions import with_actions
from dynmech._outcomes import expected_outcomes
from dynmech._prepare import (
    check_values,
    pick_solver,
    plan_tree,
    root_beliefs,
    too_large,
    wanted_profiles,
)
from dynmech._profiles import Profiles
from dynmech._revalue import Revaluation, revalue
from dynmech._tasks import Assignment, Pairs, assign, make_pairs
from dynmech._types import Numbers, precision
from dynmech._values import MarkovValues, joint_kernel, prior_probability
from solvers import Estimate, Exact, Plan, solve_exact

_VERB = "solve_efficient_policy"


class EfficientPolicy(eqx.Module):
    """The efficient policy of a market, with the values it needs for payments and audits.

    P = (K,)*n + (Zp, Z1, ..., Zn) when every initial profile was solved, or (B,) for a batch.
    Everything is conditional on the profile, in money; NaN where the profile's signals have
    probability zero. Exact up to rounding for the exact solver, where `lower` and `upper`
    equal `value`.

    - `value` P: W_1. `marginal_value`, `displayable_marginal_value` (n, *P): W^{-i}, Wd^{-i}.
    - `optimal`: the plan that attains W where `plan` need not (see `with_actions`), else None.
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
    advertiser_value: Float[np.ndarray, "n ..."]
    user_utility: Float[np.ndarray, "n ..."]
    purchase: Float[np.ndarray, "n ..."]
    pair_value: Float[np.ndarray, " P"]
    own_marginal: Float[np.ndarray, "B n Z"]
    own_displayable: Float[np.ndarray, "B n Z"]
    optimal: Plan | None
    solver: str = eqx.field(static=True)
    work: Estimate
    seconds: float = eqx.field(static=True)

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

        **Arguments:** `theta_support` (n, K), money; `gamma` (n, k); `prior` (m,), weights of the
        tastes; `marginals`: also W^{-i} and Wd^{-i}.

        **Returns:** a `Revaluation`: `.value` of shape P (and the marginals); it stands for
        `.value` in JAX functions.
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
        """Write the policy to a folder: arrays in safetensors, the rest in JSON."""
        save_module(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike, types: tuple[type, ...] = ()) -> Self:
        """Read a policy written by `save`; `types` lists your own rule classes, if any."""
        return load_module(path, cls, types)


def solve_efficient_policy(
    env: RecommendationMDP,
    solver: Exact | None = None,
    *,
    initial: Profiles | None = None,
    tolerance: float = 0.0,
    checkpoint: str | os.PathLike | None = None,
    mesh: jax.sharding.Mesh | None = None,
    progress: bool = True,
) -> EfficientPolicy:
    """Solve for the policy that maximises expected total surplus (paper C, section 3.2).

        W_t(theta, h, b) = max_r sum_omega b(omega) sum_j (theta_j + u_j(omega)) y_j(h, r, omega)
                           + sum_z E[W_{t+1}(theta', (h, r), b y_q(h, r, .) L(z | (h, r), .))]

    Ties: values within 1e-12 * (mass of b) * max |theta + u| of the best are tied; the lowest
    index is taken, none last.

    **Arguments**

    - `env`: the market. `solver`: `Exact()`; None picks one and says which and why.
    - `initial`: the profiles to solve, from `env.sample_profiles` or `Profiles`; every
      advertiser's own alternatives are solved along. All profiles by default.
    - `tolerance`: money; the exact solver is exact for any.
    - `checkpoint`: a folder where finished parts are kept; the same call resumes from it.
    - `mesh`: `jax.sharding.Mesh` over whose first axis the roots are split.
    - `progress`: show a bar when the solve takes more than two seconds.

    **Returns:** `EfficientPolicy`; exact up to rounding.

    **Raises:** `TooLarge` when it will not fit, before work starts, with what to reduce;
    `InvalidArgument`; `UnseenPurchase`, `InvalidProbability` from the market's rules.
    """
    began = time.monotonic()
    asked, solver = solver, pick_solver(env, solver)
    if not tolerance >= 0:
        raise InvalidArgument(describe(f"{_VERB}(tolerance=...)", "be >= 0", tolerance))
    profiles = wanted_profiles(env, initial)
    check_values(env)
    with precision(env.gamma):
        compiled = compile_market(env, limit=2 * solver.memory)
        pairs = make_pairs(env, profiles)
        root = root_beliefs(env, pairs)
        assignment = assign(env, pairs, root, env.values.support)
        work, tree = plan_tree(env, compiled, assignment, solver)
        numbers = jax.tree.map(np.asarray, tables(env, compiled))
        try:
            answers = solve_exact(
                tree,
                numbers,
                assignment.groups,
                solver,
                checkpoint=checkpoint,
                mesh=mesh,
                progress=progress,
            )
        except MemoryError as error:
            raise too_large(str(error)) from error
        except ValueError as error:
            raise InvalidArgument(str(error)) from error
    plan = _plan(env, pairs, root, tree, numbers, assignment, answers)
    flat = np.concatenate([answer.value.ravel() for answer in answers])
    return _finish(
        env, profiles, pairs, plan, compiled, assignment, flat,
        batch=initial is not None, work=work, seconds=time.monotonic() - began,
        solver="Exact, as asked" if asked else f"Exact, picked because {work.nodes} nodes fit",
    )  # fmt: skip


def _plan(env, pairs: Pairs, root, tree, numbers, assignment: Assignment, answers) -> Plan:
    markov = isinstance(env.values, MarkovValues)
    actions = []
    for t, layer in enumerate(tree.layers):
        taken = np.zeros((len(pairs.root), layer.nodes), np.int16)
        for pair, answer in zip(assignment.group_pair, answers, strict=True):
            part = np.moveaxis(answer.actions[t], 0, -1)
            taken[pair.ravel()] = part.reshape(-1, layer.nodes)
        actions.append(taken.astype(np.int8) if env.products < 128 else taken)
    values = len(pairs.root) // len(pairs.signals) if markov else 1
    regime = np.arange(len(pairs.root)) % values
    kernel = joint_kernel(env.values) if markov else None
    return Plan(
        tree, numbers, root, pairs.root, tuple(actions), pairs.sibling(markov), regime, kernel
    )


def _finish(
    env,
    profiles,
    pairs,
    plan,
    compiled,
    assignment: Assignment,
    flat,
    *,
    batch,
    work,
    seconds,
    solver,
) -> EfficientPolicy:
    shape = (len(profiles),) if batch else env.profile_shape
    n = env.products
    mass = plan.root.sum(axis=1)

    def along(index: Int[np.ndarray, "B n Z"]) -> np.ndarray:
        total = mass[pairs.root[np.maximum(pairs.own[:, :, 0, :], 0)]]
        known = (index >= 0) & (total > 0)
        return np.where(known, flat[np.maximum(index, 0)] / np.where(known, total, 1), np.nan)

    own, displayable = along(assignment.marginal), along(assignment.displayable)
    pair_mass = mass[pairs.root]
    pair_value = np.where(
        pair_mass > 0, flat[assignment.pair] / np.where(pair_mass > 0, pair_mass, 1), np.nan
    )
    outcomes = expected_outcomes(plan, env.values.support, pairs, pairs.base)
    here = profiles.signals[:, 1:][:, :, None]

    def at(table: np.ndarray) -> np.ndarray:
        return np.take_along_axis(table, here, axis=2)[:, :, 0].T.reshape(n, *shape)

    value = pair_value[pairs.base].reshape(shape)
    return EfficientPolicy(
        env=env,
        profiles=profiles,
        pairs=pairs,
        plan=plan,
        compiled=compiled,
        batch=batch,
        value=value,
        lower=value,
        upper=value,
        marginal_value=at(own),
        displayable_marginal_value=at(displayable),
        advertiser_value=outcomes.earned.T.reshape(n, *shape),
        user_utility=outcomes.utility.T.reshape(n, *shape),
        purchase=outcomes.purchase.T.reshape(n, *shape),
        pair_value=pair_value,
        own_marginal=own,
        own_displayable=displayable,
        optimal=None,
        solver=solver,
        work=work,
        seconds=seconds,
    )
