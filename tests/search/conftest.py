"""Sweep files of searches, and launches of them, as fixtures."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path

import pytest
from searches import EASY, launch_search

from deit_ablate.launch.jobs import Report
from deit_ablate.launch.pool import ProcessPool
from deit_ablate.search.search import Search
from deit_ablate.store import Store


@pytest.fixture
def sweep(sweep: Callable[..., Path]) -> Callable[..., Path]:
    """Write a sweep file over a recipe that learns something."""
    return lambda text: sweep(text, base=EASY)


@pytest.fixture
def run_search(pool: ProcessPool, store: Store) -> Callable[..., tuple[Search, Report]]:
    """One launcher's turn at a search, in this process, on the session's server."""
    return functools.partial(launch_search, store=store, pool=pool)
