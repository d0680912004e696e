"""Inside the job: claim a run, train it, record it. A process of its own, which nobody imports.

    python -m deit_ablate.worker run RESULTS RUN [...]     one run in this process
    python -m deit_ablate.worker --serve                   fork one child a run (JSON lines on stdin and stdout)
    python -m deit_ablate.worker names                     answer questions about names (JSON on stdin)
    python -m deit_ablate.worker fetch | verify            bring weights and data, or evaluate anew (JSON on stdin)
    python -m deit_ablate.worker preflight FILE            say what the runs that FILE names would be refused for
    python -m deit_ablate.worker offered                   print what names.json should hold

Exit codes: 0 recorded, or left to another; 75 saved, more to do; 1 failed; 2 bad input.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path


def _serve() -> int:
    """Fork a child for each request, from this process that imports torch and timm once."""
    import torch

    from deit_ablate.store.checkout import checkout
    from deit_ablate.train import loop, preflight, provenance  # noqa: F401  (the imports are the point)
    from deit_ablate.worker import forkserver

    def check() -> None:
        assert not torch.cuda.is_initialized(), "CUDA must not be touched before a fork"

    provenance.provenance(), checkout()  # once for all children, and as of now: what they run is what was imported
    return forkserver.serve(main, check)


def _answer(mode: str) -> int:
    """Fetch or verify what standard input asks for: one line of JSON on standard output for each thing done."""
    from deit_ablate.store import Store
    from deit_ablate.train import teachers, verify
    from deit_ablate.worker.run import device_of

    request = json.load(sys.stdin)
    store = Store(request["results"])
    if mode == "fetch":
        answers = teachers.fetch(request["requests"], store.teacher_weights)
    else:
        data_dir = Path(request["data_dir"]) if request["data_dir"] else None
        answers = verify.verify_all(store, request["runs"], data_dir, device_of(request["device"]))
    for answer in answers:
        print(json.dumps(answer), flush=True)
    return 0


def _preflight(question: Path) -> int:
    """Answer a question file beside it: in a file, because a forked child's output is the server's."""
    from deit_ablate import files
    from deit_ablate.store import Store
    from deit_ablate.train.preflight import preflight

    request = json.loads(question.read_text())
    files.replace(
        question.with_suffix(".answer"),
        json.dumps(preflight(request, Store(request["results"]).teacher_weights)).encode(),
    )
    return 0


def main(argv: list[str]) -> int:
    if argv == ["--serve"]:
        return _serve()
    if argv and argv[0] in ("names", "offered"):
        from deit_ablate.train import names

        questions = json.load(sys.stdin) if argv[0] == "names" else None
        print(
            json.dumps(names.offered(), indent=1, sort_keys=True)
            if questions is None
            else json.dumps(names.ask(questions))
        )
        return 0
    if argv and argv[0] in ("fetch", "verify"):
        return _answer(argv[0])
    if argv and argv[0] == "preflight":
        return _preflight(Path(argv[1]))
    parser = argparse.ArgumentParser(prog="python -m deit_ablate.worker")
    parser.add_argument("mode", choices=["run"])
    parser.add_argument("results")
    parser.add_argument("run")
    parser.add_argument("--execution", default="{}", help="JSON of execution.Execution")
    parser.add_argument("--sweep")
    parser.add_argument("--command", default="")
    parser.add_argument("--retry", action="store_true")
    parser.add_argument("--foreground", action="store_true")
    from deit_ablate.execution import Execution
    from deit_ablate.store import Store
    from deit_ablate.worker.run import Task, execute

    given = parser.parse_args(argv)
    execution = Execution.from_json(given.execution)
    return execute(
        Task(Store(given.results), given.run, execution, given.retry, given.sweep, given.command, given.foreground)
    )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
