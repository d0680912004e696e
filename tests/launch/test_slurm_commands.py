"""What SLURM's answers mean."""

from __future__ import annotations

from deit_ablate.launch import slurm_commands
from deit_ablate.launch.slurm_commands import Answer


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
