"""The paper's runs as recipes: Table 1, the ablations of Tables 2 and 3, and the distilled models.

    worldclip recipe h14_worldwide > runs/h14_worldwide/recipe.json
    torchrun ... -m worldclip train --run runs/h14_worldwide --data SHARDS --set tokenizer.file=TOKENIZER

SHARDS is what `worldclip shards` made of your curated pairs, TOKENIZER the file of the tokenizer that `tokenizer.file`
names. Times are what `worldclip recipe NAME --cost` works out on paper for the hardware that is named; none was run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from worldclip.config import CurationConfig, MetadataConfig, PairsConfig, Recipe, TokenizerConfig, TrainConfig
from worldclip.errors import ConfigError
from worldclip.model.released import released
from worldclip.recipes import ABLATION_ROWS, quickstart

BATCH, SEEN = 32_768, 12_800_000_000  #: English Meta CLIP's
WORLDWIDE = 2.3  #: one over the English share, 0.44
NON_ENGLISH = 1.3  #: what worldwide sees besides English
TEACHER = "ViT-H-14-quickgelu-worldwide"


def _run(name: str, model: str, factor: float, curation: CurationConfig, t_en: int = 170_000) -> Recipe:
    """The release's training of a model: batch and seen pairs times `factor`, so that steps stay."""
    chosen = released(model)
    batch = {1.0: BATCH, WORLDWIDE: 75_366}.get(factor, round(BATCH * factor))
    steps = SEEN // BATCH
    return Recipe(
        name=name,
        metadata=MetadataConfig(),
        pairs=PairsConfig(languages=()),
        curation=dataclasses.replace(curation, t_en=t_en),
        tokenizer=TokenizerConfig(vocab_size=chosen.vocab_size, file=chosen.tokenizer),
        model=chosen.model,
        train=TrainConfig(
            seen_pairs=steps * batch,
            batch_size=batch,
            lr=4e-4,
            beta1=0.9,
            beta2=0.95,
            weight_decay=0.1,
            warmup_steps=2_000,
            precision="bf16",
            gradient_checkpointing=True,
        ),
    )


def h14_worldwide() -> Recipe:
    """ViT-H/14 on worldwide pairs, 2.3x seen pairs: the paper's best.

    Command: `torchrun --nnodes 48 --nproc-per-node 8 -m worldclip train --run runs/h14_worldwide`. Hardware: 384
    H100, 196 pairs each. Time: 3.9 days. Paper: ImageNet 81.3, SLIP-26 74.5, DC-37 69.6, Babel-ImageNet 50.2,
    XM3600 51.5 / 64.3, CVQA 61.5 / 57.4.
    """
    return _run("h14_worldwide", "ViT-H-14-quickgelu-worldwide", WORLDWIDE, ABLATION_ROWS[5])


def h14_worldwide_1x() -> Recipe:
    """ViT-H/14 on worldwide pairs, as many seen pairs as English Meta CLIP: English is lost.

    Command: `torchrun --nnodes 48 --nproc-per-node 8 -m worldclip train --run runs/h14_worldwide_1x`. Hardware: 384
    H100. Time: 1.7 days. Paper: ImageNet 79.5, SLIP-26 71.1, DC-37 67.2, Babel-ImageNet 47.1, XM3600 49.6 / 62.6,
    CVQA 59.9 / 56.0.
    """
    return _run("h14_worldwide_1x", "ViT-H-14-quickgelu-worldwide", 1.0, ABLATION_ROWS[5])


def h14_english() -> Recipe:
    """ViT-H/14 on the English pairs alone.

    Command: `torchrun --nnodes 48 --nproc-per-node 8 -m worldclip train --run runs/h14_english`. Hardware: 384
    H100. Time: 1.7 days. Paper: ImageNet 80.4, SLIP-26 72.6, DC-37 68.7.
    """
    return _run("h14_english", "ViT-H-14-quickgelu-worldwide", 1.0, ABLATION_ROWS[1])


def h14_non_english() -> Recipe:
    """ViT-H/14 on all but the English pairs, 1.3x seen pairs.

    Give it shards without English (`lang != 'en'`): the language of a pair is a column of the curated tables.
    Command: `torchrun --nnodes 48 --nproc-per-node 8 -m worldclip train --run runs/h14_non_english`. Hardware: 384
    H100. Time: 2.2 days. Paper: ImageNet 71.4, SLIP-26 63.1, DC-37 61.7, Babel-ImageNet 49.9, XM3600 46.9 / 59.9,
    CVQA 59.8 / 56.8.
    """
    return _run("h14_non_english", "ViT-H-14-quickgelu-worldwide", NON_ENGLISH, ABLATION_ROWS[5])


