"""Models: the students and teachers by name, their initial weights, and the one place that knows about heads.

To add a model, write a function of a ``Shape`` and of the options that recipes may set, and give it a line in
``MODELS``. All of timm's names work as they are; a custom one is named ``module:function``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import timm
import torch
from timm.layers import DropPath, PatchEmbed, trunc_normal_
from timm.models import VisionTransformer
from timm.models.deit import VisionTransformerDistilled
from torch import Tensor, nn
from torch.nn.utils import skip_init

from deit_ablate.errors import TrainError, did_you_mean
from deit_ablate.train.registry import OptionError, check_options, lookup, option_kinds

Heads = tuple[Tensor, Tensor | None]
"""Logits (B, K) of the class head, and of the distillation head where there is one."""


@dataclass(frozen=True)
class Shape:
    """What a model must fit, apart from its own options."""

    resolution: int
    channels: int
    classes: int
    heads: int
    """2 where the distillation type has a distillation token, else 1."""
    drop_path: float
    dropout: float


def deit(
    shape: Shape,
    *,
    patch_size: int = 16,
    embed_dim: int = 192,
    depth: int = 12,
    num_heads: int = 3,
    mlp_ratio: float = 4.0,
    qkv_bias: bool = True,
    init_values: float | None = None,
) -> nn.Module:
    """A DeiT of any size: timm's vision transformer, with the distillation token where two heads are asked for.
    ``init_values``: where LayerScale starts (DeiT III: 1e-4), or none of it.

    As in the reference code (timm 0.3.2), dropout acts on the embeddings and on each block's projections, not on
    the head, and the class token too starts from a truncated normal of 0.02 (today's timm has 1e-6).
    What the models with and without the distillation token have in common starts from the same values.
    """
    build: Callable[..., VisionTransformer] = partial(
        with_class_token,
        img_size=shape.resolution,
        in_chans=shape.channels,
        num_classes=shape.classes,
        patch_size=patch_size,
        embed_dim=embed_dim,
        depth=depth,
        num_heads=num_heads,
        mlp_ratio=mlp_ratio,
        qkv_bias=qkv_bias,
        init_values=init_values,
        drop_path_rate=shape.drop_path,
        pos_drop_rate=shape.dropout,
        proj_drop_rate=shape.dropout,
    )
    model = build(VisionTransformer)
    return _start_alike(build(VisionTransformerDistilled), model) if shape.heads == 2 else model


Family = TypeVar("Family", bound=VisionTransformer)


def with_class_token(family: Callable[..., Family], **arguments: Any) -> Family:
    """A transformer of timm's class ``family``, by its arguments, that starts as the reference code's does."""
    resolution, patch, dim, heads = (arguments[key] for key in ("img_size", "patch_size", "embed_dim", "num_heads"))
    if resolution % patch:
        raise TrainError(f"a resolution of {resolution} is not a multiple of the patch size {patch}")
    if dim % heads:
        raise TrainError(f"embed_dim {dim} is not a multiple of num_heads {heads}")
    model = family(norm_layer=partial(nn.LayerNorm, eps=1e-6), **arguments)
    trunc_normal_(model.cls_token, std=0.02)  # as in the reference code; today's timm has 1e-6
    return model


def _start_alike(two: VisionTransformer, one: VisionTransformer) -> VisionTransformer:
    """The distilled model with the initial values of the plain one, but for its second token and head."""
    values = one.state_dict()
    place, own = values["pos_embed"], two.state_dict()["pos_embed"]
    values["pos_embed"] = torch.cat([place[:, :1], own[:, 1:2], place[:, 1:]], dim=1)
    two.load_state_dict(values, strict=False)
    return two


def _convolved(before: int, after: int, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(after), nn.ReLU(inplace=True)]


class ConvBlock(nn.Module):
    """Two 3x3 convolutions with a shortcut (He et al., 2016); (B, width, H, W) to the same shape."""

    def __init__(self, width: int, drop_path: float) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(*_convolved(width, width), *_convolved(width, width)[:2])
        self.drop_path = DropPath(drop_path)

    def forward(self, images: Tensor) -> Tensor:
        return torch.relu(images + self.drop_path(self.convolutions(images)))


class SmallConvnet(nn.Sequential):
    """A residual convnet for images of 8 to 32 pixels: the teacher of the small profiles."""

    def __init__(self, shape: Shape, width: int) -> None:
        super().__init__(
            *_convolved(shape.channels, width, stride=2),
            ConvBlock(width, shape.drop_path / 2),
            *_convolved(width, 2 * width, stride=2),
            ConvBlock(2 * width, shape.drop_path),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Dropout(shape.dropout),
            nn.Linear(2 * width, shape.classes),
        )
        self.pretrained_cfg = {"first_conv": "0", "classifier": "11"}  # as timm's models say which layers these are


def small_convnet(shape: Shape, *, width: int = 36) -> nn.Module:
    """A convnet with batch norm as teacher (about 140,000 parameters at width 36); dropout acts before its head."""
    if shape.heads != 1:
        raise TrainError("small_convnet has no distillation token: use a deit model, or distill.type soft or hard")
    return SmallConvnet(shape, width)


MODELS: dict[str, Callable[..., nn.Module]] = {
    "deit": deit,
    # DeiT-Ti, S and B (Table 1): 5.7, 22.1 and 86.6 million parameters at 224 pixels.
    "deit_tiny": partial(deit, embed_dim=192, num_heads=3),
    "deit_small": partial(deit, embed_dim=384, num_heads=6),
    "deit_base": partial(deit, embed_dim=768, num_heads=12),
    "small_convnet": small_convnet,
}


def timm_model(name: str, shape: Shape, options: dict[str, Any]) -> nn.Module:
    """One of timm's models, untrained. Raises TrainError for a regularizer that the model cannot honour."""
    check_options(name, options, {"**": "unknown"})  # before timm takes "no" for true, or trips over it
    arguments: dict[str, Any] = {"img_size": shape.resolution, "drop_path_rate": shape.drop_path}
    if shape.dropout:
        transformer = name.startswith(("vit_", "deit", "beit"))
        arguments |= (
            {"pos_drop_rate": shape.dropout, "proj_drop_rate": shape.dropout}
            if transformer
            else {"drop_rate": shape.dropout}
        )
    while True:
        try:
            model: nn.Module = timm.create_model(
                name, num_classes=shape.classes, in_chans=shape.channels, **arguments, **options
            )
            break
        except TypeError as error:
            unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
            key = unknown.group(1) if unknown else ""
            if key in options:
                raise OptionError(key, f"{name} has no option {key!r}") from error
            if key not in arguments:
                raise TrainError(f"{name} does not take these options: {error}") from error
            if key != "img_size" and arguments[key]:  # a convnet takes any size; a regularizer must not vanish silently
                field = "drop_path" if key == "drop_path_rate" else "dropout"
                raise TrainError(f"{name} cannot honour regularize.{field}: set it to 0 for this model") from error
            del arguments[key]
        except (AssertionError, ValueError, RuntimeError) as error:
            raise TrainError(f"{name} cannot be built: {error}") from error
    check_options(name, options, {**option_kinds(type(model), skip=()), "**": "unknown"})
    if name.startswith("deit_"):
        trunc_normal_(model.cls_token, std=0.02)  # as in the reference code, see deit()
    return model


@contextmanager
def quiet_timm() -> Iterator[None]:
    """Without timm's remarks on what it loads."""
    logger = logging.getLogger("timm")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def build_model(name: str, options: dict[str, Any], shape: Shape, check: bool = True) -> nn.Module:
    """The model by name, with fresh weights (the caller seeds the generators).

    Raises TrainError for an unknown name or option, and where the model does not map (B, channels, resolution,
    resolution) to as many heads of (B, classes) logits as the shape asks for (tried out where ``check``).
    """
    if name in MODELS or ":" in name:
        function = lookup("model", name, MODELS)
        check_options(f"the model {name}", options, option_kinds(function, skip=("shape",)))
        model = _built(name, function, shape, options)
    elif timm.is_model(name):
        model = timm_model(name, shape, options)
    else:
        raise TrainError(f"no model is called {name!r}{did_you_mean(name, [*MODELS, *timm.list_models()])}")
    _check_patches(name, model, shape)
    for part in list(model.modules()):
        if isinstance(part, PatchEmbed) and (faster := PatchProjection.of(part.proj)):
            part.proj = faster
    if check:
        size = (shape.channels, shape.resolution, shape.resolution)
        try_out(f"the model {name}", model, size, shape.classes, shape.heads)
    return model


class PatchProjection(nn.Conv2d):
    """A convolution over patches that do not overlap, as the one product of matrices that it is: on the small pictures
    of a CPU a third of its time. The weights are the convolution's."""

    @classmethod
    def of(cls, given: nn.Module) -> PatchProjection | None:
        """One that has taken ``given``'s weights; None for another kind of layer."""
        if type(given) is not nn.Conv2d or given.kernel_size != given.stride:
            return None
        if (given.padding, given.dilation, given.groups) != ((0, 0), (1, 1), 1):
            return None
        made = skip_init(cls, given.in_channels, given.out_channels, given.kernel_size, given.stride)
        made.weight, made.bias = given.weight, given.bias
        return made

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, D, H / p, W / p), which lies in memory with D last, as tokens do."""
        count, channels, height, width = images.shape
        (down, across), rest = self.kernel_size, (height % self.kernel_size[0], width % self.kernel_size[1])
        if any(rest):
            return super().forward(images)
        patches = images.reshape(count, channels, height // down, down, width // across, across)
        tokens = patches.permute(0, 2, 4, 1, 3, 5).reshape(count, height // down, width // across, -1)
        return nn.functional.linear(tokens, self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)


def _check_patches(name: str, model: nn.Module, shape: Shape) -> None:
    """Patches that do not fill the picture leave its edge unseen without a word (timm's embedding is a convolution)."""
    embeddings = [part for part in model.children() if isinstance(part, PatchEmbed) and not part.dynamic_img_pad]
    for patch in (side for embedding in embeddings for side in embedding.patch_size):
        if shape.resolution % patch:
            raise TrainError(
                f"{name}: a data.resolution of {shape.resolution} is no whole number of patches of {patch} pixels"
            )


def _built(name: str, function: Callable[..., nn.Module], shape: Shape, options: dict[str, Any]) -> nn.Module:
    try:
        return function(shape, **options)
    except TrainError:
        raise
    except (TypeError, ValueError, AssertionError, RuntimeError, ZeroDivisionError) as error:
        raise TrainError(f"the model {name} cannot be built with options {options}: {error}") from error


@contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards each part is in the mode in which it was found."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        model.eval()
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def try_out(who: str, model: nn.Module, size: tuple[int, ...], classes: int, count: int | None = None) -> None:
    """Raises TrainError for a model that does not map images (B, *size) to (B, classes) logits of ``count`` heads, of
    one or two where that is None. ``who`` is what an error calls it."""
    device = next(model.parameters()).device
    try:
        with at_rest(model):
            logits = heads(model, torch.zeros(1, *size, device=device))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise TrainError(f"{who} does not take images of {size[-1]} pixels: {error}") from error
    found = 1 if logits[1] is None else 2
    if count is not None and found != count:
        hint = "distill.type soft-token or hard-token" if found == 2 else "a deit model, or distill.type soft or hard"
        raise TrainError(f"{who} has {found} head(s) where the distillation type asks for {count}: use {hint}")
    if logits[0].shape != (1, classes):
        raise TrainError(f"{who} gives logits of shape {tuple(logits[0].shape)}, not (1, {classes})")


def in_fp32(logits: Tensor) -> Tensor:
    """Half precision has too few bits for a softmax of many classes; fp32 (and fp64) stays as it is."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def heads(model: nn.Module, images: Tensor) -> Heads:
    """The logits of each head, in training and in evaluation alike (timm averages the two in evaluation)."""
    if isinstance(model, VisionTransformerDistilled):
        tokens = model.forward_features(images)
        return model.head(model.head_drop(tokens[:, 0])), model.head_dist(model.head_drop(tokens[:, 1]))
    logits = model(images)
    return (logits[0], logits[1]) if isinstance(logits, tuple) else (logits, None)
