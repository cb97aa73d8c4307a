"""Parts of `synthesize.py` on real data: false alarms, planted near-copies, chance hits of benchmarks, novelty.

Each part is a function of the options that gives its figures and the lines of its tables. No text is printed.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from finetune import table

Found = tuple[dict[str, Any], list[str]]

DOCUMENTS, MOST_CHARS, PASSAGE = 4_000, 4_000_000, 1500  # of a kind of text that are looked at
NOT_ALARMS = ("too_short", "cut_off")  # real documents are short, and end without a full stop
COPIES, SENTENCES = (10_000, 30_000), 20  # texts among which copies are planted, sentences of each
THRESHOLD = 0.8
WIDE = str.maketrans("0123456789", "０１２３４５６７８９")
EDITS: dict[str, Callable[[list[str], list[str]], list[str]]] = {
    "width and white space": lambda text, _: [" ".join(part).translate(WIDE) for part in text],
    "sentences in another order": lambda text, _: text[7:] + text[:7],
    "1 of 20 sentences replaced": lambda text, other: other[:1] + text[1:],
    "2 replaced": lambda text, other: other[:2] + text[2:],
    "4 replaced": lambda text, other: other[:4] + text[4:],
}
EVERY = 10  # one copy among so many texts
CHARS, SHARES = (16, 20, 24, 30), (0.4, 0.5, 0.6)  # runs that count, shares of a question
KNOWN, ASKED, LIMIT = 50_000, 1_000, 0.7  # instructions
COMPARED_WITH_ALL = 10
ENDS = (
    "について説明してください。",
    "を患者さんにわかる言葉で書き直してください。",
    "の要点を三つにまとめてください。",
    "に関する次の文章から、病名を抜き出してください。",
)


def apart(function: Callable[..., Any], *values: Any) -> Any:
    """What a function gives in a fresh process, whose memory and processor time are its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *values).result()


def real(given: argparse.Namespace, name: str) -> Path | None:
    """The folder of this name in the real data, if it is there."""
    return given.data / name if given.data and (given.data / name).is_dir() else None


def without(name: str) -> Found:
    return {}, [f"Not measured: there is no `{name}` in the folder of --data or RINSHO_DATA."]


def groups(folder: Path) -> dict[str, list[Path]]:
    """The files of text by their kind, the part of the name before the first "-"; raw ones are not text."""
    from rinsho.document import shard_paths

    found: dict[str, list[Path]] = defaultdict(list)
    for path in shard_paths([folder]):
        found[path.name.split("-")[0]].append(path)
    found.pop("raw", None)
    return found


def some_sentences(folder: Path, kinds: Sequence[str], low: int, high: int) -> list[str]:
    """The different sentences of this length in the files of these kinds, shuffled."""
    from rinsho.document import read_documents
    from rinsho.text import sentences

    found: dict[str, None] = {}
    for kind in kinds:
        for path in groups(folder).get(kind, []):
            for document in read_documents(path):
                found.update((part, None) for part in sentences(document.text) if low <= len(part) <= high)
    shuffled = list(found)
    random.Random(1).shuffle(shuffled)
    return shuffled


# ---- false alarms


def trust(given: argparse.Namespace) -> Found:
    """What `trust.problem` says of texts that people wrote, by kind, whole and cut to an answer's length."""
    folder = real(given, "text")
    if folder is None:
        return without("text")
    rows = [apart(alarms, paths, kind, form, given.size) for kind, paths in groups(folder).items() for form in FORMS]
    cells = []
    for row in rows:
        alarmed = sum(count for reason, count in row["reasons"].items() if reason not in NOT_ALARMS)
        others = ", ".join(f"{reason} {n}" for reason, n in row["reasons"].items() if reason not in NOT_ALARMS)
        cells.append([
            row["kind"], row["form"], others or "none", f"{row['documents']:,}", f"{alarmed / row['documents']:.2%}",
            *(f"{row['reasons'].get(reason, 0) / row['documents']:.1%}" for reason in NOT_ALARMS),
            f"{row['tidied'] / row['documents']:.2%}", f"{row['documents'] / row['cpu']:,.0f}",
            f"{row['chars'] / row['cpu'] / 1e6:.2f}",
        ])  # fmt: skip
    header = ["text", "form", "false alarms", "documents", "false alarms, share", *NOT_ALARMS, "trimmed by tidy",
              "documents a CPU second", "million characters"]  # fmt: skip
    lines = [f"At most {DOCUMENTS:,} documents or {MOST_CHARS / 1e6:.0f} million characters of a kind, in the order of "
             "the files."]  # fmt: skip
    return {"rows": rows}, [*lines, "", *table(header, cells, text_columns=3)]


