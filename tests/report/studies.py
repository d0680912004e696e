"""Stores with finished, diverged, failed and missing runs, made with the real Store."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from support import planned

from deit_ablate import files
from deit_ablate.identity import run_id
from deit_ablate.report.stats.verdicts import Effect, Rules, judge
from deit_ablate.report.summary import Summary, summarize
from deit_ablate.store import Store
from deit_ablate.sweep.plan import Cell

Fate = float | str | Mapping[str, Any]
"""A run's end: its test top-1 (done), "missing", "running", "failed", "diverged", or a mapping of all of it."""


class Study:
    """A sweep in a store: ``rows`` maps a variant to {seed: fate}; ``teacher`` is the fate of a shared first stage."""

    def __init__(
        self,
        root: Path,
        rows: Mapping[str, Mapping[int, Fate]],
        *,
        name: str = "study",
        title: str = "A study",
        baseline: str | None = None,
        shows: Mapping[str, str] | None = None,
        differs: Mapping[str, Any] | None = None,
        same: Mapping[str, str] | None = None,
        margin: float | None = None,
        looks: Sequence[int] | None = None,
        metric: Mapping[str, Any] | None = None,
        metrics: Sequence[Mapping[str, Any]] = (),
        labels: Mapping[str, str] | None = None,
        groups: Mapping[str, Sequence[str]] | None = None,
        axes: Sequence[tuple[str, Sequence[str]]] = (),
        kind: str = "variants",
        teacher: Fate | None = None,
        epochs: int = 4,
    ):
        self.root, self.name, self.store, self.epochs = root, name, Store(root), epochs
        final = "student" if teacher is not None else ""
        above: dict[str, Any] = {}
        cells: list[list[Any]] = []
        if teacher is not None:
            self.teacher = self.run({"data": {"id": name}, "model": {"name": "small_convnet"}, "seed": 0}, {}, teacher)
            above = {"teacher": {"run": self.teacher, "weights": "last"}}
        self.runs: dict[tuple[str, int], str] = {}
        for position, (variant, fates) in enumerate(rows.items()):
            cells += [[variant, 0, "teacher", self.teacher]] if above else []
            for seed, fate in fates.items():
                if variant in (same or {}):  # a row that shows another figure of another row's runs
                    self.runs[variant, seed] = self.runs[(same or {})[variant], seed]
                    cells.append([variant, seed, final, self.runs[variant, seed]])
                    continue
                recipe = {
                    "data": {"id": name},
                    "optimizer": {"name": "adamw", "base_lr": 0.01 * (position + 1)},
                    "augment": {"crop_scale": [0.08, 1]},
                    "seed": seed,
                }
                self.runs[variant, seed] = self.run(recipe, above, fate)
                cells.append([variant, seed, final, self.runs[variant, seed]])
        seeds = sorted({seed for fates in rows.values() for seed in fates})
        stages = [{"name": "teacher", "seeds": [0]}] if above else []
        variants = [
            {"name": row, "shows": (shows or {}).get(row), "differs": (differs or {}).get(row, {}), "leaks": {}}
            for row in rows
        ]
        self.store.sweeps.save_plan(
            name,
            {
                "schema": 1,
                "sweep": name,
                "title": title,
                "profile": "digits",
                "source": f"{name}.yaml",
                "kind": kind,
                "metric": metric,
                "metrics": list(metrics),
                "margin": margin,
                "looks": list(looks) if looks else None,
                "baseline": baseline,
                "stages": [*stages, {"name": final, "seeds": seeds}],
                "variants": variants,
                "cells": cells,
                "labels": dict(labels or {}),
                "groups": [{"heading": heading, "rows": list(members)} for heading, members in (groups or {}).items()],
                "axes": [{"key": key, "values": list(values)} for key, values in axes],
                "parents": {run: [self.teacher] for run in self.runs.values()} if above else {},
            },
        )

    def summary(self, **more: Any) -> Summary:
        """Read anew: a test may have changed the store."""
        return summarize(self.store, self.name, **more)

    def run(self, recipe: dict[str, Any], parents: dict[str, Any], fate: Fate) -> str:
        run = run_id(recipe, parents)
        end(self.store, run, recipe, parents, fate, epochs=self.epochs)
        return run


