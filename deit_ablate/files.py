"""How a file comes to be: whole, or a line at a time.

``link`` and ``rename`` are the only primitives that hold on network file systems too, so nothing here
locks: the first ``publish`` of a name wins, ``replace`` shows the old file or the new one and never half,
and a line is appended with one write and an fsync.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import hashlib
import io
import itertools
import json
import os
import secrets
import shutil
import stat
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deit_ablate.errors import Damaged

if TYPE_CHECKING:
    import zipfile

    import numpy as np

TEMPORARY = ".tmp-"
MARK_OF_SHARED = ".deit-ablate-shared"
"""The file whose presence says that a folder is shared (``share``)."""


def make_folder(path: Path) -> Path:
    """Create a folder (and its parents) readable by its owner alone (but see ``share``); an existing one is left as it
    is."""
    missing = [path, *(parent for parent in path.parents if not parent.exists())] if not path.exists() else []
    for folder in reversed(missing):
        with contextlib.suppress(FileExistsError):
            folder.mkdir(mode=0o777 if is_shared(folder) else 0o700)
    return path


def share(root: Path) -> None:
    """Let permissions of what is made below a folder follow the umask, from now on and in every process."""
    if not root.exists():
        make_folder(root.parent)
        root.mkdir(exist_ok=True)
    (root / MARK_OF_SHARED).touch()
    _is_shared.cache_clear()


def is_shared(path: Path) -> bool:
    """Whether a folder, or one that it is in, is shared."""
    return _is_shared(path.absolute())


@functools.lru_cache(maxsize=4096)
def _is_shared(path: Path) -> bool:
    return os.path.exists(path / MARK_OF_SHARED) or (path.parent != path and _is_shared(path.parent))


def open_to_append(path: Path) -> int:
    """A file descriptor for a file that only its owner can read, unless the folder is shared."""
    mode = 0o666 if is_shared(path.parent) else 0o600
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, mode)


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


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Let an error name the file: that of a write or an fsync, as where the disk is full, has no name by itself."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def _write(temporary: Path, content: bytes, path: Path) -> None:
    """Write what is to become ``path``."""
    with naming(path), open(temporary, "wb") as handle:
        handle.write(content)
        handle.flush()
        os.fsync(handle.fileno())


def publish(path: Path, content: bytes) -> bool:
    """Make ``path`` appear whole unless it exists. True where this call made it; the first one wins.

    Raises OSError, with a word on hard links where the file system has none.
    """
    with temporary_beside(path) as temporary:
        _write(temporary, content, path)
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
        _write(temporary, content, path)
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
    handle = open_to_append(path)
    try:
        content = line.encode() + b"\n"
        with naming(path):
            if os.write(handle, content) < len(content):  # what came after it would be one line with it
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(handle)
    finally:
        os.close(handle)


def must_be_file(path: Path) -> Path:
    """The path itself. Raises Damaged where there is no regular file, be it that there is a link to one."""
    try:
        kind = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        raise Damaged(path, "missing") from None
    if stat.S_ISLNK(kind):
        raise Damaged(path, "a link, which is not followed", expected="the file itself")
    if not stat.S_ISREG(kind):
        raise Damaged(path, "no regular file")
    return path


def listed(folder: Path, most: int) -> list[Path]:
    """What a folder holds, by name. Raises Damaged where it is none, is a link to one, or holds more than ``most``."""
    if folder.is_symlink():
        raise Damaged(folder, "a link, which is not followed", expected="the folder itself")
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in itertools.islice(entries, most + 1)]
    except OSError as error:
        raise Damaged(folder, f"no folder that can be read ({error.strerror})") from None
    if len(names) > most:
        raise Damaged(folder, f"more than {most:,} entries")
    return [folder / name for name in sorted(names)]


def below(folder: Path) -> Iterator[Path]:
    """Every file below a folder, links as themselves: none is followed, nor is the folder where it is one."""
    if folder.is_symlink():
        return
    for inside, folders, names in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(inside, name))]
        yield from (Path(inside, name) for name in [*names, *links])


def copy_file(path: Path, target: Path) -> None:
    """Copy a regular file's content. Raises OSError for what has become a link meanwhile."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as source, naming(target), open(target, "xb") as copy:
        must_be_file(path)
        shutil.copyfileobj(source, copy, 1 << 20)
        copy.flush()
        os.fsync(copy.fileno())


def to_json(value: Any) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=True, allow_nan=True).encode() + b"\n"


