"""Data under one id: the first result pins them, wherever it was trained, and others are refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from deit_ablate.errors import InputError
from deit_ablate.identity import canonical, run_id
from deit_ablate.recipe import Recipe
from deit_ablate.store import Store, pins
from deit_ablate.store.archive import import_records

OWN = {"name": "imagefolder", "id": "st"}


def trained(store: Store, seed: int, fingerprint: str | None, own: Any = OWN, **facts: Any) -> str:
    """A finished run on data of this fingerprint, as a store has it whose pin was lost."""
    recipe = canonical(Recipe.model_validate({"data": own, "seed": seed}))
    store.register(run := run_id(recipe, {}), recipe, {}, {})
    attempt = store.claim(run)
    data = {"fingerprint": fingerprint, **facts} if fingerprint else None
    store.finish(run, attempt, {"status": "done", "reason": None, "metrics": {}, "cost": {}, "data": data})
    attempt.close("done")
    return run


@pytest.fixture
def elsewhere(tmp_path: Path) -> Store:
    other = Store(tmp_path / "elsewhere")
    trained(other, 0, "old")
    trained(other, 1, None)
    return other


def refused(source: Store, store: Store, problem: str) -> None:
    before = store.runs()
    with pytest.raises(InputError, match=re.escape(problem)):
        import_records(source.root, store)
    assert store.runs() == before


def test_what_is_imported_pins_its_data(store: Store, elsewhere: Store, tmp_path: Path) -> None:
    assert import_records(elsewhere.root, store).new == 2
    assert (store.data_facts("st") or {})["fingerprint"] == "old"
    third = Store(tmp_path / "third")
    trained(third, 2, "new")
    refused(third, store, f"{third.root}: the data called 'st' are not those of the finished runs in this store")
    assert (store.data_facts("st") or {})["fingerprint"] == "old"


def test_stores_that_mix_data_and_ids_that_are_paths_are_refused(store: Store, elsewhere: Store) -> None:
    run = trained(elsewhere, 2, "x", {"name": "x/../../x"})
    refused(elsewhere, store, "damaged: data.id: 'x/../../x' cannot name a file")
    elsewhere.run(run).rename(elsewhere.root / "away")
    trained(elsewhere, 2, "new")
    refused(elsewhere, store, "the data called 'st' are not those of other runs in it")
    assert not (store.root / "data").exists()


def test_a_pin_that_no_result_has_used_gives_way(store: Store, elsewhere: Store) -> None:
    store.pin_data("st", {"fingerprint": "of a failed run"})
    assert import_records(elsewhere.root, store).new == 2
    assert (store.data_facts("st") or {})["fingerprint"] == "old"


@pytest.mark.parametrize("here", [{"fingerprint": "old"}, {"fingerprint": "content", "listing": "old"}])
def test_earlier_versions_pinned_what_is_the_listing_now(store: Store, elsewhere: Store, here: dict[str, str]) -> None:
    trained(store, 5, **here)
    store.pin_data("st", here)
    assert import_records(elsewhere.root, store).new == 2
    assert (store.data_facts("st") or {})["fingerprint"] == here["fingerprint"]
    with pytest.raises(pins.OtherData):
        pins.pin(store, "st", {"fingerprint": "new", "listing": "new"})


def test_a_training_adds_the_names_of_the_classes(store: Store, elsewhere: Store) -> None:
    import_records(elsewhere.root, store)
    pins.pin(store, "st", {"fingerprint": "old", "classes": ["cat", "dog"]})
    assert (store.data_facts("st") or {})["classes"] == ["cat", "dog"]
    pins.pin(store, "st", {"fingerprint": "old"})
    assert (store.data_facts("st") or {})["classes"] == ["cat", "dog"]
