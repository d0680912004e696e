"""Records -> pandas: one row a cell of a sweep, or one row a cell and epoch. Imports pandas."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from deit_ablate.identity import canonical_json
from deit_ablate.launch import status
from deit_ablate.report.metrics import own_columns, reported_columns
from deit_ablate.report.records import number, record
from deit_ablate.store import State, Store
from deit_ablate.sweep.labels import rows_of
from deit_ablate.sweep.metrics import OF_PROGRAMS

COLUMNS: dict[str, tuple[str, str]] = {
    "variant": ("string", "the row of the ablation, a category in the plan's order"),
    "seed": ("Int64", "the run's seed"),
    "stage": ("string", "the stage, a category in the plan's order; empty in a sweep without stages"),
    "run": ("string", "the run's id; cells that share a run share this"),
    "state": (
        "string",
        "done, diverged, running, submitted, failed, blocked, held, waiting, resumable, paused, cancelled, damaged or "
        "missing",
    ),
    "detail": (
        "string",
        "a failure's class, why a run diverged, the id of the run that it waits for, or its damaged file",
    ),
    "top1": (
        "float64",
        "test top-1 in percent at the last epoch, of the figure that the variant shows; only of runs that are done",
    ),
    "validation_top1": ("float64", "the same on the validation part, in percent"),
    "train_loss": ("float64", "mean training loss of the last epoch"),
    "test_images": ("Int64", "images of the test split"),
    "test_classes": ("Int64", "classes among which the test split's images are told apart"),
    "test_loss": ("float64", "test loss; like all test_ columns also of runs that diverged, where recorded"),
    "test_top1": ("float64", "test top-1 in percent, raw weights, heads fused where there are two"),
    "test_top5": ("float64", "test top-5 in percent"),
    "test_top1_class": ("float64", "test top-1 in percent of the class head"),
    "test_top1_distillation": ("float64", "test top-1 in percent of the distillation head"),
    "test_top1_fused_softmax": ("float64", "test top-1 in percent of the summed probabilities of both heads"),
    "test_top1_fused_logits": ("float64", "test top-1 in percent of the summed logits of both heads"),
    "test_top1_ema": ("float64", "test top-1 in percent of the moving average of the weights"),
    "epochs": ("Int64", "epochs finished so far"),
    "train_seconds": ("float64", "seconds of training, over all attempts"),
    "wall_seconds": ("float64", "seconds from start to end, over all attempts"),
    "images_per_second": ("float64", "training images a second"),
    "inference_images_per_second": ("float64", "images a second of the forward pass alone, in evaluation mode"),
    "inference_batch": ("Int64", "the batch that this was measured with"),
    "peak_memory_bytes": ("Int64", "peak memory in bytes"),
    "parameters": ("Int64", "parameters of the model"),
    "flops": ("Int64", "floating point operations of one forward pass of one image"),
    "ranks": ("Int64", "processes that trained the run together"),
    "chunks": ("Int64", "parts that each batch was cut into: ranks x accumulation"),
    "attempts": ("Int64", "attempts so far"),
    "threads": ("Int64", "CPU threads of the run"),
    "compile": ("string", "on where torch.compile was used (or its mode), off where not"),
    "channels_last": ("string", "on or off"),
    "deterministic": ("string", "on or off"),
    "version": ("string", "version of deit_ablate that made the record"),
    "commit": ("string", "git commit of the code, with '+ changes' where files differed from it"),
    "packages": ("string", "versions of the packages that compute"),
    "device": ("string", "cpu or cuda"),
    "gpu": ("string", "the GPU's name"),
    "cpu": ("string", "the CPU's name"),
    "host": ("string", "the machine's name"),
    "weights_sha256": ("string", "SHA-256 of the weights at the end"),
    "data_fingerprint": ("string", "SHA-256 of the data set, as its function defines it"),
    "data_test": ("Int64", "images in the test split, those that could not be decoded among them"),
    "command": ("string", "the command that asked for it"),
}
"""Name -> (dtype, meaning) of ``load``'s columns. The recipe follows, by dotted key, what varies first."""

