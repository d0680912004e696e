"""Files of numbers, one a run, which other programs wrote: text, CSV, or JSON."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from deit_ablate import files
from deit_ablate.errors import InputError, unknown_name
from deit_ablate.report.records import LARGEST

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?", re.ASCII)
Read: TypeAlias = Iterator[tuple[int, Any]]
"""Line (0: not known) and what stands there."""
SUFFIXES = (".txt", ".dat", ".csv", ".tsv", ".json", ".jsonl")
"""Of files of numbers; one of another name is text."""
FORMS = "a number a line, a CSV file with --column, or JSON: a list of numbers, or of objects with --column"


def read_numbers(path: Path, column: str | None = None) -> list[float]:
    """The numbers in a file, in order: of its ``column``, where it has any. Raises InputError at the line of what is
    none, and for a file that is missing, of another kind, or has fewer than two."""
    try:
        content = files.read_regular(path)
        if content is None:
            raise InputError("no such file", where=(str(path), 0, 0), expected=FORMS)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError("not UTF-8", where=(str(path), 0, 0), expected=FORMS) from None
    read = {".csv": _csv, ".tsv": _csv, ".json": _json, ".jsonl": _json_lines}.get(path.suffix.lower(), _text)
    numbers = [_number(path, line, value) for line, value in read(path, text, column)]
    if len(numbers) < 2:
        problem = f"{len(numbers) or 'no'} number{'s' * (not numbers)}"
        raise InputError(problem, where=(str(path), 0, 0), expected="a number of each of several runs, two at least")
    return numbers


def _number(path: Path, line: int, value: Any) -> float:
    """Raises InputError."""
    written = isinstance(value, str) and NUMBER.fullmatch(value.strip())
    if written or (isinstance(value, (int, float)) and not isinstance(value, bool)):
        try:
            if abs(number := float(value)) <= LARGEST:
                return number
        except OverflowError:
            pass
    shown = "nothing" if value in ("", None) else repr(value)[:40]
    raise InputError(f"got {shown}", where=(str(path), line, 1), expected=f"a number, of {LARGEST:g} at most")


def _text(path: Path, text: str, column: str | None) -> Read:
    for line, content in enumerate(text.splitlines(), 1):
        if (value := content.partition("#")[0].strip()) != "":
            yield line, value


def _csv(path: Path, text: str, column: str | None) -> Read:
    reader = csv.reader(io.StringIO(text), delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    try:
        rows = [(reader.line_num, row) for row in reader if any(cell.strip() for cell in row)]
    except csv.Error as error:
        raise InputError(f"no CSV ({error})", where=(str(path), reader.line_num, 1), expected=FORMS) from None
    if not rows:
        return
    header = [cell.strip() for cell in rows[0][1]]
    if len(header) == 1 and column != header[0] and NUMBER.fullmatch(header[0]):
        header = []  # numbers alone
    place = _place(path, header, column) if header else 0
    for line, row in rows[bool(header) :]:
        yield line, row[place] if place < len(row) else ""


def _json(path: Path, text: str, column: str | None) -> Read:
    found = files.parse_json(path, text.encode())
    if isinstance(found, dict) and found and all(isinstance(value, list) for value in found.values()):
        names = list(found)
        found, column = found[names[_place(path, names, column)]], None  # columns, each a list
    if not isinstance(found, list):
        raise InputError("no list of numbers", where=(str(path), 0, 0), expected=FORMS)
    return _items(path, [(0, item) for item in found], column)


def _json_lines(path: Path, text: str, column: str | None) -> Read:
    lines = [(n, line) for n, line in enumerate(text.splitlines(), 1) if line.strip()]
    return _items(path, [(n, files.parse_json(path, line.encode(), n)) for n, line in lines], column)


def _items(path: Path, items: Sequence[tuple[int, Any]], column: str | None) -> Read:
    if not any(isinstance(item, dict) for _, item in items):
        yield from items
        return
    for line, item in items:
        if not isinstance(item, dict):
            raise InputError(f"got {item!r:.40}", where=(str(path), line, 1), expected="an object, as the others are")
        names = list(item)
        yield line, item[names[_place(path, names, column, line)]]


def _place(path: Path, names: Sequence[str], column: str | None, line: int = 1) -> int:
    """Which of the columns is meant. Raises InputError."""
    if column is None and len(names) > 1:
        listed = ", ".join(names[:20])
        raise InputError(f"{len(names)} columns", where=(str(path), 0, 0), expected=f"--column, one of {listed}")
    if column is not None and names.count(column) > 1:
        raise InputError(f"{column!r} twice", where=(str(path), line, 1), expected="each column once")
    if column is not None and column not in names:
        raise unknown_name("no column", column, names, where=(str(path), line, 1))
    return 0 if column is None else names.index(column)
