"""What the simulations of tables share: how runs scatter, streams of tables, and a figure beside the expected one.

The unit is the sd of a run over seeds; m rows of n seeds share their baseline's n0 runs, and runs at equal seeds
correlate by 0.1, as in our reference studies. Random streams are fixed, so that a run is repeatable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from deit_ablate.report.stats.moderated import Comparisons, holds, moderate

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
    """How runs scatter."""

    correlation: float = 0.1
    """Of runs at equal seeds."""
    first: float = 1.0
    """The sd of the first row; ``baseline`` that of the baseline. Other rows' is 1."""
    baseline: float = 1.0
    logarithmic: float = 0.0
    """Every group's sd times exp of a normal of this sd."""
    geometric: bool = False
    """The rows' sd from 1/4 to 4, in equal ratios."""
    heavy: bool = False
    """Student's t with 3 degrees of freedom, scaled to sd 1."""
    low: float = 0.0
    """Share of runs that end 20 sd lower."""


KINDS = {
    "equal scatter": Noise(),
    "log-normal 0.4": Noise(logarithmic=0.4),
    "one row of 4 sd": Noise(first=4),
    "one row of 10 sd": Noise(first=10),
    "baseline of 2 sd": Noise(baseline=2),
    "baseline of 4 sd": Noise(baseline=4),
    "rows of 1/4 to 4 sd": Noise(geometric=True),
    "t(3)": Noise(heavy=True, correlation=0),
    "10% of runs 20 sd lower": Noise(low=0.1),
}


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
        self,
        many: int,
        size: tuple[int, int, int],
        effects: Sequence[float] = (),
        noise: Noise = KINDS["equal scatter"],
    ) -> Iterator[Array]:
        """Blocks (tables, 1 + rows, seeds) of the baseline's runs and the rows', NaN beyond a group's seeds. ``size``:
        rows, seeds of a row, seeds of the baseline."""
        (rows, seeds, baseline), draw = size, self.generator
        left = self.count(many)
        while left > 0:
            shape = (min(left, BLOCK), rows + 1, max(seeds, baseline))
            left -= shape[0]
            runs = draw.standard_t(3, shape) / math.sqrt(3) if noise.heavy else draw.standard_normal(shape)
            if noise.correlation:
                common = draw.standard_normal((shape[0], 1, shape[2]))
                runs = math.sqrt(noise.correlation) * common + math.sqrt(1 - noise.correlation) * runs
            if noise.logarithmic:
                runs *= np.exp(noise.logarithmic * draw.standard_normal((*shape[:2], 1)))
            runs[:, 0] *= noise.baseline
            runs[:, 1] *= noise.first
            if noise.geometric:
                runs[:, 1:] *= np.geomspace(0.25, 4, rows)[:, None] if rows > 1 else 4
            if noise.low:
                runs -= 20 * (draw.random(shape) < noise.low)
            if len(effects):
                runs[:, 1:] += np.asarray(effects)[:, None]
            runs[:, 1:, seeds:] = np.nan
            runs[:, 0, baseline:] = np.nan
            yield runs

    def mean(self, blocks: Iterator[Array], statistic: Callable[[Array], npt.NDArray[np.generic]]) -> Array:
        """The mean over tables of a statistic (tables, ...)."""
        every = np.concatenate([np.asarray(statistic(block), dtype=np.float64) for block in blocks])
        return np.asarray(every.mean(axis=0), dtype=np.float64)


def against_baseline(runs: Array, paired: bool = False) -> Comparisons:
    rows = runs.shape[1] - 1
    return Comparisons.with_baseline(rows, range(rows) if paired else ())


def false_difference(runs: Array, paired: bool = False) -> npt.NDArray[np.bool_]:
    return np.asarray(holds(moderate(runs, against_baseline(runs, paired)).p).any(axis=-1))


def named(size: tuple[int, int, int]) -> str:
    return "m={} n={} n0={}".format(*size)