CURVES: dict[str, tuple[str, str]] = {
    **{name: COLUMNS[name] for name in ("variant", "seed", "stage", "run", "state")},
    "epoch": ("Int64", "the epoch, as recorded"),
    "step": ("Int64", "optimizer steps so far"),
    "lr": ("float64", "learning rate of the last step"),
    "train_loss": ("float64", "mean training loss of the epoch"),
    "validation_top1": ("float64", "validation top-1 in percent, of the figure that the variant shows"),
    "validation_loss": ("float64", "validation loss"),
    "seconds": ("float64", "seconds that the epoch took"),
    "images_per_second": ("float64", "training images a second"),
}
"""Name -> (dtype, meaning) of ``load_curves``'s columns."""


Columns = dict[str, tuple[str, list[Any]]]
"""Name -> its dtype, and its values as ``rows`` has them."""


@dataclass(frozen=True)
class Records:
    """What ``load`` returns, before a frame is made of it: that takes a while, and as long to be taken apart again."""

    columns: Columns
    """All but the recipe's."""
    recipes: dict[str, dict[str, Any]]
    """Of each run, by dotted key."""

    def frame(self) -> pd.DataFrame:
        own = [self.recipes[run] for run in self.columns["run"][1]]
        given = [recipe for recipe in self.recipes.values() if recipe]
        keys = dict.fromkeys(key for recipe in given for key in recipe)
        alike = {key for key in keys if len({repr(recipe.get(key)) for recipe in given}) == 1}
        ordered = sorted(keys, key=lambda key: key in alike)
        return to_frame(self.columns | {key: _inferred([recipe.get(key) for recipe in own]) for key in ordered})


class NoSweep(LookupError):
    """There is no plan of that name in the store."""


def load(results: Path | str, sweep: str) -> pd.DataFrame:
    """One row a cell of the sweep (variant, seed, stage), in the plan's order, whatever its run's state.

    Columns are those of COLUMNS, then metrics that a program reports (``metrics.<name>``) and those of one's own
    (``module:function``), then the recipe's dotted keys, those
    that vary within the sweep first; lists are JSON text. What is not recorded is missing. Raises NoSweep.
    """
    store = Store(results)
    plan = read_plan(store, sweep)
    return _in_order(records(store, plan).frame(), plan)


def load_curves(results: Path | str, sweep: str) -> pd.DataFrame:
    """One row a cell and finished epoch, with the columns of CURVES, and the metrics that a program reports
    (``metrics.<name>``), in the plan's order. Raises NoSweep.

    A run that several variants share (a teacher) comes once for each. Epochs that were not scored on the
    validation part, and figures that were not recorded, are missing values.
    """
    store = Store(results)
    plan = read_plan(store, sweep)
    return _in_order(curves(store, plan, {run: state.name for run, state in run_states(store, plan).items()}), plan)


def _in_order(frame: pd.DataFrame, plan: Mapping[str, Any]) -> pd.DataFrame:
    """With rows and stages as categories in the plan's order, in which ``groupby`` and plots then keep them."""
    rows = dict.fromkeys([name for name, _ in rows_of(plan)] + [cell[0] for cell in plan["cells"]])
    stages = dict.fromkeys([cell[2] for cell in plan["cells"]])
    for column, order in (("variant", rows), ("stage", stages)):
        frame[column] = pd.Categorical(frame[column], categories=list(order), ordered=True)
    return frame


def to_frame(columns: Columns) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(values, dtype=dtype) for name, (dtype, values) in columns.items()})


def records(store: Store, plan: Mapping[str, Any]) -> Records:
    """What ``load`` returns, of a plan that is read already."""
    shows, final = shown_figures(plan), final_stage(plan)
    found = {run: record(store, run, state) for run, state in run_states(store, plan).items()}
    store.index.keep()
    cells: list[dict[str, Any]] = []
    for variant, seed, stage, run in plan["cells"]:
        row = {**found[run][0], "variant": variant, "seed": seed, "stage": stage, "run": run}
        # Before the final stage a row shows the same figure where there is one: before fine-tuning too the average is
        # one.
        figure = shows[variant] if stage == final or shows[variant] in row["test"] else "top1"
        for name, part in (("top1", "test"), ("validation_top1", "validation")):
            row[name] = row[part].get(figure) if row["state"] == "done" else None
        cells.append(row)
    own = dict.fromkeys([*reported_columns(cells), *own_columns(store, plan, cells)], "float64")
    dtypes = {name: dtype for name, (dtype, _) in COLUMNS.items()} | own
    columns = {name: _column([cell.get(name) for cell in cells], dtype) for name, dtype in dtypes.items()}
    return Records(columns, {run: recipe for run, (_, recipe) in found.items()})


