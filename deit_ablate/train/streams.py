"""Random draws as functions of where they are used: never of history, of loaders or of the order of execution.

A stream is a hash of (seed, purpose, position). Timm's and torchvision's operations draw from the global
generators, so these are seeded from a stream right before each use. Purposes are separate (order, augment/<op>,
mix, model, init): switching one off leaves the draws of the others alone.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


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
        torch.cuda.manual_seed(value)


def generator(value: int) -> np.random.RandomState:
    """An independent generator. RandomState because numpy guarantees its stream across versions."""
    return np.random.RandomState([value & 0xFFFFFFFF, value >> 32])
