"""A real Chromium, headless and without a network of its own, for the tests of the page."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-dev-shm-usage",
]  # fmt: skip
NAMES = ("chromium", "chromium-browser", "google-chrome")
PHONE = {"width": 360, "height": 740}
DESK = {"width": 1280, "height": 800}


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; the test is skipped where there is none."""
    pytest.importorskip("playwright.sync_api", reason="the page's tests need the package playwright")
    from playwright.sync_api import sync_playwright

    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"the page's tests need a browser: none of {', '.join(NAMES)} is installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
        yield browser
        browser.close()


class Visit:
    """A visit to the page with what it did on the way: requests, errors, dialogs."""

    def __init__(self, browser: Any, url: str, language: str = "ja", **context: Any) -> None:
        settings = {"locale": {"ja": "ja-JP", "en": "en-US"}[language], "viewport": DESK, "reduced_motion": "reduce"}
        self.context = browser.new_context(**settings | context)
        self.context.set_default_timeout(8_000)
        self.page = self.context.new_page()
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.dialogs: list[str] = []
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda line: self.errors.append(line.text) if line.type == "error" else None)
        self.page.on("dialog", self._dismiss)
        self.page.goto(url)
        self.page.wait_for_selector("#extract-kinds input")

    def _dismiss(self, dialog: Any) -> None:
        self.dialogs.append(dialog.message)
        dialog.dismiss()

    def ask(self, form: str) -> None:
        """Sends a form and waits until the server has answered."""
        self.page.click(f"#{form}-form [type=submit]")
        self.page.wait_for_selector(f"#{form}-form:not([aria-busy])", state="attached")

    def extract(self, text: str) -> None:
        self.page.fill("#extract-text", text)
        self.ask("extract")

    def say(self, text: str) -> None:
        """Sends a chat turn and waits for the end of its answer."""
        self.page.fill("#chat-text", text)
        self.page.press("#chat-text", "Enter")
        self.page.wait_for_selector("#chat-log:not([aria-busy])", state="attached")

    def rows(self) -> list[tuple[str, str, str, bool]]:
        """The list of entities: kind, words, probability as shown, and whether it is marked unsure."""
        return [
            (row["kind"], row["text"], row["share"], row["unsure"])
            for row in self.page.evaluate(
                """[...document.querySelectorAll("#extract-list li")].map((li) => ({
                  kind: li.querySelector("select").value, text: li.querySelector(".jump").textContent,
                  share: li.querySelector(".share").textContent, unsure: !li.querySelector(".flag").hidden }))"""
            )
        ]

    def marks(self) -> list[tuple[str, bool]]:
        """The marked pieces of the text, in order, and whether each is unsure."""
        found = self.page.evaluate(
            """[...document.querySelectorAll("#extract-report mark")].map((m) => [m.textContent, m.classList.contains("unsure")])"""
        )
        return [(text, unsure) for text, unsure in found]

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements of this kind."""
        return list(self.page.locator(selector).all_text_contents())

    def download(self, selector: str) -> bytes:
        """The file that a button saves."""
        with self.page.expect_download() as saved:
            self.page.click(selector)
        with open(saved.value.path(), "rb") as file:  # noqa: PTH123
            return file.read()

    def close(self) -> None:
        self.context.close()