def curves(store: Store, plan: Mapping[str, Any], states: Mapping[str, str]) -> pd.DataFrame:
    """What ``load_curves`` returns, of a plan that is read already; ``states``: each run's, by name."""
    shows, final = shown_figures(plan), final_stage(plan)
    histories = {run: store.sound_history(run) for run, state in states.items() if state != "damaged"}
    epochs = []
    for variant, seed, stage, run in plan["cells"]:
        figure = shows[variant] if stage == final else "top1"
        cell = {"variant": variant, "seed": seed, "stage": stage, "run": run, "state": states[run]}
        for line in histories.get(run, ()):
            validation = line.get("validation") or {}
            scores = {"validation_top1": validation.get(figure), "validation_loss": validation.get("loss")}
            given = {OF_PROGRAMS + name: value for name, value in (line.get("metrics") or {}).items()}
            epochs.append({**line, **given, **cell, **scores})
    reported = sorted({name for row in epochs for name in row if name.startswith(OF_PROGRAMS)})
    dtypes = {name: dtype for name, (dtype, _) in CURVES.items()} | dict.fromkeys(reported, "float64")
    return to_frame({name: _column([row.get(name) for row in epochs], dtype) for name, dtype in dtypes.items()})


def recipes(records: pd.DataFrame, stage: str) -> dict[str, dict[str, Any]]:
    """Variant -> dotted key -> value of its recipe at a stage, of what ``load`` returned. A key whose value is null is
    left out, and so is a variant of which no run was started yet."""
    names = [name for name in map(str, records) if ":" not in name and not name.startswith(OF_PROGRAMS)]
    keys = [name for name in names if name not in COLUMNS]
    found: dict[str, dict[str, Any]] = {}
    for row in rows(records[records["stage"] == stage]):
        if own := {key: row[key] for key in keys if not pd.isna(row[key])}:
            found.setdefault(row["variant"], own)
    return found


def rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as plain dictionaries, column -> value."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


# -- the plan, as tables need it -----------------------------------------------------------------------------------


def read_plan(store: Store, sweep: str) -> dict[str, Any]:
    """What ``plan.json`` of a sweep holds. Raises NoSweep."""
    plan = store.sweeps.plan(sweep)
    if plan is None:
        raise NoSweep(f"no sweep {sweep!r} under {store.root}: run it first")
    return plan


def final_stage(plan: Mapping[str, Any]) -> str:
    """The stage that tables show."""
    return plan["stages"][-1]["name"] if plan["stages"] else ""


def shown_figures(plan: Mapping[str, Any]) -> dict[str, str]:
    """Variant -> the metric that its row shows."""
    shown = {row["name"]: f"top1_{row['shows']}" if row["shows"] else "top1" for row in plan["variants"]}
    # A row of a search that has no winner (yet) has trials all the same.
    return {**dict.fromkeys((variant for variant, *_ in plan["cells"]), "top1"), **shown}


def run_states(store: Store, plan: Mapping[str, Any]) -> dict[str, State]:
    """The state of every run of a plan.

    A scheduler is asked where it has some of them; what it says beyond that changes by the minute, and is left out.
    """
    found = status.states(store, status.parents_first(plan), plan["sweep"], learn=True)
    passing = {"running", "submitted"}
    return {run: replace(state, detail="") if state.name in passing else state for run, state in found.items()}


def _column(values: Sequence[Any], dtype: str) -> tuple[str, list[Any]]:
    if dtype == "string":
        return dtype, ["" if value is None else str(value) for value in values]
    numbers = [number(value) for value in values]
    if dtype == "float64":
        return dtype, numbers
    return dtype, [int(value) if math.isfinite(value) else None for value in numbers]


def _inferred(values: Sequence[Any]) -> tuple[str, list[Any]]:
    """A recipe's column: whole numbers, numbers, or text; null (and not yet registered) is missing."""
    kinds = {type(value) for value in values if value is not None}
    if kinds == {int}:
        return "Int64", list(values)
    if kinds and kinds <= {int, float}:
        return _column(values, "float64")
    texts = (canonical_json(value) if isinstance(value, bool) else value for value in values)
    return "string", [None if value is None else str(value) for value in texts]
