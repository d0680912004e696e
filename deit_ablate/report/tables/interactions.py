"""What changes are worth beside one another: effects of a factorial; a cumulative sweep's steps by their orders."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pandas as pd

from deit_ablate.report.stats.contrasts import effects
from deit_ablate.report.stats.power import ALPHA
from deit_ablate.report.stats.verdicts import Effect, untested
from deit_ablate.report.summary import Summary
from deit_ablate.report.tables.footnotes import note
from deit_ablate.report.tables.table import NOTHING, Column, Table, measure, study_title
from deit_ablate.sweep.designs import Design, Estimate, Numbers
from deit_ablate.sweep.labels import labels_of, words

Coefficients = dict[str, float]
Key = TypeVar("Key")

WORDS = {
    1: {"better": "helps", "worse": "harms", "equivalent": "negligible"},
    2: {"better": "synergistic", "worse": "antagonistic", "equivalent": "negligible"},
}
"""By how many factors an effect is of: what a verdict on it is called."""
OF_EFFECT = {
    "estimate": "difference",
    "half_width": "half_width",
    "half_width_all": "half_width_simultaneous",
    **{name: name for name in ("p", "p_holm", "p_equivalent_holm", "verdict")},
}
"""A column of the CSV -> the field of ``Effect`` that it is."""


class Simple(NamedTuple):
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
    def of(cls, summary: Summary, design: Design) -> Factorial:
        estimates = design.effects()
        size = 2 / len(design.rows)
        contrasts = {
            design.name(found): {
                row: len(found.effect) * size * sign for row, sign in zip(design.rows, found.signs, strict=True)
            }
            for found in estimates
        }
        alone = {found.effect: contrasts[design.name(found)] for found in estimates if len(found.aliases) == 1}
        wanted: dict[tuple[int, int, int], Coefficients] = {
            (one, other, sign): {row: value + sign / 2 * alone[pair][row] for row, value in alone[one,].items()}
            for pair in alone
            for one, other in itertools.permutations(pair, 2)
            if (one,) in alone and (other,) in alone
            for sign in (1, -1)
        }
        judged = _judged(summary, wanted)
        simple: dict[Numbers, list[Simple]] = {}
        for one, other, sign in wanted:
            if sign > 0:
                found = (judged[one, other, sign] for sign in (1, -1))
                simple.setdefault(tuple(sorted((one, other))), []).append(Simple(one, other, *found))
        return cls(design, estimates, _judged(summary, contrasts), simple)


def _judged(summary: Summary, contrasts: Mapping[Key, Coefficients]) -> dict[Key, Effect]:
    if not contrasts:
        return {}
    how: Any = {"by_seed": summary.any_paired, "resolution": summary.resolution}
    found = effects(summary.values, {str(key): own for key, own in contrasts.items()}, summary.rules, **how)
    return {key: found[str(key)] for key in contrasts}


def level_means(
    summary: Summary, design: Design, pairs: Sequence[tuple[int, int]]
) -> dict[tuple[int, int], dict[tuple[bool, bool], tuple[float, float]]]:
    """Of each two factors: whether there is the first, and the second -> mean metric with its half-width at 95%."""
    found: dict[tuple[int, int], dict[tuple[bool, bool], tuple[float, float]]] = {}
    for one, other in pairs:
        rows: dict[tuple[bool, bool], list[str]] = {}
        for row in design.rows:
            rows.setdefault((design.has(row, one), design.has(row, other)), []).append(row)
        judged = _judged(summary, {levels: dict.fromkeys(own, 1 / len(own)) for levels, own in rows.items()})
        found[one, other] = {levels: (effect.difference, effect.half_width) for levels, effect in judged.items()}
    return found


def interactions_table(summary: Summary) -> Table:
    """Effects of a factorial with their interactions, or what each step adds in each order of a cumulative sweep."""
    design, plan = summary.design, summary.plan
    assert design is not None
    what = "Steps by order" if design.orders else "Main effects and interactions"
    title = f"{what}: {study_title(plan)}"
    frame, columns, notes = _steps(summary, design) if design.orders else _effects(summary, design)
    lacking = [summary.label(row) for row, own in summary.values.items() if not own]
    notes += note(lacking, "Without any figure, so that nothing is known of what takes them: ")
    return Table(f"{summary.sweep}-interactions", title, pd.DataFrame(frame), tuple(columns), tuple(notes))


# -- a factorial ---------------------------------------------------------------------------------------------------


def _effects(summary: Summary, design: Design) -> tuple[list[dict[str, Any]], list[Column], list[str]]:
    made, margin, metric = Factorial.of(summary, design), summary.plan["margin"], summary.metric
    names = design.called(labels_of(summary.plan))
    signed = partial(measure, signed=True, digits=metric.digits)

    def all_at_once(effect: Effect) -> str:
        return signed(effect.difference, effect.half_width_simultaneous)

    def half(value: float) -> str:
        return NOTHING if math.isnan(value) else f"± {value:.{metric.digits}f}"

    frame, called = [], {}
    for found, (name, effect) in zip(made.estimates, made.effects.items(), strict=True):
        called[name] = design.name(found, names)
        row: dict[str, Any] = {"effect": name, "factors": len(found.effect)}
        row |= {column: getattr(effect, field) for column, field in OF_EFFECT.items()}
        row |= {"verdict_words": _words(effect, len(found.effect), margin)}
        simple = made.simple.get(found.effect, ())
        row["simple_effects"] = "; ".join(
            f"{names[part.factor]} {all_at_once(part.present)} with {names[part.other]}, "
            f"{all_at_once(part.absent)} without"
            for part in simple
            if not math.isnan(part.present.difference)
        )
        for (k, which), there in itertools.product(enumerate(("first", "second")), ("present", "absent")):
            part = getattr(simple[k], there) if simple else untested("none")
            key = f"{which}_where_other_{there}"
            row |= {key: part.difference, f"{key}_half_width_all": part.half_width_simultaneous}
        frame.append(row)
    columns = [
        Column("effect", lambda row: called[row["effect"]], long=True, math=True),
        Column(metric.counted_in or "estimate", lambda row: signed(row["estimate"], row["half_width"]), right=True),
        Column("all at once", lambda row: half(row["half_width_all"]), right=True),
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
    covers = "They cover training noise alone, not new images as verdicts on rows do. " * summary.population.judged
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
    def of(cls, summary: Summary, design: Design) -> Steps:
        orders, numbers = steps_by_order(design), range(len(design.changes))
        means = {row: sum(own.values()) / len(own) for row, own in summary.values.items() if own}
        each = [
            {i: means.get(after, math.nan) - means.get(before, math.nan) for i, (before, after) in order.items()}
            for order in orders
        ]
        mean = {i: _sum([(order[i], 1 / len(orders)) for order in orders]) for i in numbers}
        between = {
            (i, one, other): _sum([(one, 1), (other, -1)])
            for i in numbers
            for one, other in itertools.combinations(dict.fromkeys(order[i] for order in orders), 2)
        }
        judged = _judged(summary, between)
        found = {i: [effect for (number, *_), effect in judged.items() if number == i] for i in numbers}
        return cls(each, _judged(summary, mean), found)


def _sum(steps: Sequence[tuple[tuple[str, str], float]]) -> Coefficients:
    found: Coefficients = {}
    for (before, after), weight in steps:
        found[after] = found.get(after, 0) + weight
        found[before] = found.get(before, 0) - weight
    return {row: value for row, value in found.items() if abs(value) > 1e-12}


def _steps(summary: Summary, design: Design) -> tuple[list[dict[str, Any]], list[Column], list[str]]:
    made, margin, metric, frame = Steps.of(summary, design), summary.plan["margin"], summary.metric, []
    names = design.called(labels_of(summary.plan))
    called = dict(zip(design.factors, names, strict=True))
    for i, name in enumerate(design.factors):
        values, known = [step[i] for step in made.each], (own.p_holm for own in made.between[i])
        p = min((p for p in known if not math.isnan(p)), default=math.nan)
        row = {"step": name, "mean": made.mean[i].difference, "half_width": made.mean[i].half_width}
        row |= {"lowest": float(np.min(values)), "highest": float(np.max(values))}  # unlike min, NaN where any is
        row |= {"verdict_words": _dependence(made.between[i], p, margin), "p_holm": p}
        for k, (order, value) in enumerate(zip(design.orders, values, strict=True), start=1):
            row |= {f"order_{k}": value, f"place_{k}": order.index(i) + 1}
        frame.append(row)

    signed = partial(measure, signed=True, digits=metric.digits)

    def spread(row: Mapping[str, Any]) -> str:
        ends = signed(row["lowest"]), signed(row["highest"])
        return NOTHING if NOTHING in ends else " to ".join(ends)

    def at(k: int, row: Mapping[str, Any]) -> str:
        place = row[f"place_{k}"]
        return f"{signed(row[f'order_{k}'])} ({place}{ {1: 'st', 2: 'nd', 3: 'rd'}.get(place, 'th') })"

    columns = [
        Column("step", lambda row: called[row["step"]], long=True, math=True),
        Column("mean", lambda row: signed(row["mean"], row["half_width"]), right=True),
        Column("range", spread, right=True),
        *(Column(f"order {k}", partial(at, k), right=True) for k in range(1, len(design.orders) + 1)),
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


def _dependence(between: Sequence[Effect], p: float, margin: float | None) -> str:
    if not between:
        return "has the same rows in all orders"
    if any(effect.p_holm <= ALPHA for effect in between):
        return f"yes (p = {_p(p)})".replace("= <", "<")
    if margin and all(effect.verdict == "equivalent" for effect in between):
        return f"no (within ±{margin:g})"
    return "undecided" if not math.isnan(p) else "too few runs"
