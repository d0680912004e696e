"""All that is wrong in a sweep file, where a first thing was found: for one message with everything, not one a try."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from deit_ablate.errors import InputError, Problems
from deit_ablate.sweep.fields import SweepFile
from deit_ablate.sweep.names import check_layer_names
from deit_ablate.sweep.overrides import validate
from deit_ablate.sweep.profiles import split_stages
from deit_ablate.sweep.programs import read_metrics_of, read_parameters, read_program
from deit_ablate.sweep.rows import KINDS, axis_values
from deit_ablate.sweep.trainers import OURS, OfProgram, Trainer
from deit_ablate.sweep.yaml import Node, expand_dotted, load


def refuse_all(path: Path, first: InputError) -> None:
    """Raises InputError: ``first``, and with it what is wrong elsewhere in the file whatever the first thing means.

    Only single values and keys are looked at, not how layers go together, which needs all of them to be sound.
    """
    problems = Problems()
    with problems.at():
        raise first
    if first.where is None or first.where[0] != str(path) or not first.where[1]:
        problems.refuse()
    node = load(path)
    with problems.at():
        parsed = validate(SweepFile, node)
        with problems.at():
            read_program(node, parsed, path)
        if parsed.command or parsed.trainer:
            with problems.at():
                read_metrics_of(node, parsed)
    trainer: Trainer | None = OURS
    if any(node.get(key) is not None for key in ("command", "trainer")):
        trainer = None
        with problems.at():
            trainer = OfProgram({}, read_parameters(node))
    for layer, prefix in _layers(node, trainer, problems) if trainer else ():
        with problems.at():
            trainer.check(layer, prefix)
        with problems.at():
            if trainer is OURS:
                check_layer_names(layer, prefix)
    problems.found = dict(sorted(problems.found.items(), key=lambda item: item[1].where or first.where))
    problems.refuse()


def _layers(node: Node, trainer: Trainer, problems: Problems) -> Iterator[tuple[Node, str]]:
    """The layers of a recipe that a file has, in its order, each with what stands before its keys."""
    staged, recipe = node.get("stages"), node.get("recipe")
    stages = dict(staged.items()) if staged is not None and _is_mapping(staged) else {}
    given = {"recipe": recipe if trainer is OURS else None}
    given |= {f"stages.{name}.{trainer.of_stage}": stage.get(trainer.of_stage) for name, stage in stages.items()}
    for name, part in given.items():
        if part is not None and _is_mapping(part):
            with problems.at():
                yield expand_dotted(part), f"{name}."
    for kind in KINDS:
        part = node.get(kind)
        if part is None or not _is_mapping(part):
            continue
        rows = [(f"{kind}.{name}.", child) for name, child in part.items()]
        if KINDS[kind].shape == "axes":
            rows = []
            with problems.at():
                rows = [(f"{kind}.", child) for child in axis_values(part)]
        for name, overrides in rows:
            if _is_mapping(overrides):
                with problems.at():
                    whole, by_stage = split_stages(expand_dotted(overrides).without("shows"), list(stages))
                    yield whole, name
                    yield from ((child, f"{name}{stage}.") for stage, child in by_stage.items())


def _is_mapping(node: Node) -> bool:
    return isinstance(node.value, dict)
