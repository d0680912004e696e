"""DeiT's Table 10, the resolution of fine-tuning, the paper's numbers beside ours. Sweep: table10."""

from deit_ablate.report.tables.paper import Beside, paper_table, published, read_published
from deit_ablate.report.tables.table import NOTHING, Column
from deit_ablate.report.write import run_as_script

SWEEPS = ("table10",)


def table(summary):
    records, ours, paper = summary.records, summary.recipes("finetune"), read_published("table10")
    speed = records[records["stage"] == "finetune"].groupby("variant")["inference_images_per_second"].median()

    def whole(value):
        return f"{value:.0f}" if value == value else NOTHING

    first = [
        Column("row", lambda row: row["label"], math=True),
        Column("pixels paper", published(paper, "image size"), right=True),
        Column("pixels ours", lambda row: str(ours.get(row["row"], {}).get("data.resolution", NOTHING)), right=True),
        Column("images/s paper", published(paper, "images/s"), right=True),
        Column("images/s ours", lambda row: whole(speed[row["row"]]), right=True),
    ]
    elsewhere = [Beside(name, name, None, ours=False) for name in ("ReaL", "V2")]
    beside = [Beside("ImageNet", "top-1", None), *elsewhere]
    return paper_table(summary, "table10", beside, title="DeiT Table 10: fine-tuning resolution", first=first)


def figures(summary):
    from deit_ablate.report.figures.forest import forest_figure

    return {"effects": forest_figure(summary)}


if __name__ == "__main__":
    run_as_script(table)
