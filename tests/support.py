"""What tests share: a tiny recipe, models of one's own, the real command, and what a result is."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from deit_ablate.store import Store
from deit_ablate.sweep.load import load_sweep
from deit_ablate.sweep.plan import Plan, make_plan

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

OWN_MODELS = '''
import os
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


def exploding(shape):
    return Linear(shape, lambda: float("nan"))


def crops(image, rng):
    return image.crop((0, 0, 3, 3))
'''


def planned(path: Path, **options: Any) -> Plan:
    return make_plan(load_sweep(path, **options))


class Command:
    """The real command, in a process of its own, from a folder that is not the checkout."""

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(
        self, *arguments: str | Path, code: int | None = 0, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "deit_ablate", *map(str, arguments)],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
        if code is not None:
            assert done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def start(self, *arguments: str | Path) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "deit_ablate", *map(str, arguments)],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def wait_for(what: Callable[[], Any], *, seconds: float = 60, step: float = 0.02) -> Any:
    """Poll until ``what()`` is true; fails the test after ``seconds``."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(step)
    raise AssertionError(f"waited {seconds} s in vain")


def result(store: Store, run: str) -> dict[str, Any]:
    """What must be equal, bit for bit, however a run came to its end: weights, metrics, predictions, and curves without times."""
    outcome = store.outcome(run)
    assert outcome is not None
    curves = [
        {key: value for key, value in line.items() if key not in ("seconds", "images_per_second")}
        for line in store.history(run)
    ]
    return {**{key: outcome[key] for key in ("status", "metrics", "weights_sha256", "arrays_sha256")}, "curves": curves}
