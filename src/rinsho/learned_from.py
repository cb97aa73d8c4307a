"""What the weights of a model folder have learned from: sources with their licences, kept in `rinsho.json`.

The entry `data` is a list with a row a stage, the first stage first: `{"stage": …, "sources": […]}`. A source has
`source`, `documents`, `tokens`, `licenses` (licence -> documents, "" where none is told), pre-training also `share`.
`sources` is None where a stage is known to have learned and nobody recorded from what; such a row may have the
`license` that the folder's own card names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rinsho.model_folder import read_manifest
from rinsho.recipe import read_yaml

CARD = "README.md"
LISTED_LICENSES = 30
_FRONT = re.compile(r"\A---\n(.*?)\n---\s*\n", re.DOTALL)
# Written apart or run together with other terms: CC BY-NC-SA 4.0, cc-by-nc-4.0, CC_BY_ND.
_TERMS = {
    "non-commercial": re.compile(
        r"(?<![a-z])nc(?![a-z])|non[-_ ]?commercial|非営利|非商用|商用(?:利用)?(?:不可|禁止)|research[-_ ]only",
        re.IGNORECASE,
    ),
    "no derivatives": re.compile(r"(?<![a-z])nd(?![a-z])|no[-_ ]?deriv|改変(?:不可|禁止)", re.IGNORECASE),
    "share alike": re.compile(r"(?<![a-z])sa(?![a-z])|share[-_ ]?alike|継承", re.IGNORECASE),
}


def learned_from(folder: Path) -> list[dict[str, Any]]:
    """The rows of a model folder; of one that records none, a row that says so."""
    manifest = read_manifest(folder)
    if isinstance(manifest.get("data"), list):
        return list(manifest["data"])
    row: dict[str, Any] = {"stage": manifest.get("stage", "unknown"), "sources": None}
    named = license_of_card(folder)
    return [row | ({"license": named} if named else {})]


def license_of_card(folder: Path) -> str | None:
    """The licence in the front matter of a folder's model card, as Hugging Face's have it; None without one."""
    try:
        front = _FRONT.match((folder / CARD).read_text(encoding="utf-8", errors="replace"))
        said = read_yaml(front.group(1)) if front else None
    except (OSError, yaml.YAMLError):
        return None
    if not isinstance(said, dict):
        return None
    found = said.get("license_name") if said.get("license") == "other" else said.get("license")
    return str(found)[:100] if isinstance(found, str) else None


def terms_of(license_: str) -> tuple[str, ...]:
    """Which terms a licence's name tells of: non-commercial, no derivatives, share alike.

    >>> terms_of("CC BY-NC-SA 4.0"), terms_of("cc-by-4.0"), terms_of("Apache-2.0")
    (('non-commercial', 'share alike'), (), ())
    """
    return tuple(term for term, pattern in _TERMS.items() if pattern.search(license_))


def added(licenses: Iterable[Mapping[str, int] | None]) -> dict[str, int] | None:
    """Licences of several sources in one table; None where one of them has none recorded and no other has any."""
    total: dict[str, int] = {}
    known = [each for each in licenses if each is not None]
    for each in known:
        for name, count in each.items():
            total[name] = total.get(name, 0) + count
    return total if known else None


def shortened(rows: Sequence[Mapping[str, Any]], most: int) -> list[dict[str, Any]]:
    """The first rows with their licences in order; the others are one row with the sums, in which no term is lost."""
    kept = [{**row, "licenses": _ranked(row["licenses"])} for row in rows[:most]]
    rest = rows[most:]
    if rest:
        sums = {key: sum(row[key] for row in rest) for key in ("documents", "tokens")}
        sums |= {"share": round(sum(row["share"] for row in rest), 4)} if "share" in rest[0] else {}
        # a source of which nothing is recorded counts as one that tells no licence
        whole = added(row["licenses"] or {"": row["documents"]} for row in rest)
        kept.append({"source": f"({len(rest)} others)", **sums, "licenses": _ranked(whole)})
    return kept


def _ranked(licenses: Mapping[str, int] | None) -> dict[str, int] | None:
    """Those with terms first, then by documents; what is beyond `LISTED_LICENSES` is one row."""
    if licenses is None:
        return None
    ranked = sorted(licenses.items(), key=lambda row: (not terms_of(row[0]), -row[1], row[0]))
    shown, rest = ranked[:LISTED_LICENSES], ranked[LISTED_LICENSES:]
    return dict(shown) | ({f"({len(rest)} others)": sum(count for _, count in rest)} if rest else {})
