import csv
import subprocess
import sys
from pathlib import Path

import pytest

from deit_ablate import shipped
from deit_ablate.report import write
from deit_ablate.report.frame import NoSweep

ANALYSES = sorted(shipped.folder("analysis").glob("*.py"))


def run(*arguments):
    return subprocess.run(
        [sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=120, check=False
    )


def test_a_report_is_tables_and_figures(optimizers):
    paths = write.write_report(optimizers.root, "optimizers")
    folder = optimizers.root / "optimizers"
    assert paths == [
        folder / name for name in ("table.md", "table.csv", "table.tex", "figures/top1.png", "figures/curves.png")
    ]
    before = [path.read_bytes() for path in paths]
    assert write.write_report(optimizers.root, "optimizers") == paths
    assert [path.read_bytes() for path in paths] == before
    assert not list(folder.rglob(".tmp-*"))


def test_the_file_in_analysis_decides(optimizers, tmp_path, monkeypatch):
    source = (shipped.folder("analysis") / "sweep_table.py").read_text()
    (tmp_path / "sweep_table.py").write_text(source.replace('"curves":', '"learning":'))
    monkeypatch.setattr(shipped, "folder", lambda name: tmp_path)
    assert [path.name for path in write.write_figures(optimizers.root, "optimizers")] == ["top1.png", "learning.png"]


def test_errors(tmp_path):
    with pytest.raises(NoSweep):
        write.write_report(tmp_path, "nowhere")
    with pytest.raises(FileNotFoundError, match="no analysis 'nothing'"):
        write.analysis("nothing")


def test_there_is_an_analysis():
    assert "sweep_table" in [path.stem for path in ANALYSES]


@pytest.mark.parametrize("path", ANALYSES, ids=lambda path: path.stem)
def test_every_analysis_runs(optimizers, path):
    done = run(path, "optimizers", "--results", optimizers.root)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("# ")
    csv_form = run(path, "optimizers", "--results", optimizers.root, "--format", "csv")
    assert len(list(csv.reader(csv_form.stdout.splitlines()))) == 4
    assert r"\toprule" in run(path, "optimizers", "--results", optimizers.root, "--format", "tex").stdout


def test_a_table_needs_neither_torch_nor_matplotlib(optimizers):
    code = (
        "import sys; from deit_ablate.report import write; write.write_table(sys.argv[1], 'optimizers'); "
        "assert not {'torch', 'timm', 'matplotlib', 'scipy.stats'} & sys.modules.keys(); "
        "write.write_figures(sys.argv[1], 'optimizers'); assert not {'torch', 'matplotlib.pyplot'} & sys.modules.keys()"
    )
    done = run("-c", code, Path(optimizers.root))
    assert done.returncode == 0, done.stderr
