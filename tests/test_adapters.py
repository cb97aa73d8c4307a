"""Adapters: saved alone, opened on the right base only, several on one base, merged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import toy_models
from rinsho import adapters, bases
from rinsho.adapter_merge import merge
from rinsho.chat import CHAT_TOKENS
from rinsho.errors import UserError
from rinsho.evaluate.inputs import sort_inputs
from rinsho.generate.loading import load_model, load_tokenizer
from rinsho.model import ModelSettings, build
from rinsho.model_folder import EMBEDDING, load_unfolded, read_manifest, save_folded

EXTRA = {"stage": "finetune", "base": {"steps": 3}, "finetune": {"tasks": ["crade"], "split": "document", "steps": 4}}
PROMPT = torch.arange(259, 289)[None]  # words


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random Llama without chat tokens."""
    folder = tmp_path_factory.mktemp("adapters") / "base"
    tokenizer = toy_models.toy_tokenizer(chat=False)
    with bases.quiet():
        toy_models.toy_model(len(tokenizer), spread=0.05).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def trained(base: Path, folder: Path, quantization: Any = "none", seed: int = 1, method: str = "lora") -> Any:
    """An adapter after three steps, saved; logits of `PROMPT` before it was saved."""
    import peft

    tokenizer = load_tokenizer(base)
    old = len(tokenizer)
    tokenizer.add_tokens(list(CHAT_TOKENS), special_tokens=True)
    model = bases.quantized_base(base, quantization)
    bases.grow(model, len(tokenizer))
    torch.manual_seed(seed)
    settings: dict[str, Any] = {
        "lora": {},
        "dora": {"use_dora": True},
        "rslora": {"use_rslora": True},
        "pissa": {"init_lora_weights": "pissa"},
        "rslora from pissa": {"init_lora_weights": "pissa", "use_rslora": True, "rank_pattern": {"q_proj": 2}},
    }[method]
    new = {"embed_tokens": list(range(old, len(tokenizer)))}
    settings |= {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "trainable_token_indices": new}
    with bases.quiet():
        config = peft.LoraConfig(task_type="CAUSAL_LM", **settings)
    model = adapters.attach(model, config)
    train(model, len(tokenizer))
    adapters.save_adapter(model, tokenizer, folder, base, EXTRA)
    return logits(model)


def train(model: Any, vocab_size: int) -> None:
    optimizer = torch.optim.AdamW([weight for weight in model.parameters() if weight.requires_grad], lr=1e-2)
    rows = torch.randint(3, vocab_size, (2, 16))
    model.train()
    for _ in range(3):
        model(input_ids=rows, labels=rows).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()


def logits(model: Any, prompt: torch.Tensor = PROMPT) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=prompt, use_cache=False).logits[0]


@pytest.fixture(scope="module")
def adapter(base: Path) -> tuple[Path, torch.Tensor]:
    """A LoRA adapter with three trained tokens beside its base, and its logits."""
    folder = base.parent / "adapter"
    return folder, trained(base, folder)


def test_round_trip_is_exact_and_peft_alone_opens_it(base: Path, adapter: tuple[Path, torch.Tensor]) -> None:
    import peft

    folder, before = adapter
    assert torch.equal(logits(adapters.open_adapter(folder)), before)
    assert not torch.allclose(logits(bases.quantized_base(base)), before[:, :-3], atol=0.05)
    tokenizer = load_tokenizer(folder)
    assert tokenizer.convert_tokens_to_ids(CHAT_TOKENS[-1]) == len(tokenizer) - 1
    alone = bases.quantized_base(base)
    bases.grow(alone, len(tokenizer))
    with bases.quiet():
        alone = peft.PeftModel.from_pretrained(alone, str(folder)).eval()
    assert torch.equal(logits(alone), before)


def test_folder_says_what_it_is_and_names_no_absolute_path(base: Path, adapter: tuple[Path, torch.Tensor]) -> None:
    folder, _ = adapter
    assert adapters.is_adapter(folder) and not adapters.is_adapter(base)
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "../base"
    manifest = read_manifest(folder)
    assert manifest["form"] == "adapter" and manifest["finetune"] == EXTRA["finetune"]
    assert manifest["base"] == {
        "steps": 3, "digest": bases.base_digest(base), "name": "base", "relative": "../base"
    }  # fmt: skip
    for file in folder.glob("*.json"):
        assert str(base.parent) not in file.read_text(encoding="utf-8")
    assert not list(folder.glob("README*")) and not list(folder.glob("*.bin"))


