"""Is at most a tenth of what a campaign keeps false? Simulate campaigns of 300 tries with the functions of ``judge``.

    python benchmarks/campaigns.py            1,000 campaigns of each kind, two minutes on one core
    python benchmarks/campaigns.py --quick    40 of each; seconds

The unit is the sd of a run of the baseline. Candidates have a real improvement with the stated chance, and else none.
Prints of each kind the share of false keeps among keeps (mean over campaigns, with its 95% interval), the share of
campaigns with any false keep, and the share of real improvements that are kept; exits with 1 where the interval lies
wholly above 10%. Then (not with --quick) the same of rules and tests that were not chosen.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import stdtr, zeta

from deit_ablate.report.stats.campaign import DECAY, RATE, Budget, p_better
from deit_ablate.report.stats.exact import mean_interval
from deit_ablate.report.stats.moderated import Array, Comparisons, Moderated, moderate

TRIES = 300
AGAIN = 0.2
"""A candidate that is not kept gets more runs where its p is under this."""
AGAINST = Comparisons.with_baseline(1)


@dataclass(frozen=True)
class Kind:
    """Campaigns of one kind."""

    runs: int
    baseline: int
    real: float
    """Share of candidates that are better, by ``effect``."""
    effect: float = 3.0
    sd: float = 1.0
    """Scatter of a candidate's runs; ``logarithmic``: that of each one times exp of a normal of this sd."""
    logarithmic: float = 0.0
    looks: int = 1
    """At most so many at a candidate, each with as many new runs."""
    climbs: bool = False
    """Whether what is kept is the next baseline, with the runs that it was kept by."""

    def __str__(self) -> str:
        words = f"n={self.runs} n0={self.baseline} {self.real:.0%} real"
        words += f" ({self.effect:g} sd)" if self.real else ""
        words += f", scatter x {self.sd:g}" if self.sd != 1 else ""
        words += f", log-normal {self.logarithmic:g}" if self.logarithmic else ""
        words += f", up to {self.looks} looks" if self.looks > 1 else ""
        return words + ", keeps become the baseline" * self.climbs


KINDS = (
    Kind(3, 10, 0.0),
    Kind(3, 10, 0.1),
    Kind(5, 5, 0.0),
    Kind(5, 5, 0.1),
    Kind(5, 20, 0.0),
    Kind(5, 20, 0.1, 2.0),
    Kind(5, 20, 0.1),
    Kind(10, 30, 0.1, 1.5),
    Kind(5, 20, 0.3),
    Kind(3, 20, 0.0, looks=4),
    Kind(3, 20, 0.1, 2.0, looks=4),
    Kind(5, 5, 0.0, climbs=True),
    Kind(5, 5, 0.1, climbs=True),
    Kind(5, 20, 0.1, sd=0.5),
    Kind(5, 5, 0.1, sd=2.0),
    Kind(3, 10, 0.1, sd=2.0),
    Kind(5, 20, 0.0, sd=2.0),
    Kind(5, 20, 0.1, logarithmic=0.4),
    Kind(3, 10, 0.1, logarithmic=0.4),
)


class Spending(Budget):
    """Alpha spending: the chance of any false keep is at most RATE."""

    def level(self, candidate: int) -> float:
        return float(RATE * candidate**-DECAY / zeta(DECAY))


class Lond(Spending):
    """LOND (Javanmard and Montanari 2015), which holds the false discovery rate under positive dependence too."""

    def level(self, candidate: int) -> float:
        return super().level(candidate) * (len(self.kept) + 1)


def table_alone(now: Moderated, comparisons: Comparisons, sign: int) -> Array:
    """One-sided p of the test that tables use; ``welch_alone`` and ``student_alone`` of those."""
    return np.asarray(stdtr(now.df, -sign * now.difference / now.standard_error))


def welch_alone(now: Moderated, comparisons: Comparisons, sign: int) -> Array:
    one, two = now.own / now.runs, now.other_own / now.other_runs
    df = (one + two) ** 2 / (one**2 / (now.runs - 1) + two**2 / (now.other_runs - 1))
    return np.asarray(stdtr(df, -sign * now.difference / np.sqrt(one + two)))


def student_alone(now: Moderated, comparisons: Comparisons, sign: int) -> Array:
    n, m = now.runs, now.other_runs
    pooled = ((n - 1) * now.own + (m - 1) * now.other_own) / (n + m - 2) * (1 / n + 1 / m)
    return np.asarray(stdtr(n + m - 2.0, -sign * now.difference / np.sqrt(pooled)))


