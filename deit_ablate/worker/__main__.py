"""Inside the job: claim a run, train it, record it. A process of its own, which nobody imports.

    python -m deit_ablate.worker run RESULTS RUN [...]     one run in this process
    python -m deit_ablate.worker --serve                   fork one child a run (JSON lines on stdin)
    python -m deit_ablate.worker names | offered           answer questions about names; say what names.json should hold
    python -m deit_ablate.worker names FILE                answer the questions of FILE, in a file beside it
    python -m deit_ablate.worker fetch | verify            bring weights and data, or evaluate anew
    python -m deit_ablate.worker weights | predict         write a run's model to a file, or let it classify pictures
    python -m deit_ablate.worker measure                   say what trainings take, by their first steps
    python -m deit_ablate.worker preflight FILE            say which runs of FILE are refused, which rows do nothing

Answers go to standard output, marked (``execution.worker_answers`` reads them); a request is JSON on standard input.

Exit codes: 0 recorded, or left to another; 75 saved, more to do; 1 failed; 2 bad input.
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and not getattr(sys.flags, "safe_path", False):
    sys.path.pop(0)  # `python -m` looks into the current folder first: see execution.CLEAN_PATH
import argparse
import contextlib
import itertools
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any


def _take_standard_output() -> IO[bytes]:
    """What was standard output, for answers alone: all else that this process prints, and what it starts, goes to
    standard error from now on."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout.flush()  # what was printed before we were asked: not once more by each child
    return answers


def _serve_commands(answers: IO[bytes]) -> int:
    """Fork a child for each request, from a process without torch: commands have interpreters of their own."""
    from deit_ablate.store.checkout import checkout
    from deit_ablate.worker import forkserver, run  # noqa: F401  (the imports are the point)

    checkout()
    return forkserver.serve(main, lambda argv: None, answers)


def _serve(answers: IO[bytes]) -> int:
    """Fork a child for each request, from this process that imports torch and timm once."""
    import torch

    from deit_ablate.store.checkout import checkout
    from deit_ablate.train import effects, loop, preflight, provenance  # noqa: F401  (the imports are the point)
    from deit_ablate.worker import forkserver

    def prepare(argv: list[str]) -> None:
        assert not torch.cuda.is_initialized(), "CUDA must not be touched before a fork"
        if argv[0] == "run":
            with contextlib.suppress(Exception):  # whatever is wrong, the child meets it too, and can say so
                _hold_data(parsed(argv))

    provenance.provenance(), checkout()  # once for all children, and as of now: what they run is what was imported
    return forkserver.serve(main, prepare, answers)


def _hold_data(given: argparse.Namespace) -> None:
    """Load the data of a run before the fork of its process, once for all runs that follow."""
    from deit_ablate.execution import Execution
    from deit_ablate.program import is_program
    from deit_ablate.recipe import Data
    from deit_ablate.store import Store
    from deit_ablate.train.data.sets import hold

    execution, stored = Execution.from_json(given.execution), Store(given.results).recipe(given.run)
    if stored and not is_program(stored["recipe"]) and not execution.stage_data:
        folder = Path(execution.data_dir) if execution.data_dir else None
        hold(Data.model_validate_json(json.dumps(stored["recipe"]["data"])), folder)


ANSWERED = ("names", "offered", "fetch", "verify", "measure", "weights", "predict", "hashes")
"""Modes that answer one request, which is JSON on standard input, as ``execution.worker_answers`` reads it."""


def _answers(mode: str, request: Any) -> Iterable[Any]:
    from deit_ablate.store import Store
    from deit_ablate.train import names, teachers

    if mode == "names":
        return [names.ask(request)]
    if mode == "offered":
        return [names.offered()]
    if mode == "measure":
        from deit_ablate.worker.run import measured

        return map(measured, request)
    if mode == "hashes":
        from deit_ablate.worker import hashes

        return hashes.verified(request)
    if mode in ("weights", "predict"):
        from deit_ablate.worker import models

        return models.answers(mode, request)
    store = Store(request["results"])
    if mode == "fetch":
        return teachers.fetch(request["requests"], store.teacher_weights)
    from deit_ablate.train import verify
    from deit_ablate.worker.run import device_of

    data_dir = Path(request["data_dir"]) if request["data_dir"] else None
    return verify.verify_all(store, request["runs"], data_dir, device_of(request["device"]))


def _answer(mode: str, answers: IO[bytes]) -> int:
    from deit_ablate.execution import answer_line

    for answer in itertools.chain(_answers(mode, json.load(sys.stdin)), [None]):
        answers.write(answer_line(answer))
        answers.flush()
    return 0


def _in_file(mode: str, question: Path) -> int:
    """Answer a question file beside it: in a file, because a forked child's output is the server's."""
    from deit_ablate import files

    request = json.loads(question.read_bytes())
    answer = _preflight(request) if mode == "preflight" else next(iter(_answers(mode, request)))
    files.replace(question.with_suffix(".answer"), files.to_json(answer))
    return 0


def _preflight(request: dict[str, Any]) -> dict[str, Any]:
    """Which run is refused, or what the data are and which rows do nothing."""
    from deit_ablate.recipe import Recipe
    from deit_ablate.store import Store
    from deit_ablate.train.data.sets import data_loader
    from deit_ablate.train.effects import effects
    from deit_ablate.train.preflight import preflight
    from deit_ablate.train.teachers import with_start

    splits_of = data_loader(Path(request["data_dir"]) if request["data_dir"] else None)
    weights = Store(request["results"]).teacher_weights
    answer: dict[str, Any] = {"refusal": preflight(request, weights, splits_of)}
    if answer["refusal"] is None:
        answer["data"] = []
        recipes = [Recipe.model_validate_json(json.dumps(run["recipe"])) for run in request["runs"]]
        for recipe in {recipe.data.model_dump_json(): recipe for recipe in recipes}.values():
            with contextlib.suppress(Exception):  # custom code, which may need what is not on this machine
                answer["data"].append((recipe.data.id, splits_of(recipe).facts()))
        started = {run: with_start(values, weights) for run, values in request["recipes"].items()}
        answer["effects"] = effects(request["pairs"], started, splits_of)
    return answer


def parsed(argv: list[str]) -> argparse.Namespace:
    """What a process that executes a run is told."""
    parser = argparse.ArgumentParser(prog="python -m deit_ablate.worker")
    parser.add_argument("mode", choices=["run"])
    parser.add_argument("results")
    parser.add_argument("run")
    parser.add_argument("--execution", default="{}", help="JSON of execution.Execution")
    parser.add_argument("--sweep")
    parser.add_argument("--command", default="")
    parser.add_argument("--retry", action="store_true")
    parser.add_argument("--foreground", action="store_true")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    from deit_ablate.errors import print_anything

    print_anything()
    if argv == ["--serve", "commands"]:
        return _serve_commands(_take_standard_output())
    if argv == ["--serve"]:
        return _serve(_take_standard_output())
    if len(argv) == 2 and argv[0] in ("names", "preflight"):
        return _in_file(argv[0], Path(argv[1]))
    if argv and argv[0] in ANSWERED:
        return _answer(argv[0], _take_standard_output())
    from deit_ablate.execution import Execution
    from deit_ablate.store import Store
    from deit_ablate.worker.run import Task, execute

    given = parsed(argv)
    execution = Execution.from_json(given.execution)
    return execute(
        Task(Store(given.results), given.run, execution, given.retry, given.sweep, given.command, given.foreground)
    )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
