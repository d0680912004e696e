"""A sweep in numbers: one row a variant, from which tables and figures both draw. Imports pandas."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from deit_ablate.report.frame import COLUMNS, final_stage, load, read_plan, rows
from deit_ablate.report.stats import mean_interval, paired_difference
from deit_ablate.store import Store

STATISTICS: dict[str, str] = {
    "variant": "the row of the ablation",
    "baseline": "whether differences are taken from this row",
    "shows": "the figure shown: class, distillation, ema, or empty for the raw weights with heads fused",
    "differs_in": "how the recipe differs from the baseline's",
    "top1_mean": "mean test top-1 in percent over the seeds that are done",
    "top1_half_width": "half-width of its 95% t interval, in points",
    "difference": "mean difference from the baseline in points, paired by seed",
    "difference_half_width": "half-width of its 95% t interval, in points",
    "pairs": "seeds at which both the row and the baseline are done",
    "train_seconds": "mean seconds of training of a run that is done",
    "seeds": "runs that are done and show the figure",
    "seeds_planned": "runs planned",
    "diverged": "runs that diverged: in no mean",
}
"""Name -> meaning of ``Summary.frame``'s columns: one statistic each."""


@dataclass(frozen=True)
class Summary:
    """A sweep's plan, its records (``frame.load``), and one row a variant with the columns of STATISTICS."""

    plan: Mapping[str, Any]
    records: pd.DataFrame
    frame: pd.DataFrame

    @property
    def final(self) -> list[dict[str, Any]]:
        """The records of the final stage, in the plan's order."""
        return rows(self.records.loc[self.records["stage"] == final_stage(self.plan), list(COLUMNS)])


def summarize(results: Path | str, sweep: str) -> Summary:
    """Read a sweep's records and average them over seeds. Raises NoSweep."""
    plan, records = read_plan(Store(results), sweep), load(results, sweep)
    summary = Summary(plan, records, pd.DataFrame())
    runs: dict[str, list[dict[str, Any]]] = {row["name"]: [] for row in plan["variants"]}
    for record in summary.final:
        runs[record["variant"]].append(record)
    baseline = _by_seed(runs.get(plan["baseline"] or "", []))
    statistics = []
    for row in plan["variants"]:
        own = runs[row["name"]]
        values = _by_seed(own)
        mean = mean_interval(values.values())
        is_baseline = row["name"] == plan["baseline"]
        change = paired_difference({} if is_baseline else values, baseline)
        seconds = mean_interval(record["train_seconds"] for record in own if record["state"] == "done")
        statistics.append(
            {
                "variant": row["name"],
                "baseline": is_baseline,
                "shows": row["shows"] or "",
                "differs_in": differs_in(row["differs"]),
                "top1_mean": mean.mean,
                "top1_half_width": mean.half_width,
                "difference": change.mean,
                "difference_half_width": change.half_width,
                "pairs": change.n,
                "train_seconds": seconds.mean,
                "seeds": mean.n,
                "seeds_planned": len(own),
                "diverged": sum(record["state"] == "diverged" for record in own),
            }
        )
    return replace(summary, frame=pd.DataFrame(statistics, columns=list(STATISTICS)))


def differs_in(differs: Mapping[str, Sequence[Any]]) -> str:
    """Dotted key -> (baseline's value, own value), in few words: ``optimizer: adamw → sgd; base_lr 0.03 → 0.8``.

    A block is named once, where it begins; ``none`` is a value that is null or that the other has no place for.
    """
    words, last = [], ""
    for key, (before, after) in differs.items():
        block, _, field = key.rpartition(".") if key.count(".") < 2 else key.partition(".")
        field = field.removeprefix("options.")
        if field == "name":
            name = f"{block}:"
        else:
            name = field if block == last or not block else f"{block}.{field}"
        last = block
        words.append(f"{name} {_value(before)} → {_value(after)}")
    return "; ".join(words)


def _value(value: Any) -> str:
    if value is None or value == {}:
        return "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return str(value)


def _by_seed(records: Sequence[Mapping[str, Any]]) -> dict[int, float]:
    """Seed -> top-1 of the runs that are done and have one."""
    return {record["seed"]: record["top1"] for record in records if not math.isnan(record["top1"])}
