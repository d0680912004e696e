"""What is given to a scheduler, and what its answers mean: the script as text, tickets, states."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import planned

from deit_ablate.errors import InputError
from deit_ablate.execution import Execution, Slurm
from deit_ablate.launch import slurm_commands, slurm_script
from deit_ablate.launch.slurm_commands import Answer
from deit_ablate.launch.status import Known
from deit_ablate.store import Store
from deit_ablate.store.submissions import Submissions
from deit_ablate.sweep.overrides import validate
from deit_ablate.sweep.yaml import Node

SWEEP = "seeds: 2\nvariants: {a: {}}\n"
JOB = {"SLURM_JOB_ID": "8", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "0", "SLURM_CLUSTER_NAME": "c"}


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
    ("time", "minutes"), [(5, 5), ("90", 90), ("1:30:00", 90), ("00:00:30", 1), ("2-00:00:00", 2880)]
)
def test_time_limits_are_minutes(time: Any, minutes: int) -> None:
    assert Slurm(time=time).minutes == minutes


@pytest.mark.parametrize("time", [0, -5, 1.5, True, "0", "0-00:00:00", "an hour", "1:30"])
def test_what_is_no_time_limit_is_one_message(time: Any) -> None:
    """Zero too, which sbatch would take for no limit at all."""
    where = ("s.yaml", 3, 7)
    node = Node({"slurm": Node({"time": Node(time, where)}, where)}, where)
    with pytest.raises(InputError) as caught:
        validate(Execution, node, ("execution",))
    expected = f"s.yaml:3:7: execution.slurm.time: got {json.dumps(time)}; expected minutes, or [D-]HH:MM:SS"
    assert str(caught.value) == expected


@pytest.mark.parametrize("value", ["a; rm -rf ~", "a\nb", "a b", "$(x)", "`x`", "-x", "'", ""])
def test_values_that_a_shell_would_read_are_refused(value: str) -> None:
    for name in ("partition", "account", "qos", "reservation", "exclude", "constraint"):
        with pytest.raises(ValueError, match=name):
            Slurm(**{name: value})
    with pytest.raises(ValueError, match="extra"):
        Slurm(extra={"array": "0-5"})
    with pytest.raises(ValueError, match="setup"):
        Slurm(setup=["ok", "a\nb"])


def test_every_state_of_slurm_says_whether_a_process_may_live() -> None:
    """By the list in squeue's manual (JOB STATE CODES)."""
    every = [
        "BOOT_FAIL",
        "CANCELLED",
        "COMPLETED",
        "CONFIGURING",
        "COMPLETING",
        "DEADLINE",
        "FAILED",
        "NODE_FAIL",
        "OUT_OF_MEMORY",
        "PENDING",
        "PREEMPTED",
        "RUNNING",
        "RESV_DEL_HOLD",
        "REQUEUE_FED",
        "REQUEUE_HOLD",
        "REQUEUED",
        "RESIZING",
        "REVOKED",
        "SIGNALING",
        "SPECIAL_EXIT",
        "STAGE_OUT",
        "STOPPED",
        "SUSPENDED",
        "TIMEOUT",
    ]
    kinds = (slurm_commands.WAITING, slurm_commands.RUNNING, frozenset(slurm_commands.OVER))
    assert [sum(state in kind for kind in kinds) for state in every] == [1] * len(every)
    answer = Answer("me", "c", {"1": "A_STATE_OF_NEXT_YEAR", "2": "SUSPENDED", "3": "REQUEUE_HOLD", "4": "NODE_FAIL"})
    assert [answer.runs(job) for job in "1234"] == [True, True, False, False], "what is not known may be alive"
    assert [answer.waits(job) for job in "12345"] == [False, False, True, False, False]


