"""The pages in docs/ say what the code does."""

import re
from pathlib import Path

import pytest

from rinsho.cli import STAGES

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md"), *ROOT.glob("*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_no_placeholder_was_left(page):
    assert not re.search(r"@@|TODO|TBD|XXX", page.read_text(encoding="utf-8"))


def test_the_corpus_page_has_every_setting_with_its_default():
    from rinsho.corpus import Recipe

    page = (ROOT / "docs/corpus.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| `(\w+)` \| (.+?) \|", page[page.index("## Settings") :], re.MULTILINE))
    assert set(Recipe.model_fields) <= set(table)
    for name, field in Recipe.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, bool | int | float | str):
            assert table[name] == f"`{default}`", name


def test_every_link_between_pages_leads_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([\w./-]+\.(?:md|yaml|py))\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_note_and_script_that_a_page_names_exists():
    for page in PAGES:
        for name in re.findall(r"`(?:benchmarks/)?([\w.-]+_2026-\d\d\.md)`", page.read_text(encoding="utf-8")):
            assert (ROOT / "benchmarks" / name).exists(), f"{page.name}: {name}"
    assert set(STAGES) >= {"corpus", "quality"}
