"""From YAML with positions to validated objects: layers, and errors that point at the line."""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from deit_ablate import files
from deit_ablate.errors import InputError, Position, Problems, did_you_mean, nearest, unknown_name
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


Complaint = tuple[tuple[str | int, ...], ErrorDetails]
"""A place in the user's file, and what pydantic says of it."""


def _refuse(error: ValidationError, node: Node, prefix: tuple[str | int, ...], model: type[BaseModel]) -> None:
    """Raises InputError for all of pydantic's complaints, in the user's terms and at the user's lines."""
    problems = Problems()
    left: list[Complaint] = [(_place_of(each, node), each) for each in error.errors(include_url=False)]
    while left:
        place = left[0][0]
        of_first = [pair for pair in left if pair[0][: len(place)] == place]
        left = [pair for pair in left if pair[0][: len(place)] != place[: len(pair[0])]]  # none below it, or above
        with problems.at():
            raise _input_error(of_first, node, prefix, model)
    problems.refuse()


def _input_error(
    of_first: Sequence[Complaint], node: Node, prefix: tuple[str | int, ...], model: type[BaseModel]
) -> InputError:
    """What is complained about at one place, and below it."""
    loc, first = max(of_first, key=lambda pair: len(pair[0]))  # of a value of several kinds, the kind that fits best
    key = dotted((*prefix, *loc))
    if first["type"] == "extra_forbidden":
        place = node.locate(loc, at_key=True)
        return unknown_key(str(loc[-1]), list(_fields_at(model, loc[:-1])), where=place, key=key)
    if first["type"] == "missing" and isinstance(first["loc"][-1], str):
        return InputError(f"the key {loc[-1]!r} is missing", where=node.locate(loc[:-1]), key=key)
    missing = [each["loc"][-1] for place, each in of_first if place == loc and each["type"] == "missing"]
    expected = " or ".join(dict.fromkeys(_expected(each) for place, each in of_first if place == loc))
    if missing:  # the items that a list is too short for
        expected = f"{int(missing[-1]) + 1} items"
    given = first["input"]
    field = _fields_at(model, loc[:-1]).get(str(loc[-1])) if loc else None
    if given in _OFF and field is not None and type(None) in get_args(field.annotation):
        expected += "; null switches it off"
    shown = "a mapping" if isinstance(given, dict) else "a list" if isinstance(given, (list, tuple)) else _show(given)
    return InputError(f"got {shown}", where=node.locate(loc), key=key, expected=expected)


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


def validate(model: type[Model], node: Node, prefix: tuple[str | int, ...] = ()) -> Model:
    """The node as a model. Raises InputError at the place of the first thing that is wrong."""
    values = node.plain()
    if isinstance(values, dict):  # pydantic's strict mode takes tuples for tuple fields, and YAML has lists
        pairs = {key: tuple(values[key]) for key in ("crop_scale", "crop_ratio") if isinstance(values.get(key), list)}
        values = {**values, **pairs}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        refused = error
    _refuse(refused, node, prefix, model)
    raise refused


_DEFAULTS: dict[str, Block] = {name: Recipe.model_fields[name].default for name in BLOCKS}
_by_node: dict[tuple[str, int], tuple[Node, Block]] = {}
"""By block and the id of a node, with the node: while it is held, no other one has its id. The next two likewise."""
_files: dict[tuple[str, int], tuple[Node, dict[str, Path]]] = {}
_sound: dict[tuple[str, int], Node] = {}
"""Blocks that ``check_layer`` has found sound: rows share most of theirs."""
_by_content: dict[tuple[str, str], Block] = {}


def _block(name: str, node: Node | None) -> Block:
    """One block of a recipe; equal blocks of a sweep's thousands of rows are validated once."""
    if node is None:
        return _DEFAULTS[name]
    if (name, id(node)) not in _by_node:
        _by_node[name, id(node)] = (node, _validated(name, _hashed(node, (name,), {}), (name,)))
    return _by_node[name, id(node)][1]


def _validated(name: str, node: Node, prefix: tuple[str, ...]) -> Block:
    key = (name, json.dumps(node.plain(), sort_keys=True, default=str))
    if key not in _by_content:
        _by_content[key] = validate(type(_DEFAULTS[name]), node, prefix)
    return _by_content[key]


