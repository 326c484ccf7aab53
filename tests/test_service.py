"""The example service: what was answered survives kills, repeats are answered alike."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import dynmech as dm
from experiments._service_store import Store
from experiments.service import Service, application
from experiments.service import load as load_or_solve
from tests.helpers.service import Server, ask

NAMES = ("left", "right")


def mechanism(seed: int = 0) -> dm.DynamicTeamMechanism:
    rng = np.random.default_rng(seed)
    env = dm.RecommendationMDP(
        rng.normal(size=(2, 2)),
        dm.TasteGrid(rng.normal(size=(4, 2)), np.full(4, 0.25)),
        3,
        dm.LastShownOnly(dm.Logit(0.5), 0.7),
        dm.SignalStructure(dm.NoSignals(), dm.RatingFeedback(1.0, 3)),
        dm.ConstantValues([[0.5, 1.0], [0.4, 0.9]]),
        NAMES,
    )
    policy = dm.solve_efficient_policy(env, progress=False)
    return dm.DynamicTeamMechanism(policy, dm.groves.WindowCeiling())


@pytest.fixture(scope="module")
def served():
    return mechanism()


@pytest.fixture
def app(served, tmp_path):
    return application(Service(served, Store(tmp_path / "store.sqlite")))


START = {"id": "a", "theta": {"left": 1.0, "right": 0.4}}


def test_a_conversation_over_http_is_the_conversation(app, served):
    chat = served.policy.start(START["theta"])
    status, told = ask(app, "POST", "/conversations", START)
    assert (status, told["recommendation"]) == (201, NAMES[chat.recommendation])
    turn = {"period": 1, "action": "query", "signals": 0.3, "shown": "right"}
    chat = chat.step("query", 0.3, shown="right")
    status, told = ask(app, "POST", "/conversations/a/turns", turn)
    assert (status, told["period"], told["ended"]) == (201, 2, False)
    assert told["recommendation"] == NAMES[chat.recommendation]
    chat = chat.step("left")
    status, told = ask(app, "POST", "/conversations/a/turns", {"period": 2, "action": "left"})
    assert (told["ended"], told["bought"], told["off_model"]) == (True, "left", chat.off_model)
    assert ask(app, "GET", "/conversations/a") == (200, told)
    status, bill = ask(app, "POST", "/conversations/a/settlement", {"estimate": 0.25})
    paid = served.settle(chat, 0.25).transfer
    assert status == 201
    assert list(bill["payments"].values()) == pytest.approx(paid.sum(axis=0).tolist())
    assert [row["right"] for row in bill["by_round"]] == pytest.approx(paid[:, 1].tolist())


def test_repeats_are_answered_alike_and_others_refused(app):
    turn = {"period": 1, "action": "exit"}
    for path, body, other in (
        ("", START, START | {"theta": [0, 0]}),
        ("/a/turns", turn, turn | {"action": "left"}),
        ("/a/settlement", {}, {"estimate": 1.0}),
    ):
        first = ask(app, "POST", f"/conversations{path}", body)
        assert first[0] == 201
        assert ask(app, "POST", f"/conversations{path}", body) == (200, first[1])
        status, told = ask(app, "POST", f"/conversations{path}", other)
        assert (status, "repeat" in told["error"]) == (409, True)


WRONG = (
    ("", {"theta": {"left": 7.0, "right": 0.4}}, 422, "declared support"),
    ("", {"theta": "x"}, 422, "theta"),
    ("", {"theta": [[0]], "signals": 10**30}, 422, "must"),
    ("", {"theta": [0, 0], "signals": {"nobody": 1}}, 422, "platform"),
    ("", {"id": "\ud800", "theta": [0, 0]}, 422, "id="),
    ("", {"thetas": [0, 0]}, 422, "thetas"),
    ("", [1], 400, "object"),
    ("/a/turns", {"period": 1, "action": "buy"}, 422, "left, right"),
    ("/a/turns", {"period": 1, "action": 1e400}, 422, "action"),
    ("/a/turns", {"period": 1, "action": {}}, 422, "action"),
    ("/a/turns", {"period": 1, "action": "query", "signals": [[{}]]}, 422, "signals"),
    ("/a/turns", {"period": 1, "action": "query", "signals": float("nan")}, 422, "finite"),
    ("/a/turns", {"period": 1, "action": "query", "shown": {"a": 1}}, 422, "shown"),
    ("/a/turns", {"period": 1, "action": "query", "theta": "high"}, 422, "theta"),
    ("/a/turns", {"period": 2, "action": "query"}, 409, "follow"),
    ("/a/turns", {"period": True, "action": "query"}, 422, "period"),
    ("/a/turns", {"action": "query"}, 422, "period"),
    ("/b/turns", {"period": 1, "action": "query"}, 404, "started"),
    ("/a/settlement", {}, 422, "ended"),
)


@pytest.mark.parametrize(("path", "body", "status", "says"), WRONG)
def test_what_is_asked_wrongly_is_refused_with_its_reason(app, path, body, status, says):
    ask(app, "POST", "/conversations", START)
    found, told = ask(app, "POST", f"/conversations{path}", body)
    assert (found, says in told["error"]) == (status, True), told
    assert ask(app, "GET", "/conversations/a")[1]["period"] == 1  # nothing was written


def test_what_is_no_json_or_too_long_is_refused(app):
    for raw, status in ((b"{", 400), (b"[" * 100_000, 400), (b" " * (1 << 21), 413)):
        assert ask(app, "POST", "/conversations", raw=raw)[0] == status
    assert ask(app, "GET", "/conversations/none")[0] == 404


def test_another_policy_goes_on_with_nothing(app, served, tmp_path):
    ask(app, "POST", "/conversations", START)
    other = application(Service(mechanism(seed=1), Store(tmp_path / "store.sqlite")))
    for path, body in (("turns", {"period": 1, "action": "exit"}), ("settlement", {})):
        status, told = ask(other, "POST", f"/conversations/a/{path}", body)
        assert (status, "another policy" in told["error"]) == (409, True)
    assert ask(app, "POST", "/conversations/a/turns", {"period": 1, "action": "exit"})[0] == 201
    assert ask(other, "POST", "/conversations/a/settlement")[0] == 409


def held_over(server: Server, number: int, seed: int, acknowledged: dict, done=None):
    """Hold a conversation over HTTP to its end; every answer is kept when it comes."""
    rng, name = np.random.default_rng([seed, number]), f"c{number}"
    theta = {"left": float(rng.choice([0.5, 1.0])), "right": float(rng.choice([0.4, 0.9]))}
    status, told = server.ask("POST", "/conversations", {"id": name, "theta": theta})
    turns, acknowledged[name] = [], (theta, [], told)
    while not told["ended"]:
        assert status in (200, 201), told
        action = str(rng.choice(["query", "query", "exit", *NAMES]))
        said = float(rng.normal()) if action == "query" and rng.random() < 0.7 else None
        shown = str(rng.choice(NAMES)) if rng.random() < 0.3 else None
        turn = {"period": told["period"], "action": action, "signals": said, "shown": shown}
        status, told = server.ask("POST", f"/conversations/{name}/turns", turn)
        turns = [*turns, turn]
        acknowledged[name] = (theta, turns, told)
        if done is not None:
            done()


def outlive_kills(served, folder, conversations: int, kills: int, threads: int) -> None:
    """Hold conversations while the server is killed; then all that was answered is there."""
    served.save(folder / "served.mechanism")
    server = Server(folder / "served.mechanism", folder / "store.sqlite")
    acknowledged, answers, counting = {}, [0], threading.Lock()

    def done():
        with counting:
            answers[0] += 1
            due = kills * answers[0] // (conversations + 1) > server.kills
        if due and server.kills < kills and counting.acquire(blocking=False):
            try:
                server.kill()
            finally:
                counting.release()

    try:
        with ThreadPoolExecutor(threads) as pool:
            jobs = [
                pool.submit(held_over, server, k, 7, acknowledged, done)
                for k in range(conversations)
            ]
            for job in jobs:
                job.result()
        assert server.kills == kills
        assert len(acknowledged) == conversations
        for name, (theta, turns, told) in acknowledged.items():
            assert server.ask("GET", f"/conversations/{name}") == (200, told)
            chat = served.policy.start(theta)
            for turn in turns:
                chat = chat.step(turn["action"], turn["signals"], shown=turn["shown"])
            rating = 0.2 if told["bought"] else None
            status, bill = server.ask(
                "POST", f"/conversations/{name}/settlement", {"estimate": rating}
            )
            assert status == 201, bill
            right = served.settle(chat, rating).transfer.sum(axis=0)
            np.testing.assert_allclose([bill["payments"][x] for x in NAMES], right, atol=1e-12)
    finally:
        server.stop()


def test_what_was_acknowledged_outlives_a_kill(served, tmp_path):
    outlive_kills(served, tmp_path, conversations=6, kills=1, threads=2)


@pytest.mark.slow
def test_a_thousand_conversations_outlive_kills(served, tmp_path):
    outlive_kills(served, tmp_path, conversations=1000, kills=8, threads=4)


@pytest.mark.slow
def test_the_tents_are_solved_where_nothing_is_saved(tmp_path):
    tents = load_or_solve(tmp_path / "deep" / "tents.mechanism")
    assert load_or_solve(tmp_path / "deep" / "tents.mechanism").policy.env.names == (
        tents.policy.env.names
    )
    assert json.dumps(tents.policy.start(profile=0).record())
