"""Private signal structures: which signals she may have is part of what an advertiser reports.

An advertiser privately holds one of several signal structures S_i and sees a symbol s_i of it;
her type is the pair (S_i, s_i), as in the sup and inf of phi_i^+ and phi_i^- (paper C, section
5.2). Structures are drawn by a prior that is independent of the taste and of the others', so the
pair is one symbol of the disjoint union of the structures' alphabets, with likelihood

    prior_ik * L_ik(s | omega),

and W, marginal economies, windows and audits treat the structure like any other report. Which
structures two advertisers hold together does not say how their noises correlate: given omega the
parties' signals are independent here. The platform's signal is the same in every structure.
"""

import math
from collections.abc import Sequence
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from dynmech._beside import T
from dynmech._checks import as_floats, chances, distinct
from dynmech._types import Given, Index, Numbers, in_double_precision
from dynmech.errors import (
    InvalidArgument,
    OutsideSupport,
    TooLarge,
    describe,
    shown,
)
from dynmech.market.channels import AbstractSymbols, Alphabet, dependence_of, marginals
from dynmech.market.feedback import (
    AbstractFeedback,
)
from dynmech.market.shown import answers_of_all, told
from dynmech.market.signals import AbstractInitialSignals

_MOST_CELLS = 2e7
_APART = 1e-9


class PrivateStructures(AbstractInitialSignals):
    """Initial signals when each advertiser privately holds one of several structures.

    With one structure it is that structure, correlated or not.

    **Arguments**

    - `structures`: K `AbstractInitialSignals` with the same platform signal; advertiser i who
      holds the k-th has her signal there. Given omega the signals must be independent.
    - `prior`: shape (K,) or (n, K), of holding each, rows summing to 1. Uniform by default.
    - `labels`: K names for reports and witnesses; "structure 0", ... by default.

    **Raises:** `InvalidArgument`, `InvalidProbability`, and `TooLarge` for alphabets whose joint
    law does not fit.

    **References:** paper C (From Conversations to Mechanisms), section 5.2.
    """

    structures: tuple[AbstractInitialSignals, ...]
    prior: Float[Numbers, "..."]
    labels: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        structures: Any,
        prior: Given | None = None,
        labels: Sequence[str] | None = None,
    ):
        call = "PrivateStructures"
        self.structures = _parts(call, structures, AbstractInitialSignals)
        self.prior, self.labels = _prior(call, prior, labels, len(self.structures))

    def bind(self, utilities: np.ndarray, weights: np.ndarray):
        call, n = "PrivateStructures", len(utilities)
        bound = tuple(part.bind(utilities, weights) for part in self.structures)
        _check_products(call, self.prior, bound, n)
        if len(bound) > 1:
            with in_double_precision():
                tables = [_joint(part, np.asarray(utilities, float)) for part in bound]
            if any(isinstance(table, Tracer) for table in tables):
                return eqx.tree_at(lambda s: s.structures, self, bound)
            tables = [np.asarray(table) for table in tables]
            for label, table in zip(self.labels, tables, strict=True):
                _refuse_correlation(call, label, dependence_of(table))
            first = marginals(tables[0])[0]
            for label, table in zip(self.labels, tables, strict=True):
                if np.abs(marginals(table)[0] - first).max() > _APART:
                    must = "give the platform the same signal in every structure"
                    got = f"another one in {label!r}"
                    raise InvalidArgument(describe(f"{call}(structures=...)", must, got))
        return eqx.tree_at(lambda s: s.structures, self, bound)

    def alphabet(self, products: int):
        return _union([part.alphabet(products) for part in self.structures])

    def likelihood(self, utilities: Float[Numbers, "n m"], symbols: Int[np.ndarray, "B n1"]):
        if len(self.structures) == 1:
            return self.structures[0].likelihood(utilities, symbols)
        laws = _laws([_joint(part, utilities) for part in self.structures], self.prior)
        total = jnp.ones((len(symbols), utilities.shape[1]), laws[0].dtype)
        for party, law in enumerate(laws):
            total = total * law[:, symbols[:, party]].T
        return total

    def draw(self, rng: np.random.Generator, utilities: Float[np.ndarray, "n m"], omega: int):
        drawn = np.stack([part.draw(rng, utilities, omega) for part in self.structures])
        chance = np.broadcast_to(self.prior, (len(utilities), len(drawn)))
        held = np.array([rng.choice(len(drawn), p=row / row.sum()) for row in chance])
        starts = _starts([part.alphabet(len(utilities)) for part in self.structures])
        advertiser = np.arange(1, len(utilities) + 1)
        own = starts[held, advertiser] + drawn[held, advertiser]
        return np.concatenate([drawn[0, :1], own])

    def describe(self, symbols: Sequence[int]) -> tuple[Any, ...]:
        """Say which structure each advertiser's symbol is of.

        **Arguments:** `symbols` (1+n,), platform first.

        **Returns:** the platform's symbol, then (label, symbol within the structure) of each.

        ```python
        >>> from dynmech import GaussianSignals
        >>> two = PrivateStructures([GaussianSignals(1.0, sd) for sd in (0.5, 5.0)])
        >>> two.describe((2, 1, 5))
        (2, ('structure 0', 1), ('structure 1', 2))

        ```
        """
        alphabets = [part.alphabet(len(symbols) - 1) for part in self.structures]
        return _describe(self.labels, alphabets, symbols)

    def encode(self, symbols: Sequence[Any]) -> tuple[Any, ...]:
        """Invert `describe`: pairs (label or index, symbol) to symbols; integers are kept."""
        alphabets = [part.alphabet(len(symbols) - 1) for part in self.structures]
        return _encode("PrivateStructures", self.labels, alphabets, symbols)


