"""The model card: what it says, what it leaves out, and that its code runs."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

sys.path.insert(0, str(Path(__file__).parent))
import card_parts as parts

from rinsho.export.card import text, write_card
from rinsho.export.cells import cell
from rinsho.export.provenance import read
from rinsho.learned_from import license_of_card


@pytest.fixture
def provenance(tmp_path):
    tuned = parts.tuned(tmp_path / "finetune", parts.base(tmp_path / "pretrain"))
    return read(tuned, None, [parts.evaluation(tmp_path / "evaluate", tuned)])


def front(card):
    return yaml.safe_load(card.split("---\n")[1])


def tables(card):
    """Every table as its rows of cells; all rows of a table have as many as its header."""
    found = []
    for block in re.findall(r"(?:^\|.*\|$\n?)+", card, re.MULTILINE):
        rows = [re.split(r"(?<!\\)\|", line.strip())[1:-1] for line in block.strip().splitlines()]
        assert len({len(row) for row in rows}) == 1, block
        assert set("".join(rows[1])) <= set(" -:"), block
        found.append([[each.strip() for each in row] for row in (rows[0], *rows[2:])])
    return found


def test_the_card_says_where_the_model_comes_from_and_how_good_it_is(provenance):
    card = text(provenance, parts.export("hf", license="mit"))
    assert front(card)["license_name"] == "mit-with-non-commercial-data"
    assert {"language": ["ja"], "library_name": "transformers"}.items() <= front(card).items()
    rows = {row[0]: row for table in tables(card) for row in table}
    assert rows["records"] == ["records", "10", "900", "90.0%", "CC-BY-NC-4.0"]
    assert rows["web"][-1] == "none named: 2, MIT: 3"
    assert rows["model.safetensors"][1:] == ["900", "98.76%", "2.5e-05", "0.001", "0.031"]
    assert "(40 texts, 53 prompts, 2,100 tokens)" in card
    by_length = {len(row): row for table in tables(card) for row in table if row[0] == "smdis"}
    score, leak = by_length[10], by_length[6]
    assert score[2:6] == ["100", "accuracy", "0.600", "[0.500, 0.690]"]
    assert score[6:9] == ["0.500", "0.920 (naive_bayes)", "**no**"]
    assert leak[2:] == ["7", "2", "1", "constrained: seen 0.900 (n 9), unseen 0.570 (n 91)"]
    for said in (
        "No medical device", "医療機器ではありません", "Not shown to be better than chance: smdis (constrained)",
        "No better than a trivial method (majority, n-grams, copying a word list): smdis", "web (2 of 5 documents)",
        "1.75 characters a token", "by document, test part: published", "smdis: few rows", "| held-out loss | 4.2500",
        'Terms "non-commercial": records (CC-BY-NC-4.0)',
    ):  # fmt: skip
        assert said in card, said


REASSURED = "None of the licences of the data names terms"


def card_of(folder, sources):
    base = parts.base(folder / "pretrain", data=[{"stage": "pretrain", "sources": sources}])
    return text(read(base, None, []), parts.export("hf"))


def test_the_card_says_what_language_models_wrote(tmp_path):
    wiki = {"source": "wiki", "documents": 60, "tokens": 600, "share": 0.2, "licenses": {"CC0": 60}, "synthetic": {}}
    exercises = {"source": "exam", "documents": 40, "tokens": 400, "share": 0.8, "licenses": {"MIT": 40}}
    exercises |= {"synthetic": {"some-70b": 29, "some-8b": 7, "": 1}, "synthetic_tokens": 300}
    old = {"source": "old", "documents": 100, "tokens": 1000, "share": 0.0, "licenses": {"MIT": 100}}
    card = card_of(tmp_path, [wiki | {"synthetic_tokens": 0}, exercises, old])
    rows = {row[0]: row for table in tables(card) for row in table}
    written = [rows[name][4] for name in ("source", "wiki", "exam", "old")]
    assert written[1:] == ["-", "some-70b 29, some-8b 7, model not named 1", "not recorded"]
    assert "37 of 200 documents (18.5%), 15.0% of the tokens, 60.0% of what was drawn" in card
    assert "Language models wrote a part of the data: some-70b, some-8b, model not named." in card
    assert "may forbid training other models" in card


def test_the_card_does_not_say_that_no_model_wrote_what_did_not_record_it(tmp_path, provenance):
    rows = [row | {"licenses": {"MIT": 5}, "synthetic": {}, "synthetic_tokens": 0} for row in parts.SOURCES]
    none = "None of these documents says that a language model wrote it"
    card = card_of(tmp_path / "all", rows)
    assert f"{none}." in card and REASSURED in card
    assert f"{none}; of some sources it is not recorded." in card_of(tmp_path / "some", [rows[0], parts.SOURCES[1]])
    card = text(provenance, parts.export("hf"))
    assert "Whether language models wrote a part of it: not recorded." in card and none not in card
    assert "Language models wrote" not in card


def test_the_card_does_not_reassure_about_licences_that_it_cannot_read(tmp_path):
    rows = [parts.SOURCES[0] | {"licenses": {"MIT": 4, "Toy Licence 1": 6}}]
    card = card_of(tmp_path, rows)
    assert "- Terms not judged: Toy Licence 1; read them." in card and REASSURED not in card
    rows[0]["licenses"]["研究目的限定"] = 1
    card = card_of(tmp_path / "research", rows)
    assert 'Terms "research only": records (研究目的限定).' in card
    assert "- Further terms not judged: Toy Licence 1, 研究目的限定; read them." in card


def test_the_card_says_of_what_files_the_scores_are(provenance):
    before, very = "of the model before it was exported", "not of the files that were exported"
    card = text(provenance, parts.export("gguf"))
    assert before in card and very not in card
    (each,) = provenance.evaluations
    asked = replace(each, same_files=False, asked_as="`a.gguf` in llama.cpp")
    card = text(replace(provenance, evaluations=[asked]), parts.export("gguf"))
    assert before not in card and very in card and "scores of an export: `a.gguf` in llama.cpp" in card


def test_an_embedding_that_is_stored_twice_is_counted_once(provenance):
    card = text(provenance, parts.export("hf", numbers=20000))
    assert "| numbers stored | 20,000 (the embedding is stored twice) |" in card
    assert "zeros of this form" in text(provenance, parts.export("gguf", numbers=20000))
    assert "numbers stored" not in text(provenance, parts.export("hf", numbers=12345))


def test_what_is_not_recorded_is_said_to_be_so(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    facts = parts.export("hf", files=[], checks=None, parameters=None, max_position_embeddings=None, title=None)
    card = text(read(tmp_path, None, []), facts)
    for said in (
        "No evaluation was given", "Sources: not recorded", "The run folder is gone", "do not use this export",
        "everything of the stage unknown", "No licence was chosen", "| parameters | not recorded |",
    ):  # fmt: skip
        assert said in card, said
    assert "None" not in card and "{'" not in card
    tables(card)


@pytest.mark.parametrize(
    ("facts", "said", "unsaid"),
    [
        (parts.export("hf"), ["convert_hf_to_gguf.py, Ollama or LM Studio on this folder | **not safe**", 'model_impl="transformers"'], ["llama_cpp"]),
        (parts.export("llama"), ["SGLang's Llama | **not safe**", "its Llama reads `mlp_bias`"], ["llama_cpp", "model_impl="]),
        (
            parts.export("gguf"),
            ["**It does not give rinsho's ids.**", "LM Studio with texts | **not safe**", "| cleaned | 50.0% | 90.0% |"],
            ["ollama create", "vLLM"],
        ),
        (parts.export("gguf", exact_inside=True), ["ollama create", "gives rinsho's ids"], ["not exact", "vLLM"]),
        (parts.export("gguf", flavour="mimo2", exact_inside=True), ["older ones refuse", "export the flavour `llama`"], ["ollama create"]),
    ],
)  # fmt: skip
def test_each_form_has_its_own_warnings(provenance, facts, said, unsaid, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    write_card(out, provenance, facts)
    card = (out / "README.md").read_text(encoding="utf-8")
    for words in said:
        assert words in card, words
    for words in unsaid:
        assert words not in card, words
    assert (out / "Modelfile").is_file() == ("ollama create" in card)
    tables(card)
    for block in re.findall(r"```python\n(.*?)```", card, re.DOTALL):
        compile(block, "card", "exec")


def test_foreign_models_get_no_word_on_our_block_or_tokenizer(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "PreTrainedTokenizerFast"}))
    for to in ("hf", "llama", "gguf"):
        inside = {"model": "no_vocab", "exact": False}
        card = text(read(tmp_path, None, []), parts.export(to, architecture="llama", tokenizer_inside=inside))
        assert "squared ReLU" not in card and "MeCab" not in card and "SGLang" not in card
        assert ("holds no tokenizer" in card) == (to == "gguf")


def test_no_path_host_or_markup_of_the_data_gets_in(tmp_path):
    name = "<script>alert(1)</script>|`x`\n# 見出し"
    rows = [parts.SOURCES[0] | {"source": name, "licenses": {"[free](http://x)": 10}}]
    rows += [parts.SOURCES[1] | {"source": "/home/hanako/karte/"}]
    base = parts.base(tmp_path / "pretrain", data=[{"stage": "pretrain", "sources": rows}])
    card = text(read(base, None, []), parts.export("gguf", title="A\n---\ntitle: |", license="<b>: x"))
    assert str(tmp_path) not in card and "/home" not in card and "<script>" not in card and "<b>" not in card
    assert "\n# 見出し" not in card and "[free](" not in card
    assert front(card)["license"] == "other"
    assert card.count("\n# ") == 1
    tables(card)


def test_the_same_facts_give_the_same_bytes_and_a_card_that_can_be_read_again(provenance, tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_card(tmp_path / name, provenance, parts.export("hf", license="cc-by-nc-4.0"))
    assert (tmp_path / "a/README.md").read_bytes() == (tmp_path / "b/README.md").read_bytes()
    assert license_of_card(tmp_path / "a") == "cc-by-nc-4.0"  # what a tuning of it carries on


def test_cells_are_one_line_and_short():
    assert cell("a\nb|c") == "a b\\|c"
    assert len(cell("長" * 1000)) == 160


@pytest.mark.parametrize("chat", [True, False])
def test_the_code_in_a_card_runs(chat, tmp_path, monkeypatch, capsys):
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from toy_models import toy_folder

    folder = toy_folder(tmp_path / "toy", chat=chat)
    if chat:
        turn = "{{ m['content'] }}{{ eos_token }}"
        (folder / "chat_template.jinja").write_text("{% for m in messages %}" + turn + "{% endfor %}")
    card = text(read(folder, None, []), parts.export("hf", architecture="llama", chat=chat))
    code = next(block for block in re.findall(r"```python\n(.*?)```", card, re.DOTALL) if "torch" in block)
    assert ("renderer" in code) == chat
    monkeypatch.chdir(folder)
    exec(compile(code.replace("max_new_tokens=200", "max_new_tokens=5"), "card", "exec"), {})
    assert capsys.readouterr().out.strip()


@pytest.mark.parametrize(("width", "ternary"), [(256, True), (320, False)])
def test_ternary_matrices_are_told_of_where_there_are_some(provenance, width, ternary):
    provenance.config["hidden_size"] = width
    assert ("TQ2_0" in text(provenance, parts.export("gguf", exact_inside=True))) == ternary
    assert "TQ2_0" not in text(provenance, parts.export("gguf", exact_inside=True, flavour="mimo2"))
