"""What goes along in a bundle: weights files by their size, versions as runs recorded them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from studies import Shipped, record
from support import NAMED, VIT, files_of

from deit_ablate import files
from deit_ablate.errors import Damaged, InputError
from deit_ablate.launch.reproduce import prepare, recorded_execution
from deit_ablate.report import bundle
from deit_ablate.report.bundle import Wanted, bundle_name, redacted_yaml, write_bundle
from deit_ablate.report.redaction import Redactor
from deit_ablate.store import Store
from deit_ablate.store.bundle import opened

PACKAGES = {"torch": "2.11.0+cpu", "numpy": "2.3.1"}
MADE = {"python": "3.12.1", "packages": PACKAGES, "hardware": {"cpu": "A `fast` one"}}


@pytest.fixture
def taught(tmp_path: Path, sweep: Callable[..., Path], weights: Path) -> Shipped:
    """A row without a teacher, and one of a teacher from a file; seed 1 was made with another version."""

    def fate(cell: Any) -> dict[str, Any]:
        packages = PACKAGES if cell.seed != 1 else {**PACKAGES, "numpy": "2.0.0"}
        seconds = {"wall_seconds": 10.0 + cell.seed, "device": "cpu"}
        return {"top1": 90.0 + cell.seed, "provenance": {**MADE, "packages": packages}, "cost": seconds}

    made = Shipped(tmp_path / "results", sweep("seeds: 2\n" + NAMED % weights), fate)
    for run in made.plan.runs:
        record(made, run, test_targets=[0, 1], test_pred_class=[0, 1])
    (sha256,) = files_of(made.plan)
    made.store.teacher_weights.keep(sha256, weights)
    return made


def test_small_weights_go_along_and_large_ones_where_asked_for(
    taught: Shipped, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (sha256,) = files_of(taught.plan)
    row = Wanted(taught.store, taught.name, "hard")
    (tmp_path / "small").symlink_to(files.make_folder(tmp_path / "elsewhere" / "empty"))
    assert write_bundle(row, tmp_path / "small").warnings == []
    assert [path.stem for path in (tmp_path / "small" / "weights").iterdir()] == [sha256.removeprefix("sha256:")]
    monkeypatch.setattr(bundle, "SMALL", 3)
    (warning,) = write_bundle(row, tmp_path / "large.zip").warnings
    assert "weights files of 7 bytes are left out" in warning
    with monkeypatch.context() as patch:
        patch.chdir(files.make_folder(tmp_path / "asked"))
        write_bundle(Wanted(taught.store, taught.name, "hard", weights=True), Path())
    with opened(tmp_path / "asked") as found:
        assert {path.name for path in (tmp_path / "asked").iterdir()} == {path.name for path in found.folder.iterdir()}
    assert (tmp_path / "asked" / "weights").is_dir()
    with opened(tmp_path / "large.zip") as found:
        assert f"`{sha256}`, which is not in this bundle" in (found.folder / "README.md").read_text()
        run, anew = found.manifest["run"], Store(tmp_path / "anew")
        with pytest.raises(InputError, match=f"no file with the content {sha256}"):
            prepare(found, run, anew)
        assert prepare(found, run, anew, [weights]) == [run]
        assert anew.teacher_weights.find(sha256)
    with opened(tmp_path / "small") as found:
        assert prepare(found, run, Store(tmp_path / "again")) == [run], "nothing has to be given"


def test_a_teacher_of_the_hub_goes_along(tmp_path: Path, sweep: Callable[..., Path]) -> None:
    path = sweep(f"seeds: 1\nvariants: {{hard: {{distill: {{type: hard, teacher: {VIT}}}}}}}\n")
    made = Shipped(tmp_path / "results", path, lambda cell: 90.0)
    (run,) = made.plan.runs
    record(made, run, test_targets=[0, 1], test_pred_class=[0, 1])
    made.store.teacher_weights.keep_hub(VIT, lambda target: target.write_bytes(b"of the hub"))
    write_bundle(Wanted(made.store, made.name), tmp_path / "bundle")
    anew = Store(tmp_path / "anew")
    with opened(tmp_path / "bundle") as found:
        prepare(found, run, anew)
        assert anew.teacher_weights.hub_sha256(VIT) == made.store.teacher_weights.hub_sha256(VIT)
        other = Store(tmp_path / "other")
        other.teacher_weights.keep_hub(VIT, lambda target: target.write_bytes(b"others"))
        with pytest.raises(InputError, match=r"is not what earlier runs in this store used.*another --results"):
            prepare(found, run, other)


def test_weights_that_were_tampered_with_are_refused(taught: Shipped, tmp_path: Path) -> None:
    (sha256,) = files_of(taught.plan)
    kept = taught.store.teacher_weights.find(sha256)
    assert kept
    kept.unlink()
    kept.write_bytes(b"others")
    with pytest.raises(Damaged, match=f"not the content of {sha256}"):
        write_bundle(Wanted(taught.store, taught.name), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
    assert not list(tmp_path.glob(".tmp-*"))


def test_versions_are_locked_as_the_run_recorded_them(taught: Shipped, tmp_path: Path) -> None:
    write_bundle(Wanted(taught.store, taught.name), tmp_path / "bundle")
    lines = (tmp_path / "bundle" / "requirements.lock.txt").read_text().splitlines()
    assert lines[0].startswith("# Python 3.12.1. As recorded by the run ")
    assert lines[1:4] == [
        "torch==2.11.0  # recorded: 2.11.0+cpu",
        "numpy==2.3.1",
        "# 2 other runs here: numpy 2.0.0",
    ]
    names = [line.partition("==")[0] for line in lines if "==" in line]
    assert len(names) == len(set(names)), "a version that is recorded is not locked again"
    assert "The run was trained on A  fast  one." in (tmp_path / "bundle" / "README.md").read_text()


def test_a_run_is_executed_as_it_was_as_far_as_that_decides_bits() -> None:
    recorded = {"ranks": 2, "accumulation": 3, "threads": 4, "deterministic": True, "loaders": 7, "runs_per_gpu": 2}
    how = recorded_execution({"execution": {**recorded, "unknown": 1, "compile": None}, "cost": {"device": "cpu"}})
    assert (how.ranks, how.accumulation, how.threads, how.deterministic) == (1, 6, 4, True)
    assert (how.device, how.loaders, how.runs_per_gpu) == ("cpu", None, 1)
    assert recorded_execution({"cost": {"device": "cuda:0"}}).device == "auto"


def test_a_bundle_is_named_after_what_it_is_of() -> None:
    assert bundle_name("a@digits", None) == "bundle-a@digits"
    assert bundle_name("a", "no mixup/../x") == "bundle-a-no-mixup-..-x"


PRIVATE = """# by alice, see https://example.org/x
execution:
  data_dir: "/data/my set"
  slurm: {partition: gpu, account: vision, time: "24:00:00", setup: [". ~/env", "x --account vision"]}
distill: {teacher_weights: ../w/x.pth}  # /home/alice/w
x: [name, path, [url]]
notes: |
  /home/alice
"""


def test_a_redacted_sweep_file_is_yaml_still() -> None:
    say = Redactor(frozenset(), frozenset({"alice"}))
    text = redacted_yaml(PRIVATE, say)
    assert not re.search("alice|vision|my set|example", text)
    slurm = {
        "partition": "gpu",
        "account": "[account]",
        "time": "24:00:00",
        "setup": [". [path]", "x --account [account]"],
    }
    assert yaml.safe_load(text) == {
        "execution": {"data_dir": "[path]", "slurm": slurm},
        "distill": {"teacher_weights": "[path]"},
        "x": ["name", "path", ["url"]],
        "notes": "[path]\n",
    }
    for path in (files.shipped("sweeps")).rglob("*.yaml"):
        assert redacted_yaml(path.read_text(), say) == path.read_text(), path
