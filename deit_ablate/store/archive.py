"""Archives: a sweep's runs in a few files without checkpoints, read back into a store; and stores merged.

<folder>/manifest.json   schema, number of runs, and of every file that ``import`` reads its bytes and SHA-256
<folder>/records.jsonl   a line a run: id, recipe, parents, sources, outcome (null: paused), the attempt that made it
<folder>/curves.jsonl    a line a run and epoch
<folder>/arrays.zip      <run>.npz: test predictions per head and token similarities, as recorded
<folder>/plan.json, seeds/, trials/, accepted/, table.*, paper.*, search.*, figures/
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import tempfile
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from deit_ablate import files
from deit_ablate.errors import Damaged, InputError
from deit_ablate.store import Attempt, Refused, Store, cleanup, copies, owner, pins, schema
from deit_ablate.sweep.fields import is_sweep_name

_ABSOLUTE = re.compile(r"(?<![^\s='\"])/[^\s'\"]*/(?=[^\s/])")
"""The folders of an absolute path: what is kept is shown to others."""
_NUMBERED = re.compile(r"[1-9][0-9]{0,5}\.json")
_REQUESTS: dict[str, type[schema.File]] = {
    "seeds": schema.Declared,
    "trials": schema.TrialRequest,
    "accepted": schema.Accepted,
}
"""What belongs to a sweep's plan: planned seeds, the trials that a search has requested, and which runs of earlier code
a user has accepted."""
_BESIDE = ("table.*", "paper.*", "search.*", "figures/*.png", *(f"{kind}/[0-9]*.json" for kind in _REQUESTS))
"""Files of a sweep's folder that ``keep`` copies."""
MOST_TEXT, MOST_LINE, MOST_RUNS = 1 << 30, 1 << 24, 100_000
"""Bytes of records.jsonl or curves.jsonl, bytes of one line of them, and runs that one import may bring."""


def keep(store: Store, sweep: str, folder: Path, only: Collection[str] | None = None) -> int:
    """Write the finished runs of a sweep (and those that they depend on) to ``folder``; returns their number.

    ``only``: these of them; the plan stays whole. The files are a pure function of the records: of an older archive
    there none is left. Raises InputError where the sweep has no plan, or the folder would be taken for a sweep's.
    """
    plan = store.sweeps.plan(sweep)
    if plan is None:
        raise InputError(f"no sweep {sweep!r} in {store.root}", expected="one of " + ", ".join(store.sweeps.names()))
    if store.root.resolve() in (folder.resolve(), folder.resolve().parent):
        problem = "a folder of the store itself" if folder.resolve() == store.root.resolve() else "a sweep's place"
        raise InputError(problem, where=str(folder), key="--to", expected="a folder elsewhere, or deeper in the store")
    wanted = {run for *_, run in plan["cells"] if only is None or run in only}
    runs = sorted({each for run in wanted for each in store.lineage(run)})
    records, curves = [], []
    older = os.path.lexists(files.make_folder(folder) / "records.jsonl")
    (folder / "manifest.json").unlink(missing_ok=True)  # what is cut off here is no archive
    with files.temporary_beside(folder / "arrays.zip") as temporary:
        with files.naming(folder / "arrays.zip"), zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
            for run in runs:
                stored, settled = store.recipe(run), _settled(store, run)
                if stored is None or settled is None:
                    continue
                attempt, outcome = settled
                own = {key: attempt.owner.get(key) for key in ("schema", "time", "execution", "retry")}
                record = {"run": run, "recipe": stored, "owner": own, "outcome": None, "attempt": attempt.number}
                if outcome is not None:
                    provenance = outcome.get("provenance") or {}
                    command = _ABSOLUTE.sub(".../", provenance.get("command") or "")
                    record["outcome"] = {**outcome, "provenance": {**provenance, "command": command}}
                    # By its name alone an entry would have the time of day, and equal records not give equal bytes.
                    archive.writestr(zipfile.ZipInfo(f"{run}.npz"), _content(attempt.arrays, files.MOST_ARRAYS))
                records.append(record)
                curves += [{"run": run, **line} for line in store.history(run)]
        os.replace(temporary, folder / "arrays.zip")
    kept = {**plan, "source": Path(plan["source"]).name, "asked": {}}  # which may hold paths, and is not read again
    for name, lines in (("records.jsonl", records), ("curves.jsonl", curves)):
        files.replace(folder / name, b"".join(json.dumps(line).encode() + b"\n" for line in lines))
    files.replace(folder / "plan.json", files.to_json(kept))
    for path in _beside(folder) if older else ():
        path.unlink()
    for path in _beside(store.sweeps.folder(sweep)):
        target = folder / path.relative_to(store.sweeps.folder(sweep))
        content = _accepted(path) if path.parent.name == "accepted" else _content(path)
        files.replace(files.make_folder(target.parent) / target.name, content)
    write_manifest(folder)
    return len(records)


