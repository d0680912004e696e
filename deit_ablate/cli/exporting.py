"""Commands that trace and hand out what tables are made of: explain, export."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from deit_ablate.cli import console
from deit_ablate.cli.targets import DEFAULT_RESULTS, Results, known_sweep
from deit_ablate.errors import InputError, did_you_mean
from deit_ablate.store import Store

FORMATS = ("csv", "jsonl", "parquet")


def export(
    sweep: Annotated[str, typer.Argument(help="A sweep's name under the results folder.")],
    format_: Annotated[str, typer.Option("--format", help="csv, jsonl or parquet (which needs pyarrow).")] = "csv",
    curves: Annotated[bool, typer.Option("--curves", help="One row a run and epoch instead of one a run.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file; standard output without it.")] = None,
    results: Results = DEFAULT_RESULTS,
) -> None:
    """Write a sweep's records as one table: metrics, recipe, provenance, state; a row a run."""
    sweep = known_sweep(Store(results), sweep)
    if format_ not in FORMATS:
        raise InputError(f"got {format_!r}", where=("--format", 0, 0), expected=", ".join(FORMATS))
    if format_ == "parquet" and output is None:
        raise InputError("parquet is not for a terminal", where=("--format", 0, 0), expected="--output FILE")
    from deit_ablate.report.frame import load, load_curves
    from deit_ablate.report.tables.render import escape_csv

    frame = (load_curves if curves else load)(results, sweep)
    if format_ == "parquet":
        try:
            frame.to_parquet(output)
        except ImportError:
            raise InputError(
                "parquet needs pyarrow, which is not installed",
                where=("--format", 0, 0),
                expected="`pip install pyarrow`, or csv or jsonl",
            ) from None
        return
    if format_ == "csv":
        texts: list[Any] = list(frame.select_dtypes("string").columns)
        safe = frame.assign(**{name: frame[name].map(escape_csv, na_action="ignore") for name in texts})
        text = safe.to_csv(index=False, lineterminator="\n")
    else:
        text = frame.to_json(orient="records", lines=True, double_precision=15, force_ascii=False)
    if output is None:
        sys.stdout.write(text)
    else:
        output.write_text(text, encoding="utf-8", newline="\n")


def explain(
    cell: Annotated[
        str, typer.Argument(metavar="SWEEP:ROW[:COLUMN]", help="A row of a sweep's table, or one statistic of it.")
    ],
    results: Results = DEFAULT_RESULTS,
    stage: Annotated[
        str | None, typer.Option("--stage", help="An earlier stage than the one that the table shows.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Trace a cell of a table: the statistic, its runs, seeds, records and commands."""
    store = Store(results)
    named, _, rest = cell.partition(":")
    sweep = known_sweep(store, named)
    plan = store.sweeps.plan(sweep) or {}
    names = [row["name"] for row in plan["variants"]]
    row, column = (rest, "") if rest in names else (rest.rpartition(":")[0], rest.rpartition(":")[2])
    searched = (plan.get("search") or {}).get("spaces", {})
    if (rest in searched or row in searched) and row not in names:
        raise InputError(
            f"the search of {rest!r} has no winner (yet)",
            where=(cell, 0, 0),
            expected=f"`deit-ablate table {sweep} --search`",
        )
    if row not in names:
        raise InputError(
            f"no row {rest!r} in {sweep}{did_you_mean(rest, names)}",
            where=(cell, 0, 0),
            expected="one of " + ", ".join(names[:20]),
        )
    stages = [part["name"] for part in plan["stages"]]
    if stage is not None and stage not in stages:
        staged = [name for name in stages if name]
        expected = "one of " + ", ".join(staged) if staged else "no --stage: this sweep has none"
        raise InputError(f"no stage {stage!r}", where=("--stage", 0, 0), expected=expected)
    from deit_ablate.report.summary import STATISTICS, summarize

    if column and column not in STATISTICS:
        raise InputError(
            f"no column {column!r}{did_you_mean(column, STATISTICS)}",
            where=(cell, 0, 0),
            expected="one of " + ", ".join(STATISTICS),
        )
    summary = summarize(store, sweep, stage=stage)
    found = next(own for own in summary.rows if own["variant"] == row)
    records = [record for record in summary.final if record["variant"] in (row, plan["baseline"])]
    if json_:
        said = {key: _plain(value) for key, value in found.items() if not column or key == column}
        runs = [{key: _plain(value) for key, value in record.items()} for record in records]
        print(json.dumps({"sweep": sweep, "row": row, "stage": summary.stage, "statistics": said, "runs": runs}))
        return
    lines = [f"{sweep}: {row}" + (f", stage {summary.stage}" if summary.stage else ""), ""]
    shown = {key: value for key, value in found.items() if key != "variant" and (not column or key == column)}
    lines += console.columns([(key, _said(value), STATISTICS[key]) for key, value in shown.items()], indent="  ")
    own = [record for record in records if record["variant"] == row]
    against = [record for record in records if record["variant"] == plan["baseline"] != row]
    for title, part in (("from the runs", own), (f"against the baseline {plan['baseline']!r}", against)):
        if part:
            lines += ["", f"{title}:"]
            table = [("seed", "run", "state", "top-1", "commit", "command")]
            table += [_run(record) for record in part]
            lines += console.columns(table, indent="  ")
    lines += [
        "",
        "records: " + str(store.run("<run>") / "outcome.json"),
        f"one run: deit-ablate show {sweep}:{row}:SEED",
    ]
    print("\n".join(console.plain(line) for line in lines))


def _run(record: Mapping[str, Any]) -> tuple[str, str, str, str, str, str]:
    top1 = "" if math.isnan(record["top1"]) else f"{record['top1']:.2f}"
    commit = str(record["commit"])[:10] or "-"
    return str(record["seed"]), record["run"], record["state"], top1, commit, str(record["command"] or "")


def _said(value: Any) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.6g}"
    return str(value)


def _plain(value: Any) -> Any:
    """A value as JSON has it."""
    if value is None or isinstance(value, (str, bool)):
        return value
    number = float(value) if str(value) != "<NA>" else math.nan
    return (
        None if math.isnan(number) else int(number) if number.is_integer() and not isinstance(value, float) else number
    )
