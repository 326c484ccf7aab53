"""Certified bounds on the value of cases, at the outset or inside, and of who is played in them.

Below: the greedy policy of a critic, simulated on fresh runs, at the confidence asked for. Above:
exact planning for some rounds, then a controller who is told the parameter, or knows no more of it
than can have been heard (`solvers.told.informed`); certain. Both are widened by what rounding of
the data to single precision can have done (`solvers.told.rounded`).
"""

import warnings
from collections.abc import Sequence

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from solvers.bounded import Bounded
from solvers.checks import check_fields, number, optional, whole
from solvers.chooser import AbstractChooser
from solvers.confidence.chosen import ChosenRuns, chosen_runs
from solvers.confidence.runs import Certified, certified_runs
from solvers.errors import DynmechWarning, describe
from solvers.host import Record
from solvers.neural.critic import AbstractCritic
from solvers.process import AbstractCeiling, AbstractProcess, Case
from solvers.search.merged_search import merged_search
from solvers.tabular import Tabular, tabulate
from solvers.told.lookahead import lookahead
from solvers.told.rounded import data_room
from solvers.tree.misled import Told

_SAME = 1e-9  # of an upper bound: rounding

_LEVELS = 10  # quarterings of the level: what may be asked for jointly
_STRICTER = np.array([1.0, 0.1, 0.01])  # of the level: tried where a bound is known to be false

_FRESH = 97  # no training draws from these streams


class Certificate(Record):
    """How hard to work for certified bounds.

    **Arguments**

    - `runs`, `marginal_runs`: fresh runs that bound W, and each marginal economy, from below; at
      least 30. `marginal_runs=0` leaves the economies without somebody unsolved: W alone is
      bounded, and nothing that depends on the others can be charged.
    - `confidence`: of each lower bound, in (0, 1); one-sided, by betting, for any market.
    - `rounds`: planned exactly before the platform is told the taste, for the upper bound; None:
      as many as `work` allows, and where laws do not depend on what was shown before, those
      plans first that matter.
    - `work`: multiplications allowed for the upper bound of W, and again for all the others.
    - `seed`: of the conversations.
    - `walk`: cells (profiles with own alternatives times beliefs of a round) up to which the
      policy's tree is walked, so that everything under the policy is exact; 0: never.
    """

    runs: int = eqx.field(static=True, default=4096)
    marginal_runs: int = eqx.field(static=True, default=512)
    confidence: float = eqx.field(static=True, default=0.95)
    rounds: int | None = eqx.field(static=True, default=None)
    work: float = eqx.field(static=True, default=2e10)
    seed: int = eqx.field(static=True, default=1)
    walk: int = eqx.field(static=True, default=20_000)

    def __check_init__(self):
        check_fields(
            self,
            runs=whole(30),
            marginal_runs=whole(30) if self.marginal_runs != 0 else whole(0),
            seed=whole(0),
            walk=whole(0),
            work=number(above=0, finite=False),
        )
        check_fields(self, rounds=optional(whole(0)), confidence=number(above=0, below=1))


class Worth(Record):
    """What a policy attains and the most that any does, arrays of one shape, money.

    `attained`: its value, simulated; the lower bound has the stated confidence (each entry by
    itself), and is never below the best fixed plan, which is known for certain. `best`: of W, the
    upper bound for certain; what is attained is a lower one. `rounds` were planned exactly for it,
    at most.
    """

    attained: Bounded
    best: Bounded
    rounds: int = eqx.field(static=True)

    @property
    def both(self) -> Bounded:
        """The value, with bounds between which both it and W lie."""
        one = self.attained
        return Bounded(one.value, one.lower, self.best.upper, one.error, one.confidence, one.unseen)

    @property
    def gap(self) -> Float[np.ndarray, "..."]:
        """Certified distance of the policy's value from the optimum, money."""
        return self.best.upper - self.attained.lower


def hidden(
    sample: Float[np.ndarray, "N *s"], reach: float | np.ndarray, going: float
) -> Float[np.ndarray, "*s"]:
    """Range of the draws over N - 1: what the sample has not shown may still be worth that much.

    Zero if the chance of a second round, `going`, is: then everything is an exact expectation.
    `reach`: half of the range.
    """
    return np.full(np.shape(sample)[1:], 2 * reach / (len(sample) - 1) if going > 0 else 0.0)


