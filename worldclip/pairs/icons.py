"""Emoji sets on disk: code points -> drawing.

A set is in Iconify's format (icons.json holds SVG bodies by name, chars.json maps code points to names or is empty) or
a folder of picture files named by code points. A code is written as in those: hex, joined by `-`, here without
variation selectors.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from worldclip.storage import read_json


def code_of(emoji: str) -> str:
    """Code points in hex, without variation selectors: the key of an emoji in every package."""
    return "-".join(f"{ord(char):04x}" for char in emoji if char != "\ufe0f")


def codes_by_icon_name(folders: Iterable[Path], names: Mapping[str, str]) -> dict[str, str]:
    """Icon name -> code, for the sets that do not tell: by the English name, else as the first other set maps it.

    `folders` are the sets, `names` maps emoji to English names.
    """
    known = {_slug(name): code_of(emoji) for emoji, name in names.items()}
    for folder in folders:
        chars = folder / "chars.json"
        if chars.exists():
            for code, name in read_json(chars).items():
                known.setdefault(name, _plain_code(code))
    return known


def _slug(name: str) -> str:
    """An English name as icon sets write it: woman's hat -> womans-hat."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower().replace("'", "")
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")


def _plain_code(code: str) -> str:
    return "-".join(part for part in code.split("-") if part != "fe0f")


def picture_files(folder: Path, codes: Mapping[str, str]) -> dict[str, bytes]:
    """Code -> file, of a set with one picture file an emoji, named by code points."""
    files = {_plain_code(path.stem): path for path in sorted((folder / "assets").glob("*.webp"))}
    return {code: path.read_bytes() for code, path in sorted(files.items()) if code in codes}


def drawings(folder: Path, codes: Mapping[str, str], by_name: Mapping[str, str]) -> dict[str, bytes]:
    """Code -> SVG, of an icon set in Iconify's format (icons.json; chars.json maps codes to names, or is empty).

    Raises:
        DataError, MissingData: one of the set's files is damaged or gone.
    """
    icons = read_json(folder / "icons.json")
    chars = read_json(folder / "chars.json")
    aliases = icons.get("aliases", {})
    names = [(_plain_code(code), name) for code, name in chars.items()]
    named = [] if chars else [*icons["icons"]]
    # The maps leave out mirror images. Any other alias of an icon that has its code already is a second name of the
    # same emoji, not an emoji of its own: "plus-sign" of "plus".
    named += [
        name for name, alias in aliases.items() if alias.get("hFlip") or not (chars or alias["parent"] in by_name)
    ]
    names += [(by_name[name], name) for name in named if name in by_name]
    found: dict[str, bytes] = {}
    for code, name in names:
        svg = _svg(icons, name) if code in codes and code not in found else None
        if svg is not None:
            found[code] = svg.encode()
    return dict(sorted(found.items()))


def _svg(icons: Mapping[str, Any], name: str) -> str | None:
    """The SVG of an icon or of an alias of one, which may be its mirror image; None if the set has neither."""
    alias = icons.get("aliases", {}).get(name, {"parent": name})
    icon = icons["icons"].get(alias["parent"])
    if icon is None or not alias.keys() <= {"parent", "hFlip"}:
        return None
    defaults = {"left": 0, "top": 0, "width": 16, "height": 16}
    left, top, width, height = (icon.get(side, icons.get(side, default)) for side, default in defaults.items())
    body = icon["body"]
    if alias.get("hFlip"):
        body = f'<g transform="translate({2 * left + width} 0) scale(-1 1)">{body}</g>'
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left} {top} {width} {height}">{body}</svg>'
    )
