"""How our figures look, and how they are saved: a paper's column, the same bytes from the same records."""

from __future__ import annotations

import contextlib
import io
import logging
import math
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import matplotlib
import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.mathtext import MathTextParser
from matplotlib.ticker import MaxNLocator

from deit_ablate import files
from deit_ablate.report.summary import Summary
from deit_ablate.report.tables.render import plain
from deit_ablate.sweep.labels import labels_of, parts, words

WIDTH, PAGE_WIDTH = 3.35, 6.9
"""Inches: one column of a two-column paper, and both."""
_width = ContextVar("_width", default=WIDTH)
DPI = 300
MOST = 60
"""Rows of the accuracy figure: about a page."""
OKABE_ITO = ("#0072B2", "#C24E00", "#00805D", "#B0508A", "#9A6A00", "#2A8FC7", "#000000")
"""Okabe and Ito's colours, which colour-blind readers can tell apart, as dark as lines and letters on white need; their
yellow is left out."""
GREY, PALE, LIGHT, BAND = "#555555", "#999999", "#DDDDDD", "#E8EEF4"
PRIVATE_USE = 0xE000
"""The first character that Unicode leaves to its users; ``plain`` leaves none of them."""
TIPS = "tips:"
"""A group of marks whose gid begins so lists what each mark stands for, with ``|`` between: pages show that."""
STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7,
    "axes.titlesize": 7.5,
    "axes.labelsize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.1,
    "svg.hashsalt": "deit-ablate",
    "pdf.fonttype": 42,
    "text.parse_math": False,
}
METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "pdf": {"Creator": None, "Producer": None, "CreationDate": None},
    "svg": {"Creator": None, "Date": None},
}


@contextlib.contextmanager
def style() -> Iterator[None]:
    """matplotlib's own defaults and ours, whatever the user's matplotlibrc says; undone at the end."""
    mathtext = logging.getLogger("matplotlib.mathtext")
    level = mathtext.level
    with matplotlib.rc_context(), warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes: that is no news for whoever runs a sweep.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        mathtext.setLevel(logging.ERROR)
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        try:
            yield
        finally:
            mathtext.setLevel(level)


@contextlib.contextmanager
def width(name: str) -> Iterator[None]:
    """What is drawn within is as wide as a "column" or a "page" of a paper, with letters of the same size."""
    token = _width.set({"column": WIDTH, "page": PAGE_WIDTH}[name])
    try:
        yield
    finally:
        _width.reset(token)


def save(figure: Figure, path: Path) -> None:
    """Write a figure whole, in the format that the suffix names: png, pdf or svg. Raises KeyError for another."""
    form = path.suffix.lstrip(".")
    buffer = io.BytesIO()
    with style():
        figure.savefig(buffer, format=form, dpi=DPI, metadata=METADATA[form])
    files.replace(path, buffer.getvalue())


