"""One comparison, for scripts and agents: a candidate with a baseline, or with a fixed value. Imports pandas.

It is judged as a table of one row is; in a campaign "better" is said at the level that the campaign has for the try.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from deit_ablate.errors import InputError, unknown_name
from deit_ablate.identity import canonical_json
from deit_ablate.report.numbers import read_numbers
from deit_ablate.report.stats.campaign import RATE, Budget, Look, p_better
from deit_ablate.report.stats.exact import mean_interval, rate_words
from deit_ablate.report.stats.moderated import Comparisons
from deit_ablate.report.stats.power import ALPHA
from deit_ablate.report.stats.verdicts import NO_SPREAD, Judged, Rules, equivalence_words, judge, needed_words
from deit_ablate.report.summary import diverged, summarize
from deit_ablate.store import Store
from deit_ablate.store.campaigns import Campaigns
from deit_ablate.sweep.comparisons import Lineages
from deit_ablate.sweep.metrics import Better, Metric

ASSUMED = {
    "runs": "independent runs, normal around the mean of their group; a scatter of each group's own (Welch's test, its "
    "variance raised towards the other's as in a table of one row)",
    "pairs": "independent pairs of runs that share a run or a parent, their differences normal (paired t test)",
    "target": "independent runs, normal around their mean (t test); the target is exact",
}
"""What a verdict takes for granted, by what is compared."""

OTHERWISE = {"looks": "this is one look at all runs", "population": "this is of training noise alone"}
"""What a sweep may declare that one comparison leaves out."""


@dataclass(frozen=True)
class Group:
    """The runs of one side, by seed (of a file: by place)."""

    label: str
    values: Mapping[int, float]
    """Of the runs that have a figure."""
    metric: Metric | None = None
    """None of a file of numbers."""
    margin: float | None = None
    """What the sweep has declared."""
    runs: Mapping[int, str] = field(default_factory=dict)
    """Their ids, also of runs that have no figure; a file has none."""
    parents: Mapping[str, Sequence[str]] = field(default_factory=dict)
    diverged: tuple[int, int] = (0, 0)
    """So many of so many that have ended."""
    images: frozenset[int] = frozenset()
    """Numbers of test images that figures are shares of."""
    notes: tuple[str, ...] = ()
    column: str = ""
    """Of a file: what the numbers are called there."""

    def document(self) -> dict[str, Any]:
        """What a campaign keeps of it: whatever order the runs came in."""
        ordered = sorted(self.values.items(), key=lambda item: (self.runs.get(item[0], ""), item[1]))
        own = [self.runs[seed] for seed, _ in ordered if seed in self.runs]
        return {"label": self.label, "numbers": [number for _, number in ordered], "runs": own}


def of_file(path: Path, column: str | None = None) -> Group:
    """Raises InputError as ``read_numbers`` does."""
    return Group(str(path), dict(enumerate(read_numbers(path, column))), column=column or "")


def of_row(store: Store, sweep: str, row: str) -> Group:
    """A row of a sweep's table, at its final stage. Raises InputError where there is none of this name, NoSweep."""
    summary = summarize(store, sweep)
    plan, metric, rows = summary.plan, summary.metric, summary.runs
    if row not in rows:
        raise unknown_name(f"{sweep} has no row", row, list(rows), where=(f"{sweep}:{row}" if row else sweep, 0, 0))
    notes = (
        f"{sweep} declares `{key}`, and its table judges so: {OTHERWISE[key]}" for key in OTHERWISE if plan.get(key)
    )
    return Group(
        f"{sweep}:{row}",
        summary.values[row],
        metric,
        plan["margin"],
        {cell["seed"]: cell["run"] for cell in rows[row]},
        plan["parents"],
        diverged(rows[row]),
        frozenset(cell["test_images"] for cell in rows[row] if metric.share and cell["test_images"]),
        tuple(notes),
    )


