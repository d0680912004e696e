"""How alike two tokens are: from arrays on disk to the table, the CSV and the figure, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib.text
import numpy as np
import pytest
from studies import Study, record

from deit_ablate import files
from deit_ablate.errors import InputError
from deit_ablate.report.figures.style import save
from deit_ablate.report.figures.tokens import tokens_figure
from deit_ablate.report.frame import NoSweep, read_plan
from deit_ablate.report.tables.render import to_csv, to_markdown
from deit_ablate.report.tables.tokens import (
    RunGroup,
    Similarities,
    Similarity,
    groups,
    published,
    similarities,
    tokens_table,
    tokens_values,
)
from deit_ablate.store import Store


@pytest.fixture
def two_tokens(study: Callable[..., Study]) -> Study:
    """Rows: none (one token), hard token (seeds 0, 1 and a missing one), its class head alone, soft token (one
    seed)."""
    made = study(
        {
            "none": {0: 90.0, 1: 91.0, 2: 92.0},
            "hard token": {0: 93.0, 1: 94.0, 2: "missing"},
            "its class head": {0: 93.0, 1: 94.0, 2: "missing"},
            "soft token": {0: 93.5, 1: "failed", 2: {"status": "diverged", "reason": "at chance"}},
        },
        same={"its class head": "hard token"},
        shows={"its class head": "class"},
    )
    for seed in range(3):
        record(made, made.runs["none", seed], test_targets=[0, 1])
    record(made, made.runs["hard token", 0], test_targets=[0, 1], token_similarity=[0.1, 0.5, 0.9])
    record(made, made.runs["hard token", 1], test_targets=[0, 1], token_similarity=[-0.1, 0.3, 0.8])
    record(made, made.runs["soft token", 0], test_targets=[0, 1], token_similarity=[0.0, 0.25, 0.75])
    record(made, made.runs["soft token", 2], test_targets=[0, 1], token_similarity=[1.0, 1.0, 1.0])
    return made


def found_in(study: Study, *more: str) -> Similarities:
    return similarities(study.store, groups(read_plan(study.store, "study"), *more))


def test_a_sweep_gives_its_rows_of_two_tokens_each_runs_once(two_tokens: Study) -> None:
    found = found_in(two_tokens)
    assert [row.name for row in found.rows] == ["hard token", "soft token"]
    hard, soft = found.rows
    assert hard.mean == pytest.approx([0.0, 0.4, 0.85])
    # By hand: of two values the standard deviation is their distance over the square root of 2.
    assert hard.sd == pytest.approx([0.2 / math.sqrt(2), 0.2 / math.sqrt(2), 0.1 / math.sqrt(2)])
    assert soft.mean == pytest.approx([0.0, 0.25, 0.75]), "without the run that diverged"
    assert np.isnan(soft.sd).all()
    assert found.notes == (
        "Runs that are done, the others being left out: hard token 2 of 3, soft token 1 of 3.",
        "Without two tokens: none.",
    )


def test_the_table_reads_as_it_should(two_tokens: Study) -> None:
    text = to_markdown(tokens_table(found_in(two_tokens)))
    assert "| layer | hard token (2 seeds) | soft token |" in text
    assert "| input |        0.000 ± 0.141 |      0.000 |" in text
    assert "|     2 |        0.850 ± 0.071 |      0.750 |" in text
    assert "standard deviation over seeds" in text
    for number in published():
        assert f"{number['cosine']:g}" in text


def test_the_csv_has_every_run_and_layer(two_tokens: Study) -> None:
    lines = list(csv.DictReader(io.StringIO(to_csv(tokens_values(two_tokens.store, found_in(two_tokens))))))
    assert len(lines) == 9
    assert lines[4] == {
        "row": "hard token",
        "run": two_tokens.runs["hard token", 1],
        "seed": "1",
        "layer": "1",
        "cosine": "0.3",
    }


def test_rows_are_called_by_their_labels(two_tokens: Study) -> None:
    plan = two_tokens.store.sweeps.folder("study") / "plan.json"
    told = json.loads(plan.read_text()) | {"labels": {"hard token": r"hard ($\tau$)", "none": "ViT"}}
    files.replace(plan, files.to_json(told))
    found = found_in(two_tokens)
    assert r"| layer | hard ($\tau$) (2 seeds) | soft token |" in to_markdown(tokens_table(found))
    assert found.notes[1] == "Without two tokens: ViT."
    legend = [text.get_text() for text in tokens_figure(found).findobj(matplotlib.text.Text)]
    assert "hard (τ) (mean ± sd of 2 seeds)" in legend


def test_models_of_different_depth_stand_in_one_table() -> None:
    deep, flat = Similarity("deep", {"a": np.array([0.1, 0.2, 0.3])}), Similarity("flat", {"b": np.array([0.4, 0.5])})
    found = Similarities((deep, flat), ())
    assert tokens_table(found).rows() == [["input", "0.100", "0.400"], ["1", "0.200", "0.500"], ["2", "0.300", "–"]]
    assert found.layers == 2


def test_one_seed_of_a_row_is_a_row_of_its_own(two_tokens: Study) -> None:
    (row,) = groups(read_plan(two_tokens.store, "study"), "hard token", "1")
    assert row == RunGroup("hard token:1", (two_tokens.runs["hard token", 1],))
    (found,) = similarities(two_tokens.store, [row]).rows
    assert found.mean == pytest.approx([-0.1, 0.3, 0.8])
    # A run that ended at chance is in no row, but can be looked at when it is named.
    (chance,) = found_in(two_tokens, "soft token", "2").rows
    assert chance.mean == pytest.approx([1, 1, 1])


def test_an_earlier_stage_is_reached_by_its_name(study: Callable[..., Study]) -> None:
    made = study({"a": {0: 90.0}, "b": {0: 91.0}}, teacher=97.0)
    assert [row.runs for row in groups(read_plan(made.store, "study"))] == [(made.runs["a", 0],), (made.runs["b", 0],)]
    first, second = groups(read_plan(made.store, "study"), "*", "*", "teacher")
    assert first == RunGroup("a:*:teacher", (made.teacher,), requested=False)
    assert second.runs == first.runs
    with pytest.raises(NoSweep):
        groups(read_plan(made.store, "nothing"))


@pytest.mark.parametrize(
    ("named", "says"),
    [
        (["none"], "none has no two tokens"),
        (["none", "0"], "none:0 has no two tokens"),
        (["hard token", "2"], "hard token:2 is not done"),
    ],
)
def test_what_lacks_two_tokens_is_named(two_tokens: Study, named: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        found_in(two_tokens, *named)


def test_a_sweep_without_any_is_refused(two_tokens: Study, study: Callable[..., Study]) -> None:
    rows = [row for row in groups(read_plan(two_tokens.store, "study")) if row.name == "none"]
    with pytest.raises(InputError, match="no two tokens in any of none"):
        similarities(two_tokens.store, rows)
    unfinished = study({"a": {0: "missing"}}, name="unfinished")
    with pytest.raises(InputError, match="none of these is done: a"):
        similarities(unfinished.store, groups(read_plan(unfinished.store, "unfinished")))


def test_arrays_that_are_gone_or_changed_are_no_numbers(two_tokens: Study) -> None:
    run = two_tokens.runs["hard token", 0]
    (attempt,) = two_tokens.store.attempts(run)
    attempt.arrays.write_bytes(attempt.arrays.read_bytes() + b"x")
    with pytest.raises(InputError, match=f"{run}/a0001/arrays.npz: damaged: not what the run wrote"):
        found_in(two_tokens, "hard token")
    attempt.arrays.unlink()
    with pytest.raises(InputError, match=f"the arrays of run {run} are gone"):
        found_in(two_tokens, "hard token")


def test_the_published_numbers_are_data_with_their_source() -> None:
    assert [(number["tokens"], number["at"], number["cosine"]) for number in published()] == [
        ("class and distillation", "input", 0.06),
        ("class and distillation", "last block", 0.93),
        ("two class tokens", "input", 0.999),
    ]
    assert all("2012.12877v2" in number["source"] for number in published())
    source = (files.shipped("analysis").parent / "deit_ablate" / "report" / "tables" / "tokens.py").read_text()
    assert not any(f"{number['cosine']:g}" in source for number in published())


def words(figure: Any) -> set[str]:
    return {text.get_text() for text in figure.findobj(matplotlib.text.Text)}


def test_the_figure_shows_rows_and_published_numbers(two_tokens: Study, tmp_path: Path) -> None:
    figure = tokens_figure(found_in(two_tokens))
    (axes,) = figure.axes
    assert axes.get_xlabel() == "transformer block (0: the learned input tokens)"
    assert axes.get_ylabel() == "cosine similarity (−1 to 1)"
    assert "hard token (mean ± sd of 2 seeds)" in words(figure)
    assert "soft token" in words(figure)
    lines = {str(line.get_label()): line for line in axes.lines}
    assert np.asarray(lines["hard token (mean ± sd of 2 seeds)"].get_ydata()) == pytest.approx([0.0, 0.4, 0.85])
    marks = {
        (float(np.asarray(line.get_xdata())[0]), float(np.asarray(line.get_ydata())[0]))
        for label, line in lines.items()
        if label.startswith("DeiT paper")
    }
    assert marks == {(0, 0.06), (2, 0.93), (0, 0.999)}
    for suffix in (".png", ".pdf"):
        paths = [tmp_path / f"{i}{suffix}" for i in range(2)]
        for path in paths:
            save(tokens_figure(found_in(two_tokens)), path)
        assert paths[0].read_bytes() == paths[1].read_bytes()


def test_of_many_rows_the_last_are_grey() -> None:
    found = Similarities(tuple(Similarity(f"row {i}", {"a": np.array([0.1, 0.2])}) for i in range(9)), ())
    assert "3 other rows" in words(tokens_figure(found))
    assert "row 5" in words(tokens_figure(found))
    assert "row 6" not in words(tokens_figure(found))


# -- the command ---------------------------------------------------------------------------------------------------


def test_the_command_prints_and_writes(two_tokens: Study, command: Any, tmp_path: Path) -> None:
    done = command("tokens", "study")
    assert "# Cosine similarity" in done.stdout
    figures = two_tokens.root / "study" / "figures"
    assert {path.name for path in figures.iterdir()} == {f"token_similarity.{kind}" for kind in ("csv", "png", "pdf")}
    assert str(Path("results") / "study" / "figures" / "token_similarity.png") in done.stderr
    run = two_tokens.runs["hard token", 1]
    alone = command("tokens", run[:8], "study:soft token", "--out", "here")
    assert run in alone.stdout
    assert "study:soft token" in alone.stdout
    assert (tmp_path / "here" / "token_similarity.pdf").read_bytes().startswith(b"%PDF")
    nowhere = command("tokens", run)
    assert "--out DIR" in nowhere.stderr


@pytest.mark.parametrize(
    ("target", "says"), [("study:none", "none has no two tokens"), ("study:nine", "did you mean 'none'?")]
)
def test_the_command_refuses(two_tokens: Study, command: Any, target: str, says: str) -> None:
    done = command("tokens", target, code=2)
    assert says in done.stderr
    assert not done.stdout
    assert not (two_tokens.root / "study" / "figures").exists()


def test_what_training_records_is_what_is_read(
    launch: Callable[..., Any], sweep: Callable[..., Path], store: Store
) -> None:
    path = sweep("seeds: 2\nvariants: {two: {distill.type: two-class-tokens}, one: {}}\n")
    assert not launch(path).failed()
    both, one = groups(read_plan(store, "tiny"))
    # Named one by one, as so short a training may end at chance.
    found = similarities(
        store, [RunGroup(run, (run,)) for run in both.runs] + [RunGroup("one", one.runs, requested=False)]
    )
    assert [row.name for row in found.rows] == list(both.runs)
    for row in found.rows:
        assert row.mean.shape == (2,), "the input and one block"
        assert (np.abs(row.mean) <= 1 + 1e-9).all()
