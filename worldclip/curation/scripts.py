"""Whether a text is written in a script of the language that a model names: an optional check of language ids.

A model of n-grams must name some language, also where the letters rule it out. Scripts are Unicode's property; the main
script of a language is in `languages.py`, and here are the others that it is written in today.
"""

from __future__ import annotations

from functools import cache

import pyarrow as pa
import pyarrow.compute as pc

from worldclip.languages import LANGUAGES, OTHER, metadata_code

#: Unicode's names of the scripts of ISO 15924 codes that labels bear; Japanese and Korean mix several.
_NAMES = {
    "Arab": "Arabic",
    "Armn": "Armenian",
    "Beng": "Bengali",
    "Cans": "Canadian_Aboriginal",
    "Cher": "Cherokee",
    "Cyrl": "Cyrillic",
    "Deva": "Devanagari",
    "Ethi": "Ethiopic",
    "Geor": "Georgian",
    "Goth": "Gothic",
    "Grek": "Greek",
    "Gujr": "Gujarati",
    "Guru": "Gurmukhi",
    "Hang": "Hangul",
    "Hani": "Han",
    "Hans": "Han Bopomofo",
    "Hant": "Han Bopomofo",
    "Hebr": "Hebrew",
    "Java": "Javanese",
    "Jpan": "Han Hiragana Katakana",
    "Khmr": "Khmer",
    "Knda": "Kannada",
    "Kore": "Hangul Han",
    "Laoo": "Lao",
    "Latn": "Latin",
    "Mlym": "Malayalam",
    "Mong": "Mongolian",
    "Mtei": "Meetei_Mayek",
    "Mymr": "Myanmar",
    "Nkoo": "Nko",
    "Olck": "Ol_Chiki",
    "Orya": "Oriya",
    "Sinh": "Sinhala",
    "Syrc": "Syriac",
    "Taml": "Tamil",
    "Telu": "Telugu",
    "Tfng": "Tifinagh",
    "Tglg": "Tagalog",
    "Thaa": "Thaana",
    "Thai": "Thai",
    "Tibt": "Tibetan",
}

#: Languages (by their lists) that are written in a second script, or a third.
_ALSO = {
    "az": "Cyrl Arab", "ba": "Latn", "bs": "Cyrl", "ckb": "Latn", "gom": "Latn", "ha": "Arab", "jv": "Java",
    "kk": "Latn Arab", "ku": "Arab Cyrl", "ky": "Arab Latn", "mn": "Mong Latn", "ms": "Arab", "pa": "Arab",
    "ro": "Cyrl", "sa": "Latn", "sd": "Deva", "sh": "Cyrl", "so": "Arab", "sr": "Latn", "tg": "Latn Arab",
    "tk": "Cyrl Arab", "tl": "Tglg", "tt": "Latn Arab", "ug": "Cyrl Latn", "uz": "Cyrl Arab", "vi": "Hani",
    "yo": "Arab",
}  # fmt: skip


@cache
def letters_of(label: str) -> str | None:
    """A regular expression (RE2) of one letter that the language of a model's label is written in.

    None where its scripts are not known: then nothing contradicts the label. A label with a script (`uzn_Cyrl`) means
    that script alone.
    """
    _, _, script = label.partition("_")
    code = metadata_code(label)
    if script not in _NAMES and code == OTHER:
        return None
    scripts = [script] if script in _NAMES else [LANGUAGES[code].script, *_ALSO.get(code, "").split()]
    names = sorted({name for each in scripts if each in _NAMES for name in _NAMES[each].split()})
    return "[" + "".join(rf"\p{{{name}}}" for name in names) + "]" if names else None


def contradicted(texts: pa.LargeStringArray, labels: pa.StringArray) -> pa.BooleanArray:
    """Texts that have letters, but none in a script of the language they were said to be in, bool [n]."""
    encoded = labels.dictionary_encode()
    wrong = pc.and_(texts.is_valid(), False)
    for place, label in enumerate(encoded.dictionary.to_pylist()):
        letter = letters_of(label)
        if letter is None:
            continue
        asked = pc.fill_null(pc.equal(encoded.indices, place), False)
        own = texts.filter(asked)
        found = pc.and_not(pc.match_substring_regex(own, r"\p{L}"), pc.match_substring_regex(own, letter))
        wrong = pc.replace_with_mask(wrong, asked, found)
    return wrong