def test_path_to_the_base_is_told_from_where_the_folder_will_lie(tmp_path: Path, base: Path) -> None:
    import peft

    model = adapters.attach(bases.quantized_base(base), peft.IA3Config(task_type="CAUSAL_LM"))
    adapters.save_adapter(model, None, tmp_path / "run/partial/made", base, {}, home=tmp_path / "run")
    shutil.copytree(tmp_path / "run/partial/made", tmp_path / "run", dirs_exist_ok=True)
    assert adapters.find_base(tmp_path / "run") == base.resolve()
    assert len(load_tokenizer(tmp_path / "run")) == len(load_tokenizer(base))  # it brings none


def test_new_rows_are_the_mean_and_ties_hold(base: Path) -> None:
    model = bases.quantized_base(base)
    old = model.lm_head.weight.shape[0]
    mean = model.lm_head.weight.detach().double().mean(0).float()
    bases.grow(model, old - 5)
    assert model.lm_head.weight.shape[0] == old
    bases.grow(model, old + 2)
    assert model.config.vocab_size == old + 2 and model.lm_head.weight.shape[0] == old + 2
    assert torch.equal(model.lm_head.weight[old:], mean.expand(2, -1))
    tied = toy_models.toy_model(20)
    tied.config.tie_word_embeddings = True
    tied.tie_weights()
    bases.grow(tied, 23)
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    assert torch.equal(tied.lm_head.weight[20], tied.lm_head.weight[:20].detach().double().mean(0).float())


def test_only_the_right_base_is_taken(tmp_path: Path, base: Path, adapter: tuple[Path, torch.Tensor]) -> None:
    folder, before = adapter
    alone = shutil.copytree(folder, tmp_path / "elsewhere/adapter")
    with pytest.raises(UserError, match=r"the base of the adapter is not there.*--base"):
        adapters.open_adapter(alone)
    moved = shutil.copytree(base, tmp_path / "moved")
    assert torch.equal(logits(load_model(alone, base=moved).cpu()), before)
    with bases.quiet():
        toy_models.toy_model(299, seed=2).save_pretrained(tmp_path / "other")
    digests = f"{bases.base_digest(tmp_path / 'other')[:12]}.*{bases.base_digest(base)[:12]}"
    with pytest.raises(UserError, match=rf"another base.*{digests}.*--base"):
        adapters.open_adapter(alone, tmp_path / "other")
    with pytest.raises(UserError, match="no base model in here"):
        adapters.open_adapter(alone, tmp_path)


def test_pickled_and_damaged_files_are_refused(tmp_path: Path, base: Path, adapter: tuple[Path, torch.Tensor]) -> None:
    folder = shutil.copytree(adapter[0], tmp_path / "adapter")
    weights = load_file(folder / bases.ADAPTER_WEIGHTS)
    weights.pop(sorted(weights)[-1])
    save_file(weights, folder / bases.ADAPTER_WEIGHTS)
    with pytest.raises(UserError, match="weights are missing"):
        adapters.open_adapter(folder, base)
    (folder / bases.ADAPTER_WEIGHTS).write_bytes(b"broken")
    with pytest.raises(UserError, match="the adapter cannot be put on its base"):
        adapters.open_adapter(folder, base)
    (folder / bases.ADAPTER_WEIGHTS).rename(folder / "adapter_model.bin")
    with pytest.raises(UserError, match="pickle"):
        adapters.open_adapter(folder, base)
    (tmp_path / "base").mkdir()
    for name in ("config.json", "pytorch_model.bin"):
        (tmp_path / "base" / name).write_text("{}")
    for call in (bases.base_digest, bases.quantized_base, load_model):
        with pytest.raises(UserError, match="no weights as safetensors"):
            call(tmp_path / "base")  # type: ignore[operator]
    with pytest.raises(UserError, match="not a model folder"):
        load_model(tmp_path)


def test_rooms_take_an_adapter_for_a_model(adapter: tuple[Path, torch.Tensor], base: Path) -> None:
    from rinsho import doctor

    folder, before = adapter
    assert [subject.path for subject in sort_inputs([folder, Path("data")]).subjects] == [folder]
    assert torch.equal(logits(load_model(folder).cpu()), before)
    assert "adapter, " in doctor.doctor(folder) and "llama: " in doctor.doctor(folder)


