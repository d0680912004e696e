"""The heartbeat of an attempt, whatever trains it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

BEAT_SECONDS = 30.0


@contextlib.contextmanager
def beating(beat: Callable[[], None]) -> Iterator[None]:
    """Call ``beat`` in a thread of its own, now and every so often, until the block ends. A full disk is the trainer's
    to report: an OSError of a beat is passed over."""
    ended = threading.Event()

    def repeat() -> None:
        while True:
            with contextlib.suppress(OSError):
                beat()
            if ended.wait(BEAT_SECONDS):
                return

    thread = threading.Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
