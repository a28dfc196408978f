"""The traps of the suites: each test fails when one is stepped in."""

from __future__ import annotations

import importlib.util
import io
import json
import pickle
import random
from dataclasses import replace
from pathlib import Path

import brute
import layouts_of as layouts
import numpy as np
import pytest
from layouts_of import CLASSES, NAMES, WNIDS
from miniature import Eyes, image_cell, recoded, write, write_parquet, write_shards
from PIL import Image
from test_benchmarks import options
from test_scores import probed

from worldclip.errors import DataError, MissingData, StorageError
from worldclip.evaluation.benchmarks import BENCHMARKS, Options, Record, run
from worldclip.evaluation.records import read_records, write_record
from worldclip.evaluation.scoring import UNREADABLE, Labelled, classify, embed_classes, embed_pictures
from worldclip.evaluation.suites import babel, cvqa, datacomp, fewshot, geography, imagenet, slip, translated, xm3600

TASKS = {task.key: task for task in slip.TASKS}


def only(name: str, data: Path, eyes: Eyes, chosen: Options | None = None) -> Record:
    return run(BENCHMARKS[name], data, eyes, options=chosen or options(data))[0]


# The standard rule and ties.


def test_classes_are_normalised_averaged_and_normalised() -> None:
    class Two(Eyes):
        def read(self, text: str) -> list[float]:
            return {"a x": [10.0, 0.0], "b x": [0.0, 1.0], "a y": [3.0, 4.0], "b y": [3.0, 4.0]}[text]

    found = embed_classes(Two(), [("x",), ("y",)], ["a {}", "b {}"])
    assert found.tolist() == [pytest.approx([0.5**0.5, 0.5**0.5]), pytest.approx([0.6, 0.8])]


def test_synonyms_and_braces_are_taken_literally() -> None:
    eyes = Eyes()
    embed_classes(eyes, [("a", "b"), ("{0}",)], ["{} of {it}", "the {}"])
    assert sorted(eyes.asked) == sorted(["a of {it}", "b of {it}", "the a", "the b", "{0} of {it}", "the {0}"])
    with pytest.raises(DataError, match=r"each needs \{c\}"):
        embed_classes(eyes, [("a",)], ["a {}"], "{c}")
    with pytest.raises(DataError, match="none at all"):
        embed_classes(eyes, [("a",)], [])


def test_equal_classes_are_equal_bit_by_bit_whatever_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    class Unsteady(Eyes):
        """Its rows depend on their place in a batch, as those of a real model may."""

        def texts(self, texts: list[str]) -> np.ndarray:  # type: ignore[override]
            return super().texts(texts) + 1e-3 * np.arange(len(texts), dtype=np.float32)[:, None]

    names = [("missile",), ("x",), ("missile",)]
    found = embed_classes(Unsteady(), names, ["a {}", "b {}"])
    assert np.array_equal(found[0], found[2])
    assert not np.array_equal(found[0], found[1])


def test_the_later_of_two_classes_of_one_name_never_wins(pngs: list[bytes], tmp_path: Path) -> None:
    miniature = layouts.imagenet_like(
        tmp_path, pngs, "imagenet", "imagenet/val", WNIDS.__getitem__, layouts.FEW_TEMPLATES, each=1
    )
    found = only("imagenet", tmp_path, miniature.eyes)
    # Its picture is known, and yet it loses to its twin.
    assert NAMES[657] == NAMES[744] == "missile"
    assert found.per_class["missile (744)"]["acc1"] == 0
    assert found.per_class["missile (744)"]["acc5"] == 100
    assert found.per_class["sunglasses (837)"]["acc1"] == 0


def test_unreadable_pictures_are_left_out_and_counted(pngs: list[bytes], tmp_path: Path) -> None:
    miniature = layouts.geode(tmp_path, pngs, layouts.FEW_TEMPLATES)
    whole = only("geode", tmp_path, miniature.eyes)
    write(tmp_path / "geode/images/4.jpg", b"no image")
    (tmp_path / "geode/images/7.jpg").unlink()
    found = only("geode", tmp_path, miniature.eyes)
    assert (whole.n, found.n, whole.left_out) == (30, 28, {})
    assert found.left_out == {UNREADABLE: 1, geography.NO_FILE: 1}
    with pytest.raises(DataError, match="none of 1 pictures"):
        embed_pictures(miniature.eyes, replace(_pictures(pngs[:1]), read=lambda rows: (b"x" for _ in rows)))


def _pictures(pngs: list[bytes]) -> imagenet.Pictures:
    return imagenet.Pictures(
        name="some", keys=tuple(map(str, range(len(pngs)))), read=lambda rows: (pngs[row] for row in rows)
    )


def test_labels_that_do_not_fit_are_told(pngs: list[bytes]) -> None:
    data = Labelled(pictures=_pictures(pngs[:3]), labels=np.array([0, 1]), names=[("a",), ("b",)], templates=["{}"])
    with pytest.raises(DataError, match="3 images, 2 labels"):
        classify("x", data, Eyes(), Options())
    with pytest.raises(DataError, match="not among 0 to 1"):
        classify("x", replace(data, labels=np.array([0, 1, 2])), Eyes(), Options())


def test_a_metric_that_cannot_be_told_is_not_made_up(pngs: list[bytes]) -> None:
    data = Labelled(
        pictures=_pictures(pngs[:3]), labels=np.zeros(3, np.int64), names=[("a",), ("b",)], templates=["{}"]
    )
    assert "roc_auc" not in classify("x", data, Eyes(), Options(resamples=5)).values  # All of one class.
    for metric in ("roc_auc", "acc5", "worst_group_acc1"):
        with pytest.raises(DataError, match=f"x: {metric} cannot be told"):
            classify("x", data, Eyes(), Options(resamples=5), metric=metric)


