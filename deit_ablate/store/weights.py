"""Weights files of teachers, kept under their content: ``results/weights/``."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

from deit_ablate import files
from deit_ablate.store import schema
from deit_ablate.store.schema import SCHEMA


class TeacherWeights:
    """The weights files that a store keeps: ``store.teacher_weights``."""

    def __init__(self, root: Path) -> None:
        self.root = root / "weights"

    def keep(self, sha256: str, path: Path) -> Path:
        """Keep a weights file under its content's hash ("sha256:<hex>"); returns where it lies.

        Raises ValueError where the file's content is another by now.
        """
        digest = sha256.removeprefix("sha256:")
        kept = self.find(sha256)
        if kept is not None and files.sha256(kept) == digest:
            return kept
        suffix = path.suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,12}", path.suffix) else ".weights"
        target = files.make_folder(self.root) / (kept.name if kept else f"{digest}{suffix}")
        files.adopt(path, target, digest)
        return target

    def keep_hub(self, name: str, write: Callable[[Path], None]) -> Path:
        """Keep what ``write`` writes to a path as the weights (safetensors) of the hub's model of this name.

        The first content under a name stands. Raises ValueError where this is another.
        """
        target = files.make_folder(self.root) / f"{name}.safetensors"
        with files.temporary_beside(target) as temporary:
            write(temporary)
            files.sync_file(temporary)
            digest = files.sha256(temporary)
            pin = {"schema": SCHEMA, "name": name, "sha256": digest}
            files.publish(self._pin(name), files.to_json(pin))
            if self.hub_sha256(name) != digest:
                raise ValueError(f"what the hub gives as {name} is not what earlier runs in this store used")
            os.replace(temporary, target)
        files.sync_folder(target.parent)
        return target

    def find(self, wanted: str) -> Path | None:
        """The kept file of this content ("sha256:<hex>") or of the hub's model of this name, or None."""
        digest = wanted.removeprefix("sha256:")
        if digest != wanted:
            return next((self.root).glob(f"{digest}.*"), None)
        path = self.root / f"{wanted}.safetensors"
        return path if path.exists() else None

    def hub_sha256(self, name: str) -> str | None:
        """The content that is pinned as the weights of the hub's model of this name, or None."""
        pin = schema.read(self._pin(name), schema.HubWeights)
        return pin["sha256"] if pin else None

    def _pin(self, name: str) -> Path:
        return self.root / f"{name}.json"
