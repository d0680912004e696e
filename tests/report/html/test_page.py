"""The page of a sweep: what it says, that it is one file of its own, and what a real browser makes of it."""

from __future__ import annotations

import html
import itertools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from browser import Browser
from studies import Shipped, Study
from support import SWEEPS, Command

from deit_ablate import files
from deit_ablate.report import write
from deit_ablate.report.frame import NoSweep
from deit_ablate.report.html import index, page, write_index, write_page
from deit_ablate.report.redaction import NAME, PATH, Redactor, user_names
from deit_ablate.report.summary import summarize
from deit_ablate.report.write import parts
from deit_ablate.store import Store

HOSTILE = '<script>document.title="run by a name"</script>"\'><img src=x onerror=\'document.title="run"\'>\u202eevil\x1b[31m\x00&amp;'
ATTACKS = (
    HOSTILE,
    "</style></script><script>document.title='run'</script>",
    "javascript:document.title='run'",
    "a --only $(reboot)",
)
Make = Callable[..., Any]


def text_of(document: str) -> str:
    """What a reader sees of a page, about: no elements, entities resolved."""
    body = re.sub(r"<(style|script).*?</\1>", "", document, flags=re.S)
    return html.unescape(re.sub(r"<[^>]+>", "", body))


def rewrite(root: Path, name: str, change: Callable[[dict[str, Any]], None], pattern: str = "runs/*/{}") -> None:
    """Change stored files as if they had been written so."""
    for path in root.glob(pattern.format(name)):
        content = json.loads(path.read_bytes())
        change(content)
        files.replace(path, files.to_json(content))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        yield opened


def judged_study(root: Path) -> Study:
    """Worked by hand: 'low' is 2 below at every seed but for 0.2, 'same' differs by nothing that lasts."""
    made = Study(
        root,
        {
            "base": {0: 90.0, 1: 90.5, 2: 91.0, 3: 90.2, 4: 90.7},
            "low": {0: 88.0, 1: 88.6, 2: 89.1, 3: 88.0, 4: 88.8},
            "same": {0: 91.1, 1: 89.6, 2: 91.8, 3: 89.5, 4: 91.4},
        },
        name="judged",
        title="A judged study",
        baseline="base",
        differs={"low": {"optimizer.name": ["adamw", "sgd"]}, "same": {"augment.mixup": [0.8, 0]}},
    )
    plan = made.store.sweeps.plan("judged") | {
        "margin": 0.5,
        "asked": {"profile": "digits", "sets": [], "seeds": 5, "name": None},
    }
    made.store.sweeps.save_plan("judged", plan | {"source": "../sweeps/judged.yaml"})
    return made


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """To be read: most of these tests look at one page, whose figures take a second to draw."""
    return judged_study(tmp_path_factory.mktemp("judged") / "results")


@pytest.fixture(scope="module")
def judged_page(judged: Study) -> Path:
    return write_page(judged.summary())


# -- what it says --------------------------------------------------------------------------------------------------


def test_findings_are_sentences(judged: Study, judged_page: Path) -> None:
    said = text_of(judged_page.read_text())
    assert "2 rows were compared with the baseline: 1 worse and 1 undecided." in said
    # differences −2.0, −1.9, −1.9, −2.2, −1.9: mean −1.98
    assert re.search(
        r"low is worse than base by 1\.98 points \(95% interval −[\d.]+ to −[\d.]+, p [=<] [\d.]+ after Holm, 5 against 5 runs\)\.",
        said,
    )
    assert re.search(r"same: undecided; (about|more than) \d+ seeds", said)
    assert "The baseline base reached 90.48 ± " in said
    assert "Changed: optimizer: adamw → sgd" in said
    for asked in ("A judged study", "digits", "±0.5 points of top-1", "5 (0 to 4)", "15 done"):
        assert asked in said
    for explained in ("How to read this", "Holm", "Not covered", "CPU-hours"):
        assert explained in said
    assert "deit-ablate run sweeps/judged.yaml --profile digits --seeds 5 --only low" in said
    for run in judged.runs.values():
        assert run in said
    assert "low − same" in said, "two rows of which neither is the baseline can be compared too"


def test_the_verdict_comes_first(judged_page: Path) -> None:
    text = judged_page.read_text()
    assert (
        text.index("is worse than")
        < text.index('class="facts"')
        < text.index("How to read this")
        < text.index("All rows")
    )
    head = re.findall(r'<th scope="col"[^>]*>([^<]+)', text[text.index('class="sortable main"') :])
    assert head[:5] == ["variant", "difference", "verdict", "differs in", "test top-1 (%)"]
    assert "<details open" not in text


