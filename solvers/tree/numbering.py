"""Which beliefs of a round are one: numbers for the multisets of columns that they are made of.

Where no columns are related, and there are few beside the ways out of a node, a multiset of n
columns is numbered by its rank among all of its size,

    rank = sum_{i=1}^{n-1} C(x_i + n - i - 1, n - i),    x_i: how many columns are i or later,

the combinatorial number system on the falling x (Knuth, TAOCP 4A, 7.2.1.3). One more column c adds
sum_{i<=c} C(x_i + n - i - 1, n - i - 1): one table of sums numbers all that follows a round, and as
most ranks occur nothing is sorted. Elsewhere each column has words that add up (`Sums`).
"""

import math

import numpy as np
from jaxtyping import Bool, Int

from solvers.problem import Structure

_DENSE = 4  # numbers for one that occurs, at most, for which all are marked instead of sorted
_RUN = 1 << 20  # numbers at once: more are new pages each time
_WIDE = 2  # columns for one way out of a node, at most, where they are ranked
Indices = Int[np.ndarray, " _k"]
Words = Int[np.ndarray, "_L _w"]


class Sums:
    """Words of every row, (L, w): the sums of those of its columns; `Structure.digits` holds.

    `rate`: ways that are merged a second, roughly.
    """

    rate = 3e6

    def __init__(self, structure: Structure):
        self.digit, self.dead = _digits(structure), structure.dead
        self.words = np.zeros((1, self.digit.shape[1]), np.int64)

    def merge(self, source: Indices, picked: Indices) -> tuple[Indices, Indices]:
        """Go on to the rows after column `picked` at row `source`.

        **Returns:** the new row of every way, and of every new row the first way that leads there.
        """
        grown = [one[source] + self.digit[:, k][picked] for k, one in enumerate(self.words.T)]
        if self.dead >= 0:
            nothing = np.iinfo(np.int64).min
            none = (picked == self.dead) | (self.words[source, 0] == nothing)
            for word in grown:
                word[none] = nothing
        order = np.argsort(grown[0])
        new = _unlike(grown[0][order])
        for word in grown[1:]:
            other = _unlike(word[order])
            if (other & ~new).any():  # alike in the first word alone
                order = np.lexsort(grown[::-1])
                other, new = _unlike(word[order]), _unlike(grown[0][order])
            new |= other
        starts = np.flatnonzero(new)
        first = np.minimum.reduceat(order, starts) if len(order) else order
        rows = np.empty(len(order), np.int64)
        rows[order] = np.cumsum(new) - 1
        self.words = np.stack([word[first] for word in grown], axis=1)
        return rows, first


