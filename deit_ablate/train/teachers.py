"""What a run takes from elsewhere: the weights of an earlier run to start from, and a teacher's logits.

A teacher is an earlier run, or one of timm's models by name, with weights from a file or from timm's hub. What is read
is never executed: safetensors, or torch files with ``weights_only``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

import safetensors.torch
import timm
import torch
from timm.models import VisionTransformer, get_pretrained_cfg
from torch import Tensor, nn
from torch.nn import functional as F

from deit_ablate import files
from deit_ablate.errors import TrainError, did_you_mean
from deit_ablate.identity import HUB
from deit_ablate.recipe import Recipe
from deit_ablate.train import checkpoint
from deit_ablate.train.data.sets import Dataset, Splits
from deit_ablate.train.distill import distillation_of, recipe_model
from deit_ablate.train.evaluate import classifiers
from deit_ablate.train.initial import first_line, fit, lone_head, read_weights
from deit_ablate.train.model import Heads, heads, quiet_timm, try_out
from deit_ablate.train.precision import HeadsOf, compiled


class WeightsStore(Protocol):
    """What a training needs of the run store."""

    def find(self, wanted: str) -> Path | None: ...
    def keep_hub(self, name: str, write: Callable[[Path], None]) -> Path: ...
    def hub_sha256(self, name: str) -> str | None: ...


# -- earlier runs, and the teacher of a run -------------------------------------------------------------------------


@dataclass(frozen=True)
class Parent:
    """A finished run: its recipe, the checkpoint file that holds its weights, and which of them are meant."""

    recipe: Recipe
    weights: Path
    which: Literal["last", "ema"] = "last"


def parent_weights(parent: Parent) -> dict[str, Tensor]:
    """The parent's state dict, on the CPU. Raises CheckpointError (a damaged file), TrainError (no EMA)."""
    state = checkpoint.load(parent.weights)
    weights: dict[str, Tensor] | None = state["ema" if parent.which == "ema" else "model"]
    if weights is None:
        raise TrainError(f"{parent.weights} holds no moving average: the parent ran with regularize.ema_decay: null")
    return weights


class Teacher:
    """Logits (B, K), float32, of a trained model in evaluation mode, without gradients, for the student's very images
    (B, C, H, W), which come in the data set's normalisation.

    They are resized (bicubic, antialiased) where the teacher's resolution is another, and brought into the teacher's
    own normalisation where that is another. A teacher of two heads answers with their fused softmaxes; where
    one of them is zero (``initial.lone_head``), with the mean of their logits, which is the other's own.
    """

    def __init__(
        self, model: nn.Module, resolution: int, device: torch.device, into: tuple[Tensor, Tensor] | None = None
    ) -> None:
        """``into``: factor and summand per channel, (C, 1, 1), from the data set's normalisation to the teacher's."""
        self.model = model.to(device).eval().requires_grad_(False)
        self.forward: Callable[[Tensor], Heads] = partial(heads, self.model)
        self.decides = "fused_logits" if lone_head(self.model.state_dict()) else "fused_softmax"
        self.resolution = resolution
        self.into = None if into is None else tuple(part.to(device) for part in into)

    def prepare(self, compile: bool | str, channels_last: bool) -> None:
        """Compute as the student does."""
        if channels_last:
            self.model.to(memory_format=torch.channels_last)
        if compile:
            self.forward = compiled(HeadsOf(self.model), compile)

    def settings(self) -> list[Any]:
        """What its answers depend on beside its weights."""
        return [self.resolution, *(() if self.into is None else (part.flatten().tolist() for part in self.into))]

    @torch.no_grad()
    def __call__(self, images: Tensor, step: int = 0) -> Tensor:
        if images.shape[-1] != self.resolution:
            size = (self.resolution, self.resolution)
            images = F.interpolate(images, size=size, mode="bicubic", align_corners=False, antialias=True)
        if self.into is not None:
            images = images * self.into[0] + self.into[1]
        outputs = self.forward(images)
        return (outputs[0] if outputs[1] is None else classifiers(outputs)[self.decides]).float()


