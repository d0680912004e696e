"""How runs are executed: none of it is part of a run's identity, all of it is recorded."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from pydantic.json_schema import SkipJsonSchema

from deit_ablate.errors import InputError

SAVED = 75
"""A worker's exit code for "saved, more to do"."""


CLEAN_PATH = "import sys; sys.path[:] = filter(None, sys.path); "
"""How each Python of ours begins, as ``python -P`` does from 3.11 on: without the current folder on its path, where a
user's ``token.py`` or ``html.py`` may lie. One's own modules are installed, or on PYTHONPATH."""


def own_process(module: str, *arguments: str) -> list[str]:
    """The command that calls a module's ``main`` in a process of its own: of the folder ``home``, so that it is always
    of the version that has started it."""
    begin = f"{CLEAN_PATH}home = sys.argv.pop(1); home in sys.path or sys.path.insert(0, home); "
    call = f"from {module} import main; sys.exit(main(sys.argv[1:]))"
    return [sys.executable, "-c", begin + call, str(Path(__file__).parent.parent), *arguments]


def worker_command(*arguments: str) -> list[str]:
    """The command that starts a worker, or what DEIT_ABLATE_WORKER has instead.

    That is for a Python that only a container has: ``DEIT_ABLATE_WORKER="apptainer exec image.sif python -m
    deit_ablate.worker"``.
    """
    if given := os.environ.get("DEIT_ABLATE_WORKER"):
        return [*shlex.split(given), *arguments]
    return own_process("deit_ablate.worker.__main__", *arguments)


MARK = b"\x1e"
"""What begins an answer (as in RFC 7464): a site's banner, a library's or a user's module may print on the same stream,
before the first line of ours runs."""


def answer_line(answer: Any) -> bytes:
    """An answer as a worker writes it. After all of them it writes None: without that, some are missing."""
    return MARK + json.dumps(answer).encode() + b"\n"


def answers_among(lines: Iterable[bytes], printed: IO[bytes]) -> Iterator[Any]:
    """The answers among the lines that a worker has written; what else they hold goes to ``printed``."""
    for line in lines:
        before, mark, text = line.rpartition(MARK)
        try:
            answer = json.loads(text) if mark else None
        except ValueError:
            mark = b""
        printed.write(before if mark else line)
        if mark:
            yield answer


def worker_answers(
    mode: str, request: Any = None, *, shown: bool = False, environment: Mapping[str, str] = os.environ
) -> Iterator[Any]:
    """The answers of a worker process, which may import torch, as they come. ``shown``: what it prints besides goes to
    the terminal. Raises WorkerFailed where it cannot be started, or ends before it has answered everything."""
    with contextlib.ExitStack() as opened:
        printed = sys.stderr.buffer if shown else opened.enter_context(tempfile.TemporaryFile("a+b"))
        try:
            process = opened.enter_context(
                subprocess.Popen(
                    worker_command(mode), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=printed, env=environment
                )
            )
        except OSError as error:
            raise WorkerFailed(f"cannot be started: {error}") from None
        assert process.stdin
        assert process.stdout
        with contextlib.suppress(BrokenPipeError):  # it has ended before it read that: how, is said below
            process.stdin.write(json.dumps(request).encode())
            process.stdin.close()
        complete = False
        for answer in answers_among(process.stdout, printed):
            complete = answer is None
            if not complete:
                yield answer
        code = process.wait()
        if code != 0 or not complete:
            raise WorkerFailed(how_ended(code), "" if shown else last_printed(printed))


def how_ended(code: int) -> str:
    """An exit code, or minus the signal that killed a process, in words."""
    return f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"


def last_printed(printed: IO[bytes]) -> str:
    """The end of what a process has printed to this file, which is open for appending."""
    size = printed.seek(0, os.SEEK_END)
    printed.seek(max(0, size - 4000))
    return printed.read().decode(errors="replace").strip()


class WorkerFailed(InputError):
    """A process that imports torch could not do its part; the message has the last lines that it printed."""

    def __init__(self, how: str, printed: str = "") -> None:
        lines = [f"    | {line}" for line in printed.splitlines()[-8:]]
        shown = ["; the last that it printed:", *lines] if lines else [""]
        super().__init__(f"the worker process, which imports torch and timm, {how}" + "\n".join(shown))


