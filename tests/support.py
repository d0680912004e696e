"""What tests share: a tiny recipe and sweeps over it, custom models, the real command, and what a result is."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deit_ablate import files
from deit_ablate.execution import Execution
from deit_ablate.identity import canonical, run_id
from deit_ablate.launch.jobs import Report, Work
from deit_ablate.launch.local import JobLaunch
from deit_ablate.launch.pool import ProcessPool
from deit_ablate.recipe import Recipe
from deit_ablate.store import State, Store, owner
from deit_ablate.sweep.load import load_sweep
from deit_ablate.sweep.plan import Plan, Run, make_plan

SWEEPS = sorted(path.name for path in files.shipped("sweeps").glob("*.yaml"))
PROFILES = sorted(path.stem for path in (files.shipped("sweeps") / "profiles").glob("*.yaml"))
"""Those that are shipped."""

TINY = """
profile: digits
recipe:
  data: {train_images: 192}
  model: {options: {patch_size: 8, embed_dim: 16, depth: 1, num_heads: 2}}
  augment: {auto_augment: rand-m3-n1-mstd0.5-inc1, mixup: 0.2, cutmix: 0.2, erasing: 0.2, repeats: 2}
  regularize: {drop_path: 0.1, dropout: 0.1}
  schedule: {epochs: 2, batch_size: 32, warmup_epochs: 0.5}
"""
"""A recipe of well under a second, with everything that draws random numbers switched on."""

INTERRUPTED = "seeds: 1\nvariants: {a: {schedule.epochs: 6, data.train_images: 320}}\n"
"""60 steps with everything random switched on: about a second, an epoch every sixth of it."""

DISTILL = """
seeds: 2
stages:
  teacher: {recipe: {model: {name: %s, options: %s}}, seeds: [0]}
  student: {teacher: teacher}
variants:
  none: {}
  soft: {distill.type: soft}
  token: {distill.type: hard-token}
"""
"""A teacher, named with its options, and students of three kinds."""

TOKENS = """
stages:
  teacher: {recipe: {model: {name: small_convnet, options: {width: 8}}, regularize: {ema_decay: 0.9}}, seeds: [0]}
  student: {teacher: teacher}
