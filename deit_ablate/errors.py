"""The errors that users see: in what they wrote, and in what only the trainer can check."""

from __future__ import annotations

import contextlib
import difflib
import io
import os
import sys
from collections.abc import Iterable, Iterator, Sequence

Position = tuple[str, int, int]


class InputError(Exception):
    """Something a user wrote is wrong. Printed as one message; the command exits with code 2.

    ``where`` is (file, line, column), lines and columns from 1; or a name by itself, of a whole file or an option.
    """

    def __init__(self, problem: str, *, where: Position | str | None = None, key: str = "", expected: str = ""):
        self.where: Position | None = (where, 0, 0) if isinstance(where, str) else where
        self.problem, self.key, self.expected = problem, key, expected
        super().__init__(str(self))

    @property
    def place(self) -> str:
        """``where`` in words; an empty text where it is not known."""
        file, line, column = self.where or ("", 0, 0)
        return f"{file}:{line}:{column}" if line else file

    def under(self, prefix: str) -> InputError:
        """The same error, its key below ``prefix``."""
        return InputError(self.problem, where=self.where, key=prefix + self.key, expected=self.expected)

    def __str__(self) -> str:
        parts = [self.place] if self.where else []
        if self.key:
            parts.append(self.key)
        text = ": ".join([*parts, self.problem])
        return f"{text}; expected {self.expected}" if self.expected else text


class InputErrors(InputError):
    """Several of them, found at once: ``errors``. Where one is asked for, it is the first; in words, a line each."""

    def __init__(self, errors: Sequence[InputError]):
        self.errors = tuple(errors)
        first = self.errors[0]
        super().__init__(first.problem, where=first.where, key=first.key, expected=first.expected)

    def __str__(self) -> str:
        return "\n".join(map(str, self.errors))


class Problems:
    """Collects what is wrong at several places that do not depend on one another, to raise it at once.

    ``with problems.at(): ...`` for each place (or ``problems.add(error)``), then ``problems.refuse()``.
    """

    def __init__(self) -> None:
        self.found: dict[object, InputError] = {}
        """By place and problem: two layers may share a node."""

    @contextlib.contextmanager
    def at(self) -> Iterator[None]:
        try:
            yield
        except InputError as error:
            self.add(error)

    def add(self, error: InputError) -> None:
        for each in error.errors if isinstance(error, InputErrors) else (error,):
            self.found.setdefault((each.where, each.problem), each)

    def refuse(self) -> None:
        """Raises InputError for what was found: as it is where that is one, else all of it, in the file's order."""
        errors = sorted(self.found.values(), key=lambda error: error.where or ("", 0, 0))
        if errors:
            raise errors[0] if len(errors) == 1 else InputErrors(errors)


class Damaged(InputError):
    """A file that a store cannot have written so, or that is not where it belongs: ``path``, and ``why`` in words."""

    def __init__(self, path: os.PathLike[str] | str, why: str, line: int = 0, *, expected: str = ""):
        self.path, self.why = os.fspath(path), why
        super().__init__(f"damaged: {why}", where=(self.path, line, 1), expected=expected)


def unknown_name(
    problem: str, name: str, known: Sequence[str], *, where: Position | str | None = None, key: str = ""
) -> InputError:
    """``no row 'smal'; did you mean 'small'?; expected one of ...`` (the first 20), for the problem "no row"."""
    listed = ", ".join(known[:20]) + ", ..." * (len(known) > 20)
    hint = did_you_mean(name, known)
    return InputError(f"{problem} {name!r}{hint}", where=where, key=key, expected=f"one of {listed}" if known else "")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the nearest known name, or an empty string."""
    near = nearest(name, known)
    return f"; did you mean {near!r}?" if near else ""


def counted(number: int, noun: str) -> str:
    """A number of things in words: 1 run, 2 runs."""
    return f"{number} {noun}{'s' * (number != 1)}"


def few(names: Sequence[str], most: int = 5, more: str = "more", separator: str = ", ") -> str:
    """The first names, and how many there are besides: ``a, b and 3 more``."""
    left = len(names) - most
    return separator.join(names[:most]) + (f" and {left} {more}" if left > 0 else "")


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that looks most like this one, or None."""
    return next(iter(difflib.get_close_matches(name, list(known), n=1, cutoff=0.55)), None)


class TrainError(ValueError):
    """The recipe, the data or the machine does not allow this training; the message says what to change."""


class DataError(TrainError):
    """The data set does not allow any training: a missing folder, damaged files, other data than before."""


class StoreGone(Exception):
    """The results folder has been removed or renamed while its runs were going; the command exits with code 1."""


def print_anything() -> None:
    """What the encoding of this process's output does not have is a question mark there from now on, and no error."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
