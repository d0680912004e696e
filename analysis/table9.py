"""DeiT's Table 9, the hyper-parameters, beside this package's defaults: no run is needed.

python analysis/table9.py
"""

import pandas as pd

from deit_ablate.recipe import Recipe
from deit_ablate.report.tables.paper import read_published
from deit_ablate.report.tables.render import to_markdown
from deit_ablate.report.tables.table import Column, Table

SWEEPS = ()
OURS = {  # row of the table -> what the default recipe says
    "Epochs": lambda r: f"{r.schedule.epochs}",
    "Batch size": lambda r: f"{r.schedule.batch_size}",
    "Optimizer": lambda r: {"adamw": "AdamW"}.get(r.optimizer.name, r.optimizer.name),
    "learning rate": lambda r: f"{r.optimizer.base_lr} x batchsize/512",
    "LR decay": lambda r: "cosine",
    "Weight decay": lambda r: f"{r.optimizer.weight_decay}",
    "Warmup epochs": lambda r: f"{r.schedule.warmup_epochs:g}",
    "Label smoothing": lambda r: f"{r.regularize.label_smoothing}",
    "Dropout": lambda r: f"{r.regularize.dropout}" if r.regularize.dropout else "no",
    "Stoch. depth": lambda r: f"{r.regularize.drop_path}",
    "Repeated aug": lambda r: "yes" if r.augment.repeats > 1 else "no",
    "Gradient clip": lambda r: "yes" if r.optimizer.clip_grad else "no",
    "Rand Augment": lambda r: r.augment.auto_augment.replace("rand-m9-mstd0.5-inc1", "9/0.5"),
    "Mixup prob.": lambda r: f"{r.augment.mixup}",
    "Cutmix prob.": lambda r: f"{r.augment.cutmix:.1f}",
    "Erasing prob.": lambda r: f"{r.augment.erasing}",
}


def table(summary=None):
    published, recipe = read_published("table9"), Recipe()
    lines = []
    for row, default in OURS.items():
        line = {"row": row, **{model: published[row, model].text for model in ("ViT-B", "DeiT-B")}}
        line["ours"] = default(recipe)
        lines.append({**line, "same": line["DeiT-B"].replace(" ", "") == line["ours"].replace(" ", "")})
    columns = (
        Column("", lambda row: row["row"]),
        Column("ViT-B (paper)", lambda row: row["ViT-B"], right=True),
        Column("DeiT-B (paper)", lambda row: row["DeiT-B"], right=True),
        Column("our default", lambda row: row["ours"], right=True),
        Column("", lambda row: "same" if row["same"] else "differs"),
    )
    note = "The paper's mixup and CutMix “probabilities” are the alphas of their Beta distributions (docs/fidelity.md)."
    notes = (f"Published: {next(iter(published.values())).source}.", note)
    title = "DeiT Table 9: hyper-parameters, and what an empty recipe means here"
    return Table("table9", title, pd.DataFrame(lines), columns, notes)


def figures(summary=None):
    return {}


if __name__ == "__main__":
    print(to_markdown(table()), end="")
