"""The store itself: all names under ``results/``."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from deit_ablate import files
from deit_ablate.identity import canonical_json, run_id
from deit_ablate.store import owner
from deit_ablate.store.attempt import HOLD_AFTER, RESUMABLE, SCHEMA, Attempt, Refused, State, failure

_RUN = re.compile(r"[0-9a-f]{16}\Z")
_ATTEMPT = re.compile(r"a(\d{4,})\Z")


class Store:
    def __init__(self, root: Path | str):
        """Raises NotADirectoryError where ``root`` is something else than a folder."""
        self.root = Path(root)
        if self.root.exists() and not self.root.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(root))

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
        """Write a run's recipe, before it is first started; what stands already is left as it is."""
        if run != run_id(recipe, parents, sources):
            raise ValueError(f"{run} is not the id of this recipe")
        path = self.run(run) / "recipe.json"
        if not path.exists():
            files.make_folder(path.parent)
            files.publish(
                path,
                files.to_json({"schema": SCHEMA, "run": run, "recipe": recipe, "parents": parents, "sources": sources}),
            )

    def adopt(self, run: str, write: Callable[[Path], object]) -> bool:
        """Take in a finished run from elsewhere, whole or not at all; False where there is one of that id."""
        if self.run(run).exists():
            return False
        folder = files.make_folder(self.root / "trash") / f"{run}-{secrets.token_hex(4)}"
        write(files.make_folder(folder))
        files.make_folder(self.run(run).parent)
        try:
            os.rename(folder, self.run(run))
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            return False  # another process was first; gc empties the trash
        return True

    def recipe(self, run: str) -> dict[str, Any] | None:
        return files.read_json(self.run(run) / "recipe.json")

    def outcome(self, run: str) -> dict[str, Any] | None:
        return files.read_json(self.run(run) / "outcome.json")

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
        """A run's epochs: the lines of the attempt that the outcome names, else of the latest one."""
        outcome, attempts = self.outcome(run), self.attempts(run)
        chosen = [a for a in attempts if outcome and a.number == outcome["attempt"]] or attempts[-1:]
        return files.read_lines(chosen[0].metrics) if chosen else []

    def checkpoints(self, run: str) -> list[Path]:
        """Every checkpoint file of every attempt, the latest attempt's first."""
        found = [a.path / name for a in reversed(self.attempts(run)) for name in ("ckpt.pt", "ckpt.prev")]
        return [path for path in found if path.exists()]

    def weights(self, run: str) -> Path | None:
        """The final checkpoint of a finished run, or None where it is not finished or its weights are gone."""
        outcome = self.outcome(run)
        path = self.attempt(run, outcome["attempt"]).checkpoint if outcome else None
        return path if path and path.exists() else None

    # -- claims -------------------------------------------------------------------------------------------

    def claim(self, run: str, *, retry: bool = False, **execution: Any) -> Attempt:
        """Become the one that carries a run. Raises Refused where it is over, cancelled or in other hands.

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
        paused = files.read_json(self.run(run) / "pause.json")
        return "paused" if paused and paused["attempt"] == attempt.number else None

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
    ) -> dict[str, State]:
        """The state of each run; ``parents`` maps a run to its parents' ids and lists parents first.

        ``submitted``: runs that wait at a scheduler, with what it says of them; ``refuted``: the last attempt at a run
        that is known to be over though it has not said so; ``held``: the sweep is; ``known``: states of finished runs,
        which are then not looked at.
        """
        present, submitted, refuted, known = self.runs(), submitted or {}, refuted or {}, known or {}
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
        """A pure function of files (of the parents' states, and of what a scheduler knows): the first match of
        DESIGN's list."""
        # One listing: on a network each look at a single name is a question to the server.
        names = self._names(run) if exists else []
        outcome = self.outcome(run) if "outcome.json" in names else None
        if outcome:
            return _finished(outcome)
        if "cancel.json" in names:
            return State("cancelled")
        attempts = self._attempts(run, names)
        if attempts and attempts[-1].exit is None and attempts[-1].number > refuted:
            return State("running", attempt=attempts[-1].number)
        number = attempts[-1].number if attempts else 0
        if submitted is not None:
            return State("submitted", submitted, number)
        for parent, state in parents.items():
            if state.name in ("failed", "cancelled", "blocked") or state.without_weights:
                return State("blocked", parent, number)
        if held:
            return State("held", "", number)
        if attempts and (ended := failure(attempts)):
            outcome = self.outcome(run) if ended == "done" else None
            return _finished(outcome) if outcome else State("failed", ended, number)  # it ended after it was listed
        for parent, state in parents.items():
            if not state.finished:
                return State("waiting", parent, number)
        if attempts:
            how = (attempts[-1].exit or {}).get("class", "interrupted")
            return State("paused", "", number) if how == "paused" else State("resumable", how, number)
        return State("missing")

    # -- a sweep that is held -------------------------------------------------------------------------------

    def held(self, sweep: str | None) -> dict[str, Any] | None:
        """Why no run of the sweep is to start, or None."""
        return files.read_json(self.sweep(sweep) / "held.json") if sweep else None

    def hold_if_hopeless(self, sweep: str) -> bool:
        """Hold a sweep whose first runs have all died of the same error; True where this call did so."""
        plan = self.plan(sweep)
        if plan is None or self.held(sweep):
            return False
        errors: dict[str, tuple[str, str]] = {}
        for run in {run for *_, run in plan["cells"]}:
            attempts = self.attempts(run)
            if (self.run(run) / "outcome.json").exists():
                return False
            end = (attempts[-1].exit if attempts else None) or {}
            if end and end["class"] not in RESUMABLE:
                errors[run] = (end["class"], end.get("message", "")[:200])
        if len(errors) < HOLD_AFTER or len(set(errors.values())) > 1:
            return False
        how, message = next(iter(errors.values()))
        return self.hold(sweep, how, message, sorted(errors))

    def hold(self, sweep: str, how: str, message: str, runs: Sequence[str] = ()) -> bool:
        """Let no run of the sweep start, and its search ask for none; False where it is held already."""
        content = {"class": how, "message": message, "runs": list(runs), "time": time.time()}
        return files.publish(self.sweep(sweep) / "held.json", files.to_json(content))

    def lift(self, sweep: str) -> None:
        (self.sweep(sweep) / "held.json").unlink(missing_ok=True)

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
        return files.read_json(path) or {}

    def data_facts(self, data_id: str) -> dict[str, Any] | None:
        return files.read_json(self.root / "data" / f"{data_id}.json")

    # -- weights of teachers --------------------------------------------------------------------------------

    def keep_weights(self, sha256: str, path: Path) -> Path:
        """Keep a weights file under its content's hash ("sha256:<hex>"); returns where it lies.

        Raises ValueError where the file's content is another by now.
        """
        digest = sha256.removeprefix("sha256:")
        kept = self.kept_weights(sha256)
        if kept is not None and files.sha256(kept) == digest:
            return kept
        suffix = path.suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,12}", path.suffix) else ".weights"
        target = files.make_folder(self.root / "weights") / (kept.name if kept else f"{digest}{suffix}")
        files.adopt(path, target, digest)
        return target

    def keep_hub_weights(self, name: str, write: Callable[[Path], None]) -> Path:
        """Keep what ``write`` writes to a path as the weights (safetensors) of the hub's model of this name.

        The first content under a name stands. Raises ValueError where this is another.
        """
        target = files.make_folder(self.root / "weights") / f"{name}.safetensors"
        with files.temporary_beside(target) as temporary:
            write(temporary)
            files.sync_file(temporary)
            digest = files.sha256(temporary)
            pin = {"schema": SCHEMA, "name": name, "sha256": digest}
            files.publish(self._weights_pin(name), files.to_json(pin))
            if self.hub_sha256(name) != digest:
                raise ValueError(f"what the hub gives as {name} is not what earlier runs in this store used")
            os.replace(temporary, target)
        files.sync_folder(target.parent)
        return target

    def kept_weights(self, wanted: str) -> Path | None:
        """The kept file of this content ("sha256:<hex>") or of the hub's model of this name, or None."""
        digest = wanted.removeprefix("sha256:")
        if digest != wanted:
            return next((self.root / "weights").glob(f"{digest}.*"), None)
        path = self.root / "weights" / f"{wanted}.safetensors"
        return path if path.exists() else None

    def hub_sha256(self, name: str) -> str | None:
        """The content that is pinned as the weights of the hub's model of this name, or None."""
        pin = files.read_json(self._weights_pin(name))
        return pin["sha256"] if pin else None

    def _weights_pin(self, name: str) -> Path:
        return self.root / "weights" / f"{name}.json"

    def proven_over(self, run: str) -> bool:
        """Whether every attempt at a run is certain to have ended (a release is a person's word, no proof)."""
        outcome = self.outcome(run)
        for attempt in self.attempts(run):
            closed = (attempt.exit or {}).get("class", "released") != "released"
            if not (closed or (outcome and outcome["attempt"] == attempt.number) or owner.provably_gone(attempt.owner)):
                return False
        return True

    def forget(self, run: str) -> None:
        """Move a run to the trash. Raises Refused while an attempt at it may be alive."""
        if not self.proven_over(run):
            raise Refused("an attempt at it may still be alive")
        trash = files.make_folder(self.root / "trash")
        os.rename(self.run(run), trash / f"{run}-{secrets.token_hex(4)}")

    def size(self, run: str) -> tuple[int, int]:
        """(bytes, files) under a run's folder."""
        total = count = 0
        for folder, _, names in os.walk(self.run(run)):
            for name in names:
                with contextlib.suppress(OSError):
                    total, count = total + os.lstat(os.path.join(folder, name)).st_size, count + 1
        return total, count

    def disposable(self, run: str, keep: str) -> Iterator[Path]:
        """Files of a finished run that ``gc`` may remove: by ``keep`` final (its last weights stay), none or all."""
        outcome = self.outcome(run)
        if not outcome or keep == "all" or not self.proven_over(run):
            return
        final = self.weights(run) if keep == "final" else None
        yield from (path for path in self.checkpoints(run) if path != final)
        yield from self.run(run).rglob(f"{files.TEMPORARY}*")

    def trash(self) -> list[Path]:
        """The files of forgotten runs."""
        return [path for path in (self.root / "trash").rglob("*") if path.is_file()]

    def empty_trash(self) -> None:
        for folder in (self.root / "trash").glob("*"):
            shutil.rmtree(folder, ignore_errors=True)

    # -- sweeps -------------------------------------------------------------------------------------------

    def sweep(self, name: str) -> Path:
        return self.root / name

    def sweeps(self) -> list[str]:
        """Names of the sweeps that have been run into this store."""
        return sorted(path.parent.name for path in self.root.glob("*/plan.json"))

    def plan(self, name: str) -> dict[str, Any] | None:
        return files.read_json(self.sweep(name) / "plan.json")

    def asks(self, name: str, after: int = 0) -> list[dict[str, Any]]:
        """The trials after number ``after`` that a search has asked for, in order; each has its ``number``, from 1."""
        found: list[dict[str, Any]] = []
        for number in itertools.count(after + 1):
            content = files.read_json(self.sweep(name) / "trials" / f"{number}.json")
            if content is None:
                return found
            found.append({**content, "number": number})
        return found

    def ask(self, name: str, number: int, content: Mapping[str, Any]) -> bool:
        """Record what a search asks for; False where another launcher has taken the number."""
        folder = files.make_folder(self.sweep(name) / "trials")
        return files.publish(folder / f"{number}.json", files.to_json({"schema": SCHEMA, **content}))

    def save_plan(self, name: str, plan: Mapping[str, Any]) -> None:
        path, content = files.make_folder(self.sweep(name)) / "plan.json", files.to_json(plan)
        if not path.exists() or path.read_bytes() != content:
            files.replace(path, content)

    def planned_seeds(self, name: str) -> list[dict[str, Any]]:
        """What was planned, and how much was known by then, first plan first."""
        # By digits: another launcher's temporary file may stand there for a moment.
        paths = (self.sweep(name) / "seeds").glob("[0-9]*.json")
        return [files.read_json(path) or {} for path in sorted(paths, key=lambda path: int(path.stem))]

    def plan_seeds(
        self, name: str, seeds: Mapping[str, Sequence[int]], finished: int, looks: Sequence[int] | None = None
    ) -> None:
        """Record planned seeds and looks, a new file only where they differ from the last plan's."""
        content = {
            "schema": SCHEMA,
            "seeds": {stage: list(values) for stage, values in seeds.items()},
            "looks": list(looks) if looks else None,
        }
        while True:
            planned = self.planned_seeds(name)
            if planned and all(
                canonical_json(planned[-1].get(key)) == canonical_json(content[key]) for key in ("seeds", "looks")
            ):
                return
            path = files.make_folder(self.sweep(name) / "seeds") / f"{len(planned) + 1}.json"
            if files.publish(path, files.to_json({**content, "time": time.time(), "finished_runs_then": finished})):
                return


def _finished(outcome: Mapping[str, Any]) -> State:
    return State(outcome["status"], outcome.get("reason") or "", outcome["attempt"])
