"""The stages of a sweep: steps that feed one another through their checkpoints, as a DAG with one last stage."""

from __future__ import annotations

import graphlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from deit_ablate.errors import InputError, Position, unknown_name
from deit_ablate.recipe import BLOCKS
from deit_ablate.sweep.fields import StageFile
from deit_ablate.sweep.trainers import Trainer
from deit_ablate.sweep.yaml import Node, expand_dotted


@dataclass(frozen=True)
class Stage:
    """One stage; ``by_profile`` goes over its ``overrides``, which ``--set`` has changed already."""

    name: str
    overrides: Node
    by_profile: Node | None = None
    teacher: str | None = None
    start: str | None = None
    """The stage whose weights it starts from."""
    weights: str = "last"
    seeds: tuple[int, ...] = ()

    @property
    def parents(self) -> list[str]:
        return [parent for parent in (self.teacher, self.start) if parent]


def seed_list(given: int | Sequence[int]) -> tuple[int, ...]:
    return tuple(range(given)) if isinstance(given, int) else tuple(given)


def read_stages(
    node: Node,
    stages: Mapping[str, StageFile] | None,
    seeds: tuple[int, ...],
    by_profile: Mapping[str, Node],
    trainer: Trainer,
) -> tuple[Stage, ...]:
    """A sweep file's stages in order of dependence, the final one last; one without a name where it has none.

    ``seeds``: of a stage that names none; ``by_profile``: what the chosen profile changes, by stage. Raises InputError.
    """
    whole = node.get("stages")
    if not stages or whole is None:
        return (Stage("", Node({}, node.where), seeds=seeds),)
    found = {}
    for name, part in stages.items():
        _check_name(name, whole.keys[name])
        for role, parent in (("teacher", part.teacher), ("from", part.from_)):
            if parent is not None and parent not in stages:
                place = whole.locate((name, role))
                raise unknown_name("no stage", parent, list(stages), where=place, key=f"stages.{name}.{role}")
        given = whole.value[name]
        for key in {"recipe", "parameters"} - {trainer.of_stage}:
            if given.get(key) is not None:
                where = given.locate((key,), at_key=True)
                raise InputError(f"got {key}", where=where, key=f"stages.{name}.{key}", expected=trainer.of_stage)
        overrides = expand_dotted(given.get(trainer.of_stage) or Node({}, whole.keys[name]))
        trainer.check(overrides, prefix=f"stages.{name}.{trainer.of_stage}.")
        of_stage = seeds if part.seeds is None else seed_list(part.seeds)
        found[name] = Stage(name, overrides, by_profile.get(name), part.teacher, part.from_, part.weights, of_stage)
    ordered = _in_order(found, node.keys["stages"])
    for stage in ordered:
        _check_seeds(stage, found, whole)
    result: dict[str, Stage] = {}
    for stage in ordered:  # a stage that starts from another keeps its teacher
        before = result.get(stage.start or "")
        result[stage.name] = replace(stage, teacher=stage.teacher or (before.teacher if before else None))
    return tuple(result.values())


def _check_name(name: str, place: Position) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,39}", name) or name in (*BLOCKS, "precision", "recipe", "shows"):
        expected = "lower-case letters, digits, - and _; not a recipe's block"
        raise InputError(f"{name!r} cannot name a stage", where=place, key="stages", expected=expected)


def _in_order(stages: Mapping[str, Stage], place: Position) -> list[Stage]:
    """Parents before children, and the stage without children last."""
    try:
        order = list(graphlib.TopologicalSorter({name: stage.parents for name, stage in stages.items()}).static_order())
    except graphlib.CycleError as error:
        problem = f"the stages depend on one another in a circle: {' -> '.join(error.args[1])}"
        expected = "stages of which none depends on itself"
        raise InputError(problem, where=place, key="stages", expected=expected) from None
    final = [name for name in stages if not any(name in stage.parents for stage in stages.values())]
    if len(final) != 1:
        problem = "the stages end in " + " and ".join(final)
        raise InputError(problem, where=place, key="stages", expected="one last stage, which the table shows")
    return [stages[name] for name in (*(name for name in order if name != final[0]), final[0])]


def _check_seeds(stage: Stage, stages: Mapping[str, Stage], whole: Node) -> None:
    for parent in stage.parents:
        seeds = stages[parent].seeds
        missing = [seed for seed in stage.seeds if len(seeds) > 1 and seed not in seeds]
        if missing:
            problem, key = f"seed {missing[0]} of {stage.name} has no run of {parent}", f"stages.{parent}.seeds"
            raise InputError(problem, where=whole.keys[parent], key=key, expected="one seed, or the same ones")
