"""This package as a wheel: whole, with true hashes, and with nothing that tells where it was installed."""

from __future__ import annotations

import base64
import csv
import hashlib
import io
import zipfile
from pathlib import Path

from deit_ablate import files
from deit_ablate.store.wheel import requirements, write_wheel

ROOT = Path(__file__).parents[2]


def test_the_wheel_is_the_package_with_true_hashes(tmp_path: Path) -> None:
    path = write_wheel(tmp_path)
    with zipfile.ZipFile(path) as wheel:
        content = {name: wheel.read(name) for name in wheel.namelist()}
    (info,) = {name.partition("/")[0] for name in content if ".dist-info/" in name}
    listed = list(csv.reader(io.StringIO(content[f"{info}/RECORD"].decode())))
    assert [name for name, *_ in listed] == list(content)
    for name, digest, size in listed[:-1]:
        own = base64.urlsafe_b64encode(hashlib.sha256(content[name]).digest()).rstrip(b"=").decode()
        assert (digest, int(size)) == (f"sha256={own}", len(content[name])), name
    package = {name for name in content if name.startswith("deit_ablate/") and "/shipped/" not in name}
    source = (ROOT / "deit_ablate").rglob("*")
    assert package == {
        path.relative_to(ROOT).as_posix() for path in source if path.is_file() and "__pycache__" not in path.parts
    }
    sweep = "sweeps/profiles/digits.yaml"
    assert content[f"deit_ablate/shipped/{sweep}"] == (files.shipped("sweeps").parent / sweep).read_bytes()
    assert b"deit-ablate = deit_ablate.__main__:main" in content[f"{info}/entry_points.txt"]
    assert {name.partition("/")[2] for name in content if name.startswith(info)} >= {"METADATA", "WHEEL", "RECORD"}
    assert not any("direct_url" in name or name.endswith(".pth") for name in content)
    first = path.read_bytes()
    assert write_wheel(tmp_path).read_bytes() == first


def test_what_the_package_needs_is_known_with_versions() -> None:
    found = requirements()
    assert {"torch", "timm", "pydantic", "typer"} <= found.keys()
    assert all(found.values())
    assert not {"pytest", "mypy", "cmaes"} & found.keys(), "extras are nobody's need"
