"""The bounded number: what it holds, what it refuses."""

import numpy as np
import pytest

import dynmech as dm


def test_a_number_without_bounds_is_its_own_bounds_for_certain():
    x = dm.Bounded([1.0, np.nan])
    assert x.confidence == 1.0
    assert x.shape == (2,)
    np.testing.assert_array_equal(x.lower, x.value)
    np.testing.assert_array_equal(x.upper, x.value)
    np.testing.assert_array_equal(x.error, [0.0, 0.0])


def test_entries_keep_their_bounds():
    x = dm.Bounded(np.array([[1.0, 2.0]]), lower=0.5, upper=[2.0, 3.0], error=0.1, confidence=0.95)
    y = x[0, 1]
    assert (y.value, y.lower, y.upper, y.error, y.confidence) == (2.0, 0.5, 3.0, 0.1, 0.95)
    np.testing.assert_array_equal(x.gap, [[1.5, 2.5]])
    assert repr(y) == "2 in [0.5, 3] at 95%"


@pytest.mark.parametrize(
    "wrong",
    [
        {"value": [1.0, 2.0], "lower": [0.0, 0.0, 0.0]},
        {"value": 1.0, "lower": 2.0, "upper": 1.5},
        {"value": 1.0, "confidence": 0.0},
        {"value": 1.0, "confidence": 1.5},
        {"value": "high"},
    ],
)
def test_nonsense_is_refused_in_words(wrong):
    with pytest.raises(dm.InvalidArgument, match=r"`Bounded\(\w+=\.\.\.\)` must"):
        dm.Bounded(**wrong)


def test_bounds_of_many_at_once_need_what_is_unseen():
    sure = dm.Bounded([1.0], 0.5, 2.0)
    assert sure.together(3, 0.9) is sure
    drawn = dm.Bounded([1.0], 0.8, 1.2, 0.05, 0.95, unseen=0.001)
    one, ten = drawn.together(1), drawn.together(10)
    assert ten.lower < one.lower < 1.0 < one.upper < ten.upper
    with pytest.raises(dm.InvalidArgument, match="unseen"):
        dm.Bounded([1.0], 0.8, 1.2, 0.05, 0.95).together(3)


def test_tables_of_many_advertisers_have_more_than_32_axes():
    found = dm.Bounded(np.ones((1,) * 41), lower=0.0, upper=2.0)
    assert found.shape == found.gap.shape == (1,) * 41