def end(
    store: Store,
    run: str,
    recipe: dict[str, Any],
    parents: dict[str, Any],
    fate: Fate,
    *,
    epochs: int = 4,
    sources: Mapping[str, str] = {},
) -> None:
    """Bring a run to its fate, unless it has an outcome already."""
    told: dict[str, Any] = (
        {"top1": fate, "status": "done"}
        if isinstance(fate, (int, float))
        else {"status": fate}
        if isinstance(fate, str)
        else dict(fate)
    )
    status = told.setdefault("status", "done")
    if status == "missing":
        return
    store.register(run, recipe, parents, sources)
    if store.outcome(run):
        return
    attempt = store.claim(run)
    lines = [files.to_json(line).decode().replace("\n", " ") + "\n" for line in history(told, epochs)]
    with open(attempt.metrics, "a") as file:
        file.write("".join(lines))
    if status == "failed":
        attempt.close(told.get("reason", "crash"), "it fell over")
    elif status in ("done", "diverged"):
        store.finish(run, attempt, {"weights_sha256": hashlib.sha256(run.encode()).hexdigest(), **outcome(told)})


def history(told: Mapping[str, Any], epochs: int) -> Sequence[dict[str, Any]]:
    if "history" in told:
        return told["history"]
    top1, epochs = told.get("top1", 50.0), told.get("epochs", epochs)
    return [
        {
            "epoch": epoch,
            "step": 10 * epoch,
            "lr": 0.01 / epoch,
            "train_loss": 2.0 / epoch,
            "seconds": 1.5,
            "images_per_second": 800.0,
            "validation": {"top1": top1 * (1 - 0.5**epoch), "top1_ema": top1 * (1 - 0.6**epoch), "loss": 1.0 / epoch},
        }
        for epoch in range(1, epochs + 1)
    ]


def outcome(told: Mapping[str, Any]) -> dict[str, Any]:
    test = (
        {"images": 599, "loss": 0.1, "top1": told["top1"], "top1_class": told["top1"], **told.get("test", {})}
        if "top1" in told
        else None
    )
    return {
        "status": told["status"],
        "reason": told.get("reason"),
        "metrics": {
            "test": test,
            "validation": dict(test, images=119) if test else None,
            "train_loss": 0.5,
            **({"program": told["program"]} if "program" in told else {}),
        },
        "cost": {
            "train_seconds": told.get("seconds", 30.0),
            "wall_seconds": 40.0,
            "images_per_second": 1200.0,
            "peak_memory_bytes": 123456789,
            "parameters": 210000,
            "flops": 3400000,
            **told.get("cost", {}),
        },
        "execution": told.get("execution", {"ranks": 1, "accumulation": 1}),
        "arrays_sha256": "0" * 64,
        "data": told.get("data"),
        "provenance": {"version": "0.1.0", "git": None, "hardware": {}, "packages": {}, **told.get("provenance", {})},
    }


class Shipped:
    """A shipped sweep (or one of a file) in a store, with the rows, stages and run ids of its real plan; ``fate`` says
    how a cell's run ends (of a run that several cells share, the first one's)."""

    def __init__(
        self,
        root: Path,
        sweep: str | Path,
        fate: Callable[[Cell], Fate],
        *,
        profile: str | None = None,
        seeds: int | None = None,
    ):
        path = sweep if isinstance(sweep, Path) else files.shipped("sweeps") / f"{sweep}.yaml"
        self.plan = planned(path, profile=profile, seeds=seeds)
        self.root, self.name, self.store = root, self.plan.sweep.name, Store(root)
        self.store.sweeps.save_plan(self.name, self.plan.document(f"sweeps/{path.name}"))
        self.runs: dict[tuple[str, int, str], str] = {}
        for cell in self.plan.cells:
            run = self.plan.runs[cell.run]
            self.runs[cell.variant, cell.seed, cell.stage] = run.id
            end(self.store, run.id, run.recipe, run.parents, fate(cell), epochs=1, sources=run.sources)

    def summary(self, **more: Any) -> Summary:
        return summarize(self.store, self.name, **more)


def record(study: Study, run: str, **arrays: Any) -> None:
    """Give a finished run of a study the arrays that a worker would have left."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **{name: np.asarray(array) for name, array in arrays.items()})
    outcome = study.store.outcome(run)
    assert outcome is not None
    (attempt,) = study.store.attempts(run)
    files.replace(attempt.arrays, buffer.getvalue())
    outcome["arrays_sha256"] = hashlib.sha256(buffer.getvalue()).hexdigest()
    files.replace(study.store.run(run) / "outcome.json", files.to_json(outcome))


def effects(
    rows: Mapping[str, Mapping[int, float]],
    baseline: Mapping[int, float],
    *,
    margin: float | None = None,
    strict: bool = False,
    diverged: Mapping[str, tuple[int, int]] = {},
    **how: Any,
) -> dict[str, Effect]:
    """What is said of each row of a table."""
    return judge(rows, baseline, Rules(margin, strict), **how).effects(diverged)


def arrays_of(**predictions: Any) -> Mapping[str, Any]:
    """Arrays of a run's test images, by their names on disk: ``arrays_of(targets=..., distillation=...)``."""
    return {f"test_{name}" if name == "targets" else f"test_pred_{name}": value for name, value in predictions.items()}
