"""All steps of the corpus room on a small invented crawl: deduplication, decontamination, mixed sources, kills."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rinsho import samples
from rinsho.corpus import Recipe, run
from rinsho.document import Document, read_documents, shard_paths, write_documents
from rinsho.overlap import char_ngrams, jaccard, normalised
from rinsho.text import clean, sentences

BOILERPLATE = "この記事は情報の提供だけを目的とし、診断や治療の代わりにはなりません。"
SETTINGS = {
    "piece_mb": 0.05,
    "near_threshold": 0.7,
    "sentence_documents": 10,
    "validation_fraction": 0.05,
    "workers": 1,
}


def write(path: Path, documents: list[Document]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        write_documents(file, documents)


def edited(text: str, share: float, draw: random.Random) -> str:
    """The text with this share of its characters replaced."""
    characters = list(text)
    for place in draw.sample(range(len(characters)), max(1, int(share * len(characters)))):
        characters[place] = draw.choice("患者発熱咳痰肺炎投与検査")
    return "".join(characters)


@pytest.fixture(scope="module")
def crawl(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some 300 invented documents in 6 files; planted: exact copies, near copies, a sentence in every third document."""
    folder = tmp_path_factory.mktemp("crawl")
    samples.write(samples.Recipe(text_size_mb=0.5, test_rows=8, shards=1), folder / "samples")
    made = [document for path in shard_paths([folder / "samples" / "text"]) for document in read_documents(path)]
    made = [document for document in made if 150 < len(document.text) < 3000][:280]
    draw = random.Random(5)
    documents = [Document(d.text, f"web-{n:03d}", {"source": "web"}) for n, d in enumerate(made)]
    documents = [Document(d.text + "\n" + BOILERPLATE * (n % 3 == 0), d.id, d.meta) for n, d in enumerate(documents)]
    for number in range(10):
        text = documents[number].text
        documents.append(Document(" " + text, f"copy-{number}", {"source": "web"}))
        documents.append(Document(edited(text, 0.01, draw), f"near-{number}", {"source": "web"}))
    documents.append(Document(documents[20].text, "clinic-copy", {"source": "clinic"}))
    draw.shuffle(documents)
    size = len(documents) // 6 + 1
    for number in range(6):
        write(folder / "crawl" / f"{number}.jsonl.zst", documents[number * size : (number + 1) * size])
    return folder / "crawl"


def found(folder: Path) -> dict[str, Document]:
    return {document.id: document for path in sorted(folder.glob("*.zst")) for document in read_documents(path)}


def product(out: Path) -> dict[str, str]:
    files = [path for part in ("shards", "validation", "dropped") for path in sorted((out / part).glob("*"))]
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def done(crawl: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, object]]:
    out = tmp_path_factory.mktemp("done") / "corpus"
    return out, run(Recipe.model_validate(SETTINGS | {"sources_first": ["clinic"]}), [crawl], out).numbers


def test_copies_and_near_copies_go_and_one_of_each_stays(done: tuple[Path, dict[str, object]]) -> None:
    out, _ = done
    kept, dropped = found(out / "shards") | found(out / "validation"), found(out / "dropped")
    left = [sum(name in kept for name in (f"web-{n:03d}", f"copy-{n}", f"near-{n}")) for n in range(10)]
    assert max(left) == 1
    assert sum(left) >= 7, "a family may be near another document, or fail a filter"
    for document in dropped.values():
        if document.meta["reason"] in ("duplicate", "near_duplicate"):
            assert document.meta["value"] in kept
    assert "clinic-copy" in kept, "a preferred source wins over the crawl"


def test_what_was_dropped_as_near_is_near_and_what_is_kept_is_not(
    done: tuple[Path, dict[str, object]], crawl: Path
) -> None:
    out, numbers = done
    before = {d.id: clean(d.text) for path in shard_paths([crawl]) for d in read_documents(path)}
    grams = {name: char_ngrams(text) for name, text in before.items()}
    kept, dropped = found(out / "shards") | found(out / "validation"), found(out / "dropped")
    near = [document for document in dropped.values() if document.meta["reason"] == "near_duplicate"]
    assert len(near) == numbers["dropped"]["near_duplicate"]["documents"] >= 9
    for document in near:
        assert jaccard(grams[document.id], grams[document.meta["value"]]) >= 0.7
    names = sorted(kept)
    pairs = [(a, b) for n, a in enumerate(names) for b in names[n + 1 :] if jaccard(grams[a], grams[b]) >= 0.72]
    assert len(pairs) <= 1, "MinHash may miss a rare pair"