def build_teacher(
    recipe: Recipe, data: Splits, parent: Parent | None, weights: Path | None, device: torch.device
) -> Teacher | None:
    """The teacher that the distillation type asks for, or None where it asks for none: a run (``parent``), or the
    model that the recipe names, with the weights of this file or timm's own.

    Raises TrainError where there is no teacher, or two, and where its weights are not those that are meant or do not
    fit.
    """
    wanted = recipe.distill
    if not distillation_of(wanted.type).teacher:
        return None
    if parent is not None and wanted.teacher is not None:
        raise TrainError("two teachers: a stage of the sweep (parents['teacher']) and distill.teacher; give one")
    if parent is not None:
        return _run_as_teacher(parent, data.dataset, wanted.teacher_resolution, device)
    if wanted.teacher is None:
        raise TrainError(
            f"distill.type {wanted.type} needs a teacher: a stage of the sweep, given as parents['teacher'], or a "
            "pretrained model, named by distill.teacher"
        )
    if wanted.teacher_weights is not None:
        _must_be(weights, wanted.teacher_weights)
    named = named_teacher(
        wanted.teacher, weights, wanted.teacher_resolution, len(data.dataset.classes), data.dataset.channels
    )
    return Teacher(named.model, named.resolution, device, _between(data.dataset, named.mean, named.std))


def _must_be(weights: Path | None, sha256: str) -> None:
    if weights is None:
        raise TrainError("distill.teacher_weights names a file by its content: give its path as teacher_weights")
    if f"sha256:{files.sha256(weights)}" != sha256:
        raise TrainError(f"{weights} is not the file that distill.teacher_weights names: its content is another")


def _run_as_teacher(parent: Parent, dataset: Dataset, resolution: int | None, device: torch.device) -> Teacher:
    """A finished run, at the resolution that it was trained at or at another: a transformer's position embeddings are
    then interpolated, as when fine-tuning. Its normalisation is the data set's, so it is the student's."""
    recipe = parent.recipe
    resolution = resolution or recipe.data.resolution
    model = recipe_model(recipe, dataset, resolution)
    weights = parent_weights(parent)
    try:
        if resolution == recipe.data.resolution:
            model.load_state_dict(weights)
        else:
            fit(model, weights, str(parent.weights), antialias=False, afresh=False)
    except (RuntimeError, TrainError) as error:
        raise TrainError(
            f"the teacher's weights ({parent.weights}) do not fit its recipe or this data: {error}"
        ) from error
    return Teacher(model, resolution, device)


