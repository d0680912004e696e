"""Whether a finished run's record holds: its checkpoint is evaluated anew, and compared with what was recorded."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch

from deit_ablate import files
from deit_ablate.errors import Damaged, TrainError
from deit_ablate.identity import belongs, recipe_of_record
from deit_ablate.program import changed
from deit_ablate.recipe import Recipe
from deit_ablate.train import checkpoint, cost
from deit_ablate.train.classifier import load_weights
from deit_ablate.train.data.images import Array
from deit_ablate.train.data.loader import evaluation_batches
from deit_ablate.train.data.sets import load_data
from deit_ablate.train.distill import recipe_model
from deit_ablate.train.evaluate import Scores, evaluate
from deit_ablate.train.precision import autocast, set_up
from deit_ablate.train.provenance import hardware, provenance
from deit_ablate.train.teachers import WeightsStore

TOLERANCE = 0.1
"""Points of top-1 by which another kind of device, or other versions of the packages, may differ."""


class Folder(Protocol):
    """One attempt of the run store."""

    @property
    def arrays(self) -> Path: ...


class Records(Protocol):
    """What verification needs of the run store."""

    @property
    def teacher_weights(self) -> WeightsStore: ...

    def recipe(self, run: str) -> dict[str, Any] | None: ...
    def outcome(self, run: str) -> dict[str, Any] | None: ...
    def weights(self, run: str) -> Path | None: ...
    def attempt(self, run: str, number: int) -> Folder: ...


def verify(store: Records, run: str, data_dir: Path | None, device: str) -> dict[str, Any]:
    """Evaluate a finished run's last checkpoint on the test split, and compare with its record.

    Exactly (weights, every metric, every prediction) on the same kind of device with the same versions of the packages;
    elsewhere top-1 may differ by ``TOLERANCE`` points. Sets the number of torch threads to the recorded one. Returns
    plain values: {"run", "agrees", "problems" (sentences), "exact", "weights" (whether their hash is the recorded one),
    "top1": [recorded, now], "metrics": {name: [recorded, now]} where they differ, "predictions": {classifier: how many
    differ}, "images"}. Raises TrainError where there is nothing to compare: no outcome, no test metrics, no
    checkpoint, other data, other source code.
    """
    stored, outcome, path = store.recipe(run), store.outcome(run), store.weights(run)
    if stored is None or outcome is None:
        raise TrainError(f"{run} has not finished: there is no record to verify")
    recorded = outcome["metrics"].get("test")
    if recorded is None:
        reason = outcome.get("reason")
        ended = f"ended before its test ({reason})" if reason else "leaves the test split alone, as its recipe says"
        raise TrainError(f"{run} {ended}")
    if path is None:
        raise TrainError(f"the weights of {run} are gone: `gc` has removed them")
    if name := changed(stored["sources"]):
        raise TrainError(f"the source of {name} is not that of {run}: it would be another model")
    recipe = recipe_of_record(stored["recipe"], store.teacher_weights.find)
    execution = outcome.get("execution") or {}
    torch.set_num_threads(int(execution.get("threads") or outcome["provenance"]["hardware"]["threads"]))
    set_up(torch.device(device), bool(execution.get("deterministic")), recipe.precision)
    scores, sha256 = _evaluated(recipe, path, data_dir, torch.device(device), bool(execution.get("channels_last")))

    differing = {
        name: [recorded.get(name), scores.metrics.get(name)]
        for name in dict.fromkeys([*recorded, *scores.metrics])
        if recorded.get(name) != scores.metrics.get(name)
    }
    before = None
    with contextlib.suppress(Damaged):
        before = files.read_arrays(store.attempt(run, outcome["attempt"]).arrays, outcome["arrays_sha256"])
    predictions = _predictions(before, scores.arrays)
    exact = _same_conditions(outcome, device)
    problems = [] if belongs(run, stored) else ["its recipe is not its id's"]
    problems += [] if sha256 == outcome["weights_sha256"] else ["the weights are not those that were recorded"]
    problems += [] if before is not None else ["its recorded predictions are gone or damaged"]
    problems += list(_metrics_problems(differing, exact))
    if exact:
        problems += [f"{count} predictions ({name}) differ" for name, count in predictions.items() if count]
    return {
        "run": run,
        "agrees": not problems,
        "problems": problems,
        "exact": exact,
        "weights": sha256 == outcome["weights_sha256"],
        "top1": [recorded["top1"], scores.metrics["top1"]],
        "metrics": differing,
        "predictions": predictions,
        "images": scores.metrics["images"],
    }


def _evaluated(
    recipe: Recipe, path: Path, data_dir: Path | None, device: torch.device, channels_last: bool
) -> tuple[Scores, str]:
    """Scores of a checkpoint's weights on the test split (as ``outcome.Examiner`` has them), and the weights' hash."""
    data, state = load_data(recipe, data_dir), checkpoint.load(path)
    if not data.dataset.has(state["data"]):
        raise TrainError(f"the data are not those of {path}: their fingerprints differ")

    def scored(weights: dict[str, Any], keep: bool) -> tuple[Scores, str]:
        model = recipe_model(recipe, data.dataset)
        load_weights(model, weights, path)
        model = model.to(device)
        model = model.to(memory_format=torch.channels_last) if channels_last else model
        batches = evaluation_batches(recipe, data.dataset, data.dataset.test, device=device)
        scores = evaluate(model, batches, device, keep, half=autocast(recipe, device))
        return scores, cost.weights_sha256(model)

    scores, sha256 = scored(state["model"], keep=True)
    if state["ema"] is not None:
        scores.metrics["top1_ema"] = scored(state["ema"], keep=False)[0].metrics["top1"]
    return scores, sha256


def _predictions(before: dict[str, Array] | None, now: dict[str, Array]) -> dict[str, int]:
    """By classifier, how many test images are decided differently (all of them, where their number is another)."""
    counts = {}
    for key, array in now.items():
        recorded = (before or {}).get(f"test_{key}")
        if key.startswith("pred_") and recorded is not None:
            same = recorded.shape == array.shape
            counts[key.removeprefix("pred_")] = int((recorded != array).sum()) if same else len(array)
    return counts


def _metrics_problems(differing: dict[str, list[Any]], exact: bool) -> Iterator[str]:
    for name, (recorded, now) in differing.items():
        top1 = name.startswith("top1") and recorded is not None and now is not None
        if top1 and not exact and abs(recorded - now) <= TOLERANCE:
            continue
        if exact or top1 or name == "images" or recorded is None or now is None:
            yield f"{name} is {_shown(now)}, and was recorded as {_shown(recorded)}"


def _shown(value: Any) -> str:
    return "missing" if value is None else f"{value:.10g}"


def _same_conditions(outcome: dict[str, Any], device: str) -> bool:
    """Whether the same bits can be expected: the same packages, on the same kind of processor, and no algorithm that
    was chosen by timing (cuDNN's are, unless the run was deterministic)."""
    recorded = outcome["provenance"]
    if recorded["packages"] != provenance()["packages"]:
        return False
    if torch.device(device).type == "cuda":
        alike = recorded["hardware"].get("gpu") == torch.cuda.get_device_name(torch.device(device))
        return alike and bool((outcome.get("execution") or {}).get("deterministic"))
    here = hardware("cpu")
    alike = all(recorded["hardware"].get(part) == here[part] for part in ("cpu", "capability"))
    return alike and outcome["cost"].get("device") == device


def verify_all(store: Records, runs: Iterable[str], data_dir: Path | None, device: str) -> Iterator[dict[str, Any]]:
    """``verify`` of each run, in order; {"run", "error"} for one that cannot be verified."""
    for run in runs:
        try:
            yield verify(store, run, data_dir, device)
        except (TrainError, Damaged, OSError) as error:
            yield {"run": run, "error": str(error)}
