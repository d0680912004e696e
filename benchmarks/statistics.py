"""Do the verdicts keep their promises? Simulate thousands of tables and compare with the figures that they must give.

    python benchmarks/statistics.py            all figures; under a minute on one core
    python benchmarks/statistics.py --quick    small samples with wider tolerances; seconds
    python benchmarks/statistics.py --only T8 T9

Judged by the package's own formulas (``deit_ablate.report.moderated``). The unit is the sd of a run over seeds; rows
share their baseline's runs. Prints each figure beside the expected one and its tolerance; exits with 1 where one is
outside. Random streams are fixed, so that a run is repeatable. The expected figures are those of the statistical
protocol by which the tables are judged, found by another program; benchmarks/README.md has the outcome.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deit_ablate.report.stats.exact import rate
from deit_ablate.report.stats.moderated import holds, look_by_look, moderate
from deit_ablate.report.stats.power import detectable, optimism, power
from deit_ablate.report.stats.sequential import LOOKS, WEIGHTS

Array = npt.NDArray[np.float64]
BLOCK = 2500
"""Tables at a time: what fits the processor's cache is faster than what doesn't."""


@dataclass(frozen=True)
class Figure:
    """One figure of table ``table``: what is expected of ``label``, how far off it may be, what was found."""

    table: str
    label: str
    expected: float
    tolerance: float
    found: float

    @property
    def agrees(self) -> bool:
        return abs(self.found - self.expected) <= self.tolerance + 1e-12

    def __str__(self) -> str:
        mark = "" if self.agrees else "   OUTSIDE"
        return f"{self.table:4} {self.label:56} {self.expected:8.3f} ±{self.tolerance:.4f} {self.found:9.4f}{mark}"


@dataclass(frozen=True)
class Noise:
    """How runs scatter. ``first`` and ``baseline``: sd of the first row and of the baseline, against 1 of other rows."""

    correlation: float = 0.0
    first: float = 1.0
    baseline: float = 1.0
    heavy: bool = False
    """Student's t with 3 degrees of freedom, scaled to sd 1."""
    low: float = 0.0
    """Share of runs that end 20 sd lower."""


class Sample:
    """A stream of simulated tables of one kind; ``many`` of them in the full run, a tenth in the quick one."""

    def __init__(self, table: str, quick: bool) -> None:
        self.generator = np.random.Generator(
            np.random.PCG64(sum(ord(letter) << 8 * i for i, letter in enumerate(table)))
        )
        self.share = 0.1 if quick else 1.0

    def tolerance(self, full: float) -> float:
        """Of a simulated figure, given that of the full run."""
        return full / math.sqrt(self.share)

    def count(self, many: int) -> int:
        return int(many * self.share)

    def tables(
        self, many: int, rows: int, seeds: int, effects: Sequence[float] = (), noise: Noise = Noise()
    ) -> Iterator[Array]:
        """Blocks (tables, rows, seeds) of differences from the baseline."""
        left = self.count(many)
        while left > 0:
            size = (min(left, BLOCK), rows + 1, seeds)
            left -= size[0]
            runs = self.generator.standard_normal(size)
            if noise.heavy:
                runs = self.generator.standard_t(3, size) / math.sqrt(3)
            if noise.correlation:
                common = self.generator.standard_normal((size[0], 1, seeds))
                runs = math.sqrt(noise.correlation) * common + math.sqrt(1 - noise.correlation) * runs
            runs[:, 0] *= noise.baseline
            runs[:, 1] *= noise.first
            if noise.low:
                runs -= 20 * (self.generator.random(size) < noise.low)
            if len(effects):
                runs[:, 1:] += np.asarray(effects)[:, None]
            yield runs[:, 1:] - runs[:, :1]

    def mean(self, blocks: Iterator[Array], statistic: Callable[[Array], npt.NDArray[np.generic]]) -> Array:
        """The mean over tables of a statistic (tables, ...)."""
        every = np.concatenate([np.asarray(statistic(block), dtype=np.float64) for block in blocks])
        return np.asarray(every.mean(axis=0), dtype=np.float64)


