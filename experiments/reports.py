"""Reports beyond a coarse grid: any value of an interval, and which signal structure one holds.

An audit that samples lies can miss the best one. With constant values declared on an interval the
recommendation is piecewise constant in the report, so the supremum over the whole interval is
found exactly, in every period, from the breakpoints (`ConstantValues(interval=...)`). And an
advertiser's type holds her signal structure (paper C, section 5.2): which of several noises her
data have is hers to report (`PrivateStructures`), and phi_plus and phi_minus are the sup and inf
over structures as well. Data-driven settlement leaves nothing to gain from either.
"""

from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import jax
import numpy as np
import pandas as pd
import tyro

import dynmech as dm
from experiments import _markets as markets
from experiments._figures import BLUE, GREY, RED, RESULTS, new_figure, tidy
from experiments._output import Output

SETTLEMENTS = {
    "data-driven": dm.settlement.Estimator(),
    "message-driven": dm.settlement.MessageDriven(),
    "second price": dm.settlement.PerPurchaseSecondPrice(),
    "no transfers": dm.settlement.NoTransfers(),
}
SUPPORT, INTERVAL = "support [% of scale]", "interval [% of scale]"


@dataclass(frozen=True)
class Options:
    """Sizes and seeds; the defaults take about a minute."""

    markets: int = 8
    """Random markets: two products, two symbols, constant values."""
    rounds: int = 3
    """Rounds of random markets; the car market has one less."""
    margin: float = 0.5
    """How far reports may leave the support on either side, in shares of its largest value."""
    cars: int = 3
    """Cars, of the real market."""
    tastes: int = 24
    """Tastes there."""
    profiles: int = 16
    """Initial profiles drawn there; with private structures, all are solved."""
    noises: tuple[float, ...] = (0.5, 2.0)
    """Noise of each private signal structure, in multiples of the car market's."""
    seed: int = 0
    """First seed; also of the profiles of the car market."""
    results: Path = RESULTS
    """Folder; files go to `reports` inside."""


def declare(env: dm.RecommendationMDP, low: float, high: float) -> dm.RecommendationMDP:
    """The same market with an interval of reports."""
    values = dm.ConstantValues(env.values.support, env.values.prior, (low, high))
    return dm.RecommendationMDP(
        env.gamma, env.tastes, env.horizon, env.action_rule, env.signals, values, env.names
    )


def widen(env: dm.RecommendationMDP, margin: float) -> dm.RecommendationMDP:
    """Reports of any value within a margin of the support, never below zero."""
    support = env.values.support
    reach = margin * support.max()
    return declare(env, max(0.0, support.min() - reach), support.max() + reach)


def inform(env: dm.RecommendationMDP, initial: dm.AbstractInitialSignals) -> dm.RecommendationMDP:
    """The same market with other initial signals."""
    signals = dm.SignalStructure(initial, env.signals.feedback, env.signals.settlement)
    return dm.RecommendationMDP(
        env.gamma, env.tastes, env.horizon, env.action_rule, signals, env.values, env.names
    )


def shading_pays() -> dm.RecommendationMDP:
    """One round; advertiser i knows the taste, A or B; theta = (1, 0), u = 0 but u_j(B) = 10.

    What is shown is bought, but j at B with probability 1/20. Settled by messages, a lie about the
    signal alone ("B" at A) still shows i, as 1 > 10/20, and gains 0; with a value below 1/2 it
    shows j, bought for certain and settled at 10: a gain of 10 - 1 = 9.
    """
    action = np.zeros((3, 4, 2))
    action[0, 0] = 1.0
    action[1, 1], action[1, 2] = (1.0, 0.05), (0.0, 0.95)
    action[2, 2] = 1.0
    env = dm.RecommendationMDP.from_tables(
        np.array([[0.0], [1.0]]), np.array([[0.0], [10.0]]), np.full(2, 0.5), 1, action,
        np.ones((3, 2, 1, 1, 1)), np.eye(2)[:, None, :, None],
        np.array([[1.0], [0.0]]), np.ones((2, 1)), np.ones((3, 2, 1, 1)), names=("i", "j"),
    )  # fmt: skip
    return declare(env, 0.0, 2.0)


