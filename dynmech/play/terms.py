"""What is agreed: who recommends, what is charged, what settles; all that engines read."""

import equinox as eqx
import numpy as np
from jaxtyping import Float

from dynmech._types import Record
from dynmech.market.settlements import AbstractSettlementSignal
from dynmech.payments.groves import AbstractGroves, OwnTables, total_by_taste
from dynmech.policy.base import AbstractPricedPolicy


class AbstractTerms(Record):
    """The terms of a mechanism.

    - `policy`: who recommends. `groves`: its Groves term. `estimator`: the settlement signal.
    - `reports`: "incremental" or "cumulative". `installments`: shares of the total by period.
    - `own`: tables along own alternatives. `groves_total` (n, *P): charged in total, money.
    - `agent_payoff` (n, *P): expected under truth without the Groves term, money.
    """

    policy: eqx.AbstractVar[AbstractPricedPolicy]
    groves: eqx.AbstractVar[AbstractGroves]
    estimator: eqx.AbstractVar[AbstractSettlementSignal]
    reports: eqx.AbstractVar[str]
    installments: eqx.AbstractVar[tuple[float, ...]]
    own: eqx.AbstractVar[OwnTables]
    groves_total: eqx.AbstractVar[Float[np.ndarray, "n ..."]]
    agent_payoff: eqx.AbstractVar[Float[np.ndarray, "n ..."]]

    def totals_by_taste(self) -> Float[np.ndarray, "B n _m"]:
        """The Groves total of each profile at each taste; one number where it is fixed."""
        table, policy = total_by_taste(self.groves, self.own), self.policy
        if table is None:
            return self.groves_total.reshape(policy.env.products, -1).T[:, :, None]
        whole = np.full((len(policy.profiles), *table.shape[1:]), np.nan)
        whole[policy.played] = table
        return whole
