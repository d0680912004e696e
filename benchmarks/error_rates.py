"""Do the verdicts have the error rates that they claim? Simulate thousands of tables and compare with what is expected.

    python benchmarks/error_rates.py            all figures; two minutes on one core
    python benchmarks/error_rates.py --quick    small samples with wider tolerances; seconds
    python benchmarks/error_rates.py --only T8 T9

Judged by the package's own formulas (``deit_ablate.report.stats.moderated``); S1 to S3, of the rules that were tried,
by ``seeds.py``. Prints each figure beside the expected one and its tolerance; exits with 1 where one is outside. The
expected figures were found by another program, written for this alone; benchmarks/README.md has the outcome.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from seeds import s1, s2, s3
from simulation import KINDS, Array, Figure, Noise, Sample, against_baseline, false_difference, named

from deit_ablate.report.stats.contrasts import estimate
from deit_ablate.report.stats.exact import rate
from deit_ablate.report.stats.moderated import holds, look_by_look, moderate, seen
from deit_ablate.report.stats.population import ImageNoise, image_noise
from deit_ablate.report.stats.power import detectable, detectable_effect, optimism
from deit_ablate.report.stats.sequential import LOOKS, WEIGHTS, Schedule, chances_of
from deit_ablate.sweep.comparisons import baseline_seeds
from deit_ablate.sweep.designs import factorial


def t1(quick: bool) -> Iterator[Figure]:
    """Share of tables with a false difference, no row having one."""
    sample = Sample("T1", quick)
    expected = {
        (1, 3, 3): (0.0429, 0.0501, 0.0753, 0.0797, 0.0548, 0.0737, 0.0715, 0.0379, 0.0232),
        (1, 5, 5): (0.0385, 0.0437, 0.0559, 0.0572, 0.0473, 0.0550, 0.0570, 0.0383, 0.0158),
        (2, 3, 3): (0.0435, 0.0523, 0.0742, 0.0853, 0.0543, 0.0679, 0.0951, 0.0369, 0.0263),
        (2, 3, 5): (0.0401, 0.0491, 0.0792, 0.0812, 0.0341, 0.0381, 0.0787, 0.0313, 0.0200),
        (3, 3, 6): (0.0250, 0.0354, 0.0632, 0.0707, 0.0212, 0.0267, 0.0668, 0.0191, 0.0106),
        (5, 3, 3): (0.0117, 0.0204, 0.0380, 0.0564, 0.0309, 0.0564, 0.0516, 0.0093, 0.0074),
        (5, 3, 7): (0.0128, 0.0258, 0.0493, 0.0566, 0.0129, 0.0206, 0.0681, 0.0098, 0.0067),
        (5, 5, 12): (0.0209, 0.0271, 0.0340, 0.0341, 0.0207, 0.0226, 0.0423, 0.0126, 0.0023),
        (8, 3, 9): (0.0053, 0.0199, 0.0361, 0.0441, 0.0078, 0.0146, 0.0656, 0.0049, 0.0072),
        (12, 3, 11): (0.0034, 0.0168, 0.0287, 0.0374, 0.0054, 0.0114, 0.0654, 0.0034, 0.0096),
        (12, 5, 5): (0.0076, 0.0146, 0.0166, 0.0191, 0.0206, 0.0245, 0.0295, 0.0046, 0.0007),
        (12, 5, 18): (0.0107, 0.0220, 0.0206, 0.0206, 0.0148, 0.0155, 0.0444, 0.0057, 0.0006),
    }
    for size, rates in expected.items():
        for (kind, noise), figure in zip(KINDS.items(), rates, strict=True):
            found = sample.mean(sample.tables(20_000, size, noise=noise), false_difference)
            yield Figure("T1", f"{named(size)} {kind}", figure, sample.tolerance(0.007), float(found))


def t2(quick: bool) -> Iterator[Figure]:
    """The same of rows that are paired by structure; runs at equal seeds correlate by 0.8."""
    sample = Sample("T2", quick)
    expected = {
        (1, 3, 3): (0.0503, 0.0491, 0.0497, 0.0491, 0.0505, 0.0506, 0.0497),
        (2, 3, 3): (0.0483, 0.0495, 0.0502, 0.0504, 0.0454, 0.0364, 0.0469),
        (5, 3, 3): (0.0114, 0.0207, 0.0473, 0.0561, 0.0315, 0.0421, 0.0495),
        (5, 5, 5): (0.0177, 0.0239, 0.0311, 0.0320, 0.0281, 0.0266, 0.0347),
        (12, 5, 5): (0.0079, 0.0145, 0.0163, 0.0171, 0.0177, 0.0167, 0.0306),
    }
    for size, rates in expected.items():
        for (kind, noise), figure in zip(KINDS.items(), rates, strict=False):
            noise = replace(noise, correlation=0.8)
            found = sample.mean(sample.tables(20_000, size, noise=noise), lambda x: false_difference(x, paired=True))
            yield Figure("T2", f"{named(size)} {kind}", figure, sample.tolerance(0.007), float(found))


def t3(quick: bool) -> Iterator[Figure]:
    """Power per row that has an effect: a third of the rows (rounded down, at least one)."""
    sample = Sample("T3", quick)
    expected = {
        (1, 3, 3): (0.290, 0.455, 0.780, 0.948),
        (1, 5, 5): (0.542, 0.794, 0.986, 1.000),
        (2, 3, 3): (0.197, 0.345, 0.672, 0.896),
        (2, 3, 5): (0.263, 0.456, 0.804, 0.954),
        (3, 3, 6): (0.194, 0.371, 0.745, 0.940),
        (5, 3, 3): (0.068, 0.156, 0.463, 0.783),
        (5, 3, 7): (0.117, 0.274, 0.676, 0.910),
        (5, 5, 12): (0.378, 0.680, 0.974, 0.999),
        (8, 3, 9): (0.077, 0.196, 0.601, 0.875),
        (12, 3, 11): (0.044, 0.137, 0.511, 0.838),
        (12, 5, 5): (0.123, 0.324, 0.822, 0.985),
        (12, 5, 18): (0.261, 0.567, 0.945, 0.997),
    }
    for size, powers in expected.items():
        rows, some = size[0], max(1, size[0] // 3)

        def found_rows(x: Array, some: int = some) -> Array:
            return np.asarray(holds(moderate(x, against_baseline(x)).p)[:, :some].mean(axis=-1))

        for effect, figure in zip((1.5, 2, 3, 4), powers, strict=True):
            found = sample.mean(sample.tables(5000, size, [effect] * some + [0] * (rows - some)), found_rows)
            label = f"{named(size)} power at {effect} sd"
            yield Figure("T3", label, figure, sample.tolerance(0.02), float(found))


def t4(quick: bool) -> Iterator[Figure]:
    """Coverage of the interval of one row: mean over rows, and the row that has it worst."""
    sample = Sample("T4", quick)
    for size, kind, average, worst in (
        ((5, 3, 7), "equal scatter", 0.975, 0.974),
        ((5, 3, 7), "one row of 4 sd", 0.966, 0.893),
        ((5, 3, 7), "one row of 10 sd", 0.964, 0.882),
        ((5, 3, 7), "baseline of 4 sd", 0.954, 0.953),
        ((5, 3, 7), "t(3)", 0.982, 0.981),
        ((2, 3, 5), "one row of 4 sd", 0.931, 0.903),
        ((12, 5, 18), "equal scatter", 0.969, 0.968),
        ((12, 5, 18), "one row of 4 sd", 0.968, 0.927),
    ):
        found = sample.mean(sample.tables(20_000, size, noise=KINDS[kind]), covered)
        label = f"{named(size)} {kind}: coverage"
        yield Figure("T4", label, average, sample.tolerance(0.007), float(found.mean()))
        yield Figure("T4", f"{label}, worst row", worst, sample.tolerance(0.007), float(found.min()))


def covered(runs: Array) -> npt.NDArray[np.bool_]:
    now = moderate(runs, against_baseline(runs))
    return np.asarray(np.abs(now.difference) <= now.half_width())


def t5(quick: bool) -> Iterator[Figure]:
    """Share of tables with any false verdict where the margin is 2 sd, and how often rows are found equivalent."""
    sample, margin = Sample("T5", quick), 2.0
    expected = {
        (5, 3, 7): (0.016, 0.015, 0.023),
        (5, 10, 23): (0.038, 0.040, 0.077),
        (12, 3, 11): (0.003, 0.004, 0.005),
        (12, 10, 35): (0.032, 0.034, 0.068),
    }
    unrelated = Noise(correlation=0)
    for size, rates in expected.items():
        rows, none = size[0], (size[0] + 1) // 2
        cases = {
            "no effects": [0.0] * rows,
            "all of the margin": [margin] * rows,
            "half of it": [0.0] * none + [margin] * (rows - none),
        }
        for (kind, effects), figure in zip(cases.items(), rates, strict=True):
            true = np.array(effects)

            def false(x: Array, true: Array = true) -> npt.NDArray[np.bool_]:
                now = moderate(x, against_baseline(x))
                wrong = holds(now.p) & (np.sign(now.difference) != np.sign(true))
                return np.asarray((wrong | (holds(now.p_equivalent(margin)) & (true != 0))).any(axis=-1))

            found = sample.mean(sample.tables(5000, size, effects, unrelated), false)
            label = f"{named(size)} {kind}: any false verdict"
            yield Figure("T5", label, figure, sample.tolerance(0.012), float(found))

    def equivalent(x: Array) -> Array:
        return np.asarray(holds(moderate(x, against_baseline(x)).p_equivalent(margin)).mean(axis=-1))

    for rows, shares in {5: (0.165, 0.800, 0.934, 0.999), 12: (0.033, 0.659, 0.904, 1.0)}.items():
        for seeds, figure in zip((3, 5, 6, 10), shares, strict=True):
            size = (rows, seeds, baseline_seeds(rows, seeds))
            found = sample.mean(sample.tables(5000, size, noise=unrelated), equivalent)
            label = f"{named(size)} null row found equivalent"
            yield Figure("T5", label, figure, sample.tolerance(0.02), float(found))


def t6(quick: bool) -> Iterator[Figure]:
    """The smallest effect that a plan says it finds, and how often it really does (one row has it)."""
    sample = Sample("T6", quick)
    expected = {
        1: ((2.644, 0.682), (1.936, 0.759), (1.310, 0.783)),
        2: ((2.722, 0.724), (1.969, 0.766), (1.332, 0.787)),
        5: ((3.178, 0.735), (2.176, 0.767), (1.413, 0.784)),
        12: ((3.727, 0.738), (2.419, 0.761), (1.507, 0.785)),
    }
    for rows, plans in expected.items():
        for seeds, (effect, real) in zip((3, 5, 10), plans, strict=True):
            size = (rows, seeds, baseline_seeds(rows, seeds))
            planned = detectable(*size)
            yield Figure("T6", f"{named(size)} smallest detectable effect, exact", effect, 0.0011, planned)
            blocks = sample.tables(5000, size, [planned] + [0] * (rows - 1), Noise(correlation=0))
            found = sample.mean(blocks, lambda x: holds(moderate(x, against_baseline(x)).p)[:, 0])
            yield Figure("T6", f"{named(size)} its power", real, sample.tolerance(0.02), float(found))


def looked(looks: Sequence[int], rows: int) -> list[tuple[int, int]]:
    return [(look, baseline_seeds(rows, look)) for look in looks]


def t8(quick: bool) -> Iterator[Figure]:
    """Share of tables with a false difference when one looks several times."""
    sample = Sample("T8", quick)
    plans: dict[str, tuple[Sequence[int], Sequence[float]]] = {
        "looks at 3..12, unweighted": (range(3, 13), (1,) * 10),
        "looks at 3, 6, 9, 12, unweighted": (LOOKS, (1,) * 4),
        "the default plan": (LOOKS, WEIGHTS),
    }
    cases = [
        (rows, kind, "equal scatter", figure)
        for rows, rates in {
            1: (0.1725, 0.1334, 0.0367),
            5: (0.1284, 0.0865, 0.0266),
            12: (0.1057, 0.0721, 0.0219),
        }.items()
        for kind, figure in zip(plans, rates, strict=True)
    ]
    scatter = {
        "one row of 10 sd": 0.0492,
        "rows of 1/4 to 4 sd": 0.0473,
        "baseline of 4 sd": 0.0195,
        "log-normal 0.4": 0.0285,
    }
    cases += [(5, "the default plan", kind, figure) for kind, figure in scatter.items()]
    for rows, kind, noise, figure in cases:
        looks, weights = plans[kind]

        def false(x: Array, looks: Sequence[int] = looks, weights: Sequence[float] = weights) -> Array:
            steps = looked(looks, x.shape[1] - 1)
            decided = look_by_look(x, against_baseline(x), steps, weights).decided
            return np.asarray(decided.any(axis=-1), dtype=np.float64)

        size, tolerance = (rows, 12, baseline_seeds(rows, 12)), sample.tolerance(0.02 if figure > 0.12 else 0.012)
        found = sample.mean(sample.tables(20_000, size, noise=replace(KINDS[noise], correlation=0)), false)
        yield Figure("T8", f"m={rows} {kind}, {noise}", figure, tolerance, float(found))


def t9(quick: bool) -> Iterator[Figure]:
    """What looking saves: half of the rows (rounded up) have an effect; then whole studies with their baseline."""
    sample, unrelated = Sample("T9", quick), Noise(correlation=0)
    for rows, effect, found_then, seeds, fixed in (
        (5, 1, 0.447, 11.065, 0.569),
        (5, 2, 0.995, 7.173, 0.999),
        (5, 4, 1, 4.183, 1),
        (12, 2, 0.991, 7.832, 0.997),
        (12, 4, 1, 4.867, 1),
    ):
        some, size = (rows + 1) // 2, (rows, 12, baseline_seeds(rows, 12))

        def outcome(x: Array, some: int = some) -> Array:
            against = against_baseline(x)
            seen = look_by_look(x, against, looked(LOOKS, x.shape[1] - 1), WEIGHTS)
            at_once, stopped = holds(moderate(x, against).p), np.asarray(LOOKS)[seen.last]
            return np.stack([part[:, :some].mean(axis=-1) for part in (seen.decided, stopped, at_once)], 1)

        means = sample.mean(sample.tables(5000, size, [effect] * some + [0] * (rows - some), unrelated), outcome)
        label = f"m={rows} {effect} sd:"
        yield Figure("T9", f"{label} power", found_then, sample.tolerance(0.02), float(means[0]))
        yield Figure("T9", f"{label} mean seeds of a row", seeds, sample.tolerance(0.2), float(means[1]))
        yield Figure("T9", f"{label} power of 12 seeds at once", fixed, sample.tolerance(0.02), float(means[2]))
    for rows, margin, runs in ((6, None, 74.62), (6, 3.0, 50.44), (12, None, 134.2), (12, 3.0, 98.98)):
        size = (rows, 12, baseline_seeds(rows, 12))

        def total(x: Array, margin: float | None = margin) -> Array:
            steps = looked(LOOKS, x.shape[1] - 1)
            last = look_by_look(x, against_baseline(x), steps, WEIGHTS, margin).last
            of_rows, of_baseline = (np.asarray(side)[last] for side in zip(*steps, strict=True))
            return np.asarray(of_rows.sum(axis=-1) + of_baseline.max(axis=-1), dtype=np.float64)

        found = sample.mean(sample.tables(5000, size, np.repeat([0, 2, 6], rows // 3).tolist(), unrelated), total)
        words = "no margin" if margin is None else f"margin {margin:g} sd"
        # ±0.2 seeds a row, of all rows and the baseline.
        label = f"m={rows} {words}: runs of a study (of {rows * 12 + size[2]})"
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


def t13(quick: bool) -> Iterator[Figure]:
    """Effects of a factorial: share of tables with a false one, none being there; coverage of their intervals; power of
    a main effect of the size that a plan says it finds."""
    sample = Sample("T13", quick)
    expected = {
        (2, None, 3): (0.0188, 0.0251, 0.0398, 0.0387, 0.0236, 0.0407, 0.0371, 0.0144, 0.0066),
        (3, None, 3): (0.0178, 0.0221, 0.0366, 0.0422, 0.0209, 0.0364, 0.0263, 0.0121, 0.0022),
        (3, None, 5): (0.0281, 0.0305, 0.0354, 0.0244, 0.0302, 0.0361, 0.0298, 0.0246, 0.0056),
        (4, "1/2", 3): (0.0166, 0.0214, 0.0370, 0.0395, 0.0202, 0.0369, 0.0243, 0.0118, 0.0021),
    }
    powers = {(2, None, 3): 0.643, (3, None, 3): 0.690, (3, None, 5): 0.782, (4, "1/2", 3): 0.680}
    for (factors, fraction, seeds), rates in expected.items():
        effects = factorial([f"no {letter}" for letter in "abcd"[:factors]], fraction).effects()
        signs = np.array([effect.signs for effect in effects], dtype=np.float64)
        rows = signs.shape[1]
        weights = signs * np.array([[2 * len(effect.effect) / rows] for effect in effects])
        size, label = (rows - 1, seeds, seeds), f"{rows} of {2**factors} rows, n={seeds}"

        def found_effects(x: Array, weights: Array = weights) -> npt.NDArray[np.bool_]:
            return holds(estimate(x, weights).p)

        for (kind, noise), figure in zip(KINDS.items(), rates, strict=True):
            tables = sample.tables(20_000, size, noise=noise)
            found = sample.mean(tables, lambda x: np.asarray(found_effects(x).any(axis=-1)))
            yield Figure("T13", f"{label} {kind}", figure, sample.tolerance(0.007), float(found))
        planned = detectable_effect(len(effects), rows, seeds)

        def power(x: Array, added: Array = planned / 2 * signs[0]) -> npt.NDArray[np.bool_]:
            return np.asarray(found_effects(x + added[:, None])[:, 0])

        found = sample.mean(sample.tables(5000, size), power)
        label = f"{label}: power of an effect of {planned:.2f} sd"
        yield Figure("T13", label, powers[factors, fraction, seeds], sample.tolerance(0.02), float(found))
    for kind, figure in {"equal scatter": 0.969, "one row of 4 sd": 0.948, "one row of 10 sd": 0.929}.items():
        weights = np.array([[1.0, 1, 1, 1, -1, -1, -1, -1]]) / 4

        def covers(x: Array, weights: Array = weights) -> npt.NDArray[np.bool_]:
            now = estimate(x, weights)
            return np.asarray(np.abs(now.difference) <= now.half_width())

        found = sample.mean(sample.tables(20_000, (7, 3, 3), noise=KINDS[kind]), covers)
        yield Figure("T13", f"8 of 8 rows, n=3 {kind}: coverage", figure, sample.tolerance(0.007), float(found.mean()))


@dataclass(frozen=True)
class Crossed:
    """Tables of right and wrong decisions: a run gets an image right where image + row x image + row + run + rest > 0,
    all normal; the rest has sd 1. Of new images and runs a row gets Φ((level + effect) / total) right."""

    images: int
    run: float
    """Sd of runs within a row; ``shared`` that of what paired runs have in common."""
    effect: float = 0.0
    of_rows: float = 0.5
    level: float = 2.0
    image: float = 2.0

    @property
    def total(self) -> float:
        return math.sqrt(1 + self.image**2 + self.of_rows**2 + self.run**2)

    @property
    def difference(self) -> float:
        """The true one, in points."""
        low, high = ((1 + math.erf(x / self.total / math.sqrt(2))) / 2 for x in (self.level, self.level + self.effect))
        return 100 * (high - low)

    def table(self, draw: np.random.Generator, size: tuple[int, int, int], paired: bool) -> list[npt.NDArray[Any]]:
        """The baseline's values (runs, images) in points, then each row's; ``paired`` rows are the baseline's runs
        with another head: half of what scatters a run is in common."""
        rows, seeds, baseline = size
        common = self.level + self.image * draw.standard_normal(self.images, dtype=np.float32)
        of_seed = draw.standard_normal((max(seeds, baseline), 1), dtype=np.float32)
        groups = []
        for row in range(rows + 1):
            runs = seeds if row else baseline
            own = draw.standard_normal((runs, 1), dtype=np.float32)
            run = (own + of_seed[:runs]) / math.sqrt(2) if paired else own
            x = common + self.of_rows * draw.standard_normal(self.images, dtype=np.float32) + self.run * run
            x += self.effect * (row > 0) + draw.standard_normal(x.shape, dtype=np.float32)
            groups.append(np.where(x > 0, 100.0, 0.0))
        return groups


def t14(quick: bool) -> Iterator[Figure]:
    """New images: what the finite test set adds, and coverage of the difference between rows for new images and runs.

    The first is expected as the integral has it. The second is to be 93 to 97%, and is above where five rows of three
    seeds have much training noise, as it is there for these images (T4).
    """
    sample = Sample("T14", quick)
    designs = [Crossed(100, 0.02), Crossed(600, 0.02, 0.4), Crossed(600, 0.3), Crossed(100, 0.3, 0.4)]
    parts = dict(zip(designs, (1.2655, 0.5343, 0.5066, 1.2819), strict=True))
    sizes = [(1, 3, 3), (1, 5, 15), (1, 10, 10), (2, 3, 5), (5, 3, 7), (5, 5, 12), (5, 10, 23)]
    cases = [(size, design, False) for size in sizes for design in designs]
    cases += [(size, design, True) for size in ((1, 5, 5), (5, 3, 3)) for design in designs]
    large = Crossed(10_000, 0.1, 0.4)
    parts[large] = 0.1306
    for size, design, paired in [*cases, ((1, 3, 3), large, False), ((1, 10, 10), large, False)]:
        found = np.array([new_images(sample, size, design, paired) for _ in range(sample.count(1000))]).mean(axis=0)
        noise = f"{design.images} images, run sd {design.run:g}, effect {design.difference:.1f}"
        label = f"{named(size)} {'paired, ' if paired else ''}{noise}:"
        part = parts[design]
        yield Figure("T14", f"{label} part", part, sample.tolerance(0.05) * part, math.sqrt(max(0.0, found[0])))
        wide = size[:2] == (5, 3)
        yield Figure("T14", f"{label} coverage", 0.973 if wide else 0.95, sample.tolerance(0.02), float(found[1]))
        if size == (5, 10, 23) and not paired and not design.effect:
            without = {0.02: 0.79, 0.3: 0.93}[design.run]
            yield Figure("T14", f"{label} by training noise alone", without, sample.tolerance(0.02), float(found[2]))
            yield Figure("T14", f"{label} false difference", 0.05, sample.tolerance(0.02), float(found[3]))


def new_images(sample: Sample, size: tuple[int, int, int], design: Crossed, paired: bool) -> list[float]:
    """Of one table: variance from its images, shares of rows whose interval for new images, and for these, has the true
    difference, and whether any row differs."""
    base, *rows = design.table(sample.generator, size, paired)
    values = np.full((len(rows) + 1, max(size[1:])), np.nan)
    for row, group in enumerate([base, *rows]):
        values[row, : len(group)] = group.mean(axis=1)
    now = moderate(values, against_baseline(values[None], paired), 100 / design.images)
    noise = ImageNoise.of([image_noise(own - base if paired else own, None if paired else base) for own in rows])
    wide, off = noise.widen(now), np.abs(now.difference - design.difference)
    covers, covers_these = ((off <= each.half_width()).mean() for each in (wide, now))
    return [float((noise.raw - noise.training).mean()), covers, covers_these, float(holds(wide.p).any())]


@dataclass(frozen=True)
class Added:
    """Tables whose seeds were added by themselves. All (tables, rows), but ``runs`` (tables)."""

    ever: npt.NDArray[np.bool_]
    """Whether a row was decided at any time, however it stands at the end."""
    decided: npt.NDArray[np.bool_]
    runs: Array


def added(x: Array, budget: float = math.inf) -> Added:
    """Rows take their looks one at a time, where a run is most likely to bring a decision, while whole looks fit."""
    tables, rows = x.shape[0], x.shape[1] - 1
    steps, against = looked(LOOKS, rows), against_baseline(x)
    schedule = Schedule(LOOKS, tuple(baseline for _, baseline in steps), WEIGHTS, together=False)
    of_rows, of_baseline = np.array([0, *LOOKS]), np.array([0, *schedule.baseline])
    taken = np.zeros((tables, rows), dtype=np.intp)
    ever, decided, chances = np.zeros(taken.shape, bool), np.zeros(taken.shape, bool), np.ones(taken.shape)
    while True:
        runs, following = of_rows[taken].sum(1) + of_baseline[taken.max(1)], np.minimum(taken + 1, len(LOOKS))
        of_both = np.maximum(0, of_baseline[following] - of_baseline[taken.max(1)][:, None])
        cost = of_rows[following] - of_rows[taken] + of_both
        may = (taken < len(LOOKS)) & ~decided & (runs[:, None] + cost <= budget)
        if not may.any():
            return Added(ever, decided, runs)
        which = np.flatnonzero(may.any(axis=1))
        taken[which, np.where(may, chances / np.maximum(cost, 1), -1).argmax(axis=1)[which]] += 1
        ready = np.arange(1, len(LOOKS) + 1)[:, None, None] <= taken
        found = look_by_look(x, against, steps, WEIGHTS, ready=ready)
        decided, ever = found.decided, ever | found.decided
        now = seen(x, steps, found.last, 0)
        there = np.arange(x.shape[2]) < of_baseline[taken.max(1)][:, None]
        now[:, 0] = np.where(there, x[:, 0], np.nan)
        chances = chances_of(moderate(now, against), schedule, taken, (~decided).sum(1)[:, None])


def t15(quick: bool) -> Iterator[Figure]:
    """Seeds that are added by themselves: false differences at any time, and runs. Expected: an earlier run of this."""
    sample = Sample("T15", quick)
    for rows, kind, figure in (
        (1, "equal scatter", 0.0385),
        (5, "equal scatter", 0.0302),
        (5, "one row of 10 sd", 0.0557),
        (5, "rows of 1/4 to 4 sd", 0.0490),
        (5, "baseline of 4 sd", 0.0222),
        (5, "log-normal 0.4", 0.0262),
    ):
        size = (rows, 12, baseline_seeds(rows, 12))
        noise = replace(KINDS[kind], correlation=0)
        found = sample.mean(sample.tables(1500, size, noise=noise), lambda x: np.asarray(added(x).ever.any(axis=-1)))
        label = f"m={rows} a false difference at any time, {kind}"
        yield Figure("T15", label, figure, sample.tolerance(0.016), float(found))
    for effects, budget, power, runs in (
        ((1.5, 2, 3, 4, 6, 8), math.inf, 0.993, 51.3),
        ((0, 0, 2, 2, 6, 6), math.inf, 0.996, 75.0),
        ((0, 0, 2, 2, 6, 6), 65, 0.982, 62.7),
    ):
        size, real = (6, 12, baseline_seeds(6, 12)), np.array(effects) != 0

        def outcome(x: Array, budget: float = budget, real: npt.NDArray[np.bool_] = real) -> Array:
            end = added(x, budget)
            return np.stack([end.decided[:, real].mean(axis=-1), end.runs], 1)

        means = sample.mean(sample.tables(600, size, effects, Noise(correlation=0)), outcome)
        label = f"m=6 effects {'/'.join(map(str, effects))}" + (f", {budget} runs" if budget < math.inf else "")
        yield Figure("T15", f"{label}: power", power, sample.tolerance(0.02), float(means[0]))
        yield Figure("T15", f"{label}: runs", runs, sample.tolerance(2.0), float(means[1]))


TABLES: dict[str, Callable[[bool], Iterator[Figure]]] = {
    "T1": t1,
    "T2": t2,
    "T3": t3,
    "T4": t4,
    "T5": t5,
    "T6": t6,
    "T8": t8,
    "T9": t9,
    "T10": t10,
    "T12": t12,
    "T13": t13,
    "T14": t14,
    "T15": t15,
    "S1": s1,
    "S2": s2,
    "S3": s3,
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
