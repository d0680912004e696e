"""From YAML with positions to validated objects: layers, and errors that point at the line."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

from deit_ablate import files
from deit_ablate.errors import InputError, did_you_mean
from deit_ablate.names import fact, names
from deit_ablate.recipe import BLOCKS, RESETS, Block, Recipe, fields_of
from deit_ablate.sweep.yaml import Node, merge

Model = TypeVar("Model", bound=BaseModel)


def dotted(path: Iterable[str | int]) -> str:
    return ".".join(str(step) for step in path)


def _input_error(
    error: ValidationError, node: Node, prefix: tuple[str | int, ...], model: type[BaseModel]
) -> InputError:
    """The first of pydantic's complaints, in the user's terms and at the user's line."""
    first = error.errors(include_url=False)[0]
    loc = tuple(step for step in first["loc"] if not (isinstance(step, str) and step.startswith("function-")))
    unknown = first["type"] == "extra_forbidden"
    key = dotted((*prefix, *loc))
    if unknown:
        known = _fields_at(model, loc[:-1])
        return InputError(
            f"unknown key {loc[-1]!r}{did_you_mean(str(loc[-1]), known)}",
            where=node.locate(loc, at_key=True),
            key=key,
            expected="one of " + ", ".join(known),
        )
    if first["type"] == "missing":
        return InputError(f"the key {loc[-1]!r} is missing", where=node.locate(loc[:-1]), key=key)
    message = first["msg"].removeprefix("Value error, ")
    message = re.sub(r"^(Input|Value|String|Tuple|List|Dictionary)? ?should (be |match |have )?", "", message)
    if first["type"] in ("model_type", "dict_type"):
        message = "a mapping"
    given = first["input"]
    shown = "a mapping" if isinstance(given, dict) else "a list" if isinstance(given, (list, tuple)) else _show(given)
    return InputError(f"got {shown}", where=node.locate(loc), key=key, expected=message)


def _show(value: Any) -> str:
    text = json.dumps(value, allow_nan=True, default=str)
    return text if len(text) <= 60 else text[:57] + "..."


def _fields_at(model: type[BaseModel], loc: tuple[str | int, ...]) -> list[str]:
    """The keys of the model at ``loc``; steps that are no field are keys of a mapping of models."""
    for step in loc:
        info = model.model_fields.get(str(step))
        if info is not None:
            model = _model_within(info.annotation) or model
    return [info.alias or name for name, info in model.model_fields.items()]


def _model_within(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_within, get_args(annotation))), None)


def validate(model: type[Model], node: Node, prefix: tuple[str | int, ...] = ()) -> Model:
    """The node as a model. Raises InputError at the place of the first thing that is wrong."""
    try:
        return model.model_validate(_tuples(node.plain()))
    except ValidationError as error:
        raise _input_error(error, node, prefix, model) from None


def _tuples(value: Any) -> Any:
    """Pydantic's strict mode takes tuples for tuple fields; YAML only has lists."""
    if isinstance(value, dict):
        return {
            key: tuple(child) if key in ("crop_scale", "crop_ratio") and isinstance(child, list) else child
            for key, child in value.items()
        }
    return value


_DEFAULTS: dict[str, Block] = {name: Recipe.model_fields[name].default for name in BLOCKS}
_by_node: dict[int, tuple[Node, Block]] = {}
_by_content: dict[tuple[str, str], Block] = {}


def _block(name: str, node: Node | None) -> Block:
    """One block of a recipe; equal blocks of a sweep's thousands of rows are validated once."""
    if node is None:
        return _DEFAULTS[name]
    if id(node) not in _by_node:
        given = _with_weights_by_content(node) if name == "distill" else node
        key = (name, json.dumps(given.plain(), sort_keys=True, default=str))
        if key not in _by_content:
            _by_content[key] = validate(type(_DEFAULTS[name]), given, (name,))
        _by_node[id(node)] = (node, _by_content[key])
    return _by_node[id(node)][1]


_weights: dict[str, Path] = {}


def weights_file(sha256: str) -> Path | None:
    """Where a weights file of this content was found, for one that a recipe resolved here gave by its path."""
    return _weights.get(sha256)


