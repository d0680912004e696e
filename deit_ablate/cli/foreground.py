"""Training one run in the foreground, for `train` and `reproduce`: whether it can start, and what its end means."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping
from typing import Any

from deit_ablate.cli import console
from deit_ablate.cli.options import command_line
from deit_ablate.execution import SAVED, Execution
from deit_ablate.launch import status
from deit_ablate.launch.jobs import Job
from deit_ablate.launch.policy import refuse_lost_weights
from deit_ablate.launch.pool import foreground
from deit_ablate.launch.preflight import keep_weights
from deit_ablate.store import State, Store
from deit_ablate.sweep.plan import Run


def train_one(run: Run, runs: Mapping[str, Run], store: Store, how: Execution, out: Any = None) -> int:
    """Train a run to its end; ``runs``: with all that it stands on. The exit code: 0 where there is an outcome, 75
    where the same command goes on later, another where a user has to act. Raises InputError where the weights of a
    parent are gone."""
    states = status.states(store, {each.id: each.above for each in runs.values()})
    if code := _not_now(run, states, store):
        return code
    refuse_lost_weights({run.id: run}, {}, states, store, frozenset([run.id]))
    keep_weights([run], store)
    store.register(run.id, run.recipe, run.parents, run.sources)
    status.close_if_gone(store, run.id)
    print(f"run {run.id}", file=out, flush=True)
    code = foreground(Job(str(store.root), run.id, how, retry=True, command=command_line()), out)
    if store.outcome(run.id):
        return 0
    if code == 0:  # the worker has left it to another, or a user has cancelled it meanwhile
        return 1 if store.cancelled(run.id) else SAVED
    if code < 0:
        print(f"the worker was killed by signal {-code}", file=sys.stderr)
        return SAVED if -code in (signal.SIGINT, signal.SIGTERM) else 1  # before it could answer: nothing was begun
    return code


def _not_now(alone: Run, states: Mapping[str, State], store: Store) -> int:
    """The exit code where a run cannot start as things stand, with a word on it; 0 where it can."""
    problem, code = "", SAVED
    for parent in alone.above:
        if states[parent].stops_children:
            problem, code = f"its parent {parent} is {states[parent]}", 1
        elif not states[parent].finished:
            problem = f"its parent {parent} has not finished"
    if states[alone.id].name == "cancelled":
        problem, code = f"cancelled; `deit-ablate retry {alone.id}` lifts that", 1
    elif states[alone.id].name == "running":
        last = store.attempts(alone.id)[-1]
        problem, code = f"attempt {last.number} on {last.owner.get('host')} has not ended", SAVED
    if problem:
        console.say(f"{alone.id}: {problem}", out=sys.stderr)
    return code if problem else 0
