"""Table -> Markdown, CSV, LaTeX, HTML. What users wrote is escaped for each; the same table gives the same bytes."""

from __future__ import annotations

import csv
import html
import io
import math
import re
import textwrap
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from deit_ablate.report.frame import rows
from deit_ablate.report.tables.table import NOTHING, Column, Table
from deit_ablate.sweep.labels import SYMBOLS, parts, words

_ESCAPE_SEQUENCE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|.)?|\x9b[0-?]*[ -/]*[@-~]", re.S
)


def plain(text: str) -> str:
    """Text on one line that does nothing to a terminal: control codes go, unprintable characters become U+FFFD."""
    if text.isprintable():
        return text
    kept = []
    for character in _ESCAPE_SEQUENCE.sub("", text):
        kind = unicodedata.category(character)
        if character.isspace():
            kept.append(" ")
        elif kind in ("Cs", "Co", "Cn"):
            kept.append("\N{REPLACEMENT CHARACTER}")
        elif kind not in ("Cc", "Cf"):
            kept.append(character)
    return "".join(kept)


# -- Markdown ------------------------------------------------------------------------------------------------------

# A star at the end of a text opens no emphasis, so the mark of a diverged row stays readable in a terminal; nor
# does an underscore within a word.
_MARKDOWN = re.compile(r"[\\`|\[\]~$#]|\*(?=.)|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_HTML = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def escape_markdown(text: str) -> str:
    """Plain text as Markdown (of GitHub's kind) that shows just that, in a table's cell too."""
    escaped = _MARKDOWN.sub(lambda found: "\\" + found[0], plain(text))
    return re.sub("[&<>]", lambda found: _HTML[found[0]], escaped)


def markdown_label(text: str) -> str:
    """A label as Markdown: its mathematics between dollar signs, as GitHub and mkdocs take it."""
    return "".join(escape_markdown(part) if shown is None else f"${part}$" for part, shown in parts(text))


def to_markdown(table: Table) -> str:
    """A heading, a pipe table that lines up in a terminal too, and the footnotes as a list."""
    escapes = [markdown_label if column.math else escape_markdown for column in table.columns]
    headers = [escape(column.header) for escape, column in zip(escapes, table.columns, strict=True)]
    body: list[list[str]] = []
    for begin, row in zip(table.begins(), table.rows(), strict=True):
        body += [[f"**{markdown_label(begin)}**", *[""] * (len(row) - 1)]] if begin else []
        body.append([escape(cell) for escape, cell in zip(escapes, row, strict=True)])
    widths = [max(map(len, cells)) for cells in zip(headers, *body, strict=True)]
    sides = ["<>"[column.right] for column in table.columns]

    def line(cells: Sequence[str]) -> str:
        return (
            f"| {' | '.join(f'{cell:{side}{width}}' for cell, side, width in zip(cells, sides, widths, strict=True))} |"
        )

    rule = line(["-" * (width - 1) + ("-" if side == "<" else ":") for width, side in zip(widths, sides, strict=True)])
    title = escape_markdown(table.title) if table.caption is None else markdown_label(table.caption)
    lines = [f"# {title}", "", line(headers), rule, *map(line, body)]
    if table.footnotes:
        lines += ["", *(f"- {escape_markdown(note)}" for note in table.footnotes)]
    return "\n".join(lines) + "\n"


# -- CSV -----------------------------------------------------------------------------------------------------------

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\Z", re.ASCII)


def escape_csv(text: str) -> str:
    """Text that no spreadsheet takes for a formula: an apostrophe before what looks like one and is no number."""
    cleaned = plain(text)
    risky = text.lstrip(" ").startswith(_FORMULA) or cleaned.lstrip(" ").startswith(_FORMULA)
    return f"'{cleaned}" if risky and not _NUMBER.match(cleaned) else cleaned


def to_csv(table: Table) -> str:
    """The raw values, one column a statistic, at full precision; empty where there is none."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow([escape_csv(str(name)) for name in table.frame.columns])
    writer.writerows([_raw(value) for value in row] for row in table.frame.itertuples(index=False, name=None))
    return buffer.getvalue()


def _raw(value: Any) -> str:
    if isinstance(value, str):
        return escape_csv(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return "" if math.isnan(value) else repr(float(value))
    return escape_csv(str(value))


# -- LaTeX ---------------------------------------------------------------------------------------------------------

# Nothing here needs a package (a tick of its own would, so it is the root's sign).
_LATEX = {
    **{sign: rf"$\{command}$" for command, sign in SYMBOLS.items() if not sign.isascii()},
    **{character: rf"\{character}" for character in "{}$&#%_"},
    **{character: f"{{{character}}}" for character in "[]*"},
    **{letter: rf"\{name}{{}}" for letter, name in zip("øØłŁ§¶", "oOlLSP", strict=True)},
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "\\": r"\textbackslash{}",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\symbol{34}",
    "'": "'{}",
    "`": r"\`{}",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "−": "$-$",
    "°": r"$^\circ$",
    "√": r"$\surd$",
    "…": r"\dots{}",
    "✓": r"$\surd$",
    "✗": r"$\times$",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "µ": r"$\mu$",
}
_ACCENTS = dict(
    zip("\u0300\u0301\u0302\u0303\u0308\u030a\u030c\u0327\u0304\u0306\u0307\u030b", "`'^~\"rvc=u.H", strict=True)
)


def escape_latex(text: str) -> str:
    """Plain text as LaTeX that shows just that, for pdfLaTeX too; a character it has no glyph for becomes U+XXXX."""
    escaped = "".join(map(_latex, plain(text)))
    return re.sub("-(?=-)", "-{}", escaped)  # two hyphens would become a dash


def _latex(character: str) -> str:
    if character in _LATEX:
        return _LATEX[character]
    if character.isascii():
        return character
    parts = unicodedata.normalize("NFD", character)
    if len(parts) == 2 and parts[0].isascii() and parts[0].isalpha() and parts[1] in _ACCENTS:
        return f"\\{_ACCENTS[parts[1]]}{{{parts[0]}}}"
    kind, _, number = unicodedata.decomposition(character).partition(" ")
    if kind in ("<sub>", "<super>") and " " not in number:
        return f"${'_' if kind == '<sub>' else '^'}{{{chr(int(number, 16))}}}$".replace("\N{MINUS SIGN}", "-")
    return f"U+{ord(character):04X}"


def _breakable(escaped: str) -> str:
    """Escaped text that may end a line within long names: after commas and the like, and between a key's parts."""
    return re.sub(r"([,;+/]|\\_|(?<=[a-z])\.)(?=[^\s\d])", r"\1\\allowbreak{}", escaped)


def latex_label(text: str) -> str:
    """A label as LaTeX: its mathematics as it stands, the rest escaped."""
    return "".join(escape_latex(part) if shown is None else f"${part}$" for part, shown in parts(text))


COLUMN, PAGE = 234.0, 480.0
"""Points: a column of a two-column paper, and its page, of the narrowest usual classes (ICML 234 and 487, CVPR 237 and
497, IEEE 252 and 516)."""
SIZES = (8, 7)
"""Points of a table's letters, the first that fits; its notes are in the last."""
_WIDE, _NARROW = frozenset("mwMW%@±−→×+=<>≤≥≈…—"), frozenset(".,:;'|!ijlI()[] ")


def _points(text: str, size: int) -> float:
    """About how wide a text is in Computer Modern, which is wider than Times."""
    ems = sum(0.88 if c in _WIDE else 0.36 if c in _NARROW else 0.77 if c.isupper() else 0.56 for c in text)
    return ems * size


@dataclass(frozen=True)
class _Set:
    """One column as LaTeX sets it."""

    column: Column
    cells: tuple[str, ...]

    @property
    def header(self) -> str:
        return plain(self.column.header)

    @property
    def turned(self) -> bool:
        """Whether its header stands on its side: above ticks."""
        return bool(self.cells) and set(self.cells) <= {"✓", "✗", NOTHING}

    def lines(self) -> list[str]:
        """The header, on as many lines as it takes to be no wider than what stands below; a label is on one."""
        if self.column.math:
            return [self.header]
        words = re.split(r"\s|(?<=[^\W\d]-)(?=[^\W\d]{2})", self.header)  # where textwrap may break a line
        most = max(map(len, [*map(self.column.words, self.cells), *words, " "]))
        return textwrap.wrap(self.header, most, break_long_words=False)

    def natural(self, size: int) -> float:
        if self.turned:
            return 1.25 * size  # as wide as its header is high
        shown = [*map(self.column.words, self.cells), *map(self.column.words, self.lines())]
        return max((_points(text, size) for text in shown), default=0.0)

    def least(self, size: int, lines: int) -> float:
        """As narrow as it may get: numbers not at all, texts to their longest word and about so many lines."""
        natural = self.natural(size)
        if self.column.right or self.turned:
            return natural
        texts = [*map(self.column.words, self.cells), self.column.words(self.header)]
        words = (word for text in texts for word in (_BREAKS if self.column.long else _SPACES).split(text))
        return min(natural, max(*(_points(word, size) for word in words), natural / lines, 6.0 * size))

    def head(self, width: float | None) -> str:
        if self.turned:
            return rf"\rotatebox{{90}}{{{escape_latex(self.header)}}}"
        if width is not None:
            return rf"\raggedright {_breakable(self._escaped(self.header))}"
        lines = list(map(self._escaped, self.lines()))
        stacked, side = r" \\ ".join(lines), "r" if self.column.right else "l"
        return rf"\begin{{tabular}}[b]{{@{{}}{side}@{{}}}}{stacked}\end{{tabular}}" if len(lines) > 1 else stacked

    def _escaped(self, text: str) -> str:
        return latex_label(text) if self.column.math else escape_latex(text)

    def cell(self, row: int, width: float | None, bold: bool) -> str:
        text = self._escaped(self.cells[row])
        text = rf"\textbf{{{text}}}" if bold else text
        return rf"\raggedright {_breakable(text)}" if width is not None else text


_SPACES, _BREAKS = re.compile(r"[\s-]"), re.compile(r"[\s-]|(?<=[,;+/_])|(?<=[a-z]\.)")


@dataclass(frozen=True)
class _Layout:
    size: int
    gap: float
    """Points between columns."""
    page: bool
    widths: tuple[float | None, ...]
    """In points, of columns whose texts are wrapped."""
    fits: bool


def _layout(columns: Sequence[_Set], wide: bool) -> _Layout:
    """In a column if that can be, else across the page; in letters that can be read, texts on several lines."""
    tries = [(width, size, 3, 6.0) for width in ([PAGE] if wide else [COLUMN, PAGE]) for size in SIZES]
    tries.append((PAGE, SIZES[-1], 99, 4.0))
    for width, size, lines, gap in tries:
        least, natural = [own.least(size, lines) for own in columns], [own.natural(size) for own in columns]
        room = width - gap * (len(columns) - 1) - sum(least)
        if room < 0 and lines < tries[-1][2]:
            continue
        wish = sum(natural) - sum(least)
        share = min(1.0, max(room, 0.0) / wish) if wish else 1.0
        widths = tuple(
            None if share == 1 or n == few else few + share * (n - few) for few, n in zip(least, natural, strict=True)
        )
        return _Layout(size, gap, width == PAGE, widths, room >= 0)
    raise AssertionError("the last try is taken")


TOO_WIDE = "% wider than a page: choose fewer --columns"


def to_latex(table: Table) -> str:
    r"""A table environment with caption and label (tab:<name>), to be ``\input``: it needs booktabs, and graphicx where
    headers stand on their side.

    In letters of 8 or 7 points, nothing scaled: in a column where it fits one, else across the page (``table*``).
    """
    shown = [column for column in table.columns if table.wide or not column.extra]
    made = rows(table.frame)
    columns = [_Set(column, tuple(map(column.brief or column.text, made))) for column in shown]
    layout, begins = _layout(columns, table.wide), table.begins()
    environment = "table*" if layout.page else "table"
    specs = (
        f"p{{{width:.1f}pt}}" if width is not None else "r" if own.column.right else "l"
        for own, width in zip(columns, layout.widths, strict=True)
    )
    end = r" \\" if set(layout.widths) == {None} else r" \tabularnewline"  # \raggedright has a \\ of its own
    body: list[str] = []
    for place, row in enumerate(made):
        if begins[place]:
            above = [r"\addlinespace"] if place else []
            body += [*above, rf"\multicolumn{{{len(columns)}}}{{@{{}}l}}{{\itshape {latex_label(begins[place])}}}{end}"]
        cells = (
            own.cell(place, width, own.column.bold(row)) for own, width in zip(columns, layout.widths, strict=True)
        )
        body.append(" & ".join(cells) + end)
    caption = escape_latex(table.title) if table.caption is None else latex_label(table.caption)
    label = "tab:" + re.sub(r"[^A-Za-z0-9-]+", "-", table.name) if table.label is None else table.label
    packages = ",".join(["booktabs"] + ["graphicx"] * any(own.turned for own in columns))
    small = rf"\fontsize{{{SIZES[-1]}}}{{{1.2 * SIZES[-1]:.3g}}}\selectfont"
    lines = [
        rf"% \usepackage{{{packages}}}",
        *([] if layout.fits else [TOO_WIDE]),
        rf"\begin{{{environment}}}",
        r"\centering",
        rf"\caption{{{caption}}}\smallskip",
        rf"\label{{{re.sub(r'[^A-Za-z0-9:._-]+', '-', label)}}}",
        rf"\fontsize{{{layout.size}}}{{{1.2 * layout.size:.3g}}}\selectfont",
        rf"\setlength{{\tabcolsep}}{{{layout.gap / 2:g}pt}}",
        rf"\begin{{tabular}}{{@{{}}{''.join(specs)}@{{}}}}",
        r"\toprule",
        " & ".join(own.head(width) for own, width in zip(columns, layout.widths, strict=True)) + end,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
    ]
    if notes := table.footnotes if table.short is None else table.short:
        lines += [r"\par\smallskip", rf"\begin{{minipage}}{{\linewidth}}\raggedright{small}"]
        lines += [*(rf"{escape_latex(note)}\par" for note in notes), r"\end{minipage}"]
    return "\n".join([*lines, rf"\end{{{environment}}}"]) + "\n"


# -- HTML ----------------------------------------------------------------------------------------------------------


def escape_html(text: str) -> str:
    """Plain text as HTML that shows just that, also within an attribute's quotes."""
    return html.escape(plain(text))


def to_html(table: Table) -> str:
    """A table element with caption, and the footnotes as a list: to be pasted into a page."""

    def line(tag: str, cells: Sequence[str]) -> str:
        right = ' style="text-align: right"'
        styled = (
            f"<{tag}{right if column.right else ''}>{escape_html(column.words(cell))}</{tag}>"
            for cell, column in zip(cells, table.columns, strict=True)
        )
        return f"<tr>{''.join(styled)}</tr>"

    caption = table.title if table.caption is None else words(table.caption)
    lines = ["<table>", f"<caption>{escape_html(caption)}</caption>"]
    lines += ["<thead>", line("th", [column.header for column in table.columns]), "</thead>"]
    lines.append("<tbody>")
    for begin, row in zip(table.begins(), table.rows(), strict=True):
        if begin:
            lines.append(f'<tr><th colspan="{len(row)}" scope="rowgroup">{escape_html(words(begin))}</th></tr>')
        lines.append(line("td", row))
    lines += ["</tbody>", "</table>"]
    if table.footnotes:
        lines += ["<ul>", *(f"<li>{escape_html(note)}</li>" for note in table.footnotes), "</ul>"]
    return "\n".join(lines) + "\n"


RENDERERS = {"md": to_markdown, "csv": to_csv, "tex": to_latex, "html": to_html}
