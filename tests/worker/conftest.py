"""What tests of the worker share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from programs import Programs, Workers

from deit_ablate.store import Store


@pytest.fixture(scope="module")
def workers() -> Iterator[Workers]:
    made = Workers()
    yield made
    made.close()


@pytest.fixture
def programs(tmp_path: Path, workers: Workers) -> Programs:
    (tmp_path / "lab").mkdir()
    return Programs(tmp_path / "lab", Store(tmp_path / "results"), workers)
