"""Run folders by hand, made by the real `perform`, and the facts of an export, for the tests of cards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from rinsho.recipe import Settings
from rinsho.run import Report, perform

CONFIG = {
    "model_type": "arcee", "hidden_act": "silu", "num_hidden_layers": 2, "hidden_size": 32, "intermediate_size": 64,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300, "max_position_embeddings": 256,
}  # fmt: skip
CHECKS = {"positions": 900, "top1": 0.9876, "mean_kl": 2.5e-05, "largest_kl": 0.001, "largest_difference": 0.031}
INSIDE = {"model": "t5", "texts": 40, "raw": {"identical": 0.25, "equal_ids": 0.75}, "exact": False}
INSIDE |= {"cleaned": {"identical": 0.5, "equal_ids": 0.9}}
SOURCES = [
    {"source": "records", "documents": 10, "tokens": 900, "share": 0.9, "licenses": {"CC-BY-NC-4.0": 10}},
    {"source": "web", "documents": 5, "tokens": 100, "share": 0.1, "licenses": {"": 2, "MIT": 3}},
]
SCORE = {
    "task": "smdis", "mode": "constrained", "n": 100, "metric": "accuracy", "score": 0.6, "interval": [0.5, 0.69],
    "chance": 0.5, "above_chance": False, "baselines": {"majority": 0.5, "naive_bayes": 0.92}, "also": {"kappa": 0.2},
    "kappa_interval": [0.0, 0.38],
}  # fmt: skip
LEAK = {
    "task": "smdis", "questions": 100, "exact": 7, "near": 2, "too_short": 1,
    "scores": {"constrained": {"leaked": {"n": 9, "score": 0.9}, "clean": {"n": 91, "score": 0.57}}},
}  # fmt: skip


class Recipe(Settings):
    """A few settings that cards show."""

    learning_rate: float = 0.002
    seed: int = 1
    init_from: str = "nothing"


def made(
    out: Path,
    kind: str,
    inputs: list[Path],
    about: dict[str, Any],
    numbers: dict[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """The run folder of a stage that publishes a model without weights."""

    def work(stage: Any) -> Report:
        tokenizer = {"tokenizer_class": "RinshoTokenizer", "segment": "strict", "segmenter": "ipadic-1.0.0"}
        for name, content in {"rinsho.json": about, "config.json": CONFIG, "tokenizer_config.json": tokenizer}.items():
            (stage.out / name).write_text(json.dumps(content))
        return Report(numbers or {}, "")

    perform(kind, Recipe(**settings), inputs, out, work)
    return out


def tokenizer(folder: Path) -> Path:
    """A tokenizer's run folder."""
    return made(folder, "tokenizer", [_text(folder.parent / "corpus.txt")], {}, {"characters_per_token": 1.75})


def base(folder: Path, **about: Any) -> Path:
    """A pre-trained model."""
    told = {"stage": "pretrain", "steps": 12, "seen_tokens": 3456, "validation_loss": 4.25}
    told["data"] = [{"stage": "pretrain", "sources": SOURCES}]
    inputs = [tokenizer(folder.parent / "tokenizer"), _text(folder.parent / "corpus.txt")]
    return made(folder, "pretrain", inputs, {k: v for k, v in (told | about).items() if v is not None})


def tuned(folder: Path, below: Path, **about: Any) -> Path:
    """A model tuned on it."""
    pool = {"rows": 60, "test_rows": 6, "near_documents": 4, "same_case": 0, "left": 50}
    split = {"split": "document", "test_part": "published", "seed": None, "test_hash": "abc", "pools": {"SMDIS": pool}}
    told: dict[str, Any] = {"stage": "finetune", "base": {"stage": "pretrain", "steps": 12, "seen_tokens": 3456}}
    told["finetune"] = {
        "steps": 6, "seen_tokens": 700, "chat": "rinsho", "answer_form": "letter", "prompt_form": "short", "rows": 50,
        "tasks": ["smdis"], "splits": [split | {"warnings": ["smdis: few rows"]}], "prompt_template": {"name": "none"},
    }  # fmt: skip
    own = {"source": "smdis", "documents": 50, "tokens": 5000, "licenses": {"CC-BY-4.0": 50}}
    told["data"] = [{"stage": "pretrain", "sources": SOURCES}, {"stage": "finetune", "sources": [own]}]
    tasks = {"smdis": {"rows": 50, "tokens": 5000}, "nrner": {"rows": 3, "tokens": 300}}
    return made(
        folder, "finetune", [below], {k: v for k, v in (told | about).items() if v is not None}, {"tasks": tasks}
    )


def evaluation(folder: Path, of: Path, **asked: Any) -> Path:
    """An evaluation of it."""
    scores = {
        "model": "invented", "prompt_form": "short", "answer_form": "letter", "few_shot": 0, "test_part": "published",
        "split": "document", "max_items": None, "scores": [SCORE], "leakage": [LEAK],
        "leakage_source": "documents listed in the model folder", "notes": [],
    }  # fmt: skip
    facts = {"stage": "finetune", "steps": 6, "seen_tokens": 3456, "test_hashes": ["abc"], "model": "invented"}

    def work(stage: Any) -> Report:
        (stage.out / "scores.json").write_text(json.dumps(scores))
        (stage.out / "asked.json").write_text(json.dumps(facts | asked))
        return Report({}, "")

    perform("evaluate", Recipe(), [of], folder, work)
    return folder


def export(to: str, **changes: Any) -> dict[str, Any]:
    """The facts as the stage gives them."""
    name, kind = ("model-llama-q8_0.gguf", "q8_0") if to == "gguf" else ("model.safetensors", "bfloat16")
    facts: dict[str, Any] = {
        "to": to, "flavour": "llama" if to == "gguf" else None, "types": ["q8_0"] if to == "gguf" else [],
        "dtype": None if to == "gguf" else "bfloat16", "architecture": "arcee", "parameters": 12345, "chat": True,
        "files": [{"name": name, "type": kind, "size_bytes": 2_500_000, "checks": CHECKS}],
        "checks": {"texts": 40, "prompts": 53, "tokens": 2100}, "tokenizer_inside": INSIDE if to == "gguf" else None,
        "exact_inside": False, "max_position_embeddings": 256, "title": "invented-1", "license": None,
    }  # fmt: skip
    return facts | changes


def _text(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("発熱\n")
    return path
