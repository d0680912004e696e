"""Runs as jobs of a SLURM cluster, through submitit: the batch script, and what runs inside the job.

submitit writes the script and wraps the job: it loads ``Element`` from a pickle, calls it, and on the signal before
a time limit or a preemption asks its ``checkpoint`` to save, and requeues the job. The script itself links the pickle
to the name that submitit expects, so that a job whose launcher died right after sbatch is as good as any other.
"""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from deit_ablate.errors import Damaged, InputError
from deit_ablate.execution import CLEAN_PATH, SAVED, Execution, worker_command
from deit_ablate.store import schema

PICKLE = "element.pkl"
CPUS_BESIDE_GPU = 8
"""Of a rank whose loaders are not said: what nodes of 4 to 8 GPUs have for each."""
REQUEUES = 10**6
"""Of a job on its time limit; a run that gets nowhere is ended by its own rule (no progress)."""


def script(
    folder: Path,
    *,
    name: str,
    execution: Execution,
    count: int,
    code: Path,
    after: Sequence[str] = (),
    exclude: Sequence[str] = (),
    python: str = sys.executable,
) -> str:
    """The batch script of an array of ``count`` runs. A pure function of its arguments; no value reaches a shell
    unquoted but the ``setup`` lines, which are code."""
    from submitit.slurm.slurm import _make_sbatch_string

    slurm = execution.slurm
    ranks = max(1, execution.ranks // slurm.nodes)
    excluded = ",".join([*([slurm.exclude] if slurm.exclude else []), *exclude])
    link = shlex.quote(f"{folder}/") + '"${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}_submitted.pkl"'
    setup = [
        *slurm.setup,
        f'export PYTHONPATH={shlex.quote(str(code))}"${{PYTHONPATH:+:$PYTHONPATH}}"',
        f"ln -sf {PICKLE} {link}",
    ]
    begin = f"{CLEAN_PATH}from submitit.core.submission import submitit_main; submitit_main()"
    reservation = {"reservation": slurm.reservation} if slurm.reservation else {}
    text = _make_sbatch_string(
        command=shlex.join([python, "-u", "-c", begin, str(folder)]),
        folder=folder,
        job_name=name,
        partition=slurm.partition,
        account=slurm.account,
        qos=slurm.qos,
        constraint=slurm.constraint,
        time=slurm.minutes,
        nodes=slurm.nodes,
        ntasks_per_node=ranks,
        cpus_per_task=cpus(execution),
        gpus_per_node=-(-gpus(execution) // slurm.nodes) or None,
        mem=slurm.memory,
        exclude=excluded or None,
        dependency=f"afterany:{':'.join(after)}" if after else None,
        signal_delay_s=slurm.signal_delay,
        array_parallelism=slurm.array_parallelism,
        map_count=count,
        stderr_to_stdout=True,
        setup=setup,
        additional_parameters={"requeue": True, **reservation, **slurm.extra},
    )
    return str(text)


def gpus(execution: Execution) -> int:
    """GPUs of one run."""
    gpus = execution.slurm.gpus
    return gpus if gpus is not None else 0 if execution.device == "cpu" else execution.ranks


def cpus(execution: Execution) -> int:
    """CPUs of one rank."""
    if execution.slurm.cpus:
        return execution.slurm.cpus
    if execution.loaders is None:  # the run itself sees how many it has got (loader.loaders_of)
        return max(execution.threads, CPUS_BESIDE_GPU if gpus(execution) else 1)
    return execution.threads + execution.loaders


def must_be_possible(execution: Execution) -> None:
    """Raises InputError for what no cluster gives."""
    if execution.runs_per_gpu > 1:
        raise InputError(
            "runs share a GPU on one machine alone: each is an element of a job array here",
            key="execution.runs_per_gpu",
            expected="1, or --executor local within a job that has the GPU",
        )
    if 0 < (asked := gpus(execution)) < execution.ranks:
        raise InputError(
            f"{execution.ranks} ranks need a GPU each, and {asked} are asked for",
            key="execution.slurm.gpus",
            expected="one a rank, or 0",
        )
    if execution.ranks % execution.slurm.nodes:
        raise InputError(
            f"{execution.ranks} ranks cannot be spread evenly over {execution.slurm.nodes} nodes",
            key="execution.ranks",
            expected="a multiple of slurm.nodes",
        )


@dataclass
class Element:
    """What submitit pickles: strings and numbers. Called in the job, it executes the run at the array's index."""

    results: str
    submission: int
    seconds: float
    """The job's time limit."""
    signal_delay: float

    def __post_init__(self) -> None:
        self._worker: subprocess.Popen[bytes] | None = None
        self._saving = False

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_worker": None, "_saving": False}

    def __call__(self) -> int:
        path = Path(self.results) / "submissions" / f"{self.submission}.json"
        content = schema.read(path, schema.Submission)
        if content is None:
            raise Damaged(path, "missing")
        entry = content["runs"][int(os.environ["SLURM_ARRAY_TASK_ID"])]
        again = entry.get("retry") and os.environ.get("SLURM_RESTART_COUNT", "0") == "0"
        arguments = ["run", self.results, entry["run"], *content["arguments"], *(["--retry"] if again else [])]
        environment = {
            **os.environ,
            **self._meeting(),
            "DEIT_ABLATE_DEADLINE": str(time.monotonic() + self.seconds - 2 * self.signal_delay),
        }
        # SLURM signals every process of a step: submitit's signal is for this one, which passes it on as SIGTERM.
        ignore: Callable[[], object] = partial(signal.signal, signal.SIGUSR2, signal.SIG_IGN)
        self._worker = subprocess.Popen(worker_command(*arguments), env=environment, preexec_fn=ignore)
        ended = self._wait()
        first = os.environ.get("SLURM_PROCID", "0") == "0"
        if ended in (SAVED, -signal.SIGTERM) and not self._saving and first and _runs_still():
            # Told to save by SIGTERM, which submitit passes over; where SLURM itself requeues, the job runs no more.
            subprocess.run(["scontrol", "requeue", _job()], timeout=60, check=False)
        return ended

    def checkpoint(self) -> Any:
        """Called by submitit on its signal: save; None (no requeue) where the run is over."""
        from submitit.helpers import DelayedSubmission

        self._saving = True
        worker = self._worker
        if worker is not None:
            if worker.poll() is None:
                worker.send_signal(signal.SIGTERM)
            if self._wait() not in (SAVED, -signal.SIGTERM):
                return None
        return DelayedSubmission(self)

    def _wait(self) -> int:
        """By polling: a signal's handler may wait for the worker while the main program does."""
        assert self._worker is not None
        while (code := self._worker.poll()) is None:
            time.sleep(0.1)
        return code

    def _meeting(self) -> Mapping[str, str]:
        """Where several ranks meet (``train.distributed.join``): in a file of this job's start alone."""
        ranks = os.environ.get("SLURM_NTASKS", "1")
        if ranks == "1":
            return {}
        from submitit import JobEnvironment

        attempt = f"{os.environ['SLURM_JOB_ID']}-{os.environ.get('SLURM_RESTART_COUNT', '0')}"
        return {
            "RANK": os.environ["SLURM_PROCID"],
            "WORLD_SIZE": ranks,
            "LOCAL_RANK": os.environ["SLURM_LOCALID"],
            "MASTER_ADDR": JobEnvironment().hostnames[0],
            "DEIT_ABLATE_MEETING": f"{Path(self.results).absolute()}/submissions/{self.submission}/meeting-{attempt}",
        }


def _job() -> str:
    return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"


def _runs_still() -> bool:
    """Whether this job is neither cancelled nor being ended by SLURM, which would requeue it by itself."""
    listed = subprocess.run(
        ["squeue", "-h", "-j", _job(), "-o", "%T"], capture_output=True, text=True, timeout=60, check=False
    )
    return listed.stdout.strip() == "RUNNING"


def pickled(results: Path, submission: int, execution: Execution) -> bytes:
    """The element of a submission, as submitit loads it. It holds no code: classes are pickled by name."""
    import pickle

    from submitit.core.utils import DelayedSubmission

    element = Element(str(results), submission, 60.0 * execution.slurm.minutes, float(execution.slurm.signal_delay))
    delayed = DelayedSubmission(element)
    delayed.set_timeout(execution.slurm.minutes, REQUEUES)
    return pickle.dumps(delayed)
