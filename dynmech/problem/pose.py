"""A market posed as the problem that solvers take, and the way back from what they find."""

from __future__ import annotations

import dataclasses
import math

import jax
import numpy as np

from dynmech._types import precision
from dynmech.errors import TooLarge
from dynmech.market.continued import with_rounds
from dynmech.market.environment import RecommendationMDP
from dynmech.market.lasting import lasting
from dynmech.problem.compile import compile_market, tables
from dynmech.problem.edges import Compiled
from dynmech.problem.endless import compile_endless, with_last
from dynmech.problem.process import MarketProcess, market_process
from dynmech.problem.unfolded import compile_rounds
from solvers import Listed, Problem, Tables
from solvers.progress import deferred
from solvers.search.lasting import settling
from solvers.table import Grown, Last
from solvers.tree.tree import Tree


class Posed:
    """One market while it is solved: rules and lists are made when a solver asks for them.

    `problem`: what solvers get. `compiled`: the market's lists, given or made when asked for.
    """

    def __init__(self, env: RecommendationMDP, compiled: Compiled | None = None):
        self.env = env
        self.compiled = compiled
        self.listed: Listed | None = None
        self.rules: MarketProcess | None = None
        self.problem = Problem(self._process, self._lists, env.horizon, len(env.controls))

    def _process(self) -> MarketProcess:
        if self.rules is None:
            try:
                self.rules = market_process(self.env)
            except TooLarge as error:
                raise MemoryError(str(error)) from error
        return self.rules

    def _lists(self, limit: float) -> Listed:
        if self.listed is None:
            depth = 1
            try:
                with precision(self.env.gamma), deferred() as interrupts, interrupts.now():
                    if self.compiled is not None:
                        pass
                    elif self.env.horizon == math.inf:
                        self.compiled, depth = compile_endless(self.env, limit)
                    else:
                        self.compiled = compile_market(self.env, limit=limit)
                    numbers = jax.tree.map(np.asarray, tables(self.env, self.compiled))
            except TooLarge as error:
                raise MemoryError(str(error)) from error
            structure = self.compiled.structure
            endless = self.env.horizon == math.inf and self.env.toll is None
            lasts = endless and settling(structure.successor[0]) is not None
            self.listed = Listed(structure, numbers, depth, self.compiled.bytes, lasts)
        return self.listed

    def on_tree(
        self, tree: Tree, last: Last | None = None
    ) -> tuple[RecommendationMDP, Compiled, Tables]:
        """The market of the rounds of a tree over the lists, and its compilation.

        **Arguments:** `last`: None unless the tree's last round stands for all that follow.
        """
        assert self.compiled is not None
        assert self.listed is not None
        rounds = len(tree.layers)
        if last is not None:
            times = settling(self.listed.structure.successor[0])
            assert times is not None
            market = lasting(self.env, rounds, times)
            return market, with_last(self.compiled, tree.structure, last), last.tables
        compiled = dataclasses.replace(self.compiled, structure=tree.structure)
        return self.cut(rounds), compiled, self.listed.tables

    def on_rounds(
        self, rounds: tuple[Grown, ...], limit: float
    ) -> tuple[RecommendationMDP, Compiled, Tables, Tree]:
        """The same for rounds grown from the rules, of which only what plans reach is compiled."""
        env = self.cut(len(rounds))
        compiled, tree = compile_rounds(env, rounds, limit)
        return env, compiled, jax.tree.map(np.asarray, tables(env, compiled)), tree

    def cut(self, rounds: int) -> RecommendationMDP:
        """The market with so many rounds: all else was checked for any number of them."""
        return with_rounds(self.env, rounds)
