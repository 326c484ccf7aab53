"""The data-driven dynamic team mechanism of the shopping assistant (paper D, sections 5.2, B.6).

In round tau, after recommending x_tau, advertiser i pays

    p_i,tau = - what_i x_i,tau - sum_{j != i} (theta_j + what_j) x_j,tau + phi_i,tau,

what the average of the reactions c_tau, ..., c_T: -t_i,tau of the paper, phi = -h. The phi_i add up
to total_i, a function of what the others report and of the context: truth is then optimal at every
history (Proposition 4). With total_i the largest displayable value Wd^{-i} over what i may know,
nobody is subsidised; with the least, everybody participates *if* showing i is not what makes the
others valuable (Proposition 9: the printed proof compares W with an economy that may show i without
counting it, which can be worth more than W where theta_i + omega_i < 0).

Notes on the paper. The average's noise depends on later recommendations, hence on reports, so it is
not independent of them given omega, history and x_tau, as is said; its conditional mean is omega
whatever is reported, and that is all the proof uses. The h_i may not depend on everything that is
listed ("the current and past histories and the state estimates"): own reports move later histories
and the noise of the estimates, so that a charge on what was shown, or on the square of an estimate,
invites lies. And the maximum over s_i exists only if s_i is bounded, which compactness of the set
of structures does not give: here every advertiser has a finite list of signals. Wd^{-i} is convex
in s_i, so a list with the vertices of a box has the maximum over the box.
"""

from collections.abc import Sequence

import equinox as eqx
import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from dynmech._checks import checked, instance, member, several, shaped, whole
from dynmech.bounded import Bounded
from dynmech.errors import InvalidArgument, OutsideSupport, describe
from dynmech.payments.groves import (
    AbstractGroves,
    OwnTables,
    Participation,
    check_total,
    require_own,
)
from dynmech.static.assistant import (
    ASSISTANT,
    HISTORY,
    PROFILE,
    AssistantHistory,
    AssistantProfile,
    ShoppingAssistant,
)
from dynmech.static.assistant_audit import AssistantAudit, find_lies, report_gains
from dynmech.static.assistant_play import SETTLED, SHOWN, UTILITY, play
from dynmech.static.assistant_policy import require_nodes
from dynmech.static.assistant_tree import Economy, build_tree, value
from dynmech.static.assistant_types import AssistantTypes

_PAPER = Participation(displayable=True)


