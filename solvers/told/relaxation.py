"""Upper bounds by simulation: a controller who is told what comes next, and pays for it.

Information relaxation with penalties (Brown, Smith and Sun, 2010, Operations Research 58). Let a
uniform draw u_t decide what follows round t: z_t = F(a_t, u_t) by inversion of the predictive law.
A controller who is told u_1, ..., u_{k-1}, and omega after k rounds, and who is charged

    V_{t+1}(next belief) - E[ V_{t+1}(next belief) | belief, a_t ]     after each of rounds 1..k-1,

does no worse than one who is told nothing, as the charge has mean zero for whoever does not know
u_t. So for any V

    X = max over a_1..a_k of  sum_{t<k} 1{going} (Q_t(a_t) - V_t) + 1{going} (max_a Q^U_k(a) - V_k),

with V_1 = 0, Q_t(a) = <p, pay_a> + E[V_{t+1}], and Q^U the same with the told-omega value, has
E X >= W. The closer V is to W, the less X varies and the tighter its mean. Two cautions: E X is
never below V^k of `lookahead`, with the same k, since both give omega away after k rounds; it
costs A^k rather than (A Z)^k, and pays where k rounds cannot be enumerated.

The maximum is searched breadth first, sample by sample. What falls out of the `beam` is not
forgotten: V is confined to [U - c_t, U], so that no round adds more than c_t, and a branch counts
as its sum so far plus its next U - V plus the c_t to come. So each X is at least the maximum, and
at most U_1 + sum_t c_t, as Q_t - V_t <= U_t - V_t <= c_t: what a confidence bound has to know.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from solvers.confidence.betting import betting_upper
from solvers.confidence.sample import AbstractSample
from solvers.host import Record
from solvers.neural.critic import AbstractCritic
from solvers.neural.rollout import Play, ahead, rollout
from solvers.problem import Numbers
from solvers.process import AbstractCeiling, AbstractProcess, Case, Laws, distinct, laws
from solvers.programs import as_program

_SPREAD = 2.0  # c_t in units of the mean of U - V where the policy goes


class Relaxed(AbstractSample):
    """`gain` (N,): each has a mean of at least the optimum. `cut`: share that the beam decided.

    `told`: the told-omega bound, for certain; `most`: no draw is above it.
    """

    gain: Float[np.ndarray, " N"]
    cut: float = eqx.field(static=True)
    told: float = eqx.field(static=True)
    most: float = eqx.field(static=True)

    def upper(self, alpha: float) -> float:
        """Bound the optimum from above, with confidence 1 - `alpha`; never above `told`."""
        return min(float(betting_upper(self.gain, self.most, alpha)), self.told)


class Branches(Record):
    """What A controls lead to after C beliefs: Q, still going, belief, V, U - V, memory."""

    backup: Float[Numbers, "C A"]
    going: Bool[Numbers, "C A"]
    belief: Float[Numbers, "C A m"]
    value: Float[Numbers, "C A"]
    spare: Float[Numbers, "C A"]
    memory: Int[Numbers, "C A d"]


_Problem = tuple[
    AbstractProcess, Case, AbstractCeiling, AbstractCritic | None, Float[np.ndarray, " T"], int
]


def relaxation(
    process: AbstractProcess,
    case: Case,
    ceiling: AbstractCeiling,
    critic: AbstractCritic | None,
    belief: Float[np.ndarray, " m"],
    runs: int,
    rng: np.random.Generator,
    rounds: int,
    beam: int = 64,
    memory: np.ndarray | None = None,
    period: int = 0,
    chunk: int = 16,
) -> Relaxed:
    """Draw `runs` upper bounds of the value of one case, per unit of the belief's mass.

    **Arguments:** `critic`: V; without one nothing is charged, and what the beam cuts counts as
    infinite. `rounds`: k >= 1; `beam`: branches kept in each round. Call it with float64 enabled.
    """
    start = np.asarray(process.start() if memory is None else memory)
    belief = np.asarray(belief, float) / np.sum(belief)
    rounds = min(rounds, process.horizon - period)
    caps = _caps(process, case, ceiling, critic, belief, rng, rounds, start, period, chunk)
    problem = (process, case, ceiling, critic, caps, chunk)
    draws = rng.random((runs, rounds))
    found = [_one(problem, belief, start, period, u, beam) for u in draws]
    bound, cut = np.array(found).T
    told = float(ceiling.value(period, start[None])[0] @ belief)
    return Relaxed(bound, float(cut.mean()), told, told + float(caps.sum()))


def _caps(
    process: AbstractProcess,
    case: Case,
    ceiling: AbstractCeiling,
    critic: AbstractCritic | None,
    belief: np.ndarray,
    rng: np.random.Generator,
    rounds: int,
    memory: np.ndarray,
    period: int,
    chunk: int,
):
    """c_t of rounds 2..k, by the mean of U - V in a pilot of the greedy policy."""
    if critic is None:
        return np.full(rounds, np.inf)
    pilot = rollout(
        process, case, ceiling, critic, belief, 64, rng, Play.GREEDY, memory, period, chunk,
        keep=True,
    ).states  # fmt: skip
    caps = np.zeros(rounds)
    if pilot is None:
        return caps
    spare = pilot.fixed[:, len(case.coefficient) + 2] - pilot.value
    for j in range(1, rounds):
        here = pilot.remaining == process.horizon - period - j
        caps[j] = _SPREAD * (spare[here].mean() if here.any() else spare.mean())
    return caps


def _one(
    problem: _Problem,
    belief: np.ndarray,
    start: np.ndarray,
    period: int,
    draws: np.ndarray,
    beam: int,
) -> tuple[float, bool]:
    """The maximum of one sample, or more where the beam cut what could have been the best."""
    *_, caps, _ = problem
    beliefs, memories = belief[None], start[None]
    total, value = np.zeros(1), np.zeros(1)
    best, cut = -np.inf, -np.inf
    for j, u in enumerate(draws):
        if j == len(draws) - 1:
            last = _last(problem, beliefs, memories, period + j)
            best = max(best, float((total + last - value).max()))
            break
        found = _branch(problem, beliefs, memories, u, period + j, caps[j + 1])
        sums = (total - value)[:, None] + found.backup
        best = max(best, float(np.where(found.going, -np.inf, sums).max()))
        still = np.where(found.going, sums, 0.0) + found.spare + caps[j + 2 :].sum()
        bound = np.where(found.going, still, -np.inf).ravel()
        order = np.argsort(-bound, kind="stable")
        order = order[bound[order] > best]
        if not len(order):
            break
        kept, rest = order[:beam], order[beam:]
        if len(rest):
            cut = max(cut, float(bound[rest[0]]))
        points = beliefs.shape[1]
        beliefs = found.belief.reshape(-1, points)[kept]
        memories = found.memory.reshape(-1, memories.shape[1])[kept]
        total, value = sums.ravel()[kept], found.value.ravel()[kept]
    return max(best, cut), cut > best


def _branch(
    problem: _Problem, beliefs: Numbers, memories: Numbers, u: float, t: int, cap: float
) -> Branches:
    process, case, ceiling, critic, _, chunk = problem
    parts = []
    for at in range(0, len(beliefs), chunk):
        part = slice(at, at + chunk)
        size = len(beliefs[part])
        pad = np.minimum(np.arange(1 if len(beliefs) == 1 else chunk), size - 1)
        unique, row = distinct(memories[part][pad])
        laws_, told = _laws(process, case, ceiling, unique, t)
        numbers = (jnp.asarray(t), jnp.asarray(u), jnp.asarray(cap))
        found = _follow(process, case, critic, laws_, told, beliefs[part][pad], row, *numbers)
        parts.append(jax.tree.map(lambda x, size=size: np.asarray(x)[:size], found))
    return jax.tree.map(lambda *xs: np.concatenate(xs), *parts)


def _laws(
    process: AbstractProcess, case: Case, ceiling: AbstractCeiling, unique: np.ndarray, t: int
):
    """Laws after each memory, and the told-omega value at the next ones."""
    found = laws(process, case, unique, jnp.asarray(t), True)
    after = np.asarray(found.memory)
    told = ceiling.value(t + 1, after.reshape(-1, after.shape[-1]))
    return found, told.reshape(found.going.shape)


@as_program
def _follow(
    process: AbstractProcess,
    case: Case,
    critic: AbstractCritic | None,
    found: Laws,
    told: Numbers,
    p: Numbers,
    row: Numbers,
    t: Numbers,
    u: Numbers,
    cap: Numbers,
) -> Branches:
    now = jnp.einsum("cm,cam->ca", p, found.pay[row])
    _, mass, posterior, fixed, value = ahead(process, case, critic, found, told, row, p, t)
    if critic is None:
        spare = jnp.full_like(value, jnp.inf)
    else:
        most = fixed[..., len(case.coefficient) + 2]
        value = jnp.clip(value, most - cap, most)
        spare = most - value
    backup = now + (mass * value).sum(axis=-1)
    backup = jnp.where(jnp.asarray(case.allowed), backup, -jnp.inf)
    ladder = jnp.cumsum(mass, axis=-1)
    symbol = (ladder <= u).sum(axis=-1)
    going = (symbol < mass.shape[-1]) & jnp.asarray(case.allowed)
    symbol = jnp.minimum(symbol, mass.shape[-1] - 1)
    take = symbol[..., None]
    belief = jnp.take_along_axis(posterior, take[..., None], axis=2)[:, :, 0]
    value, spare = (jnp.take_along_axis(x, take, axis=2)[..., 0] for x in (value, spare))
    return Branches(backup, going, belief, value, spare, found.memory[row])


def _last(problem: _Problem, beliefs: Numbers, memories: Numbers, t: int):
    """max_a Q^U of each belief; exact in the process's last round."""
    process, case, ceiling, *_ = problem
    best = np.zeros(len(beliefs))
    unique, row = np.unique(memories, axis=0, return_inverse=True)
    for k, memory in enumerate(unique):
        found, told = _laws(process, case, ceiling, memory[None], t)
        worth = (np.asarray(found.pay) + np.asarray(found.going) * told)[0]
        here = row.reshape(-1) == k
        best[here] = (beliefs[here] @ worth[np.asarray(case.allowed)].T).max(axis=1)
    return best
