"""What a long-horizon policy pays and yields when somebody misreports, by simulation.

Every round counts at its expectation under the true belief, so that neither the taste nor the
action is drawn: only how a conversation goes on is. With the team transfer the policy's network
is a control variate besides (see `solvers.tree.misled`). Truth and lies share their noise.

With theta and p the truth, q what the mechanism believes, y_j the chance that j is bought:

    payoff_i = sum_t <p_t, sum_j (theta_j + w_j) y_j - c y_q>,   w_j: E[estimate | omega, bought],

u being relative to leaving, and c what a query costs, or for another settlement what that pays at
q_t.
"""

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from dynmech._devices import Work
from dynmech._types import Record
from dynmech.bounded import Bounded, simulated
from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles
from dynmech.market.roots import signal_likelihood
from dynmech.market.settlements import AbstractSettlementSignal
from dynmech.payments.settlement import AbstractSettlement, Estimator, Situation
from dynmech.policy.bias import endings
from dynmech.policy.guide import AbstractGuide
from dynmech.policy.playable import told_of
from dynmech.problem.moving import PlayedProcess
from dynmech.problem.settled import predictions
from dynmech.solve.ceilings import make_ceilings
from dynmech.solve.certificates import make_case
from solvers import AbstractCeiling, AbstractCritic, Case
from solvers.certify import in_float64
from solvers.tree.misled import REACH, follow

_CELLS = 2_000_000
_OBSERVED = 128
_FEATURES = 8
_WHOLE = 512


class Played(Record):
    """N runs of one report, money, given the true types; each row adds up over a conversation.

    - `earned`, `utility`, `purchase` (N, n): expected values earned, user utility, and chance of
      a purchase, by product.
    - `payoff` (N, n): expected value earned less what is paid, without Groves term; `left` (N, n):
      D_i, what the others and the user get from the other products, as it is settled.
    - `costs` (N,): expected running costs. `spent`: most that they can add up to.
    - `surplus` (N,): with the critic's control variate; `excess` (N, n): payoff less surplus.
    - `reach`, `left_reach`, `stray`: half of the range of every `steady_payoff`, `left`, `excess`.
    - `first`: recommended first, n for none, one more where it is drawn. `going`: chance of a
      second round, 1 where the first is drawn.
    """

    earned: Float[np.ndarray, "N n"]
    utility: Float[np.ndarray, "N n"]
    purchase: Float[np.ndarray, "N n"]
    payoff: Float[np.ndarray, "N n"]
    surplus: Float[np.ndarray, " N"]
    excess: Float[np.ndarray, "N n"]
    left: Float[np.ndarray, "N n"]
    costs: Float[np.ndarray, " N"]
    team: bool = eqx.field(static=True)
    steady: bool = eqx.field(static=True)
    first: int = eqx.field(static=True)
    going: float = eqx.field(static=True)
    reach: float = eqx.field(static=True)
    left_reach: float = eqx.field(static=True)
    stray: float = eqx.field(static=True)
    spent: float = eqx.field(static=True)

    @property
    def steady_payoff(self) -> Float[np.ndarray, "N n"]:
        """`payoff`, with the critic's control variate where everyone is paid close to surplus."""
        return self.surplus[:, None] + self.excess if self.steady else self.payoff

    def contribution(self) -> Float[np.ndarray, "N n"]:
        """D_i: `left`."""
        return self.left


class Outcomes(Record):
    """By product under truth, simulated, (n, B), money.

    `earned`: theta earned; `utility`: the user's; `purchase`: the chance of one, no money; `costs`
    (B,): of queries, in all.
    """

    earned: Bounded
    utility: Bounded
    purchase: Bounded
    costs: Bounded


class Report(Record):
    """What advertiser `owner` reports at the outset: a value, money, and a symbol.

    `lasting`: the value is reported for good, as values that do not change are; else the truth
    is reported from period 2 on.
    """

    owner: int = eqx.field(static=True)
    value: float = eqx.field(static=True)
    signal: int = eqx.field(static=True)
    lasting: bool = eqx.field(static=True, default=True)