def _beside(folder: Path) -> list[Path]:
    return [path for pattern in _BESIDE for path in folder.glob(pattern)]


def _accepted(path: Path) -> bytes:
    """What a user has accepted, less the login name: what is kept is shown to others."""
    content = schema.read(path, schema.Accepted) or {"runs": {}}
    for used in content["runs"].values():
        used.pop("user", None)
    return files.to_json(content)


def _content(path: Path, most: int = files.MOST_BYTES) -> bytes:
    """What is copied into an archive. Raises Damaged, also where it is missing."""
    if (content := files.read_regular(path, most)) is None:
        raise Damaged(path, "missing")
    return content


def write_manifest(folder: Path) -> None:
    """Say what a folder of kept records holds, so that ``import`` can tell whether it is all there."""
    runs = (folder / "records.jsonl").read_bytes().count(b"\n")
    content = {"schema": schema.SCHEMA, "runs": runs, "files": listing(_read(folder))}
    files.replace(folder / "manifest.json", files.to_json(content))


def listing(named: Iterable[tuple[str, Path]]) -> dict[str, dict[str, Any]]:
    """Of each file, by name, what a manifest says: its bytes and SHA-256."""
    return {name: {"bytes": path.stat().st_size, "sha256": files.sha256(path)} for name, path in named}


def _read(folder: Path) -> Iterator[tuple[str, Path]]:
    """The files that ``import`` reads beside the manifest, by name. Raises Damaged for a link, or no file or folder."""
    for name in ("records.jsonl", "curves.jsonl", "arrays.zip", "plan.json"):
        yield name, files.must_be_file(folder / name)
    for kind in _REQUESTS:
        yield from ((f"{kind}/{path.name}", path) for path in _requests(folder, kind))


def _requests(folder: Path, kind: str) -> list[Path]:
    if not os.path.lexists(folder / kind):
        return []
    paths = [path for path in sorted(files.listed(folder / kind, copies.MOST_FILES)) if path.suffix == ".json"]
    for path in paths:
        if not _NUMBERED.fullmatch(path.name):
            raise Damaged(path, "not named by a number", expected="1.json and so on")
    return [files.must_be_file(path) for path in paths]


def _settled(store: Store, run: str) -> tuple[Attempt, dict[str, Any] | None] | None:
    """The attempt by which a run has ended, with its outcome, or was paused; None for one that is still to go on. Of a
    run that ends meanwhile, whatever is read later holds more than this, never less."""
    outcome, attempts = store.outcome(run), store.attempts(run)
    if outcome is not None:
        return store.attempt(run, outcome["attempt"]), outcome
    paused = bool(attempts) and (attempts[-1].exit or {}).get("class") == "paused"
    return (attempts[-1], None) if paused else None


# -- import ------------------------------------------------------------------------------------------------------------


@dataclass
class _Incoming:
    """What is to be brought, all of it checked: what writes a run into an empty folder, which of the runs are over, the
    files of sweeps, and what the runs say of their data, by its id."""

    runs: dict[str, Callable[[Path], object]] = field(default_factory=dict)
    finished: set[str] = field(default_factory=set)
    sweeps: dict[str, dict[str, bytes]] = field(default_factory=dict)
    data: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def add(self, path: Path, run: str, stored: Mapping[str, Any], outcome: Mapping[str, Any] | None) -> None:
        """Note a run that is over, and its data. Raises Damaged, and OtherData where others have other data."""
        if outcome is not None:
            self.finished.add(run)
            pins.collect(path, stored["recipe"], outcome, self.data)


class Brought(NamedTuple):
    """How many runs an import has brought, this store had already, and may still be trained here."""

    new: int
    known: int
    busy: int


