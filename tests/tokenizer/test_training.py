"""rinsho.tokenizer: one command from corpus and word list to a folder, reproducible and resumable."""

import json
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from rinsho.document import Document, write_documents
from rinsho.errors import UserError
from rinsho.tokenization import fingerprint, load
from rinsho.tokenizer import Recipe, check, lexicon, run, split_inputs, unigram
from rinsho.tokenizer.lexicon import LexiconSettings
from rinsho.tokenizer.selection import Selection
from rinsho.tokenizer.unigram import Training, train
from tokenizer.conftest import write_corpus

FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "tokenization_rinsho.py")
TABLES = ("user.dic", "terms.tsv", "left_out.tsv", "missing_words.tsv", "growth.svg")
PRODUCTS = (*FILES, *TABLES, *(f"plain/{name}" for name in FILES))


def _same(one: Path, other: Path) -> bool:
    return all((one / name).read_bytes() == (other / name).read_bytes() for name in PRODUCTS)


def _training(**changed: object) -> Training:
    values = {
        "vocab_size": 600,
        "byte_fallback": True,
        "shrinking_factor": 0.75,
        "sub_iterations": 8,
        "max_piece_chars": 16,
        "min_count": 2,
        "character_coverage": 1.0,
        "split_digits": True,
    }
    return Training(**(values | changed))  # type: ignore[arg-type]


def test_the_folder_and_its_report(tokenizer_folder: Path, recipe: Recipe) -> None:
    numbers = run(recipe, _inputs_of(tokenizer_folder), tokenizer_folder).numbers  # unchanged: read, not run again
    names = {path.relative_to(tokenizer_folder).as_posix() for path in tokenizer_folder.rglob("*")}
    assert set(PRODUCTS) <= names
    assert "partial" not in names
    assert numbers["vocab_size"] == 900
    assert numbers["round_trip_failures"] == 0
    assert numbers["unknown_fraction"] == 0
    assert numbers["characters_per_token"] > 1.2
    assert numbers["lexicon_single_fraction"] > 0.5  # most units do not occur
    assert numbers["frequent_words_single_fraction"] > 0.6
    assert "| characters per token, held-out text |" in (tokenizer_folder / "report.md").read_text()


def _inputs_of(folder: Path) -> list[Path]:
    return [Path(row["path"]) for row in json.loads((folder / "manifest.json").read_text())["inputs"]]


def test_word_list_terms_stay_whole_and_frequent_words_are_one_piece(tokenizer_folder: Path) -> None:
    tokenizer = load(tokenizer_folder)
    assert tokenizer.tokenize("非小細胞肺癌と急性骨髄性白血病") == ["非小細胞肺癌", "と", "急性骨髄性白血病"]
    for word in ("患者", "発熱", "咳嗽", "診断", "治療", "投与", "呼吸", "来院"):
        assert tokenizer.tokenize(word) == [word]


def test_two_trainings_and_two_workers_give_identical_bytes(
    tokenizer_folder: Path, corpus: Path, word_list: Path, recipe: Recipe, tmp_path: Path
) -> None:
    run(recipe, [corpus, word_list], tmp_path / "again")
    assert _same(tokenizer_folder, tmp_path / "again")
    run(recipe.model_copy(update={"workers": 2}), [corpus, word_list], tmp_path / "two")
    assert _same(tokenizer_folder, tmp_path / "two")