class Given:
    """Two runs of which the first was submitted as element 7_0 of one array, the second as 7_1."""

    def __init__(self, store: Store, path: Path) -> None:
        self.store, self.submissions = store, Submissions(store)
        plan = planned(path)
        self.runs, self.parents = list(plan.runs), plan.parents
        for run in plan.runs.values():
            store.register(run.id, run.recipe, run.parents, run.sources)
        entries = [{"run": run, "after": 0} for run in self.runs]
        assert self.submissions.announce(1, {"name": "n", "runs": entries, "launcher": {}, "cluster": "c"})
        self.submissions.note(1, "7")

    def says(self, name: str = "n", /, **states: str) -> list[str]:
        """The states of the runs by files and by this answer; none where nothing is given."""
        listed = {f"7_{index[1:]}": state for index, state in states.items()}
        answer = Answer(self.user, "c", listed, names=dict.fromkeys(listed, name)) if states else None
        return [str(state) for state in Known(self.store, self.parents).states(answer).values()]

    def attempt(self, monkeypatch: pytest.MonkeyPatch, restarts: int = 0) -> Any:
        """As if a job of the array had claimed the first run, on another machine."""
        for name, value in {**JOB, "SLURM_RESTART_COUNT": str(restarts)}.items():
            monkeypatch.setenv(name, value)
        attempt = self.store.claim(self.runs[0])
        for name in JOB:
            monkeypatch.delenv(name)
        owner = attempt.owner
        self.user = owner["job"]["user"]
        (attempt.path / "owner.json").write_bytes(
            __import__("json").dumps({**owner, "boot": "another", "machine": "another"}).encode()
        )
        return attempt

    user = "root"


@pytest.fixture
def given(store: Store, sweep: Callable[..., Path]) -> Given:
    return Given(store, sweep(SWEEP))


def test_a_submitted_run_waits_until_the_scheduler_knows_it_no_more(given: Given) -> None:
    assert given.says() == ["submitted"] * 2, "no answer changes nothing"
    assert given.says(_0="PENDING", _1="RUNNING") == ["submitted (PENDING)", "submitted (RUNNING)"]
    assert given.says(_0="PENDING") == ["submitted (PENDING)", "missing"]
    assert given.says(_0="COMPLETED", _1="REQUEUE_HOLD") == ["missing", "submitted (REQUEUE_HOLD)"]
    assert given.says("of another", _0="PENDING", _1="RUNNING") == ["missing"] * 2, "numbers begun anew: other jobs"
    given.submissions.close(1, "released", 0)
    assert given.says() == ["missing", "submitted"]


def test_an_attempt_in_a_job_counts_as_long_as_the_job_may_run(given: Given, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = given.attempt(monkeypatch)
    assert given.says()[0] == "running"
    assert given.says(_0="RUNNING")[0] == "running"
    assert given.says(_0="COMPLETING")[0] == "running"
    assert given.says(_0="PENDING")[0] == "submitted (PENDING)", "a lost node: SLURM has requeued the job"
    assert given.says(_0="NODE_FAIL")[0] == "resumable (interrupted)"
    assert given.says(_1="PENDING")[0] == "resumable (interrupted)", "forgotten"
    attempt.close("preempted")
    assert given.says()[0] == "submitted", "its job requeues itself"
    assert given.says(_0="RUNNING")[0] == "submitted (RUNNING)"
    assert given.says(_0="CANCELLED")[0] == "resumable (preempted)"
    given.attempt(monkeypatch, restarts=1).close("crash")
    assert given.says()[0] == "failed (crash)"
    assert given.says(_0="COMPLETING")[0] == "failed (crash)"


def test_one_launcher_gets_a_number(store: Store) -> None:
    script = (
        "import sys; from deit_ablate.store import Store; from deit_ablate.store.submissions import Submissions\n"
        "print(Submissions(Store(sys.argv[1])).announce(1, {'name': 'n', 'runs': []}))"
    )
    racers = [
        subprocess.Popen([sys.executable, "-c", script, str(store.root)], stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    assert sorted(racer.communicate()[0].strip() for racer in racers) == ["False"] * 3 + ["True"]


def test_the_package_is_copied_once_a_content(store: Store, tmp_path: Path) -> None:
    package = tmp_path / "thing"
    (package / "sub").mkdir(parents=True)
    (package / "a.py").write_text("1")
    (package / "sub" / "b.py").write_text("2")
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "a.pyc").write_text("x")
    submissions = Submissions(store)
    first, folder = submissions.snapshot(package, {"commit": "c"})
    (package / "__pycache__" / "a.pyc").write_text("y")
    assert submissions.snapshot(package, {}) == (first, folder)
    assert sorted(path.name for path in folder.rglob("*.py*")) == ["a.py", "b.py"]
    (package / "a.py").write_text("3")
    assert submissions.snapshot(package, {})[0] != first
    assert (folder / "thing" / "a.py").read_text() == "1"
