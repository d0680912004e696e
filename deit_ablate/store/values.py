"""The kinds of values that the files of a store hold."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field

Count = Annotated[int, Field(ge=0, lt=2**53)]
Number = Annotated[int, Field(ge=1, lt=10**9)]
Amount = Annotated[float, Field(ge=0, le=1e15, allow_inf_nan=False)]
"""Seconds, a point in time, or a rate."""
RunId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


LEAST = {"images": 0, "classes": 1}
"""Scores that are counts, with the least that they may be."""


def _sound_scores(scores: dict[str, Any]) -> dict[str, Any]:
    """A loss may be any number, for that is how a run diverges; a share of images may not."""
    for name, value in scores.items():
        if value is None:
            continue
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (whole or isinstance(value, float)) or (whole and abs(value) >= 2**53):
            raise ValueError(f"{name} is no number of this kind")
        if name.startswith("top") and not 0 <= value <= 100:
            raise ValueError(f"{name} is no percentage")
        if name in LEAST and not (whole and value >= LEAST[name]):
            raise ValueError(f"{name} is no count")
    return scores


Scores = Annotated[dict[str, Any], AfterValidator(_sound_scores)]
"""Of one split: images, loss, and top1 and its like in percent."""

Reported = dict[str, float | int | None]
"""Metrics by the names that a program gives them; None for one that is not finite."""


def _sound_cells(cells: list[Any]) -> list[Any]:
    for cell in cells:
        variant, seed, stage, run = cell
        texts = isinstance(variant, str) and isinstance(stage, str) and isinstance(run, str)
        if not (texts and type(seed) is int and 0 <= seed < 2**53 and len(run) == 16 and run.isalnum()):
            raise ValueError(f"{cell!r} is no variant, seed, stage and run")
    return cells


Cells = Annotated[list[Annotated[list[Any], Field(min_length=4, max_length=4)]], AfterValidator(_sound_cells)]
"""The places of runs: variant, seed, stage, run."""
