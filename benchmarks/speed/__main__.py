"""How fast is it? Ratios of CPU time, each side by side in one run, on one core.

    python benchmarks/speed            all of it but Table 8; about ten minutes of an idle core
    python benchmarks/speed --table8 3 also rows of Table 8 beside the version before (needs git); an hour more
    python benchmarks/speed --quick    every row, of sizes that say nothing; a test runs it

Times are of the process's CPU, so that neighbours change them less; what is compared takes turns, and of the turns the
median counts. Prints a line a figure: what, found, target, and what limits it. Nothing fails where a target is missed.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import first
import jpeg
import steps
import studies
import torch
from runs import Spent

Line = tuple[str, str, str, str]
"""What, what was found, its target, what it is made of."""


def machine() -> str:
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    return f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__} with 1 thread; load {load}"


def of_steps(folder: Path, quick: bool) -> Iterator[Line]:
    for profile, target in (("digits", 1.6), ("fashion-mnist-small", 1.8)):
        found = steps.measure(profile, folder, quick)
        parts = ", ".join(f"{name} {milliseconds:.2f}" for name, milliseconds in found.parts.items())
        yield (
            f"{profile}: steps against a plain timm loop",
            f"{found.ratio:.2f}x",
            f">= {target}x",
            f"{found.ours:.1f} ms against {found.theirs:.1f} ({parts}); the model alone would give {found.limit:.2f}x",
        )


def of_runs(folder: Path, quick: bool) -> Iterator[Line]:
    for profile in ("digits", "fashion-mnist-small"):
        spent = studies.one_run(profile, folder, quick)
        parts = f"load {spent.load:.2f}, validation {spent.validation:.2f}, checkpoints {spent.checkpoints:.2f}"
        made = f"of {spent.total:.1f} CPU-s: {parts}, end {spent.end:.2f}"
        yield f"{profile}: share of a run that is not its steps", f"{spent.share:.1%}", "<= 5%", made
        fixed = "load, test, inference timing, flops, record"
        yield f"{profile}: fixed cost of a run", f"{spent.fixed:.2f} CPU-s", "<= 0.4", fixed


def of_first(folder: Path, quick: bool) -> Iterator[Line]:
    found, known = first.measure(folder, quick)
    made = f"{found:.1f} CPU-s of the whole command, {known:.1f} once its name is known"
    yield "the first run of a model of one's own: for its name", f"{found - known:+.1f} CPU-s", "+0 CPU-s", made


def of_students(folder: Path, quick: bool) -> Iterator[Line]:
    without, kept = studies.students(folder, quick)
    totals = [sum(spent.total for spent in each) for each in (without, kept)]
    same = [spent.top1 for spent in without] == [spent.top1 for spent in kept]
    made = f"{totals[0]:.1f} against {totals[1]:.1f} CPU-s; test top-1 {'the same' if same else 'DIFFERS'}"
    yield "three students of one teacher, its answers kept", f"{totals[0] / totals[1]:.2f}x", ">= 1.3x", made


def of_jpeg(folder: Path, quick: bool) -> Iterator[Line]:
    found = jpeg.measure(folder, quick)
    for repeats, target in ((1, 1.5), (3, 2)):
        yield (
            f"JPEG 500 x 375 to 224, DeiT's augmentation, repeats {repeats}",
            f"{found.ratio(repeats):.2f}x",
            f">= {target}x",
            f"{found.ours[repeats]:.2f} ms against {found.theirs[repeats]:.2f}; "
            f"decode and crop alone would give {found.limit(repeats):.2f}x",
        )
    yield "JPEG, by operation", "", "", ", ".join(f"{name} {value:.2f}" for name, value in found.parts.items())


def of_table8(folder: Path, seeds: int) -> Iterator[Line]:
    found = studies.table8(folder, seeds)
    for row in studies.ROWS:
        before, now = ([spent for spent in each if spent.name.startswith(f"{row}:")] for each in found.values())
        seconds = [sum(spent.total for spent in each) for each in (before, now)]
        made = f"{seconds[0]:.0f} against {seconds[1]:.0f} CPU-s; test top-1 {top1(before)} before, {top1(now)} now"
        yield f"Table 8 on digits, {row}: CPU time of before", f"{seconds[1] / seconds[0]:.2f}", "<= 0.6", made


def top1(runs: list[Spent]) -> str:
    return f"{statistics.mean(spent.top1 for spent in runs if spent.name.endswith('finetune')):.2f}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small sizes: nothing but that it works")
    parser.add_argument("--table8", type=int, metavar="SEEDS", default=0, help="Table 8 too, of so many seeds")
    given = parser.parse_args()
    torch.set_num_threads(1)
    print(machine(), flush=True)
    with tempfile.TemporaryDirectory() as made:
        for number, section in enumerate((of_steps, of_runs, of_first, of_students, of_jpeg)):
            folder = Path(made) / str(number)
            folder.mkdir()
            for line in section(folder, given.quick):
                print(" | ".join(part for part in line if part), flush=True)
        for line in of_table8(Path(made), given.table8) if given.table8 else ():
            print(" | ".join(line), flush=True)
    print(machine())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