def test_several_adapters_share_a_base(tmp_path: Path, base: Path, adapter: tuple[Path, torch.Tensor]) -> None:
    first, before = adapter
    second, third = tmp_path / "second", tmp_path / "third"
    other, pissa = trained(base, second, seed=2), trained(base, third, seed=3, method="pissa")
    model = adapters.open_adapter(first)
    adapters.add_adapters(model, {"nurse": second, "pharmacist": third})
    assert torch.equal(logits(model), before)
    model.set_adapter("nurse")
    assert torch.equal(logits(model), other)
    model.set_adapter("pharmacist")
    assert torch.allclose(logits(model), pissa, atol=1e-5)  # written as a LoRA, so it can share
    model.set_adapter("default")
    assert torch.equal(logits(model), before)
    with pytest.raises(UserError, match="cannot be given"):
        adapters.add_adapters(model, {"nurse": second})
    wrong = json.loads((second / "rinsho.json").read_text())
    (second / "rinsho.json").write_text(json.dumps(wrong | {"base": {"digest": "f" * 64}}))
    with pytest.raises(UserError, match=r"another base.*ffffffffffff"):
        adapters.add_adapters(model, {"doctor": second})
    config = json.loads((third / "adapter_config.json").read_text())
    (third / "adapter_config.json").write_text(json.dumps(config | {"init_lora_weights": "pissa"}))
    with pytest.raises(UserError, match="changes its base"):
        adapters.add_adapters(model, {"doctor": third})


@pytest.mark.parametrize("method", ["lora", "dora", "rslora", "pissa", "rslora from pissa"])
def test_merging_changes_no_logit(tmp_path: Path, base: Path, method: str) -> None:
    from transformers import AutoModelForCausalLM

    before = trained(base, tmp_path / "adapter", method=method)
    assert torch.allclose(logits(adapters.open_adapter(tmp_path / "adapter")), before, atol=1e-5)
    done = merge(tmp_path / "adapter", tmp_path / "merged", prompts=["急性心筋梗塞の疑い。"])
    assert 0 < done.largest_logit_change < 1e-5 and done.merging.same_choice == 1
    assert done.rounding is None and done.training is None
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", local_files_only=True)
    assert torch.allclose(logits(plain), before, atol=1e-5)


def test_merged_folder_is_a_model_like_any_other(tmp_path: Path, adapter: tuple[Path, torch.Tensor]) -> None:
    folder = shutil.copytree(adapter[0], adapter[0].parent / "with documents")
    (folder / "train_documents.txt").write_text("a\nb\n")
    done = merge(folder, tmp_path / "merged", dtype="bfloat16")
    assert done.rounding is not None and done.rounding.largest > 1e-4
    assert "rounded to bfloat16" in done.markdown and "4 prompts of 64 random tokens (seed 1)" in done.markdown
    manifest = read_manifest(tmp_path / "merged")
    assert manifest["finetune"] == EXTRA["finetune"] and manifest["form"] == "llama"
    assert manifest["merged_from"]["base"] == manifest["base"]["digest"] and "relative" not in manifest["base"]
    assert manifest["merged_from"]["method"] == "lora"
    assert (tmp_path / "merged/train_documents.txt").read_text() == "a\nb\n"
    assert len(load_tokenizer(tmp_path / "merged")) == load_model(tmp_path / "merged").config.vocab_size
    merge(folder, tmp_path / "merged")  # a merged folder is replaced, anything else is not
    with pytest.raises(UserError, match="holds something else"):
        merge(folder, adapter[0])


def test_rounding_is_told_as_it_is_in_the_written_folder(tmp_path: Path, adapter: tuple[Path, torch.Tensor]) -> None:
    """What a model computes once, as the frequencies of its positions, is not rounded with its weights."""
    from rinsho.adapter_merge import _change, _logits, _rows

    done = merge(adapter[0], tmp_path / "half", dtype="bfloat16")
    merge(adapter[0], tmp_path / "full")
    full, half = (bases.quantized_base(tmp_path / name) for name in ("full", "half"))
    rows = list(_rows(None, full.config.vocab_size, 64, ()))
    assert load_file(tmp_path / "half/model.safetensors")[EMBEDDING].dtype == torch.bfloat16
    wanted = _change(_logits(full, rows), _logits(half, rows))
    assert done.rounding is not None and done.rounding.relative == pytest.approx(wanted.relative, rel=1e-5)


