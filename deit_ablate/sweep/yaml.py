"""YAML with positions: every value remembers the file, line and column it was written at.

Scalars follow YAML 1.2's core schema (``5e-4`` is a number, ``no`` is a string); PyYAML composes the
nodes and resolves no scalar. Merge keys (``<<: *anchor``) are YAML 1.1's. Tags are refused, duplicate
keys are refused, and size, depth and the number of values (aliases counted each time they are
used) are bounded, so that a hostile file costs no more than a long one.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deit_ablate.errors import InputError, Position, did_you_mean, unknown_name

MAX_BYTES = 4 * 1024 * 1024
MAX_VALUES = 400_000
MAX_DEPTH = 40
MERGE = "<<"
"""The key that merges other mappings in."""
SHARED = "x-"
"""What the top-level keys begin with that hold anchors for other places of the file, and are not read themselves."""


@dataclass(slots=True)
class Node:
    """A YAML value with its place. ``value`` is a dict of Nodes, a list of Nodes or a scalar."""

    value: Any
    where: Position
    keys: dict[str, Position] = field(default_factory=dict)

    def plain(self) -> Any:
        if isinstance(self.value, dict):
            return {key: child.plain() for key, child in self.value.items()}
        if isinstance(self.value, list):
            return [child.plain() for child in self.value]
        return self.value

    def get(self, key: str) -> Node | None:
        return self.value.get(key) if isinstance(self.value, dict) else None

    def items(self) -> Iterator[tuple[str, Node]]:
        """Of a mapping; of anything else there are none."""
        yield from self.value.items() if isinstance(self.value, dict) else ()

    def part(self, key: str) -> Node:
        """As ``get``; an empty mapping where nothing is written."""
        return self.get(key) or Node({}, self.where)

    def without(self, *keys: str) -> Node:
        """The mapping less these keys; itself where it has none of them."""
        if not any(self.get(key) for key in keys):
            return self
        return Node({key: child for key, child in self.items() if key not in keys}, self.where, self.keys)

    def has(self, path: Sequence[str]) -> bool:
        """Whether a value is written at ``path``."""
        node: Node | None = self
        for step in path:
            node = node.get(step) if node is not None else None
        return node is not None

    def locate(self, path: Path_, *, at_key: bool = False) -> Position:
        """The position of the value (or key) at ``path``, or of the deepest existing value on the way."""
        node, path = self, (path,) if isinstance(path, str) else path
        for depth, step in enumerate(path):
            last = depth == len(path) - 1
            if isinstance(node.value, dict) and step in node.value:
                if last and at_key and step in node.keys:
                    return node.keys[str(step)]
                node = node.value[step]
            elif isinstance(node.value, list) and isinstance(step, int) and step < len(node.value):
                node = node.value[step]
            else:
                break
        return node.where

    def error(
        self, path: Path_, problem: str, expected: str = "", *, under: str = "", at_key: bool = False
    ) -> InputError:
        """An error at the value (or key) at ``path``, which the message names, with ``under`` before it."""
        key = under + dotted(path) if path else under.rstrip(".")
        return InputError(problem, where=self.locate(path, at_key=at_key), key=key, expected=expected)

    def unknown(self, path: Path_, problem: str, name: str, known: Sequence[str], *, under: str = "") -> InputError:
        """As ``errors.unknown_name``, at the value or, where that is named, at the key at ``path``."""
        where = self.locate(path, at_key=name in (dotted(path), path[-1]))
        return unknown_name(problem, name, known, where=where, key=under + dotted(path))


Path_ = str | Sequence[str | int]
"""Where in a node: one key, or several."""


def dotted(path: Path_) -> str:
    return path if isinstance(path, str) else ".".join(map(str, path))


def placed(value: Any, where: Position) -> Node:
    """A plain value as nodes that are all at one place."""
    if isinstance(value, dict):
        return Node({key: placed(child, where) for key, child in value.items()}, where, dict.fromkeys(value, where))
    return Node([placed(child, where) for child in value] if isinstance(value, list) else value, where)


_INT = re.compile(r"[-+]?[0-9]+\Z")
_BASED = re.compile(r"0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?\Z")
_CONSTANTS: dict[str, Any] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), float("inf")),
    **dict.fromkeys(("-.inf", "-.Inf", "-.INF"), float("-inf")),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


def scalar(text: str) -> Any:
    """A plain scalar by YAML 1.2's core schema."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if len(text) <= 64:  # no number that we mean is longer, and int() is quadratic
        if _INT.match(text):
            return int(text)
        if _BASED.match(text):
            return int(text, 0)
        if _FLOAT.match(text):
            return float(text)
    return text


class _Reader:
    """Turns PyYAML's nodes into ours, with what is refused."""

    def __init__(self, file: str):
        self.file, self.values = file, 0
        self.made: dict[int, tuple[Node, int]] = {}
        """By the id of PyYAML's node, which an alias shares: ours, and how many values it has."""

    def where(self, found: Any) -> Position:
        return (self.file, found.start_mark.line + 1, found.start_mark.column + 1)

    def node(self, found: Any, depth: int = 0) -> Node:
        where, before = self.where(found), self.values
        if depth > MAX_DEPTH:
            raise InputError("nested too deeply", where=where, expected=f"at most {MAX_DEPTH} levels")
        known, size = self.made.get(id(found), (None, 1))
        self.values += size
        if self.values > MAX_VALUES:
            raise InputError(f"more than {MAX_VALUES} values once aliases are expanded", where=where)
        if known is not None:
            return known
        if found.tag is not None:
            raise InputError(f"the YAML tag {found.tag!r}", where=where, expected="a plain value without a tag")
        if found.id == "scalar":
            node = Node(found.value if found.style else scalar(found.value), where)
        elif found.id == "sequence":
            node = Node([self.node(child, depth + 1) for child in found.value], where)
        else:
            node = self.mapping(found, where, depth)
        self.made[id(found)] = (node, self.values - before)
        return node

    def mapping(self, found: Any, where: Position, depth: int) -> Node:
        node, merged = Node({}, where), Node({}, where)
        for written, value in found.value:
            key, place = written.value, self.where(written)
            if written.id != "scalar":
                raise InputError("a key that is not a plain scalar", where=place, expected="text without brackets")
            into = merged if key == MERGE and not written.style else node
            if key in into.value:
                first = into.keys[key]
                raise InputError(f"the key {key!r} is given twice (first on line {first[1]})", where=place, key=key)
            into.keys[key] = place
            into.value[key] = self.node(value, depth + 1)
        return _with_merged(node, merged.get(MERGE))


