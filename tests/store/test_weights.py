"""Weights files that the store keeps, by their content and by the hub's name."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import VIT, planned

from deit_ablate import files
from deit_ablate.errors import InputError
from deit_ablate.store import Store


def test_the_store_keeps_a_file_by_its_content(store: Store, weights: Path) -> None:
    sha256 = f"sha256:{files.sha256(weights)}"
    assert store.teacher_weights.find(sha256) is None
    kept = store.teacher_weights.keep(sha256, weights)
    assert kept == store.teacher_weights.find(sha256) == store.root / "weights" / f"{sha256[7:]}.pth"
    assert kept.samefile(weights), "no second copy where a link will do"
    assert store.teacher_weights.keep(sha256, weights) == kept
    link = weights.with_name("link.bin")
    link.symlink_to(weights)
    kept.unlink()
    assert not store.teacher_weights.keep(sha256, link).is_symlink()
    assert [path.name for path in (store.root / "weights").iterdir()] == [f"{sha256[7:]}.bin"]


def test_a_kept_file_that_was_damaged_is_replaced_and_a_changed_one_refused(store: Store, weights: Path) -> None:
    sha256 = f"sha256:{files.sha256(weights)}"
    kept = store.teacher_weights.keep(sha256, weights)
    kept.unlink()
    kept.write_bytes(b"damaged")
    assert store.teacher_weights.keep(sha256, weights).read_bytes() == b"weights"
    other = weights.with_name("other.pth")
    other.write_bytes(b"other")
    with pytest.raises(ValueError, match="the content of .*other.pth has changed"):
        Store(store.root.with_name("fresh")).teacher_weights.keep(sha256, other)
    assert list((store.root.with_name("fresh") / "weights").iterdir()) == []


def test_a_copy_is_made_where_no_link_can_be(store: Store, weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: Any, **__: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_links)
    kept = store.teacher_weights.keep(f"sha256:{files.sha256(weights)}", weights)
    assert not kept.samefile(weights)
    assert kept.read_bytes() == b"weights"


def test_what_the_hub_gave_first_under_a_name_stands(store: Store) -> None:
    def writes(content: bytes) -> Callable[[Path], None]:
        return lambda path: path.write_bytes(content) and None

    assert store.teacher_weights.find(VIT) is None
    assert store.teacher_weights.hub_sha256(VIT) is None
    kept = store.teacher_weights.keep_hub(VIT, writes(b"first"))
    assert kept == store.teacher_weights.find(VIT)
    assert store.teacher_weights.find("test_vit") is None, "another name, maybe of other weights"
    assert store.teacher_weights.hub_sha256(VIT) == files.sha256(kept)
    with pytest.raises(ValueError, match=f"what the hub gives as {VIT} is not what earlier runs in this store used"):
        store.teacher_weights.keep_hub(VIT, writes(b"second"))
    assert kept.read_bytes() == b"first"
    kept.unlink()
    assert store.teacher_weights.keep_hub(VIT, writes(b"first")) == kept


def test_no_sweep_is_called_weights(sweep: Callable[..., Path]) -> None:
    with pytest.raises(InputError, match="'weights' is a folder of the store itself"):
        planned(sweep("variants: {a: {}}", name="weights"))
