"""``sweeps/x.yaml`` -> Sweep: what to vary, from which base, over which seeds and stages.

Every error carries file:line:column. Precedence of a recipe's layers, lowest first: Table 9, the profile,
``recipe``, ``--set``, the variant, ``by_profile``.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from pathlib import Path

from deit_ablate.errors import InputError, Position, Problems
from deit_ablate.execution import Execution, layered
from deit_ablate.recipe import flatten
from deit_ablate.sweep.comparisons import LOOKS
from deit_ablate.sweep.designs import Design, cumulative, factorial
from deit_ablate.sweep.fields import NAME, RESERVED, SweepFile, is_stem, is_sweep_name
from deit_ablate.sweep.labels import read_groups, read_labels
from deit_ablate.sweep.metrics import Metric, read_metric, read_metrics
from deit_ablate.sweep.overrides import validate
from deit_ablate.sweep.problems import check_layers
from deit_ablate.sweep.profiles import (
    check_by_profile,
    load_profile,
    of_by_profile,
    read_by_profile,
    split_stages,
    with_profile,
)
from deit_ablate.sweep.programs import ProgramFile, read_program
from deit_ablate.sweep.rows import KINDS, Row, grid_axes
from deit_ablate.sweep.space import read_search
from deit_ablate.sweep.stages import Stage, end_with, read_stages, seed_list
from deit_ablate.sweep.sweep import Sweep, Variant
from deit_ablate.sweep.trainers import OURS, Trainer
from deit_ablate.sweep.yaml import Node, assignment, assignments, expand_dotted, load

CONFIRMED_SEEDS = 5
"""Seeds on which a search's winners are trained, where the file does not say."""
Layer = Callable[[Node, Node | None], Node]
"""Puts one layer of overrides over another, both over the sweep's base."""
AUTOMATIC_SEEDS = {"factorial": 1}
"""Of the baseline: each effect of a factorial takes all rows alike, and more seeds of one would buy little."""


def load_sweep(
    path: Path,
    *,
    profile: str | None = None,
    sets: Sequence[str] = (),
    seeds: int | None = None,
    name: str | None = None,
    until_decided: bool = False,
) -> Sweep:
    """Read a sweep file. Raises InputError with the place of what is wrong: of all that can be told at once.

    ``until_decided``: with the seeds of all looks, the usual ones (``comparisons.LOOKS``) where the file has none.
    """
    node, problems = load(path), Problems()
    with problems.at():
        stem = _stem(path, name)
    with problems.at():
        parsed = validate(SweepFile, node)
        program = read_program(node, parsed, path)
    with problems.at():
        kind = _kind(node)
    check_layers(node, problems)
    problems.refuse()
    trainer = program.trainer if program else OURS
    chosen = profile or parsed.profile
    base, execution = _base(node, path, program, chosen or None, asked=bool(profile))
    by_profile = read_by_profile(node, path.parent)
    over = by_profile.get(chosen or "", Node({}, node.where))
    parsed = with_profile(parsed, over, chosen)
    base = trainer.layer(trainer.layer(base, expand_dotted(node.part("recipe"))), over.get("recipe"))
    looks, all_seeds = _looks_and_seeds(node, over, parsed, seeds, until_decided)
    every_stage = read_stages(node, parsed.stages, all_seeds, over.value, trainer)
    stages = {of: end_with(every_stage, part, of) for of, part in by_profile.items()}.get(chosen or "", every_stage)
    names = [stage.name for stage in every_stage if stage.name]
    base, stages = _set(base, stages, given := assignments(sets), trainer, names)

    metric = program.metric if program else read_metric(node)
    lay = partial(trainer.layer, base=base)
    every_change = _variants(node, kind, names, over, trainer, lay)
    check_by_profile(by_profile, [change.name for change in every_change], names, parsed.search is not None)
    first = every_change[0].name if kind in KINDS and KINDS[kind].from_baseline else None
    changes = _of_stages(every_change, [stage.name for stage in stages], {first, parsed.baseline})
    whole, design = _designs(node, kind, every_change, changes, parsed, until_decided, lay)
    variants = changes if design is None else _combined(changes, design, node.keys[kind], lay)
    _must_fit(metric, variants, kind)
    rows = [variant.name for variant in variants]
    left_out = {*names, *_named(every_change, whole)} - {*(stage.name for stage in stages), *_named(changes, design)}
    baseline = _baseline(node, parsed.baseline or first, rows, left_out)
    for other in by_profile.values():
        read_search(node, other.get("search"), rows, (), trainer, left_out)
    _must_have_seeds(node, stages[-1], seeds)
    if until_decided:
        _must_have_looks(node, baseline, stages[-1], all_seeds)
    sweep = Sweep(
        name=name or _folder(stem, profile if profile != parsed.profile else None, given),
        file=path,
        base=base,
        stages=stages,
        variants=variants,
        trainer=trainer,
        kind=kind,
        title=parsed.title or stem,
        profile=chosen,
        metric=metric,
        metrics=() if program else read_metrics(node, metric),
        margin=parsed.margin,
        population=_population(node, parsed, baseline, metric, until_decided),
        looks=tuple(looks) if looks else None,
        until_decided=until_decided,
        baseline=baseline,
        baseline_seeds=AUTOMATIC_SEEDS.get(kind) if parsed.baseline_seeds == "auto" else parsed.baseline_seeds,
        design=design if kind == "factorial" or (design and design.orders) else None,
        execution=layered(execution, parsed.execution),
        resources=parsed.resources,
        search=read_search(node, over.get("search"), rows, stages[-1].seeds, trainer, left_out),
        sets=tuple(map(assignment, sets)),
    )
    sweep = _shown(sweep, node, parsed, left_out)
    return program.over(sweep, node) if program else sweep


