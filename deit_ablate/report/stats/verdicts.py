"""Rows against their baseline: what a few seeds of each say, as a verdict with its evidence. Imports numpy.

Pure functions of numbers. The test, the interval and Holm are in ``moderated``; here they become words. What a verdict
accounts for is the noise of training: the finite test set, which all rows share, is not in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

import numpy as np

from deit_ablate.report.stats.exact import check_count, did_not_train_words, rate_words, sign_flip
from deit_ablate.report.stats.moderated import Array, Flags, Moderated, holds, holm, moderate
from deit_ablate.report.stats.power import ALPHA, FEWEST, MOST, seeds_to_decide

Verdict: TypeAlias = Literal[
    "better",
    "worse",
    "better_small",
    "worse_small",
    "equivalent",
    "undecided",
    "too_few",
    "one_seed",
    "did_not_train",
    "baseline",
    "none",
]
"""``_small``: different, and by less than the margin. ``none``: there is nothing to compare, no pair or no baseline."""
DIFFERENT: frozenset[Verdict] = frozenset({"better", "worse", "better_small", "worse_small"})

LARGE_SCATTER = 3
"""How many times the typical scatter a row may have before its own interval is called too short."""
ADDED_AFTER_LOOKING = "seeds were added after looking; 5% no longer holds"
"""For a table with seeds beyond those that were planned before the first look (false findings: 7 to 19%)."""


@dataclass(frozen=True)
class Effect:
    """A row against the baseline, over the seeds at which both have a figure. Points of top-1; NaN is unknown."""

    pairs: int
    difference: float
    """Mean of row - baseline."""
    own_variance: float
    """Of its differences, in points squared; from 2 pairs on."""
    standard_error: float
    """Of ``difference``, with the moderated variance."""
    df: float
    half_width: float
    """Of the 95% interval of this row alone (thick whisker)."""
    half_width_simultaneous: float
    """Of the interval that holds for all rows of the table at once, by Bonferroni (thin whisker)."""
    p: float
    """Of "no difference", two-sided; ``p_holm`` adjusted over the table's rows."""
    p_holm: float
    p_equivalent: float
    """Of "a difference of the margin or more"; NaN without a margin. ``p_equivalent_holm`` as above."""
    p_equivalent_holm: float
    p_paired: float
    """Of the plain paired t test, which borrows nothing."""
    p_sign_flip: float
    """Of the sign-flip test, unadjusted; from 6 pairs on."""
    correlation: float
    """Of the row with the baseline over seeds; from 3 pairs on."""
    verdict: Verdict
    words: str
    """The verdict for people."""
    notes: tuple[str, ...] = ()

    @property
    def decided(self) -> bool:
        """Whether the data say something about this row: different, or equivalent."""
        return self.verdict in DIFFERENT or self.verdict == "equivalent"


def untested(verdict: Literal["baseline", "none"], words: str = "") -> Effect:
    """What stands in the baseline's own row, or in every row of a sweep without one."""
    unknown: dict[str, Any] = {field.name: math.nan for field in fields(Effect) if field.type == "float"}
    return Effect(pairs=0, **unknown, verdict=verdict, words=words)


def effects(
    rows: Mapping[str, Mapping[int, float]],
    baseline: Mapping[int, float],
    *,
    margin: float | None = None,
    test_images: int | None = None,
    diverged: Mapping[str, tuple[int, int]] = {},
    strict: bool = False,
) -> dict[str, Effect]:
    """Judge each row of a table against the baseline. Both map a seed to top-1 in percent; NaN is a missing value.

    ``margin``: points within which rows are called equivalent, declared before the sweep ran; without it no row is.
    ``test_images``: their number, so that seeds that agree by the coarseness of the figure aren't taken for exact.
    ``diverged``: row -> (diverged, ended) runs. At most 5% of tables have a false difference and 5% a false equivalence
    (Holm 1979, over each); ``strict``: 5% have either (Bonferroni; ``p_holm`` stays Holm's).

    Every row counts in the correction, also one that has no verdict for want of 3 pairs: it was asked about. Variance
    is borrowed only from rows that have one. Raises ValueError for an infinite value, a margin or number of images
    that is not above 0, or an impossible count of diverged runs.
    """
    table = Pairing.of(rows, baseline)
    now = moderate(table.differences, resolution(test_images))
    enough = now.pairs >= FEWEST
    p, equal = now.p, np.full(len(rows), np.nan)
    if margin is not None:
        check_margin(margin)
        equal = now.p_equivalent(margin)
    differs, same = (holds(np.where(enough, one, np.nan), strict) for one in (p, equal))
    open_rows = len(rows) if strict else int((~(differs | same)).sum())

    def undecided(row: int) -> str:
        spread, pairs = float(now.standard_error[row]) * math.sqrt(now.pairs[row]), int(now.pairs[row])
        return undecided_words(spread, float(now.prior_df[0]), open_rows, pairs, margin, float(now.difference[row]))

    return Judged(table, now, p, equal, differs, same, margin).effects(diverged, undecided)