def l14_worldwide() -> Recipe:
    """ViT-L/14 on worldwide pairs, 2.3x seen pairs: too small to lose nothing in English.

    Command: `torchrun --nnodes 48 --nproc-per-node 8 -m worldclip train --run runs/l14_worldwide`. Hardware: 384
    H100. Time: 1.8 days. Paper: ImageNet 78.8, SLIP-26 67.2, DC-37 63.5, Babel-ImageNet 44.2, XM3600 45.3 / 58.2,
    CVQA 59.2 / 55.1.
    """
    return _run("l14_worldwide", "ViT-L-14-worldwide", WORLDWIDE, ABLATION_ROWS[5])


def l14_english() -> Recipe:
    """ViT-L/14 on the English pairs alone.

    Command: `torchrun --nnodes 48 --nproc-per-node 8 -m worldclip train --run runs/l14_english`. Hardware: 384
    H100. Time: 0.8 days. Paper: ImageNet 79.5, SLIP-26 69.5, DC-37 66.0.
    """
    return _run("l14_english", "ViT-L-14-worldwide", 1.0, ABLATION_ROWS[1])


def b32_row1() -> Recipe:
    """Table 2, row 1: ViT-B/32, English texts, English metadata. 1.0x seen pairs.

    Command: `torchrun --nnodes 4 --nproc-per-node 8 -m worldclip train --run runs/b32_row1`. Hardware: 32 H100.
    Time: 0.8 days. Paper: ImageNet 67.5.
    """
    return _run("b32_row1", "ViT-B-32-mT5-worldwide", 1.0, ABLATION_ROWS[1])


def b32_row2() -> Recipe:
    """Table 2, row 2: ViT-B/32, all texts, English metadata.

    Command: `torchrun --nnodes 4 --nproc-per-node 8 -m worldclip train --run runs/b32_row2`. Hardware: 32 H100.
    Time: 0.8 days. Paper: ImageNet 66.9.
    """
    return _run("b32_row2", "ViT-B-32-mT5-worldwide", 1.0, ABLATION_ROWS[2])


def b32_row3() -> Recipe:
    """Table 2, row 3: ViT-B/32, all lists merged, one threshold. 2.3x seen pairs (assumed, as in Table 1).

    Command: `torchrun --nnodes 4 --nproc-per-node 8 -m worldclip train --run runs/b32_row3`. Hardware: 32 H100.
    Time: 1.8 days. Paper: ImageNet 62.1, Babel-ImageNet 31.2, XM3600 37.8 / 49.7, CVQA 49.8 / 45.8.
    """
    return _run("b32_row3", "ViT-B-32-mT5-worldwide", WORLDWIDE, ABLATION_ROWS[3])


def b32_row4() -> Recipe:
    """Table 2, row 4: ViT-B/32, a list for each language, t_en for all. 2.3x seen pairs (assumed, as in Table 1).

    Command: `torchrun --nnodes 4 --nproc-per-node 8 -m worldclip train --run runs/b32_row4`. Hardware: 32 H100.
    Time: 1.8 days. Paper: ImageNet 61.1, Babel-ImageNet 31.5, XM3600 37.9 / 49.4, CVQA 49.0 / 46.5.
    """
    return _run("b32_row4", "ViT-B-32-mT5-worldwide", WORLDWIDE, ABLATION_ROWS[4])


def b32_row5() -> Recipe:
    """Table 2, row 5, and Table 3's mT5: ViT-B/32, list and threshold of each language. 2.3x seen pairs (assumed).

    Command: `torchrun --nnodes 4 --nproc-per-node 8 -m worldclip train --run runs/b32_row5`. Hardware: 32 H100.
    Time: 1.8 days. Paper: ImageNet 64.7, Babel-ImageNet 31.5, XM3600 38.1 / 50.0, CVQA 50.3 / 46.6.
    """
    return _run("b32_row5", "ViT-B-32-mT5-worldwide", WORLDWIDE, ABLATION_ROWS[5])


def _b32_with(name: str, tokenizer: str, vocab_size: int) -> Recipe:
    return dataclasses.replace(b32_row5(), name=name, tokenizer=TokenizerConfig(vocab_size=vocab_size, file=tokenizer))


