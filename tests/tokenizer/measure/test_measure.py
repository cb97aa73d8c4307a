"""rinsho tokenizer measure from its own door: figures worked out by hand, products, errors, and nothing that leaks."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rinsho.errors import UserError
from rinsho.run import Report
from rinsho.tokenizer.measure import figures, measure

TEXTS = ("患者は発熱。", "肺炎。彁", "患者は 発熱")  # 6 + 4 + 6 characters, 18 + 12 + 16 bytes
ALL = ("strict", "plain", "words", "pairs", "letters", "bert")


@pytest.fixture
def ward(write_texts: Any) -> Path:
    return write_texts("ward", *TEXTS, sources=("notes", "notes", "letters"))


def _terms(folder: Path) -> Path:
    path = folder / "terms.csv"
    path.write_text("surface,kind\n肺炎,disease\n発熱,symptom\n患者は発熱,phrase\n", encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def report(folders: Mapping[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Report:
    root = tmp_path_factory.mktemp("measure")
    lines = [
        json.dumps({"id": f"ward-a{place}", "text": text, "source": "letters" if place == 2 else "notes"})
        for place, text in enumerate(TEXTS)
    ]
    (root / "ward.jsonl").write_text("\n".join(lines), encoding="utf-8")
    texts = {"ward": root / "ward.jsonl"}
    return measure([folders[name] for name in ALL], texts, lexicon=[_terms(root)], out=root / "out")


def _fit(report: Report, name: str, text_set: str = "ward") -> dict[str, Any]:
    label = "strict/plain" if name == "plain" else name
    found: dict[str, Any] = report.numbers["fit"][text_set][label]
    return found


# tokens, parts of characters, unknown, crossing a word boundary, documents that do not come back
@pytest.mark.parametrize(
    ("name", "tokens", "partial", "unknown", "crossing", "failures"),
    [
        ("strict", 4 + 5 + 4, 3, 0, 0, []),
        ("plain", 3 + 5 + 4, 3, 0, 1, []),  # は発熱
        ("words", 1 + 1 + 2, 0, 2, 3, ["ward-a0", "ward-a1"]),  # [UNK], [UNK], 患者は
        ("pairs", 1 + 4 + 5, 0, 4, 1, ["ward-a1", "ward-a2"]),
        ("letters", 13 + 12 + 11, 12 + 12 + 9, 0, 0, []),  # the space and 患者 are whole characters
    ],
)
def test_the_figures_worked_out_by_hand(
    report: Report, name: str, tokens: int, partial: int, unknown: int, crossing: int, failures: list[str]
) -> None:
    fit = _fit(report, name)
    assert (fit["documents"], fit["characters"], fit["tokens"]) == (3, 16, tokens)
    assert fit["characters_per_token"] == pytest.approx(16 / tokens)
    assert fit["bytes_per_token"] == pytest.approx(46 / tokens)
    assert fit["tokens_per_document"] == pytest.approx(tokens / 3)
    assert fit["byte_fallback_fraction"] == pytest.approx(partial / tokens)
    assert fit["unknown_fraction"] == pytest.approx(unknown / tokens)
    assert fit["crossing_fraction"] == pytest.approx(crossing / tokens)
    assert (fit["round_trip_failures"], fit["failed_ids"]) == (len(failures), failures)
    assert fit["tokens_per_second"] > 0


def test_a_tokenizer_without_offsets_has_the_other_figures(report: Report) -> None:
    fit = _fit(report, "bert")
    assert (fit["tokens"], fit["crossing_fraction"]) == (4 + 3 + 3, None)
    assert fit["unknown_fraction"] == pytest.approx(1 / 10)  # 彁
    assert (fit["round_trip_failures"], fit["round_trip_failures_in_white_space"]) == (3, 2)
    assert report.numbers["lexicon"]["bert"]["occurrences"] is None
    assert report.numbers["lexicon"]["bert"]["single_fraction"] == pytest.approx(2 / 3)


def test_the_same_text_set_by_source_and_against_the_first(report: Report) -> None:
    notes = report.numbers["sources"]["ward"]["notes"]
    assert {name: row["characters_per_token"] for name, row in notes.items()} == pytest.approx(
        {"strict": 10 / 9, "strict/plain": 10 / 8, "words": 10 / 2, "pairs": 10 / 5, "letters": 10 / 25, "bert": 10 / 7}
    )
    assert list(report.numbers["sources"]["ward"]) == ["notes", "letters"]  # most text first
    assert "ratio_to_first" not in _fit(report, "strict")
    assert _fit(report, "plain")["ratio_to_first"] == pytest.approx(13 / 12)
    assert "+8.3 %" in report.markdown


def test_vocabularies(report: Report) -> None:
    rows = report.numbers["tokenizers"]
    assert [(row["kind"], row["vocab_size"]) for row in rows.values()] == [
        ("rinsho strict", 280), ("rinsho plain", 280), ("WordLevel", 4), ("BPE", 12), ("byte-level BPE", 261),
        ("BertJapaneseTokenizer", 13),
    ]  # fmt: skip
    assert rows["strict"]["vocabulary_used_fraction"] == pytest.approx(9 / 280)  # five words, a space, three bytes
    assert rows["words"]["vocabulary_used_fraction"] == pytest.approx(3 / 4)  # [UNK], 患者は, 発熱
    assert report.numbers["reference"].endswith("no user dictionary")


def test_terms_alone_and_in_the_text(report: Report) -> None:
    rows = report.numbers["lexicon"]
    assert report.numbers["lexicon_terms"] == 3

    def figures_of(name: str) -> list[float]:
        row = rows[name]
        assert row["occurrences"] == 3  # the longest: 患者は発熱, 肺炎, 発熱
        return [row["single_fraction"], row["pieces_per_term"], row["single_occurrences_fraction"],
                row["pieces_per_occurrence"]]  # fmt: skip

    assert figures_of("strict") == pytest.approx([2 / 3, 5 / 3, 2 / 3, 5 / 3])
    assert figures_of("strict/plain") == pytest.approx([2 / 3, 4 / 3, 2 / 3, 4 / 3])
    assert figures_of("words") == pytest.approx([2 / 3, 1, 1 / 3, 1])  # [UNK] is no piece
    assert figures_of("letters") == pytest.approx([0, (6 + 6 + 10) / 3, 0, (10 + 6 + 6) / 3])


def test_intervals_hold_the_value_and_compare_in_pairs(folders: Mapping[str, Path], write_texts: Any) -> None:
    mixed = write_texts("mixed", *(text for text in TEXTS for _ in range(7)))
    same = write_texts("same", *(TEXTS[0] for _ in range(5)))
    one = write_texts("one", TEXTS[0])
    report = measure(
        [folders["strict"], folders["plain"]], {"mixed": mixed, "same": same, "one": one}, out=mixed.parent / "out"
    )
    for name in ("strict", "plain"):
        fit = _fit(report, name, "mixed")
        low, high = fit["characters_per_token_interval"]
        assert low < fit["characters_per_token"] < high
        assert _fit(report, name, "same")["characters_per_token_interval"] == pytest.approx(
            (_fit(report, name, "same")["characters_per_token"],) * 2
        )
        assert _fit(report, name, "one")["characters_per_token_interval"] is None
    low, high = _fit(report, "plain", "mixed")["ratio_to_first_interval"]
    assert 1 <= low < 13 / 12 < high < 4 / 3  # each draw lies between no such document and only such documents


def test_the_same_inputs_give_the_same_products(folders: Mapping[str, Path], ward: Path) -> None:
    terms = _terms(ward.parent)

    def run(name: str) -> tuple[Report, dict[str, bytes]]:
        out = ward.parent / name
        report = measure([folders["strict"], folders["pairs"]], {"ward": ward}, lexicon=[terms], out=out)
        return report, {file: (out / file).read_bytes() for file in ("page.html", "characters_per_token.svg")}

    (one, products), (two, again) = run("one"), run("two")
    assert products == again
    for report in (one, two):
        for fit in report.numbers["fit"]["ward"].values():
            assert fit.pop("tokens_per_second") > 0
            assert fit.pop("mb_per_second") > 0
    assert one.numbers == two.numbers


def test_unchanged_is_skipped_and_another_text_refused(
    folders: Mapping[str, Path], ward: Path, write_texts: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ward.parent / "out"
    first = measure([folders["strict"]], {"ward": ward}, out=out)
    assert "unchanged, skipped" not in capsys.readouterr().err
    again = measure([folders["strict"]], {"ward": ward}, out=out)
    assert "unchanged, skipped" in capsys.readouterr().err
    assert json.dumps(first.numbers) == json.dumps(again.numbers)
    with pytest.raises(UserError, match="other inputs"):
        measure([folders["strict"]], {"ward": write_texts("other", "別の文。")}, out=out)
    with pytest.raises(UserError, match="another recipe"):
        measure([folders["strict"]], {"clinic": ward}, out=out)


def test_an_interrupted_run_goes_on(folders: Mapping[str, Path], ward: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[str] = []
    count = figures.count

    def once(tokenizer: Any, *rest: Any) -> figures.Counts:
        if len(counted) == 1:
            raise KeyboardInterrupt
        counted.append(tokenizer.label)
        return count(tokenizer, *rest)

    out = ward.parent / "out"
    monkeypatch.setattr(figures, "count", once)
    with pytest.raises(KeyboardInterrupt):
        measure([folders["strict"], folders["plain"]], {"ward": ward}, out=out)
    counted.clear()
    report = measure([folders["strict"], folders["plain"]], {"ward": ward}, out=out)
    assert counted == ["strict/plain"]
    assert _fit(report, "strict")["tokens"] == 13


def test_texts_stand_in_the_page_only_when_they_are_shown(folders: Mapping[str, Path], write_texts: Any) -> None:
    ward = write_texts("ward", "患者は発熱。秘密の文。", "\u202e秘密の文。")
    for name, show in (("quiet", None), ("shown", ward / "a.jsonl.zst")):
        out = ward.parent / name
        report = measure([folders["strict"], folders["words"]], {"ward": ward}, show=show, out=out)
        holding = {path.name for path in out.rglob("*") if path.is_file() and "秘" in path.read_text(encoding="utf-8")}
        assert holding == ({"page.html"} if show else set())
        assert "秘" not in report.markdown + json.dumps(report.numbers, ensure_ascii=False)


def test_names_from_outside_cannot_break_the_tables(folders: Mapping[str, Path], write_texts: Any) -> None:
    ward = write_texts("ward", TEXTS[0], TEXTS[1], sources=("a|b\n\n# c", "<script>"))
    report = measure([folders["strict"]], {"x|<b>": ward}, out=ward.parent / "out")
    assert "| a\\|b # c |" in report.markdown
    assert "## x\\|&lt;b>" in report.markdown
    assert "<script" not in report.markdown + (ward.parent / "out" / "page.html").read_text(encoding="utf-8")


def test_what_cannot_be_measured(folders: Mapping[str, Path], ward: Path, write_texts: Any, tmp_path: Path) -> None:
    out, strict = tmp_path / "out", folders["strict"]
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "tokenizer.json").write_text('{"version": "1.0"', encoding="utf-8")
    (tmp_path / "empty").mkdir()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}), encoding="utf-8"
    )
    (foreign / "own.py").write_text("raise SystemExit('this program was run')", encoding="utf-8")
    cases: list[tuple[str, list[Path], dict[str, Path], dict[str, Any]]] = [
        ("no tokenizer;", [], {"ward": ward}, {}),
        ("no text set", [strict], {}, {}),
        ("nowhere: not there", [strict, tmp_path / "nowhere"], {"ward": ward}, {}),
        ("empty: no tokenizer in here", [tmp_path / "empty"], {"ward": ward}, {}),
        ("broken: the tokenizer cannot be opened", [strict, tmp_path / "broken"], {"ward": ward}, {}),
        ("foreign: .*never run", [foreign], {"ward": ward}, {}),
        ("named twice", [strict, strict], {"ward": ward}, {}),
        ("empty: no documents in here", [strict], {"ward": tmp_path / "empty"}, {}),
        ("no document with text in the text set blank", [strict], {"blank": write_texts("blank", " ", "\n")}, {}),
        ("terms.csv: not there", [strict], {"ward": ward}, {"lexicon": [tmp_path / "terms.csv"]}),
        ("note.txt: not there", [strict], {"ward": ward}, {"show": tmp_path / "note.txt"}),
        ("0 MB", [strict], {"ward": ward}, {"limit_mb": 0}),
    ]
    for number, (message, tokenizers, texts, options) in enumerate(cases):
        with pytest.raises(UserError, match=message):
            measure(tokenizers, texts, out=out / str(number), **options)
