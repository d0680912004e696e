import csv
import io
import re
import shutil
import subprocess

import pandas as pd
import pytest

from deit_ablate.errors import InputError
from deit_ablate.report.tables.render import (
    RENDERERS,
    escape_csv,
    escape_latex,
    escape_markdown,
    plain,
    to_csv,
    to_html,
    to_latex,
    to_markdown,
)
from deit_ablate.report.tables.table import Column, Printed, Table, sweep_table
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
        "| variant          | differs in                                                 | test top-1 (%) |   difference | verdict                                                              | time (s) | CPU-hours |  seeds |",
        "| ---------------- | ---------------------------------------------------------- | -------------: | -----------: | -------------------------------------------------------------------- | -------: | --------: | -----: |",
        "| adamw (baseline) | –                                                          |   98.00 ± 2.48 |            – | –                                                                    |     30.0 |     0.025 |      3 |",
        "| sgd              | optimizer: adamw → sgd; base_lr 0.03 → 0.8; momentum = 0.9 | 96.00 ± 12.71* | −2.00 ± 3.44 | undecided: 1 of 3 diverged (0.8–91%); 2 runs are too few; add a seed |     30.0 |     0.025 | 2 of 3 |",
        "| lamb             | optimizer: adamw → lamb; base_lr 0.03 → 0.32               |   98.75 ± 9.53 | +0.75 ± 3.18 | 2 runs: too few for a verdict                                        |     30.0 |     0.017 | 2 of 3 |",
    ]
    assert "- \\* Mean over the runs that converged. sgd: 1 of 3 diverged (seed 2: non-finite loss)." in lines


def test_csv_of_the_example(optimizers):
    rows = list(csv.DictReader(io.StringIO(to_csv(sweep_table(optimizers.summary())))))
    assert [row["variant"] for row in rows] == ["adamw", "sgd", "lamb"]
    assert [row["baseline"] for row in rows] == ["true", "false", "false"]
    assert [float(row["top1_mean"]) for row in rows] == [98, 96, 98.75]
    assert [row["difference"] for row in rows] == ["", "-2.0", "0.75"]


def test_latex_of_the_example(optimizers):
    table = sweep_table(optimizers.summary())
    text = to_latex(table)
    assert text.splitlines()[:11] == [
        r"% \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        r"\caption{Optimizer ablation, profile digits}\smallskip",
        r"\label{tab:optimizers}",
        r"\fontsize{8}{9.6}\selectfont",
        r"\setlength{\tabcolsep}{3pt}",
        r"\begin{tabular}{@{}p{54.9pt}rrp{49.7pt}@{}}",
        r"\toprule",
        r"\raggedright variant & test top-1 (\%) & difference & \raggedright verdict \tabularnewline",
        r"\midrule",
    ]
    assert r"lamb & 98.75 $\pm$ 9.53 & +0.75 $\pm$ 3.18 & \raggedright too few runs \tabularnewline" in text
    assert r"$\pm$ is the half-width of a 95\% t interval over 2 to 3 seeds.\par" in text
    wide = to_latex(Printed(wide=True, notes="none", label="tab:x", caption=r"Ours, $\beta_2$ & 5%").of(table))
    assert (wide.splitlines()[1], wide.splitlines()[-1]) == (r"\begin{table*}", r"\end{table*}")
    assert r"\caption{Ours, $\beta_2$ \& 5\%}" in wide
    assert r"\label{tab:x}" in wide
    assert "minipage" not in wide
    assert r"base\_\allowbreak{}lr 0.03 $\rightarrow$ 0.32 & 98.75 $\pm$ 9.53" in wide
    assert r" & 30.0 & 0.017 & 2 of 3 \tabularnewline" in wide


def test_columns_are_chosen_by_name(optimizers):
    table = sweep_table(optimizers.summary(), digits=1)
    lines = to_markdown(Printed(columns=("row", "top1", "seeds", "p_holm"), notes="none").of(table)).splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == ["variant", "test top-1 (%)", "seeds", "p_holm"]
    assert [cell.strip() for cell in lines[4].split("|")[1:-1]] == ["adamw (baseline)", "98.0 ± 2.5", "3", "–"]
    with pytest.raises(InputError, match="no column 'tpo1'; did you mean 'top1'"):
        Printed(columns=("row", "tpo1")).of(table)


def test_a_programs_metric_is_a_column_by_its_own_name(study):
    metric = {"name": "metrics.accuracy", "better": "higher", "program": True, "place": [0, 0]}
    table = sweep_table(study({"a": {0: 90.0}}, metric=metric).summary())
    named = Printed(columns=("row", "metrics.accuracy")).of(table)
    assert Printed(columns=("row", "accuracy")).of(table).columns == named.columns


