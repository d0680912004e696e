"""Kept records and merged stores: what was recorded comes back the same, and what stands is never changed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support import RECIPE, RUN, Ask, Command, claimed_by_another, end_attempts, planned, result, state

from deit_ablate import files
from deit_ablate.launch.jobs import Report
from deit_ablate.store import Store, archive, cleanup
from deit_ablate.store.archive import import_records, keep

SWEEP = """
seeds: 2
stages:
  teacher: {seeds: [0], recipe: {model: {name: small_convnet, options: {width: 8}}}}
  student: {teacher: teacher}
variants: {none: {}, hard: {distill: {type: hard-token}}}
"""


def test_what_is_kept_comes_back_and_gives_the_same_table(
    launch: Callable[..., Report], command: Command, sweep: Callable[..., Path], store: Store
) -> None:
    path = sweep(SWEEP)
    launch(path)
    command("table", "tiny")
    kept = command.folder / "kept"
    assert "5 runs" in command("keep", "tiny", "--to", kept).stdout
    assert not list(kept.rglob("*.pt"))
    before = {run: result(store, run) for run in planned(path).runs}
    again = Store(command.folder / "again")
    assert "5 runs imported, 0" in command("import", kept, "--results", again.root).stdout
    assert {run: result(again, run) for run in again.runs()} == before
    tables = [command("table", "tiny", "--results", results).stdout for results in (store.root, again.root)]
    assert tables[0] == tables[1]
    assert "nothing to train" in command("run", path, "--results", again.root).stdout
    assert "0 runs imported, 5" in command("import", store.root, "--results", again.root).stdout
    first = {path.name: path.read_bytes() for path in kept.iterdir() if path.is_file()}
    command("keep", "tiny", "--to", kept)
    assert first == {path.name: path.read_bytes() for path in kept.iterdir() if path.is_file()}


def test_a_study_goes_on_where_it_was_brought(command: Command, sweep: Callable[..., Path], store: Store) -> None:
    path = sweep(SWEEP)
    command("run", path)
    command("keep", "tiny", "--to", "kept")
    again = Store(command.folder / "again")
    command("import", "kept", "--results", again.root)
    longer = ("run", path, "--seeds", "3", "--results", again.root)
    refused = command(*longer, code=2).stderr
    teacher = re.search(r"`deit-ablate forget ([0-9a-f]{16})` first", refused)
    assert teacher, "a teacher comes without the weights that new students need"
    command("forget", teacher[1], "--yes", "--results", again.root)
    started = re.findall(r"^(.+): started", command(*longer).stdout, re.M)
    assert sorted(started) == ["hard:0:teacher", "hard:2:student", "none:2:student"]
    assert result(again, teacher[1]) == result(store, teacher[1])
    assert [plan["seeds"] for plan in again.sweeps.declared("tiny")] == [
        *(plan["seeds"] for plan in store.sweeps.declared("tiny")),
        {"teacher": [0], "student": [0, 1, 2]},
    ]


def test_a_record_that_is_not_of_its_id_is_refused(
    launch: Callable[..., Report], command: Command, sweep: Callable[..., Path]
) -> None:
    launch(sweep("seeds: 1\nvariants: {a: {}}\n"))
    kept = command.folder / "kept"
    command("keep", "tiny", "--to", kept)
    lines = [json.loads(line) for line in (kept / "records.jsonl").read_text().splitlines()]
    lines[0]["recipe"]["recipe"]["regularize"]["drop_path"] = 0.5
    (kept / "records.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    shutil.rmtree(command.folder / "results")
    assert "does not give this id" in command("import", kept, code=2).stderr
    assert not list((command.folder / "results").glob("runs/*"))
    assert "no records here" in command("import", command.folder / "own", code=2).stderr


def done(store: Store, run: str) -> None:
    attempt = store.claim(run)
    store.finish(run, attempt, {"status": "done", "reason": None, "metrics": {}, "cost": {}})
    attempt.close("done")


@pytest.fixture
def elsewhere(tmp_path: Path) -> Store:
    """Another store, in which the run is done."""
    other = Store(tmp_path / "elsewhere")
    other.register(RUN, RECIPE, {}, {})
    done(other, RUN)
    return other


HERE: dict[str, Callable[[Store, str], object]] = {
    "planned": lambda store, run: None,
    "failed": lambda store, run: end_attempts(store, run, "crash"),
    "cancelled": Store.cancel,
    "interrupted": lambda store, run: end_attempts(store, run, "interrupted", checkpoint=1),
    "damaged": lambda store, run: (done(store, run), (store.run(run) / "outcome.json").write_text("{")),
}


@pytest.mark.parametrize("how", HERE)
def test_a_result_takes_the_place_of_a_run_without_one(how: str, store: Store, run: str, elsewhere: Store) -> None:
    HERE[how](store, run)
    before = sorted(path.name for path in files.below(store.run(run)))
    assert import_records(elsewhere.root, store) == (1, 0, 0)
    assert state(store, run).name == "done"
    assert sorted(path.name for path in cleanup.trash(store)) == before
    assert import_records(elsewhere.root, store) == (0, 1, 0)


def test_a_run_that_may_be_trained_here_stays(command: Command, store: Store, run: str, elsewhere: Store) -> None:
    process = claimed_by_another(store, run)
    said = command("import", elsewhere.root).stdout
    assert said == "0 runs imported, 0 were here already, 1 may be running here and stay as they are\n"
    process.kill()
    process.wait()
    assert command("import", elsewhere.root).stdout == "1 runs imported, 0 were here already\n"


def test_a_paused_run_is_brought_only_where_nobody_has_begun_it(store: Store, run: str, tmp_path: Path) -> None:
    other, third = Store(tmp_path / "other"), Store(tmp_path / "third")
    for each in (other, third):
        each.register(RUN, RECIPE, {}, {})
    end_attempts(other, run, "paused", checkpoint=1)
    end_attempts(store, run, "interrupted", checkpoint=1)
    assert import_records(other.root, store) == (0, 1, 0)
    assert state(store, run).name == "resumable"
    assert import_records(other.root, third) == (1, 0, 0)
    assert third.checkpoints(run)


def test_a_run_that_ends_while_it_is_read_comes_with_its_outcome(
    launch: Callable[..., Report],
    sweep: Callable[..., Path],
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    launch(sweep("seeds: 1\nvariants: {a: {}}\n"))
    (run,) = store.runs()
    outcome, settled = store.run(run) / "outcome.json", archive._settled
    content = outcome.read_bytes()

    def ends(store: Store, run: str) -> object:
        outcome.write_bytes(content)
        return settled(store, run)

    monkeypatch.setattr(archive, "_settled", ends)
    outcome.unlink()
    assert keep(store, "tiny", tmp_path / "kept") == 1
    outcome.unlink()
    for number, folder in enumerate((store.root, tmp_path / "kept")):
        other = Store(tmp_path / f"other{number}")
        import_records(folder, other)
        assert result(other, run) == result(store, run)


REFERENCE = files.shipped("sweeps").resolve().parent / "results" / "reference"


def test_of_an_older_archive_nothing_is_left_and_of_other_files_all(ask: Ask, tmp_path: Path) -> None:
    store, folder = Store("results"), files.make_folder(tmp_path / "kept")
    import_records(REFERENCE / "optimizers@fashion-mnist-small", store)
    (sweep,) = store.sweeps.names()
    (folder / "table.mine").write_text("mine")
    own = files.make_folder(store.sweeps.folder(sweep) / "trials")
    (own / "1.json").write_text('{"row": "a", "params": {}, "run": null}')
    (own.parent / "table.csv").write_text("x")
    assert "15 runs" in ask("keep", sweep, "--to", "kept").out
    assert (folder / "table.mine").exists(), "there was no archive"
    (own / "1.json").unlink()
    (own.parent / "table.csv").unlink()
    ask("keep", sweep, "--to", "kept")
    assert not list(folder.glob("t*/*")) + list(folder.glob("table.*"))
    assert import_records(folder, Store(tmp_path / "other")).new == 15


@pytest.mark.parametrize("to", ["results", "results/other", "results/optimizers@fashion-mnist-small", "results/x/.."])
def test_nothing_is_kept_where_a_sweep_would_be(ask: Ask, to: str) -> None:
    store = Store("results")
    import_records(REFERENCE / "optimizers@fashion-mnist-small", store)
    (sweep,) = store.sweeps.names()
    before = (store.sweeps.folder(sweep) / "plan.json").read_bytes()
    refused = ask("keep", sweep, "--to", to)
    assert refused.code == 2
    assert f"{to}: --to: " in refused.err
    assert refused.err.count("\n") == 1
    assert store.sweeps.names() == [sweep]
    assert (store.sweeps.folder(sweep) / "plan.json").read_bytes() == before
    assert not (store.root / "records.jsonl").exists()


def test_an_imported_result_is_over(store: Store, ask: Ask) -> None:
    import_records(REFERENCE / "optimizers@fashion-mnist-small", store)
    run = min(store.runs())
    for _ in range(2):
        assert re.search(r"^attempts:\n  1: elsewhere: done$", ask("show", run).out, re.MULTILINE)
        refused = ask("release", run, "--yes")
        assert refused.code == 2
        assert f"no attempt at {run} is open" in refused.err
        (store.attempts(run)[-1].path / "exit.json").unlink(missing_ok=True)  # as earlier versions imported it
