"""A policy with the numbers of payments: what everything that uses one reads."""

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Bool, Float, Int

from dynmech import files
from dynmech._beside import Beside
from dynmech._html import as_html, portrait
from dynmech._types import Record
from dynmech.bounded import Bounded
from dynmech.errors import (
    DynmechError,
    ImpossibleProfile,
    OutsideSupport,
    closest,
    describe,
    is_number,
)
from dynmech.errors import shown as told
from dynmech.market.profiles import Profiles
from dynmech.market.values import prior_probability
from dynmech.policy import cards
from dynmech.policy.playable import Playable, beliefs_after
from dynmech.policy.questions import AbstractEvaluator, AbstractPolicy
from dynmech.problem.edges import Compiled
from dynmech.problem.tasks import Pairs
from solvers import Status
from solvers.files import fingerprint as hash_arrays
from solvers.tree.estimate import Estimate
from solvers.tree.plan import Plan

_ROOTS, _WEIGHTS = Beside(), Beside()
_PRINTS = Beside()
BOUNDED = (
    "value", "marginal_value", "displayable_marginal_value", "advertiser_value", "user_utility",
    "purchase", "round_costs",
)  # fmt: skip
_ENDS = (
    "value",
    "marginal_value",
    "displayable_marginal_value",
    "marginal",
    "displayable_marginal",
)
_AVERAGES = {"ex_ante_value": "value", "ex_ante_marginal_value": "marginal_value"}
_NAMES = (
    *BOUNDED, "lower", "upper", "incentive_bound", *_AVERAGES,
    *(f"{name}_{side}" for name in _ENDS for side in ("lower", "upper")),
)  # fmt: skip


class Figures(Record):
    """The numbers of a policy at its profiles, money; shapes as in `EfficientPolicy`.

    `value`: V_1. `lower`, `upper`: of W_1. `marginal`, `displayable`: W^{-i} and Wd^{-i}. By
    product under truth: `earned`, `utility`, `purchase`; `costs` P: of queries, in all.
    """

    value: Bounded
    lower: Float[np.ndarray, "..."]
    upper: Float[np.ndarray, "..."]
    marginal: Bounded
    displayable: Bounded
    earned: Bounded
    utility: Bounded
    purchase: Bounded
    costs: Bounded


