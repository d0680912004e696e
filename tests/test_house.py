"""The rules of the house, run: the directions of imports, what the README says, the sizes of files."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

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


def test_no_file_is_large() -> None:
    for path in (ROOT / "deit_ablate").rglob("*.py"):
        lines = len(path.read_text().splitlines())
        assert lines <= 450, f"{path} has {lines} lines: make it a folder"
