"""DeiT's Table 3, distillation types x model sizes, the paper's numbers beside ours; each size is compared with its own
undistilled row. Sweep: table3."""

from deit_ablate.report.tables.paper import Beside, paper_table
from deit_ablate.report.write import run_as_script

SWEEPS = ("table3",)


def table(summary):
    names = [row["variant"] for row in summary.rows]
    baselines = {name: f"{name.split(', ')[0]}, no distillation" for name in names}
    beside = [Beside("224", "top-1", None), Beside("B↑384", "B↑384", None, ours=False)]
    title = "DeiT Table 3: distillation types and model sizes"
    return paper_table(summary, "table3", beside, title=title, baselines=baselines)


def figures(summary):
    from deit_ablate.report.figures.accuracy import sweep_figure

    return {"top1": sweep_figure(summary)}


if __name__ == "__main__":
    run_as_script(table)