def _base(
    node: Node, path: Path, program: ProgramFile | None, profile: str | None, asked: bool
) -> tuple[Node, Execution]:
    """What the rows' recipes lie over; ``asked``: the profile is the command line's. Raises InputError."""
    if profile is None:
        return program.trainer.defaults if program else Node({}, node.where), Execution()
    where = ("--profile", 0, 0) if asked else node.locate("profile")
    if program:
        problem = "a program trains, and profiles are recipes of our trainer"
        raise InputError(problem, where=where, expected="none, or --set")
    return load_profile(profile, path.parent, where)


def _shown(sweep: Sweep, node: Node, parsed: SweepFile, left_out: Set[str]) -> Sweep:
    """With what its rows are called, and how they are grouped, but for the stages and rows that the profile leaves out.
    Raises InputError, for resources of no row, too."""
    rows = [variant.name for variant in sweep.variants]
    known = [*(stage.name for stage in sweep.stages if stage.name), *rows, *left_out]
    for name in (name for name in parsed.resources if name not in known):
        raise node.unknown(("resources", name), "no row or stage", name, known)
    axes = grid_axes(node.value[sweep.kind]) if sweep.kind == "grid" else ()
    factors = list(sweep.design.factors) if sweep.design else []
    labels = {name: label for name, label in (parsed.labels or {}).items() if name not in left_out}
    groups = {heading: [row for row in of if row not in left_out] for heading, of in (parsed.groups or {}).items()}
    read_labels(node, labels, rows, [key for key, _ in axes] + factors)
    read_groups(node, groups, rows, sweep.kind)
    return replace(sweep, labels=labels, groups=groups, axes=axes)


def _looks_and_seeds(
    node: Node, over: Node, parsed: SweepFile, seeds: int | None, until_decided: bool
) -> tuple[list[int] | None, tuple[int, ...]]:
    """When rows are looked at, and the seeds of a stage that names none; ``over``: the profile's part. Raises
    InputError."""
    default_seeds = CONFIRMED_SEEDS if parsed.search and "seeds" not in parsed.model_fields_set else parsed.seeds
    looks = parsed.looks or (list(LOOKS) if until_decided else None)
    if until_decided and parsed.search is not None:
        expected = "no --until-decided or --budget (a search has `trials` and `timeout`)"
        raise node.error("search", "a search is not run until its rows are decided", expected, at_key=True)
    if until_decided and seed_list(parsed.seeds) != tuple(range(len(seed_list(parsed.seeds)))):
        problem = f"looks are at the seeds 0, 1, 2, ..., not at {parsed.seeds}"
        raise (over if "seeds" in over.value else node).error("seeds", problem, "a number of seeds")
    planned = range(looks[-1]) if until_decided and looks else {*seed_list(default_seeds), *range(seeds or 0)}
    return looks, tuple(sorted(planned))


