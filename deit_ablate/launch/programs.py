"""What must be there before runs of a program are launched on this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from deit_ablate.errors import InputError
from deit_ablate.execution import Execution
from deit_ablate.program import is_program, placeholders
from deit_ablate.sweep.plan import Run


def must_have(runs: Sequence[Run], execution: Execution) -> None:
    """Refuse commands that cannot be started here, or that are told a data folder where none is given (InputError)."""
    told = execution.program
    if told is None and any(is_program(run.recipe) for run in runs):
        problem = "a program trains it, and its sweep alone says where that is"
        expected = "the run by its sweep, as `deit-ablate retry SWEEP:ROW:SEED`"
        raise InputError(problem, where=runs[0].id, expected=expected)
    given = (run.recipe.get("program", {}).get("command") for run in runs)
    for command in {repr(command): command for command in given if command}.values():
        if any(name == "data" for _, name in placeholders(command)):
            _must_have_data(execution.data_dir)
        name = command[0]
        if "{" in name or told is None:
            continue
        found = shutil.which(name) if os.sep not in name else shutil.which(Path(told.folder) / name)
        if found is None:
            problem = f"{name!r} is no program that can be started here"
            where = (told.folder, 0, 0)
            expected = "a program on PATH, or an executable file below the folder of the sweep file"
            raise InputError(problem, where=where, key="command", expected=expected)
    if told is not None and not Path(told.folder).is_dir():
        raise InputError("no such folder", where=told.folder, expected="the folder of the sweep file")


def _must_have_data(folder: str | None) -> None:
    if folder is None:
        expected = "data.path in the sweep file, --data-dir or DEIT_ABLATE_DATA"
        raise InputError("the command is told {data}, and no folder is given", key="data.path", expected=expected)
    if not Path(folder).exists():
        raise InputError("no such file or folder", where=folder, key="data.path", expected="the data")
