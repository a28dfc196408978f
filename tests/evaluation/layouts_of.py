"""Builders: each writes one benchmark's miniature in the layout that its authors publish."""

from __future__ import annotations

import csv
import io
import json
import random
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import brute
import numpy as np
import pyarrow as pa
from miniature import (
    IMAGE,
    Eyes,
    Miniature,
    Truth,
    image_cell,
    npy,
    recoded,
    sentences,
    write,
    write_arrow,
    write_parquet,
    write_shards,
)
from PIL import Image
from tensorboardX.record_writer import RecordWriter

from worldclip.evaluation.suites import datacomp, slip
from worldclip.evaluation.suites.facts import read_facts
from worldclip.evaluation.suites.xm3600 import LOCALES

#: Two templates in place of ImageNet's 80, where those are not what is tested.
FEW_TEMPLATES = ("a photo of a {}.", "art of the {}.")

IMAGENET = read_facts("imagenet_classes.tsv")
WNIDS = [row["wnid"] for row in IMAGENET]
NAMES = [row["name"] for row in IMAGENET]

#: Classes of the miniatures: among them two pairs of one name, `missile` and `sunglasses`.
CLASSES = (1, 10, 2, 657, 744, 836, 837, 999)


def known(pngs: Sequence[bytes], names: Sequence[str]) -> Eyes:
    """A model that knows each name's picture, the names in turn; a name that is known twice is the later's."""
    return Eyes(known={name: pngs[place % len(pngs)] for place, name in enumerate(names)})


