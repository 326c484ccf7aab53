"""Upper bounds that keep omega hidden: what may be known is what has been heard.

Whatever a controller does in round t is a function of what was heard before, so that under any
policy (the chain rule of mutual information and data processing; expectations over the belief b)

    I(omega; a_t) <= sum_{s < t} I(omega; o_s | a_s)   for every round t,

o_s being the symbol of round s. Told omega drops these constraints; here they are kept, with
multipliers D_t >= 0, so that information has a price lambda_t = D_t + c lambda_{t+1}, c the largest
chance of going on, and what is bought by showing a likely favourite, which tells little, is not
given away. With K(b) = sum_omega b log(b / (|b| q)), q the belief at hand, and rounds from now
on counted from 0,

    U_t(b) = <b, g_t> + lambda_t K(b) >= V_t(b)   for every b, if for every control a

    D_t log sum_omega q exp((x_a - g_t) / D_t) <= 0,
    x_a = pay_a + going_a g_{t+1} + lambda_{t+1} (going_a kappa_a + zeta_a),
    kappa_a(omega) = sum_z law_a(z | omega) log(law_a(z | omega) / r_a(z)).

For by Jensen's inequality sum_z K(b going_a law_a(z)) <= K(b going_a) + <b, going_a kappa_a> for
any distribution r_a; zeta_a holds tangents of concave terms, K(b going_a) <= c K(b) + <b, zeta_a>
(zero where the chance of going on is one number); and the largest <b, y> - D K(b) over
distributions b is D log <q, exp(y / D)> (Donsker and Varadhan). So every choice of D_t > 0, of r_a
and of g_t, once lifted by the largest of the left sides, gives a bound. Good ones come from
alternating, as Blahut and Arimoto did for channels (1972, IEEE Transactions on Information Theory
18): g_t = D_t log sum_a p_a exp(x_a / D_t), p_a and r_a from the beliefs q exp((x_a - g_t) / D_t)
in which a would be shown, and D_t raised where choices use more than was heard.
Float64; rounding is of the order of T machine epsilons times the value.
"""

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Float

_LEAST = 1e-12  # of a probability
_SPARE = 0.05  # nats: below it, steps of multipliers are damped
_STEP = 0.3  # of a multiplier, in logs, for a share too much
_START, _FALL = 0.15, 0.1  # D_t to begin with, of the largest pay; its fall in a round, in logs
_ROOM = 64  # forms kept before room doubles
_BLUR = 0.3  # of the guess of what was heard: as before anything was


class Start(eqx.Module):
    """Where to begin: for B beliefs and k rounds, choices p, log r, log D."""

    choice: Float[np.ndarray, "B k A"]
    heard: Float[np.ndarray, "B k A Z"]
    price: Float[np.ndarray, "B k"]

    def part(self, row: int) -> "Start":
        """Of one belief, in single precision, as these are guesses."""
        return jax.tree.map(lambda x: x[row : row + 1].astype(np.float32), self)

    def later(self, rounds: int) -> "Start":
        """For beliefs so many rounds later."""
        return jax.tree.map(lambda x: x[:, rounds:], self)


class Informed(eqx.Module):
    """Bounds of every control at B beliefs (B, A), and U of what follows: g (B, m), lambda (B,).

    `start`: what was found, for the beliefs that follow.
    """

    bound: Float[np.ndarray, "B A"]
    after: Float[np.ndarray, "B m"]
    price: Float[np.ndarray, " B"]
    start: Start


