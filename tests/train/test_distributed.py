"""One process or many: the same batch, the same gradient, one owner, one stop, and a lost rank loses nothing."""

from __future__ import annotations

import contextlib
import datetime
import itertools
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import INTERRUPTED, TINY, planned, result, wait_for
from tiny import write_tree

from deit_ablate import files
from deit_ablate.errors import TrainError
from deit_ablate.execution import Execution
from deit_ablate.identity import recipe_of_record
from deit_ablate.launch import pool as pool_module
from deit_ablate.launch import status
from deit_ablate.launch.jobs import Ended, Job
from deit_ablate.launch.pool import ProcessPool
from deit_ablate.store import Store
from deit_ablate.train import checkpoint, distributed
from deit_ablate.train.data.loader import CPU, evaluation_batches
from deit_ablate.train.data.sets import load_data
from deit_ablate.train.distill import recipe_model
from deit_ablate.train.distributed import Group, NotMet, Share
from deit_ablate.train.evaluate import evaluate

CALM = "seeds: 1\nvariants: {a: {regularize: {drop_path: 0, dropout: 0}}}\n"
"""Mixup, CutMix and repeated augmentation on; only what the model itself draws is off."""
AVERAGED = INTERRUPTED.replace("}}", ", regularize.ema_decay: 0.99}}")
"""So that each rank must go on with its average of the weights, too."""


class Executed:
    """Executes one run through the pool, as the launcher would."""

    def __init__(self, pool: ProcessPool, path: Path, store: Store) -> None:
        self.pool, self.store = pool, store
        self.over: list[Ended] = []
        self.run, own = next(iter(planned(path).runs.items()))
        store.register(own.id, own.recipe, own.parents, own.sources)

    def start(self, **execution: Any) -> None:
        how = Execution(device="cpu", **execution)
        self.pool.submit(Job(str(self.store.root), self.run, how))

    def ended(self) -> int:
        return int(wait_for(lambda: self.over or self.poll()).pop().code)

    def poll(self) -> list[Ended]:
        self.over += self.pool.poll(0.02)
        return self.over

    def pids(self) -> dict[int, int]:
        """rank -> pid, once they are known."""
        if not self.poll():
            started = next(iter(self.pool._running.values()))
            return started.pids if len(started.pids) == started.job.execution.ranks else {}
        return {}

    def attempt_exits(self) -> list[str]:
        return [(attempt.exit or {}).get("class", "open") for attempt in self.store.attempts(self.run)]


@pytest.fixture
def executed(pool: ProcessPool, tmp_path: Path, sweep: Callable[..., Path]) -> Callable[..., Executed]:
    def make(text: str, name: str = "results") -> Executed:
        return Executed(pool, sweep(text), Store(tmp_path / name))

    return make


def test_the_chunks_of_a_batch_hold_each_image_once_and_keep_the_pairs_of_mixup() -> None:
    batch = list(range(24))
    for ranks, parts in ((1, 1), (2, 1), (1, 2), (3, 2), (2, 3)):
        shares = [Share(Group(rank, ranks), parts).of(batch) for rank in range(ranks)]
        assert sorted(itertools.chain(*shares)) == batch
        for share in shares:
            for chunk in np.split(np.array(share), parts):
                assert (chunk + chunk[::-1] == 23).all(), "timm mixes the i-th with the i-th from the end"
    assert Share(Group(0, 1), 1).of(batch) == batch
    assert sorted(Share(Group(0, 2), 2).of(list(range(4))) + Share(Group(1, 2), 2).of(list(range(4)))) == [0, 1, 2, 3]


def test_a_batch_that_cannot_be_cut_into_equal_chunks_is_refused() -> None:
    Share(Group(0, 2), 8).check(32, paired=True)
    with pytest.raises(TrainError, match="whole pairs"):
        Share(Group(0, 2), 16).check(32, paired=True)
    Share(Group(0, 2), 16).check(32, paired=False)
    with pytest.raises(TrainError, match="3 ranks x 1 parts"):
        Share(Group(0, 3)).check(32, paired=False)


def test_ranks_and_accumulation_give_what_one_process_gives(executed: Callable[..., Executed]) -> None:
    """At the same global batch, within rounding, where the model itself draws nothing: mixing may be on."""
    weights = {}
    for name, how in {
        "one": {},
        "two ranks": {"ranks": 2},
        "four parts": {"accumulation": 4},
        "both": {"ranks": 2, "accumulation": 2},
    }.items():
        run = executed(CALM, name)
        run.start(**how)
        assert run.ended() == 0
        state = torch.load(run.store.weights(run.run) or "", weights_only=True)
        weights[name] = torch.cat([tensor.flatten().double() for tensor in state["model"].values()])
        outcome = run.store.outcome(run.run)
        assert outcome
        assert outcome["execution"]["ranks"] == how.get("ranks", 1)
    moved = weights["one"].abs().max()
    for name, found in weights.items():
        assert (found - weights["one"]).abs().max() < 1e-4 * moved, name


