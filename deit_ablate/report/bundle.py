"""What a bundle holds (``store.bundle`` reads it): a sweep's records, what made them, and how to train a cell anew."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from deit_ablate import __version__, files
from deit_ablate.errors import Damaged, InputError, TrainError, unknown_name
from deit_ablate.identity import contents, hub_names, semantics_here, semantics_of
from deit_ablate.program import code_of, is_program, source_file, source_sha256
from deit_ablate.report.bundle_texts import Facts, lock, readme
from deit_ablate.report.html import content
from deit_ablate.report.html.page import written
from deit_ablate.report.summary import summarize
from deit_ablate.report.write import markdown
from deit_ablate.store import Store
from deit_ablate.store.archive import keep
from deit_ablate.store.bundle import MANIFEST, cheapest, pack, seconds, write_manifest
from deit_ablate.store.wheel import requirements, write_wheel
from deit_ablate.sweep.load import load_sweep
from deit_ablate.sweep.metrics import planned_metrics
from deit_ablate.sweep.overrides import PROFILES

MAKEFILE = Path(__file__).with_name("bundle_makefile.mk")
SMALL = 100 * 10**6
"""Bytes of all weights files together that go along unasked."""


@dataclass(frozen=True)
class Wanted:
    """A bundle, as a user asks for it."""

    store: Store
    sweep: str
    row: str | None = None
    """A row, which goes along with the baseline; None: all of them."""
    file: Path | None = None
    """The sweep's file, where it is still there."""
    weights: bool = False
    """Whether weights files go along whatever their size."""


@dataclass
class Made:
    """What a bundle that was written lacks, or tells, and its reader should know."""

    runs: int = 0
    warnings: list[str] = field(default_factory=list)


def write_bundle(wanted: Wanted, target: Path) -> Made:
    """Write a bundle to ``target``, a folder (new, or empty) or a zip archive (new). Raises InputError, and has then
    written nothing."""
    if os.path.lexists(target) and not (target.is_dir() and target.suffix != ".zip" and not any(target.iterdir())):
        raise InputError("exists already", where=(str(target), 0, 0), expected="a new or empty folder, or a new .zip")
    if not target.absolute().parent.is_dir():
        raise InputError("no such folder", where=(str(target.parent), 0, 0), expected="a folder to write into")
    there = target.is_dir()
    within = target if there else target.absolute().parent
    with tempfile.TemporaryDirectory(dir=within.resolve(), prefix=files.TEMPORARY) as temporary:
        folder = files.make_folder(Path(temporary) / "bundle")
        made = _fill(wanted, folder)
        if target.suffix == ".zip":
            pack(folder, target)
        elif there:  # and stays, as it may be a link, a mount or the folder of this process; what it is comes last
            for path in sorted(folder.iterdir(), key=lambda path: path.name == MANIFEST):
                os.rename(path, target / path.name)
        else:
            os.rename(folder, target)
    return made


