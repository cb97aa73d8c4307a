"""The page for everybody: two languages, by keyboard alone, by ear, on a phone, in the light and in the dark."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from serve.browsing import PHONE, Visit, chromium
from serve.page_answers import ANSWERS, REPORT
from serve.page_server import PageServer

pytestmark = [pytest.mark.slow, pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1"])]


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


def test_language_is_switched_remembered_and_the_only_thing_kept(browser: Any, toy: PageServer) -> None:
    visit = Visit(browser, toy.url)
    page = visit.page
    assert page.get_attribute("html", "lang") == "ja" and page.text_content("#tab-extract") == "抽出"
    visit.extract(REPORT)
    page.click("[data-language=en]")
    assert page.get_attribute("html", "lang") == "en" and page.text_content("#tab-extract") == "Extract"
    assert visit.texts("#extract-legend li")[0] == "Disease2?3" and visit.rows()[-1][2] == "rule"
    assert page.get_attribute("#extract-report mark", "data-tag") == "D"
    page.reload()
    page.wait_for_selector("#extract-kinds input")
    assert page.text_content("#tab-chat") == "Chat" and page.input_value("#extract-text") == ""
    assert page.evaluate("({...localStorage})") == {"rinsho.language": "en"}
    assert page.evaluate("sessionStorage.length") == 0 and page.evaluate("document.cookie") == ""
    assert page.evaluate("indexedDB.databases().then((all) => all.length)") == 0
    visit.close()
    other = Visit(browser, toy.url, "en")
    assert other.page.text_content("#tab-extract") == "Extract"
    other.close()


def test_no_field_hands_its_text_to_the_browsers_helpers(visit: Visit) -> None:
    """Spelling and writing aids may send what is typed away; autocompletion would keep it."""
    helped = """() => [...document.querySelectorAll("textarea, input[type=text]")].filter((field) => field.spellcheck
      || field.writingSuggestions === "true" || field.form.autocomplete !== "off").map((field) => field.id)"""
    assert visit.page.evaluate(helped) == []
    assert visit.page.evaluate("document.getElementById('extract-report').translate") is False


def test_everything_works_by_keyboard_alone(visit: Visit) -> None:
    page = visit.page
    page.focus("#tab-extract")
    for key, panel in (
        ("ArrowRight", "chat"),
        ("End", "tokens"),
        ("ArrowRight", "extract"),
        ("ArrowLeft", "tokens"),
        ("Home", "extract"),
    ):
        page.keyboard.press(key)
        assert page.evaluate("document.activeElement.id") == f"tab-{panel}"
        assert page.is_visible(f"#panel-{panel}") and page.locator("[role=tabpanel]:visible").count() == 1
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "extract-text"
    outline = "getComputedStyle(document.activeElement).outlineStyle"
    assert page.evaluate(outline) == "solid"
    page.keyboard.insert_text(REPORT)
    for _ in range(5):  # three kinds, the example, the button
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector("#extract-list li")
    assert page.evaluate("document.activeElement.id") == "extract-report"
    while "jump" not in (page.evaluate("document.activeElement.className") or ""):
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert page.text_content("mark.chosen") == "2型" and page.evaluate(outline) == "solid"
    page.keyboard.press("Delete")
    assert page.evaluate("document.activeElement.textContent") == "糖尿病"  # the next one
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # it is right
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+z")
    assert visit.rows()[2][1] == "2型糖尿病" and len(visit.rows()) == 7


def test_every_control_has_a_name_and_changes_are_announced(visit: Visit) -> None:
    page = visit.page
    visit.extract(REPORT)
    nameless = """() => [...document.querySelectorAll("button, input, select, textarea, [role=log], [role=tablist]")]
      .filter((one) => !one.hidden)
      .filter((one) => !(one.getAttribute("aria-label") || one.labels?.length || one.textContent.trim()))
      .map((one) => one.outerHTML)"""
    assert page.evaluate(nameless) == []
    assert page.locator("[role=status]").count() >= 3 and page.locator(".problem[role=alert]").count() == 5
    assert "7" in page.text_content("#extract-said[role=status]")
    tree = page.locator("#extract-list").aria_snapshot()
    assert "除く: 肺癌" in tree and "種類: 肺癌" in tree


@pytest.mark.parametrize("language", ["ja", "en"])
def test_a_phone_is_wide_enough_and_the_notice_always_in_view(browser: Any, toy: PageServer, language: str) -> None:
    visit = Visit(browser, toy.url, language, viewport=PHONE, has_touch=True)
    page = visit.page
    filled = {
        "extract": lambda: visit.extract(REPORT * 20 + "A" * 300),
        "chat": lambda: visit.say("あ" * 200 + "A" * 300),
        "classify": lambda: (page.click("#classify-example"), page.fill("#classify-options", "あ" * 90 + "\n" + "A" * 200), visit.ask("classify")),
        "tokens": lambda: (page.click("#tokens-example"), visit.ask("tokens")),
    }  # fmt: skip
    for name, fill in filled.items():
        page.click(f"#tab-{name}")
        for step in (lambda: None, fill):
            step()
            width = page.evaluate("document.documentElement.scrollWidth")
            assert width == PHONE["width"], (name, width)
            for place in ("0", "document.documentElement.scrollHeight"):
                page.evaluate(f"window.scrollTo(0, {place})")
                notice = page.locator("footer").bounding_box()
                assert notice["height"] > 20 and notice["y"] + notice["height"] == pytest.approx(PHONE["height"], abs=1)
        page.evaluate("window.scrollTo(0, 0)")
    visit.close()


def test_on_a_phone_the_text_stays_in_view_beside_the_list(browser: Any, toy: PageServer) -> None:
    visit = Visit(browser, toy.url, viewport=PHONE, has_touch=True)
    visit.extract("前置き。\n" * 40 + REPORT)
    jump = visit.page.locator("#extract-list .jump").nth(4)
    jump.scroll_into_view_if_needed()
    jump.tap()
    text, mark = (visit.page.locator(one).bounding_box() for one in ("#extract-report", "mark.chosen"))
    assert text["y"] >= 0 and text["y"] < mark["y"] < text["y"] + text["height"]
    page = visit.page
    page.evaluate("getSelection().selectAllChildren(document.querySelector('mark.chosen'))")
    page.wait_for_selector(".add.selecting")
    added = page.locator("#extract-add button").bounding_box()
    notice = page.locator("footer").bounding_box()
    assert added["y"] > text["y"] + text["height"] and added["y"] + added["height"] <= notice["y"]
    visit.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_are_legible_in_light_and_dark(browser: Any, toy: PageServer, scheme: str) -> None:
    """Contrast of at least 4.5 (WCAG 2, AA) of every text colour on every ground it stands on."""
    visit = Visit(browser, toy.url, color_scheme=scheme)
    colours = visit.page.evaluate(
        """() => { const style = getComputedStyle(document.documentElement); const probe = document.createElement("i");
          document.body.append(probe); const found = {};
          for (const name of ["ink","soft","accent","accent-ink","warm","paper","shade","warn","mine","disease","medicine","value","finding","own0","own1","own2"]) {
            probe.style.color = style.getPropertyValue("--" + name); found[name] = getComputedStyle(probe).color.match(/\\d+/g).map(Number); }
          return found; }"""
    )
    assert (sum(colours["paper"]) < 200) == (scheme == "dark")
    pairs = [(text, ground) for text in ("ink", "soft", "accent", "warm") for ground in ("paper", "shade")]
    pairs += [(kind, "paper") for kind in ("disease", "medicine", "value", "finding", "own0", "own1", "own2")]
    pairs += [
        ("warm", "warn"),
        ("ink", "warn"),
        ("soft", "warn"),
        ("ink", "mine"),
        ("soft", "mine"),
        ("accent-ink", "accent"),
    ]
    low = {pair: round(contrast(*(colours[name] for name in pair)), 2) for pair in pairs}
    assert {pair: value for pair, value in low.items() if value < 4.5} == {}
    visit.close()


def contrast(first: list[int], second: list[int]) -> float:
    def light(colour: list[int]) -> float:
        parts = [part / 255 for part in colour]
        red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((light(first), light(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)
