"""Numbers of nodes by their keys, a memory class and two words, in the order they are met in."""

import numpy as np
from jaxtyping import Int

from solvers.search.arrays import Growing, Indices, firsts

_MANY = 1 << 14  # nodes that a dictionary numbers: of few at once it is quicker than a table
_ENTRY = 250  # bytes that a dictionary takes for each
_EMPTY = -1
_ODD = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xD6E8FEB86659FD93], np.uint64)


class Numbers:
    """What number each node has: where there are many, a table with linear probing.

    Row h of `slot`, at most half of them in use, has the number of a node whose key hashes to h, or
    to a row before with none empty between; keys themselves are those of `nodes`.
    """

    def __init__(self, nodes: Growing):
        self.nodes = nodes
        self.known: dict[tuple[int, int, int], int] = {}
        self.slot = np.zeros(0, np.int32)
        self.renumber()

    @property
    def bytes(self) -> int:
        return _ENTRY * len(self.known) + self.slot.nbytes

    def renumber(self) -> None:
        """Number all nodes in their order."""
        self.known, self.slot = {}, np.zeros(0, np.int32)
        count = self.nodes.count
        memory, words = self.nodes["memory"][:count], self.nodes["words"][:count]
        if count > _MANY:
            self._room(0)
        else:
            keys = zip(memory.tolist(), *words.T.tolist(), strict=True)
            self.known = {key: k for k, key in enumerate(keys)}

    def of(
        self, memory: Indices, words: Int[np.ndarray, "k two"]
    ) -> tuple[Int[np.ndarray, " k"], Int[np.ndarray, " n"]]:
        """Numbers of keys, those not known yet from `nodes.count` on; where these come first."""
        count = self.nodes.count
        if count > _MANY:
            return self._looked_up(memory, words)
        number = self.known
        keys = zip(memory.tolist(), *words.T.tolist(), strict=True)
        index = np.array([number.setdefault(key, len(number)) for key in keys], np.int64)
        if len(number) == count:
            return index, index[:0]
        # New numbers count on: each is larger than all before it where it comes first.
        most = np.maximum.accumulate(np.maximum(index, count - 1))
        first = firsts(most)
        first[0] = index[0] >= count
        return index, np.flatnonzero(first)

    def _looked_up(self, memory: Indices, words: Int[np.ndarray, "k two"]):
        """The same in the table."""
        self._room(len(memory))
        slot, last = self.slot, len(self.slot) - 1
        at = _hashed(memory, words) & last
        index = np.full(len(at), _EMPTY, np.int64)
        active = np.arange(len(at))
        old = self.nodes["memory"], self.nodes["words"]
        while len(active):
            number = slot[at[active]]
            there = number != _EMPTY
            active, number = active[there], number[there]
            same = _alike(*old, number, memory, words, active)
            index[active[same]] = number[same]
            active = active[~same]
            at[active] = (at[active] + 1) & last
        new = np.flatnonzero(index == _EMPTY)
        if not len(new):
            return index, new
        owner, active = np.zeros(len(at), np.int64), new
        while len(active):
            claim = active[slot[at[active]] == _EMPTY][::-1]
            slot[at[claim]] = _EMPTY - 1 - claim  # the first of those that claim a row stays there
            held = _EMPTY - 1 - slot[at[active]].astype(np.int64)
            same = held >= 0
            same[same] = _alike(memory, words, held[same], memory, words, active[same])
            owner[active[same]] = held[same]
            active = active[~same]
            at[active] = (at[active] + 1) & last
        first = new[owner[new] == new]
        index[first] = self.nodes.count + np.arange(len(first))
        slot[at[first]] = index[first]
        index[new] = index[owner[new]]
        return index, first

    def _room(self, more: int) -> None:
        """Make room for so many more, all that are known entered anew where there is none."""
        count = self.nodes.count
        if len(self.slot) >= 2 * (count + more):
            return
        self.known = {}
        self.slot = slot = np.full(1 << (2 * (count + more)).bit_length(), _EMPTY, np.int32)
        at = _hashed(self.nodes["memory"][:count], self.nodes["words"][:count]) & (len(slot) - 1)
        active = np.arange(count)
        while len(active):
            free = active[slot[at[active]] == _EMPTY]
            slot[at[free]] = free
            active = active[slot[at[active]] != active]
            at[active] = (at[active] + 1) & (len(slot) - 1)


def _hashed(memory: Indices, words: Int[np.ndarray, "k two"]) -> Int[np.ndarray, " k"]:
    """A number below 2**62 of each key, its low bits as good as random."""
    word = np.ascontiguousarray(words).view(np.uint64)
    found = word[:, 0] + word[:, 1] * _ODD[0] + memory.astype(np.uint64) * _ODD[1]
    found ^= found >> np.uint64(32)
    found *= _ODD[2]
    return (found >> np.uint64(2)).view(np.int64)


def _alike(
    memory: np.ndarray,
    words: np.ndarray,
    at: np.ndarray,
    others: np.ndarray,
    more: np.ndarray,
    place: np.ndarray,
):
    """Whether keys at rows of two lists are the same."""
    found = words[at, 0] == more[place, 0]
    found &= words[at, 1] == more[place, 1]
    found &= memory[at] == others[place]
    return found
