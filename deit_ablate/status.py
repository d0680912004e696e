"""The store's states, corrected by what can be known of the processes behind them."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from deit_ablate import owner
from deit_ablate.store import State, Store

STALE_AFTER = 300.0
"""Seconds without a beat after which a running run is shown as stale; shown only, it proves nothing."""


def states(store: Store, parents: Mapping[str, Sequence[str]]) -> dict[str, State]:
    """The state of each run. An attempt whose process is provably gone shows as what closing it would make it."""
    found = store.states(parents)
    return {run: corrected(store, run, state) for run, state in found.items()}


def corrected(store: Store, run: str, state: State) -> State:
    if state.name != "running":
        return state
    attempt = store.attempts(run)[-1]
    if owner.provably_gone(attempt.owner):
        return replace(state, name="resumable", detail="interrupted")
    beat = attempt.read_beat()
    if beat is not None and time.time() - beat["time"] > STALE_AFTER:
        return replace(state, detail="stale")
    return state


def close_if_gone(store: Store, run: str, how: str = "interrupted", message: str = "") -> bool:
    """Close a run's last attempt where its owner is provably gone; True where it is closed now."""
    attempts = store.attempts(run)
    if not attempts or attempts[-1].exit is not None:
        return bool(attempts)
    if not owner.provably_gone(attempts[-1].owner):
        return False
    attempts[-1].close(how, message or "its process was found gone")
    return True


def runs_here(store: Store, run: str) -> bool:
    """Whether the attempt that is under way runs on this machine, and so takes one of its slots."""
    attempts = store.attempts(run)
    return bool(attempts) and attempts[-1].exit is None and owner.same_place(attempts[-1].owner)
