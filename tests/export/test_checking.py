"""The comparison of an export with its source, and the processes that runtimes run in."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from rinsho.errors import UserError
from rinsho.export.checking import BOUNDS, Agreement, agreement, in_runtime, must_hold, spelling
from rinsho.export.gguf_file import About, write_gguf
from rinsho.export.probes import AS_QUESTIONS, TEXTS, probes
from rinsho.export.weights import open_weights
from rinsho.generate.loading import load_tokenizer


def written(path: Path, rows: np.ndarray) -> Path:
    rows.astype(np.float32).tofile(path)
    return path


def test_figures_of_known_logits(tmp_path: Path) -> None:
    source = np.log(np.array([[0.5, 0.25, 0.25], [0.2, 0.7, 0.1]]))
    export = np.log(np.array([[0.25, 0.5, 0.25], [0.2, 0.7, 0.1]])) + 3  # a constant changes no share
    found = agreement(written(tmp_path / "a", source), written(tmp_path / "b", export), 3)
    assert found.positions == 2 and found.top1 == 0.5
    assert found.largest_kl == pytest.approx(0.25 * math.log(2), rel=1e-5)
    assert found.mean_kl == pytest.approx(0.125 * math.log(2), rel=1e-5)
    assert found.largest_difference == pytest.approx(3 + math.log(2), rel=1e-5)


def test_many_positions_are_compared_in_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    draw = np.random.default_rng(1)
    rows = draw.normal(size=(50, 7))
    paths = written(tmp_path / "a", rows), written(tmp_path / "b", rows + draw.normal(size=rows.shape) * 0.1)
    whole = agreement(*paths, 7)
    monkeypatch.setattr("rinsho.export.checking.ROWS", 8)
    parts = agreement(*paths, 7)
    assert parts.positions == whole.positions == 50 and parts.top1 == whole.top1
    assert parts.mean_kl == pytest.approx(whole.mean_kl)


@pytest.mark.parametrize("wrong", ["nan", "fewer"])
def test_logits_that_are_no_numbers_or_too_few_hold_no_bound(tmp_path: Path, wrong: str) -> None:
    rows = np.zeros((4, 3))
    other = rows[:3] if wrong == "fewer" else np.where(np.eye(4, 3) > 0, np.nan, rows)
    found = agreement(written(tmp_path / "a", rows), written(tmp_path / "b", other), 3)
    assert not any(bound.holds(found) for bound in BOUNDS.values())


def test_outside_its_bound_an_export_is_refused_with_the_figures() -> None:
    with pytest.raises(UserError, match=r"model-x.gguf: the export does not answer as the model: first choice equal 3"):
        must_hold(Agreement(100, 0.3, 0.6, 2.0, 6.3), "q4_0", "model-x.gguf")
    must_hold(Agreement(100, 0.93, 0.006, 0.2, 1.1), "q4_0", "model-x.gguf")
    with pytest.raises(UserError):  # good enough for four bits, not for sixteen
        must_hold(Agreement(100, 0.93, 0.006, 0.2, 1.1), "f16", "model-x.gguf")


def test_spelling_counts_texts_and_ids() -> None:
    found = spelling([[1, 2, 3], [4, 5]], [[1, 2, 3], [4, 6, 5]])
    assert (found.texts, found.identical, found.equal_ids) == (2, 0.5, 1.0)
    assert spelling([[1, 2], [3, 4]], [[2, 1], [9]]).equal_ids == 0.25


def test_a_file_that_its_runtime_does_not_open_is_told(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    request = {"runtime": "llama.cpp", "path": str(tmp_path / "a.gguf"), "ids": [[1]], "logits": "x"}
    with pytest.raises(UserError, match=r"a.gguf: llama.cpp does not run the export \(exit code 1\)"):
        in_runtime(request, tmp_path / "a.gguf")


def test_a_runtime_that_ends_its_process_ends_that_one_alone(
    ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """llama.cpp aborts at an assertion when no layer of a mimo2 file slides."""
    gguf = pytest.importorskip("gguf")
    pytest.importorskip("llama_cpp")
    real = gguf.GGUFWriter.add_sliding_window_pattern
    monkeypatch.setattr(
        gguf.GGUFWriter, "add_sliding_window_pattern", lambda self, value: real(self, [False] * len(value))
    )
    write_gguf(open_weights(ours), tmp_path / "a.gguf", "mimo2", "f16", About("a"))
    request = {"runtime": "llama.cpp", "path": str(tmp_path / "a.gguf"), "ids": [[1]], "logits": str(tmp_path / "x")}
    with pytest.raises(UserError, match=r"does not run the export \(signal 6\)"):
        in_runtime(request, tmp_path / "a.gguf")


def test_probes_fit_the_window_and_hold_questions_and_a_long_prompt(ours: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(ours)
    given = tmp_path / "texts.txt"
    given.write_text("患者の熱。\n\n咳がある。\n", encoding="utf-8")
    found = probes(tokenizer, 64, ours, given)
    assert max(map(len, found.ids)) == 64 and len(found.ids[-1]) == 64
    assert found.texts[-2:] == ["患者の熱。", "咳がある。"]
    asked = [ids for ids in found.ids if tokenizer.convert_tokens_to_ids("<|assistant|>") in ids]
    assert 0 < len(asked) <= AS_QUESTIONS
    assert all(ids[0] == tokenizer.bos_token_id for ids in found.ids)
    assert len(TEXTS) >= 40 and len(set(TEXTS)) == len(TEXTS)


def test_without_a_chat_form_nothing_is_asked(llama: Path) -> None:
    tokenizer = load_tokenizer(llama)
    assert len(probes(tokenizer, 64, llama).ids) == len(TEXTS) + 1
