"""The run store: who may claim what, and what a state is: with real files and real processes."""

from __future__ import annotations

import multiprocessing

import pytest
from support import RECIPE, claimed_by_another, state

from deit_ablate import files
from deit_ablate.errors import InputError
from deit_ablate.identity import SEMANTICS, run_id
from deit_ablate.store import Attempt, Refused, State, Store

EMPTY: dict[str, object] = {"metrics": {}, "cost": {}}


def test_folders_are_made_for_the_owner_alone(store: Store, run: str) -> None:
    assert store.run(run).stat().st_mode & 0o077 == 0


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
    assert store.finish(run, attempt, {"status": "done", "reason": None, **EMPTY})
    assert not store.finish(run, Attempt(2, attempt.path), {"status": "diverged", "reason": None, **EMPTY}), (
        "the first outcome stands"
    )
    assert state(store, run) == State("done", attempt=1)
    with pytest.raises(Refused, match="already finished"):
        store.claim(run)


def test_the_history_is_the_outcomes_attempts(store: Store, run: str) -> None:
    first = store.claim(run)
    files.append_line(first.metrics, '{"epoch": 0}')
    first.close("released")
    second = store.claim(run)
    files.append_line(second.metrics, '{"epoch": 0, "second": true}')
    assert store.history(run) == [{"epoch": 0, "second": True}]
    store.finish(run, first, {"status": "done", "reason": None, **EMPTY})
    assert store.history(run) == [{"epoch": 0}]


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
    earlier = {"status": "diverged", "reason": "test top-1 of 9.00% is at chance (under 14.50%)"}
    store.finish(run, again, {**earlier, **EMPTY})
    assert store.states(dag)[child] == State("missing"), "a teacher at chance is a result, and still teaches"


def test_a_parent_that_ended_at_a_non_finite_loss_blocks(store: Store, run: str) -> None:
    store.finish(run, store.claim(run), {"status": "diverged", "reason": "non-finite loss at step 3", **EMPTY})
    assert store.states({run: [], "c" * 16: [run]})["c" * 16].name == "blocked"


def test_states_of_runs_that_were_never_started_touch_nothing(store: Store) -> None:
    assert store.states({"a" * 16: []})["a" * 16] == State("missing")
    assert not store.root.exists()


def test_data_is_pinned_by_the_first_run(store: Store) -> None:
    assert store.pin_data("flowers", {"fingerprint": "a"})["fingerprint"] == "a"
    assert store.pin_data("flowers", {"fingerprint": "b"})["fingerprint"] == "a"


def test_a_run_whose_recipe_meant_another_training_is_refused_in_one_line(store: Store) -> None:
    earlier = run_id(RECIPE, {}, semantics=SEMANTICS - 1)
    with pytest.raises(InputError, match=rf"{earlier} was planned by a version in which .* SEMANTICS {SEMANTICS} "):
        store.register(earlier, RECIPE, {}, {})
    assert earlier not in store.runs()
    store.register(run := run_id({**RECIPE, "seed": 77}, {}), {**RECIPE, "seed": 77}, {}, {})
    stored = store.recipe(run)
    assert stored is not None
    assert stored["semantics"] == SEMANTICS