def _whole(value: Any) -> Any:
    """YAML's ``1e2`` is a float; where a whole number is meant it is one."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole: TypeAlias = Annotated[int, BeforeValidator(_whole)]
Positive: TypeAlias = Annotated[Whole, Field(ge=1, le=2**31)]


class Part(BaseModel):
    """What a part of a user's file is parsed into: no unknown keys, no conversions of types, no change afterwards."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        populate_by_name=True,
        use_attribute_docstrings=True,
    )


ONE_OR_SEVERAL = BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
"""Of a list of texts: one by itself is a list, too."""
Word: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.,:=+@/-]*$", max_length=200)]
"""What may stand in an #SBATCH line: no blanks, quotes, line breaks or characters that a shell reads."""


OURS = re.compile(
    "array|job-name|output|error|input|dependency|requeue|no-requeue|open-mode|signal|time|nodes|ntasks|ntasks-per-node|"
    "cpus-per-task|gpus-per-node|mem|partition|account|qos|constraint|reservation|exclude|export|wrap|parsable|"
    "test-only|chdir"
)
"""Options of sbatch that have a setting of their own, or that the program needs for itself."""


def _not_ours(option: str) -> str:
    if OURS.fullmatch(option):
        raise ValueError(f"{option} has a setting of its own, or is set by the program")
    return option


def said(expected: str) -> WrapValidator:
    """One message for all that a value may be."""

    def check(value: Any, within: ValidatorFunctionWrapHandler) -> Any:
        try:
            return within(value)
        except ValidationError:
            raise ValueError(expected) from None

    return WrapValidator(check)


def _not_zero(limit: str | int) -> str | int:
    """sbatch takes zero for no limit at all."""
    if not str(limit).strip("0:-"):
        raise ValueError("a limit")
    return limit


class Slurm(Part):
    """What a run asks of a SLURM cluster. Names are sbatch's; what is left out is the cluster's default."""

    partition: Word | None = None
    """One partition, or several with commas between."""
    account: Word | None = None
    qos: Word | None = None
    constraint: Annotated[str, Field(pattern=r"^[A-Za-z0-9_\[(][A-Za-z0-9_.,:*&|()\[\]-]*$", max_length=200)] | None = (
        None
    )
    """Features that a node must have, such as a100&nvlink."""
    reservation: Word | None = None
    exclude: Word | None = None
    """Nodes not to use."""
    time: Annotated[
        Annotated[str, Field(pattern=r"^([0-9]+|([0-9]+-)?[0-9]{1,2}:[0-9]{2}:[0-9]{2})$")] | Positive,
        AfterValidator(_not_zero),
        said("minutes, or [D-]HH:MM:SS"),
    ] = 60
    """Time limit of a job: minutes, or [D-]HH:MM:SS. A run that needs more takes several turns."""
    nodes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Nodes of one run; its ranks are spread evenly over them."""
    gpus: Annotated[int, Field(ge=0, le=4096)] | None = None
    """GPUs of one run, or of those that share one; by default one a rank, none where the device is cpu."""
    cpus: Annotated[int, Field(ge=1, le=1024)] | None = None
    """CPUs of one rank; by default its threads and loaders, or 8 (of runs that share a GPU each its share of 8) with a
    GPU whose loaders are not said."""
    memory: Annotated[str, Field(pattern=r"^[0-9]+[KMGT]?$")] | None = None
    """Memory of one node, such as 32G; runs that share a GPU share it."""
    signal_delay: Annotated[int, Field(ge=10, le=3600)] = 90
    """Seconds before the time limit at which a run is told to save."""
    array_parallelism: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Runs of one array at once."""
    setup: list[Annotated[str, Field(pattern=r"^[^\r\n\x00]*$", max_length=2000)]] = []
    """Shell lines that a job runs first, such as `module load cuda`. They are code, and run as you."""
    extra: dict[Annotated[str, Field(pattern=r"^[a-z][a-z-]*$"), AfterValidator(_not_ours)], Word] = {}
    """Further options of sbatch by their long names, such as {mail-type: FAIL}."""

    @property
    def minutes(self) -> int:
        """The time limit in whole minutes."""
        if isinstance(self.time, int) or ":" not in self.time:
            return max(1, int(self.time))
        days, _, clock = self.time.rpartition("-")
        hours, minutes, seconds = (int(part) for part in clock.split(":"))
        return max(1, int(days or 0) * 1440 + hours * 60 + minutes + (seconds > 0))


