"""A witness: one misreport, where it is made, and what it gains."""

import equinox as eqx


class Witness(eqx.Module):
    """The most profitable single-period misreport found for an advertiser.

    `period` counts from 1; `history` lists (recommendation, symbols seen) before it; `truth` and
    `report` are (theta, symbol); `honest` and `deviant` the recommendations made (-1 for none);
    `gain` the expected gain over truth, money, conditional on the node; `probability` that of
    the node given the initial profile.
    """

    advertiser: str = eqx.field(static=True)
    period: int = eqx.field(static=True)
    gain: float = eqx.field(static=True)
    theta: tuple[float, ...] = eqx.field(static=True)
    signals: tuple[int, ...] = eqx.field(static=True)
    history: tuple[tuple[str, tuple[int, ...]], ...] = eqx.field(static=True)
    truth: tuple[float, int] = eqx.field(static=True)
    report: tuple[float, int] = eqx.field(static=True)
    honest: str = eqx.field(static=True)
    deviant: str = eqx.field(static=True)
    probability: float = eqx.field(static=True)

    def sentence(self) -> str:
        """Say it so that a person can follow."""
        if self.gain <= 0:
            return f"{self.advertiser} has no profitable misreport."
        before = ""
        if self.history:
            seen = "; ".join(f"{shown} was shown and signals {z} came" for shown, z in self.history)
            before = f" after {seen},"
        lies = []
        if self.report[0] != self.truth[0]:
            lies.append(f"a value of {self.report[0]:.4g} instead of {self.truth[0]:.4g}")
        if self.report[1] != self.truth[1]:
            lies.append(f"signal {self.report[1]} instead of {self.truth[1]}")
        change = f"the platform recommends {self.deviant} instead of {self.honest}"
        if self.deviant == self.honest:
            change = f"the platform still recommends {self.honest}, but believes otherwise later"
        return (
            f"In period {self.period},{before} {self.advertiser} gains {self.gain:.4g} by "
            f"reporting {' and '.join(lies)}: {change}."
        )
