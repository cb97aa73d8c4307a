"""The map as a page in a real browser: looking, moving, searching, without any request to the outside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rinsho.analyse.map_figure import Map, write_page
from rinsho.analyse.token_kinds import Kinds
from serve.browsing import PHONE, chromium

pytestmark = [pytest.mark.slow, pytest.mark.enable_socket]
HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of 33,000 tokens."""
    folder, count = tmp_path_factory.mktemp("map"), 33_000
    tokens = [f"語{number}" for number in range(count)]
    tokens[:6] = ["肺炎", "間質性肺炎", "肺", HOSTILE, "ＣＴ", "を"]
    kinds = Kinds(("special", "function word", "disease", "other"), np.arange(count, dtype=np.int16) % 4)
    plane = np.random.default_rng(1).normal(size=(count, 2)).astype("f4")
    plane[:2] = [[-3.9, 3.9], [4, -4]]
    return folder / write_page(
        Map("map_tsne", "t-SNE", "m", np.arange(count), tokens, kinds, plane, plane[:, 0]), folder
    )  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture
def page(browser: Any, file: Path, request: pytest.FixtureRequest) -> Iterator[Any]:
    context = browser.new_context(**getattr(request, "param", {"viewport": {"width": 1200, "height": 800}}))
    page = context.new_page()
    told: list[str] = []
    page.on("request", lambda asked: told.append(asked.url) if asked.url != file.as_uri() else None)
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("console", lambda line: told.append(line.text) if line.type == "error" else None)
    page.goto(file.as_uri())
    page.wait_for_function("wide > 1 && !waiting")
    yield page
    assert told == []
    context.close()


def place(page: Any, point: int) -> tuple[float, float]:
    return tuple(page.evaluate(f"(() => {{ const b = canvas.getBoundingClientRect(); return [b.left + px({point}), b.top + py({point})] }})()"))  # fmt: skip


def test_hovering_shows_token_kind_and_id(page: Any) -> None:
    page.mouse.move(*place(page, 0))
    page.wait_for_selector("#tip:not([hidden])")
    assert page.inner_text("#tip") == "肺炎\nspecial, id 0"
    page.mouse.move(5, 790)
    assert page.is_hidden("#tip")


def test_a_search_finds_parts_of_words_and_goes_through_them(page: Any) -> None:
    page.keyboard.press("/")
    page.keyboard.type("肺")
    assert page.inner_text("#said") == "3 found"
    seen = []
    for key in ("Enter", "Enter", "Enter", "Enter", "Shift+Enter"):
        page.keyboard.press(key)
        seen.append(page.inner_text("#said"))
    assert seen == [
        "1 of 3: 肺, disease, id 2", "2 of 3: 肺炎, special, id 0", "3 of 3: 間質性肺炎, function word, id 1",
        "1 of 3: 肺, disease, id 2", "3 of 3: 間質性肺炎, function word, id 1",
    ]  # fmt: skip
    page.fill("#query", "ct")  # full width and capitals are the same
    assert page.inner_text("#said") == "1 found"
    page.fill("#query", "onerror")
    page.click("#on")
    assert HOSTILE.replace(" ", "␣") in page.inner_text("#said")
    page.fill("#query", "この語はない")
    assert page.inner_text("#said") == "none found"


def test_enter_that_ends_the_input_of_characters_is_no_search(page: Any) -> None:
    page.fill("#query", "肺")
    page.evaluate("box('query').dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter', isComposing: true}))")
    assert page.inner_text("#said") == "3 found"


def test_a_match_that_is_out_of_sight_comes_into_view(page: Any) -> None:
    page.focus("#map")
    for _ in range(8):
        page.keyboard.press("+")
    left, top, width, height = page.evaluate("[px(1), py(1), wide, high]")
    assert not (0 < left < width and 0 < top < height)
    page.fill("#query", "間質性")
    page.keyboard.press("Enter")
    left, top = page.evaluate("[px(1), py(1)]")
    assert (left, top) == pytest.approx((width / 2, height / 2), abs=1)


def test_kinds_are_switched_off_for_eye_mouse_and_search(page: Any) -> None:
    page.uncheck("#legend label:has-text('special') input")
    page.mouse.move(*place(page, 0))
    assert page.is_hidden("#tip") or "肺炎" not in page.inner_text("#tip")
    page.fill("#query", "肺炎")
    assert page.inner_text("#said") == "1 found"


def test_wheel_drag_and_keys_move_and_zero_shows_all(page: Any) -> None:
    start = place(page, 2)
    page.mouse.move(400, 400)
    before = page.evaluate("[(400 - canvas.getBoundingClientRect().left - left) / zoom, zoom]")
    page.mouse.wheel(0, -500)
    page.wait_for_function(f"zoom > {before[1]} * 1.5")
    after = page.evaluate("(400 - canvas.getBoundingClientRect().left - left) / zoom")
    assert after == pytest.approx(before[0], abs=1)  # what lies under the pointer stays there
    here = place(page, 2)
    page.mouse.down()
    page.mouse.move(460, 370)
    page.mouse.up()
    assert place(page, 2) == pytest.approx((here[0] + 60, here[1] - 30), abs=1)
    page.focus("#map")
    page.keyboard.press("ArrowLeft")
    assert place(page, 2)[0] == pytest.approx(here[0] + 110, abs=1)
    page.keyboard.press("0")
    assert place(page, 2) == pytest.approx(start, abs=1)


@pytest.mark.parametrize("page", [{"viewport": PHONE, "has_touch": True}], indirect=True)
def test_on_a_phone_a_tap_tells_and_nothing_is_wider_than_the_screen(page: Any) -> None:
    page.touchscreen.tap(*place(page, 0))
    page.wait_for_selector("#tip:not([hidden])")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_two_fingers_zoom(page: Any) -> None:
    page.evaluate(
        """() => {
          canvas.setPointerCapture = () => {};
          const send = (type, id, x) => canvas.dispatchEvent(new PointerEvent(type, {pointerId: id, pointerType: "touch", clientX: x, clientY: 400}));
          window.first = zoom;
          send("pointerdown", 1, 300); send("pointerdown", 2, 400);
          send("pointermove", 1, 250); send("pointermove", 2, 450);
          send("pointerup", 1, 250); send("pointerup", 2, 450);
        }"""
    )
    assert page.evaluate("zoom / first") == pytest.approx(2, rel=0.01)


def test_33_000_points_are_drawn_in_a_fraction_of_a_second(page: Any) -> None:
    took = page.evaluate(
        "(() => { const t = performance.now(); for (let i = 0; i < 10; i++) draw(); pen.getImageData(0, 0, 1, 1); return (performance.now() - t) / 10 })()"
    )
    print(f"{took:.1f} ms a frame without an accelerator")
    assert took < 500


def test_dark_mode_has_its_own_colours(browser: Any, file: Path) -> None:
    drawn = {}
    for scheme in ("light", "dark"):
        context = browser.new_context(color_scheme=scheme, viewport={"width": 800, "height": 600})
        page = context.new_page()
        page.goto(file.as_uri())
        page.wait_for_function("wide > 1 && !waiting")
        drawn[scheme] = page.evaluate(
            "[getComputedStyle(document.body).backgroundColor, stamp(data.kinds[0], 4).full.join()]"
        )
        context.close()
    assert drawn["light"][0] != drawn["dark"][0] and drawn["light"][1] != drawn["dark"][1]
