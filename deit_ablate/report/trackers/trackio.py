"""Trackio: a project a sweep, in a database file of a folder, or a Space where TRACKIO_SPACE_ID says so.

A run is known by its name; its history can only grow, so what is there is gone on with.
"""

from __future__ import annotations

import contextlib
import io
import os
import shlex
from collections.abc import Sequence
from typing import Any

from deit_ablate.report.trackers.exporters import Destination
from deit_ablate.report.trackers.runs import Point, TrackedRun
from deit_ablate.store import State


class Trackio:
    options = frozenset({"folder", "project"})

    def __init__(self, to: Destination) -> None:
        self.folder = to.make("TRACKIO_DIR")
        os.environ["TRACKIO_DIR"] = str(self.folder)  # which the library reads when it is imported
        import trackio

        self.library = trackio
        self.project = to.project or os.environ.get("TRACKIO_PROJECT") or to.sweep
        self.open: dict[str, Any] = {}
        self.there: dict[str, int] = {}
        """The last step of runs that are open when they were opened. The scores follow one step after the epochs."""

    def begin(self, run: TrackedRun) -> int:
        with contextlib.redirect_stdout(io.StringIO()):
            made = self.open[run.id] = self.library.init(
                project=self.project,
                name=run.unique_name,
                group=run.row,
                resume="allow",
                config={**run.facts, **run.config},
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )
        there = made._initial_last_step
        self.there[run.id] = -1 if there is None else int(there)
        return self.there[run.id]

    def log(self, run: TrackedRun, points: Sequence[Point]) -> None:
        for point in points:
            self.open[run.id].log(dict(point.values), step=point.step)

    def end(self, run: TrackedRun, state: State, scores: Point) -> None:
        made = self.open.pop(run.id)
        with contextlib.redirect_stdout(io.StringIO()):
            if scores.values and self.there[run.id] <= scores.step:
                made.log(dict(scores.values), step=scores.step + 1)
            made.finish()

    def close(self) -> str:
        with contextlib.redirect_stdout(io.StringIO()):
            for made in self.open.values():
                made.finish()
            self.library.finish()  # or the last one is finished once more, with a line, when this process ends
        space = os.environ.get("TRACKIO_SPACE_ID")
        folder, project = (shlex.quote(str(part)) for part in (self.folder, self.project))
        shown = f"TRACKIO_DIR={folder} trackio show --project {project}"
        return f"Space {space}" if space else f"{self.folder} (`{shown}`)"
