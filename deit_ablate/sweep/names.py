"""Names in recipes: looked up in names.json, else asked of the worker, which may import torch."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from deit_ablate.errors import InputError, Problems, TrainError, did_you_mean
from deit_ablate.identity import HUB, with_files
from deit_ablate.names import fact, installed_timm, keep_answer, kept_answer, misfit, names
from deit_ablate.program import code_of
from deit_ablate.recipe import BLOCKS, Recipe
from deit_ablate.sweep.fork_server import ask_worker
from deit_ablate.sweep.overrides import files_named
from deit_ablate.sweep.yaml import Node

Answers = dict[str, dict[str, Any]]
"""What the worker has answered about names, by question."""


PLACES: dict[str, tuple[str, str, str]] = {
    "models": ("model", "model", "name"),
    "optimizers": ("optimizer", "optimizer", "name"),
    "distillations": ("distillation type", "distill", "type"),
    "datasets": ("data set", "data", "name"),
    "losses": ("loss", "regularize", "loss"),
    "schedules": ("schedule", "schedule", "name"),
}
"""Registry -> what its entries are called, and the block and field of a recipe that name one."""
FEW = 12
"""Names up to which an error lists them all."""


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
    for kind, (_, block, field) in PLACES.items():
        part = getattr(recipe, block)
        yield Named(kind, (block, field), getattr(part, field), getattr(part, "options", {}))
    for place, custom in enumerate(recipe.augment.custom):
        yield Named("augmentations", ("augment", "custom", place), custom.name, custom.options)
    if recipe.distill.teacher:
        yield Named("models", ("distill", "teacher"), recipe.distill.teacher)
    if (recipe.model.init or "").startswith(HUB):
        yield Named("models", ("model", "init"), str(recipe.model.init).removeprefix(HUB))


def modules(recipe: Recipe) -> list[str]:
    """Each ``module:function`` of the recipe: its code is part of a run's id."""
    return [named.name for named in _named(recipe) if ":" in named.name and named.name not in names()["datasets"]]


def check_names(
    recipes: Mapping[tuple[str, str], Recipe], nodes: Mapping[str, Mapping[str, Node]], answers: Answers
) -> dict[str, dict[str, str]]:
    """Refuse names and options that do not exist; returns the code (``program.code_of``) of each ``module:function``.

    Recipes are by (variant, stage), ``nodes`` say where they are written. Raises InputError at the line of a name.
    """
    questions: dict[str, tuple[Named, Node]] = {}
    problems, seen = Problems(), set()
    for (variant, stage), recipe in recipes.items():
        blocks = tuple(id(getattr(recipe, block)) for block in BLOCKS)
        if blocks in seen:
            continue
        seen.add(blocks)
        node = nodes[variant][stage]
        for named in _named(recipe):
            with problems.at():
                if not _known(named, recipe, node):
                    try:
                        questions.setdefault(_question(named, recipe, files_named(node)), (named, node))
                    except TrainError as error:
                        raise node.error(named.key, str(error), "the file's path") from None
    problems.refuse()
    unknown = [question for question in questions if question not in answers]
    _ask(unknown, questions, answers)
    sources: dict[str, dict[str, str]] = {}
    for question, (named, node) in questions.items():
        answer = answers[question]
        if answer["ok"]:
            sources[named.name] = answer["sources"]
        else:
            place = named.place(answer["option"]) if answer.get("option") else named.key
            problems.add(node.error(place, answer["error"], answer.get("expected") or ""))
    problems.refuse()
    return sources


def check_layer_names(layer: Node, prefix: str) -> None:
    """Refuse, in one layer by itself, names that do not exist and options that do not suit what the layer names.

    Only by names.json: the worker is asked about whole recipes. Raises InputError with ``prefix`` before its key.
    """
    for kind, (_, block, field) in PLACES.items():
        name, options = layer.part(block).part(field).value, layer.part(block).part("options")
        # What is no name, and no mapping, is told by who checks values.
        given = options.plain() if isinstance(options.value, dict) else {}
        named = Named(kind, (block, field), name if isinstance(name, str) else "", given)
        try:
            if named.name and named.name not in names()[kind]:
                _refuse_unknown(named, layer)
            _check_options(named, fact(kind, named.name, "options", {"**": "unknown"}), layer)
        except InputError as error:
            raise error.under(prefix) from None