@dataclass(frozen=True)
class Pairing:
    """Rows and baseline side by side: ``values`` (rows, seeds) and ``baseline`` (seeds,), NaN where missing."""

    names: tuple[str, ...]
    seeds: tuple[int, ...]
    values: Array
    baseline: Array

    @classmethod
    def of(
        cls, rows: Mapping[str, Mapping[int, float]], baseline: Mapping[int, float], seeds: Sequence[int] | None = None
    ) -> Pairing:
        """With these seeds in this order, or all there are. Raises ValueError for an infinite value."""
        every = [baseline, *rows.values()]
        if any(math.isinf(value) for values in every for value in values.values()):
            raise ValueError("a difference of infinite values is not defined")
        chosen = sorted({seed for values in every for seed in values}) if seeds is None else list(seeds)
        filled = np.array([[values.get(seed, math.nan) for seed in chosen] for values in every], dtype=np.float64)
        filled = filled.reshape(len(every), len(chosen))
        return cls(tuple(rows), tuple(chosen), filled[1:], filled[0])

    @property
    def differences(self) -> Array:
        return self.values - self.baseline


@dataclass(frozen=True)
class Judged:
    """A table that has been judged: p values (rows,), and whether each row differs, or is the same, as flags (rows,).

    ``alpha`` is the level of the intervals that hold for all rows at once, one for the table or one for each row.
    """

    table: Pairing
    now: Moderated
    p: Array
    p_equivalent: Array
    differs: Flags
    same: Flags
    margin: float | None
    alpha: float | Array = ALPHA

    def effects(
        self, diverged: Mapping[str, tuple[int, int]], undecided: Callable[[int], str], more: str = ""
    ) -> dict[str, Effect]:
        """``undecided`` words the verdict of a row, by its number, that has pairs enough and was not decided; ``more``
        says what becomes of one that has too few because runs diverged (by default: add seeds)."""
        table, now = self.table, self.now
        enough = now.pairs >= FEWEST
        columns = {
            "difference": now.difference,
            "own_variance": now.own_variance,
            "standard_error": now.standard_error,
            "df": now.df,
            "half_width": now.half_width(),
            "half_width_simultaneous": now.half_width(np.asarray(self.alpha) / max(1, len(table.names))),
            "p": self.p,
            "p_holm": holm(np.where(enough, self.p, np.nan)),
            "p_equivalent": self.p_equivalent,
            "p_equivalent_holm": holm(np.where(enough, self.p_equivalent, np.nan)),
            "p_paired": moderate(table.differences[:, None, :]).p[:, 0],  # of a table of one row: the plain paired t
        }
        found = {}
        for i, name in enumerate(table.names):
            paired, pairs = ~np.isnan(table.differences[i]), int(now.pairs[i])
            k, ended = diverged.get(name, (0, 0))
            check_count(k, ended)
            verdict = _verdict(pairs, float(now.difference[i]), bool(self.differs[i]), bool(self.same[i]), k, ended)
            found[name] = Effect(
                pairs=pairs,
                **{column: float(values[i]) for column, values in columns.items()},
                p_sign_flip=sign_flip(table.differences[i, paired].tolist()),
                correlation=_correlation(table.values[i, paired], table.baseline[paired]),
                verdict=verdict,
                words=undecided(i) if verdict == "undecided" else _words(verdict, pairs, self.margin, k, ended, more),
                notes=tuple(_notes(now, i, k, ended)),
            )
        return found


