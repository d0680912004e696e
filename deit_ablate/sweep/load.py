"""``sweeps/x.yaml`` -> Sweep: what to vary, from which base, over which seeds and stages.

Every error carries file:line:column. Precedence of a recipe's layers, lowest first: Table 9, the profile,
``recipe``, ``--set``, the variant, ``by_profile``.
"""

from __future__ import annotations

import functools
import graphlib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from deit_ablate import shipped
from deit_ablate.errors import InputError, Position, did_you_mean
from deit_ablate.execution import Execution
from deit_ablate.recipe import BLOCKS
from deit_ablate.sweep.fields import NAME, RESERVED, ProfileFile, SearchFile, SweepFile
from deit_ablate.sweep.overrides import check_keys, layer, validate
from deit_ablate.sweep.rows import KINDS
from deit_ablate.sweep.space import Search, read_search
from deit_ablate.sweep.yaml import Node, assignment, expand_dotted, load, merge

CONFIRMED_SEEDS = 5
"""Seeds on which a search's winners are trained, where the file does not say."""


@dataclass(frozen=True)
class Stage:
    name: str
    overrides: Node
    teacher: str | None = None
    start: str | None = None
    weights: str = "last"
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Variant:
    """One named row: overrides of the recipe, overrides of single stages, and the figure it shows."""

    name: str
    where: Position
    overrides: Node
    by_stage: dict[str, Node] = field(default_factory=dict)
    shows: str | None = None


@dataclass(frozen=True)
class Sweep:
    name: str
    file: Path
    title: str
    description: str
    profile: str | None
    margin: float | None
    looks: tuple[int, ...] | None
    baseline: str | None
    base: Node
    """Profile, ``recipe`` and ``--set``, merged."""
    stages: tuple[Stage, ...]
    """In order of dependence, the final one last."""
    variants: tuple[Variant, ...]
    by_profile: dict[str, Node]
    """This profile's last word: variant or stage -> overrides."""
    execution: Execution
    kind: str
    search: Search | None = None

    def lineage(self) -> list[str]:
        """The stages that variants vary: the final one and those that it continues from."""
        by_name = {stage.name: stage for stage in self.stages}
        line = [self.stages[-1].name]
        while (before := by_name[line[-1]].start) is not None:
            line.append(before)
        return line[::-1]


def load_sweep(
    path: Path,
    *,
    profile: str | None = None,
    sets: Sequence[str] = (),
    seeds: int | None = None,
    name: str | None = None,
) -> Sweep:
    """Read a sweep file. Raises InputError with the place of the first thing that is wrong."""
    node = _with_profiles_search(load(path), profile)
    stem = _stem(path, name)
    own_profile = node.get("profile")
    parsed = validate(SweepFile, node)
    chosen = profile or parsed.profile
    base, execution = Node({}, node.where), Execution()
    if chosen:
        where = own_profile.where if own_profile and not profile else ("--profile", 0, 0)
        base, execution = load_profile(chosen, path.parent, where)
    overrides = {
        key: Node(
            {name: row if name == "search" else expand_dotted(row) for name, row in child.items()},
            child.where,
            child.keys,
        )
        for key, child in (node.get("by_profile") or Node({}, node.where)).items()
    }
    _check_profiles(node, overrides, path.parent)
    mine = overrides.get(chosen or "", Node({}, node.where))
    for extra in (node.get("recipe"), mine.get("recipe")):
        if extra is not None:
            extra = expand_dotted(extra)
            check_keys(extra, prefix="recipe.")
            base = layer(base, extra)
    own_seeds = parsed.seeds if parsed.search is None or "seeds" in parsed.model_fields_set else CONFIRMED_SEEDS
    stages = _stages(node, parsed, tuple(sorted({*_seeds(own_seeds), *range(seeds or 0)})))
    for text in sets:
        given = assignment(text)
        of_stage = next((stage.name for stage in stages if stage.name in given.value), None)
        if of_stage is None:
            check_keys(given)
            base = layer(base, given)
            continue
        check_keys(given.value[of_stage], prefix=f"{of_stage}.")
        stages = tuple(
            replace(stage, overrides=layer(stage.overrides, given.value[of_stage])) if stage.name == of_stage else stage
            for stage in stages
        )
    kind, variants = _variants(node, [stage.name for stage in stages])
    from_baseline = kind in KINDS and KINDS[kind].from_baseline
    baseline = parsed.baseline or ("baseline" if from_baseline else None)
    _check_baseline(node, baseline, variants)
    _check_by_profile(overrides, variants, stages, parsed.search is not None)
    mine, variants = _with_rows_stages(mine, variants, [stage.name for stage in stages])
    of_rows = {key: child for key, child in mine.items() if key not in ("recipe", "search")}
    if kind in KINDS and KINDS[kind].accumulates:
        variants, of_rows = _accumulated(variants, of_rows)
    given_execution = {key: getattr(parsed.execution, key) for key in parsed.execution.model_fields_set}
    return Sweep(
        name=_folder(stem, parsed.profile, profile, sets, name),
        file=path,
        title=parsed.title or stem,
        description=parsed.description,
        profile=chosen,
        margin=parsed.margin,
        looks=tuple(parsed.looks) if parsed.looks else None,
        baseline=baseline,
        base=base,
        stages=stages,
        variants=variants,
        by_profile=of_rows,
        execution=execution.model_copy(update=given_execution),
        kind=kind,
        search=read_search(node, parsed.search, [variant.name for variant in variants], stages[-1].seeds),
    )


