"""How a worker starts: whatever lies beside the sweep, whatever a site prints, and what is said where it cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support import Command

from deit_ablate.store import Store

BANNER = """
import os, subprocess, sys
print("Welcome to the cluster")
os.write(1, b"\\x1e{a line that is cut")
subprocess.run(["echo", "-n", "Loading modules ..."])
"""
COUNT = """
class Count:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            with open(%r, "a") as file:
                print(os.getpid(), file=file)
sys.meta_path.insert(0, Count())
"""
CUSTOM = 'seeds: 1\nvariants:\n  a: {}\n  b: {augment: {custom: ["ours:same"]}}\n'
OURS = "def same(image, rng):\n    return image\n"


@pytest.fixture
def site(cold_command: Command) -> Path:
    """A folder on the path of every process that is started."""
    folder = cold_command.folder / "site"
    folder.mkdir()
    cold_command.environment["PYTHONPATH"] = str(folder)
    return folder


def test_neither_a_file_beside_a_sweep_nor_what_a_site_prints_is_taken_for_ours(
    cold_command: Command, sweep: Callable[..., Path], site: Path
) -> None:
    """In no process: names, the server, its children, verify, the pages. No file there is taken for a module of the
    standard library or of a library, and nothing printed at a start for an answer; a run imports torch once."""
    for name in ("token", "html", "random", "json", "pathlib", "torch", "timm", "numpy", "argparse"):
        (cold_command.folder / f"{name}.py").write_text("raise RuntimeError('a file of the user was executed')")
    imported = cold_command.folder / "imported"
    (site / "sitecustomize.py").write_text(BANNER + COUNT % str(imported))
    # Like no module before, or an answer about it may have been kept.
    (site / "ours.py").write_text(f"print('thanks for choosing ours')\nPLACE = {str(site)!r}\n" + OURS)
    sweep(CUSTOM)
    cold_command("run", "tiny.yaml")
    assert len(imported.read_text().split()) == 1, "the process that answers about names goes on to fork the runs"
    store = Store(cold_command.folder / "results")
    assert all(store.outcome(run) for run in store.runs())
    verified = cold_command("verify", "tiny:a:0", "tiny:b:0")
    assert verified.stdout.count("agrees exactly") == 2
    assert "Loading modules ..." in verified.stderr, "what is no answer is shown"
    cold_command("report", "tiny")


def test_a_module_beside_a_sweep_is_found_on_pythonpath_alone(
    cold_command: Command, command: Command, sweep: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    (cold_command.folder / "ours.py").write_text(OURS)
    sweep(CUSTOM)
    refused = cold_command("plan", "tiny.yaml", code=2)
    assert "ours:same: cannot find 'ours'; install it, or add its folder to PYTHONPATH" in refused.stderr
    monkeypatch.setenv("PYTHONPATH", ".")
    command("plan", "tiny.yaml")


@pytest.mark.parametrize(
    ("happens", "says"),
    [
        ("print('no licence for this host'); sys.stdout.flush(); os._exit(3)", "ended with exit code 3"),
        ("os._exit(0)", "ended with exit code 0"),
        ("sys.exit('no licence for this host')", "ended with exit code 1"),
        ("os.kill(os.getpid(), 9)", "was killed by signal 9"),
        ("sys.modules['torch'] = None", "ended with exit code 1"),
    ],
)
@pytest.mark.parametrize("mode", ["--serve", "names"])
def test_a_worker_that_cannot_start_is_one_error(
    cold_command: Command, sweep: Callable[..., Path], site: Path, happens: str, says: str, mode: str
) -> None:
    (site / "sitecustomize.py").write_text(f"import os, sys\nif {mode!r} in sys.orig_argv: {happens}\n")
    (site / "ours.py").write_text(OURS)
    sweep(CUSTOM if mode == "names" else "seeds: 1\nvariants: {a: {}}\n")  # names are asked for of custom ones alone
    refused = cold_command("plan" if mode == "names" else "run", "tiny.yaml", code=2)
    first, *more = refused.stderr.splitlines()
    assert first.startswith(f"error: the worker process, which imports torch and timm, {says}")
    assert all(line.startswith("    | ") for line in more), refused.stderr
    assert ("no licence for this host" if "licence" in happens else "") in refused.stderr
    assert ("ModuleNotFoundError" if "torch" in happens else "") in refused.stderr
    assert not (cold_command.folder / "results").exists()


def test_a_worker_command_that_does_not_exist_is_one_error(cold_command: Command, sweep: Callable[..., Path]) -> None:
    cold_command.environment["DEIT_ABLATE_WORKER"] = "no-such-program run"
    sweep("seeds: 1\nvariants: {a: {}}\n")
    refused = cold_command("run", "tiny.yaml", code=2)
    assert "cannot be started" in refused.stderr
    assert "no-such-program" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
