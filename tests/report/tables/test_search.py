"""What a search shows: its table, its figures, and its part of the page; of two small searches that were really run."""

from __future__ import annotations

import csv
import html
import importlib.util
import io
import json
import math
import re
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from browser import Browser
from searches import EASY, launch_search
from support import Command

from deit_ablate import files
from deit_ablate.launch.pool import ProcessPool
from deit_ablate.report import write
from deit_ablate.report.figures import search as figures_of
from deit_ablate.report.figures.style import save
from deit_ablate.report.html import page, write_index
from deit_ablate.report.summary import Summary, summarize
from deit_ablate.report.tables import search as tables_of
from deit_ablate.store import Store

BASE = EASY.replace("epochs: 6", "epochs: 4")
ONE = """
title: Learning rates
seeds: 2
baseline: adamw
search:
  {trials: 5, sampler: random, pruner: none, candidates: 2, candidate_seeds: 2,
   space: {optimizer.base_lr: {low: 0.2, high: 0.4, log: true}, regularize.drop_path: {low: 0, high: 0.1},
           augment.color_jitter: [0, 0.3]},
   spaces: {stuck: {optimizer: {base_lr: {low: 1.0e+25, high: 1.0e+26, log: true}}}}}
variants: {adamw: {}, stuck: {optimizer.weight_decay: 0.01}}
"""
TWO = """
title: Small or good
seeds: 2
search:
  {objective: [top1, parameters], trials: 6, sampler: random, candidates: 2,
   space: {optimizer.base_lr: {low: 0.1, high: 0.4}, model.options.embed_dim: [8, 16, 32]}}
variants: {student: {}}
"""
SKLEARN = importlib.util.find_spec("sklearn") is not None
HOSTILE = "<img src=x onerror=alert(1)>|$_{x}$ =1+1"


@dataclass(frozen=True)
class Made:
    """A store with both searches, and what it was when nothing was confirmed."""

    root: Path
    before: Path

    def outcome(self, run: str) -> dict[str, Any]:
        return Store(self.root).outcome(run) or {}

    def summary(self, sweep: str = "one") -> Summary:
        return summarize(Store(self.root), sweep)

    def plan(self, sweep: str = "one") -> dict[str, Any]:
        return Store(self.root).sweeps.plan(sweep) or {}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, pool: ProcessPool) -> Made:
    folder = tmp_path_factory.mktemp("searches")
    results = folder / "results"

    def run(name: str, text: str, confirm: bool) -> None:
        path = folder / f"{name}.yaml"
        path.write_text(BASE + text)
        launch_search(path, Store(results), pool, confirm=confirm)
        write.write_report(summarize(Store(results), name))

    run("one", ONE, confirm=False)
    shutil.copytree(results, folder / "before" / "results")
    run("one", ONE, confirm=True)
    run("two", TWO, confirm=True)
    return Made(results, folder / "before" / "results")


@pytest.fixture
def copied(made: Made, tmp_path: Path) -> Made:
    """A store that a test may change."""
    shutil.copytree(made.root, tmp_path / "results")
    return Made(tmp_path / "results", made.before)