def _between(
    dataset: Dataset, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> tuple[Tensor, Tensor] | None:
    """Factor and summand, (C, 1, 1), from the data set's normalisation to this one; None where they are the same:
    (pixels - mean) / std, with pixels = normalised * std' + mean'."""
    if mean is None or std is None or (tuple(dataset.mean) == mean and tuple(dataset.std) == std):
        return None
    theirs_mean, theirs_std, our_mean, our_std = (
        torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (mean, std, dataset.mean, dataset.std)
    )
    return (our_std / theirs_std).float(), ((our_mean - theirs_mean) / theirs_std).float()


# -- models by name -------------------------------------------------------------------------------------------------


class Named(NamedTuple):
    """A model by name, with its weights. ``mean`` and ``std`` per channel, of pixels in [0, 1], are those it was
    trained with; None stands for the data set's own."""

    model: nn.Module
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    resolution: int


def named_teacher(name: str, weights: Path | None, resolution: int | None, classes: int, channels: int) -> Named:
    """timm's model of this name, in evaluation mode, with the weights of the file, or timm's own from its hub.

    ``resolution``: None is the one that it was trained at: that of the file's position embeddings where it has some,
    else the one that timm states. At another one, position embeddings are interpolated bicubically (by timm). The
    normalisation is the one that timm states; of a checkpoint of this trainer, and of a file with another number of
    channels than timm's weights have, it is the data set's. Raises TrainError where the weights cannot be had or read,
    or do not fit the name, the number of classes or of channels, or the resolution.
    """
    config = _config(name)
    overlay: dict[str, Any] = {"input_size": (channels, *[resolution or config.input_size[-1]] * 2)}
    ours = False
    if weights is None:
        _must_have(name, config.num_classes, classes)
        if config.input_size[0] != channels:
            raise TrainError(f"the teacher {name} sees {config.input_size[0]} channels, and the data have {channels}")
    else:
        tensors, ours = read_weights(weights)
        side = resolution or _trained_at(name, tensors) or config.input_size[-1]
        overlay = {"state_dict": tensors, "num_classes": classes, "input_size": (channels, side, side)}
        found = _classes_of(tensors, config)
        if found is not None:
            _must_have(name, found, classes)
    model = _from_hub(name, config, overlay) if weights is None else _from_file(name, overlay, weights)
    try_out(f"the teacher {name}", model, overlay["input_size"], classes)
    stated = config.mean is not None and config.std is not None and len(config.mean) == channels and not ours
    return Named(
        model.eval(),
        tuple(config.mean) if stated else None,
        tuple(config.std) if stated else None,
        overlay["input_size"][-1],
    )


def _config(name: str) -> Any:
    """timm's facts about a model's weights. Raises TrainError for a name that timm does not have."""
    if not timm.is_model(name):
        raise TrainError(f"timm has no model called {name!r}{did_you_mean(name, timm.list_models())}")
    try:
        config = get_pretrained_cfg(name)
    except RuntimeError as error:
        raise TrainError(f"timm has no such weights: {error}") from error
    if config is None or config.input_size is None:
        raise TrainError(f"timm states no input size for {name}: it cannot be used by name")
    return config


def _must_have(name: str, found: int, classes: int) -> None:
    if found != classes:
        raise TrainError(f"the teacher {name} knows {found} classes, and the data have {classes}")


def _classes_of(tensors: dict[str, Tensor], config: Any) -> int | None:
    """How many classes the weights' classifier has; None where it goes by another name than timm's."""
    classifier = config.classifier if isinstance(config.classifier, str) else (config.classifier or [""])[0]
    weight = tensors.get(f"{classifier}.weight")
    return None if weight is None else len(weight)


def _trained_at(name: str, tensors: dict[str, Tensor]) -> int | None:
    """The resolution that a vision transformer's weights were trained at, by its square grid of positions; or None."""
    positions = tensors.get("pos_embed")
    if positions is None or positions.ndim != 3:
        return None
    with torch.device("meta"), quiet_timm():
        model = timm.create_model(name)
    if not isinstance(model, VisionTransformer):
        return None
    count = positions.shape[1] - (0 if model.no_embed_class else model.num_prefix_tokens)
    side = math.isqrt(max(0, count))
    return side * int(model.patch_embed.patch_size[0]) if side and side * side == count else None


def _from_file(name: str, overlay: dict[str, Any], path: Path) -> nn.Module:
    try:
        return _create(name, overlay)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # each of timm's models reads checkpoints in its own way, and fails in its own way
        lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
        raise TrainError(f"{path} does not fit the teacher {name}: {' '.join(lines[:3])[:600]}") from error


def _from_hub(name: str, config: Any, overlay: dict[str, Any]) -> nn.Module:
    by_hand = "give them as a file (distill.teacher_weights: FILE, or model.init: FILE)"
    if not config.has_weights:
        raise TrainError(f"timm has no weights of {name}: {by_hand}")
    try:
        return _create(name, overlay)
    except MemoryError:
        raise
    except Exception as error:  # of the network, of either of two client libraries, of the cache: one way out of all
        raise TrainError(
            f"the weights of {name} could not be fetched from timm's hub ({first_line(error)}): {by_hand}, or run "
            "`deit-ablate fetch SWEEP` on a machine with a network and the same results folder"
        ) from error


def _create(name: str, overlay: dict[str, Any]) -> nn.Module:
    """timm builds the model for the overlaid facts, converts and loads the weights and position embeddings."""
    with quiet_timm():
        model: Any = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=overlay)
    model.pretrained_cfg.pop("state_dict", None)  # else the weights stay in memory twice
    assert isinstance(model, nn.Module)
    return model