def _fill(wanted: Wanted, folder: Path) -> Made:
    store, plan = wanted.store, wanted.store.sweeps.plan(wanted.sweep) or {}
    rows = list(dict.fromkeys([row["name"] for row in plan["variants"]] + [cell[0] for cell in plan["cells"]]))
    where = (wanted.sweep if wanted.row is None else f"{wanted.sweep}:{wanted.row}", 0, 0)
    if wanted.row is not None and wanted.row not in rows:
        raise unknown_name("no row", wanted.row, rows, where=where)
    run = cheapest(store, plan, wanted.row)
    if run is None:
        raise InputError("no run of it is done", where=where, expected="a row that was trained to its end")
    stored = store.recipe(run) or {"recipe": {}}
    if (semantics := semantics_of(run, stored)) != (here := semantics_here(stored["recipe"])):
        raise InputError(
            f"its recipes mean another training in this version (SEMANTICS {semantics}, here {here})",
            where=(wanted.sweep, 0, 0),
            expected="the version that trained them, or `deit-ablate keep`, which shares records alone",
        )
    chosen = rows if wanted.row is None else [wanted.row, plan["baseline"]]
    done = {cell[3] for cell in plan["cells"] if cell[0] in chosen and store.result(cell[3]) is not None}
    runs = sorted({each for run in done for each in store.lineage(run) if store.result(each) is not None})
    made = Made(len(runs))
    keep(store, wanted.sweep, files.make_folder(folder / "records"), runs)
    recipes = {}
    for each in runs:
        recipes[each] = store.recipe(each) or {}
        (files.make_folder(folder / "recipes") / f"{each}.json").write_bytes(files.to_json(recipes[each]))
    missing = _weights(wanted, recipes, folder, made)
    sources = _sources(wanted, plan, recipes, folder)
    summary = summarize(store, wanted.sweep)
    shown = content.read(summary, redact=True)
    assert shown.say.redactor
    say = shown.say.redactor
    _sweep_file(wanted, plan, folder, say)
    made.warnings += [
        f"{name} names a path, a host or an address, and goes along as it is: it is code, by its content in runs' ids"
        for name in sources
        if name.endswith(".py") and say(text := (folder / "sources" / name).read_text(errors="replace")) != text
    ]
    (folder / "report.html").write_text(written(shown), encoding="utf-8")
    (folder / "table.md").write_text(markdown(summary), encoding="utf-8")
    wheel = write_wheel(files.make_folder(folder / "package"))
    outcomes = {each: store.result(each) or {} for each in runs}
    facts = Facts(
        plan,
        wanted.row,
        run,
        recipes,
        outcomes,
        wheel.name,
        tuple(sources),
        missing,
        seconds(store, run),
        with_file=(folder / "sweep").is_dir(),
        with_weights=(folder / "weights").is_dir(),
    )
    (folder / "requirements.lock.txt").write_text(lock(facts, requirements()), encoding="utf-8")
    shutil.copyfile(MAKEFILE, folder / "Makefile")
    (folder / "README.md").write_text(readme(facts), encoding="utf-8")
    about = {"version": __version__, "semantics": semantics, "sweep": wanted.sweep, "row": wanted.row, "run": run}
    if is_program(stored["recipe"]):
        about["program"] = _program(wanted)
    write_manifest(folder, about)
    return made


def _weights(wanted: Wanted, recipes: Mapping[str, Any], folder: Path, made: Made) -> dict[str, str]:
    """Copy the weights files that recipes name, by content or as a model of timm's hub; those that do not go along,
    with why. Raises Damaged where a content is another by now."""
    kept = wanted.store.teacher_weights
    named = sorted({each for stored in recipes.values() for each in _named(stored["recipe"])})
    found = {name: kept.find(name) for name in named}
    missing = {name: "not in the store" for name, path in found.items() if path is None}
    there = {name: path for name, path in found.items() if path is not None}
    size = sum(path.stat().st_size for path in there.values())
    if size > SMALL and not wanted.weights:
        missing |= {name: f"{path.stat().st_size:,} bytes" for name, path in there.items()}
        made.warnings.append(f"weights files of {size:,} bytes are left out; --weights takes them along")
        there = {}
    for name, path in there.items():
        expected = name.removeprefix("sha256:") if name.startswith("sha256:") else kept.hub_sha256(name)
        if files.sha256(path) != expected:
            raise Damaged(path, f"not the content of {name}")
        shutil.copyfile(path, files.make_folder(folder / "weights") / path.name)
    return missing


def _named(recipe: Mapping[str, Any]) -> set[str]:
    """The files of a recipe: contents ("sha256:<hex>"), and the names of models out of timm's hub."""
    if "distill" not in recipe:
        return set()
    return contents(recipe) | {name for name in hub_names(recipe) if re.fullmatch(r"[\w.-]+", name)}


def _sources(wanted: Wanted, plan: Mapping[str, Any], recipes: Mapping[str, Any], folder: Path) -> list[str]:
    """Copy the code of one's own that runs and metrics are of; its paths. Raises InputError where it has changed."""
    copied: dict[str, Path] = {}
    for stored in recipes.values():
        for name, sha256 in stored["sources"].items():
            if name.startswith("./"):
                copied |= _beside(wanted.file, name, sha256)
                continue
            try:
                if source_sha256(name) != sha256:
                    raise TrainError(f"the source of {name} has changed since the runs were trained")
                copied |= _module(name.partition(":")[0])
            except TrainError as error:
                raise InputError(str(error), expected="the code that the runs are of, on PYTHONPATH") from None
    for metric in planned_metrics(plan):
        try:
            for module in {} if metric.figure else code_of(metric.name):
                copied |= _module(module)
        except TrainError as error:
            raise InputError(str(error), expected="the code of the metric, on PYTHONPATH") from None
    for name, path in copied.items():
        target = folder / "sources" / name
        shutil.copyfile(path, files.make_folder(target.parent) / target.name)
    return sorted(copied)


