"""``sweeps/x.yaml`` -> Sweep: what to vary, from which base, over which seeds and stages.

Every error carries file:line:column. Precedence of a recipe's layers, lowest first: Table 9, the profile,
``recipe``, ``--set``, the variant, ``by_profile``.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from deit_ablate.errors import InputError, unknown_name
from deit_ablate.execution import Execution
from deit_ablate.sweep.fields import NAME, RESERVED, SweepFile, is_stem
from deit_ablate.sweep.overrides import check_layer, layer, validate
from deit_ablate.sweep.profiles import check_by_profile, load_profile, read_by_profile, split_stages
from deit_ablate.sweep.rows import KINDS, Row
from deit_ablate.sweep.space import read_search
from deit_ablate.sweep.stages import Stage, read_stages, seed_list
from deit_ablate.sweep.sweep import Sweep, Variant
from deit_ablate.sweep.yaml import Node, assignment, expand_dotted, load, merge

CONFIRMED_SEEDS = 5
"""Seeds on which a search's winners are trained, where the file does not say."""


def load_sweep(
    path: Path,
    *,
    profile: str | None = None,
    sets: Sequence[str] = (),
    seeds: int | None = None,
    name: str | None = None,
) -> Sweep:
    """Read a sweep file. Raises InputError with the place of the first thing that is wrong."""
    node = load(path)
    stem = _stem(path, name)
    parsed = validate(SweepFile, node)
    chosen = profile or parsed.profile
    base, execution = Node({}, node.where), Execution()
    if chosen:
        where = ("--profile", 0, 0) if profile else node.locate(("profile",))
        base, execution = load_profile(chosen, path.parent, where)
    by_profile = read_by_profile(node, path.parent)
    over = by_profile.get(chosen or "", Node({}, node.where))

    if (recipe := node.get("recipe")) is not None:
        recipe = expand_dotted(recipe)
        check_layer(recipe, prefix="recipe.")
        base = layer(base, recipe)
    base = layer(base, over.get("recipe"))
    default_seeds = CONFIRMED_SEEDS if parsed.search and "seeds" not in parsed.model_fields_set else parsed.seeds
    all_seeds = tuple(sorted({*seed_list(default_seeds), *range(seeds or 0)}))
    stages = read_stages(node, parsed.stages, all_seeds, over.value)
    given_sets = tuple(map(assignment, sets))
    for given_set in given_sets:
        base, stages = _set(base, stages, given_set)

    kind = _kind(node)
    names = [stage.name for stage in stages if stage.name]
    variants = _variants(node, kind, names, over)
    rows = [variant.name for variant in variants]
    baseline = parsed.baseline or ("baseline" if kind in KINDS and KINDS[kind].from_baseline else None)
    if baseline is not None and baseline not in rows:
        raise unknown_name("no row", baseline, rows, where=node.locate(("baseline",)), key="baseline")
    check_by_profile(by_profile, rows, names, parsed.search is not None)
    for other in by_profile.values():
        read_search(node, other.get("search"), rows, stages[-1].seeds)
    given = {key: getattr(parsed.execution, key) for key in parsed.execution.model_fields_set}
    return Sweep(
        name=name or _folder(stem, profile if profile != parsed.profile else None, sets),
        file=path,
        base=base,
        stages=stages,
        variants=_accumulated(variants) if kind in KINDS and KINDS[kind].accumulates else variants,
        kind=kind,
        title=parsed.title or stem,
        profile=chosen,
        margin=parsed.margin,
        population=_population(node, parsed, baseline),
        looks=tuple(parsed.looks) if parsed.looks else None,
        baseline=baseline,
        baseline_seeds=None if parsed.baseline_seeds == "auto" else parsed.baseline_seeds,
        execution=execution.model_copy(update=given),
        search=read_search(node, over.get("search"), rows, stages[-1].seeds),
        sets=given_sets,
    )


def _population(node: Node, parsed: SweepFile, baseline: str | None) -> bool:
    problem = "looks are at the noise of training alone" if parsed.looks else "" if baseline else "there is no baseline"
    if parsed.population and problem:
        expected = "`population` without `looks`" if parsed.looks else "a baseline, with which rows are compared"
        where = node.locate(("population",))
        raise InputError(f"population: true, but {problem}", where=where, key="population", expected=expected)
    return parsed.population


def _stem(path: Path, name: str | None) -> str:
    stem = name or path.stem
    where = ("--name", 0, 0) if name else (str(path), 0, 0)
    if stem.lower() in RESERVED:
        raise InputError(f"{stem!r} is a folder of the store itself", where=where, expected="another name (--name)")
    if not is_stem(stem):
        raise InputError(
            f"{stem!r} cannot name a folder of results", where=where, expected="letters, digits, '.', '_' and '-'"
        )
    return stem


