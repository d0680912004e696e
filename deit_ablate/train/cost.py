"""What a training took, and the hash that tells two results apart."""

from __future__ import annotations

import hashlib
import resource
import sys
import time

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from deit_ablate.train.model import at_rest, heads

INFERENCE_BATCH = {"cuda": 256, "cpu": 64}
"""Images of a batch whose forward pass is timed."""
INFERENCE_RUNS = 30
CPU_SECONDS = 0.1
"""On a CPU no further forward pass is timed after this long, warm-up included: a small run must not wait for it."""


def forward_flops(model: nn.Module, channels: int, resolution: int) -> int:
    """Floating-point operations of one image's forward pass, a multiply-add counted as two (matrix products,
    attention and convolutions). Draws nothing at random: the model is in evaluation mode meanwhile."""
    images = torch.zeros(1, channels, resolution, resolution, device=next(model.parameters()).device)
    # Its fused kernels are not counted.
    with at_rest(model), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        heads(model, images)
    return int(counter.get_total_flops())


def inference(model: nn.Module, channels: int, resolution: int) -> tuple[float | None, int | None]:
    """(images a second, images of the batch) of the forward pass alone, in evaluation mode and fp32 as the model is.

    The mean time of up to 30 passes of one batch after a warm-up, as the paper measures (its throughput: 30 runs on
    a V100, of the largest batch that fits; here 256 images on a GPU, half as many until they fit, and 64 on a CPU,
    where CPU_SECONDS bounds the passes, but for a first one). Of the process's own threads, beside whatever else the
    machine does. Draws nothing at random and changes no weight. (None, None) where not even one image fits.
    """
    device = next(model.parameters()).device
    batch = INFERENCE_BATCH.get(device.type, INFERENCE_BATCH["cpu"])
    with at_rest(model):
        while batch:
            try:
                return batch / _pass_seconds(model, (batch, channels, resolution, resolution), device), batch
            except torch.OutOfMemoryError:  # the training is over and counts, whatever fits now
                batch //= 2
    return None, None


def _pass_seconds(model: nn.Module, shape: tuple[int, ...], device: torch.device) -> float:
    """Mean seconds of a forward pass of a batch of this shape."""
    begun = time.perf_counter()
    # Not zeros, which a GPU multiplies with less power and so faster; not random, which would be a draw.
    images: Tensor = torch.linspace(-2, 2, steps=shape[0] * shape[1] * shape[2] * shape[3], device=device).view(shape)
    heads(model, images)
    _wait(device)
    runs, start = 0, time.perf_counter()
    while runs == 0 or (runs < INFERENCE_RUNS and (device.type == "cuda" or time.perf_counter() - begun < CPU_SECONDS)):
        heads(model, images)
        runs += 1
    _wait(device)
    return (time.perf_counter() - start) / runs


def _wait(device: torch.device) -> None:
    """Until the device has done what it was given; a CPU has when the call returns."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def peak_memory(device: torch.device) -> int:
    """Bytes: the device's peak of allocated memory, on a CPU the process's peak resident size."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak if sys.platform == "darwin" else peak * 1024)


def weights_sha256(model: nn.Module) -> str:
    """SHA-256 over the state dict: names in order, each with its tensor's type, shape and bytes."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
