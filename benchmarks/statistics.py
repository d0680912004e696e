"""Do the verdicts have the error rates that they claim? Simulate thousands of tables and compare with what is expected.

    python benchmarks/statistics.py            all figures; under a minute on one core
    python benchmarks/statistics.py --quick    small samples with wider tolerances; seconds
    python benchmarks/statistics.py --only T8 T9

Judged by the package's own formulas (``deit_ablate.report.stats.moderated``). The unit is the sd of a run over seeds;
rows share their baseline's runs. Prints each figure beside the expected one and its tolerance; exits with 1 where one
is outside. Random streams are fixed, so that a run is repeatable. The expected figures are those of the statistical
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
    """How runs scatter. ``first`` and ``baseline``: sd of the first row and of the baseline; other rows' is 1."""

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
        "hom": Noise(),
        "correlation .5": Noise(correlation=0.5),
        "one row of 2 sd": Noise(first=2),
        "one row of 4 sd": Noise(first=4),
        "baseline of 2 sd": Noise(baseline=2),
        "baseline of 4 sd": Noise(baseline=4),
        "t(3)": Noise(heavy=True),
        "30% of runs 20 sd lower": Noise(low=0.3),
        "10% of runs 20 sd lower": Noise(low=0.1),
    }
    expected = {
        (3, 3): (0.045, 0.045, 0.051, 0.073, 0.049, 0.057, 0.032, 0.030, 0.020),
        (3, 5): (0.039, 0.040, 0.041, 0.058, 0.041, 0.039, 0.029, 0.030, 0.012),
        (5, 3): (0.036, 0.033, 0.041, 0.069, 0.046, 0.054, 0.025, 0.031, 0.016),
        (5, 5): (0.033, 0.032, 0.039, 0.057, 0.039, 0.036, 0.022, 0.033, 0.008),
        (5, 10): (0.039, 0.039, 0.041, 0.047, 0.034, 0.024, 0.026, 0.032, 0.005),
        (12, 3): (0.010, 0.010, 0.013, 0.033, 0.024, 0.038, 0.007, 0.030, 0.011),
        (12, 6): (0.020, 0.020, 0.025, 0.032, 0.024, 0.021, 0.012, 0.024, 0.003),
        (12, 10): (0.035, 0.031, 0.034, 0.036, 0.027, 0.017, 0.017, 0.024, 0.002),
    }
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
        (5, 3): (0.019, 0.046, 0.191, 0.699),
        (5, 5): (0.023, 0.085, 0.425, 0.977),
        (5, 6): (0.029, 0.110, 0.565, 0.995),
        (5, 10): (0.054, 0.251, 0.892, 1),
        (12, 3): (0.003, 0.012, 0.079, 0.556),
        (12, 5): (0.007, 0.037, 0.281, 0.946),
        (12, 6): (0.010, 0.055, 0.410, 0.989),
        (12, 10): (0.024, 0.158, 0.828, 1),
    }
    for (rows, seeds), powers in expected.items():
        some = rows // 3
        for effect, figure in zip((0.5, 1, 2, 4), powers, strict=True):
            blocks = sample.tables(5000, rows, seeds, [effect] * some + [0] * (rows - some))
            found = sample.mean(blocks, lambda x, some=some: holds(moderate(x).p)[:, :some].mean(axis=-1))  # type: ignore[misc]
            yield Figure("T3", f"m={rows} n={seeds} power at {effect} sd", figure, sample.tolerance(0.02), float(found))
    closed: dict[int, tuple[float, ...]] = {3: (0.117, 0.291, 0.705), 5: (0.231, 0.663, 0.995), 10: (0.514, 0.977)}
    for seeds, figures in closed.items():
        for effect, figure in zip((1, 2, 4), figures, strict=False):
            yield Figure("T3", f"m=1 n={seeds} power at {effect} sd, exact", figure, 0.0006, power(effect, 1, seeds))


