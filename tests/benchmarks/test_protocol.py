"""The simulation of the statistical protocol, in small: what the formulas promise is what they do."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def benchmark(name: str) -> str:
    """What a benchmark prints of small samples, if all of it is as expected."""
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / name), "--quick"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_simulated_figures_are_the_expected_ones():
    done = benchmark("error_rates.py")
    figures = [line for line in done.splitlines() if "±" in line]
    tables = "T1 T2 T3 T4 T5 T6 T8 T9 T10 T12 T13 T14 T15 S1 S2 S3"
    assert {line.split()[0] for line in figures} == set(tables.split())
    assert "694 of 694 figures agree" in done


def test_what_is_printed_of_whole_stores_is_seldom_false():
    done = benchmark("end_to_end.py")
    assert done.count("tables have a false verdict") == 11, done
    assert "11 of 11 within 5% and noise" in done


def test_of_what_campaigns_keep_little_is_false():
    done = benchmark("campaigns.py")
    assert done.count("of keeps false") == 19, done
    assert "19 of 19 within 10% and noise" in done


def test_the_benchmark_of_the_engine_runs():
    printed = benchmark("engine.py")
    assert [line.split()[2] for line in printed.splitlines()[1:]] == ["plan", "status", "table"]
