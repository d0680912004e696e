"""Data sets are fetched whole or not at all, and nothing but their files is unpacked."""

from __future__ import annotations

import hashlib
import http.server
import io
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import recipe_for, write_cifar, write_fashion

from deit_ablate.errors import TrainError
from deit_ablate.train.data import download as downloads
from deit_ablate.train.data.download import download
from deit_ablate.train.data.published import CIFAR
from deit_ablate.train.data.sets import load_data


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Path, str]]:
    """A folder served on this machine, and its address."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments, directory=str(folder))

        def log_message(self, *_: Any) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield folder, f"http://127.0.0.1:{serving.server_address[1]}/"
        serving.shutdown()


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def test_fashion_mnist_is_fetched_whole_or_not_at_all(
    server: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, address = server
    write_fashion(served)
    files = sorted(path.name for path in served.iterdir())
    monkeypatch.setattr(downloads.FashionMNIST, "mirrors", [address + "gone/", address])
    monkeypatch.setattr(downloads.FashionMNIST, "resources", [(file, md5(served / file)) for file in files])
    (served / files[3]).rename(tmp_path / "away")
    with pytest.raises(TrainError, match=rf"{files[3]} could not be fetched .*: put {files[0]}, .* into .*data"):
        download("fashion-mnist", tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []
    (served / files[3]).write_bytes(b"another")
    with pytest.raises(TrainError, match="cut short or altered"):
        download("fashion-mnist", tmp_path / "data")
    (tmp_path / "away").rename(served / files[3])
    assert sorted(download("fashion-mnist", tmp_path / "data")) == files
    assert len(load_data(recipe_for("fashion-mnist"), tmp_path / "data").dataset.train) == 60
    assert download("fashion-mnist", tmp_path / "data") == []


def add(tar: tarfile.TarFile, name: str, content: bytes = b"", **attributes: Any) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    for attribute, value in attributes.items():
        setattr(member, attribute, value)
    tar.addfile(member, io.BytesIO(content))


def test_of_an_archive_only_the_expected_files_are_unpacked(
    server: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, address = server
    kind, folder = CIFAR["cifar100"], tmp_path / "data"
    inside = write_cifar(tmp_path / "made", "cifar100", 40)

    def serve(*left_out: str) -> None:
        with tarfile.open(served / kind.archive, "w:gz") as tar:
            add(tar, "../outside", b"x")
            add(tar, str(tmp_path / "absolute"), b"x")
            add(tar, f"{kind.folder}/more.py", b"x")
            add(tar, f"{kind.folder}/{kind.test}", type=tarfile.SYMTYPE, linkname=str(tmp_path / "linked"))
            for file in sorted(inside.iterdir()):
                if file.name not in left_out:
                    add(tar, f"./{kind.folder}/{file.name}", file.read_bytes(), mode=0o7777)
        monkeypatch.setitem(CIFAR, "cifar100", replace(kind, md5=md5(served / kind.archive)))

    monkeypatch.setattr(downloads, "CIFAR_HOME", address)
    serve(kind.test)
    with pytest.raises(TrainError, match=f"holds no {kind.folder}/{kind.test}"):
        download("cifar100", folder)
    assert list(folder.iterdir()) == []
    serve()
    fetched = download("cifar100", folder)
    assert sorted(fetched) == [f"{kind.folder}/{file.name}" for file in sorted(inside.iterdir())]
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*")) == [kind.folder, *sorted(fetched)]
    assert not any(path.stat().st_mode & 0o7133 for path in (folder / kind.folder).iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"data", "made", "served"}
    assert len(load_data(recipe_for("cifar100"), folder).dataset.train) == 200


def test_without_a_network_it_is_said_what_to_put_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(downloads, "CIFAR_HOME", "http://127.0.0.1:9/")
    with pytest.raises(
        TrainError, match=r"cifar-10-binary\.tar\.gz could not be fetched .* holds cifar-10-batches-bin/"
    ):
        download("cifar10", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_fetched_is_said_so(tmp_path: Path) -> None:
    for name in ("imagenet", "imagefolder"):
        with pytest.raises(TrainError, match=rf"{name} cannot be fetched: supply a folder with train/<class>"):
            download(name, tmp_path)
    with pytest.raises(TrainError, match="part of this package"):
        download("digits", tmp_path)
    with pytest.raises(TrainError, match="did you mean 'cifar10'"):
        download("cifar1", tmp_path)
