"""DeiT's Table 10, the resolution of fine-tuning, the paper's numbers beside ours. Sweep: table10."""

SWEEPS = ("table10",)


def table(results, sweep, strict=False):
    from deit_ablate.report.frame import load, recipes
    from deit_ablate.report.tables.paper import Beside, paper_table, read_published
    from deit_ablate.report.tables.table import NOTHING, Column

    records = load(results, sweep)
    ours = recipes(records, "finetune")
    paper = read_published("table10")
    speed = records[records["stage"] == "finetune"].groupby("variant")["inference_images_per_second"].median()

    def said(value):
        return f"{value:.0f}" if value == value else NOTHING

    first = [
        Column("row", lambda row: row["row"]),
        Column("pixels paper", lambda row: paper[row["row"], "image size"].text, right=True),
        Column("pixels ours", lambda row: str(ours.get(row["row"], {}).get("data.resolution", NOTHING)), right=True),
        Column("images/s paper", lambda row: paper[row["row"], "images/s"].text, right=True),
        Column("images/s ours", lambda row: said(speed[row["row"]]), right=True),
    ]
    beside = [
        Beside("ImageNet", "top-1", None),
        Beside("ReaL", "ReaL", None, ours=False),
        Beside("V2", "V2", None, ours=False),
    ]
    return paper_table(
        results, sweep, "table10", beside, title="DeiT Table 10: fine-tuning resolution", first=first, strict=strict
    )


def figures(results, sweep):
    from deit_ablate.report.figures.forest import forest_figure

    return {"effects": forest_figure(results, sweep)}
