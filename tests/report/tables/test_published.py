"""The paper's numbers as data: every file reads, its cells are those of the paper, its rows those of the sweeps."""

from __future__ import annotations

import csv
import re

import pytest
from support import planned

from deit_ablate import files

PAPER = files.shipped("analysis") / "paper"
HEADER = ["row", "column", "published", "unit", "note", "source"]
CELLS = {
    "table1": 3 * 7,
    "table2": 5 * 3,
    "table3": 6 * 3 + 6,
    "table4": 6 * 6,
    "table5": 32 * 6 - 2 * 4 - 2,
    "table8": 13 * 2,
    "table9": 16 * 2,
    "table10": 4 * 5,
    "figure3": 4 * 4 * 2 + 4,
}
"""File -> how many cells the paper's table has. Table 5: four rows have neither ReaL nor V2, two no V2."""
ROWS = {
    "table1": 3,
    "table2": 5,
    "table3": 18,
    "table4": 6,
    "table5": 32,
    "table8": 13,
    "table9": 16,
    "table10": 4,
    "figure3": 16,
}
UNITS = {"% top-1", "images/s", "fraction", "million", "pixels", "epochs", "images", ""}

SWEEPS = {
    "table2": ["table2_imagenet"],
    "table3": ["table3"],
    "table5": ["table5"],
    "table8": ["table8", "table8_as_run"],
    "table10": ["table10"],
    "figure3": ["figure3"],
}
"""File -> the sweeps that ask its question."""


