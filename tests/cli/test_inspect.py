"""The commands that show what the store holds."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path

from support import COLD, Command, planned

from deit_ablate.store import Store


def test_a_hostile_log_cannot_drive_the_terminal(command: Command, alone: tuple[Store, str]) -> None:
    store, run = alone
    attempt = store.claim(run)
    turned = "abc\u202edcba\u2066 \u200bé \U0001f468\u200d\U0001f469\n".encode()
    attempt.log.write_bytes(b"\x1b]0;owned\x07\x1b[2Jred\x9b31m\nnext \xff line\n" + turned)
    attempt.close("crash")
    out = command("logs", run).stdout
    assert "abc\ufffddcba\ufffd \ufffdé \U0001f468\u200d\U0001f469" in out
    assert not any(ord(character) < 32 and character != "\n" for character in out)
    assert "next" in out


def test_following_goes_on_with_the_next_attempt_and_ends_with_the_run(
    command: Command, alone: tuple[Store, str]
) -> None:
    store, run = alone
    code = "import sys; from deit_ablate.store import Store\n"
    code += "Store(sys.argv[1]).claim(sys.argv[2]).log.write_text('last words\\n')"
    subprocess.run([sys.executable, "-c", code, str(store.root), run], check=True)
    process = command.start("logs", run, "-f", to_kill=False)
    assert process.stdout
    told = [process.stdout.readline() for _ in range(2)]
    assert told == [
        "last words\n",
        "--- attempt 1 ended: its process is gone; waiting for the next (Ctrl-C ends) ---\n",
    ]
    attempt = store.claim(run)
    attempt.log.write_text("second words\n")
    attempt.close("crash")
    assert process.communicate(timeout=60)[0] == "--- attempt 2 ---\nsecond words\n"


def test_a_prefix_names_a_run_when_it_names_one(command: Command, alone: tuple[Store, str]) -> None:
    _, run = alone
    assert f"{run}" in command("show", run[:6]).stdout
    assert "no run or sweep" in command("show", run[:3], code=2).stderr


def test_a_watch_prints_what_has_changed_and_ends_at_ctrl_c(
    command: Command, sweep: Callable[..., Path], store: Store
) -> None:
    plan = planned(sweep("seeds: 2\nvariants: {a: {}}\n"))
    store.sweeps.save_plan("tiny", plan.document("tiny.yaml"))
    process = command.start("status", "tiny", "--watch", "0.1")
    assert process.stdout
    lines = iter(process.stdout.readline, "")
    first = [next(lines).split() for _ in range(4)]
    runs = [cell.run for cell in plan.cells]
    assert first == [
        ["name", "run", "state"],
        ["a:0", runs[0], "missing"],
        ["a:1", runs[1], "missing"],
        ["2", "missing"],
    ]
    store.cancel(runs[1])
    assert [next(lines).split() for _ in range(2)] == [
        ["a:1", runs[1], "cancelled"],
        ["1", "missing,", "1", "cancelled"],
    ]
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == command("status", "tiny").returncode == 0
    assert process.stdout.read() == ""


def test_a_watch_on_a_terminal_is_one_block(command: Command, sweep: Callable[..., Path], store: Store) -> None:
    plan = planned(sweep("seeds: 1\nvariants: {a: {}}\n"))
    store.sweeps.save_plan("tiny", plan.document("tiny.yaml"))
    ours, theirs = os.openpty()
    termios.tcsetwinsize(ours, (24, 100))
    process = subprocess.Popen(
        [*COLD, "deit_ablate", "status", "tiny", "--watch"],
        cwd=command.folder,
        env={**os.environ, "TERM": "xterm"},
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    while b"missing" not in shown.partition(b"a:0")[2]:
        assert select.select([ours], [], [], 60)[0], shown
        shown += os.read(ours, 4096)
    assert plan.cells[0].run.encode() in shown
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0
    os.close(ours)


def test_a_watch_is_of_a_sweep_that_is_there(command: Command) -> None:
    assert "no sweep 'tiny'" in command("status", "tiny", "--watch", code=2).stderr
    assert "--json without it" in command("status", "--watch", "--json", code=2).stderr
