import csv
import subprocess
import sys
from pathlib import Path

import pytest

from deit_ablate import files
from deit_ablate.report import write
from deit_ablate.report.frame import NoSweep
from deit_ablate.report.summary import summarize
from deit_ablate.store import Store


def run(*arguments):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )


def test_a_report_is_tables_and_figures(optimizers):
    paths = write.write_report(optimizers.summary())
    folder = optimizers.root / "optimizers"
    figures = [f"figures/{name}.png" for name in ("effects", "top1", "curves")]
    assert paths == [folder / name for name in ("table.md", "table.csv", "table.tex", "table.html", *figures)]
    before = [path.read_bytes() for path in paths]
    assert write.write_report(optimizers.summary()) == paths
    assert [path.read_bytes() for path in paths] == before
    assert not list(folder.rglob(".tmp-*"))


def test_the_file_in_analysis_decides(optimizers, tmp_path, monkeypatch):
    source = (files.shipped("analysis") / "sweep_table.py").read_text()
    (tmp_path / "sweep_table.py").write_text(source.replace('"curves":', '"learning":'))
    monkeypatch.setattr(files, "shipped", lambda name: tmp_path)
    drawn = write.write_figures(optimizers.summary())
    assert [path.name for path in drawn] == ["effects.png", "top1.png", "learning.png"]


def test_errors(tmp_path):
    with pytest.raises(NoSweep):
        summarize(Store(tmp_path), "nowhere")
    with pytest.raises(FileNotFoundError, match="no analysis 'nothing'"):
        write.analysis("nothing")


def test_the_table_of_any_sweep_is_a_script(optimizers):
    script = files.shipped("analysis") / "sweep_table.py"
    done = run(script, "optimizers", "--results", optimizers.root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# ")
    csv_form = run(script, "optimizers", "--results", optimizers.root, "--format", "csv")
    assert len(list(csv.reader(csv_form.stdout.splitlines()))) == 4


def test_a_table_needs_neither_torch_nor_matplotlib(optimizers):
    code = (
        "import sys; from deit_ablate.report import write; from deit_ablate.report.summary import summarize; "
        "from deit_ablate.store import Store; summary = summarize(Store(sys.argv[1]), 'optimizers'); "
        "write.write_tables(summary); "
        "assert not {'torch', 'timm', 'matplotlib'} & sys.modules.keys(); "
        "write.write_figures(summary); assert not {'torch', 'matplotlib.pyplot'} & sys.modules.keys()"
    )
    done = run("-c", code, Path(optimizers.root))
    assert done.returncode == 0, done.stderr