def t1(quick: bool) -> Iterator[Figure]:
    """Share of tables with a false difference, no row having one."""
    sample = Sample("T1", quick)
    kinds = {
        "hom": Noise(), "correlation .5": Noise(correlation=0.5),
        "one row of 2 sd": Noise(first=2), "one row of 4 sd": Noise(first=4),
        "baseline of 2 sd": Noise(baseline=2), "baseline of 4 sd": Noise(baseline=4),
        "t(3)": Noise(heavy=True), "30% of runs 20 sd lower": Noise(low=0.3), "10% of runs 20 sd lower": Noise(low=0.1),
    }  # fmt: skip
    expected = {
        (3, 3): (.045, .045, .051, .073, .049, .057, .032, .030, .020),
        (3, 5): (.039, .040, .041, .058, .041, .039, .029, .030, .012),
        (5, 3): (.036, .033, .041, .069, .046, .054, .025, .031, .016),
        (5, 5): (.033, .032, .039, .057, .039, .036, .022, .033, .008),
        (5, 10): (.039, .039, .041, .047, .034, .024, .026, .032, .005),
        (12, 3): (.010, .010, .013, .033, .024, .038, .007, .030, .011),
        (12, 6): (.020, .020, .025, .032, .024, .021, .012, .024, .003),
        (12, 10): (.035, .031, .034, .036, .027, .017, .017, .024, .002),
    }  # fmt: skip
    for (rows, seeds), rates in expected.items():
        for (kind, noise), figure in zip(kinds.items(), rates, strict=True):
            found = sample.mean(sample.tables(20_000, rows, seeds, noise=noise), lambda x: false_difference(x))
            yield Figure(
                "T1", f"m={rows} n={seeds} {kind}: false difference", figure, sample.tolerance(0.007), float(found)
            )


def false_difference(differences: Array) -> npt.NDArray[np.bool_]:
    return np.asarray(holds(moderate(differences).p).any(axis=-1))


def t3(quick: bool) -> Iterator[Figure]:
    """Power per row that has an effect: a third of the rows (rounded down) does; of one row, in closed form."""
    sample = Sample("T3", quick)
    expected = {
        (5, 3): (.019, .046, .191, .699), (5, 5): (.023, .085, .425, .977),
        (5, 6): (.029, .110, .565, .995), (5, 10): (.054, .251, .892, 1),
        (12, 3): (.003, .012, .079, .556), (12, 5): (.007, .037, .281, .946),
        (12, 6): (.010, .055, .410, .989), (12, 10): (.024, .158, .828, 1),
    }  # fmt: skip
    for (rows, seeds), powers in expected.items():
        some = rows // 3
        for effect, figure in zip((0.5, 1, 2, 4), powers, strict=True):
            blocks = sample.tables(5000, rows, seeds, [effect] * some + [0] * (rows - some))
            found = sample.mean(blocks, lambda x, some=some: holds(moderate(x).p)[:, :some].mean(axis=-1))  # type: ignore[misc]
            yield Figure("T3", f"m={rows} n={seeds} power at {effect} sd", figure, sample.tolerance(0.02), float(found))
    closed: dict[int, tuple[float, ...]] = {3: (.117, .291, .705), 5: (.231, .663, .995), 10: (.514, .977)}  # fmt: skip
    for seeds, figures in closed.items():
        for effect, figure in zip((1, 2, 4), figures, strict=False):
            yield Figure("T3", f"m=1 n={seeds} power at {effect} sd, exact", figure, 0.0006, power(effect, 1, seeds))


def t4(quick: bool) -> Iterator[Figure]:
    """Coverage of the interval of one row: mean over rows, and the row that has it worst."""
    sample = Sample("T4", quick)
    for rows, seeds, kind, noise, average, worst in (
        (5, 3, "hom", Noise(), .951, .949), (5, 3, "one row of 4 sd", Noise(first=4), .940, .844),
        (5, 3, "baseline of 4 sd", Noise(baseline=4), .913, .912), (5, 3, "t(3)", Noise(heavy=True), .961, .961),
        (12, 10, "hom", Noise(), .952, .950), (12, 10, "one row of 4 sd", Noise(first=4), .953, .922),
    ):  # fmt: skip
        found = sample.mean(sample.tables(20_000, rows, seeds, noise=noise), covered)
        label = f"m={rows} n={seeds} {kind}: coverage"
        yield Figure("T4", label, average, sample.tolerance(0.007), float(found.mean()))
        yield Figure("T4", f"{label}, worst row", worst, sample.tolerance(0.007), float(found.min()))


def covered(differences: Array) -> npt.NDArray[np.bool_]:
    now = moderate(differences)
    return np.asarray(np.abs(now.difference) <= now.half_width())