class Player:
    """A policy with what its simulations share: noise, ceilings, the network in float64.

    **Arguments:** `chunk`: runs handled at once, at least; `seed`: of the noise; `chooser`: who
    recommends, greedily for the network if nobody does.
    """

    def __init__(
        self,
        env: RecommendationMDP,
        process: PlayedProcess,
        network: AbstractCritic | None,
        chunk: int,
        runs: int,
        seed: list[int],
        chooser: AbstractGuide | None = None,
    ):
        self.env, self.process, self.critic = env, process, in_float64(network)
        self.chooser = chooser
        shape = (self.process.horizon, runs, 4)
        self.noise = np.random.default_rng(seed).random(shape)
        self.chunk = wide_chunk(env, process, chunk)
        self.ceilings: dict[bytes, AbstractCeiling] = {}

    def cased(self, theta: np.ndarray) -> tuple[Case, AbstractCeiling]:
        """The economy of everyone at values in money; call it with float64 enabled."""
        case = self.process.posed(make_case(self.env, np.asarray(theta, float)))
        key = np.asarray(case.coefficient).tobytes()
        if key not in self.ceilings:
            (self.ceilings[key],) = make_ceilings(self.env, self.process, [case])
        return case, self.ceilings[key]

    def play(
        self,
        theta: Float[np.ndarray, " n"],
        signals: np.ndarray,
        settlement: AbstractSettlement,
        signal: AbstractSettlementSignal,
        report: Report | None = None,
        stray: float | None = None,
    ) -> Played:
        """Simulate the profile (theta in money, symbols (1+n,)), with one report or the truth.

        `stray`: most that one purchase pays beside the surplus where everybody is paid the same;
        None: what it can be for any estimate within the range of the utility.
        """
        with jax.enable_x64(True):
            case, ceiling = self.cased(theta)
            belief = self.belief(signals)
            said, heard = np.array(theta, float), np.array(signals)
            parts = [(case, ceiling)]
            if report is not None:
                said[report.owner], heard[report.owner + 1] = report.value, report.signal
                parts = [self.cased(said), *([] if report.lasting else parts)]
            told = None if self.chooser is None else self.chooser.outset(said, heard)
            if told is None and report is not None:
                told = self.belief(heard), 0
            told = None if told is None else told_of(*told, *zip(*parts, strict=True))
            watch = _Watch(self, np.asarray(theta, float), settlement, signal)
            limits = watch.limits(belief, stray)
            found = follow(
                self.process, case, ceiling, self.critic, belief, self.noise, told,
                watch, _FEATURES * self.env.products, self.chunk, limits, self.chooser,
                self.process.outset(theta),
            )  # fmt: skip
        parts = np.split(found.seen, _FEATURES, axis=1)
        earned, utility, purchase, payoff, excess, left, charge, costs = parts
        most = REACH * limits[1 :: self.env.products] + np.abs(charge).max(initial=0.0)
        steady = watch.team and stray is not None
        reach = REACH * limits[0] + most[4] if steady else most[3]
        spent = watch.dearest * self.process.horizon
        return Played(
            earned, utility, purchase, payoff - charge, found.gain, excess - charge, left - charge,
            costs[:, 0], watch.team, steady, found.first, found.going, float(reach + spent),
            float(most[5] + spent), float(most[4] + spent * (not settlement.own)), float(spent),
        )  # fmt: skip

    def belief(self, signals: np.ndarray) -> Float[np.ndarray, " m"]:
        """Unnormalised belief after symbols (1+n,); zero where they are impossible."""
        likelihood = np.asarray(signal_likelihood(self.env, np.asarray(signals)[None]), float)[0]
        return np.asarray(self.env.tastes.weights, float) * likelihood


def simulate_outcomes(
    player: Player, profiles: Profiles, confidence: float, mesh: jax.sharding.Mesh | None = None
) -> Outcomes:
    """What every profile's truthful conversations yield by product, spread over a mesh."""
    env, runs = player.env, player.noise.shape[1]
    support, own = np.asarray(env.values.support, float), env.signals.settlement

    def one(b: int) -> tuple[np.ndarray, float]:
        money = support[np.arange(env.products), profiles.theta[b]]
        played = player.play(money, profiles.signals[b], Estimator(), own)
        costs = np.broadcast_to(played.costs[:, None], played.earned.shape)
        kinds = np.stack([played.earned, played.utility, played.purchase, costs], axis=1)
        error = kinds.std(axis=0, ddof=1) / runs**0.5
        return np.stack([kinds.mean(axis=0), error]), played.spent

    each = Work("solve_efficient_policy", mesh).each(one, range(len(profiles)))
    found, spent = zip(*each, strict=True)
    means, errors = np.moveaxis(np.array(found), 0, -1)

    def held(kind: int, most: np.ndarray | float, reach: float = REACH) -> Bounded:
        # A conversation adds up to REACH times what one purchase can be at most.
        unseen = 2 * reach * most / (runs - 1)
        one = simulated(means[kind], errors[kind], unseen, confidence, entries=2)
        low, high = np.maximum(one.lower, -most), np.minimum(one.upper, most)
        return Bounded(one.value, low, high, one.error, confidence)

    each = support[np.arange(env.products), profiles.theta]
    theta = np.abs([player.process.within(money) for money in each]).max(axis=1).T
    utility = np.abs(np.asarray(env.gains, float)).max(axis=1, keepdims=True)
    return Outcomes(held(0, theta), held(1, utility), held(2, 1.0), held(3, max(spent), 0.5)[0])


def wide_chunk(env: RecommendationMDP, process: PlayedProcess, chunk: int) -> int:
    """How many runs to handle at once where only memory limits it; at least `chunk`."""
    cells = process.controls * env.heard.count * process.regimes * env.tastes.size
    return max(chunk, min(_WHOLE, int(_CELLS / cells)))


