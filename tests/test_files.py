"""What reaches the disk: whole files, by one writer, and lines that may be torn."""

from __future__ import annotations

import multiprocessing
import os
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import Ask

from deit_ablate import files


def test_the_first_to_publish_wins_and_nothing_is_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    assert files.publish(path, b"1")
    assert not files.publish(path, b"2")
    assert path.read_bytes() == b"1"
    assert os.listdir(tmp_path) == ["x.json"]


def _publish(argument: tuple[str, int]) -> bool:
    path, number = argument
    return files.publish(Path(path), str(number).encode())


def test_of_many_who_publish_at_once_one_wins(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(8) as pool:
        for name in range(20):
            path = str(tmp_path / str(name))
            won = pool.map(_publish, [(path, number) for number in range(8)], chunksize=1)
            assert sum(won) == 1
            assert Path(path).read_bytes() == str(won.index(True)).encode()


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    files.append_line(path, '{"epoch": 0}')
    files.append_line(path, '{"epoch": 1}')
    with open(path, "ab") as handle:
        handle.write(b'{"epoch": 2, "top')
    assert files.read_lines(path) == [{"epoch": 0}, {"epoch": 1}]


@pytest.fixture
def full() -> Iterator[None]:
    """No file grows beyond 10 bytes: such a write fails as on a disk that is full, without the name of the file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    "write", [files.publish, files.replace, lambda path, content: files.append_line(path, content.decode())]
)
def test_a_write_that_fails_names_its_file(tmp_path: Path, full: None, write: Callable[[Path, bytes], object]) -> None:
    path = tmp_path / "x.json"
    with pytest.raises(OSError, match="large|space") as error:
        write(path, b"x" * 11)
    assert error.value.filename == str(path)


def test_an_error_without_a_name_is_said_without(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("deit_ablate.cli.manage.cleanup.size", fails)
    Path("results/runs/0123456789abcdef").mkdir(parents=True)
    said = ask("du")
    assert (said.code, said.err) == (1, "error: No space left on device\n")
