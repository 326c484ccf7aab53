"""The Gaussian shopping assistant: paper D, section 5.2 and appendix B.6, statement by statement.

The efficient recommendations of T rounds and how well their value is known; no report gains at any
history when payments use the average of later reactions (Proposition 4), and lies pay when they
use the mechanism's own beliefs, as some must whatever is paid on messages (Proposition 3). Both
pivots, what each secures, and where the printed Proposition 9 fails. Why it does not matter that
the average's noise depends on reports, and which Groves terms that does rule out.
"""

import jax
import numpy as np
import pandas as pd
import tyro

import dynmech as dm
from dynmech import static
from experiments._assistant_market import (
    NAMES,
    Options,
    draw_profiles,
    example,
    market,
    own_types,
    revealing,
)
from experiments._figures import BLUE, GREEN, GREY, ORANGE, RED, SKY, new_figure, tidy
from experiments._markets import ABSTRACT
from experiments._output import Output


def values(options: Options) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Solve for 1, 2, ... rounds at one profile: value and bounds; what to compare them with."""
    worth, compared = [], []
    for rounds in range(1, options.rounds + 1):
        env = market(options, rounds)
        profile = example(env)
        plan = static.solve_assistant(env, profile, nodes=options.nodes)
        worth.append(
            {
                "rounds": rounds,
                "show first": shown_first(env, plan),
                "W [money]": plan.value,
                "lower bound [money]": plan.worth.lower,
                "upper bound [money]": plan.worth.upper,
                "quadrature [money]": plan.worth.quadrature,
                "change on doubling [money]": plan.worth.change,
            }
        )
        row = {
            "rounds": rounds,
            "W [money]": plan.value,
            "without learning [money]": rounds * max((profile.theta + plan.belief.mean).max(), 0),
            "omega told after round 1 [money]": plan.told_after[min(1, rounds - 1)],
            "omega told at the outset [money]": plan.told_after[0],
            "W^-first [money]": plan.marginal_value[0],
            "Wd^-first [money]": plan.displayable_marginal_value[0],
        }
        if rounds < 4:
            ahead = static.assistant_ex_ante(env, profile.theta, nodes=options.nodes)
            row |= {"E W [money]": ahead.value, "its bracket [money]": ahead.upper - ahead.lower}
        compared.append(row)
    return pd.DataFrame(worth), pd.DataFrame(compared)


def shown_first(env: static.ShoppingAssistant, plan: static.AssistantSolution) -> str:
    """Name the first recommendation."""
    return "none" if plan.recommendation < 0 else env.names[plan.recommendation]


def convergence(options: Options) -> pd.DataFrame:
    """Compare both quadratures with the certified bracket, three rounds.

    The reference lies a third up the bracket: with cells of width d the errors of its ends are
    -d^2 / 24 and d^2 / 12 times the same curvature, to leading order.
    """
    env, rows = market(options, 3), []
    for nodes in options.compared:
        row: dict[str, float] = {"nodes": nodes}
        for rule in ("cells", "hermite"):
            worth = static.solve_assistant(env, example(env), nodes=nodes, rule=rule).worth
            row |= {
                f"{rule}: error [money]": abs(
                    worth.quadrature - (2 * worth.lower + worth.upper) / 3
                ),
                f"{rule}: change on doubling [money]": worth.change,
                "bracket [money]": worth.upper - worth.lower,
            }
        rows.append(row)
    return pd.DataFrame(rows)


def incentives(options: Options) -> tuple[pd.DataFrame, str]:
    """Audit profiles at the outset and at histories; Propositions 3 and 4."""
    rows, told, most = [], "", 0.0
    for rounds in range(1, min(options.rounds, 3) + 1):
        env = market(options, rounds)
        types = own_types(env)
        mechanism = static.AssistantMechanism(env, types, nodes=8 if rounds > 2 else options.nodes)
        profiles = draw_profiles(env, types, options.profiles, options.seed)
        for after in range(rounds):
            gains = []
            for k, profile in enumerate(profiles):
                history = None
                if after:
                    key = jax.random.key(options.seed + k)
                    talk = static.simulate_assistant(env, profile, profile, key, 2, nodes=8)
                    past = talk.recommendation[0, :after].tolist()
                    history = env.history(past, talk.reaction[0, :after])
                audit = mechanism.audit(profile, history)
                gains.append([audit.incentive_gain, audit.message_gain])
                worst = max(audit.message_witness, key=lambda w: w.gain)
                if not after and worst.gain > most:
                    most, told = worst.gain, worst.sentence()
            gain = np.array(gains)
            lies = sum(len(o.theta) * len(o.signals) * len(o.noise) for o in types)
            rows.append(
                {
                    "rounds": rounds,
                    "before round": after + 1,
                    "reports compared": len(profiles) * lies,
                    "largest gain, settled on data [money]": gain[:, 0].max(),
                    "settled on messages, mean [money]": gain[:, 1].mean(),
                    "settled on messages, largest [money]": gain[:, 1].max(),
                }
            )
    return pd.DataFrame(rows), told


def impossibility(options: Options) -> pd.DataFrame:
    """Find the least gain that any message-driven transfers leave; Proposition 3."""
    rows, prior = [], market(options, 1).prior_covariance
    for noise in (0.25, 1.0, 4.0, 16.0, 64.0):
        noises = noise, options.advertisers[1]
        env = static.ShoppingAssistant(
            list(options.mean), prior, list(noises), options.context, np.ones((3, 2)), 1, NAMES
        )
        own = static.AssistantTypes.box(env, 0, [0.0, 3.0])
        profile = example(env).replace(0, theta=3.0, signal=own.signals[0])
        other = static.AssistantTypes(profile.theta[1:], profile.signals[1:], env.signal_noise[1])
        audit = static.AssistantMechanism(env, [own, other]).audit(profile)
        rows.append(
            {
                "noise of the first's signal [money^2]": noise,
                "least gain, any transfers [money]": static.least_message_gain(
                    env, own, profile, 0
                ),
                "gain, team payments on messages [money]": audit.message_gain[0],
                "gain, team payments on data [money]": audit.incentive_gain[0],
            }
        )
    return pd.DataFrame(rows)


def pivots(options: Options) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare Groves terms on random profiles, two rounds: the summary and every slack."""
    env = market(options, 2)
    types = own_types(env)
    profiles = draw_profiles(env, types, 4 * options.profiles, options.seed + 1)
    rows, every = [], []
    for label, groves in (
        ("h^+, displayable", dm.groves.NoSubsidy(displayable=True)),
        ("h^-, displayable", dm.groves.Participation(displayable=True)),
        ("h^+, withdrawn", dm.groves.NoSubsidy()),
        ("h^-, withdrawn", dm.groves.Participation()),
    ):
        mechanism = static.AssistantMechanism(env, types, groves, options.nodes)
        audits = [mechanism.audit(profile) for profile in profiles]
        kept = np.array([a.participation for a in audits])
        subsidy = np.array([a.no_subsidy for a in audits])
        rows.append(
            {
                "Groves term": label,
                "worst participation [money]": kept.min(),
                "participation fails [% of cases]": 100 * (kept < -1e-9).mean(),
                "worst no subsidy [money]": subsidy.min(),
                "subsidy [% of cases]": 100 * (subsidy < -1e-9).mean(),
            }
        )
        cells = zip(kept.ravel(), subsidy.ravel(), strict=True)
        every += [
            {"term": label, "participation [money]": a, "no subsidy [money]": b} for a, b in cells
        ]
    return pd.DataFrame(rows), pd.DataFrame(every)


