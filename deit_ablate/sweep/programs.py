"""``command:`` or ``trainer:`` of a sweep file: trainings by a program of one's own, and where its metrics are."""

from __future__ import annotations

import re
import shlex
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deit_ablate import files
from deit_ablate.errors import InputError, Position, Problems, TrainError, unknown_name
from deit_ablate.execution import MetricsFile, Needs, ProgramExecution
from deit_ablate.program import (
    FUNCTION,
    NAME,
    PLACES,
    Program,
    ProgramData,
    code_of,
    placeholders,
    source_files,
    undefined,
)
from deit_ablate.recipe import flatten
from deit_ablate.sweep.fields import OF_OURS, ProgramMetrics, StageFile, SweepFile
from deit_ablate.sweep.metrics import Metric, of_program
from deit_ablate.sweep.overrides import validate
from deit_ablate.sweep.space import SearchSettings
from deit_ablate.sweep.sweep import Sweep
from deit_ablate.sweep.trainers import OURS, OfProgram, Trainer, is_finite
from deit_ablate.sweep.yaml import Node, expand_dotted

ALONE = ("parameters", "sources", "data", "lock", "derived", "grace")
"""Keys of a sweep file that mean something beside ``command`` or ``trainer`` alone."""
NOT_BESIDE = ("profile", "by_profile", "recipe", "metric")
"""Keys that are of recipes of our trainer."""
ONE_RANK = ("a program starts its processes itself", "1, and a command such as `torchrun --nproc-per-node 2 train.py`")
"""What is wrong with several ranks of a program, and what was expected."""


@dataclass(frozen=True)
class ProgramFile:
    """What a sweep file says of its program."""

    trainer: OfProgram
    execution: ProgramExecution
    data_dir: str | None
    metric: Metric
    metrics: tuple[Metric, ...]

    def refuse_profile(self, profile: str | None) -> None:
        if profile:
            problem = "a program trains, and profiles are recipes of our trainer"
            raise InputError(problem, where=("--profile", 0, 0), expected="none, or --set")

    def over(self, sweep: Sweep, node: Node) -> Sweep:
        """The sweep with what follows from its program. Raises InputError."""
        given: list[tuple[list[str], Needs]] = [(["execution"], sweep.execution)]
        given += [(["resources", name], need) for name, need in sweep.resources.items()]
        for place, how in given:
            if how.ranks > 1:
                raise node.error([*place, "ranks"], *ONE_RANK)
        told: dict[str, Any] = {"program": self.execution}
        if sweep.execution.data_dir is None:
            told["data_dir"] = self.data_dir
        resources = dict(sweep.resources)
        for stage in sweep.stages[:-1]:  # whose runs are there for others, and need no metric of the verdicts
            optional = {"program": self.execution.model_copy(update={"required": False})}
            resources[stage.name] = resources.get(stage.name, Needs()).model_copy(update=optional)
        return replace(
            sweep,
            metrics=self.metrics,
            execution=sweep.execution.model_copy(update=told),
            resources=resources,
            search=sweep.search and self._searched(node, sweep.search),
        )

    def _searched(self, node: Node, search: SearchSettings) -> SearchSettings:
        """A search of its parameters, by its validation metric. Raises InputError."""
        if self.execution.metrics.validation is None:
            expected = "metrics.validation: the name of a metric of data that is no test data"
            problem = "a search chooses by a validation metric, and none is named"
            raise InputError(problem, where=search.where, key="metrics", expected=expected)
        asked = search.file.objective if "objective" in search.file.model_fields_set else None
        wanted = asked or ["highest" if self.metric.better == "higher" else "lowest"]
        if len(wanted) > 1 or wanted[0] in OF_OURS:
            where = node.locate(("search", "objective"))
            problem = f"got {', '.join(wanted)}"
            raise InputError(problem, where=where, key="search.objective", expected="highest or lowest")
        return replace(search, file=search.file.model_copy(update={"objective": wanted}))


