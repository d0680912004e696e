"""DeiT's Table 8, the ablation of the training recipe: ticks and crosses, before and after fine-tuning at a higher
resolution, the paper's numbers beside ours. Sweeps: table8 (isolated), table8_as_run (as the reference code runs
it)."""

from deit_ablate.report.tables.paper import Beside, paper_table
from deit_ablate.report.tables.table import NOTHING, Column
from deit_ablate.report.write import run_as_script

SWEEPS = ("table8", "table8_as_run")
SWITCHES = {  # header -> (dotted key, whether it is on at this value)
    "RandAugment": ("augment.auto_augment", lambda value: str(value).startswith("rand")),
    "AutoAugment": ("augment.auto_augment", lambda value: str(value).startswith(("original", "v0"))),
    "mixup": ("augment.mixup", lambda value: value > 0),
    "CutMix": ("augment.cutmix", lambda value: value > 0),
    "erasing": ("augment.erasing", lambda value: value > 0),
    "stoch. depth": ("regularize.drop_path", lambda value: value > 0),
    "rep. aug.": ("augment.repeats", lambda value: value > 1),
    "dropout": ("regularize.dropout", lambda value: value > 0),
}


def table(summary):
    pretrain, finetune = summary.recipes("pretrain"), summary.recipes("finetune")
    tuned = "finetune" in summary.stages  # which a profile may leave out

    def tick(key, on):
        def text(row):
            recipe = pretrain.get(row["row"])
            return NOTHING if recipe is None else "✓" if on(recipe.get(key)) else "✗"

        return text

    def optimizer(of):
        return lambda row: of.get(row["row"], {}).get("optimizer.name", NOTHING)

    first = [
        Column("row", lambda row: row["label"], math=True, long=True),
        Column("pre-train", optimizer(pretrain)),
        Column("fine-tune", optimizer(finetune)),
        *(Column(header, tick(*switch)) for header, switch in SWITCHES.items()),
        Column("EMA", lambda row: "✓" if row["row"] == "EMA" else "✗"),
    ]
    as_run = summary.sweep.startswith("table8_as_run")
    reading = "as the reference code would run it" if as_run else "each change by itself"
    beside = [
        Beside("224", "pre-trained", "pretrain" if tuned else None),
        Beside("384", "fine-tuned", None, ours=tuned),
    ]
    return paper_table(summary, "table8", beside, title=f"DeiT Table 8: the ablation, {reading}", first=first)


def figures(summary):
    from deit_ablate.report.figures.forest import forest_figure

    names = {"pretrain": "effects_pretrained", "finetune": "effects_finetuned"}
    return {names[stage]: forest_figure(summary.at(stage)) for stage in summary.stages}


if __name__ == "__main__":
    run_as_script(table)
