"""Names in recipes: looked up in names.json, else asked of the worker, which may import torch."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from deit_ablate.errors import InputError, Position, did_you_mean
from deit_ablate.execution import worker_answers
from deit_ablate.names import names
from deit_ablate.recipe import Recipe
from deit_ablate.sweep.overrides import dotted
from deit_ablate.sweep.yaml import Node

Answers = dict[str, dict[str, Any]]
"""What the worker has answered about names, by question."""


class Named(NamedTuple):
    """Something that a recipe calls by name, and where in the recipe."""

    kind: str
    key: tuple[str | int, ...]
    name: str
    options: Mapping[str, Any] = {}


def _named(recipe: Recipe) -> Iterator[Named]:
    yield Named("models", ("model", "name"), recipe.model.name, recipe.model.options)
    yield Named("optimizers", ("optimizer", "name"), recipe.optimizer.name, recipe.optimizer.options)
    yield Named("distillations", ("distill", "type"), recipe.distill.type)
    yield Named("datasets", ("data", "name"), recipe.data.name)
    for place, custom in enumerate(recipe.augment.custom):
        yield Named("augmentations", ("augment", "custom", place), custom.name, custom.options)
    if recipe.distill.teacher:
        yield Named("models", ("distill", "teacher"), recipe.distill.teacher)


def modules(recipe: Recipe) -> list[str]:
    """Each ``module:function`` of the recipe: the hash of its source is part of a run's id."""
    return [named.name for named in _named(recipe) if ":" in named.name]


def check_names(
    recipes: Mapping[tuple[str, str], Recipe], nodes: Mapping[str, Mapping[str, Node]], answers: Answers
) -> dict[str, str]:
    """Refuse names and options that do not exist; returns the source hash of each custom ``module:function``.

    Recipes are by (variant, stage), ``nodes`` say where they are written. Raises InputError at the line of a name.
    """
    questions: dict[str, tuple[Named, Position]] = {}
    seen: set[tuple[int, ...]] = set()
    for (variant, stage), recipe in recipes.items():
        blocks = tuple(map(id, (recipe.model, recipe.optimizer, recipe.distill, recipe.data, recipe.augment)))
        if blocks in seen:
            continue
        seen.add(blocks)
        for named in _named(recipe):
            where = nodes[variant][stage].locate(named.key)
            if not _known(named, recipe, where):
                questions.setdefault(_question(named, recipe), (named, where))
    unknown = [question for question in questions if question not in answers]
    if unknown:
        answers.update(zip(unknown, ask_worker([json.loads(question) for question in unknown]), strict=True))
    sources: dict[str, str] = {}
    for question, (named, where) in questions.items():
        answer = answers[question]
        if not answer["ok"]:
            expected = answer.get("expected") or ""
            raise InputError(answer["error"], where=where, key=dotted(named.key), expected=expected)
        if answer.get("source_sha256"):
            sources[named.name] = answer["source_sha256"]
    return sources


def _question(named: Named, recipe: Recipe) -> str:
    teaches = named.key == ("distill", "teacher")
    resolution = recipe.distill.teacher_resolution if teaches else recipe.data.resolution
    request = {"kind": named.kind, "name": named.name, "options": named.options, "resolution": resolution}
    return json.dumps(request, sort_keys=True)


def _known(named: Named, recipe: Recipe, where: Position) -> bool:
    """Whether names.json alone can say that this exists; else the worker is asked. Raises InputError where it can say
    that it does not."""
    if named.key == ("distill", "teacher"):
        if ":" in named.name or named.name in names()["models"]:
            raise InputError(
                f"{named.name!r} is no pretrained model of timm's",
                where=where,
                key=dotted(named.key),
                expected="a name such as regnety_160.deit_in1k (a custom model teaches as a stage)",
            )
        if recipe.distill.teacher_resolution is None and named.name in _timm("timm_pretrained"):
            return True
    known = names().get(named.kind, {}).get(named.name)
    if known is None:
        return named.kind == "models" and not named.options and named.name in _timm("timm_models")
    options = known.get("options")
    for option in named.options if options is not None else ():
        if option not in options:
            raise InputError(
                f"{named.name} has no option {option!r}{did_you_mean(option, options)}; it has {', '.join(options)}",
                where=where,
                key=dotted(named.key),
            )
    return True


@functools.cache
def _timm(which: str) -> frozenset[str]:
    return frozenset(names()[which])


def ask_worker(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ask a worker, which may import torch, about names. Raises WorkerFailed, an InputError, where it cannot answer."""
    answers: list[dict[str, Any]] = next(worker_answers("names", requests))
    return answers
