"""The corpus report from invented numbers: the funnel adds up, hostile names stay text, old and empty runs are shown."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpus_run import write_run
from rinsho.corpus import Recipe
from rinsho.corpus.filters import from_recipe
from rinsho.corpus.report import charts, make_report, page, read_run, rewrite, view
from rinsho.corpus.report.token_counts import COUNTS, with_tokens
from rinsho.document import Document, shard_paths
from rinsho.errors import UserError

NUMBERS: dict[str, Any] = {
    "documents_read": 1_000,
    "documents_not_sampled": 250,
    "documents_kept": 500,
    "documents_validation": 25,
    "bytes_read": 4_000_000,
    "bytes_kept": 1_900_000,
    "characters_kept": 650_000,
    "dropped": {  # in no good order, as an older version wrote it
        "near_duplicate": {"documents": 60, "bytes": 240_000},
        "too_short": {"documents": 200, "bytes": 10_000},
        "poison": {"documents": 40, "bytes": 150_000},
        "duplicate": {"documents": 200, "bytes": 1_600_000},
    },
    "sources": {
        "web": {"documents_read": 900, "documents_kept": 420, "bytes_kept": 1_425_000},
        "退院サマリー": {"documents_read": 100, "documents_kept": 80, "bytes_kept": 475_000},
    },
    "cleaning": {"width": 12_345, "periods": 3},
    "personal": {"url": 7, "email": 0, "postal_code": 1, "account": 2, "phone": 1_234},
    "broken": {"records": 2, "reasons": {"invalid_json": 2}},
    "near": {
        "threshold": 0.7, "candidates": 90, "compared": 120,
        "index_memory_bytes_per_document": 251.4, "index_disk_bytes_per_document": 402.0,
    },
    "sentences": {"frequent": 4, "removed": 88, "removed_bytes": 5_500, "documents_changed": 61},
    "contamination": {"mode": "report", "documents": 3},
    "lengths": {"edges": [0, 50, 100, 200], "read": [0, 300, 700, 0], "kept": [0, 100, 400, 0]},
    "examples": {"too_short": [["a-1", 3], ["a-2", 7]], "poison": [["b-1", 2]]},
}  # fmt: skip
SETTINGS = {"min_chars": 20, "max_size_mb": 4.0, "word_lists": {"poison": "lists/毒.txt"}, "max_listed_words": 0}


class Tags(HTMLParser):
    """Which tags and attributes a page really has, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


def test_funnel_goes_through_the_steps_in_order_and_adds_up() -> None:
    steps = view.funnel(SETTINGS, NUMBERS)
    assert [step.label for step in steps] == [
        "found", "not sampled", "too_short", "poison", "duplicate", "near_duplicate", "cleaning", "kept",
    ]  # fmt: skip
    assert steps[0].documents - sum(step.documents for step in steps[1:-2]) == steps[-1].documents == 500
    sizes = {step.label: step.size_bytes or 0 for step in steps}
    assert 4_000_000 - sum(sizes[step.label] for step in steps[1:-1]) == sizes["kept"]
    shares = {step.label: round(step.share, 4) for step in steps}
    assert shares["not sampled"] == 0.2  # of 1,250
    assert shares["too_short"] == 0.2  # of 1,000
    assert shares["poison"] == 0.05  # of 800
    assert shares["near_duplicate"] == round(60 / 560, 4)
    assert shares["kept"] == 0.5  # of what was read
    assert [step.after for step in steps[:4]] == [1.0, 0.8, 0.64, 0.608]
    assert steps[3].meaning == "words of your own list 毒.txt"
    assert (steps[1].setting, steps[2].setting) == ("max_size_mb: 4.0", "min_chars: 20")


def test_reasons_stand_in_the_order_of_the_filters(tmp_path: Path) -> None:
    (tmp_path / "毒.txt").write_text("毒薬\n")
    recipe = Recipe(
        word_lists={"poison": tmp_path / "毒.txt", "adult": tmp_path / "毒.txt"}, max_chars=9_000, max_adult_words=0
    )
    one = "★★" * 40 + "毒薬 無修正 出会い系 送料無料 激安 カートに入れる 最安値 © 2024 "
    seen = []
    for text in (
        one,
        one * 200,
        "Fever. " * 9 + "今日も一日元気に過ごしましょう" + "\n今日も一日元気に過ごしましょう" * 20,
    ):
        found = [drop.reason for rule in from_recipe(recipe) if (drop := rule(Document(text, "x")))]
        assert view.in_order(reversed(found), recipe.model_dump(mode="json")) == found
        seen += found
    own = {"contaminated", "duplicate", "near_duplicate", "boilerplate", "too_short"}
    assert set(seen) == view.REASONS.keys() - own | {"poison"}
    assert view.explained("adult", recipe.model_dump(mode="json"))[0] == "several words of adult pages"


