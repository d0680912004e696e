"""Runs by a command: what it is told, what of it is recorded, how it ends, and that none is lost or trained twice."""

from __future__ import annotations

import contextlib
import json
import random
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from programs import EPOCHS, Programs, environment
from support import wait_for

from deit_ablate import files
from deit_ablate.execution import SAVED
from deit_ablate.identity import run_id

ONE_LINE = 'import os\nopen(os.environ["DEIT_ABLATE_RUN_DIR"] + "/log.jsonl", "w").write(\'{"total": 1}\\n\')\n'


def epochs(programs: Programs, *, seconds: float = 0.0, seed: int = 0) -> str:
    programs.script(EPOCHS)
    command = ["python", "train.py", "{seconds}", "{seed}"]
    return programs.registered(command, parameters={"seconds": seconds}, seed=seed)


def total(epochs: int = 10, seed: int = 0) -> float:
    whole = 0.0
    for epoch in range(epochs):
        whole += (epoch + seed) ** 0.5
    return whole


def test_a_command_is_told_all_and_what_it_reports_is_recorded(programs: Programs, tmp_path: Path) -> None:
    programs.script(
        "import json, os, sys\n"
        "told = {name: value for name, value in os.environ.items() if name.startswith('DEIT_ABLATE_')}\n"
        "told |= {'argv': sys.argv[1:], 'cwd': os.getcwd(), 'threads': os.environ['OMP_NUM_THREADS']}\n"
        "json.dump(told, open(sys.argv[1] + '/told.json', 'w'))\n"
        "print('hello')\n"
        'open(sys.argv[1] + \'/log.jsonl\', \'w\').write(\'{"epoch": 3, "total": 1, "best": {"top1": 50.0}}\\n'
        'no line of metrics\\n{"epoch": 4, "total": 2, "loss": NaN, "note": "x"}\')\n'
    )
    command = ["python", "train.py", "{run}", "{data}", "--opt={opt}", "{flags}", "{nothing}", "$HOME; *"]
    parameters = {"opt": "it's one", "flags": ["-a", "b c"], "nothing": None}
    run = programs.registered(command, parameters=parameters, seed=7, data={"id": "flowers"})
    assert programs.train(run, data_dir=str(tmp_path), threads=2, validation="best.top1") == 0
    attempt, outcome = programs.last(run), programs.outcome(run)
    told = json.loads((attempt.output / "told.json").read_text())
    assert told["argv"] == [str(attempt.output), str(tmp_path), "--opt=it's one", "-a", "b c", "$HOME; *"]
    assert told["cwd"] == str(programs.folder)
    assert told["threads"] == "2"
    assert told["DEIT_ABLATE_RUN_DIR"] == str(attempt.output)
    assert told["DEIT_ABLATE_CHECKPOINT_DIR"] == str(attempt.kept)
    assert (told["DEIT_ABLATE_SEED"], told["DEIT_ABLATE_ATTEMPT"], told["DEIT_ABLATE_DATA"]) == (
        "7",
        "1",
        str(tmp_path),
    )
    assert "DEIT_ABLATE_PARENT" not in told
    assert outcome["status"] == "done"
    assert outcome["metrics"]["program"] == {"epoch": 4, "total": 2, "best.top1": 50.0, "loss": None}
    assert outcome["metrics"]["validation"] == {"metric": 50.0}
    assert [(line["epoch"], line["metrics"].get("total")) for line in programs.store.history(run)] == [(3, 1), (4, 2)]
    assert outcome["provenance"]["packages"] == {}, "those of the command's interpreter are not known"
    assert "hello" in attempt.log.read_text()
    assert programs.store.weights(run) == attempt.output, "what a later stage starts from"


