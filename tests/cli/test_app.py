"""The command line: quick where it should be, clear where something is wrong, careful with what it prints."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import TINY, Ask, Command

from deit_ablate.cli.app import COMMANDS


def loaded_by(*arguments: str, folder: Path) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run the command in a process of its own; also the heavy modules that it had imported by its end."""
    code = (
        "import sys; sys.argv = ['deit-ablate', *sys.argv[1:]]\n"
        "from deit_ablate.__main__ import main\n"
        "heavy = {'torch', 'timm', 'pandas', 'matplotlib', 'scipy', 'pydantic'}\n"
        "try: main()\n"
        "finally: print('\\n'.join(heavy & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=folder)
    return done, set(done.stderr.split())


def test_help_imports_next_to_nothing(tmp_path: Path) -> None:
    done, heavy = loaded_by("--help", folder=tmp_path)
    assert done.returncode == 0
    assert heavy == set()
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(ask: Ask, name: str) -> None:
    assert "Usage: deit-ablate" in ask(name, "--help").out


def test_a_finished_sweep_is_seen_without_torch_or_pandas(command: Command, sweep: Callable[..., Path]) -> None:
    sweep("seeds: 1\nvariants: {a: {}}\n")
    command("run", "tiny.yaml")
    done, heavy = loaded_by("run", "tiny.yaml", folder=command.folder)
    assert "all 1 runs are done" in done.stdout
    assert "# tiny" in done.stdout, "with its table"
    assert heavy == {"pydantic"}
    for arguments in (["status"], ["status", "tiny"], ["plan", "tiny.yaml"], ["show", "tiny:a:0"], ["du"], ["gc"]):
        assert loaded_by(*arguments, folder=command.folder)[1] <= {"pydantic"}, arguments


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["run", "sweeps/nothing.yaml"], "sweeps/nothing.yaml: no such file"),
        (["run", "optimizer"], "did you mean 'optimizers'?"),
        (["run", "sweeps/optimizers.yaml"], "`deit-ablate init` writes optimizers.yaml"),
        (["run", "optimizers", "--profile", "imagnet"], "did you mean 'imagenet'?"),
        (["run", "optimizers", "--set", "optimizer.lr=3"], "--set optimizer.lr=3: optimizer.lr: unknown key 'lr'"),
        (["run", "optimizers", "--set", "augment.mixup=-1"], "greater than or equal to 0"),
        (["run", "optimizers", "--only", "adam"], "did you mean 'adamw'?"),
        (["run", "optimizers", "--device", "tpu"], "error: --device: 'tpu' is not one of 'auto', 'cpu', 'cuda', 'mps'"),
        (["run", "optimizers", "--profile", "imagenet"], "expected --data-dir DIR"),
        (
            ["run", "optimizers", "--profile", "imagenet", "--data-dir", "nowhere"],
            "nowhere: --data-dir: no such folder",
        ),
        (["run", "optimizers", "--device", "mps"], "not supported by this version"),
        (["run", "optimizers", "--name", "runs"], "a folder of the store itself"),
        (["run", "optimizers", "--seeds", "0"], "--seeds"),
        (["show", "nothing:a:0"], "no run or sweep 'nothing:a:0'"),
        (["status", "nothing"], "no sweep 'nothing'"),
        (["tabel", "nothing"], "no command 'tabel'; did you mean 'table'?"),
        (["logs", "0123abcd"], "no run or sweep"),
        (["gc", "--keep", "some"], "error: --keep: 'some' is not one of 'final', 'none', 'all'"),
        (["schema", "x"], "error: kind: 'x' is not one of 'sweep', 'profile', 'recipe'"),
        (["train", "nothing.yaml"], "no such file"),
        (["run", "optimizers", "--results", "file"], "error: file: not a folder"),
        (["status", "--results", "file"], "error: file: not a folder"),
        (["run", "optimizers", "--results", "/proc/nowhere"], "error: /proc/nowhere: "),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_written(
    ask: Ask, tmp_path: Path, arguments: list[str], says: str
) -> None:
    (tmp_path / "file").touch()
    done = ask(*arguments)
    assert done.code == 2
    assert says in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "results").exists()


IN_TURN = """
import json, os, sys
from deit_ablate.__main__ import main
for words in json.loads(sys.argv[1]):
    sys.argv = [os.fsdecode(word.encode()) for word in words]  # as a process finds them
    try:
        main()
    except SystemExit as end:
        print(f"{words[1]}: exit code {end.code or 0}", flush=True)
"""


@pytest.mark.parametrize(
    "environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}]
)
def test_what_an_output_cannot_show_is_a_question_mark(
    command: Command, sweep: Callable[..., Path], environment: dict[str, str]
) -> None:
    """Commands one after the other in one process, which begins in such an environment; so do its workers."""
    path = sweep("")
    path.write_text(TINY + "title: Größe → λ\nseeds: 1\nvariants: {a: {}, b: {augment.mixup: 0.4}}\n", encoding="utf-8")
    commands = [
        ["plan", "tiny.yaml"],
        ["run", "tiny.yaml"],
        ["run", "tiny.yaml"],
        ["status", "tiny"],
        ["table", "tiny"],
        ["show", "tiny:b:0"],
        ["explain", "tiny:b"],
        ["report", "tiny"],
        ["run", "tiny.yaml", "--only", "ü"],
    ]
    warm = {} if "LC_ALL" in environment else {"DEIT_ABLATE_WORKER": command.environment["DEIT_ABLATE_WORKER"]}
    kept = {name: value for name, value in os.environ.items() if name != "DEIT_ABLATE_WORKER"}
    done = subprocess.run(
        [sys.executable, "-c", IN_TURN, json.dumps([["deit-ablate", *arguments] for arguments in commands])],
        cwd=command.folder,
        env={**kept, **warm, **environment},
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr
    ended = [(arguments[0], 2 if "--only" in arguments else 0) for arguments in commands]
    assert re.findall(r"^(\w+): exit code (\d)$", done.stdout, re.M) == [(name, str(code)) for name, code in ended]
    table = done.stdout.partition("status: exit code 0")[2].partition("table: exit code 0")[0]
    assert "Gr??e" in table
    assert "Größe → λ" in (command.folder / "results" / "tiny" / "table.md").read_text(encoding="utf-8")
    assert "expected one of a, b" in done.stderr
