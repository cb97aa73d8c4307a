"""The `hf` and `llama` forms: the same logits, read and written one tensor at a time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from rinsho.errors import UserError
from rinsho.export.forms import write_hf, write_llama
from rinsho.export.weights import open_weights

IDS = torch.tensor([[1, 300, 301, 4, 290, 3, 305]])


def logits(folder: Path) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype="auto").eval()
    with torch.no_grad():
        return model(input_ids=IDS).logits


def test_our_model_as_a_llama_has_bitwise_the_same_logits(ours: Path, tmp_path: Path) -> None:
    write_llama(open_weights(ours), tmp_path, "float32")
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["model_type"], config["mlp_bias"], config["architectures"]) == ("llama", True, ["LlamaForCausalLM"])
    assert torch.equal(logits(tmp_path), logits(ours))
    assert logits(ours).std() > 0.1  # there is something to compare


def test_the_llama_form_is_the_gate_with_an_up_branch_of_one(ours: Path, tmp_path: Path) -> None:
    write_llama(open_weights(ours), tmp_path, "bfloat16")
    before, after = load_file(ours / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    mlp = "model.layers.1.mlp."
    assert torch.equal(after[f"{mlp}gate_proj.weight"], before[f"{mlp}up_proj.weight"].bfloat16())
    assert not after[f"{mlp}up_proj.weight"].any() and (after[f"{mlp}up_proj.bias"] == 1).all()
    assert not after[f"{mlp}gate_proj.bias"].any() and not after[f"{mlp}down_proj.bias"].any()


def test_hf_keeps_the_model_and_changes_the_number_form(ours: Path, tmp_path: Path) -> None:
    write_hf(open_weights(ours), tmp_path, "float16")
    before, after = load_file(ours / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(after[name], before[name].half()) for name in before)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float16"
    assert (tmp_path / "generation_config.json").is_file()


def test_weights_in_several_files_become_one(llama: Path, tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    weights = load_file(llama / "model.safetensors")
    names = list(weights)
    for number, some in enumerate((names[:5], names[5:]), 1):
        save_file({name: weights[name] for name in some}, parts / f"model-0000{number}-of-00002.safetensors")
    (parts / "config.json").write_bytes((llama / "config.json").read_bytes())
    out = tmp_path / "out"
    out.mkdir()
    write_llama(open_weights(parts), out, "float32")
    after = load_file(out / "model.safetensors")
    assert after.keys() == weights.keys()
    assert all(torch.equal(after[name], weights[name]) for name in weights)


def test_an_architecture_without_a_llama_form_is_refused(ours: Path, tmp_path: Path) -> None:
    config = json.loads((ours / "config.json").read_text()) | {"hidden_act": "relu2"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((ours / "model.safetensors").read_bytes())
    with pytest.raises(UserError, match=r"no Llama form of the architecture arcee \(relu2\).*--to hf"):
        write_llama(open_weights(tmp_path), tmp_path / "out", "float32")


@pytest.mark.parametrize("cut", [5, 200, -1])
def test_weights_that_were_cut_off_are_refused(ours: Path, tmp_path: Path, cut: int) -> None:
    (tmp_path / "config.json").write_bytes((ours / "config.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((ours / "model.safetensors").read_bytes()[:cut])
    with pytest.raises(UserError, match="damaged"):
        open_weights(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model in here"):
        open_weights(tmp_path)
