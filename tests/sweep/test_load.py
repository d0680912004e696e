"""Sweep files: every kind of bad input gets one message with its place; names, `--set` and the order of layers."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import Command, planned

from deit_ablate.errors import InputError
from deit_ablate.sweep.load import load_sweep
from deit_ablate.sweep.plan import single_run
from deit_ablate.sweep.profiles import profile

HEAD = "title: t\nprofile: digits\n"

BAD = {
    "unknown key of a row": ("variants: {a: {optmizer: {name: sgd}}}", ":3:16", "did you mean 'optimizer'?"),
    "unknown key of a block": ("variants:\n  a: {optimizer: {bas_lr: 1}}", ":4:19", "did you mean 'base_lr'?"),
    "unknown top-level key": ("sedes: 3\nvariants: {a: {}}", ":3:1", "did you mean 'seeds'?"),
    "unknown key of the execution": ("execution: {paralel: 3}\nvariants: {a: {}}", ":3:13", "did you mean 'parallel'?"),
    "unknown key of a stage": ("stages: {t: {techer: x}}\nvariants: {a: {}}", ":3:14", "did you mean 'teacher'?"),
    "NaN": ("variants:\n  a: {optimizer.base_lr: .nan}", ":4:26", "finite number"),
    "NaN in a list of options": ("variants: {a: {optimizer.options: {betas: [.nan, 0.9]}}}", ":3:44", "finite number"),
    "a batch larger than the data": ("variants: {a: {schedule.batch_size: 4096}}", ":3:37", "training images"),
    "patches that do not fit": (
        "variants: {a: {model.options: {patch_size: 5}}}",
        ":3:44",
        "no whole number of patches",
    ),
    "a resolution that its model's patches do not fill": (
        "variants: {a: {data.resolution: 24, model: {name: vit_tiny_patch16_224}}}",
        ":3:51",
        "model.name: a resolution of 24 pixels is no whole number of patches of 16 pixels (beside data.resolution in",
    ),
    "a resolution at which most of a picture would have no influence": (
        "variants: {a: {data.resolution: 30, model: {name: vit_tiny_patch16_224.augreg_in21k}}}",
        ":3:51",
        "expected a multiple of 16, or model.options: {dynamic_img_size: true, dynamic_img_pad: true}, which pads",
    ),
    "a resolution that a default patch does not fill": (
        "variants: {a: {model: {name: deit_tiny}, data.resolution: 24}}",
        ":3:59",
        "data.resolution: a resolution of 24 pixels is no whole number of patches of 16 pixels (beside model.name in",
    ),
    "a model without a distillation token": (
        "stages: {t: {seeds: [0]}, s: {teacher: t}}\n"
        "variants: {a: {s: {distill: {type: hard-token}, model: {name: resnet18}}}}",
        ":4:63",
        "resnet18 has 1 head(s), and the distillation type hard-token asks for 2 (beside distill.type in {file}:4:36)",
    ),
    "a model of two heads without distillation": (
        "variants: {a: {model.name: deit_tiny_distilled_patch16_224, data.resolution: 32}}",
        ":3:28",
        "has 2 head(s), and the distillation type none asks for 1",
    ),
    "a profile's warm-up, longer than one's own training": (
        "variants: {a: {schedule.epochs: 3}}",
        ":3:33",
        "schedule.epochs: a warm-up of 5 epochs is not below the 3 epochs (beside schedule.warmup_epochs in ",
    ),
    "a batch that mixing cannot pair": (
        "variants: {a: {schedule.batch_size: 31}}",
        ":3:37",
        "schedule.batch_size: a batch of 31 is odd, and mixup pairs the images of a batch (beside augment.mixup in ",
    ),
    "mixing that cannot pair a batch": (
        "recipe: {schedule.batch_size: 31, augment.mix_prob: 0}\nvariants: {a: {augment.mix_prob: 1}}",
        ":4:34",
        "augment.mix_prob: a batch of 31 is odd",
    ),
    "fewer images than a batch": (
        "variants: {a: {data.train_images: 20}}",
        ":3:35",
        "data.train_images: a batch of 32 is more than the 20 training images (beside schedule.batch_size in ",
    ),
    "heads that do not fit": ("variants: {a: {model.options: {num_heads: 5}}}", ":3:43", "not divided by 5 heads"),
    "infinity in options": ("variants: {a: {model.options: {depth: .inf}}}", ":3:39", "finite number"),
    "negative learning rate": ("variants:\n  a: {optimizer.base_lr: -1}", ":4:26", "greater than 0"),
    "negative mixup": ("variants:\n  a: {augment.mixup: -2}", ":4:22", "greater than or equal to 0"),
    "a probability above 1": ("variants: {a: {augment.erasing: 1.5}}", ":3:33", "less than or equal to 1"),
    "a word for a number": ("variants: {a: {optimizer.base_lr: yes}}", ":3:35", "valid number"),
    "true for a number": ("variants: {a: {optimizer.base_lr: true}}", ":3:35", "valid number"),
    "half an epoch": ("variants: {a: {schedule.epochs: 2.5}}", ":3:33", "valid integer"),
    "warm-up longer than the training": ("variants: {a: {schedule.warmup_epochs: 500}}", ":3:40", "not below the"),
    "an empty range": ("variants: {a: {augment.crop_scale: [1, 0.5]}}", ":3:36", "the range is empty"),
    "a range of one number": ("variants: {a: {augment.crop_scale: [0.5]}}", ":3:36", "got a list; expected 2 items"),
    "a range in a list": ("variants: {a: {augment.crop_scale: [[0.5, 1]]}}", ":3:37", "expected a valid number"),
    "a range of nothing": ("variants: {a: {augment.crop_scale: []}}", ":3:36", "got a list; expected 2 items"),
    "a range that is a number": ("variants: {a: {augment.crop_scale: 0.5}}", ":3:36", "got 0.5; expected a list"),
    "an odd batch that is mixed": ("variants: {a: {schedule.batch_size: 31}}", ":3:37", "even number"),
    "no RandAugment policy": ("variants: {a: {augment.auto_augment: rnd}}", ":3:38", "pattern"),
    "a block that is a number": ("variants: {a: {augment: 3}}", ":3:25", "a mapping"),
    "a row that is a number": ("variants: {a: 3}", ":3:15", "mapping of overrides"),
    "a seed in a row": ("variants: {a: {seed: 3}}", ":3:16", "seeds, at the top of the sweep"),
    "no seeds": ("seeds: 0\nvariants: {a: {}}", ":3:8", "how many seeds"),
    "negative seeds": ("seeds: [1, -1]\nvariants: {a: {}}", ":3:8", "how many seeds"),
    "a seed twice": ("seeds: [1, 1]\nvariants: {a: {}}", ":3:8", "different whole numbers"),
    "a margin of 0": ("margin: 0\nvariants: {a: {}}", ":3:9", "greater than 0"),
    "looks at a population": (
        "looks: [3]\npopulation: true\nbaseline: a\nvariants: {a: {}}",
        ":4:13",
        "without `looks`",
    ),
    "a population by a metric of which no image is known": (
        "metric: loss\npopulation: true\nbaseline: a\nvariants: {a: {}}",
        ":4:13",
        "population: population: true, but no run keeps test loss image by image; expected `metric: top1`, a head",
    ),
    "a population by top-5": (
        "metric: top5\npopulation: true\nbaseline: a\nvariants: {a: {}}",
        ":4:13",
        "no run keeps test top-5 image by image",
    ),
    "a population that nothing is compared in": ("population: true\nvariants: {a: {}}", ":3:13", "a baseline"),
    "duplicate keys": ("variants: {a: {}, a: {}}", ":3:19", "is given twice (first on line 3)"),
    "a key dotted and nested": (
        "variants: {a: {optimizer: {base_lr: 1}, optimizer.base_lr: 2}}",
        ":3:41",
        "given twice",
    ),
    "duplicate rows": (
        "variants: {a: {}, b: {augment: {mixup: 0.7}}, c: {augment.mixup: 7.0e-1}}",
        ":3:47",
        "the same training as 'b'",
    ),
    "a row whose key is switched off": (
        "variants: {a: {}, b: {augment.color_jitter: 0.1}}",
        ":3:19",
        "the same training as 'a'; augment.color_jitter has no effect where augment.auto_augment is rand",
    ),
    "rows that differ in what both switch off": (
        "variants: {a: {augment.crop: none}, b: {augment: {crop: none,\n  crop_scale: [0.5, 1]}}}",
        ":3:37",
        "augment.crop_scale has no effect where augment.crop is none ({file}:3)",
    ),
    "two ways to mix nothing": (
        "variants: {a: {augment.mix_prob: 0}, b: {augment: {mixup: 0, cutmix: 0, mix_prob: 0.3}}}",
        ":3:38",
        "augment.mix_prob has no effect where augment.mixup is 0 ({file}:3) and augment.cutmix is 0 ({file}:3)",
    ),
    "a row that sets only what is switched off": (
        "variants: {a: {augment.mixup: 0}, b: {schedule: {warmup_lr: 1e-3}}}\nrecipe: {schedule.warmup_epochs: 0}",
        ":3:35",
        "'b' changes nothing; schedule.warmup_lr has no effect where schedule.warmup_epochs is 0 ({file}:4)",
    ),
    "an empty sweep": ("variants: {}", ":3:1", "an empty sweep"),
    "no kind of sweep": ("", ":1:1", "exactly one of variants, grid"),
    "two kinds of sweep": ("variants: {a: {}}\ngrid: {augment.mixup: [0, 1]}", ":4:1", "exactly one of"),
    "a baseline that does not exist": ("variants: {adamw: {}}\nbaseline: adam", ":4:11", "did you mean 'adamw'?"),
    "a path for a name": ("variants: {../a: {}}", ":3:12", "cannot name a row"),
    "a row called like a stage": ("stages: {t: {}}\nvariants: {t: {}}", ":4:12", "is the name of a stage"),
    "a margin that is none": (
        "variants: {a: {}}\nby_profile: {imagenet: {margin: 0}}",
        ":4:33",
        "by_profile.imagenet.margin: got 0; expected greater than 0",
    ),
    "an unknown profile": ("variants: {a: {}}\nby_profile: {imagnet: {}}", ":4:14", "did you mean 'imagenet'?"),
    "an unknown row by profile": (
        "variants: {sgd: {}}\nby_profile: {imagenet: {sdg: {}}}",
        ":4:25",
        "did you mean 'sgd'?",
    ),
    "a wrong value under another profile": (
        "variants: {a: {}}\nby_profile: {imagenet: {a: {optimizer.base_lr: abc}}}",
        ":4:48",
        'by_profile.imagenet.a.optimizer.base_lr: got "abc"; expected a valid number',
    ),
    "a name that is none for another profile": (
        "variants: {a: {}}\nby_profile: {imagenet: {a: {model.name: deit_tinny}}}",
        ":4:41",
        "by_profile.imagenet.a.model.name: no model is called 'deit_tinny'; did you mean 'deit_tiny'?",
    ),
    "an option of another optimizer for another profile": (
        "variants: {a: {}}\nby_profile: {imagenet: {recipe: {optimizer: {name: lamb, options: {x: 1}}}}}",
        ":4:68",
        "by_profile.imagenet.recipe.optimizer.options.x: lamb has no option 'x'",
    ),
    "betas of another length": (
        "variants: {a: {optimizer.options: {betas: [0.9]}}}",
        ":3:43",
        "optimizer.options.betas: got [0.9]; expected a list of 2, each a number",
    ),
    "a wrong option under another profile": (
        "variants: {a: {}}\nby_profile: {imagenet: {a: {optimizer: {name: lion, options: {caution: 3}}}}}",
        ":4:72",
        "by_profile.imagenet.a.optimizer.options.caution: got 3; expected true or false",
    ),
    "text for an option under another profile": (
        "variants: {a: {}}\nby_profile: {imagenet: {recipe: {model.options.qkv_bias: no}}}",
        ":4:58",
        "YAML 1.2 writes true and false",
    ),
    "a wrong value in a stage's row under another profile": (
        "stages: {t: {}}\nvariants: {a: {}}\nby_profile: {imagenet: {a: {t: {precision: fp8}}}}",
        ":5:44",
        "by_profile.imagenet.a.t.precision: ",
    ),
    "a wrong search under another profile": (
        "search: {space: {augment.mixup: [0, 1]}}\n"
        "by_profile: {imagenet: {search: {space: {optimizer.base_lr: {low: 2, high: 1}}}}}",
        ":4:61",
        "low below high",
    ),
    "a wrong value that each row overrides": (
        "variants: {a: {augment.mixup: 0.3}}\nrecipe: {augment.mixup: abc}",
        ":4:25",
        'recipe.augment.mixup: got "abc"',
    ),
    "an axis without values": ("grid: {augment.mixup: 3}", ":3:8", "a list of values"),
    "axes of unequal length": ("zip: {augment.mixup: [0, 1], augment.cutmix: [1]}", ":3:30", "lists of equal length"),
    "a switch without an off value": ("leave_one_out: [augment.mixpu]", ":3:17", "did you mean 'augment.mixup'?"),
    "stages in a circle": ("stages: {a: {from: b}, b: {from: a}}\nvariants: {x: {}}", ":3:1", "in a circle"),
    "two last stages": ("stages: {a: {}, b: {}}\nvariants: {x: {}}", ":3:1", "one last stage"),
    "a stage that does not exist": ("stages: {a: {teacher: b}}\nvariants: {x: {}}", ":3:23", "no stage 'b'"),
    "seeds that do not meet": (
        "seeds: 3\nstages: {t: {seeds: [0, 1]}, s: {teacher: t}}\nvariants: {x: {distill.type: hard}}",
        ":4:10",
        "seed 2 of s has no run of t",
    ),
    "an optimizer without a rate": ("variants:\n  a: {optimizer.name: sgd}", ":4:23", "base_lr beside the name"),
    "an option that it does not have": (
        "variants: {a: {optimizer: {name: sgd, base_lr: 1, options: {momentun: 1}}}}",
        ":3:61",
        "did you mean 'momentum'?",
    ),
    "an option that YAML 1.2 reads as text": (
        "variants: {a: {optimizer: {name: sgd, base_lr: 1, options: {nesterov: no}}}}",
        ":3:71",
        'optimizer.options.nesterov: got "no"; expected true or false (YAML 1.2 writes true and false)',
    ),
    "a truth value in quotes": (
        'variants: {a: {model.options.qkv_bias: "false"}}',
        ":3:40",
        'got "false"; expected true or false (write it without quotes)',
    ),
    "a number in quotes": (
        'variants: {a: {optimizer.options: {betas: [0.9, "0.999"]}}}',
        ":3:43",
        "expected a list of 2, each a number (write it without quotes)",
    ),
    "a truth value for a number": ("variants: {a: {optimizer.options.eps: true}}", ":3:39", "expected a number"),
    "a fraction for a whole number": ("variants: {a: {model.options.depth: 2.5}}", ":3:37", "expected a whole number"),
    "text in the options of a model that is not known": (
        "variants: {a: {model: {name: resnet18, options: {zero_init_last: off}}}}",
        ":3:66",
        "expected true, false or a number (YAML 1.2 writes true and false)",
    ),
    "text in the options of a sampler": (
        "search: {space: {augment.mixup: [0, 1]}, sampler_options: {multivariate: no}}",
        ":3:74",
        "YAML 1.2 writes true and false",
    ),
    "distillation without a teacher": ("variants: {a: {distill.type: hard}}", ":3:30", "needs a teacher"),
    "a data set without an id": ("variants: {a: {data: {name: imagefolder}}}", ":3:22", "flowers-v1"),
    "a precision that there is not": ("variants: {a: {precision: fp8}}", ":3:27", "fp16"),
    "weights of no named teacher": (
        f'variants: {{a: {{distill.teacher_weights: "sha256:{"0" * 64}"}}}}',
        ":3:41",
        "distill.teacher",
    ),
    "no seeds of the baseline": (
        "variants: {a: {}}\nbaseline_seeds: 0",
        ":4:17",
        "baseline_seeds: got 0; expected 'auto' or greater",
    ),
    "looks that do not grow": (
        "variants: {a: {}}\nlooks: [6, 3]",
        ":4:8: looks",
        "; expected growing numbers of seeds",
    ),
    "no looks": ("variants: {a: {}}\nlooks: []", ":4:8", "looks: got a list; expected at least 1 item"),
    "a tag": ("variants: !!python/object:os {}", ":3:11", "the YAML tag"),
    "broken YAML": ("variants: [1", ":4:1", "not valid YAML"),
    "a line break in a name": ('variants: {"a\\n": {}}', ":3:12", "cannot name a row"),
    "half a surrogate pair": ('description: "\\ud800"\nvariants: {a: {}}', ":3:17", "not valid YAML"),
    "what it shows": ("variants: {a: {shows: best}}", ":3:23", "class, distillation or ema"),
    "a list of what it shows": ("variants: {a: {shows: [ema]}}", ":3:23", "shows: got ['ema']; expected class, "),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_gets_one_message_with_its_place(tmp_path: Path, case: str) -> None:
    text, place, says = BAD[case]
    path = tmp_path / "bad.yaml"
    path.write_text(HEAD + text)
    with pytest.raises(InputError) as caught:
        planned(path)
    assert f"{path}{place}: " in str(caught.value) + " "
    assert says.replace("{file}", str(path)) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_population_is_not_decided_by_looks(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(HEAD + "population: true\nbaseline: a\nvariants: {a: {}, b: {augment.mixup: 0}}")
    assert planned(path).document("")["population"] is True
    with pytest.raises(InputError, match=r":3:13: population: .*; expected no --until-decided or --budget beside it"):
        planned(path, until_decided=True)


def test_the_command_prints_it_exits_with_2_and_writes_nothing(command: Command) -> None:
    (command.folder / "bad.yaml").write_text(HEAD + "variants: {a: {optmizer: {}}}")
    done = command("run", "bad.yaml", code=2)
    assert done.stderr == (
        "error: bad.yaml:3:16: variants.a.optmizer: unknown key 'optmizer'; did you mean 'optimizer'?; "
        "expected one of data, model, augment, regularize, optimizer, schedule, distill, precision\n"
    )
    assert not (command.folder / "results").exists()


def test_names_that_timm_does_not_have_are_looked_up_by_the_worker(command: Command) -> None:
    (command.folder / "bad.yaml").write_text(
        HEAD + "variants: {a: {optimizer: {name: lin, base_lr: 1}}, b: {model: {name: deit_bse}}}"
    )
    done = command("run", "bad.yaml", code=2)
    assert done.stderr.startswith("error: bad.yaml:3:34: optimizer.name: ")
    assert "did you mean 'lion'" in done.stderr
    (command.folder / "bad.yaml").write_text(
        HEAD + "variants: {a: {model: {name: vit_tiny_patch16_224, options: {embed_dim: 65}}}}"
    )
    done = command("plan", "bad.yaml", code=2)
    assert "bad.yaml:3:30: model.name: " in done.stderr
    assert not (command.folder / "results").exists()


def test_a_name_for_the_folder_is_checked(tmp_path: Path) -> None:
    path = tmp_path / "runs.yaml"
    path.write_text(HEAD + "variants: {a: {}}")
    with pytest.raises(InputError, match="a folder of the store itself"):
        load_sweep(path)
    with pytest.raises(InputError, match="cannot name a folder"):
        load_sweep(path, name="../x")
    assert load_sweep(path, name="study").name == "study"
    assert load_sweep(path, name="study@glyphs+0123ab").name == "study@glyphs+0123ab", "a study's folder"
    path = path.rename(tmp_path / "opt.yaml")
    assert load_sweep(path).name == "opt"
    assert load_sweep(path, profile="digits").name == "opt", "its own profile renames nothing"
    assert load_sweep(path, profile="imagenet").name == "opt@imagenet"
    both = ["augment.mixup=0.3", "augment.mixup=0.4"]
    assert load_sweep(path, sets=both).name != load_sweep(path, sets=both[::-1]).name, "the last one counts"
    changed = load_sweep(path, sets=["augment.mixup=0.3"]).name
    assert changed.startswith("opt+")
    assert len(changed) == len("opt+") + 6


def test_the_order_of_sets_counts_only_where_two_give_one_key(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(HEAD + "seeds: 1\nvariants: {a: {}}\n")
    (tmp_path / "alone.yaml").write_text("profile: digits\n")
    sets = ["optimizer.base_lr=0.03", "optimizer.name=sgd"]
    first, second = (planned(path, sets=each) for each in (sets, sets[::-1]))
    assert (first.sweep.name, first.runs.keys()) == (second.sweep.name, second.runs.keys())
    assert first.rows[0].recipe.optimizer.base_lr == 0.03
    assert single_run(tmp_path / "alone.yaml", sets)[0].id in first.runs
    assert profile("digits", *sets).optimizer.base_lr == 0.03


def test_set_reaches_a_stages_own_values_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(
        "profile: digits\nstages:\n  teacher: {recipe: {schedule: {epochs: 15}}}\n  student: {teacher: teacher}\n"
        "variants: {hard: {distill: {type: hard}}}\n"
    )
    epochs = {
        cell.stage: plan.runs[cell.run].recipe["schedule"]["epochs"]
        for plan in [planned(path, sets=["schedule.epochs=9", "teacher.schedule.epochs=7"])]
        for cell in plan.cells
    }
    assert epochs == {"teacher": 7, "student": 9}
    with pytest.raises(InputError, match=r"--set.*teacher.schedul"):
        planned(path, sets=["teacher.schedul.epochs=7"])


@pytest.mark.parametrize(
    ("rows", "given", "says"),
    [
        (
            "a: {schedule.epochs: 8}\n  b: {schedule.epochs: 10}",
            "schedule.epochs=6",
            "--set schedule.epochs=6: schedule.epochs: without effect: the row 'a' has its own ({file}:4); the row 'b'",
        ),
        (
            "a: {optimizer: {name: lion, base_lr: 0.01}}",
            "optimizer.base_lr=6",
            "the row 'a' has its own ({file}:4)",
        ),
        ("a: {}", "optimizer.options={}", "optimizer.options: without effect: an empty mapping changes nothing"),
        ("a: {}", "optimizer={}", "optimizer: without effect: an empty mapping changes nothing"),
        ("a: {}", "augment.color_jitter=0.2", "has no effect where augment.auto_augment is rand"),
        ("a: {schedule.epochs: 8}\n  b: {}", "schedule.epochs=6", None),
        ("a: {optimizer.base_lr: 0.1}", "optimizer={name: lion, base_lr: 0.2}", None),
    ],
)
def test_a_set_that_changes_nothing_is_refused(tmp_path: Path, rows: str, given: str, says: str | None) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(HEAD + f"variants:\n  {rows}\n")
    if says is None:
        planned(path, sets=[given])
        return
    with pytest.raises(InputError) as caught:
        planned(path, sets=[given])
    assert says.replace("{file}", str(path)) in str(caught.value)


def test_a_margin_may_be_a_profile_s(tmp_path: Path) -> None:
    path = tmp_path / "sweep.yaml"
    path.write_text("margin: 0.5\nvariants: {a: {}}\nby_profile: {imagenet: {margin: 0.2}}")
    assert [load_sweep(path, profile=name).margin for name in ("digits", "imagenet")] == [0.5, 0.2]


def test_precedence_profile_recipe_set_variant_by_profile(tmp_path: Path) -> None:
    path = tmp_path / "layers.yaml"
    path.write_text(
        HEAD + "recipe: {augment: {mixup: 0.11, cutmix: 0.12, erasing: 0.13, hflip: 0.14}}\n"
        "variants: {a: {augment: {erasing: 0.33, hflip: 0.34}}, b: {}}\n"
        "by_profile: {digits: {a: {augment.hflip: 0.44}}, imagenet: {a: {augment.hflip: 0.5}}}\n"
    )
    augment = planned(path, sets=["augment.cutmix=0.22", "augment.erasing=0.23"]).rows[0].recipe.augment
    assert (augment.mixup, augment.cutmix, augment.erasing, augment.hflip) == (0.11, 0.22, 0.33, 0.44)
    assert planned(path, profile="imagenet").rows[0].recipe.augment.hflip == 0.5
