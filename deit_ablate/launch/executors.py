"""Executors: what makes a job happen. A job is one run's worker command; an executor starts it and says how it ended.

To add one: a class with the methods of ``Executor`` and a line in ``EXECUTORS``.
"""

from __future__ import annotations

from collections.abc import Callable

from deit_ablate.launch.jobs import Ended, Executor, Job, worker_arguments
from deit_ablate.launch.pool import LocalExecutor, foreground, may_have_gpu

__all__ = ["EXECUTORS", "Ended", "Executor", "Job", "LocalExecutor", "foreground", "may_have_gpu", "worker_arguments"]

EXECUTORS: dict[str, Callable[..., Executor]] = {"local": LocalExecutor}
