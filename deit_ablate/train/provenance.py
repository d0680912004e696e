"""Where a result comes from: the code, the packages and the machine."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from deit_ablate import __version__


@functools.cache
def provenance() -> dict[str, Any]:
    """The code and the packages that carry this run."""
    packages = ("torch", "torchvision", "timm", "numpy", "pillow")
    return {
        "version": __version__,
        "python": platform.python_version(),
        "packages": {name: importlib.metadata.version(name) for name in packages},
        "git": _git(),
    }


def _git() -> dict[str, Any] | None:
    """Commit and uncommitted changes of the checkout that this code runs from, or None where it is installed."""
    here = Path(__file__).resolve().parent
    about = here.parents[1] / "about.json"
    if about.is_file():
        copied: dict[str, Any] = json.loads(about.read_text())  # a snapshot that was made for a job
        return copied

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here), *arguments], capture_output=True, text=True, check=True, timeout=20
        ).stdout

    try:
        if not git("ls-files", "--", "provenance.py").strip():
            return None
        diff = git("diff", "HEAD", "--", str(here.parent))
        return {"commit": git("rev-parse", "HEAD").strip(), "dirty": bool(diff), "diff": diff[:100_000]}
    except (OSError, subprocess.SubprocessError):
        return None


def hardware(device: str) -> dict[str, Any]:
    cpu = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    gpu = torch.cuda.get_device_name() if device.startswith("cuda") else None
    return {
        "host": platform.node(),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "gpu": gpu,
        "threads": torch.get_num_threads(),
        "capability": torch.backends.cpu.get_cpu_capability(),
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []
