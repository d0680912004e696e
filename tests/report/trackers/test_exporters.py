"""``export SWEEP --to TRACKER``, read back from what each tracker has written, with its own library."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from studies import Study
from support import Command, change

import deit_ablate
from deit_ablate.report.trackers.exporters import EXPORTERS

PROGRAM = [{"epoch": epoch, "step": 5 * epoch, "metrics": {"eval_loss": 1.0 / epoch}} for epoch in (1, 2)]
"""Lines of a training script that is not ours."""


@pytest.fixture
def made(study: Callable[..., Study]) -> Study:
    rows: dict[str, Any] = {
        "adamw": {0: 97.0, 1: 98.0},
        "sgd": {0: {"status": "diverged", "reason": "non-finite loss", "epochs": 2}},
        "lamb": {0: {"status": "failed", "epochs": 1}, 1: "missing"},
        "own": {0: {"top1": 50.0, "history": PROGRAM}},
    }
    made = study(rows, teacher=99.5, epochs=3)
    change(made.store, made.runs["own", 0], metrics__program={"eval_loss": 0.25, "other": None})
    return made


RUNS = 6
"""Five cells that have begun, and the teacher, which they share."""


def export(command: Command, tracker: str, *options: str | Path) -> str:
    """Twice: the second time must change nothing."""
    pytest.importorskip(
        EXPORTERS[tracker].library, reason="its extra is not installed; `make test-trackers` installs it"
    )
    said = [command("export", "study", "--to", tracker, *options) for _ in range(2)]
    assert [done.stderr for done in said] == ["", ""]
    assert said[0].stdout == said[1].stdout
    assert said[0].stdout.startswith(f"{RUNS} runs of study are in {tracker}: ")
    return said[0].stdout


def nothing_private(command: Command, folder: Path) -> None:
    """No file has the folder that all of it lies in, nor this machine's name."""
    private = [
        str(command.folder).encode(),
        *([socket.gethostname().encode()] if len(socket.gethostname()) > 6 else []),
    ]
    for path in folder.rglob("*"):
        if path.is_file() and path.suffix != ".log":
            assert not any(word in path.read_bytes() for word in private), path
            assert socket.gethostname() not in path.name.split(".")


def test_tensorboard(made: Study, command: Command) -> None:
    export(command, "tensorboard")
    folder = made.root / "study" / "tensorboard"
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    found = {}
    for path in folder.iterdir():
        events = found[path.name] = EventAccumulator(str(path))
        events.Reload()
        assert len(list(path.iterdir())) == 1
    names = {f"{row}_{seed}_student {run[:8]}" for (row, seed), run in made.runs.items() if (row, seed) != ("lamb", 1)}
    assert found.keys() == {*names, f"adamw_0_teacher {made.teacher[:8]}"}
    first = made.runs["adamw", 0]
    events = found[f"adamw_0_student {first[:8]}"]
    lines = [(10 * epoch, 97.0 * (1 - 0.5**epoch)) for epoch in (1, 2, 3)]
    assert [(event.step, event.value) for event in events.Scalars("validation/top1")] == lines
    times = [event.wall_time for event in events.Scalars("lr")]
    assert [later - times[0] for later in times] == pytest.approx([0, 1.5, 3])  # the seconds that its epochs took
    assert [(event.step, event.value) for event in events.Scalars("final/test/top1")] == [(30, 97.0)]
    told = {tag: HParamsPluginData.FromString(content) for tag, content in events.PluginTagToContent("hparams").items()}
    config = told["_hparams_/session_start_info"].session_start_info.hparams
    assert config["optimizer.base_lr"].number_value == 0.01
    assert (config["row"].string_value, config["run"].string_value) == ("adamw", first)
    assert told["_hparams_/session_end_info"].session_end_info.status == 1
    own = found[f"own_0_student {made.runs['own', 0][:8]}"]
    assert [(e.step, e.value) for e in own.Scalars("metrics/eval_loss")] == [(5, 1.0), (10, 0.5)]
    assert own.Scalars("final/program/eval_loss")[0].value == 0.25
    nothing_private(command, folder)


