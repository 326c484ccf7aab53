"""What a long-horizon policy pays and yields when somebody misreports, by simulation.

Every round counts at its expectation under the true belief, so that neither the taste nor the
action is drawn: only how a conversation goes on is. With the team transfer the policy's network
is a control variate besides (see `solvers.tree.misled`). Truth and lies share their noise.

With theta and p the truth, q what the mechanism believes, y_j the chance that j is bought:

    payoff_i = sum_t <p_t, sum_j (theta_j + w_j) y_j>,    w_j: E[estimate of u_j | omega, bought],

or for another settlement what that pays at q_t.
"""

import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from dynmech.errors import TooLarge, describe
from dynmech.market.environment import RecommendationMDP
from dynmech.market.profiles import Profiles, signal_likelihood
from dynmech.market.rules import ImperfectRecall, LastShownOnly, PerfectRecall, Threshold
from dynmech.market.signals import AbstractSettlementSignal, TabulatedSettlement
from dynmech.payments.settlement import AbstractSettlement, Estimator, Situation
from dynmech.problem.compile import enumerate_memories
from dynmech.problem.process import MarketProcess, market_process
from dynmech.solve.ceilings import make_ceilings
from dynmech.solve.certificates import in_float64, make_case
from solvers import AbstractCeiling, Case, Told, ValueNetwork, as_program, follow

_CELLS = 2_000_000
_OBSERVED = 128
_WHOLE = 512
_FEW = 2e7  # bytes of memories enumerated in one period


class Played(eqx.Module):
    """N runs of one report, money, given the true types; each row adds up over a conversation.

    - `earned`, `utility`, `purchase` (N, n): expected values earned, user utility, and chance of
      a purchase, by product.
    - `payoff` (N, n): expected value earned less what is paid, without Groves term. `variate`
      (N,): a mean-zero control variate for surplus. `first`: recommended first, n for none.
      `going`: chance of a second round.
    """

    earned: Float[np.ndarray, "N n"]
    utility: Float[np.ndarray, "N n"]
    purchase: Float[np.ndarray, "N n"]
    payoff: Float[np.ndarray, "N n"]
    variate: Float[np.ndarray, " N"]
    team: bool = eqx.field(static=True)
    first: int = eqx.field(static=True)
    going: float = eqx.field(static=True)

    @property
    def surplus(self) -> Float[np.ndarray, " N"]:
        """Values earned plus the user's utility, with the control variate."""
        return self.earned.sum(axis=1) + self.utility.sum(axis=1) + self.variate

    @property
    def steady_payoff(self) -> Float[np.ndarray, "N n"]:
        """`payoff` with the control variate where everyone is paid the surplus."""
        return self.payoff + self.variate[:, None] * self.team

    def contribution(self) -> Float[np.ndarray, "N n"]:
        """D_i: what the others and the user get from the other products, as it is settled."""
        return self.payoff - self.earned - self.utility


class Outcomes(eqx.Module):
    """By product under truth, simulated, with standard errors, (n, B), money.

    `earned`: theta earned; `utility`: the user's; `purchase`: the chance of one, no money; `runs`:
    conversations of each profile.
    """

    earned: Float[np.ndarray, "n B"]
    earned_error: Float[np.ndarray, "n B"]
    utility: Float[np.ndarray, "n B"]
    utility_error: Float[np.ndarray, "n B"]
    purchase: Float[np.ndarray, "n B"]
    purchase_error: Float[np.ndarray, "n B"]
    runs: int = eqx.field(static=True)


