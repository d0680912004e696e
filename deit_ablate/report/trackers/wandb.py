"""Weights & Biases: a project a sweep, a group a row. Offline, a run's folder is written anew each time it is opened;
online, where its history can only grow, it is gone on with. Nothing on the machine is sent along."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from deit_ablate.report.trackers.exporters import Destination
from deit_ablate.report.trackers.runs import Point, TrackedRun
from deit_ablate.store import State

INIT_SECONDS = 30
"""Until a server has answered."""
UNKNOWN_MACHINE: dict[str, Any] = {
    "host": "",
    "program": "",
    "username": "",
    "email": "",
    "console": "off",
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "x_save_requirements": False,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_disable_machine_info": True,
}
"""Settings without which the library sends what it finds: host, user, command line, git, packages."""


class Wandb:
    options = frozenset({"folder", "project", "offline"})

    def __init__(self, to: Destination) -> None:
        import wandb

        self.library = wandb
        self.folder = replace(to, default=to.default.parent).make("WANDB_DIR")  # below it, the library makes its own
        self.project = to.project or os.environ.get("WANDB_PROJECT") or to.sweep
        self.offline = to.offline or os.environ.get("WANDB_MODE") in ("offline", "dryrun")
        mode: dict[str, Any] = {"mode": "offline"} if self.offline else {}
        self.settings = wandb.Settings(**mode, **UNKNOWN_MACHINE, silent=True, init_timeout=INIT_SECONDS)
        self.open: dict[str, Any] = {}

    def begin(self, run: TrackedRun) -> int:
        if self.offline:
            for before in (self.folder / "wandb").glob(f"offline-run-*-{run.id}"):
                shutil.rmtree(before)
        made = self.open[run.id] = self.library.init(
            project=self.project,
            id=run.id,
            name=run.name,
            group=run.row,
            tags=run.tags,
            config={**run.facts, **run.config},
            dir=str(self.folder),
            settings=self.settings,
            resume=None if self.offline else "allow",
            reinit="create_new",
        )
        return int(made.step) - 1 if made.resumed else -1

    def log(self, run: TrackedRun, points: Sequence[Point]) -> None:
        for point in points:
            self.open[run.id].log(dict(point.values), step=point.step)

    def end(self, run: TrackedRun, state: State, scores: Point) -> None:
        made = self.open.pop(run.id)
        made.summary.update({**scores.values, "status": state.name})
        made.finish(exit_code=0 if state.finished or state.name == "running" else 1)

    def close(self) -> str:
        for made in self.open.values():
            made.finish()
        where = self.folder / "wandb"
        send = f"`wandb sync {shlex.quote(str(where))}/offline-run-*` sends it"
        return f"{where} ({send})" if self.offline else f"project {self.project}"
