"""What the store holds of a sweep."""

from __future__ import annotations

from deit_ablate.store import Store


def test_planned_seeds_are_recorded_when_they_change(store: Store) -> None:
    store.sweeps.declare("x", {"seeds": {"": [0, 1, 2]}}, 0)
    store.sweeps.declare("x", {"seeds": {"": [0, 1, 2]}}, 3)
    store.sweeps.declare("x", {"seeds": {"": [0, 1, 2, 3]}}, 3)
    assert [(plan["seeds"], plan["finished_runs_then"]) for plan in store.sweeps.declared("x")] == [
        ({"": [0, 1, 2]}, 0),
        ({"": [0, 1, 2, 3]}, 3),
    ]
