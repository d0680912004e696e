"""Commands that show where runs stand: status, logs, show, diff."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from deit_ablate import files
from deit_ablate.cli import console
from deit_ablate.cli.targets import (
    DEFAULT_RESULTS,
    Results,
    any_run,
    known_runs,
    known_sweep,
    names_of,
    one_run,
    states_of,
)
from deit_ablate.errors import Damaged, InputError
from deit_ablate.identity import difference
from deit_ablate.launch import status as statuses
from deit_ablate.launch.slurm import job_output, waits
from deit_ablate.recipe import flatten
from deit_ablate.store import Attempt, State, Store, owner
from deit_ablate.store.datafacts import data_lines
from deit_ablate.store.submissions import Submissions
from deit_ablate.sweep.enumeration import cell_name

RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="sweep:variant:seed[:stage], or the first digits of a run's id.")
]


def status(
    sweep: Annotated[
        str | None,
        typer.Argument(help="A sweep's name under the results folder, or its file; by default all."),
    ] = None,
    store: Results = DEFAULT_RESULTS,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    watch: Annotated[
        float | None,
        typer.Option(
            "--watch", metavar="[SECONDS]", min=0.1, help="Look again every 5 (or so many) seconds; Ctrl-C ends."
        ),
    ] = None,
) -> None:
    """Show where the runs of a sweep stand, or how many of each sweep are done."""
    if watch is not None and json_:
        raise InputError("a watch is not one JSON object", where="--watch", expected="--json without it")
    name = None if sweep is None else known_sweep(store, sweep)
    if watch is not None:
        console.watch(lambda: _look(store, name), watch)
    elif json_ and name is None:
        print(json.dumps({name: _counts(store, name) for name in store.sweeps.names()}))
    elif json_ and name is not None:
        states = states_of(store, name)
        shown = {run: {"state": s.name, "detail": s.detail, "attempt": s.attempt} for run, s in states.items()}
        print(json.dumps(shown))
    else:
        table, notes = _look(store, name)
        console.say(*console.columns(table), *notes)


def _look(store: Store, name: str | None) -> tuple[list[tuple[str, ...]], list[str]]:
    """A table of the runs of a sweep (of None: of all sweeps, with their counts), and lines that stand below it."""
    if name is None:
        counts = [(name, _counts(store, name)) for name in store.sweeps.names()]
        return [*counts], [] if counts else [f"no sweeps in {store.root}"]
    plan = store.sweeps.plan(name) or {"cells": []}
    states = states_of(store, name)
    metric = console.judged_by(store, name)
    table: list[tuple[str, ...]] = [("name", "run", "state", "")]
    for variant, seed, stage, run in plan["cells"]:
        more = ""
        if states[run].name == "running":
            more = console.glance(store, run, console.length((store.recipe(run) or {})["recipe"]), metric)
        elif states[run].name == "done":
            more = console.score(store.index.metrics(run) or (store.outcome(run) or {}).get("metrics"), metric)
        table.append((cell_name(variant, seed, stage), run, str(states[run]), more))
    notes = [f"{run}: {what}" for run, state in states.items() if (what := console.damaged(store, run, state))]
    return table, [console.counts(states), *notes, *map(str, Submissions(store).read()[1])]


def _counts(store: Store, sweep: str) -> str:
    try:
        return console.counts(states_of(store, sweep))
    except Damaged as damage:
        return str(damage)


def logs(
    run: RunArgument,
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Go on printing, later attempts too, until the run is over.")
    ] = False,
    store: Results = DEFAULT_RESULTS,
) -> None:
    """Print what a run's latest attempt printed."""
    found = one_run(run, store)
    if not store.attempts(found) and not waits(store, found):
        raise InputError(f"{run} has not started yet", expected="a run with an attempt")
    if not store.attempts(found):
        print(job_output(store, found) or f"{run} waits at the scheduler")
    number = position = told = 0
    while True:
        last = next(reversed(store.attempts(found)), None)
        over, ended = _over(store, found), _ended(last)
        if last is not None and last.number != number:
            if number:
                print(f"--- attempt {last.number} ---")
            number, position = last.number, 0
        if last is not None and last.log.exists():
            chunk, start = files.read_tail(last.log, files.MOST_BYTES, position)
            position = start + len(chunk)
            sys.stdout.write("\n".join(map(console.plain, chunk.decode(errors="replace").split("\n"))))
            sys.stdout.flush()
        if over or not follow:
            return
        if ended and last is not None and last.number != told:
            told = last.number
            print(f"--- attempt {told} ended: {ended}; waiting for the next (Ctrl-C ends) ---", flush=True)
        time.sleep(0.5)


def _ended(last: Attempt | None) -> str:
    """How an attempt has ended, in a word; empty where it goes on, as far as files say."""
    try:
        if last is None or (last.exit is None and not owner.provably_gone(last.owner)):
            return ""
        return str((last.exit or {}).get("class", "its process is gone"))
    except Damaged:
        return "damaged"


def _over(store: Store, run: str) -> bool:
    """Whether nothing more will be printed until somebody retries it: it has ended other than by an interruption."""
    try:
        return not waits(store, run) and statuses.states(store, {run: []})[run].name not in ("running", "resumable")
    except Damaged:
        return True