def _with_profiles_search(node: Node, profile: str | None) -> Node:
    """The file with what ``by_profile`` says of the search under the profile that is chosen."""
    own = node.get("profile")
    chosen = profile or (own.value if own else None)
    by_profile = node.get("by_profile")
    mine = by_profile.get(chosen) if by_profile and isinstance(chosen, str) else None
    over, search = mine.get("search") if mine else None, node.get("search")
    if over is None or search is None:
        return node
    merged = merge(_with_dotted_spaces(search), _with_dotted_spaces(over))
    return Node({**node.value, "search": merged}, node.where, node.keys)


def _with_dotted_spaces(search: Node) -> Node:
    """A search's block whose keys of recipes are all nested, however they were written."""
    own = dict(search.items()) if isinstance(search.value, dict) else {}
    if isinstance(space := search.get("space"), Node) and isinstance(space.value, dict):
        own["space"] = expand_dotted(space)
    if isinstance(spaces := search.get("spaces"), Node) and isinstance(spaces.value, dict):
        rows = {row: expand_dotted(child) if isinstance(child.value, dict) else child for row, child in spaces.items()}
        own["spaces"] = Node(rows, spaces.where, spaces.keys)
    return Node(own, search.where, search.keys) if own else search


def _accumulated(
    variants: tuple[Variant, ...], by_profile: Mapping[str, Node]
) -> tuple[tuple[Variant, ...], dict[str, Node]]:
    """Rows on top of those before, each with what the profile makes of it; and what is left of ``by_profile``."""
    made: list[Variant] = []
    for variant in variants:
        below = made[-1] if made else None
        own = layer(variant.overrides, by_profile.get(variant.name))
        stages = dict(below.by_stage) if below else {}
        for stage, overrides in variant.by_stage.items():
            stages[stage] = layer(stages[stage], overrides) if stage in stages else overrides
        made.append(replace(variant, overrides=layer(below.overrides, own) if below else own, by_stage=stages))
    names = {variant.name for variant in variants}
    return tuple(made), {key: child for key, child in by_profile.items() if key not in names}


def _stem(path: Path, name: str | None) -> str:
    stem = name or path.stem
    where = ("--name", 0, 0) if name else (str(path), 0, 0)
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", stem):
        raise InputError(
            f"{stem!r} cannot name a folder of results", where=where, expected="letters, digits, '.', '_' and '-'"
        )
    if stem in RESERVED:
        raise InputError(f"{stem!r} is a folder of the store itself", where=where, expected="another name (--name)")
    return stem


def _folder(stem: str, own: str | None, profile: str | None, sets: Sequence[str], name: str | None) -> str:
    """``<stem>[@profile][+hash of --set]``: another study, another folder. A ``--name`` stands as it is."""
    if name:
        return name
    folder = f"{stem}@{profile}" if profile and profile != own else stem
    if sets:
        merged = functools.reduce(merge, map(assignment, sets)).plain()
        folder += "+" + hashlib.sha256(json.dumps(merged, sort_keys=True).encode()).hexdigest()[:6]
    return folder


def _seeds(given: int | Sequence[int]) -> tuple[int, ...]:
    return tuple(range(given)) if isinstance(given, int) else tuple(given)


