"""What all tests use: real files, real processes, and one warm process that spares them seconds of imports each."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import warm
from support import COLD, OWN_MODELS, TINY, Command, planned

from deit_ablate.execution import Execution
from deit_ablate.launch.jobs import Report, Work
from deit_ablate.launch.local import JobLaunch
from deit_ablate.launch.pool import ProcessPool
from deit_ablate.store import Store


@pytest.fixture(scope="session")
def own_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder on the path of every process that tests start, with a custom module ``mylab``."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "mylab.py").write_text(OWN_MODELS)
    os.environ["PYTHONPATH"] = str(folder)
    sys.path.insert(0, str(folder))
    return folder


@pytest.fixture(scope="session")
def warm_python(own_models: Path) -> Iterator[list[str]]:
    """What stands for ``python -m``; the workers that commands and executors start are children of it too."""
    if not hasattr(os, "pidfd_open"):
        yield [*COLD]
        return
    with warm.warm_python() as python_m, pytest.MonkeyPatch.context() as patch:
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

    def run(
        path: Path,
        *,
        retry: frozenset[str] = frozenset(),
        stop: Callable[[], bool] = lambda: False,
        loaders: int = 0,
        into: Store = store,
    ) -> Report:
        plan = planned(path)
        into.sweeps.save_plan(
            plan.sweep.name, {**plan.document(os.path.relpath(path.resolve(), into.root.resolve())), "asked": {}}
        )

        execution = Execution(device="cpu", loaders=loaders)
        work = Work(into, None, plan.runs, plan.labels(), {}, execution, retry=retry)
        return JobLaunch(work, pool).run(lambda progress: None, stop)

    return run


@pytest.fixture
def command(tmp_path: Path, warm_python: list[str]) -> Command:
    return Command(tmp_path, warm_python)


@pytest.fixture
def cold_command(tmp_path: Path, own_models: Path) -> Command:
    """The command as users start it, and its workers: for what depends on the start, and once for each road."""
    return Command(tmp_path, environment={k: v for k, v in os.environ.items() if k != "DEIT_ABLATE_WORKER"})
