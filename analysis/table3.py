"""DeiT's Table 3, distillation types x model sizes, the paper's numbers beside ours; each size is compared with its own
undistilled row. Sweep: table3."""

SWEEPS = ("table3",)


def table(results, sweep, strict=False):
    from deit_ablate.report.frame import read_plan
    from deit_ablate.report.tables.paper import Beside, paper_table
    from deit_ablate.store import Store

    names = [row["name"] for row in read_plan(Store(results), sweep)["variants"]]
    baselines = {name: f"{name.split(', ')[0]}, no distillation" for name in names}
    beside = [Beside("224", "top-1", None), Beside("B↑384", "B↑384", None, ours=False)]
    title = "DeiT Table 3: distillation types and model sizes"
    return paper_table(results, sweep, "table3", beside, title=title, baselines=baselines, strict=strict)


def figures(results, sweep):
    from deit_ablate.report.figures.accuracy import sweep_figure

    return {"top1": sweep_figure(results, sweep)}
