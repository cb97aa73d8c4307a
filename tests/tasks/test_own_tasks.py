"""Tasks described in YAML: no code, strict keys, and one clear line for every mistake."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rinsho.errors import UserError
from rinsho.tasks import Splitting, documents, passages, read_data, read_train
from rinsho.tasks.own import is_task, read_tests
from rinsho.tasks.own import read_train as own_train
from rinsho.tasks.read import find_layouts, holds_benchmark
from tasks.toy_jmed import toy_jmed, write_csv

LEVELS = ["様子を見る", "当日受診", "救急要請"]
NOTES = [
    "三日前から鼻水が続き、熱はなく食事もとれている様子で、咳も出ていない。",
    "胸の中央が締め付けられるように痛み、冷や汗が止まらず息も苦しい状態が続く。",
]


def yaml(folder: Path, text: str, name: str = "task.yaml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def triage(folder: Path, extra: str = "", rows: list[list[str]] | None = None) -> Path:
    rows = [["p1", "電話", NOTES[0], "様子を見る"], ["p2", "来院", NOTES[1], "C"]] if rows is None else rows
    write_csv(folder / "tables/test.csv", ["patient", "way", "note", "level"], rows)
    options = ", ".join(LEVELS)
    return yaml(
        folder,
        "name: triage\nkind: classification\ntest: tables/test.csv\nquestion: note\nanswer: level\ntag: way\n"
        f"document: patient\noptions: [{options}]\n{extra}",
    )


def test_a_classification(tmp_path: Path) -> None:
    first, second = read_tests(triage(tmp_path))
    assert (first.id, first.task, first.kind, first.tag) == ("triage/00000", "triage", "choice", "電話")
    assert (first.gold, second.gold, first.options, first.ordered) == (("A",), ("C",), tuple(LEVELS), False)
    assert first.prompt == f"質問: {NOTES[0]}\n選択肢:\nA. 様子を見る\nB. 当日受診\nC. 救急要請\n"
    assert first.passage == NOTES[0] and first.document != documents(first)[0]
    assert read_data([tmp_path], "test") == read_data([tmp_path / "task.yaml"], "test", tasks=["triage"])


def test_choice_with_its_own_words_from_json_lines(tmp_path: Path) -> None:
    rows = [{"q": "肺の病気は？", "o": ["肺炎", "胃炎", ""], "a": "肺炎"}, {"q": "2番は？", "o": [1, 2, 3], "a": 2}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    path = yaml(
        tmp_path,
        "name: quiz\nkind: choice\ntest: t.jsonl\nquestion: q\nanswer: a\noption_columns: [o]\nsystem: 選べ。\n"
        'prompt: "{question}({count}) {{x}}\\n{options}{letters}"\noption: "({letter}) {text}; "\ncue: "\\n→"\n',
    )
    first, second = read_tests(path)
    assert first.prompt == "肺の病気は？(1) {x}\n(A) 肺炎; (B) 胃炎; A,B"
    assert (first.system, first.wording.cue, first.gold, second.gold) == ("選べ。", "\n→", ("A",), ("B",))
    assert [item.id for item in read_data([tmp_path], "test")] == ["quiz/00000", "quiz/00001"]  # the table is not USMLE


def test_the_gap_before_an_answer(tmp_path: Path) -> None:
    assert read_tests(triage(tmp_path))[0].wording.gap == ""
    assert read_tests(triage(tmp_path, 'cue: "\\nLevel:"\ngap: " "\n'))[0].wording.gap == " "


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("kind: classification\ntest: tables/test.csv\noptions: [一\n", r":4: not valid YAML"),
        ("kind: classification\n\ttest: x\ntest: tables/test.csv\n", r":2: not valid YAML"),
        ("name: triage\nkind: ranking\n", ":2: kind is 'ranking'"),
        ("name: triage\ntest: tables/test.csv\n", "kind"),
    ],
)
def test_a_broken_description_in_a_folder_is_told(tmp_path: Path, text: str, message: str) -> None:
    triage(tmp_path)
    yaml(tmp_path, text, "broken.yaml")
    with pytest.raises(UserError, match=rf"broken.yaml.*{message}"):
        read_data([tmp_path], "test")
    for other in ("a: [1\n", "kinds: [\ntest: x\n", "  kind: [x\ntest: y\n"):  # not meant as tasks
        yaml(tmp_path, other, "broken.yaml")
        assert len(read_data([tmp_path], "test")) == 2


def test_a_similarity_of_two_columns(tmp_path: Path) -> None:
    write_csv(
        tmp_path / "t.csv", ["a", "b", "score"], [["軽快\nした。", "治った。", "2"], ["転院した。", "発熱。", "0"]]
    )
    path = yaml(
        tmp_path, "name: sts\nkind: similarity\ntest: t.csv\nquestion: a\nsecond: b\nanswer: score\n"
        "options: [同じ, 似ている, 違う]\nlabels: [2, 1, 0]\n",
    )  # fmt: skip
    first, second = read_tests(path)
    assert first.question == "S1: 軽快 した。\nS2: 治った。" and first.ordered
    assert passages(first) == ("軽快 した。", "治った。") and (first.gold, second.gold) == (("A",), ("C",))


def test_entities_with_a_passage(tmp_path: Path) -> None:
    rows = [["夜に発熱あり。", "['発熱']"], ["変わりなし。", "[]"], ["咳と熱。", '["咳", "熱"]']]
    write_csv(tmp_path / "t.csv", ["record", "found"], rows)
    text = "name: finds\nkind: entities\ntest: t.csv\nquestion: record\nanswer: found\nprompt: 症状は？「{question}」\n"
    items = read_tests(yaml(tmp_path, text))
    assert [item.gold for item in items] == [("発熱",), (), ("咳", "熱")]
    assert (items[0].prompt, items[0].passage, items[0].kind) == (
        "症状は？「夜に発熱あり。」",
        "夜に発熱あり。",
        "entities",
    )
    write_csv(tmp_path / "t.csv", ["ask", "record", "answer"], [["症状は？", "夜に発熱あり。", "['発熱']"]])
    text = "name: finds\nkind: entities\ntest: t.csv\nquestion: ask\npassage: record\n"
    (item,) = read_tests(yaml(tmp_path, text))
    assert (item.prompt, item.passage) == ("症状は？\n「夜に発熱あり。」", "夜に発熱あり。")


def test_training_rows_that_quote_the_test_are_left_out(tmp_path: Path) -> None:
    rows = [
        ["p9", "電話", NOTES[0], "B"],  # a test question, whatever its answer
        ["p8", "電話", NOTES[1].replace("、", "、 ") + "らしい", "B"],  # nearly a test passage
        ["p1", "電話", "同じ患者の別の日の記録で、内容はまったく異なる。", "A"],
        ["p7", "電話", "足首をひねって腫れているが、自分で歩いて来られた。", "B"],
    ]
    write_csv(tmp_path / "train.csv", ["patient", "way", "note", "level"], rows)
    path = triage(tmp_path, "train: train.csv\n")
    assert [item.id for item in own_train(path)] == ["all/triage/00003"]
    assert [item.id for item in own_train(path, "row")] == [f"all/triage/0000{n}" for n in (1, 2, 3)]
    items, manifests = read_train([path], Splitting(), own_tasks=True)
    assert ([item.task for item in items], manifests) == (["triage"], [])
    assert read_train([path], own_tasks=True, tasks=["usmle"]) == ([], [])


def test_own_tasks_stand_beside_jmed_and_are_not_tuned_on(tmp_path: Path) -> None:
    toy_jmed(tmp_path)
    write_csv(tmp_path / "train.csv", ["patient", "way", "note", "level"], [["p7", "", "足首をひねった。", "B"]])
    path = triage(tmp_path, "train: train.csv\n")
    yaml(tmp_path, "seed: 3\n", "recipe.yaml")
    assert not is_task(tmp_path / "recipe.yaml") and is_task(path)
    assert {"triage", "smdis"} <= {item.task for item in read_data([tmp_path], "test")}
    rows = Splitting("row")
    assert "triage" not in {item.task for item in read_train([tmp_path], rows)[0]}
    assert {"triage", "smdis"} <= {item.task for item in read_train([tmp_path], rows, own_tasks=True)[0]}
    assert find_layouts([tmp_path]) == ([tmp_path], [])
    assert find_layouts([tmp_path, tmp_path]) == ([tmp_path, tmp_path], [])  # each as often as it was given
    with pytest.raises(UserError, match="not there, or not a folder; expected a data folder; check the path"):
        find_layouts([path])
    with pytest.raises(UserError, match="unknown task triage"):
        read_train([tmp_path], tasks=["triage"])
    with pytest.raises(UserError, match="stands in two"):
        read_data([path, yaml(tmp_path, path.read_text(encoding="utf-8"), "twin.yaml")], "test")
    triage(tmp_path / "only")
    assert not holds_benchmark(tmp_path / "only")
    with pytest.raises(UserError, match=r"neither JMED-LLM nor IgakuQA is in here; expected datasets/\*.csv or data/"):
        read_train([tmp_path / "only"])


@pytest.mark.parametrize(
    ("extra", "line", "message"),
    [
        ("optoin: x\n", 9, "unknown key 'optoin' .did you mean 'option"),
        ("name: smdis\n", 1, "smdis is the name of a known benchmark"),
        ("name: IgakuQA\n", 1, "is the name of a known benchmark"),
        ("name: my-task\n", 1, "name is 'my-task'"),
        ("kind: ranking\n", 2, "kind is 'ranking'"),
        ("kind: choice\n", 8, "options: not for kind choice, which has option_columns"),
        ("kind: entities\n", 8, "options: not for kind entities"),
        ("options: null\n", 8, "options are missing"),
        ("options: [一]\n", 8, "options: 1 are given, 2 to 10"),
        ("options: [一, 二, 一]\n", 8, "two are the same"),
        ("options: [yes, no]\n", 8, "options.0 is True"),
        ('gap: "\\n"\n', 9, "gap: only spaces"),
        ("labels: [1, 2]\n", 9, "labels: as many as there are options"),
        ("labels: [1, 2, 2]\n", 9, "labels: two are the same"),
        ("second: note\n", 9, "second: only for kind similarity"),
        ('prompt: "{question} {answer}"\n', 9, "prompt: only the places {question}, {options}, {letters}, {count}"),
        ('prompt: "{question.__class__}"\n', 9, "prompt: only the places"),
        ('prompt: "{question:>999999999}"\n', 9, "prompt: only the places"),
        ('prompt: "{question!r} {"\n', 9, "prompt: only the places"),
        ('prompt: "{options}"\n', 9, "prompt: {question} must stand in it"),
        ('option: "{text}"\n', 9, "option: {letter} and {text} must stand in it"),
        ('system: "{options}"\n', 9, "system: it has no places"),
        ("train: ../other.csv\n", 9, "train leads out of the folder"),
        ("train: /etc/hosts\n", 9, "train leads out of the folder"),
        ("train: no.csv\n", 9, "train is not there, or no table"),
        ("train: tables/../tables/test.csv\n", 9, "test and train are one file"),
        ("system: [1\n", 10, "not valid YAML"),
    ],
)
def test_wrong_descriptions_are_named_by_line(tmp_path: Path, extra: str, line: int, message: str) -> None:
    path = triage(tmp_path)
    lines, key = path.read_text(encoding="utf-8").splitlines(keepends=True), extra.split(":")[0]
    replaced = [extra if old.startswith(key + ":") else old for old in lines]
    yaml(tmp_path, "".join(replaced if extra in replaced else [*lines, extra]))
    with pytest.raises(UserError) as caught:
        read_tests(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert message.replace(".did", "(did") in str(caught.value)


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    write_csv(tmp_path / "other.csv", ["note"], [["秘密"]])
    path = triage(tmp_path / "task", "train: link.csv\n")
    (tmp_path / "task" / "link.csv").symlink_to(tmp_path / "other.csv")
    with pytest.raises(UserError, match="train leads out of the folder"):
        read_tests(path)


@pytest.mark.parametrize(
    ("extra", "right", "answer", "message"),
    [
        ("", "B", "D", "the answer names no option, or more than one (1 characters); expected a letter, or the text"),
        ("", "B", "a", "the answer names no option"),
        ("options: [B, A, C]\n", "C", "A", "set gold: letter or gold: text"),
        ("gold: text\n", LEVELS[1], "A", "expected the text of one option"),
        ("gold: letter\n", "B", LEVELS[0], "expected one of A, B, C"),
        ("labels: [x, y, z]\n", "y", "A", "expected one of the labels"),
        ("", "B", "", "level is missing, empty or not text"),
        ("passage: text\n", "B", "A", "missing column text"),
    ],
)
def test_wrong_rows_are_named_by_line(tmp_path: Path, extra: str, right: str, answer: str, message: str) -> None:
    path = triage(tmp_path, extra, [["p1", "", NOTES[0] + "\n二行目。", right], ["p2", "", NOTES[1], answer]])
    if extra.startswith("options"):
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        yaml(tmp_path, "".join(line for line in lines if not line.startswith("options") or line == extra))
    with pytest.raises(UserError) as caught:
        read_tests(path)
    line = 1 if "column" in message else 4
    assert str(caught.value).startswith(f"{path.parent}/tables/test.csv:{line}: ") and message in str(caught.value)
    assert NOTES[1] not in str(caught.value)


@pytest.mark.parametrize(
    ("extra", "answer", "gold"),
    [("gold: text\n", "A", "B"), ("gold: letter\n", "A", "A"), ("", "Ｃ", "C"), ("labels: [x, y, z]\n", "ｚ", "C")],
)
def test_gold_is_read_as_said(tmp_path: Path, extra: str, answer: str, gold: str) -> None:
    path = triage(tmp_path, extra, [["p1", "", NOTES[0], answer]])
    text = path.read_text(encoding="utf-8").replace(f"[{', '.join(LEVELS)}]", "[B, A, C]")
    assert read_tests(yaml(tmp_path, text))[0].gold == (gold,)


def test_wrong_tables(tmp_path: Path) -> None:
    path = triage(tmp_path, rows=[])
    with pytest.raises(UserError, match=r"test.csv: no row in here"):
        read_tests(path)
    write_csv(tmp_path / "t.csv", ["a", "b", "c", "answer"], [["問い", "", "二", "A"]])
    text = "name: quiz\nkind: choice\ntest: t.csv\nquestion: a\noption_columns: [b, c]\n"
    with pytest.raises(UserError, match=r"t.csv:2: .*an empty one before a filled one"):
        read_tests(yaml(tmp_path, text))
    text = "name: finds\nkind: entities\ntest: t.csv\nquestion: a\n"
    with pytest.raises(UserError, match=r"t.csv:2: the answer is not a list of strings"):
        read_tests(yaml(tmp_path, text))
    with pytest.raises(UserError, match="the recipe is not a mapping"):
        read_tests(yaml(tmp_path, "- 1\n"))
