"""The first `run` of a model of one's own, and the same run once the answer about its name is kept."""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

MODEL = """
from torch import nn
VERSION = {version}
def net(shape):
    return nn.Sequential(nn.Flatten(), nn.Linear(shape.channels * shape.resolution**2, shape.classes))
"""
SWEEP = """
profile: digits
recipe: {data: {train_images: 192}, model: {name: "own:net"}, schedule: {epochs: 1, warmup_epochs: 0}}
seeds: 1
variants: {a: {}}
"""


def measure(folder: Path, quick: bool) -> tuple[float, float]:
    """CPU seconds of the whole command with all its processes: the first time, and with the name known. Medians."""
    (folder / "own.yaml").write_text(SWEEP)
    turns = []
    for version in range(1 if quick else 5):
        (folder / "own.py").write_text(MODEL.format(version=version))
        turns.append([_run(folder, f"{name} {version}") for name in ("first", "known")])
    first, known = (statistics.median(each) for each in zip(*turns, strict=True))
    return first, known


def _run(folder: Path, results: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    kept = {name: value for name, value in os.environ.items() if name != "DEIT_ABLATE_WORKER"}
    cache = {"XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": str(folder)}  # where no answer is kept yet
    subprocess.run(
        [sys.executable, "-m", "deit_ablate", "run", "own.yaml", "--results", results],
        cwd=folder,
        env={**kept, "MPLCONFIGDIR": str(folder / "matplotlib"), **cache},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
