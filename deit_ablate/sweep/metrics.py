"""What a sweep measures: metrics by name, which way each is better, its unit, and where in a record it is.

``metric:`` is what the verdicts are of, ``metrics:`` are further columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field

from deit_ablate.errors import Position, TrainError
from deit_ablate.execution import Part
from deit_ablate.program import FUNCTION, code_of, undefined
from deit_ablate.sweep.overrides import validate
from deit_ablate.sweep.yaml import Node, dotted

Better: TypeAlias = Literal["higher", "lower"]


@dataclass(frozen=True)
class Metric:
    """One figure of a run, of its test split at the last epoch."""

    name: str
    """As the sweep file has it: a key of METRICS, or ``module:function``."""
    words: str
    """What tables and axes call it, less its unit: "test top-1"."""
    better: Better | None = None
    """None of a further column that is a function of one's own: nothing is judged by it."""
    figure: str = ""
    """The score in a record's test part; empty for ``module:function``."""
    unit: str = ""
    """Of its values, as in "test top-1 (%)"."""
    counted_in: str = ""
    """What a difference, an interval and the margin are counted in: of shares in percent "points", else the unit."""
    digits: int = 3
    """After the point."""
    place: tuple[int, int] = (0, 0)
    """Line and column in the sweep file."""
    program: bool = False
    """Whether it is a metric that a program reports, by its own name."""
    predicted: bool = False
    """Of such: whether it is the percentage of right predictions, which the program keeps image by image."""

    @property
    def header(self) -> str:
        return f"{self.words} ({self.unit})" if self.unit else self.words

    @property
    def of_differences(self) -> str:
        """What a difference is of: "test top-1 (points)"."""
        return f"{self.words} ({self.counted_in})" if self.counted_in else self.words

    @property
    def share(self) -> bool:
        """Whether it is a share of the test images, which moves in steps of one image."""
        return self.figure.startswith("top")

    @property
    def lacks_images(self) -> str:
        """Why no run says what each test image adds: losses and the five best classes are not kept one by one. Empty of
        top-1, and of a function of one's own, which may."""
        known = self.predicted if self.program else not self.figure or self.figure.startswith("top1")
        return "" if known else f"no run keeps {self.words} image by image"

    @property
    def column(self) -> str:
        """The column of ``frame.load`` that has it; of top-1 that of the figure that a row shows."""
        if self.program:
            return self.name
        return "top1" if self.figure == "top1" else f"test_{self.figure}" if self.figure else self.name

    @property
    def mean(self) -> str:
        """The column of ``Summary.frame`` that has a row's mean, and that of its half-width."""
        return f"{self.name}_mean"

    @property
    def half_width(self) -> str:
        return f"{self.name}_half_width"

    @property
    def sign(self) -> int:
        """Of a difference that is better."""
        return -1 if self.better == "lower" else 1

    def amount(self, value: float) -> str:
        """``0.5 points``"""
        return f"{value:g} {self.counted_in}".rstrip()

    def shown(self, shows: str | None) -> bool:
        """Whether a row that shows another figure than the headline has this one: records have the others' top-1
        alone, and no probabilities of the moving average."""
        return not shows or self.figure.startswith("top1") or (not self.figure and shows != "ema")

    def fits(self, shows: str | None) -> bool:
        """Whether this and what a row shows are no two figures."""
        if self.figure in ("", "top1"):
            return self.shown(shows)
        return not shows or self.figure == f"top1_{shows}"

    def document(self) -> dict[str, Any]:
        """What plan.json holds of it."""
        own: dict[str, Any] = {}
        if self.program or not self.figure:
            own = {"better": self.better, "unit": self.unit, "digits": self.digits}
        if self.program:
            own |= {"program": True, "predicted": self.predicted}
        return {"name": self.name, **own, "place": list(self.place)}

    def declared(self) -> str:
        """It in a word or two, with what decides verdicts. Raises TrainError where its code is gone."""
        if self.program:
            return f"{self.words} ({self.better} is better)"
        if self.figure:
            return self.name
        return f"{self.name} ({self.better} is better, code {code_hash(self.name)[:8]})"


def _share(name: str, words: str, figure: str) -> Metric:
    return Metric(name, words, "higher", figure, "%", "points", 2)


RECORDED = (
    _share("top1", "test top-1", "top1"),
    _share("top5", "test top-5", "top5"),
    Metric("loss", "test loss", "lower", "loss", "nats", "nats"),
    _share("ema", "test top-1, EMA", "top1_ema"),
    _share("class", "test top-1, class head", "top1_class"),
    _share("distillation", "test top-1, distillation head", "top1_distillation"),
    _share("fused_softmax", "test top-1, summed softmaxes", "top1_fused_softmax"),
    _share("fused_logits", "test top-1, summed logits", "top1_fused_logits"),
)
"""What records have. To add one: a line here, for a column that ``frame.COLUMNS`` has."""
METRICS: dict[str, Metric] = {metric.name: metric for metric in RECORDED}
TOP1 = METRICS["top1"]
TWO_HEADS = ("distillation", "fused_softmax", "fused_logits")
"""Metrics that a run has where its model has two heads."""


def printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("text of printable characters")
    return text


Unit: TypeAlias = Annotated[str, Field(max_length=20), AfterValidator(printable)] | None
Digits: TypeAlias = Annotated[int, Field(ge=0, le=9)] | None


