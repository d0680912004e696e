"""What the files of a store hold, and the one way to read them: checked, or refused as damaged with the file's name.

Nobody else parses what a store has. A file that is no JSON, has another shape, or was written by a later version raises
``Damaged``; keys that are not named here are left alone, so that a later version may add some.
"""

from __future__ import annotations

import graphlib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deit_ablate import files
from deit_ablate.errors import Damaged
from deit_ablate.identity import belongs
from deit_ablate.program import FUNCTION
from deit_ablate.store.values import Amount, Cells, Count, Number, Reported, RunId, Scores
from deit_ablate.sweep.fields import Looks
from deit_ablate.sweep.metrics import METRICS, Better

SCHEMA = 1
"""Of every file of a store. Raised when a key comes to mean something else; older files stay readable."""


class File(BaseModel):
    """One kind of file. Types are taken as they are: a text is no number."""

    model_config = ConfigDict(strict=True, extra="ignore")


class Parent(File):
    run: RunId
    weights: Literal["last", "ema"]


class Recipe(File):
    semantics: Number | None = None
    recipe: dict[str, Any]
    parents: dict[str, Parent]
    sources: dict[str, str]


class Job(File):
    id: str
    restarts: Count = 0
    element: str | None = None
    cluster: str | None = None
    user: str | None = None


class Execution(File):
    ranks: Number | None = None
    accumulation: Number | None = None
    threads: Number | None = None
    compile: bool | str | None = None
    channels_last: bool | None = None
    deterministic: bool | None = None


class Owner(File):
    nonce: str
    host: str | None = None
    machine: str | None = None
    boot: str | None = None
    pid_namespace: str | None = None
    pid: Number | None = None
    started: str | None = None
    job: Job | None = None
    time: Amount | None = None
    retry: bool | None = None
    execution: Execution | None = None

    def model_post_init(self, _: Any) -> None:
        if self.boot and self.pid is None:
            raise ValueError("pid: Field required")


class Exit(File):
    how: str = Field(alias="class")
    message: str = ""
    time: Amount = 0


class Beat(File):
    time: Amount
    epoch: Count | None = None
    step: Count | None = None


class Pause(File):
    attempt: Number


class Metrics(File):
    test: Scores | None = None
    program: Reported | None = None
    validation: Scores | None = None
    train_loss: float | None = None


class Cost(File):
    train_seconds: Amount | None = None
    wall_seconds: Amount | None = None
    wall_seconds_all_attempts: Amount | None = None
    images_per_second: Amount | None = None
    inference_images_per_second: Amount | None = None
    inference_batch: Count | None = None
    peak_memory_bytes: Count | None = None
    parameters: Count | None = None
    flops: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    device: str | None = None


class Git(File):
    commit: str | None = None
    dirty: bool | None = None
    diff: str | None = None


class Hardware(File):
    host: str | None = None
    cpu: str | None = None
    gpu: str | None = None
    capability: str | None = None


class Provenance(File):
    version: str | None = None
    packages: dict[str, str] | None = None
    git: Git | None = None
    command: str | None = None
    hardware: Hardware | None = None


class DataFacts(File):
    fingerprint: str
    fingerprint_of: str | None = None
    """None in files of versions that took names and sizes of files for the fingerprint of an image folder."""
    listing: str | None = None
    train: Count | None = None
    validation: Count | None = None
    test: Count | None = None
    sources: dict[str, str] | None = None
    per_class: dict[str, list[Count]] | None = None
    class_count: Count | None = None
    ignored_hidden: Count = 0
    ignored_other: Count = 0


class Outcome(File):
    run: RunId
    attempt: Number
    status: Literal["done", "diverged"]
    reason: str | None = None
    metrics: Metrics
    cost: Cost
    data: DataFacts | None = None
    weights_sha256: str | None = None
    arrays_sha256: str | None = None
    execution: Execution | None = None
    provenance: Provenance | None = None
    time: Amount | None = None


class Epoch(File):
    """A line of metrics.jsonl."""

    epoch: Count
    step: Count | None = None
    lr: float | None = None
    train_loss: float | None = None
    validation: Scores | None = None
    seconds: Amount | None = None
    images_per_second: Amount | None = None
    metrics: Reported | None = None


class Stage(File):
    name: str
    seeds: list[Count]


class Row(File):
    name: str
    shows: str | None
    differs: dict[str, Annotated[list[Any], Field(min_length=2, max_length=2)]]
    declares: list[str] = []
    leaks: list[Annotated[list[Any], Field(min_length=3, max_length=3)]] | dict[str, Any] = []


class Asked(File):
    number: Number
    row: str
    params: dict[str, Any]
    run: RunId


class Searched(File):
    objectives: Annotated[list[str], Field(min_length=1, max_length=2)]
    spaces: dict[str, dict[str, Any]]
    asked: list[Asked]
    winners: dict[str, Number]
    candidates: dict[str, list[RunId]] = {}
    budget: dict[str, Count] = {}
    confirm: bool = False


class Again(File):
    """What the command line changed about the sweep file."""

    profile: str | None = None
    sets: list[str] = []
    seeds: Number | None = None
    name: str | None = None


class Designed(File):
    """What ``sweep.designs.Design`` writes."""

    changes: Annotated[list[str], Field(min_length=1)]
    rows: dict[str, list[Count]]
    orders: list[list[Count]]

    def model_post_init(self, _: Any) -> None:
        every, rows = set(range(len(self.changes))), [set(own) for own in self.rows.values()]
        if any(own - every for own in rows) or len(set(self.changes)) < len(every):
            raise ValueError("design: a change that there is not, or twice")
        if any(sorted(order) != sorted(every) for order in self.orders):
            raise ValueError("design: an order that is none of all changes")
        if any(set(order[:place]) not in rows for order in self.orders for place in range(len(order) + 1)):
            raise ValueError("design: an order without its rows")


