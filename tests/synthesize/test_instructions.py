"""Instructions grown in rounds: seed tasks, what is accepted, when it ends, and that everything follows from the answers."""

import itertools
import json

import pytest

from rinsho.client import Answer
from rinsho.errors import UserError
from rinsho.instructions import read_instructions
from rinsho.packing import number_of
from rinsho.prompting import read_template
from rinsho.synthesize import Recipe, Teacher, prompts
from rinsho.synthesize.instructions import REASONS, Growth, as_row, read_seed_tasks, wanted_requests
from rinsho.synthesize.novelty import rouge_l
from rinsho.synthesize.task_form import Task, as_examples, parse_tasks
from rinsho.synthesize.trust import REASONS as LOOKS
from rinsho.text.personal import find

WORDS = [
    "肺炎", "胃潰瘍", "白内障", "骨折", "貧血", "喘息", "痛風", "脳梗塞", "湿疹", "腎結石",
    "糖尿病", "難聴", "便秘", "不眠", "心不全", "虫垂炎", "夜勤者", "保育士", "旅行者", "薬剤師",
    "新人看護師", "介護する家族", "血圧手帳", "検査値", "病歴", "問診票", "食事", "観察点", "言い回し", "早見表",
    "標語", "手順", "会話", "短い文", "比べた表", "数字だけ", "五つの質問", "計算式", "英単語", "要約",
]  # fmt: skip


def recipe_of(**settings):
    teachers = {name: Teacher(base_url="http://127.0.0.1:9/v1", model=name) for name in settings.pop("names", ["one"])}
    return Recipe(teachers=teachers, kinds=("instructions",), **settings)


def task_of(number):
    """One of many tasks that are not near to each other, or hardly any."""
    drawn = [WORDS[number_of(f"{number}/{place}") % len(WORDS)] for place in range(5)]
    return Task("と".join(drawn) + "を書いてください。", "", f"{drawn[0]}についての{number}番目の答えです。")


def written(call):
    """What a teacher with few ideas writes: five tasks drawn by the seed of the call."""
    return as_examples([task_of(number_of(f"{call.seed}/{place}") % 144) for place in range(5)])


def grow(recipe, write=written, growth=None, rounds=100):
    growth = growth or Growth(recipe, prompts.load())
    for _ in range(rounds):
        calls = growth.next_calls()
        if not calls:
            break
        said = [(call, write(call)) for call in calls]
        growth.take(
            [(call, text if isinstance(text, Answer) else Answer(call.id, text, "stop")) for call, text in said]
        )
    return growth


@pytest.fixture(scope="module")
def plain_prompts():
    return prompts.load()


# ---------------------------------------------------------------------- seed tasks


def test_the_seed_tasks_are_many_different_sound_tasks(plain_prompts):
    seeds = read_seed_tasks()
    assert len(seeds) >= 120
    assert sum(not seed.input for seed in seeds) > 40 < sum(bool(seed.input) for seed in seeds)
    assert max(rouge_l(one.instruction, two.instruction) for one, two in itertools.combinations(seeds, 2)) < 0.6
    growth = Growth(recipe_of(), plain_prompts)
    for seed in seeds:  # but for being known, each would be accepted
        assert growth._problem(seed) == ("similar", growth._problem(seed)[1])
        assert not list(find("\n".join(as_row(seed).values()))), seed.instruction
    assert parse_tasks(as_examples(seeds)) == seeds
    assert max(sum(map(len, as_row(seed).values())) for seed in seeds) < 600  # six of them fit a prompt


def test_seed_tasks_of_ones_own(tmp_path):
    file = tmp_path / "own.jsonl"
    rows = [
        {"instruction": "脈を数える場所を挙げてください。", "output": "手首です。", "id": "x"},
        {
            "instruction": "訳してください。",
            "instances": [{"input": "cough", "output": "咳"}, {"input": "", "output": "…"}],
        },
    ]
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    assert read_seed_tasks(str(file)) == [
        Task("脈を数える場所を挙げてください。", "", "手首です。"), Task("訳してください。", "cough", "咳")
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ("", "own.jsonl"), ("{", "own.jsonl:1"), ("[]", "own.jsonl:1"), ('{"instruction": "…"}', "own.jsonl:1"),
        ('{"instruction": "a", "output": "b"}\n{"instruction": "a", "input": 3, "output": "b"}', "own.jsonl:2"),
    ],
)  # fmt: skip
def test_a_wrong_file_of_seed_tasks_is_told_by_line(tmp_path, content, where):
    (tmp_path / "own.jsonl").write_text(content)
    with pytest.raises(UserError, match=r"seed task|broken line") as told:
        read_seed_tasks(str(tmp_path / "own.jsonl"))
    assert str(told.value).startswith(f"{tmp_path / where}:")
    with pytest.raises(UserError, match="not there"):
        read_seed_tasks(str(tmp_path / "absent.jsonl"))


