"""Where a model comes from: only what its folders say, and only of this model."""

import json
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import card_parts as parts

from rinsho.errors import UserError
from rinsho.export.provenance import read


@pytest.fixture
def folders(tmp_path):
    base = parts.base(tmp_path / "runs/pretrain")
    return base, parts.tuned(tmp_path / "runs/finetune", base)


def test_stages_data_and_tokenizer_are_followed_to_the_beginning(folders):
    base, tuned = folders
    found = read(tuned, None, [])
    assert [(stage.kind, stage.recipe["learning_rate"]) for stage in found.stages] == [
        ("pretrain", 0.002),
        ("finetune", 0.002),
    ]
    assert [row["stage"] for row in found.data] == ["pretrain", "finetune"]
    assert found.data[0]["sources"] == parts.SOURCES
    assert found.tokenizer_numbers["characters_per_token"] == 1.75
    assert found.ours and found.our_tokenizer and found.tuned["steps"] == 6
    assert len(read(base, None, []).stages) == 1


def test_moved_runs_are_found_by_relative_paths_and_their_hash(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    base = parts.base(Path("a/runs/pretrain"))
    parts.tuned(Path("a/runs/finetune"), base)
    shutil.move("a", "b")
    (tmp_path / "b/a").symlink_to(tmp_path / "b")  # what was below the old working folder lies below this one
    monkeypatch.chdir("/")
    assert [stage.kind for stage in read(tmp_path / "b/runs/finetune", None, []).stages] == ["pretrain", "finetune"]


def test_a_base_that_was_made_anew_is_not_taken_for_the_old_one(folders, tmp_path):
    base, tuned = folders
    shutil.rmtree(base)
    parts.base(base, steps=99, data=None)
    found = read(tuned, None, [])
    assert [stage.kind for stage in found.stages] == ["finetune"]
    assert found.data[0]["sources"] == parts.SOURCES  # which the tuned model recorded itself


def test_what_nobody_recorded_is_none(tmp_path):
    base = parts.base(tmp_path / "pretrain", data=None)
    tuned = parts.tuned(tmp_path / "finetune", base, data=None)
    shutil.rmtree(base)
    before, own = read(tuned, None, []).data
    assert before == {"stage": "pretrain", "sources": None}
    # the report of the run still names its tasks; terms of benchmarks of that name are carried over
    assert [(row["source"], row["documents"]) for row in own["sources"]] == [("nrner", 3), ("smdis", 50)]
    assert list(own["sources"][0]["licenses"]) == [
        "CC-BY-NC-SA-4.0 (the data's published licence; the run recorded none)"
    ]


def test_a_foreign_model_is_unknown_but_for_its_card(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    found = read(tmp_path, None, [])
    assert found.data == [{"stage": "unknown", "sources": None, "license": "cc-by-nc-4.0"}]
    assert not found.ours and not found.our_tokenizer and found.evaluations == []


def test_manifests_that_name_each_other_come_to_an_end(folders, monkeypatch):
    _, tuned = folders
    monkeypatch.setattr("rinsho.export.provenance._first_input", lambda folder, run: tuned)
    assert len(read(tuned, None, []).stages) == 21


def test_evaluations_are_known_by_the_hash_of_the_model(folders, tmp_path):
    base, tuned = folders
    own = parts.evaluation(tmp_path / "evaluate", tuned)
    (found,) = read(tuned, None, [own]).evaluations
    assert found.same_files and found.scores["model"] == "invented"
    with pytest.raises(UserError, match="of another model"):
        read(base, None, [own])


def test_an_evaluation_of_other_files_counts_where_all_facts_are_the_same(folders, tmp_path):
    base, tuned = folders
    copy = parts.tuned(tmp_path / "other", base, note="the same model saved again")
    same = parts.evaluation(tmp_path / "one", copy)
    assert [each.same_files for each in read(tuned, None, [same]).evaluations] == [False]
    for fact in ({"steps": 7}, {"seen_tokens": 1}, {"test_hashes": ["abd"]}, {"stage": "pretrain"}):
        other = parts.evaluation(tmp_path / "-".join(fact), copy, **fact)
        with pytest.raises(UserError, match="of another model"):
            read(tuned, None, [other])


def test_of_several_models_the_right_one_is_taken(folders, tmp_path):
    base, tuned = folders
    several = tmp_path / "several"
    parts.evaluation(several / "a", base, model="a", stage="pretrain", steps=12, test_hashes=[])
    parts.evaluation(several / "b", tuned)
    (several / "scores.json").write_text(json.dumps({"models": [{"folder": "a"}, {"folder": "b"}]}))
    (found,) = read(tuned, None, [several]).evaluations
    assert found.same_files and found.asked["steps"] == 6


@pytest.mark.parametrize(
    ("name", "wanted"),
    [("out", "the form `hf` in float16, in transformers"), ("model-q4_0.gguf", "`model-q4_0.gguf` in llama.cpp")],
)
def test_an_evaluation_of_an_export_says_what_was_asked(folders, tmp_path, name, wanted):
    base, tuned = folders
    copy = parts.tuned(tmp_path / name, base, export={"to": "hf", "dtype": "float16"})
    (found,) = read(tuned, None, [parts.evaluation(tmp_path / "one", copy)]).evaluations
    assert not found.same_files and found.asked_as == wanted


@pytest.mark.parametrize(("key", "row"), [("leakage", {"task": "smdis", "passages": 3}), ("scores", {"task": "smdis"})])
def test_an_evaluation_in_an_older_form_is_refused(folders, tmp_path, key, row):
    own = parts.evaluation(tmp_path / "evaluate", folders[1])
    scores = json.loads((own / "scores.json").read_text())
    (own / "scores.json").write_text(json.dumps(scores | {key: [row]}))
    with pytest.raises(UserError, match=f"older rinsho: its {key} lack.*evaluate again"):
        read(folders[1], None, [own])


@pytest.mark.parametrize("content", ["", "[]", "{", '{"models": []}'])
def test_a_folder_without_scores_is_refused(folders, tmp_path, content):
    (tmp_path / "none").mkdir()
    (tmp_path / "none/scores.json").write_text(content)
    with pytest.raises(UserError, match=r"no scores in here|of another model"):
        read(folders[1], None, [tmp_path / "none"])