def attained(
    process: AbstractProcess,
    case: Case,
    ceiling: AbstractCeiling,
    network: AbstractCritic | None,
    belief: Float[np.ndarray, " m"],
    runs: int,
    seed: list[int],
    chunk: int,
    chooser: AbstractChooser | None = None,
    told: Told | None = None,
    memory: np.ndarray | None = None,
) -> tuple[float, float, float]:
    """What the policy is worth: mean, standard error, and what `margin` needs besides.

    That holds rounding of data to single precision, where the ceiling knows of it. `chooser`,
    `told`, `memory`: as of `certify`.
    """
    with jax.enable_x64(True):
        rng, belief = np.random.default_rng(seed), np.asarray(belief, float) / np.sum(belief)
        if chooser is None:
            given = process, case, ceiling, network, belief, runs, rng
            run = certified_runs(*given, memory, chunk=chunk)
        else:
            given = process, case, ceiling, chooser, belief, runs, rng
            run = chosen_runs(*given, memory, chunk=chunk, told=told)
        room = data_room(process, ceiling, belief, run.mean, memory)
    return run.mean, run.error, _unseen(run) + room


def _unseen(run: Certified | ChosenRuns) -> float:
    """The least that makes `margin` as wide as betting is, whatever the level asked for."""
    levels = 0.25 ** np.arange(_LEVELS)
    # In between, a level is bounded as the next one is.
    width, levels = run.width(levels[1:]), levels[:-1]
    log = np.log(2 / levels)
    return float(np.maximum((width - np.sqrt(2 * log) * run.error) / (7 / 3 * log), 0.0).max())


def _crossed(lower: float, upper: float, sure: float, alpha: float) -> str:
    often = 1 - alpha * _STRICTER[-1]
    must = f"stay below the certain upper bound, as they do with chance {often:g} at least"
    got = f"{lower:.9g} above {upper:.9g}"
    do = f"certify with more runs; until then a fixed plan bounds it, {sure:.9g}"
    return describe("Certificate(...): the conversations simulated", must, got, do)


def certify(
    process: AbstractProcess,
    cases: list[Case],
    ceilings: list[AbstractCeiling],
    network: AbstractCritic | None,
    belief: Float[np.ndarray, " m"],
    runs: int,
    certificate: Certificate,
    chunk: int,
    memory: np.ndarray | None = None,
    period: int = 0,
    chooser: AbstractChooser | None = None,
    told: Told | None = None,
    above: tuple[Float[np.ndarray, " K"], int] | None = None,
) -> Worth:
    """Bound every case at one belief, per unit of its mass; in float64 but for the network.

    A lower bound above the certain upper one is false, as it may be with the chance that its level
    leaves: the same draws then say what holds at a tenth or a hundredth of that chance; where this
    is false too, what the best fixed plan is worth is left, with a warning.

    The policy that is simulated is the one that `process` has: rules are replaced by tables for
    it only where the network does not look at them differently.

    **Arguments:** `chooser`: whose policy it is, told what `told` says; None: greedy for
    `network`. `above`: what `bound_above` found of these cases; None: it is asked here.
    """
    belief, at = np.asarray(belief, float) / np.sum(belief), (memory, period, chunk)
    alpha, found = 1 - certificate.confidence, []
    with jax.enable_x64(True):
        quick = simplify(process, ceilings, memory, period)
        if above is None:
            above = _above(*quick, [cases], belief, certificate, period)
        upper, rounds = np.array(above[0]), above[1]
        played, bounds = process, ceilings
        if quick[0].orderless == process.orderless:
            played, bounds = quick[:2]
            at = quick[2], period, chunk
        for k, (case, ceiling) in enumerate(zip(cases, bounds, strict=True)):
            rng = np.random.default_rng([_FRESH, certificate.seed, period, k])
            given = played, case, ceiling, network, belief
            if chooser is None:
                run = certified_runs(*given, runs, rng, *at)
                sure, most, worst = run.sure, upper[k], run.sure
            else:
                sure = _planned(*given, rng, *at)
                own = process, case, ceilings[k], chooser, belief, runs, rng
                run = chosen_runs(*own, memory, period, chunk, told)
                most, worst = min(float(run.upper(alpha)), upper[k]), run.floor
                sure = max(sure, worst)
            unseen, lowers = _unseen(run), run.lower(alpha * _STRICTER)
            possible = np.flatnonzero(lowers <= upper[k] + _SAME * abs(upper[k]))
            lower = float(lowers[min(possible, default=0)])
            if not len(possible):
                warning = _crossed(lower, upper[k], sure, alpha)
                warnings.warn(warning, DynmechWarning, stacklevel=2)
                unseen, lower, most = np.inf, worst, upper[k]
            elif possible[0]:
                log = np.log(2 / alpha)
                apart = run.mean - lower - np.sqrt(2 * log) * run.error
                unseen = max(unseen, float(apart / (7 / 3 * log)))
            room = data_room(quick[0], quick[1][k], belief, lower, quick[2], period)
            upper[k] += room
            most, least = max(most, lower) + room, max(sure, lower) - room
            found.append((run.mean, run.error, unseen + room, lower - room, most, least))
    value, error, unseen, lower, most, least = np.array(found).T
    highest, lowest = (upper, lower) if chooser is None else (most, least)
    drawn = error, certificate.confidence, unseen
    attains = Bounded(value, lower, highest, *drawn)
    return Worth(attains, Bounded(value, lowest, upper, *drawn), rounds)


