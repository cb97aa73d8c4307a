"""The report's pictures and tables from invented numbers; the whole page is tested in test_chain.py."""

import json
import re

import pytest

from rinsho import score_figures as figures
from rinsho.errors import UserError
from rinsho.report import terminal_table, write_report

ROW = {
    "task": "smdis", "mode": "constrained", "n": 240, "metric": "accuracy", "score": 0.62, "interval": [0.56, 0.68],
    "chance": 0.5, "above_chance": True, "baselines": {"majority": 0.5, "naive_bayes": 0.75},
}  # fmt: skip


def evaluated(folder, rows, cases=()):
    stage = folder / "evaluate"
    stage.mkdir()
    (stage / "manifest.json").write_text(json.dumps({"seconds": 3, "peak_memory_gib": 0.5}))
    (stage / "report.json").write_text(json.dumps({"numbers": {"scores": rows, "cases": list(cases)}, "markdown": ""}))
    (stage / "DONE").write_text(json.dumps({"identity": "x", "products": {"a": {"hash": "0", "size_bytes": 5}}}))
    return folder


def test_nothing_to_draw_is_an_empty_string():
    assert figures.scores([], "x") == ""


def test_scores_without_interval_or_baseline_are_drawn():
    assert figures.scores([{**ROW, "label": "smdis", "interval": None, "baselines": {}}], "scores").startswith("<svg")


def test_terminal_table_has_score_interval_chance_and_baselines(tmp_path):
    hard = {**ROW, "group": "other_symptom", "score": 0.41, "interval": [0.3, 0.53], "above_chance": False}
    table = terminal_table(evaluated(tmp_path, [ROW], [hard]))
    first = next(line for line in table.splitlines() if line.startswith("smdis "))
    assert re.sub(" +", " ", first) == (
        "smdis constrained 240 accuracy 0.620 0.560-0.680 0.500 0.500 0.750 above chance"
    )
    assert "smdis: other_symptom" in table


def test_folder_without_a_finished_stage_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match="no finished stage"):
        write_report(tmp_path)


def test_folder_of_one_stage_is_told_apart(tmp_path):
    with pytest.raises(UserError, match=r"the folder of one stage; .* rinsho curves"):
        write_report(evaluated(tmp_path, [ROW]) / "evaluate")


def test_finished_stage_without_its_manifest_is_a_user_error(tmp_path):
    (evaluated(tmp_path, [ROW]) / "evaluate/manifest.json").unlink()
    with pytest.raises(UserError, match="without its manifest"):
        write_report(tmp_path)