# ImageNet.


def test_our_names_and_templates_are_the_known_ones() -> None:
    assert imagenet.fingerprint(imagenet.class_names(None, Options())) == imagenet.NAMES_FINGERPRINT
    assert imagenet.fingerprint(imagenet.templates(Options())) == imagenet.TEMPLATES_FINGERPRINT
    assert [*imagenet.class_ids()] == sorted(imagenet.class_ids())
    assert len(imagenet.class_ids()) == 1000
    assert [place for place, name in enumerate(NAMES) if NAMES.count(name) > 1] == [657, 744, 836, 837]


def test_names_come_from_the_user_then_the_folder_then_us(tmp_path: Path) -> None:
    own = write(tmp_path / "mine.txt", "\n".join(f"mine {row}" for row in range(1000)))
    folder = write(tmp_path / "imagenet/classnames.txt", "\n".join(f"theirs {row}" for row in range(1000))).parent
    assert imagenet.class_names(folder, Options(classnames=own))[7] == "mine 7"
    assert imagenet.class_names(folder, Options())[7] == "theirs 7"
    assert imagenet.class_names(tmp_path, Options())[7] == NAMES[7]
    with pytest.raises(DataError, match="3 names; ImageNet has 1000"):
        imagenet.class_names(None, Options(classnames=write(tmp_path / "few.txt", "a\nb\nc")))


@pytest.mark.parametrize("labels", ["LOC_val_solution.csv", "val.txt"])
def test_a_flat_folder_takes_its_labels_from_a_file(labels: str, pngs: list[bytes], tmp_path: Path) -> None:
    rows = [(f"ILSVRC2012_val_{row:08d}", label) for row, label in enumerate(reversed(CLASSES))]
    for place, (name, _) in enumerate(rows):
        write(tmp_path / "val" / f"{name}.JPEG", recoded(pngs[place], "JPEG"))
    if labels.endswith("csv"):
        lines = [f"{name},{WNIDS[label]} 1 2 3 4" for name, label in rows[::-1]]
        write(tmp_path / labels, "\n".join(["ImageId,PredictionString", *lines]))
    else:
        write(tmp_path / labels, "\n".join(f"{name}.JPEG {label}" for name, label in rows[::-1]))
    data = imagenet.validation(tmp_path, Options())
    assert list(data.labels) == list(reversed(CLASSES))
    write(tmp_path / "val" / "ILSVRC2012_val_00000099.JPEG", recoded(pngs[0], "JPEG"))
    with pytest.raises(DataError, match=r"val_00000099\.JPEG: no class"):
        imagenet.validation(tmp_path, Options())


def test_the_training_images_beside_are_not_taken(pngs: list[bytes], tmp_path: Path) -> None:
    for part in ("train", "val"):
        write(tmp_path / "imagenet" / part / WNIDS[3] / f"{part}.JPEG", recoded(pngs[0], "JPEG"))
    assert imagenet.validation(tmp_path / "imagenet", Options()).pictures.keys == (f"{WNIDS[3]}/val.JPEG",)
    (tmp_path / "none").mkdir()
    with pytest.raises(MissingData, match="neither one folder a class"):
        imagenet.validation(tmp_path / "none", Options())


def test_v2s_folders_are_numbers(pngs: list[bytes], tmp_path: Path) -> None:
    for label in (10, 2, 1):
        write(tmp_path / "imagenetv2" / str(label) / "a.jpeg", recoded(pngs[label], "JPEG"))
    shift = next(each for each in imagenet.SHIFTS if each.name == "imagenetv2")
    _, labels = imagenet._read_images(tmp_path / "imagenetv2", shift.class_of)
    assert labels.tolist() == [1, 10, 2]


def test_imagenets_webdataset_has_its_own_texts_and_may_have_the_users(pngs: list[bytes], tmp_path: Path) -> None:
    samples = [{"jpg": recoded(pngs[place], "jpg"), "cls": str(label).encode()} for place, label in enumerate(CLASSES)]
    texts = {"classnames.txt": "\n".join(NAMES), "zeroshot_classification_templates.txt": "one {c}\n"}
    write_shards(tmp_path / "wds_imagenet1k", samples, texts=texts)
    eyes = Eyes()
    found = only("imagenet", tmp_path, eyes, Options(resamples=5))
    assert found.settings["names_fingerprint"] == imagenet.NAMES_FINGERPRINT
    assert "one tench" in eyes.asked
    eyes = Eyes()
    only("imagenet", tmp_path, eyes, options(tmp_path))
    assert "art of the tench." in eyes.asked
    assert "one tench" not in eyes.asked


def test_objectnets_border_is_cut_on_request_alone(pngs: list[bytes], tmp_path: Path) -> None:
    miniature = layouts.objectnet(tmp_path, pngs, layouts.FEW_TEMPLATES)
    seen: list[tuple[int, int]] = []
    look = miniature.eyes.look

    def looked(data: bytes) -> brute.Vector:
        seen.append(Image.open(io.BytesIO(data)).size)
        return look(data)

    miniature.eyes.look = looked  # type: ignore[method-assign]
    only("objectnet", tmp_path, miniature.eyes)
    assert set(seen[:6]) == {(24, 24)}
    seen.clear()
    found = only("objectnet", tmp_path, miniature.eyes, replace(options(tmp_path), objectnet_crop_border=2))
    assert set(seen[:6]) == {(20, 20)}
    assert found.settings["border"] == 2
    miniature.eyes.look = look  # type: ignore[method-assign]
    path = write(tmp_path / "objectnet/objectnet-1.0/images/tv/9.png", b"no image")
    found = only("objectnet", tmp_path, miniature.eyes, replace(options(tmp_path), objectnet_crop_border=2))
    assert (found.n, found.left_out) == (6, {UNREADABLE: 1})
    path.unlink()
    write(tmp_path / "objectnet/objectnet-1.0/images/unknown/a.png", pngs[0])
    with pytest.raises(DataError, match="unknown: no folder of ObjectNet"):
        only("objectnet", tmp_path, miniature.eyes)


