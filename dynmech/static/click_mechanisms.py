"""Mechanisms of click-through auctions: paid per click, or per impression (paper D, section 5.1).

All use the assortative rule. Payments per click are contingent on data; payments per impression
are message-driven, and meet the impossibility that section 5.1 speaks of.
"""

import equinox as eqx
import numpy as np
from jaxtyping import Float

from dynmech._checks import checked, choice, optional
from dynmech.errors import InvalidArgument, describe
from dynmech.static.clicks import AUCTION, ClickAuction, click_prices
from dynmech.static.estimators import ESTIMATOR, Estimator, IdealData
from dynmech.static.mechanisms import MECHANISM, DirectMechanism

_SAME = 1e-12


@checked(auction=AUCTION, data=optional(ESTIMATOR))
def click_pivot(auction: ClickAuction, data: Estimator | None = None) -> DirectMechanism:
    """Build the data-driven pivot mechanism of click auctions, (16).

    p_i = M sum_{k >= i} (omega_hat_k - omega_hat_{k+1}) theta_{k+1}. Incentive compatible,
    individually rational and without subsidy in every state (Proposition 2); with one slot also
    for every realisation of the clicks (Remark 2).

    **Arguments:** `data`: an unbiased estimator of the rates, such as `click_frequency`; None:
    the rates themselves, which have the same expected transfers, (17).

    ```python
    >>> from dynmech import TasteGrid
    >>> rates = TasteGrid([[0.2, 0.1], [0.4, 0.3]], [0.5, 0.5])
    >>> auction = ClickAuction(rates, [[1.0, 5.0], [2.0, 4.0], [3.0, 3.0]], impressions=10)
    >>> audit = click_pivot(auction).audit()
    >>> audit.epsilon <= audit.tolerance, float(audit.worst_state_participation.min())
    (True, 0.0)

    ```
    """
    return _per_click(auction, data, "pivot", "per-click pivot")


@checked(auction=AUCTION, data=optional(ESTIMATOR))
def generalised_second_price(
    auction: ClickAuction, data: Estimator | None = None
) -> DirectMechanism:
    """Build the generalised second price: slot i pays theta_{i+1} for each own click.

    Truth is no equilibrium with two slots or more: the audit finds who gains by shading.
    """
    rule = "generalised second price"
    return _per_click(auction, data, rule, rule)


@checked(auction=AUCTION, information=choice("prior", "others", "reported"))
def per_impression_pivot(auction: ClickAuction, information: str = "prior") -> DirectMechanism:
    """Build the message-driven pivot: (16) at expected clicks, charged whatever is clicked.

    **Arguments:** `information`: whose it is in E[omega]: "prior", nobody's; "others", that of
    all but the payer (Example 4); "reported", everybody's (case 3 of the proof of Proposition 2).

    **Raises:** `InvalidArgument`.
    """
    prices = click_prices(auction.values(), auction.slots)
    mean = np.asarray(auction.rates.mean, np.float64)
    transfers = []
    for i in range(auction.env.agents):
        if information == "others":
            mean = auction.expected_rates(without=i)
        elif information == "reported":
            mean = auction.expected_rates()
        paid = (prices[..., i, :] * mean).sum(axis=-1, keepdims=True)
        transfers.append(auction.impressions * paid)
    name = f"per-impression pivot ({information})"
    return DirectMechanism(auction.env, auction.assortative(), transfers, name=name)


class RealisedSlack(eqx.Module):
    """Participation and no subsidy once clicks are counted, over profiles and click counts.

    `participation`, `no_subsidy` (n,): least theta_i clicks_i - p_i and least p_i, money;
    `shortfall` (n,): largest chance, over profiles and states, that the former is negative;
    `subsidy` (n,): that the latter is.
    """

    participation: Float[np.ndarray, " n"]
    no_subsidy: Float[np.ndarray, " n"]
    shortfall: Float[np.ndarray, " n"]
    subsidy: Float[np.ndarray, " n"]


@checked(auction=AUCTION, mechanism=MECHANISM, clicks=ESTIMATOR)
def realised_slack(
    auction: ClickAuction, mechanism: DirectMechanism, clicks: Estimator
) -> RealisedSlack:
    """Check participation and no subsidy for every realisation of the click data, Remark 2.

    **Arguments:** `mechanism`: settled on `clicks`, the `click_frequency` of that auction.

    **Raises:** `InvalidArgument` if it is settled on other data.
    """
    env = auction.env
    if any(not np.array_equal(law, clicks.law(env)) for law in mechanism.law):
        must = f"be settled on the {len(clicks.points)} outcomes of `clicks`"
        got = [law.shape[-1] for law in mechanism.law]
        do = "pass the same estimator to both"
        raise InvalidArgument(describe("realised_slack(mechanism=...)", must, got, do))
    law = clicks.law(env)[0]
    seen = law.max(axis=0) > 0
    possible = env.possible()
    found = np.zeros((4, env.agents))
    for i in range(env.agents):
        earned = env.payoff_by_type(i, clicks.points)
        earned = np.broadcast_to(earned, (*env.shape, *earned.shape[-2:]))
        at = mechanism.allocation[..., None, None]
        paid = mechanism.transfer[i]
        net = np.take_along_axis(earned, at, axis=-2)[..., 0, :] - paid
        sizes = np.abs(net + paid) + np.abs(paid)
        for row, table in ((0, net), (1, paid)):
            found[row, i] = table[possible][:, seen].min()
            short = (table < -_SAME * sizes)[possible]
            found[row + 2, i] = (short.astype(float) @ law.T).max()
    return RealisedSlack(*found)


def _per_click(auction: ClickAuction, data: Estimator | None, rule: str, name: str):
    env, prices = auction.env, click_prices(auction.values(), auction.slots, rule)
    given = IdealData() if data is None else data
    points, law = given.support(env), given.law(env)
    transfers = [auction.impressions * prices[..., i, :] @ points.T for i in range(env.agents)]
    return DirectMechanism(env, auction.assortative(), transfers, [law] * env.agents, name)