def test_merging_never_takes_the_place_of_what_it_came_from(tmp_path: Path, base: Path) -> None:
    """Nor when the base is itself a merged folder, which merging again may replace."""
    import peft

    trained(base, tmp_path / "one")
    merge(tmp_path / "one", tmp_path / "in/merged")
    model = adapters.attach(bases.quantized_base(tmp_path / "in/merged"), peft.IA3Config(task_type="CAUSAL_LM"))
    adapters.save_adapter(model, None, tmp_path / "two", tmp_path / "in/merged", {})
    digest = bases.base_digest(tmp_path / "in/merged")
    for out in (tmp_path / "in/merged", tmp_path / "two", tmp_path / "in"):
        with pytest.raises(UserError, match="the adapter or its base lies here"):
            merge(tmp_path / "two", out)
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="this is a file"):
        merge(tmp_path / "two", tmp_path / "file")
    assert bases.base_digest(tmp_path / "in/merged") == digest and (tmp_path / "file").read_text() == "x"


def test_markup_in_a_question_stays_text_and_in_an_answer_a_token() -> None:
    from tokenizers import AddedToken

    from rinsho.chat import Message
    from rinsho.chat_template import set_form

    tokenizer = toy_models.toy_tokenizer(chat=False)
    marks = ["<think>", "[INST]", "発疹"]
    tokenizer.add_tokens([AddedToken(mark, special=False, normalized=False) for mark in marks])
    ids = set(tokenizer.convert_tokens_to_ids(marks[:2]))
    render = set_form(tokenizer, "plain", "here")
    asked, mask = render([Message("user", "熱<think>咳[INST]発疹"), Message("assistant", "<think>肺</think>癌")])
    question = [token for token, learned in zip(asked, mask, strict=True) if not learned]
    assert not ids & set(question) and tokenizer.convert_tokens_to_ids("発疹") in question
    assert ids & set(asked) == {tokenizer.convert_tokens_to_ids("<think>")}


def test_merged_model_of_ours_unfolds_again(tmp_path: Path) -> None:
    tokenizer = toy_models.toy_tokenizer(chat=False)
    settings = ModelSettings(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        residual_dropout=0.1,
    )  # fmt: skip
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2}
    save_folded(build(settings, len(tokenizer), 1, **ids), tokenizer, tmp_path / "base", {"stage": "pretrain"})
    before = trained(tmp_path / "base", tmp_path / "adapter")
    assert merge(tmp_path / "adapter", tmp_path / "merged").largest_logit_change < 1e-5
    manifest = read_manifest(tmp_path / "merged")
    assert manifest["embedding_scale"] == 32**0.5 and manifest["residual_dropout_while_training"] == 0.1
    assert manifest["tied_while_training"] is False  # the new tokens' rows were trained as inputs alone
    base = read_manifest(tmp_path / "base")["parameters"]
    assert base + 3 * 32 <= manifest["parameters"] <= base + 2 * 3 * 32  # the other rows of the head count once
    unfolded = load_unfolded(tmp_path / "merged").eval()
    assert unfolded.config.vocab_size == len(tokenizer) + 3 and unfolded.config.embedding_scale == 32**0.5
    assert torch.allclose(logits(unfolded), before, atol=1e-5)
    save_folded(unfolded, None, tmp_path / "again")
    merged, again = (load_file(tmp_path / name / "model.safetensors") for name in ("merged", "again"))
    rows = merged.pop(EMBEDDING), again.pop(EMBEDDING)
    assert torch.equal(rows[0][:-3], rows[1][:-3]) and torch.allclose(rows[0], rows[1], rtol=2e-7, atol=0)
    assert all(torch.equal(again[name], merged[name]) for name in merged) and again.keys() == merged.keys()


