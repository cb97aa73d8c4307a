"""What a teacher's text is set aside for, what is trimmed, and that good text stays."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from real_data import real_data
from rinsho.contamination import Index
from rinsho.document import read_documents
from rinsho.synthesize.trust import REASONS, Limits, benchmark_items, echo, problem, repeated_fraction, tidy

PAGE = (
    "急性虫垂炎は、虫垂の内腔が糞石やリンパ組織の腫大でふさがり、細菌が増えて起こる炎症である。\n"
    "初期には心窩部の痛みと悪心があり、数時間のうちに痛みは右下腹部へ移る。\n"
    "診察では McBurney 点の圧痛と反跳痛を確かめる。白血球数とCRPの上昇を認め、腹部CTで腫大した虫垂が見える。\n"
    "治療は腹腔鏡下の虫垂切除術であり、膿瘍を作ったものでは抗菌薬とドレナージを先に行うことがある。"
)
LISTED = PAGE + "\n\n主な検査:\n- 血液検査\n- 腹部超音波検査\n- 腹部CT"
EXERCISE = (
    "問題: 右下腹部痛と発熱がみられる。考えられるのはどれか。1つ選べ。\na. 急性虫垂炎\nb. 胆石症\nc. 尿管結石\nd. 腸閉塞\ne. 膵炎\n"
    "正解: a\n解説: 心窩部から右下腹部へ移る痛みと反跳痛は急性虫垂炎に典型的である。ほかはいずれも部位か経過が合わない。"
)


def reason(text: str, finish: str = "stop", **limits: float) -> str | None:
    found = problem(tidy(text), finish, Limits(**limits))  # type: ignore[arg-type]
    assert found is None or found[0] in REASONS
    return found[0] if found else None


@pytest.mark.parametrize(
    "text", [PAGE, LISTED, EXERCISE, "## 急性虫垂炎\n\n" + PAGE.replace("。\n", "。\n\n**所見** ")]
)
def test_good_text_stays_as_it_is(text: str) -> None:
    assert tidy(text) == text
    assert reason(text) is None


BAD = {
    "empty": ["", " \n　", "<think>糖尿病について述べる。</think>"],
    "refused": [
        "申し訳ありませんが、医療に関するご質問にはお答えできません。専門の医師にご相談ください。",
        "申し訳ございませんが、この疾患についての十分な情報を持っていません。" + PAGE,
        "私はAI言語モデルですので、診断や治療についての助言は差し控えます。" * 2,
        "その内容の文章を生成することはできません。別の題材をお選びください。",
        "I'm sorry, but I can't help with writing medical content in this form.",
        "As an AI language model, I cannot provide medical advice. 医師に相談してください。",
        "「星影性関節炎」は医学的に確立された疾患としては存在しないようです。したがって、その記述を行うことは適切ではありません。"
        "ほかの疾患をお調べでしたら、正式な名称をお知らせください。",
        "星影性関節炎という病名は実在しないと思われるため、教科書の項を執筆することはできません。別の疾患を示していただければ書くことができます。"
        "どうぞよろしくお願いいたします。",
        "星影性関節炎については不明です。定義や病態を述べた文献を知らないため、教科書の項として記載することができません。" * 2,
        "「星影性関節炎」という疾患は、現在の医学の知識の範囲では確認できませんでした。名称の誤りか、ごく新しい概念であるおそれがあると考えます。"
        "名称をもう一度お確かめになるようおすすめします。",
    ],
    "garbled": [PAGE + "\n\ufffd\ufffdの治療。", PAGE + "\x00。"],
    "not_japanese": [
        "Acute appendicitis is an inflammation of the appendix that mostly needs an operation." * 2,
        "急性阑尾炎是外科常见病，居各种急腹症的首位。转移性右下腹痛及阑尾点压痛、反跳痛为其常见临床表现。" * 2,
        PAGE + "\n수술적 치료가 필요하며 항생제를 투여한다.",
        PAGE + "\n" + "The patient should be given antibiotics before the operation, and fluids. " * 5 + "\n以上である。",
    ],
    "template": [PAGE.replace("急性虫垂炎", "[病名]"), PAGE + "\n（ここに本文）".replace("（", "[").replace("）", "]"), "{topic}は、" + PAGE,
                 PAGE + "\n[INST] 次の問題", "問題: （問題文）\na. （選択肢）\n" + PAGE],
    "repetitive": [PAGE + "\n" + "経過をみながら治療を続けることが大切である。" * 20, ("この病気は治る。" * 60), PAGE + "\n" + "、痛み" * 40],
    "cut_off": [PAGE + "\n再発を防ぐには、", PAGE + "\n再発は少ない。術後は早期に離床し", PAGE + "\n- 術後の早い時期の", PAGE + "\n次の点に注意する：",
                PAGE + "\n手術のあとは早くから歩き始めて腸の動きを促すことが大切であり合併症を減ら"],
    "too_short": ["急性虫垂炎は虫垂の炎症である。"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in BAD.items() for text in texts])
def test_bad_text_is_told_by_its_reason(name: str, text: str) -> None:
    assert reason(text) == name


@pytest.mark.parametrize(
    "end", ["それでは、どうぞお大事に", "S) 昨夜から痛みが増したとのこと", "・1日3回、5日後まで", "・転倒によるけが"]
)
def test_ends_without_a_full_stop_that_are_ends(end: str) -> None:
    assert reason(PAGE + "\n" + end) is None


def test_what_the_endpoint_says_of_the_end_counts() -> None:
    assert problem(PAGE, "length", Limits()) == ("cut_off", "length")
    assert problem("", "length", Limits()) == ("cut_off", "length")
    assert problem(PAGE, "content_filter", Limits()) == ("refused", "content_filter")
    loop = PAGE + "経過をみながら治療を続ける。" * 30
    assert problem(loop, "length", Limits())[0] == "repetitive"  # type: ignore[index]
    assert problem(PAGE, "", Limits()) is None


def test_limits_move_the_border() -> None:
    short = "急性虫垂炎は虫垂の炎症である。"
    assert reason(short, min_chars=15) is None
    assert reason(short, min_chars=16) == "too_short"
    twice = f"{PAGE}\n{PAGE}"
    share = repeated_fraction(twice)
    assert 0.4 < share < 0.5
    assert reason(twice, max_repeated_fraction=share) is None
    assert reason(twice, max_repeated_fraction=share - 0.001) == "repetitive"
    mixed = "虫垂炎 appendicitis appendix inflammation の治療。" * 3
    assert reason(mixed, max_repeated_fraction=1, min_japanese_fraction=0.1, min_chars=10) is None
    assert reason(mixed, max_repeated_fraction=1, min_japanese_fraction=0.5, min_chars=10) == "not_japanese"


@pytest.mark.parametrize(
    "text",
    [
        "患者が受診を断ったときは、「申し訳ありませんが」と言い添えて説明する。" + PAGE,
        "この薬は妊婦には投与できません。授乳中の使用についてもお勧めできない。" + PAGE,
        "人工知能を用いた画像診断支援として、虫垂炎の検出が研究されている。" + PAGE,
        "申し訳なさを訴える抑うつの患者では、希死念慮の有無を必ず確かめる。" + PAGE,
        "〔参考〕【病名】急性虫垂炎\n【主訴】右下腹部痛\n" + PAGE,
    ],
)
def test_text_that_only_looks_like_a_refusal_or_template_stays(text: str) -> None:
    assert reason(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "本症の原因については不明である。発症の年齢は小児から高齢者まで幅広く、男女の差はない。慢性に経過し、数年のうちに関節の変形に至る。"
        "根治する治療は存在しない。炎症を抑える薬を用い、関節の動きを保つ。",
        "幻聴では、実在しない人物の声が聞こえる。患者は声と会話し、独語がみられる。声の内容は本人を責めるものが多く、命令されることもある。"
        "自傷や他害の危険を確かめる。特異的な検査は存在しない。",
        "診断書には、確認できない事実を記載できない。求めに応じる義務はあるが、診察せずに交付することは医師法で禁じられている。"
        "記載した内容には責任を負い、控えを診療録とともに保存しておく。",
    ],
)
def test_a_short_text_that_tells_of_the_unknown_stays(text: str) -> None:
    assert reason(text) is None


def test_an_answer_may_say_that_it_does_not_know() -> None:
    text = (
        "「ユメミール」という名前の薬は、私の知る範囲では確認できません。お薬手帳を見ながら、薬剤師に尋ねてください。"
    )
    assert problem(text, "stop", Limits(0)) == ("refused", "unknown")
    assert problem(text, "stop", Limits(0, may_not_know=True)) is None


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("もちろんです！以下に急性虫垂炎について解説します。\n\n", ""),
        ("はい、承知しました。\n\n", ""),
        ("以下は、急性虫垂炎についての教科書の記述です：\n\n", "\n\n他に質問があればお気軽にお知らせください。"),
        ("Sure! Here is the passage:\n\n", "\n\n---\n\nご参考になれば幸いです。"),
        ("<think>まず病態から書く。\n次に治療。</think>\n\n", "<|im_end|>\n<|im_start|>user\n次は胃炎です。"),
        ("```markdown\n", "\n```"),
        ("---\n\n", "\n\n---"),
        ("ご依頼ありがとうございます。医学部の学生に向けた項は以下のとおりです。\n\n", "\n\n（約600字）"),
        ("ご質問いただきありがとうございます！\n\n", "（文字数：約1,000字）"),
        ("600字から1,000字で、「である」調で書きます。", "\n\n【文字数：650字】"),
        ("", "\n\nこの文章はAIによって生成されたものです。内容の正確さは保証されません。"),
        (
            "",
            "\n\n（612字）\n\n---\n\n※本内容は一般的な情報であり、医学的助言ではありません。詳しくは医師にご相談ください。",
        ),
        ("\r\n", "\r\n"),
    ],
)
def test_what_stands_around_a_text_is_trimmed(before: str, after: str) -> None:
    assert tidy(before + PAGE + after) == PAGE


@pytest.mark.parametrize(
    "text",
    [
        "診断基準は以下のとおりです。\n1. 発熱がある。\n2. 咳嗽がある。",
        "画像を読む手助けにAIを用いる。\nAIによって作成された所見は医師が確かめる。",
        "症状が続くときは、ご相談ください。\n受診の際は、お薬手帳をお持ちください。",
        "記録の書き方を示す。\n要約は400字で書く。",
    ],
)
def test_lines_like_remarks_that_belong_to_the_text_stay(text: str) -> None:
    assert tidy(text) == text


def test_an_announcement_alone_is_not_trimmed_to_nothing() -> None:
    assert tidy("承知しました。") == "承知しました。"
    assert reason("はい、承知しました。以下に説明します。") == "too_short"
    assert tidy('```json\n{"question": "？"}\n```').startswith("```json")  # the exercise's form, read elsewhere


def test_a_prompt_given_back_is_an_echo() -> None:
    assert echo(EXERCISE, "次の形で書く。\n\n" + EXERCISE) == ("echo", 1.0)
    assert echo(EXERCISE, "「急性虫垂炎」の問題を一つ作ってください。1つ選べ。a. b. c. d. e.") is None
    assert echo("短い", EXERCISE) is None


def test_an_exercise_that_holds_half_of_a_benchmark_question_is_told() -> None:
    question = "52歳の女性。右下腹部痛と発熱がみられる。考えられるのはどれか。"
    index = Index.from_passages([("exam", "exam.jsonl:7", question)], 20, "synthesize")
    assert benchmark_items(EXERCISE.replace("がみられる", " がみられる"), index) == "exam.jsonl:7"
    assert benchmark_items(PAGE * 20 + question + PAGE, index) == "exam.jsonl:7"  # a passage of reading
    assert benchmark_items(PAGE, index) == ""
    long = "身長160cm、体重56kg。体温37.8℃。脈拍88/分、整。血圧128/76mmHg。" + PAGE
    vital = Index.from_passages([("exam", "exam.jsonl:8", long)], 20, "synthesize")
    assert benchmark_items("17歳の男子。身長160cm、体重56kg。体温37.8℃。右膝の痛みがある。", vital) == ""
    assert benchmark_items(long.replace("160", "171"), vital) == "exam.jsonl:8"


def test_a_short_benchmark_question_is_told_when_an_exercise_asks_the_same() -> None:
    given_items = [("exam", "exam.jsonl:1", "尿路結石で正しいのはどれか。2つ選べ。"), ("exam", "exam.jsonl:2", PAGE)]
    index = Index.from_passages(given_items, 20, "synthesize")
    for question in (
        "尿路結石で正しいのはどれか。2つ選べ。",
        "尿路結石で 正しいのはどれか。",
        "尿路結石で正しいのはどれか。（１つ選べ。）",
    ):
        assert benchmark_items(f"{question}\n疝痛発作\n下痢", index, question) == "exam.jsonl:1"
    for question in ("28歳の男性。尿路結石で正しいのはどれか。", "正しいのはどれか。", "1つ選べ。", ""):
        assert benchmark_items(f"{question}\n疝痛発作\n下痢", index, question) == ""


@given(st.text(), st.sampled_from(["", "stop", "length", "content_filter"]))
def test_any_text_has_a_verdict_and_tidy_only_takes_away(text: str, finish: str) -> None:
    trimmed = tidy(text)
    assert trimmed in text.replace("\r\n", "\n")
    found = problem(text, finish, Limits())
    assert found is None or found[0] in REASONS
    assert 0 <= repeated_fraction(text) <= 1


@pytest.mark.parametrize(
    "unit", ["\n", " ", "```", "申し訳", "以下", "「", "---\n", "a. ", "[ここに", "<|", "。", "の" * 7 + "\n"]
)
def test_time_is_linear(unit: str) -> None:
    text = PAGE + unit * 100_000 + "を"
    started = time.perf_counter()
    problem(tidy(text), "stop", Limits())
    assert time.perf_counter() - started < 2


def test_real_medical_text_is_hardly_ever_set_aside() -> None:
    path = real_data("text") / "medical-000.jsonl.zst"
    documents = [document for _, document in zip(range(500), read_documents(path), strict=False)]
    found = [problem(tidy(document.text), "stop", Limits()) for document in documents]
    wrong = [one for one in found if one and one[0] not in ("too_short", "cut_off")]
    assert len(wrong) <= 0.01 * len(documents), wrong
