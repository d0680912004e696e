"""The parts of a sweep's page that say what was asked and found: facts, findings, how to read them, the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from deit_ablate.report.frame import rows
from deit_ablate.report.html import words
from deit_ablate.report.html.content import Content
from deit_ablate.report.html.markup import details, grid, tag
from deit_ablate.report.tables.search import has_rows, not_confirmed_words
from deit_ablate.report.tables.table import measure
from deit_ablate.sweep.confounds import value_words

SHOWN = 15
"""Sentences of a group that are shown at once."""


def header(page: Content) -> str:
    plan, say = page.plan, page.say
    return tag(
        "header",
        tag("p", "Ablation report", class_="kicker")
        + "\n"
        + tag("h1", say(plan["title"] or page.sweep))
        + "\n"
        + facts(page),
    )


def facts(page: Content) -> str:
    """What was asked, and how much of it is there."""
    plan, say = page.plan, page.say
    seeds = plan["stages"][-1]["seeds"] if plan["stages"] else []
    margin = plan["margin"]
    states = page.states()
    total = sum(states.values())
    known = ", ".join(
        f"{count} {state}" for state, count in sorted(states.items(), key=lambda item: (item[0] != "done", item[0]))
    )
    pairs = [
        ("Sweep", tag("code", say(page.sweep))),
        ("Profile", say(plan["profile"]) if plan["profile"] else "none"),
        ("Baseline", tag("strong", say(plan["baseline"])) if plan["baseline"] else "not named"),
        ("Rows", str(len(plan["variants"]))),
        ("Seeds a row", f"{len(seeds)}" + (f" ({say(_seeds(seeds))})" if seeds else "")),
        ("Margin", f"±{margin:g} points of top-1" if margin else "none declared"),
        ("Runs", f"{total}: {known}" if len(states) > 1 else known or "none"),
    ]
    if len(plan["stages"]) > 1:
        pairs.append(("Stages", " → ".join(say(stage["name"] or "training") for stage in plan["stages"])))
    if period := page.period():
        pairs.append(("Finished", f"{period} (UTC)"))
    listed = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in pairs)
    return tag("dl", listed, class_="facts") + "\n"


def _seeds(seeds: Sequence[int]) -> str:
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]} to {seeds[-1]}"
    return ", ".join(map(str, seeds))


# -- findings ------------------------------------------------------------------------------------------------------


def findings(page: Content) -> str:
    every, plan = page.rows, page.plan
    if not has_rows(plan):
        return section("found", tag("h2", "What was found") + "\n" + tag("p", not_confirmed_words(plan), class_="lead"))
    lines = [tag("h2", "What was found"), tag("p", words.short(page.summary), class_="lead")]
    over = ("done", "diverged", "paused")  # paused: a trial that was pruned
    waiting = sum(count for state, count in page.states().items() if state not in over)
    if waiting:
        lines.append(
            tag(
                "p",
                f"Not finished: {waiting} of {sum(page.states().values())} runs have no result yet. What follows may change.",
                class_="note",
            )
        )
    shared = _shared_leaks(page)
    if shared:
        text = f"All rows differ from the baseline also in: {'; '.join(map(page.say, shared))}."
        lines.append(tag("p", text, class_="note"))
    if any(_own_leaks(page, row["variant"], shared) for row in every):
        text = "Some rows differ from the baseline in more than they declare: see “also differs” below."
        lines.append(tag("p", text, class_="note"))
    lines += _judged(page, every) if plan["baseline"] else _ranked(page, every)
    return section("found", "\n".join(lines))


def _judged(page: Content, every: Sequence[Mapping[str, Any]]) -> list[str]:
    plan, say = page.plan, page.say
    baseline = tag("strong", say(plan["baseline"]))
    lines, shared = [], _shared_leaks(page)
    own = next((row for row in every if row["baseline"]), None)
    if own is not None:
        reached = measure(own["top1_mean"], own["top1_half_width"])
        words_ = (
            f"reached {reached} % test top-1 ({own['seeds']} of {own['seeds_planned']} runs)"
            if own["seeds"]
            else "has no finished run yet"
        )
        lines.append(tag("p", f"The baseline {baseline} {words_}."))
    for name, verdicts, heading in words.GROUPS:
        found = [row for row in every if row["verdict"] in verdicts and not row["baseline"]]
        if not found:
            continue
        if name in ("better", "worse") and plan["kind"] != "cumulative":  # a road keeps its own order
            found = sorted(found, key=lambda row: row["difference"], reverse=name == "better")
        told = [_told(page, row, baseline, shared) for row in found]
        body = tag("ul", "\n".join(told[:SHOWN]))
        if told[SHOWN:]:
            body += details(f"{len(told) - SHOWN} more", tag("ul", "\n".join(told[SHOWN:])))
        mark = tag("span", words.MARKS[name], class_="mark", aria_hidden="true")
        lines.append(tag("div", tag("h3", f"{mark} {heading} ({len(found)})") + body, class_=f"group v-{name}"))
    return lines


def _told(page: Content, row: Mapping[str, Any], baseline: str, shared: Sequence[str]) -> str:
    say = page.say
    # Words of the verdict are made by us of numbers, yet they pass the same way as all else that is text.
    safe = {**row, "verdict_words": say(row["verdict_words"])}
    text = words.sentence(safe, tag("strong", say(row["variant"])), baseline, page.plan["margin"])
    more = ""
    if row["differs_in"]:
        more += tag("span", f"Changed: {say(row['differs_in'])}{_step(page, row)}", class_="small")
    if also := _own_leaks(page, row["variant"], shared):
        more += tag("span", f"Also differs: {say('; '.join(also))}", class_="small warn")
    if row["diverged"] and row["seeds"]:
        more += tag(
            "span", f"{row['diverged']} of {row['seeds_planned']} runs diverged and are in no mean", class_="small warn"
        )
    return tag("li", text + more)


def _step(page: Content, row: Mapping[str, Any]) -> str:
    """Of a cumulative sweep: what the row's own change did, for the difference from the baseline is of all so far."""
    if page.plan["kind"] != "cumulative":
        return ""
    return f", on top of the rows before; this step alone: {measure(row['step'], row['step_half_width'], signed=True)} points"


