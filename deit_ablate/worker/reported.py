"""What a program reports: the metrics in the file that it writes, read as it grows."""

from __future__ import annotations

import csv
import glob
import itertools
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from deit_ablate import files
from deit_ablate.errors import Damaged, did_you_mean
from deit_ablate.execution import MetricsFile

COMMAND_SHOWN = "$ "
"""Begins the line of a log that shows the command."""
MOST_METRICS, MOST_DEPTH, MOST_NAME = 10_000, 20, 200
"""Of one line: metrics, levels of names within names, and characters of a name. What is beyond is left out."""
MOST_LINE = 1 << 24
"""Bytes of a line: what has more is no line of metrics."""
_CHUNK = 1 << 20
_TAIL = 64
"""Bytes before the place that was read up to, by which a file that is written anew is known."""
ARRAYS = ("targets", "predictions", "confidence")
"""What is read of a program's predictions."""

Line = dict[str, float | int | None]


def own_epoch(line: Line) -> float | None:
    """The epoch of a line by the program's own count, where it has one: 2.5 is half way through the third."""
    own = line.get("epoch")
    return own if own is not None and 0 <= own < 2**53 else None


def first_epoch(lines: Iterable[Line]) -> float | None:
    """The first epoch that lines say; None where they say none."""
    return next((own for line in lines if (own := own_epoch(line)) is not None), None)


def before_epoch(history: Sequence[dict[str, Any]], epoch: float | None) -> list[dict[str, Any]]:
    """What a program that goes on at this epoch leaves of an earlier history: all to the last line of an epoch before
    it. Nothing where no epoch is said: then it has begun anew."""
    epochs = [own_epoch(line.get("metrics") or {}) for line in history]
    kept = (at for at, own in enumerate(epochs, start=1) if own is not None and epoch is not None and own < epoch)
    return [*history[: max(kept, default=0)]]


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
        self._begin()

    def _begin(self) -> None:
        self.lines, self.final, self.before = 0, {}, {}
        self._offset, self._partial, self._tail, self._columns = 0, b"", b"", list[str]()
        self._too_long = False

    def add(self, values: Mapping[str, Any]) -> Line:
        """Take one line of values; returns its numbers."""
        line = dict(itertools.islice(_numbers(values), MOST_METRICS))
        self.final |= line
        self.lines += 1
        return line

    def new(self) -> list[Line]:
        """The lines that have been completed since the last call; none of a file that is not there (yet)."""
        found = self._found()
        if len(found) != 1 or self._kind == "json":
            return []
        made: list[Line] = []
        try:
            with found[0].open("rb") as handle:
                if self._is_another(handle.fileno()):
                    self._begin()
                    self.anew = True
                handle.seek(self._offset)
                while content := handle.read(_CHUNK):
                    self._take(content, made)
        except OSError:
            pass  # what has been read counts; the rest is read at the next call
        return made

    def _is_another(self, handle: int) -> bool:
        """Whether what was read before is no longer there. A file that is written again and again with the same
        beginning (a table with one more line) has only grown."""
        before = os.pread(handle, len(self._tail), self._offset - len(self._tail))
        return os.fstat(handle).st_size < self._offset or self._tail != before

    def _take(self, content: bytes, made: list[Line]) -> None:
        self._offset += len(content)
        self._tail = (self._tail + content)[-_TAIL:]
        *lines, self._partial = (self._partial + content).split(b"\n")
        for line in lines:
            if self._too_long:
                self._too_long = False  # the end of that line
            elif values := self._values(line):
                made.append(self.add(values))
        if len(self._partial) > MOST_LINE:
            self._partial, self._too_long = b"", True

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
            return [self.add(self._object(found[0]))]
        if self._partial and not self._too_long and (values := self._values(self._partial)):
            lines.append(self.add(values))
            self._partial = b""
        return lines

    def _object(self, path: Path) -> Mapping[str, Any]:
        """A file of one JSON object. Raises BadMetrics."""
        try:
            content = json.loads((files.read_regular(path) or b"").decode("utf-8-sig", errors="replace"))
        except (Damaged, ValueError, RecursionError) as error:
            why = error.why if isinstance(error, Damaged) else f"no JSON ({error})"
            raise BadMetrics(f"{self.told.file} is {why}") from None
        if not isinstance(content, dict):
            raise BadMetrics(f"{self.told.file} is no JSON object")
        return content

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
        line = content.decode("utf-8", errors="replace").removeprefix("\ufeff").rstrip("\r")
        if not line.strip():
            return {}
        if self.told.pattern:
            if self.told.file == "{log}" and line.startswith(COMMAND_SHOWN):
                return {}
            shown = line.rpartition("\r")[2]  # of a progress bar what a terminal shows in the end
            match = re.search(self.told.pattern, shown)
            return {name: value for name, value in match.groupdict().items() if value is not None} if match else {}
        if self._kind == "jsonl":
            try:
                values = json.loads(line)
            except (ValueError, RecursionError):
                return {}
            return values if isinstance(values, dict) else {}
        try:
            row = [value.strip() for value in next(csv.reader([line], skipinitialspace=True), [])]
        except csv.Error:
            return {}
        if not self._columns:
            self._columns = row
            return {}
        return {} if row == self._columns else dict(zip(self._columns, row, strict=False))