def passage(text: str) -> str:
    """The beginning of a document, as long as an answer, up to the end of a sentence."""
    from rinsho.text import sentences

    kept = ""
    for line in text.split("\n"):
        for part in sentences(line):
            if len(kept) + len(part) > PASSAGE:
                return kept
            kept += part
        kept += "\n"
    return kept


FORMS: dict[str, Callable[[str], str]] = {"whole": str, f"{PASSAGE} characters": passage}


def alarms(paths: Sequence[Path], kind: str, form: str, size: float) -> dict[str, Any]:
    from rinsho.document import read_documents
    from rinsho.synthesize.trust import Limits, problem, tidy

    reasons: Counter[str] = Counter()
    documents = chars = tidied = 0
    cpu = 0.0
    for document in (document for path in paths for document in read_documents(path)):
        text = FORMS[form](document.text).strip()
        if not text:
            continue
        started = time.process_time()
        trimmed = tidy(text)
        found = problem(trimmed, "stop", Limits())
        cpu += time.process_time() - started
        documents, chars, tidied = documents + 1, chars + len(text), tidied + (len(trimmed) < len(text))
        if found:
            reasons[found[0]] += 1
        if documents >= size * DOCUMENTS or chars >= size * MOST_CHARS:
            break
    return {"kind": kind, "form": form, "documents": documents, "chars": chars, "tidied": tidied, "cpu": cpu,
            "reasons": dict(reasons.most_common())}  # fmt: skip


# ---- near-copies


def near(given: argparse.Namespace) -> Found:
    """Planted near-copies that `repeats` finds, and what it takes."""
    folder = real(given, "text")
    if folder is None:
        return without("text")
    rows = [apart(copies, folder, given.out / "near", int(count * given.size)) for count in COPIES]
    cells = [
        [f"{row['texts']:,}", f"{row['chars'] / row['texts']:.0f}", f"{row['seconds']:.1f}", f"{row['cpu']:.1f}",
         f"{row['texts'] / row['cpu']:,.0f}", f"{row['mib_before']:.0f}", f"{row['mib']:.0f}", str(row["false"])]
        for row in rows
    ]  # fmt: skip
    header = ["texts", "characters each", "seconds", "CPU seconds", "texts a CPU second", "MiB before", "MiB at most",
              "gone, but not near"]  # fmt: skip
    lines = [f"Texts of {SENTENCES} real sentences in random order; every {EVERY}th is a copy of the one before it. "
             f"Near: a Jaccard index of {THRESHOLD:g} or more of all character 5-grams, counted exactly."]  # fmt: skip
    lines += ["", *table(header, cells, text_columns=0), ""]
    cells = [
        [name, f"{row['texts']:,}", *(f"{part[key]:,}" for key in ("planted", "near", "found")),
         f"{part['jaccard']:.3f}"]
        for row in rows
        for name, part in row["edits"].items()
    ]  # fmt: skip
    header = ["copy", "of texts", "planted", "near", "of these found", "Jaccard index, median"]
    return {"rows": rows}, [*lines, *table(header, cells)]