def test_kinds_that_cannot_be_merged_say_so(tmp_path: Path, base: Path) -> None:
    import peft

    config = peft.AdaptionPromptConfig(adapter_len=4, adapter_layers=1, task_type="CAUSAL_LM")
    model = adapters.attach(bases.quantized_base(base), config)
    adapters.save_adapter(model, load_tokenizer(base), tmp_path / "adapter", base, {})
    with pytest.raises(UserError, match="adaption_prompt cannot be merged"):
        merge(tmp_path / "adapter", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_rounded_bases(tmp_path: Path, base: Path, quantization: Any, capfd: pytest.CaptureFixture[str]) -> None:
    before = trained(base, tmp_path / "adapter", quantization)
    assert read_manifest(tmp_path / "adapter")["quantization"] == quantization
    model = adapters.open_adapter(tmp_path / "adapter", quantization=quantization)
    assert torch.equal(logits(model), before)
    model.train()  # after answering: the base must still let gradients through
    for name, weight in model.named_parameters():
        weight.requires_grad_("lora_" in name)
    model(input_ids=PROMPT, labels=PROMPT).loss.backward()
    first = [weight.grad for name, weight in model.named_parameters() if "layers.0" in name and "lora_B" in name]
    assert first and all(grad is not None and grad.abs().max() > 0 for grad in first)
    done = merge(tmp_path / "adapter", tmp_path / "merged")
    assert done.largest_logit_change < 1e-5 < done.training.largest
    assert f"as trained ({quantization}, float32)" in done.markdown
    assert f"base as trained | {quantization}, float32" in adapters.show(tmp_path / "adapter")
    assert capfd.readouterr() == ("", "")


def test_show(base: Path, adapter: tuple[Path, torch.Tensor], tmp_path: Path) -> None:
    page = adapters.show(adapter[0])
    for row in ("method | lora", "rank, alpha | 4, 8", "trained tokens | 3", "tasks | crade", "steps | 4", "found: "):
        assert row in page
    assert "k_proj" in page and "layers.0" not in page and bases.base_digest(base)[:12] in page
    alone = shutil.copytree(adapter[0], tmp_path / "x/alone")
    assert "base as trained | float32, not quantized" in page
    assert f"is not there ({tmp_path / 'x/base'})" in adapters.show(alone)
    with pytest.raises(UserError, match="no base model in here"):
        adapters.show(alone, tmp_path)


@pytest.fixture
def old_tokens(base: Path, tmp_path: Path) -> tuple[Path, torch.Tensor]:
    """A LoRA adapter without new tokens, and its logits."""
    import peft

    model = adapters.attach(bases.quantized_base(base), peft.LoraConfig(task_type="CAUSAL_LM", r=2))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            weight.data.fill_(0.1)
    adapters.save_adapter(model, load_tokenizer(base), tmp_path / "old tokens", base, {})
    return tmp_path / "old tokens", logits(model)


def test_new_tokens_of_one_adapter_leave_the_others_alone(
    adapter: tuple[Path, torch.Tensor], old_tokens: tuple[Path, torch.Tensor]
) -> None:
    model = adapters.open_adapter(adapter[0])
    adapters.add_adapters(model, {"old": old_tokens[0]})
    assert torch.equal(logits(model), adapter[1])
    model.set_adapter("old")
    assert torch.allclose(logits(model)[:, :-3], old_tokens[1], atol=1e-6)
    with pytest.raises(UserError, match="open this one first"):
        adapters.add_adapters(adapters.open_adapter(old_tokens[0]), {"new": adapter[0]})
    weights = load_file(old_tokens[0] / bases.ADAPTER_WEIGHTS)
    weights.pop(sorted(weights)[-1])
    save_file(weights, old_tokens[0] / bases.ADAPTER_WEIGHTS)
    with pytest.raises(UserError, match="weights are missing"):
        adapters.add_adapters(model, {"damaged": old_tokens[0]})


def test_kinds_that_cannot_share_say_so_and_sets_are_saved_in_order(
    tmp_path: Path, base: Path, adapter: tuple[Path, torch.Tensor]
) -> None:
    import peft

    names = [f"{part}_proj" for part in ("v", "q", "up", "o", "k", "gate", "down")]
    config = peft.IA3Config(task_type="CAUSAL_LM", target_modules=names, feedforward_modules=["down_proj"])
    model = adapters.attach(bases.quantized_base(base), config)
    adapters.save_adapter(model, None, tmp_path / "ia3", base, {})
    assert json.loads((tmp_path / "ia3/adapter_config.json").read_text())["target_modules"] == sorted(names)
    with pytest.raises(UserError, match="adapters of kinds lora and ia3 cannot share a base"):
        adapters.add_adapters(adapters.open_adapter(adapter[0]), {"other": tmp_path / "ia3"})