def test_every_filter_reason_of_ours_is_explained() -> None:
    settings_ = Recipe().model_dump(mode="json")
    for reason, (meaning, keys) in view.REASONS.items():
        assert view.explained(reason, settings_)[0] == meaning
        assert set(keys) <= settings_.keys()


def test_markdown_has_all_parts() -> None:
    text = make_report(SETTINGS, NUMBERS).markdown
    assert "Of 1,000 documents that were read (4.00 MB), 500 are kept (50.0 %): 1.90 MB of clean text" in text
    assert "| dropped: too_short | -200 | -10.0 kB | 20.0 % |" in text
    assert "| web | 900 | 420 | 1.43 MB | 75.0 % |" in text
    assert "| 50 to 99 | 300 | 100 |" in text
    assert "phone numbers 1,234" in text
    assert "251 bytes of memory and 402 bytes of disk a document" in text
    assert "Documents with a passage of the benchmark files, listed and kept: 3 (" in text
    assert "invalid_json 2 (dropped/broken.jsonl says where)" in text
    assert "| too_short | a-1 (3), a-2 (7) |" in text
    assert "rinsho corpus inspect RUN --reason REASON" in text


def test_page_is_whole_self_contained_and_the_same_every_time() -> None:
    html = page(SETTINGS, NUMBERS, title="demo", seconds=75)
    found = Tags(html)
    assert html == page(SETTINGS, NUMBERS, title="demo", seconds=75)
    assert {"src", "href", "onclick", "onload"}.isdisjoint(found.attributes)
    assert {"script", "link", "img", "iframe"}.isdisjoint(found.tags)
    assert "url(" not in html
    assert found.tags.count("svg") == 2
    for part in ("1 min 15 s", "near_duplicate", "退院サマリー", "25.0 %", "1,234", "a-2", "--reason poison"):
        assert part in found.text, part
    assert html.count("<table") == html.count("</table>") == 7


def test_settings_as_recipe_and_as_read_from_a_file_are_alike() -> None:
    assert page(Recipe(), NUMBERS, title="x") == page(Recipe().model_dump(mode="json"), NUMBERS, title="x")


@pytest.mark.parametrize(
    "numbers",
    [
        {},
        {"documents_read": 5, "bytes_read": 9, "dropped": {"too_short": {"documents": 5, "bytes": 9}}},
        {**NUMBERS, "bytes_kept": 0, "documents_kept": 0, "sources": {"web": {"documents_read": 1_000}}},
        {
            key: None if isinstance(value, dict) and key in ("near", "lengths") else value
            for key, value in NUMBERS.items()
        },
        {**NUMBERS, "lengths": {"edges": [0, 50], "read": [1], "kept": [1]}, "near": {}, "sentences": {"frequent": 0}},
        {**NUMBERS, "dropped": {"too_short": {"documents": 9_999, "bytes": 9_999_999_999}}},
    ],
)
def test_missing_and_impossible_numbers(numbers: dict[str, Any]) -> None:
    assert make_report({}, numbers).markdown.startswith("Of ")
    assert "</html>" in page({}, numbers, title="x")


def test_personal_data_that_was_kept_is_not_said_to_be_counted() -> None:
    text = make_report({"personal": "keep"}, NUMBERS).markdown
    assert "Personal data left in the text and not counted" in text
    assert "1,234" not in text


def test_names_of_an_attacker_stay_text() -> None:
    name = '<script>alert(1)</script>|`x`|</svg>"><img src=x onerror=y>\x1b[31m\u202e\ud800' + "長" * 500
    row = {"documents_read": 1_000, "documents_kept": 500, "bytes_kept": 1_900_000}
    numbers = {
        **NUMBERS,
        "sources": {name: row},
        "dropped": {name: {"documents": 500, "bytes": 5}},
        "examples": {name: [[name, name]]},
        "cleaning": {name: 1},
        "broken": {"records": 1, "reasons": {name: 1}},
        "tokens": {"tokenizer": name, "tokens": 5, "estimated": False, "sources": {name: {"tokens": 5}}},
    }
    html, text = page(SETTINGS, numbers, title=name), make_report(SETTINGS, numbers).markdown
    found = Tags(html)
    assert {"script", "img"}.isdisjoint(found.tags)
    assert "onerror" not in found.attributes
    assert "長" * 61 not in html
    for character in "\x1b\u202e\ud800":
        assert character not in html
        assert character not in text
    assert "<script" not in text
    lines = [line for line in text.splitlines() if "alert" in line and line.startswith("|")]
    cells = {len(re.split(r"(?<!\\)\|", line)) for line in lines}
    assert cells == {4, 7, 10}  # two, five and eight columns: examples and cleaning, funnel, sources with tokens
    html.encode()


