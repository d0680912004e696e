"""The site builds, is complete without a network, and names what exists."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from deit_ablate.cli.app import COMMANDS
from deit_ablate.recipe import Recipe, flatten
from deit_ablate.report.bundle import MAKEFILE

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mkdocs")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_reference_has_every_command_and_field(site: Path) -> None:
    commands = (site / "reference" / "cli.html").read_text()
    for name in COMMANDS:
        assert f'<h2 id="{name}">' in commands, name
    assert "--profile" in commands
    fields = (site / "reference" / "recipe.html").read_text()
    for path, _ in flatten(Recipe().model_dump()):
        assert f"<code>{path.rsplit('.', 1)[-1]}</code>" in fields, path
    assert "9/0.5" in fields, "what the paper's Table 9 prints"
    sweeps = (site / "reference" / "sweep-file.html").read_text()
    for key in ("leave_one_out", "by_profile", "candidate_seeds", "array_parallelism"):
        assert f"<code>{key}</code>" in sweeps, key
    python = (site / "reference" / "python.html").read_text()
    assert 'id="deit_ablate.train.loop.train"' in python
    assert "generated:" not in commands + fields + sweeps + python


def test_the_site_fetches_nothing(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text()
        assert not re.findall(r"<(?:script|img|iframe)[^>]+src=\"?https?:", text), page
        assert not re.findall(r"<link[^>]+rel=\"?stylesheet\"?[^>]+href=\"?https?:", text), page
        assert "fonts.googleapis" not in text, page


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_page_names_commands_targets_and_files_that_exist(page: Path) -> None:
    text = page.read_text()
    for command in re.findall(r"`deit-ablate ([a-z]+)\b", text):
        assert command in COMMANDS, command
    targets = (ROOT / "Makefile").read_text() + MAKEFILE.read_text()  # a bundle has one of its own
    for target in re.findall(r"`make ([a-z-]+)`", text):
        assert re.search(rf"^{target}:", targets, re.M), target
    for path in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text):
        assert (page.parent / path).exists(), path


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_architecture_shows_every_room_and_no_file_that_is_gone() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    tree = text.split("## Rooms of the package")[1].split("```")[1]
    shown, folder = set(), ""
    for indent, name in re.findall(r"^( *)([\w./]+) ", tree, re.M):
        if not indent:
            folder = name if name.endswith("/") else ""
        shown.add(name if not indent else folder + name)
    package = ROOT / "deit_ablate"
    gone = [path for path in shown if not (package / path).exists()]
    assert not gone, f"docs/architecture.md shows what is gone: {gone}"
    rooms = {
        path.name + "/" * path.is_dir()
        for path in package.iterdir()
        if (path.is_dir() and path.name != "__pycache__") or (path.suffix == ".py" and not path.name.startswith("__"))
    }
    assert rooms <= shown, f"a line for each of {sorted(rooms - shown)} is missing in docs/architecture.md"
    for path in re.findall(r"`((?:cli|sweep|store|launch|search|train|worker|report)/[\w/]+\.py)`", text):
        assert (package / path).exists(), path


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in PAGES[2:]:
        assert f": {page.relative_to(ROOT / 'docs').as_posix()}" in navigation, page
