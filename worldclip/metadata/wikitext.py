"""The prose of wikitext: what leaves no text is cut out in one pass over the page, mwparserfromhell reads the rest.

The pass finds templates, tables, references, comments and elements, each with its end, and so halves what is parsed. It
also takes out marks without a partner (`[[` that nothing closes): from each of them the parser would read to the end of
the page and back, which on a page of some thousand takes hours.
"""

from __future__ import annotations

import re
from collections import Counter
from html import unescape

from mwparserfromhell.parser import Parser, tokens

#: Namespaces whose links are pictures and categories, no words of the sentence.
PREFIXES = frozenset({"file", "image", "category", "media"})

#: Elements whose content is no wikitext: nothing in it is a mark. None is prose, but what stands in `nowiki`.
_RAW = (
    "ce", "chem", "code", "graph", "hiero", "imagemap", "mapframe", "maplink", "math", "nowiki", "pre", "score",
    "script", "source", "style", "syntaxhighlight", "templatedata", "timeline",
)  # fmt: skip
#: Elements of wikitext whose content is no prose.
_NO_PROSE = frozenset(["gallery", "noinclude", "ref", "references", "table"])
#: Elements that part sentences.
_DIVIDING = frozenset(["blockquote", "br", "center", "dd", "div", "dt", "hr", "li", "p", "td", "th", "tr"])

# Each alternative begins with one fixed character: so the search goes from one of these to the next.
_MARK = re.compile(
    r"<!--(?P<comment>)"
    r"|</?(?P<element>[A-Za-z][A-Za-z0-9]*)\b[^<>]*>"
    r"|<(?=[A-Za-z/!])(?P<lone>)"
    r"|\{\{(?P<template>)"
    r"|\}\}(?P<template_end>)"
    r"|\[\[(?P<link>)"
    r"|\]\](?P<link_end>)"
    r"|\[(?=(?:[a-z]{2,8}:)?//)(?![^\n\]]{0,2000}\])(?P<address>)"
    r"|\n[ \t:*#]*\{\|(?P<table>)"
    r"|\n[ \t:*#]*\|\}(?!\})(?P<table_end>)"
    r"|\n(?:[*#:;]+|-{4,})(?P<item>)"
)
_ENDS = {name: re.compile(rf"</{name}\s*>", re.IGNORECASE) for name in _RAW} | {"comment": re.compile("-->")}
_LITERAL = {ord(character): f"&#{ord(character)};" for character in "&<>[]{}|=*#:;'"}

_OPENINGS = frozenset([
    tokens.WikilinkOpen, tokens.ExternalLinkOpen, tokens.HTMLEntityStart, tokens.TagOpenOpen, tokens.TagOpenClose
])  # fmt: skip
_SEPARATORS = frozenset([tokens.WikilinkSeparator, tokens.ExternalLinkSeparator])
_CLOSINGS = frozenset([
    tokens.WikilinkClose, tokens.ExternalLinkClose, tokens.HTMLEntityEnd, tokens.TagCloseOpen, tokens.TagCloseClose,
    tokens.TagCloseSelfclose,
])  # fmt: skip

#: Captions of files nest links; nobody nests them deeper than this.
_DEEPEST_LINK = 10

_LANGUAGE = re.compile(r"[a-z]{2,3}(-[a-z]{1,10}){0,2}|simple")
_SWITCH = re.compile(r"__[A-Z]{3,}__")
_BLANKS = re.compile(r"[^\S\n]+")
_LINES = re.compile(r"\s*\n\s*")


def plain_text(wikitext: str, prefixes: frozenset[str] = PREFIXES) -> str:
    """The prose of a page's wikitext: no templates, tables, references, files, categories or comments.

    Links leave their label, elements their content, entities their character. `prefixes` are the case-folded
    namespaces whose links are left out. Time and memory grow with the page's length, whatever is on it.
    """
    # The tokenizer alone: nodes, which the builder makes of its tokens, take four times as long.
    text = _prose(Parser()._tokenizer.tokenize(cut(wikitext), 0, True), prefixes)
    text = _SWITCH.sub("", text).replace("'''", "").replace("''", "")
    return _LINES.sub("\n", _BLANKS.sub(" ", text)).strip()


def cut(wikitext: str) -> str:
    """The page without what leaves no text, and without marks that have no partner."""
    wikitext = f"\n{wikitext}"  # marks that begin a line begin with its line feed
    parts: list[str] = []
    at = 0
    for start, end, instead in sorted(_Pass(wikitext).edits):
        if start >= at:  # else it lies in what is cut already
            # Nothing is left to join two halves of a mark.
            parts += (wikitext[at:start], instead or " " * (wikitext[start - 1] in "[{<"))
            at = end
    return "".join([*parts, wikitext[at:]]).replace("{|", "{ |")


