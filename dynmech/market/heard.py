"""What is heard after a query, as one number.

Where any party may hear something, the symbols of all of them are counted, the last party fastest.
Where a display has one reader, the advertiser whose product was rated, nobody else can hear
anything but her symbol 0: pairs (platform, reader) are counted, and one number more stands for all
that cannot be heard, so that what is claimed to have been heard has a number too.
"""

import equinox as eqx
import numpy as np
import numpy.typing as npt
from jaxtyping import Int

from dynmech._types import Numbers, Record, join_symbols, split_symbol


class Heard(Record):
    """The numbering of one market: `sizes` (Zp, Z1, ..., Zn) of the alphabets.

    `reader` (C,): the advertiser who reads after each control, n for nobody; None: all may.
    """

    sizes: tuple[int, ...] = eqx.field(static=True)
    reader: Int[np.ndarray, " C"] | None

    @property
    def _pair(self) -> tuple[int, int]:
        return self.sizes[0], max(self.sizes[1:])

    @property
    def count(self) -> int:
        """How many numbers there are, a Python integer."""
        count = 1
        for size in self.sizes if self.reader is None else self._pair:
            count *= int(size)
        return count + (self.reader is not None)

    def split(self, number: npt.ArrayLike, control: npt.ArrayLike) -> Int[np.ndarray, "n1 ..."]:
        """Symbols of every party from numbers heard after controls, which broadcast.

        What cannot be heard reads as nothing: symbol 0 of everybody.
        """
        number, control = np.broadcast_arrays(number, control)
        if self.reader is None:
            return split_symbol(number, self.sizes)
        said = np.where(number < self.count - 1, number, 0)
        platform, own = split_symbol(said, self._pair)
        parties = np.arange(len(self.sizes) - 1).reshape(-1, *(1,) * number.ndim)
        return np.concatenate([platform[None], np.where(parties == self.reader[control], own, 0)])

    def join(self, symbols: npt.ArrayLike, control: npt.ArrayLike) -> Int[np.ndarray, "..."]:
        """The number of what every party heard, (1+n, ...), after controls; as `split`."""
        symbols = np.asarray(symbols)
        if self.reader is None:
            return join_symbols(symbols, self.sizes)
        reader = np.broadcast_to(self.reader[np.asarray(control)], symbols.shape[1:])
        somebody = reader < len(self.sizes) - 1
        at = np.where(somebody, reader, 0)[None]
        own = np.where(somebody, np.take_along_axis(symbols[1:], at, axis=0)[0], 0)
        others = (symbols[1:] != 0).sum(axis=0) - (own != 0)
        number = join_symbols(np.stack([symbols[0], own]), self._pair)
        return np.where(others > 0, self.count - 1, number)

    def of(
        self, other: "Heard", number: npt.ArrayLike, control: npt.ArrayLike
    ) -> Int[np.ndarray, "..."]:
        """Its own numbers of what another numbering of the same alphabets calls `number`.

        What cannot be heard there cannot be heard here, where that has a number.
        """
        found = self.join(other.split(number, control), control)
        if self.reader is None or other.reader is None:
            return found
        return np.where(np.asarray(number) == other.count - 1, self.count - 1, found)

    def lies(
        self, i: int, controls: int
    ) -> tuple[Int[np.ndarray, "C Z"], Int[np.ndarray, "C Z Zi"]]:
        """What advertiser i heard, and what is heard of her instead if she tells each symbol.

        After each control and number; the others tell the truth.
        """
        rows = np.arange(1 if self.reader is None else controls)
        joint = self.split(np.arange(self.count), rows[:, None])
        changed = np.repeat(joint[..., None], self.sizes[i + 1], axis=-1)
        changed[i + 1] = np.arange(self.sizes[i + 1])
        told = self.join(changed, rows[:, None, None])
        shape = (controls, self.count)
        return np.broadcast_to(joint[i + 1], shape), np.broadcast_to(told, (*shape, told.shape[2]))

    def platform(self, law: Numbers) -> Numbers:
        """The platform's part of laws (..., count), (..., Zp); traced."""
        heard = law if self.reader is None else law[..., :-1]
        return heard.reshape(*law.shape[:-1], self.sizes[0], -1).sum(axis=-1)
