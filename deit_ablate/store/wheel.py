"""This very package as a wheel, made from its installed files: it is in no registry, and needs no network so."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

from deit_ablate import files
from deit_ablate.errors import InputError

NAME = "deit-ablate"
_WHEEL = "Wheel-Version: 1.0\nGenerator: deit-ablate\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_METADATA = re.compile(r"METADATA|entry_points\.txt|licenses/.+")
"""Of the installed package's metadata: the rest tells where it was installed, and from what."""


def write_wheel(folder: Path) -> Path:
    """Write the wheel into ``folder``; returns its path. Equal files give equal bytes.

    Raises InputError where the package was never installed, so that nothing says what it needs.
    """
    distribution = _distribution()
    version = distribution.version
    info = f"deit_ablate-{version}.dist-info"
    path = folder / f"deit_ablate-{version}-py3-none-any.whl"
    record = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in [*_code(), *_metadata(distribution, info), (f"{info}/WHEEL", _WHEEL.encode())]:
            wheel.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).decode().rstrip("=")
            record.append(f"{name},sha256={digest},{len(content)}\n")
        listing = "".join([*record, f"{info}/RECORD,,\n"])
        wheel.writestr(zipfile.ZipInfo(f"{info}/RECORD"), listing, zipfile.ZIP_DEFLATED)
    return path


def requirements() -> dict[str, str]:
    """What the package needs, by its metadata (without extras) -> the version that is installed here, or ""."""
    found = {}
    for requirement in _distribution().requires or []:
        if "extra ==" not in requirement and (named := re.match(r"[A-Za-z0-9][A-Za-z0-9._-]*", requirement)):
            try:
                found[named[0]] = importlib.metadata.version(named[0])
            except importlib.metadata.PackageNotFoundError:  # where a container alone has it
                found[named[0]] = ""
    return found


def _distribution() -> importlib.metadata.Distribution:
    try:
        return importlib.metadata.distribution(NAME)
    except importlib.metadata.PackageNotFoundError:
        raise InputError(f"{NAME} is not installed here", expected="a package that pip has installed") from None


def _code() -> Iterator[tuple[str, bytes]]:
    """The package, with the sweeps and analyses that are shipped, by their names in a wheel."""
    package = Path(__file__).parent.parent
    for path in _below(package):
        if path.relative_to(package).parts[0] != "shipped":
            yield f"deit_ablate/{path.relative_to(package).as_posix()}", path.read_bytes()
    for name in ("sweeps", "analysis"):
        folder = files.shipped(name)
        for path in _below(folder):
            yield f"deit_ablate/shipped/{name}/{path.relative_to(folder).as_posix()}", path.read_bytes()


def _below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def _metadata(distribution: importlib.metadata.Distribution, info: str) -> Iterator[tuple[str, bytes]]:
    for file in sorted(distribution.files or [], key=str):
        top, _, name = file.as_posix().partition("/")
        if top.endswith(".dist-info") and _METADATA.fullmatch(name):
            yield f"{info}/{name}", Path(str(file.locate())).read_bytes()
