"""The tables of the demo: pure functions from a solved market to labelled frames."""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
import pandas as pd

import dynmech as dm
from dynmech import plotting
from dynmech.market.displays import named

NONE = -1
EX_ANTE = "ExAnte (batch mean)"


def groves_terms() -> dict[str, dm.groves.AbstractGroves]:
    """All Groves terms compared, by the label that they are printed under.

    First those that keep participation and no subsidy at once: they read the estimate, and need a
    signal after every ending, of those who leave too.
    """
    return {
        "DataDriven": dm.groves.DataDriven(),
        "DataDriven, revenue": dm.groves.DataDriven(objective="revenue"),
        "Zero": dm.groves.Zero(),
        EX_ANTE: dm.groves.ExAnte(sampled=True),
        "NoSubsidy": dm.groves.NoSubsidy(),
        "NoSubsidy, displayable": dm.groves.NoSubsidy(displayable=True),
        "Participation": dm.groves.Participation(),
        "Participation, displayable": dm.groves.Participation(displayable=True),
        "WindowFloor": dm.groves.WindowFloor(),
        "WindowCeiling": dm.groves.WindowCeiling(),
    }


def product_label(env: dm.RecommendationMDP, recommendation: int | tuple[int, ...]) -> str:
    """The label of a recommendation, -1 or () for none."""
    return named(env.names, recommendation)


def mean_and_error(values: np.ndarray) -> tuple[float, float]:
    """Mean over sampled profiles and its standard error."""
    known = values[np.isfinite(values)]
    error = known.std(ddof=1) / np.sqrt(len(known)) if len(known) > 1 else np.nan
    return float(known.mean()), float(error)


def action_law(chat: dm.Conversation, recommendation: int) -> np.ndarray:
    """P(buy 0..n-1, leave, query | omega) after recommending now, shape (n+2, m)."""
    env = chat.policy.env
    n, rule = env.products, env.action_rule
    memory = jnp.asarray(rule.start(n, int(env.horizon)))
    for shown in [*(turn.recommendation for turn in chat.turns), recommendation]:
        memory = rule.step(memory, jnp.asarray(np.mod(shown, n + 1)), n)
    shown = jnp.asarray(recommendation % (n + 1))
    return np.asarray(rule.probabilities(memory, shown, jnp.asarray(env.utilities)))


def market_table(env: dm.RecommendationMDP, market: dm.applications.Market) -> pd.DataFrame:
    """Each product: its value, and what shoppers think of it before anything is learned."""
    weights, utilities = np.asarray(env.tastes.weights), env.utilities
    mean = utilities @ weights
    alone = 1 / (1 + np.exp(-utilities / np.asarray(market.taste_scale)))
    return pd.DataFrame(
        {
            "product": env.names,
            "markup theta [money]": np.asarray(market.theta),
            "mean utility [money]": mean,
            "median utility [money]": [_quantile(u, weights, 0.5) for u in utilities],
            "sd of utility [money]": np.sqrt((utilities - mean[:, None]) ** 2 @ weights),
            "best of all for [%]": 100
            * np.bincount(utilities.argmax(axis=0), weights, minlength=len(mean)),
            "bought if alone on screen [%]": 100 * alone @ weights,
        }
    )


def _quantile(values: np.ndarray, weights: np.ndarray, level: float) -> float:
    order = np.argsort(values, kind="stable")
    return float(values[order][np.searchsorted(np.cumsum(weights[order]), level * weights.sum())])


def first_moves(chat: dm.Conversation, deaf: dm.Conversation) -> pd.DataFrame:
    """What each recommendation is worth now, later, and if no rating were ever heard.

    `deaf` is the same profile without feedback. The last column is what hearing the ratings adds
    when this is shown first.
    """
    env, belief = chat.policy.env, chat.belief
    rows = []
    for r in [*range(env.products), NONE]:
        bought = action_law(chat, r)[: env.products]
        now = float((bought * (chat.theta[:, None] + env.utilities)).sum(axis=0) @ belief)
        total = float(chat.worth(r) @ belief)
        unheard = float(deaf.worth(r) @ deaf.belief)
        rows.append(
            {
                "recommended first": product_label(env, r),
                "theta [money]": float(chat.theta[r]) if r != NONE else np.nan,
                "mean utility [money]": float(env.utilities[r] @ belief) if r != NONE else np.nan,
                "bought now [%]": 100 * float(bought.sum(axis=0) @ belief),
                "surplus now [money]": now,
                "surplus later [money]": total - now,
                "total [money]": total,
                "total without ratings [money]": unheard,
                "ratings add [money]": total - unheard,
            }
        )
    table = pd.DataFrame(rows)
    return table.sort_values("total [money]", ascending=False, ignore_index=True)


