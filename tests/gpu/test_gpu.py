"""On a GPU: the same images and draws as on a CPU, the same bits after a resume, and ranks that each have their own."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support import planned
from tiny import STEPS, Stopping, tiny, write_pictures, write_tree
from torch import Tensor

from deit_ablate.execution import Execution
from deit_ablate.launch.jobs import Job
from deit_ablate.launch.pool import ProcessPool
from deit_ablate.recipe import Recipe
from deit_ablate.store import Store
from deit_ablate.train.augment import Augmenter
from deit_ablate.train.data.images import ArrayImages
from deit_ablate.train.data.loader import evaluation_batches, training_batches
from deit_ablate.train.data.sets import Splits, load_data
from deit_ablate.train.evaluate import evaluate
from deit_ablate.train.loop import Journal, initial_model, train
from deit_ablate.train.precision import autocast, set_up, share_gpu

GPU = "cuda:0"
CALM = {"drop_path": 0.0, "dropout": 0.0}


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    set_up(torch.device(GPU), deterministic=False)


def on(where: str, batches: Iterator[tuple[Tensor, Tensor]]) -> list[tuple[Tensor, Tensor]]:
    """The batches, which lie on that device, brought to the CPU."""
    found = []
    for images, targets in batches:
        assert (images.device, targets.device) == (torch.device(where), torch.device(where))
        found.append((images.cpu(), targets.cpu()))
    return found


def in_colour(data: Splits) -> Splits:
    """Pictures of 40 x 40 random pixels."""
    draws = np.random.RandomState(0)
    count = len(data.dataset.train)
    pixels = draws.randint(0, 256, (count, 40, 40, 3), dtype=np.uint8)
    images = ArrayImages(pixels, data.dataset.train.targets)
    dataset = replace(data.dataset, train=images, channels=3, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    return replace(data, dataset=dataset)


# -- images ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["rand-m9-mstd0.5-inc1", "rand-m7-n3", "original", None])
@pytest.mark.parametrize("crop", ["random-resized", "pad"])
def test_pictures_in_memory_are_augmented_to_the_same_bytes(policy: str | None, crop: str) -> None:
    recipe = tiny(augment={"auto_augment": policy, "color_jitter": 0.4, "crop": crop, "erasing": 0.0})
    data = in_colour(load_data(recipe, None))
    pixels = torch.from_numpy(data.dataset.train.pixels[:512]).permute(0, 3, 1, 2)
    views = torch.tensor([(3, index, index % 3) for index in range(len(pixels))])
    augment = Augmenter(recipe, data.dataset)
    here, there = augment.pixels(pixels, views), augment.pixels(pixels.to(GPU), views.to(GPU))
    assert there.device == torch.device(GPU)
    differing = int((here != there.cpu()).sum())
    assert differing == 0, f"{differing} of {here.numel()} bytes differ"
    assert torch.equal(augment.finish(here, views), augment.finish(there, views.to(GPU)).cpu())


def test_fused_operations_give_the_same_bytes_but_for_one_in_a_million() -> None:
    recipe = tiny(augment={"auto_augment": "rand-m9-mstd0.5-inc1", "crop": "random-resized", "erasing": 0.0})
    data = in_colour(load_data(recipe, None))
    pixels = torch.from_numpy(data.dataset.train.pixels[:512]).permute(0, 3, 1, 2).to(GPU)
    views = torch.tensor([(3, index, index % 3) for index in range(len(pixels))])
    plain, fused = (Augmenter(recipe, data.dataset, how).pixels(pixels, views) for how in (False, True))
    assert (plain != fused).double().mean() <= 1e-6
    assert (plain.int() - fused.int()).abs().max() <= 1


@pytest.mark.parametrize("loaders", [0, 2])
def test_files_that_the_gpu_decodes_are_about_those_that_a_cpu_does(loaders: int, tmp_path: Path) -> None:
    """nvJPEG is another decoder than libjpeg: pixels differ most where colours change from one to the next."""
    write_pictures(tmp_path)
    recipe = tiny(
        data={"name": "imagefolder", "id": "mine", "train_images": None, "validation": 0, "decoder": "device"},
        augment={"crop": "random-resized", "auto_augment": None, "erasing": 0.0},
        schedule={"batch_size": 8, "epochs": 2, "warmup_epochs": 0},
    )
    data = load_data(recipe, tmp_path)
    expected = on("cpu", training_batches(recipe, data, 1, 0))
    found = on(GPU, training_batches(recipe, data, 1, loaders, torch.device(GPU)))
    assert torch.equal(torch.cat([each[1] for each in found]), torch.cat([each[1] for each in expected]))
    ours, theirs = (torch.cat([each[0] for each in batches]) for batches in (found, expected))
    levels = (ours - theirs).abs() * 255 * data.dataset.std[0]
    assert levels.mean() < 4
    assert (levels < 16).double().mean() > 0.9
    again = on(GPU, training_batches(recipe, data, 1, loaders, torch.device(GPU)))
    assert all(torch.equal(one[0], other[0]) for one, other in zip(found, again, strict=True))
    fused = torch.cat(
        [each[0] for each in on(GPU, training_batches(recipe, data, 1, 0, torch.device(GPU), fused=True))]
    )
    assert (fused != ours).double().mean() <= 1e-4


@pytest.mark.parametrize("data_name", ["digits", "imagefolder"])
@pytest.mark.parametrize("loaders", [0, 2])
def test_batches_finished_on_the_device_are_those_that_a_loader_finishes(
    data_name: str, loaders: int, tmp_path: Path
) -> None:
    """Ahead in a stream of their own, while the one before is used; noise is that of another log and cosine."""
    folder = None
    if data_name == "imagefolder":
        write_tree(tmp_path, {"cat": 48, "dog": 48})
        folder = tmp_path
    recipe = tiny(data={"name": data_name, "id": "mine", "train_images": 64}, augment={"erasing": 0.7})
    data = load_data(recipe, folder)
    expected = on("cpu", training_batches(recipe, data, 1, 0))
    found = on(GPU, training_batches(recipe, data, 1, loaders, torch.device(GPU)))
    assert len(found) == len(expected)
    for (images, targets), (others, labels) in zip(found, expected, strict=True):
        assert torch.equal(targets, labels)
        torch.testing.assert_close(images, others, rtol=1e-6, atol=1e-6)
    split = data.dataset, data.dataset.test
    for one, other in itertools.zip_longest(
        on(GPU, evaluation_batches(recipe, *split, device=torch.device(GPU), loaders=loaders)),
        on("cpu", evaluation_batches(recipe, *split)),
    ):
        assert torch.equal(one[0], other[0])


def test_a_block_made_ahead_is_whole_when_it_is_used() -> None:
    """While the stream that trains is busy, and changes its batches in place, as mixup does."""
    recipe = tiny(data={"train_images": None}, schedule={"batch_size": 64, "epochs": 3, "warmup_epochs": 0})
    data = load_data(recipe, None)
    busy = torch.randn(2048, 2048, device=GPU)
    sums = []
    for images, _ in training_batches(recipe, data, 0, 0, torch.device(GPU)):
        busy = (busy @ busy).clamp(-1, 1)
        sums.append(images.double().sum())
        images.zero_()
    expected = [images.double().sum() for images, _ in training_batches(recipe, data, 0, 0)]
    torch.testing.assert_close(torch.stack(sums).cpu(), torch.stack(expected), rtol=1e-6, atol=1e-2)


# -- training --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("after", [2, STEPS, STEPS + 3])
def test_a_run_that_is_resumed_in_deterministic_mode_has_the_bits_of_one_left_alone(precision: str, after: int) -> None:
    def trained(journal: Journal) -> Any:
        return train(tiny(precision=precision), journal=journal, device=GPU, deterministic=True)

    whole, first = trained(Journal()), Stopping(after)
    assert trained(Journal()).weights_sha256 == whole.weights_sha256
    assert trained(first).status == "stopped"
    journal = Journal()
    journal.state = first.state
    resumed = trained(journal)
    assert resumed.weights_sha256 == whole.weights_sha256
    assert resumed.metrics == whole.metrics


def test_a_training_is_that_of_a_cpu_within_rounding() -> None:
    recipe = tiny(regularize=CALM, schedule={"epochs": 1, "batch_size": 16, "warmup_epochs": 0.5})
    losses = [train(recipe, device=device).metrics["train_loss"] for device in ("cpu", GPU)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)


def test_what_a_model_drops_follows_the_seed() -> None:
    weights = [train(tiny(seed=seed), device=GPU, deterministic=True).weights_sha256 for seed in (0, 0, 1)]
    assert weights[0] == weights[1] != weights[2]


@pytest.mark.parametrize("compile", [True, "reduce-overhead", "max-autotune"])
@pytest.mark.parametrize("accumulation", [1, 2])
def test_compiled_models_learn_the_same(compile: bool | str, accumulation: int) -> None:
    """CUDA graphs write to the same memory at each pass: gradients of several parts must add up all the same."""
    recipe = tiny(regularize=CALM, schedule={"epochs": 3, "batch_size": 16, "warmup_epochs": 0.5})
    plain, compiled = (train(recipe, device=GPU, accumulation=accumulation, compile=how) for how in (False, compile))
    assert compiled.metrics["train_loss"] == pytest.approx(plain.metrics["train_loss"], rel=2e-2)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", "float32"), ("bf16", "bfloat16"), ("fp16", "float16")])
def test_evaluation_is_in_the_recipes_precision(precision: str, dtype: str) -> None:
    recipe: Recipe = tiny(precision=precision)
    data, device = load_data(recipe, None), torch.device(GPU)
    model, seen = initial_model(recipe, data, None).to(device), set[torch.dtype]()
    model.head.register_forward_hook(lambda module, given, made: seen.add(made.dtype))
    batches = evaluation_batches(recipe, data.dataset, data.dataset.test, device=device)
    scores = evaluate(model, batches, device, keep=True, half=autocast(recipe, device))
    assert seen == {getattr(torch, dtype)}
    assert scores.metrics["images"] == len(data.dataset.test)


def test_tf32_is_used_where_it_is_asked_for_alone() -> None:
    for precision in ("tf32", "fp32"):
        set_up(torch.device(GPU), deterministic=False, precision=precision)
        assert torch.backends.cuda.matmul.allow_tf32 == (precision == "tf32")
        assert torch.backends.cudnn.allow_tf32 == (precision == "tf32")


def test_a_run_that_shares_a_gpu_takes_its_part_of_the_memory_alone() -> None:
    total = torch.cuda.get_device_properties(GPU).total_memory
    torch.cuda.empty_cache()
    share_gpu(GPU, 16)
    try:
        with pytest.raises(torch.OutOfMemoryError):
            torch.empty(total // 12, dtype=torch.uint8, device=GPU)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, GPU)


# -- processes -------------------------------------------------------------------------------------------------------


def executed(pool: ProcessPool, path: Path, store: Store, **how: Any) -> dict[str, Any]:
    """The outcome of a sweep's one run, by the worker; and its weights in one row."""
    run, own = next(iter(planned(path).runs.items()))
    store.register(own.id, own.recipe, own.parents, own.sources)
    pool.submit(Job(str(store.root), run, Execution(device="cuda", **how)))
    ended = []
    while not ended:
        ended = pool.poll(1.0)
    assert ended[0].code == 0, (ended[0].output, [attempt.exit for attempt in store.attempts(run)])
    state = torch.load(store.weights(run) or "", weights_only=True)
    weights = torch.cat([tensor.flatten().double() for tensor in state["model"].values()])
    return {**(store.outcome(run) or {}), "weights": weights}