def test_footnotes_and_columns_are_the_tables(judged: Study, judged_page: Path) -> None:
    from deit_ablate.report.tables.table import sweep_table

    said, table = text_of(judged_page.read_text()), sweep_table(judged.summary())
    for note in table.footnotes:
        assert note in said
    for row in table.rows():
        for cell in row:
            assert cell in said


def test_failures_come_with_their_logs(optimizers: Any) -> None:
    run = optimizers.runs["lamb", 2]
    log = optimizers.store.attempts(run)[-1].log
    log.write_text("\n".join(f"line {i} of <b>the log</b>\x1b[31m" for i in range(100)) + "\n")
    document = page(optimizers.summary())
    said = text_of(document)
    assert "Runs that failed or diverged (2)" in said
    assert "It said: it fell over" in said
    assert "line 99 of <b>the log</b>" in said
    assert "line 70 of" in said
    assert "line 69 of" not in said, "at most 30 lines"
    assert "\x1b" not in document


@pytest.mark.parametrize(
    "rows",
    [
        {"one": {0: 90.0}},
        {"one": {0: "missing"}},
        {"one": {0: "missing"}, "two": {0: "running"}},
        {"one": {0: 90.0, 1: 90.0, 2: 90.0}, "two": {0: 90.0, 1: 90.0, 2: 90.0}},
        {
            "one": {0: 90.0, 1: "running", 2: "missing"},
            "two": {0: {"status": "diverged", "epochs": 1}, 1: "failed", 2: 80.0},
        },
        {"one": {0: {"status": "diverged", "history": []}}, "two": {0: "failed"}},
        {f"row {i}": {0: 50.0 + i / 2} for i in range(64)},
    ],
    ids=["one row", "nothing", "running", "no spread", "unfinished", "all lost", "many rows"],
)
@pytest.mark.parametrize("redact", [False, True], ids=["as it is", "redacted, with a baseline"])
def test_sweeps_in_every_state(study: Make, rows: dict[str, Any], redact: bool) -> None:
    made = study(rows, baseline=next(iter(rows)) if redact else None)
    document = page(made.summary(), redact=redact)
    said = text_of(document)
    assert "nan" not in said.replace("Baseline", "").lower().replace("provenance", "")
    assert not re.search(r"\b(None|inf)\b", said)
    assert len(re.findall(r"<(?:section|div|table|details|ul|li|figure|dl)\b", document)) == len(
        re.findall(r"</(?:section|div|table|details|ul|li|figure|dl)>", document)
    )


@pytest.mark.parametrize("sweep", [name.removesuffix(".yaml") for name in SWEEPS])
def test_every_shipped_sweep_has_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sweep: str) -> None:
    """Of the plan as it is written, where what a sweep does not have is no key. Without figures, which take seconds."""
    monkeypatch.setitem(page.__globals__, "figures", lambda made: [])
    monkeypatch.setattr(write, "parts", lambda summary: without_figures(parts(summary)))
    made = Shipped(tmp_path, sweep, lambda cell: 80.0 + 0.1 * cell.seed, seeds=1)
    said = text_of(page(made.summary()))
    assert "What was found" in said
    assert ("this step alone" in said) == (made.plan.sweep.kind == "cumulative")


def without_figures(modules: dict[str, ModuleType]) -> dict[str, Any]:
    return {name: SimpleNamespace(table=module.table, figures=lambda summary: {}) for name, module in modules.items()}


def test_no_sweep(tmp_path: Path) -> None:
    with pytest.raises(NoSweep):
        page(summarize(Store(tmp_path), "nowhere"))


# -- one file, the same bytes --------------------------------------------------------------------------------------


def test_the_same_records_give_the_same_bytes(optimizers: Any, tmp_path: Path) -> None:
    first = write_page(optimizers.summary()).read_bytes()
    copy = tmp_path / "elsewhere" / "copied"
    shutil.copytree(optimizers.root, copy)
    assert page(summarize(Store(copy), "optimizers")).encode() == first
    code = (
        "import sys; from deit_ablate.report.html import page; from deit_ablate.report.summary import summarize; "
        "from deit_ablate.store import Store; "
        "sys.stdout.buffer.write(page(summarize(Store(sys.argv[1]), 'optimizers')).encode())"
    )
    again = subprocess.run(
        [sys.executable, "-c", code, str(optimizers.root)],
        capture_output=True,
        env={"PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo", "PYTHONPATH": str(Path(__file__).parents[3])},
    )
    assert again.stdout == first, again.stderr


