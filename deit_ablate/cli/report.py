"""Commands that show results: table, figure, report, explain, search export, tokens, disagree."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from deit_ablate import files
from deit_ablate.cli import console
from deit_ablate.cli.options import KnownSweep
from deit_ablate.cli.targets import DEFAULT_RESULTS, Results, by_name, hint_of_edits, known_sweep, runs_of
from deit_ablate.errors import InputError, unknown_name
from deit_ablate.search.export import export as export_winner
from deit_ablate.store import Store

if TYPE_CHECKING:
    from deit_ablate.report.summary import Summary
    from deit_ablate.report.tables.tokens import RunGroup


def table(
    sweep: KnownSweep,
    format_: Annotated[Literal["md", "csv", "tex", "html"], typer.Option("--format")] = "md",
    store: Results = DEFAULT_RESULTS,
    paper: Annotated[bool, typer.Option("--paper", help="The paper's table, with its numbers beside ours.")] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="5% for any false verdict, and exit code 1 where a row is not isolated.")
    ] = False,
    search: Annotated[
        bool, typer.Option("--search", help="The best trials of a search alone; md shows them before its table.")
    ] = False,
    interactions: Annotated[
        bool,
        typer.Option(
            "--interactions",
            help="Effects of a factorial, or steps in several orders, alone; md shows them after the table.",
        ),
    ] = False,
    pivot: Annotated[
        bool,
        typer.Option("--pivot", help="Of a grid: its last axis across, the others down, and the means along each."),
    ] = False,
    columns: Annotated[
        str | None,
        typer.Option(
            "--columns",
            help="Columns with commas between: row, differs, the metric's name, difference, verdict, time, hours, "
            "seeds, or statistics (the CSV's columns).",
        ),
    ] = None,
    digits: Annotated[int | None, typer.Option("--digits", min=0, max=9, help="Digits after the point.")] = None,
    notes: Annotated[
        Literal["full", "short", "none"] | None, typer.Option("--notes", help="Footnotes (of tex by default short).")
    ] = None,
    no_notes: Annotated[bool, typer.Option("--no-notes", help="--notes none.")] = False,
    caption: Annotated[
        str | None, typer.Option("--caption", help="In place of the title; may have $mathematics$.")
    ] = None,
    label: Annotated[str | None, typer.Option("--label", help="Of LaTeX, in place of tab:SWEEP.")] = None,
    wide: Annotated[bool, typer.Option("--wide", help="LaTeX across the page (table*), with all columns.")] = False,
) -> None:
    """Print a sweep's table, made from its records."""
    name = known_sweep(store, sweep)
    from deit_ablate.report.summary import summarize
    from deit_ablate.report.tables.render import TOO_WIDE
    from deit_ablate.report.tables.search import is_search
    from deit_ablate.report.tables.table import Printed, sweep_table
    from deit_ablate.report.write import RENDERERS, analysis, markdown, paper_analysis

    notes = "none" if no_notes else notes or ("short" if format_ == "tex" else "full")
    summary = summarize(store, name, strict=strict)
    if search and not is_search(summary.plan):
        raise InputError(f"{name} is no search", where="--search", expected="a sweep with a search block")
    if interactions and not summary.design:
        expected = "a factorial, or a cumulative sweep with orders"
        raise InputError(f"{name} combines no changes", where="--interactions", expected=expected)
    alone = "search" if search else "interactions" if interactions else "pivot" if pivot else "sweep_table"
    module = paper_analysis(summary) if paper else analysis(alone)
    if module is None:
        raise InputError(f"{name} is no table of the paper", where="--paper", expected="a sweep that is one")
    hint_of_edits(store, name)
    printed = Printed(tuple(map(str.strip, columns.split(","))) if columns else (), notes, caption, label, wide)
    own = not paper and alone == "sweep_table"
    if digits is not None and not own:
        raise InputError("this table has digits of its own", where="--digits", expected="a sweep's own table")
    made = printed.of(sweep_table(summary, digits) if digits is not None else module.table(summary))
    plain = printed == Printed() and digits is None
    text = markdown(summary, {"table": made}) if format_ == "md" and own and plain else RENDERERS[format_](made)
    print(text, end="")
    if format_ == "tex" and TOO_WIDE in text:
        print(f"note: this is {TOO_WIDE.removeprefix('% ')}", file=sys.stderr)
    not_isolated = [row for row in summary.rows if row["leaks"]] if strict else []
    for row in not_isolated:
        console.say(f"error: {row['variant']} is not isolated: {row['leaks']}", out=sys.stderr)
    if not_isolated:
        raise typer.Exit(1)


