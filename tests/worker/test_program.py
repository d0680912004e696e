"""Trainings by a command or a function: what they are told, what is recorded, how they stop and go on."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from programs import WRITES, Lab, until

from deit_ablate import check_resume
from deit_ablate.errors import TrainError
from deit_ablate.execution import SAVED
from deit_ablate.program import ProgramRecipe
from deit_ablate.report.records import arrays
from deit_ablate.worker.trainer import ProgramRun

COUNTS = """\
import json, os, signal, sys, time
run, kept = os.environ["DEIT_ABLATE_RUN_DIR"], os.environ["DEIT_ABLATE_CHECKPOINT_DIR"]
state = kept + "/epoch"
begin = int(open(state).read()) if os.path.exists(state) else 0
stop = []
signal.signal(signal.SIGTERM, lambda *_: stop.append(1))
with open(run + "/m.jsonl", "w", buffering=1) as file:
    for epoch in range(begin, 6):
        print(json.dumps({"epoch": epoch, "top1": 50 + epoch}), file=file)
        open(state + ".new", "w").write(str(epoch + 1))
        os.replace(state + ".new", state)
        while begin == 0 and epoch == 2 and not stop:
            time.sleep(0.01)
        if stop:
            sys.exit(75)
"""


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_what_a_command_reports_is_recorded(lab: Lab) -> None:
    lab.metrics |= {"validation": "val"}
    run = lab.run()
    outcome = lab.store.outcome(run) or {}
    assert outcome["status"] == "done"
    assert outcome["metrics"]["program"] == {"epoch": 2, "top1": 92.1, "val": 2}
    assert outcome["metrics"]["validation"] == {"metric": 2}
    assert [line["epoch"] for line in lab.store.history(run)] == [0, 1, 2]
    assert [line["metrics"]["top1"] for line in lab.store.history(run)] == [90.1, 91.1, 92.1]
    assert [line["validation"] for line in lab.store.history(run)] == [{"metric": value} for value in (0, 1, 2)]
    assert lab.store.weights(run) == lab.store.attempt(run, 1).output


FORMS = {
    "CSV": ("{run}/*/s.csv", "import os; os.mkdir(run + '/x'); put('x/s.csv', 'epoch,top1\\n0,1\\n1,2.5')", {}),
    "JSON": ("{run}/s.json", "put('s.json', '{\"eval\": {\"top1\": 2.5}}')", {"primary": "eval.top1"}),
    "printed": ("{log}", "print('Accuracy: 25/1000 (2.5%)')", {"pattern": r"\((?P<top1>[0-9.]+)%\)"}),
    "printed by another program": ("{log}", "import os; os.system('echo top1=2.5')", {"pattern": "top1=(?P<top1>.*)"}),
}


@pytest.mark.parametrize("form", FORMS)
def test_metrics_are_read_from_what_a_program_writes_or_prints(lab: Lab, form: str) -> None:
    file, script, more = FORMS[form]
    lab.metrics |= {"file": file, **more}
    put = "import sys\nrun = sys.argv[1]\ndef put(name, text): open(run + '/' + name, 'w').write(text)\n"
    outcome = lab.store.outcome(lab.run(put + script)) or {}
    assert outcome["metrics"]["program"][lab.metrics["primary"]] == 2.5


BAD = {
    "no file": ("pass", "bad-metrics", "no such file"),
    "another metric": (WRITES.replace("top1", "top5"), "bad-metrics", "no 'top1'; did you mean 'top5'?"),
    "a failure": ("import sys; print('out of luck'); sys.exit(3)", "crash", "exit code 3: out of luck"),
    "an exception": ("1 / 0", "crash", "ZeroDivisionError"),
    "a kill": ("import os; os.kill(os.getpid(), 9)", "killed", "SIGKILL"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_program_that_fails_is_said_to_in_a_line(lab: Lab, name: str) -> None:
    script, how, words = BAD[name]
    run = lab.run(script, code=1)
    assert lab.ended(run)[0] == how
    assert words in lab.ended(run)[1]


def test_a_program_that_is_not_there_is_named(lab: Lab) -> None:
    lab.command = ["no-such-program", "{run}", "{seed}"]
    run = lab.run(code=1)
    assert lab.ended(run) == ("bad-recipe", "'no-such-program' cannot be started: No such file or directory")


def test_a_metric_that_is_not_finite_at_the_end_is_a_result(lab: Lab) -> None:
    run = lab.run(WRITES.replace("90 + epoch", "(1e400 - 1e400 if epoch == 2 else epoch)"))
    outcome = lab.store.outcome(run) or {}
    assert (outcome["status"], outcome["reason"]) == ("diverged", "top1 is not finite at the end")


ODD = {
    "an unknown key": ({"odd": 1}, "recipe.json: odd: Extra inputs are not permitted"),
    "no program": ({"program": 7}, "recipe.json: program: Input should be"),
    "a text as a command": ({"program": {"command": "x"}}, "recipe.json: program.command: Input should be a valid"),
    "no command": ({"program": {}}, "neither a command nor a function"),
    "an empty command": ({"program": {"command": []}}, "program.command: List should have at least 1 item"),
    "an unknown placeholder": ({"program": {"command": ["{nope}"]}}, "{nope} is no parameter"),
    "no template": ({"program": {"command": ["{"]}}, "is no template"),
    "no mapping of parameters": ({"parameters": 3}, "recipe.json: parameters: Input should be"),
}


@pytest.mark.parametrize("name", ODD)
def test_a_stored_recipe_that_is_none_of_a_program_is_refused_in_a_line(name: str) -> None:
    change, words = ODD[name]
    sound = {"program": {"command": ["x", "{seed}"]}, "parameters": {}, "data": {"id": None}, "seed": 0}
    assert ProgramRecipe.of_record(sound).program.command == ["x", "{seed}"]
    with pytest.raises(TrainError, match=re.escape(words)) as error:
        ProgramRecipe.of_record({**sound, **change})
    assert "\n" not in str(error.value)


def test_a_source_that_has_changed_is_another_run(lab: Lab) -> None:
    run = lab.register()
    (lab.folder / "train.py").write_text(WRITES + "print(1)\n")
    assert lab.start(run).wait(60) == 1
    assert "the source of ./train.py has changed" in lab.ended(run)[1]


def test_a_command_is_told_to_save_and_goes_on_in_the_next_attempt(lab: Lab) -> None:
    run = lab.register(COUNTS)
    worker = lab.start(run)
    until(lambda: len(lab.store.history(run)) >= 3)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == SAVED
    assert lab.ended(run)[0] == "interrupted"
    assert lab.store.attempts(run)[-1].progressed
    assert lab.start(run).wait(60) == 0
    assert [(line["epoch"], line["metrics"]["top1"]) for line in lab.store.history(run)] == [
        (epoch, 50 + epoch) for epoch in range(6)
    ]
    assert not lab.store.attempt(run, 1).kept.exists()
    assert (lab.store.outcome(run) or {})["metrics"]["program"]["top1"] == 55


def test_a_command_that_does_not_stop_is_killed_after_its_grace(lab: Lab) -> None:
    lab.grace = 1
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
    run = lab.register(stubborn)
    worker = lab.start(run)
    until(lambda: "up" in lab.store.attempt(run, 1).log.read_text())
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == SAVED
    assert lab.ended(run)[0] == "interrupted"


def test_a_worker_that_is_killed_leaves_no_command_behind(lab: Lab) -> None:
    run = lab.register("import os, time; print(os.getpid(), flush=True); time.sleep(600)")
    worker = lab.start(run)
    log = lab.store.attempt(run, 1).log
    until(lambda: log.exists() and log.read_text().strip().splitlines()[-1:][0].isdigit() if log.read_text() else False)
    command = int(log.read_text().splitlines()[-1])
    worker.kill()
    worker.wait()
    until(lambda: not Path(f"/proc/{command}").exists() or "State:\tZ" in Path(f"/proc/{command}/status").read_text())


def test_predictions_are_kept_image_by_image(lab: Lab) -> None:
    lab.metrics |= {"predictions": "{run}/p.npz"}
    save = "import numpy, sys; numpy.savez(sys.argv[1] + '/p.npz', targets=numpy.arange(4), predictions=numpy.{})\n"
    kept = arrays(lab.store, run := lab.run(save.format("arange(4)") + WRITES), lab.store.outcome(run) or {})
    assert np.array_equal(kept["test_pred_class"], np.arange(4))
    run = lab.run(save.format("ones(3)") + WRITES, code=1)
    assert "not classes (N,) of the same images" in lab.ended(run)[1]


FUNCTION = """\
def main(parameters, run):
    state = run.resume() or {"epoch": 0, "total": float(run.seed)}
    while state["epoch"] < 4:
        state = {"epoch": state["epoch"] + 1, "total": state["total"] * parameters["rate"] + 1}
        run.log(epoch=state["epoch"] - 1, top1=state["total"])
        run.save(state)
        if state["epoch"] < 4 and run.should_stop():
            return
