"""A recipe's canonical form, the id of its run, and what follows from it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import planned

from deit_ablate import identity
from deit_ablate.errors import TrainError
from deit_ablate.identity import (
    ADDED_LATER,
    SEMANTICS,
    UNREAD,
    belongs,
    canonical,
    derived,
    difference,
    run_id,
    semantics_of,
    unread,
)
from deit_ablate.program import code_of
from deit_ablate.recipe import BLOCKS, Recipe, split_sizes
from deit_ablate.sweep.overrides import to_recipe
from deit_ablate.sweep.yaml import expand_dotted, parse, placed


def made(text: str) -> Recipe:
    return to_recipe(parse(text or "{}", "x.yaml"))


def id_of(text: str) -> str:
    return run_id(canonical(made(text)), {})


def test_equal_recipes_have_one_id_however_they_are_written() -> None:
    first = id_of("optimizer: {weight_decay: 1}\nschedule: {epochs: 100}")
    assert first == id_of("schedule: {epochs: 1e2}\noptimizer: {weight_decay: 1.0}")
    assert id_of("augment: {mixup: 0}") == id_of("augment: {mixup: -0.0}")
    assert id_of("model: {options: {depth: 4}}") == id_of("model: {options: {depth: 4.0}}")
    assert id_of("data: {name: digits}") == id_of("data: {name: digits, id: digits}")
    assert id_of("") == id_of("optimizer: {name: adamw, base_lr: 0.0005}"), "a default written out is the default"
    assert id_of("distill: {type: hard}") == id_of("distill: {type: hard, alpha: 0.5, tau: 7}"), (
        "hard reads no temperature"
    )


def test_what_decides_the_outcome_decides_the_id() -> None:
    texts = [
        "",
        "seed: 1",
        "schedule: {epochs: 301}",
        "optimizer: {name: sgd, base_lr: 0.0005}",
        "optimizer: {name: lamb, base_lr: 0.0005}",
        "data: {name: digits}",
        "data: {id: other}",
        "augment: {auto_augment: null}",
        "model: {options: {depth: 4}}",
        "distill: {type: hard}",
    ]
    ids = [id_of(text) for text in texts]
    ids += [
        run_id(canonical(Recipe()), {"teacher": {"run": "0" * 16, "weights": weights}}) for weights in ("last", "ema")
    ]
    ids += [run_id(canonical(Recipe()), {}, {"mylab:net": "abc"})]
    assert len(set(ids)) == len(ids)


SWITCHES: dict[str, st.SearchStrategy[Any]] = {
    "data.name": st.sampled_from(["digits", "cifar10", "imagenet", "imagefolder"]),
    "augment.crop": st.sampled_from(["random-resized", "pad", "none"]),
    "augment.auto_augment": st.sampled_from([None, "rand-m9-mstd0.5-inc1", "3a"]),
    "augment.mixup": st.sampled_from([0, 0.1, 0.8]),
    "augment.cutmix": st.sampled_from([0, 0.1, 1]),
    "augment.mix_prob": st.sampled_from([0, 0.2, 1]),
    "augment.mix_switch": st.sampled_from([0, 0.3, 0.5, 1]),
    "regularize.label_smoothing": st.sampled_from([0, 0.1]),
    "regularize.loss": st.sampled_from(["cross-entropy", "bce"]),
    "schedule.name": st.sampled_from(["cosine", "step"]),
    "schedule.warmup_epochs": st.sampled_from([0, 5]),
    "distill.type": st.sampled_from(["none", "soft", "hard", "soft-token", "hard-token", "two-class-tokens"]),
}
OTHERS: dict[str, list[Any]] = {
    "data.corrupt": ["fail", "skip"],
    "data.decoder": ["pillow", "device"],
    "data.train_images": [50_000, 60_000],
    "augment.crop_scale": [(0.08, 1.0), (0.5, 1.0)],
    "augment.crop_ratio": [(0.75, 4 / 3), (1.0, 1.0)],
    "augment.color_jitter": [0.4, 0.1],
    "augment.mixup": [0.8, 0.1],
    "augment.cutmix": [1.0, 0.1],
    "augment.mix_prob": [1.0, 0.4],
    "augment.mix_switch": [0.5, 0.3],
    "regularize.smoothing_over": ["all", "others"],
    "regularize.target_threshold": [0.1, 0.2],
    "schedule.warmup_lr": [1e-6, 1e-3],
    "schedule.min_lr": [1e-5, 1e-4],
    "distill.tau": [3.0, 7.0],
    "distill.normalisation": ["batch", "element"],
    "distill.alpha": [0.25, 0.75],
    "distill.teacher": ["regnety_160.deit_in1k", "resnet18.a1_in1k"],
    "distill.teacher_weights": ["sha256:" + "0" * 64, "sha256:" + "1" * 64],
    "distill.teacher_resolution": [224, 32],
}


@given(st.fixed_dictionaries(SWITCHES), st.sampled_from(list(OTHERS)))
def test_a_key_splits_ids_where_it_is_read_and_nowhere_else(switches: dict[str, Any], key: str) -> None:
    first, second = (
        Recipe.model_validate(expand_dotted(placed({**switches, key: value}, ("", 0, 0))).plain())
        for value in OTHERS[key]
    )
    off = {rule.key for rule in unread(first)}
    assert (run_id(canonical(first), {}) == run_id(canonical(second), {})) == (key in off)
    again = Recipe.model_validate_json(json.dumps(canonical(first)))
    assert canonical(again) == canonical(first), "what is stored is what it was made from"


def test_every_key_that_may_not_be_read_is_tried() -> None:
    assert {rule.key for rule in UNREAD} == set(OTHERS)
    custom = Recipe.model_validate({"data": {"name": "my:set"}, "distill": {"type": "my:loss"}})
    assert {rule.block for rule in unread(custom)} == {"augment", "regularize"}, "of a custom name nothing is known"


def test_an_id_means_the_same_training_in_every_version() -> None:
    """These ids lie in users' stores: where this fails, give a new field its ADDED_LATER value, or raise SEMANTICS."""
    assert id_of("") == "6760c8410ebb8567"
    assert (
        id_of("data: {name: digits, resolution: 16}\nmodel: {name: deit, options: {depth: 4}}\nseed: 3")
        == "36d53ce0c8f85079"
    )


