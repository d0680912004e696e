"""Whether what is written of a sweep is up to date. Imports pandas only where it is not: most launches end without."""

from __future__ import annotations

from collections.abc import Mapping

from deit_ablate.store import State, Store


def current_table(store: Store, sweep: str, states: Mapping[str, State], *, changed: bool) -> str:
    """Write the sweep's table and figures anew where runs have changed since they were made; returns table.md's
    text."""
    folder = store.sweeps.folder(sweep)
    path, plan = folder / "table.md", folder / "plan.json"
    sources = [plan, *(store.run(run) / "outcome.json" for run, state in states.items() if state.finished)]
    newest = max((source.stat().st_mtime for source in sources if source.exists()), default=0.0)
    # What is not finished may be in another state than when the table was made.
    changed = changed or not all(state.finished for state in states.values())
    if changed or not path.exists() or path.stat().st_mtime < newest:
        from deit_ablate.report.summary import summarize
        from deit_ablate.report.write import write_report

        write_report(summarize(store, sweep))
    return path.read_text()
