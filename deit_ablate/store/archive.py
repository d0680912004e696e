"""Archives: a sweep's runs in a few files without checkpoints, read back into a store; and stores merged.

<folder>/records.jsonl   a line a run: id, recipe, parents, sources, outcome (null: paused), the attempt that made it
<folder>/curves.jsonl    a line a run and epoch
<folder>/arrays.zip      <run>.npz: test predictions per head and token similarities, as recorded
<folder>/plan.json, seeds/, trials/, table.*, paper.*, search.*, figures/
"""

from __future__ import annotations

import json
import os
import re
import shutil
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from deit_ablate import files
from deit_ablate.errors import InputError
from deit_ablate.identity import belongs
from deit_ablate.store import Attempt, Store, owner

_ABSOLUTE = re.compile(r"(?<![^\s='\"])/[^\s'\"]*/(?=[^\s/])")
"""The folders of an absolute path: what is kept is shown to others."""
MOST_ARRAYS = 1 << 28
"""Bytes that one run's arrays may have when unpacked."""


def keep(store: Store, sweep: str, folder: Path) -> int:
    """Write the finished runs of a sweep (and those that they depend on) to ``folder``; returns their number.

    The files are a pure function of the records. Raises InputError where the sweep has no plan.
    """
    plan = store.sweeps.plan(sweep)
    if plan is None:
        raise InputError(f"no sweep {sweep!r} in {store.root}", expected="one of " + ", ".join(store.sweeps.names()))
    runs = sorted({run for *_, run in plan["cells"]})
    records, curves = [], []
    files.make_folder(folder)
    with files.temporary_beside(folder / "arrays.zip") as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for run in runs:
                outcome, stored, attempt = store.outcome(run), store.recipe(run), _settled(store, run)
                if attempt is None or stored is None:
                    continue
                own = {key: attempt.owner.get(key) for key in ("schema", "time", "execution", "retry")}
                record = {"run": run, "recipe": stored, "owner": own, "outcome": None, "attempt": attempt.number}
                if outcome is not None:
                    command = _ABSOLUTE.sub(".../", (outcome.get("provenance") or {}).get("command") or "")
                    record["outcome"] = {
                        **outcome,
                        "provenance": {**(outcome.get("provenance") or {}), "command": command},
                    }
                records.append(record)
                curves += [{"run": run, **line} for line in store.history(run)]
                if outcome is None:
                    continue
                entry = zipfile.ZipInfo(f"{run}.npz", (1980, 1, 1, 0, 0, 0))
                archive.writestr(entry, attempt.arrays.read_bytes())
        os.replace(temporary, folder / "arrays.zip")
    kept = {**plan, "source": Path(plan["source"]).name}
    for name, lines in (("records.jsonl", records), ("curves.jsonl", curves)):
        files.replace(folder / name, b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    files.replace(folder / "plan.json", files.to_json(kept))
    patterns = ("table.*", "paper.*", "search.*", "figures/*.png", "seeds/[0-9]*.json", "trials/[0-9]*.json")
    shown = (path for pattern in patterns for path in store.sweeps.folder(sweep).glob(pattern))
    for path in shown:
        target = folder / path.relative_to(store.sweeps.folder(sweep))
        files.replace(files.make_folder(target.parent) / target.name, path.read_bytes())
    return len(records)


def _settled(store: Store, run: str) -> Attempt | None:
    """The attempt by which a run has ended, or was paused; None for one that is still to go on."""
    outcome, attempts = store.outcome(run), store.attempts(run)
    if outcome is not None:
        return store.attempt(run, outcome["attempt"])
    paused = bool(attempts) and (attempts[-1].exit or {}).get("class") == "paused"
    return attempts[-1] if paused else None


def import_records(folder: Path, store: Store) -> tuple[int, int]:
    """Merge a folder of kept records, or another store, into this one: (runs brought, runs that it had already).

    What stands is never changed. Raises InputError where the folder is neither, or holds a record that does not
    belong to its id.
    """
    if (folder / "records.jsonl").exists():
        answers = list(_unpacked(folder, store))
    elif (folder / "runs").is_dir():
        answers = list(_copied(Store(folder), store))
    else:
        raise InputError(
            "no records here",
            where=(str(folder), 0, 0),
            expected="a results folder, or one that `deit-ablate keep` wrote",
        )
    return sum(answers), len(answers) - sum(answers)


def _unpacked(folder: Path, store: Store) -> Iterator[bool]:
    curves: dict[str, list[bytes]] = {}
    for line in files.read_lines(folder / "curves.jsonl"):
        curves.setdefault(line.pop("run"), []).append(json.dumps(line).encode() + b"\n")
    with zipfile.ZipFile(folder / "arrays.zip") as archive:
        for number, record in enumerate(files.read_lines(folder / "records.jsonl"), start=1):
            run, outcome = record["run"], record["outcome"]
            _check(run, record["recipe"], (str(folder / "records.jsonl"), number, 1))
            content = {
                "recipe.json": files.to_json(record["recipe"]),
                "owner.json": files.to_json({"nonce": owner.KEPT, "job": None, **record["owner"]}),
                "metrics.jsonl": b"".join(curves.get(run, [])),
            }
            if outcome is None:
                content["exit.json"] = files.to_json({"class": "paused", "message": "kept as it was"})
            else:
                entry = archive.getinfo(f"{run}.npz")
                if entry.file_size > MOST_ARRAYS:
                    raise InputError(f"the arrays of {run} are too large", where=(str(folder / "arrays.zip"), 0, 0))
                content |= {"outcome.json": files.to_json(outcome), "arrays.npz": archive.read(entry)}
            number = record["attempt"] if outcome is None else outcome["attempt"]
            yield store.adopt(run, partial(_write_run, content, store.attempt(run, number).path.name))
    plan = files.read_json(folder / "plan.json")
    if plan and store.sweeps.plan(plan["sweep"]) is None:
        store.sweeps.save_plan(plan["sweep"], {**plan, "asked": {}})
        _copy_requests(folder, store.sweeps.folder(plan["sweep"]))


def _write_run(content: dict[str, bytes], attempt: str, folder: Path) -> None:
    own = files.make_folder(folder / attempt)
    for name, written in content.items():
        files.replace((folder if name in ("recipe.json", "outcome.json") else own) / name, written)


def _copied(other: Store, store: Store) -> Iterator[bool]:
    for run in sorted(other.runs()):
        stored = other.recipe(run)
        if stored is None or _settled(other, run) is None:
            continue
        _check(run, stored, (str(other.run(run) / "recipe.json"), 0, 0))
        yield store.adopt(run, partial(_copy_run, other.run(run)))
    for sweep in other.sweeps.names():
        if store.sweeps.plan(sweep) is None:
            store.sweeps.save_plan(sweep, other.sweeps.plan(sweep) or {})
            _copy_requests(other.sweeps.folder(sweep), store.sweeps.folder(sweep))


def _copy_requests(source: Path, target: Path) -> None:
    """Planned seeds, and the trials that a search has requested."""
    for kind in ("seeds", "trials"):
        for path in source.glob(f"{kind}/[0-9]*.json"):
            files.publish(files.make_folder(target / kind) / path.name, path.read_bytes())


def _copy_run(source: Path, folder: Path) -> None:
    shutil.copytree(source, folder, dirs_exist_ok=True)


def _check(run: str, stored: dict[str, Any], where: tuple[str, int, int]) -> None:
    if not belongs(run, stored):
        raise InputError(f"the recipe of {run} does not give this id", where=where)
