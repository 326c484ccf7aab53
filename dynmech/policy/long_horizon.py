"""Policies for long horizons: a value network, and certified bounds on every economy."""

import math
import os
from collections.abc import Sequence
from typing import Self

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Int

from dynmech._types import Numbers
from dynmech.errors import (
    DynmechError,
    InvalidArgument,
    OutsideSupport,
    describe,
    import_extra,
    require_whole,
)
from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles
from dynmech.market.values import prior_probability
from dynmech.payments.core import core_payment
from dynmech.play.long_play import Outcomes
from dynmech.play.long_simulate import simulate_long
from dynmech.play.simulate import Simulation
from dynmech.policy.baselines import SIMPLER, PolicyComparison, compare_policies
from dynmech.policy.conversation import read_symbols, theta_index
from dynmech.policy.long_bounds import OwnBounds
from dynmech.policy.long_conversation import LongConversation
from dynmech.policy.long_save import restore, save_long
from dynmech.policy.relaxation import Relaxation, relax
from dynmech.problem.process import MarketProcess
from dynmech.solve.certificates import Bounds, Certificate
from solvers import AbstractCeiling, ValueNetwork


class LongPolicy(eqx.Module):
    """A policy for a long horizon and what is certain about it, for B profiles.

    The policy plans one round ahead and values what follows by a network. No number of the
    network is reported: `bounds` (arrays (B,)) are of W, `marginal` and `displayable` (arrays
    (n, B)) of W^{-i} and Wd^{-i}; None if they were not asked for. `outcomes`: by product, under
    truth. `history`: sweeps by seconds, held-out Bellman residual, loss, simulated value of the
    first profile, its standard error.

    `batch`: whether profiles were asked for; else they are all that can occur. Money as properties
    has the shapes of an `EfficientPolicy`: P = (B,), or from `solve_efficient_policy` without
    `initial` P = (K,)*n + (Zp, Z1, ..., Zn), of which `profiles` are those at the flat indices
    `cells`; all others have probability zero, and NaN.

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
    outcomes: Outcomes
    cells: Int[np.ndarray, " B"] | None
    history: Float[np.ndarray, "_s 5"]
    certificate: Certificate
    batch: bool = eqx.field(static=True)
    chunk: int = eqx.field(static=True)
    note: str = eqx.field(static=True)

    @property
    def value(self) -> Float[np.ndarray, "..."]:
        """Expected surplus under the policy, by simulation, P, money; see `bounds.error`."""
        return self.laid_out(self.bounds.value)

    @property
    def lower(self) -> Float[np.ndarray, "..."]:
        """Bound on W from below, with `confidence`, P."""
        return self.laid_out(self.bounds.lower)

    @property
    def upper(self) -> Float[np.ndarray, "..."]:
        """Bound on W from above, certain, P."""
        return self.laid_out(self.bounds.upper)

    @property
    def marginal_value(self) -> Float[np.ndarray, "n ..."]:
        """Surplus of the policy without each advertiser, by simulation, (n, *P); see `marginal`."""
        return self.laid_out(self._marginal().value)

    @property
    def marginal_upper(self) -> Float[np.ndarray, "n ..."]:
        """Bounds on W^{-i} from above, certain, (n, *P)."""
        return self.laid_out(self._marginal().upper)

    @property
    def displayable_marginal_value(self) -> Float[np.ndarray, "n ..."]:
        """As `marginal_value` where i may be shown and does not count, (n, *P)."""
        return self.laid_out(self._displayable().value)

    @property
    def displayable_marginal_upper(self) -> Float[np.ndarray, "n ..."]:
        """Bounds on Wd^{-i} from above, certain, (n, *P)."""
        return self.laid_out(self._displayable().upper)

    @property
    def advertiser_value(self) -> Float[np.ndarray, "n ..."]:
        """Expected theta earned by each product under truth, by simulation, (n, *P)."""
        return self.laid_out(self.outcomes.earned)

    @property
    def user_utility(self) -> Float[np.ndarray, "n ..."]:
        """Expected user utility from each product under truth, by simulation, (n, *P)."""
        return self.laid_out(self.outcomes.utility)

    @property
    def solver(self) -> str:
        """How it was solved."""
        return self.note

    @property
    def confidence(self) -> float:
        """Chance that each lower bound holds."""
        return self.bounds.confidence

    @property
    def incentive_bound(self) -> Float[np.ndarray, "..."]:
        """Most that lying can gain in expectation, planned at the outset, P, money.

        W - V of the policy in use, with `confidence`, if the estimate that settles is unbiased
        and Groves totals do not depend on own reports. Inside: `LongConversation.certify`.
        """
        return self.laid_out(np.maximum(self.bounds.gap, 0.0))

    @property
    def pivot(self) -> Float[np.ndarray, "n ..."]:
        """Groves totals phi_minus, from above: upper bounds of W^{-i}, (n, *P), money.

        They come from exact planning, not from the network. What `DynamicTeamMechanism` charges
        is worked out apart from i's report by construction; here her value can still change how
        deep the search gets, unless `Certificate(rounds=...)` fixes it.

        **Raises:** `InvalidArgument` if advertisers have initial signals of their own.
        """
        if max(self.env.initial_alphabet[1:]) > 1:
            must = "be asked for where advertisers have no initial signals of their own"
            raise InvalidArgument(describe("LongPolicy.pivot", must, self.env.initial_alphabet))
        return self.marginal_upper

    @property
    def participation(self) -> Float[np.ndarray, "n ..."]:
        """Expected payoff of each advertiser at `pivot` totals, from below with `confidence`."""
        return self.lower - self.pivot

    @property
    def ex_ante_value(self) -> float:
        """E[value] over all initial profiles, money; see `bounds` for its error."""
        return float(self._weights("ex_ante_value") @ self.bounds.value)

    @property
    def ex_ante_marginal_value(self) -> Float[np.ndarray, " n"]:
        """E[marginal_value] over all initial profiles, (n,), money."""
        return self._marginal().value @ self._weights("ex_ante_marginal_value")

    @property
    def complete(self) -> bool:
        """Whether every initial profile that can occur is in `profiles`, once."""
        if not self.batch:
            return True
        rows = np.concatenate([self.profiles.theta, self.profiles.signals], axis=1)
        once = len(np.unique(rows, axis=0)) == len(rows)
        return once and bool(abs(self.probability().sum() - 1) < 1e-9)

    def probability(self) -> Float[np.ndarray, " B"]:
        """Prior probability of each of `profiles`."""
        theta = prior_probability(self.env.values, self.profiles.theta)
        return theta * self.root.sum(axis=1)

    def laid_out(self, numbers: Float[np.ndarray, "*lead B"]) -> Float[np.ndarray, "..."]:
        """Numbers of `profiles` along the axes P."""
        if self.cells is None:
            return numbers
        *lead, _ = numbers.shape
        found = np.full((*lead, math.prod(self.env.profile_shape)), np.nan)
        found[..., self.cells] = numbers
        return found.reshape(*lead, *self.env.profile_shape)

    def flat(self, numbers: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "n B"]:
        """Numbers of `profiles` from a table (n, *P): `laid_out` undone."""
        if self.cells is None:
            return numbers
        return numbers.reshape(len(numbers), -1)[:, self.cells]

    def revalue(self, *args, **kwargs):
        """Not defined: there is no tree to solve again.

        **Raises:** `InvalidArgument`.
        """
        must, do = "be asked of an EfficientPolicy, which has a tree", "solve the other market"
        raise InvalidArgument(describe("LongPolicy.revalue(...)", must, "a LongPolicy", do))

    def to_frame(self):
        """Labelled pandas table: one row a profile and product, money.

        Bounds hold as `lower` and `upper` do; what is simulated comes with its standard error.
        """
        pandas = import_extra("pandas", "experiments", "LongPolicy.to_frame")
        n, count = self.env.products, len(self.profiles)
        theta = np.asarray(self.env.values.support, float)[np.arange(n), self.profiles.theta]
        shown = [self.start(profile=b).recommendation for b in range(count)]
        labels = [*self.env.names, "none"]
        columns = {
            "profile": np.repeat(np.arange(count), n),
            "product": np.tile(np.array(self.env.names, dtype=object), count),
            "theta": theta.ravel(),
            "signal": self.profiles.signals[:, 1:].ravel(),
            "platform_signal": np.repeat(self.profiles.signals[:, 0], n),
            "first_recommendation": np.repeat([labels[r] for r in shown], n),
            "confidence": self.confidence,
        }
        for name in ("value", "error", "lower", "upper"):
            columns[f"W_{name}"] = np.repeat(getattr(self.bounds, name), n)
        for label, bounds in (("marginal", self.marginal), ("displayable", self.displayable)):
            for name in ("value", "error", "lower", "upper") if bounds is not None else ():
                columns[f"{label}_{name}"] = getattr(bounds, name).T.ravel()
        for label, table in (
            ("advertiser_value", self.outcomes.earned),
            ("advertiser_value_error", self.outcomes.earned_error),
            ("user_utility", self.outcomes.utility),
            ("user_utility_error", self.outcomes.utility_error),
        ):
            columns[label] = table.T.ravel()
        return pandas.DataFrame(columns)

    def save(self, path: str | os.PathLike) -> None:
        """Write the policy to one sealed file, in one step; see `dynmech.files`."""
        save_long(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike, parts: tuple[type, ...] = ()) -> Self:
        """Read a policy written by `save`; `parts` lists your own classes that it holds, if any.

        **Raises:** `InvalidArgument` for a file that is changed, torn, or of another format.
        """
        found = restore(path, parts)
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
            outcomes=saved.outcomes,
            cells=saved.cells,
            history=saved.history,
            certificate=saved.certificate,
            batch=saved.batch,
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
        if profile is not None and not (theta is None and signals is None):
            must = "be either a profile or theta and signals"
            raise InvalidArgument(describe("LongPolicy.start(...)", must, "both"))
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
        return LongConversation(self, profile, 1, belief, memory, (), False, None)

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
        require_whole("simulate(conversations=...)", conversations, 1)
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
        return _asked(self.marginal)

    def _displayable(self) -> Bounds:
        return _asked(self.displayable)

    def _weights(self, verb: str) -> Float[np.ndarray, " B"]:
        """Prior probabilities, which add up to one."""
        if not self.complete:
            must, got = "have every initial profile", f"a batch of {len(self.profiles)}"
            do = "solve without `initial`, or average over profiles drawn and state the error"
            raise DynmechError(describe(f"LongPolicy.{verb}", must, got, do))
        return self.probability()

    def _require_profile(self, verb: str, profile: int) -> None:
        require_whole(f"LongPolicy.{verb}(profile=...)", profile, 0)
        if profile >= len(self.profiles):
            must = f"be in 0..{len(self.profiles) - 1}"
            raise OutsideSupport(describe(f"LongPolicy.{verb}(profile=...)", must, profile))


def money_of(env: RecommendationMDP, theta: np.ndarray) -> Float[np.ndarray, " n"]:
    """Values in money from indices into the support."""
    return np.asarray(env.values.support, float)[np.arange(env.products), theta]


def _asked(bounds: Bounds | None) -> Bounds:
    if bounds is None:
        must, do = "be asked for when solving", "pass marginal=True"
        raise InvalidArgument(describe("solve_long_horizon(marginal=...)", must, False, do))
    return bounds
