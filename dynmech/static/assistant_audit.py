"""Search for profitable reports in the shopping assistant, and say what was found.

Also Proposition 3 in numbers. In one round an advertiser's payoff before transfers is
theta_i 1{i is shown}: she does not care about what she saw. Efficiency shows i iff theta_i exceeds
a cutoff kappa(s_i), the best alternative minus E[omega_i | s]. Whatever a message-driven mechanism
pays, reports that lead to the same decision must pay alike, so that one posted price must serve
all s_i: some type gains at least half the spread of the cutoffs by misreporting s_i.
"""

import equinox as eqx
import numpy as np
from jaxtyping import Float

from dynmech._checks import checked, member
from dynmech.errors import InvalidArgument, describe, import_extra
from dynmech.static.assistant import (
    ASSISTANT,
    PROFILE,
    AssistantHistory,
    AssistantProfile,
    ShoppingAssistant,
)
from dynmech.static.assistant_play import QUOTED, SETTLED, SHOWN, play
from dynmech.static.assistant_tree import Tree, build_tree
from dynmech.static.assistant_types import TYPES, AssistantTypes


class AssistantWitness(eqx.Module):
    """The most profitable report found for an advertiser.

    `gain`: expected gain over truth, money, never below 0. `theta`, `signal` (n,), `noise` (n, n):
    the report. `honest`, `deviant`: expected times her product is shown. `lies`: in words.
    """

    agent: str = eqx.field(static=True)
    gain: float = eqx.field(static=True)
    theta: float = eqx.field(static=True)
    signal: Float[np.ndarray, " n"]
    noise: Float[np.ndarray, "n n"]
    honest: float = eqx.field(static=True)
    deviant: float = eqx.field(static=True)
    lies: tuple[str, ...] = eqx.field(static=True)

    def sentence(self) -> str:
        """Say it so that a person can follow."""
        if self.gain <= 0:
            return f"{self.agent} has no profitable misreport."
        return (
            f"{self.agent} gains {self.gain:.4g} by reporting {' and '.join(self.lies)}: shown "
            f"{self.deviant:.3g} times instead of {self.honest:.3g}."
        )


