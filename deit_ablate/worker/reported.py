"""What a program reports: the metrics in the file that it writes, read as it grows."""

from __future__ import annotations

import csv
import glob
import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from deit_ablate.errors import did_you_mean
from deit_ablate.execution import MetricsFile

MOST_METRICS = 1000
"""Of one line: what has more is no line of metrics."""

Line = dict[str, float | int | None]


class BadMetrics(Exception):
    """The metrics of a program that has ended well are not there, or not as it was said."""


class Reported:
    """The metrics of one attempt: lines so far, and the last value of each."""

    def __init__(self, told: MetricsFile, output: Path, log: Path) -> None:
        self.told, self._output, self._log = told, output, log
        self.final: Line = {}
        """The last value of each metric; None where that is not finite."""
        self.lines = 0
        self._offset, self._partial, self._columns = 0, "", list[str]()

    def add(self, values: Mapping[str, Any]) -> Line:
        """Take one line of values; returns its numbers."""
        line = dict(_numbers(values))
        self.final |= line
        self.lines += 1
        return line

    def new(self) -> list[Line]:
        """The lines that have been completed since the last call; none of a file that is not there (yet)."""
        found = self._found()
        if len(found) != 1 or self._kind == "json":
            return []
        try:
            with found[0].open("rb") as handle:
                size = handle.seek(0, 2)
                if size < self._offset:  # written anew
                    self._offset, self._partial, self._columns, self.final = 0, "", [], {}
                handle.seek(self._offset)
                content = handle.read()
        except OSError:
            return []
        self._offset += len(content)
        *lines, self._partial = (self._partial + content.decode("utf-8", errors="replace")).split("\n")
        return [self.add(values) for line in lines if (values := self._values(line))]

    def end(self) -> list[Line]:
        """The last lines, of a program that has ended well: one without a line break too, and those of a file that is
        written at the end. Raises BadMetrics where there is no such file, several, or one without the primary metric's
        name in it."""
        if self.told.file is None:
            return []
        found = self._found()
        if len(found) != 1:
            listed = ", ".join(path.relative_to(self._output).as_posix() for path in found[:5])
            raise BadMetrics(f"{self.told.file}: {f'several files ({listed})' if found else 'no such file'}")
        lines = self.new()
        if self._kind == "json":
            try:
                content = json.loads(found[0].read_text(encoding="utf-8", errors="replace"))
            except ValueError as error:
                raise BadMetrics(f"{self.told.file} is no JSON ({error})") from None
            if not isinstance(content, dict):
                raise BadMetrics(f"{self.told.file} is no JSON object")
            return [self.add(content)]
        if self._partial and (values := self._values(self._partial)):
            lines.append(self.add(values))
            self._partial = ""
        return lines

    def primary(self) -> float | None:
        """The last value of the primary metric, None where it is not finite. Raises BadMetrics where there is none."""
        name = self.told.primary
        if name not in self.final:
            where = self.told.file or "what the function has logged"
            known = ", ".join(sorted(self.final)[:20]) or "no numbers at all"
            raise BadMetrics(f"{where} has no {name!r}{did_you_mean(name, self.final)}; it has {known}")
        return self.final[name]

    @property
    def _kind(self) -> str:
        return "pattern" if self.told.pattern else Path(self.told.file or "").suffix[1:]

    def _found(self) -> list[Path]:
        """The files that are meant: below the run's folder, or the log."""
        file = self.told.file
        if file is None:
            return []
        if file == "{log}":
            return [self._log] if self._log.is_file() else []
        parts = file.replace("{run}", glob.escape(str(self._output)))
        return sorted(path for path in map(Path, glob.glob(parts)) if path.is_file())

    def _values(self, line: str) -> Mapping[str, Any]:
        """The values of one line; none of a line that is none of metrics."""
        line = line.rstrip("\r")
        if self.told.pattern:
            match = re.search(self.told.pattern, line)
            return {name: value for name, value in match.groupdict().items() if value is not None} if match else {}
        if self._kind == "jsonl":
            try:
                values = json.loads(line) if line.strip() else None
            except ValueError:
                return {}
            return values if isinstance(values, dict) else {}
        row = next(csv.reader([line]), [])
        if not self._columns:
            self._columns = row
            return {}
        return {} if row == self._columns else dict(zip(self._columns, row, strict=False))


def _numbers(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, float | int | None]]:
    """(name, number) pairs, dotted where they are nested; texts that are numbers count, all else is left out."""
    for place, (name, value) in enumerate(values.items()):
        if place >= MOST_METRICS:
            return
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{above}{name}.")
        elif (number := _number(value)) is not None:
            yield f"{above}{name}", number if math.isfinite(number) else None


def _number(value: Any) -> float | int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if abs(value) < 2**53 else float(value)
    if isinstance(value, float):
        return value
    try:
        return float(value) if isinstance(value, str) and value.strip() else None
    except ValueError:
        return None