def test_objectnets_classes_are_told_by_its_own_tables(pngs: list[bytes], tmp_path: Path) -> None:
    miniature = layouts.objectnet(tmp_path, pngs, layouts.FEW_TEMPLATES)
    own, projected = run(BENCHMARKS["objectnet"], tmp_path, miniature.eyes, options=options(tmp_path))
    assert (own.task, projected.task, projected.settings["classes"]) == ("objectnet", "objectnet_projected", 3)
    assert set(projected.values) == set(projected.intervals) == {"acc1"}
    assert {"a photo of a alarm clock.", "a photo of a digital clock."} <= set(miniature.eyes.asked)
    mappings = tmp_path / "objectnet/objectnet-1.0/mappings"
    lines = (mappings / "imagenet_to_label_2012_v2").read_text("utf-8")
    write(mappings / "imagenet_to_label_2012_v2", lines.replace("digital clock, class 530", "something"))
    with pytest.raises(DataError, match="do not tell ImageNet's class of 'digital clock, class 530'"):
        only("objectnet", tmp_path, miniature.eyes)
    write(mappings / "imagenet_to_label_2012_v2", lines)
    numbers = json.loads((mappings / "pytorch_to_imagenet_2012_id.json").read_text("utf-8"))
    write(mappings / "pytorch_to_imagenet_2012_id.json", json.dumps({**numbers, "1000": numbers.pop("530")}))
    with pytest.raises(DataError, match="names class 1000; ImageNet's are 0 to 999"):
        only("objectnet", tmp_path, miniature.eyes)
    (mappings / "imagenet_to_label_2012_v2").unlink()  # An older copy has not all tables.
    (alone,) = run(BENCHMARKS["objectnet"], tmp_path, miniature.eyes, options=options(tmp_path))
    assert alone == own


# SLIP.

#: Texts that the specification prints whole, by the task they are of.
PRINTED_LABELS = {
    "CIFAR10": layouts.ARRAYS["CIFAR10"],
    "MNIST": layouts.ARRAYS["MNIST"],
    "STL10": layouts.ARRAYS["STL10"],
    "FacialEmotionRecognition2013": [
        *("angry", "disgusted", "fearful", ["happy", "smiling"], ["neutral", "bored"], ["sad", "depressed"]),
        ["surprised", "shocked", "spooked"],
    ],
    "CLEVRCounts": layouts.SLIP["CLEVRCounts"][1],
    "PatchCamelyon": layouts.SLIP["PatchCamelyon"][1],
    "HatefulMemes": layouts.SLIP["HatefulMemes"][1],
    "SST2": layouts.SLIP["SST2"][1],
}

PRINTED_TEMPLATES = {
    "KITTI": ["{}"],
    "CLEVRCounts": ["a photo of {} objects."],
    "PatchCamelyon": ["this is a photo of {}"],
    "HatefulMemes": ["a {}."],
    "SST2": ["a {} review of a movie."],
    "MNIST": ['a photo of the number: "{}".'],
}


@pytest.mark.parametrize("key", PRINTED_LABELS)
def test_fingerprints_of_labels_are_the_known_ones(key: str) -> None:
    names = [(name,) if isinstance(name, str) else tuple(name) for name in PRINTED_LABELS[key]]
    assert slip.names_fingerprint(names) == TASKS[key].labels


@pytest.mark.parametrize("key", PRINTED_TEMPLATES)
def test_fingerprints_of_templates_are_the_known_ones(key: str) -> None:
    assert imagenet.fingerprint(PRINTED_TEMPLATES[key]) == TASKS[key].templates


def test_a_record_tells_whether_its_texts_are_the_papers(pngs: list[bytes], tmp_path: Path) -> None:
    miniature = layouts.slip_task(tmp_path, pngs, TASKS["SST2"])
    assert not only("slip/SST2", tmp_path, miniature.eyes).settings["texts_as_in_paper"]
    write(tmp_path / "slip/templates.json", json.dumps({"rendered_sst2": PRINTED_TEMPLATES["SST2"]}))  # SLIP's own key.
    assert only("slip/SST2", tmp_path, miniature.eyes).settings["texts_as_in_paper"]
    write(tmp_path / "slip/templates.json", "{}")
    with pytest.raises(MissingData, match=r"templates\.json: has no list 'SST2' or 'rendered_sst2'"):
        only("slip/SST2", tmp_path, miniature.eyes)


@pytest.mark.parametrize("key", [key for key in layouts.SLIP if TASKS[key].layout == "folders"])
def test_a_folder_that_is_no_class_stops_the_task(key: str, pngs: list[bytes], tmp_path: Path) -> None:
    miniature = layouts.slip_task(tmp_path, pngs, TASKS[key])
    write(tmp_path / "slip" / TASKS[key].slip_key / TASKS[key].split / "no such class" / "a.png", pngs[0])
    with pytest.raises(DataError, match="'no such class' is no class"):
        only(f"slip/{key}", tmp_path, miniature.eyes)


@pytest.mark.parametrize("key", ["OxfordPets", "Flowers102", "FGVCAircraft", "Kinetics700"])
def test_the_place_of_a_folder_would_be_the_wrong_class(key: str) -> None:
    """These are the data sets whose folders sort differently from their classes."""
    folders, _ = layouts.SLIP[key]
    assert [folders[folder] for folder in sorted(folders)] != list(range(len(folders)))


