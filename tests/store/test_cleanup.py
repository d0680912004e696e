"""What may be thrown away, and a run that is forgotten."""

from __future__ import annotations

import json

import pytest
from support import claimed_by_another, end_attempts, state

from deit_ablate import files
from deit_ablate.store import Attempt, Refused, State, Store, cleanup


def finished(store: Store, run: str) -> Attempt:
    end_attempts(store, run, "interrupted", checkpoint=1)
    attempt = store.claim(run)
    for name in ("ckpt.pt", "ckpt.prev", "arrays.npz", f"{files.TEMPORARY}left-over"):
        (attempt.path / name).write_bytes(b"x" * 100)
    store.finish(run, attempt, {"status": "done", "reason": None, "metrics": {}, "cost": {}})
    attempt.close("done")
    return attempt


def test_what_may_be_thrown_away(store: Store, run: str) -> None:
    attempt = finished(store, run)
    names = {
        keep: {str(path.relative_to(store.run(run))) for path in cleanup.disposable(store, run, keep)}
        for keep in ("final", "none", "all")
    }
    left_over = f"a0002/{files.TEMPORARY}left-over"
    assert names["final"] == {"a0001/ckpt.pt", "a0002/ckpt.prev", left_over}
    assert names["none"] == {*names["final"], "a0002/ckpt.pt"}
    assert names["all"] == set()
    assert store.weights(run) == attempt.checkpoint


def test_what_programs_kept_for_a_next_attempt_may_be_thrown_away_and_their_output_stays(
    store: Store, run: str
) -> None:
    end_attempts(store, run, "interrupted", checkpoint=1)
    attempt = store.claim(run)
    for folder in (store.attempt(run, 1).output, attempt.output, attempt.kept):
        files.make_folder(folder / "x")
        (folder / "x" / "weights.pt").write_bytes(b"x")
    store.finish(run, attempt, {"status": "done", "reason": None, "metrics": {}, "cost": {}})
    attempt.close("done")
    for keep in ("final", "none"):
        names = {str(path.relative_to(store.run(run))) for path in cleanup.disposable(store, run, keep)}
        assert names == {"a0001/ckpt.pt", "a0001/output/x/weights.pt", "a0002/checkpoint/x/weights.pt"}
    assert store.weights(run) == attempt.output


def test_nothing_of_an_unfinished_run_is_thrown_away(store: Store, run: str) -> None:
    end_attempts(store, run, "interrupted", checkpoint=1)
    assert list(cleanup.disposable(store, run, "none")) == []


def test_a_run_is_forgotten_only_when_nobody_can_be_at_it(store: Store, run: str) -> None:
    process = claimed_by_another(store, run)
    with pytest.raises(Refused, match="may still be alive"):
        cleanup.forget(store, run)
    store.attempts(run)[0].close("released")
    with pytest.raises(Refused, match="may still be alive"):
        cleanup.forget(store, run)
    process.kill()
    process.wait()
    cleanup.forget(store, run)
    assert state(store, run) == State("missing")
    assert cleanup.trash(store)
    cleanup.empty_trash(store)
    assert list((store.root / "trash").iterdir()) == []


def test_records_hold_no_absolute_paths_of_the_store(store: Store, run: str) -> None:
    finished(store, run)
    for path in store.root.rglob("*.json"):
        assert str(store.root) not in path.read_text()
    moved = store.root.rename(store.root.with_name("moved"))
    assert Store(moved).states({run: []})[run].name == "done"
    assert json.loads((moved / "runs" / run / "outcome.json").read_text())["schema"] == 1


def test_of_the_cache_only_kept_answers_are_thrown_away(store: Store) -> None:
    """Earlier versions let a sweep be called ``cache``, whose results lie in the folder."""
    folder = store.root / "cache"
    folder.mkdir(parents=True)
    for name in ("answers-0a", "plan.json", "table.md"):
        (folder / name).write_text("{}")
    assert [path.name for path in cleanup.cache(store)] == ["answers-0a"]
