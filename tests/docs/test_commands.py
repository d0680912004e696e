"""What the pages show is tried: their commands, sweep files and Python, in a page's order, in a folder of the page.

Fenced blocks by language: ``sh`` and ``console`` are commands, ``yaml`` is a sweep file (or a profile, or a recipe for
``train``), ``python`` is a module where it opens with a path in a comment, else it is executed; ``text`` is output. A
block that cannot be run here has ``<!-- not run: REASON -->`` on the line above it.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from deit_ablate.__main__ import main

ROOT = Path(__file__).parents[2]
PAGES = ["README.md", "CONTRIBUTING.md", "benchmarks/README.md"]
PAGES += sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
GENERATED = "docs/gallery.md"
"""Made by docs/make_gallery.py from runs of the very commands that it shows: these are planned only."""

# What a page trains for minutes is trained here for a moment: two steps, two seeds, one trial; its networks are narrow.
MOMENT = ("--set", "data.train_images=64", "--set", "schedule.epochs=1", "--set", "schedule.warmup_epochs=0")
NARROW = {"1024": "64", "2048": "64", "resnet50": "resnet18"}
TRAINED = {
    "README.md": None,
    "docs/guide/first-study.md": None,
    "docs/guide/custom.md": None,
    "docs/guide/data.md": "pets.yaml",
    "docs/guide/search.md": "search",
}
"""Page -> the sweep whose ``run`` is really run there (None: every sweep). Elsewhere ``run`` is parsed, and planned."""
STARTED = {"README.md", "docs/guide/first-study.md", "docs/guide/sharing.md", "docs/guide/troubleshooting.md"}
"""Pages whose store has the optimizer sweep already, trained once for all of them."""
ROWS = {"variants", "grid", "zip", "leave_one_out", "add_one", "cumulative", "factorial", "search"}


@dataclass(frozen=True)
class Block:
    page: str
    line: int
    language: str
    text: str
    reason: str | None
    """Why it is not run."""

    @property
    def file(self) -> str | None:
        """The path in the comment that the block opens with."""
        found = re.match(r"# ([\w./-]+\.(?:py|yaml))", self.text)
        return found[1] if found else None


def blocks(page: str) -> list[Block]:
    found, lines = [], (ROOT / page).read_text().splitlines()
    start = None
    for number, line in enumerate(lines):
        if not line.startswith("```"):
            continue
        if start is None:
            start = number
            continue
        above = re.match(r"<!-- not run: (.+) -->", lines[start - 1])
        text = "\n".join(lines[start + 1 : number])
        found.append(Block(page, start + 2, lines[start].removeprefix("```"), text, above[1] if above else None))
        start = None
    assert start is None, f"{page}:{start}: the block has no end"
    return found


def commands(block: Block) -> list[list[str]]:
    """The words of each command; of ``console`` those after a prompt, the rest being output."""
    text = block.text.replace("\\\n", " ")
    lines = text.splitlines()
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    words = [shlex.split(line, comments=True) for line in lines]
    return [line for line in words if line]


class Reader:
    """Does what a page says, in a folder with the checkout's sweeps, analyses and kept studies."""

    def __init__(self, folder: Path, page: str, python_m: Sequence[str]):
        """``python_m`` stands for ``python -m``."""
        self.folder, self.page, self.python_m = folder, page, python_m
        self.environment = {"PYTHONPATH": str(folder)}
        for name in ("sweeps", "analysis", "results/reference"):
            shutil.copytree(ROOT / name, folder / name)

    def deit_ablate(self, *arguments: str) -> str:
        """Call the command in this process; those that train are processes of their own."""
        if arguments[0] in ("run", "train", "retry", "reproduce"):
            done = subprocess.run(
                [*self.python_m, "deit_ablate", *arguments],
                cwd=self.folder,
                env={**os.environ, **self.environment},
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, f"{arguments}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
            return done.stdout
        printed, code = io.StringIO(), None
        with pytest.MonkeyPatch.context() as patch, contextlib.chdir(self.folder):
            patch.setattr(sys, "argv", ["deit-ablate", *arguments])
            patch.setattr(sys, "path", [*sys.path, str(self.folder)])  # as PYTHONPATH does for a process of its own
            for name, value in self.environment.items():
                patch.setenv(name, value)
            with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
                try:
                    main()
                except SystemExit as end:
                    code = end.code
        assert not code, f"{arguments}: exit code {code}\n{printed.getvalue()}"
        return printed.getvalue()

    def command(self, words: list[str]) -> None:
        words, environment = list(words), dict(self.environment)
        while re.match(r"[A-Z_]+=", words[0]):
            words.pop(0)  # the page's folder is on the path anyway
        output = None
        if ">" in words:
            words, output = words[: words.index(">")], words[words.index(">") + 1]
        program, *arguments = words
        if program == "make":  # what it would do: the target and what it needs exist
            printed = subprocess.run(
                ["make", "--dry-run", *arguments], cwd=ROOT, check=True, capture_output=True, text=True
            ).stdout
        elif program == "python":
            script = ROOT / arguments[0]  # a file, or a folder of one program
            printed = subprocess.run(
                [*self.python_m, script.stem, "--help"],
                cwd=script.parent,
                env={**os.environ, "PYTHONPATH": str(script)},
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            assert "usage: " in printed
        elif program == "export":
            environment = dict([arguments[0].split("=", 1)])
            self.environment |= {name: value for name, value in environment.items() if name != "DEIT_ABLATE_WORKER"}
            printed = ""
        else:
            assert program == "deit-ablate", f"{self.page}: no way to try {program!r}; say <!-- not run: why -->"
            printed = self.deit_ablate(*self.short(arguments))
        if output:
            (self.folder / output).write_text(printed)

    def short(self, arguments: list[str]) -> list[str]:
        """The same command, for a moment: see MOMENT and TRAINED."""
        verb, target = arguments[0], next((word for word in arguments[1:] if not word.startswith("-")), "")
        if verb == "fetch":
            return arguments if "digits" in (self.folder / target).read_text() else [*arguments, "--help"]
        if verb != "run":
            return arguments
        if self.page not in TRAINED or TRAINED[self.page] not in (None, target):
            self.deit_ablate("plan", target)
            return ["plan", "--help"] if "--help" in arguments else ["run", *arguments[1:], "--help"]
        if TRAINED[self.page] == "search":
            # One trial must come above chance; tests/search confirms trials.
            few = ["--set", "schedule.epochs=6", "--set", "data.train_images=400"]
            return ["run", target, "--trials", "3", *few, "--name", target]
        if "--seeds" in arguments:
            at = arguments.index("--seeds")
            arguments = arguments[:at] + arguments[at + 2 :]
        return [*arguments, *MOMENT, "--seeds", "2", "--name", Path(target).stem]

    def show(self, block: Block) -> None:
        """Write down a file that the page shows; plan a sweep."""
        content = yaml.safe_load(block.text) if block.language == "yaml" else None
        name = block.file or "shown.yaml"
        shipped = name.startswith("sweeps/")  # an excerpt of a file that is there
        path = self.folder / ("excerpts" if shipped else "") / Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = block.text
        if isinstance(content, dict) and not ROWS & content.keys() and not block.file:
            text += "\nvariants: {a: {}}\n"  # a part of a sweep file
        path.write_text(text + "\n")
        really_run = self.page in TRAINED and f"run {name}" in (ROOT / self.page).read_text()
        if block.language == "yaml" and (ROWS & content.keys() or not block.file) and not really_run:
            self.deit_ablate("plan", str(path.relative_to(self.folder)))

    def do(self, block: Block) -> None:
        if block.language in ("sh", "console"):
            for words in commands(block):
                self.command(words)
        elif block.language == "yaml" or (block.language == "python" and block.file):
            self.show(block)
        else:
            with contextlib.chdir(self.folder):
                text = re.sub("|".join(NARROW), lambda wide: NARROW[wide[0]], block.text)
                exec(compile(text, f"{block.page}:{block.line}", "exec"), {"__name__": "__main__"})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, warm_python: Sequence[str]) -> Path:
    """A store in which the optimizer sweep was run for a moment."""
    reader = Reader(tmp_path_factory.mktemp("trained"), "README.md", warm_python)
    reader.command(["deit-ablate", "run", "sweeps/optimizers.yaml"])
    return reader.folder / "results"


@pytest.fixture
def reader(request: pytest.FixtureRequest, tmp_path: Path, warm_python: Sequence[str]) -> Reader:
    page = request.param
    made = Reader(tmp_path, page, warm_python)
    if page in STARTED:
        shutil.copytree(request.getfixturevalue("trained"), tmp_path / "results", dirs_exist_ok=True)
    return made


@pytest.mark.parametrize("reader", [page for page in PAGES if page != GENERATED], indirect=True)
def test_what_a_page_shows_works(reader: Reader) -> None:
    for block in blocks(reader.page):
        place = f"{block.page}:{block.line}"
        assert block.language in ("sh", "console", "yaml", "python", "text"), f"{place}: of which language is it?"
        if block.reason or block.language == "text":
            continue
        try:
            reader.do(block)
        except (AssertionError, subprocess.CalledProcessError) as error:
            raise AssertionError(f"{place}\n{block.text}\n\n{error}") from error


def test_the_gallery_shows_commands_that_plan(tmp_path: Path, warm_python: Sequence[str]) -> None:
    reader = Reader(tmp_path, GENERATED, warm_python)
    shown = [words for block in blocks(GENERATED) for words in commands(block)]
    assert len([words for words in shown if words[1] == "run"]) >= 10
    for words in shown:
        reader.deit_ablate("plan", words[2]) if words[1] == "run" else reader.deit_ablate(words[1], "--help")


def test_the_gallery_knows_studies_by_the_names_that_their_commands_give_them(
    tmp_path: Path, warm_python: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(ROOT / "docs")
    import make_gallery

    reader = Reader(tmp_path, GENERATED, warm_python)
    for name in make_gallery.STUDIES:
        words = shlex.split(make_gallery.command(name))
        arguments = [word for word in words[2:] if word not in ("--until-decided", "--confirm")]  # of `run` alone
        assert reader.deit_ablate("plan", *arguments).startswith(f"{name}: ")


def test_a_reason_is_given_for_what_is_not_run() -> None:
    reasons = [block.reason for page in PAGES for block in blocks(page) if block.reason]
    assert reasons
    assert all(len(reason) > 10 for reason in reasons)
