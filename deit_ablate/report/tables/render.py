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
from typing import Any

from deit_ablate.report.tables.table import NOTHING, Column, Table

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


def to_markdown(table: Table) -> str:
    """A heading, a pipe table that lines up in a terminal too, and the footnotes as a list."""
    headers = [escape_markdown(column.header) for column in table.columns]
    body = [[escape_markdown(cell) for cell in row] for row in table.rows()]
    widths = [max(map(len, cells)) for cells in zip(headers, *body, strict=True)]
    right = [column.right for column in table.columns]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if r else cell.ljust(width) for cell, width, r in zip(cells, widths, right, strict=True)
        )
        return "| " + " | ".join(padded) + " |"

    rule = line(["-" * (width - 1) + ":" if r else "-" * width for width, r in zip(widths, right, strict=True)])
    lines = [f"# {escape_markdown(table.title)}", "", line(headers), rule, *map(line, body)]
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
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "^": r"\textasciicircum{}",
    "~": r"\textasciitilde{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\symbol{34}",
    "'": "'{}",
    "`": r"\`{}",
    "[": "{[}",
    "]": "{]}",
    "*": "{*}",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "±": r"$\pm$",
    "→": r"$\rightarrow$",
    "−": "$-$",
    "×": r"$\times$",
    "≤": r"$\leq$",
    "≥": r"$\geq$",
    "≈": r"$\approx$",
    "≠": r"$\neq$",
    "·": r"$\cdot$",
    "°": r"$^\circ$",
    "√": r"$\surd$",
    "∞": r"$\infty$",
    "…": r"\dots{}",
    "✓": r"$\surd$",
    "✗": r"$\times$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "†": r"$\dagger$",
    "‘": "`",
    "’": "'",
    "“": "``",
    "”": "''",
    "ß": r"\ss{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "œ": r"\oe{}",
    "Œ": r"\OE{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
    "µ": r"$\mu$",
}
_ACCENTS = {
    0x300: "`",
    0x301: "'",
    0x302: "^",
    0x303: "~",
    0x308: '"',
    0x30A: "r",
    0x30C: "v",
    0x327: "c",
    0x304: "=",
    0x306: "u",
    0x307: ".",
    0x30B: "H",
}
_GREEK = re.compile(
    r"GREEK (SMALL|CAPITAL) LETTER "
    r"(ALPHA|BETA|GAMMA|DELTA|EPSILON|ZETA|ETA|THETA|IOTA|KAPPA|LAMDA|MU|NU|XI|PI|RHO|SIGMA|TAU|UPSILON|PHI|CHI|PSI|OMEGA)\Z"
)
_GREEK_CAPITALS = {"GAMMA", "DELTA", "THETA", "LAMBDA", "XI", "PI", "SIGMA", "UPSILON", "PHI", "PSI", "OMEGA"}


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
    if len(parts) == 2 and parts[0].isascii() and parts[0].isalpha() and ord(parts[1]) in _ACCENTS:
        return f"\\{_ACCENTS[ord(parts[1])]}{{{parts[0]}}}"
    greek = _GREEK.match(unicodedata.name(character, ""))
    if greek:
        name = greek[2].replace("LAMDA", "LAMBDA")
        if greek[1] == "SMALL":
            return f"$\\{name.lower()}$"
        if name in _GREEK_CAPITALS:
            return f"$\\{name.capitalize()}$"
    return f"U+{ord(character):04X}"


def _breakable(escaped: str) -> str:
    """Escaped text that may end a line within long names: after commas and the like, and between a key's parts."""
    return re.sub(r"([,;+/]|\\_|(?<=[a-z])\.)(?=[^\s\d])", r"\1\\allowbreak{}", escaped)


def _latex_layout(column: Column, cells: Sequence[str]) -> str:
    """A column's letter; long text is wrapped, to about three lines where it is very long."""
    if not column.long:
        return "r" if column.right else "l"
    longest = max(map(len, [column.header, *cells]))
    unbroken = max(
        len(part) for text in (column.header, *cells) for part in re.split(r"[\s-]|(?<=[,;+/_])|(?<=[a-z]\.)", text)
    )
    letters = min(longest, max(16, unbroken, min(longest / 3, 40)))
    return f"p{{{letters / 2:.3g}em}}"  # a letter is about half an em wide


