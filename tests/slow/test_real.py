"""The same chain on real files where they are present (issue point 5): up to half an hour."""

import time

import pytest

from real_data import real_data
from rinsho.report import evaluation, read_stages
from tiny_chain import ROOT, run_chain

pytestmark = pytest.mark.slow


def test_real_files_go_through_the_whole_chain(tmp_path):
    data = real_data("jmed_llm").parent
    started = time.monotonic()
    run_chain(
        ROOT / "recipes/real-small.yaml", tmp_path / "run",
        f"text={data}/text", f"tasks={data}", f"lexicon={data}/lexicon/manbyo_mini.tsv",
    )  # fmt: skip
    seconds = time.monotonic() - started
    found = evaluation(read_stages(tmp_path / "run"))
    tasks = {row["task"]: row["n"] for row in found["scores"]}
    for task in ("jmmlu_med", "crade", "rrtnm", "smdis", "jcsts", "mrner_disease", "mrner_medicine", "nrner"):
        assert tasks[task] == 100
    assert sum(n for task, n in tasks.items() if task.startswith("igakuqa")) == 1600
    leaked = {row["task"]: row["share"] for row in found["leakage"]}
    assert leaked["smdis"] == 1.0, "under the split `row` every test post stands in the training data"
    assert seconds < 30 * 60, f"{seconds:.0f} s"
