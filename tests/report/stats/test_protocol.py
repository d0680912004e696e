"""The simulation of the statistical protocol, in small: what the formulas promise is what they do."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_simulated_figures_are_the_expected_ones():
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks/statistics.py"), "--quick"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    figures = [line for line in done.stdout.splitlines() if "±" in line]
    tables = {"T1", "T2", "T3", "T4", "T5", "T6", "T8", "T9", "T10", "T12", "T14"}
    assert {line.split()[0] for line in figures} == tables
    assert "of 393 figures agree" in done.stdout
