"""Executors: the registry is one place, and a package of one's own adds to it without a change here."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Command

import deit_ablate
from deit_ablate.launch.executors import EXECUTORS, known_executors
from deit_ablate.store import Store

PLAIN = '''
"""An executor in the way of the documentation: each job is the worker's command as a process, one at a time."""
import subprocess

from deit_ablate.execution import worker_command
from deit_ablate.launch.jobs import Ended
from deit_ablate.launch.local import JobExecutor
from deit_ablate.launch.pool import Pool


class OneAtATime(Pool):
    slots = 1

    def __init__(self):
        self.running = {}

    def submit(self, job):
        print("plain takes", job.run, flush=True)
        self.running[job] = subprocess.Popen(worker_command(*job.arguments()))

    def poll(self, timeout):
        ended = []
        for job, process in list(self.running.items()):
            try:
                ended.append(Ended(job, process.wait(timeout)))
                del self.running[job]
            except subprocess.TimeoutExpired:
                pass
        return ended

    def cancel(self, run):
        for job, process in self.running.items():
            if job.run == run:
                process.terminate()


class Plain(JobExecutor):
    def make_pool(self, work):
        return OneAtATime()
'''


@pytest.fixture
def lab(tmp_path: Path, sweep: Callable[..., Path]) -> Path:
    """A folder with a sweep, and beside it a package that an entry point makes known, as an installed one's would."""
    sweep("seeds: 1\nvariants: {a: {}, b: {augment.repeats: 1}}\n")
    folder = tmp_path / "site"
    (folder / "plainlab-1.0.dist-info").mkdir(parents=True)
    (folder / "plainlab.py").write_text(PLAIN)
    (folder / "plainlab-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: plainlab\nVersion: 1.0\n")
    (folder / "plainlab-1.0.dist-info" / "entry_points.txt").write_text(
        "[deit_ablate.executors]\nplain = plainlab:Plain\n"
    )
    return folder


@pytest.fixture
def run(tmp_path: Path, warm_python: list[str]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command with a folder on its path."""

    def called(*arguments: str, path: Path) -> subprocess.CompletedProcess[str]:
        found = os.pathsep.join([str(path), os.environ.get("PYTHONPATH", "")])
        return Command(tmp_path, warm_python, {**os.environ, "PYTHONPATH": found})(*arguments)

    return called


def test_an_executor_of_an_installed_package_runs_a_sweep(
    lab: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = run("run", "tiny.yaml", "--executor", "plain", path=lab)
    assert done.stdout.count("plain takes") == 2
    store = Store(lab.parent / "results")
    assert len(store.runs()) == 2
    assert all(store.outcome(run) is not None for run in store.runs())


def test_an_entry_in_the_registry_is_all_that_one_here_needs(
    lab: Path, run: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    copy = lab.parent / "copy"
    package = Path(deit_ablate.__file__).parent
    shutil.copytree(package, copy / "deit_ablate", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("sweeps", "analysis"):
        shutil.copytree(package.parent / name, copy / name)
    registry = copy / "deit_ablate" / "launch" / "executors.py"
    added = registry.read_text().replace(
        "EXECUTORS = {\n", 'EXECUTORS = {\n    "plain": "deit_ablate.launch.plain:Plain",\n'
    )
    registry.write_text(added)
    (copy / "deit_ablate" / "launch" / "plain.py").write_text(PLAIN)
    shutil.rmtree(lab)
    done = run("run", "tiny.yaml", "-x", "executor=plain", "--only", "a", path=copy)
    assert done.stdout.count("plain takes") == 1


@pytest.mark.parametrize(
    ("text", "arguments", "says"),
    [
        (
            "execution: {executor: slrum}\n",
            (),
            "tiny.yaml:9:23: execution.executor: no executor 'slrum'; did you mean 'slurm'?",
        ),
        ("", ("--executor", "dry"), "--executor: execution.executor: no executor 'dry'"),
        ("", ("-x", "executor=dry"), "--executor: execution.executor: no executor 'dry'"),
        ("execution: {executor: 5}\n", (), "tiny.yaml:9:23: execution.executor"),
    ],
)
def test_an_unknown_executor_is_refused_where_it_is_named(
    sweep: Callable[..., Path], command: Command, store: Store, text: str, arguments: tuple[str, ...], says: str
) -> None:
    sweep(text + "variants: {a: {}}\n")
    done = command("run", "tiny.yaml", *arguments, code=2)
    assert says in done.stderr
    assert "local, slurm" in done.stderr or "got 5" in done.stderr
    assert not store.root.exists()


def test_ours_can_be_imported() -> None:
    from deit_ablate.launch.local import LocalExecutor
    from deit_ablate.launch.slurm import SlurmExecutor

    assert {name: known_executors()[name] for name in EXECUTORS} == EXECUTORS
    for made in (LocalExecutor, SlurmExecutor):
        assert EXECUTORS[made.__name__.removesuffix("Executor").lower()] == f"{made.__module__}:{made.__qualname__}"
