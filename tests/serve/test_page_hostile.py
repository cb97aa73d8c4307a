"""What others say cannot act on the page: hostile texts and answers, errors of every kind, streams that break off."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from serve.browsing import Visit, chromium
from serve.page_server import PAGE, PageServer, found, refused, spoken

pytestmark = [pytest.mark.slow, pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1"])]

HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)><svg/onload=alert(3)></textarea></mark><a href='javascript:alert(4)'>x</a>"
    "<style>*{display:none}</style><iframe srcdoc='<script>alert(5)</script>'></iframe>{{7*7}}${alert(6)}&lt;b&gt;\u202e\u2028\x01"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


def test_hostile_texts_and_answers_stay_text(browser: Any) -> None:
    """Everything a report, a model, a task's name or an error may hold is shown as it is and runs nowhere."""
    token = {"id": 1, "piece": HOSTILE, "start": 0, "end": len(HOSTILE)}
    answers: dict[str, Callable[[dict[str, Any]], Any]] = {
        "extract": lambda body: found(body["text"], (HOSTILE, HOSTILE, 0.9), ("disease", "alert(2)", 0.2)),
        "classify": lambda body: {
            "options": [{"option": option, "probability": 0.5} for option in body["options"]], "best": HOSTILE
        },
        "tokens": lambda body: {"tokens": [token], "count": 1, "characters": len(body["text"])},
        "chat/completions": lambda body: spoken([HOSTILE[:9], HOSTILE[9:]], finish=HOSTILE),
        "training-rows": lambda body: refused(400, HOSTILE),
    }  # fmt: skip
    with PageServer(answers, {"name": HOSTILE, "kinds": [HOSTILE, "disease"], "form": HOSTILE}) as toy:
        visit = Visit(browser, toy.url)
        page = visit.page
        count = "document.querySelectorAll('script, img, svg, iframe, style, a, b').length"
        before = page.evaluate(count)
        text = f"𠮷{HOSTILE}。"
        visit.extract(text)
        assert page.text_content("#extract-report") == text
        assert [row[1] for row in visit.rows()] == [HOSTILE, "alert(2)"]
        assert HOSTILE in page.text_content("#about") and HOSTILE in visit.texts("#add-kind option")
        page.locator("#extract-list .remove").first.click()
        page.click("#extract-undo")
        page.locator("#extract-list select").first.select_option("disease")
        page.click("#save-rows")
        page.wait_for_selector("#extract-result .problem:visible")
        assert page.text_content("#extract-result .problem small") == HOSTILE
        page.click("#tab-chat")
        visit.say(HOSTILE)
        assert visit.texts(".said") == [HOSTILE, HOSTILE]
        page.click("#tab-classify")
        page.fill("#classify-text", HOSTILE)
        options = HOSTILE.replace("\u2028", "")
        page.fill("#classify-options", f"{options}\nなし")
        visit.ask("classify")
        assert visit.texts("#classify-bars .option")[0] == options.strip()
        page.click("#tab-tokens")
        page.fill("#tokens-text", HOSTILE)
        visit.ask("tokens")
        assert visit.texts(".piece") == [HOSTILE.replace(" ", "␣")]
        page.click("[data-language=en]")
        assert page.evaluate(count) == before + page.locator("#extract-legend b").count()
        assert visit.dialogs == [] and [line for line in visit.errors if "400" not in line] == []
        visit.close()


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (refused(400, "options: too few"), "受け付けませんでした"),
        (refused(400, "3000 tokens", "context_length_exceeded"), "文脈長"),
        (refused(401, "no key"), "鍵"),
        (refused(413, "too large"), "大きさ"),
        (refused(429, "64 wait", **{"Retry-After": "1"}), "混み合って"),
        (refused(503, "stopping"), "停止"),
        (refused(504, "300 s"), "制限時間"),
        ((500, {}, "no object"), "問題が起きました"),
        (iter(()), "切れました"),
    ],
)
def test_every_error_is_said_in_words_and_the_page_goes_on(browser: Any, said: Any, words: str) -> None:
    answers = iter([said, {"entities": [], "object": "extraction"}])
    with PageServer({"extract": lambda body: next(answers)}) as toy:
        visit = Visit(browser, toy.url)
        visit.extract("発熱あり。")
        box = visit.page.locator("#extract-form .problem")
        assert words in box.text_content()
        if isinstance(said, tuple) and isinstance(said[2], dict):
            assert said[2]["error"]["message"] in box.text_content()
        assert visit.page.input_value("#extract-text") == "発熱あり。"  # nothing is lost
        visit.page.click("[data-language=en]")
        assert not re.search("[ぁ-ん]", box.text_content())
        visit.ask("extract")
        assert box.is_hidden() and visit.page.is_visible("#extract-none")
        visit.close()


