"""What the weights of a model folder have learned from: sources with their licences, kept in `rinsho.json`.

The entry `data` is a list with a row a stage, the first stage first: `{"stage": …, "sources": […]}`. A source has
`source`, `documents`, `tokens`, `licenses` (licence -> documents, "" where none is told), `synthetic` (language model
-> documents that say it wrote them, "" where they name none) and `synthetic_tokens` of these, pre-training also
`share`. `licenses` and `synthetic` are None, or missing, where they were not recorded.
`sources` is None where a stage is known to have learned and nobody recorded from what; such a row may have the
`license` that the folder's own card names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from rinsho.model_folder import read_manifest
from rinsho.recipe import read_yaml

CARD = "README.md"
LISTED_LICENSES = 30
FORBIDS_TRAINING = "forbids training other models"
_FRONT = re.compile(r"\A---\n(.*?)\n---\s*\n", re.DOTALL)
# Written apart or run together with other terms: CC BY-NC-SA 4.0, cc-by-nc-4.0, CC_BY_ND.
_TERMS = {
    "non-commercial": re.compile(
        r"(?<![a-z])nc(?![a-z])|non[-_ ]?commercial|非営利|非商用|商用(?:利用)?(?:不可|禁止)",
        re.IGNORECASE,
    ),
    "research only": re.compile(
        r"research[-_ ](?:(?:use|purposes?)[-_ ])?only|(?:for|only)[-_ ]research|研究(?:・教育)?(?:目的|用途?|利用)",
        re.IGNORECASE,
    ),
    "no derivatives": re.compile(r"(?<![a-z])nd(?![a-z])|no[-_ ]?deriv|改変(?:不可|禁止)", re.IGNORECASE),
    "share alike": re.compile(r"(?<![a-z])sa(?![a-z])|share[-_ ]?alike|継承", re.IGNORECASE),
    # Llama's licence allows it from 3.1 on, under conditions
    FORBIDS_TRAINING: re.compile(
        r"llama[-_ ]?[23](?:\.0)?(?!\.?\d)|no[-_ ](?:(?:ai|model)[-_ ])?training"
        r"|学習(?:への)?(?:利用|使用)?(?:は|を)?(?:不可|禁止)",
        re.IGNORECASE,
    ),
}
# Licences whose name says all of their terms, as `is_known` writes them: cc-by-nc-sa-4.0, apache-license-version-2.0.
_FAMILY = re.compile(
    r"""(?:
        (?:cc|creative-commons)-(?:by|attribution)(?:-(?:nc|nd|sa))* | cc-?(?:0|zero)
        | (?:クリエイティブ・?コモンズ-?)?表示(?:-(?:非営利|改変禁止|継承))*
        | public-domain | パブリックドメイン | pddl | pdl | odc-by | unlicense
        | mit(?:-0)? | isc | apache | bsd(?:-[0-4]-clause)? | 0bsd | [0-4]-clause-bsd
        | invented  # what `rinsho samples` makes
    )
    (?:-(?:licen[sc]e|international|unported|universal|deed|国際|非移植) | -?(?:v|version-)?[0-9](?:[.][0-9])?)*""",
    re.IGNORECASE | re.VERBOSE,
)


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
    """Which terms a licence's name tells of: non-commercial, research only, no derivatives, share alike, no training.

    >>> terms_of("CC BY-NC-SA 4.0"), terms_of("cc-by-4.0"), terms_of("Apache-2.0")
    (('non-commercial', 'share alike'), (), ())
    """
    return tuple(term for term, pattern in _TERMS.items() if pattern.search(license_))


def is_known(license_: str) -> bool:
    """Whether a licence's name says all of its terms: Creative Commons, MIT, Apache, BSD, the public domain and such.

    Several in one note are divided by semicolons; a name with anything else beside it is not known.

    >>> is_known("CC BY-NC-SA 4.0"), is_known("Apache-2.0; MIT License"), is_known("MIT (no training)"), is_known("")
    (True, True, False, False)
    """
    return all(_FAMILY.fullmatch(re.sub(r"[-_,\s]+", "-", part.strip())) for part in license_.split(";"))


def added(tables: Iterable[Mapping[str, int] | None]) -> dict[str, int] | None:
    """Licences, or language models, of several sources in one table; None where none of them has any recorded."""
    total: dict[str, int] = {}
    known = [each for each in tables if each is not None]
    for each in known:
        for name, count in each.items():
            total[name] = total.get(name, 0) + count
    return total if known else None


def shortened(rows: Sequence[Mapping[str, Any]], most: int) -> list[dict[str, Any]]:
    """The first rows with their licences in order; the others are one row with the sums, in which no term is lost."""
    kept = [_in_order(row, row["licenses"], row.get("synthetic")) for row in rows[:most]]
    rest = rows[most:]
    if rest:
        sums: dict[str, Any] = {key: sum(row[key] for row in rest) for key in ("documents", "tokens")}
        sums |= {"share": round(sum(row["share"] for row in rest), 4)} if "share" in rest[0] else {}
        # a source of which nothing is recorded counts as one that tells no licence
        whole = added(row["licenses"] or {"": row["documents"]} for row in rest)
        sums["synthetic_tokens"] = sum(row.get("synthetic_tokens", 0) for row in rest)
        others = {"source": f"({len(rest)} others)", **sums}
        kept.append(_in_order(others, whole, added(row.get("synthetic") for row in rest)))
    return kept


def _in_order(
    row: Mapping[str, Any], licenses: Mapping[str, int] | None, synthetic: Mapping[str, int] | None
) -> dict[str, Any]:
    """The row with its licences, those with terms first, then those to be read, and its language models."""
    return {
        **row,
        "licenses": _ranked(licenses, lambda name: (not terms_of(name), is_known(name))),
        "synthetic": _ranked(synthetic),
    }


def _ranked(
    table: Mapping[str, int] | None, rank: Callable[[str], tuple[bool, ...]] = lambda _: ()
) -> dict[str, int] | None:
    """By rank, then by documents; what is beyond `LISTED_LICENSES` is one row."""
    if table is None:
        return None
    ranked = sorted(table.items(), key=lambda row: (rank(row[0]), -row[1], row[0]))
    shown, rest = ranked[:LISTED_LICENSES], ranked[LISTED_LICENSES:]
    return dict(shown) | ({f"({len(rest)} others)": sum(count for _, count in rest)} if rest else {})