class Metric(File):
    name: str
    better: Better | None = None
    unit: str | None = None
    digits: Annotated[int, Field(ge=0, le=9)] | None = None
    program: bool = False
    predicted: bool = False
    place: Annotated[list[Count], Field(min_length=2, max_length=2)]

    def model_post_init(self, _: Any) -> None:
        if not self.program and self.name not in METRICS and not FUNCTION.fullmatch(self.name):
            raise ValueError("name: no metric is called so")


class OfProgram(File):
    """What a plan says of a program: which it is, its data's name, facts -> the parameters that declare them, and the
    parameters whose default is a floating-point number."""

    kind: Literal["command", "function"]
    data: str | None = None
    validation: str | None = None
    facts: dict[str, list[str]] = {}
    numbers: list[str] = []


class Group(File):
    heading: str
    rows: list[str]


class Axis(File):
    key: str
    values: list[str]


class AcceptedRun(File):
    run: RunId
    sources: dict[str, Annotated[list[str | None], Field(min_length=2, max_length=2)]]
    time: float


class Plan(File):
    sweep: str
    program: OfProgram | None = None
    title: str | None = None
    profile: str | None = None
    source: str
    kind: str
    metric: Metric | None = None
    metrics: list[Metric] = []
    margin: Amount | None = None
    population: bool = False
    looks: Looks | None = None
    baseline_looks: list[Number] | None = None
    until_decided: bool = False
    baseline: str | None = None
    stages: Annotated[list[Stage], Field(min_length=1)]
    variants: list[Row]
    parents: dict[str, list[RunId]]
    cells: Cells
    search: Searched | None = None
    design: Designed | None = None
    labels: dict[str, str] = {}
    groups: list[Group] = []
    axes: list[Axis] = []
    accepted: list[AcceptedRun] = []
    asked: Again | None = None
    content: str | None = None

    def model_post_init(self, _: Any) -> None:
        rows, stages = {row.name for row in self.variants}, {stage.name for stage in self.stages}
        if self.baseline is not None and self.baseline not in rows:
            raise ValueError("baseline: no row of this name")
        if self.search is None and not all(cell[0] in rows and cell[2] in stages for cell in self.cells):
            raise ValueError("cells: of a row or a stage that there is not")
        if self.looks and (self.population or len(self.baseline_looks or self.looks) != len(self.looks)):
            raise ValueError("looks: for new images, or not as many as of the baseline")
        if self.design is not None and set(self.design.rows) != rows:
            raise ValueError("design: not of these rows")
        if self.parents:
            graphlib.TopologicalSorter(self.parents).prepare()  # a CycleError is a ValueError


class Record(File):
    """A line of an archive's records.jsonl."""

    run: RunId
    recipe: Recipe
    owner: dict[str, Any]
    outcome: Outcome | None
    attempt: Number | None = None


class Listed(File):
    bytes: Count
    sha256: str


class Manifest(File):
    runs: Count
    files: dict[str, Listed]


class Declared(File):
    seeds: dict[str, list[Count]]
    looks: list[Number] | None = None
    metric: str | None = None
    margin: Amount | None = None
    population: bool | None = None
    baseline: str | None = None
    baseline_seeds: Count | None = None
    rows: list[str] | None = None
    finished_runs_then: Count = 0


class Accepted(File):
    runs: dict[RunId, AcceptedRun]


class TrialRequest(File):
    row: str
    params: dict[str, Any]
    run: RunId | None
    optuna: dict[str, Any] | None = None


class Hold(File):
    how: str = Field(alias="class")
    message: str
    runs: list[str]


class Lift(File):
    time: float


class HubWeights(File):
    sha256: str


class SubmittedRun(File):
    run: RunId
    after: Count
    retry: bool = False


class Submission(File):
    name: str
    launcher: Owner
    cluster: str
    runs: list[SubmittedRun]
    runs_per_element: Annotated[int, Field(ge=1)] = 1
    arguments: list[str]
    code: str


class SubmittedJob(File):
    job: str
    time: Amount


def read(path: Path, kind: type[File]) -> dict[str, Any] | None:
    """The content of a file of this kind, or None where there is none. Raises Damaged."""
    content = files.read_regular(path)
    return None if content is None else checked(path, files.parse_json(path, content), kind)


def read_lines(path: Path, kind: type[File]) -> list[dict[str, Any]]:
    """The same of a file of JSON lines that may be growing: a torn last line is left out, any other is damage."""
    return [checked(path, line, kind, number) for number, line in enumerate(files.read_lines(path), start=1)]


def checked(path: Path, content: Any, kind: type[File], line: int = 0) -> dict[str, Any]:
    """The content, which is of this kind. Raises Damaged."""
    if not isinstance(content, dict):
        raise Damaged(path, "no JSON object", line)
    schema = content.get("schema", SCHEMA)
    if isinstance(schema, bool) or not isinstance(schema, int) or schema < 1:
        raise Damaged(path, "schema is no number", line)
    if schema > SCHEMA:
        told = f"schema {str(schema)[:9]}, here {SCHEMA}"
        raise Damaged(path, f"written by a later version of deit-ablate, which can read it ({told})", line)
    try:
        kind.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        raise Damaged(path, f"{key}: {first['msg']}" if key else first["msg"], line) from None
    return content


def must_belong(path: Path, stored: dict[str, Any], run: str, line: int = 0) -> None:
    """Raises Damaged where a recipe, with its parents and sources, is not the one of this run."""
    if not belongs(run, stored) or stored.get("run", run) != run:
        which = f"this id ({run})" if line else "this run's id"
        raise Damaged(path, f"its recipe does not give {which}", line)
