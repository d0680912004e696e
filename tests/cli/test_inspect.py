"""The commands that show what the store holds."""

from __future__ import annotations

import subprocess
import sys

from support import Command

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


def test_following_ends_when_the_process_is_gone(command: Command, alone: tuple[Store, str]) -> None:
    store, run = alone
    code = "import sys; from deit_ablate.store import Store\n"
    code += "Store(sys.argv[1]).claim(sys.argv[2]).log.write_text('last words')"
    subprocess.run([sys.executable, "-c", code, str(store.root), run], check=True)
    assert "last words" in command("logs", run, "-f", timeout=20).stdout


def test_a_prefix_names_a_run_when_it_names_one(command: Command, alone: tuple[Store, str]) -> None:
    _, run = alone
    assert f"{run}" in command("show", run[:6]).stdout
    assert "no run or sweep" in command("show", run[:3], code=2).stderr