def b32_gemma() -> Recipe:
    """Table 3: ViT-B/32 with Gemma's vocabulary.

    Command: `torchrun --nnodes 4 --nproc-per-node 8 -m worldclip train --run runs/b32_gemma`. Hardware: 32 H100.
    Time: 1.8 days. Paper: ImageNet 63.7, Babel-ImageNet 26.1, XM3600 36.1 / 47.8, CVQA 48.3 / 44.0.
    """
    return _b32_with("b32_gemma", "google/gemma-2b", 256_000)


def b32_xlm_r() -> Recipe:
    """Table 3: ViT-B/32 with XLM-R's vocabulary.

    Command: `torchrun --nnodes 4 --nproc-per-node 8 -m worldclip train --run runs/b32_xlm_r`. Hardware: 32 H100.
    Time: 1.8 days. Paper: ImageNet 64.0, Babel-ImageNet 31.1, XM3600 38.0 / 49.8, CVQA 49.8 / 46.1.
    """
    return _b32_with("b32_xlm_r", "FacebookAI/xlm-roberta-base", 250_002)


def b32_xlm_v() -> Recipe:
    """Table 3: ViT-B/32 with XLM-V's vocabulary, which the paper takes.

    Command: `torchrun --nnodes 4 --nproc-per-node 8 -m worldclip train --run runs/b32_xlm_v`. Hardware: 32 H100.
    Time: 1.8 days. Paper: ImageNet 64.7, Babel-ImageNet 32.7, XM3600 40.0 / 51.4, CVQA 50.4 / 47.4.
    """
    return _b32_with("b32_xlm_v", "facebook/xlm-v-base", 901_629)


def _student(name: str, model: str) -> Recipe:
    """A smaller model taught by the H/14; the paper says no budget, so worldwide's 2.3x is assumed."""
    recipe = _run(name, model, WORLDWIDE, ABLATION_ROWS[5])
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, teacher=TEACHER))


def s16_distilled() -> Recipe:
    """ViT-S/16, distilled from ViT-H/14.

    Command: `torchrun --nnodes 16 --nproc-per-node 8 -m worldclip train --run runs/s16_distilled`. Hardware: 128
    H100. Time: 3.3 days, the teacher's passes included. Paper: CVQA LOCAL 46.9 (release notes).
    """
    return _student("s16_distilled", "ViT-S-16-worldwide")


def s16_384_distilled() -> Recipe:
    """ViT-S/16 at 384 pixels, distilled from ViT-H/14.

    Command: `torchrun --nnodes 16 --nproc-per-node 8 -m worldclip train --run runs/s16_384_distilled`. Hardware:
    128 H100. Time: 4.0 days, the teacher's passes included. Paper: CVQA LOCAL 47.4 (release notes).
    """
    return _student("s16_384_distilled", "ViT-S-16-384-worldwide")


def s16_mt5_distilled() -> Recipe:
    """ViT-S/16 with mT5's vocabulary, distilled from ViT-H/14.

    Command: `torchrun --nnodes 16 --nproc-per-node 8 -m worldclip train --run runs/s16_mt5_distilled`. Hardware:
    128 H100. Time: 3.3 days, the teacher's passes included. Paper: CVQA LOCAL 42.8 (release notes).
    """
    return _student("s16_mt5_distilled", "ViT-S-16-mT5-worldwide")


def m16_distilled() -> Recipe:
    """ViT-M/16, distilled from ViT-H/14.

    Command: `torchrun --nnodes 16 --nproc-per-node 8 -m worldclip train --run runs/m16_distilled`. Hardware: 128
    H100. Time: 3.6 days, the teacher's passes included. Paper: CVQA LOCAL 49.3 (release notes).
    """
    return _student("m16_distilled", "ViT-M-16-worldwide")


def m16_384_distilled() -> Recipe:
    """ViT-M/16 at 384 pixels, distilled from ViT-H/14.

    Command: `torchrun --nnodes 16 --nproc-per-node 8 -m worldclip train --run runs/m16_384_distilled`. Hardware:
    128 H100. Time: 4.7 days, the teacher's passes included. Paper: CVQA LOCAL 50.7 (release notes).
    """
    return _student("m16_384_distilled", "ViT-M-16-384-worldwide")


