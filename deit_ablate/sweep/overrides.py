"""From YAML with positions to validated objects: layers, and errors that point at the line."""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from deit_ablate import files
from deit_ablate.errors import InputError, Problems, did_you_mean, nearest
from deit_ablate.execution import hosts_only
from deit_ablate.identity import HUB, RUN_NAME
from deit_ablate.names import fact, names
from deit_ablate.recipe import BLOCKS, RESETS, Block, Recipe, fields_of
from deit_ablate.sweep.yaml import Node, dotted, merge, placed

PROFILES = "profiles"
"""The folder of profiles, beside a sweep file and in the package."""
FILES = {"distill": "teacher_weights", "data": "file", "model": "init"}
"""Block -> its field that names a file, beside those in options."""
Model = TypeVar("Model", bound=BaseModel)
Made = TypeVar("Made")


Complaint = tuple[tuple[str | int, ...], ErrorDetails]
"""A place in the user's file, and what pydantic says of it."""


def _refuse(error: ValidationError, node: Node, under: str, model: type[BaseModel]) -> None:
    """Raises InputError for all of pydantic's complaints, in the user's terms and at the user's lines."""
    problems = Problems()
    left: list[Complaint] = [(_place_of(each, node), each) for each in error.errors(include_url=False)]
    while left:
        place = left[0][0]
        of_first = [pair for pair in left if pair[0][: len(place)] == place]
        left = [pair for pair in left if pair[0][: len(place)] != place[: len(pair[0])]]  # none below it, or above
        problems.add(_input_error(of_first, node, under, model))
    problems.refuse()


def _input_error(of_first: Sequence[Complaint], node: Node, under: str, model: type[BaseModel]) -> InputError:
    """What is complained about at one place, and below it."""
    loc, first = max(of_first, key=lambda pair: len(pair[0]))  # of a value of several kinds, the kind that fits best
    if first["type"] == "extra_forbidden":
        return unknown_key(node, loc, list(_fields_at(model, loc[:-1])), under)
    if first["type"] == "missing" and isinstance(first["loc"][-1], str):
        return node.error(loc, f"the key {loc[-1]!r} is missing", under=under)
    missing = [each["loc"][-1] for place, each in of_first if place == loc and each["type"] == "missing"]
    expected = " or ".join(dict.fromkeys(_expected(each) for place, each in of_first if place == loc))
    if missing:  # the items that a list is too short for
        expected = f"{int(missing[-1]) + 1} items"
    given = first["input"]
    field = _fields_at(model, loc[:-1]).get(str(loc[-1])) if loc else None
    if given in _OFF and field is not None and type(None) in get_args(field.annotation):
        expected += "; null switches it off"
    shown = "a mapping" if isinstance(given, dict) else "a list" if isinstance(given, (list, tuple)) else _show(given)
    return node.error(loc, f"got {shown}", expected, under=under)


def _place_of(error: ErrorDetails, node: Node) -> tuple[str | int, ...]:
    """Where it is in the user's file: pydantic's place, without its names for the kinds that a value may be of."""
    found: list[str | int] = []
    for step in error["loc"]:
        value = node.value
        if step in value if isinstance(value, dict) else isinstance(value, list) and step in range(len(value)):
            found.append(step)
            node = value[step]
    missing_key = error["type"] == "missing" and isinstance(error["loc"][-1], str)
    return (*found, error["loc"][-1]) if missing_key else tuple(found)


def _expected(error: ErrorDetails) -> str:
    if error["type"] in ("model_type", "dict_type", "list_type", "tuple_type"):
        return "a list" if error["type"] in ("list_type", "tuple_type") else "a mapping"
    text = error["msg"].removeprefix("Value error, ").partition(" after validation")[0]
    return re.sub(r"^(Input|Value|String|Tuple|List|Dictionary)? ?should (be |match |have )?", "", text)


def _show(value: Any) -> str:
    text = hosts_only(json.dumps(value, allow_nan=True, default=str))
    return text if len(text) <= 60 else text[:57] + "..."


