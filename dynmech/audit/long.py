"""Audits under a long-horizon policy: certified bounds, simulated slack, verdicts with confidence.

At the outset of profile b no strategy of reports of any one advertiser gains more than

    W(b) - V(b) + 2 max |bias of the estimate| + variation of total_i in her own report,

where the last is zero by construction (`dynmech.mechanism.long_groves`), W is bounded from above
for certain and V, the policy's own value, from below with confidence. Other settlements have no
such bound; simulation refutes them where some misreport measurably gains.

Every line of the audit holds with its confidence for all of its entries at once (Bonferroni).
"""

from typing import cast

import equinox as eqx
import numpy as np
from jaxtyping import Float

from dynmech._types import query_code, split_symbol
from dynmech.audit.gains import MeasuredGains, measure_gains, witness
from dynmech.audit.witness import Witness, name_structures
from dynmech.errors import InvalidArgument, describe, import_extra, require_whole
from dynmech.market.signals import AbstractSettlementSignal
from dynmech.market.values import ConstantValues
from dynmech.payments.settlement import AbstractSettlement
from dynmech.play.simulate import draw_conversations
from dynmech.policy.base import AbstractPricedPolicy
from dynmech.policy.conversation import Conversation
from dynmech.policy.played import PlayEvaluator
from dynmech.policy.player import largest_bias
from dynmech.solve.certificates import Certificate, hidden, margin

_TOLERANCE = 1e-9
_NODE_RUNS = 512


class Interval(eqx.Module):
    """Simulated expectations, money: `value`, standard `error`, and bounds `low`, `high`.

    Each bound holds with the audit's confidence for all entries at once; `low` may hold for
    certain, where the audit says so.
    """

    value: Float[np.ndarray, "..."]
    error: Float[np.ndarray, "..."]
    low: Float[np.ndarray, "..."]
    high: Float[np.ndarray, "..."]


class LongBudget(eqx.Module):
    """Expected money and standard errors: `payments` (n, B), `revenue`, `user_surplus` (B,)."""

    payments: Float[np.ndarray, "n B"]
    payments_error: Float[np.ndarray, "n B"]
    revenue: Float[np.ndarray, " B"]
    revenue_error: Float[np.ndarray, " B"]
    user_surplus: Float[np.ndarray, " B"]
    user_surplus_error: Float[np.ndarray, " B"]


class NodeBound(eqx.Module):
    """Most that any report can gain from a node inside a conversation on, money.

    `shown`: the recommendations that led there, -1 for none; `bound`: with the confidence of
    each node by itself; `upper` - `lower` the certified gap.
    """

    profile: int = eqx.field(static=True)
    period: int = eqx.field(static=True)
    shown: tuple[int, ...] = eqx.field(static=True)
    lower: float = eqx.field(static=True)
    upper: float = eqx.field(static=True)
    bound: float = eqx.field(static=True)


