import json
import math

import pytest

from deit_ablate import files
from deit_ablate.report.summary import STATISTICS, differs_in
from deit_ablate.report.tables.table import measure, sweep_table


def body(table):
    return {row[0]: dict(zip([column.header for column in table.columns], row, strict=True)) for row in table.rows()}


def test_the_example_by_hand(optimizers):
    # t(2) = 4.3027, t(1) = 12.7062. adamw 97 98 99: 98 ± 4.3027/√3. sgd 95 97: 96 ± 12.7062·1. lamb 98 99.5: 98.75 ±
    # 12.7062·0.75. Their variances 1, 2 and 1.125 over the medians of a chi-square, 0.69315 of 2 degrees of freedom and
    # 0.45494 of 1, are 1.4427, 4.3962 and 2.4729, of which the middle one is lent with 1.4 degrees of freedom: adamw
    # (1.4·2.4729 + 2)/3.4 = 1.6065, sgd (1.4·2.4729 + 2)/2.4 = 2.2758, lamb (1.4·2.4729 + 1.125)/2.4 = 1.9113.
    # sgd: ±√(2.2758/2 + 1.6065/3) · t(4.49), lamb: ±√(1.9113/2 + 1.6065/3) · t(4.64), degrees by Satterthwaite.
    rows = body(sweep_table(optimizers.summary()))
    assert list(rows) == ["adamw (baseline)", "sgd", "lamb"]
    assert [row["test top-1 (%)"] for row in rows.values()] == ["98.00 ± 2.48", "96.00 ± 12.71*", "98.75 ± 9.53"]
    assert [row["difference"] for row in rows.values()] == ["–", "−2.00 ± 3.44", "+0.75 ± 3.18"]
    assert [row["seeds"] for row in rows.values()] == ["3", "2 of 3", "2 of 3"]
    assert [row["time (s)"] for row in rows.values()] == ["30.0"] * 3
    # 3 runs of 30 s, the diverged one among them; of lamb two, as what a failed run took is not recorded.
    assert [row["CPU-hours"] for row in rows.values()] == ["0.025", "0.025", "0.017"]
    assert [row["verdict"] for row in rows.values()] == [
        "–",
        "undecided: 1 of 3 diverged (0.8–91%); 2 runs are too few; add a seed",
        "2 runs: too few for a verdict",
    ]
    assert rows["sgd"]["differs in"] == "optimizer: adamw → sgd; base_lr 0.03 → 0.8; momentum = 0.9"


def test_the_example_says_what_it_stands_on(optimizers):
    table = sweep_table(optimizers.summary())
    assert table.title == "Optimizer ablation, profile digits"
    assert table.footnotes == (
        "± is the half-width of a 95% t interval over seeds.",
        "Differences are judged by all runs of a row and all of the baseline's (Welch 1947); variances are moderated "
        "by those of the other rows (after Smyth 2004), and verdicts adjusted over the table's rows (Holm 1979).",
        "The sweep declares no margin, so no row is called equivalent.",
        "Intervals and verdicts cover training noise only, not the finite test set that all rows share.",
        "sgd: 1 of 3 diverged (0.8–91%): the difference is that of runs that converge, about 0.4 sd too good if "
        "it is the "
        "worst fifth of runs that diverges.",
        "Top-1 on the test split (599 images) at the last epoch, raw weights.",
        "Time is the mean training time of the runs that are done.",
        "* Mean over the runs that converged. sgd: 1 of 3 diverged (seed 2: non-finite loss).",
        "Failed: lamb seed 2 (crash).",
    )


def test_raw_values_have_a_column_each(optimizers):
    frame = sweep_table(optimizers.summary()).frame
    assert list(frame) == list(STATISTICS)
    assert frame["top1_half_width"][0] == pytest.approx(4.302653 / math.sqrt(3), abs=1e-6)
    assert list(frame["runs_compared"]) == [0, 2, 2]
    assert list(frame["baseline_runs_compared"]) == [0, 3, 3]
    assert list(frame["paired"]) == [False] * 3
    assert list(frame["diverged"]) == [0, 1, 0]


