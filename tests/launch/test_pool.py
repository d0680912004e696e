"""How many jobs run at once."""

from __future__ import annotations

import os

import pytest

from deit_ablate.execution import Execution
from deit_ablate.launch.pool import ProcessPool


def test_slots_are_one_a_gpu_or_one_for_each_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,7")
    assert ProcessPool(Execution()).slots == 3
    assert ProcessPool(Execution(parallel=1)).slots == 1
    assert ProcessPool(Execution(device="cpu")).slots == len(os.sched_getaffinity(0))
    assert ProcessPool(Execution(device="cpu", threads=1000)).slots == 1
