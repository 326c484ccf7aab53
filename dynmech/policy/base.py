"""Everything that a priced policy can be asked, whichever solver or function it came from."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any, Self

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float, Int

from dynmech import files
from dynmech._checks import indices, shaped, whole, within
from dynmech._types import Numbers
from dynmech.bounded import Bounded
from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles
from dynmech.market.settlements import AbstractSettlementSignal
from dynmech.payments.groves import OwnTables
from dynmech.policy.baselines import SIMPLER, PolicyComparison, compare_policies
from dynmech.policy.conversation import Conversation, start_conversation
from dynmech.policy.conversations import Conversations, start_many
from dynmech.policy.ex_ante import estimate_ex_ante
from dynmech.policy.explain import Explanation, explain
from dynmech.policy.given_actions import other_actions
from dynmech.policy.invariants import check_figures, check_tables
from dynmech.policy.labelled import policy_dataset, policy_frame
from dynmech.policy.priced import AbstractPriced, Figures
from dynmech.policy.questions import AbstractCursor, AbstractEvaluator
from dynmech.policy.relaxation import Relaxation, relax
from dynmech.policy.resumed import resume_conversation
from dynmech.policy.revalue import Revaluation, revalue
from solvers import Status
from solvers.tree.estimate import Estimate


class AbstractPricedPolicy(AbstractPriced):
    """A policy with what payments and audits need, and everything that it can be asked."""

    def __check_init__(self):
        check_tables(self)

    def check_kept(self) -> None:
        """Raise `ValueError` for figures that no solver gives; see `solvers.kept`."""
        check_figures(self)

    def recommend(
        self,
        belief: Float[np.ndarray, " m"],
        memory: Int[np.ndarray, " d"],
        theta: Float[np.ndarray, " n"],
        period: int,
    ) -> int:
        call, env = "recommend({}=...)".format, self.env
        size = len(env.unaware)
        return self.evaluator.recommend(
            np.asarray(
                within(least=0)(call("belief"), shaped(env.tastes.size)(call("belief"), belief))
            ),
            indices(size)(call("memory"), memory),
            np.asarray(shaped(env.products)(call("theta"), theta)),
            whole(1, env.horizon)(call("period"), period),
        )

    def start(
        self, theta: Any = None, signals: Any = None, *, profile: int | None = None
    ) -> Conversation:
        """Start a conversation from an initial profile.

        **Arguments:** `theta`, `signals`: integers are indices into supports (n,) and alphabets
        (1+n,); floats (n,), for theta, are money; or mappings from labels ("platform" for the
        platform's signal) to indices or, for theta, money; or `profile`: the index of a solved one.

        **Returns:** a `Conversation` with `.recommendation`, `.belief`, `.value`, `.step`.

        **Raises:** `OutsideSupport`, `ImpossibleProfile`, `InvalidArgument`.
        """
        return start_conversation(self, theta, signals, profile)

    def start_many(
        self,
        profiles: Any = None,
        mesh: jax.sharding.Mesh | None = None,
        *,
        theta: Any = None,
        signals: Any = None,
    ) -> Conversations:
        """Start N conversations, to be stepped together.

        **Arguments:** `profiles` (N,): indices of solved profiles, repetitions allowed; or `theta`,
        `signals`: N rows of what `start` takes, as an array (N, n) of indices or of money and one
        of symbols (N, 1+n), a table or a mapping of columns by their names, or a list of rows.
        What no plan holds, as bids off the support, is solved once for all rows that say the same;
        `mesh`: a `jax.sharding.Mesh` of one axis, of at most N devices, each of which follows a run
        of the conversations; the answers are those of one device.

        **Returns:** `Conversations` with `.recommendation` (N,), `.ended` and `.step`.

        **Raises:** `InvalidArgument`, `OutsideSupport`, `ImpossibleProfile`.
        """
        return start_many(self, profiles, mesh, theta, signals)

    def resume(self, record: Any) -> Conversation:
        """Go on with a conversation from its `record()`, in any process.

        **Raises:** `InvalidArgument` for a record of another policy, or for what is no record.
        """
        return resume_conversation(self, record)

    def explain(self, conversation: Conversation, unit: str = "money") -> Explanation:
        """Say why a conversation's next recommendation is made.

        The tastes whose weights moved most, what is recommended and the runner-up with their
        difference, and what listening is worth: W_t less the value of the best plan from here on
        that goes by the actions alone, whatever she says.

        **Arguments:** `conversation`: of this policy, in progress; `unit`: of money, for its text.

        **Returns:** an `Explanation`, which prints itself.

        **Raises:** `InvalidArgument` once it has ended; `DynmechError` where it is simulated.
        """
        return explain(self, conversation, unit)

    def own_tables(
        self,
        signal: AbstractSettlementSignal,
        side: str | None,
        needed: bool = True,
        confidence: float | None = None,
    ) -> OwnTables:
        """What Groves terms reduce, along each advertiser's own alternatives.

        **Arguments:** `signal`: what purchases are settled with; `side`: the bound charged;
        `needed`: whether the term reads the tables; `confidence`: of simulated bounds, the
        policy's own by default.
        """
        own = self.evaluator.own_tables(signal, side, needed, confidence)
        if not needed:
            return own
        here = own.at_own_signal(own.marginal)
        own = dataclasses.replace(own, batch_mean=np.nanmean(here, axis=0))
        if not self.complete:
            return own
        weight = self.probability().ravel()[self.played]
        return dataclasses.replace(own, ex_ante=np.nansum(weight[:, None] * here, axis=0))

    def cursor(self, signal: AbstractSettlementSignal) -> AbstractCursor:
        """Follow many conversations, settled by `signal`."""
        return self.evaluator.cursor(signal)

    def agent_payoff(self, own: OwnTables) -> Float[np.ndarray, "n ..."]:
        """Expected payoff of each advertiser under truth without Groves term, (n, *P), money."""
        if not self.evaluator.walked:
            return np.broadcast_to(self.value, (self.env.products, *self.value.shape)).copy()
        theta, signals = self.profiles.theta, self.profiles.signals[:, 1:]
        batch, n = theta.shape
        mine = own.payoff[np.arange(batch)[:, None], np.arange(n), theta, signals]
        return mine.T.reshape(n, *self.value.shape)

    def flat(self, numbers: Float[np.ndarray, "n ..."]) -> Float[np.ndarray, "n b"]:
        """`laid_out` undone: numbers of the evaluator's profiles from a table (n, *P)."""
        return numbers.reshape(len(numbers), -1)[:, self.played]

    def revalue(
        self,
        theta_support: Numbers | None = None,
        gamma: Numbers | None = None,
        prior: Numbers | None = None,
        marginals: bool = False,
        *,
        mesh: jax.sharding.Mesh | None = None,
    ) -> Revaluation:
        """Solve the same market with other numbers; a pure function for grad, jit and vmap.

        The policy is optimised afresh. With `gamma`, behaviour and feedback are recomputed (cut
        points stay), on a tree that merges nothing that other numbers could tell apart. Tables
        given to `from_tables` do not depend on gamma; only utilities do. The gradient of W in
        theta_i is the expected number of purchases of i under the plan. A policy whose solver
        did not follow every recommendation is solved on the tree of its market.

        **Arguments:** `theta_support` (..., n, K), money: axes before the last two are supports
        solved together, faster than by vmap; `gamma` (n, k); `prior` (m,), weights of the tastes;
        `marginals`: also W^{-i} and Wd^{-i}; `mesh`: devices over which supports are spread.

        **Returns:** a `Revaluation`: `.value` of shape (..., *P) and the marginals (n, ..., *P);
        it stands for `.value` in JAX functions.
        """
        return revalue(self, theta_support, gamma, prior, marginals, mesh)

    def estimate_ex_ante(self, key: jax.Array, count: int = 256, common: bool = False) -> Bounded:
        """Estimate E[V_1], `ex_ante_value`, from profiles drawn from the prior.

        Profiles that were not solved are solved by themselves, so that a batch will do.

        **Arguments:** `key`: consumed; `count`: how many profiles, at least 2; `common`: draw the
        same random numbers in every market that is given this key, so that differences between
        markets are found with less error; else each market has its own.

        **Returns:** `Bounded`: the mean, its standard error, and bounds that hold at 95% (betting).

        **Raises:** `InvalidArgument` for recommendations given as a table, at other profiles.
        """
        return estimate_ex_ante(self, key, count, common)

    def to_frame(self):
        """Labelled pandas table: one row a profile and product, money, with bounds and errors."""
        return policy_frame(self)

    def to_xarray(self):
        """Labelled xarray Dataset: every table with its bounds and errors over the axes P.

        Dimensions: "product" and, where all profiles were solved, "theta NAME" (coordinates in
        money), "signal platform" and "signal NAME" (symbols); else "profile", with the profiles'
        values and signals as coordinates. Money but for `purchase`. `W`, `W_lower`, `W_upper` are
        V_1 of the plan and bounds on the optimum; attributes: `solver`, `exact`, `confidence`.

        **Raises:** `MissingExtra` without the package `xarray`.
        """
        return policy_dataset(self)

    def with_actions(self, actions: Sequence[Int[np.ndarray, "P _N"]]) -> "AbstractPricedPolicy":
        """Use other recommendations on the same tree: a policy that need not be efficient.

        `value` and everything under truth become those of the recommendations in use, `upper`
        stays W; marginal economies stay. Audits then bound what reports can gain.

        **Arguments:** `actions`: per round, shape (pairs, nodes), 0..n (n for none), as
        `policy.actions`.

        **Raises:** `InvalidArgument` (shape), `OutsideSupport`.
        """
        return with_actions(self, actions)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the policy to one sealed file, in one step; see `dynmech.files`."""
        files.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], parts: tuple[type, ...] = ()) -> Self:
        """Read a policy written by `save`; `parts` lists your own classes that it holds, if any.

        **Raises:** `InvalidArgument` for a file that is changed, torn, or of another format.
        """
        return files.load(path, cls, parts)

    def baseline(
        self, name: str, conversations: int = 1024, profile: int = 0, seed: int = 2
    ) -> tuple[float, float]:
        """Value of a simpler policy by simulation, and its standard error, money.

        **Arguments:** `name`: "this policy", "myopic", "posterior sampling", "knowledge
        gradient", or "greedy for told-omega".
        """
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
        of them, is charged V(next belief) - E[V(next belief)] with the network's V (none: 0), a
        mean of zero for whoever is told nothing (Brown, Smith and Sun, 2010). The bound holds
        whatever V is. `upper` needs no sampling and is the better one where `rounds` can be
        enumerated; this one costs A^rounds rather than (A Z)^rounds.

        **Arguments:** `conversations`: draws, at least 30; `rounds`: at least 1; `beam`: branches
        kept in each round, what is cut being counted at a bound.

        **Raises:** `InvalidArgument`, `OutsideSupport`.
        """
        return relax(self, conversations, rounds, beam, profile, seed)


class EfficientPolicy(AbstractPricedPolicy):
    """The efficient policy of a market, from whichever solver, with the values of payments.

    P = (K,)*n + (Zp, Z1, ..., Zn) when every initial profile was solved, or (B,) for a batch.
    Everything is conditional on the profile, in money; NaN where the profile's signals have
    probability zero. `value` and what is under truth are what the policy itself attains, which can
    be executed at every belief; `lower` <= W_1 <= `upper`. With an infinite horizon `env` is the
    market of the T rounds that `solver` names, and all bounds hold for the market without an end.
    What is shown in the last of them is shown again for as long as the user asks, if its rule says
    so (`env.action_rule.lasts()`); `value` and what is under truth are then for ever, and the last
    round is all that follow: a simulated one ends with how she left or what she bought in the end.
    Else none is recommended after them, and `value` and what is under truth count these rounds.

    - `exact`: whether only rounding separates the bounds. `confidence`: of each simulated bound by
      itself, 1 where all are certain.
    - `evaluator`: what answers for the policy. `figures`: its tables.
    - `solver`: words. `work`, `seconds`: what it took. `status`: why the solver ended.
    """

    evaluator: AbstractEvaluator
    figures: Figures
    profiles: Profiles
    batch: bool = eqx.field(static=True)
    exact: bool = eqx.field(static=True)
    confidence: float = eqx.field(static=True)
    solver: str = eqx.field(static=True)
    work: Estimate
    seconds: float = eqx.field(static=True)
    status: Status = eqx.field(static=True)

    @property
    def env(self) -> RecommendationMDP:
        """The market."""
        return self.evaluator.env


def with_actions(
    policy: AbstractPriced,
    actions: Sequence[np.ndarray],
    solver: str = "given actions",
    laws: Float[np.ndarray, "L A"] | None = None,
) -> EfficientPolicy:
    """See `EfficientPolicy.with_actions`.

    **Arguments:** `solver`: what the policy is called; `laws`: see `other_actions`.
    """
    evaluator, figures = other_actions(policy, actions, laws)
    return EfficientPolicy(
        evaluator=evaluator,
        figures=figures,
        profiles=policy.profiles,
        batch=policy.batch,
        exact=False,
        confidence=1.0,
        solver=solver,
        work=policy.work,
        seconds=policy.seconds,
        status=Status.STALLED,
    )