def test_diverged_runs_are_never_averaged_in(study):
    dead = {"status": "diverged", "top1": 10.0, "reason": "at chance"}
    table = sweep_table(
        study({"a": {0: 90.0, 1: dead}, "b": {0: dead, 1: dead}, "c": {0: dead, 1: "running"}}).summary()
    )
    rows = body(table)
    assert [row["test top-1 (%)"] for row in rows.values()] == ["90.00*", "did not train", "–"]
    assert "* Mean over the runs that converged. a: 1 of 2 diverged (seed 1: at chance)." in table.footnotes
    assert (
        "No mean: b: 2 of 2 diverged (seed 0: at chance, seed 1: at chance); c: 1 of 2 diverged (seed 0: at chance)."
        in table.footnotes
    )
    assert "Running: c seed 1." in table.footnotes


def test_runs_that_diverged_leave_fewer_to_compare(study):
    lost = {"status": "diverged", "reason": "non-finite loss"}
    rows = {"base": {0: 90.0, 1: lost, 2: 90.5}, "a": {0: 91.0, 1: 92.0, 2: 91.5}, "ema": {0: 90.0, 1: lost, 2: 90.5}}
    made = study(rows, baseline="base", same={"ema": "base"}, shows={"ema": "ema"})
    assert body(sweep_table(made.summary()))["a"]["difference"].startswith("+1.25")  # 91.5 less 90.25
    row = {entry["variant"]: entry for entry in made.summary().rows}
    assert (row["a"]["runs_compared"], row["a"]["baseline_runs_compared"], row["a"]["paired"]) == (3, 2, False)
    assert row["ema"]["paired"]


def test_a_value_at_chance_is_used_and_said(study):
    low = {"top1": 10.0, "test": {"classes": 10}}
    table = sweep_table(study({"a": {0: {"top1": 90.0, "test": {"classes": 10}}, 1: low}}).summary())
    assert body(table)["a"]["test top-1 (%)"].startswith("50.00 ±")
    expected = "At chance (top-1 not above 1 in 10 over 599 images, exact binomial test at 5%): a seed 1."
    assert expected in table.footnotes


def test_a_row_whose_weights_are_the_baselines_changed_nothing(study):
    rows = {name: {seed: 90.0 + seed for seed in range(3)} for name in ("base", "idle", "other", "ema")}
    rows["cropped"] = {seed: 91.0 - seed for seed in range(3)}  # evaluated in another way
    made = study(rows, baseline="base", margin=2, same={"ema": "base"}, shows={"ema": "ema"})
    for seed in range(3):
        its = made.store.outcome(made.runs["base", seed])["weights_sha256"]
        for name in ("idle", "cropped"):
            run = made.store.run(made.runs[name, seed]) / "outcome.json"
            files.replace(run, files.to_json({**json.loads(run.read_text()), "weights_sha256": its}))
    rows = body(sweep_table(made.summary()))
    assert rows["idle"]["verdict"] == "changed nothing (weights identical at all seeds)"
    assert not any(rows[name]["verdict"].startswith("changed nothing") for name in ("other", "ema", "cropped"))


def test_rows_with_no_finished_run(study):
    table = sweep_table(
        study({"a": {0: "missing", 1: "missing"}, "b": {0: "running", 1: "failed"}}, baseline="a").summary()
    )
    for row in body(table).values():
        assert (row["test top-1 (%)"], row["difference"], row["time (s)"], row["seeds"]) == ("–", "–", "–", "0 of 2")
    assert table.footnotes == ("Failed: b seed 1 (crash).", "Missing: a seeds 0, 1.", "Running: b seed 0.")


def test_one_seed_has_no_interval(study):
    table = sweep_table(study({"a": {0: 90.0}, "b": {0: 91.0}}, baseline="a").summary())
    assert body(table)["b"]["test top-1 (%)"] == "91.00"
    assert body(table)["b"]["difference"] == "+1.00"
    assert "One seed gives no interval." in table.footnotes
    assert not any("±" in note for note in table.footnotes)


def test_without_a_baseline_there_are_no_differences(study):
    table = sweep_table(study({"a": {0: 90.0, 1: 91.0}}).summary())
    assert not any("erdict" in note for note in table.footnotes)
    assert "Intervals cover training noise only, not the finite test set that all rows share." in table.footnotes
    assert [column.header for column in table.columns] == [
        "variant",
        "test top-1 (%)",
        "time (s)",
        "CPU-hours",
        "seeds",
    ]


