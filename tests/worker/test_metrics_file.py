"""Files of metrics as programs leave them: of every form, odd, damaged, hostile, written anew while they are read."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deit_ablate.execution import MetricsFile
from deit_ablate.worker import reported
from deit_ablate.worker.reported import BadMetrics, Reported, predictions


def reading(folder: Path, file: str = "{run}/m.csv", **more: Any) -> Reported:
    return Reported(MetricsFile(file=file, **{"primary": "top1", **more}), folder, folder / "log.txt")


SOUND = {
    "a byte order mark": ("m.csv", b"\xef\xbb\xbftop1,loss\n5,1\n"),
    "a byte order mark, quoted": ("m.csv", b'\xef\xbb\xbf"top1","loss"\n"5","1"\n'),
    "lines of Windows": ("m.csv", b"top1,loss\r\n5,1\r\n"),
    "a header with blanks": ("m.csv", b"loss, top1\n1, 5\n"),
    "a header again and again": ("m.csv", b"top1,loss\n4,1\ntop1,loss\n5,1\n"),
    "no line break at the end": ("m.csv", b"top1\n4\n5"),
    "lines that are none of a table": ("m.csv", b"top1,loss\n5,1\n\n,\n" + b"x" * 200_000 + b"\n"),
    "10,000 columns": ("m.csv", (",".join(f"c{i}" for i in range(9_998)) + ",top1\n" + "1," * 9_998 + "5\n").encode()),
    "bytes that are no text": ("m.csv", b"name,top1\n\xff\xfe\x00,5\n"),
    "lines of JSON, some broken": ("m.jsonl", b'{"top1": 4}\nwarning: disk\n{"top1": 5}\n{"top1": \n[1]\n7\n'),
    "nested too deeply": ("m.jsonl", b'{"top1": 5}\n' + b'{"a":' * 50_000 + b"\n" + b"[" * 100_000 + b"\n"),
    "numbers that are too large": ("m.jsonl", b'{"top1": 5, "a": 1' + b"0" * 400 + b"}\n{" + b"9" * 5000 + b"}\n"),
    "a line without end": ("m.jsonl", b'{"top1": 5}\n{"a": "' + b"x" * (reported.MOST_LINE + (3 << 20)) + b'"}\n'),
    "JSON with a byte order mark": ("m.json", b'\xef\xbb\xbf{"top1": 5}'),
}


@pytest.mark.parametrize("name", SOUND)
def test_metrics_are_found_in_files_of_every_form(tmp_path: Path, name: str) -> None:
    file, content = SOUND[name]
    (tmp_path / file).write_bytes(content)
    found = reading(tmp_path, f"{{run}}/{file}")
    found.new()
    found.end()
    assert found.primary() == 5


def test_values_that_are_no_numbers_are_said_to_be_none(tmp_path: Path) -> None:
    values = '{"top1": NaN, "a": Infinity, "b": "-inf", "c": 1e999, "d": true, "e": null, "f": "x", "g": [1], "h": 1e5}'
    (tmp_path / "m.jsonl").write_text(values + "\n")
    found = reading(tmp_path, "{run}/m.jsonl")
    found.end()
    assert found.final == {"top1": None, "a": None, "b": None, "c": None, "h": 1e5}
    assert found.primary() is None


def test_names_are_kept_as_they_are_but_can_be_written(tmp_path: Path) -> None:
    names = ["top1", "loss", "state", "a b", "|$`<script>", "line\nbreak", "été", "\ud800", "x" * 1000, "schema"]
    (tmp_path / "m.jsonl").write_text(json.dumps(dict.fromkeys(names, 1)) + "\n")
    found = reading(tmp_path, "{run}/m.jsonl")
    found.end()
    assert set(found.final) == {*names, "?"} - {"\ud800", "x" * 1000}
    json.dumps(found.final, ensure_ascii=False).encode()


def special(path: Path, kind: str) -> None:
    if kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a folder":
        path.mkdir()
    elif kind == "a link to itself":
        path.symlink_to(path)
    elif kind == "a device":
        path.symlink_to("/dev/zero")


@pytest.mark.parametrize("kind", ["nothing", "a FIFO", "a folder", "a link to itself", "a device"])
@pytest.mark.parametrize("form", ["csv", "json", "jsonl"])
def test_what_is_no_file_is_said_to_be_none(tmp_path: Path, kind: str, form: str) -> None:
    special(tmp_path / f"m.{form}", kind)
    found = reading(tmp_path, f"{{run}}/m.{form}")
    assert found.new() == []
    with pytest.raises(BadMetrics, match="no such file"):
        found.end()


def test_several_files_of_a_pattern_are_named(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("top1\n5\n")
    with pytest.raises(BadMetrics, match=r"several files \(a.csv, b.csv\)"):
        reading(tmp_path, "{run}/*.csv").end()


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\x00\xff", b"[" * 100_000, b'{"a": ' + b"9" * 5000 + b"}"])
def test_a_file_that_is_no_json_object_is_refused_in_a_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.json").write_bytes(content)
    with pytest.raises(BadMetrics, match=r"\{run\}/m.json is no JSON"):
        reading(tmp_path, "{run}/m.json").end()


GROWING: dict[str, list[tuple[str, list[float]]]] = {
    # what the file holds, and the values that are new by then (None: all of it begins again)
    "line by line": [("top1\n", []), ("top1\n1\n", [1]), ("top1\n1\n2", []), ("top1\n1\n25\n", [25])],
    "whole, each time a line more": [("top1\n1\n", [1]), ("top1\n1\n2\n", [2]), ("top1\n1\n2\n3\n", [3])],
    "cut short": [("top1\n1\n2\n", [1, 2]), ("top1\n", []), ("top1\n7\n", [7])],
    "another, which is longer": [("top1\n1\n", [1]), ("loss,top1\n3,4\n5,6\n", [4, 6])],
}


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("name", GROWING)
def test_a_file_is_read_as_it_grows_and_as_it_is_written_anew(tmp_path: Path, name: str, replaced: bool) -> None:
    found, path = reading(tmp_path), tmp_path / "m.csv"
    for content, values in GROWING[name]:
        if replaced:
            (tmp_path / "new").write_text(content)
            os.replace(tmp_path / "new", path)
        else:
            path.write_text(content)
        assert [line["top1"] for line in found.new()] == values
    assert found.end() == []
    assert found.lines == len(content.splitlines()) - 1


def test_a_text_is_cut_at_no_character(tmp_path: Path) -> None:
    found, whole = reading(tmp_path, "{run}/m.jsonl"), '{"précision": 1, "top1": 5}\n'.encode()
    for end in range(len(whole) + 1):
        (tmp_path / "m.jsonl").write_bytes(whole[:end])
        found.new()
    assert found.final == {"précision": 1, "top1": 5}


def test_a_progress_bar_is_read_by_its_parts(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_bytes(b"\r 10% top1=3\r 50% top1=4\r100% top1=5\n")
    found = reading(tmp_path, "{log}", pattern=r"top1=(?P<top1>\S+)")
    assert [line["top1"] for line in found.new()] == [5]


def saved(**arrays: Any) -> bytes:
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def bomb() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("targets.npy", "w") as entry:
        for _ in range(300):
            entry.write(bytes(1 << 20))
    return content.getvalue()


CLASSES = np.arange(4)
ODD: dict[str, tuple[Callable[[], bytes], str]] = {
    "objects, which would be code": (
        lambda: saved(targets=np.array([{}] * 4, dtype=object), predictions=CLASSES),
        "no list",
    ),
    "no archive": (lambda: b"\x00" * 100, "cannot be read"),
    "empty": (lambda: b"", "cannot be read"),
    "cut short": (lambda: saved(targets=CLASSES, predictions=CLASSES)[:-50], "cannot be read"),
    "a bomb": (bomb, "when unpacked"),
    "one array missing": (lambda: saved(targets=CLASSES), "has no predictions"),
    "several dimensions": (lambda: saved(targets=CLASSES, predictions=np.zeros((4, 10))), "no list of numbers"),
    "of other images": (lambda: saved(targets=CLASSES, predictions=CLASSES[:3]), "not classes"),
    "no whole numbers": (lambda: saved(targets=CLASSES, predictions=CLASSES / 2), "not classes"),
    "no classes": (lambda: saved(targets=CLASSES, predictions=CLASSES - 9), "not classes"),
    "texts": (lambda: saved(targets=np.array(["a"] * 4), predictions=CLASSES), "no list of numbers"),
    "of no image": (lambda: saved(targets=CLASSES[:0], predictions=CLASSES[:0]), "not classes"),
}


TOLD = MetricsFile(file="{run}/m.csv", primary="top1", predictions="{run}/p.npz")


@pytest.mark.parametrize("name", ODD)
def test_predictions_that_are_none_are_refused_in_a_line(tmp_path: Path, name: str) -> None:
    make, words = ODD[name]
    (tmp_path / "p.npz").write_bytes(make())
    with pytest.raises(BadMetrics, match=words):
        predictions(TOLD, tmp_path)


@pytest.mark.parametrize("kind", ["nothing", "a FIFO", "a folder", "a link to itself", "a device"])
def test_predictions_that_are_no_file_are_refused(tmp_path: Path, kind: str) -> None:
    special(tmp_path / "p.npz", kind)
    with pytest.raises(BadMetrics, match="p.npz"):
        predictions(TOLD, tmp_path)


def test_predictions_are_taken_whatever_stands_beside_them(tmp_path: Path) -> None:
    logits = np.zeros((4, 10), dtype=np.float32)
    (tmp_path / "p.npz").write_bytes(saved(targets=CLASSES, predictions=CLASSES.astype(np.uint8), logits=logits))
    kept = predictions(TOLD, tmp_path)
    assert sorted(kept) == ["test_pred_class", "test_targets"]
    assert np.array_equal(kept["test_pred_class"], CLASSES)
