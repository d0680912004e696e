"""The batch script, as text."""

from __future__ import annotations

import os
import pickle
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from support import JOB, planned, wait_for

from deit_ablate.errors import InputError
from deit_ablate.execution import Execution, Slurm
from deit_ablate.launch import slurm_script
from deit_ablate.launch.jobs import Work
from deit_ablate.launch.slurm import SlurmExecutor
from deit_ablate.store import State, Store
from deit_ablate.store.submissions import Submissions
from deit_ablate.sweep.plan import Run


def test_the_batch_script_asks_for_what_a_run_needs_and_quotes_what_users_wrote(tmp_path: Path) -> None:
    how = Execution(
        executor="slurm",
        ranks=8,
        threads=2,
        loaders=6,
        slurm=Slurm(
            partition="gpu,dev",
            account="vision",
            time="1-12:30:00",
            nodes=2,
            memory="64G",
            constraint="a100&nvlink",
            exclude="bad1",
            setup=["module load cuda"],
            extra={"mail-type": "FAIL"},
            array_parallelism=3,
        ),
    )
    text = slurm_script.script(
        tmp_path / "with $HOME space",
        name="deit-ablate-4-abc",
        execution=how,
        count=5,
        code=Path("/x/code y"),
        after=["12_0", "13"],
        exclude=["bad2"],
        python="/opt/my python",
    )
    lines = text.splitlines()
    for expected in (
        "#SBATCH --array=0-4%3",
        "#SBATCH --nodes=2",
        "#SBATCH --ntasks-per-node=4",
        "#SBATCH --gpus-per-node=4",
        "#SBATCH --cpus-per-task=8",
        "#SBATCH --mem=64G",
        "#SBATCH --time=2190",
        "#SBATCH --signal=USR2@90",
        "#SBATCH --requeue",
        "#SBATCH --partition=gpu,dev",
        "#SBATCH --account=vision",
        "#SBATCH --constraint='a100&nvlink'",
        "#SBATCH --exclude=bad1,bad2",
        "#SBATCH --dependency=afterany:12_0:13",
        "#SBATCH --job-name=deit-ablate-4-abc",
        "#SBATCH --mail-type=FAIL",
        "module load cuda",
    ):
        assert expected in lines, text
    assert "'/opt/my python' -u -c " in text
    assert subprocess.run(["bash", "-n"], input=text, text=True).returncode == 0
    shell = "\n".join(line for line in lines if line.startswith(("export PYTHONPATH", "ln "))) + "\necho $PYTHONPATH"
    (tmp_path / "with $HOME space").mkdir()
    said = subprocess.run(
        ["bash"], input=shell, capture_output=True, text=True, env={**os.environ, **JOB, "PYTHONPATH": "mine"}
    )
    assert said.stdout.strip() == "/x/code y:mine"
    assert os.readlink(tmp_path / "with $HOME space" / "7_0_submitted.pkl") == slurm_script.PICKLE


@pytest.mark.parametrize(
    ("execution", "asks"),
    [
        (Execution(runs_per_gpu=4, loaders=2), {"array=0-2%2", "cpus-per-task=12", "gpus-per-node=1"}),
        (Execution(runs_per_gpu=9), {"array=0-0%1", "cpus-per-task=9", "gpus-per-node=1"}),
        (Execution(runs_per_gpu=2, device="cpu", threads=3), {"array=0-4%4", "cpus-per-task=6"}),
    ],
)
def test_runs_that_share_a_gpu_are_one_element_with_the_cpus_of_all(
    tmp_path: Path, execution: Execution, asks: set[str]
) -> None:
    at_once = execution.model_copy(update={"slurm": Slurm(array_parallelism=8)})
    text = slurm_script.script(tmp_path, name="n", execution=at_once, count=9, code=tmp_path)
    asked = {line.removeprefix("#SBATCH --") for line in text.splitlines()}
    assert asks == {line for line in asked if line.startswith(("array=", "cpus-", "gpus-"))}


