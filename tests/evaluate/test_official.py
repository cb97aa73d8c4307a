"""The original evaluators' rules, written down anew from their description in words (data map, 1.4 and 2).

Nothing here is taken from `rinsho.tasks.score`: letters are found by walking through the text, kappa is scikit-learn's,
F1 is counted by hand, and lists are evaluated as the original does, but for what is not a literal. Thousands of random
and adversarial answers per task go through `Scoring.tables` and have to give the same figures.
"""

from __future__ import annotations

import ast
import random
import warnings
from dataclasses import replace
from statistics import mean

import pytest
from sklearn.metrics import accuracy_score, cohen_kappa_score, precision_recall_fscore_support

from rinsho.evaluate.scoring import Baselines, Scoring
from rinsho.tasks import Item, prompts
from rinsho.tasks.item import rotated
from rinsho.tasks.score import MAX_ANSWER_CHARS, parse_list

CHOICES = {"jmmlu_med": 4, "crade": 4, "rrtnm": 5, "smdis": 2, "jcsts": 6}
ENTITIES = ("mrner_disease", "mrner_medicine", "nrner")
ORDERED = ("crade", "jcsts")
NUM_ANSWERS = 1_500  # of each task
LETTER_PIECES = [
    *"ABCDEFGZabz", "ADE", "None", "。", "\n", " ", "回答: ", "Ａ", "Ｂ", "選択肢", "\x00", "\ud800", "\u202e", "A. ",
    "B)", "<b>", "(C", "1", "é", "\\u0041", "Ⓐ", "ǅ", "𝐀", "肺癌。", "The answer is ", "",
]  # fmt: skip
WORDS = [
    "肺癌",
    "発熱",
    "咳嗽",
    "５ｍｇ",
    "it's",
    'say "x"',
    "a\\b",
    "発熱 咳",
    "心不全",
    "肺",
    "癌",
    "改\n行",
    "",
    "\u3000",
]
VALUES = [1, 1.0, True, None, -3, 2.5, 1 + 2j, -0.0, 0, False, b"x", ("a", "b"), (), ("肺癌", (1, None)), ..., 10**40]
UNHASHABLE = [[], ["肺癌"], {"肺癌": 1}, {"肺癌"}, ("a", ["b"]), ([],)]
# Places in a list text where a mutation puts one of these: quotes, brackets, operators, other scripts, control marks.
MUTATIONS = [
    *"[](){},'\"\\#:;.-+~ \n\t\r\f\x00_=<&|^%@!?$`", "''", '"""', "b", "r", "u", "f", "1", "0x", "1e", "j", "...", "*",
    "「", "」", "‘", "’", "＇", "\u201c", "，", "、", "［", "］", "\ufeff", "\ud800", "\u202e", "\u00a0", "\u3000", "\\\n",
    " or ", " if ", " not ", "for x in", "lambda:", "None", "x", "#…\n", "\\N{DIGIT ONE}", "\\x", "\\u3042", "\\777",
]  # fmt: skip
LITERALS = (
    ast.Expression, ast.Load, ast.Constant, ast.List, ast.Tuple, ast.Set, ast.Dict, ast.UnaryOp, ast.USub, ast.UAdd,
    ast.BinOp, ast.Add, ast.Sub,
)  # fmt: skip


def first_letter(text: str) -> str:
    for character in text:
        if character in ("A", "B", "C", "D", "E", "F"):
            return character
    return "None"