def test_a_later_stage_is_told_the_folder_of_the_one_before(programs: Programs) -> None:
    programs.script(ONE_LINE)
    parent = programs.registered(seed=1)
    assert programs.train(parent) == 0
    programs.script(
        "import os, sys\nassert os.path.exists(sys.argv[1] + '/log.jsonl')\n"
        "assert os.environ['DEIT_ABLATE_PARENT'] == sys.argv[1]\n" + ONE_LINE,
        "tune.py",
    )
    parents = {"from": {"run": parent, "weights": "last"}}
    run = programs.registered(["python", "tune.py", "{parent}"], parents=parents)
    assert programs.train(run) == 0
    programs.outcome(run)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("summary.csv", "epoch,total,when\n0,1.5,noon\n1,2.5,noon\n", {}),
        ("nested/args-9/log.jsonl", '{"epoch": 0, "total": 1.5}\r\n{"epoch": 1, "total": 2.5}\r\n', {}),
        ("metrics.json", '{"epoch": 1, "total": 2.5, "name": "x", "share": "3%"}', {}),
        ("out.txt", "\r10%\r99% total: 1.5\nepoch 1\rtotal: 2.5", {"pattern": r"total: (?P<total>[\d.]+)"}),
    ],
)
def test_metrics_are_read_from(programs: Programs, name: str, content: str, told: dict[str, str]) -> None:
    folder = name.rpartition("/")[0]
    programs.script(
        "import os\nrun = os.environ['DEIT_ABLATE_RUN_DIR']\n"
        f"os.makedirs(os.path.join(run, {folder!r}), exist_ok=True)\n"
        f"open(os.path.join(run, {name!r}), 'w', newline='').write({content!r})\n"
    )
    run = programs.registered()
    assert programs.train(run, file="{run}/" + name.replace("args-9", "*"), **told) == 0
    last = programs.outcome(run)["metrics"]["program"]
    assert last == {"total": 2.5} if told else {"epoch": 1, "total": 2.5}


@pytest.mark.parametrize("more", [[], ["--foreground"]])
def test_metrics_are_read_from_what_is_printed(programs: Programs, more: list[str]) -> None:
    programs.script("for n in range(2000):\n    print(f'epoch {n} total: {n / 2}')\n")
    run = programs.registered(["python", "train.py", "total: 99999"])
    pattern = r"total: (?P<total>[\d.]+)"
    assert programs.train(run, *more, file="{log}", pattern=pattern) == 0
    assert programs.outcome(run)["metrics"]["program"] == {"total": 999.5}, "all of it, and not our line of the command"
    assert len(programs.store.history(run)) == 2000


def test_a_file_that_is_written_anew_is_the_history_alone(programs: Programs) -> None:
    programs.script(
        "import os, time\npath = os.environ['DEIT_ABLATE_RUN_DIR'] + '/log.csv'\n"
        "history = os.environ['DEIT_ABLATE_RUN_DIR'] + '/../metrics.jsonl'\n"
        "def written(lines):\n"
        "    open(path + '~', 'w').write('epoch,total\\n' + ''.join(f'{n},{n}\\n' for n in range(lines)))\n"
        "    os.replace(path + '~', path)\n"
        "written(3)\n"
        "while open(history).read().count('\\n') < 3:\n    time.sleep(0.01)\n"
        "written(5)\n"
    )
    run = programs.registered()
    assert programs.train(run, file="{run}/log.csv") == 0
    assert [line["epoch"] for line in programs.store.history(run)] == [0, 1, 2, 3, 4]


def test_very_many_lines_are_read_once(programs: Programs) -> None:
    programs.script(
        "import os\nwith open(os.environ['DEIT_ABLATE_RUN_DIR'] + '/log.jsonl', 'w') as log:\n"
        '    for n in range(30_000):\n        log.write(\'{"step": %d, "total": %d}\\n\' % (n, n))\n'
    )
    run = programs.registered()
    assert programs.train(run) == 0
    assert programs.outcome(run)["metrics"]["program"] == {"step": 29_999, "total": 29_999}
    assert len(programs.store.history(run)) == 30_000


def test_what_it_predicts_is_recorded(programs: Programs) -> None:
    programs.script(
        "import os, numpy as np\n"
        "run = os.environ['DEIT_ABLATE_RUN_DIR']\n"
        "np.savez(run + '/p.npz', targets=np.arange(3), predictions=np.array([0, 1, 1]), confidence=np.ones(3) / 2)\n"
        + ONE_LINE
    )
    run = programs.registered()
    assert programs.train(run, predictions="{run}/p.npz") == 0
    arrays = files.read_arrays(programs.last(run).arrays, programs.outcome(run)["arrays_sha256"])
    assert arrays is not None
    assert {name: array.tolist() for name, array in arrays.items()} == {
        "test_targets": [0, 1, 2],
        "test_pred_class": [0, 1, 1],
        "test_confidence_class": [0.5, 0.5, 0.5],
    }


