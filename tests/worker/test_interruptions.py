"""Interruption changes nothing: whoever is killed, whenever, the result is bit for bit that of an undisturbed run."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Command, planned, result, wait_for

from deit_ablate.launch.jobs import Report
from deit_ablate.launch.pool import ProcessPool
from deit_ablate.store import Store, cleanup, owner

SWEEP = "seeds: 1\nvariants: {a: {schedule.epochs: 6, data.train_images: 320}}\n"
"""60 steps with everything random switched on: about a second, an epoch every sixth of it."""


@pytest.fixture(scope="session")
def undisturbed(pool: ProcessPool, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The result that every disturbed run must have, and the seconds that it takes."""
    from support import TINY

    from deit_ablate.execution import Execution
    from deit_ablate.launch.jobs import Job

    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "tiny.yaml").write_text(TINY + SWEEP)
    run = next(iter(planned(folder / "tiny.yaml").runs.values()))
    store = Store(folder / "results")
    store.register(run.id, run.recipe, run.parents, run.sources)
    pool.submit(Job(str(store.root), run.id, Execution(device="cpu")))
    wait_for(lambda: pool.poll(0.05))
    outcome = store.outcome(run.id)
    assert outcome
    return {"run": run.id, "result": result(store, run.id), "seconds": outcome["cost"]["wall_seconds"]}


def worker_pid(store: Store, run: str) -> int | None:
    attempts = store.attempts(run)
    last = attempts[-1].owner if attempts and attempts[-1].exit is None else {}
    return last["pid"] if last and not owner.provably_gone(last) else None


class Killer:
    """Asked at each poll of a launcher, it kills the run's worker at random instants of its life."""

    def __init__(self, store: Store, run: str, seconds: float, draw: random.Random, most: int):
        self.store, self.run, self.seconds, self.draw, self.most = store, run, seconds, draw, most
        self.struck: list[int] = []
        self.until = 0.0

    def __call__(self) -> bool:
        """Never asks the launcher itself to stop."""
        pid = worker_pid(self.store, self.run)
        if pid is None or len(self.struck) >= self.most:
            self.until = time.monotonic() + self.draw.uniform(0, self.seconds)
        elif time.monotonic() >= self.until and pid not in self.struck:
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
    path, run, draw = sweep(SWEEP), str(undisturbed["run"]), random.Random(loaders)
    struck = rounds = 0
    while struck < 12:
        rounds += 1
        assert rounds <= 20, f"only {struck} blows struck home"
        store = Store(tmp_path / f"round{rounds}")
        killer = Killer(store, run, 0.8 * float(str(undisturbed["seconds"])), draw, most=5)
        for _ in range(10):
            # Killed twice is a failure, which a user retries.
            report = launch(path, into=store, stop=killer, loaders=loaders, retry=frozenset({run}))
            if report.states[run].finished:
                break
        assert result(store, run) == undisturbed["result"]
        struck += sum((attempt.exit or {}).get("class") == "killed" for attempt in store.attempts(run))


@pytest.mark.parametrize("victims", ["the launcher", "the launcher and all its processes"])
def test_launchers_killed_at_random_instants(
    command: Command, sweep: Callable[..., Path], undisturbed: dict[str, object], victims: str
) -> None:
    sweep(SWEEP)
    store, run = Store(command.folder / "results"), str(undisturbed["run"])
    draw = random.Random(victims)
    for _ in range(3):
        launcher = command.start("run", "tiny.yaml")
        wait_for(lambda launcher=launcher: worker_pid(store, run) or launcher.poll() is not None)
        time.sleep(draw.uniform(0, 0.7) * float(str(undisturbed["seconds"])))
        family = [launcher.pid]
        if victims != "the launcher":
            family += [pid for pid in descendants(launcher.pid) if pid != launcher.pid] + [
                pid for pid in [worker_pid(store, run)] if pid
            ]
        for pid in family:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        launcher.communicate()
    command("run", "tiny.yaml", code=None)
    if store.outcome(run) is None:
        command("retry", "tiny")
    assert result(store, run) == undisturbed["result"]