def m16_mt5_distilled() -> Recipe:
    """ViT-M/16 with mT5's vocabulary, distilled from ViT-H/14.

    Command: `torchrun --nnodes 16 --nproc-per-node 8 -m worldclip train --run runs/m16_mt5_distilled`. Hardware:
    128 H100. Time: 3.6 days, the teacher's passes included. Paper: CVQA LOCAL 48.7 (release notes).
    """
    return _student("m16_mt5_distilled", "ViT-M-16-mT5-worldwide")


def b32_distilled() -> Recipe:
    """ViT-B/32, distilled from ViT-H/14.

    Command: `torchrun --nnodes 16 --nproc-per-node 8 -m worldclip train --run runs/b32_distilled`. Hardware: 128
    H100. Time: 3.4 days, the teacher's passes included. Paper: CVQA LOCAL 49.1 (release notes).
    """
    return _student("b32_distilled", "ViT-B-32-worldwide")


def b32_384_distilled() -> Recipe:
    """ViT-B/32 at 384 pixels, distilled from ViT-H/14.

    Command: `torchrun --nnodes 16 --nproc-per-node 8 -m worldclip train --run runs/b32_384_distilled`. Hardware:
    128 H100. Time: 3.9 days, the teacher's passes included. Paper: CVQA LOCAL 50.0 (release notes).
    """
    return _student("b32_384_distilled", "ViT-B-32-384-worldwide")


def b32_mt5_distilled() -> Recipe:
    """ViT-B/32 with mT5's vocabulary, distilled from ViT-H/14.

    Command: `torchrun --nnodes 16 --nproc-per-node 8 -m worldclip train --run runs/b32_mt5_distilled`. Hardware:
    128 H100. Time: 3.4 days, the teacher's passes included. Paper: CVQA LOCAL 48.4 (release notes).
    """
    return _student("b32_mt5_distilled", "ViT-B-32-mT5-worldwide")


def b16_distilled() -> Recipe:
    """ViT-B/16, distilled from ViT-H/14.

    Command: `torchrun --nnodes 16 --nproc-per-node 8 -m worldclip train --run runs/b16_distilled`. Hardware: 128
    H100. Time: 4.2 days, the teacher's passes included. Paper: CVQA LOCAL 50.9 (release notes).
    """
    return _student("b16_distilled", "ViT-B-16-worldwide")


def b16_384_distilled() -> Recipe:
    """ViT-B/16 at 384 pixels, distilled from ViT-H/14.

    Command: `torchrun --nnodes 16 --nproc-per-node 8 -m worldclip train --run runs/b16_384_distilled`. Hardware:
    128 H100. Time: 6.5 days, the teacher's passes included. Paper: CVQA LOCAL 51.5 (release notes).
    """
    return _student("b16_384_distilled", "ViT-B-16-384-worldwide")


def l14_distilled() -> Recipe:
    """ViT-L/14, distilled from ViT-H/14.

    Command: `torchrun --nnodes 16 --nproc-per-node 8 -m worldclip train --run runs/l14_distilled`. Hardware: 128
    H100. Time: 8.3 days, the teacher's passes included. Paper: ImageNet 79.2, SLIP-26 70.9, DC-37 67.4,
    Babel-ImageNet 45.7, XM3600 47.5 / 60.2, CVQA 59.8 / 56.5.
    """
    return _student("l14_distilled", "ViT-L-14-worldwide")


#: All of them, in the paper's order.
PAPER = (
    h14_worldwide,
    h14_worldwide_1x,
    h14_english,
    h14_non_english,
    l14_worldwide,
    l14_english,
    b32_row1,
    b32_row2,
    b32_row3,
    b32_row4,
    b32_row5,
    b32_gemma,
    b32_xlm_r,
    b32_xlm_v,
    s16_distilled,
    s16_384_distilled,
    s16_mt5_distilled,
    m16_distilled,
    m16_384_distilled,
    m16_mt5_distilled,
    b32_distilled,
    b32_384_distilled,
    b32_mt5_distilled,
    b16_distilled,
    b16_384_distilled,
    l14_distilled,
)


def recipe_of(name: str) -> Callable[[], Recipe]:
    """The function of a recipe's name: the quickstart's, or one of the paper's runs.

    Raises: ConfigError: there is none; says which there are.
    """
    known = {made.__name__: made for made in (quickstart, *PAPER)}
    if name not in known:
        raise ConfigError(f"{name!r}: no recipe has that name. There are: {', '.join(known)}.")
    return known[name]
