"""The page on the real server with a small real model, in a real Chromium: what both say to each other fits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from rinsho.chat import TEMPLATE
from rinsho.generate.opening import open_model
from rinsho.instructions import read_instructions
from rinsho.prompting import read_template
from serve.browsing import Visit, chromium
from serve.toy_server import Inside, scripted, until
from toy_models import toy_folder

pytestmark = [pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1"])]

REPORT = "𠮷田様、急性心筋梗塞の疑い。\n発熱なし、咳嗽あり🩺。ＣＲＰ　１２．８ｍｇ/dL、血圧 142/88mmHg。"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Inside]:
    folder = toy_folder(tmp_path_factory.mktemp("page") / "toy", window=1024)
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    with Inside(open_model(folder, slots=2, form="float32")) as inside:
        yield inside


@pytest.fixture
def visit(browser: Any, server: Inside) -> Iterator[Visit]:
    opened = Visit(browser, f"{server.url}/")
    yield opened
    assert opened.errors == [] and opened.dialogs == []
    assert {url.split("/")[2] for url in opened.requests if not url.startswith("blob:")} == {server.url.split("/")[2]}
    opened.close()


def test_entities_of_a_real_model_stand_where_they_are_marked(visit: Visit) -> None:
    page = visit.page
    assert page.text_content("#about").startswith("toy · float32 · transformers")
    visit.extract(REPORT)
    assert page.text_content("#extract-report") == REPORT
    rows = visit.rows()
    assert all(text and text in REPORT for _, text, _, _ in rows)
    assert [row[1] for row in rows if row[0] == "value" and row[2] == "規則"] == [
        "ＣＲＰ　１２．８ｍｇ/dL",
        "血圧 142/88mmHg",
    ]
    page.fill("#add-text", "咳嗽")
    page.press("#add-text", "Enter")
    assert sum(row[1:3] == ("咳嗽", "手作業") for row in visit.rows()) == 1


def test_corrected_rows_are_rows_for_finetune(visit: Visit, tmp_path: Path) -> None:
    page = visit.page
    visit.extract(REPORT)
    while page.locator("#extract-list li:not(.k-value) .remove").count():
        page.locator("#extract-list li:not(.k-value) .remove").first.click()
    page.fill("#add-text", "急性心筋梗塞")
    page.select_option("#add-kind", "disease")
    page.press("#add-text", "Enter")
    path = tmp_path / "rows.jsonl"
    path.write_bytes(visit.download("#save-rows"))
    kinds = page.locator("#extract-kinds input").count()
    assert (
        len(read_instructions(path, read_template("none"))) == kinds - 1
    )  # values are found by rule: nothing to learn
    first = json.loads(path.read_text(encoding="utf-8").splitlines()[0])["messages"]
    assert "急性心筋梗塞" in first[-1]["content"] and REPORT in first[-2]["content"]


def test_a_real_answer_streams_and_stopping_frees_the_model(visit: Visit, server: Inside) -> None:
    page = visit.page
    page.click("#tab-chat")
    page.click("summary")
    page.fill("#chat-temperature", "1")
    visit.say("発熱は？")
    assert visit.texts(".model .said")[0] and "トークン" in page.text_content(".meta")
    page.click("#chat-new")  # behind a long drawn answer the next turn might not fit the window
    page.fill("#chat-text", "もっと")
    page.press("#chat-text", "Enter")
    page.keyboard.press("Escape")
    page.wait_for_selector("#chat-log:not([aria-busy])", state="attached")
    assert until(lambda: "rinsho_running_jobs 0.0" in httpx.get(f"{server.url}/metrics", trust_env=False).text)


def test_options_and_tokens_of_a_real_model(visit: Visit) -> None:
    page = visit.page
    page.click("#tab-classify")
    page.click("#classify-example")
    visit.ask("classify")
    assert sorted(visit.texts("#classify-bars .option")) == ["あり", "なし", "わからない"]
    shares = page.evaluate("[...document.querySelectorAll('.fill')].map((fill) => parseFloat(fill.style.width))")
    assert sum(shares) == pytest.approx(100, abs=0.1) and shares == sorted(shares, reverse=True)
    page.click("#tab-tokens")
    page.fill("#tokens-text", "𠮷急性心筋梗塞")
    visit.ask("tokens")
    assert visit.texts(".piece")[-2:] == ["急性", "心筋梗塞"]


def test_errors_of_the_real_server_are_said_in_words(visit: Visit) -> None:
    page = visit.page
    page.click("#tab-chat")
    visit.say("発熱" * 2000)
    assert "文脈長" in page.text_content(".turn .problem")
    page.click("#chat-new")
    visit.say("発熱" * 400_000)
    assert "大きさ" in page.text_content(".turn .problem")
    visit.errors.clear()  # the browser's own lines about 400 and 413


def test_the_page_opens_with_the_key_only(browser: Any) -> None:
    key = "kokoro-no-kagi-0815"
    with Inside(scripted(), key=key) as server:
        for path in ("/", "/static/app.js", "/v1/about"):
            assert httpx.get(f"{server.url}{path}", trust_env=False).status_code == 401
        visit = Visit(browser, f"{server.url}/", http_credentials={"username": "any", "password": key})
        visit.page.click("#tab-chat")
        visit.say("発熱は？")
        assert visit.texts(".model .said") == ["肺癌発熱咳嗽急性"]
        visit.close()


def test_files_of_the_page_are_all_served_under_the_strict_policy(server: Inside) -> None:
    from serve.page_server import PAGE, POLICY

    for path in PAGE.iterdir():
        answer = httpx.get(f"{server.url}/static/{path.name}", trust_env=False)
        assert answer.status_code == 200 and answer.content == path.read_bytes()
        assert "charset=utf-8" in answer.headers["content-type"] or path.suffix == ".svg"
        assert set(answer.headers["content-security-policy"].split("; ")) <= set(POLICY.split("; "))
        assert "unsafe" not in answer.headers["content-security-policy"]
