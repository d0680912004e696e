"""Which data an id stands for: the first result, trained here or imported, pins their fingerprint (results/data/)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deit_ablate.errors import Damaged, DataError
from deit_ablate.store.store import Store

_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._:-]{0,199}")

Facts = Mapping[str, Any]


class OtherData(DataError):
    """Data that are not those of the finished runs that have used this id."""

    def __init__(self, data_id: str, whose: str = "the finished runs in this store") -> None:
        super().__init__(f"the data called {data_id!r} are not those of {whose}")


def id_of(recipe: Facts) -> str | None:
    """The id under which a recipe's data are pinned; None for a program's, which has no data."""
    data = recipe.get("data")
    found = (data.get("id") or data.get("name")) if isinstance(data, dict) else None
    return None if found is None else str(found)


def same(one: Facts, other: Facts) -> bool:
    """Whether these are facts of the same data: earlier versions pinned what is now called the listing."""
    first, second = one["fingerprint"], other["fingerprint"]
    return first == second or first == other.get("listing") or second == one.get("listing")


def find(store: Store, data_id: str, facts: Facts) -> dict[str, Any] | None:
    """What is pinned of these data. None where nothing is, or other data that no finished run has used: such a pin may
    be replaced. Raises OtherData where one has."""
    pinned = store.data_facts(data_id)
    if pinned is None or same(pinned, facts):
        return pinned
    if _used(store, data_id, pinned):
        raise OtherData(data_id)
    return None


def _used(store: Store, data_id: str, pinned: Facts) -> bool:
    """Whether a finished run has used these data, as far as its record tells."""
    for run in store.runs():
        if data_id == id_of((store.sound_recipe(run) or {"recipe": {}})["recipe"]) and (outcome := store.result(run)):
            used = outcome.get("data")
            if used is None or same(used, pinned):
                return True
    return False


def pin(store: Store, data_id: str, facts: Facts) -> None:
    """Pin data of which there is a result now. Raises OtherData as ``find`` does."""
    pinned = find(store, data_id, facts)
    if pinned is None or ("classes" in facts and "classes" not in pinned):  # which an imported record does not name
        store.unpin_data(data_id)
        store.pin_data(data_id, facts)


def collect(path: Path, recipe: Facts, outcome: Facts, found: dict[str, Facts]) -> None:
    """Add what a finished run's record says of its data to what others of the same import say, by id.

    Raises OtherData where these are others, and Damaged for an id that cannot name a file.
    """
    name, facts = id_of(recipe), outcome.get("data")
    if name is None or facts is None:
        return
    if not _ID.fullmatch(name):
        raise Damaged(path, f"data.id: {name[:200]!r} cannot name a file")
    if not same(found.setdefault(name, facts), facts):
        raise OtherData(name, "other runs in it")


def pin_all(store: Store, found: Mapping[str, Facts]) -> None:
    """Pin what an import brings; nothing where one of these raises OtherData."""
    for step in (find, pin):
        for data_id, facts in found.items():
            step(store, data_id, facts)