def _must_fit(metric: Metric, variants: Sequence[Variant], kind: str) -> None:
    """Raises InputError for a row that shows another figure than the metric's."""
    for variant in variants:
        if not metric.fits(variant.shows):
            problem = f"the row shows another figure ({variant.shows}) than `metric: {metric.name}`"
            expected = "`metric: top1` beside rows with `shows`, or rows without"
            raise InputError(problem, where=variant.where, key=f"{kind}.{variant.name}.shows", expected=expected)


def _baseline(node: Node, baseline: str | None, rows: Sequence[str], left_out: Set[str]) -> str | None:
    if baseline is not None and baseline not in rows:
        problem = "the profile's last_stage leaves out the row" if baseline in left_out else "no row"
        raise node.unknown("baseline", problem, baseline, rows)
    return baseline


def _must_have_looks(node: Node, baseline: str | None, final: Stage, seeds: tuple[int, ...]) -> None:
    """Raises InputError for a sweep in which nothing is compared, or seeds are not those of the looks."""
    if baseline is None:
        expected = "the name of a row, or no --until-decided or --budget"
        raise node.error("baseline", "no row is compared with a baseline, so none is ever decided", expected)
    if final.seeds != seeds:
        problem = "the last stage has seeds of its own, and looks have theirs"
        raise node.error(("stages", final.name, "seeds"), problem, "no `seeds` in this stage")


def _must_have_seeds(node: Node, final: Stage, seeds: int | None) -> None:
    """Raises InputError where the last stage has fewer seeds of its own than ``--seeds`` asks for."""
    if not set(range(seeds or 0)) <= set(final.seeds):
        problem = f"the last stage has seeds of its own, and --seeds {seeds} asks for others"
        raise node.error(("stages", final.name, "seeds"), problem, "no `seeds` in this stage, or no --seeds")


def _population(node: Node, parsed: SweepFile, baseline: str | None, metric: Metric, until_decided: bool) -> bool:
    """Whether rows are judged for new images. Raises InputError where they cannot be."""
    problem = expected = ""
    if baseline is None:
        problem, expected = "there is no baseline", "a baseline, with which rows are compared"
    elif parsed.looks or until_decided:
        problem = "looks are at the noise of training alone"
        expected = "`population` without `looks`" if parsed.looks else "no --until-decided or --budget beside it"
    elif metric.lacks_images:
        problem = metric.lacks_images
        expected = "`metric: top1`, a head, or a function of your own that returns a number for each image"
        if metric.program:
            expected = '`predictions:`, a file of its predictions, and `unit: "%"`, in `metrics`'
    if parsed.population and problem:
        raise node.error("population", f"population: true, but {problem}", expected)
    return parsed.population


def _stem(path: Path, name: str | None) -> str:
    stem = name or path.stem
    where = ("--name", 0, 0) if name else (str(path), 0, 0)
    if stem.lower() in RESERVED:
        raise InputError(f"{stem!r} is a folder of the store itself", where=where, expected="another name (--name)")
    if not (is_sweep_name(stem) if name else is_stem(stem)):  # a study's folder goes by its whole name, too
        problem = f"{stem!r} cannot name a folder of results"
        raise InputError(problem, where=where, expected="letters, digits, '.', '_' and '-'")
    return stem


def _folder(stem: str, other_profile: str | None, given: Node) -> str:
    """``<stem>[@profile][+hash of --set]``: another study, another folder."""
    folder = f"{stem}@{other_profile}" if other_profile else stem
    if given.value:
        folder += "+" + hashlib.sha256(json.dumps(given.plain(), sort_keys=True).encode()).hexdigest()[:6]
    return folder


