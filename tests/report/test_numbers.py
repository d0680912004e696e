"""Files of numbers that other programs wrote."""

from __future__ import annotations

from pathlib import Path

import pytest

from deit_ablate.errors import InputError
from deit_ablate.report.numbers import read_numbers


@pytest.mark.parametrize(
    ("name", "text", "column"),
    [
        ("a.txt", "1.5\n\n# a comment\n 2e0 # another\n-.5\n", None),
        ("a.out", "1.5\r\n+2.\r\n-0.5", None),
        ("a.txt", "1.5\n2\n-0.5\n", "loss"),
        ("a.csv", "1.5\n2\n-0.5\n", "loss"),
        ("a.csv", "loss\n1.5\n2\n-0.5\n", None),
        ("a.csv", "\ufeffseed,loss\n0,1.5\n1,2\n\n2, -0.5 \n", "loss"),
        ("a.csv", '"seed","a ""loss"", in nats"\n0,1.5\n1,2\n2,-0.5\n', 'a "loss", in nats'),
        ("a.tsv", "seed\tloss\n0\t1.5\n1\t2\n2\t-0.5\n", "loss"),
        ("a.json", "[1.5, 2, -0.5]", None),
        ("a.json", '["1.5", "2", "-0.5"]', None),
        ("a.json", '[{"seed": 0, "loss": 1.5}, {"loss": 2}, {"loss": -0.5}]', "loss"),
        ("a.json", '{"seed": [0, 1, 2], "loss": [1.5, 2, -0.5]}', "loss"),
        ("a.json", '{"loss": [1.5, 2, -0.5]}', None),
        ("a.jsonl", '{"loss": 1.5}\n{"loss": 2}\n{"loss": -0.5}\n', "loss"),
        ("a.jsonl", "1.5\n2\n-0.5\n", None),
    ],
)
def test_every_form(tmp_path: Path, name: str, text: str, column: str | None) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8", newline="")
    assert read_numbers(tmp_path / name, column) == [1.5, 2, -0.5]


@pytest.mark.parametrize(
    ("name", "text", "column", "says"),
    [
        ("a.txt", "", None, "a.txt: no numbers; expected a number of each of several runs, two at least"),
        ("a.txt", "1\n", None, "a.txt: 1 number; expected"),
        ("a.txt", "1\nnan\n", None, "a.txt:2:1: got 'nan'; expected a number, of 1e+50 at most"),
        ("a.txt", "1\n-inf\n", None, "a.txt:2:1: got '-inf'"),
        ("a.txt", "1\n1e999\n", None, "a.txt:2:1: got '1e999'"),
        ("a.txt", "1\n-1e51\n", None, "a.txt:2:1: got '-1e51'"),
        ("a.txt", "1\n1_000\n", None, "a.txt:2:1: got '1_000'"),
        ("a.txt", "1 2\n", None, "a.txt:1:1: got '1 2'"),
        ("a.csv", "a,b\n1,2\n", None, "a.csv: 2 columns; expected --column, one of a, b"),
        ("a.csv", "a,loss\n1,2\n", "los", "a.csv:1:1: no column 'los'; did you mean 'loss'?; expected one of a, loss"),
        ("a.csv", "a,a\n1,2\n", "a", "a.csv:1:1: 'a' twice"),
        ("a.csv", "a,b\n1,2\n3\n4,5\n", "b", "a.csv:3:1: got nothing; expected a number, of 1e+50 at most"),
        ("a.csv", "a\n1\nx\n", None, "a.csv:3:1: got 'x'"),
        ("a.csv", "a,b\n", "b", "a.csv: no numbers"),
        ("a.json", "[1, 2", None, "a.json: damaged: not JSON, or cut short"),
        ("a.json", "3", None, "a.json: no list of numbers"),
        ("a.json", "{}", None, "a.json: no list of numbers"),
        ("a.json", "[1, NaN]", None, "a.json: got nan"),
        ("a.json", "[1, true]", None, "a.json: got True"),
        ("a.json", "[1, null]", None, "a.json: got nothing"),
        ("a.json", f"[1, 1{'0' * 400}]", None, "a.json: got 1000"),
        ("a.json", '[{"a": 1}, 2]', "a", "a.json: got 2; expected an object, as the others are"),
        ("a.json", '[{"a": 1}, {"b": 2}]', "a", "a.json: no column 'a'"),
        ("a.jsonl", '{"a": 1}\n{"a": \n', "a", "a.jsonl:2:1: damaged: not JSON"),
    ],
)
def test_what_is_wrong_is_told_at_its_line(tmp_path: Path, name: str, text: str, column: str | None, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError) as error:
        read_numbers(tmp_path / name, column)
    told = str(error.value).replace(f"{tmp_path}/", "")
    assert told.startswith(says), told
    assert "\n" not in told


def test_what_is_no_file_of_text(tmp_path: Path) -> None:
    for path, says in ((tmp_path / "none.txt", "no such file"), (tmp_path, "no regular file")):
        with pytest.raises(InputError, match=says):
            read_numbers(path)
    (tmp_path / "a.txt").write_bytes(b"1\n\xff\n")
    with pytest.raises(InputError, match="not UTF-8"):
        read_numbers(tmp_path / "a.txt")