def read(name: str) -> list[dict[str, str]]:
    with (PAPER / f"{name}.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, strict=True))
    assert all(None not in row and None not in row.values() for row in rows), "lines of one length"
    return rows


def test_every_file_is_known_and_told_of() -> None:
    files = {path.stem for path in PAPER.glob("*.csv")}
    assert files == {*CELLS, "token_similarity"}
    readme = (PAPER / "README.md").read_text()
    assert {target[:-4] for target in re.findall(r"\]\(([a-z0-9_]+\.csv)\)", readme)} == files
    for target in re.findall(r"\]\((\.\./\.\./[^)]+)\)", readme):
        assert (PAPER / target).exists() or (files.shipped("sweeps") / target.split("sweeps/")[1]).exists(), target


@pytest.mark.parametrize("name", CELLS)
def test_a_file_is_a_table_cell_by_cell(name: str) -> None:
    rows = read(name)
    assert list(rows[0]) == HEADER
    places = [(row["row"], row["column"]) for row in rows]
    assert len(set(places)) == len(places), "a cell stands once"
    assert len(places) == CELLS[name]
    assert len({row for row, _ in places}) == ROWS[name]
    where = f"DeiT (arXiv 2012.12877v2), {name.capitalize()}"
    assert {row["source"] for row in rows} == {re.sub(r"(\d+)$", r" \1", where)}
    assert {row["unit"] for row in rows} <= UNITS
    assert all(row["published"] for row in rows)
    for row in rows:
        if row["unit"] in ("% top-1", "fraction"):
            assert 0 <= float(row["published"]) <= (1 if row["unit"] == "fraction" else 100)


@pytest.mark.parametrize(
    ("name", "row", "column", "published"),
    [
        ("table1", "DeiT-S", "embedding dimension", "384"),
        ("table1", "DeiT-B", "images/s", "292"),
        ("table2", "RegNetY-4GF", "teacher", "80.0"),
        ("table2", "DeiT-B", "384", "83.1"),
        ("table3", "Ti, hard", "224", "74.3"),
        ("table3", "S, usual", "224", "79.8"),
        ("table3", "B, class+distillation", "B↑384", "84.5"),
        ("table4", "distillation only", "class+distillation", "0.019"),
        ("table4", "convnet (RegNetY)", "DeiT", "0.133"),
        ("table5", "ResNet-50", "images/s", "1226.1"),
        ("table5", "EfficientNet-B7 RA", "ImageNet", "84.7"),
        ("table5", "DeiT-B distilled↑384, 1000 epochs", "V2", "75.2"),
        ("table8", "SGD pre-training", "224", "74.5"),
        ("table8", "AutoAugment", "384", "81.9"),
        ("table8", "no stochastic depth", "224", "3.4"),
        ("table8", "EMA", "224", "81.9"),
        ("table9", "Warmup epochs", "ViT-B", "3.4"),
        ("table10", "larger", "ReaL", "87.2"),
        ("table10", "smaller", "images/s", "609.31"),
        ("figure3", "usual, medium", "224", "82.2"),
        ("figure3", "token, longest", "384", "85.2"),
    ],
)
def test_single_cells_are_the_papers(name: str, row: str, column: str, published: str) -> None:
    assert [cell["published"] for cell in read(name) if (cell["row"], cell["column"]) == (row, column)] == [published]


def test_what_must_be_known_with_a_number_stands_beside_it() -> None:
    for cell in read("table8"):
        starred = cell["row"] in ("no erasing", "no stochastic depth") and cell["column"] == "224"
        assert ("did not train well" in cell["note"]) == starred
    for cell in read("figure3"):
        assert ("chart reading, ±0.2" in cell["note"]) == (cell["unit"] == "% top-1")


def test_figures_that_two_tables_print_are_equal() -> None:
    def one(name: str, row: str, column: str) -> str:
        return next(cell["published"] for cell in read(name) if (cell["row"], cell["column"]) == (row, column))

    assert one("table8", "baseline", "224") == one("table3", "B, no distillation", "224")
    assert one("table8", "baseline", "384") == one("table3", "B, no distillation", "B↑384")
    for row, resolution in (("as trained", ""), ("largest", "↑384")):
        assert one("table10", row, "ReaL") == one("table5", f"DeiT-B{resolution}", "ReaL")
    # Table 4's first row is 1 - accuracy (83.4% for both heads of DeiT-B distilled, 82.9% for its teacher).
    truth = {cell["column"]: float(cell["published"]) for cell in read("table4") if cell["row"] == "ground truth"}
    assert round(100 - 100 * truth["class+distillation"], 1) == float(one("table3", "B, class+distillation", "224"))
    assert round(100 - 100 * truth["convnet (RegNetY)"], 1) == float(one("table2", "RegNetY-16GF", "teacher"))
    matrix = {(cell["row"], cell["column"]): cell["published"] for cell in read("table4")}
    assert all(matrix[two, one_] == value for (one_, two), value in matrix.items()), "symmetric"


@pytest.mark.parametrize(("name", "sweep"), [(name, sweep) for name, sweeps in SWEEPS.items() for sweep in sweeps])
def test_a_sweeps_rows_are_the_published_ones(name: str, sweep: str) -> None:
    plan = planned(files.shipped("sweeps") / f"{sweep}.yaml", profile="imagenet")
    published, rows = {cell["row"] for cell in read(name)}, {row.name for row in plan.rows}
    assert rows <= published
    if name != "table5":  # which quotes many models that we do not train
        assert rows == published


def test_the_published_settings_are_those_of_the_sweep_at_their_scale() -> None:
    for name, sweep, column, key in (
        ("table10", "table10", "image size", ("data", "resolution")),
        ("figure3", "figure3", "epochs", ("schedule", "epochs")),
    ):
        rows = {
            row.name: row.recipe for row in planned(files.shipped("sweeps") / f"{sweep}.yaml", profile="imagenet").rows
        }
        published = {cell["row"]: int(cell["published"]) for cell in read(name) if cell["column"] == column}
        assert {row: getattr(getattr(recipe, key[0]), key[1]) for row, recipe in rows.items()} == published


def test_the_two_readings_of_the_ablation_differ_where_they_should() -> None:
    isolated = planned(files.shipped("sweeps") / "table8.yaml", profile="imagenet")
    as_run = planned(files.shipped("sweeps") / "table8_as_run.yaml", profile="imagenet")
    assert [row.name for row in isolated.rows if row.undeclared] == []
    assert [row.name for row in as_run.rows if row.undeclared] == ["no mixup", "no cutmix", "no mixup, no cutmix"]
    one, other = ({row.name: row.recipe.augment for row in plan.rows} for plan in (isolated, as_run))
    assert (one["no RandAugment"].color_jitter, other["no RandAugment"].color_jitter) == (0, 0.4)
    assert (one["no mixup"].mix_prob, other["no mixup"].mix_prob) == (0.5, 1)
    differing = {row.name for row, twin in zip(isolated.rows, as_run.rows, strict=True) if row.recipe != twin.recipe}
    first = {cell.variant: cell.run for cell in isolated.cells if cell.seed == 0}
    second = {cell.variant: cell.run for cell in as_run.cells if cell.seed == 0}
    assert {name for name in first if first[name] != second[name]} == {
        "SGD pre-training",
        "SGD fine-tuning",
        "no RandAugment",
        "no mixup",
        "no cutmix",
    }
    assert differing < set(first)