def descendants(pid: int) -> list[int]:
    listing = subprocess.run(["ps", "-e", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(line.split()[0]): int(line.split()[1]) for line in listing.splitlines()}
    found, waiting = [], [pid]
    while waiting:
        current = waiting.pop()
        found.append(current)
        waiting += [child for child, parent in parents.items() if parent == current]
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_next_run_goes_on(
    command: Command, sweep: Callable[..., Path], undisturbed: dict[str, object], number: int
) -> None:
    sweep(SWEEP)
    store, run = Store(command.folder / "results"), str(undisturbed["run"])
    launcher = command.start("run", "tiny.yaml")
    wait_for(lambda: store.history(run))
    launcher.send_signal(number)
    out, _ = launcher.communicate(timeout=60)
    assert launcher.returncode == 130, out
    assert "what ran was saved" in out
    if store.outcome(run) is None:
        last = store.attempts(run)[-1]
        assert last.exit is not None
        assert last.exit["class"] == "interrupted"
        assert last.checkpoint.exists()
    command("run", "tiny.yaml")
    assert result(store, run) == undisturbed["result"]
    lines = [line["epoch"] for line in store.history(run)]
    assert lines == list(range(6)), "one file is one whole history"


def test_two_launchers_at_the_same_moment_train_every_run_once(command: Command, sweep: Callable[..., Path]) -> None:
    sweep("seeds: 3\nvariants:\n  a: {schedule.epochs: 4}\n  b: {augment.mixup: 0}\n")
    both = [command.start("run", "tiny.yaml") for _ in range(2)]
    outs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outs
    store = Store(command.folder / "results")
    assert len(store.runs()) == 6
    for run in store.runs():
        trained = [a for a in store.attempts(run) if (a.exit or {}).get("class") == "done"]
        assert len(trained) == 1
        assert len([a for a in store.attempts(run) if (a.exit or {}).get("class") not in ("done", "superseded")]) == 0
    tables = [out[out.index("# tiny") :].strip() for out in outs]
    assert tables[0] == tables[1]


def test_a_stopped_worker_is_not_taken_over(command: Command, sweep: Callable[..., Path]) -> None:
    path = sweep("seeds: 1\nvariants: {long: {schedule.epochs: 40}}\n")
    run = next(iter(planned(path).runs))
    store = Store(command.folder / "results")
    first = command.start("run", "tiny.yaml")
    pid = wait_for(lambda: worker_pid(store, run))
    os.kill(pid, signal.SIGSTOP)
    second = command.start("run", "tiny.yaml")
    time.sleep(3)
    assert len(store.attempts(run)) == 1
    assert second.poll() is None, "it waits for the first one's run"
    os.kill(pid, signal.SIGCONT)
    outs = [process.communicate(timeout=60)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], outs
    assert len(store.attempts(run)) == 1


def test_damaged_checkpoints_and_torn_lines_are_survived(
    launch: Callable[..., Report], store: Store, sweep: Callable[..., Path], undisturbed: dict[str, object]
) -> None:
    path, run = sweep(SWEEP), str(undisturbed["run"])
    launch(path, stop=lambda: bool(store.history(run)))
    if store.outcome(run) is None:
        last = store.attempts(run)[-1]
        whole = last.checkpoint.read_bytes()
        last.checkpoint.write_bytes(whole[: len(whole) // 2])
        with open(last.metrics, "ab") as handle:
            handle.write(b'{"epoch": 3, "tr')
        launch(path)
        log = store.attempts(run)[-1].log.read_text()
        assert "passed over" in log
        assert "ckpt.pt" in log
    assert result(store, run) == undisturbed["result"]


def test_a_run_killed_between_its_last_checkpoint_and_its_outcome_keeps_its_weights(
    launch: Callable[..., Report], store: Store, sweep: Callable[..., Path], undisturbed: dict[str, object]
) -> None:
    path, run = sweep(SWEEP), str(undisturbed["run"])
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
        path, run, store = sweep(SWEEP), str(undisturbed["run"]), Store(disk / "results")
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
