import csv
import io
import re
import shutil
import subprocess

import pandas as pd
import pytest

from deit_ablate.report.tables.render import (
    RENDERERS,
    escape_csv,
    escape_latex,
    escape_markdown,
    plain,
    to_csv,
    to_latex,
    to_markdown,
)
from deit_ablate.report.tables.table import Column, Table, sweep_table
from deit_ablate.report.write import paper_analysis

HOSTILE = [
    "a|b",
    "`x` <script>alert(1)</script>",
    "=1+1",
    "50% & $x_1^2$ #{~}\\input{/etc/passwd}",
    "two\nlines\x1b[31mred\x07",
    "[l](javascript:x)",
    "\ud800 中 é α",
]


def one(text: str, **more) -> Table:
    return Table("t", text, pd.DataFrame({"name": [text]}), (Column("name", lambda row: row["name"], **more),), (text,))


def test_markdown_of_the_example(optimizers):
    lines = to_markdown(sweep_table(optimizers.summary())).splitlines()
    assert lines[:7] == [
        "# Optimizer ablation, profile digits",
        "",
        "| variant          | differs in                                                      | test top-1 (%) |   difference | verdict                                                              | time (s) | CPU-hours |  seeds |",
        "| ---------------- | --------------------------------------------------------------- | -------------: | -----------: | -------------------------------------------------------------------- | -------: | --------: | -----: |",
        "| adamw (baseline) | –                                                               |   98.00 ± 2.48 |            – | –                                                                    |     30.0 |     0.025 |      3 |",
        "| sgd              | optimizer: adamw → sgd; base_lr 0.03 → 0.8; momentum none → 0.9 | 96.00 ± 12.71* | −2.00 ± 3.44 | undecided: 1 of 3 diverged (0.8–91%); 2 runs are too few; add a seed |     30.0 |     0.025 | 2 of 3 |",
        "| lamb             | optimizer: adamw → lamb; base_lr 0.03 → 0.32                    |   98.75 ± 9.53 | +0.75 ± 3.18 | 2 runs: too few for a verdict                                        |     30.0 |     0.017 | 2 of 3 |",
    ]
    assert "- \\* Mean over the runs that converged. sgd: 1 of 3 diverged (seed 2: non-finite loss)." in lines


def test_csv_of_the_example(optimizers):
    rows = list(csv.DictReader(io.StringIO(to_csv(sweep_table(optimizers.summary())))))
    assert [row["variant"] for row in rows] == ["adamw", "sgd", "lamb"]
    assert [row["baseline"] for row in rows] == ["true", "false", "false"]
    assert [float(row["top1_mean"]) for row in rows] == [98, 96, 98.75]
    assert [row["difference"] for row in rows] == ["", "-2.0", "0.75"]


def test_latex_of_the_example(optimizers):
    text = to_latex(sweep_table(optimizers.summary()))
    assert text.splitlines()[:10] == [
        r"% \usepackage{booktabs,graphicx}",
        r"\begin{table}",
        r"\centering",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{4pt}",
        r"\caption{Optimizer ablation, profile digits}",
        r"\label{tab:optimizers}",
        r"\sbox0{\begin{tabular}{@{}lp{10.5em}rrp{11.3em}rrr@{}}",
        r"\toprule",
        r"variant & \raggedright differs in & test top-1 (\%) & difference & \raggedright verdict & "
        r"\begin{tabular}[b]{@{}r@{}}time \\ (s)\end{tabular} & \begin{tabular}[b]{@{}r@{}}CPU- \\ hours\end{tabular} & seeds \\",
    ]
    assert (
        r"lamb & \raggedright optimizer: adamw $\rightarrow$ lamb; base\_\allowbreak{}lr 0.03 $\rightarrow$ 0.32 & 98.75 $\pm$ 9.53 & +0.75 $\pm$ 3.18 & "
        r"\raggedright 2 runs: too few for a verdict & 30.0 & 0.017 & 2 of 3 \\" in text
    )


@pytest.mark.parametrize("form", RENDERERS)
def test_same_records_same_bytes(optimizers, form):
    first, second = (RENDERERS[form](sweep_table(optimizers.summary())).encode() for _ in range(2))
    assert first == second


