"""The forest plot: differences from the baseline with their intervals and verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from PIL import Image
from studies import Study

from deit_ablate.report.figures.accuracy import sweep_figure
from deit_ablate.report.figures.forest import forest_figure
from deit_ablate.report.figures.style import DPI, MOST, WIDTH, save

SHIFTS = (0.0, 0.3, -0.2)


def row(mean: float, wobble: float = 0.05) -> dict[int, float]:
    return {seed: mean + shift + wobble * (-1) ** seed for seed, shift in enumerate(SHIFTS)}


def texts(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.findobj(matplotlib.text.Text) if text.get_text()]


def drawn(figure: Any, path: Path) -> np.ndarray[Any, Any]:
    """The picture, with nothing cut at its edge."""
    save(figure, path)
    image = np.asarray(Image.open(path).convert("RGB"))
    assert image.shape[1] == round(WIDTH * DPI)
    edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    assert (edge > 250).all(), "something is cut at the edge"
    return image


DIVERGED = {"status": "diverged", "reason": "non-finite loss"}
STUDIES: dict[str, Mapping[str, Mapping[int, Any]]] = {
    "one row": {"base": row(90), "a": row(91)},
    "one seed": {"base": {0: 90.0}, "a": {0: 91.0}, "b": {0: 90.0}},
    "equal rows": {"base": row(90, 0), "a": row(90, 0)},
    "diverged and missing": {
        "base": row(90),
        "far off": row(20),
        "one diverged": {0: 91.0, 1: 91.2, 2: DIVERGED},
        "all diverged": dict.fromkeys(range(3), DIVERGED),
        "missing": dict.fromkeys(range(3), "missing"),
        "one pair": {0: 90.5, 1: "failed", 2: "running"},
    },
    "long names": {
        "base": row(90),
        **{f"model.embed_dim=192,schedule.epochs=300,optimizer.name=adamw,seed {i}": row(91) for i in range(3)},
    },
    "strange names": {"base $x_1$": row(90), "<b>\x1b[31m $\\frac{": row(91), "中": row(92)},
}


def test_rows_stand_under_the_headings_of_their_groups(study: Callable[..., Study]) -> None:
    rows = {"base": row(90), "a": row(91), "b": row(80), "c": row(90)}
    made = study(rows, baseline="base", groups={"Mixing": ["b"], "Other ($x$)": ["a"]}).summary()
    for figure, above in ((forest_figure(made), []), (sweep_figure(made), ["base"])):
        (axes,) = figure.axes
        ticks = dict(sorted(zip(axes.get_yticks(), axes.get_yticklabels(), strict=True)))
        assert [label.get_text() for label in ticks.values()] == [*above, "c", "Mixing", "b", "Other ($x$)", "a"]
        bold = [label.get_text() for label in ticks.values() if label.get_fontweight() == "bold"]
        assert bold == ["Mixing", "Other ($x$)"]
        dots = {float(line.get_ydata()[0]) for line in axes.lines if line.get_markersize() == 4.2}
        assert dots == {at for at, label in ticks.items() if label.get_text() not in bold}


@pytest.mark.parametrize("name", STUDIES)
def test_it_is_drawn(study: Callable[..., Study], tmp_path: Path, name: str) -> None:
    rows = STUDIES[name]
    made = study(rows, baseline=next(iter(rows)), margin=0.5)
    image = drawn(forest_figure(made.summary()), tmp_path / "x.png")
    assert (image < 128).any(axis=2).mean() > 0.002
    assert image.shape[0] < 6000


@pytest.mark.parametrize("name", ["loss", "distillation", "ema"])
def test_another_metric_is_named_whole(study: Callable[..., Study], tmp_path: Path, name: str) -> None:
    long = "a baseline of a long name, shortened"
    rows = {
        row: {seed: {"top1": 90.0, "test": {"loss": i, f"top1_{name}": i + seed}} for seed in range(3)}
        for i, row in enumerate((long, "much worse: smoothing"))
    }
    figure = forest_figure(study(rows, baseline=long, margin=0.5, metric={"name": name, "place": [1, 1]}).summary())
    drawn(figure, tmp_path / "x.png")
    said = " ".join(figure.axes[0].get_xlabel().split())
    assert ("in test loss (nats) lower is better" if name == "loss" else "in test top-1, ") in said


def test_it_says_what_the_table_says(study: Callable[..., Study]) -> None:
    figure = forest_figure(study(STUDIES["diverged and missing"], baseline="base", margin=0.5).summary())
    found = "\n".join(texts(figure))
    assert "difference from base in test top-1 (points)" in found
    assert "±0.5" in found
    assert "−70.00" in found
    assert "did not train" in found
    assert "–  no run to compare" in found
    assert "one seed" in found


def test_of_very_many_rows_those_that_differ_most_are_drawn(study: Callable[..., Study], tmp_path: Path) -> None:
    made = study({"base": {0: 90.0}, **{f"row {i}": {0: 90 + i / 10} for i in range(100)}}, baseline="base")
    figure = forest_figure(made.summary())
    assert drawn(figure, tmp_path / "x.png").shape[0] < 6000
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == [f"row {i}" for i in range(100 - MOST, 100)]
    assert f"the {MOST} of 100 rows that differ most" in "\n".join(texts(figure))


def test_without_a_baseline_and_without_runs_it_says_so(study: Callable[..., Study]) -> None:
    assert texts(forest_figure(study({"a": row(90)}, name="none").summary())) == ["no differences from a baseline"]
    made = study({"base": row(90), "a": {0: "missing"}}, name="early", baseline="base")
    assert texts(forest_figure(made.summary())) == ["no finished runs to compare"]
    made = study({"base": row(90)}, name="alone", baseline="base")
    assert texts(forest_figure(made.summary())) == ["no finished runs to compare"]


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
def test_same_records_same_bytes(study: Callable[..., Study], tmp_path: Path, suffix: str) -> None:
    made = study(STUDIES["diverged and missing"], baseline="base", margin=0.5)
    paths = [tmp_path / f"{number}.{suffix}" for number in range(2)]
    for path in paths:
        save(forest_figure(made.summary()), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