def _shared_leaks(page: Content) -> list[str]:
    """What differs in every row that is compared, as when the baseline alone was made by an older version."""
    compared = {row["variant"] for row in page.rows if not row["baseline"]}
    rows_of: dict[str, set[str]] = {}
    for leak in page.summary.undeclared:
        rows_of.setdefault(str(leak), set()).add(leak.row)
    return [what for what, names in rows_of.items() if len(compared) > 1 and names >= compared]


def _own_leaks(page: Content, name: str, shared: Sequence[str]) -> list[str]:
    return [str(leak) for leak in page.summary.undeclared if leak.row == name and str(leak) not in shared]


def _ranked(page: Content, every: Sequence[Mapping[str, Any]]) -> list[str]:
    ranked = sorted((row for row in every if row["seeds"]), key=lambda row: -row["top1_mean"])
    if not ranked:
        return [tag("p", "No run is finished yet.")]
    told = [
        tag(
            "li",
            f"{tag('strong', page.say(row['variant']))}: {measure(row['top1_mean'], row['top1_half_width'])} % test top-1 ({row['seeds']} of {row['seeds_planned']} runs)",
        )
        for row in ranked[:SHOWN]
    ]
    caution = "By mean, highest first. That one mean is above another is no verdict: see the comparison of any two rows below."
    return [tag("p", caution if len(ranked) > 1 else ""), tag("ol", "\n".join(told))]


def any_two(page: Content) -> str:
    found = words.any_two(page.summary)
    if not found:
        return ""
    say = page.say
    which = " other than the baseline" if page.plan["baseline"] else ""
    body = [
        [
            f"{say(pair.first)} − {say(pair.second)}",
            measure(pair.difference, pair.half_width, signed=True),
            words.p_value(pair.p_holm).removeprefix("p = ").removeprefix("p "),
            verdict(pair.verdict),
            str(pair.pairs),
        ]
        for pair in found
    ]
    words_ = (
        f"All pairs of rows{which}. Nobody planned these comparisons, so p is adjusted (Holm) over "
        f"{f'all {len(found)} of them' if len(found) > 1 else 'it alone, as there is no other'}; "
        "they say less than the comparisons with the baseline, and the margin is not used."
    )
    head = ("pair", "difference", "p (Holm)", "verdict", "pairs of runs")
    table = grid(head, body, right=(1, 2, 4), class_="sortable", caption="Any two rows")
    return details("Compare any two rows", tag("p", words_) + table, class_="print")


