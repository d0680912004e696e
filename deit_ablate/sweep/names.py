"""Names in recipes: looked up in names.json, else asked of the worker, which may import torch."""

from __future__ import annotations

import functools
import json
import subprocess
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from deit_ablate.errors import InputError, unknown_name
from deit_ablate.execution import worker_command
from deit_ablate.names import misfit, names
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

    def place(self, option: str) -> tuple[str | int, ...]:
        """Where in the recipe one of its options is."""
        block = self.key if self.kind == "augmentations" else self.key[:-1]
        return (*block, "options", option)


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
    questions: dict[str, tuple[Named, Node]] = {}
    seen: set[tuple[int, ...]] = set()
    for (variant, stage), recipe in recipes.items():
        blocks = tuple(map(id, (recipe.model, recipe.optimizer, recipe.distill, recipe.data, recipe.augment)))
        if blocks in seen:
            continue
        seen.add(blocks)
        for named in _named(recipe):
            node = nodes[variant][stage]
            if not _known(named, recipe, node):
                questions.setdefault(_question(named, recipe), (named, node))
    unknown = [question for question in questions if question not in answers]
    if unknown:
        answers.update(zip(unknown, ask_worker([json.loads(question) for question in unknown]), strict=True))
    sources: dict[str, str] = {}
    for question, (named, node) in questions.items():
        answer = answers[question]
        if not answer["ok"]:
            key = named.place(answer["option"]) if answer.get("option") else named.key
            raise InputError(
                answer["error"], where=node.locate(key), key=dotted(key), expected=answer.get("expected") or ""
            )
        if answer.get("source_sha256"):
            sources[named.name] = answer["source_sha256"]
    return sources


def _question(named: Named, recipe: Recipe) -> str:
    teaches = named.key == ("distill", "teacher")
    resolution = recipe.distill.teacher_resolution if teaches else recipe.data.resolution
    request = {"kind": named.kind, "name": named.name, "options": named.options, "resolution": resolution}
    return json.dumps(request, sort_keys=True)


def _known(named: Named, recipe: Recipe, node: Node) -> bool:
    """Whether names.json alone can say that this exists; else the worker is asked. Raises InputError where it can say
    that it does not."""
    if named.key == ("distill", "teacher"):
        if ":" in named.name or named.name in names()["models"]:
            raise InputError(
                f"{named.name!r} is no pretrained model of timm's",
                where=node.locate(named.key),
                key=dotted(named.key),
                expected="a name such as regnety_160.deit_in1k (a custom model teaches as a stage)",
            )
        if recipe.distill.teacher_resolution is None and named.name in _timm("timm_pretrained"):
            return True
    known = names().get(named.kind, {}).get(named.name)
    _check_options(named, (known or {}).get("options", {"**": "unknown"}), node)
    return known is not None or (named.kind == "models" and not named.options and named.name in _timm("timm_models"))


def _check_options(named: Named, kinds: Mapping[str, str], node: Node) -> None:
    """Refuse options that are not known, and values of another kind, at their own line."""
    for option, value in named.options.items():
        path = named.place(option)
        kind = kinds.get(option, kinds.get("**"))
        if kind is None:
            place, problem = node.locate(path, at_key=True), f"{named.name} has no option"
            raise unknown_name(problem, option, list(kinds), where=place, key=dotted(path))
        if expected := misfit(kind, value):
            place = node.locate(path)
            raise InputError(f"got {json.dumps(value)}", where=place, key=dotted(path), expected=expected)


@functools.cache
def _timm(which: str) -> frozenset[str]:
    return frozenset(names()[which])


def ask_worker(requests: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Ask the worker command, which may import torch, about names. Raises InputError where it cannot answer."""
    done = subprocess.run(worker_command("names"), input=json.dumps(requests), capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["no answer"])[-1]
        raise InputError(
            f"the names could not be checked ({last})", expected="a working installation of torch and timm"
        )
    answers: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return answers
