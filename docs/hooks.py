"""What mkdocs runs while it builds the site: reference pages from the code, and pages for files outside ``docs/``.

A page says where generated text goes by ``<!-- generated: NAME -->``, NAME being a function in ``GENERATED``. So the
command line, the fields of sweep files and the names that recipes may use cannot go stale: they are those of the code.
README.md is the site's first page. A link from any page to another file of the repository (a sweep, a test, a table)
leads to a page that shows the file, so that the site is complete without a network.
"""

from __future__ import annotations

import csv
import inspect
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pydantic import BaseModel

from deit_ablate.cli.app import app
from deit_ablate.execution import Execution, Slurm
from deit_ablate.recipe import BLOCKS, Block, Recipe, switches
from deit_ablate.sweep.fields import ProfileFile, SearchFile, StageFile, SweepFile
from deit_ablate.sweep.space import Range

ROOT = Path(__file__).parent.parent
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s#:]+)(#[^)\s]*)?\)")
"""A link or an image of Markdown to a file: (``!``, text, path, anchor)."""
LANGUAGES = {".py": "python", ".yaml": "yaml", ".json": "json", ".csv": "text", ".toml": "toml", "": "text"}
HOME = "---\ntitle: Home\nhide: [navigation]\n---\n\n"
"""What stands before README.md on the site: the first page takes the whole width."""
OFF = switches()

# -- tables of fields ----------------------------------------------------------------------------------------------


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table of Markdown; a line break or a bar in a cell is escaped."""
    for row in (header, ["---"] * len(header), *rows):
        yield "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) + " |"
    yield ""


def form(schema: Mapping[str, Any]) -> str:
    """What may be written, in words, from a field's JSON Schema."""
    if "$ref" in schema or "allOf" in schema:
        return "a mapping (below)"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(form(choice) for choice in schema["anyOf"]))
    kind = schema.get("type")
    if kind == "array":
        if "prefixItems" in schema:
            return f"a list of {len(schema['prefixItems'])} numbers"
        items = schema.get("items") or {}
        return "a list" if not items.get("type") else f"a list ({form(items)})"
    words = {
        "integer": "whole number",
        "number": "number",
        "string": "text",
        "boolean": "true or false",
        "object": "a mapping",
        "null": "null",
    }
    limits = [
        f"{sign} {schema[key]:g}"
        for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if key in schema and abs(schema[key]) < 2**31
    ]
    return " ".join([words.get(str(kind), "anything"), ", ".join(limits)]).strip()


def written(value: Any) -> str:
    """A default as a sweep file would have it."""
    if isinstance(value, BaseModel):
        return "see below"
    if isinstance(value, float):
        return f"`{value:.6g}`"
    if isinstance(value, (list, tuple)):
        return f"`[{', '.join(written(item).strip('`') for item in value)}]`"
    return f"`{value if isinstance(value, str) and value else json.dumps(value)}`"


def fields(model: type[BaseModel], published: Mapping[str, str] | None = None, block: str = "") -> Iterator[str]:
    """The fields of a model as a table: key, form, default, meaning; and what the paper's Table 9 has."""
    schema = model.model_json_schema(by_alias=True)["properties"]
    header = ["key", "form", "default", *(["Table 9"] if published else []), "meaning"]
    rows = []
    for name, info in model.model_fields.items():
        key, path = info.alias or name, f"{block}.{name}" if block else name
        if key not in schema or (published is not None and isinstance(info.default, Block)):
            continue
        default = "required" if info.is_required() else written(info.get_default(call_default_factory=True))
        paper = [published.get(path, "")] if published else []
        off = f" Off: {written(OFF[path])}." if path in OFF else ""
        rows.append([f"`{key}`", form(schema[key]), default, *paper, (info.description or "") + off])
    yield from table(header, rows)


# -- generated text ------------------------------------------------------------------------------------------------

