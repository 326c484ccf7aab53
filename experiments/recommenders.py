"""Three recommenders that people use, valued, priced and audited beside the efficient one.

Cars and electricity contracts. Best expected utility shows what she would like most; Thompson
sampling draws a taste from the belief and shows what is worth most to all together at it; the
ranking shows what converts most, each product once. W - V at the nodes that a policy reaches
certifies what any report can gain under it, and the audit finds what single misreports do gain:
with the same payments a worse policy is a bigger temptation. Message-driven settlement is there
for comparison.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import tyro

import dynmech as dm
from experiments import _markets as markets
from experiments._figures import BLUE, GREEN, ORANGE, RED, RESULTS, new_figure, tidy
from experiments._means import (
    ADVERTISERS,
    GAIN,
    MESSAGE,
    REVENUE,
    SOLD,
    USER,
    WORST,
    row_of_means,
)
from experiments._output import Output

REAL: tuple[markets.Real, ...] = ("cars", "electricity")
NAME, VALUE, BEST = "recommender", "V [money]", "W [money]"
BOUND = "no report gains more than [money]"
PAID, SPREAD = "paid, simulated [money]", "its standard deviation [money]"


@dataclass(frozen=True)
class Options:
    """Sizes and seeds; the defaults take about a minute."""

    products: int = 4
    """Products of each market."""
    tastes: int = 24
    """Their taste points."""
    rounds: int = 3
    """Rounds of a conversation."""
    profiles: int = 4
    """Initial profiles, drawn from the prior; the same for every recommender."""
    query: float = 0.7
    """Chance of a follow-up query."""
    conversations: int = 2000
    """Simulated for what is paid."""
    seed: int = 0
    """Of profiles and conversations."""
    quick: bool = False
    """Two products, two rounds and two profiles, to see that it runs."""
    results: Path = RESULTS
    """Folder; files go to `recommenders` inside."""


def best_utility(env: dm.RecommendationMDP) -> Callable[..., Any]:
    """What the user is expected to like most."""

    def recommend(belief: np.ndarray, memory: np.ndarray, theta: np.ndarray, period: int):
        return np.argmax(belief @ env.utilities.T, axis=1)

    return recommend


def thompson(env: dm.RecommendationMDP) -> Callable[..., Any]:
    """A taste drawn from the belief; what is worth most to advertiser and user at it: a law."""

    def recommend(belief: np.ndarray, memory: np.ndarray, theta: np.ndarray, period: int):
        worth = theta[:, :, None] + env.utilities  # (C, n, m)
        best = np.where(worth.max(axis=1) > 0, worth.argmax(axis=1), env.products)
        taken = best[:, None, :] == np.arange(env.products + 1)[:, None]
        law = np.einsum("cjm,cm->cj", taken, belief)
        return law / law.sum(axis=1, keepdims=True)

    return recommend


def conversion(env: dm.RecommendationMDP) -> Callable[..., Any]:
    """What is bought most often when shown, of what was not shown before."""
    rule, n = env.action_rule, env.products
    bought = np.array(
        [
            np.asarray(rule.probabilities(np.array([j]), np.array([j]), env.utilities))[j]
            for j in range(n)
        ]
    )

    def recommend(belief: np.ndarray, memory: np.ndarray, theta: np.ndarray, period: int):
        fresh = memory[:, -n:] == 0
        score = np.where(fresh, belief @ bought.T, -1.0)
        return np.where(fresh.any(axis=1), np.argmax(score, axis=1), n)

    return recommend


def policies(env: dm.RecommendationMDP, profiles: dm.Profiles) -> dict[str, Any]:
    """Every recommender, valued on the tree of the market."""
    common: dict[str, Any] = {"initial": profiles, "batched": True}
    n = env.products

    def step(memory: Any, control: Any):
        return jnp.asarray(memory).at[control].set(1, mode="drop")

    ranking = dm.GivenPolicy(env, conversion(env), memory=(np.zeros(n, int), step), **common)
    return {
        "efficient": dm.solve_efficient_policy(env, initial=profiles, progress=False),
        "best expected utility": dm.GivenPolicy(env, best_utility(env), **common),
        "Thompson sampling": dm.GivenPolicy(env, thompson(env), **common),
        "conversion ranking": ranking,
    }


def study(name: markets.Real, options: Options) -> tuple[pd.DataFrame, dm.applications.Market]:
    """One row a recommender: means over the same profiles under the pivot without subsidy."""
    env, market = markets.real_market(
        name, options.products, options.tastes, options.rounds,
        own_readings=False, query=options.query,
    )  # fmt: skip
    keys = jax.random.split(jax.random.key(options.seed))
    rows = []
    for label, policy in policies(env, env.sample_profiles(keys[0], options.profiles)).items():
        row, mechanism, audit = row_of_means(policy)
        paid = mechanism.simulate(keys[1], options.conversations).payment.sum(axis=1)
        rows.append(
            {
                NAME: label,
                VALUE: policy.value.mean(),
                BEST: policy.upper.mean(),
                "surplus lost [%]": 100 * float(1 - policy.value.mean() / policy.upper.mean()),
                **row,
                BOUND: audit.incentive_bound.max(),
                PAID: paid.mean(),
                SPREAD: paid.std(ddof=1),
            }
        )
    return pd.DataFrame(rows), market


def picture(found: dict[str, tuple[pd.DataFrame, str]], out: Output) -> None:
    """Surplus and its parts, and what misreports gain beside what is certified."""
    figure, axes = new_figure(11.0, 3.8 * len(found), nrows=len(found), ncols=2, squeeze=False)
    for row, (name, (table, unit)) in zip(axes, found.items(), strict=True):
        x = np.arange(len(table))
        bars = (
            (row[0], ((VALUE, BLUE), (ADVERTISERS, ORANGE), (USER, GREEN)), "a conversation"),
            (row[1], ((BOUND, BLUE), (GAIN, ORANGE), (MESSAGE, RED)), "misreports"),
        )
        for axis, columns, title in bars:
            for k, (column, colour) in enumerate(columns):
                label = column.removesuffix(" [money]")
                axis.bar(x + 0.26 * (k - 1), table[column], 0.24, color=colour, label=label)
            axis.set_xticks(x, [label.replace(" ", "\n", 1) for label in table[NAME]], fontsize=8)
            tidy(axis, f"{name}: {title}", "", unit, zero=True)
            low, high = axis.get_ylim()
            axis.set_ylim(low, high + 0.2 * (high - low))
            axis.legend(frameon=False, fontsize=8, ncols=3, loc="upper center")
    out.picture("recommenders", figure)


def main(options: Options) -> None:
    """Run both markets, print what is found, and write the files."""
    if options.quick:
        options = replace(options, products=2, tastes=8, rounds=2, profiles=2, conversations=200)
    with jax.enable_x64(True):
        out = Output(options.results / "recommenders", "")
        found = {}
        for name in REAL:
            table, market = study(name, options)
            out.heading(f"{market.name}: {options.products} products")
            out.bullets(markets.real_assumptions(market, name, options.query))
            own = Output(out.folder, market.unit, out.console)
            own.table(name, table, "", show=False)
            title = f"means over {options.profiles} profiles"
            own.show(
                pd.DataFrame(table[[NAME, VALUE, BEST, ADVERTISERS, USER, SOLD]]),
                f"Surplus, {title}",
            )
            own.show(
                pd.DataFrame(table[[NAME, BOUND, GAIN, MESSAGE]]), "Misreports, over all profiles"
            )
            own.show(
                pd.DataFrame(table[[NAME, REVENUE, PAID, SPREAD, WORST]]), f"Payments, {title}"
            )
            out.written.extend(own.written)
            for _, one in table.iloc[1:].iterrows():
                out.say(
                    f"{one[NAME]}: {100 * (1 - one[VALUE] / one[BEST]):.1f}% of W is lost; a "
                    f"misreport gains {one[GAIN]:.3g} {market.unit}, and none, at the outset or "
                    f"at a node that is reached, more than {one[BOUND]:.3g}."
                )
            found[name] = (table, market.unit)
        picture(found, out)
        out.finish(options)


if __name__ == "__main__":
    dm.enable_compilation_cache()
    main(tyro.cli(Options, description=__doc__))
