"""What a worker resumes from, however the one before has ended."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from support import INTERRUPTED, Command, result
from tiny import tiny

from deit_ablate.errors import DataError
from deit_ablate.execution import Execution
from deit_ablate.identity import run_id
from deit_ablate.launch.jobs import Report
from deit_ablate.recipe import Recipe
from deit_ablate.store import Store
from deit_ablate.store.archive import import_records
from deit_ablate.train import checkpoint as checkpoints
from deit_ablate.train.loop import train
from deit_ablate.worker.journal import FileJournal
from deit_ablate.worker.run import Task


def test_damaged_checkpoints_and_torn_lines_are_survived(
    launch: Callable[..., Report], store: Store, sweep: Callable[..., Path], undisturbed: dict[str, object]
) -> None:
    path, run = sweep(INTERRUPTED), str(undisturbed["run"])
    launch(path, stop=lambda: bool(store.history(run)))
    if store.outcome(run) is None:
        last = store.attempts(run)[-1]
        whole = last.checkpoint.read_bytes()
        last.checkpoint.write_bytes(whole[: len(whole) // 2])
        with open(last.metrics, "ab") as handle:
            handle.write(b'{"epoch": 3, "tr')
        launch(path)
        log = store.attempts(run)[-1].log.read_text()
        assert "passed over" in log
        assert "ckpt.pt" in log
    assert result(store, run) == undisturbed["result"]
    assert re.search(r"^epoch 6/6: loss \d+\.\d{4}, .*\d s$", store.attempts(run)[-1].log.read_text(), re.MULTILINE)


def test_short_epochs_share_a_checkpoint(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny()
    assert recipe.schedule.epochs == 2
    for seed, (seconds, epochs) in enumerate((("0", [1, 2]), ("1000", [2]))):
        monkeypatch.setenv("DEIT_ABLATE_CHECKPOINT_SECONDS", seconds)
        values = recipe.model_copy(update={"seed": seed}).model_dump(mode="json")
        store.register(run := run_id(values, {}), values, {}, {})
        attempt = store.claim(run)
        train(recipe, journal=FileJournal(Task(store, run, Execution()), recipe, attempt))
        kept = checkpoints.newest([attempt.path / "ckpt.prev"]).state, checkpoints.load(attempt.checkpoint)
        assert [len(state["history"]) for state in kept if state] == epochs


FOLDER = """
seeds: 1
recipe:
  data: {name: imagefolder, id: pets, resolution: 16, eval_crop: 1.0, validation: 0.2}
  model: {name: deit, options: {patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2, mlp_ratio: 2}}
  augment: {crop: none, auto_augment: null, color_jitter: 0, erasing: 0, repeats: 1}
  optimizer: {base_lr: 0.02}
  schedule: {epochs: 1, batch_size: 4, warmup_epochs: 0}
variants: {a: {}}
"""


def test_finished_runs_pin_the_data_and_nothing_else_does(command: Command) -> None:
    for part in ("train", "val"):
        for red, label in enumerate(("cat", "dog", ".ipynb_checkpoints")):
            (command.folder / "pets" / part / label).mkdir(parents=True)
            for number in range(5):
                Image.new("RGB", (16, 16), (200 * red, number, 0)).save(
                    command.folder / "pets" / part / label / f"{number}.bmp"
                )
    (command.folder / "pets.yaml").write_text(FOLDER)
    store = Store(command.folder / "results")
    store.pin_data("pets", {"fingerprint": "f" * 64})  # of a run that failed, in an earlier version
    arguments = ("pets.yaml", "--data-dir", "pets", "--device", "cpu")
    told = command("run", *arguments).stderr
    (run,) = store.runs()
    pin, outcome = store.data_facts("pets"), store.outcome(run)
    assert pin
    assert outcome
    assert (pin["fingerprint"], pin["fingerprint_of"]) == (outcome["data"]["fingerprint"], "content")
    command("report", "pets")
    counts = "by class (training/validation/test): cat 4/1/5, dog 4/1/5"
    for line in ("2 classes; pictures: 8 training (train/), 2 validation", counts, "2 hidden files or folders"):
        assert told.count(f"data pets: {line}") == 1, "once a launch"
        assert f"data: {line}" in command("logs", run).stdout
        assert line in command("show", run).stdout
        assert line in (command.folder / "results" / "pets" / "report.html").read_text()

    picture = command.folder / "pets" / "val" / "dog" / "3.bmp"
    whole = picture.read_bytes()
    picture.write_bytes(whole[:-1] + b"\7")  # of the same size
    failed = command("run", *arguments, "--seeds", "2", code=1).stdout
    assert "failed (bad-data)" in failed
    assert "another data.id, restore the files, or `deit-ablate forget` those runs" in failed
    picture.write_bytes(whole)
    command("retry", *arguments)
    assert store.data_facts("pets") == pin

    picture.write_bytes(whole[:-1] + b"\7")
    for each in store.runs():
        command("forget", each, "--yes")
    command("run", *arguments)
    assert (store.data_facts("pets") or {})["fingerprint"] != pin["fingerprint"], "what is forgotten pins nothing"

    picture.write_bytes(whole)
    (run,) = store.runs()
    command("forget", run, "--yes")
    store.unpin_data("pets")
    store.pin_data("pets", {"fingerprint": pin["listing"]})  # as earlier versions did
    command("run", *arguments)
    assert (store.data_facts("pets") or {})["fingerprint"] == pin["listing"]
    assert (store.outcome(run) or {})["data"]["fingerprint"] == pin["listing"]


def test_a_retry_starts_anew_where_the_checkpoint_is_of_other_data(store: Store, tmp_path: Path, capsys: Any) -> None:
    recipe = Recipe.model_validate({"data": {"name": "imagefolder", "id": "pets"}})
    values = recipe.model_dump(mode="json")
    run = run_id(values, {})
    store.register(run, values, {}, {})
    first = store.claim(run)
    checkpoints.save(first.checkpoint, {"data": "old", "step": 3, "history": []})
    first.close("bad-data", "a picture is damaged")
    for retry, step in ((False, 3), (True, None)):
        attempt = store.claim(run, retry=retry)
        journal = FileJournal(Task(store, run, Execution()), recipe, attempt)
        journal.data({"fingerprint": "new"})
        assert (journal.resume() or {}).get("step") == step, "unasked, the trainer refuses it"
        attempt.close("bad-data")
    assert "passed over: the checkpoint is of other data than these" in capsys.readouterr().out


def test_data_other_than_those_of_imported_results_are_refused(store: Store, tmp_path: Path) -> None:
    other, runs = Store(tmp_path / "other"), list[str]()
    recipes = [Recipe.model_validate({"data": {"name": "imagefolder", "id": "pets"}, "seed": seed}) for seed in (0, 1)]
    for recipe in recipes:
        values = recipe.model_dump(mode="json")
        runs.append(run_id(values, {}))
        other.register(runs[-1], values, {}, {})
    attempt = other.claim(runs[0])
    data = {"fingerprint": "old"}
    other.finish(runs[0], attempt, {"status": "done", "reason": None, "metrics": {}, "cost": {}, "data": data})
    import_records(other.root, store)
    journal = FileJournal(Task(store, runs[1], Execution()), recipes[1], other.claim(runs[1]))
    journal.data({"fingerprint": "old"})
    with pytest.raises(DataError, match="the data called 'pets' are not those of the finished runs in this store: "):
        journal.data({"fingerprint": "new"})
