"""How a search went: its history, what mattered, slices, a contour, the front. Imports matplotlib and Optuna.

Optuna draws them (``optuna.visualization.matplotlib``); what it draws is then brought into our form: a paper's column,
our colours, the table's trial numbers and names, axes with their units.
"""

from __future__ import annotations

import importlib.util
import math
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib
import optuna
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter
from optuna.trial import FrozenTrial, TrialState

from deit_ablate.report.figures.style import DPI, GREY, LIGHT, OKABE_ITO, WIDTH, shortened, style
from deit_ablate.report.summary import Summary
from deit_ablate.report.tables.search import UNITS, is_search, main_objective, setting, short_names
from deit_ablate.search.sampler import recorded_studies

FEWEST = {"history": 1, "importances": 3, "slices": 2, "contour": 4, "front": 2}
"""Figure -> complete trials under which it is left out."""
MOST_SLICES = 12
NAME, CHOICE = 22, 14
"""Characters of a parameter's name on an axis, and of a choice beside a tick."""


def search_figures(summary: Summary) -> dict[str, Figure]:
    """Name -> figure, one set for each row of the search; what Optuna cannot draw of so few trials is left out.

    Raises ValueError for a sweep that is no search.
    """
    plan, say = summary.plan, summary.say
    if not is_search(plan):
        raise ValueError(f"{summary.sweep} is no search: its sweep file has no search block")
    studies, found, taken = recorded_studies(summary.store, plan), {}, set[str]()
    for row, study in studies.items():
        slug = re.sub(r"[^A-Za-z0-9]+", "-", row).strip("-").lower() or "row"
        while slug in taken:
            slug += "-"
        taken.add(slug)
        several = len(studies) > 1
        for name, figure in _row_figures(study, plan, say(row) if several else "", say):
            found[f"search-{name}-{slug}" if several else f"search-{name}"] = figure
    return found


def _row_figures(
    study: optuna.Study, plan: Mapping[str, Any], row: str, say: Callable[[str], str]
) -> Iterator[tuple[str, Figure]]:
    objectives = plan["search"]["objectives"]
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    main = main_objective(objectives)
    target = {"target_name": UNITS[objectives[main]], "target": None if len(objectives) == 1 else _value(main)}
    keys = list(study.trials[0].distributions) if study.trials else []
    names = {key: shortened([say(short)], NAME)[0] for key, short in short_names(keys).items()}
    varied = [key for key in keys if len({repr(trial.params[key]) for trial in complete}) > 1]
    foremost = list(varied)  # what matters most first, once that is known
    drawn: dict[str, Callable[[], Figure]] = {
        "history": lambda: _history(study, target, row),
        "front": lambda: _front(study, objectives, row),
        "importances": lambda: _importances(study, varied, names, target, row, foremost),
        "slices": lambda: _slices(study, varied[:MOST_SLICES], names, target, row, say),
        "contour": lambda: _contour(study, foremost[:2], names, target, row, say),
    }
    wanted = {
        "front": len(objectives) == 2,
        "importances": len(varied) > 1 and importlib.util.find_spec("sklearn") is not None,
        "slices": bool(varied),
        "contour": len(varied) > 1,
    }
    for name, draw in drawn.items():
        if len(complete) >= FEWEST[name] and wanted.get(name, True):
            try:
                with style(), _quiet():
                    figure = draw()
            except (RuntimeError, ValueError):  # fANOVA: all values are equal; contours: all on one line
                continue
            yield name, figure


def _value(place: int) -> Callable[[FrozenTrial], float]:
    return lambda trial: trial.values[place]


@contextmanager
def _quiet() -> Iterator[None]:
    """Optuna draws through pyplot: no window opens for it, and no figure of its stays open there."""
    if "matplotlib.pyplot" not in sys.modules:
        matplotlib.use("agg")
    from matplotlib import pyplot

    before = set(pyplot.get_fignums())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", message=".*tight_layout.*")
        try:
            yield
        finally:
            for number in set(pyplot.get_fignums()) - before:
                pyplot.close(number)


# -- each figure ---------------------------------------------------------------------------------------------------


def _history(study: optuna.Study, target: Mapping[str, Any], row: str) -> Figure:
    axes = optuna.visualization.matplotlib.plot_optimization_history(study, **target)
    figure = _ours(axes.figure, 1.9, _title("search values in the order of trials", row))
    _points(axes)
    for line in axes.lines:
        line.set(color=OKABE_ITO[1], alpha=1, linewidth=1.1, drawstyle="steps-post", label="best so far")
    handles = [axes.collections[0], *axes.lines]
    axes.collections[0].set_label("trial")
    _legend(figure, axes, handles)
    _trials_axis(axes, study)
    return figure


