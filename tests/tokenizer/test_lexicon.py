"""Word lists: what is refused, what is left out, and a dictionary build that cannot end the process."""

from pathlib import Path

import pytest

from rinsho import segmentation
from rinsho.errors import UserError
from rinsho.segmentation import segment
from rinsho.tokenizer import lexicon
from rinsho.tokenizer.lexicon import build_user_dictionary, read_terms


def _list(path: Path, *rows: str, header: str = "surface,kind") -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


def test_terms_are_cleaned_sorted_and_counted(tmp_path: Path) -> None:
    rows = ["肺炎球菌,d", "ＭＲＳＡ肺炎,d", "MRSA肺炎,d", "癌,d", "a b,d", "123,d", "いろは" * 22 + ",d"]
    terms = read_terms([_list(tmp_path / "a.csv", *rows)])
    assert terms.surfaces == ["MRSA肺炎", "肺炎球菌"]
    assert terms.rows == 7
    assert terms.left_out == {"repeated": 1, "too_short": 1, "space_or_mark": 1, "digits_only": 1, "too_long": 1}
    assert not terms.refused


def test_bad_rows_are_refused_by_line_number(tmp_path: Path) -> None:
    good = [f"肺炎{chr(0x3042 + number)}型,d" for number in range(70)]
    path = _list(tmp_path / "a.csv", *good, ",d", '"1,25-ビタミン",d', "肺\x07炎,d")
    terms = read_terms([path])
    assert terms.refused == {"empty": 1, "comma": 1, "control_character": 1}
    assert terms.refused_lines == ["a.csv:72 (empty)", "a.csv:73 (comma)", "a.csv:74 (control_character)"]
    with pytest.raises(UserError, match=r"a.csv:3 \(empty\).*2 of 3 rows"):
        read_terms([_list(tmp_path / "a.csv", "肺炎球菌,d", ",d", ",x")])


def test_tables_of_the_wrong_form(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no column surface"):
        read_terms([_list(tmp_path / "a.csv", "肺炎", header="term")])
    (tmp_path / "b.csv").write_bytes("surface\n肺炎".encode("cp932"))
    with pytest.raises(UserError, match="not readable as a table"):
        read_terms([tmp_path / "b.csv"])
    assert read_terms([_list(tmp_path / "c.tsv", "x\t肺炎球菌", header="id\tsurface")]).surfaces == ["肺炎球菌"]


def test_the_dictionary_keeps_terms_whole_and_ordinary_words_as_they_are(tmp_path: Path) -> None:
    target = tmp_path / "a folder with spaces" / "user.dic"
    target.parent.mkdir()
    terms = ["非小細胞肺癌", "発作性夜間ヘモグロビン尿症", "患者"]
    assert build_user_dictionary(terms, target, 3000) == 2  # 患者 is known already
    first = target.read_bytes()
    assert segment("非小細胞肺癌の患者", target) == ["非小細胞肺癌", "の", "患者"]
    assert "非小細胞肺癌" not in segment("非小細胞肺癌")
    assert build_user_dictionary(terms, tmp_path / "user.dic", 3000) == 2
    assert (tmp_path / "user.dic").read_bytes() == first
    assert sorted(path.name for path in tmp_path.glob("user.*")) == ["user.dic"]


def test_a_failing_build_is_an_error_not_the_end_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lexicon, "CONTEXT_ID", "")  # empty fields end MeCab's process with status 255
    with pytest.raises(UserError, match="exit status 255"):
        build_user_dictionary(["非小細胞肺癌"], tmp_path / "user.dic", 3000)


def test_dictionaries_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not there"):
        segmentation.tagger(str(tmp_path / "nowhere.dic"))
    comma = tmp_path / "a,b"
    comma.mkdir()
    (comma / "user.dic").write_bytes(b"x")
    with pytest.raises(UserError, match="path without comma"):
        segmentation.tagger(str(comma / "user.dic"))
    (tmp_path / "user.dic").write_bytes(b"not a dictionary")
    with pytest.raises(UserError, match="cannot open"):
        segmentation.tagger(str(tmp_path / "user.dic"))


def test_segmentation_keeps_every_character() -> None:
    text = "熱は 38.5℃。\n\n「はい。」と<b>答えた  。"
    assert "".join(segment(text)).replace("▁", " ") == text
