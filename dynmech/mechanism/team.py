"""The data-driven dynamic team mechanism: who pays what, when (paper C, Definition 4).

    p_it = - <gamma_i, w> 1{a_t = i} - sum_{j != i} (theta_jt + <gamma_j, w>) 1{a_t = j} + phi_it

p is paid by the advertiser; w is the estimate of omega after o_t. Only <gamma_j, w> of the
product just bought enters, so a noisy rating of it is estimate enough. Where a query costs the user
something, everybody is charged it; where leaving is worth x to her, u_j - x takes the place of u_j.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, cast, overload

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from dynmech import files
from dynmech._checks import (
    choice,
    instance,
    shaped,
)
from dynmech._html import as_html, portrait
from dynmech._types import Numbers
from dynmech.audit import (
    Audit,
    AuditsUnder,
    BestResponse,
)
from dynmech.errors import (
    InvalidArgument,
    describe,
)
from dynmech.logs.log import Log
from dynmech.market.displays import control_of
from dynmech.market.environment import RecommendationMDP
from dynmech.market.settlements import AbstractSettlementSignal
from dynmech.market.values import prior_probability
from dynmech.mechanism import cards
from dynmech.mechanism.auditing import audit_mechanism, respond_best
from dynmech.mechanism.logged import replayed
from dynmech.mechanism.settling import own_conversation, settle_each, settle_many, settle_one
from dynmech.mechanism.under import Scene, over_markets, priced_scene, scene_of
from dynmech.payments.core import core_payment
from dynmech.payments.groves import (
    AbstractGroves,
    OwnTables,
    Participation,
    Spread,
    check_total,
)
from dynmech.payments.ledger import Ledger
from dynmech.payments.settlement import AbstractSettlement
from dynmech.play.records import Simulation
from dynmech.play.simulate import Strategy, simulate
from dynmech.play.stream import simulate_summary
from dynmech.play.summary import SimulationSummary
from dynmech.play.terms import AbstractTerms
from dynmech.policy.base import AbstractPricedPolicy
from dynmech.policy.conversation import Conversation
from dynmech.policy.conversations import Conversations
from dynmech.policy.given import read_policy
from dynmech.policy.outcomes import core_receipts
from dynmech.policy.questions import AbstractPolicy
from dynmech.problem.settled import Settled, settled

_KINDS = {
    "groves": "AbstractGroves, a term of dynmech.groves, as groves.Participation()",
    "estimator": "settlement signal, as RatingSettlement(1.0)",
}


class DynamicTeamMechanism(files.Kept, AbstractTerms):
    """Efficient recommendations with data-driven dynamic team transfers (paper C, Theorem 1).

    With an estimate that is unbiased given the history and omega, truth is periodic ex-post
    optimal after a truthful own past, whatever the Groves term.

    **Arguments**

    - `policy`: any policy: an `EfficientPolicy`, a `GivenPolicy`, an `AbstractPolicy` of your own
      or any object with `env` and `recommend`, which is then priced as a `GivenPolicy`.
    - `groves`: a Groves term, `groves.Participation()` by default. Where numbers are not exact it
      charges a bound, on the side that it names.
    - `estimator`: the settlement signal; the market's own by default. `InversePropensity()` where
      ratings need not come.
    - `reports`: "incremental" (each period's own signal, the paper's) or "cumulative" (the whole
      signal history restated). The same after a truthful own past. After an own lie, incremental
      reporting can make a second lie profitable (it undoes the first); cumulative cannot.
    - `installments`: shares of the Groves total charged in periods 1, 2, ... while the
      conversation lasts; what is left is charged when it ends, so that the total is the same on
      every path (anything else would reward own reports that move the path). Totals that are
      decoded after the ending, as those of `DataDriven`, are charged with it whatever these are.
    """

    policy: AbstractPricedPolicy
    groves: AbstractGroves
    estimator: AbstractSettlementSignal
    reports: str = eqx.field(static=True)
    installments: tuple[float, ...] = eqx.field(static=True)
    own: OwnTables
    groves_total: Float[np.ndarray, "n ..."]
    agent_payoff: Float[np.ndarray, "n ..."]

    def __init__(
        self,
        policy: AbstractPolicy | Any,
        groves: AbstractGroves | None = None,
        estimator: AbstractSettlementSignal | None = None,
        reports: str = "incremental",
        installments: Sequence[float] = (1.0,),
    ):
        groves = Participation() if groves is None else groves
        call = "DynamicTeamMechanism"
        for name, value, kind in (
            ("groves", groves, AbstractGroves),
            ("estimator", estimator, AbstractSettlementSignal | None),
        ):
            instance(kind, f"a {_KINDS[name]}")(f"{call}({name}=...)", value)
        choice("incremental", "cumulative")(f"{call}(reports=...)", reports)
        shares = shaped("T")(f"{call}(installments=...)", installments)
        if (shares < 0).any() or (shares > 1).any() or shares.sum() > 1 + 1e-12:
            must = "be shares in [0, 1] that sum to at most 1"
            raise InvalidArgument(describe(f"{call}(installments=...)", must, installments))
        self.policy = priced = read_policy(f"{call}(policy=...)", policy)
        self.groves, self.reports = groves, reports
        self.installments = tuple(float(x) for x in shares)
        sent = priced.env.signals.settlement
        self.estimator = sent if estimator is None else estimator.sent_by(sent)
        priced.env.check_settlement(f"{call}(estimator=...)", self.estimator)
        self.own = priced.own_tables(self.estimator, groves.side, groves.reads_own)
        own = self.own
        if groves.robust:
            own = over_markets(priced, own, self.estimator, cast(Any, groves).markets)
        if groves.reads_spread():
            own = self.own = dataclasses.replace(own, spread=self._spread())
        self.groves_total = priced.laid_out(check_total(groves, own).T)
        self.agent_payoff = priced.agent_payoff(self.own)

    def __repr__(self) -> str:
        return portrait(self, cards.mechanism)

    def _repr_html_(self) -> str:
        return portrait(self, cards.mechanism, as_html)

    def __hash__(self) -> int:
        return id(self)

    def __eq__(self, other: object) -> bool:
        return self is other

    def payment(
        self,
        theta: Numbers,
        action: Numbers | int,
        estimate: Numbers | float | None = None,
        shown: Any = None,
    ) -> Float[Numbers, " n"]:
        """Core transfer paid by each advertiser for one realised period, Groves term excluded.

            p_i = - q_i 1{a = i} - sum_{j != i} (theta_j + q_j) 1{a = j} + c 1{a = query}

        Traceable. **Arguments:** `theta` (n,), money, as reported; `action`: code (0..n-1 buy,
        n exit, n+1 query); `estimate`: a taste (k,), then q_j = <gamma_j, estimate> - x, or a
        number, the estimated utility q_j of the product bought relative to leaving, money; after a
        query whose cost depends on the taste, the estimated cost c; else None will do unless
        something was bought. `shown`: what was displayed, where costs depend on it.

        **Returns:** shape (n,), money; zero unless something was bought, or a query costs.

        **Raises:** `InvalidArgument` (shape), `OutsideSupport` (action), `NotFinite`.
        """
        env = self.policy.env
        control = None if shown is None else control_of("payment(shown=...)", env, shown)
        return core_payment(env, theta, action, estimate, control)

    def settle(
        self,
        conversation: Conversation | Conversations | Log | Mapping[str, Any] | Sequence[Any],
        estimate: Any = None,
        totals: Any = None,
        costs: Any = None,
    ) -> Ledger:
        """Settle conversations period by period, the Groves total by installments.

        **Arguments**

        - `conversation`: one that has ended, its record, `Conversations`, or a list of the first
          two; the other arguments are then lists too, None or NaN where there is nothing to give.
          Or a `Log` with reports, all of whose conversations have ended: they are played again
          under the policy, whatever was shown, and settled by their ratings, in money by the log's
          `scale`, unless `estimate` (N,) says something else.
        - `estimate`: after a purchase, the settlement signal: estimated utility of the product
          bought (a number, relative to leaving; (N,) for many) or a taste (k,). None (NaN among
          many): no rating came, for mechanisms whose estimator says what that counts, as
          `InversePropensity`.
        - `totals` (n,), or (N, n): with `groves.DataDriven`, those decoded after the ending.
        - `costs` (turns,), or (N, turns): estimates of what each query cost, where `round_cost`
          depends on the taste; what stands at other turns is left alone.

        **Returns:** `Ledger`, complete or not at all.

        **Raises:** `InvalidArgument` if it has not ended, is of another policy, or the estimate or
        the scale of a log's ratings is missing; `OutsideSupport` for a rating outside the declared
        range. A rating that hardly any taste can give is warned of (`DynmechWarning`).
        """
        if isinstance(conversation, Log):
            conversation, rated = replayed(self.policy, conversation)
            estimate = rated if estimate is None else estimate
        if isinstance(conversation, Conversations):
            return settle_many(self, conversation, estimate, totals, costs)
        if isinstance(conversation, list | tuple):
            return settle_each(self, conversation, estimate, totals, costs)
        return settle_one(self, own_conversation(self, conversation), estimate, totals, costs)

    def simulate(
        self,
        key: jax.Array,
        conversations: int,
        strategies: Mapping[int | str, Strategy] | None = None,
        profile: int | None = None,
        under: RecommendationMDP | None = None,
        *,
        mesh: jax.sharding.Mesh | None = None,
    ) -> Simulation:
        """Simulate whole conversations and record every transfer; the key is consumed.

        Users, signals, values and ratings are drawn; profiles from the prior, or evenly from a
        batch. A market whose settlement noise is unknown is settled at the mean, and says so.

        **Arguments:** `conversations`: how many; `strategies`: per advertiser (label or index) a
        function (period from 1, true value indices (N,), true symbols (N,)) -> reported value
        indices and symbols, truth by default; `profile`: the index of one initial profile;
        `under`: another market that is the truth, as in `audit`; `mesh`: devices over which
        batches of 65,536 conversations are spread, the same ones on any (functions of strategies
        are then called from several threads).

        **Returns:** `Simulation`. **Raises:** `OutsideSupport` for reports that do not exist.
        """
        priced_scene(self, "simulate")
        return simulate(self, key, conversations, strategies, profile, under, mesh)

    def simulate_summary(
        self,
        key: jax.Array,
        conversations: int,
        strategies: Mapping[int | str, Strategy] | None = None,
        profile: int | None = None,
        under: RecommendationMDP | None = None,
        *,
        mesh: jax.sharding.Mesh | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
        progress: bool = True,
    ) -> SimulationSummary:
        """Simulate as many conversations as wanted, and keep moments and quantiles alone.

        The conversations are those of `simulate` with the same key, drawn batch by batch: memory
        does not grow with their number. Means and standard deviations are exact up to rounding,
        quantiles within a thousandth.

        **Arguments:** as `simulate`; `checkpoint`: a folder where the state is kept every few
        batches: the same call, or one for more conversations, goes on from there, to the same
        numbers; `progress`: show a bar when it takes more than two seconds.

        **Returns:** `SimulationSummary`. **Raises:** `OutsideSupport` for reports that do not
        exist; `InvalidArgument`, also for a folder of another simulation.
        """
        priced_scene(self, "simulate_summary")
        given = key, conversations, strategies, profile, under, mesh, checkpoint, progress
        return simulate_summary(self, *given)

    @property
    def scene(self) -> Scene:
        """The mechanism in the market of its own policy."""
        return scene_of(self)

    def settlement_means(self) -> Settled:
        """Conditional means and variances of the estimate in every situation, money."""
        return priced_scene(self, "settlement_means").settlement_means()

    @overload
    def audit(
        self,
        settlement: AbstractSettlement | None = None,
        histories: str = "on-path",
        under: RecommendationMDP | None = None,
        interval: bool | None = None,
        *,
        key: jax.Array | None = None,
        conversations: int = 1024,
        nodes: int = 0,
        confidence: float = 0.95,
        tolerance: float | None = None,
        mesh: jax.sharding.Mesh | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Audit: ...

    @overload
    def audit(
        self,
        settlement: AbstractSettlement | None = None,
        histories: str = "on-path",
        *,
        under: Sequence[RecommendationMDP],
        interval: bool | None = None,
        key: jax.Array | None = None,
        conversations: int = 1024,
        nodes: int = 0,
        confidence: float = 0.95,
        tolerance: float | None = None,
        mesh: jax.sharding.Mesh | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> AuditsUnder: ...

    def audit(
        self,
        settlement: AbstractSettlement | None = None,
        histories: str = "on-path",
        under: RecommendationMDP | Sequence[RecommendationMDP] | None = None,
        interval: bool | None = None,
        *,
        key: jax.Array | None = None,
        conversations: int = 1024,
        nodes: int = 0,
        confidence: float = 0.95,
        tolerance: float | None = None,
        mesh: jax.sharding.Mesh | None = None,
        checkpoint: str | os.PathLike[str] | None = None,
    ) -> Audit | AuditsUnder:
        """Check incentives, participation, no subsidy and budget, exactly on the grid.

        Where the policy is simulated, by certified bounds and by simulation: misreports at the
        outset only, `conversations` for each; with `nodes`, the bound on gains is also certified at
        that many nodes inside simulated conversations; `confidence`: in (0, 1), of everything that
        a verdict or a maximum joins, at once; `tolerance`: money, what counts as no gain; `key`: of
        the conversations, a fixed one by default.

        **Arguments:** `settlement`: how purchases are settled, `settlement.Estimator()` by
        default; `histories`: "on-path", nodes with a truthful own past that the policy reaches,
        or "all", also those that an advertiser's own past lies lead to; `interval`: report any
        value of the interval of `ConstantValues` (exactly: gains are piecewise constant in the
        report), not only those of the support; where one is declared, by default. Of policies
        that are not exact the support is tried, and by simulation the interval's ends: measured
        gains are bounds from below there, the certified bound holds for the whole interval.

        With `under`, another market is the truth: the policy's own belief drives it, and gains,
        bounds, participation and budget are those of that market, whatever the totals were
        computed for. It has the products, horizon, support of values and alphabets of the policy's
        own; ratings and first readings are cut where the policy's market cuts them. Purchases are
        settled with its settlement signal, or with an estimator that the mechanism was given. Where
        the tree of both does not fit, it is simulated, truth and belief side by side, at the outset
        for values of the support and the ends of a declared interval: W_M - V_M(policy) and windows
        are certified with `conversations` draws, and the former at `nodes` inside.

        `mesh`: devices over which the work is spread: markets where there are as many, else true
        roots, for histories with own lies and on an interval advertisers, and reports where play
        is simulated. `checkpoint`: a folder where finished parts are kept; the same call resumes.

        **Returns:** `Audit`; `AuditsUnder` for a sequence of markets. **Raises:**
        `TooLarge` when the interval's pieces are too large, or, where the tree of both markets is
        and values move, what the true market's rule remembers; `InvalidArgument`.
        """
        return audit_mechanism(
            self, settlement, histories, under, interval,
            key, conversations, nodes, confidence, tolerance, mesh, checkpoint,
        )  # fmt: skip

    def best_response(
        self,
        settlement: AbstractSettlement | None = None,
        profiles: Numbers | None = None,
        interval: bool | None = None,
        under: RecommendationMDP | None = None,
    ) -> BestResponse:
        """Find the most that any misreporting strategy gains at the outset, exactly on the grid.

        A dynamic program on the advertiser's side: the true belief and what the mechanism holds
        evolve separately, so nothing hides behind the one-shot argument. She knows the others'
        reports, and what is shown where that is drawn, before she reports again. Groves terms do
        not matter: they do not depend on own reports.

        **Arguments:** `settlement`, `interval`, `under` (one market) as in `audit`; `profiles`
        (indices): all solved by default.

        **Returns:** `BestResponse`. **Raises:** `TooLarge` when the strategies are too many.
        """
        return respond_best(self, settlement, profiles, interval, under)

    def _spread(self) -> Spread:
        """Core receipts of every pair of reports by taste, and the chance of its values."""
        policy = self.policy
        law = settled(policy.env, policy.compiled, self.estimator, policy.pairs.signals)
        receipts = core_receipts(policy.plan, policy.env.values.support, policy.pairs, law)
        return Spread(receipts, prior_probability(policy.env.values, policy.pairs.theta))