class PrivateFeedback(AbstractFeedback):
    """Feedback when each advertiser's signal is privately of one of several structures.

    The structure is drawn afresh after every query and known with the signal; the platform's
    signal is that of the first. Only each structure's law of every single party is used: given
    omega their signals are independent, and correlation is refused where it can be seen.

    **Arguments**

    - `structures`: K `AbstractFeedback` with the same platform alphabet.
    - `prior`, `labels`: as in `PrivateStructures`.

    **Raises:** `InvalidArgument`, `InvalidProbability`.
    """

    structures: tuple[AbstractFeedback, ...]
    prior: Float[Numbers, "..."]
    labels: tuple[str, ...] = eqx.field(static=True)

    def __init__(
        self,
        structures: Any,
        prior: Given | None = None,
        labels: Sequence[str] | None = None,
    ):
        call = "PrivateFeedback"
        self.structures = _parts(call, structures, AbstractFeedback)
        self.prior, self.labels = _prior(call, prior, labels, len(self.structures))

    def check(self, products: int, points: int, horizon: int | float):
        for part in self.structures:
            part.check(products, points, horizon)

    def bind(self, utilities: np.ndarray, weights: np.ndarray):
        call, n = "PrivateFeedback", len(utilities)
        bound = tuple(part.bind(utilities, weights) for part in self.structures)
        _check_products(call, self.prior, bound, n)
        for label, part in zip(self.labels, bound, strict=True):
            if len(bound) == 1:
                break
            _refuse_correlation(call, label, part.correlated())
        return eqx.tree_at(lambda s: s.structures, self, bound)

    def alphabet(self, products: int):
        return _union([part.alphabet(products) for part in self.structures])

    def periodic(self):
        return any(part.periodic() for part in self.structures)

    def reads_history(self):
        return any(part.reads_history() for part in self.structures)

    def readers(self, shown: Int[np.ndarray, "C K"]):
        # With several structures everybody hears at least which one is hers.
        return self.structures[0].readers(shown) if len(self.structures) == 1 else None

    def read(
        self, memory: Numbers | None, shown: Index, period: Index, utilities: Float[Numbers, "n m"]
    ):
        only = self.structures[0]
        return only.read(memory, told(only.read, shown), period, utilities)

    def likelihood(
        self, memory: Numbers | None, shown: Index, period: Index, utilities: Float[Numbers, "n m"]
    ):
        given = memory, shown, period, utilities
        if len(self.structures) == 1:
            return answers_of_all(self.structures[0], *given)
        n, points = utilities.shape
        tables = [
            answers_of_all(part, *given).reshape(points, *part.alphabet(n))
            for part in self.structures
        ]
        total = jnp.ones((points, 1))
        for law in _laws(tables, self.prior):
            total = (total[:, :, None] * law[:, None, :]).reshape(points, -1)
        return total

    def describe(self, symbols: Sequence[int]) -> tuple[Any, ...]:
        """Say which structure each advertiser's symbol is of, as `PrivateStructures.describe`."""
        alphabets = [part.alphabet(len(symbols) - 1) for part in self.structures]
        return _describe(self.labels, alphabets, symbols)

    def encode(self, symbols: Sequence[Any]) -> tuple[Any, ...]:
        """Invert `describe`: pairs (label or index, symbol) to symbols; integers are kept."""
        alphabets = [part.alphabet(len(symbols) - 1) for part in self.structures]
        return _encode("PrivateFeedback", self.labels, alphabets, symbols)


def _parts(call: str, structures: Any, kind: type[T]) -> tuple[T, ...]:
    parts = tuple(structures) if isinstance(structures, Sequence) else (structures,)
    if not parts or not all(isinstance(part, kind) for part in parts):
        must = f"be a list of {kind.__name__}"
        raise InvalidArgument(describe(f"{call}(structures=...)", must, shown(structures)))
    return parts