def slip_5() -> pd.DataFrame:
    """Settle the constructed cases under each Groves term."""
    rows = []
    for utility in (-3.0, 1.0):
        env, profile = revealing(utility)
        types = [
            static.AssistantTypes([0.0], [profile.signals[i]], env.signal_noise[i]) for i in (0, 1)
        ]
        plan = static.solve_assistant(env, profile)
        for displayable in (True, False):
            groves = dm.groves.Participation(displayable)
            audit = static.AssistantMechanism(env, types, groves).audit(profile)
            rows.append(
                {
                    "omega_i [money]": utility,
                    "economy": "displayable" if displayable else "withdrawn",
                    "show first": shown_first(env, plan),
                    "W [money]": plan.value,
                    "total_i [money]": audit.groves_total[0],
                    "participation of i [money]": audit.participation[0],
                    "no subsidy of i [money]": audit.no_subsidy[0],
                }
            )
    return pd.DataFrame(rows)


def averages(options: Options) -> pd.DataFrame:
    """Follow the estimate of round 1 given omega, under truth and lies that keep round 1."""
    env = market(options, 2)
    truth, omega = example(env), np.array([0.4, 0.2])
    mechanism = static.AssistantMechanism(env, own_types(env), nodes=options.nodes)
    first = static.solve_assistant(env, truth).recommendation
    rows = []
    for label, theta, signal in (
        ("truth", None, None),
        ("lower value", 0.1, None),
        ("lower signal", None, [-0.4, 0.8]),
    ):
        told = truth.replace(0, theta, signal)
        if static.solve_assistant(env, told).recommendation != first:
            continue  # the estimates of different rounds do not compare
        key = jax.random.key(options.seed)
        talk = static.simulate_assistant(env, truth, told, key, options.draws, omega=omega)
        average, squares = talk.estimate[:, 0, 0], (talk.estimate[:, 0, 0] - omega[0]) ** 2
        again = (talk.recommendation[:, 1] == 0).mean()
        root = np.sqrt(options.draws)
        data, words = mechanism.misreport_gain(truth, 0, theta, signal)
        rows.append(
            {
                "report": label,
                "E[what | omega] [money]": average.mean(),
                "standard error [money]": average.std() / root,
                "omega [money]": omega[0],
                "Var(what | omega) [money^2]": squares.mean(),
                "its standard error [money^2]": squares.std() / root,
                "first again in round 2 [1]": again,
                "gain on data [money]": data,
                "gain on messages [money]": words,
            }
        )
    return pd.DataFrame(rows)


