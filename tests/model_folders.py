"""Small untrained model folders of every family: real classes, real preprocessing, tiny tokenizers; nothing is loaded
from anywhere. `save("metaclip2", folder)` writes one as its family's own `save_pretrained` does.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from PIL import Image, ImageDraw
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import (
    AltCLIPConfig,
    AltCLIPModel,
    BertTokenizerFast,
    ChineseCLIPConfig,
    ChineseCLIPModel,
    CLIPConfig,
    CLIPModel,
    MetaClip2Config,
    MetaClip2Model,
    Siglip2Config,
    Siglip2Model,
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipModel,
    SiglipTokenizer,
)

LABELS = ["chien", "gato", "犬", "собака", "หมา", "كلب", "red apple", "a green house by the sea and a very long road"]
CONTEXT = 64
PIXELS = 32

FAMILIES = ("metaclip2", "clip", "siglip", "siglip2", "altclip", "chinese_clip")

MODELS: dict[str, tuple[Any, Any]] = {
    "metaclip2": (MetaClip2Config, MetaClip2Model),
    "clip": (CLIPConfig, CLIPModel),
    "siglip": (SiglipConfig, SiglipModel),
    "siglip2": (Siglip2Config, Siglip2Model),
    "altclip": (AltCLIPConfig, AltCLIPModel),
    "chinese_clip": (ChineseCLIPConfig, ChineseCLIPModel),
}

#: Each family's processor, image processor, and whether its preprocessing scales both sides to the square.
PROCESSORS = {
    "metaclip2": ("CLIPProcessor", "CLIPImageProcessor", False),
    "clip": ("CLIPProcessor", "CLIPImageProcessor", False),
    "siglip": ("SiglipProcessor", "SiglipImageProcessor", True),
    "siglip2": ("Siglip2Processor", "Siglip2ImageProcessor", True),
    "altclip": ("AltCLIPProcessor", "CLIPImageProcessor", False),
    "chinese_clip": ("ChineseCLIPProcessor", "ChineseCLIPImageProcessor", True),
}


def save_processor(folder: Path, family: str = "clip") -> int:
    """Train a small tokenizer, write the processor's files, and return the vocabulary's size."""
    processor, image_processor, squash = PROCESSORS[family]
    side = {"height": PIXELS, "width": PIXELS}
    prepare: dict[str, Any] = {
        "image_processor_type": image_processor, "do_convert_rgb": True, "do_resize": True, "resample": 3,
        "size": side if squash else {"shortest_edge": PIXELS}, "do_center_crop": not squash, "crop_size": side,
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": [0.5] * 3, "image_std": [0.5 if squash else 0.25] * 3,
    }  # fmt: skip
    if family == "siglip2":
        prepare |= {"patch_size": 16, "max_num_patches": 256, "resample": 2}
        del prepare["size"], prepare["crop_size"], prepare["do_center_crop"]
    (folder / "preprocessor_config.json").write_text(json.dumps(prepare | {"processor_class": processor}))
    (folder / "processor_config.json").write_text(
        json.dumps({"processor_class": processor, "image_processor": prepare})
    )
    if family in _TOKENIZERS:
        tokenizer = _TOKENIZERS[family](folder)
        tokenizer.save_pretrained(folder)
        return len(tokenizer)
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=["<s>", "<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator([*LABELS, "This is a photo of"] * 20, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps(
            special
            | {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": CONTEXT}
            | {"model_input_names": ["input_ids", "attention_mask"]}
        )
    )
    return tokenizer.get_vocab_size()


#: As SigLIP's published folders say it: the tower is told nothing of padding.
_NO_MASK = ["input_ids"]


def _bert(folder: Path) -> Any:
    letters = sorted(set("".join(LABELS)) - {" "})
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(words), encoding="utf-8")
    return BertTokenizerFast(vocab=str(folder / "vocab.txt"), model_max_length=CONTEXT)


def _siglip(folder: Path) -> Any:
    """SentencePiece with the ids of SigLIP's: </s> is 1 and pads, too."""
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(LABELS * 20), model_prefix=str(folder / "spiece"), vocab_size=90, hard_vocab_limit=False,
        eos_id=1, unk_id=2, bos_id=-1, pad_id=0, minloglevel=2,
    )  # fmt: skip
    return SiglipTokenizer(
        vocab_file=str(folder / "spiece.model"), model_max_length=CONTEXT, pad_token="</s>", model_input_names=_NO_MASK
    )


def _siglip2(folder: Path) -> Any:
    letters = sorted(set("".join(LABELS)) - {" "})
    words = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *letters]
    vocabulary = {word: at for at, word in enumerate(words)}
    return Siglip2Tokenizer(
        vocab=vocabulary, merges=[], model_max_length=CONTEXT, padding_side="right", model_input_names=_NO_MASK
    )


_TOKENIZERS = {"chinese_clip": _bert, "siglip": _siglip, "siglip2": _siglip2}


def save(family: str, folder: Path, seed: int = 0) -> Path:
    """Write a model folder of a family, with random weights of that seed."""
    folder.mkdir()
    config, model = MODELS[family]
    vocabulary = save_processor(folder, family)
    tower: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    siglip = family.startswith("siglip")
    tower |= {"projection_size": 32} if siglip else {"projection_dim": 24}
    positions = CONTEXT + 2 if family == "altclip" else CONTEXT
    text = tower | {"vocab_size": vocabulary, "max_position_embeddings": positions}
    text |= {
        "chinese_clip": {"pad_token_id": 0},
        "siglip": {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 1},
        "siglip2": {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 1},
    }.get(family, {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2})
    if family == "altclip":
        text |= {"project_dim": 24}
    vision = tower | {"image_size": PIXELS, "patch_size": 8}
    if family == "siglip2":
        vision = tower | {"patch_size": 16, "num_patches": 256}
    torch.manual_seed(seed)
    made = model(config(text_config=text, vision_config=vision, **({} if siglip else {"projection_dim": 24})))
    made.save_pretrained(folder)
    return folder


def picture(at: int, size: tuple[int, int] = (60, 48), mode: str = "RGB") -> Image.Image:
    made = Image.new(mode, size)
    draw = ImageDraw.Draw(made)
    draw.ellipse((at % 20, 4, 20 + at, 40), fill=(at * 40 % 256, 90, 255 - at * 25 % 256) if mode == "RGB" else None)
    return made
