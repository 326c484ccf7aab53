"""Exact payoffs of a long-horizon policy under one misreport, by all its histories.

Plain recursion: every symbol after every recommendation, unnormalised beliefs, nothing merged. The
policy is asked for its recommendation at each belief it is told; nothing else of it is used.
"""

import jax
import numpy as np

from dynmech.policy.player import Player
from dynmech.solve.ceilings import make_ceilings
from dynmech.solve.certificates import make_case
from solvers.certify import in_float64
from solvers.neural.rollout import decide


class Histories:
    """A policy and a true profile: values (n,), money, and symbols (1+n,)."""

    def __init__(self, policy, theta, root):
        self.policy, self.process, self.env = policy, policy.player.process, policy.env
        self.theta, self.root = np.asarray(theta, float), np.asarray(root, float)
        self.critic = in_float64(policy.player.critic)
        self.utilities = np.asarray(self.env.utilities)
        self.ceilings = {}

    def payoff(self, agent, told_root=None, told_theta=None, lasting=True, price="estimate"):
        """Expected payoff of `agent` given the true profile, without Groves term.

        `price`: "estimate", "message" (posterior means of what is told), "nothing".
        """
        told_root = self.root if told_root is None else np.asarray(told_root, float)
        told_theta = self.theta if told_theta is None else np.asarray(told_theta, float)
        self.agent, self.price, self.lasting = agent, price, lasting
        with jax.enable_x64(True):
            start = np.asarray(self.process.start())
            return self._walk(start, self.root, told_root, told_theta, 0) / self.root.sum()

    def surplus(self, memory, t):
        """Expected surplus from a memory and a round on, at the belief given."""
        self.agent, self.price, self.lasting = 0, "estimate", True
        with jax.enable_x64(True):
            return self._walk(memory, self.root, self.root, self.theta, t) / self.root.sum()

    def _choose(self, memory, told, theta, t):
        n = self.env.products
        if told.sum() <= 0:
            return n
        key = theta.tobytes()
        case = make_case(self.env, theta)
        if key not in self.ceilings:
            (self.ceilings[key],) = make_ceilings(self.env, self.process, [case])
        belief = (told / told.sum())[None]
        found = decide(self.process, case, self.ceilings[key], self.critic, belief, memory[None], t)
        return int(found[0])

    def _walk(self, memory, true, told, theta, t):
        if not true.any():
            return 0.0
        control = self._choose(memory, told, theta, t)
        after = np.asarray(self.process.step(memory, control))
        ends = np.asarray(self.process.ends(after, control))
        total = 0.0
        for j, chance in enumerate(ends[:-1]):
            total += self._bought(j, chance * true, chance * told)
        if t == self.process.horizon - 1:
            return total
        law = np.asarray(self.process.symbols(after, control, t))
        following = theta if self.lasting else self.theta
        for z in range(law.shape[1]):
            column = ends[-1] * law[:, z]
            total += self._walk(after, true * column, told * column, following, t + 1)
        return total

    def _bought(self, j, true, told):
        """What the agent is worth if j is bought: her value less what she pays."""
        utility = self.utilities[j]
        if self.price == "nothing":
            return self.theta[j] * true.sum() * (j == self.agent)
        if self.price == "message":
            believed = told @ utility / told.sum() if told.sum() > 0 else 0.0
            return (self.theta[j] + believed) * true.sum()
        return true @ (self.theta[j] + utility)


def player_of(policy, runs=400, seed=3):
    return Player(
        policy.env, policy.player.process, policy.player.critic, policy.player.chunk, runs, [seed]
    )


def histories(policy, profile):
    """The histories of a profile, a player of one run, and the symbols that were reported."""
    player = player_of(policy, 1)
    signals = policy.profiles.signals[profile]
    return Histories(policy, policy.player.theta(profile), player.belief(signals)), player, signals


def lies(env, theta, signals, agent):
    """Every report of one advertiser but the truth: value, symbol, all values, all symbols."""
    for value in env.values.support[agent].tolist():
        for symbol in range(env.initial_alphabet[agent + 1]):
            said, heard = np.array(theta), np.array(signals)
            said[agent], heard[agent + 1] = value, symbol
            if (said != theta).any() or (heard != signals).any():
                yield value, symbol, said, heard
