"""What a sweep file and a profile may say: typed, with the words that editors show."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field, WithJsonSchema, create_model

from deit_ablate.execution import ONE_OR_SEVERAL, Execution, MetricsFile, Needs, Part, Positive, said
from deit_ablate.names import misfit
from deit_ablate.program import ProgramData
from deit_ablate.sweep.metrics import Better, Digits, Unit, metrics_schema
from deit_ablate.sweep.rows import KINDS

RESERVED = frozenset({"runs", "reference", "submissions", "code", "data", "weights", "trash", "cache", "campaigns"})
"""Folders of the store, which no sweep may be called after."""
_STEM = r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}"
NAME = r"^[A-Za-z0-9+][A-Za-z0-9 ._+=,-]{0,199}$"


def is_stem(name: str) -> bool:
    """Whether a sweep may have this name, the profile and the hash of ``--set`` left out."""
    return bool(re.fullmatch(_STEM, name)) and name.lower() not in RESERVED


def is_sweep_name(name: str) -> bool:
    """Whether a sweep's folder may be called so: ``<stem>[@profile][+hash]``. Whatever name a file holds is one of
    these before it becomes a path."""
    found = re.fullmatch(rf"({_STEM})(?:@[A-Za-z0-9][A-Za-z0-9._-]*)?(?:\+[0-9a-f]{{6}})?", name)
    return found is not None and len(name) <= 200 and is_stem(found[1])


def _distinct(values: list[Any]) -> list[Any]:
    if len(set(values)) < len(values):
        raise ValueError("different ones")
    return values


_Listed = Annotated[
    list[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1, max_length=1000), AfterValidator(_distinct)
]
Seeds = Annotated[
    Annotated[int, Field(ge=1, le=1000)] | _Listed,
    said("how many seeds (1 to 1000), or a list of different whole numbers >= 0"),
]
Mapping_ = dict[str, Any]


Command = str | Annotated[list[str], Field(min_length=1)]


class StageFile(Part):
    recipe: Mapping_ = Field({})
    """Overrides of this stage, over the sweep's recipe (or over the run that it continues from)."""
    command: Command | None = None
    """Of a sweep over a command: this stage's own."""
    parameters: Mapping_ = Field({})
    """Of a sweep over a program: parameters of this stage, over the sweep's."""
    teacher: str | None = None
    """The stage whose run teaches this one; by default the teacher of the stage that it goes on from."""
    from_: Annotated[str | None, Field(alias="from")] = None
    """The stage whose weights this one starts from."""
    weights: Literal["last", "ema"] = "last"
    """Which weights of the parent are used."""
    seeds: Seeds | None = None
    """Seeds of this stage; [0] makes one run that all seeds share."""


def _grows(looks: list[int]) -> list[int]:
    if looks[0] < 3 or any(later <= earlier for earlier, later in itertools.pairwise(looks)):
        raise ValueError("growing numbers of seeds, the first at least 3")
    return looks


Looks = Annotated[list[Annotated[int, Field(ge=1, le=1000)]], Field(min_length=1, max_length=4), AfterValidator(_grows)]


Orders = Annotated[
    Annotated[int, Field(ge=1, le=24)] | Annotated[list[list[str]], Field(min_length=1, max_length=23)],
    said("how many orders (1 to 24), or a list of orders, each a list of all steps"),
]


SAMPLERS = {
    "tpe": "TPESampler",
    "random": "RandomSampler",
    "qmc": "QMCSampler",
    "cmaes": "CmaEsSampler",
    "gp": "GPSampler",
    "grid": "GridSampler",
}
"""Name -> Optuna's class. To add a sampler: a line here."""
PRUNERS = {
    "none": "NopPruner",
    "median": "MedianPruner",
    "successive-halving": "SuccessiveHalvingPruner",
    "hyperband": "HyperbandPruner",
}
"""Name -> Optuna's class. To add a pruner: a line here."""
OBJECTIVES = {
    "top1": "maximize",
    "loss": "minimize",
    "throughput": "maximize",
    "parameters": "minimize",
    "flops": "minimize",
    "highest": "maximize",
    "lowest": "minimize",
}
"""Name -> direction. ``trials.MEASURED`` says where each is found in a record; the last two are the one validation
metric that a program names, which is better high or low."""
OF_OURS = ("top1", "loss", "throughput", "parameters", "flops")
"""Those that runs of our trainer have."""


