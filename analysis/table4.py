"""DeiT's Table 4, how often two classifiers decide differently, the paper's shares beside ours. Sweep: distillation."""

from deit_ablate.report.tables.paper import read_published
from deit_ablate.report.tables.predictions import disagreement, predictions, with_teachers
from deit_ablate.report.tables.table import Column, Table
from deit_ablate.report.tables.tokens import groups
from deit_ablate.report.write import run_as_script

SWEEPS = ("distillation",)
NAMES = {  # the paper's classifiers -> ours
    "ground truth": "ground truth",
    "convnet (RegNetY)": "teacher",
    "DeiT": "none",
    "class only": "token, class head: class only",
    "distillation only": "token, distillation head: distillation only",
    "class+distillation": "token, both heads: class+distillation",
}


def table(summary):
    store, published = summary.store, read_published("table4")
    found = predictions(store, with_teachers(store, groups(summary.plan)))
    matrix = disagreement(found.classifiers)
    names = {paper: ours for paper, ours in NAMES.items() if ours in matrix.index}
    frame = matrix.loc[list(names.values()), list(names.values())]
    frame.index, frame.columns = list(names), list(names)

    def both(other):
        return lambda row: f"{row[other]:.3f} ({published[row['classifier'], other].text})"

    columns = [Column("ours (paper)", lambda row: row["classifier"]), *(Column(n, both(n), right=True) for n in names)]
    notes = (
        f"Share of {found.images:,} test images that two classifiers put into different classes, mean over seeds; in "
        "brackets the paper's, of ImageNet's 50,000. On the diagonal ours are pairs of seeds, the paper's one model.",
        f"Published: {next(iter(published.values())).source}.",
        *found.notes,
    )
    frame = frame.rename_axis("classifier").reset_index()
    return Table("table4", "DeiT Table 4: disagreement of classifiers", frame, tuple(columns), notes)


def figures(summary):
    return {}


if __name__ == "__main__":
    run_as_script(table)