def _numbers(values: Mapping[str, Any], above: str = "", depth: int = 1) -> Iterator[tuple[str, float | int | None]]:
    """(name, number) pairs, dotted where they are nested; texts that are numbers count, all else is left out."""
    for key, value in values.items():
        name = f"{above}{key}".encode("utf-8", "replace").decode()  # half a surrogate pair could not be written
        if isinstance(value, Mapping):
            if depth < MOST_DEPTH:
                yield from _numbers(value, f"{name}.", depth + 1)
        elif len(name) <= MOST_NAME and (number := _number(value)) is not None:
            yield name, number if math.isfinite(number) else None


def _number(value: Any) -> float | int | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int) and abs(value) < 2**53:
        return value
    try:
        if isinstance(value, (int, float)):
            return float(value)
        return float(value) if isinstance(value, str) and value.strip() else None
    except OverflowError:
        return math.inf
    except ValueError:
        return None


def predictions(told: MetricsFile, output: Path) -> dict[str, Any]:
    """Classes by test image, where the program keeps them. Raises BadMetrics where they are not as they should be."""
    if told.predictions is None:
        return {}
    import numpy as np

    path = output / told.predictions.replace("{run}", str(output))
    try:
        found = files.read_arrays(path, files.sha256(path) if path.is_file() else None, ARRAYS)
    except (Damaged, OSError) as error:
        why = error.why if isinstance(error, Damaged) else error.strerror
        raise BadMetrics(f"{told.predictions} cannot be read as an .npz file: {why}") from None
    if found is None:
        raise BadMetrics(f"{told.predictions} cannot be read as an .npz file: No such file or directory")
    missing = {"targets", "predictions"} - found.keys()
    if missing:
        raise BadMetrics(f"{told.predictions} has no {' and no '.join(sorted(missing))}")
    sizes = {array.shape for array in found.values()}
    classes = [found[name] for name in ("targets", "predictions")]
    whole = all(each.dtype.kind in "iu" and each.size and 0 <= each.min() <= each.max() < 2**31 for each in classes)
    if len(sizes) > 1 or not whole:
        raise BadMetrics(f"{told.predictions}: targets and predictions are not classes (N,) of the same images")
    kept = {"test_targets": classes[0].astype(np.int32), "test_pred_class": classes[1].astype(np.int32)}
    if "confidence" in found:
        if found["confidence"].dtype.kind != "f":
            raise BadMetrics(f"{told.predictions}: confidence is no list of floating-point numbers")
        kept["test_confidence_class"] = found["confidence"].astype(np.float16)
    return kept
