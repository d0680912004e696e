"""Trained models out of a store: ``load_model`` for notebooks, weights files, and predictions of pictures."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from deit_ablate import files
from deit_ablate.errors import InputError, TrainError
from deit_ablate.identity import recipe_of_record
from deit_ablate.program import changed, is_program
from deit_ablate.recipe import Recipe
from deit_ablate.store import Store
from deit_ablate.store.named import one_run
from deit_ablate.train import checkpoint
from deit_ablate.train.classifier import Classifier, Head, config, load_weights, timm_weights, untrained, write_onnx
from deit_ablate.train.data.images import EXTENSIONS, ArrayImages, Ignored, decode, list_tree
from deit_ablate.train.data.sets import Dataset, load_data

BATCH = 64
TOP = 5


def load_model(
    results: Path | str,
    run: str,
    *,
    head: Head = "fused",
    ema: bool = False,
    data_dir: Path | str | None = None,
) -> Classifier:
    """A finished run's model, on the CPU and in evaluation mode, with its ``transform`` and ``classes``.

        model = deit_ablate.load_model("results", "optimizers:adamw:0")
        logits = model(model.transform(Image.open("7.png"))[None])        # (1, 10)
        model.classes[int(logits.argmax())]

    ``run``: sweep:row:seed[:stage], or the first digits of an id. ``head``: of a model of two, ``fused`` (as tables
    have it), ``class`` or ``distillation``. ``ema``: the moving average of its weights. ``data_dir``: the data's
    folder, which only a record of an earlier version needs, for classes and normalisation. Raises InputError for what
    is no such run, TrainError where its model cannot be had.
    """
    store = Store(results)
    return _loaded(store, one_run(run, store), head, ema, Path(data_dir) if data_dir else None)[1]


def _loaded(store: Store, run: str, head: Head, ema: bool, data_dir: Path | None) -> tuple[Recipe, Classifier]:
    stored, outcome, path = store.recipe(run), store.outcome(run), store.weights(run)
    if stored is None or outcome is None:
        raise InputError("has not finished", where=(run, 0, 0), expected="a run with a record")
    if is_program(stored["recipe"]):
        raise InputError(
            "is a run of a program, which writes its own files", where=(run, 0, 0), expected="a run of our trainer"
        )
    if path is None:
        raise InputError("its weights are gone", where=(run, 0, 0), expected="a run whose last checkpoint is kept")
    if name := changed(stored["sources"]):
        raise TrainError(f"the source of {name} is not that of {run}: it would be another model")
    recipe = recipe_of_record(stored["recipe"], store.teacher_weights.find)
    state = checkpoint.load(path)
    weights: dict[str, Tensor] | None = state["ema" if ema else "model"]
    if weights is None:
        raise TrainError(f"{run} has no moving average: it ran with regularize.ema_decay: null")
    classifier = untrained(recipe, _dataset(store, recipe, outcome, data_dir), head)
    load_weights(classifier.model, weights, path)
    return recipe, classifier


def _dataset(store: Store, recipe: Recipe, outcome: Mapping[str, Any], data_dir: Path | None) -> Dataset:
    """What the record says of the data, without pictures; of a record of an earlier version the data themselves."""
    pinned, used = store.data_facts(recipe.data.id or recipe.data.name) or {}, outcome.get("data") or {}
    same = pinned.get("fingerprint") == used.get("fingerprint")
    facts = {**used, **({"classes": pinned.get("classes")} if same else {})}
    if not all(facts.get(key) for key in ("classes", "channels", "mean", "std")):
        return load_data(recipe, data_dir).dataset
    none = ArrayImages(np.empty(0), np.empty(0))
    classes, mean, std = (tuple(facts[key]) for key in ("classes", "mean", "std"))
    return Dataset(recipe.data.name, classes, facts["channels"], mean, std, none, none, facts.get("fingerprint", ""))


# -- for commands ---------------------------------------------------------------------------------------------------


def answers(mode: str, request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Of ``weights``: {"files", "timm" (whether it has the network), "onnx" (see ``write_onnx``)}. Of ``predict``: an
    answer a picture, {"file", "top": [[class, probability], ...]} or {"file", "error"}. {"refused"} where the run's
    model cannot be had.

    ``request``: {"results", "run" (an id), "head", "ema", "data_dir"} and {"output"}, or {"paths", "device"}.
    """
    try:
        data_dir = Path(request["data_dir"]) if request["data_dir"] else None
        recipe, classifier = _loaded(
            Store(request["results"]), request["run"], request["head"], request["ema"], data_dir
        )
        if mode == "weights":
            yield _written(recipe, classifier, request)
        else:
            yield from _predicted(classifier, [Path(path) for path in request["paths"]], request["device"])
    except (InputError, TrainError) as error:
        yield {"refused": str(error)}


