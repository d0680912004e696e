"""``command:`` or ``trainer:`` of a sweep file: trainings by a program of one's own, and where its metrics are."""

from __future__ import annotations

import re
import shlex
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from deit_ablate import files
from deit_ablate.errors import Problems, TrainError
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
from deit_ablate.sweep.trainers import OfProgram, no_parameter
from deit_ablate.sweep.yaml import Node, expand_dotted

ALONE = ("parameters", "sources", "data", "lock", "derived", "grace")
"""Keys of a sweep file that mean something beside ``command`` or ``trainer`` alone."""
NOT_BESIDE = ("profile", "by_profile", "recipe", "metric")
"""Keys that are of recipes of our trainer."""
ONE_RANK = ("a program starts its processes itself", "1, slurm.gpus, and `torchrun --nproc-per-node 2 train.py`")
"""What is wrong with several ranks of a program, and what was expected."""


@dataclass(frozen=True)
class ProgramFile:
    """What a sweep file says of its program."""

    trainer: OfProgram
    execution: ProgramExecution
    data_dir: str | None
    metric: Metric
    metrics: tuple[Metric, ...]

    def over(self, sweep: Sweep, node: Node) -> Sweep:
        """The sweep with what follows from its program. Raises InputError."""
        for path, how in [("execution", sweep.execution), *((f"resources {n}", h) for n, h in sweep.resources.items())]:
            if how.ranks > 1:
                raise node.error([*path.split(" ", 1), "ranks"], *ONE_RANK)
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
            raise node.error("metrics", "a search chooses by a validation metric, and none is named", expected)
        asked = search.file.objective if "objective" in search.file.model_fields_set else None
        wanted = asked or ["highest" if self.metric.better == "higher" else "lowest"]
        if len(wanted) > 1 or wanted[0] in OF_OURS:
            raise node.error(("search", "objective"), f"got {', '.join(wanted)}", "highest or lowest")
        return replace(search, file=search.file.model_copy(update={"objective": wanted}))


def trained_by(node: Node) -> list[str]:
    """The keys of a sweep file that name a program in place of our trainer: one at most in a sound one."""
    return [key for key in ("command", "trainer") if node.part(key).plain() not in (None, {})]


def read_program(node: Node, parsed: SweepFile, path: Path) -> ProgramFile | None:
    """The program of a sweep file; None where our trainer trains. Raises InputError at the line of what is wrong."""
    given = trained_by(node)
    for key in ALONE if not given else ():
        if key in node.value:
            raise node.error(key, f"{key} beside no program", "command, or trainer, beside it", at_key=True)
    for name, stage in (parsed.stages or {}).items():
        if stage.command is not None and "command" not in given:
            problem = f"a command beside {'trainer' if given else 'no command of the sweep'}"
            expected = "none" if given else "`command:` of the sweep beside it, or none: our trainer trains"
            raise node.error(("stages", name, "command"), problem, expected)
    if not given:
        return None
    if len(given) == 2:
        raise node.error("trainer", "both command and trainer given", "one", at_key=True)
    for key in NOT_BESIDE:
        if node.part(key).plain() not in (None, {}):
            expected = "`metrics: {primary: ...}`" if key == "metric" else "parameters, which rows vary"
            problem = f"{key} is for recipes of our trainer, and here a program trains"
            raise node.error(key, problem, expected, at_key=True)
    folder = path.parent.resolve()
    parameters = read_parameters(node)
    programs = {"": _program(node, given, parsed.command, parsed.trainer)}
    for name, stage in (parsed.stages or {}).items():
        own = stage.command is not None
        programs[name] = _program(node, ("stages", name, "command"), stage.command, None) if own else programs[""]
    lock = _lock(node, parsed.lock, folder)
    programs = {name: program.model_copy(update={"lock": lock}) for name, program in programs.items()}
    used = programs if not parsed.stages else {name: program for name, program in programs.items() if name}
    known, data, problems = [key for key, _ in flatten(parameters.plain())], parsed.data, Problems()
    with problems.at():
        _check_placeholders(node, parsed, used, parameters)
    with problems.at():
        metrics, metric, others = _metrics(node, parsed)
    problems.refuse()
    facts = parsed.derived if isinstance(parsed.derived, dict) else {fact: [] for fact in parsed.derived}
    for fact, keys in facts.items():
        for key in (key for key in keys if key not in known):
            raise node.unknown(("derived", fact), "no parameter", key, known)
    trainer = OfProgram(
        used,
        parameters,
        ProgramData(id=data.id if data else None),
        _sources(node, parsed.sources, used, folder),
        {fact: tuple(keys) for fact, keys in facts.items()},
        metrics.validation,
    )
    place = str((folder / Path(data.path).expanduser()).resolve()) if data and data.path else None
    execution = ProgramExecution(
        folder=str(folder), command=parsed.command is not None, metrics=metrics, grace=parsed.grace
    )
    return ProgramFile(trainer, execution, place, metric, others)


