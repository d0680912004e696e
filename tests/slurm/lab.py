"""A user on a login node of the cluster: what the tests of this folder share."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from cluster import Cluster
from support import CUSTOM_MODELS, TINY, planned, result, wait_for

from deit_ablate.store import Store

LONG = TINY.replace("train_images: 192", "train_images: 320").replace("epochs: 2,", "epochs: EPOCHS,") + (
    "execution: {executor: slurm, device: cpu, slurm: {time: 20, SLURM}}\n"
)


class Lab:
    """A user on a login node of the cluster."""

    def __init__(self, folder: Path, cluster: Cluster) -> None:
        self.folder, self.cluster, self.store = folder, cluster, Store(folder / "results")
        (folder / "mylab.py").write_text(CUSTOM_MODELS)
        self.environment = {
            **os.environ,
            **cluster.environment(),
            "PYTHONPATH": str(folder),
            "DEIT_ABLATE_LOOK_SECONDS": "1",
        }

    def sweep(self, text: str, *, epochs: int = 3, slurm: str = "array_parallelism: 4", name: str = "s") -> Path:
        path = self.folder / f"{name}.yaml"
        path.write_text(LONG.replace("EPOCHS", str(epochs)).replace("SLURM", slurm) + text)
        return path

    def start(self, *arguments: str, path: str = "") -> subprocess.Popen[str]:
        environment = {**self.environment, "PATH": path + self.environment["PATH"]}
        return subprocess.Popen(
            [sys.executable, "-m", "deit_ablate", *arguments],
            cwd=self.folder,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def __call__(self, *arguments: str, code: int | None = 0, path: str = "", timeout: float = 600) -> str:
        process = self.start(*arguments, path=path)
        try:
            out, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.terminate()  # so that what it has started on this machine stops too
            raise AssertionError(f"not over after {timeout} s:\n{process.communicate(timeout=60)[0]}") from None
        assert code is None or process.returncode == code, out
        return out

    def states(self, sweep: str = "s") -> dict[str, str]:
        said = json.loads(self("status", sweep, "--json"))
        return {run: entry["state"] for run, entry in said.items()}

    def all_over(self, sweep: str = "s") -> bool:
        return set(self.states(sweep).values()) <= {"done", "diverged", "failed", "blocked", "cancelled", "held"}

    def await_end(self, sweep: str = "s", seconds: float = 180) -> dict[str, str]:
        wait_for(lambda: self.all_over(sweep), seconds=seconds, step=1)
        return self.states(sweep)

    def element(self, run: str) -> str:
        owner = wait_for(lambda: [attempt.owner for attempt in self.store.attempts(run)][-1:], seconds=60)[0]
        return str(owner["job"]["element"])

    def trained(self, run: str) -> list[str]:
        """How its attempts ended, those left out that saw at once that they were not needed."""
        exits = [(attempt.exit or {}).get("class", "open") for attempt in self.store.attempts(run)]
        return [how for how in exits if how != "superseded"]

    def undisturbed(self, path: Path) -> dict[str, dict[str, Any]]:
        """The results of the same sweep on this machine, left alone."""
        self("run", str(path), "--executor", "local", "--results", "alone", code=None)
        alone = Store(self.folder / "alone")
        return {run: result(alone, run) for run in planned(path).runs}