def why(moves: pd.DataFrame, unit: str) -> str:
    """Say in a sentence why the first recommendation is the first."""
    best, second = moves.iloc[0], moves.iloc[1]
    gap = best["total [money]"] - second["total [money]"]
    name, other = best["recommended first"], second["recommended first"]
    now = moves.loc[moves["surplus now [money]"].idxmax()]
    text = (
        f"{name} comes first: it leads to an expected surplus of {best['total [money]']:.4g} "
        f"{unit}, {gap:.3g} more than {other}, the next best."
    )
    if now["recommended first"] != name:
        less = now["surplus now [money]"] - best["surplus now [money]"]
        return text + (
            f" {now['recommended first']} would bring {less:.3g} more at once, but what follows "
            f"{name} is worth more: {best['surplus later [money]']:.4g} against "
            f"{now['surplus later [money]']:.4g}."
        )
    return text + (
        f" It brings the most at once ({best['surplus now [money]']:.3g}); hearing ratings adds "
        f"{best['ratings add [money]']:.3g} to it and {second['ratings add [money]']:.3g} to "
        f"{other}."
    )


def value_table(policy: dm.EfficientPolicy) -> pd.DataFrame:
    """W, W^{-i} and Wd^{-i}: means over the sampled profiles, with standard errors."""
    rows = []
    value = policy.value.ravel()
    for i, name in enumerate(policy.env.names):
        without, shown = (
            table[i].ravel() for table in (policy.marginal_value, policy.displayable_marginal_value)
        )
        rows.append(
            {
                "without": name,
                "W^-i [money]": mean_and_error(without)[0],
                "W - W^-i [money]": mean_and_error(value - without)[0],
                "s.e. [money]": mean_and_error(value - without)[1],
                "Wd^-i [money]": mean_and_error(shown)[0],
                "Wd^-i - W^-i [money]": mean_and_error(shown - without)[0],
                "bought [%]": 100 * float(np.nanmean(policy.purchase[i])),
                "theta earned [money]": float(np.nanmean(policy.advertiser_value[i])),
                "utility to user [money]": float(np.nanmean(policy.user_utility[i])),
            }
        )
    return pd.DataFrame(rows)


def profile_values(policy: dm.EfficientPolicy, fixed: dm.EfficientPolicy) -> pd.DataFrame:
    """Every profile: first recommendation, W, W without feedback, W^{-i} and Wd^{-i}."""
    env, rows = policy.env, []
    for b in range(len(policy.profiles)):
        row = {
            "profile": b,
            "first recommendation": product_label(env, policy.start(profile=b).recommendation),
            "W [money]": policy.value[b],
            "W without feedback [money]": fixed.value[b],
        }
        for label, table in (
            ("W^-i", policy.marginal_value),
            ("Wd^-i", policy.displayable_marginal_value),
        ):
            row |= {f"{label}, i = {x} [money]": table[i, b] for i, x in enumerate(env.names)}
        rows.append(row)
    return pd.DataFrame(rows)


def payment_table(mechanism: dm.DynamicTeamMechanism, audit: dm.Audit) -> pd.DataFrame:
    """What each advertiser earns, pays and keeps under one mechanism, means over profiles."""
    earned = np.nanmean(mechanism.policy.advertiser_value, axis=1)
    paid = np.nanmean(audit.budget.payments, axis=1)
    return pd.DataFrame(
        {
            "advertiser": mechanism.policy.env.names,
            "theta earned [money]": earned,
            "Groves total [money]": np.nanmean(mechanism.groves_total, axis=1),
            "core transfer [money]": paid - np.nanmean(mechanism.groves_total, axis=1),
            "payment [money]": paid,
            "payoff [money]": earned - paid,
            "worst payoff [money]": np.nanmin(audit.participation, axis=1),
            "worst no-subsidy slack [money]": np.nanmin(audit.no_subsidy, axis=1),
            "window open [%]": 100 * audit.window.open.mean(axis=1),
        }
    )


