"""rinsho.tokenizer.encode: token files from a corpus, by any number of processes, and pre-training on them."""

import json
import os
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from rinsho import pretrain, token_pieces
from rinsho.document import Document, read_documents, write_documents
from rinsho.errors import UserError
from rinsho.run import read_done
from rinsho.token_files import FILES, open_encoded, verify_tokens
from rinsho.tokenization import fingerprint, load
from rinsho.tokenizer import encode
from rinsho.tokenizer.encode import EncodeRecipe, check, run
from tokenizer.conftest import write_corpus

RECIPE = EncodeRecipe(workers=1, validation_fraction=0.1, copy_fraction=0.3, copy_window=16)
MODEL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "max_position_embeddings": 64}
TRAINING = {
    "model": MODEL,
    "sequence_length": 32,
    "batch_tokens": 128,
    "max_tokens": 512,
    "warmup_steps": 1,
    "validation_tokens": 1000,
    "validation_fraction": 0.1,
    "copy_fraction": 0.3,
    "threads": 1,
    "dtype": "fp32",
    "device": "cpu",
}


def products(out: Path) -> dict[str, str]:
    """Names and hashes of what a finished run published."""
    done = read_done(out)
    assert done is not None
    return {name: row["hash"] for name, row in done["products"].items()}


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory, tokenizer_folder: Path, corpus: Path) -> Path:
    """The encoded corpus, made by one process."""
    out = tmp_path_factory.mktemp("encoded") / "tokens"
    run(RECIPE, [tokenizer_folder, corpus], out)
    return out


def test_the_ids_are_those_of_the_tokenizer_document_by_document(
    tokenizer_folder: Path, corpus: Path, tmp_path: Path
) -> None:
    report = run(EncodeRecipe(workers=1), [tokenizer_folder, corpus], tmp_path / "out")
    tokenizer = load(tokenizer_folder)
    training, held_out = open_encoded([tmp_path / "out"], fingerprint(tokenizer))
    assert held_out is not None
    found = {
        tuple(part.tokens[start:end].tolist()) for part in (training, held_out) for start, end in pairwise(part.offsets)
    }
    texts = [document.text for path in sorted(corpus.iterdir()) for document in read_documents(path)]
    wanted = {(tokenizer.bos_token_id, *tokenizer.encode_text(text), tokenizer.eos_token_id) for text in texts}
    assert found == wanted
    numbers = report.numbers
    assert numbers["documents"] + numbers["validation_documents"] == len(texts) == 600
    assert numbers["tokens"] + numbers["validation_tokens"] >= sum(map(len, wanted))
    assert 0 < numbers["validation_documents"] < 30
    assert {row["source"] for row in numbers["sources"]} == {"wiki", "case"}
    assert sum(row["tokens"] for row in numbers["sources"]) == numbers["tokens"]


