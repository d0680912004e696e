"""Whatever is done to a sound sweep file, it makes a plan or one error with its file, line and key."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deit_ablate.errors import InputError
from deit_ablate.search.candidates import Configurations
from deit_ablate.sweep import names
from deit_ablate.sweep.load import load_sweep
from deit_ablate.sweep.plan import make_plan
from deit_ablate.train.names import ask

PLAIN = {
    "title": "t",
    "profile": "digits",
    "seeds": 2,
    "margin": 0.5,
    "baseline": "a",
    "recipe": {"schedule": {"epochs": 6}, "optimizer": {"options": {"betas": [0.9, 0.99]}}},
    "variants": {
        "a": {},
        "b": {"optimizer": {"name": "lion", "base_lr": 0.01, "options": {"caution": True}}},
        "c": {"augment.mixup": 0, "model.options": {"depth": 3, "qkv_bias": False}, "shows": "ema"},
    },
    "by_profile": {
        "imagenet": {
            "recipe": {"schedule.epochs": 90, "precision": "bf16"},
            "b": {"optimizer": {"name": "sgd", "base_lr": 0.5, "options": {"nesterov": False, "momentum": 0.9}}},
        },
        "digits": {"c": {"augment.crop_scale": [0.5, 1.0], "augment.crop": "random-resized"}},
    },
}
STAGED = {
    "seeds": 2,
    "profile": "digits",
    "stages": {
        "t": {"seeds": [0], "recipe": {"model": {"name": "small_convnet", "options": {"width": 8}}}},
        "s": {"teacher": "t", "seeds": [0, 1]},
        "f": {"from": "s", "weights": "ema", "recipe": {"data.resolution": 32}},
    },
    "execution": {"parallel": 2},
    "add_one": {"hard": {"distill": {"type": "hard", "alpha": 0.3}}, "soft": {"s": {"distill.type": "soft"}}},
    "by_profile": {"imagenet": {"t": {"model.name": "deit_tiny"}, "+soft": {"f": {"optimizer.weight_decay": 0}}}},
}
SEARCH = {
    "profile": "digits",
    "search": {
        "trials": 4,
        "sampler_options": {"n_startup_trials": 2},
        "space": {"optimizer.base_lr": {"low": 0.01, "high": 0.1, "log": True}, "augment.repeats": [1, 2]},
    },
    "grid": None,
    "variants": {"adamw": {}, "sgd": {"optimizer": {"name": "sgd", "base_lr": 0.5}}},
    "by_profile": {"imagenet": {"search": {"trials": 8, "space": {"optimizer.base_lr": {"low": 0.001}}}}},
}
FILES = [
    PLAIN,
    STAGED,
    SEARCH,
    {"profile": "digits", "grid": {"augment.mixup": [0, 0.2], "optimizer.base_lr": [0.1, 1]}},
]

ODD = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        3.5,
        1e-3,
        10**30,
        math.inf,
        math.nan,
        "",
        "no",
        "off",
        "true",
        "1e-3",
        "abc",
        "a:b",
    ),
    *([], {}, [1, 2], [None], ["no"], {"a": 1}, {"name": 3}, {"name": "lion"}, {"options": {"caution": "no"}}),
    *("deit_tiny", "hard", "hard-token", "imagenet", "../x", "é\u202e", "x" * 300, [[[]]], {"low": 1, "high": 0}),
]
KEYS = [
    *("model", "optimizer", "augment.mixup", "optimizer.name", "optimizer.options.nesterov", "model.options", "t"),
    *(
        "schedule.epochs",
        "distill.type",
        "seeds",
        "stages",
        "search",
        "recipe",
        "",
        "a.b",
        "<<",
        "seed",
        "é",
        "precision",
    ),
]


def places(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every path of a document but its root."""
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    for key, child in inner:
        yield (*path, key)
        yield from places(child, (*path, key))


def mutated(document: Any, data: st.DataObject) -> Any:
    document = copy.deepcopy(document)
    *above, last = data.draw(st.sampled_from(list(places(document))))
    holder = document
    for step in above:
        holder = holder[step]
    what = data.draw(st.sampled_from(["replace", "replace", "remove", "rename", "add", "wrap"]))
    value = copy.deepcopy(data.draw(st.sampled_from(ODD)))
    if what == "replace":
        holder[last] = value
    elif what == "remove":
        del holder[last]
    elif what == "wrap":
        holder[last] = [holder[last]]
    elif isinstance(holder, dict):
        key = data.draw(st.sampled_from(KEYS))
        holder[key] = holder.pop(last) if what == "rename" else value
    return document


def written(document: Any) -> str:
    """JSON, which is YAML, with YAML's spelling of what JSON has not."""
    text = json.dumps(document, indent=1, ensure_ascii=False)
    return text.replace("NaN", ".nan").replace("Infinity", ".inf")


@pytest.fixture(autouse=True)
def asked_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker's own answers, without a process for each question."""
    monkeypatch.setattr(names, "ask_worker", ask)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(FILES), st.integers(1, 3), st.data())
def test_a_changed_file_makes_a_plan_or_one_error(tmp_path: Path, file: Any, times: int, data: st.DataObject) -> None:
    for _ in range(times):
        if not file:
            return
        file = mutated(file, data)
    path = tmp_path / "mutated.yaml"
    path.write_text(written(file))
    refused = refusal(path)
    for error in getattr(refused, "errors", (refused,)) if refused is not None else ():
        assert error.where is not None
        assert error.where[0] == str(path)
        assert error.where[1] > 0
        assert error.key or '"":' in path.read_text(), "the key may be an empty text"
        assert "\n" not in str(error)


def refusal(path: Path) -> InputError | None:
    """What is said against a file, before anything is trained."""
    try:
        sweep = load_sweep(path)
        if sweep.search is None:
            make_plan(sweep)
        else:
            Configurations(sweep).check(sweep.variants)
    except InputError as error:
        return error
    return None


@pytest.mark.parametrize("file", FILES)
def test_the_files_that_are_changed_are_sound(tmp_path: Path, file: Any) -> None:
    path = tmp_path / "sound.yaml"
    path.write_text(written(file))
    assert refusal(path) is None
