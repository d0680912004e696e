"""Random draws as functions of where they are used: never of history, of loaders or of the order of execution.

A stream is a hash of (seed, purpose, position). Timm's and torchvision's operations draw from the global
generators, so these are seeded from a stream right before each use. Purposes are separate (order, augment/<op>,
mix/<op>, model/<layer>, init): switching one off leaves the draws of the others alone.
"""

from __future__ import annotations

import copy
import hashlib
import math
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from deit_ablate.errors import TrainError
from deit_ablate.train.pixels import sent


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


GOLDEN = 0x9E3779B97F4A7C15
"""2**64 over the golden ratio: what SplitMix64 adds from one number to the next."""


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _mixed(words: Tensor) -> Tensor:
    """SplitMix64's finaliser (Steele, Lea and Flood, OOPSLA 2014), on int64 whose bits are taken for unsigned ones."""
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        words = (words ^ ((words >> shift) & ((1 << (64 - shift)) - 1))) * _signed(factor)
    return words ^ ((words >> 31) & ((1 << 33) - 1))


def _share(words: Tensor) -> Tensor:
    """Of their range: float64 in [0, 1), by the 53 highest bits."""
    return ((words >> 11) & (2**53 - 1)).double() * 2**-53


class Draws:
    """Random numbers for many views at once, each a function of seed, purpose, its own position and its place alone.

    A counter-based generator (Salmon et al., SC 2011): no state, so that no draw depends on what was drawn before, or
    on which views are drawn for together. ``positions`` is (B, P) int64.
    """

    def __init__(self, seed: int, purpose: str, positions: Tensor) -> None:
        state = torch.full((len(positions),), _signed(stream(seed, purpose)), device=positions.device)
        for column in positions.unbind(1):
            state = _mixed(state + (column + 1) * _signed(GOLDEN))
        self.state = state

    def uniform(self, *shape: int) -> Tensor:
        """(B, *shape) float64 in [0, 1); the first of them, whatever the shape."""
        places = torch.arange(1, math.prod(shape) + 1, device=self.state.device)
        return _share(_mixed(self.state[:, None] + places * _signed(GOLDEN))).view(len(self.state), *shape)

    def normal_at(self, views: Tensor, places: Tensor) -> Tensor:
        """The numbers at ``places`` (N, C) of each of ``views`` (N,), of mean 0 and deviation 1 (Box and Muller, 1958):
        (N, C) float32."""
        states, first = self.state[views, None], 2 * places + 1
        radius, angle = (_share(_mixed(states + place * _signed(GOLDEN))) for place in (first, first + 1))
        return (1 - radius).float().log().mul(-2).sqrt() * angle.float().mul(2 * math.pi).cos()

    def of(self, rows: Tensor) -> Draws:
        """The draws of some of the views: their numbers, or a mask."""
        some = copy.copy(self)
        some.state = self.state[rows]
        return some

    def on(self, device: torch.device) -> Draws:
        """The same draws, made on this device."""
        there = copy.copy(self)
        there.state = sent(self.state, device)
        return there

    def apart(self, purpose: str) -> Draws:
        """Other draws for the same views."""
        other = copy.copy(self)
        other.state = _mixed(self.state ^ _signed(stream(0, purpose)))
        return other


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
        self.hooks: list[RemovableHandle] = []
        for name, module in model.named_modules():
            if apart and _drops(module):
                self.hooks.append(module.register_forward_pre_hook(partial(self._begin, name)))
                self.hooks.append(module.register_forward_hook(self._end))

    def during(self, epochs: Iterable[int]) -> Iterator[int]:
        """The epochs of a training; when they end, or a ``return`` leaves them, the model is again as any other, for
        whoever trains it on: without positions its layers would drop the same at every step."""
        try:
            yield from epochs
        finally:
            for hook in self.hooks:
                hook.remove()

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