@dataclass(frozen=True)
class Question:
    """A candidate, and what it is compared with: a baseline or a target."""

    candidate: Group
    baseline: Group | None
    target: float | None
    metric: Metric
    margin: float | None

    @classmethod
    def of(
        cls,
        candidate: Group,
        baseline: Group | None = None,
        target: float | None = None,
        margin: float | None = None,
        better: Better | None = None,
    ) -> Question:
        """Raises InputError where sides have different metrics, or nothing says which way is better."""
        known = [group for group in (candidate, baseline) if group is not None and group.metric is not None]
        kinds = {(group.metric.name, group.metric.better): group for group in known if group.metric is not None}
        if len(kinds) > 1:
            told = " and ".join(f"{group.label} has {name}" for (name, _), group in kinds.items())
            raise InputError(f"two metrics: {told}", expected="two groups of one metric")
        metric = known[0].metric if known else None
        if metric is None and better is None:
            expected = "--better higher, or lower"
            raise InputError("nothing says which way the numbers are better", expected=expected)
        if metric is not None and better not in (None, metric.better):
            expected = f"{metric.better!r}, as {metric.name} has, or nothing"
            raise InputError(f"got {better!r}", where=("--better", 0, 0), expected=expected)
        if (
            baseline is not None
            and baseline.runs
            and (baseline.runs, baseline.values) == (candidate.runs, candidate.values)
        ):
            told = f"{baseline.label} and {candidate.label} are the same runs and figures"
            raise InputError(told, expected="two groups")
        declared = next((group.margin for group in known if group.margin is not None), None)
        used = declared if margin is None else margin
        return cls(candidate, baseline, target, metric or Metric(candidate.column, candidate.column, better), used)

    @property
    def paired(self) -> bool:
        """Whether the sides share a run or a parent at each seed, as rows of a table do."""
        if self.baseline is None:
            return False
        sides = {"candidate": self.candidate, "baseline": self.baseline}
        cells = [(name, seed, "", run) for name, side in sides.items() for seed, run in side.runs.items()]
        parents = {**self.candidate.parents, **self.baseline.parents}
        return Lineages(cells, parents, "").paired("candidate", "baseline")

    @property
    def sides(self) -> list[Group]:
        return [side for side in (self.candidate, self.baseline) if side is not None]

    @property
    def inputs(self) -> str:
        """SHA-256 of all that the answer depends on."""
        sides = [{**side.document(), "label": ""} for side in self.sides]
        asked = [self.metric.name, self.metric.better, self.target, self.margin]
        return hashlib.sha256(canonical_json([sides, asked]).encode()).hexdigest()

    @cached_property
    def judged(self) -> Judged:
        """As the one row of a table; with a target as pairs, each run's other one being the target."""
        images = frozenset[int]().union(*(side.images for side in self.sides))
        against = dict.fromkeys(self.candidate.values, self.target or 0.0)
        resolution = 100 / min(images) if len(images) == 1 else 0.0
        if self.baseline is None:
            # Of a pair both figures are rounded, but a target is exact: half of the variance.
            resolution /= math.sqrt(2)
        return judge(
            {"": self.candidate.values},
            self.baseline.values if self.baseline else against,
            Rules(self.margin, better=self.metric.better or "higher"),
            paired=[""] if self.paired or self.baseline is None else [],
            resolution=resolution,
        )

    @property
    def p_better(self) -> float:
        """One-sided, for campaigns; NaN where nothing can be tested."""
        comparisons = Comparisons.with_baseline(1, [0] if self.judged.paired[0] else [])
        found = p_better(self.judged.now, comparisons, self.metric.sign)[0]
        return float(found) if self.judged.now.enough[0] else math.nan


