"""The benchmark of a workload prints every figure; what it finds is not for a test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
QUICK = ("schedule.epochs=2", "schedule.warmup_epochs=1", "data.train_images=100")
ROWS = (
    "test images",
    "baseline, test top-1",
    "over seeds",
    "over that",
    "without",
    "training images",
    "teacher",
    "over",
)


def test_the_benchmark_of_a_workload_prints_every_row() -> None:
    arguments = [sys.executable, str(ROOT / "benchmarks/workload.py"), "digits", *QUICK]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()[2:]
    assert len(lines) == len(ROWS)
    assert all(words in line for words, line in zip(ROWS, lines, strict=True)), lines
