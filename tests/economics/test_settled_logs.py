"""Logs settled: the bill of conversations that were logged is that of those that were played."""

import functools
from dataclasses import replace

import jax
import numpy as np
import pytest

import dynmech as dm
from tests.helpers.under import market

NAMES = "conversation", "round", "shown", "action", "bought", "rating", "signal"
COLUMNS = dict(zip(NAMES, NAMES, strict=True))
FIRST = ("signal_platform", "signal_product 0", "signal_product 1")
REPORTS = ("theta_product 0", "theta_product 1")


def moving(env):
    kernel = np.array([[[0.7, 0.3], [0.2, 0.8]]] * 2)
    return replace(env, values=dm.MarkovValues(env.values.support, None, kernel))


@functools.cache
def solved(kind):
    env = market(initial=kind == "staying")
    if kind == "moving":
        env = moving(env)
    if kind == "several":
        env = replace(env, displays=dm.Displays(2), round_cost=0.1)
    return dm.DynamicTeamMechanism(dm.solve_efficient_policy(env, progress=False))


@pytest.fixture(params=["staying", "moving", "several"])
def played(request):
    mechanism = solved(request.param)
    return mechanism, mechanism.simulate(jax.random.key(0), 40)


def test_a_log_settles_as_what_was_played(played):
    mechanism, told = played
    log = told.to_log()
    ledger = mechanism.settle(log)
    paid = np.zeros_like(told.payment)
    np.add.at(paid, ledger.conversation, ledger.transfer)
    np.testing.assert_allclose(paid, told.payment, atol=1e-9)
    assert not ledger.off_model
    # Ratings in stars, written out and read back.
    table = log.to_frame().assign(rating=3 + 2 * log.rating)
    first = FIRST if log.first is not None else None
    given = COLUMNS | {"first": first, "reports": REPORTS}
    given = given if "signal" in table else given | {"signal": None}
    read = dm.Log.from_frame(table, **given, scale=(3.0, 2.0))
    np.testing.assert_allclose(mechanism.settle(read).transfer, ledger.transfer, atol=1e-9)
    with pytest.raises(dm.InvalidArgument, match=r"what ratings mean.*scale=\(a, b\)"):
        mechanism.settle(dm.Log.from_frame(table, **given))


@pytest.fixture(scope="module")
def billed():
    mechanism = solved("staying")
    return mechanism, mechanism.simulate(jax.random.key(1), 30).to_log()


def test_what_a_platform_showed_instead_is_settled(billed):
    mechanism, log = billed
    first = np.flatnonzero((log.round == 1) & (log.kind != 0))
    log = replace(log, shown=log.shown.copy())
    log.shown[first] = 1 - log.shown[first]
    ledger = mechanism.settle(log)
    assert (ledger.shown != ledger.recommendation).any()
    for number in np.unique(log.owner[first]).tolist()[:2]:
        rows = np.flatnonzero(log.owner == number)
        chat = mechanism.policy.start(theta=log.reports[rows[0]], signals=log.first[number])
        for row in rows:
            action = [log.bought[row], 2, 3][log.kind[row]]
            said = {"platform": int(log.signal[row])} if log.signal[row] >= 0 else None
            chat = chat.step(
                int(action), said if action == 3 else None, shown=int(log.shown[row, 0])
            )
        bought = log.kind[rows[-1]] == 0
        one = mechanism.settle(chat, log.rating[rows[-1]] if bought else None)
        mine = ledger.transfer[ledger.conversation == number]
        np.testing.assert_allclose(mine, one.transfer, atol=1e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda log: replace(log, reports=None, reporters=()), "reported"),
        (lambda log: replace(log, reporters=("product 0", "x")), "reported"),
        (lambda log: replace(log, first=None), "first symbols"),
        (lambda log: replace(log, first=log.first + 5), "first symbols"),
        (lambda log: replace(log, first=log.first[:, :2]), "first symbols"),
        (
            lambda log: replace(log, kind=np.where(log.round == 1, 2, log.kind)),
            "an end",
        ),
        (lambda log: replace(log, products=("x", "product 1")), "x"),
        (
            lambda log: replace(log, reports=log.reports + log.round[:, None]),
            "the same",
        ),
        (lambda log: replace(log, reports=log.reports + 5.0), "theta"),
        (lambda log: replace(log, rating=log.rating * np.nan), "estimate"),
    ],
)
def test_logs_that_do_not_say_enough_are_refused(billed, change, message):
    mechanism, log = billed
    with pytest.raises(dm.DynmechError, match=message):
        mechanism.settle(change(log))
