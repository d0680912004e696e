"""The footnotes that make a table honest: what a reader must know to take it for what it is. Imports pandas."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from deit_ablate.errors import few
from deit_ablate.report.declared import before_running, changes, seeds_added_after_looking, since_when
from deit_ablate.report.stats.exact import at_chance, signal_to_noise
from deit_ablate.report.stats.verdicts import ADDED_AFTER_LOOKING
from deit_ablate.report.summary import Summary
from deit_ablate.sweep.confounds import RECORDED
from deit_ablate.sweep.metrics import TOP1

NAMED = 20
"""How many runs a footnote names before it counts the rest."""
COMMIT = RECORDED["commit"][1]
HEADS = {
    "class": "the class head alone",
    "distillation": "the distillation head alone",
    "ema": "the moving average of the weights (EMA)",
}
FUSED = ", heads fused where there are two"


def footnotes(summary: Summary, *, timed: bool = False) -> list[str]:
    """What a reader must know to take the table for what it is, a sentence each. ``timed``: it has a column of
    times."""
    parts: list[Callable[[Summary], list[str]]] = [_intervals, _of_metrics, _cumulative, _program, _unfound]
    parts += [_earlier_code, _not_isolated, _of_rows, _after_looking, _at_chance, _undecodable, _data]
    parts += [(lambda _: ["Time is the mean training time of the runs that are done."])] * (
        timed and bool(_data(summary))
    )
    parts += [_shows, _chunks, _shared_parents, diverged_notes, _fewer_pairs, _absent]
    return [said for part in parts for said in part(summary)]


def short_notes(summary: Summary, best: str | None = None) -> list[str]:
    """What a paper's table can't do without: what the numbers are, and which of them are not what they seem. ``best``:
    the row that is in bold."""
    every, margin = summary.rows, summary.plan["margin"]
    seeds = sorted({row["seeds"] for row in every if row["seeds"]})
    notes = _data(summary)
    if seeds and seeds[-1] > 1:
        counted = f"{seeds[0]} seeds" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]} seeds"
        notes.append(f"± is the half-width of a 95% t interval over {counted}.")
    elif seeds:
        notes.append("One seed gives no interval.")
    if any(map(_compared, every)):
        of = "" if summary.metric.name == TOP1.name else f" of {summary.metric.words}"
        kind = "for new images of this kind" if summary.population.judged else "of training noise alone"
        within = f"; equivalent: within the margin of ±{summary.metric.amount(margin)}" if margin else ""
        notes.append(f"Verdicts{of} are {kind}, at 5% after Holm over the rows{within}.")
    notes += ["In bold: better than every other row, at 5% after Holm."] if best else []
    notes += _unfound(summary) + _earlier_code(summary) + _not_isolated(summary, but=(COMMIT,))
    notes += _after_looking(summary)[:1] if seeds_added_after_looking(summary.declared, summary.stage) else []
    return notes + _shows(summary) + _shared_parents(summary, brief=True) + diverged_notes(summary) + _absent(summary)


def listed(words: Sequence[str], separator: str = ", ") -> str:
    if any(", " in word for word in words):
        separator = "; "  # names of rows may have commas of their own
    return few(words, NAMED, separator=separator)


def note(words: Sequence[str], before: str, after: str = ".", separator: str = ", ") -> list[str]:
    """A sentence that lists them; none where there is nothing to list."""
    return [f"{before}{listed(words, separator)}{after}"] if words else []


def _compared(row: Mapping[str, Any]) -> bool:
    return min(row["runs_compared"], row["baseline_runs_compared"]) > 1


def _sentence(words: str) -> str:
    return f"{words[0].upper()}{words[1:]}."


def _intervals(summary: Summary) -> list[str]:
    notes = []
    if any(row["seeds"] > 1 for row in summary.rows):
        notes = ["± is the half-width of a 95% t interval over seeds.", *_judged(summary), _test_set(summary)]
    return notes + ["One seed gives no interval."] * any(row["seeds"] == 1 for row in summary.rows)


def _cumulative(summary: Summary) -> list[str]:
    kind = "training noise alone" if summary.population.judged else "the same kind"
    orders = " Rows named baseline + … are of other orders of the steps." if summary.design else ""
    what = "Each row has the changes of those above; step: its difference from the row above, with an interval of"
    return [f"{what} {kind}.{orders}"] if summary.plan["kind"] == "cumulative" else []


def _shows(summary: Summary) -> list[str]:
    named = {figure: [summary.label(r["variant"]) for r in summary.rows if r["shows"] == figure] for figure in HEADS}
    return [said for figure, words in HEADS.items() for said in note(named[figure], f"Shows {words}: ")]


def _judged(summary: Summary) -> list[str]:
    """How differences were taken and judged; nothing where none is."""
    compared = [row for row in summary.rows if _compared(row)]
    if not compared:
        return []
    margin = summary.plan["margin"]
    paired = [summary.label(row["variant"]) for row in compared if row["paired"]]
    how = "by all runs of a row and all of the baseline's (Welch 1947)"
    if summary.looks is not None:
        how = "by the first runs of a row and of the baseline, up to the row's last look (Welch 1947)"
    if paired:
        pairs = "by pairs of runs that share a run or a parent at each seed"
        how = pairs if len(paired) == len(compared) else f"{how}, of {listed(paired)} {pairs}"
    equivalent = "The sweep declares no margin, so no row is called equivalent."
    if margin:
        within = f"{_declared(summary, 'margin')}, ±{summary.metric.amount(margin)} (two one-sided tests)"
        equivalent = f"Equivalent: within the margin that the sweep declares{within}."
    return [
        f"Differences are judged {how}; variances are moderated by those of the other rows (after Smyth 2004), and "
        "verdicts adjusted over the table's rows (Holm 1979).",
        equivalent,
    ]


def _declared(summary: Summary, key: str) -> str:
    when = since_when(summary.declared, key)
    return f" ({when})" if when else ""


def _of_metrics(summary: Summary) -> list[str]:
    """What differences are of, where that isn't top-1, and how well further metrics tell rows apart."""
    metric, metrics, notes = summary.metric, summary.metrics, []
    if metric.name != TOP1.name and summary.plan["baseline"]:
        which = f"{metric.words}, as the sweep declares{_declared(summary, 'metric')}"
        notes.append(f"Differences and verdicts are of {which}: {metric.better} is better.")
    if len(metrics) > 1:
        found = signal_to_noise([summary.values_of(each) for each in metrics])
        known = [(each.words, ratio) for each, ratio in zip(metrics, found, strict=True) if not math.isnan(ratio)]
        what = "Signal to noise (sd of the rows' means over the sd of a run from seed to seed): "
        chance = "; chance alone gives about 1/√n of n seeds."
        notes += note([f"{words} {ratio:.1f}" for words, ratio in known], what, chance)
        if known and any(each.figure == "loss" for each in metrics):
            notes.append("Loss measures calibration too: one may be lower than another's at the same top-1.")
    return notes