def test_mlflow(made: Study, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    export(command, "mlflow", "--uri", "sqlite:///flow.db", "--project", "ours")
    reads_mlflow(made, f"sqlite:///{command.folder}/flow.db", "ours")


def reads_mlflow(made: Study, uri: str, experiment: str) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    runs = client.search_runs([client.get_experiment_by_name(experiment).experiment_id])
    assert len(runs) == RUNS
    found = {run.data.tags["deit_ablate.run"]: run for run in runs}
    assert {run.info.run_name for run in runs} >= {"study:adamw:0:teacher", "study:adamw:1:student"}
    run = found[made.runs["adamw", 0]]
    points = client.get_metric_history(run.info.run_id, "validation/top1")
    lines = [(10 * epoch, 97.0 * (1 - 0.5**epoch)) for epoch in (1, 2, 3)]
    assert sorted((point.step, point.value) for point in points) == lines
    final = client.get_metric_history(run.info.run_id, "final/test/top1")
    assert [(point.step, point.value) for point in final] == [(30, 97.0)]
    assert run.data.params["optimizer.base_lr"] == "0.01"
    assert run.data.params["augment.crop_scale"] == "[0.08,1]"
    shown = {key: value for key, value in run.data.tags.items() if key != "mlflow.runName"}
    facts = {"run": made.runs["adamw", 0], "sweep": "study", "row": "adamw", "seed": "0", "stage": "student"}
    assert shown == {f"deit_ablate.{key}": value for key, value in {**facts, "status": "done"}.items()}
    assert found[made.teacher].data.tags["deit_ablate.also"] == "sgd:0:teacher, lamb:0:teacher, own:0:teacher"
    ends = {row: found[made.runs[row, 0]] for row in ("adamw", "sgd", "lamb")}
    assert {row: run.info.status for row, run in ends.items()} == {
        "adamw": "FINISHED",
        "sgd": "FINISHED",
        "lamb": "FAILED",
    }
    assert {row: run.data.tags["deit_ablate.status"] for row, run in ends.items()} == {
        "adamw": "done",
        "sgd": "diverged",
        "lamb": "failed",
    }
    own = client.get_metric_history(found[made.runs["own", 0]].info.run_id, "metrics/eval_loss")
    assert [(point.step, point.value) for point in own] == [(5, 1.0), (10, 0.5)]


def test_wandb_offline(made: Study, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(variable)
    export(command, "wandb", "--offline")
    folders = {path.name.rpartition("-")[2]: path for path in (made.root / "study" / "wandb").glob("offline-run-*")}
    assert len(list((made.root / "study" / "wandb").glob("offline-run-*"))) == RUNS
    assert folders.keys() == {made.teacher, *(run for cell, run in made.runs.items() if cell != ("lamb", 1))}
    (record,) = folders[made.runs["adamw", 0]].glob("*.wandb")
    content = record.read_bytes()
    for text in (b"study:adamw:0:student", b"optimizer.base_lr", b"validation/top1", b"final/test/top1"):
        assert text in content
    nothing_private(command, made.root / "study" / "wandb")


def test_trackio(made: Study, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in [name for name in os.environ if name.startswith("TRACKIO_")]:
        monkeypatch.delenv(variable)
    export(command, "trackio", "--dir", "logs")
    connection = sqlite3.connect(command.folder / "logs" / "study.db")
    name = f"study:adamw:0:student {made.runs['adamw', 0][:8]}"
    rows = connection.execute("select step, metrics from metrics where run_name = ? order by step", [name]).fetchall()
    assert [step for step, _ in rows] == [10, 20, 30, 31]
    values = [json.loads(metrics) for _, metrics in rows]
    assert [value["validation/top1"] for value in values[:3]] == [97.0 * (1 - 0.5**epoch) for epoch in (1, 2, 3)]
    assert values[3]["final/test/top1"] == 97.0
    assert len(connection.execute("select distinct run_name from metrics").fetchall()) == RUNS
    ((config,),) = connection.execute("select config from configs where run_name = ?", [name]).fetchall()
    assert json.loads(config)["optimizer.base_lr"] == 0.01
    nothing_private(command, command.folder / "logs")


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["--to", "mflow"],
            "error: --to: no tracker 'mflow'; did you mean 'mlflow'?; expected one of tensorboard, wandb,",
        ),
        (["--to", "tensorboard", "--uri", "x"], "error: --uri: tensorboard has no such option"),
        (["--to", "tensorboard", "--format", "csv"], "error: --format: only of a table; expected --to without it"),
        (["--offline"], "error: --offline: only of a tracker; expected --to TRACKER with it"),
        (["--to", "tensorboard", "--dir", "file/inside"], "error: file/inside: Not a directory"),
        (["--to", "mlflow", "--uri", "http://someone:pw@127.0.0.1:9"], "error: mlflow fails, MlflowException: "),
    ],
)
def test_what_cannot_be_is_one_error(
    made: Study, command: Command, monkeypatch: pytest.MonkeyPatch, arguments: list[str], says: str
) -> None:
    if "--to" in arguments and arguments[1] in EXPORTERS:
        pytest.importorskip(EXPORTERS[arguments[1]].library)
    (command.folder / "file").touch()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    said = command("export", "study", *arguments, code=2)
    assert said.stderr.startswith(says)
    assert len(said.stderr.splitlines()) == 1
    assert "pw" not in said.stderr
    assert not (made.root / "study" / "tensorboard").exists()