def test_kitti_comes_out_right_in_either_order_of_its_labels() -> None:
    metaclips = [(name,) for name in layouts.SLIP["KITTI"][1]]
    slips = [metaclips[place] for place in (2, 1, 0, 3)]
    for names in (metaclips, slips):
        class_of = slip.RULES["KITTI"](names)
        found = {folder: names[class_of(folder)][0] for folder in slip.KITTI}  # type: ignore[index]
        assert "distance" in found["above_20"]
        assert "nearby" in found["below_20"]
        assert "left or right" in found["below_8"]
        assert "no car" in found["no_vehicle"]
    with pytest.raises(DataError, match="0 of the classes have 'distance'"):
        slip.RULES["KITTI"](metaclips[:1])


def test_the_emotions_of_numbered_folders_are_the_data_sets_own() -> None:
    names = [
        (name,) if isinstance(name, str) else tuple(name) for name in PRINTED_LABELS["FacialEmotionRecognition2013"]
    ]
    class_of = slip.RULES["FacialEmotionRecognition2013"](names)
    own = ("angry", "disgusted", "fearful", "happy", "sad", "surprised", "neutral")
    assert [names[class_of(str(number))][0] for number in range(7)] == list(own)  # type: ignore[index]


def test_countries_are_211_in_order_of_their_codes() -> None:
    assert len(slip.COUNTRIES) == 211
    assert [*slip.COUNTRIES] == sorted(slip.COUNTRIES)
    with pytest.raises(DataError, match="2 countries; Country211 has 211"):
        slip.RULES["Country211"]([("Andorra",), ("Zimbabwe",)])


PICKLES = {"CIFAR10": "cifar-10-batches-py/test_batch", "CIFAR100": "cifar-100-python/test"}


@pytest.mark.parametrize("key", PICKLES)
@pytest.mark.filterwarnings("ignore:numpy.core is deprecated")
def test_cifar_is_the_same_pickled(key: str, pngs: list[bytes], tmp_path: Path) -> None:
    found = []
    for pickled in (False, True):
        miniature = layouts.slip_task(tmp_path / str(pickled), pngs, TASKS[key], pickled=pickled)
        record = only(f"slip/{key}", tmp_path / str(pickled), miniature.eyes)
        assert dict(record.values) == pytest.approx(miniature.expected()[f"slip/{key}"], abs=1e-4)
        found.append(record)
    assert found[0] == found[1]
    # The fixture is a pickle of NumPy arrays, as those of the data set are.
    path = tmp_path / "True" / "slip" / TASKS[key].slip_key / PICKLES[key]
    entries = pickle.loads(path.read_bytes(), encoding="bytes")
    assert (entries[b"data"].dtype, entries[b"data"].shape) == (np.uint8, (20, 3072))


