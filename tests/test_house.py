"""The rules of the house, run: the directions of imports, what the README says, the sizes of files."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import deit_ablate
from deit_ablate.cli.app import COMMANDS

ROOT = Path(__file__).parent.parent


def test_imports_run_in_one_direction() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def test_the_readme_names_commands_and_files_that_exist() -> None:
    text = (ROOT / "README.md").read_text()
    for command in re.findall(r"`deit-ablate ([a-z]+)", text):
        assert command in COMMANDS, command
    for path in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (ROOT / path).exists(), path
    for target in re.findall(r"`make ([a-z-]+)`", text):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M), target


def test_no_file_and_no_function_is_large() -> None:
    for path in (ROOT / "deit_ablate").rglob("*.py"):
        text = path.read_text()
        assert len(text.splitlines()) <= 450, f"{path} has {len(text.splitlines())} lines: make it a folder"
        assert "fmt: " not in text, f"{path}: the formatter's lines are ours"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (path.name, node.name) != ("loop.py", "train"):
                lines = (node.end_lineno or 0) - node.lineno + 1
                assert lines <= 80, f"{path}: {node.name} has {lines} lines"


def test_the_top_floor_has_at_most_fifteen_rooms() -> None:
    package = ROOT / "deit_ablate"
    rooms = [path for path in package.iterdir() if path.is_dir() or path.suffix == ".py"]
    rooms = [path for path in rooms if not path.name.startswith("__") and path.name != "shipped"]
    assert len(rooms) <= 15, sorted(path.name for path in rooms)


def test_type_checkers_see_the_names_that_a_notebook_imports(tmp_path: Path) -> None:
    names = [name for name in dir(deit_ablate) if name != "__version__"]
    lines = [f"reveal_type(deit_ablate.{name})" for name in names]
    (tmp_path / "user.py").write_text("\n".join(["import deit_ablate", *lines]))
    python = [sys.executable, "-m", "mypy", "--cache-dir", str(ROOT / ".mypy_cache"), str(tmp_path / "user.py")]
    done = subprocess.run(python, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = re.findall(r'Revealed type is "(.*)"', done.stdout)
    assert len(seen) == len(names)
    assert not [name for name, kind in zip(names, seen, strict=True) if kind in ("Any", "types.ModuleType")]
