"""What a training took, and the hash that tells two results apart."""

from __future__ import annotations

import hashlib
import resource
import sys

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from deit_ablate.train.model import heads


@torch.no_grad()
def forward_flops(model: nn.Module, channels: int, resolution: int) -> int:
    """Floating-point operations of one image's forward pass, a multiply-add counted as two (matrix products,
    attention and convolutions). Draws nothing at random: the model is in evaluation mode meanwhile."""
    training, device = model.training, next(model.parameters()).device
    model.eval()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # its fused kernels are not counted
        heads(model, torch.zeros(1, channels, resolution, resolution, device=device))
    model.train(training)
    return int(counter.get_total_flops())


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
