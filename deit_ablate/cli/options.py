"""Arguments and options that several commands share, and the execution that they add up to."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from deit_ablate.errors import InputError
from deit_ablate.execution import Execution, hosts_only
from deit_ablate.sweep.overrides import validate
from deit_ablate.sweep.yaml import Node, assignment, merge

SweepArgument = Annotated[
    str, typer.Argument(help="A sweep file, a sweep's name under the results folder, or a shipped sweep's name.")
]
KnownSweep = Annotated[str, typer.Argument(help="A sweep's name under the results folder, or its file.")]
Profile = Annotated[
    str | None,
    typer.Option(
        "--profile",
        help="Run the study at another scale: digits, glyphs, fashion-mnist-small, fashion-mnist, imagenet.",
    ),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Override a recipe key for all rows; another study, in a folder of its own."
    ),
]
Only = Annotated[
    list[str] | None, typer.Option("--only", metavar="VARIANT", help="Only this row (may be given several times).")
]
Seeds = Annotated[
    int | None,
    typer.Option(
        "--seeds",
        min=1,
        max=1000,
        help="Train seeds 0 to N-1: fewer than the file says, or more, which join the study.",
    ),
]
Name = Annotated[str | None, typer.Option("--name", help="Another name for the study's folder.")]
Trials = Annotated[
    int | None, typer.Option("--trials", min=1, max=10_000, help="Trials of each row of a search, for the file's.")
]
Confirm = Annotated[
    bool,
    typer.Option(
        "--confirm",
        help="After a search: its best trials on fresh seeds, then the best of these on new ones, for the table.",
    ),
]
UntilDecided = Annotated[
    bool,
    typer.Option(
        "--until-decided",
        help="Look at the rows as planned (looks:, by default at 3, 6, 9 and 12 seeds), stop those that are decided, "
        "and go on with the others.",
    ),
]
Budget = Annotated[
    str | None,
    typer.Option(
        "--budget",
        metavar="TIME",
        help="Machine time for this command, such as 90m, 2h or 1.5d: the time of its runs, added up over those that "
        "go on at once.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Don't ask for confirmation.")]
VerifyData = Annotated[
    bool,
    typer.Option(
        "--verify-data",
        help="First hash every picture whole, and refuse data of which one has changed since they were hashed first.",
    ),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse a sweep whose rows differ from the baseline in more than they declare.")
]
AllowNoEffect = Annotated[
    bool, typer.Option("--allow-no-effect", help="Run a sweep of which a row is, bit for bit, another's training too.")
]
Json = Annotated[
    bool, typer.Option("--json", help="End with one JSON object on standard output; progress goes to standard error.")
]
Target = Annotated[
    str, typer.Argument(help="A sweep or its file, sweep:variant, sweep:variant:seed[:stage], or a run's id.")
]

Parallel = Annotated[
    int | None,
    typer.Option("--parallel", min=1, help="Runs at once; by default one a core, or one a GPU (runs_per_gpu)."),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda", "mps"] | None, typer.Option("--device", help="Where a run is computed.")
]
DataDir = Annotated[Path | None, typer.Option("--data-dir", envvar="DEIT_ABLATE_DATA", help="Folder of the data set.")]
Loaders = Annotated[int | None, typer.Option("--loaders", min=0, help="Data-loading processes of a run.")]
Executor = Annotated[
    str | None,
    typer.Option(
        "--executor",
        help="local, slurm (its settings: --slurm.partition=..., and so on), or one that a package registers.",
    ),
]
Shared = Annotated[
    bool,
    typer.Option("--shared", help="From now on, what is made in the results folder is for others as the umask says."),
]
Wait = Annotated[
    bool, typer.Option("--wait", help="On a cluster: stay, show progress, and submit again what ended early.")
]
ExecutionSets = Annotated[
    list[str] | None,
    typer.Option(
        "--execution",
        "-x",
        metavar="KEY=VALUE",
        help="Any key of `execution:`, such as ranks=2, accumulation=4, compile=true (may be given several times).",
    ),
]


UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
"""Units of a time on the command line, in seconds."""


def seconds(text: str | None) -> float | None:
    """The time of ``--budget``, in seconds; None for none. Raises InputError."""
    if text is None:
        return None
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)([smhd])", text.strip())
    if found is None or not 0 < (value := float(found[1]) * UNITS[found[2]]) < 1e10:
        expected = "a number above 0 and a unit, s, m, h or d, such as 90m or 2h"
        raise InputError(f"got {text!r}", where="--budget", expected=expected)
    return value


def given_execution(sets: Sequence[str] | None, **given: Any) -> Execution:
    """What the command line says: KEY=VALUE ``sets``, then options that have a name of their own. Nothing else is set.

    Raises InputError for keys and values that do not exist.
    """
    node = Node({}, ("", 0, 0))
    for text in sets or ():
        node = merge(node, assignment(text, "--execution"))
    parsed = validate(Execution, node, "execution.")
    values = {key: str(own) if isinstance(own, Path) else own for key, own in given.items() if own is not None}
    return parsed.model_copy(update=values)


def command_line() -> str:
    """The command as records keep it: without absolute paths and secrets, so that they can be shown to others."""
    parts = [re.sub(r"\bnotify=.*", "notify=...", hosts_only(part), flags=re.DOTALL) for part in sys.argv[1:]]
    return shlex.join(["deit-ablate", *(re.sub(r"(^|=)/\S*/(?=[^/])", r"\1.../", part) for part in parts)])
