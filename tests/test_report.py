"""The page of a mechanism: whole in itself, the library's numbers, its script driven by node."""

import base64
import hashlib
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

import dynmech as dm
from tests.helpers import ROOT

NAMES = ["</script><b>", "<!--data-->$"]
DRIVER = """
const { start } = require(process.argv[2]);
function node(tag) {
  const made = { tag, children: [], listeners: {}, textContent: "", value: 0, disabled: false };
  made.append = (x) => made.children.push(x);
  made.replaceChildren = () => { made.children = []; };
  made.addEventListener = (what, f) => { made.listeners[what] = f; };
  return made;
}
const ids = {};
const find = (at, id) => at.id === id ? at : at.children.map((x) => find(x, id)).find((x) => x);
const document = {
  createElement: node,
  getElementById: (id) => {
    const made = Object.values(ids).map((x) => find(x, id)).find((x) => x);
    return made || (ids[id] = ids[id] || node(id));
  },
};
document.getElementById("data").textContent = require("fs").readFileSync(0, "utf8");
const window = {
  location: { hash: "" }, addEventListener: () => {},
  history: { replaceState: (a, b, hash) => { window.location.hash = hash; } },
};
start(document, window);
const click = (k) => ids.choices.children.filter((x) => x.tag === "button")[k].listeners.click();
const rest = (x) => x.children.length ? x.children.map(rest).join(" ") : x.textContent;
const said = [rest(ids.now)];
click(0);
said.push(rest(ids.now), window.location.hash);
click(0);
const slider = document.getElementById("rating");
slider.value = 0.25;
slider.listeners.input();
said.push(rest(ids.bill), window.location.hash);
console.log(JSON.stringify(said));
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    env = dm.RecommendationMDP(
        [[1.0, -0.5], [-0.4, 0.9]],
        dm.TasteGrid(np.eye(2), [0.4, 0.6]),
        2,
        dm.PerfectRecall(dm.Logit(0.5), query=0.7),
        dm.SignalStructure(feedback=dm.RatingFeedback(noise=1.0, symbols=2)),
        dm.ConstantValues([[0.5, 0.9], [0.6, 0.2]]),
        NAMES,
    )
    policy = dm.solve_efficient_policy(env, progress=False)
    mechanism = dm.DynamicTeamMechanism(policy, groves=dm.groves.WindowCeiling())
    path = tmp_path_factory.mktemp("page") / "page.html"
    dm.report(mechanism, path, unit="dollars")
    return mechanism, path.read_text(encoding="utf-8")


def data_of(page: str) -> dict:
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    return json.loads(text)


def test_the_page_allows_itself_only_what_it_carries(made):
    page = made[1]
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', page)
    assert policy.startswith("default-src 'none'")
    for tag, name in (("style", "style-src"), ("script", "script-src")):
        (text,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, flags=re.S)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{name} 'sha256-{digest}'" in policy
    assert not re.search(r"https?:|url\(|\ssrc=|<link|\son\w+=|\sstyle=", page)
    assert "<b>" not in page
    assert len(page) < 200_000


def test_transfers_on_the_page_are_the_librarys(made):
    mechanism, page = made
    policy, data = mechanism.policy, data_of(page)
    assert data["names"] == NAMES
    assert data["whole"]
    assert len(data["reports"]) == 1 + 2  # the truth, and the other value of either
    for report in data["reports"]:
        told = dict(zip(NAMES, report["theta"]))
        chat = policy.start(told, (0, 0, 0))
        nodes = report["nodes"]
        assert nodes[0]["shown"] == chat.recommendation
        symbols, _, child = nodes[0]["answers"][1]
        chat = chat.step("query", symbols)
        point = nodes[child]
        assert point["value"] == pytest.approx(chat.value, abs=1e-9)
        total = sum(chance for _, chance, *_ in point["ends"])
        assert total == pytest.approx(1, abs=1e-9)
        for code, _, constant, slope in point["ends"]:
            rating = 0.25 if code < 2 else None
            paid = mechanism.settle(chat.step(code), estimate=rating).transfer.sum(axis=0)
            found = np.array(constant) + np.array(slope) * (rating or 0)
            np.testing.assert_allclose(found, paid, atol=1e-9)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_a_reader_plays_a_conversation(made):
    mechanism, page = made
    (text,) = re.findall(r'id="data">(.*?)</script>', page)
    script = ROOT / "dynmech" / "explorer" / "page.js"
    done = subprocess.run(
        ["node", "-e", DRIVER, "node", str(script)],
        input=text, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, second, where, paid, end = json.loads(done.stdout)
    chat = mechanism.policy.start(profile=0)
    assert f"{NAMES[chat.recommendation]} is shown" in first
    assert f"{chat.value:.4g} dollars are expected" in first
    chat = chat.step("query", data_of(page)["reports"][0]["nodes"][0]["answers"][0][0])
    assert f"{NAMES[chat.recommendation]} is shown" in second
    assert (where, end) == ("#play=0.0", "#play=0.0!0")
    code = data_of(page)["reports"][0]["nodes"][1]["ends"][0][0]
    owed = mechanism.settle(chat.step(code), estimate=0.25).transfer.sum(axis=0)
    assert all(f"{x:.4g}" in paid for x in owed)


def test_mistakes_are_named(made, tmp_path):
    mechanism, path = made[0], tmp_path / "page.html"
    with pytest.raises(dm.OutsideSupport, match="profile"):
        dm.report(mechanism, path, profile=99)
    with pytest.raises(dm.InvalidArgument, match="points"):
        dm.report(mechanism, path, points=0)
    assert not path.exists()
