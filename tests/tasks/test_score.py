"""Official scorers against an independent restatement of the benchmark's rules, and against scikit-learn."""

from __future__ import annotations

import random
import time

import pytest
from sklearn.metrics import accuracy_score, cohen_kappa_score

from real_data import real_data
from rinsho.tasks import read_jmed, score

WORDS = ["肺癌", "発熱", "咳嗽", "５ｍｇ", "it's", 'say "x"', "a\\b", "発熱 咳", "心不全", "肺", "癌", "［］", "改\n行"]
NOISE = [
    "A",
    "B",
    "F",
    "G",
    "a",
    "ADE",
    "。",
    "\n",
    "None",
    "回答: ",
    "Ａ",
    " ",
    "\x00",
    "\ud800",
    "1",
    "[",
    "'",
    "選択肢",
]


def restated_letter(text: str) -> str:
    places = [text.find(letter) for letter in "ABCDEF" if letter in text]
    return text[min(places)] if places else "None"


def restated_f1(gold: list, given: list, credit) -> float:
    """Sets as lists without repeats, counted by hand."""
    right = [e for i, e in enumerate(gold) if e not in gold[:i]]
    found = [e for i, e in enumerate(given) if e not in given[:i]]
    hits = credit(right, found)
    recall, precision = hits / len(right), (hits / len(found) if found else 0)
    return 2 * recall * precision / (recall + precision) if recall + precision else 0.0


def exact_credit(right: list, found: list) -> int:
    return sum(1 for entity in right if entity in found)


def partial_credit(right: list, found: list) -> int:
    """The original's loops: a gold entity counts once any given one is 'in' the other side's *set*."""
    count = 0
    for entity in right:
        for other in found:
            if entity in found or other in right:
                count += 1
                break
    return count


def random_list(draw: random.Random) -> list:
    pool = [*WORDS, 1, 2.5, None, True, ("a", "b"), b"x", 1, -3]
    return [draw.choice(pool) for _ in range(draw.randint(0, 8))]


def written(entities: list, draw: random.Random) -> str:
    """A list as a model could write it, in one of several ways that mean the same."""
    inner = draw.choice([", ", ",", " ,\n "]).join(map(repr, entities))
    tail = draw.choice(["", ",", " "]) if entities else ""
    text = f"[{inner}{tail}]"
    return draw.choice([text, f"({text})", f"  {text}\n", f"{text} # そのほかなし", f"\n{text}"])


def test_first_letter_on_random_answers() -> None:
    draw = random.Random(1)
    for _ in range(20_000):
        text = "".join(draw.choice(NOISE) for _ in range(draw.randint(0, 12)))
        assert score.first_letter(text) == restated_letter(text)


def test_lists_and_f1_on_random_answers() -> None:
    draw = random.Random(2)
    for _ in range(5_000):
        gold = [draw.choice(WORDS) for _ in range(draw.randint(1, 8))]
        entities = random_list(draw) + draw.sample(gold, draw.randint(0, len(gold)))
        parsed = score.parse_list(written(entities, draw))
        assert parsed == entities
        assert score.exact_f1(gold, parsed) == restated_f1(gold, entities, exact_credit)
        assert score.official_partial_f1(gold, parsed) == restated_f1(gold, entities, partial_credit)
        assert 0 <= score.overlap_f1(gold, parsed) <= 1


@pytest.mark.parametrize("weights", [None, "linear"])
def test_kappa_equals_scikit_learn(weights: str | None) -> None:
    draw = random.Random(3)
    for _ in range(150):
        names = draw.sample([*"ABCDEF", "None"], draw.randint(2, 7))
        gold = [draw.choice([n for n in names if n != "None"] or ["A"]) for _ in range(draw.randint(5, 60))]
        given = [draw.choice(names) if draw.random() < 0.5 else label for label in gold]
        if len({*gold, *given}) == 1:
            continue
        assert score.kappa(gold, given, weights) == pytest.approx(
            cohen_kappa_score(gold, given, weights=weights), abs=1e-12
        )
        assert score.accuracy(gold, given) == pytest.approx(accuracy_score(gold, given), abs=1e-12)


def test_none_is_the_farthest_class_of_linear_kappa() -> None:
    gold = ["A", "B", "C", "D"] * 5
    near = ["B" if label == "A" else label for label in gold]
    silent = ["None" if label == "A" else label for label in gold]
    assert score.kappa(gold, silent, "linear") < score.kappa(gold, near, "linear")


