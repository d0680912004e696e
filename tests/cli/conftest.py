"""A store with one run, and the command."""

from __future__ import annotations

import pytest
from support import RECIPE, RUN, Command

from deit_ablate.store import Store


@pytest.fixture
def alone(command: Command) -> tuple[Store, str]:
    """A store with one run that nobody has claimed yet."""
    store = Store(command.folder / "results")
    store.register(RUN, RECIPE, {}, {})
    return store, RUN
