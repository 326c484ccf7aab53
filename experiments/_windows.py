"""Slack of participation and no subsidy, windows, and informational size, as labelled tables."""

import numpy as np
import pandas as pd

import dynmech as dm

TERMS: dict[str, dm.groves.AbstractGroves] = {
    "zero": dm.groves.Zero(),
    "ex ante": dm.groves.ExAnte(),
    "phi_plus": dm.groves.NoSubsidy(),
    "phi_minus": dm.groves.Participation(),
    "phi_plus, displayable": dm.groves.NoSubsidy(displayable=True),
    "phi_minus, displayable": dm.groves.Participation(displayable=True),
    "window floor": dm.groves.WindowFloor(),
    "window ceiling": dm.groves.WindowCeiling(),
    "data-driven": dm.groves.DataDriven(),
}


def solve(env: dm.RecommendationMDP) -> dm.EfficientPolicy:
    """Solve for every initial profile."""
    return dm.solve_efficient_policy(env, progress=False)


def slacks(
    policy: dm.EfficientPolicy, term: dm.groves.AbstractGroves
) -> tuple[np.ndarray, np.ndarray]:
    """Slack of participation and of no subsidy under truth, (n, *P), money."""
    mechanism = dm.DynamicTeamMechanism(policy, term)
    kept = mechanism.agent_payoff - mechanism.groves_total
    paid = policy.advertiser_value - kept
    return kept, paid + policy.user_utility


def propositions(label: str, policies: list[dm.EfficientPolicy]) -> pd.DataFrame:
    """Every Groves term against both constraints, ex ante and per profile, in % of E[W]."""
    rows = []
    for name, term in TERMS.items():
        post, ante = [], []
        for policy in policies:
            weights = np.nan_to_num(policy.probability())
            both = np.stack(slacks(policy, term)) / policy.ex_ante_value * 100
            post.append(both.reshape(2, -1))
            ante.append(np.nansum(both * weights, axis=tuple(range(2, both.ndim))))
        each, mean = np.concatenate(post, axis=1), np.concatenate(ante, axis=1)
        each = each[:, np.isfinite(each[0])]
        broken = 100 * (each < -1e-7).mean(axis=1)
        rows.append(
            {
                "markets": label,
                "Groves term": name,
                "participation fails [% of profiles]": broken[0],
                "worst [% of E W]": each[0].min(),
                "ex ante, worst [% of E W]": mean[0].min(),
                "no subsidy fails [% of profiles]": broken[1],
                "worst subsidy slack [% of E W]": each[1].min(),
                "ex ante, worst subsidy slack [% of E W]": mean[1].min(),
            }
        )
    return pd.DataFrame(rows)


def windows(label: str, policies: list[dm.EfficientPolicy]) -> dict[str, str | float]:
    """Share of advertisers and profiles with room for both constraints, and how much room."""
    fixed, driven, gained = [], [], []
    for policy in policies:
        room = dm.groves.DataDriven().compare(dm.DynamicTeamMechanism(policy).own)
        known = np.isfinite(room.fixed)
        fixed.append(room.fixed[known] >= -1e-12)
        driven.append(room.data_driven[known] >= -1e-12)
        gain = room.data_driven[known] - room.fixed[known]
        gained.append(200 * gain / policy.ex_ante_value)
    return {
        "markets": label,
        "advertisers and profiles": sum(map(len, fixed)),
        "fixed total: open [%]": 100 * float(np.concatenate(fixed).mean()),
        "data-driven: open [%]": 100 * float(np.concatenate(driven).mean()),
        "width gained, mean [% of E W]": float(np.concatenate(gained).mean()),
        "width gained, most [% of E W]": float(np.concatenate(gained).max()),
    }


def tension(policy: dm.EfficientPolicy) -> dict[str, float]:
    """Informational size, phi_plus - phi_minus, and the slack that each end gives up."""
    plus, minus = (dm.DynamicTeamMechanism(policy, TERMS[x]) for x in ("phi_plus", "phi_minus"))
    own = plus.own
    belief = own.root[own.own_root]
    mass = belief.sum(axis=-1, keepdims=True)
    live = (own.own_root >= 0) & (mass[..., 0] > 0)
    posterior = np.where(live[..., None], belief / np.where(mass > 0, mass, 1), np.nan)
    apart = np.abs(posterior[:, :, :, None] - posterior[:, :, None]).sum(axis=-1) / 2
    size = np.nanmean(np.fmax.reduce(apart.reshape(*apart.shape[:2], -1), axis=2))
    gap, weights = plus.groves_total - minus.groves_total, np.nan_to_num(policy.probability())
    kept, subsidy = slacks(policy, plus.groves)[0], slacks(policy, minus.groves)[1]
    return {
        "informational size [1]": float(size),
        "E[phi_plus - phi_minus] [money]": float(np.nansum(gap * weights) / len(gap)),
        "largest phi_plus - phi_minus [money]": float(np.nanmax(gap)),
        "worst participation, phi_plus [money]": float(np.nanmin(kept)),
        "worst no subsidy, phi_minus [money]": float(np.nanmin(subsidy)),
    }
