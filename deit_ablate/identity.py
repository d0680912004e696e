"""What a recipe amounts to: its canonical form, the id of its run, and what follows from it without being written."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib
import json
import math
import sys
import sysconfig
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from deit_ablate.errors import TrainError
from deit_ablate.names import fact
from deit_ablate.recipe import BLOCKS, Block, Data, Distill, Recipe, flatten, known_train_images

SEMANTICS = 4
"""Raised by hand when the same recipe comes to mean another training: it is part of every id."""

ADDED_LATER: dict[str, Any] = {"data.test": True, "augment.custom": []}
"""Fields added after the first release, with the value that changes nothing: at it they are not hashed."""


@dataclass(frozen=True)
class Unread:
    """A key that the trainer does not read ``when`` other keys of its block, ``by``, have switched it off. In the
    canonical recipe it then holds ``value`` (``...``: the field's default), so that it splits no ids."""

    key: str
    by: tuple[str, ...]
    when: Callable[[Mapping[str, Any]], bool]
    """Of the block's values."""
    value: Any = ...

    @property
    def block(self) -> str:
        return self.key.partition(".")[0]

    @property
    def name(self) -> str:
        return self.key.partition(".")[2]

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether the key is not read beside these values of its block. An augmentation that a registry entry adds is
        given the whole block, so where one is on, all of it counts as read."""
        return values.keys() <= _FIELDS[self.block].keys() and self.when(values)


_FIELDS = {block: type(Recipe.model_fields[block].default).model_fields for block in BLOCKS}

UNREAD = (
    Unread("data.corrupt", ("name",), lambda data: not fact("datasets", data["name"], "files", True)),
    Unread("data.train_images", ("name", "validation"), lambda data: _takes_all_images(data)),
    *(
        Unread(f"augment.{name}", ("crop",), lambda augment: augment["crop"] != "random-resized")
        for name in ("crop_scale", "crop_ratio")
    ),
    Unread("augment.color_jitter", ("auto_augment",), lambda augment: augment["auto_augment"] is not None, 0),
    # No mixing has one spelling, whether by its probability or by both strengths.
    Unread("augment.mixup", ("mix_prob",), lambda augment: augment["mixup"] and not augment["mix_prob"], 0),
    Unread("augment.cutmix", ("mix_prob",), lambda augment: augment["cutmix"] and not augment["mix_prob"], 0),
    Unread("augment.mix_prob", ("mixup", "cutmix"), lambda augment: not augment["mixup"] and not augment["cutmix"]),
    Unread("augment.mix_switch", ("mix_prob",), lambda augment: not augment["mix_prob"]),
    Unread("augment.mix_switch", ("mixup",), lambda augment: not augment["mixup"]),
    Unread("augment.mix_switch", ("cutmix",), lambda augment: not augment["cutmix"]),
    # A strength of 0 is read whatever the switch: the other one then gets every batch.
    Unread("augment.mixup", ("mix_switch",), lambda augment: _both(augment) and augment["mix_switch"] == 1),
    Unread("augment.cutmix", ("mix_switch",), lambda augment: _both(augment) and augment["mix_switch"] == 0),
    Unread("regularize.smoothing_over", ("label_smoothing",), lambda regularize: not regularize["label_smoothing"]),
    Unread("schedule.warmup_lr", ("warmup_epochs",), lambda schedule: not schedule["warmup_epochs"]),
    *(
        Unread(f"distill.{name}", ("type",), lambda distill: not fact("distillations", distill["type"], "tau", True))
        for name in ("tau", "normalisation")
    ),
    *(
        Unread(
            f"distill.{name}", ("type",), lambda distill: not fact("distillations", distill["type"], "teacher", True)
        )
        for name in ("alpha", "teacher", "teacher_weights", "teacher_resolution")
    ),
)
"""In this order: a key that is not read any more may switch off a later one."""


def _takes_all_images(data: Mapping[str, Any]) -> bool:
    """Whether ``train_images`` is as many as there are, in a data set that no folder of the user's can make larger."""
    all_images = known_train_images(Data.model_construct(**{**data, "train_images": None}))
    fixed = not fact("datasets", data["name"], "files", True)
    return bool(fixed and all_images and (data["train_images"] or 0) >= all_images)


def _both(augment: Mapping[str, Any]) -> bool:
    return bool(augment["mixup"] and augment["cutmix"])


def unread(recipe: Recipe | Mapping[str, Any]) -> Iterator[Unread]:
    """Which keys of a recipe, or of a canonical one, are not read, and what switches each of them off."""
    for name in _RULED:
        block = recipe.get(name) if isinstance(recipe, Mapping) else getattr(recipe, name)
        if isinstance(block, Block):
            if id(block) not in _unread:
                _unread[id(block)] = (block, _unread_of(name, block.model_dump()))
            yield from _unread[id(block)][1]
        elif isinstance(block, Mapping):
            yield from _unread_of(name, block)


def _unread_of(name: str, values: Mapping[str, Any]) -> list[Unread]:
    return [rule for rule in UNREAD if rule.block == name and rule.holds(values)]


_RULED = tuple(dict.fromkeys(rule.block for rule in UNREAD))
# Remembered by object, which is held: the thousands of rows of a grid share their blocks.
_unread: dict[int, tuple[Block, list[Unread]]] = {}
_canonical: dict[int, tuple[Block, dict[str, Any]]] = {}
_json: dict[int, str] = {}


def canonical(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe as plain values: what is hashed, stored and shown."""
    return {
        **{block: canonical_block(getattr(recipe, block)) for block in BLOCKS},
        "precision": recipe.precision,
        "seed": recipe.seed,
    }


def canonical_block(block: Block) -> dict[str, Any]:
    """One block of the canonical recipe."""
    known = _canonical.get(id(block))
    if known is None:
        known = _canonical[id(block)] = (block, _resolved(block))
        name = next(name for name in BLOCKS if type(block) is type(Recipe.model_fields[name].default))
        _json[id(known[1])] = canonical_json(without_later({name: known[1]})[name])
    return known[1]


def _resolved(block: Block) -> dict[str, Any]:
    values = block.model_dump()
    for rule in UNREAD:
        if isinstance(block, type(Recipe.model_fields[rule.block].default)) and rule.holds(values):
            values[rule.name] = _FIELDS[rule.block][rule.name].default if rule.value is ... else rule.value
    if isinstance(block, Distill) and values["alpha"] is None:
        values["alpha"] = fact("distillations", values["type"], "alpha")
    if isinstance(block, Data) and values["id"] is None:
        values["id"] = values["name"]
    return normal(values)


def normal(value: Any) -> Any:
    """One spelling a number: 1.0 is 1, -0.0 is 0."""
    if isinstance(value, dict):
        return {str(key): normal(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [normal(child) for child in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


_encoder = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def canonical_json(value: Any) -> str:
    """Sorted, compact JSON of values that are canonical already."""
    return _encoder.encode(value)


def without_later(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The canonical recipe less the fields of ADDED_LATER that hold the value they were introduced with."""
    result = dict(recipe)
    for path, introduced in ADDED_LATER.items():
        block, _, name = path.partition(".")
        holder, last = (result.get(block, {}), name) if name else (result, block)
        if last in holder and holder[last] == normal(introduced):
            left = {key: value for key, value in holder.items() if key != last}
            result = {**result, block: left} if name else left
    return result


def run_id(
    recipe: Mapping[str, Any],
    parents: Mapping[str, Any],
    sources: Mapping[str, str] | None = None,
    semantics: int = SEMANTICS,
) -> str:
    """The id of a run: 16 hex digits of a SHA-256 over all that decides its outcome.

    ``recipe`` is canonical; ``parents`` maps a role (teacher, from) to {"run": id, "weights": "last" | "ema"};
    ``sources`` maps each module of the user's own code to the hash of its normalised code (``code_of``).
    """
    if not any(id(block) in _json for block in recipe.values()):  # one that was read: nothing of it is remembered
        identity = canonical_json(
            {"parents": parents, "recipe": without_later(recipe), "semantics": semantics, "sources": sources or {}}
        )
        return hashlib.sha256(identity.encode()).hexdigest()[:16]
    blocks = (
        f'"{key}":{_json.get(id(recipe[key])) or canonical_json(without_later({key: recipe[key]})[key])}'
        for key in sorted(recipe)
    )
    identity = (
        f'{{"parents":{canonical_json(parents)},"recipe":{{{",".join(blocks)}}},'
        f'"semantics":{semantics},"sources":{canonical_json(sources or {})}}}'
    )
    return hashlib.sha256(identity.encode()).hexdigest()[:16]


def semantics_of(run: str, stored: Mapping[str, Any]) -> int | None:
    """The SEMANTICS under which the content of a recipe.json gives this id; None where it belongs to another run.

    A recipe.json of an earlier version does not say it: one of the values until now must give the id.
    """
    written = stored.get("semantics")
    for semantics in range(SEMANTICS, 0, -1) if written is None else (written,):
        try:
            if run_id(stored["recipe"], stored["parents"], stored["sources"], semantics) == run:
                return int(semantics)
        except (AttributeError, KeyError, TypeError, ValueError):
            return None  # not the content of a recipe.json at all
    return None


def belongs(run: str, stored: Mapping[str, Any]) -> bool:
    """Whether the content of a recipe.json is that of the run with this id, under whatever SEMANTICS wrote it."""
    return semantics_of(run, stored) is not None


def difference(recipe: Mapping[str, Any], baseline: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Dotted key -> (value in the baseline, value here), where two canonical recipes or derived values differ.

    A key that is not read here is no difference.
    """
    same = {key for key, value in recipe.items() if value is baseline.get(key)}  # rows of a sweep share most blocks
    recipe, baseline = ({key: each[key] for key in each if key not in same} for each in (recipe, baseline))
    added = {key: normal(value) for key, value in ADDED_LATER.items()}  # which a record of an earlier version has not
    here, there = ({**added, **dict(flatten(each))} for each in (recipe, baseline))
    keys = dict.fromkeys([*there, *here])
    off = {rule.key for rule in unread(recipe)}
    changed = {
        key: (there.get(key), here.get(key)) for key in keys if there.get(key) != here.get(key) and key not in off
    }
    # An empty mapping that has got keys, or lost them, shows in those keys.
    return {key: pair for key, pair in changed.items() if not ({} in pair and None in pair)}


def derived(recipe: Recipe, train_images: int | None = None) -> dict[str, Any]:
    """What follows from a recipe without being written in it: what changes along with it undeclared.

    ``train_images`` is the size of the training part, for data sets whose size names.json does not know.
    Steps and samples are None where the size is not known. Shares are of batches.
    """
    mix, cut = recipe.augment.mixup > 0, recipe.augment.cutmix > 0
    cut_share = recipe.augment.mix_prob * (recipe.augment.mix_switch if mix and cut else float(cut))
    mix_share = recipe.augment.mix_prob * float(mix or cut) - cut_share
    batch = recipe.schedule.batch_size
    images = train_images if train_images is not None else known_train_images(recipe.data)
    steps = images // batch if images else None
    return {
        "effective_lr": recipe.optimizer.base_lr * batch / 512,
        "steps_per_epoch": steps,
        "total_steps": steps * recipe.schedule.epochs if steps else None,
        "warmup_steps": round(recipe.schedule.warmup_epochs * steps) if steps else None,
        "samples_seen": steps * batch * recipe.schedule.epochs if steps else None,
        "distinct_images_per_epoch": math.ceil(steps * batch / recipe.augment.repeats) if steps else None,
        "color_jitter": recipe.augment.color_jitter if recipe.augment.auto_augment is None else 0.0,
        "mixup_share": round(mix_share, 6),
        "cutmix_share": round(cut_share, 6),
        "loss": loss_name(recipe),
        "heads": fact("distillations", recipe.distill.type, "heads", 1),
    }


def loss_name(recipe: Recipe) -> str:
    if recipe.mixes:
        return "soft-target cross-entropy"
    return "label-smoothing cross-entropy" if recipe.regularize.label_smoothing else "cross-entropy"


# -- custom code -------------------------------------------------------------------------------------------------------


def code_of(name: str) -> dict[str, str]:
    """Module -> hash of its normalised code, for the module in ``module:function`` and all own code that it imports.

    Own code is the top-level package (or single module) that the module is in, and what lies in the same folder as
    that, unless packages are installed there. Import statements count wherever they stand, transitively, with the
    ``__init__`` of every package on the way; nothing is executed, so imports by a computed name are not seen. Comments,
    docstrings and formatting are no part of a hash; deit_ablate itself is not own code: SEMANTICS stands for it.
    Raises TrainError where there is no such module, it has no source file, or a file does not parse.
    """
    importlib.invalidate_caches()
    root = name.partition(":")[0]
    if (file := _file(root)) is None:
        problem = (
            "cannot find {!r}; install it, or add its folder to PYTHONPATH"
            if _spec(root) is None
            else "{!r} has no source file"
        )
        raise TrainError(f"{name}: {problem.format(root)}")
    top, found, waiting = root.partition(".")[0], {root: _hash_and_imports(root, *file)}, [root]
    while waiting:
        importer = waiting.pop()
        for module in (*_parents(importer), *found[importer][1]):
            if module not in found and _is_own(module, top) and (file := _file(module)) is not None:
                found[module] = _hash_and_imports(module, *file)
                waiting.append(module)
    return {module: found[module][0] for module in sorted(found)}


def defines(name: str) -> bool:
    """Whether the module of a ``module:function`` binds that name at its top; by its source, which is not executed.

    Raises TrainError as ``code_of`` does.
    """
    code_of(name)
    module, _, wanted = name.partition(":")
    file = _file(module)
    if file is None or not file[0].endswith(".py"):
        return True
    waiting: list[ast.AST] = [*ast.parse(Path(file[0]).read_bytes(), file[0]).body]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            bound = {node.name}  # what is within is not the module's
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            bound = {alias.asname or alias.name for alias in node.names}
        else:
            bound = {node.id} if isinstance(node, ast.Name) else set()
            waiting += ast.iter_child_nodes(node)
        if wanted in bound or "*" in bound:
            return True
    return False


def source_file(module: str) -> Path:
    """The file of a module. Raises TrainError where there is none."""
    if (file := _file(module)) is None:
        raise TrainError(f"cannot find the source of {module!r}")
    return Path(file[0])


def source_sha256(name: str) -> str:
    """The hash of a module's code as ``sources`` has it; for ``module:function``, that of the file, which earlier
    versions stored. Raises TrainError where there is no such source."""
    module = name.partition(":")[0]
    path = source_file(module)
    if ":" in name:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return _hash_and_imports(module, str(path), path.stat().st_mtime_ns, path.stat().st_size)[0]


def _parents(module: str) -> list[str]:
    parts = module.split(".")
    return [".".join(parts[:length]) for length in range(1, len(parts))]


def _is_own(module: str, top: str) -> bool:
    other = module.partition(".")[0]
    if "deit_ablate" in (top, other):
        return False
    return other == top or (_folder(other) == _folder(top) and not _installed(_folder(top)))


def _folder(top: str) -> Path | None:
    """The folder in which a top-level module or package lies."""
    spec = _spec(top)
    if spec is None:
        return None
    places = [*(spec.submodule_search_locations or ())] or ([spec.origin] if spec.has_location and spec.origin else [])
    return Path(places[0]).resolve().parent if places else None


def _installed(folder: Path | None) -> bool:
    known = (Path(sysconfig.get_path(which)).resolve() for which in ("stdlib", "platstdlib", "purelib", "platlib"))
    return folder is None or folder.name in ("site-packages", "dist-packages", "lib-dynload") or folder in known


def _spec(module: str) -> ModuleSpec | None:
    """As importlib.util.find_spec, which executes the packages that a module is in."""
    spec, path = None, None
    for name in (*_parents(module), module):
        finders = (finder for finder in sys.meta_path if hasattr(finder, "find_spec"))
        spec = next((found for finder in finders if (found := finder.find_spec(name, path))), None)
        if spec is None or (name != module and spec.submodule_search_locations is None):
            return None
        path = spec.submodule_search_locations
    return spec


def _file(module: str) -> tuple[str, int, int] | None:
    """The file of a module, with its time and size: what was read of it is remembered until one of them changes."""
    spec = _spec(module)
    if spec is None or not spec.has_location or spec.origin is None or not Path(spec.origin).is_file():
        return None
    facts = Path(spec.origin).stat()
    return spec.origin, facts.st_mtime_ns, facts.st_size


@functools.lru_cache(maxsize=4096)
def _hash_and_imports(module: str, path: str, modified: int, size: int) -> tuple[str, tuple[str, ...]]:
    content = Path(path).read_bytes()
    if not path.endswith(".py"):
        return hashlib.sha256(content).hexdigest(), ()  # an extension module
    try:
        tree = ast.parse(content, path)
        code = _code(tree)
    except (SyntaxError, ValueError, RecursionError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) and error.lineno else ""
        raise TrainError(f"{path}{line}: the source of {module} does not parse ({error})") from error
    package = module if Path(path).stem == "__init__" else module.rpartition(".")[0]
    return hashlib.sha256(code.encode()).hexdigest(), tuple(dict.fromkeys(_imports(tree, package)))


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    """The modules that import statements may name, with the packages they are in."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            named = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            named = [base, *(f"{base}.{alias.name}" for alias in node.names)] if base else []
        else:
            continue
        for name in named:
            yield from (*_parents(name), name)


def _code(part: Any) -> str:
    """Source code as a tree, less what has no effect. Not ast.dump or ast.unparse, which differ between versions."""
    if isinstance(part, ast.Constant):
        return f"{type(part.value).__name__} {part.value!r}"
    if isinstance(part, ast.AST):
        fields = ((name, child) for name, child in ast.iter_fields(part) if child is not None and child != [])
        return f"{type(part).__name__}({', '.join(f'{name}={_code(child)}' for name, child in fields)})"
    if isinstance(part, list):
        return f"[{', '.join(_code(child) for child in part if not _has_no_effect(child))}]"
    return repr(part)


def _has_no_effect(node: Any) -> bool:
    text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
    return text or isinstance(node, ast.Pass)