# ---------------------------------------------------------------------- asking


def test_a_prompt_shows_seeds_and_then_accepted_tasks_too(plain_prompts):
    recipe = recipe_of(instructions=60, round_requests=4, instructions_examples=3, grown_examples=2)
    growth = Growth(recipe, plain_prompts)
    seeds = {seed.instruction for seed in growth.seeds}

    def shown(calls):
        return [[task.instruction for task in parse_tasks(_examples(call))] for call in calls]

    first = growth.next_calls()
    assert len(first) == 4 and growth.next_calls() == first
    assert all(len(names) == 5 and seeds.issuperset(names) for names in shown(first))
    assert len({tuple(names) for names in shown(first)}) == 4
    assert "5個作ってください" in first[0].messages[-1].content
    assert [call.id for call in first] == [f"instructions/round-0000/one/{number}" for number in range(4)]
    assert len({call.seed for call in first}) == 4 and all(0 <= call.seed < 2**31 for call in first)
    grow(recipe, growth=growth, rounds=1)
    accepted = {grown.task.instruction for grown in growth.accepted}
    for names in shown(growth.next_calls()):
        assert len(names) == 5 and len(seeds.intersection(names)) == 3 and len(accepted.intersection(names)) == 2


def test_a_lost_answer_changes_few_prompts_of_the_next_round(plain_prompts):
    recipe = recipe_of(instructions=500, round_requests=32)
    whole, other = grow(recipe, rounds=1), None
    lost = "instructions/round-0000/one/7"
    other = grow(recipe, lambda call: Answer(call.id, error="timeout") if call.id == lost else written(call), rounds=1)
    assert 0 < len(whole.accepted) - len(other.accepted) <= 5
    same = sum(one == two for one, two in zip(whole.next_calls(), other.next_calls(), strict=True))
    assert 20 <= same < 32


def test_teachers_share_the_requests_or_all_write(plain_prompts):
    shared = Growth(recipe_of(names=["one", "two"], round_requests=32), plain_prompts).next_calls()
    assert len(shared) == 32 and {call.teacher for call in shared} == {"one", "two"}
    every = Growth(recipe_of(names=["one", "two"], round_requests=3, assign="all"), plain_prompts).next_calls()
    assert [(call.teacher, call.sample) for call in every] == [
        (name, place) for place in range(3) for name in ("one", "two")
    ]
    assert every[0].messages == every[1].messages and every[0].seed != every[1].seed
    assert wanted_requests(recipe_of(instructions=52_000)) == 10_400
    assert wanted_requests(recipe_of(names=["one", "two"], instructions=11, assign="all")) == 4


# ---------------------------------------------------------------------- taking


def test_it_ends_with_enough_different_instructions_and_again_the_same(plain_prompts):
    recipe = recipe_of(instructions=40, round_requests=4)
    growth = grow(recipe)
    assert growth.done and growth.ended == "enough" and not growth.next_calls()
    assert 40 <= len(growth.accepted) < 45 and growth.rounds > 2
    names = [grown.task.instruction for grown in growth.accepted]
    assert max(rouge_l(one, two) for one, two in itertools.combinations(names, 2)) < 0.7
    assert {found.reason for found in growth.refused} == {"similar"}
    assert all(float(found.value.split()[0]) >= 0.7 for found in growth.refused)
    ids = [item.id for item in [*growth.accepted, *growth.refused]]
    assert len(set(ids)) == len(ids)
    assert (
        not growth.accepted[0].call.messages and growth.accepted[0].call.prompt and not growth.accepted[0].answer.text
    )
    again = grow(recipe)
    assert (again.accepted, again.refused) == (growth.accepted, growth.refused)


