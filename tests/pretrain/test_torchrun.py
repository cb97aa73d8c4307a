"""The stage in two processes, as torchrun starts them: against one, killed and continued, and with nothing to do."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
import toy_pretraining as toy

from rinsho.run import read_metrics
from two_processes import run

# Dropout draws other numbers in other processes; without it all layouts have to agree.
PLAIN = {"model": toy.MODEL, "optimizer": "adamw", "adam_eps": 1e-6}


def losses(out):
    return [row["loss"] for row in read_metrics(out) if "loss" in row]


def held_out(out):
    return [row["validation_loss"] for row in read_metrics(out) if "validation_loss" in row]


def weights(out):
    return load_file(out / "model.safetensors")


def two(folder, out, **changes):
    return run(toy.__file__, "train", folder=str(folder), out=str(out), **changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    toy.toy_inputs(folder)
    return folder


@pytest.fixture(scope="module")
def alone(folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rinsho.pretrain.work.load_tokenizer", lambda _: (toy.Letters(), "letters"))
        toy.run_once(folder, folder / "alone", **PLAIN)
    return folder / "alone"


@pytest.fixture(scope="module")
def together(folder):
    two(folder, folder / "together", parallelism="zero2", **PLAIN)
    return folder / "together"


@pytest.fixture(scope="module")
def killed(folder):
    with pytest.raises(AssertionError, match="a process failed"):
        two(folder, folder / "killed", kill="step:5", parallelism="zero2", **PLAIN)
    assert not (folder / "killed" / "DONE").exists()
    return folder / "killed"


@pytest.mark.slow
def test_two_processes_train_as_one(alone, together):
    assert losses(together) == pytest.approx(losses(alone), rel=1e-5)
    assert held_out(together) == pytest.approx(held_out(alone), rel=1e-5)
    for name, tensor in weights(alone).items():
        torch.testing.assert_close(weights(together)[name], tensor, rtol=1e-3, atol=1e-5, msg=name)
    numbers = json.loads((together / "report.json").read_text())["numbers"]
    assert (numbers["processes"], numbers["steps"]) == (2, 12)


@pytest.mark.slow
def test_with_nothing_to_do_no_process_waits_for_another(folder, together):
    before = (together / "DONE").read_bytes()
    two(folder, together, parallelism="zero3", **PLAIN)
    assert (together / "DONE").read_bytes() == before


@pytest.mark.slow
def test_killed_and_continued_gives_the_same_bits(folder, together, killed, tmp_path):
    shutil.copytree(killed, tmp_path / "out")
    two(folder, tmp_path / "out", parallelism="zero2", **PLAIN)
    products = [json.loads((run / "DONE").read_text())["products"] for run in (together, tmp_path / "out")]
    assert products[0] == products[1]
    assert losses(together) == losses(tmp_path / "out")


@pytest.mark.slow
def test_another_number_of_processes_can_go_on(folder, alone, killed, tmp_path, monkeypatch):
    shutil.copytree(killed, tmp_path / "out")
    monkeypatch.setattr("rinsho.pretrain.work.load_tokenizer", lambda _: (toy.Letters(), "letters"))
    toy.run_once(folder, tmp_path / "out", **PLAIN)
    assert losses(tmp_path / "out") == pytest.approx(losses(alone), rel=1e-5)
    assert "continues after step 3 of 12" in (tmp_path / "out" / "log.txt").read_text()


@pytest.mark.slow
def test_a_refused_folder_ends_all_processes(folder, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(AssertionError, match="a process failed"):
        two(folder, tmp_path / "out", seconds=60)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]
