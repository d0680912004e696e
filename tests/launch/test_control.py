"""What users do about runs: a run that is forgotten begins anew, at the scheduler too."""

from __future__ import annotations

from support import RECIPE, RUN

from deit_ablate.launch import control
from deit_ablate.launch.status import Known
from deit_ablate.store import Store
from deit_ablate.store.submissions import Submissions


def test_what_was_submitted_for_a_forgotten_run_no_longer_counts(store: Store) -> None:
    submissions, other = Submissions(store), "0" * 16
    store.register(RUN, RECIPE, {}, {})
    store.claim(RUN).close("crash")
    runs = [{"run": run, "after": 0, "retry": False} for run in (RUN, other)]
    more = {"arguments": [], "code": ""}
    assert submissions.announce(1, {"name": "n", "launcher": {"nonce": "kept"}, "cluster": "c", "runs": runs, **more})
    submissions.note(1, "7")
    assert Known(store, {RUN: ()}).tickets.keys() == {RUN, other}
    control.forget(store, [RUN])
    assert Known(store, {RUN: ()}).tickets.keys() == {other}
