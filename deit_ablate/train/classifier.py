"""A trained model as others take it: a module with its transform and classes, timm's form of it, and ONNX."""

from __future__ import annotations

import contextlib
import copy
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import timm
import torch
from PIL import Image
from timm.models.deit import VisionTransformerDistilled
from torch import Tensor, nn

from deit_ablate.errors import TrainError
from deit_ablate.files import temporary_beside
from deit_ablate.recipe import Recipe
from deit_ablate.train.augment import Normalise, evaluation, to_pixels
from deit_ablate.train.data.images import upright
from deit_ablate.train.data.sets import Dataset
from deit_ablate.train.distill import distillation_of, recipe_model
from deit_ablate.train.evaluate import classifiers
from deit_ablate.train.initial import first_line
from deit_ablate.train.model import heads, quiet_timm

Head = Literal["fused", "class", "distillation"]
HEADS: tuple[Head, ...] = ("fused", "class", "distillation")


class Transform:
    """A picture (PIL, any mode) to the normalised image (C, H, W), float32, as the test split was seen."""

    def __init__(self, recipe: Recipe, dataset: Dataset) -> None:
        self.resize, self.mode = evaluation(recipe), "L" if dataset.channels == 1 else "RGB"
        self.normalise = Normalise(dataset)
        self.resolution, self.crop = recipe.data.resolution, recipe.data.eval_crop
        self.mean, self.std, self.resized = dataset.mean, dataset.std, dataset.resized

    def __call__(self, picture: Image.Image) -> Tensor:
        picture = upright(picture).convert(self.mode)
        if self.resized:
            picture = picture.resize((self.resolution, self.resolution), Image.Resampling.BILINEAR)
        return self.normalise(to_pixels([np.asarray(self.resize(picture))]))[0]


class Classifier(nn.Module):
    """A trained model in evaluation mode: images (B, C, H, W), as ``transform`` makes them, to logits (B, K).

    Of two heads, ``fused`` are the logarithms of the mean of both softmaxes, by which tables and records decide (timm
    averages the logits instead: ``top1_fused_logits``). ``model`` is the network itself, which can be trained on.
    """

    def __init__(self, model: nn.Module, transform: Transform, classes: tuple[str, ...], head: Head = "fused") -> None:
        super().__init__()
        self.model, self.transform, self.classes, self.head = model, transform, classes, head
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        outputs = heads(self.model, images)
        if outputs[1] is None:
            return outputs[0]
        if self.head == "fused":
            return classifiers(outputs)["fused_softmax"]
        return outputs[0] if self.head == "class" else outputs[1]


def untrained(recipe: Recipe, dataset: Dataset, head: Head) -> Classifier:
    """The recipe's model with fresh weights. Raises TrainError where it has no such head."""
    if head == "distillation" and distillation_of(recipe.distill.type).heads == 1:
        raise TrainError("the model has one head: --head distillation is of the token types (distill.type hard-token)")
    return Classifier(recipe_model(recipe, dataset), Transform(recipe, dataset), dataset.classes, head)


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], path: Path) -> None:
    """Raises TrainError where they do not fit."""
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise TrainError(f"{path} does not fit the run's recipe: {error}") from error


# -- timm's form ----------------------------------------------------------------------------------------------------

OURS = {"deit": "deit_tiny", "deit_tiny": "deit_tiny", "deit_small": "deit_small", "deit_base": "deit_base"}
"""Our names -> timm's (less ``_patch16_224``); they have timm's networks, and other initial weights."""


def timm_arguments(recipe: Recipe, classifier: Classifier) -> tuple[str, dict[str, Any]] | None:
    """timm's name and keyword arguments with which ``timm.create_model`` builds this very network; None for one that
    timm does not have."""
    name, model, pictures = recipe.model.name, classifier.model, classifier.transform
    arguments: dict[str, Any] = {
        "num_classes": len(classifier.classes),
        "in_chans": len(pictures.mean),
        "img_size": pictures.resolution,
        **recipe.model.options,
    }
    if name in OURS:
        name = OURS[name] + ("_distilled" if isinstance(model, VisionTransformerDistilled) else "") + "_patch16_224"
    elif not timm.is_model(name) or ":" in name:
        return None
    for left_out in ("", "img_size"):  # a convnet takes any size
        arguments.pop(left_out, None)
        with torch.device("meta"), quiet_timm(), contextlib.suppress(TypeError):
            made = timm.create_model(name, **arguments)
            shapes = [{key: tuple(value.shape) for key, value in each.state_dict().items()} for each in (made, model)]
            return (name, arguments) if shapes[0] == shapes[1] else None
    return None


