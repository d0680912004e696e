"""Data copied to a local disk: once a node, by processes that come together and may be killed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from deit_ablate.errors import TrainError
from deit_ablate.train.data import staging
from deit_ablate.train.data.staging import MARKER, stage

SLOWLY = """
import shutil, sys, time
from pathlib import Path
from deit_ablate.train.data import staging
copy = shutil.copyfile
def slow(*arguments):
    copy(*arguments)
    time.sleep(float(sys.argv[3]))
shutil.copyfile = slow
print(staging.stage(Path(sys.argv[1]), Path(sys.argv[2])), flush=True)
"""


def start(source: Path, target: Path, seconds: float) -> subprocess.Popen[str]:
    """A process that stages, and takes so long over each file."""
    command = [sys.executable, "-c", SLOWLY, str(source), str(target), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def contents(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
        if path.name != MARKER
    }


def copied(output: str) -> bool:
    return "copies 61 files" in output


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """61 files, in folders that one would sort after the other, and an empty folder."""
    folder = tmp_path / "the data"
    for part in ("train/cat", "train/cat-like", "train/cat/small"):
        (folder / part).mkdir(parents=True)
        for number in range(20):
            (folder / part / f"{number}.png").write_bytes(bytes([number]) * number)
    (folder / "train" / "one").symlink_to("cat/1.png")
    (folder / "empty").mkdir()
    os.rename(folder / "train" / "cat" / "0.png", os.path.join(os.fsencode(folder), b"train/cat/\xff.png"))
    return folder


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "local" / "disk"


def left(target: Path) -> list[str]:
    """What lies there beside copies."""
    return sorted(path.name for path in target.iterdir() if path.name.startswith(".tmp"))


def test_a_copy_is_made_once_and_used_again(
    source: Path, target: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = stage(source, target)
    assert copy.parent == target
    assert copy.name.startswith("the_data-")
    assert contents(copy) == contents(source)
    assert not (copy / "train" / "one").is_symlink()
    marker = json.loads((copy / MARKER).read_text())
    assert (marker["files"], marker["bytes"]) == (61, 3 * sum(range(20)) + 1)
    assert copied(capsys.readouterr().out)
    before = copy.stat().st_ino
    monkeypatch.chdir(source.parent)
    assert stage(Path(source.name), target) == copy
    assert capsys.readouterr().out == ""
    assert copy.stat().st_ino == before
    assert left(target) == []
    assert copy.stat().st_mode & 0o777 == 0o700


def test_folders_of_one_name_are_copied_apart(source: Path, target: Path) -> None:
    other = source.parent / "elsewhere" / source.name
    shutil.copytree(source, other)
    (other / "more").write_bytes(b"x")
    assert contents(stage(source, target)) == contents(source)
    assert contents(stage(other, target)) == contents(other)
    assert len([path for path in target.iterdir() if path.is_dir()]) == 2


@pytest.mark.parametrize("where", ["source", "copy"])
def test_a_copy_that_differs_in_names_or_sizes_is_made_anew(
    source: Path, target: Path, where: str, capsys: Any
) -> None:
    copy = stage(source, target)
    changed = (source if where == "source" else copy) / "train" / "cat" / "3.png"
    for change in (lambda: changed.write_bytes(b"longer than before"), changed.unlink):
        change()
        capsys.readouterr()
        assert stage(source, target) == copy
        assert "copies" in capsys.readouterr().out
        assert contents(copy) == contents(source)
    (copy / MARKER).write_text("{")
    stage(source, target)
    assert json.loads((copy / MARKER).read_text())["files"] == 60 + (where == "copy")
    assert left(target) == []


def test_of_many_processes_one_copies_and_all_wait(source: Path, target: Path) -> None:
    processes = [start(source, target, 0.02) for _ in range(4)]
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * 4
    assert sum(map(copied, outputs)) == 1
    (copy,) = {output.splitlines()[-1] for output in outputs}
    assert contents(Path(copy)) == contents(source)
    assert left(target) == []


def test_what_a_killed_process_left_is_removed_and_the_next_takes_over(source: Path, target: Path) -> None:
    victim = start(source, target, 60.0)
    deadline = time.monotonic() + 60
    while not any(path.is_file() for path in target.glob(".tmp-*/**/*")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    waiting = start(source, target, 0.0)
    assert waiting.stdout
    assert "waits for another process" in waiting.stdout.readline()
    (partial,) = left(target)
    victim.send_signal(signal.SIGKILL)
    victim.communicate(timeout=60)
    output = waiting.communicate(timeout=60)[0]
    assert copied(output)
    copy = Path(output.splitlines()[-1])
    assert contents(copy) == contents(source)
    assert left(target) == []
    assert str(victim.pid) in partial


def test_the_leavings_of_another_source_are_left_alone(source: Path, target: Path) -> None:
    (target / ".tmp-other-0123456789abcdef-77").mkdir(parents=True)
    stage(source, target)
    assert left(target) == [".tmp-other-0123456789abcdef-77"]


def test_a_full_disk_is_told_and_the_partial_copy_removed(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copyfile, done = shutil.copyfile, []

    def filling(*arguments: Any) -> Any:
        done.append(arguments)
        if len(done) > 30:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), arguments[1])
        return copyfile(*arguments)

    monkeypatch.setattr(shutil, "copyfile", filling)
    with pytest.raises(OSError, match="No space left") as raised:
        stage(source, target)
    assert raised.value.errno == errno.ENOSPC
    assert [path.name[-5:] for path in target.iterdir()] == [".lock"]
    monkeypatch.setattr(shutil, "copyfile", copyfile)
    assert contents(stage(source, target)) == contents(source)


def test_a_disk_without_room_is_told_before_a_byte_is_copied(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1000, 700, 300))
    with pytest.raises(OSError, match="no room for 571 bytes of data: 300 are free") as raised:
        stage(source, target)
    assert raised.value.errno == errno.ENOSPC
    assert not any(path.is_dir() for path in target.iterdir())


def test_a_source_that_changes_under_the_copy_is_refused(
    source: Path, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def growing(source: str, target: str) -> None:
        Path(target).write_bytes(Path(source).read_bytes() + b"more")

    monkeypatch.setattr(shutil, "copyfile", growing)
    with pytest.raises(TrainError, match="changed while it was copied"):
        stage(source, target)
    assert [path.name[-5:] for path in target.iterdir()] == [".lock"]


def test_what_cannot_be_staged_is_named(source: Path, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TrainError, match="nowhere does not exist"):
        stage(source / "nowhere", target)
    with pytest.raises(TrainError, match="is inside the data folder"):
        stage(source, source / "local")
    shutil.rmtree(source / "local")
    os.mkfifo(source / "pipe")
    with pytest.raises(TrainError, match="pipe is not a regular file"):
        stage(source, target)
    (source / "pipe").unlink()
    copy = stage(source, target)
    copy.rename(target / "moved")
    copy.symlink_to("moved")
    with pytest.raises(TrainError, match="is not a folder of this user's"):
        stage(source, target)
    copy.unlink()
    (target / "moved").rename(copy)
    monkeypatch.setattr(staging.os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(TrainError, match="is not a folder of this user's"):
        stage(source, target)