FAILURES = {
    "crash": ("import sys\nprint('x')\nsys.exit('no such optimizer')", {}, "crash", "exit code 1: no such optimizer"),
    "out of memory": ("raise MemoryError('torch.OutOfMemoryError: 2 GiB')", {}, "out-of-memory", "OutOfMemoryError"),
    "killed": ("import os\nos.kill(os.getpid(), 9)", {}, "killed", "SIGKILL"),
    "signal": ("import os\nos.kill(os.getpid(), 11)", {}, "killed", "signal 11"),
    "no file": ("", {}, "bad-metrics", r"log.jsonl: no such file"),
    "two files": (
        "import os\nfor n in 'ab': open(os.environ['DEIT_ABLATE_RUN_DIR'] + f'/{n}.jsonl', 'w')",
        {"file": "{run}/*.jsonl"},
        "bad-metrics",
        r"several files \(a.jsonl, b.jsonl\)",
    ),
    "no primary": (
        ONE_LINE,
        {"primary": "totl"},
        "bad-metrics",
        r"log.jsonl has no 'totl'.*mean.*total.*; it has total",
    ),
    "no JSON": (
        "import os\nopen(os.environ['DEIT_ABLATE_RUN_DIR'] + '/m.json', 'w').write('{')",
        {"file": "{run}/m.json"},
        "bad-metrics",
        "m.json is no JSON",
    ),
    "no predictions": (ONE_LINE, {"predictions": "{run}/p.npz"}, "bad-metrics", "p.npz cannot be read .*No such file"),
    "no archive": (ONE_LINE, {"predictions": "{run}/log.jsonl"}, "bad-metrics", "log.jsonl cannot be read"),
    "other sizes": (
        "import os, numpy as np\nrun = os.environ['DEIT_ABLATE_RUN_DIR']\n"
        "np.savez(run + '/p.npz', targets=[1], predictions=[1, 2])\n" + ONE_LINE,
        {"predictions": "{run}/p.npz"},
        "bad-metrics",
        "not classes",
    ),
    "no targets": (
        "import os, numpy as np\nnp.savez(os.environ['DEIT_ABLATE_RUN_DIR'] + '/p.npz', predictions=[1, 2])\n"
        + ONE_LINE,
        {"predictions": "{run}/p.npz"},
        "bad-metrics",
        "has no targets",
    ),
}


@pytest.mark.parametrize("which", FAILURES)
def test_what_goes_wrong_is_one_clear_failure(programs: Programs, which: str) -> None:
    script, told, how, message = FAILURES[which]
    programs.script(script)
    run = programs.registered()
    assert programs.train(run, **told) == 1
    ended = programs.ended(run)
    assert ended[0] == how
    assert re.search(message, ended[1]), ended[1]
    assert "\n" not in ended[1]
    assert programs.store.outcome(run) is None


def test_what_cannot_be_started_is_a_bad_recipe(programs: Programs) -> None:
    run = programs.registered(["no-such-program"])
    assert programs.train(run) == 1
    assert programs.ended(run) == ("bad-recipe", "'no-such-program' cannot be started: No such file or directory")
    programs.script(ONE_LINE)
    changed = programs.registered()
    programs.script(ONE_LINE + "print(2)\n")
    assert programs.train(changed) == 1
    how, message = programs.ended(changed)
    assert (how, "./train.py has changed" in message) == ("bad-recipe", True)
    programs.script("# another comment is the same program\n" + ONE_LINE)
    assert programs.train(changed, "--retry") == 0


