"""Optimizers by name, their parameter groups, the learning-rate schedule, and the moving average of the weights.

To add an optimizer, write a function of parameter groups, learning rate, weight decay and the options that recipes may
set, and give it an entry in ``OPTIMIZERS``. All of timm's names work as they are; a custom one is ``module:function``.
A schedule is one of timm's schedulers with an entry in ``SCHEDULES``.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any

import torch
from timm.optim import (
    Muon,
    create_optimizer_v2,
    get_optimizer_info,
    list_optimizers,
    param_groups_layer_decay,
    param_groups_weight_decay,
)
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, PolyLRScheduler, StepLRScheduler, TanhLRScheduler
from timm.scheduler.scheduler import Scheduler
from timm.scheduler.wsd_lr import WSDLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer

from deit_ablate.errors import TrainError, did_you_mean
from deit_ablate.recipe import Recipe
from deit_ablate.train.registry import check_options, load, lookup, option_kinds

Groups = list[dict[str, Any]]


def adamw(
    groups: Groups,
    *,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    amsgrad: bool = False,
) -> Optimizer:
    """AdamW (Loshchilov and Hutter, 2019), torch's fused one: the reference code's settings by default."""
    return torch.optim.AdamW(
        groups, lr=lr, weight_decay=weight_decay, betas=betas, eps=eps, amsgrad=amsgrad, fused=True
    )


def sgd(
    groups: Groups,
    *,
    lr: float,
    weight_decay: float,
    momentum: float = 0.9,
    nesterov: bool = True,
    dampening: float = 0.0,
) -> Optimizer:
    """SGD with momentum, torch's fused one. With Nesterov's momentum unless the options say otherwise, as timm's
    ``sgd`` and so the reference code have it; weight decay is coupled (an L2 term in the gradient)."""
    return torch.optim.SGD(
        groups, lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov, dampening=dampening, fused=True
    )


def lamb(
    groups: Groups,
    *,
    lr: float,
    weight_decay: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-6,
    bias_correction: bool = True,
    grad_averaging: bool = True,
    max_grad_norm: float | None = 1.0,
    trust_clip: bool = False,
    always_adapt: bool = False,
    decoupled_decay: bool = False,
) -> Optimizer:
    """LAMB (You et al., 2020), timm's; clips the gradient's global norm at ``max_grad_norm`` by itself."""
    return create_optimizer_v2(
        groups,
        "lamb",
        lr=lr,
        weight_decay=weight_decay,
        foreach=True,
        betas=betas,
        eps=eps,
        bias_correction=bias_correction,
        grad_averaging=grad_averaging,
        max_grad_norm=max_grad_norm,
        trust_clip=trust_clip,
        always_adapt=always_adapt,
        decoupled_decay=decoupled_decay,
    )


@dataclass(frozen=True)
class OptimizerEntry:
    """``build(groups, lr=, weight_decay=, **options)``; ``base_lr`` is for recipes that change the name alone."""

    build: Callable[..., Optimizer]
    base_lr: float | None = None


OPTIMIZERS: dict[str, OptimizerEntry] = {
    "adamw": OptimizerEntry(adamw, base_lr=5e-4),
    "sgd": OptimizerEntry(sgd),
    "lamb": OptimizerEntry(lamb),
}

_OURS = ("self", "groups", "params", "lr", "weight_decay")


def timm_optimizers() -> list[str]:
    """Timm's optimizers that run in torch alone (not those of apex and bitsandbytes), first-order ones."""
    infos = {str(name): get_optimizer_info(str(name)) for name in list_optimizers()}
    return [name for name, info in infos.items() if not isinstance(info.opt_class, str) and not info.second_order]


def optimizer_options(name: str) -> dict[str, str]:
    """The options of an optimizer by name, with their kinds. Raises TrainError for an unknown name."""
    if name in OPTIMIZERS:
        return option_kinds(OPTIMIZERS[name].build, _OURS)
    if ":" in name:
        return option_kinds(load(name), _OURS)
    if name in timm_optimizers():
        opt_class: Any = get_optimizer_info(name).opt_class
        known = option_kinds(opt_class, _OURS)
        return {**known, "fallback_list": "list[str]"} if _is_hybrid(name) else known
    if name in list_optimizers():
        raise TrainError(
            f"the optimizer {name} needs apex or bitsandbytes, or second derivatives: this trainer has none"
        )
    raise TrainError(f"no optimizer is called {name!r}{did_you_mean(name, [*OPTIMIZERS, *timm_optimizers()])}")


