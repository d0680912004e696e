"""A sweep, as its file, its profile and the command line make it: rows, stages and what they change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deit_ablate.errors import InputError, Position
from deit_ablate.execution import Execution, Needs
from deit_ablate.sweep.designs import Design
from deit_ablate.sweep.metrics import TOP1, Metric
from deit_ablate.sweep.space import SearchSettings
from deit_ablate.sweep.stages import Stage
from deit_ablate.sweep.trainers import OURS, OfProgram, Trainer
from deit_ablate.sweep.yaml import Node

if TYPE_CHECKING:
    from deit_ablate.sweep.enumeration import Run


def no_store(name: str) -> Mapping[str, Run]:
    raise InputError(f"there is no results folder in which {name} could be", expected="FILE or timm:NAME")


@dataclass(frozen=True)
class Variant:
    """One named row: overrides of the recipe, overrides of single stages, and the figure it shows."""

    name: str
    where: Position
    overrides: Node
    by_profile: Node | None = None
    """What the profile changes about the row, over ``overrides``; and a trial's parameters."""
    by_stage: Mapping[str, Node] = field(default_factory=dict)
    """Over both, in single stages."""
    shows: str | None = None


@dataclass(frozen=True)
class Sweep:
    name: str
    file: Path
    base: Node
    """Profile, ``recipe`` and ``--set``, merged."""
    stages: tuple[Stage, ...]
    """In order of dependence, the final one last."""
    variants: tuple[Variant, ...]
    trainer: Trainer = OURS
    kind: str = "variants"
    title: str = ""
    profile: str | None = None
    metric: Metric = TOP1
    """Of which verdicts and margin are."""
    metrics: tuple[Metric, ...] = ()
    """Further columns."""
    margin: float | None = None
    population: bool = False
    looks: tuple[int, ...] | None = None
    until_decided: bool = False
    """Whether its seeds are added look by look, to rows that are undecided."""
    baseline: str | None = None
    baseline_seeds: int | None = None
    """None: as many as its rows make worth while (``comparisons.baseline_seeds``)."""
    design: Design | None = None
    """Of a kind whose rows combine changes."""
    execution: Execution = field(default_factory=Execution)
    resources: Mapping[str, Needs] = field(default_factory=dict)
    """Row or stage -> what its runs need of their own, over ``execution``."""
    search: SearchSettings | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    """Row, or axis of a grid -> what tables and figures call it."""
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Heading -> rows, in the order in which tables show them, after those of no group."""
    axes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Of a grid, the first one varying slowest: dotted key, and the values as names of rows have them."""
    accepted: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, compare=False)
    """Id of a run of the code as it is -> the finished run of earlier code that is used in its place
    (``Sweeps.accepted``)."""
    sets: tuple[Node, ...] = ()
    """What ``--set`` gave, which is part of ``base`` and ``stages`` already."""
    find_run: Callable[[str], Mapping[str, Run]] = field(default=no_store, compare=False, repr=False)
    """SWEEP:ROW:SEED -> that run of the store, last, below all that it stands on. Raises InputError."""

    @property
    def program(self) -> OfProgram | None:
        """What trains in place of our trainer."""
        return self.trainer if isinstance(self.trainer, OfProgram) else None

    @property
    def final(self) -> Stage:
        """The stage that the table shows."""
        return self.stages[-1]

    def lineage(self) -> list[str]:
        """The stages that variants vary: the final one and those that it continues from."""
        by_name = {stage.name: stage for stage in self.stages}
        line = [self.final.name]
        while (before := by_name[line[-1]].start) is not None:
            line.append(before)
        return line[::-1]
