"""An invented corpus of good and bad documents, as a corpus run leaves it."""

from __future__ import annotations

import hashlib
from pathlib import Path

from rinsho.document import Document, read_documents, write_documents

GOOD = (
    "患者は{n}歳の男性で、発熱と咳嗽を主訴に来院した。",
    "胸部CTで右下葉に浸潤影を認め、肺炎と診断した。",
    "抗菌薬を{n}日間投与し、第{n}病日に解熱した。",
    "既往に高血圧と2型糖尿病があり、アムロジピン{n}mgを内服している。",
)
BAD = (
    "クリックでポイント{n}倍!",
    "いますぐチェックしてね!!",
    "セールは{n}時まで☆お見逃しなく!",
    "もっとみる>>ランキング{n}位はコチラ",
)


def good(number: int) -> str:
    return "\n".join(sentence.format(n=number) for sentence in GOOD[number % 3 :])


def bad(number: int) -> str:
    return "\n".join(sentence.format(n=number) for sentence in BAD[number % 3 :])


def text_of(shard: int, n: int) -> str:
    """The text of a document, different from all others."""
    return (good if n % 5 else bad)(shard * 1000 + n)


def is_bad(text: str) -> bool:
    return "コチラ" in text


def make_corpus(folder: Path, shards: int = 3, each: int = 60) -> Path:
    """Every fifth document is bad; one more shard lies in validation/."""
    for shard in range(shards + 1):
        path = folder / ("shards" if shard < shards else "validation") / f"{shard:05d}.jsonl.zst"
        path.parent.mkdir(parents=True, exist_ok=True)
        documents = [Document(text_of(shard, n), f"doc-{shard}-{n:03d}", {"source": "見本"}) for n in range(each)]
        with path.open("wb") as file:
            write_documents(file, documents)
    (folder / "dropped").mkdir()
    with (folder / "dropped" / "00000.jsonl.zst").open("wb") as file:
        write_documents(file, [Document("前の段で捨てた。", "gone", {"reason": "too_short", "value": 8})])
    return folder


def documents_in(folder: Path) -> list[Document]:
    return [document for path in sorted(folder.glob("*.zst")) for document in read_documents(path)]


def product(out: Path) -> dict[str, str]:
    """Hash of every product file."""
    aside = {"metrics.jsonl", "log.txt", "report.json", "report.md", "manifest.json", "DONE", "recipe.resolved.yaml"}
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and path.name not in aside | {".lock"}]
    return {path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
