"""A bundle's run, to be trained anew: as its record says, in a store of its own."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from deit_ablate import files
from deit_ablate.errors import Damaged, InputError
from deit_ablate.execution import OF_THE_LAUNCHER, Execution, ProgramExecution
from deit_ablate.launch.preflight import keep_weights
from deit_ablate.store import Store
from deit_ablate.store.bundle import Bundle
from deit_ablate.sweep.plan import Run


def recorded_execution(outcome: dict[str, Any]) -> Execution:
    """How a run was executed, as far as that decides bits: on a CPU where it was on one, else on what there is; by one
    process, which cuts batches into the chunks that its ranks had."""
    recorded: dict[str, Any] = outcome.get("execution") or {}
    known = set(Execution.model_fields) - {*OF_THE_LAUNCHER, "device", "loaders", "runs_per_gpu", "ranks"}
    values = {key: value for key, value in recorded.items() if key in known and value is not None}
    values["accumulation"] = (recorded.get("ranks") or 1) * (recorded.get("accumulation") or 1)
    on_cpu = str((outcome.get("cost") or {}).get("device") or "").startswith("cpu")
    return Execution.model_validate({**values, "device": "cpu" if on_cpu else "auto"})


def prepare(bundle: Bundle, run: str, store: Store, given: Sequence[Path] = ()) -> list[str]:
    """Write what training a run and its parents takes to ``store``; returns their ids, parents first.

    ``given``: files that the bundle names by their content, and may not hold. Custom code is put on the path of the
    processes that this one starts, and on its own. Raises InputError where the store holds the records themselves,
    which would reproduce themselves, or another sweep of this name, and where a file is missing.
    """
    records = bundle.store
    wanted = records.lineage(run)
    for each in wanted:
        ours, theirs = store.outcome(each), records.outcome(each)
        if ours is not None and theirs is not None and ours.get("time") == theirs.get("time"):
            raise _not_here(store, f"it holds the record of {each} itself")
    plan = records.sweeps.plan(bundle.sweep) or {}
    if store.sweeps.plan(bundle.sweep) not in (None, plan):
        raise _not_here(store, f"it holds another sweep {bundle.sweep!r}")
    runs = [_run(records, each) for each in wanted]
    _keep_files(bundle.folder / "weights", store, given)
    keep_weights([each for each in runs if "distill" in each.recipe], store)
    sources = bundle.folder / "sources"
    if sources.is_dir():
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(sources), os.environ.get("PYTHONPATH")]))
    for planned in runs:
        store.register(planned.id, planned.recipe, planned.parents, planned.sources)
    store.sweeps.save_plan(bundle.sweep, plan)
    return wanted


def _not_here(store: Store, problem: str) -> InputError:
    return InputError(problem, where=str(store.root), expected="another --results")


def with_program(execution: Execution, bundle: Bundle, sources: Path, *, required: bool) -> Execution:
    """The execution of a run that a program trains, with where it is; ``required``: whether its metrics must be there.
    Raises Damaged where the manifest does not say how it is run."""
    told = bundle.manifest.get("program")
    if told is None:
        return execution
    try:
        folder = files.make_folder(sources)  # a bundle without code of one's own has none
        program = ProgramExecution.model_validate({**told, "folder": str(folder), "required": required})
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise Damaged(bundle.folder / "manifest.json", f"program: {first['msg']}") from None
    return execution.model_copy(update={"program": program})


def _keep_files(folder: Path, store: Store, given: Sequence[Path]) -> None:
    """Put weights files into the store: those of the bundle, which are named by content or as a model of timm's hub,
    and those that a user gives."""
    for path in given:
        if not path.is_file():
            raise InputError("no such file", where=str(path), key="--file", expected="a weights file")
    for path in [*(sorted(folder.iterdir()) if folder.is_dir() else []), *given]:
        if path in given or re.fullmatch(r"[0-9a-f]{64}", path.stem):
            store.teacher_weights.keep(f"sha256:{files.sha256(path)}", path)
            continue
        try:
            store.teacher_weights.keep_hub(path.stem, partial(shutil.copyfile, path))
        except ValueError as error:
            raise _not_here(store, str(error)) from None


def _run(records: Store, run: str) -> Run:
    stored = records.recipe(run)
    if stored is None:
        raise InputError(f"the bundle has no record of {run}, on which it depends", expected="another --run")
    return Run(run, stored["recipe"], stored["parents"], stored["sources"])
