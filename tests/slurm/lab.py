"""A user on a login node of the cluster: what the tests of this folder share."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import warm
from cluster import Cluster
from support import COLD, CUSTOM_MODELS, TINY, planned, result, wait_for

from deit_ablate.store import Store

LONG = TINY.replace("train_images: 192", "train_images: 320").replace("epochs: 2,", "epochs: EPOCHS,") + (
    "execution: {executor: slurm, device: cpu, slurm: {time: 20, SLURM}}\n"
)


def _warm_folder(cluster: Cluster) -> str:
    return f"{cluster.run}/warm"


def warm_node(cluster: Cluster) -> str:
    """What a node does before it takes jobs: start warm processes of its own, which end with it."""
    python, script = shlex.quote(sys.executable), shlex.quote(warm.__file__)
    begin = f'folder={_warm_folder(cluster)}/"$0"; rm -rf "$folder"; mkdir -p "$folder"; {python} {script} "$folder" & '
    return begin + 'until [ -S "$folder/package" ]; do sleep 0.1; done'


class Lab:
    """A user on a login node of the cluster."""

    def __init__(self, folder: Path, cluster: Cluster, warm_python: Sequence[str]) -> None:
        """``warm_python`` stands for ``python -m`` in commands. Jobs start as on any cluster, but their workers are
        children of a warm process of their node (until ``cold``)."""
        self.folder, self.cluster, self.store = folder, cluster, Store(folder / "results")
        self.warm_python = warm_python
        (folder / "mylab.py").write_text(CUSTOM_MODELS)
        self.environment = {
            **os.environ,
            **cluster.environment(),
            "PYTHONPATH": str(folder),
            "DEIT_ABLATE_LOOK_SECONDS": "1",
        }
        self.brake = folder / "slow"
        here = Path(_warm_folder(cluster), os.uname().nodename)
        if not here.exists():
            here.symlink_to(warm_python[-1])
        begin = f'exec {shlex.join(warm.CLIENT)} "$0/$(uname -n)" deit_ablate.worker "$@"'
        worker = ["sh", "-c", begin, _warm_folder(cluster)]
        self.environment["DEIT_ABLATE_WORKER"] = shlex.join(worker)

    def sweep(
        self, text: str, *, epochs: int = 3, slurm: str = "array_parallelism: 4", name: str = "s", slow: bool = False
    ) -> Path:
        """Write a sweep file. Where it is ``slow``, its runs take 3 s an epoch until ``hurry``."""
        path = self.folder / f"{name}.yaml"
        path.write_text(LONG.replace("EPOCHS", str(epochs)).replace("SLURM", slurm) + text)
        if slow:
            self.brake.touch()
            model = f'model: {{name: "mylab:slow", options: {{folder: {self.folder}}}}}'
            path.write_text(re.sub(r"model: \{options: \{.*\}\}", model, path.read_text()))
        return path

    def hurry(self) -> None:
        self.brake.unlink()

    def cold(self) -> None:
        """From now on a job's worker is a Python that has imported nothing, as on any cluster."""
        del self.environment["DEIT_ABLATE_WORKER"]

    def start(self, *arguments: str, path: str = "", python_m: Sequence[str] = COLD) -> subprocess.Popen[str]:
        """Begin a command, to be signalled or killed; the folder ``path`` comes before others on its PATH."""
        return subprocess.Popen(
            [*python_m, "deit_ablate", *arguments],
            cwd=self.folder,
            env={**self.environment, "PATH": path + self.environment["PATH"]},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

    def __call__(self, *arguments: str, code: int | None = 0, path: str = "", timeout: float = 600) -> str:
        process = self.start(*arguments, path=path, python_m=self.warm_python)
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

    def await_end(self, sweep: str = "s") -> dict[str, str]:
        wait_for(lambda: self.all_over(sweep), step=1)
        return self.states(sweep)

    def element(self, run: str) -> str:
        owner = wait_for(lambda: [attempt.owner for attempt in self.store.attempts(run)][-1:])[0]
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