def t4(quick: bool) -> Iterator[Figure]:
    """Coverage of the interval of one row: mean over rows, and the row that has it worst."""
    sample = Sample("T4", quick)
    for rows, seeds, kind, noise, average, worst in (
        (5, 3, "hom", Noise(), 0.951, 0.949),
        (5, 3, "one row of 4 sd", Noise(first=4), 0.940, 0.844),
        (5, 3, "baseline of 4 sd", Noise(baseline=4), 0.913, 0.912),
        (5, 3, "t(3)", Noise(heavy=True), 0.961, 0.961),
        (12, 10, "hom", Noise(), 0.952, 0.950),
        (12, 10, "one row of 4 sd", Noise(first=4), 0.953, 0.922),
    ):
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
    expected = {
        (5, 3): (0.037, 0.035, 0.045),
        (5, 10): (0.039, 0.043, 0.074),
        (12, 3): (0.010, 0.009, 0.013),
        (12, 10): (0.029, 0.037, 0.054),
    }
    for (rows, seeds), rates in expected.items():
        none = (rows + 1) // 2
        cases = {
            "no effects": [0.0] * rows,
            "all of the margin": [margin] * rows,
            "half of it": [0.0] * none + [margin] * (rows - none),
        }
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
    for rows, shares in {5: (0.12, 0.43, 0.62, 0.97), 12: (0.02, 0.19, 0.38, 0.94)}.items():
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
        1: ((4.38, 0.770), (2.35, 0.788), (1.41, 0.802)),
        5: ((4.04, 0.713), (2.78, 0.773), (1.76, 0.785)),
        12: ((4.82, 0.708), (3.21, 0.753), (1.97, 0.781)),
    }
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
    expected = {1: (0.192, 0.134, 0.041), 5: (0.149, 0.109, 0.031), 12: (0.104, 0.073, 0.020)}
    for rows, rates in expected.items():
        for (kind, (looks, weights)), figure in zip(plans.items(), rates, strict=True):

            def false(x: Array, looks: Sequence[int] = looks, weights: Sequence[float] = weights) -> Array:
                return np.asarray(look_by_look(x, looks, weights).decided.any(axis=-1), dtype=np.float64)

            tolerance = sample.tolerance(0.02 if figure > 0.12 else 0.012)
            found = sample.mean(sample.tables(20_000, rows, LOOKS[-1]), false)
            yield Figure("T8", f"m={rows} {kind}: false difference", figure, tolerance, float(found))


def t9(quick: bool) -> Iterator[Figure]:
    """What looking saves: half of the rows (rounded up) have an effect; then whole studies with their baseline."""
    sample = Sample("T9", quick)
    for rows, effect, found_then, seeds, fixed in (
        (5, 1, 0.257, 11.5, 0.362),
        (5, 2, 0.935, 8.9, 0.973),
        (5, 4, 1, 5.3, 1),
        (12, 2, 0.868, 9.8, 0.932),
        (12, 4, 1, 5.9, 1),
    ):
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
        words = "no margin" if margin is None else f"margin {margin:g} sd"
        # ±0.2 seeds a row, of all rows and the baseline.
        label = f"m={rows} {words}: runs of a study (of {12 * (rows + 1)})"
        yield Figure("T9", label, runs, sample.tolerance(0.2) * (rows + 1), float(found))


def t10(quick: bool) -> Iterator[Figure]:
    """Intervals of a rate of divergence, in percent: exact."""
    for n, ends in {
        3: (0, 70.8, 0.8, 90.6, 29.2, 100),
        5: (0, 52.2, 0.5, 71.6, 47.8, 100),
        10: (0, 30.8, 0.3, 44.5, 69.2, 100),
    }.items():
        found = [100 * end for k in (0, 1, n) for end in rate(k, n)]
        for i, (figure, value) in enumerate(zip(ends, found, strict=True)):
            side = ("lower", "upper")[i % 2]
            yield Figure("T10", f"{(0, 1, n)[i // 2]} of {n}, {side} end in %", figure, 0.051, value)


def t12(quick: bool) -> Iterator[Figure]:
    """The optimism of a search's winner, in sd of its noise; and what is left of it when five are trained again."""
    for trials, biases in {20: (0.84, 1.33, 1.67), 50: (1.00, 1.58, 2.01), 100: (1.12, 1.77, 2.24)}.items():
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
    "T1": t1,
    "T3": t3,
    "T4": t4,
    "T5": t5,
    "T6": t6,
    "T8": t8,
    "T9": t9,
    "T10": t10,
    "T12": t12,
}


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
