"""The ``deit-ablate`` command: parse, call, print. It decides nothing."""

from deit_ablate.cli.app import app

__all__ = ["app"]
