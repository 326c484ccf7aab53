"""Which cases of a test the default run takes."""

from collections.abc import Iterable

import pytest


def few(cases: Iterable, first: int) -> list:
    """These cases of a parametrized test, all but the first so many of them slow."""
    found = []
    for k, case in enumerate(cases):
        values = case if isinstance(case, tuple) else (case,)
        found.append(pytest.param(*values, marks=[pytest.mark.slow] if k >= first else []))
    return found
