"""Exercises as real models write them: what is read, what is set aside, and that nothing breaks the reader."""

from __future__ import annotations

import json
import time
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from real_data import real_data
from rinsho.instructions import read_instructions
from rinsho.prompting import read_template
from rinsho.synthesize import exercises
from rinsho.synthesize.exercises import REASONS, Exercise, as_row, as_text, parse

STEM = "25歳の女性。動悸を訴えて来院した。最も考えられるのはどれか。"
TEXTS = ("鉄欠乏性貧血", "Basedow病", "褐色細胞腫", "不安障害", "発作性上室頻拍")
WHY = "びまん性甲状腺腫と眼球突出とからBasedow病を考える。"


def options(form: str, labels: str = "abcde", texts: tuple[str, ...] = TEXTS) -> str:
    return "\n".join(form.format(label, text) for label, text in zip(labels, texts, strict=True))


# How real models write the same exercise; the answer is always the second option.
SPELLINGS = {
    "asked for": f"問題: {STEM}\n{options('{}. {}')}\n正解: b\n解説: {WHY}",
    "full width": f"問題：{STEM}\n{options('{}．{}', 'ａｂｃｄｅ')}\n正解：ｂ\n解説：{WHY}",
    "markdown": f"### 問題\n\n{STEM}\n\n**選択肢:**\n\n{options('- **{}.** {}', 'ABCDE')}\n\n**正解: B**\n\n**解説:**\n{WHY}",
    "bold colon": f"**問題：** {STEM}\n{options('{}) {}', 'ABCDE')}\n**正解：** B) Basedow病\n**解説：** {WHY}",
    "brackets": f"【問題】\n{STEM}\n【選択肢】\n{options('（{}）{}', '12345')}\n【正解】\n（2）\n【解説】\n{WHY}",
    "circled": f"問1. {STEM}\n{options('{}{}', '①②③④⑤')}\n正答：②\n解説：{WHY}",
    "numbers": f"第1問\n{STEM}\n{options('{}. {}', '12345')}\n答え：2. Basedow病\n解説：{WHY}",
    "numbers, full width": f"問題　{STEM}\n{options('{}　{}', '１２３４５')}\n正解　２\n解説　{WHY}",
    "kana": f"設問：{STEM}\n{options('{}．{}', 'アイウエオ')}\n解答：イ\n説明：{WHY}",
    "preamble": f"はい、承知しました。以下に問題を作成します。\n\n問題: {STEM}\n{options('{}. {}')}\n正解はbです。\n解説: {WHY}",
    "preamble without heading": f"以下は「Basedow病」に関する問題です。\n{STEM}\n{options('{}. {}')}\n正解: b\n解説: {WHY}",
    "no heading at all": f"{STEM}\n{options('{}. {}')}\n\n正解: b\n\n{WHY}",
    "numbered question": f"1. {STEM}\n{options('{}) {}', 'ABCDE')}\n答え: B\n理由: {WHY}",
    "inline": f"問題: {STEM}\n選択肢: a) 鉄欠乏性貧血、b) Basedow病、c) 褐色細胞腫、d) 不安障害、e) 発作性上室頻拍\n正解: b\n解説: {WHY}",
    "real examination": f"{STEM}\n{options('{}　{}', 'ａｂｃｄｅ')}\n正解　ｂ\n【解説】{WHY}",
    "case and question": f"【症例】25歳の女性。動悸を訴えて来院した。\n【問題】最も考えられるのはどれか。\n{options('{}. {}')}\n【解答】b\n【解説】{WHY}",
    "explanation first": f"問題: {STEM}\n{options('{}. {}')}\n解説: {WHY}\n正解: b",
    "answer in words": f"問題: {STEM}\n{options('{}. {}')}\n正解: Basedow病\n解説: {WHY}",
    "answer with lead": f"問題: {STEM}\n{options('{}. {}')}\n正解: 選択肢b\n解説: {WHY}",
    "answer with text": f"問題: {STEM}\n{options('{}. {}')}\n正解: b（Basedow病）\n解説: {WHY}",
    "one line": f"問題: {STEM}\n{options('{}. {}')}\n正解: b　解説: {WHY}",
    "answer and explanation": f"問題: {STEM}\n{options('{}. {}')}\n正解: b\n解答・解説: {WHY}",
    "english headings": f"Question: {STEM}\nOptions:\n{options('{}. {}', 'ABCDE')}\nAnswer: B\nExplanation: {WHY}",
    "answer in a sentence": f"■問題\n{STEM}\n■選択肢\n{options('{}. {}')}\n■正解\n正解は、bのBasedow病です。\n■解説\n{WHY}",
    "answer quoted": f"<問題>{STEM}\n{options('選択肢 {}: {}')}\n正解は「b. Basedow病」です。\n<解説>{WHY}",
    "answer in brackets": f"Q. {STEM}\n{options('({}) {}', 'ABCDE')}\n**解答**: (B) Basedow病\n**解説**\n正解は1つである。{WHY}",
    "said twice": f"問題: {STEM}\n{options('{}: {}')}\n答え: b\n解説: b. 正しい。\n{WHY}\n正解: b",
    "rules between": f"問題: {STEM}\n---\n{options('{}. {}')}\n---\n正解: b\n---\n解説: {WHY}",
    "json": json.dumps(
        {"question": STEM, "options": dict(zip("abcde", TEXTS, strict=True)), "answer": "b", "explanation": WHY},
        ensure_ascii=False,
    ),
    "json in a fence": "以下がJSONです。\n```json\n"
    + json.dumps(
        {"問題": STEM, "選択肢": list(TEXTS), "正解": ["Basedow病"], "解説": WHY}, ensure_ascii=False, indent=2
    )
    + "\n```\n",
    "json with labels": json.dumps(
        [
            {
                "問題文": STEM,
                "選択肢": [f"{a}. {b}" for a, b in zip("ABCDE", TEXTS, strict=True)],
                "正解": "B",
                "解説": WHY,
            }
        ],
        ensure_ascii=False,
    ),
    "json with objects": json.dumps(
        {
            "exercise": {
                "question": STEM,
                "choices": [{"label": a, "text": b} for a, b in zip("12345", TEXTS, strict=True)],
                "correct_answer": 2,
                "rationale": WHY,
            }
        },
        ensure_ascii=False,
    ),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings_of_real_models_give_the_same_exercise(name: str) -> None:
    found = parse(SPELLINGS[name])
    assert isinstance(found, Exercise), found
    assert found.question.replace("\n", "") == STEM
    assert tuple(found.options.values()) == TEXTS
    assert found.answer == (tuple(found.options)[1],)
    assert found.explanation.removeprefix("正解は1つである。").splitlines()[-1] == WHY


def exercise(answer: str = "b", question: str = STEM, why: str = WHY, lines: str = "") -> str:
    return f"問題: {question}\n{lines or options('{}. {}')}\n正解: {answer}\n解説: {why}"


REFUSED = {
    "no_question": [
        "", "不明", "# 問題", "{}", "[]", "```json\n{}\n```", exercise(question=""), options("{}. {}") + f"\n正解: b\n解説: {WHY}",
    ],
    "few_options": [
        STEM, f"問題: {STEM}\n正解: b\n解説: {WHY}",
        exercise("a", lines=options("{}. {}", "abc", TEXTS[:3])),
    ],
    "options_out_of_order": [exercise(lines=options("{}. {}", "abbde")), exercise(lines=options("{}. {}", "abdec"))],
    "empty_option": [exercise(lines=options("{}. {}", "abcde", ("甲", "乙", "", "丙", "丁")))],
    "same_options": [exercise(lines=options("{}. {}", "abcde", ("甲", "乙", "丙", "丁", "甲。")))],
    "no_answer": [f"問題: {STEM}\n{options('{}. {}')}\n解説: {WHY}", exercise(""), exercise("---")],
    "answer_not_an_option": [
        exercise("f"), exercise("2"), exercise("橋本病"), exercise("どれも正しい"), exercise("X"),
        exercise("bまたは不明"),
    ],
    "answer_contradicts": [
        exercise("b. 褐色細胞腫"), exercise("b, g"), exercise("b（不安障害）"), exercise("b", why=f"正解はdである。{WHY}"),
        exercise("a. 鉄欠乏性貧血、c. Basedow病"), exercise("b. Basedow病ではない"),
        exercise(why=f"答えはdとなる。{WHY}"), exercise(why="dが正しい。他は誤りである。"), exercise(why=f"{WHY}正解は「不安障害」である。"),
    ],
    "wrong_number": [
        exercise("b", question=STEM + "2つ選べ。"), exercise("a, b", question=STEM + "1つ選べ。"),
        exercise("a, b", question=STEM + "３つ選べ。"), exercise("a, b, c, d, e"), exercise("a, b"),
        *(exercise(question=f"正しいもの{said}") for said in ("を2つ選んでください。", "を二つ選ぶ。", "を２つ挙げよ。", "の2つはどれか。")),
    ],
    "no_explanation": [exercise(why=""), exercise(why="bが正しい。")],
    "several_exercises": [
        exercise() + "\n\n" + exercise("c"), exercise() + "\n\n問題2: 次の問題", SPELLINGS["brackets"] * 2,
        f"{STEM}\n{options('{}. {}')}\n正解: b\n解説: {WHY}\n次の問い。\n{options('{}. {}')}\n正解: b\n解説: {WHY}",
        f'[{SPELLINGS["json"]}, {SPELLINGS["json"]}]', exercise().removesuffix(WHY) + f"{WHY}\n正解: d",
        f"{exercise()}\n\n次に行うのはどれか。\n{options('{}. {}')}",
    ],
    "marked_option": [
        exercise(lines=options("{}. {}").replace("Basedow病", f"Basedow病{mark}")) for mark in ("（正解）", " ← 正解", " ✓", "　○")
    ] + [exercise(lines=options("{}. {} ×").replace("Basedow病 ×", "Basedow病"))],
    "needs_figure": [
        exercise(question="胸部エックス線写真を別に示す。診断はどれか。"), exercise(question="別冊No.3を見て診断せよ。"),
        exercise(question="心電図を示す。診断はどれか。"), exercise(question="次の図の矢印が示すのはどれか。"),
        *(exercise(question=f"{figure}はどれか。1つ選べ。") for figure in (
            "図1の心電図の所見", "この写真にみられる所見", "この心電図で考えられるの", "下図に示す構造", "図に示す装具が適応となるの",
        )),
    ],
}  # fmt: skip


@pytest.mark.parametrize(("reason", "text"), [(reason, text) for reason, texts in REFUSED.items() for text in texts])
def test_what_is_no_exercise_is_named(reason: str, text: str) -> None:
    assert parse(text) == reason


def test_every_reason_is_told_and_seen() -> None:
    assert set(REFUSED) == set(REASONS)


@pytest.mark.parametrize(
    "found",
    [
        exercise(why=f"{WHY}なお、不安障害であれば正解はdとなる。"), exercise(why=f"{WHY}dが正しいと誤解しやすい。"),
        exercise(why=f"{WHY}正解は1.5倍でも変わらない。正解はdではない。"), exercise(why=f"正解はbであり、dが正しいとはいえない。{WHY}"),
        exercise(question="誤っているのはどれか。", why=f"dが正しい。{WHY}"), exercise(why=f"{WHY}\nなぜ他は誤りか？\n{options('{}. {}')}"),
        exercise(question="胸部X線でびまん性のすりガラス像を示す疾患はどれか。"), exercise(question="鋸歯状の波形を示す不整脈はどれか。"),
        exercise(question="心電図でST上昇を認める。この心電図で考えられるのはどれか。"), exercise(question="12誘導心電図2回の所見はどれか。"),
        exercise(lines=options("{}. {}", texts=("甲 ○ 乙 ×", "甲 × 乙 ○", "甲 ○ 乙 ○", "甲 × 乙 ×", "いずれでもない"))),
        exercise("b（1つ）"), exercise("$\\boxed{b}$"), exercise().replace("問題:", "问题:"), exercise().replace("問題:", "**症例問題**\n"),
        SPELLINGS["json with objects"].replace("correct_answer", "correct_option"),
    ],
)  # fmt: skip
def test_good_exercises_are_kept(found: str) -> None:
    read = parse(found)
    assert isinstance(read, Exercise), read
    assert list(read.options).index(*read.answer) == 1 and not read.question.startswith(("问", "症例問"))


def test_many_parts_of_an_answer_are_refused_at_once() -> None:
    texts = ["肺" * 40_000, *TEXTS[1:]]
    row = {"question": STEM, "options": texts, "answer": ["a"] * 20_000, "explanation": WHY}
    started = time.process_time()
    assert parse(json.dumps(row)) == "answer_not_an_option"
    assert (
        parse(exercise("\n" + "a. \n" * 20_000, lines=options("{}. {}", texts=tuple(texts)))) == "answer_not_an_option"
    )
    assert time.process_time() - started < 3  # 0.2 s; minutes when each part looks at all options anew


@pytest.mark.parametrize(
    ("said", "labels"),
    [
        ("a, c", "ac"), ("a、c", "ac"), ("aとc", "ac"), ("c・a", "ac"), ("a c", "ac"), ("ac", "ac"), ("Ａ，Ｃ", "ac"),
        ("a および c", "ac"), ("(a), (c)", "ac"), ("a. 鉄欠乏性貧血、c. 褐色細胞腫", "ac"), ("a.鉄欠乏性貧血\nc.褐色細胞腫", "ac"),
        ("a（鉄欠乏性貧血）とc（褐色細胞腫）", "ac"), ("「a」と「c」です。", "ac"), ("記号：a, c", "ac"), ("c.", "c"), ("cが正しい。", "c"),
    ],
)  # fmt: skip
def test_answers_are_read_however_they_are_joined(said: str, labels: str) -> None:
    found = parse(exercise(said, question="正しいのはどれか。" if len(labels) == 1 else "正しいのはどれか。2つ選べ。"))
    assert isinstance(found, Exercise), found
    assert found.answer == tuple(labels)


def test_statements_in_the_question_and_numbered_options_are_told_apart() -> None:
    statements = "次の記述のうち正しいものの組み合わせはどれか。\nア. 甲である。\nイ. 乙である。\nウ. 丙である。"
    found = parse(
        f"問題: {statements}\n{options('{}. {}', '12345')}\n正解: 4\n解説: ウの理由は次のとおりである。\n1. 誤り。\n2. 誤り。"
    )
    assert isinstance(found, Exercise), found
    assert found.question == statements and found.answer == ("4",) and found.explanation.endswith("2. 誤り。")


def test_values_are_no_labels() -> None:
    texts = ("1.5 mg/日", "2.5 mg/日", "5 mg/日", "10 mg/日", "20 mg/日")
    question = "血液所見は次のとおりである。\n1. 白血球 5,200\n2. Hb 9.8 g/dL\n初回の用量はどれか。"
    found = parse(exercise("c", question=question, lines=options("{}. {}", "abcde", texts)))
    assert isinstance(found, Exercise), found
    assert tuple(found.options.values()) == texts and found.question == question


@pytest.mark.parametrize(
    ("said", "answer"),
    [("B. 20.5", "b"), ("20.5", "b"), ("D. 150-32", "d"), ("e) 150-32/0.8", "e"), ("A（「2型」）", "a"), ("c. 2", "c")],
)
def test_options_that_are_numbers_are_read_by_label_and_text(said: str, answer: str) -> None:
    found = parse(exercise(said, lines=options("{}. {}", "abcde", ("「2型」", "20.5", "2", "150-32", "150-32/0.8"))))
    assert isinstance(found, Exercise) and found.answer == (answer,)
    assert parse(exercise("d. 150-32/0.8", lines=options("{}. {}", "abcde", tuple(found.options.values())))) == (
        "answer_contradicts"
    )


def test_full_width_marks_stand_between_a_number_and_an_option_that_begins_with_one() -> None:
    texts = ("二次性高血圧", "2型糖尿病", "1.5倍の体重", "慢性膵炎", "5つの徴候")
    found = parse(exercise("2", lines=options("{}．{}", "12345", texts)))
    assert isinstance(found, Exercise) and tuple(found.options.values()) == texts


# Two questions hold a rule (---) and list marks, one has two right answers of which one is asked, one lost its options.
PECULIAR = {"114B13", "114F22", "112B30", "113A52", "114C11"}


def test_real_examination_questions_in_many_spellings_are_read_as_they_are() -> None:
    """All questions of six years: what is read is the question, and what is refused shows a figure."""
    number = Counter()
    for path in sorted((real_data("igakuqa") / "data").glob("*/*-[A-F].jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            row = json.loads(line) if line.strip() else {"choices": []}
            if len(row["choices"]) < 4 or row["problem_id"] in PECULIAR:
                continue
            number["all"] += 1
            found = parse(spelt(row, number["all"] % 5))
            if isinstance(found, str):
                assert found == "needs_figure" and not row["text_only"], row["problem_id"]
                number[found] += 1
                continue
            assert found.question.split() == row["problem_text"].split(), row["problem_id"]
            assert list(found.options.values()) == [choice.strip() for choice in row["choices"]], row["problem_id"]
            right = [list(found.options).index(label) for label in found.answer]
            assert right == sorted("abcdefghij".index(label) for label in row["answer"]), row["problem_id"]
    assert number["all"] > 1500 and 400 < number["needs_figure"] < 430


def spelt(row: dict, style: int) -> str:
    """A question of the examination as a teacher would write it."""
    question, texts, labels = row["problem_text"], row["choices"], "abcdefghij"
    right = [(label, texts[labels.index(label)]) for label in row["answer"]]
    if style == 0:
        return exercise(", ".join(row["answer"]), question, lines=options("{}. {}", labels[: len(texts)], tuple(texts)))
    if style == 1:
        said = "、".join(f"{label.upper()}. {text}" for label, text in right)
        lines = "\n".join(f"- {label.upper()}) {text}" for label, text in zip(labels, texts, strict=False))
        return f"**問題**\n\n{question}\n\n**選択肢**\n\n{lines}\n\n**正解: {said}**\n\n**解説**\n{WHY}"
    if style == 2:
        lines = "\n".join(f"{chr(0xFF41 + place)}　{text}" for place, text in enumerate(texts))
        return f"{question}\n{lines}\n正解　{''.join(row['answer'])}\n解説　{WHY}"
    if style == 3:
        fields = {"question": question, "options": texts, "answer": [text for _, text in right], "explanation": WHY}
        return json.dumps(fields, ensure_ascii=False)
    lines = "\n".join(f"{place}．{text}" for place, text in enumerate(texts, 1))
    said = "、".join(str(labels.index(label) + 1) for label, _ in right)
    return f"【問題1】{question}\n{lines}\n【正解】{said}\n【解説】{WHY}"


def test_an_option_may_go_on_in_the_next_line() -> None:
    found = parse(exercise(lines=options("{}. {}").replace("褐色細胞腫", "褐色細胞腫、\nまたは傍神経節腫")))
    assert isinstance(found, Exercise) and found.options["c"] == "褐色細胞腫、\nまたは傍神経節腫"


def test_rows_are_read_by_tuning(tmp_path) -> None:
    one = parse(exercise("a、c", question="考えられるのはどれか。2つ選べ。"))
    numbers = parse(SPELLINGS["brackets"])
    assert isinstance(one, Exercise) and isinstance(numbers, Exercise)
    confusing = Exercise("正しい数はどれか。", {"1": "2", "2": "1", "3": "4", "4": "3"}, ("2",), "一つだけである。")
    path = tmp_path / "physician_exam.jsonl"
    rows = [as_row(each) | {"license": "invented"} for each in (one, numbers, confusing)]
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    read = read_instructions(path, read_template("none"))
    said = [conversation.messages[1].content for conversation in read]
    assert said[0] == f"鉄欠乏性貧血\n褐色細胞腫\na,c\n\n{WHY}"
    assert said[1] == f"Basedow病\n2\n\n{WHY}"
    assert said[2] == "1\n2\n\n一つだけである。"  # the option with label 2, not the one that says 2
    asked = read[0].messages[0].content
    assert asked == f"考えられるのはどれか。2つ選べ。\n{options('{}. {}')}" and read[0].license == "invented"


WORDS = st.text("甲乙丙丁戊己庚辛壬癸肺炎発熱のはがをに", min_size=2, max_size=20)


@given(
    st.lists(WORDS, min_size=4, max_size=5, unique=True),
    st.sampled_from(["abcdefghij", "123456789", "アイウエオ"]),
    st.data(),
)
@settings(max_examples=60, deadline=None)
def test_the_readable_text_is_read_again(texts: list[str], labels: str, data: st.DataObject) -> None:
    given_options = dict(zip(labels, texts, strict=False))
    answer = data.draw(st.lists(st.sampled_from(list(given_options)), min_size=1, max_size=len(texts) - 1, unique=True))
    right = tuple(label for label in given_options if label in answer)
    one = Exercise("次のうち当てはまるものをすべて選べ。", given_options, right, "根拠は次のとおりである。")
    assert parse(as_text(one)) == one


PIECES = [
    "問題", "正解", "解説", "選択肢", ":", "：", "\n", "a.", "b)", "（1）", "②", "**", "```json", "{", "}", "[", '"', " ", "甲",
    "と", "\ud800", "\\boxed{", "正解はbが正しい。", "この図", "2つ選べ",
]  # fmt: skip


@given(st.one_of(st.text(max_size=300), st.lists(st.sampled_from(PIECES), max_size=60).map("".join)))
@settings(max_examples=300, deadline=None)
def test_any_text_gives_an_exercise_or_a_known_reason(text: str) -> None:
    found = parse(text)
    assert found in REASONS if isinstance(found, str) else set(found.answer) < set(found.options)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=5)
            | st.dictionaries(
                st.sampled_from(["question", "options", "answer", "explanation", "label", "text"]), inner, max_size=4
            )
        ),
        max_leaves=20,
    )
)
@settings(max_examples=200, deadline=None)
def test_any_json_gives_an_exercise_or_a_known_reason(value: object) -> None:
    found = parse(json.dumps(value, ensure_ascii=False))
    assert isinstance(found, Exercise) or found in REASONS


@pytest.mark.parametrize(
    "piece",
    ["a", "a. ", "1) ", "問題: x\n", "正解: b\n", "b, ", "a、b. 甲 ", "（", "# ", "- ", "---\n", "*", "解説", '{"a": ', "[", " ", "　", "第1", "正解は、bである。そのほかは当てはまらない。\n", "a(甲)、"],
)  # fmt: skip
def test_time_grows_with_the_length_alone(piece: str) -> None:
    """Ten times the text takes about ten times as long, also as an answer line; a square would be a hundred times."""

    def seconds(length: int) -> float:
        text = piece * (length // len(piece))
        text += f"\n解説: x\n{text}"
        started = time.process_time()
        parse(text)
        parse(exercise(text))
        parse(exercise("b", lines=text + "\n" + options("{}. {}")))
        return time.process_time() - started

    seconds(1000)
    assert min(seconds(40_000) for _ in range(2)) < 30 * min(seconds(4_000) for _ in range(3)) + 0.05


def test_reading_is_fast() -> None:
    started = time.process_time()
    for _ in range(40):
        for text in SPELLINGS.values():
            exercises.parse(text)
    assert time.process_time() - started < 3  # 1,280 exercises in 0.4 s
