"""What papers call a sweep's rows, and how they group them: text that is no part of a name or an id.

``labels: {beta2=0.99: "$\\beta_2 = 0.99$"}`` is free text with a little mathematics between dollar signs. That is read
here, symbol by symbol, so that what reaches LaTeX and matplotlib is a few commands that neither writes nor reads files.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from deit_ablate.sweep.yaml import Node

LONGEST = 200
"""Characters of a label."""
_MATH = re.compile(r"(?<!\\)\$(.*?)(?<!\\)\$", re.S)
_GREEK = {
    name.lower(): f"GREEK SMALL LETTER {name.replace('LAMBDA', 'LAMDA')}"
    for name in (
        *("ALPHA", "BETA", "GAMMA", "DELTA", "EPSILON", "ZETA", "ETA", "THETA", "IOTA", "KAPPA", "LAMBDA", "MU", "NU"),
        *("XI", "PI", "RHO", "SIGMA", "TAU", "UPSILON", "PHI", "CHI", "PSI", "OMEGA"),
    )
}
_CAPITALS = ("gamma", "delta", "theta", "lambda", "xi", "pi", "sigma", "upsilon", "phi", "psi", "omega")
_SIGNS = (
    r"\times × \pm ± \mp ∓ \cdot · \to → \rightarrow → \leftarrow ← \uparrow ↑ \downarrow ↓ \leq ≤ \geq ≥ \neq ≠ "
    r"\approx ≈ \sim ∼ \equiv ≡ \ll ≪ \gg ≫ \infty ∞ \dagger † \ddagger ‡ \star ⋆ \ast ∗ \circ ∘ \ell ℓ \nabla ∇ "
    r"\partial ∂ \oplus ⊕ \otimes ⊗ \ldots … \cdots … \log log \exp exp \min min \max max"
)
SYMBOLS = {
    **{name: unicodedata.lookup(letter) for name, letter in _GREEK.items()},
    **{name.title(): unicodedata.lookup(_GREEK[name].replace("SMALL", "CAPITAL")) for name in _CAPITALS},
    **dict(re.findall(r"\\(\w+) (\S+)", _SIGNS)),
    **dict.fromkeys([*",;: ", "quad"], " "),
    "%": "%",
}
"""Command -> what it shows, in plain text."""
_FONTS = frozenset(["mathrm", "mathbf", "mathit", "mathcal", "mathsf", "mathtt"])
_ACCENTS = {"hat": "\u0302", "bar": "\u0304", "tilde": "\u0303", "dot": "\u0307", "vec": "\u20d7"}
_PLAIN = re.compile(r"[A-Za-z0-9 +\-=<>()\[\].,/:;!?*]")


def _raised(kind: str, *codes: range) -> dict[str, str]:
    found = {}
    for code in (code for each in codes for code in each):
        what, _, number = unicodedata.decomposition(chr(code)).partition(" ")
        if what == kind:
            found[chr(int(number, 16)).replace("\N{MINUS SIGN}", "-")] = chr(code)
    return found


_SCRIPTS = {
    "_": _raised("<sub>", range(0x1D62, 0x1D6B), range(0x2080, 0x209D)),
    "^": _raised("<super>", range(0xB2, 0xBA), range(0x1D43, 0x1D62), range(0x2070, 0x2080)),
}


class _Formula:
    """One formula, read to its end; ``words`` is what it shows in plain text. Raises ValueError, saying why."""

    def __init__(self, text: str) -> None:
        self._rest = re.findall(r"\\[A-Za-z]+|\\.|.", text, re.S)[::-1]
        if not text.strip():
            raise ValueError("nothing between two dollar signs")
        self.words = self._sequence(inner=False)

    def _sequence(self, inner: bool) -> str:
        shown, scripts = "", ""
        while self._rest:
            token = self._rest.pop()
            if token == "}" and inner:
                return shown
            if token in _SCRIPTS:
                if token in scripts:
                    raise ValueError(f"two {token} after one symbol")
                scripts += token
                shown += self._script(token)
            elif token != " ":
                scripts = ""
                shown += self._atom(token)
        if inner:
            raise ValueError("a { without its }")
        return shown

    def _script(self, sign: str) -> str:
        token = self._rest.pop() if self._rest else ""
        if not token or token in "_^} " or token[1:] in _FONTS or token[1:] in _ACCENTS:
            raise ValueError(f"{sign} takes one symbol, or {{several}}")
        inner = self._atom(token)
        known = _SCRIPTS[sign]
        if inner and all(character in known for character in inner):
            return "".join(known[character] for character in inner)
        return sign + (inner if len(inner) == 1 else f"({inner})")

    def _atom(self, token: str) -> str:
        if token == "{":
            return self._sequence(inner=True)
        command = token[1:] if token.startswith("\\") and len(token) > 1 else ""
        if command in _FONTS or command in _ACCENTS:
            if not self._rest or self._rest.pop() != "{":
                raise ValueError(f"\\{command} without {{...}}")
            inner = self._sequence(inner=True)
            return unicodedata.normalize("NFC", inner + _ACCENTS[command]) if command in _ACCENTS else inner
        if command in SYMBOLS:
            return SYMBOLS[command]
        if _PLAIN.fullmatch(token):
            return token
        raise ValueError(f"{token} in mathematics")


def parts(label: str) -> Iterator[tuple[str, str | None]]:
    """A label's texts, each with None, and its formulas (the LaTeX between two dollar signs), each with what it shows
    in plain text. What is no formula that can be read is text."""
    at = 0
    for found in _MATH.finditer(label):
        try:
            words = _Formula(found[1]).words
        except ValueError:
            continue
        if found.start() > at:
            yield _dollars(label[at : found.start()]), None
        yield found[1], words
        at = found.end()
    if at < len(label):
        yield _dollars(label[at:]), None


def _dollars(text: str) -> str:
    return text.replace("\\$", "$")


def words(label: str) -> str:
    """A label in plain text: ``$\\beta_2$`` is β₂."""
    return "".join(text if shown is None else shown for text, shown in parts(label))


# -- sweep files -----------------------------------------------------------------------------------------------------


def read_labels(node: Node, labels: Mapping[str, str] | None, rows: Sequence[str], axes: Sequence[str]) -> None:
    """Raises InputError for the label of a row (or axis of a grid) that does not exist, or that cannot be shown."""
    for name, label in (labels or {}).items():
        if name not in (*rows, *axes):
            raise node.unknown(("labels", name), "no row", name, [*rows, *axes])
        problem = "" if label.strip() else "an empty label"
        problem = f"{len(label)} characters" if len(label) > LONGEST else problem
        for formula in _MATH.findall(label):
            try:
                _Formula(formula)
            except ValueError as error:
                problem = str(error)
        if problem:
            of_math = "between two $ Greek letters, _ and ^, \\times and the like (a dollar sign itself is \\$)"
            raise node.error(("labels", name), problem, f"a text of up to {LONGEST} characters; {of_math}")


def read_groups(node: Node, groups: Mapping[str, list[str]] | None, rows: Sequence[str], kind: str) -> None:
    """Raises InputError for a group of rows that do not exist or are in another, and for steps out of their order."""
    seen: dict[str, str] = {}
    for heading, members in (groups or {}).items():
        for i, name in enumerate(members):
            if name not in rows:
                raise node.unknown(("groups", heading, i), "no row", name, rows)
            if name in seen:
                problem = f"{name!r} is in {seen[name]!r} already"
                raise node.error(("groups", heading, i), problem, "each row in one group")
            seen[name] = heading
    if groups and kind == "cumulative" and [name for name, _ in in_groups(rows, groups)] != list(rows):
        expected = "groups of rows that follow one another"
        raise node.error("groups", "the steps of a cumulative sweep keep their order", expected)


def in_groups(rows: Sequence[str], groups: Mapping[str, Sequence[str]]) -> list[tuple[str, str]]:
    """The rows in the order in which tables have them, each with the heading of its group: first those of none."""
    group_of = {name: heading for heading, members in groups.items() for name in members}
    own = [(name, "") for name in rows if name not in group_of]
    return own + [(name, heading) for heading, members in groups.items() for name in members if name in rows]


def labels_of(plan: Mapping[str, Any]) -> Mapping[str, str]:
    return plan.get("labels") or {}


def rows_of(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A plan's rows as ``in_groups`` has them."""
    groups = {group["heading"]: group["rows"] for group in plan.get("groups") or ()}
    return in_groups([row["name"] for row in plan["variants"]], groups)
