"""The finite test set in tables: from kept predictions, beside the margin, and in verdicts where a sweep says so."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from studies import Study, arrays_of, record

from deit_ablate import files
from deit_ablate.report import per_image
from deit_ablate.report.html import page
from deit_ablate.report.summary import summarize
from deit_ablate.report.tables.render import to_latex
from deit_ablate.report.tables.table import sweep_table
from deit_ablate.store import archive
from deit_ablate.store.store import Store

REFERENCE = Path(__file__).parents[2] / "results/reference"
IMAGES = 200
TRUTH = np.arange(IMAGES) % 10


def predicted(row: int, seed: int, wrong: int) -> Any:
    """Classes of which ``wrong`` are wrong: some in every row and run, some in every run of a row, some in a run."""
    at = [*range(wrong - 4), *range(100 + 10 * row, 102 + 10 * row), 150 + 10 * row + seed, 190 - 5 * row - seed]
    return np.where(np.isin(np.arange(IMAGES), at), (TRUTH + 1) % 10, TRUTH)


WRONG = {"base": 20, "a": 18, "b": 24}


def made(study: Callable[..., Study], population: bool = False, wrong: Mapping[str, int] = WRONG, **more: Any) -> Study:
    top1 = {name: dict.fromkeys(range(3), 100 * (1 - count / IMAGES)) for name, count in wrong.items()}
    for name, gain in (("base", 0), ("a", 1), ("b", 0)):  # so that seeds differ
        top1[name][2] -= 0.5 * (gain + 1)
    found = study(top1, baseline="base", margin=2, **more)
    for row, name in enumerate(wrong):
        for seed in range(3):
            lost = round((100 - top1[name][seed]) * IMAGES / 100)
            record(found, found.runs[name, seed], **arrays_of(targets=TRUTH, **{"class": predicted(row, seed, lost)}))
    plan = found.store.sweeps.plan(found.name)
    found.store.sweeps.save_plan(found.name, {**plan, "population": population})
    return found


def last(study: Study, word: str = "test images") -> str:
    (note,) = [note for note in sweep_table(study.summary()).footnotes if word in note and "add" in note]
    return note


def test_its_size_stands_beside_the_margin(study: Callable[..., Study]) -> None:
    one = made(study)
    rows = {row["variant"]: row for row in one.summary().rows}
    size = [rows[name]["image_standard_error"] for name in ("a", "b")]
    assert last(one) == (
        "Intervals and verdicts cover training noise only: the 599 test images, which all rows share, add "
        f"{min(size):.2f} to {max(size):.2f} points (estimated standard error) to a difference; the margin is 2."
    )
    # By hand for a: 2 images that all of its runs get wrong and none of the baseline's, and 2 the other way round; of
    # the images that single runs get wrong next to nothing is left once training noise is taken out.
    assert rows["a"]["image_standard_error"] == pytest.approx(100 * math.sqrt(4) / IMAGES, rel=0.2)
    assert rows["a"]["difference_half_width_new_images"] > rows["a"]["difference_half_width"]
    assert math.isnan(rows["base"]["image_standard_error"])


def test_a_sweep_that_says_so_is_judged_for_new_images(study: Callable[..., Study]) -> None:
    before = {row["variant"]: row for row in made(study).summary().rows}
    one = made(study, population=True, name="judged")
    one.store.sweeps.declare("judged", {"seeds": {"": [0, 1, 2]}, "population": True}, 0)
    for row in one.summary().rows[1:]:
        assert row["difference_half_width"] == row["difference_half_width_new_images"]
        assert row["difference_half_width"] == before[row["variant"]]["difference_half_width_new_images"]
        assert row["p"] > before[row["variant"]]["p"]
        assert row["p_plain"] == before[row["variant"]]["p_plain"]
    assert last(one).startswith(
        "Verdicts, and intervals of differences from the baseline, are for new images of this kind, as the sweep "
        "declares (since before its first run): beside training noise, the 599 test images"
    )
    assert "not for new images" in page(one.summary())
    one.store.sweeps.declare("judged", {"seeds": {"": [0, 1, 2]}, "population": None}, 4)
    told = "what verdicts are for changed from new ones of this kind (population) to these test images after 4 runs"
    assert any(told in note for note in sweep_table(one.summary()).footnotes)


def lose(study: Study, run: str) -> None:
    (attempt,) = study.store.attempts(run)
    attempt.arrays.unlink()


def spoil(study: Study, run: str) -> None:
    (attempt,) = study.store.attempts(run)
    attempt.arrays.write_bytes(b"PK\x03\x04" + attempt.arrays.read_bytes()[4:] + b" ")


def other_images(study: Study, run: str) -> None:
    record(study, run, **arrays_of(targets=TRUTH[::-1], **{"class": predicted(1, 0, 18)[::-1]}))


def other_figure(study: Study, run: str) -> None:
    record(study, run, **arrays_of(targets=TRUTH, **{"class": predicted(1, 0, 30)}))


def another_head(study: Study, run: str) -> None:
    record(study, run, **arrays_of(targets=TRUTH, distillation=TRUTH))


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (lose, "predictions not on record (run {run}: gone or damaged)"),
        (spoil, "predictions not on record (run {run}: gone or damaged)"),
        (other_images, "its runs were not tested on the same images"),
        (other_figure, "the predictions of run {run} do not give its figure"),
        (another_head, "predictions not on record"),
    ],
)
def test_a_row_without_predictions_says_so_and_is_not_judged(
    study: Callable[..., Study], harm: Callable[[Study, str], None], why: str
) -> None:
    one = made(study, population=True)
    harm(one, one.runs["a", 0])
    why = why.format(run=one.runs["a", 0])
    rows = {row["variant"]: row for row in one.summary().rows}
    assert rows["a"]["verdict_words"] == f"not judged for new images: {why}"
    assert all(math.isnan(rows["a"][key]) for key in ("p_holm", "difference_half_width"))
    assert rows["b"]["verdict"] == "undecided"
    assert rows["b"]["p_holm"] == pytest.approx(2 * rows["b"]["p"])
    assert last(one).endswith(f". Not known of a: {why}.")
    assert "Not judged: predictions are missing" in page(one.summary())


def test_without_the_baselines_nothing_is_judged(study: Callable[..., Study]) -> None:
    one = made(study, population=True)
    lose(one, one.runs["base", 0])
    assert {row["verdict"] for row in one.summary().rows[1:]} == {"no_predictions"}
    (note,) = [note for note in sweep_table(one.summary()).footnotes if "Not known of" in note]
    assert "Not known of a, b: of the baseline: predictions not on record" in note


def test_what_many_runs_kept_is_read_once(study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch) -> None:
    one = made(study)
    kept = one.store.sweeps.folder(one.name) / "images.json"
    last(one)
    assert not kept.exists(), "few runs are not worth a file"
    monkeypatch.setattr(per_image, "WORTH_AN_INDEX", 6)
    first = last(one)
    assert kept.exists()
    content = json.loads(kept.read_text())
    content["rows"]["a"]["raw"] += 1.0
    files.replace(kept, files.to_json(content))
    assert last(one) != first, "what is kept is used"
    record(one, one.runs["a", 0], **arrays_of(targets=TRUTH, **{"class": predicted(1, 0, 18)}), test_more=TRUTH)
    assert last(one) == first, "another outcome is read anew"
    for content in (b"", b"[]", b'{"key": "x", "rows": 3}'):
        kept.write_bytes(content)
        assert last(one) == first


def test_nothing_is_bold_where_rows_are_judged_for_new_images(study: Callable[..., Study]) -> None:
    """Any two other rows are compared by training noise alone."""
    wrong = {"base": 90, "a": 20, "b": 88}
    for population in (False, True):
        one = made(study, population, wrong, name=f"judged {population}")
        assert one.summary().rows[1]["verdict"] == "better"
        assert ("In bold" in to_latex(sweep_table(one.summary()))) is not population


def test_heads_of_one_run_are_compared_by_pairs(study: Callable[..., Study]) -> None:
    rows: Mapping[str, Any] = {name: dict.fromkeys(range(3), 90.0) for name in ("both", "token")}
    one = study(rows, baseline="both", same={"token": "both"}, shows={"token": "distillation"})
    for seed in range(3):
        fused, head = predicted(0, seed, 20), predicted(1, seed, 20)
        record(one, one.runs["both", seed], **arrays_of(targets=TRUTH, fused_softmax=fused, distillation=head))
        path = one.store.run(one.runs["both", seed]) / "outcome.json"
        outcome = json.loads(path.read_text())
        outcome["metrics"]["test"] |= {"top1": 90.0, "top1_distillation": 90.0}
        files.replace(path, files.to_json(outcome))
    token = one.summary().rows[1]
    assert token["paired"]
    assert token["image_standard_error"] > 0.5


@pytest.mark.parametrize(("name", "most"), [("optimizers", 0.06), ("regularization", 0.03)])
def test_kept_studies_have_it(tmp_path: Path, name: str, most: float) -> None:
    """On 10,000 images it is at most 0.06 points. Of the moving average no predictions were kept."""
    sweep = f"{name}@fashion-mnist-small"
    archive.import_records(REFERENCE / sweep, Store(tmp_path))
    size = {row["variant"]: row["image_standard_error"] for row in summarize(Store(tmp_path), sweep).rows}
    known = [value for value in size.values() if not math.isnan(value)]
    assert max(known) <= most + 0.005
    assert sum(math.isnan(value) for value in size.values()) == 1 + ("moving average" in size)
