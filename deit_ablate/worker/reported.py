"""What a program reports: the metrics in the file that it writes, read as it grows."""

from __future__ import annotations

import csv
import glob
import json
import math
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deit_ablate.errors import did_you_mean
from deit_ablate.execution import MetricsFile

if TYPE_CHECKING:
    import numpy as np

COMMAND_SHOWN = "$ "
"""Begins the line of a log that shows the command."""
MOST_METRICS = 1000
"""Of one line: what has more is no line of metrics."""

Line = dict[str, float | int | None]


class BadMetrics(Exception):
    """The metrics of a program that has ended well are not there, or not as it was said."""


class NoFile(BadMetrics):
    """There is no file of metrics."""


class Reported:
    """The metrics of one attempt: lines so far, and the last value of each."""

    def __init__(self, told: MetricsFile, output: Path, log: Path) -> None:
        self.told, self._output, self._log = told, output, log
        self.final: Line = {}
        """The last value of each metric; None where that is not finite."""
        self.before: Line = {}
        """The same of the epochs that an attempt before has made, and this one goes on from."""
        self.lines = 0
        self.anew = False
        """Whether the file was written anew, so that what was read before is no part of the run's history."""
        self._file: int | None = None
        self._begin()

    def _begin(self) -> None:
        self.lines, self.final, self.before = 0, {}, {}
        self._offset, self._partial, self._columns = 0, b"", list[str]()

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
                facts = os.fstat(handle.fileno())
                if self._offset and (facts.st_size < self._offset or facts.st_ino != self._file):
                    self._begin()
                    self.anew = True
                self._file = facts.st_ino
                handle.seek(self._offset)
                content = handle.read()
        except OSError:
            return []
        self._offset += len(content)
        *lines, self._partial = (self._partial + content).split(b"\n")
        return [self.add(values) for line in lines if (values := self._values(line))]

    def end(self) -> list[Line]:
        """The last lines, of a program that has ended well: one without a line break too, and those of a file that is
        written at the end. Raises BadMetrics where there is no such file, several, or one without the primary metric's
        name in it."""
        if self.told.file is None:
            return []
        found = self._found()
        if not found:
            raise NoFile(f"{self.told.file}: no such file")
        if len(found) > 1:
            listed = ", ".join(os.path.relpath(path, self._output) for path in found[:5])
            raise BadMetrics(f"{self.told.file}: several files ({listed})")
        lines = self.new()
        if self._kind == "json":
            try:
                content = json.loads(found[0].read_text(encoding="utf-8", errors="replace"))
            except (ValueError, RecursionError, OSError) as error:
                raise BadMetrics(f"{self.told.file} is no JSON ({error})") from None
            if not isinstance(content, dict):
                raise BadMetrics(f"{self.told.file} is no JSON object")
            return [self.add(content)]
        if self._partial and (values := self._values(self._partial)):
            lines.append(self.add(values))
            self._partial = b""
        return lines

    def primary(self) -> float | None:
        """The last value of the primary metric, None where it is not finite. Raises BadMetrics where there is none."""
        name = self.told.primary
        last = self.last
        if name not in last:
            where = self.told.file or "what the function has logged"
            known = ", ".join(sorted(last)[:20]) or "no numbers at all"
            raise BadMetrics(f"{where} has no {name!r}{did_you_mean(name, last)}; it has {known}")
        return last[name]

    @property
    def last(self) -> Line:
        """The last value of each metric, of the whole run."""
        return {**self.before, **self.final}

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
        inside = glob.escape(str(self._output))
        parts = os.path.join(inside, file.replace("{run}", inside))
        return sorted(path for path in map(Path, glob.glob(parts)) if path.is_file())

    def _values(self, content: bytes) -> Mapping[str, Any]:
        """The values of one line; none of a line that is none of metrics."""
        line = content.decode("utf-8", errors="replace").rstrip("\r")
        if self.told.pattern:
            if self.told.file == "{log}" and line.startswith(COMMAND_SHOWN):
                return {}
            shown = line.rpartition("\r")[2]  # of a progress bar what a terminal shows in the end
            match = re.search(self.told.pattern, shown)
            return {name: value for name, value in match.groupdict().items() if value is not None} if match else {}
        if self._kind == "jsonl":
            try:
                values = json.loads(line) if line.strip() else None
            except (ValueError, RecursionError):
                return {}
            return values if isinstance(values, dict) else {}
        try:
            row = next(csv.reader([line]), [])
        except csv.Error:
            return {}
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
        return value if abs(value) < 2**53 else float(value) if abs(value) < 10**300 else math.inf
    if isinstance(value, float):
        return value
    try:
        return float(value) if isinstance(value, str) and value.strip() else None
    except ValueError:
        return None


def predictions(told: MetricsFile, output: Path) -> dict[str, np.ndarray[Any, Any]]:
    """Classes by test image, where the program keeps them. Raises BadMetrics where they are not as they should be."""
    if told.predictions is None:
        return {}
    import numpy as np

    try:
        with np.load(output / told.predictions.replace("{run}", str(output)), allow_pickle=False) as content:
            found = {name: content[name] for name in ("targets", "predictions", "confidence") if name in content}
    except (OSError, ValueError, TypeError, AttributeError, EOFError, zipfile.BadZipFile) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise BadMetrics(f"{told.predictions} cannot be read as an .npz file: {why}") from None
    missing = {"targets", "predictions"} - found.keys()
    if missing:
        raise BadMetrics(f"{told.predictions} has no {' and no '.join(sorted(missing))}")
    whole = all(found[name].dtype.kind in "iu" for name in ("targets", "predictions"))
    if len({array.shape for array in found.values()}) > 1 or found["targets"].ndim != 1 or not whole:
        raise BadMetrics(f"{told.predictions}: targets and predictions are not classes (N,) of the same images")
    kept = {"test_targets": found["targets"], "test_pred_class": found["predictions"]}
    if "confidence" in found:
        if found["confidence"].dtype.kind != "f":
            raise BadMetrics(f"{told.predictions}: confidence is no list of floating-point numbers")
        kept["test_confidence_class"] = found["confidence"].astype(np.float16)
    return kept