class AssistantAudit(eqx.Module):
    """Incentives, participation and no subsidy at one profile; money, expected.

    - `incentive_gain` (n,): largest gain of a report other than the truth, settled on the average
      of later reactions; `message_gain` (n,): settled on the mechanism's own posterior mean
      instead, so without data. `witness`, `message_witness` say where.
    - `participation` (n,): theta earned plus transfers. `no_subsidy` (n,): utility from i minus
      transfers to i. Both are slack: negative where the constraint fails.
    - `value`: W. `groves_total`, `shown`, `utility` (n,): charges, expected times shown, expected
      utility from each product. `tolerance`: money; gains and shortfalls below it are rounding.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    witness: tuple[AssistantWitness, ...]
    message_witness: tuple[AssistantWitness, ...]
    value: float = eqx.field(static=True)
    groves_total: Float[np.ndarray, " n"]
    shown: Float[np.ndarray, " n"]
    utility: Float[np.ndarray, " n"]
    participation: Float[np.ndarray, " n"]
    no_subsidy: Float[np.ndarray, " n"]
    tolerance: float = eqx.field(static=True)

    @property
    def incentive_gain(self) -> Float[np.ndarray, " n"]:
        """Return the largest gain of each advertiser, settled on data."""
        return np.array([w.gain for w in self.witness])

    @property
    def message_gain(self) -> Float[np.ndarray, " n"]:
        """Return the largest gain of each advertiser, settled on messages."""
        return np.array([w.gain for w in self.message_witness])

    def to_frame(self):
        """Labelled pandas table: one row an advertiser, money."""
        pandas = import_extra("pandas", "experiments", "AssistantAudit.to_frame")
        return pandas.DataFrame(
            {
                "advertiser": list(self.names),
                "shown": self.shown,
                "utility": self.utility,
                "groves_total": self.groves_total,
                "participation": self.participation,
                "no_subsidy": self.no_subsidy,
                "incentive_gain": self.incentive_gain,
                "message_gain": self.message_gain,
                "message_witness": [w.sentence() for w in self.message_witness],
            }
        )


def find_lies(
    env: ShoppingAssistant,
    types: tuple[AssistantTypes, ...],
    profile: AssistantProfile,
    history: AssistantHistory | None,
    tree: Tree,
    nodes: int,
) -> tuple[tuple[AssistantWitness, ...], tuple[AssistantWitness, ...]]:
    """Find the best report of each advertiser, settled on data and settled on messages."""
    found: tuple[list, list] = ([], [])
    for i, own in enumerate(types):
        gain, shown = report_gains(env, own, profile, history, tree, nodes, i)
        reports = [(t, s, q) for q in own.noise for s in own.signals for t in own.theta]
        for kind in range(2):
            k = int(np.argmax(gain[:, kind]))
            times = float(shown[0]), float(shown[k + 1])
            found[kind].append(_witness(env, profile, i, float(gain[k, kind]), reports[k], *times))
    return tuple(found[0]), tuple(found[1])


def report_gains(
    env: ShoppingAssistant,
    own: AssistantTypes,
    profile: AssistantProfile,
    history: AssistantHistory | None,
    tree: Tree,
    nodes: int,
    agent: int,
) -> tuple[Float[np.ndarray, "R 2"], Float[np.ndarray, " S"]]:
    """Compute the gain of each report of an advertiser, settled on data and on messages.

    Reports are in the order structure, signal, theta, the last fastest.

    **Returns:** gains over truth, money; expected times shown, under truth first.
    """
    told = profile.theta[agent][None], profile.signals[agent][None], profile.signal_noise[agent]
    honest = _flows(env, profile, history, tree, nodes, agent, *told)
    flow = np.concatenate(
        [
            _flows(env, profile, history, tree, nodes, agent, own.theta, own.signals, noise)
            for noise in own.noise
        ]
    )
    earned = (flow - honest)[:, SHOWN] @ profile.theta
    gain = (flow - honest)[:, [SETTLED, QUOTED]].sum(axis=2) + earned[:, None]
    return gain, np.concatenate([honest, flow])[:, SHOWN, agent]


@checked(env=ASSISTANT, types=TYPES, profile=PROFILE)
def least_message_gain(
    env: ShoppingAssistant, types: AssistantTypes, profile: AssistantProfile, agent: int
) -> float:
    """Compute the least epsilon of any message-driven transfers with initial context, in one round.

    For each rule of transfers some type (theta_i, s_i) of the advertiser gains at least
    (max - min over s_i of kappa(s_i)) / 2, kappa(s_i) = max(0, max_{j != i} theta_j + E[omega_j|s])
    - E[omega_i | s], clipped to the range of theta_i, all values between being possible; a posted
    price attains it. Positive: Proposition 3 at this profile of the others.

    **Arguments:** `types`: her signals, structures and range of theta. `profile`: of the others.

    **Returns:** epsilon, money.

    **Raises:** `InvalidArgument` (T > 1), `OutsideSupport`.
    """
    if env.rounds != 1:
        must, do = "have one round", "pass the environment with rounds=1"
        raise InvalidArgument(describe("least_message_gain(env=...)", must, env.rounds, do))
    agent = member("least_message_gain(agent=...)", agent, env.products)
    cutoffs = []
    for noise in types.noise:
        for signal in types.signals:
            mean = env.belief(profile.replace(agent, signal=signal, noise=noise)).mean
            rivals = np.delete(mean + profile.theta, agent)
            cutoffs.append(rivals.max(initial=0.0) - mean[agent])
    clipped = np.clip(cutoffs, types.theta.min(), types.theta.max())
    return float(clipped.max() - clipped.min()) / 2


def _flows(env, profile, history, tree, nodes, agent, values, signals, noise):
    """Expected play for each of her reports, signals slowest: (L * K, 4, n)."""
    told = [profile.replace(agent, signal=signal, noise=noise) for signal in signals]
    beliefs = [env.belief(each, history) for each in told]
    planned = tree
    if not np.array_equal(noise, profile.signal_noise[agent]):
        planned = build_tree(env, beliefs[0].covariance, "cells", nodes, tree.past)
    believed = np.repeat(np.stack([b.mean for b in beliefs]), len(values), axis=0)
    theta = np.tile(profile.theta, (len(believed), 1))
    theta[:, agent] = np.tile(values, len(signals))
    mean = np.tile(env.belief(profile, history).mean, (len(believed), 1))
    return play(tree, planned, mean, believed, theta, tree.past)[0]


def _witness(env, profile, agent, gain, report, honest, deviant) -> AssistantWitness:
    theta, signal, noise = report
    lies = []
    if theta != profile.theta[agent]:
        lies.append(f"value {theta:.3g} for {profile.theta[agent]:.3g}")
    if not np.array_equal(signal, profile.signals[agent]):
        words = [
            "(" + ", ".join(f"{x:.3g}" for x in s) + ")" for s in (signal, profile.signals[agent])
        ]
        lies.append(f"signal {words[0]} for {words[1]}")
    if not np.array_equal(noise, profile.signal_noise[agent]):
        lies.append("another noise of the signal")
    name = env.names[agent]
    return AssistantWitness(
        name, max(gain, 0.0), float(theta), signal, noise, honest, deviant, tuple(lies)
    )