def _verdict(pairs: int, difference: float, differs: bool, same: bool, k: int, ended: int) -> Verdict:
    if ended and k == ended and not pairs:
        return "did_not_train"
    if pairs < FEWEST:
        few: tuple[Verdict, ...] = ("none", "one_seed", "too_few")
        return few[pairs]
    if differs and same:
        return "better_small" if difference > 0 else "worse_small"
    if differs:
        return "better" if difference > 0 else "worse"
    return "equivalent" if same else "undecided"


def _words(verdict: Verdict, pairs: int, margin: float | None, k: int, ended: int, more: str) -> str:
    if verdict == "did_not_train":
        return did_not_train_words(ended)
    if pairs < FEWEST and k:
        have = {0: "no pair is left", 1: "1 pair is too few", 2: "2 pairs are too few"}[pairs]
        more = more or ("add a seed" if pairs == FEWEST - 1 else f"add {FEWEST - pairs} seeds")
        return f"undecided: {rate_words(k, ended)}; {have}; {more}"
    return {
        "none": "no pair of seeds with the baseline",
        "one_seed": "one seed: cannot tell",
        "too_few": f"{pairs} pairs: too few for a verdict",
        "equivalent": f"equivalent (within ±{margin:g})" if margin else "",
        "better_small": f"better, by less than {margin:g}" if margin else "",
        "worse_small": f"worse, by less than {margin:g}" if margin else "",
    }.get(verdict, verdict)


def undecided_words(
    spread: float, prior_df: float, rows: int, pairs: int, margin: float | None, difference: float
) -> str:
    """What would decide a row, as in "undecided; about 9 seeds (5 to 18)"; arguments as of ``seeds_to_decide``."""
    if spread == 0:
        return "undecided: no spread to test with"
    seeds = seeds_to_decide(spread, prior_df, rows, pairs, margin, difference)
    many = f"more than {MOST} seeds"
    if margin is None:
        about = many if seeds is None else f"about {seeds} seeds (order of magnitude)"
        return f"undecided; if the effect is as observed, {about}"
    if seeds is None:
        return f"undecided; {many}"
    return f"undecided; about {seeds} seeds ({max(pairs + 1, math.ceil(seeds / 2))} to {2 * seeds})"


def _notes(now: Moderated, row: int, k: int, ended: int) -> list[str]:
    notes = []
    own, typical, pairs = float(now.own_variance[row]), float(now.prior_variance[0]), int(now.pairs[row])
    if pairs >= 2 and own > LARGE_SCATTER**2 * typical:
        many = f" ({math.sqrt(own / typical):.1f} times the typical row's)" if typical > 0 else ""
        notes.append(f"its scatter is larger than the other rows'{many}: its own interval is too short at n={pairs}")
    error = float(now.standard_error[row])
    if error == 0:
        notes.append("the difference is the same at every seed: without the number of test images nothing is tested")
    elif pairs >= 2 and error**2 * pairs > _unfloored(now, row) * (1 + 1e-9):
        notes.append("its seeds agree within one test image: the scatter of a rounded figure is assumed")
    if k and pairs:
        notes.append(
            f"{rate_words(k, ended)}: the difference is that of runs that converge, "
            "about 0.4 sd too good if it is the worst fifth of runs that diverges"
        )
    return notes


def _unfloored(now: Moderated, row: int) -> float:
    """The moderated variance before it is kept from falling under that of a rounded figure."""
    prior_df, df = float(now.prior_df[0]), float(now.df[row])
    lent = prior_df * float(now.prior_variance[0]) if prior_df else 0.0
    return (lent + (df - prior_df) * float(now.own_variance[row])) / df


def resolution(test_images: int | None) -> float:
    """One test image in points of top-1; 0 where their number is unknown. Raises ValueError for a number under 1."""
    if test_images is None:
        return 0.0
    if test_images < 1:
        raise ValueError(f"the number of test images is at least 1, not {test_images}")
    return 100 / test_images


def check_margin(margin: float) -> None:
    """Raises ValueError for a margin within which nothing, or everything, is equivalent."""
    if not 0 < margin < math.inf:
        raise ValueError(f"a margin of equivalence is a number of points above 0, not {margin}")


def _correlation(one: Array, two: Array) -> float:
    if len(one) < FEWEST:
        return math.nan
    one, two = one - one.mean(), two - two.mean()
    scale = math.sqrt(float(one @ one) * float(two @ two))
    return min(1.0, max(-1.0, float(one @ two) / scale)) if scale > 1e-12 else math.nan
