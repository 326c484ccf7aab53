"""Reporting conventions after own past lies, and Groves terms charged when a period is reached.

Theorem 1 of paper C, "after every history", needs a truthful own past or cumulative reporting:
after her own lie an advertiser who reports only each period's own signal can gain by a second lie
that undoes the first; restating the whole signal history leaves nothing to gain. From the outset
no strategy gains either way. And "phi_it arbitrary" breaks the theorem for t >= 2: own reports
move whether period 2 is reached, so a constant charged there is manipulable; installments of a
total that is the same on every path are not (model page, section 7, items 1 and 3).
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import tyro

import dynmech as dm
from experiments import _markets as markets
from experiments._figures import COLOURS, RESULTS, new_figure, tidy
from experiments._output import Output

CONVENTIONS = ("incremental", "cumulative")
HISTORIES = {"on-path": "truthful past", "all": "any own past"}


@dataclass(frozen=True)
class Options:
    """Sizes and seeds; the defaults take well under a minute."""

    markets: int = 10
    """Random markets: two products, two symbols."""
    rounds: int = 3
    """Rounds, of random markets and of the car market."""
    charge: float = 1.0
    """Constant charged if period 2 is reached, in shares of E[W]."""
    seed: int = 0
    """First seed; also of the profiles of the car market."""
    cars: int = 3
    """Cars, of the real market."""
    profiles: int = 16
    """Initial profiles drawn there."""
    results: Path = RESULTS
    """Folder; files go to `reporting` inside."""


def conventions(label: str, policy: dm.EfficientPolicy) -> list[dict[str, str | float]]:
    """Gains of single lies by convention and history, and of strategies from the outset."""
    rows, scale = [], policy.env.money_scale / 100
    for reports in CONVENTIONS:
        mechanism = dm.DynamicTeamMechanism(policy, dm.groves.Zero(), reports=reports)
        row: dict[str, str | float] = {"market": label, "reports": reports}
        for histories, words in HISTORIES.items():
            audit = mechanism.audit(histories=histories)
            row[f"{words} [% of scale]"] = audit.incentive_gain.max() / scale
            late = audit.gain_by_period[:, 1:].max(initial=0.0)
            row[f"{words}, in period 1 [% of scale]"] = audit.first_gain.max() / scale
            row[f"{words}, after period 1 [% of scale]"] = late / scale
            worst = int(np.argmax(audit.incentive_gain))
            row["witness"] = audit.witness[worst].sentence()
            row["largest in period"] = audit.witness[worst].period
        row["strategy from the outset [% of scale]"] = (
            float(np.nanmax(mechanism.best_response().gain)) / scale
        )
        rows.append(row)
    return rows


def charges(label: str, policy: dm.EfficientPolicy, share: float) -> dict[str, str | float]:
    """Gains when a constant is charged as period 2 is reached, and when a total is split."""
    scale = policy.env.money_scale / 100
    mean = float(np.nanmean(policy.value)) if policy.batch else policy.ex_ante_value
    amount = np.full(policy.env.products, share * mean)
    plain = dm.DynamicTeamMechanism(policy, dm.groves.Zero())
    reach = plain.audit(dm.settlement.ChargeOnReach(amount, period=2))
    split = dm.DynamicTeamMechanism(policy, dm.groves.Participation(), installments=(0.5, 0.5))
    worst = int(np.argmax(reach.incentive_gain))
    return {
        "market": label,
        "constant charged in period 2 [% of scale]": amount[0] / scale,
        "its largest gain [% of scale]": reach.incentive_gain.max() / scale,
        "installments: largest gain [% of scale]": split.audit().incentive_gain.max() / scale,
        "installments: totals differ by [% of scale]": _spread(split) / scale,
        "witness": reach.witness[worst].sentence(),
    }


def _spread(mechanism: dm.DynamicTeamMechanism) -> float:
    """How far installments add to different totals if the user leaves in period 1 or 2."""
    policy = mechanism.policy
    n, profile = policy.env.products, int(np.argmax(policy.mass))
    start = policy.start(profile=profile)
    moving = isinstance(policy.env.values, dm.MarkovValues)
    theta = policy.profiles.theta[profile] if moving else None
    ends = (start.step(n), start.step(n + 1, signals=np.zeros(n + 1, int), theta=theta).step(n))
    sums = [mechanism.settle(end).groves.sum(axis=0) for end in ends]
    return float(np.abs(sums[1] - sums[0]).max())


def picture(table: pd.DataFrame, out: Output) -> None:
    """Largest gain of a single lie on each market, by convention and history."""
    figure, axes = new_figure(8.0, 4.0)
    labels = list(dict.fromkeys(table["market"]))
    place, shape = np.arange(len(labels)), iter("o^sD")
    for colour, (reports, words) in zip(COLOURS, product(CONVENTIONS, HISTORIES.values())):
        height = table[table["reports"] == reports][f"{words} [% of scale]"]
        label = f"{reports}, {words}"
        axes.plot(place, height, next(shape), color=colour, label=label, markersize=7, alpha=0.8)
        place = place + 0.12
    axes.set_xticks(np.arange(len(labels)) + 0.18, [x.replace(" ", "\n") for x in labels])
    title = "Largest gain of one lie, truth from then on (zeros are drawn)"
    tidy(axes, title, "random markets, and cars", "% of largest |theta + u|")
    axes.set_ylim(top=1.35 * max(axes.get_ylim()[1], 1e-9))
    axes.legend(fontsize=8, frameon=False, ncols=2, loc="upper left")
    out.picture("reporting", figure)


def main(options: Options) -> None:
    """Run both parts, in float64."""
    with jax.enable_x64(True):
        out = Output(options.results / "reporting", "% of largest |theta + u|")
        out.heading("Reporting after own past lies")
        policies = {}
        for s in range(options.seed, options.seed + options.markets):
            env = markets.random_market(s, rounds=options.rounds, constant=bool(s % 2))
            policies[f"seed {s}"] = dm.solve_efficient_policy(env, progress=False)
        env, market = markets.real_market("cars", options.cars, 24, options.rounds)
        batch = env.sample_profiles(jax.random.key(options.seed), options.profiles)
        policies["cars"] = dm.solve_efficient_policy(env, initial=batch, progress=False)
        out.bullets(
            [
                (
                    f"{options.markets} random markets, two products, {options.rounds} rounds; odd "
                    "seeds have constant values. All gains in % of the market's largest "
                    "|theta + u|, conditional on the node, the others truthful."
                ),
                "On the car market the advertiser shown has a noisier reading of her own.",
                *markets.real_assumptions(market, "cars"),
            ]
        )
        rows = [row for label, policy in policies.items() for row in conventions(label, policy)]
        table = pd.DataFrame(rows)
        out.table("reporting_witnesses", table, "With witnesses", show=False)
        early = [f"{words}, in period 1 [% of scale]" for words in HISTORIES.values()]
        hidden = ["witness", *early, "truthful past, after period 1 [% of scale]"]
        shown = table.drop(columns=hidden)
        out.table("reporting", shown, "Largest gain of one lie, by the liar's own past")
        some = table[table["market"] == "cars"].iloc[0]["witness"]
        out.say(f"On the car market: {some}")
        picture(table, out)
        out.heading("A constant charged only if period 2 is reached")
        seeds = range(options.seed, options.seed + options.markets)
        for s in seeds:
            env = markets.random_market(s, keeps=True, constant=bool(s % 2))
            policies[f"seed {s}"] = dm.solve_efficient_policy(env, progress=False)
        out.bullets(
            [
                "Two rounds; the user rarely asks again unless product 0 is shown.",
                "On the car market nothing shown moves queries, so there is nothing to gain.",
            ]
        )
        found = pd.DataFrame([charges(x, p, options.charge) for x, p in policies.items()])
        out.table("charges_witnesses", found, "With witnesses", show=False)
        out.table("charges", found.drop(columns="witness"), "Charged on reach, or by installments")
        out.say(
            "Installments of one total, what is left charged when the conversation ends, add to "
            "the same on every path and move no incentive."
        )
        out.finish(options)


if __name__ == "__main__":
    dm.enable_compilation_cache()
    main(tyro.cli(Options, description=__doc__))
