"""Names are known without torch; where their sources have changed since, the worker is asked, once."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from pathlib import Path

import pytest

from deit_ablate import names as module
from deit_ablate.execution import answer_line
from deit_ablate.names import fact

OLD, NEW = {"optimizers": {"adamw": {}}}, {"optimizers": {"adamw": {}, "new": {}}}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with a registry's source, its names, and a worker that knows more and counts how often it is asked."""
    (tmp_path / "optim.py").write_text("before")
    sources = {"optim.py": hashlib.sha256(b"before").hexdigest()}
    (tmp_path / "names.json").write_text(json.dumps({"sources": sources, **OLD}))
    answer = {"sources": {"optim.py": hashlib.sha256(b"after").hexdigest()}, **NEW}
    (tmp_path / "worker.py").write_text(
        f"import sys; assert sys.argv[1:] == ['offered']; open({str(tmp_path / 'asked')!r}, 'a').write('x')\n"
        f"sys.stdout.buffer.write({b'a banner' + answer_line(answer) + answer_line(None)!r})"
    )
    monkeypatch.setattr(module, "PACKAGE", tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("DEIT_ABLATE_WORKER", shlex.join([sys.executable, str(tmp_path / "worker.py")]))
    return tmp_path


def optimizers() -> list[str]:
    return list(module.names.__wrapped__()["optimizers"])


def times_asked(package: Path) -> int:
    return len((package / "asked").read_text()) if (package / "asked").exists() else 0


def test_while_the_sources_are_those_of_the_file_nobody_is_asked(package: Path) -> None:
    assert optimizers() == ["adamw"]
    assert times_asked(package) == 0


def test_the_worker_is_asked_once_for_each_change(package: Path) -> None:
    (package / "optim.py").write_text("after")
    for _ in range(3):
        assert optimizers() == ["adamw", "new"]
    assert times_asked(package) == 1
    (package / "optim.py").unlink()
    optimizers(), optimizers()
    assert times_asked(package) == 2
    (package / "optim.py").write_text("before")
    assert optimizers() == ["adamw"]
    assert times_asked(package) == 2


def test_a_damaged_cache_is_written_anew(package: Path) -> None:
    (package / "optim.py").write_text("after")
    optimizers()
    (cache,) = (package / "cache" / "deit-ablate" / "names").iterdir()
    for damage in ("{", "[]", '{"for": {}}'):
        cache.write_text(damage)
        assert optimizers() == ["adamw", "new"]
    assert times_asked(package) == 4


def test_what_the_file_holds_stays_known_where_the_worker_cannot_answer(
    package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (package / "optim.py").write_text("after")
    monkeypatch.setenv("DEIT_ABLATE_WORKER", "false")
    assert optimizers() == ["adamw"]
    monkeypatch.delenv("DEIT_ABLATE_WORKER")
    monkeypatch.setenv(module.ASKING, "1")
    assert optimizers() == ["adamw"], "the worker that is asked does not ask in turn"


def test_facts() -> None:
    assert fact("datasets", "digits", "train") == 1198
    assert fact("datasets", "mylab:data", "train") is None
    assert fact("distillations", "mylab:KIND", "teacher", True) is True
