"""From what a user names (a sweep's file, a row, a seed, the first digits of an id) to the runs that a store has."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from deit_ablate import files
from deit_ablate.errors import InputError, did_you_mean
from deit_ablate.store.store import Store


def by_name(target: str, store: Store) -> str:
    """``sweep.yaml[:variant...]`` with the sweep's name under results for its file; any other target as it is.

    Raises InputError where no study of the file was run, or several were.
    """
    given = re.fullmatch(r"([^:]+\.ya?ml)(:.*)?", target, re.DOTALL)
    if given is None:
        return target
    path, names = Path(given[1]), store.sweeps.names()
    sources = {name: source_of(store, store.sweeps.sound_plan(name) or {}) for name in names}
    made = [name for name in names if path.exists() and sources[name].exists() and sources[name].samefile(path)]
    if path.stem in names and not sources[path.stem].exists():
        made = [path.stem]  # of a file that has moved since
    if not made and path.is_file():  # moved and renamed, or a copy
        made = [name for name in names if same_content(path, sources[name], store, name)]
    if len(made) > 1 and path.stem not in made:
        raise InputError(f"{len(made)} studies of it were run", where=given[1], expected=" or ".join(made))
    if not made:
        near = did_you_mean(path.stem, names)
        expected = f"a sweep that was run (`deit-ablate run {given[1]}`)" if path.is_file() else "a sweep's file"
        raise InputError(f"no sweep of this file in {store.root}{near}", where=given[1], expected=expected)
    return (path.stem if path.stem in made else made[0]) + (given[2] or "")


def same_content(path: Path, source: Path, store: Store, sweep: str) -> bool:
    """Whether a file has the content of that of which a sweep's plan.json was made, wherever either lies now."""
    content = (store.sweeps.sound_plan(sweep) or {}).get("content")
    if source.is_file() and path.read_bytes() == source.read_bytes():
        return True
    return not source.exists() and content is not None and content == files.sha256(path)


def asked_options(asked: Mapping[str, Any]) -> list[str]:
    """The options of a command line that asks for a study as plan.json says that it was ``asked`` for."""
    options = [("--profile", asked.get("profile")), *(("--set", value) for value in asked.get("sets") or ())]
    options += [("--seeds", asked.get("seeds")), ("--name", asked.get("name"))]
    return [word for option, value in options if value for word in (option, str(value))]


def source_of(store: Store, plan: Mapping[str, Any]) -> Path:
    """The file of which a plan.json is."""
    return Path(os.path.normpath(store.root.resolve() / (plan.get("source") or "")))


def runs_of(target: str, store: Store) -> list[str]:
    """The run ids that ``target`` names: a sweep (or its file), sweep:variant, sweep:variant:seed[:stage], or a prefix
    of one id."""
    if re.fullmatch(r"[0-9a-f]{4,16}", target):
        found = sorted(run for run in {*store.runs(), *planned_runs(store)} if run.startswith(target))
        if len(found) > 1:
            raise InputError(
                f"{target!r} is the beginning of {len(found)} runs: {', '.join(found[:5])}", expected="more digits"
            )
        if found:
            return found
    sweep, *parts = by_name(target, store).split(":")
    known = store.sweeps.plan(sweep) if re.match(r"[A-Za-z0-9]", sweep) and "/" not in sweep else None
    if known is None:
        raise InputError(
            f"no run or sweep {target!r} in {store.root}{did_you_mean(sweep, store.sweeps.names())}",
            expected="sweep:variant:seed, or the first digits of a run's id, 4 or more",
        )
    last = known["stages"][-1]["name"]
    found = []
    for variant, seed, stage, run in known["cells"]:
        wanted = [variant, str(seed), stage or last]
        if len(parts) == 2 and stage != last:
            continue
        if all(part in ("*", value) for part, value in zip(parts, wanted, strict=False)):
            found.append(run)
    if not found or len(parts) > 3:
        variants = [row["name"] for row in known["variants"]]
        hint = did_you_mean(parts[0], variants) if parts and parts[0] not in variants else ""
        raise InputError(
            f"no run {target!r}{hint}", expected=f"{sweep}:VARIANT:SEED, with one of {', '.join(variants[:20])}"
        )
    return list(dict.fromkeys(found))


def planned_runs(store: Store) -> dict[str, str]:
    """The runs of all plans, whether they have started or not, each with a sweep that it is of."""
    plans = {name: store.sweeps.sound_plan(name) or {"cells": []} for name in store.sweeps.names()}
    return {run: name for name, plan in plans.items() for *_, run in plan["cells"]}


def one_run(target: str, store: Store) -> str:
    """The one run that ``target`` names; sweep:variant is its last stage. Raises InputError where it names several."""
    found = runs_of(target, store)
    if len(found) > 1 and by_name(target, store).count(":") == 1:
        found = runs_of(f"{target}:*", store)
    if len(found) > 1:
        raise InputError(f"{target!r} names {len(found)} runs", expected="one run, such as sweep:variant:seed")
    return found[0]
