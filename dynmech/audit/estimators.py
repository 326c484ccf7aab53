"""Is an estimator unbiased where Theorem 1 needs it, and if not, what can lies gain by it?

Payments use only the estimate of u_j for the product j just bought, so Assumption 3 of paper C
is needed only there and only in the mean (model page, section 4):

    E[estimate of u_j | omega, outcome history, reports, j bought] = u_j(omega).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import equinox as eqx
import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float

from dynmech._checks import number, takes
from dynmech._types import Numbers, Record
from dynmech.errors import (
    InvalidArgument,
    describe,
    import_extra,
)
from dynmech.estimators.means import (
    Reports,
    means_of,
    possible_reports,
    reported_means,
    shortest_histories,
)
from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles
from dynmech.market.settlements import AbstractSettlementSignal
from dynmech.play.terms import AbstractTerms
from dynmech.policy.base import AbstractPricedPolicy
from dynmech.problem.compile import compile_market
from dynmech.problem.edges import Compiled

Market = RecommendationMDP | AbstractPricedPolicy | AbstractTerms
ReportedMean = Callable[[np.ndarray, np.ndarray, np.ndarray, int], Numbers]
_TOLERANCE = 1e-9
_TOGETHER = 256  # edges whose laws live at once


class EstimatorWitness(Record):
    """Where an estimate of one product is most biased.

    `history`: recommendations that lead there, the last the current one (-1 for none); `taste`:
    index of the grid point, `point` (k,) itself; `estimate`, `utility`: E[estimate | omega, ...]
    and u_j(omega), money; `chance`: probability of the purchase there; `reports`: the reported
    (theta indices, signals) if the estimate reads them, else None.
    """

    product: str = eqx.field(static=True)
    history: tuple[int, ...] = eqx.field(static=True)
    taste: int = eqx.field(static=True)
    point: Float[np.ndarray, " k"]
    estimate: float = eqx.field(static=True)
    utility: float = eqx.field(static=True)
    chance: float = eqx.field(static=True)
    reports: Reports | None = eqx.field(static=True)

    @property
    def bias(self) -> float:
        return self.estimate - self.utility

    def sentence(self) -> str:
        """Say it so that a person can follow."""
        told = "" if self.reports is None else f", reports {self.reports}"
        return (
            f"After recommendations {self.history}, {self.product} is bought with probability "
            f"{self.chance:.3g} at taste point {self.taste}, where its utility is "
            f"{self.utility:.6g} and its estimate {self.estimate:.6g} on average{told}."
        )


class EstimatorReport(Record):
    """Assumption 3, checked on every situation of a market in which a product can be bought.

    Money. `bias_low`, `bias_high` (n,): extremes of E[estimate | omega, history] - u_j(omega),
    NaN for products never bought; `witness` (n,): where |bias| is largest, None if never bought.

    - `history_spread` (n,): how far the conditional mean moves with the outcome history, omega
      fixed (harmless where unbiased). `report_spread` (n,): how far it moves with advertisers'
      reports, omega, history and the platform's signal fixed: must be 0; `reads_reports`: False
      where it is 0 by construction, because the estimator is never shown the reports.
    - `incentive_bound`: the most that any strategy of reports can gain, see `check_assumption_3`.
    - `situations`: how many were checked. `tolerance`: biases below it are rounding.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    estimator: str = eqx.field(static=True)
    bias_low: Float[np.ndarray, " n"]
    bias_high: Float[np.ndarray, " n"]
    witness: tuple[EstimatorWitness | None, ...]
    history_spread: Float[np.ndarray, " n"]
    report_spread: Float[np.ndarray, " n"]
    reads_reports: bool = eqx.field(static=True)
    incentive_bound: float = eqx.field(static=True)
    situations: int = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)

    @property
    def largest_bias(self) -> Float[np.ndarray, " n"]:
        """Largest |bias| of each product; NaN if it is never bought."""
        return np.maximum(np.abs(self.bias_low), np.abs(self.bias_high))

    @property
    def unbiased(self) -> Bool[np.ndarray, " n"]:
        """Within tolerance; True for products never bought."""
        return ~(self.largest_bias > self.tolerance)

    def to_frame(self):
        """Labelled pandas table: one row a product."""
        pandas = import_extra("pandas", "experiments", "EstimatorReport.to_frame")
        return pandas.DataFrame(
            {
                "product": list(self.names),
                "estimator": self.estimator,
                "bias_low": self.bias_low,
                "bias_high": self.bias_high,
                "unbiased": self.unbiased,
                "history_spread": self.history_spread,
                "report_spread": self.report_spread,
                "witness": ["" if w is None else w.sentence() for w in self.witness],
            }
        )

    def summary(self) -> str:
        """A verdict with its witness."""
        known = np.nan_to_num(self.largest_bias, nan=-1.0)
        worst = int(np.argmax(known))
        verdict = "HOLDS" if self.unbiased.all() else "FAILS"
        head = f"Assumption 3 {verdict} for {self.estimator} in {self.situations} situations: "
        head += f"largest bias {max(known[worst], 0):.3g}, tolerance {self.tolerance:.1e}; "
        lines = [head + f"misreports gain at most {self.incentive_bound:.3g}"]
        found = self.witness[worst]
        if not self.unbiased.all() and found is not None:
            lines.append(f"  {found.sentence()}")
        why = "; it is never shown reports" if not self.reads_reports else ""
        lines.append(
            f"  the mean moves with the history by {np.nanmax(self.history_spread):.3g}, with "
            f"advertisers' reports by {np.nanmax(self.report_spread):.3g}{why}"
        )
        return "\n".join(lines)


