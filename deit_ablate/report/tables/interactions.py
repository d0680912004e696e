"""What changes are worth beside one another: effects of a factorial; a cumulative sweep's steps by their orders."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd

from deit_ablate.report.stats.contrasts import effects
from deit_ablate.report.stats.power import ALPHA
from deit_ablate.report.stats.verdicts import Effect
from deit_ablate.report.summary import Summary
from deit_ablate.report.tables.footnotes import listed
from deit_ablate.report.tables.table import NOTHING, Column, Table, measure, study_title
from deit_ablate.sweep.designs import Design, Estimate, Numbers
from deit_ablate.sweep.labels import labels_of, words
from deit_ablate.sweep.metrics import Metric

Coefficients = dict[str, float]

WORDS = {
    1: {"better": "helps", "worse": "harms", "equivalent": "negligible"},
    2: {"better": "synergistic", "worse": "antagonistic", "equivalent": "negligible"},
}
"""By how many factors an effect is of: what a verdict on it is called."""


@dataclass(frozen=True)
class Simple:
    """What ``factor`` adds where ``other`` is there, and where it is not."""

    factor: int
    other: int
    present: Effect
    absent: Effect


@dataclass(frozen=True)
class Factorial:
    """Effects of a factorial, judged. Intervals of simple effects hold for all of them at once."""

    design: Design
    estimates: Sequence[Estimate]
    effects: Mapping[str, Effect]
    """By name, in the order of ``estimates``."""
    simple: Mapping[Numbers, Sequence[Simple]]
    """By interaction: of those that are not aliased, nor are their factors'."""

    @classmethod
    def of(cls, summary: Summary) -> Factorial:
        design = summary.design
        assert design is not None
        estimates = design.effects()
        contrasts = {design.name(found): _coefficients(design, found) for found in estimates}
        alone = {found.effect: contrasts[design.name(found)] for found in estimates if len(found.aliases) == 1}
        wanted: dict[tuple[int, int, int], Coefficients] = {
            (one, other, sign): {row: value + sign / 2 * alone[pair][row] for row, value in alone[one,].items()}
            for pair in alone
            for one, other in itertools.permutations(pair, 2)
            if (one,) in alone and (other,) in alone
            for sign in (1, -1)
        }
        words = {key: "/".join(map(str, key)) for key in wanted}
        judged = _judged(summary, {words[key]: own for key, own in wanted.items()})
        simple: dict[Numbers, list[Simple]] = {}
        for one, other, sign in wanted:
            if sign > 0:
                found = (judged[words[one, other, sign]] for sign in (1, -1))
                simple.setdefault(tuple(sorted((one, other))), []).append(Simple(one, other, *found))
        return cls(design, estimates, _judged(summary, contrasts), simple)


def _coefficients(design: Design, found: Estimate) -> Coefficients:
    size = 2 * len(found.effect) / len(design.rows)
    return {row: size * sign for row, sign in zip(design.rows, found.signs, strict=True)}


def _judged(summary: Summary, contrasts: Mapping[str, Coefficients]) -> dict[str, Effect]:
    how: Any = {"by_seed": summary.any_paired, "test_images": summary.images}
    return effects(summary.values, contrasts, summary.rules, **how) if contrasts else {}


def level_means(
    summary: Summary, pairs: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], dict[tuple[bool, bool], tuple[float, float]]]:
    """Of each two factors: whether there is the first, and the second -> mean metric with its half-width at 95%."""
    design = summary.design
    assert design is not None
    found: dict[tuple[int, int], dict[tuple[bool, bool], tuple[float, float]]] = {}
    for pair in pairs:
        rows: dict[tuple[bool, bool], list[str]] = {}
        for row in design.rows:
            rows.setdefault((design.has(row, pair[0]), design.has(row, pair[1])), []).append(row)
        cells = {str(levels): dict.fromkeys(own, 1 / len(own)) for levels, own in rows.items()}
        judged = _judged(summary, cells)
        found[pair] = {levels: (judged[str(levels)].difference, judged[str(levels)].half_width) for levels in rows}
    return found


def interactions_table(summary: Summary) -> Table:
    """Effects of a factorial with their interactions, or what each step adds in each order of a cumulative sweep."""
    design, plan = summary.design, summary.plan
    assert design is not None
    what = "Steps by order" if design.orders else "Main effects and interactions"
    title = f"{what}: {study_title(plan)}"
    frame, columns, notes = _steps(summary, design) if design.orders else _effects(summary)
    notes += _lacking(summary)
    return Table(f"{summary.sweep}-interactions", title, pd.DataFrame(frame), tuple(columns), tuple(notes))


# -- a factorial ---------------------------------------------------------------------------------------------------


