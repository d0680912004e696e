"""`metric:` and `metrics:` of a sweep file: what they may be, and what is refused at which line."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import planned

from deit_ablate.errors import InputError
from deit_ablate.sweep.metrics import METRICS, code_hash
from deit_ablate.sweep.plan import Plan

LAB = """
from math import fsum as total

raise RuntimeError("planning has imported this")


def sure(run):
    def within(): ...
    return (run["confidence"] > 0.9) & (run["predictions"] == run["targets"])


if True:
    later = sure
"""
ROWS = "variants: {a: {}, b: {augment.mixup: 0}}"


@pytest.fixture(autouse=True)
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "measured_lab.py"
    path.write_text(LAB)
    monkeypatch.syspath_prepend(tmp_path)
    return path


def plan_of(tmp_path: Path, text: str) -> Plan:
    path = tmp_path / "x.yaml"
    path.write_text(f"profile: digits\nseeds: 3\nbaseline: a\n{text}\n")
    return planned(path)


def test_top1_is_the_default_and_changes_no_plan(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, ROWS)
    assert plan.document("x") == plan_of(tmp_path, f"metric: top1\n{ROWS}").document("x")
    assert not {"metric", "metrics"} & plan.document("x").keys()
    assert plan.declared()["metric"] is None


@pytest.mark.parametrize("name", [*METRICS, "measured_lab:sure"])
def test_a_metric_is_no_part_of_a_runs_id(tmp_path: Path, name: str) -> None:
    rows = "recipe: {distill: {type: hard-token}}\nstages: {teacher: {seeds: [0]}, last: {teacher: teacher}}\n" + ROWS
    ids = set(plan_of(tmp_path, rows).runs)
    long = f"{{name: '{name}', better: {METRICS[name].better if name in METRICS else 'lower'}}}"
    assert set(plan_of(tmp_path, f"metric: {long}\n{rows}").runs) == ids
    assert set(plan_of(tmp_path, f"metrics: ['{name}']\n{rows}").runs) == ids


def test_a_function_is_known_by_its_source_alone(tmp_path: Path, lab: Path) -> None:
    for name in ("sure", "later", "total"):
        plan = plan_of(tmp_path, f"metric: {{name: 'measured_lab:{name}', better: lower, unit: ms, digits: 1}}\n{ROWS}")
        assert plan.sweep.metric.header == f"{name} (ms)"
    declared = plan.declared()["metric"]
    assert declared == f"measured_lab:total (lower is better, code {code_hash('measured_lab:total')[:8]})"
    lab.write_text(LAB + "# a comment\n")
    assert plan.declared()["metric"] == declared
    lab.write_text(LAB.replace("0.9", "0.8"))
    assert plan.declared()["metric"] != declared


def test_a_figure_of_all_rows_is_no_difference_between_them(tmp_path: Path) -> None:
    assert plan_of(tmp_path, f"metric: class\n{ROWS}").sweep.metric.header == "test top-1, class head (%)"
    with pytest.raises(InputError, match="the row 'b' changes nothing"):
        plan_of(tmp_path, "metric: ema\nvariants: {a: {augment.mixup: 0}, b: {augment.color_jitter: 0.3}}")


def test_columns_leave_out_the_metric_of_the_verdicts(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, f"metric: loss\nmetrics: [top1, loss, {{name: 'measured_lab:sure', unit: share}}]\n{ROWS}")
    assert [metric.header for metric in plan.sweep.metrics] == ["test top-1 (%)", "sure (share)"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("metric: los", "4:9: metric: no metric is called 'los'; did you mean 'loss'?; expected one of top1, top5"),
        ("metric: 3", "4:9: metric: got 3; expected a name, or a mapping of name, better, unit and digits"),
        ("metric: [loss]", "4:9: metric: got ['loss']; expected a name"),
        ("metric: {better: lower}", "4:9: metric.name: the key 'name' is missing"),
        ("metric: {name: loss, worse: 1}", "4:22: metric.worse: unknown key 'worse'"),
        ("metric: {name: loss, better: up}", "4:30: metric.better: got \"up\"; expected 'higher' or 'lower'"),
        ("metric: {name: loss, better: higher}", "4:30: metric.better: got 'higher'; expected 'lower', as loss has"),
        ("metric: {name: top1, unit: points}", "4:28: metric.unit: got 'points'; expected '%', as top1 has"),
        ("metric: {name: 'measured_lab:sure', better: lower, digits: 12}", "metric.digits: got 12"),
        ('metric: {name: "measured_lab:sure", better: lower, unit: "\\e[1m"}', "metric.unit: got"),
        ("metric: measured_lab:sure", "4:9: metric: nothing says which way measured_lab:sure is better"),
        ("metric: measured_lab:within", "4:9: metric: 'measured_lab' has no 'within'"),
        ("metric: no_such_lab:sure", "4:9: metric: no_such_lab:sure: cannot find 'no_such_lab'"),
        ("metric: 'measured_lab:'", "4:9: metric: no metric is called 'measured_lab:'"),
        ("metrics: loss", "4:10: metrics: no list; expected a list of metrics"),
        ("metrics:\n- loss\n- loss", "6:3: metrics.1: 'loss' twice; expected each once"),
        ("metrics: [{name: top6}]", "4:18: metrics.0.name: no metric is called 'top6'"),
        ("metric: distillation", "4:9: metric: the row 'a' shows the distillation head of a model that has one head"),
        ("metric: fused_logits", "4:9: metric: the row 'a' shows both heads of a model that has one head"),
        ("metric: ema\nrecipe: {regularize.ema_decay: null}", "4:9: metric: the row 'a' shows a moving average"),
    ],
)
def test_what_is_no_metric_is_refused_at_its_line(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(InputError) as error:
        plan_of(tmp_path, f"{text}\n{ROWS}")
    assert str(error.value).startswith(f"{tmp_path / 'x.yaml'}:")
    assert says in str(error.value)


@pytest.mark.parametrize("metric", ["loss", "top5", "class", "{name: 'measured_lab:sure', better: higher}"])
def test_rows_show_no_other_figure_than_the_metric(tmp_path: Path, metric: str) -> None:
    with pytest.raises(InputError, match=r"x\.yaml:5:19: variants\.b\.shows: the row shows another figure \(ema\)"):
        plan_of(tmp_path, f"metric: {metric}\nvariants: {{a: {{}}, b: {{shows: ema}}}}")
    assert plan_of(tmp_path, "metric: ema\nvariants: {a: {}, b: {shows: ema, augment.mixup: 0}}").rows[1].shows == "ema"
