"""A plan: variants x seeds x stages as a DAG, in which equal work is done once."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import PROFILES, SWEEPS, planned

from deit_ablate import files
from deit_ablate.errors import InputError
from deit_ablate.sweep.plan import single_run

DISTILLATION = """
profile: digits
seeds: [5, 6]
baseline: none
stages:
  teacher: {recipe: {model: {name: small_convnet}}, seeds: [0]}
  student: {teacher: teacher}
variants:
  none: {}
  hard: {distill.type: hard}
  token: {distill.type: hard-token}
"""


def write(tmp_path: Path, text: str, name: str = "x") -> Path:
    path = tmp_path / f"{name}.yaml"
    path.write_text(text)
    return path


def test_variants_times_seeds(tmp_path: Path) -> None:
    plan = planned(write(tmp_path, "profile: digits\nseeds: 3\nvariants: {a: {}, b: {augment.mixup: 0}}"))
    assert [(cell.variant, cell.seed) for cell in plan.cells] == [
        ("a", 0),
        ("a", 1),
        ("a", 2),
        ("b", 0),
        ("b", 1),
        ("b", 2),
    ]
    assert len(plan.runs) == 6
    assert [run.recipe["seed"] for run in plan.runs.values()] == [0, 1, 2, 0, 1, 2]


def test_one_teacher_is_shared_by_all_who_need_it_and_by_nobody_else(tmp_path: Path) -> None:
    plan = planned(write(tmp_path, DISTILLATION))
    teachers = {cell.run for cell in plan.cells if cell.stage == "teacher"}
    assert len(teachers) == 1
    assert len(plan.runs) == 1 + 3 * 2
    teacher = teachers.pop()
    for cell in plan.cells:
        if cell.stage == "student":
            expected = {} if cell.variant == "none" else {"teacher": {"run": teacher, "weights": "last"}}
            assert plan.runs[cell.run].parents == expected
    assert list(plan.runs).index(teacher) < min(
        list(plan.runs).index(cell.run) for cell in plan.cells if cell.variant == "hard" and cell.stage == "student"
    )
    assert not any(cell.stage == "teacher" for cell in plan.cells if cell.variant == "none")
    assert plan.runs[teacher].recipe["distill"]["type"] == "none"


def test_another_teacher_makes_other_students(tmp_path: Path) -> None:
    one = planned(write(tmp_path, DISTILLATION))
    two = planned(
        write(tmp_path, DISTILLATION.replace("name: small_convnet", "name: small_convnet, options: {width: 24}"))
    )
    ids = [
        {cell.variant: cell.run for cell in plan.cells if cell.stage == "student" and cell.seed == 5}
        for plan in (one, two)
    ]
    assert ids[0]["none"] == ids[1]["none"]
    assert ids[0]["hard"] != ids[1]["hard"]


def test_fine_tuning_goes_on_from_each_run_and_may_be_varied_itself(tmp_path: Path) -> None:
    text = """
profile: digits
seeds: 2
stages:
  pretrain: {}
  finetune: {from: pretrain, recipe: {data: {resolution: 24}, optimizer: {base_lr: 0.001}}}
variants:
  a: {}
  b: {augment.mixup: 0}
  sgd-fine-tuned: {finetune: {optimizer: {name: sgd, base_lr: 0.01}}}
"""
    plan = planned(write(tmp_path, text))
    cells = {(cell.variant, cell.stage, cell.seed): plan.runs[cell.run] for cell in plan.cells}
    assert len(plan.runs) == 4 + 6, "the third row shares its pre-training with the first"
    for (variant, stage, seed), run in cells.items():
        if stage == "finetune":
            assert run.parents["from"]["run"] == cells[variant, "pretrain", seed].id
            assert run.recipe["data"]["resolution"] == 24
    assert cells["b", "finetune", 0].recipe["augment"]["mixup"] == 0, "a row's change holds in what follows"
    assert cells["sgd-fine-tuned", "finetune", 0].recipe["optimizer"]["name"] == "sgd"
    assert cells["sgd-fine-tuned", "pretrain", 0].id == cells["a", "pretrain", 0].id


def test_a_teacher_that_continues_from_a_stage_takes_over_its_recipe(tmp_path: Path) -> None:
    text = """
profile: digits
seeds: 1
stages:
  pre: {recipe: {augment: {mixup: 0}, optimizer.base_lr: 0.001}}
  teacher: {from: pre, recipe: {schedule.epochs: 10}}
  student: {teacher: teacher, recipe: {distill.type: hard-token}}
