"""The command line: quick where it should be, clear where something is wrong, careful with what it prints."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Command

from deit_ablate.cli.app import COMMANDS
from deit_ablate.identity import canonical, run_id
from deit_ablate.recipe import Recipe
from deit_ablate.store import Store, owner


def loaded_by(*arguments: str, folder: Path) -> tuple[subprocess.CompletedProcess[str], set[str]]:
    """Run the command in a process of its own; also the heavy modules that it had imported by its end."""
    code = (
        "import sys; sys.argv = ['deit-ablate', *sys.argv[1:]]\n"
        "from deit_ablate.__main__ import main\n"
        "try: main()\n"
        "finally: print('\\n'.join({'torch', 'timm', 'pandas', 'matplotlib', 'scipy', 'pydantic'} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=folder)
    return done, set(done.stderr.split())


def test_help_imports_next_to_nothing(tmp_path: Path) -> None:
    done, heavy = loaded_by("--help", folder=tmp_path)
    assert done.returncode == 0
    assert heavy == set()
    assert all(f"  {name} " in done.stdout for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(command: Command, name: str) -> None:
    assert "Usage: deit-ablate" in command(name, "--help").stdout


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
        (["run", "optimizers", "--device", "tpu"], "expected auto, cpu or cuda"),
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
        (["logs", "0123abcd"], "no run or sweep"),
        (["gc", "--keep", "some"], "expected final, none or all"),
        (["schema", "x"], "expected sweep, profile, recipe"),
        (["train", "nothing.yaml"], "no such file"),
        (["run", "optimizers", "--results", "file"], "error: file: not a folder"),
        (["status", "--results", "file"], "error: file: not a folder"),
        (["run", "optimizers", "--results", "/proc/nowhere"], "error: /proc/nowhere: "),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_written(
    command: Command, arguments: list[str], says: str
) -> None:
    (command.folder / "file").touch()
    done = command(*arguments, code=2)
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not (command.folder / "results").exists()


def test_init_writes_what_is_shipped_and_overwrites_nothing(command: Command) -> None:
    command("init", "study")
    mine = command.folder / "study" / "sweeps" / "optimizers.yaml"
    assert (command.folder / "study" / "analysis" / "sweep_table.py").exists()
    mine.write_text("title: mine\nprofile: digits\nvariants: {only: {}}\n")
    assert "exists, left as it is" in command("init", "study").stderr
    assert "only:" in command("plan", "study/sweeps/optimizers.yaml").stdout
    assert "did you mean" not in command("plan", "optimizers").stderr, "a shipped sweep may be named without its file"


@pytest.fixture
def alone(command: Command) -> tuple[Store, str]:
    """A store with one run whose attempt is open, on a machine that nobody can ask."""
    store, recipe = Store(command.folder / "results"), canonical(Recipe())
    run = run_id(recipe, {})
    store.register(run, recipe, {}, {})
    return store, run


def test_release_is_for_what_nobody_can_prove(
    command: Command, alone: tuple[Store, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, run = alone
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(
            owner, "machine", lambda: {"host": "node1", "machine": "m", "boot": "b", "pid_namespace": "p"}
        )
        store.claim(run)
    assert "may still be alive" in command("forget", run, "--yes", code=2).stderr
    assert "released" in command("release", run, "--yes").stdout
    assert "no attempt" in command("release", run, "--yes", code=2).stderr
    store.claim(run)  # this process, which lives
    assert "is alive on this machine" in command("release", run, "--yes", code=2).stderr


def test_a_hostile_log_cannot_drive_the_terminal(command: Command, alone: tuple[Store, str]) -> None:
    store, run = alone
    attempt = store.claim(run)
    attempt.log.write_bytes(b"\x1b]0;owned\x07\x1b[2Jred\x9b31m\nnext \xff line\n")
    attempt.close("crash")
    out = command("logs", run).stdout
    assert not any(ord(character) < 32 and character != "\n" for character in out)
    assert "next" in out


def test_a_run_in_other_hands_is_not_trained_in_the_foreground(command: Command, alone: tuple[Store, str]) -> None:
    store, run = alone
    store.claim(run)
    done = command("train", run, code=1)
    assert "has not ended" in done.stderr


def test_following_ends_when_the_process_is_gone(command: Command, alone: tuple[Store, str]) -> None:
    store, run = alone
    code = "import sys; from deit_ablate.store import Store; Store(sys.argv[1]).claim(sys.argv[2]).log.write_text('last words')"
    subprocess.run([sys.executable, "-c", code, str(store.root), run], check=True)
    assert "last words" in command("logs", run, "-f", timeout=20).stdout


def test_a_prefix_names_a_run_when_it_names_one(command: Command, alone: tuple[Store, str]) -> None:
    _, run = alone
    assert f"{run}" in command("show", run[:6]).stdout
    assert "no run or sweep" in command("show", run[:3], code=2).stderr


def test_a_large_plan_asks_first(command: Command, sweep: Callable[..., Path]) -> None:
    rates = ", ".join(str(i / 1000) for i in range(1, 52))
    sweep(f"seeds: 2\ngrid: {{optimizer.base_lr: [{rates}]}}\n")
    done = command("run", "tiny.yaml", code=2)
    assert "102 runs of unknown cost" in done.stderr
    assert "--yes" in done.stderr
    assert not (command.folder / "results").exists()


def test_seeds_and_looks_are_kept_as_they_were_planned(
    command: Command, sweep: Callable[..., Path], store: Store
) -> None:
    rows = "seeds: 1\nbaseline: a\nvariants: {a: {}, b: {augment: {erasing: 0}}}\n"
    late = "Seeds were added after looking; 5% no longer holds."
    sweep(rows)
    assert late not in command("run", "tiny.yaml").stdout
    sweep("looks: [3, 6, 9, 12]\n" + rows, name="looked")
    assert "look 0 of 4 (0 of 12 seeds)" in command("run", "looked.yaml").stdout, "its runs are those of the other one"
    assert [plan["looks"] for plan in store.sweeps.planned_seeds("looked")] == [[3, 6, 9, 12]]
    assert late in command("run", "tiny.yaml", "--seeds", "2").stdout
    assert [plan["seeds"] for plan in store.sweeps.planned_seeds("tiny")] == [{"": [0]}, {"": [0, 1]}]
    assert late not in command("run", "looked.yaml", "--seeds", "2").stdout, "the looks had announced them"