MOST_BYTES = 1 << 26
"""Bytes of a file that is read whole: far above any that is written."""


def read_regular(path: Path, most: int = MOST_BYTES) -> bytes | None:
    """The content of a file, or None where there is none.

    Raises Damaged for what is no regular file (opening a FIFO would wait for ever), has more than ``most`` bytes, or
    cannot be read.
    """
    try:
        handle = _opened(path)
    except (FileNotFoundError, NotADirectoryError):
        if os.path.islink(path):
            raise Damaged(path, "a link to nothing") from None
        return None
    with open(handle, "rb") as file:
        if os.fstat(handle).st_size > most:
            raise Damaged(path, f"more than {most:,} bytes")
        try:
            return file.read()
        except OSError as error:
            raise Damaged(path, f"cannot be read ({error.strerror})") from None


def read_tail(path: Path, most: int, start: int = 0) -> tuple[bytes, int]:
    """The last ``most`` bytes of a file, but none before ``start``; and where they begin. Raises FileNotFoundError, and
    Damaged as ``read_regular`` does."""
    with open(_opened(path), "rb") as handle:
        start = max(start, handle.seek(0, os.SEEK_END) - most)
        handle.seek(start)
        return handle.read(most), start


def _opened(path: Path) -> int:
    """A descriptor of a regular file. Raises FileNotFoundError, NotADirectoryError or Damaged."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise  # which says nothing of the file
        raise Damaged(path, f"cannot be read ({error.strerror})") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise Damaged(path, "no regular file")
    return handle


def parse_json(path: Path, content: bytes, line: int = 0) -> Any:
    """The JSON in a file's content, or in one line of it. Raises Damaged."""
    try:
        return json.loads(content)
    except UnicodeDecodeError:
        why = "not UTF-8"
    except RecursionError:
        why = "nested too deeply"
    except ValueError:
        why = "not JSON, or cut short" if content.strip() else "empty"
    raise Damaged(path, why, line)


def read_json(path: Path) -> Any | None:
    """The JSON in a file, or None where there is no such file. Raises Damaged."""
    content = read_regular(path)
    return None if content is None else parse_json(path, content)


def read_lines(path: Path) -> list[Any]:
    """The JSON lines of a file that may be growing: a torn last line is left out. Raises Damaged for any other."""
    lines = (read_regular(path) or b"").split(b"\n")[:-1]
    return [parse_json(path, line, number) for number, line in enumerate(lines, start=1)]


MOST_ARRAYS = 1 << 28
"""Bytes that the arrays of one file may have when unpacked."""


def read_arrays(
    path: Path, sha256: str | None, names: Collection[str] | None = None
) -> dict[str, np.ndarray[Any, Any]] | None:
    """The arrays in a NumPy archive of this hash, numbers in one dimension each; None where there is no such file.

    ``names``: those that are read; all of them otherwise.

    Raises Damaged for any other content: arrays of objects would be code, and a header may claim any size.
    """
    import zipfile
    import zlib

    content = read_regular(path, MOST_ARRAYS)
    if content is None:
        return None
    if hashlib.sha256(content).hexdigest() != sha256:
        raise Damaged(path, "not what the run wrote")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            named = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
            entries = [entry for name, entry in named.items() if names is None or name in names]
            if sum(entry.file_size for entry in entries) > MOST_ARRAYS:
                raise ValueError(f"more than {MOST_ARRAYS:,} bytes when unpacked")
            return {entry.filename.removesuffix(".npy"): _array(archive, entry) for entry in entries}
    except (ValueError, LookupError, OSError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise Damaged(path, str(error) or type(error).__name__) from None


def _array(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> np.ndarray[Any, Any]:
    """Its header is read first: NumPy would make room for whatever that says."""
    import numpy as np

    with archive.open(entry) as handle:
        readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
        shape, _, dtype = readers[np.lib.format.read_magic(handle)](handle)
        if len(shape) != 1 or dtype.kind not in "iuf" or not 0 <= shape[0] * dtype.itemsize <= entry.file_size:
            raise ValueError(f"{entry.filename} is no list of numbers")
        return np.frombuffer(handle.read(shape[0] * dtype.itemsize), dtype, shape[0])


def shipped(name: str) -> Path:
    """The folder called ``name`` (sweeps or analysis), inside the installed package or beside it in a checkout."""
    package = Path(__file__).parent
    inside = package / "shipped" / name
    return inside if inside.is_dir() else package.parent / name