seeds: 1
variants: {token: {distill.type: hard-token}}
"""
"""A teacher with an average of its weights, and a student of two heads."""

VIT = "test_vit.r160_in1k"
"""A teacher's name on timm's hub."""
NAMED = "variants: {none: {}, hard: {distill: {type: hard, teacher: test_vit, teacher_weights: %s}}}"
"""A row without a teacher, and one with a teacher from a file."""

CUSTOM_MODELS = '''
import os
import time
from torch import nn


class Linear(nn.Module):
    """A linear classifier, with something that happens at every forward pass (but not when it is only looked at)."""

    def __init__(self, shape, happens):
        super().__init__()
        self.happens = happens
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(shape.channels * shape.resolution**2, shape.classes))

    def forward(self, x):
        scale = 1 if x.device.type == "meta" else self.happens()
        return self.net(x) * scale


def broken_until(shape, *, file):
    def happens():
        if not os.path.exists(file):
            raise RuntimeError("boom: not yet")
        return 1

    return Linear(shape, happens)


def losing_a_rank(shape, *, folder):
    lose, asleep, rank = folder + "/lose", folder + "/asleep", os.environ.get("RANK")
    there = os.path.exists(lose)

    def happens():
        if there and rank == "0":
            open(asleep, "w").close()
            time.sleep(3600)  # as in a GPU's collective, which nobody tells that the other has gone
        if there and rank == "1":
            while not os.path.exists(asleep):
                time.sleep(0.1)
            os.remove(lose)
            os._exit(3)
        return 1

    return Linear(shape, happens)


def exploding(shape):
    return Linear(shape, lambda: float("nan"))


def slow(shape, *, folder):
    """What is slow while a folder has a file: 3 s an epoch of ten steps, to be caught in the middle on any machine. (A
    file that an option names would be part of the run's identity.)"""
    from timm.models.vision_transformer import VisionTransformer

    class Slow(VisionTransformer):
        def forward(self, x):
            if x.device.type != "meta" and os.path.exists(folder + "/slow"):
                time.sleep(0.3)
            return super().forward(x)

    size = {"img_size": shape.resolution, "in_chans": shape.channels, "num_classes": shape.classes}
    return Slow(patch_size=8, embed_dim=16, depth=1, num_heads=2, proj_drop_rate=0.1, drop_path_rate=0.1, **size)


def crops(image, rng):
    return image.crop((0, 0, 3, 3))
'''


COLD = (sys.executable, "-m")
"""A Python that has imported nothing yet."""


def planned(path: Path, **options: Any) -> Plan:
    return make_plan(load_sweep(path, **options))


def files_of(made: Plan) -> dict[str, Path]:
    """The files that the runs of a plan name: content ("sha256:<hex>") -> the path by which it was given."""
    return {content: path for run in made.runs.values() for content, path in run.weights.items()}


def run_of(made: Plan, variant: str) -> Run:
    """The first run of a row."""
    return made.runs[next(cell.run for cell in made.cells if cell.variant == variant)]


def launched(
    path: Path,
    store: Store,
    pool: ProcessPool,
    *,
    retry: frozenset[str] = frozenset(),
    stop: Callable[[], bool] = lambda: False,
    loaders: int = 0,
) -> Report:
    """Launch a sweep in this process."""
    plan = planned(path)
    where = os.path.relpath(path.resolve(), store.root.resolve())
    store.sweeps.save_plan(plan.sweep.name, {**plan.document(where), "asked": {}})
    execution = Execution(device="cpu", loaders=loaders)
    own = plan.executions(execution)
    work = Work(store, None, plan.runs, plan.labels(), {}, execution, retry=retry, own=own)
    return JobLaunch(work, pool).run(lambda progress: None, stop)


class Command:
    """The real command, in a process of its own, from a folder that is not the checkout."""

    def __init__(
        self, folder: Path, python_m: Sequence[str] = COLD, environment: MutableMapping[str, str] = os.environ
    ):
        """``python_m`` stands for ``python -m``; the environment says how the command starts its workers."""
        self.folder, self.python_m, self.environment = folder, python_m, environment

    def __call__(
        self, *arguments: str | Path, code: int | None = 0, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*self.python_m, "deit_ablate", *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if code is not None:
            assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, *arguments: str | Path, to_kill: bool = True) -> subprocess.Popen[str]:
        """Begin it; where it is to be signalled or killed, as the very process, never a client of the warm one."""
        return subprocess.Popen(
            [*(COLD if to_kill else self.python_m), "deit_ablate", *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@dataclass(frozen=True)
class Said:
    """What a command that ran in this process has said."""

    code: int
    out: str
    err: str


Ask = Callable[..., Said]


def wait_for(what: Callable[[], Any], *, seconds: float = 300, step: float = 0.02) -> Any:
    """Poll until ``what()`` is true; fails the test after ``seconds``, which are far more than a slow machine needs."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(step)
    raise AssertionError(f"not so after {seconds} s")


def result(store: Store, run: str) -> dict[str, Any]:
    """What must be equal, bit for bit, however a run came to its end: weights, metrics, predictions, curves."""
    outcome = store.outcome(run)
    assert outcome is not None
    curves = [
        {key: value for key, value in line.items() if key not in ("seconds", "images_per_second")}
        for line in store.history(run)
    ]
    return {**{key: outcome[key] for key in ("status", "metrics", "weights_sha256", "arrays_sha256")}, "curves": curves}


JOB = {"SLURM_JOB_ID": "8", "SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "0", "SLURM_CLUSTER_NAME": "c"}
"""The environment of a job's first element."""

# -- a store, looked at and tampered with ------------------------------------------------------------------------------

RECIPE = canonical(Recipe())
RUN = run_id(RECIPE, {})


def state(store: Store, run: str) -> State:
    return store.states({run: []})[run]


def claimed_by_another(store: Store, run: str) -> subprocess.Popen[str]:
    """A process that has claimed the run and now waits."""
    code = (
        "import sys, time; from deit_ablate.store import Store\n"
        "Store(sys.argv[1]).claim(sys.argv[2]); print('claimed', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(store.root), run], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "claimed\n"
    return process


def end_attempts(store: Store, run: str, *ends: str, checkpoint: int | None = None, retry: int | None = None) -> None:
    """Claim a run again and again, and end each attempt in one of these ways."""
    for number, how in enumerate(ends, 1):
        attempt = store.claim(run, retry=number == retry)
        if number == checkpoint:
            attempt.checkpoint.write_bytes(b"x")
        attempt.close(how)


def worker_pid(store: Store, run: str) -> int | None:
    """The process that executes a run now."""
    attempts = store.attempts(run)
    last = attempts[-1].owner if attempts and attempts[-1].exit is None else {}
    return last["pid"] if last and not owner.provably_gone(last) else None


def change(store: Store, run: str, **values: Any) -> None:
    """Change what was recorded: ``metrics__test__top1=1.0``."""
    outcome = store.outcome(run)
    assert outcome is not None
    for path, value in values.items():
        *steps, last = path.split("__")
        part = outcome
        for step in steps:
            part = part[step]
        part[last] = value
    files.replace(store.run(run) / "outcome.json", files.to_json(outcome))
