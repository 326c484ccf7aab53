"""Gains of misreports at the outset under a long-horizon policy, measured by simulation.

Advertiser i of a profile may report any value she can and any of her initial symbols, truth after
(her value stays as reported: it does not change in a conversation). Gains are differences of
payoffs on the same noise, float64; Groves totals drop out, as they do not depend on her report.
"""

import equinox as eqx
import numpy as np
from jaxtyping import Bool, Float, Int

from dynmech.audit.witness import Witness
from dynmech.errors import import_extra
from dynmech.market.signals import AbstractSettlementSignal
from dynmech.market.values import reportable
from dynmech.payments.settlement import AbstractSettlement
from dynmech.policy.played import Playable
from dynmech.policy.player import Played, Player, Report
from dynmech.solve.certificates import margin

_SEED = 11
_SAME = 1e-12  # of the money scale: rounding
_FEW = 30  # conversations that differ: fewer tell nothing by the central limit theorem


class MeasuredGains(eqx.Module):
    """R misreports, each with its expected gain over truth, money.

    - `profile`, `advertiser`, `signal` (R,): indices; `value` (R,): reported, money.
    - `gain`, `error` (R,): mean and standard error over `runs` conversations.
    - `differing` (R,): conversations in which the lie changed what is paid or yielded.
    - `low`, `high`: bounds with `confidence`, all of each kind at once (Bonferroni, Student's t).
      Where fewer than 30 conversations differ they are wider by -log(alpha) `spread` / runs:
      what differs with chance p escapes all runs with chance (1 - p)^runs <= exp(-p runs).
      `spread`: most that one conversation can differ by, twice money scale plus bias, money.
    - `honest`, `deviant` (R,): recommended first, n for none.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    profile: Int[np.ndarray, " R"]
    advertiser: Int[np.ndarray, " R"]
    value: Float[np.ndarray, " R"]
    signal: Int[np.ndarray, " R"]
    gain: Float[np.ndarray, " R"]
    error: Float[np.ndarray, " R"]
    differing: Int[np.ndarray, " R"]
    honest: Int[np.ndarray, " R"]
    deviant: Int[np.ndarray, " R"]
    confidence: float = eqx.field(static=True)
    runs: int = eqx.field(static=True)
    spread: float = eqx.field(static=True)

    @property
    def low(self) -> Float[np.ndarray, " R"]:
        return self.gain - self._width

    @property
    def high(self) -> Float[np.ndarray, " R"]:
        return self.gain + self._width

    @property
    def _width(self) -> Float[np.ndarray, " R"]:
        unseen = np.where(self.differing < _FEW, self.spread / self.runs, 0.0)
        return margin(self.error, unseen, self.confidence, self.runs, len(self.gain))

    def best(self, column: np.ndarray, profiles: int) -> Float[np.ndarray, "n _B"]:
        """Largest of a column over the reports of each advertiser and profile, at least 0."""
        table = np.zeros((len(self.names), profiles))
        np.maximum.at(table, (self.advertiser, self.profile), column)
        return table

    def to_frame(self):
        """Labelled pandas table: one row a misreport, money."""
        pandas = import_extra("pandas", "experiments", "MeasuredGains.to_frame")
        labels = np.array([*self.names, "none"], dtype=object)
        return pandas.DataFrame(
            {
                "profile": self.profile,
                "advertiser": labels[self.advertiser],
                "reported_value": self.value,
                "reported_signal": self.signal,
                "gain": self.gain,
                "standard_error": self.error,
                "differing_conversations": self.differing,
                "low": self.low,
                "high": self.high,
                "honest_recommendation": labels[self.honest],
                "recommendation": labels[self.deviant],
            }
        )


class Truth(eqx.Module):
    """The truthful play of every profile of a batch."""

    played: tuple[Played, ...]


def measure_gains(
    policy: Playable,
    settlement: AbstractSettlement,
    signal: AbstractSettlementSignal,
    runs: int,
    confidence: float,
    interval: bool,
    bias: float,
    seed: int = _SEED,
) -> tuple[MeasuredGains, Truth]:
    """Simulate every report that each advertiser can make at the outset of each profile.

    **Arguments:** `interval`: also the ends of a declared interval of reports; `bias`: largest
    of the estimate, money.
    """
    env, n = policy.env, policy.env.products
    player = Player(env, policy.process, policy.network, policy.chunk, runs, [seed])
    values = reportable(env.values) if interval else env.values.support
    rows, truths = [], []
    for b in range(len(policy.profiles)):
        theta, signals = policy.theta(b), policy.profiles.signals[b]
        truth = player.play(theta, signals, settlement, signal)
        truths.append(truth)
        for i in range(n):
            for value in np.unique(np.asarray(values[i], float)).tolist():
                for symbol in range(env.initial_alphabet[i + 1]):
                    if (value, symbol) == (float(theta[i]), int(signals[i + 1])):
                        continue
                    report = Report(i, value, symbol)
                    lie = player.play(theta, signals, settlement, signal, report)
                    extra = (lie.steady_payoff - truth.steady_payoff)[:, i]
                    error = extra.std(ddof=1) / runs**0.5
                    count = (np.abs(extra) > _SAME * env.money_scale).sum()
                    first = truth.first, lie.first
                    rows.append((b, i, value, symbol, extra.mean(), error, count, *first))
    kinds = (int, int, float, int, float, float, int, int, int)
    columns = zip(*rows, strict=True) if rows else [()] * len(kinds)
    arrays = [np.array(column, kind) for column, kind in zip(columns, kinds, strict=True)]
    spread = 2 * (env.money_scale + bias)
    gains = MeasuredGains(env.names, *arrays, confidence=confidence, runs=runs, spread=spread)
    return gains, Truth(tuple(truths))


def witness(policy: Playable, gains: MeasuredGains, i: int) -> Witness:
    """The most profitable misreport measured for an advertiser, in words."""
    mine: Bool[np.ndarray, " R"] = gains.advertiser == i
    worth = np.where(mine, gains.gain, -np.inf)
    if not mine.any() or worth.max() <= 0:
        return Witness(gains.names[i], 0, 0.0, (), (), (), (0.0, 0), (0.0, 0), "", "", 0.0)
    k = int(np.argmax(worth))
    labels, b = (*gains.names, "none"), int(gains.profile[k])
    theta, signals = policy.theta(b), policy.profiles.signals[b]
    return Witness(
        advertiser=gains.names[i],
        period=1,
        gain=float(gains.gain[k]),
        theta=tuple(theta.tolist()),
        signals=tuple(int(z) for z in signals),
        history=(),
        truth=(float(theta[i]), int(signals[i + 1])),
        report=(float(gains.value[k]), int(gains.signal[k])),
        honest=labels[int(gains.honest[k])],
        deviant=labels[int(gains.deviant[k])],
        probability=1.0,
    )