def evaluated(text: str) -> list | None:
    """What the original makes of an answer: the value of the expression if it is a list, else nothing.

    The deliberate differences: what is no literal is not run, and a list with an unhashable value, at which the
    original stops, is nothing.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            tree = ast.parse(text.lstrip(" \t"), mode="eval")
            if not all(isinstance(node, LITERALS) and _is_signed(node) for node in ast.walk(tree)):
                return None
            value = eval(text, {"__builtins__": {}})
            return value if isinstance(value, list) and set(value) is not None else None
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return None


def _is_signed(node: ast.AST) -> bool:
    """Signs stand before numbers only, sums are complex numbers only: `-'a'` and `1 + 1` are calculations."""

    def number(part: ast.AST, kinds: tuple[type, ...], signed: bool = True) -> bool:
        if signed and isinstance(part, ast.UnaryOp):
            part = part.operand
        return isinstance(part, ast.Constant) and type(part.value) in kinds

    if isinstance(node, ast.UnaryOp):
        return number(node.operand, (int, float, complex), signed=False)
    if isinstance(node, ast.BinOp):
        return number(node.left, (int, float)) and number(node.right, (complex,), signed=False)
    return True


def distinct(values: list) -> list:
    return [value for place, value in enumerate(values) if value not in values[:place]]


def f1(hits: int, gold: int, given: int) -> float:
    recall, precision = hits / gold, hits / given if given else 0
    return 2 * recall * precision / (recall + precision) if recall + precision else 0


def exact(gold: list, given: list) -> float:
    gold, given = distinct(gold), distinct(given)
    return f1(sum(value in given for value in gold), len(gold), len(given))


def partial(gold: list, given: list) -> float:
    """A gold entity counts as soon as any given one equals any gold one: in sets, `in` is equality."""
    gold, given = distinct(gold), distinct(given)
    return f1(sum(any(value in given or other in gold for other in given) for value in gold), len(gold), len(given))


def item(task: str, number: int, **given) -> Item:
    wording = prompts.CHOICE if "options" in given else prompts.ENTITIES
    kind = "choice" if "options" in given else "entities"
    base = Item(f"{task}/{number:05d}", task, kind, "", wording, "", (), (), "甲は発熱し肺癌を疑う。", str(number // 3))
    return replace(base, **given)


def tables(items: list[Item], answers: dict[str, str], mode: str = "free", **more) -> dict:
    rows = {(i, mode, 0): {"id": i, "mode": mode, "answer": text} | more for i, text in answers.items()}
    return Scoring(rows, Baselines(), 1, 1).tables(items, [mode])


@pytest.mark.parametrize("task", CHOICES)
def test_choices(task: str) -> None:
    draw = random.Random(task)
    letters = "ABCDEF"[: CHOICES[task]]
    options = tuple(f"選択肢{letter}" for letter in letters)
    items = [
        item(task, n, options=options, gold=(draw.choice(letters),), ordered=task in ORDERED)
        for n in range(NUM_ANSWERS)
    ]
    answers = {}
    for asked in items:
        noise = "".join(draw.choice(LETTER_PIECES) for _ in range(draw.randint(0, 6)))
        answers[asked.id] = draw.choice([noise, noise, asked.gold[0] + noise, "「" + asked.gold[0]])
    del answers[items[7].id]  # a question without an answer is no letter
    gold, said = [i.gold[0] for i in items], [first_letter(answers.get(i.id, "")) for i in items]
    found = tables(items, answers)
    (row,), also = found["scores"], found["scores"][0]["also"]
    weights = "linear" if task in ORDERED else None
    assert "None" in said and set(said) - set(letters)
    assert row["score"] == also["accuracy_official"] == pytest.approx(accuracy_score(gold, said), abs=1e-12)
    assert also["kappa_official"] == pytest.approx(cohen_kappa_score(gold, said, weights=weights), abs=1e-12)
    names = sorted({*gold, *said})
    columns = precision_recall_fscore_support(gold, said, labels=names, zero_division=0)
    by_label = {row["label"]: row for row in found["classes"]}
    for name, *expected in zip(names, *columns[:3], columns[3], strict=True):
        got = [by_label[name][column] or 0 for column in ("precision", "recall", "f1", "gold")]
        assert got == pytest.approx(expected, abs=1e-12)
        assert by_label[name]["given"] == said.count(name)


SAID = {  # how a free answer of a task without a rule of its own says a letter, and whether the letter is read
    "{}": True, "{}.": True, "({})": True, "**{}**": True, "Answer: {}": True, "Answer: {} ": True, "答え: {}": True,
    "回答：{}": True, "正解は{}です。": True, "The answer is {}.": True, "The answer is ({}), not A.": True,
    "Based on age.\nAnswer: {}": True, "A or B? I say\n{}": True, "Based on {}": False, "I like {} best": False,
    "ADE {}": False, "答えは{}ではない": False, "Answer: {}DE": False, "": False, "わからない": False,
}  # fmt: skip


@pytest.mark.parametrize("task", ["usmle", "triage"])
def test_choices_of_tasks_without_an_official_rule(task: str) -> None:
    """No letter A to F anywhere: "Answer: B" is B, and "Based on" is nothing."""
    draw = random.Random(task)
    options = tuple(f"選択肢の{number}" for number in range(5))
    items = [item(task, n, options=options, gold=(draw.choice("ABCDE"),)) for n in range(NUM_ANSWERS)]
    said, answers = [], {}
    for asked in items:
        form, letter = draw.choice(list(SAID)), draw.choice([asked.gold[0], *"ABCDE"])
        if draw.random() < 0.05:
            answers[asked.id] = draw.choice(["{}", "{}. " + options["ABCDE".index(letter)]]).format(letter)
            said.append(letter)
            continue
        wide = letter.translate(WIDE) if draw.random() < 0.3 and form != "Answer: {}DE" else letter
        answers[asked.id] = form.format(wide)
        said.append(letter if SAID[form] else "None")
    (row,) = tables(items, answers)["scores"]
    gold, also = [asked.gold[0] for asked in items], row["also"]
    assert row["score"] == pytest.approx(accuracy_score(gold, said), abs=1e-12)
    assert also["kappa"] == pytest.approx(cohen_kappa_score(gold, said), abs=1e-12)
    assert also["answer_rate"] == pytest.approx(1 - said.count("None") / len(said))
    assert "accuracy_official" not in also and "kappa_official" not in also and also["accuracy_strict"] <= row["score"]


AROUND = [
    *[("", "")] * 4, ("  ", ""), ("\t", "\n"), ("\n", ""), ("\n ", ""), ("(", ")"), ("", " # 以上"), ("(", ",)"), ("", ","),
    ("", "。"), ("回答: ", ""),
]  # fmt: skip


def entity_answer(draw: random.Random, gold: list[str]) -> str:
    values = [draw.choice(VALUES) if draw.random() < 0.2 else draw.choice(WORDS) for _ in range(draw.randint(0, 6))]
    values += draw.sample(gold, draw.randint(0, len(gold)))
    if draw.random() < 0.05:
        values.append(draw.choice(UNHASHABLE))
    text = (
        repr(values) if draw.random() < 0.5 else "[" + draw.choice([",", " ,\n ", ", "]).join(map(repr, values)) + "]"
    )
    before, after = draw.choice(AROUND)
    text = before + text + after
    for _ in range(draw.choice([0, 0, 0, 1, 1, 3])):
        place = draw.randrange(len(text) + 1)
        cut = place + draw.choice([0, 0, 1])
        text = text[:place] + draw.choice([*MUTATIONS, ""]) + text[cut:]
    return text


@pytest.mark.parametrize("task", ENTITIES)
def test_entities(task: str) -> None:
    draw = random.Random(task)
    items = [item(task, n, gold=tuple(draw.sample(WORDS[:-2], draw.randint(1, 6)))) for n in range(NUM_ANSWERS)]
    answers = {asked.id: entity_answer(draw, list(asked.gold)) for asked in items}
    read = {identifier: evaluated(text) for identifier, text in answers.items()}
    for identifier, text in answers.items():
        assert repr(parse_list(text)) == repr(read[identifier]), repr(text)
    share = mean(value is not None for value in read.values())
    assert 0.2 < share < 0.8  # the generator makes enough of both
    also = tables(items, answers)["scores"][0]["also"]
    pairs = [(list(asked.gold), read[asked.id] or []) for asked in items]
    assert also["official_exact_f1"] == pytest.approx(mean(exact(*pair) for pair in pairs), abs=1e-12)
    assert also["official_partial_f1"] == pytest.approx(mean(partial(*pair) for pair in pairs), abs=1e-12)
    assert also["answer_rate"] == pytest.approx(share)


LISTS = {
    "['a']": ["a"], "  ['a']": ["a"], "\t['a']": ["a"], "\n['a']": ["a"], "['a'] ": ["a"], "['a']\n\n": ["a"],
    "['a',]": ["a"], "['a' 'b']": ["ab"], "['a'\n'b']": ["ab"], "('a')": None, "(['a'])": ["a"], "['a'],": None,
    "['a'] # b": ["a"], "# b\n['a']": ["a"], "[ # b\n'a']": ["a"], "['a', 'a']": ["a", "a"], "[]": [], "[[]]": None,
    "[()]": [()], "[('a', 1)]": [("a", 1)], "[(['a'],)]": None, "[{'a'}]": None, "[{}]": None, "{'a'}": None,
    "{'a': 1}": None, "'a'": None, "5": None, "...": None, "[...]": [...], "[None, True]": [None, True], "[-1]": [-1],
    "[1_000, 0x1F, 1e3]": [1000, 31, 1000.0], "[1+2j]": [1 + 2j], "[b'a']": [b"a"], "[r'\\d', u'a']": ["\\d", "a"],
    "['''a\nb''']": ["a\nb"], "['\\u3042\\x41']": ["あA"], "['\\d']": ["\\d"], "['a\\\nb']": ["ab"],
    "[" + "9" * 5_000 + "]": None, "['\ud800']": None, "['\\ud800']": ["\ud800"], "['a\x00']": None, "[‘a’]": None,
    "['a'、'b']": None, "［'a'］": None, "\ufeff['a']": None, "\u3000['a']": None, "\n ['a']": None, "['a'": None,
    "'a']": None, "['a'] ['b']": None, "['a']\n['b']": None, "```python\n['a']\n```": None, "回答: ['a']": None,
    "['\u202ea']": ["\u202ea"], "['a'];": None, "['a' b'b']": None, "[nan]": None, "[1e999]": [float("inf")],
}  # fmt: skip
RUN_BY_THE_ORIGINAL = {
    "['a'] + ['b']": ["a", "b"], "['a'] * 2": ["a", "a"], "['a', 'b'][:1]": ["a"], "[f'a']": ["a"], "[1 + 1]": [2],
    "[x for x in 'ab']": ["a", "b"], "list('ab')": ["a", "b"], "[*'ab']": ["a", "b"], "['a'] or 1": ["a"],
    "'a b'.split()": ["a", "b"], "[not 1]": [False], "['a'] if 1 else 2": ["a"], "[(x := 1)]": [1], "[- -1]": [1],
    "[['a'] == 1]": [False], "sorted('ab')": ["a", "b"], "eval(\"['a']\")": ["a"], "[-True]": [-1], "[~1]": [-2],
}  # fmt: skip


@pytest.mark.parametrize("text", LISTS, ids=lambda text: ascii(text)[:30])
def test_literals_that_are_lists(text: str) -> None:
    assert repr(parse_list(text)) == repr(evaluated(text)) == repr(LISTS[text])


@pytest.mark.parametrize("text", RUN_BY_THE_ORIGINAL, ids=ascii)
def test_what_is_a_list_only_by_running_is_none(text: str) -> None:
    """The deliberate difference: the original would have run these and read a list."""
    assert parse_list(text) is None and evaluated(text) is None
    assert eval(text) == RUN_BY_THE_ORIGINAL[text]


def test_a_list_longer_than_any_answer_is_none() -> None:
    text = "['" + "肺" * MAX_ANSWER_CHARS + "']"
    assert parse_list(text) is None and evaluated(text) is not None  # 512 tokens never say as much


WIDE = {code: code + 0xFEE0 for code in range(0x21, 0x7F)}  # ASCII -> full width
NARROW = {wide: code for code, wide in WIDE.items()}


def exam_points(problems: list[dict], answers: dict[str, str]) -> tuple[int, int]:
    """(points, right answers) of rows of the original form."""
    score = right = 0
    for problem in problems:
        said = answers.get(problem["problem_id"])
        said = None if said is None else said.translate(NARROW).lower()  # as the authors' script keeps an answer
        ok = said is not None and sorted(said.split(",")) == sorted(problem["answer"])
        ok = ok or problem["problem_id"] == "116A71"
        ok = ok or (problem["problem_id"] == "112B30" and said in ("a", "d"))
        score, right = score + int(problem["points"]) * ok, right + ok
    return score, right


def test_examinations() -> None:
    draw = random.Random(5)
    problems, items, answers = [], [], {}
    names = ["116A71", "112B30", *(f"{112 + n % 9}{'ABCDEF'[n % 6]}{100 + n}" for n in range(3_000))]
    for name in names:
        gold = ["a or d"] if name == "112B30" else sorted(draw.sample("abcde", draw.choice([1, 1, 1, 2, 3])))
        number = draw.random() < 0.05 and name != "112B30"
        gold = [draw.choice(["26", "1.2", "04", "7.20"])] if number else gold
        problems.append({"problem_id": name, "answer": gold, "points": draw.choice("0113")})
        items.append(Item(
            f"igakuqa/{name}", "igakuqa", "number" if number else "choice", "", prompts.EXAM, "",
            () if number else tuple("肝腎肺心脳"), tuple(gold), "", name, points=int(problems[-1]["points"]), year=2018,
            figure=draw.random() < 0.25,
        ))  # fmt: skip
        mixed = draw.sample(gold, len(gold))
        noise = ",".join(
            draw.choice([*"abcdef", "", " a", "a ", "26", "a or d", "、"]) for _ in range(draw.randint(0, 3))
        )
        answers[name] = draw.choice(
            [
                ",".join(mixed),
                ", ".join(mixed),
                ",".join(mixed).upper(),
                ",".join(mixed).translate(WIDE),
                noise,
                ",".join([*mixed, *mixed]),
                "わからない",
            ]
        )
    answers |= {"112B30": "d"}
    del answers[names[9]]
    found = tables(items, {f"igakuqa/{name}": text for name, text in answers.items()})
    (row,), also = found["scores"], found["scores"][0]["also"]
    score, right = exam_points(problems, answers)
    assert (also["points"], also["points_official"]) == (score, score)
    assert row["score"] == pytest.approx(right / len(problems))
    for name, figure in (("text_only", False), ("figures", True)):
        part = [problem for problem, one in zip(problems, items, strict=True) if one.figure == figure]
        score, right = exam_points(part, answers)
        assert (also[f"points_{name}"], also[f"accuracy_{name}"]) == (score, pytest.approx(right / len(part)))
        assert also[f"points_{name}_total"] == sum(int(problem["points"]) for problem in part)


def test_rotated_answers_score_as_what_they_choose() -> None:
    """Whatever the order, the letter of the gold option is right: rotation changes what is printed, not what is meant."""
    draw = random.Random(6)
    for wording, task, year in ((prompts.CHOICE, "smdis", None), (prompts.EXAM, "igakuqa", 2018)):
        items, rows, meant = [], {}, {}
        for number in range(300):
            options = tuple(f"選択肢{place}" for place in range(draw.randint(2, 6)))
            legal = wording.letters(len(options))
            one = Item(f"{task}/{number}", task, "choice", "", wording, "", options, (draw.choice(legal),), "", "d")
            items.append(replace(one, year=year))
            for turn in range(len(options)):
                place = draw.randrange(len(options))  # the option that is meant, in the printed order
                meant[number, turn] = rotated(one, turn).gold == (legal[place],)
                rows[one.id, "free", turn] = {"answer": legal[place], "rotation": turn, "form": None}
        row = Scoring(rows, Baselines(), 10, 1).tables(items, ["free"])["scores"][0]
        by_turn = [mean(float(meant[n, turn % len(one.options)]) for n, one in enumerate(items)) for turn in range(6)]
        assert row["score"] == pytest.approx(by_turn[0])
        assert row["rotation"]["orders"] == 6
        assert row["rotation"]["mean"] == pytest.approx(mean(by_turn))
        assert row["rotation"]["lowest"] == pytest.approx(min(by_turn))