def test_a_label_is_shown_by_every_format_and_escaped_by_each(study):
    labels = {"b": r"LAMB$_2$ ($\beta_2 = 0.99$) † 50% & <ours>", "a": "w/o mixup"}
    made = study({"a": {0: 90.0}, "b": {0: 91.0}}, labels=labels, groups={"Ours, $\\eta$": ["b"]})
    table = sweep_table(made.summary())
    assert r"| LAMB$_2$ ($\beta_2 = 0.99$) † 50% &amp; &lt;ours&gt; |" in to_markdown(table)
    assert r"| **Ours, $\eta$**" in to_markdown(table)
    latex = to_latex(table)
    assert r"LAMB$_2$ ($\beta_2 = 0.99$) $\dagger$ 50\% \& \textless{}ours\textgreater{} & 91.00" in latex
    assert "\n\\addlinespace\n\\multicolumn{2}{@{}l}{\\itshape Ours, $\\eta$} \\" in latex
    page = to_html(table)
    assert "<td>LAMB₂ (β₂=0.99) † 50% &amp; &lt;ours&gt;</td>" in page
    assert '<tr><th colspan="5" scope="rowgroup">Ours, η</th></tr>' in page
    assert page == table._repr_html_()
    (first, second) = csv.DictReader(io.StringIO(to_csv(table)))
    assert (first["variant"], first["label"], second["label"]) == ("a", "w/o mixup", labels["b"])


def test_what_is_no_formula_is_text():
    table = one(r"$\input{/etc/passwd}$ $x_a_b$", math=True)
    assert r"\$\textbackslash{}input\{/etc/passwd\}\$ \$x\_a\_b\$ \\" in to_latex(table)


def test_the_best_is_bold_where_that_is_decided(study):
    near = {seed: 90.0 + 0.1 * seed for seed in range(4)}
    far = {seed: 97.0 + 0.1 * seed for seed in range(4)}
    decided = study({"base": near, "up": far, "same": near}, baseline="base")
    assert r"\textbf{97.15 $\pm$ 0.21}" in to_latex(sweep_table(decided.summary()))
    assert "In bold: better than every other row" in to_latex(sweep_table(decided.summary()))


def test_nothing_is_bold_where_verdicts_are_by_looks_which_other_comparisons_do_not_follow(study):
    near = {seed: 90.0 + 0.1 * seed for seed in range(4)}
    far = {seed: 97.0 + 0.1 * seed for seed in range(4)}
    made = study({"base": near, "up": far, "same": near}, baseline="base", looks=[4, 8])
    printed = to_latex(sweep_table(made.summary()))
    assert "textbf" not in printed
    assert "In bold" not in printed


def test_nothing_is_bold_where_two_are_as_good(study):
    near = {seed: 90.0 + 0.1 * seed for seed in range(4)}
    far = {seed: 97.0 + 0.1 * seed for seed in range(4)}
    made = study({"base": near, "up": far, "also": {seed: far[seed] + 0.05 for seed in far}}, baseline="base")
    assert "textbf" not in to_latex(sweep_table(made.summary()))


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
    text = "augment.mixup=0.8,augment.cutmix=1"
    assert r"augment.\allowbreak{}mixup=0.8,\allowbreak{}augment.\allowbreak{}cutmix=1" in to_latex(
        one(f"{text} " * 9, long=True)
    )
    assert r"\={o}/\allowbreak{}x" in to_latex(one("ō/x " * 99, long=True))
    assert "allowbreak" not in to_latex(one(text, long=True)), "it fits a line"


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
    assert head("top-1 ours", "97.3 " * 99, long=True) == r"\raggedright top-1 ours \tabularnewline"
    assert head("", "97.3") == r" \\"


@pytest.mark.skipif(
    shutil.which("pdflatex") is None, reason="needs pdflatex with booktabs (Debian: texlive-latex-recommended)"
)
def test_latex_compiles_and_no_table_is_wider_than_its_column_or_the_page(tmp_path, study, optimizers, shipped_sweep):
    hostile = study(
        {name: {0: 90.0, 1: 91.0} for name in HOSTILE}, name="hostile", title=" ".join(HOSTILE), baseline="=1+1"
    )
    long = {f"a row with a name that is long, {i}, {'augment.mixup=' * 9}": {0: 90.0 + i, 1: 91.0} for i in range(3)}
    differs = {name: {"optimizer.name": ["unbroken" * 5, "sgd"], "model.options.depth": [2, 4]} for name in long}
    wide = study(long, name="wide", baseline=next(iter(long)), differs=differs, kind="cumulative")
    papers = [shipped_sweep(name, lambda cell: 80.0 + cell.seed, profile="imagenet") for name in ("table5", "table8")]
    tables = [sweep_table(made.summary()) for made in (optimizers, hostile, wide, *papers)]
    tables += [Printed(wide=True, notes="full").of(table) for table in tables]
    tables += [paper_analysis(made.summary()).table(made.summary()) for made in papers]
    body = "\n".join(map(to_latex, tables))
    assert "U+2713" not in body, "a tick has a sign"
    packages = "\\usepackage{booktabs,graphicx}"
    (tmp_path / "all.tex").write_text(
        f"\\documentclass[twocolumn]{{article}}\n{packages}\n\\setlength{{\\textwidth}}{{487pt}}\n"
        f"\\setlength{{\\columnsep}}{{18pt}}\n\\begin{{document}}\n{body}\\end{{document}}\n"
    )
    command = ["pdflatex", "-halt-on-error", "-draftmode", "-no-shell-escape", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, stdin=subprocess.DEVNULL, timeout=120)
    said = done.stdout.decode(errors="replace")
    assert done.returncode == 0, said[-2000:]
    beyond = [float(points) for points in re.findall(r"Overfull \\hbox \((.+?)pt too wide", said)]
    assert max(beyond, default=0) < 8, "what a column's longest word may take of the gap to the next"