class LongAudit(eqx.Module):
    """Incentives, participation, no subsidy, budget under a long-horizon policy, money.

    - `incentive_bound` (n, B): most that lying can gain, planned at the outset, with
      `confidence`; NaN for a settlement other than the estimator. `inside`: the same at nodes
      inside simulated conversations, each by itself. `bias`: largest of the estimate, certain.
    - `gains`: measured gains of misreports at the outset; `incentive_gain` (n,): the largest
      of each advertiser, never below 0; `witness[i]` says which.
    - `participation`, `no_subsidy`: slack (n, B) of each constraint from the policy's own
      expected payments. `certain_no_subsidy` (n, B): a lower bound of the slack without sampling
      error, NaN where there is none.
    - `budget`, `groves_total` (n, B). `runs`: conversations simulated of each report.
    - `tolerance`: money; gains and shortfalls below it are taken to be none.
    """

    names: tuple[str, ...] = eqx.field(static=True)
    settlement: str = eqx.field(static=True)
    groves: str = eqx.field(static=True)
    confidence: float = eqx.field(static=True)
    runs: int = eqx.field(static=True)
    incentive_bound: Float[np.ndarray, "n B"]
    inside: tuple[NodeBound, ...]
    bias: float = eqx.field(static=True)
    gains: MeasuredGains
    witness: tuple[Witness, ...]
    participation: Interval
    no_subsidy: Interval
    certain_no_subsidy: Float[np.ndarray, "n B"]
    groves_total: Float[np.ndarray, "n B"]
    budget: LongBudget
    tolerance: float = eqx.field(static=True)

    @property
    def incentive_gain(self) -> Float[np.ndarray, " n"]:
        """Largest measured gain of a misreport, shape (n,), money, never below 0."""
        return self.gains.best(self.gains.gain, self.groves_total.shape[1]).max(axis=1)

    @property
    def verdicts(self) -> dict[str, str]:
        """For each of "incentives", "participation", "no subsidy": is it proved or refuted?"""
        sure = f" at {100 * self.confidence:g}%"
        lies = self.gains.low.max(initial=-np.inf) > self.tolerance
        proved = (self.incentive_bound <= self.tolerance).all()
        found = {"incentives": _say(bool(proved), bool(lies), sure)}
        for name, slack in (("participation", self.participation), ("no subsidy", self.no_subsidy)):
            proved = (slack.low >= -self.tolerance).all()
            found[name] = _say(bool(proved), bool((slack.high < -self.tolerance).any()), sure)
        if (self.certain_no_subsidy >= -self.tolerance).all():
            found["no subsidy"] = "proved for certain"
        return found

    def to_frame(self):
        """Labelled pandas table: one row a profile and advertiser, money."""
        pandas = import_extra("pandas", "experiments", "LongAudit.to_frame")
        n, batch = self.groves_total.shape
        gains = self.gains
        columns = {
            "incentive_bound": self.incentive_bound,
            "measured_gain": gains.best(gains.gain, batch),
            "measured_gain_low": gains.best(gains.low, batch),
            "measured_gain_high": gains.best(gains.high, batch),
            "participation": self.participation.value,
            "participation_low": self.participation.low,
            "participation_high": self.participation.high,
            "no_subsidy": self.no_subsidy.value,
            "no_subsidy_low": self.no_subsidy.low,
            "no_subsidy_high": self.no_subsidy.high,
            "groves_total": self.groves_total,
            "payment": self.budget.payments,
            "payment_error": self.budget.payments_error,
        }
        return pandas.DataFrame(
            {
                "profile": np.repeat(np.arange(batch), n),
                "advertiser": np.tile(np.array(self.names, dtype=object), batch),
                "settlement": self.settlement,
                "groves": self.groves,
                "confidence": self.confidence,
                **{name: table.T.ravel() for name, table in columns.items()},
            }
        )

    def summary(self) -> str:
        """A one-screen verdict."""
        sure, verdicts = f"{100 * self.confidence:g}%", self.verdicts
        batch = self.groves_total.shape[1]
        head = f"Settlement {self.settlement}, Groves term {self.groves}, {batch} profiles, "
        head += f"{len(self.gains.gain)} misreports at the outset simulated, {self.runs} "
        head += f"conversations each, tolerance {self.tolerance:.1e}; every line at {sure}"
        worst = int(np.argmax(self.incentive_gain))
        lines = [head, f"  incentives     {verdicts['incentives']}"]
        if np.isfinite(self.incentive_bound).all():
            lines.append(
                f"    certified: no report planned at the outset gains more than "
                f"{self.incentive_bound.max():.4g}"
            )
        if self.inside:
            most = max(node.bound for node in self.inside)
            lines.append(
                f"    certified: nor, from {len(self.inside)} nodes inside, more than {most:.4g} "
                f"(each node by itself)"
            )
        high = max(float(self.gains.high.max(initial=0.0)), 0.0)
        lines.append(
            f"    measured: largest gain {self.incentive_gain[worst]:.4g}, all below {high:.4g}"
        )
        if self.incentive_gain[worst] > self.tolerance:
            lines.append(f"    {self.witness[worst].sentence()}")
        for name, slack in (("participation", self.participation), ("no subsidy", self.no_subsidy)):
            at = np.unravel_index(int(np.argmin(slack.value)), slack.value.shape)
            lines.append(
                f"  {name:<14} {verdicts[name]}: worst slack {slack.value[at]:.4g}, between "
                f"{slack.low[at]:.4g} and {slack.high[at]:.4g}"
            )
        money = self.budget
        lines.append(
            f"  budget         mean revenue {money.revenue.mean():.4g} (s.e. "
            f"{_mean_error(money.revenue_error):.2g}), mean user surplus "
            f"{money.user_surplus.mean():.4g} (s.e. {_mean_error(money.user_surplus_error):.2g})"
        )
        return "\n".join(lines)


