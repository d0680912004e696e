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
from collections.abc import Iterator, Mapping
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from deit_ablate.errors import TrainError
from deit_ablate.names import fact, names
from deit_ablate.recipe import BLOCKS, Block, Data, Distill, Recipe, Regularize, flatten, known_train_images

SEMANTICS = 2
"""Raised by hand when the same recipe comes to mean another training: it is part of every id."""

ADDED_LATER: dict[str, Any] = {"data.test": True, "augment.custom": []}
"""Fields added after the first release, with the value that changes nothing: at it they are not hashed."""

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
    """One block of the canonical recipe. Remembered by object: the thousands of rows of a grid share their blocks."""
    known = _canonical.get(id(block))
    if known is None:
        known = _canonical[id(block)] = (block, _resolved(block))
        name = next(name for name in BLOCKS if type(block) is type(Recipe.model_fields[name].default))
        _json[id(known[1])] = canonical_json(without_later({name: known[1]})[name])
    return known[1]


def _resolved(block: Block) -> dict[str, Any]:
    values = block.model_dump()
    if isinstance(block, Distill):
        _resolve_distill(values)
    if isinstance(block, Regularize) and not values["label_smoothing"]:
        values["smoothing_over"] = Regularize.model_fields["smoothing_over"].default
    if isinstance(block, Data) and values["id"] is None:
        values["id"] = values["name"]
    return normal(values)


def _resolve_distill(values: dict[str, Any]) -> None:
    """Fill in the type's own alpha; what a type does not read is set to one value, so that it splits no ids."""
    known = names()["distillations"].get(values["type"])
    if known is None:
        return
    if values["alpha"] is None or not known["teacher"]:
        values["alpha"] = known["alpha"]
    read = ["tau", "normalisation"] if known["tau"] else []
    read += ["teacher", "teacher_weights", "teacher_resolution"] if known["teacher"] else []
    for name in ("tau", "normalisation", "teacher", "teacher_weights", "teacher_resolution"):
        if name not in read:
            values[name] = Distill.model_fields[name].default


def normal(value: Any) -> Any:
    """One spelling a number: 1.0 is 1, -0.0 is 0."""
    if isinstance(value, dict):
        return {str(key): normal(child) for key, child in value.items()}
    if isinstance(value, (list, tuple)):
        return [normal(child) for child in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value


def canonical_json(value: Any) -> str:
    """Sorted, compact JSON of values that are canonical already."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def without_later(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The canonical recipe less the fields of ADDED_LATER that hold the value they were introduced with."""
    result = {key: dict(value) if isinstance(value, dict) else value for key, value in recipe.items()}
    for path, introduced in ADDED_LATER.items():
        block, _, name = path.partition(".")
        holder, last = (result.get(block, {}), name) if name else (result, block)
        if holder.get(last) == normal(introduced):
            holder.pop(last, None)
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
    """Dotted key -> (value in the baseline, value here), where two canonical recipes or derived values differ."""
    added = {key: normal(value) for key, value in ADDED_LATER.items()}  # which a record of an earlier version has not
    here, there = ({**added, **dict(flatten(each))} for each in (recipe, baseline))
    keys = dict.fromkeys([*there, *here])
    changed = {key: (there.get(key), here.get(key)) for key in keys if there.get(key) != here.get(key)}
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
        problem = "cannot find {!r}; install it, or add its folder to PYTHONPATH" if _spec(root) is None else "{!r} has no source file"
        raise TrainError(f"{name}: {problem.format(root)}")
    top, found, waiting = root.partition(".")[0], {root: _hash_and_imports(root, *file)}, [root]
    while waiting:
        importer = waiting.pop()
        for module in (*_parents(importer), *found[importer][1]):
            if module not in found and _is_own(module, top) and (file := _file(module)) is not None:
                found[module] = _hash_and_imports(module, *file)
                waiting.append(module)
    return {module: found[module][0] for module in sorted(found)}


def source_sha256(name: str) -> str:
    """The hash of a module's code as ``sources`` has it; for ``module:function``, that of the file, which earlier
    versions stored. Raises TrainError where there is no such source."""
    module = name.partition(":")[0]
    if (file := _file(module)) is None:
        raise TrainError(f"{name}: cannot find the source of {module!r}")
    if ":" in name:
        return hashlib.sha256(Path(file[0]).read_bytes()).hexdigest()
    return _hash_and_imports(module, *file)[0]


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
