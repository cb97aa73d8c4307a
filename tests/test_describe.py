"""The page of `rinsho model describe`."""

import json
import re
from pathlib import Path

import pytest

from rinsho.cli import STAGES
from rinsho.describe import describe
from rinsho.doctor import doctor
from rinsho.errors import UserError
from rinsho.hardware import peak_flops
from rinsho.model import ModelSettings, build
from rinsho.model_folder import load_unfolded, save_folded

ROOMS = {stage: module for stage, (module, _, _) in STAGES.items()}
RECIPES = Path(__file__).resolve().parents[1] / "recipes"


def test_the_report_model():
    page = describe("ncvc-slm-1", gpus=4, gpu="NVIDIA RTX 6000 Ada Generation", tokens=50_331_648_000)
    assert "24 layers, hidden size 2048, 32 heads of 64, 8 key/value heads" in page
    assert re.search(r"total +1,191,282,688", page)
    assert "bfloat16 2.383 GB (2.22 GiB)" in page
    assert "6.7450 G = 6 · 1,124,173,824" in page and "12 · 24 · 32 · 64 · 2,048" in page
    assert re.search(r"total +7.9530 G", page) and re.search(r"causal +7.3490 G", page)
    assert "49,152 bytes a token, 96.0 MiB at 2,048 tokens" in page
    speed = 4 * 0.4 * peak_flops("RTX 6000 Ada") / 7.953e9
    assert re.search(rf"40% MFU +{speed:,.0f} tokens/s +7.95 days", page)
    for name in ("ddp", "zero2", "zero3"):
        assert re.search(rf"^  {name} .*activations", page, re.MULTILINE)
        assert re.search(rf"^  {name}, checkpointing ", page, re.MULTILINE)


def test_one_card_needs_no_sharing_and_rows_fit_only_a_card_that_is_named():
    page = describe("tiny")
    assert "one card, checkpointing" in page and "zero2" not in page
    assert "rows that fit" not in page and "MFU  " not in page
    assert "vocabulary 4,096 (assumed: --vocab-size" in page
    own = describe("tiny", vocab_size=5000)
    assert "vocabulary 5,000" in own and "assumed" not in own
    assert "untied: the head is in the file" in page and "bfloat16 6.4 MB (6.1 MiB)" in page
    processor = "on a processor instead, {}: "
    assert processor.format("fp32, not compiled") in page
    both = describe("tiny", overrides=["pretrain.dtype=bf16", "pretrain.compile=true"])
    assert processor.format("bf16, compiled") in both
    assert "on a processor" not in describe("tiny", overrides=["pretrain.attn_implementation=varlen"])
    assert "with --tokens N also the days" in describe("tiny", gpu="H200 SXM")


def test_the_largest_number_of_rows_is_the_largest():
    def total(rows):
        page = describe("350m", gpu="L4", overrides=[f"pretrain.micro_batch_rows={rows}"])
        cells = re.search(r"one card  .*", page)[0].split()
        return float(cells[-3]), int(cells[-1])

    _, rows = total(1)
    assert rows > 1 and total(rows)[0] <= 0.9 * 24 < total(rows + 1)[0]
    assert re.search(r"one card  .* 0$", describe("ncvc-slm-1", gpu="RTX 3090", gpus=1), re.MULTILINE)


@pytest.mark.parametrize("name", ["quickstart.yaml", "ncvc-slm-1.yaml"])
def test_recipes_of_this_repository(name):
    page = describe(str(RECIPES / name), rooms=ROOMS)
    assert page.startswith(f"model {RECIPES / name}")
    longer = describe(str(RECIPES / name), rooms=ROOMS, overrides=["pretrain.micro_batch_rows=3"])
    assert "micro_batch_rows 3" in longer and "micro_batch_rows 3," not in page


def test_the_vocabulary_is_that_of_the_recipe(tmp_path):
    recipe = tmp_path / "own.yaml"
    recipe.write_text("tokenizer: {vocab_size: 12345}\npretrain: {model: 15m, max_tokens: 1000000000}\n")
    page = describe(str(recipe), rooms=ROOMS, gpu="L4")
    assert "vocabulary 12,345" in page and "assumed" not in page and re.search(r"1.00 G tokens", page)


def test_a_published_folder(tmp_path):
    settings = ModelSettings.model_validate({"preset": "tiny", "residual_dropout": 0.1})
    model = build(settings, 300, 1, bos_token_id=1, eos_token_id=2, pad_token_id=2)
    save_folded(model, None, tmp_path, dtype="bfloat16")
    page = describe(str(tmp_path), overrides=["pretrain.micro_batch_rows=3"])
    weights = sum(path.stat().st_size for path in tmp_path.glob("*.safetensors"))
    total = int(re.search(r"total +([\d,]+)\n", page)[1].replace(",", ""))
    assert 0 <= weights - 2 * total < 10_000  # a header; the head is a matrix of its own in a published folder
    assert "trained tied, and bfloat16 has rounded it apart" in page and "untied head" in page
    assert "embeddings times 13.86" in page and "residual 0.1" in page
    assert "micro_batch_rows 3" in page and "1,024 tokens a row" in page
    said = doctor(tmp_path)
    assert "arcee: parameters 1,681,344, layers 4, hidden size 192, vocabulary 300, positions 1,024" in said
    assert "key/value cache 1,536 bytes a token in bfloat16, 1.5 MiB at 1,024 tokens" in said
    for content in ("{}", "[]", "{"):
        (tmp_path / "config.json").write_text(content)
        assert "key/value cache" not in doctor(tmp_path) and "weights" in doctor(tmp_path)