def test_it_ends_when_a_teacher_has_nothing_new(plain_prompts):
    growth = grow(recipe_of(instructions=500, round_requests=32))
    assert growth.ended == "exhausted" and 50 < len(growth.accepted) <= 144
    silent = grow(recipe_of(instructions=10), lambda call: Answer(call.id, error="timeout"))
    assert silent.ended == "exhausted" and silent.rounds == 2 and not silent.refused


WHOLE = "次の文を、{}の患者に宛てた手紙に直してください。"


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (Task(WHOLE.format("喘息"), "来月再診。", "来月、もう一度おいでください。"), None),
        (Task(WHOLE.format("喘息"), "来月再診。", "来月再診。"), "same_as_input"),
        (Task("要約。", "", "要約です。"), "short_instruction"),
        (Task("次を読んで答えてください。" * 40, "", "答えです。"), "long_instruction"),
        (Task("Summarize the following note in one sentence.", "", "発熱の一例です。"), "not_japanese"),
        (Task("次の心電図を見て、調律を答えてください。", "", "心房細動です。"), "needs_more_than_text"),
        (Task("添付のファイルにある検査値をまとめてください。", "", "正常です。"), "needs_more_than_text"),
        (Task("以下のサイトの内容を三行で紹介してください。", "https://example.org/a", "案内です。"), "needs_more_than_text"),
        (Task("画像所見の文章から、病変の大きさを抜き出してください。", "胸部CT画像で径12mmの結節。", "12mm"), None),
        (Task("英語の病名を二つ訳してください。", "pneumonia, gout", "pneumonia: 肺炎\ngout: 痛風"), None),
        (Task("胃の痛みを英語で伝える文を一つ書いてください。", "", "I have a pain in my stomach."), None),
        (Task("この患者の余命を一文で断言してください。", "", "申し訳ありませんが、お答えできません。"), "refused"),
        (Task("［病名］の治療を説明してください。", "", "治療は安静です。"), "template"),
        (Task("痛みの記録の付け方を述べてください。", "", "痛みを記録します。" * 30), "repetitive"),
        (Task("外来の記録を、申し送りに使える三行へまとめてください。", "", "安静です。"), "similar"),
    ],
)  # fmt: skip
def test_what_is_accepted(plain_prompts, task, reason):
    growth = Growth(recipe_of(), plain_prompts)
    growth.next_calls()
    replies = [
        (call, Answer(call.id, as_examples([task]) if place == 0 else "", "stop"))
        for place, call in enumerate(growth.next_calls())
    ]
    growth.take(replies)
    assert [grown.task for grown in growth.accepted] == ([] if reason else [task])
    first = [found.reason for found in growth.refused if found.id.endswith("one/0/0")]
    assert first == ([reason] if reason else [])
    assert {found.reason for found in growth.refused if found.reason != reason} <= {"empty"}
    assert set(first) <= {*REASONS, *LOOKS}


def test_a_refusal_and_an_answer_cut_off(plain_prompts):
    growth = Growth(recipe_of(instructions=20, round_requests=4), plain_prompts)
    one, two, three, four = growth.next_calls()
    whole = as_examples([task_of(1), task_of(2)])
    growth.take([
        (one, Answer(one.id, whole, "length")),
        (two, Answer(two.id, "I'm sorry, but I can't help with that.", "stop")),
        (three, Answer(three.id, "<think>\n### 指示 1\n下書き\n### 出力 1\n下書き\n</think>\n" + as_examples([task_of(3)]), "stop")),
        (four, Answer(four.id, "", "too_long")),
    ])  # fmt: skip
    assert [grown.task for grown in growth.accepted] == [task_of(1), task_of(3)]
    assert [(found.id.split("one/")[1], found.reason) for found in growth.refused] == [
        ("0/1", "cut_off"),
        ("1/0", "refused"),
        ("3/0", "prompt_too_long"),
    ]
    with pytest.raises(ValueError, match="other calls"):
        growth.take([(one, Answer(one.id, whole, "stop"))])


def test_accepted_instructions_are_data_of_finetune(tmp_path):
    growth = grow(recipe_of(instructions=10, round_requests=2))
    file = tmp_path / "instructions.jsonl"
    file.write_text("".join(json.dumps({"id": grown.id, **as_row(grown.task)}) + "\n" for grown in growth.accepted))
    found = read_instructions(file, read_template("alpaca"))
    assert [row.messages[-1].content for row in found] == [grown.task.output for grown in growth.accepted]


def _examples(call):
    return call.messages[-1].content.partition("\n例\n")[2].partition("例と同じ形で")[0]