def _folder(stem: str, other_profile: str | None, sets: Sequence[str]) -> str:
    """``<stem>[@profile][+hash of --set]``: another study, another folder."""
    folder = f"{stem}@{other_profile}" if other_profile else stem
    if sets:
        merged = functools.reduce(merge, map(assignment, sets)).plain()
        folder += "+" + hashlib.sha256(json.dumps(merged, sort_keys=True).encode()).hexdigest()[:6]
    return folder


def _set(base: Node, stages: tuple[Stage, ...], given: Node) -> tuple[Node, tuple[Stage, ...]]:
    """One ``--set`` over the recipe of all rows, or over that of the stage with whose name its key begins."""
    stage = next((stage for stage in stages if stage.name in given.value), None)
    if stage is None:
        check_layer(given)
        return layer(base, given), stages
    part = given.value[stage.name]
    check_layer(part, prefix=f"{stage.name}.")
    changed = replace(stage, overrides=layer(stage.overrides, part))
    return base, tuple(changed if other is stage else other for other in stages)


# -- rows ----------------------------------------------------------------------------------------------------------


def _kind(node: Node) -> str:
    """The one kind of sweep that a file is; "search" for one that has no other rows."""
    given = [kind for kind in KINDS if node.get(kind) is not None and node.value[kind].value is not None]
    if node.get("search") is not None:
        if given not in ([], ["variants"]):
            raise InputError(
                f"a search beside {given[0]}",
                where=node.keys[given[0]],
                key=given[0],
                expected="`variants`, each of which is searched, or none",
            )
        return "variants" if given else "search"
    if len(given) != 1:
        place = node.keys.get(given[1]) if given else node.where
        found = " and ".join(given) or "none of them"
        key, expected = given[1] if given else "variants", "exactly one of " + ", ".join([*KINDS, "search"])
        raise InputError(f"{found} given", where=place, key=key, expected=expected)
    return given[0]


def _variants(node: Node, kind: str, stages: Sequence[str], over: Node) -> tuple[Variant, ...]:
    """The rows of the file, with what the profile changes about them (``over``)."""
    place = node.keys[kind]
    variants: dict[str, Variant] = {}
    for row in [("tuned", Node({}, place), place)] if kind == "search" else _rows(kind, node.value[kind]):
        name, _, where = row
        problem, expected = "", ""
        if not re.fullmatch(NAME, name):
            problem, expected = f"{name!r} cannot name a row", "letters, digits, spaces and . _ + = , -"
        elif name in (*stages, "recipe"):
            problem, expected = f"{name!r} is the name of a stage or a block", "another name"
        elif name in variants:
            problem, expected = f"two rows are called {name!r}", "different names"
        if problem:
            raise InputError(problem, where=where, key=kind, expected=expected)
        variants[name] = _variant(kind, row, stages, over.get(name))
    if not variants:
        raise InputError("an empty sweep", where=place, key=kind, expected="at least one row")
    return tuple(variants.values())


def _rows(kind: str, node: Node) -> Iterator[Row]:
    try:
        yield from KINDS[kind].rows(node)
    except InputError as error:
        key = f"{kind}.{error.key}" if error.key else kind
        raise InputError(error.problem, where=error.where, key=key, expected=error.expected) from None


def _variant(kind: str, row: Row, stages: Sequence[str], over: Node | None) -> Variant:
    name, overrides, where = row
    key = f"{kind}.{name}"
    if not isinstance(overrides.value, dict):
        problem = f"got {overrides.value!r}"
        raise InputError(problem, where=overrides.where, key=key, expected="a mapping of overrides, or {}")
    whole, by_stage = split_stages(expand_dotted(overrides), stages)
    shows = whole.get("shows")
    if shows is not None:
        if shows.value not in ("class", "distillation", "ema"):
            expected = "class, distillation or ema"
            raise InputError(f"got {shows.value!r}", where=shows.where, key=f"{key}.shows", expected=expected)
        whole = Node({name: part for name, part in whole.items() if name != "shows"}, whole.where, whole.keys)
    check_layer(whole, prefix=f"{key}.")
    for stage, part in by_stage.items():
        check_layer(part, prefix=f"{key}.{stage}.")
    if over is not None:
        over, above = split_stages(over, stages)
        by_stage = _over_stages(by_stage, above)
    return Variant(name, where, whole, over, by_stage, shows.value if shows else None)


def _over_stages(lower: Mapping[str, Node], upper: Mapping[str, Node]) -> dict[str, Node]:
    return {**lower, **{stage: layer(lower.get(stage, Node({}, part.where)), part) for stage, part in upper.items()}}


def _accumulated(variants: Sequence[Variant]) -> tuple[Variant, ...]:
    """Each row on top of those before, with what the profile makes of them."""
    made: list[Variant] = []
    for variant in variants:
        overrides = layer(variant.overrides, variant.by_profile)
        if made:
            below = made[-1]
            overrides = layer(below.overrides, overrides)
            variant = replace(variant, by_stage=_over_stages(below.by_stage, variant.by_stage))
        made.append(replace(variant, overrides=overrides, by_profile=None))
    return tuple(made)