def timm_weights(classifier: Classifier) -> dict[str, Tensor]:
    """The state dict that gives the logits of the wanted head in timm, whose network of two heads averages theirs.

    Of one head alone its layer is doubled and the other one's is zero: doubling and halving change no bit.
    """
    weights = {key: value.detach().cpu().clone().contiguous() for key, value in classifier.model.state_dict().items()}
    if isinstance(classifier.model, VisionTransformerDistilled) and classifier.head != "fused":
        kept, left = ("head", "head_dist") if classifier.head == "class" else ("head_dist", "head")
        for part in ("weight", "bias"):
            weights[f"{kept}.{part}"] *= 2
            weights[f"{left}.{part}"] *= 0
    return weights


def config(recipe: Recipe, classifier: Classifier) -> dict[str, Any]:
    """What stands beside the weights: timm's config.json (of ``local-dir:`` and of its hub) where timm has the network,
    the model by our name else; in both, what a picture needs."""
    of = classifier.transform
    known = timm_arguments(recipe, classifier)
    name, arguments = known or (None, {})
    return {
        **({"architecture": name} if name else {}),
        "num_classes": len(classifier.classes),
        "label_names": list(classifier.classes),
        **({"model_args": {key: value for key, value in arguments.items() if key != "num_classes"}} if name else {}),
        "pretrained_cfg": {
            "num_classes": len(classifier.classes),
            "input_size": [len(of.mean), of.resolution, of.resolution],
            "mean": list(of.mean),
            "std": list(of.std),
            "crop_pct": of.crop,
            "crop_mode": "center",
            "interpolation": "bilinear" if of.resized else "bicubic",
            "fixed_input_size": "img_size" in arguments,
        },
        "deit_ablate": {
            "model": recipe.model.model_dump(exclude={"init", "train_only"}),
            "heads": distillation_of(recipe.distill.type).heads,
            "head": classifier.head,
        },
    }


# -- ONNX -----------------------------------------------------------------------------------------------------------


def write_onnx(classifier: Classifier, path: Path) -> dict[str, float]:
    """Write it for ONNX: ``images`` (batch, C, H, W), normalised, to ``logits`` (batch, K), of any batch.

    Returns {"difference": the largest of a logit from torch's on 4 images of noise, "largest": the largest logit}.
    Raises TrainError without the packages, and for a model that cannot be exported or computes other logits.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise TrainError(
            f"ONNX needs packages that are not installed ({error.name}): pip install 'deit-ablate[onnx]'"
        ) from None
    side, channels = classifier.transform.resolution, len(classifier.transform.mean)
    images = torch.randn(4, channels, side, side, generator=torch.Generator().manual_seed(0))
    exported = copy.deepcopy(classifier).cpu().eval()
    with torch.no_grad():
        expected = exported(images)
    with temporary_beside(path) as temporary:
        try:
            with warnings.catch_warnings(), quiet_timm(), torch.no_grad():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    exported,
                    (images,),
                    str(temporary),
                    input_names=["images"],
                    output_names=["logits"],
                    dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
                    external_data=False,
                    verbose=False,
                )
        except Exception as error:  # each network that cannot be traced fails in its own way
            raise TrainError(f"torch cannot export this model for ONNX: {first_line(error)}") from error
        session = onnxruntime.InferenceSession(str(temporary), providers=["CPUExecutionProvider"])
        found = torch.from_numpy(session.run(None, {"images": images.numpy()})[0])
        difference, largest = float((found - expected).abs().max()), float(expected.abs().max())
        if not difference <= 1e-3 * max(1.0, largest):
            raise TrainError(f"the exported model's logits differ by {difference:.2g} from torch's: nothing is written")
        temporary.replace(path)
    return {"difference": difference, "largest": largest}
