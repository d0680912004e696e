"""The winner of a search as a profile: confirmed or not, and of which row."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from searches import SHORT
from support import Command

from deit_ablate.errors import InputError
from deit_ablate.search.export import export
from deit_ablate.search.trials import best, read_trials
from deit_ablate.store import Store
from deit_ablate.sweep.load import load_sweep
from deit_ablate.sweep.plan import make_plan


def test_the_command_searches_confirms_and_exports(
    sweep: Callable[..., Path], command: Command, store: Store, tmp_path: Path
) -> None:
    sweep(SHORT)
    shown = command("plan", "tiny.yaml").stdout
    assert "optimizer.base_lr: 0.01 to 0.3 (log)" in shown
    assert "4 trials, 0 requested so far" in shown
    assert "to do: 4 runs" in shown
    assert not store.root.exists()
    done = command("run", "tiny.yaml", "--parallel", "2", "--confirm").stdout
    assert len(re.findall(r"tuned:\d:trial: done, validation top-1", done)) == 4
    assert len(re.findall(r"tuned:\d: done, test top-1", done)) == 2
    assert "nothing to train" in command("run", "tiny.yaml").stdout
    status = command("status", "tiny").stdout
    assert re.search(r"tuned:4:trial +\w{16} +done +validation top-1", status)

    winner = (store.sweeps.plan("tiny") or {})["search"]["winners"]["tuned"]
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "found.yaml").write_text(command("search", "export", "tiny").stdout)
    (tmp_path / "after.yaml").write_text(
        "profile: found\nseeds: 2\nvariants: {tuned: {}, no repeats: {augment.repeats: 1}}\n"
    )
    plan = make_plan(load_sweep(tmp_path / "after.yaml"))
    own = {run for row, _, stage, run in (store.sweeps.plan("tiny") or {})["cells"] if not stage}
    assert {cell.run for cell in plan.cells if cell.variant == "tuned"} == own, (
        "the winner's runs are the new baseline's"
    )
    assert f"# Trial {winner} of tiny" in (tmp_path / "profiles" / "found.yaml").read_text()


def test_an_unconfirmed_search_exports_its_best_trial(
    sweep: Callable[..., Path], store: Store, run_search: Any
) -> None:
    space = "space: {augment.auto_augment: [null, rand-m3-n1-mstd0.5-inc1]}"
    run_search(sweep(f"search: {{trials: 2, sampler: grid, pruner: none, {space}}}\nvariants: {{a: {{}}, b: {{}}}}\n"))
    plan = store.sweeps.plan("tiny") or {}
    found = export(store, plan, "b")
    winner = best([trial for trial in read_trials(store, plan) if trial.row == "b"], ["top1"], 1)[0]
    assert not found.confirmed
    assert found.comments[0].startswith(f"Trial {winner.number} of tiny (b), run {winner.run}; not confirmed: ")
    shown = winner.params["augment.auto_augment"] or "none"
    assert found.comments[1:] == [f"  augment.auto_augment: {shown}"]
    assert found.profile["recipe"]["augment"]["auto_augment"] == winner.params["augment.auto_augment"]
    assert "seed" not in found.profile["recipe"]
    assert "test" not in found.profile["recipe"]["data"], "a sweep's runs have their test split"
    with pytest.raises(InputError, match="tiny has several rows; expected `search export tiny:ROW`, with one of a, b"):
        export(store, plan)
    with pytest.raises(InputError, match="no row 'c'"):
        export(store, plan, "c")


def test_the_winner_of_a_programs_search_is_pasted_into_its_file(command: Command) -> None:
    text = (
        "command: [python, -c, \"print('top1=1', 'held=1{lr}')\", '{seed}', '{lr}', '{opt}', '{o.wd}']\nseeds: 1\n"
        "metrics: {file: '{log}', pattern: 'top1=(?P<top1>.*) held=(?P<held>.*)', primary: top1, better: higher, "
        "validation: held}\nPARAMETERS\n"
    )
    own = "parameters: {lr: 1, opt: sgd, o: {wd: 0.0}}"
    search = "search: {trials: 2, sampler: grid, pruner: none, space: {lr: [2, 3]}}\n"
    path = command.folder / "p.yaml"
    path.write_text(text.replace("PARAMETERS", own) + search)
    command("run", "p.yaml")
    found = command("search", "export", "p").stdout
    assert "# For the sweep file, over its own `parameters:`" in found
    path.write_text(text.replace("PARAMETERS", found) + "variants: {a: {}, b: {o.wd: 0.5}}\n")
    run, other = make_plan(load_sweep(path)).runs.values()
    assert run.recipe["parameters"] == {"lr": 3, "opt": "sgd", "o": {"wd": 0}}
    assert other.recipe["parameters"]["o"] == {"wd": 0.5}, "its default is still no whole number"