def vague_or_sharp() -> dm.RecommendationMDP:
    """One round; advertiser i is sharp (knows whether the taste is A or B) or vague, evenly.

    theta = 0, u_i = (2, -2), u_j = (-2, 3); what is shown is bought. Settled by messages, told
    "sharp, B" the platform shows j and settles at 3. Sharp at A gains 3 - 2 = 1; vague, whom truth
    brings 1/2, gains 5/2. Known to be vague she has nothing to lie about.
    """
    action = np.zeros((3, 4, 2))
    action[np.arange(3), np.arange(3)] = 1.0
    env = dm.RecommendationMDP.from_tables(
        np.eye(2), np.array([[2.0, -2.0], [-2.0, 3.0]]), np.full(2, 0.5), 1, action,
        np.ones((3, 2, 1, 1, 1)), np.ones((2, 1, 1, 1)),
        np.zeros((2, 1)), np.ones((2, 1)), np.ones((3, 2, 1, 1)), names=("i", "j"),
    )  # fmt: skip
    parts = [dm.JointSignals(x) for x in (np.eye(2)[:, None, :, None], np.ones((2, 1, 1, 1)))]
    return inform(env, dm.PrivateStructures(parts, labels=("sharp", "vague")))


def intervals(label: str, policy: dm.EfficientPolicy) -> list[dict[str, str | float]]:
    """Largest gains of one lie with reports of the support and of the interval."""
    rows, scale = [], policy.env.money_scale / 100
    mechanism = dm.DynamicTeamMechanism(policy, dm.groves.Zero())
    for name, settlement in SETTLEMENTS.items():
        some = mechanism.audit(settlement, interval=False)
        began = perf_counter()
        every = mechanism.audit(settlement)
        seconds = perf_counter() - began
        worst = int(np.argmax(every.incentive_gain))
        late = every.gain_by_period[:, 1:].max(initial=0.0)
        rows.append(
            {
                "market": label,
                "settlement": name,
                SUPPORT: some.incentive_gain.max() / scale,
                INTERVAL: every.incentive_gain.max() / scale,
                "interval, after period 1 [% of scale]": late / scale,
                "lies compared": every.deviations,
                "seconds [s]": seconds,
                "witness": every.witness[worst].sentence(),
            }
        )
    return rows


def structures(label: str, known: str, policy: dm.EfficientPolicy) -> dict[str, str | float]:
    """Gains of one lie, and what separates phi_plus from phi_minus, when structures are `known`."""
    scale = policy.env.money_scale / 100
    plus = dm.DynamicTeamMechanism(policy, dm.groves.NoSubsidy())
    minus = dm.DynamicTeamMechanism(policy, dm.groves.Participation())
    audits = [plus.audit(SETTLEMENTS[x]) for x in ("data-driven", "message-driven")]
    worst = int(np.argmax(audits[1].incentive_gain))
    gap = plus.groves_total - minus.groves_total
    live = np.isfinite(audits[0].window.floor)
    return {
        "market": label,
        "structure": known,
        "data-driven gain [% of scale]": audits[0].incentive_gain.max() / scale,
        "message-driven gain [% of scale]": audits[1].incentive_gain.max() / scale,
        "phi_plus - phi_minus, mean [% of scale]": float(np.nanmean(gap)) / scale,
        "and largest [% of scale]": float(np.nanmax(gap)) / scale,
        "window open [% of profiles]": 100 * float(audits[0].window.open[live].mean()),
        "witness": audits[1].witness[worst].sentence(),
    }


def structured_cars(options: Options) -> list[dict[str, str | float]]:
    """The car market when all advertisers are known to hold each structure, and in private."""
    rounds = max(1, options.rounds - 1)
    env, _ = markets.real_market("cars", options.cars, options.tastes, rounds)
    _, platform, first = markets.REAL_NOISE["cars"]
    parts = [dm.GaussianSignals(platform, first * x, symbols=2) for x in options.noises]
    labels = [f"noise {first * x:g}" for x in options.noises]
    private = dm.PrivateStructures(parts, labels=labels)
    held = {f"known: {x}": part for x, part in zip(labels, parts, strict=True)}
    held = {**held, "private": private}
    rows = []
    for name, initial in held.items():
        policy = dm.solve_efficient_policy(inform(env, initial), progress=False)
        rows.append(structures("cars", name, policy))
    return rows


