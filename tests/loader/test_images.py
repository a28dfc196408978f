"""Images of tar shards: what can be read is, what cannot is set aside, and a shard that is cut short is named."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from worldclip.errors import DataError, MissingData
from worldclip.loader.images import augment, decode, jitter, normalize, read_images, resize, step_generator

SIZE = 16


def picture(seed: int = 0, size: int = SIZE) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: int) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def write_shard(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_images_of_several_shards_in_their_order(tmp_path: Path) -> None:
    shards = [
        write_shard(tmp_path / "b.tar", {"b1.png": encoded(picture(1)), "b0.png": encoded(picture(2))}),
        write_shard(tmp_path / "empty.tar", {}),
        write_shard(tmp_path / "a.tar", {"a.x.png": encoded(picture(3))}),
    ]
    found = read_images(shards, SIZE)
    assert found.keys == ["b1", "b0", "a"]
    assert (found.pixels.shape, found.pixels.dtype) == ((3, SIZE, SIZE, 3), np.uint8)
    assert all(
        (pixels == np.asarray(picture(seed))).all() for pixels, seed in zip(found.pixels, (1, 2, 3), strict=True)
    )
    assert found.set_aside == {}
    assert read_images([], SIZE).pixels.shape == (0, SIZE, SIZE, 3)


BROKEN = {
    "empty": b"",
    "text": b"no picture at all",
    "cut": encoded(picture(size=64))[:2000],
    "no data": encoded(picture())[:40],
    "jpeg cut": encoded(picture(size=64), "JPEG")[:300],
    "gif cut": encoded(picture(size=64), "GIF")[:300],
    "webp cut": encoded(picture(size=64), "WEBP")[:300],
    "bmp cut": encoded(picture(size=64), "BMP")[:300],
    "tiff cut": encoded(picture(size=64), "TIFF")[:300],
}


def test_a_broken_image_is_set_aside_and_counted(tmp_path: Path) -> None:
    members = {f"{name}.png": data for name, data in BROKEN.items()}
    shard = write_shard(
        tmp_path / "x.tar", {"first.png": encoded(picture(1)), **members, "last.png": encoded(picture(2))}
    )
    found = read_images([shard], SIZE)
    assert found.keys == ["first", "last"]
    assert set(found.set_aside) == set(BROKEN)
    assert all(reason.startswith("unreadable image: ") for reason in found.set_aside.values())


@pytest.mark.filterwarnings("ignore")  # PIL warns of much that it reads anyway.
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "ICO", "PPM"])
def test_damaged_bytes_never_end_in_a_traceback(tmp_path: Path, kind: str) -> None:
    chance = random.Random(kind)
    members = {}
    for number in range(60):
        data = bytearray(encoded(picture(number % 3, size=32), kind))
        for _ in range(chance.randint(1, 8)):
            place = chance.randrange(min(len(data), 200)) if chance.random() < 0.7 else chance.randrange(len(data))
            data[place] = chance.randrange(256)
        members[str(number)] = bytes(data)
    found = read_images([write_shard(tmp_path / "x.tar", members)], SIZE)
    assert len(found.keys) + len(found.set_aside) == 60
    assert found.set_aside


def test_a_picture_that_would_fill_the_memory_is_set_aside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    found = read_images([write_shard(tmp_path / "x.tar", {"big.png": encoded(picture(size=32))})], SIZE)
    assert list(found.set_aside) == ["big"]


def test_truncated_shards_are_named(tmp_path: Path) -> None:
    whole = write_shard(tmp_path / "x.tar", {f"{n}.png": encoded(picture(n)) for n in range(3)}).read_bytes()
    assert len(encoded(picture(0))) > 512
    for length in (0, 100, 600, 1300, 3000):
        (tmp_path / "cut.tar").write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"cut\.tar: is not a whole tar file"):
            read_images([tmp_path / "cut.tar"], SIZE)
    (tmp_path / "cut.tar").write_bytes(b"no tar" * 1000)
    with pytest.raises(DataError, match=r"cut\.tar: is not a whole tar file"):
        read_images([tmp_path / "cut.tar"], SIZE)


def test_compressed_shards(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar.gz", "w:gz") as tar:
        member = tarfile.TarInfo("a.png")
        data = encoded(picture(4))
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    assert read_images([tmp_path / "x.tar.gz"], SIZE).keys == ["a"]
    whole = (tmp_path / "x.tar.gz").read_bytes()
    (tmp_path / "x.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="is not a whole tar file"):
        read_images([tmp_path / "x.tar.gz"], SIZE)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=r"nowhere\.tar: image shard not found"):
        read_images([tmp_path / "nowhere.tar"], SIZE)


def test_folders_in_a_shard_are_no_images(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        member = tarfile.TarInfo("folder")
        member.type = tarfile.DIRTYPE
        tar.addfile(member)
    found = read_images([tmp_path / "x.tar"], SIZE)
    assert (found.keys, found.set_aside) == ([], {})


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "I", "CMYK", "F"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    pixels = decode(encoded(picture().convert(mode), "TIFF" if mode in ("I", "CMYK", "F") else "PNG"), SIZE)
    assert (pixels.shape, pixels.dtype) == ((SIZE, SIZE, 3), np.uint8)


@pytest.mark.parametrize("transparent", [(0, 0, 0, 0), (255, 0, 0, 0)])
def test_what_is_transparent_is_white(transparent: tuple[int, int, int, int]) -> None:
    image = Image.new("RGBA", (SIZE, SIZE), transparent)
    image.putpixel((0, 0), (10, 20, 30, 255))
    image.putpixel((1, 0), (0, 0, 0, 128))
    for data in (encoded(image), encoded(image, "WEBP", lossless=1)):
        pixels = decode(data, SIZE)
        assert pixels[0, 0].tolist() == [10, 20, 30]
        assert pixels[0, 1].tolist() == [127, 127, 127]
        assert (pixels[1:] == 255).all()


def test_a_palette_with_transparency_is_white_there() -> None:
    image = Image.new("P", (SIZE, SIZE), 0)
    image.putpalette([0, 0, 0, 200, 100, 50])
    image.putpixel((0, 0), 1)
    file = io.BytesIO()
    image.save(file, "PNG", transparency=0)
    pixels = decode(file.getvalue(), SIZE)
    assert pixels[0, 0].tolist() == [200, 100, 50]
    assert (pixels[1:] == 255).all()


def test_other_sizes_are_squashed() -> None:
    image = Image.new("RGB", (40, 10), (9, 8, 7))
    assert (decode(encoded(image), SIZE) == [9, 8, 7]).all()
    assert decode(encoded(picture(size=50)), SIZE).shape == (SIZE, SIZE, 3)


def batch(count: int = 4, size: int = 24) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, size, size), np.uint8))


def test_augmentation_is_the_steps_alone() -> None:
    def at(seed: int, step: int) -> torch.Tensor:
        generator = step_generator(seed, step)
        crops = augment(batch(), SIZE, crop_scale=0.5, generator=generator)
        return jitter(crops, 0.3, generator=generator, of=(4, torch.arange(4)))

    assert torch.equal(at(1, 2), at(1, 2))
    assert not torch.equal(at(1, 2), at(1, 3))
    assert not torch.equal(at(1, 2), at(2, 2))
    torch.manual_seed(0)
    before = torch.get_rng_state()
    found = at(0, 0)
    assert torch.equal(torch.get_rng_state(), before)
    assert (found.shape, found.dtype) == ((4, 3, SIZE, SIZE), torch.float32)
    assert ((found >= 0) & (found <= 1)).all()


def test_a_part_of_a_batch_is_changed_as_it_is_in_the_whole() -> None:
    def changed(places: torch.Tensor) -> torch.Tensor:
        of = (6, places)
        crops = augment(batch(6)[places], SIZE, crop_scale=0.5, generator=step_generator(0, 1), of=of)
        return jitter(crops, 0.3, generator=step_generator(0, 1, stream=1), of=of)

    whole = changed(torch.arange(6))
    for places in (torch.tensor([0, 1, 2]), torch.tensor([3, 4, 5]), torch.tensor([5, 5])):
        torch.testing.assert_close(changed(places), whole[places])
    crops = augment(batch(), SIZE, crop_scale=0.5, generator=step_generator(0, 1))
    assert torch.equal(jitter(crops, 0.0, generator=step_generator(0, 1), of=(4, torch.arange(4))), crops)


def test_without_crop_and_jitter_it_is_nearly_the_picture() -> None:
    # A crop of the whole side still has an aspect ratio: squeezed by at most sqrt(5/4).
    plain = torch.full((2, 3, 24, 24), 51, dtype=torch.uint8)
    found = augment(plain, SIZE, crop_scale=1.0, generator=step_generator(0, 0))
    assert torch.allclose(found, torch.tensor(0.2))


def test_crops_lie_inside_of_the_picture_and_reach_its_border() -> None:
    ramp = torch.arange(0, 256, dtype=torch.uint8).repeat(256, 1).repeat(300, 3, 1, 1)
    found = augment(ramp, SIZE, crop_scale=0.3, generator=step_generator(0, 0)) * 255
    widths = (found[:, 0, 0, -1] - found[:, 0, 0, 0]) / 256 * SIZE / (SIZE - 1)
    assert 0.3 / 1.25**0.5 - 0.02 < widths.min() < 0.4
    assert 0.9 < widths.max() <= 1.001
    assert torch.allclose(found[:, 0], found[:, 1])  # all channels are cropped alike


def test_resize_is_what_pillow_does() -> None:
    images = batch(2, 40)
    found = resize(images, SIZE)
    expected = [
        np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        for image in images
    ]
    assert (found.permute(0, 2, 3, 1) * 255 - torch.from_numpy(np.stack(expected)).float()).abs().max() < 1.5


def test_normalize() -> None:
    found = normalize(torch.full((1, 3, 2, 2), 0.5), (0.5, 0.25, 0.0), (1.0, 0.5, 0.25))
    assert found[0, :, 0, 0].tolist() == [0.0, 0.5, 2.0]
