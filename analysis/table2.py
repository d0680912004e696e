"""DeiT's Table 2, which teacher makes the best student, the paper's numbers beside ours. Sweeps: table2 (teachers that
are trained here; at a small scale they stand for the paper's), table2_imagenet (pretrained ones, by name)."""

SWEEPS = ("table2", "table2_imagenet")
STAND_INS = {
    "DeiT": "DeiT-B",
    "convnet 9": "RegNetY-4GF",
    "convnet 18": "RegNetY-8GF",
    "convnet 36": "RegNetY-12GF",
    "convnet 54": "RegNetY-16GF",
}


def table(results, sweep, strict=False):
    from deit_ablate.report.frame import read_plan
    from deit_ablate.report.tables.paper import Beside, paper_table
    from deit_ablate.store import Store

    plan = read_plan(Store(results), sweep)
    stages = [stage["name"] for stage in plan["stages"]]
    trained = "teacher" in stages
    tuned = "finetune" in stages
    beside = [
        Beside("teacher", "teacher", "teacher" if trained else None, ours=trained),
        Beside("224", "student", "student" if tuned else None),
        Beside("384", "fine-tuned", None, ours=tuned),
    ]
    stand_ins = STAND_INS if any(row["name"] in STAND_INS for row in plan["variants"]) else None
    title = "DeiT Table 2: teachers and their students"
    return paper_table(results, sweep, "table2", beside, title=title, stand_ins=stand_ins, strict=strict)


def figures(results, sweep):
    from deit_ablate.report.figures.forest import forest_figure

    return {"effects": forest_figure(results, sweep)}