class Harm:
    """What no data set holds: unpickled, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_calls_nothing(protocol: int, pngs: list[bytes], tmp_path: Path) -> None:
    miniature = layouts.slip_task(tmp_path, pngs, TASKS["CIFAR10"], pickled=True)
    path = tmp_path / "slip/cifar10" / PICKLES["CIFAR10"]
    path.write_bytes(pickle.dumps({b"data": Harm(tmp_path / "harmed"), b"labels": [1]}, protocol))
    with pytest.raises(DataError, match="which no array needs"):
        only("slip/CIFAR10", tmp_path, miniature.eyes)
    assert not (tmp_path / "harmed").exists()
    pickle.loads(path.read_bytes())
    assert (tmp_path / "harmed").exists(), "the file would do harm"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no batch of CIFAR's Python version"),
        (b"\x80\x02}.", "b'data'"),
        (b"\x80\x02]q\x00.", "no batch of CIFAR's Python version"),
        (layouts.pickle2([(b"data", np.zeros((2, 3072), np.uint8))]), "b'labels'"),
        (layouts.pickle2([(b"data", np.zeros((2, 3072), np.uint8)), (b"labels", [1])]), "2 images but 1 labels"),
        (layouts.pickle2([(b"data", np.zeros((2, 3071), np.uint8)), (b"labels", [1, 1])]), "cannot reshape"),
        (
            layouts.pickle2([(b"data", np.zeros((2, 3072), np.uint8)), (b"labels", [1, 1])]).replace(b"u1", b"O8"),
            "is of b'O8', not of bytes",
        ),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ],
)
def test_a_damaged_pickle_is_told(data: bytes, said: str, pngs: list[bytes], tmp_path: Path) -> None:
    miniature = layouts.slip_task(tmp_path, pngs, TASKS["CIFAR10"], pickled=True)
    write(tmp_path / "slip/cifar10" / PICKLES["CIFAR10"], data)
    with pytest.raises(DataError, match=said):
        only("slip/CIFAR10", tmp_path, miniature.eyes)


def test_arrays_that_are_not_whole_are_told(pngs: list[bytes], tmp_path: Path) -> None:
    miniature = layouts.slip_task(tmp_path, pngs, TASKS["CIFAR10"])
    (tmp_path / "slip/cifar10/cifar-10-batches-bin/test_batch.bin").unlink()
    with pytest.raises(MissingData, match=r"no test_batch\.bin nor test_batch, at any depth"):
        only("slip/CIFAR10", tmp_path, miniature.eyes)
    write(tmp_path / "slip/cifar10/test_batch.bin", b"123")
    with pytest.raises(DataError, match="cut short"):
        only("slip/CIFAR10", tmp_path, miniature.eyes)
    miniature = layouts.slip_task(tmp_path, pngs, TASKS["MNIST"])
    path = tmp_path / "slip/mnist/MNIST/raw/t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="no whole IDX file"):
        only("slip/MNIST", tmp_path, miniature.eyes)


# DataComp.


@pytest.mark.parametrize(("cue", "prompt"), [("Apple", "An apple"), ("hour", "A hour"), ("USE", "An use"), ("", "A ")])
def test_an_or_a(cue: str, prompt: str) -> None:
    assert datacomp.winogavil_prompt(cue) == prompt


def test_fmows_other_region_counts_and_is_told_without(pngs: list[bytes], tmp_path: Path) -> None:
    task = next(each for each in datacomp.TASKS if each.name == "FMoW")
    miniature = layouts.webdataset(tmp_path, pngs, "wds_wilds-fmow_test", task.record, task.key, 7)
    found = only(task.record, tmp_path, miniature.eyes)
    assert found.value == 0  # The one image of that region is missed.
    assert found.values["worst_group_acc1_no_other"] > 0
    assert found.per_group["Other"]["n"] == 1


def test_winogavils_small_instances_do_not_count(pngs: list[bytes], tmp_path: Path) -> None:
    task = next(each for each in datacomp.TASKS if each.name == "WinoGAViL")
    miniature = layouts.winogavil(tmp_path, pngs, task)
    found = only(task.record, tmp_path, miniature.eyes)
    assert found.settings["counted"] == 3
    assert found.n == 4
    assert found.value != found.values["jaccard"]


# Many languages.


def test_english_of_babel_is_scored_as_imagenet_is(pngs: list[bytes], tmp_path: Path) -> None:
    miniature = layouts.babel(tmp_path, pngs)
    found = only("babel-imagenet", tmp_path, miniature.eyes)
    assert found.per_language["EN"]["acc1"] == only("imagenet", tmp_path, miniature.eyes).value
    assert found.per_language["EN"]["classes"] == 1000
    assert not any("wrong goldfish" in text for text in miniature.eyes.asked)
    # Languages are weighted alike, whatever their classes; one without prompts is in no mean of those with.
    assert found.settings["languages"] == {
        "babel_90": 3,
        "babel_90_no_en": 2,
        "babel_93": 3,
        "babel_298_fallback": 4,
        "babel_298_label_only": 4,
    }
    # Two classes of one name: the first wins, and they are not merged.
    assert found.per_language["LO"]["classes"] == 2


def test_babels_files_are_checked(pngs: list[bytes], tmp_path: Path) -> None:
    layouts.babel(tmp_path, pngs)
    path = tmp_path / "babel-imagenet" / babel.ALL
    for bad in ({"DE": [[1, 2], ["one"]]}, {"DE": [[1000], ["x"]]}, {"DE": "x"}):
        write(path, json.dumps(bad))
        with pytest.raises(DataError, match=r"DE is not \[\[classes\], \[names\]\]"):
            only("babel-imagenet", tmp_path, Eyes())
    write(path, json.dumps({"DE": [[1], ["x"]]}))
    write(tmp_path / "babel-imagenet" / babel.PROMPTS, json.dumps({"DE": ["no place"]}))
    with pytest.raises(DataError, match="needs exactly one"):
        only("babel-imagenet", tmp_path, Eyes())


def clip_benchmark(name: str) -> dict[str, list[object]]:
    """A file that CLIP_benchmark ships, of Babel-ImageNet's."""
    spec = importlib.util.find_spec("clip_benchmark")
    if spec is None or spec.origin is None:
        pytest.skip("CLIP_benchmark, which has copies of Babel-ImageNet's files, is not installed")
    return json.loads((Path(spec.origin).parent / "datasets" / name).read_text("utf-8"))


def test_prompts_of_babel_have_the_known_fingerprint() -> None:
    prompts = clip_benchmark("nllb_dist13b_prompts.json")
    assert babel.prompts_fingerprint(prompts) == babel.PROMPTS_FINGERPRINT  # type: ignore[arg-type]
    languages = clip_benchmark("babel_imagenet.json")
    assert {len(own) for own in prompts.values()} == {80}
    assert {*languages} - {*prompts} == {"FY", "BR", "LA"}
    counts = {
        "DE": 738,
        "FR": 799,
        "ES": 845,
        "ZH": 885,
        "KO": 648,
        "HI": 342,
        "BN": 282,
        "TL": 272,
        "SW": 220,
        "TE": 202,
    }
    assert {code: len(languages[code][0]) for code in counts} == counts  # type: ignore[arg-type]


