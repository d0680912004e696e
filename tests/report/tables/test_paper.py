"""The files in ``analysis/``: the paper's numbers beside ours, from stores of the shipped sweeps' real plans."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from studies import Shipped, arrays_of, record

from deit_ablate import files
from deit_ablate.errors import InputError
from deit_ablate.report import write
from deit_ablate.report.html import page
from deit_ablate.report.tables.paper import read_published
from deit_ablate.report.tables.render import RENDERERS, to_markdown
from deit_ablate.report.tables.table import NOTHING, Table, sweep_table
from deit_ablate.sweep.plan import Cell

ANALYSES = sorted(path.stem for path in files.shipped("analysis").glob("*.py"))
WIGGLE = (-0.1, 0.0, 0.1)
"""What seeds differ by: the means are then as given."""


def like_the_paper(name: str, columns: dict[str, str], ours: dict[str, float] | None = None) -> Callable[[Cell], Any]:
    """Every run ends at the published number of its row (``columns``: stage -> the table's column), or at ``ours``."""
    paper = read_published(name)

    def fate(cell: Cell) -> Any:
        column = columns.get(cell.stage)
        published = paper.get((cell.variant, column or ""))
        value = (ours or {}).get(cell.variant, published.value if published else 90.0)
        return {"top1": value + WIGGLE[cell.seed % 3], "test": {"top1_ema": 81.9 + WIGGLE[cell.seed % 3]}}

    return fate


def shown(made: Shipped, **more: Any) -> Table:
    summary = made.summary(**more)
    module = write.paper_analysis(summary)
    assert module is not None
    return module.table(summary)


def paper_figures(made: Shipped) -> set[str]:
    summary = made.summary()
    return set(write.parts(summary)["paper"].figures(summary))


def body(table: Table) -> dict[str, dict[str, str]]:
    """Row -> header -> text; of headers that come twice the later one has a star for each before it."""
    headers: list[str] = []
    for column in table.columns:
        headers.append(column.header + "*" * sum(known.rstrip("*") == column.header for known in headers))
    return {row[0]: dict(zip(headers, row, strict=True)) for row in table.rows()}


def test_every_analysis_is_tested_here() -> None:
    """(Those of searches and of interactions in files of their own.)"""
    assert ANALYSES == [
        "figure3",
        "interactions",
        "pivot",
        "search",
        "sweep_table",
        "table10",
        "table2",
        "table3",
        "table4",
        "table5",
        "table8",
        "table9",
        "token_similarity",
    ]


def test_table8_at_the_papers_scale(shipped_sweep: Callable[..., Shipped]) -> None:
    ours = {"no mixup": 77.7, "AutoAugment": 81.05}  # the paper's pre-trained rows: 78.7 and 81.2
    pretrained, tuned = (
        like_the_paper("table8", {"pretrain": "224"}, ours),
        like_the_paper("table8", {"finetune": "384"}),
    )
    made = shipped_sweep(
        "table8", lambda cell: (tuned if cell.stage == "finetune" else pretrained)(cell), profile="imagenet"
    )
    assert made.name == "table8@imagenet"
    table = shown(made)
    rows = body(table)
    assert table.title == "DeiT Table 8: the ablation, each change by itself"
    assert len(rows) == 13
    one = rows["no mixup"]
    assert (one["pre-train"], one["fine-tune"], one["mixup"], one["CutMix"], one["EMA"]) == (
        "adamw",
        "adamw",
        "✗",
        "✓",
        "✗",
    )
    # Of 77.7 with seeds 0.1 around: the standard deviation is 0.1, and 4.3027 · 0.1 / √3 = 0.25.
    assert (one["pre-trained paper"], one["pre-trained ours"]) == ("78.7", "77.70 ± 0.25")
    assert (one["verdict"], one["verdict*"]) == ("off by −1.00", "reproduced (±0.2)")
    assert rows["AutoAugment"]["verdict"] == "reproduced (±0.2)", "0.15 off"
    assert rows["SGD pre-training"]["pre-train"] == "sgd"
    assert rows["SGD fine-tuning"]["fine-tune"] == "sgd"
    assert rows["dropout"]["dropout"] == "✓"
    assert (rows["AutoAugment"]["RandAugment"], rows["AutoAugment"]["AutoAugment"]) == ("✗", "✓")
    assert rows["EMA"]["EMA"] == "✓"
    assert rows["no erasing"]["pre-trained paper"] == "4.3†"
    assert any(note.startswith("† The paper's remark: did not train well") for note in table.footnotes)
    agreed = [note for note in table.footnotes if note.startswith("Agreement with the paper's study, ")]
    assert [note.split(":")[0].rsplit(", ", 1)[1] for note in agreed] == ["pre-trained", "fine-tuned"]
    # Of 12 rows SGD fine-tuning has no difference; EMA, paired with the runs it is of, is better by 0.1 at each seed.
    assert "signs agree in 11 of 11 decided rows (0 undecided, 1 equivalent)" in agreed[0]
    assert "Kendall's tau-b with the published differences 1.00" in agreed[0]
    assert any("Reproduced: within ±0.2 points" in note for note in table.footnotes)


def test_table8_at_another_scale_is_no_reproduction(shipped_sweep: Callable[..., Shipped]) -> None:
    made = shipped_sweep("table8_as_run", like_the_paper("table8", {"finetune": "384"}), profile="digits")
    table = shown(made)
    assert table.title.endswith("as the reference code would run it")
    assert "verdict" not in [column.header for column in table.columns]
    assert set(table.frame["verdict_384"]) == {"not comparable"}
    assert body(table)["no erasing"]["fine-tuned paper"] == "0.1"
    assert any(
        "not comparable: ours are a small model's on other data (profile digits)" in note for note in table.footnotes
    )
    assert any(
        note.startswith("Not isolated") and "no mixup: share of batches with CutMix 0.1 → 0.2" in note
        for note in table.footnotes
    )
    paths = [path for path in write.write_report(made.summary()) if path.name.startswith("paper")]
    assert [path.name for path in paths] == [
        *(f"paper.{suffix}" for suffix in RENDERERS),
        "paper_effects_pretrained.png",
        "paper_effects_finetuned.png",
    ]
    before = [path.read_bytes() for path in paths]
    write.write_report(made.summary())
    assert [path.read_bytes() for path in paths] == before, "same records, same bytes"


@pytest.mark.parametrize("sweep", ["figure3", "table10", "table2", "table3", "table5", "table8"])
def test_a_study_of_which_one_run_is_done_has_a_table(shipped_sweep: Callable[..., Shipped], sweep: str) -> None:
    first: list[str] = []

    def fate(cell: Cell) -> Any:
        first[:] = first or [cell.run]
        return 90.0 if cell.run == first[0] else "missing"

    made = shipped_sweep(sweep, fate)
    table = shown(made)
    assert len(table.rows()) == len(made.plan.rows)
    assert not any("time" in column.header for column in table.columns)
    assert not any(note.startswith("Time is ") for note in table.footnotes)
    assert "nan" not in to_markdown(table)
    assert "<NA>" not in to_markdown(table)
    assert made.root / made.name / "paper.md" in write.write_tables(made.summary())
    assert paper_figures(made) is not None


@pytest.mark.parametrize("sweep", ["figure3", "table10", "table2", "table3", "table5", "table8"])
def test_a_study_of_which_nothing_is_done_has_the_papers_numbers(
    shipped_sweep: Callable[..., Shipped], sweep: str
) -> None:
    made = shipped_sweep(sweep, lambda cell: "missing")
    assert len(shown(made).rows()) == len(made.plan.rows)
    assert "paper" not in write.parts(made.summary())


def diverged_teacher(cell: Cell) -> Any:
    return "diverged" if cell.stage == "teacher" else "missing"


@pytest.mark.parametrize("fate", [diverged_teacher, lambda cell: 80.0], ids=["nothing done", "arrays gone"])
def test_the_sweeps_own_table_needs_nothing_of_the_papers(
    shipped_sweep: Callable[..., Shipped], fate: Callable[[Cell], Any]
) -> None:
    """Table 4 is of predictions of students that are done."""
    summary = shipped_sweep("distillation", fate, seeds=1).summary()
    with pytest.raises(InputError):
        write.paper_analysis(summary).table(summary)  # type: ignore[union-attr]
    said = "There is no table beside the paper's: "
    folder = summary.store.sweeps.folder(summary.sweep)
    (folder / "paper.md").write_text("of before")
    assert {path.stem for path in write.write_tables(summary)} == {"table"}
    assert said in (folder / "table.md").read_text()
    assert not (folder / "paper.md").exists()
    assert not [path for path in write.write_figures(summary) if path.name.startswith("paper")]
    assert said in html.unescape(page(summary))


@pytest.mark.parametrize(
    ("sweep", "row"),
    [("figure3", "{student: {schedule: {epochs: 31}}}"), ("table10", "{finetune: {data: {resolution: 20}}}")],
)
def test_a_row_of_ones_own_stands_in_the_papers_table(
    shipped_sweep: Callable[..., Shipped], tmp_path: Path, sweep: str, row: str
) -> None:
    shutil.copytree(files.shipped("sweeps"), tmp_path / "sweeps")
    path = tmp_path / "sweeps" / f"{sweep}.yaml"
    path.write_text(path.read_text().replace("\nvariants:\n", f"\nvariants:\n  my own: {row}\n"))
    made = shipped_sweep(path, lambda cell: 80.0, seeds=1, profile="digits")
    own = body(shown(made))["my own"]
    assert {told for header, told in own.items() if header.endswith(" paper")} == {NOTHING}
    assert paper_figures(made) is not None


def test_table8_may_end_before_fine_tuning(shipped_sweep: Callable[..., Shipped], tmp_path: Path) -> None:
    """As it does on glyphs. What agrees with the paper is what the sweep's own table decides, by its looks."""
    text = (files.shipped("sweeps") / "table8.yaml").read_text()
    (tmp_path / "table8.yaml").write_text(re.sub(" *margin:.*\n", "", text) + "looks: [3, 6]\n")
    made = shipped_sweep(
        tmp_path / "table8.yaml", like_the_paper("table8", {"pretrain": "224"}, {"AutoAugment": 81.57})
    )
    table = shown(made)
    assert len(table.rows()) == 12
    assert "SGD fine-tuning" not in body(table)
    assert {row["fine-tuned ours"] for row in body(table).values()} == {"not run"}
    assert paper_figures(made) == {"effects_pretrained"}
    own = body(sweep_table(made.summary()))
    assert own["AutoAugment"]["verdict"].startswith("undecided at look 1 of 2")
    decided = sum(row["verdict"].startswith(("worse", "better")) for row in own.values())
    agreed = next(note for note in table.footnotes if note.startswith("Agreement with the paper's study, pre-trained"))
    assert f"signs agree in {decided} of {decided} decided rows (2 undecided)" in agreed


def test_each_mark_has_one_meaning(shipped_sweep: Callable[..., Shipped]) -> None:
    lost = {"status": "diverged", "reason": "non-finite loss"}
    place = ("no erasing", 2, "pretrain")
    made = shipped_sweep(
        "table8", lambda cell: lost if (cell.variant, cell.seed, cell.stage) == place else 97.0, profile="digits"
    )
    table = shown(made)
    row = body(table)["no erasing"]
    assert (row["pre-trained paper"], row["pre-trained ours"]) == ("4.3†", "97.00 ± 0.00*")
    marks = {note[0]: note for note in table.footnotes if not note[0].isalnum() and note[0] != "±"}
    assert marks.keys() == {"*", "†"}
    assert marks["*"] == (
        "* Mean over the runs that converged. no erasing: 1 of 3 diverged (seed 2: non-finite loss), in the "
        "stage pretrain."
    )


def test_rows_of_which_runs_diverged(shipped_sweep: Callable[..., Shipped]) -> None:
    lost = {"status": "diverged", "reason": "non-finite loss"}

    def fate(cell: Cell) -> Any:
        ends = cell.variant == "smaller" or (cell.variant, cell.seed) == ("largest", 2)
        return lost if ends and cell.stage == "finetune" else 97.0

    rows = body(shown(shipped_sweep("table10", fate)))
    assert rows["smaller"]["top-1 ours"] == "did not train"
    assert rows["largest"]["top-1 ours"] == "97.00 ± 0.00*"


def test_table2_trained_here_and_pretrained(shipped_sweep: Callable[..., Shipped]) -> None:
    table = shown(
        shipped_sweep("table2", lambda cell: 95.0 if cell.stage == "teacher" else 96.0 + WIGGLE[cell.seed % 3])
    )
    row = body(table)["convnet 54"]
    assert (row["teacher paper"], row["teacher ours"]) == ("82.9", "95.00")
    assert (row["student paper"], row["student ours"]) == ("83.1", "96.00 ± 0.25")
    assert (row["fine-tuned paper"], row["fine-tuned ours"]) == ("84.2", "not run")
    assert "convnet 54 stands for the paper's RegNetY-16GF." in table.footnotes
    table = shown(shipped_sweep("table2_imagenet", like_the_paper("table2", {"": "224"})))
    row = body(table)["RegNetY-16GF"]
    assert (row["teacher ours"], row["student ours"], row["verdict"]) == (
        "not run",
        "83.10 ± 0.25",
        "reproduced (±0.2)",
    )


def test_table3_compares_each_size_with_its_own_baseline(shipped_sweep: Callable[..., Shipped]) -> None:
    made = shipped_sweep("table3", like_the_paper("table3", {"student": "224"}))
    table = shown(made)
    assert body(table)["B, hard"]["top-1 paper"] == "83.0"
    agreed = [note for note in table.footnotes if note.startswith("Agreement")]
    assert [note.partition(", against ")[2].partition(":")[0] for note in agreed] == [
        f"{size}, no distillation" for size in ("Ti", "S", "B")
    ]


def test_table4_has_the_papers_shares_in_brackets(shipped_sweep: Callable[..., Shipped]) -> None:
    made = shipped_sweep("distillation", lambda cell: 75.0)
    true = [0, 1, 2, 3]
    for cell in made.plan.cells:
        token = "token" in cell.variant and cell.stage == "student"
        wrong = [0, 1, 2, 0]
        heads = {"distillation": true, "fused_softmax": true, "fused_logits": true} if token else {}
        record(made, cell.run, **arrays_of(targets=true, **{"class": wrong}, **heads))  # type: ignore[arg-type]
    rows = body(shown(made))
    assert list(rows) == [
        "ground truth",
        "convnet (RegNetY)",
        "DeiT",
        "class only",
        "distillation only",
        "class+distillation",
    ]
    assert rows["ground truth"]["class only"] == "0.250 (0.170)"
    assert rows["distillation only"]["class+distillation"] == "0.000 (0.019)"


def test_table5_has_speed_and_size(shipped_sweep: Callable[..., Shipped]) -> None:
    def fate(cell: Cell) -> Any:
        return {
            "top1": 95.0 + WIGGLE[cell.seed % 3],
            "cost": {"parameters": 1234000, "inference_images_per_second": 5000.4},
        }

    made = shipped_sweep("table5", fate)
    row = body(shown(made))["DeiT-S"]
    assert (row["million parameters paper"], row["ours"]) == ("22", "1.234")
    assert (row["images/s paper"], row["ours*"]) == ("940.4", "5000")
    assert (row["top-1 paper"], row["top-1 ours"]) == ("79.8", "94.99 ± 0.06")
    assert (row["ReaL paper"], row["ReaL ours"], row["V2 ours"]) == ("85.7", "not run", "not run")
    assert paper_figures(made) == {"trade_off"}


def test_table10_has_resolutions(shipped_sweep: Callable[..., Shipped]) -> None:
    made = shipped_sweep("table10", lambda cell: {"top1": 97.0, "cost": {"inference_images_per_second": 800.0}})
    row = body(shown(made))["largest"]
    assert (row["pixels paper"], row["pixels ours"]) == ("384", "28")
    assert (row["images/s paper"], row["images/s ours"]) == ("85.87", "800")
    assert row["V2 ours"] == "not run"


def test_strict_verdicts_are_those_that_agreement_counts(shipped_sweep: Callable[..., Shipped]) -> None:
    means = {"as trained": 90.0, "smaller": 89.6, "larger": 90.4, "largest": 90.7}

    def fate(cell: Cell) -> Any:
        return means[cell.variant] + 1.5 * WIGGLE[cell.seed % 3] * (cell.variant != "as trained")

    made = shipped_sweep("table10", fate, profile="digits")
    for strict, signs in ((False, "3 of 3 decided rows (0 undecided)"), (True, "1 of 1 decided rows (2 undecided)")):
        assert any(signs in note for note in shown(made, strict=strict).footnotes)


def test_figure3_has_lengths(shipped_sweep: Callable[..., Shipped]) -> None:
    made = shipped_sweep("figure3", lambda cell: 95.0 + WIGGLE[cell.seed % 3])
    row = body(shown(made))["token, longest"]
    assert (row["epochs paper"], row["epochs ours"]) == ("1000", "200")
    assert paper_figures(made) == {"epochs"}


def test_token_similarity(shipped_sweep: Callable[..., Shipped]) -> None:
    made = shipped_sweep("tokens", lambda cell: 90.0)
    for (_, _, stage), run in made.runs.items():
        if stage == "student":
            record(made, run, test_targets=[0, 1], token_similarity=np.array([0.1, 0.5, 0.9]))  # type: ignore[arg-type]
    table = shown(made)
    assert len(table.rows()) >= 3
    assert paper_figures(made) == {"token_similarity"}


def test_table9_is_a_script_and_our_defaults_are_the_papers() -> None:
    done = subprocess.run(
        [sys.executable, str(files.shipped("analysis") / "table9.py")],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")][2:]
    assert len(rows) == 16
    assert [line for line in rows if not line.endswith("| same |")] == []


def test_a_sweep_of_ones_own_has_no_table_in_the_paper(optimizers: Any) -> None:
    assert write.paper_analysis(optimizers.summary()) is None
    assert "paper" not in write.parts(optimizers.summary())


def test_a_thousand_runs_make_a_table(shipped_sweep: Callable[..., Shipped]) -> None:
    made = shipped_sweep("optimizers", like_the_paper("table8", {}), seeds=293)
    table = sweep_table(made.summary())
    assert len(made.plan.runs) == 1001
    assert [row[-1] for row in table.rows()] == ["415", "293", "293"]
