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
Choices are improved several times for every x_a, as that is cheap beside x_a and what it tells.
Single precision but for the first round: g_t is lifted by what that can be off by besides, so that
the bound holds for the data given.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from solvers.devices import spread
from solvers.problem import Numbers
from solvers.programs import as_program
from solvers.told.potentials import xlogx

_LEAST = 1e-12  # of a probability
_WORK = 14.0  # of a sweep, for each control and taste: multiplications that take as long
_SPARE = 0.15  # nats: below it, steps of multipliers are damped
_STEP = 0.2  # of a multiplier, in logs, for a share too much
_CHOICES, _FASTER = 8, 1.7  # improvements of choices for every x_a, and the power of each
_START, _FALL = 0.15, 0.1  # D_t to begin with, of the largest pay; its fall in a round, in logs
_BLUR = 0.3  # of the guess of what was heard: as before anything was
_TOGETHER = 4  # beliefs bounded at once, always as many, so that one program does
_SIDES = 2  # such programs side by side
_ROUNDOFF = float(np.finfo(np.float32).eps) / 2
_OPERATIONS = 64  # that an exponential, a logarithm and what they are taken of stand for


class Start(NamedTuple):
    """Where to begin: for B beliefs, choices p, log r, log D of the L rounds after the first."""

    choice: Float[Numbers, "B L A"]
    heard: Float[Numbers, "B L A Z"]
    price: Float[Numbers, "B L"]

    def rows(self, rows: slice) -> "Start":
        """Of some beliefs."""
        return Start(*(x[rows] for x in self))

    def later(self, rounds: int) -> "Start":
        """For beliefs so many rounds later: what is known then is counted from there on."""
        first, kept = self.price[:, :1], self.price[:, : self.price.shape[1] - rounds]
        price = np.concatenate([np.repeat(first, rounds, axis=1), kept], axis=1)
        return Start(self.choice, self.heard, price)


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
        # In units of the largest pay, so that single precision holds what matters.
        self.scale = max(float(np.abs(pay).max()), np.finfo(float).tiny)
        self.pay, self.going = pay / self.scale, going
        self.most, self.symbols = float(going.max()), law.shape[1]
        self.spare = self.most - going
        known = going * xlogx(law).sum(axis=1) + xlogx(going) - self.spare
        one = [x[:, None] for x in (going, np.ones_like(going), known, self.pay)]
        self.rows = np.concatenate([going[:, None] * law, *one], axis=1)
        rows = self.rows.astype(np.float32)
        size = np.abs(rows).max(axis=2)
        self.compiled = False
        self.laws = jax.device_put(_Laws(rows, size, np.float32(self.most)))

    @property
    def work(self) -> float:
        """Multiplications, about, that take as long as one sweep of one belief and round."""
        return _WORK * self.pay.size

    def begin(self, beliefs: Float[np.ndarray, "B m"], left: int) -> Start:
        """A first guess: the control that is best for omega, and its symbols, half made out."""
        own = beliefs * (self.pay == self.pay.max(axis=0))[:, None]
        mass = np.maximum(own.sum(axis=2, keepdims=True), _LEAST)
        near = (1 - _BLUR) * own / mass + _BLUR * beliefs
        heard = _expected(near @ np.swapaxes(self.rows[:, : self.symbols], 1, 2))
        choice = mass[:, :, 0].T + 1e-3
        price = np.log(_START) - _FALL * np.arange(left - 1)
        start = (
            np.repeat((choice / choice.sum(axis=1, keepdims=True))[:, None], left - 1, axis=1),
            np.repeat(np.log(np.swapaxes(heard, 0, 1))[:, None], left - 1, axis=1),
            np.tile(price, (len(beliefs), 1)),
        )
        return Start(*(x.astype(np.float32) for x in start))

    def bound(
        self,
        beliefs: Float[np.ndarray, "B m"],
        start: Start,
        sweeps: int,
        gone: Int[np.ndarray, " B"] | None = None,
    ) -> Informed:
        """Bound every control at beliefs of mass 1.

        Any guess of p, r and D gives a bound; the best of those met is returned. Where numbers
        leave the range of single precision nothing is claimed: bound and lambda are infinite.

        **Arguments:** `gone` (B,): rounds of `start` gone by; none by default.
        """
        gone = np.zeros(len(beliefs), int) if gone is None else gone

        def some(rows: slice) -> Informed:
            return self._bound(beliefs[rows], start.rows(rows), sweeps, gone[rows])

        # A program of so little uses one thread well, and two badly.
        runs = [slice(k, k + _TOGETHER) for k in range(0, len(beliefs), _TOGETHER)]
        parts = spread(None, some, runs, together=_SIDES, compiled=self.compiled)
        self.compiled = True
        return parts[0] if len(parts) == 1 else jax.tree.map(_joined, *parts)

    def _bound(self, beliefs: np.ndarray, start: Start, sweeps: int, gone: np.ndarray) -> Informed:
        given = self._given(beliefs)
        # Rounded up, as exponentials are summed over it.
        up = np.nextafter(beliefs.astype(np.float32), np.float32(np.inf))
        q = _filled(np.where(beliefs > 0, up, np.float32(0)))
        known, past = _filled(given.astype(np.float32)), _filled(gone.astype(np.int32))
        guess = Start(*(_filled(np.asarray(x, np.float32)) for x in start))
        found = _sweeps(self.laws, q, known, past, guess, np.asarray(sweeps, np.int32))
        g, value, *after = (
            np.array(x)[: len(beliefs)] for x in (found.after, found.price, *found.start)
        )
        g, value = g.astype(float), value.astype(float)
        with np.errstate(over="ignore", invalid="ignore"):
            bound = self._first(beliefs, g, value, given)
            lost = ~np.isfinite(bound).all(axis=1)
            bound[lost], value[lost] = np.inf, np.inf
            bound, g, value = (self.scale * x for x in (bound, g, value))
        return Informed(bound, g, value, Start(*after))

    def _first(
        self, q: np.ndarray, g: np.ndarray, price: np.ndarray, given: np.ndarray
    ) -> np.ndarray:
        """Bounds of every control now (B, A)."""
        rows, z = self.rows, self.symbols
        means = q @ np.swapaxes(rows, 1, 2)
        told = np.concatenate([-np.log(_expected(means[:, :, :z])), given.swapaxes(0, 1)], axis=2)
        gained = (told * means[:, :, :-1]).sum(axis=2).T
        return means[:, :, -1].T + (q * g) @ rows[:, z].T + price[:, None] * gained

    def _given(self, q: np.ndarray) -> np.ndarray:
        """What going_a kappa_a + zeta_a holds of the rows after those of symbols (B, A, 3)."""
        kept = np.maximum(q @ self.going.T, _LEAST)
        return np.stack([-(1 + np.log(kept)), q @ self.spare.T + kept, np.ones_like(kept)], axis=2)