def run_long_audit(
    priced: AbstractPricedPolicy,
    total: Float[np.ndarray, "n B"],
    settlement: AbstractSettlement,
    signal: AbstractSettlementSignal,
    groves: str,
    histories: str,
    interval: bool | None,
    conversations: int,
    nodes: int,
    tolerance: float | None,
) -> LongAudit:
    """Run every check; see `DynamicTeamMechanism.audit`."""
    policy = cast(PlayEvaluator, priced.evaluator)
    declared = _check(policy, histories, interval, conversations, nodes, tolerance)
    searched = declared if interval is None else interval
    env, (n, batch), confidence = policy.env, total.shape, policy.bounds.confidence
    bias = largest_bias(env, signal)
    gains, truth = measure_gains(
        policy.play, settlement, signal, conversations, confidence, searched, bias
    )
    own = settlement.own
    bounds, every = policy.bounds, policy.play.certificate.runs
    lower = bounds.value - margin(bounds.error, bounds.unseen, confidence, every, batch)
    gap = np.maximum(policy.bounds.upper - lower, 0.0) + 2 * bias
    bound = np.tile(gap if own else np.full(batch, np.nan), (n, 1))
    mean, error, unseen, short, spent, missed = np.zeros((6, n, batch))
    money = np.zeros((4, batch))
    payments = np.zeros((2, n, batch))
    spread = 2 * (env.money_scale + bias)
    for b, played in enumerate(truth.played):
        mean[:, b], error[:, b], unseen[:, b] = _payoff(policy, b, played, spread)
        left = played.contribution()
        short[:, b], spent[:, b] = _estimate(left)
        missed[:, b] = hidden(left, spread, played.going)
        paid = played.earned - played.payoff
        payments[:, :, b] = _estimate(paid)
        money[:2, b] = _estimate(paid.sum(axis=1))
        money[2:, b] = _estimate(played.utility.sum(axis=1))
    payments[0] += total
    money[0] += total.sum(axis=0)
    certain = np.full((n, batch), np.nan)
    if own and policy.displayable is not None:
        certain = total - policy.displayable.upper - bias
    runs = min(conversations, policy.play.certificate.runs)
    no_subsidy = _interval(total - short, spent, missed, confidence, conversations, n * batch)
    team = all(played.team for played in truth.played)
    known = np.fmax(no_subsidy.low, certain)
    return LongAudit(
        names=env.names,
        settlement=type(settlement).__name__,
        groves=groves,
        confidence=confidence,
        runs=conversations,
        incentive_bound=bound,
        inside=_inside(priced, nodes, bias) if own else (),
        bias=bias,
        gains=gains,
        witness=tuple(name_structures(env, witness(policy.play, gains, i)) for i in range(n)),
        # Under team transfers all advertisers have the same payoff.
        participation=_interval(
            mean - total, error, unseen, confidence, runs, batch if team else n * batch
        ),
        no_subsidy=eqx.tree_at(lambda x: x.low, no_subsidy, known),
        certain_no_subsidy=certain,
        groves_total=total,
        budget=LongBudget(payments[0], payments[1], *money),
        tolerance=_TOLERANCE * env.money_scale if tolerance is None else float(tolerance),
    )


