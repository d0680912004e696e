"""False alarms of the check for rows that do nothing, and its cost: every shipped sweep up to the launch.

    python benchmarks/effects.py [digits fashion-mnist-small ...]

Prints for each sweep how many rows are compared and what the real rehearsal takes with and without the comparison, in
seconds; ends with 1 where a row was refused. The user's cache is left alone.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from deit_ablate.errors import InputError
from deit_ablate.execution import Execution
from deit_ablate.files import shipped as folder
from deit_ablate.launch.jobs import Work
from deit_ablate.launch.pool import ProcessPool
from deit_ablate.launch.preflight import preflight
from deit_ablate.store import Store
from deit_ablate.store.store import State
from deit_ablate.sweep.effects import pairs
from deit_ablate.sweep.load import load_sweep
from deit_ablate.sweep.plan import make_plan


def main(profiles: list[str]) -> int:
    refused = 0
    pool = ProcessPool(Execution(device="cpu"))
    with tempfile.TemporaryDirectory() as scratch:
        os.environ["XDG_CACHE_HOME"] = scratch
        for profile in profiles:
            for path in sorted(folder("sweeps").glob("*.yaml")):
                plan = make_plan(load_sweep(path, profile=profile))
                if plan.sweep.search is not None:
                    continue
                states = dict.fromkeys(plan.runs, State("missing"))
                store = Store(Path(scratch) / "results")
                work = Work(
                    store, None, plan.runs, plan.labels(), states, Execution(device="cpu"), written=plan.written
                )
                preflight(work, pool.ask)  # the first call starts the server
                seconds = []
                for each in (work, replace(work, pairs=tuple(pairs(plan)))):
                    begun = time.perf_counter()
                    try:
                        preflight(each, pool.ask)
                    except InputError as error:
                        refused += 1
                        print(error)
                    seconds.append(time.perf_counter() - begun)
                print(
                    f"{path.stem:20} {profile:20} {len(each.pairs):3} rows {seconds[0]:6.2f} {seconds[1]:6.2f}",
                    flush=True,
                )
    pool.close()
    print(f"{refused} rows refused")
    return bool(refused)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["digits"]))