def picture(table: pd.DataFrame, out: Output) -> None:
    """Gains found on the support and on the interval, a panel for each settlement."""
    names = [name for name in SETTLEMENTS if name != "data-driven"]
    figure, panels = new_figure(9.5, 3.6, ncols=len(names), sharey=True)
    for axes, name in zip(panels, names, strict=True):
        rows = table[table["settlement"] == name]
        place = np.arange(len(rows))
        axes.vlines(place, rows[SUPPORT], rows[INTERVAL], color=GREY, linewidth=1)
        axes.plot(place, rows[INTERVAL], "o", color=RED, markersize=6, label="any value")
        axes.plot(place, rows[SUPPORT], "s", color=BLUE, markersize=4, label="support")
        axes.set_xticks(place, [x.replace("seed ", "") for x in rows["market"]], fontsize=8)
        tidy(axes, name, "random market (seed), and cars", "% of largest |theta + u|")
    panels[1].set_ylabel("")
    panels[2].set_ylabel("")
    panels[0].set_ylim(0, 1.25 * table[[SUPPORT, INTERVAL]].to_numpy().max())
    panels[0].legend(fontsize=8, frameon=False, loc="upper left", ncols=2)
    figure.suptitle("Largest gain of one lie, by the values that may be reported", fontsize=11)
    out.picture("intervals", figure)


def main(options: Options) -> None:
    """Run both parts, in float64."""
    with jax.enable_x64(True):
        out = Output(options.results / "reports", "% of largest |theta + u|")
        out.heading("Values reported on an interval")
        policies = {}
        for s in range(options.seed, options.seed + options.markets):
            env = markets.random_market(s, rounds=options.rounds, constant=True)
            env = widen(env, options.margin)
            policies[f"seed {s}"] = dm.solve_efficient_policy(env, progress=False)
        rounds = max(1, options.rounds - 1)
        env, market = markets.real_market("cars", options.cars, options.tastes, rounds)
        env = widen(env, options.margin)
        batch = env.sample_profiles(jax.random.key(options.seed), options.profiles)
        policies["cars"] = dm.solve_efficient_policy(env, initial=batch, progress=False)
        out.bullets(
            [
                (
                    f"{options.markets} random markets, two products, {options.rounds} rounds, two "
                    "values each; any value may be reported that is within "
                    f"{100 * options.margin:g} % of the largest of theirs, in every period."
                ),
                "All gains in % of the market's largest |theta + u|, conditional on the node.",
                *markets.real_assumptions(market, "cars"),
            ]
        )
        rows = [row for label, policy in policies.items() for row in intervals(label, policy)]
        table = pd.DataFrame(rows)
        out.table("intervals_witnesses", table, "With witnesses", show=False)
        out.table("intervals", table.drop(columns="witness"), "Largest gain of one lie")
        picture(table, out)
        built = pd.DataFrame(
            intervals("constructed", dm.solve_efficient_policy(shading_pays(), progress=False))
        )
        out.table("constructed", built, "With witnesses", show=False)
        out.say(f"Constructed, settled by messages: {built.iloc[1]['witness']}")

        out.heading("Signal structures as part of the report")
        policy = dm.solve_efficient_policy(vague_or_sharp(), progress=False)
        rows = [structures("constructed", "private", policy), *structured_cars(options)]
        table = pd.DataFrame(rows)
        out.bullets(
            [
                "Constructed: advertiser i knows the taste (sharp) or nothing (vague), evenly.",
                (
                    "Cars: each advertiser's first signal has one of the noises stated, evenly, "
                    "which she knows and reports; or all are known to hold the same."
                ),
            ]
        )
        out.table("structures_witnesses", table, "With witnesses", show=False)
        out.table("structures", table.drop(columns="witness"), "Known and private structures")
        out.say(f"Constructed, settled by messages: {table.iloc[0]['witness']}")
        out.finish(options)


if __name__ == "__main__":
    dm.enable_compilation_cache()
    main(tyro.cli(Options, description=__doc__))