"""


def test_a_function_is_called_with_its_run(lab: Lab) -> None:
    (lab.folder / "lab_train.py").write_text(FUNCTION)
    lab.function, lab.parameters, lab.metrics = "lab_train:main", {"rate": 0.5}, {"primary": "top1"}
    run = lab.run()
    assert (lab.store.outcome(run) or {})["metrics"]["program"] == {"epoch": 3, "top1": 1.9375}
    assert (lab.store.attempt(run, 1).kept / "state.pt").exists()


def made(text: str) -> Any:
    names: dict[str, Any] = {}
    exec(text, names)
    return names["main"]


def test_a_function_that_goes_on_where_it_was_passes_the_check_of_resume(tmp_path: Path) -> None:
    check_resume(made(FUNCTION), {"rate": 0.5}, tmp_path, stops=3)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("run.resume() or", "", "line 2 is"),
        ("= run.resume() or", "= (s := run.resume()) and {**s, 'total': 9.0} or", "stopped at question"),
        ("and run.should_stop()", "and False", "never asks should_stop"),
    ],
)
def test_a_function_that_does_not_is_told_where(tmp_path: Path, old: str, new: str, words: str) -> None:
    with pytest.raises(AssertionError, match=words):
        check_resume(made(FUNCTION.replace(old, new)), {"rate": 0.5}, tmp_path)


def test_a_device_is_that_of_the_execution(tmp_path: Path) -> None:
    assert ProgramRun(seed=0, folder=tmp_path, checkpoint=tmp_path, wanted_device="cpu").device == "cpu"


def test_what_is_written_is_json_lines(lab: Lab) -> None:
    run = lab.run()
    lines = lab.store.attempt(run, 1).metrics.read_text().splitlines()
    assert [json.loads(line)["metrics"]["val"] for line in lines] == [0, 1, 2]
