"""report.html: whole, opens offline, and hostile text cannot break it."""

import re
from html.parser import HTMLParser

import pytest

from evaluate.toy_numbers import choice, entities, exam, numbers
from rinsho import score_figures, score_page
from rinsho.evaluate.boards import boards
from rinsho.evaluate.page import write

HOSTILE = "<script>alert(1)</script>\x00\ud800 {{ 7*7 }} </pre>]]> $x_1$"


class Page(HTMLParser):
    """Tags that are open at the end, and every address."""

    VOID = ("meta", "br", "link", "img", "input", "hr")

    def __init__(self, text):
        super().__init__()
        self.open, self.wrong, self.addresses, self.tags = [], [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.add(tag)

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def evaluation(**more):
    told = numbers([exam(2018), choice("crade"), entities("nrner")], **more)
    told["samples"] = [
        {"id": "crade/00001", "mode": "free", "prompt": HOSTILE, "gold": ["A"], "answer": HOSTILE, "value": 0.0}
    ]
    told["leakage"] = [{"task": "crade", "source": "tuned on", "passages": 9, "exact": 1, "near": 2, "share": 1 / 3}]
    told["classes"] = [{"task": "crade", "mode": "free", "label": HOSTILE, "gold": 1, "given": 2, "precision": None,
                        "recall": 0.5, "f1": None}]  # fmt: skip
    return told | {"boards": boards([told], published=True)}


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return write(evaluation(model=f"model {HOSTILE}"), tmp_path_factory.mktemp("page") / "report.html").read_text()


def test_page_of_one_evaluation_has_every_part(one):
    for part in ("Among published scores", "Scores", "Leakage", "Examinations", "By class", "Sample answers", "<svg"):
        assert part in one
    assert "GPT-4" in one
    assert 'content="default-src' in one


def test_hostile_text_is_escaped_and_every_tag_closed(one):
    page = Page(one)
    assert page.wrong == []
    assert page.open == []
    assert "script" not in page.tags
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in one
    assert "{{ 7*7 }}" in one


def test_page_opens_offline(one):
    assert all(address.startswith("#") for address in Page(one).addresses)
    assert not re.search(r"@import|url\((?!#)", one)


def test_page_of_several_models_has_comparisons_and_curves(tmp_path):
    models, over = [], []
    for step in (1, 2):
        name = f"step-{step}"
        models.append({"name": name, "folder": name, "numbers": evaluation(seen_tokens=step * 10**9)})
        over.append({"run": HOSTILE, "model": name, "seen_tokens": step * 10**9, "task": "igakuqa", "mode": "free",
                     "metric": "share_of_points", "n": 400, "score": 0.1 * step, "interval": [0.05, 0.3],
                     "chance": 0.187})  # fmt: skip
    pair = {"task": "crade", "mode": "free", "model": "step-2", "against": "step-1", "metric": "accuracy", "n": 9, "of": 9,
            "score": 0.5, "score_against": 0.4, "difference": 0.1, "interval": [0.01, 0.2], "p_value": 0.03,
            "p_holm": 0.06, "test": "McNemar, exact"}  # fmt: skip
    length = {
        "task": "crade",
        "model": "step-1",
        "n": 9,
        "tokens": None,
        "chars": 4.0,
        "tokens_ratio": None,
        "chars_ratio": 1.0,
    }
    told = {
        "models": models,
        "boards": [],
        "paired": [pair],
        "over_tokens": over,
        "lengths": [length],
        "notes": ["a & b"],
    }
    text = write(told, tmp_path / "report.html").read_text()
    page = Page(text)
    assert page.wrong == []
    assert page.open == []
    assert {"step-1/report.html", "step-2/report.html"} <= set(page.addresses)
    assert '<td class="n">+0.100</td>' in text  # p (Holm) is above .05
    for part in (
        "Paired comparisons",
        "McNemar, exact",
        "<th>metric</th>",
        "within a family",
        "+0.100",
        "Over seen tokens",
        "a &amp; b",
        "pass line",
    ):
        assert part in text


def test_page_without_matplotlib_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    text = write(evaluation(), tmp_path / "report.html").read_text()
    assert score_page.NO_FIGURES.replace("'", "&#39;") in text
    assert "<svg" not in text


def test_numbers_of_an_earlier_version_can_be_shown():
    row = choice("crade", baselines={"majority": 0.25})
    for name in ("rotation", "leaked"):
        del row[name]
    found = score_page.view(
        {"scores": [row], "leakage": [{"task": "crade", "passages": 9, "known": 3, "share": 1 / 3}]}
    )
    assert found["leakage"][0]["exact"] == 3
    assert found["boards"] == []
    assert not found["rotated"]


def test_curve_over_tokens_has_a_band_a_chance_line_and_every_series():
    rows = [{"run": run, "mode": "free", "seen_tokens": tokens * 10**9, "score": 0.2, "interval": [0.1, 0.3],
             "chance": 0.187, "task": "crade", "metric": "accuracy"} for run in ("dense", "wide") for tokens in (2, 1)]  # fmt: skip
    drawn = score_figures.over_tokens(rows, "crade")
    assert drawn.startswith("<svg")
    for part in ("dense", "wide", "chance", "seen tokens", "accuracy"):
        assert part in drawn
    assert "pass line" not in drawn
    assert score_figures.over_tokens([]) == ""
