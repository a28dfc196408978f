"""The text of wikitext: each kind of markup, every real article beside two other extractors, pages made to hang."""

from __future__ import annotations

import html
import random
import re
import statistics
import time
from collections import Counter

import dumps
import mwparserfromhell
import pytest
import wikitextparser
from hypothesis import given
from hypothesis import strategies as st

from worldclip.metadata import wikipedia
from worldclip.metadata.ngrams import tokens
from worldclip.metadata.wikitext import cut, plain_text


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("'''Dog''' is a [[mammal|furry mammal]].", "Dog is a furry mammal."),
        ("a {{cite|x={{y}}}} b<ref name=z>no</ref><ref name=z/> c", "a b c"),
        ("one\n{| class=x\n|-\n| {{a|}} cell\n{|\n| inner\n|}\n|}\ntwo", "one\ntwo"),
        ("[[File:A.jpg|thumb|a [[link]] in it]]x [[Category:C]] [[de:Hund]] [[:Category:D]]", "x Category:D"),
        ("Tom &amp; Jerry &#945;&nbsp;b [http://x.org site] <b>bold</b> <!-- no -->", "Tom & Jerry α b site bold"),
        ("== Head ==\n* item\n----\n:;more\n<math>x^{{2}</math>__TOC__", "Head\nitem\n\nmore"),
        ("a <nowiki>[[b]] &amp; {{c</nowiki> d", "a [[b]] &amp; {{c d"),
        ("H<sub>2</sub>O and [[Silicon|Si]]<sub>4</sub>", "H2O and Si4"),
        ("open {{ [[ <ref> {| < 3 and a<b", "open { | < 3 and a<b"),
        ("closed }} ]] </ref>\n|} and [http://x.org lone", "closed\nand lone"),
        ("<gallery>\nFile:A.jpg|no\n</gallery>a<br>b<br/>c", "a\nb\nc"),
        ("http://x.org [http://x.org] [[Dog#Head]] [[#Part]] [[a&amp;b]]", "Dog Part a&b"),
        ("kept <!-- to the end {{", "kept to the end"),
        ("[[" * 30 + " {{no}} [[a]] {{no}} b", "a b"),
        ("[<b></b>[ a {<i></i>{ b <<i>i> c", "[ [ a { { b < i> c"),
    ],
)
def test_wikitext(wikitext: str, text: str) -> None:
    assert plain_text(wikitext).split() == text.split()
    assert plain_text(wikitext).count("\n") == text.replace("\n\n", "\n").count("\n")


def words(text: str) -> Counter[str]:
    return Counter(token for token in tokens(text) if token.isalnum())


def parsed_whole(wikitext: str, prefixes: frozenset[str]) -> str:
    """The text by the nodes of mwparserfromhell alone, of the page as it is."""
    parts: list[str] = []

    def walk(code: mwparserfromhell.wikicode.Wikicode) -> None:
        for node in code.nodes:
            kind = type(node).__name__
            if kind == "Text":
                parts.append(node.value)
            elif kind == "HTMLEntity":
                parts.append(node.normalize())
            elif kind in {"Heading", "ExternalLink"} and node.title is not None:
                walk(node.title)
            elif kind == "Wikilink":
                target = str(node.title).strip()
                if ":" in target and target.partition(":")[0].strip().casefold() in prefixes:
                    continue
                if node.text is not None:
                    walk(node.text)
                elif not re.match(r"([a-z]{2,3}(-[a-z]{1,10}){0,2}|simple):", target):
                    parts.append(html.unescape(target.lstrip(":").partition("#")[0] or target.lstrip("#")))
            elif kind == "Tag":
                name = str(node.tag).strip().lower()
                parts.append("\n" if name in DIVIDING else "")
                if name not in NO_PROSE and node.contents is not None:
                    walk(node.contents)

    walk(mwparserfromhell.parse(wikitext, skip_style_tags=True))
    return re.sub("__[A-Z]{3,}__", "", "".join(parts).replace("'''", "").replace("''", ""))


DIVIDING = {"br", "hr", "p", "div", "li", "dd", "dt", "td", "th", "tr", "blockquote", "center"}
NO_PROSE = {
    "ref", "table", "gallery", "math", "chem", "score", "timeline", "syntaxhighlight", "source", "imagemap", "hiero",
    "graph", "mapframe", "templatedata", "references", "style", "script", "pre", "code", "noinclude",
}  # fmt: skip