def t5(quick: bool) -> Iterator[Figure]:
    """Share of tables with any false verdict where the margin is 2 sd, and how often rows are found equivalent."""
    sample, margin = Sample("T5", quick), 2.0
    expected = {(5, 3): (.037, .035, .045), (5, 10): (.039, .043, .074),
                (12, 3): (.010, .009, .013), (12, 10): (.029, .037, .054)}  # fmt: skip
    for (rows, seeds), rates in expected.items():
        none = (rows + 1) // 2
        cases = {
            "no effects": [0.0] * rows, "all of the margin": [margin] * rows,
            "half of it": [0.0] * none + [margin] * (rows - none),
        }  # fmt: skip
        for (kind, effects), figure in zip(cases.items(), rates, strict=True):
            true = np.array(effects)

            def false(x: Array, true: Array = true) -> npt.NDArray[np.bool_]:
                now = moderate(x)
                wrong = holds(now.p) & (np.sign(now.difference) != np.sign(true))
                return np.asarray((wrong | (holds(now.p_equivalent(margin)) & (true != 0))).any(axis=-1))

            found = sample.mean(sample.tables(5000, rows, seeds, effects), false)
            yield Figure(
                "T5", f"m={rows} n={seeds} {kind}: any false verdict", figure, sample.tolerance(0.012), float(found)
            )
    for rows, shares in {5: (.12, .43, .62, .97), 12: (.02, .19, .38, .94)}.items():  # fmt: skip
        for seeds, figure in zip((3, 5, 6, 10), shares, strict=True):
            found = sample.mean(
                sample.tables(5000, rows, seeds), lambda x: holds(moderate(x).p_equivalent(margin)).mean(axis=-1)
            )
            yield Figure(
                "T5", f"m={rows} n={seeds} null row found equivalent", figure, sample.tolerance(0.02), float(found)
            )


def t6(quick: bool) -> Iterator[Figure]:
    """The smallest effect that a plan says it finds, and how often it really does (one row has it)."""
    sample = Sample("T6", quick)
    expected = {
        1: ((4.38, .770), (2.35, .788), (1.41, .802)),
        5: ((4.04, .713), (2.78, .773), (1.76, .785)),
        12: ((4.82, .708), (3.21, .753), (1.97, .781)),
    }  # fmt: skip
    for rows, plans in expected.items():
        for seeds, (effect, real) in zip((3, 5, 10), plans, strict=True):
            planned = detectable(rows, seeds)
            yield Figure("T6", f"m={rows} n={seeds} smallest detectable effect, exact", effect, 0.0051, planned)
            blocks = sample.tables(5000, rows, seeds, [planned] + [0] * (rows - 1))
            found = sample.mean(blocks, lambda x: holds(moderate(x).p)[:, 0])
            yield Figure("T6", f"m={rows} n={seeds} its power", real, sample.tolerance(0.02), float(found))


def t8(quick: bool) -> Iterator[Figure]:
    """Share of tables with a false difference when one looks several times."""
    sample = Sample("T8", quick)
    plans: dict[str, tuple[Sequence[int], Sequence[float]]] = {
        "looks at 3..12, unweighted": (range(3, 13), (1,) * 10),
        "looks at 3, 6, 9, 12, unweighted": (LOOKS, (1,) * 4),
        "the default plan": (LOOKS, WEIGHTS),
    }
    expected = {1: (.192, .134, .041), 5: (.149, .109, .031), 12: (.104, .073, .020)}  # fmt: skip
    for rows, rates in expected.items():
        for (kind, (looks, weights)), figure in zip(plans.items(), rates, strict=True):

            def false(x: Array, looks: Sequence[int] = looks, weights: Sequence[float] = weights) -> Array:
                return np.asarray(look_by_look(x, looks, weights).decided.any(axis=-1), dtype=np.float64)

            tolerance = sample.tolerance(0.02 if figure > 0.12 else 0.012)
            found = sample.mean(sample.tables(20_000, rows, LOOKS[-1]), false)
            yield Figure("T8", f"m={rows} {kind}: false difference", figure, tolerance, float(found))


