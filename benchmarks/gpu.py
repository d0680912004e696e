"""How fast is a training on a GPU, and what holds it back? Images a second, beside two loops that it is judged by.

    python benchmarks/gpu.py                     DeiT-Ti, -S and -B in bf16, then packed runs
    python benchmarks/gpu.py deit_small packed   some of it
    python benchmarks/gpu.py --tiny              a model of a moment, on whatever there is: whether it runs; a test does

Of each model, with the whole default recipe at 224 pixels (RandAugment, erasing, mixup and CutMix, three repeats, EMA):

- *files*: ``deit_ablate.train`` on JPEG files of 500 x 375 pixels, compiled; *files, decoded there*: with
  ``data.decoder: device``, so that the GPU does all but read them; *arrays*: on the same pictures in memory;
- *reference loop*: timm's loader with its prefetcher, timm's Mixup and ModelEma, the model eager under bf16 autocast,
  torch's AdamW, on the same files, as often repeated;
- *model alone*: forward, backward and fused AdamW of the compiled model, on one batch that lies on the GPU.

MFU is 3 x the operations of a forward pass x images a second, over the GPU's dense bf16 peak by its data sheet, or that
of a large matrix product where its name is not known. Nothing is compared between two processes: all is of this one, on
this machine, whose GPU, cores and load are printed. Exits with 1 where something could not be measured; a floor that is
missed is said.
"""

from __future__ import annotations

import sys

sys.path.pop(0)  # this folder, whose statistics.py is not Python's
import argparse
import contextlib
import functools
import json
import os
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from timm.data import Mixup, create_loader
from timm.loss import SoftTargetCrossEntropy
from timm.utils import ModelEma
from torch import Tensor, nn

from deit_ablate.recipe import Data, Recipe
from deit_ablate.train import cost
from deit_ablate.train.data.images import ArrayImages, decode
from deit_ablate.train.data.sets import Dataset
from deit_ablate.train.loop import Journal, train
from deit_ablate.train.optim import adamw, parameter_groups
from deit_ablate.train.precision import set_up

sys.modules["gpu"] = sys.modules[__name__]  # where recipes find the data set ``gpu:arrays``

PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "4090": 165e12,
}
"""Part of a GPU's name -> operations a second in bf16, dense, by NVIDIA's data sheets."""
FLOORS = {"deit_small": 8000, "deit_base": 2100}
"""Images a second that the whole recipe must reach on an H100, or an H200, which computes as fast."""
PACKED = "packed"
DECODED = "files, decoded there"
RATIO = 2.0
"""Of the reference loop's rate, which the whole recipe on files must reach."""


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    models: dict[str, dict[str, Any]]
    """timm's and our name of a model -> further options (none for those as published)."""
    resolution: int
    picture: tuple[int, int]
    images: int
    classes: int
    batch: int
    warm: int
    steps: int
    compile: bool
    matrix: int
    packed: tuple[int, ...]
    """Runs at once."""
    waves: int
    """How many runs follow one another in each of these places."""


WHOLE = Size(
    models={"deit_tiny": {}, "deit_small": {}, "deit_base": {}},
    resolution=224,
    picture=(500, 375),
    images=4096,
    classes=128,
    batch=256,
    warm=20,
    steps=60,
    compile=True,
    matrix=8192,
    packed=(1, 8),
    waves=3,
)
TINY = Size({"deit_tiny": {"depth": 1}}, 32, (50, 38), 32, 4, 16, 1, 2, False, 128, (1, 2), 1)


# -- pictures --------------------------------------------------------------------------------------------------------


def draw(folder: Path, size: Size) -> None:
    """Smooth noise, which compresses about as photographs do: ``size.images`` to train on, one a class to test on."""
    width, height = size.picture

    def drawn(place: tuple[str, int]) -> None:
        part, number = place
        draws = np.random.RandomState(number)
        path = folder / part / f"class{number % size.classes:04}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = draws.randint(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int16)
        grain = draws.randint(-12, 13, smooth.shape, dtype=np.int16)
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(path, quality=90)

    places = [
        (part, number) for part, count in (("train", size.images), ("val", size.classes)) for number in range(count)
    ]
    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(drawn, places))


