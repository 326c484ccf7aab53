"""Solve, pay, audit and draw the efficient recommendations of a real product market.

Each market gets a folder of tables (CSV), pictures (PNG) and the printed report. What the data do
not say is an option here, and stated in the output. Run `python -m experiments.demo --help`.
"""

import time

import jax
import numpy as np
import pandas as pd
import tyro

import dynmech as dm
from dynmech import plotting
from experiments import _demo_conversation as talk
from experiments import _demo_tables as tables
from experiments._demo_market import (
    DEFAULTS,
    MARKETS,
    Options,
    Solved,
    assumptions,
    resolve,
    solve,
)
from experiments._output import Output


def run(options: Options) -> None:
    """Solve one market and write everything about it; `options` as from `resolve`."""
    began = time.monotonic()
    solved = solve(options)
    market, policy = solved.market, solved.policy
    rounding = 1e-9 * policy.env.money_scale  # what an audit takes for that
    out = Output(options.results / str(options.market), market.unit, rounding=rounding)
    out.heading(f"{market.name}: {policy.env.products} products, {policy.env.tastes.size} tastes")
    out.say(f"Source: {market.source}. All money is in {market.unit}.")
    products = tables.market_table(policy.env, market)
    out.table("market", products, "The market before anything is learned")
    out.say("Assumed:")
    out.bullets(assumptions(options, market))
    chosen = _recommendations(out, solved, options.profile)
    _values(out, solved)
    mechanism, audits = _mechanisms(out, solved, options.groves)
    _incentives(out, solved, audits)
    _conversation(out, solved, mechanism, chosen, options.seed)
    out.say("", f"{time.monotonic() - began:.0f} s for this market.")
    out.finish(options)


def _recommendations(out: Output, solved: Solved, profile: int | None) -> int:
    policy, fixed = solved.policy, solved.fixed
    trees, counts = tables.tree_counts(policy)
    chosen = int(np.argmax(counts)) if profile is None else profile
    chat, deaf = policy.start(profile=chosen), fixed.start(profile=chosen)
    out.heading("What is recommended first, and why")
    out.say(
        f"Solved exactly in {policy.seconds:.1f} s: {policy.work.nodes:.0f} belief nodes for "
        f"{len(policy.profiles)} profiles and their unilateral deviations.",
        f"Products in the policy's tree: {counts[chosen]} from profile {chosen}, which is shown "
        f"here; {min(counts)} to {max(counts)} over all profiles.",
    )
    moves = tables.first_moves(chat, deaf)
    out.table("first_recommendation", moves, f"First recommendation from profile {chosen}")
    branches = plotting.branch_table(policy, trees[chosen], out.unit)
    out.table("policy_tree", branches, "Policy tree", show=False)
    sequence = [
        tables.product_label(policy.env, branch.recommendation)
        for branch in plotting.policy_tree(fixed, chosen).walk()
    ]
    out.say(
        tables.why(moves, out.unit),
        f"The best fixed sequence from this profile: {', then '.join(sequence)}.",
    )
    title = f"{solved.title}: what is recommended after what was heard"
    out.picture("policy_tree", plotting.plot_policy_tree(policy, chosen, title=title))
    return chosen


def _values(out: Output, solved: Solved) -> None:
    policy, fixed = solved.policy, solved.fixed
    out.heading("Values, and what feedback is worth")
    value, error = tables.mean_and_error(policy.value)
    gained, spread = tables.mean_and_error(policy.value - fixed.value)
    share = f"{100 * gained / value:.2f}% of W" if value > 0 else "and W is not positive"
    out.say(
        f"W = {value:.4g} {out.unit} a conversation (s.e. {error:.2g} over profiles).",
        f"Value of feedback over the best fixed sequence of recommendations: {gained:.4g} "
        f"{out.unit} (s.e. {spread:.2g}), {share}.",
    )
    title = "W without each advertiser: withdrawn (W^-i), shown but not counted (Wd^-i)"
    out.table("values", tables.value_table(policy), title)
    out.table("profiles", tables.profile_values(policy, fixed), "Profiles", show=False)


