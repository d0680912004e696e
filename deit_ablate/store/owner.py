"""Who executes an attempt, and when it is proven that it does so no more.

A heartbeat's age proves nothing (a stopped or suspended process lives on), so a takeover needs one of:
the process is absent, or a zombie, where it was started (same boot, same pid namespace); the machine has
booted since; or the same scheduler job has been restarted.
"""

from __future__ import annotations

import contextlib
import functools
import getpass
import os
import platform
import secrets
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


KEPT = "kept"
"""The nonce of an attempt that came with kept records: no process has ever executed it here."""


MARK = "DEIT_ABLATE_OWNER"
"""The variable by which a command, and all that it starts, is known as an attempt's: the nonce of its owner."""
END_SECONDS = 30.0


@functools.cache
def machine() -> dict[str, str]:
    """What tells this machine, this boot and this pid namespace from all others ("" where not known)."""
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        namespace = ""
    # The host's name guards against cloned images that share one machine-id.
    return {
        "host": platform.node(),
        "machine": _read("/etc/machine-id") or _read("/var/lib/dbus/machine-id"),
        "boot": _read("/proc/sys/kernel/random/boot_id"),
        "pid_namespace": namespace,
    }


def start_time(pid: int) -> str | None:
    """The start of a process in clock ticks since boot; None where it is absent or a zombie."""
    stat = _read(f"/proc/{pid}/stat")
    if not stat:
        return None
    state, *rest = stat.rpartition(")")[2].split()
    return None if state in "ZX" else rest[18]


def job() -> dict[str, Any] | None:
    """The scheduler's job around this process, how often it was restarted, and its name in a listing of jobs."""
    if "SLURM_JOB_ID" not in os.environ:
        return None
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return {
        "id": os.environ["SLURM_JOB_ID"],
        "restarts": int(os.environ.get("SLURM_RESTART_COUNT", "0") or 0),
        "element": f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"],
        "cluster": os.environ.get("SLURM_CLUSTER_NAME", ""),
        "user": getpass.getuser(),
    }


def identify() -> dict[str, Any]:
    """This process as the owner of an attempt; the nonce makes each claim unlike any other."""
    pid = os.getpid()
    return {"nonce": secrets.token_hex(8), **machine(), "pid": pid, "started": start_time(pid), "job": job()}


def same_place(owner: dict[str, Any]) -> bool:
    """Whether the owner's pid means something here: same boot and pid namespace."""
    here = machine()
    return bool(here["boot"]) and all(owner.get(key) == here[key] for key in ("boot", "pid_namespace"))


def provably_gone(owner: dict[str, Any]) -> bool:
    """True only where it is certain that this owner runs no more."""
    if owner.get("nonce") == KEPT:
        return True
    here = machine()
    if same_place(owner):
        return start_time(owner["pid"]) != owner["started"]
    known = bool(here["machine"]) and all(owner.get(key) == here[key] for key in ("machine", "host"))
    if known and owner.get("boot") and owner["boot"] != here["boot"]:
        return True
    this, that = job(), owner.get("job")
    return bool(this and that and this["id"] == that["id"] and this["restarts"] > that["restarts"])


def processes(nonce: str) -> list[int]:
    """The processes of this machine that an attempt's command has started, with itself: those told its ``MARK``. None
    where there is no /proc."""
    mark, found = f"{MARK}={nonce}".encode(), []
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdecimal() and int(name) != os.getpid():
            try:
                told = Path("/proc", name, "environ").read_bytes().split(b"\0")
            except OSError:  # another user's, or gone
                continue
            if mark in told and start_time(int(name)) is not None:
                found.append(int(name))
    return found


def end_processes(owner: Mapping[str, Any]) -> bool:
    """Kill what the command of an attempt has left running here; False where something of it cannot be killed.

    A kernel kills a command with its worker, but not what the command has started in turn.
    """
    if owner.get("nonce") in (None, KEPT) or not same_place(dict(owner)):
        return True
    deadline = time.monotonic() + END_SECONDS
    while left := processes(owner["nonce"]):  # until none is there: one may have started another meanwhile
        if time.monotonic() > deadline:
            return False
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.01)
    return True
