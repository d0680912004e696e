"""What a plan says of the runs that it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import Ask


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "12 seeds, 3 rows, 21 seeds of the baseline: finds"),
        (["--seeds", "3"], "3 seeds, 3 rows, 6 seeds of the baseline: finds"),
        (["--seeds", "2"], "2 seeds, 3 rows: too few for a verdict"),
        (["--only", "a", "--only", "b"], "12 seeds, 1 row, 21 seeds of the baseline: finds"),
        (["--only", "a"], "no rows are compared"),
    ],
)
def test_what_is_found_is_of_the_seeds_and_rows_that_are_run(
    ask: Ask, tmp_path: Path, arguments: list[str], says: str
) -> None:
    rows = "{a: {}, b: {augment.mixup: 0}, c: {augment.cutmix: 0}, d: {augment.erasing: 0}}"
    (tmp_path / "x.yaml").write_text(f"profile: digits\nseeds: 12\nbaseline: a\nvariants: {rows}\n")
    assert f"\n{says}" in ask("plan", "x.yaml", *arguments).out