@functools.lru_cache(maxsize=64)
def load_profile(name: str, beside: Path, where: Position) -> tuple[Node, Execution]:
    """A profile's recipe and execution: from ``profiles/`` beside the sweep, else from the package."""
    folders = [beside / "profiles", shipped.folder("sweeps") / "profiles"]
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    if name not in known:
        raise InputError(
            f"no profile {name!r}{did_you_mean(name, known)}",
            where=where,
            key="profile",
            expected="one of " + ", ".join(known),
        )
    node = load(next(path for folder in folders if (path := folder / f"{name}.yaml").exists()))
    parsed = validate(ProfileFile, node)
    recipe = expand_dotted(node.get("recipe") or Node({}, node.where))
    check_keys(recipe, prefix="recipe.")
    return recipe, parsed.execution


def _variants(node: Node, stages: Sequence[str]) -> tuple[str, tuple[Variant, ...]]:
    given = [kind for kind in KINDS if node.get(kind) is not None and node.value[kind].value is not None]
    if node.get("search") is not None and given != ["variants"]:
        if given:
            raise InputError(
                f"a search beside {given[0]}",
                where=node.keys[given[0]],
                key=given[0],
                expected="`variants`, each with a search of its own, or none",
            )
        return "search", (Variant("tuned", node.keys["search"], Node({}, node.keys["search"])),)
    if len(given) != 1:
        places = node.keys.get(given[1]) if given else node.where
        found = "none of them" if not given else " and ".join(given)
        raise InputError(f"{found} given", where=places, expected="exactly one of " + ", ".join([*KINDS, "search"]))
    kind = given[0]
    variants: dict[str, Variant] = {}
    for name, overrides, where in KINDS[kind].rows(node.value[kind]):
        if not re.fullmatch(NAME, name):
            raise InputError(
                f"{name!r} cannot name a row", where=where, key=kind, expected="letters, digits, spaces and . _ + = , -"
            )
        if name in (*stages, "recipe") and name:
            raise InputError(
                f"{name!r} names a stage or a block already", where=where, key=kind, expected="another name"
            )
        if name in variants:
            raise InputError(f"two rows are called {name!r}", where=where, key=kind, expected="different names")
        variants[name] = _variant(kind, name, overrides, where, stages)
    if not variants:
        raise InputError("an empty sweep", where=node.keys[kind], key=kind, expected="at least one row")
    return kind, tuple(variants.values())


def _variant(kind: str, name: str, overrides: Node, where: Position, stages: Sequence[str]) -> Variant:
    if not isinstance(overrides.value, dict):
        raise InputError(
            f"got {overrides.value!r}",
            where=overrides.where,
            key=f"{kind}.{name}",
            expected="a mapping of overrides, or {}",
        )
    overrides = expand_dotted(overrides)
    shows = overrides.get("shows")
    if shows is not None and shows.value not in ("class", "distillation", "ema"):
        raise InputError(
            f"got {shows.value!r}", where=shows.where, key=f"{kind}.{name}.shows", expected="class, distillation or ema"
        )
    by_stage = {stage: overrides.value[stage] for stage in stages if stage and overrides.get(stage) is not None}
    own = Node(
        {k: v for k, v in overrides.items() if k not in by_stage and k != "shows"}, overrides.where, overrides.keys
    )
    check_keys(own, extra=(), prefix=f"{kind}.{name}.")
    for stage, child in by_stage.items():
        check_keys(child, prefix=f"{kind}.{name}.{stage}.")
    return Variant(name, where, own, by_stage, shows.value if shows else None)


# -- stages, baseline, profiles ------------------------------------------------------------------------------------