def _program(summary: Summary) -> list[str]:
    """Which of the promises that hold of our trainer do not hold of a program."""
    program = summary.plan.get("program")
    if not program:
        return []
    which = "a command" if program["kind"] == "command" else "a function"
    data = f"are known by their name ({program['data']}), not by their content" if program["data"] else "have no name"
    facts = f" but for {listed(list(program['facts']))}, which it reports" if program["facts"] else ""
    return [
        f"Trained by {which} of the user's: an interrupted run goes on from what the program itself has saved, else "
        f"from the start; the data {data}; what follows from a parameter is not compared{facts}."
    ]


def _earlier_code(summary: Summary) -> list[str]:
    """Of which code runs are that a user has accepted, a sentence for each change."""
    label = {run: f"{summary.label(variant)} {seed}" for variant, seed, _, run in summary.plan["cells"]}
    found: dict[str, list[str]] = {}
    for used in summary.plan.get("accepted", ()):
        day = time.strftime("%Y-%m-%d", time.gmtime(used["time"]))
        found.setdefault(f"{listed(sorted(used['sources']))} declared cosmetic on {day}", []).append(label[used["run"]])
    return [f"Of earlier code, with the change of {change}: {listed(runs)}." for change, runs in found.items()]


def _test_set(summary: Summary) -> str:
    """What the finite test set adds to a difference, beside the margin, and whether intervals and verdicts have it."""
    known = [row["image_standard_error"] for row in summary.rows if not math.isnan(row["image_standard_error"])]
    judged, margin = summary.population.judged, summary.plan["margin"]
    if judged:
        note = "Verdicts, and intervals of differences from the baseline, are for new images of this kind, as the sweep"
        note += f" declares{_declared(summary, 'population')}: beside training noise, the"
    elif known:
        note = "Intervals and verdicts cover training noise only: the"
    else:
        what = "Intervals and verdicts" if any(map(_compared, summary.rows)) else "Intervals"
        return f"{what} cover training noise only, not the finite test set that all rows share."
    note += f" {summary.images:,} test images, which all rows share," if summary.images else " test images"
    if known:
        low, high = (f"{value:.{summary.metric.digits}f}" for value in (min(known), max(known)))
        size = low if low == high else f"{low} to {high}" if float(low) else f"up to {high}"
        points = f"{size} {summary.metric.counted_in}".rstrip() + " (estimated standard error)"
        note += f" add {points if float(high) else 'nothing that can be told from 0'} to a difference"
        note += f"; the margin is {margin:g}" if margin else ""
    note += "" if known else " count too"
    for why, names in summary.population.reasons.items():
        note += f". Not known of {listed(list(map(summary.label, names)))}: {why}"
    return f"{note}."


