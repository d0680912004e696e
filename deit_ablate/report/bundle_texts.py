"""The texts of a bundle: its README and lock file."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deit_ablate import __version__
from deit_ablate.errors import few
from deit_ablate.launch.cost import duration
from deit_ablate.names import fact
from deit_ablate.report.html.markup import environment

LEVEL = 0.95
"""Of the prediction interval, in which one more run of a row is expected."""


@dataclass(frozen=True)
class Facts:
    """What a bundle's texts are made of."""

    plan: Mapping[str, Any]
    row: str | None
    run: str
    """The cell that ``make reproduce`` trains anew."""
    recipes: Mapping[str, Mapping[str, Any]]
    """Of each run, what recipe.json holds."""
    outcomes: Mapping[str, Mapping[str, Any]]
    wheel: str
    sources: tuple[str, ...]
    missing: Mapping[str, str]
    """Weights files (content, or a name on timm's hub) that do not go along -> why."""
    seconds: float | None
    """What the cell took, with the runs that it depends on."""
    with_file: bool
    with_weights: bool

    def provenance(self, run: str) -> Mapping[str, Any]:
        return self.outcomes[run].get("provenance") or {}

    def names(self, run: str) -> list[str]:
        """variant:seed[:stage] of a run, in the rows that it is of."""
        cells = (cell for cell in self.plan["cells"] if cell[3] == run)
        return [":".join([variant, str(seed), *([stage] if stage else [])]) for variant, seed, stage, _ in cells]


def lock(facts: Facts, installed: Mapping[str, str]) -> str:
    """requirements.lock.txt. ``installed``: what the package needs -> the version here, or ""."""
    own = facts.provenance(facts.run)
    recorded: Mapping[str, str] = own.get("packages") or {}
    others = Counter(
        f"{name} {version}"
        for run in facts.outcomes
        for name, version in (facts.provenance(run).get("packages") or {}).items()
        if recorded.get(name) != version
    )
    lines = [f"# Python {own.get('python', 'of a version that is not recorded')}. As recorded by the run {facts.run}:"]
    for name, version in recorded.items():
        public, _, build = version.partition("+")
        lines.append(f"{name}=={public}" + (f"  # recorded: {version}" if build else ""))
    lines += [f"# {runs} other runs here: {which}" for which, runs in sorted(others.items())]
    more = {name: version for name, version in installed.items() if _key(name) not in map(_key, recorded)}
    if more:
        lines.append("# Recorded by no run: as installed where this bundle was made.")
        lines += [f"{name}=={version.partition('+')[0]}" if version else name for name, version in more.items()]
    return "\n".join([*lines, f"./package/{facts.wheel}", ""])


def _key(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def readme(facts: Facts) -> str:
    """README.md, for somebody who has never heard of deit-ablate."""
    plan, run = facts.plan, facts.run
    which = "all rows"
    if facts.row is not None:
        against = plan["baseline"] if facts.row != plan["baseline"] else None
        which = f"the row `{_line(facts.row)}`" + (f" and the baseline `{_line(against)}`" if against else "")
    private = "as it was when this was put together; paths, hosts and names are replaced by words such as [path]"
    return (
        environment()
        .get_template("bundle_readme.md.j2")
        .render(
            facts=facts,
            title=_line(plan["title"] or plan["sweep"]),
            sweep=_line(plan["sweep"]),
            which=which,
            done=sum(outcome["status"] == "done" for outcome in facts.outcomes.values()),
            version=__version__,
            name=_line(facts.names(run)[0]),
            time=duration(facts.seconds),
            level=f"{LEVEL:.0%}",
            needs=list(_needs(facts)),
            file=f"the file of the study, {private}" if facts.with_file else "nothing: the study's file was gone",
            weights=facts.with_weights,
            runs=[(each, _names(facts.names(each)), outcome["status"]) for each, outcome in facts.outcomes.items()],
        )
    )


def _needs(facts: Facts) -> Iterator[str]:
    own = facts.provenance(facts.run)
    hardware = own.get("hardware") or {}
    machine = hardware.get("gpu") or hardware.get("cpu") or "hardware that is not recorded"
    yield f"Python {own.get('python', '3')}. The run was trained on {_line(machine)}."
    known = set()
    for run, stored in facts.recipes.items():
        data, found = stored["recipe"].get("data") or {}, facts.outcomes[run].get("data") or {}
        about = data.get("id") or data.get("name"), found.get("fingerprint")
        if about in known or not about[0]:
            continue
        known.add(about)
        inside = fact("datasets", data.get("name") or "", "folder") is None and ":" not in str(data.get("name"))
        where = "part of the package" if inside else "not in this bundle: `--data-dir` says where they are"
        yield f"The data `{_line(about[0])}` (fingerprint `{about[1]}`), {where}."
    for content, why in facts.missing.items():
        how = "`--file PATH` gives it" if content.startswith("sha256:") else "it comes from timm's hub"
        yield f"A weights file, `{_line(content)}`, which is not in this bundle ({why}): {how}."
    if facts.sources:
        yield "What the code in `sources/` imports beside this package, which nothing records."


def _names(names: Sequence[str]) -> str:
    """A few of them, in a cell of a table."""
    return _line(few(names, 3)).replace("|", "\\|")


def _line(text: str) -> str:
    """Without line breaks, and without what Markdown would read as a heading's or code's end."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f`]+", " ", str(text)).strip()
