"""Rows that combine changes: the combinations of a factorial, and the orders of a cumulative sweep's steps.

A factorial has two levels of each factor: the recipe as it is, and the recipe with the factor's change. A fraction of
all combinations finds some effects only in their sum: these are aliases (Box, Hunter and Hunter 1978, chapter 12).
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

from deit_ablate.errors import InputError, counted

MOST_FACTORS = 7
GENERATORS: dict[tuple[int, int], tuple[str, ...]] = {
    (3, 2): ("AB",),
    (4, 2): ("ABC",),
    (5, 2): ("ABCD",),
    (5, 4): ("AB", "AC"),
    (6, 2): ("ABCDE",),
    (6, 4): ("ABC", "BCD"),
    (6, 8): ("AB", "AC", "BC"),
    (7, 2): ("ABCDEF",),
    (7, 4): ("ABCD", "ABDE"),
    (7, 8): ("ABC", "BCD", "ACD"),
    (7, 16): ("AB", "AC", "BC", "ABC"),
}
"""(factors, 1/fraction) -> the columns whose products the last factors are, of the highest resolution (the same book,
table 12.15)."""
ROMAN = ("", "", "II", "III", "IV", "V", "VI", "VII")
Numbers = tuple[int, ...]


@dataclass(frozen=True)
class Design:
    """Rows that combine ``changes``, by their numbers; ``orders`` of all of them, where several are compared."""

    changes: tuple[str, ...]
    """``no X``, or ``+X`` where the change brings something in."""
    rows: Mapping[str, Numbers]
    """Row -> its changes. The first one has none."""
    orders: tuple[Numbers, ...] = ()

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Design:
        """What ``document`` wrote."""
        rows = {name: tuple(own) for name, own in document["rows"].items()}
        return cls(tuple(document["changes"]), rows, tuple(map(tuple, document["orders"])))

    def document(self) -> dict[str, Any]:
        return {
            "changes": list(self.changes),
            "rows": {name: list(own) for name, own in self.rows.items()},
            "orders": [list(order) for order in self.orders],
        }

    @property
    def factors(self) -> tuple[str, ...]:
        """What is changed: ``mixup`` of ``no mixup`` and of ``+mixup``."""
        return tuple(name.removeprefix("no ").removeprefix("+") for name in self.changes)

    def has(self, row: str, factor: int) -> bool:
        """Whether a row of a factorial has what the factor is called after."""
        return (factor in self.rows[row]) == self.changes[factor].startswith("+")

    def at(self, changes: Sequence[int]) -> str:
        """The row that has just these changes."""
        return next(name for name, own in self.rows.items() if set(own) == set(changes))

    def effects(self) -> list[Estimate]:
        """Main effects, then two-way interactions, of a factorial, those that no run here tells apart together."""
        numbers = range(len(self.changes))
        found: dict[Numbers, list[tuple[int, Numbers]]] = {}
        for effect in [*((i,) for i in numbers), *itertools.combinations(numbers, 2)]:
            signs = tuple(math.prod(1 if self.has(row, i) else -1 for i in effect) for row in self.rows)
            opposite = tuple(-sign for sign in signs)
            if opposite in found:
                found[opposite].append((-1, effect))
            else:
                found.setdefault(signs, []).append((1, effect))
        return [Estimate(tuple(aliases), signs) for signs, aliases in found.items()]

    def name(self, estimate: Estimate, called: Sequence[str] = ()) -> str:
        """``mixup × erasing``; aliases joined by ``=``. ``called``: what factors are called instead."""
        names = called or self.factors
        return " = ".join(
            ("\N{MINUS SIGN}" if sign < 0 else "") + " × ".join(names[i] for i in effect)
            for sign, effect in estimate.aliases
        )

    def called(self, labels: Mapping[str, str]) -> list[str]:
        """What factors and steps are called: by the label of a factor, or of the row that a step makes."""
        pairs = zip(self.factors, self.changes, strict=True)
        return [labels.get(factor, labels.get(change, factor) if self.orders else factor) for factor, change in pairs]

    def words(self) -> list[str]:
        """What a plan says of it."""
        if self.orders:
            listed = (" → ".join(self.factors[i] for i in order) for order in self.orders)
            return ["orders of the steps:", *(f"    {k}. {order}" for k, order in enumerate(listed, start=1))]
        k, fraction = len(self.changes), 2 ** len(self.changes) // len(self.rows)
        if fraction == 1:
            return [f"factorial: all {len(self.rows)} combinations of {k} factors; no effects are aliased"]
        aliased = [self.name(found) for found in self.effects() if len(found.aliases) > 1]
        head = f"factorial: {len(self.rows)} of {2**k} combinations of {k} factors, resolution {ROMAN[self.resolution]}"
        if not aliased:
            return [f"{head}: no main effects or two-way interactions are aliased with one another"]
        return [f"{head}; aliased, found only in their sum:", *(f"    {names}" for names in aliased)]

    @property
    def resolution(self) -> int:
        """The fewest factors whose product is the same in all rows (of a full factorial one more than there are)."""
        k = len(self.changes)
        for size in range(1, k + 1):
            for chosen in itertools.combinations(range(k), size):
                if len({len(set(chosen) & set(own)) % 2 for own in self.rows.values()}) == 1:
                    return size
        return k + 1


@dataclass(frozen=True)
class Estimate:
    """What one contrast of a factorial's rows estimates: the first effect, with (sign) what is aliased with it."""

    aliases: tuple[tuple[int, Numbers], ...]
    signs: Numbers
    """By row, of the first effect."""

    @property
    def effect(self) -> Numbers:
        return self.aliases[0][1]