def _not_isolated(summary: Summary, but: Sequence[str] = ()) -> list[str]:
    """The undeclared changes of rows, the same ones together; of code without its commits, which pages and CSV have."""
    rows_of: dict[str, list[str]] = {}
    for change in summary.undeclared:
        if change.what in but:
            continue
        rows_of.setdefault(change.what if change.what == COMMIT else str(change), []).append(summary.label(change.row))
    compared = len(summary.frame) - 1
    named = [
        f"{listed(list(dict.fromkeys(names))) if len(names) < max(2, compared) else 'all rows'}: {what}"
        for what, names in rows_of.items()
    ]
    return note(named, "Not isolated, differs along with what is declared: ", separator="; ")


def _of_rows(summary: Summary) -> list[str]:
    """What is to be said of single rows' statistics."""
    return [f"{summary.label(name)}: {note}." for name, effect in summary.effects.items() for note in effect.notes]


def _after_looking(summary: Summary) -> list[str]:
    late = seeds_added_after_looking(summary.declared, summary.stage)
    notes = [_sentence(ADDED_AFTER_LOOKING)] if late else []
    notes += note(changes(summary.declared), "Changed with results at hand: ", separator="; ")
    if summary.looks is not None:
        before, since = before_running(summary.declared, "looks"), since_when(summary.declared, "looks")
        when = " before the first run" if before else f" {since}" if since else ""
        notes.append(f"Looked at as planned{when}: {summary.looks.words}.")
        if summary.looks.look > 1 or summary.looks.stopped:
            notes.append("The ± of a difference knows nothing of looking: after several looks it covers 92 to 96%.")
        notes += map(_sentence, summary.looks.notes)
        if summary.looks.going_on and summary.plan.get("until_decided"):
            notes.append(f"Go on with: --until-decided ({listed(list(summary.looks.going_on))}).")
        elif summary.looks.going_on:
            only = " ".join(f'--only "{name}"' for name in (summary.plan["baseline"], *summary.looks.going_on))
            notes.append(f"Go on with: --seeds {len(summary.looks.next_seeds)} {only}")
    return notes


