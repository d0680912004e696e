"""The store itself: all names under ``results/``."""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import re
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from deit_ablate import files
from deit_ablate.errors import Damaged, InputError
from deit_ablate.identity import run_id, semantics_here
from deit_ablate.store import index, owner, schema
from deit_ablate.store.attempt import Attempt, Refused, State, failure
from deit_ablate.store.schema import SCHEMA
from deit_ablate.store.sweeps import Sweeps
from deit_ablate.store.weights import TeacherWeights

_RUN = re.compile(r"[0-9a-f]{16}\Z")
_ATTEMPT = re.compile(r"a(\d{4,})\Z")


class Store:
    def __init__(self, root: Path | str):
        """Raises NotADirectoryError where ``root`` is something else than a folder."""
        self.root = Path(root)
        if self.root.exists() and not self.root.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(root))
        self.sweeps = Sweeps(self)
        self.teacher_weights = TeacherWeights(self.root)

    @functools.cached_property
    def index(self) -> index.Index:
        return index.Index(self)

    # -- runs ---------------------------------------------------------------------------------------------

    def run(self, run: str) -> Path:
        return self.root / "runs" / run

    def runs(self) -> set[str]:
        """The ids of all runs that have a folder."""
        try:
            with os.scandir(self.root / "runs") as entries:
                return {entry.name for entry in entries if _RUN.match(entry.name)}
        except FileNotFoundError:
            return set()

    def register(
        self, run: str, recipe: Mapping[str, Any], parents: Mapping[str, Any], sources: Mapping[str, str]
    ) -> None:
        """Write a run's recipe, before it is first started; what stands already is left as it is.

        Raises InputError where the recipe means another training here than in the version that gave it this id.
        """
        semantics = semantics_here(recipe)
        if run != run_id(recipe, parents, sources):
            raise InputError(
                f"{run} was planned by a version in which its recipe means another training: it cannot be trained here",
                where=str(self.run(run) / "recipe.json"),
                expected=f"a run of SEMANTICS {semantics} (plan its sweep again), or the version that planned it",
            )
        path = self.run(run) / "recipe.json"
        if not path.exists():
            files.make_folder(path.parent)
            content = {"recipe": recipe, "parents": parents, "sources": sources}
            files.publish(path, files.to_json({"schema": SCHEMA, "run": run, "semantics": semantics, **content}))

    def trash(self) -> Path:
        """Where forgotten runs go. Raises Damaged where it is a link."""
        folder = self.root / "trash"
        if folder.is_symlink():
            raise Damaged(folder, "a link, which is not followed", expected="a folder of the store")
        return files.make_folder(folder)

    def recipe(self, run: str) -> dict[str, Any] | None:
        """What recipe.json holds, or None where the run was never started. Raises Damaged, also where it is another
        run's."""
        path = self.run(run) / "recipe.json"
        if (stored := schema.read(path, schema.Recipe)) is not None:
            schema.must_belong(path, stored, run)
        return stored

    def sound_recipe(self, run: str) -> dict[str, Any] | None:
        """The same; None where it is damaged, too."""
        try:
            return self.recipe(run)
        except Damaged:
            return None

    def lineage(self, run: str) -> list[str]:
        """A run with all that it depends on, parents first. Raises Damaged."""
        found: dict[str, None] = {}
        for parent in (self.recipe(run) or {"parents": {}})["parents"].values():
            found |= dict.fromkeys(self.lineage(parent["run"]))
        return [*found, run]

    def outcome(self, run: str) -> dict[str, Any] | None:
        """What outcome.json holds, or None where the run has not finished. Raises Damaged, also where it is another
        run's, or names an attempt that there is not."""
        path = self.run(run) / "outcome.json"
        if (outcome := schema.read(path, schema.Outcome)) is not None:
            if outcome["run"] != run:
                raise Damaged(path, f"it is the outcome of the run {outcome['run']}")
            if not self.attempt(run, outcome["attempt"]).path.is_dir():
                raise Damaged(path, f"it names attempt {outcome['attempt']}, which there is not")
        return outcome

    def result(self, run: str) -> dict[str, Any] | None:
        """The outcome of a run that is done or diverged; None for any other, a damaged one among them."""
        try:
            return self.outcome(run) if self.sound_recipe(run) else None
        except Damaged:
            return None

    def damage(self, run: str) -> Damaged | None:
        """What makes a run damaged, if it is."""
        try:
            self._state(run, {}, self._names(run))
        except Damaged as damage:
            return damage
        return None

    def attempt(self, run: str, number: int) -> Attempt:
        return Attempt(number, self.run(run) / f"a{number:04d}")

    def attempts(self, run: str) -> list[Attempt]:
        """All attempts, lowest first; a folder without an owner is none."""
        return self._attempts(run, self._names(run))

    def _names(self, run: str) -> list[str]:
        try:
            return os.listdir(self.run(run))
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _attempts(self, run: str, names: Sequence[str]) -> list[Attempt]:
        numbers = sorted(int(match[1]) for match in map(_ATTEMPT.match, names) if match)
        every = (self.attempt(run, number) for number in numbers)
        return [attempt for attempt in every if (attempt.path / "owner.json").exists()]

    def history(self, run: str) -> list[dict[str, Any]]:
        """A run's epochs: the lines of the attempt that the outcome names, else of the latest one. Raises Damaged."""
        outcome, attempts = self.outcome(run), self.attempts(run)
        chosen = [a for a in attempts if outcome and a.number == outcome["attempt"]] or attempts[-1:]
        return schema.read_lines(chosen[0].metrics, schema.Epoch) if chosen else []

    def sound_history(self, run: str) -> list[dict[str, Any]]:
        """The same; none, and a warning, where it is damaged."""
        try:
            return self.history(run)
        except Damaged as damage:
            warnings.warn(f"left out: {damage}", stacklevel=2)
            return []

    def checkpoints(self, run: str) -> list[Path]:
        """Every checkpoint file of every attempt, the latest attempt's first."""
        found = [a.path / name for a in reversed(self.attempts(run)) for name in ("ckpt.pt", "ckpt.prev")]
        return [path for path in found if path.exists()]

    def weights(self, run: str) -> Path | None:
        """The final checkpoint of a finished run, of a program's the folder of its output; None where it is not
        finished, or they are gone."""
        outcome = self.outcome(run)
        if outcome is None:
            return None
        attempt = self.attempt(run, outcome["attempt"])
        return next((path for path in (attempt.checkpoint, attempt.output) if path.exists()), None)

    # -- claims -------------------------------------------------------------------------------------------

    def claim(self, run: str, *, retry: bool = False, **execution: Any) -> Attempt:
        """Become the owner of a run. Raises Refused where it is over, cancelled or has another living owner.

        ``retry`` starts the budgets of failures anew; ``execution`` is recorded with the owner.
        """
        self._must_be_open(run)
        attempts = self.attempts(run)
        if attempts and attempts[-1].exit is None:
            last = attempts[-1]
            if not owner.provably_gone(last.owner):
                raise Refused(f"attempt {last.number} on {last.owner.get('host')} has not ended")
            last.close("interrupted", "its process was gone when the next attempt began")
        number = attempts[-1].number + 1 if attempts else 1
        attempt = self.attempt(run, number)
        files.make_folder(attempt.path)
        me = {"schema": SCHEMA, **owner.identify(), "time": time.time(), "retry": retry, **execution}
        if (
            not files.publish(attempt.path / "owner.json", files.to_json(me))
            and attempt.owner.get("nonce") != me["nonce"]
        ):
            raise Refused(f"another process claimed attempt {number} first")
        try:
            # The second look: between the first and the link another may have finished, cancelled or gone on.
            self._must_be_open(run)
            if self.attempts(run)[-1].number > number:
                raise Refused("a later attempt exists")
        except Refused as refusal:
            attempt.close("superseded", str(refusal))
            raise
        return attempt

    def _must_be_open(self, run: str) -> None:
        if (self.run(run) / "outcome.json").exists():
            raise Refused("already finished")
        if self.cancelled(run):
            raise Refused("cancelled")

    def overtaken(self, run: str, attempt: Attempt) -> str | None:
        """Why this attempt should end itself, or None: asked at every beat, checkpoint and before publishing."""
        if (self.run(run) / "outcome.json").exists():
            return "superseded"
        if (self.attempt(run, attempt.number + 1).path / "owner.json").exists():
            return "superseded"
        if self.cancelled(run):
            return "cancelled"
        with contextlib.suppress(Damaged):  # what cannot be read asks for nothing
            paused = schema.read(self.run(run) / "pause.json", schema.Pause)
            return "paused" if paused and paused["attempt"] == attempt.number else None
        return None

    def finish(self, run: str, attempt: Attempt, outcome: Mapping[str, Any]) -> bool:
        """Publish the outcome, terminal and once; False where another attempt's stands already."""
        content = {"schema": SCHEMA, "run": run, "attempt": attempt.number, **outcome}
        return files.publish(self.run(run) / "outcome.json", files.to_json(content))

    # -- states -------------------------------------------------------------------------------------------

    def states(
        self,
        parents: Mapping[str, Sequence[str]],
        *,
        submitted: Mapping[str, str] | None = None,
        refuted: Mapping[str, int] | None = None,
        held: bool = False,
        known: Mapping[str, State] | None = None,
        learn: bool = False,
    ) -> dict[str, State]:
        """The state of each run; ``parents`` maps a run to its parents' ids and lists parents first.

        ``submitted``: runs that wait at a scheduler, with what it says of them; ``refuted``: the last attempt at a run
        that is known to be over though nothing on disk says so; ``held``: the sweep is; ``known``: states of finished
        runs, which are then not looked at; ``learn``: whether the index is to learn of finished ones.
        """
        present, submitted, refuted, known = self.runs(), submitted or {}, refuted or {}, {**(known or {})}
        if learn or len(parents) >= index.WORTH_AN_INDEX:
            for run in present.intersection(parents).difference(known):
                if state := self.index.state(run, learn=learn):
                    known[run] = state
        states: dict[str, State] = {}
        for run, above in parents.items():
            states[run] = known.get(run) or self.state(
                run,
                {parent: states[parent] for parent in above},
                exists=run in present,
                submitted=submitted.get(run),
                refuted=refuted.get(run, 0),
                held=held,
            )
        return states

    def state(
        self,
        run: str,
        parents: Mapping[str, State],
        *,
        exists: bool = True,
        submitted: str | None = None,
        refuted: int = 0,
        held: bool = False,
    ) -> State:
        """A pure function of files (of the parents' states, and of what a scheduler knows): of what may be said of
        a run, the first that is so, from an outcome down to *missing*."""
        # One listing: on a network each look at a single name is a question to the server.
        names = self._names(run) if exists else []
        try:
            return self._state(run, parents, names, submitted, refuted, held)
        except Damaged as damage:
            where = os.path.relpath(damage.path, self.run(run))
            return State("cancelled") if "cancel.json" in names else State("damaged", where)

    def _state(
        self,
        run: str,
        parents: Mapping[str, State],
        names: Sequence[str],
        submitted: str | None = None,
        refuted: int = 0,
        held: bool = False,
    ) -> State:
        """Raises Damaged for a file that decides it and does not parse or belong."""
        if "recipe.json" in names:
            self.recipe(run)
        outcome = self.outcome(run) if "outcome.json" in names else None
        if outcome:
            return _finished(outcome)
        if "cancel.json" in names:
            return State("cancelled")
        attempts = self._attempts(run, names)
        for attempt in attempts:
            attempt.check()
        if attempts and attempts[-1].exit is None and attempts[-1].number > refuted:
            return State("running", attempt=attempts[-1].number)
        number = attempts[-1].number if attempts else 0
        if submitted is not None:
            return State("submitted", submitted, number)
        if stopped := [parent for parent, state in parents.items() if state.stops_children]:
            return State("blocked", stopped[0], number)
        if held:
            return State("held", "", number)
        if attempts and (ended := failure(attempts)):
            outcome = self.outcome(run) if ended == "done" else None
            return _finished(outcome) if outcome else State("failed", ended, number)  # it ended after it was listed
        if unfinished := [parent for parent, state in parents.items() if not state.finished]:
            return State("waiting", unfinished[0], number)
        if attempts:
            how = (attempts[-1].exit or {}).get("class", "interrupted")
            return State("paused", "", number) if how == "paused" else State("resumable", how, number)
        return State("missing")

    # -- what users and launchers say -----------------------------------------------------------------------

    def cancelled(self, run: str) -> bool:
        return (self.run(run) / "cancel.json").exists()

    def cancel(self, run: str) -> None:
        files.publish(files.make_folder(self.run(run)) / "cancel.json", files.to_json({"time": time.time()}))

    def uncancel(self, run: str) -> None:
        (self.run(run) / "cancel.json").unlink(missing_ok=True)

    def pause(self, run: str, attempt: int) -> None:
        """Ask an attempt to save and end; no launcher starts another unasked."""
        files.replace(self.run(run) / "pause.json", files.to_json({"attempt": attempt, "time": time.time()}))

    def pin_data(self, data_id: str, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Record a data set's fingerprint under its id; returns what stands, which may be another's."""
        path = files.make_folder(self.root / "data") / f"{data_id}.json"
        files.publish(path, files.to_json({"schema": SCHEMA, **facts}))
        return self.data_facts(data_id) or {}

    def unpin_data(self, data_id: str) -> None:
        (self.root / "data" / f"{data_id}.json").unlink(missing_ok=True)

    def data_hashes(self, data_id: str) -> Path:
        """Where ``run --verify-data`` keeps the hash of each picture."""
        return self.root / "data" / f"{data_id}.sha256"

    def data_facts(self, data_id: str) -> dict[str, Any] | None:
        """What is pinned under a data set's id, or None. Raises Damaged."""
        return schema.read(self.root / "data" / f"{data_id}.json", schema.DataFacts)


def _finished(outcome: Mapping[str, Any]) -> State:
    return State(outcome["status"], outcome.get("reason") or "", outcome["attempt"])
