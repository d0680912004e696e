"""Runs by a function: what it is given, what is recorded of it, how it stops and goes on, and the check of that."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from programs import Programs, Workers
from support import wait_for

import deit_ablate
from deit_ablate.execution import SAVED
from deit_ablate.worker.trainer import ProgramRun

FUNCTIONS = """
import os, random, sys, time
from pathlib import Path


def main(parameters, run):
    import torch
    saved = run.resume() or {"epoch": 0, "weight": torch.zeros(2)}
    epoch, weight = saved["epoch"], saved["weight"]
    while epoch < parameters["epochs"]:
        weight = weight + torch.rand(2, generator=torch.Generator().manual_seed(run.seed + epoch))
        run.log(epoch=epoch, total=weight.sum(), threads=torch.get_num_threads())
        epoch += 1
        time.sleep(parameters.get("seconds", 0))
        if epoch < parameters["epochs"] and run.should_stop():
            return run.save({"epoch": epoch, "weight": weight})
    (run.folder / "device").write_text(run.device)


def told(parameters, run):
    parameters["nested"]["a"] = 2
    run.log(total=1, same=int(run.folder == Path(os.environ["DEIT_ABLATE_RUN_DIR"])))
    print(run.data, run.parent, sep="; ")


def leaves(parameters, run):
    run.log(total=1)
    sys.exit(parameters["code"])


def fails(parameters, run):
    raise RuntimeError("no such optimizer")


def logs_text(parameters, run):
    run.log(total="much")
"""


@pytest.fixture(scope="module")
def workers(custom_models: Path, warm_python: list[str]) -> Iterator[Workers]:
    (custom_models / "trainers.py").write_text(FUNCTIONS)
    made = Workers(commands=False)
    yield made
    made.close()


def test_a_function_is_called_with_its_parameters_and_its_run(programs: Programs, tmp_path: Path) -> None:
    run = programs.registered(function="trainers:main", parameters={"epochs": 3}, seed=5)
    assert programs.train(run, file=None, threads=2, device="cpu") == 0
    outcome = programs.outcome(run)
    whole = sum(torch.rand(2, generator=torch.Generator().manual_seed(5 + epoch)) for epoch in range(3))
    assert isinstance(whole, torch.Tensor)
    assert outcome["metrics"]["program"]["total"] == pytest.approx(float(whole.sum()))
    assert outcome["metrics"]["program"]["threads"] == 2
    assert [line["epoch"] for line in programs.store.history(run)] == [0, 1, 2]
    assert outcome["provenance"]["packages"]["torch"]
    assert outcome["cost"]["device"] == (programs.last(run).output / "device").read_text() == "cpu"
    told = programs.registered(function="trainers:told", parameters={"nested": {"a": 1}})
    assert programs.train(told, file=None, data_dir=str(tmp_path)) == 0
    assert programs.outcome(told)["metrics"]["program"]["same"] == 1
    assert f"{tmp_path}; None" in programs.last(told).log.read_text()


def test_a_function_that_is_asked_to_stop_goes_on_where_it_saved(programs: Programs) -> None:
    results = []
    for seconds in (0.0, 0.1):
        run = programs.registered(function="trainers:main", parameters={"epochs": 6, "seconds": seconds})
        worker = programs.start(run, file=None)
        if seconds:
            wait_for(lambda run=run: programs.store.history(run))
            worker.send_signal(15)
            assert worker.wait() == SAVED
            assert programs.last(run).progressed
            assert programs.ended(run)[0] == "interrupted"
            worker = programs.start(run, file=None)
        assert worker.wait() == 0
        results.append((programs.outcome(run)["metrics"], programs.store.history(run)))
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("function", "parameters", "how", "message"),
    [
        ("fails", {}, "crash", "RuntimeError: no such optimizer"),
        ("leaves", {"code": 3}, "crash", "sys.exit(3)"),
        ("logs_text", {}, "crash", "TypeError: log(total=...): str is no number"),
        ("absent", {}, "crash", "absent"),
    ],
)
def test_what_goes_wrong_in_a_function(
    programs: Programs, function: str, parameters: dict[str, Any], how: str, message: str
) -> None:
    run = programs.registered(function=f"trainers:{function}", parameters=parameters)
    assert programs.train(run, file=None) == 1
    ended = programs.ended(run)
    assert ended[0] == how
    assert message in ended[1]


@pytest.mark.parametrize(("code", "exits"), [(0, 0), (75, SAVED)])
def test_a_function_that_leaves_by_an_exit_code(programs: Programs, code: int, exits: int) -> None:
    run = programs.registered(function="trainers:leaves", parameters={"code": code})
    assert programs.train(run, file=None) == exits
    assert (programs.store.outcome(run) is not None) == (code == 0)


# -- check_resume ------------------------------------------------------------------------------------------------------


def trained(parameters: dict[str, Any], run: ProgramRun) -> Any:
    """By the generators of the process, as most scripts; ``forgets`` names what is not saved."""
    forgets = parameters.get("forgets")
    torch.manual_seed(run.seed)
    state = run.resume() or {"epoch": 0, "weight": torch.zeros(3)}
    if "rng" in state:
        torch.set_rng_state(state["rng"])
    epoch, weight = state["epoch"], state["weight"]
    while epoch < 4:
        weight = weight + torch.randn(3)
        run.log(epoch=epoch, total=float(weight.sum()) if not parameters.get("quiet") else float("nan"))
        epoch += 1
        if epoch < 4 and run.should_stop():
            state = {"epoch": epoch, "weight": weight, "rng": torch.get_rng_state()}
            run.save({key: value for key, value in state.items() if key != forgets})
            return None
    return {"weight": weight, "array": weight.numpy(), "epochs": [epoch]}


def test_a_function_that_saves_all_passes(tmp_path: Path) -> None:
    deit_ablate.check_resume(trained, {}, tmp_path)


def never_asks(parameters: dict[str, Any], run: ProgramRun) -> None:
    run.log(total=1)


def unseeded(parameters: dict[str, Any], run: ProgramRun) -> None:
    run.log(total=np.random.rand())
    run.should_stop()


@pytest.mark.parametrize(
    ("function", "parameters", "message"),
    [
        (trained, {"forgets": "rng"}, "stopped at question 1: line 2 is"),
        (trained, {"forgets": "rng", "quiet": True}, r"what it returns is another at \['weight'\]"),
        (never_asks, {}, "never asks"),
        (unseeded, {}, "line 1 is"),
    ],
)
def test_what_is_not_gone_on_with_exactly_is_found(
    tmp_path: Path, function: Callable[[dict[str, Any], ProgramRun], Any], parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(AssertionError, match=message):
        deit_ablate.check_resume(function, parameters, tmp_path)