ODD: dict[str, tuple[Any, str]] = {
    "nothing": ({}, "neither a command nor a function, or both"),
    "both": ({"command": ["true"], "function": "a:b"}, "neither a command nor a function, or both"),
    "no words": ({"command": []}, "program.command"),
    "a text": ("touch /tmp/x", "program"),
    "a text for a command": ({"command": "touch x"}, "program.command"),
    "a number in a command": ({"command": ["sh", 1]}, "program.command.1"),
    "a key": ({"command": ["true"], "shell": True}, "program.shell"),
    "a placeholder": ({"command": ["touch", "{x}"]}, "{x} is no parameter"),
    "an attribute": ({"command": ["touch", "{seed.__class__}"]}, "program.command"),
    "an open brace": ({"command": ["touch", "{seed"]}, "is no template"),
    "a function that is none": ({"function": "os.system('true')"}, "program.function"),
    "a lock": ({"command": ["true"], "lock": "../../x"}, "program.lock"),
}


@pytest.mark.parametrize("which", ODD)
def test_an_odd_recipe_json_starts_nothing_and_is_told(programs: Programs, which: str) -> None:
    """As somebody may write one by hand, with the id that belongs to it."""
    program, words = ODD[which]
    recipe = {"program": program, "parameters": {}, "data": {"id": None}, "seed": 0}
    run = run_id(recipe, {}, {})
    programs.store.register(run, recipe, {}, {})
    assert programs.train(run) == 1
    how, message = programs.ended(run)
    assert how == "bad-recipe", (how, message)
    assert words in message
    assert "\n" not in message
    assert "Traceback" not in programs.last(run).log.read_text()


def test_a_metric_that_is_not_finite_at_the_end_is_a_result(programs: Programs) -> None:
    programs.script(ONE_LINE.replace("}", '}\\n{"total": NaN}'))
    run = programs.registered()
    assert programs.train(run) == 0
    outcome = programs.outcome(run)
    assert (outcome["status"], outcome["reason"]) == ("diverged", "total is not finite at the end")


def test_a_run_that_others_only_start_from_needs_no_metrics(programs: Programs) -> None:
    run = programs.registered(["true"])
    assert programs.train(run, required=False) == 0
    assert programs.outcome(run)["status"] == "done"


# -- signals, kills ----------------------------------------------------------------------------------------------------


def test_an_interrupted_run_goes_on_where_it_saved(programs: Programs) -> None:
    run = epochs(programs, seconds=0.2)
    worker = programs.start(run)
    wait_for(lambda: programs.store.history(run))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == SAVED
    first = programs.last(run)
    assert programs.ended(run)[0] == "interrupted"
    assert first.progressed
    assert programs.train(run) == 0
    assert not first.kept.exists(), "one attempt alone has what is kept"
    assert [line["epoch"] for line in programs.store.history(run)] == [*range(10)]
    assert programs.outcome(run)["metrics"]["program"] == {"epoch": 9, "total": total()}


RESUMES = """
import json, os, sys
out, kept = os.environ["DEIT_ABLATE_RUN_DIR"], os.environ["DEIT_ABLATE_CHECKPOINT_DIR"]
start = int(open(kept + "/at").read()) if os.path.exists(kept + "/at") else 0
with open(out + "/log.jsonl", "a", buffering=1) as log:
    say = lambda **values: log.write(json.dumps(values) + "\\n")
    if sys.argv[1] == "header":
        say(weights=1000)
    for epoch in range(start, 4):
        if sys.argv[1] == "halves":
            say(epoch=epoch + 0.5, loss=1 / (epoch + 1))
        say(epoch=epoch + 1, total=epoch, **({"best": 5} if epoch == 0 else {}))
        open(kept + "/at", "w").write(str(epoch + 1))
        if epoch == 1 and start == 0:
            if sys.argv[2] == "kill":
                os.kill(os.getppid(), 9)
            sys.exit(75)
"""


@pytest.mark.parametrize("end", ["save", "kill"])
@pytest.mark.parametrize(
    ("lines", "expected"),
    [("plain", [1, 2, 3, 4]), ("header", [0, 1, 2, 2, 3, 4]), ("halves", [1, 1, 2, 2, 3, 3, 4, 4])],
)
def test_attempts_are_joined_by_the_epochs_that_they_say(
    programs: Programs, lines: str, expected: list[int], end: str
) -> None:
    programs.script(RESUMES)
    run = programs.registered(["python", "train.py", "{lines}", "{end}"], parameters={"lines": lines, "end": end})
    programs.train(run)
    first = programs.last(run)
    if end == "kill":
        wait_for(lambda: not processes_of(programs))
    assert programs.train(run) == 0
    assert [line["epoch"] for line in programs.store.history(run)] == expected
    outcome = programs.outcome(run)
    assert outcome["metrics"]["program"]["best"] == 5, "the first attempt's last value is the run's"
    assert outcome["cost"]["train_seconds"] > first.seconds > 0, "of both attempts"


