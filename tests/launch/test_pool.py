"""How many jobs run at once."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deit_ablate.execution import Execution, MetricsFile, ProgramExecution, Slurm
from deit_ablate.launch import pool as pool_module
from deit_ablate.launch.jobs import Job
from deit_ablate.launch.pool import ProcessPool


class Server:
    """In place of a fork server: what is asked of it."""

    def __init__(self, asked: Callable[[dict[str, Any]], None]) -> None:
        self.asked = asked

    def send(self, *requests: dict[str, Any]) -> None:
        for request in requests:
            self.asked(request)


def test_slots_are_one_a_gpu_or_one_for_each_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,7")
    assert ProcessPool(Execution()).slots == 3
    assert ProcessPool(Execution(parallel=1)).slots == 1
    assert ProcessPool(Execution(device="cpu")).slots == len(os.sched_getaffinity(0))
    assert ProcessPool(Execution(device="cpu", threads=1000)).slots == 1


def test_runs_share_gpus_by_slots_and_the_cores_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    monkeypatch.setattr(pool_module, "usable_cores", lambda: 24)
    packed = ProcessPool(Execution(runs_per_gpu=3))
    assert packed.slots == 6
    sent: list[dict[str, str]] = []

    monkeypatch.setattr(packed, "_serve", lambda: Server(lambda each: sent.append(each["environment"])))
    for number in range(6):
        packed.submit(Job("results", str(number), Execution(runs_per_gpu=3)))
    assert [each["CUDA_VISIBLE_DEVICES"] for each in sent] == ["2", "5"] * 3
    assert {each["DEIT_ABLATE_CORES"] for each in sent} == {"4"}
    assert ProcessPool(Execution(runs_per_gpu=3, ranks=2)).slots == 3
    sent.clear()
    monkeypatch.setattr(packed, "parallel", 1)
    packed.submit(Job("results", "two ranks", Execution(ranks=2)))
    assert sorted(each["CUDA_VISIBLE_DEVICES"] for each in sent) == ["2", "5"]
    assert {each["DEIT_ABLATE_CORES"] for each in sent} == {"12"}


def test_a_job_starts_where_the_cores_that_it_needs_are_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "usable_cores", lambda: 8)
    small, big, huge = Execution(), Execution(threads=3, ranks=2), Execution(threads=16)
    machine = ProcessPool(small)
    assert [machine.at_once(each) for each in (small, big, huge)] == [8, 1, 1]
    assert machine.fits(small, [small] * 7)
    assert not machine.fits(small, [small] * 8)
    assert machine.fits(big, [small] * 2)
    assert not machine.fits(big, [small] * 3)
    assert machine.fits(huge, [])
    assert not machine.fits(huge, [small]), "more than there is: alone"
    assert not machine.fits(small, [huge])


def test_parallel_bounds_the_number_of_jobs_whatever_they_need(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "usable_cores", lambda: 2)
    small, big = Execution(parallel=4), Execution(parallel=4, threads=3)
    machine = ProcessPool(small)
    assert machine.fits(small, [small] * 3), "also more jobs than cores, as the user says"
    assert not machine.fits(small, [small] * 4)
    assert machine.fits(big, [small])
    assert not machine.fits(big, [small] * 2)
    monkeypatch.setattr(pool_module, "usable_cores", lambda: 64)
    assert machine.fits(big, [big] * 3)
    assert not machine.fits(big, [small] * 4)


def test_gpus_are_given_by_the_share_that_each_job_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    half, whole, both = Execution(runs_per_gpu=2), Execution(), Execution(ranks=2)
    machine = ProcessPool(half)
    assert [machine.at_once(each) for each in (half, whole, both)] == [4, 2, 1]
    sent = _gpus_sent(machine, monkeypatch)
    machine.submit(Job("results", "a", half))
    assert machine.fits(whole, [half])
    assert not machine.fits(both, [half]), "each of its ranks needs a whole one"
    machine.submit(Job("results", "b", whole))
    assert sent == ["2", "5"]
    assert machine.fits(half, [half, whole])
    machine.submit(Job("results", "c", half))
    assert sent[-1] == "2"
    assert not machine.fits(half, [half, whole, half])
    assert machine.fits(Execution(device="cpu"), [half, whole, half]), "that needs cores alone"
    assert not machine.fits(half, [half, both]), "what another launcher runs counts, too"


def test_a_program_has_as_many_gpus_as_it_asks_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,6,7")
    program = ProgramExecution(folder="/lab", metrics=MetricsFile(primary="top1"))
    one, three, five = (
        Execution(slurm=Slurm(gpus=count)).model_copy(update={"program": program}) for count in (None, 3, 5)
    )
    machine = ProcessPool(one)
    assert [machine.at_once(each) for each in (one, three, five)] == [4, 1, 1]
    sent = _gpus_sent(machine, monkeypatch)
    machine.submit(Job("results", "a", three))
    assert machine.fits(one, [three])
    assert not machine.fits(three, [three])
    machine.submit(Job("results", "b", one))
    assert not machine.fits(one, [three, one])
    machine.submit(Job("results", "c", five))
    assert sent == ["4,5,6", "7", "4,5,6,7"]
    shown = [sys.executable, "-c", "import os; print(os.environ['CUDA_VISIBLE_DEVICES'])"]
    monkeypatch.setattr(pool_module, "worker_command", lambda *arguments: shown)
    with (tmp_path / "out").open("w") as output:
        for execution in (three, one):
            assert pool_module.foreground(Job("results", "a", execution), output) == 0
    assert (tmp_path / "out").read_text() == "4,5,6\n4\n"


def _gpus_sent(machine: ProcessPool, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What jobs are given to see, of those that are submitted from now on."""
    sent: list[str] = []
    ask = Server(lambda each: sent.append(each["environment"]["CUDA_VISIBLE_DEVICES"]))
    monkeypatch.setattr(machine, "_serve", lambda: ask)
    return sent
