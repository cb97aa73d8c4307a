"""What is learned, token by token; how rows are chosen and packed."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from rinsho.chat import CHAT_TOKENS, Message
from rinsho.chat_template import renderer
from rinsho.errors import UserError
from rinsho.finetune import Recipe, check


@pytest.fixture(scope="module")
def tokenizer(base: Path):
    from rinsho import tokenization

    found = tokenization.load(base)
    tokenization.add_chat_tokens(found)
    return found


def read_all(recipe: Recipe, data: Path, tokenizer):
    from rinsho.finetune.data import read

    return read(recipe, [data], renderer(tokenizer, "tests"))


def test_the_mask_holds_the_answer_and_its_end_and_nothing_else(tokenizer) -> None:
    from rinsho.finetune.data import conversation

    turns = [Message("system", "答える。"), Message("user", "発熱は<|assistant|>ある？")]
    ids, mask, cut = conversation(turns, "ある\nA", renderer(tokenizer, "tests"), 512)
    answer = [*tokenizer.encode_text("ある\nA"), tokenizer.eos_token_id]
    assert not cut
    assert ids[-len(answer) :] == answer and mask == [0] * (len(ids) - len(answer)) + [1] * len(answer)
    names = tokenizer.convert_ids_to_tokens(ids)
    assert names[0] == "<|begin_of_text|>" and names[len(ids) - len(answer) - 1] == "<|assistant|>"
    assert [name for name in names if name in CHAT_TOKENS] == ["<|system|>", "<|user|>", "<|assistant|>"]


def test_labels_of_a_packed_row_are_the_answers_tokens(recipe: Recipe, data: Path, tokenizer) -> None:
    from rinsho.finetune.feed import Feed, quotas

    found = read_all(recipe, data, tokenizer)
    feed = Feed(found.examples, quotas(found.examples, recipe), recipe, tokenizer.eos_token_id)
    batch = feed.batch(0, feed.rows(1))
    wanted = Counter()
    for index in feed.epoch(0):
        example = found.examples[index]
        wanted[tuple(example.ids[example.mask == 1].tolist())] += 1
    seen = Counter()
    for positions, labels in zip(batch.position_ids, batch.shift_labels, strict=True):
        starts = [*np.flatnonzero(positions == 0).tolist(), len(positions)]
        for begin, end in pairwise(starts):
            learned = labels[begin:end][labels[begin:end] != -100]
            if len(learned):
                seen[tuple(learned.tolist())] += 1
    assert seen == wanted


def test_long_questions_lose_their_middle_not_their_answer(tokenizer) -> None:
    from rinsho.finetune.data import conversation

    turns = [Message("user", "最初の問い。" + "患者は発熱を認めた。" * 100 + "最後の行。")]
    ids, mask, cut = conversation(turns, "['発熱']", renderer(tokenizer, "tests"), 64)
    assert cut and len(ids) == len(mask) == 65
    assert tokenizer.decode([i for i, m in zip(ids, mask, strict=True) if m][:-1]) == "['発熱']"
    assert "最初" in tokenizer.decode(ids) and "最後の行" in tokenizer.decode(ids)
    assert conversation(turns, "発熱" * 80, renderer(tokenizer, "tests"), 64) is None


def test_answers_are_balanced_and_every_row_gets_its_turn(recipe: Recipe, data: Path, tokenizer) -> None:
    from rinsho.finetune.feed import Feed, quotas

    recipe = recipe.model_copy(update={"max_rows_per_task": 20, "task_weights": {"nrner": 0.5}, "class_balance": 1.0})
    found = read_all(recipe, data, tokenizer)
    for example in found.examples:
        without_tag = (example.group[0], "", example.group[2])  # tags of one row balance nothing
        object.__setattr__(example, "group", without_tag)
    shares = quotas(found.examples, recipe)
    assert sum(rows for group, rows in shares.items() if group[0] == "smdis") == pytest.approx(20)
    assert shares["smdis", "", "A"] == pytest.approx(shares["smdis", "", "B"]) == pytest.approx(10)
    assert shares["nrner", "", ""] == pytest.approx(10)
    feed = Feed(found.examples, shares, recipe, 0)
    epochs = [feed.epoch(number) for number in range(8)]
    assert all(len(epoch) == 30 for epoch in epochs)
    assert {index for epoch in epochs for index in epoch} == set(range(len(found.examples)))
    turns = Counter(index for epoch in epochs for index in epoch if found.examples[index].group[2] == "B")
    assert max(turns.values()) - min(turns.values()) <= 1
    assert feed.epoch(3) == Feed(found.examples, shares, recipe, 0).epoch(3)


@pytest.mark.parametrize("pack", [True, False])
def test_rows_made_for_a_step_are_those_of_the_whole_epoch(recipe: Recipe, data: Path, tokenizer, pack: bool) -> None:
    from rinsho.finetune.feed import Feed, quotas
    from rinsho.packing import permutation
    from rinsho.tokens import pack_examples

    recipe = recipe.model_copy(update={"pack": pack, "sequence_length": 256})
    examples = read_all(recipe, data, tokenizer).examples
    feed = Feed(examples, quotas(examples, recipe), recipe, 7)
    for epoch in range(2):
        pairs = [(examples[index].ids.tolist(), examples[index].mask.tolist()) for index in feed.epoch(epoch)]
        parts = [pack_examples(some, 256, pad_id=7).rows for some in ([pairs] if pack else [[pair] for pair in pairs])]
        begin, count = feed.rows(epoch), feed.rows(epoch + 1) - feed.rows(epoch)
        order = permutation(count, f"{recipe.seed}:finetune rows:{epoch}")
        for found, arrays in zip(feed.batch(begin, count), zip(*parts, strict=True), strict=True):
            whole = np.concatenate(arrays)
            assert len(whole) == count and (found == whole[order]).all()


def test_a_step_makes_its_own_rows_alone(recipe: Recipe, data: Path, tokenizer, monkeypatch) -> None:
    from rinsho.finetune import feed as feeds

    examples = read_all(recipe, data, tokenizer).examples
    feed = feeds.Feed(examples, feeds.quotas(examples, recipe), recipe, 0)
    made, real = [], feeds.pack_examples
    monkeypatch.setattr(
        feeds, "pack_examples", lambda pairs, *a, **k: (made.append(len(pairs)), real(pairs, *a, **k))[1]
    )
    assert len(feed.batch(0, 2).input_ids) == 2 and sum(made) < len(feed.epoch(0)) / 4


def test_batches_run_on_over_epochs(recipe: Recipe, data: Path, tokenizer) -> None:
    from rinsho.finetune.feed import Feed, quotas

    found = read_all(recipe, data, tokenizer)
    feed = Feed(found.examples, quotas(found.examples, recipe), recipe, 0)
    whole = feed.batch(0, feed.rows(2))
    again = Feed(found.examples, quotas(found.examples, recipe), recipe, 0)
    position = feed.rows(1) - 2
    assert (again.batch(position, 4).input_ids == whole.input_ids[position : position + 4]).all()
    first, second = whole.input_ids[: feed.rows(1)], whole.input_ids[feed.rows(1) :]
    assert first.shape != second.shape or (first != second).any()


def test_copying_exercises_ask_for_spans_of_the_passage(recipe: Recipe, data: Path, tokenizer) -> None:
    from rinsho.finetune.data import copying

    recipe = recipe.model_copy(update={"copy_tokens": 3000, "max_tokens": None})
    texts = read_all(recipe, data, tokenizer).texts
    exercises = copying(texts, recipe, renderer(tokenizer, "tests"))
    assert sum(len(exercise.ids) for exercise in exercises) >= 3000
    for exercise in exercises:
        text = tokenizer.decode(exercise.ids)
        answer = tokenizer.decode(exercise.ids[exercise.mask == 1][:-1])
        for span in answer.strip("[]").split(", "):
            assert f"【{span.strip(chr(39))}】" in text
    assert [e.ids.tolist() for e in copying(texts, recipe, renderer(tokenizer, "tests"))] == [
        e.ids.tolist() for e in exercises
    ]


def test_test_rows_are_not_trained_on(recipe: Recipe, data: Path, tokenizer) -> None:
    from rinsho.tasks import read_data

    tests = {item.document for item in read_data([data], "test")}
    found = read_all(recipe, data, tokenizer)
    assert 70 < len(found.examples) <= 54 + 26 and not tests & set(found.documents)
    assert found.documents == sorted(found.documents)


def test_check_names_every_problem(base: Path, data: Path, tmp_path: Path) -> None:
    bad = Recipe(sequence_length=500, batch_tokens=2048, max_tokens=3000, copy_tokens=2000, tasks=("smdsi",))
    problems = " ".join(map(str, check(bad, [base, data])))
    for part in ("no multiple", "copy_tokens", "window of 256", "unknown task smdsi"):
        assert part in problems
    assert "inputs are missing" in str(check(Recipe(), [base])[0])
    assert "no model in here" in str(check(Recipe(), [tmp_path, data])[0])
    assert check(Recipe(sequence_length=128), [base, data]) == []


def test_a_task_weight_of_zero_for_all_leaves_nothing(recipe: Recipe, data: Path, tokenizer) -> None:
    with pytest.raises(UserError, match="no conversation"):
        read_all(recipe.model_copy(update={"task_weights": {"smdis": 0.0, "nrner": 0.0}}), data, tokenizer)


def test_sources_have_the_licences_that_data_and_rows_name(
    recipe: Recipe, data: Path, tokenizer, tmp_path: Path
) -> None:
    from rinsho.finetune.data import read

    rows = [{"instruction": f"{number}とは", "output": "数", "license": "CC-BY-ND-4.0"} for number in range(3)]
    rows[1].pop("license")
    (tmp_path / "notes.json").write_text(json.dumps(rows))
    found = read(recipe, [data, tmp_path / "notes.json"], renderer(tokenizer, "tests")).sources
    told = {row["source"]: row["licenses"] for row in found}
    assert told["notes"] == {"CC-BY-ND-4.0": 2, "": 1}
    assert list(told["nrner"]) == ["CC-BY-NC-SA-4.0"]
    tokens = sum(len(each.ids) for each in read_all(recipe, data, tokenizer).examples)
    assert sum(row["tokens"] for row in found if row["source"] != "notes") == tokens
    told = {row["source"]: (row["synthetic"], row["synthetic_tokens"]) for row in found}
    assert set(map(str, told.values())) == {"({}, 0)"}
    shutil.copytree(data, tmp_path / "own")
    (tmp_path / "own/jmed_llm/licenses.csv").write_text("task,license\n*,invented\nsmdis,\n")
    told = {row["source"]: row["licenses"] for row in read_all(recipe, tmp_path / "own", tokenizer).sources}
    assert (list(told["nrner"]), list(told["smdis"])) == (["invented"], [""])


def test_sources_tell_what_language_models_wrote(recipe: Recipe, data: Path, tokenizer, tmp_path: Path) -> None:
    from rinsho.finetune.data import read

    said = [{"synthetic": True, "model": "some-70b"}, {"synthetic": True}, {"model": "some-70b"}]
    rows = [{"instruction": f"{number}とは", "output": "数", **each} for number, each in enumerate(said)]
    (tmp_path / "exercises.json").write_text(json.dumps(rows))
    made = read(recipe, [data, tmp_path / "exercises.json"], renderer(tokenizer, "tests"))
    (row,) = (row for row in made.sources if row["source"] == "exercises")
    assert row["synthetic"] == {"some-70b": 1, "": 1}
    sizes = {example.id: len(example.ids) for example in made.examples}
    assert row["synthetic_tokens"] == sizes["exercises/00000"] + sizes["exercises/00001"]
