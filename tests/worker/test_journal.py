"""What a worker resumes from, however the one before has ended."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from support import INTERRUPTED, result

from deit_ablate.launch.jobs import Report
from deit_ablate.store import Store


def test_damaged_checkpoints_and_torn_lines_are_survived(
    launch: Callable[..., Report], store: Store, sweep: Callable[..., Path], undisturbed: dict[str, object]
) -> None:
    path, run = sweep(INTERRUPTED), str(undisturbed["run"])
    launch(path, stop=lambda: bool(store.history(run)))
    if store.outcome(run) is None:
        last = store.attempts(run)[-1]
        whole = last.checkpoint.read_bytes()
        last.checkpoint.write_bytes(whole[: len(whole) // 2])
        with open(last.metrics, "ab") as handle:
            handle.write(b'{"epoch": 3, "tr')
        launch(path)
        log = store.attempts(run)[-1].log.read_text()
        assert "passed over" in log
        assert "ckpt.pt" in log
    assert result(store, run) == undisturbed["result"]