# -- the store ------------------------------------------------------------------------------------------------------


def hub_weights(name: str) -> dict[str, Tensor]:
    """The state dict of the weights that timm's hub has under this name. Raises TrainError where it cannot be had."""
    weights: dict[str, Tensor] = _from_hub(name, _config(name), {}).state_dict()
    return weights


def download_weights(name: str, path: Path) -> None:
    """Write the weights that timm's hub has under this name to ``path``: its state dict, as safetensors, whatever they
    are on the hub. Raises TrainError where they cannot be had."""
    weights = hub_weights(name)
    safetensors.torch.save_file({key: value.detach().clone().contiguous() for key, value in weights.items()}, path)


def teacher_file(recipe: Recipe, store: WeightsStore) -> Path | None:
    """The weights file of the teacher that a recipe names, out of the store (fetched into it, where that is possible);
    None for a recipe that names none. Raises TrainError where there is no such file."""
    wanted = recipe.distill
    if wanted.teacher is None or not distillation_of(wanted.type).teacher:
        return None
    if wanted.teacher_weights is not None:
        kept = store.find(wanted.teacher_weights)
        if kept is None:
            raise TrainError(
                f"the weights of the teacher ({wanted.teacher_weights}) are not in the store: "
                "`deit-ablate fetch SWEEP` puts them there, where the sweep gives their path"
            )
        return kept
    return _from_store(wanted.teacher, store)


def with_start(values: dict[str, Any], store: WeightsStore) -> dict[str, Any]:
    """The plain values of a recipe, with the path of the weights (fetched into the store, where that is possible) in
    place of timm's name in ``model.init``. Raises TrainError where they cannot be had."""
    init = values["model"].get("init") or ""
    if not init.startswith(HUB):
        return values
    return {**values, "model": {**values["model"], "init": str(_from_store(init.removeprefix(HUB), store))}}


def _from_store(name: str, store: WeightsStore) -> Path:
    path = _kept_or_fetched(name, store)
    if files.sha256(path) != store.hub_sha256(name):
        raise TrainError(f"{path} is not what was fetched: remove it, and `deit-ablate fetch SWEEP` fetches it again")
    return path


def _kept_or_fetched(name: str, store: WeightsStore) -> Path:
    kept = store.find(name)
    if kept is not None:
        return kept
    try:
        return store.keep_hub(name, lambda path: download_weights(name, path))
    except ValueError as error:
        raise TrainError(str(error)) from error


def fetch(requests: Iterable[dict[str, Any]], store: WeightsStore) -> Iterator[dict[str, Any]]:
    """Bring into the store what trainings without a network will need: an answer to each request, in order.

    Requests: {"kind": "weights", "name"} and {"kind": "data", "name", "folder", "options"}. Answers: the request with
    "files" (their paths; none where all were there already) and "error" (None, or a sentence).
    """
    for request in requests:
        answer = {**request, "files": [], "error": None}
        try:
            if request["kind"] == "weights":
                before = store.find(request["name"])
                path = _kept_or_fetched(request["name"], store)
                answer["files"] = [] if before else [str(path)]
            else:
                from deit_ablate.train.data.download import download

                answer["files"] = download(request["name"], Path(request["folder"]), request.get("options"))
        except (TrainError, OSError) as error:
            answer["error"] = str(error)
        yield answer
