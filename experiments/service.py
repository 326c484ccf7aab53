"""Conversations over HTTP: recommended, recorded in SQLite, and settled, kills in between.

A mechanism that was solved and saved is loaded, and served by an ASGI application. Nothing is kept
in memory between requests: every turn is a row of the store before it is acknowledged, and any
process that loads the same mechanism goes on from there. Requests may be repeated, as when an
answer was lost: the same request has the same answer, another one for the same turn is refused.
What users do is never an error; what is asked wrongly is one, with the reason.

    POST /conversations                    {"id", "theta", "signals"}
    GET  /conversations/ID
    POST /conversations/ID/turns           {"period", "action", "signals", "theta", "shown"}
    POST /conversations/ID/settlement      {"estimate"}

    python -m experiments.service --port 8000
"""

import json
import re
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

import dynmech as dm
from dynmech.errors import describe, import_extra
from experiments._service_store import OPENING, SETTLEMENT, Entry, Store, canonical

RESULTS = Path("results") / "service"
TENTS = Path(__file__).parent.parent / "notebooks" / "tents"
_LARGEST = 1 << 20  # bytes of a request
_NAME = re.compile(r"[A-Za-z0-9._~-]{1,200}")


@dataclass(frozen=True)
class Options:
    """What is served, and where."""

    mechanism: Path = RESULTS / "tents.mechanism"
    """A saved mechanism; where there is none, that of `notebooks/tents` is solved and saved."""
    store: Path = RESULTS / "conversations.sqlite"
    """SQLite file of what was acknowledged; made where there is none."""
    host: str = "127.0.0.1"
    """Address to listen at."""
    port: int = 8000
    """Port to listen at."""


class Refused(Exception):
    """A request that is answered with an error: HTTP status and reason."""

    def __init__(self, status: int, reason: str):
        self.status, self.reason = status, reason
        super().__init__(reason)


