"""The rules of the house, run: the directions of imports, what is generated, what is shipped, what the README says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support import Command

from deit_ablate import shipped
from deit_ablate.cli.app import COMMANDS
from deit_ablate.sweep.schema import SCHEMAS

ROOT = Path(__file__).parent.parent


def test_imports_run_in_one_direction() -> None:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports"))], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("kind", "path"), [("sweep", "sweep.schema.json"), ("profile", "profiles/profile.schema.json")]
)
def test_the_schemas_are_those_of_the_code(kind: str, path: str) -> None:
    stored = json.loads((shipped.folder("sweeps") / path).read_text())
    assert stored == json.loads(json.dumps(SCHEMAS[kind]())), "stale: `make names` writes it anew"


def test_an_editor_would_accept_every_shipped_file() -> None:
    import jsonschema

    from deit_ablate.sweep.yaml import load

    for path in shipped.folder("sweeps").rglob("*.yaml"):
        kind = "profile" if path.parent.name == "profiles" else "sweep"
        jsonschema.validate(load(path).plain(), SCHEMAS[kind]())
        named = re.match(r"# yaml-language-server: \$schema=(\S+)", path.read_text())
        assert named
        assert (path.parent / named[1]).exists()
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"recipe": {"optimizer": {"bas_lr": 1}}, "variants": {"a": {}}}, SCHEMAS["sweep"]())


def test_the_wheel_carries_the_sweeps_inside_the_package(tmp_path: Path) -> None:
    built = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--wheel-dir",
            str(tmp_path),
            str(ROOT),
        ],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    wheel = next(tmp_path.glob("*.whl"))
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"deit_ablate"}, "no other top-level modules"
    for wanted in (
        "shipped/sweeps/optimizers.yaml",
        "shipped/sweeps/profiles/digits.yaml",
        "shipped/analysis/sweep_table.py",
        "train/data/digits.npz",
        "names.json",
        "report/html/page.css",
        "report/html/page.js",
    ):
        assert f"deit_ablate/{wanted}" in names
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(tmp_path / "site"),
            str(wheel),
        ],
        check=True,
    )
    away = Command(tmp_path)
    code = "import sys; sys.path.insert(0, 'site'); sys.argv = ['deit-ablate', *sys.argv[1:]]; from deit_ablate.__main__ import main; main()"
    for arguments in (["init", "mine"], ["plan", "mine/sweeps/optimizers.yaml"], ["plan", "distillation"]):
        done = subprocess.run(
            [sys.executable, "-I", "-c", code, *arguments], cwd=away.folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert "missing" in done.stdout


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
