"""What a model learned from, row by row: no term may get lost when the list is shortened."""

import json

import pytest

from rinsho.learned_from import added, is_known, learned_from, license_of_card, shortened, terms_of

TRAINING = "forbids training other models"


@pytest.mark.parametrize(
    ("license_", "terms"),
    [
        ("CC BY-NC-SA 4.0", ("non-commercial", "share alike")),
        ("cc-by-nc-nd-4.0", ("non-commercial", "no derivatives")),
        ("CC_BY_ND", ("no derivatives",)),
        ("表示-非営利-継承", ("non-commercial", "share alike")),
        ("Non-Commercial research", ("non-commercial",)),
        ("商用利用不可", ("non-commercial",)),
        *(
            (name, ("research only",))
            for name in ("研究目的限定", "研究用", "research-only", "for research purposes only")
        ),
        *((name, (TRAINING,)) for name in ("Llama 2 Community License", "llama3", "Meta-Llama-3-8B", "LLAMA 3.0")),
        *((name, (TRAINING,)) for name in ("Toy Licence 1 (no training)", "AI学習への利用禁止")),
        *((name, ()) for name in ("llama3.1", "Llama 3.3 Community License", "Llama 32")),
        *((free, ()) for free in ("CC-BY-4.0", "Apache-2.0", "MIT", "NCSA", "public-domain", "PDL1.0", "and more", "")),
    ],
)
def test_terms_are_read_from_names(license_, terms):
    assert terms_of(license_) == terms


@pytest.mark.parametrize(
    ("known", "names"),
    [
        (True, "CC-BY-4.0 | cc-by-nc-sa-4.0 | CC BY 4.0 International | CC0-1.0 | MIT License | Apache-2.0 | Public Domain"),
        (True, "Apache License, Version 2.0 | BSD-3-Clause | 3-clause BSD | PDL1.0 | 表示-非営利-継承 | invented | MIT; CC BY 4.0"),
        (False, " | MIT (no training) | Toy Licence 1 | llama3.1 | gemma | 研究目的限定 | CC | CC BY 4.0; ours | MITRE | (3 others)"),
    ],
)  # fmt: skip
def test_only_families_whose_names_say_all_are_known(known, names):
    assert {name: is_known(name) for name in names.split(" | ")} == dict.fromkeys(names.split(" | "), known)


def test_the_sum_of_small_sources_keeps_every_term():
    rows = [
        {"source": f"s{n}", "documents": 2, "tokens": 10, "share": 0.1, "licenses": {f"free-{n}": 2}} for n in range(60)
    ]
    rows[50]["licenses"] = {"CC-BY-NC-4.0": 1, "MIT": 1}
    rows[51]["licenses"] = None
    rows[52] |= {"synthetic": {"some-70b": 1}, "synthetic_tokens": 7}
    rows[53] |= {"synthetic": {"some-70b": 1, "": 1}, "synthetic_tokens": 10}
    made = shortened(rows, 5)
    assert len(made) == 6
    last = made[-1]
    assert (last["source"], last["documents"], last["tokens"], last["share"]) == ("(55 others)", 110, 550, 5.5)
    assert next(iter(last["licenses"])) == "CC-BY-NC-4.0"
    assert sum(last["licenses"].values()) == 110
    assert len(last["licenses"]) == 31
    assert (last["synthetic"], last["synthetic_tokens"]) == ({"some-70b": 2, "": 1}, 17)
    assert made[0]["synthetic"] is None


def test_licences_that_must_be_read_are_not_lost_among_known_ones():
    licenses = {f"CC BY {n}.0": 9 for n in range(10)} | {f"MIT {n}.{m}": 9 for n in range(5) for m in range(9)}
    (row,) = shortened([{"source": "s", "licenses": {**licenses, "Toy Licence": 1, "CC BY-NC 4.0": 1}}], 5)
    assert list(row["licenses"])[:2] == ["CC BY-NC 4.0", "Toy Licence"]


def test_what_is_not_recorded_stays_so():
    assert added([None, None]) is None
    assert added([None, {"MIT": 1}, {"MIT": 2}]) == {"MIT": 3}


def test_a_folder_without_a_record_says_so_and_keeps_the_licence_of_its_card(tmp_path):
    assert learned_from(tmp_path) == [{"stage": "unknown", "sources": None}]
    (tmp_path / "README.md").write_text("---\nlicense: other\nlicense_name: llama3\n---\n# Base\n")
    (tmp_path / "rinsho.json").write_text(json.dumps({"stage": "pretrain"}))
    assert learned_from(tmp_path) == [{"stage": "pretrain", "sources": None, "license": "llama3"}]
    (tmp_path / "rinsho.json").write_text(json.dumps({"data": [{"stage": "pretrain", "sources": []}]}))
    assert learned_from(tmp_path) == [{"stage": "pretrain", "sources": []}]


@pytest.mark.parametrize(
    "card", ["# no front matter", "---\n[broken\n---\n", "---\njust text\n---\n", "---\nlicense: 3\n---\n"]
)
def test_cards_without_a_licence(card, tmp_path):
    (tmp_path / "README.md").write_text(card)
    assert license_of_card(tmp_path) is None
