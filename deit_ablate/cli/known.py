"""The sweep of a store that a user names."""

from __future__ import annotations

from pathlib import Path

from deit_ablate.errors import InputError, did_you_mean
from deit_ablate.store import Store


def known_sweep(store: Store, sweep: str) -> str:
    """The name under the results folder: as given, or that of a sweep file's folder. Raises InputError."""
    name = Path(sweep).stem if sweep.endswith((".yaml", ".yml")) else sweep
    names = store.sweeps()
    if name not in names:
        raise InputError(
            f"no sweep {sweep!r} in {store.root}{did_you_mean(name, names)}",
            expected="one of " + ", ".join(names) if names else "a sweep that was run",
        )
    return name
