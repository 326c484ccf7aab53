"""What a policy is asked: the protocol that everything above it is written against.

A policy says what it recommends; an *evaluator* answers what follows from that. There are two:
one that walked the policy's tree and is exact (`dynmech.policy.walked`), and one that plays it
and simulates (`dynmech.policy.played`). What an evaluator cannot answer it refuses with the error
of `refuse`, which names the solver and the remedy. Nobody asks which evaluator it is.
"""

import abc
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, cast

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int

from dynmech._types import Record, with_default
from dynmech.errors import DynmechError, InvalidArgument, describe
from dynmech.problem.settled import predictions

if TYPE_CHECKING:
    from dynmech.bounded import Bounded
    from dynmech.market.beside import MarketBeside
    from dynmech.market.environment import RecommendationMDP
    from dynmech.market.profiles import Profiles
    from dynmech.market.settlements import AbstractSettlementSignal
    from dynmech.payments.groves import OwnTables
    from dynmech.policy.guide import AbstractGuide
    from dynmech.policy.nodes import Followed, Wider
    from dynmech.policy.own_values import Between
    from dynmech.policy.playable import Playable
    from dynmech.problem.edges import Compiled
    from dynmech.problem.tasks import Pairs
    from solvers import Certificate
    from solvers.certify import Worth
    from solvers.tree.plan import Plan
    from solvers.tree.tree import Tree


class AbstractPolicy(Record):
    """A recommender for a market; one of your own is priced as `GivenPolicy` prices a function."""

    if TYPE_CHECKING:  # a field or a property, whichever suits the class
        env = cast("RecommendationMDP", None)
    else:
        env: eqx.AbstractVar["RecommendationMDP"]

    @abc.abstractmethod
    def recommend(
        self,
        belief: Float[np.ndarray, " m"],
        memory: Int[np.ndarray, " d"],
        theta: Float[np.ndarray, " n"],
        period: int,
    ) -> int:
        """Recommend a product, or n for none.

        **Arguments:** `belief`: weights of the tastes, mass 1; `memory`: the action rule's;
        `theta`: values as reported now, money; `period`: from 1.
        """


class Place(Record):
    """Where a conversation is: round from 1, value indices, what is believed and remembered.

    `belief` (m,) need not be normalised. `memory` is the action rule's, where it is followed;
    `seen`: products shown so far, where no tree holds the place; `pair` and `node` are where a
    walked tree is, -1 elsewhere. `beyond`: what rounds that a plan does not hold can cost here,
    at most, money; None: what the evaluator knows.
    """

    period: int = eqx.field(static=True)
    theta: Int[np.ndarray, " n"]
    belief: Float[np.ndarray, " m"]
    memory: Int[np.ndarray, " d"]
    seen: Bool[np.ndarray, " n"] | None = None
    pair: int = eqx.field(static=True, default=-1)
    node: int = eqx.field(static=True, default=-1)
    beyond: float | None = None


