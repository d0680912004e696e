"""What commands hand out of a sweep: explain, export, tables and figures in every format. They run in this process."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from studies import Shipped, Study
from support import Ask

import deit_ablate

# -- explain -------------------------------------------------------------------------------------------------------


@pytest.fixture
def traced(study: Callable[..., Study]) -> Study:
    def fate(top1: float, seed: int) -> dict[str, Any]:
        return {
            "top1": top1,
            "provenance": {"git": {"commit": "abcdef1234567"}, "command": f"deit-ablate run x --seeds {seed}"},
        }

    return study(
        {
            name: {seed: fate(mean + seed, seed) for seed in range(3)}
            for name, mean in {"adamw": 97.0, "a:b": 96.0}.items()
        },
        baseline="adamw",
    )


def test_a_cell_is_traced_to_its_runs(traced: Study, ask: Ask) -> None:
    said = ask("explain", "study:a:b")
    assert said.code == 0
    assert said.out.startswith("study: a:b\n")
    lines = [line.split() for line in said.out.splitlines()]
    assert next(line for line in lines if line[:1] == ["difference"])[1] == "-1"
    assert next(line for line in lines if line[:1] == ["top1_mean"])[1] == "97"
    assert said.out.index("from the runs:") < said.out.index("against the baseline 'adamw':")
    for seed in range(3):
        assert [
            str(seed),
            traced.runs["a:b", seed],
            "done",
            f"{96 + seed}.00",
            "abcdef1234",
            "deit-ablate",
            "run",
            "x",
            "--seeds",
            str(seed),
        ] in lines
        assert any(line[1:2] == [traced.runs["adamw", seed]] for line in lines)
    assert "one run: deit-ablate show study:a:b:SEED" in said.out


def test_one_statistic_and_the_baseline_itself(traced: Study, ask: Ask) -> None:
    said = ask("explain", "study:a:b:difference")
    assert "difference of the means from the baseline, in points" in said.out
    assert "top1_mean" not in said.out
    assert "against the baseline" not in ask("explain", "study:adamw").out


def test_as_json(traced: Study, ask: Ask) -> None:
    told = json.loads(ask("explain", "study:a:b", "--json").out)
    assert (told["row"], told["statistics"]["difference"], told["statistics"]["runs_compared"]) == ("a:b", -1.0, 3)
    assert [run["seed"] for run in told["runs"] if run["variant"] == "a:b"] == [0, 1, 2]
    assert told["statistics"]["step"] is None
    assert json.loads(ask("explain", "study:a:b:p_holm", "--json").out)["statistics"].keys() == {"p_holm"}


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ("stuby:adamw", "no sweep 'stuby' in results; did you mean 'study'?"),
        ("study:adamv", "no row 'adamv'; did you mean 'adamw'?"),
        ("study", "study: no row ''"),
        ("study:adamw:diference", "no column 'diference'; did you mean 'difference'?"),
    ],
)
def test_what_there_is_not(traced: Study, ask: Ask, cell: str, says: str) -> None:
    said = ask("explain", cell)
    assert (said.code, said.out) == (2, "")
    assert says in said.err
    assert len(said.err.splitlines()) == 1


def test_an_earlier_stage(study: Callable[..., Study], ask: Ask) -> None:
    made = study({"soft": {0: 96.0}}, teacher=99.5)
    assert made.teacher in ask("explain", "study:soft", "--stage", "teacher").out
    said = ask("explain", "study:soft", "--stage", "techer")
    assert said.code == 2
    assert "no stage 'techer'" in said.err


# -- export --------------------------------------------------------------------------------------------------------


def test_csv_comes_back_as_it_was(optimizers: Study, ask: Ask) -> None:
    text = ask("export", "optimizers").out
    frame = deit_ablate.load(optimizers.root, "optimizers")
    back = pd.read_csv(io.StringIO(text))
    assert list(back) == list(frame)
    assert len(back) == 9
    for column in ("variant", "seed", "run", "state"):
        assert list(back[column]) == list(frame[column])
    for column in ("top1", "train_seconds", "optimizer.base_lr"):
        assert list(back[column].dropna()) == list(frame[column].dropna())
    assert ask("export", "optimizers", "-o", "x.csv").out == ""
    assert Path("x.csv").read_text() == text


def test_curves(optimizers: Study, ask: Ask) -> None:
    back = pd.read_csv(io.StringIO(ask("export", "optimizers", "--curves").out))
    frame = deit_ablate.load_curves(optimizers.root, "optimizers")
    assert list(back) == list(frame)
    assert list(back["train_loss"]) == list(frame["train_loss"])


def test_names_that_look_like_formulas_are_defused(study: Callable[..., Study], ask: Ask) -> None:
    study({"=HYPERLINK(1)": {0: 90.0}, "+mixup": {0: 91.0}, "plain\x1b[31m": {0: 92.0}})
    back = pd.read_csv(io.StringIO(ask("export", "study").out))
    assert list(back["variant"]) == ["'=HYPERLINK(1)", "'+mixup", "plain"]


def test_a_json_object_a_line(optimizers: Study, ask: Ask) -> None:
    lines = [json.loads(line) for line in ask("export", "optimizers", "--format", "jsonl").out.splitlines()]
    assert [line["variant"] for line in lines] == ["adamw"] * 3 + ["sgd"] * 3 + ["lamb"] * 3
    assert [line["top1"] for line in lines] == [97, 98, 99, 95, 97, None, 98, 99.5, None]


def test_parquet_where_pyarrow_is_missing(optimizers: Study, ask: Ask) -> None:
    said = ask("export", "optimizers", "--format", "parquet")
    assert said.code == 2
    assert "--output FILE" in said.err
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        said = ask("export", "optimizers", "--format", "parquet", "-o", "x.parquet")
        assert said.code == 2
        assert said.err == (
            "error: --format: parquet needs pyarrow, which is not installed; expected `pip install pyarrow`, "
            "or csv or jsonl\n"
        )
        assert not Path("x.parquet").exists()
    else:
        ask("export", "optimizers", "--format", "parquet", "-o", "x.parquet")
        assert list(pd.read_parquet("x.parquet")["top1"].dropna()) == [97, 98, 99, 95, 97, 98, 99.5]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["optimiser"], "did you mean 'optimizers'?"),
        (["optimizers", "--format", "xlsx"], "--format: 'xlsx' is not one of 'csv', 'jsonl', 'parquet'"),
    ],
)
def test_export_refuses(optimizers: Study, ask: Ask, arguments: list[str], says: str) -> None:
    said = ask("export", *arguments)
    assert (said.code, said.out) == (2, "")
    assert says in said.err


@pytest.mark.parametrize("command", ["export", "explain", "table", "figure", "report"])
def test_a_sweep_that_there_is_not_is_told_alike_by_all(optimizers: Study, ask: Ask, command: str) -> None:
    said = ask(command, "optimiser")
    assert (said.code, said.out) == (2, "")
    assert (
        said.err == "error: no sweep 'optimiser' in results; did you mean 'optimizers'?; expected one of optimizers\n"
    )
    assert ask(command, "../results").code == 2


def test_a_sweep_may_be_named_by_its_file(optimizers: Study, ask: Ask) -> None:
    assert ask("export", "sweeps/optimizers.yaml").out == ask("export", "optimizers").out
    assert ask("explain", "optimizers.yaml:adamw").out == ask("explain", "optimizers:adamw").out


# -- tables and figures --------------------------------------------------------------------------------------------


def test_a_table_as_html(study: Callable[..., Study], ask: Ask) -> None:
    study({"<script>alert(1)</script>": {0: 90.0}, 'a & "b"': {0: 91.0}}, title="<b>bold</b>")
    said = ask("table", "study", "--format", "html")
    assert said.out.startswith("<table>\n<caption>&lt;b&gt;bold&lt;/b&gt;, profile digits</caption>\n")
    assert "<td>&lt;script&gt;alert(1)&lt;/script&gt;</td>" in said.out
    assert "<td>a &amp; &quot;b&quot;</td>" in said.out
    assert "<script" not in said.out
    chosen = ask("table", "study", "--columns", "row, seeds", "--format", "csv")
    assert chosen.code == 0, chosen.err
    refused = ask("table", "study", "--format", "docx")
    assert refused.code == 2
    assert refused.err == "error: --format: 'docx' is not one of 'md', 'csv', 'tex', 'html'\n"


def test_figures_in_several_formats(optimizers: Study, ask: Ask) -> None:
    said = ask("figure", "optimizers", "--format", "pdf, svg")
    names = [Path(line).name for line in said.out.splitlines()]
    assert names == [f"{name}.{form}" for name in ("effects", "top1", "curves") for form in ("pdf", "svg")]
    folder = optimizers.root / "optimizers" / "figures"
    assert (folder / "effects.pdf").read_bytes().startswith(b"%PDF")
    assert "<svg" in (folder / "effects.svg").read_text()
    refused = ask("figure", "optimizers", "--format", "png,gif")
    assert refused.code == 2
    assert "got 'gif'" in refused.err


def test_the_papers_table(shipped_sweep: Callable[..., Any], optimizers: Study, ask: Ask) -> None:
    shipped_sweep("table10", lambda cell: 97.0)
    said = ask("table", "table10", "--paper")
    assert said.out.startswith("# DeiT Table 10: fine-tuning resolution\n")
    assert "top-1 paper" in said.out
    refused = ask("table", "optimizers", "--paper")
    assert refused.code == 2
    assert "optimizers is no table of the paper" in refused.err


@pytest.mark.parametrize("paper", [[], ["--paper"]])
def test_a_strict_table_with_rows_that_are_not_isolated_is_an_error(
    shipped_sweep: Callable[..., Any], ask: Ask, paper: list[str]
) -> None:
    shipped_sweep("table8_as_run", lambda cell: 97.0)
    assert ask("table", "table8_as_run", *paper).code == 0
    said = ask("table", "table8_as_run", *paper, "--strict")
    assert said.code == 1
    assert said.out.startswith("# DeiT Table 8" if paper else "# The ablation, as the reference code runs it")
    assert "error: no mixup is not isolated: share of batches with CutMix 0.1 → 0.2" in said.err
    shipped_sweep("table8", lambda cell: 97.0)
    said = ask("table", "table8", *paper, "--strict")
    assert (said.code, said.err) == (0, "")


def test_the_table_of_interactions_alone(ask: Ask, shipped_sweep: Callable[..., Shipped], study: Callable[..., Study]):
    shipped_sweep("interactions", lambda cell: 90 + cell.seed / 10)
    both, alone = ask("table", "interactions"), ask("table", "interactions", "--interactions")
    assert both.out.endswith("\n\n" + alone.out)
    assert "| RandAugment × mixup " in alone.out
    values = ask("table", "interactions", "--interactions", "--format", "csv").out
    assert values.startswith("effect,factors,estimate,half_width,half_width_all,p,")
    assert "figures/interactions.svg" in ask("figure", "interactions", "--format", "svg").out
    study({"a": {0: 90.0}}, baseline="a")
    refused = ask("table", "study", "--interactions")
    assert refused.code == 2
    assert refused.err == (
        "error: --interactions: study combines no changes; expected a factorial, or a cumulative sweep with orders\n"
    )