def _set(
    base: Node, stages: tuple[Stage, ...], given: Node, trainer: Trainer, names: Sequence[str]
) -> tuple[Node, tuple[Stage, ...]]:
    """What ``--set`` gives: over the recipe of all rows, and over that of each stage with whose name a key begins;
    ``names``: of the stages at every profile."""
    of_all, by_stage = split_stages(given, names)
    trainer.check(of_all)
    base = trainer.layer(base, of_all)
    for name, part in by_stage.items():
        if name not in [stage.name for stage in stages]:
            problem = f"under this profile the sweep ends with {stages[-1].name!r}, before {name!r}"
            raise given.error(name, problem, "a key of the recipe, or of a stage that is run", at_key=True)
        trainer.check(part, prefix=f"{name}.")
    lay = partial(trainer.layer, base=base)
    changed = (replace(stage, overrides=lay(stage.overrides, by_stage.get(stage.name))) for stage in stages)
    return base, tuple(changed)


# -- rows ----------------------------------------------------------------------------------------------------------


def _kind(node: Node) -> str:
    """The one kind of sweep that a file is; "search" for one that has no other rows."""
    given = [kind for kind in KINDS if node.get(kind) is not None and node.value[kind].value is not None]
    if node.get("search") is not None:
        if given not in ([], ["variants"]):
            expected = "`variants`, each of which is searched, or none"
            raise node.error(given[0], f"a search beside {given[0]}", expected, at_key=True)
        return "variants" if given else "search"
    if len(given) != 1:
        found, expected = " and ".join(given) or "none of them", "exactly one of " + ", ".join([*KINDS, "search"])
        raise node.error(given[1] if given else "variants", f"{found} given", expected, at_key=True)
    return given[0]


def _variants(
    node: Node, kind: str, stages: Sequence[str], over: Node, trainer: Trainer, lay: Layer
) -> tuple[Variant, ...]:
    """The rows of the file, with what the profile changes about them (``over``)."""
    place = node.keys[kind]
    variants: dict[str, Variant] = {}
    if trainer is not OURS and isinstance(node.part(kind).value, list):
        expected = "names with overrides, as `no mixup: {mixup: 0}`"
        raise node.error(kind, "a parameter of a program has no off value that is known", expected)
    taken = (*stages, "recipe", *of_by_profile(node))
    for row in [("tuned", Node({}, place), place)] if kind == "search" else _rows(kind, node.value[kind]):
        name, _, where = row
        problem, expected = "", ""
        if not re.fullmatch(NAME, name):
            problem, expected = f"{name!r} cannot name a row", "letters, digits, spaces and . _ + = , -"
        elif name in taken:
            problem, expected = f"{name!r} is the name of a stage or a block, or a key of by_profile", "another name"
        elif name in variants:
            problem, expected = f"two rows are called {name!r}", "different names"
        if problem:
            raise InputError(problem, where=where, key=kind, expected=expected)
        variants[name] = _variant(kind, row, stages, over.get(name), trainer, lay)
    if not variants:
        raise InputError("an empty sweep", where=place, key=kind, expected="at least one row")
    return tuple(variants.values())


def _rows(kind: str, node: Node) -> Iterator[Row]:
    try:
        yield from KINDS[kind].rows(node)
    except InputError as error:
        raise error.under(f"{kind}." if error.key else kind) from None


def _variant(kind: str, row: Row, stages: Sequence[str], over: Node | None, trainer: Trainer, lay: Layer) -> Variant:
    name, overrides, where = row
    key = f"{kind}.{name}"
    if not isinstance(overrides.value, dict):
        problem = f"got {overrides.plain()!r}"
        raise InputError(problem, where=overrides.where, key=key, expected="a mapping of overrides, or {}")
    whole, by_stage = split_stages(expand_dotted(overrides), stages)
    shows = whole.get("shows") if trainer is OURS else None
    if shows is not None:
        if shows.value not in ("class", "distillation", "ema"):
            raise whole.error("shows", f"got {shows.plain()!r}", "class, distillation or ema", under=f"{key}.")
        whole = whole.without("shows")
    if over is not None:
        over, above = split_stages(over, stages)
        by_stage = _over_stages(by_stage, above, lay)
    return Variant(name, where, whole, over, by_stage, shows.value if shows else None)