@functools.cache
def _in_memory(folder: Path, side: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    paths = sorted((folder / "train").rglob("*.jpg"))
    classes = sorted({path.parent.name for path in paths})
    with ThreadPoolExecutor(cores()) as pool:
        pixels = np.stack(
            list(pool.map(lambda path: np.asarray(decode(path.read_bytes()).resize((side, side))), paths))
        )
    return pixels, np.array([classes.index(path.parent.name) for path in paths])


def arrays(data: Data, folder: Path) -> Dataset:
    """The data set ``gpu:arrays``: the files' pictures in memory, at the recipe's resolution."""
    pixels, targets = _in_memory(folder, data.resolution)
    images = ArrayImages(pixels, targets)
    names, half = tuple(str(name) for name in range(targets.max() + 1)), (0.5,) * 3
    few = ArrayImages(pixels[: len(names)], targets[: len(names)])
    return Dataset("gpu:arrays", names, 3, half, half, images, few, fingerprint="of the benchmark")


# -- what is measured ------------------------------------------------------------------------------------------------


@dataclass
class Clock:
    """Times ``steps`` steps after ``warm`` ones; a GPU is waited for twice, not at each step."""

    device: torch.device
    warm: int
    steps: int
    done: int = 0
    begun: float = 0.0
    seconds: float = 0.0

    def tick(self) -> bool:
        """After a step; True once all is timed."""
        self.done += 1
        if self.done in (self.warm, self.warm + self.steps):
            if self.device.type == "cuda":
                torch.cuda.synchronize(self.device)
            self.begun, self.seconds = time.perf_counter(), time.perf_counter() - self.begun
        return self.done >= self.warm + self.steps


class Timed(Journal):
    """Keeps nothing of a training but its clock."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.clock = clock

    def checkpoint(self, state: dict[str, Any]) -> None:
        pass

    def stop(self) -> bool:
        return self.clock.tick()


@dataclass
class Bench:
    """One model, and where it is measured."""

    size: Size
    folder: Path
    device: torch.device
    name: str

    def recipe(self, data: str, decoder: str = "pillow") -> Recipe:
        """The default one, at the benchmark's size."""
        size = self.size
        return Recipe.model_validate(
            {
                "data": {
                    "name": data,
                    "id": "bench",
                    "resolution": size.resolution,
                    "validation": 0.0,
                    "test": False,
                    "decoder": decoder,
                },
                "model": {"name": self.name, "options": size.models[self.name]},
                "schedule": {"batch_size": size.batch, "epochs": 1000},
                "precision": "bf16",
            }
        )

    def clock(self) -> Clock:
        return Clock(self.device, self.size.warm, self.size.steps)

    def ours(self, data: str, decoder: str = "pillow") -> float:
        clock = self.clock()
        train(
            self.recipe(data, decoder),
            journal=Timed(clock),
            data_dir=self.folder,
            device=str(self.device),
            compile=self.size.compile,
        )
        return self.rate(clock)

    def model(self) -> nn.Module:
        """With the recipe's drop path, as the reference loop and the model alone have it too."""
        size = self.size
        options: dict[str, Any] = {"img_size": size.resolution, "num_classes": size.classes, "drop_path_rate": 0.1}
        made: nn.Module = timm.create_model(f"{self.name}_patch16_224", **options, **size.models[self.name])
        return made.to(self.device).train()

    def reference(self) -> float:
        """What the reference code does at each step, with today's timm, and bf16 for its fp16."""
        size, cuda = self.size, self.device.type == "cuda"
        files = timm.data.create_dataset("", root=str(self.folder), split="train", is_training=True)
        views: Any = torch.utils.data.Subset(files, np.repeat(np.arange(len(files)), 3)[: len(files)].tolist())
        loader = create_loader(
            views,
            input_size=(3, size.resolution, size.resolution),
            batch_size=size.batch,
            is_training=True,
            use_prefetcher=cuda,
            device=self.device,
            auto_augment="rand-m9-mstd0.5-inc1",
            interpolation="bicubic",
            re_prob=0.25,
            re_mode="pixel",
            num_workers=min(16, max(1, cores() - 1)) if cuda else 0,
            pin_memory=cuda,
            persistent_workers=cuda,
        )
        files.transform = views.transform  # which the loader has given to what it sees
        model = self.model()
        optimizer = torch.optim.AdamW(timm.optim.param_groups_weight_decay(model, 0.05), lr=5e-4)
        mixup = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, label_smoothing=0.1, num_classes=size.classes)
        average, loss_of, clock = ModelEma(model, 0.99996), SoftTargetCrossEntropy(), self.clock()
        while True:
            for images, targets in loader:
                images, targets = mixup(images.to(self.device), targets.to(self.device))
                with torch.autocast(self.device.type, dtype=torch.bfloat16):
                    loss = loss_of(model(images), targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                if cuda:
                    torch.cuda.synchronize()  # the reference code does, and reads the loss, at each step
                average.update(model)
                if not loss.item() < 1e6:
                    raise RuntimeError(f"the reference loop's loss is {loss.item()}")
                if clock.tick():
                    return self.rate(clock)

    def alone(self) -> float:
        size, model, clock = self.size, self.model(), self.clock()
        optimizer = adamw(parameter_groups(model, 0.05), lr=5e-4, weight_decay=0.05)
        run: Callable[[Tensor], Tensor] = torch.compile(model) if size.compile else model
        images = torch.randn(size.batch, 3, size.resolution, size.resolution, device=self.device)
        targets = torch.full((size.batch, size.classes), 1 / size.classes, device=self.device)
        while True:
            with torch.autocast(self.device.type, dtype=torch.bfloat16):
                outputs = run(images)
            loss = SoftTargetCrossEntropy()(outputs.float(), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if clock.tick():
                return self.rate(clock)

    def rate(self, clock: Clock) -> float:
        return self.size.batch * clock.steps / clock.seconds

    def flops(self) -> int:
        """Of one image's training step: the backward pass takes twice the forward pass."""
        return 3 * cost.forward_flops(self.model(), 3, self.size.resolution)

    def measures(self) -> dict[str, Callable[[], float]]:
        return {
            "files": lambda: self.ours("imagefolder"),
            DECODED: lambda: self.ours("imagefolder", "device"),
            "arrays": lambda: self.ours("gpu:arrays"),
            "reference loop": self.reference,
            "model alone": self.alone,
        }


def matmul_peak(device: torch.device, side: int) -> float:
    """Operations a second of a bf16 product of two square matrices."""
    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    clock = Clock(device, 5, 20)
    while not clock.tick():
        left @ right
    return 2 * side**3 * clock.steps / clock.seconds


def runs_an_hour(size: Size, cuda: bool, at_once: int) -> float:
    """Of the digits profile, from the first one's start to the last one's end."""
    with tempfile.TemporaryDirectory() as folder:
        sweep = Path(folder) / "packed.yaml"
        small = (
            ""
            if cuda
            else "recipe: {data: {train_images: 64}, schedule: {epochs: 1, batch_size: 32, warmup_epochs: 0}}\n"
        )
        runs = size.waves * at_once
        sweep.write_text(f"profile: digits\n{small}seeds: {runs}\nvariants: {{baseline: {{}}}}\n")
        how = ["--device", "cuda", "-x", f"runs_per_gpu={at_once}"] if cuda else ["--parallel", str(at_once)]
        command = [sys.executable, "-m", "deit_ablate", "run", str(sweep), "--results", f"{folder}/results", "--yes"]
        one = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
        environment = {**os.environ, "CUDA_VISIBLE_DEVICES": one}
        done = subprocess.run([*command, *how], capture_output=True, text=True, cwd=folder, env=environment)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command[3:])} ended with {done.returncode}: {done.stdout} {done.stderr}")
        begun, ended = (
            [json.loads(path.read_text())["time"] for path in Path(folder, "results").rglob(name)]
            for name in ("owner.json", "exit.json")
        )
        return 3600 * runs / (max(ended) - min(begun))


