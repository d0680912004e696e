"""The commands before and after runs: init, fetch, verify."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from support import NAMED, VIT, Command, change, files_of, planned, run_of

from deit_ablate.store import Store


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
    (sha256,) = files_of(planned(path))
    assert f"file {sha256[:14]}: in results/weights/{sha256[7:]}.pth" in done.stdout
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
    taught = f"seeds: 1\nvariants: {{a: {{distill: {{type: hard, teacher: {VIT}}}}}}}"
    done = command("fetch", sweep(taught).name, code=1)  # the hub is out of reach: see warm.ENVIRONMENT
    assert f"weights {VIT}: the weights of {VIT} could not be fetched from timm's hub" in done.stdout


def test_init_writes_what_is_shipped_and_overwrites_nothing(command: Command) -> None:
    command("init", "study")
    mine = command.folder / "study" / "sweeps" / "optimizers.yaml"
    assert (command.folder / "study" / "analysis" / "sweep_table.py").exists()
    mine.write_text("title: mine\nprofile: digits\nvariants: {only: {}}\n")
    assert "exists, left as it is" in command("init", "study").stderr
    assert "only:" in command("plan", "study/sweeps/optimizers.yaml").stdout
    assert "did you mean" not in command("plan", "optimizers").stderr, "a shipped sweep may be named without its file"