def test_a_field_added_later_leaves_old_ids_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    before = id_of("")
    newer = {**canonical(Recipe())}
    newer["augment"] = {**newer["augment"], "three_augment": False}
    assert run_id(newer, {}) != before
    monkeypatch.setattr(identity, "ADDED_LATER", {**identity.ADDED_LATER, "augment.three_augment": False})
    assert run_id(newer, {}) == before, "at the value that changes nothing it is not hashed"
    newer["augment"]["three_augment"] = True
    assert run_id(newer, {}) != before


LATER = ("model.train_only", "regularize.loss", "regularize.target_threshold", "optimizer.layer_decay")


def test_records_of_before_a_field_was_added_keep_their_ids() -> None:
    recipe = canonical(Recipe())
    earlier = {name: dict(block) if isinstance(block, dict) else block for name, block in recipe.items()}
    for key in (*LATER, "schedule.name", "schedule.options"):
        block, _, name = key.partition(".")
        del earlier[block][name]
    assert run_id(earlier, {}) == run_id(recipe, {})


def test_a_stored_recipe_reads_back_as_itself() -> None:
    recipe = made(
        "data: {name: digits}\naugment: {crop_scale: [0.5, 1]}\nmodel: {options: {depth: 2}}\ndistill: {type: soft}"
    )
    again = Recipe.model_validate_json(json.dumps(canonical(recipe)))
    assert canonical(again) == canonical(recipe)