def test_a_sweep_without_results(study: Callable[..., Study], command: Command) -> None:
    study({"a": {0: "missing"}, "b": {0: {"status": "failed", "epochs": 0}}})
    said = command("export", "study", "--to", "tensorboard", code=2)
    assert said.stderr.startswith("error: --to: study has no results yet; expected a sweep of which a run")


@pytest.mark.parametrize("tracker", EXPORTERS)
def test_a_library_that_is_missing_is_named_with_its_extra(
    made: Study, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], tracker: str
) -> None:
    from deit_ablate.cli.app import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, EXPORTERS[tracker].library, None)
    with pytest.raises(SystemExit) as left:
        app(args=["export", "study", "--to", tracker])
    library = EXPORTERS[tracker].library
    assert left.value.code == 2
    assert capsys.readouterr().err == (
        f"error: {tracker} needs the package {library}, which is not installed; "
        f"expected `pip install 'deit-ablate[{tracker}]'`\n"
    )


ADDED = """
import json


class Lines:
    options = frozenset({"folder"})

    def __init__(self, to):
        self.file = open(to.make() / "lines.jsonl", "w")

    def begin(self, run):
        return -1

    def log(self, run, points):
        for point in points:
            self.file.write(json.dumps([run.name, point.step, point.values["train_loss"]]) + "\\n")

    def end(self, run, state, scores):
        self.file.write(json.dumps([run.name, state.name, scores.values.get("final/test/top1")]) + "\\n")

    def close(self):
        self.file.close()
        return self.file.name
"""


def test_a_tracker_is_added_by_a_file_and_an_entry(study: Callable[..., Study], cold_command: Command) -> None:
    made = study({"a": {0: 90.0}}, epochs=2)
    package = cold_command.folder / "copy" / "deit_ablate"
    shutil.copytree(Path(deit_ablate.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    trackers = package / "report" / "trackers"
    text = (trackers / "exporters.py").read_text()
    (trackers / "exporters.py").write_text(
        text.replace("EXPORTERS = {\n", 'EXPORTERS = {\n    "lines": Entry("json", "Lines"),\n')
    )
    (trackers / "lines.py").write_text(ADDED)
    cold_command.environment["PYTHONPATH"] = str(package.parent)
    cold_command("export", "study", "--to", "lines")
    lines = [json.loads(line) for line in (made.root / "study" / "lines" / "lines.jsonl").read_text().splitlines()]
    assert lines == [["study:a:0", 10, 2.0], ["study:a:0", 20, 1.0], ["study:a:0", "done", 90.0]]
