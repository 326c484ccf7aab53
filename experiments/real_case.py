"""From conversations that were logged to a bill: cameras, sold in conversation, and how sure it is.

Tastes in dollars, the value of buying nothing included, are those of 332 people who chose among
cameras. How often shoppers ask again, and how readily they buy what is on the screen, is fitted to
a log: 59 coached conversations (or 12,281 sessions of an online shop), by maximum likelihood with
standard errors. The fitted market is solved, the efficient policy compared with what shops do,
advertisers charged, and the mechanism audited in markets drawn from the fit's sampling law. What
no data hold is listed.

    python -m experiments.real_case
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd
import tyro

import dynmech as dm
from experiments import _demo_tables as tables
from experiments import _real_logs as logs
from experiments._figures import BLUE, GREEN, GREY, RED, RESULTS, new_figure, tidy
from experiments._output import Output

SPREAD = (0.8, 1.2)


@dataclass(frozen=True)
class Options:
    """What is fitted, and everything that the data do not say."""

    log: logs.Name = "dialogues"
    """The log that the market is fitted to; the other one is fitted beside it."""
    products: int = 4
    """Cameras, one advertiser each."""
    tastes: int = 32
    """Taste points."""
    rounds: int = 3
    """Rounds of recommendations, T."""
    pages: int = 13
    """Product pages after which sessions are cut."""
    noise: float = 40.0
    """Standard deviation of a rating, dollars."""
    platform: float = 100.0
    """Noise of the platform's first signal, dollars."""
    advertisers: float = 150.0
    """Noise of each advertiser's first signal, dollars."""
    profiles: int = 6
    """Initial profiles (values and signals) drawn from the prior and solved."""
    draws: int = 59
    """Markets drawn from the fit; the largest gain of 59 exceeds 95% of all with chance 95%."""
    seed: int = 0
    """Of profiles and draws."""
    results: Path = RESULTS
    """Folder; files go to `real_case` inside."""


def market_of(
    options: Options, market: dm.applications.Market, shopper: dm.RecommendationMDP
) -> dm.RecommendationMDP:
    """The cameras, sold to a fitted shopper."""
    return dm.RecommendationMDP(
        market.gamma,
        shopper.tastes,
        horizon=options.rounds,
        action_rule=shopper.action_rule,
        signals=dm.SignalStructure(
            dm.GaussianSignals(options.platform, options.advertisers, symbols=2),
            dm.RatingFeedback(options.noise, symbols=3),
            dm.RatingSettlement(options.noise),
        ),
        values=dm.ConstantValues(np.asarray(market.theta)[:, None] * np.array(SPREAD)),
        names=market.names,
    )


def assumptions(options: Options, market: dm.applications.Market) -> list[str]:
    """Everything that no data hold, in sentences."""
    return [
        *market.assumptions,
        (
            "Shoppers of the log have the tastes of the conjoint, and what they were shown is "
            "worth what the average camera is, less the fitted value of leaving: the log does not "
            "say what was shown."
        ),
        (
            "Whether she asks again depends neither on the camera nor on her taste nor on the "
            "round (the check above tries the last); only what is on the screen is bought."
        ),
        (
            "A recommendation answered with a yes at the end of a coached conversation was bought."
            if options.log == "dialogues"
            else "A session that bought did so on its last product page."
        ),
        (
            f"She answers each question of what she thinks of a camera, and rates what she bought, "
            f"with noise {options.noise:g} dollars; answers are told apart in 3 symbols."
        ),
        (
            "Before it starts the platform reads her mean utility with noise "
            f"{options.platform:g}, each maker that of his own camera with noise "
            f"{options.advertisers:g} dollars, in 2 symbols each."
        ),
        (
            f"A maker's value of a sale is {SPREAD[0]:g} or {SPREAD[1]:g} times his markup, "
            "equally likely: nobody's bids are known."
        ),
        f"A conversation ends after {options.rounds} rounds.",
        "Logit shocks are behaviour, not surplus.",
        (
            f"Means are over {options.profiles} profiles drawn with seed {options.seed}, with "
            "their standard errors (s.e.)."
        ),
    ]


def simple_policies(env: dm.RecommendationMDP, scale: np.ndarray) -> dict[str, Callable[..., Any]]:
    """What shops do: functions of belief, memory, bids and round."""
    alone = 1 / (1 + np.exp(-env.utilities / scale))
    seller = int(np.argmax(alone @ np.asarray(env.tastes.weights)))
    law = np.append(np.full(env.products, 1 / env.products), 0.0)

    def most(worth: Callable[..., Any]) -> Callable[..., Any]:
        return lambda belief, memory, theta, period: int(np.argmax((worth(theta) * alone) @ belief))

    return {
        "most surplus now": most(lambda theta: theta[:, None] + env.utilities),
        "best for her now": most(lambda theta: env.utilities),
        "highest bid": lambda belief, memory, theta, period: int(np.argmax(theta)),
        "best seller": lambda belief, memory, theta, period: seller,
        "at random": lambda belief, memory, theta, period: law,
    }


