"""Records as frames, and the index that spares 10,000 small files: never the truth, and never in the way."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pandas as pd
import pytest
from studies import Study, end

import deit_ablate
from deit_ablate.report import frame
from deit_ablate.report.tables.table import sweep_table
from deit_ablate.store import cleanup, index


@pytest.fixture
def indexed(optimizers: Study, monkeypatch: pytest.MonkeyPatch) -> Study:
    """The example, with an index although it is small."""
    monkeypatch.setattr(index, "WORTH_AN_INDEX", 1)
    deit_ablate.load(optimizers.root, "optimizers")
    assert (optimizers.root / "index.json").exists()
    return optimizers


def test_frames_at_package_level(optimizers: Study) -> None:
    pd.testing.assert_frame_equal(
        deit_ablate.load(optimizers.root, "optimizers"), frame.load(str(optimizers.root), "optimizers")
    )
    curves = deit_ablate.load_curves(str(optimizers.root), "optimizers")
    assert list(curves) == list(frame.CURVES)
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        deit_ablate.lode  # noqa: B018


def test_provenance_has_columns(study: Callable[..., Study]) -> None:
    fate = {
        "top1": 90.0,
        "cost": {"device": "cuda", "inference_images_per_second": 812.5},
        "execution": {"ranks": 2, "accumulation": 2, "threads": 3, "compile": True, "channels_last": False},
        "data": {"fingerprint": "f00", "test": 600},
        "provenance": {
            "git": {"commit": "abc", "dirty": True},
            "hardware": {"gpu": "T4", "host": "n1"},
            "packages": {"torch": "2.5", "timm": "1.0"},
            "command": "deit-ablate run x",
        },
    }
    (row,) = deit_ablate.load(study({"a": {0: fate}}).root, "study").to_dict("records")
    assert (row["device"], row["gpu"], row["host"], row["cpu"]) == ("cuda", "T4", "n1", "")
    assert (row["commit"], row["packages"]) == ("abc + changes", "timm 1.0, torch 2.5")
    assert (row["ranks"], row["chunks"], row["threads"]) == (2, 4, 3)
    assert (row["compile"], row["channels_last"], row["deterministic"]) == ("on", "off", "")
    assert (row["inference_images_per_second"], row["data_fingerprint"], row["data_test"]) == (812.5, "f00", 600)
    assert row["command"] == "deit-ablate run x"


def test_early_records_with_a_gpus_name_for_the_device_and_a_mode_of_compilation_read(
    study: Callable[..., Study],
) -> None:
    early = {"top1": 90.0, "cost": {"device": "NVIDIA A100-SXM4-40GB"}, "execution": {"compile": "reduce-overhead"}}
    (row,) = deit_ablate.load(study({"a": {0: early}}).root, "study").to_dict("records")
    assert (row["device"], row["compile"]) == ("cuda", "reduce-overhead")


def test_few_runs_are_read_without_an_index(optimizers: Study) -> None:
    deit_ablate.load(optimizers.root, "optimizers")
    assert not (optimizers.root / "index.json").exists()


def test_the_index_changes_nothing(indexed: Study) -> None:
    with_index = deit_ablate.load(indexed.root, "optimizers")
    table = sweep_table(indexed.summary())
    content = json.loads((indexed.root / "index.json").read_text())
    assert len(content["runs"]) == 8, "what has finished, not what failed"
    (indexed.root / "index.json").unlink()
    pd.testing.assert_frame_equal(deit_ablate.load(indexed.root, "optimizers"), with_index)
    (indexed.root / "index.json").unlink()
    again = sweep_table(indexed.summary())
    assert (again.rows(), again.footnotes) == (table.rows(), table.footnotes)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"schema": 1}',
        b'{"schema": 99, "runs": {}, "recipes": {}}',
        b"\xff",
        b'{"schema": 1, "runs": null, "recipes": null}',
        b'{"schema": 1, "runs": [1], "recipes": []}',
        b'{"schema": 4, "version": "0.0.9", "runs": {}, "recipes": {}}',
        b'{"schema": 4, "version": "0.1.0", "recipes": {}, "runs": {"x": [[1], ["done", "", 1], "k", [], null]}}',
    ],
)
def test_a_damaged_index_is_ignored_and_made_anew(indexed: Study, content: bytes) -> None:
    sound = deit_ablate.load(indexed.root, "optimizers")
    (indexed.root / "index.json").write_bytes(content)
    pd.testing.assert_frame_equal(deit_ablate.load(indexed.root, "optimizers"), sound)
    assert len(json.loads((indexed.root / "index.json").read_text())["runs"]) == 8


def test_a_run_that_was_forgotten_and_trained_again_is_read_anew(indexed: Study) -> None:
    run = indexed.runs["adamw", 0]
    stored = indexed.store.recipe(run)
    assert stored is not None
    cleanup.forget(indexed.store, run)
    gone = deit_ablate.load(indexed.root, "optimizers").set_index("run").loc[run]
    assert (gone["state"], pd.isna(gone["top1"])) == ("missing", True)
    end(indexed.store, run, stored["recipe"], stored["parents"], 91.5)
    again = deit_ablate.load(indexed.root, "optimizers").set_index("run").loc[run]
    assert (again["state"], again["top1"]) == ("done", 91.5)


def test_what_ends_later_joins_it(indexed: Study) -> None:
    made = Study(indexed.root, {"late": {0: 88.0}}, name="later")
    assert list(deit_ablate.load(indexed.root, "later")["top1"]) == [88.0]
    assert made.runs["late", 0] in json.loads((indexed.root / "index.json").read_text())["runs"]


def test_a_store_that_takes_no_index_is_read_all_the_same(optimizers: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "WORTH_AN_INDEX", 1)
    (optimizers.root / "index.json").mkdir()  # who runs this as root may write everywhere, but not over a folder
    loaded: Any = deit_ablate.load(optimizers.root, "optimizers")
    assert list(loaded["top1"].dropna()) == [97, 98, 99, 95, 97, 98, 99.5]
    assert not list(optimizers.root.glob(".tmp-*"))


def test_a_number_too_large_to_reckon_with_is_none(study: Callable[..., Study]) -> None:
    """It is finite, and its square is not."""
    metric = {"name": "metrics.cost", "better": "lower", "program": True, "place": [0, 0]}
    fates = {seed: {"program": {"cost": cost}} for seed, cost in enumerate((3.0, 1e200, 4.0))}
    made = study({"a": fates, "b": fates}, baseline="b", metric=metric)
    table = sweep_table(made.summary())
    assert table.rows()[0][-1] == "2 of 3"
    assert "3.500 ± 6.353" in table.rows()[0]
    assert "Done without this figure: a seed 1; b seed 1." in table.footnotes
