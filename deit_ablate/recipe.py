"""What one training is: every choice that decides its outcome, typed and validated (``identity`` hashes it).

The defaults are DeiT's Table 9 (Touvron et al., arXiv 2012.12877v2), completed from the reference
code where the paper is silent. A recipe holds no path and no machine: those are *execution*.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, ValidationError, create_model, model_validator
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails

from deit_ablate.execution import Part, Positive, Whole
from deit_ablate.names import fact, names


def not_finite(value: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], float]]:
    """The numbers in a value, however deep, that are none, which no hash could hold: (place, number)."""
    if isinstance(value, (dict, list, tuple)):
        for key, child in value.items() if isinstance(value, dict) else enumerate(value):
            yield from not_finite(child, (*at, key))
    elif isinstance(value, float) and not math.isfinite(value):
        yield at, value


def _plain_options(value: dict[str, Any]) -> dict[str, Any]:
    if wrong := [InitErrorDetails(type="finite_number", loc=at, input=leaf) for at, leaf in not_finite(value)]:
        raise ValidationError.from_exception_data("options", wrong)
    return value


Rate: TypeAlias = Annotated[float, Field(ge=0, lt=1)]
Probability: TypeAlias = Annotated[float, Field(ge=0, le=1)]
NonNegative: TypeAlias = Annotated[float, Field(ge=0)]
Above: TypeAlias = Annotated[float, Field(gt=0)]
Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.:/-]*$", max_length=200)]
Policy: TypeAlias = Annotated[str, Field(pattern=r"^(rand|v0|v0r|original|originalr|3a)(-[a-z]+[0-9.]+)*$")]
CustomName: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*:[A-Za-z_][\w.]*$", max_length=200)]
Options: TypeAlias = Annotated[dict[str, Any], AfterValidator(_plain_options)]


_AS_STORED = BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value)
"""Of a pair: ``Recipe(**record)`` reads the list that a record has."""


class Block(Part):
    """One block of a recipe."""


@dataclass(frozen=True)
class Off:
    """Marks a field as a switch: the value at which it is off, which ``leave_one_out`` sets by the field's name."""

    value: Any


class Data(Block):
    name: Name = "imagenet"
    """The data set: digits, glyphs, fashion-mnist, cifar10, cifar100, imagenet, torchvision:CLASS, or one of one's own:
    imagefolder, csv, webdataset, huggingface, or a custom module:function."""
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._:-]*$", max_length=200)] | None = None
    """The name under which the data's fingerprint is pinned; needed by one's own, else the data set's name."""
    resolution: Annotated[Whole, Field(ge=4, le=4096)] = 224
    """Side of the square image that the model sees, in pixels."""
    eval_crop: Annotated[float, Field(gt=0, le=1)] = 0.875
    """Share of the resized image's side that the centre crop keeps at evaluation (224/256 in the reference code)."""
    validation: Annotated[float, Field(ge=0, le=0.5)] = 0.1
    """Share of the training data kept for validation; cut by a fixed seed, never the run's."""
    train_images: Positive | None = None
    """Train on this many images (by the same fixed seed), or on all."""
    file: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """Of the data set csv: the table of pictures (path, label, and split where there is such a column). A path beside
    the YAML file; part of the run's id by its content."""
    options: Options = Field(default={})
    """Keyword arguments of the data set, such as test_share (of the pictures, where there is no test split; 0.2)."""
    corrupt: Literal["fail", "skip"] = "fail"
    """A file that cannot be decoded ends the run, or its place is taken by the next one (when testing: left out)."""
    decoder: Literal["pillow", "device"] = "pillow"
    """What decodes training images from files: Pillow, in the processes that prepare batches; or the device that trains
    (a GPU by nvJPEG), which then crops and augments them too, by the batch. Pixels differ by a few levels."""
    test: bool = True
    """Score the test split once, at the end. Off in the trials of a search, which chooses by the validation part."""


