"""Commands that look inside what runs recorded of their test images: tokens, disagree."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeGuard

import typer

from deit_ablate import files
from deit_ablate.cli.targets import DEFAULT_RESULTS, Results, runs_of
from deit_ablate.store import Store

if TYPE_CHECKING:
    from deit_ablate.report.tables.tokens import RunGroup

Targets = Annotated[
    list[str],
    typer.Argument(
        metavar="TARGET",
        help="A sweep, sweep:variant, sweep:variant:seed[:stage], or the first digits of a run's id.",
    ),
]
Out = Annotated[
    Path | None,
    typer.Option("--out", help="Folder to write to; by default the sweep's, where the target is a whole sweep."),
]


def tokens(targets: Targets, results: Results = DEFAULT_RESULTS, out: Out = None) -> None:
    """Print how alike class and distillation token are, layer by layer; write the values and a figure."""
    store = Store(results)
    wanted = _groups(targets, store)
    folder = out or _folder(targets, store, "figures")
    from deit_ablate.report.tables import render
    from deit_ablate.report.tables.tokens import similarities, tokens_table, tokens_values

    found = similarities(store, wanted)
    print(render.to_markdown(tokens_table(found)), end="")
    if _writable(folder):
        from deit_ablate.report.figures.style import save
        from deit_ablate.report.figures.tokens import tokens_figure

        path = files.make_folder(folder) / "token_similarity"
        files.replace(path.with_suffix(".csv"), render.to_csv(tokens_values(store, found)).encode())
        figure = tokens_figure(found)
        for suffix in (".png", ".pdf"):
            save(figure, path.with_suffix(suffix))
        print("\n".join(str(path.with_suffix(suffix)) for suffix in (".csv", ".png", ".pdf")), file=sys.stderr)


def disagree(
    targets: Targets,
    head: Annotated[
        str, typer.Option("--head", help="Of models with two heads: class, distillation, fused_softmax or all.")
    ] = "all",
    results: Results = DEFAULT_RESULTS,
    out: Out = None,
) -> None:
    """Print the share of test images that each two classifiers class differently; write it as CSV."""
    store = Store(results)
    wanted = _groups(targets, store)
    folder = out or _folder(targets, store, "")
    from deit_ablate.report.tables import render
    from deit_ablate.report.tables.predictions import disagreement_table, predictions, with_teachers

    table = disagreement_table(predictions(store, with_teachers(store, wanted), head))
    print(render.to_markdown(table), end="")
    if _writable(folder):
        path = files.make_folder(folder) / "disagreement.csv"
        files.replace(path, render.to_csv(table).encode())
        print(path, file=sys.stderr)


def _groups(targets: Sequence[str], store: Store) -> list[RunGroup]:
    """The runs that the targets name, each once, with its sweep's name where there are several. Raises InputError."""
    found = {target: runs_of(target, store) for target in targets}  # the errors; and what is the beginning of an id
    from dataclasses import replace

    from deit_ablate.report.frame import read_plan
    from deit_ablate.report.tables.tokens import RunGroup, groups

    several = len({target.split(":")[0] for target in targets}) > 1
    named: dict[tuple[tuple[str, ...], str], RunGroup] = {}
    for target, runs in found.items():
        sweep, *parts = target.split(":")
        is_id = len(runs) == 1 and runs[0].startswith(target)
        for group in [RunGroup(runs[0], (runs[0],))] if is_id else groups(read_plan(store, sweep), *parts):
            full = replace(group, name=f"{sweep}:{group.name}") if several and not is_id else group
            named.setdefault((group.runs, group.shows), full)
    return list(named.values())


def _folder(targets: Sequence[str], store: Store, inside: str) -> Path | None:
    """Where a report on a whole sweep lies; nowhere for a part of one, which would take that one's place."""
    whole = len(targets) == 1 and store.sweeps.plan(targets[0]) is not None
    return store.sweeps.folder(targets[0]) / inside if whole else None


def _writable(folder: Path | None) -> TypeGuard[Path]:
    if folder is None:
        print("nothing is written, as this is not one whole sweep: --out DIR says where to", file=sys.stderr)
    return folder is not None
