"""One damaged file never disables a sweep: every file of a finished sweep's store, damaged in every way, under the
commands that read it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from studies import end
from support import planned

from deit_ablate import files
from deit_ablate.cli.app import app
from deit_ablate.errors import InputError
from deit_ablate.store import Store, index
from deit_ablate.store.submissions import Submissions

SWEEP = """
profile: digits
seeds: 2
baseline: none
stages:
  teacher: {recipe: {model: {name: small_convnet}}, seeds: [0]}
  student: {teacher: teacher}
variants: {none: {}, token: {distill.type: hard-token}}
"""
IMAGES = 40


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a sweep file and the store of its five finished runs, and one file of every other kind."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "study.yaml").write_text(SWEEP)
    store, plan = Store(folder / "results"), planned(folder / "study.yaml")
    store.sweeps.save_plan("study", {**plan.document("../study.yaml"), "asked": {}})
    store.sweeps.declare("study", plan.declared(), 0)
    store.pin_data("digits", {"fingerprint": "f" * 64, "train": 1, "validation": 1, "test": IMAGES})
    rng = np.random.default_rng(0)
    for number, run in enumerate(plan.runs.values()):
        end(store, run.id, run.recipe, run.parents, 70.0 + number)
        (attempt,) = store.attempts(run.id)
        attempt.beat(epoch=3, step=30)
        attempt.close("done", "")
        store.pause(run.id, 7)
        arrays = {
            f"test_pred_{head}": rng.integers(0, 10, IMAGES) for head in ("class", "distillation", "fused_softmax")
        }
        arrays["token_similarity"] = rng.random(13)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, test_targets=np.arange(IMAGES) % 10, **arrays)  # type: ignore[arg-type]
        _keep_arrays(store, run.id, buffer.getvalue())
    told = {"launcher": {"nonce": "x"}, "cluster": "c", "arguments": [], "code": "c"}
    entry = {"run": plan.cells[-1].run, "after": 1, "retry": False}
    Submissions(store).announce(1, {"name": "n", "runs": [entry], **told})
    Submissions(store).note(1, "7")
    return folder


def _keep_arrays(store: Store, run: str, content: bytes) -> None:
    """As the worker's outcome would name them."""
    files.replace(store.attempt(run, 1).arrays, content)
    outcome = json.loads((store.run(run) / "outcome.json").read_bytes())
    outcome["arrays_sha256"] = files.sha256(store.attempt(run, 1).arrays)
    files.replace(store.run(run) / "outcome.json", files.to_json(outcome))


# -- ways to damage ----------------------------------------------------------------------------------------------------


def _numbers(value: Any, to: Any, path: str = "") -> Any:
    """Every number of a value replaced."""
    if isinstance(value, dict):
        return {key: child if key == "schema" else _numbers(child, to, key) for key, child in value.items()}
    if isinstance(value, list):
        return [_numbers(child, to) for child in value]
    return to if isinstance(value, (int, float)) and not isinstance(value, bool) else value


def _types(value: Any) -> Any:
    return {
        key: {"an": "object"} if isinstance(child, (str, int, float)) else str(child) for key, child in value.items()
    }