def forbidden(options: Options) -> pd.DataFrame:
    """Show Groves terms that move with i's own report through the history or the estimate.

    "The current and past histories and the state estimates" may not all enter h_i: the later ones
    depend on what i reports. Gains from one lie, by simulation at the true belief.
    """
    env = market(options, 2)
    truth = example(env)
    mechanism = static.AssistantMechanism(env, own_types(env), nodes=options.nodes)
    lie = truth.replace(0, signal=[-0.4, 0.8])
    talks = [
        static.simulate_assistant(env, truth, told, jax.random.key(options.seed), options.draws)
        for told in (truth, lie)
    ]
    data, _ = mechanism.misreport_gain(truth, 0, signal=lie.signals[0])
    rows = []
    for label, term in (
        ("none", lambda t: np.zeros(options.draws)),
        ("-1 if the first is shown in round 2", lambda t: -1.0 * (t.recommendation[:, 1] == 0)),
        ("what_1 of the first, squared", lambda t: t.estimate[:, 0, 0] ** 2),
        ("what_1 of the first", lambda t: t.estimate[:, 0, 0]),
    ):
        change = term(talks[1]) - term(talks[0])
        rows.append(
            {
                "h of the first": label,
                "gain of one lie [money]": data + change.mean(),
                "standard error [money]": change.std() / np.sqrt(options.draws),
            }
        )
    return pd.DataFrame(rows)


def long(options: Options) -> pd.DataFrame:
    """Bound conversations that are too long to solve."""
    rows = []
    for rounds in options.long:
        env = market(options, rounds)
        row: dict[str, float] = {"rounds": rounds}
        for k in (1, 2, 3):
            low, high = static.bound_assistant(env, example(env), lookahead=k, nodes=64)
            row |= {
                f"lookahead {k}: lower [money]": low,
                f"lookahead {k}: upper [money]": high,
            }
        row["gap [% of upper]"] = 100 * (high - low) / high
        rows.append(row)
    return pd.DataFrame(rows)


def draw_values(frame: pd.DataFrame, nodes: pd.DataFrame, out: Output) -> None:
    """Draw the value a round with its bounds, and the errors of both quadratures."""
    figure, (left, right) = new_figure(9.6, 3.6, ncols=2)
    rounds = frame["rounds"].to_numpy()
    for name, colour, shape in (
        ("omega told at the outset [money]", ORANGE, "v--"),
        ("omega told after round 1 [money]", SKY, "v--"),
        ("W [money]", BLUE, "o-"),
        ("without learning [money]", GREY, "^--"),
    ):
        label = name.replace(" [money]", "")
        left.plot(rounds, frame[name] / rounds, shape, color=colour, markersize=5, label=label)
    left.set_xticks(rounds)
    left.set_ylim(0, None)
    tidy(left, "Value and bounds", "rounds T", f"value a round [{out.unit}]")
    left.legend(frameon=False, fontsize=8, loc="lower right")
    for rule, colour in (("cells", BLUE), ("hermite", RED)):
        label = "cells of matched variance" if rule == "cells" else "Gauss–Hermite"
        errors = nodes[f"{rule}: error [money]"]
        right.loglog(nodes["nodes"], errors, "o-", color=colour, markersize=4, label=label)
    bracket = nodes["bracket [money]"]
    right.loglog(nodes["nodes"], bracket, ":", color=GREY, label="width of the certified bracket")
    ticks = nodes["nodes"].tolist()
    right.set_xticks(ticks, [str(t) for t in ticks])
    right.minorticks_off()
    tidy(right, "Three rounds: error of the quadratures", "nodes a product and round",
         f"error [{out.unit}]")  # fmt: skip
    right.legend(frameon=False, fontsize=8)
    out.picture("values", figure)


