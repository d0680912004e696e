"""Where a worker's words go: its attempt's log, and the terminal where it runs in the foreground."""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
from pathlib import Path

from deit_ablate import files


def log_to(path: Path, *, and_here: bool = False) -> None:
    """Send all that this process prints to its log; in the foreground to the terminal as well."""
    sys.stdout.flush()
    sys.stderr.flush()
    if and_here:
        # In a session of its own, so that Ctrl-C ends the training and not its log.
        tee = subprocess.Popen(["tee", "-a", str(path)], stdin=subprocess.PIPE, start_new_session=True)
        assert tee.stdin
        handle = os.dup(tee.stdin.fileno())
        tee.stdin.close()
        atexit.register(_end_log, tee)
    else:
        handle = files.open_to_append(path)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    os.close(handle)


def _end_log(tee: subprocess.Popen[bytes]) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    tee.wait()
