"""Where ``sweeps/`` and ``analysis/`` lie: inside the installed package, or beside it in a checkout."""

from __future__ import annotations

from pathlib import Path


def folder(name: str) -> Path:
    """The shipped folder called ``name`` (sweeps or analysis)."""
    package = Path(__file__).parent
    inside = package / "shipped" / name
    return inside if inside.is_dir() else package.parent / name
