"""A cluster with accounting, for `make test-slurm-full`: what ended while nobody looked, and was forgotten."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from cluster import Cluster
from lab import Lab
from support import planned, result, wait_for

PATIENT = """
import time


def patient(shape, *, file):
    def happens():
        while os.path.exists(file):
            time.sleep(0.1)
        return 1

    return Linear(shape, happens)
"""


@pytest.mark.storm
def test_accounting_tells_how_forgotten_jobs_have_ended(
    accounted: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, warm_python: list[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # this process plans the sweep too
    lab, flag = Lab(tmp_path, accounted, warm_python), tmp_path / "hang"
    with (lab.folder / "mylab.py").open("a") as models:
        models.write(PATIENT)
    path = lab.sweep(
        f"""seeds: 1
variants:
  killed: {{}}
  lost: {{augment.mixup: 0}}
  hung: {{model: {{name: "mylab:patient", options: {{file: {flag}}}}}, schedule: {{epochs: 100}}}}
""",
        epochs=60,
        slurm="cpus: 4, signal_delay: 10",  # each takes a whole node
    )
    runs = killed, lost, hung = list(planned(path).runs)
    lab("run", "s.yaml")
    for run in runs:
        wait_for(lambda run=run: lab.store.history(run))
    flag.touch()
    owners = {run: lab.store.attempts(run)[0].owner for run in runs}
    accounted.kill(owners[killed]["host"], owners[killed]["pid"], signal.SIGKILL)
    # Not requeued, as an operator may say.
    accounted.command("scontrol", "update", f"jobid={lab.element(lost)}", "requeue=0")
    accounted.crash(owners[lost]["host"])
    accounted.declare_down(owners[lost]["host"])
    # What hangs does not save at its signal, and is killed at its time limit.
    accounted.command("scontrol", "update", f"jobid={lab.element(hung)}", "endtime=now+15")
    wait_for(lambda: not accounted.command("squeue", "--noheader", "--states=all").strip(), step=1)
    assert [lab.trained(run) for run in runs] == [["open"]] * 3, "nobody was left to say how they ended"
    accounted.start(owners[lost]["host"])
    flag.unlink()
    lab("run", "s.yaml")
    ends = [lab.store.attempts(run)[0].exit or {} for run in runs]
    assert [end["class"] for end in ends] == ["killed", "node", "time-limit"]
    assert [end["message"].rpartition(": ")[2] for end in ends] == ["COMPLETED", "NODE_FAIL", "TIMEOUT"]
    lab.await_end()
    assert {run: result(lab.store, run) for run in runs} == lab.undisturbed(path)
