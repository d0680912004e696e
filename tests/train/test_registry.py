"""What a function's signature says of the options that it takes, and what is refused by it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest
from torch import Tensor, nn

from deit_ablate.train.optim import optimizer_options
from deit_ablate.train.registry import OptionError, check_options, option_kinds


def own(
    shape: Any,
    switch: bool = False,
    depth: int = 2,
    rate: float = 1,
    eps: float = None,  # noqa: RUF013
    clip: float | None = None,
    mode: Literal["bilinear", "bicubic"] = "bilinear",
    betas: tuple[float | Tensor, float | Tensor] = (0.9, 0.999),
    names: Sequence[str] = (),
    size: int | tuple[int, int] = 4,
    pair: tuple[str, float] = ("a", 1),
    layer: Callable[..., nn.Module] | str = nn.ReLU,
    table: dict[str, int] | None = None,
    anything: Any = 3,
    bare=None,
    by_default=True,
    number_by_default=0,
    **others: Any,
) -> None:
    pass


def test_the_kinds_of_a_functions_options() -> None:
    assert option_kinds(own, skip=("shape",)) == {
        "switch": "bool",
        "depth": "int",
        "rate": "number",
        "eps": "number|null",
        "clip": "number|null",
        "mode": "=bilinear|=bicubic",
        "betas": "list[number,number]",
        "names": "list[str]",
        "pair": "list[str,number]",
        "size": "int|list[int,int]",
        "layer": "str",
        "table": "dict|null",
        "anything": "unknown",
        "bare": "unknown",
        "by_default": "bool",
        "number_by_default": "number",
        "**": "unknown",
    }
    assert optimizer_options("lion")["caution"] == "bool", "timm's, whose class says so"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"switch": "no"}, "true or false (YAML 1.2 writes true and false)"),
        ({"switch": "false"}, "true or false (write it without quotes)"),
        ({"switch": 0}, "true or false"),
        ({"depth": True}, "a whole number"),
        ({"depth": 2.5}, "a whole number"),
        ({"depth": "2"}, "a whole number (write it without quotes)"),
        ({"rate": None}, "a number"),
        ({"clip": "1e-3"}, "a number or null (write it without quotes)"),
        ({"mode": "cubic"}, "bilinear or bicubic"),
        ({"betas": 0.9}, "a list of 2, each a number"),
        ({"betas": [0.9]}, "a list of 2, each a number"),
        ({"betas": [0.9, 0.99, 0.999]}, "a list of 2, each a number"),
        ({"names": 3}, "a list, each text"),
        ({"pair": ["a", "b"]}, "a list of 2"),
        ({"betas": [0.9, "0.99"]}, "a list of 2, each a number (write it without quotes)"),
        ({"size": [4, 4.5]}, "a whole number or a list of 2, each a whole number"),
        ({"anything": "off"}, "true, false or a number (YAML 1.2 writes true and false)"),
        ({"anything": [1, "2"]}, "true, false or a number (write it without quotes)"),
        ({"what else": "yes"}, "true, false or a number (YAML 1.2 writes true and false)"),
    ],
)
def test_a_value_of_another_kind_is_refused(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(OptionError) as caught:
        check_options("it", options, option_kinds(own, skip=("shape",)))
    assert str(caught.value).endswith(f"; expected {expected}")
    assert caught.value.option in options


@pytest.mark.parametrize(
    "options",
    [
        {"switch": True, "depth": 4.0, "rate": 3, "eps": None, "clip": None, "mode": "bicubic", "betas": [0, 0.5]},
        {"names": ["head*", "no"], "size": 4, "layer": "on", "table": {"a": 1}, "anything": "wide", "bare": 3},
        {"by_default": False, "number_by_default": 0.5, "what else": [1, "a"]},
    ],
)
def test_values_of_the_right_kind_are_taken(options: dict[str, Any]) -> None:
    check_options("it", options, option_kinds(own, skip=("shape",)))
