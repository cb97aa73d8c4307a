"""False merges: what counts as one, which terms they cost, and what the check leaves alone."""

from pathlib import Path

import pytest

from rinsho.document import Document
from rinsho.segmentation import segment
from rinsho.tokenizer.lexicon import LexiconSettings
from rinsho.tokenizer.lexicon.dictionary import compile_dictionary
from rinsho.tokenizer.lexicon.merges import Checked, check_merges, sample_texts, unchecked_traps

WINS = -9000  # a cost with which an entry is taken wherever its characters stand


def _check(folder: Path, terms: list[str], *texts: str, **values: object) -> Checked:
    costs = dict.fromkeys(terms, WINS)
    compile_dictionary(costs, folder / "user.dic")
    return check_merges(texts, costs, folder / "user.dic", LexiconSettings.model_validate(values))


def _false(folder: Path, term: str, text: str) -> tuple[int, int]:
    """(tears, swallows) of a term in a text; it must have been taken there."""
    before = _check(folder, [term], text).before
    assert before.seen == {term: 1}
    return before.tears.total(), before.swallows.total()


def test_a_known_word_is_torn(tmp_path: Path) -> None:
    assert _false(tmp_path, "下痢症", "下痢症状が続いた。") == (1, 0)  # 下痢|症状
    assert _false(tmp_path, "腎不全", "副腎不全を疑う。") == (1, 0)  # 副腎|不全
    assert _false(tmp_path, "腎不全", "慢性の腎不全である。") == (0, 0)


def test_a_guess_of_mecab_is_no_proof_but_a_run_of_katakana_is(tmp_path: Path) -> None:
    assert segment("苔癬化がある。")[:2] == ["苔", "癬化"]  # 癬化 is a guess
    assert _false(tmp_path, "苔癬", "苔癬化がある。") == (0, 0)
    assert segment("バイナガレチンを服用。")[0] == "バイナガレチン"
    assert _false(tmp_path, "ナガレチン", "バイナガレチンを服用。") == (1, 0)


def test_particles_are_swallowed_but_a_noun_is_not(tmp_path: Path) -> None:
    assert segment("窓からせきが聞こえる。")[1:3] == ["から", "せき"]
    assert _false(tmp_path, "からせき", "窓からせきが聞こえる。") == (0, 1)
    assert _false(tmp_path, "がん", "がんの治療。") == (0, 0)
    assert _false(tmp_path, "がん", "もっとがんばらないと駄目だ。") == (1, 0)
    assert _false(tmp_path, "手足のしびれ", "手足のしびれがある。") == (0, 0)  # its own の
    assert _false(tmp_path, "のう胞", "腎のう胞がある。") == (0, 0)


def test_a_short_term_that_is_mostly_false_stays_out(tmp_path: Path) -> None:
    texts = ["下痢症状が続いた。", "下痢症状はない。", "小児の下痢症である。", "佐藤さんは京都の人だ。"]
    checked = _check(tmp_path, ["下痢症", "慢性腎臓病"], *texts)
    assert checked.kept_out == ["下痢症"]
    assert (checked.before.false(), checked.after.false()) == (2, 0)
    assert checked.per_million(checked.before) == round(2e6 / checked.words, 3)
    assert segment(texts[0], tmp_path / "user.dic")[:2] == ["下痢", "症状"]
    assert segment("慢性腎臓病の患者", tmp_path / "user.dic")[0] == "慢性腎臓病"
    assert checked.changed_without_term == 0
    assert not _check(tmp_path, ["下痢症"], *texts, max_false_merge_fraction=0.7).kept_out
    assert not _check(tmp_path, ["下痢症"], *texts, short_chars=2).kept_out
    assert not _check(tmp_path, ["下痢症"], texts[0]).kept_out  # one sighting is no evidence
    assert _check(tmp_path, ["下痢症"], texts[0], texts[0]).kept_out  # the same sentence twice is two


def test_what_a_term_uncovers_when_it_is_taken_out(tmp_path: Path) -> None:
    costs = {"下痢症": WINS, "痢症": WINS + 500}
    compile_dictionary(costs, tmp_path / "user.dic")
    checked = check_merges(["下痢症状が続く。"] * 2, costs, tmp_path / "user.dic", LexiconSettings())
    assert checked.kept_out == ["下痢症", "痢症"]
    assert checked.after.false() == 0
    assert not (tmp_path / "user.dic").exists()  # nothing is left for it


def test_only_as_much_text_as_asked(tmp_path: Path) -> None:
    texts = ("患者は元気である。" * 100 for _ in range(1000))
    assert _check(tmp_path, ["下痢症"], *texts, check_mb=0.01).text_bytes <= 10_000


def test_traps_without_text() -> None:
    assert unchecked_traps({"えし": 1, "かろう": 1, "かろうじて": 1, "胃癌": 1, "う蝕": 1}, 3) == ["えし", "かろう"]


def test_the_sample_takes_of_every_shard(tmp_path: Path) -> None:
    paths = []
    for number, count in enumerate((1, 50, 50)):
        path = tmp_path / f"{number}.jsonl"
        with path.open("wb") as file:
            file.writelines(Document(f"{number}の文。" * 20, f"{number}-{place}").to_line() for place in range(count))
            file.write(b"broken\n")
        paths.append(path)
    sample = list(sample_texts(paths, 0.006))
    counts = [sum(text.startswith(str(number)) for text in sample) for number in range(3)]
    assert counts[0] == 1
    assert counts[1] == pytest.approx(counts[2], abs=1) and counts[1] > 5
    assert sample == list(sample_texts(paths, 0.006))
