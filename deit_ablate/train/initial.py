"""What a run starts from beside fresh weights: those of a file (``model.init``), fitted to the run's classes, channels,
resolution and heads; and which of them stay as they are (``model.train_only``)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from timm.layers import resample_abs_pos_embed
from timm.models import VisionTransformer, adapt_input_conv
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from deit_ablate.errors import TrainError
from deit_ablate.train.model import quiet_timm
from deit_ablate.train.teachers import read_weights


def freeze(model: nn.Module, train_only: Sequence[str]) -> None:
    """Leave to training the parameters whose names have one of these parts: "attn" and "blocks.0" are parts of
    "blocks.0.attn.qkv.weight", "head" is none of "head_dist.bias". A norm that is frozen keeps its running statistics
    too. Raises TrainError for a part that no name has."""
    names = [f".{name}." for name, _ in model.named_parameters()]
    parts = [f".{part}." for part in train_only]
    for part in parts:
        if not any(part in name for name in names):
            known = dict.fromkeys(each for name in names for each in name.strip(".").split(".") if not each.isdigit())
            raise TrainError(
                f"model.train_only {part.strip('.')!r} is in no parameter's name (there are {', '.join(known)})"
            )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(part in f".{name}." for part in parts))
    for name, module in model.named_modules():
        trained = any(part in f".{name}." for part in parts) or any(each.requires_grad for each in module.parameters())
        if getattr(module, "running_mean", None) is not None and not trained:
            module.eval()
            module.train = MethodType(_as_it_is, module)


def _as_it_is(module: nn.Module, mode: bool = True) -> nn.Module:
    return module


TOKEN = ("dist_token", "head_dist.weight", "head_dist.bias")
"""What a DeiT with the distillation token has beside a plain one; and one more position."""


def load_file(model: nn.Module, path: Path) -> None:
    """Start from a weights file: safetensors or torch's, of timm, of the DeiT authors or of this trainer.

    By timm's own functions: patch and position embeddings are resampled, the first layer's weights are summed or
    repeated for other channels. A head of other classes starts afresh, as do a second token and its head that the
    file has not; those that the model has not are left out. Raises TrainError where anything else does not fit.
    """
    weights, _ = read_weights(path)
    with torch.device("cpu"), torch.no_grad(), quiet_timm(), contextlib.redirect_stdout(io.StringIO()):
        own = {key: _on_cpu(value) for key, value in model.state_dict().items()}
        try:
            fitted = _fitted(model, weights, own)
        except (RuntimeError, AssertionError, ValueError, KeyError, AttributeError, NotImplementedError) as error:
            raise TrainError(f"{path} (model.init) does not fit this model: {error}") from error
        fresh = {key for key in (*TOKEN, *_heads(model)) if key in own and key not in fitted}
        strangers = [*sorted(fitted.keys() - own.keys()), *sorted(own.keys() - fitted.keys() - fresh)]
        if strangers:
            raise TrainError(
                f"{path} (model.init) is of another model: {', '.join(strangers[:5])} "
                f"{'are' if len(strangers) > 1 else 'is'} in one of the two alone"
            )
        for key, value in fitted.items():
            if value.shape != own[key].shape:
                shapes = f"{tuple(value.shape)}, not {tuple(own[key].shape)}"
                raise TrainError(f"{path} (model.init) is of another model: {key} has the shape {shapes}")
        for key, held in model.state_dict().items():
            if key in fitted and held.device.type != "meta":
                held.copy_(fitted[key])


def _on_cpu(value: Tensor) -> Tensor:
    """A model that is only looked at has no values."""
    return torch.zeros(value.shape, dtype=value.dtype) if value.device.type == "meta" else value.detach().cpu()


def _heads(model: nn.Module) -> list[str]:
    """The parameters of the classifier, by timm's facts about a model, or by their usual name."""
    config: Any = getattr(model, "pretrained_cfg", None) or {}
    named = config.get("classifier") or ("head", "fc", "classifier")
    layers = (named,) if isinstance(named, str) else tuple(named)
    return [f"{layer}.{part}" for layer in layers for part in ("weight", "bias")]


def _fitted(model: nn.Module, weights: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    fitted = {key: value for key, value in weights.items() if isinstance(value, Tensor)}
    first = _first_layer(model, own)
    if first in fitted and first in own and fitted[first].ndim == 4 and fitted[first].shape[1] != own[first].shape[1]:
        fitted[first] = _other_channels(fitted[first], own[first].shape[1])
    if isinstance(model, VisionTransformer):
        fitted = _tokens(fitted, own)
        fitted = dict(checkpoint_filter_fn(fitted, model))
        place = fitted.get("pos_embed")
        if place is not None and place.shape[1] != own["pos_embed"].shape[1]:
            size = list(model.patch_embed.grid_size)
            fitted["pos_embed"] = resample_abs_pos_embed(place, size, num_prefix_tokens=model.num_prefix_tokens)
    for key in (*_heads(model), *TOKEN):
        if key in fitted and key in own and fitted[key].shape != own[key].shape:
            del fitted[key]
    return fitted


def _tokens(weights: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """With the distillation token, or without it, as the model has it; the position after the class token is its."""
    place = weights.get("pos_embed")
    if place is None or ("dist_token" in weights) == ("dist_token" in own):
        return weights
    if "dist_token" in weights:
        left = {key: value for key, value in weights.items() if key not in TOKEN}
        return {**left, "pos_embed": torch.cat([place[:, :1], place[:, 2:]], dim=1)}
    return {**weights, "pos_embed": torch.cat([place[:, :1], own["pos_embed"][:, 1:2], place[:, 1:]], dim=1)}


def _first_layer(model: nn.Module, own: dict[str, Tensor]) -> str:
    config: Any = getattr(model, "pretrained_cfg", None) or {}
    named = config.get("first_conv") or ("patch_embed.proj" if "patch_embed.proj.weight" in own else "")
    return f"{named if isinstance(named, str) else named[0]}.weight"


def _other_channels(weight: Tensor, channels: int) -> Tensor:
    """timm's rule, which knows three channels in the file; from others the mean over them."""
    if weight.shape[1] == 3:
        adapted: Tensor = adapt_input_conv(channels, weight)
        return adapted
    return weight.mean(1, keepdim=True).repeat(1, channels, 1, 1) * (weight.shape[1] / channels)