def test_an_attempt_that_begins_anew_has_nothing_of_the_one_before(programs: Programs) -> None:
    programs.script(RESUMES)
    run = programs.registered(["python", "train.py", "header", "save"])
    assert programs.train(run) == SAVED
    first = programs.last(run)
    (first.kept / "at").unlink()
    (first.output / "log.jsonl").write_text('{"weights": 9}\n{"epoch": 1, "total": 9, "old": 1}\n')
    assert programs.train(run) == SAVED
    assert programs.train(run) == 0
    assert [line["epoch"] for line in programs.store.history(run)] == [0, 1, 2, 2, 3, 4]
    assert "old" not in programs.outcome(run)["metrics"]["program"]


DONE = """
import os, sys
import numpy as np
out, done = os.environ["DEIT_ABLATE_RUN_DIR"], os.environ["DEIT_ABLATE_CHECKPOINT_DIR"] + "/done"
if os.path.exists(done):
    open(out + "/args.txt", "w").write("new")
    sys.exit(0)
os.mkdir(out + "/weights")
for name in ("args.txt", "weights/last.pt"):
    open(out + "/" + name, "w").write("old")
np.savez(out + "/p.npz", targets=np.array([0, 1]), predictions=np.array([0, 1]))
open(out + "/" + sys.argv[1], "w").write('{"total": 1, "epoch": 1}\\n')
open(done, "w").write("")
sys.exit(75)
"""


@pytest.mark.parametrize("name", ["log.jsonl", "log.json"])
def test_an_attempt_that_finds_all_done_has_what_the_one_before_has_written(programs: Programs, name: str) -> None:
    programs.script(DONE)
    run, told = programs.registered(["python", "train.py", name]), {"file": f"{{run}}/{name}"}
    assert programs.train(run, predictions="{run}/p.npz", **told) == SAVED
    first = programs.last(run)
    assert programs.train(run, predictions="{run}/p.npz", **told) == 0
    outcome, weights = programs.outcome(run), programs.store.weights(run)
    assert outcome["metrics"]["program"] == {"total": 1, "epoch": 1}
    assert outcome["arrays_sha256"]
    assert outcome["cost"]["train_seconds"] > first.seconds
    assert weights is not None
    assert (weights / "weights" / "last.pt").read_text() == "old", "what a later stage starts from"
    assert (weights / "args.txt").read_text() == "new"


def test_exit_75_means_more_to_do_and_three_times_without_progress_a_failure(programs: Programs) -> None:
    programs.script("import sys\nsys.exit(75)\n")
    run = programs.registered()
    for _ in range(3):
        assert programs.train(run) == SAVED
        assert programs.ended(run)[0] == "interrupted"
    state = programs.store.states({run: []})[run]
    assert (state.name, state.detail) == ("failed", "no-progress")


SAYS_SO = "import os\nopen(os.environ['DEIT_ABLATE_RUN_DIR'] + '/ready', 'w')\n"


