"""A store with one run."""

from __future__ import annotations

import pytest
from support import RECIPE, RUN

from deit_ablate.store import Store


@pytest.fixture
def run(store: Store) -> str:
    store.register(RUN, RECIPE, {}, {})
    return RUN
