"""MLflow: an experiment a sweep, on a server or in a database file. A run is known by the tag deit_ablate.run."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from typing import Any

from deit_ablate.execution import hosts_only
from deit_ablate.report.trackers.exporters import Destination
from deit_ablate.report.trackers.runs import Point, TrackedRun
from deit_ablate.store import State

TAG = "deit_ablate"
METRICS_AT_ONCE, PARAMS_AT_ONCE = 1000, 100
"""What a server takes in one request."""
LONGEST_PARAM = 6000
SETTINGS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # its own 7 take minutes where no server answers
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
}
"""Variables of the environment that the library reads, where the user has not set them."""


class Mlflow:
    options = frozenset({"folder", "uri", "project"})

    def __init__(self, to: Destination) -> None:
        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient, entities

        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        given = None if to.folder else to.uri or os.environ.get("MLFLOW_TRACKING_URI")
        self.uri = given or f"sqlite:///{to.make()}/mlflow.db"
        self.client, self.entities = MlflowClient(tracking_uri=self.uri), entities
        self.project = to.project or os.environ.get("MLFLOW_EXPERIMENT_NAME") or to.sweep
        found = self.client.get_experiment_by_name(self.project)
        # Where there is no server to say where artifacts go, the client would record its current folder.
        place = None if self.uri.startswith("http") else "mlflow-artifacts:/"
        self.experiment = found.experiment_id if found else self.client.create_experiment(self.project, place)
        self.ids: dict[str, str] = {}
        """The tracker's own ids of the runs that are open."""

    def begin(self, run: TrackedRun) -> int:
        found = self.client.search_runs([self.experiment], f"tags.`{TAG}.run` = '{run.id}'", max_results=1)
        if found:
            run_id = self.ids[run.id] = found[0].info.run_id
            self.client.update_run(run_id, status="RUNNING", name=run.name)
            return max((metric.step for metric in self.client.get_metric_history(run_id, "epoch")), default=-1)
        tags = {f"{TAG}.{name}": value for name, value in run.facts.items() if value}
        made = self.client.create_run(self.experiment, int(run.started * 1000), tags, run_name=run.name)
        run_id = self.ids[run.id] = made.info.run_id
        params = [self.entities.Param(_key(key), str(value)[:LONGEST_PARAM]) for key, value in run.config.items()]
        for start in range(0, len(params), PARAMS_AT_ONCE):
            self.client.log_batch(run_id, params=params[start : start + PARAMS_AT_ONCE])
        return -1

    def log(self, run: TrackedRun, points: Sequence[Point]) -> None:
        batch: list[Any] = []
        for point in points:  # an epoch is sent whole, or it would be taken for sent
            own = self._metrics(point)
            if len(batch) + len(own) > METRICS_AT_ONCE:
                self.client.log_batch(self.ids[run.id], batch)
                batch = []
            batch += own
        self.client.log_batch(self.ids[run.id], batch)

    def end(self, run: TrackedRun, state: State, scores: Point) -> None:
        run_id = self.ids.pop(run.id)
        # With the time of the last epoch, the same at each export: a database keeps it once.
        status = self.entities.RunTag(f"{TAG}.status", state.name)
        self.client.log_batch(run_id, self._metrics(scores), tags=[status])
        if state.name != "running":
            ended = "FINISHED" if state.finished else "FAILED" if state.name in ("failed", "damaged") else "KILLED"
            self.client.set_terminated(run_id, ended)

    def close(self) -> str:
        return f"experiment {self.project}, {hosts_only(self.uri) if self.uri.startswith('http') else self.uri}"

    def _metrics(self, point: Point) -> list[Any]:
        moment, step = int(point.time * 1000), max(0, point.step)
        return [self.entities.Metric(_key(key), value, moment, step) for key, value in point.values.items()]


def _key(name: str) -> str:
    return re.sub(r"[^\w\-. /:]", "_", name)[:250]
