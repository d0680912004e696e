"""A sweep of a command on a real SLURM cluster: requeued and preempted, and ended as if left alone."""

from __future__ import annotations

import sys

from lab import Lab
from support import planned, wait_for

TRAIN = """\
import json, os, signal, sys, time
run, kept = os.environ["DEIT_ABLATE_RUN_DIR"], os.environ["DEIT_ABLATE_CHECKPOINT_DIR"]
state, stop = kept + "/epoch", []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
begin = int(open(state).read()) if os.path.exists(state) else 0
with open(run + "/m.jsonl", "w", buffering=1) as file:
    for epoch in range(begin, 20):
        print(json.dumps({"epoch": epoch, "top1": 50 + epoch + float(sys.argv[1]) + int(sys.argv[2])}), file=file)
        with open(state + ".new", "w") as new:
            new.write(str(epoch + 1))
        os.replace(state + ".new", state)
        while epoch == 9 and os.path.exists("wait") and not stop:
            time.sleep(0.1)
        if stop:
            sys.exit(75)
"""
SWEEP = f"""
title: A command on a cluster
command: ["sh", "-c", '"$@"; exit $?', sh, {sys.executable}, train.py, "{{lr}}", "{{seed}}"]
parameters: {{lr: 0.0}}
sources: [train.py]
metrics: {{file: "{{run}}/m.jsonl", primary: top1, better: higher}}
seeds: 2
baseline: a
variants: {{a: {{}}, b: {{lr: 1.0}}}}
execution: {{executor: slurm, device: cpu, slurm: {{time: 20, partition: low, signal_delay: 10}}}}
"""


def test_a_command_that_is_requeued_and_preempted_goes_on_from_what_it_saved(lab: Lab) -> None:
    (lab.folder / "train.py").write_text(TRAIN)
    (lab.folder / "s.yaml").write_text(SWEEP)
    (lab.folder / "wait").touch()
    runs = list(planned(lab.folder / "s.yaml").runs)
    lab("run", "s.yaml")
    for run in runs[:2]:  # each stops at its tenth epoch until it is told to save
        wait_for(lambda run=run: len(lab.store.history(run)) == 10)
    lab.cluster.command("scontrol", "requeue", lab.element(runs[0]))
    wait_for(lambda: lab.store.attempts(runs[0])[0].exit)
    everything = lab.cluster.submit(
        "--partition=high", "--exclusive", f"--nodes={len(lab.cluster.nodes)}", "--wrap=sleep 3"
    )
    lab.cluster.await_job(everything, "COMPLETED")
    (lab.folder / "wait").unlink()
    lab.await_end()
    for number, run in enumerate(runs):
        assert (lab.store.outcome(run) or {})["metrics"]["program"]["top1"] == 69 + number // 2 + number % 2
        assert [line["epoch"] for line in lab.store.history(run)] == list(range(20))
        how = lab.trained(run)
        assert how[-1] == "done"
        assert len(how) > (run in runs[:2])
        assert set(how[:-1]) <= {"preempted", "interrupted"}, how