def test_killed_and_continued_gives_identical_bytes(
    tokenizer_folder: Path, corpus: Path, word_list: Path, recipe: Recipe, tmp_path: Path
) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from rinsho.tokenizer import Recipe, counting, run
count, left = counting._count_shard, [2]
def killed(*job):
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    count(*job)
counting._count_shard = killed
run(Recipe.model_validate_json(sys.argv[1]), [Path(name) for name in sys.argv[3:]], Path(sys.argv[2]))
"""
    out = tmp_path / "out"
    arguments = [sys.executable, "-c", code, recipe.model_dump_json(), str(out), str(corpus), str(word_list)]
    assert subprocess.run(arguments, check=False, capture_output=True).returncode == -signal.SIGKILL
    pieces = sorted((out / "partial").glob("counts-*/*.json"))
    assert len(pieces) == 2
    before = [path.stat().st_mtime_ns for path in pieces]
    stamps = []
    original = Path.unlink

    def watch(self: Path, missing_ok: bool = False) -> None:
        if self.name == "DONE":
            stamps.extend(path.stat().st_mtime_ns for path in pieces)
        original(self, missing_ok)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "unlink", watch)
        run(recipe, [corpus, word_list], out)
    assert stamps == before  # the finished shards were not counted again
    assert _same(tokenizer_folder, out)


def test_too_large_a_vocabulary_names_the_largest_possible(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected at most \d+ with this text") as caught:
        run(Recipe(vocab_size=5000), [corpus], tmp_path / "large")
    possible = int(str(caught.value).split("at most ")[1].split()[0])
    report = run(Recipe(vocab_size=possible), [corpus], tmp_path / "possible")
    assert report.numbers["vocab_size"] == possible


def test_only_the_wanted_sources_are_counted(corpus: Path, tmp_path: Path) -> None:
    report = run(Recipe(vocab_size=600, sources=("wiki",), heldout_fraction=0), [corpus], tmp_path / "wiki")
    assert report.numbers["train_documents"] == 300
    assert report.numbers["characters_per_token"] is None
    with pytest.raises(UserError, match="source oscar"):
        run(Recipe(vocab_size=600, sources=("oscar",)), [corpus], tmp_path / "oscar")


def test_weights_of_sources(corpus: Path, tmp_path: Path) -> None:
    plain = run(Recipe(vocab_size=600), [corpus], tmp_path / "plain").numbers
    wiki = run(Recipe(vocab_size=600, sources=("wiki",)), [corpus], tmp_path / "wiki").numbers
    weighted = run(Recipe(vocab_size=600, source_weights={"wiki": 3.0}), [corpus], tmp_path / "weighted").numbers
    without = run(Recipe(vocab_size=600, source_weights={"case": 0.0}), [corpus], tmp_path / "without").numbers
    assert weighted["words"] == plain["words"] + 2 * wiki["words"]
    assert weighted["train_documents"] == plain["train_documents"]
    assert without["words"] == wiki["words"]
    with pytest.raises(UserError, match="no document has the source wikki"):
        run(Recipe(vocab_size=600, source_weights={"wikki": 3.0}), [corpus], tmp_path / "absent")


def test_a_finished_lexicon_is_a_word_list(
    corpus: Path, word_list: Path, tmp_path: Path, tokenizer_folder: Path
) -> None:
    from rinsho.tokenizer import lexicon

    lexicon.run(lexicon.Recipe(), [word_list, corpus], tmp_path / "lexicon")
    run(Recipe(vocab_size=900, heldout_fraction=0.05), [corpus, tmp_path / "lexicon"], tmp_path / "out")
    for name in ("user.dic", "tokenizer.json"):
        assert (tmp_path / "out" / name).read_bytes() == (tokenizer_folder / name).read_bytes()


def test_what_is_missing_is_listed_with_its_reason(tokenizer_folder: Path) -> None:
    header, *rows = (tokenizer_folder / "missing_words.tsv").read_text(encoding="utf-8").splitlines()
    assert header == "word\tcount\treason"
    tokenizer = load(tokenizer_folder)
    words = [row.split("\t")[0] for row in rows]
    assert rows and all(len(tokenizer.encode_text(word, segment=False)) > 1 for word in words)
    numbers = json.loads((tokenizer_folder / "report.json").read_text())["numbers"]
    assert len(rows) == round(numbers["frequent_words"] * (1 - numbers["frequent_words_single_fraction"]))


def test_a_size_limit_samples_documents(corpus: Path, tmp_path: Path) -> None:
    report = run(Recipe(vocab_size=600, max_train_mb=0.1), [corpus], tmp_path / "some")
    assert 0.05 < report.numbers["train_mb"] < 0.15


def test_without_byte_fallback_rare_characters_are_unknown(corpus: Path, tmp_path: Path) -> None:
    run(Recipe(vocab_size=500, byte_fallback=False), [corpus], tmp_path / "out")
    tokenizer = load(tmp_path / "out")
    assert tokenizer.encode_text("彁") == [tokenizer.unk_token_id]
    assert not any(piece.startswith("<0x") for piece in tokenizer.get_vocab())


def test_the_plain_form_needs_no_mecab_at_run_time(tokenizer_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer, strict = load(tokenizer_folder / "plain"), load(tokenizer_folder)
    assert tokenizer.get_vocab() == strict.get_vocab()
    assert fingerprint(tokenizer) != fingerprint(strict)
    monkeypatch.setattr("rinsho.segmentation.tagger", None)
    text = "患者は発熱 38.5 mg。\n咳嗽"
    assert tokenizer.encode_text(text) == tokenizer(text)["input_ids"]
    assert tokenizer.decode(tokenizer.encode_text(text)) == text


def test_digits_alone_or_together(corpus: Path, tmp_path: Path, tokenizer_folder: Path) -> None:
    assert load(tokenizer_folder).tokenize("38.5") == ["3", "8", ".", "5"]
    run(Recipe(vocab_size=600, split_digits=False), [corpus], tmp_path / "out")
    tokenizer = load(tmp_path / "out")
    assert len(tokenizer.tokenize("38.5")) < 4
    assert tokenizer.encode_text("38.5 mg") == tokenizer("38.5 mg")["input_ids"]


def test_a_frequent_word_of_one_form_is_a_piece(tmp_path: Path) -> None:
    words = Counter({"症例": 500, "診断": 400, "治療": 300, "肺炎": 200, "肺癌": 100, "発熱": 50, "発疹": 40})
    with pytest.raises(UserError) as caught:
        train(words, _training(), tmp_path)
    possible = int(str(caught.value).split("at most ")[1].split()[0])
    pieces = [piece for piece, _ in train(words, _training(vocab_size=possible - 2), tmp_path)]
    assert {"症例", "診断", "治療"} <= set(pieces)
    assert len(pieces) == len(set(pieces)) == possible - 2


def test_every_printable_ascii_character_is_a_piece(tokenizer_folder: Path) -> None:
    vocabulary = load(tokenizer_folder).get_vocab()
    assert all(chr(code) in vocabulary for code in range(0x21, 0x7F))


def test_selection_depends_on_the_id_alone() -> None:
    selection = Selection(seed=1, sources=(), keep_fraction=0.5, heldout_fraction=0.1)
    parts = Counter(selection.part(Document("x", f"d{number}")) for number in range(4000))
    assert 300 < parts["heldout"] < 500
    assert 1600 < parts["train"] < 2000
    assert Selection(1, ("a",), 1.0, 0.0).part(Document("x", "d", {"source": "b"})) is None


def test_broken_records_are_counted_until_there_are_too_many(corpus: Path, tmp_path: Path) -> None:
    folder = tmp_path / "more"
    folder.mkdir()
    rows = [Document("患者は発熱を主訴に来院した。", f"d{number}").to_line() for number in range(300)]
    (folder / "a.jsonl").write_bytes(b"".join(rows) + b"{broken\n")
    report = run(Recipe(vocab_size=600), [corpus, folder], tmp_path / "out")
    assert report.numbers["broken_records"] == 1
    with pytest.raises(UserError, match="1 of 301 records are broken"):
        run(Recipe(max_broken_fraction=0), [folder], tmp_path / "none")


def test_inputs_by_kind(corpus: Path, word_list: Path, tmp_path: Path) -> None:
    assert split_inputs([corpus, word_list.parent]) == ([word_list], [corpus])
    with pytest.raises(UserError, match="no corpus"):
        split_inputs([word_list])
    bad = tmp_path / "bad.csv"
    bad.write_text("term\n肺炎\n")
    problems = check(Recipe(vocab_size=300), [corpus, bad, tmp_path / "nowhere"])
    assert [word in " ".join(map(str, problems)) for word in ("no room", "not there")] == [True, True]
    assert "the columns of this word list are not known" in " ".join(map(str, check(Recipe(), [corpus, bad])))


def test_a_damaged_shard_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    folder.mkdir()
    with (folder / "a.jsonl.zst").open("wb") as file:
        write_documents(file, [Document("発熱" * 1000, "a")])
    (folder / "a.jsonl.zst").write_bytes((folder / "a.jsonl.zst").read_bytes()[:-5])
    with pytest.raises(UserError, match=r"a\.jsonl\.zst: the file is cut off"):
        run(Recipe(vocab_size=600, workers=1), [folder], tmp_path / "out")


def test_names_with_half_a_surrogate_pair(tmp_path: Path) -> None:
    from rinsho.tokenizer.encode import EncodeRecipe
    from rinsho.tokenizer.encode import run as encode

    write_corpus(tmp_path / "corpus", documents=200, shards=1)
    with (tmp_path / "corpus" / "odd.jsonl.zst").open("wb") as file:
        write_documents(file, [Document("発熱がある。" * 9, "b\ud800", {"source": "x\ud800"})])
    run(Recipe(vocab_size=500), [tmp_path / "corpus"], tmp_path / "out")
    recipe = EncodeRecipe(copy_fraction=1.0, copy_window=64, validation_fraction=0.5)
    assert encode(recipe, [tmp_path / "out", tmp_path / "corpus"], tmp_path / "tokens").numbers


def test_counts_made_with_other_terms_are_not_taken_over(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = tmp_path / "words.csv"
    words.write_text("surface\n急性骨髄性白血病\n", encoding="utf-8")
    real = lexicon.build
    monkeypatch.setattr(unigram, "train", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(Recipe(vocab_size=600), [corpus, words], tmp_path / "out")
    monkeypatch.undo()

    def build(paths: object, settings: LexiconSettings, *rest: object) -> object:  # as a new rinsho might
        return real([], settings, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(lexicon, "build", build)
    run(Recipe(vocab_size=600), [corpus, words], tmp_path / "out")
    run(Recipe(vocab_size=600), [corpus, words], tmp_path / "fresh")
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (tmp_path / "fresh" / "tokenizer.json").read_bytes()


def test_a_path_that_mecab_cannot_open_is_refused_before_the_work(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="without comma"):
        run(Recipe(vocab_size=600), [corpus], tmp_path / "a,b")


def test_every_piece_and_every_frequent_word_comes_out_whole(tokenizer_folder: Path) -> None:
    tokenizer = load(tokenizer_folder)
    model = tokenizer.backend_tokenizer.model
    pieces = [piece for piece, id_ in tokenizer.get_vocab().items() if id_ >= 4 and not piece.startswith("<0x")]
    assert [piece for piece in pieces if [token.value for token in model.tokenize(piece)] != [piece]] == []
    units = [term for term in ("mg/dL", "mL/min") if len(tokenizer.encode_text(term, segment=False)) > 1]
    assert not units
