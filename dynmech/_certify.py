"""Certified bounds on the value of each economy, at the outset or inside a conversation."""

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

from dynmech._errors import InvalidArgument, describe
from solvers import (
    AbstractCeiling,
    AbstractProcess,
    Case,
    Play,
    Tabular,
    ValueNetwork,
    lookahead,
    merged_search,
    rollout,
    tabulate,
)


class Certificate(eqx.Module):
    """How hard to work for certified bounds.

    **Arguments**

    - `runs`, `marginal_runs`: fresh conversations that bound W, and each marginal economy, from
      below; at least 30.
    - `confidence`: of each lower bound, in (0, 1); one-sided, Student's t over the conversations.
    - `rounds`: planned exactly before the platform is told the taste, for the upper bound; None:
      as many as `work` allows, and where laws do not depend on what was shown before, those
      plans first that matter.
    - `work`: multiplications allowed for the upper bound of W, and again for all the others.
    - `seed`: of the conversations.
    """

    runs: int = eqx.field(static=True, default=4096)
    marginal_runs: int = eqx.field(static=True, default=512)
    confidence: float = eqx.field(static=True, default=0.95)
    rounds: int | None = eqx.field(static=True, default=None)
    work: float = eqx.field(static=True, default=2e10)
    seed: int = eqx.field(static=True, default=1)

    def __check_init__(self):
        for name in ("runs", "marginal_runs"):
            if getattr(self, name) < 30:
                must = "be at least 30, for an interval by the central limit theorem"
                raise InvalidArgument(
                    describe(f"Certificate({name}=...)", must, getattr(self, name))
                )
        if not 0 < self.confidence < 1:
            must = "be in (0, 1)"
            raise InvalidArgument(describe("Certificate(confidence=...)", must, self.confidence))
        if self.rounds is not None and self.rounds < 0:
            must = "be at least 0, or None"
            raise InvalidArgument(describe("Certificate(rounds=...)", must, self.rounds))
        if not self.work > 0:
            raise InvalidArgument(describe("Certificate(work=...)", "be positive", self.work))


class Bounds(eqx.Module):
    """Bounds on optimal values, arrays of one shape, money.

    `value`, `error`: of the policy, simulated, and its standard error; `lower`: with the stated
    confidence (each entry by itself), below the policy's value and so below the optimum;
    `upper`: above the optimum for certain. `rounds` were planned exactly for it, at most.
    """

    value: Float[np.ndarray, "..."]
    error: Float[np.ndarray, "..."]
    lower: Float[np.ndarray, "..."]
    upper: Float[np.ndarray, "..."]
    confidence: float = eqx.field(static=True)
    rounds: int = eqx.field(static=True)

    @property
    def gap(self) -> Float[np.ndarray, "..."]:
        """Certified distance of the policy's value from the optimum, money."""
        return self.upper - self.lower


def make_case(theta: np.ndarray, owner: int | None = None, displayable: bool = False) -> Case:
    """W at values theta (n,), money; or without `owner`: withdrawn, or shown but not counted."""
    counted = np.arange(len(theta)) != (-1 if owner is None else owner)
    allowed = np.append(counted | displayable, True)
    return Case(np.where(counted, theta, 0.0), counted, allowed)


def certify(
    process: AbstractProcess,
    cases: list[Case],
    ceilings: list[AbstractCeiling],
    network: ValueNetwork | None,
    belief: Float[np.ndarray, " m"],
    runs: int,
    certificate: Certificate,
    chunk: int,
    memory: np.ndarray | None = None,
    period: int = 0,
) -> Bounds:
    """Bound every case at one belief, per unit of its mass; in float64 but for the network."""
    from scipy.special import stdtrit

    belief = np.asarray(belief, float) / np.sum(belief)
    with jax.enable_x64(True):
        process, ceilings, memory = simplify(process, ceilings, memory, period)
        upper, rounds = _upper(process, cases, ceilings, belief, certificate, memory, period)
        found = []
        for k, (case, ceiling) in enumerate(zip(cases, ceilings, strict=True)):
            rng = np.random.default_rng([certificate.seed, period, k])
            options = {"memory": memory, "period": period, "chunk": chunk}
            run = rollout(
                process, case, ceiling, network, belief, runs, rng, Play.GREEDY, **options
            )
            found.append((run.mean, run.error))
    value, error = np.array(found).T
    lower = value - float(stdtrit(runs - 1, certificate.confidence)) * error
    return Bounds(value, error, lower, upper, certificate.confidence, rounds)


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


def _upper(process, cases, ceilings, belief, certificate: Certificate, memory, period: int):
    """Search the multisets of what can happen where order is of no matter, else every history."""
    rounds, work = certificate.rounds, certificate.work
    if rounds is not None or not isinstance(process, Tabular):
        return lookahead(process, cases, ceilings, belief, rounds, memory, period, work)
    found = [
        merged_search(process, case, ceiling, belief, work / len(cases), period)
        for case, ceiling in zip(cases, ceilings, strict=True)
    ]
    planned = max(one.depth for one in found) + 2
    return np.array([one.upper for one in found]), min(planned, process.horizon - period)


def in_float64(network: ValueNetwork | None) -> ValueNetwork | None:
    """The same network with parameters in float64."""
    return jax.tree.map(
        lambda x: np.asarray(x, np.float64) if eqx.is_inexact_array(x) else x, network
    )
