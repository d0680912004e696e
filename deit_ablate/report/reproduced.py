"""Whether a run that was trained anew is the one on record: bit for bit, or by where one more seed is expected."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from deit_ablate.report.bundle_texts import LEVEL
from deit_ablate.report.records import arrays
from deit_ablate.report.summary import Summary, summarize
from deit_ablate.store import Store
from deit_ablate.sweep.metrics import Metric


@dataclass(frozen=True)
class Answer:
    """``verdict``: same bits, within the interval, or not reproduced; ``reason`` in words. Values are of the metric;
    what is not known is NaN. ``interval`` is (low, high), from ``seeds`` runs of the row on record."""

    verdict: str
    reason: str
    recorded: float
    now: float
    interval: tuple[float, float]
    seeds: int

    @property
    def reproduced(self) -> bool:
        return self.verdict != NOT

    def words(self) -> str:
        return f"reproduced: {self.verdict} ({self.reason})" if self.reproduced else f"{self.verdict}: {self.reason}"


SAME, WITHIN, NOT = "same bits", "within the interval", "not reproduced"


def prediction_interval(values: Iterable[float], resolution: float = 0.0) -> tuple[float, float]:
    """Where one more value is expected with a probability of LEVEL, if all are of one normal distribution: mean ±
    t(n - 1) sd sqrt(1 + 1/n). NaN for fewer than two values.

    ``resolution`` is the smallest step of a value (one test image): the variance is at least that of its rounding.
    """
    given = list(values)
    n = len(given)
    if n < 2:
        return math.nan, math.nan
    from scipy.special import stdtrit

    mean = math.fsum(given) / n
    variance = max(math.fsum((value - mean) ** 2 for value in given) / (n - 1), resolution**2 / 12)
    half = float(stdtrit(n - 1, (1 + LEVEL) / 2)) * math.sqrt(variance * (1 + 1 / n))
    return mean - half, mean + half


def compare(records: Store, anew: Store, sweep: str, run: str) -> Answer:
    """Compare a run with its record, which is done; both stores have the sweep's plan, and ``anew`` the run's outcome.

    By weights, metrics and predictions first, then by the sweep's metric in the row's prediction interval.
    """
    before, after = records.outcome(run) or {}, anew.outcome(run) or {}
    plan = records.sweeps.plan(sweep) or {}
    row, seed, stage = next(tuple(cell[:3]) for cell in plan["cells"] if cell[3] == run)
    recorded, now = (summarize(store, sweep, stage=stage) for store in (records, anew))
    values = recorded.values[row]
    interval = prediction_interval(values.values(), recorded.resolution)
    value = now.values[row].get(seed, math.nan)
    figures = (values.get(seed, math.nan), value, interval, len(values))
    prints = [(outcome.get("data") or {}).get("fingerprint") for outcome in (before, after)]
    if prints[0] != prints[1]:
        return Answer(NOT, f"the data are others: fingerprint {prints[1]}, recorded {prints[0]}", *figures)
    if after["status"] != before["status"]:
        why = after.get("reason") or f"recorded as {before['status']}"
        return Answer(NOT, f"it {after['status']}, {why}", *figures)
    if same := _same_bits(records, anew, run, before, after):
        return Answer(SAME, same, *figures)
    return _by_interval(recorded, row, figures)


def _same_bits(records: Store, anew: Store, run: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """What is equal, in words; empty where anything is not."""
    weights = [outcome.get("weights_sha256") for outcome in (before, after)]
    if weights[0] != weights[1] or before["metrics"] != after["metrics"]:
        return ""
    ours, theirs = (
        arrays(store, run, outcome) if outcome.get("arrays_sha256") else {}
        for store, outcome in ((anew, after), (records, before))
    )
    if ours.keys() != theirs.keys() or any(ours[name].tobytes() != theirs[name].tobytes() for name in ours):
        return ""
    return ", ".join([*(["weights"] if weights[0] else []), "metrics", *(["predictions"] if ours else [])])


def _by_interval(recorded: Summary, row: str, figures: tuple[float, float, tuple[float, float], int]) -> Answer:
    before, value, (low, high), seeds = figures
    metric = recorded.metric
    said = f"other bits; {metric.words} {_amount(value, metric)}, recorded {_amount(before, metric)}"
    if math.isnan(low):
        return Answer(NOT, f"{said}; {seeds} seed of the row {row!r} on record gives no interval", *figures)
    which = f"the {LEVEL:.0%} prediction interval of the row {row!r} for one more seed (t, from {seeds} seeds)"
    inside = low <= value <= high
    place = f"{'in' if inside else 'outside'} {_amount(low, metric)} to {_amount(high, metric)}"
    return Answer(WITHIN if inside else NOT, f"{said}; {place}, {which}", *figures)


def _amount(value: float, metric: Metric) -> str:
    return f"{value:.{metric.digits}f} {metric.unit}".rstrip().replace(" %", "%")


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What two outcomes were made with where that differs: ``torch 2.11.0 -> 2.12.0``."""
    found = []
    for outcome in (before, after):
        own = outcome.get("provenance") or {}
        hardware = own.get("hardware") or {}
        made = {"deit-ablate": own.get("version"), "python": own.get("python"), **(own.get("packages") or {})}
        made |= {key: hardware.get(key) for key in ("cpu", "gpu", "capability")}
        found.append({**made, "device": (outcome.get("cost") or {}).get("device")})
    pairs = {key: (found[0].get(key), found[1].get(key)) for key in [*found[0], *found[1]]}
    return [f"{key} {old} -> {new}" for key, (old, new) in pairs.items() if old != new]