def test_nothing_is_loaded_from_elsewhere(judged_page: Path) -> None:
    document = judged_page.read_text()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]+)"', document)
    assert policy
    assert "default-src 'none'" in policy[1]
    assert "unsafe" not in policy[1]
    assert not re.search(r"""(?:src|href|action|data|poster|srcset)=["'](?!#|data:)""", document)
    assert not re.search(r"@import|url\((?!data:|#)|\bfetch\(|XMLHttpRequest|https?://", document)
    assert " style=" not in document


# -- what is left out ----------------------------------------------------------------------------------------------


def test_redaction(tmp_path: Path) -> None:
    judged = judged_study(tmp_path)
    secrets = ("gpu-node17", "alice", "phys-lab", "/home", "/scratch", "10.1.2.3", "SECRET_DIFF")
    run = judged.runs["low", 0]

    def provenance(outcome: dict[str, Any]) -> None:
        outcome["provenance"] |= {
            "hardware": {"host": "gpu-node17.cluster.lab.edu", "cpu": "EPYC"},
            "command": "deit-ablate run /home/alice/my sweeps/x.yaml --data-dir=/scratch/alice --slurm.account=phys-lab --slurm.account phys-lab",
            "git": {"commit": "c" * 40, "dirty": True, "diff": "+ SECRET_DIFF = 1"},
        }

    rewrite(judged.root, "outcome.json", provenance)
    failed = judged.runs["same", 4]
    (judged.store.run(failed) / "outcome.json").unlink()
    attempt = judged.store.attempts(failed)[-1]
    (attempt.path / "exit.json").unlink(missing_ok=True)
    attempt.close("crash", "no file '/home/alice/data/x.npz' on gpu-node17")
    lines = (
        "gpu-node17:123:456 [0] NCCL INFO",
        "[gpu-node17]:29500 10.1.2.3 refused",
        "hello alice@login.lab.edu",
        "ALICE was here",
        '  File "/home/alice/code/train.py", line 3',
        "gpu-\u200bnode17 hidden",
        "saved to ~alice/out, /scratch/alice/b c",
    )
    attempt.log.write_text("\n".join(lines))
    open_ = text_of(page(judged.summary()))
    for secret in secrets:
        assert secret in open_, secret
    closed = page(judged.summary(), redact=True)
    for secret in (*secrets, "ALICE", "node17", "login.lab.edu"):
        assert secret.lower() not in closed.lower(), secret
    said = text_of(closed)
    assert "train.py" in said
    assert "line 3" in said, "a traceback is still of use"
    assert run in said
    assert "left out" in said


def test_redaction_leaves_the_rest_alone() -> None:
    redactor = Redactor(frozenset({"vm"}), frozenset({"bob"}))
    for kept in (
        "acc@1 83.3, 3/4 and/or sweeps/x.yaml",
        "optimizer: adamw → sgd; base_lr 0.03 → 0.8",
        "a / b",
        "torch 2.14.1",
        "12:30:45",
        'open(a.output + "/summary.csv")',
    ):
        assert redactor(kept) == kept
    assert redactor("at C:\\Users\\bob\\x and ../../bob/y") == f"at {PATH} and {PATH}"
    assert redactor("'/scratch' and \"/scratch/summary.csv\"") == f"'{PATH}' and \"{PATH}\""
    assert redactor("bob's vm.lab.edu") == f"{NAME}'s [host]"
    assert redactor("see https://wiki.lab.edu/x?y") == "see [url]"
    assert user_names(["/home/bob/x", "~eve/y", "C:\\Users\\carol\\z"]) == {"bob", "eve", "carol"}


# -- the index and the command -------------------------------------------------------------------------------------


def test_the_index_writes_what_is_missing_or_older(optimizers: Any) -> None:
    root = optimizers.root
    report = root / "optimizers" / "report.html"
    first = write_index(optimizers.store)
    assert first.pages == (report,)
    said = text_of(first.index.read_text())
    assert "Optimizer ablation" in said
    assert "7 done, 1 diverged, 1 failed" in said
    assert 'href="optimizers/report.html"' in first.index.read_text()
    assert write_index(optimizers.store).pages == (), "nothing has changed"
    plan = optimizers.store.sweeps.plan("optimizers")
    optimizers.store.sweeps.save_plan("optimizers", plan | {"title": "Another title"})
    assert write_index(optimizers.store).pages == (report,)
    assert "Another title" in report.read_text()
    assert write_index(optimizers.store, redact=True).pages == (report,), "what was written was not redacted"
    (root / "broken").mkdir()
    (root / "broken" / "plan.json").write_text("{}")
    written = write_index(optimizers.store, redact=True)
    assert set(written.unreadable) == {"broken"}
    assert "Another title" in text_of(written.index.read_text())


