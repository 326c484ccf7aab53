"""Train a policy for a long horizon and certify it."""

import dataclasses
import os

import jax
import numpy as np
from jaxtyping import Int

from dynmech._types import in_doubles
from dynmech.errors import ImpossibleProfile, describe
from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles, signal_likelihood
from dynmech.play.long_play import Player, simulate_outcomes
from dynmech.policy.long_bounds import at_profiles, bound_alternatives, list_alternatives
from dynmech.policy.long_horizon import LongPolicy, money_of
from dynmech.problem.process import market_process
from dynmech.solve.ceilings import make_ceilings
from dynmech.solve.certificates import Bounds, Certificate, certify, make_case, simplify
from dynmech.solve.prepare import wanted_profiles
from dynmech.solve.training import check_long, long_profiles, train_network
from solvers import Neural, Root

_VERB = "solve_long_horizon"
_SEED = 6  # of the simulation by product


def solve_long_horizon(
    env: RecommendationMDP,
    solver: Neural | None = None,
    *,
    initial: Profiles | None = None,
    certificate: Certificate | None = None,
    marginal: bool = True,
    alternatives: bool = False,
    checkpoint: str | os.PathLike | None = None,
    progress: bool = True,
) -> LongPolicy:
    """Train a policy for a horizon no tree fits, and bound its distance from the efficient one.

    Below, the policy simulated on fresh conversations (a confidence bound); above, a platform
    that plans exactly for some rounds and is then told the taste (no sampling error). Both for W
    and, with `marginal`, for every W^{-i} and Wd^{-i}. Action rules are used as they are; their
    memories are never enumerated, so that perfect recall over many products is no obstacle.

    **Arguments**

    - `env`: constant values, finite horizon.
    - `solver`: `Neural(...)`; `certificate`: `Certificate(...)`.
    - `initial`: a batch of profiles, at most 64; all that can occur when they are that few.
    - `alternatives`: also every advertiser's own alternatives to each profile (values and signals
      she might report), trained and certified along with `Certificate(marginal_runs=...)`
      conversations each: what most Groves terms need.
    - `checkpoint`: folder that keeps the training after every sweep; a killed run resumes from
      it to the same policy. Needs the extra `train`.

    **Returns:** `LongPolicy`.

    **Raises:** `TrainingDiverged`; `InvalidArgument`, `TooLarge`, `ImpossibleProfile`.

    ```python
    >>> import dynmech as dm, numpy as np
    >>> env = dm.RecommendationMDP(
    ...     gamma=np.array([[1.0, -0.5], [-0.4, 0.9]]),
    ...     tastes=dm.TasteGrid(np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([0.5, 0.5])),
    ...     horizon=3,
    ...     action_rule=dm.PerfectRecall(dm.Logit(0.5), query=0.7),
    ...     signals=dm.SignalStructure(feedback=dm.RatingFeedback(noise=1.0, symbols=2)),
    ...     values=dm.ConstantValues([0.5, 0.6]),
    ... )
    >>> policy = dm.solve_long_horizon(
    ...     env,
    ...     dm.Neural(sweeps=2, runs=16, steps=4),
    ...     certificate=dm.Certificate(runs=64, marginal_runs=64),
    ...     progress=False,
    ... )
    >>> bool(policy.lower[0] < policy.upper[0])
    True
    >>> audit = dm.DynamicTeamMechanism(policy, dm.groves.Zero()).audit(conversations=60)
    >>> audit.verdicts["participation"]
    'proved at 95%'

    ```
    """
    solver, certificate = solver or Neural(), certificate or Certificate()
    check_long(env, solver, certificate)
    env = in_doubles(env)
    profiles = long_profiles(env, initial)
    if initial is None:
        profiles, _ = _possible(env, profiles)
    options = (certificate, marginal, alternatives, checkpoint, progress)
    return _solve(env, solver, profiles, initial is not None, None, *options)


def solve_by_network(
    env: RecommendationMDP,
    solver: Neural,
    initial: Profiles | None,
    tolerance: float,
    checkpoint: str | os.PathLike | None,
    progress: bool,
) -> LongPolicy:
    """See `solve_efficient_policy`: every economy, along every own alternative, in its shapes."""
    certificate = Certificate()
    check_long(env, solver, certificate)
    env = in_doubles(env)
    profiles, cells = wanted_profiles(env, initial), None
    if initial is None:
        profiles, cells = _possible(env, profiles)
    options = (certificate, True, True, checkpoint, progress)
    batch = initial is not None
    policy = _solve(env, solver, long_profiles(env, profiles), batch, cells, *options)
    gap = float(policy.bounds.gap.max())
    met = "within" if gap <= tolerance else "not within"
    goal = f", {met} the tolerance of {tolerance:.3g}" if tolerance > 0 else ""
    note = f"{policy.note}; gap of W {gap:.3g} at {policy.confidence:.0%}{goal}"
    return dataclasses.replace(policy, note=note)


