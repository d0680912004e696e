"""Trackers that follow a launch: what they get, and that a dead or stuck one costs the launch a warning."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from studies import Study
from support import Command, planned, run_of, state

from deit_ablate.launch.jobs import Progress
from deit_ablate.report.trackers import live
from deit_ablate.report.trackers.live import Live
from deit_ablate.store import Store

pytest.importorskip("tensorboard")
TRACKED = "execution: {track: [tensorboard]}\nseeds: 1\nvariants: {a: {}, b: {schedule.epochs: 3}}\n"


def progress(study: Study, *, going: list[str], ended: list[str]) -> Progress:
    return Progress(2, {run: state(study.store, run) for run in study.runs.values()}, going, ended=ended)


def test_a_launch_is_followed(command: Command, sweep: Callable[..., Path]) -> None:
    path = sweep(TRACKED)
    said = command("run", path)
    assert "warning" not in said.stdout + said.stderr
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    store, folder = Store(command.folder / "results"), command.folder / "results" / "tiny" / "tensorboard"
    for row in ("a", "b"):
        run = run_of(planned(path), row).id
        events = EventAccumulator(str(folder / f"{row}_0 {run[:8]}"))
        events.Reload()
        losses = [(line["step"], pytest.approx(line["train_loss"])) for line in store.history(run)]
        assert [(event.step, event.value) for event in events.Scalars("train_loss")] == losses
        (attempt,) = store.attempts(run)
        assert attempt.owner["execution"].keys().isdisjoint({"track", "notify"})
        assert len(events.Scalars("final/test/top1")) == 1


def test_a_dead_tracker_is_a_warning(command: Command, sweep: Callable[..., Path]) -> None:
    (command.folder / "results" / "tiny").mkdir(parents=True)
    (command.folder / "results" / "tiny" / "tensorboard").touch()
    said = command("run", sweep(TRACKED))
    (warning,) = [line for line in said.stdout.splitlines() if "warning" in line]
    assert warning.startswith("warning: tensorboard is not kept up to date: [Errno 20] Not a directory: ")
    assert warning.endswith("; `deit-ablate export tiny --to tensorboard` sends what is missing")


def test_a_stuck_tracker_is_not_waited_for(study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its process is stopped: what is passed on stays in the pipe, then here, until it is given up."""
    made, said = study({"a": {0: 90.0}, "b": {0: "running"}}), list[str]()
    done, running = made.runs.values()
    following = Live("tensorboard", made.store, "study", said.append)
    following(progress(made, going=[running], ended=[]))
    assert following.process
    os.kill(following.process.pid, signal.SIGSTOP)
    monkeypatch.setattr(live, "MOST_WAITING", 1 << 16)
    for _ in range(3000):
        following(progress(made, going=[running], ended=[done]))
    following.close()
    assert len(said) == 1
    assert said[0].startswith("warning: tensorboard is not kept up to date: it takes nothing; ")


def test_the_end_is_waited_for_but_not_for_long(study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch) -> None:
    made, said = study({"a": {0: 90.0}}), list[str]()
    (done,) = made.runs.values()
    following = Live("tensorboard", made.store, "study", said.append)
    following(progress(made, going=[], ended=[done]))
    assert following.process
    os.kill(following.process.pid, signal.SIGSTOP)
    monkeypatch.setattr(live, "LAST_SECONDS", 0.2)
    following.close()
    assert said[0].startswith("warning: tensorboard is not kept up to date: it has not taken everything within 0.2 s; ")


def test_what_goes_on_when_a_launch_ends_is_sent_too(study: Callable[..., Study]) -> None:
    made, said = study({"a": {0: "running"}}), list[str]()
    (run,) = made.runs.values()
    following = Live("tensorboard", made.store, "study", said.append)
    following(progress(made, going=[run], ended=[]))
    following.close()
    assert said == []
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(made.root / "study" / "tensorboard" / f"a_0 {run[:8]}"))
    events.Reload()
    assert [event.step for event in events.Scalars("lr")] == [10, 20, 30, 40]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["execution: {track: [tensorbord]}\n"], "tiny.yaml:"),
        (["", "-x", "track=tensorbord"], "error: --execution: execution.track: no tracker 'tensorbord'; did you mean"),
    ],
)
def test_an_unknown_tracker_is_an_error_where_it_is_named(
    command: Command, sweep: Callable[..., Path], given: list[str], says: str
) -> None:
    text, *options = given
    path = sweep(f"{text}variants: {{a: {{}}}}\n")
    said = command("run", path, *options, code=2)
    assert says in said.stderr
    assert "execution.track: no tracker 'tensorbord'; did you mean 'tensorboard'?" in said.stderr
    assert not (command.folder / "results").exists()
