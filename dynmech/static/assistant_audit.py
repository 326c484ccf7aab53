"""Search for profitable reports in the shopping assistant, and say what was found.

Also Proposition 3 in numbers. In one round an advertiser's payoff before transfers is
theta_i 1{i is shown}: she does not care about what she saw. Efficiency shows i iff theta_i exceeds
a cutoff kappa(s_i), the best alternative minus E[omega_i | s]. Whatever a message-driven mechanism
pays, reports that lead to the same decision must pay alike, so that one posted price must serve
all s_i: some type gains at least half the spread of the cutoffs by misreporting s_i.
"""

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float

from dynmech._checks import checked, member
from dynmech.audit.constraints import AbstractAudit
from dynmech.audit.witness import Witness
from dynmech.bounded import Bounded
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


class AssistantAudit(AbstractAudit):
    """Incentives, participation and no subsidy at one profile; money, expected.

    - `gain` (n,), `incentive_gain`: largest gain of a report other than the truth, settled on the
      average of later reactions; `message_gain` (n,): settled on the mechanism's own posterior mean
      instead, so without data. `witness`, `message_witness` say where: the report is (theta,
      signal, noise), and the outcome the expected times that she is shown.
    - `participation` (n,): theta earned less payments. `no_subsidy` (n,): utility from i plus
      payments of i. Both are slack: negative where the constraint fails; of one profile, so
      that their means are they themselves.
    - `value`: W. `groves_total`, `shown`, `utility` (n,): charges, expected times shown, expected
      utility from each product. `tolerance`: money; gains and shortfalls below it are rounding.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    gain: Bounded
    witness: tuple[Witness, ...]
    message_witness: tuple[Witness, ...]
    value: float = eqx.field(static=True)
    groves_total: Float[np.ndarray, " n"]
    shown: Float[np.ndarray, " n"]
    utility: Float[np.ndarray, " n"]
    slack_participation: Bounded
    slack_no_subsidy: Bounded
    mean_participation: Bounded
    mean_no_subsidy: Bounded
    confidence: float = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)

    @property
    def message_gain(self) -> Float[np.ndarray, " n"]:
        """Return the largest gain of each advertiser, settled on messages."""
        return np.array([w.gain for w in self.message_witness])

    def to_frame(self):
        """Labelled pandas table: one row an advertiser, money."""
        pandas = import_extra("pandas", "experiments", "AssistantAudit.to_frame")
        return pandas.DataFrame(
            self.columns(
                shown=self.shown,
                utility=self.utility,
                groves_total=self.groves_total,
                message_gain=self.message_gain,
                message_witness=[w.sentence() for w in self.message_witness],
            )
        )


def find_lies(
    env: ShoppingAssistant,
    types: tuple[AssistantTypes, ...],
    profile: AssistantProfile,
    history: AssistantHistory | None,
    tree: Tree,
    nodes: int,
) -> tuple[tuple[Witness, ...], tuple[Witness, ...]]:
    """Find the best report of each advertiser, settled on data and settled on messages."""
    found: tuple[list[Any], list[Any]] = ([], [])
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


def _flows(
    env: ShoppingAssistant,
    profile: AssistantProfile,
    history: AssistantHistory | None,
    tree: Tree,
    nodes: int,
    agent: int,
    values: np.ndarray,
    signals: np.ndarray,
    noise: np.ndarray,
):
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


def _witness(
    env: ShoppingAssistant,
    profile: AssistantProfile,
    agent: int,
    gain: float,
    report: tuple[float, np.ndarray, np.ndarray],
    honest: float,
    deviant: float,
) -> Witness:
    told = tuple(_plain(part) for part in report)
    each = zip(profile.theta, profile.signals, profile.signal_noise, strict=True)
    true = [tuple(_plain(part) for part in parts) for parts in each]
    (value, signal, noise), lies = true[agent], []
    if told[0] != value:
        lies.append(f"value {told[0]:.3g} instead of {value:.3g}")
    if told[1] != signal:
        said, seen = (", ".join(f"{x:.3g}" for x in s) for s in (told[1], signal))
        lies.append(f"signal ({said}) instead of ({seen})")
    if told[2] != noise:
        lies.append("another noise of the signal")
    return Witness(
        advertiser=env.names[agent],
        period=0,
        gain=max(gain, 0.0),
        theta=tuple(parts[0] for parts in true),
        signals=tuple(parts[1] for parts in true),
        history=(),
        truth=true[agent],
        report=told,
        honest=f"{honest:.3g} times",
        deviant=f"{deviant:.3g} times",
        probability=1.0,
        lies=tuple(lies),
        act="the assistant shows her",
    )


def _plain(part: Any) -> Any:
    """An array as nested tuples."""
    values = np.asarray(part, float).tolist()
    return tuple(map(_plain, values)) if isinstance(values, list) else values