def new_figure(panels: int, height: float, *, across: int = 1, share: bool = True) -> tuple[Figure, Sequence[Axes]]:
    """A figure as wide as a column, its panels below one another or ``across`` in a line; ``share``: their x axis. Of
    the width of a page two panels stand side by side."""
    if _width.get() == PAGE_WIDTH and (panels, across) == (2, 1):
        across, height = 2, height / 2 + 0.3
    figure = Figure(figsize=(_width.get(), height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    every = list(figure.subplots(-(-panels // across), across, sharex=share, squeeze=False).flat)
    for unused in every[panels:]:
        unused.remove()
    return figure, every[:panels]


def nothing(words: str) -> Figure:
    figure = Figure(figsize=(_width.get(), 1), dpi=DPI)
    FigureCanvasAgg(figure)
    figure.text(0.5, 0.5, words, ha="center", va="center", color=GREY)
    return figure


def lines(rows: Sequence[Mapping[str, Any]]) -> tuple[list[int], dict[int, str]]:
    """The line of each of a summary's rows, from the top, and line -> the heading of the group that begins below it."""
    own: list[int] = []
    headings: dict[int, str] = {}
    before = ""
    for row in rows:
        if row["group"] not in ("", before):
            headings[len(own) + len(headings)] = row["group"]
        before = row["group"]
        own.append(len(own) + len(headings))
    return own, headings


def row_axes(
    axes: Axes,
    labels: Sequence[str],
    limits: tuple[float, float],
    bins: int,
    at: tuple[Sequence[int], Mapping[int, str]] | None = None,
) -> None:
    """An axis with a row for each label (of ``row_names``), each with a thin line behind it: from the top, or where
    ``lines`` has them."""
    own, headings = at or (range(len(labels)), {})
    low, high = limits
    axes.set_xlim(low - 0.5 * (low == high), high + 0.5 * (low == high))  # one value alone has no width
    axes.set_ylim(len(labels) + len(headings) - 0.4, -0.6)
    for y in own:
        axes.axhline(y, color=LIGHT, linewidth=0.4, zorder=0.5)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=bins, steps=[1, 2, 5, 10]))
    above = [text_of(heading, 30) for heading in headings.values()]
    axes.set_yticks([*own, *headings], [*labels, *above], linespacing=0.95, parse_math=True)
    for tick in axes.get_yticklabels()[len(labels) :]:
        tick.set_fontweight("bold")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def limits(
    values: Sequence[float], means: pd.Series[float], half_widths: pd.Series[float], room: float
) -> tuple[float, float]:
    """Room for every value, and for intervals as far as they reach no further than ``room`` beyond the values."""
    ends = pd.concat([means - half_widths, means + half_widths]).clip(min(values) - room, max(values) + room).dropna()
    return min([*values, *ends]), max([*values, *ends])


def pitch(labels: Sequence[str], single: float = 0.24) -> float:
    """Inches from row to row; ``single``: where no label has two lines."""
    return 0.3 if any("\n" in label for label in labels) else single


def row(
    axes: Axes,
    y: float,
    mean: float,
    widths: Mapping[float, float],
    colour: str,
    seeds: Mapping[int, float] = {},
    tip: Callable[[float], str] = str,
    arrow: float = 4,
) -> None:
    """A row's mean, its intervals (width of the line -> half-width; an ``arrow`` where one goes on beyond the axis),
    and, small and below, the values of single seeds, which ``tip`` words. NaN is not drawn."""
    if seeds:
        tips = TIPS + "|".join(f"seed {seed}: {tip(value)}" for seed, value in seeds.items())
        dot: Any = {"alpha": 0.45, "markersize": 2.6, "markeredgewidth": 0, "gid": tips}
        axes.plot(list(seeds.values()), [y + 0.24] * len(seeds), "o", color=colour, zorder=2, **dot)
    low, high = axes.get_xlim()
    line: Any = {"color": colour, "zorder": 3}
    for linewidth, half_width in widths.items():
        if math.isnan(half_width):
            continue
        left, right = mean - half_width, mean + half_width
        axes.plot([max(left, low), min(right, high)], [y, y], linewidth=linewidth, solid_capstyle="butt", **line)
        for beyond, edge, marker in ((left < low, low, 4), (right > high, high, 5)):
            if beyond:
                axes.plot([edge], [y], marker=marker, markersize=arrow, markeredgewidth=0, clip_on=False, **line)
    if not math.isnan(mean):
        axes.plot([mean], [y], "o", color=colour, markersize=4.2, markeredgewidth=0, zorder=4)


def beside(axes: Axes, y: float, text: str, colour: str, size: float) -> None:
    """Text at the right edge of a row."""
    at: Any = ("axes fraction", "data")
    axes.annotate(
        text, (1, y), xycoords=at, xytext=(5, 0), textcoords="offset points", va="center", color=colour, fontsize=size
    )


def key(figure: Figure, entries: Mapping[str, Artist], columns: int, **options: float) -> None:
    """The legend, above all panels. ``options``: handlelength, handletextpad, columnspacing."""
    form: Any = {"columnspacing": 1.4, "borderpad": 0.2, "frameon": False, "fontsize": 6, **options}
    figure.legend(list(entries.values()), list(entries), loc="outside upper center", ncols=columns, **form)


def row_names(summary: Summary, rows: Sequence[str], width: int, lines: int = 1) -> list[str]:
    """What rows are called, on few lines of ``width`` characters, as text that matplotlib is to parse: labels as they
    are (a formula is drawn as one), names without a label shortened."""
    own = labels_of(summary.plan)
    cut = iter(shortened([summary.say(row) for row in rows if row not in own], width, lines))
    return [text_of(summary.say(own[row]), width, lines) if row in own else _literal(next(cut)) for row in rows]


def _literal(text: str) -> str:
    return text.replace("$", r"\$")


def text_of(label: str, width: int = 40, lines: int = 1) -> str:
    """A label as text that matplotlib is to parse, on few lines of ``width`` characters; in plain text where a formula
    would be cut."""
    formulas: dict[str, str] = {}
    held = ""
    for text, shown in parts(label):
        if shown is None:
            held += plain(text)
        else:  # while lines are broken, characters that plain text has none of hold its place
            own = chr(PRIVATE_USE + len(formulas)) * max(1, len(shown))
            formulas[own] = f"${text}$"
            held += own
    drawn = _literal(_wrapped(held.strip(), width, lines))
    with contextlib.suppress(ValueError):  # TeX knows more than mathtext does
        for own, formula in formulas.items():
            MathTextParser("path").parse(formula)
            drawn = drawn.replace(own, formula) if own in drawn else ""
        if drawn:
            return drawn
    return _literal(_wrapped(plain(words(label)).strip(), width, lines))


def shortened(names: Sequence[str], width: int, lines: int = 1) -> list[str]:
    """Names on few lines of ``width`` characters. Where one is longer, the blocks of keys go from all; then middles
    go."""
    texts = [plain(name).strip() for name in names]
    if any(len(text) > width for text in texts):
        texts = [re.sub(r"[a-z]+\.(?=[a-z])", "", text) for text in texts]
    return [_wrapped(text, width, lines) for text in texts]


def _wrapped(text: str, width: int, lines: int) -> str:
    """At most ``lines`` lines, ended after spaces, commas and the like, the last one cut in its middle."""
    parts: list[str] = [""]
    for piece in re.findall(r"[^ ,;+/]*[ ,;+/]*", text):
        if len(parts) < lines and parts[-1] and len((parts[-1] + piece).rstrip()) > width:
            parts.append("")
        parts[-1] += piece
    cut = (
        part if len(part) <= width else f"{part[: width // 2]}…{part[width // 2 + 1 - width :]}"
        for part in map(str.strip, parts)
    )
    return "\n".join(cut)
