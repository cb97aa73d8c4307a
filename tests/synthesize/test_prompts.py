"""Templates: every placeholder is known, the built-in ones ask for what the parsers read, a physician can edit them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from rinsho.cli import main
from rinsho.errors import UserError
from rinsho.synthesize.exercises import Exercise, parse
from rinsho.synthesize.prompts import FOLDER, NEEDED, load, unused, write_templates
from rinsho.synthesize.task_form import Task, parse_tasks

VALUES = {
    "topic": "肺炎", "topic_kind": "疾患", "reading": "はいえん", "text": "本文である。", "document": "d1",
    "examples": "### 指示 1\n例\n### 入力 1\n（なし）\n### 出力 1\n答え", "count": "5", "question": "どれか。", "options": "a. 甲\nb. 乙",
}  # fmt: skip


def edited(folder: Path, text: str, name: str = "textbook") -> Path:
    (folder / f"{name}.txt").write_text(text, encoding="utf-8")
    return folder


def filled(name: str, **others: str) -> list[str]:
    template = load().templates[name]
    known = {name for name in VALUES if f"{{{name}}}" in template.system + template.user}
    return [message.content for message in template.messages(**{name: VALUES[name] for name in known} | others)]


def test_the_built_in_templates_are_there_and_leave_no_placeholder() -> None:
    names = {"textbook", "textbook.disease", "textbook.drug", "textbook.examination", *NEEDED}
    assert {path.stem for path in FOLDER.glob("*.txt")} == names == set(load().templates)
    for name in names:
        turns = filled(name)
        assert len(turns) == 2 and "{" not in "".join(turns) and "}" not in "".join(turns), name


@pytest.mark.parametrize(
    ("name", "labels"), [("physician_exam", "abcde"), ("pharmacist_exam", "12345"), ("reading", "abcde")]
)
def test_the_form_that_is_asked_for_and_its_example_are_read(name: str, labels: str) -> None:
    """The shown form, filled in, and the worked example parse as what they are."""
    form, example = filled(name)[1].split("前置きや結びの言葉、飾りの記号を付けないでください。\n")[1].split("形の見本")
    shown = parse("問題" + example.partition("問題")[2])
    assert isinstance(shown, Exercise) and "".join(shown.options) == labels
    assert len(shown.answer) == 1 and len(shown.explanation) > 80
    assert ("1つ選べ" in shown.question) == (name != "physician_exam") and "どれか。1つ" not in filled(
        "physician_exam"
    )[1]
    assert [line.partition("（")[0].strip() for line in form.split("\n") if line] == [
        "問題:", *(f"{label}." for label in labels), "正解:", "解説:",
    ]  # fmt: skip


def test_the_form_of_instructions_is_what_their_parser_reads() -> None:
    asked = filled("instructions")[1]
    form = asked[asked.rindex("### 指示 （番号）") :].replace("（番号）", "1").replace("（指示）", "要約してください。")
    form = form.replace("（入力、または「（なし）」）", "（なし）").replace("（出力）", "肺炎です。")
    assert parse_tasks(form) == [Task("要約してください。", "", "肺炎です。")]


def test_samples_of_a_topic_differ_and_answers_stand_everywhere() -> None:
    template = load().of("physician_exam", "disease")
    drawn = [template.choices("disease", "1/physician_exam/t", sample) for sample in range(5)]
    assert len({one["aspect"] for one in drawn}) == 5 and sorted(one["place"] for one in drawn) == list("abcde")
    assert drawn == [template.choices("disease", "1/physician_exam/t", sample) for sample in range(5)]
    many = Counter(template.choices("disease", f"1/{topic}", 0)["select"] for topic in range(2000))
    assert (
        200 < many["はどれか。2つ選べ。"] < 300 and many["はどれか。"] > 1600 and len(many) == 2
    )  # as in the real one: 12 %
    of_drug = load().of("physician_exam", "drug_product").choices("drug_product", "1/x", 0)["aspect"]
    assert of_drug in template.lists["aspect"]["drug"] and of_drug not in template.lists["aspect"][""]


def test_pharmacists_are_asked_for_one_or_two_as_their_examination_does() -> None:
    forms = load().templates["pharmacist_exam"].lists["form"][""]
    assert all(form.count("つ選べ") == 1 for form in forms)
    two = {form[:2] for form in forms if "2つ選べ" in form}
    assert two == {"理論", "実践"} and {form[:2] for form in forms} - two == {"必須"}


def test_a_topic_has_the_template_of_its_kind(tmp_path) -> None:
    edited(tmp_path, "「{topic}」の手順を書く。", "textbook.procedure")
    prompts = load(str(tmp_path))
    found = {kind: prompts.of("textbook", kind) for kind in ("disease", "drug_product", "test", "procedure", "symptom")}
    names = {id(template): name for name, template in prompts.templates.items()}
    assert [names[id(template)] for template in found.values()] == [
        "textbook.disease", "textbook.drug", "textbook.examination", "textbook.procedure", "textbook",
    ]  # fmt: skip
    assert prompts.of("physician_exam", "drug") is prompts.templates["physician_exam"]


def test_lines_without_anything_to_say_are_left_out_and_values_are_never_looked_at(tmp_path) -> None:
    edited(tmp_path, '題: {topic}\n読み: {reading}\n種別: {topic_kind}（{reading}）\n{"json": {}} {例}\n---')
    messages, _ = load(
        str(edited(tmp_path, '題: {topic}\n読み: {reading}\n種別: {topic_kind}（{reading}）\n{"json": {}} {例}'))
    ).messages("textbook", topic="{reading}", topic_kind="疾患")
    assert [(one.role, one.content) for one in messages] == [
        ("user", '題: {reading}\n種別: 疾患（）\n{"json": {}} {例}')
    ]


def test_the_hash_is_that_of_the_template_alone(tmp_path) -> None:
    prompts = load()
    first = prompts.messages("textbook.drug", topic="甲")[1]
    assert first == prompts.messages("textbook.drug", topic="乙", reading="おつ")[1] and len(first) == 16
    text = (FOLDER / "textbook.drug.txt").read_text(encoding="utf-8")
    same = load(str(edited(tmp_path, text.replace("\n", "\r\n"), "textbook.drug")))  # saved by a Windows editor
    assert same.digest(["textbook.drug"]) == prompts.digest(["textbook.drug"])
    for change in (("薬理", "薬物"), ("aspect: 服薬指導", "aspect: 指導"), ("「である」調", "「です・ます」調")):
        other = load(str(edited(tmp_path, text.replace(*change), "textbook.drug")))
        assert other.templates["textbook.drug"].hash != first
        assert other.digest(other.templates) != prompts.digest(prompts.templates)
        assert other.templates["textbook"].hash == prompts.templates["textbook"].hash


def test_only_templates_that_are_taken_count(tmp_path) -> None:
    """The digest of a run: of its kinds of texts and topics, and of no other template."""
    (tmp_path / "textbook.txt").write_text("「{topic}」を説明する。", encoding="utf-8")
    own, built_in = load(str(tmp_path)), load()
    names = own.taken(("textbook", "reading"), {"disease", "drug_product"})
    assert names == ["reading", "textbook.disease", "textbook.drug"]
    assert own.digest(names) == built_in.digest(names)
    names = own.taken(("textbook",), {"disease", "procedure"})
    assert names == ["textbook", "textbook.disease"] and own.digest(names) != built_in.digest(names)


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        (
            "textbook",
            "甲\n---\n「{topic}」\n{topik}",
            r"textbook\.txt:4: unknown placeholder 'topik' \(did you mean 'topic'",
        ),
        ("textbook", "{text}\n---\n{topic}", r"textbook\.txt:1: unknown placeholder 'text'"),
        ("reading", "system {text}\n---\n問題を作る。", r"reading\.txt: the user turn has no \{text\}"),
        ("instructions", "{examples}", r"the user turn has no \{count\}"),
        ("textbook", "", r"the user turn has no \{topic\}"),
        ("textbook", "a\n---\n{topic}\n---\naspect: 甲\n---\nb", r"textbook\.txt:6: more than two lines of ---"),
        ("textbook", "a\n---\n{topic}\n---\n甲乙", r"textbook\.txt:5: no entry of a list"),
        ("textbook", "a\n---\n{topic}\n---\naspect: 甲", r"a list aspect, but no \{aspect\}"),
        ("textbook", "a\n---\n{topic}{x}\n---\nx.drug: 甲", r"a list x for some kinds of topics alone"),
        ("textbook", "a\n---\n{topic}\n---\ntopic: 甲", r"textbook\.txt:5: topic is no list"),
        ("textbok", "{topic}", r"unknown template 'textbok\.txt' \(did you mean 'textbook\.txt'"),
        ("reading.drug", "{text}", r"unknown template 'reading\.drug\.txt'"),
    ],
)
def test_mistakes_in_a_template_are_named(tmp_path, name: str, text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        load(str(edited(tmp_path, text, name)))


def test_a_file_of_another_ending_is_no_template(tmp_path) -> None:
    for copy in (".DS_Store", "textbook.txt~", "~$book.txt"):
        (tmp_path / copy).write_bytes(b"\xff")
    assert load(str(tmp_path)) == load()
    (tmp_path / "textbook.drug.md").write_text("「{topic}」", encoding="utf-8")
    with pytest.raises(UserError, match=r"unknown template 'textbook\.drug\.md' \(did you mean 'textbook\.drug\.txt'"):
        load(str(tmp_path))


def test_what_no_topic_takes_of_ones_own_templates_is_told(tmp_path) -> None:
    write_templates(tmp_path)
    assert unused(load(str(tmp_path)), ["textbook", "physician_exam"], {"disease"}) == []  # as built in: nothing edited
    edited(tmp_path, "「{topic}」を書く。")
    edited(tmp_path, "「{topic}」を書く。", "textbook.durg")
    exam = (FOLDER / "physician_exam.txt").read_text(encoding="utf-8")
    edited(tmp_path, exam.replace("aspect.drug: 作用機序", "aspect.durg: 作用機序"), "physician_exam")
    prompts = load(str(tmp_path))
    assert prompts.own == {"textbook", "textbook.durg", "physician_exam"}
    found = unused(prompts, ["textbook", "physician_exam"], {"disease", "drug_product", "symptom"})
    assert found == [
        "your textbook.txt is not taken for topics of kind disease, drug_product: "
        "built-in textbook.disease.txt, textbook.drug.txt is, edit it too",
        "your textbook.durg.txt is taken for no topic; their kinds: disease, drug_product, symptom",
        "your physician_exam.txt: aspect.durg is taken for no topic; their kinds: disease, drug_product, symptom",
    ]
    assert unused(prompts, ["pharmacist_exam"], {"disease"}) == unused(prompts, ["textbook"], {"durg", "symptom"}) == []


def test_a_file_that_is_not_utf8_and_a_missing_folder_are_named(tmp_path) -> None:
    (tmp_path / "textbook.txt").write_bytes("「{topic}」を説明".encode("cp932"))
    with pytest.raises(UserError, match=r"textbook\.txt: not UTF-8"):
        load(str(tmp_path))
    with pytest.raises(UserError, match="rinsho synthesize prompts"):
        load(str(tmp_path / "none"))


def test_templates_are_written_to_be_edited_and_never_overwritten(tmp_path) -> None:
    folder = tmp_path / "prompts"
    assert {path.name for path in write_templates(folder)[0]} == {path.name for path in FOLDER.glob("*.txt")}
    assert load(str(folder)).templates == load().templates
    edited(folder, "「{topic}」を説明する。")
    (folder / "answer.txt").unlink()
    assert write_templates(folder) == ([folder / "answer.txt"], 8)
    assert (folder / "textbook.txt").read_text(encoding="utf-8") == "「{topic}」を説明する。"


def test_the_command_says_what_it_wrote(tmp_path, capsys) -> None:
    assert main(["synthesize", "prompts", str(tmp_path / "prompts")]) == 0
    assert capsys.readouterr().out.endswith("textbook.txt\n9 written, 0 were there\n")
    assert main(["synthesize", "prompts", str(tmp_path / "prompts")]) == 0
    assert capsys.readouterr().out == "all 9 are there, nothing written\n"