_OFF: tuple[Any, ...] = ("none", "None", "off", "no", "", 0, False)
"""What users write for the null that switches something off."""


def _fields_at(model: type[BaseModel], loc: tuple[str | int, ...]) -> dict[str, FieldInfo]:
    """The keys of the model at ``loc``; steps that are no field are keys of a mapping of models."""
    for step in loc:
        info = model.model_fields.get(str(step))
        if info is not None:
            model = _model_within(info.annotation) or model
    return {info.alias or name: info for name, info in model.model_fields.items()}


def _model_within(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(_model_within, get_args(annotation))), None)


def validate(model: type[Model], node: Node, under: str = "") -> Model:
    """The node, whose keys are ``under`` others, as a model. Raises InputError at the places of all that is wrong."""
    try:
        return model.model_validate(node.plain())
    except ValidationError as error:
        refused = error
    _refuse(refused, node, under, model)
    raise refused


_DEFAULTS: dict[str, Block] = {name: Recipe.model_fields[name].default for name in BLOCKS}
_known: dict[tuple[str, str, int], tuple[Node, Any]] = {}
_by_content: dict[tuple[str, str], Block] = {}


def _once(what: str, block: str, node: Node, make: Callable[[], Made]) -> Made:
    """What was made of a block's node, which rows share most of theirs of, before. Each is held with what was made: so
    no other one has its id."""
    key = (what, block, id(node))
    if key not in _known:
        _known[key] = (node, make())
    made: Made = _known[key][1]
    return made


def _validated(name: str, node: Node, under: str) -> Block:
    """One block of a recipe; equal blocks of a sweep's thousands of rows are validated once."""
    key = (name, json.dumps(node.plain(), sort_keys=True, default=str))
    if key not in _by_content:
        _by_content[key] = validate(type(_DEFAULTS[name]), node, under)
    return _by_content[key]


def files_named(node: Node) -> dict[str, Path]:
    """The files that a recipe names by path, a teacher's weights and in options: content ("sha256:<hex>") -> path."""
    return {content: path for block, own in node.items() for content, path in _with_hashes(block, own)[1].items()}


def _with_hashes(block: str, node: Node) -> tuple[Node, dict[str, Path]]:
    """A block with files named by content, and these."""

    def make() -> tuple[Node, dict[str, Path]]:
        found: dict[str, Path] = {}
        return _hashed(node, (block,), found), found

    return _once("files", block, node, make)


def _hashed(node: Node, above: tuple[str, ...], found: dict[str, Path]) -> Node:
    """The values below the recipe's keys ``above``, with the files that they name by path replaced by their hashes,
    for where a file lies is no part of a recipe; each is noted in ``found``. Raises InputError where one is missing or
    cannot be read."""
    if isinstance(node.value, dict):
        items = {key: _hashed(child, (*above, key), found) for key, child in node.items()}
        return Node(items, node.where, node.keys)
    if isinstance(node.value, list):
        return Node([_hashed(child, above, found) for child in node.value], node.where)
    path = named_path(node, above)
    if path is None:
        return node
    content = _content_of(path, node, "options" if "options" in above else dotted(above))
    found[content] = path
    return Node(content, node.where)


def named_path(node: Node, above: tuple[str, ...]) -> Path | None:
    """The path that the value at the recipe's keys ``above`` is, or None: that of ``FILES`` is one unless it is named
    by content; of options a text that looks like a path, and is one of a file.

    It is relative to the folder of the YAML file in which it is written; of ``--set``, to the working folder.
    """
    text = node.value
    if not isinstance(text, str):
        return None
    written_in, line, _ = node.where
    folder = Path(written_in).parent if line else Path()
    if len(above) == 2 and FILES.get(above[0]) == above[1]:
        elsewhere = above[0] == "model" and (text.startswith(HUB) or RUN_NAME.match(text))
        return None if elsewhere or text.startswith("sha256:") else folder / Path(text).expanduser()
    if "options" not in above or not re.search(r"[./~]", text) or "\0" in text:
        return None
    try:
        return path if (path := folder / Path(text).expanduser()).is_file() else None
    except (OSError, RuntimeError):  # longer than a path can be, or the home of a user who is none
        return None


