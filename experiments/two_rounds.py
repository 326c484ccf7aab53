"""The two-round example of paper C, section 2, with the care that it needs.

The user first sees i; if u_i is high she buys or leaves, else she asks again; in round 2 she picks
the preferred of what she has seen, or nothing. The paper prices only the new product in round 2
and says that "the second product will be recommended ... independently of reports". Neither holds
at perfect recall: showing j can take a sale from i that is worth more. Solved exactly here, next to
the best policy that always shows the second product, and to the paper's formula

    E[(theta_i + u_i) y_i + y_q(i) (theta_j + u_j) y_j].
"""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import jax
import numpy as np
import pandas as pd
import tyro
from scipy.special import expit, ndtr

import dynmech as dm
from experiments._figures import BLUE, ORANGE, RESULTS, new_figure, tidy
from experiments._markets import ABSTRACT
from experiments._output import Output


@dataclass(frozen=True)
class Options:
    """The markets; money has no unit."""

    markets: int = 8
    """Random markets."""
    tastes: int = 32
    """Taste points of each."""
    noise: float = 1.0
    """Noise of everyone's first signal, two symbols each; utilities have deviation 1."""
    values: tuple[float, ...] = (0.2, 1.0, 2.5)
    """Values per purchase that each advertiser may have, equally likely."""
    seed: int = 0
    """First seed."""
    results: Path = RESULTS
    """Folder; files go to `two_rounds` inside."""


def market(utilities: np.ndarray, support: np.ndarray, noise: float | None) -> dm.RecommendationMDP:
    """Two products of utilities (2, m), evenly likely: query falls in u_i, threshold purchase.

    y_q(i, omega) = 0.9 / (1 + exp(u_i)); after showing none the user asks again with 0.9. In
    round 2 she picks the preferred of what she has seen. `noise`: of the first signals, two
    symbols each (the platform reads the mean utility); None for no signals.
    """
    m, values = utilities.shape[1], support.shape[1]
    shown = [h for t in (1, 2) for h in product(range(3), repeat=t)]
    action = np.zeros((len(shown), 4, m))
    for row, history in zip(action, shown, strict=True):
        seen = [j for j in (0, 1) if j in history]
        best = utilities[seen].max(axis=0, initial=0.0)
        query = 0.9 * expit(-utilities[seen].max(axis=0)) if seen else np.full(m, 0.9)
        query = query if len(history) == 1 else np.zeros(m)
        for j in seen[::-1]:  # ties go to the lower index
            row[:2] = np.where(utilities[j] == best, 0.0, row[:2])
            row[j] = np.where(utilities[j] == best, 1 - query, row[j])
        row[3], row[2] = query, 1 - query - row[:2].sum(axis=0)
    readings = np.stack([utilities.mean(axis=0), *utilities])
    high = ndtr(readings / noise) if noise else np.ones((3, m))
    both = np.stack([1 - high, high], axis=-1) if noise else np.ones((3, m, 1))
    return dm.RecommendationMDP.from_tables(
        gamma=np.eye(2),
        omega=utilities.T,
        prior=np.full(m, 1 / m),
        horizon=2,
        action=action,
        feedback=np.ones((len(shown), m, 1, 1, 1)),
        initial_signals=np.einsum("mp,ma,mb->mpab", *both),
        theta_support=support,
        theta_prior=np.full((2, values), 1 / values),
        theta_kernel=np.broadcast_to(np.eye(values), (3, 2, values, values)).copy(),
        names=("i", "j"),
    )


def better_not_shown() -> dm.RecommendationMDP:
    """u_i = 1, u_j = 1.1, theta_i = 5, theta_j = 0 for certain: showing j takes i's sale.

    After i and a query, none: i is bought, 6. After i, a query and j: j is bought, 1.1. With
    q = 0.9 / (1 + e): W = 6, always showing the second product (1 - q) * 6 + q * 1.1.
    """
    return market(np.array([[1.0], [1.1]]), np.array([[5.0], [0.0]]), None)


def always_second(policy: dm.EfficientPolicy) -> tuple[np.ndarray, np.ndarray]:
    """Values of showing i first and j second, and the other way round, P each."""
    child = policy.plan.tree.layers[0].child
    values = []
    for first in (0, 1):
        actions = [taken.copy() for taken in policy.plan.actions]
        actions[0][:] = first
        for then in (0, 1):
            actions[1][:, child[0, then].ravel()] = 1 - then
        values.append(policy.with_actions(actions).value)
    return values[0], values[1]


