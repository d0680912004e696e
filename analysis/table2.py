"""DeiT's Table 2, which teacher makes the best student, the paper's numbers beside ours. Sweeps: table2 (teachers that
are trained here; at a small scale they stand for the paper's), table2_imagenet (pretrained ones, by name)."""

from deit_ablate.report.tables.paper import Beside, paper_table
from deit_ablate.report.write import run_as_script

SWEEPS = ("table2", "table2_imagenet")
STAND_INS = {
    "DeiT": "DeiT-B",
    "convnet 9": "RegNetY-4GF",
    "convnet 18": "RegNetY-8GF",
    "convnet 36": "RegNetY-12GF",
    "convnet 54": "RegNetY-16GF",
}


def table(summary):
    trained, tuned = "teacher" in summary.stages, "finetune" in summary.stages
    beside = [
        Beside("teacher", "teacher", "teacher" if trained else None, ours=trained),
        Beside("224", "student", "student" if tuned else None),
        Beside("384", "fine-tuned", None, ours=tuned),
    ]
    stand_ins = STAND_INS if any(row["variant"] in STAND_INS for row in summary.rows) else None
    return paper_table(
        summary, "table2", beside, title="DeiT Table 2: teachers and their students", stand_ins=stand_ins
    )


def figures(summary):
    from deit_ablate.report.figures.forest import forest_figure

    return {"effects": forest_figure(summary)}


if __name__ == "__main__":
    run_as_script(table)