def _ask(unknown: list[str], questions: Mapping[str, tuple[Named, Node]], answers: Answers) -> None:
    """Answer from the user's cache, else from the worker, whose good answers are kept there."""
    about = {question: _about(question, questions[question][0]) for question in unknown}
    answers.update({question: kept for question in unknown if (kept := kept_answer(about[question])) is not None})
    unknown = [question for question in unknown if question not in answers]
    given = ask_worker([json.loads(question) for question in unknown]) if unknown else []
    for question, answer in zip(unknown, given, strict=True):
        answers[question] = answer
        # An error may be of the machine; and a worker elsewhere may have other code than is here.
        if answer["ok"] and answer["sources"] == about[question][-1]:
            keep_answer(about[question], answer)


def _about(question: str, named: Named) -> list[Any]:
    """All that an answer depends on: the question, the files that options name by their content, and the code."""
    try:
        return [question, dict(named.options), code_of(named.name) if ":" in named.name else {}]
    except TrainError:
        return [question, dict(named.options), None]  # the worker may find it, or says what is wrong


def _question(named: Named, recipe: Recipe, paths: Mapping[str, Path]) -> str:
    teaches = named.key == ("distill", "teacher")
    resolution = recipe.distill.teacher_resolution if teaches else recipe.data.resolution
    options = with_files(dict(named.options), paths.get, inside=True)
    request = {"kind": named.kind, "name": named.name, "options": options, "resolution": resolution}
    if named.kind == "models" and not teaches:
        known = {part: fact("datasets", recipe.data.name, part) for part in ("channels", "classes")}
        known["heads"] = fact("distillations", recipe.distill.type, "heads")
        request |= {part: number for part, number in known.items() if number is not None}
    return json.dumps(request, sort_keys=True)


def _known(named: Named, recipe: Recipe, node: Node) -> bool:
    """Whether names.json alone can say that this exists; else the worker is asked. Raises InputError where it can say
    that it does not."""
    if named.key == ("distill", "teacher"):
        if ":" in named.name or named.name in names()["models"]:
            expected = "a name such as regnety_160.deit_in1k (a custom model teaches as a stage)"
            raise node.error(named.key, f"{named.name!r} is no pretrained model of timm's", expected)
        if recipe.distill.teacher_resolution is None and named.name in _timm("timm_pretrained"):
            return True
    if named.key == ("model", "init"):
        have = _timm("timm_pretrained")
        if named.name in have or named.name in {name.partition(".")[0] for name in have}:
            return True
        if installed_timm() == names().get("timm"):
            problem = f"timm has no weights called {named.name!r}{did_you_mean(named.name, sorted(have))}"
            raise node.error(named.key, problem, "a name such as vit_tiny_patch16_224.augreg_in21k")
    if named.kind == "models" and ":" not in named.name and named.options:
        for key in ("pretrained", "checkpoint_path"):
            if key in named.options and named.name in _timm("timm_models"):
                problem = f"{key} is not how {named.name} gets weights to start from"
                expected = "model: {init: FILE} or {init: timm:NAME}, fitted to the data and part of the run's id"
                raise node.error(("model", "options", key), problem, expected)
    known = names().get(named.kind, {}).get(named.name)
    if known is None:
        _refuse_unknown(named, node)
    _check_options(named, (known or {}).get("options", {"**": "unknown"}), node)
    return known is not None or (named.kind == "models" and not named.options and named.name in _timm("timm_models"))


def _check_options(named: Named, kinds: Mapping[str, str], node: Node) -> None:
    """Refuse options that are not known, and values of another kind, at their own line."""
    for option, value in named.options.items():
        path = named.place(option)
        kind = kinds.get(option, kinds.get("**"))
        if kind is None:
            raise node.unknown(path, f"{named.name} has no option", option, list(kinds))
        if expected := misfit(kind, value):
            raise node.error(path, f"got {json.dumps(value)}", expected)


def _refuse_unknown(named: Named, node: Node) -> None:
    """Raises InputError for a name that this version of timm does not have, without importing it to ask."""
    models = named.kind == "models"
    listed = [*names().get(named.kind, ()), *(_timm("timm_models") if models else ())]
    name = named.name.partition(".")[0] if models else named.name
    custom = ":" in named.name and not named.name.startswith("torchvision:")
    if custom or not listed or name in listed or installed_timm() != names().get("timm"):
        return
    if named.kind == "optimizers" and name.startswith(("fused", "bnb")):
        return  # timm's, of packages that are not needed here: the worker says which
    problem = f"no {PLACES[named.kind][0]} is called {named.name!r}{did_you_mean(named.name, listed)}"
    raise node.error(named.key, problem, f"one of {', '.join(listed)}" if len(listed) <= FEW else "")


@functools.cache
def _timm(which: str) -> frozenset[str]:
    return frozenset(names()[which])
