"""An MLflow server on loopback, with a database in a temporary folder: ``make test-trackers``."""

from __future__ import annotations

import importlib.util
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support import Command, planned, wait_for

from deit_ablate.store import Store

pytestmark = pytest.mark.skipif(importlib.util.find_spec("flask") is None, reason="MLflow's server is not installed")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    place = ["--host", "127.0.0.1", "--port", str(port), "--backend-store-uri", f"sqlite:///{tmp_path}/server.db"]
    with open(tmp_path / "server.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mlflow", "server", *place, "--workers", "1"],
            cwd=tmp_path,
            env={**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true"},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    uri = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return urllib.request.urlopen(f"{uri}/health", timeout=5).status == 200
        except OSError:
            assert process.poll() is None, (tmp_path / "server.log").read_text()
            return False

    wait_for(answers, seconds=120, step=0.2)
    yield uri
    os.killpg(process.pid, 9)
    process.wait()


def test_a_launch_is_followed_and_an_export_then_changes_nothing(
    server: str, command: Command, sweep: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    path = sweep("execution: {track: [mlflow]}\nseeds: 2\nvariants: {a: {}, b: {schedule.epochs: 3}}\n")
    said = command("run", path)
    assert "warning" not in said.stdout + said.stderr
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=server)
    store = Store(command.folder / "results")

    def there() -> dict[str, Any]:
        experiment = client.get_experiment_by_name("tiny")
        assert experiment
        runs = client.search_runs([experiment.experiment_id])
        return {
            run.data.tags["deit_ablate.run"]: (
                run.info.run_id,
                run.info.status,
                run.data.tags,
                [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "train_loss")],
                [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, "final/test/top1")],
            )
            for run in runs
        }

    found = there()
    assert found.keys() == {cell.run for cell in planned(path).cells}
    for run, (_, status, tags, losses, final) in found.items():
        assert (status, tags["deit_ablate.status"]) == ("FINISHED", "done")
        assert losses == [(line["step"], line["train_loss"]) for line in store.history(run)]
        assert [value for _, value in final] == [(store.outcome(run) or {})["metrics"]["test"]["top1"]]
    command("export", "tiny", "--to", "mlflow")
    assert there() == found
