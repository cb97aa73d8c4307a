"""Many good and bad clients at once on a real server: every good request is answered, and nothing is kept.

The clients are those of `benchmarks/serve_load.py`.
"""

import importlib
import sys
from pathlib import Path

import pytest

from rinsho.chat import TEMPLATE
from toy_models import toy_model, toy_tokenizer

pytest.importorskip("llama_cpp")
pytest.importorskip("gguf")
pytest.importorskip("uvicorn")
pytestmark = [pytest.mark.slow, pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1"])]
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
MOST_MB = 16  # that may be resident after the load, above what was after its first part
GOOD = ("well", "slow reader", "slow sender")


@pytest.fixture(scope="module")
def load():
    """The clients; the folder of benchmarks is on the path only while they are read (its serve.py is not our serve)."""
    sys.path.insert(0, str(BENCHMARKS))
    try:
        return importlib.import_module("serve_load")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A GGUF file of a tiny random model, with its tokenizer."""
    from rinsho.export.gguf_file import About, write_gguf
    from rinsho.export.weights import open_weights

    folder = tmp_path_factory.mktemp("model")
    tokenizer = toy_tokenizer()
    tokenizer.chat_template = TEMPLATE
    weights = toy_model(len(tokenizer), window=1024)
    weights.lm_head.weight.data[3:259] *= 0.2  # bytes seldom: answers are mostly words
    weights.lm_head.weight.data[:3] = 0  # and never at their end
    weights.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    write_gguf(open_weights(folder), folder / "model.gguf", "llama", "f16", About("toy"))
    (folder / "model.safetensors").unlink()
    return folder / "model.gguf"


def _check(found):
    ends = found["ends"]
    assert found["faults"] == [] and found["uncounted"] == [] and found["said"] == []
    assert found["idle"] and found["exit"] == 0
    assert found["lines"] > len(ends)  # a line a request
    assert abs(found["open"][1] - found["open"][0]) <= 3
    assert found["after"]["now"] - found["before"]["now"] < MOST_MB
    good = [ends[kind] for kind in GOOD]
    whole, other = (sum(kind.get(name, 0) for kind in good) for name in ("complete", "complete, other words"))
    assert whole > 20 and other <= 0.02 * whole
    assert set().union(*good) <= {"complete", "complete, other words", "429", "503"}


def test_a_few_seconds(load, model, tmp_path):
    _check(load.hold(model, tmp_path / "log", seconds=3, clients=12, threads=1, window=1024, prompts=4))


def test_one_minute_of_64_clients(load, model, tmp_path):
    found = load.hold(model, tmp_path / "log", seconds=60, clients=64, threads=1, window=1024)
    _check(found)
    assert len(found["ends"]) == len(load.BEHAVIOURS)
    assert "408" in found["ends"]["stops sending"]
    assert any("429" in found["ends"][kind] for kind in GOOD)  # more came than could wait