class Report(eqx.Module):
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

    **Arguments:** `chunk`: runs handled at once, at least; `seed`: of the noise.
    """

    def __init__(
        self,
        env: RecommendationMDP,
        process: MarketProcess,
        network: ValueNetwork | None,
        chunk: int,
        runs: int,
        seed: list[int],
    ):
        self.env, self.process, self.critic = env, process, in_float64(network)
        shape = (self.process.horizon, runs, 4)
        self.noise = np.random.default_rng(seed).random(shape)
        self.chunk = wide_chunk(env, process, chunk)
        self.ceilings: dict[bytes, AbstractCeiling] = {}

    def cased(self, theta: np.ndarray) -> tuple[Case, AbstractCeiling]:
        """The economy of everyone at values in money; call it with float64 enabled."""
        key, case = np.asarray(theta, float).tobytes(), make_case(np.asarray(theta, float))
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
    ) -> Played:
        """Simulate the profile (theta in money, symbols (1+n,)), with one report or the truth."""
        with jax.enable_x64(True):
            case, ceiling = self.cased(theta)
            told, belief = None, self.belief(signals)
            if report is not None:
                said, heard = np.array(theta, float), np.array(signals)
                said[report.owner], heard[report.owner + 1] = report.value, report.signal
                believed = self.belief(heard)
                parts = [self.cased(said), *([] if report.lasting else [(case, ceiling)])]
                told = Told(
                    believed / max(believed.sum(), 1e-300), *map(tuple, zip(*parts, strict=True))
                )
            watch = _Watch(self, np.asarray(theta, float), settlement, signal)
            found = follow(
                self.process, case, ceiling, self.critic, belief, self.noise, told,
                watch, 4 * self.env.products, self.chunk,
            )  # fmt: skip
        earned, utility, purchase, payoff = np.split(found.seen, 4, axis=1)
        variate = found.gain - earned.sum(axis=1) - utility.sum(axis=1)
        return Played(
            earned, utility, purchase, payoff, variate, watch.team, found.first, found.going
        )

    def belief(self, signals: np.ndarray) -> Float[np.ndarray, " m"]:
        """Unnormalised belief after symbols (1+n,); zero where they are impossible."""
        likelihood = np.asarray(signal_likelihood(self.env, np.asarray(signals)[None]), float)[0]
        return np.asarray(self.env.tastes.weights, float) * likelihood


def simulate_outcomes(player: Player, profiles: Profiles) -> Outcomes:
    """What every profile's truthful conversations yield by product."""
    env, runs = player.env, player.noise.shape[1]
    support, own = np.asarray(env.values.support, float), env.signals.settlement
    found = []
    for theta, signals in zip(profiles.theta, profiles.signals, strict=True):
        money = support[np.arange(env.products), theta]
        played = player.play(money, signals, Estimator(), own)
        kinds = played.earned, played.utility, played.purchase
        found.append([f(x) for x in kinds for f in (_mean, _error)])
    return Outcomes(*np.moveaxis(np.array(found), 0, -1), runs=runs)


def _mean(sample: np.ndarray) -> np.ndarray:
    return sample.mean(axis=0)


def _error(sample: np.ndarray) -> np.ndarray:
    return sample.std(axis=0, ddof=1) / len(sample) ** 0.5


def wide_chunk(env: RecommendationMDP, process: MarketProcess, chunk: int) -> int:
    """How many runs to handle at once where only memory limits it; at least `chunk`."""
    cells = process.controls * math.prod(env.feedback_alphabet) * env.tastes.size
    return max(chunk, min(_WHOLE, int(_CELLS / cells)))


