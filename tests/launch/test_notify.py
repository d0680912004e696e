"""Notifications: a webhook and a command, what they are told, and that their failure is a warning without secrets."""

from __future__ import annotations

import json
import re
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from support import Command, planned, run_of

from deit_ablate.execution import Execution
from deit_ablate.launch.notify import notify
from deit_ablate.store import Store


class Webhook(HTTPServer):
    def __init__(self) -> None:
        self.told: list[tuple[str, str | None, object]] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def host(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Webhook

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.told.append((self.path, self.headers["Content-Type"], json.loads(body)))
        self.send_response(404 if "gone" in self.path else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Webhook() as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield server
        server.shutdown()


def test_a_webhook_gets_a_text(webhook: Webhook) -> None:
    assert notify(Execution(notify=f"{webhook.host}/services/T0/secret"), "study: ended; 3 done") is None
    assert webhook.told == [("/services/T0/secret", "application/json", {"text": "study: ended; 3 done"})]


def test_a_secret_is_not_told(webhook: Webhook) -> None:
    assert notify(Execution(notify=f"{webhook.host}/gone/secret?key=secret"), "x") == (
        f"{webhook.host}/... was not notified: it answers 404"
    )
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    why = notify(Execution(notify=f"http://me:secret@127.0.0.1:{port}/secret"), "x")
    assert why
    assert why.startswith(f"http://127.0.0.1:{port}/... was not notified: ")
    assert "secret" not in why


def test_a_command_gets_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FILE", str(tmp_path / "told"))
    code = "import os, sys; open(os.environ['FILE'], 'w').write(sys.stdin.read() + os.environ['DEIT_ABLATE_MESSAGE'])"
    assert notify(Execution(notify=[sys.executable, "-c", code]), "held; $(x) `y`") is None
    assert (tmp_path / "told").read_text() == "held; $(x) `y`\nheld; $(x) `y`"


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ([sys.executable, "-c", "exit('no mail')"], f"({Path(sys.executable).name}) ended with exit code 1: no mail"),
        ("no-such-program --token secret", "(no-such-program) cannot be started: No such file or directory"),
    ],
)
def test_a_command_that_fails(command: str | list[str], says: str) -> None:
    assert notify(Execution(notify=command), "x") == f"the command of `notify` {says}"


def test_the_environment_says_it_too(webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    assert notify(Execution(), "x") is None
    monkeypatch.setenv("DEIT_ABLATE_NOTIFY", f"{webhook.host}/a")
    assert notify(Execution(), "x") is None
    assert notify(Execution(notify=f"{webhook.host}/b"), "x") is None
    assert [path for path, *_ in webhook.told] == ["/a", "/b"]
    monkeypatch.setenv("DEIT_ABLATE_NOTIFY", "ftp://secret")
    assert notify(Execution(), "x") == (
        "nobody was notified: DEIT_ABLATE_NOTIFY is neither a URL of http or https nor a command"
    )


def test_a_launch_tells_how_it_ended_and_records_no_secret(
    command: Command, sweep: Callable[..., Path], webhook: Webhook
) -> None:
    path = sweep("seeds: 1\nvariants: {a: {}}\n")
    command("run", path, "-x", f"notify={webhook.host}/secret")
    assert [told for *_, told in webhook.told] == [{"text": "tiny: ended; 1 done"}]
    outcome = Store(command.folder / "results").outcome(run_of(planned(path), "a").id)
    assert outcome
    assert outcome["provenance"]["command"].endswith("-x notify=...")
    assert not [p for p in (command.folder / "results").rglob("*.json*") if b"secret" in p.read_bytes()]
    command("run", path, "-x", f"notify={webhook.host}/secret")
    assert len(webhook.told) == 1  # nothing was left to do


def test_a_sweep_that_is_held_is_told_and_a_webhook_that_fails_is_a_warning(
    command: Command, sweep: Callable[..., Path], webhook: Webhook
) -> None:
    broken = "mylab:broken_until"
    model = f"{{model: {{name: '{broken}', options: {{file: /nowhere}}}}}}"
    path = sweep(f"execution: {{notify: '{webhook.host}/gone/secret'}}\nseeds: 5\nvariants: {{a: {model}}}\n")
    said = command("run", path, "--parallel", "2", code=1)
    ((_, _, told),) = webhook.told
    assert re.fullmatch(r"\{'text': 'tiny: held, as its first [45] runs all ended as bad-recipe; 5 held'\}", str(told))
    assert f"warning: {webhook.host}/... was not notified: it answers 404\n" in said.stderr
    assert "secret" not in said.stdout + said.stderr
