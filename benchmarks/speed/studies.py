"""Whole runs and studies: what is not steps, a teacher's answers kept or not, and Table 8 beside an earlier version."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path

from runs import Spent, train_all

ROOT = Path(__file__).resolve().parents[2]
BEFORE = "7c8c162"
"""The commit before the work on speed."""
ROWS = ("baseline", "SGD pre-training")
STUDENTS = ("soft", "hard", "token, both heads")


def one_run(profile: str, folder: Path, quick: bool) -> Spent:
    """A run of the profile, of few epochs where it must be quick."""
    row = "{schedule.epochs: 2, schedule.warmup_epochs: 1, data.train_images: 200}" if quick else "{}"
    path = folder / f"{profile}.yaml"
    path.write_text(f"profile: {profile}\nvariants: {{row: {row}}}\n")
    return next(train_all(folder / f"results-{profile}", path, seeds=1))


def students(folder: Path, quick: bool) -> tuple[list[Spent], list[Spent]]:
    """A teacher's students of sweeps/distillation.yaml, one seed: without and with its answers kept.

    They take turns, after a teacher for each store. A file where the folder of kept answers would be keeps none.
    """
    text = (ROOT / "sweeps/distillation.yaml").read_text().replace("baseline: none\n", "")
    if quick:
        text = text.replace("schedule: {epochs: 15}", "schedule: {epochs: 1}")
        text += "recipe: {schedule: {epochs: 1, warmup_epochs: 0}, data: {train_images: 200}}\n"
    sweep = folder / "distillation.yaml"
    sweep.write_text(text)
    without, kept = folder / "without", folder / "kept"
    for store in (without, kept):
        store.mkdir()
    (without / "cache").touch()
    found: tuple[list[Spent], list[Spent]] = ([], [])
    for student in STUDENTS:
        for store, spent in zip((without, kept), found, strict=True):
            spent += [run for run in train_all(store, sweep, [student], seeds=1) if run.name.endswith("student")]
    return found


def table8(folder: Path, seeds: int, rows: Sequence[str] = ROWS) -> dict[str, list[Spent]]:
    """The runs of rows of Table 8 by the version before and by this one, which take turns after each seed."""
    archive = subprocess.run(["git", "archive", BEFORE], cwd=ROOT, check=True, capture_output=True).stdout
    with tarfile.open(fileobj=BytesIO(archive)) as tar:
        tar.extractall(folder / "before", filter="data")
    found: dict[str, list[Spent]] = {"before": [], "now": []}
    for seed in range(seeds):
        for name, root in (("before", folder / "before"), ("now", ROOT)):
            sweep = folder / name / "table8.yaml"
            sweep.parent.mkdir(exist_ok=True)
            sweep.write_text((root / "sweeps/table8.yaml").read_text().replace("baseline: baseline\n", ""))
            command = [sys.executable, str(Path(__file__).with_name("runs.py")), str(folder / name / "results")]
            printed = subprocess.run(
                [*command, str(sweep), str(seed + 1), *rows],
                env={**os.environ, "PYTHONPATH": str(root)},
                stdout=subprocess.PIPE,
                check=True,
            ).stdout
            found[name] += [Spent(**json.loads(line)) for line in printed.splitlines()]
    return found
