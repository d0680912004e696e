"""States by files, corrected by what the scheduler answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import JOB, planned

from deit_ablate.launch.slurm_commands import Answer
from deit_ablate.launch.status import Known
from deit_ablate.store import Store
from deit_ablate.store.submissions import Submissions

ANNOUNCED = {"name": "n", "launcher": {"nonce": "n"}, "cluster": "c", "arguments": [], "code": "c"}
SWEEP = "seeds: 2\nvariants: {a: {}}\n"


class Given:
    """Two runs of which the first was submitted as element 7_0 of one array, the second as 7_1."""

    def __init__(self, store: Store, path: Path, **more: int) -> None:
        self.store, self.submissions = store, Submissions(store)
        plan = planned(path)
        self.runs, self.parents = list(plan.runs), plan.parents
        for run in plan.runs.values():
            store.register(run.id, run.recipe, run.parents, run.sources)
        entries = [{"run": run, "after": 0} for run in self.runs]
        assert self.submissions.announce(1, {**ANNOUNCED, "runs": entries, **more})
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


def test_runs_of_one_job_share_its_state_until_one_ends_for_itself(
    store: Store, sweep: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = Given(store, sweep(SWEEP), runs_per_element=2)
    assert given.says(_0="PENDING") == ["submitted (PENDING)"] * 2
    given.attempt(monkeypatch).close("killed")
    assert given.says(_0="RUNNING") == ["resumable (killed)", "submitted (RUNNING)"], "the first may be submitted alone"
    assert given.says(_0="PENDING") == ["submitted (PENDING)"] * 2, "requeued, it starts both"
    given.attempt(monkeypatch).close("crash")
    assert given.says(_0="RUNNING") == ["failed (crash)", "submitted (RUNNING)"]
    assert given.says(_0="PENDING") == ["failed (crash)", "submitted (PENDING)"], "requeued, it starts the second alone"
    assert given.says(_0="COMPLETED") == ["failed (crash)", "missing"]