class AbstractCursor:
    """Follow many conversations at once, those that still go on; rows are conversations.

    `gains` (n, m): u - x, money.
    """

    if TYPE_CHECKING:  # a field or a property, whichever suits the class
        gains = cast("np.ndarray", None)
    else:
        gains: Float[np.ndarray, "n m"]

    @abc.abstractmethod
    def begin(self, signals: Int[np.ndarray, "N n1"]) -> None:
        """Start at reported initial symbols."""

    @abc.abstractmethod
    def choose(
        self, theta: Int[np.ndarray, "N n"], rng: np.random.Generator | None = None
    ) -> Int[np.ndarray, " N"]:
        """Recommend for the values reported now.

        **Arguments:** `rng`: draws for policies that randomise; None: as a `Conversation` does.
        """

    @abc.abstractmethod
    def laws(
        self, control: Int[np.ndarray, " N"], omega: Int[np.ndarray, " N"]
    ) -> tuple[Float[np.ndarray, "*L N n"], Float[np.ndarray, "N A"]]:
        """The signal's `laws`, and chances of the actions, given the tastes."""

    @abc.abstractmethod
    def beliefs(self, rows: Int[np.ndarray, " k"]) -> Float[np.ndarray, "k m"]:
        """What is believed in rows, not normalised."""

    @abc.abstractmethod
    def acted(
        self, rows: Int[np.ndarray, " k"], code: Int[np.ndarray, " k"]
    ) -> Float[np.ndarray, "k m"]:
        """Chance of one action in each row given every taste, after `laws`."""

    def predict(
        self, rows: Int[np.ndarray, " k"], product: Int[np.ndarray, " k"]
    ) -> Float[np.ndarray, " k"]:
        """E[u_j | reports, history, purchase] of rows that buy, after `laws`; 0 if impossible."""
        return predictions(self.beliefs(rows) * self.acted(rows, product), self.gains[product])

    @abc.abstractmethod
    def heard(
        self, rows: Int[np.ndarray, " k"], joint: Int[np.ndarray, " k"]
    ) -> Float[np.ndarray, "k m"]:
        """Chance of asking again and one joint symbol in each row, after `laws`."""

    @abc.abstractmethod
    def symbols(self, going: np.ndarray, omega: np.ndarray) -> Float[np.ndarray, "N Z"]:
        """Keep those that asked again; weights of the joint symbols that they see."""

    @abc.abstractmethod
    def advance(self, heard: Int[np.ndarray, " N"]) -> None:
        """Go on with the joint symbols that were reported."""