def groves_table(
    mechanisms: Mapping[str, dm.DynamicTeamMechanism], audit: dm.Audit
) -> pd.DataFrame:
    """All Groves terms side by side: slack of both constraints, revenue; one row a term.

    Slack follows from expected payments: participation theta earned - payment, no subsidy
    payment + utility. A total keeps both for every own type if it is inside the window.
    """
    rows = []
    for label, mechanism in mechanisms.items():
        policy, total = mechanism.policy, mechanism.groves_total
        paid = total + policy.advertiser_value - mechanism.agent_payoff
        kept, subsidy = policy.advertiser_value - paid, paid + policy.user_utility
        revenue, error = mean_and_error(paid.sum(axis=0))
        inside = (total >= audit.window.floor - audit.tolerance) & (
            total <= audit.window.ceiling + audit.tolerance
        )
        rows.append(
            {
                "Groves term": label,
                "participation, worst [money]": np.nanmin(kept),
                "participation, mean [money]": np.nanmean(kept),
                "no subsidy, worst [money]": np.nanmin(subsidy),
                "no subsidy, mean [money]": np.nanmean(subsidy),
                "revenue [money]": revenue,
                "s.e. [money]": error,
                "in window [%]": 100 * float(np.mean(inside)),
            }
        )
    return pd.DataFrame(rows)


def kept_by_a_total(mechanism: dm.DynamicTeamMechanism, unit: str) -> str:
    """Say where any total keeps both promises, and by how much the others miss."""
    assert isinstance(mechanism.groves, dm.groves.DataDriven)
    room = mechanism.groves.compare(mechanism.own)
    rounding = 1e-9 * float(np.nanmax(np.abs(mechanism.policy.value)))
    known = np.isfinite(room.fixed)
    fixed, decoded = (
        100 * float((x[known] >= -rounding).mean()) for x in (room.fixed, room.data_driven)
    )
    text = (
        f"Both promises can be kept by a fixed total for {fixed:.0f}% of advertisers and profiles, "
        f"by a data-driven one for {decoded:.4g}%"
    )
    worst = float(np.nanmin(room.data_driven))
    if worst >= -rounding:
        return f"{text}."
    return (
        f"{text}; for the rest no total can: users who buy by chance what they like less than "
        f"nothing may cost more than the sale earns. What is missed is at most {-worst:.2g} {unit}."
    )


def payments_by_term(mechanisms: Mapping[str, dm.DynamicTeamMechanism]) -> pd.DataFrame:
    """Expected payment of every advertiser under every Groves term, long form."""
    rows = []
    for label, mechanism in mechanisms.items():
        policy = mechanism.policy
        paid = mechanism.groves_total + policy.advertiser_value - mechanism.agent_payoff
        for name, payment in zip(policy.env.names, np.nanmean(paid, axis=1), strict=True):
            rows.append({"Groves term": label, "advertiser": name, "payment [money]": payment})
    return pd.DataFrame(rows)


def gain_table(audits: Mapping[str, dm.Audit]) -> pd.DataFrame:
    """Largest gain of a misreport per advertiser and settlement, with its witness."""
    rows = []
    for label, audit in audits.items():
        for i, name in enumerate(audit.names):
            gain, none = float(audit.incentive_gain[i]), f"{name} has no profitable misreport."
            rows.append(
                {
                    "settlement": label,
                    "advertiser": name,
                    "largest gain [money]": gain,
                    "of it in period 1 [money]": float(audit.first_gain[i]),
                    "witness": audit.witness[i].sentence() if gain > audit.tolerance else none,
                }
            )
    return pd.DataFrame(rows)


def tree_counts(policy: dm.EfficientPolicy) -> tuple[list[plotting.Branch], list[int]]:
    """The tree of every profile, and how many distinct products each shows."""
    trees = [plotting.policy_tree(policy, profile=b) for b in range(len(policy.profiles))]
    shown = [{branch.recommendation for branch in tree.walk()} - {NONE} for tree in trees]
    return trees, [len(products) for products in shown]
