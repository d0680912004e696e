"""The run store: who may claim what, what a state is, and what is kept: with real files and real processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import wait_for

from deit_ablate import files
from deit_ablate.identity import canonical, run_id
from deit_ablate.recipe import Recipe
from deit_ablate.store import Attempt, Refused, State, Store, cleanup, owner

RECIPE = canonical(Recipe())
RUN = run_id(RECIPE, {})


@pytest.fixture
def run(store: Store) -> str:
    store.register(RUN, RECIPE, {}, {})
    return RUN


def state(store: Store, run: str) -> State:
    return store.states({run: []})[run]


def claimed_by_another(store: Store, run: str) -> subprocess.Popen[str]:
    """A process that has claimed the run and now waits."""
    code = (
        "import sys, time; from deit_ablate.store import Store\n"
        "Store(sys.argv[1]).claim(sys.argv[2]); print('claimed', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(store.root), run], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "claimed\n"
    return process


# -- files ---------------------------------------------------------------------------------------------------------------


def test_the_first_to_publish_wins_and_nothing_is_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    assert files.publish(path, b"1")
    assert not files.publish(path, b"2")
    assert path.read_bytes() == b"1"
    assert os.listdir(tmp_path) == ["x.json"]


def _publish(argument: tuple[str, int]) -> bool:
    path, number = argument
    return files.publish(Path(path), str(number).encode())


def test_of_many_who_publish_at_once_one_wins(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(8) as pool:
        for name in range(20):
            path = str(tmp_path / str(name))
            won = pool.map(_publish, [(path, number) for number in range(8)], chunksize=1)
            assert sum(won) == 1
            assert Path(path).read_bytes() == str(won.index(True)).encode()


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    files.append_line(path, '{"epoch": 0}')
    files.append_line(path, '{"epoch": 1}')
    with open(path, "ab") as handle:
        handle.write(b'{"epoch": 2, "top')
    assert files.read_lines(path) == [{"epoch": 0}, {"epoch": 1}]


def test_folders_are_made_for_the_owner_alone(store: Store, run: str) -> None:
    assert store.run(run).stat().st_mode & 0o077 == 0


# -- claims --------------------------------------------------------------------------------------------------------------


def test_a_run_is_claimed_once(store: Store, run: str) -> None:
    attempt = store.claim(run)
    assert attempt.number == 1
    with pytest.raises(Refused, match="has not ended"):
        store.claim(run)
    assert state(store, run) == State("running", attempt=1)


def test_a_killed_owner_is_replaced_and_its_attempt_closed(store: Store, run: str) -> None:
    process = claimed_by_another(store, run)
    process.kill()
    process.wait()
    attempt = store.claim(run)
    assert attempt.number == 2
    exits = [a.exit for a in store.attempts(run)]
    assert exits[0] is not None
    assert exits[0]["class"] == "interrupted"
    assert exits[1] is None


def test_a_zombie_is_gone_and_a_stopped_process_is_not(store: Store, run: str) -> None:
    process = claimed_by_another(store, run)
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(Refused, match="has not ended"):
        store.claim(run)
    process.kill()  # not waited for: a zombie
    wait_for(lambda: owner.start_time(process.pid) is None)
    assert store.claim(run).number == 2
    process.wait()


@pytest.mark.parametrize(
    ("changed", "gone"),
    [
        ({"pid": 2**22 + 1}, True),
        ({"started": "1"}, True),  # another process has the pid by now
        ({"host": "elsewhere", "machine": "other", "boot": "other", "pid": 2**22 + 1}, False),
        ({"pid_namespace": "pid:[1]", "pid": 2**22 + 1}, False),  # another container on this machine
        ({"boot": "an earlier one"}, True),  # this machine has booted since
        ({"boot": "an earlier one", "host": "a clone with the same machine-id"}, False),
    ],
)
def test_only_proof_makes_an_owner_gone(changed: dict[str, Any], gone: bool) -> None:
    assert owner.provably_gone({**owner.identify(), **changed}) is gone


def test_a_restarted_scheduler_job_takes_its_own_run_over(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {**owner.identify(), "host": "node1", "machine": "m1", "boot": "b1", "job": {"id": "7", "restarts": 0}}
    assert not owner.provably_gone(there)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert owner.provably_gone(there)
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    assert not owner.provably_gone(there)


def _claim(argument: tuple[str, str]) -> int | None:
    try:
        return Store(argument[0]).claim(argument[1]).number
    except Refused:
        return None


def test_of_many_who_claim_at_once_one_wins(store: Store) -> None:
    with multiprocessing.get_context("fork").Pool(8) as pool:
        for seed in range(15):
            recipe = {**RECIPE, "seed": seed}
            run = run_id(recipe, {})
            store.register(run, recipe, {}, {})
            numbers = pool.map(_claim, [(str(store.root), run)] * 8, chunksize=1)
            assert sorted(number for number in numbers if number) == [1]


def test_an_empty_folder_is_no_attempt(store: Store, run: str) -> None:
    (store.run(run) / "a0001").mkdir()
    assert state(store, run).name == "missing"
    assert store.claim(run).number == 1


def test_finished_and_cancelled_runs_are_not_claimed(store: Store, run: str) -> None:
    store.cancel(run)
    assert state(store, run) == State("cancelled")
    with pytest.raises(Refused, match="cancelled"):
        store.claim(run)
    store.uncancel(run)
    attempt = store.claim(run)
    assert store.finish(run, attempt, {"status": "done", "reason": None})
    assert not store.finish(run, Attempt(2, attempt.path), {"status": "diverged", "reason": None}), (
        "the first outcome stands"
    )
    assert state(store, run) == State("done", attempt=1)
    with pytest.raises(Refused, match="already finished"):
        store.claim(run)


def test_a_later_attempt_ends_an_earlier_one(store: Store, run: str) -> None:
    first = store.claim(run)
    assert store.overtaken(run, first) is None
    first.close("released")
    second = store.claim(run)
    assert store.overtaken(run, first) == "superseded"
    assert store.overtaken(run, second) is None
    store.cancel(run)
    assert store.overtaken(run, second) == "cancelled"


def test_the_history_is_the_outcomes_attempts(store: Store, run: str) -> None:
    first = store.claim(run)
    files.append_line(first.metrics, '{"epoch": 0}')
    first.close("released")
    second = store.claim(run)
    files.append_line(second.metrics, '{"epoch": 0, "second": true}')
    assert store.history(run) == [{"epoch": 0, "second": True}]
    store.finish(run, first, {"status": "done", "reason": None})
    assert store.history(run) == [{"epoch": 0}]


# -- states --------------------------------------------------------------------------------------------------------------


def attempts(store: Store, run: str, *ends: str, checkpoint: int | None = None, retry: int | None = None) -> None:
    for number, how in enumerate(ends, 1):
        attempt = store.claim(run, retry=number == retry)
        if number == checkpoint:
            attempt.checkpoint.write_bytes(b"x")
        attempt.close(how)


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
    attempts(store, run, *ends, **more)
    assert str(state(store, run)) == expected


def test_children_wait_for_parents_and_are_blocked_by_failed_ones(store: Store, run: str) -> None:
    parents = {"teacher": {"run": run, "weights": "last"}}
    child = run_id(RECIPE, parents)
    dag: dict[str, list[str]] = {run: [], child: [run]}
    assert store.states(dag)[child] == State("waiting", run)
    attempt = store.claim(run)
    assert store.states(dag)[child] == State("waiting", run)
    attempt.close("crash")
    assert store.states(dag)[child] == State("blocked", run)
    again = store.claim(run, retry=True)
    assert store.states(dag)[child] == State("waiting", run)
    store.finish(run, again, {"status": "diverged", "reason": "test top-1 at chance"})
    assert store.states(dag)[child] == State("missing"), "a teacher at chance is a result, and still teaches"


def test_a_parent_that_ended_at_a_non_finite_loss_blocks(store: Store, run: str) -> None:
    store.finish(run, store.claim(run), {"status": "diverged", "reason": "non-finite loss at step 3"})
    assert store.states({run: [], "c" * 16: [run]})["c" * 16].name == "blocked"


def test_states_of_runs_that_were_never_started_touch_nothing(store: Store) -> None:
    assert store.states({"a" * 16: []})["a" * 16] == State("missing")
    assert not store.root.exists()


# -- keeping ---------------------------------------------------------------------------------------------------------------


def finished(store: Store, run: str) -> Attempt:
    attempts(store, run, "interrupted", checkpoint=1)
    attempt = store.claim(run)
    for name in ("ckpt.pt", "ckpt.prev", "arrays.npz", f"{files.TEMPORARY}left-over"):
        (attempt.path / name).write_bytes(b"x" * 100)
    store.finish(run, attempt, {"status": "done", "reason": None})
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


def test_nothing_of_an_unfinished_run_is_thrown_away(store: Store, run: str) -> None:
    attempts(store, run, "interrupted", checkpoint=1)
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


def test_planned_seeds_are_recorded_when_they_change(store: Store) -> None:
    store.sweeps.plan_seeds("x", {"": [0, 1, 2]}, 0)
    store.sweeps.plan_seeds("x", {"": [0, 1, 2]}, 3)
    store.sweeps.plan_seeds("x", {"": [0, 1, 2, 3]}, 3)
    assert [(plan["seeds"], plan["finished_runs_then"]) for plan in store.sweeps.planned_seeds("x")] == [
        ({"": [0, 1, 2]}, 0),
        ({"": [0, 1, 2, 3]}, 3),
    ]


def test_data_is_pinned_by_the_first_run(store: Store) -> None:
    assert store.pin_data("flowers", {"fingerprint": "a"})["fingerprint"] == "a"
    assert store.pin_data("flowers", {"fingerprint": "b"})["fingerprint"] == "a"


def test_records_hold_no_absolute_paths_of_the_store(store: Store, run: str) -> None:
    finished(store, run)
    for path in store.root.rglob("*.json"):
        assert str(store.root) not in path.read_text()
    moved = store.root.rename(store.root.with_name("moved"))
    assert Store(moved).states({run: []})[run].name == "done"
    assert json.loads((moved / "runs" / run / "outcome.json").read_text())["schema"] == 1
