"""The user dictionary: terms stay whole, the same bytes every time, and no build can end the process."""

import csv
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from rinsho import segmentation
from rinsho.errors import UserError
from rinsho.segmentation import segment
from rinsho.tokenizer.lexicon import LexiconSettings, build, dictionary
from rinsho.tokenizer.lexicon.dictionary import compile_dictionary, compile_whole, entry_costs, whole_fraction

DISCOUNT = LexiconSettings().discount


def test_the_dictionary_keeps_terms_whole_and_ordinary_words_as_they_are(tmp_path: Path) -> None:
    target = tmp_path / "a folder with spaces" / "user.dic"
    target.parent.mkdir()
    costs, reasons = entry_costs(["非小細胞肺癌", "発作性夜間ヘモグロビン尿症", "患者", "肺 炎"], DISCOUNT)
    assert reasons == {"患者": "known_word", "肺 炎": "mark"}
    assert compile_dictionary(costs, target)
    assert segment("非小細胞肺癌の患者", target) == ["非小細胞肺癌", "の", "患者"]
    assert "非小細胞肺癌" not in segment("非小細胞肺癌")
    first = target.read_bytes()
    assert compile_dictionary(dict(reversed(costs.items())), tmp_path / "user.dic")
    assert (tmp_path / "user.dic").read_bytes() == first
    assert sorted(path.name for path in tmp_path.glob("user.*")) == ["user.dic"]


def test_a_long_term_wins_over_the_terms_inside_it(tmp_path: Path) -> None:
    terms = ["急性骨髄性白血病", "骨髄性白血病", "急性骨髄性", "性白血病"]
    costs, _ = entry_costs(terms, DISCOUNT)
    target = tmp_path / "user.dic"
    settled = compile_whole(costs, target, DISCOUNT)
    for term in terms:
        assert segment(f"父は{term}の疑い", target)[2] == term
    assert whole_fraction(settled, target) == 1
    # parts that are cheap by themselves, as アドナ for MeCab is a guess: the whole is made cheaper still
    dear = costs | {"急性骨髄性白血病": 30000}
    assert compile_dictionary(dear, target)
    assert whole_fraction(dear, target) == 0.75
    assert compile_whole(dear, target, DISCOUNT)["急性骨髄性白血病"] < 30000
    assert whole_fraction(dear, target) == 1


def test_an_open_dictionary_survives_a_new_one_of_the_same_name(tmp_path: Path) -> None:
    target = tmp_path / "user.dic"
    costs, _ = entry_costs(["非小細胞肺癌", "急性骨髄性白血病"], DISCOUNT)
    compile_dictionary(costs, target)
    parse = segmentation.tagger(str(target), 1).parse
    assert parse("非小細胞肺癌") == "非小細胞肺癌"
    compile_dictionary({"急性骨髄性白血病": costs["急性骨髄性白血病"]}, target)
    assert parse("非小細胞肺癌") == "非小細胞肺癌"
    assert not compile_dictionary({}, target)
    assert not target.exists()
    assert parse("非小細胞肺癌") == "非小細胞肺癌"


def test_a_failing_build_is_an_error_not_the_end_of_the_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dictionary, "CONTEXT_ID", "")  # empty fields end MeCab's process with status 255
    with pytest.raises(UserError, match="exit status 255"):
        compile_dictionary({"非小細胞肺癌": 100}, tmp_path / "user.dic")
    monkeypatch.setattr(dictionary, "_BUILD", "import time; time.sleep(60)")
    monkeypatch.setattr(dictionary, "TIMEOUT_SECONDS", 0.2)
    with pytest.raises(UserError, match="no end after"):
        compile_dictionary({"非小細胞肺癌": 100}, tmp_path / "user.dic")
    assert not list(tmp_path.iterdir())


_CELLS = st.text(st.characters(exclude_categories=()), max_size=12) | st.text(
    "、。,\"'\\#「」▁< ー－のがん炎症１1aＡ\t\r\n\0", max_size=8
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(_CELLS, _CELLS, _CELLS), max_size=6), st.sampled_from([",", "\t"]), st.booleans())
@example([('"', "", "")], ",", True)
@example([("\\", "'", "#")], ",", False)
@example([("#肺炎の症", "", "")], "\t", False)
def test_no_row_does_anything_but_raise_a_user_error(
    rows: list[tuple[str, str, str]], delimiter: str, raw: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        good = [(f"足先冷感{number}型", "あしさき", "finding") for number in range(120)]  # so that few bad rows pass
        with (folder / "list.csv").open("w", encoding="utf-8", errors="surrogatepass", newline="") as file:
            if raw:
                file.write("\n".join(delimiter.join(row) for row in [("surface", "reading", "kind"), *good, *rows]))
            else:
                writer = csv.writer(file, delimiter=delimiter, escapechar="\\")
                writer.writerows([("surface", "reading", "kind"), *good, *rows])
        try:
            lexicon = build([folder / "list.csv"], LexiconSettings(), folder)
        except UserError:
            return
        assert lexicon.dictionary is not None
        assert lexicon.numbers["entries"] >= len(good)
        again = build([folder / "terms.tsv"], LexiconSettings(), folder)
        assert again.terms == lexicon.terms


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