def _is_hybrid(name: str) -> bool:
    """Muon and its variants, which leave some parameters to AdamW: by shape all that is 1-d, tokens and position
    embeddings, and by the option ``fallback_list`` what its patterns name, such as ``["head*", "patch_embed.*"]``."""
    opt_class: Any = get_optimizer_info(name).opt_class
    return isinstance(opt_class, type) and issubclass(opt_class, Muon)


def parameter_groups(model: nn.Module, weight_decay: float, layer_decay: float | None = None) -> Groups:
    """Two groups: no decay for biases, norms and whatever else is 1-d, tokens and position embeddings; the rest. With
    ``layer_decay`` such a pair a layer. Frozen parameters are in none."""
    named: Any = getattr(model, "no_weight_decay", set)
    if layer_decay is None:
        return list(param_groups_weight_decay(model, weight_decay, no_weight_decay_list=named()))
    return list(param_groups_layer_decay(model, weight_decay, named(), layer_decay=layer_decay))


def _scale_by_layer(optimizer: Optimizer, name: str, lr: float) -> None:
    """Each layer's rate, and what a scheduler multiplies by timm's ``lr_scale``. Raises TrainError for one layer."""
    if len({group.get("lr_scale") for group in optimizer.param_groups}) < 2:
        raise TrainError(f"optimizer.layer_decay: {name} has no layers that timm tells apart, or trains one alone")
    for group in optimizer.param_groups:
        group |= {"lr": lr * group["lr_scale"], "initial_lr": lr}


def effective_lr(recipe: Recipe) -> float:
    """base_lr x batch / 512, the batch counting repeated views."""
    return recipe.optimizer.base_lr * recipe.schedule.batch_size / 512


def build_optimizer(recipe: Recipe, model: nn.Module) -> Optimizer:
    """The recipe's optimizer over the model's parameters. Raises TrainError for names and options that do not exist."""
    wanted, lr = recipe.optimizer, effective_lr(recipe)
    check_options(f"the optimizer {wanted.name}", wanted.options, optimizer_options(wanted.name))
    options: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in wanted.options.items()
    }
    for pattern in options.get("fallback_list", ()) if ":" not in wanted.name else ():
        if not any(fnmatch(name, str(pattern)) for name, _ in model.named_parameters()):
            raise TrainError(f"the optimizer {wanted.name}: fallback_list {pattern!r} names no parameter of this model")
    try:
        if wanted.name in OPTIMIZERS or ":" in wanted.name:
            build = OPTIMIZERS[wanted.name].build if wanted.name in OPTIMIZERS else load(wanted.name)
            groups = parameter_groups(model, wanted.weight_decay, wanted.layer_decay)
            optimizer: Optimizer = build(groups, lr=lr, weight_decay=wanted.weight_decay, **options)
        else:
            optimizer = create_optimizer_v2(
                model,
                wanted.name,
                lr=lr,
                weight_decay=wanted.weight_decay,
                layer_decay=wanted.layer_decay,
                **options,
            )
    except (TypeError, ValueError, AssertionError) as error:
        raise TrainError(f"the optimizer {wanted.name} refuses {options}: {error}") from error
    if wanted.layer_decay is not None:
        _scale_by_layer(optimizer, recipe.model.name, lr)
    return optimizer


@dataclass(frozen=True)
class ScheduleEntry:
    """One of timm's schedulers that is a function of the time alone (``plateau`` follows a metric)."""

    build: Callable[..., Scheduler]
    times: tuple[str, ...]
    """Options that are times: recipes give epochs."""
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """Options that timm's own training script sets otherwise than the class does."""
    after_warmup: bool = False
    """Whether the schedule's length does not count the warm-up."""