NAMES = st.text(st.characters(exclude_categories=[]), max_size=80)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(NAMES, st.integers(0, 10**13), max_size=40), NAMES)
def test_any_source_names_and_sizes_give_well_formed_pictures(sources: dict[str, int], reason: str) -> None:
    rows = {name: {"documents_read": 1, "documents_kept": 1, "bytes_kept": size} for name, size in sources.items()}
    numbers = {
        **NUMBERS, "sources": rows, "bytes_kept": sum(sources.values()), "dropped": {reason: {"documents": 3, "bytes": 4}},
    }  # fmt: skip
    found = view.source_rows(numbers)
    assert sum(row.bytes_kept for row in found) == sum(sources.values())
    assert len(found) <= view.SOURCES + 1
    picture = charts.shares(found)
    if picture:
        root = ElementTree.fromstring(picture)
        widths = [float(node.attrib["width"]) for node in root.iter() if node.attrib.get("class") == "kept"]
        assert len(widths) <= charts.BARS
        assert all(0 < width <= charts.WIDTH for width in widths)
    html = page(SETTINGS, numbers, title=reason)
    assert Tags(html).tags.count("h1") == 1
    assert make_report(SETTINGS, numbers).markdown.encode()


def test_thousands_of_sources_are_thirty_rows_and_the_others() -> None:
    rows = {f"s{n:04d}": {"documents_read": 2, "documents_kept": 1, "bytes_kept": 10} for n in range(3_000)}
    rows["s2999"]["bytes_kept"] = 10_000
    numbers = {**NUMBERS, "sources": rows, "bytes_kept": 2_999 * 10 + 10_000}
    found = view.source_rows(numbers)
    assert [row.name for row in found[:2]] == ["s2999", "s0000"]
    assert found[-1].name == "other (2,970 sources)"
    assert (len(found), found[-1].documents_kept) == (31, 2_970)
    assert sum(row.share_of_bytes for row in found) == pytest.approx(1)
    picture = charts.shares(found)
    assert "all others: 74.7 % of the bytes" in picture
    assert len(page({}, numbers, title="x")) < 60_000


def test_histogram_bars_are_as_high_as_their_counts() -> None:
    rows = view.length_rows(NUMBERS)
    assert rows == [(50, 100, 300, 100), (100, 200, 700, 400)]  # without the empty ends
    root = ElementTree.fromstring(charts.histogram(rows))
    heights = {
        kind: [float(node.attrib["height"]) for node in root.iter() if node.attrib.get("class") == kind]
        for kind in ("read", "kept")
    }
    assert heights["read"][1] / heights["read"][0] == pytest.approx(7 / 3, rel=0.01)
    assert heights["kept"][1] / heights["read"][1] == pytest.approx(4 / 7, rel=0.01)
    assert charts.histogram([]) == "" == charts.shares([])
    last = view.length_rows({"lengths": {"edges": [0, 50], "read": [1, 2], "kept": [1, 1]}})[-1]
    assert last == (50, None, 2, 1)


DOCUMENTS = [
    [Document(f"患者は急性心筋梗塞の疑い。発熱{n}日。", f"w-{n}", {"source": "web"}) for n in range(30)],
    [Document("咳嗽を認め、肺癌の疑い。" * (n + 1), f"h-{n}", {"source": "hospital"}) for n in range(12)],
]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    dropped = [[Document("短い。", "x-1", {"source": "web", "reason": "too_short", "value": 3})]]
    return write_run(tmp_path / "demo" / "corpus", DOCUMENTS, dropped, settings={"min_chars": 20, "gone_setting": 1})


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    from rinsho.chat import BEGIN, END
    from rinsho.tokenization import wrap
    from toy_models import WORDS

    pieces = [("<unk>", 0.0), (BEGIN, 0.0), (END, 0.0), *((f"<0x{byte:02X}>", -20.0) for byte in range(256))]
    pieces += [(word, -3.0 - 2.0 / len(word)) for word in WORDS if word != "\n"]
    folder = tmp_path_factory.mktemp("tokenizer") / "toy"
    wrap(pieces, segment="plain", split_digits=False, byte_fallback=True).save_pretrained(folder)
    return folder