def _written(recipe: Recipe, classifier: Classifier, request: Mapping[str, Any]) -> dict[str, Any]:
    output, store = Path(request["output"]), Store(request["results"])
    outcome = store.outcome(request["run"])
    assert outcome is not None
    beside = config(recipe, classifier)
    beside["deit_ablate"] |= {
        "run": request["run"],
        "weights": "ema" if request["ema"] else "last",
        "metrics": outcome["metrics"],
        "data": recipe.data.id or recipe.data.name,
    }
    difference = None
    if output.suffix == ".onnx":
        difference = write_onnx(classifier, output)
        beside["deit_ablate"]["onnx"] = difference
    else:
        with files.temporary_beside(output) as temporary:
            safetensors.torch.save_file(timm_weights(classifier), temporary, metadata={"format": "pt"})
            files.sync_file(temporary)
            os.replace(temporary, output)
    sidecar = output.with_name("config.json") if output.name == "model.safetensors" else output.with_suffix(".json")
    files.replace(sidecar, (json.dumps(beside, indent=1) + "\n").encode())
    return {"files": [str(output), str(sidecar)], "timm": "architecture" in beside, "onnx": difference}


def _predicted(classifier: Classifier, paths: Sequence[Path], device: str) -> Iterator[dict[str, Any]]:
    from deit_ablate.worker.run import device_of

    where = torch.device(device_of(device))
    classifier = classifier.to(where)
    waiting: list[tuple[str, Tensor]] = []
    for path in _pictures_in(paths):
        try:
            waiting.append((str(path), classifier.transform(decode(path.read_bytes()))))
        except MemoryError:
            raise
        except Exception as error:  # of a damaged file Pillow makes SyntaxError, struct.error, OverflowError, ...
            yield {"file": str(path), "error": f"{type(error).__name__}: {error}"}
        if len(waiting) == BATCH:
            yield from _classified(classifier, waiting, where)
            waiting = []
    if waiting:
        yield from _classified(classifier, waiting, where)


@torch.no_grad()
def _classified(
    classifier: Classifier, waiting: Sequence[tuple[str, Tensor]], where: torch.device
) -> Iterator[dict[str, Any]]:
    logits = classifier(torch.stack([image for _, image in waiting]).to(where)).double()
    best = logits.softmax(dim=1).cpu().topk(min(TOP, len(classifier.classes)), dim=1)
    for (path, _), shares, places in zip(waiting, best.values.tolist(), best.indices.tolist(), strict=True):
        pairs = zip(places, shares, strict=True)
        yield {"file": path, "top": [[classifier.classes[place], share] for place, share in pairs]}


def _pictures_in(paths: Sequence[Path]) -> Iterator[Path]:
    """The files as given, and the pictures at and below the folders, by path; hidden ones are none."""
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        ignored = Ignored()
        found = list_tree(os.fsencode(path), ignored.is_picture, ignored.is_shown)
        names = [path / os.fsdecode(os.path.join(below, name)) for below, inside in found for name, _ in inside]
        if not names:
            kinds = ", ".join(each.decode() for each in EXTENSIONS)
            raise InputError("no pictures in it", where=(str(path), 0, 0), expected=f"files that end in {kinds}")
        yield from sorted(names)