PAPER = {
    "Epochs": "schedule.epochs",
    "Batch size": "schedule.batch_size",
    "Optimizer": "optimizer.name",
    "learning rate": "optimizer.base_lr",
    "Weight decay": "optimizer.weight_decay",
    "Warmup epochs": "schedule.warmup_epochs",
    "Label smoothing": "regularize.label_smoothing",
    "Dropout": "regularize.dropout",
    "Stoch. depth": "regularize.drop_path",
    "Repeated aug": "augment.repeats",
    "Gradient clip": "optimizer.clip_grad",
    "Rand Augment": "augment.auto_augment",
    "Mixup prob.": "augment.mixup",
    "Cutmix prob.": "augment.cutmix",
    "Erasing prob.": "augment.erasing",
}
"""Row of the paper's Table 9 -> the recipe's field."""


def recipe() -> Iterator[str]:
    with open(ROOT / "analysis" / "paper" / "table9.csv", newline="") as file:
        lines = [line for line in csv.DictReader(file) if line["column"] == "DeiT-B"]
    published = {PAPER[line["row"]]: line["published"] for line in lines if line["row"] in PAPER}
    yield from (
        "A key that can be switched off (by `leave_one_out`, for example) has its off value behind its meaning.",
        "",
    )
    for block in BLOCKS:
        model = type(Recipe.model_fields[block].default)
        yield from (f"## {block}", "")
        if block == "distill" or not any(key.startswith(f"{block}.") for key in published):
            yield from fields(model, block=block)
        else:
            yield from fields(model, published, block)
    yield from ("## At the top of a recipe", "")
    alone = {name: info for name, info in Recipe.model_fields.items() if name not in BLOCKS}
    schema = Recipe.model_json_schema()["properties"]
    rows = [[f"`{k}`", form(schema[k]), written(i.default), i.description or ""] for k, i in alone.items()]
    yield from table(["key", "form", "default", "meaning"], rows)


def known() -> Iterator[str]:
    """What the registries and timm offer by name."""
    names = json.loads((ROOT / "deit_ablate" / "names.json").read_text())
    for title, key in (
        ("Models of our own", "models"),
        ("Data sets", "datasets"),
        ("Distillation types", "distillations"),
    ):
        offered = names.get(key)
        if offered:
            yield from (f"### {title}", "", ", ".join(f"`{name}`" for name in offered), "")
    yield from ("### Optimizers", "", ", ".join(f"`{name}`" for name in names.get("optimizers", {})), "")


def sweep_file() -> Iterator[str]:
    parts: list[tuple[str, type[BaseModel], str]] = [
        (
            "The file",
            SweepFile,
            "Exactly one of `variants`, `grid`, `zip`, `leave_one_out`, `add_one` and `cumulative`"
            " makes the rows; `search` stands alone or beside `variants`.",
        ),
        ("stages", StageFile, "Below `stages`: a name for each stage, and then these keys."),
        ("search", SearchFile, "Below `search`."),
        (
            "A range of a search",
            Range,
            "The value of a key in `space` or `spaces`; a list of choices is the other form.",
        ),
        ("execution", Execution, "Below `execution`, in a sweep file or a profile, or as `-x KEY=VALUE`."),
        ("execution.slurm", Slurm, "Below `execution: {slurm: ...}`, or as `--slurm.KEY=VALUE`."),
        ("A profile", ProfileFile, "A file in `profiles/` beside the sweep."),
    ]
    for title, model, how in parts:
        document = inspect.cleandoc(model.__doc__ or "") if "__doc__" in vars(model) else ""
        yield from (f"## {title}", "", *([document.splitlines()[0], ""] if document else []), how, "")
        yield from fields(model)


def cli() -> Iterator[str]:
    """Every command with its arguments and options, as ``--help`` has them."""
    group: Any = typer.main.get_command(app)
    whole = typer.Context(group, info_name="deit-ablate")
    for name in group.list_commands(whole):
        command = group.get_command(whole, name)
        context = typer.Context(command, info_name=name, parent=whole)
        usage = " ".join(command.get_usage(context).removeprefix("Usage: ").split())
        yield from (f"## {name}", "", inspect.cleandoc(command.help or ""), "", "```text", usage, "```", "")
        records = [
            parameter.get_help_record(context) for parameter in command.get_params(context) if parameter.name != "help"
        ]
        yield from table(
            ["argument or option", "meaning"], [[f"`{record[0]}`", record[1]] for record in records if record]
        )


