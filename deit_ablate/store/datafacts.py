"""What a run's record says about its data, in words: for its log, the terminal, ``show`` and the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

SHOWN = 20
"""Classes up to which each is named with its pictures; of more, the smallest and the largest."""
RECORDED = 100
"""Classes up to which the record of a run has the pictures of each."""
PARTS = (("train", "training"), ("validation", "validation"), ("test", "test"))


def small(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts as each of ten thousand runs may record them: what is long stands under the data's id, once."""
    short = {key: value for key, value in facts.items() if key != "classes"}
    classes = short.get("per_class") or {}
    if len(classes) > RECORDED:
        del short["per_class"]
    return {**short, "class_count": len(classes)} if classes else short


def data_lines(facts: Mapping[str, Any]) -> list[str]:
    """Of data of one's own: classes, pictures by part and by class, where each part is from, what is not read. None
    for data sets that are known by name, and for records of earlier versions."""
    sources = facts.get("sources")
    return [_printable(line) for line in _lines(facts, sources)] if sources else []


def _lines(facts: Mapping[str, Any], sources: Mapping[str, str]) -> Iterator[str]:
    parts = (
        f"{facts.get(part, 0)} {word} ({sources[part]})" if part in sources else f"{facts.get(part, 0)} {word}"
        for part, word in PARTS
    )
    per_class = facts.get("per_class") or {}
    yield f"{facts.get('class_count', len(per_class))} classes; pictures: {', '.join(parts)}"
    if 0 < len(per_class) <= SHOWN:
        each = (f"{name} {'/'.join(map(str, counts))}" for name, counts in per_class.items())
        yield f"by class ({'/'.join(word for _, word in PARTS)}): {', '.join(each)}"
    elif per_class:
        columns = zip((word for _, word in PARTS), zip(*per_class.values(), strict=False), strict=False)
        yield f"by class: {', '.join(f'{word} {min(column)} to {max(column)}' for word, column in columns)}"
    if facts.get("ignored_hidden"):
        hidden = facts["ignored_hidden"]
        yield f"{hidden} hidden files or folders (.DS_Store, ._*, Thumbs.db, ...) are no part of the data"
    if facts.get("ignored_other"):
        kinds = {key[len("ignored_.") :]: value for key, value in facts.items() if key.startswith("ignored_.")}
        kinds = {kind: count for kind, count in kinds.items() if isinstance(count, int)}
        most = sorted(kinds.items(), key=lambda kind: (-kind[1], kind[0]))[:5]
        named = f" ({', '.join(f'.{kind} {count}' for kind, count in most)})" if most else ""
        yield f"{facts['ignored_other']} files are not read: their extensions are none of a picture's{named}"


def _printable(line: str) -> str:
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in line)
