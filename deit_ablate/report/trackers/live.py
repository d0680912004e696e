"""Runs in trackers as they go: the launcher passes on which of them are to be looked at, and a process a tracker reads
their files and sends what is new.

However slow or dead a tracker is, the launcher waits for it at its own end alone, and not for long.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from deit_ablate.errors import InputError
from deit_ablate.execution import hosts_only, how_ended, last_printed, own_process
from deit_ablate.launch.jobs import RETRYABLE, Progress
from deit_ablate.report.trackers.exporters import Destination, Sending
from deit_ablate.report.trackers.runs import TrackedRun, points, scores, tracked_runs
from deit_ablate.store import State, Store

LOOK_SECONDS = 2.0
"""Between two looks at runs that go on."""
LAST_SECONDS = 20.0
"""At the end of a launch, for what a tracker has not taken yet."""
MOST_WAITING = 1 << 20
"""Bytes that wait for a tracker's process; beyond that it is given up."""


class Live:
    """What a launch shows, passed on to one tracker. It never raises, and says once what goes wrong."""

    def __init__(self, tracker: str, store: Store, sweep: str, say: Callable[[str], None]) -> None:
        self.tracker, self.store, self.sweep, self.say = tracker, store, sweep, say
        self.process: subprocess.Popen[bytes] | None = None
        """Started when there is something to pass on: a launch that only submits jobs has nothing."""
        self.begun = self.given_up = False
        self.printed = tempfile.TemporaryFile("a+b")  # noqa: SIM115
        self.waiting = b""
        self.open: dict[str, State] = {}
        """Runs that go on, as they stood at the last look."""
        self.looked = float("-inf")

    def __call__(self, progress: Progress) -> None:
        """Pass on what has ended, and now and then what goes on: a write that never waits."""
        if self.given_up:
            return
        over = {run: progress.states[run] for run in progress.ended if _over(progress.states[run])}
        self.open |= {run: progress.states[run] for run in [*progress.started, *progress.running, *progress.ended]}
        for run in over:
            del self.open[run]
        due = time.monotonic() - self.looked > LOOK_SECONDS and not self.waiting
        if over or (due and self.open):
            self.looked = time.monotonic()
            self._pass_on(list(self.open), over)
        elif self.process and self.process.poll() is not None:
            self._give_up(f"its process {how_ended(self.process.returncode)}")
        else:
            self._write()

    def close(self) -> None:
        """Pass on how the runs stand that have not ended, and wait for the tracker, but not for long."""
        if self.given_up or not self.begun:
            return
        self._pass_on([], self.open)
        end = time.monotonic() + LAST_SECONDS
        while self.process and self.waiting and time.monotonic() < end:
            time.sleep(0.05)
            self._write()
        if self.process is None:
            return
        assert self.process.stdin
        with contextlib.suppress(OSError):
            self.process.stdin.close()
        try:
            code = self.process.wait(max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._give_up(f"it has not taken everything within {LAST_SECONDS:g} s")
        else:
            if code:
                self._give_up(f"its process {how_ended(code)}")

    def _pass_on(self, going: list[str], over: dict[str, State]) -> None:
        if not self.begun:
            self._start()
        message = {"going": going, "over": {run: asdict(state) for run, state in over.items()}}
        self.waiting += json.dumps(message).encode() + b"\n"
        self._write()

    def _start(self) -> None:
        self.begun = True
        command = own_process(__name__, self.tracker, str(self.store.root), self.sweep)
        try:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=self.printed, stderr=self.printed, start_new_session=True
            )
        except OSError as error:
            self._give_up(f"its process cannot be started ({error})")
            return
        assert self.process.stdin
        os.set_blocking(self.process.stdin.fileno(), False)

    def _write(self) -> None:
        if self.process is None or not self.waiting:
            return
        assert self.process.stdin
        try:
            self.waiting = self.waiting[os.write(self.process.stdin.fileno(), self.waiting) :]
        except BlockingIOError:
            if len(self.waiting) > MOST_WAITING:
                self._give_up("it takes nothing")
        except OSError:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(1)
            self._give_up("its process takes no more")

    def _give_up(self, why: str) -> None:
        process, self.process, self.given_up = self.process, None, True
        last: list[str] = []
        if process is not None and process.poll() is None:
            process.kill()
            process.wait()
        elif process is not None:  # it has said why, before it ended by itself
            last = last_printed(self.printed).splitlines()[-1:]
        again = f"`deit-ablate export {self.sweep} --to {self.tracker}` sends what is missing"
        self.say(f"warning: {self.tracker} is not kept up to date: {hosts_only(last[0]) if last else why}; {again}")


def _over(state: State) -> bool:
    return state.at_rest or state.name in RETRYABLE


class Following:
    """The tracker's process: it reads what the runs have recorded, and sends what is new."""

    def __init__(self, tracker: str, root: str, sweep: str) -> None:
        """Raises InputError or OSError, as its methods do."""
        self.store, self.sweep = Store(root), sweep
        self.sending = Sending(tracker, Destination(sweep, self.store.sweeps.folder(sweep) / tracker))
        self.known: dict[str, TrackedRun] = {}

    def look(self, message: dict[str, Any]) -> None:
        """Send what is new of the runs that go on, and how those stand that are over."""
        over = {run: State(**state) for run, state in message["over"].items()}
        wanted = [*message["going"], *over]
        if not self.known.keys() >= set(wanted):
            self.known |= tracked_runs(self.store, self.store.sweeps.sound_plan(self.sweep) or {"cells": []}, wanted)
        for run in [self.known[run] for run in wanted if run in self.known]:
            epochs = points(self.store, run)
            self.sending.send(run, epochs)
            if run.id in over:
                self.sending.end(run, over[run.id], scores(self.store, run, epochs))


def main(arguments: list[str]) -> int:
    """Follow the messages on standard input; returns 1, after one line, where the tracker takes no more."""
    os.nice(10)  # what trains comes first
    try:
        following = Following(*arguments)
        for line in sys.stdin:
            following.look(json.loads(line))
        following.sending.close()
    except (InputError, OSError) as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(1)  # without what a library does at its end, which may wait for a server
    return 0
