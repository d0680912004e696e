"""What has been given to a scheduler: ``results/submissions/`` and ``results/code/``.

    submissions/<n>.json    linked before sbatch is called: who submits, under which job name, which runs
    submissions/<n>.job     the job that came of it; linked after it, or by whoever finds the job by its name
    submissions/<n>.over    nothing will come of it: sbatch refused, or its launcher is gone
    submissions/<n>.<i>.over  the same for the run at index i: released by a user
    submissions/<n>/        the batch script, what submitit needs, what the job prints before its attempt's log
    code/<hash>/            the package as it was submitted, by content

A number is linked only by a launcher that has read all lower ones, so that no two plan the same run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deit_ablate import files
from deit_ablate.errors import Damaged
from deit_ablate.store import SCHEMA, Store, schema


@dataclass(frozen=True)
class Ticket:
    """One run's place in a submission: it counts until the scheduler knows the job no more."""

    submission: int
    index: int
    """Of the run, among all of the submission."""
    task: int
    """The index in the array of the element that executes it, alone or with others."""
    run: str
    after: int
    """The last attempt at the run that the launcher knew."""
    job: str | None
    """The array's job id; None where sbatch has not answered yet, or its answer was never noted."""
    name: str = ""
    cluster: str = ""

    @property
    def element(self) -> str | None:
        """The array element as squeue lists it."""
        return f"{self.job}_{self.task}" if self.job else None


@dataclass(frozen=True)
class Submission:
    number: int
    content: Mapping[str, Any]
    job: str | None
    over: bool
    over_at: frozenset[int] = frozenset()

    @property
    def name(self) -> str:
        """The job's name, which holds the nonce: what tells whether sbatch took it, when it did not say."""
        return str(self.content["name"])

    def tickets(self) -> Iterator[Ticket]:
        together = self.content.get("runs_per_element", 1)  # which earlier versions do not say
        for index, entry in enumerate(self.content["runs"]):
            cluster, task = str(self.content.get("cluster", "")), index // together
            yield Ticket(self.number, index, task, entry["run"], entry["after"], self.job, self.name, cluster)


class Submissions:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.root = store.root / "submissions"

    def read(self) -> tuple[list[Submission], list[Damaged]]:
        """All submissions, lowest number first, and the files that are damaged: what these submitted is not known, and
        who submits more must not go on. What is missing beside one is looked at after the listing."""
        found: list[Submission] = []
        damaged: list[Damaged] = []
        try:
            names = os.listdir(self.root)
        except FileNotFoundError:
            return found, damaged
        for number in sorted(int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdigit()):
            try:
                content = schema.read(self.root / f"{number}.json", schema.Submission) or {"runs": [], "name": ""}
                job = schema.read(self.root / f"{number}.job", schema.SubmittedJob)
            except Damaged as damage:
                damaged.append(damage)
                continue
            over = (self.root / f"{number}.over").exists()
            own = (name.split(".") for name in names if name.startswith(f"{number}.") and name.endswith(".over"))
            indices = frozenset(int(parts[1]) for parts in own if len(parts) == 3)
            found.append(Submission(number, content, job["job"] if job else None, over, indices))
        return found, damaged

    def announce(self, number: int, content: Mapping[str, Any]) -> bool:
        """Link the intent to submit; False where another launcher has taken the number."""
        path = files.make_folder(self.root) / f"{number}.json"
        return files.publish(path, files.to_json({"schema": SCHEMA, "time": time.time(), **content}))

    def note(self, number: int, job: str) -> None:
        files.publish(self.root / f"{number}.job", files.to_json({"job": job, "time": time.time()}))

    def close(self, number: int, why: str, index: int | None = None) -> None:
        name = f"{number}.over" if index is None else f"{number}.{index}.over"
        files.publish(self.root / name, files.to_json({"why": why, "time": time.time()}))

    def close_runs(self, runs: Collection[str], why: str) -> None:
        """Let no job that was submitted for these runs count any more."""
        tickets = tickets_by_run(self.read()[0])
        for ticket in (ticket for run in runs for ticket in tickets.get(run, ())):
            self.close(ticket.submission, why, ticket.index)

    def folder(self, number: int) -> Path:
        return files.make_folder(self.root / str(number))

    def output(self, ticket: Ticket) -> Path:
        """What the job printed that is not in an attempt's log."""
        return self.root / str(ticket.submission) / f"{ticket.element}_0_log.out"

    def last_words(self, ticket: Ticket) -> str:
        """The last line there, one of SLURM or submitit only where there is no other; the path where there is none."""
        path = self.output(ticket)
        printed = path.read_text(errors="replace").strip().splitlines() if path.exists() else []
        own = [line for line in printed if not line.startswith(("srun: ", "slurmstepd", "submitit "))]
        return (own or printed or [str(path)])[-1]

    def snapshot(self, package: Path, about: Mapping[str, Any]) -> tuple[str, Path]:
        """Copy the package, once for each content: (its hash, the folder to put on PYTHONPATH)."""
        sources = sorted(path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
        digest = hashlib.sha256()
        for path in sources:
            digest.update(f"{path.relative_to(package).as_posix()}\0{files.sha256(path)}\n".encode())
        code = digest.hexdigest()[:16]
        folder = self.store.root / "code" / code
        if not folder.exists():
            with files.temporary_beside(files.make_folder(folder.parent) / code) as temporary:
                for path in sources:
                    target = temporary / package.name / path.relative_to(package)
                    files.make_folder(target.parent)
                    shutil.copyfile(path, target)
                (temporary / "about.json").write_bytes(files.to_json({"code": code, **about}))
                try:
                    os.rename(temporary, folder)
                except OSError:
                    if not folder.exists():
                        raise
                    shutil.rmtree(temporary, ignore_errors=True)
        return code, folder


def tickets_by_run(submissions: Sequence[Submission]) -> dict[str, list[Ticket]]:
    """The tickets that still count as far as files say."""
    found: dict[str, list[Ticket]] = {}
    for submission in submissions:
        for ticket in () if submission.over else submission.tickets():
            if ticket.index not in submission.over_at:
                found.setdefault(ticket.run, []).append(ticket)
    return found