@pytest.fixture(scope="module")
def on_two(pool: ProcessPool, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The result of two ranks left alone, each with two parts of its share."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "tiny.yaml").write_text(TINY + AVERAGED)
    run = Executed(pool, folder / "tiny.yaml", Store(folder / "results"))
    started = time.monotonic()
    run.start(ranks=2, accumulation=2)
    assert run.ended() == 0
    return {"result": result(run.store, run.run), "seconds": time.monotonic() - started}


@pytest.mark.parametrize("victim", [0, 1])
def test_a_rank_killed_at_random_instants_changes_nothing(
    executed: Callable[..., Executed], on_two: dict[str, Any], victim: int
) -> None:
    run, draw = executed(AVERAGED), random.Random(victim)
    for _ in range(12):
        run.start(ranks=2, accumulation=2)
        pid = wait_for(run.pids)[victim]
        if len(run.attempt_exits()) < 3:
            # After some epoch of six, and then at a random instant of the next one.
            epochs = min(4, len(run.store.history(run.run)) + draw.randint(1, 2))
            wait_for(lambda epochs=epochs: len(run.store.history(run.run)) >= epochs or run.poll())
            time.sleep(draw.uniform(0, 0.1) * on_two["seconds"])
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        run.ended()
        status.close_if_gone(run.store, run.run)
        if run.store.outcome(run.run):
            break
    assert "done" in run.attempt_exits()
    assert set(run.attempt_exits()) <= {"done", "killed", "interrupted"}
    assert len(run.attempt_exits()) >= 2, "no blow struck home"
    assert result(run.store, run.run) == on_two["result"]


def test_a_signal_to_all_ranks_stops_them_at_one_step_and_another_number_of_ranks_goes_on(
    executed: Callable[..., Executed], on_two: dict[str, Any]
) -> None:
    run = executed(AVERAGED)
    run.start(ranks=2, accumulation=2)
    pids = wait_for(run.pids)
    wait_for(lambda: run.store.history(run.run))
    for pid in pids.values():
        os.kill(pid, signal.SIGTERM)
    assert run.ended() == 75
    assert run.attempt_exits() == ["interrupted"]
    run.start(ranks=4)  # four chunks, as the first attempt has cut its batches
    assert run.ended() == 0
    assert [attempt.owner["execution"]["accumulation"] for attempt in run.store.attempts(run.run)] == [2, 1]
    curves = [line["train_loss"] for line in run.store.history(run.run)]
    assert curves == pytest.approx([line["train_loss"] for line in on_two["result"]["curves"]], rel=1e-3)


@pytest.mark.parametrize(
    ("ranks", "row"),
    [(2, "distill.type: two-class-tokens"), (3, "model: {name: small_convnet, options: {width: 8}}")],
    ids=["two tokens", "batch norm"],
)
def test_ranks_score_as_one_process_does(executed: Callable[..., Executed], ranks: int, row: str) -> None:
    """To the bit: 599 test images are 5 batches, which neither number divides, and the validation part is one."""
    rest = "regularize.ema_decay: 0.9, schedule.batch_size: 36, data.train_images: 216"
    run = executed(f"seeds: 1\nvariants: {{a: {{{row}, {rest}}}}}\n")
    run.start(ranks=ranks)
    assert run.ended() == 0
    stored, outcome = run.store.recipe(run.run), run.store.outcome(run.run)
    assert stored
    assert outcome
    recipe = recipe_of_record(stored["recipe"], lambda sha256: None)
    data, state = load_data(recipe, None), checkpoint.load(run.store.weights(run.run) or Path())
    model, average = (recipe_model(recipe, data.dataset) for _ in range(2))
    model.load_state_dict(state["model"])
    average.load_state_dict(state["ema"])
    for part, images, indices in (
        ("validation", data.dataset.train, data.validation),
        ("test", data.dataset.test, None),
    ):
        batches = evaluation_batches(recipe, data.dataset, images, indices)
        alone = evaluate(model, batches, CPU, keep=True, average=average.eval())
        assert outcome["metrics"][part] == alone.metrics
    assert outcome["metrics"]["test"]["images"] == 599
    arrays = files.read_arrays(run.store.attempt(run.run, 1).arrays, outcome["arrays_sha256"])
    assert ("token_similarity" in arrays) == ("tokens" in row)
    assert {name.removeprefix("test_"): found.tolist() for name, found in arrays.items()} == {
        name: found.tolist() for name, found in alone.arrays.items()
    }


FAULTY = """
import os
from torch import nn


class Faulty(nn.Module):
    def __init__(self, shape, rank):
        super().__init__()
        self.rank = rank
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(shape.channels * shape.resolution**2, shape.classes))

    def forward(self, x):
        if len(x) > 1 and not self.training and os.environ.get("RANK") == str(self.rank):
            raise RuntimeError("boom: in evaluation")
        return self.net(x)
"""


@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_fails_in_evaluation_ends_all(
    executed: Callable[..., Executed], custom_models: Path, monkeypatch: pytest.MonkeyPatch, rank: int
) -> None:
    monkeypatch.setattr(pool_module, "GRACE_SECONDS", 1e9)  # they are to end by themselves
    (custom_models / "faulty.py").write_text(FAULTY)
    run = executed(f"seeds: 1\nvariants: {{a: {{model: {{name: 'faulty:Faulty', options: {{rank: {rank}}}}}}}}}\n")
    run.start(ranks=2)
    assert run.ended() == 1
    (attempt,) = run.store.attempts(run.run)
    assert attempt.exit
    assert attempt.exit["class"] == "crash"
    assert "boom: in evaluation" in attempt.exit["message"]


@pytest.mark.parametrize(
    ("rank", "expected"), [(0, "rank 0 has not met all 2 ranks at 127.0.0.1"), (1, "rank 0 has not begun in 0:00:01")]
)
def test_a_rank_that_stays_alone_ends_soon_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rank: int, expected: str
) -> None:
    monkeypatch.setattr(distributed, "MEETING", datetime.timedelta(seconds=1))
    meeting = {"MASTER_ADDR": "127.0.0.1", "DEIT_ABLATE_MEETING": str(tmp_path / "meeting")}
    for name, value in {"RANK": str(rank), "WORLD_SIZE": "2", **meeting}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(NotMet, match=expected):
        distributed.join()
    assert not list(tmp_path.iterdir())


