"""The command: word lists and ordinary text to a run folder with its report."""

from pathlib import Path

import pytest

from rinsho.document import Document
from rinsho.errors import UserError
from rinsho.segmentation import segment
from rinsho.tokenizer.lexicon import LexiconSettings, build, check, run, split_inputs


@pytest.fixture
def inputs(tmp_path: Path) -> list[Path]:
    words, corpus = tmp_path / "words.csv", tmp_path / "corpus"
    words.write_text(
        "surface,reading,kind\n下痢症,げりしょう,disease\n非小細胞肺癌,,disease\n患者,,\n,,x\n"
        + "".join(f"足先冷感{number}型,,finding\n" for number in range(30)),
        encoding="utf-8",
    )
    corpus.mkdir()
    with (corpus / "a.jsonl").open("wb") as file:
        texts = ["頑固な下痢症状が続いた。", "下痢症状は改善した。", "今日は晴れている。"]
        file.writelines(Document(text, str(number)).to_line() for number, text in enumerate(texts))
    return [words, corpus]


def test_the_run_folder(inputs: list[Path], tmp_path: Path) -> None:
    recipe = LexiconSettings(discount=9000, units=False)
    report = run(recipe, inputs, tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"terms.tsv", "user.dic", "left_out.tsv", "report.md", "DONE"} <= names
    false = (tmp_path / "out" / "false_merges.tsv").read_text(encoding="utf-8").splitlines()
    assert false == ["term\toccurrences\tfalse\tin_user_dic", "下痢症\t2\t2\tno"]
    numbers = report.numbers
    assert (numbers["rows"], numbers["terms"], numbers["entries"], numbers["kept_out"]) == (34, 33, 31, 1)
    assert numbers["kinds"] == {"finding": 30, "disease": 2, "term": 1}
    assert numbers["terms_without_entry"] == {"false_merge": 1, "known_word": 1}
    assert numbers["entries_whole_fraction"] == 1
    assert numbers["false_merges_before"] == 2 and numbers["false_merges_after"] == 0
    assert numbers["lists"][0]["refused"] == {"empty": 1}
    assert "| words.csv | terms | utf-8 | 34 | 33 | empty 1 | none | 31 |" in report.markdown
    assert segment("非小細胞肺癌の患者", tmp_path / "out" / "user.dic") == ["非小細胞肺癌", "の", "患者"]
    run(recipe, inputs, tmp_path / "again")
    for name in ("terms.tsv", "user.dic", "left_out.tsv"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    assert not any(
        "下痢" in (tmp_path / "out" / name).read_text(encoding="utf-8") for name in ("left_out.tsv", "report.md")
    )


def test_without_text_the_report_says_so(inputs: list[Path], tmp_path: Path) -> None:
    inputs[0].write_text("surface\nえし\n非小細胞肺癌\n", encoding="utf-8")
    lexicon = build(inputs[:1], LexiconSettings(), tmp_path)
    assert "were not measured" in lexicon.markdown
    assert lexicon.numbers["terms_without_entry"] == {"short_hiragana": 1}
    assert lexicon.dictionary == tmp_path / "user.dic"
    inputs[0].write_text("surface\n患者\n", encoding="utf-8")
    assert build(inputs[:1], LexiconSettings(units=False), tmp_path).dictionary is None
    assert not (tmp_path / "user.dic").exists()


def test_a_corpus_without_text_is_no_check(inputs: list[Path], tmp_path: Path) -> None:
    (inputs[1] / "a.jsonl").write_text("broken\n", encoding="utf-8")
    with pytest.raises(UserError, match="no text"):
        run(LexiconSettings(), inputs, tmp_path / "out")


def test_inputs_are_told_apart(inputs: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "lists"
    folder.mkdir()
    for name in ("b.tsv", "a.csv", "readme.md"):
        (folder / name).write_text("surface\n霧島病\n", encoding="utf-8")
    lists, corpora = split_inputs([*inputs, folder, tmp_path / "c.txt", tmp_path / "d.jsonl.zst"])
    assert lists == [inputs[0], folder / "a.csv", folder / "b.tsv", tmp_path / "c.txt"]
    assert corpora == [inputs[1], tmp_path / "d.jsonl.zst"]
    with pytest.raises(UserError, match="no word list"):
        split_inputs(inputs[1:])


def test_what_can_be_known_before(inputs: list[Path], tmp_path: Path) -> None:
    assert not check(LexiconSettings(), inputs)
    (tmp_path / "bad.csv").write_text("term\n霧島病\n", encoding="utf-8")
    problems = check(LexiconSettings(), [*inputs, tmp_path / "bad.csv", tmp_path / "nowhere.csv"])
    assert ["not known" in str(problems[0]), "not there" in str(problems[1])] == [True, True]
    assert len(check(LexiconSettings(), [*inputs, tmp_path / "nowhere"])) == 1


def test_named_columns_go_together_with_our_own_tables(tmp_path: Path) -> None:
    words = tmp_path / "words.csv"
    words.write_text("surface,yomi\n非小細胞肺癌,ひしょうさいぼうはいがん\n", encoding="utf-8")
    settings = LexiconSettings(surface_column="surface", reading_column="yomi")
    terms = build([words], settings, tmp_path).terms
    assert {term.reading for term in terms if term.kind == "term"} == {"ひしょうさいぼうはいがん"}
    assert any(term.kind == "unit" for term in terms)
    again = build([words, tmp_path / "terms.tsv"], settings, tmp_path).terms
    assert [term.surface for term in again] == [term.surface for term in terms]


@pytest.mark.parametrize("content", ["", "surface\n"])
def test_an_empty_list_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "words.csv").write_text(content)
    with pytest.raises(UserError, match="the word list is empty"):
        build([tmp_path / "words.csv"], LexiconSettings(), tmp_path)