def figure(
    sweep: KnownSweep,
    store: Results = DEFAULT_RESULTS,
    format_: Annotated[str, typer.Option("--format", help="png, pdf, svg, or several with commas between.")] = "png",
    width: Annotated[
        Literal["column", "page"],
        typer.Option("--width", help="Of a two-column paper; of a page NAME-page.png and so on."),
    ] = "column",
) -> None:
    """Draw a sweep's figures from its records, and print where they are."""
    name = known_sweep(store, sweep)
    formats = list(dict.fromkeys(map(str.strip, format_.split(","))))
    if unknown := [form for form in formats if form not in ("png", "pdf", "svg")]:
        raise InputError(f"got {unknown[0]!r}", where="--format", expected="png, pdf or svg")
    from deit_ablate.report.figures import style
    from deit_ablate.report.summary import summarize
    from deit_ablate.report.write import write_figures

    summary = summarize(store, name)
    with style.width(width):
        for path in write_figures(summary, formats):
            print(path)


def report(
    sweep: Annotated[str | None, typer.Argument(help="A sweep's name under the results folder, or its file.")] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="An index over all sweeps; writes their missing and outdated reports.")
    ] = False,
    redact: Annotated[
        bool,
        typer.Option(
            "--redact",
            help="Leave out hosts, accounts, user names, paths and uncommitted changes, as far as they are known.",
        ),
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="A file; results/SWEEP/report.html without it.")
    ] = None,
    store: Results = DEFAULT_RESULTS,
) -> None:
    """Write a sweep as one HTML file that needs nothing else: findings in words, table, figures, provenance."""
    if all_ == (sweep is not None):
        raise InputError("what is to be reported?", expected="a sweep's name, or --all")
    if all_ and output is not None:
        raise InputError("--all writes into the results folder", where="--output", expected="--output with a sweep")
    if sweep is not None:
        name = known_sweep(store, sweep)
        hint_of_edits(store, name)
        from deit_ablate.report.html import write_page
        from deit_ablate.report.summary import summarize

        console.say(write_page(summarize(store, name), redact=redact, output=output))
        return
    if not store.sweeps.names():
        raise InputError(f"no sweeps in {store.root}", expected="a results folder with a sweep that was run")
    from deit_ablate.report.html import write_index

    written = write_index(store, redact=redact)
    console.say(*written.pages, written.index)
    for name, why in written.unreadable.items():
        console.say(f"error: {name} cannot be read: {why}", out=sys.stderr)
    if written.unreadable:
        raise typer.Exit(1)


