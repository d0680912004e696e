"""A sweep in numbers: one row a variant, from which tables and figures both draw. Imports pandas."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd

from deit_ablate.report.frame import COLUMNS, Records, curves, final_stage, read_plan, recipes, records, rows
from deit_ablate.report.metrics import value
from deit_ablate.report.per_image import Row, population
from deit_ablate.report.stats import verdicts
from deit_ablate.report.stats.exact import mean_interval
from deit_ablate.report.stats.population import Population
from deit_ablate.report.stats.sequential import Schedule, Sequential, sequential
from deit_ablate.report.stats.verdicts import Effect, Rules, judge, untested
from deit_ablate.store import Store
from deit_ablate.sweep.comparisons import Lineages
from deit_ablate.sweep.confounds import RECORDED, Undeclared, recorded_undeclared, value_words
from deit_ablate.sweep.designs import Design
from deit_ablate.sweep.labels import labels_of, rows_of, words
from deit_ablate.sweep.metrics import OF_PROGRAMS, TOP1, Metric, planned_metrics

STATISTICS: dict[str, str] = {
    "variant": "the row of the ablation",
    "label": "what tables and figures call it, as the sweep's `labels` say",
    "group": "the heading under which it stands, as the sweep's `groups` say",
    "baseline": "whether differences are taken from this row",
    "shows": "the figure shown: class, distillation, ema, or empty for the raw weights with heads fused",
    "differs_in": "how the recipe differs from the baseline's; in a cumulative sweep from that of the row before",
    "leaks": "what else differs from the baseline, beside what the row declares",
    "top1_mean": "mean test top-1 in percent over the seeds that are done",
    "top1_half_width": "half-width of its 95% t interval, in points",
    "difference": "difference of the means from the baseline, in {points}",
    "difference_half_width": (
        "half-width of its 95% interval, in {points}: moderated variances, of this row alone; of training noise, or "
        "for new images where the sweep says `population: true`, as p and verdict are"
    ),
    "difference_half_width_all": "the same for all rows of the table at once (Bonferroni)",
    "image_standard_error": "what the finite test set alone adds to the difference, training noise removed",
    "difference_half_width_new_images": "half-width of the difference's 95% interval for new images of this kind",
    "p": "p of no difference, by the t test with moderated variances",
    "p_holm": "the same, adjusted over the table's rows by Holm",
    "p_equivalent_holm": "p of a difference of the margin or more (TOST), adjusted by Holm",
    "p_plain": "p of Welch's t test (of the paired one, where paired), which borrows no variance; unadjusted",
    "paired": "whether the row shares a run or a parent with the baseline at each seed, and is compared by pairs",
    "runs_compared": "runs of the row that the difference is from; pairs, where paired",
    "baseline_runs_compared": "runs of the baseline that it is from",
    "step": "difference of the means from the row before, in {points}; only of a cumulative sweep",
    "step_half_width": "half-width of its 95% interval, in {points}, moderated as the differences are",
    "verdict": (
        "better, worse, better_small, worse_small, equivalent, undecided, too_few, one_seed, did_not_train, no_effect, "
        "no_predictions or none"
    ),
    "verdict_words": "the verdict in words",
    "train_seconds": "mean seconds of training of a run that is done",
    "hours": "GPU-hours of all the row's runs of this stage, CPU-hours where they ran on a CPU",
    "seeds": "runs that are done and show the figure",
    "seeds_planned": "runs planned",
    "diverged": "runs that diverged: in no mean",
}
"""Name -> meaning of ``Summary.frame``'s columns: one statistic each. Those of other metrics follow (``meanings``);
``{points}`` is what the metric's differences are counted in."""


def meanings(metrics: Sequence[Metric]) -> dict[str, str]:
    """Name -> meaning of the columns of a summary's frame, whose verdicts are of the first metric."""
    points = metrics[0].counted_in or "its unit"
    found = {name: meaning.format(points=points) for name, meaning in STATISTICS.items()}
    for metric in metrics:
        if metric.name != TOP1.name:
            found[metric.mean] = f"mean {metric.header} over the seeds that are done"
            found[metric.half_width] = "half-width of its 95% t interval"
    return found