# -- the program -------------------------------------------------------------------------------------------------------


def read_parameters(node: Node) -> Node:
    """The parameters with their defaults. Raises InputError."""
    given, problems = expand_dotted(node.part("parameters")), Problems()
    if given.value is None:
        return Node({}, node.where)
    if not isinstance(given.value, dict):
        raise node.error("parameters", "no mapping", "parameters with their defaults")
    for key, value in flatten(given.plain()):
        problem, expected = no_parameter(value)
        if not NAME.fullmatch(key):
            problem, expected = f"{key!r} cannot name a parameter", "letters, digits, _ and -, the first no digit"
        elif key.partition(".")[0] in PLACES:
            problem, expected = f"{key!r} is what a command is told beside its parameters", "another name"
        if problem:
            problems.add(given.error(key.split("."), problem, expected, under="parameters.", at_key=True))
    problems.refuse()
    return given


def _program(node: Node, path: Sequence[str], command: str | list[str] | None, function: str | None) -> Program:
    if function is not None:
        if problem := undefined(function) if FUNCTION.fullmatch(function) else f"got {function!r}":
            raise node.error(path, problem, "module:function of a module on PYTHONPATH")
        return Program(function=function)
    try:
        parts = shlex.split(command) if isinstance(command, str) else list(command or [])
        if not parts:
            raise ValueError("an empty command")
        list(placeholders(parts))
    except ValueError as error:
        raise node.error(path, str(error), "a program and its arguments, with {parameters} in braces") from None
    return Program(command=parts)


def _check_placeholders(node: Node, parsed: SweepFile, programs: Mapping[str, Program], parameters: Node) -> None:
    """Raises InputError for a placeholder that is nothing, and for a parameter that no command is told."""
    known, problems = [key for key, _ in flatten(parameters.plain())], Problems()
    told: set[str] = set()
    for stage, program in programs.items():
        of = (parsed.stages or {}).get(stage)
        path = ("stages", stage, "command") if of and of.command is not None else ("command",)
        names = [name for _, name in placeholders(program.command or [])]
        for name in names:
            with problems.at():
                _check_placeholder(node, path, name, of, known)
        told.update(names)
        if program.command is not None and "seed" not in names and "DEIT_ABLATE_SEED" not in " ".join(program.command):
            expected = "{seed} among its arguments (or DEIT_ABLATE_SEED read by the program, named in `parameters`)"
            problems.add(node.error(path, "the command is not told the seed", expected))
    problems.refuse()  # a command with an error may be meant to tell more
    for name in known if all(program.command is not None for program in programs.values()) else ():
        if name not in told:
            problem, expected = "no command is told it", f"{{{name}}} in the command, or no such parameter"
            problems.add(parameters.error(name.split("."), problem, expected, under="parameters.", at_key=True))
    problems.refuse()