def _possible(env: RecommendationMDP, profiles: Profiles) -> tuple[Profiles, np.ndarray]:
    """Those whose signals can occur, and where they are."""
    mass = np.asarray(signal_likelihood(env, profiles.signals), float) @ env.tastes.weights
    cells = np.flatnonzero(mass > 0)
    return Profiles(profiles.theta[cells], profiles.signals[cells]), cells


def _solve(
    env: RecommendationMDP,
    solver: Neural,
    profiles: Profiles,
    batch: bool,
    cells: Int[np.ndarray, " B"] | None,
    certificate: Certificate,
    marginal: bool,
    alternatives: bool,
    checkpoint: str | os.PathLike | None,
    progress: bool,
) -> LongPolicy:
    process = market_process(env)
    n, owners = env.products, range(env.products)
    likelihood = np.asarray(signal_likelihood(env, profiles.signals), float)
    root = np.asarray(env.tastes.weights, float) * likelihood
    if (root.sum(axis=1) <= 0).any():
        must = "have signals of positive probability"
        got = profiles.signals[int(np.argmin(root.sum(axis=1)))].tolist()
        raise ImpossibleProfile(describe(f"{_VERB}(initial=...)", must, got))
    listed = list_alternatives(env, process, profiles) if alternatives else None
    economies = []
    for index in profiles.theta:
        theta = money_of(env, index)
        others = [make_case(theta, i, shown) for shown in (False, True) for i in owners]
        economies.append([make_case(theta), *(others if marginal and not alternatives else [])])
    with jax.enable_x64(True):
        ceilings = [make_ceilings(env, process, cases) for cases in economies]
        more = [] if listed is None else listed.training_roots()
        flat = [bound for bounds in ceilings for bound in bounds]
        size, count = len(economies[0]), len(flat)
        quick, flat, _ = simplify(process, [*flat, *(one.ceiling for one in more)])
        bounds_of = [flat[k : k + size] for k in range(0, count, size)]
    roots = [
        Root((belief / belief.sum()).astype(np.float32), case, ceiling, k == 0)
        for belief, cases, bounds in zip(root, economies, bounds_of, strict=True)
        for k, (case, ceiling) in enumerate(zip(cases, bounds, strict=True))
    ]
    for one, ceiling in zip(more, flat[count:], strict=True):
        roots.append(Root(one.belief, one.case, ceiling, one.first))
    training = train_network(quick, roots, solver, checkpoint, progress)
    network = training.best
    rest = slice(1, None)
    first, others = [], []
    for belief, cases, bounds in zip(root, economies, bounds_of, strict=True):
        options = (network, belief)
        first.append(
            certify(quick, cases[:1], bounds[:1], *options, certificate.runs, certificate,
                    solver.chunk)
        )  # fmt: skip
        if marginal and not alternatives:
            others.append(
                certify(quick, cases[rest], bounds[rest], *options, certificate.marginal_runs,
                        certificate, solver.chunk)
            )  # fmt: skip
    rows = range(n), range(n, 2 * n)
    own = None
    if listed is not None:
        own = bound_alternatives(env, process, network, listed, certificate, solver.chunk)
    withdrawn = shown = None
    if own is not None and marginal:
        withdrawn, shown = (at_profiles(x, profiles) for x in (own.marginal, own.displayable))
    elif marginal:
        withdrawn, shown = (_stack(others, list(part)) for part in rows)
    player = Player(
        env, process, network, solver.chunk, certificate.marginal_runs, [certificate.seed, _SEED]
    )
    done, best = int(training.sweep), int(training.best_sweep)
    return LongPolicy(
        env=env,
        profiles=profiles,
        process=process,
        ceilings=[bounds[0] for bounds in ceilings],
        root=root,
        network=network,
        bounds=_stack(first, [0], squeeze=True),
        marginal=withdrawn,
        displayable=shown,
        own=own,
        outcomes=simulate_outcomes(player, profiles),
        cells=cells,
        history=np.asarray(training.history, float)[:done],
        certificate=certificate,
        batch=batch,
        chunk=solver.chunk,
        note=f"Neural: {done} sweeps, the best after {best}" if done else "Neural: untrained",
    )


def _stack(parts: list[Bounds], rows: list[int], squeeze: bool = False) -> Bounds:
    """Join the profiles' bounds: (rows, B), or (B,)."""
    arrays = [
        np.stack([getattr(part, name)[rows] for part in parts], axis=1)
        for name in ("value", "error", "unseen", "lower", "upper")
    ]
    arrays = [x[0] if squeeze else x for x in arrays]
    return Bounds(*arrays, parts[0].confidence, parts[0].rounds)
