"""``deit-ablate`` and ``python -m deit_ablate``."""

from __future__ import annotations

import sys


def main() -> None:
    from deit_ablate.cli import app

    app()


if __name__ == "__main__":
    if not getattr(sys.flags, "safe_path", False):
        sys.path.pop(0)  # `python -m` looks into the current folder first: a sweep's neighbour may be called html.py
    main()
