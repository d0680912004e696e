"""What rows and stages need of their own: whose it is, what goes over what, and that it is no part of a run."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from support import Command, planned

from deit_ablate.cli.options import given_execution
from deit_ablate.errors import InputError
from deit_ablate.execution import Execution
from deit_ablate.search.candidates import Configurations
from deit_ablate.sweep.load import load_sweep

STAGES = """
seeds: 2
baseline: none
execution: {device: cpu, slurm: {time: 60, partition: small}}
stages:
  teacher: {recipe: {model: {name: small_convnet, options: {}}}, seeds: [0]}
  student: {teacher: teacher}
  tuned: {from: student, recipe: {schedule: {epochs: 1, warmup_epochs: 0}}}
variants: {none: {distill.type: none}, soft: {distill.type: soft}, hard: {distill.type: hard}}
"""
RESOURCES = """
resources:
  teacher: {threads: 4, slurm: {gpus: 2, time: 240}}
  tuned: {threads: 2, loaders: 1}
  hard: {threads: 3, slurm: {memory: 64G}}
"""


def test_a_rows_needs_go_over_its_stages_and_the_command_line_over_both(sweep: Callable[..., Path]) -> None:
    made = planned(sweep(STAGES + RESOURCES))

    def of(**given: str) -> dict[str, Execution]:
        options = given_execution([f"{key}={value}" for key, value in given.items()])
        executions = made.executions(made.sweep.execution, options)
        assert executions.keys() == made.runs.keys()
        return {name: executions[run] for run, name in made.labels().items()}

    own = of()
    assert {name: execution.threads for name, execution in own.items() if ":1" not in name} == {
        "*:0:teacher": 4,  # of all rows, and no row's
        "none:0:student": 1,
        "soft:0:student": 1,
        "hard:0:student": 3,
        "none:0:tuned": 2,
        "soft:0:tuned": 2,
        "hard:0:tuned": 3,
    }
    assert own["hard:1:tuned"].loaders == 1, "a row's needs leave the stage's others"
    assert own["hard:1:tuned"].slurm.memory == "64G"
    teacher = own["*:0:teacher"].slurm
    assert (teacher.gpus, teacher.time, teacher.partition) == (2, 240, "small"), "slurm's go over one another by key"
    assert {execution.device for execution in own.values()} == {"cpu"}
    assert {execution.threads for execution in of(threads="1").values()} == {1}
    assert of(**{"slurm.time": "5"})["*:0:teacher"].slurm == teacher.model_copy(update={"time": 5})


def test_needs_are_no_part_of_a_run_and_a_shared_run_has_the_first_rows(sweep: Callable[..., Path]) -> None:
    same = "variants: {a: {}, b: {shows: ema}}\nrecipe: {regularize: {ema_decay: 0.9}}\n"
    base = "profile: digits\nseeds: 1\n"
    plain = planned(sweep(same, base=base))
    for needs, threads in (
        ("{a: {threads: 2}, b: {threads: 3}}", 2),
        ("{b: {threads: 3}}", 1),
    ):
        made = planned(sweep(f"{same}resources: {needs}\n", base=base))
        assert made.runs == plain.runs
        assert [execution.threads for execution in made.executions(Execution()).values()] == [threads]


def test_rows_that_would_be_executed_otherwise_are_said_before_they_run(
    sweep: Callable[..., Path], command: Command
) -> None:
    sweep(STAGES + RESOURCES)
    shown = command("plan", "tiny.yaml").stdout
    assert "hard: distill.type none -> hard; distill.alpha 0 -> 0.5\n    undeclared changes: threads 2 → 3" in shown
    assert shown.count("undeclared changes") == 1
    assert re.search(r"\nthreads 4, loaders none, .*slurm.gpus 2.*: 1 run \(\*:0:teacher\)\n", shown), shown
    refused = command("run", "tiny.yaml", "--strict", code=2).stderr
    assert "the row 'hard' has undeclared changes: threads 2 → 3" in refused
    assert not (command.folder / "results").exists()
    made = planned(command.folder / "tiny.yaml")
    alike = made.executions(made.sweep.execution, given_execution(["threads=2"]))
    made.executed(alike).refuse_undeclared()


@pytest.mark.parametrize(
    ("resources", "says"),
    [
        (
            "{hrad: {threads: 2}}",
            "11:13: resources.hrad: no row or stage 'hrad'; did you mean 'hard'?; expected one of teacher",
        ),
        ("{hard: {thread: 2}}", "11:20: resources.hard.thread: unknown key 'thread'; did you mean 'threads'?"),
        ("{hard: {executor: local}}", "11:20: resources.hard.executor: unknown key 'executor'"),
        ("{hard: {threads: 0}}", "11:29: resources.hard.threads: got 0; expected greater than or equal to 1"),
        ("{hard: {slurm: {gpu: 2}}}", "11:28: resources.hard.slurm.gpu: unknown key 'gpu'; did you mean 'gpus'?"),
        ("{hard: 2}", "11:19: resources.hard: got 2; expected a mapping"),
        ("[hard]", "11:12: resources: got a list; expected a mapping"),
    ],
)
def test_what_is_wrong_is_said_at_its_place(sweep: Callable[..., Path], resources: str, says: str) -> None:
    with pytest.raises(InputError) as refusal:
        load_sweep(sweep(f"{STAGES}resources: {resources}\n", base="profile: digits\n"))
    assert says in str(refusal.value)


def test_what_a_search_adds_has_its_rows_needs(sweep: Callable[..., Path]) -> None:
    text = "variants: {small: {}, big: {}}\nsearch: {trials: 2, space: {augment.repeats: [1, 2]}}\n"
    made = load_sweep(sweep(text + "resources: {big: {threads: 2}}\n"))
    configurations = Configurations(made)
    small, big = made.variants
    values = {"augment.repeats": 2}
    winners = configurations.winners([("big 7", big, values), ("small 3", small, {"augment.repeats": 1})])
    for plan, threads in (
        (configurations.trial(big, values), {2}),
        (configurations.trial(big, {}), {2}),
        (configurations.trial(big, values, configurations.search.candidate_seeds), {2}),
        (configurations.trial(small, values), {1}),
        (winners, {2, 1}),
    ):
        executions = plan.executions(Execution())
        assert {executions[run].threads for run in plan.runs} == threads