def _check_placeholder(node: Node, path: Sequence[str], name: str, of: StageFile | None, known: Sequence[str]) -> None:
    if name not in known and name not in PLACES:
        raise node.unknown(path, "no parameter", name, [*known, *PLACES])
    role = {"parent": of.from_ if of else None, "teacher": of.teacher if of else None}
    if name in role and role[name] is None and not (name == "teacher" and of and of.from_):
        expected = f"a stage with `{'from' if name == 'parent' else 'teacher'}:`"
        raise node.error(path, f"{{{name}}} where no other stage is one's {name}", expected)
    if name == "log":
        raise node.error(path, "{log} in a command", "{log} in metrics.file alone")


def _sources(node: Node, patterns: Sequence[str], programs: Mapping[str, Program], folder: Path) -> dict[str, str]:
    """The code that is part of runs' ids: what ``sources`` names, the files that a command names as its arguments, and
    the module of a function with all own code that it imports."""
    found: dict[str, str] = {}
    for at, pattern in enumerate(patterns):
        try:
            found |= source_files([pattern], folder)
        except TrainError as error:
            raise node.error(("sources", at), str(error), "files beside the sweep") from None
    for program in programs.values():
        try:
            found |= source_files([part for part in program.command or [] if _is_code(part, folder)], folder)
            found |= code_of(program.function) if program.function else {}
        except TrainError as error:
            raise node.error("sources", str(error), "code that can be read") from None
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
        problem = f"{path} cannot be read ({error.strerror})"
        raise node.error("lock", problem, "a file of package versions") from None


# -- its metrics -------------------------------------------------------------------------------------------------------


def _metrics(node: Node, parsed: SweepFile) -> tuple[MetricsFile, Metric, tuple[Metric, ...]]:
    """Where they are, that of the verdicts, and further columns. Raises InputError."""
    block = node.part("metrics")
    if "metrics" not in node.value or not isinstance(block.value, dict):
        expected = (
            "a mapping with file, primary and better, as {file: '{run}/metrics.jsonl', primary: top1, better: higher}"
        )
        raise node.error("metrics", "nothing says which metrics there are", expected, at_key=True)
    given = validate(ProgramMetrics, block, "metrics.")
    if parsed.command is not None and given.file is None:
        expected = "where the command writes its metrics, as '{run}/summary.csv', or '{log}' with a pattern"
        raise node.error("metrics", "the key 'file' is missing", expected, at_key=True)
    if given.file is not None:
        _check_file(block, given.file, given)
    if given.validation == given.primary:
        expected = "one of data that is no test data, or none"
        said = node.error(("metrics", "validation"), "the metric that tables report, too", expected)
        warnings.warn(str(said), stacklevel=2)
    predicted = given.predictions is not None and given.unit == "%"
    where = block.locate("primary")
    metric = of_program(given.primary, given.better, given.unit, given.digits, where, predicted)
    for at, other in enumerate(given.columns):
        if other in given.columns[:at]:
            raise block.error(("columns", at), f"{other!r} twice", "each once", under="metrics.")
    others = [
        of_program(other, None, None, None, block.locate(("columns", at)))
        for at, other in enumerate(given.columns)
        if other != given.primary
    ]
    return MetricsFile(**given.model_dump(include=set(MetricsFile.model_fields))), metric, tuple(others)


def _check_file(block: Node, file: str, given: ProgramMetrics) -> None:
    problem, expected = "", ""
    names, known_form = set(re.findall(r"\{([^{}]*)\}", file)), file.endswith((".jsonl", ".csv", ".json"))
    groups = re.compile(given.pattern).groupindex if given.pattern is not None else {}
    if not names <= {"run", "log"} or not names:
        problem, expected = f"got {file!r}", "a path below {run}, as '{run}/summary.csv', or '{log}'"
    elif given.pattern is None and not known_form:
        problem, expected = f"{file!r} is none of .jsonl, .csv and .json", "one of these, or a pattern beside it"
    elif given.pattern is not None and known_form:
        problem, expected = f"a pattern beside {file!r}, which is read as what it is", "no pattern"
    if problem:
        raise block.error("file", problem, expected, under="metrics.")
    if given.pattern is not None and given.primary not in groups:
        raise block.unknown("primary", "the pattern has no group", given.primary, list(groups), under="metrics.")