def fit_logs(out: Output, options: Options, market: dm.applications.Market) -> dict[str, dm.Fit]:
    """Fit both logs, and say what was found and how well it fits."""
    out.heading("What was logged, and what is fitted to it")
    rows, checks, fits = [], [], {}
    for name, source in logs.SOURCES.items():
        log = logs.read(name, options.pages)
        fits[name] = fit = logs.fit_shopper(log, market)
        out.say(f"{source}:", log.summary(), "")
        row: dict[str, object] = {"log": name, "conversations": len(log)}
        for label, unit in (("query", "[1]"), ("outside option", "[money]")):
            value, error = fit.estimates[label]
            row |= {f"{label} {unit}": value, f"s.e. of {label} {unit}": error}
        rows.append(row)
        check = fit.check().reset_index()
        check.insert(0, "log", name)
        checks.append(check.rename(columns={x: f"{x} [1]" for x in ("observed", "expected", "z")}))
    out.table("fits", pd.DataFrame(rows), "Estimates, with standard errors (s.e.)")
    out.table("fit_by_round", pd.concat(checks), "Fit by round", show=False)
    far = {name: np.abs(c[c["at_risk"] >= 20]["z [1]"]).max() for name, c in zip(fits, checks)}
    out.say(
        "Query: the chance that she asks again. Outside option: what leaving is worth beyond what "
        "buying nothing was in the conjoint; near 0 the two sources agree on how readily she buys.",
        "Largest difference of a share in a round from what the fit expects, in standard errors: "
        + ", ".join(f"{name} {z:.1f}" for name, z in far.items())
        + ". Far above 2, one chance of asking again for all rounds does not fit.",
    )
    return fits


def compare_policies(out: Output, policy: dm.EfficientPolicy, scale: np.ndarray) -> pd.DataFrame:
    """What the efficient policy adds to what shops do."""
    env, batch = policy.env, policy.profiles
    rows: list[tuple[str, Any]] = [("efficient", policy)]
    for name, recommend in simple_policies(env, scale).items():
        rows.append((name, dm.GivenPolicy(env, recommend, initial=batch, name=name)))
    found = []
    for name, one in rows:
        value, error = tables.mean_and_error(one.value)
        lost, wide = tables.mean_and_error(policy.value - one.value)
        found.append(
            {
                "policy": name,
                "surplus [money]": value,
                "s.e. [money]": error,
                "lost [money]": lost,
                "s.e. of it [money]": wide,
                "bought [%]": 100 * float(np.nanmean(one.purchase.sum(axis=0))),
                "a lie gains at most [money]": float(np.nanmax(one.incentive_bound)),
            }
        )
    out.heading("The efficient policy, and what shops do")
    table = pd.DataFrame(found)
    out.table("policies", table, "Expected surplus of makers and shopper, a conversation")
    return table


def charge(out: Output, policy: dm.EfficientPolicy, draws: list[dm.RecommendationMDP]):
    """Payments under four Groves terms, and the mechanisms whose totals are fixed in advance."""
    terms = {
        "DataDriven": dm.groves.DataDriven(),
        "WindowFloor": dm.groves.WindowFloor(),
        "WindowCeiling": dm.groves.WindowCeiling(),
        "RobustWindow, ceiling": dm.groves.RobustWindow(draws, charge="ceiling"),
    }
    mechanisms = {name: dm.DynamicTeamMechanism(policy, term) for name, term in terms.items()}
    first = mechanisms["DataDriven"]
    audit = first.audit()
    out.heading("Payments")
    out.table("payments", tables.payment_table(first, audit), "Expected payments, DataDriven")
    out.table("groves_terms", tables.groves_table(mechanisms, audit), "Groves terms at the fit")
    out.say("If the fit is the truth:", audit.summary())
    return {name: mechanisms[name] for name in ("WindowCeiling", "RobustWindow, ceiling")}


def audit_draws(
    out: Output, mechanisms: dict[str, dm.DynamicTeamMechanism], draws: list[dm.RecommendationMDP]
) -> dict[str, Any]:
    """Audit each mechanism in every market drawn from the fit."""
    out.heading(f"How sure: {len(draws)} markets drawn from the fit's sampling law")
    audits = {name: one.audit(under=draws) for name, one in mechanisms.items()}
    rows = []
    for name, several in audits.items():
        out.say(f"{name}:", several.summary(), "")
        for k, audit in enumerate(several):
            rows.append(
                {
                    "Groves term": name,
                    "draw": k,
                    "largest gain [money]": float(audit.incentive_gain.max()),
                    "bound [money]": float(audit.incentive_bound.max()),
                    "participation, worst [money]": float(np.nanmin(audit.participation)),
                    "no subsidy, worst [money]": float(np.nanmin(audit.no_subsidy)),
                }
            )
    out.table("draws", pd.DataFrame(rows), "Audits under drawn markets", show=False)
    return audits


