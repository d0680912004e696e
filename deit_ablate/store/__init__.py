"""The run store: the only place that knows the names under ``results/``.

A run's folder holds its recipe, one folder an attempt, and at the end an outcome. Claims are hard links,
states are a pure function of files, and every file has one writer. An attempt may
be claimed when the one before it is closed, or its owner provably gone; then look again.
"""

from deit_ablate.store.attempt import RESUMABLE, Attempt, Overtaken, Refused, State
from deit_ablate.store.schema import SCHEMA
from deit_ablate.store.store import Store

__all__ = ["RESUMABLE", "SCHEMA", "Attempt", "Overtaken", "Refused", "State", "Store"]
