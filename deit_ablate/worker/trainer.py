"""What a function that trains is given: ``main(parameters, run)``. Imports torch only where it is asked for it."""

from __future__ import annotations

import copy
import itertools
import os
import random
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

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
    kept: Callable[[], None] = field(default=lambda: None, repr=False)
    told_to_stop: bool = field(default=False, init=False)
    used_device: str | None = field(default=None, init=False)

    @property
    def device(self) -> str:
        """``cpu``, or the GPU that this run has, as ``cuda:0``. Imports torch. Raises TrainError where none is."""
        if self.used_device is None:
            from deit_ablate.worker.run import device_of

            self.used_device = device_of(self.wanted_device)
        return self.used_device

    def log(self, *, step: int | None = None, epoch: int | None = None, **metrics: Any) -> None:
        """Report metrics, which are numbers (or arrays and tensors of one): one line of the run's history. The last
        value of each is the run's. Raises TypeError for what is no number."""
        where = {name: value for name, value in (("step", step), ("epoch", epoch)) if value is not None}
        self.note({**where, **{name: _number(name, value) for name, value in metrics.items()}})

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
        self.kept()

    def resume(self) -> dict[str, Any] | None:
        """The state that was saved last; None in a run that begins."""
        import torch

        path = self.checkpoint / STATE
        if not path.exists():
            return None
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return found


def _number(name: str, value: Any) -> float | int:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    if not hasattr(value, "__float__"):
        raise TypeError(f"log({name}=...): {type(value).__name__} is no number")
    return float(value)


def check_resume(
    function: Callable[[dict[str, Any], ProgramRun], Any],
    parameters: Mapping[str, Any],
    folder: Path,
    *,
    seed: int = 0,
    stops: int = 3,
    **given: Any,
) -> None:
    """Assert that a function which is stopped and gone on with reports what it reports when it is left alone, and
    returns the same (such as a model's ``state_dict()``), bit for bit.

    It is called once from start to end, then stopped at the first, second, ... (up to ``stops``) question of
    ``should_stop`` and gone on with. Before each call the generators of ``random``, NumPy and torch are set to another
    state, as in a process of its own. ``folder``: an empty one, such as pytest's ``tmp_path``; ``given``: further
    fields of ``ProgramRun``, such as ``data``. Raises AssertionError, which says where the two part.
    """
    folder = Path(folder)
    whole = _called(function, parameters, folder / "whole", seed, None, given)
    assert whole.asked, "it never asks should_stop(), so it cannot be stopped but by being killed"
    for stop in range(1, min(stops, whole.asked) + 1):
        parted = _called(function, parameters, folder / f"stopped-{stop}", seed, stop, given)
        where = f"stopped at question {stop}"
        for place, (here, there) in enumerate(zip(parted.lines, whole.lines, strict=False), start=1):
            assert repr(here) == repr(there), f"{where}: line {place} is {here}, uninterrupted {there}"
        lines = len(parted.lines), len(whole.lines)
        assert lines[0] == lines[1], f"{where}: {lines[0]} lines in all, uninterrupted {lines[1]}"
        parts = _parting(parted.returned, whole.returned)
        assert parts is None, f"{where}: what it returns is another{parts}"


@dataclass
class _Called:
    """What a function has done, in all of its attempts."""

    lines: list[dict[str, Any]] = field(default_factory=list)
    asked: int = 0
    """How often it has asked whether to stop."""
    returned: Any = None


def _called(
    function: Callable[[dict[str, Any], ProgramRun], Any],
    parameters: Mapping[str, Any],
    folder: Path,
    seed: int,
    stop_at: int | None,
    given: Mapping[str, Any],
) -> _Called:
    """Call it until it has ended, told to stop at that question."""
    done = _Called()
    (folder / "checkpoint").mkdir(parents=True)

    def stop() -> bool:
        done.asked += 1
        return done.asked == stop_at

    for attempt in itertools.count(1):
        output = folder / f"attempt-{attempt}"
        output.mkdir()
        run = ProgramRun(seed=seed, folder=output, checkpoint=folder / "checkpoint", stop=stop, **given)
        run.note = lambda values: done.lines.append(dict(values))
        _scramble(f"{folder.name} {attempt}")
        done.returned = function(copy.deepcopy(dict(parameters)), run)
        if not run.told_to_stop:
            break
    return done


def _scramble(what: str) -> None:
    """Set the generators of this process to some other state: a new process would not have this one's."""
    import numpy as np
    import torch

    number = zlib.crc32(what.encode())
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def _parting(here: Any, there: Any, at: str = "") -> str | None:
    """Where two values part, as " at ['model']['weight']"; None where they are the same, bit for bit."""
    import numpy as np
    import torch

    if isinstance(here, Mapping) and isinstance(there, Mapping) and here.keys() == there.keys():
        parts = (_parting(here[key], there[key], f"{at}[{key!r}]") for key in here)
    elif isinstance(here, (list, tuple)) and isinstance(there, (list, tuple)) and len(here) == len(there):
        parts = (_parting(*pair, f"{at}[{index}]") for index, pair in enumerate(zip(here, there, strict=True)))
    else:
        if isinstance(here, torch.Tensor) and isinstance(there, torch.Tensor):
            same = here.dtype == there.dtype and here.shape == there.shape and torch.equal(_bits(here), _bits(there))
        elif isinstance(here, np.ndarray) and isinstance(there, np.ndarray):
            same = here.dtype == there.dtype and here.shape == there.shape and here.tobytes() == there.tobytes()
        else:  # of objects of other kinds nothing is known but that they are of one kind
            known = isinstance(here, (str, bytes, int, float, np.generic, Mapping, list, tuple))
            same = type(here) is type(there) and (not known or repr(here) == repr(there))
        return None if same else f" at {at}" if at else ""
    return next((part for part in parts if part is not None), None)


def _bits(tensor: torch.Tensor) -> torch.Tensor:
    import torch

    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
