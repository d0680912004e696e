import pandas as pd
import pytest

from deit_ablate import files
from deit_ablate.report.frame import COLUMNS, CURVES, NoSweep, load, load_curves
from deit_ablate.report.tables.table import sweep_table
from deit_ablate.store.submissions import Submissions


def test_one_row_a_cell_whatever_its_state(optimizers):
    frame = load(optimizers.root, "optimizers")
    assert list(frame["variant"]) == ["adamw"] * 3 + ["sgd"] * 3 + ["lamb"] * 3
    assert list(frame["state"]) == ["done"] * 5 + ["diverged"] + ["done"] * 2 + ["failed"]
    assert list(frame["detail"])[-4:] == ["non-finite loss", "", "", "crash"]
    assert list(frame["top1"][:5]) == [97, 98, 99, 95, 97]
    assert frame["top1"][5:].isna().tolist() == [True, False, False, True]
    assert list(frame["epochs"]) == [4, 4, 4, 4, 4, 2, 4, 4, 4]
    assert set(frame["attempts"]) == {1}
    assert frame["version"][0] == "0.1.0"
    assert frame["run"][1] == optimizers.runs["adamw", 1]


def test_columns_are_typed_and_documented(optimizers):
    frame = load(optimizers.root, "optimizers")
    categories = {"variant": "category", "stage": "category"}
    for name, (dtype, meaning) in COLUMNS.items():
        assert str(frame[name].dtype) == categories.get(name, dtype), name
        assert meaning
    curves = load_curves(optimizers.root, "optimizers")
    assert list(curves) == list(CURVES)
    assert [str(curves[name].dtype) for name in CURVES] == [
        categories.get(n, dtype) for n, (dtype, _) in CURVES.items()
    ]
    assert list(frame["variant"].cat.categories) == ["adamw", "sgd", "lamb"], "the plan's order"


def test_recipe_follows_what_varies_first(optimizers):
    frame = load(optimizers.root, "optimizers")
    recipe = list(frame.columns[len(COLUMNS) :])
    assert recipe == ["optimizer.base_lr", "data.id", "optimizer.name", "augment.crop_scale"]
    assert list(frame["optimizer.base_lr"].unique()) == [0.01, 0.02, 0.03]
    assert frame["augment.crop_scale"][0] == "[0.08,1]"


def test_a_diverged_run_shows_its_figure_only_as_what_was_recorded(study):
    made = study({"sgd": {0: {"status": "diverged", "top1": 10.0, "reason": "at chance"}}})
    frame = load(made.root, "study")
    assert frame["top1"].isna().all()
    assert list(frame["test_top1"]) == [10]


def test_shows_decides_what_top1_is(study):
    heads = {"top1_class": 96.0, "top1_distillation": 95.0, "top1_ema": 94.0}
    rows = {name: {0: {"top1": 97.0, "test": heads}} for name in ("fused", "class", "distillation", "ema")}
    made = study(
        rows,
        shows={"class": "class", "distillation": "distillation", "ema": "ema"},
        same=dict.fromkeys(("class", "distillation", "ema"), "fused"),
    )
    frame = load(made.root, "study")
    assert list(frame["top1"]) == [97, 96, 95, 94]
    assert list(frame["validation_top1"]) == [97, 96, 95, 94]
    assert frame["run"].nunique() == 1
    curves = load_curves(made.root, "study")
    assert curves[curves["variant"] == "ema"]["validation_top1"].iloc[0] == pytest.approx(97 * 0.4)
    assert curves[curves["variant"] == "class"]["validation_top1"].isna().all()


def test_children_of_a_failed_teacher_are_blocked_though_never_registered(study):
    made = study({"hard": {0: "missing", 1: "missing"}}, teacher="failed")
    frame = load(made.root, "study")
    assert list(frame["state"]) == ["failed", "blocked", "blocked"]
    assert list(frame["detail"])[1] == made.teacher


def test_children_of_a_running_teacher_wait(study):
    frame = load(study({"hard": {0: "missing"}}, teacher="running").root, "study")
    assert list(frame["state"]) == ["running", "waiting"]


def test_runs_in_a_queue_and_runs_of_a_held_sweep_are_said_to_be_so(study, monkeypatch):
    monkeypatch.setenv("PATH", "")  # a machine without SLURM: what files say stands
    made = study({"a": {0: 90.0, 1: "missing", 2: "missing"}, "b": {0: "missing", 1: {"status": "failed"}}})
    submissions = Submissions(made.store)
    entries = [{"run": made.runs["a", seed], "after": 0, "retry": False} for seed in (1, 2)]
    told = {"name": "deit-ablate-1-x", "cluster": "c", "launcher": {"nonce": "x"}, "arguments": [], "code": "c"}
    assert submissions.announce(1, {**told, "runs": entries})
    submissions.note(1, "7")
    frame = load(made.root, "study")
    assert list(frame["state"]) == ["done", "submitted", "submitted", "missing", "failed"]
    assert list(frame["detail"])[1:3] == ["", ""]
    assert "Submitted: a seeds 1, 2." in sweep_table(made.summary()).footnotes
    files.publish(made.store.sweeps.folder("study") / "held.json", b"{}")
    frame = load(made.root, "study")
    assert list(frame["state"]) == ["done", "submitted", "submitted", "held", "held"]
    assert "Held: b seeds 0, 1." in sweep_table(made.summary()).footnotes


def test_curves_have_a_row_an_epoch(optimizers):
    curves = load_curves(optimizers.root, "optimizers")
    assert len(curves) == 8 * 4 + 2
    own = curves[(curves["variant"] == "adamw") & (curves["seed"] == 1)]
    assert list(own["epoch"]) == [1, 2, 3, 4]
    assert own["validation_top1"].iloc[0] == pytest.approx(49)
    assert own["train_loss"].iloc[3] == 0.5


def test_epochs_without_validation_are_missing_values(study):
    history = [
        {
            "epoch": 1,
            "step": 10,
            "lr": 0.1,
            "train_loss": 1.0,
            "validation": None,
            "seconds": 1.0,
            "images_per_second": 9.0,
        }
    ]
    curves = load_curves(study({"a": {0: {"top1": 90.0, "history": history}}}).root, "study")
    assert curves["validation_top1"].isna().all()
    assert list(curves["train_loss"]) == [1]


def test_nothing_has_run(study):
    made = study({"a": {0: "missing"}, "b": {0: "missing"}})
    frame = load(made.root, "study")
    assert list(frame["state"]) == ["missing", "missing"]
    assert frame["parameters"].isna().all()
    assert list(frame.columns) == list(COLUMNS)
    assert isinstance(load_curves(made.root, "study"), pd.DataFrame)


def test_a_sweep_that_was_never_planned(tmp_path):
    with pytest.raises(NoSweep, match="'nowhere'"):
        load(tmp_path, "nowhere")
    with pytest.raises(NoSweep, match="'nowhere'"):
        load_curves(tmp_path, "nowhere")
