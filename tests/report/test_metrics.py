"""What a sweep measures, as its table, figures, sentences and page say it; and metrics of one's own."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from studies import Study, arrays_of, record

from deit_ablate.errors import InputError
from deit_ablate.report.figures.accuracy import sweep_figure
from deit_ablate.report.figures.curves import curves_figure
from deit_ablate.report.figures.forest import forest_figure
from deit_ablate.report.frame import COLUMNS, load
from deit_ablate.report.fresh import made_from
from deit_ablate.report.html import page
from deit_ablate.report.stats.exact import signal_to_noise
from deit_ablate.report.summary import Summary, summarize
from deit_ablate.report.tables.table import sweep_table
from deit_ablate.store import Store
from deit_ablate.store.archive import import_records
from deit_ablate.sweep.metrics import METRICS

ROOT = Path(__file__).parents[2]
LOSS = {"name": "loss", "place": [3, 9]}
TOP1 = {"name": "top1", "place": [4, 11]}


def losses(*values: float, top1: float = 90.0) -> dict[int, Any]:
    """Runs of these losses, whose top-1 says the opposite."""
    return {
        seed: {"top1": top1 + value, "test": {"loss": value, "top5": 99.0, "top1_ema": 50 + value}}
        for seed, value in enumerate(values)
    }


@pytest.fixture
def lower(study: Callable[..., Study]) -> Study:
    rows = {"base": losses(0.50, 0.51, 0.52), "bad": losses(0.70, 0.71, 0.72), "good": losses(0.40, 0.41, 0.42)}
    rows["alike"] = losses(0.50, 0.51, 0.52)
    return study(rows, baseline="base", margin=0.05, metric=LOSS, metrics=[TOP1])


def body(summary: Summary) -> dict[str, dict[str, str]]:
    table = sweep_table(summary)
    return {row[0]: dict(zip([column.header for column in table.columns], row, strict=True)) for row in table.rows()}


def test_every_metric_that_records_have_is_a_column() -> None:
    assert {metric.column for metric in METRICS.values()} <= COLUMNS.keys()


def test_of_a_loss_the_lower_is_better(lower: Study) -> None:
    summary = lower.summary()
    rows = body(summary)
    assert rows["bad"]["test loss (nats)"] == "0.710 ± 0.025"
    assert rows["bad"]["test top-1 (%)"] == "90.71 ± 0.02"
    assert {name: row["verdict"] for name, row in rows.items()} == {
        "base (baseline)": "–",
        "bad": "worse",
        "good": "better",
        "alike": "equivalent (within ±0.05)",
    }
    assert rows["bad"]["difference"].startswith("+0.200 ± 0.0")
    notes = sweep_table(summary).footnotes
    assert any("within the margin that the sweep declares, ±0.05 nats" in note for note in notes)
    assert "Differences and verdicts are of test loss, as the sweep declares: lower is better." in notes
    assert "Loss on the test split (599 images) at the last epoch, raw weights." in notes
    assert any(note.startswith("Loss measures calibration too") for note in notes)


def test_looks_and_steps_follow_the_direction_too(study: Callable[..., Study]) -> None:
    rows = {"base": losses(0.50, 0.51, 0.52), "bad": losses(0.70, 0.71, 0.72), "good": losses(0.30, 0.31, 0.32)}
    made = study(rows, baseline="base", metric=LOSS, looks=[3, 6], kind="cumulative").summary()
    assert made.looks is not None
    assert made.looks.stopped == {"bad": 3, "good": 3}
    assert [row["verdict"] for row in made.rows] == ["baseline", "worse", "better"]
    assert body(made)["good"]["step"].startswith("−0.400 ± ")
    assert "They know nothing of looks." in page(made)


def test_figures_and_page_speak_of_the_metric(lower: Study) -> None:
    summary = lower.summary()
    (axes,) = forest_figure(summary).axes
    assert axes.get_xlabel() == "difference from base in test loss (nats)\nlower is better"
    low, high = axes.get_xlim()
    assert -0.3 < low < high < 0.4, "the axis is for losses, not for points"
    (axes,) = sweep_figure(summary).axes
    assert axes.get_xlabel() == "test loss (nats)"
    assert axes.get_xlim()[0] > 0.3
    assert [axes.get_ylabel() for axes in curves_figure(summary).axes] == ["validation loss (nats)", "training loss"]
    said = page(summary)
    for words in ("±0.05 nats of loss", "by 0.200 nats", "mean cross-entropy", "test loss 0.510 ± 0.025 nats"):
        assert words in said
    assert "points" not in said.partition("<svg")[0].partition("<main")[2]


def test_the_better_of_two_rows_is_the_lower_one(lower: Study) -> None:
    from deit_ablate.report.html.findings import findings
    from deit_ablate.report.pairs import any_two

    pairs = {(pair["first"], pair["second"]): pair["verdict"] for pair in any_two(lower.summary())}
    assert pairs["bad", "good"] == "first is worse"
    assert pairs["good", "alike"] == "first is better"
    assert [name for name, *_ in findings(lower.summary()).groups] == ["better", "worse", "equivalent"]


def test_further_columns_leave_the_verdicts_alone(study: Callable[..., Study], lower: Study, tmp_path: Path) -> None:
    rows = {"base": {0: 90.0, 1: 90.2, 2: 90.4}, "ema": {0: 90.1, 1: 90.3, 2: 90.2}}
    plain = study(rows, name="plain", baseline="base", margin=0.5).summary()
    more = study(rows, name="more", baseline="base", margin=0.5, metrics=[LOSS], shows={"ema": "class"}).summary()
    assert list(more.frame)[: len(plain.frame.columns)] == list(plain.frame)
    assert list(more.frame["verdict"]) == list(plain.frame["verdict"])
    assert body(more)["base (baseline)"]["test loss (nats)"] == "0.100 ± 0.000"
    assert body(more)["ema"]["test loss (nats)"] == "–", "records have the loss of the headline alone"


def test_the_moving_average_of_all_rows_leaves_other_columns_to_the_raw_weights(lower: Study) -> None:
    plan = lower.store.sweeps.plan("study") or {}
    lower.store.sweeps.save_plan("study", plan | {"metric": {**TOP1, "name": "ema"}, "metrics": [TOP1, LOSS]})
    row = body(lower.summary())["bad"]
    assert row["test top-1, EMA (%)"].startswith("50.71 ± ")
    assert row["test top-1 (%)"].startswith("90.71 ± ")
    assert row["test loss (nats)"].startswith("0.710 ± ")
    notes = sweep_table(lower.summary()).footnotes
    assert "Top-1 on the test split (599 images) at the last epoch, the moving average of the weights (EMA)." in notes


def test_signal_to_noise_by_hand() -> None:
    # Means 2, 4, 6: sd 2. Variances 1, 4 and 4: the root of their mean is √3.
    one = {"a": {0: 1.0, 1: 2.0, 2: 3.0}, "b": {0: 2.0, 1: 4.0, 2: 6.0}, "c": {0: 4.0, 1: 6.0, 2: 8.0}}
    assert signal_to_noise([one]) == [pytest.approx(2 / math.sqrt(3))]
    # A row that lacks one metric is in none: means 2, 4 (sd √2), variances 1, 4.
    assert signal_to_noise([one, {**one, "c": {}}]) == [pytest.approx(math.sqrt(2 / 2.5))] * 2
    assert math.isnan(signal_to_noise([{"a": {0: 1.0, 1: 1.0}, "b": {0: 2.0, 1: 2.0}}])[0])
    assert math.isnan(signal_to_noise([{"a": {0: 1.0, 1: 2.0}}])[0])


@pytest.mark.parametrize(("sweep", "top1", "loss"), [("distillation", 0.6, 5.2), ("regularization", 1.2, 4.2)])
def test_the_reference_studies_tell_more_apart_by_loss(tmp_path: Path, sweep: str, top1: float, loss: float) -> None:
    store, name = Store(tmp_path), f"{sweep}@fashion-mnist-small"
    import_records(ROOT / "results" / "reference" / name, store)
    store.sweeps.save_plan(name, {**(store.sweeps.plan(name) or {}), "metrics": [LOSS]})
    said = " ".join(sweep_table(summarize(store, name)).footnotes)
    assert f"test top-1 {top1}, test loss {loss}; chance alone" in said


# -- metrics of one's own --------------------------------------------------------------------------------------------

LAB = '''
def right(run):
    """For each image."""
    return 100.0 * (run["predictions"] == run["targets"])


def wrong(run):
    return float(100 * (run["predictions"] != run["targets"]).mean())


def sure(run):
    return run["confidence"]


def nothing(run):
    return run["no such array"]


def shaky(run):
    """Nothing that is a number of the runs that get all right."""
    wrong = (run["predictions"] != run["targets"]).sum()
    return wrong if wrong else [float("nan")] * len(run["targets"])


def shape(run):
    return [1.0, 2.0]


def text(run):
    return "much"
'''


def own(name: str, better: str = "lower", **more: Any) -> dict[str, Any]:
    return {"name": f"reported_lab:{name}", "better": better, "unit": "%", "digits": 1, "place": [3, 9], **more}


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "reported_lab.py"
    path.write_text(LAB)
    monkeypatch.syspath_prepend(tmp_path)
    return path


def with_arrays(study: Callable[..., Study], **more: Any) -> Study:
    """Three rows whose runs get 0, 2 and 4 of 8 images wrong (of seed 1 one more)."""
    rows = {name: dict.fromkeys(range(3), 90.0) for name in ("base", "some", "many")}
    made = study(rows, baseline="base", **more)
    targets = np.arange(8, dtype=np.int16)
    for (variant, seed), run in made.runs.items():
        wrong = {"base": 0, "some": 2, "many": 4}[variant] + (seed == 1)
        fused = np.where(targets < wrong, targets + 1, targets)
        arrays = {**arrays_of(targets=targets, fused_softmax=fused), "test_pred_class": np.roll(targets, 1)}
        record(made, run, test_confidence_fused_softmax=np.full(8, 0.3, np.float16), **arrays)
    return made


@pytest.mark.usefixtures("lab")
def test_a_function_of_what_a_run_has_predicted(study: Callable[..., Study]) -> None:
    made = with_arrays(study, metric=own("wrong"), metrics=[own("right"), own("sure", digits=3)])
    summary = made.summary()
    assert summary.values["many"] == {0: 50.0, 1: 62.5, 2: 50.0}
    assert [row["verdict"] for row in summary.rows] == ["baseline", "worse", "worse"]
    assert body(summary)["many"]["wrong (%)"].startswith("54.2 ± "), body(summary)
    assert body(summary)["many"]["right (%)"].startswith("45.8 ± ")
    assert body(summary)["many"]["sure (%)"] == "0.300 ± 0.000", "a mean of half precision is taken in double"
    assert "What <code>reported_lab:wrong</code>, which" in page(summary)
    frame = load(made.root, made.name)
    assert list(frame["reported_lab:wrong"])[-3:] == [50.0, 62.5, 50.0]
    assert "reported_lab:wrong" not in next(iter(summary.recipes("").values())), "it is no key of a recipe"


@pytest.mark.usefixtures("lab")
def test_a_row_that_shows_a_head_is_measured_by_it(study: Callable[..., Study]) -> None:
    made = with_arrays(study, metrics=[own("wrong")], shows={"some": "class", "many": "ema"})
    values = made.summary().values_of(made.summary().metrics[1])
    assert values["base"] == {0: 0.0, 1: 12.5, 2: 0.0}
    assert values["some"] == dict.fromkeys(range(3), 100.0)
    assert values["many"] == {}, "predictions of the moving average are not kept"


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("nothing", "fails, KeyError: 'no such array', of run "),
        ("shape", "returned an array of shape (2,) of 8 images, of run "),
        ("text", "fails, ValueError: "),
        ("gone", "fails, AttributeError: "),
    ],
)
def test_a_function_that_fails_is_told_at_its_line(study: Callable[..., Study], name: str, why: str) -> None:
    made = with_arrays(study, metric=own(name))
    with pytest.raises(InputError) as error:
        made.summary()
    assert f"study.yaml:3:9: metric: reported_lab:{name} {why}" in str(error.value)


@pytest.mark.usefixtures("lab")
def test_a_run_of_which_a_function_makes_no_number_is_in_no_mean_and_said(study: Callable[..., Study]) -> None:
    made = with_arrays(study, metrics=[own("shaky")], shows={"some": "ema"})
    rows, notes = body(made.summary()), sweep_table(made.summary()).footnotes
    assert (rows["base (baseline)"]["shaky (%)"], rows["many"]["shaky (%)"]) == ("1.0", "4.3 ± 1.4")
    assert "In no mean of shaky, as it gives no finite number of them: base seed 0, base seed 2." in notes
    verdicts = with_arrays(study, name="judged", metric=own("shaky")).summary()
    assert verdicts.values["base"] == {1: 1.0}
    assert "Done without this figure: base seeds 0, 2." in sweep_table(verdicts).footnotes


def test_a_table_is_made_anew_where_the_function_changes(study: Callable[..., Study], lab: Path) -> None:
    made = with_arrays(study, metric=own("wrong"))
    before = made_from(made.store, made.name)
    lab.write_text(LAB + "# said better\n")
    assert made_from(made.store, made.name) == before
    lab.write_text(LAB.replace("100 * ", "99 * "))
    assert made_from(made.store, made.name) != before


# -- and the finite test set ------------------------------------------------------------------------------------------


def judged_for_new_images(made: Study) -> Study:
    made.store.sweeps.save_plan(made.name, {**(made.store.sweeps.plan(made.name) or {}), "population": True})
    return made


def about_images(made: Study) -> str:
    (note,) = [note for note in sweep_table(made.summary()).footnotes if "test images" in note or "test set" in note]
    return note


def test_of_a_loss_nothing_is_said_of_single_images(lower: Study) -> None:
    assert about_images(lower) == (
        "Intervals and verdicts cover training noise only, not the finite test set that all rows share."
    )
    for row in judged_for_new_images(lower).summary().rows[1:]:  # of a plan that no sweep file makes
        assert row["verdict_words"] == "not judged for new images: no run keeps test loss image by image"


@pytest.mark.usefixtures("lab")
def test_new_images_by_a_function_of_ones_own(study: Callable[..., Study]) -> None:
    made = with_arrays(study, metric=own("right", better="higher"), margin=50)
    (size,) = {row["image_standard_error"] for row in made.summary().rows if row["variant"] == "many"}
    # By hand: the 8 images' mean differences are -200/3, -100 (3), -100/3 and 0 (3), of which one image of a run of
    # each side is training noise: its square is 20000/3 less 2500/3, over (3 - 1)(8 - 1).
    images, noise = (2 * (50 / 3) ** 2 + 6 * 50**2) / 7, 17500 / 3 / 14
    assert size == pytest.approx(math.sqrt((images - 2 * noise / 3) / 8))
    assert about_images(made).endswith(
        f" to {size:.1f} % (estimated standard error) to a difference; the margin is 50."
    )
    before = {row["variant"]: row for row in made.summary().rows}
    for row in judged_for_new_images(made).summary().rows[1:]:
        assert row["verdict"] != "no_predictions"
        assert row["difference_half_width"] == before[row["variant"]]["difference_half_width_new_images"]


@pytest.mark.usefixtures("lab")
def test_a_number_for_a_run_says_nothing_of_its_images(study: Callable[..., Study]) -> None:
    made = with_arrays(study, metric=own("wrong"))
    why = "reported_lab:wrong gives no number for each image"
    assert about_images(made).startswith("Intervals and verdicts cover training noise only, not the finite test set")
    for row in judged_for_new_images(made).summary().rows[1:]:
        assert row["verdict_words"] == f"not judged for new images: of the baseline: {why}"


def test_new_images_by_a_head(study: Callable[..., Study]) -> None:
    made = with_arrays(study, metric={"name": "class", "place": [3, 9]})
    assert "do not give its figure" in judged_for_new_images(made).summary().rows[1]["verdict_words"]
    for run in made.runs.values():  # its class head gets no image right
        path = made.store.run(run) / "outcome.json"
        path.write_text(path.read_text().replace('"top1_class": 90.0', '"top1_class": 0.0'))
    assert [row["image_standard_error"] for row in made.summary().rows[1:]] == [0, 0]
