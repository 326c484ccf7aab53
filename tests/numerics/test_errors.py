"""The errors' own helpers: what they accept, and what their messages say."""

import numpy as np
import pytest

from dynmech import errors as _errors
from dynmech.errors import (
    DynmechError,
    InvalidProbability,
    MissingExtra,
    NotFinite,
    describe,
    import_extra,
    require_finite,
    require_probabilities,
)


def test_every_error_is_a_value_error_with_one_root():
    members = vars(_errors).values()
    kinds = [m for m in members if isinstance(m, type) and issubclass(m, ValueError)]
    assert len(kinds) >= 9
    assert all(issubclass(kind, DynmechError) and issubclass(kind, ValueError) for kind in kinds)


def test_message_names_call_requirement_value_and_remedy():
    message = describe("verb(arg=...)", "be positive", -1, "pass a larger number")
    assert message == "`verb(arg=...)` must be positive; got -1; pass a larger number."


def test_first_entry_that_is_not_finite_is_named():
    require_finite("f(x=...)", np.zeros((2, 2)))
    with pytest.raises(NotFinite, match=r"nan at index \(1, 0\) \(2 of 4 entries\)"):
        require_finite("f(x=...)", np.array([[0, 1], [np.nan, np.inf]]))


def test_worst_sum_is_named():
    table = np.array([[0.5, 0.5], [0.5, 0.7], [0.5, 0.6]])
    with pytest.raises(InvalidProbability, match=r"sum of 1\.2 at index \(1,\)"):
        require_probabilities("f(x=...)", table)
    require_probabilities("f(x=...)", table / table.sum(), axis=(0, 1))


def test_float32_rounding_is_allowed():
    require_probabilities("f(x=...)", np.full(1000, 1e-3, np.float32))
    with pytest.raises(InvalidProbability):
        require_probabilities("f(x=...)", np.array([0.5, 0.500001], np.float32))


def test_missing_extra_names_the_command_that_installs_it():
    with pytest.raises(MissingExtra, match=r'pip install "dynmech\[data\]"') as caught:
        import_extra("no_such_package.part", "data", "cars")
    assert isinstance(caught.value, ImportError)
    assert import_extra("json", "data", "cars").__name__ == "json"