def test_rows_that_show_another_figure_say_so(study):
    heads = {"top1_class": 96.0, "top1_distillation": 95.0, "top1_ema": 94.0}
    names = {"class head": "class", "distillation head": "distillation", "averaged": "ema"}
    made = study(
        {name: {0: {"top1": 97.0, "test": heads}} for name in ("fused", *names)},
        shows=names,
        same=dict.fromkeys(names, "fused"),
        baseline="fused",
    )
    table = sweep_table(made.summary())
    assert [row["test top-1 (%)"] for row in body(table).values()] == ["97.00", "96.00", "95.00", "94.00"]
    assert body(table)["averaged"]["difference"] == "−3.00"
    assert (
        "Top-1 on the test split (599 images) at the last epoch, raw weights, heads fused where there are two."
        in table.footnotes
    )
    assert "Shows the class head alone: class head." in table.footnotes
    assert "Shows the moving average of the weights (EMA): averaged." in table.footnotes


def test_a_figure_that_was_not_recorded(study):
    table = sweep_table(study({"a": {0: 97.0}}, shows={"a": "ema"}).summary())
    assert body(table)["a"]["test top-1 (%)"] == "–"
    assert "Done without this figure: a seed 0." in table.footnotes


def test_conditional_on_one_teacher(study):
    made = study({"soft": {0: 96.0, 1: 97.0}, "hard": {0: 97.0, 1: 98.0}}, teacher=99.8)
    note = f"Conditional on one teacher (run {made.teacher}, seed 0), which all seeds of a row share."
    assert note in sweep_table(made.summary()).footnotes


def test_a_teacher_for_one_student_is_no_condition(study):
    assert not any(
        "Conditional" in note for note in sweep_table(study({"soft": {0: 96.0}}, teacher=99.8).summary()).footnotes
    )


def test_what_blocks_a_run_is_named(study):
    table = sweep_table(study({"soft": {0: "missing", 1: "missing"}}, teacher="failed").summary())
    assert "Blocked: soft seeds 0, 1 (teacher seed 0)." in table.footnotes


def test_many_missing_runs_are_counted(study):
    table = sweep_table(study({f"v{i}": {0: "missing"} for i in range(25)}).summary())
    assert table.footnotes[-1].startswith("Missing: v0 seed 0; v1 seed 0; ")
    assert table.footnotes[-1].endswith("v19 seed 0 and 5 more.")


@pytest.mark.parametrize(
    ("seconds", "header", "cell"),
    [(119.0, "time (s)", "119"), (600.0, "time (min)", "10.0"), (90000.0, "time (h)", "25.0")],
)
def test_the_unit_of_time(study, seconds, header, cell):
    table = sweep_table(study({"a": {0: {"top1": 90.0, "seconds": seconds}}}).summary())
    assert body(table)["a"][header] == cell


def test_differs_in_few_words():
    assert (
        differs_in({"augment.mixup": (0.8, 0), "augment.cutmix": (1, 0.30000000000000004)})
        == "augment.mixup 0.8 → 0; cutmix 1 → 0.3"
    )
    assert differs_in({"augment.auto_augment": ("rand-m9", None)}) == "augment.auto_augment rand-m9 → none"
    assert differs_in({"augment.crop_scale": ([0.08, 1], [0.5, 1])}) == "augment.crop_scale [0.08, 1] → [0.5, 1]"
    assert (
        differs_in({"model.options.depth": (4, 6), "model.name": ("deit", "vit")})
        == "model.depth 4 → 6; model: deit → vit"
    )
    assert (
        differs_in({"precision": ("fp32", "bf16"), "distill.type": ("none", "hard")})
        == "precision fp32 → bf16; distill.type none → hard"
    )
    assert differs_in({}) == ""


def test_measure():
    nan = math.nan
    assert measure(97.314, 0.417) == "97.31 ± 0.42"
    assert measure(-0.001, 0.5, signed=True) == "0.00 ± 0.50"
    assert measure(-2.5, nan, signed=True) == "−2.50"
    assert measure(nan, nan) == "–"


def test_rows_whose_batches_were_cut_differently_are_told(study):
    def note(**rows):
        made = study({name: {0: {"top1": 90.0, "execution": how}} for name, how in rows.items()}, name="-".join(rows))
        return [text for text in sweep_table(made.summary()).footnotes if "chunks" in text]

    one, two = {"ranks": 1, "accumulation": 1}, {"ranks": 2, "accumulation": 1}
    assert note(a=two, b={"ranks": 1, "accumulation": 2}) == []
    assert note(c=one, d=two) == ["Batches were cut into different numbers of chunks (ranks x accumulation): c 1; d 2."]
