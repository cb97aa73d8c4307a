"""A whole chain in seconds: the quickstart's stages at toy sizes, run by the real command in its own process."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STAGES = ("samples", "corpus", "tokenizer", "pretrain", "finetune", "evaluate")
RECIPE = """
name: tiny
seed: 3
samples: {text_size_mb: 0.6, shards: 3, test_rows: 8, smdis_rows: 40, rrtnm_rows: 30, crade_rows: 20, jcsts_rows: 20,
  crner_rows: 20, rrner_rows: 20, nrner_rows: 20, jmmlu_rows: 20, igakuqa_problems: 24}
corpus: {inputs: [samples/text], validation_fraction: 0.05, workers: 1, shard_documents: 400}
tokenizer: {inputs: [corpus, samples/lexicon/terms.csv], vocab_size: 2048, workers: 1}
pretrain:
  inputs: [tokenizer, corpus]
  model: {hidden_size: 32, intermediate_size: 64, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 1}
  sequence_length: 128
  batch_tokens: 512
  max_tokens: 10240
  save_every_steps: 4
  validation_every_steps: 10
  validation_tokens: 2000
  copy_fraction: 0.3
  optimizer: muon
  threads: 1
finetune: {inputs: [pretrain, samples/tasks], sequence_length: 256, batch_tokens: 512, max_tokens: 10240, save_every_steps: 4, threads: 1}
evaluate: {inputs: [finetune, samples/tasks, samples/lexicon/terms.csv], modes: [constrained], threads: 1, bootstrap_samples: 50}
"""


def write_recipe(folder):
    path = folder / "tiny.yaml"
    path.write_text(RECIPE)
    return path


def start(*words, extra_path=None):
    """The command in a process group of its own, so that a kill takes its workers too."""
    paths = [str(ROOT / "src"), *([str(extra_path)] if extra_path else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    environment.pop("HF_HUB_OFFLINE", None)  # the command must keep to local files by itself
    return subprocess.Popen(
        [sys.executable, "-m", "rinsho", *map(str, words)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True,
    )  # fmt: skip


def run_chain(recipe, out, *words, extra_path=None):
    """Runs to the end and returns what the command printed."""
    process = start("all", "--recipe", recipe, "--out", out, *words, extra_path=extra_path)
    text, _ = process.communicate(timeout=2400)
    assert process.returncode == 0, text
    return text


def kill(process):
    """kill -9 for the whole group."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def kill_while_working(recipe, out, stage):
    """Runs until `stage` has something half done, then kills; True when the stage was not finished by then."""
    process = start("all", "--recipe", recipe, "--out", out)
    folder = out / stage
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline and process.poll() is None:
        if (folder / "DONE").exists() or _half_done(folder):
            break
        time.sleep(0.002)
    kill(process)
    return folder.exists() and not (folder / "DONE").exists()


def products(out):
    """Hash of every product file of every stage."""
    return {stage: json.loads((out / stage / "DONE").read_text())["products"] for stage in STAGES}


def _half_done(folder):
    pieces = folder / "partial"
    if folder.name == "samples":
        return (folder / "text").exists()
    return pieces.is_dir() and any(path.is_file() and not path.name.startswith(".") for path in pieces.rglob("*"))