# -- all of it -------------------------------------------------------------------------------------------------------


def cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


failed: list[str] = []


@contextlib.contextmanager
def measuring(what: str) -> Iterator[None]:
    """A measurement that fails is said, and the others go on."""
    try:
        yield
    except Exception as error:
        failed.append(what)
        traceback.print_exc()
        print(f"{what:44} FAILED: {type(error).__name__}: {str(error).splitlines()[:1]}", flush=True)
    torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def told(what: str, rate: float, floor: float) -> None:
    print(f"{what:44} {rate:10.1f}   floor {floor:g}: {'met' if rate >= floor else 'MISSED'}", flush=True)


def measure(bench: Bench, peak: float, floors: bool) -> None:
    """All rates of one model, a line each."""
    rates: dict[str, float] = {}
    flops = bench.flops()
    for kind, rate_of in bench.measures().items():
        with measuring(f"{bench.name}, {kind}"):
            if bench.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(bench.device)
            rate = rates[kind] = rate_of()
            memory = cost.peak_memory(bench.device) / 2**30
            print(
                f"{f'{bench.name}, {kind}':44} {rate:10.1f} images/s   MFU {100 * rate * flops / peak:5.1f}%   "
                f"{memory:6.1f} GiB",
                flush=True,
            )
    for kind in ("files", DECODED):
        if {kind, "reference loop"} <= rates.keys():
            told(f"{bench.name}, {kind} / reference loop", rates[kind] / rates["reference loop"], RATIO)
    for kind in (DECODED, "arrays"):
        if floors and bench.name in FLOORS and kind in rates:
            told(f"{bench.name}, {kind}", rates[kind], FLOORS[bench.name])


