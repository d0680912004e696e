"""Runs as commands that somebody else's queue executes: a shell script, a Makefile, or a list for programs."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from deit_ablate.errors import InputError
from deit_ablate.execution import OF_THE_LAUNCHER, Execution
from deit_ablate.launch.jobs import Work
from deit_ablate.launch.policy import STARTABLE
from deit_ablate.launch.slurm_script import cpus, gpus

_NAMED = {"device": "--device", "data_dir": "--data-dir", "loaders": "--loaders"}
"""Fields of an execution that have an option of their own."""


def train_command(results: Path, execution: Execution) -> list[str]:
    """The command that trains one run in the foreground, under this execution; the run's id follows. A program's file
    and metrics are not named: the file of its sweep says them."""
    command = ["deit-ablate", "train", "--results", str(results)]
    told = execution.model_dump(exclude={*OF_THE_LAUNCHER, "program"}, exclude_defaults=True)
    for name, value in told.items():
        # JSON is YAML, as which -x reads a value.
        command += [_NAMED[name], str(value)] if name in _NAMED else ["-x", f"{name}={json.dumps(value)}"]
    return command


@dataclass(frozen=True)
class Command:
    """One run, as a queue needs to know it."""

    id: str
    name: str
    command: list[str]
    parents: list[str]
    """Those among the same commands."""
    needs: dict[str, int]
    """ranks (processes), threads and cpus of each, and gpus of all."""


def commands(work: Work) -> list[Command]:
    """The runs of some work that may start, parents first: neither done nor running, nor to be retried first."""
    found: dict[str, Command] = {}
    for run in work.runs.values():
        if work.states[run.id].name in STARTABLE:
            parents = [parent for parent in run.above if parent in found]
            how = work.execution_of(run.id)
            needs = {"ranks": how.ranks, "threads": how.threads, "cpus": cpus(how), "gpus": gpus(how)}
            command = [*train_command(work.store.root, how), run.id]
            found[run.id] = Command(run.id, work.labels[run.id], command, parents, needs)
    return list(found.values())


def shell(found: Sequence[Command], title: str) -> str:
    """A script for sh that trains one run after the other, and goes on where one fails."""
    lines = [
        "#!/bin/sh",
        *(f"# {line}" for line in _about(found, title)),
        "# Ends with 0 where all are done, 1 where a run failed, 75 where something is saved or in other hands: again.",
        "code=0",
        "trap 'exit 75' INT TERM",
        "train() {",
        '    ${DEIT_ABLATE:-deit-ablate} train "$@" && return',
        "    case $? in 75) test $code = 0 && code=75 ;; *) code=1 ;; esac",
        "}",
    ]
    for each in found:
        lines += [f"# {_comment(each.name)} ({each.id})", shlex.join(each.command[1:])]
    return "\n".join([*lines, "exit $code", ""])


def makefile(found: Sequence[Command], title: str) -> str:
    """A Makefile with a target for each run, which needs those of its parents. Raises InputError for a line break in a
    path, which no line of a recipe can hold."""
    ids = " ".join(each.id for each in found)
    lines = [
        *(f"# {line}" for line in _about(found, title)),
        "# `make -k -j4` goes on where a run fails.",
        "DEIT_ABLATE ?= deit-ablate",
        f".PHONY: all {ids}".rstrip(),
        f"all: {ids}".rstrip(),
    ]
    for each in found:
        line = shlex.join(each.command[1:]).replace("$", "$$")
        if re.search(r"[\r\n]", line):
            raise InputError(
                "a Makefile cannot hold a line break in a path", where="--commands", expected="shell or json"
            )
        lines += [f"# {_comment(each.name)} ({each.id})", f"{each.id}: {' '.join(each.parents)}".rstrip()]
        lines += [f"\t$(DEIT_ABLATE) {line}"]
    return "\n".join([*lines, ""])


def as_json(found: Sequence[Command], title: str) -> str:
    """A list of commands with what each needs; ``title`` has no place in it."""
    return json.dumps([asdict(each) for each in found], indent=1) + "\n"


FORMS = {"shell": shell, "make": makefile, "json": as_json}


def _about(found: Sequence[Command], title: str) -> list[str]:
    return [
        f"{_comment(title)}: {len(found)} runs that are missing, parents first.",
        "For the folder in which `deit-ablate plan` was called. It may be run again, and several times at once: each",
        "run is trained once. The variable DEIT_ABLATE names another command than deit-ablate.",
    ]


def _comment(text: str) -> str:
    """Without what would end a comment's line."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", " ", text)
