"""Sweeps on a real SLURM cluster: submitted, interrupted in every way, and ended as if left alone."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from lab import Lab
from support import planned, result, wait_for

import deit_ablate

ONE = "seeds: 1\nvariants: {a: {}}\n"


def test_a_sweep_of_nine_is_submitted_and_ends_as_on_one_machine(lab: Lab) -> None:
    path = lab.sweep(
        "seeds: 3\nvariants: {a: {}, b: {augment.mixup: 0}, c: {augment.erasing: 0}}\n", slurm="array_parallelism: 3"
    )
    out = lab("run", "s.yaml")
    assert "9 runs" in out
    assert "CPU-hours" in out
    most = 0
    while not lab.all_over():
        most = max(most, len(lab.cluster.command("squeue", "-h", "-t", "R").split("\n")) - 1)
        assert "submitted job" not in lab("run", "s.yaml"), "what is in the queue is not submitted again"
    assert most <= 3, "array_parallelism"
    runs = planned(path).runs
    assert set(lab.states()) == set(runs)
    assert {run: result(lab.store, run) for run in runs} == lab.undisturbed(path)
    assert all(lab.trained(run) == ["done"] for run in runs)
    assert "nothing to train" in lab("run", "s.yaml")
    code = {(lab.store.outcome(run) or {})["provenance"]["git"]["code"] for run in runs}
    assert len(code) == 1, "the record names the snapshot that ran"


def test_rows_that_need_something_of_their_own_are_arrays_of_their_own(lab: Lab) -> None:
    """And the longest of each comes first."""
    rows = "variants: {a: {}, b: {augment.mixup: 0}, long: {schedule.epochs: 6}}\n"
    path = lab.sweep(f"seeds: 1\n{rows}")
    lab("run", "s.yaml", "--wait")
    longest = next(run for run, name in planned(path).labels().items() if name == "long:0")
    outcome = lab.store.run(longest) / "outcome.json"
    content = json.loads(outcome.read_bytes())
    content["cost"]["wall_seconds_all_attempts"] = 1000.0  # whatever the machine was doing meanwhile
    outcome.write_text(json.dumps(content))
    needs = "resources: {b: {threads: 2, slurm: {partition: nowhere, time: 30}}}\n"
    path = lab.sweep(f"seeds: 3\n{needs}{rows}")
    names, before = planned(path).labels(), len(list((lab.folder / "results" / "submissions").iterdir()))
    out = lab("run", "s.yaml", code=2)
    assert "sbatch refuses the job of b:1: " in out
    assert len(list((lab.folder / "results" / "submissions").iterdir())) == before, "before anything is written"
    path.write_text(path.read_text().replace("partition: nowhere", "partition: low"))
    out = lab("run", "s.yaml")
    assert "6 runs: " in out
    assert "4 with threads 1, slurm.partition none, slurm.time 20: " in out
    assert "2 with threads 2, slurm.partition low, slurm.time 30: " in out
    assert "4 runs (long:1, long:2, a:1, a:2)" in out
    assert "2 runs (b:1, b:2)" in out
    scripts = [text.read_text() for text in (lab.folder / "results" / "submissions").glob("*/*.sh")]
    own = next(text for text in scripts if "--cpus-per-task=2" in text)
    assert "#SBATCH --partition=low" in own
    assert "#SBATCH --time=30" in own
    assert sum("--cpus-per-task=1" in text for text in scripts) == 2
    lab.await_end()
    for run, name in names.items():
        assert lab.trained(run) == ["done"]
        threads = 2 if name in ("b:1", "b:2") else 1  # its first attempt decides
        assert lab.store.attempts(run)[0].owner["execution"]["threads"] == threads
    assert {run: result(lab.store, run) for run in names if names[run] != "b:0"} == {
        run: found for run, found in lab.undisturbed(path).items() if names[run] != "b:0"
    }


def test_requeued_preempted_and_out_of_time_it_goes_on_where_it_was(lab: Lab) -> None:
    path = lab.sweep("seeds: 3\nvariants: {a: {}}\n", epochs=30, slurm="partition: low, signal_delay: 10", slow=True)
    runs = list(planned(path).runs)
    lab("run", "s.yaml")
    for run in runs:
        wait_for(lambda run=run: lab.store.history(run))
    lab.cluster.command("scontrol", "requeue", lab.element(runs[0]))
    # Out of time: the signal that submitit has asked for, as SLURM sends it before the limit.
    lab.cluster.command("scancel", "--signal=USR2", lab.element(runs[1]))
    wait_for(lambda: lab.store.attempts(runs[1])[0].exit)
    wait_for(lambda: len(lab.store.attempts(runs[2])) == 1)
    everything = lab.cluster.submit(
        "--partition=high", "--exclusive", f"--nodes={len(lab.cluster.nodes)}", "--wrap=sleep 3"
    )
    lab.cluster.await_job(everything, "COMPLETED")
    lab.hurry()
    lab.await_end()
    assert {run: result(lab.store, run) for run in runs} == lab.undisturbed(path)
    for run in runs:
        how = lab.trained(run)
        assert how[-1] == "done"
        assert len(how) > 1
        assert set(how[:-1]) <= {"preempted", "time-limit", "interrupted"}, how


def test_a_node_lost_with_its_job_and_a_controller_that_is_away(lab: Lab) -> None:
    path = lab.sweep(ONE, epochs=30, slow=True)
    run = next(iter(planned(path).runs))
    lab("run", "s.yaml")
    wait_for(lambda: lab.store.history(run))
    owner = lab.store.attempts(run)[0].owner
    node = owner["host"]
    lab.cluster.kill(node, owner["pid"], signal.SIGSTOP)  # so that it cannot end before its node does
    lab.cluster.stop_controller()
    assert lab.states()[run] == "running", "a scheduler that does not answer changes nothing"
    lab.cluster.start_controller()
    lab.cluster.crash(node)
    lab.cluster.declare_down(node)
    lab.hurry()
    lab("run", "s.yaml")
    lab.cluster.start(node)
    lab.await_end()
    assert result(lab.store, run) == lab.undisturbed(path)[run]
    assert lab.trained(run)[-1] == "done"
    assert len(lab.trained(run)) == 2


@pytest.mark.storm  # over a minute
def test_a_node_that_loses_attempts_again_and_again_is_left_out(lab: Lab) -> None:
    path = lab.sweep(ONE, epochs=30, slow=True)
    run, attempts = next(iter(planned(path).runs)), lab.store.attempts
    for number in (1, 2):
        lab("run", "s.yaml")
        wait_for(lambda number=number: len(attempts(run)) == number and lab.store.history(run))
        # Not requeued, so that the next `run` sees how it ended; and on the same node again.
        lab.cluster.command("scontrol", "update", f"jobid={lab.element(run)}", "requeue=0")
        bad = attempts(run)[-1].owner["host"]
        lab.cluster.crash(bad)
        lab.cluster.declare_down(bad)
        lab.cluster.start(bad)
    lab.hurry()
    lab("run", "s.yaml", "--wait")
    assert [(attempt.exit or {})["class"] for attempt in attempts(run)] == ["node", "node", "done"]
    assert {attempt.owner["host"] for attempt in attempts(run)[:2]} == {bad}
    assert attempts(run)[2].owner["host"] != bad
    scripts = [next((lab.store.root / "submissions" / str(n)).glob("*.sh")).read_text() for n in (1, 2, 3)]
    assert [f"#SBATCH --exclude={bad}" in script for script in scripts] == [False, False, True]
    assert result(lab.store, run) == lab.undisturbed(path)[run]


def wrapper(lab: Lab, when: str) -> str:
    """A folder to put on PATH, with an sbatch that kills its caller before or after the real one."""
    folder = lab.folder / when
    folder.mkdir()
    real = subprocess.run(["which", "sbatch"], capture_output=True, text=True, check=True).stdout.strip()
    kill = f'case "$*" in *--test-only*) exec {real} "$@";; esac\n'
    kill += {"before": "kill -9 $PPID\n", "after": f'{real} "$@" >/dev/null; kill -9 $PPID\n'}[when]
    (folder / "sbatch").write_text("#!/bin/bash\n" + kill)
    (folder / "sbatch").chmod(0o755)
    return f"{folder}:"


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_launcher_killed_around_sbatch_leaves_nothing_twice_and_nothing_undone(lab: Lab, when: str) -> None:
    path = lab.sweep("seeds: 2\nvariants: {a: {}}\n")
    killed = lab.start("run", "s.yaml", path=wrapper(lab, when))
    said, _ = killed.communicate(timeout=300)
    assert killed.returncode == -signal.SIGKILL, said
    assert len(list((lab.store.root / "submissions").glob("*.job"))) == 0
    out = lab("run", "s.yaml")
    assert ("ended before it could record" in out) == (when == "after")
    assert ("submitted job" in out) == (when == "before")
    lab.await_end()
    assert all(lab.trained(run) == ["done"] for run in planned(path).runs)


def test_two_launchers_at_once_submit_every_run_once(lab: Lab) -> None:
    path = lab.sweep("seeds: 4\nvariants: {a: {}}\n")
    both = [lab.start("run", "s.yaml") for _ in range(2)]
    outs = [process.communicate(timeout=120)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outs
    submitted = [
        entry["run"]
        for file in (lab.store.root / "submissions").glob("*.json")
        for entry in json.loads(file.read_text())["runs"]
    ]
    assert sorted(submitted) == sorted(planned(path).runs)
    lab.await_end()


def test_a_teacher_that_fails_blocks_its_students_until_it_is_retried(lab: Lab) -> None:
    flag = lab.folder / "mended"
    lab.sweep(
        f"""seeds: 2