def test_kappa_of_one_label_is_undefined() -> None:
    assert score.kappa(["A"] * 3, ["A"] * 3) != score.kappa(["A"] * 3, ["A"] * 3)


def test_one_gold_entity_alone_passes_one_in_the_official_partial_f1() -> None:
    gold = ["肺癌", "発熱", "咳嗽", "血痰", "胸水", "腫瘤", "転移", "疼痛"]
    assert score.official_partial_f1(gold, gold[:1]) == pytest.approx(16 / 9)
    assert score.overlap_f1(gold, gold[:1]) == pytest.approx(2 / 9)


@pytest.mark.parametrize(
    ("task", "partial", "exact"),
    [("mrner_disease", 1.707, 0.293), ("mrner_medicine", 1.294, 0.706), ("nrner", 1.304, 0.696)],
)
def test_one_entity_a_text_beats_a_perfect_answer_on_the_real_files(task: str, partial: float, exact: float) -> None:
    golds = [item.gold for item in read_jmed(real_data("jmed_llm"), "test", tasks=[task])]
    for scorer, expected in ((score.official_partial_f1, partial), (score.exact_f1, exact), (score.overlap_f1, exact)):
        assert sum(scorer(gold, gold[:1]) for gold in golds) / len(golds) == pytest.approx(expected, abs=5e-4)
        assert scorer(golds[0], golds[0]) == 1.0


@pytest.mark.parametrize(
    ("gold", "given", "expected"),
    [
        (["肺癌"], ["肺癌"], 1.0),
        (["右肺癌"], ["肺癌"], 0.8),
        (["右肺癌", "肺炎"], ["肺癌"], 1.6 / 3),
        (["発熱", "熱"], ["発熱", "発熱"], 2 / 3),
        (["肺炎"], ["肺炎球菌", "炎"], 2 * (4 / 6) / 3),  # one to one: only the better match counts
        (["甲乙", "乙丙"], ["乙丙丁", "乙"], 2 * (2 / 3 + 4 / 5) / 4),  # the best matching, not the first
        (["肺炎"], [], 0.0),
        ([], [], 1.0),
        (["肺炎"], [1, None], 0.0),
    ],
)
def test_overlap_f1(gold: list, given: list, expected: float) -> None:
    assert score.overlap_f1(gold, given) == pytest.approx(expected)


HOSTILE = {
    "code": "__import__('os').system('touch /tmp/owned')",
    "code in a list": "[__import__('os').getcwd()]",
    "comprehension": "[x for x in range(10**9)]",
    "repetition": "['a'] * 10**9",
    "power": "[9**9**9]",
    "10 MB of text": "あ" * 10_000_000,
    "10 MB list": "[" + "'a'," * 2_500_000 + "]",
    "nested": "[" * 5_000 + "]" * 5_000,
    "nested pairs": "[" + "([" * 4_000,
    "minus signs": "[" + "-" * 16_000 + "1]",
    "sum": "[" + "1+" * 8_000 + "1]",
    "subscripts": "[a" + "[0]" * 5_000 + "]",
    "digits": "[" + "9" * 16_000 + "]",
    "null byte": "['a\x00']",
    "control characters": "\x01\x02['a']",
    "lone surrogate": "['\ud800']",
    "unhashable": "[['肺癌']]",
    "dictionary": "[{'肺癌': 1}]",
    "not a list": "('肺癌',)",
    "empty": "",
    "walrus": "[(x := 1)]",
    "lambda": "[lambda: 0]",
    "format string": "[f'{1}']",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_answers_are_wrong_and_quick(name: str) -> None:
    started = time.perf_counter()
    assert score.parse_list(HOSTILE[name]) is None
    score.first_letter(HOSTILE[name])
    assert score.strict_letters(HOSTILE[name], "ABCD") == ()
    assert time.perf_counter() - started < 0.5


def test_a_long_list_of_near_misses_is_quick() -> None:
    started = time.perf_counter()
    given = score.parse_list("[" + ",".join(f"'肺{number}'" for number in range(2_000)) + "]")
    assert given is not None and score.overlap_f1(["肺癌"] * 1 + [f"肺{n}炎" for n in range(19)], given) <= 1
    assert time.perf_counter() - started < 2


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("A", "A"),
        (" Ｂ。\n", "B"),
        ("(C)", "C"),
        ("「A」", "A"),
        ("ADEの可能性は低い\nB", "B"),
        ("ADEの可能性", "None"),
        ("A. 肺癌", "A"),
        ("A. 肺炎", "None"),
        ("E", "None"),
        ("A,B", "None"),
        ("回答はA", "A"),
        ("Answer: B", "B"),
        ("答え: B", "B"),
        ("回答：Ｂ", "B"),
        ("The correct answer is (C).", "C"),
        ("**Answer:** D", "D"),
        ("理由を述べる。\n答え：選択肢C", "C"),
        ("Answer: ADE", "None"),
        ("答え: E", "None"),
        ("答えはAだと思う", "None"),
        ("Based on B", "None"),
        ("", "None"),
    ],
)
def test_strict_letter(answer: str, expected: str) -> None:
    found = score.strict_letters(answer, "ABCD", ["肺癌", "肺炎", "胃癌", "なし"])
    assert (found[0] if len(found) == 1 else "None") == expected