def _program(wanted: Wanted) -> dict[str, Any]:
    """How runs of a program are executed, as its sweep's file says, less where. Raises InputError."""
    told = load_sweep(wanted.file).execution.program if wanted.file is not None else None
    if told is None:
        problem = "nothing says how its program is run"
        raise InputError(problem, where=(wanted.sweep, 0, 0), expected="the file of the sweep")
    return told.model_dump(mode="json", exclude={"folder"})


def _module(module: str) -> dict[str, Path]:
    path = source_file(module)
    *above, last = module.split(".")
    package = path.name.partition(".")[0] == "__init__"
    inside = [*above, last, path.name] if package else [*above, path.name]
    return {"/".join(inside): path}


def _beside(file: Path | None, name: str, sha256: str) -> dict[str, Path]:
    """A program's source, whose name is its path seen from the sweep's file."""
    if file is None or not (file.parent / name).is_file():
        expected = "the sources of the runs, beside the sweep's file"
        raise InputError("no such file", where=(name, 0, 0), expected=expected)
    if source_sha256(name, file.parent) != sha256:
        expected = "the code that the runs are of, beside the sweep's file"
        raise InputError("it has changed since the runs were trained", where=(name, 0, 0), expected=expected)
    return {name.removeprefix("./"): file.parent / name}


def _sweep_file(wanted: Wanted, plan: Mapping[str, Any], folder: Path, say: Callable[[str], str]) -> None:
    """Copy the sweep's file, and the profiles beside it, without what is private."""
    if wanted.file is None:
        return
    for path in [wanted.file, *_profiles(wanted.file, plan)]:
        text = redacted_yaml(path.read_text(encoding="utf-8"), say)
        inside = files.make_folder(folder / "sweep" / path.parent.relative_to(wanted.file.parent))
        (inside / path.name).write_text(text, encoding="utf-8")


def redacted_yaml(text: str, say: Callable[[str], str]) -> str:
    """YAML with what is private replaced in its values and comments, which is YAML still."""
    made, at, key, last = "", 0, "", ""
    try:
        for token in yaml.scan(text):
            if isinstance(token, (yaml.KeyToken, yaml.ValueToken)):
                key = last if isinstance(token, yaml.ValueToken) else ""
            if not isinstance(token, yaml.ScalarToken):
                continue
            start, end, last = token.start_mark.index, token.end_mark.index, str(token.value)
            said = say(f"'{last}'").removeprefix("'").removesuffix("'")  # in quotes a path may have blanks
            said = say(f"{key}: {said}").removeprefix(f"{key}: ")  # its key may be all that tells of an account
            value = text[start:end] if said == last else json.dumps(said, ensure_ascii=False)
            made += _redacted_comments(text[at:start], say) + value
            at = end
    except yaml.YAMLError:  # edited since it was run
        return say(text)
    return made + _redacted_comments(text[at:], say)


def _redacted_comments(text: str, say: Callable[[str], str]) -> str:
    return re.sub("#.*", lambda found: say(found[0]), text)


def _profiles(file: Path, plan: Mapping[str, Any]) -> Iterator[Path]:
    text = file.read_text(encoding="utf-8")
    for path in sorted((file.parent / PROFILES).glob("*.yaml")):
        if path.stem == plan.get("profile") or re.search(rf"\b{re.escape(path.stem)}\b", text):
            yield path


def bundle_name(sweep: str, row: str | None) -> str:
    """The folder of a bundle where nobody names one."""
    return re.sub(r"[^\w.@+-]+", "-", "-".join(["bundle", sweep, *([row] if row is not None else [])]))