def _fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _written(change: Callable[[Any], Any]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.suffix == ".jsonl" else None
        content = (
            json.dumps(change(json.loads(path.read_text())))
            if lines is None
            else "".join(json.dumps(change(line)) + "\n" for line in lines)
        )
        path.write_text(content)

    return damage


def _raw(content: bytes | Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(content(path.read_bytes()) if callable(content) else content) and None


DAMAGES: dict[str, Callable[[Path], None]] = {
    "cut": _raw(lambda content: content[: len(content) // 2].rstrip() + b"\n"),
    "empty": _raw(b"\n"),
    "garbage": _raw(b"\x00\x01 rubbish {\n" * 3),
    "not UTF-8": _raw(lambda content: content.replace(b'": ', b'\xff": ')),
    "null": _raw(b"null\n"),
    "a list": _written(lambda value: [value]),
    "wrong types": _written(_types),
    "NaN": _written(lambda value: _numbers(value, float("nan"))),
    "infinity": _written(lambda value: _numbers(value, float("inf"))),
    "1e308": _written(lambda value: _numbers(value, 1e308)),
    "huge integers": _written(lambda value: _numbers(value, 10**400)),
    "digits without end": _raw(b'{"schema": 1' + b"0" * 9000 + b"}\n"),
    "negative": _written(lambda value: _numbers(value, -1)),
    "missing keys": _written(lambda value: {"schema": 1}),
    "nested": _raw(b"[" * 100_000 + b"\n"),
    "a later version's": _written(lambda value: {**value, "schema": 99}),
    "a FIFO": _fifo,
    "a folder": _folder,
}
OF_A_RUN = (
    "recipe.json",
    "outcome.json",
    "a0001/owner.json",
    "a0001/exit.json",
    "a0001/metrics.jsonl",
    "a0001/beat",
    "pause.json",
)


@contextlib.contextmanager
def _in_time(seconds: int) -> Iterator[None]:
    def late(*_: Any) -> None:
        raise AssertionError("it waits for ever")

    signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


class Ask:
    """The command, in this process: (exit code, what it printed). A traceback is an error of the test."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self.capsys = capsys

    def __call__(self, *arguments: str, code: int | None = 0) -> str:
        self.capsys.readouterr()
        with _in_time(30), warnings.catch_warnings():
            warnings.simplefilter("always")
            with pytest.raises(SystemExit) as left:
                app(args=list(arguments))
        printed = self.capsys.readouterr()
        said = printed.out + printed.err
        assert code is None or (left.value.code or 0) == code, f"{arguments}: {left.value.code}\n{said}"
        return said


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Ask:
    return Ask(capsys)


@pytest.fixture
def copy(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A copy of that folder, which is the current one."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Store("results")


def victim(store: Store) -> str:
    plan = store.sweeps.plan("study")
    assert plan is not None
    return next(
        str(run) for variant, seed, stage, run in plan["cells"] if (variant, seed, stage) == ("token", 0, "student")
    )


QUICK = (
    "status study --json",
    "plan study.yaml",
    "plan study",
    "retry study --device cpu",
    "export study",
    "du",
    "gc --dry-run",
)
SLOW = ("figure study", "report --all", "tokens study", "explain study:token", "run study --device cpu")


def row(table: str) -> list[str]:
    """What a table says of the other row."""
    return next(line for line in table.splitlines() if line.startswith("| none")).replace("-", "").split()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["recipe.json", "outcome.json"])
def test_a_run_whose_record_is_damaged_is_shown_and_counts_nowhere(
    copy: Store, ask: Ask, name: str, damage: str
) -> None:
    run = victim(copy)
    before, path = ask("table", "study"), copy.run(run) / name
    DAMAGES[damage](path)
    assert "4 done, 1 damaged" in ask("status")
    said = ask("status", "study")
    assert f"damaged ({name})" in said
    assert f"{path}: damaged: " in said
    assert f"{path}: damaged: " in ask("show", run)
    table = ask("table", "study")
    assert f"Damaged: token seed 0 ({name})." in table
    assert row(table) == row(before)
    assert f"`deit-ablate forget {run}`" in ask("retry", "study", "--device", "cpu", code=1)
    for command in (*QUICK, f"logs {run}", "export study --curves", "disagree study"):
        ask(*command.split(), code=1 if command.startswith("retry") else 0)
    for command in (f"disagree {run}", f"diff {run} study:none:0", f"verify {run}"):
        assert str(path) in ask(*command.split(), code=2)
    ask("forget", run, "--yes")
    assert "4 done, 1 missing" in ask("status")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["a0001/owner.json", "a0001/exit.json", "a0001/beat", "pause.json"])
def test_a_finished_run_does_not_depend_on_how_its_attempt_was_kept(
    copy: Store, ask: Ask, name: str, damage: str
) -> None:
    run = victim(copy)
    before, path = ask("table", "study"), copy.run(run) / name
    DAMAGES[damage](path)
    assert ask("table", "study") == before
    assert "5 done" in ask("status")
    assert (f"{path}: damaged" in ask("show", run)) == name.endswith(("owner.json", "exit.json"))
    for command in (*QUICK, f"logs {run}", f"cancel {run}"):
        ask(*command.split())
    ask("forget", run, "--yes")
    assert "4 done, 1 missing" in ask("status")


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_history_is_missing_in_curves_alone(copy: Store, ask: Ask, damage: str) -> None:
    run = victim(copy)
    before, path = ask("table", "study"), copy.attempt(run, 1).metrics
    DAMAGES[damage](path)
    assert ask("table", "study") == before
    curves = ask("export", "study", "--curves")
    assert f"warning: left out: {path}" in curves
    assert f",{run}," not in curves
    assert "none,0,student" in curves
    for command in (*QUICK, "show " + run):
        ask(*command.split())
    ask("forget", run, "--yes")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    "name", ["study/plan.json", "study/seeds/1.json", "data/digits.json", "submissions/1.json", "submissions/1.job"]
)
def test_a_damaged_file_of_the_store_is_named_by_who_needs_it(copy: Store, ask: Ask, name: str, damage: str) -> None:
    run, path = victim(copy), copy.root / name
    DAMAGES[damage](path)
    needs = {
        "study/plan.json": (["status study", "table study", "plan study", "cancel study"], ["status", "du"]),
        "study/seeds/1.json": (["table study"], []),
        "data/digits.json": (["disagree study"], []),
    }
    refused, told = needs.get(name, ([], ["status study"]))
    for command in refused:
        assert f"{path}" in ask(*command.split(), code=2)
    for command in told:
        assert "damaged" in ask(*command.split())
    for command in ("status", "plan study.yaml", f"show {run}", f"logs {run}", "du", "gc --dry-run"):
        ask(*command.split())
    ask("forget", run, "--yes")
    assert not copy.run(run).exists()


@pytest.mark.parametrize(
    "name", [*OF_A_RUN, "study/plan.json", "study/seeds/1.json", "data/digits.json", "submissions/1.json"]
)
def test_what_draws_and_what_trains_survives_it_too(copy: Store, ask: Ask, name: str) -> None:
    run = victim(copy)
    path = copy.run(run) / name if name in OF_A_RUN else copy.root / name
    DAMAGES["cut"](path)
    for command in SLOW:
        said = ask(*command.split(), code=None)
        assert "Traceback" not in said
    assert {attempt.number for attempt in copy.attempts(run)} == {1}, "nothing trains over it"


def test_run_says_it_does_the_rest_and_fails(copy: Store, ask: Ask) -> None:
    run = victim(copy)
    (copy.run(run) / "outcome.json").write_text("{")
    said = ask("run", "study.yaml", "--device", "cpu", code=1)
    assert f"token:0:student ({run}): damaged (outcome.json) - " in said
    assert f"`deit-ablate forget {run}` clears it" in said
    assert "Damaged: token seed 0 (outcome.json)." in (copy.root / "study" / "table.md").read_text()


def test_a_damaged_plan_is_written_anew_from_the_sweeps_file(copy: Store, ask: Ask) -> None:
    path, before = copy.root / "study" / "plan.json", copy.sweeps.plan("study")
    path.write_text("[]")
    said = ask("run", "study", "--device", "cpu", code=2)
    assert "the path of the sweep's file, which writes it anew" in said
    assert f"{path}: damaged: " in ask("run", "study.yaml", "--device", "cpu")
    after = copy.sweeps.plan("study")
    assert before is not None
    assert after is not None
    assert after["cells"] == before["cells"]


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"looks": [6, 3]}, "growing numbers of seeds"),
        ({"looks": list(range(3, 30))}, "at most 4 items"),
        ({"looks": [3, 10**8]}, "less than or equal to 1000"),
        ({"looks": [3, 6], "baseline_looks": [3]}, "not as many as of the baseline"),
        ({"looks": [3, 6], "population": True}, "looks: for new images"),
        ({"design": {"changes": ["a"], "rows": {"none": [], "token": [1]}, "orders": []}}, "that there is not"),
        ({"design": {"changes": ["a", "a"], "rows": {"none": [], "token": [0]}, "orders": []}}, "or twice"),
        ({"design": {"changes": ["a"], "rows": {"none": [], "token": [0]}, "orders": [[0, 0]]}}, "none of all changes"),
        (
            {"design": {"changes": ["a", "b"], "rows": {"none": [], "token": [0]}, "orders": [[0, 1]]}},
            "without its rows",
        ),
    ],
    ids=str,
)
def test_a_plan_that_cannot_be_judged_by_is_damaged(copy: Store, ask: Ask, values: dict[str, Any], says: str) -> None:
    path = copy.root / "study" / "plan.json"
    path.write_bytes(files.to_json({**json.loads(path.read_bytes()), **values}))
    assert says in ask("table", "study", code=2)


def test_an_index_that_cannot_be_read_is_done_without(copy: Store, ask: Ask) -> None:
    before = ask("table", "study")
    for content in ('{"schema": 2, "runs": {"x": 1}, "recipes": []}', "[1]", "{"):
        (copy.root / "index.json").write_text(content)
        assert ask("table", "study") == before
    _fifo(copy.root / "index.json")
    assert ask("table", "study") == before


@pytest.fixture
def indexed(copy: Store, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The copy, with an index of all its runs although they are few."""
    monkeypatch.setattr(index, "WORTH_AN_INDEX", 1)
    ask("table", "study")
    assert len(json.loads((copy.root / "index.json").read_text())["runs"]) == 5
    return copy


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["recipe.json", "outcome.json"])
def test_an_index_hides_no_damage(indexed: Store, ask: Ask, name: str, damage: str) -> None:
    run = victim(indexed)
    before, path = ask("table", "study"), indexed.run(run) / name
    DAMAGES[damage](path)
    assert "4 done, 1 damaged" in ask("status")
    assert f"damaged ({name})" in ask("status", "study")
    table = ask("table", "study")
    assert f"Damaged: token seed 0 ({name})." in table
    assert row(table) == row(before)
    assert "4 done, 1 damaged" in ask("plan", "study")


def test_an_index_hides_no_attempt_that_was_removed(indexed: Store, ask: Ask) -> None:
    shutil.rmtree(indexed.attempt(victim(indexed), 1).path)
    assert "damaged (outcome.json)" in ask("status", "study")
    assert "Damaged: token seed 0 (outcome.json)." in ask("table", "study")


def test_an_index_hides_no_change_that_kept_size_and_time(indexed: Store, ask: Ask) -> None:
    """Such as `cp --preserve` of an edited file over another."""
    path = indexed.run(victim(indexed)) / "outcome.json"
    content, facts = path.read_bytes(), path.stat()
    known = f'"top1": {json.loads(content)["metrics"]["test"]["top1"]}'.encode()
    path.write_bytes(content.replace(known, b'"top1": 99.0'))
    assert path.stat().st_size == facts.st_size
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert "test top-1 99.00%" in ask("status", "study")
    assert "| 86.50 ±" in next(line for line in ask("table", "study").splitlines() if line.startswith("| token"))


def test_status_and_table_share_an_index_and_plan_writes_none(copy: Store, ask: Ask, monkeypatch: Any) -> None:
    monkeypatch.setattr(index, "WORTH_AN_INDEX", 1)
    before = ask("table", "study")
    (copy.root / "index.json").unlink()
    ask("plan", "study")
    assert not (copy.root / "index.json").exists()
    said = ask("status", "study")
    assert (copy.root / "index.json").exists()
    assert (ask("status", "study"), ask("table", "study")) == (said, before)


def test_a_trial_that_cannot_be_read_is_named(copy: Store) -> None:
    copy.sweeps.request_trial("study", 1, {"row": "a", "params": {}, "run": None})
    path = copy.sweeps.folder("study") / "trials" / "1.json"
    assert copy.sweeps.trial_requests("study")[0]["row"] == "a"
    path.write_text('{"row": 1}')
    with pytest.raises(InputError, match=f"{path}: damaged: row: "):
        copy.sweeps.trial_requests("study")


# -- what parses and does not belong -----------------------------------------------------------------------------------


def _changed(**values: Any) -> Callable[[Store, str], Any]:
    def change(store: Store, run: str) -> None:
        path = store.run(run) / "outcome.json"
        outcome = json.loads(path.read_text())
        for key, value in values.items():
            *steps, last = key.split("__")
            part = outcome
            for step in steps:
                part = part[step]
            part[last] = value
        path.write_text(json.dumps(outcome))

    return change


def _anothers(name: str) -> Callable[[Store, str], Any]:
    def change(store: Store, run: str) -> None:
        other = next(iter(store.runs() - {run}))
        shutil.copyfile(store.run(other) / name, store.run(run) / name)

    return change


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (_anothers("outcome.json"), "the outcome of the run"),
        (_anothers("recipe.json"), "does not give this run's id"),
        (_changed(attempt=2), "names attempt 2, which there is not"),
        (_changed(status="won"), "status: "),
        (_changed(schema=2), "written by a later version"),
        (_changed(schema=10**400), "written by a later version"),
        (_changed(schema="1"), "schema is no number"),
        (_changed(metrics__test__top1=100.5), "top1 is no percentage"),
        (_changed(metrics__test__top1_class=float("nan")), "top1_class is no percentage"),
        (_changed(metrics__test__images=-1), "images is no count"),
        (_changed(metrics__test__classes=0), "classes is no count"),
        (_changed(cost__train_seconds=float("inf")), "cost.train_seconds: "),
        (_changed(cost__parameters=10**30), "cost.parameters: "),
    ],
)
def test_a_record_that_does_not_belong_is_damaged(copy: Store, change: Callable[[Store, str], Any], why: str) -> None:
    run = victim(copy)
    change(copy, run)
    state = copy.state(run, {})
    assert state.name == "damaged"
    assert why in str(copy.damage(run))
    assert copy.result(run) is None


@pytest.mark.parametrize("loss", [float("nan"), float("inf"), 1e308])
def test_a_loss_may_be_any_number(copy: Store, loss: float) -> None:
    run = victim(copy)
    _changed(status="diverged", metrics__train_loss=loss, metrics__validation__loss=loss)(copy, run)
    assert copy.state(run, {}).name == "diverged"


def test_a_later_version_may_add_keys(copy: Store) -> None:
    run = victim(copy)
    _changed(added={"later": 1}, metrics__added=[1])(copy, run)
    assert copy.state(run, {}).name == "done"


# -- runs that have not finished ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["owner.json", "exit.json"])
def test_an_open_attempt_of_nobody_is_forgotten_on_a_users_word(copy: Store, ask: Ask, name: str) -> None:
    run = victim(copy)
    (copy.run(run) / "outcome.json").unlink()
    attempt = copy.attempt(run, 1)
    (attempt.path / "exit.json").unlink()
    (attempt.path / "owner.json").write_text(json.dumps({**attempt.owner, "boot": "another", "machine": "another"}))
    (attempt.path / name).write_text("{")
    assert copy.state(run, {}).name == "damaged"
    said = ask("forget", run, "--yes", code=2)
    assert f"`deit-ablate release {run}` first" in said
    assert "released" in ask("release", run, "--yes")
    if name == "owner.json":  # otherwise it is known whose it is, and that this one is not known to be gone
        ask("forget", run, "--yes")
        assert not copy.run(run).exists()
    else:
        assert copy.state(run, {}).name == "resumable"


def test_children_of_a_damaged_run_are_blocked_and_a_cancel_comes_first(copy: Store) -> None:
    run = victim(copy)
    (teacher,) = (parent["run"] for parent in (copy.recipe(run) or {})["parents"].values())
    (copy.run(run) / "outcome.json").unlink()
    shutil.rmtree(copy.attempt(run, 1).path)
    (copy.run(teacher) / "outcome.json").write_text("")
    states = copy.states({teacher: [], run: [teacher]})
    assert str(states[teacher]) == "damaged (outcome.json)"
    assert str(states[run]) == f"blocked ({teacher})"
    copy.cancel(teacher)
    assert copy.state(teacher, {}).name == "cancelled"


def test_a_hold_that_cannot_be_read_holds(copy: Store, ask: Ask) -> None:
    path = copy.sweeps.folder("study") / "held.json"
    path.write_text("[")
    assert str(path) in str(copy.sweeps.held("study"))
    ask("retry", "study", "--device", "cpu")
    assert not path.exists()


# -- arrays ------------------------------------------------------------------------------------------------------------


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path("executed").touch, ()


def _npz(**arrays: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def _header(shape: tuple[int, ...]) -> bytes:
    """An archive whose array claims a shape that its content has not."""
    array, buffer = io.BytesIO(), io.BytesIO()
    np.lib.format.write_array_header_1_0(array, {"descr": "<i8", "fortran_order": False, "shape": shape})  # type: ignore[arg-type]
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("test_targets.npy", array.getvalue() + bytes(80))
    return buffer.getvalue()


TRUE = np.arange(IMAGES)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no archive",
        _npz(test_targets=np.array([Evil()] * IMAGES, dtype=object)),
        _npz(test_targets=np.zeros(1 << 20, dtype=np.int64)),
        _npz(test_targets=TRUE, test_pred_class=TRUE[:-1]),
        _npz(test_targets=TRUE, test_pred_class=TRUE / 2),
        _npz(test_targets=TRUE, test_pred_class=TRUE.reshape(2, -1)),
        _npz(test_targets=TRUE, token_similarity=np.array("text")),
        _npz(test_targets=TRUE)[:-30],
        _header((1 << 50,)),
        _header((-5,)),
    ],
    ids=["empty", "no zip", "pickled", "bomb", "lengths", "floats", "shape", "text", "cut", "claims much", "negative"],
)
def test_arrays_that_no_run_writes_are_refused_unexecuted(
    copy: Store, ask: Ask, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "MOST_ARRAYS", 1 << 20)
    run = victim(copy)
    _keep_arrays(copy, run, content)
    for command in ("disagree study", "tokens study"):
        assert f"error: {copy.attempt(run, 1).arrays}: damaged: " in ask(*command.split(), code=2)
    assert not Path("executed").exists()
