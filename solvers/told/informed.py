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
from jaxtyping import Bool, Float

_LEAST = 1e-12  # of a probability
_WORK = 20.0  # of a sweep, for each control and taste: multiplications that take as long
_SPARE = 0.05  # nats: below it, steps of multipliers are damped
_STEP = 0.3  # of a multiplier, in logs, for a share too much
_START, _FALL = 0.15, 0.1  # D_t to begin with, of the largest pay; its fall in a round, in logs
_ROOM = 64  # forms kept before room doubles, a power of two
ALONE = 2**18  # multiplications in a product of matrices that is not worth waking more threads for
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
        self.most, self.symbols = float(going.max()), law.shape[1]
        self.spare = self.most - going
        known = going * _xlogx(law).sum(axis=1) + _xlogx(going) - self.spare
        one = [x[:, None] for x in (going, np.ones_like(going), known, pay)]
        rows = np.concatenate([going[:, None] * law, *one], axis=1)
        with np.errstate(over="ignore"):
            self.rows = {np.dtype(kind): rows.astype(kind) for kind in (np.float32, np.float64)}

    @property
    def work(self) -> float:
        """Multiplications, about, that take as long as one sweep of one belief and round."""
        return _WORK * self.pay.size

    def begin(self, beliefs: Float[np.ndarray, "B m"], left: int) -> Start:
        """A first guess: the control that is best for omega, and its symbols, half made out."""
        own = beliefs * (self.pay == self.pay.max(axis=0))[:, None]
        mass = np.maximum(own.sum(axis=2, keepdims=True), _LEAST)
        near = (1 - _BLUR) * own / mass + _BLUR * beliefs
        column = self.rows[beliefs.dtype][:, : self.symbols]
        heard = self._expected(near @ np.swapaxes(column, 1, 2))
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

        Any guess of p, r and D gives a bound, so that all sweeps but the last, which makes it, are
        in single precision. Where numbers leave the range of float64 nothing is claimed: bound and
        lambda are infinite.
        """
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            return self._bound(beliefs, start, sweeps)

    def _bound(self, beliefs: np.ndarray, start: Start, sweeps: int) -> Informed:
        guess, best, least = start, start, np.full(len(beliefs), np.inf)
        for _ in range(sweeps - 1):
            (bound, _, _), after = self._sweep(beliefs.astype(np.float32), guess)
            better = (now := bound.max(axis=1)) < least
            # As long as sweeps help, the next one does.
            best, least = _chosen(better, after, best), np.where(better, now, least)
            guess = after
        (bound, after, price), found = self._sweep(beliefs, best)
        return Informed(bound, after, price, found)

    def _sweep(self, beliefs: np.ndarray, start: Start) -> tuple[tuple[np.ndarray, ...], Start]:
        """Bound, g and lambda in the precision of the beliefs, and a better start.

        Guesses that have left the range of numbers are as at the start.
        """
        kind = beliefs.dtype
        choice, heard, log_price = (
            np.array(x, kind) for x in (start.choice, start.heard, start.price)
        )
        # r_a may not have more mass than 1: guesses were rounded.
        heard -= np.log(np.exp(heard).sum(axis=3, keepdims=True))
        given = self._given(beliefs)
        g, value = np.zeros_like(beliefs), np.zeros(len(beliefs), kind)
        used, gained = np.zeros_like(log_price), np.zeros_like(log_price)
        for k in reversed(range(log_price.shape[1])):
            d = np.exp(log_price[:, k])
            at = beliefs, g, value, choice[:, k], heard[:, k], d, given
            g, choice[:, k], heard[:, k], used[:, k], gained[:, k] = self._round(*at)
            value = d + kind.type(self.most) * value
        bound, now = self._first(beliefs, g, value, given)
        known = now[:, None] + np.cumsum(gained, axis=1) - gained
        log_price += np.clip(_STEP * (used - known) / (known + _SPARE), -0.5, 0.5)
        lost = ~np.isfinite(bound).all(axis=1)
        bound[lost], value[lost] = np.inf, np.inf
        found = (choice, heard, log_price)
        old = (start.choice, start.heard, start.price)
        for new in found:
            lost |= ~np.isfinite(new.reshape(len(new), -1)).all(axis=1)
        for new, before in zip(found, old, strict=True):
            new[lost] = before[lost]
        return (bound, g, value), Start(*found)

    def _round(
        self,
        q: np.ndarray,
        g: np.ndarray,
        price: np.ndarray,
        choice: np.ndarray,
        heard: np.ndarray,
        d: np.ndarray,
        given: np.ndarray,
    ) -> tuple[np.ndarray, ...]:
        """g_t (B, m), better p (B, A) and log r (B, A, Z), nats that are used and gained (B,).

        x_a / d is linear in the rows of a, and so is all that is asked of the beliefs in which a
        would be shown: two products of matrices a control.
        """
        rows, z = self.rows[q.dtype], self.symbols
        told = np.concatenate([-np.swapaxes(heard, 0, 1), given], axis=2)
        terms = np.concatenate([price[:, None] * told, np.ones_like(told[:, :, :1])], axis=2)
        terms /= d[:, None]
        x = np.empty((len(q), len(rows), q.shape[1]), q.dtype)
        np.matmul(terms, rows, out=np.swapaxes(x, 0, 1))
        x += rows[:, z] * (g / d[:, None])[:, None]
        most = x.max(axis=1)
        x -= most[:, None]
        shown = np.exp(x)
        total = np.einsum("ba,bam->bm", choice, shown)
        shown *= (q / total)[:, None]
        lifted = np.log(total)
        used = np.einsum("bam,bam->ba", x, shown)
        used = (choice * used).sum(axis=1) - (q * lifted).sum(axis=1)
        means = np.matmul(np.swapaxes(shown, 0, 1), np.swapaxes(rows, 1, 2))
        gained = ((means[:, :, :-1] * told).sum(axis=2).T * choice).sum(axis=1)
        mass = means[:, :, z + 1].T
        g = d[:, None] * (most + lifted + np.log(mass.max(axis=1))[:, None])
        slow = (d / (d + q.dtype.type(self.most) * price))[:, None, None]
        law = np.swapaxes(np.log(self._expected(means[:, :, :z])), 0, 1)
        heard = (1 - slow) * heard + slow * law
        heard -= np.log(np.exp(heard).sum(axis=2, keepdims=True))
        return g, np.maximum(choice * mass, _LEAST), heard, used, gained

    def _first(
        self, q: np.ndarray, g: np.ndarray, price: np.ndarray, given: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Bounds of every control now (B, A), and nats that the best one tells (B,)."""
        rows, z = self.rows[q.dtype], self.symbols
        means = q @ np.swapaxes(rows, 1, 2)
        told = np.concatenate([-np.log(self._expected(means[:, :, :z])), given], axis=2)
        gained = (told * means[:, :, :-1]).sum(axis=2).T
        bound = means[:, :, -1].T + (q * g) @ rows[:, z].T + price[:, None] * gained
        return bound, np.take_along_axis(gained, bound.argmax(axis=1)[:, None], axis=1)[:, 0]

    def _given(self, q: np.ndarray) -> np.ndarray:
        """What going_a kappa_a + zeta_a holds of the rows after those of symbols (A, B, 3)."""
        kept = np.maximum(self.going.astype(q.dtype) @ q.T, _LEAST)
        spare = self.spare.astype(q.dtype) @ q.T
        return np.stack([-(1 + np.log(kept)), spare + kept, np.ones_like(kept)], axis=2)

    def _expected(self, law: np.ndarray) -> np.ndarray:
        """Law of the symbol after every control, (A, B, Z), of sums of columns."""
        least = np.finfo(law.dtype).tiny
        law = np.maximum(law, np.maximum(_LEAST * law.sum(axis=2, keepdims=True), least))
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
        price = self.price[: self.count]
        mass = np.maximum(beliefs.sum(axis=1, keepdims=True), np.finfo(float).tiny)
        known = _xlogx(beliefs / mass).sum(axis=1) * mass[:, 0]
        with np.errstate(over="ignore", invalid="ignore"):
            found = self._linear(beliefs) + known[:, None] * price
        if (outside := self.outside[: self.count]).any():
            found[(beliefs > 0) @ outside.T] = np.inf
        return np.where(np.isnan(found), np.inf, found).min(axis=1)

    def _linear(self, beliefs: np.ndarray) -> np.ndarray:
        """(B, forms), in products that one thread does."""
        width = int(np.clip(ALONE // max(beliefs.size, 1), 1, _ROOM))
        width = 1 << (width.bit_length() - 1)
        blocks = self.linear.reshape(-1, width, self.linear.shape[1])
        blocks = np.swapaxes(blocks[: -(-self.count // width)], 1, 2)
        found = np.moveaxis(np.matmul(beliefs, blocks), 0, 1)
        return found.reshape(len(beliefs), -1)[:, : self.count]


def _chosen(these: Bool[np.ndarray, " B"], one: Start, other: Start) -> Start:
    """Of every belief the one or the other."""

    def pick(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.where(these.reshape(-1, *(1,) * (x.ndim - 1)), x, y)

    return jax.tree.map(pick, one, other)


def _xlogx(x: np.ndarray) -> np.ndarray:
    return x * np.log(np.where(x > 0, x, 1.0))