stages:
  teacher: {{seeds: [0], recipe: {{model: {{name: "mylab:broken_until", options: {{file: {flag}}}}}}}}}
  student: {{teacher: teacher}}
variants: {{hard: {{distill: {{type: hard}}}}}}
"""
    )
    lab("run", "s.yaml")
    states = lab.await_end()
    assert sorted(states.values()) == ["blocked", "blocked", "failed"]
    flag.touch()
    out = lab("retry", "s")
    assert "3 runs" in out
    assert set(lab.await_end().values()) <= {"done", "diverged"}


def test_students_of_a_teacher_that_did_not_train_are_not_submitted_again(lab: Lab) -> None:
    lab.sweep(
        """seeds: 2
stages:
  teacher: {seeds: [0], recipe: {model: {name: "mylab:exploding"}}}
  student: {teacher: teacher}
variants: {hard: {distill: {type: hard}}}
"""
    )
    lab("run", "s.yaml")
    assert sorted(lab.await_end().values()) == ["blocked", "blocked", "diverged"]
    out = lab("retry", "s", code=1)
    assert "submitted job" not in out
    assert out.count("on which it depends, diverged") == 2
    assert set(lab.states().values()) == {"blocked", "diverged"}


def test_a_sweep_whose_runs_all_die_of_one_error_is_held(lab: Lab) -> None:
    lab.sweep(
        'seeds: 6\nvariants: {a: {model: {name: "mylab:broken_until", options: {file: /nowhere/at/all}}}}\n',
        slurm="array_parallelism: 1",
    )
    lab("run", "s.yaml", "--wait", code=1)
    states = list(lab.states().values())
    assert states.count("held") >= 1
    assert sum(len(lab.store.attempts(run)) for run in lab.states()) < 6, "the rest did not train"
    assert "- Held: a seed" in lab("table", "s")
    out = lab("run", "s.yaml", code=1)
    assert out.count("is held") == 1
    assert "boom: not yet" in out


def test_a_cancelled_element_saves_stops_and_comes_back(lab: Lab) -> None:
    path = lab.sweep("seeds: 3\nvariants: {a: {}}\n", epochs=30, slurm="array_parallelism: 1", slow=True)
    runs = list(planned(path).runs)
    lab("run", "s.yaml")
    wait_for(lambda: lab.store.history(runs[0]))
    lab("cancel", "s:a:0")
    lab("cancel", "s:a:2")
    wait_for(lambda: lab.trained(runs[0]) == ["cancelled"])
    assert lab.states()[runs[2]] == "cancelled"
    lab.hurry()
    lab.await_end()
    assert lab.trained(runs[1]) == ["done"]
    assert not lab.store.attempts(runs[2])
    lab("retry", "s", "--wait")
    assert lab.trained(runs[0]) == ["cancelled", "done"]
    assert {run: result(lab.store, run) for run in runs} == lab.undisturbed(path)


def test_two_nodes_train_one_run_together(lab: Lab) -> None:
    lab.cold()
    path = lab.sweep(ONE, epochs=60, slurm="nodes: 2")  # long enough to be seen as it runs
    out = lab("run", "s.yaml", "-x", "ranks=2", "--wait")
    assert "a:0: started" in out
    assert "a:0: d" in out, "done or diverged"
    run = next(iter(planned(path).runs))
    assert (lab.store.outcome(run) or {})["execution"]["ranks"] == 2
    assert lab.trained(run) == ["done"]


def test_a_rank_that_is_lost_takes_the_others_with_it(lab: Lab) -> None:
    (lab.folder / "lose").touch()
    model = f'{{name: "mylab:losing_a_rank", options: {{folder: {lab.folder}}}}}'
    path = lab.sweep(f"seeds: 1\nvariants: {{a: {{model: {model}}}}}\n", slurm="nodes: 2")
    lab("run", "s.yaml", "-x", "ranks=2", "--wait")
    assert lab.trained(next(iter(planned(path).runs))) == ["killed", "done"]


def test_bad_settings_are_refused_before_anything_is_written(lab: Lab) -> None:
    lab.sweep(ONE)
    for option, expected in (
        ("--slurm.partition=a; rm -rf ~", "slurm.partition"),
        ("--slurm.partition=a\nb", "slurm.partition"),
        ("--slurm.partition=nowhere", "invalid partition"),
        ("--slurm.tme=3", "did you mean 'time'?"),
        ("--slurm.time=0", "slurm.time: got 0; expected minutes, or [D-]HH:MM:SS"),
    ):
        out = lab("run", "s.yaml", option, code=2)
        assert expected in out.replace("specified: nowhere", "").lower() or expected in out, out
    assert not lab.store.root.exists()


def test_the_code_that_runs_is_the_code_that_was_submitted(lab: Lab) -> None:
    """Also where it is submitted from a checkout, whose folder Python would look into first."""
    lab.cold()
    path = lab.sweep("seeds: 1\nvariants: {a: {}}\n")
    package, checkout = Path(deit_ablate.__file__).parent, lab.folder / "deit_ablate"
    for name in ("deit_ablate", "sweeps", "analysis"):
        shutil.copytree(package.parent / name, lab.folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    blocker = lab.cluster.submit("--exclusive", f"--nodes={len(lab.cluster.nodes)}", "--wrap=sleep 600")
    lab.cluster.await_job(blocker, "RUNNING")
    lab("run", "s.yaml")
    shutil.rmtree(checkout)
    checkout.mkdir()
    (checkout / "__init__.py").write_text("raise SystemExit('edited after it was submitted')")
    lab.cluster.command("scancel", str(blocker))
    run = next(iter(planned(path).runs))
    wait_for(lambda: lab.store.outcome(run), step=0.5)


def test_a_job_that_dies_before_its_run_begins_is_said(lab: Lab) -> None:
    """In the words of what has failed: its set-up, or its worker, after which submitit and SLURM have their say."""
    worker = lab.folder / "worker"
    worker.write_text("#!/bin/sh\necho no such image: train.sif\nexit 1\n")
    worker.chmod(0o755)
    own = f"resources: {{b: {{slurm: {{setup: ['export DEIT_ABLATE_WORKER={worker}']}}}}}}\n"
    lab.sweep(
        f"seeds: 1\n{own}variants: {{a: {{}}, b: {{augment.mixup: 0}}}}\n",
        slurm='setup: ["echo no such module: cuda; exit 1"]',
    )
    out = lab("run", "s.yaml", "--wait", code=1)
    assert "its job ended 3 times before an attempt began (no such module: cuda)" in out
    assert "its job ended 3 times before an attempt began (no such image: train.sif)" in out
    out = lab("run", "s.yaml", code=1)
    assert "submitted job" not in out


def test_limits_put_off_and_a_teacher_in_other_hands_is_waited_for(lab: Lab) -> None:
    folder = lab.folder / "limited"
    folder.mkdir()
    real = subprocess.run(["which", "sbatch"], capture_output=True, text=True, check=True).stdout.strip()
    (folder / "sbatch").write_text(
        "#!/bin/bash\n"
        'case "$*" in *--test-only*) exec REAL "$@";; esac\n'
        'if grep -q -- "--array=0-[1-9]" "${@: -1}"; then\n'
        '  echo "sbatch: error: QOSMaxSubmitJobPerUserLimit" >&2; exit 1\n'
        "fi\n"
        'exec REAL "$@"\n'.replace("REAL", real)
    )
    (folder / "sbatch").write_text((folder / "sbatch").read_text().replace("REAL", real))
    (folder / "sbatch").chmod(0o755)
    path = lab.sweep(
        """seeds: 2
