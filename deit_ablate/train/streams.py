"""Random draws as functions of where they are used: never of history, of loaders or of the order of execution.

A stream is a hash of (seed, purpose, position). Timm's and torchvision's operations draw from the global
generators, so these are seeded from a stream right before each use. Purposes are separate (order, augment/<op>,
mix/<op>, model/<layer>, init): switching one off leaves the draws of the others alone.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deit_ablate.errors import TrainError


def stream(seed: int, purpose: str, *position: int) -> int:
    """A 64-bit number, a function of its arguments alone: BLAKE2b of ``seed/purpose/position...``."""
    text = "/".join(map(str, (seed, purpose, *position)))
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def seed_generators(value: int, device: torch.device | None = None) -> None:
    """Seed Python's, numpy's and torch's global generators (and the CUDA device's, where one is given)."""
    random.seed(value)
    np.random.seed(value & 0xFFFFFFFF)
    torch.default_generator.manual_seed(value)  # torch.manual_seed also visits all devices, at 50 times the cost
    if device is not None and device.type == "cuda":
        torch_generator(device).manual_seed(value)


def torch_generator(device: torch.device) -> torch.Generator:
    """The one that layers on this device draw from."""
    if device.type != "cuda":
        return torch.default_generator
    torch.cuda.init()
    return torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]


def generator(value: int) -> np.random.RandomState:
    """An independent generator. RandomState because numpy guarantees its stream across versions."""
    return np.random.RandomState([value & 0xFFFFFFFF, value >> 32])


class ModelDraws:
    """The draws of a model in training: each layer that drops something has a stream of its own, by its name.

    Such layers draw from the torch generator of their device. It is seeded as a layer begins, and put back as it
    ends, so that what a model of one's own draws besides does not depend on them either. Not ``apart`` (a compiled
    model, which hooks would break into pieces), all draws of a pass follow one another in the stream "model".
    """

    def __init__(self, model: nn.Module, seed: int, device: torch.device, apart: bool = True) -> None:
        self.seed, self.device = seed, device
        self.generator = torch_generator(device)
        self.position: tuple[int, ...] = ()
        self.calls: Counter[str] = Counter()
        self.backward = False
        self.outside: list[Tensor] = []
        for name, module in model.named_modules():
            if apart and _drops(module):
                module.register_forward_pre_hook(partial(self._begin, name))
                module.register_forward_hook(self._end)

    @contextmanager
    def at(self, position: tuple[int, ...]) -> Iterator[None]:
        """Around the forward pass at this position. Raises TrainError in the backward pass that computes it again
        (activation checkpointing) where a layer is used more than once: its draws could not be told apart."""
        seed_generators(stream(self.seed, "model", *position), self.device)
        self.position, self.calls, self.backward, self.outside = position, Counter(), False, []
        yield
        self.backward = True

    def _begin(self, name: str, module: nn.Module, _: Any) -> None:
        if not module.training:
            return
        if not self.backward:
            self.calls[name] += 1
        elif self.calls[name] > 1:  # a model that saves memory computes its forward pass again, in another order
            raise TrainError(f"{name} drops more than once in a pass that is checkpointed: use a layer for each place")
        self.outside.append(self.generator.get_state())
        self.generator.manual_seed(stream(self.seed, f"model/{name}", *self.position, self.calls[name]))

    def _end(self, module: nn.Module, *_: Any) -> None:
        if module.training:
            self.generator.set_state(self.outside.pop())


def _drops(module: nn.Module) -> bool:
    """Dropout, drop path and their kin, which libraries name so; and attention, which drops inside its kernel."""
    kernel = getattr(module, "attn_drop", None)
    rates = [getattr(kernel, "p", 0), module.dropout if isinstance(module, nn.MultiheadAttention) else 0]
    if any(part in type(module).__name__ for part in ("Drop", "StochasticDepth")):
        rates.append(next((getattr(module, name) for name in ("p", "drop_prob", "prob") if hasattr(module, name)), 1))
    return any(rates)
