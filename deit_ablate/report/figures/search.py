"""How a search went: its history, what mattered, slices, a contour, the front. Imports matplotlib and Optuna."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import optuna
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.colorbar import Colorbar
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from matplotlib.tri import Triangulation
from optuna.distributions import CategoricalDistribution, IntDistribution
from optuna.trial import TrialState

from deit_ablate.report.figures.style import GREY, LIGHT, OKABE_ITO, new_figure, shortened, style
from deit_ablate.report.summary import Summary
from deit_ablate.report.tables.search import UNITS, is_search, main_objective, setting, short_names
from deit_ablate.search.sampler import recorded_studies

MOST_SLICES = 12
NAME, CHOICE = 22, 14
"""Characters of a parameter's name on an axis, and of a choice beside a tick."""


def search_figures(summary: Summary) -> dict[str, Figure]:
    """Name -> figure, one set for each row of the search; what cannot be drawn of so few trials is left out.

    Raises ValueError for a sweep that is no search.
    """
    plan = summary.plan
    if not is_search(plan):
        raise ValueError(f"{summary.sweep} is no search: its sweep file has no search block")
    studies, found, taken = recorded_studies(summary.store, plan), {}, set[str]()
    several = len(studies) > 1
    for name, study in studies.items():
        slug = re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-").lower() or "row"
        while slug in taken:
            slug += "-"
        taken.add(slug)
        row = Row(study, plan["search"]["objectives"], summary.say(summary.label(name)) if several else "", summary.say)
        for kind, figure in row.figures().items():
            found[f"search-{kind}-{slug}" if several else f"search-{kind}"] = figure
    return found


