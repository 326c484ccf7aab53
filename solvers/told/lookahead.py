"""Upper bounds without sampling error: plan exactly for k rounds, then be told the parameter.

With U_t(h, omega) the value of a controller who is told omega (`AbstractCeiling`),

    V^0_t(h, b) = <b, U_t(h, .)>,
    V^k_t(h, b) = max_a <b, pay_a> + sum_z V^{k-1}_{t+1}(h_a, b * going_a * law_a(z)).

W <= V^k <= V^{k-1} for every k, by Jensen's inequality and induction, and V^k is exact from
k = T - t + 1 on. The last of the k rounds needs no symbols, as sum_z law = 1: V^1 is the largest
of A inner products. So k rounds cost at most A (A Z)^(k-1) inner products of length m for each
case. Controls whose V^1 is no better than what another is known to reach are left out: as V^k
never exceeds V^1, nothing is lost.
Float64; rounding is of the order of T machine epsilons times the value.
"""

import numpy as np
from jaxtyping import Float

from solvers.process import AbstractCeiling, AbstractProcess, Case, ends_after

_ROWS = 4096
_CALL = 1e6  # what a call costs beside its multiplications


def lookahead(
    process: AbstractProcess,
    cases: list[Case],
    ceilings: list[AbstractCeiling],
    belief: Float[np.ndarray, " m"],
    rounds: int | None = None,
    memory: np.ndarray | None = None,
    period: int = 0,
    work: float = float("inf"),
) -> tuple[Float[np.ndarray, " _K"], int]:
    """Bound the value of every case from above at one belief (unnormalised), memory, round.

    **Arguments:** `rounds`: planned exactly before omega is told, k >= 0; None: as many as
    `work`, in multiplications, allows. `memory`: that of the start by default; `period`: rounds
    gone by, from 0. Call it with float64 enabled.

    **Returns:** the bounds, and the rounds planned.
    """
    memory = np.asarray(process.start() if memory is None else memory)
    beliefs = np.asarray(belief, np.float64)[None]
    left = process.horizon - period
    search = _Search(process, cases, ceilings, work)
    if rounds is not None:
        rounds = min(rounds, left)
        return search.bound(memory, beliefs, period, rounds)[:, 0], rounds
    best, planned = search.told(period, memory[None])[:, 0] @ beliefs[0], 0
    for k in range(1, left + 1):
        try:
            best, planned = search.bound(memory, beliefs, period, k)[:, 0], k
        except _Spent:
            break
    return best, planned


class _Spent(Exception):
    """The work allowed has been done."""


class _Search:
    """The recursion, for all cases at once; laws do not depend on the case but for `pay`."""

    def __init__(
        self,
        process: AbstractProcess,
        cases: list[Case],
        ceilings: list[AbstractCeiling],
        work: float,
    ):
        self.left = work
        self.process, self.cases, self.ceilings = process, cases, ceilings
        reward = np.asarray(process.reward)
        self.worth = np.stack([np.asarray(case.worth(reward)) for case in cases])
        self.allowed = np.stack([np.asarray(case.allowed, bool) for case in cases])
        self.seen: dict[tuple[int, bytes], tuple[np.ndarray, ...]] = {}

    def spend(self, amount: float) -> None:
        """Count multiplications; laws of memories are counted where they are computed."""
        self.left -= amount
        if self.left < 0:
            raise _Spent

    def told(self, period: int, memories: np.ndarray) -> np.ndarray:
        if period == self.process.horizon:
            return np.zeros((len(self.cases), len(memories), self.worth.shape[2]))
        return np.stack([ceiling.value(period, memories) for ceiling in self.ceilings])

    def bound(
        self, memory: np.ndarray, beliefs: np.ndarray, period: int, rounds: int
    ) -> np.ndarray:
        if rounds == 0:
            return self.told(period, memory[None])[:, 0] @ beliefs.T
        if rounds == 1:
            return self._last(memory, beliefs, period)
        pay, going, law, after = self._laws(memory, period)
        self.spend(_CALL + float(pay.size) * len(beliefs))
        open_ = pay + going * self.told(period + 1, after)
        reach = np.einsum("kam,nm->kan", open_, beliefs)
        reach[~self.allowed] = -np.inf
        best = np.full((len(self.cases), len(beliefs)), -np.inf)
        done = np.zeros((self.process.controls, len(beliefs)), bool)
        first = reach.argmax(axis=1)
        for promising in (True, False):
            for control in np.argsort(-reach.max(axis=0).mean(axis=1), kind="stable"):
                if promising:
                    rows = (first == control).any(axis=0)
                else:
                    rows = (reach[:, control] > best).any(axis=0) & ~done[control]
                if not rows.any():
                    continue
                done[control] |= rows
                column = (going[control][:, None] * law[control]).T
                total = self._following(
                    after[control], beliefs[rows], column, period + 1, rounds - 1
                )
                total += pay[:, control] @ beliefs[rows].T
                total[~self.allowed[:, control]] = -np.inf
                best[:, rows] = np.maximum(best[:, rows], total)
        return best

    def _following(
        self, memory: np.ndarray, beliefs: np.ndarray, column: np.ndarray, period: int, rounds: int
    ) -> np.ndarray:
        """Sum over symbols of the bounds that follow, (K, N)."""
        after = (beliefs[:, None] * column).reshape(-1, beliefs.shape[1])
        symbols = np.arange(len(column))
        heard = self.process.hear(np.tile(memory, (len(column), 1)), symbols)
        known, which = np.unique(heard, axis=0, return_inverse=True)
        some, later = after.any(axis=1), np.zeros((len(self.cases), len(after)))
        for k, here in enumerate(known):
            rows = np.flatnonzero(some & np.tile(which.reshape(-1) == k, len(beliefs)))
            for start in range(0, len(rows), _ROWS):
                part = rows[start : start + _ROWS]
                later[:, part] = self.bound(here, after[part], period, rounds)
        return later.reshape(len(self.cases), len(beliefs), -1).sum(axis=2)

    def _last(self, memory: np.ndarray, beliefs: np.ndarray, period: int) -> np.ndarray:
        pay, going, _, after = self._laws(memory, period)
        self.spend(_CALL + float(pay.size) * len(beliefs))
        worth = pay + going * self.told(period + 1, after)
        best = np.full((len(self.cases), len(beliefs)), -np.inf)
        for k, allowed in enumerate(self.allowed):
            best[k] = (beliefs @ worth[k, allowed].T).max(axis=1)
        return best

    def _laws(self, memory: np.ndarray, period: int):
        key = (period, memory.tobytes())
        if key not in self.seen:
            if len(self.seen) > 64:
                self.seen.clear()
            found = ends_after(self.process, memory, period)
            ends, law, after = (np.asarray(part) for part in found)
            self.spend(100.0 * ends.size)
            pay = np.einsum("ajm,kjm->kam", ends[:, :-1], self.worth)
            self.seen[key] = (pay, ends[:, -1], law, after)
        return self.seen[key]