def read_program(node: Node, parsed: SweepFile, path: Path) -> ProgramFile | None:
    """The program of a sweep file; None where our trainer trains. Raises InputError at the line of what is wrong.

    Its stages are known by ``check_stages``, once they are in order.
    """
    given = [key for key in ("command", "trainer") if node.get(key) is not None and node.value[key].value is not None]
    if not given and (alone := next((key for key in ALONE if key in node.value), None)):
        raise InputError(
            f"{alone} beside no program", where=node.keys[alone], key=alone, expected="command, or trainer, beside it"
        )
    if not given:
        return None
    if len(given) == 2:
        raise InputError("both command and trainer given", where=node.keys["trainer"], key="trainer", expected="one")
    for key in NOT_BESIDE:
        if key in node.value and node.value[key].value is not None:
            expected = "`metrics: {primary: ...}`" if key == "metric" else "parameters, which rows vary"
            problem = f"{key} is for recipes of our trainer, and here a program trains"
            raise InputError(problem, where=node.keys[key], key=key, expected=expected)
    folder = path.parent.resolve()
    parameters = read_parameters(node)
    programs = {"": _program(node, "", parsed.command, parsed.trainer)}
    for name, stage in (parsed.stages or {}).items():
        programs[name] = _of_stage(node, name, stage, programs[""])
    lock = _lock(node, parsed.lock, folder)
    programs = {name: program.model_copy(update={"lock": lock}) for name, program in programs.items()}
    used = programs if not parsed.stages else {name: program for name, program in programs.items() if name}
    _check_placeholders(node, parsed, used, parameters)
    facts = _facts(node, parsed.derived, [key for key, _ in flatten(parameters.plain())])
    data = parsed.data
    metrics, metric, others = read_metrics_of(node, parsed)
    trainer = OfProgram(
        used,
        parameters,
        ProgramData(id=data.id if data else None),
        _sources(node, parsed.sources, used, folder),
        facts,
        metrics.validation,
    )
    place = str((folder / Path(data.path).expanduser()).resolve()) if data and data.path else None
    execution = ProgramExecution(
        folder=str(folder), command=parsed.command is not None, metrics=metrics, grace=parsed.grace
    )
    return ProgramFile(trainer, execution, place, metric, others)


def trainer_of(program: ProgramFile | None) -> Trainer:
    return program.trainer if program else OURS


# -- the program -------------------------------------------------------------------------------------------------------


def read_parameters(node: Node) -> Node:
    given = node.get("parameters")
    if given is None or given.value is None:
        return Node({}, node.where)
    given = expand_dotted(given)
    if not isinstance(given.value, dict):
        raise InputError("no mapping", where=given.where, key="parameters", expected="parameters with their defaults")
    problems = Problems()
    for key, value in flatten(given.plain()):
        place, problem = given.locate(key.split("."), at_key=True), ""
        if not NAME.fullmatch(key):
            problem, expected = f"{key!r} cannot name a parameter", "letters, digits, _ and -, the first no digit"
        elif key.partition(".")[0] in PLACES:
            problem, expected = f"{key!r} is what a command is told beside its parameters", "another name"
        elif isinstance(value, list) and any(isinstance(each, (dict, list)) for each in value):
            problem, expected = "a list of lists or mappings", "a list of plain values, each an argument"
        elif not is_finite(value):
            problem, expected = f"got {value!r}", "a finite number"
        with problems.at():
            if problem:
                raise InputError(problem, where=place, key=f"parameters.{key}", expected=expected)
    problems.refuse()
    return given


def _program(node: Node, at: str, command: str | list[str] | None, function: str | None) -> Program:
    key = f"{at}{'command' if command is not None else 'trainer'}"
    where = node.locate(key.split("."))
    if function is not None:
        problem = undefined(function) if FUNCTION.fullmatch(function) else f"got {function!r}"
        if problem:
            raise InputError(problem, where=where, key=key, expected="module:function of a module on PYTHONPATH")
        return Program(function=function)
    try:
        parts = shlex.split(command) if isinstance(command, str) else list(command or [])
        if not parts:
            raise ValueError("an empty command")
        list(placeholders(parts))
    except ValueError as error:
        expected = "a program and its arguments, with {parameters} in braces"
        raise InputError(str(error), where=where, key=key, expected=expected) from None
    return Program(command=parts)


