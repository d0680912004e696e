"""What a plan will cost, from finished runs like its own; "unknown" where there are none."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deit_ablate.execution import Execution, WorkerFailed, worker_answers
from deit_ablate.identity import HUB, with_files
from deit_ablate.program import is_program
from deit_ablate.store import Store, cleanup
from deit_ablate.sweep.plan import Run

MOST_RECORDS = 300
"""Finished runs that are read for an estimate: enough for a mean, few enough for a store of ten thousand."""
LARGE_SECONDS = 24 * 3600.0
"""Machine time above which ``run`` asks before it starts."""
LARGE_UNKNOWN = 100
"""Runs of unknown cost above which ``run`` asks before it starts."""


def size(count: float | None) -> str:
    """Bytes for people."""
    if count is None:
        return "unknown"
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def duration(seconds: float | None) -> str:
    """A time for people."""
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


@dataclass(frozen=True)
class Estimate:
    """Cost of some runs: seconds of one slot, bytes on disk, files; None where nothing like them has finished."""

    runs: int
    seconds: float | None
    bytes: int | None
    files: int | None

    def large(self, store: Store) -> str | None:
        """Why this is large for this machine, or None."""
        if self.bytes is not None:
            root = store.root.absolute()
            while not root.exists():
                root = root.parent
            free = shutil.disk_usage(root).free
            if self.bytes > free / 2:
                return f"it needs about {self.bytes / 1e9:.1f} GB of the {free / 1e9:.1f} GB that are free"
        if self.seconds is not None and self.seconds > LARGE_SECONDS:
            return f"it needs about {self.seconds / 3600:.0f} hours of machine time"
        if self.seconds is None and self.runs > LARGE_UNKNOWN:
            return f"it has {self.runs} runs of unknown cost"
        return None


def workload(recipe: Mapping[str, Any], *, whole: bool) -> str:
    """What makes two runs cost alike: the same data, model and teacher; ``whole`` asks for the same schedule too. Of a
    program: the same command and data; and the same parameters."""
    if is_program(recipe):
        return repr((recipe["program"], recipe["data"], recipe["parameters"] if whole else ()))
    data = {key: value for key, value in recipe["data"].items() if key != "validation"}
    heads = recipe["distill"]["type"] != "none"
    schedule = (recipe["schedule"]["epochs"], recipe["schedule"]["batch_size"]) if whole else ()
    return repr((data, recipe["model"], heads, schedule))


def epochs(recipe: Mapping[str, Any]) -> int:
    """By which the cost of a run is counted; of a program, whose length nobody else knows, 1."""
    return 1 if is_program(recipe) else int(recipe["schedule"]["epochs"])


class Costs:
    """Seconds, bytes and files of finished runs, by workload."""

    def __init__(self, store: Store, runs: Iterable[str] = ()):
        self._seconds: dict[str, list[float]] = {}
        self._per_epoch: dict[str, list[float]] = {}
        self._sizes: list[tuple[int, int]] = []
        self._store = store
        known = store.runs()
        for run in [*(run for run in runs if run in known), *sorted(known)][:MOST_RECORDS]:
            self.learn(run)

    def learn(self, run: str) -> None:
        """Take a finished run into account."""
        outcome = self._store.result(run)
        if not outcome or outcome["status"] != "done":
            return  # not finished, or before its time
        cost, recipe = outcome["cost"], (self._store.recipe(run) or {})["recipe"]
        seconds = cost.get("wall_seconds_all_attempts", cost.get("wall_seconds"))
        if seconds is None:
            return
        self._take(recipe, seconds)
        if len(self._sizes) < 20:
            self._sizes.append(cleanup.size(self._store, run))

    def _take(self, recipe: Mapping[str, Any], seconds: float) -> None:
        self._seconds.setdefault(workload(recipe, whole=True), []).append(seconds)
        self._per_epoch.setdefault(workload(recipe, whole=False), []).append(seconds / epochs(recipe))

    def measure(self, runs: Mapping[str, Run], executions: Mapping[str, Execution]) -> Iterator[str]:
        """Where nothing like one of the runs has finished, let a worker time the first steps of one, here; and say what
        was found, a line each. ``runs``: with those that they depend on. What cannot be timed stays unknown."""
        unknown: dict[str, Run] = {}
        for run in runs.values():
            if is_program(run.recipe):
                continue  # whose steps nobody else can time
            if self.seconds(run.recipe) is None or workload(run.recipe, whole=False) not in self._per_epoch:
                unknown.setdefault(workload(run.recipe, whole=False), run)
        requests = [self._request(run, runs, executions[run.id]) for run in unknown.values()]
        try:
            for found in worker_answers("measure", requests) if requests else ():
                if "error" in found:
                    yield f"the cost of a run like {found['run']} could not be measured: {found['error']}"
                    continue
                self._take(runs[found["run"]].recipe, found["seconds"])
                steps, each = found["steps"], 1000 * found["step_seconds"]
                yield (
                    f"measured: {steps} steps of {each:.3g} ms on {found['device']}; a run like {found['run']} takes "
                    f"about {duration(found['seconds'])}"
                )
        except WorkerFailed as failure:
            yield f"the cost of a run could not be measured: {failure}"

    def _request(self, run: Run, runs: Mapping[str, Run], execution: Execution) -> dict[str, Any]:
        sha256 = run.recipe["distill"]["teacher_weights"]
        teacher = (run.weights.get(sha256) or self._store.teacher_weights.find(sha256)) if sha256 else None
        return {
            "run": run.id,
            "recipe": self._with_paths(run),
            "parents": {
                role: {
                    "recipe": self._with_paths(runs[parent["run"]]),
                    "path": str(path) if (path := self._store.weights(parent["run"])) else None,
                    "weights": parent["weights"],
                }
                for role, parent in run.parents.items()
            },
            "teacher": str(teacher) if teacher else None,
            "execution": execution.to_json(),
        }

    def _with_paths(self, run: Run) -> dict[str, Any]:
        """The recipe, with paths for the files that it names by content (and the content, of one that is not there)."""

        def path(content: str) -> Path:
            return run.weights.get(content) or self._store.teacher_weights.find(content) or Path(content)

        found: dict[str, Any] = with_files(run.recipe, path)
        # What a step costs is the same from fresh weights, and these would be fetched.
        by_name = (found["model"].get("init") or "").startswith(HUB)
        return {**found, "model": {**found["model"], "init": None}} if by_name else found

    def seconds(self, recipe: Mapping[str, Any]) -> float | None:
        """Expected wall seconds of one run of this recipe."""
        if not self._seconds:
            return None
        if alike := self._seconds.get(workload(recipe, whole=True)):
            return sum(alike) / len(alike)
        if alike := self._per_epoch.get(workload(recipe, whole=False)):
            return sum(alike) / len(alike) * epochs(recipe)
        return None

    def estimate(self, runs: Iterable[Run]) -> Estimate:
        runs = list(runs)
        each = [self.seconds(run.recipe) for run in runs]
        known = [seconds for seconds in each if seconds is not None]
        seconds = sum(known) + (len(each) - len(known)) * (sum(known) / len(known)) if known else None
        if not self._sizes:
            return Estimate(len(runs), seconds, None, None)
        mean_bytes, mean_files = (sum(values) / len(self._sizes) for values in zip(*self._sizes, strict=True))
        return Estimate(len(runs), seconds, round(mean_bytes * len(runs)), round(mean_files * len(runs)))