def _prior(call: str, prior: Given | None, labels: Sequence[str] | None, count: int):
    array = np.full(count, 1 / count) if prior is None else prior
    array = as_floats(array, f"{call}(prior=...)")
    if array.ndim not in (1, 2) or array.shape[-1] != count:
        must = f"have shape ({count},) or (n, {count}), one for each structure"
        raise InvalidArgument(describe(f"{call}(prior=...)", must, f"shape {array.shape}"))
    array = chances(f"{call}(prior=...)", array)
    names = [f"structure {k}" for k in range(count)] if labels is None else labels
    return array, distinct(f"{call}(labels=...)", names, count)


def _check_products(call: str, prior: Numbers, parts: Sequence[AbstractSymbols], n: int) -> None:
    if prior.ndim == 2 and len(prior) != n:
        must = f"have a row for each of the {n} advertisers"
        raise InvalidArgument(describe(f"{call}(prior=...)", must, f"shape {prior.shape}"))
    sizes = {part.alphabet(n)[0] for part in parts}
    if len(sizes) > 1:
        must = "give the platform the same signal in every structure"
        got = f"platform alphabets of {sorted(sizes)}"
        raise InvalidArgument(describe(f"{call}(structures=...)", must, got))


def _joint(part: AbstractInitialSignals, utilities: Numbers) -> Float[Array, "m ..."]:
    """Joint law of a structure as a table (m, Zp, Z1, ..., Zn)."""
    n, points = utilities.shape
    alphabet = tuple(part.alphabet(n))
    if math.prod(alphabet) * points > _MOST_CELLS:
        must = f"have a joint law of at most {_MOST_CELLS:.0e} numbers"
        got = f"{alphabet} symbols x {points} tastes"
        do = "use fewer symbols or advertisers"
        raise TooLarge(describe("PrivateStructures(structures=...)", must, got, do))
    symbols = np.stack([x.ravel() for x in np.indices(alphabet)], axis=1)
    law = part.likelihood(jnp.asarray(utilities), symbols)
    return jnp.asarray(law).T.reshape(points, *alphabet)


def _laws(tables: Sequence[Float[Numbers, "m ..."]], prior: Numbers) -> list[Numbers]:
    """Law of every party's symbol of the disjoint union, shapes (m, Z)."""
    each = [marginals(table) for table in tables]
    chance = jnp.broadcast_to(jnp.asarray(prior), (len(each[0]) - 1, len(tables)))
    advertisers = [
        jnp.concatenate([laws[i + 1] * p for laws, p in zip(each, row, strict=True)], axis=1)
        for i, row in enumerate(chance)
    ]
    return [each[0][0], *advertisers]


def _refuse_correlation(call: str, label: str, got: str | None) -> None:
    if got is None:
        return
    must = "have signals that are independent across parties given omega"
    do = "set correlation=0, or describe the joint law yourself with JointSignals"
    raise InvalidArgument(describe(f"{call}(structures=...)", must, f"{label!r}: {got}", do))


def _union(alphabets: Sequence[Alphabet]) -> Alphabet:
    return (alphabets[0][0], *(sum(sizes) for sizes in zip(*(a[1:] for a in alphabets))))


def _starts(alphabets: Sequence[Alphabet]) -> np.ndarray:
    """First symbol of every structure in the union, per party; shape (K, 1+n)."""
    sizes = np.array(alphabets)
    starts = np.cumsum(sizes, axis=0) - sizes
    starts[:, 0] = 0
    return starts


def _describe(
    labels: Sequence[str], alphabets: Sequence[Alphabet], symbols: Sequence[Any]
) -> tuple[Any, ...]:
    starts = _starts(alphabets)
    found: list[Any] = [int(symbols[0])]
    for party, symbol in enumerate(symbols[1:], start=1):
        k = int((starts[:, party] <= symbol).sum()) - 1
        found.append((labels[k], int(symbol - starts[k, party])))
    return tuple(found)


def _encode(
    call: str, labels: Sequence[str], alphabets: Sequence[Alphabet], symbols: Sequence[Any]
) -> tuple[Any, ...]:
    starts, found = _starts(alphabets), []
    for party, given in enumerate(symbols):
        if not isinstance(given, tuple):
            found.append(given)
            continue
        known = {name: k for k, name in enumerate(labels)} | {k: k for k in range(len(labels))}
        pair = given if len(given) == 2 else (None, -1)
        if party == 0 or pair[0] not in known:
            must = f"be integers, or for advertisers pairs (one of {labels}, symbol)"
            raise OutsideSupport(describe(f"{call}: signals=...", must, given))
        size = alphabets[known[pair[0]]][party]
        if pair[1] not in range(size):
            must = f"have a symbol below {size} in structure {pair[0]!r}"
            raise OutsideSupport(describe(f"{call}: signals=...", must, given))
        found.append(int(starts[known[pair[0]], party] + pair[1]))
    return tuple(found)
