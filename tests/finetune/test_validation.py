"""What is held out, that validation scores as evaluation does, and that looking changes nothing."""

from __future__ import annotations

import json
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rinsho.chat import Message
from rinsho.errors import UserError
from rinsho.finetune import Recipe
from rinsho.finetune.holding_out import hold_out
from rinsho.instructions import Conversation
from rinsho.tasks import Item, document_key, documents, prompts
from tasks.toy_jmed import pair, write_csv
from toy_models import toy_folder

EXAM = {"problem_id": "999A1", "problem_text": "二つ選べ。", "choices": ["肝", "腎", "肺"], "text_only": True,
        "answer": ["a", "c"], "points": "1"}  # fmt: skip


def small(**changes: object) -> Recipe:
    values = {"sequence_length": 128, "dtype": "fp32", "validation_fraction": 0.2, "validation_rows_per_task": 200}
    return Recipe(**(values | changes))


def item(task: str, number: int, passage: str, gold: str = "") -> Item:
    kind = "choice" if gold else "entities"
    return Item(
        f"all/{task}/{number:05d}", task, kind, "", prompts.CHOICE, passage, ("ある", "ない") if gold else (),
        (gold or "発熱",), passage, document_key(passage),
    )  # fmt: skip


def talk(number: int, question: str, answer: str = "安静にする。") -> Conversation:
    return Conversation(f"advice/{number:05d}", "advice", (Message("user", question), Message("assistant", answer)))