class _Laws(NamedTuple):
    """Rows that x_a is linear in (A, K, m), the largest of each (A, K), and c."""

    rows: Float[np.ndarray, "A K m"]
    size: Float[np.ndarray, "A K"]
    most: np.float32


class _Found(NamedTuple):
    """The best met: the bound (B,), g and lambda of the round after the first, a better start."""

    bound: Float[Array, " B"]
    after: Float[Array, "B m"]
    price: Float[Array, " B"]
    start: Start


@as_program
def _sweeps(
    laws: _Laws,
    q: Float[Numbers, "B m"],
    given: Float[Numbers, "B A 3"],
    gone: Int[Numbers, " B"],
    start: Start,
    sweeps: Int[Numbers, ""],
) -> _Found:
    """The best of so many sweeps, each begun where the one before ended."""
    at = jnp.asarray(q), jnp.asarray(given), jnp.asarray(gone)
    none = jnp.full_like(at[0], jnp.inf)
    best = _Found(none[:, 0], none, none[:, 0], start)

    def improve(_: Array, state: tuple[_Found, Start]) -> tuple[_Found, Start]:
        best, guess = state
        found = _sweep(laws, *at, guess)
        better = found.bound < best.bound
        return jax.tree.map(lambda x, y: _picked(better, x, y), found, best), found.start

    return jax.lax.fori_loop(0, jnp.asarray(sweeps), improve, (best, start))[0]


def _sweep(laws: _Laws, q: Array, given: Array, gone: Array, start: Start) -> _Found:
    """Round by round, from the last; guesses that have left the range of numbers stay."""
    choice, heard, log_price = (jnp.asarray(x) for x in start)
    rounds, symbols = log_price.shape[1], heard.shape[3]
    # r_a may not have more mass than 1: guesses were rounded, and are once more.
    heard -= jax.nn.logsumexp(heard, axis=3, keepdims=True) + (symbols + _OPERATIONS) * _ROUNDOFF
    begun = Start(choice, heard, log_price)

    def before(i: Array, state: tuple[Array, ...]) -> tuple[Array, ...]:
        k, (g, value, *found) = rounds - 1 - i, state
        d = jnp.exp(log_price[:, k])
        now, *new = _round(laws, q, g, value, choice[:, k], heard[:, k], d, given)
        some = gone <= k
        new = (x.at[:, k].set(_picked(some, y, x[:, k])) for x, y in zip(found, new, strict=True))
        later = (d + laws.most * value) * (1 + 8 * _ROUNDOFF)
        return _picked(some, now, g), _picked(some, later, value), *new

    nothing, none = jnp.zeros_like(log_price), jnp.zeros_like(q)
    state = none, none[:, 0], choice, heard, nothing, nothing
    last = rounds - gone.min()
    g, value, choice, heard, used, gained = jax.lax.fori_loop(0, last, before, state)
    bound, told = _now(laws, q, g, value, given, symbols)
    known = told[:, None] + jnp.cumsum(gained, axis=1) - gained
    step = jnp.clip(_STEP * (used - known) / (known + _SPARE), -0.5, 0.5)
    found = Start(choice, heard, log_price + step)
    well = jnp.isfinite(bound)
    for new in found:
        well &= jnp.isfinite(new).reshape(len(new), -1).all(axis=1)
    found = jax.tree.map(lambda x, y: _picked(well, x, y), found, begun)
    return _Found(jnp.where(jnp.isfinite(bound), bound, jnp.inf), g, value, found)


