"""Figures of rows: differences (a forest plot) and accuracies, drawn as strips that fit any width.

Coordinates are percentages of a strip's width, so nothing is stretched and text keeps its size on a phone; colours come
from the style sheet, so the same drawing suits light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from deit_ablate.report.html import words
from deit_ablate.report.html.content import Content
from deit_ablate.report.html.markup import tag
from deit_ablate.report.tables.table import measure, short_verdict

MOST = 60
"""Rows that are drawn."""
HEIGHT = 30


class Axis:
    """Values -> percent of the width."""

    def __init__(self, low: float, high: float):
        space = 0.05 * ((high - low) or 1.0)
        self.low, self.high = low - space, high + space

    def at(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(100 * min(1.0, max(0.0, share)), 2)

    def line(self, low: float, high: float, y: float, class_: str) -> str:
        return f'<line class="{class_}" x1="{self.at(low)}%" x2="{self.at(high)}%" y1="{y}" y2="{y}"/>'

    def upright(self, value: float, class_: str, height: int = HEIGHT) -> str:
        x = self.at(value)
        return f'<line class="{class_}" x1="{x}%" x2="{x}%" y1="0" y2="{height}"/>'

    def whisker(self, mean: float, half_width: float, class_: str) -> str:
        """An interval, with an arrow where it goes on beyond the axis."""
        if math.isnan(half_width):
            return ""
        low, high = mean - half_width, mean + half_width
        text = self.line(low, high, 11, class_)
        text += '<text class="beyond" x="0" y="15">◂</text>' if low < self.low else ""
        return text + ('<text class="beyond end" x="100%" y="15">▸</text>' if high > self.high else "")

    def ticks(self, wanted: int = 5) -> list[float]:
        return ticks(self.low, self.high, wanted)


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Round values within the limits, about as many as wanted."""
    rough = (high - low) / wanted
    if not rough > 0:
        return [low]
    power = 10 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in (1, 2, 5, 10) if power * nice >= rough * 0.999)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 10) for i in range(first, last + 1)]


def tick_text(value: float, signed: bool = False) -> str:
    text = f"{value:+g}" if signed and value else f"{value:g}"
    return text.replace("-", "\N{MINUS SIGN}")


def effects(page: Content) -> str:
    """Each row's difference from the baseline, as ``forest.forest_figure`` draws it."""
    plan = page.plan
    every = [row for row in page.rows if not row["baseline"] and row["pairs"]]
    if not plan["baseline"] or not every:
        return ""
    shown = every
    if len(every) > MOST:
        kept = {row["variant"] for row in sorted(every, key=lambda row: -abs(row["difference"]))[:MOST]}
        shown = [row for row in every if row["variant"] in kept]
    values = page.summary.top1
    base = values.get(plan["baseline"], {})
    seeds = {
        row["variant"]: {seed: value - base[seed] for seed, value in values[row["variant"]].items() if seed in base}
        for row in shown
    }
    margin = plan["margin"]
    dots = [0.0, *(value for own in seeds.values() for value in own.values())]
    dots += [-margin * 1.4, margin * 1.4] if margin and margin < 20 else []
    axis = _axis(dots, [(row["difference"], row["difference_half_width_all"]) for row in shown], 0.5)
    lines = []
    for row in shown:
        drawn = ""
        if margin:
            left, right = axis.at(-margin), axis.at(margin)
            drawn += f'<rect class="margin" x="{left}%" width="{round(right - left, 2)}%" y="0" height="{HEIGHT}"/>'
        drawn += axis.upright(0, "zero")
        drawn += axis.whisker(row["difference"], row["difference_half_width_all"], "thin")
        drawn += axis.whisker(row["difference"], row["difference_half_width"], "thick")
        drawn += _dots(axis, seeds[row["variant"]], signed=True)
        drawn += f'<circle class="mean" cx="{axis.at(row["difference"])}%" cy="11" r="4.5"/>'
        kind = words.group(row["verdict"])
        verdict = page.say(short_verdict(str(row["verdict_words"])))
        said = measure(row["difference"], row["difference_half_width"], signed=True)
        lines.append(_strip(page, row["variant"], drawn, f"{said} {tag('b', verdict)}", f"v-{kind}" if kind else ""))
    key = (
        "Dot: mean difference. Thick line: 95% interval of that row alone. Thin line: 95% interval for all rows at once. "
        "Small dots: single seeds." + (f" Shaded: the margin, ±{margin:g} points." if margin else "")
    )
    more = "" if len(shown) == len(every) else f" The {len(shown)} of {len(every)} rows that differ most."
    title = f"Difference from {page.say(plan['baseline'])} in test top-1 (points)"
    return _figure("effects", title, key + more, [*lines, _axis_row(axis, signed=True)])


