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
    """A sweep read once, and averaged at one of its stages: what tables, figures and pages are made of. What follows
    from its records is made when it is first used."""

    store: Store
    sweep: str
    plan: Mapping[str, Any]
    read: Records
    """Every cell of every stage."""
    stage: str
    strict: bool = False
    say: Callable[[str], str] = str
    """What figures make of names that users gave: a page may have to leave something out."""

    def saying(self, say: Callable[[str], str]) -> Summary:
        """The same, with what was made of its records, for figures with other names."""
        found = replace(self, say=say)
        vars(found).update(vars(self) | vars(found))
        return found

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
    def runs(self) -> dict[str, list[dict[str, Any]]]:
        """Row -> its records of this stage."""
        found: dict[str, list[dict[str, Any]]] = {row["name"]: [] for row in self.plan["variants"]}
        for record in self.final:
            found[record["variant"]].append(record)
        return found

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
        figures = {row: {own["seed"]: self.figure(own, metric) for own in runs} for row, runs in self.runs.items()}
        return {row: {seed: v for seed, v in own.items() if not math.isnan(v)} for row, own in figures.items()}

    @cached_property
    def values(self) -> dict[str, dict[int, float]]:
        """The same of the metric of the verdicts."""
        return self.values_of(self.metric)

    @property
    def rules(self) -> Rules:
        """By what its rows are judged."""
        return Rules(self.plan["margin"], self.strict, self.metric.better or "higher", self.population)

    @cached_property
    def lineages(self) -> Lineages:
        """Which rows are compared by pairs of runs."""
        return Lineages(self.plan["cells"], self.plan["parents"], self.stage)

    def paired(self, other: str) -> list[str]:
        """The rows that share a run or a parent with this one at each seed."""
        return [name for name in self.runs if name != other and self.lineages.paired(name, other)]

    @cached_property
    def any_paired(self) -> bool:
        """Whether any two rows share a run or a parent at each seed."""
        return any(self.lineages.paired(*pair) for pair in itertools.combinations(self.runs, 2))

    @cached_property
    def design(self) -> Design | None:
        """Which changes rows combine, of a factorial or a cumulative sweep of several orders."""
        return Design.of(self.plan["design"]) if self.plan.get("design") else None

    @cached_property
    def declared(self) -> Sequence[Mapping[str, Any]]:
        """What was declared at the first launch and at each change (``Sweeps.declared``)."""
        return self.store.sweeps.declared(self.sweep)

    @cached_property
    def curves(self) -> pd.DataFrame:
        """As ``frame.load_curves`` has them."""
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
    def resolution(self) -> float:
        """The smallest step of the figures, in points: one test image; 0 where their number is None."""
        return 100 / self.images if self.images else 0.0

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
        return self if wanted == self.stage else replace(self, stage=wanted)

    @property
    def stages(self) -> list[str]:
        """The sweep's stages, the final one last."""
        return [stage["name"] for stage in self.plan["stages"]]

    def recipes(self, stage: str) -> dict[str, dict[str, Any]]:
        """See ``frame.recipes``."""
        return recipes(self.records, stage)

    @cached_property
    def frame(self) -> pd.DataFrame:
        """One row a variant, with the columns of STATISTICS."""
        plan, undeclared, labels = self.plan, self.undeclared, labels_of(self.plan)
        places = {name: (place, heading) for place, (name, heading) in enumerate(rows_of(plan))}
        means = {metric: self.values_of(metric) for metric in (TOP1, *self.metrics)}
        statistics: list[dict[str, Any]] = []
        for before, row in itertools.pairwise([{"differs": {}}, *plan["variants"]]):
            name, runs, step = row["name"], self.runs[row["name"]], self.steps.get(row["name"])
            seconds = mean_interval(record["train_seconds"] for record in runs if record["state"] == "done")
            statistics.append(
                {
                    "variant": name,
                    "label": labels.get(name, name),
                    "group": places[name][1],
                    "baseline": name == plan["baseline"],
                    "shows": row["shows"] or "",
                    "differs_in": differs_in(since(row["differs"], before["differs"]) if step else row["differs"]),
                    "leaks": "; ".join(str(change) for change in undeclared if change.row == name),
                    **{column: getattr(self.effects[name], field) for column, field in OF_EFFECT.items()},
                    "step": step.difference if step else math.nan,
                    "step_half_width": step.half_width if step else math.nan,
                    "train_seconds": seconds.mean,
                    "hours": sum(map(_seconds, runs)) / 3600,
                    "seeds": len(self.values[name]),
                    "seeds_planned": len(runs),
                    "diverged": sum(record["state"] == "diverged" for record in runs),
                }
            )
            for metric, of_rows in means.items():
                mean = mean_interval(of_rows[name].values())
                statistics[-1] |= {metric.mean: mean.mean, metric.half_width: mean.half_width}
        statistics.sort(key=lambda row: places[row["variant"]])
        return pd.DataFrame(statistics, columns=list(meanings(self.metrics)))

    @property
    def effects(self) -> Mapping[str, Effect]:
        return self._judged[0]

    @property
    def looks(self) -> Sequential | None:
        """Where a sweep that declares its looks stands."""
        return self._judged[1]

    @cached_property
    def _judged(self) -> tuple[dict[str, Effect], Sequential | None]:
        plan, values, baseline, looks = self.plan, self.values, self.plan["baseline"], self.plan.get("looks")
        if not baseline:
            return {name: untested("none") for name in values}, None
        compared = {name: own for name, own in values.items() if name != baseline}
        how: dict[str, Any] = {"rules": self.rules, "resolution": self.resolution, "paired": self.paired(baseline)}
        step = None
        if looks:
            # What has diverged has ended without a figure; what has not ended is not there.
            ended = {
                name: {r["seed"]: math.nan for r in self.runs[name] if r["state"] == "diverged"} for name in values
            }
            given = {name: {**ended[name], **own} for name, own in values.items()}
            schedule = Schedule.of(looks, plan.get("baseline_looks"), together=not plan.get("until_decided"))
            step = sequential({name: given[name] for name in compared}, given[baseline], schedule=schedule, **how)
            found, of_baseline = step.effects, step.baseline
        else:
            judged = judge(compared, values[baseline], **how)
            found, of_baseline = (
                judged.effects({name: diverged(self.runs[name]) for name in compared}),
                judged.baseline(),
            )
        every = {name: of_baseline if name == baseline else found[name] for name in values}
        words = "changed nothing (weights identical at all seeds)"
        same = filter(self._without_effect, compared)
        return every | {name: replace(every[name], verdict="no_effect", words=words) for name in same}, step

    @cached_property
    def population(self) -> Population:
        """What the finite test set adds, row by row, and whether rows are judged for new images."""
        plan, baseline, of_rows = self.plan, self.plan["baseline"], {}
        if not baseline:
            return Population(judged=bool(plan.get("population")))
        for name, shows in self._shows.items():
            known = [record for record in self.runs[name] if record["seed"] in self.values[name]]
            # Before the final stage a row shows the same figure where there is one, and else the headline.
            early = self.stage != final_stage(plan) and all(math.isnan(r[f"test_top1_{shows}"]) for r in known if shows)
            figures = [self.values[name][record["seed"]] for record in known]
            of_rows[name] = Row(None if early else shows, known, figures)
        return population(self.store, self.sweep, plan, of_rows, self.paired(baseline))

    def _without_effect(self, name: str) -> bool:
        """Whether a row's trainings ended, at every seed, with the weights of the baseline's: what it changes has no
        effect.

        Not a row that is another figure of the baseline's runs, whose weights are the same by intention; nor one with
        other values of the metric, for what it changes acts beside the weights (on their average, or on how pictures
        are evaluated).
        """
        baseline = self.plan["baseline"]
        own, others = (
            {r["seed"]: r["weights_sha256"] for r in self.runs[row] if r["state"] == "done" and r["weights_sha256"]}
            for row in (name, baseline)
        )
        values, of_baseline, both = self.values[name], self.values[baseline], own.keys() & others.keys()
        equal = (
            math.isclose(values[seed], of_baseline[seed], rel_tol=1e-6) for seed in values.keys() & of_baseline.keys()
        )
        same = both and all(own[seed] == others[seed] for seed in both) and not self.lineages.same(name, baseline)
        return bool(same) and all(equal)

    @cached_property
    def steps(self) -> dict[str, Effect]:
        """Of a cumulative sweep each row against the one before it."""
        if self.plan["kind"] != "cumulative":
            return {}
        names = list(self.runs)
        names = names[: len(self.design.changes) + 1] if self.design else names  # other orders' rows come after
        paired = [name for before, name in itertools.pairwise(names) if self.lineages.paired(name, before)]
        return verdicts.steps({name: self.values[name] for name in names}, paired=paired, resolution=self.resolution)

    @cached_property
    def undeclared(self) -> tuple[Undeclared, ...]:
        """What rows differ in from the baseline without declaring it: by the plan, and by the records."""
        baseline, found, known = self.plan["baseline"], list[Undeclared](), RECORDED | _facts(self.plan)
        recorded = {
            name: {key: [record.get(key) for record in made if record["state"] == "done"] for key in known}
            for name, made in self.runs.items()
        }
        for row in self.plan["variants"] if baseline else ():
            name, declares = row["name"], row.get("declares", list(row["differs"]))
            found += [Undeclared(name, *planned) for planned in row["leaks"]] if isinstance(row["leaks"], list) else []
            if name != baseline:
                found += recorded_undeclared(name, declares, recorded[name], recorded[baseline], known)
        return tuple(found)


def summarize(
    store: Store,
    sweep: str,
    *,
    stage: str | None = None,
    strict: bool = False,
    plan: Mapping[str, Any] | None = None,
) -> Summary:
    """Read a sweep's records, to be averaged over seeds, each row judged against the baseline, at the final stage or
    at another. ``strict``: 5% of tables have any false verdict, rather than 5% of either kind. ``plan``: another than
    the store's. Raises NoSweep."""
    plan = plan or read_plan(store, sweep)
    return Summary(store, sweep, plan, records(store, plan), final_stage(plan) if stage is None else stage, strict)


def diverged(runs: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """So many of so many that have ended."""
    states = [record["state"] for record in runs]
    return states.count("diverged"), states.count("diverged") + states.count("done")


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
