"""Runs as jobs of a SLURM cluster, through submitit: the batch script, and what runs inside the job.

A job is an element of an array; it executes one run, or as many at once as ``runs_per_gpu`` says. submitit writes the
script and wraps the job: it loads ``Element`` from a pickle, calls it, and on the signal before a time limit or a
preemption asks its ``checkpoint`` to save, and requeues the job. The script itself links the pickle to the name that
submitit expects, so that a job whose launcher died right after sbatch is as good as any other.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from deit_ablate.errors import Damaged, InputError
from deit_ablate.execution import CLEAN_PATH, SAVED, Execution, worker_command
from deit_ablate.launch.jobs import is_due
from deit_ablate.launch.status import close_ended
from deit_ablate.store import Store, schema

PICKLE = "element.pkl"
CPUS_BESIDE_GPU = 8
"""Where loaders are not said: what nodes of 4 to 8 GPUs have for each."""
TO_SAVE = (SAVED, -signal.SIGTERM)
"""How a worker ends that was told to save: by itself, or before it could be told."""
GRACE = 20.0
"""Seconds that rank 0 has to see that another is lost, and to record so."""
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
    """The batch script of an array for ``count`` runs. A pure function of its arguments; no value reaches a shell
    unquoted but the ``setup`` lines, which are code."""
    from submitit.slurm.slurm import _make_sbatch_string

    slurm, together = execution.slurm, execution.runs_per_gpu
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
        cpus_per_task=cpus(execution) * together,
        gpus_per_node=-(-gpus(execution) // slurm.nodes) or None,
        mem=slurm.memory,
        exclude=excluded or None,
        dependency=f"afterany:{':'.join(after)}" if after else None,
        signal_delay_s=slurm.signal_delay,
        array_parallelism=max(1, slurm.array_parallelism // together),
        map_count=-(-count // together),
        stderr_to_stdout=True,
        setup=setup,
        additional_parameters={"requeue": True, **reservation, **slurm.extra},
        srun_args=["--kill-on-bad-exit=1"] if execution.ranks > 1 else None,
    )
    return str(text)


def gpus(execution: Execution) -> int:
    """GPUs of one run, or of the runs that share one."""
    gpus = execution.slurm.gpus
    return gpus if gpus is not None else 0 if execution.device == "cpu" else execution.ranks


def cpus(execution: Execution) -> int:
    """CPUs of one rank of one run."""
    if execution.slurm.cpus:
        return execution.slurm.cpus
    if execution.loaders is None:  # the run itself sees how many it has got (loader.loaders_of)
        return max(execution.threads, CPUS_BESIDE_GPU // execution.runs_per_gpu if gpus(execution) else 1)
    return execution.threads + execution.loaders


def must_be_possible(execution: Execution) -> None:
    """Raises InputError for what no cluster gives."""
    if execution.runs_per_gpu > 1 and max(execution.ranks, gpus(execution)) > 1:
        has = f"{execution.ranks} ranks" if execution.ranks > 1 else f"{gpus(execution)} GPUs"
        raise InputError(
            f"a run of {has} shares none with others on SLURM",
            key="execution.runs_per_gpu",
            expected="1, or runs of one rank on one GPU",
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
    """What submitit pickles: strings and numbers. Called in the job, it executes the runs at the array's index, one or
    those that share a GPU, each by a worker of its own."""

    results: str
    submission: int
    seconds: float
    """The job's time limit."""
    signal_delay: float
    # With defaults of the class: an earlier version's pickle has none of them.
    _workers: tuple[tuple[str, subprocess.Popen[bytes]], ...] = field(default=(), init=False, repr=False)
    """Each with its run."""
    _all_started: bool = field(default=False, init=False, repr=False)
    _saving: bool = field(default=False, init=False, repr=False)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __call__(self) -> int:
        """The exit code of the first of its workers that ended with another than 0. A rank that failed exits with 1, so
        that SLURM ends the others."""
        path = Path(self.results) / "submissions" / f"{self.submission}.json"
        content = schema.read(path, schema.Submission)
        if content is None:
            raise Damaged(path, "missing")
        together = content.get("runs_per_element", 1)
        first = int(os.environ["SLURM_ARRAY_TASK_ID"]) * together
        deadline = time.monotonic() + self.seconds - 2 * self.signal_delay
        meeting = self._meeting()
        environment = {**os.environ, **meeting, "DEIT_ABLATE_DEADLINE": str(deadline)}
        if cpus := os.environ.get("SLURM_CPUS_PER_TASK"):
            environment["DEIT_ABLATE_CORES"] = str(max(1, int(cpus) // together))
        # SLURM signals every process of a step: submitit's signal is for this one, which passes it on as SIGTERM.
        ignore: Callable[[], object] = partial(signal.signal, signal.SIGUSR2, signal.SIG_IGN)
        for run, again in self._due(content["runs"][first : first + together]):
            arguments = ["run", self.results, run, *content["arguments"], *(["--retry"] if again else [])]
            command = worker_command(*arguments)
            self._workers += ((run, subprocess.Popen(command, env=environment, preexec_fn=ignore)),)
        self._all_started = True
        ended = self._wait()
        leads = os.environ.get("SLURM_PROCID", "0") == "0"
        if any(code in TO_SAVE for code in ended) and not self._saving and leads and _runs_still():
            # Told to save by SIGTERM, which submitit passes over; where SLURM itself requeues, the job runs no more.
            subprocess.run(["scontrol", "requeue", _job()], timeout=60, check=False)
        failed = next((code for code in ended if code), 0)
        if meeting and failed not in (0, *TO_SAVE):
            self._await_word(self._workers[0][0])
            raise SystemExit(1)
        return failed

    def _await_word(self, run: str) -> None:
        """Until rank 0 has recorded that the run failed. Where it cannot see so, it would wait for the lost rank,
        on a GPU for hours."""
        store, end = Store(self.results), time.monotonic() + GRACE
        while time.monotonic() < end and any(attempt.exit is None for attempt in store.attempts(run)[-1:]):
            time.sleep(0.2)

    def _due(self, entries: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, bool]]:
        """The runs to be started, and whether a failure is tried again: of a requeued job those that are not over."""
        store = Store(self.results)
        for entry in entries:
            run, after = entry["run"], entry["after"]
            state = store.state(run, {})
            if is_due(state, after):
                yield run, bool(entry.get("retry")) and state.attempt <= after
            else:
                print(f"{run}: {state}", file=sys.stderr, flush=True)

    def checkpoint(self) -> Any:
        """Called by submitit on its signal: save all runs; None (no requeue) where all are over."""
        from submitit.helpers import DelayedSubmission

        self._saving = True
        for _, worker in self._workers:
            if worker.poll() is None:
                worker.send_signal(signal.SIGTERM)
        left = any(code in TO_SAVE for code in self._wait()) or not self._all_started
        return DelayedSubmission(self) if left else None

    def _wait(self) -> list[int]:
        """For all workers; their exit codes. By polling: a signal's handler may wait for them while the main program
        does. Of a worker that dies while others go on, only this process can say so; of the last one SLURM can."""
        told: set[str] = set()
        while True:
            ended = {run: code for run, worker in self._workers if (code := worker.poll()) is not None}
            if len(ended) == len(self._workers):
                return list(ended.values())
            for run in ended.keys() - told:
                told.add(run)
                if ended[run] not in (0, *TO_SAVE):
                    with contextlib.suppress(OSError):
                        close_ended(Store(self.results), run, ended[run])
            time.sleep(0.1)

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
