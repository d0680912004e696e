"""DeiT's Figure 3, accuracy against the length of training with and without distillation, the paper's readings beside
ours. Sweep: figure3."""

import math

from deit_ablate.report.tables.paper import Beside, paper_table, published, read_published
from deit_ablate.report.tables.table import NOTHING, Column
from deit_ablate.report.write import run_as_script

SWEEPS = ("figure3",)


def table(summary):
    ours, paper = summary.recipes("student"), read_published("figure3")
    first = [
        Column("row", lambda row: row["label"], math=True),
        Column("epochs paper", published(paper, "epochs"), right=True),
        Column("epochs ours", lambda row: str(ours.get(row["row"], {}).get("schedule.epochs", NOTHING)), right=True),
    ]
    beside = [Beside("224", "top-1", None), Beside("384", "fine-tuned", None, ours=False)]
    return paper_table(summary, "figure3", beside, title="DeiT Figure 3: training length", first=first)


def figures(summary):
    """Two panels, the paper's and ours: a line a method over the epochs."""
    from deit_ablate.report.figures.scatter import lines_figure

    paper, trained = read_published("figure3"), summary.recipes("student")
    theirs, ours = {}, {}
    for name in dict.fromkeys(name for name, column in paper if column == "224"):
        method = name.split(", ")[0]
        theirs.setdefault(method, []).append((paper[name, "epochs"].value, paper[name, "224"].value, 0.0))
    for row in summary.rows:
        if not math.isnan(row["top1_mean"]):
            point = (float(trained[row["variant"]]["schedule.epochs"]), row["top1_mean"], row["top1_half_width"])
            ours.setdefault(row["variant"].split(", ")[0], []).append(point)
    panels = {"paper: DeiT-B, ImageNet-1k (read off the chart)": theirs, "ours": ours}
    return {"epochs": lines_figure(panels, "epochs", "test top-1 (%)")}


if __name__ == "__main__":
    run_as_script(table)
