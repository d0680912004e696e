"""``run --verify-data``: the whole content of every picture, compared with what was first found under the data's id."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from deit_ablate import files
from deit_ablate.errors import TrainError, few
from deit_ablate.recipe import Data
from deit_ablate.store import Store
from deit_ablate.train.data.check import whole_hashes
from deit_ablate.train.data.sets import load_dataset

NAMED = 10
"""Files that an answer names."""


def verified(request: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Of each data block of ``request`` ({"results", "data_dir", "data"}): {"id", "pictures" (0 where none is a file),
    "changed" (what is wrong with how many pictures, named), "pinned" (whether the hashes were there already), "error"}.

    The hashes lie in ``results/data/ID.sha256``, as ``sha256sum`` writes them, below a line with the fingerprint. They
    stand while the store has pinned that one: of data on which no run has finished they give way.
    """
    store, first = Store(request["results"]), dict[Path, bytes]()
    sound = True
    for values in request["data"]:
        data = Data.model_validate(values)
        data_id = data.id or data.name
        answer = {"id": data_id, "pictures": 0, "changed": [], "pinned": False, "error": None}
        try:
            dataset = load_dataset(data, Path(request["data_dir"]) if request["data_dir"] else None)
            found = whole_hashes(dataset)
        except (TrainError, OSError) as error:
            sound = False
            yield {**answer, "error": str(error)}
            continue
        path = store.data_hashes(data_id)
        pinned = (store.data_facts(data_id) or {}).get("fingerprint")
        prints, before = _read(path)
        before = before if pinned in prints else None
        if found and before is None:
            first[path] = _lines([dataset.fingerprint, dataset.listing], found)
        changed = [] if before is None else [*_differences(before, found)]
        sound = sound and not changed
        yield {**answer, "pictures": len(found), "changed": changed, "pinned": before is not None}
    for path, content in first.items() if sound else ():  # where one data set is refused, nothing is written
        files.replace(files.make_folder(path.parent) / path.name, content)


def _lines(prints: Sequence[str], found: Mapping[bytes, str]) -> bytes:
    lines = (b"%s  %s\n" % (found[name].encode(), name) for name in sorted(found))
    return f"# fingerprint {' '.join(prints).strip()}\n".encode() + b"".join(lines)


def _read(path: Path) -> tuple[list[str], dict[bytes, str] | None]:
    """The fingerprints of the data that were hashed, and the hashes."""
    if not path.exists():
        return [], None
    first, *lines = path.read_bytes().split(b"\n")
    return first.decode("ascii", "replace").split()[2:], {line[66:]: line[:64].decode() for line in lines if line}


def _differences(before: Mapping[bytes, str], now: Mapping[bytes, str]) -> Iterator[str]:
    kinds = {
        "changed": sorted(name for name in before.keys() & now.keys() if before[name] != now[name]),
        "missing": sorted(before.keys() - now.keys()),
        "new": sorted(now.keys() - before.keys()),
    }
    for kind, names in kinds.items():
        if names:
            named = few([name.decode("utf-8", "backslashreplace") for name in names], NAMED)
            yield f"{len(names)} {kind} ({named})"
