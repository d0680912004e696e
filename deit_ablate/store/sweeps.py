"""What a store knows of sweeps: their plans, the trials that searches ask for, planned seeds, and which are held."""

from __future__ import annotations

import contextlib
import getpass
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deit_ablate import files
from deit_ablate.errors import Damaged
from deit_ablate.identity import canonical_json
from deit_ablate.store import schema
from deit_ablate.store.attempt import HOLD_AFTER, RESUMABLE
from deit_ablate.store.schema import SCHEMA

if TYPE_CHECKING:
    from deit_ablate.store.store import Store

REBUILT = "`deit-ablate run` with the path of the sweep's file, which writes it anew"


class Sweeps:
    """The folders of a store's sweeps: ``store.sweeps``."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def folder(self, name: str) -> Path:
        return self._store.root / name

    def names(self) -> list[str]:
        """Names of the sweeps that have been run into this store."""
        return sorted(path.parent.name for path in self._store.root.glob("*/plan.json"))

    def plan(self, name: str) -> dict[str, Any] | None:
        """What plan.json holds, or None where there is none. Raises Damaged."""
        try:
            return schema.read(self.folder(name) / "plan.json", schema.Plan)
        except Damaged as damage:
            raise Damaged(damage.path, damage.why, expected=REBUILT) from None

    def sound_plan(self, name: str) -> dict[str, Any] | None:
        """The same; None where it is damaged, too."""
        try:
            return self.plan(name)
        except Damaged:
            return None

    def trial_requests(self, name: str, after: int = 0) -> list[dict[str, Any]]:
        """The trials after number ``after`` that a search has asked for, in order; each has its ``number``, from 1."""
        requests = _numbered(self.folder(name) / "trials", schema.TrialRequest, after + 1)
        return [{**content, "number": number} for number, content in requests]

    def request_trial(self, name: str, number: int, content: Mapping[str, Any]) -> bool:
        """Record what a search asks for; False where another launcher has taken the number."""
        folder = files.make_folder(self.folder(name) / "trials")
        return files.publish(folder / f"{number}.json", files.to_json({"schema": SCHEMA, **content}))

    def save_plan(self, name: str, plan: Mapping[str, Any]) -> None:
        path, content = files.make_folder(self.folder(name)) / "plan.json", files.to_json(plan)
        with contextlib.suppress(Damaged):
            if files.read_regular(path) == content:
                return
        files.replace(path, content)

    def declared(self, name: str) -> list[dict[str, Any]]:
        """What was declared at the first launch and at each change, and how many runs had finished by then: seeds by
        stage, looks, and (not in stores of earlier versions) metric, margin, baseline, its seeds, and names of rows."""
        # By digits: another launcher's temporary file may stand there for a moment.
        paths = (self.folder(name) / "seeds").glob("[0-9]*.json")
        ordered = sorted((path for path in paths if path.stem.isdigit()), key=lambda path: int(path.stem))
        return [schema.read(path, schema.Declared) or {} for path in ordered]

    def declare(self, name: str, declared: Mapping[str, Any], finished: int) -> None:
        """Record what a launch declares, in a new file only where it differs from what the last one did."""
        while True:
            before = self.declared(name)
            if before and all(canonical_json(before[-1].get(key)) == canonical_json(declared[key]) for key in declared):
                return
            path = files.make_folder(self.folder(name) / "seeds") / f"{len(before) + 1}.json"
            when = {"time": time.time(), "finished_runs_then": finished}
            if files.publish(path, files.to_json({"schema": SCHEMA, **declared, **when})):
                return

    def accepted(self, name: str) -> dict[str, dict[str, Any]]:
        """Id of a run as the sweep plans it -> the finished run of earlier code that is used in its place, as a user
        has said that the change between them is cosmetic: ``run``, ``sources`` (module, or file of a program -> its
        hash then, and now), ``time`` and ``user``."""
        found: dict[str, dict[str, Any]] = {}
        for _, content in _numbered(self.folder(name) / "accepted", schema.Accepted):
            found |= content["runs"]
        return {run: used for run, used in found.items() if self._store.result(used["run"]) is not None}

    def accept(self, name: str, runs: Mapping[str, Mapping[str, Any]]) -> None:
        """Record what ``accepted`` has from now on: ``run`` and ``sources`` by the id that was planned."""
        folder = files.make_folder(self.folder(name) / "accepted")
        who = {"time": time.time(), "user": getpass.getuser()}
        content = files.to_json({"schema": SCHEMA, "runs": {run: {**used, **who} for run, used in runs.items()}})
        next(n for n in itertools.count(1) if files.publish(folder / f"{n}.json", content))

    # -- holding ------------------------------------------------------------------------------------------------------

    def held(self, sweep: str | None) -> dict[str, Any] | None:
        """Why no run of the sweep is to start, or None."""
        if not sweep:
            return None
        try:
            return schema.read(self.folder(sweep) / "held.json", schema.Hold)
        except Damaged as damage:  # that there is one is what counts
            return {"class": "damaged", "message": str(damage), "runs": []}

    def hold_if_hopeless(self, sweep: str) -> bool:
        """Hold a sweep whose first runs, since it was last lifted, have all died of the same error; True where this
        call did so."""
        plan, errors = self.sound_plan(sweep), dict[str, tuple[str, str]]()
        lifted = (schema.read(self.folder(sweep) / "lifted.json", schema.Lift) or {"time": 0.0})["time"]
        if plan is None or self.held(sweep):
            return False
        for run in {run for *_, run in plan["cells"]}:
            attempts = self._store.attempts(run)
            if (self._store.run(run) / "outcome.json").exists():
                return False
            try:
                end = attempts[-1].exit if attempts else None
            except Damaged:  # it has not died of the others' error, as far as anybody knows
                return False
            if end and end["class"] not in RESUMABLE and end["time"] > lifted:
                errors[run] = (end["class"], end.get("message", "")[:200])
        if len(errors) < HOLD_AFTER or len(set(errors.values())) > 1:
            return False
        how, message = next(iter(errors.values()))
        return self.hold(sweep, how, message, sorted(errors))

    def hold(self, sweep: str, how: str, message: str, runs: Sequence[str] = ()) -> bool:
        """Let no run of the sweep start, and its search ask for none; False where it is held already."""
        content = {"class": how, "message": message, "runs": list(runs), "time": time.time()}
        return files.publish(self.folder(sweep) / "held.json", files.to_json(content))

    def lift(self, sweep: str) -> None:
        """Let runs start again. What has failed by now no longer counts towards holding it."""
        files.replace(self.folder(sweep) / "lifted.json", files.to_json({"time": time.time()}))
        (self.folder(sweep) / "held.json").unlink(missing_ok=True)


def _numbered(folder: Path, kind: type[schema.File], first: int = 1) -> Iterator[tuple[int, dict[str, Any]]]:
    """The files ``<number>.json`` from ``first`` on, up to the one that is not there yet. Raises Damaged."""
    for number in itertools.count(first):
        if (content := schema.read(folder / f"{number}.json", kind)) is None:
            return
        yield number, content
