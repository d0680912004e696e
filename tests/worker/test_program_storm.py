"""Runs of a command under kills of every kind: none is lost, none is executed twice at once, and each ends as if left
alone."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from programs import Programs, Worker

from deit_ablate import files
from deit_ablate.execution import SAVED
from deit_ablate.store import Store

TRAIN = """\
import fcntl, json, os, signal, subprocess, sys, time
run, kept, shared = (os.environ["DEIT_ABLATE_" + name] for name in ("RUN_DIR", "CHECKPOINT_DIR", "DATA"))
lock = open(shared + "/lock", "a")
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except OSError:
    open(shared + "/twice", "a").write("x")
open(shared + "/starts", "a").write("x")
# What it starts holds the lock as well, as long as it lives: in its session, or as a daemon in one of its own.
sleep = [sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"]
os.set_inheritable(lock.fileno(), True)
children = [subprocess.Popen(sleep, close_fds=False, start_new_session=alone) for alone in (True, False)]
state = kept + "/epoch"
begin = int(open(state).read()) if os.path.exists(state) and "plain" not in sys.argv else 0
stop = []
if "plain" not in sys.argv:
    signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
with open(run + "/m.jsonl", "a", buffering=1) as file:
    for epoch in range(begin, 6):
        print(json.dumps({"epoch": epoch, "top1": 50 + epoch}), file=file)
        with open(state + ".new", "w") as new:
            new.write(str(epoch + 1))
        os.replace(state + ".new", state)
        while os.path.exists(shared + "/wait") and epoch == 2 and not stop:
            time.sleep(0.01)
        if stop:
            time.sleep(0.3)  # saving takes a while
            open(kept + "/saved", "w").close()
            sys.exit(0 if "zero" in sys.argv else 75)
while os.path.exists(shared + "/wait"):
    time.sleep(0.01)
for child in children:
    child.kill()
"""
WHOLE = [(epoch, 50 + epoch) for epoch in range(6)]


@dataclass
class Lab:
    """One run of a script, and how the worker is told to execute it."""

    programs: Programs
    command: list[str] = field(default_factory=list)
    told: dict[str, Any] = field(default_factory=lambda: {"file": "{run}/m.jsonl", "primary": "top1", "grace": 5})

    @property
    def store(self) -> Store:
        return self.programs.store

    @property
    def shared(self) -> Path:
        """The folder of the data."""
        return files.make_folder(self.programs.folder / "shared")

    def register(self, script: str) -> str:
        self.programs.script(script)
        return self.programs.registered(self.command, seed=1)

    def start(self, run: str) -> Worker:
        return self.programs.start(run, data_dir=str(self.shared), **self.told)


@pytest.fixture
def lab(programs: Programs) -> Lab:
    return Lab(programs)


def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError, IndexError):
            if holds():
                return
        assert time.monotonic() < end, "not within a minute"
        time.sleep(0.02)


def command(*words: str, shell: bool = False) -> list[str]:
    given = [sys.executable, "train.py", *words, "{seed}"]
    return ["sh", "-c", '"$@"; exit $?', "sh", *given] if shell else given


def history(lab: Lab, run: str) -> list[tuple[int, float]]:
    return [(line["epoch"], line["metrics"]["top1"]) for line in lab.store.history(run)]


def must_be_whole(lab: Lab, run: str) -> None:
    assert (lab.store.outcome(run) or {})["metrics"]["program"]["top1"] == 55
    assert history(lab, run) == WHOLE
    assert not (lab.shared / "twice").exists()


def started(lab: Lab, run: str, lines: int = 3) -> Worker:
    """A worker whose command waits after this many lines."""
    (lab.shared / "wait").touch()
    worker = lab.start(run)
    until(lambda: len(lab.store.history(run)) >= lines)
    return worker


def kill(worker: Worker) -> None:
    worker.send_signal(signal.SIGKILL)
    worker.wait()  # until it is gone, a next attempt has to leave the run to it


def let_go(lab: Lab) -> None:
    (lab.shared / "wait").unlink()


@pytest.mark.parametrize(("words", "shell"), [((), False), (("plain",), True)])
def test_what_a_killed_worker_leaves_is_ended_before_the_next_attempt(
    lab: Lab, words: tuple[str, ...], shell: bool
) -> None:
    lab.command = command(*words, shell=shell)
    run = lab.register(TRAIN)
    kill(started(lab, run))
    let_go(lab)
    assert lab.start(run).wait(60) == 0
    must_be_whole(lab, run)
    assert (lab.shared / "starts").read_text() == "xx"


def test_what_a_command_leaves_running_is_ended_with_it(lab: Lab) -> None:
    lab.command = command("plain")
    run = lab.register(TRAIN.replace("    child.kill()", "    pass"))
    assert lab.start(run).wait(60) == 0
    assert subprocess.call(["flock", "--nonblock", str(lab.shared / "lock"), "true"]) == 0


def test_lines_that_a_killed_worker_had_not_read_are_not_lost(lab: Lab) -> None:
    lab.command = command(shell=True)
    run = lab.register(TRAIN)
    worker = started(lab, run)
    worker.send_signal(signal.SIGSTOP)
    let_go(lab)
    until(lambda: len((lab.store.attempt(run, 1).output / "m.jsonl").read_text().splitlines()) == 6)
    assert len(lab.store.history(run)) == 3
    kill(worker)
    assert lab.start(run).wait(60) == 0
    must_be_whole(lab, run)


def test_one_that_is_killed_at_its_very_end_has_nothing_left_to_do(lab: Lab) -> None:
    lab.command = command()
    run = lab.register(TRAIN.replace("epoch == 2", "epoch == 5"))
    kill(started(lab, run, lines=6))
    let_go(lab)
    assert lab.start(run).wait(60) == 0
    must_be_whole(lab, run)


def test_attempts_that_end_before_they_report_lose_nothing_of_those_before(lab: Lab) -> None:
    lab.command = command()
    run = lab.register(TRAIN.replace("run, kept", "time.sleep(5 * os.path.exists('slow'))\nrun, kept"))
    kill(started(lab, run))
    (lab.programs.folder / "slow").touch()
    worker = lab.start(run)
    until(lambda: lab.store.attempt(run, 2).kept.is_dir())
    kill(worker)
    (lab.programs.folder / "slow").unlink()
    let_go(lab)
    assert lab.start(run).wait(60) == 0
    must_be_whole(lab, run)


@pytest.mark.parametrize(("words", "shell"), [((), True), (("zero",), False)])
def test_one_that_is_told_to_stop_has_its_grace_and_is_not_done(lab: Lab, words: tuple[str, ...], shell: bool) -> None:
    lab.command, lab.told["grace"] = command(*words, shell=shell), 60
    run = lab.register(TRAIN.replace("signal.signal(15, signal.SIG_IGN); ", ""))
    worker = started(lab, run)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == SAVED
    assert lab.programs.ended(run)[0] == "interrupted"
    assert (lab.store.attempt(run, 1).kept / "saved").exists(), "killed while it was saving"
    let_go(lab)
    assert lab.start(run).wait(60) == 0
    must_be_whole(lab, run)


ENDS = {
    "exit 1": ("crash", "exit code 1"),
    "exit 137": ("killed", "SIGKILL"),
    "exit 143": ("killed", "SIGTERM"),
    "kill -9 $$": ("killed", "SIGKILL"),
    "exit 255": ("crash", "exit code 255"),
    "head -c 1000000 /dev/zero | tr '\\0' x; exit 3": ("crash", "exit code 3"),
}


@pytest.mark.parametrize("script", ENDS)
def test_how_a_command_has_ended_is_said(lab: Lab, script: str) -> None:
    lab.command = ["sh", "-c", script, "{run}", "{seed}"]
    run = lab.register("")
    assert lab.start(run).wait() == 1
    how, words = lab.programs.ended(run)
    assert how == ENDS[script][0]
    assert ENDS[script][1] in words
    assert len(words) < 2000


@pytest.mark.parametrize("progress", [False, True])
def test_saved_and_more_to_do_needs_progress(lab: Lab, progress: bool) -> None:
    save = 'echo >> "$1/n"; test $(wc -l < "$1/n") -ge 5 && echo "top1=1" && exit 0\n' if progress else ""
    lab.command = ["sh", "-c", f"{save}exit 75", "{run}", "{checkpoint}", "{seed}"]
    lab.told = {"file": "{log}", "pattern": "^top1=(?P<top1>.*)", "primary": "top1"}
    run = lab.register("")
    codes = []
    while (state := lab.store.states({run: ()})[run]).name in ("missing", "resumable"):
        codes.append(lab.start(run).wait(60))
    assert (state.name, codes) == (("done", [75] * 4 + [0]) if progress else ("failed", [75] * 3))


SWEEP = """
title: A storm
command: ["sh", "-c", '"$@"; exit $?', sh, {python}, train.py, "{{mode}}", "{{seed}}"]
parameters: {{mode: plain}}
data: {{path: {shared}}}
sources: [train.py]
metrics: {{file: "{{run}}/m.jsonl", primary: top1, better: higher}}
seeds: 3
baseline: plain
variants: {{plain: {{}}, goes on: {{mode: resume}}}}
"""


@pytest.mark.storm
@pytest.mark.parametrize("seed", [0, 1])
def test_a_storm_of_kills_over_a_sweep_of_a_command(tmp_path: Path, seed: int) -> None:
    draw = random.Random(seed)
    shared = tmp_path / "shared"
    shared.mkdir()
    one_each = TRAIN.replace('shared + "/lock"', 'shared + "/lock" + "-".join(sys.argv[1:])')
    (tmp_path / "train.py").write_text(
        one_each.replace("        while os", "        time.sleep(0.4)\n        while os")
    )
    (tmp_path / "s.yaml").write_text(SWEEP.format(python=sys.executable, shared=shared))

    def launch(*words: str) -> subprocess.Popen[bytes]:
        with (tmp_path / "out.txt").open("ab") as out:
            line = [sys.executable, "-m", "deit_ablate", *words]
            return subprocess.Popen(line, cwd=tmp_path, stdout=out, stderr=out, start_new_session=True)

    launchers, stopped, end = [launch("run", "s.yaml", "--parallel", "3") for _ in range(2)], [], time.monotonic() + 60
    while time.monotonic() < end:
        again = ("retry", "s") if (tmp_path / "results/s/plan.json").exists() else ("run", "s.yaml")
        launchers = [each if each.poll() is None else launch(*again, "--parallel", "3") for each in launchers]
        time.sleep(draw.uniform(0.1, 0.8))
        for pid in draw.sample(found := processes(tmp_path), min(1, len(found))):
            number = draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGSTOP])
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
                stopped += [pid] if number == signal.SIGSTOP else []
        for pid in [stopped.pop(0)] if len(stopped) > 2 else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
    for pid in stopped:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    for each in launchers:
        each.wait(120)
    for _ in range(5):
        if launch("run", "s.yaml").wait(120) == 0 or launch("retry", "s").wait(120) == 0:
            break
    store = Store(tmp_path / "results")
    assert len(store.runs()) == 6
    for run in store.runs():
        assert (store.outcome(run) or {})["metrics"]["program"]["top1"] == 55, (tmp_path / "out.txt").read_text()
        assert [line["epoch"] for line in store.history(run)] == list(range(6))
    assert not (shared / "twice").exists()
    assert processes(tmp_path) == []


def processes(folder: Path) -> list[int]:
    """Those that work in this folder."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/{name}/cwd") == str(folder):
                found.append(int(name))
    return found