def _check(policy, histories, interval, conversations, nodes, tolerance) -> bool:
    """Raise for what this audit cannot do; whether an interval of reports is declared."""
    if histories != "on-path":
        must = "be 'on-path' under a LongPolicy: after own past lies nothing is bounded"
        raise InvalidArgument(describe("audit(histories=...)", must, histories))
    why = ", for an interval by the central limit theorem"
    require_whole("audit(conversations=...)", conversations, 30, why)
    require_whole("audit(nodes=...)", nodes, 0)
    if tolerance is not None and not tolerance >= 0:
        raise InvalidArgument(describe("audit(tolerance=...)", "be >= 0", tolerance))
    values = policy.env.values
    declared = isinstance(values, ConstantValues) and values.interval is not None
    if interval and not declared:
        must, do = "declare one", "pass ConstantValues(support, prior, interval=...)"
        raise InvalidArgument(describe("audit(interval=True)", must, "none declared", do))
    return declared


def _payoff(policy: PlayEvaluator, b: int, played, spread: float) -> tuple[np.ndarray, ...]:
    """Expected payoff under truth, without Groves term, its standard error, what is hidden, (n,).

    Where everyone is paid the surplus it is the policy's value, simulated when it was certified,
    and what a biased estimate adds.
    """
    if not played.team:
        return *_estimate(played.payoff), hidden(played.payoff, spread, played.going)
    surplus = (played.earned + played.utility).sum(axis=1, keepdims=True)
    bias = played.payoff - surplus
    extra, error = _estimate(bias)
    bounds = policy.bounds
    there = np.abs(bias).max() > _TOLERANCE * spread
    unseen = bounds.unseen[b] + there * hidden(bias, spread, played.going)
    return bounds.value[b] + extra, np.hypot(bounds.error[b], error), unseen


def _estimate(sample: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean over runs, and its standard error."""
    mean, deviation = sample.mean(axis=0), sample.std(axis=0, ddof=1)
    return np.asarray(mean), np.asarray(deviation / len(sample) ** 0.5)


def _interval(value, error, unseen, confidence: float, runs: int, entries: int) -> Interval:
    """All entries at once."""
    step = margin(error, unseen, confidence, runs, entries)
    return Interval(value, error, value - step, value + step)


def _inside(policy: AbstractPricedPolicy, nodes: int, bias: float) -> tuple[NodeBound, ...]:
    """Certify at nodes that simulated truthful conversations come to, each node once."""
    if nodes == 0:
        return ()
    play, batch = policy.player, len(policy.played)
    rng, wanted = np.random.default_rng(0), policy.played[np.arange(4 * nodes * batch) % batch]
    records, _ = draw_conversations(policy, policy.env.signals.settlement, {}, rng, wanted)
    certificate = Certificate(
        min(_NODE_RUNS, play.certificate.runs),
        confidence=play.certificate.confidence,
        rounds=play.certificate.rounds,
        work=play.certificate.work,
        seed=play.certificate.seed + 1,
    )
    found: dict[tuple, Conversation] = {}
    again = query_code(policy.env.products)
    for row in range(len(records["profile"])):
        chat, path = policy.start(profile=int(records["profile"][row])), []
        for t in range(int(policy.env.horizon) - 1):
            if records["action"][row, t] != again or len(found) >= nodes:
                break
            symbol = int(records["symbol"][row, t])
            path.append(symbol)
            chat = chat.step("query", split_symbol(symbol, policy.env.feedback_alphabet))
            found.setdefault((chat.profile, *path), chat)
    rows = []
    for chat in found.values():
        at = chat.certify(certificate)
        shown = tuple(turn.recommendation for turn in chat.turns)
        gap = max(float(at.gap[0]), 0.0) + 2 * bias
        rows.append(
            NodeBound(chat.profile, chat.period, shown, float(at.lower[0]), float(at.upper[0]), gap)
        )
    return tuple(rows)


def _say(proved: bool, refuted: bool, sure: str) -> str:
    if refuted:
        return f"refuted{sure}"
    return f"proved{sure}" if proved else "undecided"


def _mean_error(errors: np.ndarray) -> float:
    """Standard error of the mean over profiles, which share their noise: an upper bound."""
    return float(errors.mean())