@dataclass(frozen=True, eq=False)
class Row:
    """A row of a search, and its figures."""

    study: optuna.Study
    objectives: Sequence[str]
    name: str
    """As titles say it; empty where there is one row."""
    say: Callable[[str], str]

    @cached_property
    def complete(self) -> list[optuna.trial.FrozenTrial]:
        return self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))

    @cached_property
    def values(self) -> list[float]:
        """Of the complete trials, by the objective that is confirmed."""
        return [trial.values[main_objective(self.objectives)] for trial in self.complete]

    @cached_property
    def varied(self) -> list[str]:
        """The parameters that have more than one value."""
        keys = self.study.trials[0].distributions if self.study.trials else ()
        return [key for key in keys if len({repr(trial.params[key]) for trial in self.complete}) > 1]

    @cached_property
    def importances(self) -> dict[str, float]:
        """Parameter -> share of variance, the largest first; nothing where fANOVA cannot tell."""
        if len(self.complete) < 3 or len(self.varied) < 2 or importlib.util.find_spec("sklearn") is None:
            return {}
        main = main_objective(self.objectives)
        with warnings.catch_warnings(), contextlib.suppress(RuntimeError, ValueError):  # all values are equal
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.importance.get_param_importances(
                self.study,
                evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0),
                params=self.varied,
                target=lambda trial: trial.values[main],
            )
        return {}

    def figures(self) -> dict[str, Figure]:
        found: dict[str, Figure] = {}
        trials, parameters = len(self.complete), len(self.varied)
        drawn = {
            "history": (self._history, trials),
            "front": (self._front, trials > 1 and len(self.objectives) == 2),
            "importances": (self._importances, self.importances),
            "slices": (self._slices, trials > 1 and parameters),
            "contour": (self._contour, trials > 3 and parameters > 1),
        }
        for kind, (draw, wanted) in drawn.items():
            with contextlib.suppress(RuntimeError), style():  # a contour of points that all lie on one line
                if wanted:
                    found[kind] = draw()
        return found

    def _history(self) -> Figure:
        figure, (axes,) = self._new(1.9, "search values in the order of trials")
        places, values = [trial.number for trial in self.complete], self.values
        entries: dict[str, Artist] = {"trial": _dots(axes, places, values, OKABE_ITO[0])}
        if len(self.objectives) == 1:
            best = np.minimum if self.study.direction == optuna.study.StudyDirection.MINIMIZE else np.maximum
            (entries["best so far"],) = axes.plot(
                places, best.accumulate(values), color=OKABE_ITO[1], drawstyle="steps-post"
            )
        self._value_axis(axes)
        self._trials_axis(axes, 8)
        axes.set_xlabel("trial")
        _key(axes, entries)
        return figure

    def _front(self) -> Figure:
        figure, (axes,) = self._new(2.1, "trials by both objectives")
        entries: dict[str, Artist] = {}
        best = {trial.number for trial in self.study.best_trials}
        kinds = {"trial": "#9AA3AB", "trial on the front: none is better in both": OKABE_ITO[1]}
        for on_front, (label, colour) in enumerate(kinds.items()):
            points = np.array([trial.values for trial in self.complete if (trial.number in best) == on_front])
            if len(points):
                entries[label] = _dots(axes, points[:, 0], points[:, 1], colour)
        for axis, objective in ((axes.xaxis, self.objectives[0]), (axes.yaxis, self.objectives[1])):
            axis.set_label_text(UNITS[objective])
            axis.set_major_locator(_steps(5))
            if objective in ("parameters", "flops", "throughput"):
                axis.set_major_formatter(EngFormatter())
        axes.grid(axis="y", color=LIGHT, linewidth=0.4)
        _key(axes, entries)
        return figure

    def _importances(self) -> Figure:
        count = len(self.importances)
        what = f"what the {self._unit.partition(' (')[0]} depends on ({len(self.complete)} trials)"
        figure, (axes,) = self._new(0.75 + 0.2 * count, what)
        shares = list(self.importances.values())
        bars = axes.barh(range(count), shares, color=OKABE_ITO[0])
        texts = [" <0.01" if share < 0.01 else f" {share:.2f}" for share in shares]
        axes.bar_label(bars, texts, fontsize=6, color=GREY)
        axes.set_yticks(range(count), [self._names[key] for key in self.importances])
        axes.invert_yaxis()
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel("share of variance (fANOVA)")
        axes.set_xlim(0, max(1e-9, *shares) * 1.15)
        return figure

    def _slices(self) -> Figure:
        keys = sorted(self.varied)[:MOST_SLICES]
        across = min(2, len(keys))
        figure, every = self._new(1, "search value by parameter", len(keys), across)
        slanted, order = set(), [trial.number for trial in self.complete]
        for place, (axes, key) in enumerate(zip(every, keys, strict=True)):
            dots = _dots(axes, self._places(key), self.values, order, cmap="Blues", edgecolor=GREY)
            self._value_axis(axes, labelled=place % across == 0)
            if self._parameter_axis(axes, "x", key, 44 // across):
                slanted.add(place // across)
        figure.set_figheight(0.65 + 1.4 * math.ceil(len(keys) / across) + 0.35 * len(slanted))
        bar = figure.colorbar(dots, ax=every, location="bottom", aspect=45, pad=0.02, fraction=0.04)
        self._trials_axis(bar.ax, 6)
        _bar(bar, "trial")
        return figure

    def _contour(self) -> Figure:
        keys = sorted(list(self.importances or self.varied)[:2])
        figure, (axes,) = self._new(2.4, f"search value between {len(self.complete)} trials, interpolated")
        x, y = (self._places(key) for key in keys)
        logs = [getattr(self._distribution(key), "log", False) for key in keys]
        scaled = [np.log(own) if log else own for own, log in zip((x, y), logs, strict=True)]
        between = Triangulation(x, y, Triangulation(*scaled).triangles)
        areas = axes.tricontourf(between, self.values, 9, cmap="Blues")
        axes.tricontour(between, self.values, list(areas.levels), colors="white", linewidths=0.3)
        axes.scatter(x, y, s=9, c="black", linewidth=0.4, edgecolor="white", clip_on=False, zorder=3)
        bar = figure.colorbar(areas, ax=axes, aspect=30, pad=0.02)
        bar.ax.yaxis.set_major_locator(_steps(6))
        _bar(bar, self._unit)
        for which, key in zip("xy", keys, strict=True):
            self._parameter_axis(axes, which, key, 36)
        return figure

    # -- axes ------------------------------------------------------------------------------------------------------

    @property
    def _unit(self) -> str:
        return UNITS[self.objectives[main_objective(self.objectives)]]

    @cached_property
    def _names(self) -> dict[str, str]:
        short = short_names(list(self.study.trials[0].distributions))
        return {key: shortened([self.say(name)], NAME)[0] for key, name in short.items()}

    def _new(self, height: float, words: str, panels: int = 1, across: int = 1) -> tuple[Figure, Sequence[Axes]]:
        figure, every = new_figure(panels, height, across=across, share=False)
        title = f"{self.name}: {words}" if self.name else words[0].upper() + words[1:]
        figure.suptitle("\n".join(shortened([title], 54, 2)), x=0.01, ha="left", fontsize=7.5)
        return figure, every

    def _distribution(self, key: str) -> Any:
        return self.study.trials[0].distributions[key]

    def _places(self, key: str) -> list[float]:
        """Where the complete trials lie on a parameter's axis: at its values, or at a choice's number."""
        distribution, values = self._distribution(key), [trial.params[key] for trial in self.complete]
        return list(map(distribution.to_internal_repr, values))

    def _value_axis(self, axes: Axes, labelled: bool = True) -> None:
        axes.set_ylabel(self._unit if labelled else "")
        axes.tick_params(axis="y", labelleft=labelled)
        axes.yaxis.set_major_locator(_steps(5))
        axes.grid(axis="y", color=LIGHT, linewidth=0.4)

    def _trials_axis(self, axes: Axes, ticks: int) -> None:
        """Optuna counts a study's trials from 0, a sweep all rows' from 1: ticks say the sweep's."""
        numbers = [str(trial.user_attrs["trial"]) for trial in self.study.get_trials(deepcopy=False)]

        def say(value: float, _: int) -> str:
            return numbers[int(value)] if value == int(value) and 0 <= value < len(numbers) else ""

        axes.xaxis.set_major_locator(MaxNLocator(ticks, integer=True))
        axes.xaxis.set_major_formatter(FuncFormatter(say))

    def _parameter_axis(self, axes: Axes, which: str, key: str, room: int) -> bool:
        """An axis's name, and ticks that have room: so many characters beside one another. Whether they slant."""
        axis, distribution = axes.xaxis if which == "x" else axes.yaxis, self._distribution(key)
        axis.set_label_text(self._names[key])
        slanted = False
        if isinstance(distribution, CategoricalDistribution):
            labels = shortened([self.say(setting(choice)) for choice in distribution.choices], CHOICE)
            slanted = which == "x" and max(map(len, labels)) * len(labels) > room
            axis.set_ticks(range(len(labels)), labels)
            if slanted:
                axes.tick_params(axis="x", labelsize=6, pad=1)
                for label in axes.get_xticklabels():
                    label.set(rotation=40, ha="right", rotation_mode="anchor")
        elif distribution.log:
            axes.set(**{f"{which}scale": "log"})
            decades = math.log10(distribution.high / distribution.low)
            subs = (1,) if decades > 2.5 else (1, 3) if decades > 1.2 else (1, 2, 5)
            axis.set_major_locator(LogLocator(subs=subs, numticks=5 if room > 30 else 4))
            axis.set_major_formatter(FuncFormatter(_short))
            axis.set_minor_formatter(NullFormatter())
        else:
            whole = isinstance(distribution, IntDistribution)
            axis.set_major_locator(_steps(4 if whole else 3, whole))
        return slanted


def _dots(axes: Axes, x: Any, y: Any, colours: Any, **options: Any) -> Any:
    """Points, above the grid."""
    return axes.scatter(x, y, s=11, c=colours, linewidth=0.3, clip_on=False, zorder=3, **options)


def _key(axes: Axes, entries: dict[str, Artist]) -> None:
    if len(entries) > 1:
        place: Any = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.1}
        axes.legend(entries.values(), entries.keys(), ncols=2, frameon=False, fontsize=6, handletextpad=0.3, **place)


def _bar(bar: Colorbar, label: str) -> None:
    bar.outline.set_visible(False)
    bar.set_label(label, fontsize=7)
    bar.ax.tick_params(labelsize=6.5, length=2)


def _steps(most: int, whole: bool = False) -> MaxNLocator:
    return MaxNLocator(most, integer=whole, steps=[1, 2, 2.5, 5, 10])


def _short(value: float, _: int) -> str:
    return f"{value:g}" if 0.001 <= value < 10_000 else f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")
