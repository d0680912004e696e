"""How the numbers are computed: precision of a pass, layout, compilation, determinism."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.optim import Optimizer

from deit_ablate.errors import TrainError
from deit_ablate.recipe import Recipe
from deit_ablate.train.model import Heads, heads

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def numbered(device: str) -> torch.device:
    """The device, a GPU with its number: "cuda" is the one that this process is on. Raises TrainError where there is
    none."""
    where = torch.device(device)
    if where.type != "cuda":
        return where
    if not torch.cuda.is_available():
        raise TrainError(f"there is no GPU that can be used here ({device}): device 'cpu' trains without")
    return torch.device("cuda", torch.cuda.current_device() if where.index is None else where.index)


def choose(device: str | torch.device) -> None:
    """What this process allocates, draws or asks without naming a device is on this one from now on: ranks of a node
    may see all its GPUs."""
    if torch.device(device).type == "cuda":
        torch.cuda.set_device(device)


def share_gpu(device: str, runs: int) -> None:
    """Take at most this run's part of the memory of a GPU that it shares; a twentieth is left for what CUDA itself
    takes in each process, which its allocator does not count."""
    if runs > 1 and torch.device(device).type == "cuda":
        torch.cuda.set_per_process_memory_fraction(0.95 / runs, device)


def memory_of_gpu(device: torch.device) -> int:
    """Bytes of a GPU's memory that this process may take."""
    total: int = torch.cuda.get_device_properties(device).total_memory
    return int(total * torch.cuda.get_per_process_memory_fraction(device))


def set_up(device: torch.device, deterministic: bool, precision: str = "fp32") -> None:
    """This process computes on ``device``; fp32 means fp32, and TF32 is another precision; on request only algorithms
    that give the same bits each time."""
    choose(device)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.benchmark = not deterministic
        torch.backends.cudnn.deterministic = deterministic
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(deterministic)


def compiled(module: nn.Module, how: bool | str) -> Any:
    """The module, by torch.compile where ``how`` is True or one of its modes."""
    return torch.compile(module, mode=None if how is True else how) if how else module


def replayed(how: bool | str) -> bool:
    """Whether a GPU replays whole passes as CUDA graphs, which write to the same memory each time."""
    return isinstance(how, str)


def keeps_gradients(model: nn.Module, how: bool | str, accumulation: int) -> bool:
    """Whether gradients are set to zero instead of let go before a step: where graphs add up those of several parts,
    they need memory that is not a graph's own, which the next pass overwrites. It is made here."""
    keeps = accumulation > 1 and replayed(how)
    for weight in model.parameters() if keeps else ():
        weight.grad = torch.zeros_like(weight) if weight.requires_grad else None
    return keeps


def begin_pass(how: bool | str) -> None:
    """Of the student, after the backward pass of the one before, whose memory CUDA graphs may use again."""
    if replayed(how):
        torch.compiler.cudagraph_mark_step_begin()


def autocast(recipe: Recipe, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """A context for a forward pass in the recipe's precision. Losses and updates stay in fp32."""
    half = HALVES.get(recipe.precision)
    return lambda: torch.autocast(device.type, dtype=half, enabled=half is not None)


def build_scaler(recipe: Recipe, device: torch.device) -> GradScaler:
    """Loss scaling for fp16; does nothing at any other precision."""
    return GradScaler(device.type, enabled=recipe.precision == "fp16")


def update(model: nn.Module, optimizer: Optimizer, scaler: GradScaler, clip_grad: float | None) -> None:
    """A step of the optimizer by the scaled gradients, after clipping their norm at ``clip_grad``."""
    if clip_grad is not None:
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), clip_grad)
    scaler.step(optimizer)
    scaler.update()


class HeadsOf(nn.Module):
    """A model as the loop calls it: images (B, C, H, W) to the logits of each head."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Heads:
        return heads(self.model, images)