class _Watch:
    """What is earned, bought and paid in a round, expected under the true belief, (C, 8n)."""

    def __init__(
        self,
        player: Player,
        theta: np.ndarray,
        settlement: AbstractSettlement,
        signal: AbstractSettlementSignal,
    ):
        self.process, self.theta, self.rules = player.process, theta, player.process.rules
        self.gains, toll = np.asarray(player.env.gains, float), player.env.toll
        self.settlement, self.signal = settlement, signal
        n, points = self.gains.shape
        self.unit = np.zeros(points) if toll is None else np.asarray(toll.unit, float)
        self.dearest = float(self.unit.max())
        blank = np.zeros((1, points))
        first = self._situation(0, theta[None], np.zeros((1, n + 2, points)), blank[None], blank)
        self.team = settlement.payoff(first).shape[1] == 1

    def limits(self, belief: np.ndarray, stray: float | None) -> Float[np.ndarray, " F1"]:
        """Most that one ending yields (1,), and of each feature; a charge is not an ending's."""
        met = self.gains[:, belief > 0]
        may = self.process.within(self.theta)
        values, utility = np.abs(may).max(axis=0), np.abs(met).max(axis=1)
        surplus = np.abs(may[:, :, None] + met).max()
        if not self.team:
            payoff = 2 * (values.max() + utility.max())
            excess, left = payoff + surplus, payoff + (values + utility).max()
        elif stray is None:
            every = self.gains
            payoff = max(np.abs(may[:, :, None] + every).max(), values.max())
            excess = max(every.max(axis=1) - every.min(axis=1)) + utility.max()
            left = max(payoff, excess)
        else:
            payoff, excess, left = surplus + stray, stray, surplus + stray
        n = len(values)
        rest = (1.0, payoff, excess, left, np.inf, np.inf)
        each = [values, utility, *(np.full(n, x) for x in rest)]
        return np.concatenate([[surplus], *each])

    def __call__(
        self, t: int, memories: np.ndarray, control: np.ndarray, true: np.ndarray, held: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        n = len(self.theta)
        found = np.zeros((len(control), _FEATURES * n))
        passing = np.zeros((len(control), 1 + _FEATURES * n))
        for low in range(0, len(control), _OBSERVED):
            part = slice(low, low + _OBSERVED)
            size = len(control[part])
            pad = np.minimum(np.arange(_OBSERVED if size > 8 else 8), size - 1)
            own = self.process.of_rule(memories[part])[pad]
            after, law, drift = endings(
                self.rules, self.signal, own, control[part][pad], self.gains
            )
            ends, mean = np.asarray(after)[:size], np.asarray(law)[:size]
            if drift is not None:
                m = predictions(held[part][:, None] * ends[:, :n], self.gains)
                mean = mean + np.asarray(drift)[:size] * m[..., None]
            theta = self.process.values(memories[part], self.theta)
            at = self._situation(t, theta, ends, mean, held[part])
            found[part], passing[part] = self._count(at, true[part])
        return found, passing

    def _situation(
        self, t: int, theta: np.ndarray, ends: np.ndarray, mean: np.ndarray, held: np.ndarray
    ) -> Situation:
        """`ends` (C, F, m): chances of purchases, rate of costs where there are any, of a query."""
        size, n = len(ends), len(self.gains)
        stop = ends[:, :n]
        return Situation(
            product=np.tile(np.arange(n), (size, 1)),
            stop=stop,
            utility=np.broadcast_to(self.gains, stop.shape),
            estimate=np.broadcast_to(mean, stop.shape),
            belief=held,
            theta=theta,
            utilities=self.gains,
            asked=ends[:, -1],
            cost=ends[:, n] * self.unit if self.dearest > 0 else np.zeros_like(held),
            period=t + 1,
        )

    def _count(self, at: Situation, true: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        bought = at.stop * true[:, None]
        worth = self.settlement.payoff(at)
        worth = np.broadcast_to(worth, (*worth.shape[:3], at.stop.shape[2]))
        utility = (bought * self.gains).sum(axis=2)
        chance = bought.sum(axis=2)
        earned = at.theta * chance
        payoff = np.broadcast_to(np.einsum("cijm,cjm->ci", worth, bought), earned.shape)
        surplus = (earned + utility).sum(axis=1, keepdims=True)
        charge = np.broadcast_to(self.settlement.charge(at), earned.shape)
        left = payoff - earned - utility
        none = np.zeros_like(earned)
        parts = [earned, utility, chance, payoff, payoff - surplus, left, charge, none]
        cost = (at.cost * true).sum(axis=1, keepdims=True)
        paid = none + (self.settlement.toll(at) * true[:, None]).sum(axis=2)
        passing = [-cost, none, none, none, -paid, cost - paid, -paid, none, none + cost]
        return np.concatenate(parts, axis=1), np.concatenate(passing, axis=1)
