"""The measuring rods of benchmarks/ that a claim rests on."""

import importlib.util
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def _script(name):
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


ngram = _script("character_ngram")

TRAIN = ["すもももももももものうち", "にわにはにわにわとりがいる", "ももとすもも"]
# log10 of each character and of the end mark: KenLM's lmplz (commit 4cb443e) with -o 3 --discount_fallback on the
# lines above, one word a character (13, the end mark and the unknown one); its query program on these two lines.
KENLM = {
    "すもものにわ": (-0.686005, -0.110486, -0.186834, -1.033029, -1.595529, -0.394662, -1.595529),
    "もも": (-0.662692, -0.186834, -0.998905),
}


def test_probabilities_are_those_of_kenlm():
    text = ngram.number_ngrams([*TRAIN, *KENLM], 3)
    found = ngram.log_probabilities(text, slice(0, 3), slice(3, 5), outcomes=15)[-1] / math.log(10)
    wanted = [value for row in KENLM.values() for value in (0.0, *row)]
    np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_unigram_by_hand():
    # "aab": a twice, b and the end once, 4 events; no counts of counts beyond n1 = 2, n2 = 1 give discounts, so 0.5, 1.
    # p(a) = (2 - 1 + freed / U) / 4 with freed = 0.5 + 0.5 + 1 = 2 and U = 4 outcomes
    text = ngram.number_ngrams(["aab", "ac"], 1)
    found = np.exp(ngram.log_probabilities(text, slice(0, 1), slice(1, 2), outcomes=4)[0])
    np.testing.assert_allclose(found[1:], [(2 - 1 + 2 / 4) / 4, (2 / 4) / 4, (1 - 0.5 + 2 / 4) / 4])


@pytest.mark.parametrize("context", ["", "a", "ab", "ba", "abba", "c", "bc"])
def test_probabilities_sum_to_one(context):
    # Outcomes: a, b, the end mark and c, which the training text does not have.
    train = ["abbaabab", "bbabaaabbb", "a", "", "aabababba"]
    ends = [context + symbol for symbol in "abc"]
    text = ngram.number_ngrams([*train, *ends, context], 4)
    found = ngram.log_probabilities(text, slice(0, len(train)), slice(len(train), len(train) + 4), outcomes=4)
    starts = text.starts[len(train) :] - text.starts[len(train)]
    places = starts[:4] + 1 + len(context)  # the outcome's place in each of the four documents
    np.testing.assert_allclose(np.exp(found[:, places]).sum(1), 1.0)


def test_discounts_follow_the_counts_of_counts():
    counts = np.repeat([1, 2, 3, 4, 7], [100, 40, 20, 10, 5])
    rate = 100 / 180
    wanted = [0, 1 - 2 * rate * 40 / 100, 2 - 3 * rate * 20 / 40, 3 - 4 * rate * 10 / 20]
    np.testing.assert_allclose(ngram.discounts(counts), wanted)


def test_a_prefix_of_the_documents_is_the_model_of_these_alone():
    both = ngram.number_ngrams([*TRAIN, "すもものうち"], 4)
    alone = ngram.number_ngrams([TRAIN[0], "すもものうち"], 4)
    np.testing.assert_allclose(
        ngram.bits_per_character(both, slice(0, 1), slice(3, 4)),
        ngram.bits_per_character(alone, slice(0, 1), slice(1, 2)),
    )


def test_documents_are_split_as_the_corpus_was_encoded(tmp_path):
    lines = [{"id": f"d{n}", "text": "文" * (n + 1), "meta": {"source": "s"}} for n in range(40)]
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "a.jsonl").write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), "utf-8")
    from rinsho.document import read_documents
    from rinsho.token_pieces import Selection

    choice = Selection(0.3, True, 1)
    chosen = [document for document in read_documents(corpus / "a.jsonl") if choice(document)]
    rest = [line["text"] for line in lines if line["id"] not in {document.id for document in chosen}]
    for part, texts in (("train", rest), ("validation", [document.text for document in chosen])):
        folder = tmp_path / "encoded" / part
        folder.mkdir(parents=True)
        manifest = {"documents": len(texts), "characters": sum(map(len, texts)), "selection": vars(choice)}
        (folder / "tokens.json").write_text(json.dumps(manifest))
        np.save(folder / "documents.npy", np.cumsum([0, *(len(text) + 2 for text in texts)]))
    documents = ngram.read([corpus], tmp_path / "encoded")
    assert sorted(documents.texts[: documents.training]) == sorted(rest)
    assert [len(text) + 1 for text in documents.texts[: documents.training]] == documents.tokens.tolist()
    (corpus / "a.jsonl").write_text("", "utf-8")
    with pytest.raises(ValueError, match="train"):
        ngram.read([corpus], tmp_path / "encoded")


def test_kernels_are_sorted_into_the_parts_of_a_step():
    group_of = _script("pretrain_gpu_kernels").group_of
    parts = {
        "attention": [
            "pytorch_flash::flash_bwd_dq_dk_dv_loop<cutlass::bfloat16_t>",
            "triton_tem_fused_flex_attention_0",
        ],
        "matrix products": [
            "nvjet_tst_256x128_64x4_2x1_v_bz_coopA_TNT",
            "void cutlass::Kernel2<gemm_bf16>",
            "aten::mm",
        ],
        "optimizer and clipping": [
            "multi_tensor_apply_kernel<FusedAdamMathFunctor>",
            "multi_tensor_apply<LpNormFunctor>",
        ],
        "copies": ["Memcpy HtoD (Pageable -> Device)"],
        "elementwise, norms, loss": ["triton_red_fused__to_copy_add_mean_3", "vectorized_elementwise_kernel<4, SiLU>"],
        "other": ["something else"],
    }
    assert {kernel: group_of(kernel) for kernels in parts.values() for kernel in kernels} == {
        kernel: part for part, kernels in parts.items() for kernel in kernels
    }


