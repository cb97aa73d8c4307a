"""The page and the chart: every character and every token once, nothing from outside as markup."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rinsho.text import clean
from rinsho.tokenizer.measure import chart, measure
from rinsho.tokenizer.measure.others import open_tokenizer
from rinsho.tokenizer.measure.page import MARKS, Text, drawn
from rinsho.tokenizer.measure.sample import Shown
from rinsho.tokenizer.measure.terms import Finder, Yardsticks

NAMES = ("strict", "plain", "words", "pairs", "letters", "bert")


class Page(HTMLParser):
    """What stands in the rows of the token tables: tags, and per column the token spans with their tips and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.columns: list[list[tuple[str, str, str]]] = []
        self._column, self._open, self._body = 0, False, False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append((tag, values))
        self._body = self._body or tag == "tbody"
        if tag == "tr":
            self._column = -2  # the line number comes first
        if tag == "td":
            self._column += 1
        if tag == "span" and "data-t" in values and self._body:
            while len(self.columns) <= self._column:
                self.columns.append([])
            self.columns[self._column].append((str(values["class"]), str(values["data-t"]), ""))
            self._open = True

    def handle_endtag(self, tag: str) -> None:
        self._body = self._body and tag != "tbody"
        self._open = self._open and tag != "span"

    def handle_data(self, data: str) -> None:
        if self._open:
            classes, tip, text = self.columns[self._column][-1]
            self.columns[self._column][-1] = (classes, tip, text + data)


@pytest.fixture
def page(folders: Mapping[str, Path], write_texts: Any, tmp_path: Path) -> Page:
    (tmp_path / "terms.csv").write_text("surface\n肺炎\n", encoding="utf-8")
    (tmp_path / "<img src=x>.txt").write_text(
        'ﾊﾟ患者は発熱。\n<script>alert("1")</script>&lt; 肺炎。\n\n患者は 彁', encoding="utf-8"
    )
    measure(
        [folders[name] for name in NAMES],
        {"ward": write_texts("ward", "患者は発熱。", "肺炎。")},
        lexicon=[tmp_path / "terms.csv"],
        show=tmp_path / "<img src=x>.txt",
        out=tmp_path / "out",
    )
    return Page((tmp_path / "out" / "page.html").read_text(encoding="utf-8"))


def test_nothing_from_outside_becomes_markup_or_leaves_the_file(page: Page) -> None:
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "img", "link", "iframe", "object"}
    assert not [values for _, values in page.tags if {"src", "href", "onclick"} & set(values)]
    policy = [values for tag, values in page.tags if tag == "meta" and "http-equiv" in values]
    assert policy[0]["content"] == "default-src 'none'; style-src 'unsafe-inline'"
    assert '<script>alert("1")</script>&lt;' in "".join(text for _, _, text in page.columns[4])


def test_every_token_stands_there_once(page: Page, folders: Mapping[str, Path], tmp_path: Path) -> None:
    raw = (tmp_path / "<img src=x>.txt").read_text(encoding="utf-8")
    for name, column in zip(NAMES, page.columns, strict=True):
        ids = open_tokenizer(folders[name], name).ids(raw, clean(raw))
        told = [int(re.findall(r" id (\d+) ", tip)[-1]) for classes, tip, _ in column if _begins(classes)]
        assert told == ids.tolist(), name


def test_what_hovering_tells_and_what_is_marked(page: Page) -> None:
    strict, plain = page.columns[:2]
    assert ("患者   id 272   raw 2–4", "患者") in [(tip, text) for _, tip, text in strict]
    first = strict[0]  # ﾊﾟ is two raw characters, パ one clean one, in three bytes
    assert first[1] == "<0xE3>   id 231   raw 0–2 ﾊﾟ"
    assert (first[2], strict[1][2]) == ("パE3", "83")
    assert [text for classes, _, text in plain if "torn" in classes] == ["は発熱"]
    assert not [text for classes, _, text in strict if "torn" in classes]
    assert {text for classes, _, text in page.columns[2] if "unknown" in classes} >= {"彁"}
    assert "␣" in [text for classes, _, text in page.columns[2] if "lost" in classes]