OF_EFFECT = {
    "difference": "difference",
    "difference_half_width": "half_width",
    "difference_half_width_all": "half_width_simultaneous",
    **{name: name for name in ("p", "p_holm", "p_equivalent_holm", "p_plain", "paired", "verdict")},
    "image_standard_error": "image_standard_error",
    "difference_half_width_new_images": "half_width_new_images",
    "verdict_words": "words",
    "runs_compared": "runs",
    "baseline_runs_compared": "other_runs",
}
"""A statistic -> the field of ``Effect`` that it is."""


@dataclass(frozen=True, eq=False)
class Summary:
    """A sweep read once, and averaged at one of its stages: what tables, figures and pages are made of."""

    store: Store
    sweep: str
    plan: Mapping[str, Any]
    read: Records
    """Every cell of every stage."""
    stage: str
    strict: bool
    frame: pd.DataFrame
    """One row a variant, with the columns of STATISTICS."""
    undeclared: tuple[Undeclared, ...]
    effects: Mapping[str, Effect]
    looks: Sequential | None
    """Where a sweep that declares its looks stands."""
    population: Population
    """What the finite test set adds, row by row, and whether rows are judged for new images."""
    declared: Sequence[Mapping[str, Any]]
    """What was declared at the first launch and at each change (``Sweeps.declared``)."""
    say: Callable[[str], str] = str
    """What figures make of names that users gave: a page may have to leave something out."""

    def label(self, row: str) -> str:
        """What a row is called, in plain text."""
        return words(labels_of(self.plan).get(row, row))

    @cached_property
    def records(self) -> pd.DataFrame:
        """Every cell of every stage, as ``frame.load`` has them."""
        return self.read.frame()

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of ``frame``."""
        return rows(self.frame)

    @cached_property
    def final(self) -> list[dict[str, Any]]:
        """The records of this stage, in the plan's order."""
        wanted = dict.fromkeys([*COLUMNS, *(metric.column for metric in self.metrics), *_facts(self.plan)])
        names = [name for name in wanted if name in self.read.columns]
        cells = zip(*(self.read.columns[name][1] for name in names), strict=True)
        every = (dict(zip(names, cell, strict=True)) for cell in cells)
        return [cell for cell in every if cell["stage"] == self.stage]

    @cached_property
    def metrics(self) -> tuple[Metric, ...]:
        """That of the verdicts, and those of further columns."""
        return planned_metrics(self.plan)

    @property
    def metric(self) -> Metric:
        """Of which the verdicts are."""
        return self.metrics[0]

    def figure(self, record: Mapping[str, Any], metric: Metric | None = None) -> float:
        """A metric (by default that of the verdicts) of a record's run, as the record's row shows it; NaN: none."""
        return value(metric or self.metric, record, self._shows.get(record["variant"]))

    @cached_property
    def _shows(self) -> dict[str, str | None]:
        return {row["name"]: row["shows"] for row in self.plan["variants"]}

    def values_of(self, metric: Metric) -> dict[str, dict[int, float]]:
        """Row -> seed -> the metric, of the runs of this stage that are done and have one."""
        values: dict[str, dict[int, float]] = {row["name"]: {} for row in self.plan["variants"]}
        for record in self.final:
            if not math.isnan(found := self.figure(record, metric)):
                values[record["variant"]][record["seed"]] = found
        return values

    @cached_property
    def values(self) -> dict[str, dict[int, float]]:
        """The same of the metric of the verdicts."""
        return self.values_of(self.metric)

    @cached_property
    def top1(self) -> dict[str, dict[int, float]]:
        """The same of test top-1 in percent, of the figure that a row shows."""
        return self.values_of(TOP1)

    @property
    def rules(self) -> Rules:
        """By what its rows are judged."""
        return Rules(self.plan["margin"], self.strict, self.metric.better or "higher", self.population)

    @cached_property
    def lineages(self) -> Lineages:
        """Which rows are compared by pairs of runs."""
        return Lineages(self.plan["cells"], self.plan["parents"], self.stage)

    @cached_property
    def any_paired(self) -> bool:
        """Whether any two rows share a run or a parent at each seed."""
        return any(self.lineages.paired(*pair) for pair in itertools.combinations(self.top1, 2))

    @cached_property
    def design(self) -> Design | None:
        """Which changes rows combine, of a factorial or a cumulative sweep of several orders."""
        return Design.of(self.plan["design"]) if self.plan.get("design") else None

    @cached_property
    def curves(self) -> pd.DataFrame:
        """As ``frame.load_curves`` has them; read when first used."""
        return curves(self.store, self.plan, self.states)

    @cached_property
    def images(self) -> int | None:
        """How many test images the figures are shares of; None where that is not recorded, or differs, or where they
        are no shares."""
        if not self.metric.share:
            return None
        found = {int(record["test_images"]) for record in self.final if not pd.isna(record["test_images"])}
        return found.pop() if len(found) == 1 else None

    @property
    def has_results(self) -> bool:
        """Whether any run of any stage has ended, well or not."""
        return not {"done", "diverged"}.isdisjoint(self.states.values())

    @property
    def states(self) -> dict[str, str]:
        """Of every run, by name."""
        return dict(zip(self.read.columns["run"][1], self.read.columns["state"][1], strict=True))

    def at(self, stage: str | None) -> Summary:
        """The same records at another stage; None is the final one."""
        wanted = final_stage(self.plan) if stage is None else stage
        return self if wanted == self.stage else _summary(self, wanted)

    def recipes(self, stage: str) -> dict[str, dict[str, Any]]:
        """See ``frame.recipes``."""
        return recipes(self.records, stage)