ONE = "seeds: 1\nvariants: {a: {regularize: {drop_path: 0, dropout: 0}}}\n"


def test_a_record_names_the_device_and_the_gpu(pool: ProcessPool, sweep: Callable[..., Path], store: Store) -> None:
    outcome = executed(pool, sweep(ONE), store, runs_per_gpu=2)
    assert outcome["cost"]["device"] == "cuda"
    assert outcome["provenance"]["hardware"]["gpu"] == torch.cuda.get_device_name(0)
    assert (outcome["execution"]["loaders"], outcome["execution"]["runs_per_gpu"]) == (0, 2)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs: NCCL refuses two ranks on one")
@pytest.mark.parametrize("compile", [False, True])
def test_ranks_on_gpus_of_their_own_give_what_one_process_gives(
    sweep: Callable[..., Path], tmp_path: Path, compile: bool
) -> None:
    """The number of ranks is the largest power of two of GPUs that there are, up to 8."""
    ranks = max(number for number in (2, 4, 8) if number <= torch.cuda.device_count())
    pool, path = ProcessPool(Execution(device="cuda", ranks=ranks)), sweep(ONE)
    try:
        alone = executed(pool, path, Store(tmp_path / "alone"), accumulation=ranks, deterministic=True)
        together = executed(pool, path, Store(tmp_path / "together"), ranks=ranks, deterministic=True, compile=compile)
    finally:
        pool.close()
    assert together["execution"]["ranks"] == ranks
    moved = alone["weights"].abs().max()
    assert (together["weights"] - alone["weights"]).abs().max() < (5e-2 if compile else 1e-3) * moved