WORKER = """
import json, os, signal, sys, time
from deit_ablate.store import Refused, Store
store, run, more, stop = Store(sys.argv[2]), sys.argv[3], sys.argv[4:], []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
attempt = store.claim(run, retry="--retry" in more)
attempt.beat(told=more, cores=os.environ["DEIT_ABLATE_CORES"])
while not stop:
    if (store.run(run) / "end").exists():
        attempt.close((store.run(run) / "end").read_text())
        sys.exit(1)
    time.sleep(0.01)
attempt.close("preempted")
sys.exit(75)
"""
"""In place of the worker: claims its run and waits, until it is told to save, or how to fail."""


class Job:
    """A job that is the second element of an array of five runs, two an element."""

    def __init__(self, store: Store, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.store, self.folder = store, path.parent
        plan = planned(path)
        self.all, (_, _, *self.runs, _) = list(plan.runs), plan.runs
        for run in plan.runs.values():
            store.register(run.id, run.recipe, run.parents, run.sources)
        entries = [{"run": run, "after": 0} for run in plan.runs]
        store.claim(self.runs[0]).close("crash")
        entries[2] |= {"after": 1, "retry": True}
        content = {"name": "n", "launcher": {"nonce": "n"}, "cluster": "c", "arguments": ["--sweep", "s"], "code": "c"}
        assert Submissions(store).announce(1, {**content, "runs": entries, "runs_per_element": 2})
        (self.folder / "worker.py").write_text(WORKER)
        (self.folder / "squeue").write_text("#!/bin/sh\necho RUNNING\n")
        (self.folder / "scontrol").write_text(f'#!/bin/sh\necho "$@" >>{self.folder}/asked\n')
        for name in ("squeue", "scontrol"):
            (self.folder / name).chmod(0o755)
        monkeypatch.setenv("PATH", str(self.folder), prepend=os.pathsep)
        monkeypatch.setenv("DEIT_ABLATE_WORKER", shlex.join([sys.executable, str(self.folder / "worker.py")]))
        for name, value in {**JOB, "SLURM_ARRAY_TASK_ID": "1", "SLURM_CPUS_PER_TASK": "6"}.items():
            monkeypatch.setenv(name, value)
        self.pickle = pickle.dumps(slurm_script.Element(str(store.root), 1, 600, 90))
        self.process = ThreadPoolExecutor(1)

    def start(self) -> tuple[slurm_script.Element, Future[int]]:
        element = pickle.loads(self.pickle)
        return element, self.process.submit(element)

    def working(self, *numbers: int) -> list[int]:
        """The processes that work at these attempts, once all do."""
        found = [self.store.attempts(run) for run in self.runs]
        begun = [of_run[-1] for of_run, number in zip(found, numbers, strict=True) if len(of_run) == number]
        if len(begun) < 2 or any(attempt.exit or not attempt.read_beat() for attempt in begun):
            return []
        return [attempt.owner["pid"] for attempt in begun]

    def told(self) -> list[dict[str, object]]:
        """What each of the latest attempts was told."""
        beats = [self.store.attempts(run)[-1].read_beat() or {} for run in self.runs]
        return [{key: beat[key] for key in ("told", "cores")} for beat in beats]

    def ends(self) -> list[list[str]]:
        return [[(attempt.exit or {}).get("class", "") for attempt in self.store.attempts(run)] for run in self.runs]


def test_an_element_executes_its_runs_at_once_and_after_a_requeue_those_that_are_left(
    store: Store, sweep: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = Job(store, sweep("seeds: 5\nvariants: {a: {}}\n"), monkeypatch)
    element, over = job.start()
    first, second = wait_for(lambda: job.working(2, 1))
    assert job.told() == [
        {"told": ["--sweep", "s", "--retry"], "cores": "3"},
        {"told": ["--sweep", "s"], "cores": "3"},
    ], "the one that had failed is tried again, and each has its part of the CPUs"
    os.kill(first, signal.SIGKILL)
    assert wait_for(lambda: job.ends()[0] == ["crash", "killed"]), "while the other goes on"
    os.kill(second, signal.SIGTERM)
    assert over.result(60) == -signal.SIGKILL
    assert (job.folder / "asked").read_text() == "requeue 7_1\n", "by whoever was told to save"
    assert job.ends() == [["crash", "killed"], ["preempted"]]

    element, over = job.start()
    first, _ = wait_for(lambda: job.working(3, 2))
    assert job.told() == [{"told": ["--sweep", "s"], "cores": "3"}] * 2, "the retry was used"
    (store.run(job.runs[0]) / "end").write_text("crash")
    wait_for(lambda: not Path(f"/proc/{first}").exists())
    assert element.checkpoint() is not None, "the signal before a time limit: to be requeued, as one is not over"
    assert over.result(60) == 1
    assert (job.folder / "asked").read_text() == "requeue 7_1\n", "not by the element: by submitit"

    element, over = job.start()
    wait_for(lambda: len(job.ends()[1]) == 3)  # the other stays as it failed
    store.cancel(job.runs[1])
    (store.run(job.runs[1]) / "end").write_text("cancelled")
    assert over.result(60) == 1
    assert element.checkpoint() is None, "nothing is left"
    ends = [["crash", "killed", "crash"], ["preempted", "preempted", "cancelled"]]
    assert job.ends() == ends
    assert job.start()[1].result(60) == 0
    assert job.ends() == ends, "what failed or was cancelled is not started"
    assert not any(store.attempts(run) for run in job.all if run not in job.runs), "nor what is another element's"


RANK = {"SUBMITIT_EXECUTOR": "slurm", "SLURM_PROCID": "1", "SLURM_LOCALID": "0", "SLURM_NTASKS": "2"}
NODES = {"SLURM_JOB_NODELIST": "n1,n2", "SLURM_JOB_NUM_NODES": "2", "SLURM_NODEID": "1"}
"""The environment of the second of two ranks, on the second of two nodes."""


def test_ranks_meet_in_a_file_of_their_jobs_start_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not at a port that follows from the job's number, which two clusters and whatever else listens may share."""

    def meeting(results: str, restart: int) -> Mapping[str, str]:
        for name, value in {**JOB, "SLURM_RESTART_COUNT": str(restart), **RANK, **NODES}.items():
            monkeypatch.setenv(name, value)
        return slurm_script.Element(str(tmp_path / results), 3, 600, 90)._meeting()

    started = [meeting("one", 0), meeting("two", 0), meeting("one", 1)]
    assert len({each["DEIT_ABLATE_MEETING"] for each in started}) == 3
    for each in started:
        assert (each["RANK"], each["WORLD_SIZE"], each["MASTER_ADDR"]) == ("1", "2", "n1")
        assert Path(each["DEIT_ABLATE_MEETING"]).parent.name == "3", "beside the submission's other files"


def test_cpus_follow_what_is_asked_for() -> None:
    for execution, expected in (
        (Execution(device="cpu"), 1),
        (Execution(device="cpu", threads=4), 4),
        (Execution(loaders=6, threads=2), 8),
        (Execution(loaders=0), 1),
        (Execution(), 8),
        (Execution(threads=12), 12),
        (Execution(slurm=Slurm(gpus=0)), 1),
        (Execution(runs_per_gpu=4), 2),
        (Execution(runs_per_gpu=4, loaders=3), 4),
        (Execution(loaders=6, slurm=Slurm(cpus=3)), 3),
    ):
        assert slurm_script.cpus(execution) == expected, execution


@pytest.mark.parametrize(
    ("execution", "says"),
    [
        (Execution(ranks=4, slurm=Slurm(gpus=2)), "execution.slurm.gpus: 4 ranks need a GPU each, and 2 are asked for"),
        (Execution(runs_per_gpu=2, ranks=2), "execution.runs_per_gpu: a run of 2 ranks shares none with others"),
        (Execution(runs_per_gpu=2, slurm=Slurm(gpus=4)), "execution.runs_per_gpu: a run of 4 GPUs shares none"),
        (Execution(ranks=3, slurm=Slurm(nodes=2)), "execution.ranks: 3 ranks cannot be spread evenly over 2 nodes"),
    ],
)
def test_what_no_cluster_can_give_is_refused_of_any_row(tmp_path: Path, execution: Execution, says: str) -> None:
    """Before the cluster is asked for anything: here there is none."""
    runs = {run: Run(run, {}) for run in ("a", "b")}
    states = dict.fromkeys(runs, State("missing"))
    for own in ({}, {"b": execution}):
        usual = Execution(executor="slurm") if own else execution
        with pytest.raises(InputError, match=re.escape(says)):
            SlurmExecutor(Work(Store(tmp_path), None, runs, {}, states, usual, own=own))