def test_babel_tells_whether_its_texts_are_the_papers(
    pngs: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    miniature = layouts.babel(tmp_path, pngs)
    settings = only("babel-imagenet", tmp_path, miniature.eyes).settings
    assert not settings["texts_as_in_paper"]
    monkeypatch.setattr(babel, "LANGUAGES_FINGERPRINT", settings["languages_fingerprint"])
    assert not only("babel-imagenet", tmp_path, miniature.eyes).settings["texts_as_in_paper"]
    monkeypatch.setattr(babel, "PROMPTS_FINGERPRINT", settings["prompts_fingerprint"])
    assert only("babel-imagenet", tmp_path, miniature.eyes).settings["texts_as_in_paper"]


def test_babel_finds_images_by_label_whatever_their_order_and_number(pngs: list[bytes], tmp_path: Path) -> None:
    miniature = layouts.babel(tmp_path, pngs)
    for image in (tmp_path / "imagenet/val" / WNIDS[10]).iterdir():
        image.unlink()
    write(tmp_path / "imagenet/val" / WNIDS[10] / "0.JPEG", recoded(pngs[CLASSES.index(10)], "JPEG"))
    found = only("babel-imagenet", tmp_path, miniature.eyes)
    assert found.per_language["LO"]["n"] == 3


@pytest.mark.parametrize("layout", ["json", "parquet", "tfds", "splits"])
def test_xm3600_is_the_same_in_every_layout(layout: str, pngs: list[bytes], tmp_path: Path) -> None:
    miniature = layouts.xm3600(tmp_path, pngs, layout)
    expected = miniature.expected()
    for record in run(BENCHMARKS["xm3600"], tmp_path, miniature.eyes, options=options(tmp_path)):
        assert dict(record.values) == pytest.approx(expected[record.task], abs=1e-4)


def test_splits_of_xm3600_that_do_not_fit_are_told(pngs: list[bytes], tmp_path: Path) -> None:
    miniature = layouts.xm3600(tmp_path, pngs, "tfds")
    folder = tmp_path / "xm3600" / "1.0.0"
    found = xm3600.read(tmp_path / "xm3600")
    assert [data for _, data in found.pictures] == miniature.parts["pictures"]
    assert found.captions == miniature.parts["captions"]
    file = folder / "xm3600-sw.tfrecord-00001-of-00002"
    whole = file.read_bytes()
    for data, said in (
        (whole[:-1], "is cut short, or this is no TFRecord file"),
        (b"{" + whole, "is cut short, or this is no TFRecord file"),
        (whole[:12] + b"\x03" + whole[13:], r"record at byte 0 is no tf\.train\.Example"),
        (whole[: 16 + int.from_bytes(whole[:8], "little")], "split sw has 7 images, not the 12"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    ):
        write(file, data)
        with pytest.raises(DataError, match=said):
            xm3600.read(tmp_path / "xm3600")
    file.unlink()
    with pytest.raises(MissingData, match="1 files of split sw, not 2"):
        xm3600.read(tmp_path / "xm3600")
    layouts.write_tfds(folder.parent / "1.0.1", "sw", [("a", pngs[0], ["x"])])
    assert xm3600.read(tmp_path / "xm3600").captions == {"sw": [["x"]]}  # The last version alone.


def test_the_regions_of_xm3600s_images_are_read_where_they_are_told(pngs: list[bytes], tmp_path: Path) -> None:
    for layout, told in (("jsonl", True), ("splits", True), ("tfds", False)):
        layouts.xm3600(tmp_path / layout, pngs, layout)
        found = xm3600.read(tmp_path / layout / "xm3600")
        keys = [int(Path(key).stem, 16) for key in found.pictures.keys]
        assert [*found.regions] == [xm3600.LOCALES[at % 3] if told else "" for at in keys]
    with pytest.raises(DataError, match="no `image/locale`"):
        only("fewshot/xm3600-locale", tmp_path / "tfds", Eyes())


def test_all_captions_of_xm3600_count(pngs: list[bytes], tmp_path: Path) -> None:
    miniature = layouts.xm3600(tmp_path, pngs)
    every, first = run(BENCHMARKS["xm3600"], tmp_path, miniature.eyes, options=options(tmp_path))
    assert (every.task, first.task) == ("xm3600", "xm3600_first_caption")
    assert abs(every.values["i2t_r1"] - first.values["i2t_r1"]) > 1
    texts = {code: sum(map(len, own)) for code, own in miniature.parts["captions"].items()}
    assert {code: part["texts"] for code, part in every.per_language.items()} == texts
    assert set(every.per_language) == set(xm3600.LOCALES)
    assert len(xm3600.LOCALES) == 36
    (tmp_path / "xm3600/images/0000000000000003.jpg").unlink()
    with pytest.raises(MissingData, match=r"0000000000000003\.jpg"):
        only("xm3600", tmp_path, miniature.eyes)


def test_three_images_with_two_one_and_three_captions(pngs: list[bytes], tmp_path: Path) -> None:
    """Six captions are asked for images, three images for captions."""
    vectors = {
        "the moon": [0, 0.8, 0.6],
        "the sun": [1, 0, 0],
        "a moon": [0, 1, 0],
        "a sun": [0.9, 0.4, 0],
        "star": [0, 0, 1],
        "stars": [0, 0.1, 1],
    }

    class Exact(Eyes):
        def look(self, data: bytes) -> brute.Vector:
            return np.eye(3)[pngs.index(data)].tolist()

        def read(self, text: str) -> brute.Vector:
            return brute.unit(vectors[text])

    eyes = Exact()
    captions = [["the moon", "the sun"], ["a moon"], ["a sun", "star", "stars"]]
    columns = {"image/key": ["a", "b", "c"], "image": [image_cell(png) for png in pngs[:3]], "en": captions}
    write_parquet(tmp_path / "xm3600" / "a.parquet", columns, {"image": layouts.IMAGE})
    every, first = run(BENCHMARKS["xm3600"], tmp_path, eyes, options=options(tmp_path))
    assert every.per_language["en"]["t2i_r1"] == pytest.approx(100 * 4 / 6)
    assert every.per_language["en"]["i2t_r1"] == pytest.approx(100)
    assert first.per_language["en"]["i2t_r1"] == pytest.approx(100 / 3)
    assert not every.settings["complete"]


@pytest.mark.parametrize("layout", ["arrow", "old"])
def test_cvqa_is_the_same_in_every_layout(layout: str, pngs: list[bytes], tmp_path: Path) -> None:
    miniature = layouts.cvqa(tmp_path, pngs, layout=layout)
    found = only("cvqa", tmp_path, miniature.eyes)
    assert dict(found.values) == pytest.approx(miniature.expected()["cvqa"], abs=1e-4)
    assert set(found.per_group) == {"Korean, South Korea", "Spanish, Chile", "Spanish, Mexico"}


def test_texts_that_are_cut_to_the_same_give_the_first_option_and_are_counted(
    pngs: list[bytes], tmp_path: Path
) -> None:
    miniature = layouts.cvqa(tmp_path, pngs)
    found = only("cvqa", tmp_path, miniature.eyes)
    assert found.settings["truncated_rows"] == {"local": 1, "en": 1}
    four = [["what is this? " * 8 + option for option in "abcd"]]
    images = np.array([miniature.eyes.look(pngs[0])], np.float32)
    assert cvqa.choose(images, four, miniature.eyes).tolist() == [0]


def test_a_question_has_four_options(pngs: list[bytes], tmp_path: Path) -> None:
    for options_ in (["a", "b", "c"], "a, b, c, d", "['a', 'b']"):
        columns = {
            "image": [image_cell(pngs[0])],
            "ID": ["x"],
            "Subset": ["('a', 'b')"],
            "Question": ["q"],
            "Translated Question": ["q"],
            "Options": [options_],
            "Translated Options": [["a", "b", "c", "d"]],
            "Label": [0],
        }
        write_parquet(tmp_path / "cvqa" / "a.parquet", columns, {"image": layouts.IMAGE})
        with pytest.raises(DataError, match=r"row 0 has \d 'Options', not 4"):
            only("cvqa", tmp_path, Eyes())


def test_captions_are_never_shifted(pngs: list[bytes], tmp_path: Path) -> None:
    miniature = layouts.flores(tmp_path, pngs, "xtd200")
    name = miniature.parts["names"][4]
    (tmp_path / "coco/train2014" / name).unlink()
    with pytest.raises(MissingData, match=f"1 of 12 images are not there, the first is {name}"):
        only("xtd200", tmp_path, miniature.eyes)
    path = tmp_path / "xtd200/swh_Latn.txt"
    path.write_text("\n".join(path.read_text("utf-8").split("\n")[1:]), "utf-8")
    with pytest.raises(DataError, match=r"swh_Latn\.txt: 11 captions for 12 images"):
        only("xtd200", tmp_path, miniature.eyes)


def test_the_headline_of_translated_captions_is_recall_at_5(pngs: list[bytes], tmp_path: Path) -> None:
    for name in ("flickr30k-200", "xtd200"):
        miniature = layouts.flores(tmp_path, pngs, name)
        found = only(name, tmp_path, miniature.eyes)
        assert found.metric == "t2i_r5"
        assert {"t2i_r1", "t2i_r5", "t2i_r10", "i2t_r1", "i2t_r5", "i2t_r10"} < found.values.keys()
        assert set(found.per_language) == set(layouts.FLORES)
        assert found.settings["codes_fingerprint"] != translated.FLORES_FINGERPRINT
        assert not found.settings["complete"]


def test_the_201_languages_are_the_known_ones(pngs: list[bytes], tmp_path: Path) -> None:
    codes = (Path(__file__).parent / "published" / "flores_codes.txt").read_text("utf-8").split()
    assert len(codes) == translated.FLORES
    assert imagenet.fingerprint(sorted(codes)) == translated.FLORES_FINGERPRINT
    miniature = layouts.flores(tmp_path, pngs, "xtd200")
    english = (tmp_path / "xtd200/eng_Latn.txt").read_bytes()
    for code in codes:
        write(tmp_path / "xtd200" / f"{code}.txt", english)
    (record,) = run(replace(BENCHMARKS["xtd200"], n=12), tmp_path, miniature.eyes, options=options(tmp_path))
    assert record.settings["complete"]
    (tmp_path / "xtd200/ydd_Hebr.txt").unlink()
    (record,) = run(replace(BENCHMARKS["xtd200"], n=12), tmp_path, miniature.eyes, options=options(tmp_path))
    assert not record.settings["complete"]


# Geography.


@pytest.mark.parametrize(
    ("category", "name"),
    [
        ("http://commons.wikimedia.org/wiki/Category:Eiffel_Tower", "Eiffel Tower"),
        ('http://commons.wikimedia.org/wiki/Category:Fort:Red_Fort"', "Red Fort"),
        ("plain_name", "plain name"),
    ],
)
def test_names_of_landmarks(category: str, name: str) -> None:
    assert geography.landmark_name(category) == name


def test_the_landmark_of_a_query_is_the_most_frequent_the_first_of_equals() -> None:
    assert geography.most_frequent(["3", "7", "7"]) == "7"
    assert geography.most_frequent(["9", "3", "3", "9"]) == "9"


def test_gldv2_flat_or_nested_tells_its_numbers(pngs: list[bytes], tmp_path: Path) -> None:
    found = []
    for nested in (True, False):
        miniature = layouts.gldv2(tmp_path / str(nested), pngs, nested=nested)
        found.append(only("gldv2", tmp_path / str(nested), miniature.eyes, Options(resamples=5)))
    assert found[0].values == found[1].values
    assert found[0].settings == found[1].settings
    assert {name: found[0].settings[name] for name in ("n_queries", "n_landmarks", "n_duplicate_names")} == {
        "n_queries": 5,
        "n_landmarks": 5,
        "n_duplicate_names": 1,
    }
    assert "Never met" not in miniature.eyes.asked
    (tmp_path / "True/gldv2/test/a/b/c/abc0.jpg").unlink()
    with pytest.raises(MissingData, match="no image of query abc0"):
        only("gldv2", tmp_path / "True", miniature.eyes)


@pytest.mark.parametrize(("text", "classes"), [("[414, 748]", [414, 748]), ("[1]", [1]), ("7", [7])])
def test_an_image_may_have_several_classes(text: str, classes: list[int]) -> None:
    assert geography.class_list(text, Path("a.csv")) == classes


@pytest.mark.parametrize("text", ["", "[]", "['a']", "[1.5]", "tench", "__import__('os')"])
def test_classes_that_are_no_list_of_numbers_are_told(text: str) -> None:
    with pytest.raises(DataError, match="no list of ImageNet's class numbers"):
        geography.class_list(text, Path("a.csv"))


def test_geodes_names_keep_their_underscores_unless_asked(pngs: list[bytes], tmp_path: Path) -> None:
    miniature = layouts.geode(tmp_path, pngs, layouts.FEW_TEMPLATES, clean=True)
    found = only("geode", tmp_path, miniature.eyes, replace(options(tmp_path), geode_clean_names=True))
    assert dict(found.values) == pytest.approx(miniature.expected()["geode"], abs=1e-4)
    assert "a photo of a waste container." in miniature.eyes.asked
    eyes = Eyes()
    only("geode", tmp_path, eyes)
    assert "a photo of a waste_container." in eyes.asked


# Few-shot geo-localisation.


def described(images: list[brute.Vector], places: list[str], tested: np.ndarray, shots: int, seed: int) -> float:
    """The accuracy of one draw, by the probe written from its description."""
    pool = [row for row in range(len(places)) if not tested[row]]
    chosen: list[int] = []
    for place in sorted({places[row] for row in pool}):
        own = [row for row in pool if places[row] == place]
        chosen += [own[at] for at in np.random.RandomState(seed).choice(len(own), min(shots, len(own)), replace=False)]
    known = sorted({places[row] for row in chosen})
    test = [row for row in range(len(places)) if tested[row]]
    matrix = np.array(images, np.float32)
    found = probed(matrix[chosen], np.array([known.index(places[row]) for row in chosen]), matrix[test], len(known))
    return 100 * sum(known[at] == places[row] for at, row in zip(found, test, strict=True)) / len(test)


@pytest.mark.parametrize("task", ["dollar-street-country", "geode-country", "geode-region", "xm3600-locale"])
def test_few_shot_is_the_described_probe(task: str, pngs: list[bytes], tmp_path: Path) -> None:
    if task.startswith("dollar"):
        miniature = layouts.dollar_street(tmp_path, pngs, layouts.FEW_TEMPLATES)
        places = miniature.parts["places"]
        tested = [np.arange(36) >= 24] * 3
    elif task.startswith("geode"):
        miniature = layouts.geode(tmp_path, pngs, layouts.FEW_TEMPLATES)
        places = miniature.parts["region" if "region" in task else "ip_country"]
        tested = fewshot.shuffled(30, fewshot.GEODE_POOL, Options())
    else:
        miniature = layouts.xm3600(tmp_path, pngs)
        places = [xm3600.LOCALES[row % 3] for row in range(12)]
        tested = fewshot.shuffled(12, fewshot.XM3600_POOL, Options())
    found = only(f"fewshot/{task}", tmp_path, miniature.eyes, Options(resamples=20, shots=(2, 5)))
    images = [miniature.eyes.look(picture) for picture in miniature.parts["pictures"]]
    for shots in (2, 5):
        each = [described(images, places, own, shots, 42 + draw) for draw, own in enumerate(tested)]
        assert found.values[f"acc1_{shots}shot"] == pytest.approx(np.mean(each))
        assert found.values[f"acc1_{shots}shot_sd"] == pytest.approx(np.std(each, ddof=1))
    assert found.metric == "acc1_5shot"
    assert found.settings["draws"] == 3


def test_shuffles_are_seeded_and_leave_the_pool() -> None:
    tested = fewshot.shuffled(3_600, fewshot.XM3600_POOL, Options())
    assert tested.sum(1).tolist() == [1_800] * 3
    assert not np.array_equal(tested[0], tested[1])
    assert np.array_equal(tested, fewshot.shuffled(3_600, fewshot.XM3600_POOL, Options()))
    assert fewshot.shuffled(61_940, fewshot.GEODE_POOL, Options()).sum(1).tolist() == [41_940] * 3


# Records.


def test_an_interrupted_run_leaves_no_record_that_looks_whole(
    pngs: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    miniature = layouts.gldv2(tmp_path, pngs)
    record = only("gldv2", tmp_path, miniature.eyes, Options(resamples=5))
    out = tmp_path / "results"
    out.mkdir()

    def killed(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(StorageError):
            write_record(out, record)
    assert list(out.iterdir()) == []
    assert write_record(out, record).name == "gldv2.json"
    (again,) = read_records(out)
    assert again == replace(record, intervals={name: tuple(pair) for name, pair in record.intervals.items()})


def test_a_record_tells_its_data_and_how_it_was_made(pngs: list[bytes], tmp_path: Path) -> None:
    miniature = layouts.gldv2(tmp_path, pngs)
    record = only("gldv2", tmp_path, miniature.eyes, Options(resamples=5))
    found = json.loads(write_record(tmp_path, record).read_text("utf-8"))
    assert found["fingerprint"]["rows"] == 5
    assert len(found["fingerprint"]["sha256"]) == 64
    assert found["version"]
    assert found["settings"]["templates"] == 1
    write(tmp_path / "bad" / "x.json", "[1, 2]")
    with pytest.raises(DataError, match="not a record"):
        read_records(tmp_path / "bad")
    write(tmp_path / "bad" / "x.json", json.dumps({**found, "more": 1}))
    with pytest.raises(DataError, match="not a record"):
        read_records(tmp_path / "bad")


def test_the_same_run_gives_the_same_bytes(pngs: list[bytes], tmp_path: Path) -> None:
    texts = []
    for seed in (1, 2):
        miniature = layouts.geode(tmp_path, pngs, layouts.FEW_TEMPLATES)
        order = list(miniature.eyes.known.items())
        random.Random(seed).shuffle(order)
        miniature.eyes.known = dict(order)
        texts.append(write_record(tmp_path / str(seed), only("geode", tmp_path, miniature.eyes)).read_bytes())
    assert texts[0] == texts[1]
