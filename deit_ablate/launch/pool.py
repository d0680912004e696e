"""Pools: what starts one job at a time and says how it ended. Ours forks processes from one that has imported torch."""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import ceil
from typing import IO, Any

from deit_ablate.execution import SAVED, Execution, WorkerFailed, last_printed, worker_command
from deit_ablate.launch.jobs import Ended, Job
from deit_ablate.sweep.fork_server import ForkServer, fork_server


class Pool:
    """What starts one job at a time. A subclass has ``slots``, ``submit``, ``poll`` and ``cancel``."""

    slots: int
    """Jobs at once, of those that need nothing of their own."""

    def at_once(self, execution: Execution) -> int:
        """How many jobs that are executed so run at once."""
        return self.slots

    def fits(self, execution: Execution, running: Sequence[Execution]) -> bool:
        """Whether one more job may start beside those that run."""
        return len(running) < self.slots

    def submit(self, job: Job) -> None:
        """Start a job: the worker command with ``job.arguments()``. Raises OSError or RuntimeError where it can't."""
        raise NotImplementedError

    def poll(self, timeout: float) -> list[Ended]:
        """The jobs that have ended since the last call; waits up to ``timeout`` seconds for one."""
        raise NotImplementedError

    def cancel(self, run: str) -> None:
        """Ask a job to save and stop, as SIGTERM asks a worker."""
        raise NotImplementedError

    def ask(self, *arguments: str) -> int:
        """Run a worker command that is no job, and wait for it; returns its exit code."""
        return subprocess.run(worker_command(*arguments), stdout=sys.stderr).returncode

    def abandon(self) -> None:
        """Leave at once: what runs finishes by itself, what has not begun does not begin."""

    def close(self) -> None:
        """Let go of what the pool needs; jobs that run go on."""


