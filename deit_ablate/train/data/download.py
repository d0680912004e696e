"""Fetching what may be fetched: Fashion-MNIST and the two CIFARs, from where their authors put them.

Nothing appears under its own name before it is whole and its checksum is right. Data sets are downloaded when a
person asks for it, never by a training.
"""

from __future__ import annotations

import gzip
import http.client
import shutil
import socket
import ssl
import tarfile
import tempfile
import urllib.error
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torchvision.datasets import FashionMNIST
from torchvision.datasets.utils import check_integrity, download_url

from deit_ablate.errors import DataError, TrainError, did_you_mean
from deit_ablate.train.data import hub
from deit_ablate.train.data.published import CIFAR, Cifar
from deit_ablate.train.data.sets import DATASETS
from deit_ablate.train.data.vision import VISION, opened

CIFAR_HOME = "https://www.cs.toronto.edu/~kriz/"
SILENCE_SECONDS = 60.0
"""Without a byte, after which a server counts as unreachable (torchvision would wait forever)."""
NETWORK = (urllib.error.URLError, ConnectionError, TimeoutError, ssl.SSLError, http.client.HTTPException)
"""What the network raises; other OSErrors are the folder's (no room, no permission)."""


def download(name: str, folder: Path, options: Mapping[str, Any] | None = None) -> list[str]:
    """Fetch a data set into ``folder``, made where it is missing; the files' paths below it, none where all are there.

    Raises TrainError for data sets that cannot be fetched, and where the network fails (with what to put where by
    hand); OSError for a folder that cannot be written.
    """
    if name == "huggingface" and options and "repo" in options:
        return hub.fetch(options, folder)
    if name in CIFAR:
        return _cifar(CIFAR[name], folder)
    if name == "fashion-mnist":
        return _fashion_mnist(folder)
    if name.startswith("torchvision:") and name in DATASETS:
        return _vision(name, folder)
    if name not in DATASETS:
        raise TrainError(f"no data set is called {name!r}{did_you_mean(name, DATASETS)}")
    if name == "digits":
        raise TrainError("digits is part of this package: there is nothing to fetch")
    raise TrainError(
        f"{name} cannot be fetched: supply a folder with train/<class>/<pictures> and val/<class>/<pictures> yourself"
        + (" (ImageNet's terms must be accepted at image-net.org)" if name == "imagenet" else "")
    )


def _vision(name: str, folder: Path) -> list[str]:
    """By torchvision itself, which fetches what is not there: the parts, or none where all are."""
    fetched = []
    for part in VISION[name.partition(":")[2]].parts:
        try:
            opened(name, folder, part)
            continue
        except DataError:
            folder.mkdir(parents=True, exist_ok=True)
        waited = socket.getdefaulttimeout()
        socket.setdefaulttimeout(SILENCE_SECONDS)
        try:
            opened(name, folder, part, download=True)
        except (*NETWORK, RuntimeError) as error:
            why = " ".join(str(error).split())
            raise TrainError(f"{name} could not be fetched ({why}): put it into {folder} by other means") from error
        finally:
            socket.setdefaulttimeout(waited)
        fetched.append(f"{name} ({part})")
    return fetched


def _fashion_mnist(folder: Path) -> list[str]:
    wanted = {file: md5 for file, md5 in FashionMNIST.resources if not check_integrity(str(folder / file), md5)}
    by_hand = f"put {', '.join(file for file, _ in FashionMNIST.resources)} into {folder} by other means"
    if wanted:
        with _beside(folder) as temporary:
            for file, md5 in wanted.items():
                _fetch([mirror + file for mirror in FashionMNIST.mirrors], Path(temporary), file, md5, by_hand)
            for file in wanted:
                (Path(temporary) / file).replace(folder / file)
    return list(wanted)


def _cifar(kind: Cifar, folder: Path) -> list[str]:
    files = [f"{kind.folder}/{file}" for file in (*kind.train, kind.test, kind.names)]
    sizes = [*[50_000 // len(kind.train) * kind.record] * len(kind.train), 10_000 * kind.record]
    whole = [(folder / file).is_file() and (folder / file).stat().st_size for file in files]
    if whole[:-1] == sizes and whole[-1]:
        return []
    by_hand = f"unpack {kind.archive} by other means, so that {folder} holds {kind.folder}/"
    with _beside(folder) as temporary:
        inside = Path(temporary)
        _fetch([CIFAR_HOME + kind.archive], inside, kind.archive, kind.md5, by_hand)
        _unpack(inside / kind.archive, inside, files)
        (folder / kind.folder).mkdir(exist_ok=True)
        for file in files:
            (inside / file).replace(folder / file)
    return files


def _beside(folder: Path) -> tempfile.TemporaryDirectory[str]:
    folder.mkdir(parents=True, exist_ok=True)
    return tempfile.TemporaryDirectory(prefix=".tmp-", dir=folder)


def _fetch(urls: list[str], folder: Path, file: str, md5: str, by_hand: str) -> None:
    """One file from the first of these addresses that answers. Raises TrainError where none does."""
    waited, problem = socket.getdefaulttimeout(), ""
    socket.setdefaulttimeout(SILENCE_SECONDS)
    try:
        for url in urls:
            try:
                return download_url(url, str(folder), file, md5)
            except NETWORK as error:
                problem = str(error) or type(error).__name__
            except RecursionError:
                problem = "it is redirected without end"
            except RuntimeError:  # torchvision's word for a wrong checksum
                problem = "what came is cut short or altered: its checksum is another"
    finally:
        socket.setdefaulttimeout(waited)
    raise TrainError(f"{file} could not be fetched ({problem}): {by_hand}")


def _unpack(archive: Path, folder: Path, files: list[str]) -> None:
    """Write the archive's regular files of exactly these names. It decides on nothing but their content: not on
    places, kinds or permissions, which ``extractall`` would take from it. Raises TrainError where one is missing."""
    missing = set(files)
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                if member.isreg() and name in missing and (content := tar.extractfile(member)):
                    (folder / name).parent.mkdir(exist_ok=True)
                    with content, open(folder / name, "wb") as written:
                        shutil.copyfileobj(content, written)
                    missing.remove(name)
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TrainError(f"{archive.name} is damaged: {error}") from error
    if missing:
        raise TrainError(f"{archive.name} holds no {', '.join(sorted(missing))}")
