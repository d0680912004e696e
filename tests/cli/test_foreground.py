"""One run in the foreground: where nothing can go on, no caller is told to call again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import typer
from support import RECIPE

from deit_ablate.cli import share
from deit_ablate.errors import InputError
from deit_ablate.execution import SAVED, Execution
from deit_ablate.identity import run_id
from deit_ablate.store import Store


@pytest.fixture
def family(store: Store) -> tuple[str, str]:
    """A finished parent with weights, and a child that nobody has begun."""
    parent = run_id(RECIPE, {})
    store.register(parent, RECIPE, {}, {})
    attempt = store.claim(parent)
    attempt.checkpoint.write_bytes(b"weights")
    store.finish(parent, attempt, {"status": "done", "reason": None, "metrics": {}, "cost": {}})
    attempt.close("done")
    parents = {"from": {"run": parent, "weights": "last"}}
    recipe = {**RECIPE, "seed": 1}
    store.register(child := run_id(recipe, parents), recipe, parents, {})
    return parent, child


def diverged(store: Store, parent: str, child: str) -> None:
    (store.run(parent) / "outcome.json").unlink()
    attempt = store.attempt(parent, 1)
    store.finish(parent, attempt, {"status": "diverged", "reason": "NaN", "metrics": {}, "cost": {}})


def weights_gone(store: Store, parent: str, child: str) -> None:
    store.attempt(parent, 1).checkpoint.unlink()


def weights_gone_under_a_failure(store: Store, parent: str, child: str) -> None:
    store.claim(child).close("crash")
    weights_gone(store, parent, child)


ENDS: dict[str, tuple[Callable[[Store, str, str], object], int, str]] = {
    "a user has cancelled it": (lambda store, parent, child: store.cancel(child), 1, "{child} could not be trained"),
    "its parent diverged when it was trained anew": (diverged, 1, "{child} could not be trained"),
    "its parent's weights are gone": (weights_gone, 2, "the weights of {parent}"),
    "they are gone, and it has failed": (weights_gone_under_a_failure, 2, "the weights of {parent}"),
    "another process has it": (lambda store, parent, child: store.claim(child), SAVED, "the same command goes on"),
}


@pytest.mark.parametrize("case", ENDS)
def test_what_cannot_go_on_is_not_saved(
    case: str, store: Store, family: tuple[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    (parent, child), (happens, code, said) = family, ENDS[case]
    happens(store, parent, child)
    with pytest.raises((typer.Exit, InputError)) as left:
        share._train(child, store, Execution(device="cpu"), None)
    assert getattr(left.value, "exit_code", 2) == code
    told = capsys.readouterr()
    assert said.format(parent=parent, child=child) in f"{told.out}{told.err}{left.value}"