def _of_stages(variants: tuple[Variant, ...], stages: Sequence[str], needed: Set[str | None]) -> tuple[Variant, ...]:
    """Without what rows change in stages that the profile leaves out, and without the rows that change nothing else,
    but for those that are ``needed``, as others are compared with them."""
    kept = []
    for variant in variants:
        by_stage = {name: part for name, part in variant.by_stage.items() if name in stages}
        own = variant.overrides.value or (variant.by_profile and variant.by_profile.value) or variant.shows
        if own or by_stage or not variant.by_stage or variant.name in needed:
            kept.append(replace(variant, by_stage=by_stage))
    if not kept:
        expected = "a row that changes a stage up to the profile's last_stage"
        raise InputError("no row is left", where=variants[0].where, expected=expected)
    return tuple(kept)


def _over_stages(lower: Mapping[str, Node], upper: Mapping[str, Node], lay: Layer) -> dict[str, Node]:
    return {**lower, **{stage: lay(lower.get(stage, Node({}, part.where)), part) for stage, part in upper.items()}}


def _named(changes: Sequence[Variant], design: Design | None) -> set[str]:
    """What a file may call these rows, and those that combine them, with the factors."""
    return {*(change.name for change in changes), *((*design.rows, *design.factors) if design else ())}


def _designs(
    node: Node,
    kind: str,
    every_change: Sequence[Variant],
    changes: Sequence[Variant],
    parsed: SweepFile,
    until_decided: bool,
    lay: Layer,
) -> tuple[Design, Design] | tuple[None, None]:
    """Which rows combine which changes (all but the baseline, the first): of every one, and of those that are left
    under the profile. Raises InputError for what goes with none."""
    combines = KINDS[kind].combines if kind in KINDS else None
    for key, of in (("fraction", "factorial"), ("orders", "cumulative")):
        if key != combines and node.get(key) is not None and node.value[key].value is not None:
            raise node.error(key, f"got {key} beside {kind}", f"{of}, or no {key}", at_key=True)
    if combines is None:
        return None, None
    names = [change.name for change in every_change[1:]]
    left_out = {*names} - {change.name for change in changes}
    key = combines if node.get(combines) is not None else kind
    try:
        whole, design = (
            cumulative(names, parsed.orders, left) if combines == "orders" else factorial(names, parsed.fraction, left)
            for left in (frozenset[str](), left_out)
        )
    except InputError as error:
        raise node.error(key, error.problem, error.expected, at_key=True) from None
    if design.orders or combines == "fraction":
        if parsed.looks or until_decided:
            problem = f"looks at {'a factorial' if combines == 'fraction' else 'several orders'}"
            expected = "no looks (--until-decided, --budget): what is told of a change takes many rows"
            raise node.error("looks" if parsed.looks else key, problem, expected, at_key=True)
        for one, other in itertools.combinations(changes[1:], 2):
            keys = {key for key, _ in _given(_over(one, other, lay)) ^ _given(_over(other, one, lay))}
            if keys:
                problem = f"{one.name!r} and {other.name!r} both change {min(keys)}, and differently"
                raise InputError(problem, where=other.where, key=kind, expected="changes that combine in any order")
    return whole, design


def _given(variant: Variant) -> set[tuple[str, str]]:
    """What a row sets: (key, value in words)."""
    parts = {"": variant.overrides, **{f"{stage}.": part for stage, part in variant.by_stage.items()}}
    given = {(stage + key, repr(value)) for stage, part in parts.items() for key, value in flatten(part.plain())}
    return given | {("shows", repr(variant.shows))}


def _over(lower: Variant, upper: Variant, lay: Layer) -> Variant:
    """A change on top of another, each with what the profile makes of it."""
    below, above = (lay(change.overrides, change.by_profile) for change in (lower, upper))
    by_stage = _over_stages(lower.by_stage, upper.by_stage, lay)
    shows = upper.shows or lower.shows
    return replace(upper, overrides=lay(below, above), by_profile=None, by_stage=by_stage, shows=shows)


def _combined(changes: Sequence[Variant], design: Design, where: Position, lay: Layer) -> tuple[Variant, ...]:
    made = []
    for name, numbers in design.rows.items():
        if not re.fullmatch(NAME, name):
            raise InputError(f"a row would be called {name!r}", where=where, expected="names that are 200 together")
        row = functools.reduce(partial(_over, lay=lay), (changes[1 + number] for number in numbers), changes[0])
        made.append(replace(row, name=name))
    return tuple(made)