def accuracies(page: Content) -> str:
    """Each row's mean test top-1 with its interval and its seeds."""
    every = page.rows
    values = page.summary.top1
    given = [row for row in every if row["seeds"]]
    if not given:
        return ""
    shown = every
    if len(every) > MOST:
        ranked = sorted(given, key=lambda row: row["top1_mean"])
        kept = {row["variant"] for row in [*ranked[-MOST // 2 :], *ranked[: MOST // 2 - 1]]}
        shown = [row for row in every if row["variant"] in kept or row["baseline"]]
    dots = [value for row in shown for value in values.get(row["variant"], {}).values()]
    axis = _axis(dots, [(row["top1_mean"], row["top1_half_width"]) for row in shown if row["seeds"]], 1.0)
    base = next((row["top1_mean"] for row in every if row["baseline"] and row["seeds"]), math.nan)
    lines = []
    for row in shown:
        drawn = "" if math.isnan(base) else axis.upright(base, "zero")
        said = "did not train" if row["diverged"] and row["diverged"] == row["seeds_planned"] else "–"
        if row["seeds"]:
            drawn += axis.whisker(row["top1_mean"], row["top1_half_width"], "thick")
            drawn += _dots(axis, values[row["variant"]])
            drawn += f'<circle class="mean" cx="{axis.at(row["top1_mean"])}%" cy="11" r="4.5"/>'
            said = measure(row["top1_mean"], row["top1_half_width"]) + ("*" if row["diverged"] else "")
        lines.append(_strip(page, row["variant"], drawn, said, "base" if row["baseline"] else "plain"))
    key = "Dot: mean. Line: 95% interval. Small dots: single seeds." + (
        "" if math.isnan(base) else " Dashed: the baseline's mean."
    )
    key += " * Mean of the runs that converged." if any(row["diverged"] and row["seeds"] for row in shown) else ""
    more = "" if len(shown) == len(every) else f" {len(shown)} of {len(every)} rows: the highest and the lowest."
    return _figure("top1", "Test top-1 (%)", key + more, [*lines, _axis_row(axis)])


def _axis(dots: Sequence[float], intervals: Iterable[tuple[float, float]], least: float) -> Axis:
    """Room for every dot, and for intervals as far as they are not much longer than what the dots span."""
    low, high = min(dots), max(dots)
    room = max(high - low, least) / 2
    bottom, top = low - room, high + room
    for mean, half_width in intervals:
        if not math.isnan(half_width):
            low, high = min(low, max(mean - half_width, bottom)), max(high, min(mean + half_width, top))
    return Axis(low, high) if high - low >= least / 2 else Axis(low - least / 2, high + least / 2)


def _dots(axis: Axis, seeds: Mapping[int, float], signed: bool = False) -> str:
    return "".join(
        f'<circle class="seed" cx="{axis.at(value)}%" cy="22" r="3"><title>seed {seed}: {words.points(value, signed)}</title></circle>'
        for seed, value in sorted(seeds.items())
    )


def _strip(page: Content, name: str, drawn: str, said: str, class_: str) -> str:
    label = tag("span", page.say(name, 90), class_="name")
    svg = f'<svg height="{HEIGHT}" aria-hidden="true">{drawn}</svg>'
    return tag("li", label + svg + tag("span", said, class_="value"), class_=f"strip {class_}".strip())


def _axis_row(axis: Axis, signed: bool = False) -> str:
    drawn = '<line class="axis" x1="0" x2="100%" y1="1" y2="1"/>'
    for value in axis.ticks():
        x = axis.at(value)
        drawn += f'<line class="axis" x1="{x}%" x2="{x}%" y1="1" y2="6"/><text x="{x}%" y="18">{tick_text(value, signed)}</text>'
    return (
        f'<li class="strip axis-row" aria-hidden="true"><span></span><svg height="22">{drawn}</svg><span></span></li>'
    )


def _figure(name: str, title: str, key: str, lines: Sequence[str]) -> str:
    caption = tag("figcaption", tag("h3", title) + tag("p", key, class_="small"))
    return (
        tag("figure", caption + "\n" + tag("ul", "\n".join(lines), class_="strips") + "\n", id_=f"figure-{name}") + "\n"
    )
