"""Golden vectors: each usual mistake is caught by its name, and a right copy is left in peace."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import model_folders
import pytest
import torch
from safetensors.torch import load_file, save_file

from worldclip.errors import DataError, MissingData
from worldclip.model.encoder import Encoder
from worldclip.model.golden import Finding, findings, read_golden, refuse_wrong, write_golden


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models that are right, each with its golden vectors."""
    base = tmp_path_factory.mktemp("models")
    made = {family: model_folders.save(family, base / family) for family in ("metaclip2", "siglip", "clip")}
    for folder in made.values():
        write_golden(Encoder.open(folder), folder / "golden.json")
    return made


def edited(folder: Path, out: Path, name: str, edit: Callable[[Any], object]) -> Path:
    shutil.copytree(folder, out)
    content = json.loads((out / name).read_text("utf-8"))
    edit(content)
    (out / name).write_text(json.dumps(content), "utf-8")
    return out


def found(folder: Path) -> list[Finding]:
    return findings(Encoder.open(folder))


def activation(config: Any) -> None:
    config["text_config"]["hidden_act"] = config["vision_config"]["hidden_act"] = "gelu"


def end(config: Any) -> None:
    config["text_config"]["eos_token_id"] = 0


def squash(prepare: Any) -> None:
    prepare |= {"size": {"height": 32, "width": 32}, "do_center_crop": False}


def crop(prepare: Any) -> None:
    prepare |= {"size": {"shortest_edge": 32}, "do_center_crop": True, "crop_size": {"height": 32, "width": 32}}


def bilinear(prepare: Any) -> None:
    prepare["resample"] = 2


def normalisation(prepare: Any) -> None:
    prepare |= {"image_mean": [0.1, 0.2, 0.3]}


@pytest.mark.parametrize(
    ("family", "name", "edit", "part", "said"),
    [
        ("metaclip2", "config.json", activation, "activation", "with hidden_act = quick_gelu instead of gelu"),
        ("metaclip2", "config.json", end, "end of text", "with the text read at the first id 2 (eos_token_id"),
        ("metaclip2", "preprocessor_config.json", squash, "resize", "with the short side resized and the middle"),
        ("metaclip2", "preprocessor_config.json", bilinear, "resize", "with bicubic resampling"),
        ("siglip", "preprocessor_config.json", crop, "resize", "with both sides resized"),
        ("siglip", "preprocessor_config.json", normalisation, "normalisation", "with SigLIP's mean"),
    ],
)
def test_a_usual_mistake_is_named(
    folders: dict[str, Path], tmp_path: Path, family: str, name: str, edit: Any, part: str, said: str
) -> None:
    assert found(folders[family]) == []
    wrong = edited(folders[family], tmp_path / "wrong", name, edit)
    if name == "preprocessor_config.json":  # transformers takes the processor's file first
        (wrong / "processor_config.json").unlink()
    vectors = [each for each in found(wrong) if each.text.startswith("The vectors")]
    assert {each.part for each in vectors} == {part}
    assert said in vectors[0].text
    assert vectors[0].wrong
    with pytest.raises(DataError, match="is not the model that it was"):
        refuse_wrong(Encoder.open(wrong))


def test_a_shorter_siglip_row_is_named(folders: dict[str, Path]) -> None:
    """The vectors of a row that is not padded, as a conversion that forgot it would have kept them."""
    from worldclip.model.golden import golden
    from worldclip.model.towers import Changes

    kept = golden(Encoder.open(folders["siglip"], Changes(padded=False)))
    (finding,) = findings(Encoder.open(folders["siglip"]), kept)
    assert finding.part == "padding"
    assert "with texts not padded" in finding.text


def test_the_older_convention_on_another_tokenizer_is_told(folders: dict[str, Path], tmp_path: Path) -> None:
    """CLIP's older config.json reads at the highest id: with a tokenizer like XLM-V's that is the rarest token."""
    (finding,) = found(folders["clip"])
    assert (finding.part, finding.wrong) == ("end of text", True)
    assert "the highest id" in finding.text

    def first_end(config: Any) -> None:
        config["text_config"]["eos_token_id"] = 3

    wrong = edited(folders["metaclip2"], tmp_path / "wrong", "config.json", first_end)
    (wrong / "golden.json").unlink()
    (finding,) = found(wrong)
    assert "reads at the first id 3" in finding.text


def test_pictures_of_another_size_are_told(folders: dict[str, Path], tmp_path: Path) -> None:
    def larger(prepare: Any) -> None:
        prepare["crop_size"] = {"height": 40, "width": 40}
        prepare["size"] = {"shortest_edge": 40}

    wrong = edited(folders["metaclip2"], tmp_path / "wrong", "preprocessor_config.json", larger)
    (wrong / "processor_config.json").unlink()
    (wrong / "golden.json").unlink()
    (finding,) = found(wrong)
    assert "Pictures become 40 x 40 pixels" in finding.text


def test_weights_of_lower_precision_are_let_pass_and_others_are_not(folders: dict[str, Path], tmp_path: Path) -> None:
    for name, change, wrong in (
        ("bfloat16", lambda tensor: tensor.to(torch.bfloat16).float(), False),
        ("other", lambda tensor: tensor + 0.05 * torch.randn_like(tensor), True),
    ):
        copy = tmp_path / name
        shutil.copytree(folders["metaclip2"], copy)
        torch.manual_seed(0)
        weights = {key: change(each) for key, each in load_file(copy / "model.safetensors").items()}
        save_file(weights, copy / "model.safetensors", {"format": "pt"})
        told = found(copy)
        assert told
        assert {(each.part, each.wrong) for each in told} == {("vectors", wrong)}
        if not wrong:
            assert all("lower precision" in each for each in refuse_wrong(Encoder.open(copy)))


def test_golden_vectors_that_are_none(folders: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(MissingData, match="--write"):
        read_golden(tmp_path / "golden.json")
    (tmp_path / "golden.json").write_text("{}")
    with pytest.raises(DataError, match="holds no golden vectors"):
        read_golden(tmp_path / "golden.json")
    kept = read_golden(folders["siglip"] / "golden.json")
    with pytest.raises(DataError, match="made from other probes"):
        findings(Encoder.open(folders["siglip"]), {**kept, "probes": "0"})
    with pytest.raises(DataError, match="golden vectors of 32 numbers, the model has 24"):
        findings(Encoder.open(folders["metaclip2"]), kept)
