"""Text that a model wrote: counted whatever the settings, shown per source, warned of above a limit."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from corpus_run import write_run
from rinsho.corpus import Recipe, run
from rinsho.corpus.index import Index
from rinsho.corpus.report import make_report, page, read_run, rewrite, view
from rinsho.corpus.report.token_counts import COUNTS, with_tokens
from rinsho.document import Document, is_synthetic, read_documents, write_documents

WRITTEN = (
    "疾患{n}は、発熱と咳嗽を主な症状とする感染症である。診断には画像検査と血液検査を用い、第{n}病日までに治療を始める。"
)
REAL = "{n}歳の男性が胸痛を訴えて来院した。心電図でＳＴ上昇を認め、心臓カテーテル検査を行った。経過は良好で第{n}病日に退院した。"
NOTICE = "この記事は教科書の記述として自動で作られたものです。"


def write(path: Path, documents: list[Document]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        write_documents(file, documents)
    return path


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    written = [
        Document(WRITTEN.format(n=n) + NOTICE, f"w-{n}", {"source": "textbook", "synthetic": True, "model": "phi"})
        for n in range(20)
    ]
    written += [Document("短い。", "w-short", {"source": "textbook", "synthetic": True})]
    mixed = [Document(REAL.format(n=n), f"m-{n}", {"source": "web", "synthetic": n == 5}) for n in range(30)]
    write(folder / "written.jsonl.zst", written)
    write(folder / "mixed.jsonl.zst", mixed)
    write(folder / "real.jsonl.zst", [Document(REAL.format(n=n), f"r-{n}", {"source": "ward"}) for n in range(40, 90)])
    return folder


def corpus(texts: Path, out: Path, **settings: Any) -> dict[str, Any]:
    defaults = {"near_duplicates": False, "sentence_documents": 5, "piece_mb": 0.0002, "validation_fraction": 0.2}
    return run(Recipe.model_validate(defaults | settings), [texts], out).numbers


def kept(out: Path) -> list[Document]:
    return [row for path in sorted(out.glob("[sv]*/*.zst")) for row in read_documents(path)]


@pytest.mark.parametrize("meta_fields", [None, ["teacher"]])
def test_shares_are_those_of_what_was_written(texts: Path, tmp_path: Path, meta_fields: list[str] | None) -> None:
    out = tmp_path / "out"
    numbers = corpus(texts, out, meta_fields=meta_fields)
    documents = kept(out)
    by_model = [document for document in documents if document.id == "m-5" or document.id.startswith("w-")]
    assert len(by_model) == 21
    assert sum(NOTICE in document.text for document in by_model) == 1  # the others are shorter than they were read
    assert all(document.meta.get("synthetic") is True for document in by_model)  # travels along, whatever meta_fields
    assert {document.meta.get("model") for document in by_model} == {"phi", None}  # m-5 names none
    assert all(not document.meta.get("synthetic") for document in documents if document not in by_model)
    size = sum(len(document.text.encode()) for document in by_model)
    characters = sum(len(document.text) for document in by_model)
    held_out = {document.id for path in (out / "validation").iterdir() for document in read_documents(path)}
    assert numbers["synthetic"] == {
        "documents_read": 22,
        "documents_kept": 21,
        "documents_validation": sum(document.id in held_out for document in by_model),
        "bytes_kept": size,
        "characters_kept": characters,
        "share_of_documents": round(21 / len(documents), 4),
        "share_of_bytes": round(size / numbers["bytes_kept"], 4),
        "share_of_characters": round(characters / numbers["characters_kept"], 4),
    }
    sources = numbers["sources"]
    assert {name: row["synthetic_documents"] for name, row in sources.items()} == {"textbook": 20, "web": 1, "ward": 0}
    assert sources["textbook"]["synthetic_bytes"] == sources["textbook"]["bytes_kept"]
    assert sources["web"]["synthetic_bytes"] == len(next(d for d in documents if d.id == "m-5").text.encode())


def test_the_validation_documents_are_the_same_ones_without_the_field(texts: Path, tmp_path: Path) -> None:
    corpus(texts, tmp_path / "one")
    for path in texts.iterdir():
        rows = [Document(d.text, d.id, {"source": d.meta["source"]}) for d in read_documents(path)]
        write(path, rows)
    numbers = corpus(texts, tmp_path / "two")
    assert numbers["synthetic"]["documents_read"] == numbers["synthetic"]["share_of_bytes"] == 0
    one, two = (
        [d.id for p in sorted((tmp_path / o / "validation").iterdir()) for d in read_documents(p)]
        for o in ("one", "two")
    )
    assert one == two
    assert "No document says that a model wrote it" in (tmp_path / "two/report.md").read_text()
    assert "| synthetic |" not in (tmp_path / "two/report.md").read_text()


@pytest.mark.parametrize(("limit", "warns"), [(0.1, True), (0.9, False)])
def test_above_the_limit_log_and_report_warn(texts: Path, tmp_path: Path, limit: float, warns: bool) -> None:
    out = tmp_path / "out"
    numbers = corpus(texts, out, max_synthetic_fraction=limit)
    share = view.percent(numbers["synthetic"]["share_of_bytes"])
    log, markdown, html = ((out / name).read_text() for name in ("log.txt", "report.md", "report.html"))
    told = f"{share} of the kept text was written by a model"
    assert (f"WARNING: {told}" in log) is (f"WARNING: {told}" in markdown) is (told in html) is warns
    assert "| source | documents read | kept | size kept | share | synthetic |" in markdown
    assert "| 100.0 % |" in markdown
    assert f"{share} of the bytes" in html


def test_the_same_numbers_for_any_cut_into_pieces(texts: Path, tmp_path: Path) -> None:
    one, three = (corpus(texts, tmp_path / str(size), piece_mb=size) for size in (16, 0.0002))
    assert one["synthetic"] == three["synthetic"]
    assert one["synthetic"]["documents_kept"] == 21


def test_spellings_of_true_in_tables(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "text", "synthetic"])
        rows.writerows(
            [n, REAL.format(n=n), word] for n, word in enumerate(["true", "True", "1", "false", "", "0", "no"])
        )
    numbers = corpus(path, tmp_path / "out", sentence_documents=0)
    assert numbers["synthetic"]["documents_kept"] == 3
    assert not any(is_synthetic({"synthetic": value}) for value in (None, False, 0, "合成", [], {}, "false"))
    assert all(is_synthetic({"synthetic": value}) for value in (True, 1, 1.0, " TRUE "))


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers")
    from rinsho.chat import BEGIN, END
    from rinsho.tokenization import wrap

    pieces = [("<unk>", 0.0), (BEGIN, 0.0), (END, 0.0), *((f"<0x{byte:02X}>", -20.0) for byte in range(256))]
    pieces += [(character, -4.0) for character in sorted(set(WRITTEN + REAL + NOTICE) - {"{", "}"})]
    folder = tmp_path_factory.mktemp("tokenizer") / "toy"
    wrap(pieces, segment="plain", split_digits=False, byte_fallback=True).save_pretrained(folder)
    return folder


def test_tokens_are_told_apart(texts: Path, tmp_path: Path, tokenizer: Path) -> None:
    from rinsho.tokenization import load

    out, loaded = tmp_path / "out", load(tokenizer)
    corpus(texts, out, meta_fields=[])
    expected: dict[str, int] = {"textbook": 0, "web": 0, "ward": 0}
    for document in kept(out):
        if document.id == "m-5" or document.id.startswith("w-"):
            expected[document.meta["source"]] += len(loaded.encode_text(document.text))
    tokens = with_tokens(out, tokenizer).numbers["tokens"]
    assert {name: row["synthetic_tokens"] for name, row in tokens["sources"].items()} == expected
    assert tokens["synthetic_tokens"] == sum(expected.values())
    share = view.percent(tokens["synthetic_tokens"] / tokens["tokens"])
    assert f"{share} of the tokens" in (out / "report.md").read_text()
    assert f"{share} of the tokens" in (out / "report.html").read_text()


def test_what_an_older_version_counted_of_tokens_is_counted_again(texts: Path, tmp_path: Path, tokenizer: Path) -> None:
    out = tmp_path / "out"
    corpus(texts, out)
    whole = with_tokens(out, tokenizer)
    rows = [json.loads(line) for line in (out / COUNTS).read_bytes().splitlines()]
    for row in rows:
        row |= {
            "key": row["key"].rpartition(":")[0],
            "sources": {name: five[:4] for name, five in row["sources"].items()},
        }
    (out / COUNTS).write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert with_tokens(out, tokenizer) == whole


def test_folders_of_older_versions_are_read(tmp_path: Path) -> None:
    old = write_run(tmp_path / "old", [[Document(REAL.format(n=1), "a", {"source": "web"})]])
    assert "synthetic" not in read_run(old).numbers
    markdown = rewrite(old).markdown
    assert "ynthetic text:" not in markdown
    assert "| web | 1 | 1 |" in markdown
    assert "WARNING" not in markdown
    html = page({}, read_run(old).numbers, title="old")
    assert "written by a model" not in html
    half = {"synthetic": {"documents_kept": 1}, "sources": {"web": {"documents_kept": 1, "bytes_kept": 9}}}
    assert "| web | 0 | 1 | 9 bytes | 900.0 % | - |" in make_report({}, half).markdown
    assert "written by a model" not in page({"max_synthetic_fraction": 0.1}, half, title="half").replace("Written", "")


def test_a_piece_of_an_older_version_has_none(texts: Path, tmp_path: Path) -> None:
    from rinsho.corpus.index import IndexWriter

    folder = tmp_path / "piece"
    folder.mkdir()
    with IndexWriter(folder, Recipe()) as index:
        index.add("発熱を認めた。", "a", "web", 21, 21, synthetic=True)
        index.add("咳嗽を認めた。", "b", "web", 21, 21, synthetic=False)
    assert Index(folder).synthetic().tolist() == [1, 0]
    (folder / "synthetic.npy").unlink()
    assert Index(folder).synthetic().tolist() == [0, 0]
