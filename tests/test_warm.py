"""A child of the warm process is the process that it stands for: the same exit codes, signals and path. (Its runs have
the same bits: ``tests/cli/test_life.py``.)"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from support import COLD, wait_for

MODULE = """
import json, os, signal, sys, time
print(json.dumps([sys.argv[1:], os.getcwd(), os.environ["WORD"], sys.stdin.read(), __name__, os.getpid()]), flush=True)
if sys.argv[1:] == ["wait"]:
    time.sleep(600)
sys.exit({"5": 5, "none": None, "word": "a reason"}[sys.argv[1]])
"""


@pytest.fixture
def start(tmp_path: Path, warm_python: list[str]) -> Callable[..., subprocess.Popen[str]]:
    """Start the module above, warm or cold, in the folder in which it lies."""
    (tmp_path / "module.py").write_text(MODULE)

    def run(argument: str, python_m: list[str] = warm_python) -> subprocess.Popen[str]:
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            [*python_m, "module", argument],
            cwd=tmp_path,
            env={**os.environ, "WORD": "given"},
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
        )
        assert process.stdin
        process.stdin.write("asked")
        process.stdin.close()
        process.stdin = None
        return process

    return run


@pytest.mark.parametrize("argument", ["5", "none", "word", "unknown"])
def test_it_gets_and_gives_what_a_process_does(start: Callable[..., subprocess.Popen[str]], argument: str) -> None:
    (warm, warm_out, warm_err), (cold, cold_out, cold_err) = [
        (process, *process.communicate()) for process in (start(argument), start(argument, [*COLD]))
    ]
    assert warm.returncode == cold.returncode
    assert warm_out.rpartition(",")[0] == cold_out.rpartition(",")[0], "all but the process's number"
    assert warm_err.splitlines()[-1:] == cold_err.splitlines()[-1:]


@pytest.mark.parametrize("killed", ["client", "child"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_it_dies_with_whom_one_takes_for_it(
    start: Callable[..., subprocess.Popen[str]], number: int, killed: str
) -> None:
    process = start("wait")
    assert process.stdout
    pid = int(process.stdout.readline().rstrip("]\n").rpartition(",")[2])
    assert pid != process.pid
    os.kill(process.pid if killed == "client" else pid, number)
    process.communicate()
    assert process.returncode == -number
    wait_for(lambda: not Path(f"/proc/{pid}").exists())


def test_another_copy_of_the_package_is_what_is_run(tmp_path: Path, warm_python: list[str]) -> None:
    (tmp_path / "deit_ablate").mkdir()
    (tmp_path / "deit_ablate" / "__init__.py").touch()
    (tmp_path / "deit_ablate" / "__main__.py").write_text(
        "import sys; print('a copy', [name for name in sys.modules if name.startswith('deit_ablate')])"
    )
    done = subprocess.run([*warm_python, "deit_ablate"], cwd=tmp_path, stdout=subprocess.PIPE, text=True, check=True)
    assert done.stdout == "a copy ['deit_ablate']\n"