def _with_weights_by_content(distill: Node) -> Node:
    """The block with ``teacher_weights: <path>`` replaced by its content's hash: where a file lies is no part of a recipe.

    A path is relative to the folder of the YAML file in which it stands; of ``--set``, to the working folder.
    Raises InputError where there is no such file, or it cannot be read.
    """
    given = distill.get("teacher_weights")
    if given is None or not isinstance(given.value, str) or given.value.startswith("sha256:"):
        return distill
    written_in, line, _ = given.where
    path = (Path(written_in).parent if line else Path()) / Path(given.value).expanduser()
    try:
        if not path.is_file():
            problem = "is no file" if path.exists() else "no such file"
            raise InputError(
                f"{problem}: {path}", where=given.where, key="distill.teacher_weights", expected="a checkpoint file"
            )
        facts = path.stat()
        sha256 = _content(str(path.resolve()), facts.st_mtime_ns, facts.st_size)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror})",
            where=given.where,
            key="distill.teacher_weights",
            expected="a checkpoint file",
        ) from None
    _weights[sha256] = path
    return Node({**distill.value, "teacher_weights": Node(sha256, given.where)}, distill.where, distill.keys)


@functools.lru_cache(maxsize=1024)
def _content(path: str, modified: int, size: int) -> str:
    """The hash of a file's content, computed anew when its time or size has changed."""
    return f"sha256:{files.sha256(Path(path))}"


def check_keys(node: Node, extra: Iterable[str] = (), prefix: str = "") -> None:
    """Refuse keys that no recipe has, in one layer by itself (before it is merged into others)."""
    known = [*BLOCKS, "precision", *extra]
    if not isinstance(node.value, dict):
        raise InputError(
            f"got {_show(node.plain())}", where=node.where, key=prefix.rstrip("."), expected="a mapping of recipe keys"
        )
    for key, child in node.items():
        place = node.keys.get(key, child.where)
        if key == "seed" and "seed" not in known:
            raise InputError(
                "a row has no seed of its own",
                where=place,
                key=prefix + key,
                expected="`seeds:` at the top of the sweep",
            )
        if key not in known:
            hint = did_you_mean(key, known)
            raise InputError(
                f"unknown key {key!r}{hint}", where=place, key=prefix + key, expected="one of " + ", ".join(known)
            )
        if key in BLOCKS:
            fields = list(fields_of(key))
            if not isinstance(child.value, dict):
                raise InputError(
                    f"got {_show(child.plain())}",
                    where=child.where,
                    key=prefix + key,
                    expected="a mapping with some of " + ", ".join(fields),
                )
            for name, value in child.items():
                if name not in fields:
                    raise InputError(
                        f"unknown key {name!r}{did_you_mean(name, fields)}",
                        where=child.keys.get(name, value.where),
                        key=f"{prefix}{key}.{name}",
                        expected="one of " + ", ".join(fields),
                    )


def layer(lower: Node, upper: Node | None) -> Node:
    """One layer of overrides over another; a block whose ``name`` changes loses what belonged to the old name."""
    if upper is None or not upper.value:
        return lower
    for block, resets in RESETS.items():
        over, below = upper.get(block), lower.get(block)
        name = over.get("name") if over else None
        if name is None or below is None:
            continue
        default = _DEFAULTS[block].model_dump()["name"]
        before = below.get("name")
        if name.value != (before.value if before else default):
            kept = {key: child for key, child in below.items() if key not in resets}
            lower = Node({**lower.value, block: Node(kept, below.where, below.keys)}, lower.where, lower.keys)
    return merge(lower, upper)


def to_recipe(node: Node, seed: int | None = None) -> Recipe:
    """Validate merged layers as one recipe. Raises InputError at the line that is at fault."""
    check_keys(node, extra=("seed",))
    optimizer = node.get("optimizer")
    name = optimizer.get("name") if optimizer else None
    if optimizer and name and name.value != "adamw" and optimizer.get("base_lr") is None:
        rate, known = fact("optimizers", str(name.value), "base_lr"), names()["optimizers"]
        if rate is None:
            meant = "" if str(name.value) in known or ":" in str(name.value) else did_you_mean(str(name.value), known)
            raise InputError(
                f"{name.value!r} comes without a learning rate (another optimizer's is not taken over){meant}",
                where=name.where,
                key="optimizer.base_lr",
                expected="base_lr beside the name",
            )
        node = merge(node, Node({"optimizer": Node({"base_lr": Node(rate, name.where)}, name.where)}, name.where))
    values: dict[str, Any] = {block: _block(block, node.get(block)) for block in BLOCKS}
    precision, given = node.get("precision"), node.get("seed")
    if precision is not None or given is not None:
        rest = Node({key: child for key, child in node.items() if key not in BLOCKS}, node.where, node.keys)
        scalars = validate(Recipe, rest)
        values |= {"precision": scalars.precision, "seed": scalars.seed}
    recipe = Recipe.model_construct(**values)
    recipe = with_seed(recipe, seed) if seed is not None else recipe
    for key, problem, expected in recipe.check():
        raise InputError(problem, where=node.locate(key.split(".")), key=key, expected=expected)
    return recipe


def with_seed(recipe: Recipe, seed: int) -> Recipe:
    return recipe.model_copy(update={"seed": seed})
