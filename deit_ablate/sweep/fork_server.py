"""The process of a command that imports torch: asked about names while jobs are prepared, then what forks the jobs of
the pool in ``launch/``."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from deit_ablate.execution import (
    Execution,
    WorkerFailed,
    answers_among,
    how_ended,
    last_printed,
    worker_answers,
    worker_command,
)


class ForkServer:
    """A worker process that has imported torch and timm, and forks a child for each request (``worker.forkserver``)."""

    def __init__(self, threads: int, *, commands: bool = False) -> None:
        """``threads``: CPU threads of each child; ``commands``: whether it forks those of commands alone, which need no
        torch. Raises WorkerFailed where it cannot be started."""
        self.threads = threads
        self.errors: IO[bytes] = tempfile.TemporaryFile("a+b")  # noqa: SIM115 (it lives as long as the server)
        """What the server and its children print, before a run's log begins."""
        self._partial = b""
        if not commands and sys.stderr.isatty():  # it takes seconds, on a cold network file system minutes
            print("importing torch ...", file=sys.stderr, flush=True)
        try:
            # A session of its own: Ctrl-C in the terminal must reach runs through us alone.
            self._process = subprocess.Popen(
                worker_command("--serve", *(["commands"] if commands else [])),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"},
            )
        except OSError as error:
            self.errors.close()
            raise WorkerFailed(f"cannot be started: {error}") from None

    def send(self, *requests: dict[str, Any]) -> None:
        """Raises OSError where the server is gone."""
        assert self._process.stdin
        self._process.stdin.write(b"".join(json.dumps(request).encode() + b"\n" for request in requests))
        self._process.stdin.flush()

    def messages(self, timeout: float) -> list[dict[str, Any]]:
        """What it has said since the last call; waits up to ``timeout`` seconds for that. Raises WorkerFailed where it
        has ended, and said all."""
        import select

        assert self._process.stdout
        stream = self._process.stdout.fileno()
        ready = select.select([stream], [], [], timeout)[0]
        if not ready and self._process.poll() is None:
            return []
        # Whatever it has started may hold its output still: there is no end of it to wait for.
        if (ready or select.select([stream], [], [], 0)[0]) and (chunk := os.read(stream, 65536)):
            *lines, self._partial = (self._partial + chunk).split(b"\n")
            return list(answers_among((line + b"\n" for line in lines), self.errors))
        raise WorkerFailed(how_ended(self._process.wait()), last_printed(self.errors))

    def ask(self, *arguments: str) -> int:
        """The exit code of a child with these arguments of a worker's command, while there is no job to hear of. Raises
        WorkerFailed where the server has ended."""
        with contextlib.suppress(OSError):  # a server that is gone is found out below, with what it printed
            self.send({"token": [0, 0], "argv": arguments, "environment": {}})
        while True:
            for told in self.messages(60):
                if "code" in told:
                    return int(told["code"])

    def answers(self, questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """What a child answers about names, while there is no job to hear of. Raises WorkerFailed where it does not."""
        with tempfile.TemporaryDirectory() as folder:
            question = Path(folder) / "question.json"
            question.write_bytes(json.dumps(questions).encode())
            if code := self.ask("names", str(question)):
                raise WorkerFailed(how_ended(code), last_printed(self.errors))
            return list(json.loads(question.with_suffix(".answer").read_bytes()))

    def terminate(self) -> None:
        """Begin nothing more; what it started goes on."""
        self._process.terminate()

    def close(self) -> None:
        """Let it go; what it started goes on."""
        assert self._process.stdin
        assert self._process.stdout
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self.errors.close()


_early: list[ForkServer | None] = []
"""While a command prepares jobs of this machine: its fork server, None until somebody needs one."""


@contextlib.contextmanager
def preparing_jobs() -> Iterator[None]:
    """Within it, questions about names are answered by a fork server, which the pool that is used first takes over, so
    that one process of the command imports torch, not two."""
    _early.append(None)
    try:
        yield
    finally:
        let_go()


def let_go() -> None:
    """Jobs are prepared: close a fork server that no pool has taken over, as where they go to a cluster."""
    while _early:
        if server := _early.pop():
            server.close()


def fork_server(threads: int, *, commands: bool = False) -> ForkServer:
    """A fork server of one's own: that of ``preparing_jobs``, where it fits. Raises WorkerFailed."""
    if commands:
        return ForkServer(threads, commands=True)
    if _early and (server := _early[-1]) and server.threads == threads:
        _early[-1] = None
        return server
    return ForkServer(threads)


def ask_worker(questions: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A worker's answers to questions about names. Raises WorkerFailed, an InputError, where it has none."""
    if not _early:
        return list(next(worker_answers("names", questions)))
    server = _early[-1] = _early[-1] or ForkServer(Execution().threads)
    return server.answers(questions)
