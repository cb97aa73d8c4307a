"""The page in a real Chromium: what it shows, and what a reader can do with it.

The server behind it is a stand-in here, so that its answers are known; test_page_real.py has the real one.
"""

from __future__ import annotations

import csv
import io
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from rinsho.serve.schemas import LONGEST_TEXT
from serve.browsing import Visit, chromium
from serve.page_answers import ANSWER, ANSWERS, REPORT
from serve.page_server import PageServer, refused, spoken

pytestmark = [pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1"])]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def toy() -> Iterator[PageServer]:
    with PageServer(ANSWERS) as server:
        yield server


@pytest.fixture
def visit(browser: Any, toy: PageServer) -> Iterator[Visit]:
    opened = Visit(browser, toy.url)
    toy.asked.clear()
    yield opened
    assert opened.errors == [] and opened.dialogs == []
    opened.close()


# ------------------------------------------------------------------ extraction


def test_entities_are_marked_where_they_stand(visit: Visit) -> None:
    visit.extract(REPORT)
    page = visit.page
    assert page.text_content("#extract-report") == REPORT
    assert visit.marks() == [
        ("高血圧症", False), ("ﾜｰﾌｧﾘﾝ", False), ("2型", False), ("糖尿病", True), ("肺癌", True), ("肺癌", True), ("1.2mg/dL", False),
    ]  # fmt: skip
    assert visit.rows() == [
        ("disease", "高血圧症", "97 %", False), ("medicine", "ﾜｰﾌｧﾘﾝ", "62 %", False), ("disease", "2型糖尿病", "91 %", False),
        ("disease", "糖尿病", "30 %", True), ("disease", "肺癌", "41 %", True), ("disease", "肺癌", "41 %", True),
        ("value", "1.2mg/dL", "規則", False),
    ]  # fmt: skip
    assert visit.texts("#extract-legend li") == ["病名2?3", "薬剤1", "数値1"]


def test_the_threshold_decides_what_is_asserted_without_asking_again(visit: Visit, toy: PageServer) -> None:
    visit.extract(REPORT)
    slider = visit.page.locator("#threshold")
    for value, unsure in (("0.35", 1), ("0.95", 5), ("1", 6), ("0", 0)):
        slider.fill(value)
        assert sum(row[3] for row in visit.rows()) == unsure  # never the value found by rule
        assert f" {unsure} " in visit.page.text_content("#threshold-count")
    assert [route for route, _ in toy.asked] == ["extract"]


def test_list_and_text_lead_to_each_other(visit: Visit) -> None:
    visit.extract("前置き。\n" * 120 + REPORT)
    page = visit.page
    page.locator("#extract-list .jump").nth(4).click()
    mark = page.locator("#extract-report mark.chosen")
    assert mark.text_content() == "肺癌"
    box = mark.bounding_box()
    assert 60 < box["y"] < 740  # in view, between the header and the notice
    page.locator("#extract-report mark").first.click()
    assert page.locator("#extract-list li.chosen .jump").text_content() == "高血圧症"


def test_corrections_by_hand_and_undo(visit: Visit) -> None:
    visit.extract(REPORT)
    page, before = visit.page, visit.rows()
    row = page.locator("#extract-list li")
    row.nth(4).locator(".remove").click()
    assert [one[1] for one in visit.rows()].count("肺癌") == 1
    page.click("#extract-alike")  # the other place of the same words
    assert "肺癌" not in [one[1] for one in visit.rows()]
    row.nth(0).locator("select").select_option("medicine")
    assert visit.rows()[0] == ("medicine", "高血圧症", "手作業", False)
    row.nth(3).locator(".jump").click()
    row.nth(3).locator(".check").click()
    assert visit.rows()[3] == ("disease", "糖尿病", "30 %", False)
    assert ("糖尿病", False) in visit.marks()
    for _ in range(3):
        page.click("#extract-undo")
    page.locator("#extract-list .jump").first.press("Control+z")
    assert visit.rows() == before
    assert page.is_disabled("#extract-undo")


def test_terms_are_added_by_selecting_or_typing(visit: Visit) -> None:
    visit.extract(REPORT)
    page = visit.page
    page.evaluate(
        """() => { const root = document.getElementById("extract-report");
          const at = (word) => { const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
            for (let node; (node = walker.nextNode()); ) if (node.data.includes(word)) return [node, node.data.indexOf(word)]; };
          const [from, start] = at("🩺"), [to, end] = at("内服");
          getSelection().setBaseAndExtent(from, start + 2, to, end + 2); }"""
    )
    assert page.input_value("#add-text") == "通院中。ﾜｰﾌｧﾘﾝ内服"  # a one-line field shows no line break
    page.select_option("#add-kind", "medicine")
    page.click("#extract-add button")
    added = json.loads(
        page.evaluate("JSON.stringify([...document.querySelectorAll('#extract-list .jump')].map((b) => b.textContent))")
    )
    assert "通院中。\nﾜｰﾌｧﾘﾝ内服" in added
    page.fill("#add-text", "疑い")
    page.press("#add-text", "Enter")
    page.fill("#add-text", "、")
    assert "2" in page.text_content("#extract-add button")
    page.press("#add-text", "Enter")
    rows = visit.rows()
    assert [row for row in rows if row[2] == "手作業"] == [
        ("medicine", "、", "手作業", False), ("medicine", "通院中。\nﾜｰﾌｧﾘﾝ内服", "手作業", False),
        ("medicine", "、", "手作業", False), ("medicine", "疑い", "手作業", False),
    ]  # fmt: skip
    page.fill("#add-text", "ない語")
    assert page.is_disabled("#extract-add button")
    page.fill("#add-text", "疑い")
    page.press("#add-text", "Enter")
    assert len(visit.rows()) == len(rows)  # marked already
    assert page.text_content("#extract-report") == REPORT


def test_csv_has_offsets_in_code_points_and_a_byte_order_mark(visit: Visit) -> None:
    visit.extract(REPORT + ' =1+2 と -3.5mg と "引用", 改\n行')
    page = visit.page
    for word in ("=1+2", "-3.5mg", '"引用", 改'):
        page.fill("#add-text", word)
        page.press("#add-text", "Enter")
    saved = visit.download("#save-csv")
    assert saved.startswith(b"\xef\xbb\xbf")
    rows = list(csv.DictReader(io.StringIO(saved.decode("utf-8-sig"), newline="")))
    text = page.text_content("#extract-report")
    assert len(rows) == 10
    for row in rows:
        assert text[int(row["start"]) : int(row["end"])] == row["text"].removeprefix("'")
    by_text = {row["text"]: row for row in rows}
    assert by_text["糖尿病"] | {"start": "", "end": ""} == {
        "kind": "disease", "text": "糖尿病", "probability": "0.3", "unsure": "true", "source": "model", "start": "", "end": ""
    }  # fmt: skip
    assert by_text["1.2mg/dL"]["probability"] == "" and by_text["1.2mg/dL"]["source"] == "rule"
    assert by_text["'=1+2"]["source"] == "hand"  # no spreadsheet runs it
    assert "'-3.5mg" in by_text and '"引用", 改' in by_text


def test_training_rows_are_made_of_kinds_that_somebody_has_decided_on(visit: Visit, toy: PageServer) -> None:
    """What a row does not hold is learned as not there: a kind with unsure terms has none, and it is said."""
    visit.extract(REPORT)
    page = visit.page
    medicine = {"text": REPORT, "kind": "medicine", "entities": ["ﾜｰﾌｧﾘﾝ"]}

    def saved() -> list[Any]:
        rows = [json.loads(line) for line in visit.download("#save-rows").decode().splitlines()]
        assert rows == toy.asked[-1][1]["rows"]
        return rows

    assert saved() == [medicine]
    said = page.locator("#extract-said")
    assert said.text_content().endswith("入れなかった種類: 病名")
    page.click("[data-language=en]")
    assert said.text_content().endswith("unsure terms: Disease")
    row = page.locator("#extract-list li")
    row.nth(3).locator(".jump").click()
    row.nth(3).locator(".remove").click()  # 糖尿病
    row.nth(3).locator(".check").click()  # one of two places of 肺癌
    assert saved() == [medicine]  # the other one is undecided
    row.nth(4).locator(".jump").click()
    row.nth(4).locator(".check").click()
    disease = {"text": REPORT, "kind": "disease", "entities": ["高血圧症", "2型糖尿病", "肺癌"]}
    assert saved() == [disease, medicine]
    assert said.text_content() == "The training rows are saved."


def test_without_a_decided_kind_there_are_no_training_rows(visit: Visit, toy: PageServer) -> None:
    visit.extract(REPORT)
    page = visit.page
    page.locator("#threshold").fill("1")
    page.click("#save-rows")
    page.wait_for_selector("#extract-result .problem:visible")
    assert "要確認" in page.text_content("#extract-result .problem")
    assert [route for route, _ in toy.asked] == ["extract"]


def test_a_text_is_as_long_as_the_server_takes_it_and_no_longer(visit: Visit, toy: PageServer) -> None:
    page = visit.page
    longest = "𠮷" * LONGEST_TEXT
    for tab, route in (("extract", "extract"), ("classify", "classify"), ("tokens", "tokens")):
        page.click(f"#tab-{tab}")
        if tab == "classify":
            page.fill("#classify-options", "あり\nなし")
        page.fill(f"#{tab}-text", longest + "。")
        visit.ask(tab)
        problem = page.locator(f"#{tab}-form .problem")
        assert "50,001 字" in problem.text_content() and "50,000 字まで" in problem.text_content()
        page.click("[data-language=en]")
        assert "(50,001 characters). Shorten it to 50,000" in problem.text_content()
        page.click("[data-language=ja]")
        assert route not in [asked for asked, _ in toy.asked]
        page.fill(f"#{tab}-text", longest)
        visit.ask(tab)
        assert problem.is_hidden() and toy.asked[-1][0] == route


def test_text_is_edited_and_asked_again(visit: Visit, toy: PageServer) -> None:
    visit.extract(REPORT)
    page = visit.page
    page.locator(".remove").first.click()
    page.click("#extract-edit")
    page.click("#extract-back")  # corrections are still there
    assert len(visit.rows()) == 6
    page.click("#extract-edit")
    page.fill("#extract-text", "頭痛なし。")
    assert page.is_hidden("#extract-back")
    page.locator("#extract-kinds input").nth(2).uncheck()
    visit.ask("extract")
    assert toy.asked[-1][1] == {"text": "頭痛なし。", "kinds": ["disease", "medicine"], "threshold": 0.5}
    assert visit.rows() == [] and page.is_visible("#extract-none")


# ------------------------------------------------------------------ chat, classification, tokens


def test_chat_streams_and_remembers(visit: Visit, toy: PageServer) -> None:
    page = visit.page
    page.click("#tab-chat")
    visit.say("発熱は？")
    assert visit.texts(".model .said") == [ANSWER]
    assert re.fullmatch(r"2 トークン・\d+\.\d 秒", page.text_content(".meta"))
    page.fill("#chat-text", "一行目")
    page.press("#chat-text", "Shift+Enter")
    page.keyboard.type("二行目")
    page.press("#chat-text", "Enter")
    page.wait_for_selector("#chat-log:not([aria-busy])")
    assert [turn["content"] for turn in toy.asked[-1][1]["messages"]] == ["発熱は？", ANSWER, "一行目\n二行目"]
    assert "temperature" in toy.asked[-1][1] and "max_tokens" not in toy.asked[-1][1]
    page.click("#chat-new")
    assert visit.texts(".said") == [] and page.is_visible("#chat-empty")
    page.click("summary")
    page.fill("#chat-system", "短く答える。")
    page.fill("#chat-max", "20")
    visit.say("次")
    body = toy.asked[-1][1]
    assert [turn["role"] for turn in body["messages"]] == ["system", "user"] and body["max_tokens"] == 20


def test_an_input_methods_enter_sends_nothing(visit: Visit, toy: PageServer) -> None:
    page = visit.page
    page.click("#tab-chat")
    page.fill("#chat-text", "へんかん")
    page.evaluate(
        """document.getElementById("chat-text").dispatchEvent(
          new KeyboardEvent("keydown", { key: "Enter", isComposing: true, bubbles: true, cancelable: true }))"""
    )
    assert toy.asked == [] and page.input_value("#chat-text") == "へんかん"


@pytest.mark.parametrize("way", ["button", "escape", "new conversation"])
def test_stopping_an_answer_ends_the_request(browser: Any, way: str) -> None:
    go = threading.Event()

    def endless() -> Iterator[str]:
        while True:
            yield "発熱"
            go.wait(0.01)

    with PageServer({"chat/completions": lambda body: spoken(endless())}) as toy:
        visit = Visit(browser, toy.url)
        page = visit.page
        page.click("#tab-chat")
        page.fill("#chat-text", "続けて")
        page.press("#chat-text", "Enter")
        page.locator(".model .said", has_text="発熱発熱発熱").wait_for()
        assert not toy.left.is_set()
        if way == "button":
            page.click("#chat-form [type=submit]")
        elif way == "escape":
            page.keyboard.press("Escape")
        else:
            page.click("#chat-new")
        assert toy.left.wait(5)
        page.wait_for_selector("#chat-log:not([aria-busy])", state="attached")
        assert len(visit.texts(".model")) == (0 if way == "new conversation" else 1)
        if way != "new conversation":
            assert "中止" in page.text_content(".meta")
        assert visit.errors == []
        visit.close()


def test_long_conversations_lose_their_oldest_turns_and_say_so(browser: Any) -> None:
    def answer(body: dict[str, Any]) -> Any:
        if len(body["messages"]) > 3:
            return refused(400, "too long", "context_length_exceeded")
        return spoken([f"答え{len(body['messages'])}"])

    with PageServer({"chat/completions": answer}) as toy:
        visit = Visit(browser, toy.url)
        visit.page.click("#tab-chat")
        for number in range(4):
            visit.say(f"問い{number}")
        assert visit.texts(".model .said") == ["答え1", "答え3", "答え3", "答え3"]
        assert [turn["content"] for turn in toy.asked[-1][1]["messages"]] == ["問い2", "答え3", "問い3"]
        assert "2" in visit.page.locator(".meta").last.text_content()
        visit.close()


def test_classification_shows_a_bar_for_each_option(visit: Visit, toy: PageServer) -> None:
    page = visit.page
    page.click("#tab-classify")
    page.fill("#classify-text", "熱はない。")
    page.fill("#classify-options", "あり\n\n  なし \n不明\n")
    visit.ask("classify")
    assert toy.asked[-1][1] == {"text": "熱はない。", "options": ["あり", "なし", "不明"]}
    assert visit.texts("#classify-bars .option") == ["なし", "あり", "不明"]
    assert visit.texts("#classify-bars .share") == ["80 %", "20 %", "< 1 %"]
    assert visit.texts("#classify-bars .best .option") == ["なし"]
    widths = page.evaluate(
        "[...document.querySelectorAll('.fill')].map((f) => f.offsetWidth / f.parentElement.offsetWidth)"
    )
    assert widths == pytest.approx([0.799, 0.2, 0.001], abs=0.005)
    assert page.is_hidden("#classify-shortened") and page.is_hidden("#classify-note")
    page.fill("#classify-text", "熱がある。")
    assert "stale" in page.get_attribute("#classify-bars", "class")
    for options in ("一つ", "同じ\n同じ", "\n".join(map(str, range(27)))):
        page.fill("#classify-options", options)
        page.click("#classify-form [type=submit]")
        assert page.locator("#classify-form .problem").is_visible()
    assert len(toy.asked) == 1


def test_a_question_that_the_model_does_not_know_is_said_to_be_one(browser: Any) -> None:
    notes = iter(["no tuning on this question", None])
    with PageServer({"classify": lambda body: ANSWERS["classify"](body) | {"note": next(notes)}}) as toy:
        visit = Visit(browser, toy.url)
        page = visit.page
        page.click("#tab-classify")
        page.click("#classify-example")
        visit.ask("classify")
        note = page.locator("#classify-note")
        assert note.is_visible() and note.locator("small").text_content() == "no tuning on this question"
        assert "調整した" in note.text_content()
        page.click("[data-language=en]")
        assert "probabilities may say little" in note.text_content()
        visit.ask("classify")
        assert note.is_hidden() and visit.errors == []
        visit.close()


def test_tokens_show_pieces_ids_and_what_was_cleaned(visit: Visit) -> None:
    page = visit.page
    page.click("#tab-tokens")
    page.fill("#tokens-text", "𠮷ﾜｰﾌｧﾘﾝ\n鷗")
    visit.ask("tokens")
    assert visit.texts(".piece") == ["𠮷", "ワーファリン", "↵", "<0xE8>"]
    assert visit.texts(".cleaned .piece") == ["ワーファリン"]
    assert "ﾜｰﾌｧﾘﾝ" in page.get_attribute(".cleaned", "title")
    assert page.locator(".id").first.is_hidden()
    page.check("#tokens-ids")
    assert page.locator(".id").first.is_visible() and visit.texts(".id") == ["7", "8", "9", "4"]
