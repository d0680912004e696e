"""Who holds an attempt, and what proves that it is gone."""

from __future__ import annotations

import signal
from typing import Any

import pytest
from support import claimed_by_another, wait_for

from deit_ablate.store import Refused, Store, owner


def test_a_zombie_is_gone_and_a_stopped_process_is_not(store: Store, run: str) -> None:
    process = claimed_by_another(store, run)
    process.send_signal(signal.SIGSTOP)
    with pytest.raises(Refused, match="has not ended"):
        store.claim(run)
    process.kill()  # not waited for: a zombie
    wait_for(lambda: owner.start_time(process.pid) is None)
    assert store.claim(run).number == 2
    process.wait()


@pytest.mark.parametrize(
    ("changed", "gone"),
    [
        ({"pid": 2**22 + 1}, True),
        ({"started": "1"}, True),  # another process has the pid by now
        ({"host": "elsewhere", "machine": "other", "boot": "other", "pid": 2**22 + 1}, False),
        ({"pid_namespace": "pid:[1]", "pid": 2**22 + 1}, False),  # another container on this machine
        ({"boot": "an earlier one"}, True),  # this machine has booted since
        ({"boot": "an earlier one", "host": "a clone with the same machine-id"}, False),
    ],
)
def test_only_proof_makes_an_owner_gone(changed: dict[str, Any], gone: bool) -> None:
    assert owner.provably_gone({**owner.identify(), **changed}) is gone


def test_a_restarted_scheduler_job_takes_its_own_run_over(monkeypatch: pytest.MonkeyPatch) -> None:
    there = {**owner.identify(), "host": "node1", "machine": "m1", "boot": "b1", "job": {"id": "7", "restarts": 0}}
    assert not owner.provably_gone(there)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert owner.provably_gone(there)
    monkeypatch.setenv("SLURM_JOB_ID", "8")
    assert not owner.provably_gone(there)
