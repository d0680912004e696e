"""Write the studies of docs/gallery.md and their images from a store in which they have been run (`make gallery`).

Sections of studies that the store has not are left as they stand.

python docs/make_gallery.py [--results DIR] [STUDY ...]
python docs/make_gallery.py --commands   # what runs these studies, a line each
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
    "table8": ["paper_effects_pretrained"],
    "distillation": ["effects"],
    "tokens": ["paper_token_similarity"],
    "augmentation": ["effects"],
    "regularization": ["effects"],
    "table8_as_run@digits": ["paper_effects_pretrained", "paper_effects_finetuned"],
    "table2@digits": ["effects"],
    "table3@digits": ["paper_top1"],
    "table5": ["paper_trade_off"],
    "table10@digits": ["effects"],
    "figure3@digits": ["paper_epochs"],
    "roadmap@digits": ["effects"],
    "finetuning@digits": ["effects"],
    "schedules@digits": ["effects"],
    "deit3": ["effects"],
    "interactions": ["interactions"],
    "optimizers": ["effects", "curves"],
    "search": ["search-history", "search-importances", "search-slices", "search-contour"],
    "optimizers_tuned": ["effects", "search-history-sgd"],
}
"""Study -> the figures that are shown of it."""


def stem(name: str) -> str:
    """The sweep file's name, of a study's: that without its profile."""
    return name.partition("@")[0]


def sweep_file(name: str) -> Path:
    return DOCS.parent / "sweeps" / f"{stem(name)}.yaml"


def question(name: str) -> str:
    """The question that a study's file opens with."""
    lines = re.findall(r"^# ?(.*)$", sweep_file(name).read_text(), re.MULTILINE)
    text = " ".join(line.strip() for line in lines[1:])
    asked = text.split("Question:")[1].split("Command:")[0].strip()
    return asked[0].upper() + asked[1:]


def command(name: str) -> str:
    """What runs a study, as its file says it."""
    found = re.search(r"^# Command: +(.*)$", sweep_file(name).read_text(), re.MULTILINE)
    assert found
    return found[1].partition(" && ")[0] + (f" --profile {name.partition('@')[2]}" if "@" in name else "")


def section(results: Path, name: str) -> list[str]:
    folder = Store(results).sweeps.folder(name)
    write_report(summarize(Store(results), name))
    paper = (folder / "paper.md").exists()
    title, *shown = (folder / "table.md").read_text().splitlines()
    if paper:  # with the notes that the table above it has not
        shown += [
            "",
            *(line for line in (folder / "paper.md").read_text().splitlines() if line not in shown or not line),
        ]
    again = f"deit-ablate table {name}" + (" --paper" if paper else "")
    shown = [re.sub(r"^# ", "### ", line) for line in shown[1:]]
    lines = [
        f"## {title.removeprefix('# ')}",
        "",
        question(name),
        "",
        "```",
        command(name),
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
    parser = argparse.ArgumentParser(description="Write the gallery's sections of the studies that a store has.")
    parser.add_argument("--results", type=Path, default=Path("results"))
    parser.add_argument("studies", nargs="*", choices=[*STUDIES, []], help="by default all that the store has")
    parser.add_argument("--commands", action="store_true", help="print what runs these studies instead, a line each")
    given = parser.parse_args()
    if given.commands:
        for line in map(command, given.studies or STUDIES):
            # On two cores the first looks of Table 8 alone take more than an hour.
            print(line + " --budget 3h" * ("--until-decided" in line))
        return
    results = given.results
    gallery = DOCS / "gallery.md"
    head, *sections = re.split(r"\n(?=## )", gallery.read_text())  # what is written by hand stands above the first
    # By sweep file: a study at one profile takes the place of the same study at another.
    kept = {stem(re.findall(r"^deit-ablate \S+ (\S+)", text, re.MULTILINE)[-1]): text.rstrip() for text in sections}
    for name in given.studies or STUDIES:
        if Store(results).sweeps.plan(name) is not None:
            kept[stem(name)] = "\n".join(section(results, name)).rstrip()
    order = dict.fromkeys([*map(stem, STUDIES), *kept])
    gallery.write_text("\n\n".join([head.rstrip(), *(kept[name] for name in order if name in kept)]) + "\n")


if __name__ == "__main__":
    main()
