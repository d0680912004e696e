"""How many jobs run at once."""

from __future__ import annotations

import os

import pytest

from deit_ablate.execution import Execution
from deit_ablate.launch import pool as pool_module
from deit_ablate.launch.jobs import Job
from deit_ablate.launch.pool import ProcessPool


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
    monkeypatch.setattr(packed, "_serve", lambda: None)
    monkeypatch.setattr(packed, "_send", lambda *requests: sent.extend(each["environment"] for each in requests))
    for number in range(6):
        packed.submit(Job("results", str(number), Execution(runs_per_gpu=3)))
    assert [each["CUDA_VISIBLE_DEVICES"] for each in sent] == ["2", "5"] * 3
    assert {each["DEIT_ABLATE_CORES"] for each in sent} == {"4"}
    assert ProcessPool(Execution(runs_per_gpu=3, ranks=2)).slots == 3
    sent.clear()
    monkeypatch.setattr(packed, "slots", 1)
    packed.submit(Job("results", "two ranks", Execution(ranks=2)))
    assert sorted(each["CUDA_VISIBLE_DEVICES"] for each in sent) == ["2", "5"]
    assert {each["DEIT_ABLATE_CORES"] for each in sent} == {"12"}