@pytest.mark.parametrize(
    ("script", "command"),
    [
        ("import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + SAYS_SO + "time.sleep(600)\n", None),
        (SAYS_SO + "import time\ntime.sleep(600)\n", None),
        (
            "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(0))\n"
            + ONE_LINE
            + SAYS_SO
            + "time.sleep(600)\n",
            None,
        ),
    ],
    ids=["ignores it", "dies of it", "ends well at once"],
)
def test_a_command_that_is_asked_to_stop_is_over_within_its_grace_and_not_done(
    programs: Programs, script: str, command: list[str] | None
) -> None:
    programs.script(script)
    run = programs.registered(command)
    worker = programs.start(run, grace=1)
    wait_for(lambda: programs.store.attempts(run) and (programs.last(run).output / "ready").exists())
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == SAVED
    assert programs.ended(run)[0] == "interrupted"
    assert programs.store.outcome(run) is None
    assert not processes_of(programs)


def test_what_a_shell_has_started_is_asked_to_stop_as_well(programs: Programs) -> None:
    programs.script(EPOCHS)
    programs.script("python train.py 0.1 0\necho over\n", "train.sh")
    run = programs.registered(["sh", "train.sh"])
    worker = programs.start(run, grace=30)
    wait_for(lambda: programs.store.history(run))
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == SAVED
    before = json.loads((programs.last(run).kept / "state.json").read_text())
    written = (programs.last(run).output / "log.jsonl").read_text().splitlines()
    assert before["epoch"] == len(written) < 10, "it had the time to save"
    assert not processes_of(programs)


def test_a_cancelled_run_is_left(programs: Programs) -> None:
    run = epochs(programs, seconds=0.2)
    worker = programs.start(run)
    wait_for(lambda: programs.store.history(run))
    programs.store.cancel(run)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(60) == 0
    assert programs.ended(run)[0] == "cancelled"


def test_of_two_workers_one_has_the_run(programs: Programs) -> None:
    run = epochs(programs, seconds=0.05)
    workers = [programs.start(run) for _ in range(2)]
    assert [worker.wait(60) for worker in workers] == [0, 0]
    assert len(programs.store.attempts(run)) == 1
    assert programs.outcome(run)["metrics"]["program"]["total"] == total()


def test_a_command_dies_with_its_worker_and_with_it_all_that_it_has_started(programs: Programs) -> None:
    programs.script("import subprocess\nsubprocess.run(['sleep', '600'])\n")
    run = programs.registered(["sh", "-c", "python train.py; echo over"])
    worker = programs.start(run)
    wait_for(lambda: len(processes_of(programs)) >= 3)
    worker.send_signal(signal.SIGKILL)
    worker.wait()
    wait_for(lambda: not processes_of(programs))


@pytest.mark.parametrize("seed", range(2))
def test_a_storm_of_kills_loses_no_run_and_doubles_none(programs: Programs, seed: int) -> None:
    run, draw = epochs(programs, seconds=0.03, seed=seed), random.Random(seed)
    kills = 0
    for _ in range(40):
        worker = programs.start(run)
        with contextlib.suppress(TimeoutError):
            worker.wait(draw.uniform(0.05, 0.5))
        if worker.poll() is None and kills < 8:
            worker.send_signal(draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
            kills += 1
        worker.wait(60)
        if programs.store.outcome(run):
            break
        wait_for(lambda: not processes_of(programs))
    assert programs.outcome(run)["metrics"]["program"] == {"epoch": 9, "total": total(seed=seed)}
    history = [(line["epoch"], line["metrics"]["total"]) for line in programs.store.history(run)]
    assert history == [(epoch, total(epoch + 1, seed)) for epoch in range(10)]
    assert sum(attempt.kept.exists() for attempt in programs.store.attempts(run)) == 1


def processes_of(programs: Programs) -> list[str]:
    """The living processes that were told a folder of this store for their output."""
    told, found = f"DEIT_ABLATE_RUN_DIR={programs.store.root}".encode(), []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if told in (path / "environ").read_bytes() and "State:\tZ" not in (path / "status").read_text():
                found.append((path / "cmdline").read_bytes().decode())
    return found


# -- what it costs -----------------------------------------------------------------------------------------------------


def test_neither_the_worker_of_a_command_nor_their_fork_server_imports_torch(programs: Programs) -> None:
    programs.script(ONE_LINE)
    run = programs.registered()
    arguments = programs.command(run)[3:]
    code = (
        "import sys; from deit_ablate.worker.__main__ import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "assert not {'torch', 'timm', 'pandas'} & sys.modules.keys(), 'torch'\n"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], env=environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    programs.outcome(run)
    serve = "import sys; from deit_ablate.worker.__main__ import main\nmain(['--serve', 'commands'])\n"
    serve += "assert not {'torch', 'timm'} & sys.modules.keys(), 'torch'\n"
    assert subprocess.run([sys.executable, "-c", serve], input=b"").returncode == 0
