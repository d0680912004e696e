"""Before a launch: what is needed that is not there, and what a worker can tell without training."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from deit_ablate import files
from deit_ablate.errors import InputError
from deit_ablate.execution import Execution, how_ended, worker_answers
from deit_ablate.identity import canonical_json, contents, hub_names, with_files
from deit_ablate.launch.jobs import Work
from deit_ablate.launch.pool import may_have_gpu, visible_gpus
from deit_ablate.names import PACKAGE, fact, hashes, keep_answer, kept_answer
from deit_ablate.program import is_program, placeholders
from deit_ablate.recipe import flatten
from deit_ablate.store import Store
from deit_ablate.store.datafacts import data_lines
from deit_ablate.sweep.effects import Pair
from deit_ablate.sweep.overrides import disagreement
from deit_ablate.sweep.plan import Run
from deit_ablate.sweep.yaml import Node


def must_have(execution: Execution, runs: Sequence[Run]) -> None:
    """Refuse a launch on this machine whose device or data folder is not there, which would fail every run."""
    if execution.device == "mps":
        raise InputError("Apple's MPS is not supported by this version", where="--device", expected="auto, cpu or cuda")
    if runs and execution.device == "cuda" and not may_have_gpu():
        raise InputError("no CUDA device can be used here", where="--device", expected="auto or cpu")
    gpus = visible_gpus() if execution.device in ("auto", "cuda") else []
    if execution.runs_per_gpu > 1 and not gpus:
        raise InputError("there is no GPU here for runs to share", key="execution.runs_per_gpu", expected="1")
    if gpus and execution.ranks > len(gpus):
        problem = f"{execution.ranks} ranks need a GPU each, and {len(gpus)} can be seen here"
        raise InputError(problem, key="execution.ranks", expected=f"at most {len(gpus)}, or --device cpu")
    _must_have_programs(runs, execution)
    for name in dict.fromkeys(run.recipe["data"]["name"] for run in runs if not is_program(run.recipe)):
        usual = fact("datasets", name, "folder")
        folder = data_folder(name, execution)
        if usual is None or (folder is not None and folder.is_dir()):
            continue
        if folder is None or not execution.data_dir:
            debian = "" if usual == "--data-dir" else f", or Debian's package in {usual}"
            expected = f"--data-dir DIR (or DEIT_ABLATE_DATA){debian}"
            raise InputError(f"{name} lies in a folder, and none is given", expected=expected)
        raise InputError("no such folder", where=str(folder), key="--data-dir", expected=f"the folder of {name}")


def _must_have_programs(runs: Sequence[Run], execution: Execution) -> None:
    """Refuse commands that cannot be started here, or that are told a data folder where none is given (InputError)."""
    told = execution.program
    if told is None and any(is_program(run.recipe) for run in runs):
        problem = "a program trains it, and its sweep alone says where that is"
        expected = "the run by its sweep, as `deit-ablate retry SWEEP:ROW:SEED`"
        raise InputError(problem, where=runs[0].id, expected=expected)
    given = (run.recipe.get("program", {}).get("command") for run in runs)
    for command in {repr(command): command for command in given if command}.values():
        if any(name == "data" for _, name in placeholders(command)):
            _must_have_data_of_programs(execution.data_dir)
        name = command[0]
        if "{" in name or told is None:
            continue
        found = shutil.which(name) if os.sep not in name else shutil.which(Path(told.folder) / name)
        if found is None:
            problem = f"{name!r} is no program that can be started here"
            expected = "a program on PATH, or an executable file below the folder of the sweep file"
            raise InputError(problem, where=told.folder, key="command", expected=expected)
    if told is not None and not Path(told.folder).is_dir():
        raise InputError("no such folder", where=told.folder, expected="the folder of the sweep file")


def _must_have_data_of_programs(folder: str | None) -> None:
    if folder is None:
        expected = "data.path in the sweep file, --data-dir or DEIT_ABLATE_DATA"
        raise InputError("the command is told {data}, and no folder is given", key="data.path", expected=expected)
    if not Path(folder).exists():
        raise InputError("no such file or folder", where=folder, key="data.path", expected="the data")


def beside_table(execution: Execution, runs: Iterable[Run]) -> Execution:
    """The execution, whose data folder is that of the table that the runs' ``data.file`` names, unless one is given.

    Raises InputError where tables of several folders are named."""
    if execution.data_dir:
        return execution
    named = ((run.weights, run.recipe["data"].get("file")) for run in runs if not is_program(run.recipe))
    folders = sorted({str(paths[file].resolve().parent) for paths, file in named if file in paths})
    if len(folders) > 1:
        problem = f"the paths in tables of several folders ({', '.join(folders)}) are relative to one data folder"
        raise InputError(problem, key="data.file", expected="--data-dir DIR")
    return execution.model_copy(update={"data_dir": folders[0]}) if folders else execution


def data_folder(data: str, execution: Execution) -> Path | None:
    """The folder in which a data set is to lie: the one that is given, else its usual place. None for one that is part
    of the package, and where the user has yet to say."""
    usual = fact("datasets", data, "folder")
    if usual is None:
        return None
    if execution.data_dir:
        return Path(execution.data_dir)
    return None if usual == "--data-dir" else Path(usual)


def worth_a_preflight(work: Work) -> bool:
    """Whether a login node can tell more than that a shipped data set is there, which is not worth its time."""
    runs = [run for run in work.to_come() if not is_program(run.recipe)]
    folders = [data_folder(run.recipe["data"]["name"], work.execution) for run in runs]
    fetched = any(hub_names(run.recipe) or run.recipe["distill"]["teacher"] for run in runs)
    there = all(folder is None or folder.is_dir() for folder in folders)
    return there and (fetched or any(folder is not None for folder in folders))


def preflight(work: Work, ask: Callable[..., int]) -> None:
    """Let a worker try out what the runs need (their data, options, teachers), and whether each row does anything,
    without training.

    ``ask`` runs a worker command. Raises InputError, at the line of the recipe, for what would fail, and for a row that
    is the same training as the one that it is compared with.
    """
    runs = list({run.id: run for run in work.to_come() if not is_program(run.recipe)}.values())
    if not runs:
        return  # a program is tried out by running it
    named = NamedFiles(runs, work.store)

    def request(run: Run) -> dict[str, Any]:
        path, how = named.find(run.recipe["distill"]["teacher_weights"]), work.execution_of(run.id)
        return {
            "run": run.id,
            "recipe": with_files(run.recipe, named.path),
            "begun": run.id in work.states and work.states[run.id].attempt > 0,
            "ranks": how.ranks,
            "accumulation": how.accumulation,
            "teacher": str(path) if path else None,
        }

    rows = Rows(work)
    compared = {run.id: run for pair in rows.open.values() for both in pair.runs for run in both}
    question = {
        "results": str(work.store.root.resolve()),
        "data_dir": work.execution.data_dir,
        "runs": [request(run) for run in runs],
        "pairs": {name: [[here.id, there.id] for here, there in pair.runs] for name, pair in rows.open.items()},
        "recipes": {id_: with_files(run.recipe, named.path) for id_, run in compared.items()},
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "question.json"
        path.write_bytes(files.to_json(question))
        code = ask("preflight", str(path))
        answer = path.with_suffix(".answer")
        answered = files.read_json(answer)
    if answered is None:  # killed for its memory, say: no word on whether a run would be, too
        print(f"what the runs need was not tried out: the process that does so {how_ended(code)}", file=sys.stderr)
        return
    if (refusal := answered["refusal"]) is not None:
        written, keys = work.written.get(refusal["run"]), refusal["keys"]
        problem = f"{refusal['error']} ({work.labels.get(refusal['run'], refusal['run'])})"
        if written is None or keys[0].startswith("execution."):
            raise InputError(problem, key=keys[0])
        raise disagreement(written, keys, problem)
    for name, facts in answered["data"]:
        for line in data_lines(facts):
            print(f"data {name}: {line}", file=sys.stderr)
    rows.refuse(answered["effects"], work.written)


def hashed_data(work: Work) -> Iterator[str]:
    """Let a worker hash all pictures of the data of all runs, whole (``worker.hashes``); a line on each data set.

    Raises InputError where one is not as it was when it was hashed first, or cannot be read."""
    runs = [run for run in [*work.runs.values(), *work.to_come()] if not is_program(run.recipe)]
    must_have(work.execution.model_copy(update={"device": "cpu", "runs_per_gpu": 1, "ranks": 1}), runs)
    named, blocks = NamedFiles(runs, work.store), dict[str, dict[str, Any]]()
    for run in runs:
        data = {key: value for key, value in run.recipe["data"].items() if key in ("name", "id", "file", "options")}
        data["options"] = {key: value for key, value in data["options"].items() if key != "test_share"}
        blocks[canonical_json(data)] = with_files(data, named.path)
    request = {"results": str(work.store.root), "data_dir": work.execution.data_dir, "data": [*blocks.values()]}
    for answer in worker_answers("hashes", request):
        if answer["error"] or answer["changed"]:
            problem = answer["error"] or f"not as they were when hashed first: {', '.join(answer['changed'])}"
            expected = "" if answer["error"] else "the files as they were, or another data.id"
            raise InputError(problem, where=f"data {answer['id']}", expected=expected)
        if not answer["pictures"]:
            yield f"data {answer['id']}: lies in memory, and all of it is in its fingerprint, which every run checks"
        else:
            what = "are as they were when hashed first" if answer["pinned"] else "hashed for the first time"
            yield f"data {answer['id']}: {answer['pictures']} pictures, {what}"


class Rows:
    """The rows of which it is to be told whether they do anything: those with runs to come. What has been told once is
    kept in the user's cache, by the runs' ids."""

    def __init__(self, work: Work) -> None:
        wanted, code = {run.id for run in work.unfinished()}, sorted((PACKAGE / "train").rglob("*.py"))
        made_by = hashes(path.relative_to(PACKAGE).as_posix() for path in code) if work.pairs else {}
        self.about: dict[str, Any] = {}
        self.known: dict[str, str] = {}
        self.open: dict[str, Pair] = {}
        """By a name of its own."""
        self.pairs = {str(number): pair for number, pair in enumerate(work.pairs) if pair.ends & wanted}
        for name, pair in self.pairs.items():
            ids = [[here.id, there.id] for here, there in pair.runs]
            self.about[name] = {"effects": ids, "by": made_by, "data": work.execution.data_dir}
            kept = kept_answer(self.about[name])
            if kept is None:
                self.open[name] = pair
            else:
                self.known[name] = str(kept.get("effect"))

    def refuse(self, answers: Mapping[str, str], written: Mapping[str, Node]) -> None:
        """Raises InputError for the first row that does nothing, which names the others; ``answers`` is what was told
        of those ``open``."""
        for name, effect in answers.items():
            keep_answer(self.about[name], {"ok": True, "sources": {}, "effect": effect})
            if effect not in ("same", "differs"):
                row = self.pairs[name].row
                print(f"not known whether the row {row!r} does anything: {effect}", file=sys.stderr)
        idle = [pair for name, pair in self.pairs.items() if {**self.known, **answers}[name] == "same"]
        if idle:
            raise idle[0].refusal(written, idle[1:])


def keep_weights(runs: Iterable[Run], store: Store) -> dict[str, str]:
    """Put the weights files that these runs name into the store: {content ("sha256:<hex>"): where it lies}.

    Raises InputError, before anything is written, for one that is neither in the store nor given by its path; and
    where a file has changed since the plan was made.
    """
    runs = [run for run in runs if not is_program(run.recipe)]
    named = NamedFiles(runs, store)
    wanted = sorted({content for run in runs for content in contents(run.recipe)})
    found = {content: named.path(content) for content in wanted}  # all are there before the first is written
    for content in wanted:
        if content in named.given:
            try:
                found[content] = store.teacher_weights.keep(content, found[content])
            except ValueError as error:
                raise InputError(str(error), key=named.key(content), expected="a file that stays as it is") from None
    return {content: str(path) for content, path in found.items()}


class NamedFiles:
    """Where the files lie that recipes name by their content ("sha256:<hex>"): as they were given with the runs, or in
    the store."""

    def __init__(self, runs: Sequence[Run], store: Store) -> None:
        self._runs, self._store = runs, store
        self.given = {content: path for run in runs for content, path in run.weights.items()}

    def find(self, content: str | None) -> Path | None:
        """None also where no content is named."""
        return (self.given.get(content) or self._store.teacher_weights.find(content)) if content else None

    def path(self, content: str) -> Path:
        """Raises InputError where there is no such file."""
        if (path := self.find(content)) is None:
            problem = f"no file with the content {content} is in {self._store.root}"
            raise InputError(problem, key=self.key(content), expected="the path of the file")
        return path

    def key(self, content: str) -> str:
        """The key under which a recipe names this content."""
        leaves = (pair for run in self._runs for pair in flatten(run.recipe))
        return next((key for key, leaf in leaves if leaf == content), "augment.custom")
