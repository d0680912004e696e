"""Submissions: numbers that one launcher gets, and the code that is kept for their jobs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from deit_ablate.store import Store
from deit_ablate.store.submissions import Submissions


def test_one_launcher_gets_a_number(store: Store) -> None:
    script = (
        "import sys; from deit_ablate.store import Store; from deit_ablate.store.submissions import Submissions\n"
        "print(Submissions(Store(sys.argv[1])).announce(1, {'name': 'n', 'runs': []}))"
    )
    racers = [
        subprocess.Popen([sys.executable, "-c", script, str(store.root)], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert sorted(racer.communicate()[0].strip() for racer in racers) == ["False"] * 3 + ["True"]


def test_the_package_is_copied_once_a_content(store: Store, tmp_path: Path) -> None:
    package = tmp_path / "thing"
    (package / "sub").mkdir(parents=True)
    (package / "a.py").write_text("1")
    (package / "sub" / "b.py").write_text("2")
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "a.pyc").write_text("x")
    submissions = Submissions(store)
    first, folder = submissions.snapshot(package, {"commit": "c"})
    (package / "__pycache__" / "a.pyc").write_text("y")
    assert submissions.snapshot(package, {}) == (first, folder)
    assert sorted(path.name for path in folder.rglob("*.py*")) == ["a.py", "b.py"]
    (package / "a.py").write_text("3")
    assert submissions.snapshot(package, {})[0] != first
    assert (folder / "thing" / "a.py").read_text() == "1"
