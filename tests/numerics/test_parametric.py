"""Controls taken as a coefficient sweeps an interval, against solves on a grid of it."""

import jax
import numpy as np
import pytest

from solvers import Structure, Tables, Tasks
from solvers.tree.backward import backward
from solvers.tree.parametric import sweep_coefficient
from solvers.tree.tree import build_tree
from tests.helpers.markets import random_market
from tests.helpers.quantities import market_of, solve

OPTIONS = {
    "two rounds": {},
    "three rounds": {"horizon": 3, "symbols": (2, 1, 1), "recall": "ordered"},
    "three products": {"n": 3, "symbols": (1, 2, 1, 1), "initial_symbols": (1, 2, 2, 1)},
    "zeros": {"zeros": 0.3, "initial_symbols": (2, 2, 2)},
    "twins": {"ties": True, "horizon": 3, "symbols": (2, 1, 1), "initial_symbols": (2, 1, 1)},
}
LOW, HIGH = -0.5, 2.0


def _taken(plan, coefficient, outcome, grid):
    """Controls taken at every node at the points of a grid, per round (G, N, points)."""
    given = np.repeat(coefficient[:, None], len(grid), axis=1)
    given[:, :, outcome] = grid
    controls = plan.tree.structure.controls
    allowed = np.ones((*given.shape[:2], controls), bool)
    tasks = Tasks(plan.root, given, np.ones_like(given), allowed, len(grid))
    with jax.enable_x64(True):
        _, actions = backward(plan.tree, plan.tables, tasks, block=64)
    return [taken.swapaxes(0, 1) for taken in actions]


SLOW = ("two rounds", "three products")


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=pytest.mark.slow if x in SLOW else ()) for x in OPTIONS]
)
def test_every_control_taken_on_a_grid_is_found_where_it_is_taken(name):
    outcome = list(OPTIONS).index(name) % 2
    rng = np.random.default_rng([5, list(OPTIONS).index(name)])
    plan = solve(market_of(random_market(rng, constant=True, **OPTIONS[name]))).plan
    n = len(plan.tables.reward)
    coefficient = rng.uniform(0.1, 1.0, (len(plan.root), n))
    interval = (LOW, HIGH)
    args = (plan.tree, plan.tables, plan.root, coefficient, outcome, interval)
    swept = sweep_coefficient(*args)
    sweeps = swept.rounds
    ends = [x for s in sweeps for x in (s.low, s.high)]
    places = np.unique(np.concatenate([x[~np.isnan(x)] for x in ends]))
    middles = np.unique(np.concatenate([((s.low + s.high) / 2)[s.taken] for s in sweeps]))
    some = rng.permutation(np.concatenate([places, middles]))[:40]
    points = np.concatenate([np.linspace(LOW, HIGH, 61), some])
    several = 0
    for sweep, taken in zip(sweeps, _taken(plan, coefficient, outcome, points), strict=True):
        seen = (taken[..., None] == np.arange(n + 1)).any(axis=2)
        assert not (seen & ~sweep.taken).any()
        extra = (sweep.high - sweep.low)[sweep.taken & ~seen]
        assert extra.max(initial=0.0) < 2 * (HIGH - LOW) / 60
        several += (sweep.taken.sum(axis=2) > 1).sum()
        for a in range(n + 1):
            low, high = sweep.low[:, :, a, None], sweep.high[:, :, a, None]
            inside = (points > low + 1e-9) & (points < high - 1e-9)
            assert (taken[inside] == a).all()
    assert several > 0
    small = sweep_coefficient(*args, cells=3_000).rounds
    for one, other in zip(sweeps, small, strict=True):
        np.testing.assert_array_equal(one.low, other.low)
        np.testing.assert_array_equal(one.high, other.high)


def _three_lines(middle):
    """One round: control 0 is worth x / 2 + middle, 1 is worth x, the last 1/2."""
    structure = Structure(
        edge=(np.arange(3)[None],),
        successor=(np.zeros((1, 3), np.int64),),
        columns=np.full((3, 0), -1),
        outcome=np.array([[0, 1], [0, 1], [0, 1]]),
        controls=3,
        outcomes=2,
        column_count=1,
        dead=-1,
    )
    stop = np.array([[[0.5], [0.5]], [[1.0], [0.0]], [[0.0], [1.0]]])
    tables = Tables(stop, np.ones((1, 1)), np.zeros((2, 1)))
    coefficient = np.array([[0.0, 0.5]])
    stop[0, 1] = 2 * middle  # control 0 ends in outcome 1, worth 1/2, with this probability
    return sweep_coefficient(
        build_tree(structure), tables, np.ones((1, 1)), coefficient, 0, (0.0, 1.0)
    ).rounds[0]


def test_a_control_taken_at_a_single_point_is_found():
    """x / 2 + 1/4, x and 1/2 meet at x = 1/2; the first control is taken there and only there."""
    sweep = _three_lines(0.25)
    np.testing.assert_array_equal(sweep.low[0, 0], [0.5, 0.5, 0.0])
    np.testing.assert_array_equal(sweep.high[0, 0], [0.5, 1.0, 0.5])
    below = _three_lines(0.2499)
    np.testing.assert_array_equal(below.taken[0, 0], [False, True, True])
    above = _three_lines(0.2501)
    np.testing.assert_allclose(above.low[0, 0], [0.4998, 0.5002, 0.0], atol=1e-12)
    np.testing.assert_allclose(above.high[0, 0], [0.5002, 1.0, 0.4998], atol=1e-12)


def test_what_does_not_fit_is_refused():
    plan = solve(market_of(random_market(np.random.default_rng(1), constant=True))).plan
    given = plan.tree, plan.tables, plan.root, np.zeros((len(plan.root), 2)), 0, (0.0, 1.0)
    with pytest.raises(MemoryError, match="kinks"):
        sweep_coefficient(*given, cells=10)
