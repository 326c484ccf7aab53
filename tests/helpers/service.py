"""A client of the example service, in this process or over loopback, and a server to kill."""

import asyncio
import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.helpers import ROOT


def ask(app, method: str, path: str, body: object = None, raw: bytes | None = None):
    """One request to an ASGI application, in this process: status and JSON."""
    sent, data = [], json.dumps(body or {}).encode() if raw is None else raw

    async def receive():
        return {"type": "http.request", "body": data, "more_body": False}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method}
    scope |= {"path": path, "raw_path": path.encode(), "query_string": b"", "root_path": ""}
    scope |= {"headers": [], "scheme": "http", "server": ("test", 80), "client": ("test", 1)}
    asyncio.run(app(scope, receive, send))
    text = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], json.loads(text) if text[:1] in (b"{", b"[") else text.decode()


class Server:
    """`python -m experiments.service` in a process of its own, killed and started at will."""

    def __init__(self, mechanism: Path, store: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.command = [sys.executable, "-m", "experiments.service", "--mechanism", str(mechanism)]
        self.command += ["--store", str(store), "--port", str(self.port)]
        self.lock, self.kills = threading.Lock(), 0
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            self.command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        assert self.process.stdout is not None
        self.process.stdout.readline()

    def kill(self) -> None:
        """End the process as a failing machine would, and start another one."""
        with self.lock:
            self.stop()
            self.kills += 1
            self.start()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def ask(self, method: str, path: str, body: object = None):
        """A request, repeated until it is answered."""
        for _ in range(600):
            link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
            try:
                link.request(method, path, json.dumps(body or {}))
                answer = link.getresponse()
                return answer.status, json.loads(answer.read())
            except (OSError, http.client.HTTPException):
                time.sleep(0.1)  # killed, or not yet listening
            finally:
                link.close()
        raise TimeoutError(path)
