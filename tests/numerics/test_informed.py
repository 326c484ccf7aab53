"""Bounds that keep omega hidden: never below the optimum, whatever they start from."""

import numpy as np
import pytest

from solvers.told.informed import HeardBound, Start
from solvers.told.potentials import Potentials


def drawn(seed: int, controls=3, symbols=3, points=5, even=False, learnable=True):
    """Pay (A, m), chances of going on (A, m), laws (A, Z, m) and a belief (m,)."""
    rng = np.random.default_rng(seed)
    pay = rng.normal(0.1, 0.5, (controls, points))
    going = np.full((controls, points), 0.9) if even else rng.uniform(0, 1, (controls, points))
    law = rng.dirichlet(np.full(symbols, 0.5), (controls, points if learnable else 1))
    law = np.broadcast_to(np.swapaxes(law, 1, 2), (controls, symbols, points)).copy()
    if seed % 3 == 0:
        law[0], law[0, 0] = 0.0, 1.0  # a control that tells nothing, and symbols that never come
    belief = rng.dirichlet(np.ones(points))
    belief[0] = 0.0 if seed % 2 else belief[0]
    return pay, going, law, belief / belief.sum()


def optimum(pay, going, law, belief, left):
    """Best value of every control (A,), by the recursion itself."""
    found = []
    for a in range(len(pay)):
        later = 0.0
        if left > 1:
            after = (belief * going[a] * column for column in law[a])
            later = sum(optimum(pay, going, law, b, left - 1).max() for b in after)
        found.append(belief @ pay[a] + later)
    return np.array(found)


def least(beliefs, *forms):
    """U of beliefs, the least of forms (reference, g, lambda)."""
    found = Potentials(beliefs.shape[1])
    for form in forms:
        found.add(*form)
    return found.least(beliefs)


@pytest.mark.parametrize("even", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_no_control_is_worth_more_wherever_the_search_for_multipliers_begins(seed, even):
    pay, going, law, belief = drawn(seed, even=even)
    rng = np.random.default_rng([seed, 1])
    heard, left = HeardBound(pay, going, law), 4
    true = optimum(pay, going, law, belief, left)
    start = heard.begin(belief[None], left)
    wild = Start(
        rng.dirichlet(np.ones(3), (1, left - 1)),
        np.log(rng.dirichlet(np.ones(3), (1, left - 1, 3))),
        rng.normal(-2, 2, (1, left - 1)),
    )
    # Guesses of what was heard, of any mass.
    heavy = Start(wild.choice, wild.heard + 0.5, wild.price)
    for begun in (start, wild, heavy):
        for sweeps in (1, 3, 30):
            found = heard.bound(belief[None], begun, sweeps)
            assert (found.bound[0] >= true - 1e-12).all()
    # The form holds at every belief, one round later.
    for other in rng.dirichlet(np.ones(5), 8) * rng.uniform(0.1, 1, (8, 1)) * (belief > 0):
        later = optimum(pay, going, law, other, left - 1).max()
        u = least(other[None], (belief, found.after[0], found.price[0]))[0]
        assert u >= later - 1e-12


def test_beliefs_of_different_rounds_are_bounded_together_as_by_themselves():
    pay, going, law, _ = drawn(2)
    rng = np.random.default_rng(3)
    beliefs, gone = rng.dirichlet(np.ones(5), 6), np.array([0, 1, 2, 2, 1, 0])
    heard = HeardBound(pay, going, law)
    start = heard.begin(beliefs, 5)
    together = heard.bound(beliefs, start, 3, gone)
    for k, past in enumerate(gone):
        left = 5 - past
        own = Start(*(x[k : k + 1, past:] for x in start))
        alone = heard.bound(beliefs[k : k + 1], own, 3)
        np.testing.assert_allclose(together.bound[k], alone.bound[0], rtol=1e-5)
        np.testing.assert_allclose(together.start.price[k, past:], alone.start.price[0], rtol=1e-4)
        true = optimum(pay, going, law, beliefs[k], int(left))
        assert (together.bound[k] >= true - 1e-12).all()


def test_where_nothing_can_be_learned_a_fixed_plan_is_all_there_is():
    pay, going, law, belief = drawn(1, even=True, learnable=False)
    heard = HeardBound(pay, going, law)
    found = heard.bound(belief[None], heard.begin(belief[None], 6), 200).bound.max()
    plan = (pay @ belief).max() * (1 - 0.9**6) / (1 - 0.9)
    told = pay.max(axis=0) @ belief * (1 - 0.9**6) / (1 - 0.9)
    assert plan <= found < plan + 0.05 * (told - plan)


def test_the_form_is_infinite_where_the_reference_has_no_mass():
    belief = np.array([[0.5, 0.5], [0.0, 1.0]])
    form = np.array([0.0, 1.0]), np.array([1.0, 2.0]), 0.3
    np.testing.assert_array_equal(least(belief, form), [np.inf, 2.0])
    np.testing.assert_array_equal(least(belief), [np.inf, np.inf])


def test_the_least_of_many_forms_is_that_of_each_by_itself():
    rng = np.random.default_rng(0)
    references, g = rng.dirichlet(np.ones(4), 150), rng.normal(size=(150, 4))
    references[::3, 0] = 0.0
    references /= references.sum(axis=1, keepdims=True)
    price, beliefs = rng.uniform(0, 2, 150), rng.dirichlet(np.ones(4), 9) * 0.3
    beliefs[0, 1:3] = 0.0
    forms = list(zip(references, g, price.tolist(), strict=True))
    each = np.stack([least(beliefs, form) for form in forms])
    np.testing.assert_allclose(least(beliefs, *forms), each.min(axis=0), rtol=1e-12)
    for found, (q, after, lam) in zip(each, forms, strict=True):
        ratio = beliefs / beliefs.sum(axis=1, keepdims=True) / np.where(q > 0, q, 1.0)
        known = (beliefs * np.log(np.where(ratio > 0, ratio, 1.0))).sum(axis=1)
        right = np.where(beliefs @ (q == 0) > 0, np.inf, beliefs @ after + lam * known)
        np.testing.assert_allclose(found, right, rtol=1e-12)


@pytest.mark.parametrize("unit", [1e-310, 1e-150, 1e150, 1e300])
def test_whatever_the_unit_of_money_no_bound_is_false(unit):
    pay, going, law, belief = drawn(4)
    heard = HeardBound(unit * pay, going, law)
    found = heard.bound(belief[None], heard.begin(belief[None], 3), 10)
    true = optimum(unit * pay, going, law, belief, 3)
    assert (found.bound[0] >= true - 1e-12 * unit).all()
    later = least(belief[None], (belief, found.after[0], found.price[0]))[0]
    assert later >= optimum(unit * pay, going, law, belief, 2).max() - 1e-12 * unit