def test_no_mixup_doubles_cutmix_and_with_both_off_the_loss_changes() -> None:
    base = derived(made(""))
    assert (base["mixup_share"], base["cutmix_share"], base["loss"]) == (0.5, 0.5, "soft-target cross-entropy")
    assert difference(derived(made("augment: {mixup: 0}")), base) == {
        "mixup_share": (0.5, 0.0),
        "cutmix_share": (0.5, 1.0),
    }
    both = difference(derived(made("augment: {mixup: 0, cutmix: 0}")), base)
    assert both["loss"] == ("soft-target cross-entropy", "label-smoothing cross-entropy")
    plain = derived(made("augment: {mixup: 0, cutmix: 0}\nregularize: {label_smoothing: 0}"))
    assert plain["loss"] == "cross-entropy"


def test_no_randaugment_switches_colour_jitter_on() -> None:
    assert derived(made(""))["color_jitter"] == 0
    assert derived(made("augment: {auto_augment: null}"))["color_jitter"] == 0.4
    assert derived(made("augment: {auto_augment: null, color_jitter: 0}"))["color_jitter"] == 0


def test_steps_and_samples_are_counted_where_the_size_is_known() -> None:
    recipe = made("data: {name: digits}\nschedule: {batch_size: 32, epochs: 10, warmup_epochs: 2}")
    found = derived(recipe)
    # 1198 training images, 120 of them for validation; 1078 // 32 = 33 steps
    assert split_sizes(1198, recipe.data) == (1078, 120)
    assert (found["steps_per_epoch"], found["total_steps"], found["warmup_steps"], found["samples_seen"]) == (
        33,
        330,
        66,
        10_560,
    )
    assert found["distinct_images_per_epoch"] == 352, "1056 views of 3 each"
    unknown = made("data: {name: imagefolder, id: flowers-v1}")
    assert derived(unknown)["total_steps"] is None


