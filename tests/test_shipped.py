"""What is shipped: a wheel with the sweeps inside the package."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from support import Command

ROOT = Path(__file__).parent.parent


def test_the_wheel_carries_the_sweeps_inside_the_package(tmp_path: Path) -> None:
    built = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--wheel-dir",
            str(tmp_path),
            str(ROOT),
        ],
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr
    wheel = next(tmp_path.glob("*.whl"))
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].split("-")[0] for name in names} == {"deit_ablate"}, "no other top-level modules"
    for wanted in (
        "shipped/sweeps/optimizers.yaml",
        "shipped/sweeps/profiles/digits.yaml",
        "shipped/analysis/sweep_table.py",
        "train/data/digits.npz",
        "train/data/glyphs.npz",
        "names.json",
        "report/html/page.css",
        "report/html/page.js",
        "report/html/page.html.j2",
    ):
        assert f"deit_ablate/{wanted}" in names
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(tmp_path / "site"),
            str(wheel),
        ],
        check=True,
    )
    away = Command(tmp_path)
    code = "import sys; sys.path.insert(0, 'site'); sys.argv = ['deit-ablate', *sys.argv[1:]]\n"
    code += "from deit_ablate.__main__ import main; main()"
    for arguments in (["init", "mine"], ["plan", "mine/sweeps/optimizers.yaml"], ["plan", "distillation"]):
        done = subprocess.run(
            [sys.executable, "-I", "-c", code, *arguments], cwd=away.folder, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    assert "missing" in done.stdout