def test_the_frequent_sentence_stays_in_one_document(done: tuple[Path, dict[str, object]]) -> None:
    out, numbers = done
    kept = found(out / "shards") | found(out / "validation")
    assert sum(BOILERPLATE in document.text for document in kept.values()) == 1
    assert numbers["sentences"]["removed"] >= 80
    assert numbers["sentences"]["documents_changed"] <= numbers["sentences"]["removed"]
    counts: dict[str, int] = {}
    for document in kept.values():
        for sentence in set(sentences(document.text)):
            if len(sentence) >= 15:
                counts[sentence] = counts.get(sentence, 0) + 1
    assert max(counts.values()) <= 10


def test_numbers_add_up(done: tuple[Path, dict[str, object]], crawl: Path) -> None:
    out, numbers = done
    kept = [*found(out / "shards").values(), *found(out / "validation").values()]
    total = sum(1 for path in shard_paths([crawl]) for _ in read_documents(path))
    assert numbers["documents_read"] == total == numbers["documents_kept"] + numbers["documents_dropped"]
    assert numbers["documents_kept"] == len(kept)
    assert numbers["bytes_kept"] == sum(len(document.text.encode()) for document in kept)
    assert numbers["characters_kept"] == sum(len(document.text) for document in kept)
    assert sum(numbers["lengths"]["read"]) == total
    assert sum(numbers["lengths"]["kept"]) == len(kept)
    assert sum(row["documents_kept"] for row in numbers["sources"].values()) == len(kept)
    for reason, row in numbers["dropped"].items():
        dropped = [d for d in found(out / "dropped").values() if d.meta["reason"] == reason]
        assert len(dropped) == row["documents"]
        examples = dict(numbers["examples"][reason])
        assert examples.items() <= {(d.id, d.meta["value"]) for d in dropped}
    assert numbers["near"]["index_memory_bytes_per_document"] > 0


def test_sentences_of_a_source_can_be_kept(crawl: Path, tmp_path: Path) -> None:
    run(Recipe.model_validate(SETTINGS | {"sentence_keep_sources": ["web", "clinic"]}), [crawl], tmp_path / "out")
    kept = found(tmp_path / "out/shards")
    assert sum(BOILERPLATE in document.text for document in kept.values()) > 50


def test_same_bytes_for_any_number_of_workers(
    done: tuple[Path, dict[str, object]], crawl: Path, tmp_path: Path
) -> None:
    settings = SETTINGS | {"sources_first": ["clinic"], "workers": 2}
    run(Recipe.model_validate(settings), [crawl], tmp_path / "out")
    assert product(tmp_path / "out") == product(done[0])


def test_same_documents_whatever_the_files_are_called(
    done: tuple[Path, dict[str, object]], crawl: Path, tmp_path: Path
) -> None:
    names = sorted(path.name for path in crawl.iterdir())
    (tmp_path / "other").mkdir()
    for number, name in enumerate(names):
        (tmp_path / "other" / names[-1 - number]).write_bytes((crawl / name).read_bytes())
    run(Recipe.model_validate(SETTINGS | {"sources_first": ["clinic"]}), [tmp_path / "other"], tmp_path / "out")
    for part in ("shards", "validation"):
        assert {(d.id, d.text) for d in found(done[0] / part).values()} == {
            (d.id, d.text) for d in found(tmp_path / "out" / part).values()
        }


