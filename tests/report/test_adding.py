"""Seeds that are added by themselves: looks, decisions, a killed launcher, two at once, and a budget."""

from __future__ import annotations

import json
import signal
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from support import Command, planned, wait_for

from deit_ablate.launch.jobs import Report
from deit_ablate.report.adding import AddedSeeds
from deit_ablate.store import Store
from deit_ablate.sweep.plan import Plan

BASE = """
profile: digits
recipe:
  data: {train_images: 640}
  model: {name: small_convnet, options: {width: 8}}
  augment: {auto_augment: null, mixup: 0, cutmix: 0, erasing: 0, repeats: 1}
  regularize: {drop_path: 0}
  schedule: {epochs: 2, batch_size: 32, warmup_epochs: 0}
  optimizer: {base_lr: 0.064}
baseline: base
"""
"""Learns digits in two epochs."""
ROWS = "variants: {base: {}, off: {optimizer.base_lr: 1.0e-7}, null: {regularize.label_smoothing: 0.11}}\n"
"""A row that learns nothing, and one that is the baseline but for a hair."""


def seeds(store: Store, sweep: str) -> Mapping[str, int]:
    plan = store.sweeps.plan(sweep)
    assert plan is not None
    assert all(store.result(run) for *_, run in plan["cells"])
    return Counter(variant for variant, *_ in plan["cells"])


def finished(store: Store) -> int:
    return sum(store.result(run) is not None for run in store.runs())


def test_rows_are_decided_by_looks_through_a_kill_and_by_two_launchers(
    command: Command, sweep: Callable[..., Path], store: Store
) -> None:
    sweep("looks: [3, 4]\n" + ROWS, base=BASE)
    nothing = command("run", "tiny.yaml", "--budget", "0.01s").stdout
    assert "measured: " in nothing
    assert "undecided: off, null; this command used 0 s of 0 s; their next look needs 11 runs" in nothing
    assert finished(store) == 0
    assert store.sweeps.declared("tiny")[0]["looks"] == [3, 4]

    killed = command.start("run", "tiny.yaml", "--until-decided", "--parallel", "2")
    wait_for(lambda: finished(store) >= 2)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()

    again = ("run", "tiny.yaml", "--until-decided", "--parallel", "2")
    both = [command.start(*again, to_kill=False) for _ in range(2)]
    printed = [each.communicate(timeout=200)[0] for each in both]
    assert [each.returncode for each in both] == [0, 0], printed
    assert seeds(store, "tiny") == {"base": 6, "off": 3, "null": 4}
    assert len(store.runs()) == 13, "nothing beside"
    for text in printed:
        assert "every row is decided, or has had its last look" in text
        assert "undecided after the last look (4 seeds)" in text
    assert command("run", "tiny.yaml", "--until-decided").stdout.count("started (") == 0
    assert len(store.sweeps.declared("tiny")) == 1, "all was declared before the first run"

    before = (store.sweeps.folder("tiny") / "plan.json").read_bytes()
    sweep(ROWS, base=BASE)
    assert "it was run with looks at [3, 4] seeds, and now there are none" in command("run", "tiny.yaml", code=2).stderr
    other = command("run", "tiny.yaml", "--until-decided", code=2).stderr
    assert "looks at [3, 6, 9, 12]" in other
    assert (store.sweeps.folder("tiny") / "plan.json").read_bytes() == before


def test_a_budget_begins_whole_looks_and_stops(
    launch: Callable[..., Report], sweep: Callable[..., Path], store: Store
) -> None:
    launch(sweep("seeds: 1\n" + ROWS, base=BASE, name="known"))
    for run in store.runs():  # each took 100 seconds
        path = store.run(run) / "outcome.json"
        outcome = json.loads(path.read_text())
        outcome["cost"]["wall_seconds"] = outcome["cost"]["wall_seconds_all_attempts"] = 100.0
        path.write_text(json.dumps(outcome))
    plan = planned(sweep("looks: [3, 4]\n" + ROWS, base=BASE), until_decided=True)
    store.sweeps.save_plan("tiny", plan.document(""))
    saved: list[Plan] = []
    source = AddedSeeds(plan, store, saved.append, budget=650)
    assert Counter(source.labels[run] for run in source.runs) == Counter(["base:0", "off:0", "null:0"])
    asked = sorted(source.labels[run.id] for run in source({}, 100))
    assert asked == ["base:1", "base:2", "base:3", "base:4", "off:1", "off:2"], "a whole look, and no part of another"
    assert source.spent == 600
    assert source({}, 100) == []
    assert len(saved[-1].cells) == 9
    expected = (
        "undecided: off, null; this command used 10 min of 11 min; their next look needs 8 runs, machine time 13 min, "
        "all looks up to 11 runs, 18 min; the same command goes on"
    )
    assert source.words() == expected
    assert source.words(failed=2).endswith("; 2 runs are not done: `deit-ablate retry` first")
    part = AddedSeeds(plan, store, saved.append, budget=250)
    assert [part.labels[run.id] for run in part({}, 1)] == ["base:1"], "as far as it goes, and as there is room"
    assert [part.labels[run.id] for run in part({}, 9)] == ["base:2"]
    assert part({}, 9) == []
    whole = AddedSeeds(plan, store, saved.append)
    assert len(whole({}, 0)) == 8, "all at once that the looks need"


def test_looks_may_not_be_added_after_looking(command: Command, sweep: Callable[..., Path], store: Store) -> None:
    sweep("seeds: 2\nbaseline: a\nvariants: {a: {}, b: {augment.erasing: 0}}\n")
    command("run", "tiny.yaml")
    refused = command("run", "tiny.yaml", "--until-decided", code=2).stderr
    assert "tiny.yaml: looks: its seeds were run without looks, which may not be added after looking" in refused
    assert [plan["looks"] for plan in store.sweeps.declared("tiny")] == [None]


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", ["--budget", "2"], "--budget: got '2'; expected a number above 0 and a unit"),
        ("", ["--budget", "0h"], "--budget: got '0h'"),
        ("", ["--budget", "-1h"], "--budget: got '-1h'"),
        ("", ["--budget", "nan h"], "--budget: got 'nan h'"),
        ("", ["--until-decided", "--seeds", "4"], "--seeds: looks say how many seeds there are"),
        ("seeds: [0, 2]\n", ["--until-decided"], "looks are at the seeds 0, 1, 2, ..., not at [0, 2]"),
        (
            "by_profile: {digits: {seeds: [0, 2]}}\n",
            ["--until-decided", "--profile", "digits"],
            "tiny.yaml:9:30: seeds: looks are at the seeds 0, 1, 2, ..., not at [0, 2]",
        ),
        ("", ["--until-decided", "--only", "c"], "--only: no row 'c'"),
        ("baseline: null\n", ["--until-decided"], "no row is compared with a baseline"),
        ("search: {space: {optimizer.base_lr: {low: 0.01, high: 0.1}}}\n", ["--budget", "1h"], "tiny.yaml:9:1: search"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(
    command: Command, sweep: Callable[..., Path], text: str, options: list[Any], message: str
) -> None:
    baseline = "" if "baseline" in text else "baseline: a\n"
    sweep(text + baseline + "variants: {a: {}, b: {augment.erasing: 0}}\n")
    assert message in command("run", "tiny.yaml", *options, code=2).stderr
    assert not (command.folder / "results").exists()
