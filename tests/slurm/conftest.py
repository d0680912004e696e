"""One real SLURM cluster for a whole session of tests, which fail (and are not skipped) where it cannot be had."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cluster import Cluster
from lab import Lab, warm_node
from support import wait_for


def _end_abandoned(runs: Path) -> None:
    """Stop the clusters of earlier sessions that were killed: a session holds its lock as long as it lives."""
    for lock in [*runs.glob("pytest-*/slurm*/owner"), *runs.glob("pytest-*/popen-gw*/slurm*/owner")]:
        with lock.open("w") as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            Cluster(lock.parent).down()


@contextlib.contextmanager
def _cluster(folders: pytest.TempPathFactory, **settings: Any) -> Iterator[Cluster]:
    base = folders.getbasetemp()
    # Under xdist each worker has a folder, and so a cluster, of its own.
    _end_abandoned(base.parent.parent if base.name.startswith("popen-gw") else base.parent)
    made = Cluster(folders.mktemp("slurm"), **settings)
    made.at_boot = warm_node(made)
    with (made.root / "owner").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        try:
            made.up()
            yield made
        finally:
            # The logs are for who reads a failure; pytest removes its folders in time.
            made.down(wipe=False)


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Four nodes, no accounting; see `cluster.py`. Tests leave all nodes and the controller up, and no jobs behind."""
    with _cluster(tmp_path_factory) as made:
        yield made


@pytest.fixture
def accounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Three nodes with accounting, whose controller soon forgets jobs that have ended."""
    with _cluster(tmp_path_factory, nodes=3, accounting=True, min_job_age=2) as made:
        yield made


@pytest.fixture
def lab(cluster: Cluster, tmp_path: Path, warm_python: list[str]) -> Iterator[Lab]:
    yield Lab(tmp_path, cluster, warm_python)
    cluster.command("scancel", "--user=root")
    wait_for(lambda: not cluster.command("squeue", "--noheader").strip(), step=0.5)