def statistics() -> Iterator[str]:
    """The columns of table.csv: those of a sweep whose metric is top-1, and how further metrics are called."""
    from deit_ablate.report.summary import meanings
    from deit_ablate.sweep.metrics import TOP1

    known = meanings([TOP1]) | {
        "METRIC_mean": "mean of another metric that the sweep declares, over the seeds that are done",
        "METRIC_half_width": "half-width of its 95% t interval",
    }
    yield from table(["column", "meaning"], [[f"`{name}`", meaning] for name, meaning in known.items()])


def columns() -> Iterator[str]:
    """The columns of ``deit_ablate.load`` and ``load_curves``."""
    from deit_ablate.report.frame import COLUMNS, CURVES

    for title, known_columns in (("load", COLUMNS), ("load_curves", CURVES)):
        yield from (f"**{title}**" + (", then the recipe's keys, those that vary first" if title == "load" else ""), "")
        yield from table(["column", "type", "meaning"], [[f"`{k}`", d, m] for k, (d, m) in known_columns.items()])


GENERATED: dict[str, Callable[[], Iterator[str]]] = {
    "recipe": recipe,
    "names": known,
    "sweep-file": sweep_file,
    "cli": cli,
    "columns": columns,
    "statistics": statistics,
}

# -- pages ---------------------------------------------------------------------------------------------------------


def source_of(uri: str) -> Path:
    """The file of the repository, relative to its root, that a page of the site shows."""
    if uri == "index.md":
        return Path("README.md")
    if uri.startswith("repository/"):
        inside = uri.removeprefix("repository/")
        return Path(inside) if (ROOT / inside).is_file() else Path(inside.removesuffix(".md"))
    return Path("docs") / uri


def page_of(path: Path) -> str | None:
    """Where the site shows a file of the repository; None for one that it does not show."""
    if path.parts[0] == "docs":
        return Path(*path.parts[1:]).as_posix()
    if path == Path("README.md"):
        return "index.md"
    if (ROOT / path).is_dir():
        path = path / "README.md"
    if not (ROOT / path).is_file():
        return None
    shown_as_is = path.suffix in (".md", ".png", ".svg")
    return f"repository/{path.as_posix()}{'' if shown_as_is else '.md'}"


def linked(text: str, source: Path) -> Iterator[tuple[re.Match[str], Path]]:
    """Links to files, each with the file's path from the repository's root."""
    for match in LINK.finditer(text):
        yield match, Path(os.path.normpath(source.parent / match[3]))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add README.md as the first page, and every file of the repository to which a page links."""
    files.append(File.generated(config, "index.md", content=HOME + (ROOT / "README.md").read_text()))
    queue = [file for file in files if file.src_uri.endswith(".md")]
    while queue:
        page = queue.pop()
        for _, path in linked(page.content_string, source_of(page.src_uri)):
            uri = page_of(path)
            if uri is None or not uri.startswith("repository/") or files.get_file_from_path(uri):
                continue
            found = ROOT / (path / "README.md" if (ROOT / path).is_dir() else path)
            if found.suffix in (".png", ".svg"):
                files.append(File.generated(config, uri, abs_src_path=str(found)))
                continue
            text = found.read_text()
            if found.suffix != ".md":
                text = f"# {path.as_posix()}\n\n```{LANGUAGES.get(found.suffix, 'text')}\n{text}\n```\n"
            files.append(File.generated(config, uri, content=text))
            queue.append(files.get_file_from_path(uri))  # type: ignore[arg-type]
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Put generated text in its place, and let links lead to where the site shows what they name."""
    source = source_of(page.file.src_uri)
    here = Path(page.file.src_uri).parent

    def replaced(match: re.Match[str]) -> str:
        path = Path(os.path.normpath(source.parent / match[3]))
        uri = page_of(path)
        if uri is None:
            return match[2] if (ROOT / path).is_dir() else match[0]
        return f"{match[1]}[{match[2]}]({os.path.relpath(uri, here)}{match[4] or ''})"

    if page.file.src_uri.startswith("repository/") and source.suffix != ".md":
        return markdown
    markdown = LINK.sub(replaced, markdown)
    return re.sub(r"<!-- generated: ([a-z-]+) -->", lambda match: "\n".join(GENERATED[match[1]]()), markdown)