SCHEDULES: dict[str, ScheduleEntry] = {
    "cosine": ScheduleEntry(CosineLRScheduler, ("t_initial",)),
    "tanh": ScheduleEntry(TanhLRScheduler, ("t_initial",)),
    "poly": ScheduleEntry(PolyLRScheduler, ("t_initial",)),
    "step": ScheduleEntry(StepLRScheduler, ("decay_t",), {"decay_rate": 0.1, "warmup_prefix": False}),
    "multistep": ScheduleEntry(MultiStepLRScheduler, ("decay_t",), {"decay_rate": 0.1, "warmup_prefix": False}),
    "wsd": ScheduleEntry(WSDLRScheduler, ("decay_t", "stable_timescale"), after_warmup=True),
}
_FROM_RECIPE = ("self", "optimizer", "lr_min", "warmup_t", "warmup_lr_init", "t_in_epochs", "initialize")


def schedule_options(name: str) -> dict[str, str]:
    """The options of a schedule by name, with their kinds; timm's noise, which no seed of a run decides, is none.
    Raises TrainError for an unknown name."""
    entry = lookup("schedule", name, SCHEDULES)
    known = option_kinds(entry.build, _FROM_RECIPE)
    if entry.after_warmup:
        del known["t_initial"]
    return {option: kind for option, kind in known.items() if not option.startswith("noise_")}


def _in_units(name: str, value: Any, unit: int) -> Any:
    """A time, or a list of them, in epochs, as timm's scheduler counts. Raises TrainError where it is not above 0."""
    if isinstance(value, list):
        return sorted(_in_units(name, each, unit) for each in value)
    if value is not None and value <= 0:
        raise TrainError(f"schedule.options.{name} should be epochs above 0, not {value:g}")
    return value if value is None else value * unit


def build_schedule(recipe: Recipe, optimizer: Optimizer, steps_per_epoch: int) -> Callable[[int], float]:
    """Sets the optimizer's learning rate for a step (counted from 0 over the whole training) and returns it.

    Linear warm-up, then timm's schedule as if it had run from step 0 (without prefix; wsd always begins after it).
    Stateless: the step is the position. With ``stepping: epoch`` it changes once an epoch and lags by one, as in the
    reference code: epochs 0 and 1 run at the first value, epoch n at that of n - 1. Raises TrainError for options that
    do not suit.
    """
    plan, peak = recipe.schedule, effective_lr(recipe)
    by_step = plan.stepping == "step"
    unit = steps_per_epoch if by_step else 1
    warmup: Any = round(plan.warmup_epochs * unit) if by_step else plan.warmup_epochs
    entry = lookup("schedule", plan.name, SCHEDULES)
    check_options(f"the schedule {plan.name}", plan.options, schedule_options(plan.name))
    arguments = {
        "t_initial": plan.epochs * unit - (warmup if entry.after_warmup else 0),
        "lr_min": min(plan.min_lr, peak),
        **entry.defaults,
        **{key: _in_units(key, value, unit) if key in entry.times else value for key, value in plan.options.items()},
    }
    takes = inspect.signature(entry.build).parameters
    try:
        scheduler = entry.build(
            optimizer,
            **{key: value for key, value in arguments.items() if key in takes},
            warmup_t=warmup,
            warmup_lr_init=min(plan.warmup_lr, peak),
            t_in_epochs=not by_step,
        )
    except (TypeError, ValueError, AssertionError) as error:
        raise TrainError(f"the schedule {plan.name} refuses schedule.options {plan.options}: {error}") from error

    def set_lr(step: int) -> float:
        if by_step:
            scheduler.step_update(step)
        else:
            scheduler.step(max(0, step // steps_per_epoch - 1))
        return float(max(group["lr"] for group in optimizer.param_groups))

    return set_lr


class Ema:
    """average <- decay average + (1 - decay) weights, after each step, without warm-up, as in the reference code.

    Buffers of floats (batch norm's statistics) are averaged too, counters copied. All tensors are updated by one
    foreach call, 16 times as fast as timm's loop over a small model (reference: timm.utils.ModelEma).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        self._average: list[Tensor] = [ours for ours, _ in pairs if ours.is_floating_point()]
        self._weights: list[Tensor] = [theirs for ours, theirs in pairs if ours.is_floating_point()]
        self._counters = [(ours, theirs) for ours, theirs in pairs if not ours.is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        torch._foreach_lerp_(self._average, self._weights, 1 - self.decay)
        for ours, theirs in self._counters:
            ours.copy_(theirs)