def rows() -> tuple[list[Item], list[Conversation]]:
    """smdis asks each post twice, nrner about the first 20 posts too; one post in ten has it."""
    posts = [f"投稿{number}。" for number in range(100)]
    choices = [item("smdis", n, posts[n // 2], "A" if n // 2 % 10 == 0 else "B") for n in range(200)]
    entities = [item("nrner", n, post) for n, post in enumerate([*posts[:20], *(f"記録{n}" for n in range(20))])]
    return choices + entities, [talk(n, f"質問{n // 2}") for n in range(60)]


def keys(found: tuple[list[Item], list[Conversation]]) -> set[str]:
    return {name for row in found[0] for name in documents(row)} | {row.messages[0].content for row in found[1]}


def test_whole_documents_are_held_out_about_the_fraction_of_each_task() -> None:
    items, talks = rows()
    kept, held = hold_out(items, talks, 0.1, seed=1)
    assert not keys(kept) & keys(held)
    assert sorted(row.id for row in (*kept[0], *held[0])) == sorted(row.id for row in items)
    assert kept[0] == [row for row in items if row in kept[0]] and len(kept[1]) + len(held[1]) == 60
    number = Counter(task for task, _ in {(row.task, row.document) for row in held[0]})
    assert 8 <= number["smdis"] <= 10 and 2 <= number["nrner"] <= 4 and len(held[1]) == 6
    assert hold_out(items, talks, 0.1, seed=2)[1] != held


def test_the_draw_depends_on_seed_and_documents_alone() -> None:
    items, talks = rows()
    held = hold_out(items, talks, 0.1, seed=1)[1]
    random.Random(1).shuffle(items)
    again = hold_out(items, talks[::-1], 0.1, seed=1)[1]
    assert keys(again) == keys(held) and {row.id for row in again[0]} == {row.id for row in held[0]}
    alone = hold_out([], talks, 0.1, seed=1)[1]
    assert alone[1] == held[1]


def test_nothing_is_held_out_of_nothing_and_by_default() -> None:
    items, talks = rows()
    assert hold_out(items, talks, 0.0, seed=1) == ((items, talks), ([], []))
    assert hold_out([], [], 0.1, seed=1) == (([], []), ([], []))
    assert hold_out([item("nrner", 0, "甲")], [talk(0, "甲？")], 0.5, seed=1)[1] == ([], [])


@pytest.mark.parametrize("seed", range(5))
def test_no_answer_dies_out_and_two_documents_are_enough(seed: int) -> None:
    choices = [item("smdis", n, f"投稿{n}", "A" if n == 0 else "B") for n in range(12)]
    entities = [item("nrner", n, f"記録{n}") for n in range(2)]
    kept, held = hold_out(choices + entities, [], 0.5, seed)
    assert {row.gold for row in kept[0] if row.task == "smdis"} == {("A",), ("B",)}
    assert Counter(row.task for row in held[0]) == {"smdis": 6, "nrner": 1}


def test_documents_that_rows_join_go_together_and_large_ones_stay() -> None:
    def sentences(number: int, first: str, second: str) -> Item:
        passage = f"S1: {first}\nS2: {second}"
        return item("jcsts", number, passage, "A")

    chain = [sentences(n, f"甲{n}", f"甲{n + 1}") for n in range(30)]
    single = [sentences(100 + n, f"乙{n}", f"丙{n}") for n in range(20)]
    for seed in range(5):
        _, held = hold_out(chain + single, [], 0.1, seed)
        assert len(held[0]) in (3, 4) and all(row in single for row in held[0])


@pytest.mark.parametrize("split", ["row", "document"])
def test_near_passages_go_together_unless_rows_are_split(tmp_path: Path, split: str) -> None:
    from rinsho.finetune.data import gather

    records = [
        f"第{n}病日の患者{n * n}は、朝から{n}度の発熱と咳嗽{n}回があった。" + "経過を見た。" * n for n in range(30)
    ]
    rows = [["d", f"所見は？\n「{record}{end}」", "['発熱']"] for record in records for end in ("", "以上。")]
    header = ["tag", "question", "answer"]
    write_csv(tmp_path / "datasets/all/NRNER.csv", header, rows)
    write_csv(tmp_path / "datasets/nrner.csv", header, [["d", "所見は？\n「転倒なし。」", "['転倒']"]])
    source = gather(small(split=split), [tmp_path])
    kept, held = ({row.passage.removesuffix("以上。") for row in part} for part in (source.items, source.held[0]))
    assert held and bool(kept & held) == (split == "row")


def test_the_reports_of_a_case_go_together_if_asked_for() -> None:
    sentences = [f"患者{n}は発熱と咳嗽を主訴に来院した。" for n in range(40)]
    records = [
        item("nrner", n, f"{said}胸部写真で右肺に浸潤影あり、第{n}病日に入院した。") for n, said in enumerate(sentences)
    ]
    pairs = [item("jcsts", n, f"S1: {said}\nS2: 文{n}", "A") for n, said in enumerate(sentences)]

    def divided(split: str) -> bool:
        (kept, _), (held, _) = hold_out(records + pairs, [], 0.2, seed=1, split=split)  # type: ignore[arg-type]
        numbers = [{row.id.rsplit("/", 1)[1] for row in part} for part in (kept, held)]
        return bool(numbers[0] & numbers[1])

    assert divided("document") and not divided("case")


def test_conversations_with_a_long_turn_in_common_go_together() -> None:
    def talks(*turns: str) -> Conversation:
        messages = [message for turn in turns for message in (Message("user", turn), Message("assistant", "はい。"))]
        return Conversation(f"advice/{'/'.join(turns)}", "advice", tuple(messages))

    case = "三日前から三十八度の発熱と咳嗽があり、胸部写真で右下肺野に浸潤影を認めた。治療はどうしますか。"
    found = [talks(f"{n}{case * (1 + n % 3)}", "ありがとう", f"質問{n}-{m}") for n in range(20) for m in range(3)]
    for seed in range(3):
        kept, held = (part[1] for part in hold_out([], found, 0.2, seed))
        first = [{row.messages[0].content for row in part} for part in (kept, held)]
        assert len(held) in range(9, 16) and not first[0] & first[1]  # and thanks join nothing


def test_verdict() -> None:
    from rinsho.finetune.validation import verdict

    assert verdict([], 1) == (False, False)
    assert verdict([0.1], 1) == (True, False) and verdict([0.1, 0.2], 1) == (True, False)
    assert verdict([0.2, 0.2, 0.1], 2) == (False, True) and verdict([0.2, 0.1, 0.1], None) == (False, False)
    assert verdict([float("nan"), -0.5], 1) == (True, False)


@pytest.fixture
def questions(data: Path, tmp_path: Path) -> Path:
    """The pools as tests, graded pairs and an examination beside them."""
    folder = tmp_path / "questions"
    shutil.copytree(data, folder)
    tests = folder / "jmed_llm/datasets"
    shutil.copy(tests / "all/SMDIS.csv", tests / "smdis.csv")
    shutil.copy(tests / "all/NRNER.csv", tests / "nrner.csv")
    header = ["question", *[f"option{letter}" for letter in "ABCDEF"], "answer"]
    write_csv(
        tests / "jcsts.csv", header, [pair(f"発熱が{n}日。", f"咳嗽が{n}日。", "ABCDEF"[n % 6]) for n in range(12)]
    )
    exam = folder / "igakuqa/data/2030/999-A.jsonl"
    exam.parent.mkdir(parents=True)
    problems = [{**EXAM, "problem_id": f"999A{n}", "answer": ["abc"[n % 3]]} for n in range(10, 16)]
    exam.write_text("".join(json.dumps(row) + "\n" for row in (EXAM, *problems)), encoding="utf-8")
    return folder


def load(folder: Path, recipe: Recipe, spread: float = 0.3) -> Any:
    """A model whose answers vary."""
    import torch

    from rinsho.finetune import models

    loaded = models.load(folder, recipe, torch.device("cpu"))
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=draw)
                parameter.add_(spread * parameter.std().nan_to_num(0.1) * noise)
    return loaded


@pytest.mark.parametrize(("answer_form", "prompt_form"), [("text_letter", "short"), ("letter", "benchmark")])
def test_the_score_is_that_of_evaluation(
    base: Path, questions: Path, tmp_path: Path, answer_form: str, prompt_form: str
) -> None:
    from rinsho import evaluate
    from rinsho.finetune import models
    from rinsho.finetune.validation import Validation
    from rinsho.tasks import read_data
    from rinsho.tasks.item import list_text

    recipe = small(answer_form=answer_form, prompt_form=prompt_form)
    loaded = load(base, recipe, spread=5.0)
    records = read_data([questions], "test", tasks=["nrner"])
    looking = Validation(loaded, records, [], recipe)
    found = looking.generator.spans([looking.prompts[row.id] for row in records], [r.passage for r in records], 512)
    gold = [[*spans[n % 2 :], *row.gold] for n, (row, spans) in enumerate(zip(records, found, strict=True))]
    rows = [[row.tag, row.question, list_text(entities)] for row, entities in zip(records, gold, strict=True)]
    write_csv(questions / "jmed_llm/datasets/nrner.csv", ["tag", "question", "answer"], rows)  # the model knows some
    items = read_data([questions], "test")
    score = Validation(loaded, items, [], recipe).score(loaded.model)
    about = {"finetune": {"answer_form": answer_form, "prompt_form": prompt_form}}
    models.save(loaded, tmp_path / "model", base, about, "float32")
    asked = evaluate.Recipe(modes=("constrained",), bootstrap_samples=2)
    report = evaluate.run(asked, [tmp_path / "model", questions], tmp_path / "out").numbers
    theirs = {row["task"]: row for row in report["scores"]}
    for task in ("smdis", "jcsts"):
        assert score.by_task[task]["score"] == pytest.approx(theirs[task]["also"]["kappa"], abs=1e-12)
    assert score.by_task["nrner"]["score"] == pytest.approx(theirs["nrner"]["score"], abs=1e-12)
    assert score.by_task["igakuqa"]["score"] == pytest.approx(theirs["igakuqa-2030"]["score"], abs=1e-12)
    assert {task: row["metric"] for task, row in score.by_task.items()} == {
        "smdis": "kappa", "jcsts": "linear_kappa", "nrner": "exact_f1", "igakuqa": "accuracy"
    }  # fmt: skip
    assert score.by_task["igakuqa"]["chance"] == pytest.approx(1 / 3)
    assert score.value == pytest.approx(sum(row["score"] for row in score.by_task.values()) / 4)
    assert [score.by_task[task]["n"] for task in ("smdis", "nrner", "igakuqa")] == [60, 30, 7]
    assert all(row["score"] for row in score.by_task.values())  # not the answers of a dead model


def test_legal_answers_are_rated_by_the_loss_that_is_trained(base: Path, questions: Path) -> None:
    """Ours in training form: the cache, the embedding's scale and the places of the labels."""
    import torch

    from rinsho.chat import render
    from rinsho.finetune import models
    from rinsho.finetune.validation import Validation
    from rinsho.tasks import choice_text, read_data
    from rinsho.tasks.asking import turns

    recipe = small(prompt_form="short")
    loaded = load(base, recipe)
    asked = [row for row in read_data([questions], "test") if row.task == "smdis"][:5]
    looking = Validation(loaded, asked, [], recipe)
    loaded.model.eval()
    for row in asked:
        texts = [choice_text(row, letter, "text_letter") for letter in "AB"]
        encode, end = loaded.tokenizer.encode_text, loaded.tokenizer.eos_token_id
        assert looking.options[row.id] == [[*encode(text), end] for text in texts]
        (sums,) = looking.generator.choose([looking.prompts[row.id]], [looking.options[row.id]])
        for letter, found in zip("AB", sums, strict=True):
            answer = Message("assistant", choice_text(row, letter, "text_letter"))
            ids, mask = render([*turns(row, "short"), answer], loaded.tokenizer)
            labels = [token if learned else -100 for token, learned in zip(ids, mask, strict=True)][1:]
            batch = (torch.tensor([ids[:-1]]), torch.arange(len(labels))[None], torch.tensor([labels]))
            with torch.no_grad():
                assert found == pytest.approx(-float(models.loss(loaded.model, *batch)), rel=1e-4)


def test_instructions_score_their_mean_loss(base: Path) -> None:
    import torch

    from rinsho.finetune import models
    from rinsho.finetune.data import conversation
    from rinsho.finetune.validation import Validation

    recipe = small(sequence_length=64, micro_batch_rows=2)
    loaded = load(base, recipe)
    talks = [talk(n, "発熱と" + "咳嗽" * n * 30, "水分を" + "とり" * n) for n in range(5)]
    score = Validation(loaded, [], talks, recipe).score(loaded.model)
    assert loaded.model.training
    total, learned, cut = 0.0, 0, 0
    for row in talks:
        made = conversation(row.messages[:-1], row.messages[-1].content, loaded.render, 64)
        assert made is not None
        ids, mask, shortened = made
        cut += shortened
        labels = [token if one else -100 for token, one in zip(ids, mask, strict=True)][1:]
        with torch.no_grad():
            batch = (torch.tensor([ids[:-1]]), torch.arange(len(labels))[None], torch.tensor([labels]))
            total += float(models.loss(loaded.model.eval(), *batch))
        learned += sum(mask)
    assert cut and score.value == pytest.approx(-total / learned, rel=1e-5)
    assert score.by_task == {"instructions/advice": {"metric": "loss", "score": -score.value, "n": 5}}


def test_looking_changes_nothing_and_sees_the_same_again(base: Path, questions: Path) -> None:
    import torch

    from rinsho.finetune import models
    from rinsho.finetune.validation import Validation
    from rinsho.tasks import read_data

    recipe = small(prompt_form="short", residual_dropout=0.3, validation_rows_per_task=8)
    loaded = load(base, recipe)
    items, talks = read_data([questions], "test", tasks=("smdis", "nrner")), [talk(n, f"質問{n}") for n in range(9)]
    looking = Validation(loaded, items, talks, recipe)
    state = torch.random.get_rng_state()
    first = looking.score(loaded.model)
    assert {row["n"] for row in first.by_task.values()} == {8}
    assert first.value == pytest.approx((first.by_task["smdis"]["score"] + first.by_task["nrner"]["score"]) / 2)
    assert torch.equal(torch.random.get_rng_state(), state) and loaded.model.training
    assert all(parameter.grad is None for parameter in loaded.model.parameters())
    ids = torch.randint(3, 400, (2, 16))
    models.loss(loaded.model, ids, torch.arange(16).expand(2, 16), ids).backward()  # a step in between
    assert looking.score(loaded.model) == first
    assert Validation(loaded, items[::-1], talks, recipe).score(loaded.model) == first


def test_a_model_that_is_not_ours_and_what_cannot_be_asked(questions: Path, tmp_path: Path) -> None:
    from rinsho.finetune.validation import Validation
    from rinsho.tasks import read_data
    from rinsho.tasks.asking import turns

    recipe = small(prompt_form="short", validation_rows_per_task=6)
    loaded = load(toy_folder(tmp_path / "foreign", chat=False), recipe)
    items = read_data([questions], "test", tasks=("smdis", "nrner"))
    looking = Validation(loaded, items, [talk(0, "発熱")], recipe)
    first = looking.tasks["smdis"][0]
    assert looking.prompts[first.id] == loaded.render(turns(first, "short"), add_generation_prompt=True)[0]
    score = looking.score(loaded.model)
    assert -1 <= score.by_task["smdis"]["score"] <= 1 and 0 <= score.by_task["nrner"]["score"] <= 1
    assert score.by_task["instructions/advice"]["score"] > 0
    with pytest.raises(UserError, match="nothing that was held out can be asked"):
        Validation(loaded, [], [talk(0, "発熱", "熱" * 500)], recipe)


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["none", "int8", "nf4"])
def test_an_adapter_is_looked_at_and_trained_on(base: Path, questions: Path, quantization: str) -> None:
    import torch

    from rinsho.finetune import Adapter, models
    from rinsho.finetune.validation import Validation
    from rinsho.tasks import read_data

    recipe = small(prompt_form="short", adapter=Adapter(), quantization=quantization, activation_checkpointing=True)
    loaded = load(base, recipe)
    items = read_data([questions], "test", tasks=("smdis", "nrner"))
    looking = Validation(loaded, items, [talk(0, "発熱")], recipe)
    first = looking.score(loaded.model)
    ids = torch.randint(3, 400, (2, 16))
    models.loss(loaded.model, ids, torch.arange(16).expand(2, 16), ids).backward()
    assert any(parameter.grad is not None for parameter in loaded.model.parameters())
    assert looking.score(loaded.model) == first