def _at_chance(summary: Summary) -> list[str]:
    """Runs whose figure is no evidence that they learnt anything: they count like any other."""
    found: dict[tuple[int, int], dict[str, list[int]]] = {}
    for record in summary.final:
        sizes = (record["test_images"], record["test_classes"])
        top1 = summary.figure(record) if summary.metric.figure.startswith("top1") else record["top1"]
        if not math.isnan(top1) and not any(map(pd.isna, sizes)) and at_chance(top1, *sizes):
            found.setdefault(sizes, {}).setdefault(summary.label(record["variant"]), []).append(record["seed"])
    return [
        f"At chance (top-1 not above 1 in {classes} over {images:,} images, exact binomial test at 5%): "
        f"{listed([f'{variant} {_seeds(seeds)}' for variant, seeds in rows_.items()])}."
        for (images, classes), rows_ in found.items()
    ]


def _undecodable(summary: Summary) -> list[str]:
    """Say how many test images were left out because their files hold no picture."""
    sizes = [(record["data_test"], record["test_images"]) for record in summary.final]
    missing = {int(there) - int(tested) for there, tested in sizes if not pd.isna(there) and not pd.isna(tested)}
    numbers = list(map(str, sorted(missing - {0})))
    return note(numbers, "Left out because their files cannot be decoded: ", " test images.")


def _data(summary: Summary) -> list[str]:
    """What the figures were taken on; nothing before there is one."""
    what = summary.metric.words.removeprefix("test ").partition(",")[0]
    done = [record for record in summary.final if record["state"] == "done"]
    if not done:
        return []
    if summary.metric.program:
        return [f"{summary.metric.words} is the last value that each run reports."]
    sizes = sorted({record["test_images"] for record in done if not pd.isna(record["test_images"])})
    images = f" ({sizes[0]:,} images)" if len(sizes) == 1 else ""
    fused = summary.metric.name not in HEADS and any(not math.isnan(own["test_top1_distillation"]) for own in done)
    weights = HEADS["ema"] if summary.metric.name == "ema" else "raw weights"
    return [_sentence(f"{what} on the test split{images} at the last epoch, {weights}{FUSED * fused}")]


def _chunks(summary: Summary) -> list[str]:
    """Say it where rows were not computed alike: the model draws at random for each chunk of a batch."""
    by_number: dict[int, dict[str, None]] = {}
    for record in summary.final:
        if record["state"] == "done" and not pd.isna(record["chunks"]):
            by_number.setdefault(int(record["chunks"]), {})[summary.label(record["variant"])] = None
    if len(by_number) < 2:
        return []
    parts = [f"{listed(list(names))} {number}" for number, names in sorted(by_number.items())]
    return [f"Batches were cut into different numbers of chunks (ranks x accumulation): {'; '.join(parts)}."]


def _shared_parents(summary: Summary, brief: bool = False) -> list[str]:
    """Say it where all seeds of a row depend on one and the same run: its choice is in no interval."""
    final = summary.stage
    runs: dict[tuple[str, str], dict[int, str]] = {}
    for variant, seed, stage, run in summary.plan["cells"]:
        runs.setdefault((stage, variant), {})[seed] = run
    notes = []
    for stage in summary.stages[:-1]:
        shared = {}
        for (own, variant), made in runs.items():
            students = runs.get((final, variant), {})
            taught = not set(made.values()) & set(students.values())  # a row may be the teacher itself
            if own == stage and len(made) == 1 and len(students) > 1 and taught:
                shared[variant] = next(iter(made.items()))
        different = sorted({run for _, run in shared.values()})
        if different:
            seed = next(iter(shared.values()))[0]
            which = f" (run {different[0]}, seed {seed})"
            which = which if len(different) == 1 else f" (seed {seed}, a run of its own for each row)"
            rows = "" if len(shared) == len(summary.frame) else f": {listed(list(map(summary.label, shared)))}"
            shares = "which all seeds of a row share"
            notes.append(f"Conditional on one {stage}" + (f", {shares}." if brief else f"{which}, {shares}{rows}."))
    return notes


