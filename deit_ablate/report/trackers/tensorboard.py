"""Event files for TensorBoard, a folder a run, which is written anew each time it is opened.

The library's writer of events names its file by the machine, so its writer of records is used.
"""

from __future__ import annotations

import re
import shlex
import time
from collections.abc import Sequence
from typing import Any

from deit_ablate import files
from deit_ablate.report.trackers.exporters import Destination
from deit_ablate.report.trackers.runs import Point, TrackedRun
from deit_ablate.store import State


class TensorBoard:
    options = frozenset({"folder"})

    def __init__(self, to: Destination) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer import record_writer

        self.events, self.summaries, self.records = event_pb2, summary_pb2, record_writer
        self.folder = to.make()
        self.open: dict[str, Any] = {}

    def begin(self, run: TrackedRun) -> int:
        from tensorboard.plugins.hparams.summary_v2 import hparams_pb

        label = run.unique_name.removeprefix(f"{run.sweep}:")  # which is the folder's
        folder = files.make_folder(self.folder / re.sub(r"[^\w.,=+@ -]", "_", label))
        for before in folder.glob("*.tfevents.*"):
            before.unlink()
        file = open(folder / f"events.out.tfevents.{time.time_ns()}", "wb")  # noqa: SIM115
        self.open[run.id] = self.records.RecordWriter(file)
        at = Point(0, run.started, {})
        self._write(run, at, file_version="brain.Event:2")
        config = {key: value for key, value in run.facts.items() if value} | dict(run.config)
        self._write(run, at, summary=hparams_pb(config, run.id, run.started))
        self.open[run.id].flush()
        return -1

    def log(self, run: TrackedRun, points: Sequence[Point]) -> None:
        for point in points:
            self._write_scalars(run, point)
        self.open[run.id].flush()

    def end(self, run: TrackedRun, state: State, scores: Point) -> None:
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

        self._write_scalars(run, scores)
        status = "SUCCESS" if state.finished else "RUNNING" if state.name == "running" else "FAILURE"
        number = api_pb2.Status.Value(f"STATUS_{status}")
        ended = plugin_data_pb2.SessionEndInfo(status=number, end_time_secs=scores.time)
        content = metadata.create_summary_metadata(plugin_data_pb2.HParamsPluginData(session_end_info=ended))
        made = self.summaries.Summary
        value = made.Value(tag=metadata.SESSION_END_INFO_TAG, metadata=content, tensor=metadata.NULL_TENSOR)
        self._write(run, scores, summary=made(value=[value]))
        self.open.pop(run.id).close()

    def close(self) -> str:
        for writer in self.open.values():
            writer.close()
        return f"{self.folder} (`tensorboard --logdir {shlex.quote(str(self.folder))}`)"

    def _write_scalars(self, run: TrackedRun, point: Point) -> None:
        made = self.summaries.Summary
        values = [made.Value(tag=tag, simple_value=value) for tag, value in point.values.items()]
        self._write(run, point, summary=made(value=values))

    def _write(self, run: TrackedRun, at: Point, **content: Any) -> None:
        event = self.events.Event(wall_time=at.time, step=max(0, at.step), **content)
        self.open[run.id].write(event.SerializeToString())
