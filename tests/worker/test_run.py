"""A worker that is killed, at any instant, or finds no room: the result is that of an undisturbed run, bit for bit."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from support import INTERRUPTED, Command, planned, result, worker_pid

from deit_ablate.errors import TrainError
from deit_ablate.execution import Execution
from deit_ablate.launch.jobs import Report
from deit_ablate.store import Store, cleanup
from deit_ablate.train import distributed, precision
from deit_ablate.train.distributed import Group
from deit_ablate.worker import run as worker

EPOCHS = 6
"""Of INTERRUPTED."""


class Killer:
    """Asked at each poll of a launcher, it kills the run's worker at random instants of its life: so many epochs on,
    and up to an epoch's time later."""

    def __init__(self, store: Store, run: str, seconds: float, draw: random.Random, most: int):
        self.store, self.run, self.seconds, self.draw, self.most = store, run, seconds, draw, most
        self.struck: list[int] = []
        self.pid: int | None = None
        self.epoch, self.wait = 0, 0.0

    def __call__(self) -> bool:
        """Never asks the launcher itself to stop."""
        pid, done = worker_pid(self.store, self.run), len(self.store.history(self.run))
        if pid != self.pid:
            self.pid, self.epoch = pid, min(done + self.draw.randrange(3), EPOCHS)
            self.wait = self.draw.uniform(0, self.seconds / EPOCHS)
        if pid and pid not in self.struck and len(self.struck) < self.most and done >= self.epoch:
            time.sleep(self.wait)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                self.struck.append(pid)
        return False


@pytest.mark.parametrize("loaders", [0, 2])
def test_workers_killed_at_random_instants(
    launch: Callable[..., Report],
    tmp_path: Path,
    sweep: Callable[..., Path],
    undisturbed: dict[str, object],
    loaders: int,
) -> None:
    path, run, draw = sweep(INTERRUPTED), str(undisturbed["run"]), random.Random(loaders)
    struck = rounds = 0
    while struck < 12:
        rounds += 1
        assert rounds <= 60, f"only {struck} blows struck home"
        store = Store(tmp_path / f"round{rounds}")
        killer = Killer(store, run, float(str(undisturbed["seconds"])), draw, most=5)
        for _ in range(10):
            # Killed twice is a failure, which a user retries.
            report = launch(path, into=store, stop=killer, loaders=loaders, retry=frozenset({run}))
            if report.states[run].finished:
                break
        assert result(store, run) == undisturbed["result"]
        struck += sum((attempt.exit or {}).get("class") == "killed" for attempt in store.attempts(run))


def test_a_run_killed_between_its_last_checkpoint_and_its_outcome_keeps_its_weights(
    launch: Callable[..., Report], store: Store, sweep: Callable[..., Path], undisturbed: dict[str, object]
) -> None:
    path, run = sweep(INTERRUPTED), str(undisturbed["run"])
    launch(path)
    first = store.attempts(run)[0]
    for written_last in (store.run(run) / "outcome.json", first.path / "exit.json", first.arrays):
        written_last.unlink()
    launch(path)
    assert result(store, run) == undisturbed["result"]
    assert [attempt.number for attempt in store.attempts(run)] == [1, 2]
    assert store.weights(run) == store.attempts(run)[1].checkpoint
    for path in cleanup.disposable(store, run, "final"):
        path.unlink()
    assert store.weights(run) is not None, "what gc leaves is what a later stage needs"


def test_a_full_disk_is_said_and_nothing_is_lost(
    launch: Callable[..., Report], sweep: Callable[..., Path], tmp_path: Path, undisturbed: dict[str, object]
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode != 0:
        pytest.fail(f"this test mounts a small disk, which needs root (or a user namespace): {mounted.stderr}")
    try:
        path, run, store = sweep(INTERRUPTED), str(undisturbed["run"]), Store(disk / "results")
        launch(path, into=store, stop=lambda: bool(store.history(run)))
        lines_before = len(store.history(run))
        filler = disk / "filler"
        with contextlib.suppress(OSError), open(filler, "wb", buffering=0) as handle:
            while True:
                handle.write(b"x" * 4096)
        report = launch(path, into=store)
        if not report.states[run].finished:
            told = [str(report.states[run]), *report.problems.values()]
            assert any("storage-full" in text or "No space left" in text for text in told), told
            assert len(store.history(run)) >= lines_before or store.checkpoints(run), "what was saved is still there"
        filler.unlink()
        launch(path, into=store, retry=frozenset({run}))
        assert result(store, run) == undisturbed["result"]
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_durations_are_not_those_of_a_clock_that_somebody_sets(
    cold_command: Command, sweep: Callable[..., Path]
) -> None:
    """The clock falls an hour behind each time that it is read."""
    folder = cold_command.folder / "site"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import itertools, time\nnow = itertools.count(int(time.time()), -3600)\ntime.time = lambda: float(next(now))\n"
    )
    cold_command.environment["PYTHONPATH"] = str(folder)
    sweep("seeds: 1\nvariants: {a: {}}\n")
    done = cold_command("run", "tiny.yaml").stdout
    assert re.search(r" in \d+ s", done), done
    store = Store(cold_command.folder / "results")
    (run,) = store.runs()
    outcome = store.outcome(run)
    assert outcome
    assert 0 < outcome["cost"]["wall_seconds"] <= outcome["cost"]["wall_seconds_all_attempts"]