variants: {a: {}, b: {augment.erasing: 0}, c: {pre: {optimizer.base_lr: 0.002}}}
"""
    plan = planned(write(tmp_path, text))
    cells = {(cell.variant, cell.stage): plan.runs[cell.run] for cell in plan.cells}
    teacher = cells["a", "teacher"]
    assert teacher.recipe["augment"]["mixup"] == 0
    assert (teacher.recipe["optimizer"]["base_lr"], teacher.recipe["schedule"]["epochs"]) == (0.001, 10)
    assert cells["b", "teacher"].id == teacher.id, "rows vary what the table shows, and no teacher"
    assert cells["c", "teacher"].recipe["optimizer"]["base_lr"] == 0.002
    assert cells["c", "teacher"].parents["from"]["run"] == cells["c", "pre"].id


def test_further_seeds_of_the_baseline_have_parents_of_their_own_or_the_one_that_all_share(tmp_path: Path) -> None:
    rows = "baseline: a\nvariants: {a: {}, b: {augment.mixup: 0}, c: {augment.cutmix: 0}, d: {augment.erasing: 0}}\n"

    def parents(seeds: str, stages: str, role: str) -> list[str]:
        plan = planned(write(tmp_path, f"profile: digits\n{seeds}\nstages: {stages}\n{rows}"))
        own = [cell.run for cell in plan.cells if cell.variant == "a" and cell.stage == plan.sweep.final.name]
        return [plan.runs[run].parents[role]["run"] for run in own]

    fewer = parents("seeds: 5", "{pretrain: {}, finetune: {from: pretrain, seeds: 3}}", "from")
    assert len(fewer) == len(set(fewer)) == 6
    each = parents("seeds: 1\nbaseline_seeds: 3", "{pretrain: {}, finetune: {from: pretrain}}", "from")
    assert len(each) == len(set(each)) == 3
    for stages in (
        "{pretrain: {seeds: [0]}, finetune: {from: pretrain}}",
        "{pretrain: {}, finetune: {from: pretrain, seeds: 3}}",
    ):
        shared = parents("seeds: 1\nbaseline_seeds: 4", stages, "from")
        assert (len(shared), len(set(shared))) == (4, 1)


def test_two_figures_of_one_run_are_two_rows(tmp_path: Path) -> None:
    plan = planned(write(tmp_path, "profile: digits\nseeds: 1\nvariants: {a: {}, ema: {shows: ema}}"))
    assert len(plan.runs) == 1
    assert [row.shows for row in plan.rows] == [None, "ema"]
    assert list(plan.labels().values()) == ["*:0"]


def test_every_run_has_its_name(tmp_path: Path) -> None:
    more = DISTILLATION + "  class: {distill.type: hard-token, shows: class}\n"
    labels = list(planned(write(tmp_path, more)).labels().values())
    assert len(set(labels)) == len(labels)
    assert "*:0:teacher" in labels
    assert "token:5:student" in labels


def test_only_some_rows_with_what_they_depend_on(tmp_path: Path) -> None:
    plan = planned(write(tmp_path, DISTILLATION))
    assert len(plan.only(["hard"])) == 3
    assert len(plan.only(["none"])) == 2
    assert len(planned(write(tmp_path, DISTILLATION), seeds=6).only(["hard"], seeds=6)) == 1 + 6
    with pytest.raises(InputError, match="did you mean 'token'"):
        plan.only(["tokn"])


@pytest.mark.parametrize(
    ("listed", "first", "rows_seeds", "baselines"),
    [
        ("[10, 11, 12]", 5, [0, 1, 2, 3, 4], [0, 1, 2, 3, 4, 10, 11, 12, 13]),
        ("[1, 2, 3]", 3, [0, 1, 2], [0, 1, 2, 3, 4, 5]),
    ],
)
def test_the_first_seeds_of_listed_ones_go_with_as_many_of_the_baseline_as_they_take(
    tmp_path: Path, listed: str, first: int, rows_seeds: list[int], baselines: list[int]
) -> None:
    rows = "{a: {}, b: {augment.mixup: 0}, c: {augment.cutmix: 0}, d: {augment.erasing: 0}}"
    path = write(tmp_path, f"profile: digits\nseeds: {listed}\nbaseline: a\nvariants: {rows}")
    plan = planned(path, seeds=first)
    runs = plan.only([], first)
    seeds = {row: sorted(c.seed for c in plan.cells if c.variant == row and c.run in runs) for row in "abcd"}
    assert seeds == {"a": baselines, "b": rows_seeds, "c": rows_seeds, "d": rows_seeds}


def test_a_row_that_two_sweeps_share_is_one_run(tmp_path: Path) -> None:
    one = planned(write(tmp_path, "profile: digits\nvariants: {a: {}, b: {augment.mixup: 0}}"))
    two = planned(write(tmp_path, "profile: digits\nseeds: 2\nvariants: {other: {augment: {mixup: 0.0}}}", "y"))
    assert set(two.runs) < set(one.runs)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("sweep", SWEEPS)
def test_every_shipped_sweep_plans_at_every_profile(sweep: str, profile: str) -> None:
    plan = planned(files.shipped("sweeps") / sweep, profile=profile)
    assert plan.runs
    assert (files.shipped("sweeps") / sweep).read_text().startswith("# yaml-language-server: $schema=")


def test_ten_thousand_runs_are_planned_without_torch(tmp_path: Path) -> None:
    rates = ", ".join(f"{i / 1000}" for i in range(1, 101))
    path = write(
        tmp_path,
        f"profile: digits\nseeds: 4\ngrid: {{optimizer.base_lr: [{rates}], "
        "augment.mixup: [0, 0.1, 0.2, 0.3, 0.4], augment.cutmix: [0, 0.1, 0.2, 0.3, 0.4]}",
    )
    code = (
        "import sys; sys.argv = ['deit-ablate', 'plan', sys.argv[1], '--results', sys.argv[2]]\n"
        "from deit_ablate.__main__ import main\n"
        "heavy = {'torch', 'timm', 'pandas', 'matplotlib', 'scipy'}\n"
        "try: main()\n"
        "finally: print('HEAVY', sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(tmp_path / "results")], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "10000 runs: 10000 missing" in done.stdout
    assert "HEAVY []" in done.stderr
    print(f"{time.monotonic() - begun:.2f} s")


def test_a_recipe_file_makes_one_run(tmp_path: Path) -> None:
    path = write(tmp_path, "profile: digits\naugment.mixup: 0\nseed: 4", "recipe")
    run, _ = single_run(path, ["optimizer.base_lr=0.01"])
    assert (run.recipe["seed"], run.recipe["augment"]["mixup"], run.recipe["optimizer"]["base_lr"]) == (4, 0, 0.01)
    assert run.recipe["data"]["name"] == "digits"
    with pytest.raises(InputError, match="did you mean 'augment'"):
        single_run(write(tmp_path, "augmen: {}", "bad"), [])
    with pytest.raises(InputError, match=r"no profile \"\['digits'\]\"; did you mean 'digits'"):
        single_run(write(tmp_path, "profile: [digits]", "bad"), [])
    none, given = (single_run(write(tmp_path, f"{text}augment.mixup: 0", "own"), [])[0] for text in ("", "profile:\n"))
    assert none.id == given.id


def test_a_profile_makes_one_run_too(tmp_path: Path) -> None:
    text = "profile: digits\ntitle: ours\nrecipe: {augment.mixup: 0, seed: 4}\nexecution: {threads: 3}"
    run, execution = single_run(write(tmp_path, text, "ours"), [])
    assert execution.threads == 3
    assert (run.recipe["seed"], run.recipe["augment"]["mixup"], run.recipe["data"]["name"]) == (4, 0, "digits")
    for content, says in (
        ("profile: digits\nrecipe: 3", "bad.yaml:2:9: recipe: got 3; expected a mapping"),
        ("recipe: {profile: digits}", "unknown key 'profile'"),
        ("recipe: {}\nrecipes: {}", "bad.yaml:2:1: .*unknown key 'recipes'"),
    ):
        with pytest.raises(InputError, match=says):
            single_run(write(tmp_path, content, "bad"), [])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            "variants:\n  a: {}\n  b: {shows: ema, regularize: {ema_decay: null}}\n",
            "b.shows: the row shows a moving average that its recipe has off",
        ),
        (
            "variants:\n  a: {}\n  b: {shows: distillation}\n",
            "b.shows: the row shows the distillation head of a model that has one head",
        ),
        (
            "stages:\n  one: {recipe: {regularize: {ema_decay: null}}}\n  two: {from: one, weights: ema}\n"
            "variants: {a: {}}\n",
            "stages.two.weights: the stage takes the moving average of 'one', which has it off",
        ),
    ],
)
def test_figures_that_runs_will_not_have_are_refused(sweep: Callable[..., Path], text: str, says: str) -> None:
    with pytest.raises(InputError) as error:
        planned(sweep(text))
    assert says in str(error.value)
