"""Leaks: what stands in a corpus is found whole or nearly, and nothing else; runs lead to their corpora; kills."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from real_data import real_data
from rinsho.document import Document, compress
from rinsho.errors import UserError
from rinsho.evaluate import leakage
from rinsho.evaluate.corpora import corpora_of
from rinsho.evaluate.leakage import SHORT_CHARS, Leak, in_corpora, parts, table, tuned
from rinsho.overlap import key
from rinsho.run import Stage, digest
from rinsho.tasks import Item, Splitting, document_key, documents, prompts, read_data, read_train
from rinsho.text import clean

NONE: frozenset[str] = frozenset()
CHARS = 12


def item(number: int, passage: str, task: str = "smdis", year: int | None = None) -> Item:
    return Item(
        f"{task}/{number}", task, "choice", "", prompts.CHOICE, passage, ("はい", "いいえ"), ("A",), passage,
        document_key(passage), year=year,
    )  # fmt: skip


def foreign(count: int, first: int = 0x5000) -> str:
    """Characters that stand in no passage; all different."""
    return "".join(chr(first + 3 * n) for n in range(count))


def stage(tmp_path: Path, name: str = "run") -> Stage:
    (tmp_path / name / "partial").mkdir(parents=True, exist_ok=True)
    return Stage("evaluate", tmp_path / name)


def corpus(folder: Path, *texts: str) -> Path:
    """One file a document, in three forms."""
    folder.mkdir(parents=True)
    for number, text in enumerate(texts):
        document = Document(text, f"d{number}")
        if number % 3 == 0:
            (folder / f"{number}.jsonl.zst").write_bytes(compress([document]))
        elif number % 3 == 1:
            (folder / f"{number}.jsonl").write_bytes(document.to_line())
        else:
            (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    return folder


CASE = foreign(50, 0x6000)
CHANGED = "".join("誤" if place in (6, 28) else letter for place, letter in enumerate(CASE))


def test_exact_near_short_and_clean(tmp_path: Path) -> None:
    items = [
        item(0, "６２歳の男性．3日前からの発熱と咳嗽を主訴に来院した。"),  # stands there in other width and lines
        item(1, CASE),  # two characters are others
        item(2, foreign(50, 0x7000)),  # two thirds of it stand there
        item(3, "発熱で仕事を休んだ一日"),  # 11 characters: cannot be told
        item(4, "発熱で仕事を休んだ一日。"),  # 12: whole or not at all
        item(5, "頭痛で仕事を休んだ一日。"),
        item(6, "左の肺に影がある。\n右は良い。"),
    ]
    texts = [
        foreign(30) + "62歳の男性。3日前からの 発熱と\n咳嗽を主訴に来院した。" + foreign(9),
        foreign(7) + CHANGED,
        foreign(33, 0x7000) + "。" + items[4].passage + "腹痛で仕事を休んだ一日。",
    ]
    run = stage(tmp_path)
    leak = in_corpora(items, [corpus(tmp_path / "text", *texts)], CHARS, run)
    assert leak == Leak(
        "text of text", frozenset({"smdis/0", "smdis/4"}), frozenset({"smdis/1"}), frozenset({"smdis/3"})
    )
    log = (run.out / "log.txt").read_text(encoding="utf-8")
    assert "leakage: 3 documents" in log and "発熱" not in log


def test_either_sentence_of_a_pair(tmp_path: Path) -> None:
    pairs = [
        item(n, f"文1: {one}\n文2: {other}", "jcsts")
        for n, (one, other) in enumerate([(foreign(20), CASE), (CASE, "咳なし。"), (foreign(20), "咳なし。")])
    ]
    leak = in_corpora(pairs, [corpus(tmp_path / "text", CHANGED)], CHARS, stage(tmp_path))
    assert (leak.exact, leak.near, leak.too_short) == (NONE, {"jcsts/0", "jcsts/1"}, {"jcsts/2"})


def test_pieces_in_several_documents_are_no_leak(tmp_path: Path) -> None:
    parts = [CASE[:25], CASE[25:]]
    assert in_corpora([item(0, CASE)], [corpus(tmp_path / "a", *parts)], CHARS, stage(tmp_path, "1")).near == NONE
    both = in_corpora([item(0, CASE)], [corpus(tmp_path / "b", "。".join(parts))], CHARS, stage(tmp_path, "2"))
    assert (both.exact, both.near) == (NONE, {"smdis/0"})  # all of it, but not in one piece


def test_wording_of_templates_hides_no_leak_and_is_none(tmp_path: Path) -> None:
    """What many questions share counts: the text they are all about has leaked; a short wording alone has not."""
    wording = "次の文を読み、問いに答えよ。"
    items = [item(n, CASE + wording + foreign(14, 0x7000 + 100 * n)) for n in range(5)]
    items += [item(n, wording + foreign(14, 0x7000 + 100 * n)) for n in range(5, 10)]
    text = corpus(tmp_path / "text", wording, foreign(9) + items[2].passage)
    leak = in_corpora(items, [text], CHARS, stage(tmp_path))
    assert leak.exact == {"smdis/2"} and leak.near == {"smdis/0", "smdis/1", "smdis/3", "smdis/4"}


def plain(texts: Sequence[str], corpus: Sequence[str], chars: int) -> list[tuple[int, bool]]:
    """By brute force: characters in windows shared with one document at most, and whether it stands in one whole."""
    found = []
    for text in texts:
        best = 0
        for document in corpus:
            places = set()
            for at in range(len(text) - chars + 1):
                if text[at : at + chars] in document:
                    places.update(range(at, at + chars))
            best = max(best, len(places))
        found.append((best, len(text) >= min(chars, SHORT_CHARS) and any(text in document for document in corpus)))
    return found


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.text(alphabet="あいう\n", max_size=50), min_size=1, max_size=6),
    st.lists(st.text(alphabet="あいう ", max_size=30), min_size=1, max_size=4),
    st.integers(8, 20),
    st.randoms(use_true_random=False),
)
def test_it_is_what_comparing_everything_gives(
    tmp_path: Path, texts: list[str], others: list[str], chars: int, rng: random.Random
) -> None:
    corpus = []
    for other in others:
        source = rng.choice(texts)
        start = rng.randint(0, max(0, len(source) - 20))
        corpus.append(other + source[start : start + rng.randint(0, 50)] + other[::-1])
    items = [item(number, text) for number, text in enumerate(texts)]
    path = tmp_path / "one.jsonl"
    path.write_bytes(b"".join(Document(text, "d").to_line() for text in corpus))
    bare, documents_in = ([clean(text).replace(" ", "").replace("\n", "") for text in part] for part in (texts, corpus))
    wanted = leakage._Wanted.of(items, chars)
    row = leakage._look(leakage._Job(wanted.texts, chars, path), lambda *_: None)
    got = {number: (shared, whole) for number, shared, whole in row["found"]}
    distinct = [text.decode("utf-16-le") for text in wanted.texts]
    assert distinct == list(dict.fromkeys(bare))
    for number, (text, expected) in enumerate(zip(distinct, plain(distinct, documents_in, chars), strict=True)):
        shared, whole = got.get(number, (0, False))
        assert whole == expected[1] and shared == (expected[0] if len(text) >= chars else 0)


def test_the_same_again_and_again_takes_no_time(tmp_path: Path) -> None:
    """Compared are different surroundings, not 8,000 places in the passages with 11,000 in the document."""
    items = [item(n, "咳と痰" * (330 + n)) for n in range(8)]
    leak = in_corpora(items, [corpus(tmp_path / "text", "咳と痰" * 33_000)], 24, stage(tmp_path))
    assert len(leak.exact) == 8


def killed_at(monkeypatch: pytest.MonkeyPatch, file: int) -> list[Path]:
    """Files that were looked through; the process ends when it comes to the given one."""
    seen: list[Path] = []
    look = leakage._look

    def counted(job, count):
        if len(seen) == file:
            os.kill(os.getpid(), signal.SIGKILL)
        seen.append(job.path)
        return look(job, count)

    monkeypatch.setattr(leakage, "_look", counted)
    return seen


def test_a_kill_costs_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [item(n, foreign(40, 0x6000 + 200 * n)) for n in range(6)]
    text = corpus(tmp_path / "text", *(items[n].passage[n:] for n in range(5)))
    expected = in_corpora(items, [text], CHARS, stage(tmp_path, "whole"))
    assert (len(expected.exact), len(expected.near)) == (1, 4)
    with monkeypatch.context() as patch:
        killed_at(patch, 3)
        arguments = (items, [text], CHARS, stage(tmp_path))
        process = multiprocessing.get_context("fork").Process(target=in_corpora, args=arguments)
        process.start()
        process.join(60)
        assert process.exitcode == -signal.SIGKILL
    seen = killed_at(monkeypatch, 99)
    assert in_corpora(items, [text], CHARS, stage(tmp_path)) == expected
    assert len(seen) == 2
    in_corpora(items[:5], [text], CHARS, stage(tmp_path))  # other passages: nothing of before counts
    (text / "0.jsonl.zst").write_bytes(compress([Document("他", "d")]))
    assert len(in_corpora(items, [text], CHARS, stage(tmp_path)).exact) == 0
    assert len(seen) == 2 + 5 + 1


@pytest.mark.slow
def test_processes_find_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [item(n, foreign(40, 0x6000 + 200 * n)) for n in range(6)]
    text = corpus(tmp_path / "text", *(items[n].passage[n:] for n in range(5)))
    alone = in_corpora(items, [text], CHARS, stage(tmp_path, "alone"))
    monkeypatch.setattr(leakage, "ALONE_BYTES", 0)
    monkeypatch.setattr(leakage, "cores", lambda: 2)
    assert in_corpora(items, [text], CHARS, stage(tmp_path, "two")) == alone


def test_broken_records_are_left_out_and_told(tmp_path: Path) -> None:
    text = corpus(tmp_path / "text", CASE)
    (text / "x.jsonl").write_text('{"text": 3}\nno JSON\n', encoding="utf-8")
    run = stage(tmp_path)
    assert in_corpora([item(0, CASE)], [text], CHARS, run).exact == {"smdis/0"}
    assert "2 records of the corpora hold no readable text" in (run.out / "log.txt").read_text(encoding="utf-8")
    with pytest.raises(UserError, match="no text in the corpora"):
        in_corpora([item(0, CASE)], [text / "x.jsonl"], CHARS, stage(tmp_path, "other"))


# ---------------------------------------------------------------------- training runs


def run_folder(path: Path, name: str, inputs: Sequence[Path], recipe: str = "") -> Path:
    path.mkdir(parents=True, exist_ok=True)
    rows = [{"path": str(given), "hash": digest(given)} for given in inputs]
    (path / "manifest.json").write_text(json.dumps({"stage": name, "inputs": rows}), encoding="utf-8")
    (path / "recipe.resolved.yaml").write_text(recipe, encoding="utf-8")
    (path / "DONE").write_text(json.dumps({"identity": name, "products": {}}), encoding="utf-8")
    return path


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """base: pre-trained on a corpus run; more: on from base, on token files of plain text; tuned: tuned from more."""
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer/tokenizer.json").write_text("{}", encoding="utf-8")
    corpus(tmp_path / "plain", foreign(40, 0x7000))
    corpus(tmp_path / "corpus/shards", CASE)
    corpus(tmp_path / "corpus/dropped", foreign(40, 0x8000))
    corpus(tmp_path / "corpus/validation", foreign(40, 0x8000))
    corpus(tmp_path / "notes", foreign(9))
    run_folder(tmp_path / "corpus", "corpus", [tmp_path / "plain"])
    tokens = run_folder(tmp_path / "tokens", "tokens", [tmp_path / "tokenizer", tmp_path / "plain"])
    (tokens / "train").mkdir()
    (tokens / "train/tokens.json").write_text("{}", encoding="utf-8")
    base = run_folder(
        tmp_path / "base", "pretrain", [tmp_path / "tokenizer", tmp_path / "corpus"], "init_from: nothing"
    )
    more = run_folder(tmp_path / "more", "pretrain", [base, tokens / "train"], "init_from: model")
    run_folder(tmp_path / "tuned", "finetune", [more, tmp_path / "notes"])
    return tmp_path


def test_a_run_leads_to_its_corpora(runs: Path) -> None:
    assert corpora_of(runs / "base") == corpora_of(runs / "base/manifest.json") == [runs / "corpus"]
    assert corpora_of(runs / "more") == corpora_of(runs / "tuned") == [runs / "plain", runs / "corpus"]
    assert corpora_of(runs / "tokens/train") == corpora_of(runs / "tokens") == [runs / "plain"]
    assert corpora_of(runs / "plain") == [runs / "plain"]
    (runs / "base/recipe.resolved.yaml").unlink()
    items = [item(n, text) for n, text in enumerate((CASE, foreign(40, 0x7000), foreign(40, 0x8000)))]
    leak = in_corpora(items, [runs / "tuned", runs / "corpus"], CHARS, stage(runs))
    assert leak == Leak(f"text of plain, {runs.name}/corpus", frozenset({"smdis/0", "smdis/1"}), NONE)


def test_a_whole_chain_and_moved_folders(runs: Path) -> None:
    chain = runs / "moved"
    chain.mkdir()
    (runs / "base").rename(chain / "pretrain")
    (runs / "corpus").rename(chain / "corpus")
    assert corpora_of(chain) == [chain / "corpus"]
    (chain / "corpus/shards/0.jsonl.zst").write_bytes(compress([Document("他", "d")]))
    with pytest.raises(UserError, match=r"was trained on is not there") as problem:
        corpora_of(chain)
    assert str(runs / "corpus") in str(problem.value)


def test_what_a_user_can_get_wrong(runs: Path) -> None:
    with pytest.raises(UserError, match="not there") as problem:
        in_corpora([item(0, CASE)], [runs / "absent"], CHARS, stage(runs))
    assert str(runs / "absent") in str(problem.value)
    run_folder(runs / "other", "finetune", [runs / "tokenizer", runs / "notes"])
    with pytest.raises(UserError, match="names no corpus"):
        corpora_of(runs / "other")
    run_folder(runs / "broken", "pretrain", [])
    with pytest.raises(UserError, match="inputs are not listed"):
        corpora_of(runs / "broken")
    (runs / "loose").mkdir()
    (runs / "loose/tokens.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="token files hold no text"):
        corpora_of(runs / "loose")


# ---------------------------------------------------------------------- tuning


def test_tuned_on_listed_documents() -> None:
    changed = "咳" + foreign(60, 0x6000)[1:]
    items = [item(0, "昨日から熱がある。"), item(1, foreign(60, 0x6000)), item(2, foreign(60, 0x7000))]
    items.append(item(3, "文1: 昨日から 熱がある。\n文2: 咳なし。", "jcsts"))
    train = [item(9, changed), item(10, foreign(60, 0x7000)[:-1])]
    known = frozenset({key("昨日から熱がある。"), key(changed)})
    leak = tuned(items, known, train)
    assert leak == Leak(
        "documents listed in the model folder", frozenset({"smdis/0", "jcsts/3"}), frozenset({"smdis/1"})
    )
    assert tuned(items, known, []) == Leak(leak.source, leak.exact, NONE)
    assert tuned(items, NONE, train) == Leak(leak.source, NONE, NONE)


def test_tuned_by_the_split_or_unknown() -> None:
    items = [item(0, CASE), item(1, CHANGED + "。"), item(2, "咳。" + foreign(40) + "熱。")]
    train = [item(9, CASE), item(10, foreign(40)[:12])]  # a sentence of a passage is not near it
    leak = tuned(items, None, train, "row")
    assert leak and leak.exact == {"smdis/0"} and leak.near == NONE
    assert leak.source == "training part of the data under the model's split (row)"
    assert tuned(items, None, []) is None


def test_a_passage_inside_a_longer_trained_document_is_exact() -> None:
    """The other way round, a trained sentence inside a passage, is none; nor is what is too short to tell."""
    items = [item(0, foreign(20)), item(1, foreign(SHORT_CHARS, 0x6000)), item(2, foreign(SHORT_CHARS - 1, 0x7000))]
    items += [item(3, foreign(60, 0x8000)), item(4, f"文1: 咳なし。\n文2: {foreign(20)}", "jcsts")]
    longer = "".join(foreign(40, 0xAC00) + one.passage.replace("文", "") for one in items[:3])
    train = [item(10, longer), item(11, foreign(30, 0x8000))]
    expected = {"smdis/0", "smdis/1", "jcsts/4"}
    for known in (None, frozenset(name for one in train for name in documents(one))):
        leak = tuned(items, known, train)
        assert leak and leak.exact == expected and leak.near == leak.too_short == NONE
    other = tuned(items, frozenset(documents(train[1])), train)
    assert other and other.exact == NONE  # not tuned on that document


def test_questions_and_distinct_passages_are_counted() -> None:
    items = [item(n, text) for n, text in enumerate((CASE, CASE, foreign(30), "咳"))]
    seen = Leak("a", frozenset({"smdis/0"}), frozenset({"smdis/1"}))
    short = Leak("b", NONE, NONE, frozenset({"smdis/3"}))
    values = {("smdis", "free"): {"smdis/0": 1.0, "smdis/1": 1.0, "smdis/2": 0.0, "smdis/3": 1.0}}
    first, second = table(items, [seen, short], values)
    assert (first["questions"], first["exact"], first["near"]) == (4, 1, 1)
    assert (first["passages"], first["passages_leaked"], first["share"]) == (3, 1, 1 / 3)
    assert first["scores"] == {"free": {"leaked": {"n": 2, "score": 1}, "clean": {"n": 2, "score": 0.5}}}
    # what is too short for a source is neither seen nor clean by it, and not clean by all of them
    assert second["scores"] == {"free": {"leaked": {"n": 0, "score": None}, "clean": {"n": 3, "score": 2 / 3}}}
    both = parts(values["smdis", "free"], [seen, short])
    assert both == {"leaked": {"n": 2, "score": 1}, "clean": {"n": 1, "score": 0}}
    found = Leak("c", frozenset({"smdis/3"}), NONE)
    assert parts(values["smdis", "free"], [found, short])["leaked"] == {"n": 1, "score": 1}
    assert parts({}, []) == {"leaked": None, "clean": None}


def test_rows_by_task_and_source() -> None:
    items = [item(0, "い", "igakuqa", 2020), item(1, "ろ", "igakuqa", 2019), item(2, "は"), item(3, "に")]
    leaks = [Leak("a", frozenset({"smdis/2"}), frozenset({"smdis/3"})), Leak("b", NONE, NONE, frozenset({"igakuqa/1"}))]
    rows = table(items, leaks)
    assert [(row["task"], row["source"], row["exact"], row["near"], row["share"], row["too_short"]) for row in rows] == [
        ("igakuqa-2020", "a", 0, 0, 0.0, 0), ("igakuqa-2020", "b", 0, 0, 0.0, 0),
        ("igakuqa-2019", "a", 0, 0, 0.0, 0), ("igakuqa-2019", "b", 0, 0, 0.0, 1),
        ("smdis", "a", 1, 1, 1.0, 0), ("smdis", "b", 0, 0, 0.0, 0),
    ]  # fmt: skip
    assert all(row["passages"] == (2 if row["task"] == "smdis" else 1) for row in rows)


# Test rows whose passage also trains under the split `row`: exact, near. Under the other splits one passage is left,
# which is a sentence of a record that is not near it as a whole.
SHARED = {
    "jmmlu_med": (1, 1), "crade": (100, 0), "rrtnm": (94, 0), "smdis": (100, 0), "jcsts": (66, 0),
    "mrner_disease": (50, 0), "mrner_medicine": (100, 0), "nrner": (63, 0),
}  # fmt: skip


@pytest.mark.slow
def test_the_shares_of_the_real_splits(tmp_path: Path) -> None:
    folder = real_data("jmed_llm")
    items = read_data([folder], "test")
    train, _ = read_train([folder], Splitting("row"))
    by_split = tuned(items, None, train, "row")
    listed = tuned(items, frozenset(name for one in train for name in documents(one)), [])
    assert by_split and listed and by_split.exact == listed.exact
    assert {row["task"]: (row["exact"], row["near"]) for row in table(items, [by_split])} == SHARED
    clear = tuned(items, None, read_train([folder], Splitting("document"))[0], "document")
    assert clear and clear.exact == {"smdis/00044"} and not clear.near
    texts = tmp_path / "pools.jsonl"
    texts.write_bytes(b"".join(Document(one.passage, one.id).to_line() for one in train))
    found = in_corpora(items, [texts], 24, stage(tmp_path))
    missed = by_split.exact - found.exact - found.too_short
    # a comma or full stop of two passages depends on the spaces before it; sentences also stand in whole records
    assert missed == {"mrner_disease/00029", "mrner_medicine/00054"} and missed <= found.near
    assert {name.split("/")[0] for name in found.exact - by_split.exact} <= {"jcsts", "jmmlu_med"}