def summarize(
    store: Store,
    sweep: str,
    *,
    stage: str | None = None,
    strict: bool = False,
    plan: Mapping[str, Any] | None = None,
) -> Summary:
    """Read a sweep's records, average them over seeds and judge each row against the baseline, at the final stage or
    at another. ``strict``: 5% of tables have any false verdict, rather than 5% of either kind. ``plan``: another than
    the store's. Raises NoSweep."""
    plan, none = plan or read_plan(store, sweep), pd.DataFrame()
    empty = Summary(store, sweep, plan, records(store, plan), "", strict, none, (), {}, None, Population(), ())
    return _summary(empty, final_stage(plan) if stage is None else stage)


def _summary(read: Summary, stage: str) -> Summary:
    read = replace(read, stage=stage)
    plan, values, of_top1 = read.plan, read.values, read.top1
    others = {metric: read.values_of(metric) for metric in read.metrics if metric.name != TOP1.name}
    runs: dict[str, list[dict[str, Any]]] = {row["name"]: [] for row in plan["variants"]}
    for record in read.final:
        runs[record["variant"]].append(record)
    read = replace(read, population=_population(read, runs))
    judged, looks = _judge(read, runs)
    judged |= _without_effect(read, runs, judged)
    undeclared = _undeclared(plan, runs)
    statistics: list[dict[str, Any]] = []
    places = {name: (place, heading) for place, (name, heading) in enumerate(rows_of(plan))}
    cumulative = plan["kind"] == "cumulative"
    before: Mapping[str, Any] = {"name": "", "differs": {}}
    steps = _steps(read) if cumulative else {}
    for row in plan["variants"]:
        name, step = row["name"], steps.get(row["name"])
        differs = since(row["differs"], before["differs"]) if step else row["differs"]
        before = row
        top1 = mean_interval(of_top1[name].values())
        seconds = mean_interval(record["train_seconds"] for record in runs[name] if record["state"] == "done")
        statistics.append(
            {
                "variant": name,
                "label": labels_of(plan).get(name, name),
                "group": places[name][1],
                "baseline": name == plan["baseline"],
                "shows": row["shows"] or "",
                "differs_in": differs_in(differs),
                "leaks": "; ".join(str(change) for change in undeclared if change.row == name),
                "top1_mean": top1.mean,
                "top1_half_width": top1.half_width,
                **{column: getattr(judged[name], field) for column, field in OF_EFFECT.items()},
                "step": step.difference if step else math.nan,
                "step_half_width": step.half_width if step else math.nan,
                "train_seconds": seconds.mean,
                "hours": sum(_seconds(record) for record in runs[name]) / 3600,
                "seeds": len(values[name]),
                "seeds_planned": len(runs[name]),
                "diverged": sum(record["state"] == "diverged" for record in runs[name]),
            }
        )
        for metric, of_rows in others.items():
            mean = mean_interval(of_rows[name].values())
            statistics[-1] |= {metric.mean: mean.mean, metric.half_width: mean.half_width}
    statistics.sort(key=lambda row: places[row["variant"]])
    found = replace(
        read,
        frame=pd.DataFrame(statistics, columns=list(meanings(read.metrics))),
        undeclared=tuple(undeclared),
        effects=judged,
        looks=looks,
        declared=read.store.sweeps.declared(read.sweep),
    )
    vars(found).update({name: made for name, made in vars(read).items() if name not in vars(found)})
    return found  # with what was made of its records already