def test_a_row_says_what_it_differs_in(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(
        "profile: digits\nbaseline: a\nvariants: {a: {}, b: {augment: {auto_augment: null, color_jitter: 0.3}}}"
    )
    row = planned(path).rows[1]
    assert set(row.differs) == {"augment.auto_augment", "augment.color_jitter"}
    assert set(row.declares) == {"augment.auto_augment", "augment.color_jitter"}
    assert row.undeclared == []


def test_custom_augmentations_are_part_of_the_id_where_there_are_some() -> None:
    assert id_of("augment: {custom: []}") == id_of("")
    texts = ['["mylab:noise"]', '["mylab:blur"]', '["mylab:noise", "mylab:blur"]', '["mylab:blur", "mylab:noise"]']
    texts += ['[{name: "mylab:noise", options: {sigma: 2}}]']
    assert len({id_of(f"augment: {{custom: {text}}}") for text in ["[]", *texts]}) == 6
    assert id_of('augment: {custom: ["mylab:noise"]}') == id_of(
        'augment: {custom: [{name: "mylab:noise", options: {}}]}'
    )
    recipe = made('augment: {custom: [{name: "mylab:noise", options: {sigma: 2.0}}]}')
    again = Recipe.model_validate_json(json.dumps(canonical(recipe)))
    assert canonical(again) == canonical(recipe)


def test_a_record_of_an_earlier_version_differs_in_no_field_added_since() -> None:
    now = canonical(Recipe())
    before = {**now, "data": {key: value for key, value in now["data"].items() if key != "test"}}
    assert difference(now, before) == difference(before, now) == {}
    without = {block: {k: v for k, v in now[block].items() if f"{block}.{k}" not in ADDED_LATER} for block in BLOCKS}
    assert difference({**now, **without}, now) == difference(now, {**now, **without}) == {}
    assert difference({**now, **without, "seed": 1}, now) == {"seed": (0, 1)}
    later = canonical(made("data: {test: false}"))
    assert difference(later, before) == {"data.test": (True, False)}


def test_a_stored_recipe_belongs_to_its_id_under_the_semantics_that_wrote_it() -> None:
    recipe = canonical(made("optimizer: {name: lamb, base_lr: 0.0005}"))
    stored = {"recipe": recipe, "parents": {}, "sources": {"mylab:net": "abc"}}
    for semantics in range(1, SEMANTICS + 1):
        run = run_id(recipe, {}, stored["sources"], semantics)
        assert semantics_of(run, stored) == semantics, "files of earlier versions do not say it"
        assert belongs(run, {**stored, "semantics": semantics})
        assert not belongs(run, {**stored, "semantics": semantics + 1})
        assert not belongs(run, {**stored, "sources": {}})
    later = run_id(recipe, {}, {}, SEMANTICS + 1)
    assert belongs(later, {"recipe": recipe, "parents": {}, "sources": {}, "semantics": SEMANTICS + 1})
    for damaged in ({}, {**stored, "recipe": None}, {**stored, "recipe": {"seed": math.nan}}):
        assert not belongs(run, damaged)


def code(folder: Path, **files: str) -> dict[str, str]:
    """The code of ``mylab.nets:tiny`` (or ``nets:tiny``) of a folder with these files."""
    for name, text in files.items():
        path = folder / (name.replace("__", "/") + ".py")
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return code_of("mylab.nets:tiny" if (folder / "mylab").exists() else "nets:tiny")


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


NETS = """
from .helper import WIDTH
def tiny(shape):
    from mylab.deep import inner
    import torch
"""


def test_the_code_of_a_model_is_all_of_its_package_that_it_imports(lab: Path) -> None:
    (lab / "mylab").mkdir()
    (lab / "mylab" / "__init__.py").write_text("raise SystemExit  # nothing is executed to be hashed\n")
    (lab / "mylab" / "deep").mkdir()
    (lab / "mylab" / "deep" / "__init__.py").write_text("")
    (lab / "mylab" / "deep" / "inner.py").write_text("from .. import nets  # a cycle\n")
    before = code(lab, mylab__nets=NETS, mylab__helper="WIDTH = 1.0", mylab__unused="X = 1")
    assert list(before) == ["mylab", "mylab.deep", "mylab.deep.inner", "mylab.helper", "mylab.nets"]
    after = code(lab, mylab__helper="WIDTH = 0.0  # zero")
    assert {module for module in before if before[module] != after[module]} == {"mylab.helper"}
    assert code(lab, mylab__helper="WIDTH = 1.0", mylab__unused="X = 2") == before
    with pytest.raises(TrainError, match=r"helper.py:1: the source of mylab.helper does not parse"):
        code(lab, mylab__helper="WIDTH = = 1")


def test_comments_docstrings_and_formatting_are_no_part_of_code(lab: Path) -> None:
    before = code(lab, nets='"""Nets."""\ndef tiny(shape, width=(1, 2)):\n    "Tiny."\n    return "a" + \'b\'  # so\n')
    assert code(lab, nets='def tiny(shape,\n    width=(1, 2,)):\n\n  """Other."""\n  return ("a" + "b")\n') == before
    assert code(lab, nets="def tiny(shape, width=(1, 2)):\n    return 'a' + 'c'\n") != before
    assert code(lab, nets="def tiny(shape, width=(1, 2.0)):\n    return 'a' + 'b'\n") != before


def test_a_single_module_counts_with_those_beside_it_unless_they_are_installed(lab: Path) -> None:
    found = code(lab, nets="import numpy, json\nfrom layers import block\n", layers="import nets", other="")
    assert list(found) == ["layers", "nets"]
    assert list(code_of("typing_extensions:x")) == ["typing_extensions"]
    assert list(code_of("deit_ablate.train.model:deit")) == ["deit_ablate.train.model"], "SEMANTICS stands for the rest"