def _with_merged(node: Node, merged: Node | None) -> Node:
    """A mapping with the keys that its ``<<: *anchor`` adds to its own; of a list of anchors the first counts most."""
    if merged is None:
        return node
    for each in merged.value if isinstance(merged.value, list) else [merged]:
        if not isinstance(each.value, dict):
            raise InputError("nothing to merge", where=each.where, key=MERGE, expected="a mapping, or a list of them")
        node.value |= {key: child for key, child in each.value.items() if key not in node.value}
        node.keys |= {key: place for key, place in each.keys.items() if key not in node.keys}
    return node


def parse(text: str, file: str) -> Node:
    """Parse YAML text. Raises InputError with the place of the first thing that is wrong."""
    import yaml

    try:
        loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)(text)
        loader.resolve = lambda kind, value, implicit: None  # no tags but those that are written
        found = loader.get_single_node()
        return _Reader(file).node(found) if found is not None else Node(None, (file, 1, 1))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = (file, mark.line + 1, mark.column + 1) if mark else (file, 1, 1)
        problem = getattr(error, "problem", None) or str(error).split("\n")[0]
        raise InputError(f"not valid YAML ({problem})", where=where) from None
    except RecursionError:
        raise InputError("nested too deeply", where=(file, 1, 1)) from None


def load(path: Path) -> Node:
    """Read and parse a YAML (or JSON) file. Raises InputError where it cannot be read or is not a mapping."""
    file = str(path)
    try:
        with open(path, "rb") as handle:
            raw = handle.read(MAX_BYTES + 1)
    except FileNotFoundError:
        siblings = [p.name for p in path.parent.glob("*.yaml")] if path.parent.is_dir() else []
        raise InputError("no such file" + did_you_mean(path.name, siblings), where=(file, 0, 0)) from None
    except IsADirectoryError:
        raise InputError("is a folder", where=(file, 0, 0), expected="a YAML file") from None
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=(file, 0, 0)) from None
    if len(raw) > MAX_BYTES:
        raise InputError("too large", where=(file, 0, 0), expected=f"at most {MAX_BYTES // 1024**2} MiB")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InputError("not UTF-8 text", where=(file, line, 1)) from None
    node = parse(text, file)
    if node.value is None:
        raise InputError("the file is empty", where=node.where, expected="keys and values, such as `title: ...`")
    if not isinstance(node.value, dict):
        raise InputError("not a mapping", where=node.where, expected="keys and values, such as `title: ...`")
    return node.without(*(key for key in node.value if key.startswith(SHARED)))


def expand_dotted(node: Node) -> Node:
    """``optimizer.base_lr: 1`` as ``optimizer: {base_lr: 1}``; both spellings of one key are an error."""
    if not isinstance(node.value, dict):
        return node
    result = Node({}, node.where)
    for key, child in node.value.items():
        place, child = node.keys.get(key, child.where), expand_dotted(child)
        head, *rest = key.split(".")
        for part in reversed(rest):
            child = Node({part: child}, child.where, {part: place})
        if head not in result.value:
            result.value[head], result.keys[head] = child, place
        else:
            _join(result.value[head], child, head, place)
    return result


def _join(into: Node, new: Node, path: str, place: Position) -> None:
    if not (isinstance(into.value, dict) and isinstance(new.value, dict)):
        raise InputError(f"the key {path!r} is given twice", where=place, key=path)
    into.value, into.keys = dict(into.value), dict(into.keys)
    for key, child in new.value.items():
        if key in into.value:
            _join(into.value[key], child, f"{path}.{key}", new.keys.get(key, child.where))
        else:
            into.value[key], into.keys[key] = child, new.keys.get(key, child.where)


def merge(lower: Node, upper: Node) -> Node:
    """``upper`` over ``lower``: mappings are merged key by key, all else is replaced."""
    if not (isinstance(lower.value, dict) and isinstance(upper.value, dict)):
        return upper
    result = Node(dict(lower.value), upper.where, dict(lower.keys))
    for key, child in upper.value.items():
        below = result.value.get(key)
        result.value[key] = merge(below, child) if below is not None else child
        result.keys[key] = upper.keys.get(key, child.where)
    return result


def assignment(text: str, option: str = "--set") -> Node:
    """``key.path=value`` from the command line, the value read as YAML."""
    origin = (f"{option} {text}", 0, 0)
    key, equals, value = text.partition("=")
    if not equals or not key or any(not part for part in key.split(".")):
        expected = f"{option} KEY=VALUE, such as --set optimizer.base_lr=5e-4"
        raise InputError("not an assignment", where=origin, expected=expected)
    plain = parse(value, origin[0]).plain() if value.strip() else None
    return expand_dotted(placed({key: plain}, origin))


def assignments(texts: Sequence[str]) -> Node:
    """All that ``--set`` gives, as one layer: the order of options counts only where two give one key."""
    return functools.reduce(merge, map(assignment, texts), Node({}, ("--set", 0, 0)))