class _Watch:
    """What is earned, bought and paid in a round, expected under the true belief, (C, 4n)."""

    def __init__(self, player: Player, theta, settlement, signal):
        self.process, self.theta, self.team = player.process, theta, True
        self.utilities = np.asarray(player.env.utilities, float)
        self.settlement, self.signal = settlement, signal

    def __call__(self, t, memories, control, true, held) -> np.ndarray:
        n = len(self.theta)
        found = np.zeros((len(control), 4 * n))
        for low in range(0, len(control), _OBSERVED):
            part = slice(low, low + _OBSERVED)
            size = len(control[part])
            pad = np.minimum(np.arange(_OBSERVED if size > 8 else 8), size - 1)
            ends, mean = _ending(
                self.process, self.signal, memories[part][pad], control[part][pad], self.utilities
            )
            stop, mean = np.asarray(ends)[:size, :n], np.asarray(mean)[:size]
            found[part] = self._count(t, stop, mean, true[part], held[part])
        return found

    def _count(self, t, stop, mean, true, held) -> np.ndarray:
        size, n = stop.shape[:2]
        at = Situation(
            product=np.tile(np.arange(n), (size, 1)),
            stop=stop,
            utility=np.broadcast_to(self.utilities, stop.shape),
            estimate=mean,
            belief=held,
            theta=np.tile(self.theta, (size, 1)),
            utilities=self.utilities,
            period=t + 1,
        )
        bought = stop * true[:, None]
        worth = self.settlement.payoff(at)
        self.team = worth.shape[1] == 1
        worth = np.broadcast_to(worth, (*worth.shape[:3], stop.shape[2]))
        payoff = np.einsum("cijm,cjm->ci", worth, bought) - self.settlement.charge(at)
        utility = (bought * self.utilities).sum(axis=2)
        chance = bought.sum(axis=2)
        payoff = np.broadcast_to(payoff, chance.shape)
        return np.concatenate([self.theta * chance, utility, chance, payoff], axis=1)


@as_program
def _ending(process, signal, memories, control, utilities):
    """Chances (C, n+1, m) of every ending, and means (C, n, m) of the estimates."""

    def one(memory, control):
        after = process.step(memory, control)
        return process.ends(after, control), signal.mean(after, control, jnp.asarray(utilities))

    return jax.vmap(one)(jnp.asarray(memories), jnp.asarray(control))


def largest_bias(env: RecommendationMDP, signal: AbstractSettlementSignal) -> float:
    """Largest |E[estimate of u_j | omega, history] - u_j(omega)|, money, over all histories.

    Certain: every memory is tried, unless the estimate is known not to read it, as with all
    signals of this package but `TabulatedSettlement`; then purchases of any product at any taste
    are taken to be possible, under threshold choice those of no negative utility.

    **Raises:** `TooLarge` for a signal of the user's own where memories are too many.
    """
    utilities, n = np.asarray(env.utilities, float), env.products
    live = np.broadcast_to(np.asarray(env.tastes.weights) > 0, utilities.shape)
    own = type(signal).__module__.split(".")[0] != "dynmech"
    with jax.enable_x64(True):
        start = np.asarray(env.action_rule.start(n, int(env.horizon)))
        if own or isinstance(signal, TabulatedSettlement):
            try:
                memories, _ = enumerate_memories(env, int(env.horizon), _FEW)
            except TooLarge as error:
                must = "have a mean that does not depend on a long history"
                call = "DynamicTeamMechanism(estimator=...)"
                raise TooLarge(
                    describe(call, must, str(error), "use RatingSettlement()")
                ) from error
            return _enumerated_bias(env, signal, memories, utilities, live)
        mean = np.asarray(signal.mean(start, n, jnp.asarray(utilities)))
    rule = env.action_rule
    if isinstance(rule, PerfectRecall | ImperfectRecall | LastShownOnly):
        live = live & ((utilities >= 0) | (not isinstance(rule.choice, Threshold)))
    return float(np.where(live, np.abs(mean - utilities), 0.0).max(initial=0.0))


def _enumerated_bias(env, signal, memories, utilities, live) -> float:
    process, worst = market_process(env), 0.0
    for here in memories[:-1]:
        for control in range(process.controls):
            for low in range(0, len(here), _OBSERVED):
                part = here[low : low + _OBSERVED]
                pad = np.minimum(np.arange(_OBSERVED), len(part) - 1)
                ends, mean = _ending(
                    process, signal, part[pad], np.full(_OBSERVED, control), utilities
                )
                bought = (np.asarray(ends)[:, :-1] > 0) & live
                gap = np.where(bought, np.abs(np.asarray(mean) - utilities), 0.0)
                worst = max(worst, float(gap.max()))
    return worst
