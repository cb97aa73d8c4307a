"""The quickstart as a newcomer runs it, and what it promises about its scores (minutes)."""

import json
import time

import pytest

from rinsho.report import evaluation, read_stages
from tiny_chain import ROOT, run_chain

pytestmark = pytest.mark.slow
CHOICE = {"jmmlu_med", "crade", "rrtnm", "smdis", "jcsts"}
ENTITIES = {"mrner_disease", "mrner_medicine", "nrner"}


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory):
    out = tmp_path_factory.mktemp("quickstart") / "run"
    started = time.monotonic()
    text = run_chain(ROOT / "recipes/quickstart.yaml", out)
    return out, time.monotonic() - started, text


def test_three_choice_tasks_lie_above_chance_with_their_whole_interval(quickstart):
    rows = evaluation(read_stages(quickstart[0]))["scores"]
    above = {row["task"] for row in rows if row["task"] in CHOICE and row["interval"][0] > row["chance"]}
    assert len(above) >= 3, above


def test_an_entity_task_beats_copying_the_lexicon(quickstart):
    rows = evaluation(read_stages(quickstart[0]))["scores"]
    ours = {row["task"]: row for row in rows if row["task"] in ENTITIES and row["mode"] == "constrained"}
    better = [task for task, row in ours.items() if row["score"] > row["baselines"]["copy_lexicon"]]
    assert better, {task: (row["score"], row["baselines"]) for task, row in ours.items()}


def test_every_score_stands_beside_chance_interval_and_baselines(quickstart):
    found = evaluation(read_stages(quickstart[0]))
    for row in found["scores"]:
        assert row["interval"][0] <= row["score"] <= row["interval"][1]
        assert 0 <= row["chance"] < 1
        if not row["task"].startswith("igakuqa"):
            assert row["baselines"], row["task"]
    assert {"other_symptom", "one_drug", "one_number", "negated", "suspected"} <= {
        row["group"] for row in found["cases"]
    }


def test_it_keeps_to_four_gib_and_nine_minutes_even_on_a_busy_machine(quickstart):
    out, seconds, _ = quickstart
    peaks = {
        stage: json.loads((out / stage / "manifest.json").read_text())["peak_memory_gib"]
        for stage in ("pretrain", "finetune", "evaluate")
    }
    assert max(peaks.values()) < 4, peaks
    assert seconds < 360 * 1.5, (
        f"{seconds:.0f} s: the bound is 6 minutes on 2 idle cores, half as much again on a busy machine"
    )
