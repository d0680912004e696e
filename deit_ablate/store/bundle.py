"""Bundles: what somebody else needs to train one cell of a table anew, in a folder or a zip archive of one.

<bundle>/manifest.json          version, SEMANTICS, sweep, row, run, and of every other file its bytes and SHA-256
<bundle>/README.md, Makefile, requirements.lock.txt, table.md, report.html
<bundle>/records/               as ``archive.keep`` writes them
<bundle>/recipes/<run>.json     recipe.json of each run
<bundle>/sweep/                 the sweep's file, and the profiles beside it
<bundle>/sources/               modules of one's own, as they are imported
<bundle>/weights/<sha256>.*     files that recipes name by their content
<bundle>/package/               deit_ablate as a wheel
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Annotated, Any

from pydantic import AfterValidator

from deit_ablate import files
from deit_ablate.errors import Damaged, InputError
from deit_ablate.identity import PROGRAM_SEMANTICS, SEMANTICS
from deit_ablate.store import schema
from deit_ablate.store.archive import import_records, listing
from deit_ablate.store.store import Store

MANIFEST = "manifest.json"
MOST_FILES, MOST_BYTES = 1_000_000, 1 << 36
"""Files of a bundle, and bytes of all of them, that are read."""
_BAD_ZIP = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError)
"""What reading an entry of a zip archive raises where that is damaged, encrypted, or packed in a way that is not known
here."""


def _is_path_inside(name: str) -> bool:
    """Whether a text is the path of a file in a folder: relative, with no way out of it, the same on every system."""
    return name.isprintable() and "\\" not in name and ":" not in name and not {"", ".", ".."} & set(name.split("/"))


def _inside(listed: dict[str, schema.Listed]) -> dict[str, schema.Listed]:
    if odd := next((name for name in listed if not _is_path_inside(name)), None):
        raise ValueError(f"{odd[:200]!r} is no path in a bundle")
    if sum(each.bytes for each in listed.values()) > MOST_BYTES or len(listed) > MOST_FILES:
        raise ValueError(f"more than {MOST_FILES:,} files, or {MOST_BYTES:,} bytes")
    return listed


class Manifest(schema.File):
    version: str
    semantics: schema.Number
    sweep: str
    row: str | None = None
    run: schema.RunId
    """The cell that is trained anew where nobody names another."""
    program: dict[str, Any] | None = None
    """How runs of a program are executed, less the folder: that of the sources."""
    files: Annotated[dict[str, schema.Listed], AfterValidator(_inside)]


def write_manifest(folder: Path, about: Mapping[str, Any]) -> None:
    """Say what a folder holds, as its last file."""
    listed = listing((path.relative_to(folder).as_posix(), path) for path in sorted(files.below(folder)))
    files.replace(folder / MANIFEST, files.to_json({"schema": schema.SCHEMA, **about, "files": listed}))


def pack(folder: Path, target: Path) -> None:
    """Write the folder as a zip archive, which unpacks into a folder of the archive's name."""
    with files.temporary_beside(target) as temporary:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in sorted(files.below(folder)):
                entry = zipfile.ZipInfo(f"{target.stem}/{path.relative_to(folder).as_posix()}")
                entry.external_attr = (stat.S_IFREG | 0o644) << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                with open(path, "rb") as source, archive.open(entry, "w", force_zip64=True) as copy:
                    while part := source.read(1 << 20):
                        copy.write(part)
        os.replace(temporary, target)


@dataclass(frozen=True)
class Bundle:
    """A bundle that was read: a copy of its files, each as its manifest says, and its records as a store."""

    folder: Path
    manifest: Mapping[str, Any]
    store: Store

    @property
    def sweep(self) -> str:
        return str(self.manifest["sweep"])


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Bundle]:
    """Read a bundle, a folder or a zip archive, into a temporary folder: what its manifest lists, and nothing else.

    Raises InputError where it is none, where anything in it is damaged, a link, or not as its manifest says, and where
    its recipes mean another training than here.
    """
    with contextlib.ExitStack() as open_files, tempfile.TemporaryDirectory(prefix="deit-ablate-") as temporary:
        source = _source(path, open_files)
        content = source.read_manifest()
        where = path / MANIFEST
        manifest = schema.checked(where, files.parse_json(where, content), Manifest)
        here = PROGRAM_SEMANTICS if manifest.get("program") else SEMANTICS
        if manifest["semantics"] != here:
            raise InputError(
                f"its recipes mean another training than here (SEMANTICS {manifest['semantics']}, here {here})",
                where=str(path),
                expected=f"deit-ablate {manifest['version']}, which it holds: `make reproduce` in its folder",
            )
        source.must_list(manifest["files"])
        folder = files.make_folder(Path(temporary) / "bundle")
        for name, listed in manifest["files"].items():
            _copy(source, name, listed, files.make_folder((folder / name).parent) / PurePosixPath(name).name)
        (folder / MANIFEST).write_bytes(content)
        store = Store(Path(temporary) / "store")
        try:
            import_records(folder / "records", store)
        except InputError as error:
            file, line, column = error.where or ("", 0, 0)
            error.where = (file.replace(str(folder), str(path)), line, column)  # the user's file, not our copy
            raise
        yield Bundle(folder, manifest, store)