def import_records(folder: Path, store: Store) -> Brought:
    """Merge a folder of kept records, or another store, into this one.

    A result that stands is never changed; one that is brought takes the place of a run without one, which goes to the
    trash, unless somebody may be training it. Everything is checked before anything is written. Raises InputError where
    the folder is neither, or anything in it is damaged, a link, or not what its manifest, its name or its id says; and
    where its data are not those that finished runs of the same data.id have used.
    """
    try:
        return _import(folder, store)
    except pins.OtherData as other:
        expected = "another data.id for other data, or to `deit-ablate forget` the runs on one of them"
        raise InputError(str(other), where=str(folder), expected=expected) from None


def _import(folder: Path, store: Store) -> Brought:
    if os.path.lexists(folder / "records.jsonl"):
        incoming = _kept(folder)
    elif os.path.lexists(folder / "runs"):
        incoming = _stored(folder)
    else:
        expected = "a results folder, or one that `deit-ablate keep` wrote"
        raise InputError("no records here", where=str(folder), expected=expected)
    known = {name.lower(): name for name in store.sweeps.names()}
    for sweep in incoming.sweeps:
        if known.setdefault(sweep.lower(), sweep) != sweep:
            why = f"the sweep {sweep!r} differs from {known[sweep.lower()]!r} in capitals alone"
            raise InputError(why, where=str(folder), expected="names that are two folders on every system")
    pins.pin_all(store, incoming.data)
    new, busy = _adopt(store, incoming)
    for sweep, content in incoming.sweeps.items():
        if not os.path.lexists(store.sweeps.folder(sweep) / "plan.json"):
            for name, written in sorted(content.items(), key=lambda item: item[0] == "plan.json"):
                path = store.sweeps.folder(sweep) / name
                files.publish(files.make_folder(path.parent) / path.name, written)
    return Brought(new, len(incoming.runs) - new - busy, busy)


def _adopt(store: Store, incoming: _Incoming) -> tuple[int, int]:
    """Write the runs that this store lacks, each whole, and none before all have been written: (how many, how many more
    may be trained here)."""
    wanted = [run for run in incoming.runs if _lacks(store, run, run in incoming.finished)]
    idle = [run for run in wanted if cleanup.proven_over(store, run)]
    new = 0
    if idle:
        runs = files.make_folder(store.root / "runs")
        with tempfile.TemporaryDirectory(dir=runs, prefix=files.TEMPORARY, ignore_cleanup_errors=True) as made:
            for run in idle:
                incoming.runs[run](files.make_folder(Path(made) / run))
            new = sum(_appear(store, Path(made) / run, run in incoming.finished) for run in idle)
    return new, len(wanted) - len(idle)


def _lacks(store: Store, run: str, finished: bool) -> bool:
    """Whether a run from elsewhere says more than what is here; one that is not over does so only of one that nobody
    has started or cancelled here."""
    return store.result(run) is None if finished else store.state(run, {}).name == "missing"


def _appear(store: Store, folder: Path, finished: bool) -> bool:
    """Put a run that was made in its place; False where another process was first."""
    run = folder.name
    try:
        if os.path.lexists(store.run(run)) and _lacks(store, run, finished):
            cleanup.forget(store, run)
        os.rename(folder, store.run(run))
    except Refused:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        return False
    return True


def _kept(folder: Path) -> _Incoming:
    here = dict(_read(folder))
    incoming, records = _Incoming(), here["records.jsonl"]
    plan, requests = _plan(folder)
    if plan["source"] != Path(plan["source"]).name or plan["source"] in ("", ".."):
        raise Damaged(folder / "plan.json", f"source: {plan['source']!r} is a path", expected="the name of a file")
    incoming.sweeps[plan["sweep"]] = {**requests, "plan.json": files.to_json({**plan, "asked": {}})}
    planned = {run for *_, run in plan["cells"]}
    contents: dict[str, dict[str, bytes]] = {}
    known: dict[str, tuple[str, str | None] | None] = {}
    for number, line in _lines(records):
        run, attempt, content, outcome = _record(records, number, line)
        if run in contents:
            raise Damaged(records, f"the run {run} is there twice", number)
        contents[run] = content
        planned |= {parent["run"] for parent in line["recipe"]["parents"].values()}  # which another sweep may have
        known[run] = (f"{run}.npz", outcome.get("arrays_sha256")) if outcome is not None else None
        incoming.add(records, run, line["recipe"], outcome)
        incoming.runs[run] = partial(_write_run, content, f"a{attempt:04d}", here["arrays.zip"], known[run])
    if odd := next((place for place in enumerate(contents, start=1) if place[1] not in planned), None):
        raise Damaged(records, f"the run {odd[1]} is not one of its plan", odd[0])
    _read_curves(folder / "curves.jsonl", contents)
    _check_arrays(here["arrays.zip"], dict(filter(None, known.values())))
    _check_manifest(folder / "manifest.json", here, len(contents))  # last: the checks before it name lines
    return incoming


