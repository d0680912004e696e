"""What a table says of rows that differ in more than they declare, of steps on a road, and of seeds added late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from studies import Study

from deit_ablate.report.declared import seeds_added_after_looking
from deit_ablate.report.summary import since
from deit_ablate.report.tables.table import Table, sweep_table
from deit_ablate.store import Store

SEEDS = {0: 90.0, 1: 90.2, 2: 90.4}


def body(table: Table) -> dict[str, dict[str, str]]:
    headers = [column.header for column in table.columns]
    return {row[0]: dict(zip(headers, row, strict=True)) for row in table.rows()}


def told(table: Table) -> list[str]:
    return [note for note in table.footnotes if note.startswith("Not isolated")]


def with_records(**more: Any) -> dict[int, Any]:
    return {seed: {"top1": top1, **more} for seed, top1 in SEEDS.items()}


def test_what_records_differ_in_is_told(study: Callable[..., Study]) -> None:
    usual: dict[str, Any] = {
        "git": {"commit": "a" * 40, "dirty": False},
        "hardware": {"gpu": "A100"},
        "packages": {"torch": "2.5", "timm": "1.0"},
    }
    other = {**usual, "hardware": {"gpu": "T4"}, "packages": {"torch": "2.6", "timm": "1.0"}}
    edited = {**usual, "git": {"commit": "a" * 40, "dirty": True}}
    made = study(
        {
            "base": with_records(provenance=usual, cost={"device": "cuda"}),
            "alike": with_records(provenance=usual, cost={"device": "cuda"}),
            "elsewhere": with_records(provenance=other),
            "edited": with_records(provenance=edited),
            "on a CPU": with_records(provenance={**usual, "hardware": {}}, cost={"device": "cpu"}),
            "deeper": with_records(provenance=usual, cost={"parameters": 420000}),
            "wider": with_records(provenance=usual, cost={"parameters": 420000}),
        },
        baseline="base",
        differs={"deeper": {"model.options.depth": [2, 4]}, "wider": {"augment.mixup": [0.2, 0]}},
    )
    (note,) = told(sweep_table(made.summary()))
    assert note.startswith("Not isolated, differs along with what is declared: ")
    assert "elsewhere: GPU A100 → T4" in note
    assert "elsewhere: package versions timm 1.0, torch 2.5 → timm 1.0, torch 2.6" in note
    assert "edited: git commit" in note
    assert "wider: parameters 210000 → 420000" in note, "of a row that says nothing about its model"
    assert "on a CPU: device cuda → cpu" in note
    assert "deeper" not in note, "a deeper model has more parameters: that is what it declares"
    assert "alike" not in note
    leaks = made.summary().frame.set_index("variant")["leaks"]
    assert leaks["wider"] == "parameters 210000 → 420000"
    assert leaks["base"] == leaks["alike"] == leaks["deeper"] == ""


def test_what_all_rows_have_is_said_once(study: Callable[..., Study]) -> None:
    new, old = ({"git": {"commit": letter * 40, "dirty": False}} for letter in "ba")
    rows = {name: with_records(provenance=new) for name in ("one", "two", "three")}
    made = study({"base": with_records(provenance=old), **rows}, baseline="base")
    assert told(sweep_table(made.summary())) == [
        "Not isolated, differs along with what is declared: all rows: git commit."
    ]


def test_strict_prints_the_table_and_fails(study: Callable[..., Study], command: Any) -> None:
    rows = {
        "base": with_records(),
        "a": with_records(provenance={"hardware": {"gpu": "T4"}}),
        "b": with_records(cost={"parameters": 1}),
    }
    study(rows, baseline="base")
    done = command("table", "study", "--strict", code=1)
    assert done.stdout.startswith("# A study")
    assert "error: b is not isolated: parameters 210000 → 1\n" in done.stderr
    assert "error: a" not in done.stderr, "the baseline's GPU is not known"
    command("table", "study")


def test_a_road_step_by_step(study: Callable[..., Study]) -> None:
    rows = {"baseline": 90.0, "+mixup": 91.0, "+erasing": 93.0, "+no mixup": 92.5}
    differs = {
        "+mixup": {"augment.mixup": [0, 0.8]},
        "+erasing": {"augment.mixup": [0, 0.8], "augment.erasing": [0, 0.25]},
        "+no mixup": {"augment.erasing": [0, 0.25]},
    }
    made = study(
        {name: {seed: mean + shift for seed, shift in enumerate((-0.1, 0.0, 0.1))} for name, mean in rows.items()},
        kind="cumulative",
        baseline="baseline",
        differs=differs,
        margin=0.5,
    )
    table = sweep_table(made.summary())
    found = body(table)
    # Four groups of variance 0.01: 0.01 / ln 2 is lent with 2.1 degrees of freedom: 0.012267 each, so steps are
    # known to √(2 × 0.012267 / 3) × t(0.975, 2 × 4.1) = 0.21.
    assert [row["step"] for row in found.values()] == ["–", "+1.00 ± 0.21", "+2.00 ± 0.21", "−0.50 ± 0.21"]
    assert [row["difference"].split()[0] for row in found.values()] == ["–", "+1.00", "+3.00", "+2.50"]
    assert [row["differs in"] for row in found.values()] == [
        "–",
        "augment.mixup 0 → 0.8",
        "augment.erasing 0 → 0.25",
        "augment.mixup 0.8 → 0",
    ]
    assert any(note.startswith("Each row has the changes of those above; step:") for note in table.footnotes)


def test_differences_from_the_row_before() -> None:
    before = {"a": (0, 1), "b": (0, 1)}
    assert since({"a": (0, 1), "b": (0, 2), "c": (0, 3)}, before) == {"b": (1, 2), "c": (0, 3)}
    assert since({"a": (0, 1)}, before) == {"b": (1, 0)}
    assert since({}, {}) == {}


# -- looks ---------------------------------------------------------------------------------------------------------


def six_seeds(gap: float) -> dict[str, dict[int, float]]:
    shifts = (0.0, 0.3, -0.2, 0.1, -0.1, 0.2)
    base = {seed: 90 + shift for seed, shift in enumerate(shifts)}
    return {
        "base": base,
        "much worse": {seed: value - 10 - 0.05 * seed for seed, value in base.items()},
        "unclear": {seed: value + gap * (-1) ** seed for seed, value in base.items()},
    }


def test_looks_over_runs_that_were_done_before_say_so_and_which_they_saw(study: Callable[..., Study]) -> None:
    rows = six_seeds(1.0)
    made = study(rows, baseline="base", margin=0.5, looks=[3, 5])
    made.store.sweeps.declare("study", {"seeds": {"": list(range(5))}, "looks": [3, 5], "margin": 0.5}, 18)
    notes = "\n".join(sweep_table(made.summary()).footnotes)
    assert "Looked at as planned when 18 of its runs were done already: look 2 of 2 (5 of 5 seeds)." in notes
    assert "the sweep declares (when 18 of its runs were done already), ±0.5 points" in notes
    assert "by the first runs of a row and of the baseline, up to the row's last look" in notes
    assert "fewer runs than the means: much worse 3 of 6 with 5 of 6, unclear 5 of 6 with 5 of 6 of the" in notes


def test_a_row_without_runs_has_no_note_on_its_seeds(study: Callable[..., Study]) -> None:
    failed = {seed: {"status": "failed", "reason": "crash"} for seed in range(3)}
    made = study({"base": {0: 50.0, 1: 50.0, 2: 50.0}, "bad": failed}, baseline="base")
    assert "bad: its seeds agree" not in "\n".join(sweep_table(made.summary()).footnotes)


def test_the_title_says_what_the_command_line_set(study: Callable[..., Study]) -> None:
    made = study({"base": {0: 50.0}}, title="Rows")
    plan = made.store.sweeps.plan("study")
    assert plan
    made.store.sweeps.save_plan("study", plan | {"profile": "digits", "asked": {"sets": ["schedule.epochs=2"]}})
    assert sweep_table(made.summary()).title == "Rows, profile digits, schedule.epochs=2"


def test_declared_looks_are_kept_count_in_the_table_and_name_the_next_step(study: Callable[..., Study]) -> None:
    rows = {name: {seed: own[seed] for seed in range(3)} for name, own in six_seeds(1.0).items()}
    made = study(rows, baseline="base", margin=0.5, looks=[3, 6, 9, 12])
    made.store.sweeps.declare("study", {"seeds": {"": [0, 1, 2]}, "looks": [3, 6, 9, 12]}, 0)
    assert [plan["looks"] for plan in made.store.sweeps.declared("study")] == [[3, 6, 9, 12]]
    table = sweep_table(made.summary())
    notes = "\n".join(table.footnotes)
    assert "Looked at as planned before the first run: look 1 of 4 (3 of 12 seeds)." in notes
    assert "Rows stopped at 3 overstate their effect (much worse)." in notes
    assert 'Go on with: --seeds 6 --only "base" --only "unclear"' in notes
    assert body(table)["unclear"]["verdict"] == "undecided at look 1 of 4; goes on to 6 seeds"
    assert "added after looking" not in notes
    made.store.sweeps.declare("study", {"seeds": {"": list(range(6))}, "looks": [3, 6, 9, 12]}, 9)
    assert not seeds_added_after_looking(made.summary().declared, ""), "the next look's seeds were planned"
    made.store.sweeps.declare("study", {"seeds": {"": list(range(13))}, "looks": [3, 6, 9, 12]}, 12)
    assert seeds_added_after_looking(made.summary().declared, ""), "13 is more than was planned"


def test_a_look_waits_until_all_of_it_has_ended(study: Callable[..., Study]) -> None:
    rows: dict[str, Any] = {name: {seed: own[seed] for seed in range(3)} for name, own in six_seeds(1.0).items()}
    rows["unclear"][2] = "running"
    made = study(rows, baseline="base", looks=[3, 6])
    table = sweep_table(made.summary())
    assert body(table)["much worse"]["verdict"] == "waits for look 1 of 2, at 3 seeds"
    assert any("look 0 of 2 (0 of 6 seeds)" in note for note in table.footnotes)


def planned_then(made: Study, *plans: tuple[int, int]) -> list[str]:
    """The footnotes on late seeds after plans of (seeds, runs that had finished then)."""
    for seeds, finished in plans:
        Store(made.root).sweeps.declare("study", {"seeds": {"": list(range(seeds))}}, finished)
    return [note for note in sweep_table(made.summary()).footnotes if "added after looking" in note]


def test_seeds_added_after_runs_had_finished_are_told(study: Callable[..., Study]) -> None:
    made = study({"base": SEEDS, "a": SEEDS}, baseline="base")
    assert planned_then(made, (3, 0)) == []
    assert planned_then(made, (3, 6)) == [], "the same plan again"
    assert planned_then(made, (5, 6)) == ["Seeds were added after looking; 5% no longer holds."]


def test_seeds_added_before_anything_was_known_are_not(study: Callable[..., Study]) -> None:
    made = study({"base": SEEDS, "a": SEEDS}, baseline="base")
    assert planned_then(made, (2, 0), (3, 0)) == []
    assert planned_then(made, (2, 6)) == [], "fewer seeds than were planned"
