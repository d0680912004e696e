"""The command itself: its sub-commands, and one place where an error becomes a message and an exit code."""

from __future__ import annotations

import errno
import importlib
import re
import sys
import warnings
from typing import Any

import typer
import typer.core
import typer.main

from deit_ablate import __version__

COMMANDS: dict[str, tuple[str, str]] = {
    "run": ("run", "Train what a sweep is missing, then write its table and figures"),
    "plan": ("plan", "Show what a sweep would run, and what it would cost"),
    "retry": ("run", "Run again what failed or was cancelled"),
    "train": ("run", "Train one run in the foreground"),
    "fetch": ("setup", "Bring into place what runs on machines without a network will need"),
    "verify": ("setup", "Evaluate finished runs anew and compare with their records"),
    "status": ("inspect", "Show where runs stand"),
    "logs": ("inspect", "Print what a run printed"),
    "show": ("inspect", "Show a run: recipe, metrics, provenance"),
    "diff": ("inspect", "Show what differs between two runs"),
    "table": ("report", "Print a sweep's table"),
    "figure": ("report", "Draw a sweep's figures"),
    "report": ("report", "Write a sweep's report, or an index over all sweeps, as HTML"),
    "explain": ("report", "Trace a cell of a table to its runs, records and commands"),
    "judge": ("judge", "Judge a candidate by a baseline or a fixed value: rows, or files of numbers"),
    "export": ("export", "Write a sweep's records as one table, or send its runs to an experiment tracker"),
    "search": ("report", "Write what a search has found as a recipe, to be the baseline of an ablation"),
    "weights": ("models", "Write a run's trained model to a file, for timm or ONNX"),
    "predict": ("models", "Classify pictures by a run's model"),
    "tokens": ("report", "Show how alike class and distillation token are, layer by layer"),
    "disagree": ("report", "Show how often classifiers decide differently on the same test images"),
    "accept": ("manage", "Use finished runs of earlier code, where what changed in the code is cosmetic"),
    "cancel": ("manage", "Cancel runs that are not finished"),
    "release": ("manage", "Say that an attempt is over, where nobody can prove it"),
    "forget": ("manage", "Move a run to the trash, so that it is trained again"),
    "du": ("manage", "Show what the store takes on disk"),
    "gc": ("manage", "Remove checkpoints that finished runs no longer need"),
    "keep": ("manage", "Write a sweep's records, curves and predictions to a small folder, to be kept"),
    "import": ("manage", "Merge another store, or kept records, into this one"),
    "bundle": ("share", "Write what others need to train a cell of a table anew"),
    "reproduce": ("share", "Train a run of a bundle anew, and say whether it is the one on record"),
    "init": ("setup", "Write the shipped sweeps and analyses out, to be edited"),
    "schema": ("setup", "Print the JSON Schema of sweep files"),
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

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As typer's, with a hint where a command is misspelled."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from deit_ablate.errors import InputError, did_you_mean

            expected = "one of those that `deit-ablate --help` lists"
            raise InputError(f"no command {args[0]!r}{did_you_mean(args[0], COMMANDS)}", expected=expected)
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """As typer's. Ctrl-C is answered here until a launch takes it, which lets runs save (``JobExecutor``)."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            starts = ctx.invoked_subcommand in ("run", "retry", "train")
            what = " before any run was started; the same command begins again" if starts else ""
            print(f"interrupted{what}", file=sys.stderr)
            raise SystemExit(130) from None
        except typer.BadParameter as error:  # in a line, as other bad input is said
            if error.param is None or not error.message:
                raise
            from deit_ablate.errors import InputError

            problem = error.message.removeprefix("Value error, ").removesuffix(".")
            raise InputError(problem, where=max(error.param.opts, key=len)) from None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


def _spelled_out(arguments: list[str]) -> list[str]:
    """``--slurm.KEY=VALUE`` is short for ``--execution slurm.KEY=VALUE``, and ``--watch`` for ``--watch 5``."""
    result: list[str] = []
    following = [*arguments[1:], ""]
    rest = iter(
        "--watch=5" if argument == "--watch" and not re.fullmatch(r"-?[0-9.]+", after) else argument
        for argument, after in zip(arguments, following, strict=False)
    )
    for argument in rest:
        if argument.startswith("--slurm."):
            result += ["--execution", argument[2:] if "=" in argument else f"{argument[2:]}={next(rest, '')}"]
        else:
            result.append(argument)
    return result


def _say(kind: str, what: object) -> None:
    from deit_ablate.cli import console

    console.say(f"{kind}: {what}", out=sys.stderr)


class App(typer.Typer):
    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        from deit_ablate.errors import InputError, StoreGone, print_anything

        warnings.showwarning = lambda message, *_, **__: _say("warning", message)
        print_anything()
        try:
            return super().__call__(*args, **{"prog_name": "deit-ablate", "args": _spelled_out(sys.argv[1:]), **kwargs})
        except InputError as error:
            for each in getattr(error, "errors", (error,)):
                _say("error", each)
            raise SystemExit(2) from None
        except StoreGone as error:
            _say("error", error)
            raise SystemExit(1) from None
        except BrokenPipeError:
            raise SystemExit(141) from None
        except OSError as error:
            _say("error", f"{error.filename}: " * bool(error.filename) + f"{error.strerror or error}")
            raise SystemExit(1 if error.errno in (errno.ENOSPC, errno.EDQUOT) else 2) from None


app = App(
    cls=Commands,
    name="deit-ablate",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Run the ablation study of a vision transformer's training recipe.",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"deit-ablate {__version__}")
        raise typer.Exit


@app.callback()
def common(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None:
    pass
