import csv
import subprocess
import sys
from pathlib import Path

import pytest

from deit_ablate import files
from deit_ablate.report import write
from deit_ablate.report.figures import style
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


def test_what_a_sweep_has_no_longer_is_removed(study):
    """A grid of two axes that is edited to one; what others left there stays."""
    rows = {f"a={a},b={b}": {0: 80.0 + a + b} for a in (1, 2) for b in (1, 2)}
    made = study(rows, kind="grid", axes=[("a", ["1", "2"]), ("b", ["1", "2"])])
    folder = made.root / "study"
    with style.width("page"):
        write.write_figures(made.summary(), ("png", "svg"))
    write.write_report(made.summary())
    (folder / "figures" / "token_similarity.png").write_bytes(b"of `tokens`")
    (folder / "disagreement.csv").write_bytes(b"of `disagree`")
    made.store.sweeps.save_plan("study", made.store.sweeps.plan("study") | {"axes": []})
    before = {path.name for path in folder.rglob("*.*")}
    write.write_report(made.summary())
    gone = {f"pivot.{suffix}" for suffix in write.RENDERERS} | {"pivot.png", "pivot-page.png", "pivot-page.svg"}
    assert before - {path.name for path in folder.rglob("*.*")} == gone


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
