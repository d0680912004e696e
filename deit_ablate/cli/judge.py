"""The command that judges one comparison, for scripts and agents: judge."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from deit_ablate.cli import console
from deit_ablate.cli.targets import DEFAULT_RESULTS, Results, by_name, known_sweep
from deit_ablate.errors import InputError, counted
from deit_ablate.report.numbers import FORMS, SUFFIXES
from deit_ablate.report.records import LARGEST
from deit_ablate.store import Store

if TYPE_CHECKING:
    from deit_ablate.report.judge import Group

FEW = 6
"""Significant digits of what is printed."""


def judge(
    groups: Annotated[
        list[str],
        typer.Argument(
            metavar="[BASELINE] CANDIDATE",
            help="Each a row, sweep:row, or a file with a number of each run: text, CSV or JSON.",
        ),
    ],
    target: Annotated[
        float | None, typer.Option("--target", help="Instead of a baseline: is the candidate's mean beyond this value?")
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option("--margin", help="Within which they are equivalent; by default what the sweep declares."),
    ] = None,
    better: Annotated[
        Literal["higher", "lower"] | None, typer.Option("--better", help="Of files: which way numbers are better.")
    ] = None,
    column: Annotated[
        str | None, typer.Option("--column", help="Of files: the column, or key, that holds the numbers.")
    ] = None,
    campaign: Annotated[
        str | None,
        typer.Option(
            "--campaign",
            metavar="NAME",
            help="Count it as a try of this campaign: at most 10% of what all its tries keep is false, in expectation.",
        ),
    ] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    store: Results = DEFAULT_RESULTS,
) -> None:
    """Judge a candidate: better, worse, equivalent, or undecided with the seeds that it needs. Exit code 0 whichever.

    `judge BASELINE CANDIDATE` compares two groups of runs as a table of one row does, `judge CANDIDATE --target X` one
    with a fixed value.
    """
    if len(groups) > 2 or (len(groups) == 2) == (target is not None):
        problem = f"got {len(groups)} group{'s' * (len(groups) > 1)}{' and a target' * (target is not None)}"
        raise InputError(problem, expected="BASELINE CANDIDATE, or CANDIDATE --target X")
    if target is not None and not abs(target) <= LARGEST:
        raise InputError(f"got {target}", where="--target", expected=f"a number, of {LARGEST:g} at most")
    if margin is not None and not 0 < margin < math.inf:
        raise InputError(f"got {margin}", where="--margin", expected="a number above 0")
    from deit_ablate.report.judge import Question, answer, answer_in_campaign
    from deit_ablate.store.campaigns import Campaigns

    *baseline, candidate = [_group(text, column, store) for text in groups]
    question = Question.of(candidate, baseline[0] if baseline else None, target, margin, better)
    if column is not None and all(group.metric for group in question.sides):
        raise InputError("rows have no columns", where="--column", expected="a file, or no --column")
    found = answer(question) if campaign is None else answer_in_campaign(Campaigns(store), campaign, question)
    if json_:
        print(json.dumps(found))
    else:
        console.say(*_lines(found))


def _group(text: str, column: str | None, store: Store) -> Group:
    from deit_ablate.report.judge import of_file, of_row

    path = Path(text)
    if path.suffix.lower() in SUFFIXES or (path.is_file() and path.suffix.lower() not in (".yaml", ".yml")):
        return of_file(path, column)
    name, colon, row = by_name(text, store).partition(":")
    if not colon:
        raise InputError("neither a row nor a file", where=text, expected=f"sweep:row, or a file: {FORMS}")
    return of_row(store, known_sweep(store, name), row)


def _lines(found: Mapping[str, Any]) -> list[str]:
    """The answer for people."""
    unit, paired = f" {found['unit']}" if found["unit"] else "", ", by pairs" if found["paired"] else ""
    sides = [(found["candidate"], counted(found["runs"], "run"), _number(found["mean"]))]
    if found["baseline"] is not None:
        sides += [(found["baseline"], counted(found["baseline_runs"], "run"), _number(found["baseline_mean"]))]
    else:
        sides += [("target", "", _number(found["target"]))]
    lines = [found["words"], "", *console.columns(sides, indent="  ")]
    if found["p"] is not None:
        difference = f"{found['difference']:+.{FEW}g} ± {found['half_width']:.3g}{unit}"
        lines += ["", f"difference {difference} (95%{paired}), p {found['p']:.2g}; {found['better']} is better"]
    if (made := found["campaign"]) is not None:
        kept = "kept" if made["keep"] else "not kept"
        again = " (recorded before: nothing is spent)" if made["repeated"] else ""
        lines += [
            f"campaign {made['name']}, try {made['try']}: {kept}, one-sided p {made['p']:.2g} at level "
            f"{made['level']:.2g}; look {made['look']} at candidate {made['candidate']}; "
            f"{made['kept']} of {made['candidates']} kept so far{again}"
        ]
    return [*lines, f"assumed: {found['assumed']}", *(f"note: {note}" for note in found["notes"])]


def _number(number: float | None) -> str:
    return "-" if number is None else f"{number:.{FEW}g}"