class AssistantMechanism(eqx.Module):
    """Charge advertisers by the data-driven dynamic team mechanism.

    **Arguments**

    - `env`: the environment. `types`: what each advertiser may be and report.
    - `groves`: a Groves term of `dynmech.groves`, by default the paper's h^-,
      `Participation(displayable=True)`; h^+ is `NoSubsidy(displayable=True)`. Own alternatives are
      all combinations of `types`. Terms that read more (tastes on a grid, other markets, means over
      profiles) are refused.
    - `nodes`: quadrature points a product and round.

    **Raises:** `InvalidArgument`.
    """

    env: ShoppingAssistant
    types: tuple[AssistantTypes, ...]
    groves: AbstractGroves
    nodes: int = eqx.field(static=True)

    @checked(
        env=ASSISTANT,
        types=several(AssistantTypes, "`AssistantTypes`, one an advertiser"),
        groves=instance(AbstractGroves, "a Groves term, as `groves.NoSubsidy(displayable=True)`"),
    )
    def __init__(
        self,
        env: ShoppingAssistant,
        types: Sequence[AssistantTypes],
        groves: AbstractGroves = _PAPER,
        nodes: int = 16,
    ):
        require_nodes("AssistantMechanism", nodes)
        n = env.products
        if len(types) != n or any(own.signals.shape[1] != n for own in types):
            must = f"hold {n} `AssistantTypes` of {n} products"
            raise InvalidArgument(describe("AssistantMechanism(types=...)", must, len(types)))
        require_own("AssistantMechanism(groves=...)", groves)
        self.env, self.types, self.groves, self.nodes = env, tuple(types), groves, nodes

    @checked(profile=PROFILE)
    def groves_total(self, profile: AssistantProfile) -> Float[np.ndarray, " n"]:
        """Compute total_i at what the others report, money charged."""
        if not self.groves.reads_own:
            return np.zeros(self.env.products)
        return check_total(self.groves, self._own_tables(profile), "AssistantMechanism")[0]

    @checked(profile=PROFILE, recommendation=whole(-1))
    def payment(
        self, profile: AssistantProfile, recommendation: int, estimate: npt.ArrayLike
    ) -> Float[np.ndarray, " n"]:
        """Settle one round: what each advertiser pays, Groves terms excluded.

        **Arguments:** `recommendation`: -1 for none. `estimate`: (n,), of omega.

        **Raises:** `InvalidArgument`, `OutsideSupport`.
        """
        n = self.env.products
        seen = np.asarray(shaped(n)("payment(estimate=...)", estimate), np.float64)
        if recommendation not in range(-1, n):
            must = f"be in 0..{n - 1}, or -1 for none"
            raise OutsideSupport(describe("payment(recommendation=...)", must, recommendation))
        if recommendation < 0:
            return np.zeros(n)
        others = np.arange(n) != recommendation
        return -seen[recommendation] - others * profile.theta[recommendation]

    @checked(profile=PROFILE, history=HISTORY)
    def audit(
        self, profile: AssistantProfile, history: AssistantHistory | None = None
    ) -> AssistantAudit:
        """Audit at a true profile: every misreport of every advertiser, from a history on.

        Definition 10: at the history she may revise her report, which then remains; the past is
        what happened. Exact where the policy is, see `solve_assistant`; on the same quadrature
        otherwise. Participation and no subsidy refer to the outset and are NaN after a history.

        **Raises:** `OutsideSupport` (the profile is not among `types`), `TooLarge`.
        """
        env, n = self.env, self.env.products
        self._require_known(profile)
        past = () if history is None else history.recommendations
        belief = env.belief(profile, history)
        tree = build_tree(env, belief.covariance, "cells", self.nodes, past)
        mean, theta = belief.mean[None], profile.theta[None]
        flow = play(tree, tree, mean, mean, theta, past)[0][0]
        welfare = flow[UTILITY].sum() + profile.theta @ flow[SHOWN]
        payoff, contribution = _shares(flow, profile.theta)
        total = self.groves_total(profile) if not past else np.full(n, np.nan)
        data, words = find_lies(env, self.types, profile, history, tree, self.nodes)
        kept, paid_up = Bounded(payoff - total), Bounded(total - contribution)
        return AssistantAudit(
            names=env.names,
            gain=Bounded([w.gain for w in data]),
            witness=data,
            message_witness=words,
            value=float(welfare),
            groves_total=total,
            shown=flow[SHOWN],
            utility=flow[UTILITY],
            slack_participation=kept,
            mean_participation=kept,
            slack_no_subsidy=paid_up,
            mean_no_subsidy=paid_up,
            confidence=1.0,
            tolerance=1e-9 * float(np.abs(flow[UTILITY]).sum() + profile.theta @ flow[SHOWN]),
        )

    @checked(profile=PROFILE, history=HISTORY)
    def misreport_gain(
        self,
        profile: AssistantProfile,
        agent: int,
        theta: float | None = None,
        signal: npt.ArrayLike | None = None,
        noise: npt.ArrayLike | None = None,
        history: AssistantHistory | None = None,
    ) -> tuple[float, float]:
        """Compute what one report gains over truth, settled on data and settled on messages.

        **Arguments:** the report; what is None is told truly. It need not be among `types`.

        **Returns:** expected gains, money; negative for a loss.

        **Raises:** `InvalidArgument`, `OutsideSupport`, `TooLarge`.
        """
        env = self.env
        agent = member("misreport_gain(agent=...)", agent, env.products)
        told = profile.replace(agent, theta, signal, noise)
        own = AssistantTypes(told.theta[[agent]], told.signals[[agent]], told.signal_noise[agent])
        past = () if history is None else history.recommendations
        belief = env.belief(profile, history)
        tree = build_tree(env, belief.covariance, "cells", self.nodes, past)
        gain, _ = report_gains(env, own, profile, history, tree, self.nodes, agent)
        return float(gain[0, 0]), float(gain[0, 1])

    def _own_tables(self, profile: AssistantProfile) -> OwnTables:
        """One profile's tables along own values, and own structures and signals."""
        n, sizes = self.env.products, [len(own.noise) * len(own.signals) for own in self.types]
        values = max(len(own.theta) for own in self.types)
        wide = np.full((2, 1, n, values, max(sizes)), np.nan)
        thin = np.full((2, 1, n, max(sizes)), np.nan)
        for i, own in enumerate(self.types):
            many, count = len(own.theta), len(own.signals)
            for q, noise in enumerate(own.noise):
                told = [profile.replace(i, signal=s, noise=noise) for s in own.signals]
                beliefs = [self.env.belief(each) for each in told]
                tree = build_tree(self.env, beliefs[0].covariance, "cells", self.nodes)
                mean = np.stack([b.mean for b in beliefs])
                at = slice(q * count, (q + 1) * count)
                for table, shown in zip(thin, (False, True), strict=True):
                    table[0, i, at] = value(tree, mean + profile.theta, (), Economy(i, shown))
                theta = np.tile(profile.theta, (many * count, 1))
                theta[:, i] = np.repeat(own.theta, count)
                mean = np.tile(mean, (many, 1))
                both = _shares(play(tree, tree, mean, mean, theta, ())[0], theta)
                for table, part in zip(wide, both, strict=True):
                    table[0, i, :many, at] = part[:, i].reshape(many, count)
        rows = np.where(np.isnan(thin[0]), -1, np.arange(max(sizes)))
        pairs = np.where(np.isnan(wide[0]), -1, np.arange(wide[0].size).reshape(wide[0].shape))
        return OwnTables(
            payoff=wide[0],
            contribution=wide[1],
            marginal=thin[0],
            displayable=thin[1],
            root=np.ones((max(sizes), 1)),
            own_root=rows,
            own_pair=pairs,
            signal=np.zeros((1, n), int),
        )

    def _require_known(self, profile: AssistantProfile) -> None:
        for i, own in enumerate(self.types):
            known = (
                np.isclose(own.theta, profile.theta[i]).any()
                and np.isclose(own.signals, profile.signals[i]).all(axis=1).any()
                and np.isclose(own.noise, profile.signal_noise[i]).all(axis=(1, 2)).any()
            )
            if not known:
                must = f"hold theta, signal and noise from the types of {self.env.names[i]}"
                do = "add them to `types`, or take the profile from the lists"
                raise OutsideSupport(describe("audit(profile=...)", must, "others", do))


def _shares(
    flow: Float[np.ndarray, "*B 4 n"], theta: Float[np.ndarray, "*B n"]
) -> tuple[Float[np.ndarray, "*B n"], Float[np.ndarray, "*B n"]]:
    """Payoff without Groves term, and D_i, of expected play under truth."""
    shown, utility, settled = (flow[..., k, :] for k in (SHOWN, UTILITY, SETTLED))
    everyone = settled.sum(axis=-1, keepdims=True) + (theta * shown).sum(axis=-1, keepdims=True)
    return np.broadcast_to(everyone, theta.shape), everyone - theta * shown - utility
