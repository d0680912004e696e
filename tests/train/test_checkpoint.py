"""Checkpoint files: whole or not there, and damage is seen."""

from __future__ import annotations

import errno
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from deit_ablate.train import checkpoint
from deit_ablate.train.checkpoint import CheckpointError, load, newest, save


def state(step: int) -> dict[str, Any]:
    return {
        "step": step,
        "model": {"weight": torch.full((64, 64), float(step))},
        "history": [{"epoch": 0, "validation": None}],
    }


def test_the_state_before_is_kept_and_no_temporary_file_is_left(tmp_path: Path) -> None:
    path = tmp_path / "ckpt.pt"
    for step in (1, 2, 3):
        save(path, state(step))
    assert load(path)["step"] == 3
    assert load(tmp_path / "ckpt.prev")["step"] == 2
    assert torch.equal(load(path)["model"]["weight"], torch.full((64, 64), 3.0))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["ckpt.prev", "ckpt.pt"]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text", "other"])
def test_a_damaged_file_falls_back_to_the_one_before(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "ckpt.pt"
    save(path, state(1))
    save(path, state(2))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle] ^= 1
    other = tmp_path / "other.pt"
    torch.save([1, 2], other)
    damaged = {
        "cut": bytes(content[:-100]),
        "flip": bytes(content),
        "empty": b"",
        "text": b"hello",
        "other": other.read_bytes(),
    }
    path.write_bytes(damaged[damage])
    with pytest.raises(CheckpointError, match=r"ckpt\.pt"):
        load(path)
    found = newest([path, tmp_path / "ckpt.prev", tmp_path / "missing.pt"])
    assert found.state is not None
    assert found.state["step"] == 1
    assert found.path == tmp_path / "ckpt.prev"
    assert len(found.skipped) == 1


def test_none_where_none_verifies(tmp_path: Path) -> None:
    (tmp_path / "ckpt.pt").write_bytes(b"nothing")
    found = newest([tmp_path / "ckpt.pt"])
    assert (found.state, found.path, len(found.skipped)) == (None, None, 1)


def test_the_furthest_wins_whatever_the_order(tmp_path: Path) -> None:
    paths = [tmp_path / f"{step}.pt" for step in (5, 9, 7)]
    for path in paths:
        save(path, state(int(path.stem)))
    assert newest(paths).path == newest(reversed(paths)).path == tmp_path / "9.pt"


class _Evil:
    def __reduce__(self) -> Any:
        return (print, ("code ran",))


def test_code_in_a_file_is_not_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "ckpt.pt"
    torch.save({"step": 1, "evil": _Evil()}, path)
    with pytest.raises(CheckpointError):
        load(path)
    assert "code ran" not in capsys.readouterr().out
    path.write_bytes(pickle.dumps({"step": 1}))
    with pytest.raises(CheckpointError):
        load(path)


@pytest.mark.parametrize("after", [0, 3])
def test_a_full_disk_is_reported_as_such_and_the_old_file_stays(
    tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "ckpt.pt"
    save(path, state(1))
    writes = 0

    def full(self: Any, content: Any) -> int:
        nonlocal writes
        writes += 1
        if writes > after:
            raise OSError(errno.ENOSPC, "No space left on device")
        return int(self.file.write(content))

    monkeypatch.setattr(checkpoint._Writer, "write", _remembering(full))
    with pytest.raises(OSError, match="No space left") as caught:
        save(path, state(2))
    assert caught.value.errno == errno.ENOSPC
    assert load(path)["step"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["ckpt.pt"]


def _remembering(write: Any) -> Any:
    def remembered(self: Any, content: Any) -> int:
        try:
            return int(write(self, content))
        except OSError as error:
            self.error = error
            raise

    return remembered