def _check_manifest(path: Path, here: dict[str, Path], runs: int) -> None:
    """Folders that earlier versions kept have no manifest."""
    if not os.path.lexists(path):
        return
    manifest = schema.read(files.must_be_file(path), schema.Manifest) or {}
    if odd := sorted(here.keys() ^ manifest["files"].keys()):
        told = "is not listed" if odd[0] in here else "is listed, and missing"
        raise Damaged(path, f"{odd[0]} {told}")
    if runs != manifest["runs"]:
        raise Damaged(here["records.jsonl"], f"{runs} runs", expected=f"{manifest['runs']}, as manifest.json says")
    for name, listed in manifest["files"].items():
        found = here[name].stat().st_size
        if found != listed["bytes"]:
            raise Damaged(here[name], f"{found:,} bytes", expected=f"{listed['bytes']:,}, as manifest.json says")
        if files.sha256(here[name]) != listed["sha256"]:
            raise Damaged(here[name], "its content is not the one that manifest.json names")


def _plan(folder: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """A sweep's checked plan, and its planned seeds and trials by file name."""
    path = files.must_be_file(folder / "plan.json")
    plan = schema.read(path, schema.Plan)
    assert plan is not None
    if not is_sweep_name(plan["sweep"]):
        raise Damaged(path, f"sweep: {plan['sweep'][:200]!r} cannot name a folder of results")
    requests = {}
    for kind, model in _REQUESTS.items():
        for each in _requests(folder, kind):
            requests[f"{kind}/{each.name}"] = files.to_json(schema.read(each, model))
    return plan, requests


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    """The JSON lines of a file that is whole, with their numbers. Raises Damaged."""
    if path.stat().st_size > MOST_TEXT:
        raise Damaged(path, f"more than {MOST_TEXT:,} bytes")
    with open(path, "rb") as handle:
        number = 0
        while line := handle.readline(MOST_LINE + 1):
            number += 1
            if len(line) > MOST_LINE:
                raise Damaged(path, f"a line of more than {MOST_LINE:,} bytes", number)
            if not line.endswith(b"\n"):
                raise Damaged(path, "its last line is cut short", number)
            yield number, files.parse_json(path, line, number)


def _record(path: Path, number: int, line: Any) -> tuple[str, int, dict[str, bytes], dict[str, Any] | None]:
    """One line of records.jsonl: its run, attempt, files and outcome. Raises Damaged."""
    if number > MOST_RUNS:
        raise Damaged(path, f"more than {MOST_RUNS:,} runs", number)
    record = schema.checked(path, line, schema.Record, number)
    run, outcome = record["run"], record["outcome"]
    schema.must_belong(path, record["recipe"], run, number)
    own = {key: record["owner"].get(key) for key in ("schema", "time", "execution", "retry")}
    own = {"nonce": owner.KEPT, "job": None, **own}
    schema.checked(path, own, schema.Owner, number)
    content = {"recipe.json": files.to_json(record["recipe"]), "owner.json": files.to_json(own)}
    if outcome is None:
        content["exit.json"] = files.to_json({"class": "paused", "message": "kept as it was"})
        if record.get("attempt") is None:
            raise Damaged(path, "attempt: missing, and there is no outcome to name one", number)
        return run, record["attempt"], content, None
    if outcome["run"] != run:
        raise Damaged(path, f"the run {run} has the outcome of the run {outcome['run']}", number)
    if record.get("attempt") not in (None, outcome["attempt"]):
        raise Damaged(path, f"attempt {record['attempt']} has the outcome of attempt {outcome['attempt']}", number)
    content["outcome.json"] = files.to_json(outcome)
    content["exit.json"] = files.to_json({"class": "done"})
    return run, outcome["attempt"], content, outcome


def _read_curves(path: Path, contents: dict[str, dict[str, bytes]]) -> None:
    """Add the epochs of each run to its files. Raises Damaged."""
    curves: dict[str, list[bytes]] = {run: [] for run in contents}
    last = dict.fromkeys(contents, -1)
    for number, line in _lines(path):
        epoch = schema.checked(path, line, schema.Epoch, number)
        run = epoch.pop("run", None)
        if not isinstance(run, str) or run not in curves:
            raise Damaged(path, f"run: {str(run)[:40]!r} has no record", number)
        if epoch["epoch"] < last[run] + ("metrics" not in epoch):  # of which a program may report several an epoch
            raise Damaged(path, f"epoch {epoch['epoch']} of {run} comes after epoch {last[run]}", number)
        last[run] = epoch["epoch"]
        curves[run].append(json.dumps(epoch).encode() + b"\n")
    for run, content in contents.items():
        content["metrics.jsonl"] = b"".join(curves[run])


def _check_arrays(path: Path, known: dict[str, str | None]) -> None:
    """Raises Damaged where the archive holds others than these, by name and SHA-256."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = Counter(archive.namelist())
            if missing := sorted(known.keys() - names.keys()):
                raise Damaged(path, f"{missing[0]} is missing")
            if odd := sorted(names - Counter(known.keys())):
                raise Damaged(path, f"{odd[0]!r:.200} is of no record, or twice")
            for name, sha256 in known.items():
                _arrays(archive, path, name, sha256)
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, ValueError) as error:
        raise Damaged(path, f"no sound zip archive ({error})") from None


def _arrays(archive: zipfile.ZipFile, path: Path, name: str, sha256: str | None) -> bytes:
    entry = archive.getinfo(name)
    if entry.file_size > files.MOST_ARRAYS:
        raise Damaged(path, f"{name} has more than {files.MOST_ARRAYS:,} bytes when unpacked")
    try:
        content = archive.read(entry)  # no more than the size above, whatever it unpacks to
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise Damaged(path, f"{name}: {error}") from None
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise Damaged(path, f"{name} is not what the run wrote")
    return content


def _write_run(
    content: dict[str, bytes], attempt: str, arrays: Path, entry: tuple[str, str | None] | None, folder: Path
) -> None:
    own = files.make_folder(folder / attempt)
    for name, written in content.items():
        files.replace((folder if name in ("recipe.json", "outcome.json") else own) / name, written)
    if entry is not None:
        with zipfile.ZipFile(arrays) as archive:
            files.replace(own / "arrays.npz", _arrays(archive, arrays, *entry))


def _stored(folder: Path) -> _Incoming:
    """The finished and paused runs of another store, and its sweeps."""
    other, incoming = Store(folder), _Incoming()
    files.listed(folder / "runs", MOST_RUNS)
    for run in sorted(other.runs()):
        if not files.listed(other.run(run), copies.MOST_FILES) or (stored := other.recipe(run)) is None:
            continue
        if (settled := _settled(other, run)) is None:
            continue
        attempt, outcome = settled
        found = copies.files_of(other.run(run))  # of one that has settled: its outcome is among them
        for each in other.attempts(run):
            each.check()
        other.history(run)
        sha256 = (outcome or {}).get("arrays_sha256")
        if sha256 is not None and (not attempt.arrays.exists() or files.sha256(attempt.arrays) != sha256):
            raise Damaged(attempt.arrays, "not what the run wrote")
        incoming.runs[run] = partial(copies.copy_run, found)
        incoming.add(other.run(run) / "outcome.json", run, stored, outcome)
    for name in other.sweeps.names():
        files.listed(other.sweeps.folder(name), copies.MOST_FILES)
        plan, requests = _plan(other.sweeps.folder(name))
        if plan["sweep"] != name:
            raise Damaged(other.sweeps.folder(name) / "plan.json", f"sweep: {plan['sweep']!r}", expected=repr(name))
        incoming.sweeps[name] = {**requests, "plan.json": files.to_json(plan)}
    return incoming
