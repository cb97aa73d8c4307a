"""Tasks out of what teachers write: the labelled form, its spellings, and texts that hold no task."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rinsho.synthesize.task_form import Task, Unread, as_examples, parse_tasks

ONE = Task("略語を日本語で説明してください。", "SpO2", "経皮的に測った動脈血の酸素飽和度です。")
TWO = Task("手洗いの大切さを一文で述べてください。", "", "手を介してうつる感染症を防ぎます。")

SPELLINGS = {
    "as asked": as_examples([ONE, TWO]),
    "preamble and remark": "もちろんです。新しい課題を作成します。\n\n"
    + as_examples([ONE, TWO])
    + "\n\n以上が2つの新しい課題です。",
    "numbers in front": (
        "### 1. 指示\n{0}\n### 入力\n{1}\n### 出力\n{2}\n\n### 2. 指示\n{3}\n### 入力\nなし\n### 出力\n{5}"
    ),
    "headings of tasks": (
        "## タスク1\n\n### 指示\n{0}\n\n### 入力\n{1}\n\n### 出力\n{2}\n\n---\n\n## タスク2\n\n### 指示\n{3}\n\n### 入力\n（なし）\n\n"
        "### 出力\n{5}\n\n---"
    ),
    "bold": "**指示 1:** {0}\n**入力 1:** {1}\n**出力 1:** {2}\n\n**指示 2:** {3}\n**入力 2:** なし\n**出力 2:** {5}",
    "bold, colon outside": "**指示**： {0}\n**入力**： {1}\n**出力**： {2}\n\n**指示**： {3}\n**出力**： {5}",
    "brackets": "【指示】\n{0}\n【入力】\n{1}\n【出力】\n{2}\n\n【指示】\n{3}\n【入力】\n「なし」\n【出力】\n{5}",
    "plain numbers": "1. 指示: {0}\n   入力: {1}\n   出力: {2}\n\n2. 指示: {3}\n   入力: -\n   出力: {5}",
    "no marks": "指示：{0}\n入力：{1}\n出力：{2}\n\n指示：{3}\n入力：なし。\n出力：{5}",
    "full width": "＃＃＃　指示　１\n{0}\n＃＃＃　入力　１\n{1}\n＃＃＃　出力　１\n{2}\n\n＃＃＃　指示　２\n{3}\n＃＃＃　出力　２\n{5}",
    "English labels": (
        "### Instruction:\n{0}\n### Input:\n{1}\n### Output:\n{2}\n\n### Instruction:\n{3}\n### Input:\n<noinput>\n### Response:\n{5}"
    ),
    "headings in bold": (
        "### **指示 1**\n{0}\n### **入力 1**\n{1}\n### **出力 1**\n{2}\n\n### **指示 2**\n{3}\n### **出力 2**\n{5}"
    ),
    "marks that change": (
        "### 指示 1\n{0}\n### 入力 1\n{1}\n### 出力 1\n{2}\n\n**指示 2**\n{3}\n**入力 2**\nなし\n**出力 2**\n{5}"
    ),
    "titles of tasks": (
        "## 課題 1: 略語\n### 指示\n{0}\n### 入力\n{1}\n### 出力\n{2}\n\n---\n\n## 課題 2: 感染対策\n### 指示\n{3}\n### 出力\n{5}"
    ),
    "windows line ends": as_examples([ONE, TWO]).replace("\n", "\r\n"),
    "fences inside": "### 指示\n{0}\n### 入力\n```\n{1}\n```\n### 出力\n```text\n{2}\n```\n### 指示\n{3}\n### 入力\n（入力なし）\n### 出力\n{5}",
    "a JSON list": '[{{"instruction": "{0}", "input": "{1}", "output": "{2}"}}, {{"instruction": "{3}", "input": "", "output": "{5}"}}]',
    "JSON in a fence": (
        'はい。\n```json\n{{"tasks": [{{"指示": "{0}", "入力": "{1}", "出力": "{2}"}}, {{"指示": "{3}", "入力": "なし", "出力": "{5}"}}]}}\n```'
    ),
    "JSON lines": '{{"instruction": "{0}", "input": "{1}", "output": "{2}"}}\n{{"instruction": "{3}", "output": "{5}"}}',
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_spellings_of_real_models_give_the_same_tasks(name):
    form = SPELLINGS[name]
    text = (
        form.format(ONE.instruction, ONE.input, ONE.output, TWO.instruction, TWO.input, TWO.output)
        if "{0}" in form
        else form
    )
    assert parse_tasks(text) == [ONE, TWO]


def test_an_answer_may_hold_words_that_are_labels():
    order = "退院後の注意\n指示：安静\n入力：なし\n- 出力 600mL"
    task = Task("看護記録を書いてください。", "入力された薬: なし\n指示された量を守る", order)
    assert parse_tasks(as_examples([task, ONE])) == [task, ONE]
    plain = f"指示：{task.instruction}\n出力：{order}\n指示：{TWO.instruction}\n出力：{TWO.output}"
    assert [type(item) for item in parse_tasks(plain)] == [Unread, Unread, Task]  # cannot be told apart: not guessed
    assert parse_tasks(plain)[0] == Unread("unclear", task.instruction)


def test_a_label_of_another_look_with_the_next_number_begins_a_task_or_leaves_the_first_unclear():
    order = Task("申し送りを書いてください。", "", "病棟へ。\n**指示 2**\n安静とします。")
    assert parse_tasks(as_examples([order])) == [
        Unread("unclear", order.instruction),
        Unread("no_output", "安静とします。"),
    ]
    order = Task(order.instruction, "", order.output.replace("2", "1"))
    assert parse_tasks(as_examples([order, TWO])) == [order, TWO]


def test_where_labels_have_numbers_one_without_belongs_to_the_answer():
    task = Task("病棟への伝言を書いてください。", "", "明日退院です。\n指示: 安静")
    text = f"1. 指示: {task.instruction}\n出力: {task.output}\n2. 指示: {TWO.instruction}\n出力: {TWO.output}"
    assert parse_tasks(text) == [task, TWO]


@pytest.mark.parametrize(
    ("text", "reasons"),
    [
        ("", ["no_task"]),
        ("申し訳ありませんが、お答えできません。", ["no_task"]),
        ("### 指示\n### 入力\n…\n### 出力\nはい。", ["no_instruction"]),
        ("### 指示\n症状を三つ挙げてください。\n### 入力\n（なし）", ["no_output"]),
        ("### 指示\n症状を三つ挙げてください。\n### 出力\n\n---\n", ["no_output"]),
        ("[1, 2, 3]", ["no_task"]),
        ('{"instruction": {"a": 1}, "output": "はい。"}', ["no_instruction"]),
        ('[{"instruction": "説明してください。"', ["no_task"]),
        ("[" * 100_000, ["no_task"]),
    ],
)
def test_what_is_no_task_is_told_with_its_reason(text, reasons):
    assert [item.reason for item in parse_tasks(text)] == reasons


def test_numbers_and_lists_as_answers_stay_whole():
    for output in ("5", "12.\n3.", "・発熱\n・咳嗽", "| 薬 | 量 |\n| --- | --- |\n| A | 5mg |", "1. 安静\n2. 水分"):
        assert parse_tasks(as_examples([Task("値を答えてください。", "", output), ONE]))[0].output in (output, "12.")


labels = st.sampled_from(
    ["### 指示 1", "### 入力", "### 出力", "指示：", "**出力**", "---", "```", "なし", "{", "[", '"', "\n"]
)


@given(st.lists(st.one_of(st.text(max_size=20), labels), max_size=30).map("\n".join))
def test_any_text_is_read(text):
    items = parse_tasks(text)
    assert items
    for item in items:
        assert item.reason if isinstance(item, Unread) else item.instruction.strip() and item.output.strip()


words = (
    st.text("発熱と咳嗽を認める。ABC 123\n（）：", min_size=1, max_size=60)
    .map(str.strip)
    .filter(lambda text: bool(text.strip("（）：-。")) and not text.split("\n")[-1].rstrip("：. ）").isdigit())
)


@given(st.lists(st.tuples(words, words), min_size=1, max_size=4))
def test_what_is_shown_is_read_back(rows):
    tasks = [
        Task(*("\n".join(line.strip() for line in text.split("\n")).strip() for text in (one, "", two)))
        for one, two in rows
    ]
    assert parse_tasks(as_examples(tasks)) == tasks


@pytest.mark.parametrize(
    "text",
    [
        "### 指示\n" * 40_000,
        "#" * 400_000,
        " " * 400_000 + "指示",
        "1. " * 130_000,
        "### 出力 1\nあ\n" * 30_000,
        "{" * 300_000,
    ],
)
def test_time_grows_with_the_length_alone(text):
    start = time.perf_counter()
    parse_tasks("### 指示\nあ\n### 出力\n" + text)
    assert time.perf_counter() - start < 3