def _mechanisms(
    out: Output, solved: Solved, headline: str
) -> tuple[dm.DynamicTeamMechanism, dict[str, dm.Audit]]:
    mechanisms = {
        label: dm.DynamicTeamMechanism(solved.policy, groves=term)
        for label, term in tables.groves_terms().items()
    }
    mechanism = mechanisms[headline]
    audits = {
        "mechanism, settled on ratings": mechanism.audit(),
        "message-driven, settled on reports": mechanism.audit(dm.settlement.MessageDriven()),
    }
    audit = next(iter(audits.values()))
    out.heading(f"Payments: the dynamic team mechanism with {headline}")
    out.table("payments", tables.payment_table(mechanism, audit), "Expected payments")
    revenue, error = tables.mean_and_error(audit.budget.revenue)
    surplus, wide = tables.mean_and_error(audit.budget.user_surplus)
    out.say(
        f"Expected revenue of the platform {revenue:.4g} (s.e. {error:.2g}), expected user surplus "
        f"{surplus:.4g} (s.e. {wide:.2g}) {out.unit}. Negative: the platform pays.",
    )
    open_share = 100 * float(np.mean(audit.window.open))
    table = tables.groves_table(mechanisms, audit)
    out.table("groves_terms", table, "All Groves terms; a negative slack breaks the constraint")
    out.say(
        "DataDriven totals read the signal that follows every ending, and keep both promises where "
        "any total can; all others are fixed by what the rest reported at first.",
        tables.kept_by_a_total(mechanisms["DataDriven"], out.unit),
    )
    totals = mechanisms[tables.EX_ANTE].groves_total
    pivots = solved.policy.marginal_value
    errors = [tables.mean_and_error(row)[1] for row in pivots]
    out.say(
        "The window, where one total gives participation and no subsidy whatever an advertiser's "
        f"own type, is open for {open_share:.0f}% of advertisers and profiles.",
        f"ExAnte charges means over these profiles, {totals.min():.4g} to {totals.max():.4g}, with "
        f"standard errors up to {max(errors):.2g}.",
    )
    by_term = tables.payments_by_term(mechanisms)
    out.table("payments_by_groves_term", by_term, "Payments by Groves term", show=False)
    title = f"{solved.title}: expected payment of each advertiser, by Groves term"
    out.picture("payments", plotting.plot_payments(mechanisms, unit=out.unit, title=title))
    return mechanism, audits


def _incentives(out: Output, solved: Solved, audits: dict[str, dm.Audit]) -> None:
    out.heading("Audit")
    for label, audit in audits.items():
        out.say(f"{label[0].upper()}{label[1:]}:", audit.summary(), "")
    gains = tables.gain_table(audits)
    out.table("incentive_gains", gains, "Largest gain of a misreport", show=False)
    wide = gains.pivot_table(
        index="advertiser", columns="settlement", values="largest gain [money]", sort=False
    )
    wide = wide.rename(columns=lambda x: f"{x} [money]").reset_index()
    out.table("incentive_gains_wide", wide, "Largest gain of a misreport")
    title = f"{solved.title}: what an advertiser gains by misreporting"
    out.picture("incentives", plotting.plot_incentives(audits, unit=out.unit, title=title))


def _conversation(
    out: Output, solved: Solved, mechanism: dm.DynamicTeamMechanism, profile: int, seed: int
) -> None:
    policy = solved.policy
    drawn = talk.draw_conversation(policy, profile, np.random.default_rng(seed))
    rating = None if drawn.rating is None else np.asarray(drawn.rating)
    totals = talk.decoded_totals(mechanism, profile, drawn.omega)
    ledger = mechanism.settle(drawn.end, rating, totals)
    out.heading(f"A conversation from profile {profile}")
    signals = policy.profiles.signals[profile]
    who = zip(policy.env.names, policy.start(profile=profile).theta, signals[1:], strict=True)
    out.say(
        talk.how_drawn(drawn, seed),
        f"Reported at the start, value in {out.unit} and signal from 0 (low): "
        + "; ".join(f"{x} {v:.3g}, {s}" for x, v, s in who)
        + f". The platform's own signal is {signals[0]}.",
        *talk.narrate(drawn, ledger, out.unit),
        *([] if totals is None else [talk.DECODED]),
    )
    out.table("conversation", talk.turns_table(drawn), "Conversation", show=False)
    out.table("ledger_by_round", _with_unit(ledger.to_frame()), "Ledger", show=False)
    out.table("ledger", talk.ledger_table(drawn, ledger, mechanism, profile), "Final ledger")
    title = f"{solved.title}: a conversation, round by round"
    out.picture("conversation", plotting.plot_conversation(drawn.end, unit=out.unit, title=title))


def _with_unit(frame: pd.DataFrame):
    money = ("estimate", "core_transfer", "groves_term", "transfer")
    return frame.rename(columns={name: f"{name} [money]" for name in money})


def main(options: Options) -> None:
    """Run the markets asked for, in float64."""
    given = [name for name in DEFAULTS["cars"] if getattr(options, name) is not None]
    if options.market == "both" and given:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise SystemExit(f"{flags}: the markets differ in units; choose one with --market.")
    with jax.enable_x64(True):
        for market in MARKETS if options.market == "both" else (options.market,):
            try:
                run(resolve(options, market))
            except dm.DynmechError as error:
                raise SystemExit(f"{market}: {error}") from error


if __name__ == "__main__":
    dm.enable_compilation_cache()
    main(tyro.cli(Options, description=__doc__))
