"""Every `expected_*` quantity of the cases, through the public API, and how to compare them."""

import numpy as np

import dynmech as dm

ARGUMENTS = (
    "gamma", "omega", "prior", "horizon", "action", "feedback", "initial_signals",
    "theta_support", "theta_prior", "theta_kernel", "estimator",
)  # fmt: skip
TOLERANCE = 1e-9
"""Of the money scale: what the contract allows against brute force in float64."""


def market_of(case):
    """The market of a case: a mapping that holds the arguments of `from_tables`, and others."""
    found = {key: np.asarray(case[key]) for key in ARGUMENTS if key in case}
    return dm.RecommendationMDP.from_tables(
        **{key: value if value.ndim else value.item() for key, value in found.items()}
    )


def quantities(policy):
    """Everything the cases expect of a policy, under the names of their README.

    A batch has no ex-ante expectations; those two are then left out.
    """
    terms = {
        "phi_plus": dm.groves.NoSubsidy(),
        "phi_minus": dm.groves.Participation(),
        "phi_plus_displayable": dm.groves.NoSubsidy(displayable=True),
        "phi_minus_displayable": dm.groves.Participation(displayable=True),
        "window_floor": dm.groves.WindowFloor(),
        "window_ceiling": dm.groves.WindowCeiling(),
    }
    mechanism = dm.DynamicTeamMechanism(policy, groves=dm.groves.Zero())
    honest, message = mechanism.audit(), mechanism.audit(dm.settlement.MessageDriven())
    found = {
        "W": policy.value,
        "W_marginal": policy.marginal_value,
        "W_displayable": policy.displayable_marginal_value,
        "advertiser_value": policy.advertiser_value,
        "user_utility": policy.user_utility,
        "agent_payoff": mechanism.agent_payoff,
        "gain_estimator": honest.incentive_gain,
        "gain_estimator_first": honest.first_gain,
        "gain_message": message.incentive_gain,
        "gain_message_first": message.first_gain,
    }
    for name, term in terms.items():
        found[name] = dm.DynamicTeamMechanism(policy, groves=term).groves_total
    if not policy.batch:
        found["ex_ante_W"] = policy.ex_ante_value
        found["ex_ante_W_marginal"] = policy.ex_ante_marginal_value
    return {name: np.asarray(value) for name, value in found.items()}


def solve(env, merge=True, initial=None, **options):
    """A policy without a progress bar."""
    return dm.solve_efficient_policy(
        env, dm.Exact(merge=merge, **options), initial=initial, progress=False
    )


def assert_same(found, expected, scale, keys=None):
    """Equal shapes, the same NaN, numbers within `TOLERANCE` of the money scale."""
    for key in expected if keys is None else keys:
        np.testing.assert_allclose(
            found[key], expected[key], rtol=0, atol=TOLERANCE * scale, err_msg=key, strict=True
        )


def at_profiles(found, policy, profiles):
    """Restrict quantities of all profiles to a batch: the axes P become one axis B."""
    index = (*profiles.theta.T, *profiles.signals.T)
    shape = policy.env.profile_shape
    out = {}
    for key, value in found.items():
        if value.shape == shape:
            out[key] = value[index]
        elif value.shape[1:] == shape:
            out[key] = value[(slice(None), *index)]
    return out


def tables_of(policy: dm.EfficientPolicy) -> dict[str, np.ndarray]:
    """What the brute-force cases with costs or displays expect, by its key there."""
    mechanism = dm.DynamicTeamMechanism(policy, groves=dm.groves.Zero())
    audit = mechanism.audit()
    found = {
        "W": policy.value,
        "W_marginal": policy.marginal_value,
        "W_displayable": policy.displayable_marginal_value,
        "advertiser_value": policy.advertiser_value,
        "purchase": policy.purchase,
        "user_gain": policy.user_utility,
        "cost": policy.round_costs,
        "user_surplus": audit.budget.user_surplus,
        "agent_payoff": mechanism.agent_payoff,
        "core_payment": audit.budget.payments,
        "window_floor": audit.window.floor,
        "window_ceiling": audit.window.ceiling,
        "gain": audit.incentive_gain,
        "D": -audit.no_subsidy,
    }
    for display in (False, True):
        end = "_displayable" if display else ""
        for sign, term in (("plus", dm.groves.NoSubsidy), ("minus", dm.groves.Participation)):
            held = dm.DynamicTeamMechanism(policy, groves=term(displayable=display))
            found[f"phi_{sign}{end}"] = held.groves_total
    return found