def _one_of(known: Mapping[str, str]) -> AfterValidator:
    def check(name: str) -> str:
        if name not in known:
            raise ValueError("one of " + ", ".join(known))
        return name

    return AfterValidator(check)


_OBJECTIVE = {"type": "string", "enum": list(OBJECTIVES)}


def _no_text_for_a_number(value: Any) -> Any:
    if expected := misfit("unknown", value):
        raise ValueError(expected)
    return value


Options = dict[str, Annotated[Any, AfterValidator(_no_text_for_a_number)]]


class SearchFile(Part):
    """A search: trials that Optuna asks for, one after the other, within a space."""

    space: Mapping_ = Field({})
    """What is varied, in every row: recipe keys with {low, high, log, step, type} or a list of choices."""
    spaces: dict[str, Mapping_] = Field({})
    """What is varied in single rows, over `space`: row, then keys."""
    trials: Annotated[int, Field(ge=1, le=10_000)] = 20
    """Trials of each row: every row has the same budget."""
    timeout: Annotated[float, Field(gt=0)] | None = None
    """Minutes after which a launch asks for no more trials."""
    parallel: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Trials at once; by default as many as runs at once, on a cluster 8."""
    sampler: Annotated[str, _one_of(SAMPLERS)] = "tpe"
    """tpe, random, qmc, cmaes, gp or grid: Optuna's samplers."""
    sampler_options: Options = Field({})
    """Arguments of Optuna's sampler."""
    pruner: Annotated[str, _one_of(PRUNERS)] = "median"
    """none, median, successive-halving or hyperband: Optuna's pruners, by validation after every epoch."""
    pruner_options: Options = Field({})
    """Arguments of Optuna's pruner; a step is an epoch."""
    objective: Annotated[
        list[Annotated[str, _one_of(OBJECTIVES)]],
        Field(min_length=1, max_length=2),
        ONE_OR_SEVERAL,
        AfterValidator(_distinct),
        WithJsonSchema({"anyOf": [_OBJECTIVE, {"type": "array", "items": _OBJECTIVE, "minItems": 1, "maxItems": 2}]}),
    ] = Field(["top1"])
    """One or two of top1, loss (of the validation part), throughput, parameters, flops. Of a program `highest` or
    `lowest`: of the metric that `metrics.validation` names, by default as its primary one is better."""
    seed: Annotated[int, Field(ge=0, lt=2**32 - 10)] = 1000
    """Seed of the trials, and of the sampler; the next ones are those of the candidates."""
    candidates: Annotated[int, Field(ge=1, le=100)] = 5
    """Best trials of a row that --confirm trains again on fresh seeds."""
    candidate_seeds: Annotated[int, Field(ge=1, le=10)] = 3
    """Fresh seeds of each candidate; the best one by their mean is the row's."""


class ProgramDataFile(ProgramData):
    path: str | None = None
    """Where they lie, as {data} gives it to the command: no part of a run's id. --data-dir says it too."""


class ProgramMetrics(MetricsFile):
    """The metrics of a program, and what the verdicts are of."""

    better: Better
    """Which way the primary metric is better: higher or lower."""
    unit: Unit = None
    """Of its values and of the margin, as "%" or "nats"."""
    digits: Digits = None
    """After the point, in tables; by default 3, of percentages 2."""
    columns: list[str] = Field([])
    """Further metrics, a column each."""


_SHAPES = {"rows": Mapping_ | None, "axes": Mapping_ | None, "rows or keys": Mapping_ | list[str] | None}
_KINDS: dict[str, Any] = {
    name: (_SHAPES[kind.shape], Field(None, description=kind.doc)) for name, kind in KINDS.items()
}
_Kinds: Any = create_model("_Kinds", __base__=Part, **_KINDS)


_LIST_OF_METRICS = {"type": "array", "items": metrics_schema()}
_METRICS_SCHEMA = {"anyOf": [_LIST_OF_METRICS, ProgramMetrics.model_json_schema()]}


Margin: TypeAlias = Annotated[float, Field(gt=0)] | None


class OfProfile(Part):
    """What a profile may change of a sweep, beside its recipes."""

    search: SearchFile | None = None
    seeds: Seeds = 3
    """As that of the file, which is what counts where this is not given."""
    margin: Margin = None
    last_stage: str | None = None
    """The stage with which the sweep ends under this profile: what would follow is not run."""


