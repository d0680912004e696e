"""A table is written anew where it was made from something else, whatever the times of files say."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import Command, change

from deit_ablate.report.fresh import MADE_FROM, current_table, made_from
from deit_ablate.store import Store

ROWS = "seeds: 1\nbaseline: a\nvariants: {a: {}, b: {augment.mixup: 0.4}}\n"


def test_what_is_imported_is_in_the_next_table(command: Command, sweep: Callable[..., Path], store: Store) -> None:
    sweep(ROWS)
    command("run", "tiny.yaml", "--only", "b", "--results", "older")
    assert "Missing: b" in command("run", "tiny.yaml", "--only", "a").stdout
    command("import", "older")
    done = command("run", "tiny.yaml").stdout
    assert "all 2 runs are done" in done
    assert "Missing" not in done


def test_a_table_is_kept_while_what_it_was_made_from_is_the_same(
    command: Command, sweep: Callable[..., Path], store: Store
) -> None:
    sweep(ROWS)
    command("run", "tiny.yaml")
    table = store.sweeps.folder("tiny") / "table.md"
    table.write_text("as it was")
    os.utime(table, (0, 0))
    assert current_table(store, "tiny") == "as it was"
    first, second = sorted(store.runs())
    change(store, first, time=0)
    os.utime(store.run(first) / "outcome.json", (0, 0))
    assert "# tiny" in current_table(store, "tiny")
    shutil.rmtree(store.run(second))
    assert "Missing: " in current_table(store, "tiny")
    table.write_text("as it was")
    assert current_table(store, "tiny") == "as it was", "what is missing is missing still"
    (table.parent / MADE_FROM).write_text("{")
    assert "Missing: " in current_table(store, "tiny")
    store.claim(second)
    assert made_from(store, "tiny") is None, "what runs will have come further when it is read"


def test_a_page_of_what_was_imported_is_written_anew(
    command: Command, sweep: Callable[..., Path], store: Store
) -> None:
    sweep(ROWS)
    command("run", "tiny.yaml", "--only", "b", "--results", "older")
    command("run", "tiny.yaml", "--only", "a")
    page = "results/tiny/report.html"
    assert page in command("report", "--all").stdout
    assert page not in command("report", "--all").stdout, "nothing has changed"
    command("import", "older")
    assert page in command("report", "--all").stdout


@pytest.mark.parametrize("redact", [True, False])
def test_a_page_is_never_older_than_the_table_and_stays_redacted(study: Callable[..., Any], redact: bool) -> None:
    from deit_ablate.report.html import write_page
    from deit_ablate.report.html.markup import stamp

    made = study({"a": {0: 90.0}}, name="shown")
    page = write_page(made.summary(), redact=redact)
    plan = made.store.sweeps.plan("shown") or {}
    made.store.sweeps.save_plan("shown", plan | {"title": "Another title"})
    current_table(made.store, "shown")
    assert "Another title" in page.read_text()
    assert f'content="{stamp(redact)}"' in page.read_text()


def test_a_damaged_record_is_no_obstacle(command: Command, sweep: Callable[..., Path], store: Store) -> None:
    sweep(ROWS)
    command("run", "tiny.yaml")
    run = store.run(sorted(store.runs())[0]) / "outcome.json"
    run.unlink()
    os.mkfifo(run)  # to open it would be to wait for ever
    found = made_from(store, "tiny")
    assert found is not None
    assert found["outcomes"][run.parent.name].startswith("damaged (outcome.json)")