class MetricFile(Part):
    name: str
    """top1, top5, loss, ema, a head, or a function of your own, `module:function`."""
    better: Better | None = None
    """Which way is better: higher or lower. Of a function of your own; the others' is known."""
    unit: Unit = None
    """Of its values and of the margin; likewise."""
    digits: Digits = None
    """After the point, in tables; by default 3; likewise."""


def metrics_schema() -> dict[str, Any]:
    """A metric in a sweep file, for editors."""
    name = {"anyOf": [{"enum": list(METRICS)}, {"type": "string", "pattern": f"^{FUNCTION.pattern}$"}]}
    long = MetricFile.model_json_schema()
    return {"anyOf": [*name["anyOf"], {**long, "properties": {**long["properties"], "name": name}}]}


def read_metric(node: Node) -> Metric:
    """``metric:`` of a sweep file. Raises InputError at the line of what is wrong."""
    if (given := node.get("metric")) is None or given.value is None:
        return TOP1
    metric = _read(node, given, ("metric",))
    if metric.better is None:
        problem, expected = "nothing says which way", f"{{name: {metric.name}, better: higher}}, or lower"
        raise node.error("metric", f"{problem} {metric.name} is better", expected)
    return metric


def read_metrics(node: Node, judged: Metric) -> tuple[Metric, ...]:
    """``metrics:``, less the one of the verdicts, which has its column. Raises InputError as above."""
    if (given := node.get("metrics")) is None or given.value is None:
        return ()
    if not isinstance(given.value, list):
        raise node.error("metrics", "no list", "a list of metrics, as [loss, top5]")
    found: dict[str, Metric] = {}
    for place, child in enumerate(given.value):
        metric = _read(node, child, ("metrics", place))
        if metric.name in found:
            raise node.error(("metrics", place), f"{metric.name!r} twice", "each once")
        found[metric.name] = metric
    return tuple(metric for metric in found.values() if metric.name != judged.name)


def _read(node: Node, own: Node, path: tuple[str | int, ...]) -> Metric:
    short = isinstance(own.value, str)
    if not short and not isinstance(own.value, dict):
        raise node.error(path, f"got {own.plain()!r}", "a name, or a mapping of name, better, unit and digits")
    given = MetricFile(name=own.value) if short else validate(MetricFile, own, f"{dotted(path)}.")
    at = path if short else (*path, "name")
    if given.name not in METRICS and not FUNCTION.fullmatch(given.name):
        raise node.unknown(at, "no metric is called", given.name, [*METRICS, "module:function"])
    metric = from_document(given.model_dump() | {"place": node.locate(at)[1:]})
    for field in ("better", "unit", "digits") if metric.figure else ():
        value, known = getattr(given, field), getattr(metric, field)
        if value not in (None, known):
            expected = f"{known!r}, as {metric.name} has, or nothing"
            raise node.error((*path, field), f"got {value!r}", expected)
    if not metric.figure and (problem := undefined(metric.name)):
        raise node.error(at, problem, "a function of a module on PYTHONPATH")
    return metric


def from_document(content: Mapping[str, Any] | None) -> Metric:
    """The metric that ``document`` was made of; top-1 where a plan says none."""
    if content is None:
        return TOP1
    place = tuple(content["place"])
    better, unit, digits = (content.get(key) for key in ("better", "unit", "digits"))
    if content.get("program"):
        name = content["name"].removeprefix(OF_PROGRAMS)
        return of_program(name, better, unit, digits, ("", *place), bool(content.get("predicted")))
    if (known := METRICS.get(content["name"])) is not None:
        return replace(known, place=place)
    name, unit = content["name"], unit or ""
    words = name.partition(":")[2].replace("_", " ")
    return Metric(name, words, better, "", unit, unit, 3 if digits is None else digits, place=place)


OF_PROGRAMS = "metrics."
"""Before the name of a metric that a program reports, so that none is taken for one of ours."""


def of_program(
    name: str, better: Better | None, unit: str | None, digits: int | None, where: Position, predicted: bool = False
) -> Metric:
    """A metric that a program reports under this name."""
    return Metric(
        name=OF_PROGRAMS + name,
        words=name,
        better=better,
        figure=OF_PROGRAMS + name,
        unit=unit or "",
        counted_in="points" if unit == "%" else unit or "",
        digits=(2 if unit == "%" else 3) if digits is None else digits,
        place=(where[1], where[2]),
        program=True,
        predicted=predicted,
    )


def planned_metrics(plan: Mapping[str, Any]) -> tuple[Metric, ...]:
    """The metric of a plan's verdicts, and those of its further columns."""
    return tuple(map(from_document, [plan.get("metric"), *plan.get("metrics", ())]))


def code_hash(name: str) -> str:
    """Of the code of a ``module:function`` and of all own code that it imports. Raises TrainError (see ``code_of``)."""
    return hashlib.sha256(repr(sorted(code_of(name).items())).encode()).hexdigest()


def code_hashes(metrics: Iterable[Metric]) -> dict[str, str]:
    """Of each function of one's own; what cannot be found has an empty one."""
    found = {}
    for metric in metrics:
        if not metric.figure:
            try:
                found[metric.name] = code_hash(metric.name)
            except TrainError:
                found[metric.name] = ""
    return found
