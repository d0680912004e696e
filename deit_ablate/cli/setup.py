"""Commands for before and after: init, schema; and fetch, verify, which ask a worker (it may import torch)."""

from __future__ import annotations

import itertools
import json
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from deit_ablate import files
from deit_ablate.cli import console
from deit_ablate.cli.options import DataDir, Device, Json, Profile, Sets, SweepArgument, given_execution
from deit_ablate.cli.targets import DEFAULT_RESULTS, Results, runs_of, stored_runs, study
from deit_ablate.errors import InputError
from deit_ablate.execution import WorkerFailed, worker_answers
from deit_ablate.identity import canonical_json, hub_names
from deit_ablate.launch.preflight import keep_weights, must_have
from deit_ablate.names import fact
from deit_ablate.program import is_program
from deit_ablate.sweep.plan import Run, make_plan


def fetch(
    sweep: SweepArgument,
    profile: Profile = None,
    set_: Sets = None,
    store: Results = DEFAULT_RESULTS,
    data_dir: DataDir = None,
) -> None:
    """Bring what a sweep needs from the network, and the weights files that it names, to where its runs look for them.

    For machines whose compute nodes have no network: run it where there is one.
    """
    chosen = study(sweep, store, profile=profile, sets=set_ or ())
    file = chosen.sweep(store)
    search = chosen.search(file, store)
    runs = {**search.runs, **{run.id: run for run in search.examples()}} if search else make_plan(file).runs
    runs = {id_: run for id_, run in runs.items() if not is_program(run.recipe)}
    named = sorted({name for run in runs.values() for name in hub_names(run.recipe)})
    requests = [*({"kind": "weights", "name": name} for name in named), *_data(runs, data_dir)]
    for sha256, path in keep_weights(runs.values(), store).items():
        print(f"file {sha256[:14]}: in {path}")
    failed = False
    for answer in _ask("fetch", {"results": str(store.root), "requests": requests}) if requests else ():
        files = f"fetched {', '.join(answer['files'])}" if answer["files"] else "all is there already"
        console.say(f"{answer['kind']} {answer['name']}: {answer['error'] or files}")
        failed = failed or answer["error"] is not None
    raise typer.Exit(1 if failed else 0)


def _data(runs: Mapping[str, Run], folder: Path | None) -> Iterator[dict[str, Any]]:
    """A request for each data set that lies in a folder; says which the user must supply."""
    wanted = {
        canonical_json([run.recipe["data"]["name"], run.recipe["data"].get("options") or {}]) for run in runs.values()
    }
    for name, options in map(json.loads, sorted(wanted)):
        usual = fact("datasets", name, "folder")
        if usual is None or (folder is None and usual != "--data-dir" and Path(usual).is_dir()):
            continue  # it is part of the package, a function of one's own, or installed
        if not fact("datasets", name, "fetched") or (name == "huggingface" and "repo" not in options):
            print(f"data {name}: is not fetched; supply its folder with --data-dir")
        elif folder is None:
            problem = f"no folder is given to fetch {name} into"
            raise InputError(problem, expected="--data-dir DIR (or DEIT_ABLATE_DATA)")
        else:
            yield {"kind": "data", "name": name, "folder": str(folder), "options": options}


def verify(
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...", help="sweep:variant:seed[:stage], a whole sweep, or the first digits of a run's id."
        ),
    ],
    device: Device = None,
    data_dir: DataDir = None,
    store: Results = DEFAULT_RESULTS,
    json_: Json = False,
) -> None:
    """Evaluate finished runs' checkpoints anew and compare with their records: weights, metrics, every prediction.

    Exactly on the same kind of CPU with the same versions; elsewhere top-1 may differ by 0.1 points.
    """
    runs = list(dict.fromkeys(run for target in targets for run in runs_of(target, store)))
    how = given_execution(None, device=device, data_dir=data_dir)
    damaged = {run: str(damage) for run in runs if (damage := store.damage(run))}
    runs = [run for run in runs if run not in damaged]
    for run in runs:
        problem, expected = "", "runs of our trainer, whose last checkpoint is kept"
        if is_program((store.recipe(run) or {"recipe": {}})["recipe"]):
            problem = "a program trained it, and only that can evaluate it"
        elif store.outcome(run) is None:
            problem = "has not finished"
        elif store.weights(run) is None:
            problem = "its weights are gone"
        if problem:
            raise InputError(problem, where=run, expected=expected)
    must_have(how, [run for id_, run in stored_runs(runs, store).items() if id_ in runs])
    request = {"results": str(store.root), "runs": runs, "data_dir": how.data_dir, "device": how.device}
    answers: list[dict[str, Any]] = []
    refused = [{"run": run, "error": damage} for run, damage in damaged.items()]
    for answer in itertools.chain(refused, _ask("verify", request) if runs else ()):
        answers.append(answer)
        console.say(_line(answer), out=sys.stderr if json_ else sys.stdout)
    if json_:
        print(json.dumps(answers))
    unread = any("error" in answer for answer in answers)
    raise typer.Exit(2 if unread else 0 if all(answer["agrees"] for answer in answers) else 1)


def _line(answer: Mapping[str, Any]) -> str:
    if "error" in answer:
        return f"{answer['run']}: cannot be verified: {answer['error']}"
    if not answer["agrees"]:
        return f"{answer['run']}: DIFFERS: {'; '.join(answer['problems'])}"
    now, images = answer["top1"][1], answer["images"]
    if answer["exact"]:
        return f"{answer['run']}: agrees exactly: weights, metrics and predictions of {images} images, top-1 {now:.2f}%"
    moved = ", ".join(f"{count} of {images} ({name})" for name, count in answer["predictions"].items() if count)
    return (
        f"{answer['run']}: agrees within 0.1 points (another device or other versions): top-1 {now:.2f}%, "
        f"recorded {answer['top1'][0]:.2f}%; predictions that differ: {moved or 'none'}"
    )


def init(folder: Annotated[Path, typer.Argument(help="Where to write sweeps/ and analysis/.")] = Path(".")) -> None:
    """Write the shipped sweeps and analyses out, to be edited. Files that exist are left as they are."""
    for name in ("sweeps", "analysis"):
        source = files.shipped(name)
        for path in sorted(source.rglob("*")):
            if not path.is_file() or "__pycache__" in path.parts:
                continue
            target = folder / name / path.relative_to(source)
            if target.exists():
                print(f"{target}: exists, left as it is", file=sys.stderr)
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
            print(target)


def schema(kind: Annotated[Literal["sweep", "profile", "recipe"], typer.Argument()] = "sweep") -> None:
    """Print the JSON Schema of sweep files, by which an editor completes and checks them."""
    from deit_ablate.sweep.schema import SCHEMAS

    print(json.dumps(SCHEMAS[kind](), indent=1))


def _ask(mode: str, request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    try:
        yield from worker_answers(mode, request, shown=True)
    except WorkerFailed as failure:
        print(f"error: {failure}", file=sys.stderr)
        raise typer.Exit(1) from None
