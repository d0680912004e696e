"""How much CPU time the commands take that plan and show ten thousand runs: a store of finished runs, no training.

    python benchmarks/engine.py            10,000 runs (1,000 rows of 10 seeds); about three minutes
    python benchmarks/engine.py --quick    40 runs; seconds; a test runs it
    python benchmarks/engine.py --curve    100, 1,000, 10,000 and 30,000 runs, for the growth with their number

Each figure is the CPU time (user and system) of a whole command, start of Python included, the least of three. The
store is written with the package's own functions; "first" is without its index, "again" with it.
"""

from __future__ import annotations

import argparse
import os
import random
import resource
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from deit_ablate.store import Store
from deit_ablate.sweep.load import load_sweep
from deit_ablate.sweep.plan import make_plan

SEEDS = 10
COMMANDS = {"plan": ["plan", "many.yaml"], "status": ["status", "many"], "table": ["table", "many"]}


def build(folder: Path, rows: int) -> int:
    """Write a sweep of so many rows, and its finished runs; returns their number."""
    path, store, draw = folder / "many.yaml", Store(folder / "results"), random.Random(0)
    text = f"profile: digits\nbaseline: row0\nseeds: {SEEDS}\nbaseline_seeds: {SEEDS}\nvariants:\n"
    path.write_text(text + "".join(f"  row{i}: {{optimizer.base_lr: {0.00123 * (i + 1):.6g}}}\n" for i in range(rows)))
    plan = make_plan(load_sweep(path))
    store.sweeps.save_plan("many", plan.document("../many.yaml"))
    for run in plan.runs.values():
        store.register(run.id, run.recipe, run.parents, run.sources)
        attempt = store.claim(run.id)
        attempt.metrics.write_text('{"epoch": 0, "train_loss": 0.5}\n' * 3)
        attempt.close("done")
        test = {"images": 10_000, "loss": 0.6, "top1": round(draw.gauss(80, 0.3), 2), "top5": 99.0}
        outcome = {"status": "done", "metrics": {"test": test}, "cost": {"train_seconds": 30.0, "wall_seconds": 31.0}}
        assert store.finish(run.id, attempt, outcome)
    return len(plan.runs)


def cpu_seconds(folder: Path, arguments: Sequence[str]) -> float:
    """CPU time of the command with these arguments, all its processes together."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "deit_ablate", *arguments], cwd=folder, stdout=subprocess.PIPE, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def measure(rows: int, repeats: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        runs = build(folder, rows)
        for command, arguments in COMMANDS.items():
            first, again = [], []
            for _ in range(repeats):
                (folder / "results" / "index.json").unlink(missing_ok=True)
                first.append(cpu_seconds(folder, arguments))
                cpu_seconds(folder, COMMANDS["table"])  # which writes the index
                again.append(cpu_seconds(folder, arguments))
            print(f"{runs:7,} runs  {command:7}first {min(first):6.2f} s   again {min(again):6.2f} s", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="CPU seconds of plan, status and table.")
    parser.add_argument("--quick", action="store_true", help="40 runs, each command once")
    parser.add_argument("--curve", action="store_true", help="from 100 to 30,000 runs")
    given = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; --help {cpu_seconds(Path(), ['--help']):.2f} s")
    for rows in (4,) if given.quick else (10, 100, 1000, 3000) if given.curve else (1000,):
        measure(rows, 1 if given.quick else 3)
    return 0


if __name__ == "__main__":
    sys.exit(main())