class Service:
    """A mechanism and a store: what each request asks of them. Any number of threads may ask."""

    def __init__(self, mechanism: dm.DynamicTeamMechanism, store: Store):
        self.mechanism, self.store = mechanism, store
        self.names = mechanism.policy.env.names

    def start(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Open a conversation; `id` names it, a fresh one by default."""
        _only(asked, "id", "theta", "signals")
        name = asked.get("id")
        name = uuid.uuid4().hex if name is None else name
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            must = "be at most 200 letters, digits, or any of ._~-"
            raise Refused(422, describe("id=...", must, repr(name)[:80]))

        def answer() -> dm.Conversation:
            return self.mechanism.policy.start(asked.get("theta"), asked.get("signals"))

        return self._once(name, OPENING, asked | {"id": name}, answer)

    def state(self, name: str) -> tuple[int, dict[str, Any]]:
        """Where a conversation stands."""
        return 200, self._known(name).answered

    def turn(self, name: str, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Go on with what the user did in round `period`."""
        _only(asked, "period", "action", "signals", "theta", "shown")
        last, period = self._known(name), asked.get("period")
        if type(period) is not int or period < 1:
            must = "be the round that the action belongs to, from 1"
            raise Refused(422, describe("period=...", must, repr(period)[:80]))
        action, done = asked.get("action"), len(last.record["turns"])
        if not isinstance(action, int | str):
            must = f"be one of query, exit, {', '.join(self.names)}, or a code"
            raise Refused(422, describe("action=...", must, repr(action)[:80]))
        if period > done + 1:
            must = f"follow the rounds so far, {done} of them"
            raise Refused(409, describe("period=...", must, period, "post what came before"))

        def answer() -> dm.Conversation:
            chat = self._resumed(last.record)
            shown = asked.get("shown")
            shown = tuple(shown) if isinstance(shown, list) else shown
            return chat.step(action, asked.get("signals"), asked.get("theta"), shown=shown)

        return self._once(name, period, asked, answer)

    def settle(self, name: str, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """What everybody pays, given the rating `estimate` after a purchase."""
        _only(asked, "estimate")
        last = self._known(name)
        held = self.store.get(name, SETTLEMENT)
        if held is None:
            ledger = self.mechanism.settle(self._resumed(last.record), asked.get("estimate"))
            answered = {
                "id": name,
                "estimate": asked.get("estimate"),
                "payments": dict(zip(self.names, ledger.transfer.sum(axis=0).tolist())),
                "by_round": [
                    {"period": int(period), **dict(zip(self.names, paid))}
                    for period, paid in zip(ledger.period, ledger.transfer.tolist())
                ],
            }
            entry = Entry(canonical(asked), answered, last.record)
            return 201, _same(self.store.put(name, SETTLEMENT, entry), asked)
        return 200, _same(held, asked)

    def _once(
        self, name: str, place: int, asked: dict[str, Any], answer: Callable[[], dm.Conversation]
    ) -> tuple[int, dict[str, Any]]:
        """The answer that stands at this place, or a new one, written first."""
        held = self.store.get(name, place)
        if held is not None:
            return 200, _same(held, asked)
        chat = answer()
        entry = Entry(canonical(asked), self._told(name, chat), chat.record())
        return 201, _same(self.store.put(name, place, entry), asked)

    def _told(self, name: str, chat: dm.Conversation) -> dict[str, Any]:
        """What a client needs to know of a conversation."""
        last = chat.turns[-1].action if chat.turns else len(self.names)
        bought = self.names[last] if last < len(self.names) else None
        return {
            "id": name,
            "period": chat.period,
            "ended": chat.ended,
            "recommendation": None if chat.ended else self._labels(chat.recommendation),
            "bought": bought,
            "off_model": chat.off_model,
        }

    def _labels(self, shown: int | tuple[int, ...]) -> str | list[str] | None:
        if isinstance(shown, tuple):
            return [self.names[k] for k in shown]
        return self.names[shown] if shown >= 0 else None

    def _known(self, name: str) -> Entry:
        last = self.store.last(name)
        if last is None:
            raise Refused(404, describe("id=...", "be a conversation that was started", name))
        return last

    def _resumed(self, record: dict[str, Any]) -> dm.Conversation:
        """The conversation of a record; held under another policy, it is refused."""
        policy = self.mechanism.policy
        try:
            return policy.resume(record)
        except dm.DynmechError as error:
            if record["policy"] == policy.fingerprint:
                raise
            raise Refused(409, str(error)) from error


def _only(asked: dict[str, Any], *names: str) -> None:
    unknown = sorted(set(asked) - set(names))
    if unknown:
        must = f"hold no fields but {', '.join(names)}"
        raise Refused(422, describe("the request", must, ", ".join(unknown)[:80]))


def _same(held: Entry, asked: dict[str, Any]) -> dict[str, Any]:
    """The answer that was given, if this was what was asked."""
    if held.asked != canonical(asked):
        must = "repeat what was asked first, or come after it"
        raise Refused(409, describe("the request", must, canonical(asked)[:200]))
    return held.answered


def application(service: Service) -> Any:
    """The ASGI application; requests are answered in threads."""
    starlette = import_extra("starlette.applications", "service", "experiments.service")
    routing = import_extra("starlette.routing", "service", "experiments.service")
    responses = import_extra("starlette.responses", "service", "experiments.service")
    threads = import_extra("starlette.concurrency", "service", "experiments.service")

    def endpoint(
        ask: Callable[..., tuple[int, dict[str, Any]]], posted: bool
    ) -> Callable[..., Any]:
        async def answer(request: Any) -> Any:
            try:
                given = [*request.path_params.values()]
                if posted:
                    given.append(_read(await _body(request)))
                status, body = await threads.run_in_threadpool(ask, *given)
            except Refused as error:
                status, body = error.status, {"error": error.reason}
            except dm.DynmechError as error:
                status, body = 422, {"error": str(error)}
            return responses.JSONResponse(body, status)

        return answer

    def route(path: str, ask: Callable[..., Any], method: str) -> Any:
        return routing.Route(path, endpoint(ask, method == "POST"), methods=[method])

    one = "/conversations/{name}"
    return starlette.Starlette(
        routes=[
            route("/conversations", service.start, "POST"),
            route(one, service.state, "GET"),
            route(f"{one}/turns", service.turn, "POST"),
            route(f"{one}/settlement", service.settle, "POST"),
        ]
    )


async def _body(request: Any) -> bytes:
    """The body of a request that is not too long."""
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > _LARGEST:
            raise Refused(413, describe("the request", f"be at most {_LARGEST} bytes", "more"))
        parts.append(part)
    return b"".join(parts)


def _read(body: bytes) -> dict[str, Any]:
    try:
        asked = json.loads(body or b"{}")
    except (ValueError, RecursionError) as error:
        raise Refused(400, describe("the request", "be JSON", str(error))) from error
    if not isinstance(asked, dict):
        raise Refused(400, describe("the request", "be a JSON object", type(asked).__name__))
    return asked


def load(path: Path) -> dm.DynamicTeamMechanism:
    """The mechanism of that file; that of the tents is solved and saved where there is none."""
    if not path.exists():
        policy = dm.solve_efficient_policy(dm.read_market(TENTS), progress=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        dm.DynamicTeamMechanism(policy, dm.groves.WindowCeiling()).save(path)
    return dm.DynamicTeamMechanism.load(path)


def main(options: Options) -> None:
    """Serve until interrupted."""
    uvicorn = import_extra("uvicorn", "service", "experiments.service")
    service = Service(load(options.mechanism), Store(options.store))
    held = len(service.store.conversations())
    print(f"http://{options.host}:{options.port}, {held} conversations held", flush=True)
    uvicorn.run(application(service), host=options.host, port=options.port, log_level="warning")


if __name__ == "__main__":
    dm.enable_compilation_cache()
    main(tyro.cli(Options, description=__doc__))