def test_a_folder_whose_head_was_trained_tied_is_counted_as_its_training_did(tmp_path):
    settings = ModelSettings.model_validate("tiny")
    model = build(settings, 300, 1, bos_token_id=1, eos_token_id=2, pad_token_id=2)
    save_folded(model, None, tmp_path)
    page = describe(str(tmp_path))
    published = sum(tensor.numel() for tensor in model.parameters()) + 300 * 192
    assert "(arcee)" in page and " tied head" in page
    assert re.search(rf"total +{json.loads((tmp_path / 'rinsho.json').read_text())['parameters']:,}\n", page)
    assert re.search(rf"published +{published:,} +untied", page)


@pytest.mark.parametrize(("hidden_size", "dtype"), [(48, "float32"), (48, "bfloat16"), (64, "bfloat16")])
def test_the_page_and_training_agree_on_whether_the_head_is_tied(tmp_path, hidden_size, dtype):
    settings = ModelSettings.model_validate({"hidden_size": hidden_size, "num_hidden_layers": 1})
    save_folded(build(settings, 300, 1, bos_token_id=1, eos_token_id=2, pad_token_id=2), None, tmp_path, dtype=dtype)
    tied = load_unfolded(tmp_path).config.tie_word_embeddings
    assert tied == (" tied head" in describe(str(tmp_path))) == (dtype == "float32" or hidden_size == 64)


@pytest.mark.parametrize(
    "given",
    [{"overrides": ["pretrain.model.hidden_size=64"]}, {"overrides": ["pretrain.model=15m"]}, {"vocab_size": 9}],
)
def test_a_folder_keeps_its_sizes(tmp_path, given):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="has its sizes already"):
        describe(str(tmp_path), **given)


@pytest.mark.parametrize("tied", [True, False])
def test_another_architecture_is_counted_from_its_weights(tmp_path, tied):
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = LlamaConfig(
        vocab_size=100, num_key_value_heads=2, max_position_embeddings=64, tie_word_embeddings=tied, **sizes
    )
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path)
    page = describe(str(tmp_path))
    number = sum(parameter.numel() for parameter in model.parameters())
    assert re.search(rf"total +{number:,}\n", page) and "no memory table" in page
    matrices = 6 * (number if tied else number - 3200)
    assert f"{matrices / 1e9:.4f} G = 6 · {matrices // 6:,}" in page
    assert f"{2 * 2 * 2 * 2 * 8} bytes a token" in page


NEEDED = ("hidden_size", "num_hidden_layers", "num_attention_heads", "max_position_embeddings", "vocab_size")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "not valid JSON"),
        (json.dumps({"hidden_size": 8}), "no num_hidden_layers, num_attention_heads"),
        ("[]", "no hidden_size"),
        (json.dumps(dict.fromkeys((*NEEDED, "num_local_experts"), 8)), "mixture of experts"),
        (json.dumps(dict.fromkeys(NEEDED, 8)), "there are none"),
        (json.dumps({**dict.fromkeys(NEEDED, 8), "model_type": "arcee"}), "intermediate_size"),
    ],
)
def test_folders_that_cannot_be_counted(tmp_path, config, message):
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(UserError, match=message):
        describe(str(tmp_path))


def test_a_damaged_weights_file_is_named(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(dict.fromkeys(NEEDED, 8)))
    for content in (b"", b"\xff" * 40, b"\x02\0\0\0\0\0\0\0[]"):
        (tmp_path / "model.safetensors").write_bytes(content)
        with pytest.raises(UserError, match=r"model.safetensors: not a safetensors file"):
            describe(str(tmp_path))


def test_targets_that_are_nothing(tmp_path):
    with pytest.raises(UserError, match="no model in here"):
        describe(str(tmp_path))
    with pytest.raises(UserError, match="a recipe file, a model folder, or a preset"):
        describe("ncvc-slm-2")
    for typed, meant in {"H100": "H100 SXM", "NVIDIA H2000": "H200 SXM", "4090": "RTX 4090"}.items():
        with pytest.raises(UserError, match=f"did you mean '{meant}'"):
            describe("tiny", gpu=typed)
    only = tmp_path / "recipe.yaml"
    only.write_text("tokenizer: {}\n")
    with pytest.raises(UserError, match="no section 'pretrain'"):
        describe(str(only), rooms=ROOMS)
    only.write_text("pretrain: {init_from: model, micro_batch_rows: 4}\n")
    with pytest.raises(UserError, match=r"those of a model folder; .* FOLDER --set pretrain.micro_batch_rows=4, with"):
        describe(str(only), rooms=ROOMS)
    only.write_text("pretrain: {micro_batch_row: 3}\n")
    with pytest.raises(UserError, match="did you mean 'micro_batch_rows'"):
        describe(str(only), rooms=ROOMS)


def test_loading_the_page_loads_no_torch():
    import subprocess
    import sys

    code = "import sys; from rinsho.describe import describe; describe('tiny'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
