"""Policies for long horizons: a value network, and certified bounds on every economy."""

import os
from collections.abc import Sequence
from typing import Self

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float

from dynmech._baselines import SIMPLER, PolicyComparison, compare_policies
from dynmech._ceilings import make_ceilings
from dynmech._certify import Bounds, Certificate, certify, make_case, simplify
from dynmech._conversation import read_symbols, theta_index
from dynmech._core_payment import core_payment
from dynmech._environment import RecommendationMDP
from dynmech._errors import (
    ImpossibleProfile,
    InvalidArgument,
    OutsideSupport,
    describe,
)
from dynmech._long_bounds import OwnBounds, at_profiles, bound_alternatives, list_alternatives
from dynmech._long_conversation import LongConversation
from dynmech._long_save import restore, save_long
from dynmech._long_simulate import simulate_long
from dynmech._long_training import check_long, long_profiles, train_network
from dynmech._process import MarketProcess, market_process
from dynmech._profiles import Profiles, signal_likelihood
from dynmech._relaxation import Relaxation, relax
from dynmech._simulate import Simulation
from dynmech._types import Numbers
from solvers import (
    AbstractCeiling,
    Neural,
    Root,
    ValueNetwork,
)

_VERB = "solve_long_horizon"


class LongPolicy(eqx.Module):
    """A policy for a long horizon and what is certain about it, for a batch of B profiles.

    The policy plans one round ahead and values what follows by a network. No number of the
    network is reported: `bounds` (arrays (B,)) are of W, `marginal` and `displayable` (arrays
    (n, B)) of W^{-i} and Wd^{-i}; None if they were not asked for. `history`: sweeps by seconds,
    held-out Bellman residual, loss, simulated value of the first profile, its standard error.

    It has no plan over histories: `DynamicTeamMechanism` takes it and simulates where an
    `EfficientPolicy` is evaluated exactly. `own`: what Groves terms need of each advertiser's own
    alternatives, None unless asked for.
    """

    env: RecommendationMDP
    profiles: Profiles
    process: MarketProcess
    ceilings: list[AbstractCeiling]
    root: Float[np.ndarray, "B m"]
    network: ValueNetwork
    bounds: Bounds
    marginal: Bounds | None
    displayable: Bounds | None
    own: OwnBounds | None
    history: Float[np.ndarray, "_s 5"]
    certificate: Certificate
    chunk: int = eqx.field(static=True)
    note: str = eqx.field(static=True)

    @property
    def value(self) -> Float[np.ndarray, " B"]:
        """Expected surplus under the policy, by simulation, money; see `bounds.error`."""
        return self.bounds.value

    @property
    def lower(self) -> Float[np.ndarray, " B"]:
        """Bound on W from below, with `confidence`."""
        return self.bounds.lower

    @property
    def upper(self) -> Float[np.ndarray, " B"]:
        """Bound on W from above, certain."""
        return self.bounds.upper

    @property
    def confidence(self) -> float:
        """Chance that each lower bound holds."""
        return self.bounds.confidence

    @property
    def incentive_bound(self) -> Float[np.ndarray, " B"]:
        """Most that lying can gain in expectation, planned at the outset, money.

        W - V of the policy in use, with `confidence`, if the estimate that settles is unbiased
        and Groves totals do not depend on own reports. Inside: `LongConversation.certify`.
        """
        return np.maximum(self.bounds.gap, 0.0)

    @property
    def pivot(self) -> Float[np.ndarray, "n B"]:
        """Groves totals phi_minus, from above: upper bounds of W^{-i}, money.

        They come from exact planning, not from the network. What `DynamicTeamMechanism` charges
        is worked out apart from i's report by construction; here her value can still change how
        deep the search gets, unless `Certificate(rounds=...)` fixes it.

        **Raises:** `InvalidArgument` if advertisers have initial signals of their own.
        """
        if max(self.env.initial_alphabet[1:]) > 1:
            must = "be asked for where advertisers have no initial signals of their own"
            raise InvalidArgument(describe("LongPolicy.pivot", must, self.env.initial_alphabet))
        return self._marginal().upper

    @property
    def participation(self) -> Float[np.ndarray, "n B"]:
        """Expected payoff of each advertiser at `pivot` totals, from below with `confidence`."""
        return self.lower - self.pivot

    def save(self, path: str | os.PathLike) -> None:
        """Write the policy to the folder `path`: safetensors and JSON."""
        save_long(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike, types: tuple[type, ...] = ()) -> Self:
        """Read a policy written by `save`; `types` lists your own rule classes, if any.

        **Raises:** `InvalidArgument` for a folder that is absent, incomplete, or holds another
        thing.
        """
        found = restore(path, types)
        saved = found.saved
        return cls(
            env=saved.env,
            profiles=saved.profiles,
            process=found.process,
            ceilings=found.ceilings,
            root=saved.root,
            network=found.network,
            bounds=saved.bounds,
            marginal=saved.marginal,
            displayable=saved.displayable,
            own=saved.own,
            history=saved.history,
            certificate=saved.certificate,
            chunk=saved.chunk,
            note=saved.note,
        )

    def theta(self, profile: int) -> Float[np.ndarray, " n"]:
        """Values of a profile, money."""
        return money_of(self.env, self.profiles.theta[profile])

    def start(self, theta=None, signals=None, profile: int | None = None) -> LongConversation:
        """Start a conversation at a profile of the batch, by number or by what it holds.

        **Raises:** `OutsideSupport` if the profile was not solved.
        """
        if profile is None:
            index = theta_index(self.env, theta)
            symbols = read_symbols(self.env, signals, initial=True)
            same = (self.profiles.theta == index).all(1) & (self.profiles.signals == symbols).all(1)
            if not same.any():
                must, do = "name a profile that was solved", "solve with it in initial=..."
                raise OutsideSupport(describe("LongPolicy.start(...)", must, index.tolist(), do))
            profile = int(np.argmax(same))
        self._require_profile("start", profile)
        belief = self.root[profile] / self.root[profile].sum()
        memory = np.asarray(self.process.start())
        return LongConversation(self, profile, 1, belief, memory, (), False)

    def payment(
        self, theta: Numbers, action: Numbers | int, estimate: Numbers | float
    ) -> Float[Array | np.ndarray, " n"]:
        """Core transfer paid by each advertiser; as `DynamicTeamMechanism.payment`."""
        return core_payment(self.env, theta, action, estimate)

    def simulate(self, key: jax.Array, conversations: int, profile: int = 0) -> Simulation:
        """Draw conversations at truthful reports, with core transfers; no Groves term charged.

        **Arguments:** `key`: consumed; `conversations`: how many; `profile`: in the batch.
        """
        self._require_profile("simulate", profile)
        if conversations < 1:
            must = "be at least 1"
            raise InvalidArgument(describe("simulate(conversations=...)", must, conversations))
        return simulate_long(self, key, np.full(conversations, profile))[0]

    def baseline(
        self, name: str, conversations: int = 1024, profile: int = 0, seed: int = 2
    ) -> tuple[float, float]:
        """Value of a simpler policy by simulation, and its standard error, money.

        **Arguments:** `name`: "neural" (this policy), "myopic", "posterior sampling",
        "knowledge gradient", or "greedy for told-omega".
        """
        self._require_profile("baseline", profile)
        found = compare_policies(self, (name,), conversations, profile, seed)
        return float(found.value[-1]), float(found.error[-1])

    def compare(
        self,
        names: Sequence[str] = SIMPLER,
        conversations: int = 1024,
        profile: int = 0,
        seed: int = 2,
    ) -> PolicyComparison:
        """Simulate this policy and simpler ones on common random numbers.

        **Arguments:** `names`: as in `baseline`, all by default; `conversations`: of each.
        """
        self._require_profile("compare", profile)
        return compare_policies(self, names, conversations, profile, seed)

    def relax(
        self,
        conversations: int = 128,
        rounds: int = 3,
        beam: int = 64,
        profile: int = 0,
        seed: int = 3,
    ) -> Relaxation:
        """Bound W from above by simulation, with the policy's network to charge for foresight.

        A platform that is told what follows its next recommendations, and omega after `rounds`
        of them, is charged V(next belief) - E[V(next belief)] with the network's V, a mean of
        zero for whoever is told nothing (Brown, Smith and Sun, 2010). The bound holds whatever
        V is. `upper` needs no sampling and is the better one where `rounds` can be enumerated;
        this one costs A^rounds rather than (A Z)^rounds.

        **Arguments:** `conversations`: draws, at least 30; `rounds`: at least 1; `beam`: branches
        kept in each round, what is cut being counted at a bound.

        **Raises:** `InvalidArgument`, `OutsideSupport`.
        """
        self._require_profile("relax", profile)
        return relax(self, conversations, rounds, beam, profile, seed)

    def _marginal(self) -> Bounds:
        if self.marginal is None:
            must = "be asked for when solving"
            do = "pass marginal=True"
            raise InvalidArgument(describe(f"{_VERB}(marginal=...)", must, False, do))
        return self.marginal

    def _require_profile(self, verb: str, profile: int) -> None:
        if not 0 <= profile < len(self.profiles):
            must = f"be in 0..{len(self.profiles) - 1}"
            raise OutsideSupport(describe(f"LongPolicy.{verb}(profile=...)", must, profile))


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
    - `initial`: a batch of profiles, at most 64; all of them when they are that few.
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
    profiles = long_profiles(env, initial)
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
        history=np.asarray(training.history, float)[:done],
        certificate=certificate,
        chunk=solver.chunk,
        note=f"Neural: {done} sweeps, the best after {best}",
    )


def money_of(env: RecommendationMDP, theta: np.ndarray) -> Float[np.ndarray, " n"]:
    """Values in money from indices into the support."""
    return np.asarray(env.values.support, float)[np.arange(env.products), theta]


def _stack(parts: list[Bounds], rows: list[int], squeeze: bool = False) -> Bounds:
    """Join the profiles' bounds: (rows, B), or (B,)."""
    arrays = [
        np.stack([getattr(part, name)[rows] for part in parts], axis=1)
        for name in ("value", "error", "lower", "upper")
    ]
    arrays = [x[0] if squeeze else x for x in arrays]
    return Bounds(*arrays, parts[0].confidence, parts[0].rounds)
