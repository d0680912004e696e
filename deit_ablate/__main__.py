"""``deit-ablate`` and ``python -m deit_ablate``."""

from __future__ import annotations


def main() -> None:
    from deit_ablate.cli import app

    app()


if __name__ == "__main__":
    main()
