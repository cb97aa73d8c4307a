"""The licence line of a model: what was chosen for the weights, and the terms of the data that go with it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rinsho.learned_from import is_known, terms_of

AS_PUBLISHED = " (the data's published licence; the run recorded none)"  # behind a licence that was looked up
CARRIED = (
    "non-commercial",
    "research only",
    "no derivatives",
)  # without them a line would promise too much
NOT_CHOSEN = "not-chosen"
# Names that a Hugging Face card may have under `license`; every other one stands under `license_name`.
KNOWN = {
    "apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "isc", "unlicense", "cc0-1.0", "gpl-2.0", "gpl-3.0",
    "lgpl-3.0", "agpl-3.0", "mpl-2.0", "artistic-2.0", "odc-by", "odbl", "openrail", "llama2", "llama3", "llama3.1",
    "llama3.2", "llama3.3", "gemma",
    *(f"cc-by{term}-{version}" for term in ("", "-sa", "-nc", "-nd", "-nc-sa", "-nc-nd") for version in ("3.0", "4.0")),
}  # fmt: skip


@dataclass(frozen=True)
class License:
    """The licence of the weights, as a card tells it.

    Attributes:
        front: `license` and `license_name` of the card's front matter.
        chosen: what the user chose; None for nothing.
        terms: of the data: term -> the sources or licences that have it, in order.
        carried: terms of the data that the chosen licence does not have.
        unknown: sources, or parts of them, whose licence is not recorded or not told.
        not_judged: licences whose names do not say all of their terms.
    """

    front: dict[str, str]
    chosen: str | None
    terms: dict[str, list[str]]
    carried: tuple[str, ...]
    unknown: list[str]
    not_judged: list[str]


def license_of(chosen: str | None, data: Sequence[Mapping[str, Any]]) -> License:
    """The licence line for weights that have learned from these sources (rows of `rinsho.learned_from`).

    Terms against commercial use, for research only and against derivatives stand in the line whatever was chosen.
    That is a note for those who decide, no legal judgement.
    """
    terms: dict[str, list[str]] = {}
    unknown: list[str] = []
    not_judged: list[str] = []

    def judge(name: str, place: str) -> None:
        for term in terms_of(name):
            terms.setdefault(term, []).append(place)
        if not is_known(name.removesuffix(AS_PUBLISHED)) and name not in not_judged:
            not_judged.append(name)

    for stage in data:
        if stage.get("license"):
            judge(stage["license"], f"the base model ({stage['license']})")
        if stage.get("sources") is None:
            unknown.append(f"everything of the stage {stage.get('stage', 'unknown')}")
        for row in stage.get("sources") or ():
            licenses = row.get("licenses")
            if licenses is None:
                unknown.append(row["source"] or "(no name)")
                continue
            if licenses.get(""):
                unknown.append(f"{row['source'] or '(no name)'} ({licenses['']:,} of {row['documents']:,} documents)")
            for name in filter(None, licenses):
                judge(name, f"{row['source'] or '(no name)'} ({name})")
    chosen = (chosen or "").strip() or None
    carried = tuple(term for term in CARRIED if term in terms and term not in terms_of(chosen or ""))
    return License(_front(chosen, carried), chosen, terms, carried, unknown, not_judged)


def _front(chosen: str | None, carried: Sequence[str]) -> dict[str, str]:
    name = _slug(chosen) if chosen else NOT_CHOSEN
    if name in KNOWN and not carried:
        return {"license": name}
    if carried:
        name += f"-with-{'-and-'.join(_slug(term) for term in carried)}-data"
    return {"license": "other", "license_name": name}


def _slug(text: str) -> str:
    """The way Hugging Face writes licences.

    >>> _slug("CC BY-NC 4.0")
    'cc-by-nc-4.0'
    """
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")