def _judge(
    read: Summary, runs: Mapping[str, Sequence[Mapping[str, Any]]]
) -> tuple[dict[str, Effect], Sequential | None]:
    plan, values = read.plan, read.values
    baseline, looks = plan["baseline"], plan.get("looks")
    if not baseline:
        return {name: untested("none") for name in runs}, None
    compared = {name: own for name, own in values.items() if name != baseline}
    how: dict[str, Any] = {"rules": read.rules, "test_images": read.images}
    how["paired"] = [name for name in compared if read.lineages.paired(name, baseline)]
    if looks:
        # What has diverged has ended without a figure; what has not ended is not there.
        lost = {name: {r["seed"]: math.nan for r in own if r["state"] == "diverged"} for name, own in runs.items()}
        given = {name: {**lost[name], **own} for name, own in values.items()}
        schedule = Schedule.of(looks, plan.get("baseline_looks"), together=not plan.get("until_decided"))
        step = sequential({name: given[name] for name in compared}, given[baseline], schedule=schedule, **how)
        found, of_baseline = step.effects, step.baseline
    else:
        step = None
        states = {name: [record["state"] for record in runs[name]] for name in compared}
        ended = {
            name: (own.count("diverged"), own.count("diverged") + own.count("done")) for name, own in states.items()
        }
        judged = judge(compared, values[baseline], **how)
        found, of_baseline = judged.effects(ended), judged.baseline()
    return {name: of_baseline if name == baseline else found[name] for name in runs}, step