def test_two_workers_give_identical_bytes(
    encoded: Path, tokenizer_folder: Path, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(token_pieces, "WORKER_BYTES", 1)  # processes also for so little text
    for workers in (1, 2):
        recipe = RECIPE.model_copy(update={"workers": workers, "validation_fraction": 0.0})
        run(recipe, [tokenizer_folder, corpus], tmp_path / str(workers))
    names = (*FILES, "tokens.json")
    assert products(tmp_path / "1") == products(tmp_path / "2")
    assert set(products(tmp_path / "2")) == {f"train/{name}" for name in names}
    assert set(products(encoded)) == {f"{part}/{name}" for part in ("train", "validation") for name in names}
    for part in ("train", "validation"):
        verify_tokens(encoded / part)


def test_killed_and_continued_gives_identical_bytes(
    tokenizer_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = """
import os, signal, sys
from pathlib import Path
from rinsho import token_pieces
from rinsho.tokenizer.encode import EncodeRecipe, run
token_pieces.WORKER_BYTES = 1
token_pieces._Meter.ended = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # when the first shard is done
run(EncodeRecipe.model_validate_json(sys.argv[1]), [Path(name) for name in sys.argv[3:]], Path(sys.argv[2]))
"""
    # Equal shards, each longer than the moment until the run looks: when one is done, others are not.
    large = write_corpus(tmp_path / "large", documents=12_000, shards=6, seed=2)
    inputs, out = [tokenizer_folder, large], tmp_path / "out"
    recipe = RECIPE.model_copy(update={"workers": 2})
    arguments = [sys.executable, "-c", code, recipe.model_dump_json(), str(out), *map(str, inputs)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    assert subprocess.run(arguments, check=False, capture_output=True, env=environment).returncode == -signal.SIGKILL
    assert not (out / "DONE").exists()
    finished = {path.name for path in (out / "partial" / "pieces" / "train").glob("*/0*")}
    assert 0 < len(finished) < 6
    again: list[str] = []
    real = token_pieces.encode_shard

    def seen(job: token_pieces.Job, count: token_pieces.Count) -> token_pieces.Encoded:
        if job.piece.parent.parent.name == "train":
            again.append(job.piece.name)
        return real(job, count)

    monkeypatch.setattr(token_pieces, "encode_shard", seen)
    run(RECIPE, inputs, out)
    assert 0 < len(again) <= 6 - len(finished)  # a worker may have ended a shard within the moment of the kill
    run(RECIPE, inputs, tmp_path / "whole")
    assert products(out) == products(tmp_path / "whole")


def test_pretraining_on_token_files_equals_pretraining_on_the_corpus(
    encoded: Path, tokenizer_folder: Path, corpus: Path, tmp_path: Path
) -> None:
    recipe = pretrain.Recipe.model_validate(TRAINING)
    reports = [
        pretrain.run(recipe, [tokenizer_folder, given], tmp_path / name)
        for name, given in (("corpus", corpus), ("tokens", encoded))
    ]
    assert products(tmp_path / "corpus") == products(tmp_path / "tokens")
    numbers = [{k: v for k, v in report.numbers.items() if k != "tokens_per_second"} for report in reports]
    assert numbers[0] == numbers[1]
    assert numbers[0]["validation_documents"] > 0
    manifest = json.loads((tmp_path / "tokens" / "rinsho.json").read_text())
    assert manifest["tokenizer"] == fingerprint(tokenizer_folder)


def test_what_pretraining_refuses_of_token_files(
    encoded: Path, tokenizer_folder: Path, corpus: Path, tmp_path: Path
) -> None:
    def problem(*inputs: Path, **changed: object) -> str:
        found = pretrain.check(pretrain.Recipe.model_validate(TRAINING | changed), [tokenizer_folder, *inputs])
        return " | ".join(map(str, found))

    assert problem(encoded) == problem(encoded, encoded) == ""
    assert "given together" in problem(encoded, corpus)
    assert "made with copy_fraction 0.3; expected 0.0" in problem(encoded, copy_fraction=0.0)
    assert "reach back 16 tokens" in problem(encoded, sequence_length=16)
    other = load(tokenizer_folder)
    other.init_kwargs["split_digits"] = not other.split_digits
    other.save_pretrained(tmp_path / "other")
    mine, wanted = fingerprint(tokenizer_folder), fingerprint(tmp_path / "other")
    recipe = pretrain.Recipe.model_validate(TRAINING)
    (found,) = pretrain.check(recipe, [tmp_path / "other", encoded])
    assert f"made with the tokenizer {mine}; expected {wanted}" in str(found)
    with pytest.raises(UserError, match="made with the tokenizer"):
        pretrain.run(recipe, [tmp_path / "other", encoded], tmp_path / "out")


def test_pretraining_finds_a_changed_byte_before_the_first_step(
    encoded: Path, tokenizer_folder: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy"
    for path in encoded.glob("*/*.*"):
        if path.parent.name in ("train", "validation"):
            (copy / path.parent.name).mkdir(parents=True, exist_ok=True)
            (copy / path.parent.name / path.name).write_bytes(path.read_bytes())
    data = bytearray((copy / "train" / "tokens.bin").read_bytes())
    data[1000] ^= 1
    (copy / "train" / "tokens.bin").write_bytes(data)
    recipe = pretrain.Recipe.model_validate(TRAINING)
    assert pretrain.check(recipe, [tokenizer_folder, copy]) == []
    with pytest.raises(UserError, match=r"tokens.bin was changed"):
        pretrain.run(recipe, [tokenizer_folder, copy], tmp_path / "out")


def test_what_is_refused(tokenizer_folder: Path, corpus: Path, tmp_path: Path) -> None:
    recipe = EncodeRecipe(workers=1)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "TOKENIZER CORPUS" in str(check(recipe, [tokenizer_folder])[0])
    assert "no tokenizer" in str(check(recipe, [corpus, corpus])[0])
    assert "no documents" in str(check(recipe, [tokenizer_folder, empty])[0])
    with pytest.raises(UserError, match="not there"):
        run(recipe, [tokenizer_folder, tmp_path / "nowhere"], tmp_path / "out")
    with (empty / "a.jsonl.zst").open("wb") as file:
        write_documents(file, [])
    with pytest.raises(UserError, match="the corpus has no documents"):
        run(recipe, [tokenizer_folder, empty], tmp_path / "none")
    rows = [Document("患者は発熱を主訴に来院した。", f"d{number}").to_line() for number in range(9)]
    (empty / "b.jsonl").write_bytes(b"".join(rows) + b"{broken\n")
    with pytest.raises(UserError, match=r"1 of 10 documents cannot be read \(first: b.jsonl:10, invalid_json\)"):
        run(EncodeRecipe(workers=1, validation_fraction=0), [tokenizer_folder, empty], tmp_path / "broken")


def test_the_step_opens_without_numpy() -> None:
    code = f"import sys, {encode.__name__}; print([name for name in ('numpy', 'transformers') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_copy_without_its_held_out_part_is_refused(tokenizer_folder: Path, corpus: Path, tmp_path: Path) -> None:
    run(RECIPE, [tokenizer_folder, corpus], tmp_path / "out")
    (tmp_path / "out" / "validation" / "tokens.json").unlink()
    with pytest.raises(UserError, match=r"validation/tokens\.json is missing"):
        open_encoded([tmp_path / "out"])
