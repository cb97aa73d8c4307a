"""The licence line: terms of the data go with the weights, whatever was chosen."""

import pytest

from rinsho.export.licensing import AS_PUBLISHED, license_of


def data(*licenses):
    rows = [{"source": f"s{n}", "documents": 4, "tokens": 9, "licenses": each} for n, each in enumerate(licenses)]
    return [{"stage": "pretrain", "sources": rows}]


@pytest.mark.parametrize(
    ("chosen", "licenses", "front"),
    [
        ("apache-2.0", [{"MIT": 4}], {"license": "apache-2.0"}),
        ("Apache 2.0", [{"MIT": 4}], {"license": "apache-2.0"}),
        ("apache-2.0", [{"CC BY-NC 4.0": 4}], {"license": "other", "license_name": "apache-2.0-with-non-commercial-data"}),
        ("cc-by-nc-sa-4.0", [{"CC BY-NC 4.0": 4}], {"license": "cc-by-nc-sa-4.0"}),
        (
            "cc-by-nc-4.0", [{"CC-BY-NC-ND-4.0": 4}],
            {"license": "other", "license_name": "cc-by-nc-4.0-with-no-derivatives-data"},
        ),
        (None, [{"MIT": 4}], {"license": "other", "license_name": "not-chosen"}),
        (
            " ", [{"MIT": 4}, {"CC-BY-NC-ND-4.0": 1, "MIT": 3}],
            {"license": "other", "license_name": "not-chosen-with-non-commercial-and-no-derivatives-data"},
        ),
        ("mit", [{"研究目的限定": 4}], {"license": "other", "license_name": "mit-with-research-only-data"}),
        ("Our hospital's terms", [{"MIT": 4}], {"license": "other", "license_name": "our-hospital-s-terms"}),
    ],
)  # fmt: skip
def test_the_line_of_the_front_matter(chosen, licenses, front):
    assert license_of(chosen, data(*licenses)).front == front


def test_what_is_not_known_is_named():
    found = license_of("mit", [*data(None, {"": 1, "MIT": 3}), {"stage": "finetune", "sources": None}])
    assert found.unknown == ["s0", "s1 (1 of 4 documents)", "everything of the stage finetune"]
    assert found.carried == ()


def test_the_base_models_own_licence_counts():
    found = license_of("mit", [{"stage": "unknown", "sources": None, "license": "cc-by-nc-4.0"}])
    assert found.carried == ("non-commercial",)


def test_licences_that_cannot_be_read_are_named():
    published = {f"CC-BY-4.0{AS_PUBLISHED}": 4}
    assert license_of("mit", data({"MIT": 4}, {"CC BY-NC 4.0": 4}, published)).not_judged == []
    base = {"stage": "unknown", "sources": None, "license": "gemma"}
    found = license_of("mit", [base, *data({"MIT": 3, "": 1}, {"Llama 2 Community License": 4, "Toy Licence": 1})])
    assert found.not_judged == ["gemma", "Llama 2 Community License", "Toy Licence"]
    assert found.terms == {"forbids training other models": ["s1 (Llama 2 Community License)"]}