class AbstractEvaluator(Record):
    """What follows from a policy in a market; `walked` says whether by its tree, exactly.

    Of the tree, and refused where none was walked, are `plan`; `compiled`, the market as the tree
    has it; `optimal`, the plan that attains W where another one is in use; `gap`, the certified
    loss at each node, money, None where there is none. `whole`: market and tree where every
    recommendation was followed, else None. `profiles` with own alternatives are `pairs`; `player`
    is the network, if there is one, ready to be played; `asked`: who recommends, where that can be
    asked at any belief, else None.
    """

    if TYPE_CHECKING:  # fields or properties, whichever suit the class
        env = cast("RecommendationMDP", None)
        profiles = cast("Profiles", None)
        plan = cast("Plan", None)
        pairs = cast("Pairs", None)
        compiled = cast("Compiled", None)
        optimal = cast("Plan | None", None)
        gap = cast("tuple[np.ndarray, ...] | None", None)
        whole = cast("tuple[Compiled, Tree] | None", None)
        player = cast("Playable", None)
        asked = cast("Playable | None", None)
        walked: ClassVar[bool]
    else:
        env: eqx.AbstractVar["RecommendationMDP"]
        profiles: eqx.AbstractVar["Profiles"]
        plan: eqx.AbstractVar["Plan"]
        pairs: eqx.AbstractVar["Pairs"]
        compiled: eqx.AbstractVar["Compiled"]
        optimal: eqx.AbstractVar["Plan | None"]
        gap: eqx.AbstractVar["tuple[np.ndarray, ...] | None"]
        whole: eqx.AbstractVar["tuple[Compiled, Tree] | None"]
        player: eqx.AbstractVar["Playable"]
        asked: eqx.AbstractVar["Playable | None"]
        walked: eqx.AbstractClassVar[bool]

    @abc.abstractmethod
    def begin(self, theta: Int[np.ndarray, " n"], signals: Int[np.ndarray, " n1"]) -> Place:
        """Start at a profile: value indices, symbols. **Raises:** `OutsideSupport`."""

    @abc.abstractmethod
    def control(self, place: Place) -> int:
        """The recommendation, n for none."""

    @abc.abstractmethod
    def edge(self, place: Place, control: int) -> int:
        """Which situation of the tree this is, -1 where there is no tree."""

    @abc.abstractmethod
    def chances(
        self, place: Place, control: int
    ) -> tuple[Float[np.ndarray, "A m"], Float[np.ndarray, "Z m"]]:
        """Chances of every action given omega; and of a query with each joint symbol after it."""

    @abc.abstractmethod
    def follow(self, place: Place, control: int, joint: int, theta: np.ndarray) -> Place:
        """Where a query, a joint symbol and the next value indices lead."""

    @abc.abstractmethod
    def leave(
        self, place: Place, money: Float[np.ndarray, " n"] | None = None, rounds: int | None = None
    ) -> "tuple[AbstractEvaluator, Place]":
        """Who answers from a place that no plan holds, and where that is for them.

        **Arguments:** `place`: its belief and memory are what holds; `money` (n,): values in force
        where they are not of the support; `rounds`: how many are written out from there where there
        is no last one, those that were left of the plan by default.
        """

    @abc.abstractmethod
    def considered(self, place: Place, control: int) -> bool:
        """Whether the solver looked into what a recommendation leads to from here."""

    @with_default
    def profile_value(self) -> Float[np.ndarray, " B"] | None:
        """What the plan attains at each profile, None where the policy is not one on a tree."""
        return None

    @with_default
    def left_over(self, place: Place) -> float | None:
        """What later rounds than a plan's can cost from a start, None where there are none."""
        return None

    @abc.abstractmethod
    def worths(self, places: Sequence[Place]) -> Float[np.ndarray, "N C m"]:
        """Surplus given omega of each control now and the policy after, at places of one round.

        NaN for controls that the solver did not look into there.
        """

    @abc.abstractmethod
    def certify(self, place: Place, certificate: "Certificate | None") -> "Worth":
        """What the policy attains from here on, and W: arrays of one entry."""

    @abc.abstractmethod
    def cursor(self, signal: "AbstractSettlementSignal") -> AbstractCursor:
        """Follow many conversations, settled by `signal`."""

    @abc.abstractmethod
    def between(self) -> "Between | None":
        """What is done at own values of a declared interval that are off the support.

        None where none is declared, or where nobody knows.
        """

    @abc.abstractmethod
    def follow_on(self, wider: "Wider", more: "Between | None" = None) -> "Followed":
        """Recommendations at every node of a wider tree, which tells apart all that this does.

        `more`: what `between` says; the wider tree's pairs are then its own.

        **Raises:** `InvalidArgument` for pairs that were not solved.
        """

    @abc.abstractmethod
    def guide(self, both: "MarketBeside") -> "AbstractGuide":
        """Who recommends as this policy does in the market of two beside each other."""

    @abc.abstractmethod
    def own_tables(
        self,
        signal: "AbstractSettlementSignal",
        side: str | None,
        needed: bool = True,
        confidence: float | None = None,
    ) -> "OwnTables":
        """What Groves terms reduce, with bounds on the side that a term needs.

        `needed`: whether the term reads them; else W^{-i} and Wd^{-i} need not be solved.
        `confidence`: of bounds that are simulated, the policy's own by default.

        **Raises:** `InvalidArgument` where a side is needed and none is given.
        """

    @abc.abstractmethod
    def at_once(self, table: str) -> "Bounded | None":
        """Bounds that hold at all the evaluator's profiles together with the policy's confidence.

        `table`: "value", (B,), or "marginal_value", (n, B), each advertiser's by themselves. None:
        those of the policy's tables, which are certain.
        """

    @abc.abstractmethod
    def recommend(
        self, belief: np.ndarray, memory: np.ndarray, theta: np.ndarray, period: int
    ) -> int:
        """See `AbstractPolicy.recommend`."""


SIDES = ("upper", "lower", "both")


def refuse(question: str, solver: str, do: str) -> DynmechError:
    """The one error for what an evaluator cannot answer: names the solver and the remedy."""
    must = "be asked of a policy whose tree was walked"
    return DynmechError(describe(question, must, f"one that is simulated ({solver})", do))


def check_side(side: str | None, exact: bool) -> None:
    """Raise unless a Groves term says which side of a bound it needs, where there are two."""
    if side not in (*SIDES, None) or (side is None and not exact):
        must = "say which side of a bound it charges under a policy that is not exact"
        do = f"give the class `side = ...`, one of {', '.join(SIDES)}"
        raise InvalidArgument(describe("DynamicTeamMechanism(groves=...)", must, side, do))
