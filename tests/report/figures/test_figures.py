import itertools
import math

import matplotlib
import numpy as np
import pytest
from PIL import Image

from deit_ablate.report.figures.accuracy import sweep_figure
from deit_ablate.report.figures.curves import _apart, curves_figure, readings
from deit_ablate.report.figures.forest import forest_figure
from deit_ablate.report.figures.style import DPI, WIDTH, save, shortened, text_of

FIGURES = (sweep_figure, curves_figure)


def pixels(figure, path):
    save(figure, path)
    image = Image.open(path)
    assert image.format == "PNG"
    assert image.width == round(WIDTH * DPI)
    return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("make", FIGURES)
def test_a_figure_is_a_png_of_a_column_width_with_something_on_it(optimizers, tmp_path, make):
    image = pixels(make(optimizers.summary()), tmp_path / "x.png")
    assert 200 < image.shape[0] < 2000
    assert (image < 128).any(axis=2).mean() > 0.005
    edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    assert (edge > 250).all(), "something is cut at the edge"


@pytest.mark.parametrize("suffix", ["png", "pdf", "svg"])
@pytest.mark.parametrize("make", FIGURES)
def test_same_records_same_bytes(optimizers, tmp_path, make, suffix):
    paths = [tmp_path / f"{i}.{suffix}" for i in range(2)]
    for path in paths:
        save(make(optimizers.summary()), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_a_users_matplotlib_settings_change_nothing_and_are_left_alone(optimizers, tmp_path):
    save(sweep_figure(optimizers.summary()), tmp_path / "a.png")
    with matplotlib.rc_context({"font.size": 30, "axes.facecolor": "red", "savefig.dpi": 20}):
        save(sweep_figure(optimizers.summary()), tmp_path / "b.png")
        assert matplotlib.rcParams["font.size"] == 30
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


def texts(figure):
    return {text.get_text() for text in figure.findobj(matplotlib.text.Text)}


def test_accuracies_are_where_the_table_says(optimizers):
    figure = sweep_figure(optimizers.summary())
    (axes,) = figure.axes
    assert axes.get_xlabel().startswith("test top-1 (%)")
    marks = [line.get_xdata() for line in axes.lines if line.get_marker() == "o" and len(line.get_xdata()) == 1]
    assert [float(mark[0]) for mark in marks] == [98, 96, 98.75]
    assert {"98.0 ± 2.5", "96.0 ± 12.7*", "98.8 ± 9.5"} <= texts(figure)  # one digit, as an interval is above ten
    low, high = axes.get_xlim()
    assert low < 95
    assert high > 99.5


@pytest.mark.parametrize("make", FIGURES)
@pytest.mark.parametrize(
    "rows",
    [
        {"only": {0: 97.0}},
        {"a": {0: 97.0, 1: 97.0}, "b": {0: 97.0, 1: 97.0}},
        {
            "a": {0: 97.0},
            "b": {0: "missing"},
            "c": {0: "failed"},
            "d": {0: {"status": "diverged", "reason": "non-finite loss"}},
            "e": {0: "running"},
        },
        {f"variant {i}": {0: 90.0 + i / 7, 1: 91.0} for i in range(30)},
        {
            "$x_1^2$ %{}\\frac{1}": {0: 90.0, 1: 91.0},
            "two\nlines $": {0: 90.0, 1: 91.0},
            "long " * 15: {0: 91.0},
            "中\x1b[31m": {0: 91.0},
        },
        {"a": {0: {"top1": 97.0, "history": []}}},
    ],
)
def test_figures_of_all_kinds_of_sweeps(study, tmp_path, make, rows):
    made = study(rows, baseline=next(iter(rows)))
    assert len(np.unique(pixels(make(made.summary()), tmp_path / "x.png"))) > 10


def test_no_finished_runs(study, tmp_path):
    made = study({"a": {0: "missing"}})
    assert texts(sweep_figure(made.summary())) == {"no finished runs"}
    assert texts(curves_figure(made.summary())) == {"no finished epochs"}
    assert len(np.unique(pixels(sweep_figure(made.summary()), tmp_path / "x.png"))) > 10


def test_curves_are_means_of_finished_runs(study):
    history = [{"epoch": e, "train_loss": 1.0, "validation": {"top1": 10.0 * e}} for e in (1, 2, 3)]
    other = [{"epoch": e, "train_loss": 2.0, "validation": {"top1": 20.0 * e}} for e in (1, 2, 3)]
    made = study(
        {
            "a": {
                0: {"top1": 30.0, "history": history},
                1: {"top1": 60.0, "history": other},
                2: {"status": "diverged", "history": other[:1]},
            }
        }
    )
    top, bottom = curves_figure(made.summary()).axes
    assert [list(line.get_ydata()) for line in top.lines if line.get_linestyle() == "-"] == [[15, 30, 45]]
    assert [list(line.get_ydata()) for line in bottom.lines if line.get_linestyle() == "-"] == [[1.5, 1.5, 1.5]]
    assert (top.get_ylabel(), bottom.get_ylabel(), bottom.get_xlabel()) == (
        "validation top-1 (%)",
        "training loss",
        "epoch",
    )


@pytest.mark.parametrize(
    ("own", "drawn"),
    [
        ((1, 2, 3), [1, 2, 3]),
        ((0, 5, 10), [0, 5, 10]),
        ((1, 1.5, 2.5), [1, 2, 3]),
        ((1, None, 3), [1, 1, 3]),
        ((None, None, None), [1, 2, 3]),
    ],
)
def test_a_programs_own_epochs_are_drawn_as_it_counts_them(study, own, drawn):
    metric = {"name": "metrics.acc", "better": "higher", "program": True, "place": [0, 0]}
    lines = [
        {"epoch": number if epoch is None else math.ceil(epoch), "metrics": {"acc": 70.0 + number, "epoch": epoch}}
        for number, epoch in enumerate(own)
    ]
    summary = study({"a": {0: {"program": {"acc": 72.0}, "history": lines}}}, metric=metric).summary()
    figure = curves_figure(summary)
    assert [list(line.get_xdata()) for line in figure.axes[0].lines] == [sorted({*drawn})]
    (reading,) = readings(summary, figure)
    assert list(reading.values) == sorted({*drawn})
    assert reading.limits[:2] == (drawn[0], drawn[-1])


def test_without_a_validation_part(study):
    history = [{"epoch": e, "train_loss": 1.0 / e, "validation": None} for e in (1, 2, 3)]
    figure = curves_figure(study({"a": {0: {"top1": 30.0, "history": history}}}).summary())
    assert "not recorded" in texts(figure)
    assert "a" in texts(figure)


def test_many_curves_name_the_baseline_and_the_extremes(study):
    made = study({f"v{i:02}": {0: 80.0 + i} for i in range(15)}, baseline="v07")
    named = {text for text in texts(curves_figure(made.summary())) if text.startswith("v")} - {"validation top-1 (%)"}
    assert named == {"v00", "v01", "v02", "v07", "v12", "v13", "v14"}
    assert "grey: 8 other rows" in texts(curves_figure(made.summary()))


def test_of_very_many_variants_the_extremes_are_drawn(study):
    made = study({f"v{i:03}": {0: 10.0 + i} for i in range(70)}, baseline="v035", epochs=1)
    (axes,) = sweep_figure(made.summary()).axes
    named = [label.get_text() for label in axes.get_yticklabels()]
    assert named == [f"v{i:03}" for i in (*range(29), 35, *range(40, 70))]
    assert axes.get_xlabel().endswith("highest and lowest 60 of 70 rows")


def test_labels_keep_apart():
    assert _apart([0.1, 0.5], 0.1) == [0.1, 0.5]
    assert _apart([0.5, 0.5, 0.5], 0.1) == pytest.approx([0.4, 0.5, 0.6])
    placed = _apart([0.1, 0.12, 0.2, 0.9], 0.1)
    assert all(b - a >= 0.1 - 1e-9 for a, b in itertools.pairwise(placed))
    assert math.isclose(sum(placed[:3]) / 3, 0.14)


def test_long_names_are_cut_in_their_middle():
    assert shortened(["augment.mixup=0.8,augment.cutmix=1", "a.b"], width=22) == ["mixup=0.8,cutmix=1", "b"]
    assert shortened(["x" * 50], width=11) == ["xxxxx…xxxxx"]
    assert shortened(["without something quite long"], width=18, lines=2) == ["without something\nquite long"]


LONG = r"w/o mixup ($\alpha = 0$), w/o CutMix, w/o erasing 漢"


@pytest.mark.parametrize(
    ("label", "width", "lines", "drawn"),
    [
        (LONG, 24, 2, "w/o mixup ($\\alpha = 0$), w/o\nCutMix, w/o erasing 漢"),
        (LONG, 24, 1, "w/o mixup (α…o erasing 漢"),
        (r"$\beta_2$ of something at length", 20, 1, "$\\beta_2$ of some…at length"),
        (r"at \$5 $\beta_{2} = 0.999$", 8, 2, "at \\$5\n$\\beta_{2} = 0.999$"),
        ("own \ue000 $\\alpha$", 40, 1, "own \ufffd $\\alpha$"),
    ],
)
def test_lines_of_a_label_are_broken_around_its_formulas(label, width, lines, drawn):
    assert text_of(label, width, lines) == drawn


def test_a_long_label_with_a_formula_leaves_the_axes_their_room(study, tmp_path, caplog):
    made = study({"a": {0: 90.0, 1: 91.0}, "b": {0: 92.0, 1: 93.5}}, baseline="a", labels={"b": LONG})
    figure = forest_figure(made.summary())
    save(figure, tmp_path / "x.png")
    assert figure.axes[0].get_position().width > 0.25
    assert not caplog.records, "that the font lacks a sign is no news"


LABELS = {"adamw": "AdamW", "sgd": r"SGD, $\beta_2 = 0.99$ †", "lamb": "LAMB $5 (ours)"}


@pytest.mark.parametrize("make", [sweep_figure, curves_figure, forest_figure])
def test_labels_are_drawn_with_their_formulas(study, tmp_path, make):
    rows = {name: {0: 90.0 + place, 1: 91.0 + place} for place, name in enumerate(LABELS)}
    made = study(rows, baseline="adamw", labels=LABELS, groups={"Others": ["lamb", "sgd"]})
    figure = make(made.summary())
    pixels(figure, tmp_path / "x.png")
    drawn = {text.get_text(): text.get_parse_math() for text in figure.findobj(matplotlib.text.Text)}
    assert drawn[r"SGD, $\beta_2 = 0.99$ †"]
    assert r"LAMB \$5 (ours)" in drawn, "which matplotlib shows as a dollar sign"
    assert not any(name in drawn for name in LABELS)
    if make is not curves_figure:
        assert [label.get_text()[:4] for label in figure.axes[0].get_yticklabels()][-3:] == ["LAMB", "SGD,", "Othe"]
    save(figure, tmp_path / "x.svg")
    save(figure, tmp_path / "x.pdf")
