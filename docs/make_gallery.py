"""Write docs/gallery.md and its images from a store in which the studies have been run (`make gallery`).

python docs/make_gallery.py [--results DIR]
"""

import argparse
import re
import shutil
from pathlib import Path

from deit_ablate.report.summary import summarize
from deit_ablate.report.write import write_report
from deit_ablate.store import Store

DOCS = Path(__file__).parent
STUDIES = {
    "table8": ["paper_effects_pretrained", "paper_effects_finetuned"],
    "table8_as_run": ["paper_effects_finetuned"],
    "table2": ["effects"],
    "table3": ["paper_top1"],
    "table5": ["paper_trade_off"],
    "table10": ["effects"],
    "figure3": ["paper_epochs"],
    "tokens": ["paper_token_similarity"],
    "roadmap": ["effects"],
    "optimizers": ["effects", "curves"],
    "distillation": ["effects"],
    "regularization": ["effects"],
    "augmentation": ["effects"],
    "interactions": ["interactions"],
    "search": ["search-history", "search-importances", "search-slices", "search-contour"],
    "optimizers_tuned": ["effects", "search-history-sgd"],
}
"""Study -> the figures that are shown of it."""


def question(sweep: Path) -> str:
    """The question that a sweep file opens with."""
    lines = re.findall(r"^# ?(.*)$", sweep.read_text(), re.MULTILINE)
    text = " ".join(line.strip() for line in lines[1:])
    asked = text.split("Question:")[1].split("Command:")[0].strip()
    return asked[0].upper() + asked[1:]


def command(sweep: Path) -> str:
    found = re.search(r"^# Command: +(.*)$", sweep.read_text(), re.MULTILINE)
    assert found
    return found[1]


def section(results: Path, name: str) -> list[str]:
    folder, sweep = Store(results).sweeps.folder(name), DOCS.parent / "sweeps" / f"{name}.yaml"
    write_report(summarize(Store(results), name))
    paper = (folder / "paper.md").exists()
    table = (folder / ("paper.md" if paper else "table.md")).read_text()
    title = re.sub(r",? profile digits", "", table.splitlines()[0].removeprefix("# "))
    again = f"deit-ablate table {name}" + (" --paper" if paper else "")
    shown = [re.sub(r"^# (.*?)(, profile digits)?$", r"### \1", line) for line in table.splitlines()[2:]]
    lines = [
        f"## {title}",
        "",
        question(sweep),
        "",
        "```",
        command(sweep),
        again,
        "```",
        "",
        *shown,
        "",
    ]
    for figure in STUDIES[name]:
        source = folder / "figures" / f"{figure}.png"
        if source.exists():
            shutil.copyfile(source, DOCS / "images" / "gallery" / f"{name}-{figure}.png")
            lines += [f"![{name}: {figure}](images/gallery/{name}-{figure}.png)", ""]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Write the gallery from the studies of a store.")
    parser.add_argument("--results", type=Path, default=Path("results"))
    results = parser.parse_args().results
    shutil.rmtree(DOCS / "images" / "gallery", ignore_errors=True)
    (DOCS / "images" / "gallery").mkdir(parents=True)
    lines = [
        "# Gallery",
        "",
        "Every study that is shipped, on scikit-learn's digits (1,078 training, 120 validation and 599 test "
        "images, a DeiT of",
        "70,000 parameters), three seeds, as `make gallery` made it: each from the commands above it. At this "
        "scale most",
        "differences drown in the noise of three seeds, and the tables say so; what they are to show is the form. The",
        "same studies on Fashion-MNIST at five seeds are in [results/reference](../results/reference).",
        "",
    ]
    for name in STUDIES:
        if Store(results).sweeps.plan(name) is not None:
            lines += section(results, name)
    (DOCS / "gallery.md").write_text("\n".join(lines).rstrip() + "\n")


if __name__ == "__main__":
    main()
