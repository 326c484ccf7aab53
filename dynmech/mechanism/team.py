"""The data-driven dynamic team mechanism: who pays what, when (paper C, Definition 4).

    p_it = - <gamma_i, w> 1{a_t = i} - sum_{j != i} (theta_jt + <gamma_j, w>) 1{a_t = j} + phi_it

p is paid by the advertiser; w is the estimate of omega after o_t. Only <gamma_j, w> of the
product just bought enters, so a noisy rating of it is estimate enough. Where a query costs the user
something, everybody is charged it; where leaving is worth x to her, u_j - x takes the place of u_j.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any, Self, cast, overload

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from dynmech import files
from dynmech._checks import (
    as_floats,
    choice,
    flag,
    indices,
    instance,
    number,
    optional,
    shaped,
    whole,
)
from dynmech._html import as_html, portrait
from dynmech._types import Numbers
from dynmech.audit import (
    Audit,
    AuditsUnder,
    BestResponse,
    best_responses,
    run_audit,
    run_long_audit,
    wants_interval,
)
from dynmech.errors import (
    InvalidArgument,
    OutsideSupport,
    describe,
)
from dynmech.market.beside import read_markets
from dynmech.market.displays import control_of, places
from dynmech.market.environment import RecommendationMDP
from dynmech.market.signals import AbstractSettlementSignal
from dynmech.market.values import prior_probability
from dynmech.mechanism import cards
from dynmech.mechanism.rated import estimated, estimated_many
from dynmech.mechanism.under import Scene, over_markets, stand_in
from dynmech.payments.core import core_payment, query_cost
from dynmech.payments.groves import (
    AbstractGroves,
    OwnTables,
    Participation,
    Spread,
    check_total,
)
from dynmech.payments.ledger import Ledger
from dynmech.payments.settlement import AbstractSettlement, Estimator
from dynmech.play.simulate import Simulation, Strategy, simulate
from dynmech.play.terms import AbstractTerms
from dynmech.policy.base import AbstractPricedPolicy
from dynmech.policy.conversation import Conversation
from dynmech.policy.conversations import Conversations
from dynmech.policy.given import read_policy
from dynmech.policy.outcomes import core_receipts
from dynmech.policy.questions import AbstractPolicy
from dynmech.problem.settled import Settled, settled

_KINDS = {"groves": "AbstractGroves", "estimator": "settlement signal"}


class DynamicTeamMechanism(AbstractTerms):
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
      every path (anything else would reward own reports that move the path).
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

    def __eq__(self, other) -> bool:
        return self is other

    def save(self, path: str | os.PathLike) -> None:
        """Write mechanism and policy to one sealed file, in one step; see `dynmech.files`."""
        files.save(self, path)

    @classmethod
    def load(cls, path: str | os.PathLike, parts: tuple[type, ...] = ()) -> Self:
        """Read what `save` wrote; `parts` lists your own classes that it holds, if any.

        **Raises:** `InvalidArgument` for a file that is changed, torn, or of another format.
        """
        return files.load(path, cls, parts)

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
        conversation: Conversation | Conversations | Mapping[str, Any],
        estimate: Numbers | float | None = None,
        totals: Numbers | None = None,
        costs: Any = None,
    ) -> Ledger:
        """Settle conversations period by period, the Groves total by installments.

        **Arguments**

        - `conversation`: one that has ended, its record, or `Conversations`.
        - `estimate`: after a purchase, the settlement signal: estimated utility of the product
          bought (a number, relative to leaving; (N,) for many) or a taste (k,). None (NaN among
          many): no rating came, for mechanisms whose estimator says what that counts, as
          `InversePropensity`.
        - `totals` (n,), or (N, n): with `groves.DataDriven`, those decoded after the ending.
        - `costs` (turns,), or (N, turns): estimates of what each query cost, where `round_cost`
          depends on the taste; what stands at other turns is left alone.

        **Returns:** `Ledger`, complete or not at all.

        **Raises:** `InvalidArgument` if it has not ended, is of another policy, or the estimate is
        missing; `OutsideSupport` for a rating outside the declared range. A rating that hardly
        any taste can give is warned of (`DynmechWarning`).
        """
        if isinstance(conversation, Conversations):
            return self._settle_many(conversation, estimate, totals, costs)
        conversation = self._own_conversation(conversation)
        if not conversation.ended:
            must, do = "be a conversation that has ended", "step it to a purchase or exit"
            raise InvalidArgument(describe("settle(conversation=...)", must, "in progress", do))
        n = self.policy.env.products
        turns = conversation.turns
        bought = turns[-1].action < n
        env, action = self.policy.env, np.array([turn.action for turn in turns])
        shown, recommended = (
            np.array([control_of("settle(conversation=...)", env, x) for x in given])
            for given in zip(*((turn.shown, turn.recommendation) for turn in turns), strict=True)
        )
        spent = self._spent(shown[None], action[None], costs)[0]
        core = np.repeat(spent[:, None], n, axis=1)
        rated = np.full(len(turns), np.nan)
        if bought:
            product = turns[-1].action
            rated[-1] = estimated(self.policy.env, self.estimator, conversation, estimate)
            core[-1] = np.asarray(self.payment(turns[-1].theta, product, rated[-1]))
        shares = np.zeros(len(turns))
        shares[: len(self.installments)] = self.installments[: len(turns)]
        shares[-1] += 1 - shares.sum()
        groves = shares[:, None] * self._totals_at(conversation, totals)
        return Ledger(
            names=self.policy.env.names,
            period=np.array([turn.period for turn in turns]),
            recommendation=places(env, recommended),
            shown=places(env, shown),
            off_model=conversation.off_model,
            action=action,
            estimate=rated,
            cost=spent,
            core=core,
            groves=groves,
        )

    def simulate(
        self,
        key: jax.Array,
        conversations: int,
        strategies: Mapping[int | str, Strategy] | None = None,
        profile: int | None = None,
        under: RecommendationMDP | None = None,
    ) -> Simulation:
        """Simulate whole conversations and record every transfer; the key is consumed.

        Users, signals, values and ratings are drawn; profiles from the prior, or evenly from a
        batch. A market whose settlement noise is unknown is settled at the mean, and says so.

        **Arguments:** `conversations`: how many; `strategies`: per advertiser (label or index) a
        function (period from 1, true value indices (N,), true symbols (N,)) -> reported value
        indices and symbols, truth by default; `profile`: the index of one initial profile;
        `under`: another market that is the truth, as in `audit`.

        **Returns:** `Simulation`. **Raises:** `OutsideSupport` for reports that do not exist.
        """
        self._priced("simulate")
        return simulate(self, key, conversations, strategies, profile, under)

    @property
    def scene(self) -> Scene:
        """The mechanism in the market of its own policy."""
        return Scene(self.policy, self.own, self.groves_total, self.estimator)

    def settlement_means(self) -> Settled:
        """Conditional means and variances of the estimate in every situation, money."""
        return self._priced("settlement_means").settlement_means()

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
    ) -> Audit: ...

    @overload
    def audit(
        self,
        settlement: AbstractSettlement | None = None,
        histories: str = "on-path",
        under: Sequence[RecommendationMDP] = (),
        interval: bool | None = None,
        *,
        key: jax.Array | None = None,
        conversations: int = 1024,
        nodes: int = 0,
        confidence: float = 0.95,
        tolerance: float | None = None,
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
        report), not only those of the support; where one is declared, by default.

        With `under`, another market is the truth: the policy's own belief drives it, and gains,
        bounds, participation and budget are those of that market, whatever the totals were
        computed for. It has the products, horizon, support of values and alphabets of the policy's
        own; ratings and first readings are cut where the policy's market cuts them. Purchases are
        settled with its settlement signal, or with an estimator that the mechanism was given.

        **Returns:** `Audit`; `AuditsUnder` for a sequence of markets. **Raises:**
        `TooLarge` when the interval's pieces, or the tree of both markets, are too large;
        `InvalidArgument`.
        """
        choice("on-path", "all")("audit(histories=...)", histories)
        interval = optional(flag)("audit(interval=...)", interval)
        conversations = whole(1)("audit(conversations=...)", conversations)
        nodes = whole(0)("audit(nodes=...)", nodes)
        optional(number(least=0))("audit(tolerance=...)", tolerance)
        number(above=0, below=1)("audit(confidence=...)", confidence)
        settlement = _settlement("audit", settlement)
        if settlement.own:
            self._priced("audit")
        if under is not None:
            audits = [
                self._audit_scene(
                    stand_in("audit(under=...)", self, truth, settlement),
                    settlement, histories, interval, tolerance,
                )
                for truth in read_markets("audit(under=...)", under)
            ]  # fmt: skip
            return audits[0] if isinstance(under, RecommendationMDP) else AuditsUnder(tuple(audits))
        if not self.policy.evaluator.walked:
            return run_long_audit(
                self.policy,
                self._own_at(confidence),
                self.policy.flat(self.groves_total),
                settlement,
                self.estimator,
                type(self.groves).__name__,
                self.reports,
                histories,
                interval,
                conversations,
                nodes,
                confidence,
                tolerance,
                key,
            )
        return self._audit_scene(self.scene, settlement, histories, interval, tolerance)

    def _own_at(self, confidence: float) -> OwnTables:
        """Tables along own alternatives whose bounds hold with another confidence."""
        if confidence == self.policy.confidence or not self.groves.reads_own:
            return self.own
        return self.policy.own_tables(self.estimator, self.groves.side, True, confidence)

    def _audit_scene(self, scene: Scene, settlement, histories, interval, tolerance) -> Audit:
        """Audit exactly, in this market or in another."""
        return run_audit(
            scene.policy,
            scene.own,
            scene.groves_total,
            settlement,
            scene.settlement_means(),
            type(self.groves).__name__,
            self.reports,
            histories,
            wants_interval(scene.policy, "audit", interval),
            tolerance,
        )

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
        reports. Groves terms do not matter: they do not depend on own reports.

        **Arguments:** `settlement`, `interval`, `under` (one market) as in `audit`; `profiles`
        (indices): all solved by default.

        **Returns:** `BestResponse`. **Raises:** `TooLarge` when the strategies are too many.
        """
        settlement = _settlement("best_response", settlement)
        scene = self._priced("best_response") if settlement.own else self.scene
        if under is not None:
            scene = stand_in("best_response(under=...)", self, under, settlement)
        policy = scene.policy
        optional(flag)("best_response(interval=...)", interval)
        every = np.arange(len(policy.profiles)) if profiles is None else profiles
        asked = indices(None)("best_response(profiles=...)", every)
        if not asked.size or (asked < 0).any() or (asked >= len(policy.profiles)).any():
            must = f"be indices in 0..{len(policy.profiles) - 1}"
            raise OutsideSupport(describe("best_response(profiles=...)", must, profiles))
        interval = wants_interval(policy, "best_response", interval)
        means = scene.settlement_means()
        return best_responses(policy, settlement, means, self.reports, asked, interval)

    def _spent(self, shown: np.ndarray, action: np.ndarray, costs: Any) -> np.ndarray:
        """What the query of each round cost, (N, turns), 0 where there was none."""
        env, asked = self.policy.env, action == self.policy.env.products + 1
        each = np.array([query_cost(env, c) for c in range(len(env.controls))], float)[shown]
        if costs is not None:
            given = np.asarray(as_floats(costs, "settle(costs=...)"), float)
            if given.shape not in (shown.shape, shown.shape[1:]):
                must = f"have shape {shown.shape if len(shown) > 1 else shown.shape[1:]}"
                raise InvalidArgument(describe("settle(costs=...)", must, given.shape))
            each = np.where(np.isnan(each), given, each)
        if not np.isfinite(each[asked]).all():
            must = "be given: what a query costs depends on the taste"
            do = "pass an unbiased estimate for each turn with a query"
            raise InvalidArgument(describe("settle(costs=...)", must, costs, do))
        return np.where(asked, each, 0.0)

    def _settle_many(self, chats: Conversations, estimate: Any, totals: Any, costs: Any) -> Ledger:
        """One ledger of all rounds of N conversations; `estimate` (N,), NaN where nothing sold."""
        env, count = self.policy.env, len(chats)
        n = env.products
        if chats.policy.fingerprint != self.policy.fingerprint:
            must, got = "follow the mechanism's own policy", "some of another policy"
            raise InvalidArgument(describe("settle(conversation=...)", must, got))
        if not chats.ended.all():
            must, got = "have ended, every one", f"{int((~chats.ended).sum())} in progress"
            raise InvalidArgument(describe("settle(conversation=...)", must, got))
        given = estimated_many(env, self.estimator, chats, estimate)
        sold = chats.bought >= 0
        money = np.asarray(env.values.support, float)[
            np.arange(n), self.policy.profiles.theta[chats.profile]
        ]
        buyer, product = np.flatnonzero(sold), chats.bought[sold]
        core = np.zeros((count, n))
        core[buyer] = -(money[buyer, product] + given[buyer])[:, None]
        core[buyer, product] = -given[buyer]
        total = self._totals_of(chats, totals)
        row, turn = np.nonzero(chats.action >= 0)
        rounds = (chats.action >= 0).sum(axis=1)
        last = turn == rounds[row] - 1
        spent = self._spent(chats.displayed, chats.action, costs)[row, turn]
        share = np.zeros(chats.action.shape[1] + 1)
        share[: len(self.installments)] = self.installments[: len(share)]
        charged = np.where(last, 1 - np.cumsum(np.append(0.0, share))[turn], share[turn])
        return Ledger(
            names=env.names,
            period=turn + 1,
            recommendation=chats.shown[row, turn],
            shown=chats.shown[row, turn],
            action=chats.action[row, turn],
            estimate=np.where(last & sold[row], given[row], np.nan),
            cost=spent,
            core=np.where(last[:, None], core[row], 0.0) + spent[:, None],
            groves=charged[:, None] * total[row],
            conversation=row,
        )

    def _spread(self) -> Spread:
        """Core receipts of every pair of reports by taste, and the chance of its values."""
        policy = self.policy
        law = settled(policy.env, policy.compiled, self.estimator, policy.pairs.signals)
        receipts = core_receipts(policy.plan, policy.env.values.support, policy.pairs, law)
        return Spread(receipts, prior_probability(policy.env.values, policy.pairs.theta))

    def _priced(self, verb: str) -> Scene:
        """The scene of a mechanism that can settle every purchase.

        **Raises:** `InvalidArgument` where ratings need not come and nothing says what that counts.
        """
        if self.estimator.sends_missing():
            must = "say what a rating that does not come counts"
            do = "pass estimator=InversePropensity()"
            call = f"DynamicTeamMechanism.{verb}: estimator"
            raise InvalidArgument(describe(call, must, type(self.estimator).__name__, do))
        return self.scene

    def _totals_of(self, chats: Conversations, totals: Any) -> Float[np.ndarray, "N n"]:
        """Groves totals of many conversations."""
        n = self.policy.env.products
        self._check_decoded(totals)
        if totals is not None:
            return np.asarray(shaped(len(chats), n)("settle(totals=...)", totals))
        return self.groves_total.reshape(n, -1)[:, chats.profile].T

    def _check_decoded(self, totals: Any) -> None:
        if self.groves.decoded != (totals is not None):
            must = "be given with a total that is decoded, as groves.DataDriven, and only then"
            do = "decode f, groves.function(mechanism.own), from the signal after the ending"
            raise InvalidArgument(describe("settle(totals=...)", must, totals, do))

    def _own_conversation(self, conversation: Any) -> Conversation:
        """The conversation under this policy, resumed where it was held with an equal one."""
        call, policy = "settle(conversation=...)", self.policy
        if isinstance(conversation, Conversation):
            if conversation.policy.evaluator is policy.evaluator:
                return conversation
            conversation = conversation.record()
        if not isinstance(conversation, Mapping):
            raise InvalidArgument(describe(call, "be a conversation", type(conversation)))
        if conversation.get("policy") != policy.fingerprint:
            must, got = "follow the mechanism's own policy", "one of another policy"
            do = "start it with mechanism.policy.start(...)"
            raise InvalidArgument(describe(call, must, got, do))
        return policy.resume(conversation)

    def _totals_at(self, conversation: Conversation, totals) -> Float[np.ndarray, " n"]:
        self._check_decoded(totals)
        if totals is not None:
            return np.asarray(shaped(self.policy.env.products)("settle(totals=...)", totals))
        if conversation.profile < 0:
            must = "start from a profile asked for in initial="
            raise OutsideSupport(describe("settle(conversation=...)", must, "an alternative"))
        return self.groves_total.reshape(self.policy.env.products, -1)[:, conversation.profile]


def _settlement(verb: str, settlement: AbstractSettlement | None) -> AbstractSettlement:
    if settlement is None:
        return Estimator()
    kind = instance(AbstractSettlement, "one of dynmech.settlement, as settlement.Estimator()")
    return kind(f"{verb}(settlement=...)", settlement)