def answer(question: Question, look: Look | None = None) -> dict[str, Any]:
    """The verdict with its evidence, as JSON has it; of a campaign's try at its level."""
    judged, now, sign = question.judged, question.judged.now, question.metric.sign
    difference = float(now.difference[0])
    if look is not None:
        kept = question.p_better <= look.part
        judged = replace(judged, differs=np.array([kept or (bool(judged.differs[0]) and sign * difference < 0)]))
    # What a new look at a campaign's candidate could be decided at is half of what this one had, on one side.
    share = ALPHA / look.part if look is not None and sign * difference > 0 else 1.0
    needed = equivalent = None  # more than are looked for, or not known
    if spread := bool(now.standard_error[0] > 0) and bool(now.enough[0]):
        needed = judged.sides(0).seeds_to_decide(share, difference=difference)
    if spread and question.margin is not None:
        equivalent = judged.sides(0).seeds_to_decide(1, margin=question.margin)
    undecided = needed_words(needed) + ("" if question.margin is None else equivalence_words(equivalent))
    found = judged.effects({"": question.candidate.diverged}, lambda _: undecided if spread else NO_SPREAD)[""]
    words, notes = found.words, [note for side in question.sides for note in side.notes]
    if question.target is not None:
        words = "no run to compare" if found.verdict == "none" else words.replace("pair", "run")
    if question.baseline is not None and question.baseline.diverged[0]:
        notes.append(f"of the baseline {rate_words(*question.baseline.diverged)}")
    declared = question.candidate.margin
    if declared is not None and declared != question.margin:
        notes.append(f"the sweep's declared margin is {declared:g}")
    baseline = question.baseline
    kind = "target" if baseline is None else "pairs" if question.paired else "runs"
    said = {
        "verdict": found.verdict,
        "words": words,
        "candidate": question.candidate.label,
        "baseline": None if baseline is None else baseline.label,
        "target": question.target,
        "metric": question.metric.words or None,
        "better": question.metric.better,
        "unit": question.metric.counted_in or None,
        "margin": question.margin,
        "runs": len(question.candidate.values),
        "baseline_runs": None if baseline is None else len(baseline.values),
        "paired": question.paired,
        "mean": mean_interval(question.candidate.values.values()).mean,
        "baseline_mean": None if baseline is None else mean_interval(baseline.values.values()).mean,
        **{name: getattr(found, name) for name in ("difference", "half_width", "p", "p_equivalent")},
        "seeds_to_decide": needed if found.verdict == "undecided" else None,
        "seeds_for_equivalence": equivalent if found.verdict == "undecided" else None,
        "assumed": ASSUMED[kind],
        "notes": [*notes, *found.notes],
        "campaign": None,
    }
    # JSON has no NaN.
    return {key: None if isinstance(told, float) and not math.isfinite(told) else told for key, told in said.items()}


def answer_in_campaign(campaigns: Campaigns, name: str, question: Question) -> dict[str, Any]:
    """The same as a campaign's next try, which is recorded; the recorded answer where the same was asked before.

    Without a test, for want of runs or of any spread, no try is made. Raises InputError where the campaign has another
    metric, and as ``Campaigns.read`` does.
    """
    while True:
        campaign, p = campaigns.read(name), question.p_better
        for made in campaign.tries:
            if made["inputs"] == question.inputs:
                return made["answer"] | {"campaign": {**made["answer"]["campaign"], "repeated": True}}
        _check_metric(name, campaign.tries, question)
        if math.isnan(p):
            found = answer(question)
            note = f"nothing could be tested: this is no try of the campaign {name}, and spends nothing"
            return found | {"notes": [*found["notes"], note]}
        budget = Budget()
        for made in campaign.tries:
            budget.add(Look(made["candidate"], made["look"], made["level"], made["of_look"]), made["kept"])
        look = budget.next(_known(campaign.tries, question.candidate.document()))
        budget.add(look, kept := p <= look.part)
        state = {
            "try": len(campaign.tries) + 1,
            "candidate": look.candidate,
            "look": look.number,
            "p": p,
            "level": look.part,
            "spent": look.level if look.number == 1 else 0.0,
        }
        standing = {"keep": look.candidate in budget.kept, "kept": len(budget.kept), "candidates": len(budget.levels)}
        found = answer(question, look) | {"campaign": {"name": name, **state, **standing, "repeated": False}}
        content = {
            "inputs": question.inputs,
            "rate": RATE,
            "metric": question.metric.name,
            "better": question.metric.better,
            "candidate": look.candidate,
            "look": look.number,
            "level": look.level,
            "of_look": look.part,
            "p": p,
            "kept": kept,
            "sides": [side.document() for side in question.sides],
            "answer": found,
        }
        if campaigns.record(campaign, content):
            return found


def _check_metric(name: str, tries: Sequence[Mapping[str, Any]], question: Question) -> None:
    """Raises InputError."""
    now = question.metric.name, question.metric.better
    if tries and (before := (tries[0]["metric"], tries[0]["better"])) != now:
        told = [f"{metric or 'numbers without a name'} ({better} is better)" for metric, better in (before, now)]
        problem = f"the campaign {name} is of {told[0]}, and this is of {told[1]}"
        raise InputError(problem, where=("--campaign", 0, 0), expected="one metric a campaign")


def _known(tries: Sequence[Mapping[str, Any]], candidate: Mapping[str, Any]) -> int | None:
    """The number of a candidate that was tried before: one that shares a run; of files, one all of whose numbers are
    here, or that has all of these."""
    for made in tries:
        before = made["sides"][0]
        if before["runs"] and candidate["runs"]:
            same = not set(before["runs"]).isdisjoint(candidate["runs"])
        else:
            old, new = Counter(before["numbers"]), Counter(candidate["numbers"])
            same = old <= new or new <= old
        if same:
            return int(made["candidate"])
    return None
