"""What a study declared before it was run, and what was changed with results at hand."""

from __future__ import annotations

from collections.abc import Callable

from studies import Study

from deit_ablate.report.declared import before_running, changes
from deit_ablate.report.html import page
from deit_ablate.report.tables.table import sweep_table

FIRST = {"seeds": {"": [0, 1, 2]}, "margin": 0.5, "baseline": "base", "baseline_seeds": 3, "rows": ["base", "a", "sgd"]}


def test_what_was_changed_after_runs_had_ended_is_told(study: Callable[..., Study]) -> None:
    three = {seed: 90.0 + seed / 10 for seed in range(3)}
    made = study({"base": three, "a": three}, baseline="base", margin=2)
    declare = made.store.sweeps.declare
    declare("study", FIRST, 0)
    assert not any("results at hand" in note for note in sweep_table(made.summary()).footnotes)
    assert any("declares (since before its first run), ±2" in note for note in sweep_table(made.summary()).footnotes)
    assert "which was declared before running" in page(made.summary())
    declare("study", {**FIRST, "margin": 2, "rows": ["base", "a"]}, 9)
    told = "margin changed from 0.5 to 2 after 9 runs were done; row sgd removed after 9 runs were done"
    assert f"Changed with results at hand: {told}." in sweep_table(made.summary()).footnotes
    assert not any("since before" in note for note in sweep_table(made.summary()).footnotes)
    assert "which was declared before running" not in page(made.summary())


def test_what_was_changed_before_anything_had_ended_is_not() -> None:
    again = {**FIRST, "margin": None, "finished_runs_then": 0}
    assert changes([{**FIRST, "finished_runs_then": 0}, again]) == []
    assert not before_running([{**FIRST, "finished_runs_then": 0}, again], "margin")


def test_stores_of_earlier_versions_say_nothing_of_what_they_did_not_record() -> None:
    before = {"seeds": {"": [0]}, "looks": None, "finished_runs_then": 0}
    assert changes([before, {**FIRST, "finished_runs_then": 3}]) == []
    assert not before_running([before], "margin")


def test_another_metric_is_told_and_takes_the_margin_with_it() -> None:
    first = {**FIRST, "metric": None, "finished_runs_then": 0}
    told = ["metric changed from top1 to loss after 9 runs were done"]
    assert changes([first, {**first, "metric": "loss", "finished_runs_then": 9}]) == told
    assert changes([{**FIRST, "finished_runs_then": 0}, {**first, "metric": "loss", "finished_runs_then": 9}]) == told
    assert changes([{**FIRST, "finished_runs_then": 0}, {**first, "finished_runs_then": 9}]) == []
    changed = [first, {**first, "metric": "loss", "finished_runs_then": 9}]
    assert not before_running(changed, "metric")
    assert not before_running(changed, "margin")
    assert before_running([first, {**first, "rows": ["base"]}], "margin")