def _latex_header(column: Column, cells: Sequence[str]) -> str:
    """On as many lines as it takes to be no wider than what stands below; on its side above ticks."""
    text = plain(column.header)
    if column.long:
        return rf"\raggedright {_breakable(escape_latex(text))}"
    if cells and set(cells) <= {"✓", "✗", NOTHING}:
        return rf"\rotatebox{{90}}{{{escape_latex(text)}}}"
    parts = re.split(r"\s|(?<=[^\W\d]-)(?=[^\W\d]{2})", text)  # where textwrap may break a line
    wrapped = textwrap.wrap(text, max(map(len, [*cells, *parts, " "])), break_long_words=False)
    lines = [escape_latex(line) for line in wrapped]
    stacked = r" \\ ".join(lines)
    side = "r" if column.right else "l"
    return rf"\begin{{tabular}}[b]{{@{{}}{side}@{{}}}}{stacked}\end{{tabular}}" if len(lines) > 1 else stacked


def to_latex(table: Table) -> str:
    """A table environment with caption and label (tab:<name>), which needs booktabs and graphicx. What is wider than
    the line is scaled down to it."""
    body = table.rows()
    columns = [(column, [row[place] for row in body]) for place, column in enumerate(table.columns)]
    layout = "".join(_latex_layout(*column) for column in columns)

    def line(cells: Sequence[str]) -> str:
        escaped = (
            rf"\raggedright {_breakable(escape_latex(cell))}" if column.long else escape_latex(cell)
            for cell, column in zip(cells, table.columns, strict=True)
        )
        return " & ".join(escaped) + r" \\"

    label = re.sub(r"[^A-Za-z0-9-]+", "-", table.name)
    lines = [
        r"% \usepackage{booktabs,graphicx}",
        r"\begin{table}",
        r"\centering",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{4pt}",
        rf"\caption{{{escape_latex(table.title)}}}",
        rf"\label{{tab:{label}}}",
        rf"\sbox0{{\begin{{tabular}}{{@{{}}{layout}@{{}}}}",
        r"\toprule",
        " & ".join(_latex_header(*column) for column in columns) + r" \\",
        r"\midrule",
        *map(line, body),
        r"\bottomrule",
        r"\end{tabular}}",
        r"\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi",
    ]
    if table.footnotes:
        notes = (rf"{escape_latex(note)}\par" for note in table.footnotes)
        lines += [r"\par\medskip", r"\begin{minipage}{\linewidth}\raggedright", *notes, r"\end{minipage}"]
    return "\n".join([*lines, r"\end{table}"]) + "\n"


# -- HTML ----------------------------------------------------------------------------------------------------------


def escape_html(text: str) -> str:
    """Plain text as HTML that shows just that, also within an attribute's quotes."""
    return html.escape(plain(text))


def to_html(table: Table) -> str:
    """A table element with caption, and the footnotes as a list: to be pasted into a page."""

    def line(tag: str, cells: Sequence[str]) -> str:
        right = ' style="text-align: right"'
        styled = (
            f"<{tag}{right if column.right else ''}>{escape_html(cell)}</{tag}>"
            for cell, column in zip(cells, table.columns, strict=True)
        )
        return f"<tr>{''.join(styled)}</tr>"

    lines = ["<table>", f"<caption>{escape_html(table.title)}</caption>"]
    lines += ["<thead>", line("th", [column.header for column in table.columns]), "</thead>"]
    lines += ["<tbody>", *(line("td", row) for row in table.rows()), "</tbody>", "</table>"]
    if table.footnotes:
        lines += ["<ul>", *(f"<li>{escape_html(note)}</li>" for note in table.footnotes), "</ul>"]
    return "\n".join(lines) + "\n"


RENDERERS = {"md": to_markdown, "csv": to_csv, "tex": to_latex, "html": to_html}
