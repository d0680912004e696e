"""The measurements that `make gpu` makes, in small and on whatever there is: each of them is made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "DEIT_ABLATE_WORKER"}
    return subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), *arguments],
        env={**environment, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )


def test_the_benchmark_measures_all_that_it_names_in_the_order_that_is_asked_for() -> None:
    done = benchmark("--tiny", "packed", "deit_tiny")
    assert done.returncode == 0, done.stdout + done.stderr
    for kind in ("files", "files, decoded there", "arrays", "reference loop", "model alone"):
        assert f"deit_tiny, {kind} " in done.stdout, done.stdout
    assert done.stdout.count(" images/s   MFU ") == 5
    assert done.stdout.count(" runs an hour ") == 2
    assert done.stdout.rindex(" runs an hour ") < done.stdout.index(" images/s   MFU ")
    assert done.stdout.splitlines()[-1] == "all measured"


def test_what_it_does_not_measure_is_refused() -> None:
    wrong = benchmark("--tiny", "deit_small")
    assert (wrong.returncode, "expected some of deit_tiny, packed" in wrong.stderr) == (2, True), wrong.stderr