def _content_of(path: Path, node: Node, key: str) -> str:
    problem = f"no such file: {path}"
    try:
        if path.is_file():
            facts = path.stat()
            return _content(str(path.resolve()), facts.st_mtime_ns, facts.st_size)
        if path.exists():
            problem = f"not a file: {path}"
    except OSError as error:
        problem = f"{path} cannot be read ({error.strerror})"
    weights = key in ("distill.teacher_weights", "model.init")
    expected = f"a {'checkpoint ' * weights}file{', timm:NAME or SWEEP:ROW:SEED' * (key == 'model.init')}"
    raise InputError(problem, where=node.where, key=key, expected=expected)


@functools.lru_cache(maxsize=1024)
def _content(path: str, modified: int, size: int) -> str:
    """The hash of a file's content, computed anew when its time or size has changed."""
    return f"sha256:{files.sha256(Path(path))}"


def check_layer(node: Node, extra: Iterable[str] = (), prefix: str = "") -> None:
    """Refuse keys that no recipe has, and values that they cannot have, in one layer by itself.

    It is not yet merged into others, so that what is overridden, or is for another profile, is checked as well.
    """
    known, problems = [*BLOCKS, "precision", *extra], Problems()
    with problems.at():
        _check_mapping(node, known, prefix)
    for block, child in node.items():
        with problems.at():
            if block in BLOCKS:
                _once("sound", block, child, partial(_check_block, block, child, f"{prefix}{block}."))
            elif block in known:
                validate(Recipe, Node({block: child}, node.where, node.keys), prefix)
    problems.refuse()


def _check_block(block: str, node: Node, prefix: str) -> None:
    problems, known, field = Problems(), list(fields_of(block)), FILES.get(block, "")
    with problems.at():
        _check_mapping(node, known, prefix)
    if (named := node.get(field)) is not None and named_path(named, (block, field)):
        node = node.without(field)  # a file that need not be on this machine
    if isinstance(node.value, dict):
        with problems.at():
            _validated(block, node.without(*(node.value.keys() - known)), prefix)
    problems.refuse()


def _check_mapping(node: Node, known: list[str], prefix: str) -> None:
    if not isinstance(node.value, dict):
        raise node.error((), f"got {_show(node.plain())}", "a mapping with some of " + ", ".join(known), under=prefix)
    problems = Problems()
    for name in (name for name in node.value if name not in known):
        problems.add(unknown_key(node, (name,), known, prefix))
    problems.refuse()


ELSEWHERE = {
    "lr": "optimizer.base_lr",
    "learning_rate": "optimizer.base_lr",
    "wd": "optimizer.weight_decay",
    "momentum": "optimizer.options.momentum",
    "betas": "optimizer.options.betas",
    "num_epochs": "schedule.epochs",
    "warmup": "schedule.warmup_epochs",
    "smoothing": "regularize.label_smoothing",
    "reprob": "augment.erasing",
    "ema": "regularize.ema_decay",
    "dim": "model.options.embed_dim",
    "width": "model.options.embed_dim",
    "embed_dim": "model.options.embed_dim",
    "depth": "model.options.depth",
    "layers": "model.options.depth",
    "heads": "model.options.num_heads",
    "num_heads": "model.options.num_heads",
    "patch_size": "model.options.patch_size",
    "seed": "seeds, at the top of the sweep",
    "seeds": "seeds, at the top of the sweep",
}
"""What other tools call a key of a recipe, or where they have it -> where it is here."""