@pytest.mark.parametrize("name", NAMES)
@given(text=st.text(st.sampled_from("患者は発熱。肺炎彁𠮷 \n　ａ<㎎ｶﾞ"), max_size=40))
@settings(max_examples=25, deadline=None)
def test_every_character_is_drawn_once(folders: Mapping[str, Path], name: str, text: str) -> None:
    text_drawn = _drawn(folders[name], text)
    cleaned = clean(text)
    shown = "".join(
        part.text
        for row in text_drawn.rows
        for token in row[0].tokens
        if "chip" not in token.classes
        for part in token.parts
        if part.kind != "mark" or part.text in MARKS.values()
    )
    assert shown == cleaned.replace(" ", MARKS[" "]).replace("\n", MARKS["\n"])
    assert len(text_drawn.rows) == max(1, cleaned.count("\n") + (not cleaned.endswith("\n")))
    assert text_drawn.tokens == [len(_opened(folders[name]).ids(text, cleaned))]


def test_a_tokenizer_without_offsets_is_laid_over_the_text(folders: Mapping[str, Path]) -> None:
    tokens = _drawn(folders["bert"], "患者は咳嗽と発熱。").rows[0][0].tokens
    assert ["".join(part.text for part in token.parts) for token in tokens] == [
        "患者",
        "は",
        "咳嗽と",
        "[UNK]",
        "発熱",
        "。",
    ]
    assert ["unknown" in token.classes for token in tokens] == [False, False, True, True, False, False]


def test_terms_are_marked_where_they_stand(folders: Mapping[str, Path]) -> None:
    text_drawn = _drawn(folders["strict"], "肺炎肺炎は", Finder(["肺炎"]))
    parts = [(part.text, part.kind) for token in text_drawn.rows[0][0].tokens for part in token.parts]
    assert "".join(text for text, kind in parts if kind == "term") == "肺炎肺炎"
    assert ("は", "plain") in parts


def test_the_chart_is_well_formed_and_long_names_are_cut() -> None:
    fit = {"characters_per_token": 1.5, "characters_per_token_interval": [1.4, 1.6]}
    bare = {"characters_per_token": 0.5, "characters_per_token_interval": None}
    name = "<&" + "長い名前" * 20
    numbers = {
        "tokenizers": {"a": {}, name: {}},
        "texts": {"t<": {"documents": 3, "bytes": 1e6}},
        "fit": {"t<": {"a": fit, name: bare}},
    }
    svg = ET.fromstring(chart.standalone(chart.characters_per_token(numbers)))
    space = "{http://www.w3.org/2000/svg}"
    widths = [float(bar.attrib["width"]) for bar in svg.iter(f"{space}rect")]
    assert widths[0] == pytest.approx(3 * widths[1], rel=1e-3)
    assert len(list(svg.iter(f"{space}path"))) == 1  # no interval, no whisker
    names = [text.text or "" for text in svg.iter(f"{space}text") if text.attrib["class"] == "name"]
    assert names[0] == "a"
    assert names[1].startswith("…")
    assert "1.500 [1.400, 1.600]" in "".join(svg.itertext())


def _begins(classes: str) -> bool:
    return not {"lost", "more"} & set(classes.split())


def _opened(folder: Path, known: dict[Path, Any] = {}) -> Any:  # noqa: B006 (opened once for all examples)
    if folder not in known:
        known[folder] = open_tokenizer(folder, folder.name)
    return known[folder]


def _drawn(folder: Path, text: str, finder: Finder | None = None) -> Text:
    return drawn(Shown("x", text), [_opened(folder)], Yardsticks(None, finder or Finder([])))
