"""Names in recipes: asked of names.json, and of the worker command (which may import torch) where that does not hold them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any

from deit_ablate.errors import InputError, Position
from deit_ablate.execution import worker_command
from deit_ablate.recipe import Recipe, names
from deit_ablate.sweep.overrides import offline_answer
from deit_ablate.sweep.yaml import Node

Answers = dict[str, dict[str, Any]]
"""What the worker has answered about names, by question."""


def _wanted(recipe: Recipe) -> Iterator[tuple[str, str, str, dict[str, Any]]]:
    """(kind, dotted key, name, options) of everything that a recipe calls by name."""
    yield "models", "model.name", recipe.model.name, recipe.model.options
    yield "optimizers", "optimizer.name", recipe.optimizer.name, recipe.optimizer.options
    yield "distillations", "distill.type", recipe.distill.type, {}
    yield "datasets", "data.name", recipe.data.name, {}
    if recipe.distill.teacher:
        yield "models", "distill.teacher", recipe.distill.teacher, {}


def modules(recipe: Recipe) -> list[str]:
    return [name for _, _, name, _ in _wanted(recipe) if ":" in name]


def check_names(
    recipes: Mapping[tuple[str, str], Recipe], nodes: Mapping[str, Mapping[str, Node]], answers: Answers
) -> dict[str, str]:
    """Refuse names and options that do not exist; returns the source hash of each module of one's own."""
    asked: dict[str, tuple[dict[str, Any], Position]] = {}
    seen: set[tuple[int, int, int, int]] = set()
    for (variant, stage), recipe in recipes.items():
        blocks = (id(recipe.model), id(recipe.optimizer), id(recipe.distill), id(recipe.data))
        if blocks in seen:
            continue
        seen.add(blocks)
        for kind, key, name, options in _wanted(recipe):
            where = nodes[variant][stage].locate(key.split("."))
            if key == "distill.teacher" and (":" in name or name in names()["models"]):
                raise InputError(
                    f"{name!r} is no pretrained model of timm's",
                    where=where,
                    key=key,
                    expected="a name such as regnety_160.deit_in1k (a model of one's own teaches as a stage)",
                )
            answer = offline_answer(kind, name, options)
            if isinstance(answer, str):
                raise InputError(answer, where=where, key=key)
            plain_timm = kind == "models" and not options and name in _timm_models()
            if key == "distill.teacher" and recipe.distill.teacher_resolution is None:
                plain_timm = plain_timm or name in names()["timm_pretrained"]
            if not answer and not plain_timm:
                request = {
                    "kind": kind,
                    "name": name,
                    "options": options,
                    "key": key,
                    "resolution": recipe.distill.teacher_resolution
                    if key == "distill.teacher"
                    else recipe.data.resolution,
                }
                asked.setdefault(json.dumps(request, sort_keys=True), (request, where))
    if not asked:
        return {}
    unknown = [question for question in asked if question not in answers]
    if unknown:
        answers.update(zip(unknown, ask_worker([asked[question][0] for question in unknown]), strict=True))
    sources: dict[str, str] = {}
    for question, (asked_for, place) in asked.items():
        said = answers[question]
        if not said["ok"]:
            raise InputError(said["error"], where=place, key=asked_for["key"], expected=said.get("expected") or "")
        if said.get("source_sha256"):
            sources[asked_for["name"]] = said["source_sha256"]
    return sources


def _timm_models() -> frozenset[str]:
    global _timm
    if _timm is None:
        _timm = frozenset(names()["timm_models"])
    return _timm


_timm: frozenset[str] | None = None


def ask_worker(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ask the worker command, which may import torch, about names. Raises InputError where it cannot answer."""
    done = subprocess.run(worker_command("names"), input=json.dumps(requests), capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise InputError(
            f"the names could not be checked ({last})", expected="a working installation of torch and timm"
        )
    return json.loads(done.stdout.splitlines()[-1])
