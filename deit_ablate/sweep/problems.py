"""All that is wrong in a sweep file, where a first thing was found: for one message with everything, not one a try."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deit_ablate.errors import InputError, Problems
from deit_ablate.sweep.fields import SweepFile
from deit_ablate.sweep.names import check_layer_names
from deit_ablate.sweep.overrides import check_layer, validate
from deit_ablate.sweep.profiles import split_stages
from deit_ablate.sweep.rows import KINDS
from deit_ablate.sweep.yaml import Node, expand_dotted, load


def refuse_all(path: Path, first: InputError) -> None:
    """Raises InputError: ``first``, and with it what is wrong elsewhere in the file whatever the first thing means.

    Only single values and keys are looked at, not how layers go together, which needs all of them to be sound. Of a
    sweep of a program the parameters are not looked at.
    """
    problems = Problems()
    with problems.at():
        raise first
    if first.where is None or first.where[0] != str(path) or not first.where[1]:
        problems.refuse()
    node = load(path)
    with problems.at():
        validate(SweepFile, node)
    if node.get("command") is None and node.get("trainer") is None:
        for layer, prefix in _layers(node, problems):
            with problems.at():
                check_layer(layer, prefix=prefix)
                check_layer_names(layer, prefix=prefix)
    problems.refuse()


def _layers(node: Node, problems: Problems) -> Iterator[tuple[Node, str]]:
    """The layers of a recipe that a file has, in its order, each with what stands before its keys."""
    staged, recipe = node.get("stages"), node.get("recipe")
    stages = list(staged.value) if staged is not None and _is_mapping(staged) else []
    if recipe is not None and _is_mapping(recipe):
        with problems.at():
            yield expand_dotted(recipe), "recipe."
    for kind in KINDS:
        part = node.get(kind)
        if part is None or not _is_mapping(part) or KINDS[kind].shape == "axes":
            continue
        for name, overrides in part.items():
            if _is_mapping(overrides):
                with problems.at():
                    whole, by_stage = split_stages(expand_dotted(overrides).without("shows"), stages)
                    yield whole, f"{kind}.{name}."
                    yield from ((child, f"{kind}.{name}.{stage}.") for stage, child in by_stage.items())


def _is_mapping(node: Node) -> bool:
    return isinstance(node.value, dict)