def cells(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def validation(made: Made, runs: list[str]) -> list[float]:
    return [made.outcome(run)["metrics"]["validation"]["top1"] for run in runs if made.outcome(run)["status"] == "done"]


# -- the table -----------------------------------------------------------------------------------------------------


def test_the_table_is_of_the_records(made: Made) -> None:
    plan = made.plan()
    search = plan["search"]
    found = cells((made.root / "one" / "search.csv").read_text())
    done = {
        trial["number"]: made.outcome(trial["run"])["metrics"]["validation"]["top1"]
        for trial in search["asked"]
        if made.outcome(trial["run"])["status"] == "done"
    }
    assert {row["row"] for row in found} == {"adamw"}  # the other row's trials all diverged: they have no value
    assert [int(row["trial"]) for row in found] == sorted(done, key=lambda number: (-done[number], number))
    params = {trial["number"]: trial["params"] for trial in search["asked"]}
    for row in found:
        number = int(row["trial"])
        assert float(row["search_top1"]) == done[number]
        assert float(row["optimizer.base_lr"]) == params[number]["optimizer.base_lr"]
        fresh = validation(made, search["candidates"].get(str(number), []))
        assert row["fresh_n"] == (str(len(fresh)) if fresh else "")
        assert (
            math.isclose(float(row["fresh_mean"] or "nan"), statistics.fmean(fresh)) if fresh else not row["fresh_mean"]
        )
    winner = search["winners"]["adamw"]
    own = next(row for row in found if int(row["trial"]) == winner)
    runs = [run for variant, _, stage, run in plan["cells"] if (variant, stage) == ("adamw", "")]
    test = [made.outcome(run)["metrics"]["test"]["top1"] for run in runs]
    assert math.isclose(float(own["confirmed_mean"]), statistics.fmean(validation(made, runs)))
    assert math.isclose(float(own["test_top1_mean"]), statistics.fmean(test))
    # Of two values: t(1, 0.975) = 12.706, and their sd over the square root of two is half their distance.
    assert math.isclose(float(own["test_top1_half_width"]), 12.7062 * abs(test[0] - test[1]) / 2, rel_tol=1e-5)
    assert [row["trial"] for row in found if row["confirmed_n"]] == [str(winner)]


def test_parameters_may_be_called_as_our_columns_are(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    summary, found = made.summary(), tables_of.read_search(made.summary())
    before, called = tables_of.search_table(summary), {"optimizer.base_lr": "trial", "regularize.drop_path": "row"}

    def renamed(given: Any) -> Any:
        return {called.get(key, key): value for key, value in given.items()}

    search = {**found.plan["search"], "spaces": {k: renamed(v) for k, v in found.plan["search"]["spaces"].items()}}
    rows = [
        replace(own, shown=[replace(trial, params=renamed(trial.params)) for trial in own.shown]) for own in found.rows
    ]
    other = replace(found, plan={**found.plan, "search": search}, rows=rows)
    monkeypatch.setattr(tables_of, "read_search", lambda summary: other)
    table = tables_of.search_table(summary)
    assert table.rows() == before.rows()
    assert list(table.frame)[3:5] == ["trial_", "row_"]


def test_the_table_says_what_to_mind(made: Made) -> None:
    text = (made.root / "one" / "search.md").read_text()
    plan = made.plan()
    winner = plan["search"]["winners"]["adamw"]
    trial = next(trial for trial in plan["search"]["asked"] if trial["number"] == winner)
    seen = validation(made, [trial["run"]])[0]
    confirmed = statistics.fmean(
        validation(made, [run for variant, _, stage, run in plan["cells"] if (variant, stage) == ("adamw", "")])
    )
    said = (
        f"adamw, trial {winner}: search value {seen:.2f}, confirmed {confirmed:.2f} (2 new seeds), "
        f"difference {confirmed - seen:+.2f}"
    )
    assert said in text
    assert "stuck: 5 trials: 5 diverged." in text
    assert "stuck: no winner, for no trial has a value (5 diverged)." in text
    assert "leave the test split alone" in text
    assert re.search(r"adamw: of \d trials like these the best is expected to look \d+\.\d\d points better", text)
    for run in [trial["run"] for trial in plan["search"]["asked"]]:
        assert not made.outcome(run)["metrics"].get("test")


def test_expected_optimism_by_hand(made: Made) -> None:
    """Values 1, 2, 3 (variance 1) and noise of variance 0.02: 0.02 / 1 x 3 / (2 sqrt(pi)), the mean largest of
    three."""
    read = tables_of.read_search(made.summary())
    row = next(found for found in read.rows if found.row == "adamw")
    trials = [replace(row.trials[0], number=n, values=(float(n),)) for n in (1, 2, 3)]
    own = replace(row, trials=trials, fresh={1: [0.9, 1.1], 2: [5.0]})
    assert tables_of.expected_optimism(read, own) == pytest.approx(0.02 * 3 / (2 * math.sqrt(math.pi)))
    assert tables_of.expected_optimism(read, replace(own, fresh={2: [5.0]})) is None


def test_seeds_without_a_value_are_counted(made: Made) -> None:
    read = tables_of.read_search(made.summary())
    for more, says in ((1, "1 of its 3 seeds has no value"), (2, "2 of its 4 seeds have no value")):
        plan = {**read.plan, "stages": [{**read.plan["stages"][-1], "seeds": [*range(2 + more)]}]}
        assert any(says in note for note in tables_of.footnotes(replace(read, plan=plan)))


def test_before_anything_is_confirmed(made: Made) -> None:
    folder = made.before / "one"
    text = (folder / "table.md").read_text()
    assert text == (folder / "search.md").read_text()
    assert "Nothing is confirmed yet: deit-ablate run with --confirm" in text
    assert "differs in" not in text
    assert "confirmed |" not in text
    drawn = {path.stem for path in (folder / "figures").iterdir()}
    assert drawn
    assert all(name.startswith("search-") and name.endswith("-adamw") for name in drawn)


def test_table_md_holds_the_search_and_the_confirmed_rows(made: Made) -> None:
    folder = made.root / "one"
    text = (folder / "table.md").read_text()
    first, second = text.split("\n\n# ")
    assert first + "\n" == (folder / "search.md").read_text()
    assert "test top-1 (%)" in second
    assert "adamw (baseline)" in second
    assert [row["variant"] for row in cells((folder / "table.csv").read_text())] == ["adamw"]


def test_commands_show_it(made: Made, command: Command) -> None:
    at = ("--results", made.root)
    assert command("table", "one", *at).stdout == (made.root / "one" / "table.md").read_text()
    assert command("table", "one", "--format", "csv", *at).stdout == (made.root / "one" / "table.csv").read_text()
    alone = command("table", "one", "--search", "--format", "csv", *at).stdout
    assert alone == (made.root / "one" / "search.csv").read_text()
    paths = [Path(line) for line in command("figure", "one", "--format", "svg", *at).stdout.split()]
    assert {"search-history-adamw.svg", "effects.svg"} <= {path.name for path in paths}
    assert all(path.exists() for path in paths)


def test_a_sweep_that_is_no_search_has_none(optimizers: Any, command: Command) -> None:
    assert "search" not in write.parts(optimizers.summary())
    with pytest.raises(ValueError, match="no search"):
        tables_of.search_table(optimizers.summary())
    done = command("table", "optimizers", "--search", "--results", optimizers.root, code=2)
    assert "optimizers is no search" in done.stderr


def test_the_analysis_is_a_script(made: Made) -> None:
    script = files.shipped("analysis") / "search.py"
    done = subprocess.run(
        [sys.executable, script, "one", "--results", made.root], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout == (made.root / "one" / "search.md").read_text()


def test_a_search_table_needs_neither_torch_nor_matplotlib_nor_optuna(made: Made) -> None:
    code = (
        "import sys; from deit_ablate.report import write; from deit_ablate.report.summary import summarize; "
        "from deit_ablate.store import Store; print(write.markdown(summarize(Store(sys.argv[1]), 'one'))); "
        "assert not {'torch', 'matplotlib', 'optuna', 'scipy.stats'} & sys.modules.keys()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, made.root], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_pruned_trial_has_no_value(copied: Made) -> None:
    winner = str(copied.plan()["search"]["winners"]["adamw"])
    shown = [row for row in cells((copied.root / "one" / "search.csv").read_text()) if row["trial"] != winner]
    run = copied.root / "runs" / shown[0]["run"]
    (run / "outcome.json").unlink()
    files.replace(run / "a0001" / "exit.json", files.to_json({"class": "paused", "message": "paused"}))
    table = tables_of.search_table(copied.summary())
    assert {row[1] for row in table.rows()} == {winner, *(row["trial"] for row in shown[1:])}
    assert any(re.match(r"adamw: 5 trials: \d complete, 1 pruned", note) for note in table.footnotes)
    assert "Not finished" not in page(copied.summary())


def test_two_objectives_show_the_front(made: Made) -> None:
    found = cells((made.root / "two" / "search.csv").read_text())
    points = [(float(row["search_top1"]), -float(row["search_parameters"])) for row in found]
    assert points == sorted(points, reverse=True)
    assert all(not (a[0] >= b[0] and a[1] >= b[1]) for a in points for b in points if a != b)
    winners = made.plan("two")["search"]["winners"]
    assert {row["trial"] for row in found if row["confirmed_n"]} == {str(number) for number in winners.values()}
    assert all(row["fresh_mean"] == "" for row in found)
    text = (made.root / "two" / "table.md").read_text()
    assert "the Pareto front of the search" in text
    for name, number in winners.items():
        assert f"student, trial {number}: search value" in text
        assert f"| {name} " in text


# -- figures -------------------------------------------------------------------------------------------------------


def expected(kinds: str, row: str = "") -> set[str]:
    return {f"search-{kind}{row}" for kind in kinds.split() if SKLEARN or kind != "importances"}


def test_figures(made: Made, tmp_path: Path) -> None:
    """The same bytes each time; nothing of them stays behind in matplotlib."""
    before = dict(matplotlib.rcParams)
    figures = figures_of.search_figures(made.summary())
    assert set(figures) == expected("history importances slices contour", "-adamw")
    from matplotlib import pyplot

    assert pyplot.get_fignums() == []
    assert {key: value for key, value in matplotlib.rcParams.items() if key != "backend"} == {
        key: value for key, value in before.items() if key != "backend"
    }
    again = figures_of.search_figures(made.summary())
    for form in ("png", "svg"):
        for name in figures:
            save(figures[name], tmp_path / f"one.{form}")
            save(again[name], tmp_path / f"two.{form}")
            assert (tmp_path / f"one.{form}").read_bytes() == (tmp_path / f"two.{form}").read_bytes(), (name, form)


def test_figures_say_what_is_drawn(made: Made) -> None:
    figures = figures_of.search_figures(made.summary())
    history = figures["search-history-adamw"].axes[0]
    assert history.get_ylabel() == "validation top-1 (%)"
    numbers = [trial["number"] for trial in made.plan()["search"]["asked"] if trial["row"] == "adamw"]
    format_ = history.xaxis.get_major_formatter()
    assert [format_(place, None) for place in range(len(numbers))] == [str(number) for number in numbers]
    labels = {axes.get_xlabel() for axes in figures["search-slices-adamw"].axes}
    assert {"base_lr", "drop_path", "color_jitter"} <= labels
    front = figures_of.search_figures(made.summary("two"))["search-front"].axes[0]
    assert (front.get_xlabel(), front.get_ylabel()) == ("validation top-1 (%)", "parameters")


def test_the_front_is_drawn_of_two_objectives(made: Made) -> None:
    assert expected("history front importances slices") <= set(figures_of.search_figures(made.summary("two")))


def test_without_scikit_learn_importances_are_left_out(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "sklearn" else find(name, *more)
    )
    assert set(figures_of.search_figures(made.summary())) == expected("history slices contour", "-adamw")


# -- the page ------------------------------------------------------------------------------------------------------


def section(document: str) -> str:
    found = re.search(r'<section id="search">.*?</section>', document, re.S)
    assert found is not None
    return found[0]


def test_the_page_tells_of_the_search(made: Made) -> None:
    document = page(made.summary())
    part = section(document)
    text = html.unescape(re.sub(r"<[^>]+>", " ", part))
    for words in (
        "What was varied",
        "optimizer.base_lr",
        "0.2 to 0.4, logarithmic",
        "Sampler",
        "random",
        "0, 0.3",
        "stuck",
    ):
        assert words in text
    winner = made.plan()["search"]["winners"]["adamw"]
    assert f"adamw, trial {winner}: search value" in text
    assert part.count("data:image/svg+xml;base64,") == len(figures_of.search_figures(made.summary()))
    stuck = next(trial["number"] for trial in made.plan()["search"]["asked"] if trial["row"] == "stuck")
    assert f"stuck, trial {stuck}" in document
    assert f"stuck, seed {stuck}" not in document
    assert "deit-ablate run one.yaml --confirm" in document
    assert document == page(made.summary())


def test_the_page_before_anything_is_confirmed(made: Made, tmp_path: Path) -> None:
    document = page(summarize(Store(made.before), "one"))
    assert "Nothing is confirmed yet" in document
    assert 'id="table"' not in document
    assert "The best trials" in section(document)
    shutil.copytree(made.before, tmp_path / "results")
    write_index(Store(tmp_path / "results"))
    assert "a search, not confirmed" in (tmp_path / "results" / "index.html").read_text()


def test_what_a_search_names_is_escaped(copied: Made) -> None:
    """Choices and parameters are a sweep file's, so anyone's who wrote the store."""
    path = copied.root / "one" / "plan.json"
    plan = json.loads(path.read_text())
    for space in plan["search"]["spaces"].values():
        space["augment.color_jitter"]["choices"] = [HOSTILE, "=cmd()"]
    for number, trial in enumerate(plan["search"]["asked"]):
        trial["params"]["augment.color_jitter"] = (HOSTILE, "=cmd()")[number // 2 % 2]
    path.write_text(json.dumps(plan))
    write.write_report(copied.summary())
    folder = copied.root / "one"
    document = page(copied.summary())
    for text in (document, (folder / "search.html").read_text(), (folder / "search.md").read_text()):
        assert "<img src=x" not in text
        assert "&lt;img src=x" in text
    assert "$_{x}$" not in (folder / "search.tex").read_text()
    assert ",=cmd()" not in (folder / "search.csv").read_text()
    assert len(section(document)) > 1000


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


def test_the_pictures_are_seen(browser: Browser, made: Made, tmp_path: Path) -> None:
    from deit_ablate.report.html import write_page

    opened = browser.open(write_page(made.summary("two"), output=tmp_path / "two.html"), width=700)
    widths = opened.evaluate("[...document.images].map(image => image.naturalWidth)")
    assert widths
    assert all(width > 100 for width in widths)
    assert opened.evaluate("document.documentElement.scrollWidth") <= 700
    assert browser.messages == []
    assert all(address.startswith(("file:", "data:")) for address in browser.requests)


# -- carried and kept ----------------------------------------------------------------------------------------------


def test_what_was_kept_and_brought_back_says_the_same(made: Made, copied: Made, tmp_path: Path) -> None:
    command: Callable[..., Any] = Command(tmp_path)
    command("keep", "one", "--results", copied.root)
    command("import", copied.root / "reference" / "one", "--results", tmp_path / "other")
    table = command("table", "one", "--search", "--results", tmp_path / "other").stdout
    assert table == (made.root / "one" / "search.md").read_text()