def _unfound(summary: Summary) -> list[str]:
    """Rows of a search that found no winner, and so are no rows of the table."""
    search = summary.plan.get("search")
    if not search or not search["winners"]:
        return []
    found = {asked["row"] for asked in search["asked"] if asked["number"] in search["winners"].values()}
    lost = [row for row in search["spaces"] if row not in found]
    return note(lost, "Without a row here, for their searches found no winner: ")


def diverged_notes(summary: Summary) -> list[str]:
    """What the star on a mean stands for, and which rows have no mean because all of their runs diverged."""
    said: dict[bool, list[str]] = {True: [], False: []}
    for row in summary.rows:
        if row["diverged"]:
            lost = [own for own in summary.final if own["variant"] == row["variant"] and own["state"] == "diverged"]
            why = listed([f"seed {own['seed']}" + (f": {own['detail']}" if own["detail"] else "") for own in lost])
            text = f"{summary.label(row['variant'])}: {len(lost)} of {row['seeds_planned']} diverged ({why})"
            said[row["seeds"] > 0].append(text)
    notes = note(said[True], "* Mean over the runs that converged. ", separator="; ")
    return notes + note(said[False], "No mean: ", separator="; ")


def _fewer_pairs(summary: Summary) -> list[str]:
    baseline = next((row["seeds"] for row in summary.rows if row["baseline"]), 0)
    pairs, runs = [], []
    for row in summary.rows:
        name, seeds = summary.label(row["variant"]), row["seeds"]
        own, others = row["runs_compared"], row["baseline_runs_compared"]
        if row["paired"] and 0 < own < seeds:
            pairs.append(f"{name} {own}")
        elif not row["paired"] and min(own, others) > 0 and (own < seeds or others < baseline):
            runs.append(f"{name} {own} of {seeds} with {others} of {baseline}")
    notes = note(pairs, "Differences over fewer pairs than seeds: ")
    return notes + note(runs, "Differences are of fewer runs than the means: ", " of the baseline.")


def _absent(summary: Summary) -> list[str]:
    """The runs that are in no mean because they did not end, by state, with the reason."""
    places = {
        run: f"{stage or summary.label(variant)} seed {seed}"
        for variant, seed, stage, run in reversed(summary.plan["cells"])
    }
    by_state: dict[str, dict[tuple[str, str], list[int]]] = {}
    for record in summary.final:
        state, detail = record["state"], record["detail"]
        if state == "done" and record["seed"] not in summary.values[record["variant"]]:
            state, detail = "done without this figure", ""
        if state not in ("done", "diverged"):
            row = record["variant"], places.get(detail, detail)
            by_state.setdefault(state, {}).setdefault(row, []).append(record["seed"])
    notes = []
    for state, found in sorted(by_state.items()):
        named = [
            f"{summary.label(variant)} {_seeds(seeds)}" + (f" ({reason})" if reason else "")
            for (variant, reason), seeds in found.items()
        ]
        notes += note(named, f"{state.capitalize()}: ", separator="; ")
    for metric in summary.metrics[1:]:
        rows = [row["name"] for row in summary.plan["variants"] if not metric.figure and metric.shown(row["shows"])]
        done = [record for record in summary.final if record["state"] == "done" and record["variant"] in rows]
        lost = [record for record in done if math.isnan(summary.figure(record, metric))]
        named = [f"{summary.label(record['variant'])} seed {record['seed']}" for record in lost]
        notes += note(named, f"In no mean of {metric.words}, as it gives no finite number of them: ")
    return notes


def _seeds(seeds: list[int]) -> str:
    return ("seed " if len(seeds) == 1 else "seeds ") + listed([str(seed) for seed in seeds])