def _stages(node: Node, parsed: SweepFile, seeds: tuple[int, ...]) -> tuple[Stage, ...]:
    """Stages in order of dependence, the final one last; a sweep without any has one without a name."""
    whole = node.get("stages")
    if not parsed.stages or whole is None:
        return (Stage("", Node({}, node.where), seeds=seeds),)
    found: dict[str, Stage] = {}
    for name, part in parsed.stages.items():
        place = whole.keys[name]
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,39}", name) or name in (*BLOCKS, "precision", "recipe", "shows"):
            raise InputError(
                f"{name!r} cannot name a stage",
                where=place,
                key="stages",
                expected="lower-case letters, digits, - and _; not a recipe's block",
            )
        for role, parent in (("teacher", part.teacher), ("from", part.from_)):
            if parent is not None and parent not in parsed.stages:
                hint = did_you_mean(parent, parsed.stages)
                raise InputError(
                    f"no stage {parent!r}{hint}",
                    where=whole.locate((name, role)),
                    key=f"stages.{name}.{role}",
                    expected="one of " + ", ".join(parsed.stages),
                )
        overrides = expand_dotted(whole.value[name].get("recipe") or Node({}, place))
        check_keys(overrides, prefix=f"stages.{name}.recipe.")
        own = _seeds(part.seeds) if part.seeds is not None else seeds
        found[name] = Stage(name, overrides, part.teacher, part.from_, part.weights, own)
    above = {stage.name: {parent for parent in (stage.teacher, stage.start) if parent} for stage in found.values()}
    try:
        order = list(graphlib.TopologicalSorter(above).static_order())
    except graphlib.CycleError as error:
        raise InputError(
            "the stages go in a circle: " + " -> ".join(error.args[1]), where=node.keys["stages"], key="stages"
        ) from None
    final = [name for name in found if not any(name in parents for parents in above.values())]
    if len(final) != 1:
        raise InputError(
            "the stages end in " + " and ".join(final),
            where=node.keys["stages"],
            key="stages",
            expected="one last stage, which the table shows",
        )
    for stage in found.values():
        for parent in above[stage.name]:
            missing = [seed for seed in stage.seeds if len(found[parent].seeds) > 1 and seed not in found[parent].seeds]
            if missing:
                raise InputError(
                    f"seed {missing[0]} of {stage.name} has no run of {parent}",
                    where=whole.keys[parent],
                    key=f"stages.{parent}.seeds",
                    expected="one seed, or the same ones",
                )
    for name in order:  # a stage that goes on from another keeps its teacher
        before = found.get(found[name].start or "")
        if before is not None and found[name].teacher is None:
            found[name] = replace(found[name], teacher=before.teacher)
    return (*(found[name] for name in order if name != final[0]), found[final[0]])


def _check_baseline(node: Node, baseline: str | None, variants: Sequence[Variant]) -> None:
    known = [variant.name for variant in variants]
    if baseline is not None and baseline not in known:
        place = node.value["baseline"].where if node.get("baseline") else node.where
        raise InputError(
            f"no row {baseline!r}{did_you_mean(baseline, known)}",
            where=place,
            key="baseline",
            expected="one of " + ", ".join(known[:20]),
        )


def _check_profiles(node: Node, overrides: dict[str, Node], beside: Path) -> None:
    whole = node.get("by_profile")
    for profile in overrides:
        load_profile(profile, beside, whole.keys[profile] if whole else node.where)


def _check_by_profile(
    overrides: dict[str, Node], variants: Sequence[Variant], stages: Sequence[Stage], searched: bool
) -> None:
    rows_ = [variant.name for variant in variants]
    known = [*rows_, *(stage.name for stage in stages if stage.name), "recipe", *(["search"] if searched else [])]
    for profile, rows in overrides.items():
        for name, child in rows.items():
            if name not in known:
                raise InputError(
                    f"no row or stage {name!r}{did_you_mean(name, known)}",
                    where=rows.keys.get(name, child.where),
                    key=f"by_profile.{profile}",
                    expected="one of " + ", ".join(known[:20]),
                )
            if name == "search":
                validate(SearchFile, child, ("by_profile", profile, name))
                continue
            of_stages = [stage.name for stage in stages if stage.name] if name in rows_ else []
            own = Node({key: part for key, part in child.items() if key not in of_stages}, child.where, child.keys)
            check_keys(own, prefix=f"by_profile.{profile}.{name}.")
            for stage in of_stages:
                if child.get(stage) is not None:
                    check_keys(child.value[stage], prefix=f"by_profile.{profile}.{name}.{stage}.")


def _with_rows_stages(
    mine: Node, variants: Sequence[Variant], stages: Sequence[str]
) -> tuple[Node, tuple[Variant, ...]]:
    """What this profile says of single stages of a row goes over what the row says of them."""
    rest, result = dict(mine.value), []
    for variant in variants:
        child = mine.get(variant.name)
        own = {stage: child.value[stage] for stage in stages if child and stage and child.get(stage) is not None}
        if child and own:
            left = {key: part for key, part in child.items() if key not in own}
            rest[variant.name] = Node(left, child.where, child.keys)
            above = {
                stage: layer(variant.by_stage.get(stage, Node({}, part.where)), part) for stage, part in own.items()
            }
            variant = replace(variant, by_stage={**variant.by_stage, **above})
        result.append(variant)
    return Node(rest, mine.where, mine.keys), tuple(result)