def test_benchmark_passages_are_removed_or_listed(crawl: Path, tmp_path: Path) -> None:
    victim = next(iter(read_documents(crawl / "0.jsonl.zst")))
    passage = normalised(clean(victim.text))[20:70]
    rows = [
        {
            "problem_id": "999A1",
            "problem_text": f"次の文を読め。{passage}診断はどれか。",
            "choices": ["ア", "イ"],
            "answer": ["a"],
            "points": "1",
            "text_only": True,
        }
    ]
    (tmp_path / "bench").mkdir()
    (tmp_path / "bench/999-a.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    for mode in ("remove", "report"):
        settings = SETTINGS | {"decontaminate": [tmp_path / "bench"], "decontamination": mode}
        out = tmp_path / mode
        numbers = run(Recipe.model_validate(settings), [crawl], out).numbers
        listed = [json.loads(line) for line in (out / "dropped/contamination.jsonl").read_text().splitlines()]
        assert victim.id in {row["id"] for row in listed}
        assert all(row["chars"] >= 30 for row in listed)
        assert numbers["contamination"] == {"mode": mode, "documents": len(listed)}
        dropped = [d.id for d in found(out / "dropped").values() if d.meta["reason"] == "contaminated"]
        assert sorted(dropped) == (sorted(row["id"] for row in listed) if mode == "remove" else [])


def test_hospital_export_and_crawl_in_one_run(crawl: Path, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "web.jsonl.zst").write_bytes((crawl / "0.jsonl.zst").read_bytes())
    with (folder / "export.csv").open("w", encoding="cp932", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["番号", "主訴", "現病歴"])
        for number in range(30):
            history = (
                f"{number}日前から38.5℃の発熱と咳嗽があり、\n近医でｱﾓｷｼｼﾘﾝを{number}日間処方されたが改善しなかった。"
            )
            rows.writerow([f"A{number:03d}", f"発熱（{number}日目）", history])
    recipe = SETTINGS | {
        "near_duplicates": False, "sentence_documents": 0,
        "sources": [{"files": "*.csv", "name": "病院", "text_field": ["主訴", "現病歴"], "id_field": "番号", "license": "院内"}],
    }  # fmt: skip
    numbers = run(Recipe.model_validate(recipe), [folder], tmp_path / "out").numbers
    assert numbers["sources"]["病院"]["documents_kept"] == 30
    kept = found(tmp_path / "out/shards") | found(tmp_path / "out/validation")
    assert kept["A007"].text == (
        "発熱(7日目)\n7日前から38.5℃の発熱と咳嗽があり、\n近医でアモキシシリンを7日間処方されたが改善しなかった。"
    )
    assert kept["A007"].meta["license"] == "院内"


def test_only_named_fields_travel_along(tmp_path: Path) -> None:
    text = "7日前から38.5℃の発熱と咳嗽があり、近医でアモキシシリンを処方されたが改善しなかった。"
    write(tmp_path / "in/a.jsonl.zst", [Document(text, "a", {"氏名": "見本太郎", "診療科": "内科"})])
    run(Recipe.model_validate(SETTINGS | {"meta_fields": ["診療科"]}), [tmp_path / "in"], tmp_path / "out")
    assert found(tmp_path / "out/shards")["a"].meta == {"診療科": "内科", "source": "a"}


def test_own_word_list(crawl: Path, tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("ﾎﾟﾁ病院\n", encoding="utf-8")
    write(
        tmp_path / "in/a.jsonl.zst",
        [
            Document("ポチ病院を受診した。発熱があり、検査を行った。異常はなかった。", "a"),
            Document("別の病院を受診した。発熱があり、検査を行った。異常はなかった。", "b"),
        ],
    )
    recipe = Recipe.model_validate(SETTINGS | {"word_lists": {"place": tmp_path / "words.txt"}})
    run(recipe, [tmp_path / "in"], tmp_path / "out")
    assert found(tmp_path / "out/dropped")["a"].meta["reason"] == "place"
    assert "b" in found(tmp_path / "out/shards") | found(tmp_path / "out/validation")


@pytest.mark.parametrize(
    ("step", "workers"), [("pieces", 1), ("grams", 1), ("decisions", 1), ("finished", 1), ("finished", 2)]
)
def test_killed_in_any_step_and_started_again(
    done: tuple[Path, dict[str, object]], crawl: Path, tmp_path: Path, step: str, workers: int
) -> None:
    words = [
        f"corpus.{key}={value}" for key, value in (SETTINGS | {"sources_first": "[clinic]", "workers": workers}).items()
    ]
    command = [sys.executable, "-m", "rinsho", "corpus", str(crawl), "--out", str(tmp_path / "out")]
    command += [word for setting in words for word in ("--set", setting)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, env=environment, start_new_session=True, **quiet)
    folder = tmp_path / "out" / "partial" / step
    deadline = time.monotonic() + 60
    while not (folder.exists() and any(folder.iterdir())) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out/DONE").exists()
    subprocess.run(command, env=environment, check=True, **quiet)
    assert product(tmp_path / "out") == product(done[0])
