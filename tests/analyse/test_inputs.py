"""What is what among the inputs, and the runs that made a model."""

import json

import pytest

from analyse.made_runs import made_evaluation, made_run, score_row
from rinsho.analyse.inputs import own_runs, sort_inputs
from rinsho.errors import UserError
from rinsho.run import digest


def as_model(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights of " + folder.name.encode())
    return folder


def finished(folder):
    """DONE with the folder's files as products, so that its digest depends on them."""
    from rinsho.files import file_hash

    names = ("config.json", "model.safetensors")
    products = {
        name: {"hash": file_hash(folder / name), "size_bytes": (folder / name).stat().st_size} for name in names
    }
    (folder / "DONE").write_text(json.dumps({"identity": "x", "products": products}))


def test_each_input_goes_where_it_belongs(tmp_path):
    model = as_model(tmp_path / "foreign")
    run = made_run(tmp_path / "other")
    evaluation = made_evaluation(tmp_path / "ev", "m", 10, [score_row()])
    words = tmp_path / "words.csv"
    words.write_text("surface\n肺炎\n")
    lexicon = tmp_path / "lexicon"
    lexicon.mkdir()
    (lexicon / "terms.tsv").write_text("surface\treading\tkind\tsource\n")
    documents = tmp_path / "texts"
    documents.mkdir()
    (documents / "a.txt").write_text("肺炎の一例。")
    found = sort_inputs([model, words, documents, evaluation, lexicon, run, run])
    assert found.model == model
    assert found.runs == (run,)
    assert found.evaluations == (evaluation,)
    assert found.words == (words, lexicon)
    assert found.documents == (documents,)
    assert set(found.hashed()) == {model, run, evaluation, words, lexicon, documents}


def test_a_run_that_goes_on_counts_by_its_metrics_alone(tmp_path):
    model, run = as_model(tmp_path / "m"), made_run(tmp_path / "going", done=False)
    found = sort_inputs([model, run])
    assert run in found.runs
    assert run not in found.hashed()
    before = found.state()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 61, "loss": 3.9}\n')
    assert found.state() != before


def test_the_runs_of_the_base_and_the_model_are_found(tmp_path):
    base = as_model(made_run(tmp_path / "x" / "pretrain"))
    finished(base)
    given = [{"path": str(base), "hash": digest(base)}]
    tuned = as_model(made_run(tmp_path / "x" / "finetune", "finetune", inputs=given))
    assert own_runs(tuned) == [base, tuned]
    step = as_model(base / "checkpoints" / "step-00000010")
    assert own_runs(step) == [base]


def test_a_base_that_moved_along_is_found_and_another_one_is_not(tmp_path):
    base = as_model(made_run(tmp_path / "x" / "pretrain"))
    finished(base)
    given = [{"path": "elsewhere/pretrain", "hash": digest(base)}]
    tuned = as_model(made_run(tmp_path / "x" / "finetune", "finetune", inputs=given))
    assert own_runs(tuned) == [base, tuned]
    (base / "model.safetensors").write_bytes(b"other weights")
    finished(base)
    assert own_runs(tuned) == [tuned]


def test_a_base_that_is_its_own_does_not_go_round(tmp_path):
    model = as_model(made_run(tmp_path / "finetune", "finetune"))
    finished(model)
    (model / "manifest.json").write_text(
        json.dumps({"stage": "finetune", "inputs": [{"path": str(model), "hash": digest(model)}]})
    )
    assert own_runs(model) == [model]


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: [], "no model"),
        (lambda folder: [folder / "nowhere"], "not there"),
        (lambda folder: [folder], "no model"),
        (lambda folder: [as_model(folder / "a"), as_model(folder / "b")], "a second model"),
        (lambda folder: [as_model(folder / "a"), folder / "nowhere"], "not there"),
    ],
)
def test_what_cannot_be_told_is_refused(tmp_path, make, said):
    with pytest.raises(UserError, match=said):
        sort_inputs(make(tmp_path))


def test_a_gguf_file_is_refused(tmp_path):
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    with pytest.raises(UserError, match="GGUF"):
        sort_inputs([file])