def _front(study: optuna.Study, objectives: Sequence[str], row: str) -> Figure:
    names = [UNITS[objective] for objective in objectives]
    axes = optuna.visualization.matplotlib.plot_pareto_front(study, target_names=names)
    figure = _ours(axes.figure, 2.1, _title("trials by both objectives", row))
    _points(axes)
    labels = {"Trial": "trial", "Best Trial": "trial on the front: none is better in both"}
    for dots in axes.collections:
        best = dots.get_label() == "Best Trial"
        dots.set(facecolor=OKABE_ITO[1] if best else "#9AA3AB", zorder=3 if best else 2)
        dots.set_label(labels.get(str(dots.get_label()), str(dots.get_label())))
    _legend(figure, axes, axes.collections)
    for axis, objective in ((axes.xaxis, objectives[0]), (axes.yaxis, objectives[1])):
        axis.set_major_locator(_steps(5))
        if objective in ("parameters", "flops", "throughput"):
            axis.set_major_formatter(FuncFormatter(_thousands))
    return figure


def _importances(
    study: optuna.Study,
    varied: Sequence[str],
    names: Mapping[str, str],
    target: Mapping[str, Any],
    row: str,
    foremost: list[str],
) -> Figure:
    """``foremost`` is put into the order that the figure shows."""
    axes: Any = optuna.visualization.matplotlib.plot_param_importances(
        study, evaluator=_fanova(), params=list(varied), **target
    )
    figure = _ours(
        axes.figure,
        0.75 + 0.2 * len(varied),
        _title(f"what the {target['target_name'].partition(' (')[0]} depends on ({_complete(study)} trials)", row),
    )
    for bar in axes.patches:
        bar.set_facecolor(OKABE_ITO[0])
    for text in axes.texts:
        text.set(text=f" {text.get_text().strip()}", fontsize=6, color=GREY)
    keys = [text.get_text() for text in axes.get_yticklabels()]
    foremost[:] = reversed(keys)
    axes.set_yticks(axes.get_yticks(), [names[key] for key in keys])
    axes.tick_params(axis="y", length=0)
    axes.set_xlabel("share of variance (fANOVA)")
    axes.set_ylabel("")
    axes.set_xlim(0, max(1e-9, *(bar.get_width() for bar in axes.patches)) * 1.15)
    return figure


def _slices(
    study: optuna.Study,
    keys: Sequence[str],
    names: Mapping[str, str],
    target: Mapping[str, Any],
    row: str,
    say: Callable[[str], str],
) -> Figure:
    drawn = optuna.visualization.matplotlib.plot_slice(study, params=list(keys), **target)
    every = [drawn] if isinstance(drawn, Axes) else list(drawn.flat)
    across = 2 if len(every) > 1 else 1
    down = math.ceil(len(every) / across)
    figure = _ours(every[0].figure, 1, _title("search value by parameter", row))
    if (bar := every[-1].collections[0].colorbar) is not None:
        bar.remove()
    grid = figure.add_gridspec(down, across)
    for place, axes in enumerate(every):
        axes.set_subplotspec(grid[place])
        axes.set_title("")
        key = str(axes.get_xlabel())
        first = place % across == 0
        axes.yaxis.set_tick_params(labelleft=first)
        axes.set_ylabel(str(target["target_name"]) if first else "", fontsize=7)
        _points(axes, recolour=False)
        _parameter_axis(axes, "x", study, key, names, say, 44 // across)
    slanted = {
        place // across
        for place, axes in enumerate(every)
        if any(label.get_rotation() for label in axes.get_xticklabels())
    }
    figure.set_size_inches(WIDTH, 0.65 + 1.4 * down + 0.35 * len(slanted))
    dots = every[0].collections[0]
    bar = figure.colorbar(dots, ax=every, location="bottom", aspect=45, pad=0.02, fraction=0.04)
    bar.outline.set_visible(False)
    bar.set_label("trial", color="black", fontsize=7)
    bar.ax.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    bar.ax.xaxis.set_major_formatter(FuncFormatter(_trial_numbers(study)))
    bar.ax.tick_params(colors="black", labelsize=6.5, length=2)
    return figure


def _contour(
    study: optuna.Study,
    keys: Sequence[str],
    names: Mapping[str, str],
    target: Mapping[str, Any],
    row: str,
    say: Callable[[str], str],
) -> Figure:
    axes: Any = optuna.visualization.matplotlib.plot_contour(study, params=list(keys), **target)
    if not axes.collections:
        raise ValueError("Optuna has drawn no contour")
    figure = _ours(axes.figure, 2.4, _title(f"search value between {_complete(study)} trials, interpolated", row))
    lines, areas, dots = axes.collections[:3]
    lines.set(linewidth=0.3, edgecolor="white", facecolor="none")
    dots.set(sizes=[9], linewidth=0.4, edgecolor="white", facecolor="black")
    for spine in axes.spines.values():
        spine.set_visible(True)
    if areas.colorbar is not None:
        areas.colorbar.remove()
    bar = figure.colorbar(areas, ax=axes, aspect=30, pad=0.02)
    bar.outline.set_visible(False)
    bar.set_label(str(target["target_name"]), color="black", fontsize=7)
    bar.ax.yaxis.set_major_locator(_steps(6))
    bar.ax.tick_params(colors="black", labelsize=6.5, length=2)
    for axis, label in (("x", axes.get_xlabel()), ("y", axes.get_ylabel())):
        _parameter_axis(axes, axis, study, str(label), names, say, 36)
    return figure


def _fanova() -> Any:
    return optuna.importance.FanovaImportanceEvaluator(seed=0)


# -- our form ------------------------------------------------------------------------------------------------------


def _complete(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))


