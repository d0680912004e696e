"""What single rows and stages of a sweep need of their own (``resources:``), and how each run is executed by that.

None of it is part of a run's identity. Precedence, lowest first: ``execution``, the stage, the row, the command line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from deit_ablate.execution import Execution, Needs, layered
from deit_ablate.sweep.enumeration import Cell
from deit_ablate.sweep.sweep import Sweep


def needs_of(sweep: Sweep, cells: Iterable[Cell]) -> dict[str, Needs]:
    """By run, of those that ``resources`` say something of. A stage's are for all its runs; a row's go over them in the
    stages that rows vary (the last one, and those that it goes on from). A run that rows share takes the first one's.
    """
    varied, places = set(sweep.lineage()), dict[str, Cell]()
    for cell in cells if sweep.resources else ():
        places.setdefault(cell.run, cell)
    made: dict[tuple[str, str], Needs] = {}
    found = {}
    for run, cell in places.items():
        names = (cell.stage, cell.variant if cell.stage in varied else "")
        of_stage, of_row = (sweep.resources.get(name) for name in names)
        if of_stage and of_row and names not in made:
            made[names] = layered(of_stage, of_row)
        if needs := made.get(names) or of_row or of_stage:
            found[run] = needs
    return found


class Executions(Mapping[str, Execution]):
    """How each of some runs is executed. It grows with ``runs`` and ``needs``, to which a search adds."""

    def __init__(
        self, runs: Mapping[str, Any], needs: Mapping[str, Needs], base: Execution, given: Execution | None = None
    ) -> None:
        """``base``: of runs that need nothing of their own; ``given``: what the command line sets, over all."""
        self._runs, self._needs, self._given = runs, needs, given or Execution()
        self._base = layered(base, self._given)
        self._made: dict[int, tuple[Needs, Execution]] = {}
        """By the id of needs, with these: while they are held, no others have that id."""

    def __getitem__(self, run: str) -> Execution:
        needs = self._needs.get(run)
        if needs is None:
            self._runs[run]
            return self._base
        if id(needs) not in self._made:
            self._made[id(needs)] = (needs, layered(layered(self._base, needs), self._given))
        return self._made[id(needs)][1]

    def __iter__(self) -> Iterator[str]:
        return iter({**dict.fromkeys(self._runs), **dict.fromkeys(self._needs)})

    def __len__(self) -> int:
        return len(self._runs.keys() | self._needs.keys())
