"""What a run is made of: frozen, keyword-only dataclasses that print, parse and hash.

A recipe (`recipes.py`) is a function that returns a whole `Recipe`. `--set train.lr=3e-4` changes one field by its
path; a key that does not exist is an error that names its neighbours. The hash of a part of a recipe is what a stage
compares to know whether its result on disk is still the one asked for.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from worldclip.errors import ConfigError
from worldclip.storage import digest


@dataclass(frozen=True, kw_only=True)
class MetadataConfig:
    """Worldwide metadata (paper, section 3.1)."""

    languages: tuple[str, ...] | None = None  #: lists to build; None builds all that the sources allow
    free_only: bool = False  #: leave out sources that are not freely usable
    chinese: Literal["jieba", "ckip"] = "jieba"  #: segmenter of Chinese dumps; CKIP fetches a model


@dataclass(frozen=True, kw_only=True)
class PairsConfig:
    """Packaged image-text pairs."""

    languages: tuple[str, ...]  #: whose texts accompany the images
    image_size: int = 48  #: pixels on a side, as stored
    shards: int = 4


@dataclass(frozen=True, kw_only=True)
class CurationConfig:
    """Algorithm 1 (paper, section 3.2). The five rows of the paper's ablation are combinations of the first three."""

    texts: Literal["all", "english"] = "all"
    metadata: Literal["per_language", "merged", "english"] = "per_language"
    thresholds: Literal["t_lang", "t_en"] = "t_lang"
    t_en: int | None = None  #: English threshold; None derives it from `tail_share`
    tail_share: float = 0.06  #: share of all English matches that fall on tail entries
    rule: Literal["paper", "unicode"] = "paper"  #: matching rule
    lid: str | None = None  #: path of a fastText model; None is the packaged lid.176.ftz
    script_check: bool = False  #: texts in none of the scripts of the language that is named go to `other`
    draw: Literal["uniform", "by_kind"] = "uniform"  #: of an image's texts: each its turn, or each kind
    seed: int = 0  #: of the offline draw; online draws follow the recipe's seed
    target_pairs: int | None = None  #: keep about so many pairs: t_en is solved for
    language_floor: int | None = None  #: keep at least so many pairs of each language, or all that match
    language_cap: int | None = None  #: keep at most so many pairs of each language

    def __post_init__(self) -> None:
        for name, lowest in (("target_pairs", 1), ("language_floor", 1), ("language_cap", 1), ("t_en", 0)):
            value = getattr(self, name)
            if value is not None and value < lowest:
                raise ConfigError(f"curation.{name}: is {value}; needs {lowest} or more, or null.")
        if not 0 <= self.tail_share <= 1:
            raise ConfigError(f"curation.tail_share: is {self.tail_share}; needs 0 to 1.")
        if self.target_pairs is not None and self.t_en is not None:
            raise ConfigError("curation: target_pairs solves for t_en, so only one of them can be given.")
        if (self.language_floor or 0) > (self.language_cap or float("inf")):
            raise ConfigError("curation.language_floor: is above language_cap.")


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """A tokenizer trained on the curated text, or one of others."""

    kind: Literal["unigram", "bpe"] = "unigram"  #: unigram as XLM-V's and mT5's, bpe as Gemma's
    file: str | None = None  #: one of others in its place: a tokenizer.json, a SentencePiece model, a folder with one
    vocab_size: int = 32_000
    context_length: int = 77  #: tokens a text may have, both special tokens included