def formula(policy: dm.EfficientPolicy) -> np.ndarray:
    """The paper's value of showing i first, and j first: new product priced only, (2, *P)."""
    env, belief = policy.env, dm.DynamicTeamMechanism(policy).own.posterior()[:, 0]
    utilities, support = env.utilities, env.values.support
    query = 0.9 * expit(-utilities)
    theta = support[np.arange(2), policy.profiles.theta]
    earned = theta[:, :, None] + utilities
    bought = earned * (utilities >= 0)
    worth = [
        (((1 - query[i]) * bought[:, i] + query[i] * bought[:, 1 - i]) * belief).sum(axis=1)
        for i in (0, 1)
    ]
    return np.stack(worth).reshape(2, *policy.value.shape)


def compare(label: str, env: dm.RecommendationMDP) -> dict[str, str | float]:
    """Efficient play against always showing the second product and against the formula's choice."""
    policy = dm.solve_efficient_policy(env, progress=False)
    audit = dm.DynamicTeamMechanism(policy, dm.groves.Participation()).audit()
    weights, first = policy.probability(), policy.plan.actions[0][policy.pairs.base, 0]
    child = policy.plan.tree.layers[0].child
    after = np.where(first < 2, child[0, np.minimum(first, 1), 0], 0)
    then = policy.plan.actions[1][policy.pairs.base, after]
    skipped = (first < 2) & (then != 1 - first)
    values = np.stack(always_second(policy))
    picked = np.take_along_axis(values, formula(policy).argmax(axis=0)[None], axis=0)[0]
    return {
        "market": label,
        "W [money]": policy.ex_ante_value,
        "second always shown [money]": float(np.nansum(values.max(axis=0) * weights)),
        "formula's choice [money]": float(np.nansum(picked * weights)),
        "second not shown [% of profiles]": 100 * float(weights.ravel()[skipped].sum()),
        "gain, data-driven [money]": float(audit.incentive_gain.max()),
        "gain, message-driven [money]": float(
            dm.DynamicTeamMechanism(policy)
            .audit(dm.settlement.MessageDriven())
            .incentive_gain.max()
        ),
    }


def study(options: Options) -> pd.DataFrame:
    """The constructed market and random ones."""
    rows = [compare("constructed", better_not_shown())]
    for s in range(options.seed, options.seed + options.markets):
        rng = np.random.default_rng(s)
        utilities = rng.multivariate_normal([0.2, 0.2], [[1, 0.5], [0.5, 1]], options.tastes).T
        env = market(utilities, np.array([options.values] * 2), options.noise)
        rows.append(compare(f"seed {s}", env))
    return pd.DataFrame(rows)


def picture(table: pd.DataFrame, out: Output) -> None:
    """What is lost by always showing the second product, and by the formula's first choice."""
    figure, axes = new_figure(7.0, 3.8)
    place = np.arange(len(table))
    for shift, column, colour in (
        (-0.2, "second always shown [money]", BLUE),
        (0.2, "formula's choice [money]", ORANGE),
    ):
        lost = 100 * (1 - table[column] / table["W [money]"])
        axes.bar(place + shift, lost, 0.4, color=colour, label=column.replace(" [money]", ""))
    axes.set_xticks(place, [x.replace(" ", "\n") for x in table["market"]], fontsize=8)
    tidy(axes, "Surplus lost against the efficient policy", "", "% of E[W]")
    axes.legend(fontsize=9, frameon=False)
    out.picture("second_product", figure)


def main(options: Options) -> None:
    """Solve, tabulate, draw, in float64."""
    with jax.enable_x64(True):
        out = Output(options.results / "two_rounds", ABSTRACT)
        out.heading("Section 2: two rounds")
        out.bullets(
            [
                "Query after i: 0.9 / (1 + exp(u_i)), falling in u_i; after none shown: 0.9.",
                "Perfect recall: in round 2 the preferred of what was seen, or nothing, is picked.",
                (
                    f"Constructed: u_i = 1, u_j = 1.1, theta_i = 5, theta_j = 0. Random: "
                    f"utilities normal, mean 0.2, on {options.tastes} points; first signals with "
                    f"noise {options.noise:g}; values "
                    f"{', '.join(f'{x:g}' for x in options.values)}."
                ),
            ]
        )
        table = study(options)
        out.table("second_product", table, "Efficient play, and always showing the second product")
        one = table.iloc[0]
        out.say(
            f"Constructed: always showing j second brings "
            f"{one['second always shown [money]']:.4g} of {one['W [money]']:.4g}: j takes a sale "
            "of i that is worth more. Whether it should be shown depends on reports, so 'the only "
            "allocative decision' is not the first one. Truth stays optimal when settled on data."
        )
        picture(table, out)
        out.finish(options)


if __name__ == "__main__":
    dm.enable_compilation_cache()
    main(tyro.cli(Options, description=__doc__))