def verdict(text: str) -> str:
    kinds = {"first is better": "better", "first is worse": "worse", "undecided": "undecided"}
    return chip(kinds.get(text, "few"), text)


def chip(kind: str, text: str) -> str:
    """A verdict as it is shown in tables: a mark, a colour, and words, of which the words suffice."""
    mark = tag("span", words.MARKS[kind], aria_hidden="true") if kind else ""
    return tag("span", f"{mark} {text}".strip(), class_=f"chip v-{kind}" if kind else "chip")


# -- how to read it ------------------------------------------------------------------------------------------------


def how_to_read(page: Content) -> str:
    margin = page.plan["margin"]
    within = f"±{margin:g} points" if margin else "a margin"
    entries = [
        (
            "Top-1",
            "The share of test images, in percent, whose first guess is right. A <em>point</em> is one percent of the test images.",
        ),
        (
            "Seeds and ±",
            "Each row was trained several times; runs differ only in their seed, the source of chance. ± gives a 95% interval: were the whole study repeated many times, about 95 of 100 such intervals would hold the true mean.",
        ),
        (
            "Difference",
            "A row's mean minus the baseline's, taken seed by seed. If its interval leaves out 0, chance alone would seldom make it, looking at that row by itself.",
        ),
        (
            "Verdict, p and Holm",
            "p is how often chance alone would make a difference at least this large if there were none. Many rows give chance many tries, so p is raised (Holm's method): of all tables judged so, at most 5% have any row wrongly called better or worse. A row is called so where the raised p is 0.05 or less.",
        ),
        (
            "Equivalent",
            f"The difference is shown to lie within {within}"
            + (
                ", which was declared before running."
                if margin
                else "; this sweep declares none, so no row is called equivalent."
            ),
        ),
        (
            "Undecided",
            "<em>Not</em> “no difference”: these runs cannot tell. The number of seeds is an estimate, good to a factor of two, of how many seeds in all would settle it.",
        ),
        (
            "Two rows, neither the baseline",
            "Don't compare their verdicts: one may be better and the other undecided while the two are alike. Where there are few rows, “Compare any two rows” tests them directly.",
        ),
        (
            "Not covered",
            "Intervals and verdicts cover the chance in training. They do not cover which images happen to be in the test set, a teacher that all runs share, other data, other scales of training, or a better tuning of a row. Notes below the table say what else to mind.",
        ),
    ]
    listed = "".join(f"<dt>{name}</dt><dd>{text}</dd>" for name, text in entries)
    return details("How to read this", tag("dl", listed), open_=True, class_="box print", id_="read")


# -- the table -----------------------------------------------------------------------------------------------------


def table(page: Content) -> str:
    say, made = page.say, page.table
    raw = rows(made.frame)
    body = []
    for cells, row in zip(made.rows(), raw, strict=True):
        written = [say(cell) for cell in cells]
        for i, column in enumerate(made.columns):
            kind = words.group(str(row.get("verdict", "")))
            if column.header == "verdict" and kind:
                written[i] = chip(kind, written[i])
        body.append(written)
    right = [i for i, column in enumerate(made.columns) if column.right]
    lines = [
        tag("h2", "All rows"),
        grid(
            [say(column.header) for column in made.columns],
            body,
            right=right,
            class_="sortable main",
            caption="All rows",
        ),
        tag("h3", "Notes") if made.footnotes else "",
        tag("ul", "\n".join(tag("li", say(note, 4000)) for note in made.footnotes), class_="notes"),
        any_two(page),
    ]
    return section("table", "\n".join(lines))


def section(name: str, content: str) -> str:
    return tag("section", "\n" + content + "\n", id_=name) + "\n"


def changed(page: Content, differs: Mapping[str, Sequence[Any]]) -> str:
    """A recipe's differences from the baseline's, key by key."""
    if not differs:
        return ""
    body = [
        [tag("code", page.say(key)), page.say(value_words(old)), page.say(value_words(new))]
        for key, (old, new) in differs.items()
    ]
    return grid(("recipe", "baseline", "this row"), body, caption="Changed")
