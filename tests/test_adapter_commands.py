"""`rinsho adapter show`, `rinsho adapter merge` and `rinsho chat --adapter`: two adapters on one tiny base."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from rinsho.chat import TEMPLATE
from rinsho.cli import main
from toy_models import toy_folder

QUESTION = "患者は発熱\n"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = toy_folder(tmp_path_factory.mktemp("models") / "base", window=96)
    (folder / "chat_template.jinja").write_text(TEMPLATE, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def adapters(base: Path) -> list[Path]:
    """Two LoRA of different random weights, large enough to change what is said."""
    import torch
    from peft import LoraConfig

    from rinsho.adapters import attach, save_adapter
    from rinsho.generate.loading import load_model, load_tokenizer

    folders = [base.parent / name for name in ("notes", "letters")]
    for seed, folder in enumerate(folders):
        model = attach(load_model(base), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
        torch.manual_seed(seed)
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.data.normal_(0, 0.3)
        save_adapter(model, load_tokenizer(base), folder, base, {"finetune": {"tasks": [folder.name]}})
    return folders


def said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], lines: str, *words: object) -> list[str]:
    """The answers of `rinsho chat` to these lines."""
    monkeypatch.setattr("sys.stdin", io.StringIO(lines))
    assert main(["chat", *map(str, words), "--max-new-tokens", "8"]) == 0
    return capsys.readouterr().out.split("\n")


def test_an_adapter_folder_talks_on_its_base(base, adapters, monkeypatch, capsys) -> None:
    plain = said(monkeypatch, capsys, QUESTION, base)
    tuned = said(monkeypatch, capsys, QUESTION, adapters[0])
    assert tuned != plain
    moved = said(monkeypatch, capsys, QUESTION, adapters[0], "--base", base)
    assert moved == tuned


def test_adapters_are_switched_in_the_conversation(base, adapters, monkeypatch, capsys) -> None:
    alone = [said(monkeypatch, capsys, QUESTION, folder)[0] for folder in adapters]
    assert alone[0] != alone[1]
    named = [f"--adapter={folder.name}={folder}" for folder in adapters]
    assert said(monkeypatch, capsys, QUESTION, base, *named)[0] == alone[0]
    assert said(monkeypatch, capsys, "/adapter letters\n" + QUESTION, base, *named)[0] == alone[1]
    monkeypatch.setattr("sys.stdin", io.StringIO("/adapter\n/adapter letters\n/adapter x\n/adapter notes\n" + QUESTION))
    assert main(["chat", str(base), *named, "--max-new-tokens", "8"]) == 0
    out, errors = capsys.readouterr()
    assert out.split("\n")[0] == alone[0]
    assert "no adapter x; adapters: notes, letters; now letters" in errors
    assert "adapters: notes, letters; now notes" in errors and "now letters" in errors
    both = said(monkeypatch, capsys, "/adapter letters\n" + QUESTION, adapters[0], named[1])
    assert both[0] == alone[1]
    file = adapters[1] / "rinsho.json"
    before = file.read_text()
    file.write_text(before.replace('"base_dtype": "float32"', '"base_dtype": "bfloat16"'))
    assert main(["chat", str(base), *named]) == 0
    assert "letters was trained on bfloat16, answers here on float32\n" in capsys.readouterr().err
    file.write_text(before)
    said(monkeypatch, capsys, "/adapter notes\n", base)  # no adapters: said, not asked


def test_a_wrong_base_is_refused_in_one_line(adapters, tmp_path, capsys) -> None:
    other = toy_folder(tmp_path / "other", seed=9, window=96)
    assert main(["chat", str(adapters[0]), "--base", str(other)]) == 2
    assert "another base" in capsys.readouterr().err
    assert main(["chat", str(other), "--base", str(other)]) == 2
    assert "--base is for adapters" in capsys.readouterr().err
    assert main(["chat", str(other), f"--adapter=notes={adapters[0]}"]) == 2
    assert "another base" in capsys.readouterr().err


def test_show_and_merge_print_what_they_found(base, adapters, tmp_path, monkeypatch, capsys) -> None:
    assert main(["adapter", "show", str(adapters[0])]) == 0
    page = capsys.readouterr().out
    assert "| method | lora |" in page and str(base) in page and "notes" in page
    text = tmp_path / "lines.txt"
    text.write_text("発熱を認める。\n\n肺癌の疑い。\n", encoding="utf-8")
    out = tmp_path / "merged"
    assert main(["adapter", "merge", str(adapters[0]), "--out", str(out), "--text", str(text)]) == 0
    assert "2 given texts" in capsys.readouterr().out
    assert said(monkeypatch, capsys, QUESTION, out) == said(monkeypatch, capsys, QUESTION, adapters[0])
    text.write_bytes("発熱".encode("cp932"))
    assert main(["adapter", "merge", str(adapters[0]), "--out", str(tmp_path / "no"), "--text", str(text)]) == 2
    assert "not UTF-8" in capsys.readouterr().err and not (tmp_path / "no").exists()
    assert main(["adapter", "show", str(base)]) == 2
    assert "no complete adapter in here" in capsys.readouterr().err