def by_another_parser(wikitext: str) -> str:
    """The text by wikitextparser, which shares no code with mwparserfromhell."""
    without = re.sub(r"<ref[^<>/]*/>|<(ref|math|gallery|pre|code|timeline)\b[^<>]*>.*?</\1\s*>", "", wikitext,
                     flags=re.DOTALL | re.IGNORECASE)  # fmt: skip
    page = wikitextparser.parse(re.sub("<!--.*?-->", "", without, flags=re.DOTALL))
    for link in page.wikilinks:
        if link.string and re.match(r"(file|image|category|[a-z]{2,3}(-[a-z]+)*):", link.title.strip(), re.IGNORECASE):
            link.string = ""
    for link in page.external_links:
        link.string = (link.text if link.in_brackets else "") or ""
    return html.unescape(page.plain_text(replace_tables=lambda _: "", replace_wikilinks=True))


@pytest.fixture(scope="module")
def real_pages() -> list[tuple[str, str, frozenset[str], str]]:
    """Title, wikitext, namespaces of files and categories, and our text of all real articles."""

    def remember(wikitext: str, prefixes: frozenset[str]) -> str:
        pages.append((wikitext, prefixes))
        return ""

    pages: list[tuple[str, frozenset[str]]] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wikipedia, "plain_text", remember)
        titles = [title for path in dumps.real_dumps() for title, _ in dumps.read(path)[0]]
    assert len(pages) == 112
    return [(title, *page, plain_text(*page)) for title, page in zip(titles, pages, strict=True)]


def dice(one: Counter[str], other: Counter[str]) -> float:
    return 2 * (one & other).total() / max(1, (one + other).total())


@pytest.mark.packages
def test_every_real_article_has_the_words_of_the_parser_alone(
    real_pages: list[tuple[str, str, frozenset[str], str]],
) -> None:
    different = {}
    for title, wikitext, prefixes, text in real_pages:
        theirs, ours = words(parsed_whole(wikitext, prefixes)), words(text)
        if theirs != ours:
            different[title] = ((theirs - ours).total(), (ours - theirs).total())
    # A reference of one article has no end: the parser leaves out what stands up to the next one's end.
    assert len(different) <= 1
    assert all(missing == 0 and more <= 12 for missing, more in different.values()), different


@pytest.mark.packages
@pytest.mark.filterwarnings("ignore")  # of wikitextparser itself
def test_every_real_article_beside_an_independent_extractor(
    real_pages: list[tuple[str, str, frozenset[str], str]],
) -> None:
    agreement = [dice(words(by_another_parser(page)), words(text)) for _, page, _, text in real_pages]
    assert statistics.mean(agreement) > 0.9995
    assert min(agreement) > 0.99


@pytest.mark.packages
def test_no_markup_is_left_of_real_articles(real_pages: list[tuple[str, str, frozenset[str], str]]) -> None:
    assert [
        title for title, _, _, text in real_pages if re.search(r"\{\{|\[\[|\{\||<ref|</|&(amp|nbsp|lt);", text)
    ] == []


BITS = ["{{", "}}", "[[", "]]", "{|", "|}", "\n", "<ref>", "</ref>", "<b>", "a", "|", "=", "''", "[http://x ", "]",
        "&amp;", "<!--", "-->", "<nowiki>", "</nowiki>", "*", " ", ":", "http://", "<br>", "<math>", "[", "{", "<",
        "File:", "\n{|", "\n|}", "&#", ";", "----"]  # fmt: skip
KINDS = {
    **{bit: bit for bit in BITS},
    **{f"{bit}a|": f"{bit}a|" for bit in ("{{", "[[", "<b x='", "\n{|\n|-\n|", "<div ", "[http://x y ")},
    "all": "{{[[<ref>\n{|\n", "crossed": "[[a|{{b]]}}", "headings": "\n== [[a\n== ]] ==",
}  # fmt: skip


@pytest.mark.parametrize("kind", [*KINDS, "mixed", "nested"])
def test_no_page_hangs(kind: str) -> None:
    times = 10_000
    page = KINDS.get(kind, "") * times
    if kind == "mixed":
        page = "".join(random.Random(5).choices(BITS, k=times))
    elif kind == "nested":
        page = "[[a|" * times + "]]" * times
    began = time.process_time()
    plain_text(page)
    assert time.process_time() - began < 10  # the parser alone takes minutes to hours for a third of them


@given(st.lists(st.sampled_from(BITS), max_size=40).map("".join))
def test_nothing_is_left_to_open(wikitext: str) -> None:
    left = cut(wikitext)
    assert not re.search(r"\{\{|\{\||<[A-Za-z/!]", left)
    assert left.count("[[") <= left.count("]]") or "[[[" in left
    plain_text(wikitext)