def test_an_error_of_ours_leaves_the_index_its_other_sweeps(study: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [study({"a": {0: 90.0}}, name=name, title=f"Title {name}") for name in ("first", "second")]
    real = index._write
    monkeypatch.setattr(index, "_write", lambda of, now: 1 // (of.summary.sweep != "first") and real(of, now))
    with pytest.raises(ZeroDivisionError):
        write_index(made[0].store)
    said = text_of((made[0].root / "index.html").read_text())
    assert "Title second" in said
    assert (made[0].root / "second" / "report.html").exists()


def test_the_command(optimizers: Any, tmp_path: Path, command: Command) -> None:
    def run(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        return command("report", *arguments, "--results", str(optimizers.root), code=code)

    done = run("optimizers")
    assert done.stdout.strip() == str(optimizers.root / "optimizers" / "report.html")
    run("optimizers", "--redact", "--output", str(tmp_path / "x.html"))
    assert "redacted" in (tmp_path / "x.html").read_text()[:1500]
    assert run("--all").stdout.strip().endswith("index.html")
    for wrong in ((), ("optimizers", "--all"), ("optimisers",), ("--all", "--output", "x")):
        run(*wrong, code=2)


# -- in a browser --------------------------------------------------------------------------------------------------


def test_it_works_in_a_browser(browser: Browser, judged_page: Path) -> None:
    path = judged_page
    for dark in (True, False):
        browser.open(path, dark=dark)
        assert browser.messages == []
        assert browser.requests == [path.resolve().as_uri()]
    first_cells = "[...document.querySelectorAll('table.main tbody tr')].map(row => row.cells[0].textContent)"
    sorted_by = "document.querySelectorAll('table.main th')[4].getAttribute('aria-sort')"
    button = "table.main thead th:nth-child(5) button"
    planned = browser.evaluate(first_cells)
    browser.click(*browser.middle(button))
    assert browser.evaluate(sorted_by) == "ascending"
    assert browser.evaluate(first_cells) == ["low", "base (baseline)", "same"]
    browser.evaluate(f"document.querySelector('{button}').focus()")
    browser.press("Enter", 13, "\r")
    assert browser.evaluate(sorted_by) == "descending"
    assert browser.evaluate(first_cells) == ["same", "base (baseline)", "low"]
    browser.press(" ", 32, " ")
    assert browser.evaluate(sorted_by) == "none"
    assert browser.evaluate(first_cells) == planned

    tip = "(document.querySelector('.tip') || {}).textContent"
    assert browser.evaluate(tip) is None
    browser.move(*browser.middle(".plot-area"))
    assert re.match(r"epoch \dsame[\d.]+|epoch \dbase[\d.]+", browser.evaluate(tip))
    browser.move(1, 1)
    assert browser.evaluate(tip) is None
    browser.evaluate("document.querySelector('.plot-area').focus()")
    browser.press("Home", 36)
    assert browser.evaluate(tip).startswith("epoch 2"), "the first epoch that was recorded, counted from 1"
    browser.press("ArrowRight", 39)
    assert browser.evaluate("document.querySelector('.plot-area').getAttribute('aria-valuetext')").startswith(
        "epoch 3: "
    )
    assert browser.messages == []


def test_no_page_is_wider_than_its_screen(browser: Browser, judged: Study, judged_page: Path, study: Make) -> None:
    long = "averylongname" * 12
    paths = [judged_page, write_index(judged.store).index]
    made = study(
        {long: {0: 90.0, 1: 91.0, 2: 92.0}, f"{long}2": {0: 80.0, 1: 81.0, 2: 85.0}},
        name="wide",
        title=long,
        baseline=long,
    )
    paths.append(write_page(made.summary()))
    for path, width in itertools.product(paths, (320, 360, 768)):
        browser.open(path, width=width, height=740)
        browser.evaluate("document.querySelectorAll('details').forEach(box => { box.open = true; })")
        assert browser.evaluate("document.scrollingElement.scrollWidth <= innerWidth"), (path, width)


CONTRAST = """
(() => {
  const channels = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const found = channels(getComputedStyle(e).backgroundColor);
      if (found.length === 3 || found[3] > 0) return found;
    }
    return [255, 255, 255];
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), weak = [];
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    if (!walker.currentNode.textContent.trim() || element.closest("style, script, title")) continue;
    const style = getComputedStyle(element);
    const [a, b] = [light(channels(element.closest("svg") ? style.fill : style.color)), light(behind(element))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) weak.push([ratio, element.className, walker.currentNode.textContent.slice(0, 40)]);
  }
  return weak;
})()
"""


def test_text_can_be_read(browser: Browser, optimizers: Any, judged_page: Path) -> None:
    for path, dark in itertools.product((write_page(optimizers.summary()), judged_page), (False, True)):
        browser.open(path, dark=dark)
        assert browser.evaluate(CONTRAST) == [], f"WCAG AA asks for 4.5 to 1 ({dark=})"


def test_nothing_that_a_name_holds_is_run(browser: Browser, study: Make) -> None:
    rows = {name: {0: 90.0 + i, 1: 91.0 + i, 2: 90.4 + i} for i, name in enumerate(ATTACKS)}
    rows["lost"] = {0: {"status": "failed", "reason": HOSTILE}, 1: {"status": "diverged", "reason": HOSTILE}}  # type: ignore[dict-item]
    made = study(
        rows,
        name="hostile",
        title=HOSTILE,
        baseline=HOSTILE,
        differs={name: {name: [name, name]} for name in ATTACKS[1:]},
    )
    rewrite(
        made.root,
        "outcome.json",
        lambda outcome: outcome["provenance"].update(
            command=HOSTILE, packages={HOSTILE: HOSTILE}, git={"commit": HOSTILE, "dirty": True, "diff": HOSTILE}
        ),
    )
    for attempt in made.store.attempts(made.runs["lost", 0]):
        attempt.log.write_bytes((HOSTILE + "\n</pre></details>" + HOSTILE).encode() + b"\xff\xfe")
    plan = made.store.sweeps.plan("hostile")
    made.store.sweeps.save_plan(
        "hostile",
        plan | {"profile": HOSTILE, "source": f"../{HOSTILE}.yaml", "asked": {"sets": [HOSTILE], "profile": HOSTILE}},
    )
    for redact in (False, True):
        for path in (write_page(made.summary(), redact=redact), write_index(made.store, redact=redact).index):
            document = path.read_text()
            assert not {"\u202e", "\x1b", "\x00"} & set(document)
            assert "&amp;lt;" not in document, "escaped once, in attributes too"
            browser.open(path)
            assert browser.messages == []
            assert browser.requests == [path.resolve().as_uri()]
            title = (
                "Ablation reports"
                if path.name == "index.html"
                else browser.evaluate("document.querySelector('h1').textContent")
            )
            assert browser.evaluate("document.title") == title
            assert browser.evaluate("document.scripts.length") == 1
            assert browser.evaluate("document.images.length") == 0
            assert browser.evaluate("document.querySelectorAll('[onerror], iframe, object, embed, form').length") == 0
            assert browser.evaluate("[...document.links].every(link => /^(file:)/.test(link.href))")
        if not redact:
            shown = browser.open(made.root / "hostile" / "report.html").evaluate("document.body.textContent")
            assert '<script>document.title="run by a name"</script>' in shown, "names are shown as they are"


def test_the_policy_holds(browser: Browser, judged_page: Path, tmp_path: Path) -> None:
    """Were something not escaped, it would still not run."""
    document = judged_page.read_text()
    attack = "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\"><p style='color: red'>"
    path = tmp_path / "attacked.html"
    path.write_text(document.replace("</main>", attack + "</main>"))
    browser.open(path)
    assert browser.evaluate("document.title") == "A judged study"
    assert any("Content Security Policy" in message for message in browser.messages)


def test_paper(browser: Browser, judged_page: Path, tmp_path: Path) -> None:
    browser.open(judged_page)
    browser.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert browser.evaluate("document.querySelectorAll('details.print:not([open])').length") == 0
    browser.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert browser.evaluate("document.querySelectorAll('details.print:not([open])').length") > 0
    browser.pdf(tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")


def test_hundreds_of_runs(study: Make) -> None:
    made = study(
        {f"row {i}": {seed: 80 + i / 100 + seed / 7 for seed in range(3)} for i in range(70)},
        baseline="row 0",
        epochs=3,
    )
    write_page(made.summary())
    page = (made.root / "study" / "report.html").read_text()
    assert len(page) < 1_000_000
    assert all(f"row {i}<" in page for i in range(70))
