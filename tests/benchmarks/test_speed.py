"""The benchmark of speed prints every figure; what it finds is not for a test."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deit_ablate.train.data.sets import FASHION_DEBIAN

ROOT = Path(__file__).parents[2]
ROWS = (
    "digits: steps against a plain timm loop",
    "fashion-mnist-small: steps against a plain timm loop",
    "digits: share of a run that is not its steps",
    "digits: fixed cost of a run",
    "fashion-mnist-small: share of a run that is not its steps",
    "fashion-mnist-small: fixed cost of a run",
    "the first run of a model of one's own: for its name",
    "three students of one teacher, its answers kept",
    "JPEG 500 x 375 to 224, DeiT's augmentation, repeats 1",
    "JPEG 500 x 375 to 224, DeiT's augmentation, repeats 3",
    "JPEG, by operation",
)


@pytest.mark.skipif(not FASHION_DEBIAN.is_dir(), reason="Fashion-MNIST is not installed")
def test_the_benchmark_of_speed_prints_every_row() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/speed"), "--quick"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    printed = [line.split(" | ") for line in done.stdout.splitlines()]
    assert [row[0] for row in printed[1:-1]] == list(ROWS)
    assert "load" in printed[0][0]
    assert "test top-1 the same" in printed[8][3]