def draw_lies(options: Options, every: pd.DataFrame, out: Output) -> None:
    """Draw gains against the reported signal, and both slacks under each pivot."""
    figure, (left, right) = new_figure(9.6, 3.6, ncols=2)
    env = market(options, 2)
    truth = example(env)
    mechanism = static.AssistantMechanism(env, own_types(env), nodes=options.nodes)
    reports = np.linspace(-4, 4, 33) + truth.signals[0, 0]
    gains = np.array(
        [mechanism.misreport_gain(truth, 0, signal=[s, truth.signals[0, 1]]) for s in reports]
    )
    left.plot(reports, gains[:, 1], color=RED, label="settled on messages")
    left.plot(reports, gains[:, 0], color=BLUE, label="settled on later reactions")
    left.axvline(truth.signals[0, 0], color=GREY, linewidth=0.8, linestyle=":")
    left.annotate("truth", (truth.signals[0, 0], gains.max()), xytext=(4, -4), fontsize=8,
                  textcoords="offset points", color=GREY)  # fmt: skip
    tidy(left, "Gain of the first from misreporting her signal", "reported signal about product 1",
         f"expected gain [{out.unit}]", zero=True)  # fmt: skip
    left.legend(frameon=False, fontsize=8, loc="upper left")
    for label, colour, shape in (
        ("h^+, displayable", GREEN, "o"),
        ("h^-, displayable", ORANGE, "s"),
    ):
        rows = every[every["term"] == label]
        right.plot(rows["participation [money]"], rows["no subsidy [money]"], shape, color=colour,
                   markersize=4, alpha=0.6, label="$h^+$" if "+" in label else "$h^-$")  # fmt: skip
    tidy(right, "Left of the line participation fails, below it no subsidy",
         f"slack of participation [{out.unit}]", f"slack of no subsidy [{out.unit}]",
         zero=True)  # fmt: skip
    right.axvline(0, color=GREY, linewidth=0.8)
    right.legend(frameon=False, fontsize=9)
    out.picture("lies", figure)


def main(options: Options) -> None:
    """Solve, audit, tabulate and draw."""
    out = Output(options.results / "shopping_assistant", ABSTRACT)
    out.heading("Section 5.2: the efficient recommendations")
    (worth, compared), nodes = values(options), convergence(options)
    out.table("values", worth, "One profile, by the number of rounds")
    out.say("One and two rounds are closed forms; beyond, the bounds are certified.")
    out.table("economies", compared, "Between no learning and being told omega; without the first")
    out.table("convergence", nodes, "Three rounds: quadratures against the certified bracket")
    out.table("long", long(options), "Long conversations: certified bounds by lookahead")
    out.heading("Propositions 3 and 4: reports")
    found, witness = incentives(options)
    out.table("incentives", found, "Largest gain of any report of theta, signal and structure")
    out.say(f"Settled on messages: {witness}")
    out.table("impossibility", impossibility(options), "One round: what messages alone cannot do")
    out.heading("The average of the remaining reactions")
    out.table("averages", averages(options), "Estimate of round 1 given omega; the first reports")
    out.say(
        "Given omega, history and recommendation the average's spread moves with the report, so "
        "it is not independent of it; its mean is omega all the same, and no report gains."
    )
    out.table("forbidden", forbidden(options), "Groves terms that the lie can move")
    out.heading("Proposition 9: participation and no subsidy")
    summary, every = pivots(options)
    out.table("pivots", summary, "Slack over random profiles, two rounds")
    out.table("pivots_all", every, "Every case", show=False)
    out.table("slip_5", slip_5(), "Showing i reveals omega_j: participation misses 1/2")
    draw_values(compared, nodes, out)
    draw_lies(options, every, out)
    out.finish(options)


if __name__ == "__main__":
    main(tyro.cli(Options, description=__doc__))