def test_strict_letters_reads_several() -> None:
    assert score.strict_letters("c, a", "abcde") == ("a", "c")
    assert score.strict_letters("肝\n腎\na、b", "abcde") == ("a", "b")
    assert score.strict_letters("Answer: A and C", "ABCDE") == ("A", "C")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("B", "B"),
        ("Answer: B", "B"),
        ("答え：Ｂ", "B"),
        ("**B**", "B"),
        ("The answer is (B)", "B"),
        ("Based on the findings, the answer is C because A and D are wrong.", "C"),
        ("First I thought the answer is A.\nThe correct answer is D, clearly.", "D"),
        ("正解はBです。", "B"),
        ("答えは選択肢Cである。", "C"),
        ("肺炎と考える。\nB", "B"),
        ("B. 肺炎", "B"),
        ("肺炎", "B"),
        ("胃癌。", "C"),
        ("Based on the findings", ""),
        ("ADEの可能性", ""),
        ("答えはAではなくB", ""),
        ("Aではない", ""),
        ("Answer: E", ""),
        ("Answer: ADE", ""),
        ("Answers vary. A is common", ""),
        ("the answer is a disease", ""),
        ("質問に答えられません。A", ""),
        ("B. 肺癌", ""),
        ("", ""),
        ("A" * 20_000, ""),
    ],
)
def test_said_letters(answer: str, expected: str) -> None:
    assert "".join(score.said_letters(answer, "ABCD", ["肺癌", "肺炎", "胃癌", "なし"])) == expected


def test_said_letters_of_other_alphabets_and_equal_options() -> None:
    assert score.said_letters("the answer is a beta blocker", "abcd", ["x"] * 4) == ()
    assert score.said_letters("The answer is a.", "abcd", ["x"] * 4) == ("a",)
    assert score.said_letters("x", "abcd", ["x"] * 4) == ()
    assert score.said_letters("Answer: h", "abcdefgh", [*"12345678"]) == ("h",)
    assert score.said_letters("答えはAとCです", "ABCD", [*"1234"]) == ("A", "C")


@pytest.mark.parametrize(
    "answer",
    ["答え:" * 5_000, "答え" + " " * 16_000, "答え: option" + " " * 16_000 + "7", "A" + " and A" * 2_600 + "!",
     "the " * 4_000 + "x", "answer is" + "( " * 8_000, "答え:A" + "とA" * 8_000 + "x", "A" + " " * 16_000 + "x"],
    ids=range(8),
)  # fmt: skip
def test_answers_made_to_be_slow_are_quick(answer: str) -> None:
    started = time.process_time()
    score.said_letters(answer, "ABCD", [*"1234"])
    assert time.process_time() - started < 0.5


def test_what_stands_in_the_passage_stays_as_it_was_said() -> None:
    passage = "朝は38.5℃、夜間に３８．５℃の発熱。"
    assert score.own_spelling(passage, ["３８．５℃", "38.5℃", "発熱"]) == ["３８．５℃", "38.5℃", "発熱"]
    assert score.own_spelling("夜間に３８．５℃の発熱。", ["38.5°C"]) == ["３８．５℃"]
