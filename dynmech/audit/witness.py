"""A witness: one misreport, where it is made, and what it gains."""

import dataclasses
import functools
from typing import Any

import equinox as eqx

from dynmech._types import Record
from dynmech.market.environment import RecommendationMDP


class Witness(Record):
    """The most profitable misreport found for an advertiser, or for an agent of the static theory.

    `period` counts from 1, 0 where there are none; `history` lists (recommendation, symbols seen)
    before it; `truth` and `report` are (theta, symbol), and what else is reported of private
    signals; `honest` and `deviant` the recommendations made (-1 for none), or what is chosen;
    `gain` the expected gain over truth, money, conditional on the node; `probability` that of
    the node given the initial profile. Where own past lies are searched, `own_signals` and
    `told_signals` are the advertiser's true symbols of earlier periods and those told. Where an
    interval of reports is searched, every value strictly between the two of `report_interval`
    does the same as the one reported (a single report where they are equal). With private signal
    structures, `structures` names the one reported and the one held, `symbols` says which of
    their symbols.
    """

    advertiser: str = eqx.field(static=True)
    period: int = eqx.field(static=True)
    gain: float = eqx.field(static=True)
    theta: tuple[Any, ...] = eqx.field(static=True)
    signals: tuple[Any, ...] = eqx.field(static=True)
    history: tuple[tuple[str, tuple[int, ...]], ...] = eqx.field(static=True)
    truth: tuple[Any, ...] = eqx.field(static=True)
    report: tuple[Any, ...] = eqx.field(static=True)
    honest: str = eqx.field(static=True)
    deviant: str = eqx.field(static=True)
    probability: float = eqx.field(static=True)
    own_signals: tuple[int, ...] = eqx.field(static=True, default=())
    told_signals: tuple[int, ...] = eqx.field(static=True, default=())
    report_interval: tuple[float, ...] = eqx.field(static=True, default=())
    structures: tuple[str, ...] = eqx.field(static=True, default=())
    symbols: tuple[int, ...] = eqx.field(static=True, default=())
    lies: tuple[str, ...] = eqx.field(static=True, default=())
    act: str = eqx.field(static=True, default="the platform recommends")

    def sentence(self) -> str:
        """Say it so that a person can follow."""
        if self.gain <= 0:
            return f"{self.advertiser} has no profitable misreport."
        before = ""
        if self.history:
            seen = "; ".join(f"{shown} was shown and signals {z} came" for shown, z in self.history)
            before = f" after {seen},"
        if self.told_signals != self.own_signals:
            told, own = list(self.told_signals), list(self.own_signals)
            before += f" with {told} told as her earlier signals instead of {own},"
        change = f"{self.act} {self.deviant} instead of {self.honest}"
        if self.deviant == self.honest:
            article, who, does = self.act.split(" ", 2)
            change = f"{article} {who} still {does} {self.honest}, but believes otherwise"
        when = f"In period {self.period},{before} " if self.period else ""
        return (
            f"{when}{self.advertiser} gains {self.gain:.4g} by reporting "
            f"{' and '.join(self.lies or self._lies())}: {change}."
        )

    def _lies(self) -> list[str]:
        lies = []
        if self.report[0] != self.truth[0]:
            lies.append(f"{self._value()} instead of {self.truth[0]:.4g}")
        if self.report[1] != self.truth[1]:
            lies.append(self._signal())
        return lies or ["the truth about this period only"]

    def _value(self) -> str:
        low, high = self.report_interval or (self.report[0],) * 2
        if low == high:
            return f"a value of {self.report[0]:.4g}"
        return f"a value of {self.report[0]:.4g} (any from {low:.4g} to {high:.4g})"

    def _signal(self) -> str:
        if not self.structures:
            return f"signal {self.report[1]} instead of {self.truth[1]}"
        (told, held), (said, seen) = self.structures, self.symbols
        return f"signal {said} of {told} instead of {seen} of {held}"


@functools.lru_cache
def no_witness(advertiser: str) -> Witness:
    """The witness of one who gains nothing."""
    return Witness(advertiser, 0, 0.0, (), (), (), (0.0, 0), (0.0, 0), "", "", 0.0)


def name_structures(env: RecommendationMDP, witness: Witness) -> Witness:
    """Name the signal structures told and held, where they are private."""
    held = env.signals.initial if witness.period == 1 else env.signals.feedback
    if witness.period == 0:
        return witness
    party = env.names.index(witness.advertiser) + 1
    pairs = []
    for symbol in (witness.report[1], witness.truth[1]):
        joint = [symbol if p == party else 0 for p in range(env.products + 1)]
        told = held.describe(joint)
        if told is None:
            return witness
        pairs.append(told[party])
    labels, symbols = zip(*pairs, strict=True)
    return dataclasses.replace(witness, structures=labels, symbols=symbols)
