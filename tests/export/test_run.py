"""Whole exports: every form in its real runtime, adapters, refusals, continuing, and what stays private."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rinsho import export
from rinsho.errors import UserError
from rinsho.export import Recipe, checking, work
from rinsho.recipe import settings
from rinsho.run import read_done

SECRET = "誰にも見せない患者の記録である。"


def made(model: Path, out: Path, **settings: Any) -> dict[str, Any]:
    report = export.run(Recipe(**settings), [model], out)
    return report.numbers


def gguf_packages() -> None:
    pytest.importorskip("gguf")
    pytest.importorskip("llama_cpp")


@pytest.mark.parametrize("flavour", ["llama", "mimo2"])
def test_gguf_of_every_type_answers_as_the_model(ours: Path, tmp_path: Path, flavour: str) -> None:
    gguf_packages()
    types = ("f16", "q8_0", "q4_0", "q4_k_m") if flavour == "llama" else ("f16", "q4_0")
    numbers = made(ours, tmp_path / "out", flavour=flavour, types=types, title="試し")
    rows = {row["type"]: row for row in numbers["files"]}
    assert rows["f16"]["checks"]["top1"] > 0.99 and rows["f16"]["checks"]["mean_kl"] < 1e-5
    assert rows["f16"]["checks"]["mean_kl"] < rows["q4_0"]["checks"]["mean_kl"]
    for row in numbers["files"]:
        assert (tmp_path / "out" / row["name"]).stat().st_size == row["size_bytes"]
    assert rows["q4_0"]["size_bytes"] < rows["f16"]["size_bytes"]
    kept = json.loads((tmp_path / "out" / "rinsho.json").read_text())
    assert kept["stage"] == "finetune" and kept["export"]["files"][0]["checks"]["positions"] > 1000
    assert {"tokenizer.json", "README.md", "chat_template.jinja"} <= {
        path.name for path in (tmp_path / "out").iterdir()
    }
    assert not (tmp_path / "out" / "partial").exists()


def test_the_tokenizer_inside_is_exact_in_the_plain_form(ours: Path, tmp_path: Path) -> None:
    """Characters without a piece apart, which the report counts."""
    gguf_packages()
    numbers = made(ours, tmp_path / "out", types=("f16",))
    inside = numbers["tokenizer_inside"]
    assert numbers["exact_inside"] is True and inside["texts_with_bytes"] > 0
    assert inside["cleaned"]["identical"] == 1 - inside["texts_with_bytes"] / inside["texts"]
    assert inside["raw"]["identical"] < inside["cleaned"]["identical"]


def test_with_mecab_in_front_the_tokenizer_inside_is_not_exact(strict: Path, tmp_path: Path) -> None:
    gguf_packages()
    texts = tmp_path / "texts.txt"
    texts.write_text(
        "この患者は東京都の病院で糖尿病と診断された。\n心筋梗塞の疑いがある患者を診察した。\n", encoding="utf-8"
    )
    numbers = made(strict, tmp_path / "out", types=("f16",), probe_texts=str(texts))
    assert numbers["exact_inside"] is False
    assert "rinsho serve" in (tmp_path / "out" / "report.md").read_text()


def test_a_foreign_llama_has_no_vocabulary_inside(llama: Path, tmp_path: Path) -> None:
    gguf_packages()
    numbers = made(llama, tmp_path / "out", types=("q8_0",))
    assert numbers["tokenizer_inside"]["model"] == "no_vocab" and numbers["architecture"] == "llama"


@pytest.mark.slow
def test_transformers_alone_opens_the_llama_form(ours: Path, tmp_path: Path) -> None:
    from rinsho.generate.loading import load_tokenizer

    (row,) = made(ours, tmp_path / "out", to="llama", dtype="float32")["files"]
    assert row["checks"]["top1"] == 1 and row["checks"]["mean_kl"] < 1e-9
    assert load_tokenizer(tmp_path / "out").encode_text("患者") == load_tokenizer(ours).encode_text("患者")


def test_a_wrong_block_is_refused_and_nothing_appears(
    ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The trap: as `arcee`, llama.cpp computes squared ReLU, whatever the configuration says."""
    gguf_packages()
    real = work.write_gguf

    def wrong(weights: Any, path: Path, flavour: Any, type_: Any, about: Any) -> None:
        real(weights, path, "mimo2", type_, about)
        path.write_bytes(path.read_bytes().replace(b"mimo2", b"arcee"))

    monkeypatch.setattr(work, "write_gguf", wrong)
    with pytest.raises(UserError, match=r"does not answer as the model: first choice equal .*KL mean"):
        made(ours, tmp_path / "out", flavour="mimo2", types=("f16",))
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {"log.txt", ".lock"}
    monkeypatch.undo()
    made(ours, tmp_path / "out", types=("q8_0",))  # the folder is free for another recipe