class Model(Block):
    name: Name = "deit_base"
    """deit_tiny, deit_small, deit_base, deit, small_convnet, any of timm's names, or module:function."""
    options: Options = Field(default={})
    """Keyword arguments of the model, such as patch_size, embed_dim, depth, num_heads."""
    init: Annotated[str, Field(min_length=1, max_length=4096)] | None = None
    """Weights to start from, in place of fresh ones: FILE, timm:NAME (one of timm's pretrained models), or
    SWEEP:ROW:SEED (a run of the same results folder). Of a file the recipe keeps the hash of its content, and a run
    becomes a parent. Classes, channels, resolution and heads may be others than theirs."""
    train_only: Annotated[list[Name], AfterValidator(lambda parts: sorted({*parts})), Off([])] = Field(default=[])
    """Parts of parameter names, such as head, attn, blocks.11: all others are frozen. Empty trains all."""


class CustomAugmentation(Block):
    """A function of the user's own package (``train.augment.Custom`` says which), with its keyword arguments."""

    name: CustomName
    options: Options = Field(default={})
    """Its keyword arguments."""


def _by_name(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if ":" not in value:
        raise ValueError("module:function")
    return {"name": value}


Custom: TypeAlias = Annotated[
    CustomAugmentation, BeforeValidator(_by_name, json_schema_input_type=CustomName | CustomAugmentation)
]


def _with_added_fields(schema: dict[str, Any]) -> None:
    schema["additionalProperties"] = False
    schema["properties"] |= added_fields().model_json_schema().get("properties", {})


class Augment(Block):
    """How training images are changed. A registry entry of the trainer may add a field (``AddedField``)."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_with_added_fields)

    crop: Literal["random-resized", "simple-random", "pad", "none"] = "random-resized"
    """Inception style; DeiT III's (shorter side resized, 4 reflected pixels around); padded by an eighth; or none."""
    crop_scale: Annotated[tuple[Probability, Probability], _AS_STORED] = (0.08, 1.0)
    """Range of the area that the Inception crop takes."""
    crop_ratio: Annotated[tuple[Above, Above], _AS_STORED] = (0.75, 4 / 3)
    """Range of the Inception crop's aspect ratio."""
    hflip: Annotated[Probability, Off(0)] = 0.5
    """Probability of a horizontal flip."""
    auto_augment: Annotated[Policy | None, Off(None)] = "rand-m9-mstd0.5-inc1"
    """RandAugment or AutoAugment in timm's notation (the paper's 9/0.5), 3a (DeiT III's 3-Augment), or null."""
    color_jitter: Annotated[Probability, Off(0)] = 0.4
    """Strength of colour jitter. As in the reference codes it acts only where auto_augment is null or 3a."""
    erasing: Annotated[Probability, Off(0)] = 0.25
    """Probability of random erasing (mode pixel, one box)."""
    mixup: Annotated[NonNegative, Off(0)] = 0.8
    """Mixup's Beta parameter ("Mixup prob." in Table 9); 0 switches it off."""
    cutmix: Annotated[NonNegative, Off(0)] = 1.0
    """CutMix's Beta parameter ("Cutmix prob." in Table 9); 0 switches it off."""
    mix_prob: Probability = 1.0
    """Probability that a batch is mixed at all."""
    mix_switch: Probability = 0.5
    """Probability of CutMix rather than mixup where both are on, per batch."""
    repeats: Annotated[Whole, Field(ge=1, le=100), Off(1)] = 3
    """Repeated augmentation: views of one image in a global batch; 1 switches it off."""
    custom: Annotated[list[Custom], Off([])] = Field(default=[])
    """Custom augmentations of images, before erasing, or of tensors, after it: module:function, or {name, options}."""

    @property
    def mixup_or_cutmix(self) -> bool:
        return self.mix_prob > 0 and (self.mixup > 0 or self.cutmix > 0)

    @model_validator(mode="after")
    def _check_added(self) -> Augment:
        """Added fields are checked as the others are; one at its off value is left out, so that it changes no id."""
        if extra := self.model_extra:
            given = added_fields().model_validate(dict(extra)).model_dump(exclude_defaults=True)
            extra.clear()
            extra.update(given)
        return self


@dataclass(frozen=True)
class AddedField:
    """A field of ``augment`` that comes with a registry entry, by the entry's name. Its default is its off value, at
    which it is no part of a run's id: an addition changes no id that exists."""

    doc: str
    """What editors show."""
    type: Literal["Probability", "Rate", "NonNegative", "Whole", "Positive", "bool"] = "Probability"
    off: float | bool = 0


_TYPES: dict[str, Any] = {
    "Probability": Probability,
    "Rate": Rate,
    "NonNegative": NonNegative,
    "Whole": Whole,
    "Positive": Positive,
    "bool": bool,
}


@functools.cache
def added_fields() -> type[Block]:
    """The fields that registry entries add to ``augment``, as a model that checks them."""
    fields: dict[str, Any] = {
        name: (Annotated[_TYPES[facts["type"]], Off(facts["off"])], Field(facts["off"], description=facts["doc"]))
        for name, facts in names()["fields"].items()
    }
    spared = {"use_attribute_docstrings": False}  # to look for them is to go through all modules
    return create_model("AddedFields", __base__=Block, __cls_kwargs__=spared, **fields)


class Regularize(Block):
    loss: Name = "cross-entropy"
    """On the labels: cross-entropy, or bce (binary cross-entropy, the mean over batch and classes; DeiT III)."""
    target_threshold: Annotated[Rate | None, Off(None)] = None
    """Of bce: a class whose (smoothed, mixed) target is above it counts as 1, others as 0; null keeps the shares."""
    label_smoothing: Annotated[Rate, Off(0)] = 0.1
    """Label smoothing, of the mixed targets too."""
    smoothing_over: Literal["all", "others"] = "all"
    """Spread the smoothing over all K classes (timm, the reference code) or over the K - 1 wrong ones."""
    drop_path: Annotated[Rate, Off(0)] = 0.1
    """Stochastic depth: rate at the last block, growing linearly from 0."""
    dropout: Annotated[Rate, Off(0)] = 0.0
    """Dropout after the position embedding and in each block's projections (as drop_rate did in timm 0.3.2)."""
    ema_decay: Annotated[Annotated[float, Field(gt=0, lt=1)] | None, Off(None)] = 0.99996
    """Decay of the moving average of the weights, or null. The raw weights are what tables show."""


class Optimizer(Block):
    name: Name = "adamw"
    """Any of timm.optim's names, or module:function."""
    base_lr: Annotated[float, Field(gt=0)] = 5e-4
    """Learning rate for a global batch of 512; the effective one is base_lr x batch / 512."""
    weight_decay: Annotated[NonNegative, Off(0)] = 0.05
    """Not applied to biases, norms, tokens and position embeddings."""
    clip_grad: Annotated[Annotated[float, Field(gt=0)] | None, Off(None)] = None
    """Gradient clipping by global norm, or null."""
    layer_decay: Annotated[Annotated[float, Field(gt=0, lt=1)] | None, Off(None)] = None
    """Factor of the learning rate from each layer to the one below it (timm's groups; the head has 1), or null."""
    options: Options = Field(default={})
    """Further keyword arguments of the optimizer, such as betas or momentum."""


class Schedule(Block):
    name: Name = "cosine"
    """cosine, tanh, poly, step, multistep or wsd (warm-up, stable, decay): timm's."""
    options: Options = Field(default={})
    """Keyword arguments of timm's scheduler, times in epochs, such as decay_t, decay_rate, power, cycle_limit."""
    epochs: Positive = 300
    """Epochs, warm-up included; with repeated augmentation an epoch still counts N augmented images."""
    batch_size: Positive = 1024
    """Global batch size; counts repeats."""
    warmup_epochs: Annotated[NonNegative, Off(0)] = 5.0
    """Epochs of linear warm-up."""
    warmup_lr: NonNegative = 1e-6
    """Learning rate at which the warm-up starts; not scaled by the batch."""
    min_lr: NonNegative = 1e-5
    """Learning rate at which the schedule ends (step and multistep have none); not scaled by the batch."""
    stepping: Literal["step", "epoch"] = "step"
    """Set the learning rate each step (today's habit), or once an epoch and lagging, as the reference code does."""


class Distill(Block):
    type: Name = "none"
    """none, soft, hard (class token alone), soft-token, hard-token (with the distillation token), two-class-tokens
    (the paper's control: both learn from labels), or module:function."""
    alpha: Probability | None = None
    """Weight of the teacher's term (the paper's lambda); null takes the type's: soft 0.1, hard 0.5."""
    tau: Annotated[float, Field(gt=0)] = 3.0
    """Temperature of soft distillation."""
    normalisation: Literal["batch", "element"] = "batch"
    """Soft term: mean over the batch (Eq. 2), or over batch x classes (the reference code: K times weaker)."""
    teacher: Name | None = None
    """A pretrained timm model as teacher, such as regnety_160.deit_in1k. A run is named by the sweep's stages."""
    teacher_weights: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")] | None = None
    """A checkpoint file with the teacher's weights. Sweep files give its path; the recipe keeps its content's hash."""
    teacher_resolution: Annotated[Whole, Field(ge=4, le=4096)] | None = None
    """Side of the square image that the teacher sees; null is the one that it was trained at."""


class Recipe(Block):
    """One training. Raises pydantic's ValidationError on an unknown key, a wrong type or a value out of range."""

    data: Data = Data()
    model: Model = Model()
    augment: Augment = Augment()
    regularize: Regularize = Regularize()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule = Schedule()
    distill: Distill = Distill()
    precision: Literal["fp32", "tf32", "fp16", "bf16"] = "fp32"
    """Precision of the forward and backward pass."""
    seed: Annotated[Whole, Field(ge=0, lt=2**32)] = 0

    def check(self) -> Iterator[tuple[tuple[str, ...], str, str]]:
        """What no single field can know: (dotted keys that do not go together, problem, expected), none for a sound
        recipe."""
        data, schedule, augment = self.data, self.schedule, self.augment
        if fact("datasets", data.name, "needs_id") and data.id is None:
            problem = f"{data.name} needs an id under which its fingerprint is kept"
            yield ("data.id",), problem, "a name such as flowers-v1"
        takes_file = fact("datasets", data.name, "file")  # None of one's own function, which may
        if data.file is None and takes_file:
            yield ("data.file", "data.name"), f"{data.name} is read from a table, and none is named", "data.file: FILE"
        if data.file is not None and takes_file is False:
            yield ("data.file", "data.name"), f"{data.name} is not read from a file", "`name: csv`, or no data.file"
        if not data.test and not data.validation:
            problem = "neither a test split nor a validation part is scored"
            yield ("data.test", "data.validation"), problem, "data.test: true, or data.validation above 0"
        if schedule.warmup_epochs >= schedule.epochs:
            problem = f"a warm-up of {schedule.warmup_epochs:g} epochs is not below the {schedule.epochs} epochs"
            yield ("schedule.warmup_epochs", "schedule.epochs"), problem, "a shorter warm-up, or more epochs"
        if augment.crop_scale[0] > augment.crop_scale[1] or not augment.crop_scale[1]:
            yield ("augment.crop_scale",), "the range is empty", "[low, high] with low <= high"
        if augment.crop_ratio[0] > augment.crop_ratio[1]:
            yield ("augment.crop_ratio",), "the range is empty", "[low, high] with low <= high"
        if self.mixes and schedule.batch_size % 2:
            mixers = [f"augment.{name}" for name in ("mixup", "cutmix", "mix_prob") if getattr(augment, name)]
            problem = f"a batch of {schedule.batch_size} is odd, and mixup pairs the images of a batch"
            yield ("schedule.batch_size", *mixers), problem, "an even number"
        yield from self._check_model()
        images = known_train_images(data)
        if images is not None and schedule.batch_size > images:
            keys = ("schedule.batch_size", "data.train_images", "data.validation", "data.name")
            yield keys, f"a batch of {schedule.batch_size} is more than the {images} training images", "less"
        if self.distill.alpha is None and self.distill.type not in names()["distillations"]:
            yield ("distill.alpha",), f"{self.distill.type!r} has no default", "a number from 0 to 1"
        if self.distill.teacher_weights and not self.distill.teacher:
            problem = "these weights are of no named model"
            yield ("distill.teacher_weights",), problem, "distill.teacher: a timm model's name"

    def _check_model(self) -> Iterator[tuple[tuple[str, ...], str, str]]:
        """What the model's name and options say of the pictures and heads that it can have."""
        name, options, size = self.model.name, self.model.options, self.data.resolution
        width, depth = options.get("embed_dim"), options.get("num_heads")
        patch = options.get("patch_size", patch_of(name))
        if isinstance(patch, int) and (patch < 1 or size % patch) and not options.get("dynamic_img_pad"):
            key = "model.options.patch_size" if "patch_size" in options else "model.name"
            problem = f"a resolution of {size} pixels is no whole number of patches of {patch} pixels"
            expected = f"a multiple of {patch}" if patch > 0 else "a larger patch"
            if name.partition(".")[0] in names()["timm_models"]:
                expected += ", or model.options: {dynamic_img_size: true, dynamic_img_pad: true}, which pads pictures"
            yield ("data.resolution", key), problem, expected
        if isinstance(width, int) and isinstance(depth, int) and (depth < 1 or width % depth):
            problem = f"a width of {width} is not divided by {depth} heads"
            yield ("model.options.num_heads", "model.options.embed_dim"), problem, "a divisor"
        known = fact("models", name, "heads")
        if known is None and name in names()["timm_models"]:
            known = [2] if name in names()["timm_distilled"] else [1]
        heads = fact("distillations", self.distill.type, "heads")
        if known is not None and heads is not None and heads not in known:
            hint = "soft-token or hard-token" if heads == 1 else "soft or hard, or a deit model"
            problem = f"{name} has {known[0]} head(s), and the distillation type {self.distill.type} asks for {heads}"
            yield ("model.name", "distill.type"), problem, f"distill.type {hint}"

    @property
    def mixes(self) -> bool:
        """Whether batches are mixed, so that targets are shares (B, K) of the classes."""
        others = self.augment.model_extra or ()
        return self.augment.mixup_or_cutmix or any(fact("fields", name, "mixes") for name in others)

    @property
    def needs_teacher(self) -> bool:
        """Whether the distillation type asks for a teacher's logits (a custom type does)."""
        return bool(fact("distillations", self.distill.type, "teacher", True))


BLOCKS: tuple[str, ...] = tuple(name for name, info in Recipe.model_fields.items() if isinstance(info.default, Block))
RESETS = {
    "optimizer": ("base_lr", "options"),
    "model": ("options", "init", "train_only"),
    "data": ("id", "file", "options"),
    "schedule": ("options",),
}
"""What a change of a block's ``name`` resets: AdamW's betas are none of SGD's."""


def fields_of(block: str) -> dict[str, FieldInfo]:
    """The fields of a block of the recipe, with those that registry entries add."""
    added = added_fields().model_fields if block == "augment" else {}
    return {**type(Recipe.model_fields[block].default).model_fields, **added}


def switches() -> dict[str, Any]:
    """Dotted key -> the value at which it is off, of every field that can be."""
    return {
        f"{block}.{name}": mark.value
        for block in BLOCKS
        for name, info in fields_of(block).items()
        for mark in info.metadata
        if isinstance(mark, Off)
    }


def flatten(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted key, leaf) pairs of nested mappings, in order; an empty mapping is a leaf."""
    for key, child in value.items():
        path = f"{prefix}{key}"
        if isinstance(child, Mapping) and child:
            yield from flatten(child, path + ".")
        else:
            yield path, child


def patch_of(model: str) -> int | None:
    """The side of a model's patches, as its entry has it or as timm spells it in a name (vit_tiny_patch16_224); None
    where it has none, or takes any size of picture."""
    spelled = None if ":" in model or model.startswith("naflex") else re.search(r"_patch(\d+)", model)
    own: int | None = fact("models", model, "patch")
    return int(spelled.group(1)) if spelled else own


def known_train_images(data: Data) -> int | None:
    """The size of the training part, or None where only the data themselves know it."""
    available = fact("datasets", data.name, "train")
    return split_sizes(available, data)[0] if available else None


def split_sizes(available: int, data: Data) -> tuple[int, int]:
    """(training, validation) image counts out of ``available`` training images."""
    validation = round(available * data.validation)
    training = available - validation
    return min(training, data.train_images or training), validation