def _population(read: Summary, runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> Population:
    plan, baseline, of_rows = read.plan, read.plan["baseline"], {}
    if not baseline:
        return Population(judged=bool(plan.get("population")))
    for row in plan["variants"]:
        name, shows = row["name"], row["shows"]
        known = [record for record in runs[name] if record["seed"] in read.values[name]]
        # Before the final stage a row shows the same figure where there is one, and else the headline.
        early = read.stage != final_stage(plan) and all(math.isnan(r[f"test_top1_{shows}"]) for r in known if shows)
        figures = [read.values[name][record["seed"]] for record in known]
        of_rows[name] = Row(None if early else shows, known, figures)
    paired = [name for name in runs if name != baseline and read.lineages.paired(name, baseline)]
    return population(read.store, read.sweep, plan, of_rows, paired)


def _without_effect(
    read: Summary, runs: Mapping[str, Sequence[Mapping[str, Any]]], judged: Mapping[str, Effect]
) -> dict[str, Effect]:
    """Rows whose trainings ended, at every seed, with the weights of the baseline's: what they change has no effect.

    Not rows that are other figures of the baseline's runs, whose weights are the same by intention; nor those with
    other values of the metric, for what they change acts beside the weights (on their average, or on how pictures are
    evaluated).
    """
    baseline = read.plan["baseline"]
    if not baseline:
        return {}
    weights = {
        name: {r["seed"]: r["weights_sha256"] for r in own if r["state"] == "done" and r["weights_sha256"]}
        for name, own in runs.items()
    }
    words = "changed nothing (weights identical at all seeds)"
    return {
        name: replace(judged[name], verdict="no_effect", words=words)
        for name, own in weights.items()
        if (both := own.keys() & weights[baseline].keys())
        and not read.lineages.same(name, baseline)
        and all(own[seed] == weights[baseline][seed] for seed in both)
        and all(
            math.isclose(read.values[name][seed], read.values[baseline][seed], rel_tol=1e-6)
            for seed in read.values[name].keys() & read.values[baseline].keys()
        )
        and name != baseline
    }


def _steps(read: Summary) -> dict[str, Effect]:
    """Each row against the one before it."""
    names = [row["name"] for row in read.plan["variants"]]
    names = names[: len(read.design.changes) + 1] if read.design else names  # other orders' rows come after
    paired = [name for before, name in itertools.pairwise(names) if read.lineages.paired(name, before)]
    return verdicts.steps({name: read.values[name] for name in names}, paired=paired, test_images=read.images)


def _undeclared(plan: Mapping[str, Any], runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Undeclared]:
    """What rows differ in from the baseline without declaring it: by the plan, and by the records."""
    baseline = plan["baseline"]
    if not baseline:
        return []
    known = RECORDED | _facts(plan)
    recorded = {
        name: {key: [record.get(key) for record in made if record["state"] == "done"] for key in known}
        for name, made in runs.items()
    }
    found = []
    for row in plan["variants"]:
        name = row["name"]
        found += [Undeclared(name, *planned) for planned in row["leaks"]] if isinstance(row["leaks"], list) else []
        if name != baseline:
            declares = row.get("declares", list(row["differs"]))
            found += recorded_undeclared(name, declares, recorded[name], recorded[baseline], known)
    return found


def _facts(plan: Mapping[str, Any]) -> dict[str, tuple[tuple[str, ...], str]]:
    """What a program reports as following from its parameters, as RECORDED has the like of our trainer."""
    facts = (plan.get("program") or {}).get("facts") or {}
    return {OF_PROGRAMS + fact: (tuple(keys), fact) for fact, keys in facts.items()}


def _seconds(record: Mapping[str, Any]) -> float:
    """Seconds of training of all ranks of a run together."""
    seconds = record["train_seconds"]
    return 0.0 if math.isnan(seconds) else seconds * (1 if pd.isna(record["ranks"]) else int(record["ranks"]))


def since(differs: Mapping[str, Sequence[Any]], before: Mapping[str, Sequence[Any]]) -> dict[str, tuple[Any, Any]]:
    """How a recipe differs from the row before's; both are given as differences from one baseline."""
    changes = {
        key: (before[key][1] if key in before else old, new)
        for key, (old, new) in differs.items()
        if key not in before or before[key][1] != new
    }
    return changes | {key: (new, old) for key, (old, new) in before.items() if key not in differs}


def differs_in(differs: Mapping[str, Sequence[Any]]) -> str:
    """Dotted key -> (baseline's value, own value), in few words: ``optimizer: adamw → sgd; base_lr 0.03 → 0.8``.

    A block is named once, where it begins; ``none`` is a value that is null or that the other has no place for;
    an option that only one of them gives is ``momentum = 0.9``, or ``momentum 0.9 → unset``.
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
        option = ".options." in key  # that is not given: the default, or there is none of this name
        old = " =" if option and before is None else f" {value_words(before)} →"
        words.append(f"{name}{old} {'unset' if option and after is None else value_words(after)}")
    return "; ".join(words)