def test_ranks_that_find_nobody_where_they_were_to_meet_end_before_an_attempt(
    executed: Callable[..., Executed], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Real processes whose rank 0 dies at once: its meeting's file cannot be written."""
    monkeypatch.setattr(pool_module.tempfile, "gettempdir", lambda: str(tmp_path / "nowhere"))
    monkeypatch.setattr(pool_module, "GRACE_SECONDS", 0.5)
    run = executed(CALM)
    run.start(ranks=2)
    assert run.ended() == 1
    assert not run.attempt_exits()


def test_ranks_that_cannot_share_a_runs_chunks_leave_without_a_claim(executed: Callable[..., Executed]) -> None:
    run = executed(AVERAGED)
    run.start(ranks=2)
    wait_for(run.pids)
    wait_for(lambda: run.store.history(run.run))
    run.pool.cancel(run.run)
    assert run.ended() == 75
    run.start(ranks=3)
    assert run.ended() == 1
    assert run.attempt_exits() == ["interrupted"]
    run.start()
    assert run.ended() == 0, "one process computes both chunks"


FOLDER = (
    "seeds: 1\nvariants:\n  a: {data: {name: imagefolder, id: mine, resolution: 16, train_images: null, validation: 0},"
    " schedule: {batch_size: 8}}\n"
)


def test_the_first_rank_alone_lists_an_image_folder_and_its_failure_ends_all(
    executed: Callable[..., Executed], tmp_path: Path
) -> None:
    write_tree(tmp_path / "pictures", {"cat": 12, "dog": 12})
    alone, together = executed(FOLDER, "alone"), executed(FOLDER, "together")
    alone.start(data_dir=str(tmp_path / "pictures"), accumulation=2)
    assert alone.ended() == 0
    together.start(data_dir=str(tmp_path / "pictures"), ranks=2)
    assert together.ended() == 0
    outcomes = [run.store.outcome(run.run) or {} for run in (alone, together)]
    assert outcomes[0]["data"] == outcomes[1]["data"]
    assert [outcome["execution"]["loaders"] for outcome in outcomes] == [0, 0]
    (tmp_path / "pictures" / "val" / "dog" / "0.png").write_bytes(b"no picture")
    broken = executed(FOLDER, "broken")
    broken.start(data_dir=str(tmp_path / "pictures"), ranks=2)
    assert broken.ended() == 1
    (attempt,) = broken.store.attempts(broken.run)
    assert attempt.exit
    assert attempt.exit["class"] == "bad-data"
    assert "val/dog/0.png cannot be read as a picture" in attempt.exit["message"]
    assert not broken.pool._running, "both ranks have ended"


@pytest.mark.parametrize("first_fails", [False, True])
def test_only_the_first_rank_does_what_is_done_once(tmp_path: Path, warm_python: list[str], first_fails: bool) -> None:
    """Two real processes."""
    (tmp_path / "program.py").write_text(ONCE)
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "DEIT_ABLATE_MEETING": str(tmp_path / "meeting")}
    processes = [
        subprocess.Popen(
            [*warm_python, "program", str(tmp_path / "calls"), str(int(first_fails))],
            cwd=tmp_path,
            env={**os.environ, **meeting, "RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert (tmp_path / "calls").read_text() == "0 "
    assert said == (["DataError: no such pictures"] * 2 if first_fails else ["(7, [1, 2])"] * 2)


ONCE = """
import sys
from deit_ablate.errors import DataError
from deit_ablate.train.distributed import join, leave

group, (calls, fails) = join(), sys.argv[1:]

def look():
    with open(calls, "a") as file:
        file.write(f"{group.rank} ")
    if int(fails):
        raise DataError("no such pictures")
    return 7, [1, 2]

try:
    print(group.once(look))
except DataError as error:
    print(f"DataError: {error}")
leave()
"""
