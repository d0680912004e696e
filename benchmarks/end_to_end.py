"""Is a printed verdict as seldom false as is claimed? Finished runs are written into a store, and tables are printed.

    python benchmarks/end_to_end.py            2,000 stores in which no row differs, 300 to 1,000 of other kinds;
                                               ten minutes on one core
    python benchmarks/end_to_end.py --quick    4 of each; seconds

Everything but the training is the real thing: a sweep file is planned with its default seeds, each run has the record
that a worker writes, ``deit-ablate table`` reads the store, and the verdicts are parsed from the CSV that it prints.
Between two stores only outcome.json of each run is written anew, by the store's own function. A verdict is false where
it says "better" or "worse" of a row that does not differ, or "equivalent" of one that differs by the margin. Prints the
share of stores with any false verdict, with its exact 95% interval; exits with 1 where that lies wholly above 5%.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import hashlib
import io
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from deit_ablate.cli.report import table
from deit_ablate.report.stats.exact import rate
from deit_ablate.report.stats.power import ALPHA
from deit_ablate.store import Attempt, Store
from deit_ablate.sweep.load import load_sweep
from deit_ablate.sweep.plan import Plan, make_plan

SD, MEAN, IMAGES, MARGIN = 0.3, 80.0, 10_000, 0.5
"""Points of top-1: scatter of a run over seeds and what all rows have; test images; the margin, where one is said."""
SWEEP = """\
profile: digits
baseline: baseline
{more}
variants:
  baseline: {{}}
"""


@dataclass(frozen=True)
class Kind:
    """Stores of one kind. ``effect``: what every row differs by, in points."""

    rows: int
    margin: float | None = None
    effect: float = 0.0
    looks: bool = False
    simulations: int = 2000

    def __str__(self) -> str:
        words = f"m={self.rows:<2} {'looks at 3, 6, 9, 12' if self.looks else 'default seeds'}"
        words += f", margin {self.margin}" if self.margin else ", no margin"
        return f"{words}, {'every row differs by it' if self.effect else 'no row differs'}"

    def false(self, verdict: str) -> bool:
        """Whether a printed verdict is false of such a row."""
        if self.effect:
            return verdict.startswith(("equivalent", "worse")) or "by less than" in verdict
        return verdict.startswith(("better", "worse"))


KINDS = [
    *(Kind(rows) for rows in (2, 5, 12)),
    *(Kind(rows, MARGIN, effect, simulations=1000) for effect in (0, MARGIN) for rows in (2, 5, 12)),
    *(Kind(rows, MARGIN, looks=True, simulations=300) for rows in (2, 5)),
]


class Simulated:
    """A sweep's store, whose runs' outcomes are written anew for each simulation."""

    def __init__(self, folder: Path, kind: Kind, random: np.random.Generator) -> None:
        self.kind, self.random, self.store = kind, random, Store(folder / "results")
        self.plan = self._plan(folder / "null.yaml")
        self.store.sweeps.save_plan("null", self.plan.document("null.yaml"))
        self.attempts: dict[str, Attempt] = {}
        for run in self.plan.runs.values():
            self.store.register(run.id, run.recipe, run.parents, run.sources)
            self.attempts[run.id] = attempt = self.store.claim(run.id)
            attempt.metrics.write_text("")
            attempt.close("done")

    def _plan(self, path: Path) -> Plan:
        more = [f"margin: {self.kind.margin}"] if self.kind.margin else []
        more += ["looks: [3, 6, 9, 12]"] if self.kind.looks else []
        text = SWEEP.format(more="\n".join(more))
        for row in range(self.kind.rows):
            text += f"  row{row}: {{optimizer.base_lr: {0.01 * (row + 2):g}}}\n"
        path.write_text(text)
        return make_plan(load_sweep(path, seeds=12 if self.kind.looks else None))

    def verdicts(self) -> dict[str, str]:
        """Row -> the verdict that is printed, of new trainings of all runs."""
        for cell in self.plan.cells:
            effect = 0.0 if cell.variant == "baseline" else self.kind.effect
            right = round((MEAN + effect + SD * self.random.standard_normal()) / 100 * IMAGES)
            (self.store.run(cell.run) / "outcome.json").unlink(missing_ok=True)
            assert self.store.finish(cell.run, self.attempts[cell.run], self._outcome(100 * right / IMAGES))
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            table("null", "csv", self.store)
        rows = csv.DictReader(io.StringIO(printed.getvalue()))
        found = {row["variant"]: row["verdict_words"] for row in rows if row["variant"] != "baseline"}
        assert len([words for words in found.values() if words]) == self.kind.rows, printed.getvalue()
        return found

    def _outcome(self, top1: float) -> Mapping[str, Any]:
        test = {"images": IMAGES, "loss": 0.6, "top1": top1, "top5": 99.0, "top1_class": top1}
        return {
            "status": "done",
            "reason": None,
            "metrics": {"test": test, "validation": None, "train_loss": 0.5},
            "data": None,
            "weights_sha256": hashlib.sha256(self.random.bytes(8)).hexdigest(),
            "arrays_sha256": "0" * 64,
            "cost": {"train_seconds": 30.0, "wall_seconds": 31.0},
            "execution": {"ranks": 1, "accumulation": 1, "threads": 1},
            "provenance": {"version": "0.1.0", "git": None, "hardware": {}, "packages": {}, "command": None},
            "time": time.time(),
        }


def shares(quick: bool) -> Iterator[tuple[Kind, int, int]]:
    """Kind, simulations, and how many of them had any false verdict."""
    for number, kind in enumerate(KINDS):
        simulations = 4 if quick else kind.simulations
        with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
            simulated = Simulated(Path(folder), kind, np.random.Generator(np.random.PCG64(number)))
            false = sum(any(map(kind.false, simulated.verdicts().values())) for _ in range(simulations))
        yield kind, simulations, false


def main() -> int:
    parser = argparse.ArgumentParser(description="Simulate whole stores; count the false verdicts that are printed.")
    parser.add_argument("--quick", action="store_true", help="4 stores of each kind")
    started, above = time.perf_counter(), 0
    for kind, simulations, false in shares(parser.parse_args().quick):
        low, high = rate(false, simulations)
        above += low > ALPHA
        share = f"{100 * false / simulations:5.2f}% [{100 * low:.2f}, {100 * high:.2f}]"
        print(f"{kind!s:60} {share} of {simulations} tables have a false verdict{' ABOVE' * (low > ALPHA)}", flush=True)
    print(f"{len(KINDS) - above} of {len(KINDS)} within 5% and noise ({time.perf_counter() - started:.0f} s)")
    return 1 if above else 0


if __name__ == "__main__":
    sys.exit(main())
