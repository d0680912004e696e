"""Weights files: named by path in a sweep, by content in a recipe, kept by the store; and records verified by weights."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import Command, planned

from deit_ablate import files
from deit_ablate.errors import InputError
from deit_ablate.launch.preflight import keep_weights
from deit_ablate.store import Store
from deit_ablate.sweep import names as planned_names
from deit_ablate.sweep.plan import Plan, Run, single_run

VIT = "test_vit.r160_in1k"
NAMED = "variants: {none: {}, hard: {distill: {type: hard, teacher: test_vit, teacher_weights: %s}}}"


def run_of(made: Plan, variant: str) -> Run:
    return made.runs[next(cell.run for cell in made.cells if cell.variant == variant)]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file that is as good as weights to all that never opens them."""
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "teacher.pth").write_bytes(b"weights")
    return tmp_path / "files" / "teacher.pth"


# -- by path in a sweep, by content in a recipe ---------------------------------------------------------------------


def test_a_path_becomes_its_contents_hash(sweep: Callable[..., Path], weights: Path, tmp_path: Path) -> None:
    made = planned(sweep(NAMED % "files/teacher.pth"))
    sha256 = f"sha256:{files.sha256(weights)}"
    hard, none = run_of(made, "hard"), run_of(made, "none")
    assert hard.recipe["distill"]["teacher_weights"] == sha256
    assert hard.weights == made.weights == {sha256: weights}
    assert none.weights == {}
    assert "files/" not in json.dumps(made.document("x")), "where a file lies is no part of a plan"

    (tmp_path / "elsewhere").mkdir()
    shutil.copy(weights, tmp_path / "elsewhere" / "renamed.bin")
    moved = planned(sweep(NAMED % "elsewhere/renamed.bin"))
    assert run_of(moved, "hard").id == hard.id
    assert run_of(planned(sweep(NAMED % sha256)), "hard").id == hard.id
    weights.write_bytes(b"other weights")
    os.utime(weights, ns=(1, 1))
    assert run_of(planned(sweep(NAMED % "files/teacher.pth")), "hard").id != hard.id


def test_a_path_is_relative_to_the_file_it_stands_in(
    sweep: Callable[..., Path], weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "profiles").mkdir()
    (tmp_path / "profiles" / "mine.yaml").write_text(
        "recipe: {distill: {type: hard, teacher: test_vit, teacher_weights: ../files/teacher.pth}}"
    )
    own = tmp_path / "of_a_profile.yaml"
    own.write_text("profile: mine\nrecipe: {data: {name: digits}}\nvariants: {a: {}}")
    assert list(planned(own).weights) == [f"sha256:{files.sha256(weights)}"]
    plain = sweep("variants: {hard: {distill: {type: hard, teacher: test_vit}}}")
    monkeypatch.chdir(tmp_path / "files")
    made = planned(plain, sets=["distill.teacher_weights=teacher.pth"])
    assert list(made.weights) == [f"sha256:{files.sha256(weights)}"]
    assert planned(plain, sets=[f"distill.teacher_weights={weights}"]).runs.keys() == made.runs.keys()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "files/gone.pth",
            r"tiny.yaml:9:\d+: distill.teacher_weights: no such file: .*gone.pth; expected a checkpoint",
        ),
        ("files", r"tiny.yaml:9:\d+: distill.teacher_weights: not a file: .*files; expected a checkpoint file"),
        ("''", r"tiny.yaml:9:\d+: distill.teacher_weights: not a file: "),
        ("sha256:123", r"tiny.yaml:9:\d+: distill.teacher_weights: got"),
        ("3", r"tiny.yaml:9:\d+: distill.teacher_weights: got 3"),
    ],
)
def test_a_file_that_is_not_there_is_said_with_its_line(
    given: str, said: str, sweep: Callable[..., Path], weights: Path
) -> None:
    with pytest.raises(InputError, match=said):
        planned(sweep(NAMED % given))