def _effects(summary: Summary) -> tuple[list[dict[str, Any]], list[Column], list[str]]:
    made, margin, metric = Factorial.of(summary), summary.plan["margin"], summary.metric
    names = made.design.called(labels_of(summary.plan))
    frame, called = [], {}
    for found, (name, effect) in zip(made.estimates, made.effects.items(), strict=True):
        called[name] = made.design.name(found, names)
        row: dict[str, Any] = {"effect": name, "factors": len(found.effect)}
        row |= {"estimate": effect.difference, "half_width": effect.half_width}
        row |= {"half_width_all": effect.half_width_simultaneous, "p": effect.p, "p_holm": effect.p_holm}
        row |= {"p_equivalent_holm": effect.p_equivalent_holm, "verdict": effect.verdict}
        row |= {"verdict_words": _words(effect, len(found.effect), margin)}
        simple = made.simple.get(found.effect, ())
        row["simple_effects"] = "; ".join(
            f"{names[part.factor]} {_all_at_once(part.present, metric)} with {names[part.other]}, "
            f"{_all_at_once(part.absent, metric)} without"
            for part in simple
            if not math.isnan(part.present.difference)
        )
        for k in (0, 1):
            for there in ("present", "absent"):
                part = getattr(simple[k], there) if simple else None
                key = f"{('first', 'second')[k]}_where_other_{there}"
                row[key] = part.difference if part else math.nan
                row[f"{key}_half_width_all"] = part.half_width_simultaneous if part else math.nan
        frame.append(row)
    columns = [
        Column("effect", lambda row: called[row["effect"]], long=True, math=True),
        Column(metric.counted_in or "estimate", partial(_measured, metric, "estimate"), right=True),
        Column("all at once", lambda row: _half(row["half_width_all"], metric), right=True),
        Column("p (Holm)", lambda row: _p(row["p_holm"]), right=True),
        Column("verdict", lambda row: row["verdict_words"] or NOTHING, long=True),
        Column("simple effects", lambda row: row["simple_effects"] or NOTHING, long=True, math=True),
    ]
    return frame, columns, list(_effects_notes(summary, made))


def _words(effect: Effect, factors: int, margin: float | None) -> str:
    kind, _, small = effect.verdict.partition("_")
    word = WORDS[factors].get(kind)
    if word is None:
        return effect.words
    return word + (f", by less than {margin:g}" if small else f" (within ±{margin:g})" if kind == "equivalent" else "")


def _measured(metric: Metric, what: str, row: Mapping[str, Any]) -> str:
    return measure(row[what], row["half_width"], signed=True, digits=metric.digits)


def _all_at_once(effect: Effect, metric: Metric) -> str:
    return measure(effect.difference, effect.half_width_simultaneous, signed=True, digits=metric.digits)


def _half(value: float, metric: Metric) -> str:
    return NOTHING if math.isnan(value) else f"± {value:.{metric.digits}f}"


def _p(p: float) -> str:
    return NOTHING if math.isnan(p) else "< 0.0001" if p < 0.0001 else f"{p:.2g}"


def _effects_notes(summary: Summary, made: Factorial) -> Iterator[str]:
    metric, unit = summary.metric, summary.metric.counted_in
    above, below = ("synergistic", "antagonistic")[:: metric.sign]
    yield (
        f"A main effect is the mean {metric.words} with the factor less that without it, over all combinations of the "
        "others. A × B is by how much more A adds with B than without (twice the half-difference of textbooks): "
        f"{above} above 0, {below} below."
    )
    how = _how(summary)
    yield (
        f"{f'In {unit}, with' if unit else 'With'} the half-width of a 95% interval, and of intervals that hold for "
        f"all effects at once (Bonferroni). {how}; verdicts are adjusted over these {len(made.effects)} effects (Holm "
        "1979), apart from those on rows."
    )
    if margin := summary.plan["margin"]:
        yield f"Negligible: within the sweep's margin, ±{metric.amount(margin)} (two one-sided tests)."
    if any(made.simple.values()):
        yield "Simple effects: what one factor adds with and without the other; their intervals hold for all at once."
    aliased = [name for name, found in zip(made.effects, made.estimates, strict=True) if len(found.aliases) > 1]
    if aliased:
        half = " (of a main effect with half of an interaction)" if made.design.resolution == 3 else ""
        yield f"Effects joined by = are aliased: these rows find only their sum{half}, and no simple effects of theirs."
    if len(made.design.rows) < 2 ** len(made.design.changes):
        yield "Of a fraction: interactions of three and more factors are taken to be nothing."


def _how(summary: Summary) -> str:
    covers = "They cover training noise alone, not new images as verdicts on rows do. "
    covers = covers if summary.population.judged else ""
    if summary.any_paired:
        seeds = "Rows share a run or a parent at each seed, so what is compared is taken seed by seed (t intervals)"
        return covers + seeds
    return f"{covers}Each is of the rows' means, with the rows' own variances (Welch 1947, Satterthwaite 1946)"


# -- orders of steps -----------------------------------------------------------------------------------------------


