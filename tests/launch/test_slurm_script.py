"""The batch script, as text."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from support import JOB

from deit_ablate.errors import InputError
from deit_ablate.execution import Execution, Slurm
from deit_ablate.launch import slurm_script
from deit_ablate.launch.jobs import Work
from deit_ablate.launch.slurm import SlurmExecutor
from deit_ablate.store import State, Store
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
        (Execution(loaders=6, slurm=Slurm(cpus=3)), 3),
    ):
        assert slurm_script.cpus(execution) == expected, execution


@pytest.mark.parametrize(
    ("execution", "says"),
    [
        (Execution(ranks=4, slurm=Slurm(gpus=2)), "execution.slurm.gpus: 4 ranks need a GPU each, and 2 are asked for"),
        (Execution(runs_per_gpu=2), "execution.runs_per_gpu: runs share a GPU on one machine alone"),
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