_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)(?:[^/\s?#@]*@)?([^/\s?#'\"]*)([^\s'\"]*)")


def hosts_only(text: str) -> str:
    """A text with the hosts alone of its URLs, whose other parts may be secrets."""
    return _URL.sub(lambda url: f"{url[1]}{url[2]}{'/...' if url[3].strip('/') else ''}", text)


def _call(value: Any) -> Any:
    """A webhook as it is, a command as the list of its words. The values are not shown: they may be secrets."""
    words = value
    if value is None:
        return None
    if isinstance(value, str):
        if value.startswith(("https://", "http://")) and not re.search(r"\s", value):
            return value
        try:
            words = [] if _SCHEME.match(value) else shlex.split(value)
        except ValueError:
            words = []
    if not (isinstance(words, list) and words and all(isinstance(word, str) and "\0" not in word for word in words)):
        raise ValueError("a URL of http or https, or a command: its words, or one text with quotes where it needs them")
    return words


def _sound_pattern(text: str) -> str:
    try:
        found = re.compile(text)
    except re.error as error:
        raise ValueError(f"a regular expression ({error})") from None
    if not found.groupindex:
        raise ValueError("a regular expression with named groups, such as 'accuracy: (?P<top1>[0-9.]+)'")
    return text


class MetricsFile(Part):
    """Where a program leaves its metrics, and which of them are read for what."""

    file: str | None = None
    """JSON lines, CSV, or one JSON object, with ``{run}`` for the run's folder; by its end .jsonl, .csv or .json. A
    ``*`` stands for a name that is not known beforehand, of one file. A function logs instead (``run.log``)."""
    pattern: Annotated[str, AfterValidator(_sound_pattern)] | None = None
    """Of a file that is none of these, or of what the program prints (``{log}``): a regular expression whose named
    groups are metrics, looked for in each line."""
    primary: str
    """The metric that the verdicts are of, at its last value."""
    validation: str | None = None
    """The metric by which a search chooses."""
    predictions: str | None = None
    """An .npz file with ``targets`` and ``predictions``, the classes of the test images (N,) in one order, and
    ``confidence`` where it is known."""


class ProgramExecution(Part):
    """How the runs of a program are executed; a sweep file says it, and a worker is told."""

    folder: str
    """The folder in which it runs: that of the sweep file."""
    command: bool = True
    """Whether it is a command, whose worker needs no torch."""
    metrics: MetricsFile
    required: bool = True
    """Whether a run must have the primary metric: all but those that are only parents of others."""
    grace: Positive = 60
    """Seconds between a SIGTERM, which asks it to save and stop, and a SIGKILL."""


def _not_by_hand(value: Any, info: ValidationInfo) -> Any:
    if info.mode == "python" and value is not None:  # of a user's file; what a worker is told is JSON
        raise ValueError("nothing: `command:`, `trainer:` and `metrics:` at the top of the sweep say it")
    return value


class Needs(Part):
    """What a run takes of a machine, and how it computes: what a sweep's rows and stages may have of their own."""

    runs_per_gpu: Annotated[int, Field(ge=1, le=64)] = 1
    """Runs that share a GPU, each with its share of the memory at most: for models that leave most of a GPU idle. On
    SLURM so many runs are one element of a job array, with a GPU or, where the device is cpu, without."""
    threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """CPU threads of a run. Another number changes the bits of a result."""
    loaders: Annotated[int, Field(ge=0, le=256)] | None = None
    """Data-loading processes of a rank; by default none on a CPU and for data that a GPU augments itself, else one a
    core less one, at most 16."""
    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    ranks: Annotated[int, Field(ge=1, le=4096)] = 1
    """Processes (and GPUs) of one run, under DistributedDataParallel; its batch is shared out among them."""
    accumulation: Annotated[int, Field(ge=1, le=4096)] = 1
    """Parts in which a rank computes its share of a batch, one after the other, to need less memory."""
    compile: Annotated[
        bool | Literal["reduce-overhead", "max-autotune"], said("true, false, reduce-overhead or max-autotune")
    ] = False
    """torch.compile the model; by one of its modes, reduce-overhead (CUDA graphs, for small models) or max-autotune."""
    channels_last: bool = False
    """Keep images and convolutions in the channels-last layout."""
    evaluate_every: Annotated[int, Field(ge=1)] | None = None
    """Epochs between two scores on the validation part, beside the last one; by default as many as keep them at 3% of
    the training, and each where a search prunes by them."""
    deterministic: bool = False
    """Only algorithms that give the same bits each time (on a GPU; a CPU does so anyway)."""
    slurm: Slurm = Slurm()
    program: SkipJsonSchema[Annotated[ProgramExecution | None, BeforeValidator(_not_by_hand)]] = None
    """Of runs by a program: a command or a function of one's own."""

    @property
    def gpus(self) -> int:
        """GPUs of a run on a machine that has some: one a rank. A program starts its processes itself, and has as many
        as it asks for of a cluster."""
        return self.ranks if self.program is None else self.slurm.gpus or 1


class Execution(Needs):
    """How runs are executed; none of it is part of a run's identity, all of it is recorded."""

    executor: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$", max_length=80)] = "local"
    """Where runs are executed: local (this machine), slurm (a cluster), or one that an installed package registers."""
    parallel: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Runs at once; by default one a core, or ``runs_per_gpu`` a GPU."""
    data_dir: str | None = None
    """Folder of the data set; DEIT_ABLATE_DATA and --data-dir say it too."""
    stage_data: str | None = None
    """A folder on a local disk to which the data set is copied once; $SLURM_TMPDIR where that is set."""

    track: Annotated[list[Annotated[str, Field(max_length=80)]], ONE_OR_SEVERAL] = []
    """Experiment trackers to which the launcher passes on what its runs record, as they go: tensorboard, wandb, mlflow,
    trackio."""
    notify: Annotated[str | list[str] | None, BeforeValidator(_call)] = None
    """What is told, in one line, that a launch has ended, is held or was interrupted: a webhook (a JSON object with the
    key `text` is posted), or a command (the line is its standard input, and DEIT_ABLATE_MESSAGE). The environment
    variable DEIT_ABLATE_NOTIFY says it too: the address of a webhook is a secret, and a sweep file is shared."""

    def to_json(self) -> str:
        """What a worker is told, as ``from_json`` reads it."""
        return self.model_dump_json(exclude=set(OF_THE_LAUNCHER), exclude_defaults=True)

    @classmethod
    def from_json(cls, text: str) -> Execution:
        return cls.model_validate_json(text)

    def record(self) -> dict[str, Any]:
        """What is recorded with an attempt: all that a worker is told, less its paths."""
        return self.model_dump(exclude={*OF_THE_LAUNCHER, "data_dir", "stage_data", "program"})


AnyNeeds = TypeVar("AnyNeeds", bound=Needs)


def layered(below: AnyNeeds, above: Needs) -> AnyNeeds:
    """``below`` with what was set in ``above``; of ``slurm`` key by key."""
    values = {key: getattr(above, key) for key in above.model_fields_set}
    if "slurm" in values:
        of_slurm = {key: getattr(above.slurm, key) for key in above.slurm.model_fields_set}
        values["slurm"] = below.slurm.model_copy(update=of_slurm)
    return below.model_copy(update=values)


OF_THE_LAUNCHER = ("executor", "slurm", "parallel", "track", "notify")
"""Options that decide where and when a run is executed; its worker is not told them."""
FIXED = ("threads", "compile", "channels_last", "deterministic", "evaluate_every")
"""Options that change the bits of a record: a run's first attempt decides them for its life."""
