"""A storm, for `make test-slurm-full`: everything that can end a job, at random, until all runs are done."""

from __future__ import annotations

import contextlib
import random
import time
from pathlib import Path

import pytest
from cluster import Cluster, ClusterError
from lab import Lab
from support import planned, result

SECONDS = 150.0


@pytest.mark.storm
@pytest.mark.parametrize("seed", [0, 1])
def test_a_storm_changes_nothing(lab: Lab, cluster: Cluster, tmp_path: Path, seed: int) -> None:
    lab.cold()  # its blows fall on starts too
    path = lab.sweep("seeds: 3\nvariants: {a: {}, b: {augment.mixup: 0}}\n", epochs=60, slurm="partition: low")
    draw, runs = random.Random(seed), list(planned(path).runs)
    alone = lab.undisturbed(path)
    lab("run", "s.yaml")
    end, blows = time.monotonic() + SECONDS, 0
    while time.monotonic() < end and not lab.all_over():
        time.sleep(draw.uniform(1, 6))
        blow = draw.choice(["requeue", "kill", "signal", "terminate", "node", "controller", "run", "cancel"])
        jobs = cluster.command("squeue", "--noheader", "--array", "--states=RUNNING", "--format=%i").split()
        with contextlib.suppress(ClusterError):
            if blow == "controller":
                cluster.stop_controller()
                time.sleep(2)
                cluster.start_controller()
            elif blow == "node":
                node = draw.choice(cluster.nodes)
                cluster.crash(node)
                cluster.declare_down(node)
                cluster.start(node)
            elif blow == "run":
                lab("run", "s.yaml", code=None)
            elif jobs and blow == "requeue":
                cluster.command("scontrol", "requeue", draw.choice(jobs))
            elif jobs and blow == "cancel":
                cluster.command("scancel", draw.choice(jobs))
            elif jobs:
                name = {"kill": "KILL", "signal": "USR2", "terminate": "TERM"}[blow]
                cluster.command("scancel", f"--signal={name}", draw.choice(jobs))
            blows += 1
    for _ in range(10):
        lab("run", "s.yaml", "--wait", code=None)
        if all(lab.store.outcome(run) for run in runs):
            break
        lab("retry", "s", "--wait", code=None)
    assert blows > 10
    assert {run: result(lab.store, run) for run in runs} == alone
    assert all(lab.trained(run).count("done") == 1 for run in runs)
