"""A data folder copied to a node's local disk, once, whoever asks and however many at once.

The copy is made under a temporary name and renamed when it is whole, by whoever holds the lock: a lock of the
kernel (flock), which dies with its process, and is sound because the disk is local. The results folder, which may
lie on a network file system, is never locked.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from deit_ablate.errors import Damaged, DataError
from deit_ablate.files import read_json
from deit_ablate.train.data.images import LISTERS, Listed, files_sha256, list_tree, shown

MARKER = ".staged.json"
"""In the copy, written last: how many files and bytes it holds, and the hash of their names and sizes."""
BLOCK = 256
"""Files that one thread copies without looking whether another has failed."""


def stage(source: Path, target: Path) -> Path:
    """A copy of the folder ``source`` below ``target``, a folder on a local disk: made, awaited or found.

    Its name is the source's with a hash of the source's absolute path. A copy is used while its files have the names
    and sizes of the source's; where they differ it is made anew, so a source must not change under running
    trainings. What a killed process left is removed. Raises DataError for a source that cannot be copied, OSError
    (disk full, storage) with the partial copy removed.
    """
    source = source.resolve()
    if not source.is_dir():
        raise DataError(f"the data folder {source} does not exist, or is not a folder")
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    target = target.resolve()
    if target.is_relative_to(source):
        raise DataError(f"{target}, where data is to be copied, is inside the data folder {source}")
    listed = _listed(source)
    facts = _facts(listed)
    name = (
        re.sub(r"[^A-Za-z0-9._-]", "_", source.name)[:80] + "-" + hashlib.sha256(os.fsencode(source)).hexdigest()[:16]
    )
    copy = target / name
    with _locked(target / f".{name}.lock"):
        for leftover in target.glob(f".tmp-{name}-*"):  # nobody is at work on it: we hold the lock
            shutil.rmtree(leftover)
        if not _whole(copy, facts):
            _make(source, copy, listed, facts)
    return copy


def _listed(folder: Path) -> Listed:
    return [
        (relative, [(name, size) for name, size in files if relative or name != os.fsencode(MARKER)])
        for relative, files in list_tree(os.fsencode(folder))
    ]


def _facts(listed: Listed) -> dict[str, Any]:
    pairs = [(os.path.join(relative, name), size) for relative, files in listed for name, size in files]
    return {"files": len(pairs), "bytes": sum(size for _, size in pairs), "listing": files_sha256(pairs)}


def _whole(copy: Path, facts: dict[str, Any]) -> bool:
    """Whether there is a complete copy of this listing. Its files are looked at, for cleaners of temporary folders
    remove the oldest, and a node that lost its power may have kept names without content."""
    try:
        status = copy.lstat()
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise DataError(f"{copy} is not a folder of this user's: remove it, or choose another place to copy data to")
    try:
        return bool(read_json(copy / MARKER) == facts and _facts(_listed(copy)) == facts)
    except (FileNotFoundError, ValueError, Damaged):  # a ValueError too where a part of the copy cannot be listed
        return False


def _make(source: Path, copy: Path, listed: Listed, facts: dict[str, Any]) -> None:
    temporary = copy.with_name(f".tmp-{copy.name}-{os.getpid()}")
    try:
        if copy.exists():
            copy.rename(temporary)
            shutil.rmtree(temporary)
        free = shutil.disk_usage(copy.parent).free
        if free < facts["bytes"]:
            raise OSError(
                errno.ENOSPC, f"no room for {facts['bytes']:,} bytes of data: {free:,} are free", str(copy.parent)
            )
        print(f"copies {facts['files']:,} files ({facts['bytes']:,} bytes) of {source} to {copy}", flush=True)
        temporary.mkdir(mode=0o700)
        _copy(source, temporary, listed)
        with open(temporary / MARKER, "w") as marker:
            json.dump(facts, marker)
            marker.flush()
            os.fsync(marker.fileno())
        temporary.rename(copy)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _copy(source: Path, target: Path, listed: Listed) -> None:
    def work(block: tuple[bytes, list[tuple[bytes, int]]]) -> None:
        relative, files = block
        for name, size in files:
            path = os.path.join(os.fsdecode(relative), os.fsdecode(name))
            here, there = os.path.join(source, path), os.path.join(target, path)
            shutil.copyfile(here, there)
            if os.stat(there).st_size != size:
                raise DataError(f"{shown(os.fsencode(here))} changed while it was copied")

    for relative, _ in listed:  # in the order of their paths, so that each finds the one that it is in
        if relative:
            os.mkdir(os.path.join(target, os.fsdecode(relative)))
    blocks = [
        (relative, files[start : start + BLOCK]) for relative, files in listed for start in range(0, len(files), BLOCK)
    ]
    with ThreadPoolExecutor(LISTERS) as pool:
        for _ in pool.map(work, blocks):  # what it raises cancels the blocks that nobody has begun
            pass


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of this file, which is never removed: a lock on a removed file excludes nobody."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print(f"waits for another process, which copies or checks the data in {path.parent}", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