def factorial(changes: Sequence[str], fraction: str | None, left_out: Set[str] = frozenset()) -> Design:
    """All combinations of changes, or a fraction of them with the recipe as it is; rows that differ in changes that are
    ``left_out`` alone are one. Raises InputError, of no place."""
    k, part = len(changes), int((fraction or "1/1").partition("/")[2])
    if not 2 <= k <= MOST_FACTORS:
        raise InputError(counted(k, "factor"), expected=f"2 to {MOST_FACTORS}")
    possible = [of for factors, of in GENERATORS if factors == k]
    if part != 1 and part not in possible:
        fractions = ", ".join(f"1/{of}" for of in possible)
        expected = f"{fractions}, or no fraction" if possible else "no fraction: two factors have four combinations"
        raise InputError(f"a fraction of {fraction} of {k} factors tells nothing apart", expected=expected)
    generators = GENERATORS.get((k, part), ())
    free = k - len(generators)
    kept = [i for i, change in enumerate(changes) if change not in left_out]
    names = [changes[i] for i in kept]
    if len(names) < 2:
        problem = f"{counted(len(names), 'factor')} that changes a stage up to the profile's last_stage"
        raise InputError(problem, expected="2 or more, or no last_stage")
    found = set()
    for levels in itertools.product((0, 1), repeat=free):
        whole = [*levels, *(sum(levels[ord(letter) - ord("A")] for letter in word) % 2 for word in generators)]
        found.add(tuple(number for number, i in enumerate(kept) if whole[i]))
    rows: dict[str, Numbers] = {}
    for own in sorted(found, key=lambda own: (len(own), own)):
        _add(rows, combined([names[i] for i in own]), own)
    return Design(tuple(names), rows)


def combined(changes: Sequence[str]) -> str:
    """The name of a row with these changes: ``no mixup + no erasing``, ``no mixup +lamb``."""
    name = "".join((" " if change.startswith("+") else " + ") + change for change in changes)
    return name.removeprefix(" ").removeprefix("+ ") or "baseline"


def cumulative(
    changes: Sequence[str], orders: int | Sequence[Sequence[str]] | None, left_out: Set[str] = frozenset()
) -> Design:
    """Each change on top of those before, but for those that are ``left_out``; in several orders the rows that two
    orders share are one. Raises InputError, of no place."""
    steps, given = [change.removeprefix("+") for change in changes], tuple(range(len(changes)))
    chosen: list[Numbers]
    if orders is None or isinstance(orders, int):
        chosen = _orders(len(given), orders or 1)
    else:
        for named in orders:
            if sorted(named) != sorted(steps):
                raise InputError(f"got {list(named)}", expected=f"all of {', '.join(steps)}, in some order")
        chosen = [given, *(tuple(map(steps.index, named)) for named in orders)]
    kept = [i for i in given if changes[i] not in left_out]
    chosen = list(dict.fromkeys(tuple(kept.index(i) for i in order if i in kept) for order in chosen))
    changes, given = [changes[i] for i in kept], chosen[0]
    rows: dict[str, Numbers] = {"baseline": (), **{changes[i]: given[: i + 1] for i in given}}
    known = set(map(frozenset, rows.values()))
    for order in chosen[1:]:
        for i in given:
            own = tuple(sorted(order[: i + 1]))
            if frozenset(own) not in known:
                known.add(frozenset(own))
                _add(rows, " ".join(["baseline", *(changes[j] for j in own)]), own)
    return Design(tuple(changes), rows, tuple(chosen) if len(chosen) > 1 else ())


def _add(rows: dict[str, Numbers], name: str, own: Numbers) -> None:
    if name in rows:
        raise InputError(f"two rows would be called {name!r}", expected="names that do not contain others")
    rows[name] = own


def _orders(steps: int, many: int) -> list[Numbers]:
    """The order that is given, its reverse, and others by lot: always the same ones."""
    if many > math.factorial(steps):
        raise InputError(f"{many} orders of {steps} steps", expected=f"at most {math.factorial(steps)}")
    given = tuple(range(steps))
    found = dict.fromkeys([given, given[::-1]])
    lot = 0
    while len(found) < many:
        lots = {step: hashlib.sha256(f"{lot}:{step}".encode()).digest() for step in given}
        found[tuple(sorted(given, key=lots.__getitem__))] = None
        lot += 1
    return list(found)[:many]