def _round(
    laws: _Laws,
    q: Array,
    g: Array,
    price: Array,
    choice: Array,
    heard: Array,
    d: Array,
    given: Array,
) -> tuple[Array, ...]:
    """g_t (B, m), better p (B, A) and log r (B, A, Z), nats that are used and gained (B,).

    x_a / d is linear in the rows of a, and so is all that is asked of the beliefs in which a
    would be shown.
    """
    rows, z = laws.rows, heard.shape[2]
    told = jnp.concatenate([-heard, given], axis=2)
    terms = jnp.concatenate([price[:, None, None] * told, jnp.ones_like(told[:, :, :1])], axis=2)
    terms /= d[:, None, None]
    x = (g / d[:, None])[:, None] * rows[:, z]
    for k in range(rows.shape[1]):
        x += terms[:, :, k, None] * rows[:, k]
    most = x.max(axis=1)
    x -= most[:, None]
    likely = jnp.exp(x)

    def better(_: Array, choice: Array) -> Array:
        mass = _mean(likely, q / _mixed(choice, likely))
        choice = jnp.maximum(choice * mass**_FASTER, _LEAST)
        return choice / choice.sum(axis=1, keepdims=True)

    choice = jax.lax.fori_loop(0, _CHOICES, better, choice)
    total = _mixed(choice, likely)
    shown, lifted = likely * (q / total)[:, None], jnp.log(total)
    used = (choice * (x * shown).sum(axis=2)).sum(axis=1) - (q * lifted).sum(axis=1)
    means = jnp.einsum("bam,akm->bak", shown, rows)
    gained = ((means[:, :, :-1] * told).sum(axis=2) * choice).sum(axis=1)
    mass = means[:, :, z + 1]
    # What x_a / d and g / d can be off by, and the largest sum of exponentials; laws add up to 1.
    size = jnp.abs(terms) * laws.size
    heard_size = jnp.abs(terms[:, :, :z]).max(axis=2) * laws.most
    off = (heard_size + size[:, :, z:].sum(axis=2)).max(axis=1) + jnp.abs(g).max(axis=1) / d
    off = _ROUNDOFF * ((rows.shape[1] + 16) * off + q.shape[1] + _OPERATIONS)
    g = d[:, None] * (most + lifted + (jnp.log(mass.max(axis=1)) + off)[:, None])
    slow = (d / (d + laws.most * price))[:, None, None]
    law = jnp.maximum(means[:, :, :z], _LEAST * means[:, :, :z].sum(axis=2, keepdims=True))
    law = jnp.maximum(law, jnp.finfo(law.dtype).tiny)
    law = jnp.log(law / law.sum(axis=2, keepdims=True))
    return g, jnp.maximum(choice * mass, _LEAST), (1 - slow) * heard + slow * law, used, gained


def _now(
    laws: _Laws, q: Array, g: Array, price: Array, given: Array, z: int
) -> tuple[Array, Array]:
    """The largest bound and the nats that its control tells (B,), about."""
    means = jnp.einsum("bm,akm->bak", q, laws.rows)
    law = jnp.maximum(means[:, :, :z], jnp.finfo(q.dtype).tiny)
    told = jnp.concatenate([-jnp.log(law / law.sum(axis=2, keepdims=True)), given], axis=2)
    gained = (told * means[:, :, :-1]).sum(axis=2)
    later = jnp.einsum("bm,am->ba", q * g, laws.rows[:, z])
    bound = means[:, :, -1] + later + price[:, None] * gained
    best = bound.argmax(axis=1)[:, None]
    return bound.max(axis=1), jnp.take_along_axis(gained, best, axis=1)[:, 0]


def _mixed(choice: Float[Array, "B A"], x: Float[Array, "B A m"]) -> Float[Array, "B m"]:
    return jnp.einsum("ba,bam->bm", choice, x)


def _mean(x: Float[Array, "B A m"], weight: Float[Array, "B m"]) -> Float[Array, "B A"]:
    return jnp.einsum("bam,bm->ba", x, weight)


def _picked(these: Bool[Array, " B"], one: Array, other: Array) -> Array:
    """Of every belief the one or the other."""
    return jnp.where(these.reshape(-1, *(1,) * (one.ndim - 1)), one, other)


def _filled(x: np.ndarray) -> np.ndarray:
    """As many rows as are worked on at once: the last one again."""
    more = _TOGETHER - len(x)
    return np.concatenate([x, np.repeat(x[-1:], more, axis=0)]) if more else x


def _joined(*parts: np.ndarray) -> np.ndarray:
    return np.concatenate(parts)


def _expected(law: Float[np.ndarray, "A B Z"]) -> Float[np.ndarray, "A B Z"]:
    """Law of the symbol after every control, of sums of columns."""
    least = np.finfo(law.dtype).tiny
    law = np.maximum(law, np.maximum(_LEAST * law.sum(axis=2, keepdims=True), least))
    return law / law.sum(axis=2, keepdims=True)
