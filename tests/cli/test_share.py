"""bundle and reproduce: what is shared is trained anew elsewhere, and what was tampered with is one error."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import CUSTOM_MODELS, TINY, Ask, Command, change

from deit_ablate import __version__, files
from deit_ablate.identity import SEMANTICS
from deit_ablate.store import Store

SWEEP = """
title: Teachers `and` students
seeds: 3
baseline: none
execution: {device: cpu, threads: 1, data_dir: /home/alice/pictures}  # https://alice@example.org
stages:
  teacher: {recipe: {model: {name: "mylab:plain"}}, seeds: [0]}
  student: {teacher: teacher}
variants:
  none: {}
  soft: {distill.type: soft}
  never: {distill.type: hard, schedule.epochs: 3}
"""
PLAIN = CUSTOM_MODELS + "\n\ndef plain(shape):\n    return Linear(shape, lambda: 1)\n"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, warm_python: list[str]) -> Path:
    """A folder with a study of two rows (a third was never trained) with custom code, and its bundle."""
    folder = tmp_path_factory.mktemp("shared")
    (folder / "own").mkdir()
    (folder / "own" / "mylab.py").write_text(PLAIN)
    (folder / "study.yaml").write_text(TINY + SWEEP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(folder / "own"))
        command = Command(folder, warm_python)
        command("run", "study.yaml", "--only", "none", "--only", "soft", "--data-dir", "own")
        command("bundle", "study", "-o", "bundle")
        command("bundle", "study.yaml:soft", "-o", "soft.zip")
    return folder


@pytest.fixture
def bundle(shared: Path, tmp_path: Path) -> Path:
    """A copy of the bundle, in a folder without the study and without its code."""
    return Path(shutil.copytree(shared / "bundle", tmp_path / "bundle"))


@pytest.fixture(scope="module")
def trained(shared: Path, warm_python: list[str]) -> Path:
    """A student and its teacher, trained anew."""
    done = Command(shared, warm_python)("reproduce", "bundle", "--run", "soft:1", "--results", "anew")
    assert done.stdout.splitlines()[-1] == "reproduced: same bits (weights, metrics, predictions)"
    return shared / "anew"


def last(text: str) -> str:
    return text.splitlines()[-1]


def run_of(bundle: Path, name: str) -> str:
    cells = json.loads((bundle / "records" / "plan.json").read_text())["cells"]
    return next(str(run) for variant, seed, stage, run in cells if f"{variant}:{seed}:{stage}" == name)


def seal(bundle: Path, **values: Any) -> None:
    """Write the manifest anew, as one who tampers would."""
    manifest = {**json.loads((bundle / "manifest.json").read_text()), **values}
    for name in list(manifest["files"]):
        path = bundle / name
        if path.is_file():
            manifest["files"][name] = {"bytes": path.stat().st_size, "sha256": files.sha256(path)}
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def test_a_student_is_trained_anew_with_its_teacher_and_its_code(trained: Path, shared: Path) -> None:
    store = Store(trained)
    student = run_of(shared / "bundle", "soft:1:student")
    (teacher,) = (parent["run"] for parent in (store.recipe(student) or {})["parents"].values())
    assert store.runs() == {student, teacher}, "one cell, and what it depends on"
    assert (store.recipe(teacher) or {})["sources"].keys() == {"mylab"}


def test_the_cheapest_run_of_a_zipped_row_as_one_json_object(shared: Path, command: Command) -> None:
    shutil.copy(shared / "soft.zip", command.folder)
    answer = json.loads(command("reproduce", "soft.zip", "--json").stdout)
    assert answer["verdict"] == "same bits"
    assert answer["recorded"] == answer["now"]
    assert answer["seeds"] == 3
    assert answer["run"] in {run_of(shared / "bundle", f"soft:{seed}:student") for seed in range(3)}
    assert {path.name for path in command.folder.iterdir()} >= {"soft.zip", "reproduced"}


def test_other_bits_are_judged_by_the_rows_interval(trained: Path, bundle: Path, command: Command) -> None:
    student = run_of(bundle, "soft:1:student")
    store = Store(Path(shutil.copytree(trained, command.folder / "anew")))
    recorded = (store.outcome(student) or {})["metrics"]["test"]["top1"]
    arguments = ("reproduce", "bundle", "--run", student[:8], "--results", "anew")
    change(store, student, weights_sha256="0" * 64, metrics__test__top1=recorded + 0.01)
    said = last(command(*arguments).stdout)
    assert re.fullmatch(
        r"reproduced: within the interval \(other bits; test top-1 [\d.]+%, recorded [\d.]+%; in -?[\d.]+% to [\d.]+%, "
        r"the 95% prediction interval of the row 'soft' for one more seed \(t, from 3 seeds\)\)",
        said,
    )
    change(store, student, metrics__test__top1=100.0)
    answer = json.loads(command(*arguments, "--json", code=1).stdout)
    assert answer["verdict"] == "not reproduced"
    assert answer["interval"][1] < 100
    change(store, student, data__fingerprint="other", provenance__packages__torch="0.1")
    assert "not reproduced: the data are others" in last(command(*arguments, code=1).stdout)
    assert re.search(r"made with: torch \S+ -> 0\.1", command(*arguments, code=1).stdout)


def test_a_row_that_starts_from_another_sweeps_run_is_trained_anew_with_it(
    command: Command, sweep: Callable[..., Path]
) -> None:
    stages = "stages: {teacher: {seeds: [0], recipe: {augment: {mixup: 0}}}, student: {teacher: teacher}}\n"
    sweep(f"seeds: 1\n{stages}variants: {{c: {{distill.type: soft}}}}\n", name="first")
    sweep('seeds: 1\nbaseline: a\nvariants: {a: {}, b: {model: {init: "first:c:0"}}}\n')
    command("run", "first.yaml")
    command("run", "tiny.yaml")
    assert "4 runs" in command("keep", "tiny", "--to", "kept").stdout
    assert "4 runs imported" in command("import", "kept", "--results", "brought").stdout
    assert "4 runs" in command("bundle", "tiny:b", "-o", "b.zip").stdout
    said = command("reproduce", "b.zip", "--run", "b:0").stdout
    assert last(said) == "reproduced: same bits (weights, metrics, predictions)"


def test_a_record_does_not_reproduce_itself(shared: Path, bundle: Path, command: Command) -> None:
    shutil.copytree(shared / "results", command.folder / "results")
    assert "it holds the record of" in command("reproduce", "bundle", "--results", "results", code=2).stderr


def test_another_sweep_of_its_name_is_left_as_it_is(shared: Path, bundle: Path, command: Command) -> None:
    store = Store(command.folder / "mine")
    plan = json.loads((bundle / "records" / "plan.json").read_text())
    store.sweeps.save_plan("study", {**plan, "title": "mine"})
    refused = command("reproduce", "bundle", "--results", "mine", code=2)
    assert "mine: it holds another sweep 'study'" in refused.stderr
    assert (store.sweeps.plan("study") or {})["title"] == "mine"
    assert not store.runs()


def test_a_bundle_tells_how_and_nothing_private(shared: Path, bundle: Path) -> None:
    assert {path.name for path in bundle.iterdir()} == {
        *("README.md", "Makefile", "manifest.json", "requirements.lock.txt", "table.md", "report.html"),
        *("records", "recipes", "sweep", "sources", "package"),
    }
    assert (bundle / "sources" / "mylab.py").read_text() == PLAIN
    sweep = (bundle / "sweep" / "study.yaml").read_text()
    assert 'data_dir: "[path]"}  # [url]' in sweep
    assert sweep.count("\n") == (shared / "study.yaml").read_text().count("\n")
    for path in bundle.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert b"alice" not in content, path
        assert str(shared).encode() not in content, path
    lock = (bundle / "requirements.lock.txt").read_text().splitlines()
    assert any(re.match(r"torch==[\d.]+( |$)", line) for line in lock)
    assert lock[-1] == f"./package/{next((bundle / 'package').iterdir()).name}"
    readme = (bundle / "README.md").read_text()
    assert readme.startswith("# Teachers  and  students\n")
    assert "95% prediction interval" in readme
    assert "soft:1:student" in readme
    assert "never:0:student" not in readme
    assert (bundle / "table.md").read_text() in Command(shared)("table", "study").stdout


def test_equal_studies_give_equal_bundles(shared: Path, bundle: Path, command: Command, tmp_path: Path) -> None:
    environment = {**command.environment, "PYTHONPATH": str(shared / "own")}
    Command(shared, command.python_m, environment)("bundle", "study", "-o", tmp_path / "again")
    first, second = (json.loads((folder / "manifest.json").read_text()) for folder in (bundle, tmp_path / "again"))
    assert first == second


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
def test_make_reproduces_in_an_environment_of_its_own(bundle: Path, cold_command: Command, tmp_path: Path) -> None:
    packages = tmp_path / "packages"  # what a registry would give; not this package, which the bundle has to bring
    packages.mkdir()
    for path in Path(sysconfig.get_path("purelib")).iterdir():
        if path.suffix != ".pth" and not path.name.startswith("deit_ablate"):
            (packages / path.name).symlink_to(path)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", bundle / ".venv"], check=True)  # pip is there
    (site,) = (bundle / ".venv" / "lib").glob("python*/site-packages")
    (site / "packages.pth").write_text(f"{packages}\n")
    done = subprocess.run(
        ["make", "reproduce", "PIP_ARGS=--no-deps --no-index"],
        cwd=bundle,
        env={name: value for name, value in cold_command.environment.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert last(done.stdout) == "reproduced: same bits (weights, metrics, predictions)"
    assert (site / "deit_ablate" / "__init__.py").is_file()


Tamper = Callable[[Path], object]


def write(name: str, content: bytes) -> Tamper:
    return lambda bundle: (bundle / name).write_bytes(content)


def linked(bundle: Path) -> None:
    (bundle / "table.md").rename(bundle.parent / "moved")
    (bundle / "table.md").symlink_to(bundle.parent / "moved")


def linked_folder(bundle: Path) -> None:
    (bundle / "recipes").rename(bundle.parent / "moved")
    (bundle / "recipes").symlink_to(bundle.parent / "moved")


def escaping(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    (bundle.parent / "x").write_bytes(b"x")
    digest = hashlib.sha256(b"x").hexdigest()
    seal(bundle, files={**manifest["files"], "../x": {"bytes": 1, "sha256": digest}})


def huge(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["table.md"]["bytes"] = 1 << 50
    (bundle / "manifest.json").write_text(json.dumps(manifest))


def another_record(bundle: Path) -> None:
    path = bundle / "records" / "records.jsonl"
    path.write_text(path.read_text().replace('"drop_path": 0.1', '"drop_path": 0.2'))
    seal(bundle)


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (
            write("table.md", b"| better |"),
            "bundle/table.md: damaged: its content is not the one that manifest.json names",
        ),
        (lambda bundle: (bundle / "Makefile").unlink(), "bundle/Makefile: damaged: missing"),
        (lambda bundle: (bundle / "manifest.json").unlink(), "bundle: no manifest.json here"),
        (write("manifest.json", b"{"), "bundle/manifest.json: damaged: not JSON, or cut short"),
        (linked, "bundle/table.md: damaged: a link, which is not followed"),
        (linked_folder, "in a folder that is a link"),
        (escaping, "bundle/manifest.json: damaged: files: Value error, '../x' is no path in a bundle"),
        (another_record, "bundle/records/records.jsonl:1:1: damaged: its recipe does not give this id"),
        (huge, "more than 1,000,000 files, or"),
        (lambda bundle: seal(bundle, semantics=SEMANTICS - 1), f"SEMANTICS {SEMANTICS - 1}, here {SEMANTICS}"),
        (lambda bundle: seal(bundle, schema=2), "written by a later version of deit-ablate"),
    ],
)
def test_a_bundle_that_was_tampered_with_is_one_error(
    bundle: Path, ask: Ask, tmp_path: Path, tamper: Tamper, said: str
) -> None:
    tamper(bundle)
    refused = ask("reproduce", "bundle")
    assert refused.code == 2
    assert said in refused.err
    assert refused.err.count("\n") == 1
    assert not (tmp_path / "reproduced").exists()


def rezip(path: Path, entries: dict[str, bytes], mode: int = 0o100644) -> None:
    """The archive with further entries, or others in place of its own."""
    with zipfile.ZipFile(path) as archive:
        before = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**before, **entries}.items():
            entry = zipfile.ZipInfo(name)
            entry.external_attr = (mode if name in entries else 0o100644) << 16
            archive.writestr(entry, content)


def bomb(path: Path) -> None:
    """One that says that it unpacks to more than a disk would hold."""
    with zipfile.ZipFile(path) as archive:
        manifest = json.loads(archive.read("soft/manifest.json"))
    manifest["files"]["table.md"]["bytes"] = 1 << 35
    rezip(path, {"soft/manifest.json": json.dumps(manifest).encode()})


@pytest.mark.parametrize(
    ("tamper", "said"),
    [
        (bomb, "which is more than 100 times its size"),
        (lambda path: rezip(path, {"../evil.py": b"x"}), "'../evil.py' has no place in a bundle"),
        (lambda path: rezip(path, {"soft/../evil.py": b"x"}), "has no place in a bundle"),
        (lambda path: rezip(path, {"/evil.py": b"x"}), "has no place in a bundle"),
        (lambda path: rezip(path, {"soft/sources/evil.py": b"x"}), "manifest.json does not list it"),
        (lambda path: rezip(path, {"soft/table.md": b"/etc/passwd"}, stat.S_IFLNK | 0o777), "is a link"),
        (lambda path: rezip(path, {"soft/table.md": b"x"}), "soft.zip/table.md: damaged: its content is not the one"),
        (lambda path: path.write_bytes(path.read_bytes()[:-100]), "no sound zip archive"),
        (lambda path: path.unlink(), "no such file or folder"),
    ],
)
def test_an_archive_that_was_tampered_with_is_one_error(
    shared: Path, ask: Ask, tmp_path: Path, tamper: Tamper, said: str
) -> None:
    tamper(Path(shutil.copy(shared / "soft.zip", tmp_path)))
    refused = ask("reproduce", "soft.zip")
    assert refused.code == 2
    assert said in refused.err
    assert refused.err.count("\n") == 1
    assert not list(tmp_path.rglob("evil*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bundle", "studi"], "no sweep 'studi' in results; did you mean 'study'?"),
        (["bundle", "study:sofd"], "no row 'sofd'; did you mean 'soft'?"),
        (["bundle", "study:never"], "study:never: no run of it is done"),
        (["bundle", "study", "-o", "own"], "own: exists already; expected a new or empty folder, or a new .zip"),
        (["bundle", "study", "-o", "soft.zip"], "soft.zip: exists already"),
        (["bundle", "study", "-o", "no/where"], "no: no such folder"),
        (["reproduce", "bundle", "--run", "soft:7"], "bundle: --run: no run 'soft:7' that is done; expected none:0:"),
        (["reproduce", "bundle", "--run", "never:0"], "bundle: --run: no run 'never:0' that is done"),
        (["reproduce", "bundle", "--file", "w.pth"], "w.pth: --file: no such file"),
        (["reproduce", "study.yaml"], "study.yaml: damaged: no sound zip archive"),
        (["reproduce", "own"], "own: no manifest.json here"),
    ],
)
def test_bad_input_is_one_error_and_changes_nothing(
    shared: Path, command: Command, arguments: list[str], said: str
) -> None:
    before = sorted(shared.iterdir())
    environment = {**command.environment, "PYTHONPATH": str(shared / "own")}
    refused = Command(shared, command.python_m, environment)(*arguments, code=2)
    assert said in refused.stderr
    assert refused.stderr.count("\n") == 1
    assert sorted(shared.iterdir()) == before


def test_code_that_has_changed_is_not_passed_off_as_the_runs(shared: Path, command: Command) -> None:
    (command.folder / "mylab.py").write_text(PLAIN.replace("lambda: 1)", "lambda: 2)"))
    environment = {**command.environment, "PYTHONPATH": str(command.folder)}
    refused = Command(shared, command.python_m, environment)("bundle", "study", "-o", command.folder / "b", code=2)
    assert "the source of mylab has changed since the runs were trained" in refused.stderr
    assert not (command.folder / "b").exists()


def test_another_version_with_the_same_recipes_is_announced(trained: Path, bundle: Path, command: Command) -> None:
    shutil.copytree(trained, command.folder / "anew")
    seal(bundle, version="0.0.9")
    said = command("reproduce", "bundle", "--run", "soft:1", "--results", "anew").stdout
    assert f"made with deit-ablate 0.0.9; this is {__version__}" in said