def measure_packed(size: Size, cuda: bool) -> None:
    """Runs an hour, one at a time and several, a line each."""
    rates: dict[int, float] = {}
    for at_once in size.packed:
        with measuring(f"digits, {at_once} at once"):
            rates[at_once] = runs_an_hour(size, cuda, at_once)
            packed = rates[at_once] / rates[1] if 1 in rates else float("nan")
            print(f"{f'digits, {at_once} at once':44} {rates[at_once]:10.1f} runs an hour   {packed:.2f}x", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Images a second on a GPU, beside a reference loop.")
    parser.add_argument("--tiny", action="store_true", help="only whether it runs, on a CPU too")
    parser.add_argument(
        "--batch", type=int, help=f"images of a step ({WHOLE.batch}; the recipe has 1,024, over its GPUs)"
    )
    parser.add_argument("what", nargs="*", help=f"of {', '.join([*WHOLE.models, PACKED])} (all of them)")
    asked = parser.parse_args()
    size = TINY if asked.tiny else WHOLE
    size = replace(size, batch=asked.batch or size.batch)
    wanted = asked.what or [*size.models, PACKED]
    if unknown := set(wanted) - {*size.models, PACKED}:
        parser.error(f"{', '.join(sorted(unknown))}: expected some of {', '.join([*size.models, PACKED])}")
    torch.set_num_threads(1)  # as a worker's run has by default
    cuda = torch.cuda.is_available()
    if not cuda and not asked.tiny:
        print("no CUDA device can be used here; --tiny tries the script on a CPU", file=sys.stderr)
        return 2
    device = torch.device("cuda:0" if cuda else "cpu")
    set_up(device, deterministic=False, precision="bf16")
    name = torch.cuda.get_device_name(device) if cuda else "CPU"
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    print(f"{name}, {cores()} cores, load {load:.1f}, torch {torch.__version__}, timm {timm.__version__}")
    if size is TINY:
        print("this only tries the script: no figure below says anything")
    found = matmul_peak(device, size.matrix)
    peak = next((peak for part, peak in PEAKS.items() if part in name), found)
    print(f"bf16: {found / 1e12:.2f} TFLOP/s in a matrix product; MFU is of {peak / 1e12:.2f} TFLOP/s")
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        if {*wanted} - {PACKED}:
            draw(Path(folder), size)
        for what in wanted:
            if what == PACKED:
                measure_packed(size, cuda)
            else:
                measure(Bench(size, Path(folder), device, what), peak, floors="H100" in name or "H200" in name)
    print(f"could not be measured: {', '.join(failed)}" if failed else "all measured")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