def test_a_runs_time_is_that_of_all_its_attempts(
    launch: Callable[..., Report], store: Store, sweep: Callable[..., Path], undisturbed: dict[str, object]
) -> None:
    path, run = sweep(INTERRUPTED), str(undisturbed["run"])
    launch(path, stop=lambda: bool(store.history(run)))
    first = store.attempts(run)[0].seconds
    launch(path)
    outcome = store.outcome(run)
    assert outcome
    cost = outcome["cost"]
    earlier = first if outcome["attempt"] > 1 else 0.0
    assert cost["wall_seconds_all_attempts"] == pytest.approx(cost["wall_seconds"] + earlier)
    assert first > 0


@dataclass
class FakeCuda:
    """What ``torch.cuda`` is asked where there is a GPU, and what was asked, in order."""

    count: int
    asked: list[str] = field(default_factory=list)

    def install(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.cuda, "device_count", lambda: self.count)
        patch.setattr(torch.cuda, "set_device", lambda device: self.asked.append(f"on {device}"))
        patch.setattr(
            torch.cuda,
            "set_per_process_memory_fraction",
            lambda fraction, device: self.asked.append(f"at most {fraction} of {device}"),
        )

    def join(self) -> Group:
        self.asked.append("meet")
        return Group(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))


@pytest.mark.parametrize(("seen", "expected"), [(4, ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]), (1, ["cuda:0"] * 4)])
def test_each_rank_is_on_a_gpu_of_its_own_before_it_meets_the_others(
    monkeypatch: pytest.MonkeyPatch, seen: int, expected: list[str]
) -> None:
    """Where the ranks of a node see all its GPUs (SLURM), and where each sees its own alone (this machine)."""
    found = []
    for rank in range(4):
        cuda = FakeCuda(seen)
        cuda.install(monkeypatch)
        monkeypatch.setattr(distributed, "join", cuda.join)
        for name, value in {"RANK": 4 + rank, "LOCAL_RANK": rank, "WORLD_SIZE": 8}.items():
            monkeypatch.setenv(name, str(value))
        assert worker._join(Execution()) == Group(4 + rank, 8)
        device = worker.device_of("auto")
        assert cuda.asked == [f"on {device}", "meet"]
        precision.set_up(torch.device(device), deterministic=False)
        precision.share_gpu(device, 4)
        assert cuda.asked[2:] == [f"on {device}", f"at most {0.95 / 4} of {device}"]
        found.append(device)
    assert found == expected
    assert worker.device_of("cpu") == "cpu"


def test_a_rank_without_a_gpu_of_its_own_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    FakeCuda(2).install(monkeypatch)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(TrainError, match="rank 2 of this node has no GPU of its own: 2 are seen here"):
        worker.device_of("cuda")


def test_a_run_that_finds_no_memory_beside_others_is_told_of_them(store: Store, sweep: Callable[..., Path]) -> None:
    (run,) = planned(sweep("seeds: 1\nvariants: {a: {}}\n")).runs.values()
    store.register(run.id, run.recipe, run.parents, run.sources)
    attempt = store.claim(run.id, execution={})
    worker._fail(worker.Task(store, run.id, Execution(runs_per_gpu=4)), attempt, torch.OutOfMemoryError("no room"))
    exit = store.attempts(run.id)[0].exit
    assert exit
    assert (exit["class"], exit["message"]) == (
        "out-of-memory",
        "no room (runs_per_gpu: 4 leaves a run 1/4 of a GPU's memory: take fewer, or more accumulation)",
    )