def steps_by_order(design: Design) -> list[dict[int, tuple[str, str]]]:
    """Of each order: the change's number -> the rows before and after it, in the order's places."""
    found = []
    for order in design.orders:
        rows = [design.at(order[:place]) for place in range(len(order) + 1)]
        found.append(dict(zip(order, itertools.pairwise(rows), strict=True)))
    return found


@dataclass(frozen=True)
class Steps:
    """What each change adds in each order; ``mean`` over the orders."""

    each: Sequence[Mapping[int, float]]
    mean: Mapping[int, Effect]
    between: Mapping[int, Sequence[Effect]]
    """Differences between the same change's steps in any two orders, where they are other runs."""

    @classmethod
    def of(cls, summary: Summary) -> Steps:
        design = summary.design
        assert design is not None
        orders, numbers = steps_by_order(design), range(len(design.changes))
        means = {row: sum(own.values()) / len(own) for row, own in summary.values.items() if own}
        each = [
            {i: means.get(after, math.nan) - means.get(before, math.nan) for i, (before, after) in order.items()}
            for order in orders
        ]
        own = {i: list(dict.fromkeys(order[i] for order in orders)) for i in numbers}
        mean = {str(i): _sum([(order[i], 1 / len(orders)) for order in orders]) for i in numbers}
        between = {
            f"{i}/{k}": _sum([(one, 1), (other, -1)])
            for i in numbers
            for k, (one, other) in enumerate(itertools.combinations(own[i], 2))
        }
        judged = _judged(summary, between)
        found = {i: [judged[name] for name in between if name.startswith(f"{i}/")] for i in numbers}
        return cls(each, {int(i): effect for i, effect in _judged(summary, mean).items()}, found)


def _sum(steps: Sequence[tuple[tuple[str, str], float]]) -> Coefficients:
    found: Coefficients = {}
    for (before, after), weight in steps:
        found[after] = found.get(after, 0) + weight
        found[before] = found.get(before, 0) - weight
    return {row: value for row, value in found.items() if abs(value) > 1e-12}


def _steps(summary: Summary, design: Design) -> tuple[list[dict[str, Any]], list[Column], list[str]]:
    made, margin, metric, frame = Steps.of(summary), summary.plan["margin"], summary.metric, []
    names = design.called(labels_of(summary.plan))
    called = dict(zip(design.factors, names, strict=True))
    for i, name in enumerate(design.factors):
        values = [step[i] for step in made.each]
        row = {"step": name, "mean": made.mean[i].difference, "half_width": made.mean[i].half_width}
        row |= {"lowest": min(values), "highest": max(values), "verdict_words": _dependence(made.between[i], margin)}
        row["p_holm"] = min((effect.p_holm for effect in made.between[i]), default=math.nan)
        for k, (order, value) in enumerate(zip(design.orders, values, strict=True), start=1):
            row |= {f"order_{k}": value, f"place_{k}": order.index(i) + 1}
        frame.append(row)

    def alone(value: float) -> str:
        return measure(value, math.nan, signed=True, digits=metric.digits)

    def at(k: int) -> Column:
        def text(row: Mapping[str, Any]) -> str:
            return f"{alone(row[f'order_{k}'])} ({_ordinal(row[f'place_{k}'])})"

        return Column(f"order {k}", text, right=True)

    columns = [
        Column("step", lambda row: called[row["step"]], long=True, math=True),
        Column("mean", partial(_measured, metric, "mean"), right=True),
        Column("range", lambda row: _range(alone(row["lowest"]), alone(row["highest"])), right=True),
        *(at(k) for k in range(1, len(design.orders) + 1)),
        Column("depends on its place?", lambda row: row["verdict_words"], long=True),
    ]
    said = [" → ".join(words(names[i]) for i in order) for order in design.orders]
    orders = "; ".join(f"{k}. {order}" for k, order in enumerate(said, start=1))
    notes = [
        f"What each step adds to {metric.of_differences}, by its place in each order. Orders: {orders}.",
        f"± is the half-width of a 95% interval. {_how(summary)}; whether a step depends on its place is judged "
        "between any two orders, adjusted over all steps (Holm 1979).",
    ]
    return frame, columns, notes


def _dependence(between: Sequence[Effect], margin: float | None) -> str:
    if not between:
        return "has the same rows in all orders"
    p = min((effect.p_holm for effect in between), default=math.nan)
    if any(effect.p_holm <= ALPHA for effect in between):
        return f"yes (p = {_p(p)})".replace("= <", "<")
    if margin and all(effect.verdict == "equivalent" for effect in between):
        return f"no (within ±{margin:g})"
    return "undecided" if not math.isnan(p) else "too few runs"


def _range(low: str, high: str) -> str:
    return NOTHING if NOTHING in (low, high) else f"{low} to {high}"


def _ordinal(place: int) -> str:
    return f"{place}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(place, 'th') }"


def _lacking(summary: Summary) -> list[str]:
    lacking = [summary.label(row) for row, own in summary.values.items() if not own]
    return [f"Without any figure, so that nothing is known of what takes them: {listed(lacking)}."] if lacking else []
