"""Is a model folder still the model that it was? Golden vectors say so, and say what went wrong.

A CLIP whose activation, resize mode, end of text or padding is not the one it was trained with runs without an error
and scores points less. `golden` embeds a few fixed pictures and texts that are sensitive to each of these and keeps
the vectors, as `golden.json` beside the model. `findings` embeds them again, wherever the folder has been copied or
converted to, and where they differ tries the usual mistakes one after another until the vectors agree.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from transformers import AutoConfig

from worldclip import __version__
from worldclip.errors import DataError, MissingData
from worldclip.model.encoder import Encoder
from worldclip.model.sizes import IMAGE_MEAN, IMAGE_STD
from worldclip.model.towers import Changes
from worldclip.storage import digest, read_json, write_json

FILE = "golden.json"

#: Numbers kept of each vector.
KEPT = 64

#: Relative distance of vectors up to which they are the same; up to which the weights may be of lower precision.
SAME, ROUNDED = 0.002, 0.02

#: Short and cut ones, cases, marks, spaces and scripts.
TEXTS = (
    "a photo of a dog",
    "ein Hund",
    "犬の写真",
    "หมา",
    "Two_Red Apples,  (on) a TABLE!",
    "один, два, три; " * 60,
)


def pictures() -> list[Image.Image]:
    """A wide one and a tall one, of fine and coarse patterns: whatever resizes them otherwise changes them."""
    made = []
    for width, height in ((230, 130), (97, 151)):
        y, x = np.mgrid[:height, :width]
        red, green, blue = x * 255 // width, (x * x // 7 + y * y // 5) % 256, 255 * ((x // 3 + y // 2) % 2)
        made.append(Image.fromarray(np.stack([red, green, blue], -1).astype(np.uint8)))
    return made


def golden(encoder: Encoder) -> dict[str, Any]:
    """The vectors of the fixed pictures and texts, as they are kept."""
    return {
        "schema": 1,
        "worldclip": __version__,
        "probes": _probes(),
        "settings": encoder.towers.settings,
        "pictures": _rounded(encoder.images(pictures())),
        "texts": _rounded(encoder.texts(TEXTS)),
    }


def write_golden(encoder: Encoder, path: Path) -> None:
    """Keep the vectors of a model that is known to be right."""
    write_json(path, golden(encoder))


def _rounded(vectors: NDArray[np.float32]) -> list[list[float]]:
    return [[round(float(number), 6) for number in vector[:KEPT]] for vector in vectors]


def _probes() -> str:
    return digest(*TEXTS, *(picture.tobytes() for picture in pictures()))[:16]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """Something about a model folder; `wrong` unless it is only worth knowing."""

    part: str  #: activation, resize, ..., or "vectors"
    text: str
    wrong: bool = True


def findings(encoder: Encoder, kept: Mapping[str, Any] | None = None) -> list[Finding]:
    """What is wrong with a folder: by what is known of its kind, and by golden vectors where there are any.

    `kept` is what `golden` gave for the model as it should be; without it, `golden.json` of the folder is read if it
    is there.

    Raises:
        DataError: the golden vectors are of other probes, or of another number of dimensions.
    """
    found = list(_known_traps(encoder))
    if kept is None and (encoder.folder / FILE).is_file():
        kept = read_json(encoder.folder / FILE)
    if kept is None:
        return found
    if kept.get("schema") != 1 or kept.get("probes") != _probes():
        raise DataError(
            f"{encoder.folder}: its golden vectors were made from other probes "
            f"(worldclip {kept.get('worldclip', 'unknown')}). Make them again: worldclip check MODEL --write."
        )
    for side, variants, embed in (
        ("pictures", _image_variants, lambda each: each.images(pictures())),
        ("texts", _text_variants, lambda each: each.texts(TEXTS)),
    ):
        found += _differences(encoder, side, np.array(kept[side]), variants(encoder), embed)
    return found


def refuse_wrong(encoder: Encoder) -> list[str]:
    """What is worth knowing of a folder.

    Raises:
        DataError: something is wrong with it.
    """
    found = findings(encoder)
    if wrong := [each.text for each in found if each.wrong]:
        raise DataError(
            f"{encoder.folder}: is not the model that it was: {' '.join(wrong)} If this is meant to be so, make the "
            f"golden vectors anew: worldclip check {encoder.folder} --write."
        )
    return [each.text for each in found]


def _differences(
    encoder: Encoder,
    side: str,
    kept: NDArray[np.float64],
    variants: list[tuple[str, str, Changes]],
    embed: Callable[[Encoder], NDArray[np.float32]],
) -> Iterator[Finding]:
    """Nothing where the vectors agree; else the one change that makes them agree, or that none does."""

    def distance(each: Encoder) -> float:
        vectors = embed(each)[:, : kept.shape[1]]
        if vectors.shape != kept.shape:
            raise DataError(
                f"{encoder.folder}: golden vectors of {kept.shape[1]} numbers, the model has {vectors.shape[1]}."
            )
        return float(np.max(np.linalg.norm(vectors - kept, axis=1) / np.linalg.norm(kept, axis=1)))

    apart = distance(encoder)
    if apart <= SAME:
        return
    tried = [(distance(_changed(encoder, changes)), part, text) for part, text, changes in variants]
    best, part, text = min(tried, default=(np.inf, "", ""))
    if best <= max(SAME, apart / 8):
        yield Finding(part=part, text=f"The vectors of {side} differ by {apart:.1%}; {text}, by {best:.2%}.")
    elif apart <= ROUNDED:
        yield Finding(
            part="vectors",
            text=f"The vectors of {side} differ by {apart:.2%}, as from weights of lower precision.",
            wrong=False,
        )
    else:
        yield Finding(
            part="vectors",
            text=f"The vectors of {side} differ by {apart:.1%}, and none of the usual mistakes explains it: other "
            "weights, another tokenizer, or another preprocessing.",
        )


def _changed(encoder: Encoder, changes: Changes) -> Encoder:
    """The same folder, opened otherwise."""
    return Encoder.open(encoder.folder, changes)


def _activation_variants(encoder: Encoder) -> list[tuple[str, str, Changes]]:
    own = encoder.towers.settings.get("activation")
    return [
        ("activation", f"with hidden_act = {other} instead of {own} in config.json", Changes(activation=other))
        for other in ("quick_gelu", "gelu", "gelu_pytorch_tanh")
        if own is not None and other != own
    ]


def _image_variants(encoder: Encoder) -> list[tuple[str, str, Changes]]:
    settings = encoder.towers.settings
    if "resample" not in settings:  # open_clip's transform cannot be taken apart
        return []
    found = _activation_variants(encoder)
    for mode, how in (("shortest", "the short side resized and the middle cropped"), ("squash", "both sides resized")):
        if settings["resize"] != mode != "patches" and settings["pixels"]:
            found.append(("resize", f"with {how} (preprocessor_config.json)", Changes(resize=mode)))  # type: ignore[arg-type]
    for number, name in ((2, "bilinear"), (3, "bicubic"), (0, "nearest")):
        if settings["resample"] != number:
            found.append(("resize", f"with {name} resampling (preprocessor_config.json)", Changes(resample=number)))
    half = (0.5, 0.5, 0.5)
    for mean, std, whose in ((IMAGE_MEAN, IMAGE_STD, "OpenAI CLIP's"), (half, half, "SigLIP's")):
        if not np.allclose(settings["mean"], mean) or not np.allclose(settings["std"], std):
            text = f"with {whose} mean and standard deviation (preprocessor_config.json)"
            found.append(("normalisation", text, Changes(normalise=(mean, std))))
    return found


def _text_variants(encoder: Encoder) -> list[tuple[str, str, Changes]]:
    if "activation" not in encoder.towers.settings:  # neither an ONNX tower can be taken apart
        return []
    found = _activation_variants(encoder)
    own = _text_config(encoder).get("eos_token_id")
    for end in range(4):
        if end != own:
            text = f"with the text read at the first id {end} (eos_token_id of text_config, now {own})"
            found.append(("end of text", text, Changes(end=end)))
    for padded, how in ((True, "padded to the context"), (False, "not padded")):
        found.append(("padding", f"with texts {how}", Changes(padded=padded)))
    for canonical, how in ((True, "in lower case without punctuation"), (False, "as they are")):
        found.append(("text form", f"with texts taken {how}", Changes(canonical=canonical)))
    return found


def _text_config(encoder: Encoder) -> dict[str, Any]:
    config = AutoConfig.from_pretrained(encoder.folder, local_files_only=True)
    return dict(config.text_config.to_dict())


# What is known of a kind, without vectors.

#: Vocabulary of XLM-V, which the published MetaCLIP 2 models read.
_XLM_V = 901_629


def _known_traps(encoder: Encoder) -> Iterator[Finding]:
    """Only where transformers' config tells what the towers do."""
    if "activation" not in encoder.towers.settings:
        return
    config = AutoConfig.from_pretrained(encoder.folder, local_files_only=True)
    yield from _end_of_text(encoder, config)
    yield from _side(encoder, config)
    if config.model_type == "metaclip_2" and config.text_config.vocab_size == _XLM_V:
        vision = config.vision_config
        quick = (vision.hidden_size, vision.patch_size, vision.image_size) == (1280, 14, 224)
        should = "quick_gelu" if quick else "gelu"
        if vision.hidden_act != should:
            yield Finding(
                part="activation",
                text=f"hidden_act is {vision.hidden_act}; the published MetaCLIP 2 of this size was trained with "
                f"{should}.",
                wrong=False,
            )


