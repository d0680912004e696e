"""Commands that hand a trained model on: weights, predict. They ask a worker, which may import torch."""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

import typer

from deit_ablate.cli import console
from deit_ablate.cli.options import DataDir, Device
from deit_ablate.cli.targets import DEFAULT_RESULTS, Results, one_run
from deit_ablate.errors import InputError
from deit_ablate.execution import Execution, worker_answers
from deit_ablate.store import Store

FORMATS = (".safetensors", ".onnx")
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="sweep:variant[:seed[:stage]], or the first digits of a run's id.")
]
Head = Annotated[
    Literal["fused", "class", "distillation"],
    typer.Option("--head", help="Of a model of two heads; tables have them fused."),
]
Average = Annotated[bool, typer.Option("--ema", help="The moving average of its weights.")]


def weights(
    run: RunArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The file to write: NAME.safetensors (for timm) or NAME.onnx.")
    ],
    head: Head = "fused",
    ema: Average = False,
    data_dir: DataDir = None,
    store: Results = DEFAULT_RESULTS,
) -> None:
    """Write a finished run's model to a file, and beside it, as JSON, what is needed to use it: architecture, classes,
    mean, standard deviation, resolution, crop, the run's id and its metrics.

    .safetensors is timm's checkpoint form; a file called model.safetensors gets config.json beside it, and timm loads
    the folder (local-dir:FOLDER). .onnx needs the extra deit-ablate[onnx], and is compared with torch.
    """
    if output.suffix not in FORMATS:
        raise InputError(f"got {str(output)!r}", where="--output", expected=" or ".join(FORMATS) + " at its end")
    if not output.parent.is_dir():
        raise InputError("no such folder", where=str(output.parent), key="--output")
    request = {**_request(run, head, ema, data_dir, store), "output": str(output.absolute())}
    for answer in _ask("weights", request):
        shown = [str(output), str(output.with_name(Path(answer["files"][1]).name))]
        if answer["onnx"]:
            shown[0] += f" (differs from torch by at most {answer['onnx']['difference']:.1e})"
        elif not answer["timm"]:
            shown[0] += " (timm has no such network: deit_ablate.load_model builds it)"
        console.say(*shown)


def predict(
    run: RunArgument,
    pictures: Annotated[list[Path], typer.Argument(metavar="FOLDER|FILE...", help="Pictures, or folders of pictures.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", help="A file; standard output without it.")] = None,
    head: Head = "fused",
    ema: Average = False,
    device: Device = None,
    data_dir: DataDir = None,
    store: Results = DEFAULT_RESULTS,
) -> None:
    """Classify pictures by a finished run's model: CSV with the five most probable classes of each.

    What cannot be read as a picture is said and left out; the exit code is then 1.
    """
    for path in pictures:
        if not path.exists():
            raise InputError("no such file or folder", where=str(path))
    request = {
        **_request(run, head, ema, data_dir, store),
        "paths": list(map(str, pictures)),
        "device": device or Execution().device,
    }
    unread = 0
    with ExitStack() as opened:
        text: TextIO | None = None
        for answer in _ask("predict", request):
            if "error" in answer:
                console.say(f"{answer['file']}: {answer['error']}", out=sys.stderr)
                unread += 1
                continue
            if text is None:
                text = sys.stdout if output is None else opened.enter_context(open(output, "w", encoding="utf-8"))
                rows, places = csv.writer(text, lineterminator="\n"), range(1, len(answer["top"]) + 1)
                rows.writerow(["file", *(f"{part}_{place}" for place in places for part in ("class", "probability"))])
            rows.writerow([answer["file"], *(part for pair in answer["top"] for part in (pair[0], f"{pair[1]:.6f}"))])
    raise typer.Exit(1 if unread else 0)


def _request(run: str, head: str, ema: bool, data_dir: Path | None, store: Store) -> dict[str, Any]:
    found = one_run(run, store)
    if store.outcome(found) is None:
        raise InputError("has not finished", where=run, expected="a run with a record")
    return {
        "results": str(store.root.resolve()),
        "run": found,
        "head": head,
        "ema": ema,
        "data_dir": str(data_dir) if data_dir else None,
    }


def _ask(mode: str, request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Raises InputError where the run's model cannot be had."""
    for answer in worker_answers(mode, request):
        if "refused" in answer:
            raise InputError(answer["refused"])
        yield answer
