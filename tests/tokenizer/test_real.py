"""The tokenizer on real text and the published word lists; skips where they are not."""

from itertools import islice
from pathlib import Path

import pytest

from real_data import real_data
from rinsho.document import read_documents
from rinsho.segmentation import separated
from rinsho.text import clean
from rinsho.tokenization import load
from rinsho.tokenizer import Recipe, run

LISTS = ("manbyo_mini.tsv", "nando_labels.tsv", "mhlw_drug_price_list_20250716.csv")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tokenizer with the defaults, trained on 16 MB."""
    text, lexicon = real_data("text"), real_data("lexicon")
    out = tmp_path_factory.mktemp("real") / "tokenizer"
    inputs = [text / "medical-000.jsonl.zst", text / "wikipedia-000.jsonl.zst", *(lexicon / name for name in LISTS)]
    numbers = run(Recipe(workers=2), inputs, out).numbers
    assert numbers["vocab_size"] == 32_768
    assert numbers["frequent_words"] == 20_000 and numbers["frequent_words_single_fraction"] >= 0.95
    assert numbers["round_trip_failures"] == numbers["plain_round_trip_failures"] == 0
    assert numbers["lexicon"]["false_merges_per_million_words_after"] < 100
    return out


@pytest.mark.slow
@pytest.mark.parametrize("form", ["strict", "plain"])
def test_noisy_documents_come_back_and_the_fast_way_equals_the_file(folder: Path, form: str) -> None:
    tokenizer = load(folder if form == "strict" else folder / "plain")
    backend = tokenizer.backend_tokenizer
    backend.encode_special_tokens = True  # characters of a special token are text
    documents = [*islice(read_documents(real_data("text") / "raw-000.jsonl.zst"), 400)]
    for document in documents:
        cleaned = clean(document.text)
        ids = tokenizer.encode_text(document.text)
        assert tokenizer.decode(ids) == cleaned, document.id
        prepared = separated(cleaned, tokenizer.user_dictionary) if form == "strict" else cleaned
        assert ids == backend.encode(prepared, add_special_tokens=False).ids, document.id
