"""How a file comes to be: whole, or a line at a time.

``link`` and ``rename`` are the only primitives that hold on network file systems too, so nothing here
locks: the first ``publish`` of a name wins, ``replace`` shows the old file or the new one and never half,
and a line is appended with one write and an fsync.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TEMPORARY = ".tmp-"


def make_folder(path: Path) -> Path:
    """Create a folder (and its parents) readable by its owner alone; an existing one is left as it is."""
    missing = [path, *(parent for parent in path.parents if not parent.exists())] if not path.exists() else []
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o700)
    return path


def sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())


@contextlib.contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """A name for a temporary file in the folder of ``path``; whatever is left of it is removed."""
    temporary = path.with_name(f"{TEMPORARY}{secrets.token_hex(6)}-{path.name}")
    try:
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _write(path: Path, content: bytes) -> None:
    with open(path, "wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())


def publish(path: Path, content: bytes) -> bool:
    """Make ``path`` appear whole unless it exists. True where this call made it; the first one wins.

    Raises OSError, with a word on hard links where the file system has none.
    """
    with temporary_beside(path) as temporary:
        _write(temporary, content)
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise OSError(
                    error.errno, f"{path.parent}: this file system has no hard links; use another --results folder"
                ) from None
            # A network file system may report an error after having made the link.
            if not (path.exists() and path.stat().st_ino == temporary.stat().st_ino):
                raise
    sync_folder(path.parent)
    return True


def replace(path: Path, content: bytes) -> None:
    """Write ``path`` anew; a reader sees the old content or the new, never a part."""
    with temporary_beside(path) as temporary:
        _write(temporary, content)
        os.replace(temporary, path)
    sync_folder(path.parent)


def sha256(path: Path) -> str:
    """SHA-256 of a file's content, in hex."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def adopt(path: Path, target: Path, expected: str) -> None:
    """Make ``target`` appear whole, as a hard link to ``path`` or, where there can be none, a copy of it.

    Raises ValueError, and makes nothing, where the SHA-256 of the content is not the expected one.
    """
    with temporary_beside(target) as temporary:
        try:
            os.link(path.resolve(), temporary)  # resolved, for a link to a symbolic link would be one too
        except OSError:
            shutil.copyfile(path, temporary)
            sync_file(temporary)
        if sha256(temporary) != expected:
            raise ValueError(f"the content of {path} has changed")
        os.replace(temporary, target)
    sync_folder(target.parent)


def append_line(path: Path, line: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(handle, line.encode() + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)


def to_json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=True, allow_nan=True).encode() + b"\n"


def read_json(path: Path) -> Any | None:
    """The JSON in a file, or None where there is no such file."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a file that may be growing: a torn last line is left out."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return []
    lines = []
    for line in raw.split(b"\n")[:-1]:
        with contextlib.suppress(ValueError):
            lines.append(json.loads(line))
    return lines
