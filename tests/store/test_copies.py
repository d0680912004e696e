"""What a program has written comes along whole, links in it as what they lead to; no other link does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import RECIPE, RUN

from deit_ablate import files
from deit_ablate.errors import Damaged
from deit_ablate.store import Store, copies
from deit_ablate.store.archive import import_records


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """What a program has written, in a finished run of another store."""
    other = Store(tmp_path / "other")
    other.register(RUN, RECIPE, {}, {})
    attempt = other.claim(RUN)
    other.finish(RUN, attempt, {"status": "done", "reason": None, "metrics": {}, "cost": {}})
    (files.make_folder(attempt.output / "epoch3") / "w.bin").write_bytes(b"weights")
    return attempt.output


def test_a_link_within_is_a_copy(output: Path, store: Store) -> None:
    (output / "best").symlink_to("epoch3")
    (output / "epoch3" / "last.bin").symlink_to(output / "best" / "w.bin")
    (output / "latest.bin").symlink_to("epoch3/last.bin")
    os.mkfifo(output / "socket")
    import_records(output.parents[3], store)
    brought = store.attempt(RUN, 1).output
    paths = list(files.below(brought))
    wanted = ["best/last.bin", "best/w.bin", "epoch3/last.bin", "epoch3/w.bin", "latest.bin"]
    assert sorted(str(path.relative_to(brought)) for path in paths) == wanted
    assert {path.read_bytes() for path in paths} == {b"weights"}
    assert not any(path.is_symlink() for path in brought.rglob("*"))


@pytest.mark.parametrize(
    "to", ["/etc/hostname", "../../recipe.json", "../log.txt", "nowhere", "link", ".", "epoch3/up"]
)
def test_any_other_link_is_refused(output: Path, store: Store, to: str) -> None:
    (output / "link").symlink_to(to)
    (output.parent / "log.txt").touch()
    (output / "epoch3" / "up").symlink_to("..")
    with pytest.raises(Damaged, match="a link, which is not followed; expected one to another place in its folder"):
        import_records(output.parents[3], store)
    assert not store.runs()


def test_links_that_double_one_another_end(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "MOST_FILES", 100)
    for number in range(20):
        folder = files.make_folder(output / f"d{number:02}")
        for name in "ab":
            (folder / name).symlink_to(f"../d{number + 1:02}")
    files.make_folder(output / "d20")
    with pytest.raises(Damaged, match="more than 100 entries"):
        copies.files_of(output.parents[1])
