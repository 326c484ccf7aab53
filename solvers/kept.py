"""What constructors take on trust, checked where it comes from a file.

A class with a method `check_kept` has it called when one of its objects was read: indices must
point at something, numbers be finite, chances be chances. Whoever makes the object at hand has made
sure of that, so that nothing is paid for it there.
"""

from typing import NoReturn

import numpy as np
import numpy.typing as npt

ROOM = 1e-5  # of chances and of numbers worked out again: single precision, other machines


def refuse(name: str, must: str, got: object) -> NoReturn:
    """Raise `ValueError` on a field of what was read."""
    raise ValueError(f"{name} must {must}, got {got}")


def require_indices(name: str, array: npt.ArrayLike, size: int, least: int = 0) -> None:
    """Refuse integers outside `least`..`size` - 1."""
    found = np.asarray(array)
    if found.size and not least <= int(found.min()) <= int(found.max()) < size:
        refuse(name, f"be in {least}..{size - 1}", f"{int(found.min())}..{int(found.max())}")


def require_numbers(name: str, array: npt.ArrayLike, blank: bool = False) -> None:
    """Refuse what is not finite; where `blank`, NaN stands for what there is not."""
    found = np.asarray(array)
    wrong = np.isinf(found) if blank else ~np.isfinite(found)
    if wrong.any():
        refuse(name, "be finite", found[wrong][0])


def require_chances(name: str, array: npt.ArrayLike) -> None:
    """Refuse what is not in [0, 1], up to rounding."""
    found = np.asarray(array)
    wrong = ~((found >= -ROOM) & (found <= 1 + ROOM))
    if wrong.any():
        refuse(name, "be in [0, 1]", found[wrong][0])


def require_alike(name: str, array: npt.ArrayLike, again: npt.ArrayLike) -> None:
    """Refuse what is not, up to rounding, what it is worked out as again; NaN agrees with NaN."""
    one, two = np.asarray(array, float), np.asarray(again, float)
    if one.shape != two.shape:
        refuse(name, f"be of shape {two.shape}", one.shape)
    room = ROOM * float(np.abs(two[np.isfinite(two)]).max(initial=0.0))
    if not np.allclose(one, two, rtol=ROOM, atol=room, equal_nan=True):
        refuse(name, "be what the rest says", "other numbers")