def _title(words: str, row: str) -> str:
    return f"{row}: {words}" if row else words[0].upper() + words[1:]


def _ours(figure: Any, height: float, title: str) -> Figure:
    """A figure that Optuna drew in ggplot's style, in ours."""
    FigureCanvasAgg(figure)
    figure.set_layout_engine("constrained")
    figure.set(dpi=DPI, facecolor="white")
    figure.set_size_inches(WIDTH, height)
    for axes in figure.axes:
        axes.set_facecolor("white")
        axes.set_axisbelow(True)
        for place in ("left", "center"):
            axes.set_title("", loc=place)
        axes.grid(False)
        for side, spine in axes.spines.items():
            spine.set(visible=side in ("left", "bottom"), color="black", linewidth=0.6)
        axes.tick_params(which="both", colors="black", labelsize=6.5, width=0.6, length=2.5)
        axes.tick_params(which="minor", length=1.5)
        for label in (axes.xaxis.label, axes.yaxis.label):
            label.set(color="black", fontsize=7)
        if legend := axes.get_legend():
            legend.remove()
    figure.suptitle("\n".join(shortened([title], 54, 2)), x=0.01, ha="left", fontsize=7.5, color="black")
    return figure


def _points(axes: Axes, recolour: bool = True) -> None:
    for dots in axes.collections:
        dots.set(sizes=[11], edgecolor=GREY if not recolour else "none", linewidth=0.3, clip_on=False, zorder=3)
        if recolour:
            dots.set_facecolor(OKABE_ITO[0])
    axes.grid(axis="y", color=LIGHT, linewidth=0.4)
    axes.yaxis.set_major_locator(_steps(5))


def _steps(most: int, whole: bool = False) -> MaxNLocator:
    return MaxNLocator(most, integer=whole, steps=[1, 2, 2.5, 5, 10])


def _legend(figure: Figure, axes: Axes, handles: Sequence[Any]) -> None:
    if len(handles) > 1:
        axes.legend(
            handles=handles,
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=2,
            frameon=False,
            fontsize=6,
            handletextpad=0.3,
            columnspacing=1.4,
            borderpad=0.2,
            borderaxespad=0.1,
        )


def _trial_numbers(study: optuna.Study) -> Callable[[float, int], str]:
    """Optuna counts a study's trials from 0, a sweep all rows' from 1: ticks say the sweep's."""
    numbers = [trial.user_attrs["trial"] for trial in study.get_trials(deepcopy=False)]
    return lambda value, _: str(numbers[int(value)]) if value == int(value) and 0 <= value < len(numbers) else ""


def _trials_axis(axes: Axes, study: optuna.Study) -> None:
    axes.set_xlabel("trial")
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.xaxis.set_major_formatter(FuncFormatter(_trial_numbers(study)))


def _parameter_axis(
    axes: Axes,
    which: str,
    study: optuna.Study,
    key: str,
    names: Mapping[str, str],
    say: Callable[[str], str],
    room: int,
) -> None:
    """An axis's name, and ticks that have room: so many characters beside one another."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_label_text(names.get(key, key))
    distribution: Any = study.get_trials(deepcopy=False)[0].distributions[key]
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        _choices(axes, which, distribution.choices, say, room)
    elif distribution.log:
        decades = math.log10(distribution.high / distribution.low)
        axis.set_major_locator(
            LogLocator(
                subs=(1,) if decades > 2.5 else (1, 3) if decades > 1.2 else (1, 2, 5), numticks=5 if room > 30 else 4
            )
        )
        axis.set_major_formatter(FuncFormatter(_short))
        axis.set_minor_formatter(NullFormatter())
    else:
        whole = isinstance(distribution, optuna.distributions.IntDistribution)
        axis.set_major_locator(_steps(4 if whole else 3, whole))


def _choices(axes: Axes, which: str, choices: Sequence[Any], say: Callable[[str], str], room: int) -> None:
    """Ticks of choices: Optuna's own places (a contour's numbers are on a scale), texts that fit."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    said = {form: setting(choice) for choice in choices for form in (repr(choice), str(choice))}
    places = list(axis.get_majorticklocs())
    written = [text.get_text() for text in axis.get_majorticklabels()]
    if not set(written) <= set(said):
        places, written = list(choices), [str(choice) for choice in choices]
    labels = shortened([say(said[text]) for text in written], CHOICE)
    if which == "y":
        axes.set_yticks(places, labels)
    elif max(map(len, labels), default=0) * len(labels) <= room:
        axes.set_xticks(places, labels)
    else:
        axes.set_xticks(places, labels, rotation=40, ha="right", rotation_mode="anchor")
        axes.tick_params(axis="x", labelsize=6, pad=1)


def _short(value: float, _: int) -> str:
    return f"{value:g}" if 0.001 <= value < 10_000 else f"{value:.0e}".replace("e-0", "e-").replace("e+0", "e")


def _thousands(value: float, _: int) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g} {letter}"
    return f"{value:g}"
