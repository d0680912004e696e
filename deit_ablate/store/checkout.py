"""The checkout that this code runs from, for records and for the snapshots that jobs run."""

from __future__ import annotations

import functools
import json
import subprocess
from pathlib import Path
from typing import Any


@functools.cache
def checkout() -> dict[str, Any] | None:
    """Commit and uncommitted changes of the checkout, or None where the package is installed. Of a snapshot that was
    made for a job, what was known when it was made."""
    here = Path(__file__).resolve().parent.parent  # the package
    about = here.parent / "about.json"
    if about.is_file():
        copied: dict[str, Any] = json.loads(about.read_bytes())
        return copied
    return checkout_of(here, "__init__.py")


@functools.cache
def checkout_of(folder: Path, known: str = ".") -> dict[str, Any] | None:
    """The same of a folder of one's own code; None where git does not know ``known`` in it. The commit is the last that
    changed the folder: later ones, of documents or results, make its runs no other runs."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=True,
            timeout=20,
        ).stdout

    try:
        if not git("ls-files", "--", known).strip():
            return None
        diff = git("diff", "HEAD", "--", str(folder))
        commit = git("log", "-1", "--format=%H", "--", ".").strip()
        return {"commit": commit, "dirty": bool(diff), "diff": diff[:100_000]}
    except (OSError, subprocess.SubprocessError):
        return None
