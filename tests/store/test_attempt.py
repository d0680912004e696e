"""Attempts: how they end, and what a run's attempts add up to."""

from __future__ import annotations

import pytest
from support import end_attempts, state

from deit_ablate.store import Store


def test_a_later_attempt_ends_an_earlier_one(store: Store, run: str) -> None:
    first = store.claim(run)
    assert store.overtaken(run, first) is None
    first.close("released")
    second = store.claim(run)
    assert store.overtaken(run, first) == "superseded"
    assert store.overtaken(run, second) is None
    store.cancel(run)
    assert store.overtaken(run, second) == "cancelled"


@pytest.mark.parametrize(
    ("ends", "more", "expected"),
    [
        ([], {}, "missing"),
        (["interrupted"], {}, "resumable (interrupted)"),
        (["preempted"], {}, "resumable (preempted)"),
        (["superseded"], {}, "resumable (superseded)"),
        (["crash"], {}, "failed (crash)"),
        (["storage-full"], {}, "resumable (storage-full)"),
        (["storage-full"] * 2, {}, "failed (storage-full)"),
        (["bad-recipe"], {}, "failed (bad-recipe)"),
        (["killed"], {}, "resumable (killed)"),
        (["killed", "killed"], {}, "failed (killed)"),
        (["killed", "interrupted", "killed"], {"checkpoint": 2}, "resumable (killed)"),
        (["killed", "interrupted"], {}, "resumable (interrupted)"),
        (["interrupted"] * 3, {}, "failed (no-progress)"),
        (["interrupted"] * 3, {"checkpoint": 1}, "resumable (interrupted)"),
        (["interrupted"] * 4, {"checkpoint": 1}, "failed (no-progress)"),
        (["superseded"] * 5, {}, "resumable (superseded)"),
        (["crash", "interrupted"], {"retry": 2}, "resumable (interrupted)"),
        (["killed", "killed", "killed"], {"retry": 3, "checkpoint": 2}, "resumable (killed)"),
    ],
)
def test_what_a_runs_attempts_add_up_to(
    store: Store, run: str, ends: list[str], more: dict[str, int], expected: str
) -> None:
    end_attempts(store, run, *ends, **more)
    assert str(state(store, run)) == expected
