"""The page of a mechanism: whole in itself, and every number of it the library's."""

import base64
import dataclasses
import hashlib
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

import dynmech as dm
from tests.helpers import ROOT
from tests.helpers.explorer import NAMES, data_of, market, plain, priced

FOLDER = ROOT / "dynmech" / "explorer"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    mechanism = plain()
    path = tmp_path_factory.mktemp("page") / "page.html"
    dm.report(mechanism, path, unit="dollars")
    return mechanism, path.read_text(encoding="utf-8")


def test_the_page_allows_itself_only_what_it_carries(made):
    page = made[1]
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', page)
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    for tag, name in (("<style>", "style-src"), ('<script type="module">', "script-src")):
        (text,) = re.findall(rf"{tag}(.*?)</", page, flags=re.S)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}'" in policy
    marked = re.sub(r'<script type="module">.*?</script>', "", page, flags=re.S)
    assert not re.search(r"https?:|url\(|\ssrc=|<link|\son\w+=|\sstyle=", marked)
    assert set(re.findall(r"https?://[\w.]+", page)) <= {"http://www.w3.org"}  # names of markup
    assert "<b>" not in marked
    assert len(page) < 400_000


def follow(start, report):
    """Points of the page with the conversations that lead to them."""
    waiting = [(0, start)]
    while waiting:
        at, chat = waiting.pop()
        point = report["nodes"][at]
        yield point, chat
        for symbols, _, child, *_ in point["answers"]:
            waiting.append((child, chat.step("query", symbols)))


def costly() -> dm.DynamicTeamMechanism:
    """Queries cost, leaving is worth something, and ratings need not come."""
    rated = dm.MissingRatings(dm.RatingSettlement(1.0), 0.5)
    signals = dm.SignalStructure(feedback=dm.RatingFeedback(1.0, symbols=2), settlement=rated)
    env = market(signals=signals, round_cost=0.05, exit_value=0.1)
    return priced(env, groves=dm.groves.Zero(), estimator=dm.InversePropensity())


@pytest.mark.parametrize("make", [plain, costly])
def test_numbers_of_the_page_are_the_librarys(make, tmp_path):
    mechanism = make()
    dm.report(mechanism, tmp_path / "page.html")
    data, policy = data_of((tmp_path / "page.html").read_text(encoding="utf-8")), mechanism.policy
    assert data["names"] == NAMES
    assert (data["left"], len(data["reports"])) == (0, 1 + 2)  # truth, and the other value of each
    for report in data["reports"]:
        assert report["covered"] == pytest.approx(1, abs=1e-9)
        start = policy.start(dict(zip(NAMES, report["theta"])), (0, 0, 0))
        for point, chat in follow(start, report):
            why = policy.explain(chat)
            for name, number in {
                "shown": why.recommendation, "second": why.runner_up, "value": chat.value,
                "lead": why.lead, "learning": why.learning, "utility": why.utility,
            }.items():  # fmt: skip
                assert point[name] == pytest.approx(number, abs=1e-9), name
            np.testing.assert_allclose(point["belief"], chat.belief, atol=1e-5)
            chances = [x[1] for x in point["ends"] + point["answers"]]
            assert sum(chances) == pytest.approx(1, abs=1e-9)
            for code, _, base, slope in point["ends"]:
                rating = 0.25 if code < 2 else None
                paid = mechanism.settle(chat.step(code), estimate=rating).transfer.sum(axis=0)
                found = np.array(base) + np.array(slope) * (rating or 0) + report["totals"]
                np.testing.assert_allclose(found, paid, atol=1e-9)


def test_values_that_move_are_followed(tmp_path):
    values = dm.MarkovValues([[0.5, 0.9], [0.6, 0.2]], None, np.full((2, 2, 2), 0.5))
    mechanism = priced(market(values=values), groves=dm.groves.Zero())
    dm.report(mechanism, tmp_path / "page.html")
    data = data_of((tmp_path / "page.html").read_text(encoding="utf-8"))
    first = data["reports"][0]["nodes"][0]
    assert len(first["answers"]) == 2 * 4
    symbols, _, child, money = first["answers"][-1]
    index = [[0.5, 0.9].index(money[0]), [0.6, 0.2].index(money[1])]
    chat = mechanism.policy.start(profile=0).step("query", symbols, index)
    point = data["reports"][0]["nodes"][child]
    assert (point["theta"], point["shown"]) == (money, chat.recommendation)
    assert point["value"] == pytest.approx(chat.value, abs=1e-9)


def test_what_does_not_fit_is_said(made, tmp_path):
    mechanism = made[0]
    dm.report(mechanism, tmp_path / "page.html", points=4)
    data = data_of((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert sum(len(report["nodes"]) for report in data["reports"]) == 4
    truth = data["reports"][0]
    left = [x[1] for x in truth["nodes"][0]["answers"] if x[2] < 0]
    assert left  # and the likeliest answer was kept
    assert 1 - truth["covered"] == pytest.approx(sum(left), abs=1e-9)
    assert min(x[1] for x in truth["nodes"][0]["answers"] if x[2] >= 0) >= max(left)


def test_the_widget_is_the_page(made):
    pytest.importorskip("anywidget")
    widget = dm.explore(made[0], unit="dollars")
    assert widget.data == data_of(made[1])
    assert widget._esm == (FOLDER / "explorer.js").read_text(encoding="utf-8")
    prefix = re.search(r'id="(.*?)h-play"', widget.body)[1]
    assert prefix
    assert widget.body.replace(prefix, "").strip() in made[1]


def test_mistakes_are_named(made, tmp_path):
    mechanism, path = made[0], tmp_path / "page.html"
    with pytest.raises(dm.OutsideSupport, match="profile"):
        dm.report(mechanism, path, profile=99)
    with pytest.raises(dm.InvalidArgument, match="points"):
        dm.report(mechanism, path, points=0)
    other = dataclasses.replace(mechanism.audit(), names=("a", "b"))
    with pytest.raises(dm.InvalidArgument, match="of this mechanism"):
        dm.report(mechanism, path, audit=other)
    assert not path.exists()


def test_a_build_gives_the_same_bytes(tmp_path):
    source = FOLDER / "source"
    if shutil.which("node") is None or not (source / "node_modules" / "esbuild").exists():
        pytest.skip("needs node and the packages of dynmech/explorer/source (`make explorer`)")
    subprocess.run(["node", "build.mjs", str(tmp_path)], cwd=source, check=True)
    for name in ("explorer.js", "explorer.licences.txt"):
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes()


def test_the_script_was_built_from_these_sources():
    """Its first line names their digest: a change without a build fails with no node, too."""
    source = FOLDER / "source"
    names = sorted((source / "src").iterdir(), key=lambda path: path.name)
    digest = hashlib.sha256()
    for path in (source / "build.mjs", source / "package-lock.json", *names):
        digest.update(path.read_bytes())
    script = FOLDER / "explorer.js"
    assert f"Sources: {digest.hexdigest()} " in script.read_text(encoding="utf-8").splitlines()[0]
    assert script.stat().st_size <= 256_000


def test_packages_are_pinned_without_an_address():
    source = FOLDER / "source"
    lock = json.loads((source / "package-lock.json").read_text(encoding="utf-8"))
    packages = [x for name, x in lock["packages"].items() if name]
    assert all(x["integrity"].startswith("sha512-") and "resolved" not in x for x in packages)
    wanted = json.loads((source / "package.json").read_text(encoding="utf-8"))
    for version in (wanted["dependencies"] | wanted["devDependencies"]).values():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version)
