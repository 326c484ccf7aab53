"""What objects say of themselves: few lines, escaped labels, and numbers that are the library's."""

import numpy as np
import pandas as pd
import pytest

import dynmech as dm

NAMES = ["$x^2$", "<b>Дом</b>"]


@pytest.fixture(scope="module")
def solved():
    env = dm.RecommendationMDP(
        [[1.0, -0.5], [-0.4, 0.9]],
        dm.TasteGrid(np.eye(2), [0.4, 0.6]),
        2,
        dm.PerfectRecall(dm.Logit(0.5), query=0.7),
        dm.SignalStructure(feedback=dm.RatingFeedback(noise=1.0, symbols=2)),
        dm.MarkovValues(
            [[0.5, 0.9], [0.6, 0.2]], [[0.5, 0.5], [0.3, 0.7]], np.full((2, 2, 2), 0.5)
        ),
        NAMES,
    )
    policy = dm.solve_efficient_policy(env, progress=False)
    return env, policy, dm.DynamicTeamMechanism(policy)


def test_portraits_are_short_and_escape_labels(solved):
    env, policy, mechanism = solved
    chat = policy.start(profile=0)
    after = chat.step("query", (1, 0, 0), (0, 0))
    ended = after.step("exit")
    things = [env, policy, mechanism, mechanism.audit(), chat, ended, policy.explain(after)]
    things += [mechanism.settle(ended), dm.compare(mechanism)]
    for thing in things:
        assert 2 <= len(repr(thing).splitlines()) <= 15
        assert "<b>Дом" not in thing._repr_html_()
        assert "mathjax_ignore" in thing._repr_html_()
    assert NAMES[0] in repr(env)
    assert f"{policy.start(profile=0).value:.4g}" in repr(policy.explain(chat))
    assert " to " not in repr(policy.explain(chat)).split("expected utility")[1]  # nothing heard
    assert " to " in repr(policy.explain(after)).split("expected utility")[1]
    assert repr(object.__new__(dm.RecommendationMDP))  # as a debugger meets it


def test_pictures_show_labels_and_titles_as_given(solved):
    pytest.importorskip("matplotlib")
    _, _, mechanism = solved
    given, title = ["_ours", "theirs, $5 or $6"], "$x_ and $y"
    found = mechanism.audit()
    figure = dm.plotting.plot_incentives(dict.fromkeys(given, found), title=title)
    figure.canvas.draw()  # an opened formula would not be typeset
    drawn = [text.get_text() for text in figure.legends[0].get_texts()]
    drawn.append(figure.get_suptitle())
    plain = [text.replace("\u200b", "").replace(r"\$", "$") for text in drawn]
    assert plain == [*given, title]
    assert all("$" not in text.replace(r"\$", "") for text in drawn)


def test_many_products_with_long_names_are_summarised():
    pytest.importorskip("matplotlib")
    rng = np.random.default_rng(0)
    names = [f"{'x' * 200} {k}" for k in range(16)]
    many = dm.RecommendationMDP(
        rng.normal(size=(16, 2)),
        dm.TasteGrid(np.eye(2), [0.5, 0.5]),
        2,
        dm.LastShownOnly(dm.Logit(1.0), query=0.5),
        dm.SignalStructure(),
        dm.ConstantValues(np.ones(16)),
        names,
    )
    assert len(repr(many).splitlines()) == 15
    assert "more" in repr(many).splitlines()[-1]
    chat = dm.solve_efficient_policy(many, progress=False).start(profile=0)
    figure = dm.plotting.plot_conversation(chat.step(chat.recommendation))
    figure.canvas.draw()  # warns where nothing is left for what is drawn
    legend = figure.axes[0].get_legend()
    assert legend.get_title().get_text() == "the 12 best of 16"
    labels = [text.get_text() for text in legend.get_texts()]
    assert len(set(labels)) == 14  # told apart by their ends
    assert any(label.endswith(f"x {chat.recommendation}") for label in labels)
    bars = dm.plotting.plot_payments({"zero": dm.DynamicTeamMechanism(chat.policy)})
    ticks = [text.get_text() for text in bars.axes[0].get_yticklabels()]
    assert len(set(ticks)) == 16
    assert max(text.count("\n") for text in ticks) == 1


def test_latex_draws_labels_as_given(solved):
    _, policy, mechanism = solved
    text = dm.to_latex(policy)
    assert text.splitlines()[0].startswith(r"\begin{tabular}{")
    assert r"\$x\textasciicircum{}2\$ & " in text
    assert "<" not in text
    widths = {line.count(" & ") for line in text.splitlines() if line.endswith(r"\\")}
    assert widths == {len(text.splitlines()[0].rsplit("{", 1)[1]) - 2}
    frame = pd.DataFrame({"a": [1e-12, np.nan], "b": [2, 3], "c": ["x|y", None]}, index=["u", "v"])
    rows = dm.to_latex(frame, digits=2).splitlines()
    assert rows[4:6] == [
        r"u & 1 $\cdot 10^{-12}$ & 2 & x\textbar{}y \\",
        r"v & -- & 3 & -- \\",
    ]
    with pytest.raises(dm.InvalidArgument, match=r"to_latex\(table=...\)` must be a pandas frame"):
        dm.to_latex([1, 2])
    assert dm.to_latex(mechanism.audit()).count(r"\\") > 2


def test_explanations_add_up(solved):
    """Worth as solved; listening is W less that of the market without feedback, brute force."""
    env, policy, _ = solved
    deaf = dm.solve_efficient_policy(env.without_feedback(), progress=False)
    for profile in range(4):
        chat = policy.start(profile=profile)
        why = policy.explain(chat, "dollars")
        assert why.worth[why.recommendation] == pytest.approx(chat.value, abs=1e-12)
        assert why.lead >= 0
        gap = policy.value.ravel()[profile] - deaf.value.ravel()[profile]
        assert why.learning == pytest.approx(gap, abs=1e-12)
        assert "dollars" in repr(why)
    why = policy.explain(chat.step("query", (1, 0, 0), (0, 0)))
    assert why.learning == 0  # nothing can be shown after the last round
    order = np.abs(why.belief - why.belief_before)[why.movers]
    assert (np.diff(order) <= 0).all()
    with pytest.raises(dm.InvalidArgument, match="in progress"):
        policy.explain(chat.step("exit"))


def test_names_that_are_nearly_right_are_suggested(solved):
    _, policy, _ = solved
    for module, name, meant in (
        (dm.groves, "Partcipation", "Participation"),
        (dm.settlement, "mesageDriven", "MessageDriven"),
        (dm.plotting, "plot_polcy_tree", "plot_policy_tree"),
        (dm.static, "click_pivt", "click_pivot"),
        (dm.applications, "car", "cars"),
        (dm.audit, "Audits", "Audit"),
    ):
        with pytest.raises(AttributeError, match=f"did you mean '{meant}'"):
            getattr(module, name)
    with pytest.raises(AttributeError, match="did you mean 'Logit'"):
        _ = dm.Logitt
    with pytest.raises(dm.OutsideSupport, match="did you mean 'query'"):
        policy.start(profile=0).step("qurey")
    assert dm.__version__.count(".") == 2