class Ranks:
    """The rank of every row's multiset, (L, 1), among those of its size; see the module."""

    rate = 1e7

    def __init__(self, structure: Structure):
        columns, dead = np.arange(structure.column_count), structure.dead
        self.live = (
            columns if dead < 0 else np.where(columns == dead, -1, columns - (columns > dead))
        )
        self.count = structure.column_count - (dead >= 0)
        first = np.arange(1, max(self.count, 1))
        steps = [[math.comb(x + self.count - i - 1, x) for i in first.tolist()]
                 for x in range(structure.horizon)]  # fmt: skip
        self.steps = np.array(steps, np.int64).reshape(structure.horizon, len(first))
        self.later = np.zeros((1, len(first)), np.min_scalar_type(structure.horizon))
        self.last: tuple[Indices, Indices] | None = None
        self.words, self.size = np.zeros((1, 1), np.int64), 0

    def merge(self, source: Indices, picked: Indices) -> tuple[Indices, Indices]:
        """As `Sums.merge`."""
        before, most = _multisets(self.count, self.size), _multisets(self.count, self.size + 1)
        if self.last is not None:
            row, column = self.last
            self.later = self.later[row]
            self.later += self.live[column][:, None] > np.arange(self.later.shape[1])
        table = np.empty((len(self.words), self.count + 1), whole_numbers(most))
        for low in range(0, len(table), _RUN // table.shape[1] + 1):
            some, words = self.later[low : low + _RUN // table.shape[1] + 1], self.words
            words = words[low : low + len(some)]
            part = np.concatenate([words, self.steps[some, np.arange(some.shape[1])]], axis=1)
            np.cumsum(part, axis=1, out=part)
            part[words[:, 0] == before] = most  # what the dead column leads to is one
            table[low : low + len(some), :-1] = part
        table[:, -1] = most
        slot = np.where(self.live < 0, self.count, self.live)
        codes = np.empty(len(source), table.dtype)
        for low in range(0, len(source), _RUN):
            run = slice(low, low + _RUN)
            codes[run] = table[source[run], slot[picked[run]]]
        found, rows = numbered(codes)
        first = _first_of(rows, len(found))
        self.words, self.size = found[:, None].astype(np.int64), self.size + 1
        self.last = source[first], picked[first]
        return rows, first


def numbering(structure: Structure, near: bool = False) -> Sums | Ranks:
    """How the beliefs of a tree's rounds are told apart; `near`: rows are merged further."""
    ways, most = structure.controls * structure.symbols, structure.column_count
    few = most <= _WIDE * ways and _multisets(most, structure.horizon) < 2**62
    return Ranks(structure) if few and structure.digits is None and not near else Sums(structure)


def numbered(codes: Int[np.ndarray, " n"]) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " n"]]:
    """The distinct codes in order, and of each its place; not sorted where most numbers occur."""
    most = int(codes.max(initial=-1)) + 1
    if most > _DENSE * len(codes):
        return np.unique(codes, return_inverse=True)
    there = np.zeros(most, bool)
    there[codes] = True
    found = np.flatnonzero(there)
    place = np.cumsum(there, dtype=whole_numbers(len(found)))
    place -= 1
    return found, place[codes]


def whole_numbers(most: int) -> type[np.signedinteger]:
    """The type that numbers up to `most` are kept in."""
    return np.int32 if most < 2**31 - 1 else np.int64


def _first_of(index: Indices, count: int) -> Indices:
    """Where each of `count` numbers comes first."""
    first = np.empty(count, np.int64)
    for low in reversed(range(0, len(index), _RUN)):
        part = index[low : low + _RUN]
        first[part[::-1]] = np.arange(
            low + len(part) - 1, low - 1, -1
        )  # the last one written stays
    return first


def spans(digits: Int[np.ndarray, "C g"]) -> Int[np.ndarray, " g"]:
    """How far apart the digits of two columns can be."""
    return digits.max(axis=0) - digits.min(axis=0)


def _multisets(columns: int, size: int) -> int:
    return math.comb(columns + size - 1, size) if columns else int(size == 0)


def _digits(structure: Structure) -> Int[np.ndarray, "C w"]:
    """Words of each column such that two multisets have equal sums iff their digits do.

    Where the digits of any multiset fit into one word without carry, they are packed. Otherwise
    each column gets two random words: sums modulo 2**64 of unequal multisets then agree with
    probability 2**-126.
    """
    digits, count = structure.digits, max(structure.column_count, 1)
    widths = np.ones(count) if digits is None else spans(digits)
    bases = [int(width) * structure.horizon + 1 for width in widths]
    if sum(map(math.log2, bases)) < 62:
        radix = np.array([math.prod(bases[:g]) for g in range(len(bases))], np.int64)
        digits = np.eye(count, dtype=np.int64) if digits is None else digits
        return ((digits - digits.min(axis=0)) @ radix)[:, None]
    kinds = count if digits is None else digits.shape[1]
    odd = np.random.default_rng(kinds).integers(-(2**62), 2**62, (kinds, 2)) * 2 + 1
    return odd if digits is None else digits @ odd


def _unlike(word: Indices) -> Bool[np.ndarray, " n"]:
    """Which are not as the one before."""
    new = np.ones(len(word), bool)
    np.not_equal(word[1:], word[:-1], out=new[1:])
    return new