def show(
    run: RunArgument,
    store: Results = DEFAULT_RESULTS,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show a run: its names, state, recipe, attempts, metrics and where its result comes from."""
    found = any_run(run, store)
    names = names_of(found, store)
    if (damage := store.damage(found)) is not None:
        state = store.state(found, {})
        if json_:
            print(json.dumps({**_told(found, names, state), "damage": str(damage)}))
        else:
            console.say(f"{found}  {', '.join(names)}", f"state: {state}", "")
            console.say(f"{damage}; `deit-ablate forget {found}` clears it")
        return
    stored, outcome = store.recipe(found), store.outcome(found) or {}
    if stored is None:
        planned = known_runs(found, store)[found]
        stored = {"recipe": planned.recipe, "parents": planned.parents, "sources": planned.sources}
    parents = [parent["run"] for parent in stored["parents"].values()]
    state = statuses.states(store, {**{parent: [] for parent in parents}, found: parents})[found]
    attempts: list[dict[str, Any]] = [
        {"number": a.number, "owner": _readable(a, "owner"), "exit": _readable(a, "exit")}
        for a in store.attempts(found)
    ]
    if json_:
        print(json.dumps({**_told(found, names, state), **stored, "outcome": outcome, "attempts": attempts}))
        return
    lines = [f"{found}  {', '.join(names)}", f"state: {state}", "", "recipe:"]
    for key, value in flatten(stored["recipe"]):
        lines.append(f"  {key}: {_command(value) if key == 'program.command' and value else console.show_value(value)}")
    lines += [
        f"parent ({role}): {parent['run']}, {parent['weights']} weights" for role, parent in stored["parents"].items()
    ]
    lines += [f"source of {name}: {sha256[:16]}" for name, sha256 in stored["sources"].items()]
    lines += _accepted(store, found, names)
    lines += ["", "attempts:"] if attempts else []
    lines += [_attempt(attempt, outcome) for attempt in attempts]
    for part in ("metrics", "data", "cost", "provenance"):
        if outcome.get(part):  # imported records may have no data's facts
            lines += ["", f"{part}:"]
            told = {key: value for key, value in outcome[part].items() if key not in ("per_class", "sources")}
            lines += [f"  {line}" for line in (data_lines(outcome[part]) if part == "data" else ())]
            lines += [f"  {key}: {console.show_value(value)}" for key, value in flatten(told) if key != "git.diff"]
    console.say(*lines)


def _attempt(attempt: dict[str, Any], outcome: dict[str, Any]) -> str:
    """An attempt in a line: where it was made, and how it ended."""
    own, ended = attempt["owner"], attempt["exit"] or {}
    place = "elsewhere" if own.get("nonce") == owner.KEPT else f"on {own.get('host')}, pid {own.get('pid')}"
    still = outcome["status"] if attempt["number"] == outcome.get("attempt") else "under way"
    how = f"{ended.get('class', still)} {ended.get('message', '')}".rstrip()
    return f"  {attempt['number']}: {own.get('message') or place}: {how}"


def _accepted(store: Store, run: str, names: list[str]) -> Iterator[str]:
    """In which sweeps a run is used though code has changed since, and who has said so."""
    for sweep in dict.fromkeys(name.partition(":")[0] for name in names):
        for used in store.sweeps.accepted(sweep).values():
            if used["run"] == run:
                when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(used["time"]))
                pairs = (f"{name} {str(old)[:12]} -> {str(new)[:12]}" for name, (old, new) in used["sources"].items())
                who = f" by {used['user']}" if "user" in used else ""  # which kept records do not tell
                yield f"accepted in {sweep}{who}, {when}: cosmetic change of {', '.join(pairs)}"


def _command(parts: list[str]) -> str:
    """The words of a command as a sweep file has them; placeholders need no quotes."""
    return " ".join(part if "{" in part and not set(part) & set(" '\"") else shlex.quote(part) for part in parts)


def _told(run: str, names: list[str], state: State) -> dict[str, Any]:
    return {"run": run, "names": names, "state": state.name, "detail": state.detail}


def _readable(attempt: Attempt, part: str) -> Any:
    """What an attempt's file holds; of a damaged one, on which no result depends, what is wrong with it."""
    try:
        return getattr(attempt, part)
    except Damaged as damage:
        return {"class": "damaged", "message": str(damage)}


def diff(first: RunArgument, second: RunArgument, store: Results = DEFAULT_RESULTS) -> None:
    """Show what differs between two runs: recipes, parents, results and what they were made with."""
    one, two = (one_run(name, store) for name in (first, second))
    stored = [store.recipe(run) for run in (one, two)]
    if None in stored:
        problem = "a run that has not started has no recipe to compare"
        raise InputError(problem, expected="two runs that were started once")
    outcomes = [store.outcome(run) or {} for run in (one, two)]
    made_with = [{k: v for k, v in (each.get("provenance") or {}).items() if k != "command"} for each in outcomes]
    before, after = (
        {**(run or {}), "result": each.get("metrics") or {}, "made with": made}
        for run, each, made in zip(stored, outcomes, made_with, strict=True)
    )
    for title in ("recipe", "parents", "sources", "result", "made with"):
        changed = difference(after[title], before[title])
        print(f"{title}:")
        rows = [(key, console.show_value(old), "->", console.show_value(new)) for key, (old, new) in changed.items()]
        print("\n".join(console.columns(rows, indent="  ")) if rows else "  the same")