def unknown_key(node: Node, path: Sequence[str | int], known: Sequence[str], under: str = "") -> InputError:
    """As ``Node.unknown``, for a key of a recipe, which may be known in another block, or by another name."""
    name = str(path[-1])
    error = node.unknown(path, "unknown key", name, known, under=under)
    fields = {field: f"{block}.{field}" for block in reversed(BLOCKS) for field in fields_of(block)}
    if name not in fields and nearest(name, known):
        return error
    close = difflib.get_close_matches(name, list(fields), n=1, cutoff=0.8)
    other = fields.get(name) or ELSEWHERE.get(name) or (fields[close[0]] if close else None)
    problem = f"unknown key {name!r}; did you mean {other!r}?" if other else error.problem
    return node.error(path, problem, error.expected, under=under, at_key=True)


def layer(lower: Node, upper: Node | None, base: Node | None = None) -> Node:
    """One layer of overrides over another; a block whose ``name`` changes loses what belonged to the old name.

    ``base``: what both lie over, where they are no whole recipe: it has the old name where ``lower`` has none.
    """
    if upper is None or not upper.value:
        return lower
    for block, resets in RESETS.items():
        name, below = upper.part(block).get("name"), lower.get(block)
        if name is None or below is None:
            continue
        default = _DEFAULTS[block].model_dump()["name"]
        before = below.get("name") or (base and base.part(block).get("name"))
        if name.value != (before.value if before else default):
            lower = Node({**lower.value, block: below.without(*resets)}, lower.where, lower.keys)
    return merge(lower, upper)


def disagreement(node: Node, keys: Sequence[str], problem: str, expected: str = "") -> InputError:
    """Keys of merged layers that do not go together: an error at the one that the user wrote in the most specific
    layer, which says where the others are written. Of those that are equal in this the first."""

    def place(key: str) -> tuple[int, ...]:
        file, line, column = node.locate(key.split("."))
        if not node.has(key.split(".")):
            return (0,)
        if line and Path(file).parent.name == PROFILES:
            return (1,)
        return (3, line, column) if line else (2,)  # --set is below the rows

    key = max(keys, key=place)
    written = [other for other in keys if other != key and node.has(other.split("."))]
    beside = [f"{other} in {InputError('', where=node.locate(other.split('.'))).place}" for other in written]
    text = f"{problem} (beside {', '.join(beside)})" if beside else problem
    return node.error(key.split("."), text, expected)


def to_recipe(node: Node) -> Recipe:
    """Validate merged layers as one recipe. Raises InputError at the line that is at fault."""
    check_layer(node, extra=("seed",))
    node = _with_default_rate(node)
    values: dict[str, Any] = dict(_DEFAULTS)
    for block in (block for block in BLOCKS if node.get(block) is not None):
        hashed = _with_hashes(block, node.value[block])[0]
        values[block] = _once("block", block, hashed, partial(_validated, block, hashed, f"{block}."))
    scalars = {key: child for key, child in node.items() if key not in BLOCKS}
    if scalars:
        parsed = validate(Recipe, Node(scalars, node.where, node.keys))
        values |= {"precision": parsed.precision, "seed": parsed.seed}
    recipe = Recipe.model_construct(**values)
    problems = Problems()
    for keys, problem, expected in recipe.check():
        problems.add(disagreement(node, keys, problem, expected))
    problems.refuse()
    return recipe


def _with_default_rate(node: Node) -> Node:
    """The recipe with the learning rate of an optimizer that is named without one, where it has a default."""
    optimizer = node.part("optimizer")
    name = optimizer.get("name")
    if name is None or name.value == "adamw" or optimizer.get("base_lr") is not None:
        return node
    known, text = names()["optimizers"], str(name.value)
    rate = fact("optimizers", text, "base_lr")
    if rate is None:
        hint = "" if text in known or ":" in text else did_you_mean(text, known)
        problem = f"{name.value!r} has no default learning rate, and another optimizer's is not used for it{hint}"
        raise InputError(problem, where=name.where, key="optimizer.base_lr", expected="base_lr beside the name")
    return merge(node, placed({"optimizer": {"base_lr": rate}}, name.where))
