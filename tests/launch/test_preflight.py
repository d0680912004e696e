"""What would fail every run is refused before anything is written, at the line that asks for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support import NAMED, Command, files_of, planned, run_of
from tiny import write_table

from deit_ablate.errors import InputError
from deit_ablate.execution import Execution
from deit_ablate.launch import status
from deit_ablate.launch.jobs import Work
from deit_ablate.launch.pool import ProcessPool
from deit_ablate.launch.preflight import beside_table, keep_weights, must_have, preflight
from deit_ablate.store import Store
from deit_ablate.sweep.plan import Run


@pytest.fixture
def refused(sweep: Callable[..., Path], store: Store, pool: ProcessPool, tmp_path: Path) -> Callable[..., str | None]:
    """What is said against a sweep, with the place; None where nothing is."""

    def ask(text: str, **how: object) -> str | None:
        plan = planned(sweep(text))
        states = status.states(store, plan.parents)
        execution = Execution().model_copy(update={"device": "cpu", **how})
        work = Work(store, "tiny", plan.runs, plan.labels(), states, execution, "", written=plan.written)
        try:
            preflight(work, pool.ask)
        except InputError as error:
            return str(error).replace(f"{tmp_path}/", "")
        finally:
            assert not store.root.exists(), "nothing is written"
        return None

    return ask


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "variants:\n  a: {}\n  b: {optimizer: {options: {betas: [0.9, 2]}}}\n",
            "tiny.yaml:11:28: optimizer.options: the optimizer adamw refuses {'betas': (0.9, 2)}",
        ),
        (
            "variants:\n  a: {}\n  b: {model: {name: mixer_b16_224}, data: {resolution: 24}}\n",
            "tiny.yaml:11:56: data.resolution: mixer_b16_224: a data.resolution of 24 is no whole number of patches",
        ),
        (
            "variants:\n  a: {}\n  b: {model: {name: vgg11}, regularize: {dropout: 0, drop_path: 0.1}}\n",
            "tiny.yaml:11:65: regularize.drop_path: vgg11 cannot honour regularize.drop_path: set it to 0",
        ),
        (
            "variants:\n  a: {}\n  b: {augment: {auto_augment: rand-m9-zz5}}\n",
            "tiny.yaml:11:31: augment.auto_augment: timm does not understand the policy 'rand-m9-zz5'",
        ),
        (
            "variants: {a: {}, b: {distill: {type: hard, teacher: test_vit, teacher_weights: tiny.yaml}}}\n",
            "distill.teacher_weights: tiny.yaml is not a whole weights file: "
            "neither safetensors nor torch's format (b:0)",
        ),
        (
            'variants:\n  a: {}\n  b: {augment: {custom: ["mylab:crops"]}}\n',
            "tiny.yaml:11:25: augment.custom: the augmentation mylab:crops returned no image like the one",
        ),
    ],
)
def test_a_recipe_that_no_run_could_begin_with_is_refused_at_its_line(
    refused: Callable[..., str | None], text: str, says: str
) -> None:
    assert says in (refused(text) or "")


def test_a_teachers_file_of_other_classes_is_refused(refused: Callable[..., str | None], tmp_path: Path) -> None:
    import timm
    import torch

    model = timm.create_model("test_vit", num_classes=7, in_chans=1, img_size=16)
    torch.save(model.state_dict(), tmp_path / "seven.pth")
    said = refused("variants: {a: {}, b: {distill: {type: hard, teacher: test_vit, teacher_weights: seven.pth}}}\n")
    assert "the teacher test_vit knows 7 classes, and the data have 10 (b:0)" in (said or "")


def test_a_folder_that_does_not_hold_the_data_is_refused(refused: Callable[..., str | None], tmp_path: Path) -> None:
    photos = "variants: {a: {data: {name: imagefolder, id: mine, train_images: 30}}}\n"
    (tmp_path / "photos" / "val" / "cat").mkdir(parents=True)
    said = refused(photos, data_dir=str(tmp_path / "photos"))
    assert "data.name: photos has no folder train/ (expected train/<class>/<pictures>)" in (said or "")
    said = refused("variants: {a: {data: {name: cifar10, train_images: 100}}}\n", data_dir=str(tmp_path / "photos"))
    assert "no data_batch_1.bin in photos" in (said or "")


def test_ranks_that_cannot_share_a_batch_are_refused(refused: Callable[..., str | None]) -> None:
    assert refused("variants: {a: {}}\n") is None
    said = refused("variants: {a: {}}\n", ranks=3)
    assert said == (
        "execution.ranks: a batch of 32 cannot be cut into 3 chunks of whole pairs (3 ranks x 1 parts): "
        "choose other numbers of execution.ranks and accumulation (a:0)"
    )


def test_a_process_that_dies_over_it_is_told_of(
    sweep: Callable[..., Path], store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = planned(sweep("variants: {a: {}}\n"))
    states = status.states(store, plan.parents)
    preflight(Work(store, "tiny", plan.runs, plan.labels(), states, Execution(), ""), lambda *_: -9)
    assert "was not tried out: the process that does so was killed by signal 9" in capsys.readouterr().err


def test_the_command_leaves_with_2_and_no_results(command: Command, sweep: Callable[..., Path]) -> None:
    sweep("variants: {a: {optimizer: {options: {betas: [0.9, 2]}}}}\n")
    done = command("run", "tiny.yaml", code=2)
    assert done.stderr.startswith("error: tiny.yaml:9:")
    assert done.stdout == ""
    assert not (command.folder / "results").exists()


def test_a_launch_puts_files_into_the_store_or_says_which_are_missing(
    sweep: Callable[..., Path], store: Store, weights: Path
) -> None:
    made = planned(sweep(NAMED % "files/teacher.pth"))
    (sha256,) = files_of(made)
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


def test_gpus_that_are_not_there_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def said(**how: object) -> str:
        with pytest.raises(InputError) as refusal:
            must_have(Execution().model_copy(update=how), [])
        return str(refusal.value)

    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert said(runs_per_gpu=4) == "execution.runs_per_gpu: there is no GPU here for runs to share; expected 1"
    must_have(Execution(ranks=3), [])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert said(ranks=3) == (
        "execution.ranks: 3 ranks need a GPU each, and 2 can be seen here; expected at most 2, or --device cpu"
    )
    must_have(Execution(ranks=3, device="cpu"), [])
    must_have(Execution(ranks=2, runs_per_gpu=4), [])


def test_a_table_is_kept_by_its_content_and_its_paths_are_relative_to_its_folder(
    command: Command, sweep: Callable[..., Path]
) -> None:
    folder = command.folder / "pictures"
    write_table(folder)
    table = "seeds: 1\nvariants: {a: {data: {name: csv, file: %s, train_images: 32}}}\n"
    sweep(table % "pictures/labels.csv")
    told = command("run", "tiny.yaml", "--device", "cpu")
    assert "2 classes; pictures: 32 training (the rest of the table)" in told.stderr
    store = Store(command.folder / "results")
    (run,) = store.runs()
    recipe = (store.recipe(run) or {})["recipe"]["data"]
    kept = store.teacher_weights.find(recipe["file"])
    assert kept
    assert kept.read_bytes() == (folder / "labels.csv").read_bytes()
    assert (store.outcome(run) or {})["status"] == "done"
    (folder / "labels.csv").rename(command.folder / "elsewhere.csv")
    sweep(table % "elsewhere.csv")
    assert "1 runs: 1 done" in command("plan", "tiny.yaml").stdout, "where the table lies is no part of the run"
    with open(command.folder / "elsewhere.csv", "a") as file:
        file.write("gone.png,cat\n")
    refusal = command("run", "tiny.yaml", "--data-dir", "pictures", code=2).stderr
    assert "line 50 of the table data.file names a file that is not there: " in refusal
    assert len(list(store.runs())) == 1


def test_tables_of_several_folders_need_one_data_folder(sweep: Callable[..., Path], tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "t.csv").write_text(f"path,label\n{name},0\n")
    made = planned(
        sweep("variants: {a: {data: {name: csv, file: one/t.csv}}, b: {data: {name: csv, file: two/t.csv}}}\n")
    )
    with pytest.raises(InputError, match="relative to one data folder; expected --data-dir DIR"):
        beside_table(Execution(), made.runs.values())
    assert beside_table(Execution(data_dir="d"), made.runs.values()).data_dir == "d"
    (first, *_) = made.runs.values()
    assert beside_table(Execution(), [first]).data_dir == str(tmp_path / "one")
