"""The files of a run of another store, as they are copied by ``import``: checked before the first is."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from deit_ablate import files
from deit_ablate.errors import Damaged

OF_PROGRAMS = ("output", "checkpoint")
"""Folders of an attempt that a program has written."""
MOST_FILES = 10_000
"""Files of one run of another store."""

Copies = list[tuple[Path, Path]]
"""Places, seen from the run's folder, each with the regular file of which the content is."""


def files_of(run: Path) -> Copies:
    """All of a run's files, and those of its attempts. Raises Damaged for what a store has not made: links, and folders
    in folders, but for what a program has written."""
    found: Copies = []
    for path in files.listed(run, MOST_FILES):
        inside = files.listed(path, MOST_FILES) if path.is_dir() and not path.is_symlink() else [path]
        inside = [each for each in inside if not each.name.startswith((files.TEMPORARY, "beat"))]
        for each in inside:
            place = each.relative_to(run)
            if each.name in OF_PROGRAMS and each.is_dir() and not each.is_symlink():
                found += _written(each, place)
            else:
                found.append((place, files.must_be_file(each)))
    return found


def _written(folder: Path, place: Path) -> Copies:
    """The regular files below a folder that a program has written. A link in it is its target, where that is in the
    folder too; Damaged is raised for any other, for one that leads in a circle, and for more than ``MOST_FILES``."""
    root, seen = folder.resolve(), 0

    def below(inside: Path, place: Path, above: tuple[Path, ...]) -> Iterator[tuple[Path, Path]]:
        nonlocal seen
        for path in files.listed(inside, MOST_FILES):
            seen += 1
            if seen > MOST_FILES:  # links in folders that are links may double them again and again
                raise Damaged(folder, f"more than {MOST_FILES:,} entries")
            real = Path(os.path.realpath(path))
            if path.is_symlink() and not (real.is_relative_to(root) and real.exists() and real not in above):
                raise Damaged(path, "a link, which is not followed", expected="one to another place in its folder")
            if real.is_dir():
                yield from below(real, place / path.name, (*above, real))
            elif real.is_file():
                yield place / path.name, real

    return [*below(root, place, (root,))]


def copy_run(found: Copies, folder: Path) -> None:
    for place, path in found:
        target = folder / place
        files.copy_file(path, files.make_folder(target.parent) / target.name)
