"""Campaigns: tries that are judged within one error budget, ``campaigns/<name>/<n>.json``, each written once.

A file names its predecessor by content, so that no try can be changed, left out or moved afterwards without notice
(but for the last ones, of which nobody would know).
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from deit_ablate import files
from deit_ablate.errors import Damaged, InputError
from deit_ablate.store.schema import SCHEMA, Better, Count, File, Number, RunId, checked
from deit_ablate.store.store import Store
from deit_ablate.sweep.fields import is_stem

Share = Annotated[float, Field(ge=0, le=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Side(File):
    label: str
    numbers: list[Annotated[float, Field(allow_inf_nan=False)]]
    runs: list[RunId]


class Standing(File):
    """Where a campaign stands after a try."""

    name: str
    try_: Number = Field(alias="try")
    candidate: Number
    look: Number
    p: Share
    level: Share
    spent: Share
    keep: bool
    kept: Count
    candidates: Number
    repeated: bool


class Answer(File):
    """What ``judge`` says; docs/guide/judge.md has the meaning of each key."""

    verdict: str
    words: str
    candidate: str
    baseline: str | None
    target: float | None
    metric: str | None
    better: Better
    unit: str | None
    margin: float | None
    runs: Count
    baseline_runs: Count | None
    paired: bool
    mean: float
    baseline_mean: float | None
    difference: float
    half_width: float
    p: float
    p_equivalent: float | None
    seeds_to_decide: Count | None
    seeds_for_equivalence: Count | None
    assumed: str
    notes: list[str]
    campaign: Standing


class Try(File):
    """One judged comparison of a campaign."""

    number: Number
    previous: Sha256 | None
    inputs: Sha256
    rate: Share
    metric: str
    better: Better
    candidate: Number
    look: Number
    level: Share
    of_look: Share
    p: Share
    kept: bool
    sides: Annotated[list[Side], Field(min_length=1, max_length=2)]
    answer: Answer


@dataclass(frozen=True)
class Campaign:
    """A campaign's tries so far, in order."""

    name: str
    tries: list[dict[str, Any]]
    last: str | None
    """SHA-256 of the last one's file."""


class Campaigns:
    """The campaigns of a store."""

    def __init__(self, store: Store) -> None:
        self._root = store.root / "campaigns"

    def read(self, name: str) -> Campaign:
        """Raises InputError for what is no name, Damaged for a file that is not as it was written, or is missing."""
        if not is_stem(name):
            expected = "letters, digits, '.', '_' and '-', beginning with a letter or digit"
            raise InputError(f"got {name!r}", where="--campaign", expected=expected)
        folder, tries, last = self._root / name, list[dict[str, Any]](), None
        # Listed first: a try that is added meanwhile is none of these.
        listed = [int(path.stem) for path in folder.glob("[0-9]*.json") if path.stem.isdigit()]
        for number in range(1, max(listed, default=0) + 1):
            path = folder / f"{number}.json"
            content = files.read_regular(path)
            if content is None:
                raise Damaged(path, "missing, and there are later tries")
            found = checked(path, files.parse_json(path, content), Try)
            if found["number"] != number or found["previous"] != last:
                raise Damaged(path, "not written after the tries before it: one of them was changed, moved or left out")
            if found["kept"] != (found["p"] <= found["of_look"]):
                raise Damaged(path, "its p and its level do not say whether it was kept")
            tries, last = [*tries, found], hashlib.sha256(content).hexdigest()
        return Campaign(name, tries, last)

    def record(self, campaign: Campaign, content: Mapping[str, Any]) -> bool:
        """Add a try to what was read; False where another process has taken its number."""
        folder, number = files.make_folder(self._root / campaign.name), len(campaign.tries) + 1
        own = {"schema": SCHEMA, "number": number, "previous": campaign.last, "time": time.time()}
        return files.publish(folder / f"{number}.json", files.to_json({**own, **content}))