stages:
  teacher: {seeds: [0], recipe: {model: {name: small_convnet, options: {width: 8}}, schedule: {epochs: 60}}}
  student: {teacher: teacher}
variants: {hard: {distill: {type: hard}}}
"""
    )
    teacher = next(iter(planned(path).runs))
    local = lab.start("run", "s.yaml", "--executor", "local", "--parallel", "1")
    wait_for(lambda: lab.store.history(teacher))
    local.send_signal(signal.SIGTERM)
    local.communicate(timeout=60)
    lab("run", "s.yaml", "--wait", path=f"{folder}:")
    assert set(lab.states().values()) <= {"done", "diverged"}
    arrays = [json.loads(file.read_text()) for file in (lab.store.root / "submissions").glob("*.json")]
    assert max(len(array["runs"]) for array in arrays) == 2, "one was refused, and cut in two"


def test_a_thousand_elements_are_one_array_and_one_question(lab: Lab) -> None:
    lab.sweep("seeds: 1000\nvariants: {a: {}}\n", slurm="array_parallelism: 1, partition: main")
    blocker = lab.cluster.submit("--exclusive", f"--nodes={len(lab.cluster.nodes)}", "--wrap=sleep 600")
    lab.cluster.await_job(blocker, "RUNNING")
    out = lab("run", "s.yaml", "--yes")
    assert "- Submitted: a seeds 0, 1" in out
    assert len(list((lab.store.root / "submissions").glob("*.json"))) == 1
    states = json.loads(lab("status", "s", "--json", path=counting(lab)))
    assert len(states) == 1000
    assert {state["state"] for state in states.values()} == {"submitted"}
    assert (lab.folder / "asked").read_text().split() == ["squeue"]
    lab("cancel", "s")
    assert set(lab.states().values()) == {"cancelled"}
    lab.cluster.command("scancel", str(blocker))


def counting(lab: Lab) -> str:
    """A folder to put on PATH, whose commands note that they were called."""
    folder = lab.folder / "counting"
    folder.mkdir()
    for name in ("squeue", "scontrol", "sacct", "sinfo"):
        real = shutil.which(name, path=lab.environment["PATH"])
        (folder / name).write_text(f'#!/bin/sh\necho {name} >>{lab.folder}/asked\nexec {real} "$@"\n')
        (folder / name).chmod(0o755)
    return f"{folder}:"


def test_a_search_asks_for_jobs_and_goes_on_with_another_launcher(lab: Lab) -> None:
    lab.sweep(
        "seeds: 1\nsearch: {trials: 4, parallel: 2, pruner: none, candidates: 1, candidate_seeds: 1, "
        "space: {optimizer.base_lr: {low: 0.02, high: 0.1, log: true}}}\n",
        epochs=4,
    )
    said = lab("run", "s.yaml")
    assert said.count("submitted job") >= 1, said
    assert len(lab.store.sweeps.trial_requests("s")) == 2, "as many as it may have at once"
    waiting = lab.start("run", "s.yaml", "--wait", "--confirm")
    wait_for(lambda: len(lab.store.sweeps.trial_requests("s")) > 2)
    waiting.kill()
    waiting.wait()
    lab("run", "s.yaml", "--wait", "--confirm", code=None)
    asked = lab.store.sweeps.trial_requests("s")
    assert [ask["number"] for ask in asked] == [1, 2, 3, 4]
    for ask in asked:
        assert lab.trained(ask["run"]) == ["done"], "each trained once"
    plan = lab.store.sweeps.plan("s") or {}
    states = lab.states()
    if "done" in {states[ask["run"]] for ask in asked}:  # else all were at chance, and there is nothing to confirm
        assert plan["search"]["winners"]
        final = [run for *_, stage, run in plan["cells"] if not stage]
        assert [states[run] for run in final] in (["done"], ["diverged"])


def test_seeds_are_added_look_by_look_and_by_another_launcher(lab: Lab) -> None:
    lab.sweep("looks: [3, 4]\nbaseline: a\nvariants: {a: {}, b: {augment: {erasing: 0}}}\n", epochs=2)
    first = lab.start("run", "s.yaml", "--until-decided")
    wait_for(lambda: any(lab.store.result(run) for run in lab.store.runs()))
    first.kill()
    first.communicate()
    said = lab("run", "s.yaml", "--until-decided")
    assert "every row is decided, or has had its last look" in said
    plan = lab.store.sweeps.plan("s") or {}
    assert len(plan["cells"]) == 8, said
    assert all(lab.trained(run) == ["done"] for *_, run in plan["cells"]), "each trained once"
    lab.sweep("looks: [3, 4]\nbaseline: a\nvariants: {a: {}, c: {schedule: {epochs: 3}}}\n", name="t", epochs=2)
    said = lab("run", "t.yaml", "--budget", "0.001s")
    assert "undecided: c; this command used 0 s" in said, said