def _end_of_text(encoder: Encoder, config: Any) -> Iterator[Finding]:
    """The id at which a causal tower reads must stand once in every row, also where the text was cut."""
    if config.model_type not in ("metaclip_2", "clip"):
        return
    end = config.text_config.eos_token_id
    highest = config.model_type == "clip" and end == 2  # the older convention: the highest id ends the text
    where = "the highest id, as CLIP's older config.json says it," if highest else f"the first id {end}"
    for text, ids in zip(TEXTS, encoder.towers.tokenize(TEXTS), strict=True):
        read = max(ids) if highest else end
        if read not in ids or ids.index(read) != len(ids) - 1:
            yield Finding(
                part="end of text",
                text=f"The text tower reads at {where} but {text[:20]!r} becomes {ids[:6]} ... {ids[-3:]}: "
                "the tokenizer or eos_token_id is another model's.",
            )
            return


def _side(encoder: Encoder, config: Any) -> Iterator[Finding]:
    side = getattr(config.vision_config, "image_size", None)
    shape = encoder.towers.prepare(pictures()[0])["pixel_values"].shape
    if side and len(shape) == 3 and tuple(shape[1:]) != (side, side):
        yield Finding(
            part="resize",
            text=f"Pictures become {shape[2]} x {shape[1]} pixels (preprocessor_config.json), the model takes "
            f"{side} x {side}.",
        )


def read_golden(path: Path) -> dict[str, Any]:
    """Golden vectors from another place than the model's folder.

    Raises:
        MissingData: the file is not there.
        DataError: it is none.
    """
    if not path.is_file():
        raise MissingData(f"{path}: not found. Make it with `worldclip check MODEL --write`, where the model is right.")
    kept = read_json(path)
    if not isinstance(kept, dict) or not {"schema", "probes", "pictures", "texts"} <= kept.keys():
        raise DataError(f"{path}: holds no golden vectors. Make it with `worldclip check MODEL --write`.")
    return kept