def _planned(
    process: AbstractProcess,
    case: Case,
    ceiling: AbstractCeiling,
    network: AbstractCritic | None,
    belief: np.ndarray,
    rng: np.random.Generator,
    memory: np.ndarray | None,
    period: int,
    chunk: int,
) -> float:
    """What a fixed plan is worth for certain; less than anything where none is known."""
    start = np.asarray(process.start() if memory is None else memory)
    if not process.orderless and ceiling.plans(period, start[None]) is None:
        return -np.inf
    given = process, case, ceiling, network, belief
    return certified_runs(*given, 1, rng, memory, period, chunk).sure


def simplify(
    process: AbstractProcess,
    ceilings: list[AbstractCeiling],
    memory: np.ndarray | None = None,
    period: int = 0,
) -> tuple[AbstractProcess, list[AbstractCeiling], np.ndarray | None]:
    """Replace rules by tables where laws depend on neither memory nor round; with float64."""
    table = None if isinstance(process, Tabular) else tabulate(process, memory, period)
    if table is None:
        return process, ceilings, memory
    return table, [table.ceiling(one) for one in ceilings], None


def bound_above(
    process: AbstractProcess,
    groups: Sequence[Sequence[Case]],
    ceilings: Sequence[Sequence[AbstractCeiling]],
    belief: Float[np.ndarray, " m"],
    certificate: Certificate,
    memory: np.ndarray | None = None,
    period: int = 0,
) -> tuple[Float[np.ndarray, " K"], int]:
    """Bound every case from above at one belief, for certain, per unit of its mass.

    Where order is of no matter the multisets of what can happen are searched (`merged_search`),
    those of cases that may do no more than others from where these ended; else every history
    (`lookahead`). Sums are rounded in float64; rounding of the data is added by `certify`.

    **Arguments:** `groups`: cases, and `ceilings` theirs; each group has the certificate's work,
    shared by its cases.

    **Returns:** K bounds, money, of one group after the other, and the most rounds planned for
    the first group.
    """
    belief = np.asarray(belief, float) / np.sum(belief)
    flat = [ceiling for some in ceilings for ceiling in some]
    with jax.enable_x64(True):
        quick = simplify(process, flat, memory, period)
        return _above(*quick, groups, belief, certificate, period)


def _above(
    process: AbstractProcess,
    ceilings: list[AbstractCeiling],
    memory: np.ndarray | None,
    groups: Sequence[Sequence[Case]],
    belief: np.ndarray,
    certificate: Certificate,
    period: int,
) -> tuple[np.ndarray, int]:
    rounds, sizes = certificate.rounds, [len(cases) for cases in groups]
    if rounds is not None or not isinstance(process, Tabular):
        found, ends = [], np.cumsum(sizes)
        for cases, size, end in zip(groups, sizes, ends, strict=True):
            given = process, list(cases), ceilings[end - size : end], belief
            found.append(lookahead(*given, rounds, memory, period, certificate.work))
        return np.concatenate([upper for upper, _ in found]), found[0][1]
    work = np.repeat(certificate.work / np.array(sizes), sizes).tolist()
    every = [case for cases in groups for case in cases]
    searched = merged_search(process, every, ceilings, belief, work, period)
    planned = max(one.depth for one in searched[: sizes[0]]) + 2
    upper = np.array([one.upper for one in searched])
    return upper, min(planned, process.horizon - period)


def in_float64(network: AbstractCritic | None) -> AbstractCritic | None:
    """The same network with parameters in float64."""
    return jax.tree.map(
        lambda x: np.asarray(x, np.float64) if eqx.is_inexact_array(x) else x, network
    )