def test_plain_text_does_nothing_to_a_terminal():
    assert (
        plain("a\x1b[31mred\x1b[0m\x07 \x1b]0;title\x07b\x9b2Jc\u202ed\r\ne\tf\x00\ud800")
        == "ared bcd  e f\N{REPLACEMENT CHARACTER}"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a|b", r"a\|b"),
        ("`x`", r"\`x\`"),
        ("<b>&", "&lt;b&gt;&amp;"),
        ("a\nb", "a b"),
        ("*x* 9*", r"\*x\* 9*"),
        ("drop_path _x_", r"drop_path \_x\_"),
        ("[a](b)", r"\[a\](b)"),
        ("\\ $x$ # ~", r"\\ \$x\$ \# \~"),
    ],
)
def test_markdown_escapes(text, expected):
    assert escape_markdown(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("=1+1", "'=1+1"),
        ("+cmd|x", "'+cmd|x"),
        ("-x", "'-x"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "' =1"),
        (" =1", "' =1"),
        ("\r=1", "' =1"),
        ("-1.5", "-1.5"),
        ("+3e-4", "+3e-4"),
        ("-1+1", "'-1+1"),
        ("adamw", "adamw"),
        ("-", "'-"),
        ("−1.50", "−1.50"),
        ("\x07=1", "'=1"),
    ],
)
def test_csv_formulas_are_defused(text, expected):
    assert escape_csv(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("50% & #1", r"50\% \& \#1"),
        ("a_b^c~d", r"a\_b\textasciicircum{}c\textasciitilde{}d"),
        ("{$x$}", r"\{\$x\$\}"),
        ("\\input{x}", r"\textbackslash{}input\{x\}"),
        ("a--b---c", r"a-{}-b-{}-{}-c"),
        ("[x] <y> |", r"{[}x{]} \textless{}y\textgreater{} \textbar{}"),
        ("± → – −1", r"$\pm$ $\rightarrow$ \textendash{} $-$1"),
        ("1/√n", r"1/$\surd$n"),
        ("α Ω naïve Å", r"$\alpha$ $\Omega$ na\"{i}ve \r{A}"),
        ("中", "U+4E2D"),
        ("it's ``q''", r"it'{}s \`{}\`{}q'{}'{}"),
    ],
)
def test_latex_escapes(text, expected):
    assert escape_latex(text) == expected


def test_long_names_may_break_in_latex():
    assert r"augment.\allowbreak{}mixup=0.8,\allowbreak{}augment.\allowbreak{}cutmix=1" in to_latex(
        one("augment.mixup=0.8,augment.cutmix=1", long=True)
    )
    assert r"\={o}/\allowbreak{}x" in to_latex(one("ō/x", long=True))


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_names_stay_in_their_cell(text):
    markdown = to_markdown(one(text)).splitlines()
    assert len(markdown) == 7
    assert len(markdown[4].replace("\\|", "").split("|")) == 3
    assert "<script" not in markdown[4]
    rows = list(csv.reader(io.StringIO(to_csv(one(text)))))
    assert len(rows) == 2
    assert not rows[1][0].startswith(("=", "+", "-", "@"))
    for form, render in RENDERERS.items():
        output = render(one(text))
        assert "\x1b" not in output, form
        output.encode()


def test_latex_headers_are_no_wider_than_their_columns_and_stand_above_ticks():
    def head(header, *cells, **more):
        column = Column(header, lambda row: row["cell"], **more)
        table = Table("t", "t", pd.DataFrame({"cell": cells}), (column,), ())
        return to_latex(table).splitlines()[9]

    assert head("top-1 ours", "97.31 ± 0.42") == r"top-1 ours \\"
    assert head("top-1 ours", "97.3") == r"\begin{tabular}[b]{@{}l@{}}top-1 \\ ours\end{tabular} \\"
    assert head("50% of all", "1", right=True) == r"\begin{tabular}[b]{@{}r@{}}50\% \\ of \\ all\end{tabular} \\"
    assert head("rep. aug.", "✓", "✗", "–") == r"\rotatebox{90}{rep. aug.} \\"
    assert head("top-1 ours", "97.3", long=True) == r"\raggedright top-1 ours \\"
    assert head("", "97.3") == r" \\"


@pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="needs pdflatex with booktabs (Debian: texlive-latex-recommended)"
)
def test_latex_compiles_and_no_table_is_wider_than_the_page(tmp_path, study, optimizers, shipped_sweep):
    hostile = study(
        {name: {0: 90.0, 1: 91.0} for name in HOSTILE}, name="hostile", title=" ".join(HOSTILE), baseline="=1+1"
    )
    long = {f"a row with a name that is long, {i}, {'augment.mixup=' * 9}": {0: 90.0 + i, 1: 91.0} for i in range(3)}
    differs = {name: {"optimizer.name": ["unbroken" * 5, "sgd"], "model.options.depth": [2, 4]} for name in long}
    wide = study(long, name="wide", baseline=next(iter(long)), differs=differs, kind="cumulative")
    papers = [shipped_sweep(name, lambda cell: 80.0 + cell.seed, profile="imagenet") for name in ("table5", "table8")]
    tables = [sweep_table(made.summary()) for made in (optimizers, hostile, wide, *papers)]
    tables += [paper_analysis(made.summary()).table(made.summary()) for made in papers]
    body = "\n".join(map(to_latex, tables))
    assert "U+2713" not in body, "a tick has a sign"
    packages = "\\usepackage{booktabs,graphicx}"
    (tmp_path / "all.tex").write_text(
        f"\\documentclass{{article}}\n{packages}\n\\begin{{document}}\n{body}\\end{{document}}\n"
    )
    command = ["pdflatex", "-halt-on-error", "-draftmode", "-no-shell-escape", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, stdin=subprocess.DEVNULL, timeout=120)
    said = done.stdout.decode(errors="replace")
    assert done.returncode == 0, said[-2000:]
    beyond = [float(points) for points in re.findall(r"Overfull \\hbox \((.+?)pt too wide", said)]
    assert max(beyond, default=0) < 8, "what a column's longest word may take of the gap to the next"