class _Pass:
    """One pass over a page. `edits`: start, end, what stands there instead; of two nested ones the outer holds."""

    def __init__(self, text: str) -> None:
        self.edits: list[tuple[int, int, str]] = []
        self._text = text
        self._opened: list[tuple[str, int, int]] = []  # marks without a partner so far: kind, start, end
        self._waiting: Counter[str] = Counter()  # how many of each kind
        self._endless: set[str] = set()
        at = 0
        while mark := _MARK.search(text, at):
            at = self._read(mark)
        for _, start, end in self._opened:
            self._drop(start, end)

    def _read(self, mark: re.Match[str]) -> int:
        """Take one mark; return where to read on."""
        start, end = mark.span()
        kind = mark.lastgroup or ""
        if kind == "comment":
            return self._raw(kind, start, end)
        if kind == "element":
            return self._element(mark[0], mark[kind].lower(), start, end)
        if kind == "lone":
            self.edits.append((start, end, "&lt;"))
        elif kind == "item":
            self.edits.append((start, end, "\n"))
        elif kind == "address" or (kind == "link" and self._waiting[kind] > _DEEPEST_LINK):
            self._drop(start, end)
        elif kind.endswith("_end"):
            self._close(kind.removesuffix("_end"), start, end)
        else:
            self._open(kind, start, end)
        return end

    def _element(self, tag: str, name: str, start: int, end: int) -> int:
        if name in _RAW and not tag.startswith("</") and not tag.endswith("/>"):
            return self._raw(name, start, end)
        if name not in _NO_PROSE or tag.endswith("/>"):
            self.edits.append((start, end, "\n" if name in _DIVIDING else ""))
        elif tag.startswith("</"):
            self._close(name, start, end)
        else:
            self._open(name, start, end)
        return end

    def _raw(self, kind: str, start: int, end: int) -> int:
        """Cut from a mark to its end, between which there are no marks."""
        closing = None if kind in self._endless else _ENDS[kind].search(self._text, end)
        if closing is None:
            self._endless.add(kind)  # not sought again from each further mark
            self.edits.append((start, end, ""))
            return end
        literal = self._text[end : closing.start()].translate(_LITERAL) if kind == "nowiki" else ""
        self.edits.append((start, closing.end(), literal))
        return closing.end()

    def _drop(self, start: int, end: int) -> None:
        """Take out a mark that has no partner."""
        self.edits.append((start, end, "\n" if self._text[start] == "\n" else " "))

    def _open(self, kind: str, start: int, end: int) -> None:
        self._opened.append((kind, start, end))
        self._waiting[kind] += 1

    def _close(self, kind: str, start: int, end: int) -> None:
        if not self._waiting[kind]:
            self._drop(start, end)
            return
        while (last := self._opened.pop())[0] != kind:  # these found no partner inside
            self._waiting[last[0]] -= 1
            self._drop(last[1], last[2])
        self._waiting[kind] -= 1
        if kind != "link":
            self.edits.append((last[1], end, ""))


def _prose(page: list[tokens.Token], prefixes: frozenset[str]) -> str:
    """The text of a page's tokens: of links the label, of entities the character."""
    levels: list[list[str]] = [[]]  # the page, then the links and entities that are open
    targets: list[str | None] = []
    for token in page:
        kind = type(token)
        if kind is tokens.Text:
            levels[-1].append(token["text"])
        elif kind in _OPENINGS:
            levels.append([])
            targets.append(None)
        elif kind in _SEPARATORS:
            targets[-1] = "".join(levels[-1])
            levels[-1].clear()
        elif kind is tokens.HTMLEntityNumeric:
            levels[-1].append("#")
        elif kind is tokens.HTMLEntityHex:
            levels[-1].append(token["char"])
        elif kind in _CLOSINGS:
            inside, target = "".join(levels.pop()), targets.pop()
            if kind is tokens.HTMLEntityEnd:
                levels[-1].append(unescape(f"&{inside};"))
            elif kind is tokens.WikilinkClose:
                levels[-1].append(_label(target, inside, prefixes))
            elif target is not None:  # neither an address without a label nor an element's name is prose
                levels[-1].append(inside)
    return "".join(levels[0])


def _label(target: str | None, inside: str, prefixes: frozenset[str]) -> str:
    """What a link shows: nothing if it is to a file or a category, or to the article in another language."""
    page = inside if target is None else target
    prefix, colon, _ = page.partition(":")
    prefix = prefix.strip()
    if colon and (prefix.casefold() in prefixes or (target is None and _LANGUAGE.fullmatch(prefix))):
        return ""
    if target is not None:
        return inside
    page = page.strip()
    return page.lstrip(":").partition("#")[0] or page.lstrip("#")
