"""Options in another order: the question stays the same, and letters find their way back."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from rinsho.tasks import Item, labels, passages, prompts, rotated, unrotated_letter
from rinsho.tasks.item import OR, gold_letters


def make(options: list[str], gold: list[str], forbidden: list[str], exam: bool) -> Item:
    wording = prompts.EXAM if exam else prompts.CHOICE
    return Item(
        "igakuqa/999A1", "igakuqa", "choice", "", wording, "どれか。", tuple(options), tuple(gold), "", "",
        forbidden=tuple(forbidden),
    )  # fmt: skip


@st.composite
def items(draw) -> Item:
    number = draw(st.integers(2, 10))
    exam = draw(st.booleans())
    letters = (prompts.EXAM if exam else prompts.CHOICE).letters(number)
    options = draw(st.lists(st.text(min_size=1, max_size=3), min_size=number, max_size=number, unique=True))
    chosen = draw(st.lists(st.sampled_from(letters), min_size=1, max_size=min(4, number), unique=True))
    gold = [OR.join(chosen[:2]), *chosen[2:]] if draw(st.booleans()) else chosen
    forbidden = draw(st.lists(st.sampled_from(letters), max_size=2, unique=True))
    return make(options, gold, forbidden, exam)


def pairs(item: Item) -> set[tuple[str, bool, bool]]:
    right = {letter for gold in item.gold for letter in gold.split(OR)}
    return {
        (text, letter in right, letter in item.forbidden)
        for letter, text in zip(labels(item), item.options, strict=True)
    }


@settings(max_examples=150, deadline=None)
@given(items(), st.integers(0, 25))
def test_rotating_moves_options_and_nothing_else(item: Item, rotation: int) -> None:
    rolled, number = rotated(item, rotation), len(item.options)
    assert pairs(rolled) == pairs(item) and rolled.id == item.id
    assert [rolled.options[place] for place in range(number)] == [
        item.options[(place + rotation) % number] for place in range(number)
    ]
    for letters, original in ((rolled.gold, item.gold), (rolled.forbidden, item.forbidden)):
        back = [OR.join(unrotated_letter(item, one, rotation) for one in letter.split(OR)) for letter in letters]
        assert tuple(back) == original
    assert tuple(unrotated_letter(item, one, rotation) for one in gold_letters(rolled)) == gold_letters(item)
    assert rotated(rolled, -rotation) == item
    assert rotated(item, number) is item and rotated(item, 0) is item


def test_what_has_no_letters_stays() -> None:
    item = make(["肝", "腎", "肺"], ["a or c"], ["b"], exam=True)
    assert rotated(item, 1).options == ("腎", "肺", "肝")
    assert (rotated(item, 1).gold, rotated(item, 1).forbidden) == (("c or b",), ("a",))
    assert rotated(item, 1).prompt.startswith("問題: どれか。\na: 腎\nb: 肺\nc: 肝\n")
    assert [unrotated_letter(item, letter, 1) for letter in ("a", "c", "None", "A", "z", "")] == [
        "b", "a", "None", "A", "z", ""
    ]  # fmt: skip
    number = Item("igakuqa/999A2", "igakuqa", "number", "", prompts.EXAM_NUMBER, "いくつか。", (), ("26",), "", "")
    entities = Item("x/0", "x", "entities", "", prompts.ENTITIES, "どれか。", (), ("肺癌",), "", "")
    assert rotated(number, 2) is number and rotated(entities, 2) is entities
    assert unrotated_letter(entities, "A", 1) == "A"


def test_two_sentences_of_ones_own_task_are_two_passages() -> None:
    pair = Item(
        "x/0", "x", "choice", "", prompts.PAIR, "", ("ち", "違"), ("A",), "S1: 甲: 軽快。\nS2: 乙。", "", ordered=True
    )
    assert passages(pair) == ("甲: 軽快。", "乙。")