def test_rewriting_a_finished_run(run: Path) -> None:
    done = (run / "DONE").read_bytes()
    report = rewrite(run)
    assert (
        json.loads((run / "report.json").read_text())["markdown"] == report.markdown == (run / "report.md").read_text()
    )
    html = (run / "report.html").read_text()
    assert "<title>rinsho corpus: demo</title>" in html
    assert "1 min 15 s" in html
    assert (run / "DONE").read_bytes() == done
    assert rewrite(run.parent) == report  # the folder of a whole chain stands for the corpus in it
    assert not [path for path in run.iterdir() if path.name.endswith(".aside")]


def test_tokens_by_source(run: Path, tokenizer: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from rinsho.tokenization import load

    loaded = load(tokenizer)
    expected = {
        shard[0].meta["source"]: sum(len(loaded.encode_text(document.text)) for document in shard)
        for shard in DOCUMENTS
    }
    before = sorted(path for path in run.rglob("*.zst"))
    tokens = with_tokens(run, tokenizer).numbers["tokens"]
    assert {source: row["tokens"] for source, row in tokens["sources"].items()} == expected
    assert tokens["tokens"] == sum(expected.values())
    assert not tokens["estimated"]
    characters = sum(len(document.text) for shard in DOCUMENTS for document in shard)
    assert tokens["characters_per_token"] == pytest.approx(characters / tokens["tokens"], abs=1e-4)
    assert "counting tokens" in capsys.readouterr().err
    html = (run / "report.html").read_text()
    assert f"{expected['hospital']:,}" in html
    assert "of the tokens" in html
    text = rewrite(run).markdown  # tokens that are known stay
    assert f"| web | 31 | 30 | {view.size(read_run(run).numbers['sources']['web']['bytes_kept'])} |" in text
    assert f"{expected['web']:,}" in text
    assert str(run.parent) not in (run / "report.json").read_text()
    assert sorted(path for path in run.rglob("*.zst")) == before
    assert shard_paths([run]) == [path for path in before if "shards" in path.parts]  # the counts are no documents


def test_counting_continues_where_it_stopped(run: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from rinsho.corpus.report import token_counts

    whole = with_tokens(run, tokenizer)
    first, _second = (run / COUNTS).read_bytes().splitlines(keepends=True)
    (run / COUNTS).write_bytes(first + _second[:20])  # killed while it wrote the second line
    counted = []
    real = token_counts.count_shard
    monkeypatch.setattr(token_counts, "count_shard", lambda job: counted.append(job.name) or real(job))
    assert with_tokens(run, tokenizer) == whole
    assert len(counted) == 1
    assert with_tokens(run, tokenizer) == whole
    assert len(counted) == 1


def test_two_processes_count_the_same(run: Path, tokenizer: Path) -> None:
    two = with_tokens(run, tokenizer, workers=2)
    assert len((run / COUNTS).read_bytes().splitlines()) == 2
    (run / COUNTS).unlink()
    assert with_tokens(run, tokenizer, workers=1) == two


def test_tokens_of_a_sample_are_scaled_up(run: Path, tokenizer: Path) -> None:
    exact = with_tokens(run, tokenizer).numbers["tokens"]
    sampled = with_tokens(run, tokenizer, max_documents_per_source=15).numbers["tokens"]
    web, hospital = sampled["sources"]["web"], sampled["sources"]["hospital"]
    assert hospital == exact["sources"]["hospital"]  # 12 documents: all of them
    assert 0 < web["counted_documents"] < 30
    assert web["estimated"]
    assert web["tokens"] == pytest.approx(exact["sources"]["web"]["tokens"], rel=0.1)
    assert "about" in (run / "report.md").read_text()


def test_tokens_of_a_changed_run_are_refused(run: Path, tokenizer: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no rinsho tokenizer"):
        with_tokens(run, tmp_path)
    (run / "shards/00001-000.jsonl.zst").write_bytes(b"")
    with pytest.raises(UserError, match=r"00001-000\.jsonl\.zst: a product is missing or was changed"):
        with_tokens(run, tokenizer)


def test_folders_that_are_no_finished_corpus_run(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none: not there"):
        read_run(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="not a run folder"):
        read_run(tmp_path / "empty")
    (run / "recipe.resolved.yaml").write_text("a: [")
    with pytest.raises(UserError, match="cannot be read"):
        read_run(run)
    (run / "DONE").unlink()
    with pytest.raises(UserError, match="this run has not finished"):
        read_run(run)
    (run / "manifest.json").write_text('{"stage": "pretrain"}')
    with pytest.raises(UserError, match="a run of pretrain; expected the --out folder of a finished rinsho corpus"):
        read_run(run)