@pytest.mark.slow
def test_card_benchmark_runs_to_the_end_at_toy_sizes(tmp_path):
    # One case of every kind, and one that fails on a processor.
    names = ["matrix products alone", "8 rows", "Trainer, 8 rows", "kernels of one step", "FP8", "Muon"]
    if importlib.util.find_spec("accelerate") is None:
        names.remove("Trainer, 8 rows")
    command = [sys.executable, str(BENCHMARKS / "pretrain_gpu.py"), "--dry", "--out", str(tmp_path), "--only", *names]
    path = os.pathsep.join([str(BENCHMARKS.parent / "src"), os.environ.get("PYTHONPATH", "")])
    subprocess.run(command, check=True, timeout=400, env={**os.environ, "PYTHONPATH": path})
    rows = {row["name"]: row for row in map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines())}
    assert set(rows) == set(names)
    assert [name for name, row in rows.items() if "error" in row] == ["FP8"]
    losses = [row["first_loss"] for row in rows.values() if "first_loss" in row]
    assert max(losses) - min(losses) < 0.01  # the Trainer's, too
    assert "| Muon | 4 |" in (tmp_path / "report.md").read_text()


def _variant_row(variant, **more):
    same = {"trained": 10, "parameters": 100, "last_loss": 2.0, "predicted": 1.0, "measured": 1.5, "seconds": 0.1}
    return {"variant": variant, **same, "speed": 1000.0, **more}


def test_a_variant_is_compared_with_its_own_reference():
    finetune = _script("finetune")
    whole, lora, rounded = (
        finetune.Variant(name, {}, beside) for name, beside in (("a", None), ("b", None), ("c", "b"))
    )
    rows = [_variant_row(whole, loss=1.0), _variant_row(lora, loss=2.0), _variant_row(rounded, loss=2.1, merge=2e-3)]
    lines = finetune.variant_tables([*rows, {"variant": finetune.Variant("d", {}, "c"), "error": "no memory"}])
    by_name = {line.split(" | ")[0].strip("| "): line for line in lines if line.startswith("| ")}
    assert "| +5.00% |" in by_name["c"] and "2.0e-03" in by_name["c"]  # 2.1 beside 2.0
    assert "%" not in by_name["b"].split("10.00%")[1]
    assert "- d: no memory" in lines


def test_scores_of_the_splits_stand_side_by_side():
    finetune = _script("finetune")
    row = {"task": "smdis", "metric": "accuracy", "n": 100, "score": 0.9, "interval": [0.8, 0.95], "chance": 0.5}
    row |= {"above_chance": True, "baselines": {"majority": 0.5}, "leaked": {"n": 99, "score": 0.91}, "clean": None}
    strict = row | {"score": 0.6, "interval": [0.45, 0.7], "above_chance": False, "leaked": None}
    found = {
        "row": {"scores": [row], "leakage": [{"task": "smdis", "share": 0.99}]},
        "document": {"scores": [strict], "leakage": [{"task": "smdis", "share": 0.0}]},
    }
    line = next(line for line in finetune.split_table(found) if line.startswith("| smdis"))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:4] == ["smdis", "accuracy", "100", "0.500"]
    assert cells[4:8] == ["majority 0.500", "**0.900 (0.800–0.950)**", "99%", "0.910 / -"]
    assert cells[8:] == ["majority 0.500", "0.600 (0.450–0.700)", "0%", "- / -"]


@pytest.mark.slow
def test_adapter_benchmark_of_the_card_runs_to_the_end_at_toy_sizes(tmp_path):
    names = ["LoRA 16 bit", "LoRA int8", "LoRA nf4, checkpointing"]
    missing = [name for name in ("peft", "bitsandbytes") if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {missing}")
    command = [sys.executable, str(BENCHMARKS / "finetune_gpu.py"), "--dry", "--out", str(tmp_path), "--only", *names]
    path = os.pathsep.join([str(BENCHMARKS.parent / "src"), os.environ.get("PYTHONPATH", "")])
    subprocess.run(command, check=True, timeout=400, env={**os.environ, "PYTHONPATH": path})
    rows = {row["name"]: row for row in map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines())}
    assert [name for name, row in rows.items() if "error" in row] == []
    assert list(rows) == ["build", *names]
    losses = [rows[name]["losses"][0] for name in names]
    assert max(losses) - min(losses) < 0.01  # random weights: near log of the vocabulary, rounded or not
    assert losses[0] == pytest.approx(math.log(320), abs=0.1)


def test_answers_in_batches_are_compared_with_those_one_by_one(tmp_path):
    from rinsho.generate.engine import Generator
    from toy_models import toy_folder

    _script("finetune")
    evaluate = _script("evaluate")
    generator = Generator(toy_folder(tmp_path))
    prompts = [[1, *range(259, 262 + 3 * number)] for number in range(8)]
    ours, peer = (evaluate.Kept(generator, answer) for answer in (generator.generate, evaluate.one_by_one(generator)))
    for stops in (None, [2, 270]):
        assert ours.generate(prompts, 30, stop_ids=stops) == peer.generate(prompts, 30, stop_ids=stops)
    names = {tuple(prompt): f"toy/{number}" for number, prompt in enumerate(prompts)}
    assert evaluate.differences(generator, ours, peer, names) == []
    told = peer.said[tuple(prompts[5])]
    peer.said[tuple(prompts[5])] = [*told[:3], 1, *told[4:]]
    (row,) = evaluate.differences(generator, ours, peer, names)
    assert (row["id"], row["token"]) == ("toy/5", 3)
    assert row["gap"] > 0
