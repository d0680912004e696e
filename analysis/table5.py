"""DeiT's Table 5 and Figure 1, accuracy against throughput, the paper's numbers beside ours. Sweep: table5."""

import math

from deit_ablate.report.tables.paper import Beside, paper_table, published, read_published
from deit_ablate.report.tables.table import NOTHING, Column
from deit_ablate.report.write import run_as_script

SWEEPS = ("table5",)
SPEED = "inference_images_per_second"


def _ours(summary):
    """Row -> images a second and parameters (medians), of the final stage."""
    final = summary.records[summary.records["stage"] == summary.stage]
    return final.groupby("variant")[[SPEED, "parameters"]].median().astype("float64")


def table(summary):
    ours, paper = _ours(summary), read_published("table5")

    def measured(column, scale, digits):
        def text(row):
            value = ours.loc[row["row"], column]
            return f"{value / scale:.{digits}f}" if value > 0 else NOTHING

        return text

    first = [
        Column("model", lambda row: row["label"], math=True),
        Column("million parameters paper", published(paper, "#param"), right=True),
        Column("ours", measured("parameters", 1e6, 3), right=True),
        Column("images/s paper", published(paper, "images/s"), right=True),
        Column("ours", measured(SPEED, 1, 0), right=True),
    ]
    elsewhere = [Beside(name, name, None, ours=False) for name in ("ReaL", "V2")]
    beside = [Beside("ImageNet", "top-1", None), *elsewhere]
    return paper_table(summary, "table5", beside, title="DeiT Table 5: accuracy against throughput", first=first)


def figures(summary):
    """Two panels: the paper's models, and ours; convnets, transformers, and distilled ones."""
    from deit_ablate.report.figures.scatter import scatter_figure

    paper, speed = read_published("table5"), _ours(summary)[SPEED]
    theirs = {
        row: (paper[row, "images/s"].value, paper[row, "ImageNet"].value, 0.0)
        for row in dict.fromkeys(name for name, _ in paper)
        if (row, "images/s") in paper and (row, "ImageNet") in paper
    }
    ours = {
        row["variant"]: (speed[row["variant"]], row["top1_mean"], row["top1_half_width"])
        for row in summary.rows
        if not math.isnan(row["top1_mean"])
    }

    def family(name):
        return "distilled" if "distilled" in name else "transformer" if name.startswith(("DeiT", "ViT")) else "convnet"

    panels = {"paper: ImageNet-1k, V100": theirs, "ours": ours}
    return {"trade_off": scatter_figure(panels, family, "images/s, inference", "test top-1 (%)")}


if __name__ == "__main__":
    run_as_script(table)
