"""DeiT's Table 5 and Figure 1, accuracy against throughput, the paper's numbers beside ours. Sweep: table5."""

SWEEPS = ("table5",)


def _ours(results, sweep):
    """Row -> images a second and parameters (medians), of the final stage."""
    from deit_ablate.report.frame import final_stage, load, read_plan
    from deit_ablate.store import Store

    records = load(results, sweep)
    final = records[records["stage"] == final_stage(read_plan(Store(results), sweep))]
    return final.groupby("variant")[["inference_images_per_second", "parameters"]].median().astype("float64")


def table(results, sweep, strict=False):
    from deit_ablate.report.tables.paper import Beside, paper_table, read_published
    from deit_ablate.report.tables.table import NOTHING, Column

    ours, paper = _ours(results, sweep), read_published("table5")

    def published(column):
        return lambda row: paper[row["row"], column].text if (row["row"], column) in paper else NOTHING

    def own(column, scale, digits):
        return lambda row: (
            f"{ours.loc[row['row'], column] / scale:.{digits}f}" if ours.loc[row["row"], column] > 0 else NOTHING
        )

    first = [
        Column("model", lambda row: row["row"]),
        Column("million parameters paper", published("#param"), right=True),
        Column("ours", own("parameters", 1e6, 3), right=True),
        Column("images/s paper", published("images/s"), right=True),
        Column("ours", own("inference_images_per_second", 1, 0), right=True),
    ]
    beside = [
        Beside("ImageNet", "top-1", None),
        Beside("ReaL", "ReaL", None, ours=False),
        Beside("V2", "V2", None, ours=False),
    ]
    return paper_table(
        results, sweep, "table5", beside, title="DeiT Table 5: accuracy against throughput", first=first, strict=strict
    )


def figures(results, sweep):
    """Two panels: the paper's models, and ours; convnets, transformers, and distilled ones."""
    import math

    from deit_ablate.report.figures.scatter import scatter_figure
    from deit_ablate.report.frame import rows
    from deit_ablate.report.summary import summarize
    from deit_ablate.report.tables.paper import read_published

    paper, speed = read_published("table5"), _ours(results, sweep)["inference_images_per_second"]
    theirs = {
        row: (paper[row, "images/s"].value, paper[row, "ImageNet"].value, 0.0)
        for row in dict.fromkeys(name for name, _ in paper)
        if (row, "images/s") in paper and (row, "ImageNet") in paper
    }
    ours = {
        row["variant"]: (speed[row["variant"]], row["top1_mean"], row["top1_half_width"])
        for row in rows(summarize(results, sweep).frame)
        if not math.isnan(row["top1_mean"])
    }

    def group(name):
        return "distilled" if "distilled" in name else "transformer" if name.startswith(("DeiT", "ViT")) else "convnet"

    panels = {"paper: ImageNet-1k, V100": theirs, "ours": ours}
    return {"trade_off": scatter_figure(panels, group, "images/s, inference", "test top-1 (%)")}
