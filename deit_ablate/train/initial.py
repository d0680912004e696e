"""Weights to start from (``model.init``, or a parent's): read from files, and fitted to the run's classes, channels,
resolution and heads; and which of them stay as they are (``model.train_only``)."""

from __future__ import annotations

import argparse
import contextlib
import io
import pickle
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MethodType
from typing import Any

import safetensors
import safetensors.torch
import torch
from timm.layers import resample_abs_pos_embed
from timm.models import VisionTransformer, adapt_input_conv, clean_state_dict
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from deit_ablate.errors import TrainError
from deit_ablate.train.model import quiet_timm

HOLDERS = ("model", "state_dict", "model_ema", "state_dict_ema", "ema")
"""Keys of a checkpoint's weights, the first that is there: as in the reference code, raw weights before averages."""


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


def lone_head(weights: Mapping[str, Any]) -> str | None:
    """Which of two, "head" or "head_dist", weights are of alone, as ``classifier.timm_weights`` writes them: its layer
    is doubled and the other one's is zero, for timm averages their logits. None for other weights."""
    if not {"head.weight", "head_dist.weight"} <= weights.keys():
        return None
    used = [head for head in ("head", "head_dist") if any(weights[key].any() for key in _layer(weights, head))]
    return used[0] if len(used) == 1 else None


def _layer(weights: Mapping[str, Any], name: str) -> list[str]:
    return [key for key in weights if key.startswith(f"{name}.")]


def _undoubled(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """A lone head as it was trained, to the bit, and no other one."""
    if (head := lone_head(weights)) is None:
        return weights
    left = _layer(weights, "head" if head == "head_dist" else "head_dist")
    halved = {key: weights[key] / 2 for key in _layer(weights, head)}
    return {key: value for key, value in (weights | halved).items() if key not in left}


def fit(model: nn.Module, weights: dict[str, Tensor], source: str, antialias: bool = True, afresh: bool = True) -> None:
    """Start from weights of timm, of the DeiT authors or of this trainer; ``source`` is what an error calls them.

    By timm's own functions: patch and position embeddings are resampled (bicubically, ``antialias``), the first layer's
    weights are summed or repeated for other channels. A lone head (see ``lone_head``) is taken as it was trained. A
    head of other classes starts afresh, as do one that the weights have not, and a second token that they have not (not
    if ``afresh`` is False: of a teacher that would be noise); those that the model has not are left out. Raises
    TrainError where anything else does not fit.
    """
    with torch.device("cpu"), torch.no_grad(), quiet_timm(), contextlib.redirect_stdout(io.StringIO()):
        own = {key: _on_cpu(value) for key, value in model.state_dict().items()}
        try:
            fitted = _fitted(model, weights, own, antialias)
        except (RuntimeError, AssertionError, ValueError, KeyError, AttributeError, NotImplementedError) as error:
            raise TrainError(f"{source} does not fit this model: {error}") from error
        fresh = {key for key in (*_heads(model), *TOKEN) if afresh and key in own}
        for key in fresh & fitted.keys():
            if fitted[key].shape != own[key].shape:
                del fitted[key]
        strangers = [*sorted(fitted.keys() - own.keys()), *sorted(own.keys() - fitted.keys() - fresh)]
        if strangers:
            raise TrainError(
                f"{source} is of another model: {', '.join(strangers[:5])} "
                f"{'are' if len(strangers) > 1 else 'is'} in one of the two alone"
            )
        for key, value in fitted.items():
            if value.shape != own[key].shape:
                shapes = f"{tuple(value.shape)}, not {tuple(own[key].shape)}"
                raise TrainError(f"{source} is of another model: {key} has the shape {shapes}")
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


def _fitted(model: nn.Module, weights: dict[str, Tensor], own: dict[str, Tensor], antialias: bool) -> dict[str, Tensor]:
    fitted = _undoubled({key: value for key, value in weights.items() if isinstance(value, Tensor)})
    first = _first_layer(model, own)
    if first in fitted and first in own and fitted[first].ndim == 4 and fitted[first].shape[1] != own[first].shape[1]:
        fitted[first] = _other_channels(fitted[first], own[first].shape[1])
    if isinstance(model, VisionTransformer):
        fitted = _tokens(fitted, own)
        fitted = dict(checkpoint_filter_fn(fitted, model, antialias=antialias))
        place = fitted.get("pos_embed")
        if place is not None and place.shape[1] != own["pos_embed"].shape[1]:
            size = list(model.patch_embed.grid_size)
            tokens = model.num_prefix_tokens
            fitted["pos_embed"] = resample_abs_pos_embed(place, size, num_prefix_tokens=tokens, antialias=antialias)
    return fitted


def _tokens(weights: dict[str, Tensor], own: dict[str, Tensor]) -> dict[str, Tensor]:
    """With the distillation token, or without it, as the model has it; the position after the class token is its."""
    place = weights.get("pos_embed")
    if place is None or ("dist_token" in weights) == ("dist_token" in own):
        return weights
    if "dist_token" in weights:
        if "head_dist.weight" in weights and "head.weight" not in weights:
            raise ValueError(
                "it is of the distillation head alone, which this model has not: `deit-ablate weights RUN` without "
                "`--head distillation` has the other one too"
            )
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


# -- files ----------------------------------------------------------------------------------------------------------


def read_weights(path: Path) -> tuple[dict[str, Tensor], bool]:
    """The state dict in a file, on the CPU, and whether it is a checkpoint of this trainer (``checkpoint.Training``).

    Safetensors, or torch's format as plain weights, as the official DeiT and timm checkpoints have it, or as our own.
    Prefixes of DDP and torch.compile are taken off the names. Raises TrainError for a file that is missing, damaged,
    holds no weights, or asks for code to be run.
    """
    content = _read(path)
    inner = next((content[key] for key in HOLDERS if isinstance(content.get(key), dict)), content)
    if not inner or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in inner.items()):
        raise TrainError(f"{path} holds no state dict (names with tensors), alone or under {', '.join(HOLDERS)}")
    return clean_state_dict(inner), {"step", "history", "model", "data"} <= content.keys()


def _read(path: Path) -> dict[str, Any]:
    try:
        # By content, for files are renamed: safetensors begins with the length of a JSON object.
        with open(path, "rb") as file:
            if file.read(9)[8:] == b"{":
                return dict(safetensors.torch.load_file(path))
            file.seek(0)
            # The official checkpoints hold the command's arguments: a plain object, whose class may be named.
            with torch.serialization.safe_globals([argparse.Namespace]):
                content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise TrainError(f"the weights file {path} does not exist") from None
    except (IsADirectoryError, PermissionError) as error:
        raise TrainError(f"the weights file {path} cannot be read: {error.strerror}") from None
    except (OSError, MemoryError):
        raise
    except pickle.UnpicklingError as error:
        code = sorted(set(re.findall(r"GLOBAL ([\w.]+)", str(error))))
        if not code:
            # torch's message advises to load it as code
            raise TrainError(f"{path} is not a whole weights file: neither safetensors nor torch's format") from error
        raise TrainError(
            f"{path} asks for code to be run ({', '.join(code)}), which is refused: save its state dict alone"
        ) from error
    except Exception as error:  # SafetensorError, RuntimeError, EOFError, zip errors: whatever a damaged file gives
        raise TrainError(f"{path} is not a whole weights file: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise TrainError(f"{path} holds a {type(content).__name__}, not a state dict")
    return content


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
