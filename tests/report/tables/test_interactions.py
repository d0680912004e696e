"""What a factorial and several orders of steps say: the answer that is planted is the answer that is given."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from report.studies import Fate, Shipped

from deit_ablate.report.html import page
from deit_ablate.report.tables.interactions import interactions_table, steps_by_order
from deit_ablate.report.tables.render import RENDERERS
from deit_ablate.report.write import markdown, write_report
from deit_ablate.sweep.plan import Cell

FACTORS = """
profile: digits
seeds: 4
margin: 0.5
factorial: [augment.mixup, augment.erasing, augment.auto_augment]
"""
ROAD = """
profile: digits
seeds: 3
baseline_seeds: 1
margin: 0.5
recipe: {augment: {erasing: 0, mixup: 0, cutmix: 0, repeats: 1}}
cumulative:
  erasing: {augment.erasing: 0.1}
  repeats: {augment.repeats: 2}
  mixup: {augment.mixup: 0.1}
orders: 3
"""
NOISE = (0.1, -0.1, 0.05, -0.05)


def made(folder: Path, text: str, fate: Callable[[Cell], Fate]) -> Shipped:
    folder.mkdir(exist_ok=True)
    path = folder / "planted.yaml"
    path.write_text(text)
    return Shipped(folder / "results", path, fate)


def planted(cell: Cell) -> float:
    """Mixup adds 2 points with RandAugment and nothing without, erasing takes 1, wherever it is."""
    with_mixup, with_erasing, with_policy = (f"no {name}" not in cell.variant for name in ("mixup", "erasing", "auto"))
    return 90 + NOISE[cell.seed] + 2 * (with_mixup and with_policy) - with_erasing


def body(study: Shipped) -> dict[str, dict[str, str]]:
    table = interactions_table(study.summary())
    heads = [column.header for column in table.columns]
    return {row[0]: dict(zip(heads, row, strict=True)) for row in table.rows()}


def test_does_mixup_still_help_without_randaugment(tmp_path: Path) -> None:
    rows = body(made(tmp_path, FACTORS, planted))
    assert list(rows) == [
        "mixup",
        "erasing",
        "auto_augment",
        "mixup × erasing",
        "mixup × auto_augment",
        "erasing × auto_augment",
    ]
    assert rows["mixup"]["points"].startswith("+1.00 ± 0.0")
    assert rows["erasing"]["points"].startswith("−1.00 ± 0.0")
    assert rows["mixup × auto_augment"]["points"].startswith("+2.00 ± ")
    assert {name: row["verdict"] for name, row in rows.items()} == {
        "mixup": "helps",
        "erasing": "harms",
        "auto_augment": "helps",
        "mixup × erasing": "negligible (within ±0.5)",
        "mixup × auto_augment": "synergistic",
        "erasing × auto_augment": "negligible (within ±0.5)",
    }
    simple = rows["mixup × auto_augment"]["simple effects"]
    assert re.fullmatch(
        r"mixup \+2\.00 ± \S+ with auto_augment, 0\.00 ± \S+ without; "
        r"auto_augment \+2\.00 ± \S+ with mixup, 0\.00 ± \S+ without",
        simple,
    )


def test_factors_and_steps_are_called_by_their_labels(tmp_path: Path) -> None:
    labels = "labels: {mixup: 'Mixup ($\\alpha$)', no mixup: w/o mixup}\n"
    study = made(tmp_path / "factors", FACTORS + labels, planted)
    table = interactions_table(study.summary())
    assert table.rows()[0][0] == "Mixup ($\\alpha$)"
    assert table.rows()[3][0] == "Mixup ($\\alpha$) × erasing"
    assert table.frame["effect"][0] == "mixup"
    assert "Mixup ($\\alpha$) $\\times$ erasing" in RENDERERS["tex"](table)
    study = made(tmp_path / "steps", ROAD + "labels: {+mixup: 'Mixup, $\\alpha$'}\n", road)
    table = interactions_table(study.summary())
    assert [row[0] for row in table.rows()] == ["erasing", "repeats", "Mixup, $\\alpha$"]
    assert "1. erasing → repeats → Mixup, α" in table.footnotes[0]


def test_a_factor_that_is_added_helps_where_it_is(tmp_path: Path) -> None:
    text = "profile: digits\nseeds: 3\nfactorial: {+lamb: {optimizer: {name: lamb, base_lr: 1}}, "
    text += "mixup: {augment.mixup: 0}}"
    rows = body(made(tmp_path, text, lambda cell: 90 + NOISE[cell.seed] + 2 * ("+lamb" in cell.variant)))
    assert rows["lamb"]["points"].startswith("+2.00")
    assert (rows["lamb"]["verdict"], rows["mixup"]["points"][:4]) == ("helps", "0.00")


def test_aliases_are_named_together(tmp_path: Path) -> None:
    text = FACTORS.replace("]", ", regularize.drop_path]") + "fraction: 1/2\n"
    study = made(tmp_path, text, planted)
    rows = body(study)
    both = "mixup × auto_augment = erasing × drop_path"
    assert (rows[both]["points"][:5], rows[both]["verdict"], rows[both]["simple effects"]) == (
        "+2.00",
        "synergistic",
        "–",
    )
    notes = " ".join(interactions_table(study.summary()).footnotes)
    assert "Effects joined by = are aliased" in notes
    assert "three and more factors are taken to be nothing" in notes


def test_without_all_rows_there_is_no_effect(tmp_path: Path) -> None:
    study = made(tmp_path, FACTORS, lambda cell: "diverged" if cell.variant == "no mixup" else planted(cell))
    table = interactions_table(study.summary())
    assert {row[1] for row in table.rows()} == {"–"}
    assert {row[4] for row in table.rows()} == {"no run to compare"}
    assert table.footnotes[-1] == "Without any figure, so that nothing is known of what takes them: no mixup."


def test_rows_that_share_runs_at_each_seed_are_taken_seed_by_seed(tmp_path: Path) -> None:
    text = "profile: digits\nseeds: 3\nfactorial: {+EMA: {shows: ema}, mixup: {augment.mixup: 0}}"

    def fate(cell: Cell) -> Mapping[str, object]:
        top1 = 60 + 10 * cell.seed  # what seeds have in common cancels in a difference of two figures of one run
        return {"top1": top1, "test": {"top1_ema": top1 + 1 + NOISE[cell.seed] / 10}}

    study = made(tmp_path, text, fate)
    rows = body(study)
    assert rows["EMA"]["points"].startswith("+1.00 ± 0.1")
    assert rows["mixup"]["verdict"].startswith("undecided")
    assert "taken seed by seed" in " ".join(interactions_table(study.summary()).footnotes)


def road(cell: Cell) -> float:
    """Erasing adds 1 wherever it comes; mixup adds 3 where there are no repeats."""
    name = cell.variant
    changes = {
        "baseline": "",
        "+erasing": "erasing",
        "+repeats": "erasing repeats",
        "+mixup": "erasing repeats mixup",
    }.get(name, name)
    mixup = 3 * ("mixup" in changes and "repeats" not in changes)
    return 80 + NOISE[cell.seed] + ("erasing" in changes) + mixup


def test_steps_by_their_orders(tmp_path: Path) -> None:
    study = made(tmp_path, ROAD, road)
    rows = body(study)
    assert rows["erasing"] == {
        "step": "erasing",
        "mean": rows["erasing"]["mean"],
        "range": "+1.00 to +1.00",
        "order 1": "+1.00 (1st)",
        "order 2": "+1.00 (3rd)",
        "order 3": rows["erasing"]["order 3"],
        "depends on its place?": "no (within ±0.5)",
    }
    assert rows["erasing"]["mean"].startswith("+1.00 ± 0.")
    assert rows["mixup"]["range"] == "0.00 to +3.00"
    assert rows["mixup"]["depends on its place?"].startswith("yes (p ")
    assert rows["mixup"]["order 1"] == "0.00 (3rd)"
    notes = " ".join(interactions_table(study.summary()).footnotes)
    assert "Orders: 1. erasing → repeats → mixup; 2. mixup → repeats → erasing; 3. " in notes
    steps = dict(zip(study.summary().frame["variant"], study.summary().frame["step"], strict=True))
    assert steps["+mixup"] == pytest.approx(0)
    assert all(step != step for row, step in steps.items() if row.startswith("baseline"))


@pytest.mark.parametrize(("order", "said"), [(0, "undecided"), (1, "yes (p < 0.0001)"), (2, "yes (p < 0.0001)")])
def test_whether_a_step_depends_on_its_place_is_known_of_the_orders_that_have_runs(
    tmp_path: Path, order: int, said: str
) -> None:
    """Repeats take 3 away after mixup, in the orders 2 and 3, and nothing before it."""
    design = made(tmp_path / "whole", ROAD, road).summary().design
    assert design is not None
    _, lacks = steps_by_order(design)[order][design.factors.index("repeats")]
    row = body(made(tmp_path, ROAD, lambda cell: "missing" if cell.variant == lacks else road(cell)))["repeats"]
    assert (row["range"], row["depends on its place?"]) == ("–", said)


@pytest.mark.parametrize(("text", "fate"), [(FACTORS, planted), (ROAD, road)])
def test_it_is_written_beside_the_table_and_stands_on_the_page(
    tmp_path: Path, text: str, fate: Callable[[Cell], Fate]
) -> None:
    study = made(tmp_path, text, fate)
    summary = study.summary()
    written = {path.name for path in write_report(summary)}
    assert {"interactions.md", "interactions.csv", "interactions.tex", "interactions.html"} < written
    assert "interactions.png" in written
    table = interactions_table(summary)
    assert markdown(summary).endswith("\n\n" + RENDERERS["md"](table))
    document = page(summary)
    assert '<section id="interactions">' in document
    assert table.columns[-1].header in document
    values = list(csv.DictReader(io.StringIO(RENDERERS["csv"](table))))
    assert float(values[0].get("estimate") or values[0]["mean"]) == pytest.approx(1, abs=0.01)


def test_effects_on_a_loss_are_in_its_unit_and_direction(tmp_path: Path) -> None:
    """What adds to top-1 here takes a twentieth as much from the loss."""

    def fate(cell: Cell) -> Mapping[str, object]:
        return {"top1": 50.0, "test": {"loss": (100 - planted(cell)) / 20}}

    study = made(tmp_path, FACTORS.replace("margin: 0.5", "margin: 0.025\nmetric: loss"), fate)
    rows = body(study)
    assert rows["mixup"]["nats"].startswith("−0.050 ± 0.0")
    assert {name: row["verdict"] for name, row in rows.items()} == {
        "mixup": "helps",
        "erasing": "harms",
        "auto_augment": "helps",
        "mixup × erasing": "negligible (within ±0.025)",
        "mixup × auto_augment": "synergistic",
        "erasing × auto_augment": "negligible (within ±0.025)",
    }
    assert rows["mixup × auto_augment"]["simple effects"].startswith("mixup −0.100 ± ")
    notes = " ".join(interactions_table(study.summary()).footnotes)
    assert "A main effect is the mean test loss with the factor" in notes
    assert "antagonistic above 0, synergistic below." in notes
    assert "In nats, with the half-width of a 95% interval" in notes
    assert "±0.025 nats" in notes
    assert "points" not in notes
    assert "Mean loss with and without the first factor" in page(study.summary())


def test_steps_by_their_orders_follow_the_metric(tmp_path: Path) -> None:
    study = made(tmp_path, ROAD + "metric: loss\n", lambda cell: {"top1": 50.0, "test": {"loss": road(cell) / 10}})
    assert body(study)["erasing"]["order 1"] == "+0.100 (1st)"
    assert body(study)["mixup"]["range"] == "0.000 to +0.300"
    notes = " ".join(interactions_table(study.summary()).footnotes)
    assert "What each step adds to test loss (nats), by its place" in notes


@pytest.mark.parametrize(("text", "fate"), [(FACTORS, planted), (ROAD, road)])
def test_effects_cover_training_noise_where_rows_are_judged_for_new_images(
    tmp_path: Path, text: str, fate: Callable[[Cell], Fate]
) -> None:
    """No predictions are kept here, so that rows are not judged; effects are as they would be without."""
    covers = "They cover training noise alone, not new images as verdicts on rows do."
    plain = interactions_table(made(tmp_path / "plain", text, fate).summary())
    assert covers not in " ".join(plain.footnotes)
    study = made(tmp_path / "judged", text + "population: true\n", fate)
    judged = interactions_table(study.summary())
    assert judged.rows() == plain.rows()
    assert covers in " ".join(judged.footnotes)
    assert {row["verdict"] for row in study.summary().rows[1:]} == {"no_predictions"}