def _of_stage(node: Node, name: str, stage: StageFile, base: Program) -> Program:
    if stage.command is None:
        return base
    if base.command is None:
        where = node.locate(("stages", name, "command"))
        raise InputError("a command beside trainer", where=where, key=f"stages.{name}.command", expected="none")
    return _program(node, f"stages.{name}.", stage.command, None)


def _check_placeholders(node: Node, parsed: SweepFile, programs: Mapping[str, Program], parameters: Node) -> None:
    """Raises InputError for a placeholder that is nothing, and for a parameter that no command is told."""
    known, problems = [key for key, _ in flatten(parameters.plain())], Problems()
    told: set[str] = set()
    for stage, program in programs.items():
        of = (parsed.stages or {}).get(stage)
        key = f"stages.{stage}.command" if of and of.command is not None else "command"
        names = [name for _, name in placeholders(program.command or [])]
        for name in names:
            with problems.at():
                _check_placeholder(name, of, known, node.locate(key.split(".")), key)
        told.update(names)
        if program.command is not None and "seed" not in names and "DEIT_ABLATE_SEED" not in " ".join(program.command):
            expected = "{seed} among its arguments (or DEIT_ABLATE_SEED read by the program, named in `parameters`)"
            with problems.at():
                where = node.locate(key.split("."))
                raise InputError("the command is not told the seed", where=where, key=key, expected=expected)
    problems.refuse()  # a command with an error may be meant to tell more
    for name in known if all(program.command is not None for program in programs.values()) else ():
        with problems.at():
            if name not in told:
                at = parameters.locate(name.split("."), at_key=True)
                expected = f"{{{name}}} in the command, or no such parameter"
                raise InputError("no command is told it", where=at, key=f"parameters.{name}", expected=expected)
    problems.refuse()


def _check_placeholder(name: str, of: StageFile | None, known: Sequence[str], where: Position, key: str) -> None:
    if name not in known and name not in PLACES:
        raise unknown_name("no parameter", name, [*known, *PLACES], where=where, key=key)
    role = {"parent": of.from_ if of else None, "teacher": of.teacher if of else None}
    if name in role and role[name] is None and not (name == "teacher" and of and of.from_):
        expected = f"a stage with `{'from' if name == 'parent' else 'teacher'}:`"
        problem = f"{{{name}}} where no other stage is one's {name}"
        raise InputError(problem, where=where, key=key, expected=expected)
    if name == "log":
        raise InputError("{log} in a command", where=where, key=key, expected="{log} in metrics.file alone")


def _sources(node: Node, patterns: Sequence[str], programs: Mapping[str, Program], folder: Path) -> dict[str, str]:
    """The code that is part of runs' ids: what ``sources`` names, the files that a command names as its arguments, and
    the module of a function with all own code that it imports."""
    found: dict[str, str] = {}
    place = node.locate(("sources",))
    for at, pattern in enumerate(patterns):
        try:
            found |= source_files([pattern], folder)
        except TrainError as error:
            where = node.locate(("sources", at))
            raise InputError(str(error), where=where, key=f"sources.{at}", expected="files beside the sweep") from None
    for program in programs.values():
        try:
            named = [part for part in program.command or [] if _is_code(part, folder)]
            found |= source_files(named, folder)
            found |= code_of(program.function) if program.function else {}
        except TrainError as error:
            raise InputError(str(error), where=place, key="sources", expected="code that can be read") from None
    return dict(sorted(found.items()))


def _is_code(argument: str, folder: Path) -> bool:
    inside = not Path(argument).is_absolute() and ".." not in Path(argument).parts
    return inside and bool(re.fullmatch(r"[^{}*?\[\]]+\.(py|sh)", argument)) and (folder / argument).is_file()


