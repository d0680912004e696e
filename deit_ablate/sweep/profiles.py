"""Profiles: base recipes in files of their own, and what a sweep file changes under one of them (``by_profile``)."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from deit_ablate import files
from deit_ablate.errors import Position, unknown_name
from deit_ablate.execution import Execution
from deit_ablate.recipe import Recipe
from deit_ablate.sweep.fields import OfProfile, ProfileFile, SweepFile
from deit_ablate.sweep.names import check_layer_names
from deit_ablate.sweep.overrides import PROFILES, check_layer, layer, to_recipe, validate
from deit_ablate.sweep.yaml import Node, assignments, expand_dotted, load

DECLARED = ("seeds", "margin")
"""What a profile changes of any sweep, beside its recipes."""

ByProfile = dict[str, Node]
"""Profile -> a mapping: ``recipe``, ``search``, a stage or a row -> overrides; ``seeds``, ``margin``, ``last_stage``
-> their value."""


@functools.lru_cache(maxsize=64)
def load_profile(name: str, beside: Path, where: Position) -> tuple[Node, Execution]:
    """A profile's recipe and execution: from ``profiles/`` beside the sweep, else from the package."""
    folders = [beside / PROFILES, files.shipped("sweeps") / PROFILES]
    known = sorted({path.stem for folder in folders for path in folder.glob("*.yaml")})
    if name not in known:
        raise unknown_name("no profile", name, known, where=where, key="profile")
    node = load(next(path for folder in folders if (path := folder / f"{name}.yaml").exists()))
    parsed = validate(ProfileFile, node)
    recipe = expand_dotted(node.part("recipe"))
    check_layer(recipe, prefix="recipe.")
    return recipe, parsed.execution


def profile(name: str, *sets: str) -> Recipe:
    """A profile's recipe, with what ``sets`` changes, each as ``--set`` has it: ``profile("digits",
    "schedule.epochs=5")``. Raises InputError for a profile, a key or a value that there is not."""
    base, _ = load_profile(name, Path(), ("profile", 0, 0))
    given = assignments(sets)
    check_layer(given)
    return to_recipe(layer(base, given))


def read_by_profile(node: Node, beside: Path) -> ByProfile:
    """A sweep file's ``by_profile``, dotted keys expanded. Raises InputError for a profile that does not exist."""
    whole, found = node.part("by_profile"), {}
    for profile, parts in whole.items():
        load_profile(profile, beside, whole.keys[profile])
        expanded = {key: part if key in OfProfile.model_fields else expand_dotted(part) for key, part in parts.items()}
        found[profile] = Node(expanded, parts.where, parts.keys)
    return found


def of_by_profile(node: Node) -> Sequence[str]:
    """The keys of a sweep file's ``by_profile`` that no row or stage may be called after; none where it has none."""
    return tuple(OfProfile.model_fields) if node.part("by_profile").value else ()


def with_profile(sweep: SweepFile, over: Node, profile: str | None) -> SweepFile:
    """A sweep file with what is declared of it anew under a profile (``over``). Raises InputError."""
    declared = over.without(*(name for name in over.value if name not in DECLARED))
    own = validate(OfProfile, declared, f"by_profile.{profile}.")
    return sweep.model_copy(update=own.model_dump(exclude_unset=True))


def check_by_profile(by_profile: ByProfile, rows: Sequence[str], stages: Sequence[str], searched: bool) -> None:
    """Raises InputError for what is no row, no stage and no other part, or has keys that these do not have."""
    known = [*rows, *stages, "recipe", *DECLARED]
    known += [*(["last_stage"] if stages else []), *(["search"] if searched else [])]
    for profile, parts in by_profile.items():
        for name, part in parts.items():
            if name not in known:
                raise parts.unknown(name, "no row or stage", name, known, under=f"by_profile.{profile}.")
            if name in OfProfile.model_fields:
                validate(OfProfile, Node({name: part}, parts.where, parts.keys), f"by_profile.{profile}.")
                continue
            whole, by_stage = split_stages(part, stages if name in rows else ())
            for own, prefix in [(whole, ""), *((child, f"{stage}.") for stage, child in by_stage.items())]:
                check_layer(own, prefix=f"by_profile.{profile}.{name}.{prefix}")
                check_layer_names(own, prefix=f"by_profile.{profile}.{name}.{prefix}")


def split_stages(row: Node, stages: Sequence[str]) -> tuple[Node, Mapping[str, Node]]:
    """A row's overrides, and those of its single stages."""
    by_stage = {stage: child for stage in stages if (child := row.get(stage)) is not None}
    return row.without(*by_stage), by_stage