def purchase_support(market: Market) -> Float[np.ndarray, "n m"]:
    """Find where each product can be bought, and how likely at most, for `decode_utilities`.

    The largest P(j bought | the conversation ends here, omega) over all situations, shape
    (n, m): y_j / (1 - y_q). Positive exactly where buying j has positive probability after some
    history; 0 at tastes of prior weight 0.
    """
    env, compiled = _compiled("purchase_support", market)
    every = np.arange(len(compiled.query))
    parts = (every[low : low + _TOGETHER] for low in range(0, len(every), _TOGETHER))
    chance = np.max([_ending(compiled.actions(x), env.products).max(axis=0) for x in parts], axis=0)
    return np.where(np.asarray(env.tastes.weights) > 0, chance, 0.0)


def check_assumption_3(
    market: Market,
    estimator: AbstractSettlementSignal | npt.ArrayLike | ReportedMean | None = None,
    tolerance: float | None = None,
) -> EstimatorReport:
    """Check E[estimate of u_j | omega, history, reports, j bought] = u_j(omega) (Assumption 3).

    Exact: every situation (what the user remembers, and the recommendation) that some sequence of
    recommendations reaches, every taste of positive prior weight at which j is then bought with
    positive probability.

    **The bound.** With beta the bias, gains from misreporting are at most

        max f - min f,     f(e, omega) = sum_j y_j(e, omega) beta_j(e, omega) / (1 - y_q(e, omega)),

    over all situations e and tastes omega, and 0 counted among the f. *Proof.* The efficient
    plan has the largest surplus, so a strategy of reports gains at most the difference between
    the expected bias at the purchase under its plan and under truth's. Given omega, that of any
    plan is the sum over situations of P(the conversation ends there) f, an average of f and 0. It
    holds at any node with a truthful past, conditional on the node, for Groves terms fixed given
    the others' reports; for an approximate policy add its gap at the node (model page, section 5).

    **Arguments**

    - `market`: the environment, or a policy or mechanism on it. `tolerance`: money; 1e-9 of
      the money scale by default.
    - `estimator`: one of
        - a settlement signal, the market's or the mechanism's own by default;
        - a table of E[omega_hat | omega, j bought], shape (m, k) or (n, m, k);
        - a function of the initial reports (theta indices (n,), signals (1+n,), memory,
          recommendation) -> E[estimate of u_j | omega, j bought] (n, m), money, which is tried
          at all reports of positive probability (of a policy, those it was solved for).

    **Returns:** `EstimatorReport`: the worst cases, their witnesses, the tolerance.

    **Raises:** `InvalidArgument` for a wrong shape, and for a table whose mean estimates leave
    the affine span of the taste grid, which no average of tastes does; `NotFinite`; `TooLarge`.

    **References:** paper C, Assumptions 2 and 3, Lemma 1; model page, sections 4 and 5.
    """
    call = "check_assumption_3"
    env, compiled = _compiled(call, market)
    if estimator is None:
        own = isinstance(market, AbstractTerms)
        estimator = market.estimator if own else env.signals.settlement
    tolerance = _TOLERANCE * env.money_scale if tolerance is None else tolerance
    number(least=0)(f"{call}(tolerance=...)", tolerance)
    tally = _Tally(env, compiled)
    known, missing = isinstance(estimator, AbstractSettlementSignal), False
    if isinstance(estimator, AbstractSettlementSignal):
        estimator = estimator.sent_by(env.signals.settlement)
        missing = estimator.counts_missing()
        env.check_settlement(f"{call}(estimator=...)", estimator)
    reads = takes(estimator, 4) and not known
    if reads:
        for reports in possible_reports(env, _solved(market), len(compiled.situation)):
            found = reported_means(estimator, env, compiled, reports)
            tally.add(found, reports, reports[1][0])
    else:
        reads = missing
        for end in (0, 1) if reads else (None,):  # the least and the most that can be predicted
            found = means_of(f"{call}(estimator=...)", estimator, env, compiled, end)
            tally.add(found, None, 0 if reads else None)
    return EstimatorReport(
        names=env.names,
        estimator=getattr(estimator, "__name__", type(estimator).__name__),
        bias_low=tally.low,
        bias_high=tally.high,
        witness=tally.witnesses(),
        history_spread=tally.history_spread,
        report_spread=tally.report_spread,
        reads_reports=reads,
        incentive_bound=tally.top - tally.bottom,
        situations=len(compiled.situation),
        tolerance=float(tolerance),
    )


