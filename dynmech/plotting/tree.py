"""A policy's tree from one initial profile: what is recommended after what was seen."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import numpy as np

from dynmech._checks import checked, flag, instance, number
from dynmech._types import NONE
from dynmech.errors import ImpossibleProfile, import_extra
from dynmech.market.displays import named
from dynmech.plotting.style import UNIT
from dynmech.policy.base import AbstractPricedPolicy
from dynmech.policy.conversation import Conversation
from dynmech.policy.priced import AbstractPriced

PRICED = instance(AbstractPricedPolicy, "a policy, as solve_efficient_policy(env)")


class Branch(eqx.Module):
    """What a policy does after some history of recommendations and signals.

    - `round`: counted from 1. `recommendation`: product index, -1 for none, or a tuple of them.
    - `symbols`: the joint symbols (platform, advertisers) seen last, each leading here after at
      least one of the histories drawn together; empty at the root.
    - `probability`: that a conversation from the profile gets here. `utility`: expected utility
      of the product recommended, money, under the belief held here; 0 for none.
    - `children`: what follows a query. `left_out`: probability of children too rare to keep.
    """

    round: int = eqx.field(static=True)
    recommendation: int | tuple[int, ...] = eqx.field(static=True)
    symbols: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    probability: float = eqx.field(static=True)
    utility: float = eqx.field(static=True)
    children: tuple["Branch", ...]
    left_out: float = eqx.field(static=True)

    @property
    def leaves(self) -> int:
        """Number of branches that end here."""
        return sum(child.leaves for child in self.children) or 1

    @checked(least=number(least=0, most=1))
    def prune(self, least: float) -> "Branch":
        """Leave out the branches of probability below `least`, and all that follow them."""
        kept = tuple(child.prune(least) for child in self.children if child.probability >= least)
        lost = sum(child.probability for child in self.children if child.probability < least)
        return Branch(
            self.round, self.recommendation, self.symbols, self.probability, self.utility,
            kept, self.left_out + lost,
        )  # fmt: skip

    def walk(self) -> Iterator["Branch"]:
        """Yield this branch and all that follow it, each before its children."""
        yield self
        for child in self.children:
            yield from child.walk()


class _Node(NamedTuple):
    """A conversation in progress, the joint symbol that led to it, and how likely it is."""

    chat: Conversation
    joint: tuple[int, ...]
    mass: float


@checked(policy=PRICED, merge=flag)
def policy_tree(policy: AbstractPricedPolicy, profile: int = 0, *, merge: bool = True) -> Branch:
    """Grow the tree of recommendations that a policy makes from an initial profile.

    With `merge`, siblings that recommend the same product become one branch, histories and all;
    without, each joint symbol of positive probability is a branch. Values that move over time
    are held where the profile has them. Exact: probabilities are sums over the taste grid.

    **Arguments:** `profile`: index of a solved profile.

    **Returns:** the root `Branch`; see `Branch.walk`, `Branch.prune` and `branch_table`.

    **Raises:** `OutsideSupport`, `ImpossibleProfile` from `EfficientPolicy.start`.
    """
    start = policy.start(profile=profile)
    total = _mass(start)

    def grow(here: list[_Node]) -> Branch:
        chat = here[0].chat
        groups: dict[tuple[Any, ...], list[_Node]] = {}
        for node in here:
            for later in _after(node.chat, total):
                key = (later.chat.recommendation, () if merge else later.joint)
                groups.setdefault(key, []).append(later)
        mass, shown = sum(node.mass for node in here), chat.recommendation
        gained = 0.0
        on = [j for j in np.atleast_1d(np.asarray(shown, int)).tolist() if j != NONE]
        if on:
            utility = policy.env.gains[on].max(axis=0)
            gained = sum(node.mass * float(node.chat.belief @ utility) for node in here) / mass
        return Branch(
            round=chat.period,
            recommendation=shown,
            symbols=tuple(sorted({node.joint for node in here})) if chat.turns else (),
            probability=mass,
            utility=gained,
            children=tuple(grow(group) for group in sorted(groups.values(), key=_mean_symbol)),
            left_out=0.0,
        )

    return grow([_Node(start, (), 1.0)])


def _mean_symbol(group: list[_Node]) -> float:
    return sum(x.mass * x.joint[0] for x in group) / sum(x.mass for x in group)


def _after(chat: Conversation, total: float) -> list[_Node]:
    """Every way in which the conversation can go on after a query."""
    env = chat.policy.env
    if chat.period == env.horizon:
        return []
    held, found = chat.place.theta, []
    control = chat.evaluator.control(chat.place)
    possible = chat.evaluator.chances(chat.place, control)[1] @ chat.belief > 0
    for joint in env.heard.split(np.flatnonzero(possible), control).T:
        try:
            later = chat.step("query", joint, held)
        except ImpossibleProfile:
            continue
        found.append(_Node(later, tuple(int(z) for z in joint), _mass(later) / total))
    return found


def _mass(chat: Conversation) -> float:
    """Probability of all signals and queries so far, with the values held."""
    return float(chat.probability)


@checked(policy=PRICED, root=instance(Branch, "a `Branch`, as policy_tree(policy)"), unit=UNIT)
def branch_table(policy: AbstractPriced, root: Branch, unit: str = "money"):
    """List the branches of a tree in a labelled pandas table, one row each."""
    pandas = import_extra("pandas", "experiments", "branch_table")
    branches = list(root.walk())
    number = {id(branch): k for k, branch in enumerate(branches)}
    parent = {id(child): number[id(b)] for b in branches for child in b.children}
    word = signal_word(policy)
    return pandas.DataFrame(
        {
            "branch": range(len(branches)),
            "parent": [parent.get(id(branch), -1) for branch in branches],
            "round": [branch.round for branch in branches],
            f"{word} seen": [signal_label(branch.symbols) for branch in branches],
            "recommendation": [product_label(policy, b.recommendation) for b in branches],
            "probability [1]": [branch.probability for branch in branches],
            f"expected utility of it [{unit}]": [branch.utility for branch in branches],
        }
    )


def product_label(policy: AbstractPriced, recommendation: int | tuple[int, ...]) -> str:
    """The label of a recommendation."""
    return named(policy.env.names, recommendation)


def signal_word(policy: AbstractPriced) -> str:
    """What the platform's symbols after a query are called."""
    return policy.env.signals.feedback.word()


def signal_label(symbols: tuple[tuple[int, ...], ...]) -> str:
    """Name a set of joint symbols, counted from 1: "1", "2-4", "1, 3"; "2|1" with advertisers'."""
    if any(any(joint[1:]) for joint in symbols):
        return ", ".join("|".join(str(s + 1) for s in joint) for joint in symbols)
    numbers = [joint[0] + 1 for joint in symbols]
    runs: list[list[int]] = []
    for symbol in numbers:
        if runs and symbol == runs[-1][-1] + 1:
            runs[-1].append(symbol)
        else:
            runs.append([symbol])
    return ", ".join(str(r[0]) if len(r) == 1 else f"{r[0]}–{r[-1]}" for r in runs)