def test_a_server_that_has_gone_is_said_to_have(browser: Any) -> None:
    with PageServer({}) as toy:
        visit = Visit(browser, toy.url)
    visit.extract("発熱あり。")
    assert "rinsho serve" in visit.page.text_content("#extract-form .problem")
    visit.page.click("#tab-chat")
    visit.say("発熱は？")
    assert "rinsho serve" in visit.page.text_content(".turn .problem")
    visit.close()


def test_a_stream_that_breaks_off_can_be_asked_again(browser: Any) -> None:
    def broken(how: str) -> Iterator[dict[str, Any]]:
        events = spoken(["肺炎", "です"])
        yield next(events)
        yield next(events)
        if how == "error":
            yield {"error": {"message": "the model stopped", "type": "server_error", "code": None}}
        if how == "socket":
            raise OSError

    ways = iter([broken("error"), broken("socket"), spoken(["咳です"])])
    with PageServer({"chat/completions": lambda body: next(ways)}) as toy:
        visit = Visit(browser, toy.url)
        page = visit.page
        page.click("#tab-chat")
        visit.say("発熱は？")
        assert visit.texts(".model .said") == ["肺炎"] and "the model stopped" in page.text_content(".turn .problem")
        for _ in range(2):
            page.click(".turn .problem button")
            page.wait_for_selector("#chat-log:not([aria-busy])", state="attached")
        assert visit.texts(".said") == ["発熱は？", "咳です"]
        assert [len(body["messages"]) for _, body in toy.asked] == [1, 1, 1]  # half an answer is no part of the talk
        visit.close()


def test_a_base_model_is_not_talked_to(browser: Any) -> None:
    with PageServer({}, {"chat": False}) as toy:
        visit = Visit(browser, toy.url)
        visit.page.click("#tab-chat")
        assert visit.page.is_disabled("#chat-text") and "基盤モデル" in visit.page.text_content("#chat-form .problem")
        visit.close()


def test_extraction_can_be_stopped(browser: Any) -> None:
    def slow(body: dict[str, Any]) -> Any:
        return spoken(["x"] * 1000, pause=0.05)  # a body that does not end for a long while

    with PageServer({"extract": slow}) as toy:
        visit = Visit(browser, toy.url)
        page = visit.page
        page.fill("#extract-text", "発熱あり。")
        page.click("#extract-form [type=submit]")
        assert page.text_content("#extract-form [type=submit]") == "中止"
        page.wait_for_selector(".working:has-text('1')")
        visit.ask("extract")
        assert toy.left.wait(5)
        assert page.text_content("#extract-form [type=submit]") == "抽出する"
        assert page.locator("#extract-form .problem").is_hidden() and visit.errors == []
        visit.close()


# ------------------------------------------------------------------ the files by themselves


def test_nothing_of_the_page_comes_from_elsewhere_or_stands_inline() -> None:
    """No address of another host, no inline script, style or handler, nothing that reads text as markup."""
    for path in sorted(PAGE.iterdir()):
        text = path.read_text(encoding="utf-8").replace('xmlns="http://www.w3.org/2000/svg"', "")
        assert not re.search(r"https?:|//[a-z]|@import|url\(", text.replace("// ", "")), path.name
        if path.suffix == ".html":
            assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text)
        if path.suffix == ".js":
            assert not re.search(
                r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\b|new Function|DOMParser|setAttribute\(\"style",
                text,
            ), path.name


def test_both_languages_say_the_same_and_every_key_is_there(browser: Any) -> None:
    with PageServer({}) as toy:
        visit = Visit(browser, toy.url)
        told = visit.page.evaluate("import('/static/sentences.js').then((module) => module.SENTENCES)")
        visit.close()
    japanese, english = told["ja"], told["en"]
    assert list(japanese) == list(english)
    for key, sentence in japanese.items():
        assert sorted(re.findall(r"\{\w+\}", sentence)) == sorted(re.findall(r"\{\w+\}", english[key])), key
        assert sentence and english[key]
    page = (PAGE / "index.html").read_text(encoding="utf-8")
    code = "".join(path.read_text(encoding="utf-8") for path in PAGE.glob("*.js") if path.name != "sentences.js")
    shown = set(re.findall(r'data-t(?:-\w+)?="([^"]+)"', page))
    raised = {f"problem.{kind}" for kind in re.findall(r'Problem\("(\w+)"', code)}
    assert (shown | raised) - set(japanese) == set()
    spoken_of = {key for key in japanese if f'"{key}"' in code or key.split(".")[0] in ("problem", "kind", "tag")}
    assert set(japanese) - shown - spoken_of == set()
