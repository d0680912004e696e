"""The layers of a recipe that a sweep file has, each by itself: whatever is wrong in them is told at once."""

from __future__ import annotations

from collections.abc import Iterator

from deit_ablate.errors import Problems
from deit_ablate.sweep.names import check_layer_names
from deit_ablate.sweep.profiles import split_stages
from deit_ablate.sweep.programs import read_parameters, trained_by
from deit_ablate.sweep.rows import KINDS, axis_values
from deit_ablate.sweep.stages import check_names
from deit_ablate.sweep.trainers import OURS, OfProgram, Trainer
from deit_ablate.sweep.yaml import Node, expand_dotted


def check_layers(node: Node, problems: Problems) -> None:
    """Collect keys that there are not, values that they cannot have and, where anything is wrong, names.

    How layers go together is not looked at: that takes all of them to be sound.
    """
    trainer: Trainer = OURS
    if trained_by(node):
        with problems.at():
            trainer = OfProgram({}, read_parameters(node))
        if trainer is OURS:
            return
    already = len(problems.found)
    with problems.at():
        check_names(node, trainer)
    if len(problems.found) > already:  # rows may mean either
        return
    layers = list(_layers(node, trainer, problems))
    for layer, prefix in layers:
        with problems.at():
            trainer.check(layer, prefix)
    for layer, prefix in layers if problems.found and trainer is OURS else ():
        with problems.at():
            check_layer_names(layer, prefix)


def _layers(node: Node, trainer: Trainer, problems: Problems) -> Iterator[tuple[Node, str]]:
    """Each with what stands before its keys. What is no mapping is told by who reads it."""
    stages = node.part("stages")
    given = [("recipe", node.part("recipe"))] if trainer is OURS else []
    given += [(f"stages.{name}.{trainer.of_stage}", stage.part(trainer.of_stage)) for name, stage in stages.items()]
    rows = []
    for kind, of in KINDS.items():
        part = node.part(kind)
        if of.shape != "axes":
            rows += [(f"{kind}.{name}", row) for name, row in part.items()]
        elif part.value and isinstance(part.value, dict):
            with problems.at():
                rows += [(kind, value) for value in axis_values(part)]
    for name, layer in (pair for pair in given if isinstance(pair[1].value, dict)):
        with problems.at():
            yield expand_dotted(layer), f"{name}."
    for name, row in (pair for pair in rows if isinstance(pair[1].value, dict)):
        with problems.at():
            whole, by_stage = split_stages(expand_dotted(row), [stage for stage, _ in stages.items()])
            yield whole.without("shows") if trainer is OURS else whole, f"{name}."
            yield from ((child, f"{name}.{stage}.") for stage, child in by_stage.items())