class AbstractPriced(AbstractPolicy):
    """A policy with what payments and audits need.

    P = (K,)*n + (Zp, Z1, ..., Zn) when every initial profile was solved, or (B,) for a batch, and
    over all profiles of positive probability where P would have over 60 axes or 2e6 entries.
    Everything is conditional on the profile, in money; NaN where the profile's signals have
    probability zero. See `EfficientPolicy`.
    """

    evaluator: eqx.AbstractVar[AbstractEvaluator]
    figures: eqx.AbstractVar[Figures]
    profiles: eqx.AbstractVar[Profiles]
    batch: eqx.AbstractVar[bool]
    exact: eqx.AbstractVar[bool]
    confidence: eqx.AbstractVar[float]
    solver: eqx.AbstractVar[str]
    work: eqx.AbstractVar[Estimate]
    seconds: eqx.AbstractVar[float]
    status: eqx.AbstractVar[Status]

    def __repr__(self) -> str:
        return portrait(self, cards.policy)

    def _repr_html_(self) -> str:
        return portrait(self, cards.policy, as_html)

    @property
    def value(self) -> Float[np.ndarray, "..."]:
        """V_1, what this policy attains under truth, P, money.

        Of an endless market it is for ever, where what is shown in the last round written out is
        shown again for as long as she asks. Where none is recommended after it, as queries cost
        something, values move, or under `Stationary()`, it is that of the rounds written out. The
        plan that proves `lower` goes on otherwise, so that V_1 can be less than it.
        """
        return self.figures.value.value

    @property
    def value_lower(self) -> Float[np.ndarray, "..."]:
        """Bound on V_1 from below, P; costs that may run on after the rounds written out count."""
        return self.figures.value.lower

    @property
    def value_upper(self) -> Float[np.ndarray, "..."]:
        """Bound on V_1 from above, P."""
        return self.figures.value.upper

    @property
    def lower(self) -> Float[np.ndarray, "..."]:
        """Bound on W_1, the best that any policy attains, from below, P."""
        return self.figures.lower

    @property
    def upper(self) -> Float[np.ndarray, "..."]:
        """Bound on W_1 from above, P."""
        return self.figures.upper

    @property
    def incentive_bound(self) -> Float[np.ndarray, "..."]:
        """Most that lying can gain in expectation, planned at the outset, P, money.

        upper - value_lower, with `confidence`, if the estimate that settles is unbiased and Groves
        totals do not depend on own reports. Inside: `Conversation.certify`.
        """
        return np.maximum(self.upper - self.value_lower, 0.0)

    @property
    def marginal_value(self) -> Float[np.ndarray, "n ..."]:
        """W^{-i}: what the plan of the economy without i attains, (n, *P), money."""
        return self.figures.marginal.value

    @property
    def marginal_lower(self) -> Float[np.ndarray, "n ..."]:
        """Bounds on W^{-i} from below, (n, *P)."""
        return self.figures.marginal.lower

    @property
    def marginal_upper(self) -> Float[np.ndarray, "n ..."]:
        """Bounds on W^{-i} from above, (n, *P)."""
        return self.figures.marginal.upper

    @property
    def displayable_marginal_value(self) -> Float[np.ndarray, "n ..."]:
        """Wd^{-i}: as `marginal_value` where i may be shown and does not count, (n, *P)."""
        return self.figures.displayable.value

    @property
    def displayable_marginal_lower(self) -> Float[np.ndarray, "n ..."]:
        """Bounds on Wd^{-i} from below, (n, *P)."""
        return self.figures.displayable.lower

    @property
    def displayable_marginal_upper(self) -> Float[np.ndarray, "n ..."]:
        """Bounds on Wd^{-i} from above, (n, *P)."""
        return self.figures.displayable.upper

    @property
    def marginal_value_lower(self) -> Float[np.ndarray, "n ..."]:
        """`marginal_lower`."""
        return self.marginal_lower

    @property
    def marginal_value_upper(self) -> Float[np.ndarray, "n ..."]:
        """`marginal_upper`."""
        return self.marginal_upper

    @property
    def displayable_marginal_value_lower(self) -> Float[np.ndarray, "n ..."]:
        """`displayable_marginal_lower`."""
        return self.displayable_marginal_lower

    @property
    def displayable_marginal_value_upper(self) -> Float[np.ndarray, "n ..."]:
        """`displayable_marginal_upper`."""
        return self.displayable_marginal_upper

    @property
    def advertiser_value(self) -> Float[np.ndarray, "n ..."]:
        """Expected theta earned by each product under truth, (n, *P), money."""
        return self.figures.earned.value

    @property
    def user_utility(self) -> Float[np.ndarray, "n ..."]:
        """Expected user utility from each product under truth, relative to leaving, (n, *P)."""
        return self.figures.utility.value

    @property
    def round_costs(self) -> Float[np.ndarray, "..."]:
        """Expected costs of queries under truth, P, money.

        `value` is the sum of `advertiser_value` and `user_utility` over products, less these.
        """
        return self.figures.costs.value

    @property
    def purchase(self) -> Float[np.ndarray, "n ..."]:
        """Probability that each product is bought under truth, (n, *P)."""
        return self.figures.purchase.value

    def bounded(self, name: str) -> Bounded:
        """A table with its bounds, standard errors and confidence.

        **Arguments:** `name`: of any table of the policy. Of one that is itself a bound, as
        "upper", "value_lower" or "incentive_bound", `value` is that bound, and `lower` and `upper`
        hold what it bounds: W, V, or W - V. Means over profiles, as "ex_ante_value", hold with the
        policy's confidence, all profiles at once; their `error` is at most what is given.

        **Raises:** `OutsideSupport` for another name; `DynmechError` as the table itself.
        """
        figures = self.figures
        tables = (
            figures.value, figures.marginal, figures.displayable, figures.earned, figures.utility,
            figures.purchase, figures.costs,
        )  # fmt: skip
        if name in BOUNDED:
            return tables[BOUNDED.index(name)]
        if name not in _NAMES:
            must = f"be one of {', '.join(_NAMES)}"
            do, call = closest(str(name), _NAMES), "EfficientPolicy.bounded(name=...)"
            raise OutsideSupport(describe(call, must, told(name), do))
        if name in _AVERAGES:
            return self._average(_AVERAGES[name], name)
        low, high = np.fmin(self.lower, self.upper), self.upper  # rounding may cross them
        if name in ("lower", "upper"):
            return Bounded(low if name == "lower" else high, low, high, confidence=self.confidence)
        if name == "incentive_bound":
            most, least = self.incentive_bound, np.maximum(low - self.value_upper, 0.0)
            return Bounded(most, least, most, confidence=self.confidence)
        stem, side = name.rsplit("_", 1)
        table = self.bounded(stem if stem in BOUNDED else f"{stem}_value")
        ends = table.lower, table.upper
        return Bounded(ends[side == "upper"], *ends, confidence=table.confidence)

    def _average(self, table: str, verb: str) -> Bounded:
        """The mean of a table over all profiles, by their probability."""
        weights, one = self._weights(verb).ravel(), self.bounded(table)
        known, ends = np.flatnonzero(weights > 0), (one.lower, one.upper)
        at_once = self.evaluator.at_once(table)
        if at_once is not None:
            ends = self.laid_out(at_once.lower), self.laid_out(at_once.upper)
        lead = one.value.shape[: one.value.ndim - self.value.ndim]
        value, low, high, error = (
            part.reshape(*lead, -1)[..., known] @ weights[known]
            for part in (one.value, *ends, one.error)
        )
        return Bounded(value, low, high, error, one.confidence)

    @property
    def partial(self) -> bool:
        """Whether some recommendations or rounds were left out of its tree, or there is none."""
        return self.evaluator.whole is None

    @property
    def plan(self) -> Plan:
        """What is done at every node of the tree; refused where none was walked."""
        return self.evaluator.plan

    @property
    def compiled(self) -> Compiled:
        """The market as the tree has it; refused where none was walked."""
        return self.evaluator.compiled

    @property
    def pairs(self) -> Pairs:
        """Profiles with every advertiser's own alternatives."""
        return self.evaluator.pairs

    @property
    def optimal(self) -> Plan | None:
        """The plan that attains W where `plan` need not (see `with_actions`), else None."""
        return self.evaluator.optimal

    @property
    def gap(self) -> tuple[Float[np.ndarray, "P _N"], ...] | None:
        """Per round (pairs, nodes), certified loss at each node, money; None when exact."""
        return self.evaluator.gap

    @property
    def actions(self) -> tuple[Int[np.ndarray, "P _N"], ...]:
        """Recommendations per round, (pairs, nodes), n for none: what `with_actions` takes."""
        return self.plan.actions

    @property
    def player(self) -> Playable:
        """The policy's network, if it has one, ready to be played in its market."""
        return self.evaluator.player

    @property
    def mass(self) -> Float[np.ndarray, " B"]:
        """Probability of each profile's signals, shape (B,)."""
        return self.roots.sum(axis=1)

    @property
    def possible(self) -> Bool[np.ndarray, " B"]:
        """Which profiles have signals of positive probability: 1e-290 or more."""
        return self.mass > 0

    @property
    def roots(self) -> Float[np.ndarray, "B m"]:
        """Unnormalised belief at the outset of each profile."""
        return _ROOTS(self, lambda: beliefs_after(self.env, self.profiles.signals))

    @property
    def complete(self) -> bool:
        """Whether every initial profile that can occur is in `profiles`, once."""
        if not self.batch:
            return True
        rows = np.concatenate([self.profiles.theta, self.profiles.signals], axis=1)
        once = len(np.unique(rows, axis=0)) == len(rows)
        return once and bool(abs(self.probability().sum() - 1) < 1e-9)

    @property
    def ex_ante_value(self) -> float:
        """E[V_1] over all initial profiles, money."""
        return float(self.bounded("ex_ante_value").value)

    @property
    def ex_ante_marginal_value(self) -> Float[np.ndarray, " n"]:
        """E[W_1^{-i}] over all initial profiles, shape (n,), money."""
        return self.bounded("ex_ante_marginal_value").value

    def probability(self) -> Float[np.ndarray, "..."]:
        """Prior probability of each profile, shape P."""
        theta = prior_probability(self.env.values, self.profiles.theta)
        return (theta * self.mass).reshape(self.value.shape)

    @property
    def played(self) -> Int[np.ndarray, " b"]:
        """Which of `profiles` the evaluator holds: all, or all that can occur."""
        if len(self.evaluator.profiles) == len(self.profiles):
            return np.arange(len(self.profiles))
        return np.flatnonzero(self.possible)

    def laid_out(self, numbers: Float[np.ndarray, "*lead b"]) -> Float[np.ndarray, "..."]:
        """Numbers of the evaluator's profiles along the axes P; NaN where there are none."""
        *lead, _ = numbers.shape
        found = np.full((*lead, len(self.profiles)), np.nan)
        found[..., self.played] = numbers
        return found.reshape(*lead, *self.value.shape)

    @property
    def weights(self) -> Float[np.ndarray, " B"]:
        """Of profiles in means: their probability where all are there, else all the same."""

        def found() -> np.ndarray:
            return self.probability().ravel() if self.complete else np.ones(len(self.profiles))

        return _WEIGHTS(self, found)

    def _weights(self, verb: str) -> np.ndarray:
        if self.complete:
            return self.probability()
        must, got = "have every initial profile", f"a batch of {len(self.profiles)}"
        do = "solve without `initial`, or call policy.estimate_ex_ante(key, count), which says how "
        do += "sure it is"
        raise DynmechError(describe(f"EfficientPolicy.{verb}", must, got, do))

    @property
    def fingerprint(self) -> str:
        """Digest of the market and of what the policy attains in it, the same in any process."""

        def make() -> str:
            figures = [np.asarray(x, float) for x in jax.tree.leaves(self.figures)]
            arrays = [self.profiles.theta, self.profiles.signals, *figures]
            return files.fingerprint(self.env) + hash_arrays([np.asarray(x) for x in arrays])

        return _PRINTS(self, make)

    def profile_at(self, verb: str, profile: int) -> tuple[np.ndarray, np.ndarray]:
        """Value indices and symbols of a solved profile that can occur.

        **Raises:** `InvalidArgument`, `OutsideSupport`, `ImpossibleProfile`.
        """
        profile = profile_index(self, f"EfficientPolicy.{verb}", profile)
        if not self.possible[profile]:
            must, got = "have signals of positive probability", f"profile {profile}"
            call = f"EfficientPolicy.{verb}(profile=...)"
            raise ImpossibleProfile(describe(call, must, got))
        return self.profiles.theta[profile], self.profiles.signals[profile]


def profile_index(policy: AbstractPriced, verb: str, profile: int) -> int:
    """The index of a solved profile; `OutsideSupport` for any other."""
    count = len(policy.profiles)
    if not is_number(profile, "iu") or not 0 <= int(profile) < count:
        must = f"be an index in 0..{count - 1}"
        raise OutsideSupport(describe(f"{verb}(profile=...)", must, told(profile)))
    return int(profile)
