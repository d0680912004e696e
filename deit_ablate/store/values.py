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
