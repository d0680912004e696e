"""Fork a child for each request: a warm process that has imported what children need, and never computes.

Requests are JSON lines on stdin: {"token", "argv", "environment"}. Answers (see ``execution.answer_line``) are
{"token", "pid"} and, at the end, {"token", "code"} (the exit code, or minus the signal). The server ends when its stdin
closes; children that run then finish by themselves.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import selectors
import signal
import sys
import traceback
from collections.abc import Callable
from typing import IO, Any, NoReturn

from deit_ablate.execution import answer_line

HELD = frozenset({signal.SIGTERM, signal.SIGINT})
"""Signals that a child starts with blocked: its ``main`` unblocks them once it has handlers."""


def serve(main: Callable[[list[str]], int], prepare: Callable[[list[str]], None], answers: IO[bytes]) -> int:
    """Serve until stdin closes. ``main`` is what a child runs; ``prepare`` is called before each fork, with the same
    arguments."""
    gc.collect()
    gc.freeze()  # children share these pages instead of copying them at their first collection
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(reader, selectors.EVENT_READ)
    children: dict[int, int] = {}
    partial = b""

    def say(message: dict[str, Any]) -> None:
        answers.write(answer_line(message))
        answers.flush()

    while True:
        for key, _ in selector.select():
            if key.fd == reader:
                os.read(reader, 4096)
                while children:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                    if pid == 0:
                        break
                    say({"token": children.pop(pid), "code": os.waitstatus_to_exitcode(status)})
                continue
            chunk = os.read(0, 65536)
            if not chunk:
                return 0
            *lines, partial = (partial + chunk).split(b"\n")
            for request in map(json.loads, lines):
                prepare(request["argv"])
                # Held back until the child can answer them: a signal in its first moments must not just kill it.
                signal.pthread_sigmask(signal.SIG_BLOCK, HELD)
                pid = os.fork()
                if pid == 0:
                    _become_child(request, main, answers)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD)
                children[pid] = request["token"]
                say({"token": request["token"], "pid": pid})


def _become_child(request: dict[str, Any], main: Callable[[list[str]], int], answers: IO[bytes]) -> NoReturn:
    """In the forked child: leave the server's session and pipes behind, run, and never return."""
    code = 1
    try:
        answers.close()
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(request["environment"])
        code = main(request["argv"])
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