@dataclass(frozen=True, kw_only=True)
class TowerConfig:
    """A transformer tower: `layers` blocks of `width`, `heads` attention heads, an MLP of `mlp_ratio * width`."""

    layers: int
    width: int
    heads: int
    mlp_ratio: float = 4.0


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """CLIP as `transformers.MetaClip2Model` (paper, section 4.1)."""

    vision: TowerConfig
    text: TowerConfig
    embedding: int
    image_size: int
    patch_size: int
    activation: Literal["gelu", "quick_gelu"] = "gelu"


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The training loop (paper, section 3.3)."""

    seen_pairs: int  #: image-text pairs that the worldwide model sees
    batch_size: int  #: pairs a step, all texts of an image counted
    texts_per_image: int = 1  #: texts drawn for an image each time it is seen; its features serve all of them
    shared_texts: Literal["negatives", "positives"] = "negatives"  #: see `clip_loss`
    text_tokens: int = 77  #: a longer text is cut to so many tokens when training
    optimizer: Literal["adamw", "muon"] = "adamw"  #: adamw is the paper's
    lr: float = 4e-4
    beta1: float = 0.9
    beta2: float = 0.98
    eps: float = 1e-6
    weight_decay: float = 0.1
    warmup_steps: int = 2_000
    clip_norm: float = 1.0
    init_temperature: float = 0.07
    precision: Literal["fp32", "bf16", "fp16", "auto"] = "auto"  #: auto: bf16 where it is multiplied in hardware
    crop_scale: float = 0.7  #: smallest side of a random resized crop, as a share of the image's side
    color_jitter: float = 0.0  #: strength of random brightness, channel gain and desaturation; 0 is the paper's
    threads: int = 2  #: of a process on a CPU
    data: str | None = None  #: folder that `worldclip shards` wrote; None: the run's own pictures, in memory
    window_images: int = 1_000_000  #: of the data's shards, so many images are shuffled together
    scale: Literal["none", "english_share"] = "none"  #: english_share: batch and seen pairs are divided by it
    accumulate: int = 1  #: pieces of a batch that are computed one after the other; changes only rounding
    parallel: Literal["ddp", "fsdp"] = "ddp"  #: of several processes
    gradient_checkpointing: bool = False
    compile: bool = False
    workers: int = 0  #: processes of each rank that decode images; 0: the rank itself
    stall_seconds: float = 60.0  #: after so long without a sample, the rank, worker and shard are named
    max_set_aside: float = 0.01  #: share of images that cannot be read at which a run ends
    max_bad_steps: int = 10  #: steps in a row without a finite loss after which a run goes back to its checkpoint
    validation: str | None = None  #: held-out pairs, as `worldclip shards` wrote them
    validate_steps: int = 0  #: steps between validations; 0: none
    validate_images: int = 1_000  #: of the held-out pairs that are drawn for them
    log: Literal["none", "tensorboard", "wandb"] = "none"
    checkpoint_seconds: float = 30.0
    keep_checkpoints: int = 2  #: the last ones, which are kept
    keep_every_steps: int = 0  #: one of so many steps is kept for good; 0: none
    start: str | None = None  #: model to tune, see `worldclip export`; None: random weights
    locked_image: bool = False  #: the image tower stays as it is
    teacher: str | None = None  #: model to distil; in a plan the name of a released one
    distill: float = 1.0  #: weight of the distillation beside the contrastive loss
    teacher_cache: str | None = None  #: folder: a teacher's features are computed once, of whole pictures; None: always

    def __post_init__(self) -> None:
        for name in (
            *("seen_pairs", "batch_size", "texts_per_image", "text_tokens", "threads", "accumulate"),
            *("max_bad_steps", "keep_checkpoints"),
        ):
            if getattr(self, name) < 1:
                raise ConfigError(f"train.{name}: is {getattr(self, name)}; needs 1 or more.")
        if (self.validation is None) != (self.validate_steps == 0):
            raise ConfigError("train.validation and train.validate_steps go together: give both, or neither.")
        if self.optimizer == "muon" and self.parallel == "fsdp":
            raise ConfigError("train.optimizer=muon needs whole matrices: set train.parallel=ddp, or optimizer=adamw.")

    def deciding(self) -> TrainConfig:
        """This recipe with all that changes at most the rounding of its result set to its default."""
        defaults: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(self)}
        return dataclasses.replace(self, **{name: defaults[name] for name in _INDIFFERENT})


#: How a run is spread over a machine and what is written about it: may change when it is resumed.
_INDIFFERENT = frozenset(
    {
        *("accumulate", "parallel", "gradient_checkpointing", "compile", "workers", "stall_seconds", "max_set_aside"),
        *("validation", "validate_steps", "validate_images", "log"),
        *("checkpoint_seconds", "keep_checkpoints", "keep_every_steps"),
    }
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides the result of a run."""

    name: str
    seed: int = 0
    metadata: MetadataConfig
    pairs: PairsConfig
    curation: CurationConfig
    tokenizer: TokenizerConfig
    model: ModelConfig
    train: TrainConfig


Config = TypeVar("Config")


def as_dict(config: object) -> dict[str, Any]:
    """A config as plain JSON values."""
    value: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))  # type: ignore[call-overload]
    return value


def config_hash(*configs: object) -> str:
    """SHA-256 (hex) over configs and plain values; the same values give the same hash on any machine."""
    plain = [as_dict(value) if dataclasses.is_dataclass(value) else value for value in configs]
    return digest(json.dumps(plain, sort_keys=True))


def from_dict(cls: type[Config], values: Mapping[str, Any], where: str = "recipe") -> Config:
    """Build a config from plain values.

    Raises:
        ConfigError: an unknown key, a missing field or a value of the wrong kind; names the path and what is allowed.
    """
    fields = {field.name: field for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = get_type_hints(cls)
    for key in values:
        if key not in fields:
            close = difflib.get_close_matches(str(key), fields, n=1)
            hint = f" Did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"{where}: unknown field {key!r}.{hint} It has: {', '.join(fields)}.")
    missing = [
        name
        for name, field in fields.items()
        if name not in values and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise ConfigError(f"{where}: lacks {', '.join(missing)}.")
    return cls(**{key: _parse(hints[key], value, f"{where}.{key}") for key, value in values.items()})


def override(config: Config, settings: Sequence[str]) -> Config:
    """Apply settings such as `train.lr=3e-4` or `curation.t_en=100` and return the new config.

    Raises:
        ConfigError: see `from_dict`; also a setting without `=`.
    """
    values = as_dict(config)
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise ConfigError(f"--set {setting!r}: write it as path=value, for example train.lr=3e-4.")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        target = values
        *parents, last = path.split(".")
        for parent in parents:
            if not isinstance(target.get(parent), dict):
                raise ConfigError(f"--set {setting!r}: there is no part {parent!r}; parts: {', '.join(target)}.")
            target = target[parent]
        target[last] = value
    return from_dict(type(config), values)


def _parse(kind: Any, value: Any, where: str) -> Any:  # noqa: C901, PLR0911 - one case a kind of field
    """Check one value against a field's type, converting lists to tuples and whole numbers to floats."""
    origin, arguments = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        if isinstance(value, Mapping):
            return from_dict(kind, value, where)  # type: ignore[arg-type]
    elif origin is Literal:
        if value in arguments:
            return value
        raise ConfigError(f"{where}: is {value!r}; allowed: {', '.join(map(repr, arguments))}.")
    elif origin in (Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _parse(next(each for each in arguments if each is not type(None)), value, where)
    elif origin is tuple:
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",")]
        if isinstance(value, Sequence):
            return tuple(_parse(arguments[0], each, where) for each in value)
    elif kind in (int, float) and isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value):
        if kind is float or value == int(value):
            return kind(value)
    elif kind in (str, bool) and isinstance(value, kind):
        return value
    wanted = getattr(kind, "__name__", str(kind))
    raise ConfigError(f"{where}: is {value!r} ({type(value).__name__}); needs {wanted}.")
