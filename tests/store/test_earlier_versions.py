"""What earlier versions left behind is read: their stores, their submissions, and the jobs that wait in a queue.

``tests/fixtures/store-0.1.0.zip`` was written by version 0.1.0 at commit beaec19, before its modules were moved: five
finished runs of a sweep with stages, and a submission with its pickled job and the snapshot of the code that it needs.
"""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from support import Command, planned

from deit_ablate.identity import canonical_json, semantics_of, without_later
from deit_ablate.store import Store
from deit_ablate.store.submissions import Submissions


@pytest.fixture
def earlier(tmp_path: Path) -> Store:
    zipfile.ZipFile(Path(__file__).parents[1] / "fixtures" / "store-0.1.0.zip").extractall(tmp_path)
    return Store(tmp_path / "results")


def test_the_same_sweep_file_has_the_same_runs_under_their_semantics(earlier: Store) -> None:
    plan = planned(earlier.root.parent / "tiny.yaml")
    stored = {run: earlier.recipe(run) or {} for run in earlier.runs()}
    assert {semantics_of(run, content) for run, content in stored.items()} == {2}
    then = {canonical_json(without_later(content["recipe"])) for content in stored.values()}
    assert {canonical_json(without_later(run.recipe)) for run in plan.runs.values()} == then
    assert len(plan.runs) == len(stored)


def test_its_runs_count_and_its_table_is_the_same_to_the_byte(earlier: Store, command: Command) -> None:
    before = (earlier.sweeps.folder("tiny") / "table.md").read_text()
    told = json.loads(command("status", "tiny", "--json").stdout)
    assert {run["state"] for run in told.values()} == {"diverged"}
    assert command("table", "tiny").stdout == before
    planned = command("plan", "tiny.yaml").stdout
    assert "missing since recipes meant another training (SEMANTICS 2): *:0:teacher" in planned


def test_a_submission_is_read_and_its_queued_job_still_loads(earlier: Store) -> None:
    (submission,), _ = Submissions(earlier).read()
    assert [ticket.element for ticket in submission.tickets()] == ["7_0"]
    # As its batch script does: the snapshot comes first, so the job runs the code that it was submitted with.
    code = earlier.root / "code" / submission.content["code"]
    job = earlier.root / "submissions" / "1" / "element.pkl"
    script = "import sys, pickle; sys.path.insert(0, sys.argv[1]); print(pickle.load(open(sys.argv[2], 'rb')).function)"
    done = subprocess.run([sys.executable, "-c", script, str(code), str(job)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("Element(results='/lab/results', submission=1")