class SweepFile(_Kinds):
    """A sweep file: one question, and how to vary a recipe to answer it."""

    title: str = ""
    description: str = ""
    profile: str | None = None
    """The base recipe: digits, glyphs, fashion-mnist-small, fashion-mnist, imagenet, or a file in profiles/."""
    seeds: Seeds = 3
    """How many seeds (0, 1, ...), or a list of them. Of a search (5): the seeds on which its winners are confirmed."""
    margin: Margin = None
    """The difference, in the metric's unit (of top-1 points), below which rows count as equivalent; to be declared
    before the sweep is run."""
    metric: Annotated[Any, WithJsonSchema(metrics_schema())] = None
    """What the verdicts are of: top1 (the default), top5, loss, ema, a head, or a function of your own
    (`module:function`) of what a run has predicted; to be declared before the sweep is run."""
    metrics: Annotated[Any, WithJsonSchema(_METRICS_SCHEMA)] = None
    """Further metrics, a column each. Of a program: where its metrics are, and which of them the verdicts are of."""
    command: Command | None = None
    """In place of our trainer: a command, with {parameters}, {seed}, {run} (the folder for what it writes), {data},
    {checkpoint}, {parent} and {teacher} in braces; no shell is involved."""
    trainer: str | None = None
    """The same of a Python function of your own, `module:function`, called as function(parameters, run)."""
    parameters: Mapping_ = Field({})
    """Of a program: its parameters with their defaults, which rows vary."""
    sources: list[str] = Field([])
    """Files below the folder of the sweep file, such as mylab/**/*.py, whose content is part of a run's id, beside the
    scripts that the command names."""
    data: ProgramDataFile | None = None
    """Of a program: the name of its data, which is part of a run's id, and where they lie, which is not."""
    lock: str | None = None
    """A file of package versions, such as requirements.txt, whose content is part of a run's id."""
    derived: list[str] | dict[str, list[str]] = Field([])
    """Metrics that are facts which follow from parameters, such as {effective_lr: [lr, batch_size]}: a row that changes
    one without changing what it follows from has an undeclared change."""
    grace: Positive = 60
    """Seconds that a command has to save and stop after SIGTERM."""
    population: bool = False
    """Whether verdicts are for new images of this kind too, instead of for these test images; to be declared before the
    sweep is run."""
    looks: Looks | None = None
    """Seeds after which rows are looked at, and those that are decided stop, such as [3, 6, 9, 12]; to be declared
    before the sweep is run."""
    recipe: Mapping_ = Field({})
    """Overrides for all rows."""
    execution: Execution = Execution()
    resources: dict[str, Needs] = Field({})
    """What single rows and stages need beside that, such as {teacher: {threads: 4}, big: {slurm: {gpus: 2}}}: row or
    stage, then keys of `execution`. A row's goes over a stage's, and is not for the teacher."""
    baseline: str | None = None
    """The variant that differences are taken from."""
    baseline_seeds: Literal["auto"] | Annotated[int, Field(ge=1, le=1000)] = "auto"
    """How many seeds of the baseline, with which every row is compared: by default √m times as many as of each of m
    rows; never fewer."""
    fraction: Literal["1/2", "1/4", "1/8", "1/16"] | None = None
    """Of a factorial: the part of all combinations that is trained; `plan` says which effects it cannot tell apart."""
    orders: Orders | None = None
    """Of a cumulative sweep: in how many orders its steps are taken (as they stand, in reverse, then by lot), or the
    orders beside the one in which they stand."""
    labels: dict[str, str] | None = None
    """What tables and figures call a row, where that is not its name: row -> free text, with LaTeX's mathematics
    between dollar signs ("$\\beta_2$", "w/o mixup", "LAMB (ours)"); of a grid also axis (its key) -> text. No part of
    an id."""
    groups: dict[str, list[str]] | None = None
    """Rows under headings, in this order, after the rows of no group: heading -> names of rows."""
    search: SearchFile | None = None
    """Trials that Optuna asks for; beside `variants`, a search of its own for each row."""
    stages: dict[str, StageFile] | None = None
    """Steps that feed one another: a teacher, its students, fine-tuning."""
    by_profile: dict[str, Mapping_] | None = None
    """Overrides under one profile: profile, then variant (or stage, `recipe` or `search`), then keys; or `seeds`,
    `margin`, `last_stage`."""


class ProfileFile(Part):
    title: str = ""
    description: str = ""
    recipe: Mapping_ = Field({})
    execution: Execution = Execution()