Test: TypeAlias = Callable[[Moderated, Comparisons, int], Array]


@dataclass(frozen=True)
class Outcome:
    """Of each campaign: false keeps, keeps, improvements kept, improvements. All (campaigns,)."""

    false: npt.NDArray[np.float64]
    kept: npt.NDArray[np.float64]
    found: npt.NDArray[np.float64]
    real: npt.NDArray[np.float64]


def simulate(
    kind: Kind, campaigns: int, draw: np.random.Generator, rule: type[Budget] = Budget, test: Test = p_better
) -> Outcome:
    most = kind.runs * kind.looks
    baseline = np.full((campaigns, max(most, kind.baseline)), np.nan)
    baseline[:, : kind.baseline] = draw.standard_normal((campaigns, kind.baseline))
    level, budgets = np.zeros(campaigns), [rule() for _ in range(campaigns)]
    false, kept, found, reals = (np.zeros(campaigns) for _ in range(4))
    for _ in range(TRIES):
        real = draw.random(campaigns) < kind.real
        sd = kind.sd * np.exp(kind.logarithmic * draw.standard_normal((campaigns, 1)))
        runs = np.full(baseline.shape, np.nan)
        runs[:, :most] = (level + kind.effect * real)[:, None] + sd * draw.standard_normal((campaigns, most))
        keep, open_ = np.zeros(campaigns, dtype=bool), np.ones(campaigns, dtype=bool)
        for look in range(1, kind.looks + 1):
            seen = np.where(np.arange(runs.shape[1]) < look * kind.runs, runs, np.nan)
            p = test(moderate(np.stack([baseline, seen], axis=1), AGAINST), AGAINST, 1)[:, 0]
            for i in np.flatnonzero(open_):
                following = budgets[i].next(None if look == 1 else len(budgets[i].levels))
                keep[i] = p[i] <= following.part
                budgets[i].add(following, bool(keep[i]))
            open_ &= ~keep & (p < AGAIN)
        if kind.climbs:
            baseline = np.where(keep[:, None], runs, baseline)
            level += kind.effect * (keep & real)
        false, kept = false + (keep & ~real), kept + keep
        found, reals = found + (keep & real), reals + real
    return Outcome(false, kept, found, reals)


def words(outcome: Outcome) -> tuple[str, float]:
    """What is printed, and the lower end of the interval of the share of false keeps among keeps."""
    share = mean_interval(outcome.false / np.maximum(1, outcome.kept))
    low, high = max(0.0, share.mean - share.half_width), share.mean + share.half_width
    text = f"{share.mean:6.1%} [{low:.1%}, {high:.1%}] of keeps false, any in {np.mean(outcome.false > 0):.0%}"
    real = outcome.real.sum()
    return text + (f"; {outcome.found.sum() / real:.0%} of improvements kept" if real else ""), low


def shares(quick: bool) -> Iterator[tuple[str, float]]:
    draw, campaigns = np.random.Generator(np.random.PCG64(21)), 40 if quick else 1000
    for kind in KINDS:
        said, low = words(simulate(kind, campaigns, draw))
        yield f"{kind!s:60} {said}", low
    for rule in (Spending, Lond):
        for kind in [] if quick else [Kind(3, 10, 0.1), Kind(5, 20, 0.1), Kind(5, 20, 0.1, 2.0)]:
            yield f"{rule.__name__ + ': ' + str(kind):60} {words(simulate(kind, campaigns, draw, rule))[0]}", 0.0
    for test in (table_alone, welch_alone, student_alone):
        for kind in [] if quick else [Kind(3, 10, 0.1), Kind(3, 10, 0.1, sd=2.0), Kind(5, 20, 0.0, sd=2.0)]:
            yield f"{test.__name__ + ': ' + str(kind):60} {words(simulate(kind, campaigns, draw, test=test))[0]}", 0.0


def main() -> int:
    parser = argparse.ArgumentParser(description="Simulate campaigns; count the false among what they keep.")
    parser.add_argument("--quick", action="store_true", help="40 campaigns of each kind")
    started, above = time.perf_counter(), 0
    for line, low in shares(parser.parse_args().quick):
        above += low > RATE
        print(line + " ABOVE" * (low > RATE), flush=True)
    print(f"{len(KINDS) - above} of {len(KINDS)} within 10% and noise ({time.perf_counter() - started:.0f} s)")
    return 1 if above else 0


if __name__ == "__main__":
    sys.exit(main())