def planted(sentences: list[str], count: int) -> Iterator[tuple[str, str]]:
    """(text, how it was made from the one before it, or nothing)."""
    draw = random.Random(1)
    names, text = list(EDITS), [""]
    for place in range(count):
        if place % EVERY == EVERY - 1:
            name = names[place // EVERY % len(names)]
            yield "".join(EDITS[name](text, draw.sample(sentences, SENTENCES))), name
        else:
            text = draw.sample(sentences, SENTENCES)
            yield "".join(text), ""


def copies(folder: Path, scratch: Path, count: int) -> dict[str, Any]:
    from rinsho.circumstances import peak_memory_gib, reset_peak_memory
    from rinsho.overlap import char_ngrams, jaccard
    from rinsho.synthesize.repeats import repeats

    scratch.mkdir(parents=True, exist_ok=True)
    file, made = scratch / "texts.jsonl", []
    with file.open("w", encoding="utf-8") as out:
        for text, name in planted(some_sentences(folder, ["medical"], 11, 119), count):
            out.write(json.dumps(text) + "\n")
            made.append(name)

    def texts() -> Iterator[str]:
        with file.open(encoding="utf-8") as lines:
            for line in lines:
                yield json.loads(line)

    reset_peak_memory()
    before, started, processor = peak_memory_gib(), time.perf_counter(), time.process_time()
    gone = repeats(texts, THRESHOLD, scratch)
    seconds, cpu, peak = time.perf_counter() - started, time.process_time() - processor, peak_memory_gib()
    whole = list(texts())
    values: dict[str, list[tuple[float, bool]]] = {name: [] for name in EDITS}
    for place, name in enumerate(made):
        if name:
            value = jaccard(char_ngrams(whole[place - 1]), char_ngrams(whole[place]))
            values[name].append((value, place in gone))
    edits = {
        name: {"planted": len(pairs), "near": sum(value >= THRESHOLD for value, _ in pairs),
               "found": sum(found for value, found in pairs if value >= THRESHOLD),
               "jaccard": statistics.median(value for value, _ in pairs)}
        for name, pairs in values.items() if pairs
    }  # fmt: skip
    wrong = sum(jaccard(char_ngrams(whole[one]), char_ngrams(whole[kept])) < THRESHOLD for one, kept in gone.items())
    file.unlink()
    return {"texts": count, "chars": sum(map(len, whole)), "seconds": seconds, "cpu": cpu, "mib_before": before * 1024,
            "mib": peak * 1024, "gone": len(gone), "false": wrong, "edits": edits}  # fmt: skip


# ---- benchmarks


def contamination(given: argparse.Namespace) -> Found:
    """Questions of one year of an examination against the other years, and against all with themselves among them."""
    folder = real(given, "igakuqa")
    if folder is None:
        return without("igakuqa")
    rows = [apart(held, folder, chars, given.size) for chars in CHARS]
    cells = [
        [str(row["chars"]), f"{row['short']:,} of {row['items']:,}",
         *(f"{row['years'][str(share)]:.2%}" for share in SHARES), f"{row['years']['any']:.1%}",
         *(f"{row[among]['rule']:.1%}" for among in ("years", "own", "changed")),
         f"{row['seconds'] / row['texts'] * 1e3:.2f}"]
        for row in rows
    ]  # fmt: skip
    header = ["characters of a run", "questions too short", *(f"other years: {share:.0%} of a question" for share in
              SHARES), "other years: any run (corpus)", "other years: the rule", "itself: the rule",
              "numbers changed: the rule", "CPU ms a text"]  # fmt: skip
    lines = ["Question and options of each problem, as an exercise is looked up. A hit in other years is taken for "
             "chance, though examinations do take questions up again. The rule: 50 % of a question, or the same one "
             "where it is shorter than a run."]  # fmt: skip
    return {"rows": rows}, [*lines, "", *table(header, cells, text_columns=0)]


def held(folder: Path, chars: int, size: float) -> dict[str, Any]:
    from rinsho.contamination import Index
    from rinsho.synthesize.trust import benchmark_items
    from rinsho.tasks.igakuqa import read_igakuqa, years_in
    from rinsho.text import clean

    draw, items = random.Random(1), read_igakuqa(folder)
    hits: dict[str, Counter[str]] = {name: Counter() for name in ("years", "own", "changed")}
    texts, seconds = 0, 0.0

    def index(year: int | None) -> Index:
        passages = [("igakuqa", item.id, item.passage) for item in items if item.year != year]
        return Index.from_passages(passages, chars, "synthesize")

    def look(name: str, question: str, options: str, index: Index) -> None:
        text = f"{question}\n{options}"
        hits[name]["rule"] += bool(benchmark_items(text, index, question))
        hits[name]["any"] += index.covered(clean(text))[0] > 0
        hits[name].update(str(share) for share in SHARES if index.held(clean(text), share))

    everything = index(None)
    for year in years_in(folder):
        others = index(year)
        own = [item for item in items if item.year == year]
        for item in own[: max(1, int(size * len(own)))]:
            options = "\n".join(item.options)
            changed = re.sub(r"[0-9０-９]+", lambda _: str(draw.randrange(10, 99)), item.passage)
            look("years", item.passage, options, others)
            look("own", item.passage, options, everything)
            look("changed", changed, options, everything)
            started = time.process_time()
            benchmark_items(f"{item.passage}\n{options}", others, item.passage)
            seconds += time.process_time() - started
            texts += 1
    shares = {
        name: {key: found[key] / texts for key in ("any", "rule", *map(str, SHARES))} for name, found in hits.items()
    }
    return {
        "chars": chars,
        "texts": texts,
        "items": len(items),
        "short": len(everything.short),
        "seconds": seconds,
        **shares,
    }


# ---- instructions


def novelty(given: argparse.Namespace) -> Found:
    """How fast instructions are judged against many known ones, beside ROUGE-L with every one of them."""
    folder = real(given, "text")
    if folder is None:
        return without("text")
    row = apart(judged, folder, int(KNOWN * given.size), int(ASKED * given.size))
    cells = [[f"{row['known']:,}", f"{row['known'] / row['adding']:,.0f}", f"{row['mib']:.0f}",
              f"{row['new'] / row['new_seconds']:,.0f}", f"{row['edited'] / row['edited_seconds']:,.0f}",
              f"{row['edited_found']} of {row['edited']}", f"{1 / row['each_seconds']:.2f}",
              f"{row['differ']} of {row['compared']}"]]  # fmt: skip
    header = ["known", "added a CPU second", "MiB more at most", "others judged a CPU second", "edited ones judged",
              "edited ones near", "by comparing with each", "judged otherwise than so"]  # fmt: skip
    lines = [f"Beginnings of real sentences with one of {len(ENDS)} endings; edited ones are known ones with up to "
             f"40 % of their characters replaced. Near: ROUGE-L of {LIMIT:g} or more."]  # fmt: skip
    return row, [*lines, "", *table(header, cells, text_columns=0)]


def judged(folder: Path, known: int, asked: int) -> dict[str, Any]:
    from rinsho.circumstances import peak_memory_gib, reset_peak_memory
    from rinsho.synthesize.novelty import Novelty, rouge_l

    draw = random.Random(1)
    pool = some_sentences(folder, ["medical", "wikipedia", "law"], 15, 80)[: known + asked]
    texts = [sentence.rstrip("。")[:45] + draw.choice(ENDS) for sentence in pool]
    first, others = texts[: len(texts) - asked], texts[len(texts) - asked :]
    letters = "".join(others)
    edited = []
    for text in draw.sample(first, asked):
        rate = draw.uniform(0, 0.4)
        edited.append("".join(draw.choice(letters) if draw.random() < rate else letter for letter in text))
    reset_peak_memory()
    before, started = peak_memory_gib(), time.process_time()
    novel = Novelty(LIMIT)
    for place, text in enumerate(first):
        novel.add(str(place), text)
    row = {"known": len(first), "adding": time.process_time() - started, "mib": (peak_memory_gib() - before) * 1024}
    said: dict[str, bool] = {}
    for name, questions in (("new", others), ("edited", edited)):
        started = time.process_time()
        answers = [novel.near(text) is not None for text in questions]
        row |= {name: len(answers), f"{name}_seconds": time.process_time() - started, f"{name}_found": sum(answers)}
        said |= dict(zip(questions, answers, strict=True))
    compared = [*others[: COMPARED_WITH_ALL // 2], *edited[: COMPARED_WITH_ALL // 2]]
    started = time.process_time()
    near_to_any = [max(rouge_l(text, one) for one in first) >= LIMIT for text in compared]
    row["each_seconds"] = (time.process_time() - started) / len(compared)
    row |= {"compared": len(compared), "differ": sum(said[text] != other for text, other in
                                                     zip(compared, near_to_any, strict=True))}  # fmt: skip
    return row
