"""The measurements that `make gpu` makes, in small and on whatever there is: each of them is made."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_benchmark_measures_all_that_it_names() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "DEIT_ABLATE_WORKER"}
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--tiny"],
        env={**environment, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for kind in ("files", "arrays", "reference loop", "model alone"):
        assert f"deit_tiny, {kind} " in done.stdout, done.stdout
    assert done.stdout.count(" images/s   MFU ") == 4
    assert done.stdout.count(" runs an hour ") == 2
    assert done.stdout.splitlines()[-1] == "all measured"
