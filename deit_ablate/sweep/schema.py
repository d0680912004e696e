"""JSON Schemas of the files that users write, generated from the models that check them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from deit_ablate.recipe import Recipe
from deit_ablate.sweep.fields import NAME, ProfileFile, SweepFile
from deit_ablate.sweep.rows import KINDS
from deit_ablate.sweep.yaml import SHARED

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def recipe_schema() -> dict[str, Any]:
    """A recipe, nested or by dotted keys; nothing in it is required."""
    schema = Recipe.model_json_schema()
    definitions = schema.pop("$defs")
    patterns = {}
    for choice in definitions["Distill"]["properties"]["teacher_weights"]["anyOf"]:
        choice.pop("pattern", None)  # files give a path, which becomes its content's hash when they are read
    for block, reference in schema["properties"].items():
        name = (reference.get("$ref") or "").rsplit("/", 1)[-1]
        for key, field in definitions.get(name, {}).get("properties", {}).items():
            patterns[rf"^{block}\.{key}$"] = field
            if field.get("type") == "object":
                patterns[rf"^{block}\.{key}\..+$"] = {}
        if name:
            # A block may mix nested and dotted keys (options.betas: ...).
            definitions[name]["patternProperties"] = {r"^options\..+$": {}}
    return {**schema, "$schema": DIALECT, "patternProperties": patterns, "$defs": definitions, "title": "Recipe"}


def _with_recipes(schema: dict[str, Any]) -> dict[str, Any]:
    """Put the recipe's schema where a model says only "a mapping"."""
    recipe = recipe_schema()
    definitions = {**schema.get("$defs", {}), **recipe.pop("$defs")}
    recipe.pop("$schema")
    definitions["Recipe"] = recipe
    overrides = {"$ref": "#/$defs/Recipe"}
    row: dict[str, Any] = {
        "type": ["object", "null"],
        "description": "Overrides of the recipe; `shows`; or a stage's name with its overrides.",
    }
    rows: dict[str, Any] = {"type": "object", "propertyNames": {"pattern": NAME}, "additionalProperties": row}
    axes = {"type": "object", "description": "Keys (dotted or nested) with lists of values."}
    properties = schema["properties"]
    properties["recipe"] = {**overrides, "description": properties["recipe"].get("description", "")}
    listed = {"type": "array", "items": {"type": "string"}, "minItems": 1}
    shapes: dict[str, dict[str, Any]] = {"rows": rows, "axes": axes, "rows or keys": {"anyOf": [rows, listed]}}
    for name, kind in KINDS.items():
        if name in properties:
            properties[name] = {**shapes[kind.shape], "description": kind.doc}
    if "StageFile" in definitions:
        definitions["StageFile"]["properties"]["recipe"] = overrides
    shared = {f"^{SHARED}": {"description": "Not read: a place for anchors that other keys merge in."}}
    return {**schema, "$schema": DIALECT, "patternProperties": shared, "$defs": definitions}


SCHEMAS: dict[str, Callable[[], dict[str, Any]]] = {
    "sweep": lambda: _with_recipes(SweepFile.model_json_schema(by_alias=True)),
    "profile": lambda: _with_recipes(ProfileFile.model_json_schema(by_alias=True)),
    "recipe": recipe_schema,
}