def files_named(node: Node) -> dict[str, Path]:
    """The files that a recipe names by path, a teacher's weights and in options: content ("sha256:<hex>") -> path."""
    found: dict[str, Path] = {}
    for name, block in node.items():
        if (name, id(block)) not in _files:
            own: dict[str, Path] = {}
            _hashed(block, (name,), own)
            _files[name, id(block)] = (block, own)
        found |= _files[name, id(block)][1]
    return found


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
    if node.get("seed") is not None and "seed" not in known:
        place, expected = node.locate(("seed",), at_key=True), "`seeds:` at the top of the sweep"
        with problems.at():
            raise InputError("a row cannot set the seed", where=place, key=f"{prefix}seed", expected=expected)
        node = node.without("seed")
    with problems.at():
        _check_mapping(node, known, prefix)
    for block, child in node.items() if isinstance(node.value, dict) else ():
        with problems.at():
            if block in BLOCKS:
                _check_block(block, child, prefix)
            elif block in known:
                validate(Recipe, Node({block: child}, node.where, node.keys), tuple(prefix.split(".")[:-1]))
    problems.refuse()


def _check_block(block: str, node: Node, prefix: str) -> None:
    if (block, id(node)) in _sound:
        return
    problems, whole, known = Problems(), node, list(fields_of(block))
    with problems.at():
        _check_mapping(node, known, f"{prefix}{block}.")
    if isinstance(node.value, dict):
        field = FILES.get(block, "")
        named = node.get(field) if field else None
        if named is not None and named_path(named, (block, field)):  # a file that need not be on this machine
            node = node.without(field)
        with problems.at():
            _validated(block, node.without(*(node.value.keys() - known)), (*prefix.split(".")[:-1], block))
    problems.refuse()
    _sound[block, id(whole)] = whole


def _check_mapping(node: Node, known: list[str], prefix: str) -> None:
    if not isinstance(node.value, dict):
        expected = "a mapping with some of " + ", ".join(known)
        raise InputError(f"got {_show(node.plain())}", where=node.where, key=prefix.rstrip("."), expected=expected)
    problems = Problems()
    for name in node.value:
        if name not in known:
            with problems.at():
                raise unknown_key(name, known, where=node.locate((name,), at_key=True), key=f"{prefix}{name}")
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
    "seeds": "seeds, at the top of the sweep",
}
"""What other tools call a key of a recipe, or where they have it -> where it is here."""


def unknown_key(name: str, known: Sequence[str], *, where: Position, key: str) -> InputError:
    """As ``unknown_name``, for a key of a recipe, which may be known in another block, or by another name."""
    elsewhere = [f"{block}.{name}" for block in BLOCKS if name in fields_of(block)]
    other = elsewhere[0] if elsewhere else None if nearest(name, known) else ELSEWHERE.get(name)
    if other is None and not nearest(name, known):
        all_fields = {field: block for block in BLOCKS for field in fields_of(block)}
        close = difflib.get_close_matches(name, list(all_fields), n=1, cutoff=0.8)
        other = f"{all_fields[close[0]]}.{close[0]}" if close else None
    error = unknown_name("unknown key", name, known, where=where, key=key)
    if other is None:
        return error
    return InputError(f"unknown key {name!r}; did you mean {other!r}?", where=where, key=key, expected=error.expected)


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
    return InputError(text, where=node.locate(key.split(".")), key=key, expected=expected)


def to_recipe(node: Node) -> Recipe:
    """Validate merged layers as one recipe. Raises InputError at the line that is at fault."""
    check_layer(node, extra=("seed",))
    node = _with_default_rate(node)
    values: dict[str, Any] = {block: _block(block, node.get(block)) for block in BLOCKS}
    scalars = {key: child for key, child in node.items() if key not in BLOCKS}
    if scalars:
        parsed = validate(Recipe, Node(scalars, node.where, node.keys))
        values |= {"precision": parsed.precision, "seed": parsed.seed}
    recipe = Recipe.model_construct(**values)
    problems = Problems()
    for keys, problem, expected in recipe.check():
        with problems.at():
            raise disagreement(node, keys, problem, expected)
    problems.refuse()
    return recipe


def _with_default_rate(node: Node) -> Node:
    """The recipe with the learning rate of an optimizer that is named without one, where it has a default."""
    optimizer = node.get("optimizer")
    name = optimizer.get("name") if optimizer else None
    if optimizer is None or name is None or name.value == "adamw" or optimizer.get("base_lr") is not None:
        return node
    known, text = names()["optimizers"], str(name.value)
    rate = fact("optimizers", text, "base_lr")
    if rate is None:
        hint = "" if text in known or ":" in text else did_you_mean(text, known)
        problem = f"{name.value!r} has no default learning rate, and another optimizer's is not used for it{hint}"
        raise InputError(problem, where=name.where, key="optimizer.base_lr", expected="base_lr beside the name")
    return merge(node, placed({"optimizer": {"base_lr": rate}}, name.where))
