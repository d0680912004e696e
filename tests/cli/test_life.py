"""A sweep's whole life, as its user sees it: by the real command, in real processes, on real files."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from support import Command, result

from deit_ablate.store import Store


def test_from_plan_to_table_and_on(cold_command: Command, command: Command, sweep: Callable[..., Path]) -> None:
    """Planned, run and seen as users start these commands; what follows goes on warm."""
    path = sweep(
        "title: Two optimizers\nseeds: 2\nbaseline: adamw\n"
        "variants:\n  adamw: {}\n  lamb: {optimizer: {name: lamb, base_lr: 0.3}}\n"
    )
    store = Store(command.folder / "results")

    shown = cold_command("plan", "tiny.yaml").stdout
    assert "lamb: optimizer.name adamw -> lamb; optimizer.base_lr" in shown
    assert "4 runs: 4 missing" in shown
    assert "machine time unknown" in shown
    assert not store.root.exists(), "planning writes nothing"

    first = cold_command("run", "tiny.yaml").stdout
    assert first.count(": started") == 4
    folder = store.sweeps.folder("tiny")
    assert {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} == {
        "plan.json",
        "seeds/1.json",
        "made_from.json",
        "table.md",
        "table.csv",
        "table.tex",
        "table.html",
        "figures/effects.png",
        "figures/top1.png",
        "figures/curves.png",
    }
    assert (folder / "table.md").read_text() in first
    assert re.search(r"\| adamw.*\| +\d|\| adamw.*did not train", first)

    command("run", "tiny.yaml", "--only", "lamb", "--seeds", "1", "--results", "warm")
    warm = Store(command.folder / "warm")
    (run,) = warm.runs()
    assert result(warm, run) == result(store, run), "a warm process computes what a cold one does, bit for bit"

    again = command("run", "tiny.yaml").stdout
    assert "all 4 runs are done" in again
    assert "started" not in again
    assert (folder / "table.md").read_text() in again

    path.write_text(path.read_text().replace("seeds: 2", "seeds: 3") + "  no mixup: {augment.mixup: 0}\n")
    estimate = command("plan", "tiny.yaml").stdout
    assert "to do: 7 runs" in estimate, "of two rows the baseline has 3 √2 seeds, rounded up"
    assert "machine time unknown" not in estimate, "runs like them have finished"
    more = command("run", "tiny.yaml").stdout
    assert sorted(re.findall(r"^(.+): started", more, re.M)) == [
        "adamw:2",
        "adamw:3",
        "adamw:4",
        "lamb:2",
        "no mixup:0",
        "no mixup:1",
        "no mixup:2",
    ]
    assert [plan["seeds"] for plan in store.sweeps.declared("tiny")] == [{"": [0, 1]}, {"": [0, 1, 2]}]

    table = (folder / "table.md").read_text()
    fewer = command("run", "tiny.yaml", "--seeds", "1", "--only", "adamw").stdout
    assert "started" not in fewer
    assert table in fewer, "fewer seeds are trained, none is hidden"

    sweep("seeds: 2\nvariants: {shared: {optimizer: {base_lr: 0.3, name: lamb}}}\n", name="other")
    assert "all 2 runs are done" in command("run", "other.yaml").stdout, "a row that another sweep trained"

    forgotten = command("forget", "tiny:adamw:1", "--yes").stdout
    assert "forgotten" in forgotten
    assert "adamw:1" in command("run", "tiny").stdout, "a sweep may be named as its folder is"

    assert "11 done" in cold_command("status").stdout
    assert "tiny:lamb:0" in command("show", "tiny:lamb:0").stdout
    assert "optimizer.name" in command("diff", "tiny:lamb:0", "tiny:adamw:0").stdout
    assert "test top-1" in command("logs", "tiny:lamb:0").stdout
    assert command("table", "tiny", "--format", "csv").stdout == (folder / "table.csv").read_text()
    assert command("figure", "tiny").stdout.count(".png") == 3
