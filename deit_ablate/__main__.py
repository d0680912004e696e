"""``deit-ablate`` and ``python -m deit_ablate``."""

from __future__ import annotations

import sys


def main() -> None:
    try:
        from deit_ablate.cli import app

        app()
    except KeyboardInterrupt:  # before the command has begun
        print("interrupted before anything was begun", file=sys.stderr)
        raise SystemExit(130) from None


if __name__ == "__main__":
    if not getattr(sys.flags, "safe_path", False):
        sys.path.pop(0)  # `python -m` looks into the current folder first: a sweep's neighbour may be called html.py
    main()
