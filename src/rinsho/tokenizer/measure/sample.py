"""The text that is measured: a bounded, repeatable sample of each text set, and its words by one reference."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from rinsho import segmentation
from rinsho.document import SUFFIXES, Document, byte_length, printable_name, read_documents, shard_paths
from rinsho.errors import UserError
from rinsho.text import clean

Places = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Sample:
    """Documents of one text set that hold text after cleaning; the lists go by document."""

    name: str
    ids: list[str]
    raw: list[str]
    cleaned: list[str]
    sources: list[str]  # "" where a document tells none
    broken: int

    @property
    def characters(self) -> npt.NDArray[np.int64]:
        """Characters of each cleaned document."""
        return np.array([len(text) for text in self.cleaned], dtype=np.int64)

    @property
    def size_bytes(self) -> npt.NDArray[np.int64]:
        """UTF-8 bytes of each cleaned document."""
        return np.array([byte_length(text) for text in self.cleaned], dtype=np.int64)


@dataclass(frozen=True)
class Shown:
    """A text of the page: raw, with the name it has there."""

    name: str
    raw: str


def take(name: str, folder: Path, limit_mb: float) -> Sample:
    """Up to `limit_mb` (UTF-8, before cleaning) from the beginning of every shard, the same share of each.

    What small shards leave of their share goes to the larger ones. The document that reaches the limit is cut there.

    Raises:
        UserError: the folder is missing or holds no document with text.
    """
    shards = shard_paths([folder])
    left, broken = limit_mb * 1e6, 0
    taken: dict[Path, list[Document]] = {}

    def on_broken(_: object) -> None:
        nonlocal broken
        broken += 1

    by_size = sorted(shards, key=lambda path: (path.stat().st_size, str(path)))
    for place, path in enumerate(by_size):
        share = left / (len(by_size) - place)
        rows = taken.setdefault(path, [])
        for document in read_documents(path, on_broken=on_broken):
            if share <= 0:
                break
            text = _cut(document.text, left)
            size = byte_length(text)
            share, left = share - size, left - size
            rows.append(Document(text, document.id, document.meta))
    documents = [document for path in shards for document in taken[path]]
    texts = [clean(document.text) for document in documents]
    kept = [(document, text) for document, text in zip(documents, texts, strict=True) if text.strip()]
    if not kept:
        raise UserError(
            f"no document with text in the text set {name}",
            where=folder,
            expected="files ending in " + ", ".join(SUFFIXES) + " with text",
            todo="check the folder",
        )
    return Sample(
        name=name,
        ids=[printable_name(document.id) for document, _ in kept],
        raw=[document.text for document, _ in kept],
        cleaned=[text for _, text in kept],
        sources=[_source(document.meta) for document, _ in kept],
        broken=broken,
    )


def shown_texts(path: Path | None, max_chars: int) -> list[Shown]:
    """What the page shows, at most `max_chars` in all: a text file, the first documents of a shard, or invented text.

    Raises:
        UserError: the file is missing, is no UTF-8, or holds no text.
    """
    if path is None:
        return [Shown("an invented record", INVENTED)]
    if not path.is_file():
        raise UserError("not there", where=path, expected="a text file or a shard", todo="check the path")
    if path.name.endswith(SUFFIXES) and not path.name.endswith(".txt"):
        found: Iterator[Shown] = (
            Shown(printable_name(document.id), document.text)
            for document in read_documents(path, on_broken=lambda _: None)
        )
    else:
        found = iter([Shown(path.name, _text_file(path))])
    rows, left = [], max_chars
    for row in found:
        if left <= 0:
            break
        if row.raw.strip():
            rows.append(Shown(row.name, row.raw[:left]))
            left -= len(row.raw)
    if not rows:
        raise UserError("no text in here", where=path, expected="a text file or a shard with documents")
    return rows


def boundaries(cleaned: str, user_dictionary: Path | None) -> Places:
    """Where one word ends and the next begins by MeCab, inside the text, rising."""
    words = segmentation.separated(cleaned, user_dictionary).split(" ")
    ends = np.cumsum([len(word) for word in words], dtype=np.int64)
    return ends[(ends > 0) & (ends < len(cleaned))]


def trimmed(spans: Places, text: str) -> Places:
    """The spans without the white space at their ends; a span of white space alone becomes empty."""
    if not len(spans):
        return spans
    codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype="<u4")
    white = np.isin(codes, [9, 10, 13, 32, 0x2581, 0x3000])
    place = np.arange(len(codes), dtype=np.int64)
    following = np.minimum.accumulate(np.where(white, len(codes), place)[::-1])[::-1]
    before = np.maximum.accumulate(np.where(white, 0, place + 1))
    start = np.append(following, len(codes))[spans[:, 0]]
    end = np.concatenate(([0], before))[spans[:, 1]]
    return np.stack([start, np.maximum(start, end)], axis=1)


def crossing(spans: Places, words: Places) -> npt.NDArray[np.bool_]:
    """For each span, whether a word boundary lies strictly inside it."""
    inside = np.searchsorted(words, spans[:, 1], "left") > np.searchsorted(words, spans[:, 0], "right")
    return np.asarray(inside, dtype=bool)


def by_source(sample: Sample) -> Mapping[str, npt.NDArray[np.bool_]]:
    """Which documents belong to each source, the source with most characters first; those that tell none left out."""
    sizes: dict[str, int] = {}
    for source, text in zip(sample.sources, sample.cleaned, strict=True):
        if source:
            sizes[source] = sizes.get(source, 0) + len(text)
    names = sorted(sizes, key=lambda name: (-sizes[name], name))
    given: Sequence[str] = sample.sources
    return {name: np.array([source == name for source in given], dtype=bool) for name in names}


def _source(meta: Mapping[str, object]) -> str:
    value = meta.get("source")
    return printable_name(value) if isinstance(value, str) else ""


def _cut(text: str, left: float) -> str:
    """The text, or as much of its beginning as `left` bytes hold."""
    if byte_length(text) <= left:
        return text
    return text.encode("utf-8", "surrogatepass")[: max(0, int(left))].decode("utf-8", "ignore")


def _text_file(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError("the text is not UTF-8", where=path, expected="UTF-8", todo="convert the file") from None


INVENTED = """【現病歴】
６７歳、女性。２型糖尿病と高血圧症で近医に通院中であった。３日前から３８．５℃の発熱と湿性咳嗽が出現し、\
呼吸困難が増悪したため救急外来を受診した。
【検査所見】
SpO2 89 %（室内気）、CRP 12.4 mg/dL、WBC 13,200 /μL、ＢＮＰ ４５０ pg/mL。\
胸部CTで右下葉に浸潤影とair bronchogramを認める。
【経過】
市中肺炎と診断し、アンピシリン・スルバクタム 3 g を1日4回で開始した。\
間質性肺炎の合併は否定的であった。尿中肺炎球菌抗原は陽性。
第3病日に解熱、第7病日にCRP 0.8 mg/dLまで改善し、アモキシシリンクラブラン酸の内服に変更して退院となった。
既往に急性骨髄性白血病はない。家族歴：父が非小細胞肺癌。主治医は𠮷田、担当看護師は髙橋。
"""