def _copy(source: _Folder | _Zip, name: str, listed: Mapping[str, Any], target: Path) -> None:
    """Raises Damaged where the file is not the one that the manifest lists."""
    digest, left = hashlib.sha256(), listed["bytes"] + 1
    try:
        with source.open(name) as given, open(target, "xb") as copy:
            while left > 0 and (part := given.read(min(left, 1 << 20))):
                digest.update(part)
                copy.write(part)
                left -= len(part)
    except _BAD_ZIP as error:
        raise Damaged(source.path / name, str(error)) from None
    if left != 1 or digest.hexdigest() != listed["sha256"]:
        raise Damaged(source.path / name, f"its content is not the one that {MANIFEST} names")


def _source(path: Path, open_files: contextlib.ExitStack) -> _Folder | _Zip:
    if path.is_dir():
        return _Folder(path)
    if not os.path.lexists(path):
        raise InputError("no such file or folder", where=str(path), expected="what `deit-ablate bundle` wrote")
    try:
        return _Zip(path, open_files.enter_context(zipfile.ZipFile(files.must_be_file(path))))
    except (zipfile.BadZipFile, EOFError, ValueError) as error:
        raise Damaged(path, f"no sound zip archive ({error})") from None


class _Folder:
    """A bundle as a folder, which may hold more by now (what was trained in it), and that is not looked at."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read_manifest(self) -> bytes:
        path = self.path / MANIFEST
        if not os.path.lexists(path):
            raise _no_bundle(self.path)
        return files.read_regular(files.must_be_file(path)) or b""

    def must_list(self, listed: Mapping[str, Any]) -> None:
        return

    def open(self, name: str) -> IO[bytes]:
        path = files.must_be_file(self.path / name)
        if path.resolve() != self.path.resolve() / name:
            raise Damaged(path, "in a folder that is a link, which is not followed", expected="the folder itself")
        return open(path, "rb")


class _Zip:
    """A bundle as a zip archive: of nothing but its files, in one folder or in none."""

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path, self._archive = path, archive
        entries = archive.infolist()
        if len(entries) > MOST_FILES:
            raise Damaged(path, f"more than {MOST_FILES:,} entries")
        manifests = [entry.filename for entry in entries if PurePosixPath(entry.filename).name == MANIFEST]
        if not manifests:
            raise _no_bundle(path)
        self._prefix = min(manifests, key=lambda name: (name.count("/"), name)).removesuffix(MANIFEST)
        self._entries: dict[str, zipfile.ZipInfo] = {}
        for entry in entries:
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise Damaged(path, f"{entry.filename[:200]!r} is a link, which is not followed")
            name = entry.filename.removeprefix(self._prefix)
            if entry.is_dir():
                continue
            if not entry.filename.startswith(self._prefix) or name in self._entries or not _is_path_inside(name):
                raise Damaged(path, f"{entry.filename[:200]!r} has no place in a bundle, or is there twice")
            self._entries[name] = entry

    def read_manifest(self) -> bytes:
        entry = self._entries[MANIFEST]
        if entry.file_size > files.MOST_BYTES:
            raise Damaged(self.path / MANIFEST, f"more than {files.MOST_BYTES:,} bytes")
        try:
            return self._archive.read(entry)
        except _BAD_ZIP as error:
            raise Damaged(self.path / MANIFEST, str(error)) from None

    def must_list(self, listed: Mapping[str, Any]) -> None:
        """Raises Damaged for an entry that the manifest does not list, and for what unpacks to far more than it is."""
        unpacked = sum(each["bytes"] for each in listed.values())
        if unpacked > max(1 << 30, 100 * self.path.stat().st_size):
            raise Damaged(self.path, f"it unpacks to {unpacked:,} bytes, which is more than 100 times its size")
        if odd := sorted(self._entries.keys() - listed.keys() - {MANIFEST}):
            raise Damaged(self.path / odd[0], f"{MANIFEST} does not list it")

    def open(self, name: str) -> IO[bytes]:
        if (entry := self._entries.get(name)) is None:
            raise Damaged(self.path / name, "missing")
        return self._archive.open(entry)


def _no_bundle(path: Path) -> InputError:
    return InputError(f"no {MANIFEST} here", where=str(path), expected="what `deit-ablate bundle` wrote")


# -- its runs ----------------------------------------------------------------------------------------------------------


def seconds(store: Store, run: str) -> float | None:
    """What a run and those that it depends on took, as recorded; None where one of them has no record."""
    total = 0.0
    for each in store.lineage(run):
        outcome = store.result(each)
        if outcome is None:
            return None
        cost = outcome["cost"]
        total += cost.get("wall_seconds_all_attempts") or cost.get("wall_seconds") or 0.0
    return total


def cheapest(store: Store, plan: Mapping[str, Any], row: str | None = None) -> str | None:
    """The done run of a row (or of any) at the final stage that is trained anew in the least time; None: there is
    none."""
    final = plan["stages"][-1]["name"]
    found = [run for variant, _, stage, run in plan["cells"] if stage == final and row in (None, variant)]
    return quickest(store, found)


def quickest(store: Store, runs: list[str]) -> str | None:
    """The run among these that is done, and trained anew in the least time."""
    done = [run for run in dict.fromkeys(runs) if (store.result(run) or {}).get("status") == "done"]
    costs = {run: cost for run in done if (cost := seconds(store, run)) is not None}
    return min(costs, key=lambda run: (costs[run], run), default=None)
