"""Simulations too long to keep: moments and quantiles are those of the records themselves."""

import jax
import numpy as np
import pytest

import dynmech as dm
from tests.helpers.small import logit_market

COUNT = 2 * 65_536 + 1000  # two whole batches and some more
KEY = jax.random.key(3)
RECORDS = ("payment", "payoff", "core", "groves", "earned", "surplus", "user_utility",
           "round_costs", "estimate", "rating", "length")  # fmt: skip


@pytest.fixture(scope="module")
def mechanism():
    return dm.DynamicTeamMechanism(dm.solve_efficient_policy(logit_market(seed=1, horizon=1)))


def summary(mechanism, count=COUNT, **options):
    return mechanism.simulate_summary(KEY, count, progress=False, **options)


def test_moments_and_quantiles_are_those_of_the_records(mechanism):
    found, kept = summary(mechanism), mechanism.simulate(KEY, COUNT)
    scale = mechanism.policy.env.money_scale
    for name in RECORDS:
        numbers = np.asarray(getattr(kept, name), float)
        known = ~np.isnan(numbers)
        np.testing.assert_array_equal(found.known(name), known.sum(axis=0))
        mean, error = found.mean(name)
        np.testing.assert_allclose(mean, np.nanmean(numbers, axis=0), atol=1e-12 * scale)
        std = np.nanstd(numbers, axis=0, ddof=1)
        np.testing.assert_allclose(found.std(name), std, atol=1e-11 * scale)
        np.testing.assert_allclose(error, std / np.sqrt(known.sum(axis=0)), atol=1e-12 * scale)
        np.testing.assert_array_equal(found.least(name), np.nanmin(numbers, axis=0))
        np.testing.assert_array_equal(found.most(name), np.nanmax(numbers, axis=0))
        for level in (0.0, 0.01, 0.37, 0.5, 0.95, 1.0):
            exact = np.nanquantile(numbers, level, axis=0, method="inverted_cdf")
            slack = 1e-3 * np.abs(exact) + 1e-9 * scale
            assert (np.abs(found.quantile(name, level) - exact) <= slack).all(), (name, level)
    frame = found.to_frame()
    assert len(frame) == 5 * 2 + 6
    assert frame["known"].max() == COUNT


def test_a_killed_run_goes_on_to_the_same_numbers_and_may_be_made_longer(mechanism, tmp_path):
    class Killed(BaseException):
        pass

    calls = []

    def lie(period, values, symbols):
        calls.append(len(values))
        if len(calls) == dies:
            raise Killed
        return values, symbols

    dies = 0
    whole = summary(mechanism, 9 * 65_536, strategies={0: lie})
    assert len(calls) == 9
    calls, dies = [], 9
    with pytest.raises(Killed):
        summary(mechanism, 9 * 65_536, strategies={0: lie}, checkpoint=tmp_path)
    calls, dies = [], 0
    short = summary(mechanism, 8 * 65_536, strategies={0: lie}, checkpoint=tmp_path)
    assert (len(calls), short.conversations) == (0, 8 * 65_536)
    again = summary(mechanism, 9 * 65_536, strategies={0: lie}, checkpoint=tmp_path)
    assert len(calls) == 1
    for one, other in zip(jax.tree.leaves(again), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(one, other)
    with pytest.raises(dm.InvalidArgument, match=r"simulate_summary\(checkpoint=.*same problem"):
        summary(mechanism, checkpoint=tmp_path)


def test_it_is_kept_in_a_file_and_levels_and_names_are_checked(mechanism, tmp_path):
    found = summary(mechanism, 100)
    found.save(tmp_path / "summary")
    loaded = dm.SimulationSummary.load(tmp_path / "summary")
    np.testing.assert_array_equal(loaded.mean("payment"), found.mean("payment"))
    with pytest.raises(dm.InvalidArgument, match="level"):
        found.quantile("payment", 1.5)
    with pytest.raises(dm.InvalidArgument, match="name"):
        found.mean("profit")
