"""The converse of Proposition 2: what pins transfers down to (17), and what does not."""

import numpy as np
import pytest

from dynmech import TasteGrid
from dynmech import static as st

OMEGA = np.array([0.2, 0.4, 0.6])
STATES = TasteGrid(OMEGA[:, None], np.full(3, 1 / 3))
ONE = np.stack([1 - OMEGA, OMEGA], axis=1)
BOTH = np.stack([np.pad(ONE, ((0, 0), (0, 1))), np.eye(3)])
SIGNALS = {
    "none": None,
    "a sample": st.PrivateSignals.independent([ONE, ONE]),
    "may know": st.PrivateSignals.independent([BOTH, ONE]),
}


def auction(values, information):
    grid = np.linspace(0, 2, values)
    return st.ClickAuction(STATES, [grid, grid], 1, SIGNALS[information])


def rival(game, value=1.0):
    """Index the second agent's first type with that value."""
    own = game.env.types[1]
    return [0, int(np.argmax(np.asarray(game.env.theta)[1][own.theta] == value))]


def kept(audit):
    return (
        audit.epsilon <= 1e-9
        and np.nanmin(audit.worst_state_participation) >= -1e-9
        and np.nanmin(audit.worst_state_no_subsidy) >= -1e-9
    )


def test_assumption_2():
    assert not auction(3, "none").informational_richness().any()
    assert auction(3, "a sample").informational_richness().all()
    useless = st.PrivateSignals.independent([np.full((3, 2), 0.5), ONE])
    grid = [[0.0, 1.0]] * 2
    rich = st.ClickAuction(STATES, grid, 1, useless).informational_richness()
    assert rich.tolist() == [False, True]
    # News of the first slot alone is not enough: it must lower the last one too.
    two = TasteGrid([[0.5, 0.2], [0.9, 0.2]], [0.5, 0.5])
    news = st.PrivateSignals.independent([np.eye(2), np.eye(2)])
    assert not st.ClickAuction(two, grid, 1, news).informational_richness().any()


@pytest.mark.parametrize("information", ["none", "a sample"])
def test_expected_transfers_are_the_pivots_up_to_the_grid(information):
    """At theta_i = 0 both conditions give p_i = 0; a step of the grid is all that is left.

    With price 1 between two values a step apart, expected transfers given s move by step E[omega
    | s]: the width is that of the most optimistic type.
    """
    for values in (5, 9):
        game = auction(values, information)
        others, step = rival(game), 2 / (values - 1)
        found = st.transfer_range(game, 0, others)
        mean = game.expected_rates()[:, others[1], 0]
        assert found.mean_width == pytest.approx(step * mean.max(), abs=1e-7)


@pytest.mark.parametrize("informed", [True, False])
def test_assumption_2_does_not_give_18_in_each_state(informed):
    """A bet fair under both posteriors of a sample breaks no condition, however fine the grid.

    Brute force: the bet d has E[d | s] = 0 for each s, so no expected transfer moves, and within
    the slack of a winner participation and no subsidy hold in every state. It is not (18).
    """
    game = auction(9, "a sample")
    others = rival(game)
    cell = (slice(None), others[1])
    assert game.informational_richness().all()
    pivot = st.click_pivot(game)
    own = game.values()[cell][:, 0]
    posteriors = game.env.posterior(0)[cell]
    bet = np.linalg.svd(np.unique(posteriors.round(14), axis=0))[2][-1] * 0.05
    np.testing.assert_allclose(posteriors @ bet, 0, atol=1e-12)
    assert np.abs(bet).max() > 0.02
    changed = pivot.transfer[0][cell] + np.where(own >= 1.5, 1.0, 0.0)[:, None] * bet
    mechanism = st.replace_transfers(game, 0, others, changed)
    assert kept(mechanism.audit())
    found = st.transfer_range(game, 0, others, informed=informed)
    assert found.state_width > 0.5
    assert found.state_width > 4 * found.mean_width
    assert kept(st.replace_transfers(game, 0, others, found.widest).audit())
    assert np.abs(found.widest - found.pivot).max() == pytest.approx(found.state_width)


