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
    tables = {line.split()[0] for line in figures}
    assert tables == {f"T{number}" for number in (1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 13)}
    assert "of 325 figures agree" in done.stdout
