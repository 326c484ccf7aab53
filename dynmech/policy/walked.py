"""The evaluator of a policy whose tree was walked: everything under it is exact."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import ClassVar

import equinox as eqx
import numpy as np
from jaxtyping import Float, Int

from dynmech._beside import Beside
from dynmech.bounded import Bounded
from dynmech.errors import InvalidArgument, OutsideSupport, describe
from dynmech.market.beside import MarketBeside
from dynmech.market.continued import remaining, with_rounds
from dynmech.market.environment import RecommendationMDP
from dynmech.market.lasting import endless
from dynmech.market.profiles import Profiles
from dynmech.market.settlements import AbstractSettlementSignal
from dynmech.market.values import ConstantValues, MarkovValues, profile_grid
from dynmech.payments.groves import OwnTables
from dynmech.policy.bias import largest_bias
from dynmech.policy.elsewhere import PlanBeside
from dynmech.policy.guide import AbstractGuide
from dynmech.policy.kept import check_pairs, require_beliefs
from dynmech.policy.nodes import Followed, Wider
from dynmech.policy.outcomes import expected_outcomes
from dynmech.policy.own_values import Between, asked_at_ends, between, joined, swept
from dynmech.policy.playable import Playable, money_of, untrained
from dynmech.policy.questions import (
    AbstractCursor,
    AbstractEvaluator,
    Place,
    check_side,
)
from dynmech.policy.rest import recommended, solve_rest
from dynmech.policy.tree_cursor import TreeCursor, draw
from dynmech.problem.edges import Compiled
from dynmech.problem.settled import settled
from dynmech.problem.tasks import Pairs
from solvers import Certificate
from solvers.certify import Worth
from solvers.kept import refuse, require_alike, require_numbers
from solvers.tree.plan import Plan, evaluate, unfold
from solvers.tree.tree import Tree

_SAME = 1e-9  # of a belief's weights: rounding
_PLAYERS, _ASKED = Beside(), Beside()


class TreeEvaluator(AbstractEvaluator):
    """A plan on a tree.

    - `compiled`, `pairs`, `plan`: the market, its profiles with own alternatives, what is done.
    - `pair_value` (P,): surplus of the plan. `own` (2, B, n, Z): W^{-i} and Wd^{-i} along own
      signals, in that order.
    - `optimal`, `gap`: see `AbstractEvaluator`. `complete`: whether the solver followed every
      recommendation. `exact`: whether only rounding separates the bounds.
    - `behind`: the network that recommends, where the plan is what one does.
    - `ends`: what somebody who was asked recommends at the ends of a declared interval.
    - `beyond` (P,): what later rounds than those written out can cost from the start, at most,
      money; None where there are none. `gap` counts what they can bring.
    """

    walked: ClassVar[bool] = True
    env: RecommendationMDP
    profiles: Profiles
    compiled: Compiled
    pairs: Pairs
    plan: Plan
    pair_value: Float[np.ndarray, " P"]
    own: Bounded
    optimal: Plan | None
    gap: tuple[Float[np.ndarray, "P _N"], ...] | None
    behind: Playable | None
    complete: bool = eqx.field(static=True)
    exact: bool = eqx.field(static=True)
    ends: Between | None = None
    beyond: Float[np.ndarray, " P"] | None = None

    def check_kept(self) -> None:
        """Raise `ValueError` where pairs are not those of the profiles, or yields the market's."""
        check_pairs(self.env, self.profiles, self.pairs)
        reward = np.asarray(self.env.gains, float)
        require_alike("reward", self.plan.tables.reward[: len(reward)], reward)
        require_beliefs(self.env, self.plan.root)
        known = self.plan.root.sum(axis=1)[self.pairs.root] > 0
        if (np.isfinite(self.pair_value) != known).any():
            refuse("pair_value", "be a number where a pair can occur, else NaN", "others")
        if self.exact:
            require_numbers("own", self.own.gap[~np.isnan(self.own.value)])

    def profile_value(self) -> Float[np.ndarray, " B"]:
        return self.pair_value[self.pairs.base]

    @property
    def whole(self) -> tuple[Compiled, Tree] | None:
        return (self.compiled, self.plan.tree) if self.complete else None

    @property
    def asked(self) -> Playable | None:
        """Who can be asked where the plan has no answer: a network, or `keep_asked`."""
        return _ASKED(self, lambda: self.behind)

    @property
    def player(self) -> Playable:
        if self.asked is not None:
            return self.asked
        return _PLAYERS(self, lambda: untrained(self.env, self.profiles))

    def begin(self, theta: Int[np.ndarray, " n"], signals: Int[np.ndarray, " n1"]) -> Place:
        pairs = self.pairs
        root = np.flatnonzero((pairs.signals == signals).all(axis=1))
        found = np.flatnonzero(np.isin(pairs.root, root) & (pairs.theta == theta).all(axis=1))
        if not len(found):
            must = "name a profile that was solved"
            got = f"theta {theta.tolist()}, signals {signals.tolist()}"
            do = "solve with it in initial=Profiles(...)"
            raise OutsideSupport(describe("EfficientPolicy.start(...)", must, got, do))
        return self._place(1, int(found[0]), 0)

    def _place(self, period: int, pair: int, node: int) -> Place:
        belief = self.plan.belief(period - 1, np.array([pair]), np.array([node]))[0]
        none = np.zeros(0, np.int64)
        return Place(period, self.pairs.theta[pair], belief, none, None, pair, node)

    def control(self, place: Place) -> int:
        at = np.array([place.pair]), np.array([place.node])
        return int(draw(self.plan, place.period - 1, *at, None)[0])

    def edge(self, place: Place, control: int) -> int:
        at = np.array([place.node]), np.array([control])
        return int(self.plan.edge(place.period - 1, *at)[0])

    def chances(self, place: Place, control: int):
        edge = self.edge(place, control)
        columns = self.plan.tree.structure.columns[edge]
        every = np.asarray(self.plan.tables.column)
        nothing = np.zeros((1, every.shape[1]))
        return self.compiled.actions(np.array([edge]))[0], np.concatenate([every, nothing])[columns]

    def follow(self, place: Place, control: int, joint: int, theta: np.ndarray) -> Place:
        node = int(self.plan.tree.layers[place.period - 1].child[place.node, control, joint])
        options = self.plan.sibling[place.pair]
        pair = int(options[(self.pairs.theta[options] == theta).all(axis=1)][0])
        return self._place(place.period + 1, pair, node)

    def leave(
        self, place: Place, money: Float[np.ndarray, " n"] | None = None, rounds: int | None = None
    ):
        asked = self.asked
        if self.optimal is not None and asked is None:
            must = "stay on the tree of a policy that is not W's own"
            do = "follow its recommendations, or solve the market and follow the efficient policy"
            got = f"another belief in period {place.period}"
            raise InvalidArgument(describe("Conversation.step(...)", must, got, do))
        still = isinstance(self.env.values, ConstantValues)
        if money is None and still:
            money = money_of(self.env, place.theta)
        theta = np.zeros_like(place.theta) if still else place.theta
        seen = np.zeros(self.env.products, bool) if place.seen is None else place.seen
        at = place.belief[None], place.memory, place.period - 1, seen
        env, ends = self.env, self.beyond is None or asked is not None
        if env.action_rule.lasts() is not None:
            env = endless(env)
        if not ends:
            rounds = rounds or int(env.horizon) - place.period + 1
            env = with_rounds(env, math.inf)
        rest = remaining(env, *at, None if money is None else money[:, None])
        off = 0.0 if self.gap is None else float(self.gap[0].max(initial=0.0))
        found = solve_rest(rest, theta[None], asked is not None, None if ends else rounds, off)
        plan, value, best = found.plan, found.value, None
        if asked is not None:
            best = plan
            plan, value = recommended(found, asked, place.period - 1)
        none = np.full((2, *found.pairs.own[:, :, 0, :].shape), np.nan)
        there = TreeEvaluator(
            env=found.env,
            profiles=found.profiles,
            compiled=found.compiled,
            pairs=found.pairs,
            plan=plan,
            pair_value=value,
            own=Bounded(none, none, none),
            optimal=best,
            gap=found.gap,
            behind=None,
            complete=found.complete,
            exact=found.exact and asked is None,
            beyond=found.beyond,
        )
        return there, there.begin(theta, np.zeros(self.env.products + 1, np.int64))

    def considered(self, place: Place, control: int) -> bool:
        known = self.edge(place, control) < len(self.plan.tree.structure.columns)
        layer = self.plan.tree.layers[place.period - 1]
        return bool(known and (layer.child[place.node, control] >= 0).all())

    def worths(self, places: Sequence[Place]) -> Float[np.ndarray, "N C m"]:
        controls = range(self.plan.tree.structure.controls)
        asked = [(k, c) for k, x in enumerate(places) for c in controls if self.considered(x, c)]
        found = np.full((len(places), len(controls), self.env.tastes.size), np.nan)
        if asked:
            at, control = np.array(asked).T
            pair, node = np.array([(x.pair, x.node) for x in places])[at].T
            found[at, control] = self._given_taste(
                self.plan, places[0].period - 1, pair, node, control
            )
        return found

    def _given_taste(
        self, plan: Plan, t: int, pair: np.ndarray, node: np.ndarray, control: np.ndarray
    ) -> Float[np.ndarray, "k m"]:
        none = np.zeros(0, np.int64)
        wanted = [(none, none, none) for _ in range(plan.horizon)]
        wanted[t] = pair, node, control
        keys, places = unfold(plan, wanted)
        support, theta = self.env.values.support, self.pairs.theta
        stop, reward = np.asarray(plan.tables.stop), np.asarray(plan.tables.reward)

        def flow(t: int, pair: np.ndarray, node: np.ndarray, control: np.ndarray):
            edge = plan.edge(t, node, control)
            product = plan.tree.structure.outcome[edge]
            money = support[np.arange(self.env.products), theta[pair]]
            money = np.pad(money, ((0, 0), (0, len(reward) - money.shape[1])))
            earned = np.take_along_axis(money, np.maximum(product, 0), axis=1)
            return ((earned[:, :, None] + reward[product]) * stop[edge]).sum(1)[:, None]

        return evaluate(plan, keys, flow)[t][places[t], 0]

    def left_over(self, place: Place):
        return None if self.beyond is None else float(self.beyond[place.pair])

    def certify(self, place: Place, certificate: Certificate | None) -> Worth:
        belief = place.belief / place.belief.sum()
        t, at = place.period - 1, (np.array([place.pair]), np.array([place.node]))
        said = self.plan.actions[t][at]
        value = float(belief @ self._given_taste(self.plan, t, *at, said)[0])
        loss = 0.0 if self.gap is None else float(self.gap[t][place.pair, place.node])
        best = value
        if self.optimal is not None:
            taken = self.optimal.actions[t][at]
            best = float(belief @ self._given_taste(self.optimal, t, *at, taken)[0])
        best = max(best, value)
        rounds, after, more = self.plan.horizon - t, 0.0, 0.0
        if self.beyond is not None:
            after, more = place.beyond, loss
            if after is None:
                after = np.inf if t else float(self.beyond[place.pair])
        gets = Bounded([value], [value - after], [value + more])
        return Worth(gets, Bounded([best], [best - after], [best + loss]), rounds)

    def cursor(self, signal: AbstractSettlementSignal) -> AbstractCursor:
        return TreeCursor(self.env, self.compiled, self.pairs, self.plan, signal)

    def follow_on(self, wider: Wider, more: Between | None = None) -> Followed:
        """Walk both trees abreast: the wider one's nodes know where they are in this one."""
        none = len(self.env.controls) - 1
        if more is None or more.plan is None:
            pair, plan = self._pair_of(wider.pairs), self.plan
        else:
            pair, plan = np.arange(len(more.pairs.root)), more.plan
        layers, own = wider.plan.tree.layers, self.plan.tree.layers
        place, taken = np.zeros(layers[0].nodes, np.int64), []
        heard, shown = wider.both.env.heard, np.arange(none + 1)[:, None]
        same = self.env.heard.of(heard, np.arange(heard.count), shown)
        for t, layer in enumerate(layers):
            said = plan.actions[t][pair][:, np.maximum(place, 0)]
            taken.append(np.where(place >= 0, said, none))
            if t == len(layers) - 1:
                break
            child, there = layer.child, own[t].child[np.maximum(place, 0)]
            there = there[:, shown, same]
            there = np.where(place[:, None, None] >= 0, there, -1)
            place = np.full(layers[t + 1].nodes, -1)
            # Where the mechanism thinks a way in impossible another one may know better.
            np.maximum.at(place, child[child >= 0], there[child >= 0])
        return tuple(taken), plan.laws

    def _pair_of(self, pairs: Pairs) -> Int[np.ndarray, " P"]:
        """Which of these pairs other pairs are."""
        index = _pair_index(self.pairs)
        rows = np.concatenate([pairs.signals[pairs.root], pairs.theta], axis=1).tolist()
        found = np.array([index.get(tuple(row), -1) for row in rows])
        if (found < 0).any():
            got = f"{int((found < 0).sum())} profiles that were not solved"
            must = "be a market in which every true profile that can come was solved"
            do = "solve without `initial`, or for constant values in the true market"
            raise InvalidArgument(describe("under=...", must, got, do))
        return found

    def guide(self, both: MarketBeside) -> AbstractGuide:
        rows = money_of(self.env, self.pairs.theta), self.pairs.signals[self.pairs.root]
        known, plan, more = np.concatenate(rows, axis=1), self.plan, self.between()
        if isinstance(both.env.values, MarkovValues):
            return PlanBeside(both, plan, known, self._following())
        if more is not None and more.plan is not None:
            rows = more.money, more.pairs.signals[more.pairs.root]
            known = np.concatenate([known, np.concatenate(rows, axis=1)])
            plan = joined(plan, more.plan)
        return PlanBeside(both, plan, known, np.arange(len(known))[:, None])

    def _following(self) -> Int[np.ndarray, "P V"]:
        """The pair of the same root for each profile of values."""
        signals, values = self.pairs.signals, profile_grid(*self.env.values.support.shape)
        root = np.repeat(np.arange(len(signals)), len(values))
        theta = np.tile(values, (len(signals), 1))
        every = dataclasses.replace(self.pairs, root=root, theta=theta)
        return self._pair_of(every).reshape(len(signals), -1)[self.pairs.root]

    def own_tables(
        self,
        signal: AbstractSettlementSignal,
        side: str | None,
        needed: bool = True,
        confidence: float | None = None,
    ) -> OwnTables:
        check_side(side, self.exact)
        pairs, n = self.pairs, self.env.products
        law = settled(self.env, self.compiled, signal, pairs.signals)
        every = np.arange(len(pairs.root))
        outcomes = expected_outcomes(self.plan, self.env.values.support, pairs, every, law)
        payoff = outcomes.payoff
        live, at = pairs.own >= 0, np.maximum(pairs.own, 0)
        own = np.where(live, payoff[at], np.nan)
        mine = (outcomes.earned + outcomes.utility)[at, np.arange(n)[None, :, None, None]]
        if needed:
            bound = self.own.upper if side == "upper" else self.own.lower
            marginal, displayable = self.own.value if self.exact else bound
        else:
            marginal = displayable = np.full_like(own[:, :, 0], np.nan)
        tables = OwnTables(
            payoff=own,
            contribution=np.where(live, own - mine, np.nan),
            marginal=marginal,
            displayable=displayable,
            root=self.plan.root,
            own_root=np.where(live[:, :, 0], pairs.root[at[:, :, 0]], -1),
            own_pair=pairs.own,
            signal=self.profiles.signals[:, 1:],
        )
        more = self.between()
        if more is None:
            return tables
        bias = largest_bias(self.env, signal) if more.short else 0.0
        return more.widened(tables, law, self.own.upper[1] + bias)

    def between(self) -> Between | None:
        there = self.env, self.pairs, self.plan

        def make() -> Between | None:
            if self.exact:
                return swept(*there)
            if self.ends is not None:
                return self.ends
            return None if self.asked is None else asked_at_ends(*there, self.asked.laws_at)

        return between(self, make)

    def at_once(self, table: str) -> None:
        return None

    def recommend(
        self, belief: np.ndarray, memory: np.ndarray, theta: np.ndarray, period: int
    ) -> int:
        """The nodes that hold this belief say it; they must all say the same."""
        n, t = self.env.products, period - 1
        money = np.asarray(self.env.values.support)[np.arange(n), self.pairs.theta]
        mine = np.flatnonzero((np.abs(money - np.asarray(theta)) <= _SAME).all(axis=1))
        nodes, said = np.arange(self.plan.tree.layers[t].nodes), set()
        for pair in mine.tolist():
            held = self.plan.belief(t, np.full(len(nodes), pair), nodes)
            mass = held.sum(axis=1, keepdims=True)
            near = np.abs(held / np.where(mass > 0, mass, 1) - np.asarray(belief)).max(axis=1)
            said |= set(self.plan.actions[t][pair, nodes[near <= _SAME]].tolist())
        size = self.plan.tree.structure.controls
        if len(said) == 1 and max(said) < size:
            return int(said.pop())
        if len(said) == 1:
            must = "be asked what it shows, which it draws"
            got = f"a law over {size} controls"
            do = "ask the function that was given, or start a conversation there"
            raise InvalidArgument(describe("recommend(belief=...)", must, got, do))
        must = "be asked at a belief of the tree, where memory makes no difference"
        got = f"{len(said)} recommendations at this belief in period {period}"
        do = "start a conversation there, or solve a market whose prior is this belief"
        raise InvalidArgument(describe("EfficientPolicy.recommend(belief=...)", must, got, do))


def keep_asked(evaluator: AbstractEvaluator, play: Playable) -> None:
    """Keep who recommends beside the evaluator of the tree: a function is no part of its data."""
    _ASKED(evaluator, lambda: play)


def _pair_index(pairs: Pairs) -> dict[tuple[int, ...], int]:
    rows = np.concatenate([pairs.signals[pairs.root], pairs.theta], axis=1)
    return {tuple(row): k for k, row in enumerate(rows.tolist())}
