"""Gains of misreports at the outset under a long-horizon policy, measured by simulation.

Advertiser i of a profile may report any value she can and any of her initial symbols, truth after
(her value stays as reported: it does not change in a conversation). Gains are differences of
payoffs on the same noise, float64; Groves totals drop out, as they do not depend on her report.
"""

from collections.abc import Sequence
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int

from dynmech._devices import Work
from dynmech._types import Record
from dynmech.audit.witness import Witness, no_witness
from dynmech.bounded import Bounded
from dynmech.errors import import_extra
from dynmech.market.displays import words
from dynmech.market.settlements import AbstractSettlementSignal
from dynmech.market.values import reportable
from dynmech.payments.settlement import AbstractSettlement
from dynmech.policy.playable import Playable
from dynmech.policy.player import Played, Player, Report
from solvers import betting_lower, betting_upper

_SEED = 11
_HERE = Work("audit")
_WHERE = "profile", "advertiser", "value", "signal", "differing", "honest", "deviant"
_SAME = 1e-12  # of the money scale: rounding


class MeasuredGains(Record):
    """R misreports, each with its expected gain over truth, money.

    - `profile`, `advertiser`, `signal` (R,): indices; `value` (R,): reported, money.
    - `gain` (R,): means over `runs` conversations. Their bounds hold all at once (a union bound
      over both sides of R entries), by betting: for any law of the payoffs within their range.
    - `differing` (R,): conversations in which the lie changed what is paid or yielded.
    - `honest`, `deviant` (R,): recommended first, as indices into `displays`, in words.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    displays: tuple[str, ...] = eqx.field(static=True)
    profile: Int[np.ndarray, " R"]
    advertiser: Int[np.ndarray, " R"]
    value: Float[np.ndarray, " R"]
    signal: Int[np.ndarray, " R"]
    gain: Bounded
    differing: Int[np.ndarray, " R"]
    honest: Int[np.ndarray, " R"]
    deviant: Int[np.ndarray, " R"]
    runs: int = eqx.field(static=True)

    def best(self, column: np.ndarray, profiles: int) -> Float[np.ndarray, "n _B"]:
        """Largest of a column over the reports of each advertiser and profile, at least 0."""
        table = np.zeros((len(self.names), profiles))
        np.maximum.at(table, (self.advertiser, self.profile), column)
        return table

    def to_frame(self):
        """Labelled pandas table: one row a misreport, money."""
        pandas = import_extra("pandas", "experiments", "MeasuredGains.to_frame")
        labels = np.array(self.names, dtype=object)
        shown = np.array(self.displays, dtype=object)
        return pandas.DataFrame(
            {
                "profile": self.profile,
                "advertiser": labels[self.advertiser],
                "reported_value": self.value,
                "reported_signal": self.signal,
                "gain": self.gain.value,
                "standard_error": self.gain.error,
                "differing_conversations": self.differing,
                "low": self.gain.lower,
                "high": self.gain.upper,
                "honest_recommendation": shown[self.honest],
                "recommendation": shown[self.deviant],
            }
        )


class Truth(Record):
    """The truthful play of every profile of a batch."""

    played: tuple[Played, ...]


def measure_gains(
    policy: Playable,
    settlement: AbstractSettlement,
    signal: AbstractSettlementSignal,
    runs: int,
    confidence: float,
    interval: bool,
    bias: float | None,
    seed: Sequence[int] = (_SEED,),
    work: Work = _HERE,
) -> tuple[MeasuredGains, Truth]:
    """Simulate every report that each advertiser can make at the outset of each profile.

    **Arguments:** `interval`: also the ends of a declared interval of reports; `bias`: most that
    one purchase pays beside the surplus, money, None where that is not known; `work`: where
    profiles and reports are played, and their gains kept.
    """
    env = policy.env
    given = env, policy.process, policy.critic, policy.chunk, runs, list(seed), policy.chooser
    player = Player(*given)
    values = reportable(env.values) if interval else env.values.support
    listed, profiles = _reports(policy, values), policy.profiles
    alpha = (1 - confidence) / (2 * max(len(listed), 1))

    def play(b: int, report: Report | None) -> Played:
        given = policy.theta(b), profiles.signals[b], settlement, signal, report
        return player.play(*given, bias)

    truths = work.each(lambda b: play(b, None), range(len(profiles)))

    def lie(k: int) -> tuple[Any, ...]:
        b, i, value, symbol = listed[k]
        told = play(b, Report(i, value, symbol))
        return _gain(truths[b], told, i, alpha, env.money_scale)

    found = work.each(lie, range(len(listed)), lambda k: ("report", k))
    rows = [(*row, *gain) for row, gain in zip(listed, found, strict=True)]
    kinds = (int, int, float, int, int, int, int, float, float, float, float)
    columns = zip(*rows, strict=True) if rows else [()] * len(kinds)
    arrays = [np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    gains = MeasuredGains(
        names=env.names,
        displays=(*words(env), "a draw"),
        **dict(zip(_WHERE, arrays[:7], strict=True)),
        gain=Bounded(*arrays[7:], confidence=confidence),
        runs=runs,
    )
    return gains, Truth(tuple(truths))


def _reports(policy: Playable, values: np.ndarray) -> list[tuple[int, int, float, int]]:
    """Profile, advertiser, value and symbol of every report but the truth."""
    env = policy.env
    return [
        (b, i, value, symbol)
        for b in range(len(policy.profiles))
        for i in range(env.products)
        for value in np.unique(np.asarray(values[i], float)).tolist()
        for symbol in range(env.initial_alphabet[i + 1])
        if (value, symbol) != (float(policy.theta(b)[i]), int(policy.profiles.signals[b, i + 1]))
    ]


def _gain(truth: Played, lie: Played, i: int, alpha: float, scale: float) -> tuple[Any, ...]:
    """Conversations that differ, both first recommendations; mean, bounds, standard error."""
    extra = (lie.steady_payoff - truth.steady_payoff)[:, i]
    error = extra.std(ddof=1) / len(extra) ** 0.5
    differing = np.abs(extra) > _SAME * scale
    most = truth.reach + lie.reach
    if max(truth.going, lie.going) == 0:  # nothing is drawn
        low = high = extra.mean()
    else:
        low, high = betting_lower(extra, -most, alpha), betting_upper(extra, most, alpha)
    means = extra.mean(), float(low), float(high), error
    return differing.sum(), truth.first, lie.first, *means


def witness(policy: Playable, gains: MeasuredGains, i: int) -> Witness:
    """The most profitable misreport measured for an advertiser, in words."""
    mine: Bool[np.ndarray, " R"] = gains.advertiser == i
    worth = np.where(mine, gains.gain.value, -np.inf)
    if not mine.any() or worth.max() <= 0:
        return no_witness(gains.names[i])
    k = int(np.argmax(worth))
    labels, b = gains.displays, int(gains.profile[k])
    theta, signals = policy.theta(b), policy.profiles.signals[b]
    return Witness(
        advertiser=gains.names[i],
        period=1,
        gain=float(gains.gain.value[k]),
        theta=tuple(theta.tolist()),
        signals=tuple(int(z) for z in signals),
        history=(),
        truth=(float(theta[i]), int(signals[i + 1])),
        report=(float(gains.value[k]), int(gains.signal[k])),
        honest=labels[int(gains.honest[k])],
        deviant=labels[int(gains.deviant[k])],
        probability=1.0,
    )
