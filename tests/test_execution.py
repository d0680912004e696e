"""How runs are executed: what settings may say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from deit_ablate.errors import InputError
from deit_ablate.execution import Execution, Slurm, hosts_only
from deit_ablate.sweep.overrides import validate
from deit_ablate.sweep.yaml import Node


@pytest.mark.parametrize(
    ("time", "minutes"), [(5, 5), ("90", 90), ("1:30:00", 90), ("00:00:30", 1), ("2-00:00:00", 2880)]
)
def test_time_limits_are_minutes(time: Any, minutes: int) -> None:
    assert Slurm(time=time).minutes == minutes


@pytest.mark.parametrize("time", [0, -5, 1.5, True, "0", "0-00:00:00", "an hour", "1:30"])
def test_what_is_no_time_limit_is_one_message(time: Any) -> None:
    """Zero too, which sbatch would take for no limit at all."""
    where = ("s.yaml", 3, 7)
    node = Node({"slurm": Node({"time": Node(time, where)}, where)}, where)
    with pytest.raises(InputError) as caught:
        validate(Execution, node, "execution.")
    expected = f"s.yaml:3:7: execution.slurm.time: got {json.dumps(time)}; expected minutes, or [D-]HH:MM:SS"
    assert str(caught.value) == expected


@pytest.mark.parametrize("value", ["a; rm -rf ~", "a\nb", "a b", "$(x)", "`x`", "-x", "'", ""])
def test_values_that_a_shell_would_read_are_refused(value: str) -> None:
    for name in ("partition", "account", "qos", "reservation", "exclude", "constraint"):
        with pytest.raises(ValueError, match=name):
            Slurm(**{name: value})
    with pytest.raises(ValueError, match="extra"):
        Slurm(extra={"array": "0-5"})
    with pytest.raises(ValueError, match="setup"):
        Slurm(setup=["ok", "a\nb"])


@pytest.mark.parametrize("compile", [True, False, "reduce-overhead", "max-autotune"])
def test_compilation_is_a_switch_or_a_mode(compile: bool | str) -> None:
    read = validate(Execution, Node({"compile": Node(compile, ("s.yaml", 3, 7))}, ("s.yaml", 2, 3)), "execution.")
    assert Execution.from_json(read.to_json()).compile == compile


@pytest.mark.parametrize("compile", ["fast", 3, "true", None])
def test_what_is_no_mode_of_compilation_is_one_message(compile: Any) -> None:
    where = ("s.yaml", 3, 7)
    with pytest.raises(InputError) as caught:
        validate(Execution, Node({"compile": Node(compile, where)}, where), "execution.")
    said = f"got {json.dumps(compile)}; expected true, false, reduce-overhead or max-autotune"
    assert str(caught.value) == f"s.yaml:3:7: execution.compile: {said}"


@pytest.mark.parametrize("value", ["ftp://host/secret", "https://host/a b", "", [], "an 'open quote", 3])
def test_what_nobody_can_be_notified_by_is_refused_without_its_secret(value: Any) -> None:
    where = ("s.yaml", 3, 7)
    node = Node({"notify": Node(value, where)}, where)
    with pytest.raises(
        InputError, match="s.yaml:3:7: execution.notify: got .*expected a URL of http or https"
    ) as caught:
        validate(Execution, node, "execution.")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("curl -d x https://me:pw@hooks.example:8/T/B?k=v now", "curl -d x https://hooks.example:8/... now"),
        ('"https://host?k=v"', '"https://host/..."'),
        ("http://host/ and a/b", "http://host/ and a/b"),
    ],
)
def test_the_hosts_of_urls_alone_are_shown(text: str, shown: str) -> None:
    assert hosts_only(text) == shown.replace("host/ and", "host and")


def test_a_worker_is_told_neither_trackers_nor_whom_to_notify() -> None:
    execution = Execution(track=["wandb"], notify="https://host/secret", threads=2)
    assert json.loads(execution.to_json()) == {"threads": 2}
    assert execution.record().keys().isdisjoint({"track", "notify"})
