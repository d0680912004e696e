"""How runs are carried out, as the command line says it: over the sweep's ``execution:``, over the profile's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, get_args

import typer

from deit_ablate.errors import InputError
from deit_ablate.execution import Execution
from deit_ablate.launch.pool import may_have_gpu
from deit_ablate.recipe import names
from deit_ablate.sweep.overrides import validate
from deit_ablate.sweep.plan import Run
from deit_ablate.sweep.yaml import Node, assignment, merge

Parallel = Annotated[
    int | None, typer.Option("--parallel", min=1, help="Runs at once; by default one a core, or one a GPU.")
]
Device = Annotated[str | None, typer.Option("--device", help="auto, cpu or cuda.")]
DataDir = Annotated[Path | None, typer.Option("--data-dir", envvar="DEIT_ABLATE_DATA", help="Folder of the data set.")]
Loaders = Annotated[int | None, typer.Option("--loaders", min=0, help="Data-loading processes of a run.")]
Executor = Annotated[
    str | None, typer.Option("--executor", help="local, or slurm (its settings: --slurm.partition=..., and so on).")
]
Wait = Annotated[
    bool, typer.Option("--wait", help="On a cluster: stay, show progress, and submit again what ended early.")
]
More = Annotated[
    list[str] | None,
    typer.Option(
        "--execution",
        "-x",
        metavar="KEY=VALUE",
        help="Any key of `execution:`, such as ranks=2, accumulation=4, compile=true (may be given several times).",
    ),
]


def chosen(own: Execution, more: Sequence[str] | None, **given: Any) -> Execution:
    """The execution with what the command line says. Raises InputError for keys and values that do not exist."""
    node = Node({}, ("", 0, 0))
    for text in more or ():
        node = merge(node, assignment(text, "--execution"))
    asked = validate(Execution, node, ("execution",))
    values = {key: getattr(asked, key) for key in asked.model_fields_set}
    if "slurm" in values:
        given_slurm = {key: getattr(asked.slurm, key) for key in asked.slurm.model_fields_set}
        values["slurm"] = own.slurm.model_copy(update=given_slurm)
    values |= {
        key: str(value) if isinstance(value, Path) else value for key, value in given.items() if value is not None
    }
    executors = get_args(Execution.model_fields["executor"].annotation)
    if values.get("executor") not in (None, *executors):
        expected = " or ".join(executors)
        raise InputError(f"got {values['executor']!r}", where=("--executor", 0, 0), expected=expected)
    if values.get("device") not in (None, "auto", "cpu", "cuda", "mps"):
        raise InputError(f"got {values['device']!r}", where=("--device", 0, 0), expected="auto, cpu or cuda")
    return own.model_copy(update=values)


def must_have(execution: Execution, runs: Sequence[Run]) -> None:
    """Refuse a launch on this machine whose device or data folder is not there, which would fail every run."""
    if execution.device == "mps":
        raise InputError(
            "Apple's MPS is not supported by this version", where=("--device", 0, 0), expected="auto, cpu or cuda"
        )
    if runs and execution.device == "cuda" and not may_have_gpu():
        raise InputError("no CUDA device can be used here", where=("--device", 0, 0), expected="auto or cpu")
    for name in dict.fromkeys(run.recipe["data"]["name"] for run in runs):
        usual = names()["datasets"].get(name, {}).get("folder")
        folder = folder_of(name, execution)
        if usual is None or (folder is not None and folder.is_dir()):
            continue
        if folder is None or not execution.data_dir:
            debian = "" if usual == "--data-dir" else f", or Debian's package in {usual}"
            raise InputError(
                f"{name} lies in a folder, and none is given",
                expected=f"--data-dir DIR (or DEIT_ABLATE_DATA){debian}",
            )
        raise InputError(
            "no such folder", where=(str(folder), 0, 0), key="--data-dir", expected=f"the folder of {name}"
        )


def folder_of(data: str, execution: Execution) -> Path | None:
    """The folder in which a data set is to lie: the one that is given, else its usual place. None for one that is part
    of the package, and where the user has yet to say."""
    usual = names()["datasets"].get(data, {}).get("folder")
    if usual is None:
        return None
    if execution.data_dir:
        return Path(execution.data_dir)
    return None if usual == "--data-dir" else Path(usual)
