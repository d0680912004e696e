"""YAML with positions: 1.2 scalars, places, and files that mean harm."""

from __future__ import annotations

from pathlib import Path

import pytest

from deit_ablate.errors import InputError
from deit_ablate.sweep.yaml import assignment, expand_dotted, load, merge, parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("5e-4", 5e-4),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-2", -2),
        ("0o17", 15),
        ("0x1F", 31),
        ("no", "no"),
        ("on", "on"),
        ("yes", "yes"),
        ("true", True),
        ("null", None),
        ("~", None),
        ("2001-01-01", "2001-01-01"),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("'5'", "5"),
        ('"true"', "true"),
        ("9" * 80, "9" * 80),
    ],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    found = parse(f"key: {text}", "x.yaml").plain()["key"]
    assert found == value
    assert type(found) is type(value)


def test_every_value_knows_its_place() -> None:
    node = parse("a:\n  b: [1, 2]\n  c:\n    d: x\n", "x.yaml")
    assert node.locate(("a", "b", 1)) == ("x.yaml", 2, 10)
    assert node.locate(("a", "c", "d")) == ("x.yaml", 4, 8)
    assert node.locate(("a", "c", "d"), at_key=True) == ("x.yaml", 4, 5)
    assert node.locate(("a", "nothing", "here")) == ("x.yaml", 2, 3), "the deepest place that exists"


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("a: 1\na: 2", ":2:1", "'a' is given twice (first on line 1)"),
        ("a: !!python/object:os.system x", ":1:4", "YAML tag"),
        ("a: [1, 2", ":2:1", "not valid YAML"),
        ("a: *b", ":1:4", "undefined alias"),
        ("a: 1\n---\nb: 2", ":2:1", "another document"),
        ("? [a]\n: 1", ":1:3", "a key that is not a plain scalar"),
        ("[" * 60 + "]" * 60, ":1:42", "nested too deeply"),
        ("a: \x07", "", "not valid YAML"),
    ],
)
def test_what_is_wrong_is_named_with_its_place(text: str, place: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text, "x.yaml")
    assert f"x.yaml{place}" in str(caught.value)
    assert says in str(caught.value)


def test_an_anchor_bomb_is_refused_and_a_plain_anchor_is_not() -> None:
    assert parse("a: &x {k: 1}\nb: *x", "x.yaml").plain() == {"a": {"k": 1}, "b": {"k": 1}}
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 10)
    )
    with pytest.raises(InputError, match="once aliases are expanded"):
        parse(bomb, "x.yaml")


def test_a_top_level_key_that_begins_with_x_holds_anchors_and_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("x-short: &short {schedule.epochs: 3}\nvariants: {a: {<<: *short, seed: 1}}\n")
    assert load(path).plain() == {"variants": {"a": {"schedule.epochs": 3, "seed": 1}}}


def test_a_merge_key_adds_what_a_mapping_has_not_itself() -> None:
    node = parse("a: &a {k: 1, l: 2}\nb: &b {l: 3, m: 4}\nc:\n  m: 5\n  <<: [*a, *b]\nd: {<<: *a}", "x.yaml")
    assert node.plain()["c"] == {"m": 5, "k": 1, "l": 2}
    assert node.plain()["d"] == {"k": 1, "l": 2}
    assert node.plain()["a"] == {"k": 1, "l": 2}, "what is merged stays as it is"
    assert node.locate(("c", "l")) == ("x.yaml", 1, 17)
    assert node.locate(("c", "l"), at_key=True) == ("x.yaml", 1, 14)
    assert parse('{"<<": 3}', "x.yaml").plain() == {"<<": 3}, "in quotes it is a key like others"
    for wrong, place in (("{<<: 3}", ":1:6"), ("a: &a {}\nb: {<<: *a, <<: *a}", ":2:13"), ("{<<: [{}, 3]}", ":1:11")):
        with pytest.raises(InputError) as caught:
            parse(wrong, "x.yaml")
        assert f"x.yaml{place}: <<: " in str(caught.value)


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    (tmp_path / "optimizers.yaml").write_text("a: 1")
    with pytest.raises(InputError, match=r"no such file; did you mean 'optimizers.yaml'\?"):
        load(tmp_path / "optimizer.yaml")
    with pytest.raises(InputError, match="is a folder"):
        load(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"a: 1\nb: \xe9\n")
    with pytest.raises(InputError, match=r"latin.yaml:2:1: not UTF-8"):
        load(tmp_path / "latin.yaml")
    (tmp_path / "large.yaml").write_bytes(b"#" * (4 * 1024 * 1024 + 1))
    with pytest.raises(InputError, match="too large"):
        load(tmp_path / "large.yaml")
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    with pytest.raises(InputError, match="the file is empty"):
        load(tmp_path / "empty.yaml")
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert load(tmp_path / "bom.yaml").plain() == {"a": 1}


def test_dotted_and_nested_keys_are_one() -> None:
    node = expand_dotted(
        parse("optimizer.base_lr: 1\noptimizer: {weight_decay: 2}\noptimizer.options.betas: [0.9, 0.95]", "x.yaml")
    )
    assert node.plain() == {"optimizer": {"base_lr": 1, "weight_decay": 2, "options": {"betas": [0.9, 0.95]}}}
    with pytest.raises(InputError, match=r"x.yaml:2:13: optimizer.base_lr: the key 'optimizer.base_lr' is given twice"):
        expand_dotted(parse("optimizer.base_lr: 1\noptimizer: {base_lr: 2}", "x.yaml"))


def test_merging_keeps_the_place_of_the_upper_layer() -> None:
    lower, upper = parse("a: {b: 1, c: 2}", "low.yaml"), parse("a: {c: 3}", "high.yaml")
    both = merge(lower, upper)
    assert both.plain() == {"a": {"b": 1, "c": 3}}
    assert both.locate(("a", "b"))[0] == "low.yaml"
    assert both.locate(("a", "c"))[0] == "high.yaml"


def test_assignments_from_the_command_line() -> None:
    assert assignment("optimizer.base_lr=5e-4").plain() == {"optimizer": {"base_lr": 5e-4}}
    assert assignment("augment.auto_augment=null").plain() == {"augment": {"auto_augment": None}}
    assert assignment("model.options={depth: 2}").plain() == {"model": {"options": {"depth": 2}}}
    for wrong in ("optimizer.base_lr", "=1", "a..b=1"):
        with pytest.raises(InputError, match="--set"):
            assignment(wrong)
