"""A teacher's answers, kept: its logits of a step are the same for all students that see the same batches.

Which batches a student sees is a function of data, augmentation, mixing and seed; what a teacher answers, of its
weights and of what computes it. Students that agree in all of these read and write one file: an entry a step, at its
own place, with a checksum. Two that train at the same time may write the same entry, with the same bytes; what is torn,
or not there yet, is computed.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from deit_ablate.identity import SEMANTICS, canonical_json
from deit_ablate.names import PACKAGE, hashes
from deit_ablate.recipe import Recipe
from deit_ablate.train.cost import weights_sha256
from deit_ablate.train.data.sets import Splits
from deit_ablate.train.provenance import hardware, provenance
from deit_ablate.train.teachers import Parent, Teacher

LARGEST = 2**28
"""Bytes of a file; a training whose answers are more keeps none."""
ALL = 2**31
"""Bytes of all files: before one is begun the ones that were used longest ago are removed."""
CHECKSUM = 8


class KeptAnswers:
    """``teacher``'s answers, out of the file at ``path`` where it has them. ``shape``: (batch, classes)."""

    def __init__(self, teacher: Teacher, path: Path, shape: tuple[int, int]) -> None:
        self.teacher, self.shape = teacher, shape
        self.size = CHECKSUM + 4 * shape[0] * shape[1]
        self.file: int | None = None
        with contextlib.suppress(OSError):  # a cache that cannot be had is none
            self.file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            os.utime(path)

    def __call__(self, images: Tensor, step: int) -> Tensor:
        """Logits (B, K) of the step's images."""
        if self.file is None:
            return self.teacher(images, step)
        with contextlib.suppress(OSError):
            entry = os.pread(self.file, self.size, step * self.size)
            if len(entry) == self.size and entry[:CHECKSUM] == _checksum(step, entry[CHECKSUM:]):
                return torch.from_numpy(np.frombuffer(entry, np.float32, offset=CHECKSUM).copy()).view(self.shape)
        answers = self.teacher(images, step)
        content = answers.numpy().tobytes()
        try:
            os.pwrite(self.file, _checksum(step, content) + content, step * self.size)
        except OSError:  # a full disk: go on without
            os.close(self.file)
            self.file = None
        return answers


def _checksum(step: int, content: bytes) -> bytes:
    """Never that of a hole in the file, which is zeros."""
    return (zlib.crc32(content, step) | 1 << 32).to_bytes(CHECKSUM, "little")


def keep_answers(
    teacher: Teacher | None, parent: Parent | None, folder: Path | None, recipe: Recipe, data: Splits, steps: int
) -> Teacher | KeptAnswers | None:
    """The teacher, with its answers kept in a file below ``folder`` for a training of so many steps on a CPU, where a
    forward pass costs more than a file; without them where there is no folder, and where not all that decides a batch
    or an answer is known: under augmentations and data of one's own, data whose fingerprint is of a sample, and a
    teacher (``parent``: the run that it is) with a model of one's own.
    """
    if teacher is None or folder is None:
        return teacher
    shape = recipe.schedule.batch_size, len(data.dataset.classes)
    size = steps * (CHECKSUM + 4 * shape[0] * shape[1])
    own = recipe.augment.custom or ":" in recipe.data.name or (parent and ":" in parent.recipe.model.name)
    if own or data.dataset.fingerprint_of != "content" or size > LARGEST:
        return teacher
    path = folder / f"answers-{_key(teacher, parent, recipe, data)}"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            make_room(folder, size)
    return KeptAnswers(teacher, path, shape)


def make_room(folder: Path, size: int) -> None:
    """Remove the files that were used longest ago until ``size`` more bytes are within ALL; what else lies there, for
    the folder may be a link, is left alone."""
    used = {path: path.lstat() for path in folder.glob("answers-*") if path.is_file()}
    total = sum(status.st_size for status in used.values())
    for path in sorted(used, key=lambda each: used[each].st_mtime):
        if total + size <= ALL:
            return
        total -= used[path].st_size
        path.unlink(missing_ok=True)


def _key(teacher: Teacher, parent: Parent | None, recipe: Recipe, data: Splits) -> str:
    """All that an answer is a function of: whose, of which images, and by what it is computed."""
    computes: dict[str, Any] = {**provenance()["packages"], **hardware("cpu")}
    for unrelated in ("host", "cores", "gpu"):
        computes.pop(unrelated)
    code = sorted(path.relative_to(PACKAGE).as_posix() for path in Path(__file__).parent.rglob("*.py"))
    model = parent.recipe.model.model_dump(mode="json") if parent else recipe.distill.teacher
    known = {
        "semantics": SEMANTICS,
        "code": hashes(code),  # an entry that is being written changes, while SEMANTICS stays
        "teacher": [weights_sha256(teacher.model), model, repr(teacher.model), *teacher.settings()],
        "data": [data.dataset.fingerprint, recipe.data.model_dump(mode="json")],
        "augment": recipe.augment.model_dump(mode="json"),
        "batches": [recipe.seed, recipe.schedule.batch_size],
        "computes": [computes, recipe.precision],
    }
    return hashlib.sha256(canonical_json(known).encode()).hexdigest()[:32]
