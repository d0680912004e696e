"""What all tests use: real files, real processes, and one warm process that spares them seconds of imports each."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import warm
from hypothesis import settings
from support import COLD, CUSTOM_MODELS, INTERRUPTED, TINY, TOKENS, Ask, Command, Said, launched, planned, result

from deit_ablate.cli.app import app
from deit_ablate.execution import Execution
from deit_ablate.launch.jobs import Report
from deit_ablate.launch.pool import ProcessPool
from deit_ablate.store import Store
from deit_ablate.sweep.plan import Plan


@pytest.fixture(scope="session")
def custom_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder on the path of every process that tests start, with a custom module ``mylab``."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "mylab.py").write_text(CUSTOM_MODELS)
    os.environ["PYTHONPATH"] = str(folder)
    sys.path.insert(0, str(folder))
    return folder


settings.register_profile("default", derandomize=True, max_examples=300, deadline=None, database=None)
settings.register_profile("explore", settings.get_profile("default"), derandomize=False, max_examples=10_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

WARM = "DEIT_ABLATE_TESTS_WARM"
"""Where the process that shares out tests has started warm processes, this variable has what stands for ``python -m``
in the processes that take them."""
FORKS = hasattr(os, "pidfd_open")
started = contextlib.ExitStack()
"""What is left when the process that shares out tests ends."""


def pytest_configure(config: pytest.Config) -> None:
    for name in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL"):  # of `make test`: a make that a test starts is to be a user's own
        os.environ.pop(name, None)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a suite that a script runs in the background
        signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["DEIT_ABLATE_CHECKPOINT_SECONDS"] = "0"  # after each epoch, for runs that are killed after a second
    if FORKS and getattr(config.option, "dist", "no") != "no" and WARM not in os.environ:
        os.environ[WARM] = shlex.join(started.enter_context(warm.warm_python()))


def pytest_unconfigure() -> None:
    started.close()


@pytest.fixture(scope="session")
def warm_python(custom_models: Path) -> Iterator[list[str]]:
    """What stands for ``python -m``; the workers that commands and executors start are children of it too."""
    if not FORKS:
        yield [*COLD]
        return
    with contextlib.ExitStack() as own, pytest.MonkeyPatch.context() as patch:
        shared = os.environ.get(WARM)
        python_m = shlex.split(shared) if shared else own.enter_context(warm.warm_python())
        patch.setenv("DEIT_ABLATE_WORKER", shlex.join([*python_m, "deit_ablate.worker"]))
        yield python_m


@pytest.fixture(scope="session")
def pool(warm_python: list[str]) -> Iterator[ProcessPool]:
    made = ProcessPool(Execution(parallel=2))
    yield made
    made.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "results")


@pytest.fixture
def sweep(tmp_path: Path) -> Callable[..., Path]:
    """Write a sweep file: ``sweep("variants: {...}")`` over the tiny recipe, or over another base."""

    def write(text: str, *, name: str = "tiny", base: str = TINY) -> Path:
        path = tmp_path / f"{name}.yaml"
        path.write_text(base + text)
        return path

    return write


@pytest.fixture
def launch(pool: ProcessPool, store: Store) -> Callable[..., Report]:
    """Launch a sweep in this process on the session's server."""

    def run(path: Path, *, into: Store = store, **how: Any) -> Report:
        return launched(path, into, pool, **how)

    return run


@pytest.fixture
def command(tmp_path: Path, warm_python: list[str]) -> Command:
    return Command(tmp_path, warm_python)


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Ask:
    """The command in this process, for those that start no other."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str | Path) -> Said:
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            app(args=list(map(str, arguments)))
        said = capsys.readouterr()
        return Said(int(left.value.code or 0), said.out, said.err)

    return run


@pytest.fixture
def cold_command(tmp_path: Path, custom_models: Path) -> Command:
    """The command as users start it, and its workers: for what depends on the start, and once for each road."""
    return Command(tmp_path, environment={k: v for k, v in os.environ.items() if k != "DEIT_ABLATE_WORKER"})


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file that is as good as weights to all that never opens them."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "teacher.pth").write_bytes(b"weights")
    return tmp_path / "files" / "teacher.pth"


@pytest.fixture(scope="session")
def undisturbed(pool: ProcessPool, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """The result that every disturbed run must have, and the seconds that it takes."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "tiny.yaml").write_text(TINY + INTERRUPTED)
    store = Store(folder / "results")
    (run,) = launched(folder / "tiny.yaml", store, pool).states
    outcome = store.outcome(run)
    assert outcome
    return {"run": run, "result": result(store, run), "seconds": outcome["cost"]["wall_seconds"]}


@pytest.fixture(scope="session")
def finished(pool: ProcessPool, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Plan]:
    """A teacher (with an average) and a student of two heads, trained once for all."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(TINY + TOKENS)
    report = launched(folder / "tiny.yaml", Store(folder / "results"), pool)
    assert all(state.finished for state in report.states.values())
    return folder, planned(folder / "tiny.yaml")


@pytest.fixture
def copied(finished: tuple[Path, Plan], tmp_path: Path) -> tuple[Store, str]:
    """A copy of it to tamper with, and the student's id."""
    folder, made = finished
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    return Store(tmp_path / "results"), next(cell.run for cell in made.cells if cell.stage == "student")