RANK = """
import torch
from deit_ablate.execution import Execution
from deit_ablate.train.distributed import leave
from deit_ablate.train.streams import ModelDraws, seed_generators, torch_generator
from deit_ablate.worker.run import _join, device_of

group = _join(Execution(device="cuda"))
device = torch.device(device_of("cuda"))
seed_generators(7, device)
generator = torch_generator(device)
drawn = torch.rand(2, device="cuda").tolist()
print(device, torch.cuda.current_device(), generator.device, group.from_first("met"), drawn)
leave()
"""


def test_ranks_that_see_all_gpus_of_a_node_are_each_on_their_own_and_draw_by_the_seed(tmp_path: Path) -> None:
    """As on SLURM. Where there is one GPU both are on it: they meet over the CPU here."""
    count = torch.cuda.device_count()
    meeting = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "DEIT_ABLATE_MEETING": str(tmp_path / "meeting")}
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", RANK],
            env={**os.environ, **meeting, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [rank.communicate(timeout=300)[0].strip() for rank in ranks]
    for number, line in enumerate(said):
        index = number if count > 1 else 0
        assert line.startswith(f"cuda:{index} {index} cuda:{index} met [")
    assert said[0].partition("met ")[2] == said[1].partition("met ")[2], "one seed, one draw, whichever GPU"
