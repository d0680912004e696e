"""Names in a sweep file are checked at their line, and the sources of custom ones are part of their runs' ids."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support import planned

from deit_ablate.errors import InputError
from deit_ablate.sweep import names

MYLAB = """
def noise(image, rng, *, sigma: float = 1.0):
    return image


def blur(tensor, rng):
    return tensor
"""


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The worker's own function answers: a worker imports torch for each question."""
    from deit_ablate.train.names import ask

    monkeypatch.setattr(names, "ask_worker", ask)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "mylab_pictures", raising=False)
    (tmp_path / "mylab_pictures.py").write_text(MYLAB)


@pytest.mark.parametrize(
    ("custom", "said"),
    [
        ('["mylab_pictures:noize"]', r"augment.custom.0: mylab_pictures:noize: 'mylab_pictures' has no 'noize'"),
        ('["mylab_pictures:noise", "no_lab:noise"]', "augment.custom.1: no_lab:noise: cannot find 'no_lab'"),
        ('[{name: "mylab_pictures:noise", options: {sgima: 2}}]', "has no option 'sgima'; did you mean 'sigma'?"),
        ('[{name: "mylab_pictures:noise", options: {sigma: wide}}]', "option 'sigma': .*valid number.*, got 'wide'"),
    ],
)
def test_custom_augmentations_are_checked(sweep: Callable[..., Path], custom: str, said: str) -> None:
    with pytest.raises(InputError, match=rf"tiny.yaml:11:\d+: .*{said}"):
        planned(sweep(f"variants:\n  a: {{}}\n  b: {{augment: {{custom: {custom}}}}}\n"))


def test_the_source_of_a_custom_augmentation_is_part_of_the_id(sweep: Callable[..., Path], tmp_path: Path) -> None:
    path = sweep('seeds: 1\nvariants:\n  a: {}\n  b: {augment: {custom: ["mylab_pictures:noise"]}}\n')
    before, after = {}, {}
    for found, text in ((before, MYLAB), (after, MYLAB + "\nSIGMA = 2\n")):
        (tmp_path / "mylab_pictures.py").write_text(text)
        plan = planned(path)
        found |= {cell.variant: cell.run for cell in plan.cells}
        assert list(plan.runs[found["b"]].sources) == ["mylab_pictures:noise"]
        assert plan.runs[found["a"]].sources == {}
    assert before["a"] == after["a"]
    assert before["b"] != after["b"]
