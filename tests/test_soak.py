"""A process under load holds no more at the end than when everything was done once."""

import pytest

from experiments.soak import call, serve


@pytest.mark.slow
def test_a_million_steps_take_no_memory():
    found = serve(1_000_000, seed=0)
    assert found["done"] >= 1_000_000
    assert found["at last"] < found["at first"] + 20, found


@pytest.mark.slow
def test_random_verbs_take_no_memory():
    found = call(120.0, seed=0)
    assert found["done"] > 20
    assert found["at last"] < found["at first"] + 60, found