class _Tally:
    """Running extremes of the bias over situations, tastes and reports."""

    def __init__(self, env: RecommendationMDP, compiled: Compiled):
        self.env, self.compiled, n = env, compiled, env.products
        self.seen = np.asarray(env.tastes.weights) > 0
        self.low, self.high = np.full(n, np.nan), np.full(n, np.nan)
        self.worst = np.full(n, -1.0)
        self.place: list[tuple[Any, ...] | None] = [None] * n
        self.top = self.bottom = 0.0
        self.history_spread, self.report_spread = np.zeros(n), np.zeros(n)
        self.range: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}

    def add(
        self, parts: Iterator[tuple[int, np.ndarray]], reports: Reports | None, platform: int | None
    ) -> None:
        """Add conditional means (s, n, m) of the situations from `first` on.

        **Arguments:** `platform`: its signal, None where nothing reported enters the means.
        """
        env, n = self.env, self.env.products
        low, high = np.full((2, n, env.tastes.size), np.nan)
        for first, means in parts:
            action = self.compiled.actions(self.compiled.edge_of[first : first + len(means)])
            live = (action[:, :n] > 0) & self.seen
            means = np.where(live, means, np.nan)
            bias = means - env.gains
            ending = _ending(action, n) * np.nan_to_num(bias)
            self.top = max(self.top, float(ending.sum(axis=1).max()))
            self.bottom = min(self.bottom, float(ending.sum(axis=1).min()))
            self.low = np.fmin(self.low, np.fmin.reduce(bias, axis=(0, 2)))
            self.high = np.fmax(self.high, np.fmax.reduce(bias, axis=(0, 2)))
            low, high = np.fmin(low, np.fmin.reduce(means)), np.fmax(high, np.fmax.reduce(means))
            size = np.nan_to_num(np.abs(bias), nan=-1.0)
            for j in np.flatnonzero(size.max(axis=(0, 2)) > self.worst):
                s, a = np.unravel_index(int(size[:, j].argmax()), size[:, j].shape)
                self.worst[j] = size[s, j, a]
                estimate, chance = float(means[s, j, a]), float(action[s, j, a])
                self.place[j] = (first + int(s), int(a), estimate, chance, reports)
            if platform is not None:
                self._compare(platform, first, means)
        moved = np.nan_to_num(high - low).max(axis=1)
        self.history_spread = np.maximum(self.history_spread, moved)

    def _compare(self, platform: int, first: int, means: np.ndarray) -> None:
        """Widen what was seen in these situations under the same signal of the platform."""
        low, high = self.range.get((platform, first), (means, means))
        low, high = np.fmin(low, means), np.fmax(high, means)
        self.range[platform, first] = low, high
        moved = np.nan_to_num(high - low).max(axis=(0, 2))
        self.report_spread = np.maximum(self.report_spread, moved)

    def witnesses(self) -> tuple[EstimatorWitness | None, ...]:
        env, compiled = self.env, self.compiled
        paths = shortest_histories(env, compiled, [p[0] for p in self.place if p is not None])
        found = []
        for j, place in enumerate(self.place):
            if place is None:
                found.append(None)
                continue
            s, taste, estimate, chance, reports = place
            found.append(
                EstimatorWitness(
                    product=env.names[j],
                    history=paths[s],
                    taste=taste,
                    point=np.asarray(env.tastes.points)[taste],
                    estimate=estimate,
                    utility=float(env.gains[j, taste]),
                    chance=chance,
                    reports=reports,
                )
            )
        return tuple(found)


def _compiled(call: str, market: Market) -> tuple[RecommendationMDP, Compiled]:
    policy = market.policy if isinstance(market, AbstractTerms) else market
    if isinstance(policy, AbstractPricedPolicy):
        env = policy.env
        return env, policy.compiled if policy.evaluator.walked else compile_market(env)
    if not isinstance(policy, RecommendationMDP):
        must = "be a RecommendationMDP, a policy or a AbstractTerms"
        raise InvalidArgument(describe(f"{call}(market=...)", must, type(market).__name__))
    return policy, compile_market(policy)


def _solved(market: Market) -> Profiles | None:
    """The initial profiles of a policy and each advertiser's alternatives to them."""
    policy = market.policy if isinstance(market, AbstractTerms) else market
    if not isinstance(policy, AbstractPricedPolicy):
        return None
    return Profiles(policy.pairs.theta, policy.pairs.signals[policy.pairs.root])


def _ending(action: np.ndarray, n: int) -> Float[np.ndarray, "s n m"]:
    """P(j bought | the conversation ends here, omega); 0 where it surely goes on."""
    ends = action[:, : n + 1].sum(axis=1, keepdims=True)
    return action[:, :n] / np.where(ends > 0, ends, 1.0)
