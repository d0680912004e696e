"""What tests of searches share: a small recipe, and one launcher's turn at a search in this process."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deit_ablate.execution import Execution
from deit_ablate.launch.jobs import Report, Work
from deit_ablate.launch.local import JobLaunch
from deit_ablate.launch.pool import ProcessPool
from deit_ablate.search.search import Search
from deit_ablate.store import Store
from deit_ablate.sweep.load import load_sweep
from deit_ablate.sweep.plan import Plan

EASY = """
profile: digits
recipe:
  data: {train_images: 320}
  model: {options: {patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2}}
  augment: {auto_augment: null, mixup: 0, cutmix: 0, erasing: 0, repeats: 2}
  schedule: {epochs: 3, batch_size: 32, warmup_epochs: 0.5}
"""
"""Learns something within a second."""
SPACE = "space: {optimizer.base_lr: {low: 0.01, high: 0.3, log: true}, regularize.drop_path: {low: 0, high: 0.2}}"
SHORT = f"search: {{trials: 4, pruner: none, candidates: 2, candidate_seeds: 2, {SPACE}}}\nseeds: 2\n"


def launch_search(
    path: Path,
    store: Store,
    pool: ProcessPool,
    *,
    slots: int = 2,
    stop: Callable[[], bool] = lambda: False,
    **options: Any,
) -> tuple[Search, Report]:
    """Launch a sweep file's search on the session's server; ``options`` are those of Search."""
    sweep = load_sweep(path)

    def save(plan: Plan) -> None:
        source = os.path.relpath(path.resolve(), store.root.resolve())
        store.sweeps.save_plan(sweep.name, {**plan.document(source), "asked": {}})

    search = Search(sweep, store, save, **options)
    search.begin()
    save(search.plan())
    search.show()
    work = Work(store, sweep.name, search.runs, search.labels, {}, Execution(device="cpu"), source=search)
    before = pool.slots, pool.parallel
    pool.slots = pool.parallel = slots
    try:
        return search, JobLaunch(work, pool).run(lambda progress: None, stop)
    finally:
        pool.slots, pool.parallel = before
        save(search.plan())
