"""How the numbers are computed: precision of a pass, layout, compilation, determinism."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler

from deit_ablate.recipe import Recipe
from deit_ablate.train.model import Heads, heads

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def set_up(device: torch.device, deterministic: bool, precision: str = "fp32") -> None:
    """This process computes on ``device``; fp32 means fp32, and TF32 is another precision; on request only algorithms
    that give the same bits each time."""
    if device.type == "cuda":
        # What allocates, draws or asks without naming a device means this one: ranks of a node may see all its GPUs.
        torch.cuda.set_device(device)
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.benchmark = not deterministic
        if deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
            torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(deterministic)


def autocast(recipe: Recipe, device: torch.device) -> Callable[[], AbstractContextManager[Any]]:
    """A context for a forward pass in the recipe's precision. Losses and updates stay in fp32."""
    half = HALVES.get(recipe.precision)
    return lambda: torch.autocast(device.type, dtype=half, enabled=half is not None)


def build_scaler(recipe: Recipe, device: torch.device) -> GradScaler:
    """Loss scaling for fp16; does nothing at any other precision."""
    return GradScaler(device.type, enabled=recipe.precision == "fp16")


class HeadsOf(nn.Module):
    """A model as the loop calls it: images (B, C, H, W) to the logits of each head."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Heads:
        return heads(self.model, images)