def t9(quick: bool) -> Iterator[Figure]:
    """What looking saves: half of the rows (rounded up) have an effect; then whole studies, runs of the baseline too."""
    sample = Sample("T9", quick)
    for rows, effect, found_then, seeds, fixed in (
        (5, 1, .257, 11.5, .362), (5, 2, .935, 8.9, .973), (5, 4, 1, 5.3, 1), (12, 2, .868, 9.8, .932), (12, 4, 1, 5.9, 1),
    ):  # fmt: skip
        some = (rows + 1) // 2

        def outcome(x: Array, some: int = some) -> Array:
            looked = look_by_look(x, LOOKS, WEIGHTS)
            stopped = np.asarray(LOOKS)[looked.last]
            return np.stack(
                [part[:, :some].mean(axis=-1) for part in (looked.decided, stopped, holds(moderate(x).p))], 1
            )

        blocks = sample.tables(5000, rows, LOOKS[-1], [effect] * some + [0] * (rows - some))
        means = sample.mean(blocks, outcome)
        label = f"m={rows} {effect} sd:"
        yield Figure("T9", f"{label} power", found_then, sample.tolerance(0.02), float(means[0]))
        yield Figure("T9", f"{label} mean seeds of a row", seeds, sample.tolerance(0.2), float(means[1]))
        yield Figure("T9", f"{label} power of 12 seeds at once", fixed, sample.tolerance(0.02), float(means[2]))
    for rows, margin, runs in ((6, None, 61.8), (6, 3.0, 47.9), (12, None, 116.0), (12, 3.0, 95.0)):

        def total(x: Array, margin: float | None = margin) -> Array:
            seeds = np.asarray(LOOKS)[look_by_look(x, LOOKS, WEIGHTS, margin).last]
            return np.asarray(seeds.sum(axis=-1) + seeds.max(axis=-1), dtype=np.float64)

        found = sample.mean(sample.tables(5000, rows, LOOKS[-1], np.repeat([0, 2, 6], rows // 3).tolist()), total)
        said = "no margin" if margin is None else f"margin {margin:g} sd"
        # ±0.2 seeds a row, of all rows and the baseline.
        label = f"m={rows} {said}: runs of a study (of {12 * (rows + 1)})"
        yield Figure("T9", label, runs, sample.tolerance(0.2) * (rows + 1), float(found))


def t10(quick: bool) -> Iterator[Figure]:
    """Intervals of a rate of divergence, in percent: exact."""
    for n, ends in {3: (0, 70.8, .8, 90.6, 29.2, 100), 5: (0, 52.2, .5, 71.6, 47.8, 100), 10: (0, 30.8, .3, 44.5, 69.2, 100)}.items():  # fmt: skip
        found = [100 * end for k in (0, 1, n) for end in rate(k, n)]
        for i, (figure, value) in enumerate(zip(ends, found, strict=True)):
            side = ("lower", "upper")[i % 2]
            yield Figure("T10", f"{(0, 1, n)[i // 2]} of {n}, {side} end in %", figure, 0.051, value)


def t12(quick: bool) -> Iterator[Figure]:
    """By how much a search's winner flatters, in sd of its noise; and what is left when five are run anew."""
    for trials, biases in {20: (.84, 1.33, 1.67), 50: (1.00, 1.58, 2.01), 100: (1.12, 1.77, 2.24)}.items():  # fmt: skip
        for ratio, figure in zip((0.5, 1.0, 2.0), biases, strict=True):
            found = optimism(trials, ratio, 1) / ratio
            yield Figure("T12", f"{trials} trials, noise/between {ratio:g}: optimism", figure, 0.015, found)
    sample = Sample("T12", quick)
    count, top = sample.count(20_000), 5
    true = sample.generator.standard_normal((count, 50))
    searched = true + sample.generator.standard_normal(true.shape)
    best = np.take_along_axis(true, np.argsort(-searched, axis=1)[:, :top], axis=1)
    for seeds, figure in ((1, 0.92), (3, 0.40), (5, 0.26)):
        fresh = best + sample.generator.standard_normal(best.shape) / math.sqrt(seeds)
        chosen = fresh.argmax(axis=1)[:, None]
        bias = float((np.take_along_axis(fresh, chosen, 1) - np.take_along_axis(best, chosen, 1)).mean())
        label = f"50 trials, ratio 1, best of {top} by {seeds} fresh seeds"
        yield Figure("T12", label, figure, sample.tolerance(0.02), bias)


TABLES: dict[str, Callable[[bool], Iterator[Figure]]] = {
    "T1": t1, "T3": t3, "T4": t4, "T5": t5, "T6": t6, "T8": t8, "T9": t9, "T10": t10, "T12": t12,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Simulate the statistics of tables; compare with the expected figures."
    )
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the samples, tolerances wider by the root of 10"
    )
    parser.add_argument("--only", nargs="+", choices=list(TABLES), default=list(TABLES), help="these tables alone")
    arguments = parser.parse_args()
    started, figures = time.perf_counter(), 0
    outside: list[Figure] = []
    print(f"{'':61} expected tolerance  found")
    for name in arguments.only:
        for figure in TABLES[name](arguments.quick):
            print(figure, flush=True)
            figures += 1
            outside += [] if figure.agrees else [figure]
    print(f"{figures - len(outside)} of {figures} figures agree ({time.perf_counter() - started:.0f} s)")
    for figure in outside:
        print(figure)
    return 1 if outside else 0


if __name__ == "__main__":
    sys.exit(main())