def test_an_interrupted_export_continues_to_the_same_bytes(
    ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gguf_packages()
    types = ("f16", "q8_0")
    made(ours, tmp_path / "whole", types=types)
    real, seen = checking.in_runtime, []

    def interrupted(request: dict[str, Any], where: Path) -> dict[str, Any]:
        seen.append(where.name)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return real(request, where)

    monkeypatch.setattr(checking, "in_runtime", interrupted)
    with pytest.raises(KeyboardInterrupt):
        made(ours, tmp_path / "cut", types=types)
    assert read_done(tmp_path / "cut") is None and not list((tmp_path / "cut").glob("*.gguf"))
    made(ours, tmp_path / "cut", types=types)
    assert seen == ["model-llama-f16.gguf", "model-llama-q8_0.gguf", "model-llama-q8_0.gguf"]
    whole, cut = read_done(tmp_path / "whole"), read_done(tmp_path / "cut")
    assert whole is not None and cut is not None and whole["products"] == cut["products"]


def test_given_texts_are_compared_on_and_stand_nowhere(ours: Path, tmp_path: Path) -> None:
    gguf_packages()
    texts = tmp_path / "texts.txt"
    texts.write_text(f"{SECRET}\n", encoding="utf-8")
    out = tmp_path / "out"
    numbers = made(ours, out, types=("f16",), probe_texts=str(texts))
    assert numbers["checks"]["texts"] == len(work.probes.__globals__["TEXTS"]) + 1
    for path in (path for path in out.rglob("*") if path.is_file()):
        assert SECRET.encode() not in path.read_bytes(), path.name


@pytest.mark.slow
def test_an_adapter_is_merged_first(llama: Path, tmp_path: Path) -> None:
    peft = pytest.importorskip("peft")
    import torch

    from rinsho import adapters
    from rinsho.generate.loading import load_model, load_tokenizer

    model = adapters.attach(load_model(llama), peft.LoraConfig(task_type="CAUSAL_LM", target_modules="all-linear"))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                value.normal_(std=0.2)
    adapters.save_adapter(model, load_tokenizer(llama), tmp_path / "adapter", llama, {"stage": "finetune"})
    made(tmp_path / "adapter", tmp_path / "out", to="hf", dtype="float32")
    ids = torch.arange(259, 280)[None]
    with torch.no_grad():
        wanted, found, base = (
            load_model(folder)(input_ids=ids).logits for folder in (tmp_path / "adapter", tmp_path / "out", llama)
        )
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
    assert not torch.allclose(found, base, atol=0.1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"types": ("q8_0", "q8_0")}, "a type stands twice"),
        ({"types": ()}, "no type is given"),
        ({"probe_texts": "nowhere.txt"}, "nowhere.txt: not there"),
        ({"to": "hf", "types": ("q4_0",)}, "types is not for hf"),
        ({"to": "llama", "flavour": "mimo2"}, "flavour is not for llama"),
        ({"dtype": "float32"}, "dtype is not for gguf"),
        ({"base": "x"}, "no adapter"),
    ],
)
def test_settings_that_cannot_work_are_told_before_starting(ours: Path, given: dict[str, Any], message: str) -> None:
    found = export.check(Recipe(**given), [ours])
    assert any(message in str(problem) for problem in found)


def test_a_wrong_type_is_one_error() -> None:
    with pytest.raises(UserError) as caught:
        settings(Recipe, {"types": ["q5_k"]}, "the command line, export")
    assert "q5_k" in str(caught.value) and "at least" not in str(caught.value)


def test_resolved_settings_are_taken_again(ours: Path) -> None:
    again = settings(Recipe, Recipe(to="hf").model_dump(), "a recipe")
    assert export.check(again, [ours]) == []


def test_an_evaluation_in_an_older_form_is_told_before_starting(ours: Path, tmp_path: Path) -> None:
    (tmp_path / "scores.json").write_text(json.dumps({"leakage": [{"task": "smdis", "passages": 3}]}))
    assert "older rinsho" in str(export.check(Recipe(to="hf"), [ours, tmp_path])[0])


def test_paths_that_are_wrong_are_told_before_starting(ours: Path, llama: Path, tmp_path: Path) -> None:
    assert "MODEL" in str(export.check(Recipe(), [])[0])
    assert "not there" in str(export.check(Recipe(), [tmp_path / "no"])[0])
    assert "no evaluation" in str(export.check(Recipe(to="hf"), [ours, tmp_path])[0])
    assert "has a gate" in str(export.check(Recipe(flavour="mimo2"), [llama])[0])
    assert export.check(Recipe(to="hf"), [ours]) == []
