"""The commands that change what the store holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from support import Command, planned, wait_for

from deit_ablate.store import Store, owner


def test_release_is_for_what_nobody_can_prove(
    command: Command, alone: tuple[Store, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, run = alone
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(
            owner, "machine", lambda: {"host": "node1", "machine": "m", "boot": "b", "pid_namespace": "p"}
        )
        store.claim(run)
    assert "may still be alive" in command("forget", run, "--yes", code=2).stderr
    assert "released" in command("release", run, "--yes").stdout
    assert "no attempt" in command("release", run, "--yes", code=2).stderr
    store.claim(run)  # this process, which lives
    assert "is alive on this machine" in command("release", run, "--yes", code=2).stderr


def test_cancel_retry_and_a_removed_row(command: Command, sweep: Callable[..., Path]) -> None:
    path = sweep("seeds: 1\nvariants:\n  quick: {}\n  slow: {schedule.epochs: 5000}\n")
    store = Store(command.folder / "results")
    running = command.start("run", "tiny.yaml")
    slow = next(cell.run for cell in planned(path).cells if cell.variant == "slow")
    wait_for(lambda: store.history(slow))
    assert "cancelled" in command("cancel", "tiny:slow").stdout
    out, _ = running.communicate(timeout=60)
    assert running.returncode == 1, out
    assert store.attempts(slow)[-1].exit["class"] == "cancelled"  # type: ignore[index]
    assert "cancelled" in command("status", "tiny").stdout
    assert command("run", "tiny.yaml", code=1).stdout.count("started") == 0
    path.write_text(path.read_text().replace("  slow:", "  other: {augment.mixup: 0}\n  # slow:"))
    assert "all 2 runs" not in command("run", "tiny.yaml").stdout
    assert (store.run(slow) / "recipe.json").exists(), "a removed row's run stays"
    assert command("status", "tiny").stdout.count("slow") == 0
