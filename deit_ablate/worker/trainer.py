"""What a function that trains is given: ``main(parameters, run)``. Imports torch only where it is asked for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STATE = "state.pt"


@dataclass
class ProgramRun:
    """One attempt at a run, as its function sees it."""

    seed: int
    folder: Path
    """For whatever it writes; kept with the run."""
    checkpoint: Path
    """For what the next attempt goes on from; it moves along to that attempt. ``save`` and ``resume`` use it."""
    data: Path | None = None
    """The data's folder, where one is given."""
    parent: Path | None = None
    """The folder of the run that this one starts from (``from:`` of a stage)."""
    teacher: Path | None = None
    """The folder of its teacher's run."""
    wanted_device: str = "auto"
    note: Callable[[Mapping[str, Any]], None] = field(default=lambda values: None, repr=False)
    stop: Callable[[], bool] = field(default=lambda: False, repr=False)
    told_to_stop: bool = field(default=False, init=False)

    @property
    def device(self) -> str:
        """``cpu``, or the GPU that this run has, as ``cuda:0``. Imports torch. Raises TrainError where none is."""
        from deit_ablate.worker.run import device_of

        return device_of(self.wanted_device)

    def log(self, *, step: int | None = None, epoch: int | None = None, **metrics: float) -> None:
        """Report metrics: one line of the run's history. The last value of each is the run's."""
        where = {name: value for name, value in (("step", step), ("epoch", epoch)) if value is not None}
        self.note({**where, **metrics})

    def should_stop(self) -> bool:
        """Whether to save and return: the time is up, or the run was cancelled. It is asked for as often as one likes.

        A function that returns after True is gone on with later; so it must not be asked once all is done.
        """
        self.told_to_stop = self.told_to_stop or self.stop()
        return self.told_to_stop

    def save(self, state: Mapping[str, Any]) -> None:
        """Keep a state (tensors, numbers, texts, and dictionaries and lists of them) for the next attempt, whole or not
        at all."""
        import torch

        temporary = self.checkpoint / f".{STATE}"
        torch.save(dict(state), temporary)
        with temporary.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, self.checkpoint / STATE)

    def resume(self) -> dict[str, Any] | None:
        """The state that was saved last; None in a run that begins."""
        import torch

        path = self.checkpoint / STATE
        if not path.exists():
            return None
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return found


def check_resume(
    function: Callable[[dict[str, Any], ProgramRun], Any],
    parameters: Mapping[str, Any],
    folder: Path,
    *,
    seed: int = 0,
    stops: int = 3,
    **given: Any,
) -> None:
    """Assert that a function which is stopped and gone on with reports what it reports when it is left alone.

    It is called once from start to end, then stopped at the first, second, ... (up to ``stops``) question of
    ``should_stop`` and gone on with. ``folder``: an empty one, such as pytest's ``tmp_path``; ``given``: further fields
    of ``ProgramRun``, such as ``data``. Raises AssertionError, which says where the histories part.
    """
    folder = Path(folder)
    whole, asked = _history(function, parameters, folder / "whole", seed, [], given)
    assert asked, "it never asks should_stop(), so it cannot be stopped but by being killed"
    for stop in range(1, min(stops, asked) + 1):
        parted, _ = _history(function, parameters, folder / f"stopped-{stop}", seed, [stop], given)
        for place, (here, there) in enumerate(zip(parted, whole, strict=False)):
            assert here == there, f"stopped at question {stop}: line {place + 1} is {here}, uninterrupted {there}"
        assert len(parted) == len(whole), (
            f"stopped at question {stop}: {len(parted)} lines in all, uninterrupted {len(whole)}"
        )


def _history(
    function: Callable[[dict[str, Any], ProgramRun], Any],
    parameters: Mapping[str, Any],
    folder: Path,
    seed: int,
    stops: list[int],
    given: Mapping[str, Any],
) -> tuple[list[dict[str, Any]], int]:
    """The lines that it reports, attempts one after the other, and how often it has asked whether to stop."""
    lines: list[dict[str, Any]] = []
    asked, waiting = 0, list(stops)
    (folder / "checkpoint").mkdir(parents=True)

    def stop() -> bool:
        nonlocal asked
        asked += 1
        return bool(waiting) and asked == waiting[0]

    while True:
        output = folder / f"attempt-{len(stops) - len(waiting) + 1}"
        output.mkdir()
        run = ProgramRun(seed=seed, folder=output, checkpoint=folder / "checkpoint", stop=stop, **given)
        run.note = lambda values: lines.append(dict(values))
        function(dict(parameters), run)
        if not run.told_to_stop:
            return lines, asked
        waiting.pop(0)