def explain(
    cell: Annotated[
        str, typer.Argument(metavar="SWEEP:ROW[:COLUMN]", help="A row of a sweep's table, or one statistic of it.")
    ],
    store: Results = DEFAULT_RESULTS,
    stage: Annotated[
        str | None, typer.Option("--stage", help="An earlier stage than the one that the table shows.")
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Trace a cell of a table: the statistic, its runs, seeds, records and commands."""
    named, _, rest = by_name(cell, store).partition(":")
    sweep = known_sweep(store, named)
    plan = store.sweeps.plan(sweep) or {}
    names = [row["name"] for row in plan["variants"]]
    row, column = (rest, "") if rest in names else (rest.rpartition(":")[0], rest.rpartition(":")[2])
    searched = (plan.get("search") or {}).get("spaces", {})
    if (rest in searched or row in searched) and row not in names:
        problem = f"the search of {rest!r} has no winner (yet)"
        raise InputError(problem, where=cell, expected=f"`deit-ablate table {sweep} --search`")
    if row not in names:
        raise unknown_name("no row", rest, names, where=cell)
    stages = [part["name"] for part in plan["stages"]]
    if stage is not None and stage not in stages:
        raise unknown_name("no stage", stage, [name for name in stages if name], where="--stage")
    from deit_ablate.report.summary import OF_EFFECT, meanings, summarize
    from deit_ablate.sweep.metrics import planned_metrics

    known = meanings(planned_metrics(plan))
    if column and column not in known:
        raise unknown_name("no column", column, list(known), where=cell)
    summary = summarize(store, sweep, stage=stage)
    found = next(own for own in summary.rows if own["variant"] == row)
    records = [record for record in summary.final if record["variant"] in (row, plan["baseline"])]
    if json_:
        said = {key: console.json_value(value) for key, value in found.items() if not column or key == column}
        runs = [{key: console.json_value(value) for key, value in record.items()} for record in records]
        print(json.dumps({"sweep": sweep, "row": row, "stage": summary.stage, "statistics": said, "runs": runs}))
        return
    lines = [f"{sweep}: {row}" + (f", stage {summary.stage}" if summary.stage else ""), ""]
    shown = {key: value for key, value in found.items() if key != "variant" and (not column or key == column)}
    lines += console.columns([(key, _text(statistic), known[key]) for key, statistic in shown.items()], indent="  ")
    own: list[Mapping[str, Any]] = [record for record in records if record["variant"] == row]
    against: list[Mapping[str, Any]] = [record for record in records if record["variant"] == plan["baseline"] != row]
    if summary.looks is not None and column in OF_EFFECT:  # a look sees the first seeds alone, whatever is there by now
        own = _first(summary, own, found["runs_compared"])
        against = _first(summary, against, found["baseline_runs_compared"])
    for title, part in (("from the runs", own), (f"against the baseline {plan['baseline']!r}", against)):
        if part:
            lines += ["", f"{title}:"]
            table = [("seed", "run", "state", summary.metric.words.removeprefix("test "), "commit", "command")]
            table += [_run(record, summary.figure(record), summary.metric.digits) for record in part]
            lines += console.columns(table, indent="  ")
    records_in = store.run("<run>") / "outcome.json"
    console.say(*lines, "", f"records: {records_in}", f"one run: deit-ablate show {sweep}:{row}:SEED")


def _first(summary: Summary, records: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """So many of the runs that have the figure, by seed."""
    have = [record for record in records if not math.isnan(summary.figure(record))]
    return sorted(have, key=lambda record: record["seed"])[:count]


def _run(record: Mapping[str, Any], value: float, digits: int) -> tuple[str, str, str, str, str, str]:
    figure = "" if math.isnan(value) else f"{value:.{digits}f}"
    commit = str(record["commit"])[:10] or "-"
    return str(record["seed"]), record["run"], record["state"], figure, commit, str(record["command"] or "")


def _text(value: Any) -> str:
    if isinstance(value, float):
        return "-" if math.isnan(value) else f"{value:.6g}"
    return str(value)


def search(
    action: Annotated[Literal["export"], typer.Argument(metavar="export")],
    sweep: Annotated[str, typer.Argument(help="A sweep that has searched (or its file), or sweep:row.")],
    store: Results = DEFAULT_RESULTS,
) -> None:
    """Write the winner of a search as a profile: `deit-ablate search export SWEEP > sweeps/profiles/tuned.yaml`.

    A sweep file beside it then says `profile: tuned`, with the stages that the search had; `deit-ablate train` takes
    the file as it is, except for a student's, whose teacher is a stage. The winner is the confirmed one; of a search
    that is not confirmed the best trial, whose value is optimistic (selection bias). Of a program's search it is the
    `parameters:` block, to be pasted into the sweep file.
    """
    name, _, row = by_name(sweep, store).partition(":")
    plan = store.sweeps.plan(known_sweep(store, name)) or {}
    if "search" not in plan:
        raise InputError(f"{name} has no search", where=sweep, expected="a sweep with a `search:` block")
    found = export_winner(store, plan, row)
    console.say(*(f"# {line}" for line in found.comments))
    print(found.yaml(), end="")
    if not found.confirmed:
        print("note: this trial is not confirmed", file=sys.stderr)


Targets = Annotated[
    list[str],
    typer.Argument(
        metavar="TARGET",
        help="A sweep or its file, sweep:variant, sweep:variant:seed[:stage], or the first digits of a run's id.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="Folder to write to; by default the sweep's, where the target is a whole sweep."),
]


def tokens(targets: Targets, store: Results = DEFAULT_RESULTS, out: Out = None) -> None:
    """Print how alike class and distillation token are, layer by layer; write the values and a figure."""
    targets = [by_name(target, store) for target in targets]
    wanted = _groups(targets, store)
    from deit_ablate.report.tables import render
    from deit_ablate.report.tables.tokens import similarities, tokens_table, tokens_values

    found = similarities(store, wanted)
    print(render.to_markdown(tokens_table(found)), end="")
    if folder := out or _folder(targets, store, "figures"):
        from deit_ablate.report.figures.style import save
        from deit_ablate.report.figures.tokens import tokens_figure

        path = files.make_folder(folder) / "token_similarity"
        files.replace(path.with_suffix(".csv"), render.to_csv(tokens_values(store, found)).encode())
        figure = tokens_figure(found)
        for suffix in (".png", ".pdf"):
            save(figure, path.with_suffix(suffix))
        print("\n".join(str(path.with_suffix(suffix)) for suffix in (".csv", ".png", ".pdf")), file=sys.stderr)


def disagree(
    targets: Targets,
    head: Annotated[
        str, typer.Option("--head", help="Of models with two heads: class, distillation, fused_softmax or all.")
    ] = "all",
    store: Results = DEFAULT_RESULTS,
    out: Out = None,
) -> None:
    """Print the share of test images that each two classifiers class differently; write it as CSV."""
    targets = [by_name(target, store) for target in targets]
    wanted = _groups(targets, store)
    from deit_ablate.report.tables import render
    from deit_ablate.report.tables.predictions import disagreement_table, predictions, with_teachers

    table = disagreement_table(predictions(store, with_teachers(store, wanted), head))
    print(render.to_markdown(table), end="")
    if folder := out or _folder(targets, store, ""):
        path = files.make_folder(folder) / "disagreement.csv"
        files.replace(path, render.to_csv(table).encode())
        print(path, file=sys.stderr)


def _groups(targets: Sequence[str], store: Store) -> list[RunGroup]:
    """The runs that the targets name, each once, with its sweep's name where there are several. Raises InputError."""
    found = {target: runs_of(target, store) for target in targets}  # the errors; and what is the beginning of an id
    from deit_ablate.report.frame import read_plan
    from deit_ablate.report.tables.tokens import RunGroup, groups

    several = len({target.split(":")[0] for target in targets}) > 1
    named: dict[tuple[tuple[str, ...], str], RunGroup] = {}
    for target, runs in found.items():
        sweep, *parts = target.split(":")
        is_id = len(runs) == 1 and runs[0].startswith(target)
        for group in [RunGroup(runs[0], (runs[0],))] if is_id else groups(read_plan(store, sweep), *parts):
            full = replace(group, name=f"{sweep}:{group.name}") if several and not is_id else group
            named.setdefault((group.runs, group.shows), full)
    return list(named.values())


def _folder(targets: Sequence[str], store: Store, inside: str) -> Path | None:
    """Where a report on a whole sweep lies; nowhere for a part of one, which would take that one's place."""
    if len(targets) == 1 and store.sweeps.plan(targets[0]) is not None:
        return store.sweeps.folder(targets[0]) / inside
    print("nothing is written, as this is not one whole sweep: --out DIR says where to", file=sys.stderr)
    return None