def visible_gpus() -> list[str]:
    """The GPUs that runs may use, found without CUDA (which must not be touched before a fork)."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name and name != "-1"]
    try:
        found = os.listdir("/proc/driver/nvidia/gpus")
    except OSError:  # of another driver, or a container without it
        found = glob.glob("/dev/nvidia[0-9]*")
    return [str(index) for index, _ in enumerate(found)]


def may_have_gpu() -> bool:
    """False only where there is certainly no GPU: no device file of NVIDIA's, AMD's or WSL's driver."""
    return any(
        os.path.exists(path)
        for path in ("/proc/driver/nvidia", "/dev/nvidia0", "/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
    )


def _cores(execution: Execution) -> int:
    """Cores that a job takes."""
    return execution.threads * execution.ranks


def usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


GRACE_SECONDS = 30.0
"""For the other ranks to end by themselves after one has failed (a rank that waits on a GPU may not notice)."""


@dataclass
class _Started:
    """A job that runs: its ranks' processes, and how those that are over have ended."""

    job: Job
    gpus: list[str]
    pids: dict[int, int] = field(default_factory=dict)
    codes: dict[int, int] = field(default_factory=dict)
    deadline: float | None = None

    @property
    def over(self) -> bool:
        return len(self.codes) == self.job.execution.ranks


class ProcessPool(Pool):
    """Runs on this machine, each a process (or one a rank), forked from a server that has imported torch and timm.

    A job starts where what it needs is free: of each of its ``gpus`` its share (``runs_per_gpu``); where there are
    none, or the device is the CPU, ``threads`` cores a rank. ``execution.parallel`` bounds the number of jobs instead,
    for which there is then always room where they need no more than ``execution`` says. A job that needs more than
    there is runs alone. Where the launcher dies, running processes finish what they do.
    """

    def __init__(self, execution: Execution) -> None:
        self.parallel = execution.parallel
        self._base = execution
        self._gpus = visible_gpus()
        self.slots = self.at_once(execution)
        self._server: ForkServer | None = None
        self._running: dict[int, _Started] = {}
        self._numbers = itertools.count(1)

    def _on_gpu(self, execution: Execution) -> bool:
        return bool(self._gpus) and execution.device in ("auto", "cuda")

    @property
    def _cores(self) -> int:
        """Cores that jobs may take."""
        return max(usable_cores(), (self.parallel or 0) * _cores(self._base))

    @property
    def _shares(self) -> int:
        """Whole GPUs' work that each GPU may take: 1, or more where ``parallel`` says so."""
        wanted = Fraction(self._base.gpus, self._base.runs_per_gpu) * (self.parallel or 0)
        return max(1, ceil(wanted / len(self._gpus))) if self._gpus else 1

    def at_once(self, execution: Execution) -> int:
        if self._on_gpu(execution):
            most = len(self._gpus) * self._shares * execution.runs_per_gpu // execution.gpus
        else:
            most = self._cores // _cores(execution)
        return max(1, min(most, self.parallel or most))

    def fits(self, execution: Execution, running: Sequence[Execution]) -> bool:
        """``running``: jobs of other launchers among them, of which it is not known on which GPU they are."""
        if not running or (self.parallel and len(running) >= self.parallel):
            return not running
        alike = [each for each in [execution, *running] if self._on_gpu(each) == self._on_gpu(execution)]
        if not self._on_gpu(execution):
            return len(alike) == 1 or sum(map(_cores, alike)) <= self._cores
        shares, share = self._shares, Fraction(1, execution.runs_per_gpu)
        taken = sum(Fraction(each.gpus, each.runs_per_gpu) for each in alike)
        free = [gpu for gpu, load in self._loads().items() if load + share <= shares]
        return len(alike) == 1 or (
            taken <= shares * len(self._gpus) and len(free) >= min(execution.gpus, len(self._gpus))
        )

    def _loads(self) -> dict[str, Fraction]:
        """GPU -> how much of it the jobs of this pool take."""
        loads = dict.fromkeys(self._gpus, Fraction(0))
        for started in self._running.values():
            for gpu in started.gpus:
                loads[gpu] += Fraction(1, started.job.execution.runs_per_gpu)
        return loads

    def ask(self, *arguments: str) -> int:
        """A worker command, forked like any job, before there is one. Raises WorkerFailed where the server that forks
        cannot be started, or has ended."""
        try:
            return self._serve().ask(*arguments)
        except WorkerFailed:
            self.close()  # the next job gets a server of its own
            raise

    def submit(self, job: Job) -> None:
        """Start a job. Raises WorkerFailed where the server that forks cannot be started."""
        server = self._serve()
        number = next(self._numbers)
        loads = self._loads() if self._on_gpu(job.execution) else {}
        gpus = _given(job.execution, sorted(loads, key=lambda gpu: loads[gpu]))
        self._running[number] = _Started(job, gpus)
        environments = enumerate(_environments(job, gpus, self.at_once(job.execution)))
        try:
            server.send(
                *({"token": [number, rank], "argv": job.arguments(), "environment": e} for rank, e in environments)
            )
        except OSError:
            del self._running[number]
            raise WorkerFailed("is gone", last_printed(server.errors)) from None

    def poll(self, timeout: float) -> list[Ended]:
        if self._server is None:
            return []
        ended: list[Ended] = []
        self._end_stragglers()
        try:
            while messages := self._server.messages(0 if ended else timeout):
                ended += [job for message in messages if (job := self._told(message, self._server)) is not None]
        except WorkerFailed as failed:
            return ended + self._server_died(failed)
        return ended

    def _told(self, message: dict[str, Any], server: ForkServer) -> Ended | None:
        """Take note of what the server says; the job where that was its end."""
        number, rank = message["token"]
        started = self._running[number]
        if "pid" in message:
            started.pids[rank] = message["pid"]
            return None
        code = started.codes[rank] = message["code"]
        if code not in (0, SAVED) and started.deadline is None:
            started.deadline = time.monotonic() + GRACE_SECONDS
        if not started.over:
            return None
        del self._running[number]
        return Ended(started.job, started.codes[0], last_printed(server.errors))

    def _end_stragglers(self) -> None:
        for started in self._running.values():
            if started.deadline is not None and time.monotonic() > started.deadline:
                for rank in started.pids.keys() - started.codes.keys():
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(started.pids[rank], signal.SIGKILL)

    def _server_died(self, failed: WorkerFailed) -> list[Ended]:
        assert self._server
        output = last_printed(self._server.errors) or str(failed)
        lost = [Ended(started.job, 1, output) for started in self._running.values()]
        self._running.clear()
        self.close()
        return lost

    def cancel(self, run: str) -> None:
        """Ask a job to save and stop: its first rank decides for all."""
        for started in self._running.values():
            if started.job.run == run and 0 in started.pids and 0 not in started.codes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(started.pids[0], signal.SIGTERM)

    def abandon(self) -> None:
        if self._server is not None and any(not started.pids for started in self._running.values()):
            self._server.terminate()

    def close(self) -> None:
        """Let the server go; what it started goes on."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _serve(self) -> ForkServer:
        if self._server is None:
            program = self._base.program
            self._server = fork_server(self._base.threads, commands=program is not None and program.command)
        return self._server


def _meeting_place(ranks: int) -> dict[str, str]:
    """Where the ranks of one job on this machine meet (``train.distributed.join``); nothing for a single one."""
    if ranks == 1:
        return {}
    loopback = "lo0" if sys.platform == "darwin" else "lo"
    return {
        "WORLD_SIZE": str(ranks),
        "MASTER_ADDR": "127.0.0.1",
        "DEIT_ABLATE_MEETING": os.path.join(tempfile.gettempdir(), f"deit-ablate-{secrets.token_hex(8)}"),
        "GLOO_SOCKET_IFNAME": loopback,
    }


def _given(execution: Execution, gpus: Sequence[str]) -> list[str]:
    """Those that a job gets, of the GPUs in the order in which they are to be taken; some twice where it needs more
    than there are."""
    return [gpus[number % len(gpus)] for number in range(execution.gpus)] if gpus else []


def _environments(job: Job, gpus: Sequence[str], at_once: int = 1) -> list[dict[str, str]]:
    """The environment of each rank's process: where to meet the others, its share of the cores of a machine that runs
    ``at_once`` jobs, and its GPUs where some are given."""
    meeting, made = _meeting_place(job.execution.ranks), []
    cores = max(1, usable_cores() // (at_once * job.execution.ranks))
    for rank in range(job.execution.ranks):
        environment = {"DEIT_ABLATE_CORES": str(cores), **meeting}
        if meeting:
            environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        if gpus:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(dict.fromkeys(gpus[rank :: job.execution.ranks]))
        made.append(environment)
    return made


def foreground(job: Job, output: IO[str] | None = None) -> int:
    """Run one job in the foreground of this terminal, or with another output; returns the exit code of its (first)
    worker, or minus the signal that killed it. A signal to this process is passed on, so that the run is saved wherever
    a queue sends it."""
    command = worker_command(*job.arguments(), "--foreground")
    execution = job.execution
    several = execution.ranks > 1 or (execution.program is not None and execution.device in ("auto", "cuda"))
    gpus = _given(execution, visible_gpus()) if several else []
    workers = [subprocess.Popen(command, env={**os.environ, **own}, stdout=output) for own in _environments(job, gpus)]
    # To the first rank, which decides for all. In a terminal the workers get Ctrl-C too: twice is as good as once.
    before = {
        number: signal.signal(number, lambda *_: workers[0].terminate()) for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        code = workers[0].wait()
        for worker in workers[1:] if code < 0 else ():
            worker.terminate()  # one that has begun ignores it, and ends because its first rank is gone
        for worker in workers[1:]:
            worker.wait()
        return code
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