@pytest.mark.parametrize(
    ("informed", "sizes"),
    [pytest.param(True, (5, 9), marks=pytest.mark.slow), (False, (3, 5))],
)
def test_a_type_that_may_know_the_state_pins_each_state(informed, sizes):
    coarse, fine = (
        st.transfer_range(game, 0, rival(game), informed=informed)
        for game in (auction(size, "may know") for size in sizes)
    )
    assert fine.state_width == pytest.approx(coarse.state_width / 2, rel=1e-6)
    assert fine.mean_width == pytest.approx(coarse.mean_width / 2, rel=1e-6)
    # The fair bet of a sample is now worth a lie to the type who knows which side it pays.
    game = auction(9, "may know")
    cell = (slice(None), rival(game)[1])
    sample = game.env.types[0].structure == 0
    bet = np.linalg.svd(np.unique(game.env.posterior(0)[cell][sample].round(14), axis=0))[2][-1]
    paid = st.click_pivot(game).transfer[0][cell]
    changed = paid + 0.05 * np.where(game.values()[cell][:, 0] >= 1.5, 1.0, 0.0)[:, None] * bet
    if informed:
        changed[~sample] = paid[~sample]
    audit = st.replace_transfers(game, 0, rival(game), changed).audit()
    if informed:
        assert audit.epsilon == pytest.approx(-0.05 * bet.min(), abs=1e-9)
    assert audit.epsilon > 0.01


def test_other_transfers_break_a_condition():
    """Constants, other prices, and the cases of the proof, each by what it breaks."""
    game = auction(9, "a sample")
    others = rival(game)
    cell = (slice(None), others[1])
    paid = st.click_pivot(game).transfer[0][cell]
    told = game.expected_rates()[cell]
    lost = (game.seats[game.assortative()[cell]] != 0).astype(float)

    def audit(transfers):
        return st.replace_transfers(game, 0, others, transfers).audit()

    assert kept(audit(paid))
    assert np.nanmin(audit(paid + 0.01).worst_state_participation) == pytest.approx(-0.01)
    assert np.nanmin(audit(paid - 0.01).worst_state_no_subsidy) == pytest.approx(-0.01)
    assert audit(1.5 * paid).epsilon > 0.1
    assert audit(0.5 * paid).epsilon > 0.1
    for case in (lost * told - OMEGA, lost * OMEGA - told, (lost - 1) * told + 0 * OMEGA):
        found = audit(-case)
        assert found.epsilon > 0.1
        assert any("signal" in lie for lie in found.witness[0].lies)


def test_without_signals_payment_per_impression_is_among_the_ranges():
    """Assumption 2 is what rules case 3 out: a winner with value to spare may pay E[omega]."""
    game = auction(5, "none")
    others = rival(game, 0.5)
    paid = np.array(st.click_pivot(game).transfer[0][:, others[1]])
    rich = game.values()[:, others[1], 0] >= 1.0
    paid[rich] = 0.5 * OMEGA.mean()
    assert kept(st.replace_transfers(game, 0, others, paid).audit())


def test_two_slots():
    rates = TasteGrid([[0.4, 0.1], [0.6, 0.5]], [0.5, 0.5])
    grid = np.linspace(0, 2, 5)
    signals = st.sampled_clicks(rates, [1, 1, 1], 1, [1])
    game = st.ClickAuction(rates, [grid, [1.0] * 5, [0.5] * 5], 1, signals)
    others = [0, 0, 0]
    found = st.transfer_range(game, 0, others)
    assert kept(st.replace_transfers(game, 0, others, found.widest).audit())
    assert (found.lower <= found.pivot + 1e-7).all()
    assert (found.pivot <= found.upper + 1e-7).all()
    beyond = np.array(found.widest)
    e, k = np.unravel_index(np.abs(beyond - found.pivot).argmax(), beyond.shape)
    beyond[e, k] += 1e-3 * np.sign(beyond[e, k] - found.pivot[e, k])
    assert not kept(st.replace_transfers(game, 0, others, beyond).audit())
