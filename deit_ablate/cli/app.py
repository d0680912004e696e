"""The command itself: its sub-commands, and one place where an error becomes a message and an exit code."""

from __future__ import annotations

import errno
import importlib
import sys
from typing import Any

import typer
import typer.core
import typer.main

from deit_ablate import __version__

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("running", "Train what a sweep is missing, then write its table and figures"),
    "plan": ("planning", "Show what a sweep would run, and what it would cost"),
    "retry": ("running", "Run again what failed or was cancelled"),
    "train": ("running", "Train one run in the foreground"),
    "fetch": ("checking", "Bring into place what runs on machines without a network will need"),
    "verify": ("checking", "Evaluate finished runs anew and compare with their records"),
    "status": ("looking", "Show where runs stand"),
    "logs": ("looking", "Print what a run printed"),
    "show": ("looking", "Show a run: recipe, metrics, provenance"),
    "diff": ("looking", "Show what differs between two runs"),
    "table": ("looking", "Print a sweep's table"),
    "figure": ("looking", "Draw a sweep's figures"),
    "report": ("reporting", "Write a sweep's report, or an index over all sweeps, as HTML"),
    "explain": ("exporting", "Trace a cell of a table to its runs, records and commands"),
    "export": ("exporting", "Write a sweep's records as one table: csv, jsonl or parquet"),
    "search": ("searching", "Write what a search has found as a recipe, to be the baseline of an ablation"),
    "tokens": ("inside", "Show how alike class and distillation token are, layer by layer"),
    "disagree": ("inside", "Show how often classifiers decide differently on the same test images"),
    "cancel": ("keeping", "Cancel runs that are not finished"),
    "release": ("keeping", "Say that an attempt is over, where nobody can prove it"),
    "forget": ("keeping", "Move a run to the trash, so that it is trained again"),
    "du": ("keeping", "Show what the store takes on disk"),
    "gc": ("keeping", "Remove checkpoints that finished runs no longer need"),
    "keep": ("keeping", "Write a sweep's records, curves and predictions to a small folder, to be kept"),
    "import": ("keeping", "Merge another store, or kept records, into this one"),
    "init": ("keeping", "Write the shipped sweeps and analyses out, to be edited"),
    "schema": ("keeping", "Print the JSON Schema of sweep files"),
}
"""Sub-command -> (module, one line of help). A module is imported when its command is used: --help is quick."""


class Commands(typer.core.TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"deit_ablate.cli.{COMMANDS[cmd_name][0]}")
        alone = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
        alone.command(cmd_name)(getattr(module, "import_" if cmd_name == "import" else cmd_name))
        return typer.main.get_command(alone)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _spelled_out(arguments: list[str]) -> list[str]:
    """``--slurm.KEY=VALUE`` is short for ``--execution slurm.KEY=VALUE``."""
    result: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument.startswith("--slurm."):
            result += ["--execution", argument[2:] if "=" in argument else f"{argument[2:]}={next(rest, '')}"]
        else:
            result.append(argument)
    return result


class App(typer.Typer):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from deit_ablate.yamlfile import InputError

        try:
            return super().__call__(*args, **{"prog_name": "deit-ablate", "args": _spelled_out(sys.argv[1:]), **kwargs})
        except InputError as error:
            from deit_ablate.cli.console import plain

            print(f"error: {plain(str(error))}", file=sys.stderr)
            raise SystemExit(2) from None
        except BrokenPipeError:
            raise SystemExit(141) from None
        except OSError as error:
            print(f"error: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
            raise SystemExit(1 if error.errno in (errno.ENOSPC, errno.EDQUOT) else 2) from None


app = App(
    cls=Commands, name="deit-ablate", no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Run the ablation study of a vision transformer's training recipe.",
)  # fmt: skip


def _version(wanted: bool) -> None:
    if wanted:
        print(f"deit-ablate {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass
