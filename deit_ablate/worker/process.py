"""A command as a process: it is asked to stop, and ends with its worker, however that ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence

GUARD = 'read -r group || exit 0; read -r over || kill -s KILL -- "-$group"'
"""Told a process group and, once that is over, so. Its input ends before that where its worker was killed, and then it
kills the group: a command that is left over would train beside that of the next attempt."""


class CommandProcess:
    """A command in a session (and process group) of its own, with all that it starts there."""

    def __init__(self, arguments: Sequence[str], folder: str, environment: Mapping[str, str]) -> None:
        """Raises OSError or ValueError where it cannot be started."""
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._told: float | None = None
        self._told_all = False
        try:
            self._process = subprocess.Popen(
                arguments, cwd=folder, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
            )
        except BaseException:
            self._guard.communicate()
            raise
        assert self._guard.stdin
        with contextlib.suppress(OSError):
            self._guard.stdin.write(f"{self._process.pid}\n".encode())
            self._guard.stdin.flush()

    @property
    def told(self) -> bool:
        """Whether it was asked to stop."""
        return self._told is not None

    def ask_to_stop(self) -> None:
        """SIGTERM to the command itself: one that reaches the loading processes of a PyTorch script too makes it crash
        in place of saving. Where it ends before what it has started (as a shell does), that is asked as well."""
        if self._told is None:
            self._told = time.monotonic()
            if self._process.poll() is None:
                self._process.terminate()

    def over(self, seconds: float, grace: float) -> bool:
        """Wait up to so many seconds; whether it has ended, and, where it was asked to, all that it had started. What
        has been asked for longer than ``grace`` seconds is killed."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        if self._told is None:
            return self._process.returncode is not None
        if time.monotonic() - self._told > grace:
            self._signal(signal.SIGKILL)
            self._process.wait()
            return True
        if self._process.returncode is None:
            return False
        if not self._signal(0):
            return True
        if not self._told_all:
            self._told_all = self._signal(signal.SIGTERM)
        time.sleep(min(seconds, 0.05))
        return False

    def close(self) -> int:
        """Kill what is left, if anything is; returns the exit code of the command, or minus the signal."""
        self._signal(signal.SIGKILL)
        code = self._process.wait()
        self._guard.communicate(b"over\n")
        return code

    def _signal(self, number: int) -> bool:
        """To all of its group; whether there is any."""
        try:
            os.killpg(self._process.pid, number)
        except (ProcessLookupError, PermissionError):  # the latter on macOS, of a group that has ended
            return False
        return True
