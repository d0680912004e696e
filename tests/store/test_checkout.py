"""Which commit a run's record names."""

from __future__ import annotations

import subprocess
from pathlib import Path

from deit_ablate.store.checkout import checkout_of


def test_the_commit_is_the_last_that_changed_the_code(tmp_path: Path) -> None:
    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
        done = subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(name: str, text: str) -> str:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
        git("add", name)
        git("commit", "-qm", name)
        return git("rev-parse", "HEAD")

    def known() -> dict[str, object] | None:
        checkout_of.cache_clear()
        return checkout_of(tmp_path / "code")

    git("init", "-q")
    commit("notes.md", "first")
    (tmp_path / "code").mkdir()
    assert known() is None, "git knows nothing in this folder"
    code = commit("code/train.py", "1")
    assert known() == {"commit": code, "dirty": False, "diff": ""}
    commit("notes.md", "second")
    (tmp_path / "notes.md").write_text("not committed")
    assert known() == {"commit": code, "dirty": False, "diff": ""}
    (tmp_path / "code" / "train.py").write_text("2")
    edited = known()
    assert edited is not None
    assert (edited["commit"], edited["dirty"]) == (code, True)
    assert "+2" in str(edited["diff"])
    again = commit("code/train.py", "2")
    assert known() == {"commit": again, "dirty": False, "diff": ""}
