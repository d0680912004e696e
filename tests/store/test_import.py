"""What `import` is given by others: each of these archives is one clear error, and nothing has changed on disk."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import shutil
import stat
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support import Ask, Command

from deit_ablate import files
from deit_ablate.errors import Damaged, InputError
from deit_ablate.store import Store, archive, cleanup
from deit_ablate.store.archive import import_records, write_manifest
from deit_ablate.sweep.fields import is_sweep_name

REFERENCE = files.shipped("sweeps").resolve().parent / "results" / "reference"
KEPT = REFERENCE / "optimizers@fashion-mnist-small"
Damage = Callable[[Path], object]


def plan(**values: Any) -> Damage:
    def write(folder: Path) -> None:
        path = folder / "plan.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), **values}))

    return write


def line(name: str, number: int, change: Callable[[dict[str, Any]], object]) -> Damage:
    """Change the record of one line of a file."""

    def write(folder: Path) -> None:
        lines = (folder / name).read_text().splitlines(keepends=True)
        content = json.loads(lines[number - 1])
        change(content)
        lines[number - 1] = json.dumps(content) + "\n"
        (folder / name).write_text("".join(lines))

    return write


def text(name: str, change: Callable[[bytes], bytes]) -> Damage:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def record(**values: Any) -> Damage:
    """Change line 2 of the records: ``outcome__metrics__test__top1=1.0``."""

    def change(content: dict[str, Any]) -> None:
        for path, value in values.items():
            *steps, last = path.split("__")
            part = content
            for step in steps:
                part = part[step]
            part[last] = value

    return line("records.jsonl", 2, change)


def link(name: str, to: str) -> Damage:
    def write(folder: Path) -> None:
        if (folder / name).exists():
            (folder / name).rename(folder.parent / "moved")
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(to)

    return write


def fifo(name: str) -> Damage:
    def write(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return write


def arrays(change: Callable[[dict[str, bytes]], list[tuple[str, bytes]]]) -> Damage:
    def write(folder: Path) -> None:
        with zipfile.ZipFile(folder / "arrays.zip") as archive:
            held = {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(folder / "arrays.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in change(held):
                archive.writestr(name, content)

    return write


def request(name: str, content: str) -> Damage:
    def write(folder: Path) -> None:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)

    return write


def first(held: dict[str, bytes], content: bytes) -> list[tuple[str, bytes]]:
    return [(name, content if number == 0 else old) for number, (name, old) in enumerate(held.items())]


def duplicated(content: bytes) -> bytes:
    lines = content.splitlines(keepends=True)
    return b"".join([*lines, lines[0]])


NAMES = [
    "../../x",
    "/tmp/x",
    "a/b",
    "..",
    ".",
    "",
    "runs",
    "Trash",
    "data",
    "x@../y",
    "x\n",
    "x\x1b[2J",
    "x\u202ey",
    ".hidden",
    "x+zz",
    "x\\y",
    "n" * 300,
]
HOSTILE: dict[str, tuple[Damage, str]] = {
    **{f"named {name[:20]!r}": (plan(sweep=name), r"plan\.json.*cannot name a folder") for name in NAMES},
    "named by a number": (plan(sweep=7), r"plan\.json.*sweep"),
    "a source that is a path": (plan(source="../../etc/passwd"), r"plan\.json.*source.*is a path"),
    "a plan of a later schema": (plan(schema=99), r"plan\.json.*later version"),
    "a plan that lacks cells": (plan(cells=None), r"plan\.json.*cells"),
    "a plan whose runs are paths": (plan(cells=[["adamw", 0, "", "../../../escape"]]), r"plan\.json.*cells"),
    "a plan without these runs": (plan(cells=[]), r"records\.jsonl:1:1.*not one of its plan"),
    "no plan": (lambda folder: (folder / "plan.json").unlink(), r"plan\.json.*missing"),
    "a run that is a path": (record(run="../../../../tmp/x"), r"records\.jsonl:2:1.*run"),
    "a run in capitals": (record(run="E5E3B354E034720A"), r"records\.jsonl:2:1.*run"),
    "a run with a line's end": (record(run="0123456789abcdef\n"), r"records\.jsonl:2:1.*run"),
    "another recipe": (record(recipe__recipe__seed=77), r"records\.jsonl:2:1.*does not give this id"),
    "another run's recipe": (record(recipe__run="0" * 16), r"records\.jsonl:2:1.*does not give this id"),
    "another run's outcome": (record(outcome__run="0" * 16), r"records\.jsonl:2:1.*outcome of the run"),
    "an infinite recipe": (record(recipe__recipe__seed=float("inf")), r"records\.jsonl:2:1.*does not give this id"),
    "a huge attempt": (record(outcome__attempt=10**12), r"records\.jsonl:2:1.*attempt"),
    "an attempt that is a path": (record(outcome__attempt="../x"), r"records\.jsonl:2:1.*attempt"),
    "a negative attempt": (record(outcome__attempt=-1), r"records\.jsonl:2:1.*attempt"),
    "two attempts": (record(attempt=7), r"records\.jsonl:2:1.*attempt 7 has the outcome"),
    "no status": (record(outcome__status="splendid"), r"records\.jsonl:2:1.*status"),
    "NaN per cent": (record(outcome__metrics__test__top1=float("nan")), r"records\.jsonl:2:1.*top1"),
    "infinite seconds": (record(outcome__cost__train_seconds=float("inf")), r"records\.jsonl:2:1.*train_seconds"),
    "an outcome that is a list": (record(outcome=[]), r"records\.jsonl:2:1.*outcome"),
    "a paused run without an attempt": (record(outcome=None), r"records\.jsonl:2:1.*attempt"),
    "an owner that is none": (record(owner=None), r"records\.jsonl:2:1.*owner"),
    "a record twice": (text("records.jsonl", duplicated), r"records\.jsonl:16:1.*twice"),
    "a record cut short": (text("records.jsonl", lambda old: old[:-40]), r"records\.jsonl:15:1.*cut short"),
    "a record gone": (text("records.jsonl", lambda old: old.split(b"\n", 1)[1]), r"curves\.jsonl:1:1.*has no record"),
    "no records": (text("records.jsonl", lambda old: b""), r"curves\.jsonl:1:1.*has no record"),
    "bytes that are no text": (text("records.jsonl", lambda old: b"\xff\xfe\n" + old), r"records\.jsonl:1:1.*UTF-8"),
    "very deep": (text("records.jsonl", lambda old: b"[" * 200_000 + b"\n" + old), r"records\.jsonl:1:1"),
    "a million digits": (text("records.jsonl", lambda old: b"1" * 10**6 + b"\n" + old), r"records\.jsonl:1:1"),
    "a line without end": (text("records.jsonl", lambda old: b" " * (1 << 24) + old), r"records\.jsonl:1:1.*a line of"),
    "an epoch cut short": (text("curves.jsonl", lambda old: old[:-9]), r"curves\.jsonl:225:1.*cut short"),
    "an epoch twice": (text("curves.jsonl", duplicated), r"curves\.jsonl:226:1.*comes after"),
    "an epoch of no run": (line("curves.jsonl", 3, lambda old: old.update(run="../x")), r"curves\.jsonl:3:1"),
    "an epoch that is text": (line("curves.jsonl", 3, lambda old: old.update(epoch="2")), r"curves\.jsonl:3:1.*epoch"),
    "other epochs": (line("curves.jsonl", 3, lambda old: old.update(lr=0.5)), r"curves\.jsonl.*manifest"),
    "another seed's number": (record(outcome__metrics__test__top1=99.0), r"records\.jsonl.*manifest"),
    "no curves": (lambda folder: (folder / "curves.jsonl").unlink(), r"curves\.jsonl.*missing"),
    "no zip": (text("arrays.zip", lambda old: b"PK" + old[10:200]), r"arrays\.zip.*no sound zip"),
    "other arrays": (arrays(lambda held: first(held, b"x")), r"arrays\.zip.*is not what the run wrote"),
    "arrays that are a bomb": (arrays(lambda held: first(held, bytes((1 << 28) + 1))), r"arrays\.zip.*when unpacked"),
    "arrays gone": (arrays(lambda held: list(held.items())[1:]), r"arrays\.zip.*is missing"),
    "arrays of a path": (arrays(lambda held: [*held.items(), ("../../x", b"x")]), r"arrays\.zip.*of no record"),
    "a request of a path": (request("trials/..json", "{}"), r"trials/\.\.json.*not named by a number"),
    "a request that is none": (request("trials/1.json", "[]"), r"trials/1\.json"),
    "a request not kept": (request("seeds/1.json", '{"seeds": {}}'), r"manifest\.json.*seeds/1\.json is not listed"),
    "a manifest of other files": (request("manifest.json", '{"schema": 1, "runs": 10, "files": {}}'), r"not listed"),
    "a manifest that is none": (request("manifest.json", "[1]"), r"manifest\.json"),
    **{
        f"{name}, a link": (link(name, to), rf"{name}.*a link")
        for name, to in (
            ("plan.json", "../moved"),
            ("records.jsonl", "/dev/zero"),
            ("curves.jsonl", "/etc/passwd"),
            ("arrays.zip", "../moved"),
            ("seeds", "/"),
            ("trials", "../secrets"),
            ("manifest.json", "../moved"),
            ("trials/1.json", "/etc/passwd"),
        )
    },
    **{f"{name}, a FIFO": (fifo(name), rf"{name}.*no regular file") for name in ("plan.json", "records.jsonl")},
}


def snapshot(folder: Path) -> dict[str, tuple[int, float, str]]:
    """All that lies below a folder: kinds, times of change, and contents."""
    found = {}
    for inside, folders, names in os.walk(folder):
        for path in (Path(inside, name) for name in [*folders, *names]):
            status = path.lstat()
            regular = stat.S_ISREG(status.st_mode)
            content = hashlib.sha256(path.read_bytes()).hexdigest() if regular else ""
            found[str(path)] = (status.st_mode, status.st_mtime, content)
    return found


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return Path(shutil.copytree(KEPT, tmp_path / "kept"))


def refused(source: Path, store: Store, message: str) -> None:
    before = snapshot(store.root.parent)
    with pytest.raises(InputError, match=f"(?s){message}") as error:
        import_records(source, store)
    assert len(str(error.value)) < 1000
    assert snapshot(store.root.parent) == before


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_archive_changes_nothing(case: str, kept: Path, store: Store) -> None:
    damage, message = HOSTILE[case]
    damage(kept)
    refused(kept, store, message)


def test_there_are_enough_of_them() -> None:
    assert len(HOSTILE) >= 30


@pytest.mark.parametrize("folder", sorted(path.name for path in REFERENCE.iterdir() if path.is_dir()))
def test_what_is_kept_in_the_repository_is_whole_with_and_without_its_manifest(folder: str, tmp_path: Path) -> None:
    brought = import_records(REFERENCE / folder, Store(tmp_path / "a"))
    copy = Path(shutil.copytree(REFERENCE / folder, tmp_path / "copy"))
    told = (copy / "manifest.json").read_bytes()
    (copy / "manifest.json").unlink()
    assert import_records(copy, Store(tmp_path / "b")) == brought
    write_manifest(copy)
    assert (copy / "manifest.json").read_bytes() == told


def test_names_of_sweeps() -> None:
    assert not any(map(is_sweep_name, NAMES))
    assert all(map(is_sweep_name, ("tiny", "optimizers@fashion-mnist-small", "a@b+0123af", "x+012345", "v1.2_b")))


def test_names_that_differ_in_capitals_alone(kept: Path, store: Store) -> None:
    import_records(kept, store)
    (kept / "manifest.json").unlink()
    plan(sweep="Optimizers@fashion-mnist-small")(kept)
    refused(kept, store, "in capitals alone")


# -- another store -----------------------------------------------------------------------------------------------------

RUN = "e5e3b354e034720a"
SWEEP = KEPT.name


def linked(name: str, to: str = "/etc/passwd") -> Damage:
    def write(root: Path) -> None:
        path = root / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        path.symlink_to(to)

    return write


STORES: dict[str, tuple[Damage, str]] = {
    "a log that is a link": (linked(f"runs/{RUN}/a0001/log.txt"), r"log\.txt.*a link"),
    "a log without end": (linked(f"runs/{RUN}/a0001/log.txt", "/dev/zero"), r"log\.txt.*a link"),
    "a checkpoint that is a link": (linked(f"runs/{RUN}/a0001/ckpt.pt"), r"ckpt\.pt.*a link"),
    "an attempt that is a link": (linked(f"runs/{RUN}/a0002", "/etc"), r"a0002.*a link"),
    "a run that is a link": (linked(f"runs/{RUN}", "/etc"), rf"{RUN}.*a link"),
    "runs that are a link": (linked("runs", "/etc"), r"runs.*a link"),
    "a sweep that is a link": (lambda root: (root / "x").symlink_to(root / SWEEP), r"x: damaged: a link"),
    "a FIFO": (lambda root: os.mkfifo(root / "runs" / RUN / "a0001" / "log.txt"), r"log\.txt.*no regular file"),
    "a folder too deep": (
        lambda root: (root / "runs" / RUN / "a0001" / "x").mkdir(),
        r"a0001/x.*no regular file",
    ),
    "other arrays": (
        lambda root: (root / "runs" / RUN / "a0001" / "arrays.npz").write_bytes(b"x"),
        r"arrays\.npz.*not what the run wrote",
    ),
    "another name": (lambda root: (root / SWEEP).rename(root / "other"), r"other/plan\.json.*expected 'other'"),
    "a name that is a code": (lambda root: (root / SWEEP).rename(root / "x\x1b[2J"), r"plan\.json"),
    "an outcome cut short": (
        lambda root: os.truncate(root / "runs" / RUN / "outcome.json", 99),
        r"outcome\.json.*cut short",
    ),
    "another's recipe": (
        lambda root: (root / "runs" / RUN).rename(root / "runs" / ("0" * 16)),
        r"recipe\.json.*does not give",
    ),
}


@pytest.mark.parametrize("case", STORES)
def test_a_hostile_store_changes_nothing(case: str, kept: Path, store: Store) -> None:
    other = Store(store.root.parent / "other")
    import_records(kept, other)
    damage, message = STORES[case]
    damage(other.root)
    refused(other.root, store, message)


def test_a_disk_that_fails_half_way_leaves_no_run(kept: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    written, replace = [], files.replace

    def fails(path: Path, content: bytes) -> None:
        written.append(path)
        if len(written) > 30:
            raise OSError(28, "No space left on device", str(path))
        replace(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(files, "replace", fails)
        with pytest.raises(OSError, match="No space"):
            import_records(kept, store)
    assert not store.runs()
    assert list((store.root / "runs").iterdir()) == []
    assert not store.sweeps.names()
    assert import_records(kept, store).known == 0


def test_gc_leaves_an_import_alone_and_clears_what_one_of_yesterday_has_left(kept: Path, ask: Ask) -> None:
    store, seen = Store("results"), list[Path]()

    def meanwhile(folder: Path) -> None:
        seen.append(folder)
        assert "freed" in ask("gc").out

    unharmed = archive._kept(kept)
    write = {run: lambda folder, own=own: (own(folder), meanwhile(folder)) for run, own in unharmed.runs.items()}
    assert archive._adopt(store, replace(unharmed, runs=dict(itertools.islice(write.items(), 2)))) == (2, 0)
    assert len(seen) == 2
    assert all(store.result(folder.name) for folder in seen)
    left = files.make_folder(store.root / "runs" / f"{files.TEMPORARY}x" / "a")
    (left / "file").write_text("x" * 100)
    assert "freed 0 B in 0 files" in ask("gc").out
    os.utime(left.parent, (0, 0))
    assert "freed 100 B in 1 files" in ask("gc").out
    assert not left.parent.exists()


def test_the_trash_is_never_a_link(kept: Path, store: Store, command: Command) -> None:
    import_records(kept, store)
    precious = store.root.parent / "precious"
    precious.mkdir()
    (precious / "file").write_text("mine")
    (store.root / "trash").symlink_to(precious)
    for arguments in (("gc",), ("forget", RUN, "--yes"), ("import", KEPT, "--results", store.root)):
        code = 0 if arguments[0] == "import" else 2
        told = command(*arguments, code=code).stderr
        assert code == 0 or "trash: damaged: a link" in told
    assert [path.name for path in precious.iterdir()] == ["file"]
    assert RUN in store.runs()


def test_what_is_thrown_away_is_the_stores(kept: Path, store: Store) -> None:
    import_records(kept, store)
    outside = store.root.parent / "outside"
    for name in ("ckpt.pt", "ckpt.prev", f"{files.TEMPORARY}x"):
        files.replace(files.make_folder(outside) / name, b"mine")
    (store.run(RUN) / "a0002").symlink_to(outside)
    files.publish(outside / "owner.json", files.to_json({"nonce": "kept"}))
    (store.trash() / "x").symlink_to(outside)
    assert not list(cleanup.disposable(store, RUN, "none"))
    assert cleanup.trash(store) == [store.root / "trash" / "x"]
    cleanup.empty_trash(store)
    assert list((store.root / "trash").iterdir()) == []
    assert sorted(path.name for path in outside.iterdir())[-1] == "owner.json"
    with pytest.raises(Damaged):
        files.must_be_file(store.run(RUN) / "a0002")