def picture(
    out: Output, options: Options, fits: dict[str, Any], worth: pd.DataFrame, audits: dict[str, Any]
) -> None:
    """The log and its fit; policies; gains and participation over the draws."""
    figure, axes = new_figure(11.5, 7.2, nrows=2, ncols=2)
    chosen = fits[options.log]
    check = chosen.check().reset_index()
    asked = check[(check["action"] == "asked") & (check["at_risk"] >= 5)]
    share, count = asked["observed"].to_numpy(float), asked["at_risk"].to_numpy(float)
    error = np.sqrt(np.maximum(share * (1 - share), 0.0) / count)
    top = axes[0, 0]
    top.errorbar(asked["round"], share, error, fmt="o", color=BLUE, label="logged, one s.e.")
    level, wide = chosen.estimates["query"]
    top.axhspan(level - 1.96 * wide, level + 1.96 * wide, color=GREEN, alpha=0.25, lw=0)
    top.axhline(level, color=GREEN, label="fitted, 95%")
    for x, y, n in zip(asked["round"], share, count, strict=True):
        top.annotate(f"{n:,.0f}", (x, y), xytext=(0, 8), textcoords="offset points", fontsize=7)
    top.legend(fontsize=8, frameon=False, loc="lower left")
    top.set_ylim(0, 1.05)
    tidy(top, f"{options.log}: share that asks again", "round", "share")
    bars, others = axes[0, 1], worth.iloc[1:]
    bars.barh(others["policy"], others["lost [money]"], color=GREY)
    bars.errorbar(
        others["lost [money]"], others["policy"], xerr=others["s.e. of it [money]"], fmt="none",
        ecolor="black", lw=0.8,
    )  # fmt: skip
    bars.invert_yaxis()
    best = worth["surplus [money]"].iloc[0]
    tidy(bars, f"surplus lost, of {best:.3g} under the efficient policy",
         f"{out.unit} a conversation, one s.e.", "")  # fmt: skip
    gains, kept = axes[1]
    fixed = next(iter(audits.values()))
    gain = np.sort(fixed.incentive_gain.max(axis=1))
    bound = np.sort([float(audit.incentive_bound.max()) for audit in fixed])
    rank = (np.arange(len(gain)) + 1) / len(gain)
    gains.step(gain, rank, where="post", color=RED, label="largest gain of a lie")
    gains.step(bound, rank, where="post", color=BLUE, ls="--", label="certified bound")
    gains.legend(fontsize=8, frameon=False, loc="lower right")
    tidy(gains, "incentives over drawn markets", out.unit, "share of draws below")
    for (name, several), colour in zip(audits.items(), (RED, GREEN), strict=True):
        worst = np.sort([float(np.nanmin(audit.participation)) for audit in several])
        kept.step(worst, rank, where="post", color=colour, label=name)
    kept.axvline(0, color=GREY, lw=0.8)
    kept.legend(fontsize=8, frameon=False, loc="lower right")
    for panel in (gains, kept):
        panel.set_ylim(0, 1.03)
    tidy(kept, "participation over drawn markets", f"worst payoff, {out.unit}", "share below")
    out.picture("real_case", figure)


def run(options: Options) -> None:
    """Fit, solve, compare, charge, audit, draw."""
    began = time.monotonic()
    market = dm.applications.cameras(options.products, options.tastes)
    out = Output(options.results / "real_case", market.unit)
    out.say(f"Tastes: {market.source}.")
    fits = fit_logs(out, options, market)
    fit = fits[options.log]
    env = market_of(options, market, fit.market)
    out.heading(f"The market fitted to {options.log}")
    out.table("market", tables.market_table(env, market), "The cameras")
    out.say("Assumed, because no data hold it:")
    out.bullets(assumptions(options, market))
    batch = env.sample_profiles(jax.random.key(options.seed), options.profiles)
    policy = dm.solve_efficient_policy(env, initial=batch, progress=False)
    worth = compare_policies(out, policy, np.asarray(market.taste_scale))
    drawn = fit.draws(jax.random.key(options.seed + 1), options.draws)
    draws = [market_of(options, market, shopper) for shopper in drawn]
    audits = audit_draws(out, charge(out, policy, draws), draws)
    picture(out, options, fits, worth, audits)
    out.say(f"{time.monotonic() - began:.0f} s.")
    out.finish(options)


def main(options: Options) -> None:
    """Run in float64."""
    with jax.enable_x64(True):
        run(options)


if __name__ == "__main__":
    dm.enable_compilation_cache()
    main(tyro.cli(Options, description=__doc__))
