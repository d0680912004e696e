"""The stages of a sweep: steps that feed one another through their checkpoints, as a DAG with one last stage."""

from __future__ import annotations

import graphlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from deit_ablate.recipe import BLOCKS
from deit_ablate.sweep.fields import StageFile
from deit_ablate.sweep.profiles import of_by_profile
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
    own_seeds: bool = False
    """Whether the file says them of this stage, and not of the sweep."""

    @property
    def parents(self) -> list[str]:
        return [parent for parent in (self.teacher, self.start) if parent]


def seed_list(given: int | Sequence[int]) -> tuple[int, ...]:
    return tuple(range(given)) if isinstance(given, int) else tuple(given)


def check_names(node: Node, trainer: Trainer) -> None:
    """Raises InputError for a stage whose name would be read as something else."""
    taken = (*BLOCKS, "precision", "recipe", "shows", *trainer.parameters, *of_by_profile(node))
    for name, _ in node.part("stages").items():
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,39}", name) or name in taken:
            expected = "lower-case letters, digits, - and _; not a recipe's block, a parameter or a key of by_profile"
            raise node.error(("stages", name), f"{name!r} cannot name a stage", expected, at_key=True)


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
    whole, found = node.part("stages"), {}
    if not stages:
        return (Stage("", Node({}, node.where), seeds=seeds),)
    for name, part in stages.items():
        for role, parent in (("teacher", part.teacher), ("from", part.from_)):
            if parent is not None and parent not in stages:
                raise node.unknown(("stages", name, role), "no stage", parent, list(stages))
        given = whole.value[name]
        for key in {"recipe", "parameters"} - {trainer.of_stage}:
            if given.get(key) is not None:
                raise node.error(("stages", name, key), f"got {key}", trainer.of_stage, at_key=True)
        overrides = expand_dotted(given.get(trainer.of_stage) or Node({}, whole.keys[name]))
        of_stage = seeds if part.seeds is None else seed_list(part.seeds)
        parents, own_seeds = (part.teacher, part.from_, part.weights), part.seeds is not None
        found[name] = Stage(name, overrides, by_profile.get(name), *parents, of_stage, own_seeds)
    ordered = _in_order(found, node)
    for stage in ordered:
        for parent in stage.parents:
            many = found[parent].seeds
            if missing := [seed for seed in stage.seeds if len(many) > 1 and seed not in many]:
                problem = f"seed {missing[0]} of {stage.name} has no run of {parent}"
                raise node.error(("stages", parent), problem, "one seed, or the same ones", at_key=True)
    result: dict[str, Stage] = {}
    for stage in ordered:  # a stage that starts from another keeps its teacher
        before = result.get(stage.start or "")
        result[stage.name] = replace(stage, teacher=stage.teacher or (before.teacher if before else None))
    return tuple(result.values())


def end_with(stages: tuple[Stage, ...], over: Node, profile: str) -> tuple[Stage, ...]:
    """The stages of a sweep that ends with the ``last_stage`` of a profile (``over``), if it names any: that one and
    those that it stands on. Raises InputError for one that the sweep lacks."""
    last = over.get("last_stage")
    if last is None or last.value is None:
        return stages
    by_name, wanted = {stage.name: stage for stage in stages if stage.name}, str(last.plain())
    if wanted not in by_name:
        raise over.unknown("last_stage", "no stage", wanted, list(by_name), under=f"by_profile.{profile}.")
    needed = [wanted]
    for name in needed:  # grows as it is read
        needed += by_name[name].parents
    return tuple(stage for stage in stages if stage.name in needed)


def _in_order(stages: Mapping[str, Stage], node: Node) -> list[Stage]:
    """Parents before children, and the stage without children last."""
    try:
        order = list(graphlib.TopologicalSorter({name: stage.parents for name, stage in stages.items()}).static_order())
    except graphlib.CycleError as error:
        problem = f"the stages depend on one another in a circle: {' -> '.join(error.args[1])}"
        raise node.error("stages", problem, "stages of which none depends on itself", at_key=True) from None
    final = [name for name in stages if not any(name in stage.parents for stage in stages.values())]
    if len(final) != 1:
        problem = "the stages end in " + " and ".join(final)
        raise node.error("stages", problem, "one last stage, which the table shows", at_key=True)
    return [stages[name] for name in (*(name for name in order if name != final[0]), final[0])]