def csv_text(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(header)
    writer.writerows(rows)
    return file.getvalue()


def classification(data: Path, eyes: Eyes, truth: Truth, task: str) -> Miniature:
    return Miniature(data, eyes, lambda: {task: truth.scores(eyes)})


# ImageNet and its shifts.


def imagenet_like(
    data: Path,
    pngs: Sequence[bytes],
    task: str,
    home: str,
    folder_of: Callable[[int], str],
    templates: Sequence[str],
    *,
    subset: bool = False,
    each: int = 2,
) -> Miniature:
    """One folder a class, images two a class; the second is another class's picture, so that some are missed."""
    eyes = known(pngs, [NAMES[label] for label in CLASSES])
    names = [NAMES[label] for label in sorted(CLASSES)] if subset else NAMES
    place = {label: sorted(CLASSES).index(label) if subset else label for label in CLASSES}
    pictures, right = [], []
    for number, label in enumerate(CLASSES):
        for copy in range(each):
            picture = recoded(pngs[(number + 3 * copy) % len(pngs)], "JPEG")
            write(data / home / folder_of(label) / f"{task}_{copy}.JPEG", picture)
            pictures.append(picture)
            right.append({place[label]})
    return classification(data, eyes, Truth(pictures, right, sentences([(name,) for name in names], templates)), task)


def objectnet(data: Path, pngs: Sequence[bytes], templates: Sequence[str]) -> Miniature:
    labels = {"air_freshener": "Air freshener", "alarm_clock": "Alarm clock", "tv": "TV", "zz_mug": "Coffee mug"}
    classes = {"Coffee mug": [504], "Alarm clock": [409, 530], "TV": [851]}
    # ImageNet's descriptions are in an order of their own (the 2012 challenge's), so that a table tells the classes.
    lines = [*range(500, 1000), *range(500)]
    described = [f"{NAMES[label]}, class {label}" for label in lines]
    shared = {name: "; ".join(f"{NAMES[label]}, class {label}" for label in own) for name, own in classes.items()}
    root = data / "objectnet" / "objectnet-1.0"
    write(root / "mappings" / "imagenet_to_label_2012_v2", "\n".join(described) + "\n")
    numbers = {str(label): line for line, label in enumerate(lines)}
    write(root / "mappings" / "pytorch_to_imagenet_2012_id.json", json.dumps(numbers))
    write(root / "mappings" / "folder_to_objectnet_label.json", json.dumps(labels))
    write(root / "mappings" / "objectnet_to_imagenet_1k.json", json.dumps(shared))
    names = ["alarm clock", "tv", "coffee mug"]  # By folder; `air_freshener` is none of ImageNet's.
    eyes = known(pngs, [*names, *(NAMES[label] for label in (409, 851, 530, 504))])
    pictures, right = [], []
    for number, (folder, label) in enumerate(labels.items()):
        for copy in range(2):
            picture = pngs[(number + copy - 1) % len(pngs)]
            write(root / "images" / folder / f"{copy}.png", picture)
            if label in shared:
                pictures.append(picture)
                right.append({names.index(label.lower())})
    truth = Truth(pictures, right, sentences([(n,) for n in names], templates))

    def expected() -> dict[str, dict[str, float]]:
        every = [
            brute.ensemble([eyes.read(text) for text in each]) for each in sentences([(n,) for n in NAMES], templates)
        ]
        hits = []
        for picture, own in zip(pictures, right, strict=True):
            image = eyes.look(picture)
            logits = [brute.dot(image, each) for each in every]
            projected = [max(logits[label] for label in classes[name]) for name in ("Alarm clock", "TV", "Coffee mug")]
            hits.append(projected.index(max(projected)) in own)
        return {"objectnet": truth.scores(eyes), "objectnet_projected": {"acc1": 100 * sum(hits) / len(hits)}}

    return Miniature(data, eyes, expected)


# SLIP's 26.

#: Folders (or labels, or numbers) of some classes of each task, and the names that they mean, in an order of their own.
SLIP: dict[str, tuple[dict[str, int], list[str | list[str]]]] = {
    "Food101": ({"apple_pie": 0, "pho": 2, "baby_back_ribs": 1}, ["apple pie", "baby back ribs", "pho"]),
    "CUB200": (
        {"001.Black_footed_Albatross": 0, "002.Laysan_Albatross": 1, "010.Red_winged_Blackbird": 9},
        [f"bird {number}" for number in range(1, 11)],
    ),
    "SUN397": ({"/a/apse/indoor": 1, "/a/abbey": 0, "2": 2}, ["abbey", "indoor apse", "yard"]),
    "StanfordCars": (
        {"Acura RL Sedan 2012": 1, "AM General Hummer SUV 2000": 0},
        ["AM General Hummer SUV 2000", "Acura RL Sedan 2012"],
    ),
    "FGVCAircraft": ({"BAE-125": 2, "BAE 146-200": 0, "F-16A-B": 1}, ["BAE 146-200", "F-16A/B", "BAE-125"]),
    "DescribableTextures": ({"polka-dotted": 1, "banded": 0}, ["banded", "polka-dotted"]),
    "OxfordPets": (
        {"Abyssinian": 1, "american_bulldog": 0, "Birman": 2},
        ["american bulldog", "Abyssinian", "Birman"],  # Not the order that folders sort in.
    ),
    "Caltech101": (
        {"BACKGROUND_Google": 0, "Faces": 1, "Faces_easy": 2, "accordion": 3, "crocodile_head": 4},
        ["background", "off-center face", "centered face", "accordion", "head of a  crocodile"],
    ),
    "Flowers102": ({"1": 0, "2": 1, "10": 9, "12": 11}, [f"flower {number}" for number in range(1, 13)]),
    "FacialEmotionRecognition2013": (
        {"4": 5, "fear": 2, "happy": 3},
        [
            "angry",
            "disgusted",
            "fearful",
            ["happy", "smiling"],
            ["neutral", "bored"],
            ["sad", "depressed"],
            "surprised",
        ],
    ),
    "EuroSAT": (
        {"AnnualCrop": 0, "HerbaceousVegetation": 2, "SeaLake": 9},
        [
            *("annual crop land", "forest", "brushland or shrubland", "highway or road", "industrial buildings"),
            *("pasture land", "permanent crop land", "residential buildings", "river", "lake or sea"),
        ],
    ),
    "RESISC45": ({"baseball_diamond": 1, "airplane": 0}, ["airplane", "baseball diamond"]),
    "GTSRB": ({"00000": 0, "00002": 2, "10": 10}, [f"sign {number}" for number in range(11)]),
    "KITTI": (
        {"above_20": 2, "below_20": 1, "below_8": 0, "no_vehicle": 3},
        [
            "a photo i took of a car on my left or right side.",
            "a photo i took with a car nearby.",
            "a photo i took with a car in the distance.",
            "a photo i took with no car.",
        ],
    ),
    "Country211": ({"AE": 1, "ZW": 210, "AD": 0}, [f"country {code}" for code in slip.COUNTRIES]),
    "PatchCamelyon": ({"0": 0, "1": 1}, ["lymph node", "lymph node containing metastatic tumor tissue"]),
    "UCF101": (
        {"HandstandPushups": 1, "ApplyEyeMakeup": 0, "YoYo": 2},
        ["Apply Eye Makeup", "Hand Stand Pushups", "Yo Yo"],
    ),
    "Kinetics700": (
        {
            "curling (sport)": 1,
            "curling hair": 0,
            "curling eyelashes": 2,
            "hugging": 3,
            "hugging (not baby)": 4,
            "x": 5,
        },
        ["curling hair", "curling (sport)", "curling eyelashes", "hugging", "hugging (not baby)", "x"],
    ),
    "CLEVRCounts": ({"count_10": 0, "count_3": 1, "count_9": 7}, ["10", "3", "4", "5", "6", "7", "8", "9"]),
    "HatefulMemes": ({"0": 0, "1": 1}, ["meme", "hatespeech meme"]),
    "SST2": ({"positive": 1, "negative": 0}, ["negative", "positive"]),
}

#: The data sets' own order of classes, of those that come as arrays.
ARRAYS = {
    "CIFAR10": ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"],
    "CIFAR100": [f"thing {number}" for number in range(100)],
    "MNIST": [str(number) for number in range(10)],
    "STL10": ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"],
}

SLIP_TEMPLATES = {"KITTI": ["{}"], "FacialEmotionRecognition2013": ["a photo of a {} looking face.", "they look {}."]}


def slip_task(data: Path, pngs: Sequence[bytes], task: slip.Task, *, pickled: bool = False) -> Miniature:
    """A task of SLIP on its own files; `labels.json` and `templates.json` by MetaCLIP's keys.

    CIFAR in its Python version if it is to be pickled.
    """
    templates = SLIP_TEMPLATES.get(task.key, ["a photo of a {}.", "a {} {it is}."])
    if task.key in ARRAYS:
        names: list[str | list[str]] = [*ARRAYS[task.key]]
        labels = list(range(0, len(names), max(1, len(names) // 10))) * 2
        pictures = _write_array(data / "slip" / task.slip_key, task.key, pngs, labels, pickled=pickled)
    else:
        folders, names = SLIP[task.key]
        labels, pictures = [], []
        listed: list[tuple[str, str]] = []
        for number, (folder, label) in enumerate(folders.items()):
            for copy in range(3):
                picture = pngs[(number + 2 * copy) % len(pngs)]
                safe = folder.replace("/", "-")
                home = "images" if task.layout == "list" else task.split
                write(data / "slip" / task.slip_key / home / safe / f"{copy}.png", picture)
                listed.append((f"images/{safe}/{copy}.png", folder))
                labels.append(label)
                pictures.append(picture)
        if task.layout == "list":
            for kind, column in (("images", 0), ("labels", 1)):
                np.save(data / "slip" / task.slip_key / f"{task.split}_{kind}.npy", [row[column] for row in listed])
    write(data / "slip" / "labels.json", json.dumps({task.key: names}))
    write(data / "slip" / "templates.json", json.dumps({task.key: templates}))
    lists = [[name] if isinstance(name, str) else name for name in names]
    eyes = known(pngs, [lists[label][-1] for label in dict.fromkeys(labels)])
    truth = Truth(pictures, [{label} for label in labels], sentences(lists, templates))
    return classification(data, eyes, truth, f"slip/{task.key}")


def _write_array(
    folder: Path, key: str, pngs: Sequence[bytes], labels: Sequence[int], *, pickled: bool = False
) -> list[bytes]:
    """Pixels as the data sets' authors lay them out; gives the same images as PNG."""
    side, mode = {"MNIST": (28, "L"), "STL10": (96, "RGB")}.get(key, (32, "RGB"))
    images = [
        Image.open(io.BytesIO(pngs[row % len(pngs)])).convert(mode).resize((side, side)) for row in range(len(labels))
    ]
    arrays = [np.asarray(image) for image in images]
    if key == "MNIST":
        header = struct.pack(">IIII", 0x803, len(labels), side, side)
        write(folder / "MNIST/raw/t10k-images-idx3-ubyte", header + b"".join(map(np.ndarray.tobytes, arrays)))
        write(folder / "MNIST/raw/t10k-labels-idx1-ubyte", struct.pack(">II", 0x801, len(labels)) + bytes(labels))
    elif key == "STL10":
        write(folder / "stl10_binary/test_X.bin", b"".join(array.transpose(2, 1, 0).tobytes() for array in arrays))
        write(folder / "stl10_binary/test_y.bin", bytes(label + 1 for label in labels))
    elif pickled:
        rows = np.stack([array.transpose(2, 0, 1).ravel() for array in arrays])
        own = [(b"fine_labels" if key == "CIFAR100" else b"labels", labels), (b"data", rows)]
        if key == "CIFAR100":
            own.insert(0, (b"coarse_labels", [7] * len(labels)))
        write(
            folder / ("cifar-100-python/test" if key == "CIFAR100" else "cifar-10-batches-py/test_batch"), pickle2(own)
        )
    else:
        name = "cifar-100-binary/test.bin" if key == "CIFAR100" else "cifar-10-batches-bin/test_batch.bin"
        coarse = b"\x07" if key == "CIFAR100" else b""
        planes = [array.transpose(2, 0, 1).tobytes() for array in arrays]
        write(folder / name, b"".join(coarse + bytes([at]) + each for at, each in zip(labels, planes, strict=True)))
    found = []
    for image in images:
        file = io.BytesIO()
        image.save(file, "PNG")
        found.append(file.getvalue())
    return found


def pickle2(entries: Sequence[tuple[bytes, Sequence[int] | np.ndarray]]) -> bytes:
    """A dictionary of lists of small numbers and arrays of bytes, as Python 2 pickled it (protocol 2)."""

    def text(value: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(value)) + value

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    def array(value: np.ndarray) -> bytes:
        made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + number(0) + b"\x85" + text(b"b") + b"\x87R"
        kind = b"cnumpy\ndtype\n" + text(b"u1") + number(0) + number(1) + b"\x87R"
        kind += b"(" + number(3) + text(b"|") + b"NNN" + number(-1) * 2 + number(0) + b"tb"
        shape = b"(" + b"".join(map(number, value.shape)) + b"t"
        return made + b"(" + number(1) + shape + kind + b"\x89" + text(value.tobytes()) + b"tb"

    found = b"\x80\x02}("
    for key, value in entries:
        numbers = b"](" + b"".join(map(number, value)) + b"e" if not isinstance(value, np.ndarray) else array(value)
        found += text(key) + numbers
    return found + b"u."


# WebDatasets of CLIP_benchmark and DataComp.


def webdataset(data: Path, pngs: Sequence[bytes], folder: str, task: str, key: str, classes: int) -> Miniature:
    """A classification task; metadata where it has groups. Images of every suffix, shards enough to be missorted."""
    names = [f"class {'abcdefghijklmnop'[number]}" for number in range(classes)]
    templates = ["a photo of a {c}.", "a {c} in {braces}."]
    eyes = known(pngs, names)
    picker = random.Random(key)
    samples, pictures, right, groups = [], [], [], []
    for row in range(22):
        label = picker.randrange(classes - 1 if classes > 2 else classes)  # The last of many has no image.
        suffix = ("jpg", "png", "webp")[row % 3]
        # The picture of its class, but of another one every third time.
        picture = recoded(pngs[(label + (row % 3 == 0) * min(2, classes - 1)) % len(pngs)], suffix)
        sample = {suffix: picture, "cls": str(label).encode()}
        group = picker.choice((0, 1, 3))
        if key == "wilds/fmow" and not row:
            group = 5  # One image of the region that has but four, and it is missed.
        if key in datacomp.GROUPS:
            sample["npy"] = npy([group, 7, label])
            groups.append(datacomp.FMOW_REGIONS[group] if key == "wilds/fmow" else str(group))
        samples.append(sample)
        pictures.append(picture)
        right.append({label})
    texts = {"classnames.txt": "\n".join(names), "zeroshot_classification_templates.txt": "\n".join(templates) + "\n"}
    write_shards(data / folder, samples, shards=11, texts=texts)
    truth = Truth(pictures, right, sentences([(name,) for name in names], templates, "{c}"), groups or None)

    def expected() -> dict[str, dict[str, float]]:
        found = truth.scores(eyes)
        if key == "wilds/fmow":
            kept = [row for row, group in enumerate(groups) if group != "Other"]
            less = Truth(
                [pictures[row] for row in kept],
                [right[row] for row in kept],
                truth.sentences,
                [groups[row] for row in kept],
            )
            found |= {f"{name}_no_other": value for name, value in less.scores(eyes).items() if "worst" in name}
        return {task: found}

    return Miniature(data, eyes, expected)


def captioned(pngs: Sequence[bytes], words: Sequence[str], counts: Sequence[int]) -> list[list[str]]:
    """Captions of each picture: most tell its word, some another's, and some are the same for two pictures."""
    found = []
    for row, count in enumerate(counts):
        own = [f"a {words[row]} number {copy}" for copy in range(count)]
        if row % 3 == 1 and own:
            own[-1] = f"a {words[(row + 1) % len(words)]} at rest"
        if row % 4 == 0 and own:
            own[0] = "the same caption"
        found.append(own)
    return found


def retrieved(eyes: Eyes, pictures: Sequence[bytes], languages: Sequence[Sequence[Sequence[str]]]) -> dict[str, float]:
    images = [eyes.look(picture) for picture in pictures]
    each = [brute.recalls(images, [[eyes.read(text) for text in own] for own in captions]) for captions in languages]
    return brute.mean_recalls(each)


def caption_task(data: Path, pngs: Sequence[bytes], task: datacomp.Task, *, as_shards: bool) -> Miniature:
    words = [f"word {letter}" for letter in "abcdefghijkl"]
    eyes = known(pngs, words)
    pictures = [recoded(pngs[row], "jpg") for row in range(12)]
    captions = captioned(pngs, words, [5] * 12)
    captions[3][2] = "a line\u2028that goes on"  # One caption, not two.
    if as_shards:
        samples = [{"jpg": p, "txt": "\n".join(c).encode()} for p, c in zip(pictures, captions, strict=True)]
        folder = "wds_flickr30k" if task.name == "Flickr" else "wds_mscoco_captions_test"
        write_shards(data / folder, samples, texts={"dataset_type.txt": "retrieval"})
    else:
        folder = task.key.rpartition("/")[2]
        columns = {"image": [image_cell(picture) for picture in pictures], "caption": captions}
        write_parquet(data / folder / "test-00000-of-00001.parquet", columns, {"image": IMAGE})
    return Miniature(data, eyes, lambda: {task.record: retrieved(eyes, pictures, [captions])})


def winogavil(data: Path, pngs: Sequence[bytes], task: datacomp.Task) -> Miniature:
    """Three instances of ten or twelve candidates, and one of five, which does not count."""
    names = [f"thing {letter}" for letter in "abcdefghijklmnopqrst"]
    cues = ["Owl thing b", "heat thing d", "Apple", "five thing a"]
    prompts = ["An owl thing b", "A heat thing d", "An apple", "A five thing a"]
    eyes = Eyes(known=dict(zip(names, pngs, strict=False)))
    sizes, picker = (10, 12, 12, 5), random.Random(1)
    candidates = [picker.sample(range(20), size) for size in sizes]
    true = [[*{*picker.sample(each, 3), each[0]}] for each in candidates]
    columns = {
        "cue": cues,
        "candidates": [[names[at] for at in each] for each in candidates],
        "candidate_images": [[image_cell(pngs[at]) for at in each] for each in candidates],
        "associations": [[names[at] for at in each] for each in true],
    }
    write_arrow(data / "winogavil" / "test", columns, {"candidate_images": pa.list_(IMAGE)})

    def expected() -> dict[str, dict[str, float]]:
        scores = []
        for prompt, each, own in zip(prompts, candidates, true, strict=True):
            ranked = brute.order(eyes.read(prompt), [eyes.look(pngs[at]) for at in each])
            chosen = {each[place] for place in ranked[: len(own)]}
            scores.append(100 * len(chosen & set(own)) / len(chosen | set(own)))
        values = {"jaccard_10_12": sum(scores[:3]) / 3, "jaccard_5_6": scores[3], "jaccard": sum(scores) / 4}
        return {task.record: values}

    return Miniature(data, eyes, expected)


# Many languages.


def babel(data: Path, pngs: Sequence[bytes]) -> Miniature:
    """EN, which is scored by other names than its own; DE with prompts; FY without; LO, whose two names are equal."""
    imagenet_like(data, pngs, "imagenet", "imagenet/val", WNIDS.__getitem__, FEW_TEMPLATES)
    languages = {
        "DE": [[1, 2, 10, 657], ["Goldfisch", "Hai", "Rotkehlchen", "Rakete"]],
        "EN": [[1, 2], ["wrong goldfish", "wrong shark"]],
        "FY": [[1, 2, 999], ["Fisk", "Haai", "Papier"]],
        "LO": [[1, 10], ["pa", "pa"]],
    }
    prompts = {"DE": ["ein Foto von {}.", "das {}."], "EN": [" spaced { {} }"], "LO": ["hup {}", "{} dii"]}
    home = data / "babel-imagenet"
    write(home / "babel_imagenet-298.json", json.dumps(languages))
    write(home / "babel_imagenet.json", json.dumps({code: languages[code] for code in ("DE", "EN", "FY")}))
    write(home / "nllb_dist13b_prompts.json", json.dumps(prompts))
    eyes = known(pngs, [NAMES[label] for label in CLASSES])
    for words, label in (("Goldfisch", 1), ("Rakete", 657), ("Haai", 2), ("Papier", 999), ("pa", 10)):
        eyes.known[words] = pngs[CLASSES.index(label)]

    def accuracy(code: str, templates: Sequence[str]) -> float:
        classes, names = (range(1000), NAMES) if code == "EN" else languages[code]
        own = [label for label in CLASSES if label in classes for _ in range(2)]
        numbers = [(CLASSES.index(label) + 3 * copy) for label in CLASSES if label in classes for copy in range(2)]
        pictures = [recoded(pngs[number], "JPEG") for number in numbers]
        truth = Truth(
            pictures, [{[*classes].index(label)} for label in own], sentences([(n,) for n in names], templates)
        )
        return truth.scores(eyes)["acc1"]

    def expected() -> dict[str, dict[str, float]]:
        prompted = {
            "DE": accuracy("DE", prompts["DE"]),
            "EN": accuracy("EN", FEW_TEMPLATES),
            "FY": accuracy("FY", ["{}"]),
            "LO": accuracy("LO", prompts["LO"]),
        }
        bare = [accuracy(code, ["{}"]) for code in languages]
        means = {
            "babel_90": ("DE", "EN", "LO"),
            "babel_90_no_en": ("DE", "LO"),
            "babel_93": ("DE", "EN", "FY"),
            "babel_298_fallback": ("DE", "EN", "FY", "LO"),
        }
        found = {name: sum(prompted[code] for code in own) / len(own) for name, own in means.items()}
        return {"babel-imagenet": {**found, "babel_298_label_only": sum(bare) / len(bare)}}

    return Miniature(data, eyes, expected, {"prompted": lambda: accuracy("FY", ["{}"])})


def xm3600(data: Path, pngs: Sequence[bytes], layout: str = "jsonl") -> Miniature:
    """All 36 locales, twelve images, none to three captions each."""
    words = [f"word {letter}" for letter in "abcdefghijkl"]
    eyes = known(pngs, words)
    pictures = [recoded(pngs[row], "jpg") for row in range(12)]
    keys = [f"{row:016x}" for row in range(12)]
    picker = random.Random(3)
    captions = {code: captioned(pngs, words, [picker.choice((1, 2, 3)) for _ in keys]) for code in LOCALES}
    captions["quz"][4] = []  # An image without a caption in this locale only distracts.
    if layout == "json":
        lists = {"images": [f"{key}.jpg" for key in keys], "captions": captions}
        write(data / "xm3600" / "xm3600.json", json.dumps(lists))
    rows = [
        {
            "image/key": key,
            "image/locale": LOCALES[number % 3],
            **{code: {"caption": captions[code][number], "caption/tokenized": ["no"]} for code in LOCALES},
        }
        for number, key in enumerate(keys)
    ]
    order = random.Random(4)
    for code in LOCALES if layout in ("tfds", "splits") else ():  # Each locale has an order of its own.
        mixed = order.sample(range(12), 12)
        if layout == "tfds":
            write_tfds(data / "xm3600" / "1.0.0", code, [(keys[at], pictures[at], captions[code][at]) for at in mixed])
            continue
        columns = {
            "image_id": [keys[at] for at in mixed],
            "image_locale": [LOCALES[at % 3] for at in mixed],
            "captions": [captions[code][at] for at in mixed],
            "captions_tokenized": [["no"]] * 12,
            "image": [image_cell(pictures[at]) for at in mixed],
        }
        types = {"image": IMAGE, "captions": pa.list_(pa.string())}
        write_parquet(data / "xm3600" / "data" / f"{code}-00000-of-00001.parquet", columns, types)
    if layout == "jsonl":
        write(data / "xm3600" / "captions.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    if layout == "parquet":
        columns = {name: [row[name] for row in rows] for name in rows[0]} | {"image": [*map(image_cell, pictures)]}
        write_parquet(data / "xm3600" / "data" / "test-0.parquet", columns, {"image": IMAGE})
    if layout in ("jsonl", "json"):
        for key, picture in zip(keys, pictures, strict=True):
            write(data / "xm3600" / "images" / f"{key}.jpg", picture)

    def expected() -> dict[str, dict[str, float]]:
        first = [[own[:1] for own in captions[code]] for code in LOCALES]
        return {
            "xm3600": retrieved(eyes, pictures, [*captions.values()]),
            "xm3600_first_caption": retrieved(eyes, pictures, first),
        }

    return Miniature(data, eyes, expected, {"captions": captions, "pictures": pictures})


def write_tfds(folder: Path, code: str, examples: Sequence[tuple[str, bytes, Sequence[str]]]) -> None:
    """A split of TensorFlow Datasets in two files: each image under its key and the locale's code, JPEG as it is."""

    def message(number: int, content: bytes) -> bytes:
        size, digits = len(content), []
        while size > 127:
            digits.append(size % 128 + 128)
            size //= 128
        return bytes([number * 8 + 2, *digits, size]) + content

    folder.mkdir(parents=True, exist_ok=True)
    for part in range(2):
        file = RecordWriter(str(folder / f"xm3600-{code}.tfrecord-{part:05d}-of-00002"))
        for key, image, own in examples[part * 6 :][:6]:
            features = {
                "captions": [text.encode() for text in own],
                "image": [image],
                "image/id": [f"{key}_{code}".encode()],
                "language": [code.encode()],
            }
            entries = b""
            for name, values in features.items():
                listed = b"".join(message(1, value) for value in values)
                entries += message(1, message(1, name.encode()) + message(2, message(1, listed)))
            file.write(message(1, entries))
        file.close()


def cvqa(data: Path, pngs: Sequence[bytes], *, layout: str = "parquet") -> Miniature:
    """Nine rows in three subsets; one question is so long that its four texts are cut to the same."""
    words = [f"word {letter}" for letter in "abcdefghi"]
    eyes = known(pngs, words)
    picker = random.Random(5)
    rows, pictures = [], []
    for row in range(9):
        label = picker.randrange(4)
        options = [f"{words[(row + 1 + at) % 9]}" for at in range(4)]
        options[label] = words[row] if row % 3 else options[label]
        question = "what is this?" if row != 4 else "what is this? " * 8
        image = Image.open(io.BytesIO(pngs[row]))
        file = io.BytesIO()
        (image.quantize(64) if row % 2 else image.convert("RGBA")).save(file, "PNG")
        pictures.append(file.getvalue())
        rows.append(
            {
                "image": image_cell(file.getvalue()),
                "ID": f"q_{row}",
                "Subset": str((("Korean", "South Korea"), ("Spanish", "Chile"), ("Spanish", "Mexico"))[row % 3]),
                "Question": f"que {question}",
                "Translated Question": question,
                "Options": [f"un {option}" for option in options],
                "Translated Options": options[::-1] if row == 5 else options,
                "Label": label,
            }
        )
    if layout == "old":  # Options as the text of a list.
        for each in rows:
            each["Options"], each["Translated Options"] = str(each["Options"]), str(each["Translated Options"])
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    if layout == "arrow":
        write_arrow(data / "cvqa" / "test", columns, {"image": IMAGE})
    else:
        write_parquet(data / "cvqa" / "data" / "test-00000-of-00001.parquet", columns, {"image": IMAGE})

    def expected() -> dict[str, dict[str, float]]:
        found = {}
        for name, (asked, offered) in {
            "local": ("Question", "Options"),
            "en": ("Translated " + "Question", "Translated Options"),
        }.items():
            hits = []
            for row, picture in zip(rows, pictures, strict=True):
                options = row[offered] if isinstance(row[offered], list) else json.loads(row[offered].replace("'", '"'))
                texts = [eyes.read(f"{row[asked]} {option}") for option in options]
                hits.append(brute.order(eyes.look(picture), texts)[0] == row["Label"])
            subsets = [
                [hit for hit, row in zip(hits, rows, strict=True) if row["Subset"] == each]
                for each in {row["Subset"] for row in rows}
            ]
            found |= {name: 100 * sum(hits) / 9, f"{name}_macro": 100 * sum(sum(s) / len(s) for s in subsets) / 3}
        return {"cvqa": found}

    return Miniature(data, eyes, expected)


FLORES = ("eng_Latn", "swh_Latn", "zho_Hans")


def flores(data: Path, pngs: Sequence[bytes], task: str) -> Miniature:
    """Flickr30k-200 (images in a table) or XTD-200 (images in COCO's folder), three languages, twelve images."""
    words = [f"word {letter}" for letter in "abcdefghijkl"]
    eyes = known(pngs, words)
    pictures = [recoded(pngs[row], "jpg") for row in range(12)]
    numbers = [row * 5 % 12 for row in range(12)]  # Not in the order that the files sort in.
    names = [f"COCO_train2014_{at:012d}.jpg" if task == "xtd200" else f"{at * 7919}.jpg" for at in numbers]
    captions = {
        code: [f"{code} {words[(row + (row % (2 + at) == 1)) % 12]}" for row in range(12)]
        for at, code in enumerate(FLORES)
    }
    for code, lines in captions.items():
        write(data / task / f"{code}.txt", "\n".join(lines))
    write(data / task / ("test_image_names.txt" if task == "xtd200" else "filenames.txt"), "\n".join(names) + "\n")
    order = sorted(range(12), key=lambda row: (row * 5) % 12)  # The copy of the images has an order of its own.
    if task == "xtd200":
        for row in order:
            write(data / "coco" / "train2014" / names[row], pictures[row])
    else:
        columns = {
            "image": [image_cell(pictures[row]) for row in order],
            "filename": [names[row] for row in order],
            "split": ["test"] * 12,
        }
        write_parquet(data / "flickr30k" / "data" / "test-0.parquet", columns, {"image": IMAGE})
    languages = [[[line] for line in lines] for lines in captions.values()]
    return Miniature(data, eyes, lambda: {task: retrieved(eyes, pictures, languages)}, {"names": names})


def xtd10(data: Path, pngs: Sequence[bytes]) -> Miniature:
    """Eleven languages in three folders; most files with CRLF and no final newline."""
    words = [f"word {letter}" for letter in "abcdefghijkl"]
    eyes = known(pngs, words)
    pictures = [recoded(pngs[row], "jpg") for row in range(12)]
    names = [f"COCO_train2014_{row:012d}.jpg" for row in range(12)]
    homes = {"de": "MIC", "fr": "MIC", "jp": "STAIR"}
    languages = []
    for at, code in enumerate(("de", "en", "es", "fr", "it", "jp", "ko", "pl", "ru", "tr", "zh")):
        lines = [f"{code} {words[(row + (row % (2 + at % 3) == 1)) % 12]}" for row in range(12)]
        text = "\n".join(lines) + "\n" if code in ("en", "de", "fr", "jp") else "\r\n".join(lines)
        write(data / "xtd10" / homes.get(code, "XTD10") / f"test_1kcaptions_{code}.txt", text)
        languages.append([[line] for line in lines])
    write(data / "xtd10" / "XTD10" / "test_image_names.txt", "\n".join(names))
    for name, picture in zip(names, pictures, strict=True):
        write(data / "coco" / "train2014" / name, picture)
    return Miniature(data, eyes, lambda: {"xtd10": retrieved(eyes, pictures, languages)})


# Geography.

COUNTRIES = ("ke", "fr", "in", "cl")


def dollar_street(data: Path, pngs: Sequence[bytes], templates: Sequence[str]) -> Miniature:
    """Both parts; some images have several right classes."""
    home = data / "dollar-street" / "dataset_dollarstreet"
    eyes = known(pngs, [NAMES[label] for label in CLASSES])
    header = ("imageRelPath", "imagenet_sysnet_id", "imagenet_synonyms", "country.id", "country.name", "region.id")
    pictures, right, regions, countries = [], [], [], []
    for part, count in (("train", 24), ("test", 12)):
        rows = []
        for row in range(count):
            own = [CLASSES[row % 8]] if row % 3 else [CLASSES[(row + 3) % 8], CLASSES[row % 8]]
            # Each of its own quality, so that no two images of different places are equal.
            picture = recoded(pngs[(row + (row % 5 == 4)) % 8], "jpg", 40 + row + (part == "test") * 24)
            write(home / "assets" / part / f"{row}.jpg", picture)
            country = COUNTRIES[row % 4]
            rows.append(
                (f"assets/{part}/{row}.jpg", str(own), "['x']", country, country.upper(), "afeuasam"[row % 4 * 2 :][:2])
            )
            pictures.append(picture)
            right.append(set(own))
            regions.append(rows[-1][-1])
            countries.append(country)
        write(home / f"images_v2_imagenet_{part}.csv", csv_text(header, rows))
    truth = Truth(pictures, right, sentences([(name,) for name in NAMES], templates), regions)

    def expected() -> dict[str, dict[str, float]]:
        found = truth.scores(eyes)
        return {
            "dollar-street": {
                name: value for name, value in found.items() if name not in ("mean_per_class", "macro_f1")
            }
        }

    return Miniature(data, eyes, expected, {"pictures": pictures, "places": countries, "train": 24})


def geode(data: Path, pngs: Sequence[bytes], templates: Sequence[str], *, clean: bool = False) -> Miniature:
    """Objects in the order that they are met, with underscores."""
    objects = ["waste_container", "bag", "dog", "light_switch", "hat", "stove"]
    names = [name.replace("_", " ") for name in objects] if clean else objects
    eyes = known(pngs, names)
    rows, pictures, right = [], [], []
    for row in range(30):
        at = row % 6
        picture = recoded(pngs[(at + (row % 4 == 3)) % 6], "jpg", 40 + row)
        write(data / "geode" / "images" / f"{row}.jpg", picture)
        rows.append((objects[at], ("Africa", "WestAsia", "Europe")[row % 3], COUNTRIES[row % 4], f"{row}.jpg"))
        pictures.append(picture)
        right.append({at})
    write(data / "geode" / "index.csv", csv_text(("object", "region", "ip_country", "file_path"), rows))
    groups = [row[1] for row in rows]
    truth = Truth(pictures, right, sentences([(name,) for name in names], templates), groups)
    parts = {"pictures": pictures, "region": groups, "ip_country": [row[2] for row in rows]}
    return Miniature(data, eyes, lambda: {"geode": truth.scores(eyes)}, parts)


def gldv2(data: Path, pngs: Sequence[bytes], *, nested: bool = True) -> Miniature:
    """Queries with a majority, with a tie, one that is ignored, and two landmarks of one name."""
    home = data / "gldv2"
    categories = {
        "7": "http://commons.wikimedia.org/wiki/Category:Eiffel_Tower",
        "3": 'http://commons.wikimedia.org/wiki/Category:Kulturpark_"Ost"',
        "9": "http://commons.wikimedia.org/wiki/Category:Old_Bridge",
        "4": "http://commons.wikimedia.org/wiki/Category:Old_Bridge",
        "5": "http://commons.wikimedia.org/wiki/Category:Fort:Red_Fort",
        "8": "http://commons.wikimedia.org/wiki/Category:Never_met",
    }
    queries = [
        ("abc0", "i1 i2 i3", "Public"),  # 3, 7, 7: the most frequent is 7
        ("abd1", "i1 i2", "Private"),  # 3, 7: of equals the first, 3
        ("xyz2", "i4", "Ignored"),
        ("bcd3", "i5", "Public"),  # 9
        ("bce4", "i6", "Private"),  # 4, whose name is 9's
        ("cde5", "i7", "Public"),  # 5
    ]
    landmark = {"i1": "3", "i2": "7", "i3": "7", "i4": "8", "i5": "9", "i6": "4", "i7": "5"}
    names = ['Kulturpark "Ost', "Eiffel Tower", "Old Bridge", "Old Bridge", "Red Fort"]  # In the order they are met.
    labels = {"abc0": 1, "abd1": 0, "bcd3": 2, "bce4": 2, "cde5": 4}
    write(home / "retrieval_solution_v2.1.csv", csv_text(("id", "images", "Usage"), queries))
    write(home / "index_image_to_landmark.csv", csv_text(("id", "landmark_id"), [*landmark.items()]))
    write(home / "index_label_to_category.csv", csv_text(("landmark_id", "category"), [*categories.items()]))
    eyes = Eyes(known=dict(zip(dict.fromkeys(names), pngs, strict=False)))
    shown = {"abc0": 1, "abd1": 1, "bcd3": 2, "bce4": 2, "cde5": 3}
    pictures = [recoded(pngs[shown[query]], "jpg") for query in labels]
    for query, picture in zip(labels, pictures, strict=True):
        write(home / "test" / ("/".join(query[:3]) if nested else "") / f"{query}.jpg", picture)
    truth = Truth(pictures, [{label} for label in labels.values()], [[name] for name in names])
    return classification(data, eyes, truth, "gldv2")


def pairs(data: Path, pngs: Sequence[bytes]) -> Miniature:
    """Pairs of images and captions for alignment and uniformity."""
    words = [f"word {letter}" for letter in "abcdefghijkl"]
    eyes = known(pngs, words)
    pictures = [recoded(pngs[row], "jpg") for row in range(12)]
    captions = captioned(pngs, words, [2] * 12)
    columns = {"image": [image_cell(picture) for picture in pictures], "caption": captions}
    write_parquet(data / "alignment" / "test-0.parquet", columns, {"image": IMAGE})

    def uniformity(vectors: Sequence[brute.Vector]) -> float:
        squares = [
            sum((a - b) ** 2 for a, b in zip(vectors[i], vectors[j], strict=True)) for j in range(12) for i in range(j)
        ]
        return float(np.log(np.mean([np.exp(-2 * square) for square in squares])))

    def expected() -> dict[str, dict[str, float]]:
        images = [eyes.look(picture) for picture in pictures]
        texts = [eyes.read(own[0]) for own in captions]
        aligned = [sum((a - b) ** 2 for a, b in zip(i, t, strict=True)) for i, t in zip(images, texts, strict=True)]
        values = {
            "alignment": sum(aligned) / 12,
            "uniformity": uniformity(images),
            "text_uniformity": uniformity(texts),
        }
        return {"alignment": {**values, "sum": values["alignment"] + values["uniformity"]}}

    return Miniature(data, eyes, expected)
