"""How much the finite test set adds to a difference, and intervals "for new images of this kind". Imports numpy.

A row's runs and the baseline's decide on the same images. That makes a crossed design with random effects (Cornfield &
Tukey 1956): rows x images, and runs, which are drawn within a row, x images. In the mean difference of n runs from n0
of the baseline over N images,

    D = true difference + [runs within rows, over these images] + [row x image, which no further run averages out],

the two parts in brackets are uncorrelated. The first one's variance T is what an interval for these images rests on
(``moderated``). The second one's is s2/N, s2 being the variance over images of the expected difference at an image.
What is common to row and baseline at an image, its difficulty, cancels. From the images' mean differences

    s2 = variance over images - MS/n - MS0/n0,

without bias whatever the values are (the mean squares of ANOVA), where MS is the mean square of run x image within the
row, over (n - 1)(N - 1) degrees of freedom; MS0 that within the baseline. Where runs are paired, the differences of the
pairs are the one group. Below 0 it counts as 0. The interval for new images has the variance T + s2/N, with degrees of
freedom by Satterthwaite (1946). So are readers and cases treated in multi-reader studies, with reader for run and case
for image, readers nested within modalities (Dorfman, Berbaum & Metz 1992; degrees of freedom: Hillis 2007; Hillis 2014,
doi 10.1002/sim.5926). Images are taken to be independent draws.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

import numpy as np

from deit_ablate.report.stats.moderated import Array, Moderated
from deit_ablate.report.stats.power import ALPHA


@dataclass(frozen=True)
class NewImages(Moderated):
    """Comparisons for new images of this kind; ``these`` are the same for the images that there are.

    By few degrees of freedom Satterthwaite's interval may be a little shorter than the one for these images, whose
    variance is smaller: nothing is claimed of new images that is not claimed of these.
    """

    these: Moderated

    @property
    def p(self) -> Array:
        return np.asarray(np.maximum(super().p, self.these.p))

    def p_equivalent(self, margin: float) -> Array:
        return np.asarray(np.maximum(super().p_equivalent(margin), self.these.p_equivalent(margin)))

    def half_width(self, alpha: float | Array = ALPHA) -> Array:
        return np.asarray(np.maximum(super().half_width(alpha), self.these.half_width(alpha)))


@dataclass(frozen=True)
class ImageNoise:
    """What the finite test set adds to comparisons: all (..., comparisons), in squares of the unit; NaN is unknown.

    ``raw``: variance over images of the mean difference, over their number; ``training``: the part of it that is
    training noise; ``images``: their number.
    """

    raw: Array
    training: Array
    images: Array

    @classmethod
    def of(cls, comparisons: Sequence[ImageNoise]) -> ImageNoise:
        """Single ones side by side."""
        parts = ([getattr(one, each.name) for one in comparisons] for each in fields(cls))
        return cls(*(np.stack(values, axis=-1) if values else np.empty(0) for values in parts))

    @property
    def standard_error(self) -> Array:
        """What the draw of the images alone adds to each difference."""
        return np.sqrt(np.maximum(0.0, self.raw - self.training))

    def widen(self, now: Moderated) -> NewImages:
        """The same comparisons for new images of this kind: their standard errors and degrees of freedom."""
        training, images = now.standard_error**2, self.standard_error**2
        squared = training + images
        parts = training**2 / now.df + self.raw**2 / (self.images - 1)
        df = np.divide(squared**2, parts, out=np.full(squared.shape, np.nan), where=parts > 0)
        known = {each.name: getattr(now, each.name) for each in fields(now)}
        return NewImages(**known | {"standard_error": np.sqrt(squared), "df": df}, these=now)


UNKNOWN = ImageNoise(*(np.array(math.nan) for _ in range(3)))
"""Of a comparison of which no predictions are known."""


@dataclass(frozen=True)
class Population:
    """What is known of the finite test set, row by row: its part, or why that is not known."""

    of_rows: Mapping[str, ImageNoise | str] = field(default_factory=dict)
    judged: bool = False
    """Whether rows are judged for new images of this kind, by the interval that has this part."""

    def unknown(self, name: str) -> str:
        """Why a row's is not known; empty where it is."""
        found = self.of_rows.get(name, "")
        return found if isinstance(found, str) else ""

    @property
    def reasons(self) -> dict[str, list[str]]:
        """Why it is not known -> of which rows."""
        found: dict[str, list[str]] = {}
        for name, why in self.of_rows.items():
            if isinstance(why, str):
                found.setdefault(why, []).append(name)
        return found

    def noise(self, names: Sequence[str]) -> ImageNoise:
        found = (self.of_rows.get(name, "") for name in names)
        return ImageNoise.of([UNKNOWN if isinstance(each, str) else each for each in found])


def image_noise(row: Array, other: Array | None) -> ImageNoise:
    """Of values (..., runs, images) of a row and of the one that it is compared with: each run's figure is
    its mean over the images, which are the same. ``other`` is None where ``row`` has the differences of pairs.

    Takes two runs of each and two images; with fewer it is unknown (NaN).
    """
    groups = [row] if other is None else [row, other]
    images = row.shape[-1]
    if images < 2 or min(group.shape[-2] for group in groups) < 2:
        return ImageNoise(*(np.full(row.shape[:-2], math.nan) for _ in range(3)))
    means = [group.mean(axis=-2) for group in groups]
    raw = (means[0] - means[1] if other is not None else means[0]).var(axis=-1, ddof=1) / images
    training = sum((_interaction(group) / group.shape[-2] for group in groups), np.zeros(raw.shape)) / images
    return ImageNoise(raw, training, np.full(raw.shape, float(images)))


def _interaction(values: Array) -> Array:
    """The mean square of run x image, of (..., runs, images)."""
    runs, images = values.shape[-2:]
    # The sum of squares about both means is that within runs, less what their mean has.
    within = values.var(axis=-1).sum(axis=-1) - runs * values.mean(axis=-2).var(axis=-1)
    return np.asarray(np.maximum(0.0, within) * images / ((runs - 1) * (images - 1)))
