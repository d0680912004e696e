"""What the command prints: plain lines, or a live view where the output is a terminal."""

from __future__ import annotations

import contextlib
import math
import os
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from deit_ablate import files
from deit_ablate.errors import Damaged
from deit_ablate.launch.cost import duration as duration
from deit_ablate.launch.cost import size as size
from deit_ablate.launch.jobs import NOT_DONE, RETRYABLE, Progress, Report
from deit_ablate.program import is_program
from deit_ablate.report.trackers.live import Live
from deit_ablate.store import State, Store
from deit_ablate.store.attempt import failure
from deit_ablate.sweep.metrics import TOP1, Metric, planned_metrics
from deit_ablate.sweep.plan import Run

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")
_UNSEEN = re.compile(r"[\u00ad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
"""What turns text around, or hides in it; not the joiners, which scripts and emoji need."""
PLAIN_EVERY = 30.0


def plain(text: str) -> str:
    """Text without terminal control characters, and with a mark where it would be turned around or hide something."""
    return _UNSEEN.sub("\N{REPLACEMENT CHARACTER}", _CONTROL.sub("", text))


def say(*lines: object, out: Any = None) -> None:
    """Print lines that hold what users, or other programs, have written."""
    print("".join(f"{plain(str(line))}\n" for line in lines), end="", file=out or sys.stdout, flush=True)


def json_value(value: Any) -> Any:
    """A figure of a table or a record as JSON has it: null for what is no number."""
    if isinstance(value, (list, tuple)):
        return [json_value(part) for part in value]
    if value is None or isinstance(value, (str, bool)):
        return value
    number = float(value) if str(value) != "<NA>" else math.nan
    if math.isnan(number):
        return None
    return int(number) if number.is_integer() and not isinstance(value, float) else number


def show_value(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def changes(differs: Mapping[str, Sequence[Any]]) -> str:
    """A row's differences from the baseline in one line."""
    return "; ".join(f"{key} {show_value(before)} -> {show_value(after)}" for key, (before, after) in differs.items())


def columns(rows: Sequence[Sequence[str]], indent: str = "") -> list[str]:
    """Rows as left-aligned plain lines; cheap however many they are."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    return [
        indent + "  ".join(plain(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def counts(states: Mapping[str, State]) -> str:
    """``6 done, 1 running, 2 missing``."""
    counted = Counter(state.name for state in states.values())
    return ", ".join(f"{number} {name}" for name, number in counted.most_common()) or "no runs"


def length(recipe: Mapping[str, Any]) -> int | None:
    """Epochs of a recipe; None of a program, which alone knows."""
    return None if is_program(recipe) else int(recipe["schedule"]["epochs"])


def judged_by(store: Store, sweep: str | None) -> Metric:
    """The metric of a sweep's verdicts; top-1 of runs that are of none."""
    return planned_metrics(store.sweeps.sound_plan(sweep) or {} if sweep else {})[0]


def glance(store: Store, run: str, epochs: int | None, metric: Metric = TOP1) -> str:
    """Where a running run stands: its epoch and the metric so far (of the validation part; top-1 where a run's lines do
    not have it), from its own lines; of a program what it last said."""
    try:
        history = store.history(run)
    except Damaged as damage:
        return str(damage)
    if epochs is None:
        last = {"epoch": history[-1]["epoch"], **(history[-1].get("metrics") or {})} if history else {}
        names = dict.fromkeys(["epoch", *([metric.words] if metric.program else []), *last])
        return ", ".join([f"{name} {last[name]:.6g}" for name in names if last.get(name) is not None][:4])
    if not history:
        return f"epoch 0/{epochs}"
    scored = next((line["validation"] for line in history[::-1] if line.get("validation")), None)
    shown = score({"validation": scored}, metric)
    return f"epoch {history[-1]['epoch'] + 1}/{epochs}{f', {shown}' if shown else ''}"


def score(metrics: Mapping[str, Any] | None, metric: Metric = TOP1) -> str:
    """``test top-1 90.12%``: the metric, and top-1 where records do not have it; of the validation part where the test
    split was left alone, nothing where neither was scored."""
    metrics = metrics or {}
    part = "test" if metrics.get("test") else "validation"
    for each in (metric, TOP1):
        scores = (metrics.get("program") if each.program else metrics.get(part)) or {}
        if (value := scores.get(each.words if each.program else each.figure)) is not None:
            unit = each.unit if each.unit == "%" else f" {each.unit}".rstrip()
            return f"{each.words.replace('test', part, 1)} {value:.{each.digits}f}{unit}"
    return ""


def watch(look: Callable[[], tuple[Sequence[Sequence[str]], Sequence[str]]], every: float) -> None:
    """Show a table (its columns' names first) and the lines below it, anew every so many seconds until Ctrl-C; where
    the output is no terminal, the lines alone that have changed."""
    from rich.console import Console, Group
    from rich.live import Live as Block
    from rich.table import Table
    from rich.text import Text

    shown: set[Sequence[str] | str] = set()
    live = on_terminal(sys.stdout)
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as opened:
        block = opened.enter_context(Block(console=Console(file=sys.stdout), auto_refresh=False)) if live else None
        while True:
            rows, notes = look()
            if block is not None:
                table = Table.grid(padding=(0, 2))
                for row in rows:
                    table.add_row(*(Text(plain(cell), no_wrap=True) for cell in row))
                # What comes last is cut off where a terminal is too small.
                block.update(Group(Text("\n".join(map(plain, notes))), table), refresh=True)
            else:
                lines = zip([*rows, *notes], [*columns(rows), *map(plain, notes)], strict=True)
                print("".join(f"{line}\n" for what, line in lines if what not in shown), end="", flush=True)
                shown = {*rows, *notes}
            time.sleep(every)


def on_terminal(stream: Any) -> bool:
    return bool(stream.isatty() and os.environ.get("TERM") != "dumb")


class Watch:
    """Shows a launch as it goes: a live block on a terminal, else a line for each thing that happens."""

    def __init__(
        self,
        store: Store,
        labels: Mapping[str, str],
        runs: Mapping[str, Run],
        sweep: str | None = None,
        *,
        stream: Any = None,
    ):
        """Of the search that adds to them, ``labels`` and ``runs`` grow meanwhile."""
        self.also: list[Live] = []
        """Trackers that are shown the same."""
        self.store, self.labels, self.runs = store, labels, runs
        self.metric = judged_by(store, sweep)
        self.stream = stream or sys.stdout
        self.begun = self.last = time.monotonic()
        self.announced: set[str] = set()
        self.live: Any = None
        if on_terminal(self.stream):
            from rich.console import Console
            from rich.live import Live as Block

            self.live = Block(console=Console(file=self.stream), refresh_per_second=4, transient=True)
            self.live.start()

    def __call__(self, progress: Progress) -> None:
        for tracker in self.also:
            tracker(progress)
        for run in dict.fromkeys([*progress.started, *progress.running]) if self.live is None else ():
            if run not in self.announced:
                self.announced.add(run)
                how = "runs already, started by another launcher" if run in progress.elsewhere else "started"
                self.say(f"{self.labels.get(run, run)}: {how} ({run})")
        for run in progress.ended:
            self.say(f"{self.labels.get(run, run)}: {self.ending(run, progress.states[run])}")
        if self.live is not None:
            from rich.text import Text

            lines = [self.headline(progress), *(f"  {self.line(run, progress)}" for run in progress.running[:20])]
            self.live.update(Text("\n".join(lines)))
        elif time.monotonic() - self.last > PLAIN_EVERY and progress.running:
            for run in progress.running:
                self.say(f"  {self.line(run, progress)}")
            self.say(self.headline(progress))

    def ending(self, run: str, state: State) -> str:
        if state.finished:
            outcome = self.store.outcome(run) or {}
            scored = score(outcome.get("metrics"), self.metric)
            shown = f", {scored}" if scored else ""
            shown = f" ({state.detail})" if state.name == "diverged" and state.detail else shown
            return f"{state.name}{shown} in {duration(outcome.get('cost', {}).get('wall_seconds'))}"
        return "another launcher executes it" if state.name == "running" else str(state)

    def headline(self, progress: Progress) -> str:
        over = progress.count("done", "diverged", "paused", "failed", "blocked", "cancelled", "damaged")
        parts = [
            f"{progress.count('done', 'diverged')} of {progress.total} done",
            f"{len(progress.running)} running",
            *([f"{paused} paused"] if (paused := progress.count("paused")) else []),
            f"{progress.count('failed', 'blocked', 'cancelled', 'damaged')} failed",
            f"{max(0, progress.total - over - len(progress.running))} to go",
        ]
        parts.append(f"{duration(time.monotonic() - self.begun)} so far")
        if progress.stopping:
            parts.append("saving what runs ...")
        elif progress.seconds_left is not None:
            parts.append(f"about {duration(progress.seconds_left)} left")
        return " · ".join(parts)

    def line(self, run: str, progress: Progress) -> str:
        epochs = length(self.runs[run].recipe) if run in self.runs else 0
        text = f"{plain(self.labels.get(run, run)):<28} {glance(self.store, run, epochs, self.metric)}"
        if progress.states[run].detail == "stale":
            where = self.store.attempts(run)[-1].owner.get("host")
            text += f", no sign of life from {where} for minutes (`deit-ablate release {run}` if it is gone for good)"
        return text

    def say(self, line: str) -> None:
        self.last = time.monotonic()
        if self.live is not None:
            self.live.console.print(plain(line), markup=False, highlight=False)
        else:
            print(plain(line), file=self.stream, flush=True)

    def close(self) -> None:
        for tracker in self.also:
            tracker.close()
        if self.live is not None:
            self.live.stop()


def held(store: Store, sweep: str | None) -> list[str]:
    """Why a sweep is held, in words."""
    why = store.sweeps.held(sweep)
    if why is None:
        return []
    if why["class"] == "cancelled":
        return [f"{sweep} was cancelled: it asks for no more trials until `deit-ablate retry {sweep}`"]
    return [
        f"{sweep} is held: its first {len(why['runs'])} runs all ended as {why['class']}: {why['message']}",
        f"nothing of it starts until `deit-ablate retry {sweep}`",
    ]


def damaged(store: Store, run: str, state: State) -> str:
    """Of a damaged run, what is wrong and what to do about it; nothing of any other."""
    damage = store.damage(run) if state.name == "damaged" else None
    return f"{damage}; `deit-ablate forget {run}` clears it" if damage else ""


def log_tail(store: Store, run: str, lines: int = 8) -> list[str]:
    """The last lines that a run's latest attempt printed."""
    attempts = store.attempts(run)
    try:
        raw, _ = files.read_tail(attempts[-1].log, 8000)
    except (IndexError, OSError, Damaged):
        return []
    return [plain(line) for line in raw.decode(errors="replace").splitlines()[-lines:]]


def failures(report: Report, store: Store, labels: Mapping[str, str], again: str) -> list[str]:
    """The end report's lines on each run that failed: its class, its last words, and how to run it alone."""
    lines: list[str] = []
    shown: dict[str, str] = {}
    for run, state in report.failed().items():
        known = report.problems.get(run) or damaged(store, run, state) or None
        parent = report.states.get(state.detail) if state.name == "blocked" else None
        if known is None and parent is not None and parent.without_weights:
            parent_name = labels.get(state.detail, state.detail)
            known = f"{parent_name} diverged, which is a result: there are no weights to go on from"
        when = "" if run in report.started or state.name != "failed" else "earlier, and not tried now: "
        how: State | str = state if state.name in NOT_DONE else "failed"
        if state.name == "held" and (why := failure(store.attempts(run))):
            how = State("failed", why)  # only what was never started is held, and no more; why, is said below
        lines.append(f"{labels.get(run, run)} ({run}): {when}{how}{f' - {known}' if known else ''}")
        if state.name == "failed":
            tail = log_tail(store, run)
            if tail and tail[-1] in shown:
                lines.append(f"    the same as {shown[tail[-1]]}: {tail[-1]}")
            else:
                lines += [f"    | {line}" for line in tail]
            shown.setdefault(tail[-1] if tail else "", labels.get(run, run))
            lines.append(f"    alone, here: {again} {run}")
    if any(state.name in RETRYABLE for state in report.failed().values()):
        lines.append("`deit-ablate retry` (a sweep, or one run) tries these again; `run` by itself does not")
    return lines