def _lock(node: Node, lock: str | None, folder: Path) -> str | None:
    if lock is None:
        return None
    path = folder / Path(lock).expanduser()
    try:
        return f"sha256:{files.sha256(path)}"
    except OSError as error:
        where = node.locate(("lock",))
        problem = f"{path} cannot be read ({error.strerror})"
        raise InputError(problem, where=where, key="lock", expected="a file of package versions") from None


def _facts(node: Node, derived: list[str] | dict[str, list[str]], known: Sequence[str]) -> dict[str, tuple[str, ...]]:
    named = derived if isinstance(derived, dict) else {fact: [] for fact in derived}
    for fact, keys in named.items():
        for key in keys:
            if key not in known:
                where = node.locate(("derived", fact))
                raise unknown_name("no parameter", key, list(known), where=where, key=f"derived.{fact}")
    return {fact: tuple(keys) for fact, keys in named.items()}


# -- its metrics -------------------------------------------------------------------------------------------------------


def read_metrics_of(node: Node, parsed: SweepFile) -> tuple[MetricsFile, Metric, tuple[Metric, ...]]:
    block = node.get("metrics")
    where: Position = node.keys.get("metrics", node.where)
    if block is None or not isinstance(block.value, dict):
        expected = (
            "a mapping with file, primary and better, as {file: '{run}/metrics.jsonl', primary: top1, better: higher}"
        )
        raise InputError("nothing says which metrics there are", where=where, key="metrics", expected=expected)
    given = validate(ProgramMetrics, block, ("metrics",))
    if parsed.command is not None and given.file is None:
        expected = "where the command writes its metrics, as '{run}/summary.csv', or '{log}' with a pattern"
        raise InputError("the key 'file' is missing", where=where, key="metrics", expected=expected)
    if given.file is not None:
        _check_file(block, given)
    predicted = given.predictions is not None and given.unit == "%"
    where = block.locate(("primary",))
    metric = of_program(given.primary, given.better, given.unit, given.digits, where, predicted)
    if given.validation == given.primary:
        problem, expected = "the metric that tables report, too", "one of data that is no test data, or none"
        place = block.locate(("validation",))
        said = InputError(problem, where=place, key="metrics.validation", expected=expected)
        warnings.warn(str(said), stacklevel=2)
    others = []
    for at, other in enumerate(given.columns):
        if other != given.primary:
            others.append(of_program(other, None, None, None, block.locate(("columns", at))))
    read = MetricsFile(
        file=given.file,
        pattern=given.pattern,
        primary=given.primary,
        validation=given.validation,
        predictions=given.predictions,
    )
    return read, metric, tuple(others)


def _check_file(block: Node, given: ProgramMetrics) -> None:
    file, where = given.file or "", block.locate(("file",))
    problem, expected = "", ""
    names = set(_braced(file))
    if not names <= {"run", "log"} or not names:
        problem, expected = f"got {file!r}", "a path below {run}, as '{run}/summary.csv', or '{log}'"
    elif given.pattern is None and not file.endswith((".jsonl", ".csv", ".json")):
        problem, expected = f"{file!r} is none of .jsonl, .csv and .json", "one of these, or a pattern beside it"
    elif given.pattern is not None and file.endswith((".jsonl", ".csv", ".json")):
        problem, expected = f"a pattern beside {file!r}, which is read as what it is", "no pattern"
    if problem:
        raise InputError(problem, where=where, key="metrics.file", expected=expected)
    if given.pattern is not None and given.primary not in re.compile(given.pattern).groupindex:
        where = block.locate(("primary",))
        groups: Iterable[str] = re.compile(given.pattern).groupindex
        raise unknown_name("the pattern has no group", given.primary, list(groups), where=where, key="metrics.primary")


def _braced(text: str) -> list[str]:
    return re.findall(r"\{([^{}]*)\}", text)
