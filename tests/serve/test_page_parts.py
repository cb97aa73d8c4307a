"""What the page counts, cuts and writes agrees with Python: places, segments, tables, streams."""

from __future__ import annotations

import csv
import io
import random
from collections.abc import Iterator
from typing import Any

import pytest

from serve.browsing import Visit, chromium
from serve.page_server import PageServer

pytestmark = [pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1"])]

ALPHABET = "肺癌ｶﾞa1 \n\t𠮷🩺👩‍⚕️\u200d\u0301が"


@pytest.fixture(scope="module")
def page() -> Iterator[Any]:
    with chromium() as browser, PageServer({}) as toy:
        visit = Visit(browser, toy.url)
        yield visit.page
        visit.close()


def texts(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return ["", "𠮷", *("".join(draw.choices(ALPHABET, k=draw.randrange(30))) for _ in range(count))]


def test_places_are_code_points_as_python_counts_them(page: Any) -> None:
    given = texts(60, 1)
    found = page.evaluate(
        """async (texts) => { const { Offsets, codePoints } = await import("/static/offsets.js");
          return texts.map((text) => { const offsets = new Offsets(text); const count = codePoints(text);
            const units = [...Array(count + 1).keys()].map((point) => offsets.toUnits(point));
            return [count, units, units.map((unit) => offsets.toPoints(unit)), offsets.toUnits(count + 5)]; }); }""",
        given,
    )
    for text, (count, units, points, behind) in zip(given, found, strict=True):
        assert count == len(text)
        assert units == [len(text[:point].encode("utf-16-le")) // 2 for point in range(len(text) + 1)]
        assert points == list(range(len(text) + 1)) and behind == units[-1]


def test_segments_cover_the_text_once_under_all_their_spans(page: Any) -> None:
    draw = random.Random(2)
    for length in (0, 1, 7, 40):
        spans = [
            {"id": number, "start": start, "end": start + draw.randrange(-1, 12)}
            for number, start in enumerate(draw.choices(range(-1, length + 2), k=9))
        ]
        found = page.evaluate(
            """async ([length, spans]) => (await import("/static/segments.js")).segments(length, spans)
              .map(({ start, end, spans }) => [start, end, spans.map((span) => span.id)])""",
            [length, spans],
        )
        real = [span for span in spans if 0 <= span["start"] < span["end"] <= length]
        assert [unit for start, end, _ in found for unit in range(start, end)] == list(range(length))
        for start, end, ids in found:
            for unit in range(start, end):
                assert set(ids) == {span["id"] for span in real if span["start"] <= unit < span["end"]}
            lengths = [spans[one]["end"] - spans[one]["start"] for one in ids]
            assert lengths == sorted(lengths, reverse=True)


def test_tables_are_read_back_and_no_cell_is_a_formula(page: Any) -> None:
    given = [*texts(40, 3), "=1", "@x", "\t=1", "+81", "-1.5", "-x", "+1+2", 'a"b', "a,b", "a\r\nb", "-", "\r=1"]
    saved = page.evaluate(
        """async (texts) => (await import("/static/csv.js")).csv(texts.map((text) => ({ text, start: 0, unsure: false, probability: null })))""",
        given,
    )
    assert saved.startswith("\ufeff") and saved.endswith("\r\n")
    rows = list(csv.DictReader(io.StringIO(saved[1:], newline="")))
    assert [row["text"].removeprefix("'") for row in rows] == given
    for row in rows:
        assert not row["text"].startswith(("=", "@", "\t", "\r")) and row["probability"] == "" and row["start"] == "0"
    kept = {row["text"] for row in rows}
    assert {"+81", "-1.5", "'-x", "'+1+2", "'=1", "'-"} <= kept


def test_event_streams_are_read_however_they_are_cut(page: Any) -> None:
    events = ['{"a":"肺癌🩺"}', '{"b":1}', "[DONE]"]
    raw = "".join(f": comment\r\n\r\ndata: {event}\r\n\r\n" for event in events).encode()
    cut = """async ([bytes, size]) => { const { events } = await import("/static/api.js"); const found = [];
      const body = new ReadableStream({ start(to) {
        for (let at = 0; at < bytes.length; at += size) to.enqueue(new Uint8Array(bytes.slice(at, at + size))); to.close(); } });
      for await (const data of events(body)) found.push(data); return found; }"""
    for size in (1, 2, 3, 7, 64, 1000):
        assert page.evaluate(cut, [list(raw), size]) == events
