"""Runs that share an element of a job array, on a real SLURM cluster: on CPUs, as they would share a GPU."""

from __future__ import annotations

import re

from lab import Lab
from support import planned, wait_for


def test_two_runs_of_an_element_run_at_once_and_each_is_cancelled_alone(lab: Lab) -> None:
    path = lab.sweep("seeds: 4\nvariants: {a: {}}\n", epochs=30, slurm="array_parallelism: 2", slow=True)
    zero, one, two, three = planned(path).runs
    assert "submitted job" in lab("run", "s.yaml", "-x", "runs_per_gpu=2")
    for run in (zero, one):
        wait_for(lambda run=run: lab.store.history(run))
    element = lab.element(zero)
    assert lab.element(one) == element
    assert lab.cluster.job(element)["NumCPUs"] == "2"
    listed = lab.cluster.command("squeue", "-h", "-r", "-o", "%K %T").split("\n")
    assert sorted(filter(None, listed)) == ["0 RUNNING", "1 PENDING"], "two elements, one at once"
    for cancelled, left in ((two, 2), (three, 1)):
        lab("cancel", cancelled)
        assert len(lab.cluster.command("squeue", "-h", "-r", "-o", "%K").split()) == left, "as long as one is to run"
    lab("cancel", zero)
    states = lab.states()
    assert [states[run] for run in (zero, two, three)] == ["cancelled"] * 3
    lab.hurry()
    lab.await_end()
    assert lab.trained(zero) == ["cancelled"]
    assert lab.trained(one) == ["done"]
    assert lab.store.attempts(one)[0].job["restarts"] == 0
    lab("retry", "s:a:0", "-x", "runs_per_gpu=2", "--wait")
    assert lab.trained(zero) == ["cancelled", "done"]
    assert lab.element(zero) != element


def test_a_requeued_element_goes_on_with_those_of_its_runs_that_are_not_over(lab: Lab) -> None:
    lab.sweep(
        """seeds: 1
variants:
  short: {schedule.epochs: 1}
  broken: {model: {name: "mylab:broken_until", options: {file: /nowhere/at/all}}}
  long: {}
""",
        epochs=30,
        slurm="signal_delay: 10, partition: low",
        slow=True,
    )
    lab("run", "s.yaml", "-x", "runs_per_gpu=3")
    short, broken, long = (run for *_, run in (lab.store.sweeps.plan("s") or {})["cells"])
    wait_for(lambda: lab.trained(short) == ["done"] and lab.trained(broken) == ["bad-recipe"])
    wait_for(lambda: lab.store.history(long))
    # The signal that submitit has asked for, as SLURM sends it before the time limit.
    lab.cluster.command("scancel", "--signal=USR2", lab.element(long))
    wait_for(lambda: lab.store.attempts(long)[0].exit)
    lab.hurry()
    assert lab.states()[broken] == "failed", "which its job does not try again"
    lab.await_end()
    assert [lab.trained(run) for run in (short, broken)] == [["done"], ["bad-recipe"]]
    assert re.fullmatch("(preempted|time-limit) done", " ".join(lab.trained(long)))
    first, second = (attempt.job for attempt in lab.store.attempts(long))
    assert (first["element"], second["restarts"]) == (second["element"], first["restarts"] + 1)