def test_a_recipe_file_may_name_a_teacher(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("profile: digits\ndistill: {type: soft, teacher: test_vit, teacher_weights: files/teacher.pth}")
    run = single_run(path, ())
    assert run.weights == {f"sha256:{files.sha256(weights)}": weights}
    with pytest.raises(InputError, match=r"'soft' needs a teacher; expected distill.teacher, or a stage that teaches"):
        single_run(path, ("distill.teacher=null", "distill.teacher_weights=null"))


# -- teachers by name -----------------------------------------------------------------------------------------------


def test_teachers_names_are_checked_with_their_line(
    sweep: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from deit_ablate.train import names

    monkeypatch.setattr(
        planned_names, "ask_worker", names.ask
    )  # in this process: a worker imports torch for each question
    text = "variants:\n  hard: {distill: {type: hard, teacher: %s}}"
    assert len(planned(sweep(text % VIT)).runs) == 3
    for name, said in (
        ("regnety_16x", r"tiny.yaml:10:\d+: distill.teacher: no model is called 'regnety_16x'"),
        ("test_vit.mine", r"tiny.yaml:10:\d+: distill.teacher: test_vit.mine cannot be built: Invalid pretrained tag"),
        ("mylab:exploding", r"tiny.yaml:10:\d+: distill.teacher: 'mylab:exploding' is no pretrained model of timm's"),
        ("small_convnet", r"tiny.yaml:10:\d+: distill.teacher: 'small_convnet' is no pretrained model of timm's"),
    ):
        with pytest.raises(InputError, match=said):
            planned(sweep(text % name))


def test_one_teacher_is_needed_and_one_is_enough(sweep: Callable[..., Path]) -> None:
    with pytest.raises(
        InputError, match=r"'hard' needs a teacher; expected distill.teacher, or a stage that teaches: "
    ):
        planned(sweep("variants: {hard: {distill.type: hard}}"))
    stages = "stages:\n  teacher: {recipe: {model: {name: small_convnet}}}\n  student: {teacher: teacher}\n"
    rows = "variants:\n  one: {distill.type: hard}\n  two: {distill: {type: hard, teacher: test_vit}}"
    with pytest.raises(InputError, match=r"tiny.yaml:14:\d+: distill.teacher: the stage 'teacher' teaches already"):
        planned(sweep(stages + rows))
    tuned = "stages:\n  student: {}\n  tuned: {from: student, recipe: {data: {resolution: 24}, distill: {teacher_resolution: 32}}}\n"
    made = planned(sweep(f"{tuned}variants: {{two: {{distill: {{type: hard, teacher: test_vit}}}}}}"))
    taught = {cell.stage: made.runs[cell.run].recipe["distill"] for cell in made.cells}
    assert {stage: (part["teacher"], part["teacher_resolution"]) for stage, part in taught.items()} == {
        "student": ("test_vit", None),
        "tuned": ("test_vit", 32),
    }


# -- the store ------------------------------------------------------------------------------------------------------


def test_the_store_keeps_a_file_by_its_content(store: Store, weights: Path) -> None:
    sha256 = f"sha256:{files.sha256(weights)}"
    assert store.teacher_weights.find(sha256) is None
    kept = store.teacher_weights.keep(sha256, weights)
    assert kept == store.teacher_weights.find(sha256) == store.root / "weights" / f"{sha256[7:]}.pth"
    assert kept.samefile(weights), "no second copy where a link will do"
    assert store.teacher_weights.keep(sha256, weights) == kept
    link = weights.with_name("link.bin")
    link.symlink_to(weights)
    kept.unlink()
    assert not store.teacher_weights.keep(sha256, link).is_symlink()
    assert [path.name for path in (store.root / "weights").iterdir()] == [f"{sha256[7:]}.bin"]


def test_a_kept_file_that_was_damaged_is_replaced_and_a_changed_one_refused(store: Store, weights: Path) -> None:
    sha256 = f"sha256:{files.sha256(weights)}"
    kept = store.teacher_weights.keep(sha256, weights)
    kept.unlink()
    kept.write_bytes(b"damaged")
    assert store.teacher_weights.keep(sha256, weights).read_bytes() == b"weights"
    other = weights.with_name("other.pth")
    other.write_bytes(b"other")
    with pytest.raises(ValueError, match="the content of .*other.pth has changed"):
        Store(store.root.with_name("fresh")).teacher_weights.keep(sha256, other)
    assert list((store.root.with_name("fresh") / "weights").iterdir()) == []


def test_a_copy_is_made_where_no_link_can_be(store: Store, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: Any, **__: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_links)
    kept = store.teacher_weights.keep(f"sha256:{files.sha256(weights)}", weights)
    assert not kept.samefile(weights)
    assert kept.read_bytes() == b"weights"


def test_what_the_hub_gave_first_under_a_name_stands(store: Store) -> None:
    def writes(content: bytes) -> Callable[[Path], None]:
        return lambda path: path.write_bytes(content) and None

    assert store.teacher_weights.find(VIT) is None
    assert store.teacher_weights.hub_sha256(VIT) is None
    kept = store.teacher_weights.keep_hub(VIT, writes(b"first"))
    assert kept == store.teacher_weights.find(VIT)
    assert store.teacher_weights.find("test_vit") is None, "another name, maybe of other weights"
    assert store.teacher_weights.hub_sha256(VIT) == files.sha256(kept)
    with pytest.raises(ValueError, match=f"what the hub gives as {VIT} is not what earlier runs in this store used"):
        store.teacher_weights.keep_hub(VIT, writes(b"second"))
    assert kept.read_bytes() == b"first"
    kept.unlink()
    assert store.teacher_weights.keep_hub(VIT, writes(b"first")) == kept


def test_no_sweep_is_called_weights(sweep: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="'weights' is a folder of the store itself"):
        planned(sweep("variants: {a: {}}", name="weights"))


def test_a_launch_puts_files_into_the_store_or_says_which_are_missing(
    sweep: Callable[..., Path], store: Store, weights: Path
) -> None:
    made = planned(sweep(NAMED % "files/teacher.pth"))
    (sha256,) = made.weights
    by_content = planned(sweep(NAMED % sha256, name="later")).runs.values()
    stripped = [Run(run.id, run.recipe) for run in by_content]
    with pytest.raises(InputError, match=f"no file with the content {sha256} is in .*; expected the path of the file"):
        keep_weights(stripped, store)
    assert not store.root.exists()
    assert keep_weights([run_of(made, "none")], store) == {}
    assert keep_weights(made.runs.values(), store) == {sha256: str(store.teacher_weights.find(sha256))}
    assert keep_weights(stripped, store) == {sha256: str(store.teacher_weights.find(sha256))}
    weights.write_bytes(b"other")
    store.teacher_weights.find(sha256).unlink()  # type: ignore[union-attr]
    with pytest.raises(InputError, match="has changed"):
        keep_weights(made.runs.values(), store)


# -- verified records -----------------------------------------------------------------------------------------------

TOKENS = """
stages:
  teacher: {recipe: {model: {name: small_convnet, options: {width: 8}}, regularize: {ema_decay: 0.9}}, seeds: [0]}
  student: {teacher: teacher}
seeds: 1
variants: {token: {distill.type: hard-token}}
"""


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> tuple[Path, Plan]:
    """A teacher (with an average) and a student of two heads, trained once for all."""
    from support import TINY

    from deit_ablate.execution import Execution
    from deit_ablate.launch.jobs import Work
    from deit_ablate.launch.local import JobLaunch

    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.yaml").write_text(TINY + TOKENS)
    made, store = planned(folder / "tiny.yaml"), Store(folder / "results")
    store.sweeps.save_plan("tiny", {**made.document("../tiny.yaml"), "asked": {}})
    work = Work(store, None, made.runs, made.labels(), {}, Execution(device="cpu"))
    report = JobLaunch(work, request.getfixturevalue("pool")).run(lambda _: None, lambda: False)
    assert all(state.finished for state in report.states.values())
    return folder, made


@pytest.fixture
def copied(finished: tuple[Path, Plan], tmp_path: Path) -> tuple[Store, str]:
    """A copy of it to tamper with, and the student's id."""
    folder, made = finished
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    return Store(tmp_path / "results"), next(cell.run for cell in made.cells if cell.stage == "student")


def verified(store: Store, run: str) -> dict[str, Any]:
    from deit_ablate.train.verify import verify

    return verify(store, run, None, "cpu")


def change(store: Store, run: str, **values: Any) -> None:
    outcome = store.outcome(run)
    assert outcome is not None
    for path, value in values.items():
        *steps, last = path.split("__")
        part = outcome
        for step in steps:
            part = part[step]
        part[last] = value
    files.replace(store.run(run) / "outcome.json", files.to_json(outcome))


def test_records_agree_with_their_checkpoints_to_the_last_prediction(finished: tuple[Path, Plan]) -> None:
    folder, made = finished
    for run in made.runs:
        found = verified(Store(folder / "results"), run)
        assert found["agrees"], found["problems"]
        assert found["exact"]
        assert found["weights"]
        assert found["metrics"] == {}
        assert found["images"] == 599
        assert found["predictions"].keys() >= {"class"}
        assert set(found["predictions"].values()) == {0}
    assert found["predictions"].keys() == {"class", "distillation", "fused_logits", "fused_softmax"}


def test_other_weights_are_found(copied: tuple[Store, str]) -> None:
    from deit_ablate.train import checkpoint

    store, run = copied
    path = store.weights(run)
    assert path is not None
    state = checkpoint.load(path)
    state["model"]["head.bias"][3] += 10
    checkpoint.save(path, state)
    found = verified(store, run)
    assert not found["agrees"]
    assert not found["weights"]
    assert "the weights are not those that were recorded" in found["problems"]
    assert found["predictions"]["class"] > 300
    assert found["predictions"]["distillation"] == 0
    assert any(problem.startswith("top1 is ") for problem in found["problems"])


def test_other_figures_and_predictions_are_found(copied: tuple[Store, str]) -> None:
    store, run = copied
    recorded = verified(store, run)["top1"][0]
    change(store, run, metrics__test__top1=recorded + 0.05)
    found = verified(store, run)
    assert found["problems"] == [f"top1 is {recorded:.10g}, and was recorded as {recorded + 0.05:.10g}"]
    change(store, run, arrays_sha256="0")
    assert "its recorded predictions are gone or damaged" in verified(store, run)["problems"]


def test_other_versions_may_differ_by_a_tenth_of_a_point(copied: tuple[Store, str]) -> None:
    store, run = copied
    top1 = verified(store, run)["top1"][0]
    change(store, run, provenance__packages__torch="1.0", metrics__test__top1=top1 + 0.09, metrics__test__loss=0.5)
    found = verified(store, run)
    assert found["agrees"]
    assert not found["exact"]
    assert found["metrics"].keys() == {"top1", "loss"}
    change(store, run, metrics__test__top1=top1 + 0.11)
    assert not verified(store, run)["agrees"]


def test_what_cannot_be_verified_is_said(copied: tuple[Store, str], monkeypatch: pytest.MonkeyPatch) -> None:
    from deit_ablate.errors import TrainError
    from deit_ablate.train.verify import verify_all

    store, run = copied
    with pytest.raises(TrainError, match="has not finished"):
        verified(store, "0" * 16)
    change(store, run, metrics__test=None, reason="non-finite loss at step 3")
    with pytest.raises(TrainError, match="ended before its test .non-finite loss at step 3"):
        verified(store, run)
    assert next(verify_all(store, [run], None, "cpu"))["error"].startswith(run)


# -- the commands ---------------------------------------------------------------------------------------------------


def test_the_verify_command(copied: tuple[Store, str], command: Command) -> None:
    store, run = copied
    done = command("verify", "tiny:token:0", run[:8])
    assert done.stdout.startswith(f"{run}: agrees exactly: weights, metrics and predictions of 599 images, top-1 ")
    assert len(done.stdout.splitlines()) == 1, "named twice, verified once"
    whole = json.loads(command("verify", "tiny:token", "--json").stdout)
    assert len(whole) == 2
    assert all(answer["agrees"] for answer in whole)
    change(store, run, metrics__test__top1=1.0)
    assert "DIFFERS: top1 is" in command("verify", run, code=1).stdout
    assert "no run or sweep 'nothing'" in command("verify", "nothing", code=2).stderr
    store.weights(run).unlink()  # type: ignore[union-attr]
    assert "its weights are gone" in command("verify", run, code=2).stderr


def test_a_sweep_with_a_teachers_file_is_fetched_and_run(
    sweep: Callable[..., Path], store: Store, command: Command, tmp_path: Path
) -> None:
    import timm
    import torch

    torch.manual_seed(0)
    model = timm.create_model("test_vit", num_classes=10, in_chans=1, img_size=16)
    torch.save({"model": model.state_dict()}, tmp_path / "teacher.pth")
    path = sweep("seeds: 1\n" + NAMED % "teacher.pth")
    done = command("fetch", path.name)
    (sha256,) = planned(path).weights
    assert f"teacher {sha256[:14]}: in results/weights/{sha256[7:]}.pth" in done.stdout
    (tmp_path / "results" / "weights" / f"{sha256[7:]}.pth").unlink()
    command("run", path.name)
    hard = run_of(planned(path), "hard")
    assert store.outcome(hard.id)["status"] in ("done", "diverged")  # type: ignore[index]
    assert store.history(hard.id)[0]["loss_parts"].keys() == {"base", "distillation"}
    assert store.teacher_weights.find(sha256) is not None

    (tmp_path / "teacher.pth").write_bytes(b"not weights")
    bad = command("run", path.name, code=2)
    assert "teacher.pth is not a whole weights file" in bad.stderr


def test_fetch_says_what_it_cannot_bring(sweep: Callable[..., Path], command: Command) -> None:
    photos = "recipe: {data: {name: imagefolder, id: mine}}\nvariants: {a: {}}"
    assert command("fetch", sweep(photos, base="").name).stdout == (
        "data imagefolder: is not fetched; supply its folder with --data-dir\n"
    )
    os.environ["HF_HUB_OFFLINE"] = "1"
    try:
        taught = f"seeds: 1\nvariants: {{a: {{distill: {{type: hard, teacher: {VIT}}}}}}}"
        done = command("fetch", sweep(taught).name, code=1)
    finally:
        del os.environ["HF_HUB_OFFLINE"]
    assert f"teacher {VIT}: the weights of {VIT} could not be fetched from timm's hub" in done.stdout