class HeardBound:
    """The bound, for one case of laws that depend on neither memory nor round.

    **Arguments:** `pay` (A, m): what a round yields; `going` (A, m): chance of another; `law`
    (A, Z, m): of symbols given that there is one.
    """

    def __init__(
        self,
        pay: Float[np.ndarray, "A m"],
        going: Float[np.ndarray, "A m"],
        law: Float[np.ndarray, "A Z m"],
    ):
        self.pay, self.going = pay, going
        self.column = going[:, None] * law
        self.certain = going * _xlogx(law).sum(axis=1)
        self.most = float(going.max())
        self.even = bool(np.ptp(going) == 0)

    @property
    def work(self) -> float:
        """Multiplications, about, that one sweep of one belief and round costs."""
        return 60.0 * self.pay.size

    def begin(self, beliefs: Float[np.ndarray, "B m"], left: int) -> Start:
        """A first guess: the control that is best for omega, and its symbols, half made out."""
        own = beliefs * (self.pay == self.pay.max(axis=0))[:, None]
        mass = np.maximum(own.sum(axis=2, keepdims=True), _LEAST)
        heard = self._expected((1 - _BLUR) * own / mass + _BLUR * beliefs)
        choice = mass[:, :, 0].T + 1e-3
        scale = max(float(np.abs(self.pay).max()), np.finfo(float).tiny)
        price = np.log(_START * scale) - _FALL * np.arange(left - 1)
        return Start(
            np.repeat((choice / choice.sum(axis=1, keepdims=True))[:, None], left - 1, axis=1),
            np.repeat(np.log(np.swapaxes(heard, 0, 1))[:, None], left - 1, axis=1),
            np.broadcast_to(price, (len(beliefs), left - 1)),
        )

    def bound(self, beliefs: Float[np.ndarray, "B m"], start: Start, sweeps: int) -> Informed:
        """Bound every control at beliefs of mass 1, with a round more to go than `start` has.

        Where numbers leave the range of float64 nothing is claimed: bound and lambda are infinite.
        """
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return self._bound(beliefs, start, sweeps)

    def _bound(self, beliefs: np.ndarray, start: Start, sweeps: int) -> Informed:
        choice, heard = (np.array(x, np.float64) for x in (start.choice, start.heard))
        log_price = np.array(start.price, np.float64)
        best = np.full((len(beliefs), len(self.pay)), np.inf)
        after, price = np.zeros_like(beliefs), np.full(len(beliefs), np.inf)
        for _ in range(sweeps):
            g, value = np.zeros_like(beliefs), np.zeros(len(beliefs))
            used, gained = np.zeros_like(log_price), np.zeros_like(log_price)
            for k in reversed(range(log_price.shape[1])):
                d = np.exp(log_price[:, k])
                at = beliefs, g, value, choice[:, k], heard[:, k], d
                g, choice[:, k], heard[:, k], used[:, k], gained[:, k] = self._round(*at)
                value = d + self.most * value
            bound, now = self._first(beliefs, g, value)
            better = bound.max(axis=1) < best.max(axis=1)
            best[better], after[better], price[better] = bound[better], g[better], value[better]
            known = now[:, None] + np.cumsum(gained, axis=1) - gained
            log_price += np.clip(_STEP * (used - known) / (known + _SPARE), -0.5, 0.5)
        return Informed(best, after, price, Start(choice, heard, log_price))

    def _round(
        self,
        q: np.ndarray,
        g: np.ndarray,
        price: np.ndarray,
        choice: np.ndarray,
        heard: np.ndarray,
        d: np.ndarray,
    ) -> tuple[np.ndarray, ...]:
        """g_t (B, m), better p (B, A) and log r (B, A, Z), nats that are used and gained (B,)."""
        told = self._told(q, np.swapaxes(heard, 0, 1))
        x = self.pay[:, None] + self.going[:, None] * g + price[:, None] * told
        most = x.max(axis=0)
        x -= most
        x /= d[:, None]
        shown = np.exp(x)
        total = np.einsum("ba,abm->bm", choice, shown)
        shown *= q / total
        mass = shown.sum(axis=2).T
        lifted = np.log(total)
        used = np.einsum("ba,abm,abm->b", choice, shown, x) - np.einsum("bm,bm->b", q, lifted)
        gained = np.einsum("ba,abm,abm->b", choice, shown, told)
        g = most + d[:, None] * (lifted + np.log(mass.max(axis=1))[:, None])
        slow = (d / (d + self.most * price))[:, None, None]
        heard = (1 - slow) * heard + slow * np.swapaxes(np.log(self._expected(shown)), 0, 1)
        heard -= np.log(np.exp(heard).sum(axis=2, keepdims=True))
        return g, np.maximum(choice * mass, _LEAST), heard, used, gained

    def _first(
        self, q: np.ndarray, g: np.ndarray, price: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Bounds of every control now (B, A), and nats that the best one tells (B,)."""
        told = self._told(q, np.log(self._expected(q[None])))
        gained = np.einsum("abm,bm->ba", told, q)
        bound = q @ self.pay.T + (q * g) @ self.going.T + price[:, None] * gained
        return bound, np.take_along_axis(gained, bound.argmax(axis=1)[:, None], axis=1)[:, 0]

    def _told(self, q: np.ndarray, heard: np.ndarray) -> np.ndarray:
        """going_a kappa_a + zeta_a (A, B, m) for log r (A, B, Z)."""
        told = self.certain[:, None] - heard @ self.column
        if not self.even:
            spare = self.most - self.going
            kept = np.maximum(self.going @ q.T, _LEAST)[:, :, None]
            told += (_xlogx(self.going) - spare)[:, None] + (spare @ q.T)[:, :, None]
            told += kept - self.going[:, None] * (1 + np.log(kept))
        return told

    def _expected(self, beliefs: np.ndarray) -> np.ndarray:
        """Law of the symbol after every control, (A, B, Z), at (A or 1, B, m) beliefs."""
        law = beliefs @ np.swapaxes(self.column, 1, 2)
        law = np.maximum(law, np.maximum(_LEAST * law.sum(axis=2, keepdims=True), 1e-300))
        return law / law.sum(axis=2, keepdims=True)


class Potentials:
    """The least of U_t over the references it was found for, as U_t bounds V_t everywhere.

    U is linear in b but for lambda times the entropy of b, so that many forms at many beliefs are
    one matrix product: with q the reference,

        U(b) = <b, g - lambda log q> + lambda sum_omega b log(b / |b|).
    """

    def __init__(self, points: int):
        self.linear, self.price = np.zeros((_ROOM, points)), np.zeros(_ROOM)
        self.outside = np.zeros((_ROOM, points), bool)
        self.count = 0

    def add(
        self, reference: Float[np.ndarray, " m"], after: Float[np.ndarray, " m"], price: float
    ) -> None:
        """Keep one more form, of a reference of mass 1; what claims nothing is left out."""
        with np.errstate(over="ignore", invalid="ignore"):
            linear = after - price * np.log(np.where(reference > 0, reference, 1.0))
        if not (np.isfinite(linear).all() and np.isfinite(price)):
            return
        if self.count == len(self.price):
            for name in ("linear", "price", "outside"):
                old = self.__dict__[name]
                self.__dict__[name] = np.concatenate([old, np.zeros_like(old)])
        self.linear[self.count], self.price[self.count] = linear, price
        self.outside[self.count] = reference <= 0
        self.count += 1

    def least(self, beliefs: Float[np.ndarray, "B m"]) -> Float[np.ndarray, " B"]:
        """The least U at beliefs, unnormalised; infinite outside of every reference."""
        if not self.count:
            return np.full(len(beliefs), np.inf)
        linear, price = self.linear[: self.count], self.price[: self.count]
        mass = np.maximum(beliefs.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        known = _xlogx(beliefs / mass).sum(axis=1) * mass[:, 0]
        with np.errstate(over="ignore", invalid="ignore"):
            found = beliefs @ linear.T + known[:, None] * price
        if (outside := self.outside[: self.count]).any():
            found[(beliefs > 0) @ outside.T] = np.inf
        return np.where(np.isnan(found), np.inf, found).min(axis=1)


def _xlogx(x: np.ndarray) -> np.ndarray:
    return x * np.log(np.where(x > 0, x, 1.0))
