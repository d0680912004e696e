"""Executors: what makes a job happen. A job is one run's worker command; an executor starts it and says how it ended.

To add one: a class with ``submit``, ``poll``, ``cancel`` and ``close``, and a line in ``EXECUTORS``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol


@dataclass(frozen=True)
class Job:
    """What an executor is given: strings only, so that any scheduler can carry it."""

    results: str
    run: str
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)

    def argv(self) -> list[str]:
        return ["run", self.results, self.run, *self.arguments]


@dataclass(frozen=True)
class Ended:
    """A job that is over: exit code, or minus the signal that killed it, and what it printed before its log began."""

    job: Job
    code: int
    said: str = ""


class Executor(Protocol):
    slots: int

    def submit(self, job: Job) -> None: ...
    def poll(self, timeout: float) -> list[Ended]: ...
    def cancel(self, run: str) -> None: ...
    def abandon(self) -> None: ...
    def close(self) -> None: ...


def visible_gpus() -> list[str]:
    """The GPUs that runs may use, found without CUDA (which must not be touched before a fork)."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name and name != "-1"]
    try:
        return [str(index) for index, _ in enumerate(sorted(os.listdir("/proc/driver/nvidia/gpus")))]
    except OSError:
        return []


def may_have_gpu() -> bool:
    """False only where there is certainly no GPU: no device file of NVIDIA's, AMD's or WSL's driver."""
    return any(
        os.path.exists(path)
        for path in ("/proc/driver/nvidia", "/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
    )


def usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class LocalExecutor:
    """Runs on this machine, each a process of its own, forked from a server that has imported torch and timm.

    A bounded number at once: ``parallel``, or one a GPU, or one for each ``threads`` cores. Where the launcher
    dies, running processes finish what they do.
    """

    def __init__(self, *, parallel: int | None = None, threads: int = 1, device: str = "auto"):
        gpus = visible_gpus() if device in ("auto", "cuda") else []
        self.slots = parallel or len(gpus) or max(1, usable_cores() // threads)
        self._gpus = gpus
        self._threads = threads
        self._server: subprocess.Popen[bytes] | None = None
        self._errors: IO[bytes] | None = None
        self._running: dict[int, tuple[Job, int | None]] = {}
        self._gpu_of: dict[int, str] = {}
        self._token = 0
        self._partial = b""

    def submit(self, job: Job) -> None:
        """Start a job. Raises RuntimeError where the server that forks cannot be started."""
        server = self._serve()
        self._token += 1
        environment = dict(job.environment)
        if self._gpus:
            used = list(self._gpu_of.values())
            gpu = min(self._gpus, key=used.count)
            environment["CUDA_VISIBLE_DEVICES"] = self._gpu_of[self._token] = gpu
        self._running[self._token] = (job, None)
        request = {"token": self._token, "argv": job.argv(), "environment": environment}
        assert server.stdin
        try:
            server.stdin.write(json.dumps(request).encode() + b"\n")
            server.stdin.flush()
        except OSError:
            del self._running[self._token]
            self._gpu_of.pop(self._token, None)
            raise RuntimeError(f"the process that starts runs is gone: {self._complaint()}") from None

    def poll(self, timeout: float) -> list[Ended]:
        """The jobs that have ended since the last call; waits up to ``timeout`` seconds for one."""
        import select

        if self._server is None:
            return []
        assert self._server.stdout
        stream = self._server.stdout.fileno()
        ended: list[Ended] = []
        while select.select([stream], [], [], 0 if ended else timeout)[0]:
            chunk = os.read(stream, 65536)
            if not chunk:
                return ended + self._server_died()
            *lines, self._partial = (self._partial + chunk).split(b"\n")
            for message in map(json.loads, lines):
                job, _ = self._running[message["token"]]
                if "pid" in message:
                    self._running[message["token"]] = (job, message["pid"])
                    continue
                del self._running[message["token"]]
                self._gpu_of.pop(message["token"], None)
                ended.append(Ended(job, message["code"], self._complaint()))
        return ended

    def _server_died(self) -> list[Ended]:
        said = self._complaint()
        lost = [Ended(job, 1, said) for job, _ in self._running.values()]
        self._running.clear()
        self._gpu_of.clear()
        self._server, self._partial = None, b""
        return lost

    def cancel(self, run: str) -> None:
        """Ask a job to save and stop."""
        for job, pid in self._running.values():
            if job.run == run and pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)

    def abandon(self) -> None:
        """Leave at once: what runs finishes by itself, what has not begun does not begin."""
        if self._server is not None and any(pid is None for _, pid in self._running.values()):
            self._server.terminate()

    def close(self) -> None:
        """Let the server go; what it started goes on."""
        if self._server is not None:
            assert self._server.stdin
            with contextlib.suppress(OSError):
                self._server.stdin.close()
            self._server.wait()
            assert self._server.stdout
            self._server.stdout.close()
            self._server = None
        if self._errors is not None:
            self._errors.close()
            self._errors = None

    def _serve(self) -> subprocess.Popen[bytes]:
        if self._server is None:
            self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (it lives as long as the server)
            # A session of its own: Ctrl-C in the terminal must reach runs through us alone.
            self._server = subprocess.Popen(
                [sys.executable, "-m", "deit_ablate.worker", "--serve"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": str(self._threads), "OMP_WAIT_POLICY": "passive"},
            )  # fmt: skip
        return self._server

    def _complaint(self) -> str:
        if self._errors is None:
            return ""
        size = self._errors.seek(0, os.SEEK_END)
        self._errors.seek(max(0, size - 4000))
        return self._errors.read().decode(errors="replace").strip()


EXECUTORS: dict[str, Callable[..., Executor]] = {"local": LocalExecutor}


def foreground(job: Job) -> int:
    """Carry one job in the foreground of this terminal; returns the worker's exit code."""
    command = [sys.executable, "-m", "deit_ablate.worker", *job.argv(), "--foreground"]
    process = subprocess.Popen(command, env={**os.environ, **job.environment})
    while True:
        try:
            return process.wait()
        except KeyboardInterrupt:
            continue  # the worker got it too, and is saving


def worker_arguments(
    *, device: str, loaders: int, threads: int, data_dir: Path | str | None, retry: bool
) -> tuple[str, ...]:
    """The execution of a job as the worker command's arguments."""
    arguments: list[Any] = ["--device", device, "--loaders", loaders, "--threads", threads]
    arguments += ["--data-dir", data_dir] if data_dir else []
    return tuple(map(str, [*arguments, *(["--retry"] if retry else [])]))
